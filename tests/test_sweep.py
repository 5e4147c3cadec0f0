"""Sweeps: a grid means its runs, each is made once, a killed sweep goes on, a failed run is named, costs are what is counted."""
import json, os, signal, subprocess, sys, time
from itertools import product
from pathlib import Path

import pytest, torch

from sshpe.experiments import sweep, costs as costs_
from sshpe.runs import run, training
from sshpe.errors import InputError
from sshpe.cli import main
from sshpe.experiments.summaries import SEEDS, TUNING
from sshpe.train.learner import Learner
from sshpe.ssl.methods import recipe, RECIPES
from sshpe.experiments.costs import costs, forward_passes
from sshpe.experiments.sweep import attempt, board, dry, held, Job, plan, status

SSHPE = [sys.executable, '-c', 'from sshpe.cli import main; raise SystemExit(main())']


def grid(folder, sticks, body, name='g'):
    (folder/f'{name}.yaml').write_text(f'out: {folder}/runs\ncommon: {{root: {sticks}, preset: tiny, labels: 16}}\nblocks:\n{body}')
    return str(folder/f'{name}.yaml')


def test_a_list_means_each(sticks, tmp_path):
    jobs = plan(grid(tmp_path, sticks, '- recipe: [supervised, mum]\n  labels: [8, 16]\n  seed: [0, 1]\n- recipe: mum\n  seed: [1, 2]\n  override: [{lam: 2}, {}]\n'))
    got = [(j.block, j.config.seed, j.config.labels, j.config.recipe, j.config.override) for j in jobs]
    first = [(1, s, n, r, {}) for s, n, r in product((0, 1), (8, 16), ('supervised', 'mum'))]
    assert got[:8] == first   # seeds outermost, recipes innermost
    assert got[8:] == [(2, 1, 16, 'mum', {'lam': 2}), (2, 2, 16, 'mum', {'lam': 2}), (2, 2, 16, 'mum', {})]   # mum with seed 1 stands in the first block
    assert [j.where.name for j in jobs[-2:]] == ['mum+lam=2-people-16-s2', 'mum-people-16-s2'] and all(j.where.parent == tmp_path/'runs' for j in jobs)
    assert {status(j) for j in jobs} == {'new'} and not (tmp_path/'runs').exists()


@pytest.mark.parametrize('text, word', [
    ('blocks: [{recipe: denoise-selct}]', "'denoise-select'"), ('blocks: [{recpe: mum}]', "'recipe'"), ('bloks: []', "'blocks'"), ('blocks: []', 'blocks'), ('[1, 2]', 'keys'),
    ('blocks: [3]', 'block'), ('blocks: [{labels: many}]', 'whole number'), ('blocks: [{labels: []}]', 'labels'), ('blocks: [{override: {taau: 1}}]', "'tau'"), ('a: [', 'yaml'),
    ('blocks: [{override: 3}]', 'dict'), ('blocks: [{override: {labels: 3}}]', 'beside'), ('blocks: [{1: 2}]', 'words'), ('common: 3\nblocks: [{}]', 'common'), ('x: &a [1]\nblocks: [*a, *a]', 'reference'),
    (f'blocks: [{{seed: {list(range(200))}, labels: {list(range(1, 200))}}}]', '10,000'), ('!!python/object/apply:os.system [true]', 'yaml'), ('blocks: [{recipe: mum, out: x, seed: [0, -1]}]', 'seed')])
def test_mistakes_in_a_grid_cost_one_sentence(tmp_path, text, word, capsys):
    (tmp_path/'g.yaml').write_text(text)
    assert main(['sweep', str(tmp_path/'g.yaml'), '--dry-run']) == 2
    err = capsys.readouterr().err
    assert word in err and 'g.yaml' in err or word in ('block', 'labels', 'common', '10,000', 'words') and word in err, err
    assert err.count('\n') == 1 and os.listdir(tmp_path) == ['g.yaml']


def test_unknown_names(tmp_path, sticks, capsys):
    assert main(['sweep', 'tabels-mini']) == 2 and "'tables-mini'" in capsys.readouterr().err
    g = grid(tmp_path, sticks, '- recipe: supervised\n')
    assert main(['sweep', g, '--engine', 'rai']) == 2 and "'ray'" in capsys.readouterr().err
    assert main(['sweep', str(tmp_path/'no.yaml')]) == 2 and 'no.yaml' in capsys.readouterr().err


