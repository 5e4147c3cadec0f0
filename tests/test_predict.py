"Prediction over photos, folders and videos: in batches as one by one, COCO results, boxes of a detector, nothing lost to one bad file."
import json
import numpy as np, pytest
from PIL import Image
from sshpe.cli import main
from sshpe.data.boxes import boxes_by_photo
from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.runs import predictions, result

@pytest.fixture(scope='module')
def x(here): return result.load(here/'run', 'cpu')

def points(found): return np.array([r['keypoints'] for r in found]).reshape(len(found), -1, 3)

def test_batches_say_what_each_photo_alone_is_answered(here, x):
    files = predictions.files_of([here/'sticks/val'])
    together, none = predictions.predictions(x, predictions.looks(files), batch=7)
    alone = [r for f in files for r in predictions.predictions(x, predictions.looks([f]))[0]]
    assert len(together) == len(files) == 16 and none == []
    assert np.allclose(points(together), points(alone), atol=.02)

def test_boxes_say_what_the_data_set_s_own_boxes_say(here, x):
    "The path of the evaluation and that of the prediction meet."
    people = load('people', str(here/'sticks'), 'val')
    xy, s = result.find(x, people)
    boxes = {str(people.root/f): (i, [(tuple(b), 1.)]) for i, f, b in zip(people.image_ids.tolist(), people.files.tolist(), people.boxes.tolist())}
    found, _ = predictions.predictions(x, predictions.looks(list(boxes), boxes))
    assert [r['image_id'] for r in found] == people.image_ids.tolist()
    assert np.allclose(points(found)[...,:2], xy, atol=.02) and np.allclose(points(found)[...,2], s, atol=2e-4)

def test_coco_s_own_tools_read_the_results(here, capsys):
    from pycocotools.coco import COCO
    truth = here/'sticks/annotations/person_keypoints_val.json'
    code = main(['predict', str(here/'sticks/val'), '--run', str(here/'run'), '--boxes', str(truth), '--out', str(here/'out'), '--draw', str(here/'drawn')])
    assert code == 0 and '16 people in 16 photos, 0 left out' in capsys.readouterr().out
    found = COCO(str(truth)).loadRes(str(here/'out/results.json'))
    assert len(found.anns) == 16 and all(len(a['keypoints']) == 51 for a in found.anns.values())
    pictures = sorted((here/'drawn').iterdir())
    assert len(pictures) == 16 and Image.open(pictures[0]).width > 100

def test_one_bad_file_never_costs_the_rest(here, x, capsys):
    d = here/'some/deeper'; d.mkdir(parents=True)
    for n in '123': (d/f'{n}.png').write_bytes((here/f'sticks/val/00000{n}.png').read_bytes())
    (d/'2.png').write_bytes(b'\x89PNG half'); (d/'notes.txt').write_text('no photo')
    assert main(['predict', str(here/'some'), '--run', str(here/'run'), '--out', str(here/'out2')]) == 0
    out = capsys.readouterr()
    assert '2 people in 2 photos, 1 left out' in out.out and out.err.startswith('left out: ') and '2.png' in out.err
    found = json.loads((here/'out2/results.json').read_text())
    assert [r['file_name'] for r in found] == [str(d/'1.png'), str(d/'3.png')]
    with pytest.raises(InputError, match='2.png'): predictions.predictions(x, predictions.looks([str(d/'2.png')]))

def test_patterns_and_folders(here):
    val = here/'sticks/val'
    assert predictions.files_of([str(val/'00000[12].png'), str(val/'000001.png')]) == [str(val/'000001.png'), str(val/'000002.png')]
    for nothing in (here/'sticks/annotations', val/'*.webp'):
        with pytest.raises(InputError, match='holds no photo or video'): predictions.files_of([str(nothing)])

def test_boxes_are_found_by_name_and_by_number_and_by_certainty(tmp_path):
    box = dict(bbox=[1, 2, 3, 4], category_id=1)
    files = ['a/000000000139.jpg', 'a/cat.jpg']
    for entries in ([box | dict(image_id=139, score=.9)], [box | dict(file_name='x/000000000139.jpg', score=.9)],
                    dict(images=[dict(id=7, file_name='000000000139.jpg')], annotations=[box | dict(image_id=7)])):
        (tmp_path/'b.json').write_text(json.dumps(entries))
        (photo, (_, boxes)), = boxes_by_photo(tmp_path/'b.json', files)[0].items()
        assert photo == files[0] and boxes[0][0] == (1, 2, 3, 4)
    (tmp_path/'b.json').write_text(json.dumps([box | dict(image_id='cat', score=s) for s in (.2, .6)] + [box | dict(image_id='cat', category_id=17)]))
    assert [s for _, s in boxes_by_photo(f'{tmp_path}/b.json:0.5', files)[0][files[1]][1]] == [.6]
    for bad, word in (([dict(bbox=[1, 2, 3], image_id=139)], 'box 1 needs'), ([box | dict(image_id=5)], 'none of its boxes')):
        (tmp_path/'b.json').write_text(json.dumps(bad))
        with pytest.raises(InputError, match=word): boxes_by_photo(tmp_path/'b.json', files)

def test_uncertainties_come_from_looks_that_differ(here, x):
    files = predictions.files_of([here/'sticks/val'])[:5]
    plain, _ = predictions.predictions(x, predictions.looks(files))
    more, two = (predictions.predictions(x, predictions.looks(files), batch=n, views=8)[0] for n in (5, 2))
    u, v = (np.array([r['uncertainties'] for r in found]) for found in (more, two))
    assert u.shape == (5, 17) and (u > 0).all() and np.allclose(u, v, atol=2e-4) and np.allclose(points(more), points(plain), atol=.02)
    with pytest.raises(InputError, match='two looks'): predictions.predictions(x, predictions.looks(files), views=1)

def test_every_frame_of_a_video(here, x, capsys):
    av = pytest.importorskip('av')
    photos = [Image.open(here/f'sticks/val/00000{n}.png').convert('RGB').resize((96, 128)) for n in (1, 2, 3, 4)]
    with av.open(str(here/'clip.mkv'), 'w') as v:
        s = v.add_stream('ffv1', rate=5)
        s.width, s.height, s.pix_fmt = 96, 128, 'bgr0'
        for p in photos: v.mux(s.encode(av.VideoFrame.from_image(p)))
        v.mux(s.encode())
    for i, p in enumerate(photos): p.save(here/f'frame{i}.png')
    clip, _ = predictions.predictions(x, predictions.looks([str(here/'clip.mkv')]))
    still, _ = predictions.predictions(x, predictions.looks([str(here/f'frame{i}.png') for i in range(4)]))
    assert np.allclose(points(clip), points(still), atol=.02)
    assert [r['file_name'].split('#')[1] for r in predictions.predictions(x, predictions.looks([str(here/'clip.mkv')], every=2))[0]] == ['0', '2']
    (here/'half.mp4').write_bytes(b'half')
    assert main(['predict', str(here/'half.mp4'), str(here/'frame1.png'), '--run', str(here/'run'), '--out', str(here/'out3')]) == 0
    assert '1 left out' in capsys.readouterr().out

def test_a_video_without_the_package_says_what_to_install(here, x, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(InputError, match=r"sshpe\[video\]"): list(predictions.frames_of('clip.mp4'))
