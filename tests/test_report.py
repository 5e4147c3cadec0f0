"""What a run's report and tables say is what its files say: film, extremes, baseline, differences, names, locks, and a training that is asked to stop."""
import json, os, shutil, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import nbformat, numpy as np, pytest, torch
from started import started
from test_cli import refused, say

from sshpe.data.batch import fetch
from sshpe.errors import InputError
from sshpe.runs import charts, extremes, notebook, report, result, run, table, training
from sshpe.runs.log import COLUMNS, column_meaning, per_student
from sshpe.ssl.pseudo import pseudo_labels
from sshpe.train.film import moments, read_film

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(sticks, tmp_path):
    return run.Config(root=str(sticks), labels=16, preset='tiny', out=str(tmp_path/'run'), override={'tau': .02, 'precision': 'fp32'})


def whole(c):
    x = training.start(c)
    training.fit(x)
    training.finish(x)
    return x


# the film

@pytest.mark.parametrize('recipe', ['denoise-select', 'pose-mum-plus'])
def test_the_last_frame_is_what_the_stored_networks_teach(config, recipe):
    x = whole(replace(config, recipe=recipe))
    f, nets = read_film(x.where/'film'), result.load(x.where, 'cpu')
    rows = np.linspace(0, 47, 4).round().astype(int)
    o, _ = pseudo_labels(nets.teachers, fetch(x.unl, rows), nets.setup, key=(0,))
    assert f.step.tolist() == [8, 12] and len(f.pictures) == 4   # 4 burn-in steps teach nothing
    pools = o.chosen[0].float().numpy()
    np.testing.assert_allclose(f.maps(-1), pools.clip(0), atol=f.top[-1]/255)
    np.testing.assert_allclose(f.height[-1], pools.max((2, 3)), atol=1e-4)
    np.testing.assert_array_equal(f.truth, x.unl.keypoints[rows])
    # the maximum is where the highest pixel is, to a pixel and a half
    y, xs = np.unravel_index(pools.reshape(4, 17, -1).argmax(-1), pools.shape[2:])
    centre = np.stack([xs, y], -1)*x.preset.stride+(x.preset.stride-1)/2
    assert np.abs(f.xy[-1]-centre).max() <= 1.5*x.preset.stride
    passed = f.height > x.recipe.tau
    assert (f.passed <= passed).all() and f.passed[passed & ((f.xy > 0) & (f.xy < 60)).all(-1)].all()


def test_a_resumed_run_has_the_same_film(config, tmp_path):
    a = whole(replace(config, out=str(tmp_path/'a')))
    c = replace(config, out=str(tmp_path/'b'))
    for until in (3, 9):
        x = training.start(c)
        x.learner.fit(x.where/'state.pt', until=until, log=training.Film(x.learner, x.where/'film'))
        run.unlock(x.where)
    b = whole(c)
    files = sorted(f.name for f in (a.where/'film').iterdir())
    assert files == sorted(f.name for f in (b.where/'film').iterdir()) == ['00000008.npz', '00000012.npz', 'about.npz']
    for f in files:
        p, q = (np.load(w.where/'film'/f) for w in (a, b))
        assert sorted(p) == sorted(q)
        for k in p: np.testing.assert_array_equal(p[k], q[k])


def test_the_film_changes_no_weight(config, tmp_path, monkeypatch):
    a = whole(config)
    class NoFilm:
        def __init__(self, *a): pass
        def __call__(self, row): pass
    monkeypatch.setattr(training, 'Film', NoFilm)
    b = whole(replace(config, out=str(tmp_path/'without')))
    assert not (b.where/'film').exists()
    assert (a.where/'model.safetensors').read_bytes() == (b.where/'model.safetensors').read_bytes()


def test_a_film_is_short(config):
    r, p = training.settle(replace(config, preset='mini'))
    steps = moments(3600, r, p)
    assert len(steps) == 8 and steps[0] > p.burn_in and steps[-1] == 3600 and all(s%p.every == 0 for s in steps)
    assert moments(3600, *training.settle(replace(config, recipe='supervised', override={}))) == []


