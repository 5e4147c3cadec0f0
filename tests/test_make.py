"`make` itself: each job is run, in a copy of the repository and at the size of a test. `make lab` is run in test_hostile, and `make install` by whoever runs this."
import os, re, shutil, signal, subprocess, sys
from pathlib import Path
import pytest
from started import started

ROOT = Path(__file__).resolve().parents[1]
JOBS = {'explore', 'demo', 'fast', 'test', 'lab', 'export', 'readme', 'docs', 'install'}
IGNORED = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "The repository, without what git ignores."
    to = tmp_path_factory.mktemp('repository')
    for f in 'Makefile', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE': shutil.copy(ROOT/f, to)
    for d in 'nbs', 'sshpe', 'tests': shutil.copytree(ROOT/d, to/d, ignore=IGNORED)
    (to/'data').mkdir()
    for d in (ROOT/'data').iterdir():
        if d.name != 'store': (to/'data'/d.name).symlink_to(d)
    (to/'data/pictures').unlink(); shutil.copytree(ROOT/'data/pictures', to/'data/pictures')
    return to

def surroundings(copy):
    "Of a reader: no test, and no `make` around it that would say which folder it enters."
    return {k: v for k, v in os.environ.items() if not k.startswith(('PYTEST', 'IN_TEST', 'MAKE', 'MFLAGS', 'ARGS'))} | dict(PYTHONPATH=str(copy))

def make(copy, job, **values):
    "The job, with this Python for the one in .venv."
    words = [f'{k}={v}' for k, v in dict(BIN=Path(sys.executable).parent, READY='', **values).items()]
    r = subprocess.run(['make', job, *words], cwd=copy, env=surroundings(copy), capture_output=True, text=True, timeout=580)
    assert r.returncode == 0, r.stdout[-2000:]+r.stderr[-2000:]
    return r.stdout

def files(folder): return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file() and not IGNORED('', [*p.parts])}

def test_help_names_every_job(copy):
    known = set(re.search(r'\.PHONY:(.*)', (ROOT/'Makefile').read_text())[1].split())-{'help'}
    assert set(re.findall(r'^ *make (\w+)', make(copy, 'help'), re.M)) == known and JOBS <= known

def test_explore(copy):
    "It says one address on loopback, with a token, and ends on Ctrl-C."
    values = dict(BIN=Path(sys.executable).parent, READY='', ARGS='--no-browser').items()
    with started(['make', 'explore', *(f'{k}={v}' for k, v in values)], cwd=copy, env=surroundings(copy)) as p:
        assert re.fullmatch(r'http://127\.0\.0\.1:\d+/\S*token=\w{16,}\S*', p.stdout.readline().strip())
        os.killpg(p.pid, signal.SIGINT); p.wait(60)

def test_demo(copy, sticks, tmp_path):
    said = make(copy, 'demo', ARGS=f'--preset tiny --labels 16 --root {sticks} --out {tmp_path}/demo')
    assert all(r in said for r in ('denoise-select', 'pose-mum-plus', 'supervised')) and (tmp_path/'demo/demo.ipynb').exists()

@pytest.mark.parametrize('job', ['fast', 'test'])
def test_the_tests(copy, job): assert ' passed' in make(copy, job, ARGS='tests/test_uncertainty.py -k own_and_select')

def test_export_and_readme_change_nothing(copy):
    before = {d: files(copy/d) for d in ('nbs', 'sshpe', 'data/pictures')}, (copy/'README.md').read_bytes()
    make(copy, 'export'); make(copy, 'readme')
    assert before == ({d: files(copy/d) for d in before[0]}, (copy/'README.md').read_bytes())

def test_docs(copy):
    make(copy, 'docs')
    assert (copy/'_docs/index.html').exists() and len(list((copy/'_docs').rglob('*.html'))) > 80
