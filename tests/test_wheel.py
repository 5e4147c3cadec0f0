"The kit without its repository: a wheel carries everything that its commands open, and runs land in the current folder."
import os, shutil, subprocess, sys, zipfile
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = 'sshpe', 'nbs', 'data/people', 'data/networks', 'data/records', 'data/papers', 'data/grids', 'data/results'
FILES = 'setup.py', 'pyproject.toml', 'settings.ini', 'README.md', 'LICENSE'

def call(*words, where, **env):
    return subprocess.run(words, cwd=where, env={**os.environ, **env}, capture_output=True, text=True, timeout=400)

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    pytest.importorskip('setuptools')
    source = tmp_path_factory.mktemp('source')
    for p in PARTS: shutil.copytree(ROOT/p, source/p, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
    for f in FILES: shutil.copy(ROOT/f, source)
    p = call(sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '-q', '-w', str(source/'dist'), '.', where=source)
    assert p.returncode == 0, p.stderr
    return next((source/'dist').glob('*.whl'))

@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
    "A folder that holds the wheel's files and nothing else, and an empty one to work in."
    target, empty = tmp_path_factory.mktemp('installed'), tmp_path_factory.mktemp('empty')
    p = call(sys.executable, '-m', 'pip', 'install', '--no-deps', '-q', '--target', str(target), str(wheel), where=empty)
    assert p.returncode == 0, p.stderr
    return target, empty

def sshpe(installed, *words):
    target, empty = installed
    code = 'import sys; from sshpe.cli import main; sys.exit(main())'
    return call(sys.executable, '-c', code, *words, where=empty, PYTHONPATH=str(target), SSHPE_CACHE=str(empty/'cache'))

def test_all_that_comes_with_the_kit_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for part in PARTS[2:]:
        for f in (ROOT/part).rglob('*'):
            if f.is_file(): assert f'sshpe/shipped/{f.relative_to(ROOT)}' in inside
    assert {f'sshpe/{f.relative_to(ROOT/"sshpe")}' for kind in ('js', 'css') for f in (ROOT/'sshpe').rglob(f'*.{kind}')} <= inside

def test_the_installed_package_is_not_the_repository(installed):
    target, empty = installed
    code = 'from sshpe.files import home, workplace; print(home(), workplace(), sep="\\n")'
    p = call(sys.executable, '-c', code, where=empty, PYTHONPATH=str(target))
    assert [Path(x).resolve() for x in p.stdout.splitlines()] == [(target/'sshpe/shipped').resolve(), empty.resolve()], p.stderr

def test_train_without_a_repository(installed):
    p = sshpe(installed, 'train', '--preset', 'tiny', '--labels', '20', '--recipe', 'denoise-select', '--seed', '3')
    assert p.returncode == 0, p.stdout+p.stderr
    runs = list((installed[1]/'runs').glob('*/metrics.json'))
    assert len(runs) == 1 and (runs[0].parent/'train.ipynb').exists()
    assert 'denoise-select' in sshpe(installed, 'runs').stdout
