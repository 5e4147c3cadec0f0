"""The lessons' helpers and exercises: right answers are right, wrong ones are not, and nobody has to answer."""
import math
from pathlib import Path

import nbformat, numpy as np, pytest, torch
from sshpe.course import answers, collapse, exercise
from sshpe.course.exercise import EXERCISES, predicted
from sshpe.course.lesson import check

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


RIGHT = {'1.1': 35.37, '1.2': lambda d, s, n: math.exp(-d*d/(8*s*s*n*n)), '1.3': .107/.025, '2.1': math.exp(-1/9), '2.2': lambda H: 4*places(H)+1.5, '3.1': 20, '3.2': targets,
         '4.1': pool, '4.3': .92224, '5.1': lambda H: np.asarray(H).std(0).max((1, 2)), '5.2': lambda a, b, m: [p < q-m for p, q in zip(a, b)],
         '6.1': exchange, '6.2': .25, '6.3': 1-.75*.875**3, '7.1': teacher, '7.2': 693, '7.3': 11.8, '8.1': 'DualPose-Ensemble A', '8.2': within}


@pytest.mark.parametrize('name', RIGHT)
def test_right_answers(name): assert check(name, RIGHT[name]).ok is True


@pytest.mark.parametrize('name', RIGHT)
@pytest.mark.parametrize('wrong', [-7., 'no', lambda *a: 0, lambda: 0])
def test_wrong_answers(name, wrong):
    s = check(name, wrong)
    assert s.ok is False and EXERCISES[name].hint in s.text


def test_nobody_has_to_answer():
    assert len(EXERCISES) == 24 and all(check(n).ok is None for n in EXERCISES)


def test_predictions():
    assert 'off by 0.25' in predicted('x', .5, torch.tensor(.75)).text and 'No prediction' in predicted('y', None, 3).text
    assert 'You said so' in predicted('z', 'a', 'a').text and 'You said b' in predicted('z', 'b', 'a').text


def test_silence_agrees_with_itself():
    lab, unl, val, s = collapse.world(4)
    silent = lambda x: torch.zeros(len(x), 17, *collapse.MAP)
    b = collapse.some(unl, range(8))
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
