"Fixtures for tests of explorers: shipped networks, and ten people in a store of their own."
import os
import pytest
from sshpe.data.registry import load
from sshpe.explore.people import networks

N = 10 # people


@pytest.fixture(scope='module')
def x(): return networks('denoise-select')

@pytest.fixture(scope='module')
def people(tmp_path_factory):
    os.environ['SSHPE_CACHE'] = str(tmp_path_factory.mktemp('store'))
    return load('people', split='val')[:N]
