"""Somebody's own pictures: one json of labels, its photos, folders of unlabelled ones; who takes part is said before, and what they brought after."""
import json, os, shutil, warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, strategies as st
from PIL import Image
from sshpe.cli import main
from sshpe.data.held_out import held_out, HeldOut, validation
from sshpe.data.people import People
from sshpe.data.registry import load
from sshpe.data.sources import people_of, source, without
from sshpe.data.split import read_split
from sshpe.errors import InputError
from sshpe.pose.skeleton import COCO17
from sshpe.runs import compare, report, run, training


def photo(path, seed, size=(80, 100)):
    "A JPEG of noise with large patches, as unlike others as photos are."
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, quality=85)


def person(id, image, seed):
    r = np.random.default_rng(seed)
    xy = r.uniform((10, 10), (70, 90), (17, 2)).round(1)
    x, y, w, h = *xy.min(0), *np.ptp(xy, 0)
    return dict(id=id, image_id=image, category_id=1, iscrowd=0, bbox=[x, y, w, h], area=w*h/2, keypoints=np.insert(xy, 2, 2, 1).ravel().tolist())


CATEGORY = dict(id=1, name='person', keypoints=list(COCO17.joints))


@pytest.fixture(scope='module')
def yours(tmp_path_factory):
    "Twenty labelled photos with one or two people each, as a json beside their folder; more photos, some of them copies of labelled ones."
    d = tmp_path_factory.mktemp('yours')
    for i in range(1, 21): photo(d/f'photos/{i:03}.jpg', i)
    who = [(i, k) for i in range(1, 21) for k in range(1+i%2)]
    images = [dict(id=i, file_name=f'{i:03}.jpg', width=80, height=100) for i in range(1, 21)]
    people = [person(n, i, n) for n, (i, _) in enumerate(who, 1)]
    (d/'labels.json').write_text(json.dumps(dict(images=images, annotations=people, categories=[CATEGORY])))
    for i in range(12): photo(d/f'more/{i}.jpg', 100+i)
    for i in 1, 2, 3: shutil.copy(d/f'photos/{i:03}.jpg', d/f'more/copy-{i}.jpg')
    return d


def own(d, **more): return dict(data='coco', root=str(d/'labels.json'), photos=str(d/'photos'), labels=0, preset='tiny') | more


# held out

