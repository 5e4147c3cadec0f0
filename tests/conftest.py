"""What every test shares: the repository's root, one thread a process, pictures without a screen, steady hypothesis."""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('MPLBACKEND', 'agg')
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
os.environ['PYDEVD_DISABLE_FILE_VALIDATION'] = '1'

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile('sshpe', deadline=None, derandomize=True, max_examples=50,
                          suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
settings.load_profile('sshpe')


@pytest.fixture(scope='session')
def root(): return ROOT
