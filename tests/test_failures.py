"The failures explorer: scores of every pair against loops, lists and filters, notes that survive, data without labels, one network and two runs."
import csv, io, json, os
from dataclasses import replace
from pathlib import Path

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st

from sshpe.data.batch import fetch
from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.explore.failures import FailuresExplorer, HERE, tile, TRUTH
from sshpe.explore.notes import MARKS, NOTE_FIELDS, notes_file, read_notes, write_note
from sshpe.explore.pages import explorer
from sshpe.explore.crowd import Crowd, crowd, known_mean
from sshpe.explore.people import look, networks, store_of
from sshpe.explore.scores import asked, Opinion, opinions, pair_kinds, pair_scores, ranked_pairs, ranked_people
from sshpe.pose.skeleton import COCO17
from sshpe.ssl.pseudo import pseudo_labels
from sshpe.ssl.recipe import Setup
from shown import N, people, x
from helpers import gaussian, peak

J = 17


@pytest.fixture(scope='module')
def nobody_labelled(people): return replace(people, keypoints=np.zeros_like(people.keypoints))

@pytest.fixture
def notes(tmp_path): return tmp_path/'kept/notes.json'

@pytest.fixture
def e(x, people, notes): return FailuresExplorer(x, data=people, notes=notes)

def panel(e, name): return next(p for row in e.rows for p in row if p.name == name)
def tiles(e): return [p for row in e.rows for p in row if p.name.startswith('tile-')]
def chosen(e): return e.state['person'], COCO17.joints.index(e.state['joint'])


# ---- scores

def said(rng, name='a', n=4, j=3):
    spot = lambda: rng.uniform(0, 100, (n, j, 2))
    return Opinion(name, spot(), rng.random((n, j)), rng.random((n, j)), rng.random((n, j)), spot(), rng.random((n, j)) > .5)

def truth(rng, n=4, j=3):
    return np.concatenate([rng.uniform(0, 100, (n, j, 2)), rng.integers(0, 3, (n, j, 1))], -1), rng.uniform(80, 600, n)

@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_scores_and_kinds_are_those_of_loops(seed):
    rng = np.random.default_rng(seed)
    a, b, (xyv, extent) = said(rng), said(rng, 'b'), truth(rng)
    xyv[0,0,2] = 2 # somebody is labelled
    got, kinds = pair_scores(a, b, xyv, extent), pair_kinds(a, b, xyv, extent)
    for i in range(4):
        for j in range(3):
            off = lambda p: ((p[0]-xyv[i,j,0])**2+(p[1]-xyv[i,j,1])**2)**.5/extent[i] if xyv[i,j,2] > 0 else np.nan
            px = ((a.xy[i,j,0]-b.xy[i,j,0])**2+(a.xy[i,j,1]-b.xy[i,j,1])**2)**.5
            want = {'error': off(a.xy[i,j]), 'loss': a.loss[i,j], 'doubt': a.doubt[i,j], 'doubt / height': a.doubt[i,j]/max(a.peak[i,j], 1e-3),
                    'disagreement': px/extent[i], 'disagreement, px': px}
            assert {k: v[i,j] for k, v in got.items()} == pytest.approx(want, nan_ok=True)
            t, known = off(a.taught[i,j]), xyv[i,j,2] > 0
            want = {'all': True, 'kept but wrong': known and a.kept[i,j] and t >= .1, 'dropped but right': known and not a.kept[i,j] and t < .1,
                    'right in A, wrong in B': known and off(a.xy[i,j]) < .1 <= off(b.xy[i,j])}
            assert {k: bool(v[i,j]) for k, v in kinds.items()} == {k: bool(v) for k, v in want.items()}

def test_what_nobody_knows_is_not_offered():
    rng = np.random.default_rng(0)
    a, b, (xyv, extent) = said(rng), said(rng, 'b'), truth(rng)
    xyv[...,2] = 0
    assert list(pair_scores(a, b, xyv, extent)) == ['doubt', 'doubt / height', 'disagreement', 'disagreement, px']
    assert list(pair_scores(a, None, xyv, extent)) == ['doubt', 'doubt / height'] and list(pair_kinds(a, b, xyv, extent)) == ['all']
    xyv[2,1,2] = 1
    assert list(pair_scores(a, None, xyv, extent)) == ['error', 'loss', 'doubt', 'doubt / height']
    assert list(pair_kinds(a, None, xyv, extent)) == ['all', 'kept but wrong', 'dropped but right']