def test_the_picture_shows_what_the_film_says(config):
    f = read_film(whole(config).where/'film')
    f = replace(f, passed=f.height > np.median(f.height))
    j = f.joints.index('left_knee')
    fig = charts.film_picture(f, 'left_knee')
    grid = np.array(fig.axes).reshape(4, 2)
    for (b, p), ax in np.ndenumerate(grid):
        line = {l.get_gid(): l for l in ax.lines}
        assert ('target' in line, 'dropped' in line) == (f.passed[p,b,j], not f.passed[p,b,j])
        if 'target' in line: np.testing.assert_allclose([line['target'].get_xdata()[0], line['target'].get_ydata()[0]], f.xy[p,b,j])
        assert ('truth' in line) == (f.truth[b,j,2] > 0) and ax.get_title().endswith(f'{f.height[p,b,j]:.2f}')


@pytest.mark.parametrize('name, hurt', [('about.npz', b'PK'), ('00000008.npz', b''), ('00000012.npz', None)])
def test_a_damaged_film_is_named(config, name, hurt):
    x = whole(config)
    f = x.where/'film'/name
    if hurt is None: np.savez(f, step=12, heat=np.zeros((4, 17, 3, 3), np.uint8))
    else: f.write_bytes(hurt)
    with pytest.raises(InputError, match='film'): report.read_run(x.where)


# the best and the worst

def test_extremes_are_the_people_with_the_smallest_and_largest_errors(config):
    x = whole(config)
    d = extremes.read_extremes(x.where/'extremes.npz')
    said = np.array([r['keypoints'] for r in json.loads((x.where/'results-ensemble.json').read_text())]).reshape(16, 17, 3)
    def error(i):   # person by person, joint by joint
        t, box = x.val.keypoints[i], x.val.boxes[i]
        off = [np.hypot(*(said[i,j,:2]-t[j,:2])) for j in range(17) if t[j,2] > 0]
        return np.mean(off)/max(box[2:])
    e = [error(i) for i in range(16)]
    turn = sorted(range(16), key=lambda i: e[i])
    assert d['row'].tolist() == turn[:6]+turn[::-1][:6]
    np.testing.assert_allclose(d['error'], [e[i] for i in d['row']], rtol=1e-3)


def test_few_people_are_shown_once():
    assert sorted(extremes.extremes(np.array([3., 1, 2]))) == [0, 1, 2]
    assert extremes.extremes(np.array([np.nan, 1, np.nan])).tolist() == [1] and len(extremes.extremes(np.full(3, np.nan))) == 0


# the log

def test_every_column_is_explained(done):
    rows = run.read_log(done.where/'log.csv')
    assert all(column_meaning(k) for r in rows for k in r) and {'lam', 'own', 'strong', 'kept_absent'} <= set(COLUMNS)


def test_losses_are_means_of_the_students(done):
    raw = run.read_log(done.where/'log.csv')
    for a, b in zip(per_student(raw, done.recipe), raw):
        assert a['labelled'] == b['labelled']/2 and a['step'] == b['step'] and a.get('kept') == b.get('kept')
    assert per_student(raw, run.facts(done.where)['recipe']) == per_student(raw, done.recipe)


def test_time_adds_up(done):
    m = run.read_metrics(done.where)
    assert {'views', 'teachers', 'forward', 'backward', 'data', 'validation'} <= set(m['phases'])
    t = charts.times(m['phases'])
    assert sum(t.values()) == pytest.approx(sum(m['phases'].values())) and t['students'] == pytest.approx(m['phases']['forward']+m['phases']['backward'])
    old = charts.times(dict(data=1., forward=5, backward=3, telemetry=.5, update=.5))   # of a run from before
    assert old == {'students, with views and teachers': 8, 'data': 1, 'validation': 0, 'other': 1}


# tables

