"What only a GPU can show; left out where there is none."
import json
import pytest, torch
from sshpe.models.device import REPAYS
from sshpe.runs import run
from sshpe.cli import main
from test_processes import close, learner, rows_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU')
METHODS = 'supervised', 'dual-pose', 'denoise-select', 'pose-mum-plus', 'denoise-mum'
FIRST = 2e-4 # a GPU adds up in another order

def rows(name, n=4, device='cuda', **changes): return rows_of(learner(name, device, 8, **changes), n)

@pytest.fixture
def exact():
    "32 bits are 32 bits."
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before

@pytest.mark.parametrize('name', METHODS)
def test_a_gpu_learns_what_a_cpu_does(name, exact): close(rows(name), rows(name, device='cpu'), 3e-2, FIRST)

@pytest.mark.parametrize('name', METHODS)
def test_bf16_begins_like_32_bits(name):
    a, b = rows(name, 1, precision='bf16'), rows(name, 1)
    assert a[0]['labelled'] == pytest.approx(b[0]['labelled'], rel=2e-2)

@pytest.mark.parametrize('name', METHODS)
def test_a_step_asks_the_gpu_for_no_number(name):
    l = learner(name, 'cuda', 8, workers=2)
    for _ in range(3): l.one_step()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(3): l.one_step()
    finally: torch.cuda.set_sync_debug_mode('default')

@pytest.mark.parametrize('name', METHODS)
def test_cuda_graphs_learn_what_eager_steps_do(name, exact):
    torch._dynamo.reset()
    close(rows(name, 6, compile='reduce-overhead'), rows(name, 6), 3e-2, FIRST)

def test_a_long_run_is_compiled_without_being_asked():
    assert [learner('pose-mum-plus', 'cuda', n).mode for n in (8, REPAYS)] == ['', 'reduce-overhead']

def test_a_run_on_a_gpu_goes_on_on_a_cpu(tmp_path):
    given = ['--recipe', 'denoise-select', '--preset', 'tiny', '--labels', '16', '-p', 'every=2', '-p', 'save_every=0']
    assert main(['train', *given, '--device', 'cuda', '--out', str(tmp_path/'run')]) == 0
    facts, m = run.facts(tmp_path/'run'), json.loads((tmp_path/'run/metrics.json').read_text())
    assert facts['device'] == torch.cuda.get_device_name() and facts['precision'] == 'bf16' and m['steps'] == facts['steps']
    l = learner('dual-pose', 'cuda', 8).fit(tmp_path/'s.pt', until=4)
    c = learner('dual-pose', 'cpu', 8).fit(tmp_path/'s.pt', until=4)
    assert c.t == l.t == 4 and all(torch.equal(a.cpu(), b) for f, g in zip(l.students, c.students) for a, b in zip(f.state_dict().values(), g.state_dict().values()))
    assert c.fit().t == 8