@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=30)
def test_lists_are_those_of_loops(seed, ties):
    rng = np.random.default_rng(seed)
    v, hit = rng.random((5, 3)), rng.random((5, 3)) > .4
    if ties: v = v.round(1)
    v[rng.random((5, 3)) > .8] = np.nan
    own = {i: {j: v[i,j] for j in range(3) if hit[i,j] and v[i,j] == v[i,j]} for i in range(5)}
    assert ranked_pairs(v, hit) == sorted(((i, j) for i in own for j in own[i]), key=lambda p: (-v[p], p))
    mean = {i: sum(w.values())/len(w) for i, w in own.items() if w}
    got = ranked_people(v, hit)
    assert sorted(i for i, _ in got) == sorted(mean) and all(mean[i] >= mean[k]-1e-12 for (i, _), (k, _) in zip(got, got[1:]))
    assert all(v[i,j] == max(own[i].values()) for i, j in got)

def test_the_gate_is_the_recipes(x):
    rng = np.random.default_rng(1)
    height = rng.random((2, 6, 5)).astype(np.float32)
    c = Crowd(*[np.zeros((2, 6, 5))]*4, *[np.zeros((2, 6, 5, 2))]*2, height, np.zeros((6, 5)))
    for k, o in enumerate(opinions(c, replace(x.recipe, tau=.4, keep=0.), 'ab')): assert (o.kept == (height[k] > .4)).all()
    for k, o in enumerate(opinions(c, replace(x.recipe, keep=.3), 'ab')):
        assert o.kept.sum() == 9 and height[k][o.kept].min() > height[k][~o.kept].max()

def test_a_crowd_says_what_each_person_s_maps_say(x, people):
    store, p = store_of(people, x), x.preset
    c = crowd(x, store, x.recipe)
    for i in (1, 7):
        o, _ = pseudo_labels(x.teachers, fetch(store, np.array([i])), Setup(x.recipe, p, x.skeleton.flip), key=(0,))
        _, _, own = look(x, store, i, 0, x.recipe.weak)
        for s in (0, 1):
            for j in range(J):
                H, offered = own[s,j].numpy(), o.P[:,0,j].numpy()
                k = store.keypoints[i,j]
                if k[2] > 0:
                    want = ((H-gaussian((k[:2]+.5)/p.stride-.5, H.shape, p.sigma))**2).mean()
                    assert c.loss[s,i,j] == pytest.approx(want, rel=.02, abs=2e-6)
                assert np.isnan(c.loss[s,i,j]) == (k[2] == 0)
                mine = offered[s if o.u[s,0,j] < o.u[1-s,0,j] else 1-s]
                assert c.height[s,i,j] == pytest.approx(mine.max(), abs=1e-4)
                for xy, map_ in ((c.xy, H), (c.taught, mine)):
                    assert np.allclose((xy[s,i,j]+.5)/p.stride-.5, peak(map_, p.decode), atol=.02), (i, j)

def test_who_looks_once_is_asked_again_for_the_doubt_alone(people):
    x = networks('supervised')
    store = store_of(people, x)
    (got,), once, again = asked(x, store, ['student']), crowd(x, store, x.recipe), crowd(x, store, replace(x.recipe, K=4))
    assert x.recipe.n_pooled == 1 and (once.u == 0).all() and got.doubt.min() > 0 and np.array_equal(got.doubt, again.u[0])
    assert np.array_equal(got.taught, once.taught[0]) and np.array_equal(got.peak, once.peak[0]) and np.array_equal(got.loss, once.loss[0], equal_nan=True)

def test_the_mean_of_what_is_known():
    v = np.array([[1, np.nan, 3], [np.nan]*3])
    assert known_mean(v, 1)[0] == 2 and np.isnan(known_mean(v, 1)[1]) and known_mean(v, (0, 1)) == 2


# ---- lists

def test_the_worst_comes_first_and_keys_walk_on(e):
    pairs = e.pairs(e._state)
    v = e.scores(e._state)['error']
    assert chosen(e) == pairs[0] == tuple(np.unravel_index(np.nanargmax(v), v.shape)) and len(pairs) == np.isfinite(v).sum() == e.figures['tiles']
    e.hear(dict(event='next')); e.hear(dict(event='next')); assert chosen(e) == pairs[2] and e.figures['place'] == 3
    e.hear(dict(event='previous')); assert chosen(e) == pairs[1]
    e.hear(dict(event='undo')); e.hear(dict(event='undo')); e.hear(dict(event='undo')); assert chosen(e) == pairs[0]
    e.hear(dict(event='previous')); assert chosen(e) == pairs[-1]

