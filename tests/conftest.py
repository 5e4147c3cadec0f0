"""What every test shares: the repository's root, one thread a process, pictures without a screen, steady hypothesis.

    python -m pytest tests/test_hostile.py --json=data/results/trust.json      # keep what was counted and measured
"""
import os
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.pop('MPLBACKEND', None)   # a kernel must be free to show its figures
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
os.environ['PYDEVD_DISABLE_FILE_VALIDATION'] = '1'

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile('sshpe', deadline=None, derandomize=True, max_examples=50,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile('sshpe')

# After each save: the method's own rules, in less than three minutes (pytest -m fast). The other files train, open kernels, browsers and servers.
FAST = {'test_bits', 'test_colour', 'test_denoise', 'test_draw', 'test_heatmap', 'test_methods', 'test_mum', 'test_occlude', 'test_perturb', 'test_protocol', 'test_recipe',
        'test_teacher', 'test_uncertainty', 'test_views'}

def pytest_collection_modifyitems(items):
    for item in items: item.add_marker(pytest.mark.fast if item.path.stem in FAST else pytest.mark.slow)


@pytest.fixture(autouse=True)
def steady():
    "Every test has the same random numbers, whatever ran before it in its process."
    import numpy as np, torch
    np.random.seed(0); torch.manual_seed(0)


@pytest.fixture(scope='session')
def root(): return ROOT


@pytest.fixture(scope='session')
def sticks(tmp_path_factory):
    "A data set of 64 + 16 stick people, in COCO's layout."
    from sshpe.data.toy import stick_people
    os.environ['SSHPE_CACHE'] = str(tmp_path_factory.mktemp('store'))
    return stick_people(tmp_path_factory.mktemp('sticks'))


@pytest.fixture(scope='session')
def done(sticks, tmp_path_factory):
    "A finished run of two students on stick people."
    from sshpe.runs import run, training
    c = run.Config(root=str(sticks), labels=16, preset='tiny', out=str(tmp_path_factory.mktemp('done')/'run'))
    x = training.start(c)
    training.fit(x)
    training.finish(x)
    return x


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    "A folder with stick people in `sticks`, and a small finished run on them in `run`."
    from sshpe.data.toy import stick_people
    from sshpe.runs import run, training
    d = tmp_path_factory.mktemp('here')
    stick_people(d/'sticks')
    training.finish(training.fit(training.start(run.config(dict(preset='tiny', labels=8, root=str(d/'sticks'), out=str(d/'run'))))))
    return d


def pytest_addoption(parser): parser.addoption('--json', default='', help='where to keep figures, see tests/figures.py')


def kept(config, part, file, **figures): # file: of the test
    from figures import keep
    keep(config.getoption('json'), part, f'python -m pytest {file}', **figures)


@pytest.fixture
def note(request):
    "Keep a part of the figures."
    return lambda part, **figures: kept(request.config, part, f'tests/{request.node.path.name}', **figures)


def pytest_sessionfinish(session):
    "Keep how each file's tests ended."
    if not session.config.getoption('json') or hasattr(session.config, 'workerinput'): return
    reports = session.config.pluginmanager.get_plugin('terminalreporter').stats
    ends = {how: Counter(r.nodeid.split('::')[0] for r in reports.get(how, ())) for how in ('passed', 'failed', 'error', 'skipped')}
    for file in set().union(*ends.values()): kept(session.config, file, file, **{how: n[file] for how, n in ends.items()})
