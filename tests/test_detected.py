"""Rescoring and OKS-NMS against plain loops written from SimpleBaseline's description; AP against pycocotools on files; the upload."""
import contextlib, io, json, math, zipfile
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, strategies as st
from sshpe.errors import InputError
from sshpe.data.coco import whole_photos
from sshpe.data.registry import load
from sshpe.evaluate.detected import detected_ap, frame_areas, rescored, results, thin, thinned, upload
from sshpe.evaluate.metrics import coco_results
from sshpe.pose.skeleton import COCO17

S = COCO17.sigmas


def similarity(a, b, area_a, area_b):
    "OKS of two answers, with the mean of their areas and all joints."
    total = 0
    for (xa, ya), (xb, yb), s in zip(a, b, S):
        d2 = (xa-xb)**2 + (ya-yb)**2
        total += math.exp(-d2/(2*(2*s)**2*(area_a+area_b)/2))
    return total/len(S)


def survivors(k, score, area, same):
    "Go through the answers from the surest on; keep one unless a kept one says the same."
    stay = []
    for i in sorted(range(len(k)), key=lambda i: -score[i]):
        if all(similarity(k[i], k[j], area[i], area[j]) <= same for j in stay): stay.append(i)
    return stay


def crowd(n, people, seed, spread=3.):
    "n answers about a few people, so that some agree."
    r = np.random.default_rng(seed)
    bodies = r.uniform(0, 200, (people, 1, 2)) + r.uniform(0, 80, (people, 17, 2))
    k = bodies[r.integers(0, people, n)] + r.normal(size=(n, 17, 2))*r.uniform(0, spread, (n, 1, 1))
    return k, r.permutation(n)/n + .001, r.uniform(2000, 20000, n)


@given(st.integers(0, 25), st.integers(1, 5), st.integers(0, 99), st.sampled_from([.5, .9, .97]))
def test_thinning_is_the_plain_loop(n, people, seed, same):
    k, score, area = crowd(n, people, seed)
    assert thin(k, score, area, S, same) == survivors(k, score, area, same)


@given(st.integers(0, 40), st.integers(0, 99))
def test_photos_are_thinned_apart(n, seed):
    k, score, area = crowd(n, 2, seed)
    images = np.random.default_rng(seed).integers(5, 9, n)
    expect = sorted(i for im in set(images.tolist()) for rows in [np.flatnonzero(images == im)] for i in rows[survivors(k[rows], score[rows], area[rows], .9)].tolist())
    assert thinned(images, k, score, area, S).tolist() == expect


def test_equal_answers_leave_the_surest():
    k = np.repeat(np.random.default_rng(0).uniform(0, 50, (1, 17, 2)), 4, 0)
    assert thin(k, np.array([.2, .9, .9, .1]), np.ones(4), S) == [1]
    # an OKS of exactly the threshold is not above it
    assert thin(k, np.array([.2, .9, .9, .1]), np.ones(4), S, 1.) == [1, 2, 0, 3]


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=9), st.data())
def test_rescoring_is_the_plain_loop(joints, pick):
    b = [pick.draw(st.floats(0, 1)) for _ in joints]
    for got, s, w in zip(rescored(joints, b), joints, b):
        sure = [x for x in s if x > .2] or s
        assert math.isclose(got, sum(sure)/len(sure)*w, abs_tol=1e-12)


def test_frames_have_the_crop_s_proportions():
    p = whole_photos('x', '.', ['a.jpg']*2, [[0, 0, 30, 100], [0, 0, 90, 30]])
    # 100 high: 75 wide for 4:3; 90 wide: 120 high; each a quarter larger in both directions
    np.testing.assert_allclose(frame_areas(p, (256, 192)), [75*100*1.25**2, 90*120*1.25**2])


