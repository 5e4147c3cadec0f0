"""The command line: right exit codes, one sentence for each mistake, and the whole path on stick people."""
import json, resource, subprocess, sys
from pathlib import Path

import nbformat, numpy as np, pytest

from sshpe.cli import main
from sshpe.runs.command import pairs
from sshpe.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
SSHPE = [sys.executable, '-c', 'from sshpe.cli import main; raise SystemExit(main())']


def say(capsys, *words):
    code = main([str(w) for w in words])
    out = capsys.readouterr()
    return code, out.out, out.err


def refused(capsys, *words):
    code, out, err = say(capsys, *words)
    assert code == 2 and err.startswith('sshpe: ') and err.count('\n') == 1 and 'Traceback' not in err, (code, out, err)
    return err


def test_help_is_quick_and_light():
    spent = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])   # not the clock: other programs may hold the cores
    t = spent()
    r = subprocess.run([*SSHPE, '--help'], capture_output=True, text=True)
    assert r.returncode == 0 and 'pseudo-label' in r.stdout and spent() - t < 1
    code = 'import sys; from sshpe.cli import parser; parser(); raise SystemExit("torch" in sys.modules or "numpy" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


@pytest.mark.parametrize('words, meant', [
    (['trian'], "'train'"), (['train', '--lables', '3'], "'--labels'"), (['train', '-p', 'tau'], 'KEY=VALUE'), (['train', '--labels', 'few'], 'few'),
    (['train', '-p', 'labels=few'], 'whole number'), (['predict', 'a.jpg'], '--run'), (['predict', 'a.jpg', '--run', 'no', '--box', '1,2,3'], '--box'),
    (['predict', 'a.jpg', '--run', 'no', '--box', '1,2,0,4'], '--box'), (['predict', 'a.jpg', '--run', 'no'], 'finished run'), (['evaluate', 'no'], 'finished run'),
    (['pseudo-label', 'no', '--out', 'x.json'], 'finished run'), ([], 'COMMAND'), (['runs', '--jsn'], "'--json'"), (['evaluate'], 'RUN')])
