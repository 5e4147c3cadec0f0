"Tile mixing against loops over tiles, and against what Pose-MUM's section 3.2 promises."
import itertools
import numpy as np, pytest, torch
from dataclasses import replace
from hypothesis import given, strategies as st
from scipy import stats
import helpers
from sshpe.check import InputError
from sshpe.model import STAGES, build
from sshpe.mum import Mix, masks, mix, together, unmix

grids = st.tuples(st.integers(1, 4), st.integers(1, 3))
cases = st.tuples(st.integers(1, 3), st.integers(1, 5), grids, st.integers(1, 3),
                  st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(0, 2**32))

def drawn(case):
    "Features and a mask: G groups of N pictures of C channels, (th,tw) tiles of (a,b) pixels."
    G, N, (th, tw), C, (a, b), seed = case
    return torch.tensor(np.random.default_rng(seed).normal(size=(G*N, C, th*a, tw*b))), masks(G*N, N, (th, tw), seed)

def tiles(x, mask):
    "Every tile of a batch: (group, picture, row, column) and the two slices."
    G, N, th, tw = mask.shape
    a, b = x.shape[2]//th, x.shape[3]//tw
    for g, n, i, j in np.ndindex(G, N, th, tw): yield g*N, n, i, j, slice(i*a, i*a+a), slice(j*b, j*b+b)

