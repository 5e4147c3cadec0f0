"""Runs: nothing is overwritten, nothing is lost, and a folder tells everything about its run."""
import json, os, pickle, shutil, subprocess, sys, tempfile, time
from dataclasses import fields, replace
from pathlib import Path

import nbformat, numpy as np, pytest, torch
from hypothesis import given, strategies as st

from sshpe.runs import notebook, result, run, pictures, training
from sshpe.ssl.pseudo import filled
from sshpe.errors import InputError
from sshpe.data.coco import read_coco
from sshpe.data.registry import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(sticks, tmp_path):
    return run.Config(root=str(sticks), labels=16, preset='tiny', out=str(tmp_path / 'run'))


def whole(c):
    x = training.start(c)
    training.fit(x)
    training.finish(x)
    return x


# parameters

def test_parameters_cell_is_config():
    import ast
    from fastcore.docments import docments
    nb = nbformat.read(ROOT / 'nbs/runs/train.ipynb', 4)
    cell = next(c for c in nb.cells if 'parameters' in c.metadata.get('tags', []))
    lines = {l.split(':')[0]: l for l in cell.source.splitlines()}
    about = docments(run.Config)
    assert list(lines) == [f.name for f in fields(run.Config)]
    for f in fields(run.Config):
        node = ast.parse(lines[f.name]).body[0]
        assert node.annotation.id == type(run.default(f)).__name__
        assert ast.literal_eval(node.value) == run.default(f)
        assert lines[f.name].split(' # ', 1)[1] == about[f.name]


def test_papermill_understands_the_cells():
    import papermill as pm
    for nb in sorted((ROOT / 'nbs/runs').glob('*.ipynb')):
        found = pm.inspect_notebook(nb)
        assert found and all(p['inferred_type_name'] != 'None' and p['help'] for p in found.values()), nb.name


@pytest.mark.parametrize('wrong, word', [
    (dict(recipie='supervised'), "'recipe'"), (dict(labels='7'), 'whole number'), (dict(labels=True), 'whole number'), (dict(labels=-1), '1 or more'),
    (dict(unlabelled=None), 'text'), (dict(seed=-1), 'seed'), (dict(steps=-5), 'steps'), (dict(override=[1]), 'dict'), (dict(root=None), 'text')])
def test_wrong_parameters_are_refused(wrong, word):
    with pytest.raises(InputError, match=word): run.config(wrong)


@pytest.mark.parametrize('override, word', [
    ({'taau': 1}, "'tau'"), ({'labls': 1}, "'labels'"), ({'tau': 'high'}, 'tau'), ({'K': -1}, 'K'), ({'strong.rotaton': 1}, 'rotation'), ({'pool': 'sum'}, 'pooling')])
def test_wrong_overrides_are_refused(override, word):
    with pytest.raises(InputError, match=word): training.settle(run.Config(override=override))


def test_overrides_arrive():
    r, p = training.settle(run.Config(steps=7, override={'tau': .3, 'K': 4, 'lr': 1e-4}))
    assert (r.tau, r.K, p.lr, p.steps) == (.3, 4, 1e-4, 7)
    r, _ = training.settle(run.Config(recipe='pose-mum-plus', override={'mix.group': 2}))
    assert [q.group for path in r.student_branches for q in path] == [2]
    with pytest.raises(InputError, match='mix'): training.settle(run.Config(recipe='supervised', override={'mix.group': 2}))


# folders

def test_a_folder_that_is_no_run_is_left_alone(config):
    where = Path(config.out)
    where.mkdir()
    (where / 'thesis.tex').write_text('years of work')
    with pytest.raises(InputError, match='thesis.tex'): run.admit(config)
    (where / 'thesis.tex').unlink()
    assert run.admit(config) == 'new'
    where.rmdir()
    where.write_text('a file')
    with pytest.raises(InputError, match='is a file'): run.admit(config)


@pytest.mark.parametrize('change', [dict(seed=1), dict(recipe='supervised'), dict(labels=15), dict(override={'tau': .2}), dict(steps=3), dict(root='/elsewhere'), dict(unlabelled='people:val')])
def test_an_unfinished_run_goes_on_only_as_itself(config, change):
    where = Path(config.out)
    where.mkdir()
    (where / 'config.json').write_text(json.dumps(dict(config=run.as_json(config))))
    assert run.admit(config) == 'unfinished'
    with pytest.raises(InputError, match=next(iter(change))): run.admit(replace(config, **change))


