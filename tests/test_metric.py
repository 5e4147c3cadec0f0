"Metrics against pycocotools on a file, the formula by hand, and plain loops."
import contextlib, io, json
from dataclasses import dataclass, replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from sshpe.errors import InputError
from sshpe.pose.skeleton import COCO17, META7, Skeleton
from sshpe.evaluate import metrics as m

J = 17

@dataclass(frozen=True)
class Few:
    "The fields of `People` that the metrics read."
    name: str; skeleton: Skeleton; image_ids: np.ndarray; ann_ids: np.ndarray
    boxes: np.ndarray; keypoints: np.ndarray; areas: np.ndarray; annotations: Path = None
    def __len__(self): return len(self.boxes)

def few(n=30, seed=0, images=12, share=.8):
    r = np.random.default_rng(seed)
    wh = r.uniform(20, 250, (n, 2)); xy = r.uniform(0, 300, (n, 2))
    k = np.concatenate([xy[:,None] + r.random((n, J, 2))*wh[:,None], np.where(r.random((n, J, 1)) < share, r.integers(1, 3, (n, J, 1)), 0)], -1)
    return Few('toy', COCO17, np.sort(r.integers(1, images+1, n)), np.arange(n) + 7, np.concatenate([xy, wh], 1).astype(np.float32),
               k.astype(np.float32), (wh.prod(1)*.6).astype(np.float32))

def noisy(p, s, seed=1):
    r = np.random.default_rng(seed)
    return (p.keypoints[...,:2] + r.normal(size=(len(p), J, 2))*s*np.sqrt(p.areas)[:,None,None], r.random((len(p), J)))

def by_pycocotools(truth, results, ids=None):
    "Two files in, ten numbers out: no line of ours in between."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth)); ev = COCOeval(gt, gt.loadRes(str(results)), 'keypoints')
        if ids is not None: ev.params.imgIds = ids
        ev.evaluate(); ev.accumulate(); ev.summarize()
    return ev.stats, ev

def on_disk(p, folder, extra=()):
    "A COCO json written field by field, with whatever else `extra` holds."
    anns = [dict(id=int(p.ann_ids[i]), image_id=int(p.image_ids[i]), category_id=1, iscrowd=0, area=float(p.areas[i]),
                 bbox=[float(b) for b in p.boxes[i]], keypoints=[float(x) for x in p.keypoints[i].ravel()],
                 num_keypoints=int(sum(p.keypoints[i,:,2] > 0))) for i in range(len(p))]
    ids = sorted({a['image_id'] for a in anns} | {a['image_id'] for a in extra})
    f = Path(folder)/'truth.json'
    f.write_text(json.dumps(dict(images=[dict(id=i) for i in ids], annotations=anns + list(extra), categories=[dict(id=1, name='person')])))
    return replace(p, annotations=f)

crowd = dict(id=900, image_id=1, category_id=1, iscrowd=1, area=9000., bbox=[0., 0., 300., 300.], keypoints=[0.]*51, num_keypoints=0)
bare = dict(id=901, image_id=2, category_id=1, iscrowd=0, area=900., bbox=[10., 0., 30., 30.], keypoints=[0.]*51, num_keypoints=0)
stranger = dict(id=902, image_id=999, category_id=1, iscrowd=0, area=9e3, bbox=[0., 0., 90., 90.], keypoints=[5., 5., 2.]*17, num_keypoints=17)

@pytest.mark.parametrize('noise', [.01, .05, .12, .4])
def test_ap_is_pycocotools_on_files(tmp_path, noise):
    p = on_disk(few(), tmp_path, [crowd, bare])
    r = m.write_results(tmp_path/'r.json', m.coco_results(p, *noisy(p, noise)))
    stats, _ = by_pycocotools(p.annotations, r)
    for ours in (m.oks_ap(p, r), m.oks_ap(p, m.read_results(r))):
        assert list(ours) == ['AP', 'AP50', 'AP75', 'APM', 'APL', 'AR']
        assert all((v is None and s == -1) or v == pytest.approx(100*s, abs=1e-9) for v, s in zip(ours.values(), stats))

