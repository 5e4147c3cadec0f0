"Runs followed elsewhere: what a tool is told is what the run's own files say."
import json, sys, threading, time
from types import SimpleNamespace
import pytest
from sshpe.errors import InputError
from sshpe.runs import run
from sshpe.runs.follow import follow

ROWS = [dict(step=100, labelled=.5), dict(step=200, labelled=.25, unlabelled=.125), dict(step=300, labelled=.0625)]
SCORES = dict(networks=dict(student1=dict(AP=12.5, PCK=60., PCK_joints=dict(nose=1.))), headline=dict(AP=12.5), steps=300, seconds=1.)

@pytest.fixture
def a_run(tmp_path):
    where = tmp_path/'a-run'
    run.write_log(where/'log.csv', ROWS)
    (where/'config.json').write_text(json.dumps(dict(config=dict(recipe='supervised', seed=3))))
    return where

def finish(where): (where/'metrics.json').write_text(json.dumps(SCORES))

@pytest.fixture
def told(monkeypatch):
    "A module that speaks like wandb, and what it was told."
    t = SimpleNamespace(init=[], log=[], finish=0)
    def end(): t.finish += 1
    module = SimpleNamespace(init=lambda **k: t.init.append(k), log=lambda d, step: t.log.append((step, d)), finish=end)
    monkeypatch.setitem(sys.modules, 'wandb', module); monkeypatch.setitem(sys.modules, 'trackio', module)
    return t

@pytest.mark.parametrize('tool', ['wandb', 'trackio'])
def test_each_line_once_and_the_scores(a_run, told, tool):
    finish(a_run)
    assert follow(a_run, tool) == 3
    assert told.init == [dict(project='sshpe', name='a-run', config=dict(recipe='supervised', seed=3))] and told.finish == 1
    assert told.log[:3] == [(r['step'], {k: v for k, v in r.items() if k != 'step'}) for r in ROWS]
    assert told.log[3:] == [(300, {'score/student1/AP': 12.5, 'score/student1/PCK': 60.})]

def test_a_run_that_is_not_finished_has_no_scores_yet(a_run, told):
    assert follow(a_run, 'wandb', wait=False) == 3 and len(told.log) == 3 and told.finish == 1

def test_lines_that_come_later(a_run, told):
    "A killed run writes its last lines again and goes on: nothing is told twice."
    def later():
        time.sleep(.3); run.write_log(a_run/'log.csv', ROWS[:2])
        time.sleep(.3); run.write_log(a_run/'log.csv', [*ROWS, dict(step=400, labelled=.03125)]); finish(a_run)
    writer = threading.Thread(target=later); writer.start()
    assert follow(a_run, 'wandb', seconds=.05) == 4
    writer.join()
    assert [s for s, _ in told.log] == [100, 200, 300, 400, 400]

def test_tensorboard_reads_what_was_written(a_run):
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    finish(a_run); follow(a_run, 'tensorboard')
    e = events.EventAccumulator(str(a_run/'tensorboard')); e.Reload()
    assert [(s.step, s.value) for s in e.Scalars('labelled')] == [(r['step'], r['labelled']) for r in ROWS]
    assert [(s.step, s.value) for s in e.Scalars('score/student1/AP')] == [(300, 12.5)]

def test_refusals(a_run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match='tensorboard'): follow(a_run, 'tensorbord')
    with pytest.raises(InputError, match='is .* a run'): follow(tmp_path/'nowhere', 'tensorboard')
    monkeypatch.setitem(sys.modules, 'wandb', None)
    with pytest.raises(InputError, match='pip install wandb'): follow(a_run, 'wandb')
