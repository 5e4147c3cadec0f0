"Style against numpy, picture by picture and channel by channel."
from dataclasses import replace
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from sshpe.data.batch import fetch
from sshpe.errors import InputError
from sshpe.models.posenet import no_hook
from sshpe.pose import views
from sshpe.ssl.methods import recipe
from sshpe.ssl.occlusion import partner
from sshpe.ssl.perturb import perturb
from sshpe.ssl.recipe import Setup
from sshpe.ssl.step import labelled_targets, step
from sshpe.ssl.style import borrowed, restyled, Style
from test_learner import learner, method, networks, people, S5, same

keyed, MEAN, STD = views.keyed, np.array(views.MEAN), np.array(views.STD)

def pictures(B=3, seed=0, size=(12, 8), empty=.3):
    "Normalised pictures with parts that no photo shows."
    r = np.random.default_rng(seed)
    x = (r.integers(30, 200, (B, 3, *size))*r.uniform(.4, 1.2, (B, 3, 1, 1))-MEAN[:,None,None])/STD[:,None,None]
    x[np.broadcast_to(r.random((B, 1, *size)) < empty, x.shape)] = 0
    return torch.tensor(x, dtype=torch.float32)

@given(st.integers(0, 10**6), st.sampled_from([0., .4, 1.]))
def test_each_channel_has_the_other_s_mean_and_deviation(seed, share):
    x, like = pictures(seed=seed), pictures(seed=seed+1, size=(9, 7))
    y = restyled(x, like, share).double().numpy()
    for b in range(3):
        a, z = (t[b].double().numpy()[:, (t[b] != 0).any(0).numpy()] for t in (x, like))  # (3, pixels that show something)
        new = (a-a.mean(1, keepdims=True))/a.std(1, keepdims=True)*z.std(1, keepdims=True)+z.mean(1, keepdims=True)
        new = np.clip(new*STD[:,None]+MEAN[:,None], 0, 255)
        truth = (1-share)*a+share*(new-MEAN[:,None])/STD[:,None]
        shown = (x[b] != 0).any(0).numpy()
        assert np.allclose(y[b][:,shown], truth, atol=1e-4) and (y[b][:,~shown] == 0).all()

def test_who_shows_nothing_gives_and_takes_nothing():
    x, none = pictures(), torch.zeros(3, 3, 12, 8)
    assert torch.equal(restyled(x, none), x) and torch.equal(restyled(none, x), none)

def test_a_flat_picture_becomes_the_mean_colour_of_the_other():
    y = restyled(torch.ones(1, 3, 4, 4), like := pictures(1, empty=0.))
    assert torch.allclose(y, like.mean((-2, -1), keepdim=True).expand_as(y), atol=1e-5)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_as_a_perturbation(dtype):
    x, who = pictures(5).to(dtype), np.array([4, 9, 1, 7, 3])
    old = x.clone()
    y, hook = perturb((Style(),), x, None, None, who, 0, 3)
    assert hook is no_hook and y.dtype == dtype and torch.equal(x, old)
    assert torch.equal(y, restyled(x, x[partner(who, 0, 3, 0)])) and not torch.equal(y, perturb((Style(),), x, None, None, who, 0, 4)[0])

@pytest.mark.parametrize('make', [lambda: Style(1.5), lambda: recipe('style', labelled_style=-.1)])
def test_senseless_shares_are_refused(make):
    with pytest.raises(InputError, match='from 0 to 1'): make()

def test_labelled_people_borrow_from_the_step_s_unlabelled_ones():
    r, p = method('style')
    lab, unl = fetch(people(1), np.arange(4)), fetch(people(2), np.arange(4))
    fs, gs = networks(r, p)
    go = lambda r: step(fs, gs, lab, unl, Setup(r, p, S5.flip), lam=1., key=(0, 0))
    out, plain = go(r), go(replace(r, labelled_style=0.))
    x, t, w = labelled_targets(lab, Setup(replace(r, labelled_style=0.), p, S5.flip), key=(0, 0))
    i = (keyed(0, 0, lab.number, 'style')[:,0]*4).astype(int)
    want = torch.stack([restyled(x[[b]], out.views.pictures[0][[k]])[0] for b, k in enumerate(i)])
    assert torch.equal(labelled_targets(lab, Setup(r, p, S5.flip), key=(0, 0), others=out.views.pictures[0])[0], want)
    assert out.labelled != plain.labelled and torch.equal(borrowed(x, out.views.pictures[0], 0., lab.number, 0, 0), x)
    assert len(set(i.tolist())) > 1

def test_the_burn_in_has_nobody_to_borrow_from():
    a, b = (learner(n, burn_in=3, steps=5).fit(until=3) for n in ('style', 'pose-mum-plus'))
    assert same(a, b) and not same(a.fit(until=5), b.fit(until=5))
