"Patches against loops over pixels, their distributions against what the papers give, pasted pixels against where they came from."
import math
from dataclasses import replace
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from scipy import stats
import helpers
from sshpe.errors import InputError
from sshpe.ssl.occlusion import anywhere, covers, CutMix, Cutout, person_draws, halves, JointCutout, JointOcclusion, KeypointMix, lay, near, partner, slid

ALL = Cutout(), JointCutout(), CutMix(), JointOcclusion(), KeypointMix()
each = pytest.mark.parametrize('q', ALL, ids=lambda q: type(q).__name__)
PAPER, MINI = (256, 192), (96, 64)

def people(B=6, size=MINI, J=17, seed=0, p=.8):
    "Pictures in which each pixel's three values are its person, row and column; joints; which are there; numbers."
    r, (H, W) = np.random.default_rng(seed), size
    b, y, x = np.mgrid[1:B+1, 1:H+1, 1:W+1]
    xy = r.uniform((0, 0), (W-1, H-1), (B, J, 2))
    return (torch.tensor(np.stack([b, y, x], 1), dtype=torch.float32), torch.tensor(xy, dtype=torch.float32),
            torch.tensor(r.random((B, J)) < p), r.permutation(1000)[:B])

def rectangles(m):
    "The number of pixels of a mask (h,w), and of the smallest rectangle around them."
    y, x = np.nonzero(np.asarray(m))
    return len(y), (np.ptp(y)+1)*(np.ptp(x)+1) if len(y) else 0

eighths = st.integers(-80, 160).map(lambda k: k/8)

sides = st.integers(0, 96).map(lambda k: k/8)

@given(st.lists(st.tuples(eighths, eighths, sides, sides), min_size=1, max_size=4))
def test_covers_pixel_by_pixel(boxes):
    t = torch.tensor(boxes)[None]
    m = covers(t[...,:2], t[...,2:], (9, 12))
    for k, (x, y, w, h) in enumerate(boxes):
        assert m[0,k].tolist() == [[x <= i < x+w and y <= j < y+h for i in range(12)] for j in range(9)]

corner = st.floats(-.75, 250, width=32, allow_subnormal=False)

@given(corner, corner, st.integers(1, 40), st.integers(1, 40))
def test_a_side_of_whole_pixels_is_that_many_wherever_it_lies(x, y, w, h):
    m = covers(torch.tensor([[[x, y]]]), torch.tensor([[[float(w), float(h)]]]), (320, 300))[0,0]
    rows, columns = m.any(1).nonzero(), m.any(0).nonzero()
    assert len(columns) == w and len(rows) == h
    assert m.sum() == len(rows)*len(columns)

def test_nowhere_covers_nothing():
    assert not covers(torch.full((2, 3, 2), math.nan), torch.ones(2, 3, 2), (5, 5)).any()

@given(st.integers(0, 2**31))
def test_lay_and_slid_against_patches_one_after_the_other(seed):
    r = np.random.default_rng(seed)
    B, n, H, W = 2, 4, 7, 6
    x, y = torch.tensor(r.normal(size=(B, 3, H, W))), torch.tensor(r.normal(size=(B, 3, H, W)))
    shift = torch.tensor(r.integers(-3, 4, (B, n, 2)))
    mask = torch.zeros(B, n, H, W, dtype=bool)
    want = x.clone()
    for b, k in np.ndindex(B, n):
        for i, j in np.ndindex(H, W):
            u, v = i+int(shift[b,k,1]), j+int(shift[b,k,0])
            if r.random() < .4 and 0 <= u < H and 0 <= v < W:
                mask[b,k,i,j] = True
                want[b,:,i,j] = y[b,:,u,v]
    assert torch.equal(lay(x, slid(y, mask, shift.float()), mask), want)
    assert torch.equal(lay(x, 0., mask), x*~mask.any(1, keepdim=True))

def test_draws_are_a_person_s_own():
    x, who = torch.zeros(1), np.arange(500)
    u = person_draws(x, 4, who, 1, 2)
    assert u.shape == (500, 4) and u.dtype == torch.float32 and 0 < u.min() and u.max() < 1
    assert torch.equal(person_draws(x, 4, who[100:120], 1, 2), u[100:120])
    assert stats.kstest(u.flatten().numpy(), 'uniform').pvalue > .001

def test_half_sides_are_whole_numbers_from_10_to_19():
    h = halves(torch.zeros(1, 3, *PAPER), 5, (10, 20), np.arange(4000), 0)
    values, counts = h.unique(return_counts=True)
    assert values.tolist() == list(range(10, 20)) and stats.chisquare(counts.numpy()).pvalue > .001
    assert abs(np.corrcoef(h.reshape(-1, 2).T.numpy())[0,1]) < .03  # width and height on their own
    assert torch.allclose(halves(torch.zeros(1, 3, *MINI), 5, (10, 20), np.arange(4000), 0), h*96/256)

