"Views against 3x3 matrices in numpy, pixel loops, and scipy.stats."
import math
import numpy as np, pytest, torch
from hypothesis import assume, given, settings, strategies as st
from scipy import stats
from scipy.optimize import least_squares
from helpers import centroid, cubic, heatmap3, linear, matrix3, moved, places, sample, two, view
from sshpe.pose.heatmap import encode
from sshpe.pose.skeleton import COCO17
from sshpe.pose import views as V
from sshpe.pose.views import Affine, Beta, Normal, Uniform

seeds, sizes = st.integers(0, 2**32-1), st.sampled_from([(96, 64), (64, 96), (80, 80), (256, 192)])
angles, scales, sides = st.floats(-180, 180), st.floats(.5, 2), st.booleans()
some = st.tuples(angles, scales, sides)  # a view

def stack(vs, size): return np.stack([matrix3(*v, size) for v in vs])

# matrices

@given(angles, scales, sides, sizes)
def test_matrix(rotation, scale, mirror, size):
    M = V.matrix(rotation, scale, mirror, size)
    assert M.dtype == torch.float32 and np.allclose(M, matrix3(rotation, scale, mirror, size)[:2], atol=1e-4)
    assert bool(V.mirrors(M)) == mirror

def test_what_the_parameters_of_a_matrix_mean():
    p = torch.tensor([[41.5, 47.5]])  # ten pixels to the right of the centre
    at = lambda *a: V.apply(V.matrix(*a, (96, 64)), p)[0].tolist()
    assert np.allclose(at(90, 1, False), (31.5, 57.5), atol=1e-4)  # clockwise on the screen
    assert np.allclose(at(0, 2, False), (36.5, 47.5)) and np.allclose(at(0, 1, True), (21.5, 47.5))

@given(st.lists(some, min_size=2, max_size=2), seeds, sizes)
def test_apply_compose_invert(vs, seed, size):
    A, B = stack(vs, size)
    p = np.random.default_rng(seed).uniform(0, 200, (5, 2))
    out = lambda M: (np.c_[p, np.ones(5)]@M.T)[:,:2]
    a, b, q = two(A), two(B), torch.tensor(p, dtype=torch.float32)
    assert np.allclose(V.apply(a, q), out(A), atol=1e-2)
    assert np.allclose(V.compose(a, b), (A@B)[:2], atol=5e-3)
    assert np.allclose(V.apply(V.compose(a, b), q), out(A@B), atol=5e-2)
    assert np.allclose(V.invert(a), np.linalg.inv(A)[:2], atol=5e-3)
    assert np.allclose(V.apply(V.invert(a), V.apply(a, q)), p, atol=2e-2)

def test_matrices_in_batches_and_shears():
    r = np.random.default_rng(0)
    A, B = r.normal(size=(2, 6, 3, 3, 3)); A[...,2,:] = B[...,2,:] = 0, 0, 1
    p = r.normal(size=(6, 3, 4, 2))
    assert np.allclose(V.compose(two(A), two(B)), (A@B)[...,:2,:], atol=1e-4)
    assert np.allclose(V.invert(two(A)), np.linalg.inv(A)[...,:2,:], rtol=1e-3, atol=1e-3)
    assert np.array_equal(V.mirrors(two(A)), np.linalg.det(A) < 0)
    assert np.allclose(V.apply(two(A), torch.tensor(p).float()),
                       np.einsum('abij,abnj->abni', A[...,:2,:2], p)+A[...,None,:2,2], atol=1e-4)

@given(some, sizes, st.sampled_from([2, 4]))
def test_in_heatmap(v, size, stride):
    M = matrix3(*v, size)
    assert np.allclose(V.in_heatmap(two(M), stride), heatmap3(M, stride)[:2], atol=1e-3)

# warp(encode(p)) = encode(M p): the geometry's promise

