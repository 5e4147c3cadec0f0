"""The course as a class gets it: copies without answers that run, sheets that ask all once, slides without a network, measured times."""
import ast, copy, json, os, re, shutil
from importlib.util import find_spec
from pathlib import Path

import nbformat, pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell
from sshpe import cli, handouts
from sshpe.course import answers, copies  # answers registers the exercises
from sshpe.course.exercise import EXERCISES
from sshpe.course.notes import NOTES

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT/'nbs/lessons').glob('0[1-8]_*.ipynb'))
STEMS = [p.stem for p in LESSONS]
CHROMIUM = next(filter(None, map(shutil.which, handouts.BROWSERS)), None)
SLIDES = bool(find_spec('sphinx_revealjs'))
browser = pytest.mark.skipif(not CHROMIUM, reason='there is no chromium or google-chrome on PATH')
lesson = pytest.mark.parametrize('stem', STEMS)


def original(stem): return nbformat.read(ROOT/f'nbs/lessons/{stem}.ipynb', 4)
def texts(nb): return [c.source for c in nb.cells if c.cell_type == 'markdown']
def code(nb): return [c.source for c in nb.cells if c.cell_type == 'code']
def plain(page):
    "A page's text without its formulas."
    soup = BeautifulSoup(page, 'html.parser')
    for m in soup('math'): m.decompose()
    return re.sub(r'\s+', ' ', soup.get_text(' '))
def bare(text): return re.sub(r'\W', '', text)
def told(number=''): return [t for k, n in NOTES.items() if k.startswith(number) for t in (n.answer, n.why, *n.wrong.values())]
def notes_of(nb): return texts(nb)[-1].partition('## For the instructor')[2]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "What `sshpe course --out class` writes."
    to = tmp_path_factory.mktemp('course')/'class'
    assert cli.main(['course', '--out', str(to), *['--slides']*SLIDES]) == 0
    return to


@pytest.fixture(scope='module')
def sheets(folder): return {n: plain((folder/f'{n}.html').read_text()) for n in ('exercises', 'instructor/answers')}


# ---- copies

@lesson
def test_a_student_s_copy_has_no_outputs_no_answers_no_notes(folder, stem):
    raw = json.loads((folder/f'{stem}.ipynb').read_text())
    nb, whole = original(stem), '\n'.join(''.join(c['source']) for c in raw['cells'])
    assert all(c['outputs'] == [] and c['execution_count'] is None for c in raw['cells'] if c['cell_type'] == 'code')
    secret = [l for l in notes_of(nb).splitlines() if l]+[t for t in told(stem[1]) if len(t) > 12]
    assert len(secret) > 15 and [s for s in secret if s in whole] == []


@lesson
def test_a_copy_keeps_the_rest(folder, stem):
    kept, nb = nbformat.read(folder/f'{stem}.ipynb', 4), original(stem)
    nbformat.validate(kept)
    assert '\n'.join(code(kept)).split() == '\n'.join(re.sub(r'^#\|.*\n?', '', s) for s in code(nb)).split()
    assert ''.join(texts(kept)).split() == ''.join(texts(nb)).partition('## For the instructor')[0].split()


@lesson
def test_set_up_is_folded_and_nothing_else(folder, stem):
    begun = False
    for c in nbformat.read(folder/f'{stem}.ipynb', 4).cells:
        begun |= c.cell_type == 'markdown' and '\n## ' in f'\n{c.source}'
        assert bool(c.metadata.get('jupyter', {}).get('source_hidden')) is (c.cell_type == 'code' and not begun)


@lesson
def test_tags_say_what_a_cell_is(folder, stem):
    for c in nbformat.read(folder/f'{stem}.ipynb', 4).cells:
        is_code = c.cell_type == 'code'
        signs = dict(exercise='answer = None' in c.source, prediction='# ←' in c.source, result='\npredicted(' in f'\n{c.source}', recap=c.source == 'recap()')
        signs = {k: is_code and v for k, v in signs.items()} | dict(text=not is_code)
        assert [k for k, here in signs.items() if here] == [t for t in c.metadata.tags if t not in ('code', 'setup')]


