"Pooling and threshold-and-refine against loops written from the denoising paper's section 3.2."
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from helpers import gaussian, matrix3, moved, peak, two
from sshpe.errors import InputError
from sshpe.pose.heatmap import inside
from sshpe.ssl.denoise import gate, pool, refine, threshold, winner
from sshpe.pose.views import one_frame

seeds = st.integers(0, 2**32-1)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 4))  # V, J, h, w
flip = (0, 2, 1)

def case(seed, shape, S=2, B=2):
    "Heatmaps, and masks in which any pixel may be unseen, by all views too; what nobody saw is garbage."
    r, (V, J, h, w) = np.random.default_rng(seed), shape
    H, seen = r.normal(size=(S, B, V, J, h, w)), r.random((B, V, 1, h, w)) < r.choice([.3, .8, 1.])
    H[np.broadcast_to(~seen, H.shape)] *= 1e6
    return H, seen

@given(seeds, shapes)
def test_pool(seed, shape):
    H, seen = case(seed, shape)
    P, A = (pool(torch.tensor(H), torch.tensor(seen), how) for how in ('max', 'mean'))
    assert P.shape == A.shape == H[:,:,0].shape
    for s, b, j, y, x in np.ndindex(*P.shape):
        values = [H[s,b,v,j,y,x] for v in range(shape[0]) if seen[b,v,0,y,x]]
        assert P[s,b,j,y,x] == (max(values) if values else 0)
        assert math.isclose(A[s,b,j,y,x], sum(values)/len(values) if values else 0, abs_tol=1e-9)

@given(seeds, shapes)
def test_winner(seed, shape):
    H, seen = case(seed, shape)
    W = winner(torch.tensor(H), torch.tensor(seen))
    for s, b, j in np.ndindex(*W.shape):
        tops = [max([H[s,b,v,j,y,x] for y, x in np.ndindex(shape[2:]) if seen[b,v,0,y,x]],
                    default=-math.inf) for v in range(shape[0])]
        assert tops[int(W[s,b,j])] == max(tops)

def test_a_view_that_saw_nothing_neither_wins_nor_dilutes():
    H = torch.stack([torch.full((1, 2, 2), -.5), torch.full((1, 2, 2), 9.)])
    seen = torch.tensor([True, False]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert (pool(H, seen) == -.5).all() and (pool(H, seen, 'mean') == -.5).all() and winner(H, seen).item() == 0

def test_unknown_pooling():
    with pytest.raises(InputError, match='mean'): pool(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1).bool(), 'meen')

@given(st.floats(-5, 60), st.floats(-5, 60), st.sampled_from([1, 2, 4]))
def test_inside(x, y, stride):
    h, w = 10, 7
    nearest = np.floor(np.array([x, y], np.float32)+np.float32(.5))  # the picture's pixel that holds the point
    edge = min(abs(v+.5-e) for v, n in ((x, w), (y, h)) for e in (0, n*stride)) < 1e-4
    truth = bool((nearest >= 0).all() and (nearest < (w*stride, h*stride)).all())
    assert edge or bool(inside(torch.tensor([x, y]), (h, w), stride)) == truth

def test_the_picture_ends_half_a_pixel_beyond_its_outermost_centres():
    at = lambda x, y: bool(inside(torch.tensor([x, y]), (3, 2), 4))
    assert at(-.5, -.5) and at(7.5, 11.5) and not (at(-.51, 0) or at(0, -.51) or at(7.51, 0) or at(0, 11.51))

def pooled(seed, size=(12, 8), B=3):
    "Maps with one clear peak each, some of them faint, and views, some of them mirrored."
    r, J = np.random.default_rng(seed), 3
    P = r.uniform(0, .02, (B, J, *size))
    for b, j in np.ndindex(B, J):
        P[b,j] += r.choice([.04, .3, .9])*gaussian(r.uniform(0, (size[1]-1, size[0]-1)), size, 1.2)
    any_view = lambda: matrix3(r.uniform(-60, 60), r.uniform(.6, 1.4), r.random() < .5, (size[0]*4, size[1]*4))
    R = np.stack([any_view() for _ in range(B)])
    return P.astype(np.float32), R

@given(seeds, st.sampled_from(['argmax', 'quarter', 'dark']), st.booleans(),
       st.sampled_from([-math.inf, 0., .1, .5, math.inf]))
def test_refine(seed, how, exact, tau):
    P, R = pooled(seed)
    T, W = refine(torch.tensor(P), two(R), flip, tau, 4, 1.2, how, exact)
    assert T.shape == P.shape and W.dtype == torch.float32
    for b, j in np.ndindex(3, 3):
        M = P[b, flip[j] if np.linalg.det(R[b]) < 0 else j].astype(float)  # whose map joint j of the student's view is
        q = R[b]@[*(peak(M, how)*4+1.5), 1]
        c = (q[:2]-1.5)/4
        if (np.abs(c+.5-np.floor(c+.5)) < 1e-3).any() and not exact: continue  # between two pixels
        far = min(q[0]+.5, q[1]+.5, 31.5-q[0], 47.5-q[1])
        if abs(far) > 1e-2: assert W[b,j] == float(M.max() > tau and far >= 0)
        assert np.abs(T[b,j].numpy()-gaussian(c if exact else np.floor(c+.5), (12, 8), 1.2)).max() < 5e-3

