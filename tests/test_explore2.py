"""Mixing, recordings, teachers and runs in the explorers: every control through `.value`, every figure against arithmetic of its own."""
import io, json, math, os, shutil
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as W, numpy as np, pytest, torch, torch.nn as nn
from hypothesis import given, settings, strategies as st
from PIL import Image

from sshpe.experiments import summaries
from sshpe.models import distributed
from sshpe.pose import draw
from sshpe.runs import run, pictures, training, worker
from sshpe.errors import InputError
from sshpe.data.crops import build_store
from sshpe.data.registry import load
from sshpe.explore.base import latency
from sshpe.explore.heatmaps import HeatmapExplorer
from sshpe.explore.mix import COLOURS, drawn, MixExplorer, owners, pictures_of, strength
from sshpe.explore.people import networks, store_of
from sshpe.explore.runs import failures, found, RunsExplorer, told
from sshpe.explore.teachers import network_name, at, error, record, shipped, TeachersExplorer
from sshpe.train.learner import Learner, LOSSES
from sshpe.evaluate.predict import heatmaps
from sshpe.ssl.methods import recipe
from sshpe.models.posenet import build, STAGES
from sshpe.ssl.mum import Mix
from sshpe.train.recorder import distances, from_bytes, in_bytes, LOGGED, mismatches, points, read_record, Recorder, write_arrays
from sshpe.pose.skeleton import COCO17
from sshpe.models.ema import average, copy_of
from sshpe.pose.views import crops, keyed
from helpers import People, peak

ROOT = Path(__file__).resolve().parents[1]
N = 10 # people
rng = np.random.default_rng(0)


def picture(data):
    im = Image.open(io.BytesIO(data)); im.load()
    return np.asarray(im.convert('RGB'))

def panel(e, name): return next(p for row in e.rows for p in row if p.name == name)
def names(e): return [p.name for row in e.rows for p in row]
def walk(w): return [w, *(d for c in getattr(w, 'children', ()) for d in walk(c))]

@pytest.fixture(scope='module')
def people(tmp_path_factory):
    os.environ['SSHPE_CACHE'] = str(tmp_path_factory.mktemp('store'))
    return load('people', split='val')[:N]

@pytest.fixture(scope='module')
def x(): return networks('pose-mum-plus')
@pytest.fixture(scope='module')
def mixer(x, people): return MixExplorer(x, people)
@pytest.fixture(scope='module')
def teachers(): return TeachersExplorer()

@pytest.fixture(scope='module')
def runs(done, tmp_path_factory):
    "A finished run, another one that stopped after two lines, one that nobody can read, and a summary of the first."
    home = tmp_path_factory.mktemp('runs')
    shutil.copytree(done.where, home/'done')
    shutil.copytree(done.where, home/'half'); (home/'half/metrics.json').unlink()
    run.write_log(home/'half/log.csv', run.read_log(done.where/'log.csv')[:2])
    shutil.copytree(done.where, home/'odd'); (home/'odd/log.csv').write_text('step\nsoon\n')
    (home/'small').mkdir(); (home/'small/told.json').write_text(summaries.dump(summaries.summary(done.where)))
    return home

@pytest.fixture(scope='module')
def compare(runs): return RunsExplorer(runs, runs/'small')

@pytest.fixture(autouse=True)
def fresh(request):
    "Each test begins with the explorers' first states."
    for name in {'mixer', 'teachers', 'compare'} & set(request.fixturenames):
        e = request.getfixturevalue(name)
        e.set(**vars(e.first))

@pytest.fixture(params=['mixer', 'teachers', 'compare'])
def any_(request):
    e = request.getfixturevalue(request.param)
    return e.set(**vars(e.first))


# ---- all of them

def test_every_field_has_a_control_that_can_be_found(any_):
    e, shown = any_, walk(any_.widget)
    assert set(e.state)-set(e.controls) <= {'n'}
    for k, w in e.controls.items(): assert w in shown and f'sshpe-control-{k}' in w._dom_classes and w.description

CHANGES = dict(mixer=dict(person=3, seed=2, joint='left_knee', group=2, layer1=1., tiles=(2, 2), opacity=.5),
               teachers=dict(step=1500, person=2, joint='nose', part='decoder', opacity=.4), compare=dict(runs=('half', 'told'), loss='lr', network='ensemble', worst='done', failure=1))

@pytest.mark.parametrize('name', CHANGES)
def test_state_round_trips(request, name, people, runs):
    e = request.getfixturevalue(name).set(**CHANGES[name])
    given = dict(mixer=('pose-mum-plus', people), teachers=(), compare=(runs, runs/'small'))[name]
    again = type(e)(*given, **json.loads(json.dumps(e.state)))
    assert again.state == e.state != vars(e.first) and again.figures == e.figures and again.png() == e.png() and picture(e.png()).std() > 5
    assert eval(e.code(), {type(e).__name__: type(e), 'people': people}).state == e.state
    assert len(set(names(e))) == len(names(e))