def test_links_in_copies_have_an_end(folder):
    lost, found = [], 0
    for p in folder.rglob('*.ipynb'):
        for to in re.findall(r'\]\(([^)\s]+)\)', '\n'.join(texts(nbformat.read(p, 4)))):
            if re.match(r'\w+:|#', to): continue
            found += 1
            if not (p.parent/to.partition('#')[0]).exists(): lost.append((p.name, to))
    assert lost == [] and found >= 16


def test_a_link_out_of_the_course_becomes_text():
    text = 'see [the pool](../components/ssl/01_denoise.ipynb), [two](02_belief.ipynb#a), [a site](https://example.org) and ![a picture](p.png)'
    assert copies.with_inner_links(text, {'02_belief'}) == 'see the pool, [two](02_belief.ipynb#a), [a site](https://example.org) and ![a picture](p.png)'


def test_the_instructor_has_outputs(folder):
    for p in LESSONS: assert json.loads((folder/'instructor'/p.name).read_text()) == json.loads(p.read_text())


# ---- questions, predictions and their order

@lesson
def test_predictions_stand_before_results(stem):
    cells = [c.source for c in original(stem).cells if c.cell_type == 'code']
    waiting = {re.match(r'\w+', s)[0]: i for i, s in enumerate(cells) if '# ←' in s}
    for name, i in waiting.items():
        assert [ast.unparse(n) for n in ast.parse(cells[i]).body] == [f'{name} = None']
        told = [k for k, s in enumerate(cells) if re.search(rf'^predicted\(.*, {name}, ', s, re.M)]
        assert len(told) == 1 and told[0] > i
    assert waiting


@lesson
def test_every_question_has_its_notes(stem):
    asked = [q.name for q in copies.questions(original(stem))]
    assert sorted(k for k in NOTES if k[0] == stem[1]) == sorted(q for q in asked if not q.endswith('.0'))
    assert all(bool(NOTES[q].answer) is (q in EXERCISES) for q in asked if q in NOTES)


def test_figures_in_notes_are_right():
    "Where an answer needs nothing of its lesson, its figure stands in the way to it."
    import math, numpy as np
    from sshpe.pose.skeleton import COCO17
    seen = 0
    for name, n in NOTES.items():
        try: value = eval(n.answer or 'None', dict(np=np, COCO17=COCO17, math=math))
        except (NameError, SyntaxError): continue
        if isinstance(value, (int, float)):
            seen += 1
            assert f'{value:.3g}' in n.why, name
    assert seen >= 8


# ---- sheets

def questions_of(nb):
    "The first words of all that a lesson asks."
    whole = '\n\n'.join(texts(nb))
    found = re.findall(r'\*\*(?:Before you run anything:|Predict:|\d\.\d)\*\* (.+)', whole)
    return [re.sub(r'\$.*?\$', '', f)[:80] for f in found]


def test_each_question_stands_once_on_each_sheet(sheets):
    for stem in STEMS:
        asked = questions_of(original(stem))
        assert len(asked) >= 5
        for name, text in sheets.items():
            assert [(name, q) for q in asked if bare(text).lower().count(bare(q).lower()) != 1] == []


def test_answers_stand_on_the_instructor_s_sheet_alone(sheets):
    secret = [t for t in told() if len(bare(t)) > 12]
    for stem in STEMS:
        nb = original(stem)
        results = [c for c in nb.cells if c.cell_type == 'code' and '\npredicted(' in f'\n{c.source}']
        said = [o.data['text/markdown'] for c in results for o in c.outputs if 'text/markdown' in o.get('data', {})]
        secret += [re.match(r'\*\*(.*?)\*\*', s)[1] for s in said]
        secret += [max(re.split(r'[.;·`$]', notes_of(nb)), key=len)]
    pages = {name: bare(text) for name, text in sheets.items()}
    assert len(secret) > 100 and [s for s in secret if bare(s) in pages['exercises']] == []
    assert [s for s in secret if bare(s) not in pages['instructor/answers']] == []


