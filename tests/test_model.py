"The pose network: shapes, what can be touched, folding, weights from files and from seeds."
import pickle, time, warnings
import numpy as np, pytest, torch, torch.nn as nn
import helpers
from sshpe.errors import InputError
from sshpe.models.backbones import backbone, BACKBONES, high_resolution, NARROW, narrow, start_of
from sshpe.models.posenet import build, folded, load_backbone, PoseNet, STAGES

def small(seed=0, **kw): return build('narrow18', 5, 8, seed=seed, **kw)

def lively(f, seed=0):
    "Normalisations with statistics and gains of their own, as after training."
    g = torch.Generator().manual_seed(seed)
    for m in f.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, low in ((m.running_mean, -.3), (m.running_var, .5), (m.weight.data, .6), (m.bias.data, -.2)):
                t.copy_(torch.rand(t.shape, generator=g)+low)
    return f

@pytest.mark.parametrize('name', ['narrow18', 'resnet18', 'resnet50'])
@pytest.mark.parametrize('size', [(96, 64), (256, 192)])
def test_shapes_and_touch(name, size):
    net, seen = build(name, 17, 16).eval(), []
    def hook(stage, x): seen.append((stage, *x.shape[2:])); return x
    with torch.no_grad(): y = net(torch.randn(1, 3, *size), hook)
    H, W = size
    assert y.shape == (1, 17, H//4, W//4)
    last = seen[4][1]
    assert [s for s, *_ in seen] == list(STAGES) and H//last in ((16, 32) if name == 'narrow18' else (32,))
    assert [hw for _, *hw in seen] == [[H//k, W//k] for k in (1, 4, 8, 16, H//last, 4)]
    # SimpleBaseline: three from stride 32
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in net.decoder) == (3 if H//last == 32 else 2)

@pytest.mark.parametrize('name', ['narrow_hrnet', 'hrnet_w32'])
@pytest.mark.parametrize('size', [(96, 64), (256, 192)])
def test_shapes_and_touch_of_branches(name, size):
    net, seen = build(name, 17, 16).eval(), {}
    def hook(stage, x): seen[stage] = [h.shape[1:] for h in x] if isinstance(x, list) else x.shape[1:]; return x
    with torch.no_grad(): y = net(torch.randn(1, 3, *size), hook)
    (H, W), c = size, 8 if name in NARROW else 32
    branch = lambda i: (c*2**i, H//4//2**i, W//4//2**i)
    assert y.shape == (1, 17, H//4, W//4) and tuple(seen) == STAGES
    assert seen['input'] == (3, H, W) and seen['layer1'][1:] == (H//4, W//4) and seen['decoder'] == branch(0)
    assert [seen[k] for k in STAGES[2:5]] == [[branch(i) for i in range(n)] for n in (2, 3, 1)]  # painted from the finest only

@pytest.mark.parametrize('name', NARROW)
@pytest.mark.parametrize('stage', STAGES)
def test_a_touch_replaces_the_features(name, stage):
    net, x = build(name, 5, 8, init='he').eval(), torch.randn(2, 3, 96, 64)
    def every(f): return lambda s, h: h if s != stage else [f(b) for b in h] if isinstance(h, list) else f(h)
    with torch.no_grad():
        y = net(x)
        z = net(x, every(lambda h: h.flip(0)))
        assert torch.allclose(z, y.flip(0), atol=1e-6) and not torch.allclose(z, y, atol=1e-6)
        blank = net(x, every(lambda h: h*0))
        assert torch.equal(blank[0], blank[1])

@pytest.mark.parametrize('name, millions', [('hrnet_w32', 28.5), ('hrnet_w48', 63.6)])
def test_hrnet_is_as_large_as_its_authors_say(name, millions):
    with torch.device('meta'): net = PoseNet(*high_resolution(backbone(name)))
    assert abs(sum(p.numel() for p in net.parameters())/1e6-millions) < .06

@pytest.mark.parametrize('name', NARROW)
def test_every_weight_learns(name):
    net = lively(build(name, 5, 8, init='he'))
    net(torch.randn(4, 3, 96, 64)).square().sum().backward()
    assert [k for k, w in net.named_parameters() if w.grad is None or not w.grad.any()] == []

@pytest.mark.parametrize('name', ['narrow18', 'narrow_hrnet', 'resnet18', 'resnet50'])
def test_folded_says_the_same(name):
    net, x = lively(build(name, 4, 8, init='he')), torch.randn(2, 3, 96, 64)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    f = folded(net)
    with torch.no_grad(): y, z = net.eval()(x), f(x)
    assert not f.training and (y-z).abs().max() < 1e-4*y.abs().max() and y.abs().max() > 1e-3
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    count = lambda f: sum(isinstance(m, nn.BatchNorm2d) for m in f.modules())
    assert count(f) == 0 if name == 'narrow_hrnet' else count(f) < count(net)/4

def test_the_seed_decides_the_weights_and_nothing_else_is_disturbed():
    torch.manual_seed(7); a = torch.rand(3)
    torch.manual_seed(7); one = small(3); b = torch.rand(3)
    torch.rand(5); two, other = small(3), small(4)
    assert torch.equal(a, b)
    random = [k for k, v in one.state_dict().items() if v.is_floating_point() and v.std() > 0]
    same = lambda f, g: [torch.equal(f.state_dict()[k], g.state_dict()[k]) for k in random]
    assert random and all(same(one, two)) and not any(same(one, other))

@pytest.mark.parametrize('init', ['small', 'he'])
def test_init(init):
    high = build('narrow_hrnet', 17, init=init).head
    assert (high.bias == 0).all() and abs(high.weight.std().item()/(.001 if init == 'small' else .01)-1) < .15
    net = build('narrow18', 17, 64, init=init)
    ups = [m for m in net.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert (net.head.bias == 0).all()
    for m in ups: assert abs(m.weight.std().item()/(.001 if init == 'small' else (2/(4*m.weight.shape[0]))**.5)-1) < .05
    assert abs(net.head.weight.std().item()/(.001 if init == 'small' else .01)-1) < .1
    if init == 'he':  # the signal keeps its size through an upsampling
        x = torch.randn(4, ups[0].in_channels, 12, 8)
        assert .7 < (ups[0](x).std()/2**.5).item() < 1.3
    with pytest.raises(InputError, match='small'): build('narrow18', 3, 8, init='smal')

def test_unknown_backbones_and_missing_files_are_named():
    with pytest.raises(InputError, match='resnet18'): build('resnet81')
    with pytest.raises(InputError, match='nowhere.pt'): build('narrow18', 3, 8, weights='nowhere.pt')
    assert {'resnet18', 'resnet50', 'resnet101', 'resnet152', 'hrnet_w32', 'hrnet_w48', *NARROW} == set(BACKBONES)

@pytest.mark.parametrize('name', NARROW)
def test_nobody_trained_the_narrow_ones_on_imagenet(name):
    with pytest.raises(InputError, match=f"no ImageNet weights of {name}.*weights=''"): build(name, 3, 8, 'imagenet')

@pytest.mark.parametrize('name', ['resnet18', 'hrnet_w32'])
def test_without_the_hub_one_sentence_and_soon(monkeypatch, name):
    import urllib.request
    def silence(*a, timeout, **k): time.sleep(timeout); raise OSError('no network')
    monkeypatch.setattr(urllib.request, 'urlopen', silence)
    monkeypatch.setenv('HF_HUB_CACHE', '/nowhere')
    begun = time.monotonic()
    with pytest.raises(InputError, match=f'{name}.*could not be fetched.*weights=PATH.*weights=random'): build(name, 3, 8, 'imagenet')
    assert time.monotonic()-begun < 10
    assert build(name, 3, 8, 'random').head.weight.equal(build(name, 3, 8).head.weight)

def test_two_students_begin_differently():
    assert [start_of('imagenet', s) for s in range(3)] == ['imagenet', 'imagenet:2', 'imagenet']
    assert [start_of('a.pt,b.pt', s) for s in range(2)] == ['a.pt', 'b.pt'] and start_of('', 1) == '' and start_of('a.pt', 1) == 'a.pt'

# weights from files

@pytest.mark.parametrize('kind', ['safetensors', 'pt', 'nested'])
def test_backbone_weights_from_a_file_of_timms_names(tmp_path, kind):
    import timm
    from safetensors.torch import save_file
    torch.manual_seed(3)
    theirs = lively(timm.create_model('resnet18', num_classes=1000)).eval()
    path, s = tmp_path/('w.safetensors' if kind == 'safetensors' else 'w.pt'), theirs.state_dict()
    if kind == 'safetensors': save_file(s, path)
    else: torch.save(dict(state_dict=s, epoch=3) if kind == 'nested' else s, path)
    net = build('resnet18', 3, 8, str(path)).eval()
    missing = load_backbone(build('resnet18', 3, 8), path)
    x, last = torch.randn(1, 3, 96, 64), {}
    with torch.no_grad():
        net(x, lambda k, h: last.setdefault(k, h))
        assert torch.allclose(last['layer4'], theirs.forward_features(x), atol=1e-5)
    assert missing and all(k.startswith(('decoder', 'head')) for k in missing)

def test_hrnet_weights_of_timms_names_give_timms_features(tmp_path):
    torch.manual_seed(3)
    theirs = lively(narrow('narrow_hrnet')).eval()
    torch.save(theirs.state_dict(), tmp_path/'w.pt')
    net, x, seen = build('narrow_hrnet', 3, weights=str(tmp_path/'w.pt')).eval(), torch.randn(2, 3, 96, 64), {}
    assert load_backbone(build('narrow_hrnet', 3), tmp_path/'w.pt') == ['head.weight', 'head.bias']
    with torch.no_grad():
        net(x, lambda k, h: seen.setdefault(k, h))
        assert torch.allclose(seen['layer4'][0], theirs.forward_features(x)[0], atol=1e-5)
        assert seen['decoder'] is seen['layer4'][0]

def test_a_hub_with_a_classifier_gives_hrnet_its_backbone(tmp_path, monkeypatch):
    import timm
    torch.manual_seed(4)
    theirs = lively(timm.create_model('hrnet_w18_small')).eval()  # 1000 classes
    torch.save(theirs.state_dict(), tmp_path/'w.pt')
    real = timm.create_model
    def hub(name, pretrained=False, **kw):
        return real('hrnet_w18_small', pretrained, pretrained_cfg_overlay=dict(file=str(tmp_path/'w.pt')), **kw)
    monkeypatch.setattr(timm, 'create_model', hub)
    monkeypatch.setattr('sshpe.models.backbones.hub_answers', lambda repo: True)
    with warnings.catch_warnings(): warnings.simplefilter('error'); net = build('hrnet_w32', 3, weights='imagenet').eval()
    x, seen = torch.randn(1, 3, 64, 64), {}
    with torch.no_grad():
        net(x, lambda k, h: seen.setdefault(k, h))
        h = theirs.act1(theirs.bn1(theirs.conv1(x)))
        h = theirs.stages(theirs.act2(theirs.bn2(theirs.conv2(h))))
        assert torch.allclose(seen['decoder'], h[0], atol=1e-5)

def test_the_shipped_networks_still_fit(root):
    from safetensors.torch import load_file
    s = load_file(root/'data/networks/supervised/model.safetensors')
    build('narrow18', 17, 32).load_state_dict({k.split('.', 1)[1]: v for k, v in s.items()})  # strictly

@pytest.mark.parametrize('name', NARROW)
def test_a_pose_networks_own_weights_come_back(tmp_path, name):
    f = lively(build(name, 5, 8, seed=1)); torch.save(f.state_dict(), tmp_path/'f.pt')
    g = build(name, 5, 8, seed=2)
    assert load_backbone(g, tmp_path/'f.pt') == []
    assert all(torch.equal(v, f.state_dict()[k]) for k, v in g.state_dict().items())

class Hostile:
    "A pickle that runs code when it is read."
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return open, (str(self.mark), 'w')

@pytest.mark.parametrize('write', [lambda o, f: torch.save(o, f), lambda o, f: f.write_bytes(pickle.dumps(o, 2))])
@pytest.mark.parametrize('wrap', [lambda h: h, lambda h: {'conv1.weight': torch.zeros(1), 'x': h}])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, write, wrap):
    mark, f = tmp_path/'ran', tmp_path/'w.pt'
    write(wrap(Hostile(mark)), f)
    with pytest.raises(InputError, match='w.pt'): load_backbone(small(), f)
    assert not mark.exists()

@pytest.mark.parametrize('data', [b'', b'PK\3\4 half a zip', b'{"a": 1}'])
@pytest.mark.parametrize('name', ['w.pt', 'w.safetensors'])
def test_broken_files_are_refused(tmp_path, data, name):
    (tmp_path/name).write_bytes(data)
    with pytest.raises(InputError, match=name): load_backbone(small(), tmp_path/name)

@pytest.mark.parametrize('content', [[1, 2], torch.zeros(3), {'conv1.weight': 3}, {3: torch.zeros(1)},
                                     {'state_dict': [1]}], ids=str)
def test_files_of_something_else_are_refused(tmp_path, content):
    torch.save(content, tmp_path/'w.pt')
    with pytest.raises(InputError, match='w.pt'): load_backbone(build('resnet18', 3, 8), tmp_path/'w.pt')

def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({'features.0.weight': torch.zeros(3)}, tmp_path/'vgg.pt')
    with pytest.raises(InputError, match='does not fit this backbone'): load_backbone(small(), tmp_path/'vgg.pt')

def test_weights_of_another_family_are_refused(tmp_path):
    torch.save(narrow('narrow_hrnet').state_dict(), tmp_path/'high.pt')
    torch.save(narrow('narrow18').state_dict(), tmp_path/'res.pt')
    with pytest.raises(InputError, match='high.pt does not fit'): load_backbone(small(), tmp_path/'high.pt')
    with pytest.raises(InputError, match='res.pt does not fit'): load_backbone(build('narrow_hrnet'), tmp_path/'res.pt')

def test_weights_of_a_deeper_resnet_are_refused(tmp_path):
    import timm
    torch.save(timm.create_model('resnet50', num_classes=0).state_dict(), tmp_path/'r50.pt')
    with pytest.raises(InputError): load_backbone(build('resnet18', 3, 8), tmp_path/'r50.pt')
