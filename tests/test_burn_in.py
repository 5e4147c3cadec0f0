"A shared burn-in gives the bits that each run would have trained for itself."
import pytest, torch
from sshpe.train.burn_in import begin, mark, shareable
from test_learner import learner, people

def everything(l):
    "Weights, buffers and the optimiser's moments."
    nets, adam = [v for f in l.remembered().values() for v in f.state_dict().values()], l.optimiser.state_dict()['state']
    return nets+[v for k in sorted(adam) for v in adam[k].values()]

def same(a, b): return len(x := everything(a)) == len(y := everything(b)) and all(torch.equal(v, w) for v, w in zip(x, y))

@pytest.mark.parametrize('name', ['supervised', 'denoise-select', 'pose-mum-plus', 'sspcm', 'pose-cons-ema-0.6'])
def test_the_same_bits(tmp_path, name):
    whole, shared = learner(name).fit(), begin(learner(name), tmp_path)
    assert shared.t == shared.p.burn_in == 4 and len(list(tmp_path.iterdir())) == len(shared.students)
    assert same(whole, shared.fit())
    for a, b in zip(whole.rows, shared.rows):
        assert a.keys() == b.keys() and all(a[k] == pytest.approx(b[k], abs=2e-7) for k in a if k != 'seconds' and a[k] is not None)

def test_it_is_trained_once_for_all_methods(tmp_path, monkeypatch):
    begin(learner('denoise-select'), tmp_path)
    monkeypatch.setattr('sshpe.train.burn_in.Learner', None)  # nobody trains again
    for name in ('supervised', 'dual-pose', 'pose-mum-plus', 'mum'): assert begin(learner(name), tmp_path).t == 4
    assert len(list(tmp_path.iterdir())) == 2

@pytest.mark.parametrize('change', [dict(seed=1), dict(lab=people(3)), dict(lr=1e-3), dict(burn_in=8), dict(sigma=1.), dict(width=16),
                                    dict(n_labelled=2), dict(precision='bf16'), {'weak.turned': 0.}, dict(norm='group')], ids=lambda c: next(iter(c)))
def test_another_training_is_another_burn_in(change):
    assert mark(learner('supervised'), 0) != mark(learner('supervised', **change), 0)

@pytest.mark.parametrize('change', [dict(unl=people(9, 12)), dict(K=4), dict(n_unlabelled=8), dict(steps=24), dict(ramp=0), dict(lam=3.)], ids=lambda c: next(iter(c)))
def test_what_no_burn_in_knows(change): assert mark(learner('denoise-select'), 1) == mark(learner('denoise-select', **change), 1)

def test_students_are_different(): assert mark(learner('dual-pose'), 0) != mark(learner('dual-pose'), 1)

@pytest.mark.parametrize('change', [dict(burn_in=0), dict(every=3), dict(drops='(.1, .9)')], ids=lambda c: next(iter(c)))
def test_what_cannot_be_shared_is_trained_by_each(tmp_path, change):
    l = learner('dual-pose', **change)
    assert not shareable(l) and begin(l, tmp_path).t == 0 and not list(tmp_path.iterdir())
    assert not shareable(learner('data-distill'))  # a first stage is no burn-in

def test_a_run_that_has_begun_goes_on(tmp_path):
    l = learner('supervised').fit(until=2)
    assert begin(l, tmp_path) is l and l.t == 2
