"""The shipped rendered people against facts that any reader can check, and the renderer against an independent ray test."""
import contextlib, importlib.util, io, json
import numpy as np, pytest
from PIL import Image
from sshpe.render import texture
from sshpe.pose.skeleton import COCO17

SPLITS = {'train': 3000, 'val': 600, 'wild': 1000}
every = pytest.mark.parametrize('split', SPLITS)
needs_anny = pytest.mark.skipif(importlib.util.find_spec('anny') is None, reason='anny is not installed: pip install sshpe[render]')


@pytest.fixture(scope='module')
def people(root): return root/'data'/'people'


@pytest.fixture(scope='module')
def read(people):
    files = {s: json.loads((people/'annotations'/f'person_keypoints_{s}.json').read_text()) for s in SPLITS}
    return files.__getitem__


def keypoints(d): return np.array([a['keypoints'] for a in d['annotations']]).reshape(-1, 17, 3)
def sizes(d):
    by_id = {i['id']: (i['width'], i['height']) for i in d['images']}
    return np.array([by_id[a['image_id']] for a in d['annotations']])


# what is shipped

@every
def test_counts_and_files(people, read, split):
    d = read(split)
    assert len(d['images']) == SPLITS[split] and {a['image_id'] for a in d['annotations']} == {i['id'] for i in d['images']}
    assert {i['file_name'] for i in d['images']} == {p.name for p in (people/split).iterdir()}


def test_size_of_all(people):
    assert sum(p.stat().st_size for p in people.rglob('*') if p.is_file()) <= 32*2**20


@every
def test_pictures_are_what_the_file_says(people, read, split):
    for i in read(split)['images'][::25]:
        with Image.open(people/split/i['file_name']) as im:
            im.load()
            assert im.format == 'JPEG' and im.mode == 'RGB' and im.size == (i['width'], i['height'])


@every
def test_pycocotools_reads_it(people, split):
    from pycocotools.coco import COCO
    with contextlib.redirect_stdout(io.StringIO()): c = COCO(str(people/'annotations'/f'person_keypoints_{split}.json'))
    cat, = c.loadCats(c.getCatIds())
    assert tuple(cat['keypoints']) == COCO17.joints and [(a - 1, b - 1) for a, b in cat['skeleton']] == list(COCO17.limbs)
    assert len(c.getAnnIds(iscrowd=False)) == len(c.anns) and len(set(c.anns)) == len(c.anns)


@every
def test_a_perfect_result_scores_one(people, read, split):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    d, ids = read(split), list(range(1, 101))
    perfect = [dict(image_id=a['image_id'], category_id=1, keypoints=a['keypoints'], score=1.)
               for a in d['annotations'] if a['image_id'] in ids]
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(people/'annotations'/f'person_keypoints_{split}.json'))
        ev = COCOeval(gt, gt.loadRes(perfect), 'keypoints')
        ev.params.imgIds = ids
        ev.evaluate(); ev.accumulate(); ev.summarize()
    assert ev.stats[0] == pytest.approx(1) and ev.stats[3] > .99 and ev.stats[4] > .99      # medium and large both occur


@every
def test_flags_agree_with_the_frame(read, split):
    d = read(split)
    k, wh = keypoints(d), sizes(d)[:, None]
    xy, v = k[..., :2], k[..., 2]
    assert set(np.unique(v)) == {0, 1, 2} and (xy[v == 0] == 0).all()
    assert ((xy >= 0) & (xy <= wh - 1)).all()
    assert ((v > 0).sum(1) == [a['num_keypoints'] for a in d['annotations']]).all() and (v > 0).sum(1).min() >= 6
    assert .5 < (v == 2).mean() < .8 and .15 < (v == 1).mean() < .45 and .02 < (v == 0).mean() < .15


@every
def test_boxes_and_areas(read, split):
    d = read(split)
    k, wh = keypoints(d), sizes(d)
    box, area = np.array([a['bbox'] for a in d['annotations']]), np.array([a['area'] for a in d['annotations']])
    lo, hi = box[:, :2], box[:, :2] + box[:, 2:]
    assert (lo >= 0).all() and (hi <= wh - 1 + .11).all() and (box[:, 2:] > 0).all()
    outside = ((k[..., :2] < lo[:, None] - .2) | (k[..., :2] > hi[:, None] + .2)).any(-1) & (k[..., 2] > 0)
    assert not outside.any()                                    # joints lie inside the body, so inside its box
    assert (area > 0).all() and (area <= (box[:, 2] + 1.5)*(box[:, 3] + 1.5)).all()
    side = np.sqrt(area)
    assert ((side >= 32) & (side < 96)).mean() > .6 and (side >= 96).mean() > .03


