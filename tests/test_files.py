"""Files as people have them: what can be understood is read and counted, what cannot is left out and counted, and one strange person never costs the rest."""
import gc, json, os, re, warnings
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageOps
from sshpe.cli import main
from sshpe.data import people as photos
from sshpe.data.crops import build_store, covered, cut, enough, frames
from sshpe.data.people import open_photo, photo_header, photo_size
from sshpe.data.registry import load
from sshpe.data.verify import report_lines, verify
from sshpe.errors import InputError
from sshpe.pose.skeleton import COCO17, Skeleton, mirror_pairs
from sshpe.runs import result, run, training
from sshpe.runs.predictions import Look, cut_out
from sshpe.ssl.methods import recipe
from sshpe.ssl.recipe import Setup

SIZE = 120, 90 # width, height of all photos


def person(id, image, joints=COCO17.joints, **more):
    "Somebody whose joints lie on a line through the photo, away from its edges."
    J = len(joints)
    k = [v for j in range(J) for v in (20.5+70*j/J+id, 10.25+60*j/J, 1+j % 2)]
    return dict(id=id, image_id=image, category_id=1, iscrowd=0, bbox=[15, 5, 85, 75], area=4000, num_keypoints=J, keypoints=k) | more


def content(joints=COCO17.joints, n=6, **category):
    "A json of `n` people in three photos."
    return dict(images=[dict(id=i, file_name=f'{i}.jpg', width=SIZE[0], height=SIZE[1]) for i in (1, 2, 3)],
                annotations=[person(i, 1+i % 3, joints) for i in range(1, n+1)],
                categories=[dict(id=1, name='person', keypoints=list(joints), skeleton=[]) | category])


def noise(seed, size=SIZE): return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)).resize(size)


def write(root, d, splits=('train', 'val'), end='.jpg', sub='.'):
    for s in splits:
        (root/'annotations').mkdir(parents=True, exist_ok=True); (root/s/sub).mkdir(parents=True, exist_ok=True)
        for i in (1, 2, 3): noise(i).save(root/s/sub/f'{i}{end}')
        (root/f'annotations/person_keypoints_{s}.json').write_text(json.dumps(d))
    return root


def read(root, split='val', **how):
    "The people, and what was told about them."
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        return load('coco', root, split, **how), ' | '.join(str(w.message) for w in told)


def changed(tmp_path, change, joints=COCO17.joints, **how):
    "People of a json that was changed, beside the unchanged ones; what was told; strictness refuses it, and `verify` calls it usable."
    d = content(joints)
    before, nothing = read(write(tmp_path/'whole', d), **{k: v for k, v in how.items() if k != 'normalised'})
    change(d)
    after, told = read(write(tmp_path/'changed', d), **how)
    assert verify('coco', tmp_path/'changed', ['val'], decode=True, **how)['usable']
    return before, after, told


def strict(tmp_path, says):
    with pytest.raises(InputError, match=says) as e: load('coco', tmp_path/'changed', 'val', bad='refuse')
    assert '\n' not in str(e.value) and 'bad=mend' in str(e.value)


def everybody(f):
    def change(d):
        for a in d['annotations']: f(a)
    return change


def same(p, q, fields=('ann_ids', 'image_ids', 'files', 'boxes', 'areas', 'keypoints', 'sizes')):
    for f in fields: np.testing.assert_array_equal(getattr(p, f), getattr(q, f), f)


# ---------------------------------------------------------------- joints

def at(j, *xyv):
    def change(d): d['annotations'][0]['keypoints'][3*j:3*j+3] = xyv
    return change


OUT = {'3 px above': (50, -3, 2), '40 px above': (50, -40, 2), 'right of it': (160, 30, 1), 'nowhere': (float('nan'), 30, 2), 'infinite': (1e400, 30, 2),
       'null': (None, None, 2), 'a strange v': (50, 30, 3), 'minus 1': (50, 30, -1)}


@pytest.mark.parametrize('kind', OUT)
def test_a_joint_that_says_nothing_costs_itself_alone(kind, tmp_path):
    before, after, told = changed(tmp_path, at(4, *OUT[kind]))
    assert after.keypoints[0, 4].tolist() == [0, 0, 0] and '1 joint' in told and 'not labelled' in told
    keep = np.arange(17) != 4
    np.testing.assert_array_equal(after.keypoints[:, keep], before.keypoints[:, keep])
    same(before, after, ('ann_ids', 'boxes', 'areas', 'files'))
    strict(tmp_path, 'person 1')


@pytest.mark.parametrize('xy, edge', [((-2, 30), (-.5, 30)), ((121, 91), (119.5, 89.5)), ((50, -1.5), (50, -.5))])
def test_a_joint_just_outside_is_taken_to_the_edge(xy, edge, tmp_path):
    _, after, told = changed(tmp_path, at(4, *xy, 2))
    assert after.keypoints[0, 4].tolist() == [*edge, 2] and '1 joint up to 2 pixels outside its photo is taken to its edge' in told


def test_joints_at_the_edge_are_left_alone(tmp_path):
    before, after, told = changed(tmp_path, at(4, 119.4, 89.4, 2))
    assert told == '' and after.keypoints[0, 4].tolist() == pytest.approx([119.4, 89.4, 2])