def test_anywhere_is_everywhere_alike():
    c = anywhere(torch.zeros(1, 3, *PAPER), 5, np.arange(2000), 0).reshape(-1, 2).numpy()
    for k, n in ((0, 192), (1, 256)): assert stats.kstest(c[:,k], stats.uniform(-.5, n).cdf).pvalue > .001

def test_near_takes_joints_that_are_there_equally_often():
    _, xy, there, _ = people(40, seed=1, p=.5)
    c = near(xy, there, 2000, 0., np.arange(40), 0)
    for k, v, hits in zip(xy, there, (c[:,:,None] == xy[:,None]).all(-1).sum(1)):
        assert (hits[~v] == 0).all() and hits.sum() == 2000
        if v.sum() > 1: assert stats.chisquare(hits[v].numpy()).pvalue > 1e-5

def test_jitter_is_a_normal_distribution():
    d = near(torch.zeros(400, 1, 2), torch.ones(400, 1, dtype=bool), 20, 10., np.arange(400), 0).reshape(-1, 2).numpy()
    for k in (0, 1): assert stats.kstest(d[:,k], stats.norm(0, 10).cdf).pvalue > .001
    assert abs(np.corrcoef(d.T)[0,1]) < .03

def test_jitter_and_sides_scale_with_the_crop():
    joints = torch.zeros(3, 17, 2), torch.ones(3, 17, dtype=bool)
    big, small = (JointCutout().patches(torch.zeros(3, 3, H, W), *joints, np.arange(3), 0) for H, W in (PAPER, (128, 96)))
    for a, b in zip(big, small): assert torch.allclose(a, 2*b, atol=1e-5)

@given(st.integers(0, 2**31), st.sampled_from((Cutout, JointCutout)), st.integers(1, 8), st.integers(1, 12), st.integers(1, 8),
       st.sampled_from((PAPER, MINI)))
def test_nothing_outside_the_patches_changes(seed, kind, n, low, more, size):
    q, (x, xy, there, who) = kind(n, (low, low+more)), people(2, size, seed=seed, p=.4)
    before = x.clone()
    y = q.picture(x, xy, there, who, seed, 1)
    assert torch.equal(x, before) and y.shape == x.shape
    cut = (y == 0).all(1)
    assert torch.equal(y, x*~cut[:,None])  # a pixel is as before, or 0 in all colours
    lows, sides = (t.double().numpy() for t in q.patches(x, xy, there, who, seed, 1))
    J, I = np.mgrid[:size[0], :size[1]]
    for b in range(2):
        inside = [(a[0] <= I) & (I < a[0]+s[0]) & (a[1] <= J) & (J < a[1]+s[1]) for a, s in zip(lows[b], sides[b])]
        assert len(inside) == n and (np.any(inside, 0) != cut[b].numpy()).sum() <= n  # float32 may differ by a hair's row
        assert cut[b].sum() <= n*(2*(low+more)*size[0]/256+1)**2
        if kind is JointCutout and not there[b].any(): assert not cut[b].any()

def test_one_patch_is_one_rectangle_of_20_to_38_pixels_about_a_joint():
    xy = torch.tensor([[[96., 128]]]).expand(300, 1, 2)
    y = JointCutout(1, jitter=0.).picture(torch.ones(300, 3, *PAPER), xy, torch.ones(300, 1, dtype=bool), np.arange(300), 0)
    seen = set()
    for m in (y == 0).all(1):
        n, box = rectangles(m)
        h, w = int(m.any(1).sum()), int(m.any(0).sum())
        assert n == box == h*w and m[128,96]
        seen |= {h, w}
    assert seen == set(range(20, 40, 2))

