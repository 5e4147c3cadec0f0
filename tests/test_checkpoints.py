"Checkpoints from elsewhere: wrapped in whatever way, recognised as whole pose networks, joints and colours in our order."
import argparse, json
import numpy as np, pytest, torch, torch.nn as nn, torchvision
from test_model import lively
from sshpe.cli import main
from sshpe.errors import InputError
from sshpe.models.posenet import build, load_backbone
from sshpe.models.weights import find_network, from_bgr, read_tensors
from sshpe.runs import checkpoint, result, run, training
from sshpe.train.learner import Learner

MEAN, STD = (torch.tensor(v)[:,None,None] for v in ((.485, .456, .406), (.229, .224, .225)))

class SimpleBaseline(nn.Module):
    "SimpleBaseline as its authors name its parts, on torchvision's ResNet."
    def __init__(self, joints=17, depth=18):
        super().__init__()
        body = getattr(torchvision.models, f'resnet{depth}')(weights=None)
        c = body.fc.in_features
        for k in ('conv1', 'bn1', 'relu', 'maxpool', 'layer1', 'layer2', 'layer3', 'layer4'): self.add_module(k, getattr(body, k))
        up = [m for i in range(3) for m in (nn.ConvTranspose2d(256 if i else c, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU())]
        self.deconv_layers, self.final_layer = nn.Sequential(*up), nn.Conv2d(256, joints, 1)
    def forward(self, x):
        for m in self.children(): x = m(x)
        return x

@pytest.fixture(scope='module')
def baseline():
    torch.manual_seed(5)
    return lively(SimpleBaseline()).eval()

def renamed(s, **names): return {next((b+k[len(a):] for a, b in names.items() if k.startswith(a)), k): v for k, v in s.items()}
def under(prefix, s): return {prefix+k: v for k, v in s.items()}

# wrappers of a backbone

class Loop:
    "What a training loop stores beside the network."
    beside = dict(epoch=3, optimizer=dict(state={0: dict(exp_avg=torch.zeros(3))}, param_groups=[dict(lr=.1)]), perf=np.float64(.7), args=argparse.Namespace(lr=.1))

WRAPPED = {
    'data parallel': lambda s: under('module.', s),
    'mmpose': lambda s: dict(meta=dict(epoch=2), state_dict=under('backbone.', s) | {'head.final_layer.bias': torch.zeros(2)}),
    'a training loop': lambda s: Loop.beside | dict(state_dict=under('module.', s)),
    'model': lambda s: dict(model=s),
    'an average': lambda s: Loop.beside | dict(model={k: v*0 for k, v in s.items()}, model_ema=under('module.', s)),
    "timm's average": lambda s: dict(state_dict={k: v*0 for k, v in s.items()}, state_dict_ema=s),
    "mmengine's average": lambda s: dict(ema_state_dict=under('module.backbone.', {k: v*0 for k, v in s.items()}), state_dict=under('backbone.', s)),
    'lightning': lambda s: dict(state_dict=under('model.encoder.', s)),
    'deep': lambda s: dict(checkpoint=dict(networks=dict(student=under('net.', s))))}

@pytest.mark.parametrize('wrap', WRAPPED)
def test_the_backbone_is_found(tmp_path, wrap, baseline):
    s = {k: v for k, v in baseline.state_dict().items() if not k.startswith(('deconv', 'final'))} | {'fc.weight': torch.zeros(1000, 512)}
    torch.save(WRAPPED[wrap](s), tmp_path/'w.pth')
    net = build('resnet18', 3, 8, str(tmp_path/'w.pth'))
    for k, v in (('stem.0.weight', 'conv1.weight'), ('layer3.1.bn2.running_var', 'layer3.1.bn2.running_var')):
        assert torch.equal(net.state_dict()[k], s[v])
    assert '100 of 100 tensors of the backbone' in net.start['found'] and 'skipped' in net.start['found'] and 'fc.weight' in net.start['found']

def test_two_files_with_the_same_weights_have_the_same_digest(tmp_path, baseline):
    s = baseline.state_dict()
    torch.save(s, tmp_path/'a.pth'); torch.save(dict(state_dict=under('module.', dict(reversed(s.items())))), tmp_path/'b.pth')
    torch.save(s | {'conv1.weight': s['conv1.weight']+1e-3}, tmp_path/'c.pth')
    a, b, c = (build('resnet18', 3, 8, str(tmp_path/f'{n}.pth')).start['digest'] for n in 'abc')
    assert a == b != c

def test_objects_are_refused_by_name(tmp_path):
    torch.save(dict(state_dict={}, history=pytest.approx(1)), tmp_path/'w.pth')
    with pytest.raises(InputError, match=r'w.pth.*it holds a .*Approx.*which is code.*state dict alone'): read_tensors(tmp_path/'w.pth')

# whole pose networks

FAMILIES = {
    "SimpleBaseline's": (lambda s: s, True),
    'SimpleBaseline behind DataParallel': (lambda s: dict(epoch=1, state_dict=under('module.', s)), True),
    'mmpose 1': (lambda s: dict(state_dict=renamed(s, deconv='head.deconv', final='head.final', conv1='backbone.conv1', bn1='backbone.bn1', layer='backbone.layer')), False),
    'mmpose 0': (lambda s: renamed(s, deconv='keypoint_head.deconv', final='keypoint_head.final', conv1='backbone.conv1', bn1='backbone.bn1', layer='backbone.layer'), False),
    "MultiAugs'": (lambda s: under('module.resnet.', renamed(s, final='final')), True)}

@pytest.mark.parametrize('kind', FAMILIES)
def test_a_whole_network_answers_as_where_it_comes_from(tmp_path, kind, baseline):
    wrap, bgr = FAMILIES[kind]
    torch.save(wrap(baseline.state_dict()), tmp_path/'w.pth')
    checkpoint.adopt(tmp_path/'w.pth', tmp_path/'run')
    x = result.load(tmp_path/'run', 'cpu')
    photo = torch.rand(2, 3, 256, 192)
    with torch.no_grad():
        here = x.networks['student']((photo-MEAN)/STD)
        there = baseline(((photo.flip(1) if bgr else photo)-MEAN)/STD)
        other = baseline(((photo if bgr else photo.flip(1))-MEAN)/STD)
    error = lambda y: ((here-y).square().mean()/y.var()).sqrt().item()
    assert error(there) < (.05 if bgr else 1e-5) and error(there) < error(other)/3

def test_colours_the_other_way_round_are_exact_inside():
    torch.manual_seed(0)
    conv, norm, photo = nn.Conv2d(3, 8, 7, 2, 3, bias=False), lively(nn.Sequential(nn.BatchNorm2d(8)))[0].eval(), torch.rand(1, 3, 32, 32)
    new = from_bgr({'stem.0.weight': conv.weight.data, 'stem.1.running_mean': norm.running_mean.clone()})
    with torch.no_grad():
        there = norm(conv((photo.flip(1)-MEAN)/STD))
        conv.weight.copy_(new['stem.0.weight']); norm.running_mean.copy_(new['stem.1.running_mean'])
        here = norm(conv((photo-MEAN)/STD))
    assert torch.allclose(here[...,2:-2,2:-2], there[...,2:-2,2:-2], atol=1e-5) and not torch.allclose(here, there, atol=1e-3)

UNION = 'root rhip rkne rank lhip lkne lank belly thorax neck upper_neck nose head head_top lsho lelb lwri rsho relb rwri reye leye rear lear'.split()
COCO = 'nose leye reye lear rear lsho rsho lelb relb lwri rwri lhip rhip lkne rkne lank rank'.split()

def test_two_networks_of_24_joints_become_two_students_of_17(tmp_path):
    torch.manual_seed(6)
    a, b = SimpleBaseline(24), SimpleBaseline(24)
    s = {k: v for p, f in (('resnet.', a), ('resnet2.', b)) for k, v in under(p, renamed(f.state_dict(), final_layer='final_layer_1')).items()}
    torch.save(dict(state_dict=under('module.', s), perf=np.float32(.4)), tmp_path/'w.pth')
    lines = checkpoint.adopt(tmp_path/'w.pth', tmp_path/'run')
    x = result.load(tmp_path/'run', 'cpu')
    assert len(lines) == 2 and list(x.networks) == ['student1', 'student2'] and x.recipe.name == 'dual-pose'
    for f, g in zip(x.networks.values(), (a, b)):
        for j, name in enumerate(COCO): assert torch.equal(f.head.weight[j], g.final_layer.weight[UNION.index(name)])

@pytest.mark.parametrize('depth, name', [(50, 'resnet50'), (101, 'resnet101')])
def test_depth_is_recognised(tmp_path, depth, name):
    torch.save(SimpleBaseline(17, depth).state_dict(), tmp_path/'w.pth')
    assert checkpoint.recognised(tmp_path/'w.pth')[0] == name

@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: dict(state_dict={('head.' if 'final' in k else 'backbone.')+k: v for k, v in s.items()})])
def test_hrnet_is_recognised(tmp_path, wrap):
    "timm's HRNet has its authors' names."
    import timm
    body = timm.create_model('hrnet_w32', head='').state_dict()
    s = {k: v for k, v in body.items() if not k.startswith('stage4.2.fuse_layers') or k.startswith('stage4.2.fuse_layers.0')}
    torch.save(wrap(s | {'final_layer.weight': torch.zeros(17, 32, 1, 1), 'final_layer.bias': torch.zeros(17)}), tmp_path/'w.pth')
    name, _, (f,) = checkpoint.recognised(tmp_path/'w.pth')
    assert name == 'hrnet_w32' and not f.bgr and torch.equal(f.tensors['layer4.stage.1.branches.3.0.conv1.weight'], s['stage4.1.branches.3.0.conv1.weight'])