def test_tiles_are_a_page_of_the_list(e):
    pairs = e.pairs(e._state)
    name = lambda p: 'tile-{}-{}'.format(*p)
    assert [p.name for p in tiles(e)] == [name(p) for p in pairs[:6]] and [p.chosen for p in tiles(e)] == [True]+[False]*5
    e.set(person=pairs[8][0], joint=COCO17.joints[pairs[8][1]])
    assert [p.name for p in tiles(e)] == [name(p) for p in pairs[6:12]] and panel(e, name(pairs[8])).chosen
    e.hear(dict(event='pick', panel=name(pairs[10]), xy=(5, 5))); assert chosen(e) == pairs[10]
    e.hear(dict(event='undo')); assert chosen(e) == pairs[8]
    v = e.scores(e._state)['error']
    assert f'{v[pairs[6]]:.0%}' in tiles(e)[0].title and tiles(e)[0].height >= 180

def test_a_tile_shows_the_labels_on_the_left_and_the_answer_on_the_right(e):
    (i, j), p = e.pairs(e._state)[0], tiles(e)[0]
    H, W = e.store.size
    assert p.picture.shape == (H, 2*W, 3) and np.array_equal(p.picture[:,:W], p.picture[:,W:])
    left, right = [m for m in p.marks if m.kind == 'ring' and m.colour == HERE]
    assert np.allclose((left.x, left.y), e.store.keypoints[i,j,:2,None]) and np.allclose((right.x-W, right.y), e.opinion('student1').xy[i,j][:,None], atol=1e-4)
    crosses = next(m for m in panel(e, 'answer').marks if m.kind == '+')
    known = e.store.keypoints[i,:,2] > 0
    assert crosses.colour == TRUTH and np.allclose(np.stack([crosses.x, crosses.y], 1), e.store.keypoints[i,known,:2])
    layer, own = panel(e, 'heatmap A').layers[0], look(e.runs[0], e.store, i, 0, e.runs[0].recipe.weak)[2]
    assert np.array_equal(layer.values, own[0,j].numpy()) and np.array_equal(panel(e, 'heatmap B').layers[0].values, own[1,j].numpy())

@pytest.mark.parametrize('sort', ['error', 'loss', 'doubt', 'doubt / height', 'disagreement', 'disagreement, px'])
@pytest.mark.parametrize('show', ['all', 'kept but wrong', 'dropped but right', 'right in A, wrong in B'])
def test_filters_and_orders(e, sort, show):
    e.set(sort=sort, show=show, only='left_knee')
    v, hit, knee = e.scores(e._state)[sort], pair_kinds(*e.compared(e._state))[show], COCO17.joints.index('left_knee')
    want = sorted((i for i in range(N) if hit[i,knee] and v[i,knee] == v[i,knee]), key=lambda i: (-v[i,knee], i))
    assert e.pairs(e._state) == [(i, knee) for i in want] and e.figures['tiles'] == len(want)
    if want: assert chosen(e) == (want[0], knee)
    else: e.hear(dict(event='next')); assert 'no failure is left' in e.status

def test_a_person_stands_with_its_worst_joint(e):
    e.controls['each'].value = 'person'
    v = e.scores(e._state)['error']
    want = sorted(range(N), key=lambda i: -np.nanmean(v[i]))
    assert [i for i, _ in e.pairs(e._state)] == want and all(v[i,j] == np.nanmax(v[i]) for i, j in e.pairs(e._state))
    assert f'{np.nanmean(v[want[0]]):.0%}' in tiles(e)[0].title
    e.controls['joint'].value = 'nose'; assert e.figures['place'] == 1, 'another joint of the same person'

def test_a_state_shows_the_same_again(e, x, people, notes):
    e.set(show='kept but wrong', sort='doubt', each='person'); e.hear(dict(event='next'))
    again = FailuresExplorer(x, data=people, notes=notes, **json.loads(json.dumps(e.state)))
    assert again.state == e.state and again.figures == e.figures and again.panels.rows == e.panels.rows
    assert eval(e.code(), dict(FailuresExplorer=FailuresExplorer, people=people)).state == e.state
    for bad in (dict(sort='luck'), dict(show='none'), dict(marked='odd'), dict(network='nobody')):
        with pytest.raises(InputError): e.set(**bad)

def test_a_joint_is_chosen_in_the_chart(e):
    e.hear(dict(event='pick', panel='joints', xy=(9.3, .1))); assert e.state['joint'] == COCO17.joints[9]
    blue, rings = panel(e, 'joints').marks[1:]
    kept, v = e.opinion('student1').kept[e.state['person']], e.scores(e._state)['error'][e.state['person']]
    assert blue.x.tolist() == np.flatnonzero(kept).tolist() and np.allclose(rings.y, v[~kept], equal_nan=True)


