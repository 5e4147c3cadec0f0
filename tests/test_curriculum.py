"Numbers that move along a training, and joints that are selected by a student's loss or by agreement, against loops."
import json, math
from dataclasses import replace
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from sshpe.data.batch import fetch
from sshpe.errors import InputError
from sshpe.runs.run import as_plain
from sshpe.ssl.curriculum import Linear, settled, small_losses
from sshpe.ssl.methods import recipe
from sshpe.ssl.pseudo import aggregate, Answers
from sshpe.ssl.recipe import Recipe, revived, Setup
from sshpe.ssl.step import selected, step, Targets
from sshpe.ssl.uncertainty import spread
from test_learner import learner, method, networks, people, S5, same

# lines

@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(.01, 1), st.floats(0, 1))
def test_a_line_is_a_line(a, b, until, share):
    q, where = Linear(a, b, until), min(share/until, 1)
    assert math.isclose(q.at(share), (1-where)*a+where*b, abs_tol=1e-9)
    assert q.at(0) == a and math.isclose(q.at(1), b, abs_tol=1e-9)

@pytest.mark.parametrize('bad', [(0., math.inf), (math.nan, 1.), (0., 1., 0.), (0., 1., 1.5)])
def test_lines_to_nowhere_are_refused(bad):
    with pytest.raises(InputError): Linear(*bad)

def test_a_field_that_moves_is_read_from_text_and_survives_json():
    r, _ = recipe('denoise-select', 'tiny', tau='Linear(.8, .4)', small_loss='Linear(1., .5, until=.5)')
    assert (r.tau, r.small_loss) == (Linear(.8, .4), Linear(1., .5, .5))
    assert revived(Recipe, json.loads(json.dumps(as_plain(r)))) == replace(r, rows=())
    assert recipe('denoise-select', 'tiny', tau='Linear(.8, .4)', **{'tau.end': '.2'})[0].tau == Linear(.8, .2)
    half, end = (settled(r, s) for s in (.5, 1.))
    assert math.isclose(half.tau, .6) and half.small_loss == end.small_loss == .5 and end.tau == .4
    assert Setup(r, None, (0, 2, 1)).recipe == end and settled(end) is end

@pytest.mark.parametrize('changes, says', [({'keep': 'Linear(0., .5)'}, 'keep'), ({'keep': 'Linear(.5, 1.2)'}, 'share'), ({'small_loss': '-.1'}, 'small_loss'),
                                           ({'agree': '-1'}, 'agree'), ({'K': 'Linear(1, 2)'}, 'K'), ({'tau': 'Linear(1)'}, 'tau')])
def test_senseless_curricula_are_refused(changes, says):
    with pytest.raises(InputError, match=says): recipe('denoise-select', 'tiny', **changes)

def test_one_look_agrees_with_nobody():
    with pytest.raises(InputError, match='n_weak=2'): recipe('pose-cons', 'tiny', agree=8.)
    assert recipe('pose-cons', 'tiny', agree=8., n_weak=2)[0].agree == recipe('dual-pose', 'tiny', agree=8.)[0].agree == 8

def test_each_step_has_its_gate():
    l = learner('denoise-select', tau='Linear(.9, .1)', steps=8, burn_in=2)
    seen = {}
    def look(t): seen[t] = l.one_step().pseudo
    for t in range(8): look(t)
    assert seen[0] is seen[1] is None
    assert all(math.isclose(seen[t].tau, .9-.1*t, abs_tol=1e-9) for t in range(2, 8))
    assert l.setup.recipe.tau == pytest.approx(.1) and l.r.tau == Linear(.9, .1)

def test_a_moving_share_is_the_share_that_passes():
    l = learner('curriculum', steps=10, burn_in=2, unl=people(2, 40), n_unlabelled=40)
    for t in range(10):
        o = l.one_step().pseudo
        if t < 2: continue
        kept = (o.chosen.amax((-2, -1)) > o.tau).float().mean((1, 2))
        assert all(abs(k-(.3+.06*t)) < .02 for k in kept.tolist())

@pytest.mark.parametrize('name', ['curriculum', 'small-loss', 'reviewer', 'style', 'foreign'])
def test_a_training_in_two_parts_is_one(name, tmp_path):
    whole = learner(name, steps=12).fit()
    learner(name, steps=12).fit(tmp_path/'state.pt', until=7)
    rest = learner(name, steps=12).fit(tmp_path/'state.pt')
    assert same(whole, rest) and rest.t == 12

# small losses, and agreement

