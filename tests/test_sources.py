"""AI Challenger, MPII, a detector's boxes, and the line that names sources: on small files in the data sets' true layout."""
import copy, json, warnings
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sshpe.errors import InputError
from sshpe.data.crops import build_store, Chain, join
from sshpe.data.registry import READERS, load
from sshpe.pose.skeleton import COCO17, Skeleton
from sshpe.data.aic_mpii import AIC14, in_photo, JOINTS, MPII16
from sshpe.data.boxes import read_boxes
from sshpe.data.sources import full_line, people_of, Source, source, sources

# where the joints of a file stand in COCO's order, by number
AIC_AT = dict(enumerate([6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15]))
MPII_AT = {0: 16, 1: 14, 2: 12, 3: 11, 4: 13, 5: 15, 10: 10, 11: 8, 12: 6, 13: 5, 14: 7, 15: 9}


def test_names_agree_with_the_numbers():
    for names, at in ((AIC14, AIC_AT), (MPII16, MPII_AT)):
        assert {i: COCO17.joints.index(n) for i, n in enumerate(names) if n in COCO17.joints} == at
    for names in JOINTS.values(): assert len(set(names)) == len(names)


# ---------------------------------------------------------------- AI Challenger

def aic_entry(name='a1', n=2, seed=0, **more):
    r = np.random.default_rng(seed)
    k = {f'human{i}': np.concatenate([r.integers(5, 75, (14, 2)), r.integers(1, 4, (14, 1))], 1) for i in range(1, n+1)}
    for j in k.values(): j[0, 2] = 1
    return dict(image_id=name, url='http://example.org', human_annotations={w: [2+i, 3, 60+i, 77] for i, w in enumerate(k)},
                keypoint_annotations={w: j.ravel().tolist() for w, j in k.items()}) | more


def write_aic(root, entries, split='train', photos=True):
    date, images = dict(train=('20170909', '20170902'), validation=('20170911', '20170911'))[split]
    folder = root/f'ai_challenger_keypoint_{split}_{date}'
    photo = folder/f'keypoint_{split}_images_{images}'
    photo.mkdir(parents=True, exist_ok=True)
    (folder/f'keypoint_{split}_annotations_{date}.json').write_text(json.dumps(entries))
    for e in entries if photos else ():
        if isinstance(e, dict) and isinstance(e.get('image_id'), str): Image.new('RGB', (90, 80)).save(photo/f'{e["image_id"]}.jpg')
    return root


def test_aic(tmp_path):
    entries = [aic_entry('b', 2, 1), aic_entry('a', 1, 2)]
    p = load('aic', write_aic(tmp_path, entries))
    assert (p.name, len(p), p.skeleton) == ('aic-train', 3, COCO17)
    assert p.files.tolist() == ['b.jpg', 'b.jpg', 'a.jpg'] and p.image_ids.tolist() == [1, 1, 2] and p.ann_ids.tolist() == [1, 2, 3]
    assert p.sizes.tolist() == [[90, 80]]*3 and p.boxes.tolist() == [[2, 3, 58, 74], [3, 3, 58, 74], [2, 3, 58, 74]]
    assert p.areas.tolist() == [58*74]*3 and p.annotations is None and p.scores is None
    raw = [np.reshape(k, (14, 3)) for e in entries for k in e['keypoint_annotations'].values()]
    for k, r in zip(p.keypoints, raw):
        assert (k[:5] == 0).all()
        for i, j in AIC_AT.items():
            assert k[j].tolist() == ([r[i,0], r[i,1], 2] if r[i,2] == 1 else [r[i,0], r[i,1], 1] if r[i,2] == 2 else [0, 0, 0])
    assert build_store(p, cache=tmp_path/'cache').canvases.shape == (3, 144, 96, 3)