def test_a_run_begun_before_a_parameter_was_there_goes_on(config):
    where = Path(config.out)
    where.mkdir()
    old = {k: v for k, v in run.as_json(config).items() if k != 'unlabelled'}
    (where / 'config.json').write_text(json.dumps(dict(config=old)))
    assert run.admit(config) == 'unfinished'
    with pytest.raises(InputError, match='unlabelled'): run.admit(replace(config, unlabelled='people:val'))


def test_names_of_folders():
    name = lambda **k: run.folder(run.Config(recipe='r', **k)).name
    assert name() == 'r-people-100-s0' and name(labels=0, seed=2) == 'r-people-all-s2'
    assert name(labels=0, data='coco', unlabelled='rest+coco:unlabeled2017@/a/b.json:0.5=/c+aic=/d') == 'r-coco-all+rest+coco-unlabeled2017-boxes+aic-s0'


@pytest.mark.parametrize('broken', ['', '{', '[]', 'null', '\x00', '[' * 100_000, '{"config": 3}', '{"config": null}'])
def test_a_broken_config_is_refused(config, broken):
    where = Path(config.out)
    where.mkdir()
    (where / 'config.json').write_text(broken)
    with pytest.raises(InputError): run.admit(config)
    assert run.row(where)['state'].startswith('unreadable')


@pytest.mark.parametrize('change, word', [
    (dict(root='/nowhere/at/all'), 'there is no folder'), (dict(labels=65), '64'), (dict(labels=64), 'without labels'), (dict(recipe='superviced'), "'supervised'"),
    (dict(preset='medium'), 'preset'), (dict(device='cuda:7'), 'device'), (dict(data='cocoo'), "'coco'"), (dict(by='photo'), 'person'),
    (dict(split='/no/split.json'), 'split'), (dict(weights='/no/weights.pt'), 'weights'), (dict(labels=0), 'all 64 people .* without labels'),
    (dict(labels=0, unlabelled='rest'), 'without labels'), (dict(unlabelled='poeple'), "'people'"), (dict(unlabelled='aic'), 'aic=FOLDER'),
    (dict(unlabelled='people:wild'), 'person_keypoints_wild'), (dict(unlabelled='folder=/no/where'), 'no folder'), (dict(unlabelled='people:val@no.json'), 'no file')])
def test_a_refused_run_leaves_no_trace(config, change, word):
    with pytest.raises(InputError, match=word): training.start(replace(config, **change))
    assert not Path(config.out).exists()


def test_a_folder_is_for_one_process(config):
    code = f'import sys, time; sys.path.insert(0, {str(ROOT)!r}); from sshpe.runs import run; run.lock({config.out!r}); print("held", flush=True); time.sleep(60)'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline() == 'held\n'
        with pytest.raises(InputError, match='another process'): run.lock(config.out, wait=.3)
    finally:
        p.kill()
        p.communicate()
    run.lock(config.out, wait=5)
    run.unlock(config.out)


# training

def test_metrics_say_what_was_promised(done):
    m = run.read(done.where / 'metrics.json')
    assert {'steps', 'seconds', 'steps_per_second', 'peak_memory_mb', 'phases', 'networks', 'headline'} <= set(m)
    assert set(m['networks']) == {'student1', 'student2', 'ensemble'} and m['steps'] == 12 and m['peak_memory_mb'] > 50
    for k in ('AP', 'AP50', 'AP75', 'AR', 'PCK'):
        assert np.isclose(m['headline'][k], np.mean([m['networks'][s][k] for s in ('student1', 'student2')]))
    json.loads((done.where / 'metrics.json').read_text(), parse_constant=lambda c: pytest.fail(f'{c} is not json'))


