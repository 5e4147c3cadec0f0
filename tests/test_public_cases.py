"""Files that people have: each case is what a public report shows or describes, in small; a line says what a reader should make of it."""
import json, warnings
from dataclasses import dataclass
import numpy as np, pytest
from PIL import Image
from pycocotools import mask
from sshpe.data.coco import read_coco
from sshpe.errors import InputError

JOINTS = ['nose', 'left_eye', 'right_eye', 'tail']
XY = {1: [(10, 12), (20, 14), (30, 15), (40, 50)], 2: [(50, 20), (60, 22), (70, 21), (55, 60)], 3: [(15, 40), (25, 30), (35, 33), (60, 70)]}
BOXES = {1: [5, 8, 40, 46], 2: [45, 15, 30, 50], 3: [10, 25, 55, 50]}


def base():
    "Three animals in two photos of 100 x 80 pixels."
    flat = lambda xy: [v for p in xy for v in (*p, 2)]
    return dict(images=[dict(id=1, file_name='a.jpg', width=100, height=80), dict(id=2, file_name='b.jpg', width=100, height=80)],
                annotations=[dict(id=i, image_id=1+(i > 2), category_id=1, iscrowd=0, bbox=BOXES[i], area=1000., num_keypoints=4, keypoints=flat(XY[i])) for i in (1, 2, 3)],
                categories=[dict(id=1, name='animal', keypoints=JOINTS, skeleton=[[1, 2], [1, 3]])])


def people(d, **more):
    for a in d['annotations']: a.update({k: v(a) if callable(v) else v for k, v in more.items()})

def without(d, *keys):
    for a in d['annotations']:
        for k in keys: a.pop(k, None)


@dataclass
class Case:
    where:str # the report that shows or describes it
    right:str # what a reader should make of it
    change:object # of the file
    says:str = '' # what is told: a warning, or the refusal where nobody can be read
    who:tuple = (1, 2, 3) # the ids of those who are read; () = refused
    check:object = lambda p: True # of the people


def first(d): return d['annotations'][0]
def labelled(p): return (p.keypoints[...,2] > 0).tolist()
def as_truth(p): return np.array_equal(p.keypoints[...,:2], [XY[i] for i in (1, 2, 3)])


def nested(d): people(d, keypoints=lambda a: np.reshape(a['keypoints'], (4, 3)).tolist())
def nan(d): first(d)['keypoints'][3:6] = [float('nan'), float('nan'), 0]
def null(d): first(d)['keypoints'][3:6] = [None, None, 0]
def floats(d): nan(d); without(d, 'bbox'); people(d, keypoints=lambda a: [*map(float, a['keypoints'])])
def short(d): del first(d)['keypoints'][9:]
def text_ids(d):
    for i in d['images']: i['id'] = f'{i["id"]:06}'
    people(d, image_id=lambda a: f'{a["image_id"]:06}')
def names_as_ids(d):
    for i in d['images']: i['id'] = i['file_name'].removesuffix('.jpg')
    people(d, image_id=lambda a: 'ab'[a['image_id']-1])
def same_ids(d): people(d, id=lambda a: a['image_id'])
def detection_only(d): without(d, 'keypoints', 'num_keypoints'); del d['categories'][0]['keypoints'], d['categories'][0]['skeleton']
def nobody(d): d['annotations'] = []
def uploaded(d):
    for i in d['images']: i['file_name'] = 'images/1/'+i['file_name']
def windows(d):
    for i in d['images']: i['file_name'] = 'C:\\Users\\me\\pictures\\'+i['file_name']
def addresses(d):
    for i in d['images']: i['file_name'] = 'https://example.org/uploads/'+i['file_name']+'?v=2'
def capitals(d):
    for i in d['images']: i['file_name'] = i['file_name'].upper()
def upwards(d):
    for i in d['images']: i['file_name'] = '..\\label\\'+i['file_name']