def test_the_environment_fills_in(tmp_path, sticks, monkeypatch, capsys):
    monkeypatch.delenv('SOME_PEOPLE', raising=False)
    (tmp_path/'g.yaml').write_text(f'out: {tmp_path}/runs\nblocks: [{{recipe: supervised, root: $SOME_PEOPLE, preset: tiny}}]')
    assert main(['sweep', str(tmp_path/'g.yaml'), '--dry-run']) == 0
    assert main(['sweep', str(tmp_path/'g.yaml')]) == 2 and 'SOME_PEOPLE' in capsys.readouterr().err
    monkeypatch.setenv('SOME_PEOPLE', str(sticks))
    assert plan(str(tmp_path/'g.yaml'))[0].config.root == str(sticks)


@pytest.mark.parametrize('name', sorted(p.stem for p in (run.home()/'data/grids').glob('*.yaml')))
def test_shipped_grids(name, capsys):
    jobs = plan(name)
    assert len(jobs) > 10 and all(j.config.seed in (TUNING if name == 'ladder-mini' else SEEDS) for j in jobs)
    assert main(['sweep', name, '--dry-run', '--workers', '8']) == 0
    out = capsys.readouterr().out
    assert f'{len(jobs)} runs' in out and ('TFLOP' in out) == name.startswith('coco')


def finish(j):
    "A finished run without training."
    j.where.mkdir(parents=True, exist_ok=True)
    made = dict(zip(('recipe', 'preset'), map(run.as_plain, training.settle(j.config))))
    (j.where/'config.json').write_text(json.dumps(dict(config=run.as_json(j.config), steps=12, **made)))
    (j.where/'metrics.json').write_text('{}')


def test_status_and_reasons(sticks, tmp_path):
    a, b, c, d = plan(grid(tmp_path, sticks, '- recipe: [supervised, mum, pose-mum, pose-cons]\n'))
    finish(a); assert status(a) == 'finished'
    finish(b); facts = run.facts(b.where)
    (b.where/'config.json').write_text(json.dumps(facts | dict(config=facts['config'] | dict(labels=3))))
    assert status(b) == 'failed' and 'labels 3, not 16' in sweep.reason(b)   # another run lies there: never taken for this one, never overwritten
    (b.where/'config.json').write_text(json.dumps(facts | dict(recipe=facts['recipe'] | dict(lam=.5))))
    assert status(b) == 'failed' and 'an older value of lam' in sweep.reason(b)
    c.where.mkdir(parents=True); (c.where/'precious.txt').write_text('mine')
    assert status(c) == 'failed' and 'precious.txt' in sweep.reason(c)
    run.lock(d.where); assert status(d) == 'running' and held(d.where); run.unlock(d.where); assert status(d) == 'new'
    p = subprocess.Popen([sys.executable, '-c', 'import sys; from sshpe.runs import run; run.lock(sys.argv[1]); print("held", flush=True); sys.stdin.read()', d.where], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert p.stdout.readline() and status(d) == 'running' and attempt(d, lambda *_: pytest.fail('trained twice')) == 'running'
    p.communicate(); assert status(d) == 'new'


@pytest.mark.parametrize('code, how', [(1, 'failed'), (2, 'failed'), (-9, 'failed'), (130, 'unfinished'), (-15, 'unfinished')])
def test_how_an_attempt_ends(sticks, tmp_path, code, how):
    [j] = plan(grid(tmp_path, sticks, '- recipe: supervised\n'))
    def train(words, log):
        log.write_text('line 1\nline 2\nwhat went wrong\n')
        return code
    assert attempt(j, train) == how and status(j) == ('failed' if how == 'failed' else 'new') and not held(j.desk)
    if how == 'failed':
        assert 'what went wrong' in sweep.reason(j)
        assert attempt(j, lambda *_: finish(j) or 0) == 'finished' and status(j) == 'finished' and not (j.desk/'failed').exists()


TOGETHER = '''
import sys, time, random
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_sweep import finish
from sshpe.experiments.sweep import attempt, plan
for j in plan({grid!r}):
    def train(words, log):
        with open({made!r}, 'a') as f: f.write(j.where.name+'\\n')
        time.sleep(.1); finish(j)
        return 0
    attempt(j, train)
'''


def test_sweeps_side_by_side_make_each_run_once(sticks, tmp_path):
    g, made = grid(tmp_path, sticks, '- recipe: [supervised, mum]\n  seed: [0, 1, 2, 3, 4, 5]\n'), tmp_path/'made'
    code = TOGETHER.format(grid=g, made=str(made), tests=str(Path(__file__).parent))
    ps = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(3)]
    assert [p.wait() for p in ps] == [0, 0, 0]
    assert sorted(made.read_text().split()) == sorted(j.where.name for j in plan(g)) and {status(j) for j in plan(g)} == {'finished'}


