"Recipes: what the papers fix, reading values from text, and refusing what doesn't fit."
import json, math
from dataclasses import FrozenInstanceError, asdict, fields, replace
import pytest, torch
from hypothesis import given, strategies as st
from sshpe.errors import InputError
from sshpe.models.posenet import build
from sshpe.ssl.mum import Mix
from sshpe.ssl.methods import HARD, recipe, RECIPES
from sshpe.ssl.occlusion import JointCutout
from sshpe.ssl.recipe import at_scale, fits, literal, MINI, override, PAPER, perturbations, Preset, PRESETS, Recipe, revived, Row
from sshpe.runs.run import home, as_plain
from sshpe.runs.training import remembered
from sshpe.pose.views import Affine, Beta, Normal, Uniform

# names, and what the papers say

def test_names():
    assert {'supervised', 'dual-pose', 'denoise-select', 'pose-mum-plus'} <= set(RECIPES)
    assert {'tiny', 'mini', 'paper'} <= set(PRESETS)
    for table in (RECIPES, PRESETS): assert all(k == v.name for k, v in table.items())
    for r in RECIPES.values():
        assert r.about.endswith('.') and r.name == r.name.lower()
        assert r.rows and all(isinstance(x, Row) and x.paper and x.table and x.row for x in r.rows)
        assert json.loads(json.dumps(asdict(r), default=str))
        with pytest.raises(FrozenInstanceError): r.K = 9

def test_recipes_say_what_the_papers_say():
    r = RECIPES['supervised']; assert r.lam == 0 and r.students == 1
    r = RECIPES['dual-pose']  # Eq. 2, 3: the other student's weak heatmaps, whole, on one strong view
    assert (r.students, r.teacher, r.n_weak, r.K, r.student_view) == (2, 'student', 1, 0, 'fresh')
    assert (r.refined, r.gate, r.tau, r.margin, r.student_branches) == (False, 0, None, math.inf, ((),))
    r = RECIPES['denoise-select']  # section 3.2: one weak and K strong views, their maximum, tau 0.1, refined; Eq. 7
    assert (r.students, r.teacher, r.n_weak, r.pool, r.refined) == (2, 'student', 1, 'max', True) and recipe('denoise-select', 'paper')[0].tau == .1
    assert r.K >= 1 and math.isfinite(r.margin)
    assert (r.epochs, r.drop_epochs) == (100, (70, 90))
    r = RECIPES['pose-mum-plus']  # section 3: EMAN, groups of 4, unmixed after the encoder; 4x3 tiles at 256x192
    assert (r.students, r.teacher, r.teacher_mode, r.decay) == (1, 'eman', 'eval', .6)
    ((mix,),) = r.student_branches
    assert (mix.group, mix.unmix) == (4, 'layer4')
    assert dict(mix.stages)['input'] == 1 and {'layer1', 'layer3'} <= set(dict(mix.stages))
    assert recipe('pose-mum-plus', 'paper')[0].student_branches[0][0].tiles == (4, 3)
    assert (PAPER.size, PAPER.map, PAPER.sigma, PAPER.lr) == ((256, 192), (64, 48), 2, 1e-3)