# ---- whose

def test_without_labels_there_is_doubt_and_no_truth(x, nobody_labelled, notes):
    e = FailuresExplorer(x, data=nobody_labelled, notes=notes)
    assert e.controls['sort'].options == ('doubt', 'doubt / height', 'disagreement', 'disagreement, px') and e.state['sort'] == 'doubt'
    assert e.controls['show'].options == ('all',) and set(e.figures) == {'tiles', 'place', 'doubt', 'disagreement', 'kept'}
    assert len(tiles(e)) == 12 and tiles(e)[0].picture.shape[1] == x.preset.size[1] and tiles(e)[0].height >= 180
    assert [len(m.x) for m in panel(e, 'answer').marks if m.kind == '+'] == [0] and 'labels' not in panel(e, 'answer').title
    assert not any(m.kind == '+' for m in panel(e, 'heatmap A').marks)
    assert chosen(e) == tuple(np.unravel_index(e.opinion('student1').doubt.argmax(), (N, J)))

def test_one_network_disagrees_with_nobody(people, notes):
    e = FailuresExplorer('supervised', data=people, notes=notes)
    assert e.controls['sort'].options == ('error', 'loss', 'doubt', 'doubt / height') and e.state['other'] == ''
    assert 'right in A, wrong in B' not in e.controls['show'].options and 'disagreement' not in e.figures
    assert not any(p.name == 'heatmap B' for row in e.rows for p in row)

def test_two_runs_are_compared(people, notes):
    e = FailuresExplorer('supervised', 'denoise-select', data=people, notes=notes)
    names = 'supervised: student', 'denoise-select: student1', 'denoise-select: student2'
    assert e.controls['network'].options == names and (e.state['network'], e.state['other']) == names[:2]
    one, two = FailuresExplorer('supervised', data=people, notes=notes), FailuresExplorer('denoise-select', data=people, notes=notes)
    a, b = one.opinion('student').xy, two.opinion('student1').xy
    assert np.allclose(e.scores(e._state)['disagreement, px'], np.sqrt(((a-b)**2).sum(-1)), atol=1e-4)
    assert np.array_equal(panel(e.set(person=3, joint='nose'), 'heatmap B').layers[0].values, panel(two.set(person=3, joint='nose'), 'heatmap A').layers[0].values)
    twice = FailuresExplorer('supervised', 'supervised', data=people, notes=notes)
    assert twice.controls['network'].options == ('supervised 1: student', 'supervised 2: student') and (twice.scores(twice._state)['disagreement'] == 0).all()

def test_runs_of_two_sizes_are_refused(x, people):
    other = replace(x, preset=replace(x.preset, size=(256, 192)))
    with pytest.raises(InputError, match='runs of one size'): FailuresExplorer(x, other, data=people)
    for nets in ((), (x, x, x)):
        with pytest.raises(InputError, match='one run or two'): FailuresExplorer(*nets, data=people)

def test_the_application_opens_it():
    e = explorer('failures', run=('supervised', 'denoise-select'), n=4)
    assert isinstance(e, FailuresExplorer) and len(e.runs) == 2 and len(e.store) == 4
    assert explorer('failures', data='people:wild', n=3).code().startswith("FailuresExplorer('denoise-select', data='people:wild', n=3")


# ---- notes

rows = st.tuples(st.sampled_from(['people:val', 'coco:val=there']), st.integers(0, 3), st.sampled_from(['', 'nose']), st.sampled_from(['', *MARKS]), st.text(max_size=9))

@given(st.lists(rows, max_size=9))
@settings(max_examples=30)
def test_notes_are_a_dictionary_on_disk(tmp_path_factory, said):
    f, want = tmp_path_factory.mktemp('n')/'notes.json', {}
    for data, person, joint, mark, text in said:
        write_note(f, data, person, joint, mark, text)
        want[data, person, joint] = mark, text
    want = {k: v for k, v in want.items() if any(v)}
    assert {(r['data'], r['person'], r['joint']): (r['mark'], r['text']) for r in read_notes(f)} == want and len(read_notes(f)) == len(want)

def test_where_notes_are(monkeypatch, tmp_path):
    monkeypatch.delenv('SSHPE_NOTES', raising=False); monkeypatch.setattr('sshpe.explore.notes.workplace', lambda: tmp_path)
    assert notes_file() == tmp_path/'notes.json' and read_notes() == []
    monkeypatch.setenv('SSHPE_NOTES', str(tmp_path/'mine.json')); assert notes_file() == tmp_path/'mine.json'