def interior(seed, M, size, stride, sigma, n=17):
    "Points that lie, before and after the view, so far from the border that their Gaussians are whole."
    r, (h, w) = np.random.default_rng(seed), (size[0]//stride, size[1]//stride)
    p = r.uniform(0, 1, (4000, 2))*(size[1], size[0])
    q = (np.c_[p, np.ones(len(p))]@M.T)[:,:2]
    s = math.sqrt(abs(np.linalg.det(M[:2,:2])))
    ok = lambda x, d: ((x > d) & (x < (w-1-d, h-1-d))).all(-1)
    p = p[ok((p+.5)/stride-.5, 4*sigma) & ok((q+.5)/stride-.5, 4*sigma*max(1, s)+1)]
    return p[:n] if len(p) >= n else None

def fitted(H, c, sigma):
    "Where the Gaussian sits that fits a map best near c (least squares over place, height and width)."
    y, x = np.mgrid[:H.shape[0], :H.shape[1]]
    near = (abs(x-c[0]) <= 4*sigma+2) & (abs(y-c[1]) <= 4*sigma+2)
    x, y, h = x[near], y[near], H[near]
    return least_squares(lambda p: p[2]*np.exp(-((x-p[0])**2+(y-p[1])**2)/(2*p[3]**2))-h, [*c, 1, sigma]).x[:2]

@given(seeds, st.tuples(angles, st.floats(.5, 1.5), sides), sizes, st.sampled_from([2, 4]), st.floats(1, 3))
def test_moved_heatmaps_peak_at_the_moved_points(seed, v, size, stride, sigma):
    M, (h, w), flip = matrix3(*v, size), (size[0]//stride, size[1]//stride), (0, 2, 1)
    p = interior(seed, M, size, stride, sigma, 3)
    assume(p is not None)
    H = V.move(encode(torch.tensor(p)[None], (h, w), stride, sigma), two(M)[None], stride, flip)[0].double().numpy()
    q = ((M@np.c_[p, np.ones(3)].T)[:2].T+.5)/stride-.5
    for a, b in zip(H, q[list(flip)] if v[2] else q): assert np.abs(fitted(a, b, sigma/v[1])-b).max() < .05

@settings(max_examples=20)
@given(seeds, st.tuples(angles, st.floats(.7, 1.5), sides), st.sampled_from([(96, 64), (256, 192)]),
       st.sampled_from([2, 4]), st.floats(1, 2), st.sampled_from(['bilinear', 'bicubic']))
def test_warped_heatmaps_have_no_bias(seed, v, size, stride, sigma, mode):
    M, hw = matrix3(*v, size), (size[0]//stride, size[1]//stride)
    p = interior(seed, M, size, stride, sigma, 200)
    assume(p is not None)
    W = V.warp(encode(torch.tensor(p)[None], hw, stride, sigma), V.in_heatmap(two(M), stride)[None],
               mode=mode)[0].double().numpy()
    e = centroid(W)-(((M@np.c_[p, np.ones(len(p))].T)[:2].T+.5)/stride-.5)
    assert np.abs(e).max() < .07 and np.abs(e.mean(0)).max() < .01

@settings(max_examples=30)
@given(seeds, some, sizes, st.floats(0, 1))
def test_pictures_move_as_points_do(seed, v, size, margin):
    (H, W), M = size, matrix3(*v, size)
    Hc, Wc = (2*round((1+margin)*s/2) for s in size)
    p = interior(seed, M, size, 1, 2, 1)
    assume(p is not None)
    y, x = np.mgrid[:Hc, :Wc]
    cx, cy = p[0]+((Wc-W)/2, (Hc-H)/2)
    spot = np.exp(-((x-cx)**2+(y-cy)**2)/(2*2.5**2))*120
    c = torch.from_numpy((spot[...,None]+V.MEAN).clip(0, 255).round().astype(np.uint8)).permute(2, 0, 1)[None]
    c = V.crops(c, two(M)[None,None], size)[0,0].double().numpy()
    got, (qx, qy) = centroid(np.where(c > .15, c, 0)), (M@[*p[0], 1])[:2]
    assert np.abs(got-(qx, qy)).max() < .1

@given(seeds, st.tuples(st.floats(-60, 60), st.floats(.8, 1.25), sides), st.sampled_from([2, 4]))
def test_view_to_frame_to_view_comes_back(seed, v, stride):
    size, sigma = (96, 64), 2.
    M, hw = matrix3(*v, size), (96//stride, 64//stride)
    p = interior(seed, M, size, stride, sigma, 4)
    assume(p is not None)
    q, R = torch.tensor(p, dtype=torch.float32)[None], two(M)[None]
    flip = (0, 2, 1, 3)
    assert torch.allclose(V.move_points(V.move_points(q, R, flip), V.invert(R), flip), q, atol=1e-3)
    H = encode(q, hw, stride, sigma)
    back = V.move(V.move(H, R, stride, flip), V.invert(R), stride, flip)
    assert (back-H).abs().max() < .06
    assert np.abs(centroid(back.double().numpy())-centroid(H.double().numpy())).max() < .05

@given(seeds, some, st.tuples(st.integers(3, 9), st.integers(3, 9)), st.tuples(st.integers(3, 9), st.integers(3, 9)))
def test_warp_pixel_by_pixel(seed, v, size, out):
    I, M = np.random.default_rng(seed).random(size), matrix3(*v, size)
    x, y = places(M, out)
    for mode, kernel in (('bilinear', linear), ('bicubic', cubic)):
        W = V.warp(torch.tensor(I)[None,None].float(), two(M)[None], out, mode)[0,0]
        assert W.shape == out and np.abs(W.numpy()-sample(I, x, y, kernel)).max() < 1e-3

# crops

@settings(max_examples=20)
@given(seeds, st.lists(some, min_size=4, max_size=4), st.sampled_from([(16, 12), (10, 14)]),
       st.sampled_from([1., 1.5, 2.]))
def test_crops_pixel_by_pixel(seed, vs, size, margin):
    Hc, Wc = (2*round(margin*s/2) for s in size)
    canvas = np.random.default_rng(seed).integers(0, 256, (2, 3, Hc, Wc)).astype(np.uint8)
    M = stack(vs, size).reshape(2, 2, 3, 3)
    X = V.crops(torch.tensor(canvas), two(M), size)
    assert X.shape == (2, 2, 3, *size) and X.dtype == torch.float32
    for b, v in np.ndindex(2, 2): assert np.abs(X[v,b].numpy()-view(canvas[b], M[b,v], size)).max() < 2e-3

def test_the_upright_view_is_the_canvas_middle_and_nothing_is_the_mean_colour():
    c = torch.randint(0, 256, (1, 3, 18, 12), dtype=torch.uint8)
    eye = torch.eye(2, 3)[None,None]
    for x in (V.crops(c, eye, (12, 8))[0,0], V.upright_view(c, (12, 8))[0]):
        assert torch.allclose(x*torch.tensor(V.STD).view(3, 1, 1)+torch.tensor(V.MEAN).view(3, 1, 1),
                              c[0,:,3:15,2:10].float(), atol=1e-2)
    assert not V.crops(c, eye+torch.tensor([[0, 0, 500.], [0, 0, 0]]), (12, 8)).any()

# what a view has seen, and answers in one frame

def seen_by(R, stride, size):
    "Pixels of the frame whose source lies on the view's heatmap, and how far each is from its edge."
    x, y = places(heatmap3(R, stride), size)
    d = np.minimum(np.minimum(x+.5, size[1]-.5-x), np.minimum(y+.5, size[0]-.5-y))
    return d >= 0, abs(d) > 1e-3

@given(some, st.sampled_from([((96, 64), 4), ((64, 96), 2), ((24, 16), 4)]))
def test_shown(v, how):
    size, stride = how
    R, hw = matrix3(*v, size), (size[0]//stride, size[1]//stride)
    truth, sure = seen_by(R, stride, hw)
    S = V.shown(two(R)[None], stride, hw)
    assert S.shape == (1, 1, *hw) and S.dtype == torch.bool and np.array_equal(S[0,0].numpy()[sure], truth[sure])

def test_shown_in_whole_pixels():
    assert V.shown(torch.eye(2, 3)[None], 4, (6, 4)).all()
    assert V.shown(torch.tensor([[[-1., 0, 15], [0, 1, 0]]]), 4, (6, 4)).all()
    assert V.shown(torch.tensor([[[1., 0, 4], [0, 1, 0]]]), 4, (6, 4))[0,0,0].tolist() == [False, True, True, True]

# strong views on top of the weak one

turns = st.tuples(st.floats(-60, 60), st.floats(.75, 1.25), sides)

@settings(max_examples=20)
@given(seeds, turns, turns, turns)
def test_a_strong_view_is_a_second_warp_of_the_weak_crop(seed, weak, first, second):
    "Cut the weak crop, then warp that crop as a picture of its own: to within interpolation the same pixels."
    size, g = (48, 32), np.random.default_rng(seed)
    y, x = np.mgrid[:96, :64]/9.
    waves = [np.sin(g.uniform(-1, 1)*x+g.uniform(-1, 1)*y+g.uniform(0, 6)) for _ in range(3)]  # smooth, so that two interpolations cost little
    canvas = torch.tensor(128+100*np.stack(waves)).to(torch.uint8)[None]
    A = [matrix3(*v, size) for v in (weak, first, second)]
    M = V.on_top(two(np.stack(A))[None], 1)
    assert np.allclose(M[0,0], A[0][:2], atol=1e-4) and all(np.allclose(M[0,k], (A[k]@A[0])[:2], atol=1e-3) for k in (1, 2))
    X = V.blackened(V.crops(canvas, M, size), M, 1)
    crop = view(canvas[0].numpy(), A[0], size)
    for k in (1, 2):
        px, py = places(A[k], size)
        theirs = np.stack([sample(c, px, py) for c in crop])
        deep = (px > 1) & (px < size[1]-2) & (py > 1) & (py < size[0]-2)  # the two differ where the crop ends between two pixels
        far = (px < -1) | (px > size[1]) | (py < -1) | (py > size[0])
        assert np.abs(X[k,0].numpy()-theirs)[:,deep].max(initial=0) < .12 and not X[k,0][:,far].any() and not theirs[:,far].any()

@given(seeds, turns, turns)
def test_what_the_weak_crop_has_not_shown_is_black_pixel_by_pixel(seed, weak, strong):
    size = (12, 8)
    M = V.on_top(two(np.stack([matrix3(*weak, size), matrix3(*strong, size)]))[None], 1)
    X = V.blackened(torch.ones(2, 1, 3, *size), M, 1)
    assert (X[0] == 1).all()  # the weak view itself
    back = np.linalg.inv(matrix3(*strong, size))
    for i, j in np.ndindex(size):
        x, y, _ = back@[j, i, 1]
        edge = min(abs(x+.5), abs(x-size[1]+.5), abs(y+.5), abs(y-size[0]+.5))
        if edge > 1e-3: assert bool(X[1,0,0,i,j]) == (-.5 < x < size[1]-.5 and -.5 < y < size[0]-.5)

def test_strong_views_are_harder_than_weak_ones():
    "On top of the weak view: more turned, and scales that the weak one never has (DualPose's code; 0.56 to 1.56)."
    M = V.on_top(V.sample_views((V.WEAK, V.STRONG), (96, 64), np.arange(4000), 0), 1).numpy().astype(float)
    scale, angle = 1/np.sqrt(np.abs(np.linalg.det(M[...,:2]))), lambda m: np.degrees(np.arctan2(m[:,1,0], m[:,1,1]))
    weak, strong = angle(M[:,0]), angle(M[:,1])
    assert strong.std() > 1.3*weak.std() and scale[:,1].std() > 1.3*scale[:,0].std()
    assert np.allclose([scale[:,1].min(), scale[:,1].max()], [.75**2, 1.25**2], atol=1e-4) and (np.linalg.det(M[:,0,:,:2]) > 0).mean() > .4
    assert (np.sign(np.linalg.det(M[:,0,:,:2])) == np.sign(np.linalg.det(M[:,1,:,:2]))).all()  # mirrored as the weak view is

@settings(max_examples=25)
@given(seeds, st.lists(some, min_size=6, max_size=6), st.sampled_from([2, 4]))
def test_one_frame_view_by_view(seed, vs, stride):
    S, B, W, J, (h, w), flip = 2, 2, 3, 3, (8, 6), (0, 2, 1)
    M = stack(vs, (h*stride, w*stride)).reshape(B, W, 3, 3)
    H = np.random.default_rng(seed).normal(size=(S, B, W, J, h, w)).astype(np.float32)
    got, seen = V.one_frame(torch.tensor(H), two(M), stride, flip)
    assert got.shape == H.shape and seen.shape == (B, W, 1, h, w) and seen[:,0].all()
    assert np.array_equal(got[:,:,0], H[:,:,0])
    for b, v in np.ndindex(B, W):
        R = M[b,0]@np.linalg.inv(M[b,v])
        truth, sure = seen_by(R, stride, (h, w))
        assert np.array_equal(seen[b,v,0].numpy()[sure], truth[sure])
        for s in range(S): assert np.abs(got[s,b,v].numpy()-moved(H[s,b,v], R, stride, flip)).max() < 5e-3

def test_one_frame_of_one_view_and_of_half_precision():
    H = torch.rand(1, 2, 1, 3, 8, 6).bfloat16()
    got, seen = V.one_frame(H, torch.eye(2, 3).expand(2, 1, 2, 3), 4, (0, 2, 1))
    assert got.dtype == torch.float32 and torch.equal(got, H.float()) and seen.all()

@given(seeds)
def test_swap(seed):
    r = np.random.default_rng(seed)
    R, x = r.normal(size=(5, 2, 3)), r.normal(size=(5, 17, 2, 3))
    for y in (x, x[...,0,0], x[...,0]):
        truth = [a[list(COCO17.flip)] if np.linalg.det(m[:,:2]) < 0 else a for a, m in zip(y, R)]
        assert np.array_equal(V.swap(torch.tensor(y), torch.tensor(R), COCO17.flip), truth)

# randomness

def splitmix(z):
    "One step of SplitMix64 (Steele, Lea & Flood 2014) in whole numbers."
    z = (z+0x9E3779B97F4A7C15) % 2**64
    z = (z^z>>30)*0xBF58476D1CE4E5B9 % 2**64
    z = (z^z>>27)*0x94D049BB133111EB % 2**64
    return z^z>>31

@given(st.lists(st.integers(-2**63, 2**63-1), max_size=5), st.integers(1, 5))
def test_keyed_is_splitmix_of_the_key(key, n):
    h = 0
    for k in key: h = splitmix(h^k % 2**64)
    truth = [((splitmix((h+i*0x9E3779B97F4A7C15) % 2**64)>>11)+.5)/2**53 for i in range(n)]
    assert V.keyed(*key, n=n).tolist() == truth and all(0 < u < 1 for u in truth)

@given(seeds, st.integers(-5, 5))
def test_keyed_is_a_function_of_its_key(a, b):
    rows, cols = np.array([3, 1, 8])[:,None], np.arange(4)
    np.random.rand(); torch.rand(1)
    U = V.keyed(a, rows, 'view', cols, b, n=3)
    assert U.shape == (3, 4, 3) and U.dtype == np.float64
    for i, j in np.ndindex(3, 4): assert np.array_equal(U[i,j], V.keyed(a, int(rows[i,0]), 'view', j, b, n=3))
    assert np.array_equal(U[...,:1], V.keyed(a, rows, 'view', cols, b))
    assert len(np.unique(U)) == U.size and not np.isin(U, V.keyed(a+1, rows, 'view', cols, b, n=3)).any()

def test_text_is_a_part_of_the_key():
    words = ['input', 'layer1', 'layer2', 'decoder', 'lab', 'unl', 'coin', 'ask', '']
    assert len({V.keyed(0, w)[0] for w in words}) == len(words)

def test_long_texts_are_different_keys_too(): assert V.keyed(0, 'labelled')[0] != V.keyed(0, 'unlabelled')[0]

many = np.arange(20_000)
STREAMS = {'first part': lambda: V.keyed(many, 0, 0)[:,0], 'middle part': lambda: V.keyed(0, many, 'x')[:,0],
           'last part': lambda: V.keyed(1, 2, many)[:,0], 'negative': lambda: V.keyed(-many, 3)[:,0],
           'multiples': lambda: V.keyed(many*2**20, 3)[:,0], 'numbers of one key': lambda: V.keyed(5, n=len(many))}

@pytest.mark.parametrize('name', STREAMS)
def test_keyed_is_uniform_and_neighbours_are_independent(name):
    u = STREAMS[name]()
    assert stats.kstest(u, 'uniform').pvalue > 1e-3
    for lag in (1, 2, 3, 16): assert abs(np.corrcoef(u[:-lag], u[lag:])[0,1]) < 4/math.sqrt(len(u))
    cells = np.histogram2d(u[:-1:2], u[1::2], 10, [[0, 1]]*2)[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-3

@pytest.mark.parametrize('other', [
    lambda: V.keyed(1, many, 0)[:,0], lambda: V.keyed(0, many, 1)[:,0], lambda: V.keyed(0, many, 0, n=2)[:,1],
    lambda: V.keyed(many, 0, 0)[:,0], lambda: V.keyed(0, many+1, 0)[:,0], lambda: V.keyed(0, many)[:,0],
    lambda: V.keyed(0, many, 'a')[:,0]])
def test_parts_of_the_key_are_independent(other):
    u, v = V.keyed(0, many, 0)[1:,0], other()[1:]
    assert stats.chisquare(np.histogram2d(u, v, 10, [[0, 1]]*2)[0].ravel()).pvalue > 1e-3

# distributions of views

@given(st.floats(1e-9, 1-1e-9), st.floats(-50, 50), st.floats(.1, 40), st.floats(.2, 5), st.floats(.2, 5))
def test_quantiles(u, mean, spread, a, b):
    low, high = mean-spread, mean+.7*spread
    assert math.isclose(Uniform(low, high).quantile(u), stats.uniform(low, high-low).ppf(u), abs_tol=1e-9)
    assert math.isclose(Normal(mean, spread/2, low, high).quantile(u),
                        np.clip(stats.norm(mean, spread/2).ppf(u), low, high), abs_tol=1e-7)
    assert math.isclose(Beta(a, b, low, high).quantile(u), stats.beta(a, b, low, high-low).ppf(u), rel_tol=1e-6,
                        abs_tol=1e-6*spread)

def test_weak_views_are_dualposes():
    M = V.sample_views((V.WEAK,), (96, 64), many[:10_000], 0)[:,0].double().numpy()
    mirrored = np.linalg.det(M[:,:,:2]) < 0
    scale, angle = 1/np.hypot(M[:,0,1], M[:,1,1]), np.degrees(np.arctan2(-M[:,0,1], M[:,1,1]))
    assert abs(mirrored.mean()-.5) < .02 and abs((angle == 0).mean()-.4) < .02
    assert abs((abs(angle) > 59.99).mean()-.6*2*stats.norm.sf(2)) < .01
    inner = (abs(angle) > 1e-3) & (abs(angle) < 59.99)
    assert stats.kstest(angle[inner], stats.truncnorm(-2, 2, 0, 30).cdf).pvalue > 1e-3
    assert scale.min() >= .75-1e-6 and scale.max() <= 1.25+1e-6 and abs((scale > 1.2499).mean()-stats.norm.sf(1)) < .02
    assert stats.kstest(scale[abs(scale-1) < .2499], stats.truncnorm(-1, 1, 1, .25).cdf).pvalue > 1e-3
    assert max(abs(np.corrcoef([mirrored, scale, angle])[np.triu_indices(3, 1)])) < .04
    assert np.allclose(M[:,:,:2]@[31.5, 47.5]+M[:,:,2], (31.5, 47.5), atol=1e-3)

@given(seeds, st.lists(st.integers(0, 10**6), min_size=2, max_size=6), st.data())
def test_a_view_does_not_depend_on_its_company(seed, people, data):
    kinds, size = (V.WEAK, V.STRONG, Affine(Uniform(-60, 60), 1., Beta(.5, .5, .5, 1.5), 0.)), (96, 64)
    M = V.sample_views(kinds, size, np.array(people), seed, 7)
    few = data.draw(st.permutations(range(len(people))))[:2]
    assert M.shape == (len(people), 3, 2, 3)
    assert torch.equal(V.sample_views(kinds, size, np.array(people)[few], seed, 7), M[few])
    assert torch.equal(V.sample_views(kinds[:2], size, people, seed, 7), M[:,:2])
    for who, *key in ((people, seed+1, 7), (people, seed, 8), (np.array(people)+1, seed, 7)):
        assert (V.sample_views(kinds, size, who, *key)[:,2] != M[:,2]).any((1, 2)).all()

@given(st.floats(.01, .99), st.floats(.01, .99), st.floats(.01, .99), st.floats(.01, .99))
def test_affine_reads_its_four_numbers(a, b, c, d):
    kind = Affine(Uniform(-40, 20), .3, Beta(2, 3, .5, 1.5), .7)
    truth = matrix3(-40+60*a if b < .3 else 0, .5+stats.beta(2, 3).ppf(c), d < .7, (96, 64))
    assert np.allclose(kind.draw(np.array([a, b, c, d]), (96, 64)), truth[:2], atol=1e-4) and kind.widest() == 1.5