@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.parametrize('preset', PRESETS)
def test_every_recipe_fits_every_scale(name, preset):
    r, p = recipe(name, preset)
    h, w = p.size
    assert h % 32 == w % 32 == 0 and p.map == (h//p.stride, w//p.stride)
    if mix := perturbations(r).get('mix'):  # every stage that may be mixed can be cut into tiles
        assert p.n_unlabelled % mix.group == 0 and mix.tiles == p.tiles
        mix = replace(mix, stages=tuple((s, 1.) for s, _ in mix.stages))
        with torch.no_grad(): y = build(p.backbone, 3, 8)(torch.zeros(mix.group, 3, h, w), mix.feature_hook(mix.group, 0))
        assert y.shape[2:] == p.map
    assert p.steps or r.epochs > max(r.drop_epochs)
    assert r.canvas_margin >= max(a.scale.high for a in (r.weak, r.strong) if a in r.affines)

def test_views_of_a_recipe():
    r = replace(RECIPES['denoise-select'], n_weak=2, K=3)
    for sees, n, seen in (('fresh', 6, 5), ('pooled', 5, 4), ('weak', 5, 0)):
        q = replace(r, student_view=sees)
        assert q.affines == (r.weak, r.weak)+(r.strong,)*(n-2) and (q.n_pooled, q.student_views) == (5, (seen,))
    two = replace(r, student_view='fresh', student_branches=((), ()))
    assert two.student_views == (5, 6) and len(two.affines) == 7 and replace(two, student_view='weak').student_views == (0, 0)
    assert RECIPES['dual-pose'].affines == (RECIPES['dual-pose'].weak, RECIPES['dual-pose'].strong)

def test_an_answer_is_reused_only_if_it_is_the_same_answer():
    r = Recipe('x', K=1, student_view='pooled')
    assert r.shares_passes
    for change in (dict(student_view='fresh'), dict(student_view='weak'), dict(teacher='eman'), dict(teacher_mode='eval'), dict(student_branches=((Mix(),),)),
                   dict(student_branches=((), ())), dict(teacher_perturbations=(Mix(),))):
        assert not replace(r, **change).shares_passes

# values from text

@pytest.mark.parametrize('text, value', [
    ('inf', math.inf), ('-inf', -math.inf), (' 4 ', 4), ('0.1', .1), ('1e-3', 1e-3), ('(3, 2)', (3, 2)),
    ('True', True), ('false', False), ('none', None), ('max', 'max'), ('Uniform(-30, 30)', Uniform(-30, 30)),
    ('Normal(0, 30, -60, 60)', Normal(0, 30, -60, 60)), ('Beta(.5, .5, .5, 1.5)', Beta(.5, .5, .5, 1.5)),
    ("(('input', 1.), ('layer1', 0.))", (('input', 1.), ('layer1', 0.))), ([3, 2], (3, 2)), (4, 4),
    ('TURNED', Affine(Normal(0, 100, -180, 180), turned=1.)), (' WEAK ', Affine()), ('weak', 'weak'), ('Turned', 'Turned'), ('TURNED.high', 'TURNED.high'),
    (None, None), (Uniform(0, 1), Uniform(0, 1)), ('', ''), ('a b', 'a b'), ('../w.pt', '../w.pt')])
def test_literal(text, value): assert literal(text) == value and type(literal(text)) is type(value)

@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(),
                 st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False))))
def test_a_value_survives_its_text(v): assert literal(repr(v)) == v

@pytest.mark.filterwarnings('ignore::SyntaxWarning')
@given(st.text())
def test_no_text_breaks_literal(text): literal(text)

@pytest.mark.parametrize('text', [
    '__import__("os").system("x")', 'open("x", "w")', 'Uniform(open("x"), 1)', 'Uniform(1)',
    'Uniform.quantile(1)', 'Recipe("x")', 'lambda: 1', '[x for x in y]'])
def test_text_never_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert literal(text) == text and not list(tmp_path.iterdir())

# changing fields

@pytest.mark.parametrize('key, text, get', [
    ('K', '4', lambda r: r.K == 4), ('tau', '-inf', lambda r: r.tau == -math.inf),
    ('tau', '0', lambda r: r.tau == 0 and isinstance(r.tau, float)),
    ('refined', 'False', lambda r: r.refined is False), ('pool', 'mean', lambda r: r.pool == 'mean'),
    ('weak.rotation', 'Uniform(-30, 30)', lambda r: r.weak.rotation == Uniform(-30, 30)),
    ('strong.scale', 'Beta(1, 2, .5, 1.4)', lambda r: r.strong.scale == Beta(1, 2, .5, 1.4)),
    ('weak.rotation.std', '10', lambda r: r.weak.rotation == Normal(0, 10, -60, 60))])
