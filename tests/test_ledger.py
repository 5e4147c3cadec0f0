"""The ledger: complete, true to the papers, and right about chance; the small files it reads."""
import csv, json, math
from collections import Counter
from itertools import product

import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from sshpe.experiments import effects, paper_claims, summaries
from sshpe.runs import command, run
from sshpe.errors import InputError
from sshpe.cli import main, parser
from sshpe.runs.command import config_of
from sshpe.experiments.paper_claims import cells, claims, detectable, noise, pooled, verdict
from sshpe.ssl.methods import RECIPES
from sshpe.ssl.recipe import PRESETS
from sshpe.runs.training import settle

TABLES = {('denoise', 'Table 1'): (48, 63), ('denoise', 'Table 2'): (14, 9), ('denoise', 'Table 3'): (8, 10), ('denoise', 'Table 4'): (4, 4), ('denoise', 'Table 5'): (12, 8),
          ('denoise', 'Table 6'): (7, 11), ('denoise', 'Table 7'): (8, 11), ('denoise', 'Figure 4'): (7, 1), ('denoise', 'Figure 5'): (12, 7), ('pose-mum', 'Table 1'): (4, 3),
          ('pose-mum', 'Table 2'): (4, 6), ('pose-mum', 'Table 3'): (8, 12), ('pose-mum', 'Table 4'): (10, 9), ('pose-mum', 'Table 5'): (12, 6), ('pose-mum', 'Figure 3'): (6, 3), ('pose-mum', 'Figure 4'): (9, 4)}


# what the papers print as differences, in tables' brackets and in their text
PRINTED = {('Ours A', 'DualPose A'): '7.22 4.73 4.26 2.28 0.74', ('Ours-Ensemble A', 'DualPose-Ensemble A'): '7.28 4.65 3.77 2.25 0.38',
           ('Ours A+JC', 'DualPose A+JC'): '5.24 2.61 2.58 1.52 1.11', ('Ours-Ensemble A+JC', 'DualPose-Ensemble A+JC'): '5.50 2.51 2.06 1.30 0.77',
           ('+ multi-view', 'DualPose'): '2.24', ('+ threshold-and-refine', '+ multi-view'): '1.58', ('+ selection', 'DualPose'): '5.3', ('1 weak + K strong, max', '(1+K) weak, max'): '1.17',
           ('ResNet50 Ours', 'ResNet50 Supervised'): '3.2', ('ResNet50 Ours, AIC too', 'ResNet50 Ours'): '0.8 1.4', ('Pose-MUM-AT', 'MUM'): '0.62', ('Pose-MUM', 'Supervised Baseline'): '14.98',
           ('Pose-MUM', 'JC Augment-s'): '4.38', ('EMAN 0.6', 'Pose-MUM'): '0.42', ('Pose-MUM+, ResNet-101', 'JC Augment-s, ResNet-101'): '2.08 4.02 2.33'}


def test_every_table_is_there():
    assert {k: (n, m) for k, n in Counter(k[:2] for k in cells()).items() for m in [sum((c.paper, c.table) == k for c in claims())]} == TABLES
    assert len({(c.paper, c.table, c.better, c.worse, c.margin) for c in claims()}) == len(claims()) and len({c.id for c in claims()}) == len(claims())


def test_figures_are_the_papers():
    for (a, b), gaps in PRINTED.items():
        found = [c.gap for c in claims() if len(c.better) == 1 and (c.better[0].row, c.worse[0].row) == (a, b)]
        assert found == [pytest.approx(float(g)) for g in gaps.split()], (a, b)
    gain = {c.better[0].column: c.gap for c in claims() if c.table == 'Table 2' and len(c.better) == 1 and c.margin is None}
    assert gain['Wrist'] == pytest.approx(8.1) == max(gain.values()) and gain['Head'] == pytest.approx(1.8) == min(gain.values())
    assert all(c.gap > 0 for c in claims() if c.gap is not None)


def test_every_cell_can_be_run():
    stands = {}
    for c in cells().values():
        assert c.recipe in RECIPES and c.network in ('student', 'ensemble', 'teacher')
        settle(run.config(dict(recipe=c.recipe, preset='paper', data='coco', **command.pairs(c.settings.split()))))
        if c.mini: r, _ = settle(paper_claims.cell_config(c))
        else: assert c.note
        if c.mini and c.network == 'ensemble': assert r.students == 2
        stands.setdefault(c.paper, set()).add(c.recipe)
    for r in RECIPES.values():   # and each recipe that says it stands for a table is there
        for row in r.rows:
            if (row.paper, row.table) in TABLES: assert r.name in stands[row.paper], (r.name, row)


