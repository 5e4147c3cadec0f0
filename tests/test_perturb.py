"Perturbations in a row: pictures one after the other, touches one inside the other, every one with a key of its own."
from dataclasses import dataclass
import numpy as np, torch
import helpers
from sshpe.models.posenet import build, no_hook, STAGES
from sshpe.ssl.perturb import perturb, Perturbation

@dataclass(frozen=True)
class Line(Perturbation):
    "x -> a x + b, at the picture and after one stage; writes down how it was called."
    a:float
    b:float
    stage:str
    calls:list
    def picture(self, x, xy, there, number, *key):
        self.calls.append(('picture', self.a, tuple(xy.shape), tuple(there.shape), list(number), key))
        return self.a*x+self.b
    def feature_hook(self, B, *key, offset=0):
        self.calls.append(('hook', self.a, B, key))
        return lambda stage, f: self.a*f+self.b if stage == self.stage else f

x, xy, number = torch.rand(3, 3, 8, 6), torch.rand(3, 17, 2), np.array([5, 9, 2])
there = xy[...,0] > .5

def test_one_that_overrides_nothing_changes_nothing():
    y, hook = perturb((Perturbation(),), x, xy, there, number, 0)
    assert y is x and all(hook(k, x) is x for k in STAGES)

def test_no_perturbation_touches_nothing():
    y, hook = perturb((), x, xy, there, number, 0)
    assert y is x and hook is no_hook

def test_in_their_order_with_their_place_at_the_end_of_the_key():
    calls = []
    path = Line(2, 3, 'layer1', calls), Line(5, 7, 'layer1', calls), Line(11, 1, 'layer2', calls)
    y, hook = perturb(path, x, xy, there, number, 4, 6)
    assert torch.allclose(y, ((2*x+3)*5+7)*11+1)
    assert torch.allclose(hook('layer1', x), (2*x+3)*5+7) and torch.allclose(hook('layer2', x), 11*x+1)
    assert torch.equal(hook('layer3', x), x)
    assert calls[:3] == [('picture', a, (3, 17, 2), (3, 17), [5, 9, 2], (4, 6, i)) for i, a in enumerate((2, 5, 11))]
    assert calls[3:] == [('hook', a, 3, (4, 6, i)) for i, a in enumerate((2, 5, 11))]

def test_twice_the_same_draws_twice():
    from sshpe.ssl.occlusion import Cutout
    once, _ = perturb((Cutout(1, (1, 2)),), torch.ones(40, 3, 256, 192), None, None, np.arange(40), 0)
    both, _ = perturb((Cutout(1, (1, 2)),)*2, torch.ones(40, 3, 256, 192), None, None, np.arange(40), 0)
    assert torch.equal(both*once, both) and (both == 0).sum() > 1.8*(once == 0).sum()

def test_a_network_is_touched():
    net = build('narrow18', joints=4, width=8, init='he').eval()
    z = torch.randn(2, 3, 96, 64)
    path = Line(1, 0, 'layer1', []), Line(1, .5, 'decoder', [])
    with torch.no_grad():
        y, hook = perturb(path, z, torch.zeros(2, 4, 2), torch.ones(2, 4, dtype=bool), np.arange(2), 0)
        f = []
        net(y, lambda k, h: f.append(h) or h)
        assert torch.allclose(net(y, hook), net.head(f[-1]+.5), atol=1e-6)