def test_override(key, text, get):
    r = RECIPES['denoise-select']
    q = override(r, key, text)
    assert get(q) and r == RECIPES['denoise-select']
    head = key.split('.')[0]
    assert all(getattr(q, f.name) == getattr(r, f.name) for f in fields(r) if f.name != head)

def test_a_wider_view_needs_a_wider_canvas():
    r = RECIPES['dual-pose']
    wide = override(r, 'strong.scale', 'Uniform(1, 3)')
    assert wide.canvas_margin == r.canvas_margin  # it shows no more than the weak crop does
    assert override(wide, 'strong_cut', 'canvas').canvas_margin >= 3 and override(r, 'weak.scale', 'Uniform(1, 3)').canvas_margin >= 3

def test_perturbations_are_reached_by_name():
    mix = lambda **k: perturbations(recipe('pose-mum-plus', **k)[0])['mix']
    assert mix(**{'mix.group': '2'}).group == 2
    assert mix(**{'mix.tiles': '(6, 4)'}).tiles == (6, 4) and mix().tiles == (3, 2)
    assert mix(**{'mix.stages': [['input', 1.], ['layer1', .2]]}).stages[1][0] == 'layer1'
    r = recipe('mum-jc', **{'jointcutout.n': 3, 'mix.group': 8})[0]
    assert r.student_branches[0][0] == JointCutout(3) and r.student_branches[0][1].group == 8
    r = recipe('denoise-doubt', **{'mix.group': 2})[0]
    assert r.teacher_perturbations[0].group == r.student_branches[0][0].group == 2

def test_paths_from_text():
    r = recipe('dual-pose', student_branches='((JointCutout(n=3), Mix(group=2)), ())')[0]
    assert r.student_branches[0][0] == JointCutout(3) and r.student_branches[0][1].group == 2 and r.student_branches[1] == () and len(r.affines) == 3
    assert recipe('dual-pose', student_branches='((JointCutout(),),)', **{'jointcutout.n': 2})[0].student_branches == ((JointCutout(2),),)

@pytest.mark.parametrize('key, value, says', [
    ('tua', '0.1', 'tau'), ('margni', '0', 'margin'), ('weak.rotatoin', '3', 'rotation'), ('K', '2.5', 'K'),
    ('K', 'many', 'K'), ('K', 'True', 'K'), ('tau', 'nan', 'tau'), ('tau', 'max', 'tau'),
    ('tau', 'True', 'tau'), ('refined', '1', 'refined'), ('pool', 'median', 'pool'), ('pool', '3', 'pool'),
    ('teacher', 'emma', 'ema'), ('student_view', 'fersh', 'fresh'), ('teacher_mode', 'frozen', 'train'),
    ('students', '3', 'students'), ('students', '0', 'students'), ('n_weak', '0', 'n_weak'), ('K', '-1', 'K'),
    ('weak.rotation', '5', 'rotation'), ('drops', '3', 'drops'), ('weak', 'none at all', 'weak'),
    ('K.x', '1', 'K'), ('', '1', 'field')])
def test_override_refuses(key, value, says):
    with pytest.raises(InputError, match=says): override(RECIPES['pose-mum-plus'], key, value)