def test_config_alone_makes_the_run_again(done, tmp_path):
    c = run.config({**run.read(done.where / 'config.json')['config'], 'out': str(tmp_path / 'again')})
    x = whole(c)
    same = lambda f: (done.where / f).read_bytes() == (x.where / f).read_bytes()
    assert same('model.safetensors') and same('split.json') and all(same(f'results-{n}.json') for n in ('student1', 'student2', 'ensemble'))
    assert run.read(done.where / 'metrics.json')['networks'] == run.read(x.where / 'metrics.json')['networks']
    facts = run.read(x.where / 'config.json')
    assert facts['data']['people-train']['people'] == 64 and facts['labelled'] == 16 and facts['unlabelled'] == 48 and facts['versions']['torch']


def test_another_seed_is_another_run(done, config):
    x = whole(replace(config, seed=1))
    assert x.split.labelled != done.split.labelled
    assert (done.where / 'model.safetensors').read_bytes() != (x.where / 'model.safetensors').read_bytes()


@pytest.mark.parametrize('recipe', ['denoise-select', 'pose-mum-plus'])
def test_interrupted_and_continued_is_the_same_run(config, tmp_path, recipe):
    a = whole(replace(config, recipe=recipe, out=str(tmp_path / 'a')))
    c = replace(config, recipe=recipe, out=str(tmp_path / 'b'))
    for until in (3, 7, 8):
        x = training.start(c)
        x.learner.fit(x.where / 'state.pt', lambda r: run.write_log(x.where / 'log.csv', x.learner.rows), until=until)
        run.unlock(x.where)
    run.write_log(x.where / 'log.csv', x.learner.rows + [dict(step=9, labelled=1.)])   # a line that the saved state doesn't know
    b = whole(c)
    for f in ('model.safetensors', 'split.json', 'results-student1.json', 'results-student.json', 'results-teacher.json'):
        if (a.where / f).exists(): assert (a.where / f).read_bytes() == (b.where / f).read_bytes(), f
    mine = lambda r: {k: v for k, v in r.items() if k != 'seconds' and not k.startswith(('AP_', 'PCK_'))}  # the steps above were not scored
    rows = [[mine(r) for r in run.read_log(w.where / 'log.csv')] for w in (a, b)]
    assert rows[0] == rows[1] and [r['step'] for r in rows[0]] == [4, 8, 12]


def test_a_finished_run_is_never_touched(done):
    before = {f: f.read_bytes() for f in done.where.iterdir() if f.is_file()}
    with pytest.raises(InputError, match='already finished'): training.start(done.config)
    assert {f: f.read_bytes() for f in done.where.iterdir() if f.is_file()} == before


def test_changed_data_is_noticed(sticks, config, tmp_path):
    import shutil
    other = shutil.copytree(sticks, tmp_path / 'data')
    c = replace(config, root=str(other))
    x = training.start(c)
    run.unlock(x.where)
    f = other / 'annotations/person_keypoints_train.json'
    d = json.loads(f.read_text())
    d['annotations'][0]['keypoints'][0] += 1
    f.write_text(json.dumps(d))
    with pytest.raises(InputError, match='drawn from|changed'): training.start(c)


def test_a_split_can_be_given_again(done, config):
    x = training.start(replace(config, seed=5, labels=3, split=str(done.where / 'split.json')))
    run.unlock(x.where)
    assert x.split.labelled == done.split.labelled and len(x.lab) == 16


def test_all_labels_are_fine_for_supervised(config):
    x = training.start(replace(config, recipe='supervised', labels=64))
    run.unlock(x.where)
    assert len(x.lab) == 64


# unlabelled people from elsewhere

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Photos whose people nobody has labelled: a folder of crops, and a detector's json on photos of another data set."
    from sshpe.data.toy import stick_people
    root = stick_people(tmp_path_factory.mktemp('more'), 2, 12, seed=1)
    people = load('people', root, 'val')
    f = root / 'boxes.json'
    f.write_text(json.dumps([dict(image_id=int(i), category_id=1, bbox=b.tolist(), score=.9) for i, b in zip(people.image_ids, people.boxes)]))
    return dict(folder=f'folder={root}/val', boxes=f'people:val@{f}={root}')