def test_whom_no_label_is_left_is_left_out(tmp_path):
    _, after, told = changed(tmp_path, lambda d: d['annotations'][0].update(keypoints=[500, 500, 2]*17))
    assert after.ann_ids.tolist() == [2, 3, 4, 5, 6] and '1 person whose labels cannot be used is left out' in told


def test_pairs_in_lists_of_their_own_and_a_count_of_its_own(tmp_path):
    def nested(a): a.update(keypoints=[a['keypoints'][i:i+3] for i in range(0, 51, 3)])
    before, after, told = changed(tmp_path, everybody(nested))
    same(before, after); assert told == ''
    before, after, told = changed(tmp_path/'b', everybody(lambda a: a.update(num_keypoints=9)))
    same(before, after); assert '6 "num_keypoints" are counted anew' in told


# ---------------------------------------------------------------- boxes and areas

SQUARE = [[30, 20, 70, 20, 70, 60, 30, 60]]
RUNS = dict(size=[90, 120], counts=[30*90+20, 40] + [50, 40]*39 + [90*120-69*90-60])
BAD_AREAS = [0, None, -5, float('nan'), 'large', KeyError]


@pytest.mark.parametrize('area', BAD_AREAS)
@pytest.mark.parametrize('segmentation, truth, source', [(SQUARE, 1600, 'segmentation'), (RUNS, 1600, 'segmentation'), (None, 85*75, 'box'), ([[1, 2, 3]], 85*75, 'box'),
                                                         (dict(size=[90, 120], counts='PYc0'), 85*75, 'box')])
def test_areas(area, segmentation, truth, source, tmp_path):
    def change(a):
        a.update(segmentation=segmentation)
        if area is KeyError: del a['area']
        else: a['area'] = area
    before, after, told = changed(tmp_path, everybody(change))
    assert (after.areas == truth).all() and f'6 areas that are missing or 0 are computed from the {source}' in told
    same(before, after, ('boxes', 'keypoints', 'ann_ids'))
    strict(tmp_path, 'person 1')


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32-1))
def test_packed_runs_are_what_they_cover(h, w, seed):
    from pycocotools import mask
    from sshpe.data.mend import outline
    m = np.random.default_rng(seed).random((h, w)) < np.random.default_rng(seed).random()
    packed = mask.encode(np.asfortranarray(m.astype(np.uint8)))
    found = outline(dict(size=[h, w], counts=packed['counts'].decode()))
    y, x = np.nonzero(m)
    if not len(y): assert found is None
    else: assert found[0] == len(y) and found[1].tolist() == [x.min(), y.min(), np.ptp(x)+1, np.ptp(y)+1]


@given(st.text(max_size=12), st.lists(st.one_of(st.integers(-3, 2**40), st.floats()), min_size=2, max_size=2))
def test_what_is_no_packed_run_is_no_outline(text, size):
    from sshpe.data.mend import outline
    found = outline(dict(size=size, counts=text))
    assert found is None or 0 < found[0] <= size[0]*size[1]


FACE = ['nose', 'left_eye', 'right_eye', *(f'face-{i}' for i in range(6)), 'spine']

@pytest.mark.parametrize('given, pairs, odd', [('', {(1, 2)}, 6), ('face-0:face-5, face-1:face-4', {(1, 2), (3, 8), (4, 7)}, 2), ('left_eye:face-0', {(1, 3)}, 6)])
def test_pairs_for_some_joints_leave_those_that_names_tell(given, pairs, odd):
    from sshpe.data.category import read_skeleton
    from sshpe.pose.skeleton import alone, remarks
    s = read_skeleton(dict(name='face', keypoints=FACE), flip_pairs=given)
    assert set(s.pairs) == pairs and len(alone(s)) == odd and [s.flip[s.flip[j]] for j in range(len(s))] == list(range(len(s)))
    assert any(f'{odd} of 10 joints' in r and 'flip_pairs' in r for r in remarks(s))
    assert alone(COCO17) == [] and 'nose' not in alone(s) and 'spine' not in alone(s)


def test_a_face_of_68_points_is_mirrored():
    "Its middle line, by the usual numbers: chin, bridge and tip of the nose, middle of the lips."
    from sshpe.pose.skeleton import alone, mirror_pairs, Skeleton
    names = ['nose', 'left_eye', 'right_eye', *(f'face-{i}' for i in range(68)), 'left_hand_root', 'right_hand_root']
    s = Skeleton('whole', tuple(names), mirror_pairs(names))
    middle = {n for j, n in enumerate(names) if s.flip[j] == j}
    assert middle == {'nose', *(f'face-{i}' for i in (8, 27, 28, 29, 30, 33, 51, 57, 62, 66))} and sorted(s.flip) == list(range(73)) and alone(s) == []
    part = {range(0, 17), range(17, 27), range(27, 36), range(36, 48), range(48, 60), range(60, 68)}   # jaw, brows, nose, eyes, lips outside and inside
    number = lambda j: int(names[j][5:])
    assert all(any(number(a) in r and number(b) in r for r in part) for a, b in s.pairs if 'face' in names[a])
    assert len(mirror_pairs(names[:-5])) == 1   # a part of a face is not known


