"The step against steps written from the papers' equations in numpy; resume, seeds, telemetry and prediction."
import copy, math, pickle, shutil
from dataclasses import replace
import numpy as np, pytest, torch, torch.nn as nn
from hypothesis import given, settings, strategies as st
from helpers import MEAN, STD, People, gaussian, matrix3, moved, peak, heatmap3, places, two, view
from sshpe.errors import InputError
from sshpe.models.device import autocast, compile_mode, device_of, MODES
from sshpe.train.learner import Learner
from sshpe.evaluate.predict import predict
from sshpe.train.schedule import order, rate, total_steps, weight
from sshpe.data.batch import fetch
from sshpe.ssl.pseudo import pseudo_labels, PseudoLabels
from sshpe.ssl.recipe import Setup
from sshpe.ssl.step import labelled_targets, mse, step, Targets
from sshpe.train.telemetry import agreement, MEASURES, shares, telemetry
from sshpe.models.posenet import build, PoseNet
from sshpe.ssl.methods import DENOISE, recipe, RECIPES, SUPERVISED
from sshpe.ssl.recipe import MINI, PAPER
from sshpe.pose.skeleton import Skeleton
from sshpe.pose.views import Affine, crops, Uniform

S5 = Skeleton('five', ('nose', 'left_hand', 'right_hand', 'left_foot', 'right_foot'), ((1, 2), (3, 4)))
SIZE = (64, 32)

def method(name, **changes):
    "A recipe at a scale of hundredths of seconds a step."
    return recipe(name, 'tiny', **{'size': SIZE, 'width': 8, 'n_labelled': 4, 'n_unlabelled': 4, 'tiles': (2, 1), 'precision': 'fp32', **changes})

def people(seed=0, n=8): return People(n, SIZE, 1.6, seed, len(S5))

def learner(name, seed=0, lab=None, unl=None, **changes):
    return Learner(*method(name, **changes), lab or people(1), unl or people(2, 10), S5, seed, 'cpu')

def networks(r, p, seed=5):
    "Students that say something, and their teachers."
    new = lambda s: build(p.backbone, len(S5), p.width, seed=s, init='he').train()
    students = [new(seed+s) for s in range(r.students)]
    others = [new(seed+7+s).requires_grad_(False) for s in range(r.students)]
    torch.manual_seed(seed)
    for f in students+others:
        nn.init.normal_(f.head.weight, std=.2)
        for m in f.modules():  # residual branches begin at 0 otherwise, and see no neighbours
            if isinstance(m, nn.BatchNorm2d): nn.init.ones_(m.weight)
    return students, (students if r.teacher == 'student' else others)[:r.n_teachers]+others[:r.n_teachers]*len(r.memories)

def hidden(store, *joints):
    "The same people without these labels (all, if none is named)."
    store.keypoints[:, list(joints) or slice(None)] = 0
    return store

def fixed(rotation, scale, mirrored):
    "A distribution with a single view."
    return Affine(Uniform(rotation, rotation), 1., Uniform(scale, scale), float(mirrored))

def gradients(nets):
    return torch.cat([torch.zeros(w.numel()) if w.grad is None else w.grad.flatten() for f in nets for w in f.parameters()])

def clear(nets):
    for f in nets: f.zero_grad(set_to_none=True)

def answer(f, x, mode):
    "What a teacher says in mode 'train' or 'eval'; its statistics stay as they are."
    with torch.no_grad(): return copy.deepcopy(f).train(mode == 'train')(x).double().numpy()

# people in order

