"A results file as a teacher: matching against brute force, targets against the file, and a training that it teaches."
import json
from dataclasses import replace
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from helpers import gaussian
from sshpe.data import answers
from sshpe.data.answers import couples, matched, OVERLAP, overlaps, read_answers, taught_by
from sshpe.data.batch import fetch
from sshpe.data.crops import build_store
from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.pose.skeleton import COCO17
from sshpe.runs import run, training
from sshpe.ssl.methods import recipe
from sshpe.ssl.pseudo import aggregate, ask_teachers, draw_views
from sshpe.ssl.recipe import Setup

@pytest.fixture
def people(sticks): return load('coco', str(sticks), 'train')

def file(tmp_path, d): (f := tmp_path/'results.json').write_text(json.dumps(d)); return f

def rows(people, score=.9, moved=0., **more):
    "The truth, moved, as COCO results."
    k = people.keypoints.astype(float)+[moved, 0, 0]
    k[...,2] = np.where(people.keypoints[...,2] > 0, score, 0)
    return [dict(image_id=int(i), category_id=1, keypoints=a.ravel().tolist(), score=1., **more) for i, a in zip(people.image_ids, k)]

boxes = st.lists(st.tuples(*[st.integers(0, 20)]*4), min_size=1, max_size=4)

@given(boxes, boxes)
def test_overlaps_pixel_by_pixel(a, b):
    pixels = lambda box: {(x, y) for x in range(box[0], box[0]+box[2]) for y in range(box[1], box[1]+box[3])}
    truth = [[len(pixels(p) & pixels(q))/max(len(pixels(p) | pixels(q)), 1) for q in b] for p in a]
    assert np.allclose(overlaps(a, b), truth)

@given(st.integers(0, 10**6), st.integers(0, 5), st.integers(0, 5))
def test_couples_take_the_largest_overlap_first(seed, n, m):
    S = np.random.default_rng(seed).random((n, m))
    left, truth = S.copy(), []
    for v, i, j in sorted(((S[i,j], i, j) for i in range(n) for j in range(m)), reverse=True):
        if v >= OVERLAP and i not in [t[0] for t in truth] and j not in [t[1] for t in truth]: truth.append((i, j))
    assert couples(S) == truth and (S == left).all()

def test_everybody_finds_its_own_answer_whatever_the_order(people, tmp_path):
    some = people[::3]
    said = rows(some, moved=2.)
    np.random.default_rng(0).shuffle(said)
    k = matched(people, read_answers(file(tmp_path, said), people.skeleton))
    there = k[...,2] > 0
    assert (there == ((people.keypoints[...,2] > 0) & np.isin(people.ann_ids, some.ann_ids)[:,None])).all()
    assert np.allclose((k[...,:2]-people.keypoints[...,:2])[there], [2, 0], atol=1e-4) and np.allclose(k[there][:,2], .9)

def test_two_people_in_a_photo_are_told_apart_by_their_boxes(people, tmp_path):
    n = len(people.skeleton)
    two = replace(people[[0, 0]], boxes=np.array([[0, 0, 40, 80], [50, 0, 40, 80]], np.float32))
    at = lambda x, v: dict(image_id=int(two.image_ids[0]), keypoints=[x, 30., v]*n, bbox=[x-20, 0., 40., 80.])
    k = matched(two, read_answers(file(tmp_path, [at(72, .5), at(18, .7), at(19, .1)]), people.skeleton))
    assert k[:,0,0].tolist() == [19, 72]  # the nearer of the two about the first person
    far = read_answers(file(tmp_path, [at(200, .5)]), people.skeleton)
    assert (matched(two, far) == 0).all()

def test_joints_are_matched_by_name_and_photos_by_theirs(people, tmp_path):
    order = np.random.default_rng(1).permutation(17)[:9]
    names = [COCO17.joints[i].replace('_', ' ').upper() for i in order]
    said = rows(people)
    for r in said:
        r['keypoints'] = np.array(r['keypoints']).reshape(17, 3)[order].ravel().tolist(); r['image_id'] += 1000
    images = [dict(id=int(i)+1000, file_name=f'elsewhere/{f}') for i, f in zip(people.image_ids, people.files)]
    d = dict(images=images, annotations=said, categories=[dict(id=1, name='person', keypoints=names)])
    k = matched(people, read_answers(file(tmp_path, d), people.skeleton))
    there = k[...,2] > 0
    assert not there[:,[j for j in range(17) if j not in order]].any()
    assert (there[:,order] == (people.keypoints[:,order,2] > 0)).mean() > .9  # boxes around nine joints are smaller
    assert np.allclose(k[there][:,:2], people.keypoints[there][:,:2], atol=1e-3)

