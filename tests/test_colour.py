"""Changes of colour against PIL's and torchvision's, which know one picture of bytes at a time.

PIL works on bytes: where it rounds, ours must be within what its rounding explains; where a change maps bytes to bytes, equal."""
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torchvision.transforms.v2 import functional as tv
import helpers
from sshpe.errors import InputError
from sshpe.ssl.randaugment import changed, OPS, RandAugment

def pictures(seed, B=3, size=(24, 16)):
    "Pictures of bytes: noise of any range, few values, a constant one."
    r, out = np.random.default_rng(seed), []
    for b in range(B):
        low, high = np.sort(r.integers(0, 256, 2))
        p = r.integers(low, high+1, (*size, 3))
        if b%3 == 1: p = np.where(r.random((*size, 1)) < .5, low, high)+np.zeros(3, int)
        if b%3 == 2: p[...,r.integers(3)] = high  # one channel is constant
        out.append(p)
    if seed%4 == 0: out[0][:] = r.integers(0, 256, 3)  # all of it is
    return torch.tensor(np.stack(out)).permute(0, 3, 1, 2).float()

def pil(x, f):
    after = [np.asarray(f(Image.fromarray(p.byte().permute(1, 2, 0).numpy()))) for p in x]
    return torch.tensor(np.stack(after)).permute(0, 3, 1, 2).float()
def tvb(x, f): return torch.stack([f(p.byte()) for p in x]).float()   # torchvision on bytes
def tvf(x, f): return torch.stack([f(p/255) for p in x])*255   # torchvision on fractions
def ours(x, name, v=0., u=(.5, .5)): return OPS[name][0](x, torch.full((len(x),), float(v)), torch.tensor([u]*len(x)))
def far(a, b): return float((a-b).abs().max())

seeds = st.integers(0, 2**31)

@given(seeds)
def test_autocontrast(seed):
    x = pictures(seed)
    y = ours(x, 'autocontrast')
    assert far(y, pil(x, ImageOps.autocontrast)) < 1.001   # PIL cuts fractions off
    assert far(y, tvf(x, tv.autocontrast)) < .01
    for b, c in np.ndindex(len(x), 3):
        if x[b,c].min() < x[b,c].max(): assert y[b,c].min() == 0 and abs(float(y[b,c].max())-255) < 1e-3
        else: assert torch.equal(y[b,c], x[b,c])

@given(seeds, st.sampled_from([(24, 16), (5, 4), (96, 64)]))
def test_equalize(seed, size):
    x = pictures(seed, size=size)
    assert torch.equal(ours(x, 'equalize'), pil(x, ImageOps.equalize)) and torch.equal(ours(x, 'equalize'), tvb(x, tv.equalize))

def test_equalize_makes_a_histogram_flat():
    x = (torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(0))**3*255).round()
    y = ours(x, 'equalize')[0,0].flatten()
    assert abs(float((y < 128).float().mean())-.5) < .05 and float((x[0,0] < 128).float().mean()) > .7

@given(seeds)
def test_invert(seed):
    x = pictures(seed)
    assert torch.equal(ours(x, 'invert'), pil(x, ImageOps.invert))

@given(seeds, st.integers(0, 400).map(lambda k: k/100))
def test_posterize(seed, v):
    x, bits = pictures(seed), max(2, 6-int(v))
    assert torch.equal(ours(x, 'posterize', v), pil(x, lambda p: ImageOps.posterize(p, bits)))
    assert torch.equal(ours(x, 'posterize', v), tvb(x, lambda p: tv.posterize(p, bits)))

@given(seeds, st.integers(0, 256))
def test_solarize(seed, v):
    x = pictures(seed)
    assert torch.equal(ours(x, 'solarize', v), pil(x, lambda p: ImageOps.solarize(p, 256-v)))
    if v: assert torch.equal(ours(x, 'solarize', v), tvb(x, lambda p: tv.solarize(p, 256-v)))
    else: assert torch.equal(ours(x, 'solarize', v), x)

@given(seeds, st.integers(0, 110))
def test_solarize_add(seed, v):
    x = pictures(seed)
    lifted = torch.tensor([[min(255, k+v)] for k in range(256)])[x.long()][...,0].float()
    assert torch.equal(ours(x, 'solarize_add', v), pil(lifted, lambda p: ImageOps.solarize(p, 128)))

factors = st.floats(-.9, .9, allow_subnormal=False)
# PIL: the result loses its fraction (1); the dull picture is whole (½), for contrast after whole greys (1); that weighs |v| <= .9
@pytest.mark.parametrize('name, enhance, function, slack', [
    ('colour', ImageEnhance.Color, tv.adjust_saturation, 1+.45), ('contrast', ImageEnhance.Contrast, tv.adjust_contrast, 1+.9),
    ('brightness', ImageEnhance.Brightness, tv.adjust_brightness, 1),
    ('sharpness', ImageEnhance.Sharpness, tv.adjust_sharpness, 1+.45)])