@pytest.mark.parametrize('text', ['[{"data": "people:val", "pers', '{}', '[1]', '[{"data": "d", "person": "1", "joint": "", "mark": "", "text": ""}]', '\0'])
def test_a_broken_file_is_said_and_left_alone(x, people, notes, text):
    notes.parent.mkdir(); notes.write_text(text)
    with pytest.raises(InputError, match='nothing is written over it'): read_notes(notes)
    with pytest.raises(InputError, match='notes.json'): write_note(notes, 'd', 1, mark='occluded')
    e = FailuresExplorer(x, data=people, notes=notes)
    assert any('notes.json' in words for _, _, words in e.said) and len(tiles(e)) == 6
    e.mark.value = 'occluded'
    assert 'nothing is written over it' in e.status and notes.read_text() == text and e.mark.value == ''

def test_a_mark_is_kept_at_once_and_found_again(e, x, people, notes):
    (i, j), *_ = e.pairs(e._state)
    joint = COCO17.joints[j]
    e.mark.value = 'wrong label'; e.text.value = 'left is right'
    assert read_notes(notes) == [dict(data=people.name, person=i, joint=joint, mark='wrong label', text='left is right')] and set(read_notes(notes)[0]) == set(NOTE_FIELDS)
    assert 'wrong label' in tiles(e)[0].title
    e.hear(dict(event='next')); assert (e.mark.value, e.text.value) == ('', '')
    e.hear(dict(event='tag 2')); e.hear(dict(event='previous'))
    assert (e.mark.value, e.text.value) == ('wrong label', 'left is right')
    later = FailuresExplorer(x, data=people, notes=notes, person=i, joint=joint)
    assert (later.mark.value, later.text.value) == ('wrong label', 'left is right')
    later.hear(dict(event='tag 1')); later.text.value = ''
    assert [r['mark'] for r in read_notes(notes)] == ['occluded']

def test_filters_by_note(e):
    pairs = e.pairs(e._state)
    for k in (0, 2): e.set(person=pairs[k][0], joint=COCO17.joints[pairs[k][1]]); e.hear(dict(event='tag 3'))
    assert e.pairs(replace(e._state, marked='look again')) == [pairs[0], pairs[2]] == e.pairs(replace(e._state, marked='noted'))
    assert e.pairs(replace(e._state, marked='occluded')) == [] and e.pairs(replace(e._state, marked='not noted')) == [pairs[1], *pairs[3:]]

def test_what_is_marked_leaves_the_list_and_the_next_one_comes(e):
    pairs = e.pairs(e._state)
    e.set(marked='not noted'); e.hear(dict(event='next')); e.hear(dict(event='tag 1'))
    assert chosen(e) == pairs[1] and e.figures['place'] is None and e.figures['tiles'] == len(pairs)-1
    e.hear(dict(event='next')); assert chosen(e) == pairs[2]
    e.hear(dict(event='tag 1')); e.hear(dict(event='previous')); assert chosen(e) == pairs[0]

def test_a_note_about_a_person_is_about_its_joints(e):
    e.set(each='person'); e.mark.value = 'occluded'
    who = e.state['person']
    assert [(r['person'], r['joint']) for r in read_notes(e.notes)] == [(who, '')]
    known = int(np.isfinite(e.scores(e._state)['error'][who]).sum())
    assert len(e.pairs(replace(e._state, each='joint', marked='occluded'))) == known

def test_the_list_as_a_table(e):
    e.set(show='kept but wrong', sort='loss'); e.mark.value = 'look again'
    table = list(csv.DictReader(io.StringIO(e.csv())))
    scores = e.scores(e._state)
    assert [(int(r['person']), COCO17.joints.index(r['joint'])) for r in table] == e.pairs(e._state) and table[0]['mark'] == 'look again'
    for r, (i, j) in zip(table, e.pairs(e._state)):
        assert r['kept'] == '1' and {k: float(r[k]) for k in scores} == pytest.approx({k: v[i,j] for k, v in scores.items()}, rel=1e-4)

def test_a_folder_that_cannot_be_written(e, monkeypatch):
    def full(*a): raise PermissionError('no')
    monkeypatch.setattr('sshpe.explore.notes.write_atomic', full)
    e.mark.value = 'occluded'; assert 'SSHPE_NOTES' in e.status and e.mark.value == ''
