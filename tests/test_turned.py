"By how much poses are turned: against turns that we made, and against a search over all angles."
from types import SimpleNamespace
import numpy as np, pytest
from dataclasses import replace
from hypothesis import given, strategies as st
from sshpe.data.turned import ENOUGH, FAR, turned_notes, turns
from sshpe.pose.views import TURNED
from sshpe.runs.training import told

SHAPE = np.array([[0, 0], [0, 40], [12, 42], [-10, 80], [14, 85], [3, -15.]])

def posed(angles, rng=None, noise=0., hidden=0.):
    "The shape turned by these angles, of any size, anywhere; joints that are hidden stand at 0."
    rng = rng or np.random.default_rng(0)
    a, n = np.radians(angles), len(angles)
    R = np.stack([np.cos(a), -np.sin(a), np.sin(a), np.cos(a)], -1).reshape(n, 2, 2) # clockwise where y points down
    xy = np.einsum('nij,kj->nki', R, SHAPE)*rng.uniform(.3, 3, (n, 1, 1))+rng.uniform(0, 500, (n, 1, 2))
    xy += noise*rng.standard_normal(xy.shape)
    v = np.where(rng.random((n, len(SHAPE))) < hidden, 0, 2.)
    return np.concatenate([xy, v[...,None]], -1)*(v[...,None] > 0)

def circle(a): return (np.asarray(a)+180)%360-180

@given(st.lists(st.floats(-179, 179), min_size=2, max_size=30), st.integers(0, 99))
def test_turns_that_we_made_come_back(angles, seed):
    found = turns(posed(angles, np.random.default_rng(seed)))
    off = circle(found-np.array(angles))
    assert np.abs(circle(off-off[0])).max() < 1e-6  # one angle for all: which way is up, nobody said

def test_most_stand_at_0():
    found = turns(posed([0]*30+[90, -120, 170]))
    assert np.abs(found[:30]).max() < 10 and (np.abs(circle(found[30:]-found[0]-[90, -120, 170])) < 1e-6).all()

def test_noise_and_hidden_joints():
    rng = np.random.default_rng(1)
    angles = rng.uniform(-180, 180, 300)
    k = posed(angles, rng, noise=2., hidden=.3)
    k = k[known := (k[...,2] > 0).sum(-1) > 3]
    off = circle(turns(k)-angles[known])
    assert np.median(np.abs(circle(off-np.median(off)))) < 8

def test_against_a_search_over_all_angles():
    k = posed([0, 73.])+np.random.default_rng(0).normal(0, 3, (2, 6, 3))*[1, 1, 0]
    a, b = ((p-p.mean(0))/np.linalg.norm(p-p.mean(0)) for p in k[...,:2])
    def far(t): return np.linalg.norm(a@np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])-b)
    best = min(np.radians(np.arange(0, 360, .01)), key=far)
    found = turns(k)
    assert abs(circle(found[1]-found[0]-np.degrees(best))) < .02

def test_poses_of_one_joint_and_of_none():
    k = posed([0]*5)
    k[1,1:], k[2] = 0, 0
    assert turns(k)[1] == turns(k)[2] == 0 and turns(k).shape == (5,) and np.isfinite(turns(k)).all()
    assert turns(np.zeros((3, 6, 3))).tolist() == [0, 0, 0]

@pytest.mark.parametrize('turned, said', [(0, False), (8, False), (24, True)])
def test_notes_where_many_are_turned(turned, said):
    notes = turned_notes(posed([0]*(80-turned)+[100]*turned))
    assert bool(notes) == said and all(n.startswith('30% of the people are turned by more than 60° ') and 'try -p weak=TURNED' in n for n in notes)

def test_no_notes_where_few_are_known():
    k = posed(np.linspace(-180, 180, 40))
    assert turned_notes(k) and not turned_notes(k[:ENOUGH-1]) and not turned_notes(k*np.repeat([[1, 1, 0, 0, 0, 0]], 40, 0)[...,None]) and not turned_notes(k[:0])

def test_a_run_says_so_unless_its_views_turn(done):
    lab = replace(done.learner.lab, keypoints=posed(np.linspace(-180, 180, 40)))
    run = lambda weak: SimpleNamespace(lab=lab, unl=None, r=replace(done.recipe, weak=weak))
    assert 'weak=TURNED' in told(run(done.recipe.weak))[0] and told(run(TURNED)) == [] and FAR == done.recipe.weak.rotation.high
    assert told(done.learner) == []  # stick people stand
