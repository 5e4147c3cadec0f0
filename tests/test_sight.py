"""Who can tell the colours apart: scales and categories as people with a colour deficiency see them, and words on any ground.
Machado, Oliveira, Fernandes (2009), severity 1.0, in linear RGB; CIE Lab under D65."""
import itertools, re

import numpy as np, pytest

from sshpe.explore.compare import A_AND_B
from sshpe.explore.heatmaps import histogram
from sshpe.explore.mix import COLOURS
from sshpe.explore.panels import EXPLORE_FILES
from sshpe.explore.selection import STUDENTS
from sshpe.explore.teachers import RUNS
from sshpe.explore.views import PALETTE
from sshpe.experiments.summaries import METHODS
from sshpe.pose import draw

EYES = dict(
    usual=np.eye(3),
    protanopia=np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    deuteranopia=np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    tritanopia=np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]))
TO_XYZ = np.array([[.4124564, .3575761, .1804375], [.2126729, .7151522, .0721750], [.0193339, .1191920, .9503041]])


def lab(rgb, eyes): # (n,3) 0..255 -> (n,3) L*, a*, b*
    c = np.asarray(rgb, float)/255
    linear = np.where(c <= .04045, c/12.92, ((c+.055)/1.055)**2.4)
    x = (np.clip(linear@EYES[eyes].T, 0, 1)@TO_XYZ.T)/TO_XYZ.sum(1)
    f = np.where(x > (6/29)**3, np.cbrt(x), x/(3*(6/29)**2)+4/29)
    return np.stack([116*f[:,1]-16, 500*(f[:,0]-f[:,1]), 200*(f[:,1]-f[:,2])], -1)

def rgb(colours): return np.array([[int(c[i:i+2], 16) for i in (1, 3, 5)] for c in colours])

def test_lab_of_known_colours():
    "White, black, and sRGB's red (Lindbloom: 53.24, 80.09, 67.20); white stays white for everybody."
    want = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]
    assert np.allclose(lab([[255]*3, [0]*3, [255, 0, 0]], 'usual'), want, atol=.02)
    for eyes in EYES: assert np.allclose(lab([[255]*3], eyes), [[100, 0, 0]], atol=.5)

@pytest.mark.parametrize('eyes', EYES)
@pytest.mark.parametrize('cmap', [draw.HEAT, draw.UNCERTAINTY])
def test_more_is_lighter(cmap, eyes):
    "A scale from low to high gets lighter all the way: a table's step is a tenth of what can be seen."
    L = lab(draw.table(cmap), eyes)[:,0]
    assert np.diff(L).min() > -.1 and (np.diff(L[::8]) > .3).all() and L[-1]-L[0] > 70

@pytest.mark.parametrize('eyes', EYES)
def test_less_and_more_differ(eyes):
    "A scale around zero: darker to either side, and both sides apart wherever they are more than a quarter of the way out."
    t = lab(draw.table(draw.DIFFERENCE), eyes)
    L, n = t[:,0], len(t)//2
    assert (np.diff(L[:n:8]) > 0).all() and (np.diff(L[:n-1:-8]) > 0).all()
    below, above = t[:n*3//4], t[::-1][:n*3//4]
    assert np.linalg.norm(below-above, axis=1).min() > 10

LEGENDS = dict(views=PALETTE, people=COLOURS, runs=RUNS, students=STUDENTS, pair=tuple(A_AND_B.values()), sides=(draw.LEFT, draw.RIGHT, draw.MIDDLE), methods=tuple(METHODS.values()),
               histogram=tuple(m.colour for m in histogram([.2, .8], .5)[0].marks))
LEAST = dict(views=14, people=16, runs=16, methods=16, students=30, pair=80, sides=35, histogram=30) # CIE 1976 distance

@pytest.mark.parametrize('eyes', EYES)
@pytest.mark.parametrize('what', LEGENDS)
def test_categories_are_apart(what, eyes):
    colours = LEGENDS[what]
    t = lab(rgb(colours), eyes)
    far = {(a, b): np.linalg.norm(t[i]-t[j]) for (i, a), (j, b) in itertools.combinations(enumerate(colours), 2)}
    assert min(far.values()) > LEAST[what], min(far, key=far.get)


# ---- words on a dark ground

def rules(css): # (selector, {property: value})
    for selector, inside in re.findall(r'([^{}]+)\{([^{}]*)\}', css):
        yield selector.strip(), dict((k.strip(), v.strip()) for k, _, v in (d.partition(':') for d in inside.split(';') if d.strip()))

def test_words_take_the_colour_of_the_page():
    "Where a rule sets no ground of its own, the ink is that of the theme."
    for selector, d in rules((EXPLORE_FILES/'panels.css').read_text()):
        for k in ('color', 'background'):
            if k in d: assert re.match(r'var\(--jp-|inherit', d[k]), f'{selector}: {k} {d[k]}'
    script = (EXPLORE_FILES/'panels.js').read_text()
    assert 'ink: getComputedStyle(root).color' in script and not re.search(r"(?:fillStyle|strokeStyle) = '(?:#000|black)", script.replace("'#0006'", ''))