@every
def test_as_promised(read, split):
    "A second person in some pictures, and people cut by the frame in some."
    d = read(split)
    first = [a for a in d['annotations'] if a['id'] % 10 == 0]
    assert len(first) == SPLITS[split] and .08 < len(d['annotations'])/SPLITS[split] - 1 < .3
    by_id = {i['id']: i for i in d['images']}
    cut = [min(a['bbox'][:2]) <= 0 or a['bbox'][0] + a['bbox'][2] >= by_id[a['image_id']]['width'] - 1.1
           or a['bbox'][1] + a['bbox'][3] >= by_id[a['image_id']]['height'] - 1.1 for a in first]
    assert .1 < np.mean(cut) < .3


def test_wild_is_different(people):
    "Wild pictures are grainier and more colourful on average."
    def look(split):
        x = [np.asarray(Image.open(people/split/f'{i:06d}.jpg').convert('HSV'), float) for i in range(0, 400, 8)]
        return np.mean([a[..., 1].mean() for a in x]), np.mean([np.abs(np.diff(a[..., 2], axis=1)).mean() for a in x])
    assert all(w > 1.15*t for w, t in zip(look('wild'), look('train')))


# textures: no anny needed

@pytest.mark.parametrize('kind', texture.PATTERNS)
def test_textures_repeat_by_seed(kind):
    a, b, c = (texture.tile(np.random.default_rng(s), kind, texture.palette(np.random.default_rng(1), 'muted')) for s in (0, 0, 1))
    assert (a == b).all() and (a != c).any() and a.shape == (texture.TEXELS, texture.TEXELS, 3) and 0 <= a.min() and a.max() <= 1


def test_lookup_is_bilinear():
    r = np.random.default_rng(0)
    t, u, v = r.random((8, 8, 3)), r.uniform(-3, 3, 50), r.uniform(-3, 3, 50)
    x, y = u*8 - .5, v*8 - .5
    want = np.zeros((50, 3))
    for dx in (0, 1):
        for dy in (0, 1):
            i, j = np.floor(x) + dx, np.floor(y) + dy
            want += ((1 - abs(x - i))*(1 - abs(y - j)))[:, None]*t[(j % 8).astype(int), (i % 8).astype(int)]
    assert np.allclose(texture.lookup(t, u, v), want, atol=1e-5)


# the renderer itself

def first_triangle(o, d, v, f):
    "Nearest triangle on one ray and the distance to it, by Möller and Trumbore's formula over all triangles."
    a, e1, e2 = v[f[:, 0]], v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]]
    p = np.cross(d, e2)
    det = (e1*p).sum(1)
    with np.errstate(divide='ignore', invalid='ignore'):
        s = o - a
        u, q = (s*p).sum(1)/det, np.cross(s, e1)
        w, t = (q@d)/det, (e2*q).sum(1)/det
        t = np.where((u >= 0) & (w >= 0) & (u + w <= 1) & (t > 0), t, np.inf)
    return int(t.argmin()), float(t.min())


@needs_anny
@pytest.mark.parametrize('split, i', [('train', 3), ('val', 11), ('wild', 5)])
def test_same_seed_same_bytes(split, i):
    from sshpe.render.people import jpeg_bytes, render
    (a, x), (b, y), (c, _) = render(0, split, i), render(0, split, i), render(1, split, i)
    assert jpeg_bytes(a) == jpeg_bytes(b) != jpeg_bytes(c) and x == y


@needs_anny
def test_shipped_pictures_come_from_this_code(people, read):
    "Another machine may round otherwise, so pictures are compared by eye's measure, labels within a tenth of a pixel."
    from sshpe.render.people import jpeg_bytes, render
    for i in (0, 17):
        im, anns = render(0, 'val', i)
        old = [a for a in read('val')['annotations'] if a['image_id'] == i + 1]
        assert len(old) == len(anns) and np.allclose(old[0]['keypoints'], anns[0]['keypoints'], atol=.11)
        new = Image.open(io.BytesIO(jpeg_bytes(im)))
        assert np.abs(np.asarray(new, float) - np.asarray(Image.open(people/'val'/f'{i:06d}.jpg'), float)).mean() < 1