def test_aic_from_inside_its_folder_and_validation(tmp_path):
    write_aic(tmp_path, [aic_entry()]); write_aic(tmp_path, [aic_entry('v', 1)], 'validation')
    inside = load('aic', tmp_path/'ai_challenger_keypoint_train_20170909')
    assert inside.ann_ids.tolist() == [1, 2] and load('aic', tmp_path, 'val').files.tolist() == ['v.jpg']
    for args, says in [((tmp_path/'no',), 'there is no folder'), ((tmp_path, 'test'), "no split of AI Challenger 'test'"),
                       ((tmp_path/'ai_challenger_keypoint_train_20170909/keypoint_train_images_20170902',), 'is that the data set')]:
        with pytest.raises(InputError, match=says): load('aic', *args)
    write_aic(tmp_path/'more', [aic_entry()]); (tmp_path/'more/ai_challenger_keypoint_train_20170909').rename(tmp_path/'ai_challenger_keypoint_train_2018')
    with pytest.raises(InputError, match='has 2 times'): load('aic', tmp_path)


def test_aic_boxes_end_with_the_photo(tmp_path):
    e = aic_entry(n=3)
    e['human_annotations'] = dict(human1=[-9, -9, 300, 300], human2=[50, 20, 40, 60], human3=[200, 10, 300, 60])
    with pytest.warns(UserWarning, match='2 boxes that are missing or empty are computed from the joints'): p = load('aic', write_aic(tmp_path, [e]))
    assert p.ann_ids.tolist() == [1, 2, 3] and p.boxes[0].tolist() == [0, 0, 90, 80] and (p.boxes[:,2:] > 1).all()
    with pytest.raises(InputError, match='2 problems: person 2 .* box without area .*person 3') as err: load('aic', tmp_path, bad='refuse')
    assert len(err.value.people) == 3


boxes = st.tuples(*[st.floats(-200, 300)]*4)


@given(boxes, st.integers(1, 200), st.integers(1, 200))
def test_the_part_of_a_box_in_its_photo(b, W, H):
    x, y, w, h = in_photo(np.array([b]), np.array([[W, H]]))[0]
    cut = lambda lo, hi, n: (min(max(lo, 0), n), min(max(hi, 0), n))
    (x0, x1), (y0, y1) = cut(b[0], b[2], W), cut(b[1], b[3], H)
    assert (x, y) == (x0, y0) and np.allclose([w, h], [x1-x0, y1-y0])


AIC_WRONG = {
    'no name': (lambda e: e.pop('image_id'), 'entry 1 has no proper "image_id"'), 'a number as name': (lambda e: e.update(image_id=7), 'no proper'),
    'boxes as list': (lambda e: e.update(human_annotations=[]), 'no proper'), 'no keypoints': (lambda e: e['keypoint_annotations'].pop('human2'), 'human2 of entry 1 needs'),
    'no box': (lambda e: e['human_annotations'].pop('human1'), 'human1 of entry 1 needs'), 'three': (lambda e: e['human_annotations'].update(human1=[1, 2, 3]), 'needs a box of 4'),
    'nan': (lambda e: e['human_annotations'].update(human1=[1, 2, 3, float('nan')]), 'needs a box of 4'),
    '13 joints': (lambda e: e['keypoint_annotations'].update(human1=[1]*39), 'keypoints of 42'),
    'text': (lambda e: e['keypoint_annotations'].update(human1=['x']*42), 'keypoints of 42'),
    'v': (lambda e: e['keypoint_annotations']['human1'].__setitem__(5, 7), 'person 1 .* visibility that is not 0, 1 or 2'),
    'nan joint': (lambda e: e['keypoint_annotations']['human1'].__setitem__(0, float('nan')), 'not a finite number'),
    'out': (lambda e: e.update(image_id='../../secret'), "points out of the photos' folder"), 'gone': (lambda e: e.update(image_id='gone'), 'has no photo')}