def write_run(where, recipe='supervised', AP=10., ids=(1, 2, 3), metrics=True, **changes):
    c = dict(recipe=recipe, data='people', labels=3, seed=0, preset='mini', override={})
    top = {k: v for k, v in changes.items() if k in ('steps', 'preset', 'data')}
    c |= {k: v for k, v in changes.items() if k not in top}
    where.mkdir(parents=True)
    facts = dict(config=c, steps=900, preset=dict(lr=.003, burn_in=10), data={'people-train': dict(fingerprint='a'), 'people-val': dict(fingerprint='b')}) | top
    (where/'config.json').write_text(json.dumps(facts))
    (where/'split.json').write_text(json.dumps(dict(labelled=ids)))
    net = dict(AP=AP, AP_box=2*AP, PCK=50.)
    if metrics: (where/'metrics.json').write_text(json.dumps(dict(steps=900, seconds=60., networks=dict(student=net), headline=net)))
    return where


def test_the_gain_is_over_the_same_people_seed_and_steps(tmp_path):
    ours = write_run(tmp_path/'ours', 'pose-mum-plus', 13.5, preset=dict(lr=.003, burn_in=99))
    for name, odd in dict(other_people=dict(ids=(1, 2, 4)), other_seed=dict(seed=1), other_steps=dict(steps=901), other_rate=dict(preset=dict(lr=.1)), unfinished=dict(metrics=False),
                          other_recipe=dict(recipe='dual-pose'), changed=dict(override={'weak.rotation': 1}), other_photos=dict(data={'people-train': dict(fingerprint='c')})).items():
        write_run(tmp_path/name, AP=99., **odd)
    gain = lambda: {Path(r['run']).name: r.get('gain') for r in table.run_rows(tmp_path)}
    assert gain()['ours'] is None
    assert 'No finished supervised run' in report.run_verdict(report.read_run(ours)) and 'sshpe train --recipe supervised' in report.run_verdict(report.read_run(ours))
    write_run(tmp_path/'base', AP=11.)
    assert gain()['ours'] == pytest.approx(2.5) and gain()['base'] is None
    assert '2.5 AP above supervised' in report.run_verdict(report.read_run(ours)) and '(base)' in report.run_verdict(report.read_run(ours))


def test_sort_and_where(tmp_path, capsys):
    for name, AP in (('a', 5.), ('b', 20.), ('c', 9.)): write_run(tmp_path/name, 'sspcm' if name == 'c' else 'supervised', AP, seed=ord(name))
    write_run(tmp_path/'d', metrics=False)
    names = lambda *words: [Path(r['run']).name for r in json.loads(say(capsys, 'runs', tmp_path, '--json', *words)[1])]
    assert names('--sort', 'AP') == ['b', 'c', 'a', 'd'] and names('--sort', 'recipe') == ['c', 'a', 'b', 'd']
    assert names('--where', 'recipe=supervised', '--where', 'AP>7') == ['b'] and names('--where', 'seed!=98', '--where', 'AP<9') == ['a']
    assert "'AP'" in refused(capsys, 'runs', tmp_path, '--sort', 'Ap') and 'COLUMN' in refused(capsys, 'runs', tmp_path, '--where', 'AP')
    assert 'no number' in refused(capsys, 'runs', tmp_path, '--where', 'AP>much') and 'none of 4' in say(capsys, 'runs', tmp_path, '--where', 'AP>99')[1]


def test_diff(tmp_path, capsys):
    a, b = write_run(tmp_path/'a', AP=5.), write_run(tmp_path/'b', 'sspcm', 7.25, override={'tau': .2})
    rows = {r['what']: r for r in json.loads(say(capsys, 'runs', 'diff', a, b, '--json')[1])}
    assert set(rows) == {'config.recipe', 'config.override.tau', 'student.AP', 'student.AP_box', 'student.PCK', 'headline.AP', 'headline.AP_box', 'headline.PCK'}
    assert (rows['config.recipe']['a'], rows['config.recipe']['b'], rows['config.override.tau']['b']) == ('supervised', 'sspcm', .2)
    assert rows['student.AP']['difference'] == pytest.approx(2.25)
    assert 'sspcm' in say(capsys, 'runs', 'diff', a, b)[1]
    assert 'two runs' in refused(capsys, 'runs', 'diff', a) and 'is it a run' not in refused(capsys, 'runs', 'diff', a, tmp_path)


