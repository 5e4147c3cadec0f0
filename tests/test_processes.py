"Two processes against one: places, gradients, statistics, logs; and a process that dies."
import json, os, subprocess, sys, time
from pathlib import Path
import psutil, pytest, torch
from hypothesis import given, strategies as st
from sshpe.models import distributed
from sshpe.runs import run
from sshpe.errors import InputError
from sshpe.train.learner import Learner, LOSSES
from sshpe.runs.training import loss_of
from sshpe.runs.worker import work
from test_learner import S5, method, people

ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT/'tests')]), 'OMP_NUM_THREADS': '1'}
ACCELERATE = [sys.executable, '-m', 'accelerate.commands.launch', '--multi_gpu', '--num_processes=2', '--main_process_port=0', '-m', 'sshpe.runs.worker']
def torchrun(n, *job): return [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={n}', *map(str, job)]

def learner(name, device='cpu', steps=4, **changes):
    "A learner whose second step is already semi-supervised."
    scale = dict(n_labelled=4, n_unlabelled=8, burn_in=1, ramp=0, steps=steps) | (dict({'mix.group': 2}) if 'mum' in name else {})
    return Learner(*method(name, **scale, **changes), people(1), people(2, 10), S5, 3, device)

def rows_of(l, n=3):
    "Lines of the log of the next steps, one each."
    for _ in range(n): l.one_step(); l.rows.append(l.row())
    return l.rows

def alone(name, **changes):
    l = learner(name, **changes)
    return rows_of(l), l.bins

def close(rows, others, tolerance, first=2e-6):
    "Losses of two logs; the first step knows no rounding of earlier ones. Returns the largest relative difference."
    for i, (a, b) in enumerate(zip(rows, others, strict=True)):
        for k in LOSSES:
            assert (k in a) == (k in b), (i, k)
            if k in a: assert abs(a[k]-b[k]) <= 1e-7+(first if i == 0 else tolerance)*a[k], (i, k, a[k], b[k])
    return max(abs(a[k]-b[k])/a[k] for a, b in zip(rows, others) for k in LOSSES if a.get(k))


@given(st.integers(1, 64), st.integers(1, 8))
def test_pieces_cut_a_batch_into_equal_ranges(k, each):
    parts = distributed.pieces(k*each, each)
    assert [i for p in parts for i in p] == list(range(k*each)) and {len(p) for p in parts} == {k}
    if k > 1 and each > 1:
        with pytest.raises(InputError, match='n_labelled='): distributed.pieces(k*each+1, each, 'n_labelled')

def test_one_process_talks_to_nobody():
    x = torch.ones(3)
    distributed.total_([x]); distributed.average_([x])
    assert distributed.mean(x) is x and x.tolist() == [1, 1, 1] and (distributed.rank(), distributed.size()) == (0, 1)
    assert distributed.agree(3)
    with distributed.first_alone(): pass

@pytest.fixture(scope='module')
def out(tmp_path_factory): return tmp_path_factory.mktemp('two')

@pytest.fixture(scope='module')
def two(out):
    "What two processes say."
    r = subprocess.run(torchrun(2, ROOT/'tests/several.py', out), env=ENV, capture_output=True, text=True, timeout=400)
    assert r.returncode == 0, r.stderr[-3000:]
    return [json.loads((out/f'{i}.json').read_text()) for i in (0, 1)]

def test_shared_statistics_are_those_of_the_whole_batch(two):
    for t in two: assert max(t['norm']) < 2e-5, t['norm']

@pytest.mark.parametrize('name, norm', [('pose-mum-plus', 'sync'), ('denoise-select', 'frozen'), ('pose-cons-ema-0.6', 'group')])
def test_two_processes_learn_what_one_does(two, name, norm, note):
    a, b = (t[f'{name} {norm}'] for t in two)
    assert a['bits'] == b['bits'] and a['bins'] == b['bins']  # students, teachers, statistics: the same on both
    rows, bins = alone(name, norm=norm)
    far = close(rows, a['rows'], 2e-2)
    note(f'processes: {name}, {norm}', steps=len(rows), difference=far)
    assert sum(a['bins']) == pytest.approx(sum(bins[0])) if not isinstance(a['bins'][0], list) else sum(a['bins'][0]) == pytest.approx(sum(bins[0]))

def test_statistics_of_ones_own_are_what_two_pieces_give(two):
    "Without shared statistics, two processes do what one does with two pieces (running statistics apart, which one process updates twice)."
    a, b = (t['pose-mum-plus batch'] for t in two)
    assert a['bits'] == b['bits']
    rows, _ = alone('pose-mum-plus', norm='batch', accumulate=2)
    close(rows[:2], a['rows'][:2], 2e-2)
    assert abs(alone('pose-mum-plus', norm='batch')[0][0]['labelled']-rows[0]['labelled']) > 1e-6  # and that is not one piece

LEAVE = '''
import time
from sshpe.models import distributed
distributed.join('cpu')
for _ in range(100): distributed.agree(1)
if not distributed.rank(): time.sleep(.5)
distributed.leave()
'''
def test_processes_may_end_one_after_another(tmp_path):
    "The first one scores networks while the others have nothing left to do; left to itself, gloo aborts some of those at their end."
    (tmp_path/'leave.py').write_text(LEAVE)
    r = subprocess.run(torchrun(4, tmp_path/'leave.py'), env=ENV, capture_output=True, text=True, timeout=400)
    assert r.returncode == 0, r.stderr[-3000:]

def test_they_know_whether_they_agree(two): assert [t['agree'] for t in two] == [[True, False]]*2

def test_a_state_between_two_rows_holds_what_both_have_counted(two, out):
    whole = learner('dual-pose', norm='sync', every=2).fit()
    l = learner('dual-pose', norm='sync', every=2)
    l.load(out/'state.pt')
    assert l.t == 3 and [r['step'] for r in l.rows] == [2]
    close(whole.rows, l.fit().rows, 1e-4)
    assert l.bins == whole.bins

def test_two_that_stop_after_the_counted_step_go_on_as_two(two):
    whole, resumed = two[0]['stopped']
    assert [r['step'] for r in whole] == [4, 8] and any(k.startswith('kept') for k in whole[1])
    for a, b in zip(whole, resumed, strict=True):
        assert a.keys() == b.keys()
        for k in a.keys()-{'seconds'}: assert a[k] == b[k] or a[k] == pytest.approx(b[k], rel=1e-6), k

@pytest.mark.parametrize('name', ['pose-mum-plus', 'denoise-select'])
def test_pieces_add_up_to_the_batch(name):
    "Gradient accumulation, where no normalisation looks at the batch."
    rows, bins = alone(name, norm='group')
    more, mins = alone(name, norm='group', accumulate=2)
    close(rows, more, 2e-2)
    assert sum(bins[0]) == sum(mins[0])

def test_a_lost_process_ends_the_others_and_the_run_goes_on_with_another_number(tmp_path, note):
    given = ['--recipe', 'dual-pose', '--preset', 'tiny', '--labels', '16', '--device', 'cpu', '--out', str(tmp_path/'run')]
    given += [a for k in ('norm=sync', 'steps=24', 'every=2', 'save_every=0') for a in ('-p', k)]
    p = subprocess.Popen([*ACCELERATE, *given], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    log, end = tmp_path/'run/log.csv', time.time()+400
    while len(run.read_log(log)) < 2 and time.time() < end: time.sleep(.3)
    workers = [q for q in psutil.Process(p.pid).children(recursive=True) if '--out' in q.cmdline()]
    assert len(workers) == 2
    workers[-1].kill()
    _, err = p.communicate(timeout=120)
    assert p.returncode and 'exitcode  : -9' in err and not any(q.is_running() and q.status() != 'zombie' for q in workers)
    assert loss_of(err, 2) == 'process 1 of 2 has died (signal 9)'
    then, state = run.read_log(log), torch.load(tmp_path/'run/state.pt', weights_only=True)
    sure = len(state['rows'])  # a row is written before the state that knows it
    assert 2 <= state['t'] < 24 and len(then)-1 <= sure <= len(then)
    c = run.again(tmp_path/'run')
    assert c.override == {'norm': 'sync', 'every': 2, 'save_every': 0} and c.steps == 24
    work(c)  # one process now
    now = run.read_log(log)
    assert run.state(tmp_path/'run') == 'finished' and now[-1]['step'] == 24 and now[:sure] == then[:sure]
    for a, b in zip(now[sure:], then[sure:]): assert a['labelled'] == pytest.approx(b['labelled'], rel=2e-2)  # at most two steps, made again by one process
    note('processes: one is killed', step=state['t'], processes=[2, 1], rows_unchanged=sure, rows=len(now))