@given(st.integers(2, 60), st.one_of(st.floats(.01, .99), st.integers(1, 59)), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_photo_is_held_out_whole(n, size, seed, random):
    files = np.array([f'{random.randrange(n)}.jpg' for _ in range(2*n)])
    N, photos = len(files), len(set(files.tolist()))
    p = People('p', Path(), COCO17, files, np.arange(N), np.arange(N), np.zeros((N, 4)), np.zeros((N, 17, 3)), np.ones(N))
    asked = max(1, round(size*photos)) if size < 1 else size
    if asked >= photos:
        with pytest.raises(InputError, match='leave none to train on'): validation(p, HeldOut(size, seed))
        return
    mine = validation(p, HeldOut(size, seed))
    val, train = set(files[mine].tolist()), set(files[~mine].tolist())
    assert not val & train and len(val) == asked and train
    turned = np.random.default_rng(seed).permutation(N)
    assert (validation(p[turned], HeldOut(size, seed)) == mine[turned]).all()   # the file's order decides nothing


@pytest.mark.parametrize('text, size, seed', [('0.2', .2, 0), ('.25:3', .25, 3), ('40', 40, 0), ('0', 0, 0)])
def test_how_much_is_one_line(text, size, seed): assert held_out(text) == HeldOut(size, seed)


@pytest.mark.parametrize('text', ['', 'val.json', '-1', '0.2:x', '20%'])
def test_what_is_no_number_is_no_share(text): assert held_out(text) is None


def test_one_json_is_a_data_set(yours):
    both = {s: load('coco', yours/'labels.json', s, photos=str(yours/'photos'), val='0.25') for s in ('train', 'val')}
    files = {s: set(p.files.tolist()) for s, p in both.items()}
    assert len(files['val']) == 5 and len(files['train']) == 15 and not files['val'] & files['train']
    assert sum(map(len, both.values())) == 30 and len(load('coco', yours/'labels.json', photos=str(yours/'photos'))) == 30
    again = load('coco', yours/'labels.json', 'val', photos=str(yours/'photos'), val='0.25')
    assert again.ann_ids.tolist() == both['val'].ann_ids.tolist()
    other = load('coco', yours/'labels.json', 'val', photos=str(yours/'photos'), val='0.25:1')
    assert set(other.files.tolist()) != files['val']


def test_a_second_json_is_the_validation(yours, tmp_path):
    d = json.loads((yours/'labels.json').read_text())
    few = [a for a in d['annotations'] if a['image_id'] < 4]
    (tmp_path/'val.json').write_text(json.dumps(d | dict(annotations=few)))
    how = dict(photos=str(yours/'photos'), val=str(tmp_path/'val.json'))
    assert len(load('coco', yours/'labels.json', 'val', **how)) == len(few) and len(load('coco', yours/'labels.json', 'train', **how)) == 30


def test_a_folder_without_validation_people_holds_some_out(sticks, tmp_path):
    shutil.copytree(sticks, tmp_path/'s')
    assert len(load('coco', tmp_path/'s', 'train', val='0.25')) == 64 and len(load('coco', tmp_path/'s', 'val', val='0.25')) == 16   # its own
    (tmp_path/'s/annotations/person_keypoints_val.json').unlink()
    assert len(load('coco', tmp_path/'s', 'train', val='0.25')) == 48 and len(load('coco', tmp_path/'s', 'val', val='0.25')) == 16
    with pytest.raises(InputError, match='person_keypoints_val'): load('coco', tmp_path/'s', 'val')


@pytest.mark.parametrize('changes, says', [
    (dict(split='wild'), 'its splits are train and val'), (dict(split='val', val='0'), 'hold some out'), (dict(split='val', val='20'), 'leave none to train on'),
    (dict(split='val', val='no.json'), 'no file'), (dict(root='no.json'), 'no folder'), (dict(photos='nowhere'), 'no folder')])
def test_what_cannot_be_is_one_sentence(yours, changes, says):
    given = dict(root=yours/'labels.json', split='train', photos=str(yours/'photos')) | changes
    with pytest.raises(InputError, match=says) as e: load('coco', **given)
    assert '\n' not in str(e.value)


@given(st.integers(5, 80), st.integers(0, 9))
def test_photos_that_come_or_go_move_hardly_another(n, seed):
    def held(n):
        files, N = np.array([f'{i}.jpg' for i in range(n)]), n
        p = People('p', Path(), COCO17, files, np.arange(N), np.arange(N), np.zeros((N, 4)), np.zeros((N, 17, 3)), np.ones(N))
        return set(files[validation(p, HeldOut(.2, seed))].tolist())
    assert len((held(n) ^ held(n+1)) - {f'{n}.jpg'}) <= 1


def test_verify_knows_a_single_json(yours, capsys):
    assert main(['data', 'verify', 'coco', '--root', str(yours/'labels.json'), '--photos', str(yours/'photos'), '--json']) == 0
    r = json.loads(capsys.readouterr().out)
    assert r['usable'] and {s: x['photos'] for s, x in r['splits'].items()} == dict(train=16, val=4)
    assert main(['data', 'verify', 'coco', '--root', str(yours/'labels.json')]) == 2   # no photo lies beside it
    assert 'has no photo' in capsys.readouterr().out
    with pytest.raises(InputError, match=r'None of its photos is in .*: say where they are \(root, or photos of a single json\)'): load('coco', yours/'labels.json')


# unlabelled folders

def test_labelled_photos_in_the_folder_are_not_unlabelled_people(yours):
    how = dict(photos=str(yours/'photos'), val='0.2')
    known = [load('coco', yours/'labels.json', s, **how) for s in ('train', 'val')]
    rest = without(people_of(source(f'folder={yours}/more')), known)
    assert sorted(rest.files.tolist()) == sorted(f'{i}.jpg' for i in range(12))
    assert '3 photos with labels, or held out for validation, are left out' in rest.findings.line
    with pytest.raises(InputError, match='every photo'): without(people_of(source(f'folder={yours}/photos')), known)


def test_a_detectors_boxes_in_a_folder(yours, tmp_path):
    box = dict(category_id=1, score=.9, bbox=[10, 10, 40, 60])
    found = [box | dict(file_name='3.jpg'), box | dict(image_id='4', score=.2), box | dict(image_id=5), box | dict(file_name='3.jpg', bbox=[5, 5, 30, 30]),
             box | dict(image_id=6, category_id=3), box | dict(image_id=99), box | dict(image_id=7, bbox=[1, 2])]
    (tmp_path/'b.json').write_text(json.dumps(found))
    with pytest.warns(UserWarning, match='1 box that cannot be read is left out; 1 box in other photos is left out'):
        p = people_of(source(f'folder@{tmp_path}/b.json={yours}/more'))
    assert Counter(p.files.tolist()) == {'3.jpg': 2, '4.jpg': 1, '5.jpg': 1} and p.boxes[0].tolist() == [10, 10, 40, 60]
    assert len(set(p.image_ids.tolist())) == 3 and p.scores.tolist() == pytest.approx([.9, .9, .2, .9]) and not p.keypoints.any()
    with pytest.warns(UserWarning): assert len(people_of(source(f'folder@{tmp_path}/b.json:0.5={yours}/more'))) == 3


def test_a_name_that_two_photos_share_says_nothing(tmp_path):
    for f in 'a/1.jpg', 'b/1.jpg': photo(tmp_path/f'p/{f}', 1)
    box = dict(category_id=1, score=.9, bbox=[10, 10, 40, 60])
    (tmp_path/'b.json').write_text(json.dumps([box | dict(file_name='1.jpg'), box | dict(file_name='b/1.jpg')]))
    with pytest.warns(UserWarning, match='1 box in other photos'): p = people_of(source(f'folder@{tmp_path}/b.json={tmp_path}/p'))
    assert p.files.tolist() == ['b/1.jpg']


# the whole command

def test_who_takes_part_is_said_first(yours, tmp_path, monkeypatch):
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'store'))
    shutil.copytree(yours, tmp_path/'y')
    (tmp_path/'y/photos/007.jpg').write_bytes(b'no picture'); (tmp_path/'y/photos/008.jpg').unlink()
    (tmp_path/'y/again').mkdir(); photo(tmp_path/'y/again/x.jpg', 77)
    c = run.config(own(tmp_path/'y', unlabelled=f'folder={tmp_path}/y/more+folder={tmp_path}/y/again', out=str(tmp_path/'run')))
    with pytest.warns(UserWarning): x = training.start(c)
    run.unlock(x.where)
    lab, val, unl, gone, turned = run.facts(x.where)['plan']
    n = len(x.train)
    assert n+len(x.val) == 30-2-1 and lab.startswith(f'labelled: {n} people') and 'held out of labels.json by photo (val 0.2)' in val
    assert 'unlabelled: 12 people in 12 photos of more; 1 person in 1 photo of again' == unl
    assert 'whose photo is missing' in gone and 'cannot be decoded' in gone and 'more: 3 photos with labels' in gone
    assert 'weak=TURNED' in turned  # the poses of these labels are drawn at random
    split = read_split(x.where/'split.json')
    assert len(split.labelled) == n and [len(p.ids) for p in split.others] == [12, 1]