@given(seed=seeds, v=factors)
def test_factors(name, enhance, function, slack, seed, v):
    x = pictures(seed)
    y = ours(x, name, v)
    assert far(y, pil(x, lambda p: enhance(p).enhance(1+v))) < slack+.01
    assert far(y, tvf(x, lambda p: function(p, 1+v))) < .03   # torchvision's red weighs .2989

@pytest.mark.parametrize('name', ['colour', 'contrast', 'brightness', 'sharpness'])
def test_no_factor_no_change(name): assert far(ours(pictures(5), name, 0), pictures(5)) < 1e-4

def upto(high): return st.floats(0, high, allow_subnormal=False)

@given(upto(80), upto(.999), upto(.999), st.sampled_from([(256, 192), (96, 64)]))
def test_cutout_pixel_by_pixel(v, ux, uy, size):
    (H, W), x = size, torch.zeros(1, 3, *size)
    y = ours(x, 'cutout', v, (ux, uy))
    s, cx, cy = v*H/256, ux*W-.5, uy*H-.5
    i, j = np.arange(W), np.arange(H)
    hole = ((cy-s/2 <= j) & (j < cy+s/2))[:,None] & ((cx-s/2 <= i) & (i < cx+s/2))
    got = (y[0] != 0).all(0).numpy()
    assert (got != hole).sum() <= 2*max(H, W)   # float32 may move an edge that lies on a pixel
    assert torch.equal(y[0][:,got], torch.tensor(helpers.MEAN, dtype=torch.float32)[:,None].expand(3, int(got.sum())))
    assert (got.any(0).sum() in (int(s), int(s)+1)) or cx-s/2 < 0 or cx+s/2 > W-1

ends = [(k, e) for k, (_, *es) in OPS.items() for e in es]

@pytest.mark.parametrize('name, end', ends)
@given(seed=seeds, m=upto(30))
def test_every_change_stays_in_range_and_leaves_its_input(name, end, seed, m):
    x = pictures(seed)
    x = (x+torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))).clamp(max=255)   # fractions, as after a warp
    before = x.clone()
    y = ours(x, name, end*m/30)
    assert torch.equal(x, before) and y.shape == x.shape and y.dtype == x.dtype
    assert y.isfinite().all() and 0 <= y.min() and y.max() <= 255

@pytest.mark.parametrize('name, end', ends)
def test_each_person_has_its_own_magnitude(name, end):
    x, v, u = pictures(7, 4), torch.tensor([0., .3, .6, 1])*end, torch.rand(4, 2)
    f = OPS[name][0]
    assert torch.allclose(f(x, v, u), torch.cat([f(x[b:b+1], v[b:b+1], u[b:b+1]) for b in range(4)]), atol=1e-4)

def test_the_eleven():
    assert {k: tuple(map(abs, e)) for k, (_, *e) in OPS.items()} == dict(
        autocontrast=(0,), equalize=(0,), invert=(0,), posterize=(4,), solarize=(256,), solarize_add=(110,), colour=(.9, .9),
        contrast=(.9, .9), brightness=(.9, .9), sharpness=(.9, .9), cutout=(80,))

def view(seed=0, B=12, size=(96, 64)):
    "A normalised batch, joints, which are there, numbers."
    x = torch.tensor(np.random.default_rng(seed).integers(0, 256, (B, 3, *size)).astype(float))
    m, s = (torch.tensor(t)[:,None,None] for t in (helpers.MEAN, helpers.STD))
    who = np.random.default_rng(seed).permutation(1000)[:B]
    return ((x-m)/s).float(), torch.zeros(B, 17, 2), torch.zeros(B, 17, dtype=bool), who

def to_bytes(x):
    m, s = (torch.tensor(t)[:,None,None].float() for t in (helpers.MEAN, helpers.STD))
    return x*s+m

def test_a_change_is_done_to_values_from_0_to_255():
    x, *rest = view()
    for name in ('invert', 'equalize', 'autocontrast', 'posterize'):
        y = to_bytes(RandAugment(1, 20., (name,)).picture(x, *rest, 0))
        assert far(y, ours(to_bytes(x).round(), name, {'posterize': 8/3}.get(name, 0))) < .01

@given(seeds)
def test_everything_stays_in_range(seed):
    x, *rest = view(seed%100)
    y = to_bytes(RandAugment(3, 30.).picture(x, *rest, seed))
    assert -.01 <= y.min() and y.max() <= 255.01 and y.isfinite().all()

@pytest.fixture
def spies(monkeypatch):
    "Four changes that write down for whom they are called: the pixel's first value is the person."
    log = []
    def spy(name):
        def op(x, v, u):
            log.extend((name, round(float(p[0,0,0])), float(a), tuple(b.tolist())) for p, a, b in zip(x, v, u))
            return x
        return op
    for k, e in dict(a=(0,), b=(60,), c=(-1, 1), d=(5,)).items(): monkeypatch.setitem(OPS, k, (spy(k), *e))
    return log