def gathered(x, mask):
    "The mix, tile by tile: picture n of a group shows at tile (i,j) what picture mask[n,i,j] showed there."
    y = torch.empty_like(x)
    for g, n, i, j, r, c in tiles(x, mask): y[g+n,:,r,c] = x[g+int(mask[g//mask.shape[1],n,i,j]),:,r,c]
    return y

@given(cases)
def test_masks_permute_the_pictures_of_each_group_at_each_tile(case):
    (G, N, grid, *_, seed), (_, m) = case, drawn(case)
    assert m.shape == (G, N, *grid) and m.dtype == torch.int64
    for g, i, j in np.ndindex(G, *grid): assert sorted(m[g,:,i,j].tolist()) == list(range(N))
    assert torch.equal(m, masks(G*N, N, grid, seed))

@given(cases)
def test_mix_tile_by_tile(case):
    x, m = drawn(case)
    assert torch.equal(mix(x, m), gathered(x, m))

@given(cases)
def test_a_tile_never_moves_inside_its_picture(case):
    x, m = drawn(case)
    place = torch.arange(x[0].numel(), dtype=x.dtype).view_as(x[0]).expand_as(x)
    assert torch.equal(mix(place, m), place)
    who = torch.arange(len(x), dtype=x.dtype)[:,None,None,None].expand_as(x)
    N = m.shape[1]
    assert torch.equal(mix(who, m).view(-1, N, *x.shape[1:]).sort(1)[0], who.view(-1, N, *x.shape[1:]))

@given(cases, st.integers(1, 5))
def test_unmix_undoes_any_stack_and_a_stack_is_one_gather(case, depth):
    x, _ = drawn(case)
    G, N, grid, *_, seed = case
    stack = [masks(G*N, N, grid, seed, k) for k in range(depth)]
    y, all = x, torch.arange(N).view(1, N, 1, 1).expand(G, N, *grid)
    for m in stack: y, all = mix(y, m), all.gather(1, m)
    assert torch.equal(y, gathered(x, all))
    for m in stack[::-1]: y = unmix(y, m)
    assert torch.equal(y, x)

@given(st.integers(0, 2**32))
def test_a_stack_of_different_grids_is_undone_too(seed):
    x = torch.arange(8*2*12*12.).view(8, 2, 12, 12)
    kinds = (4, (3, 2)), (2, (6, 4)), (8, (1, 12)), (4, (12, 3))
    stack = [masks(8, n, grid, seed, i) for i, (n, grid) in enumerate(kinds)]
    y = x
    for m in stack: y = mix(y, m)
    for m in stack[::-1]: y = unmix(y, m)
    assert torch.equal(y, x)

@given(cases)
def test_the_gradient_is_the_inverse_gather(case):
    x, m = drawn(case)
    g = torch.randn_like(x)
    z = x.clone().requires_grad_()
    mix(z, m).backward(g)
    back = torch.empty_like(x)
    for at, n, i, j, r, c in tiles(x, m): back[at+int(m[at//m.shape[1],n,i,j]),:,r,c] = g[at+n,:,r,c]
    assert torch.equal(z.grad, back)

def test_memory_order_is_kept():
    x, m = torch.randn(8, 6, 12, 8), masks(8, 4, (3, 2), 1)
    y = mix(x.contiguous(memory_format=torch.channels_last), m)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, gathered(x, m)) and mix(x, m).is_contiguous()
    assert torch.equal(mix(x.transpose(2, 3).contiguous().transpose(2, 3)[:,::2], m), gathered(x[:,::2], m))

def test_every_permutation_is_equally_likely_and_tiles_are_independent():
    m = torch.cat([masks(300, 3, (2, 2), s) for s in range(30)]).numpy()  # (3000,3,2,2)
    codes = (m*np.array([9, 3, 1])[:,None,None]).sum(1).reshape(len(m), 4)
    kinds = [9*a+3*b+c for a, b, c in itertools.permutations(range(3))]
    for i in range(4): assert stats.chisquare([(codes[:,i] == k).sum() for k in kinds]).pvalue > 1e-3
    for i, j in itertools.combinations(range(4), 2):
        assert stats.chisquare([((codes[:,i] == a) & (codes[:,j] == b)).sum() for a in kinds for b in kinds]).pvalue > 1e-3

def test_bad_sizes_are_refused_in_a_sentence():
    with pytest.raises(InputError, match='10 pictures.*groups of 4'): masks(10, 4, (3, 2), 0)
    with pytest.raises(InputError, match='8x6.*3x2'): mix(torch.zeros(4, 1, 8, 6), masks(4, 4, (3, 2), 0))
    with pytest.raises(InputError, match='6x5.*3x2'): mix(torch.zeros(4, 1, 6, 5), masks(4, 4, (3, 2), 0))
    with pytest.raises(InputError): Mix(4, (3, 2)).touch(6, 0)('input', torch.zeros(6, 1, 6, 4))

@given(st.integers(0, 2**32))
def test_together(seed):
    "Paint each joint's number into its tile, mix, and look which picture holds it."
    r, B, J, size = np.random.default_rng(seed), 8, 5, (24, 16)
    xy, limbs = torch.tensor(r.integers((0, 0), size[::-1], (B, J, 2))), [(0, 1), (1, 2), (3, 4), (0, 4)]
    ms = [masks(B, 4, (3, 2), seed, k) for k in range(3)]
    x = torch.zeros(B, B*J, *size)
    for b, j in np.ndindex(B, J): x[b, b*J+j, xy[b,j,1], xy[b,j,0]] = 1
    got = together(xy.float(), limbs, size, ms)
    for k, m in enumerate(ms):
        x = mix(x, m)
        at = x.amax((2, 3)).argmax(0).view(B, J)
        assert got[k].tolist() == [[bool(at[b,i] == at[b,j]) for i, j in limbs] for b in range(B)]

# the touch, on a network of identities

def through(f, x, stages=STAGES):
    "What a network of identities gives after each stage."
    out = {}
    for s in stages: out[s] = x = f(s, x)
    return out

always = Mix(4, (3, 2), (('input', 1.), ('layer1', 1.), ('layer2', 1.), ('layer3', 1.)))
x8 = torch.randn(8, 2, 6, 4, generator=torch.Generator().manual_seed(0))

@pytest.mark.parametrize('where', STAGES[1:])
def test_all_is_undone_after_the_unmix_stage(where):
    y = through(replace(always, unmix=where).touch(8, 3, 1), x8)
    k = STAGES.index(where)
    for s in STAGES[:k]: assert not torch.equal(y[s], x8)
    for s in STAGES[k:]: assert torch.equal(y[s], x8)
    last = [y[s] for s in STAGES[:k]]
    assert all(torch.equal(a, b) == (t not in dict(always.stages)) for a, b, t in zip(last, last[1:], STAGES[1:k]))

def test_probability_zero_is_plain_input_mixing_and_a_group_of_one_is_none():
    mum = replace(always, stages=(('input', 1.), ('layer1', 0.), ('layer2', 0.), ('layer3', 0.)))
    y = through(mum.touch(8, 5), x8)
    assert not torch.equal(y['input'], x8) and all(torch.equal(y[s], y['input']) for s in STAGES[1:4])
    assert all(torch.equal(v, x8) for v in through(replace(always, group=1).touch(8, 5), x8).values())
    assert all(torch.equal(v, x8) for v in through(replace(always, stages=()).touch(8, 5), x8).values())

def test_in_a_real_network():
    net, x = build('narrow18', 3, 8, init='he').eval(), torch.randn(8, 3, 96, 64)
    mum = Mix(4, (3, 2), (('input', 1.), ('layer1', 0.)))
    seen = []
    with torch.no_grad():
        def spy(stage, h, f=mum.touch(8, 2)): seen.append(f(stage, h)); return seen[-1]
        y = net(x, spy)
        # MUM written out: the mix is found in what the network was given, and every feature goes back
        tile = lambda t: t.view(2, 4, 3, 3, 32, 2, 32)
        m, (a, b) = torch.zeros(2, 4, 3, 2, dtype=torch.int64), (tile(seen[0]), tile(x))
        for g, n, i, j in np.ndindex(2, 4, 3, 2):
            m[g,n,i,j] = next(k for k in range(4) if torch.equal(a[g,n,:,i,:,j], b[g,k,:,i,:,j]))
        h = net.stem(gathered(x, m))
        for k in STAGES[1:5]: h = getattr(net, k)(h)
        back = torch.empty_like(h)
        for at, n, i, j, r, c in tiles(h, m): back[at+int(m[at//4,n,i,j]),:,r,c] = h[at+n,:,r,c]
        assert torch.allclose(y, net.head(net.decoder(back)), atol=1e-5)
        assert torch.allclose(net(x, replace(always, group=1).touch(8, 2)), net(x))
        assert (y-net(x)).abs().max() > 1e-3*y.abs().max()

def test_the_mix_is_a_function_of_the_key():
    a, b = (through(always.touch(8, 3, 1), x8) for _ in range(2))
    assert all(torch.equal(a[s], b[s]) for s in STAGES)
    for other in ((3, 2), (4, 1), (3, 1, 0)):
        assert not torch.equal(through(always.touch(8, *other), x8)['input'], a['input'])

def test_each_stage_draws_its_own_permutations():
    one = lambda stage: through(Mix(4, (3, 2), ((stage, 1.),)).touch(8, 3), x8)[stage]
    mixes = [one(s) for s in STAGES[:4]]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(mixes, 2))

def test_each_stage_mixes_with_its_own_probability():
    m = Mix(4, (3, 2), (('input', 1.), ('layer1', .25), ('layer2', .5), ('layer3', .8)))
    hits = []
    for t in range(400):
        y = through(m.touch(8, t), x8)
        hits.append([not torch.equal(y[b], y[a]) for a, b in zip(STAGES, STAGES[1:4])])
    share = np.mean(hits, 0)
    assert np.abs(share-(.25, .5, .8)).max() < .08
    assert np.abs(np.corrcoef(np.array(hits).T)[np.triu_indices(3, 1)]).max() < .2