@pytest.mark.parametrize('box', [KeyError, None, [0, 0, 0, 0], [5, 5, -9, 20], [1, 2], 'x', [None]*4, [float('inf'), 0, 1, 1]])
@pytest.mark.parametrize('segmentation', [SQUARE, None])
def test_boxes(box, segmentation, tmp_path):
    def change(a):
        a.update(segmentation=segmentation)
        if box is KeyError: del a['bbox']
        else: a['bbox'] = box
    before, after, told = changed(tmp_path, everybody(change))
    assert '6 boxes that are missing or' in told and len(after) == 6
    if segmentation: assert (after.boxes == [30, 20, 40, 40]).all()
    for (x, y, w, h), k in zip(after.boxes, after.keypoints):
        if segmentation: continue
        low, high = k[:,:2].min(0), k[:,:2].max(0)
        m = .1*max(high-low)
        np.testing.assert_allclose([x, y, x+w, y+h], [*(low-m).clip(0), *np.minimum(high+m+1, SIZE)], rtol=1e-5)


def test_a_box_that_nothing_tells(tmp_path):
    def change(d): d['annotations'][0].update(bbox=[0, 0, 0, 0], keypoints=[50, 50, 2]+[0]*48)
    _, after, told = changed(tmp_path, change)
    assert after.ann_ids.tolist() == [2, 3, 4, 5, 6] and '1 person without a usable box is left out' in told


# ---------------------------------------------------------------- ids

def renumber(f): return everybody(lambda a: a.update(image_id=f(a['image_id'])))


@pytest.mark.parametrize('f', [str, float, lambda i: f'{i:012}'])
def test_ids_as_text_and_with_a_point(f, tmp_path):
    before, after, told = changed(tmp_path, renumber(f))
    same(before, after); assert '6 ids written as text or with a point are read as a number' in told
    strict(tmp_path, 'has the image_id')


def test_photos_whose_ids_are_words(tmp_path):
    def change(d):
        renumber('photo-{}'.format)(d)
        for i in d['images']: i['id'] = f'photo-{i["id"]}'
    before, after, told = changed(tmp_path, change)
    same(before, after)
    at_boxes = tmp_path/'boxes.json'
    at_boxes.write_text(json.dumps([dict(image_id='photo-2', category_id='1', bbox=[9, 9, 50, 50], score=.9)]))
    assert load('coco', tmp_path/'changed', 'val', boxes=str(at_boxes)).files.tolist() == ['2.jpg']


@pytest.mark.parametrize('id', [KeyError, None, 1, 'x'])
def test_people_without_an_id_of_their_own_are_numbered(id, tmp_path):
    def change(a):
        if id is KeyError: del a['id']
        else: a['id'] = id
    before, after, told = changed(tmp_path, everybody(change))
    assert len(set(after.ann_ids.tolist())) == 6 and ' without an own id are numbered' in told
    same(before, after, ('files', 'boxes', 'keypoints'))
    from sshpe.evaluate.metrics import evaluate
    assert evaluate(after, after.keypoints[...,:2], np.ones((6, 17)))['AP'] == pytest.approx(100)


def test_photos_that_share_an_id_are_left_out(tmp_path):
    _, after, told = changed(tmp_path, lambda d: d['images'].append(dict(d['images'][0], file_name='2.jpg')))
    assert set(after.files.tolist()) == {'2.jpg', '3.jpg'} and '1 id that several entries share is left out' in told
    before, after, told = changed(tmp_path/'b', lambda d: d['images'].append(d['images'][0]))                # twice the same says nothing else
    same(before, after)


# ---------------------------------------------------------------- photos by name

NAMES = {'folder': 'val2017/{}', 'address': 'http://example.org/val2017/{}?x=1', 'bucket': 's3://bucket/a/{}', 'backslashes': 'a\\b\\{}', 'drive': 'C:\\data\\{}',
         'absolute': '/elsewhere/data/{}', 'up': '../label/{}', 'up and down': 'a/../../{}', 'up on Windows': '..\\{}', 'up in an address': 'http://example.org/%2e%2e/{}', 'dots': './{}'}


@pytest.mark.parametrize('kind', NAMES)
def test_names_from_elsewhere(kind, tmp_path):
    def change(d):
        for i in d['images']: i['file_name'] = NAMES[kind].format(i['file_name'])
    before, after, told = changed(tmp_path, change)
    if kind != 'dots': same(before, after); assert "3 photos named with a folder, an address, backslashes or other letters are found below the photos' folder" in told
    else: assert told == '' and build_store(after, cache=tmp_path/'cache')


def test_folders_that_are_there(tmp_path):
    d = content()
    for i in d['images']: i['file_name'] = f'x\\cam1\\{i["file_name"]}'
    p, _ = read(write(tmp_path, d, sub='cam1'))
    assert set(p.files.tolist()) == {'cam1/1.jpg', 'cam1/2.jpg', 'cam1/3.jpg'}


@pytest.mark.parametrize('name', ['../out.jpg', '../photos/..', '..', 'gone.jpg', 'a/2.jpg', '../2.jpg'])
def test_names_that_lead_out_or_to_another_photo_are_left_out(name, tmp_path):
    "2.jpg is another photo of the list: a name that ends in it cannot mean it, too."
    Image.new('RGB', (120, 90)).save(tmp_path/'out.jpg')
    _, after, told = changed(tmp_path, lambda d: d['images'][0].update(file_name=name))
    assert set(after.files.tolist()) == {'2.jpg', '3.jpg'} and '2 people whose photo' in told