def jungle(seed, images, people, answers):
    "A json and results with everything that makes counting hard: many answers, equal scores, crowds, nobody labelled, two categories, photos of one kind only."
    r = np.random.default_rng(seed)
    def person(n):
        w, h = r.uniform(4, 200, 2)
        k = np.concatenate([r.uniform((0, 0), (w, h), (J, 2))+r.uniform(0, 60, 2), r.integers(0, 3, (J, 1))*(r.random() < .85)], 1)
        return dict(id=n+1, image_id=int(r.integers(images)), category_id=int(r.choice([1, 1, 1, 4])), iscrowd=int(r.random() < .1), area=float(w*h*r.uniform(.3, 1)),
                    bbox=[0., 0., w, h], keypoints=k.ravel().tolist(), num_keypoints=int((k[:,2] > 0).sum()))
    anns = [person(n) for n in range(people)]
    def answer():
        a = anns[r.integers(people)]
        k = np.array(a['keypoints']).reshape(J, 3)+r.normal(size=(J, 3))*r.choice([0, .02, .1])*a['area']**.5
        image, cat = (a['image_id'], a['category_id']) if r.random() < .9 else (int(r.integers(images)), 1)
        box = dict(bbox=[0., 0., *r.uniform(5, 150, 2).tolist()]) if seed%3 == 0 else {}
        return dict(image_id=image, category_id=cat, keypoints=k.ravel().tolist(), score=float(r.integers(4)/4), **box)
    return dict(images=[dict(id=i) for i in range(images)], annotations=anns, categories=[dict(id=c, name=str(c)) for c in (1, 4)]), [answer() for _ in range(answers)]

@settings(max_examples=60)
@given(st.integers(0, 2**32-1), st.integers(1, 9), st.integers(1, 40), st.integers(1, 90))
def test_counting_is_pycocotools_in_the_jungle(tmp_path_factory, seed, images, people, answers):
    f = tmp_path_factory.mktemp('j')
    truth, found = jungle(seed, images, people, answers)
    for name, x in (('truth', truth), ('found', found)): (f/name).write_text(json.dumps(x))
    some = range(0, images, 1+seed%2)  # perhaps not all photos
    stats, _ = by_pycocotools(f/'truth', f/'found', list(some))
    ours = m.coco_ap(truth, found, some, COCO17.sigmas)
    assert all(v is None and s == -1 or v == pytest.approx(100*s, abs=1e-9) for v, s in zip(ours.values(), stats))

def test_other_photos_of_the_json_do_not_count(tmp_path):
    p = on_disk(few(), tmp_path, [stranger])
    r = m.coco_results(p, p.keypoints, np.ones((len(p), J)))
    assert m.oks_ap(p, r)['AP'] == pytest.approx(100)
    f = m.write_results(tmp_path/'r.json', r)
    assert by_pycocotools(p.annotations, f)[0][0] < 1
    assert by_pycocotools(p.annotations, f, np.unique(p.image_ids))[0][0] == pytest.approx(1)

def test_a_few_people_of_a_photo_are_scored_alone(tmp_path):
    p = on_disk(few(), tmp_path, [crowd, bare])
    half = replace(p, **{k: getattr(p, k)[::2] for k in ('image_ids', 'ann_ids', 'boxes', 'keypoints', 'areas')})
    assert m.oks_ap(half, m.coco_results(half, half.keypoints, np.ones((15, J))))['AP'] == pytest.approx(100)

def test_other_categories_and_missing_fields(tmp_path):
    p = on_disk(few(), tmp_path, [bare]); k = noisy(p, .05)
    want = m.oks_ap(p, m.coco_results(p, *k))
    d = json.loads(p.annotations.read_text())
    for a in d['annotations']: a['category_id'] = 5; del a['iscrowd'], a['num_keypoints']
    d['categories'] = [dict(id=5, name='stick')]
    p.annotations.write_text(json.dumps(d))
    r = m.coco_results(p, *k)
    assert r[0]['category_id'] == 5 and m.oks_ap(p, r) == want

