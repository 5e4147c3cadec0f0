"Heatmaps against loops written from the published definitions, closed forms and scipy."
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from helpers import gaussian, peak
from scipy.ndimage import gaussian_filter
from sshpe.pose.heatmap import dark_shift, decode, encode, mirror, peaks, quarter_shift, smoothed, to_heatmap, to_picture
from sshpe.pose.skeleton import COCO17, Skeleton

seeds = st.integers(0, 2**32-1)
strides = st.sampled_from([1, 2, 4, 8])

def maps(seed, n=4, size=(9, 7)):
    "Positive random maps; smooth enough that their maxima are no accidents."
    r = np.random.default_rng(seed)
    return sum(gaussian(c, size, s)*a for c, s, a in zip(r.uniform((-1, -1), (size[1], size[0]), (8, 2)),
                                                         r.uniform(.8, 3, 8), r.uniform(.1, 1, 8)))\
        +r.uniform(.01, .1, (n, *size))

@given(st.integers(0, 50), strides)
def test_a_heatmap_pixel_is_the_mean_of_the_pixels_it_stands_for(h, stride):
    assert to_picture(h, stride) == np.arange(stride*h, stride*(h+1)).mean()

@given(st.floats(-1e4, 1e4), st.sampled_from([1., 2., 4., 3.5]))
def test_to_picture_undoes_to_heatmap(x, stride):
    assert math.isclose(to_picture(to_heatmap(x, stride), stride), x, abs_tol=1e-9)

@given(seeds, strides, st.floats(.5, 3), st.booleans(), st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_encode(seed, stride, sigma, exact, size):
    p = np.random.default_rng(seed).uniform(-10, stride*22, (2, 3, 2))
    H = encode(torch.tensor(p), size, stride, sigma, exact)
    c = (p-(stride-1)/2)/stride
    if not exact: c = np.floor(c+.5)
    truth = np.stack([[gaussian(q, size, sigma) for q in b] for b in c])
    assert H.shape == truth.shape and H.dtype == torch.float32 and np.abs(H.numpy()-truth).max() < 2e-5

def test_a_point_between_two_pixels_is_rounded_up():
    H = encode(torch.tensor([[2.5, .5], [3.5, 1.5], [-.5, 0.]]), (5, 6), 1, 1, exact=False)
    assert [np.unravel_index(h.argmax(), (5, 6)) for h in H.numpy()] == [(1, 3), (2, 4), (0, 0)]

def test_encode_at_a_pixel_is_one_there_and_far_away_is_nothing():
    H = encode(torch.tensor([[4*5+1.5, 4*3+1.5], [-500, 10], [30, 9e5]]), (8, 12), 4, 2)
    assert H[0].max() == H[0,3,5] == 1 and not H[1:].any()

@given(seeds)
def test_peaks(seed):
    H = np.random.default_rng(seed).random((2, 3, 5, 4))
    p, c = peaks(torch.tensor(H))
    for i in np.ndindex(2, 3):
        assert p[i] == H[i].max() and np.array_equal(c[i].numpy()[::-1], np.unravel_index(H[i].argmax(), (5, 4)))

@given(seeds, st.sampled_from(['argmax', 'quarter', 'dark']), strides, st.sampled_from([0, 1., 1.7]))
def test_decode(seed, how, stride, sigma):
    H = maps(seed)
    xy, s = decode(torch.tensor(H)[None], stride, how, sigma)
    truth = np.stack([peak(h.astype(np.float32).astype(float), how, sigma) for h in H])
    assert xy.shape == (1, 4, 2) and np.allclose(s[0], H.max((-2,-1)))
    assert np.abs((xy[0].numpy()-(stride-1)/2)/stride-truth).max() < 2e-3

@pytest.mark.parametrize('how', ['argmax', 'quarter', 'dark'])
def test_decode_of_nothing_and_of_the_border(how):
    H = torch.zeros(1, 6, 6, 5)
    for j, (y, x) in enumerate([(0, 0), (5, 4), (0, 2), (3, 4), (5, 1)]): H[0,j,y,x] = 1
    xy, s = decode(H, 1, how)
    assert xy[0].tolist() == [[0, 0], [4, 5], [2, 0], [4, 3], [1, 5], [0, 0]] and s[0].tolist() == [1]*5+[0]

@given(st.floats(1.01, 20.9), st.floats(1.01, 14.9), st.floats(1, 3), strides, st.floats(.05, 1))
def test_dark_is_exact_on_gaussians(x, y, sigma, stride, height):
    H = height*gaussian((x, y), (17, 23), sigma)
    xy, _ = decode(torch.tensor(H)[None], stride, 'dark')
    assert np.abs(to_heatmap(xy[0].numpy(), stride)-(x, y)).max() < 2e-3

@given(st.floats(10, 20), st.floats(10, 20), st.floats(1, 2))
def test_dark_keeps_a_gaussian_in_place_when_it_smooths_first(x, y, sigma):
    xy, s = decode(torch.tensor(gaussian((x, y), (31, 31), sigma))[None], 1, 'dark', sigma)
    assert np.abs(xy[0].numpy()-(x, y)).max() < .02

@given(st.floats(3, 10), st.floats(3, 10))
def test_quarter_is_at_most_a_quarter_off_and_dark_of_noise_at_most_one(x, y):
    xy, _ = decode(torch.tensor(gaussian((x, y), (14, 14), 1.5))[None], 1, 'quarter')
    assert np.abs(xy[0].numpy()-(x, y)).max() <= .25+1e-5
    H = torch.rand(20, 14, 14, generator=torch.Generator().manual_seed(int(x*1000)))
    c = peaks(H)[1]
    assert (dark_shift(H, c)-c).abs().max() <= 1 and set((quarter_shift(H, c)-c).abs().unique().tolist()) <= {0, .25}

@given(seeds, st.floats(.5, 2.5), st.tuples(st.integers(2, 15), st.integers(2, 15)))
def test_smoothed_is_the_whole_map_filtered_and_cut_out(seed, sigma, size):
    r = np.random.default_rng(seed)
    H, c = r.random((3, *size)), np.stack([r.integers(0, n, 3) for n in size[::-1]], -1)
    truth = [np.pad(gaussian_filter(h, sigma, mode='constant', radius=math.ceil(2.5*sigma)), 1)[y:y+3,x:x+3] for h, (x, y) in zip(H, c)]
    ours = smoothed(torch.tensor(H), torch.tensor(c).float(), sigma).numpy()
    for o, t, (x, y) in zip(ours, truth, c):
        inside = np.pad(np.ones(size, bool), 1)[y:y+3,x:x+3]  # a filter has something to say outside of the map, too: nobody asks
        assert np.allclose(o[inside], t[inside], atol=1e-6)

@pytest.mark.parametrize('size', [(64, 48), (24, 16), (7, 9), (1, 1), (31, 1)])
def test_peaks_of_any_size_are_the_first_maxima(size):
    H = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (5, 2, *size))).float()  # many ties
    p, c = peaks(H)
    assert torch.equal(p, H.amax((-2,-1))) and torch.equal((c[...,1]*size[1]+c[...,0]).long(), H.flatten(-2).argmax(-1))
    for part in (H[:,0], H[0,0], H.transpose(0, 1)): assert torch.equal(peaks(part)[0], part.amax((-2,-1)))