def test_shipped_grids_hold_every_run_of_the_ledger():
    from sshpe.experiments.sweep import plan
    planned = {j.where.name for g in ('tables-mini', 'main-mini') for j in plan(g)}
    left = {paper_claims.setting_of(c) for c in cells().values() if c.mini and summaries.name(paper_claims.cell_config(c)) not in planned}
    assert left == {f'{r}+K={k}-people-100' for r in ('denoise-select', 'multi-view-refine') for k in (3, 6, 8)}   # of the figure, but of no claim


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12).filter(lambda x: np.std(x) > 1e-3))
def test_interval_is_a_t_test(x):
    m, low, high = summaries.interval(x)
    truth = stats.ttest_1samp(x, 0)
    assert np.allclose((m, low, high), (np.mean(x), *truth.confidence_interval(.95)))
    assert (verdict(x) == 'open') == (truth.pvalue > .05) or abs(truth.pvalue-.05) < 1e-6
    assert verdict([-v for v in x]) == dict(confirmed='contradicted', contradicted='confirmed', open='open')[verdict(x)]


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8).filter(lambda x: np.std(x) > 1e-3), st.floats(.5, 5))
def test_similar_is_two_one_sided_tests(x, margin):
    above, below = (stats.ttest_1samp(x, e, alternative=a).pvalue for e, a in ((-margin, 'greater'), (margin, 'less')))
    worst = max(above, below)
    if abs(worst-.05) > 1e-6: assert (verdict(x, margin) == 'confirmed') == (worst < .05)
    low, high = stats.ttest_1samp(x, 0).confidence_interval(.95)
    if low > margin or high < -margin: assert verdict(x, margin) == 'contradicted'


def test_one_seed_or_none_decides_nothing():
    assert verdict([5.]) == 'open' and verdict([]) == 'not run' and detectable(1, 1) == math.inf
    assert summaries.interval([5.]) == (5., -math.inf, math.inf)


@pytest.mark.parametrize('n', [3, 4, 5, 10])
def test_detectable_is_found_in_80_of_100(n):
    d, edge = detectable(2., n)*math.sqrt(n)/2, stats.t.ppf(.975, n-1)
    assert stats.nct.sf(edge, n-1, d)+stats.nct.cdf(-edge, n-1, d) == pytest.approx(.8, abs=1e-4)
    x = np.random.default_rng(n).normal(detectable(2., n), 2., (20000, n))
    assert (stats.ttest_1samp(x, 0, axis=1).pvalue < .05).mean() == pytest.approx(.8, abs=.012)


def trial(rng, settings=12, seeds=5, sd=1., holes=.3):
    "Runs with a level for each setting, a shift for each draw that all share, and noise; some runs are missing."
    level, shift = rng.normal(20, 5, settings), rng.normal(0, 3, (2, seeds))
    return {(f'r{i}', i%2): {s: level[i]+shift[i%2, s]+rng.normal(0, sd) for s in range(seeds) if rng.random() > holes} for i in range(settings)}, level


def test_noise_is_what_is_left():
    rng = np.random.default_rng(0)
    full, _ = trial(rng, holes=0)
    sd, df = noise(full)
    Y = np.array([list(x.values()) for x in full.values()])
    rest = sum(((Z-Z.mean(0)-Z.mean(1, keepdims=True)+Z.mean())**2).sum() for Z in (Y[::2], Y[1::2]))   # two balanced blocks in closed form
    assert df == 2*(6-1)*(5-1) and sd == pytest.approx(math.sqrt(rest/df))
    assert np.mean([noise(trial(rng)[0])[0]**2 for _ in range(300)]) == pytest.approx(1, abs=.05)
    assert noise({}) [1] == 0 and noise({('a', 1): {0: 3.}})[1] == 0