def test_the_page_needs_nothing_else_and_links_reports(tmp_path, capsys):
    from bs4 import BeautifulSoup
    for name in 'a', 'b<i>': write_run(tmp_path/'deep'/name, 'sspcm', 5.)
    (tmp_path/'deep/a/report.html').write_text('')
    assert say(capsys, 'runs', tmp_path, '--html', tmp_path/'runs.html')[0] == 0
    text = (tmp_path/'runs.html').read_text()
    page = BeautifulSoup(text, 'html.parser')
    assert [a['href'] for a in page('a')] == ['deep/a/report.html'] and not page('link') and not page('i') and 'http' not in text
    assert len(page.tbody('tr')) == 2 and all(h['title'] for h in page('th'))


def test_time_left_is_told_of_runs_that_run(tmp_path):
    where = write_run(tmp_path/'a', metrics=False)
    run.write_log(where/'log.csv', [dict(step=300, seconds=50.)])
    assert table.run_rows(tmp_path)[0]['left'] == ''
    code = f'import sys; from sshpe.runs import run; run.lock({str(where)!r}); print("held", flush=True); sys.stdin.read()'
    p = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'held\n'
    assert table.run_rows(tmp_path)[0]['left'] == '1:40'   # 600 more steps, six a second
    p.communicate('')


# the report

def test_a_report_is_one_file(done, tmp_path, capsys):
    from bs4 import BeautifulSoup
    code, said, err = say(capsys, 'report', done.where, '--out', tmp_path/'r.html')
    assert (code, said.strip(), err) == (0, str(tmp_path/'r.html'), '')
    page = BeautifulSoup((tmp_path/'r.html').read_text(), 'html.parser')
    assert len(page('section')) == len(report.REPORT_PARTS) and not page('script') and not page('link')
    assert len(page('img')) >= 6 and all(i['src'].startswith('data:image/png;base64,') for i in page('img'))
    text, m = page.get_text(' '), run.read_metrics(done.where)
    assert f'AP {m["headline"]["AP"]:.1f}' in text and f'PCK {m["headline"]["PCK"]:.1f}' in text and done.where.name in text


def test_changed_fields_are_marked(config):
    x = training.start(replace(config, override={'tau': .3, 'lr': .01}))
    run.unlock(x.where)
    odd = {(f['part'], f['field']): (f['value'], f['usual']) for f in report.fields_of(report.read_run(x.where)) if f['changed']}
    r, p = training.settle(run.Config(preset='tiny'))
    assert odd.pop(('recipe', 'tau')) == ('0.3', str(r.tau)) and odd.pop(('preset', 'lr')) == ('0.01', str(p.lr))
    assert set(odd) == {('config', k) for k in ('root', 'labels', 'preset')}
    assert 'not finished, step 0 of 12' in report.run_verdict(report.read_run(x.where))
    for part in report.REPORT_PARTS: assert part(report.read_run(x.where)).html()


def test_an_old_run_is_shown_without_what_it_lacks(done, tmp_path):
    old = tmp_path/'old'
    old.mkdir()
    for f in 'config.json', 'log.csv', 'metrics.json': shutil.copy(done.where/f, old)
    text = report.write_report(old).read_text()
    assert 'no film' in text and 'kept no people' in text and text.count('<img') == 4   # two curves, joints, time


@pytest.mark.parametrize('change', [dict(recipe=3), dict(recipe=dict(students='two')), dict(skeleton=None), dict(preset=[]), dict(versions='<script>')])
def test_a_strange_folder_costs_one_sentence_or_is_shown(done, tmp_path, change):
    shutil.copytree(done.where, tmp_path/'run')
    f = tmp_path/'run/config.json'
    f.write_text(json.dumps(json.loads(f.read_text()) | change))
    try: text = report.write_report(tmp_path/'run').read_text()
    except InputError as e: assert str(e)
    else: assert '<script>' not in text


