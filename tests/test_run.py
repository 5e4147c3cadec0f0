"""Runs: nothing is overwritten, nothing is lost, and a folder tells everything about its run."""
import json, pickle, subprocess, sys, time
from dataclasses import fields, replace
from pathlib import Path

import nbformat, numpy as np, pytest, torch
from hypothesis import given, strategies as st

from sshpe import launch, result, run, training
from sshpe.check import InputError
from sshpe.data import load, read_coco

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
    (dict(seed=-1), 'seed'), (dict(steps=-5), 'steps'), (dict(override=[1]), 'dict'), (dict(root=None), 'text')])
def test_wrong_parameters_are_refused(wrong, word):
    with pytest.raises(InputError, match=word): run.config(wrong)


@pytest.mark.parametrize('override, word', [
    ({'taau': 1}, "'tau'"), ({'labls': 1}, "'labels'"), ({'tau': 'high'}, 'tau'), ({'K': -1}, 'K'), ({'strong.rotaton': 1}, 'rotation'), ({'pool': 'sum'}, 'pooling')])
def test_wrong_overrides_are_refused(override, word):
    with pytest.raises(InputError, match=word): training.settle(run.Config(override=override))


def test_overrides_arrive():
    r, p = training.settle(run.Config(steps=7, override={'tau': .3, 'K': 4, 'lr': 1e-4, 'mix': None}))
    assert (r.tau, r.K, r.mix, p.lr, p.steps) == (.3, 4, None, 1e-4, 7)


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


@pytest.mark.parametrize('change', [dict(seed=1), dict(recipe='supervised'), dict(labels=15), dict(override={'tau': .2}), dict(steps=3), dict(root='/elsewhere')])
def test_an_unfinished_run_goes_on_only_as_itself(config, change):
    where = Path(config.out)
    where.mkdir()
    (where / 'config.json').write_text(json.dumps(dict(config=run.asked(config))))
    assert run.admit(config) == 'unfinished'
    with pytest.raises(InputError, match=next(iter(change))): run.admit(replace(config, **change))


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
    (dict(split='/no/split.json'), 'split'), (dict(weights='/no/weights.pt'), 'weights')])
def test_a_refused_run_leaves_no_trace(config, change, word):
    with pytest.raises(InputError, match=word): training.start(replace(config, **change))
    assert not Path(config.out).exists()


def test_a_folder_is_for_one_process(config):
    code = f'import sys, time; sys.path.insert(0, {str(ROOT)!r}); from sshpe import run; run.lock({config.out!r}); print("held", flush=True); time.sleep(60)'
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
    rows = [[{k: v for k, v in r.items() if k != 'seconds'} for r in run.read_log(w.where / 'log.csv')] for w in (a, b)]
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
    text = json.dumps(run.plain([done.recipe, done.preset, float('nan'), np.float32(1), Path('a')]), allow_nan=False)
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


def test_points_come_back_to_the_photo(done, sticks):
    from sshpe.data import build_store
    val = load('people', sticks, 'val')
    s = build_store(val, (96, 64), 1.)
    assert np.abs(training.in_photo(s.keypoints[..., :2], s.matrix) - val.keypoints[..., :2]).max() < 1e-3


# notebooks as programs

def toy(tmp_path, code):
    v4 = nbformat.v4
    cells = [v4.new_code_cell('n: int = 1 # a number', metadata=dict(tags=['parameters'])), v4.new_code_cell(code)]
    nb = v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')))
    nbformat.write(nb, tmp_path / 'toy.ipynb')
    return tmp_path / 'toy.ipynb', tmp_path / 'a/b/toy.ipynb'


def test_a_dead_kernel_keeps_its_notebook(tmp_path):
    nb, out = toy(tmp_path, 'print("so far", flush=True); import os; os._exit(9)')
    with pytest.raises(launch.Failed, match='kernel died'): launch.execute(nb, out, dict(n=2))
    assert nbformat.read(out, 4).cells[1].source.endswith('n = 2\n') and not out.with_suffix('.part.ipynb').exists()


def test_a_refusal_leaves_nothing_or_what_was_there(tmp_path):
    nb, out = toy(tmp_path, 'from sshpe.check import InputError\nraise InputError("no.")')
    with pytest.raises(InputError, match='no.'): launch.execute(nb, out, {})
    assert not (tmp_path / 'a').exists()
    out.parent.mkdir(parents=True)
    out.write_text('an earlier one')
    with pytest.raises(InputError): launch.execute(nb, out, {})
    assert [f.name for f in out.parent.iterdir()] == ['toy.ipynb'] and out.read_text() == 'an earlier one'


def test_widgets_are_stripped(tmp_path):
    nb, out = toy(tmp_path, 'import ipywidgets; ipywidgets.IntSlider()')
    launch.execute(nb, out, {})
    assert 'widgets' not in nbformat.read(out, 4).metadata


def test_following_says_each_line_once(tmp_path):
    said, rows, f = [], [dict(step=1, labelled=.5)], tmp_path / 'log.csv'
    run.write_log(f, rows)
    with launch.following(f, said.append, lambda: 4, every=.02):
        for s in (2, 3, 4):
            rows.append(dict(step=s, labelled=.5 / s))
            run.write_log(f, rows)
            time.sleep(.06)
    assert [s.split()[1] for s in said] == ['2/4', '3/4', '4/4']