def test_pictures_follow_the_state(any_):
    e, change = any_, dict(loss='unlabelled') if 'loss' in any_.state else dict(joint='nose')
    a = e.png()
    assert e.png() == a != e.png(**change) and e.state == vars(e.first)
    b = e._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in b and b['text/plain'] == e.code()

@pytest.mark.parametrize('name', ['mixer', 'teachers'])
def test_a_slider_asks_nobody(request, name, x, monkeypatch):
    e, calls = request.getfixturevalue(name), []
    real = type(x.networks['student']).forward
    monkeypatch.setattr(type(x.networks['student']), 'forward', lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    t = latency(e, 6); e.set(joint='nose')
    assert calls == [] and t['control'] == e.slider and 0 < t['median'] <= t['p95'] < 2000

def test_keys_and_strip_choose_people(mixer, teachers):
    for e, n in ((mixer, N), (teachers, 8)):
        for event, who in (('next', 1), ('previous', 0), ('previous', n-1), ('next', 0)):
            e.hear(dict(event=event)); assert e.state['person'] == who == e.controls['person'].value
        e.hear(dict(event='pick', panel='person-6', xy=(1, 1)))
        assert e.state['person'] == 6 and panel(e, 'person-6').chosen and not panel(e, 'person-5').chosen


# ---- mix

def exchanged(f, mask):
    "(N,…,h,w) with the tiles of one group's mask (N,th,tw), tile by tile."
    out, (N_, th, tw) = f.copy(), mask.shape
    h, w = f.shape[-2]//th, f.shape[-1]//tw
    for n, i, j in np.ndindex(N_, th, tw): out[n,...,i*h:(i+1)*h,j*w:(j+1)*w] = f[mask[n,i,j],...,i*h:(i+1)*h,j*w:(j+1)*w]
    return out

@given(st.integers(1, 5), st.sampled_from([(1, 1), (2, 2), (3, 2), (4, 3)]), st.sampled_from(STAGES[1:]), st.integers(0, 10**6), st.lists(st.sampled_from([0., .5, 1.]), min_size=4, max_size=4))
@settings(max_examples=40)
def test_what_is_drawn_is_what_a_touch_does(group, tiles, unmix, seed, probs):
    q = Mix(group, tiles, tuple(zip(STAGES, probs)), unmix)
    m, hook = drawn(q, group, seed), q.feature_hook(group, seed)
    own = owners(m, tiles, group, unmix)
    f = np.arange(group, dtype=np.float32)[:,None,None,None]*np.ones((1, 1, 12, 12), np.float32)
    now = f
    for k in STAGES:
        if k in m: now = exchanged(now, m[k][0].numpy())
        if k == unmix: now = f
        got = hook(k, torch.tensor(got if k != 'input' else f)).numpy()
        assert (got == now).all() and (draw.grow(own[k][0], (12, 12)) == now[0,0]).all()
        assert own[k].shape == (group, *tiles) and (np.sort(own[k], 0) == np.arange(group)[:,None,None]).all()
    before = STAGES[:STAGES.index(unmix)]
    assert set(m) == {k for k, p in zip(STAGES, probs) if k in before and p > keyed(seed, k, 'coin')[0]} and all((own[k] == np.arange(group)[:,None,None]).all() for k in STAGES if k not in before)

def test_joints_are_found_in_the_pictures_that_hold_them():
    q = Mix(4, (3, 2), (('input', 1.),))
    own = owners(drawn(q, 4, 5), q.tiles, 4, 'layer4')['input']
    xy = rng.uniform((0, 0), (63, 95), (4, 17, 2))
    got = pictures_of(own, xy, (96, 64))
    for b, j in np.ndindex(4, 17):
        holds = [n for n in range(4) if own[n, int((xy[b,j,1]+.5)//32), int((xy[b,j,0]+.5)//32)] == b]
        assert [got[b,j]] == holds

SETTINGS = [dict(), dict(person=4), dict(seed=7), dict(network='teacher'), dict(joint='left_hip'), dict(joint='all'), dict(opacity=.3), dict(group=1), dict(group=6), dict(tiles=(2, 2)),
            dict(tiles=(6, 4)), dict(input=0.), dict(input=0., layer1=0., layer2=0., layer3=0.), dict(layer1=1., layer2=1., layer3=1.), dict(unmix='layer2', layer1=1.), dict(unmix='decoder', layer3=1.),
            dict(limbs='everyone', group=2), dict(limbs='nobody'), dict(fit='refuse')]

@pytest.mark.parametrize('changes', SETTINGS, ids=str)
def test_mix_figures(mixer, x, changes):
    e, p, J = mixer, x.preset, range(17)
    for k, v in changes.items(): e.controls[k].value = v
    s, store, net = e.state, e.store(e._state), x.networks[e.state['network']]
    assert {k: s[k] for k in changes} == changes
    B, rows = s['group'], (s['person']+np.arange(s['group']))%N
    q = Mix(B, s['tiles'], tuple((k, s[k]) for k in STAGES[:4]), s['unmix'], s['fit'])
    m = {k: v[0].numpy() for k, v in drawn(q, B, s['seed']).items()}

    X, features, stack = crops(store.batch(rows), torch.eye(2, 3).expand(B, 1, 2, 3), p.size)[0], {}, []
    def hook(k, f): # the exchange, tile by tile
        f = f.numpy()
        if k in m: stack.append(m[k]); f = exchanged(f, m[k])
        while stack and k == s['unmix']: f = exchanged(f, stack.pop().argsort(0))
        features[k] = f
        return torch.tensor(f)
    with torch.no_grad():
        f = net.stem(hook('input', X))
        for k in STAGES[1:]: f = hook(k, getattr(net, k)(f))
        mixed, alone = net.head(f).numpy(), net(X).numpy()

    xyv = store.keypoints[rows]
    tile = lambda b, j: (min(int((xyv[b,j,1]+.5)*s['tiles'][0]//p.size[0]), s['tiles'][0]-1), min(int((xyv[b,j,0]+.5)*s['tiles'][1]//p.size[1]), s['tiles'][1]-1))
    now, whole, where = np.arange(B)[:,None,None]*np.ones((1, *s['tiles']), int), [], {}
    for k in STAGES:
        if k in m: now = exchanged(now, m[k])
        if k == s['unmix']: now = np.arange(B)[:,None,None]*np.ones((1, *s['tiles']), int)
        where[k] = [[[n for n in range(B) if now[n][tile(b, j)] == b][0] for j in J] for b in range(B)]
        if k in m: whole.append([[where[k][b][i] == where[k][b][j] for i, j in COCO17.limbs] for b in range(B)])
        if k != 'input':
            l, size = panel(e, f'{k}-{B-1}').layers[0], np.linalg.norm(features[k], axis=1)
            assert np.allclose(l.values, (size[B-1]-size.min())/(size.max()-size.min()), atol=1e-3) and l.opacity == s['opacity']
            colour = np.array([[int(COLOURS[n][i:i+2], 16) for i in (1, 3, 5)] for n in range(B)])
            assert (l.colours == colour[draw.grow(now[B-1], l.values.shape)]).all()
    there = [[all(xyv[b,l,2] > 0) for l in map(list, COCO17.limbs)] for b in range(B)]
    whole = np.array(whole or [np.ones((B, 19), bool)]); ever = whole.any(0)
    share = lambda w, ok: np.mean([v for v, t in zip(np.ravel(w), np.ravel(ok)) if t]) if np.any(ok) else None
    off = lambda H: np.median([np.hypot(*((peak(H[0,j].astype(float), p.decode, p.sigma)+.5)*p.stride-.5-xyv[0,j,:2])) for j in J if xyv[0,j,2] > 0])
    want = dict(first=share(whole[0,0], there[0]), ever=share(ever[0], there[0]), all=share(ever, there), mixed=off(mixed), alone=off(alone),
                changed=np.linalg.norm(mixed-alone)/np.linalg.norm(alone))
    for k, v in want.items(): assert e.figures[k] == pytest.approx(v, abs=2e-2), k

    pick = lambda H: H[COCO17.joints.index(s['joint'])] if s['joint'] in COCO17.joints else H.max(0)
    for name, H in (('mixed', mixed), ('alone', alone)): assert np.allclose(panel(e, f'{name}-{B-1}').layers[0].values, pick(H[B-1]), atol=2e-3)
    assert np.abs(panel(e, f'input-{B-1}').picture.astype(int)-draw.rgb(torch.tensor(features['input'][B-1]))).max() <= 1
    for n in range(B): # limbs: each whole one once, each broken one in two pictures
        marks = [q_ for q_ in panel(e, f'layer1-{n}').marks[1:] if q_.kind in ('-', '--')]
        count = {kind: sum(np.isnan(q_.x).sum() for q_ in marks if q_.kind == kind) for kind in ('-', '--')}
        mine, at_ = {'chosen': [0], 'everyone': range(B), 'nobody': []}[s['limbs']], where['layer1']
        ends = [(at_[b][i], at_[b][j]) for b in mine for (i, j), t in zip(COCO17.limbs, there[b]) if t and n in (at_[b][i], at_[b][j])]
        assert count == {'-': sum(a == b for a, b in ends), '--': sum(a != b for a, b in ends)}
    last = [q_ for q_ in panel(e, f'limbs-{max(len(m)-1, 0)}').marks[1:]]
    assert {kind: sum(np.isnan(q_.x).sum() for q_ in last if q_.kind == kind) for kind in ('-', '--')} == {'-': sum(v for v, t in zip(ever[0], there[0]) if t), '--': sum(not v for v, t in zip(ever[0], there[0]) if t)}

def test_tiles_that_do_not_fit(mixer):
    e = mixer
    e.controls['fit'].value = 'refuse'
    e.controls['layer3'].value = 1.
    e.controls['tiles'].value = (4, 3)
    assert 'cannot be cut' in e.status and e.state['tiles'] == (3, 2) == e.controls['tiles'].value
    e.controls['fit'].value = 'resize'; e.controls['tiles'].value = (4, 3)
    assert e.state['tiles'] == (4, 3) and e.status == '' and np.isfinite(e.figures['changed'])

def test_a_network_is_asked_once_for_each_draw(mixer, x, monkeypatch):
    e, calls, said = mixer, [], []
    real = type(x.networks['student']).forward
    monkeypatch.setattr(type(x.networks['student']), 'forward', lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    coin = keyed(41, 'layer1', 'coin')[0]
    e.set(seed=41, layer1=0., layer2=0., layer3=0.); assert len(calls) == 2
    e.panels.observe(lambda c: said.append(c['new']), 'status')
    e.controls['layer1'].value = float(np.floor(20*coin)/20); assert len(calls) == 2 and said == []
    e.controls['layer1'].value = float(np.ceil(20*coin)/20); assert len(calls) == 4 and 'asking student about 4 people' in said[0]['text'] and said[-1]['share'] is None
    e.controls['layer1'].value = 0.; assert len(calls) == 4
    assert panel(e, 'layer1-0').title == 'layer1'

def test_people_without_labels_lend_their_own_joints(x, people, tmp_path):
    f = tmp_path/'me.png'
    Image.open(Path(people.root)/people.files[2]).convert('RGB').save(f)
    e = MixExplorer(x, str(f), group=2)
    assert e.passed(e._state).rows.tolist() == [0, 0] and e.figures['alone'] == pytest.approx(0, abs=1e-4) and 0 <= e.figures['ever'] <= 1
    assert eval(e.code(), dict(MixExplorer=MixExplorer)).state == e.state

def test_other_networks_mix_too(people):
    e = MixExplorer('supervised', people[:3])
    assert e.state['tiles'] == e.x.preset.tiles and e.state['group'] == 4 and e.passed(e._state).rows.tolist() == [0, 1, 2, 0]

def test_branches_are_seen_at_the_finest():
    a, b = torch.rand(3, 5, 8, 6), torch.rand(3, 9, 4, 3)
    assert (strength([a, b]) == strength(a)).all() and strength(a).min() == 0 and strength(a).max() == 1 and strength(a*0).max() == 0


# ---- recording

@given(st.integers(1, 5000), st.integers(1, 700), st.integers(2, 50))
def test_points_are_even(T, every, most):
    lines = [t for t in range(1, T+1) if t%every == 0 or t == T]
    got = sorted(points(T, every, most))
    assert set(got) <= set(lines) and len(got) == min(most, len(lines)) and got[-1] == T and got[0] == lines[0]
    gaps = np.diff([lines.index(t) for t in got])
    assert not len(gaps) or gaps.max()-gaps.min() <= 1

@given(st.integers(0, 10**6), st.floats(.01, 30))
def test_bytes_come_back_within_the_bound(seed, high):
    H = torch.tensor(np.random.default_rng(seed).normal(0, high, (3, 4, 5)))
    b, top = in_bytes(H)
    back = from_bytes(b, top)
    assert b.dtype == np.uint8 and b.shape == H.shape and top == max(1, H.max().item()) and back.dtype == np.float32
    assert abs(back-H.clamp(min=0).numpy()).max() <= top/510*(1+1e-5)

def test_distance_is_the_closed_form():
    s = build('narrow18', width=16, seed=1); t = copy_of(build('narrow18', width=16, seed=2))
    flat = lambda f: np.concatenate([w.detach().numpy().ravel() for w in f.parameters()]).astype(float)
    far = {k: np.linalg.norm(flat(u)-flat(v))/np.linalg.norm(flat(v)) for (k, u), v in zip(t.named_children(), s.children())}
    for n in range(1, 5):
        average(t, s, .6, buffers=False)
        for k, v in distances(t, s).items(): assert v == pytest.approx(far[k]*.6**n, rel=1e-4)
    assert set(far) == {'stem', 'layer1', 'layer2', 'layer3', 'layer4', 'decoder', 'head'} and set(distances(s, s).values()) == {0}
    assert 'decoder' not in distances(*[build('narrow_hrnet')]*2) # HRNet's has no parameters

def test_mismatch_is_the_closed_form():
    s, t = (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm2d(3))) for _ in 'st')
    s[1].running_mean[:] = torch.tensor([1., 2.]); s[1].running_var[:] = torch.tensor([4., 9.])
    t[1].running_mean[:] = torch.tensor([2., 2.]); t[1].running_var[:] = torch.tensor([16., 9.])
    # first channel: means 1 apart, standard deviations 4 and 2, in units of 2; second channel: equal
    assert mismatches(t, s) == pytest.approx({'1': math.sqrt(((1/2)**2+(2/2)**2)/2), '2.0': 0}, rel=1e-4)
    with torch.no_grad(): s[2][0].running_mean += 5; average(t, s, .6); average(t, s, .6)
    assert mismatches(t, s)['2.0'] == pytest.approx(5*.36, rel=1e-4)
    assert mismatches(nn.GroupNorm(1, 2), nn.GroupNorm(1, 2)) == {}

def learner(name='pose-cons-ema-0.6', **more):
    r, p = recipe(name, 'tiny', steps=12, every=4, **more)
    store = People(24, margin=2.)
    return Learner(r, p, store, store, COCO17, 3)

def alike(a, b): return len(a) == len(b) and all(torch.equal(u, v) for u, v in zip(a.values(), b.values()))
def same(a, b): return all(np.array_equal(getattr(a, k), getattr(b, k), equal_nan=True) for k in ('step', 'heat', 'top', 'distance', 'mismatch', 'log', 'pictures', 'xyv'))

@pytest.fixture(scope='module')
def recorded(people, tmp_path_factory):
    l, where = learner(), tmp_path_factory.mktemp('recorded')
    kept, r = [], Recorder(l, people, where)
    def log(row): r(row); kept.append((row, [(copy_of(t), copy_of(s)) for t, s in zip(l.teachers, l.students)]))
    l.fit(log=log)
    return l, where, kept

def test_what_is_recorded(recorded, people):
    l, where, kept = recorded
    r = read_record(where)
    store = build_store(people, l.p.size, 1.)[np.round(np.linspace(0, N-1, 8)).astype(int)]
    assert r.step.tolist() == [4, 8, 12] and r.networks == ('student', 'teacher') and r.joints == COCO17.joints and r.heat.shape == (3, 2, 8, 17, 24, 16) and r.recipe == 'pose-cons-ema-0.6'
    assert np.allclose(r.xyv, store.keypoints) and (r.pictures == pictures.without_margin(store, np.arange(8))).all()
    for k, (row, [(t, s)]) in enumerate(kept):
        for name, f in (('student', s), ('teacher', t)):
            H = heatmaps([f.eval()], store.batch(np.arange(8)), l.p)[0].detach().numpy()
            assert abs(r.maps(k, name)-H.clip(0)).max() <= r.top[k]/510+1e-4
        assert dict(zip(r.parts, r.distance[k,0])) == pytest.approx(distances(t, s)) and dict(zip(r.layers, r.mismatch[k,0])) == pytest.approx(mismatches(t, s))
        assert [None if np.isnan(v) else v for v in r.log[k]] == [row.get(c) for c in LOGGED]
    assert r.mismatch.max() > 0 < r.distance.max()

def test_recording_changes_nothing(recorded):
    l, m = recorded[0], learner().fit()
    assert m.rows[-1]['labelled'] == l.rows[-1]['labelled'] and all(alike(f.state_dict(), g.state_dict()) for f, g in zip([*l.students, *l.teachers], [*m.students, *m.teachers]))

def test_a_run_that_goes_on_records_the_same(recorded, people, tmp_path):
    l = learner()
    l.fit(tmp_path/'state.pt', Recorder(l, people, tmp_path/'record'), until=6)
    lost = learner(); lost.load(tmp_path/'state.pt'); lost.fit(log=Recorder(lost, people, tmp_path/'record')) # its state was never saved
    (tmp_path/'record/.00000004.npz.abc').write_bytes(b'half')
    again = learner(); again.fit(tmp_path/'state.pt', Recorder(again, people, tmp_path/'record'))
    assert same(read_record(tmp_path), read_record(recorded[1])) and not list((tmp_path/'record').glob('.*'))

def test_files_are_whole_or_not_there(tmp_path, recorded, monkeypatch):
    f = tmp_path/'a.npz'
    write_arrays(f, a=np.arange(3))
    monkeypatch.setattr(np, 'savez_compressed', lambda file, **a: (file.write(b'PK'), 1/0))
    with pytest.raises(ZeroDivisionError): write_arrays(f, a=np.arange(4))
    monkeypatch.undo()
    assert np.load(f)['a'].tolist() == [0, 1, 2] and [p.name for p in tmp_path.iterdir()] == ['a.npz']

def test_bad_recordings_are_refused(tmp_path, recorded):
    with pytest.raises(InputError, match='no recording'): read_record(tmp_path)
    for how, words in ((lambda f: f.write_bytes(f.read_bytes()[:500]), 'not a whole piece'), (lambda f: write_arrays(f, step=3), 'different'),
                       (lambda f: np.savez(open(f, 'wb'), step=np.array([{}], dtype=object)), 'not a whole piece')):
        d = shutil.copytree(recorded[1], tmp_path/'d', dirs_exist_ok=True)
        how(d/'00000008.npz')
        with pytest.raises(InputError, match=words): read_record(d)

@pytest.mark.parametrize('name,nets,T', [('supervised', 1, 0), ('pose-cons', 1, 0), ('denoise-eman', 4, 2), ('pseudo-pose', 2, 1)])
def test_whatever_is_trained_is_recorded(name, nets, T, people, tmp_path):
    l = learner(name)
    l.fit(log=Recorder(l, people, tmp_path), until=4)
    r = read_record(tmp_path)
    assert len(r.networks) == nets and (r.distance.shape, r.mismatch.shape) == (((1, T, 7), (1, T, len(r.layers))) if T else ((1, 0), (1, 0))) and np.isnan(r.log[0,1])

def test_a_run_records_itself(done):
    r = read_record(done.where)
    size = sum(f.stat().st_size for f in (done.where/'record').iterdir())
    assert r.step.tolist() == [row['step'] for row in run.read_log(done.where/'log.csv')] and r.name == done.where.name and size < 2e6
    shown = pictures.without_margin(store_of(done.val, networks(done.where)), np.round(np.linspace(0, len(done.val)-1, 8)).astype(int))
    assert (r.pictures == shown).all()

def test_only_the_first_process_records(monkeypatch, tmp_path):
    heard = []
    class Fake:
        where = tmp_path
        class learner: device, fit = 'cpu', staticmethod(lambda *a, **k: heard.append((a, k)))
    monkeypatch.setattr(distributed, 'rank', lambda: 1); monkeypatch.setattr(training, 'assemble', lambda c, device: Fake)
    monkeypatch.setattr(distributed, 'first_alone', __import__('contextlib').nullcontext)
    worker.work(run.Config())
    assert heard == [((tmp_path/'state.pt',), {})] and not (tmp_path/'record').exists()

def test_a_larger_scale_shows_fewer_people(people, tmp_path):
    r, p = recipe('supervised', 'tiny', size=(256, 192), steps=1)
    Recorder(Learner(r, p, People(8, size=(256, 192)), People(8, size=(256, 192)), COCO17), people, tmp_path)
    assert np.load(tmp_path/'about.npz')['pictures'].shape == (4, 256, 192, 3)


# ---- teachers

def test_shipped_recordings_are_small_and_comparable():
    rs = [record(n) for n in shipped()]
    assert {r.recipe for r in rs} == {'pose-cons', 'pose-cons-ema-0.6', 'pose-cons-eman-0.6'} and all(len(r.step) >= 8 for r in rs)
    assert all(sum(f.stat().st_size for f in r.where.iterdir()) < 1e6 for r in rs)
    assert [r.networks for r in rs] == [('student',), ('student', 'teacher'), ('student', 'teacher')]

@given(st.lists(st.integers(1, 99), min_size=1, unique=True).map(sorted), st.integers(0, 120))
def test_a_moment_is_the_last_point_before(steps, step):
    r = SimpleNamespace(step=np.array(steps))
    want = [k for k, t in enumerate(steps) if t <= step]
    assert at(r, step) == (want[-1] if want else 0)

@pytest.mark.parametrize('changes', [dict(), dict(step=900), dict(step=2400), dict(person=3), dict(joint='left_ankle'), dict(joint='all', opacity=.2), dict(film='student'),
                                     dict(part='layer3'), dict(part='head', step=1500)], ids=str)
def test_teachers_figures(teachers, changes):
    e = teachers
    for k, v in changes.items(): e.controls[k].value = v
    s = e.state
    assert {k: s[k] for k in changes} == changes
    for r in map(record, shipped()):
        k = max(i for i, t in enumerate(r.step) if t <= s['step'])
        who = r.networks[-1]
        far = dict(zip(r.parts, r.distance[k,0])) if len(r.networks) > 1 else {'mean': 0., s['part']: 0.}
        assert e.figures[f'{r.name} distance'] == pytest.approx(far[s['part']] if s['part'] in far else sum(far.values())/len(far))
        assert e.figures[f'{r.name} mismatch'] == pytest.approx(float(np.mean(r.mismatch[k,0])) if len(r.networks) > 1 else 0)
        H, xyv = r.heat[k,-1,s['person']]*r.top[k]/255, r.xyv[s['person']]
        off = [np.hypot(*((peak(H[j], 'quarter')+.5)*4-.5-xyv[j,:2])) for j in range(17) if xyv[j,2] > 0]
        assert e.figures[f'{r.name} error'] == pytest.approx(np.median(off), abs=1e-3)
        p = panel(e, f'now-{r.name}-{who}')
        pick = lambda H: H[r.joints.index(s['joint'])] if s['joint'] in r.joints else H.max(0)
        assert np.allclose(p.layers[0].values, pick(H), atol=1e-6) and (p.picture == r.pictures[s['person']]).all() and p.layers[0].opacity == (.4 if s['joint'] == 'all' else 1)*s['opacity'] and p.title == f'{who} {r.step[k]}'
        films = [q for row in e.rows for q in row if q.name in {f'film-{r.name}-{t}' for t in r.step}]
        assert len(films) == min(8, len(r.step)) and sum(q.chosen for q in films) == 1 and films[0].title.startswith(network_name(r, s['film']))
        for q in films:
            i = r.step.tolist().index(int(q.name.rpartition('-')[2]))
            assert np.allclose(q.layers[0].values, pick(r.heat[i,r.networks.index(network_name(r, s['film'])),s['person']]*r.top[i]/255), atol=1e-6)
    lines = {n: [m for m in panel(e, n).marks if m.kind == 'o'] for n in ('distance', 'mismatch', 'loss')}
    for n, r in enumerate(map(record, shipped())):
        assert np.allclose(lines['loss'][n].y, r.log[:,0]-teachers.records[0].log[:,0]) and (lines['mismatch'][n].x == r.step).all()
        if len(r.networks) > 1: assert np.allclose(lines['mismatch'][n].y, r.mismatch[:,0].mean(-1))
    assert panel(e, 'distance').marks[-1].x.tolist() == [s['step']]*2

def test_clicks_move_through_time(teachers):
    e = teachers
    film = next(p.name for row in e.rows for p in row if p.name.startswith('film-pose-cons-') and p.name.split('-')[-1].isdigit() and not p.chosen)
    step = int(film.split('-')[-1])
    e.hear(dict(event='pick', panel=film, xy=(3, 3))); assert e.state['step'] == step == e.controls['step'].value and panel(e, film).chosen
    e.hear(dict(event='pick', panel='mismatch', xy=(1512.4, .1))); assert e.state['step'] == 1500 and panel(e, 'now-pose-cons-student').title == 'student 1500'

def test_only_comparable_recordings_are_compared(recorded, done, tmp_path):
    assert TeachersExplorer(recorded[1]).figures.keys() == {f'{recorded[1].name} {k}' for k in ('distance', 'mismatch', 'error')}
    e = TeachersExplorer(done.where); assert eval(e.code()).state == e.state and str(done.where) in e.code()
    for bad, words in ((('pose-cons', recorded[1]), 'different people'), (('pose-cons', 'pose-cons'), 'same name'), (('pose-con',), 'did you mean'), ((tmp_path,), 'no recording')):
        with pytest.raises(InputError, match=words): TeachersExplorer(*bad)

def test_error_of_nobody_is_none():
    assert error(np.zeros((17, 6, 4)), np.zeros((17, 3)), 4) is None


# ---- runs

def test_what_is_known_about_runs(runs, done):
    all_, bad = found([runs, runs/'small'])
    assert list(all_) == ['done', 'half', 'told'] and len(bad) == 1 and 'log.csv' in bad[0]
    log, m = run.read_log(done.where/'log.csv'), json.loads((done.where/'metrics.json').read_text())
    assert all_['done'].curve['labelled'] == [r['labelled']/2 for r in log], 'the log sums over the two students'
    assert all_['done'].curve['lr'] == [r['lr'] for r in log] and all_['done'].networks == m['networks'] and all_['half'].networks == {} and len(all_['half'].curve['step']) == 2
    assert all_['told'].curve['labelled'] == pytest.approx(all_['done'].curve['labelled'], rel=1e-4)
    assert all_['told'].curve['step'] == all_['done'].curve['step'] and all_['told'].joints == COCO17.joints == told(done.where).joints
    assert list(found([runs/'done', runs/'half', done.where])[0]) == ['done', 'half', done.where.name]
    twice = shutil.copytree(runs/'done', runs.parent/'second'/'done', dirs_exist_ok=True)
    assert list(found([runs/'done', twice])[0]) == ['done', 'second/done']
    for bad in (runs/'none', runs/'odd'):
        with pytest.raises(InputError): found([bad])
    (runs.parent/'empty').mkdir(exist_ok=True)
    with pytest.raises(InputError, match='no run'): found([runs.parent/'empty'])

@pytest.mark.parametrize('changes', [dict(), dict(runs=('done',)), dict(runs=('half', 'told')), dict(loss='unlabelled'), dict(telemetry='kept'), dict(network='ensemble'), dict(network='teacher')], ids=str)
def test_runs_figures(compare, runs, done, changes):
    e = compare
    for k, v in changes.items(): e.controls[k].value = v
    s, m = e.state, json.loads((done.where/'metrics.json').read_text())['networks']
    assert {k: s[k] for k in changes} == changes
    assert e.figures['unreadable'] == 1 and {k.rpartition(' ')[0] for k in e.figures if ' ' in k} == set(s['runs'])
    whose = {'student': ['student1', 'student2'], 'ensemble': ['ensemble'], 'teacher': []}[s['network']]
    for k in s['runs']:
        for f in ('PCK', 'AP_box'):
            want = np.mean([m[w][f] for w in whose]) if k != 'half' and whose else None
            assert e.figures[f'{k} {f}'] == (None if want is None else pytest.approx(want, rel=1e-4))
    for name in ('loss', 'telemetry'):
        marks = panel(e, name).marks
        share = {'labelled': 2, 'unlabelled': 2}.get(s[name], 1) # losses are logged as sums over two students
        want = [[(r['step'], r[s[name]]/share) for r in run.read_log(done.where/'log.csv')[:2 if k == 'half' else None] if r.get(s[name]) is not None] for k in s['runs']]
        assert [list(zip(q.x, q.y)) for q in marks] == [pytest.approx(np.array(w, np.float32), rel=1e-4) for w in want if w]
    for k, q in zip(s['runs'], panel(e, 'joints').marks):
        want = [np.mean([m[w]['PCK_joints'][j] for w in whose]) if k != 'half' and whose else np.nan for j in COCO17.joints]
        assert q.label == k and np.allclose(q.y, want, rtol=1e-4, equal_nan=True) and (abs(q.x-np.arange(17)) <= .25).all()

def test_only_runs_with_networks_can_fail(compare): assert compare.controls['worst'].options == ('', 'done')

def oks_of(done):
    "OKS of the ensemble's stored answers, person by person, from COCO's formula."
    rows = json.loads((done.where/'results-ensemble.json').read_text())
    out = []
    for i, r in enumerate(rows):
        k, t = np.array(r['keypoints']).reshape(17, 3), done.val.keypoints[i]
        out.append(np.mean([math.exp(-((k[j,0]-t[j,0])**2+(k[j,1]-t[j,1])**2)/(2*done.val.areas[i]*(2*COCO17.sigmas[j])**2)) for j in range(17) if t[j,2] > 0]))
    return np.array(out)

def test_the_worst_come_first(compare, done, runs):
    e, oks = compare, oks_of(done)
    order = sorted(range(len(oks)), key=lambda i: oks[i])
    e.controls['worst'].value = 'done'
    f = e.failures_of(e._state)
    assert f.rows.tolist() == order[:24] and np.allclose(f.oks, oks[f.rows], atol=1e-6) and e.figures['oks'] == pytest.approx(oks[order[0]], abs=1e-6)
    strip = [p for p in e.rows[-1]]
    assert [p.title for p in strip] == [f'OKS {oks[i]:.2f}' for i in order[:8]] and strip[0].chosen and len(strip) == 8
    e.controls['failure'].value = 13
    assert e.figures['oks'] == pytest.approx(oks[order[13]], abs=1e-6) and [p.name for p in e.rows[-1]] == [f'failure-{i}' for i in range(8, min(16, len(order)))]
    e.hear(dict(event='next')); assert e.state['failure'] == 14
    e.set(failure=0); e.hear(dict(event='previous')); assert e.state['failure'] == len(order)-1
    x = networks(done.where)
    fresh_ = failures(done.where); os.rename(done.where/'results-ensemble.json', done.where/'kept')
    try: again = failures(done.where)
    finally: os.rename(done.where/'kept', done.where/'results-ensemble.json')
    assert np.allclose(fresh_.xy, again.xy, atol=.05) and np.allclose(fresh_.oks, again.oks, atol=.02)

def test_a_failure_opens_beside_the_list(compare, done):
    e = compare
    e.controls['worst'].value = 'done'
    assert not any(p.beside for row in e.rows for p in row)
    e.hear(dict(event='pick', panel='failure-3', xy=(2, 2)))
    assert e.state['opened'] and e.controls['opened'].value and e.state['failure'] == 3
    row = e.failures_of(e._state).rows[3]
    own = HeatmapExplorer(networks(done.where), done.val[[row]], joint='all')
    large = lambda: [p for row in e.rows for p in row if p.beside]
    assert [p.name for p in large()] == ['taught', 'raw', 'refined', 'truth']
    for name in ('raw', 'truth'): # the turned views of a pool depend on a person's number
        p, q = panel(e, name), panel(own, name)
        assert p.title == q.title and np.array_equal(p.picture, q.picture) and np.allclose(p.layers[0].values, q.layers[0].values, atol=1e-3)
    e.controls['joint'].value = 'nose'; own.set(joint='nose'); assert np.allclose(panel(e, 'raw').layers[0].values, panel(own, 'raw').layers[0].values, atol=1e-3)
    e.controls['failure'].value = 5; assert e.heatmaps(e._state).state['person'] == 5
    e.hear(dict(event='undo')); e.hear(dict(event='undo')); assert e.state['failure'] == 3 and e.state['joint'] == 'all'
    e.controls['opened'].value = False; assert large() == []

def test_what_cannot_be_compared_is_refused(compare):
    e = compare
    e.controls['runs'].value = (); assert 'choose a run' in e.status and e.state['runs'] == vars(e.first)['runs'] == e.controls['runs'].value
    with pytest.raises(InputError): e.set(runs=('nobody',))
    with pytest.raises(InputError): e.set(worst='half')

def test_the_repository_itself_can_be_compared():
    e = RunsExplorer()
    assert {'supervised', 'denoise-select', 'pose-mum-plus'} <= set(e.all) and picture(e.png()).std() > 5 and e.code() == 'RunsExplorer()'
