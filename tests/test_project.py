"""The plumbing: one list of requirements, a package that is what the notebooks export, a repository free of accidents."""
import ast, configparser, os, re, shutil, subprocess, sys
from pathlib import Path

import pytest

try: import tomllib
except ModuleNotFoundError: import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def settings():
    c = configparser.ConfigParser(interpolation=None)
    c.read(ROOT / 'settings.ini')
    return c['DEFAULT']


def project(): return tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


def files():
    "Every file that git tracks or would track; skips where git isn't there."
    r = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT, capture_output=True, text=True)
    if r.returncode: pytest.skip('not a git checkout')
    return [ROOT / p for p in r.stdout.split('\0') if p and (ROOT / p).is_file()]


def test_one_list_of_requirements():
    assert set(settings()['requirements'].split()) == set(project()['dependencies'])


def test_version_and_python_agree():
    import sshpe
    assert settings()['version'] == sshpe.__version__
    assert project()['requires-python'] == '>=' + settings()['min_python']


def test_licence_is_whole(): assert 'TERMS AND CONDITIONS' in (ROOT / 'LICENSE').read_text()


@pytest.mark.parametrize('job', ['help', 'demo', 'test', 'lab', 'export'])
def test_make_knows(job):
    r = subprocess.run(['make', '-n', job], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "The notebooks, exported and cleaned in a folder of their own, with no package to begin with."
    to = tmp_path_factory.mktemp('export')
    shutil.copy(ROOT / 'settings.ini', to)
    shutil.copytree(ROOT / 'nbs', to / 'nbs', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH')}   # nbdev_export does nothing under IN_TEST
    for job in 'nbdev_export', 'nbdev_clean':
        r = subprocess.run([Path(sys.executable).parent / job], cwd=to, env=env, capture_output=True, text=True)
        assert r.returncode == 0, r.stderr
    return to


def test_nbdev_3_exports_the_same_package(copy, tmp_path):
    "The table in pyproject.toml says to nbdev 3 what settings.ini says to nbdev 2; only the index of names differs."
    pip = [sys.executable, '-m', 'pip', 'install', '-q', '--target', tmp_path / 'nbdev3', 'nbdev>=3']
    if subprocess.run(pip, capture_output=True, timeout=300).returncode: pytest.skip('nbdev 3 cannot be fetched here')
    to = tmp_path / 'copy'; to.mkdir()
    shutil.copytree(copy / 'nbs', to / 'nbs'); shutil.copy(ROOT / 'pyproject.toml', to)
    (to / 'sshpe').mkdir(); shutil.copy(ROOT / 'sshpe/__init__.py', to / 'sshpe')  # nbdev 3 reads the version there
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    code = 'from nbdev.doclinks import nbdev_export; nbdev_export()'
    r = subprocess.run([sys.executable, '-c', code], cwd=to, env={**env, 'PYTHONPATH': str(tmp_path / 'nbdev3')}, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    two, three = ({p.relative_to(d): p.read_text() for p in (d / 'sshpe').rglob('*.py') if p.name != '_modidx.py'} for d in (copy, to))
    assert two and two == three


def test_package_is_what_the_notebooks_export(copy):
    ours, theirs = ({p.relative_to(d): p.read_text() for p in (d / 'sshpe').rglob('*.py')} for d in (ROOT, copy))
    assert sorted(ours) == sorted(theirs), 'modules without a notebook, or the other way round'
    assert [str(k) for k in ours if ours[k] != theirs[k]] == [], 'run `make export`'


def test_notebooks_are_clean(copy):
    bad = [str(p.relative_to(ROOT)) for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts
           and p.read_text() != (copy / p.relative_to(ROOT)).read_text()]
    assert bad == [], 'run `make export`'


# spelt in pieces, so that this file passes its own test
MACHINE = [r'(?<![\w.$])/(?:' + '|'.join(['wo' 'rk', 'ro' 'ot', 'ho' 'me', 'o' 'pt', 'Us' 'ers']) + r')/\w',
           'py' r'pi\.org', 'pythonho' 'sted', 'npm' r'js\.org', r'deb\.deb' 'ian', '/tm' r'p/\w', 'extra-ind' 'ex-url = ']


def test_no_machine_in_the_files():
    found = []
    for p in files():
        if p.suffix in {'.jpg', '.png', '.safetensors', '.npz', '.npy', '.pt', '.mat'} or p.stat().st_size > 20_000_000: continue
        text = p.read_text(errors='replace')
        text = re.sub(r'"image/\w+": (\[[^]]*\]|"[^"]*")', '', text)   # base64 holds any word
        found += [f'{p.relative_to(ROOT)}: {m.group()}' for rule in MACHINE for m in re.finditer(rule, text)]
    assert found == []


# the house

ROOMS = ['errors', 'files', 'pose', 'models', 'data', 'ssl', 'evaluate', 'train', 'runs', 'experiments', 'explore', 'course', 'bench', 'render', 'docs', 'handouts', 'commands', 'cli']
MODULES = {p: '.'.join(p.relative_to(ROOT/'sshpe').with_suffix('').parts) for p in (ROOT/'sshpe').rglob('*.py') if not p.stem.startswith('_')}


def imports(path):
    "Modules of the package that a module imports, at its top or inside a function."
    here, out = MODULES[path].split('.')[:-1], set()
    for n in ast.walk(ast.parse(path.read_text())):
        if not isinstance(n, ast.ImportFrom): continue
        base = (n.module or '').split('.') if n.module else []
        if n.level: base = here[:len(here)-n.level+1]+base
        elif base[0] == 'sshpe': base = base[1:]
        else: continue
        whole = '.'.join(base)
        out |= {whole} if whole in MODULES.values() else {'.'.join([*base, a.name]) for a in n.names} & set(MODULES.values())
    return out


def test_rooms_are_used_in_one_direction():
    room = lambda m: ROOMS.index(m.split('.')[0])
    assert [(m, up) for p, m in MODULES.items() for up in imports(p) if room(up) > room(m)] == []


def test_no_module_needs_itself():
    needs = {m: imports(p) for p, m in MODULES.items()}
    while free := [m for m, n in needs.items() if not n & set(needs)]:
        for m in free: del needs[m]
    assert needs == {}


@pytest.mark.parametrize('name', sorted(MODULES.values()))
def test_a_module_fits_on_a_few_screens_and_says_what_it_holds(name):
    text = (ROOT/'sshpe'/Path(*name.split('.')).with_suffix('.py')).read_text()
    said = ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 400 and said and not said.startswith('After this')