@each
@pytest.mark.parametrize('size', [PAPER, MINI], ids=str)
def test_every_part_of_the_crop_is_reached(q, size):
    "Also the four corners and the bottom quarter, which DualPose's exchange of height and width spares."
    _, xy, there, who = people(40, size, J=60, seed=3, p=1.)
    x = torch.rand(40, 1, *size, generator=torch.Generator().manual_seed(0))+1
    hit = sum((replace(q, n=5).picture(x, xy, there, who, 0, s) != x).sum((0, 1)) for s in range(25)).double()
    H, W = size
    assert hit.min() > 0
    assert all(hit[i,j] > 0 for i in (0, -1) for j in (0, -1))
    top, bottom = hit[:H//4].mean(), hit[-H//4:].mean()
    left, right = hit[:,:W//4].mean(), hit[:,-W//4:].mean()
    assert .8 < top/bottom < 1.25 and .8 < left/right < 1.25

@pytest.mark.parametrize('corner', [(0, 0), (191, 0), (0, 255), (191, 255)], ids=str)
def test_a_joint_in_a_corner_is_cut_and_nothing_beyond_it(corner):
    xy = torch.tensor([[corner]]).float().expand(50, 1, 2)
    y = JointCutout(1, jitter=0.).picture(torch.ones(50, 3, *PAPER), xy, torch.ones(50, 1, dtype=bool), np.arange(50), 0)
    cut = (y == 0).all(1)
    assert cut[:,corner[1],corner[0]].all() and cut.sum((1, 2)).max() <= 20*20

@pytest.mark.parametrize('q', [JointCutout(), JointOcclusion(), KeypointMix()], ids=lambda q: type(q).__name__)
def test_joints_that_are_not_there_are_never_chosen(q):
    x, xy, there, who = people(8, PAPER)
    there[:] = False
    assert torch.equal(q.picture(x, xy, there, who, 0), x)
    xy[:] = torch.tensor([40., 40]); xy[:,3] = torch.tensor([150., 200]); there[:,3] = True
    for s in range(20):
        changed = (q.picture(x, xy, there, who, s) != x).any(1)
        assert changed.any() and not changed[:,:120].any() and not changed[:,:,:70].any()

@each
def test_same_key_same_picture_and_every_part_of_the_key_counts(q):
    x, xy, there, who = people()
    y = q.picture(x, xy, there, who, 1, 2, 3)
    assert torch.equal(y, q.picture(x, xy, there, who, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)): assert not torch.equal(y, q.picture(x, xy, there, who, *other))
    assert not torch.equal(y, q.picture(x, xy, there, who+1000, 1, 2, 3))

@pytest.mark.parametrize('q', [Cutout(), JointCutout()], ids=lambda q: type(q).__name__)
def test_a_person_s_patches_do_not_depend_on_its_company(q):
    x, xy, there, who = people(12)
    y = q.picture(x, xy, there, who, 5)
    for rows in ([3], [7, 2], np.random.default_rng(0).permutation(12)):
        assert torch.equal(q.picture(x[rows], xy[rows], there[rows], who[rows], 5), y[rows])

@pytest.mark.parametrize('q', [CutMix(), JointOcclusion(), KeypointMix()], ids=lambda q: type(q).__name__)
def test_where_parts_are_pasted_does_not_depend_on_company(q):
    x, xy, there, who = people(12)
    few = x[4:6], xy[4:6], there[4:6], who[4:6]
    for a, b in zip(q.patches(x, xy, there, who, 5), q.patches(*few, 5)): assert torch.equal(a[4:6], b)

def test_partners_are_others_and_each_other_is_as_likely():
    count = np.zeros((5, 5), int)
    for s in range(2000):
        for b, p in enumerate(partner(np.arange(5), s).tolist()): count[b,p] += 1
    assert (count.diagonal() == 0).all()
    assert stats.chisquare(count[~np.eye(5, dtype=bool)]).pvalue > .001
    assert partner(np.array([7]), 0).tolist() == [0] and sorted(partner(np.array([7, 3]), 0).tolist()) == [0, 1]

@each
def test_alone_in_a_batch(q):
    x, xy, there, who = people(1, p=1.)
    y = q.picture(x, xy, there, who, 0)
    kept = (y == x).all(1)
    assert (y[:,0][~kept] == (1 if isinstance(q, (JointOcclusion, KeypointMix)) else 0)).all()  # of oneself, or nothing
    if isinstance(q, (CutMix, KeypointMix)): assert torch.equal(y, x)

@given(st.integers(0, 2**31))
def test_cutmix_shows_one_other_person_at_the_same_place(seed):
    x, xy, there, who = people(5, seed=seed)
    y = CutMix().picture(x, xy, there, who, seed)
    assert torch.equal(y[:,1:], x[:,1:])  # row and column are those of the place
    for b, p in enumerate(partner(who, seed).tolist()):
        assert set(y[b,0].unique().tolist()) <= {b+1., p+1.}
        n, box = rectangles(CutMix(1).picture(x, xy, there, who, seed)[b,0] != b+1)
        assert n == box

@given(st.integers(0, 2**31), st.sampled_from((PAPER, MINI)))
def test_joint_occlusion_shows_another_s_joint_at_a_joint(seed, size):
    "One patch without jitter: it holds a joint of each, and every pixel comes from the same distance."
    x, xy, there, who = people(4, size, seed=seed, p=.3)
    y = JointOcclusion(1, jitter=0.).picture(x, xy, there, who, seed)
    for b, p in enumerate(partner(who, seed).tolist()):
        row, column = (y[b,0] != b+1).nonzero().T
        if not (there[b].any() and there[p].any()): assert len(row) == 0; continue
        assert (y[b,0,row,column] == p+1).all()
        up, along = y[b,1,row,column]-1-row, y[b,2,row,column]-1-column
        assert (up == up[0]).all() and (along == along[0]).all()
        n, box = rectangles(y[b,0] != b+1)
        assert n == box
        shift = torch.stack([along[0], up[0]])
        def near_one(k, r, c): return any(r.min()-1 <= y <= r.max()+1 and c.min()-1 <= x <= c.max()+1 for x, y in k)
        assert near_one(xy[b,there[b]], row, column)
        assert near_one(xy[p,there[p]], row+up[0], column+along[0])
        pairs = (xy[p,there[p]][:,None]-xy[b,there[b]]-shift).abs().amax(-1)
        assert pairs.min() <= .5+1e-4  # the shift leads from a joint of one to a joint of the other, to the nearest pixel

@given(st.integers(0, 2**31))
def test_joint_occlusion_whatever_is_foreign_is_the_partner_s(seed):
    x, xy, there, who = people(4, seed=seed)
    y = JointOcclusion(4).picture(x, xy, there, who, seed)
    for b, p in enumerate(partner(who, seed).tolist()):
        whose, row, column = (y[b]-1).long()  # where each pixel says that it comes from
        assert torch.equal(y[b], x[whose,:,row,column].permute(2, 0, 1))  # all three values are of one pixel
        assert set(whose.unique().tolist()) <= {b, p}
        own = whose == b
        assert torch.equal(y[b][:,own], x[b][:,own])

@given(st.integers(0, 2**31), st.integers(1, 4))
def test_keypoint_mix_shows_the_same_joint_of_the_partner(seed, n):
    "Against a loop over the pixels of each patch."
    q, (x, xy, there, who) = KeypointMix(n), people(4, seed=seed, p=.3)
    y, p, (H, W) = q.picture(x, xy, there, who, seed), partner(who, seed).tolist(), MINI
    both = there & there[p]
    for b, (lows, sides) in enumerate(zip(*q.patches(x, xy, both, who, seed))):
        truth = x[b].clone()
        for (left, top), (w, h) in zip(lows.tolist(), sides.tolist()):
            if math.isnan(left): break  # they have no joint in common
            j = min(both[b].nonzero()[:,0].tolist(), key=lambda j: math.dist(xy[b,j].tolist(), (left+w/2, top+h/2)))
            dx, dy = (round(v) for v in (xy[p[b],j].double()-xy[b,j].double()).tolist())
            for row in range(max(0, math.ceil(top)), min(H, math.ceil(top+h))):
                for column in range(max(0, math.ceil(left)), min(W, math.ceil(left+w))):
                    if 0 <= row+dy < H and 0 <= column+dx < W: truth[:,row,column] = x[p[b],:,row+dy,column+dx]
        assert torch.equal(y[b], truth)

def test_keypoint_mix_jitters_both_sides_alike():
    x, xy, there, who = people(6, PAPER, p=1.)
    mix = lambda jitter: KeypointMix(1, jitter=jitter).picture(x, xy, there, who, 0)
    shifts = lambda y, b: {tuple(v) for v in (y[b,1:]-x[b,1:])[:,y[b,0] != b+1].T.tolist()}
    for b in range(6): assert len(shifts(mix(0.), b) | shifts(mix(6.), b)) == 1
    assert not torch.equal(mix(0.), mix(6.))

@each
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_type_and_memory_stay(q, dtype):
    x, xy, there, who = people()
    want = q.picture(x, xy, there, who, 0)
    for z in (x.to(dtype), x.to(dtype).contiguous(memory_format=torch.channels_last)):
        y, old = q.picture(z, xy, there, who, 0), z.clone()
        assert y.dtype == dtype and y.stride() == z.stride() and torch.equal(y, want.to(dtype)) and torch.equal(z, old)
    view = torch.stack([x, x], 1).permute(1, 0, 2, 3, 4)[1]  # as `crops` makes them
    assert torch.equal(q.picture(view, xy, there, who, 0), want)

def test_they_are_values():
    assert JointCutout() == JointCutout(5, (10, 20), 10.) and hash(CutMix()) == hash(CutMix(2)) and CutMix() != Cutout(2)
    assert (Cutout().n, JointCutout().n, CutMix().n, JointOcclusion().n) == (5, 5, 2, 2)

@pytest.mark.parametrize('make, word', [
    (lambda: Cutout(0), 'n=0'), (lambda: CutMix(2, (5, 5)), 'half'), (lambda: JointCutout(half=(0, 3)), 'half'),
    (lambda: JointOcclusion(half=(3,)), 'half'), (lambda: JointCutout(jitter=-1.), 'jitter')])
def test_senseless_values_are_refused(make, word):
    with pytest.raises(InputError, match=word): make()
