"""Reading, checking, cutting: against pycocotools, drawn photos whose truth is known, and every kind of bad input."""
import copy, json, os, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from sshpe.data import coco, crops, lsp, people
from sshpe.errors import InputError
from sshpe.data.category import read_skeleton
from sshpe.data.coco import read_coco, read_folder, whole_photos
from sshpe.data.crops import build_store, canvas_size, FILL, frames, to_crop
from sshpe.data.lsp import read_lsp
from sshpe.data.people import open_photo
from sshpe.data.registry import fingerprint, load
from sshpe.pose.skeleton import COCO17, LSP14, mirror_pairs

PHOTOS = os.environ.get('SSHPE_PHOTOS')
photos = pytest.mark.skipif(not PHOTOS, reason='SSHPE_PHOTOS does not point at a folder with real photos')


def person(id, image, x=20, y=10, w=30, h=60, J=17, **more):
    k = np.array([[x + 1 + (w-2)*j/J, y + 1 + (h-2)*j/J, 1 + j % 2] for j in range(J)])
    return dict(id=id, image_id=image, category_id=1, bbox=[x, y, w, h], area=w*h*.6, iscrowd=0, num_keypoints=J,
                keypoints=k.round(2).ravel().tolist()) | more


def category(**more):
    limbs = [[a+1, b+1] for a, b in COCO17.limbs]
    return dict(id=1, name='person', supercategory='person', keypoints=list(COCO17.joints), skeleton=limbs) | more


def content():
    "Three photos; four good people (1, 2, 5, 6), a crowd (3), somebody without joints (4)."
    empty = person(4, 2, num_keypoints=0, keypoints=[0]*51)
    people = [person(1, 1), person(2, 1, 40, 30, 20, 20), person(3, 2, iscrowd=1), empty, person(5, 2), person(6, 3)]
    images = [dict(id=i, file_name=f'{i}.jpg', width=80+i, height=100) for i in (1, 2, 3)]
    return dict(images=images, categories=[category()], annotations=people)


def write(root, d, photos=(1, 2, 3)):
    (root/'annotations').mkdir(parents=True, exist_ok=True); (root/'train').mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in photos: Image.fromarray(rng.integers(0, 255, (100, 80+i, 3), np.uint8)).save(root/f'train/{i}.jpg')
    (root/'annotations/person_keypoints_train.json').write_text(d if isinstance(d, str) else json.dumps(d))
    return root


@pytest.fixture
def tiny(tmp_path): return write(tmp_path/'tiny', content())


@pytest.fixture
def cache(tmp_path): return tmp_path/'cache'


# ---------------------------------------------------------------- reading

def against_pycocotools(people):
    from pycocotools.coco import COCO
    coco = COCO(people.annotations)
    truth = [a for a in coco.loadAnns(coco.getAnnIds(iscrowd=False)) if max(a['keypoints'][2::3]) > 0]
    row = {a: i for i, a in enumerate(people.ann_ids.tolist())}
    assert set(row) == {a['id'] for a in truth} and len(row) == len(people) == len(truth)
    p, ims = people[[row[a['id']] for a in truth]], [coco.imgs[a['image_id']] for a in truth]
    assert p.image_ids.tolist() == [im['id'] for im in ims] and p.files.tolist() == [im['file_name'] for im in ims]
    assert p.sizes.tolist() == [[im['width'], im['height']] for im in ims]
    np.testing.assert_allclose(p.boxes, [a['bbox'] for a in truth], rtol=1e-6)
    np.testing.assert_allclose(p.keypoints.reshape(len(p), -1), [a['keypoints'] for a in truth], rtol=1e-6)
    np.testing.assert_allclose(p.areas, [a['area'] for a in truth], rtol=1e-6)
    return len(truth)


def test_coco_as_pycocotools_reads_it(tiny, capsys):
    p = load('coco', tiny)
    assert against_pycocotools(p) == 4
    assert p.ann_ids.tolist() == [1, 2, 5, 6]
    assert p.skeleton is COCO17
    assert p.name == 'coco-train'


@pytest.mark.parametrize('split', ['train', 'val', 'wild'])
def test_shipped_people_as_pycocotools_reads_them(split, capsys):
    assert against_pycocotools(load('people', split=split)) >= 500


@photos
@pytest.mark.parametrize('split, n', [('train', 86), ('val', 68)])
def test_real_coco_as_pycocotools_reads_it(split, n, capsys):
    assert against_pycocotools(load('coco', Path(PHOTOS)/'coco_mini', split)) == n


def test_rows_of_people(tiny):
    p = load('coco', tiny)
    for rows in ([2, 0], np.array([False, True, False, True]), slice(1, 3), torch.tensor([3, 1]), 2):
        q, expect = p[rows], np.atleast_1d(np.arange(4)[np.asarray(rows) if not isinstance(rows, slice) else rows])
        assert q.ann_ids.tolist() == p.ann_ids[expect].tolist()
        assert q.keypoints.shape == (len(expect), 17, 3)
        assert q.sizes.shape == (len(expect), 2)
        assert q.name == p.name and q.annotations == p.annotations


def test_area_of_the_box_where_the_file_has_none(tmp_path):
    d = content(); del d['annotations'][0]['area']
    assert load('coco', write(tmp_path, d)).areas[0] == 30*60


def test_crowds_and_people_of_other_categories_are_left_out(tmp_path):
    d = content()
    d['categories'].append(dict(id=2, name='hand', keypoints=['thumb', 'index'], skeleton=[[1, 2]]))
    d['annotations'].append(person(9, 1, J=2, category_id=2))
    write(tmp_path, d)
    with pytest.raises(InputError, match='person, hand have different joints'): load('coco', tmp_path)
    at = (tmp_path/'annotations/person_keypoints_train.json', tmp_path/'train')
    assert read_coco(*at, category='person').ann_ids.tolist() == [1, 2, 5, 6]
    hand = read_coco(*at, category='hand')
    assert hand.ann_ids.tolist() == [9]
    assert hand.skeleton.joints == ('thumb', 'index')
    assert hand.skeleton.limbs == ((0, 1),)
    with pytest.raises(InputError, match="no category 'hans': did you mean 'hand'"):
        read_coco(*at, category='hans')


def test_another_data_set_s_joints_come_in_by_name():
    k = np.arange(2*3*3, dtype=float).reshape(2, 3, 3)
    p = lsp.in_coco(k, ['neck', 'left_hip', 'nose'])
    assert p.shape == (2, 17, 3) and (p[:, 11] == k[:, 1]).all() and (p[:, 0] == k[:, 2]).all()
    assert (np.delete(p, [0, 11], 1) == 0).all() and lsp.in_coco(k[:0], ['nose', 'a', 'b']).shape == (0, 17, 3)


def test_each_header_is_read_once(tiny, monkeypatch):
    seen, real = [], people.photo_size
    monkeypatch.setattr(people, 'photo_size', lambda f: seen.append(Path(f).name) or real(f))
    sizes = people.photo_sizes(tiny/'train', ['2.jpg', '1.jpg', '2.jpg', 'gone.jpg'])
    assert sizes.tolist() == [[82, 100], [81, 100], [82, 100], [0, 0]] and sorted(seen) == ['1.jpg', '2.jpg', 'gone.jpg']
    assert people.photo_sizes(tiny, []).shape == (0, 2)


@pytest.mark.parametrize('xs, shape, good', [([1, 2.5], (2,), True), ([1], (2,), False), ([[1, 2], [3, 4]], (2, 2), True), ([[1, 2], [3]], (2, 2), False),
                                             (None, (1,), False), ([None], (1,), False), (['x'], (1,), False), ([10**400], (1,), False), ({}, (1,), False)])