@pytest.mark.parametrize('size', [dict(width=0), dict(width=None), dict(height='90'), dict(width=-1)])
def test_photos_without_a_size_are_measured(size, tmp_path):
    before, after, told = changed(tmp_path, lambda d: d['images'][0].update(size))
    same(before, after); assert '1 photo without width and height is measured' in told


# ---------------------------------------------------------------- shares

def shares(d):
    for a in d['annotations']:
        a['bbox'] = (np.array(a['bbox'])/(SIZE*2)).tolist()
        a['keypoints'] = (np.reshape(a['keypoints'], (-1, 3))/[*SIZE, 1]).ravel().tolist()


@pytest.mark.parametrize('area', [4000, 4000/(SIZE[0]*SIZE[1])])
def test_shares_of_the_photo(area, tmp_path):
    def change(d): shares(d); everybody(lambda a: a.update(area=area, segmentation=[[.1, .1, .5, .1, .5, .5]]))(d)
    before, after, told = changed(tmp_path, change, normalised=True)
    for f in ('boxes', 'areas', 'keypoints'): np.testing.assert_allclose(getattr(after, f), getattr(before, f), rtol=1e-5)
    with pytest.raises(InputError, match='lie between 0 and 1.*normalised=True'): load('coco', tmp_path/'changed', 'val')
    assert main(['data', 'verify', 'coco', '--root', str(tmp_path/'changed'), '--split', 'val', '--normalised']) == 0
    assert main(['data', 'verify', 'coco', '--root', str(tmp_path/'changed'), '--split', 'val']) == 2


# ---------------------------------------------------------------- skeletons

SIX = ['eyeL', 'eyeR', 'l-ear', 'r-ear', 'Lshoulder', 'Rshoulder', 'L.Elbow', 'R.Elbow', 'wrist_l', 'wrist_r', 'lHip', 'rHip']
SPELT = [SIX, ['left eye', 'right eye'], ['Eye (left)', 'Eye (right)'], ['LEFT_EYE', 'RIGHT_EYE'], ['knee-l', 'knee-r'], ['kneeLeft', 'kneeRight'], ['lank', 'rank'],
         ['LKNEE', 'RKNEE'], ['L', 'R'], ['left-eye', 'Right Eye'], ['hand_l1', 'hand_r1'], ['paw_LF', 'paw_RF'], ['Left_thumb.2', 'Right_thumb.2']]


@pytest.mark.parametrize('names', SPELT, ids=lambda n: n[0])
def test_sides_in_all_spellings(names):
    pairs = tuple((i, i+1) for i in range(0, len(names), 2))
    assert mirror_pairs(names) == pairs and mirror_pairs(['nose', 'tail', 'heel', 'collar', *names]) == tuple((a+4, b+4) for a, b in pairs)
    assert mirror_pairs(names[::-1]) == tuple(sorted(((len(names)-1-a, len(names)-1-b) for a, b in pairs), key=min))


PAWS = ['snout', 'paw_1', 'paw_2', 'tail']


def test_no_sides_no_mirror(tmp_path):
    p, told = read(write(tmp_path, content(PAWS)))
    assert p.skeleton.pairs == () and told.count('no view is mirrored') == 1 and 'flip_pairs=' in told
    r, preset = recipe('denoise-select', 'tiny')
    assert r.weak.mirrored > 0
    still, mirrored = (Setup(r, preset, f).recipe for f in (p.skeleton.flip, (0, 2, 1, 3)))
    assert [a.mirrored for a in still.affines] == [0]*len(still.affines) and mirrored == r


@pytest.mark.parametrize('category, how', [(dict(flip_pairs=[['paw_1', 'paw_2']]), {}), (dict(flip_pairs=[[0, 3], [1, 2]]), {}), (dict(flip_pairs=[[4, 1], [2, 3]]), {}),
                                           ({}, dict(flip_pairs='paw_1:paw_2')), ({}, dict(flip_pairs='PAW 1 : paw-2, snout:tail'))])
def test_pairs_that_are_given(category, how, tmp_path):
    p, told = read(write(tmp_path, content(PAWS, **category)), **how)
    assert {(1, 2)} <= set(p.skeleton.pairs) and 'mirrored' not in told


@pytest.mark.parametrize('category, how, says', [(dict(flip_pairs=[[1, 2]]), {}, 'counted from 0 or from 1: give names'), (dict(flip_pairs=[['paw_1', 'pwa_2']]), {}, "did you mean 'paw_2'"),
                                                 (dict(flip_pairs=5), {}, 'must be pairs'), ({}, dict(flip_pairs='paw_1'), 'must be pairs'), ({}, dict(sigmas='tail:0'), 'above 0'),
                                                 ({}, dict(flip_pairs='paw_1:paw_2, paw_2:tail'), 'none twice'), ({}, dict(sigmas='.1,.2'), '4 numbers'), (dict(sigmas=[.1]), {}, '4 numbers')])
def test_what_is_given_wrongly_is_refused(category, how, says, tmp_path):
    with pytest.raises(InputError, match=says) as e: load('coco', write(tmp_path, content(PAWS, **category)), 'val', **how)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('limbs, read_as, says', [([[0, 1], [1, 2]], ((0, 1), (1, 2)), 'counted from 0'), ([[1, 2], [2, 4], [5, 1]], ((0, 1), (1, 3)), '1 limb that'),
                                                  (None, (), ''), ('x', (), 'limb'), ([['snout', 'tail']], ((0, 3),), ''), ([[1], [2, 2], [1, 3]], ((0, 2),), '2 limbs that')])