@needs_anny
@pytest.mark.parametrize('split, i', [('train', 0), ('train', 1), ('train', 4), ('wild', 2)])
def test_visibility_by_brute_force(split, i):
    "A joint is seen only if the nearest of *all* triangles towards it is its own limb, near before it."
    from sshpe.render.camera import traceable
    from sshpe.render.people import JOINT_RADIUS, key, OWN, stage, visibility
    people, cam, scene, things, s = stage(key(0, split, i), split == 'wild')
    mesh, (W, H) = traceable(s.v, s.f), cam.size
    for k, p in enumerate(people):
        xy, v = visibility(cam, mesh, s, k, p, np.zeros((H, W), bool))
        for j, joint in enumerate(p.joints):
            q = cam.R@(joint - cam.o)                                          # project by hand
            x, y = cam.f*q[0]/q[2] + cam.c[0], cam.f*q[1]/q[2] + cam.c[1]
            if not (0 <= x <= W - 1 and 0 <= y <= H - 1):
                assert v[j] == 0 and (xy[j] == 0).all()
                continue
            assert np.allclose(xy[j], (x, y))
            d = (joint - cam.o)/np.linalg.norm(joint - cam.o)
            f, t = first_triangle(cam.o, d, s.v, s.f)
            gap, thick = np.linalg.norm(joint - cam.o) - t, JOINT_RADIUS[j]*p.height/1.7 + p.look.loose + .01
            skirt = s.owner[f] == 100 + k and 11 <= j <= 14
            own = (s.owner[f] == k and set(s.part[s.f[f]].tolist()) & OWN[j]) or skirt
            room = thick + .06*skirt - gap
            if np.isfinite(t) and abs(room) < 1e-3: continue                   # a tie
            assert v[j] == (2 if not np.isfinite(t) or (own and room > 0) else 1), (k, COCO17.joints[j])


@needs_anny
def test_boxes_are_those_of_the_outline():
    "The box of a lone person in the frame is that of the painted pixels."
    from sshpe.render.camera import traceable
    from sshpe.render.people import key, label, rendered, stage
    done = 0
    for i in range(12):
        people, cam, scene, things, s = stage(key(0, 'train', i), False)
        if len(people) > 1 or things: continue
        mesh = traceable(s.v, s.f)
        _, own = rendered(scene, mesh, s, people, things, cam)
        a = label(cam, mesh, s, 0, people[0], own, np.zeros(own.shape[:2], bool))
        y, x = np.nonzero((own >= 0).any(-1))
        x0, y0, w, h = a['bbox']
        assert np.allclose([x0, y0, x0 + w, y0 + h], [x.min(), y.min(), x.max(), y.max()], atol=1.1)
        assert a['area'] == ((own >= 0).sum(-1) >= 2).sum()
        done += 1
    assert done >= 2


@needs_anny
def test_a_covered_joint_is_hidden():
    from sshpe.render.camera import traceable
    from sshpe.render.people import key, stage, visibility
    people, cam, scene, things, s = stage(key(0, 'train', 1), False)
    mesh, (W, H) = traceable(s.v, s.f), cam.size
    _, v = visibility(cam, mesh, s, 0, people[0], np.zeros((H, W), bool))
    _, c = visibility(cam, mesh, s, 0, people[0], np.ones((H, W), bool))
    assert (v == 2).any() and (c == np.minimum(v, 1)).all()


@needs_anny
def test_poses_keep_within_the_joints_limits():
    from sshpe.render.person import posed, unit_vectors
    for i in range(30):
        p = posed(np.random.default_rng(i), bold=i % 2)
        for a, b, c in ((5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16)):
            A, B, C = p.joints[[a, b, c]]
            bend = np.degrees(np.arccos(np.clip(unit_vectors(B - A)@unit_vectors(C - B), -1, 1)))
            assert bend < 158, p.pose


@needs_anny
def test_write_makes_a_readable_set(tmp_path):
    from sshpe.render.people import render_split
    out = render_split(tmp_path, 'val', n=3, seed=9, workers=1)
    d = json.loads(out.read_text())
    assert len(d['images']) == 3 and all((tmp_path/'val'/i['file_name']).exists() for i in d['images'])