@given(st.integers(0, 10**6), st.sampled_from([0., .2, .5, .77, 1.]), st.floats(0, 1))
def test_small_losses_are_the_smallest(seed, share, there):
    rng = np.random.default_rng(seed)
    y, t, w = rng.normal(size=(3, 4, 5, 6)), rng.normal(size=(3, 4, 5, 6)), (rng.random((3, 4)) < there)
    kept = small_losses(*(torch.tensor(x, dtype=torch.float32) for x in (y, t, w)), share).numpy()
    losses = sorted((((y[b,j]-t[b,j])**2).mean(), (b, j)) for b, j in np.ndindex(3, 4) if w[b,j])
    n = math.ceil(round(share*len(losses), 6))
    assert {tuple(x) for x in np.argwhere(kept)} == {at for _, at in losses[:n]}

@given(st.integers(0, 10**6))
def test_spread_is_the_farthest_look(seed):
    rng = np.random.default_rng(seed)
    S, N, B, V, J, h, w = 2, 2, 2, 3, 3, 6, 5
    H, P, seen = rng.random((N, B, V, J, h, w)), rng.random((S, B, J, h, w)), rng.random((B, V, 1, h, w)) < .7
    seen[:,0] = True
    said = spread(*map(torch.tensor, (H, seen, P))).numpy()
    place = lambda m: np.array(np.unravel_index(m.argmax(), m.shape))
    for s, b, j in np.ndindex(S, B, J):
        at, far = place(P[s,b,j]), [0.]
        for n, v in np.ndindex(N, V):
            if seen[b,v,0][tuple(at)]: far.append(np.linalg.norm(place(np.where(seen[b,v,0], H[n,b,v,j], -np.inf))-at))
        assert math.isclose(said[s,b,j], max(far), rel_tol=1e-5, abs_tol=1e-5)

def test_agreement_is_a_distance_in_pixels_of_a_crop_256_high():
    "Two looks, 3 heatmap pixels apart on a map 16 high: 48 pixels of a crop 256 high."
    H = torch.zeros(1, 1, 2, 2, 16, 12)
    H[0,0,0,0,5,5], H[0,0,1,0,5,8], H[0,0,0,1,2,2], H[0,0,1,1,2,2] = 1., .5, 1., .5
    a, r = Answers(H, torch.ones(1, 2, 1, 16, 12, dtype=torch.bool)), recipe('small-loss', 'tiny', pool='max', small_loss=.5)[0]
    for agree, joints in ((47.9, [False, True]), (48.1, [True, True])): assert aggregate(a, replace(r, agree=agree)).agreed[0,0].tolist() == joints
    assert aggregate(a, replace(r, small_loss=1.)).agreed is None

def test_those_about_which_looks_agree_teach_however_large_their_loss():
    y, T, w = torch.zeros(1, 4, 4, 4), torch.arange(1., 5)[None,:,None,None].expand(1, 4, 4, 4)[None], torch.tensor([[[1., 1, 0, 1]]])
    agreed = torch.tensor([[[False, False, True, True]]])
    of = lambda share, agreed: selected(y, Targets(0, T, w, None, None, agreed), 0, share).tolist()
    assert of(.3, None) == [[1, 0, 0, 0]] and of(.3, agreed) == [[1, 0, 0, 1]] and of(0., agreed) == [[0, 0, 0, 1]] and of(1., agreed) == w[0].tolist()

@pytest.mark.parametrize('mirrored', [0., 1.])
def test_the_unlabelled_loss_is_that_of_the_selected_joints(mirrored):
    "A student's view that is mirrored has its agreement on the other side, like its target."
    r, p = method('small-loss', small_loss=.4, agree=25., n_weak=2, teacher='student', teacher_mode='train', **{'strong.mirrored': mirrored})
    fs, gs = networks(r, p)
    lab, unl = fetch(people(1), np.arange(4)), fetch(people(2), np.arange(4))
    setup = Setup(r, p, S5.flip)
    out = step(fs, gs, lab, unl, setup, lam=1., key=(0, 0))
    (t,), o = out.targets, out.pseudo
    flip = torch.linalg.det(out.views.M[:,t.view,:,:2]) < 0
    flip ^= torch.linalg.det(out.views.M[:,0,:,:2]) < 0
    y, each = out.prediction, ((out.prediction-t.T[0])**2).mean((-2, -1))
    bar = sorted(each[t.w[0] > 0].tolist())[math.ceil(.4*int(t.w.sum()))-1]
    total = 0.
    for b, j in np.ndindex(4, len(S5)):
        k = S5.flip[j] if flip[b] else j
        if t.w[0,b,j] and (each[b,j] <= bar or o.agreed[0,b,k]): total += each[b,j].item()
    assert 0 < o.agreed.float().mean() < 1 and y.shape[:2] == (4, 5)
    assert math.isclose(out.unlabelled.item(), total/20, rel_tol=1e-4)