def pairs(d): people(d, segmentation=lambda a: [[[x, y] for x, y in np.add(a['bbox'][:2], np.multiply([(0, 0), (1, 0), (1, 1), (0, 1)], a['bbox'][2:])).tolist()]]); without(d, 'area')
def nameless(d): del d['categories'][0]['keypoints']
def other_kind_too(d): d['categories'].append(dict(id=2, name='ball')); d['annotations'].append(dict(id=9, image_id=1, category_id=2, bbox=[1, 2, 3, 4], area=12, iscrowd=0))
def from_zero(d):
    for i in d['images']: i['id'] -= 1
    people(d, image_id=lambda a: a['image_id']-1, category_id=0); d['categories'][0]['id'] = 0
def beyond(d): first(d)['keypoints'][9:12] = [-250, 1090, 0]; people(d, num_keypoints=lambda a: 3 if a['id'] == 1 else 4)
def square(x, y, w, h):
    m = np.zeros((80, 100), np.uint8); m[y:y+h, x:x+w] = 1
    return np.asfortranarray(m)
def runs(a):
    flat = square(*a['bbox']).ravel('F')
    ends = np.flatnonzero(np.diff(flat, prepend=0, append=flat[-1]))
    return dict(size=[80, 100], counts=np.diff(ends, prepend=0, append=len(flat)).tolist())
def loose_runs(d): people(d, segmentation=runs); without(d, 'bbox', 'area')
def packed_runs(d): people(d, segmentation=lambda a: dict(size=[80, 100], counts=mask.encode(square(*a['bbox']))['counts'].decode())); without(d, 'bbox', 'area')
def many_limbs(d): d['categories'][0]['skeleton'] = [[4, 3], [9, 15], [32, 33]]
def no_skeleton(d): del d['categories'][0]['skeleton']
def no_box(d): people(d, bbox=[0, 0, 0, 0], area=0)
def no_joint(d): first(d)['keypoints'] = []; first(d)['num_keypoints'] = 0
def binary(d): people(d, keypoints=lambda a: [min(v, 1) if i % 3 == 2 else v for i, v in enumerate(a['keypoints'])])
def wholebody(d): people(d, face_kpts=[0]*204, lefthand_kpts=[0]*63, righthand_kpts=[0]*63, face_valid=False)
def twelve_classes(d):
    d['categories'] = [dict(d['categories'][0], id=i, name=f'kind {i}') for i in (1, 2, 3)]; people(d, category_id=lambda a: a['id'])
def two_kinds(d): d['categories'].append(dict(id=2, name='lamp', keypoints=['top', 'foot'])); first(d).update(category_id=2, keypoints=[5, 5, 2, 9, 9, 2])
def parent(d): d['categories'].insert(0, dict(id=0, name='animals', supercategory='none'))
def confidences(d): people(d, keypoints=lambda a: [.93 if i % 3 == 2 else v for i, v in enumerate(a['keypoints'])])
def few_fields(d): without(d, 'iscrowd', 'num_keypoints', 'area')
def shares(d): people(d, keypoints=lambda a: [v if i % 3 == 2 else v/(100, 80)[i % 3] for i, v in enumerate(a['keypoints'])])
def true_false(d): people(d, iscrowd=False)
def corners(d): people(d, bbox=lambda a: [a['bbox'][0]+20, a['bbox'][1]+15, a['bbox'][0]+a['bbox'][2]+20, a['bbox'][1]+a['bbox'][3]+15])