# what they brought

@pytest.fixture
def compared(yours, tmp_path, monkeypatch):
    "The parameters of a method that asks for its baseline, in a place of their own."
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'store'))
    return run.config(own(yours, unlabelled=f'folder={yours}/more', recipe='pose-mum-plus', out=str(tmp_path/'here/mine'), compare='supervised',
                          override={'decay': .5, 'precision': 'fp32'}))


def test_the_baseline_is_of_the_same_people_and_changes_nothing(compared, tmp_path):
    x = training.start(compared)
    base = Path(compare.compare(x))
    training.finish(training.fit(x))
    b = run.facts(base)
    assert base.parent == x.where.parent and b['config']['recipe'] == 'supervised' and b['config']['override'] == {'precision': 'fp32'}
    assert read_split(base/'split.json').labelled == x.split.labelled and b['steps'] == x.learner.T
    alone = training.start(replace(compared, out=str(tmp_path/'alone/mine'), compare=''))
    assert compare.compare(alone) == ''
    training.finish(training.fit(alone))
    assert (alone.where/'model.safetensors').read_bytes() == (x.where/'model.safetensors').read_bytes()
    # the report: what the files say, subtracted
    r, (ours, theirs) = report.read_run(x.where), (run.read_metrics(d) for d in (x.where, base))
    assert r.base.where == base
    head, joints = map(as_rows, report.brought(r).shown)
    assert head['PCK'] == pytest.approx([ours['headline']['PCK'], theirs['headline']['PCK'], ours['headline']['PCK']-theirs['headline']['PCK']], abs=.051)
    pck = [m['networks']['student']['PCK_joints'] for m in (ours, theirs)]
    assert {j: row[2] for j, row in joints.items()} == {j: pytest.approx(pck[0][j]-pck[1][j], abs=.051) for j in pck[0] if pck[0][j] is not None}
    assert 'no finished supervised run' in report.brought(report.read_run(alone.where)).about


def as_rows(table):
    "An HTML table: first cell -> the others as numbers."
    from bs4 import BeautifulSoup
    rows = [[c.text for c in tr('td')] for tr in BeautifulSoup(table, 'html.parser').tbody('tr')]
    return {r[0]: [float(v) for v in r[1:]] for r in rows}


def test_a_baseline_is_found_or_goes_on(compared, monkeypatch):
    x = training.start(compared)
    c = replace(compare.baseline_config(compared, x.learner.T), out=str(compare.baseline_folder(compared, x.learner.T)))
    b = training.start(c)
    b.learner.fit(b.where/'state.pt', until=8)   # and is stopped
    run.unlock(b.where)
    assert run.state(b.where) == 'unfinished'
    assert compare.compare(x) == str(b.where) and run.state(b.where) == 'finished'
    monkeypatch.setattr(training, 'fit', None)   # whoever trains now, fails
    assert compare.compare(x) == str(b.where)
    run.unlock(x.where)