def test_labels_say_that_a_joint_is_there(people, tmp_path):
    said = rows(people)
    for r in said: r['keypoints'][2::3] = [0, 1]+[2]*15
    k = read_answers(file(tmp_path, said), people.skeleton).keypoints
    assert (k[:,0] == 0).all() and (k[:,1:,2] == 1).all()

@pytest.mark.parametrize('spoil, says', [
    (lambda r: {'a': 1}, 'no answers'), (lambda r: [], 'no answers'), (lambda r: [{**x, 'keypoints': x['keypoints'][:12]} for x in r], '4 joints'),
    (lambda r: [{**x, 'image_id': 'a'} for x in r], 'none of the'), (lambda r: [{**x, 'image_id': x['image_id']+10**6} for x in r], 'says nothing'),
    (lambda r: dict(annotations=r, images=[], categories=[dict(keypoints=list('abcdefghijklmnopq'))]), 'no joint')])
def test_files_that_teach_nobody_are_refused_in_a_sentence(people, tmp_path, spoil, says):
    with pytest.raises(InputError, match=says): taught_by(file(tmp_path, spoil(rows(people))), build_store(people, (64, 32), 1.), [people])

def test_a_broken_entry_costs_nobody_else(people, tmp_path):
    said = rows(people)
    said[3]['keypoints'][4], said[5] = float('nan'), 7
    said[7]['keypoints'] = 'none'
    a = read_answers(file(tmp_path, said), people.skeleton)
    assert len(a.photos) == len(people)-3 and a.left_out == 3

def test_numbers_of_two_data_sets_are_refused_where_both_have_them(people, tmp_path):
    with pytest.raises(InputError, match='several'): taught_by(file(tmp_path, rows(people)), build_store(people, (64, 32), 1.), [people, people])

def test_targets_are_where_and_as_sure_as_the_file_says(people, tmp_path):
    r, p = recipe('foreign', 'tiny', teacher_results='x', tau=.5, keep=0., **{'weak.mirrored': 1.})
    k = np.random.default_rng(0).random((len(people), 17))
    said = rows(people)
    for row, s in zip(said, k): row['keypoints'] = [s[i//3] if i%3 == 2 and v else v for i, v in enumerate(row['keypoints'])]
    store = taught_by(file(tmp_path, said), build_store(people, p.size, r.canvas_margin), [people])
    assert np.allclose(store[5:9].answers, store.answers[5:9])
    b, setup = fetch(store, np.arange(6)), Setup(r, p, people.skeleton.flip)
    views = draw_views(b, setup, key=(0,))
    o = aggregate(ask_teachers([], views, b, setup, key=(0,)), r)
    for i, j in np.ndindex(6, 17):
        mirrored = torch.linalg.det(views.M[i,0,:,:2]) < 0
        t = people.skeleton.flip[j] if mirrored else j
        x, y, s = store.answers[i,t]
        c = (views.M[i,0].numpy()@[x, y, 1]+.5)/4-.5
        truth = s*gaussian(c, p.map, p.sigma) if s else np.zeros(p.map)
        assert np.allclose(o.P[0,i,j].numpy(), truth, atol=1e-4)
    assert mirrored and (o.u == 0).all()

def test_a_training_is_taught_by_a_file_and_says_so_once(sticks, people, tmp_path):
    f = file(tmp_path, rows(people[:40]))
    c = run.config(dict(recipe='foreign', preset='tiny', root=str(sticks), labels=8, out=str(tmp_path/'run'), override=dict(teacher_results=str(f))))
    x = training.start(c)
    taught = int((x.unl.answers[...,2] > 0).any(1).sum())
    line, = [l for l in run.facts(x.where)['plan'] if 'taught by' in l]
    assert f'{taught} of {len(x.unl)}' in line and line in repr(x) and 0 < taught < len(x.unl)
    training.finish(training.fit(x))
    m = run.read_metrics(x.where)
    assert set(m['networks']) == {'student'} and m['telemetry']['right_kept'] > .95 and 0 < m['telemetry']['kept'] < .8

def test_a_file_that_changes_under_a_run_is_noticed(sticks, people, tmp_path):
    f = file(tmp_path, rows(people))
    c = run.config(dict(recipe='foreign', preset='tiny', root=str(sticks), labels=8, out=str(tmp_path/'run'), override=dict(teacher_results=str(f))))
    run.unlock(training.start(c).where)
    file(tmp_path, rows(people, moved=1.))
    with pytest.raises(InputError, match='teacher_results has changed'): training.start(c)

def test_only_a_frozen_teacher_has_results():
    with pytest.raises(InputError, match='foreign'): recipe('dual-pose', teacher_results='x.json')