def test_limbs_are_decoration(limbs, read_as, says, tmp_path):
    p, told = read(write(tmp_path, content(PAWS, skeleton=limbs)))
    assert p.skeleton.limbs == read_as and says in told and len(p) == 6


def test_two_skeletons_and_the_way_out(tmp_path, capsys):
    d = content(); d['categories'].append(dict(id=2, name='hand', keypoints=['a', 'b']))
    write(tmp_path, d)
    with pytest.raises(InputError, match='person, hand have different joints: say which one is meant, e.g. category=person'): load('coco', tmp_path, 'val')
    assert len(load('coco', tmp_path, 'val', category='person')) == 6
    assert main(['data', 'verify', 'coco', '--root', str(tmp_path), '--category', 'person']) == 0
    c = run.config(dict(data='coco', root=str(tmp_path), category='person', bad='refuse'))
    assert [len(p) for p in training.people(c)] == [6, 6]
    with pytest.raises(InputError, match='lspet has joints of its own: category'): load('lspet', tmp_path, category='person')


# ---------------------------------------------------------------- sigmas and joints by meaning

def pycocotools_ap(d, results, sigmas):
    "Percent, by the official code."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    gt = COCO(); gt.dataset = d; gt.createIndex()
    ev = COCOeval(gt, gt.loadRes(results), 'keypoints')
    ev.params.kpt_oks_sigmas = np.array(sigmas)
    ev.evaluate(); ev.accumulate(); ev.summarize()
    return 100*ev.stats[0]


def guesses(p, seed=0): # (N,J,2) near the truth, (N,J) scores
    r = np.random.default_rng(seed)
    return p.keypoints[...,:2]+r.normal(0, 4, (*p.keypoints.shape[:2], 2)), r.uniform(.1, 1, p.keypoints.shape[:2])


ALL = COCO17.sigmas
SPELLINGS = {'blanks': ([n.replace('_', ' ').title() for n in COCO17.joints], ALL), 'upper': ([n.upper() for n in COCO17.joints], ALL),
             'dashes': ([n.replace('_', '-') for n in COCO17.joints], ALL), '13 of them': (list(COCO17.joints[:1]+COCO17.joints[5:]), ALL[:1]+ALL[5:]),
             'and a neck': ([*COCO17.joints, 'neck'], (*ALL, .0669)), 'letters': ([n.replace('left_', 'L').replace('right_', 'R') for n in COCO17.joints], ALL)}


@pytest.mark.parametrize('kind', SPELLINGS)
def test_known_joints_keep_their_sigmas(kind, tmp_path, capsys):
    from sshpe.evaluate.metrics import coco_results, oks_ap
    names, sigmas = SPELLINGS[kind]
    p, told = read(write(tmp_path, d := content(names)))
    assert p.skeleton.sigmas == sigmas
    r = coco_results(p, *guesses(p))
    assert oks_ap(p, r)['AP'] == pytest.approx(pycocotools_ap(d, r, sigmas), abs=1e-9)
    assert (('1 of 18 joints (neck)' in told) if kind == 'and a neck' else told == '') and p.skeleton.pairs


def test_sigmas_that_are_given(tmp_path):
    p, told = read(write(tmp_path, content(PAWS)), sigmas='snout:.03, tail:.2')
    assert p.skeleton.sigmas == (.03, .0669, .0669, .2) and '2 of 4 joints (paw_1, paw_2)' in told
    assert load('coco', tmp_path, 'val', sigmas='.1,.2,.3,.4').skeleton.sigmas == (.1, .2, .3, .4)


def test_mended_people_are_scored_as_they_were_mended(tmp_path, capsys):
    "COCO's own code on the json that a careful person would have written."
    from sshpe.evaluate.metrics import coco_results, oks_ap
    d, good = content(), content()
    for a, b, area in zip(d['annotations'], good['annotations'], (None, 0, 4000, 4000, 4000, 4000)):
        a['area'] = area; b['area'] = area or 85*75
    d['annotations'][2]['keypoints'][:3] = [50, -40, 2]; good['annotations'][2]['keypoints'][:3] = [0, 0, 0]; good['annotations'][2]['num_keypoints'] = 16
    d['annotations'][3]['image_id'] = str(d['annotations'][3]['image_id']); del d['annotations'][4]['bbox']
    p, _ = read(write(tmp_path, d))
    r = coco_results(p, *guesses(p, 3))
    assert 0 < oks_ap(p, r)['AP'] == pytest.approx(pycocotools_ap(good, r, ALL), abs=1e-6)


# ---------------------------------------------------------------- photos

def stored(tmp_path, im, turn, end, **options):
    "A photo that a viewer shows as `im`: its pixels turned back, and a tag that says how to turn them."
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    ways = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_270', 7: 'TRANSVERSE', 8: 'ROTATE_90'}
    exif = Image.Exif(); exif[0x112] = turn
    raw = im if turn == 1 else im.transpose(Image.Transpose[ways[back[turn]]])
    raw.save(f := tmp_path/f'{turn}{end}', exif=exif, **options)
    return f, raw