def test_pairs_are_of_the_same_seed():
    x, y = {0: 5., 3: 7., 1: 6.5}, {3: 4., 2: 9., 1: 6., 0: 3.}
    low, high = stats.ttest_rel([5, 6.5, 7], [3, 6, 4]).confidence_interval(.95)
    assert summaries.paired(x, y) == [2, .5, 3] and summaries.paired(x, {}) == []
    assert summaries.spoken(summaries.paired(x, y)) == f'+1.8 ({low:+.1f} … {high:+.1f}; 3 seeds)'
    assert summaries.spoken([-.26]) == '-0.3 (1 seed)' and summaries.spoken([]) == 'not run yet'


def test_pooled_intervals_hold_the_truth():
    rng, hits, narrower = np.random.default_rng(1), [], []
    for _ in range(600):
        x, level = trial(rng)
        a, b = x['r0', 0], x['r2', 0]
        d = [a[s]-b[s] for s in set(a) & set(b)]
        if len(d) < 2: continue
        low, high = pooled(d, *noise(x))
        hits.append(low <= level[0]-level[2] <= high)
        narrower.append(high-low < np.subtract(*summaries.interval(d)[:0:-1]))
    assert np.mean(hits) == pytest.approx(.95, abs=.03) and np.mean(narrower) > .7


def fake(recipe, seed, AP, labels=100, PCK=60., extra=''):
    nets = ('student1', 'student2') if RECIPES[recipe].students == 2 else ('student',)
    scores = {k: dict(AP_box=AP, PCK=PCK, PCK_meta={}) for k in nets} | ({'ensemble': dict(AP_box=AP+1, PCK=PCK)} if len(nets) == 2 else {})
    c = dict(recipe=recipe, labels=labels, seed=seed, preset='mini')
    made = dict(zip(('recipe', 'preset'), map(run.as_plain, settle(run.config(c)))))
    return json.loads(json.dumps(dict(run=f'{recipe}{extra}-people-{labels}-s{seed}', config=c, **made, networks=scores, curve=dict(lr=[]), seconds=1.)))


def test_verdicts_are_paired_by_seed():
    shift = [0, 10, -10, 4]
    found = [fake(r, s, 20+shift[s]) for r in ('dual-pose', 'dual-pose-eval') for s in range(4)] + [fake('multi-view', s, 22+shift[s]+.1*s) for s in range(4)]
    found += [fake('multi-view', 9, 99.), fake('supervised', 100, 1.)]
    v = paper_claims.verdicts(found, 'denoise', 'Table 4')[0]
    assert v['claim'] == '+ multi-view > DualPose' and v['seeds'] == [0, 1, 2, 3] and v['mean'] == pytest.approx(2.15, abs=1e-3)
    assert v['verdict'] == 'confirmed' and v['gap'] == pytest.approx(2.24) and v['network'] == 'ensemble' and v['measure'] == 'AP_box'
    single = next(v for v in paper_claims.verdicts(found, 'denoise', 'Table 1') if v['claim'] == 'DualPose-Ensemble A > DualPose A, 1K')
    assert single['mean'] == pytest.approx(1) and single['pooled'] == ''   # networks of the same run share their noise
    none = next(v for v in paper_claims.verdicts(found, 'denoise', 'Table 1') if v['claim'] == 'DualPose A > Supervised, 1K')
    assert none['verdict'] == 'not run'   # a seed for tuning is no evidence
    assert none['commands'] == [f'sshpe train --recipe supervised --labels 100 --seed {s} --out runs/mini/supervised-people-100-s{s}' for s in range(3)]


def test_a_contrast_of_four():
    values = {('denoise-select', 50): 30., ('dual-pose', 50): 22., ('denoise-select', 1000): 41., ('dual-pose', 1000): 40.}
    found = [fake(r, s, v+s*(n == 50), n, extra='+steps=10800'*(n == 1000)) for (r, n), v in values.items() for s in range(3)]
    v = next(v for v in paper_claims.verdicts(found, 'denoise', 'Table 1') if 'larger with 0.5K' in v['claim'] and 'A+JC' not in v['claim'])
    assert v['mean'] == pytest.approx(8-1) and v['gap'] == pytest.approx(7.22-.74)


def test_what_the_mini_scale_lacks_has_the_papers_command():
    v = next(v for v in paper_claims.verdicts([]) if v['claim'] == 'HRNetW48 Ours > HRNetW48 Supervised')
    words = v['commands'][0].split()
    assert v['verdict'] == 'not run' and words[:2] == ['sshpe', 'train'] and 'backbone=hrnet_w48' in words and 'paper' in words and v['scale'] == 'not at the mini scale'