@pytest.mark.parametrize('kind', AIC_WRONG)
def test_bad_aic_is_one_sentence(kind, tmp_path):
    e, (change, says) = aic_entry(), AIC_WRONG[kind]
    write_aic(tmp_path, [e, aic_entry('fine', 1)])
    change(e)
    write_aic(tmp_path, [e, aic_entry('fine', 1)], photos=False)
    with pytest.raises(InputError, match=says) as err: load('aic', tmp_path, bad='refuse')
    assert '\n' not in str(err.value) and 'human_annotations' not in str(err.value).split(':')[0]
    told = 'not labelled' if kind in ('v', 'nan joint') else 'left out'
    with pytest.warns(UserWarning, match=told): assert load('aic', tmp_path).files.tolist()[-1] == 'fine.jpg'


def test_joints_outside_their_photo_are_not_labelled(tmp_path):
    e = aic_entry(n=2, seed=3)
    for w, k in e['keypoint_annotations'].items(): e['keypoint_annotations'][w] = [400 if i % 3 == 0 and w == 'human2' else 1 if i % 3 == 2 else v for i, v in enumerate(k)]
    p = load('aic', write_aic(tmp_path, [e]))
    assert p.ann_ids.tolist() == [1] and (p.keypoints[0,5:,2] == 2).all()


# ---------------------------------------------------------------- MPII

def mpii_entry(image='000001.jpg', seed=0, center=(50., 40.), scale=.25, **more):
    r = np.random.default_rng(seed)
    vis = r.integers(0, 2, 16); vis[12] = 1
    at = np.where(vis[:,None], r.uniform(5, 75, (16, 2)).round(2), -1.)
    return dict(image=image, center=list(center), scale=scale, joints=at.tolist(), joints_vis=vis.tolist()) | more


def write_mpii(root, people, name='annot/train.json'):
    (root/'images').mkdir(parents=True, exist_ok=True); (root/name).parent.mkdir(exist_ok=True)
    (root/name).write_text(json.dumps(people))
    for i in range(1, 4): Image.new('RGB', (90, 80)).save(root/f'images/00000{i}.jpg')
    return root


@pytest.mark.parametrize('split, name', [('train', 'annot/train.json'), ('val', 'annot/valid.json'), ('train', 'annotations/mpii_train.json'), ('val', 'annotations/mpii_val.json')])
def test_mpii(split, name, tmp_path):
    people = [mpii_entry('000002.jpg', 1), mpii_entry('000001.jpg', 2, (30.5, 41.), .3), mpii_entry('000002.jpg', 3)]
    p = load('mpii', write_mpii(tmp_path, people, name), split)
    assert (p.name, len(p)) == (f'mpii-{split}', 3)
    assert p.files.tolist() == ['000002.jpg', '000001.jpg', '000002.jpg'] and p.image_ids.tolist() == [1, 2, 1] and p.ann_ids.tolist() == [1, 2, 3]
    # MATLAB's pixel 50 is our 49, whose middle is 49.5 from the photo's edge; 0.25 of 200 pixels is a square of 50
    np.testing.assert_allclose(p.boxes, [[24.5, 14.5, 50, 50], [0, 10.5, 60, 60], [24.5, 14.5, 50, 50]])
    for k, e in zip(p.keypoints, people):
        assert (k[:5] == 0).all()
        for i, j in MPII_AT.items(): np.testing.assert_allclose(k[j], [*np.subtract(e['joints'][i], 1), 2] if e['joints_vis'][i] else 0, rtol=1e-5)
        on = np.array([e['joints'][i] for i in MPII_AT if e['joints_vis'][i]])
    np.testing.assert_allclose(p.areas[2], max(1, np.ptp(on, axis=0).prod()), rtol=1e-4)