@pytest.mark.parametrize('line, n, names', [('people:val', 16, ['people-val']), ('rest+people:val', 64, ['people-val']), ('{boxes}+{folder}', 24, ['people-val-boxes', 'val'])])
def test_unlabelled_people_from_elsewhere(config, photos, line, n, names):
    c = replace(config, labels=16 if 'rest' in line else 0, unlabelled=line.format(**photos))
    x = whole(c)
    assert len(x.unl) == n and len(x.lab) == (16 if 'rest' in line else 64) and x.learner.t == 12
    facts, s = run.facts(x.where), run.read(x.where / 'split.json')
    assert [q['data'] for q in s['others']] == names and len(s['unlabelled']) + sum(len(q['ids']) for q in s['others']) == n
    assert {'people-train', 'people-val', *names} == set(facts['data']) and (facts['labelled'], facts['unlabelled']) == (len(x.lab), n)
    assert [q['mark'] for q in s['others']] == [facts['data'][k]['fingerprint'] for k in names]
    # nobody knows whether these pseudo-labels are right
    if 'rest' not in line and 'people:val' != line: assert not x.unl.keypoints.any() and x.learner.rows[-1].get('right_kept') is None and not np.any(x.learner.bins)
    assert {'kept', 'own'} <= set(run.read_log(x.where / 'log.csv')[-1]) and run.read(x.where / 'metrics.json')['steps'] == 12
    for picture in (pictures.curves(x.learner.rows), pictures.quality_picture(x), pictures.views_picture(x),
                    pictures.pseudo_picture(x.learner.teachers, x.unl, [0, n - 1], x.learner.setup, x.skeleton)): assert picture.axes
    assert len(result.unlabelled(result.load(x.where, 'cpu'), 1.5)) == (48 if 'rest' in line else min(16, n // len(names)))


def test_coco_additional_in_miniature(config, sticks, tmp_path):
    "All of train2017 labelled; unlabeled2017 by a detector's boxes, and AI Challenger, without labels."
    import shutil
    from test_sources import aic_entry, listing, write_aic
    root = listing(tmp_path / 'coco', 'image_info', 'unlabeled2017', 'unlabeled2017')
    for s in ('train', 'val'):
        shutil.copytree(sticks / s, root / f'{s}2017')
        shutil.copy(sticks / f'annotations/person_keypoints_{s}.json', root / f'annotations/person_keypoints_{s}2017.json')
    boxes = [dict(image_id=i, category_id=1, bbox=[5, 5, 30, 60], score=s) for i in (5, 6, 7) for s in (.9, .1)]
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    write_aic(tmp_path / 'aic', [aic_entry('a', 3), aic_entry('b', 2)])
    line = f'coco:unlabeled2017@{tmp_path}/boxes.json:0.5+aic={tmp_path}/aic'
    x = whole(replace(config, recipe='pose-mum-plus', data='coco', root=str(root), labels=0, unlabelled=line))
    assert (len(x.lab), len(x.unl)) == (64, 3 + 5) and [q.data for q in x.split.others] == ['coco-unlabeled2017-boxes', 'aic-train']
    assert run.row(x.where)['unlabelled'] == 'coco-unlabeled2017-boxes+aic'


def test_their_labels_are_never_learned_from(config, sticks, tmp_path):
    "The same photos with other labels: the same weights."
    import shutil
    other = shutil.copytree(sticks, tmp_path / 'data')
    f = other / 'annotations/person_keypoints_val.json'
    d = json.loads(f.read_text())
    for a in d['annotations']: a['keypoints'][:3] = [5, 5, 1]
    f.write_text(json.dumps(d))
    a, b = (whole(replace(config, recipe='pose-mum-plus', labels=0, unlabelled=f'people:val={root}', out=str(tmp_path / name))) for name, root in (('a', sticks), ('b', other)))
    assert (a.where / 'model.safetensors').read_bytes() == (b.where / 'model.safetensors').read_bytes()
    assert a.split.others[0].mark != b.split.others[0].mark


def test_interrupted_with_people_from_elsewhere(config, photos, tmp_path):
    c = replace(config, recipe='pose-mum-plus', labels=0, unlabelled='{boxes}+people:val'.format(**photos))
    a = whole(replace(c, out=str(tmp_path / 'a')))
    x = training.start(c)
    x.learner.fit(x.where / 'state.pt', until=7)
    run.unlock(x.where)
    with pytest.raises(InputError, match='unlabelled'): training.start(replace(c, unlabelled='people:val'))
    assert (whole(c).where / 'model.safetensors').read_bytes() == (a.where / 'model.safetensors').read_bytes()


def test_changed_boxes_are_noticed(config, sticks, tmp_path):
    boxes = [dict(image_id=1, category_id=1, bbox=[5, 5, 50, 80], score=.9)]*2
    (tmp_path / 'b.json').write_text(json.dumps(boxes))
    c = replace(config, labels=0, unlabelled=f'people:val@{tmp_path}/b.json')
    run.unlock(training.start(c).where)
    boxes[0] = {**boxes[0], 'bbox': [6, 5, 50, 80]}
    (tmp_path / 'b.json').write_text(json.dumps(boxes))
    with pytest.raises(InputError, match='people-val-boxes has'): training.start(c)


def test_a_split_with_other_data_can_be_given_again(config, tmp_path):
    x = training.start(replace(config, labels=10, unlabelled='rest+people:val', out=str(tmp_path / 'a')))
    run.unlock(x.where)
    c = replace(config, split=str(x.where / 'split.json'))
    with pytest.raises(InputError, match=r"of 'people-val' in this split, and 0 are given: name the same ones \(unlabelled\)"): training.start(c)
    y = training.start(replace(c, unlabelled='people:val'))
    run.unlock(y.where)
    assert y.split == x.split and len(y.unl) == 54 + 16


# results

def test_results_file_scores_the_same_by_pycocotools_alone(done, sticks):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    gt = COCO(str(sticks / 'annotations/person_keypoints_val.json'))
    for name, m in run.read(done.where / 'metrics.json')['networks'].items():
        e = COCOeval(gt, gt.loadRes(str(done.where / f'results-{name}.json')), 'keypoints')
        e.evaluate()
        e.accumulate()
        e.summarize()
        assert m['AP'] == 100 * e.stats[0] and m['AR'] == 100 * e.stats[5]


# logs and tables

numbers = st.one_of(st.integers(-10**9, 10**9), st.floats(allow_nan=False, allow_infinity=False))


@given(st.lists(st.dictionaries(st.sampled_from(['labelled', 'kept', 'own']), numbers), max_size=6))
def test_log_comes_back(tmp_path_factory, rows):
    f = tmp_path_factory.mktemp('log') / 'log.csv'
    rows = [dict(step=i, **r) for i, r in enumerate(rows)]
    run.write_log(f, rows)
    assert run.read_log(f) == rows


def test_plain_is_strict_json(done):
    text = json.dumps(run.as_plain([done.recipe, done.preset, float('nan'), np.float32(1), Path('a')]), allow_nan=False)
    assert json.loads(text)[0]['name'] == 'denoise-select'


def test_table_shows_what_is_there(done, tmp_path):
    rows = run.runs(done.where.parent)
    assert [r['state'] for r in rows] == ['finished'] and rows[0]['recipe'] == 'denoise-select'
    assert run.runs(tmp_path / 'nothing') == [] and run.columns([]) == ''


# finished runs

def test_loaded_networks_are_the_trained_ones(done):
    x = result.load(done.where, 'cpu')
    for k, f in done.learner.networks().items():
        for n, w in f.state_dict().items(): assert torch.equal(w, x.networks[k].state_dict()[n])
    m = result.evaluate(x, done.val, done.where.parent / 'scores')
    assert m['networks'] == run.read(done.where / 'metrics.json')['networks']


class Bomb:
    def __reduce__(self): return exec, ('raise SystemExit("code from a file was run")',)


@pytest.mark.parametrize('name', ['model.safetensors', 'state.pt'])
@pytest.mark.parametrize('kind', ['pickle', 'torch', 'half', 'empty'])
def test_files_bring_no_code(done, config, name, kind, tmp_path):
    import shutil
    where = Path(shutil.copytree(done.where, config.out))
    f = where / name
    if kind == 'pickle': f.write_bytes(pickle.dumps(Bomb()))
    elif kind == 'torch': torch.save(dict(networks=Bomb()), f)
    else: f.write_bytes(f.read_bytes()[:len(f.read_bytes()) // 2] if kind == 'half' else b'')
    if name == 'state.pt': (where / 'metrics.json').unlink()
    with pytest.raises(InputError, match=name):
        if name == 'state.pt':
            try: training.fit(training.start(config))
            finally: run.unlock(where)
        else: result.load(where, 'cpu')


def test_pseudo_labels_are_a_coco_file(done, tmp_path):
    from pycocotools.coco import COCO
    x = result.load(done.where, 'cpu')
    x.recipe = replace(x.recipe, tau=.02)  # a run of seconds is never sure
    d = result.pseudo_labels(x, done.val)
    f = tmp_path / 'pseudo.json'
    f.write_text(json.dumps(d, allow_nan=False))
    assert len(COCO(str(f)).getAnnIds()) == len(done.val)
    kept = [a for a in d['annotations'] if a['num_keypoints']]
    assert len(read_coco(f, done.val.root)) == len(kept)
    for a in d['annotations']:
        v = np.array(a['keypoints']).reshape(-1, 3)[:, 2]
        assert len(a['scores']) == len(a['uncertainties']) == 17 and (np.array(a['scores'])[v > 0] > x.recipe.tau).all()


def test_teachers_of_mixed_views_get_whole_groups(config):
    "Three people in a picture, or in the last batch of pseudo-labels, where four are mixed."
    from sshpe.ssl.methods import RECIPES
    for name in (n for n, r in RECIPES.items() if r.teacher_perturbations):
        x = training.start(replace(config, recipe=name, out=f'{config.out}-{name}'))
        run.unlock(x.where)
        assert pictures.pseudo_picture(x.learner.teachers, x.unl, range(3), x.learner.setup, x.skeleton).axes
        r = result.Result(x.where, x.recipe, x.preset, x.skeleton, {k: f.eval() for k, f in x.learner.networks().items()})
        assert len(result.pseudo_labels(r, x.val[:5])['annotations']) == 5
    assert filled([7, 8, 9], RECIPES['supervised']).tolist() == [7, 8, 9]


def test_points_come_back_to_the_photo(done, sticks):
    from sshpe.data.crops import build_store
    val = load('people', sticks, 'val')
    s = build_store(val, (96, 64), 1.)
    assert np.abs(training.in_photos(s.keypoints[..., :2], s.matrix) - val.keypoints[..., :2]).max() < 1e-3


@pytest.fixture(scope='module')
def seen(sticks, tmp_path_factory):
    "A detector's json about the validation photos: everybody, and the first three twice."
    val, f = load('people', sticks, 'val'), tmp_path_factory.mktemp('seen') / 'boxes.json'
    rows = [*range(16), 0, 1, 2]
    f.write_text(json.dumps([dict(image_id=int(val.image_ids[i]), category_id=1, bbox=val.boxes[i].tolist(), score=1 - .01 * n) for n, i in enumerate(rows)]))
    return str(f)


def test_true_boxes_found_by_a_detector_give_the_same_answers(done, sticks, seen, tmp_path):
    x = result.load(done.where, 'cpu')
    m = result.evaluate(x, load('people', sticks, 'val', boxes=seen), tmp_path)
    assert m['boxes'] == 'detected' and set(m['networks']) == set(run.read(done.where / 'metrics.json')['networks'])
    for k in m['networks']:
        mine, theirs = (json.loads((d / f'results-{k}.json').read_text()) for d in (tmp_path, done.where))
        assert len(mine) == 16
        theirs = {r['image_id']: r for r in theirs}
        for r in mine: np.testing.assert_allclose(r['keypoints'], theirs[r['image_id']]['keypoints'], atol=2e-3)
    assert {r['boxes'] for r in training.score_rows(m)} == {'detected'} and 'PCK' not in training.score_rows(m)[0]
    assert {r['boxes'] for r in training.score_rows(run.read(done.where / 'metrics.json'))} == {'true'}
    people = load('people', sticks, 'val', boxes=seen)
    assert result.joints_picture(m, x.best) is None and result.extremes_picture(x, people, tmp_path) is None


def test_portions_change_nothing(done, sticks, seen):
    x, people = result.load(done.where, 'cpu'), load('people', sticks, 'val', boxes=seen)
    (once, rows), (often, same) = (result.passing(x.networks, people, x.preset, x.skeleton.flip, n) for n in (99, 5))
    assert rows.tolist() == same.tolist() == list(range(len(people)))
    for k in once:
        for a, b in zip(once[k], often[k]): np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_broken_photo_costs_nobody_else_an_answer(done, sticks, seen, tmp_path):
    import shutil
    shutil.copytree(sticks, tmp_path / 's')
    (tmp_path / 's/val/000002.png').write_bytes((sticks / 'val/000002.png').read_bytes()[:200])   # its header is whole
    x, people = result.load(done.where, 'cpu'), load('people', tmp_path / 's', 'val', boxes=seen)
    with pytest.warns(UserWarning, match='1 photo that cannot be decoded'): m = result.evaluate(x, people, tmp_path / 'out')
    fine, whole = (json.loads((d / f'results-{x.best}.json').read_text()) for d in (tmp_path / 'out', done.where))
    assert m['people'] == 19 - 2 and {r['image_id'] for r in fine} == {*range(1, 17)} - {2}
    theirs = {r['image_id']: r['keypoints'] for r in whole}
    for r in fine: np.testing.assert_allclose(r['keypoints'], theirs[r['image_id']], atol=2e-3)


@pytest.mark.parametrize('n', [1, 8, 20])
def test_a_diagnosis_of_any_number_of_people(done, sticks, n):
    from sshpe.runs.diagnose import diagnose, table
    found = diagnose(result.load(done.where, 'cpu'), load('people', sticks, 'train')[:n])
    assert 0 <= found['pool']['kept'] <= 1 and np.isfinite(list(found['target'].values())).all() and table(found)


# notebooks as programs

def toy(tmp_path, code):
    v4 = nbformat.v4
    cells = [v4.new_code_cell('n: int = 1 # a number', metadata=dict(tags=['parameters'])), v4.new_code_cell(code)]
    nb = v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')))
    nbformat.write(nb, tmp_path / 'toy.ipynb')
    return tmp_path / 'toy.ipynb', tmp_path / 'a/b/toy.ipynb'


def test_a_dead_kernel_keeps_its_notebook(tmp_path):
    nb, out = toy(tmp_path, 'print("so far", flush=True); import os; os._exit(9)')
    with pytest.raises(notebook.Failed, match='kernel died'): notebook.execute(nb, out, dict(n=2))
    assert nbformat.read(out, 4).cells[1].source.endswith('n = 2\n') and not out.with_suffix('.part.ipynb').exists()


@pytest.mark.skipif(os.name != 'posix', reason='its kernels listen at ports')
def test_a_kernel_takes_no_port_and_its_sockets_go_with_it(tmp_path, monkeypatch, request):
    place = tempfile.mkdtemp(prefix='k')
    request.addfinalizer(lambda: shutil.rmtree(place))
    monkeypatch.setattr(tempfile, 'tempdir', place)
    nb, out = toy(tmp_path, f'from pathlib import Path; print(sum(p.is_socket() for p in Path({place!r}).iterdir()))')
    notebook.execute(nb, out, {})
    assert nbformat.read(out, 4).cells[-1].outputs[0].text == '5\n' and not list(Path(place).iterdir())


def test_a_refusal_leaves_nothing_or_what_was_there(tmp_path):
    nb, out = toy(tmp_path, 'from sshpe.errors import InputError\nraise InputError("no.")')
    with pytest.raises(InputError, match='no.'): notebook.execute(nb, out, {})
    assert not (tmp_path / 'a').exists()
    out.parent.mkdir(parents=True)
    out.write_text('an earlier one')
    with pytest.raises(InputError): notebook.execute(nb, out, {})
    assert [f.name for f in out.parent.iterdir()] == ['toy.ipynb'] and out.read_text() == 'an earlier one'


def test_widgets_are_stripped(tmp_path):
    nb, out = toy(tmp_path, 'import ipywidgets; ipywidgets.IntSlider()')
    notebook.execute(nb, out, {})
    assert 'widgets' not in nbformat.read(out, 4).metadata


def test_following_says_each_line_once(tmp_path):
    said, rows, f = [], [dict(step=1, labelled=.5)], tmp_path / 'log.csv'
    run.write_log(f, rows)
    with notebook.following(f, said.append, lambda: 4, every=.02):
        for s in (2, 3, 4):
            rows.append(dict(step=s, labelled=.5 / s))
            run.write_log(f, rows)
            time.sleep(.06)
    assert [s.split()[1] for s in said] == ['2/4', '3/4', '4/4']