def test_nobody_labelled():
    p = few(4); p.keypoints[...,2] = 0
    e = m.evaluate(p, *noisy(p, .1))
    assert e['AP'] is None and e['PCK'] is None

def test_truth_from_memory_is_the_json(tmp_path):
    p = few(); d = on_disk(p, tmp_path)
    for noise in (.02, .1):
        r = m.coco_results(p, *noisy(p, noise))
        assert m.oks_ap(p, r) == m.oks_ap(d, r)

@pytest.mark.parametrize('n', [1, 2, 30])
def test_perfect(n):
    p = few(n, share=.9)
    e = m.evaluate(p, p.keypoints, np.ones((n, J)))
    flat = [e[k] for k in (*m.AP_NAMES, 'PCK')] + [*e['PCK_meta'].values(), *e['PCK_joints'].values()]
    assert all(v is None or v == pytest.approx(100) for v in flat) and e['AP'] == pytest.approx(100)
    json.dumps(e, allow_nan=False)

def test_missing_people_cost_recall():
    p = few(40, images=40)
    p = replace(p, image_ids=np.arange(1, 41))
    p.keypoints[:,0,2] = 2
    r = m.coco_results(p, p.keypoints, np.ones((40, J)))
    assert m.oks_ap(p, r[:20])['AR'] == pytest.approx(50)
    assert m.oks_ap(p, []) == {k: v and 0 for k, v in m.oks_ap(p, r).items()}

def test_oks_by_hand():
    t = np.zeros((1, 2, 3)); t[0,:,2] = 1, 2
    q = np.array([[[3., 4.], [0., 0.]]])
    assert m.oks(q, t, [50.], [.5, .1])[0] == pytest.approx((np.exp(-25/(2*1**2*50)) + 1)/2)
    t[0,0,2] = 0; assert m.oks(q, t, [50.], [.5, .1])[0] == 1
    t[0,1,2] = 0; assert np.isnan(m.oks(q, t, [50.], [.5, .1])[0])

@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), noise=st.floats(0, .5))
def test_oks_is_pycocotools(tmp_path_factory, seed, noise):
    f = tmp_path_factory.mktemp('o')
    p = few(9, seed); p = on_disk(replace(p, image_ids=np.arange(1, 10)), f)
    k, s = noisy(p, noise)
    _, ev = by_pycocotools(p.annotations, m.write_results(f/'r.json', m.coco_results(p, k, s)))
    theirs = np.array([ev.ious[i, 1][0, 0] for i in range(1, 10)])
    seen = p.keypoints[...,2].any(1)
    assert np.allclose(m.per_person_oks(p, k)[seen], theirs[seen], atol=1e-4)  # files keep three decimals
    assert np.allclose(m.per_person_oks(p, k.round(3))[seen], theirs[seen], atol=1e-9)

def loop_pck(q, t, v, s, a):
    share, count = [], []
    for j in range(q.shape[1]):
        right = total = 0
        for i in range(len(q)):
            if v[i][j]:
                total += 1
                right += ((q[i,j,0]-t[i,j,0])**2 + (q[i,j,1]-t[i,j,1])**2)**.5 <= a*s[i]
        share.append(right/total if total else float('nan')); count.append(total)
    return share, count

xy = arrays(np.float64, (4, 3, 2), elements=st.floats(-50, 50))
@given(xy, xy, arrays(bool, (4, 3)), arrays(np.float64, 4, elements=st.floats(1, 300)), st.floats(.01, 1))
def test_pck_is_the_loop(q, t, v, s, a):
    d = np.sqrt(((q-t)**2).sum(-1))
    v = v & (abs(d - a*s[:,None]) > 1e-6)       # ties within rounding are nobody's business
    share, n = m.pck(q, t, v, s, a)
    want, count = loop_pck(q, t, v, s, a)
    assert np.array_equal(share, want, equal_nan=True) and n.tolist() == count