def pages(pdf): return len(re.findall(rb'/Type\s*/Page\b', pdf))


@browser
def test_sheets_are_printed_on_a4_and_a_lesson_begins_a_page(folder):
    for n in 'exercises', 'instructor/answers':
        w, h = map(float, re.search(rb'/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]', (folder/f'{n}.pdf').read_bytes()).groups())
        assert abs(w-210/25.4*72) < 1 and abs(h-297/25.4*72) < 1
    two = copies.lessons(['1', '6'])
    single = [pages(handouts.pdf(handouts.sheet({k: v}))) for k, v in two.items()]
    assert min(single) >= 1 and pages(handouts.pdf(handouts.sheet(two))) == sum(single)


def test_without_a_browser_there_is_no_pdf(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(handouts.shutil, 'which', lambda name: None)
    assert cli.main(['course', '1', '--out', str(tmp_path/'c')]) == 0
    assert (tmp_path/'c/exercises.html').exists() and not [*tmp_path.rglob('*.pdf')] and 'print the sheets from your browser' in capsys.readouterr().err


# ---- slides

@pytest.fixture(scope='module')
def shown(folder):
    "Each lesson's slides in a browser without a network: what was asked for, what went wrong, and each slide's text, pictures, height and paragraphs."
    api = pytest.importorskip('playwright.sync_api')
    if not CHROMIUM or not SLIDES: pytest.skip('slides are shown where there is chromium and sphinx-revealjs')
    alone, out = ['--disable-gpu', *['--no-sandbox']*(getattr(os, 'getuid', lambda: 1)() == 0)], {}
    with api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=alone)
        context = b.new_context(offline=True, viewport=dict(width=1280, height=800))
        for f in sorted((folder/'instructor/slides').glob('*.html')):
            page, wrong, asked = context.new_page(), [], []
            page.on('pageerror', lambda e: wrong.append(str(e)))
            page.on('console', lambda m: m.type in ('error', 'warning') and wrong.append(m.text))
            page.on('request', lambda r: asked.append(r.url))
            page.goto(f.as_uri()); page.wait_for_function('window.Reveal && Reveal.isReady()', timeout=60_000)
            out[f.stem] = wrong, asked, page.evaluate('''() => Reveal.getSlides().map(s => {
                const i = Reveal.getIndices(s); Reveal.slide(i.h, i.v)
                const seen = [...s.querySelectorAll('img')].filter(i => i.naturalWidth)
                return [s.innerText, seen.length, s.scrollHeight, s.querySelectorAll('p').length] })''')
            page.close()
        b.close()
    return out


def test_slides_need_no_network_and_nothing_goes_wrong(shown):
    assert sorted(shown) == ['00_course', *STEMS]
    for wrong, asked, _ in shown.values(): assert wrong == [] and asked and all(u.startswith(('file:', 'data:', 'blob:')) for u in asked)


@lesson
def test_slides_hold_the_lesson(shown, stem):
    slides = shown[stem][2]
    pictures = sum('image/png' in o.get('data', {}) for c in original(stem).cells for o in c.get('outputs', ()))
    assert sum(n for _, n, *_ in slides) == pictures and [t for t, _, tall, _ in slides if tall > 700] == []
    seen, headings = bare(' '.join(t for t, *_ in slides)), re.findall(r'^##? (.*)', '\n'.join(texts(original(stem))), re.M)
    assert [h for h in headings if (bare(h) in seen) is (h == 'For the instructor')] == []


@lesson
def test_a_prediction_s_slide_does_not_show_its_result(shown, stem):
    slides = shown[stem][2]
    asked = [s for s in slides if 'Predict:' in s[0]]
    assert len(asked) == sum('**Predict:**' in t for t in texts(original(stem)))
    assert all(t.startswith('Predict:') and (pictures, paragraphs) == (0, 1) for t, pictures, _, paragraphs in asked)