@pytest.mark.parametrize('name, changes, says', [
    ('dual-pose', {'mix.group': '2'}, 'mix'), ('pose-mum-plus', {'mix.gruop': '2'}, 'group'), ('pose-mum-plus', {'mxi.group': '2'}, 'mix'),
    ('dual-pose', {'student_branches': '(3,)'}, 'student_branches'), ('dual-pose', {'student_branches': '()'}, 'student_branches'), ('dual-pose', {'student_branches': '((4,),)'}, 'Perturbation'),
    ('dual-pose', {'student_branches': 'JointCutot'}, 'student_branches'), ('dual-pose', {'look': '(1,)'}, 'teacher_perturbations'), ('dual-pose', {'students': '3'}, 'selection=uncertainty'),
    ('mum', {'student_branches': '((Mix(), Mix()),)'}, 'twice'), ('mum', {'size': '(100, 64)'}, '32'), ('mum', {'size': '(96,)'}, '32'),
    ('sspcm', {'students': '2'}, '3'), ('sspcm', {'past': 'False'}, 'memories'), ('dual-pose', {'memories': "('year',)"}, 'year'),
    ('dual-pose', {'memories': '(2.,)'}, '2'), ('pseudo-pose', {'memories': "('epoch',)"}, 'frozen'), ('sspcm', {'memories': '(.9,)'}, 'epoch'),
    ('pseudo-pose', {'first': '0'}, 'pretrain_fraction'), ('dual-pose', {'first': '.3'}, 'frozen'), ('dual-pose', {'selection': 'sure'}, 'uncertainty')])
def test_senseless_methods_are_refused(name, changes, says):
    with pytest.raises(InputError, match=says): recipe(name, **changes)

@pytest.mark.parametrize('name, key, value', [
    ('denoise-select', 'K', 'none'), ('denoise-select', 'lam', 'none'),
    ('denoise-select', 'tau', 'Uniform(0, 1)'), ('denoise-select', 'K', 'Uniform(0, 1)'),
    ('denoise-select', 'student_branches', '4'), ('pose-mum-plus', 'teacher_perturbations', 'Uniform(0, 1)'),
    ('denoise-select', 'weak', 'Uniform(0, 1)')])
def test_override_refuses_values_of_another_kind(name, key, value):
    with pytest.raises(InputError, match=key): override(RECIPES[name], key, value)

@pytest.mark.parametrize('key, value', [
    ('lam', -1.), ('decay', 1.5), ('decay', -.1), ('epochs', 0), ('mix.group', 0), ('mix.unmix', 'layer9'),
    ('mix.stages', (('layer9', 1.),)), ('n_unlabelled', 0), ('stride', 3), ('every', 0), ('sigma', 0.),
    ('lr', -1.), ('decode', 'drak'), ('backbone', 'resnet81'), ('n_unlabelled', 6)])
def test_senseless_values_are_refused_before_training(key, value):
    with pytest.raises(InputError): recipe('pose-mum-plus', 'mini', **{key: value})

# a method at a scale

def test_recipe():
    r, p = recipe('pose-mum-plus', 'mini', **{'lam': '2', 'steps': 40, 'mix.group': '2', 'lr': '1e-4',
                                              'size': '(64, 64)', 'weights': 'w.pt'})
    assert (r.lam, p.steps, r.student_branches[0][0].group, p.lr, p.size, p.weights) == (2., 40, 2, 1e-4, (64, 64), 'w.pt')
    assert isinstance(r, Recipe) and isinstance(p, Preset)
    assert recipe('denoise-select')[1] == PRESETS['mini'] and RECIPES['pose-mum-plus'].student_branches[0][0].group == 4

def test_changed_tiles_reach_the_mix(): assert recipe('pose-mum-plus', 'mini', tiles='(6, 4)')[0].student_branches[0][0].tiles == (6, 4)

def test_a_gate_is_one_of_the_scales_and_tau_is_always_itself():
    tau = lambda name, preset='mini', **k: recipe(name, preset, **k)[0].tau
    for preset, taus in (('paper', (0, .1, .2, .3)), ('mini', MINI.taus[1:])):
        assert tuple(tau(n, preset) for n in ('denoise-tau-0', 'denoise-select', 'denoise-tau-0.2', 'denoise-tau-0.3')) == taus
        assert tau('dual-pose', preset) == -math.inf and tau('dual-pose', preset, gate=3) == taus[2]
        assert tau('denoise-select', preset, tau='.1') == .1 == tau('dual-pose', preset, tau=.1)  # the same number at every scale
    assert tau('denoise-select', taus=(0, 0, .5, .6, .7)) == .5

