"Files of pseudo-labels: what COCO's own reader and labelling tools need, sorted by doubt, and a reason when nothing passes."
import json
import numpy as np, pytest
from pycocotools.coco import COCO
from sshpe.cli import main
from sshpe.data.coco import read_coco
from sshpe.errors import InputError
from sshpe.runs import result

def made(here, capsys, name, *more):
    words = ['pseudo-label', here/'run', '--root', here/'sticks', '--split', 'val', '--out', here/name, *more]
    assert main([str(w) for w in words]) == 0
    return json.loads((here/name).read_text()), capsys.readouterr()

def test_the_file_has_what_its_readers_need(here, capsys):
    d, out = made(here, capsys, 'low.json', '--tau', '0.01')
    assert {'info', 'licenses', 'images', 'annotations', 'categories'} <= set(d) and out.err == ''
    photos = {i['id']: i for i in d['images']}
    (cat,) = d['categories']
    assert len(cat['keypoints']) == 17 and all(1 <= j <= 17 for l in cat['skeleton'] for j in l) and cat['supercategory'] == 'person'
    for a in d['annotations']:
        k, im = np.reshape(a['keypoints'], (17, 3)), photos[a['image_id']]
        assert a['num_keypoints'] == (k[:,2] > 0).sum() == sum(s > .01 and v > 0 for s, v in zip(a['scores'], k[:,2])) and a['iscrowd'] == 0
        assert (k[k[:,2] == 0] == 0).all() and (k[:,:2] >= 0).all() and (k[:,0] <= im['width']-1).all() and (k[:,1] <= im['height']-1).all()
        assert 0 < a['area'] and len(a['bbox']) == 4 and 0 <= a['score'] <= 1 and (here/'sticks/val'/im['file_name']).is_file()
    assert len({a['id'] for a in d['annotations']}) == len(d['annotations']) == 16
    coco = COCO(str(here/'low.json'))
    assert len(coco.loadRes([dict(image_id=a['image_id'], category_id=1, keypoints=a['keypoints'], score=a['score']) for a in d['annotations']]).anns) == 16
    assert read_coco(here/'low.json', here/'sticks/val').keypoints[...,2].sum() == 2*d['info']['kept']

def test_everybody_in_one_json_gets_a_label_unless_some_are_held_out(here, capsys):
    "A json without validation people is the case of somebody who has pictures and a run."
    words = ['pseudo-label', here/'run', '--data', 'coco', '--root', here/'sticks/annotations/person_keypoints_val.json', '--photos', here/'sticks/val', '--tau', '0.01']
    for name, more, n in (('all.json', [], 16), ('part.json', ['--val', '4'], 12)):
        assert main([str(w) for w in [*words, '--out', here/name, *more]]) == 0
        assert len(json.loads((here/name).read_text())['annotations']) == n

def test_doubt_first(here, capsys):
    d, _ = made(here, capsys, 'doubt.json', '--tau', '0.01', '--sort', 'doubt')
    doubt = [np.mean(np.divide(a['uncertainties'], np.maximum(a['scores'], 1e-3))) for a in d['annotations']]   # of the peak
    assert (np.diff([a['doubt'] for a in d['annotations']]) <= 0).all() and doubt[0] > doubt[-1]
    assert [a['doubt'] for a in d['annotations']] == pytest.approx(doubt, rel=.05)
    plain, _ = made(here, capsys, 'plain.json', '--tau', '0.01')
    assert sorted(map(json.dumps, plain['annotations'])) == sorted(map(json.dumps, d['annotations'])) and plain != d
    with pytest.raises(InputError, match="'doubt'"): result.pseudo_labels(result.load(here/'run', 'cpu'), None, sort='doupt')

def test_where_nothing_passes_the_reason_and_gates_that_keep_some(here, capsys):
    d, out = made(here, capsys, 'none.json', '--tau', '2')
    s = np.array([a['scores'] for a in d['annotations']])
    assert d['info']['kept'] == 0 and '0 of ' in out.out and f'above tau=2.0: the highest is {s.max():g}' in out.err
    taus = d['info']['gates']
    assert len(taus) == 3
    for t, n in taus.items():
        assert f'--tau {float(t):g} keeps {n:,}' in out.err
        again, _ = made(here, capsys, f'{t}.json', '--tau', t)
        assert again['info']['kept'] == n > 0
    shares = [n/d['info']['joints'] for n in taus.values()]
    assert np.allclose(shares, (.25, .5, .75), atol=.08)

def test_one_look_knows_no_doubt(here, capsys):
    from dataclasses import replace
    from sshpe.data.registry import load
    x, val = result.load(here/'run', 'cpu'), load('people', here/'sticks', 'val')
    once = replace(x, recipe=replace(x.recipe, n_weak=1, K=0))
    with pytest.raises(InputError, match='looks once at each person.*views=8'): result.pseudo_labels(once, val, sort='doubt')
    d = result.pseudo_labels(once, val, sort='doubt', views=4)
    assert min(a['doubt'] for a in d['annotations']) > 0 and (np.diff([a['doubt'] for a in d['annotations']]) <= 0).all()
    assert sorted(a['id'] for a in d['annotations']) == sorted(val.ann_ids.tolist())
    made(here, capsys, 'views.json', '--sort', 'doubt', '--views', '3')