@pytest.mark.parametrize('end', ['.png', '.tif', '.webp'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_photos_are_turned_as_their_tag_says(turn, end, tmp_path):
    im = noise(1)
    f, raw = stored(tmp_path, im, turn, end, **({'lossless': True} if end == '.webp' else {}))
    for size in (None, SIZE): assert (np.asarray(open_photo(f, size)) == np.asarray(im)).all()
    assert photo_size(f) == SIZE and photo_header(f) == (SIZE, raw.size)
    if turn > 4: assert (np.asarray(open_photo(f, raw.size)) == np.asarray(raw)).all()                       # a list that means the unturned photo
    square = noise(2, (50, 50))
    f, _ = stored(tmp_path, square, turn, f'-square{end}', **({'lossless': True} if end == '.webp' else {}))
    assert (np.asarray(open_photo(f, (50, 50))) == np.asarray(square)).all()


def test_crops_of_turned_photos(tmp_path):
    d = content()
    whole, turned = write(tmp_path/'a', d, end='.png'), write(tmp_path/'b', d, end='.png')
    for i in d['images']: i['file_name'] = f'{i["id"]}.png'
    for root in (whole, turned): (root/'annotations/person_keypoints_val.json').write_text(json.dumps(d))
    for n, i in zip((3, 6, 8), d['images']): stored(tmp_path, noise(i['id']), n, '.png')[0].rename(turned/'val'/i['file_name'])
    a, b = (build_store(load('coco', root, 'val'), cache=tmp_path/'cache').canvases[:] for root in (whole, turned))
    assert (a == b).all()


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)*4


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
@pytest.mark.parametrize('end', ['.png', '.tif'])
def test_pixels_of_more_than_8_bits_are_scaled(bits, end, tmp_path):
    deep = (GREY.astype(float)/255*(2**bits-1)).round()
    deep[0, 0] = 2**bits-1
    Image.fromarray(deep.astype(np.uint16)).save(f := tmp_path/f'a{end}')
    got = np.asarray(open_photo(f))[...,0].astype(int)
    assert got[0, 0] == 255 and np.abs(got-GREY).ravel()[1:].max() <= 1


def test_other_pixels(tmp_path):
    Image.fromarray(GREY.astype(np.float32)/255).save(tmp_path/'f.tif')
    assert np.abs(np.asarray(open_photo(tmp_path/'f.tif'))[...,0].astype(int)-GREY).max() <= 1
    Image.fromarray(GREY.astype(np.float32)*9).save(tmp_path/'g.tif')
    with pytest.raises(InputError, match='floating numbers from 0 to 2268'): open_photo(tmp_path/'g.tif')
    Image.fromarray(GREY > 99).save(tmp_path/'b.png')
    assert (np.asarray(open_photo(tmp_path/'b.png'))[...,1] == 255*(GREY > 99)).all()
    Image.fromarray(GREY.astype(np.int32)-7).save(tmp_path/'i.tif')
    with pytest.raises(InputError, match='numbers from -7'): open_photo(tmp_path/'i.tif')


@pytest.mark.parametrize('end, lossy', [('.tif', 0), ('.tiff', 0), ('.bmp', 0), ('.png', 0), ('.webp', 25), ('.jpg', 25), ('.mpo', 25)])
def test_formats(end, lossy, tmp_path):
    im, more = noise(5), dict(save_all=True, append_images=[noise(6)]) if end == '.mpo' else {}
    im.save(f := tmp_path/f'a{end}', **more)
    if end == '.mpo': f = f.rename(tmp_path/'a.jpg') # as telephones write them
    assert np.abs(np.asarray(open_photo(f), int)-np.asarray(im)).max() <= lossy
    noise(5).save(g := tmp_path/'a.gif')
    with pytest.raises(InputError, match='JPEG, PNG, WebP, TIFF and BMP are read, GIF, HEIC'): open_photo(g)


def test_large_photos(tmp_path, monkeypatch):
    Image.new('1', (20_000, 10_000)).save(f := tmp_path/'a.png')
    assert photo_size(f) == (20_000, 10_000)
    monkeypatch.setattr(photos, 'MAX_PIXELS', 10**8)
    with pytest.raises(InputError, match='20,000 x 10,000 pixels are more than the 100,000,000 that are read: set the environment variable SSHPE_PIXELS'): open_photo(f)


def test_folders(tmp_path):
    for name in ('a.webp', 'day1/b.JPG', 'day1/deep/c.tiff', 'd.bmp', '.hidden/e.jpg', '._f.jpg', '__MACOSX/g.jpg'):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); noise(1).save(tmp_path/name)
    (tmp_path/'h.png').write_bytes(b'no picture'); (tmp_path/'notes.txt').write_text('x')
    with pytest.warns(UserWarning, match='1 person whose photo cannot be measured is left out'): p = load('folder', tmp_path)
    assert p.files.tolist() == ['a.webp', 'd.bmp', 'day1/b.JPG', 'day1/deep/c.tiff'] and len(build_store(p, cache=tmp_path/'.cache')) == 4
    r = verify('folder', tmp_path)
    assert r['usable'] and any('1 person whose photo cannot be measured' in l for l in report_lines(r))


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write(tmp_path/'x', content())
    assert len(load('coco', '~/x', 'val')) == 6 and verify('coco', '~/x')['usable']