def test_json_lists_as_numbers(xs, shape, good):
    a = coco.numbers(xs, *shape)
    assert (a is not None and a.shape == shape and a.tolist() == xs) == good


# ---------------------------------------------------------------- skeletons

def test_skeleton_of_a_category():
    s = read_skeleton(dict(name='animal', keypoints=['L_Eye', 'R_Eye', 'Nose', 'L_F_Paw', 'R_F_Paw'], skeleton=[[1, 3], [2, 5]]))
    assert s.pairs == ((0, 1), (3, 4)) and s.flip == (1, 0, 2, 4, 3) and s.limbs == ((0, 2), (1, 4))
    assert s.sigmas[:3] == (.025, .025, .026) and s.sigmas[3] == pytest.approx(np.mean(COCO17.sigmas), abs=1e-4)
    assert s.assumed == ('L_F_Paw', 'R_F_Paw')
    assert read_skeleton(category()) is COCO17
    assert read_skeleton(category(sigmas=[.1]*17)).sigmas == (.1,)*17


@pytest.mark.parametrize('names, pairs', [
    (COCO17.joints, COCO17.pairs), (['ankle_l', 'ankle_r', 'skull_top'], ((0, 1),)), (['Left Hand', 'Right Hand'], ((0, 1),)),
    (['left_a_l', 'right_a_l', 'right_a_r', 'left_a_r'], ((0, 1), (3, 2))), (['right_knee', 'left_knee'], ((1, 0),)), (['left_only', 'nose'], ()), (LSP14, ((3, 2), (4, 1), (5, 0), (9, 8), (10, 7), (11, 6)))])
def test_mirror_pairs(names, pairs): assert sorted(mirror_pairs(names)) == sorted(pairs)


# ---------------------------------------------------------------- bad input

def edit(path, value):
    "A change of the json: ('annotations', 0, 'bbox') -> value; KeyError removes."
    def change(d):
        for k in path[:-1]: d = d[k]
        if value is KeyError: del d[path[-1]]
        else: d[path[-1]] = value
    return change


def joint(i, j, x, y, v=2):
    def change(d): d['annotations'][i]['keypoints'][3*j:3*j+3] = [x, y, v]
    return change


def both(*changes):
    def change(d):
        for c in changes: c(d)
    return change


A, I, C = 'annotations', 'images', 'categories'
WRONG = {
    'keypoint count': (edit((A, 0, 'keypoints'), [1, 2, 2]*16), r'person 1 has keypoints \(48 entries\) that are not the 3 x 17 numbers'),
    'keypoints not numbers': (edit((A, 0, 'keypoints'), ['x']*51), 'person 1 has keypoints'),
    'num_keypoints': (edit((A, 0, 'num_keypoints'), 3), 'person 1 has num_keypoints 3 but 17 joints with v above 0'),
    'NaN joint': (joint(0, 2, float('nan'), 5), r"person 1 in '1.jpg' has a labelled joint that is not a finite number \(right_eye at nan, 5"),
    'infinite joint': (joint(0, 2, 5, 1e400), 'not a finite number'),
    'joint outside': (joint(4, 9, 300, 5), r'person 5 .* outside its photo \(left_wrist at 300, 5'),
    'joint left of it': (joint(4, 9, -3, 5), 'outside its photo'),
    'visibility': (joint(0, 0, 5, 5, 3), 'visibility that is not 0, 1 or 2'),
    'box without area': (edit((A, 1, 'bbox'), [5, 5, 0, 20]), 'person 2 .* box without area .*w 0, h 20'),
    'negative box': (edit((A, 1, 'bbox'), [5, 5, -9, 20]), 'box without area'),
    'NaN box': (edit((A, 1, 'bbox'), [float('nan'), 5, 9, 20]), 'box without area'),
    'box outside': (edit((A, 1, 'bbox'), [500, 5, 9, 20]), 'box outside its photo'),
    'three numbers as box': (edit((A, 1, 'bbox'), [5, 5, 9]), 'person 2 .* has a box without area'),
    'area 0': (edit((A, 1, 'area'), 0), 'person 2 .* no area above 0'),
    'no photo': (edit((I, 0, 'file_name'), 'gone.jpg'), "person 1 in 'gone.jpg' has no photo"),
    'photo out of the root': (edit((I, 0, 'file_name'), '../secret.jpg'), "'../secret.jpg' points out of the photos' folder"),
    'absolute photo': (edit((I, 0, 'file_name'), '/etc/passwd'), "'/etc/passwd' points out"),
    'photo on a drive': (edit((I, 0, 'file_name'), 'C:\\x.jpg'), 'points out'),
    'size of the photo': (edit((I, 0, 'width'), 0), "the list has no width and height of '1.jpg'"),
    'two people with one id': (edit((A, 1, 'id'), 1), r'annotations\[1\] has the id 1 of an earlier one'),
    'two photos with one id': (edit((I, 1, 'id'), 1), 'images has the id 1 more than once'),
    'id as text': (edit((A, 1, 'id'), '2'), r"annotations\[1\] has the id '2'"),
    'huge id': (edit((A, 1, 'id'), 2**63), r'annotations\[1\] has no id'),
    'no keypoints': (edit((A, 0, 'keypoints'), KeyError), r'person 1 has keypoints \(no entries\)'),
    'unknown photo': (edit((A, 0, 'image_id'), 77), 'person 1 has the image 77, which is not in the file'),
    'unknown category': (edit((A, 0, 'category_id'), 77), 'person 1 has the category 77'),
    'crowd as text': (edit((A, 0, 'iscrowd'), 'no'), 'iscrowd'),
    'count as list': (edit((A, 0, 'num_keypoints'), [1, 2]), r'num_keypoints \[1, 2\] but 17 joints'),
    'numbers as text': (edit((A, 0, 'keypoints', 0), '12.5'), 'keypoints .51 entries. that are not the 3 x 17 numbers'),
    'box of truths': (edit((A, 0, 'bbox'), [True]*4), 'person 1 .* has a box without area'),
    'no images': (edit((I,), KeyError), 'not a COCO keypoint file: .*no list "images"'),
    'images as object': (edit((I,), {}), 'no list "images"'),
    'no people': (edit((A,), []), 'not a COCO keypoint file'),
    'crowds only': (both(*(edit((A, i, 'iscrowd'), 1) for i in range(6))), 'no person with a labelled joint'),
    'no joints in the category': (edit((C, 0, 'keypoints'), KeyError), 'no category lists "keypoints"'),
    'a joint twice': (edit((C, 0, 'keypoints', 1), 'nose'), 'must list different names'),
    'limb without joint': (both(edit((C, 0, 'keypoints', 1), 'eye'), edit((C, 0, 'skeleton', 0), [1, 18])), 'the limb .1, 18. is not two of 17 joints'),
    'sigmas': (edit((C, 0, 'sigmas'), [0]*17), '"sigmas" must be 17 numbers above 0'),
}


@pytest.mark.parametrize('kind', WRONG)
def test_bad_json_is_one_sentence(kind, tmp_path):
    d = content(); change, says = WRONG[kind]
    change(d)
    with pytest.raises(InputError, match=says) as e: load('coco', write(tmp_path, d), bad='refuse')
    assert 'person_keypoints_train.json' in str(e.value)
    assert '\n' not in str(e.value)
    assert len(str(e.value)) < 600


@pytest.mark.parametrize('text, says', [
    ('not json', 'is not json'), ('[1, 2]', 'must be an object'), ('{}', 'no list "categories"'), ('['*100000, 'is not json'),
    ('\udcff', 'is not json'), ('{"images": [' + '9'*5000 + ']}', 'is not')])