def test_mistakes_cost_one_sentence(capsys, words, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert meant in refused(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_pairs():
    got = pairs(['labels=50', 'weights=imagenet', 'split=3', 'tau=0.2', 'strong.rotation=Uniform(-3, 3)', 'pool=mean', 'drops=(.5, .8)', 'margin=inf'])
    assert got == dict(labels=50, weights='imagenet', split='3', override={'tau': .2, 'strong.rotation': 'Uniform(-3, 3)', 'pool': 'mean', 'drops': (.5, .8), 'margin': 'inf'})
    with pytest.raises(InputError): pairs(['=3'])


def test_recipes(capsys):
    code, out, _ = say(capsys, 'recipes', '--json')
    entries = json.loads(out, parse_constant=pytest.fail)
    named = {r['name'] for r in entries}
    for r in entries:
        assert {'paper', 'table', 'row', 'fields'} <= set(r) and all(r[k] for k in ('about', 'paper', 'table', 'row'))
        assert r['rows'][0]['row'] == r['row'] and r['fields']['students'] in (1, 2, 3)
    assert code == 0 and {'supervised', 'dual-pose', 'denoise-select', 'pose-mum-plus'} <= named
    assert all(n in say(capsys, 'recipes')[1] for n in named)


@pytest.mark.parametrize('change, word', [
    (['-p', 'taau=1'], "'tau'"), (['--root', 'nowhere'], 'nowhere')])
def test_mistakes_inside_the_notebook_cost_one_sentence_too(capsys, sticks, tmp_path, change, word):
    assert word in refused(capsys, 'train', '--root', sticks, '--preset', 'tiny', '--labels', 8, '--out', tmp_path / 'runs/x', *change)
    assert list(tmp_path.iterdir()) == []


def test_plain_papermill(sticks, tmp_path):
    args = dict(recipe='supervised', labels=8, preset='tiny', root=sticks, out=tmp_path / 'run')
    more = [w for k, v in args.items() for w in ('-p', k, str(v))]
    r = subprocess.run([sys.executable, '-m', 'papermill', ROOT / 'nbs/runs/train.ipynb', tmp_path / 'out.ipynb', *more], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-2000:]
    assert json.loads((tmp_path / 'run/metrics.json').read_text())['steps'] == 12


@pytest.fixture(scope='module')
def demo(sticks, tmp_path_factory):
    "The demo on stick people: three runs side by side and their page."
    out = tmp_path_factory.mktemp('demo')
    words = ['demo', '--preset', 'tiny', '--root', sticks, '--labels', '16', '--out', out / 'demo']
    return out / 'demo', words, subprocess.run([*SSHPE, *map(str, words)], capture_output=True, text=True)


def test_demo_ends_with_a_table(demo):
    out, words, r = demo
    assert r.returncode == 0, r.stdout + r.stderr
    assert r.stderr == ''
    lines = r.stdout.splitlines()
    assert sum('step 12/12' in l for l in lines) == 3 and lines[-1] == str(out / 'demo.ipynb')
    assert all((out / k / 'metrics.json').exists() for k in ('supervised', 'denoise-select-jc', 'pose-mum-plus'))


def test_demo_again_trains_nothing(demo, capsys):
    out, words, _ = demo
    before = {f: f.stat().st_mtime_ns for f in out.rglob('*')}
    code, text, err = say(capsys, *words)
    assert code == 0 and 'finished' in text and 'AP' in text and {f: f.stat().st_mtime_ns for f in out.rglob('*')} == before


def test_executed_notebooks_are_clean(demo):
    out, *_ = demo
    for f in out.rglob('*.ipynb'):
        nb = nbformat.read(f, 4)
        outs = [o for c in nb.cells if c.cell_type == 'code' for o in c.outputs]
        assert not [o for o in outs if o.output_type == 'error' or o.get('name') == 'stderr'] and 'widgets' not in nb.metadata
        assert sum('image/png' in o.get('data', {}) for o in outs) >= 4
    fit = next(c for c in nbformat.read(out / 'denoise-select-jc/train.ipynb', 4).cells if 'training.fit' in c.source)
    assert len(fit.outputs) == 1 and 'step 12/12' in fit.outputs[0].data['text/plain']


def test_runs(demo, capsys):
    out, *_ = demo
    rows = json.loads(say(capsys, 'runs', out, '--json')[1])
    assert len(rows) == 3 and {r['state'] for r in rows} == {'finished'}
    assert 'pose-mum-plus' in say(capsys, 'runs', out)[1]


def test_evaluate(demo, capsys, sticks):
    out, *_ = demo
    code, text, _ = say(capsys, 'evaluate', out / 'pose-mum-plus', '--json')
    m = json.loads(text)
    assert code == 0 and m['networks'] == json.loads((out / 'pose-mum-plus/metrics.json').read_text())['networks']
    assert (out / 'pose-mum-plus/evaluate/people-val/evaluate.ipynb').exists() and m['boxes'] == 'true'
    assert 'no folder' in refused(capsys, 'evaluate', out / 'supervised', '--root', 'nowhere')


@pytest.fixture(scope='module')
def coco_dev(sticks, tmp_path_factory):
    "Photos without labels in COCO's layout of test-dev2017, and a detector's boxes for them and for the labelled ones."
    import shutil
    root = tmp_path_factory.mktemp('coco')
    shutil.copytree(sticks / 'val', root / 'test2017'); shutil.copytree(sticks / 'val', root / 'val2017')
    d = json.loads((sticks / 'annotations/person_keypoints_val.json').read_text())
    (root / 'annotations').mkdir()
    (root / 'annotations/person_keypoints_val2017.json').write_text(json.dumps(d))
    cats = [dict(id=1, name='person', supercategory='person'), dict(id=2, name='bicycle', supercategory='vehicle')]
    (root / 'annotations/image_info_test-dev2017.json').write_text(json.dumps(dict(info={}, images=d['images'], licenses=[], categories=cats)))
    boxes = [dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=.9) for a in d['annotations']]
    (root / 'boxes.json').write_text(json.dumps(boxes + boxes[:4] + [{**boxes[0], 'category_id': 2}]))
    return root


def test_evaluate_with_a_detector_s_boxes(demo, capsys, coco_dev):
    out, *_ = demo
    words = 'evaluate', out / 'denoise-select-jc', '--data', 'coco', '--root', coco_dev, '--boxes', coco_dev / 'boxes.json', '--flip'
    code, text, err = say(capsys, *words, '--split', 'val2017')
    assert (code, err) == (0, '') and 'detected' in text and 'true' not in text and 'PCK' not in text
    where = out / 'denoise-select-jc/evaluate/coco-val2017-boxes-flip'
    m = json.loads((where / 'metrics.json').read_text())
    assert m['boxes'] == 'detected' and m['flip'] and m['people'] == 20 and m['headline']['AP'] is not None
    assert Path(m['upload']).name == 'person_keypoints_val2017_denoise-select-jc_results.zip' and m['upload'] in text
    assert 'detected' in (where / 'evaluate.ipynb').read_text()


def test_test_dev(demo, capsys, coco_dev):
    import zipfile
    out, *_ = demo
    words = 'evaluate', out / 'pose-mum-plus', '--data', 'coco', '--root', coco_dev, '--split', 'test-dev2017'
    assert 'say where a detector found people' in refused(capsys, *words)
    code, text, err = say(capsys, *words, '--boxes', coco_dev / 'boxes.json')
    assert (code, err) == (0, '') and 'no public labels' in text and 'AP' not in text
    m = json.loads((out / 'pose-mum-plus/evaluate/coco-test-dev2017-boxes/metrics.json').read_text())
    assert m['networks'] == {} and Path(m['upload']).name == 'person_keypoints_test-dev2017_pose-mum-plus_results.zip'
    with zipfile.ZipFile(m['upload']) as z: found = json.loads(z.read(z.namelist()[0]))
    # one answer for each of 16 people: doubles went, the bicycle never came
    assert len(found) == 16
    for r in found: assert set(r) == {'image_id', 'category_id', 'keypoints', 'score'} and r['category_id'] == 1 and len(r['keypoints']) == 51 and 0 < r['score'] <= 1
    assert 'not a finite' not in text and json.loads((out / 'pose-mum-plus/evaluate/coco-test-dev2017-boxes/results-student.json').read_text())


def test_additional_is_one_command(capsys, sticks, tmp_path):
    code, text, err = say(capsys, 'train', '--root', sticks, '--preset', 'tiny', '--labels', 0, '--unlabelled', 'people:val', '--recipe', 'pose-mum-plus', '--out', tmp_path / 'x')
    assert (code, err) == (0, '') and 'all labels of people, people:val unlabelled' in text and 'step 12/12' in text
    s = json.loads((tmp_path / 'x/split.json').read_text())
    assert len(s['labelled']) == 64 and [len(q['ids']) for q in s['others']] == [16]


def test_predict(demo, capsys, sticks, tmp_path):
    out, *_ = demo
    photos = [sticks / 'val/000001.png', sticks / 'train/000001.png']
    code, text, _ = say(capsys, 'predict', *photos, '--run', out / 'denoise-select-jc', '--out', tmp_path, '--json')
    found = json.loads(text)
    assert code == 0 and len(found) == 2 and json.loads((tmp_path / 'results.json').read_text()) == found
    for f, photo in zip(found, photos): assert np.array(f['keypoints']).shape == (51,) and f['file_name'] == str(photo)
    assert 'outside' in refused(capsys, 'predict', photos[0], '--box', '500,0,10,10', '--run', out / 'supervised')
    (tmp_path / 'half.jpg').write_bytes(b'\xff\xd8\xff')
    assert 'half.jpg' in refused(capsys, 'predict', tmp_path / 'half.jpg', '--run', out / 'supervised')


def test_pseudo_label(demo, capsys, sticks, tmp_path):
    out, *_ = demo
    words = 'pseudo-label', out / 'denoise-select-jc', '--root', sticks, '--split', 'val', '--out', tmp_path / 'p.json'
    assert say(capsys, *words)[0] == 0 and len(json.loads((tmp_path / 'p.json').read_text())['annotations']) == 16
    assert 'exists' in refused(capsys, *words)