def test_a_store_that_nobody_uses_is_closed(tmp_path):
    s = build_store(load('coco', write(tmp_path, content()), 'val'), cache=tmp_path/'cache')
    f, = s.canvases.base.files
    del s; gc.collect()
    assert f.closed


# ---------------------------------------------------------------- one of many

DAMAGE = st.sampled_from([dict(keypoints=[]), dict(keypoints=None), dict(keypoints=['x']*51), dict(bbox=[500, 500, 10, 10]), dict(iscrowd='no'), dict(image_id=99), dict(image_id=None),
                          dict(category_id=7), dict(keypoints=[999, 999, 2]*17), dict(bbox=[0, 0, 0, 0], keypoints=[9, 9, 2]+[0]*48), dict(image_id=[1]), dict(id=2**70, image_id=True)])


@settings(max_examples=40)
@given(st.integers(0, 5), DAMAGE)
def test_one_strange_person_never_costs_the_others(tmp_path_factory, i, damage):
    root = tmp_path_factory.getbasetemp()/'one-of-many'
    d = content()
    if not root.exists(): write(root, d)
    d['annotations'][i].update(damage)
    (root/'annotations/person_keypoints_train.json').write_text(json.dumps(d))
    whole, told = read(root, 'val')
    rest, said = read(root, 'train')
    others = whole[np.flatnonzero(np.arange(6) != i)]
    same(others, rest, ('ann_ids', 'image_ids', 'files', 'boxes', 'areas', 'keypoints'))
    assert told == '' and '1 ' in said and 'left out' in said


# ---------------------------------------------------------------- to the end of a training

def small(root, out, **more):
    return run.config(dict(data='coco', root=str(root), labels=4, preset='tiny', steps=2, out=str(out), device='cpu', override=dict(n_labelled=2, n_unlabelled=4, workers=0)) | more)


@pytest.fixture
def cache(tmp_path, monkeypatch): monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'store'))


