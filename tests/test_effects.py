"Sizes beside the papers' against scipy and hand-made runs; questions that leave no claim out."
import re
from statistics import mean, stdev
import pytest
from hypothesis import given, strategies as st
from scipy import stats
from sshpe.experiments import effects, paper_claims
from sshpe.experiments.effects import ablations, bar, BY_CONSTRUCTION, by_question, changed, counted, effect, nearness, paper_share, QUESTIONS, SIZED, way
from sshpe.experiments.paper_claims import claims, of_same_runs, report, verdicts
from sshpe.experiments.summaries import evidence, first_ledger
from sshpe.experiments.sweep import plan
from test_ledger import fake

NOTHING = verdicts([])

def test_an_ensemble_against_its_own_members_and_nothing_else_holds_by_construction():
    ours = {c.id for c in claims() if of_same_runs(c)}
    member = lambda c: len(c.better) == len(c.worse) == 1 and c.better[0].row.replace('-Ensemble', '') == c.worse[0].row != c.better[0].row
    assert ours == {c.id for c in claims() if member(c) and c.better[0].column == c.worse[0].column} and len(ours) == 20

def test_every_claim_has_a_question_and_every_question_claims():
    rows = by_question(effects.effects(NOTHING))
    assert [r['question'] for r in rows] == list(QUESTIONS) and sum(r['claims'] for r in rows) == len(claims())
    asked = {c.id: effects.question(c) for c in claims()}
    for c in claims():
        if re.search('AIC too', c.better[0].row) and 'AIC' not in c.worse[0].row: assert asked[c.id] == 'more unlabelled people'
        if {x.recipe for x in c.worse} == {'supervised'}: assert asked[c.id] == 'unlabelled people against none'

def claim(gap, d, margin=None):
    "A ledger's row with these differences."
    v = next(v for v in NOTHING if v['gap'] and v['margin'] is None and not v['by_construction'])
    return {**v, 'gap': gap, 'differences': d, 'margin': margin, 'verdict': paper_claims.verdict(d, margin)}

numbers = st.lists(st.floats(-3, 3).map(lambda x: round(x, 2)), min_size=2, max_size=6).filter(lambda x: len(set(x)) > 1)

@given(st.sampled_from([.3, 1., 4., 12.]), numbers)
def test_ratios_and_level_are_t_tests(gap, d):
    e, t = effect(claim(gap, d)), stats.ttest_1samp(d, 0)
    low, high = t.confidence_interval(.95)
    assert (e['ratio'], e['ratio_low'], e['ratio_high']) == pytest.approx((sum(d)/len(d)/gap, low/gap, high/gap), abs=2e-3)
    m = max(gap/4, .5)
    assert bar(gap) == m
    small = max(stats.ttest_1samp(d, -m, alternative='greater').pvalue, stats.ttest_1samp(d, m, alternative='less').pvalue)
    if abs(small-.05) > 1e-9: assert (e['verdict'] == 'level') == (small < .05)
    if e['verdict'] != 'level': assert e['verdict'] == paper_claims.verdict(d)

def test_what_was_not_run_once_or_is_a_claim_of_likeness_keeps_its_verdict():
    none, one, like = (effect(claim(2., d, m)) for d, m in (([], None), ([1.], None), ([.1, .12, .11], 2.)))
    assert (none['verdict'], none['ratio']) == ('not run', None)
    assert (one['verdict'], one['ratio'], one['ratio_low']) == ('open', .5, None) and like['verdict'] == 'confirmed'

def ledger(seeds=3):
    shift, AP = [0., 4., -2.], {'supervised': 20., 'dual-pose': 23., 'denoise-select': 30., 'multi-view': 23.1, 'multi-view-refine': 23.2}
    return [fake(r, s, v+shift[s]+.05*s) for r, v in AP.items() for s in range(seeds)]+[fake('supervised', s, 40.+.1*s, labels=1000) for s in range(seeds)]

def test_few_seeds_are_judged_by_the_noise_of_all_runs():
    "One seed of a method; the noise is that of ten runs of two others, four of them with seeds for tuning."
    wobble = [.3, -.2, .1, .4, -.5]
    runs = [fake(r, s, v+x*sign+3.*(s > 2)) for r, v, sign in (('supervised', 20., 1), ('multi-view', 22., -1)) for s, x in zip((0, 1, 2, 100, 101), wobble)]
    d = {s: runs[i]['networks']['student']['AP_box']-mean(runs[i+5]['networks'][f'student{k}']['AP_box'] for k in (1, 2)) for i, s in enumerate((0, 1, 2, 100, 101))}
    sd, df = stdev(d.values())/2**.5, 4 # of one run; all else is explained by the two methods and the five draws
    half, near = (stats.t.ppf(q, df)*sd*2**.5 for q in (.975, .95))
    for AP in (30., 20.9, 20.31, 12.):
        (v,) = (v for v in verdicts(runs+[fake('dual-pose', 0, AP)]) if v['claim'] == 'DualPose A > Supervised, 1K')
        e, ours = effect(v), AP-20.3
        assert (e['ratio_low'], e['ratio_high']) == pytest.approx(((ours-half)/v['gap'], (ours+half)/v['gap']), abs=2e-3)
        small = -bar(v['gap']) < ours-near and ours+near < bar(v['gap'])
        assert e['verdict'] == ('level' if small else 'confirmed' if ours > half else 'contradicted' if ours < -half else 'open')

