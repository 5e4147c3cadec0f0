"""The site: every notebook has a page, every link an end, the search finds words, and no page asks the network."""
import json, re
from pathlib import Path
from urllib.parse import unquote

import pytest
from bs4 import BeautifulSoup
from sshpe import docs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def site(tmp_path_factory): return docs.build(ROOT, tmp_path_factory.mktemp('site')).parent


@pytest.fixture(scope='module')
def pages(site): return {p: BeautifulSoup(p.read_text(), 'html.parser') for p in site.rglob('*.html')}


def test_every_notebook_and_module_has_a_page(site):
    for kind, at in (('nbs/**/*.ipynb', ''), ('sshpe/**/*.py', 'api/')):
        for p in ROOT.glob(kind):
            if '.ipynb_checkpoints' in p.parts or p.stem.startswith('_'): continue
            name = '/'.join(p.relative_to(ROOT).with_suffix('').parts[1:])
            assert (site/f'{at}{name.replace("/", ".") if at else name}.html').is_file(), name


def test_links_have_an_end(pages):
    ids, lost = {p: {unquote(e['id']) for e in s.find_all(id=True)} | {e['name'] for e in s.find_all('a', attrs={'name': True})} for p, s in pages.items()}, []
    for p, s in pages.items():
        for e in s.find_all(href=True):
            to, _, part = unquote(e['href']).partition('#')
            if re.match(r'\w+:', to): continue
            q = (p.parent/to).resolve() if to else p
            if not q.exists() or part and q in ids and part not in ids[q]: lost.append((p.name, e['href']))
    assert lost == []


def test_nothing_comes_from_elsewhere(site, pages):
    assert [(p.name, e) for p, s in pages.items() for e in s.find_all(src=True) if re.match(r'(\w+:)?//', e['src'])] == []
    assert [(p.name, e) for p, s in pages.items() for e in s.find_all('link') if re.match(r'(\w+:)?//', e['href'])] == []
    assert not re.search(r'url\(|@import', (site/'style.css').read_text()) and 'fetch(' not in (site/'site.js').read_text()


def test_pictures_are_there(pages):
    here = [(p.parent/e['src']).is_file() for p, s in pages.items() for e in s.find_all('img') if not e['src'].startswith('data:')]
    assert len(here) > 50 and all(here)

def test_pictures_have_words(pages):
    "What a page says where its picture stands, for those who cannot see it."
    alts = {(p.name, e['src']): e.get('alt', '').strip() for p, s in pages.items() for e in s.find_all('img')}
    assert [k for k, alt in alts.items() if not alt] == [] and sum(alt.startswith('picture: ') for alt in alts.values()) > 50


@pytest.mark.parametrize('word, page', [('quantile', 'components/pose/03_views'), ('confirmation', 'lessons/03_collapse'), ('eman', 'components/models/02_ema')])
def test_the_search_knows(site, word, page):
    index = json.loads((site/'index.js').read_text().removeprefix('window.INDEX = '))
    assert any(word in e['w'].split() and e['u'].startswith(page+'.html') for e in index)


def test_formulas_are_mathml():
    page = docs.rendered('a $x_i^2$ b\n\n$$\\frac{a}{b}$$ and `$HOME` and\n```sh\necho $a $b\n```\n')
    assert page.count('<math') == 2 and 'FORMULA' not in page and '$HOME' in page and '$a $b' in BeautifulSoup(page, 'html.parser').get_text()


def test_prices_are_no_formulas(): assert '<math' not in docs.rendered('it costs $5, or $ 6 $')