def test_without_reveal_js_a_sentence_and_nothing_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(handouts, 'find_spec', lambda name: None)
    assert cli.main(['course', '--out', str(tmp_path/'c'), '--slides']) == 2
    assert "pip install 'sshpe[slides]'" in capsys.readouterr().err and [*tmp_path.iterdir()] == []


# ---- the folder

def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path/'mine.txt').write_text('mine')
    for at in tmp_path, tmp_path/'mine.txt':
        assert cli.main(['course', '1', '--out', str(at)]) == 2
        said = capsys.readouterr().err
        assert str(at) in said and len(said.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ['mine.txt'] and (tmp_path/'mine.txt').read_text() == 'mine'


@pytest.mark.parametrize('words, said', [([], '--out DIR'), (['--out', 'x', '9'], "no lesson '9'"), (['--out', 'x', '01_label'], "did you mean '01_labels'"),
                                         (['1', '--out', '/dev/null/class'], 'cannot be written')])
def test_errors_are_a_sentence(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(['course', *words]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1 and not [*tmp_path.iterdir()]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(TypeError): handouts.write(tmp_path/'c', {'a.txt': 'a', 'b.txt': None})
    assert [*tmp_path.iterdir()] == []


# ---- in class

def with_probes(nb):
    "After each exercise its wrong answers are tried as well."
    out = copy.deepcopy(nb); out.cells = []
    for c in nb.cells:
        out.cells.append(c)
        name = re.search(r"^check\('(\d\.\d)', answer\)", c.source, re.M)
        if c.cell_type != 'code' or not name: continue
        tried = ''.join(f'said = check({name[1]!r}, {w})\nassert said.ok is False and "stopped with" not in said.text, {w!r}\n' for w in NOTES[name[1]].wrong)
        out.cells += [new_code_cell(tried+f"check('{name[1]}', answer)")]  # the recap counts the last one
    return out


@lesson
def test_a_student_with_right_answers(folder, stem, tmp_path):
    "The copy runs in a folder that holds nothing else; the notes' answers are right, and what is often said instead is refused."
    from nbclient import NotebookClient
    answers = {k: n.answer for k, n in NOTES.items() if n.answer}
    nb = with_probes(copies.answered(nbformat.read(folder/f'{stem}.ipynb', 4), answers))
    NotebookClient(nb, timeout=900, startup_timeout=600, resources={'metadata': {'path': str(tmp_path)}}).execute()
    last = next(c for c in reversed(nb.cells) if c.source == 'recap()')
    assert '3 exercises are right' in last.outputs[0].data['text/markdown']


def test_time_is_said(capsys):
    assert cli.main(['course', '8', '--time', '--json']) == 0
    d = json.loads(capsys.readouterr().out)['lessons']['08_table']
    assert d['right'] == 3 and d['minutes'] == 20 and 0 < d['longest'] <= d['seconds']+d['exercises'] < 900


@lesson
def test_stated_times_agree(stem):
    "The overview, the notes' total and the sum of their parts."
    table = re.search(rf'\[{stem}\].*\| (\d+) \|', texts(original('00_course'))[0])[1]
    first = notes_of(original(stem)).strip().splitlines()[0]
    parts = re.sub(r'\(.*?\)', '', first.partition(':')[2]).split(';')[0].split('·')
    assert first.startswith(f'{table} minutes') and sum(int(re.findall(r'\d+', p)[-1]) for p in parts) == int(table)


@lesson
def test_waiting_takes_a_tenth_of_a_lesson_at_most(stem):
    "As measured: sshpe course --time --json > data/results/course.json"
    d = json.loads((ROOT/'data/results/course.json').read_text())['lessons'][stem]
    assert d['right'] == 3 and d['minutes'] == copies.minutes(original(stem)) and d['seconds'] <= 60*d['minutes']/10
