"Every row of every table is a method that can be run; methods differ where the papers say so."
import math
from dataclasses import fields
import numpy as np, pytest
from sshpe.errors import InputError
from sshpe.pose.views import WEAK
from sshpe.ssl.methods import BASES, difference, HARD, method, recipe, RECIPES
from sshpe.ssl.mum import Mix
from sshpe.ssl.occlusion import JointCutout
from sshpe.ssl.recipe import at_scale, literal, PAPER, Recipe
from sshpe.runs.run import Config

ROWS = [(n, row) for n, r in RECIPES.items() for row in r.rows]
TABLES = {'denoise': {f'Table {i}' for i in range(1, 8)} | {'Figure 4', 'Figure 5'}, 'pose-mum': {f'Table {i}' for i in range(1, 6)}}

def of(paper, table): return {row.row: (name, row.settings) for name, row in ROWS if (row.paper, row.table) == (paper, table)}

def test_every_table_is_there():
    for paper, tables in TABLES.items(): assert tables <= {row.table for _, row in ROWS if row.paper == paper}

@pytest.mark.parametrize('paper, table, n', [('denoise', 'Table 4', 4), ('denoise', 'Table 6', 7), ('denoise', 'Table 7', 8), ('denoise', 'Figure 5', 12),
                                             ('pose-mum', 'Table 1', 4), ('pose-mum', 'Table 2', 4), ('pose-mum', 'Table 3', 8), ('pose-mum', 'Table 4', 11)])
def test_every_row_is_there(paper, table, n):
    rows = of(paper, table)
    assert len(rows) == n and len(set(rows.values())) == n, 'one method and setting for each row'

@pytest.mark.parametrize('name', RECIPES)
def test_settings_of_rows_are_parameters(name):
    config = {f.name for f in fields(Config)}
    for row in RECIPES[name].rows:
        given = dict(x.split('=', 1) for x in row.settings.split())
        assert int(given.get('labels', 0)) >= 0
        r, p = at_scale(RECIPES[name], PAPER, **{k: literal(v) for k, v in given.items() if k not in config | {'unlabelled'}})
        if 'epochs' in given: assert r.epochs == int(given['epochs']) > max(r.drop_epochs)

def test_no_row_stands_twice():
    seen = [(row.paper, row.table, row.row) for _, row in ROWS]
    assert len(set(seen)) == len(seen)

def changes(a, b): return set(difference(RECIPES[a], RECIPES[b])) - {'epochs', 'drop_epochs'}

@pytest.mark.parametrize('a, b, what', [
    ('dual-pose', 'dual-pose-eval', {'teacher_mode'}), ('dual-pose-eval', 'multi-view', {'K', 'strong', 'strong_cut'}),
    ('multi-view', 'multi-view-refine', {'gate', 'refined'}), ('multi-view-refine', 'denoise-select', {'margin'}),
    ('pose-cons', 'pose-cons-ema-0.6', {'teacher'}), ('pose-cons-ema-0.6', 'pose-cons-eman-0.6', {'teacher', 'teacher_mode'}), ('pose-cons', 'mum', {'student_branches'}),
    ('pose-mum-at', 'pose-mum', {'student_view'}), ('pose-mum', 'pose-mum-plus', {'teacher', 'teacher_mode'}), ('pose-mum-plus', 'pose-mum-plus-0.9', {'decay'}),
    ('pseudo-pose', 'data-distill', {'n_weak', 'pool'}), ('denoise-select', 'denoise-mum', {'student_branches'}), ('denoise-mum', 'denoise-doubt', {'teacher_perturbations'})])
def test_neighbours_differ_in_what_the_table_is_about(a, b, what): assert changes(a, b) == what

def test_no_two_methods_are_the_same():
    names = list(RECIPES)
    assert not [(a, b) for i, a in enumerate(names) for b in names[:i] if not changes(a, b)]

def test_table_6_only_changes_views():
    for name in {n for n, _ in of('denoise', 'Table 6').values()}:
        r = RECIPES[name]
        assert (r.gate, r.tau, r.refined, r.margin, r.students) == (0, None, False, math.inf, 2)

def test_table_7_is_a_grid(): 
    got = {(recipe(n, 'paper')[0].tau, RECIPES[n].refined) for n, _ in of('denoise', 'Table 7').values()}
    assert all(changes('denoise-select', n) <= {'gate', 'refined'} for n, _ in of('denoise', 'Table 7').values())
    assert got == {(t, f) for t in (0., .1, .2, .3) for f in (True, False)}

def test_a_method_is_defined_in_a_line(monkeypatch):
    monkeypatch.setattr('sshpe.ssl.methods.RECIPES', dict(RECIPES)); monkeypatch.setattr('sshpe.ssl.methods.BASES', dict(BASES))
    r = method('sspcm', 'sspcm-mum', 'Mixed.', ('me', 'mine', '1'), student_branches=((JointCutout(), Mix()),))
    assert r.students == 3 and recipe('sspcm-mum')[0].student_branches[0][1].tiles == (3, 2)
    with pytest.raises(InputError, match='sspcm-mum'): recipe('sspcm-mun')

def test_strong_views_are_strong():
    "Turned more, and scaled further than the weak ones."
    u = np.random.default_rng(0).random((20000, 4))
    spread = lambda a: (np.where(u[:,1] < a.turned, a.rotation.quantile(u[:,0]), 0).std(), a.scale.quantile(u[:,2]).min(), a.scale.quantile(u[:,2]).max())
    (turn, small, large), (weak_turn, weak_small, weak_large) = spread(HARD), spread(WEAK)
    assert turn > 1.3*weak_turn and small < weak_small-.1 and large > weak_large+.1