MPII_WRONG = {
    'no image': (dict(image=None), 'person 1 needs an image'), 'scale': (dict(scale='big'), 'needs an image'), 'center': (dict(center=[3]), 'needs an image'),
    'ragged': (dict(joints=[[1, 2]]*15+[[1]]), 'needs an image'), 'flat': (dict(joints=[1]*32), 'needs an image'), 'vis': (dict(joints_vis=[2]*16), 'not 0 or 1'),
    'no size': (dict(scale=0.), 'box without area'), 'nan': (dict(scale=float('nan')), 'box without area'), 'far': (dict(center=[900., 9.]), 'box outside its photo'),
    'gone': (dict(image='gone.jpg'), 'has no photo'), 'out': (dict(image='../x.jpg'), 'points out')}


@pytest.mark.parametrize('kind', MPII_WRONG)
def test_bad_mpii_is_one_sentence(kind, tmp_path):
    change, says = MPII_WRONG[kind]
    write_mpii(tmp_path, [mpii_entry(seed=1) | change, mpii_entry()])
    with pytest.raises(InputError, match=f'train.json: [12] problems?: .*{says}'): load('mpii', tmp_path, bad='refuse')
    told = 'computed from the joints' if kind in ('no size', 'nan') else '1 .* left out'
    with pytest.warns(UserWarning, match=told): assert load('mpii', tmp_path).ann_ids.tolist()[-1] >= 1


@pytest.mark.parametrize('text, says', [('{', 'is not json'), ('{}', 'must be a list'), ('[]', 'must be a list with somebody'), ('[3, null]', '2 problems'), ('['*100000, 'is not json')])
def test_files_that_are_no_lists(text, says, tmp_path):
    write_mpii(tmp_path, []); (tmp_path/'annot/train.json').write_text(text)
    write_aic(tmp_path, []); next(tmp_path.glob('ai*/*.json')).write_text(text)
    for name in ('mpii', 'aic'):
        with pytest.raises(InputError, match=says): load(name, tmp_path)
    with pytest.raises(InputError, match='nor annotations/mpii_val.json'): load('mpii', tmp_path, 'val')


leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(-3, 120), st.floats(), st.text(max_size=4),
                 st.sampled_from([[], {}, [[1]], '../1.jpg', '\0', 'x'*300, 1e300, 2**70, -1]))


def mutated(d, pick):
    "A few values of a json replaced by others."
    for _ in range(pick.draw(st.integers(1, 3))):
        at = d
        while True:
            k = pick.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
            if isinstance(at[k], (dict, list)) and at[k] and pick.draw(st.integers(0, 9)): at = at[k]; continue
            at[k] = copy.deepcopy(pick.draw(leaf)); break
    return d


def sound(p):
    assert len(p) and np.isfinite(p.boxes).all() and (p.boxes[:,2:] >= 1).all() and (p.areas > 0).all()
    assert np.isin(p.keypoints[...,2], (0, 1, 2)).all() and np.isfinite(p.keypoints[p.keypoints[...,2] > 0]).all()