def networks(where): return run.read(Path(where)/'metrics.json')['networks']


@pytest.fixture(scope='module')
def whole(sticks, tmp_path_factory):
    "A grid of two runs, trained in this process: what every engine must arrive at."
    here = tmp_path_factory.mktemp('whole')
    g = grid(here, sticks, '- recipe: pose-mum-plus\n  seed: [0, 1]\n  steps: 30\n  override: {every: 2, save_every: 0}\n')
    for j in plan(g): x = training.start(j.config); x.learner.fit(); training.finish(x)
    return g


def again(whole, to):
    "The same grid with another folder."
    text = Path(whole).read_text()
    (to/'g.yaml').write_text(text.replace(str(Path(whole).parent/'runs'), str(to/'runs')))
    return str(to/'g.yaml')


def same(whole, g): return all(networks(a.where) == networks(b.where) for a, b in zip(plan(whole), plan(g)))


def test_a_killed_sweep_goes_on(whole, tmp_path, capsys):
    g = again(whole, tmp_path)
    bad = tmp_path/'runs/supervised-people-16-s0'
    Path(g).write_text(Path(g).read_text()+'- recipe: supervised\n')
    bad.mkdir(parents=True); (bad/'notes.txt').write_text('mine')
    p = subprocess.Popen([*SSHPE, 'sweep', g, '--workers', '2'], stdout=subprocess.PIPE, text=True, start_new_session=True)
    first, begun = plan(g)[0].where, time.time()
    while not (first/'log.csv').exists() and time.time()-begun < 120: time.sleep(.05)
    os.killpg(p.pid, signal.SIGKILL); p.wait()
    assert run.state(first) == 'unfinished' and not (first/'metrics.json').exists()
    begun = time.time()
    while any(held(j.where) for j in plan(g)) and time.time()-begun < 30: time.sleep(.1)   # kernels leave with their parents
    assert main(['sweep', g, '--workers', '2']) == 1   # the third cannot be made
    out = capsys.readouterr()
    assert 'notes.txt' in out.out and '1 of 3 runs failed' in out.err and same(whole, g)
    assert '(goes on)' in (plan(g)[0].desk/'log.txt').read_text()
    (bad/'notes.txt').unlink()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path/'runs').glob('pose*/*')}
    assert main(['sweep', g, '--retry']) == 0 and networks(bad)
    assert {p: p.stat().st_mtime_ns for p in before} == before   # finished runs are left alone
    assert main(['sweep', g]) == 0


def test_a_failing_run_is_named_with_its_log(sticks, tmp_path, capsys):
    g = grid(tmp_path, sticks, '- recipe: supervised\n  labels: 500\n')   # there are 64 people
    assert main(['sweep', g, '--workers', '1']) == 1
    out = capsys.readouterr()
    assert 'supervised-people-500-s0 failed' in out.out and '500' in out.out.split('failed:')[1] and '--retry' in out.err
    assert main(['sweep', g]) == 1 and 'begun' not in capsys.readouterr().out   # said again, not tried again


@pytest.mark.parametrize('name', ['supervised', 'pose-cons', 'pose-cons-ema-0.6', 'dual-pose', 'multi-view', 'denoise-select', 'denoise-select-jc', 'pose-mum', 'sspcm', 'multi-augs', 'data-distill', 'denoise-doubt', 'reviewer'])
def test_passes_are_what_networks_do(name):
    "Against a count of the crops that go through every network in a real run."
    from helpers import People
    from sshpe.pose.skeleton import COCO17
    r, p = recipe(name, 'tiny', steps=10, burn_in=4, ramp=0)
    l, seen = Learner(r, p, People(16), People(16), COCO17), [0]
    def count(module, args): seen[0] += len(args[0])*(3 if torch.is_grad_enabled() else 1)
    for f in {id(f): f for f in (*l.students, *l.teachers, *l.memories)}.values(): f.register_forward_pre_hook(count)
    l.fit()
    assert forward_passes(r, p, 10) == seen[0]