def test_commands_are_the_command_lines():
    import shlex
    said, p = paper_claims.verdicts([]), parser()
    assert all(v['commands'] and v['verdict'] == 'not run' for v in said)
    for text in {t for v in said for t in v['commands'] if '--seed 0' in t}: settle(config_of(p.parse_args(shlex.split(text)[1:])))


@pytest.mark.parametrize('recipe, more', [('supervised', {}), ('denoise-select', dict(seed=7, labels=0, override={'K': 4, 'strong.rotation': 'Uniform(-30,30)', 'drops': (.5, .8)})),
                                          ('mum', dict(unlabelled='rest+people:wild', steps=5, data='coco', root='some folder'))])
def test_words_say_the_run(recipe, more):
    c = run.config(dict(recipe=recipe, **more))
    assert config_of(parser().parse_args(command.words(c))) == c


def test_names_tell_runs_apart():
    cs = [run.config(dict(recipe=r, labels=n, seed=s, override=o, unlabelled=u, weights=w)) for r, n, s, o, u, w in
          product(('supervised', 'pose-mum'), (0, 100), (0, 10), ({}, {'K': 4}, {'K': 4, 'tau': .2}), ('', 'rest+people:wild'), ('', 'imagenet', 'a folder/wild.safetensors'))]
    assert len({summaries.name(c) for c in cs}) == len(cs) and summaries.name(cs[0]) == run.folder(cs[0]).name
    assert summaries.setting(run.config(dict(seed=3))) == summaries.setting(run.config(dict(seed=4)))
    for c in cs: # what is kept of a file's name says the run, too
        kept = {**summaries.public(run.as_json(c)), 'unlabelled': c.unlabelled}
        assert 'folder' not in str(kept) and summaries.name(run.config(kept)) == summaries.name(c)


def test_small_files(done, tmp_path):
    import shutil
    c = run.again(done.where)
    home = tmp_path/'runs'/summaries.name(c); shutil.copytree(done.where, home); shutil.copytree(done.where, tmp_path/'runs/other')
    said = summaries.collect(tmp_path/'runs', tmp_path/'small')
    assert said[home.name] == 'written' and 'parameters are those of' in said['other'] and summaries.collect(tmp_path/'runs', tmp_path/'small')[home.name] == 'known'
    [d] = summaries.summaries(tmp_path/'small')
    text = (tmp_path/'small'/f'{home.name}.json').read_text()
    assert len(text) < 15000 and str(c.root) not in text and str(tmp_path) not in text and json.loads(text) == d
    m = run.read(done.where/'metrics.json')
    assert summaries.measured(d, 'PCK') == pytest.approx(np.mean([m['networks'][k]['PCK'] for k in ('student1', 'student2')]), rel=1e-4)
    assert summaries.measured(d, 'PCK', 'ensemble') == pytest.approx(m['networks']['ensemble']['PCK'], rel=1e-4) and summaries.measured(d, 'PCK', 'teacher') is None
    assert [x for x in d['curve']['step']] == [r['step'] for r in run.read_log(done.where/'log.csv')]
    ankles = [m['strong_by_joint'][j] for j in (15, 16)]
    assert summaries.measured(d, 'strong.ankle') == pytest.approx(50*sum(ankles), rel=1e-4)
    assert 'elsewhere' not in d
    there = home/'evaluate/lspet-val'; there.mkdir(parents=True)
    (there/'metrics.json').write_text(json.dumps(dict(data='lsp-val', people=2, networks=dict(student1=dict(AP=None, PCK=12.5)))))
    assert summaries.collect(tmp_path/'runs', tmp_path/'small')[home.name] == 'written'
    assert summaries.summaries(tmp_path/'small')[0]['elsewhere'] == {'lspet-val': dict(student1=dict(AP=None, PCK=12.5))}
    [d] = summaries.summaries(tmp_path/'small')
    assert summaries.measured(summaries.scored_on(d, 'lspet-val'), 'PCK') == 12.5 and summaries.scored_on(d, 'coco-val') == d
    (tmp_path/'small/x.json').write_text('{"run": 3}')
    with pytest.raises(InputError, match='x.json'): summaries.summaries(tmp_path/'small')


