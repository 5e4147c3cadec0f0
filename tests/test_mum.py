"Tile mixing against loops over tiles, and against what Pose-MUM's section 3.2 promises."
import itertools
import numpy as np, pytest, torch
from dataclasses import replace
from hypothesis import given, strategies as st
from scipy import stats
import helpers
from sshpe.errors import InputError
from sshpe.models.posenet import build, STAGES
from sshpe.ssl.mum import masks, Mix, mix, limbs_together, unmix
from sshpe.ssl.perturb import perturb, Perturbation

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

# features that the tiles don't divide

def stretch(n, m):
    "Bilinear resizing of n pixels to m as a matrix: pixel i of m sits at (i+.5)*n/m-.5, clamped to the border."
    W = np.zeros((m, n))
    for i in range(m):
        c = min(max((i+.5)*n/m-.5, 0), n-1)
        a = min(int(c), n-1); b = min(a+1, n-1)
        W[i,a] += 1-(c-a); W[i,b] += c-a
    return W

def nearest(n, k):
    "The multiple of k that is nearest to n; the larger of two."
    return min(range(k, 2*(n+k), k), key=lambda m: (abs(m-n), -m))

@given(st.tuples(st.integers(1, 3), st.integers(1, 4), grids, st.integers(1, 13), st.integers(1, 13), st.integers(0, 2**32)))
def test_resizing_is_there_mix_and_back(case):
    G, N, (th, tw), h, w, seed = case
    x, m = torch.tensor(np.random.default_rng(seed).normal(size=(G*N, 2, h, w))), masks(G*N, N, (th, tw), seed)
    H, W = nearest(h, th), nearest(w, tw)
    there = torch.tensor(np.einsum('ij,bcjk,lk->bcil', stretch(h, H), x, stretch(w, W)))
    back = np.einsum('ij,bcjk,lk->bcil', stretch(H, h), gathered(there, m), stretch(W, w))
    assert np.allclose(mix(x, m, 'resize'), back, atol=1e-6)
    if (h, w) == (H, W): assert torch.equal(mix(x, m, 'resize'), mix(x, m))
    else:
        with pytest.raises(InputError, match=f'{h}x{w}.*{th}x{tw}.*resize'): mix(x, m)
        with pytest.raises(InputError, match=f'{h}x{w}.*{th}x{tw}.*resize'): unmix(x, m)

def test_resized_tiles_stay_where_they_are_and_come_back_nearly():
    r, (h, w), N = np.random.default_rng(0), (31, 22), 4
    y, x = torch.meshgrid(torch.arange(h)/h, torch.arange(w)/w, indexing='ij')
    smooth = torch.stack([torch.sin(a*y+b*x+c) for a, b, c in r.uniform(-4, 4, (N, 3))])[:,None]
    m = masks(N, N, (4, 3), 5)
    back = unmix(mix(smooth, m, 'resize'), m, 'resize')
    seam = torch.ones(h, w, dtype=bool)  # away from the tiles' borders nothing has happened
    for i in range(1, 4): seam[round(i*h/4)-3:round(i*h/4)+3] = False
    for j in range(1, 3): seam[:,round(j*w/3)-3:round(j*w/3)+3] = False
    assert (back-smooth).abs()[...,seam].max() < .03
    paint = torch.arange(N).view(N, 1, 1, 1).expand(N, 1, h, w).float()
    said = mix(paint, m, 'resize').round().long()
    for i, j in np.ndindex(4, 3):
        at = int((i+.5)*h/4), int((j+.5)*w/3)
        assert said[:,0,at[0],at[1]].tolist() == m[0,:,i,j].tolist()

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
    with pytest.raises(InputError): Mix(4, (3, 2)).feature_hook(6, 0)('input', torch.zeros(6, 1, 6, 4))