@pytest.mark.parametrize('J', [1, 4, 133])
def test_any_number_of_joints(J, tmp_path, cache):
    names = [f'{s}_{i}' for i in range(J//2) for s in ('left', 'right')] + ['tip']*(J % 2)
    root = write(tmp_path/'data', content(names, 12))
    x = training.fit(training.start(small(root, tmp_path/'run')))
    m = training.finish(x)
    assert len(x.skeleton.pairs) == J//2 and m['headline']['PCK'] is not None and any(f'of {J} joints' in n for n in m['notes'])
    y = result.load(tmp_path/'run', 'cpu')
    again = result.evaluate(y, load('coco', root, 'val'), tmp_path/'again')
    assert y.skeleton == x.skeleton and again['headline'] == m['headline'] and again['notes'] == m['notes']


def test_joints_in_another_spelling_and_order(tmp_path, cache):
    names = ['nose', 'left_ear', 'right_ear', 'left_hip', 'right_hip']
    root = write(tmp_path/'data', d := content(names, 12))
    order, spelt = [0, 4, 3, 2, 1], ['Nose', 'R.Hip', 'L.Hip', 'R.Ear', 'L.Ear']
    for a in d['annotations']: a['keypoints'] = np.reshape(a['keypoints'], (5, 3))[order].ravel().tolist()
    d['categories'][0]['keypoints'] = spelt
    other = write(tmp_path/'other', d)
    x = training.fit(training.start(small(root, tmp_path/'run')))
    training.finish(x)
    y = result.load(tmp_path/'run', 'cpu')
    a, b = (result.evaluate(y, load('coco', r, 'val'), tmp_path/r.name) for r in (root, other))
    assert a['networks'] == b['networks']
    d['categories'][0]['keypoints'][1] = 'R.Knee'
    with pytest.raises(InputError, match="have different joints: .*'left_hip'|'right_hip' is the first"):
        result.evaluate(y, load('coco', write(tmp_path/'third', d), 'val'), tmp_path/'c')


def test_a_broken_photo_costs_its_people_alone(tmp_path, cache):
    root = write(tmp_path/'data', content(n=12))
    f = root/'train/1.jpg'
    f.write_bytes(f.read_bytes()[:-200])
    with pytest.warns(UserWarning, match='1 photo that cannot be decoded is left out'): x = training.start(small(root, tmp_path/'run', labels=2))
    assert len(x.train) == 8 and set(x.train.files.tolist()) == {'2.jpg', '3.jpg'} and any('1 photo that' in n for n in run.facts(tmp_path/'run')['notes'])
    run.unlock(tmp_path/'run')
    with pytest.raises(InputError, match='1.jpg is not a whole picture'): training.start(small(root, tmp_path/'strict', bad='refuse', labels=2))


def test_what_is_given_reaches_the_run(tmp_path, cache):
    root = write(tmp_path/'data', content(PAWS, 12))
    c = small(root, tmp_path/'run', flip_pairs='paw_1:paw_2', sigmas='.1,.1,.1,.1')
    assert training.assemble(c).skeleton.pairs == ((1, 2),) and training.assemble(c).learner.setup.recipe.weak.mirrored > 0
    assert training.assemble(small(root, tmp_path/'other')).learner.setup.recipe.weak.mirrored == 0


# ---------------------------------------------------------------- what crops take on disk

def test_the_cache_is_listed_and_cleared(tmp_path, cache, capsys):
    from sshpe.data.cache import clear, kept_things
    root, store = write(tmp_path/'data', content(n=12)), tmp_path/'store'
    train, val = (load('coco', root, s) for s in ('train', 'val'))
    a, b = (build_store(p, (32, 32), 1.).canvases[:] for p in (train, val))
    (store/'networks').mkdir(); (store/'networks/x').write_bytes(bytes(9))
    for k in kept_things(): os.utime(k.path, (dict([('coco-train', 1), ('coco-val', 2)]).get(k.data, 0),)*2)
    assert [(k.data, k.what) for k in kept_things()] == [('networks', 'other'), ('coco-train', 'crops'), ('coco-val', 'crops')]
    assert all(k.bytes == sum(f.stat().st_size for f in k.path.rglob('*') if f.is_file()) for k in kept_things())
    assert (build_store(train, (32, 32), 1.).canvases[:] == a).all() and [k.data for k in kept_things()][-1] == 'coco-train'      # used again
    assert main(['cache', '--json']) == 0 and {r['data'] for r in json.loads(capsys.readouterr().out)} == {'coco-train', 'coco-val', 'networks'}
    one = kept_things()[-1].bytes
    assert [k.data for k in clear(most=one)] == ['coco-val'] and clear(most=one) == [] and clear('coc') == []
    assert main(['cache', '--clear', '--data', 'coco']) == 0 and [k.what for k in kept_things()] == ['other']
    assert (build_store(val, (32, 32), 1.).canvases[:] == b).all()
    with pytest.raises(InputError, match='0 bytes or more'): clear(most=-1)


def smooth(size):
    "A photo without sharp edges: averages of it are what a JPEG decodes, to a few grey levels."
    x, y = np.meshgrid(*(np.arange(n) for n in size))
    return Image.fromarray(np.stack([128+100*np.sin(x/37), 128+100*np.cos(y/53), 255*x/size[0]], -1).astype(np.uint8))


@pytest.mark.parametrize('size', [(640, 480), (333, 251), (8, 3), (1, 1)])
@pytest.mark.parametrize('end', ['.jpg', '.png', '.tif'])
@pytest.mark.parametrize('k', [2, 4, 8])
def test_photos_opened_smaller(k, end, size, tmp_path):
    (im := smooth(size)).save(f := tmp_path/f'a{end}')
    a = np.asarray(im, float)
    ends = [slice(i, i+k) for i in range(0, max(size), k)]
    means = np.array([[a[y, x].mean((0, 1)) for x in ends if x.start < size[0]] for y in ends if y.start < size[1]])
    small = open_photo(f, size, k)
    assert small.size == (-(-size[0]//k), -(-size[1]//k)) and np.abs(np.asarray(small)-means).max() < (12 if end == '.jpg' else 2)
    with pytest.raises(InputError, match=re.escape(f'is {size} pixels wide and high, but the data set says (7, 7)')): open_photo(f, (7, 7), k)


@pytest.mark.parametrize('end', ['.jpg', '.png', '.tif'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_turned_photos_opened_smaller(turn, end, tmp_path):
    im = smooth((202, 131))
    f, raw = stored(tmp_path, im, turn, end)
    for want, sizes in ((im, (None, im.size)), (raw, (raw.size,) if turn > 4 else ())):
        for s in sizes: # pixels at an edge that is no multiple of 4 may hold fewer of the photo's
            got, near = np.asarray(open_photo(f, s, 4), float), np.asarray(want.reduce(4), float)
            assert got.shape == near.shape and np.abs(got-near)[2:-2,2:-2].max() < 16


def test_a_crop_of_a_large_photo(tmp_path):
    "A disc in a photo of 12 million pixels is where the matrix says, whoever else is in the photo."
    at, a = np.array([2510.3, 1190.8]), np.zeros((3000, 4000, 3), np.uint8)
    Y, X = np.mgrid[:3000, :4000]
    a[(X-at[0])**2+(Y-at[1])**2 < 90**2] = 255
    Image.fromarray(a).save(f := tmp_path/'a.jpg', quality=95)
    (M,), size = frames([(1500, 200, 1600, 2600)], (192, 128)), (192, 128)
    part, k = covered(M[None], np.array([(4000, 3000)]), size, size)[0], enough(M)
    assert k == 8
    for k in (1, 8):
        c = np.asarray(cut(open_photo(f, k=k), M, part, size, size, k), float)[...,0].clip(130)-130 # beyond the photo it is 124
        y, x = np.mgrid[:192, :128]
        assert np.abs([(c*x).sum()/c.sum(), (c*y).sum()/c.sum()]-(M[:,:2]@at+M[:,2])).max() < .05
    small, large = Look(1, str(f), [((2400, 1100, 200, 200), 1.), ((1500, 200, 1600, 2600), 1.)]), Look(1, str(f), [((1500, 200, 1600, 2600), 1.)])
    assert (cut_out(small, size, 1.)[0][1].canvas == cut_out(large, size, 1.)[0][0].canvas).all()


@given(st.floats(1e-3, 3))
def test_two_pixels_are_left_for_each_of_the_crop(s):
    k = enough(np.array([[s, 0, 0], [0, s, 0]]))
    assert k in (1, 2, 4, 8) and (k == 1 or 1/(k*s) >= 2) and (k == 8 or 1/(2*k*s) < 2)