def test_what_is_no_pose_network_is_refused(tmp_path, baseline):
    s = baseline.state_dict()
    for more, words in (({k: v for k, v in s.items() if 'final' not in k}, 'no final_layer or head'), ({k: v for k, v in s.items() if k != 'layer3.0.bn1.weight'}, 'no whole pose network'),
                        (SimpleBaseline(19).state_dict(), '19 joints.*--data')):
        torch.save(more, tmp_path/'w.pth')
        with pytest.raises(InputError, match=words): checkpoint.adopt(tmp_path/'w.pth', tmp_path/'run')
    assert not (tmp_path/'run').exists()

# what a run of it is good for

@pytest.fixture(scope='module')
def imported(tmp_path_factory, baseline):
    d = tmp_path_factory.mktemp('imported')
    torch.save(baseline.state_dict(), d/'w.pth')
    assert main(['import', str(d/'w.pth'), '--out', str(d/'run'), '--size', '128x96']) == 0
    return d/'run'

def test_everything_that_takes_a_run_takes_it(imported, capsys):
    assert run.state(imported) == 'finished' and main(['runs', str(imported.parent), '--json']) == 0
    row, = json.loads(capsys.readouterr().out)
    assert row['state'] == 'finished' and row['AP'] is None
    assert main(['diagnose', str(imported), '--people', '32', '--json']) == 0
    from sshpe.data.registry import load
    x, people = result.load(imported, 'cpu'), load('people', split='val')[:8]
    assert result.evaluate(x, people, imported/'evaluate')['headline']['PCK'] is not None and len(result.unlabelled(x, 1.2)) == 64

@pytest.mark.parametrize('form', ['run', 'w.pth'])
def test_it_teaches_as_a_frozen_teacher(imported, form, baseline):
    way = dict(backbone='resnet18', width='256', size='(128, 96)', teacher_weights=str(imported.parent/form), tiles='(4, 3)')
    r, p = training.settle(run.config(dict(recipe='pseudo-pose', preset='tiny', override=way)))
    from sshpe.data.crops import build_store
    from sshpe.data.registry import load
    people = load('people', split='val')[:24]
    store = build_store(people, p.size, r.canvas_margin)
    l = Learner(r, p, store[:8], store[8:], people.skeleton)
    before = {k: v.clone() for k, v in l.teachers[0].state_dict().items()}
    assert torch.equal(before['layer2.0.conv1.weight'], baseline.state_dict()['layer2.0.conv1.weight'])
    l.fit(until=6)
    assert all(torch.equal(v, before[k]) for k, v in l.teachers[0].state_dict().items()) and l.teachers[0] is not l.students[0]
    assert any(row.get('unlabelled') is not None for row in l.rows) or l.sums.get('unlabelled') is not None