def test_not_coco(text, says, tmp_path):
    write(tmp_path, content())
    (tmp_path/'annotations/person_keypoints_train.json').write_bytes(text.encode('utf8', 'surrogateescape'))
    with pytest.raises(InputError, match=says): load('coco', tmp_path)


def test_all_problems_together(tmp_path):
    d = content()
    for change in (joint(0, 0, 999, 5), joint(1, 1, 5, 999), edit((A, 4, 'bbox'), [1, 1, 0, 0]), edit((A, 5, 'keypoints'), [])): change(d)
    with pytest.raises(InputError, match='4 problems: .*; and 1 more. bad=refuse asked for that') as e:
        load('coco', write(tmp_path, d), bad='refuse')
    assert len(e.value.people) == 3 and len(e.value.problems) == 4 and {s.split()[1] for s in e.value.problems} == {'1', '2', '5', '6'}


def test_bad_people_can_be_left_out(tmp_path):
    d = content()
    joint(0, 0, 999, 5)(d); d['annotations'][5]['keypoints'] = []
    with pytest.warns(UserWarning, match='1 person whose keypoints .* is left out; 1 joint outside its photo is taken as not labelled'):
        p = load('coco', write(tmp_path, d))
    assert p.ann_ids.tolist() == [1, 2, 5] and p.keypoints[0, 0].tolist() == [0, 0, 0] and (p.keypoints[0, 1:, 2] > 0).all()
    with pytest.raises(InputError, match="no answer to bad data 'refsue': did you mean 'refuse'"):
        load('coco', tmp_path, bad='refsue')


def test_two_pixels_outside_are_forgiven(tmp_path):
    d = content(); joint(0, 0, -2, 101)(d)
    with pytest.warns(UserWarning, match='1 joint up to 2 pixels outside its photo is taken to its edge'): p = load('coco', write(tmp_path, d))
    assert p.keypoints[0, 0].tolist() == [-.5, 99.5, 2]


def test_missing_folders(tiny, tmp_path):
    for args, says in [(('coco', tmp_path/'no'), 'there is no folder'),
                       (('coco', tiny, 'val'), 'has no annotations/person_keypoints_val.json'),
                       (('coc', tiny), "no data set 'coc': did you mean 'coco'"),
                       (('coco',), 'give root'), (('lspet', tiny), 'no file .*joints.mat'),
                       (('folder', tiny/'annotations'), 'no .jpg, .jpeg, .png'), (('folder', tmp_path/'no'), 'there is no folder')]:
        with pytest.raises(InputError, match=says): load(*args)
    with pytest.raises(InputError, match='there is no folder .*x with the photos'):
        read_coco(tiny/'annotations/person_keypoints_train.json', tiny/'x')


leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-3, 120), st.floats(), st.text(max_size=4),
                 st.sampled_from([[], {}, [[1]], '../1.jpg', '1.jpg', '\0', 'x'*300, 1e300, 2**70, -1]))


@settings(max_examples=150)
@given(st.data())
def test_no_json_ends_in_a_traceback(tmp_path_factory, pick):
    "Any change of the json is refused in a sentence, or gives people whose every value passes the checks."
    root = tmp_path_factory.getbasetemp()/'fuzz'
    d = content()
    for _ in range(pick.draw(st.integers(1, 3))):
        at = d
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            k = pick.draw(st.sampled_from(list(keys)))
            if isinstance(at[k], (dict, list)) and at[k] and pick.draw(st.integers(0, 9)): at = at[k]; continue
            at[k] = copy.deepcopy(pick.draw(leaf)); break
        if not d: break
    if not root.exists(): write(root, content())
    (root/'annotations/person_keypoints_train.json').write_text(json.dumps(d))
    try: p = load('coco', root)
    except InputError as e: assert '\n' not in str(e)
    else: assert len(p) and np.isfinite(p.boxes).all() and (p.boxes[:, 2:] >= 1).all() and np.isfinite(p.keypoints[p.keypoints[..., 2] > 0]).all()


# ---------------------------------------------------------------- what was read before

@pytest.fixture
def large(tiny, tmp_path, monkeypatch):
    "Every json counts as large."
    monkeypatch.setattr(coco, 'LARGE', 0); monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'cache'))
    return tiny


def same(p, q):
    for k in coco.INDEX_COLUMNS: np.testing.assert_array_equal(getattr(p, k), getattr(q, k))
    assert (p.name, p.root, p.annotations, p.skeleton) == (q.name, q.root, q.annotations, q.skeleton)
    return True


def test_a_large_json_is_read_once(large, tmp_path, monkeypatch):
    p = load('coco', large)
    real = coco.read_json
    monkeypatch.setattr(coco, 'read_json', lambda f: pytest.fail('read again'))
    q = load('coco', large)
    assert same(p, q) and q.skeleton is COCO17 and fingerprint(p) == fingerprint(q) and len(list((tmp_path/'cache').glob('index-*'))) == 1
    f = large/'annotations/person_keypoints_train.json'
    os.utime(f, (1, 1))                                                                 # another time is no other file
    assert same(p, load('coco', large))
    monkeypatch.setattr(coco, 'read_json', real)
    d = content(); d['annotations'][0]['bbox'][0] += 1; f.write_text(json.dumps(d))
    assert load('coco', large).boxes[0, 0] == p.boxes[0, 0] + 1


def test_what_was_kept_is_checked_all_the_same(large, monkeypatch):
    load('coco', large)
    (large/'train/2.jpg').unlink()
    with pytest.raises(InputError, match='person 5 .* has no photo'): load('coco', large, bad='refuse')
    d = content(); joint(0, 0, 999, 5)(d); d['annotations'][5]['keypoints'] = []
    (large/'annotations/person_keypoints_train.json').write_text(json.dumps(d))
    said = []
    for _ in range(2):
        with pytest.raises(InputError) as e: load('coco', large, bad='refuse')
        said.append(e.value.problems)
        monkeypatch.setattr(coco, 'read_json', lambda f: pytest.fail('read again'))
    assert said[0] == said[1] and len(said[0]) == 3


def test_each_category_is_kept_apart(large):
    d = content(); d['categories'].append(dict(id=2, name='hand', keypoints=['L_thumb', 'R_thumb'], skeleton=[[1, 2]], sigmas=[.1, .2]))
    d['annotations'].append(person(9, 1, J=2, category_id=2))
    f = large/'annotations/person_keypoints_train.json'; f.write_text(json.dumps(d))
    for _ in range(2):
        hand, body = (read_coco(f, large/'train', category=c) for c in ('hand', 'person'))
        assert hand.ann_ids.tolist() == [9] and hand.skeleton.sigmas == (.1, .2) and hand.skeleton.flip == (1, 0) and len(body) == 4


def test_nothing_can_be_kept(large, tmp_path, monkeypatch):
    (tmp_path/'file').write_text(''); monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'file'))
    assert len(load('coco', large)) == len(load('coco', large)) == 4


def test_small_files_are_not_kept(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'cache'))
    load('coco', tiny)
    assert not (tmp_path/'cache').exists()


# ---------------------------------------------------------------- photos

def left_in(cache): return sorted(p.name for p in cache.rglob('*') if p.is_file() and p.name != '.lock')


def test_photos_that_are_broken(tiny, cache):
    for i in (1, 3): (tiny/f'train/{i}.jpg').write_bytes((tiny/f'train/{i}.jpg').read_bytes()[:900])
    with pytest.raises(InputError, match='2 problems: .*1.jpg is not a whole picture .*3.jpg is not a whole picture') as e:
        build_store(load('coco', tiny), cache=cache)
    assert 'Replace' in str(e.value) and left_in(cache) == []                  # nothing half-built is left