def test_drops_are_shares_and_drop_epochs_are_epochs():
    r, p = recipe('dual-pose', 'mini', drops='(.5, .8)')
    assert p.drops == (.5, .8) and r.drop_epochs == (70, 90)
    r, p = recipe('dual-pose', 'paper', drop_epochs='(10, 20)')
    assert r.drop_epochs == (10, 20) and p.drops == ()
    with pytest.raises(InputError, match='drop_epochs'): recipe('dual-pose', 'paper', drops='(10, 20)')

@pytest.mark.parametrize('args, changes, says', [
    (('denoise-selct',), {}, 'denoise-select'), (('supervised', 'minni'), {}, 'mini'),
    (('supervised',), dict(stpes=3), 'steps'), (('supervised',), dict(tua=1), 'tau'),
    (('supervised',), {'waek.scale': 1}, 'weak'), (('xyz',), {}, 'supervised'),
    (('supervised',), dict(steps='few'), 'steps')])
def test_recipe_refuses(args, changes, says):
    with pytest.raises(InputError, match=says): recipe(*args, **changes)

def test_fits():
    good = [(float, 1., 2.), (int, 1, 2), (str, 'a', 'b'), (tuple, (1,), ()),
            (object, Uniform(0, 1), Normal(0, 1, 0, 1)),
            (float | None, None, .5)]
    bad = [(int, 1, 2.), (int, 1, True), (bool, True, 1), (str, 'a', 1), (float, 1., 'a'), (tuple, (1,), 1),
           (float, 1., None),
           (object, Uniform(0, 1), 3.)]
    assert all(fits(*x) for x in good) and not any(fits(*x) for x in bad)

# what a run remembers

@pytest.mark.parametrize('preset', PRESETS)
@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_and_its_scale_survive_json(name, preset):
    r, p = recipe(name, preset)
    again = lambda v: json.loads(json.dumps(as_plain(v)))
    assert revived(Recipe, again(r)) == replace(r, rows=()) and revived(Preset, again(p)) == p

def test_a_run_of_the_first_miniature_is_what_it_was():
    "Its fields have other names today, and its scale other numbers."
    d = json.loads((home()/'data/results/first/denoise-select-people-100-s0.json').read_text())
    r, p = remembered(d)
    assert (r.tau, r.strong_cut, r.student_view, r.strong.rotation, r.K) == (.7, 'canvas', 'pooled', Uniform(-45, 45), 2)
    assert (p.size, p.sigma, p.width, p.steps, p.n_labelled) == ((96, 64), 1.5, 48, 900, 16)

def test_former_names_mean_what_they_meant():
    old, _ = recipe('sspcm', 'tiny', sees='weak', paths='((Mix(),),)', teacher_bn='batch', first='0')
    new, _ = recipe('sspcm', 'tiny', student_view='weak', student_branches='((Mix(),),)', teacher_mode='train', pretrain_fraction='0')
    assert old == new == recipe('sspcm', 'tiny', previous_teachers=True, student_view='weak', student_branches='((Mix(),),)')[0]
    assert recipe('dual-pose', 'tiny', past='True')[0].memories == ('epoch',)
    assert recipe('denoise-select', 'tiny', selection='surer')[0].selection == 'uncertainty'

def test_a_damaged_description_is_one_sentence():
    r, p = map(as_plain, recipe('mum'))
    for spoil in (dict(weak={'kind': 'Secret'}), dict(weak={'rotation': 1}), dict(students='two'), dict(student_branches=[[{'kind': 'Mix', 'group': 0}]])):
        with pytest.raises(InputError): remembered(dict(config={}, recipe={**r, **spoil}, preset=p))
