"Runs that are killed end with the same bits; full disks, lost kernels and lost processes end with one sentence."
import json, random, subprocess, time
import pytest, torch
from crash import BARE, ONE, TRAIN, TWO, kill, start, strike, survive


@pytest.mark.parametrize('args', [ONE, TWO], ids=['one network, EMAN', 'two students, K views'])
def test_killed_runs_end_with_the_same_bits(args, tmp_path):
    found, diff = survive(tmp_path, args, 2, random.Random(1), BARE)
    assert len(found) == 2 and not diff
    for where, nth in ('save', 3), ('replace', 1 if args is ONE else 2):
        died, diff = strike(tmp_path, args, where, nth, BARE)
        assert died and not diff


@pytest.fixture
def small_disk(tmp_path):
    "A disk of 16 MB."
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', tmp_path], capture_output=True).returncode: pytest.skip('may not mount a small disk here')
    yield tmp_path
    subprocess.run(['umount', '-l', tmp_path])


def test_a_full_disk_ends_with_one_sentence_and_spares_the_last_good_state(small_disk):
    "The first state (10 MB) fits, the second one beside it doesn't."
    out = small_disk/'run'
    p = start(TRAIN, *ONE, '--out', out)
    said, _ = p.communicate(timeout=300)
    assert p.returncode == 2 and 'no space left' in said and 'Traceback' not in said, said
    s = torch.load(out/'state.pt', weights_only=True)
    assert s['t'] >= 1 and not [f for f in out.iterdir() if f.name.startswith('.state')]
    (out/'people.png').unlink(missing_ok=True)
    assert json.loads((out/'config.json').read_text())['config']['recipe'] == 'pose-mum-plus'


def test_a_lost_kernel_keeps_its_notebook_and_says_how_to_go_on(tmp_path):
    out = tmp_path/'run'
    p = start(TRAIN, *ONE, '-p', 'steps=4000', '--out', out)
    while not (out/'state.pt').exists() and p.poll() is None: time.sleep(.2)
    kill(p, 'kernel')
    said, _ = p.communicate(timeout=120)
    assert p.returncode == 1 and 'its kernel died' in said and 'the same command goes on' in said, said
    assert 'parameters' in (out/'train.ipynb').read_text() and not (out/'train.part.ipynb').exists()
    assert torch.load(out/'state.pt', weights_only=True)['t'] >= 1