def test_photo_of_another_size(tiny, cache):
    Image.new('RGB', (81, 99)).save(tiny/'train/1.jpg')
    with pytest.raises(InputError, match=r'1.jpg is \(81, 99\) pixels wide and high, but the data set says \(81, 100\)'):
        build_store(load('coco', tiny), cache=cache)


def test_photo_that_lies_on_its_side(tmp_path):
    exif = Image.Exif(); exif[0x112] = 6                                       # "turn me clockwise to see me"
    Image.fromarray(np.arange(40*60*3, dtype=np.uint8).reshape(40, 60, 3)).save(tmp_path/'a.png', exif=exif)
    assert open_photo(tmp_path/'a.png').size == (40, 60) == people.photo_size(tmp_path/'a.png')
    # a json that means the stored pixels gets them
    assert open_photo(tmp_path/'a.png', (60, 40)).size == (60, 40)
    assert read_folder(tmp_path).sizes.tolist() == [[40, 60]]


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'CMYK', '1', 'I;16'])
def test_every_kind_of_pixel(mode, tmp_path):
    im = Image.new('I;16', (9, 7)) if mode == 'I;16' else Image.new('RGB', (9, 7), (9, 99, 200)).convert(mode)
    im.save(p := tmp_path/('a.jpg' if mode == 'CMYK' else 'a.png'))
    assert open_photo(p).mode == 'RGB' and open_photo(p).size == (9, 7)


@pytest.mark.parametrize('blob', [b'', b'\xff\xd8\xff', b'GIF89a', b'\x89PNG\r\n\x1a\n' + b'\0'*40, b'BM' + b'\xff'*60,
                                  b'II*\0' + b'\1'*80])
def test_not_a_photo(blob, tmp_path):
    (tmp_path/'a.jpg').write_bytes(blob)
    with pytest.raises(InputError, match='a.jpg is not a whole picture'): open_photo(tmp_path/'a.jpg')
    with pytest.raises(InputError, match="1 problem: .*'a.jpg' has a photo without width and height"):
        read_folder(tmp_path)


# ---------------------------------------------------------------- LSP

def write_lsp(root, joints, size=(70, 90), digits=5):
    from scipy.io import savemat
    (root/'images').mkdir(parents=True)
    savemat(root/'joints.mat', dict(joints=joints))
    N = joints.shape[2]
    for i in range(N): Image.new('RGB', size).save(root/f'images/im{i+1:0{digits}d}.jpg')
    return root


def lsp_people(N, seed=0):
    "(N,14,3): places inside 70 x 90, flag 1."
    r = np.random.default_rng(seed)
    return np.concatenate([r.uniform(5, 65, (N, 14, 1)), r.uniform(5, 85, (N, 14, 1)), np.ones((N, 14, 1))], 2)


def test_lspet(tmp_path):
    # hidden; outside; nobody
    j = lsp_people(13); j[0, 0] = -40, -60, 0; j[1, 1, :2] = 20, 400; j[2, :, 2] = 0
    write_lsp(tmp_path, j.transpose(1, 2, 0))
    train, val = load('lspet', tmp_path, 'train'), load('lspet', tmp_path, 'val')
    assert val.ann_ids.tolist() == [6, 12] and train.ann_ids.tolist() == [1, 2, 4, 5, 7, 8, 9, 10, 11, 13]
    assert train.skeleton is COCO17 and train.files[0] == 'im00001.jpg' and train.padding == 1.25
    # the box is around all fourteen joints that are labelled and lie in the photo
    for box, p in zip(train.boxes, train.ann_ids - 1):
        on = np.array([q[:2] for q in j[p] if q[2] and 0 <= q[1] <= 90])
        np.testing.assert_allclose(box, [*on.min(0), *np.ptp(on, axis=0)], rtol=1e-5)
    k = train.keypoints
    assert (k[:, :5] == 0).all()                                                      # no face in LSP
    # each limb joint at its own name
    for n, name in enumerate(LSP14[:12]):
        at = COCO17.joints.index(name)
        np.testing.assert_allclose(k[4:, at], np.c_[j[[6, 7, 8, 9, 10, 12], n, :2], np.full(6, 2)], rtol=1e-6)
    assert (k[0, 16] == 0).all() and (k[1, 14] == 0).all() and (k[..., 2] > 0).sum() == 120 - 2
    on = k[0, k[0, :, 2] > 0, :2]
    assert train.areas[0] == pytest.approx(np.ptp(on, axis=0).prod(), rel=1e-5)


def test_lsp_flags_hidden_joints_the_other_way_round(tmp_path):
    j = lsp_people(3); j[:, :, 2] = 0; j[0, 5, 2] = 1
    p = read_lsp(write_lsp(tmp_path, j.transpose(2, 1, 0), digits=4))
    assert p.files.tolist() == ['im0001.jpg', 'im0002.jpg', 'im0003.jpg']
    assert p.keypoints[0, 15, 2] == 1
    assert (p.keypoints[:, 5:, 2] > 0).all()
    assert (p.keypoints[1:, 5:, 2] == 2).all()


def test_lspet_with_hardly_a_joint(tmp_path):
    j = lsp_people(4); j[0, 1:, 2] = 0; j[1, :12, 2] = 0 # an ankle; neck and head only, which COCO doesn't know
    p = load('lspet', write_lsp(tmp_path, j.transpose(1, 2, 0)), 'train')
    assert p.ann_ids.tolist() == [1, 3, 4] and p.boxes[0].tolist() == [0, 0, 70, 90] and (p.keypoints[0, :, 2] > 0).sum() == 1