@settings(max_examples=100)
@given(st.data())
@pytest.mark.parametrize('name', ['aic', 'mpii', 'coco'])
def test_no_json_ends_in_a_traceback(name, tmp_path_factory, pick):
    root = tmp_path_factory.getbasetemp()/f'fuzz-{name}'
    d = dict(aic=lambda: [aic_entry('a', 2), aic_entry('b', 1)], mpii=lambda: [mpii_entry(), mpii_entry(seed=1)], coco=lambda: BOXES)[name]()
    if not root.exists(): dict(aic=write_aic, mpii=write_mpii, coco=lambda r, d: listing(r))[name](root, d)
    if name == 'coco' and pick.draw(st.booleans()): # the list of photos, and good boxes
        (root/'boxes.json').write_text(json.dumps(d))
        d = json.loads((listing(root)/'annotations/image_info_train2017.json').read_text())
        file = root/'annotations/image_info_train2017.json'
    else: file = root/'boxes.json' if name == 'coco' else next(root.rglob('*annotations*.json' if name == 'aic' else 'train.json'))
    if name == 'coco' and file.name == 'boxes.json': listing(root)
    file.write_text(json.dumps(mutated(copy.deepcopy(d), pick)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        try: p = load(name, root, boxes=str(root/'boxes.json')*(name == 'coco'))
        except InputError as e: assert '\n' not in str(e)
        else: sound(p)


# ---------------------------------------------------------------- a detector's boxes

def listing(root, kind='image_info', split='train2017', photos='train2017', **more):
    "Three photos in a json of COCO's."
    (root/'annotations').mkdir(parents=True, exist_ok=True); (root/photos).mkdir(exist_ok=True)
    ims = [dict(id=i, file_name=f'{i:012}.jpg', width=80+i, height=70, coco_url='', license=1) for i in (5, 6, 7)]
    for i in ims: Image.new('RGB', (i['width'], 70)).save(root/photos/i['file_name'])
    cats = [dict(id=1, name='person', supercategory='person'), dict(id=2, name='bicycle', supercategory='vehicle')]
    (root/f'annotations/{kind}_{split}.json').write_text(json.dumps(dict(info={}, licenses=[], images=ims, categories=cats) | more))
    return root


def box(image=5, score=.9, bbox=(10, 10, 30, 40), category=1): return dict(image_id=image, category_id=category, bbox=list(bbox), score=score)


BOXES = [box(6, .9), box(5, .3, (1.5, 2.25, 20, 50)), box(6, .8, category=2), box(5, .05, (3, 3, 9, 9)), box(7, .5)]


def write(f, d): f.write_text(json.dumps(d)); return str(f)


@pytest.mark.parametrize('split, photos', [('unlabeled2017', 'unlabeled2017'), ('test-dev2017', 'test2017')])
def test_boxes(split, photos, tmp_path):
    f = write(tmp_path/'b.json', BOXES)
    p = load('coco', listing(tmp_path/'coco', 'image_info', split, photos), split, boxes=f)
    assert p.name == f'coco-{split}-boxes' and p.root.name == photos and p.skeleton is COCO17 and p.annotations is None
    # in the detector's order, people only
    assert p.image_ids.tolist() == [6, 5, 5, 7] and p.files.tolist() == [f'{i:012}.jpg' for i in (6, 5, 5, 7)]
    np.testing.assert_allclose(p.scores, [.9, .3, .05, .5]); assert p.boxes[1].tolist() == [1.5, 2.25, 20, 50]
    assert (p.keypoints == 0).all() and p.keypoints.shape == (4, 17, 3) and p.sizes.tolist() == [[86, 70], [85, 70], [85, 70], [87, 70]]
    assert p[[2, 0]].scores.tolist() == p.scores[[2, 0]].tolist() and p.padding == 1.25
    assert load('coco', tmp_path/'coco', split, boxes=f+':0.3').scores.tolist() == p.scores[[0, 1, 3]].tolist()
    assert load('coco', tmp_path/'coco', split.removesuffix('2017'), boxes=f).ann_ids.tolist() == p.ann_ids.tolist() == [1, 2, 4, 5]
    with pytest.raises(InputError, match='say where a detector found people'): load('coco', tmp_path/'coco', split)
    with pytest.raises(InputError, match='no annotations/image_info_val.json'): load('coco', tmp_path/'coco', 'val', boxes=f)
    with pytest.raises(InputError, match='score of 0.95 or more'): load('coco', tmp_path/'coco', split, boxes=f+':0.95')
    s = build_store(p, cache=tmp_path/'cache')
    assert len(s) == 4 and (s.keypoints == 0).all()


def test_boxes_of_labelled_photos_know_the_labels_file_and_the_joints(tmp_path):
    hand = dict(id=3, name='hand', keypoints=['thumb', 'index'], skeleton=[[1, 2]])
    root = listing(tmp_path, 'person_keypoints', categories=[hand], annotations=[dict(id=1)])
    f = write(tmp_path/'b.json', [box(category=1), box(6, category=3)])
    p = load('coco', root, boxes=f)
    assert p.image_ids.tolist() == [6] and p.skeleton.joints == ('thumb', 'index') and p.annotations == root/'annotations/person_keypoints_train2017.json'


def test_boxes_that_hold_no_pixel_are_counted(tmp_path):
    none = [(10, 10, 0, 40), (10, 10, 5, .5), (90, 5, 20, 20), (-30, 5, 20, 20), (5, -50, 20, 20), (5, 75, 20, 20)]
    f = write(tmp_path/'b.json', [box(bbox=b) for b in none] + BOXES)
    with pytest.warns(UserWarning, match='2 people without a usable box are left out; 4 people whose box lies outside'): p = load('coco', listing(tmp_path/'coco'), boxes=f)
    assert p.ann_ids.tolist() == [7, 8, 10, 11]
    with pytest.raises(InputError, match='1 problem: .* box without area'):
        load('coco', tmp_path/'coco', boxes=write(tmp_path/'c.json', [box(bbox=none[0])]))


BAD_BOXES = {
    'unknown image': (dict(image_id=99), 'is in the image 99, which is not listed'), 'text': (dict(image_id='five'), 'needs'), 'nan': (dict(score=float('nan')), 'needs'),
    'no score': (dict(score=None), 'needs'), 'three': (dict(bbox=[1, 2, 3]), 'needs'), 'infinite': (dict(bbox=[1, 2, 3, 1e999]), 'needs'), 'true': (dict(category_id=True), 'needs')}


@pytest.mark.parametrize('kind', BAD_BOXES)
def test_bad_boxes_are_one_sentence(kind, tmp_path):
    change, says = BAD_BOXES[kind]
    f = write(tmp_path/'b.json', [BOXES[0] | change, *BOXES[1:]])
    listing(tmp_path/'coco')
    with pytest.raises(InputError, match=f'b.json: 1 problem: box 1 {says}'): load('coco', tmp_path/'coco', boxes=f, bad='refuse')
    with pytest.warns(UserWarning, match='1 box that cannot be read is left out'): assert len(load('coco', tmp_path/'coco', boxes=f)) == 3


def test_bad_listings(tmp_path):
    f = write(tmp_path/'b.json', BOXES)
    root = listing(tmp_path/'coco', images=[dict(id=5, file_name='../../x.jpg', width=9, height=9), dict(id=6, file_name='gone.jpg', width=90, height=90), dict(id=7)])
    with pytest.raises(InputError, match='problems') as e: load('coco', root, boxes=f)
    assert {k for k in ('no proper "file_name"', 'points out', 'has no photo', 'not listed') if any(k in s for s in e.value.problems)} == {'no proper "file_name"', 'points out', 'has no photo', 'not listed'}
    with pytest.raises(InputError, match='lists no photos|no list "images"'): load('coco', listing(tmp_path/'none', images=[]), boxes=f)
    with pytest.raises(InputError, match='no file'): load('coco', root, boxes=str(tmp_path/'no.json'))


# ---------------------------------------------------------------- the line

word = st.text('abcdefghijklmnop/._-0123456789', min_size=1, max_size=12)


@given(st.lists(st.builds(Source, st.sampled_from(list(READERS)), st.one_of(st.just(''), st.sampled_from(['train', 'val', 'test-dev2017'])), st.one_of(st.just(''), word),
                          st.one_of(st.just(''), word)), min_size=1, max_size=4, unique=True))
def test_a_line_comes_back(found):
    text = '+'.join(map(str, found))
    assert list(sources(text)) == found and sources(full_line(text)) == sources(full_line(full_line(text)))


def test_what_a_line_means(tmp_path, monkeypatch):
    assert sources('') == sources('  ') == sources('rest') == (Source('rest'),)
    assert sources('rest + people:wild') == (Source('rest'), Source('people', 'wild'))
    assert source('coco:unlabeled2017@a/b.json:0.5=/d') == Source('coco', 'unlabeled2017', 'a/b.json:0.5', '/d')
    assert [s.name for s in sources('rest+aic=/x+coco:val@b.json')] == ['rest', 'aic', 'coco-val-boxes']
    assert sources('rest+folder=/my+own/photos+people:wild') == (Source('rest'), Source('folder', root='/my+own/photos'), Source('people', 'wild'))
    monkeypatch.chdir(tmp_path)
    assert full_line('coco:val@b.json:0.5=c+rest+people:wild') == f'coco:val@{tmp_path}/b.json:0.5={tmp_path}/c+rest+people:wild'
    assert full_line('') == ''


@pytest.mark.parametrize('text, says', [('wildd', "no source of unlabelled people 'wildd'"), ('rest:val', 'has no split'), ('rest=/x', 'has no split'), ('+', 'does not say'), ('people:', 'does not say'),
                                        ('aic+aic', 'twice'), ('rest+rest', 'twice'), ('coco:a:b', 'does not say'), ('../x', 'does not say'), ('people wild', 'does not say')])
def test_lines_that_mean_nothing(text, says):
    with pytest.raises(InputError, match=says): sources(text)


def test_people_of_a_source(sticks, tmp_path):
    assert len(people_of(source('people:val'), 'people', str(sticks))) == 16
    assert len(people_of(source(f'people:val={sticks}'), 'coco', '/nowhere')) == 16
    root = write_aic(tmp_path, [aic_entry()])
    assert len(people_of(source('aic'), 'aic', str(root))) == len(people_of(source(f'aic={root}'))) == 2
    with pytest.raises(InputError, match='aic: say in which folder it is, aic=FOLDER'): people_of(source('aic'), 'people', str(sticks))
    hand = Skeleton('hand', ('thumb', 'index'))
    with pytest.raises(InputError, match='different joints'): people_of(source('people:val'), 'people', str(sticks), hand)
    photos = tmp_path/'photos'; photos.mkdir(); Image.new('RGB', (30, 50)).save(photos/'a.png')
    # nobody labelled anything: then any joints will do
    p = people_of(source(f'folder={photos}'), skeleton=hand)
    assert p.keypoints.shape == (1, 2, 3) and p.skeleton is hand


# ---------------------------------------------------------------- joined stores

@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_chain_is_a_concatenation(lengths, pick):
    r = np.random.default_rng(0)
    parts = [r.integers(0, 255, (n, 3, 2), np.uint8) for n in lengths]
    whole, chain = np.concatenate(parts), Chain(parts)
    rows = np.array(pick.draw(st.lists(st.integers(0, len(whole)-1), max_size=9)), int)
    assert chain.shape == whole.shape and len(chain) == len(whole) and (chain[rows] == whole[rows]).all()
    for i in rows: assert (chain[i] == whole[i]).all()


def test_joined_stores(sticks, tmp_path):
    a, b = (build_store(load('people', sticks, s), cache=tmp_path) for s in ('train', 'val'))
    s = join([a[5:20], b, a[[0]]])
    assert len(s) == 32 and s.canvases.shape == (32, 144, 96, 3)
    rows = [31, 0, 15, 14, 15, 30]
    expect = np.stack([a.canvases[0], a.canvases[5], b.canvases[0], a.canvases[19], b.canvases[0], b.canvases[15]])
    assert (s.batch(rows).permute(0, 2, 3, 1).numpy() == expect).all() and (s[rows].batch([0, 1]).permute(0, 2, 3, 1).numpy() == expect[:2]).all()
    for k in ('matrix', 'keypoints', 'inside', 'extent'): assert (getattr(s, k)[rows[:3]] == np.stack([getattr(a, k)[0], getattr(a, k)[5], getattr(b, k)[0]])).all()
    assert join([a]) is a
    with pytest.raises(InputError, match='different crops'): join([a, build_store(load('people', sticks, 'val'), margin=2., cache=tmp_path)])