def numbered(B):
    m, s = (torch.tensor(t)[:,None,None] for t in (helpers.MEAN, helpers.STD))
    x = (torch.arange(B)[:,None,None,None].expand(B, 3, 8, 6)-m)/s
    return x.float(), torch.zeros(B, 1, 2), torch.zeros(B, 1, dtype=bool), np.arange(B)

def test_draws_are_uniform_with_replacement_fixed_in_size_and_fair_in_sign(spies):
    for s in range(20): RandAugment(2, 15., ('a', 'b', 'c', 'd')).picture(*numbered(200), s)
    assert len(spies) == 20*200*2
    names = [k for k, *_ in spies]
    assert stats.chisquare([names.count(k) for k in 'abcd']).pvalue > .001
    assert {(k, v) for k, _, v, _ in spies} == {('a', 0.), ('b', 30.), ('c', -.5), ('c', .5), ('d', 2.5)}
    assert stats.binomtest(sum(v > 0 for k, _, v, _ in spies if k == 'c'), names.count('c')).pvalue > .001
    assert stats.kstest([t for *_, u in spies for t in u], 'uniform').pvalue > .001

def test_each_person_draws_n_independent_changes(spies):
    pairs = {}
    for s in range(40):
        spies.clear()
        RandAugment(2, 15., ('a', 'b', 'c', 'd')).picture(*numbered(100), s)
        whose = {}
        for k, b, *_ in spies: whose.setdefault(b, []).append(k)   # loops over changes twice, so in the order of the draws
        assert sorted(whose) == list(range(100)) and all(len(t) == 2 for t in whose.values())
        for t in whose.values(): pairs[tuple(t)] = pairs.get(tuple(t), 0)+1
    assert len(pairs) == 16 and stats.chisquare(list(pairs.values())).pvalue > .001

def test_one_after_the_other(monkeypatch):
    monkeypatch.setitem(OPS, 'half', (lambda x, v, u: x/2, 0))
    monkeypatch.setitem(OPS, 'plus', (lambda x, v, u: x+10, 0))
    x, *rest = numbered(64)
    y = to_bytes(RandAugment(2, 0., ('half', 'plus')).picture(x, *rest, 0))[:,0,0,0]
    b = torch.arange(64.)
    results = torch.stack([b/4, b/2+10, (b+10)/2, b+20], 1)
    assert ((y[:,None]-results).abs().amin(1) < 1e-3).all() and len((y[:,None]-results).abs()[20:].argmin(1).unique()) == 4

def test_same_key_same_picture_and_every_part_of_the_key_counts():
    x, xy, there, who = view()
    y = RandAugment().picture(x, xy, there, who, 1, 2, 3)
    assert torch.equal(y, RandAugment().picture(x, xy, there, who, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)): assert not torch.equal(y, RandAugment().picture(x, xy, there, who, *other))
    assert not torch.equal(y, RandAugment().picture(x, xy, there, who+1000, 1, 2, 3))

def test_a_person_s_changes_do_not_depend_on_its_company():
    x, xy, there, who = view()
    y = RandAugment().picture(x, xy, there, who, 5)
    for rows in ([3], [7, 2], np.random.default_rng(0).permutation(12)):
        assert torch.allclose(RandAugment().picture(x[rows], xy[rows], there[rows], who[rows], 5), y[rows], atol=1e-5)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_type_and_memory_stay_and_the_view_is_left_alone(dtype):
    x, *rest = view()
    x = x.to(dtype)
    want = RandAugment().picture(x, *rest, 0)
    for z in (x, x.contiguous(memory_format=torch.channels_last)):
        old, y = z.clone(), RandAugment().picture(z, *rest, 0)
        assert y.dtype == dtype and y.stride() == z.stride() and torch.equal(z, old)
        assert torch.allclose(y.float(), want.float(), atol=1e-4)

def test_the_mean_colour_stays_exactly_where_nothing_changes_it():
    x, xy, there, who = view()
    x[:,:,:20] = 0
    y = RandAugment(2, 20., ('cutout',)).picture(x, xy, there, who, 0)
    assert (y[:,:,:20] == 0).all()

def test_changed_takes_one_end_of_two():
    x, u = pictures(3, 2), np.full((2, 2), .5)
    a, b = changed(x, 'brightness', 15., np.array([.2, .8]), u)
    assert far(a, (x[0]*.55).clamp(0, 255)) < 1e-3 and far(b, (x[1]*1.45).clamp(0, 255)) < 1e-3

def test_it_is_a_value():
    assert RandAugment() == RandAugment(2, 20.) and hash(RandAugment()) == hash(RandAugment()) and len(RandAugment().ops) == 11

@pytest.mark.parametrize('make, word', [
    (lambda: RandAugment(0), 'n=0'), (lambda: RandAugment(m=31.), 'm=31'), (lambda: RandAugment(m=-1.), 'm=-1'),
    (lambda: RandAugment(ops=()), 'among 0'), (lambda: RandAugment(ops=('invrt',)), "did you mean 'invert'")])
def test_senseless_values_are_refused(make, word):
    with pytest.raises(InputError, match=word): make()