def test_no_number_of_a_heatmap_is_too_small_for_an_ordinary_float():
    H = encode(torch.tensor([[10., 20.], [190., 250.], [-40., 9.]]), (64, 48), 4, 2)
    assert not ((H > 0) & (H < torch.finfo(torch.float32).tiny)).any()

def test_decoding_keeps_its_precision_where_networks_compute_in_bf16():
    H = torch.tensor(maps(3))[None]
    for how, sigma in (('quarter', 0), ('dark', 0), ('dark', 1.3)):
        with torch.autocast('cpu', torch.bfloat16): a = decode(H, 4, how, sigma)
        assert all(torch.equal(x, y) for x, y in zip(a, decode(H, 4, how, sigma)))

@given(seeds)
def test_mirror(seed):
    H = np.random.default_rng(seed).random((2, 17, 3, 5))
    truth = np.empty_like(H)
    swapped = {j: j for j in range(17)} | {a: b for a, b in COCO17.pairs} | {b: a for a, b in COCO17.pairs}
    for b, j, y, x in np.ndindex(H.shape): truth[b,swapped[j],y,4-x] = H[b,j,y,x]
    M = mirror(torch.tensor(H), COCO17.flip)
    assert np.array_equal(M, truth) and np.array_equal(mirror(M, COCO17.flip), H)

@given(seeds, strides)
def test_mirrored_points_make_mirrored_maps(seed, stride):
    s, (h, w) = Skeleton('s', ('nose', 'left_eye', 'right_eye'), ((1, 2),)), (10, 8)
    p = np.random.default_rng(seed).uniform(0, stride*8, (3, 2))
    q = np.stack([w*stride-1-p[:,0], p[:,1]], 1)[[0, 2, 1]]
    assert torch.allclose(mirror(encode(torch.tensor(p), (h, w), stride), s.flip),
                          encode(torch.tensor(q), (h, w), stride), atol=1e-5)