def test_bad_lsp(tmp_path):
    from scipy.io import savemat
    write_lsp(tmp_path, lsp_people(4).transpose(1, 2, 0))
    with pytest.raises(InputError, match="no split of LSP 'test'"): load('lspet', tmp_path, 'test')
    (tmp_path/'images/im00002.jpg').unlink()
    with pytest.raises(InputError, match="joints.mat: 1 problem: person 2 in 'im00002.jpg' has no photo"):
        load('lspet', tmp_path, bad='refuse')
    j = lsp_people(4); j[0, 3, 2] = 7; j[2, :, 2] = np.nan
    savemat(tmp_path/'joints.mat', dict(joints=j.transpose(1, 2, 0)))
    with pytest.raises(InputError, match='problems: person 1 .* visibility .*left_hip') as e: load('lspet', tmp_path, bad='refuse')
    assert {s.split()[1] for s in e.value.problems} == {'1', '2', '3'} and any('person 2' in s and 'no photo' in s for s in e.value.problems)
    write_lsp(tmp_path/'all', lsp_people(4).transpose(1, 2, 0)*np.nan)
    with pytest.raises(InputError, match='problems: .*visibility'): load('lspet', tmp_path/'all')
    good = (tmp_path/'joints.mat').read_bytes()
    for j, says in [(dict(joints=lsp_people(4)), 'joints" is .4, 14, 3., not'), (dict(other=1), 'has no array "joints"'),
                    (dict(joints='text'), 'is not a whole MATLAB 5 file')]:
        savemat(tmp_path/'joints.mat', j)
        with pytest.raises(InputError, match=says): load('lspet', tmp_path)
    for cut in (0, 100, 150, len(good)//2, len(good) - 3):
        (tmp_path/'joints.mat').write_bytes(good[:cut])
        with pytest.raises(InputError, match='joints.mat'): load('lspet', tmp_path)


@pytest.mark.parametrize('dtype', ['f8', 'f4', 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8'])
@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('shape', [(1, 1), (3, 1), (14, 3, 5), (3, 14, 2), (0, 3)])
def test_matlab_files_as_scipy_reads_them(dtype, compressed, shape, tmp_path):
    from scipy.io import loadmat, savemat
    a = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    beside = dict(text='hello', struct=dict(x=1), cell=np.array([1, 'a'], object))
    savemat(tmp_path/'a.mat', beside | dict(joints=a, a_long_name_beside_it=a+1), do_compression=compressed)
    b = lsp.read_mat(tmp_path/'a.mat', 'joints')
    assert b.shape == a.shape and (b == a).all() and (b == loadmat(tmp_path/'a.mat')['joints']).all()
    assert (lsp.read_mat(tmp_path/'a.mat', 'a_long_name_beside_it') == a+1).all()


@settings(max_examples=80)
@given(st.data())
def test_no_mat_file_ends_in_a_traceback(tmp_path_factory, pick):
    "scipy.io.loadmat dies of a segmentation fault on some of these."
    from scipy.io import savemat
    f = tmp_path_factory.getbasetemp()/'fuzz.mat'
    savemat(f, dict(joints=lsp_people(2).transpose(1, 2, 0)), do_compression=pick.draw(st.booleans()))
    b = bytearray(f.read_bytes())
    for _ in range(pick.draw(st.integers(1, 4))):
        i = pick.draw(st.integers(120, min(260, len(b) - 1)))
        hostile = st.one_of(st.binary(max_size=4), st.sampled_from([b'\xff\xff\xff\x7f', b'\xff'*4, b'\0'*4]))
        b[i:i + pick.draw(st.sampled_from([0, 1, 4]))] = pick.draw(hostile)
    f.write_bytes(b)
    try: xy, v, val = lsp.lsp_joints(f)
    except InputError as e: assert '\n' not in str(e)
    else: assert xy.shape[1:] == (14, 2) and v.shape == xy.shape[:2] and np.isin(v, (-1, 0, 1, 2)).all()


@photos
def test_real_lspet():
    from scipy.io import loadmat
    assert (lsp.read_mat(f := Path(PHOTOS)/'lspet/joints.mat', 'joints') == loadmat(f)['joints']).all()
    train, val = (load('lspet', Path(PHOTOS)/'lspet', s) for s in ('train', 'val'))
    assert len(train) == 2000
    assert len(val) == 400
    assert not set(train.ann_ids) & set(val.ann_ids)
    assert (val.ann_ids % 6 == 0).all()
    assert (train.keypoints[:, :5, 2] == 0).all() and (train.keypoints[:, 5:, 2] > 0).mean() > .97
    assert ((train.keypoints[..., 0] <= train.sizes[:, :1] + 1) & (train.keypoints[..., 1] <= train.sizes[:, 1:] + 1)).all()


def test_folder(tmp_path):
    for n, s in (('b.png', (30, 50)), ('a.JPG', (40, 40)), ('c.jpeg', (64, 96))): Image.new('RGB', s).save(tmp_path/n)
    (tmp_path/'notes.txt').write_text('x')
    p = load('folder', tmp_path)
    assert p.files.tolist() == ['a.JPG', 'b.png', 'c.jpeg']
    assert (p.keypoints == 0).all()
    assert p.boxes[2].tolist() == [0, 0, 64, 96]
    s = build_store(p, (96, 64), 1., cache=tmp_path/'cache')
    # a crop of the right size is taken as it is
    np.testing.assert_allclose(s.matrix[2], [[1, 0, 0], [0, 1, 0]], atol=1e-6)
    assert (s.canvases[2] == 0).all()


# ---------------------------------------------------------------- geometry

boxes = st.tuples(st.floats(-20, 150), st.floats(-20, 150), st.floats(5, 200), st.floats(5, 200))
sizes = st.sampled_from([(96, 64), (256, 192), (64, 64), (65, 47), (384, 288)])


@given(boxes, sizes, st.floats(1, 2))
def test_frame_holds_the_padded_box_and_no_more(box, size, padding):
    M, (x, y, w, h), (H, W) = frames([box], size, padding)[0], box, size
    # nobody is squeezed or turned
    assert M[0, 0] == M[1, 1] > 0 and M[0, 1] == M[1, 0] == 0
    # box edges are half a pixel before pixel centres
    corners = to_crop(np.array([[x-.5, y-.5], [x+w-.5, y+h-.5]]), M)
    lo, hi = corners[0] + .5, np.array([W, H]) - (corners[1] + .5)
    np.testing.assert_allclose(lo, hi, atol=1e-4*W)                                     # centred
    # and touching in one direction
    np.testing.assert_allclose(max((corners[1] - corners[0])/[W, H]), 1/padding, rtol=1e-4)


@given(st.integers(1, 800), st.floats(1, 2.5))
def test_canvas_is_symmetric(n, margin):
    c, = canvas_size((n,), margin)
    assert (c - n) % 2 == 0 and c >= n and abs(c - margin*n) <= 1 + 1e-9
    if n % 2 == 0: assert c == 2*round(margin*n/2)


@pytest.mark.parametrize('size', [(65, 47), (64, 47), (65, 48)])
def test_odd_crops_are_their_canvases_middle(tmp_path, size):
    "The upright view of a canvas is the crop itself, to the pixel, also where height or width is odd."
    from sshpe.pose.views import crops
    p = many(noise(tmp_path/'photos'))
    store, plain = build_store(p, size, 1.5, cache=tmp_path/'c'), build_store(p, size, 1., cache=tmp_path/'c')
    view = crops(store.batch(range(8)), torch.eye(2, 3).expand(8, 1, 2, 3), size)[0]
    (y, x) = ((np.array(store.canvases.shape[1:3]) - size)//2).tolist()
    mean, std = (np.array(v)[:, None, None] for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    bytes_ = view.numpy()*std + mean
    np.testing.assert_allclose(bytes_, store.batch(range(8)).numpy()[:, :, y:y+size[0], x:x+size[1]], atol=.01)
    inside = [slice(*np.clip([a+1, b-1], 0, n).astype(int)) for a, b, n in ((store.inside[0, 1], store.inside[0, 3], size[0]), (store.inside[0, 0], store.inside[0, 2], size[1]))]
    np.testing.assert_allclose(bytes_[0][:, inside[0], inside[1]], plain.batch([0])[0].numpy()[:, inside[0], inside[1]], atol=1.01)


def test_margin_below_one():
    with pytest.raises(InputError, match='margin must be 1 or more'): canvas_size((96, 64), .9)


def blob(w, h, x, y, r):
    "A photo with a soft white dot centred on (x, y), integers being pixel centres."
    gx, gy = np.arange(w), np.arange(h)
    g = np.exp(-((gx - x)**2)[None]/(2*r*r))*np.exp(-((gy - y)**2)[:, None]/(2*r*r))
    return Image.fromarray((255*g).round().astype(np.uint8)).convert('RGB')


@settings(max_examples=60)
@given(st.integers(60, 700), st.integers(60, 700), st.floats(.05, .6), st.floats(.05, .6), st.floats(.2, .9),
       st.floats(.2, .9), st.sampled_from([1., 1.5, 2.]), st.sampled_from([(96, 64), (65, 47), (256, 192)]), st.floats(.3, .7), st.floats(.3, .7))
def test_a_dot_lands_where_the_matrix_says(tmp_path_factory, w, h, bx, by, bw, bh, margin, size, jx, jy):
    "Cut a photo with one dot, find the dot in the canvas by its centre of mass, compare with the mapped joint."
    box = [bx*w, by*h, bw*w*(1 - bx), bh*h*(1 - by)]
    x, y = box[0] + jx*box[2] - .5, box[1] + jy*box[3] - .5
    s = frames([box], size)[0][0, 0]
    r = max(1.2, 3/s)
    # a dot that the photo cuts has another centre of mass
    if min(x, w-1-x, y, h-1-y) < 4*r: return
    tmp = tmp_path_factory.mktemp('dot')
    blob(w, h, x, y, r).save(tmp/'a.png')
    p = whole_photos('dot', tmp, ['a.png'], [box], np.array([[[x, y, 2]] + [[0, 0, 0]]*16]))
    store = build_store(p, size, margin, cache=tmp/'cache')
    c = store.canvases[0][..., 0].astype(float)
    c[(store.canvases[0] == FILL).all(-1)] = 0
    c[c < 8] = 0
    at = np.array([(c*np.arange(c.shape[1])).sum(), (c*np.arange(c.shape[0])[:, None]).sum()])/c.sum()
    offset = (np.array(c.shape) - size)[::-1]/2
    # cut by the canvas
    if (np.abs(np.array(c.shape)[::-1]/2 - at) > np.array(c.shape)[::-1]/2 - 4*max(3, r*s)).any(): return
    np.testing.assert_allclose(store.keypoints[0, 0, :2] + offset, at, atol=.12)


@settings(max_examples=40)
@given(st.integers(20, 200), st.integers(20, 200), st.floats(-.3, .8), st.floats(-.3, .8), st.floats(.3, 1.5),
       st.floats(.3, 1.5), st.sampled_from([1., 1.5, 2.1]))
def test_inside_says_what_the_photo_fills(tmp_path_factory, w, h, bx, by, bw, bh, margin):
    tmp = tmp_path_factory.mktemp('fill')
    Image.new('RGB', (w, h), (255, 0, 255)).save(tmp/'a.png')
    p = whole_photos('fill', tmp, ['a.png'], [[bx*w, by*h, bw*w, bh*h]])
    store = build_store(p, (64, 48), margin, cache=tmp/'cache')
    c, (x0, y0, x1, y1) = store.canvases[0], store.inside[0]
    off = (np.array(c.shape[:2]) - (64, 48))[::-1]/2
    X, Y = np.meshgrid(np.arange(c.shape[1]) - off[0], np.arange(c.shape[0]) - off[1])
    inside = (X > x0) & (X < x1) & (Y > y0) & (Y < y1)
    assert (c[inside] == (255, 0, 255)).all() and (c[~inside] == FILL).all()
    # every filled pixel shows the photo, and at most one row of it is lost
    M = store.matrix[0].astype(float)
    photo = to_crop(np.array([[-.5, -.5], [w-.5, h-.5]]), M)
    edge = np.clip(photo, -off - .5, np.array([48, 64]) + off - .5)
    gap = np.array([[x0, y0], [x1, y1]]) - edge
    if inside.any(): assert (gap[0] > -1e-3).all() and (gap[0] < 1).all() and (gap[1] < 1e-3).all() and (gap[1] > -1).all()


def test_a_fine_pattern_becomes_grey_not_moire(tmp_path):
    board = ((np.add.outer(np.arange(960), np.arange(640)) % 2)*255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path/'a.png')
    s = build_store(whole_photos('board', tmp_path, ['a.png']), (96, 64), 1., cache=tmp_path/'c')
    assert s.canvases[0].std() < 2 and abs(s.canvases[0].mean() - 127.5) < 2


# ---------------------------------------------------------------- the store

def test_store_is_cut_once(tiny, cache, monkeypatch):
    p = load('coco', tiny)
    a = build_store(p, cache=cache)
    monkeypatch.setattr(crops, 'open_photo', lambda *_: pytest.fail('decoded again'))
    b = build_store(p, cache=cache)
    assert (a.canvases[:] == b.canvases[:]).all() and len(list(cache.iterdir())) == 1 and left_in(cache) == ['00000']


def noise(root, photos=7):
    "Photos that compress badly."
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    for i in range(photos): Image.fromarray(rng.integers(0, 255, (70, 90, 3), np.uint8)).save(root/f'{i}.jpg', quality=60)
    return root


def many(root, photos=7, each=3):
    "People in these photos, listed in a mixed order."
    rng = np.random.default_rng(1)
    files = rng.permutation(np.repeat([f'{i}.jpg' for i in range(photos)], each))
    return whole_photos('many', root, files, rng.uniform((-10, -10, 20, 20), (40, 40, 60, 60), (len(files), 4)))


def files_of(cache): return {str(p.relative_to(cache)): p.read_bytes() for p in cache.rglob('*') if p.is_file()}


@pytest.mark.parametrize('raw', [crops.RAW, 0])
def test_workers_and_photo_order_change_nothing(tmp_path, monkeypatch, raw):
    p = many(noise(tmp_path/'photos'))
    monkeypatch.setattr(crops, 'PAGE', 5); monkeypatch.setattr(crops, 'CROWD', 2)
    stores = [build_store(p, (64, 48), cache=tmp_path/str(n), workers=n, raw=raw) for n in (0, 1, 2, 7)]
    for n in (1, 2, 7): assert files_of(tmp_path/str(n)) == files_of(tmp_path/'0')
    turned = build_store(p[::-1], (64, 48), cache=tmp_path/'turned', raw=raw)
    assert all((s.canvases[:] == stores[0].canvases[:]).all() for s in stores) and (stores[0].canvases[::-1] == turned.canvases[:]).all()
    # a page or a job more or less changes nothing either
    monkeypatch.setattr(crops, 'PAGE', 2048); monkeypatch.setattr(crops, 'CROWD', 32)
    assert (build_store(p, (64, 48), cache=tmp_path/'one', raw=raw).canvases[:] == stores[0].canvases[:]).all()


def by_hand(p, size, margin):
    "Each canvas from its own photo, decoded for it alone."
    canvas, M = canvas_size(size, margin), frames(p.boxes, size, p.padding)
    parts = crops.covered(M, p.sizes, size, canvas)
    return np.stack([np.asarray(crops.cut(open_photo(p.root/f, s), m, part, size, canvas)) for f, s, m, part in zip(p.files, p.sizes, M, parts)])


def test_plain_and_encoded_canvases(tmp_path):
    p = many(noise(tmp_path/'photos'))
    truth = by_hand(p, (64, 48), 1.5)
    plain, coded = (build_store(p, (64, 48), cache=tmp_path/'c', raw=raw) for raw in (truth.nbytes, truth.nbytes-1))
    assert plain.canvases.base.show is None and coded.canvases.base.show
    assert (plain.canvases[:] == truth).all() and (plain.photos == coded.photos).all() and crops.photo_mark(plain) == crops.photo_mark(coded)
    c = coded.canvases[:]
    (Hc, Wc), off = c.shape[1:3], (np.array(c.shape[1:3]) - (64, 48))[::-1]/2
    X, Y = np.meshgrid(np.arange(Wc) - off[0], np.arange(Hc) - off[1])
    for i, (x0, y0, x1, y1) in enumerate(coded.inside):
        inside = (X > x0) & (X < x1) & (Y > y0) & (Y < y1)
        assert (c[i][~inside] == FILL).all()                                            # no ringing at the photo's edge
        assert np.abs(c[i][inside].astype(int) - truth[i][inside]).mean() < 12          # noise is the hardest picture
    rows = [5, 0, 5, 20]
    assert (coded.batch(rows).permute(0, 2, 3, 1).numpy() == c[rows]).all() and (coded[[4, 9]].batch([1]).permute(0, 2, 3, 1).numpy() == c[[9]]).all()
    both = crops.join([plain[:4], coded[10:]])
    assert (both.canvases[:] == np.concatenate([truth[:4], c[10:]])).all() and (both.photos == np.concatenate([plain.photos[:4], plain.photos[10:]])).all()


def test_what_is_too_large_is_encoded(tmp_path, monkeypatch):
    p = many(noise(tmp_path/'photos'))
    size = len(p)*144*96*3
    assert crops.RAW == 4*2**30
    for raw, coded in ((size, False), (size-1, True)): assert (build_store(p, cache=tmp_path/'c', raw=raw).canvases.base.show is not None) == coded
    assert len(list((tmp_path/'c').iterdir())) == 2                                     # one never stands in for the other


def test_a_person_whom_the_photo_does_not_reach(tmp_path):
    p = replace(many(noise(tmp_path/'photos'), 1, 2), boxes=np.float32([[500, 500, 20, 30], [10, 10, 30, 50]]))
    for raw in (crops.RAW, 0):
        c = build_store(p, (64, 48), 1., cache=tmp_path/'c', raw=raw).canvases[:]
        assert (c[0] == FILL).all() and (c[1] != FILL).any()


@pytest.mark.parametrize('raw', [crops.RAW, 0])
def test_a_stopped_store_is_finished(tmp_path, monkeypatch, raw):
    "Stopped at every photo in turn: the pages that were whole stay, and only the others are cut."
    p = many(noise(tmp_path/'photos'))
    monkeypatch.setattr(crops, 'PAGE', 6)
    whole = files_of(build_store(p, (64, 48), cache=tmp_path/'whole', raw=raw) and tmp_path/'whole')
    real = people.open_photo
    for stop in range(7):
        seen = []
        def dying(f, *how):
            seen.append(Path(f).name)
            if f'{stop}.jpg' in seen: raise KeyboardInterrupt
            return real(f, *how)
        monkeypatch.setattr(crops, 'open_photo', dying)
        with pytest.raises(KeyboardInterrupt): build_store(p, (64, 48), cache=tmp_path/f'{stop}', workers=1, raw=raw)
        kept = {k: v for k, v in files_of(tmp_path/f'{stop}').items()}
        assert kept.items() <= whole.items() and len(kept) - 1 >= (stop*3)//6 - 1
        again = []
        monkeypatch.setattr(crops, 'open_photo', lambda f, *how: again.append(f) or real(f, *how))
        build_store(p, (64, 48), cache=tmp_path/f'{stop}', raw=raw)
        assert files_of(tmp_path/f'{stop}') == whole and len(again) <= 7 + 4 - 2*(len(kept) - 1)


KILLED = """
import os, sys, time
from pathlib import Path
from sshpe.data import coco, crops, lsp, people
crops.PAGE, real = 4, people.open_photo
def slow(*a): os.write(1, b'cut\\n'); time.sleep(.03); return real(*a)
crops.open_photo, tmp = slow, Path(sys.argv[1])
p = coco.whole_photos('many', tmp/'photos', [f'{i}.jpg' for i in range(7)]*3, [[i, i, 40, 50] for i in range(21)])
crops.build_store(p, (64, 48), cache=tmp/'cache', workers=2, raw=int(sys.argv[2]))
print('ends', flush=True)
"""


def cutter(tmp, raw, root): return subprocess.Popen([sys.executable, '-c', KILLED, tmp, str(raw)], cwd=root, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize('raw', [crops.RAW, 0])
def test_a_killed_store_is_finished(tmp_path, root, monkeypatch, raw):
    "kill -9 while the first, the sixth and the fourth next photo is cut, then a run to the end: the same files, and what the dead left is swept away."
    noise(tmp_path/'photos')
    for n in (1, 6, 4, None):
        job = cutter(tmp_path, raw, root)
        said = [job.stdout.readline() for _ in range(n)] if n else job.stdout.read().split()
        if n: assert said == ['cut\n']*n
        else: assert said[-1] == 'ends' and len(said) - 1 < 12
        job.kill(); job.wait(); job.stdout.close()
    monkeypatch.setattr(crops, 'PAGE', 4)
    p = whole_photos('many', tmp_path/'photos', [f'{i}.jpg' for i in range(7)]*3, [[i, i, 40, 50] for i in range(21)])
    build_store(p, (64, 48), cache=tmp_path/'whole', raw=raw)
    assert files_of(tmp_path/'cache') == files_of(tmp_path/'whole')


def test_four_processes_cut_once(tmp_path, root):
    "The ranks of a run want the same store at the same time."
    noise(tmp_path/'photos')
    jobs = [cutter(tmp_path, 0, root) for _ in range(4)]
    said = [j.communicate()[0].split() for j in jobs]
    assert all(s[-1] == 'ends' for s in said) and sum(s.count('cut') for s in said) == 11 # seven photos, of which four lie in two pages


def test_one_decode_a_photo(tiny, cache, monkeypatch):
    seen, real = [], people.open_photo
    monkeypatch.setattr(crops, 'open_photo', lambda f, *how: seen.append(Path(f).name) or real(f, *how))
    build_store(load('coco', tiny), cache=cache)
    assert sorted(seen) == ['1.jpg', '2.jpg', '3.jpg']


def test_anything_that_matters_makes_another_store(tiny, cache):
    p = load('coco', tiny)
    build_store(p, cache=cache)
    for q, kw in [(p, dict(margin=1.6)), (p, dict(size=(64, 64))), (p[:3], {}), (replace(p, padding=1.), {}),
                  (replace(p, boxes=p.boxes + 1), {})]:
        before = set(cache.iterdir())
        build_store(q, cache=cache, **kw)
        assert len(set(cache.iterdir()) - before) == 1
    # same list of people, another photo
    Image.new('RGB', (81, 100), (1, 2, 3)).save(tiny/'train/1.jpg')
    assert (abs(build_store(p, cache=cache).canvases[0].astype(int) - (1, 2, 3)) < 3).all(-1).mean() > .3


def test_another_photo_under_the_same_name_and_of_the_same_size(tmp_path, cache):
    "Width, height, length in bytes and the list of people agree; the store and the mark notice, the fingerprint of the list does not."
    a, b = (Image.new('RGB', (60, 80), c) for c in ((200, 30, 30), (30, 30, 200)))
    a.save(tmp_path/'a.png'); a.save(f := tmp_path/'b.png'); length = f.stat().st_size
    p = whole_photos('swap', tmp_path, ['a.png', 'b.png'])
    before, old = build_store(p, cache=cache), f.stat().st_mtime_ns
    b.save(f)
    assert f.stat().st_size == length and f.stat().st_mtime_ns > old
    after = build_store(whole_photos('swap', tmp_path, ['a.png', 'b.png']), cache=cache)
    assert (after.canvases[0] == before.canvases[0]).all() and (after.canvases[1][48, 32] == (30, 30, 200)).all()
    assert (after.photos == before.photos).tolist() == [True, False] and crops.photo_mark(after) != crops.photo_mark(before)
    assert fingerprint(p) == fingerprint(whole_photos('swap', tmp_path, ['a.png', 'b.png']))


def test_the_mark_of_the_photos_moves_with_them(tmp_path):
    import shutil, zlib
    one = build_store(many(noise(tmp_path/'1')), cache=tmp_path/'c')
    shutil.copytree(tmp_path/'1', tmp_path/'2', copy_function=shutil.copyfile)                                         # other folder, other times
    two = build_store(many(tmp_path/'2'), cache=tmp_path/'c')
    assert crops.photo_mark(one) == crops.photo_mark(two) and len(list((tmp_path/'c').iterdir())) == 2
    p = many(tmp_path/'1')
    assert one.photos.tolist() == [zlib.crc32((p.root/f).read_bytes()) for f in p.files] and one.photos.dtype == np.uint32
    assert crops.photo_mark(one) == crops.photo_mark(one[np.arange(len(one))]) != crops.photo_mark(one[1:])


def array_bytes(a):
    import io
    f = io.BytesIO(); np.save(f, a, allow_pickle=True)
    return f.getvalue()


@pytest.mark.parametrize('raw', [crops.RAW, 0])
@pytest.mark.parametrize('harm', [lambda b: b[:5000], lambda b: b'', lambda b: b'x'*9999, lambda b: b[:-1], lambda b: b + b'!',
                                  lambda b: array_bytes(np.zeros(3, np.uint8)), lambda b: array_bytes(np.zeros((4, 2), np.int64)),
                                  lambda b: array_bytes(np.array([{}], object)), lambda b: array_bytes(np.full((4, 2), -1)) + b])
def test_half_a_store_is_not_trusted(tiny, cache, harm, raw):
    p = load('coco', tiny)
    before = build_store(p, cache=cache, raw=raw).canvases[:]
    page, = cache.rglob('00000')
    page.write_bytes(harm(page.read_bytes()))
    assert (build_store(p, cache=cache, raw=raw).canvases[:] == before).all() and left_in(cache) == ['00000']


@pytest.mark.parametrize('harm', [lambda b: b[:-1], lambda b: b[:300] + bytes(len(b) - 300)])
def test_a_store_that_is_harmed_while_in_use(tiny, cache, harm):
    store = build_store(load('coco', tiny), cache=cache, raw=0)
    page, = cache.rglob('00000')
    page.write_bytes(harm(page.read_bytes()))
    with pytest.raises(InputError, match='00000 (was cut off|is damaged).*remove it, and it is written again'): store.canvases[:]


def test_store_that_cannot_be_written(tiny, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(InputError, match='cannot write crops to .*SSHPE_CACHE'):
        build_store(load('coco', tiny), cache=tmp_path/'file')


def test_full_disk(tiny, cache, monkeypatch):
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(InputError, match='no space left on the disk'):
        build_store(load('coco', tiny), cache=cache)
    assert left_in(cache) == []


def test_cache_folder(monkeypatch, root, tmp_path):
    monkeypatch.delenv('SSHPE_CACHE', raising=False)
    assert coco.cache_folder() == root/'data/store'
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path))
    assert coco.cache_folder() == tmp_path


def test_sub_stores_and_batches(tiny, cache):
    s = build_store(load('coco', tiny), cache=cache)
    sub = s[[3, 1, 0]][[2, 0]]
    assert len(sub) == 2
    assert (sub.matrix == s.matrix[[0, 3]]).all()
    assert (sub.inside == s.inside[[0, 3]]).all()
    assert (sub.keypoints == s.keypoints[[0, 3]]).all()
    b = sub.batch(torch.tensor([1, 0, 1]))
    assert b.shape == (3, 3, 144, 96)
    assert b.dtype == torch.uint8
    assert b.is_contiguous(memory_format=torch.channels_last)
    assert (b[0].permute(1, 2, 0).numpy() == s.canvases[3]).all()
    assert (b[1].permute(1, 2, 0).numpy() == s.canvases[0]).all()
    assert sub.canvases.base is s.canvases.base                                         # nothing was copied


def test_unlabelled_joints_have_no_place_in_the_crop(tmp_path, cache):
    d = content(); d['annotations'][0]['keypoints'][:3] = [0, 0, 0]; d['annotations'][0]['num_keypoints'] = 16
    s = build_store(load('coco', write(tmp_path, d)), cache=cache)
    assert s.keypoints[0, 0].tolist() == [0, 0, 0] and (s.keypoints[0, 1:, :2] != 0).all()


def test_joints_land_in_the_crop():
    p = load('people')
    k = to_crop(p.keypoints, frames(p.boxes, (96, 64)))
    on = p.keypoints[..., 2] > 0
    # the padding sees to that
    assert ((k[on][:, :2] > -1) & (k[on][:, :2] < [64, 96])).all(1).mean() > .98


# ---------------------------------------------------------------- fingerprint

def test_fingerprint(tiny):
    p = load('coco', tiny)
    assert fingerprint(p) == fingerprint(load('coco', tiny)) and len(fingerprint(p)) == 12
    k = p.keypoints.copy(); k[0, 0, 0] += .5
    changed = [replace(p, keypoints=k), replace(p, boxes=p.boxes + 1), replace(p, ann_ids=p.ann_ids + 1),
               replace(p, image_ids=p.image_ids + 1), p[:3], replace(p, files=np.array(['x.jpg', *p.files[1:]])), p[[1, 0, 2, 3]]]
    marks = {fingerprint(q) for q in changed}
    assert len(marks) == len(changed) and fingerprint(p) not in marks
    assert fingerprint(replace(p, root=Path('elsewhere'), name='other', files=p.files.astype('<U99'))) == fingerprint(p)


def test_150_000_people_are_small_and_quick():
    from sshpe.data.findings import Findings
    from sshpe.data.mend import mended_boxes, mended_joints, usable
    n = 150_000
    p = replace(whole_photos('big', '.', []), files=np.full(n, '000000000001.jpg'), image_ids=np.arange(n), ann_ids=np.arange(n),
                boxes=np.tile(np.float32([1, 1, 50, 90]), (n, 1)), keypoints=np.full((n, 17, 3), 2, np.float32), areas=np.ones(n, np.float32),
                sizes=np.full((n, 2), 640, np.int32))
    start = time.time()
    f, there = Findings(), np.ones(n, bool)
    assert fingerprint(p) and usable(mended_boxes(mended_joints(p, f), f), there, there, f).all() and not f
    assert frames(p.boxes, (256, 192)).shape == (n, 2, 3)
    assert time.time() - start < 10
    assert sum(getattr(p, f).nbytes for f in ('files', 'keypoints', 'boxes', 'areas', 'sizes', 'ann_ids', 'image_ids')) < 60e6


@pytest.mark.parametrize('what', ['a labelled photo', 'an unlabelled photo', 'a validation photo', 'an area', 'a crowd', 'a copy elsewhere'])
def test_a_run_notices_what_has_changed(what, tmp_path, monkeypatch):
    "Swapped photos of the same name and size, and what only the json says; but not another time of change."
    import shutil
    from sshpe.runs import run, training
    from sshpe.data.toy import stick_people
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'cache'))
    root = stick_people(tmp_path/'sticks', 12, 4, 48)
    c = run.Config(root=str(root), labels=4, preset='tiny', out=str(tmp_path/'run'), override=dict(n_labelled=2, n_unlabelled=4))
    x = training.start(c)
    run.unlock(x.where)
    lab = x.split.labelled[0]
    f = root/'annotations/person_keypoints_val.json'
    d = json.loads(f.read_text())
    if what == 'an area': d['annotations'][0]['area'] *= 2
    if what == 'a crowd': d['annotations'].append(d['annotations'][0] | dict(id=99, iscrowd=1))
    if what in ('an area', 'a crowd'): f.write_text(json.dumps(d))
    elif what == 'a copy elsewhere': shutil.copytree(root, tmp_path/'away', copy_function=shutil.copyfile); shutil.rmtree(root); shutil.move(tmp_path/'away', root)
    else:
        n = lab if 'a labelled' in what else next(i for i in range(1, 13) if i not in x.split.labelled)
        photo = root/('val/000002.png' if 'validation' in what else f'train/{n:06}.png')
        Image.fromarray(255 - np.asarray(Image.open(photo).convert('RGB'))).save(photo)
    if what == 'a copy elsewhere': run.unlock(training.start(c).where); return
    says = 'people-val has changed' if what in ('an area', 'a crowd') else f'the {what.split()[1]} photos have changed'
    with pytest.raises(InputError, match=says): training.start(c)