def test_costs_are_measured_scaled_or_assumed(sticks, tmp_path):
    jobs = plan(grid(tmp_path, sticks, '- recipe: [supervised, pose-mum]\n  labels: [8, 16]\n  seed: [0, 1]\n  steps: 900\n'))
    assert {how for _, how in costs(jobs).values()} == {'assumed'}
    done = jobs[0]
    x = training.start(run.config({**vars(done.config), 'steps': 8, 'out': str(tmp_path/'x')})); x.learner.fit(); training.finish(x)
    os.renames(tmp_path/'x', done.where)
    f = run.read(done.where/'config.json'); f['config'] = run.as_json(done.config); f['preset']['steps'] = 900; (done.where/'config.json').write_text(json.dumps(f))
    m = run.read(done.where/'metrics.json'); m['seconds'] = 100.; (done.where/'metrics.json').write_text(json.dumps(m))
    cost = {(j.config.recipe, j.config.labels): c for j, c in costs(jobs, [j for j in jobs if status(j) == 'finished']).items()}
    assert cost['supervised', 8] == cost['supervised', 16] == (pytest.approx(100+costs_.OVERHEAD), 'measured')
    ratio = forward_passes(*recipe('pose-mum', 'tiny'), 900)/forward_passes(*recipe('supervised', 'tiny'), 900)
    assert cost['pose-mum', 8] == (pytest.approx(100*ratio+costs_.OVERHEAD), 'scaled')
    text = dry(jobs, 2)
    left = 3*(100+costs_.OVERHEAD)+4*(100*ratio+costs_.OVERHEAD)
    assert '8 runs, 1 finished; 7 left' in text and run.clock(left) in text and run.clock(left/2) in text


def test_steps_on_coco_follow_from_people():
    j = next(j for j in plan('coco-partial') if j.config.recipe == 'dual-pose' and j.config.labels == 1000)
    steps = 100*-(-(149_813-1000)//32)
    assert costs_.arithmetic(j.config) == forward_passes(*recipe('dual-pose', 'paper'), steps)*costs_.flops('resnet18', 256, (256, 192))
    assert costs_.flops('resnet50', 256, (256, 192)) == pytest.approx(2*5.46e9, rel=.01)   # mmpose's model zoo: 5.46 G multiply-adds


def test_board(sticks, tmp_path):
    jobs = plan(grid(tmp_path, sticks, '- recipe: supervised\n  seed: [0, 1, 2, 3]\n'))
    a, b = jobs[:2]
    for j, n in ((a, 3), (b, 6)):
        finish(j); (j.where/'metrics.json').unlink(); run.write_log(j.where/'log.csv', [dict(step=n, seconds=1.)])
    text = board(dict(zip(jobs, ('running', 'running', 'new', 'finished'))), {j: (100., 'measured') for j in jobs}, 2)
    assert text.startswith('1 of 4 finished, 2 running, 0 failed · about 1:52 left') and 'step 3' in text and ' 25 %' in text and ' 50 %' in text


def test_ray_retries_a_killed_worker_and_agrees_with_local(whole, tmp_path, monkeypatch, note):
    ray, psutil = pytest.importorskip('ray', reason="Ray is not installed (pip install 'sshpe[ray]')"), pytest.importorskip('psutil')
    g = again(whole, tmp_path)
    monkeypatch.setenv('RAY_worker_niceness', '0')   # Ray's workers give way to everything else by default
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, address='local')
    try:
        jobs, rows = plan(g), []
        first, _ = (j.where for j in jobs)
        def kill_one():
            while len(run.read_log(first/'log.csv')) < 3: time.sleep(.05)
            workers = [p for p in psutil.Process().children(recursive=True) if 'attempt' in ' '.join(p.cmdline()[:1])]
            [p] = [p for p in workers if str(jobs[0].desk/'.lock') in [f.path for f in p.open_files()]]
            p.kill(); p.wait(10)
            rows.extend(torch.load(first/'state.pt', weights_only=True)['rows'])
        import threading
        t = threading.Thread(target=kill_one, daemon=True); t.start()
        states = sweep.sweep(jobs, 2, 'ray')
        t.join(10)
    finally: ray.shutdown()
    assert set(states.values()) == {'finished'} and same(whole, g)
    assert ['(goes on)' in (j.desk/'log.txt').read_text() for j in jobs] == [True, False]   # the killed one, and no other
    assert rows and run.read_log(first/'log.csv')[:len(rows)] == rows   # to the clock: from its state, not from the start
    note('ray: a worker is killed', workers=2, runs=len(jobs), step=rows[-1]['step'], steps=30, retried=1)
