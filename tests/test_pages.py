"The explorers as an application: what opens, what is refused, who may look, and how it ends."
import ast, json, re, signal, socket, subprocess, sys, urllib.error, urllib.request
from dataclasses import replace
from pathlib import Path

import nbformat, pytest

from started import started

from sshpe.cli import main
from sshpe.errors import InputError
from sshpe.explore.people import networks, only_rendered
from sshpe.explore.pages import call, ENTRIES, explorer, front, LOOK, opened, entry_options, tiles, write_page

ROOT = Path(__file__).resolve().parents[1]
SSHPE = [sys.executable, '-c', 'from sshpe.cli import main; raise SystemExit(main())']
PHOTO = str(next((ROOT/'data/people/val').rglob('*.jpg')))


def test_every_explorer_has_a_tile():
    assert list(tiles()) == list(ENTRIES) == [p.stem[3:] for p in sorted((ROOT/'nbs/explorers').glob('[0-9]*.ipynb'))]
    for t in tiles().values():
        assert t.picture.startswith(b'\x89PNG') and t.promise.endswith('.') and 'After' not in t.promise
        page = front(tiles(), {})
        assert f'href="/{t.name}"' in page and f'src="/{t.name}.png" alt="{t.title}: how it looks"' in page


@pytest.mark.parametrize('words, meant', [
    (['heatmap'], "did you mean 'heatmaps'?"), (['heatmap#person=3'], "did you mean 'heatmaps'?"), (['teachers', '--photo', PHOTO], 'takes no --photo: it takes --run'), (['label', '--run', 'supervised'], 'no --run'),
    (['--run', 'supervized'], "did you mean 'supervised'?"), (['--photo', 'no.jpg'], 'there is no photo no.jpg'), (['--port', 'x'], 'port')])
def test_mistakes_cost_one_sentence(capsys, words, meant):
    code, err = main(['explore', *words]), capsys.readouterr().err
    assert code == 2 and meant in err and err.count('\n') == 1


def test_a_port_in_use_is_refused(capsys):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0)); s.listen()
        port = s.getsockname()[1]
        assert main(['explore', '--port', str(port)]) == 2 and f'port {port} is in use' in capsys.readouterr().err


def test_without_voila_the_line_that_installs_it(capsys, monkeypatch):
    for k in [k for k in sys.modules if k.partition('.')[0] == 'voila' or k == 'sshpe.explore.server']: monkeypatch.delitem(sys.modules, k)
    monkeypatch.setitem(sys.modules, 'voila', None)
    monkeypatch.setitem(sys.modules, 'voila.app', None)
    assert main(['explore']) == 2 and 'pip install voila' in capsys.readouterr().err


def test_options_reach_the_page(tmp_path, monkeypatch):
    "A served notebook's only cell is the call with the options that its explorer takes, files by their whole paths."
    monkeypatch.chdir(tmp_path); (tmp_path/'me.jpg').write_bytes(Path(PHOTO).read_bytes()); (tmp_path/'run').mkdir()
    given = entry_options(run=['run', 'supervised'], data='people:wild', photo='me.jpg')
    assert given == dict(run=(str(tmp_path/'run'), 'supervised'), data='people:wild', photo=str(tmp_path/'me.jpg'))
    write_page(tmp_path, given)
    for name, e in ENTRIES.items():
        nb = nbformat.read(tmp_path/f'{name}.ipynb', 4)
        nbformat.validate(nb)
        last = ast.parse(nb.cells[0].source).body[-1].value
        assert len(nb.cells) == 1 and ast.literal_eval(last.args[0]) == name
        assert {k.arg: ast.literal_eval(k.value) for k in last.keywords} == {k: given[k] for k in LOOK if k in e.takes}


def test_what_opens_is_what_was_asked_for():
    e = explorer('heatmaps', run=('supervised',), photo=PHOTO)
    assert e.x.where.name == 'supervised' and e.state['photo'] == PHOTO
    assert explorer('label', data='people:wild', person=2).state['person'] == 2
    with pytest.raises(InputError, match='compares two, not 3'): explorer('views', run=('supervised', 'denoise-select', 'supervised'))

def test_a_photo_is_seen_by_the_network_that_knows_most():
    assert {n: explorer(n, photo=PHOTO).x.where.name for n in ('heatmaps', 'selection')} == dict(heatmaps='rendered', selection='denoise-select')

@pytest.mark.parametrize('config,alone', [(dict(), True), (dict(weights='rendered'), True), (dict(unlabelled='rest+people:wild'), True), (dict(weights='imagenet'), False),
    (dict(unlabelled='lspet=photos'), False), (dict(data='lspet', root='photos'), False)])
def test_who_has_only_seen_rendered_people(tmp_path, config, alone):
    x = networks('supervised')
    facts = json.loads((x.where/'config.json').read_text())
    (tmp_path/'config.json').write_text(json.dumps({**facts, 'config': {**facts['config'], **config}}))
    assert only_rendered(replace(x, where=tmp_path)) == alone


def test_what_cannot_be_opened_says_why():
    assert 'has one network: selection needs two' in opened('selection', run=('supervised',)).value


# ---- the server

@pytest.fixture
def served():
    with started([*SSHPE, 'explore', '--no-browser'], cwd='/') as p: yield p, p.stdout.readline().strip()


def ask(url, **more):
    jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    try:
        r = jar.open(urllib.request.Request(url, **more), timeout=30)
        return r.status, r.url, r.read().decode(errors='replace'), dict(r.headers)
    except urllib.error.HTTPError as e: return e.code, url, '', {}


def test_only_the_token_opens_and_ctrl_c_ends(served):
    p, url = served
    root, token = re.fullmatch(r'(http://127\.0\.0\.1:\d+)/\?token=(\w{32})', url).groups()
    status, _, page, headers = ask(url)
    assert status == 200 and all(f'href="/{k}"' in page for k in ENTRIES)
    assert "default-src 'self'" in headers['Content-Security-Policy']
    for path in ('/', '/heatmaps', '/heatmaps.png', '/voila/render/heatmaps.ipynb'):
        status, where, page, _ = ask(root+path)
        assert status in (401, 403) or '/login' in where, path
        assert 'href="/views"' not in page
    assert ask(f'{root}/nothing?token={token}')[0] == 404
    p.send_signal(signal.SIGINT)
    assert p.wait(30) == 0 and p.stdout.read().rstrip().endswith('ended')
    with pytest.raises(OSError): urllib.request.urlopen(root, timeout=5)
