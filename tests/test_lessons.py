"""The lessons' helpers and exercises: right answers are right, wrong ones are not, and nobody has to answer."""
import math
from pathlib import Path

import nbformat, numpy as np, pytest, torch
from sshpe.course import answers, collapse, exercise, lesson
from sshpe.course.exercise import EXERCISES, predicted
from sshpe.course.lesson import check
from sshpe.pose.views import crops

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT/'nbs/lessons').glob('0[1-8]_*.ipynb'))


def pool(H, seen):
    out = np.zeros(np.delete(H.shape, 1))
    for b, j, y, x in np.ndindex(out.shape): out[b,j,y,x] = max([float(H[b,v,j,y,x]) for v in range(H.shape[1]) if seen[b,v,0,y,x]], default=0)
    return out


def places(H):
    flat = np.asarray(H).reshape(*H.shape[:2], -1).argmax(-1)
    return np.stack([flat%H.shape[-1], flat//H.shape[-1]], -1)


def targets(H, tau):
    at, (y, x) = places(H), np.mgrid[:H.shape[2], :H.shape[3]]
    return np.exp(-((x-at[...,0,None,None])**2+(y-at[...,1,None,None])**2)/2), (np.asarray(H).max((2, 3)) > tau).astype(float)


def exchange(x, mask):
    y, (h, w) = x.clone(), (x.shape[2]//mask.shape[1], x.shape[3]//mask.shape[2])
    for n, i, j in np.ndindex(*mask.shape): y[n,:,i*h:(i+1)*h,j*w:(j+1)*w] = x[mask[n,i,j],:,i*h:(i+1)*h,j*w:(j+1)*w]
    return y


def teacher(s, d): return [d**t*s[0]+sum((1-d)*d**(t-k)*s[k] for k in range(1, t+1)) for t in range(len(s))]


def within(a, b):
    from scipy.stats import ttest_rel
    return tuple(ttest_rel(a, b).confidence_interval(.95))


def height_after(n): return sum(math.comb(n, k)*math.exp(-(k-n/2)**2/2) for k in range(n+1))/2**n # of a Gaussian, σ = 1, half a pixel to either side n times


RIGHT = {'1.1': 35.37, '1.2': lambda d, s, n: math.exp(-d*d/(8*s*s*n*n)), '1.3': .107/.025, '2.1': math.exp(-1/9), '2.2': lambda H: 4*places(H)+1.5, '3.1': 20, '3.2': targets, '3.3': next(n for n in range(1000) if height_after(n) < .35),
         '4.1': pool, '4.3': .92224, '5.1': lambda H: np.asarray(H).std(0).max((1, 2)), '5.2': lambda a, b, m: [p < q-m for p, q in zip(a, b)],
         '6.1': exchange, '6.2': .25, '6.3': 1-.75*.875**3, '7.1': teacher, '7.2': 693, '7.3': 11.8, '8.1': 'DualPose-Ensemble A', '8.2': within}


@pytest.fixture(scope='module')
def sixty():
    "What the students of denoise-select paint for sixty people: each network and view by itself, brought back and pooled in numpy."
    from helpers import moved, peak, places as sources
    from sshpe.explore.people import networks, store_of
    from sshpe.pose.views import sample_views
    x = networks('denoise-select'); r, p = x.recipe, x.preset; store = store_of('people:val', x, 60)
    M = sample_views(r.affines[:r.n_pooled], p.size, np.arange(60), 0, 'ask').numpy(); M[:,0] = np.eye(3)[:2]
    X = crops(torch.from_numpy(np.ascontiguousarray(store.batch(np.arange(60)))), torch.from_numpy(M), p.size)
    with torch.no_grad(): H = np.stack([[f(v).numpy() for v in X] for f in x.teachers])  # (2,V,60,J,h,w)
    M, P = np.concatenate([M, np.broadcast_to([0, 0, 1.], (*M.shape[:2], 1, 3))], 2), H[:,0].copy()
    for i, v in np.ndindex(60, r.n_pooled):
        if not v: continue
        R = np.linalg.inv(M[i,v])  # from view v to the upright frame
        S = np.array([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1.]])
        px, py = sources(np.linalg.inv(S)@R@S, p.map)
        seen = (px > -.5) & (px < p.map[1]-.5) & (py > -.5) & (py < p.map[0]-.5)
        for k in range(2): P[k,i] = np.where(seen, np.maximum(P[k,i], moved(H[k,v,i], R, 4, x.skeleton.flip)), P[k,i])
    k = store.keypoints[:60]
    far = np.linalg.norm(np.stack([[[4*peak(h, p.decode)+1.5 for h in maps] for maps in Q] for Q in P])-k[...,:2], axis=-1)
    return P.max((-2, -1)), far < .1*store.extent[:60,None], k[...,2] > 0


def test_the_gate_that_is_right_four_times_of_five(sixty):
    "Exercise 4.2, from the first student's pools."
    (peak, _), (right, _), there = sixty[0], sixty[1], sixty[2]
    answer = EXERCISES['4.2'].truth()
    share = lambda t: right[there & (peak > t)].mean()
    assert share(answer) > .797 and all(share(t) < .803 for t in np.arange(0, answer-.01, .05))


def test_how_often_two_students_are_both_right_or_both_wrong(sixty):
    "Exercise 5.3."
    _, (a, b), there = sixty
    assert abs(EXERCISES['5.3'].truth()-100*(a == b)[there].mean()) < .5


def test_the_joint_with_the_lowest_peaks():
    "Exercise 2.3, person by person."
    from sshpe.explore.people import networks, store_of
    x = networks('supervised'); store, f = store_of('people:val', x, 120), next(iter(x.networks.values()))
    margin = [(c-s)//2 for c, s in zip(store.batch([0]).shape[-2:], x.preset.size)]
    mean, std = (np.array(v, np.float32)[:,None,None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    tops = []
    for i in range(120):
        c = store.batch([i])[0][:, margin[0]:margin[0]+x.preset.size[0], margin[1]:margin[1]+x.preset.size[1]]
        with torch.no_grad(): tops.append(f(torch.from_numpy((np.asarray(c, np.float32)-mean)/std)[None])[0].amax((1, 2)).numpy())
    assert check('2.3', x.skeleton.joints[int(np.mean(tops, 0).argmin())]).ok


def test_how_many_seeds_it_takes():
    "Exercise 8.3, from the noncentral t distribution."
    from scipy.stats import nct, t
    def found(n): return 1-nct.cdf(t.ppf(.975, n-1), n-1, 1.48/.9*math.sqrt(n))
    assert check('8.3', next(n for n in range(2, 100) if found(n) >= .8)).ok


@pytest.mark.parametrize('name', RIGHT)
def test_right_answers(name): assert check(name, RIGHT[name]).ok is True


@pytest.mark.parametrize('name', RIGHT)
@pytest.mark.parametrize('wrong', [-7., 'no', lambda *a: 0, lambda: 0])
def test_wrong_answers(name, wrong):
    lesson.WRONG.clear()
    said = [check(name, wrong) for _ in range(4)]
    assert all(s.ok is False for s in said)
    for s, hint in zip(said, (*EXERCISES[name].hints, *3*EXERCISES[name].hints[-1:])): assert hint in s.text


@pytest.mark.parametrize('name', ['3.3', '4.2', '5.1', '5.3'])
def test_the_third_hint_is_the_solution(name): assert len(EXERCISES[name].hints) == 3 and 'solution: ' in EXERCISES[name].hints[2]


def test_nobody_has_to_answer():
    assert len(EXERCISES) == 24 and all(check(n).ok is None for n in EXERCISES)


def test_predictions():
    assert 'off by 4 points.' in predicted('x', 50, 46., ' %').text and 'off by 4 s.' in predicted('x', 50, 46., ' s').text
    assert 'off by 0.25' in predicted('x', .5, torch.tensor(.75)).text and 'No prediction' in predicted('y', None, 3).text
    assert 'You said so' in predicted('z', 'a', 'a').text and 'You said b' in predicted('z', 'b', 'a').text


def test_silence_agrees_with_itself():
    lab, unl, val, s = collapse.world(4)
    silent = lambda x: torch.zeros(len(x), 17, *collapse.MAP)
    b = collapse.some_people(unl, range(8))
    assert collapse.consistency_loss(silent, b, s.flip, 0).item() == 0
    assert collapse.consistency_loss(silent, b, s.flip, 0, clean=True).item() > 0
    assert len(lab.number) == 4 and len(unl.number) == 156 and len(val.number) == 40


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.stem)
def test_a_lesson_has_its_parts(path):
    nb = nbformat.read(path, 4)
    text, code = ('\n'.join(c.source for c in nb.cells if c.cell_type == k) for k in ('markdown', 'code'))
    n = path.stem[1]
    assert '**Before you run anything:**' in text and '**Predict:**' in text and '## For the instructor' in text and 'minutes' in text
    assert 'predicted(' in code and all(f"check('{n}.{k}', answer)" in code for k in (1, 2, 3)) and path.stat().st_size < 1_000_000


def test_there_are_eight(): assert len(PAGES) == 8