def test_pck_border_is_right():
    assert m.pck([[[10., 0]]], [[[0., 0]]], [[True]], [100.])[0][0] == 1

def test_pck_table_groups_and_gaps():
    p = few(10, share=1.)
    p.keypoints[:,:5,2] = 0                     # LSP labels no face
    q = p.keypoints[...,:2].copy(); q[:,15] += 1e4
    t = m.pck_table(p, q)
    assert t['meta']['head'] is None and t['joints']['nose'] is None and t['joints']['left_ankle'] == 0
    assert t['meta']['ankle'] == 50 and t['mean'] == pytest.approx((50 + 5*100)/6) and list(t['meta']) == list(META7)
    p.keypoints[...,2] = 0
    assert m.pck_table(p, q)['mean'] is None

@pytest.mark.parametrize('off,want', [(.04, [100, 100, 100]), (.07, [0, 100, 100]), (.15, [0, 0, 100]), (.25, [0, 0, 0])])
def test_three_thresholds(off, want):
    p = few(8, share=1.)
    q = p.keypoints[...,:2] + off*p.boxes[:,2:].max(1)[:,None,None]*np.array([.6, .8])
    e = m.evaluate(p, q, np.ones((8, J)))
    assert [e[k] for k in ('PCK_05', 'PCK', 'PCK_20')] == want

def test_length():
    p = few(5)
    assert np.allclose(m.person_length(p), p.boxes[:,2:].max(1))

def test_other_skeletons():
    sk = Skeleton('two', ('a', 'b'))
    p = few(6); p = replace(p, skeleton=sk, keypoints=p.keypoints[:,:2])
    e = m.evaluate(p, p.keypoints, np.ones((6, 2)))
    assert e['AP'] is None and e['PCK'] == 100 and list(e['PCK_meta']) == ['a', 'b']
    with pytest.raises(InputError, match='sigmas'): m.oks_ap(p, [])
    e = m.evaluate(replace(p, skeleton=replace(sk, sigmas=(.1, .1))), p.keypoints, np.ones((6, 2)))
    assert e['AP'] == pytest.approx(100)

def test_results_format():
    p = few(3); k, s = noisy(p, .1)
    r = m.coco_results(p, k, s)
    assert [x['image_id'] for x in r] == p.image_ids.tolist() and all(x['category_id'] == 1 for x in r)
    a = np.array(r[2]['keypoints']).reshape(J, 3)
    assert np.allclose(a[:,:2], k[2], atol=5.1e-4) and np.allclose(a[:,2], s[2], atol=1e-6)
    assert m.coco_results(p, k.astype(np.float32), s) and json.loads(json.dumps(r)) == r
    before = json.dumps(r); m.oks_ap(p, r); assert json.dumps(r) == before

@given(arrays(np.float64, (3, 5), elements=st.floats(0, 1)))
def test_person_score(s):
    for row, ours in zip(s, m.person_score(s)):
        above = [x for x in row if x > .2]
        assert ours == pytest.approx(np.mean(above) if above else np.mean(row))

def test_bad_input(tmp_path):
    p = few(4); k, s = noisy(p, .1)
    for q, c in ((k[:2], s), (k, s[:,:3]), (k*np.nan, s)):
        with pytest.raises(InputError): m.coco_results(p, q, c)
    with pytest.raises(InputError, match='not among'): m.oks_ap(p, [dict(m.coco_results(p, k, s)[0], image_id=77)])
    for text in ('{', '{}', '[{"a": 1}]'):
        (tmp_path/'r.json').write_text(text)
        with pytest.raises(InputError): m.oks_ap(p, tmp_path/'r.json')
    with pytest.raises(InputError): m.oks_ap(p, tmp_path/'absent.json')