CASES = dict(
    nested=Case('detectron2 #2212', 'joints as lists of three are the same joints', nested, check=as_truth),
    nan=Case('fiftyone #3309', 'a joint at NaN with v=0 is not labelled, and that is nothing odd', nan, check=lambda p: labelled(p)[0] == [True, False, True, True]),
    null=Case('a variant of fiftyone #3309', 'so is one at null', null, check=lambda p: labelled(p)[0] == [True, False, True, True]),
    floats=Case('DeepLabCut #2995', 'boxes that an export lacks go around the joints', floats, 'boxes that are missing or empty are computed from the joints',
                check=lambda p: (p.boxes[:,2:] > 10).all() and len(p) == 3),
    short=Case('datumaro #114', 'a person with fewer joints than the skeleton is left out: nobody can tell which are missing', short, '1 person whose keypoints', (2, 3)),
    text_ids=Case('cvat #298', 'ids written as text are numbers', text_ids, 'read as a number', check=as_truth),
    names_as_ids=Case('a variant of cvat #298', 'words may be ids of photos', names_as_ids, check=as_truth),
    same_ids=Case('PaddlePaddle/models #3710', 'people who share an id are different people', same_ids, 'without an own id', (1, 3, 2), lambda p: len(set(p.ann_ids.tolist())) == 3),
    same_as_photo=Case('mmpose #1643', 'a person and a photo may have the same id', lambda d: None, check=as_truth),
    detection_only=Case('label-studio #2851', 'an export without joints is refused in a sentence that says what is missing', detection_only, 'no category lists "keypoints"', ()),
    nobody=Case('cvat #5831', 'a file without annotations is refused', nobody, 'has no people', ()),
    uploaded=Case('label-studio #2441', 'photos are found below their folder, whatever the server prefixed', uploaded, 'are found below', check=as_truth),
    windows=Case('a variant of X-AnyLabeling #700', 'so are those of another machine', windows, 'are found below', check=as_truth),
    addresses=Case('a variant of label-studio #2441', 'so are addresses', addresses, 'are found below', check=as_truth),
    capitals=Case('coco-annotator #262', 'photos are found whose names have other capitals', capitals, 'are found below', check=as_truth),
    upwards=Case('X-AnyLabeling #700', 'photos named from another folder are found in this one', upwards, 'are found below', check=as_truth),
    pairs=Case('mmpose #2248', 'outlines may be points in pairs', pairs, 'areas that are missing or 0 are computed from the segmentation', check=lambda p: p.areas.tolist() == [1840, 1500, 2750]),
    nameless=Case('Dataset_to_VOC_converter #10', 'joints without names are refused, with what to write', nameless, 'write "keypoints"', ()),
    other_kind_too=Case('no report', 'boxes of another kind beside the people are no matter', other_kind_too, check=as_truth),
    corners=Case('detectron2 #2957', 'boxes that are corners are told', corners, 'look like corners', check=as_truth),
    from_zero=Case('detectron2 #1658', 'ids and categories may count from 0', from_zero, check=as_truth),
    beyond=Case('ultralytics #10246', 'a joint outside the photo with v=0 is not labelled, and nothing odd', beyond, check=lambda p: labelled(p)[0] == [True, True, True, False]),
    loose_runs=Case('JSON2YOLO #49', 'boxes and areas come from runs of pixels', loose_runs, 'computed from the segmentation',
                    check=lambda p: np.array_equal(p.boxes, [*BOXES.values()]) and p.areas.tolist() == [1840, 1500, 2750]),
    packed_runs=Case('JSON2YOLO #61', 'also from packed ones', packed_runs, 'computed from the segmentation',
                     check=lambda p: np.array_equal(p.boxes, [*BOXES.values()]) and p.areas.tolist() == [1840, 1500, 2750]),
    many_limbs=Case('coco-annotator #304', 'limbs to joints that are not there are left out', many_limbs, '2 limbs that no two joints fit are left out', check=lambda p: p.skeleton.limbs == ((3, 2),)),
    no_skeleton=Case('fiftyone #3227', 'a category may have no limbs', no_skeleton, check=lambda p: p.skeleton.limbs == ()),
    no_box=Case('coco-annotator #484', 'boxes of nothing are computed from the joints', no_box, 'boxes that are missing or empty are computed', check=as_truth),
    no_joint=Case('cvat #8484', 'somebody without joints is left out', no_joint, 'left out', (2, 3)),
    binary=Case('sleap-io #260', 'v=1 everywhere means labelled', binary, check=lambda p: all(map(all, labelled(p)))),
    wholebody=Case('JSON2YOLO #109', 'lists of face and hands beside the joints are passed over', wholebody, check=as_truth),
    twelve_classes=Case('Detectron #644', 'several categories with the same joints are one kind', twelve_classes, check=as_truth),
    two_kinds=Case('sleap-io #260', 'categories with different joints: somebody must say which', two_kinds, 'say which one is meant, e.g. category=animal', ()),
    parent=Case('no report', 'a category without joints beside one with joints is no matter', parent, check=as_truth),
    confidences=Case('mmpose #687', 'predictions with confidences for v are no labels', confidences, 'has a visibility that is not 0, 1 or 2', ()),
    few_fields=Case('mmpose #1524', 'iscrowd, num_keypoints and area may be missing', few_fields, '3 areas that are missing or 0 are computed from the box', check=as_truth),
    shares=Case('a variant of ultralytics #10246', 'places as shares of the photo are told, not trained on', shares, 'normalised', ()),
    true_false=Case('no report', 'iscrowd may be false', true_false, check=as_truth),
)