@given(st.integers(0, 2**32))
def test_together(seed):
    "Paint each joint's number into its tile, mix, and look which picture holds it."
    r, B, J, size = np.random.default_rng(seed), 8, 5, (24, 16)
    xy, limbs = torch.tensor(r.uniform(-.5, np.subtract(size[::-1], .5001), (B, J, 2))), [(0, 1), (1, 2), (3, 4), (0, 4)]
    at = xy.round().long()  # the pixel that a point lies in
    ms = [masks(B, 4, (3, 2), seed, k) for k in range(3)]
    x = torch.zeros(B, B*J, *size)
    for b, j in np.ndindex(B, J): x[b, b*J+j, at[b,j,1], at[b,j,0]] = 1
    got = limbs_together(xy.float(), limbs, size, ms)
    for k, m in enumerate(ms):
        x = mix(x, m)
        who = x.amax((2, 3)).argmax(0).view(B, J)
        assert got[k].tolist() == [[bool(who[b,i] == who[b,j]) for i, j in limbs] for b in range(B)]

def test_together_cuts_between_pixels():
    "Two tiles in 12 pixels: pixels 0..5 and 6..11, so the cut is at 5.5."
    xy = torch.tensor([5.4, 5.6, 0., 11.]).view(1, 4, 1).expand(2, 4, 2)
    swap = torch.tensor([[[0, 1], [0, 1]], [[1, 0], [1, 0]]])[None]  # the right half is the other person's
    got = limbs_together(xy, [(0, 2), (1, 3), (0, 1), (2, 3)], (12, 12), [swap])[0]
    assert got.tolist() == [[True, True, False, False]]*2

# the hook, on a network of identities

def through(f, x, stages=STAGES):
    "What a network of identities gives after each stage."
    out = {}
    for s in stages: out[s] = x = f(s, x)
    return out

def test_it_is_a_perturbation_of_features_only():
    xy = torch.zeros(8, 5, 2)
    x, hook = perturb((always,), x8, xy, xy[...,0] > 0, np.arange(8), 3, 1)
    assert isinstance(always, Perturbation) and x is x8
    y, z = through(hook, x8), through(always.feature_hook(8, 3, 1, 0), x8)
    assert all(torch.equal(y[s], z[s]) for s in STAGES)

always = Mix(4, (3, 2), (('input', 1.), ('layer1', 1.), ('layer2', 1.), ('layer3', 1.)))
x8 = torch.randn(8, 2, 6, 4, generator=torch.Generator().manual_seed(0))

@pytest.mark.parametrize('where', STAGES)
def test_all_is_undone_after_the_unmix_stage(where):
    y = through(replace(always, unmix=where, stages=always.stages+(('layer4', 1.), ('decoder', 1.))).feature_hook(8, 3, 1), x8)
    k = STAGES.index(where)
    for s in STAGES[:k]: assert not torch.equal(y[s], x8)
    for s in STAGES[k:]: assert torch.equal(y[s], x8)
    last = [y[s] for s in STAGES[:k]]
    assert not any(torch.equal(a, b) for a, b in zip(last, last[1:]))

def test_probability_zero_is_plain_input_mixing_and_a_group_of_one_is_none():
    mum = replace(always, stages=(('input', 1.), ('layer1', 0.), ('layer2', 0.), ('layer3', 0.)))
    y = through(mum.feature_hook(8, 5), x8)
    assert not torch.equal(y['input'], x8) and all(torch.equal(y[s], y['input']) for s in STAGES[1:4])
    assert all(torch.equal(v, x8) for v in through(replace(always, group=1).feature_hook(8, 5), x8).values())
    assert all(torch.equal(v, x8) for v in through(replace(always, stages=()).feature_hook(8, 5), x8).values())