@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 99))
def test_every_pass_shows_everyone_once(n, size, seed):
    seen = np.concatenate([order(n, size, t, seed, 'unl') for t in range(3*n//size+2)])
    for e in range(3): assert sorted(seen[e*n:e*n+n]) == list(range(n))

def test_the_order_is_a_function_of_its_key():
    a = order(50, 20, 3, 7, 'lab')
    assert np.array_equal(a, order(50, 20, 3, 7, 'lab'))
    for other in (order(50, 20, 3, 8, 'lab'), order(50, 20, 3, 7, 'unl'), order(50, 20, 8, 7, 'lab')):
        assert not np.array_equal(a, other)
    first = [order(6, 6, t, 0)[0] for t in range(3000)]
    assert abs(np.bincount(first, minlength=6)/3000-1/6).max() < .03

def test_fetch():
    s = people()
    b = fetch(s, np.array([3, 1]))
    assert b.canvas.dtype == torch.uint8 and np.array_equal(b.canvas.permute(0, 2, 3, 1), s.canvases[[3, 1]])
    assert np.array_equal(b.xyv, s.keypoints[[3, 1]])
    assert np.array_equal(b.extent, s.extent[[3, 1]]) and b.number.tolist() == [3, 1]

# loss and labels

@given(st.integers(0, 2**32-1))
def test_mse(seed):
    r = np.random.default_rng(seed)
    y, t, w = r.normal(size=(2, 3, 4, 5)), r.normal(size=(2, 3, 4, 5)), r.choice([0., 1.], (2, 3))
    truth = sum(w[b,j]*(y[b,j,i,k]-t[b,j,i,k])**2 for b, j, i, k in np.ndindex(y.shape))/y.size
    assert math.isclose(mse(torch.tensor(y), torch.tensor(t), torch.tensor(w)), truth, rel_tol=1e-5)
    seen = r.random((2, 1, 4, 5)) < .7
    part = sum(w[b,j]*seen[b,0,i,k]*(y[b,j,i,k]-t[b,j,i,k])**2 for b, j, i, k in np.ndindex(y.shape))/y.size
    assert math.isclose(mse(torch.tensor(y), torch.tensor(t), torch.tensor(w), torch.tensor(seen)), part, rel_tol=1e-5)
    kept = w.sum()/w.size  # the mean over kept joints
    assert math.isclose(mse(torch.tensor(y), torch.tensor(t), torch.tensor(w), over='kept'), truth/kept if kept else 0, rel_tol=1e-5)

def label(store, i, M, p):
    "Targets and weights of person i in view M."
    xy, v = store.keypoints[i,:,:2], store.keypoints[i,:,2]
    q = (M@np.c_[xy, np.ones(len(xy))].T)[:2].T
    if np.linalg.det(M) < 0: q, v = q[list(S5.flip)], v[list(S5.flip)]
    inside = (q >= -.5).all(1) & (q <= (p.size[1]-.5, p.size[0]-.5)).all(1)
    return np.stack([gaussian((c-1.5)/4, p.map, p.sigma) for c in q]), ((v > 0) & inside).astype(float)

@pytest.mark.parametrize('v', [(0, 1, False), (40, .6, False), (-50, .7, True)])
def test_labelled(v):
    (r, p), store, M = method('supervised', weak=fixed(*v)), people(), matrix3(*v, SIZE)
    x, t, w = labelled_targets(fetch(store, np.arange(8)), Setup(r, p, S5.flip), key=(0, 0))
    for i in range(8):
        T, W = label(store, i, M, p)
        assert np.abs(x[i].numpy()-view(store.canvases[i].transpose(2, 0, 1), M, SIZE)).max() < 2e-3
        assert np.abs(t[i].numpy()-T).max() < 1e-4 and w[i].tolist() == W.tolist()
    assert 0 < w.sum() < w.numel()

# DualPose, from Eq. 1 to 3 of the denoising paper; nothing of ours but the networks

def uncovered(M, weak):
    "Which pixels of view M the weak crop has shown: (H,W), 1 or 0."
    x, y = places(M@np.linalg.inv(weak), SIZE)
    return ((x >= -.5) & (x <= SIZE[1]-.5) & (y >= -.5) & (y <= SIZE[0]-.5)).astype(np.float32)

def by_hand(store, rows, M, weak=None):
    seen = 1 if weak is None else uncovered(M, weak)
    return torch.tensor(np.stack([view(store.canvases[i].transpose(2, 0, 1), M, SIZE)*seen for i in rows])).float()

def by_ours(store, rows, M, weak=None):
    "The step's pictures to the last bit, so that no rectifier falls to the other side; `crops` has its own tests."
    x = crops(store.batch(rows), two(M).expand(len(rows), 1, 2, 3), SIZE)[0]
    x = x if weak is None else x*torch.tensor(uncovered(M, weak))
    return x.contiguous(memory_format=torch.channels_last)

def dualpose(f1, f2, teachers, mode, lab, unl, rows, weak, strong, p, lam, see):
    T, W = (torch.tensor(np.stack(a)) for a in zip(*(label(lab, i, weak, p) for i in rows)))
    x = see(lab, rows, weak)
    supervised = sum(((f(x)-T)**2*W[:,:,None,None]).mean() for f in (f1, f2))  # Eq. 1
    He1, He2 = (answer(f, see(unl, rows, weak), mode) for f in teachers)  # Eq. 2
    strong = strong@weak  # a second movement of the weak crop
    Hh1, Hh2 = (f(see(unl, rows, strong, weak)) for f in (f1, f2))
    R = strong@np.linalg.inv(weak)
    easy_to_hard = lambda H: torch.tensor(np.stack([moved(h, R, p.stride, S5.flip) for h in H]))
    unsupervised = ((Hh1-easy_to_hard(He2))**2).mean()+((Hh2-easy_to_hard(He1))**2).mean()  # Eq. 3
    return supervised+lam*unsupervised

SAME = dict(K=0, refined=False, tau=-math.inf, margin=math.inf, strong_cut='weak')

@pytest.mark.parametrize('name, changes', [('dual-pose', {}), ('denoise-select', SAME)])
@pytest.mark.parametrize('weak, strong', [((20, 1.1, False), (-45, 1.2, False)), ((-15, .9, True), (30, 1.25, False)),
                                          ((10, 1., True), (50, .8, True))])
def test_dualpose_is_the_papers(name, changes, weak, strong):
    r, p = method(name, **changes)
    r = replace(r, weak=fixed(*weak), strong=fixed(*strong))
    (f1, f2), _ = networks(r, p)
    before = copy.deepcopy([f1, f2])
    lab, unl, rows = people(1), people(2), np.array([5, 0, 3])
    out = step([f1, f2], [f1, f2], fetch(lab, rows), fetch(unl, rows), Setup(r, p, S5.flip), lam=.7, key=(0, 0))
    out.loss.backward(); ours = gradients([f1, f2]); clear([f1, f2])
    paper = lambda see: dualpose(f1, f2, before, r.teacher_mode, lab, unl, rows, matrix3(*weak, SIZE), matrix3(*strong, SIZE), p, .7, see)
    loss_by_hand, truth = paper(by_hand).item(), paper(by_ours)
    truth.backward(); theirs = gradients([f1, f2])
    assert math.isclose(out.loss.item(), loss_by_hand, rel_tol=1e-4)
    assert math.isclose(out.loss.item(), truth.item(), rel_tol=1e-5)
    assert (ours-theirs).norm() < .01*theirs.norm() and theirs.norm() > 0 and out.unlabelled > .1*out.labelled

# the whole denoising step, Eq. 4 to 8, in loops over people, students, views and joints

def denoised(answers, M, r, p):
    "answers (S,V,B,J,h,w) on views M (B,V',3,3) -> targets and weights (S,B,J,…) on the last view."
    (S, V, B, J, h, w) = answers.shape
    T, W = np.zeros((S, B, J, h, w)), np.zeros((S, B, J))
    for b in range(B):
        H, seen = np.zeros((S, V, J, h, w)), np.zeros((V, h, w), bool)
        for v in range(V):
            R = M[b,0]@np.linalg.inv(M[b,v])
            x, y = places(heatmap3(R, p.stride), (h, w))
            seen[v] = (x > -.5) & (x < w-.5) & (y > -.5) & (y < h-.5) if v else True
            for s in range(S): H[s,v] = moved(answers[s,v,b], R, p.stride, S5.flip) if v else answers[s,0,b]
        A = np.where(seen[None,:,None], H, np.nan)
        P, u = np.nanmax(A, 1), np.nanstd(A, 1).max((-2, -1))  # Eq. 4, Eq. 6
        R = M[b,-1]@np.linalg.inv(M[b,0])
        for s, j in np.ndindex(S, J):
            k = S5.flip[j] if np.linalg.det(R) < 0 else j  # whose map becomes joint j's target on the student's view
            Q = P[s if u[s,k] < u[1-s,k]-r.margin else 1-s, k]  # Eq. 7
            q = (R@[*(peak(Q, p.decode)*p.stride+1.5), 1])[:2]
            T[s,b,j] = gaussian((q-1.5)/p.stride, (h, w), p.sigma)
            W[s,b,j] = Q.max() > r.tau and (q >= -.5).all() and (q <= (p.size[1]-.5, p.size[0]-.5)).all()
    return T, W

def covered(M, r, p):
    "Which heatmap pixels of the last view any pooled view has shown: (h,w)."
    def by(R):
        x, y = places(heatmap3(R, p.stride), p.map)
        return (x >= -.5) & (x <= p.map[1]-.5) & (y >= -.5) & (y <= p.map[0]-.5)
    return np.any([by(M[-1]@np.linalg.inv(M[i])) for i in range(r.n_pooled)], 0).astype(float)

@pytest.mark.parametrize('changes', [{}, dict(K=1, margin=.02), dict(strong_cut='weak'), dict(student_view='pooled', K=3, **{'weak.mirrored': 1.}),
                                     dict(n_weak=2, tau=-math.inf)])
def test_denoise_select_is_the_papers(changes):
    r, p = method('denoise-select', decode='quarter', **changes)
    fs, _ = networks(r, p)
    lab, unl, rows, lam = hidden(people(1)), people(2), np.array([5, 0, 3]), .7
    go = lambda fs: step(fs, fs, fetch(lab, rows), fetch(unl, rows), Setup(r, p, S5.flip), lam=lam, key=(3, 4))
    before = copy.deepcopy(fs)
    o = go(copy.deepcopy(fs)).pseudo  # only to find a gate that some joints pass, and a margin that decides
    if r.tau > -math.inf: r = replace(r, tau=o.chosen.amax((-2,-1)).quantile(.4).item()+1e-4)
    if r.margin: r = replace(r, margin=(o.u[0]-o.u[1]).abs().median().item()+1e-5)
    out = go(fs)
    out.loss.backward(); ours = gradients(fs); clear(fs)
    M = np.concatenate([out.views.M.double().numpy(), np.broadcast_to([[[[0, 0, 1.]]]], (3, len(r.affines), 1, 3))], 2)
    X = [torch.cat([by_ours(unl, [i], M[b,v], M[b,0] if v >= r.n_weak and r.strong_cut == 'weak' else None) for b, i in enumerate(rows)]) for v in range(len(r.affines))]
    answers = np.stack([np.stack([answer(f, x, r.teacher_mode) for x in X[:r.n_pooled]]) for f in before])
    T, W = denoised(answers, M, r, p)
    # Eq. 8
    counts = np.stack([covered(m, r, p) for m in M]) if r.strong_cut == 'canvas' else np.ones((3, *p.map))
    truth = lam*sum(((f(X[-1])-torch.tensor(t))**2*torch.tensor(w)[:,:,None,None]*torch.tensor(counts)[:,None]).mean() for f, t, w in zip(fs, T, W))
    truth.backward(); theirs = gradients(fs)
    assert 0 < W.sum() and (r.tau == -math.inf or W.sum() < W.size) and out.labelled == 0
    assert math.isclose(out.loss.item(), truth.item(), rel_tol=2e-3)
    assert (ours-theirs).norm() < 1e-2*theirs.norm()

def test_pose_mum_with_groups_of_one_is_the_eval_teachers_heatmap():
    r, p = method('pose-mum-plus', **{'mix.group': 1})
    r = replace(r, weak=fixed(10, 1.1, True))
    (f,), (g,) = networks(r, p)
    lab, unl, rows, M = hidden(people(1)), people(2), np.array([5, 0, 3]), matrix3(10, 1.1, True, SIZE)
    out = step([f], [g], fetch(lab, rows), fetch(unl, rows), Setup(r, p, S5.flip), lam=1., key=(0, 0))
    x = by_hand(unl, rows, M)
    truth = ((f(x)-g.eval()(x).detach())**2).mean()
    assert math.isclose(out.loss.item(), truth.item(), rel_tol=1e-4)

def go(r, p, key=(0, 0), seed=5):
    "A step's loss and the students' gradients."
    fs, gs = networks(r, p, seed)
    out = step(fs, gs, fetch(people(1), np.arange(4)), fetch(people(2), np.arange(4)), Setup(r, p, S5.flip), lam=1., key=key)
    out.loss.backward()
    return out.loss.item(), gradients(fs), out

def test_pose_mum_with_probability_0_is_mum():
    at = lambda q: {'mix.stages': (('input', 1.), ('layer1', q), ('layer2', q), ('layer3', q))}
    a, b, c = (go(*method(n, **k)) for n, k in (('mum', {}), ('pose-mum-at', at(0.)), ('pose-mum-at', at(1.))))
    assert a[0] == b[0] and torch.equal(a[1], b[1]) and a[0] != c[0]

def test_mum_in_groups_of_one_is_no_mixing():
    a, b, c = (go(*method(n, **k)) for n, k in (('pose-cons', {}), ('mum', {'mix.group': 1}), ('mum', {})))
    assert math.isclose(a[0], b[0], rel_tol=1e-5) and torch.allclose(a[1], b[1], atol=1e-4*a[1].abs().max().item()) and abs(a[0]-c[0]) > 1e-4*a[0]

def test_each_path_has_its_own_loss_and_view():
    "Two equal paths on the weak view weigh twice; on fresh views they are two draws."
    one, two = (go(*method('dual-pose', student_view='weak', student_branches=q)) for q in ('((),)', '((), ())'))
    assert math.isclose(two[2].unlabelled.item(), 2*one[2].unlabelled.item(), rel_tol=1e-5)
    assert len(go(*method('multi-augs'))[2].views.M[0]) == 3
    a, b = (go(*method('dual-pose', student_branches=q, weak=fixed(0, 1, False)))[2].unlabelled.item() for q in ('((),)', '((), ())'))
    assert b > 1.2*a

def test_looks_through_mixed_views_change_the_pool_but_never_the_weak_look():
    a, b = (go(*method(n, tau=-math.inf))[2].pseudo for n in ('denoise-mum', 'denoise-doubt'))
    assert torch.equal(a.H[:,:,0], b.H[:,:,0]) and not torch.equal(a.H[:,:,1], b.H[:,:,1])

# what learns, and what doesn't

def batches(): return fetch(people(1), np.arange(4)), fetch(people(2), np.arange(4))

@pytest.mark.parametrize('name', RECIPES)
def test_the_loss_falls(name):
    r, p = method(name)
    fs, gs = networks(r, p)
    lab, unl = batches()
    opt, losses = torch.optim.Adam([w for f in fs for w in f.parameters()], 2e-3), []
    for _ in range(6):
        out = step(fs, gs, lab, unl if r.lam else None, Setup(r, p, S5.flip), lam=r.lam, key=(0, 0))
        opt.zero_grad(); out.loss.backward(); opt.step()
        losses.append((out.labelled.item(), out.loss.item()))
    a, b = losses[0], losses[-1]
    assert b[0] < .8*a[0] and b[1] < .8*a[1] and np.isfinite(losses).all()

@pytest.mark.parametrize('name', RECIPES)
def test_who_gets_a_gradient(name):
    r, p = method(name)
    fs, gs = networks(r, p)
    lab, unl = batches()
    step(fs, gs, lab, None, Setup(r, p, S5.flip), lam=0., key=(0, 0)).loss.backward()
    for f in fs: assert f.head.weight.grad.any() and next(f.stem.parameters()).grad.any()
    clear(fs)
    lab.xyv[...,2] = 0  # only the unlabelled loss is left
    if not r.lam: return
    out = step(fs, gs, lab, unl, Setup(replace(r, tau=min(r.tau, 0.)), p, S5.flip), lam=1., key=(0, 0))
    out.loss.backward()
    for f in fs: assert gradients([f]).norm() > 0 and all(w.grad.isfinite().all() for w in f.parameters())
    assert all(w.grad is None for g in gs if g not in fs for w in g.parameters())
    o = out.pseudo
    assert not any(t.requires_grad for t in (o.H, o.P, o.u, o.chosen, out.labelled, out.unlabelled))

@pytest.mark.parametrize('name', ['denoise-select', 'pose-mum-plus'])
def test_gated_joints_teach_nothing(name):
    r, p = method(name)
    r = replace(r, tau=.5)
    fs, gs = networks(r, p)
    with torch.no_grad():
        # the first three stay below the gate
        for f in {*fs, *gs}: f.head.weight.mul_(.05); f.head.bias.copy_(torch.tensor([0., 0., 0., 3., 3.]))
    lab, unl = batches()
    lab.xyv[...,2] = 0
    out = step(fs, gs, lab, unl, Setup(r, p, S5.flip), lam=1., key=(0, 0))
    out.loss.backward()
    for f in fs:
        assert not f.head.weight.grad[:3].any() and not f.head.bias.grad[:3].any()
        assert f.head.weight.grad[3:].any() and f.head.bias.grad[3:].any()
    clear(fs)
    out = step(fs, gs, lab, unl, Setup(replace(r, tau=math.inf), p, S5.flip), lam=1., key=(0, 0))
    out.loss.backward()
    assert out.loss == 0 and not gradients(fs).any()

@pytest.mark.parametrize('name, views', [('dual-pose', {}), ('pose-mum-plus', dict(weak=fixed(10, 1, False)))])
def test_every_draw_of_a_step_is_a_function_of_seed_and_step(name, views):
    r, p = method(name, **views)  # with fixed views only the tiles are left to chance
    fs, gs = networks(r, p)
    def go(*key):
        out = step(fs, gs, *batches(), Setup(r, p, S5.flip), lam=1., key=key)
        return out.labelled.item(), out.unlabelled.item()
    keys = [(0, 0), (0, 1), (1, 0)]
    a = [go(*k) for k in keys]
    assert a == [go(*k) for k in keys]
    for k in (1,) if views else (0, 1): assert len({x[k] for x in a}) == 3

def test_the_seed_and_the_step_decide_who_is_learnt_from():
    def who(seed):
        seen = []
        class Spy(People):
            def batch(self, rows): seen.append(sorted(np.atleast_1d(rows).tolist())); return super().batch(rows)
        learner('dual-pose', seed, Spy(40, SIZE, 1.6, 1, 5), Spy(40, SIZE, 1.6, 2, 5), burn_in=0, ramp=0).fit(until=2)
        return seen
    a, b = who(3), who(4)
    assert len(a) == 4 and a == who(3) and len({tuple(x) for x in a+b}) == 8

def test_the_hidden_labels_of_unlabelled_people_are_never_used():
    a, other = learner('denoise-select', burn_in=1).fit(until=3), people(2, 10)
    other.keypoints, other.extent = hidden(people(3, 10)).keypoints, other.extent*3
    b = learner('denoise-select', unl=other, burn_in=1).fit(until=3)
    assert same(a, b)

def test_nobody_unlabelled_is_fetched_before_the_burn_in_ends():
    unl = people(2, 10); fetched = []
    def batch(rows, f=unl.batch): fetched.append(len(rows)); return f(rows)
    unl.batch = batch
    l = learner('dual-pose', unl=unl, burn_in=2)
    l.fit(until=2); assert not fetched
    l.fit(until=3); assert fetched

# the learner over time

def same(a, b):
    "Two learners in the same state, bit for bit."
    A, B = (dict(l.networks()) for l in (a, b))
    equal = lambda f, g: all(torch.equal(v, g.state_dict()[k]) for k, v in f.state_dict().items())
    return a.t == b.t and A.keys() == B.keys() and all(equal(A[k], B[k]) for k in A)

def rows(l): return [{k: v for k, v in r.items() if k != 'seconds'} for r in l.rows]

@pytest.mark.parametrize('name', ['denoise-select', 'pose-mum-plus', 'sspcm', 'data-distill'])
def test_a_resumed_run_is_an_uninterrupted_run(tmp_path, name):
    whole, lines = learner(name, steps=10).fit(), []
    learner(name, steps=10).fit(tmp_path/'s.pt', until=5)
    rest = learner(name, steps=10).fit(tmp_path/'s.pt', log=lines.append)
    assert same(whole, rest) and rows(whole) == rows(rest) and [r['step'] for r in whole.rows] == [4, 8, 10]
    assert np.array_equal(whole.bins, rest.bins) and whole.strong == rest.strong
    assert lines == rest.rows[1:] and abs(rest.seconds-rest.rows[-1]['seconds']) < .01
    assert rest.rows[-1]['seconds'] > rest.rows[0]['seconds']

def test_a_run_that_broke_off_goes_on_from_its_last_saved_state(tmp_path):
    class Power(Exception): pass
    def fail(row):
        if row['step'] == 4: raise Power
    l = learner('supervised', every=2, steps=6, save_every=0)
    with pytest.raises(Power): l.fit(tmp_path/'s.pt', fail)
    rest = learner('supervised', every=2, steps=6)
    rest.load(tmp_path/'s.pt'); assert rest.t == 3
    whole = learner('supervised', every=2, steps=6).fit()
    assert same(rest.fit(tmp_path/'s.pt'), whole) and rows(rest) == rows(whole)

@pytest.mark.parametrize('name', RECIPES)
def test_the_seed_decides_everything(name):
    a, b, c = (learner(name, seed=s, burn_in=1, every=2, steps=4).fit() for s in (3, 3, 4))
    assert same(a, b) and rows(a) == rows(b) and rows(a) != rows(c) and not same(a, c)
    assert all(math.isfinite(r['labelled']) for r in a.rows) and (('unlabelled' in a.rows[-1]) == (a.r.lam > 0))

def test_the_teacher_is_the_average_of_the_students_past():
    l = learner('pose-mum-plus', burn_in=1)
    f, g = l.students[0], l.teachers[0]
    l.one_step()  # the burn-in's only step: the teacher begins as what the student is then
    truth = {k: v.double().clone() for k, v in f.state_dict().items()}
    for _ in range(4):
        l.one_step()
        now = f.state_dict()
        truth = {k: .6*truth[k]+.4*v.double() if v.is_floating_point() else v.clone() for k, v in now.items()}
    assert all(torch.allclose(v.double(), truth[k].double(), rtol=1e-4, atol=1e-6) for k, v in g.state_dict().items())

def test_eman_without_memory_is_the_student_in_eval_mode():
    a = learner('pose-mum-plus', decay=0., burn_in=1).fit(until=5)
    b = learner('pose-mum-plus', teacher='student', burn_in=1).fit(until=5)
    assert all(torch.equal(v, b.students[0].state_dict()[k]) for k, v in a.students[0].state_dict().items())
    assert all(torch.equal(v, a.students[0].state_dict()[k]) for k, v in a.teachers[0].state_dict().items())
    c = learner('pose-mum-plus', teacher='student', teacher_mode='train', burn_in=1).fit(until=5)
    assert not same(b, c)

def state(f): return {k: v.clone() for k, v in f.state_dict().items()}
def equal(a, b): return all(torch.equal(v, b[k]) for k, v in a.items())

def test_the_past_is_the_epoch_before():
    l = learner('sspcm', unl=people(2, 10), burn_in=1)  # 4 of 10 people a step: an epoch is 3 steps
    assert len(l.students) == 3 and len(l.memories) == 2 and l.answering_teachers() == [*l.students[:2], *l.memories]
    at = {}
    for t in range(7):
        at[t] = [state(f) for f in l.students[:2]]  # before step t
        if t >= 3: assert all(torch.equal(w, s[k]) for f, s in zip(l.memories, at[t-t%3]) for k, w in f.named_parameters())
        l.one_step()
    assert not equal(at[3][0], at[6][0])

def test_a_memory_is_the_average_of_its_student_s_past():
    l = learner('reviewer', memories=(.9,), burn_in=1)
    (f,), (g,) = l.students, l.memories
    assert l.r.n_answers == 2 and len(l.answering_teachers()) == 2
    l.one_step()  # the burn-in's only step: memories begin as what the student is then
    short = long = {k: v.double().clone() for k, v in f.state_dict().items()}
    for _ in range(4):
        l.one_step()
        now = f.state_dict()
        short, long = ({k: d*x[k]+(1-d)*v.double() if v.is_floating_point() else v.clone() for k, v in now.items()} for x, d in ((short, .6), (long, .9)))
    for net, truth in ((l.teachers[0], short), (g, long)):
        assert all(torch.allclose(v.double(), truth[k].double(), rtol=1e-4, atol=1e-6) for k, v in net.state_dict().items())

def test_a_frozen_teacher_is_the_first_stages_student():
    l = learner('data-distill', steps=10)  # 4 steps, then 6
    first = [state(f) for f in l.students]
    l.fit(until=4)
    taught = state(l.students[0]); assert not equal(taught, first[0])
    taken = []
    def people_of(i, get=l.people): taken.append((weight(l.t, l.T, l.r, l.p), state(l.students[0]))); return get(i)
    l.people = people_of
    l.fit(until=6)
    assert taken[0][0] == 1 and equal(taken[0][1], first[0])  # the student starts anew
    assert equal(taught, state(l.fit().teachers[0]))
    assert l.t == 10 and 'unlabelled' in l.rows[-1] and not equal(state(l.students[0]), first[0])

def test_bad_states_are_refused_and_code_in_them_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self): return open, (str(tmp_path/'ran'), 'w')
    l = learner('supervised')
    for data in (b'', b'half', pickle.dumps(Hostile(), 2)):
        (tmp_path/'s.pt').write_bytes(data)
        with pytest.raises(InputError, match='s.pt'): l.fit(tmp_path/'s.pt')
    torch.save(dict(t=Hostile()), tmp_path/'s.pt')
    with pytest.raises(InputError, match='s.pt'): l.load(tmp_path/'s.pt')
    assert not (tmp_path/'ran').exists() and l.t == 0

def test_a_state_of_another_recipe_is_refused(tmp_path):
    learner('supervised').save(tmp_path/'s.pt')
    with pytest.raises(InputError, match='s.pt'): learner('dual-pose').load(tmp_path/'s.pt')

def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    l = learner('supervised', lr=1e30)
    with pytest.raises(InputError, match='not a number'): l.fit(tmp_path/'s.pt')
    assert not (tmp_path/'s.pt').exists()

# schedules

def test_schedules():
    r, mini = replace(DENOISE, lam=2.), replace(MINI, steps=1200, drops=(.7, .9))
    p = replace(mini, burn_in=3, ramp=4)
    assert [weight(t, 9, r, p) for t in range(9)] == [0, 0, 0, .5, 1, 1.5, 2, 2, 2]
    assert [weight(t, 9, r, replace(p, ramp=0)) for t in (2, 3)] == [0, 2]
    assert not any(weight(t, 9, SUPERVISED, p) for t in range(9))
    two = replace(RECIPES['pseudo-pose'], lam=2., pretrain_fraction=.25)  # two stages: no burn-in, and each has its drops
    assert [weight(t, 8, two, p) for t in range(8)] == [0, 0]+[2]*6
    lr = [rate(t, 1200, two, mini)/mini.lr for t in (0, 209, 210, 270, 299, 300, 929, 930, 1110)]
    assert np.allclose(lr, [1, 1, .1, .01, .01, 1, 1, .1, .01])
    lr = [rate(t, 1200, r, mini)/mini.lr for t in (0, 839, 840, 1079, 1080, 1199)]
    assert np.allclose(lr, [1, 1, .1, .1, .01, .01])
    # epochs of the unlabelled set, the last batch of each included
    assert total_steps(r, mini, 77) == 1200 and total_steps(r, PAPER, 1000) == 100*32
    T = total_steps(r, PAPER, 3200)
    assert np.allclose([rate(t, T, r, PAPER)/PAPER.lr for t in (0, T*70//100-1, T*70//100, T*90//100-1, T*90//100)],
                       [1, 1, .1, .1, .01])

def test_devices_and_precisions():
    assert device_of('cpu').type == 'cpu' and device_of().type in ('cpu', 'cuda')
    for name in ('cuda:99', 'tpu', ''):
        with pytest.raises(InputError, match='device'): device_of(name)
    with pytest.raises(InputError, match='bf16'): autocast(torch.device('cpu'), 'bf61')
    with autocast(torch.device('cpu'), 'bf16'): assert (torch.ones(2, 2)@torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast(torch.device('cpu'), 'fp32'): assert (torch.ones(2, 2)@torch.ones(2, 2)).dtype == torch.float32

# telemetry

@settings(max_examples=20)
@given(st.integers(0, 2**32-1), st.sampled_from([-math.inf, .1, .5]), st.integers(1, 2))
def test_telemetry_by_counting(seed, tau, n_weak):
    g = np.random.default_rng(seed)
    S, B, V, J, (h, w) = 2, 4, 3, 5, (16, 8)
    r, p = method('denoise-select')
    r = replace(r, tau=tau, n_weak=n_weak, K=V-n_weak)
    any_view = lambda: matrix3(g.uniform(-60, 60), g.uniform(.7, 1.3), g.random() < .5, SIZE)
    M = np.stack([[any_view() for _ in range(V)] for _ in range(B)])
    store = people(seed % 1000, B)
    store.extent *= 4  # large enough that some are right
    H, seen, mine = g.random((S, B, V, J, h, w)), g.random((B, V, 1, h, w)) < .7, g.random((S, B, J)) < .4
    chosen = g.random((S, B, J, h, w))*g.random((S, B, J, 1, 1))
    P, u = g.random((S, B, J, h, w))*g.random((S, B, J, 1, 1)), g.random((S, B, J))/3
    o = PseudoLabels(H=torch.tensor(H), seen=torch.tensor(seen), P=torch.tensor(P), u=torch.tensor(u),
                trusts_self=torch.tensor(mine), chosen=torch.tensor(chosen), tau=tau)
    counted = telemetry(o, two(M), fetch(store, np.arange(B)), Setup(r, p, S5.flip))
    c = {k: v.tolist() for k, v in counted.items()}
    joints, kept, right, here, bins, bins_right, strong = [0]*3, [0]*3, [0]*2, [0]*2, [0]*10, [0]*10, [0.]*J
    near, error, trust = [0]*3, 0., {(k, ok): [] for k in MEASURES for ok in (True, False)}
    for s, b, j in np.ndindex(S, B, J):  # joint j of view 0 is the person's joint k
        k = S5.flip[j] if np.linalg.det(M[b,0]) < 0 else j
        x, y, v = store.keypoints[b,k]
        q = (M[b,0]@[x, y, 1])[:2]
        v = int(v) if (q >= -.5).all() and (q <= (SIZE[1]-.5, SIZE[0]-.5)).all() else 0
        far, long = np.linalg.norm(peak(chosen[s,b,j], p.decode)*4+1.5-q), store.extent[b]*math.sqrt(abs(np.linalg.det(M[b,0])))
        good = bool(v) and far < .1*long
        top = chosen[s,b,j].max(); keeps = int(top > tau)
        joints[v] += 1; kept[v] += keeps
        if v:
            i = min(int(top*10), 9)
            here[keeps] += 1; right[keeps] += good; bins[i] += 1; bins_right[i] += good
            if keeps: near = [n+(far < a*long) for n, a in zip(near, (.05, .1, .2))]; error += good*(far/4)**2
            tall = P[s,b,j].max(); its = tall, 1-2*u[s,b,j], 1-2*u[s,b,j]/tall
            found = np.linalg.norm(peak(P[s,b,j], 'argmax')*4+1.5-q) < .1*long
            for name, value in zip(MEASURES, its): trust[name, bool(found)].append(min(max(value, 0), 1-1e-6)*20//1)
        tops = np.where(seen[b,:,0], H[s,b,:,j], -1).max((1, 2))
        strong[k] += float(tops.argmax() >= n_weak)/S
    truth = dict(joints=joints, kept=kept, right=right, here=here, bins=bins, bins_right=bins_right)
    assert {k: c[k] for k in truth} == truth
    assert c['own'] == [mine[0].sum(), mine[0].size] and np.allclose(c['strong'], [strong, [B]*J], atol=1e-5)
    x = shares(counted)
    part = lambda a, b: round(a/b, 4) if b else None
    assert c['near'] == near and np.allclose(c['error'], [error, right[1]], rtol=1e-4)
    assert (x['right_05'], x['right_20']) == (part(near[0], here[1]), part(near[2], here[1]))
    for k in MEASURES:  # the area under the curve, pair by pair
        pairs = [(a > b)+(a == b)/2 for a in trust[k, True] for b in trust[k, False]]
        assert abs(x['auc_'+k]-np.mean(pairs)) < 1e-4 if pairs else x['auc_'+k] is None
    assert x['kept'] == part(sum(kept), sum(joints))
    assert x['right_kept'] == part(right[1], here[1]) and x['right_dropped'] == part(right[0], here[0])
    assert (x['kept_absent'], x['kept_hidden'], x['kept_seen']) == tuple(map(part, kept, joints))
    assert x['own'] == part(mine[0].sum(), mine[0].size) and x['strong'] == part(round(sum(strong), 4), B*J)

def test_agreement_by_counting():
    g, B, J = np.random.default_rng(0), 6, 5
    (r, p), store = method('dual-pose'), people(3, B)
    y, T, w = g.random((B, J, 16, 8)), g.random((B, J, 16, 8)), g.random((B, J)) < .7
    y[:3], M = T[:3]*.5, np.stack([matrix3(0, g.uniform(.7, 1.3), False, SIZE) for _ in range(B)])
    count = [0, 0]
    for b, j in zip(*np.nonzero(w)):
        far = 4*np.linalg.norm(peak(y[b,j], 'argmax')-peak(T[b,j], 'argmax'))
        count = [count[0]+(far < .1*store.extent[b]*math.sqrt(np.linalg.det(M[b]))), count[1]+1]
    b = fetch(store, np.arange(B))
    targets = Targets(0, torch.tensor(T)[None], torch.tensor(w).float()[None], torch.zeros(1, B, J, 2), None)
    assert agreement(torch.tensor(y), targets, 0, two(M)[:,None], b, Setup(r, p, S5.flip))['agree'].tolist() == count
    assert count[1] > count[0] >= w[:3].sum()

# what the loss leaves out, and ceilings

@pytest.mark.parametrize('seed', range(4))
def test_a_view_from_the_canvas_teaches_only_what_a_pooled_view_has_shown(seed):
    r, p = method('dual-pose', strong_cut='canvas')
    (f, g), _ = networks(r, p)
    unl = fetch(people(2), np.arange(4))
    out = step([f, g], [f, g], fetch(people(1), np.arange(4)), unl, Setup(r, p, S5.flip), lam=1., key=(seed, 0))
    shown, v = out.targets[0].pixels, out.targets[0].view
    M = np.concatenate([out.views.M.double().numpy(), np.broadcast_to([[[[0, 0, 1.]]]], (4, 2, 1, 3))], 2)
    assert shown.shape == (4, 1, *p.map) and 0 < shown.sum() < shown.numel()
    for b in range(4):
        x, y = places(heatmap3(M[b,v]@np.linalg.inv(M[b,0]), p.stride), p.map)
        off = np.minimum(np.minimum(x+.5, p.map[1]-.5-x), np.minimum(y+.5, p.map[0]-.5-y))  # how far inside the weak view
        assert np.array_equal(shown[b,0].numpy()[abs(off) > 1e-3], (off > 0)[abs(off) > 1e-3])

@pytest.mark.parametrize('oracle', ['gate', 'kept places', 'all places'])
def test_hidden_labels_correct_targets(oracle):
    r, p = method('denoise-select', oracle=oracle, tau=-math.inf if oracle == 'all places' else .05)
    store = people(2)
    store.extent *= 4
    go = lambda r: step(*networks(r, p), fetch(people(1), np.arange(6)), fetch(store, np.arange(6)), Setup(r, p, S5.flip), lam=1., key=(0, 0))
    ours, plain, M = go(r).targets[0], go(replace(r, oracle='')).targets[0], go(r).views.M.numpy()
    T, W, T0, W0, v = ours.T[-1], ours.w[-1], plain.T[-1], plain.w[-1], ours.view
    counts = [0, 0]
    for i in range(6):
        t, w = label(store, i, np.vstack([M[i,v], [0, 0, 1]]), p)
        for j in range(5):
            far = np.linalg.norm(peak(T0[i,j].numpy(), p.decode)*4+1.5-peak(t[j], 'dark')*4-1.5)
            right = w[j] and far < .1*store.extent[i]*math.sqrt(abs(np.linalg.det(M[i,v,:,:2])))
            truth = {'gate': W0[i,j]*right, 'kept places': W0[i,j]*w[j], 'all places': w[j]}[oracle]
            assert W[i,j] == truth
            if truth: assert np.allclose(T[i,j], T0[i,j] if oracle == 'gate' else t[j], atol=1e-4); counts[0] += 1
            else: counts[1] += 1
    assert min(counts) > 0

# prediction

class Painter(nn.Module):
    "A network that reads a person's number in the picture and paints the person's joints; it notices mirrored pictures."
    def __init__(self, points, p, off=0.):
        super().__init__()
        self.points, self.p, self.off, self.head = points, p, off, nn.Conv2d(1, 1, 1)
    def forward(self, x):
        c = x[:,0]*STD[0]+MEAN[0]
        left, right = (c[:,:,i].mean(1).round().long() for i in (0, -1))
        out = []
        for a, b in zip(left.tolist(), right.tolist()):
            q = self.points[min(a, b)].copy()
            if a > b: q = np.stack([self.p.size[1]-1-q[:,0], q[:,1]], 1)[list(S5.flip)]
            out.append([gaussian((k+self.off-1.5)/4, self.p.map, 1.) for k in q])
        return torch.tensor(np.array(out), dtype=torch.float32)

def painted(n=7):
    "People whose canvas says who they are: i on the left half, 100 + i on the right."
    s = people(4, n)
    i, half = np.arange(n)[:,None,None,None], s.canvases.shape[2]//2
    s.canvases[:,:,:half], s.canvases[:,:,half:] = i, 100+i
    return s, np.random.default_rng(9).uniform((6, 6), (SIZE[1]-7, SIZE[0]-7), (n, len(S5), 2))

@pytest.mark.parametrize('flip', [None, S5.flip])
@pytest.mark.parametrize('batch', [3, 64])
def test_predict_finds_what_was_painted(flip, batch):
    (store, points), (r, p) = painted(), method('supervised', sigma=1.)
    out = predict(dict(student=Painter(points, p)), store, p, flip, batch)
    assert list(out) == ['student']
    xy, s = out['student']
    assert xy.shape == points.shape and s.shape == points.shape[:2] and np.abs(xy-points).max() < .2 and (s > .75).all()

def test_the_ensemble_is_the_mean_heatmap_of_the_students():
    (store, points), (r, p) = painted(), method('dual-pose', decode='quarter')
    nets = dict(student1=Painter(points, p), student2=Painter(points, p, 5.), teacher1=Painter(points, p, -9.))
    out = predict(nets, store, p)
    assert list(out) == ['student1', 'student2', 'teacher1', 'ensemble']
    for i, j in np.ndindex(points.shape[:2]):
        maps = [gaussian((points[i,j]+off-1.5)/4, p.map, 1.).astype(np.float32) for off in (0, 5.)]
        for name, H in (('student1', maps[0]), ('student2', maps[1]), ('ensemble', (maps[0]+maps[1])/2)):
            assert math.isclose(out[name][1][i,j], H.max(), rel_tol=1e-4)
            if np.sort(H.ravel())[-1]-np.sort(H.ravel())[-2] > 1e-4:
                assert np.abs(out[name][0][i,j]-(peak(H, 'quarter')*4+1.5)).max() < 1e-2

def test_predict_of_real_networks_leaves_them_as_they_are():
    r, p = method('dual-pose', decode='argmax')
    (f, g), _ = networks(r, p)
    store = people(6, 5)
    before = {k: v.clone() for k, v in f.state_dict().items()}
    out = predict(dict(student1=f, student2=g), store, p)
    assert f.training and all(torch.equal(v, before[k]) for k, v in f.state_dict().items())
    x = by_hand(store, range(5), np.eye(3))
    with torch.no_grad(): H = [n.eval()(x).numpy() for n in (f, g)]
    for name, h in dict(student1=H[0], student2=H[1], ensemble=(H[0]+H[1])/2).items():
        assert np.allclose(out[name][1], h.max((2, 3)), rtol=1e-3, atol=1e-4*abs(h).max())
        truth = np.array([[peak(m, 'argmax')*4+1.5 for m in a] for a in h])
        assert (np.abs(out[name][0]-truth).max(-1) < 1e-3).mean() > .9  # near ties may fall to either side

def test_ask_shows_the_upright_frame_first():
    r, p = method('denoise-select')
    fs, _ = networks(r, p)
    store = people(6, 5)
    b = fetch(store, np.arange(3))
    o, views = pseudo_labels(fs, b, Setup(r, p, S5.flip), key=(0,))
    assert torch.equal(views.M[:,0], torch.eye(2, 3).expand(3, 2, 3)) and len(views.pictures[0]) == 3 and fs[0].training
    with torch.no_grad(): truth = [f.eval()(by_hand(store, range(3), np.eye(3))) for f in fs]
    assert torch.allclose(o.H[:,:,0], torch.stack(truth), rtol=1e-3, atol=1e-3*o.H.abs().max().item())

# precision, layout, threads, folding

@pytest.mark.parametrize('name', ['pose-cons', 'denoise-select', 'pose-mum-plus'])
def test_bf16_learns_in_the_direction_of_fp32(name):
    "The same step in both precisions: losses and gradients agree as far as eight bits of mantissa go."
    got = {}
    for precision in ('fp32', 'bf16'):
        l = learner(name, precision=precision, burn_in=0, ramp=0)
        nn.init.normal_(l.students[0].head.weight, std=.05, generator=torch.Generator().manual_seed(1))
        with autocast(l.device, precision): out = step(l.students, l.answering_teachers(), *l.piece(0, 0), l.setup, lam=1., key=(0, 0))
        out.loss.backward()
        got[precision] = float(out.loss.detach()), gradients(l.students)
        assert all(w.dtype == torch.float32 for f in l.students for w in f.parameters())
        assert out.pseudo.P.dtype == out.pseudo.u.dtype == torch.float32
    (a, g), (b, h) = got.values()
    assert abs(a-b) < .03*a and torch.cosine_similarity(g, h, dim=0) > .98

def test_layouts_and_threads_change_nothing():
    base = learner('pose-mum-plus', steps=8).fit()
    for change in dict(layout='contiguous'), dict(workers=2):
        l = learner('pose-mum-plus', steps=8, **change).fit()
        tell = lambda x: [v for r in rows(x) for v in r.values() if v is not None]
        assert tell(l) == (tell(base) if 'workers' in change else pytest.approx(tell(base), rel=.02, abs=.02))
        if 'workers' in change: assert same(l, base)

def test_pieces_ahead_are_those_that_are_asked_for():
    asked = []
    from sshpe.train.learner import Ahead
    def get(t, i): asked.append((t, i)); return t, i
    a = Ahead(get, 2)
    assert [a((t, 0), [(t+1, 0), (t+2, 0)]) for t in (3, 4, 9)] == [(3, 0), (4, 0), (9, 0)]  # a jump, too
    assert sorted(set(asked)) == sorted({(t, 0) for t in (3, 4, 5, 6, 9, 10, 11)}) and asked.count((4, 0)) == 1

def test_a_folded_teacher_follows_its_network():
    l = learner('pose-mum-plus', burn_in=0)
    x = torch.randn(3, 3, *SIZE)
    for _ in range(3):
        l.one_step()
        (g,), (f,) = l.answering_teachers(), l.teachers
        with torch.no_grad(): assert torch.allclose(g(x), f.eval()(x), atol=1e-5) and not torch.equal(l.students[0].eval()(x), f(x))
        l.students[0].train()

@pytest.mark.parametrize('bad, word', [(math.nan, 'not a number'), (math.inf, 'not a number'), (1e9, 'a hundred times')])
def test_a_loss_that_explodes_ends_the_run_and_spares_the_saved_state(tmp_path, bad, word):
    l = learner('supervised', steps=40, every=2, save_every=0)
    l.fit(tmp_path/'s.pt', until=3)
    before = (tmp_path/'s.pt').read_bytes()
    nn.init.constant_(l.students[0].head.bias, bad)
    with pytest.raises(InputError, match=f'{word}.* at step [45].*lower lr'): l.fit()
    with pytest.raises(InputError, match=word): l.sums = dict(labelled=torch.tensor(bad)); l.save(tmp_path/'s.pt')
    assert (tmp_path/'s.pt').read_bytes() == before

@pytest.mark.parametrize('norm', ['frozen', 'group'])
def test_without_batch_statistics_a_picture_stands_for_itself(norm):
    f = build('narrow18', 5, 8, norm=norm, init='he').train()
    nn.init.normal_(f.head.weight, std=.2)
    x = torch.randn(4, 3, *SIZE)
    with torch.no_grad(): assert torch.allclose(f(x)[1:2], f(x[1:2]), atol=1e-5)
    if norm == 'frozen': assert all(float(v.abs().sum()) == 0 for k, v in f.state_dict().items() if k.endswith('running_mean'))

@pytest.mark.skipif(not shutil.which('g++'), reason='torch.compile needs a C++ compiler')
def test_a_compiled_network_says_the_same():
    f = build('narrow18', 5, 8, init='he').eval()
    nn.init.normal_(f.head.weight, std=.2)
    g = build('narrow18', 5, 8, init='he').eval()
    g.load_state_dict(f.state_dict())
    for m in g.children(): m.compile(mode='default')
    x = torch.randn(2, 3, *SIZE)
    with torch.no_grad(): assert torch.allclose(f(x), g(x), atol=1e-4)

def compiled_by(backend, monkeypatch):
    "Whatever is compiled goes to this backend; returns the list of networks that were."
    networks, real = [], nn.Module.compile
    monkeypatch.setattr(nn.Module, 'compile', lambda m, mode, dynamic: (networks.append(m), real(m, backend=backend, dynamic=dynamic)))
    torch._dynamo.reset()
    return networks

def weights_of(l): return [x for f in l.remembered().values() for x in f.state_dict().values()]

@pytest.mark.parametrize('name', ['supervised', 'dual-pose', 'denoise-select-jc', 'pose-mum-plus', 'denoise-mum'])
def test_compiled_steps_are_those_of_eager_ones(name, monkeypatch):
    "Whole networks, traced forward and back as for a GPU; after the first steps nothing is traced any more, whatever is mixed."
    networks = compiled_by('aot_eager', monkeypatch)
    a, b = (learner(name, steps=8, burn_in=1, ramp=0, compile=c) for c in ('', 'reduce-overhead'))
    x = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True): # else the rest would silently be eager
        for _ in range(3): a.one_step(); b.one_step()
        forms = torch._dynamo.utils.counters['stats']['unique_graphs']
        for _ in range(4): a.one_step(); b.one_step()
        assert forms and torch._dynamo.utils.counters['stats']['unique_graphs'] == forms and not torch._dynamo.utils.counters['graph_break']
        with torch.no_grad(): says = [[f.eval()(x) for f in l.networks().values()] for l in (a, b)]
    assert all(isinstance(m, PoseNet) for m in networks) and {*map(id, b.remembered().values())} <= {*map(id, networks)}
    assert all(torch.allclose(x, y, atol=1e-5) for x, y in zip(weights_of(a), weights_of(b)))
    assert all(torch.allclose(x, y, atol=1e-4) for x, y in zip(*says))

def refuses(graph, inputs): raise NotImplementedError('no kernel for that')

def refuses_the_way_back(graph, inputs):
    from torch._dynamo.backends.common import aot_autograd
    return aot_autograd(fw_compiler=lambda g, _: g.forward, bw_compiler=refuses)(graph, inputs)

@pytest.mark.parametrize('backend, why', [(refuses, 'no kernel'), (refuses_the_way_back, 'no kernel'), ('nonsense', 'nonsense')])
@pytest.mark.parametrize('name', ['supervised', 'dual-pose', 'denoise-select', 'pose-mum-plus'])
def test_a_compiler_that_fails_costs_one_line_and_no_bit(name, backend, why, monkeypatch, capsys):
    "At the call of torch.compile, or in the first step, on the way forward or back."
    networks = compiled_by(backend, monkeypatch)
    a, b = (learner(name, steps=5, burn_in=1, ramp=0, compile=c) for c in ('', 'default'))
    for l in a, b: l.fit()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and why in said[0] and 'compile=' in said[0] and networks
    assert all(torch.equal(x, y) for x, y in zip(weights_of(a), weights_of(b))) and b.compiling.mode == ''

@given(st.sampled_from(['cpu', 'cuda', 'mps']), st.integers(0, 10**6), st.sampled_from(MODES), st.integers(1, 8))
def test_what_is_compiled(kind, steps, mode, processes):
    "As asked; unasked on a GPU, in one process, where 7.5 ms saved a step make two minutes."
    pays = kind == 'cuda' and steps*.0075 >= 120 and processes == 1
    assert compile_mode(kind, steps, mode, processes) == (mode if mode != 'auto' else 'reduce-overhead' if pays else '')

def test_nothing_is_compiled_here_without_being_asked(monkeypatch):
    networks = compiled_by('eager', monkeypatch)
    l = learner('dual-pose', steps=10**6)
    l.one_step()
    assert l.p.compile == 'auto' and l.mode == '' and not networks
    with pytest.raises(InputError, match="mode of compile 'fast'"): learner('dual-pose', compile='fast')