def read(d, root):
    for name in 'ab': Image.new('RGB', (100, 80)).save(root/f'{name}.jpg')
    (root/'labels.json').write_text(d if isinstance(d, str) else json.dumps(d))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        return read_coco(root/'labels.json', root), ' '.join(str(w.message) for w in told)


@pytest.mark.parametrize('name', CASES)
def test_a_file_that_somebody_had(name, tmp_path):
    c, d = CASES[name], base()
    c.change(d)
    if not c.who:
        with pytest.raises(InputError, match=c.says) as e: read(d, tmp_path)
        assert '\n' not in str(e.value)
        return
    p, told = read(d, tmp_path)
    assert len(p) == len(c.who) and set(p.ann_ids.tolist()) == set(c.who) and c.check(p), c.right
    assert c.says in told and (c.says or 'left out' not in told and 'taken as' not in told and 'computed' not in told), told


@pytest.mark.parametrize('where, text, says', [
    ('HigherHRNet #45: a results file instead of labels', json.dumps([dict(image_id=1, keypoints=[1, 2, 2], score=.9)]), 'must be an object with images and annotations'),
    ('mmpose #2008: one object for each photo', json.dumps([dict(image='a.jpg', annotations=[])]), 'must be an object with images and annotations'),
    ('coco-annotator #390: annotations by photo', json.dumps(base() | dict(annotations={'1': []})), 'there is no list "annotations"'),
    ('labelme #34: a file of labelme', json.dumps(dict(version='5', shapes=[dict(label='nose', points=[[1, 2]], shape_type='point')], imagePath='a.jpg')), 'there is no list'),
    ('a download that broke off', json.dumps(base())[:-40], 'is not json')])
def test_another_kind_of_file_is_refused_in_a_sentence(where, text, says, tmp_path):
    with pytest.raises(InputError, match=says) as e: read(text, tmp_path)
    assert '\n' not in str(e.value)


def test_letters_with_accents_in_one_piece_or_two(tmp_path):
    "TOV_mmdetection #7: a name that came through another system's zip."
    import unicodedata
    d = base()
    d['images'][0]['file_name'] = unicodedata.normalize('NFC', 'Ödön©.jpg')
    Image.new('RGB', (100, 80)).save(tmp_path/unicodedata.normalize('NFD', 'Ödön©.jpg'))
    p, told = read(d, tmp_path)
    assert as_truth(p) and '1 photo named' in told


def test_two_photos_that_differ_in_capitals_only_are_not_taken_for_a_third(tmp_path):
    d = base()
    d['images'][1]['file_name'] = 'X.JPG'
    for n in 'x.jpg', 'X.jpg': Image.new('RGB', (100, 80)).save(tmp_path/n)
    if len(list(tmp_path.glob('[xX].jpg'))) < 2: pytest.skip('this disk knows no capitals')
    p, told = read(d, tmp_path)
    assert p.ann_ids.tolist() == [1, 2] and 'whose photo is missing' in told


def test_a_byte_order_mark_is_no_matter(tmp_path):
    assert as_truth(read('\ufeff'+json.dumps(base()), tmp_path)[0])