def test_one_command(yours, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'store'))
    words = ['train', '--data', 'coco', '--root', yours/'labels.json', '--photos', yours/'photos', '--labels', '0', '--unlabelled', f'folder={yours}/more', '--val', '5',
             '--recipe', 'pose-mum-plus', '--preset', 'tiny', '--compare', 'supervised', '--out', tmp_path/'here/mine', '--device', 'cpu']
    assert main([str(w) for w in words]) == 0
    lines = capsys.readouterr().out.splitlines()
    plan, first = lines[1:5], next(i for i, l in enumerate(lines) if 'step ' in l)
    assert [l.partition(':')[0] for l in plan] == ['labelled', 'validation', 'unlabelled', 'left out'] and first >= 5 and 'in 5 photos' in plan[1]
    assert lines[first].startswith('supervised: step') and any(l.startswith('step 12/12') for l in lines[first:])
    nb = json.loads((tmp_path/'here/mine/train.ipynb').read_text())
    assert 'supervised baseline: supervised+' in json.dumps(nb) and 'difference' in (tmp_path/'here/mine/report.html').read_text()
    assert main([str(w) for w in words]) == 2 and 'already finished' in capsys.readouterr().err


@pytest.mark.parametrize('changes, says', [(dict(compare='suprevised'), 'supervised'), (dict(compare='supervised', recipe='supervised'), 'leave compare out')])
def test_only_supervised_training_is_compared_with(changes, says):
    with pytest.raises(InputError, match=says): run.config(changes)


# real photos, where they are

@pytest.mark.skipif(not os.environ.get('SSHPE_PHOTOS'), reason='SSHPE_PHOTOS does not point at a folder with real photos')
def test_real_photos(tmp_path, monkeypatch):
    "COCO's own: one json with its photos, other photos as a folder, some labelled ones among them, and boxes as a detector writes them."
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'store'))
    coco = Path(os.environ['SSHPE_PHOTOS'])/'coco_mini'
    labels, more = coco/'annotations/person_keypoints_train2017.json', tmp_path/'more'
    shutil.copytree(coco/'val2017', more)
    for f in sorted((coco/'train2017').iterdir())[:3]: shutil.copy(f, more)
    d = json.loads((coco/'annotations/person_keypoints_val2017.json').read_text())
    (tmp_path/'boxes.json').write_text(json.dumps([{k: a[k] for k in ('image_id', 'category_id', 'bbox')} | dict(score=.9) for a in d['annotations'] if not a['iscrowd']]))
    c = run.config(dict(data='coco', root=str(labels), photos=str(coco/'train2017'), labels=0, preset='tiny', recipe='pose-mum-plus', compare='supervised', val='0.25',
                        unlabelled=f'folder@{tmp_path}/boxes.json={more}', out=str(tmp_path/'runs/mine')))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        x = training.start(c)
        compare.compare(x)
        training.finish(training.fit(x))
    sides = [set(p.files.tolist()) for p in (x.train, x.val, *x.more)]
    assert all(map(len, sides)) and not sides[0] & sides[1] and not sides[2] & (sides[0] | sides[1])
    r = report.read_run(x.where)
    assert r.base and as_rows(report.brought(r).shown[0])['PCK'] and len(run.facts(x.where)['plan']) == 4


# whom to label next

def test_the_loop_of_labelling_goes_round(root, sticks, tmp_path):
    from sshpe.runs.notebook import execute
    given = dict(root=str(sticks), labels=8, more=6, pool=20, views=2, steps=8, out=str(tmp_path/'loop'))
    execute(root/'nbs/runs/label.ipynb', tmp_path/'label.ipynb', given)
    first, *next = [read_split(tmp_path/'loop'/n/'split.json') for n in ('first', 'doubtful', 'random')]
    assert len(first.labelled) == 8
    for s in next:
        assert s.labelled[:8] == first.labelled and len(set(s.labelled)) == 14 and not set(s.labelled) & set(s.unlabelled)
        assert set(s.labelled) | set(s.unlabelled) == set(first.labelled) | set(first.unlabelled)
    assert next[0].labelled != next[1].labelled


@pytest.mark.parametrize('preset, steps, name', [('mini', 3600, 'supervised-people-100-s0'), ('mini', 900, 'supervised+steps=900-people-100-s0'), ('tiny', 12, 'supervised+preset=tiny-people-100-s0')])
def test_a_baseline_is_named_as_somebody_would_train_it(preset, steps, name):
    "Its length is said only where it is not the preset's own."
    from sshpe.runs import run
    from sshpe.runs.compare import baseline_folder
    assert baseline_folder(run.Config(recipe='pose-mum-plus', preset=preset), steps).name == name