def test_the_training_notebook_shows_all_parts():
    code = '\n'.join(c.source for c in nbformat.read(ROOT/'nbs/runs/train.ipynb', 4).cells if c.cell_type == 'code')
    for part in report.REPORT_PARTS:
        if part is not report.pictures: assert f'report.{part.__name__}(' in code, part.__name__


# names, locks, signals

def test_names_tell_runs_apart():
    name = lambda **k: run.folder(run.Config(recipe='r', **k)).name
    assert name() == 'r-people-100-s0' and name(preset='tiny') == 'r+preset=tiny-people-100-s0'
    assert name(override={'tau': .2}, steps=9, split='/a/b/mine.json') == 'r+split=mine+steps=9+tau=0.2-people-100-s0'
    with pytest.raises(InputError, match='--out'): name(override={'tau': 'x'*300})


def test_a_run_begun_under_its_former_name_goes_on_there(tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'workplace', lambda: tmp_path)
    c, old = run.Config(recipe='sspcm', steps=9), tmp_path/'runs/sspcm-people-100-s0'
    old.mkdir(parents=True)
    (old/'config.json').write_text(json.dumps(dict(config=run.as_json(c))))
    assert run.folder(c) == old and run.admit(c) == 'unfinished'
    assert run.folder(replace(c, steps=8)).name == 'sspcm+steps=8-people-100-s0'


TRAIN = [sys.executable, '-c', 'from sshpe.cli import main; raise SystemExit(main())', 'train', '--recipe', 'supervised', '--preset', 'tiny', '--labels', '16', '--device', 'cpu']

def began(p, where):
    "Until the burn-in, of four steps here, is over."
    while max((r['step'] for r in run.read_log(where/'log.csv')), default=0) < 8 and p.poll() is None: time.sleep(.1)
    assert p.poll() is None


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_first(sticks, tmp_path, how):
    where = tmp_path/'run'
    with started([*TRAIN, '--root', sticks, '-p', 'steps=100000', '-p', 'save_every=100000', '--out', where], stderr=subprocess.PIPE) as p:
        began(p, where)
        p.send_signal(how)
        _, err = p.communicate(timeout=120)
    assert p.returncode == 130 and err.startswith('sshpe: stopped; the state is saved') and 'goes on' in err, err
    assert torch.load(where/'state.pt', weights_only=True)['t'] >= 8 and not run.held(where) and (where/'train.ipynb').exists()


def test_stopped_in_the_middle_ends_with_the_same_bits(config, tmp_path):
    a = whole(replace(config, out=str(tmp_path/'a')))
    x = training.start(replace(config, out=str(tmp_path/'b')))
    def log(row):
        if row['step'] == 8: os.kill(os.getpid(), signal.SIGTERM)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match='step 8'): x.learner.fit(x.where/'state.pt', log)
    assert signal.getsignal(signal.SIGTERM) == before
    run.unlock(x.where)
    b = whole(replace(config, out=str(tmp_path/'b')))
    assert (a.where/'model.safetensors').read_bytes() == (b.where/'model.safetensors').read_bytes()


def test_a_second_training_is_refused_at_once(sticks, tmp_path):
    where = tmp_path/'run'
    words = [*map(str, TRAIN), '--root', str(sticks), '-p', 'steps=100000', '--out', str(where)]
    with started(words, stderr=subprocess.STDOUT) as p:
        while not (where/'.notebook').exists() and p.poll() is None: time.sleep(.05)   # its kernel has not even begun
        with pytest.raises(InputError, match='another process'): notebook.execute(ROOT/'nbs/runs/train.ipynb', where/'train.ipynb', {})
        r = subprocess.run(words, capture_output=True, text=True)
        assert r.returncode == 2 and 'another process' in r.stderr and r.stderr.count('\n') == 1, r.stderr
        assert p.poll() is None