@pytest.mark.parametrize('where', ['layer2', 'layer4', 'decoder'])
@pytest.mark.parametrize('name', ['narrow18', 'narrow_hrnet'])
def test_the_places_of_table_1(name, where):
    "MUM: every stage before the unmixing place works on mixed people, every later one on whole ones."
    net, x = build(name, 3, 8, init='he').eval(), torch.randn(8, 3, 96, 64)
    near = lambda a, b: torch.allclose(a, b, atol=1e-5)
    listed = lambda h: h if isinstance(h, list) else [h]
    given, after = {}, {}
    def plain(s, h): after[s] = h; return h
    hook = Mix(4, (3, 2), (('input', 1.),), where).feature_hook(8, 1)
    def spy(s, h): given[s] = h; after[s] = hook(s, h); return after[s]
    with torch.no_grad():
        net(x, plain)
        y = net(x, spy)
        m = masks(8, 4, (3, 2), 1, 'input')
        mixed, seen = gathered(x, m), {}
        net(mixed, lambda s, h: seen.setdefault(s, h))
        before = STAGES[1:STAGES.index(where)+1]
        for s in before:
            assert all(near(a, b) for a, b in zip(listed(given[s]), listed(seen[s])))
        back = [torch.empty_like(h) for h in listed(seen[where])]
        for h, b in zip(listed(seen[where]), back):
            for at, n, i, j, r, c in tiles(h, m): b[at+int(m[at//4,n,i,j]),:,r,c] = h[at+n,:,r,c]
        assert all(near(a, b) for a, b in zip(listed(after[where]), back))
        h = after[where]
        for s in STAGES[STAGES.index(where)+1:]: h = getattr(net, s)(h)
        assert near(y, net.head(h))

def test_branches_of_a_stage_share_one_mask():
    "Each tile of each branch says from which picture it came; coarser branches say the same."
    who = [torch.arange(8.).view(8, 1, 1, 1).expand(8, c, 3*k, 2*k) for c, k in ((2, 4), (3, 2), (1, 1))]
    f = replace(always, stages=(('layer2', 1.), ('layer3', 1.)), unmix='layer4').feature_hook(8, 7)
    two, three = f('layer2', who[:2]), None
    three = f('layer3', [*two, who[2]])
    assert all(not torch.equal(a, b) for a, b in zip(two, who))
    for branches in (two, three[:2]):
        assert torch.equal(branches[0][:,:1,::2,::2], branches[1][:,:1])
    assert torch.equal(three[2], gathered(who[2], masks(8, 4, (3, 2), 7, 'layer3')))
    back = f('layer4', three)
    assert isinstance(back, list) and torch.equal(back[0], who[0]) and torch.equal(back[1], who[1])
    assert torch.equal(back[2], gathered(who[2], masks(8, 4, (3, 2), 7, 'layer2').argsort(1)))  # it was mixed only once

def test_resizing_inside_a_network():
    net, x = build('narrow_hrnet', 3).eval(), torch.randn(4, 3, 96, 64)
    with torch.no_grad():
        with pytest.raises(InputError, match='choose tiles'): net(x, replace(always, tiles=(5, 4)).feature_hook(4, 1))
        assert net(x, replace(always, tiles=(5, 4), fit='resize').feature_hook(4, 1)).isfinite().all()
    with pytest.raises(InputError, match='resize'): Mix(fit='resized')

@pytest.mark.parametrize('name', ['narrow18', 'narrow_hrnet'])
def test_the_gradient_reaches_all_pictures_of_the_group_and_no_other(name):
    net, x = build(name, 3, 8, init='he').eval(), torch.randn(8, 3, 96, 64, requires_grad=True)
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d): torch.nn.init.ones_(m.weight)  # timm starts some at 0
    net(x, always.feature_hook(8, 2)).square().sum().backward()
    assert x.grad.flatten(1).any(1).all()
    for n in range(8):  # what is said about one person depends on its group, because their features meet at the tiles' borders
        x.grad = None
        net(x, always.feature_hook(8, 2))[n].square().sum().backward()
        assert x.grad.flatten(1).any(1).tolist() == [k//4 == n//4 for k in range(8)]

def test_labels_never_move():
    "Heatmaps painted with a joint each: what enters after the unmixing place is in its own picture, at its own pixel."
    H = torch.rand(8, 5, 24, 16)
    for s in range(20):
        f = replace(always, unmix='decoder').feature_hook(8, s)
        for stage in STAGES[:5]: f(stage, x8)
        stack = [masks(8, 4, (3, 2), s, stage) for stage in STAGES[:4]]
        y = H
        for m in stack: y = gathered(y, m)
        assert torch.equal(f('decoder', y), H)

def test_in_a_real_network():
    net, x = build('narrow18', 3, 8, init='he').eval(), torch.randn(8, 3, 96, 64)
    mum = Mix(4, (3, 2), (('input', 1.), ('layer1', 0.)))
    seen = []
    with torch.no_grad():
        def spy(stage, h, f=mum.feature_hook(8, 2)): seen.append(f(stage, h)); return seen[-1]
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
        assert torch.allclose(net(x, replace(always, group=1).feature_hook(8, 2)), net(x))
        assert (y-net(x)).abs().max() > 1e-3*y.abs().max()

def test_the_mix_is_a_function_of_the_key():
    a, b = (through(always.feature_hook(8, 3, 1), x8) for _ in range(2))
    assert all(torch.equal(a[s], b[s]) for s in STAGES)
    for other in ((3, 2), (4, 1), (3, 1, 0)):
        assert not torch.equal(through(always.feature_hook(8, *other), x8)['input'], a['input'])

def test_each_stage_draws_its_own_permutations():
    one = lambda stage: through(Mix(4, (3, 2), ((stage, 1.),)).feature_hook(8, 3), x8)[stage]
    mixes = [one(s) for s in STAGES[:4]]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(mixes, 2))

def test_each_stage_mixes_with_its_own_probability():
    m = Mix(4, (3, 2), (('input', 1.), ('layer1', .25), ('layer2', .5), ('layer3', .8)))
    hits = []
    for t in range(400):
        y = through(m.feature_hook(8, t), x8)
        hits.append([not torch.equal(y[b], y[a]) for a, b in zip(STAGES, STAGES[1:4])])
    share = np.mean(hits, 0)
    assert np.abs(share-(.25, .5, .8)).max() < .08
    assert np.abs(np.corrcoef(np.array(hits).T)[np.triu_indices(3, 1)]).max() < .2

# the exchange in memory

@pytest.mark.parametrize('kind', [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@given(cases, st.booleans(), st.integers(0, 3))
def test_the_exchange_is_the_same_in_every_layout_type_and_place_of_memory(kind, case, last, skipped):
    x, m = drawn(case)
    x = (x*20).abs().to(kind)
    if last: x = x.contiguous(memory_format=torch.channels_last)
    room = torch.empty(x.numel()+skipped, dtype=kind)  # numbers that don't begin at a multiple of 16 bytes
    x = torch.as_strided(room, x.shape, x.stride(), skipped).copy_(x)
    y = mix(x, m)
    assert torch.equal(y, gathered(x, m)) and torch.equal(unmix(y, m), x)
    assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

@pytest.mark.parametrize('last', [False, True])
def test_the_gradient_goes_the_way_back(last):
    x, m = drawn((2, 3, (2, 3), 2, (2, 1), 4))
    x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    g = torch.randn(x.shape, dtype=x.dtype)
    mix(x, m).backward(g)
    assert torch.equal(x.grad, torch.autograd.grad((gathered(x, m)*g).sum(), x)[0])
    assert torch.autograd.gradcheck(lambda x: mix(x, m), x) and torch.autograd.gradgradcheck(lambda x: mix(x, m)**2, x)

@pytest.mark.parametrize('name, tiles, fit, most', [('narrow18', (3, 2), 'refuse', 1), ('narrow_hrnet', (3, 2), 'refuse', 1),
                                                    ('narrow18', (5, 3), 'resize', 8)])
def test_one_graph_holds_a_network_and_whatever_is_mixed_in_it(name, tiles, fit, most):
    "Traced whole, forward and back, as for a GPU: new masks and other stages need no other graph (resized features: one for each choice)."
    f, g = (build(name, 3, 8, init='he').train() for _ in range(2))
    x, q, graphs = torch.randn(4, 3, 96, 64), Mix(4, tiles, (('input', 1.), ('layer1', .5), ('layer2', .5), ('layer3', .5)), fit=fit), []
    def backend(graph, inputs): graphs.append(graph); return torch._dynamo.lookup_backend('aot_eager')(graph, inputs)
    torch._dynamo.reset()
    f.compile(backend=backend, fullgraph=True, dynamic=False)
    for t in range(6):
        y, z = f(x, q.feature_hook(4, t)), g(x, q.feature_hook(4, t))
        assert torch.allclose(y, z, atol=1e-5)
        y.square().sum().backward(); z.square().sum().backward()
    assert 1 <= len(graphs) <= most
    for a, b in zip(f.parameters(), g.parameters()): assert torch.allclose(a.grad, b.grad, atol=1e-3*float(b.grad.abs().max())+1e-6)