@pytest.fixture(scope='module')
def looks(sticks, tmp_path_factory):
    "The stick people's validation set, seen by a detector: everybody, some twice, one in a wrong place; and answers."
    truth, r = load('people', sticks, 'val'), np.random.default_rng(0)
    who = [*range(16), *range(5)]
    boxes = [dict(image_id=int(truth.image_ids[i]), category_id=1, bbox=(truth.boxes[i]+r.normal(0, 2, 4)).tolist(), score=float(r.uniform(.3, 1))) for i in who]
    boxes.append(dict(image_id=int(truth.image_ids[3]), category_id=1, bbox=[1, 1, 20, 20], score=.2))
    f = tmp_path_factory.mktemp('looks')/'boxes.json'
    f.write_text(json.dumps(boxes))
    k = truth.keypoints[[*who, 3],:,:2] + r.normal(0, 1.5, (len(boxes), 17, 2)); k[-1] = r.uniform(0, 20, (17, 2))
    return truth, load('people', sticks, 'val', boxes=str(f)), k, r.uniform(.1, 1, (len(boxes), 17))


def test_results_are_coco_s(looks):
    truth, p, k, s = looks
    found = results(p, k, s, (96, 64))
    area = frame_areas(p, (96, 64))
    total = rescored(s, p.scores)
    stay = sorted(i for im in set(p.image_ids.tolist()) for rows in [np.flatnonzero(p.image_ids == im)] for i in rows[survivors(k[rows], total[rows], area[rows], .9)].tolist())
    assert [f['image_id'] for f in found] == p.image_ids[stay].tolist() and len(stay) < len(p)
    for f, i in zip(found, stay):
        assert set(f) == {'image_id', 'category_id', 'keypoints', 'score'} and f['category_id'] == 1 and len(f['keypoints']) == 51
        assert f['keypoints'][0::3] == k[i,:,0].round(3).tolist() and f['keypoints'][1::3] == k[i,:,1].round(3).tolist() and f['keypoints'][2::3] == s[i].round(6).tolist()
        assert math.isclose(f['score'], total[i], abs_tol=1e-6)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    with pytest.raises(InputError, match='not a finite'): results(p, k*np.nan, s, (96, 64))


def test_ap_is_pycocotools_on_the_file(looks, tmp_path, sticks):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    truth, p, k, s = looks
    found = results(p, k, s, (96, 64))
    (tmp_path/'r.json').write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(sticks/'annotations/person_keypoints_val.json'))
        e = COCOeval(gt, gt.loadRes(str(tmp_path/'r.json')), 'keypoints'); e.evaluate(); e.accumulate(); e.summarize()
    assert list(detected_ap(truth, found).values()) == [None if v < 0 else 100*v for v in e.stats[:6]]
    assert detected_ap(truth, found)['AP'] > 5
    assert detected_ap(truth, [])['AP'] == 0


def test_photos_without_people_count(looks, tmp_path):
    "A sure answer where nobody is costs precision, though no labelled person is in that photo."
    truth, p, k, s = looks
    d = json.loads(Path(truth.annotations).read_text())
    d['images'].append(dict(id=999, file_name='empty.png', width=96, height=96))
    (tmp_path/'more.json').write_text(json.dumps(d))
    more = replace(truth, annotations=tmp_path/'more.json')
    perfect = coco_results(truth, truth.keypoints, np.full((16, 17), .5))
    false = [dict(perfect[0], image_id=999, score=.9)]
    assert detected_ap(more, perfect)['AP'] > 99.9 > 96 > detected_ap(more, false+perfect)['AP']


def test_a_category_of_another_number(looks, tmp_path):
    truth, p, k, s = looks
    d = json.loads(Path(truth.annotations).read_text())
    d['categories'][0]['id'] = 4
    for a in d['annotations']: a['category_id'] = 4
    (tmp_path/'four.json').write_text(json.dumps(d))
    assert {f['category_id'] for f in results(replace(p, annotations=tmp_path/'four.json'), k, s, (96, 64))} == {4}
    assert {f['category_id'] for f in results(replace(p, annotations=None), k, s, (96, 64))} == {1}


def test_upload(tmp_path):
    found = [dict(image_id=1, category_id=1, keypoints=[1.]*51, score=.5)]
    z = upload(tmp_path/'a', 'test-dev2017', 'denoise select/2', found)
    assert z.name == 'person_keypoints_test-dev2017_denoise-select-2_results.zip'
    with zipfile.ZipFile(z) as f:
        assert f.namelist() == [z.stem+'.json'] and json.loads(f.read(z.stem+'.json')) == found