def test_runs_of_an_older_definition_are_no_evidence(tmp_path):
    new, old, older = (fake('denoise-select', s, 20.) for s in range(3))
    old['recipe']['strong']['rotation'] = {'kind': 'Uniform', 'low': -30, 'high': 30}
    older['recipe'].pop('teacher_perturbations'); older['preset'].pop('norm', None)   # fields that did not exist yet had their default
    for d in (new, old, older): (tmp_path/f'{d["run"]}.json').write_text(json.dumps(d))
    assert [summaries.outdated(d) for d in (new, old, older)] == [[], ['strong'], []]
    assert [d['config']['seed'] for d in summaries.summaries(tmp_path)] == [0, 2]


def test_unrest_and_level():
    lr = [1.]*6+[.1]*5
    d = dict(curve=dict(lr=lr, lam=[0, .5]+[1]*9, labelled=[8, 9, 4, 4, 2, 3, 1, 2, 1, 2, 1], right_kept=[None, None, .5, .6, .7, .8, .5, .5, .7, .5, .5]))
    assert summaries.measured(d, 'late.right_kept') == pytest.approx(100*(.1+.2+.1)/3)
    assert summaries.measured(d, 'early.right_kept') == pytest.approx(0, abs=1e-9)   # a straight line has none
    assert summaries.measured(d, 'late.labelled') == pytest.approx(100*1/1.4)
    assert summaries.measured(d, 'level.labelled') == pytest.approx(100*3/8) and summaries.measured(d, 'late.own') is None


@given(st.floats(1, 60), st.lists(st.floats(1, 60), min_size=2, max_size=5, unique=True))
@settings(max_examples=100)
def test_worth_lies_where_the_curve_is(score, levels):
    sizes = [50*2**i for i in range(len(levels))]
    curve = dict(zip(sizes, sorted(levels)))
    n = summaries.labels_needed(score, curve)
    if score < min(levels): assert n == 0
    elif score > max(levels): assert n == math.inf
    else: assert np.interp(math.log(n), np.log(sizes), sorted(levels)) == pytest.approx(score, abs=1e-6)


def test_command_line(capsys, tmp_path):
    for r, AP in (('dual-pose-eval', 20.), ('multi-view', 25.)):
        for s in range(3): (tmp_path/f'{r}-people-100-s{s}.json').write_text(json.dumps(fake(r, s, AP+s/10)))
    assert main(['claims', '--json', '--results', str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert len(said) == len(claims()) and all({'paper', 'table', 'claim', 'gap', 'verdict', 'scale', 'commands', 'network', 'measure'} <= set(v) for v in said)
    assert main(['claims', '--verdict', 'confirmed', '--table', 'Table 4', '--results', str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert '+ multi-view > DualPose' in out and 'mini: ' in out
    assert main(['claims', '--paper', 'denoize']) == 2 and "'denoise'" in capsys.readouterr().err


def test_committed_results_are_evidence():
    found = summaries.summaries()
    for d in found:
        assert d['config']['seed'] in summaries.SEEDS and d['config']['preset'] == 'mini'
        assert d['steps'] == d['preset']['steps'] == (d['config']['steps'] or PRESETS['mini'].steps) and ('+steps=' in d['run']) == bool(d['config']['steps'])
        assert d['run'] == summaries.name(run.config({**d['config'], 'unlabelled': d['config']['unlabelled'].replace('people-wild', 'people:wild')}))


def test_both_sides_of_a_claim_train_for_as_long():
    "With 500 labels and more three times as long as the preset."
    steps = lambda x: paper_claims.cell_config(x).steps if x.mini else None
    for c in claims():
        if len(c.better) == len(c.worse) == 1: assert steps(c.better[0]) == steps(c.worse[0]), c
    asked = {(k.labels >= 500, k.steps) for k in (paper_claims.cell_config(c) for c in cells().values() if c.mini)}
    assert asked == {(False, 0), (True, 3*PRESETS['mini'].steps)}


def test_the_command_says_what_the_pages_say(capsys):
    "The noise that judges single seeds comes from all committed runs, the ladder's included."
    assert main(['claims', '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert [v['verdict'] for v in said] == [v['verdict'] for v in effects.effects(paper_claims.verdicts(summaries.evidence()))]
    assert {d['config']['seed'] >= 100 for d in summaries.evidence()} == {False, True}