@given(seeds, st.sampled_from([-math.inf, 0., .1, .5, math.inf]))
def test_gate(seed, tau):
    P, R = pooled(seed)
    T, W = gate(torch.tensor(P), two(R), flip, tau, 4)
    for b in range(3):
        assert np.abs(T[b].numpy()-moved(P[b].astype(float), R[b], 4, flip)).max() < 2e-3
        tops = P[b].max((1, 2))[list(flip) if np.linalg.det(R[b]) < 0 else [0, 1, 2]]
        assert W[b].tolist() == [float(t > tau) for t in tops]

def test_the_gate_asks_for_more_than_tau():
    P, eye = torch.full((1, 3, 4, 4), .1), torch.eye(2, 3)[None]
    P[0,1,2,2], P[0,2,1,1] = .5, .25
    for f in (refine, gate): assert f(P, eye, flip, .25)[1].tolist() == [[0, 1, 0]]

def test_a_refined_target_has_the_labels_shape_whatever_the_zoom():
    P = torch.tensor(gaussian((4, 6), (12, 8), 2.5))[None,None].float()*.3
    for zoom in (.5, 1, 1.4):
        T, W = refine(P, two(matrix3(0, zoom, False, (48, 32)))[None], (0,), .1, 4, 1.5, 'argmax')
        assert W.item() == 1
        c = np.array([15.5+(17.5-15.5)/zoom, 23.5+(25.5-23.5)/zoom])
        assert np.abs(T[0,0].numpy()-gaussian((c-1.5)/4, (12, 8), 1.5)).max() < 1e-4

def test_empty_pools_are_dropped_and_nothing_is_nan():
    P, R = torch.zeros(1, 3, 12, 8), two(matrix3(30, 1.2, True, (48, 32)))[None]
    for f in (refine, gate):
        T, W = f(P, R, flip, .1)
        assert T.isfinite().all() and not W.any()

@settings(max_examples=15)
@given(seeds)
def test_from_views_to_pool_in_loops(seed):
    "Heatmaps that three views would give of three joints come back to one place each."
    r, size, V = np.random.default_rng(seed), (24, 16), 3
    M = np.stack([matrix3(*((0, 1, False) if v == 0 else (r.uniform(-60, 60), r.uniform(.7, 1.4), r.random() < .5)),
                          (96, 64)) for v in range(V)])
    p = r.uniform((8, 12), (56, 84), (3, 2))
    H = np.zeros((1, 1, V, 3, *size))
    for v in range(V):
        q = ((M[v]@np.c_[p, np.ones(3)].T)[:2].T-1.5)/4
        # in a mirrored picture the left wrist looks like a right one
        names = flip if np.linalg.det(M[v]) < 0 else (0, 1, 2)
        for j in range(3): H[0,0,v,j] = gaussian(q[names[j]], size, 1.)
    got, seen = one_frame(torch.tensor(H), two(M)[None], 4, flip)
    P = pool(got, seen)[0,0].numpy()
    for j in range(3):
        c = peak(P[j], 'argmax')
        assert np.abs(c-(p[j]-1.5)/4).max() <= 1 and P[j].max() > .7 and P[j].min() > -.2

# the rest of our own: a gate by share, a maximum without its floor

@given(seeds, st.floats(.05, 1))
def test_a_share_of_the_joints_passes(seed, keep):
    P = torch.rand(2, 4, 5, 6, 4, generator=torch.Generator().manual_seed(seed))*torch.rand(2, 4, 5, 1, 1)
    tau = threshold(P, .1, keep)
    passed = (P.amax((-2, -1)) > tau).flatten(1).sum(1)
    assert ((passed-keep*20).abs() <= 1).all()
    for s in range(2):  # the highest ones
        p = P[s].amax((-2, -1)).flatten().sort(descending=True).values
        assert p[:int(passed[s])].min() > tau[s] >= p[int(passed[s]):].max() if passed[s] < 20 else True
    assert threshold(P, .1) == .1

@given(seeds)
def test_a_maximum_above_its_floor(seed):
    g = torch.Generator().manual_seed(seed)
    H, seen = torch.rand(3, 2, 5, 4, generator=g), torch.rand(3, 1, 5, 4, generator=g) < .8
    got = pool(H, seen, 'raised')
    for j in range(2):
        top = np.array([[max([float(H[v,j,y,x]) for v in range(3) if seen[v,0,y,x]], default=0.) for x in range(4)] for y in range(5)])
        floor = np.sort(top.ravel())[9]  # the lower median of 20, as torch's
        assert np.allclose(got[j], np.maximum(top-floor, 0), atol=1e-6)