def test_ensembles_are_counted_with_nobody():
    found = effects.effects(verdicts(ledger()))
    ran = [e for e in found if e['verdict'] != 'not run']
    own = [e for e in ran if e['question'] == BY_CONSTRUCTION]
    assert own and all(e['by_construction'] for e in own) and set(counted(found)) == set(SIZED)
    assert sum(counted(found).values()) == len(claims())-20 and counted(found)['not run'] == len(claims())-20-len(ran)+len(own)
    said = report(verdicts(ledger()))
    assert 'not counted: 20' in said and f'not run {counted(found)["not run"]}' in said

def test_how_near_our_differences_are():
    "Two of three claims have the paper's sign; the distances are 1, 4 and 2. What has no runs or no figure in the paper is not counted."
    said = [dict(differences=d, gap=g) for d, g in (([2., 4.], 2.), ([-3.], 1.), ([-1.], -3.), ([], 5.), ([1.], None), ([1.], 0.))]
    assert nearness(said) == dict(claims=3, sign=2, off=2.) and nearness(said[3:]) == dict(claims=0, sign=0, off=None)

def test_every_committed_claim_has_a_verdict():
    "Some have one seed, some compare for likeness, some have runs of one seed and nothing that tells the noise."
    for runs in (evidence(), first_ledger(), [fake('denoise-select', 0, 20.), fake('dual-pose', 0, 19.)]):
        found = effects.effects(verdicts(runs))
        assert {e['verdict'] for e in found} <= set(SIZED) and any(e['verdict'] == 'open' for e in found)

def test_ablations_are_the_claims_of_three_tables():
    runs = [fake(r, 0, v) for r, v in (('dual-pose-eval', 20.), ('multi-view', 22.), ('multi-view-refine', 21.))]
    said = {e['claim']: e['differences'] for e in ablations(effects.effects(verdicts(runs)))}
    assert len(said) == sum(c.paper == 'denoise' and c.table in ('Table 4', 'Table 6', 'Table 7') for c in claims())
    assert said['+ multi-view > DualPose'] == pytest.approx([2.]) and said['+ threshold-and-refine > + multi-view'] == pytest.approx([-1.])

def test_the_way_is_what_a_method_wins_over_what_all_labels_win():
    rows = {r['method']: r for r in way(ledger())}
    length = (40+40.1+40.2)/3-sum(20+x for x in (0, 4.05, -1.9))/3
    assert rows['denoise-select']['percent'] == pytest.approx(100*10/length, abs=.06) and 'supervised' not in rows
    assert (rows['dual-pose']['seeds'], rows['dual-pose']['end']) == (3, 1000) and list(rows)[0] == 'denoise-select'
    assert way(ledger(1))[0]['low'] is None and way(ledger(), 500) == [] == way([]) and way([d for d in ledger() if d['config']['labels'] == 100]) == []

def test_the_papers_share_is_theirs():
    "ResNet-50: 49.31 with 5K labels, 60.67 by the method, 70.9 with all."
    assert paper_share('denoise-select', 500) == pytest.approx(100*(60.67-49.31)/(70.9-49.31), abs=.06)
    assert paper_share('denoise-select', 100) is paper_share('supervised', 500) is paper_share('mum', 500) is None

def test_changes_are_verdicts_that_differ():
    before, after = effects.effects(verdicts(ledger())), effects.effects(verdicts([d if 'denoise' not in d['run'] else fake('denoise-select', d['config']['seed'], 5.) for d in ledger()]))
    rows, old = changed(after, before), {e['id']: e['verdict'] for e in before}
    assert {r['claim'] for r in rows} == {e['claim'] for e in after if e['verdict'] != old[e['id']]} and len(rows) > 1
    assert changed(before, before) == [] == changed(after, effects.effects(NOTHING))

def test_rows_of_a_column_are_of_the_same_draws():
    runs = [fake('pose-cons', s, AP) for s, AP in enumerate((40., 20., 30.))]+[fake('mum', 0, 41.), fake('mum', 2, 32.)]
    rows = {r['ours']: r['AP'] for r in paper_claims.beside(runs, 'pose-mum', 'Table 3')}
    assert rows['pose-cons'].endswith('| 35.0 ± 7.1 (2)') and rows['mum'].endswith('| 36.5 ± 6.4 (2)') and rows['pose-mum'].endswith('| –')
    apart = [fake('pose-cons', 1, 20.), fake('mum', 0, 41.)] # no draw is shared: what there is
    assert [r['AP'].rpartition('| ')[2] for r in paper_claims.beside(apart, 'pose-mum', 'Table 3') if r['ours'] in ('pose-cons', 'mum')] == ['20.0 (1)', '41.0 (1)']

def test_the_picture_shows_what_has_run():
    assert effects.picture(effects.effects(NOTHING)) is None
    names = [t.get_text() for t in effects.picture(effects.effects(verdicts(ledger()))).axes[0].get_yticklabels()]
    assert any('by construction' in t for t in names) and all(t.rpartition(' (')[0] in QUESTIONS for t in names)

def test_the_grid_of_new_ideas():
    names = {(j.config.recipe, j.config.labels, j.config.seed) for j in plan('since-mini')}
    new = {'curriculum', 'small-loss', 'reviewer', 'foreign', 'style'}
    assert {(r, 100, s) for r in new for s in range(3)} <= names and {s for *_, s in names} == {0, 1, 2}
