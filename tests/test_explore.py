"""Explorers without a browser: every control through `.value`, every figure against arithmetic of its own, every picture a picture."""
import base64, io, json, os, shutil, subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import ipywidgets as W, nbformat, numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from sshpe.pose import draw
from sshpe.errors import InputError
from sshpe.data.coco import whole_photos
from sshpe.data.crops import build_store, to_crop
from sshpe.data.registry import load
from sshpe.explore.base import Explorer, from_control, latency, Memory, RangeSlider, Slider, State, StepSlider, to_control
from sshpe.explore.heatmaps import entropy, HeatmapExplorer, LAYERS
from sshpe.explore.panels import chart, figure, Layer, Mark, Panels, place, pose, scale, view
from sshpe.explore.crowd import crowd
from sshpe.explore.people import joint_names, networks, PeopleExplorer, photo_store, store_of
from sshpe.explore.selection import in_box, ranked, SelectionExplorer, PEOPLE_ORDERS, taken
from sshpe.explore.views import view_facts, ViewsExplorer
from sshpe.data.batch import fetch
from sshpe.ssl.pseudo import pseudo_labels
from sshpe.ssl.recipe import Setup
from sshpe.pose.skeleton import COCO17
from shown import N, people, x
from helpers import gaussian, matrix3, moved, peak

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def heat(x, people): return HeatmapExplorer(x, people)
@pytest.fixture(scope='module')
def views(x, people): return ViewsExplorer(x, people)
@pytest.fixture(scope='module')
def both(x, people): return SelectionExplorer(x, people)
@pytest.fixture(scope='module', params=['heat', 'views', 'both'])
def any_(request): return request.getfixturevalue(request.param)

@pytest.fixture(autouse=True)
def fresh(request):
    "Each test begins with the explorers' first states."
    for name in {'heat', 'views', 'both', 'any_'} & set(request.fixturenames):
        e = request.getfixturevalue(name)
        e.set(**vars(e.first))


def asked(x, store, r, i, seed=0):
    "The learner's own question about one person: heatmaps (S,V,J,h,w) in one frame, what was seen (V,h,w), views, truth."
    o, views = pseudo_labels(x.teachers, fetch(store, np.array([i])), Setup(r, x.preset, x.skeleton.flip), key=(seed,))
    return o.H[:,0].numpy(), o.seen[0,:,0].numpy(), views.M[0], store.keypoints[i]

def pooled(H, seen, how):
    "The pool of (V,J,h,w), pixel by pixel."
    s = np.broadcast_to(seen[:,None], H.shape)
    if how == 'max': return np.where(s.any(0), np.where(s, H, -np.inf).max(0), 0)
    return np.where(s, H, 0).sum(0)/np.maximum(s.sum(0), 1)

def deviations(H, seen):
    "Standard deviation over the views that have seen a pixel."
    s = np.broadcast_to(seen[:,None], H.shape)
    return np.nan_to_num(np.nanstd(np.where(s, H.astype(float), np.nan), 0))

def bits(h):
    q = np.maximum(h.astype(float), 0).ravel(); q = q[q > 0]/q.sum()
    return -(q*np.log2(q)).sum()

def picture(data):
    im = Image.open(io.BytesIO(data)); im.load()
    return np.asarray(im.convert('RGB'))

def panel(e, name): return next(p for row in e.rows for p in row if p.name == name)


# ---- panels

rng = np.random.default_rng(0)
image = rng.integers(0, 256, (24, 16, 3), dtype=np.uint8)

def test_the_browser_gets_the_numbers():
    w, h = Panels(), rng.random((6, 4))
    p, q = view('a', image, [Layer('h', h), Layer('c', h, colours=image[::4,::4].copy())], [Mark('o', [1, 2], [3, np.nan])]), view('b', image)
    w.show([[p, q]], [('n', 1.5, 'n 1.5')], 'f()')
    a, b = w.rows[0]
    assert a['picture'] == b['picture'] and len(w.pictures) == 2
    got = w.pictures[a['picture']]
    assert (np.frombuffer(got['data'], np.uint8).reshape(got['h'], got['w'], 3) == image).all()
    v = a['layers'][0]['values']
    assert np.allclose(np.frombuffer(v['data'], np.float32).reshape(v['h'], v['w']), h) and (v['h'], v['w']) == (6, 4)
    assert np.isnan(np.frombuffer(a['marks'][0]['y']['data'], np.float32)).tolist() == [False, True]
    assert (a['x'], a['y']) == ([-.5, 15.5], [23.5, -.5]) and w.figures == [['n', 1.5, 'n 1.5']] and w.code == 'f()'

def test_only_what_changed_is_sent():
    w, seen = Panels(), []
    p = view('a', image, [Layer('h', rng.random((6, 4)))])
    w.show([[p]]); w.observe(lambda c: seen.append(c['name']))
    w.show([[p]]); assert seen == []
    w.show([[replace(p, title='new')]]); assert seen == ['rows']
    w.show([[view('a', image[:12])]]); assert set(seen) == {'rows', 'pictures'} and len(w.pictures) == 1 == len(w.bank)

def test_the_figure_lies_as_the_page_does():
    rows = [[view('a', image, labels=True, width=100), chart('b', [Mark('-', [0, 1], [0, 1])], ('x', 0, 1), ('y', 0, 2), 200, 80)], [scale()]]
    at, (width, height) = place(rows)
    fig = figure(rows)
    boxes = {p.name: ax.get_position() for p, ax in zip((p for r in rows for p in r), fig.axes[1:])}
    for k, (x_, y, w, h) in at.items():
        assert np.allclose((boxes[k].x0*width, (1-boxes[k].y1)*height, boxes[k].width*width, boxes[k].height*height), (x_, y, w, h))
    assert at['b'][0] >= at['a'][0]+100 and at['scale-inferno'][1] > at['a'][1]+150
    assert fig.axes[1].get_xlim() == (-.5, 15.5) and fig.axes[1].get_ylim() == (23.5, -.5) and fig.axes[2].get_ylim() == (0, 2)
    assert 'crop pixels' in fig.axes[1].get_xlabel() and picture(draw.png(fig)).std() > 0

def test_figure_shows_the_blend():
    p = view('a', image, [Layer('h', h := rng.random((6, 4)), .7), Layer('not drawn', h, 0)])
    shown = figure([[p]]).axes[0].images[0].get_array()
    assert (shown == draw.heat(image, h, alpha=.7)).all()

def test_a_panel_without_axes_is_drawn_as_one_with_them():
    marks = [Mark('o', [3, 12.5], [5, 20.5], '#FFFFFF', 3), Mark('-', [-9, 30], [11.5, 11.5], '#009E73', 6)]
    pictures = []
    for labels in (False, True):
        fig = figure(rows := [[view('a', image, (), marks, 160, labels=labels)]])
        x_, y, w, h = place(rows)[0]['a']
        pictures.append(picture(draw.png(fig))[y+2:y+h-2,x_+2:x_+w-2].astype(int))
    bare, other = pictures
    assert bare.shape == other.shape and (abs(bare-other).max(-1) < 9).mean() > .99

def test_pose_draws_each_limb_once():
    k = np.c_[rng.random((17, 2))*20, np.full(17, 2)]; k[3,2] = 0
    sure = np.ones(17, bool); sure[9] = False
    marks = pose(k, COCO17, sure)
    solid, dashed = ([(m, np.isnan(m.x).sum()) for m in marks if m.kind == kind] for kind in ('-', '--'))
    limbs = [l for l in COCO17.limbs if 3 not in l]
    assert sum(n for _, n in dashed) == 1 and sum(n for _, n in solid) == len(limbs)-1
    assert sum(len(m.x) for m in marks if m.kind == 'o') == 15 and [len(m.x) for m in marks if m.kind == 'ring'] == [1]
    assert {m.colour for m in marks} == {draw.LEFT, draw.RIGHT, draw.MIDDLE}

@pytest.mark.skipif(not shutil.which('node'), reason='there is no node to run the script')
def test_the_script_blends_and_reads_as_numpy_does(tmp_path):
    w, h, c = Panels(), rng.random((6, 4)).astype(np.float32)*1.2, rng.integers(0, 256, (6, 4, 3), dtype=np.uint8)
    h[0,0] = np.nan
    p = view('a', image, [Layer('h', h, .8), Layer('u', h, .5, draw.UNCERTAINTY, 0, .5), Layer('s', h, .6, colours=c), Layer('read', h*2, 0)])
    w.show([[p]])
    tables = {k: list(v) for k, v in w.tables.items()}
    plain = json.dumps([w.rows[0][0], w.pictures, tables], default=list)
    xy = [[0, 0], [15.4, 23.4], [7.6, 8.], [-.5, -.5]]
    js = w._esm.replace('export default {render};', '')+f'''
class ImageData {{ constructor(w, h) {{ this.width = w; this.height = h; this.data = new Uint8ClampedArray(4*w*h); }} }}
globalThis.ImageData = ImageData;
const back = v => {{ if (Array.isArray(v)) v.forEach(back); else if (v && typeof v === 'object') {{
  if (Array.isArray(v.data)) {{ const b = new Uint8Array(v.data.length + 1); b.set(v.data, 1); v.data = new DataView(b.buffer, 1); }} else Object.values(v).forEach(back); }} return v; }};
const [p, pictures, tables] = back({plain});
for (const k in tables) {{ const b = Uint8Array.from(tables[k]); tables[k] = new DataView(b.buffer); }}
open(p);
console.log(JSON.stringify([[...blend(p, pictures, tables).data], {json.dumps(xy)}.map(q => read([{{p}}], 'crop', q))]));'''
    (tmp_path/'t.mjs').write_text(js)
    r = subprocess.run(['node', tmp_path/'t.mjs'], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    pixels, values = json.loads(r.stdout)
    want = draw.heat(draw.heat(draw.heat(image, h), h, None, .5, 0, .5, draw.UNCERTAINTY), h, None, .6, colours=c)
    got = np.array(pixels).reshape(24, 16, 4)
    assert abs(got[...,:3]-want.astype(int)).max() <= 1 and (got[...,3] == 255).all() and (got[...,:3] == want).mean() > .99
    for (a, b), v in zip(xy, values):
        i, j = int((b+.5)//4), int((a+.5)//4)
        assert set(v) == {'h', 'u', 's', 'read'} and (v['h'] is None if np.isnan(h[i,j]) else np.isclose(v['h'], h[i,j])) 
        if not np.isnan(h[i,j]): assert np.isclose(v['read'], 2*h[i,j])


# ---- base

@dataclass(frozen=True)
class ToyState(State):
    a:float = 1.
    b:tuple = ()
    c:str = 'x'
    d:bool = False

class Toy(Explorer):
    State, slider = ToyState, 'a'
    def own_controls(self): return dict(a=W.FloatSlider(min=0, max=5), b=W.Text(), c=W.Dropdown(options=('x', 'y')), d=W.Checkbox())
    def scene(self, s):
        if s.a == 4: raise InputError('four is refused')
        if s.a == 3: raise ZeroDivisionError
        return [[chart('c', [Mark('o', [s.a], [len(s.b)])], ('a', 0, 5), ('b', 0, 5))]], [('sum', s.a+sum(s.b), 'sum')]

@given(st.floats(0, 2), st.lists(st.integers(-9, 9) | st.floats(-9, 9).map(lambda v: round(v, 3)), max_size=4), st.sampled_from('xy'), st.booleans())
@settings(max_examples=20)
def test_state_survives_json_and_code(a, b, c, d):
    e = Toy(a=a, b=b, c=c, d=d)
    assert e.state == dict(a=a, b=tuple(b), c=c, d=d)
    assert Toy(**json.loads(json.dumps(e.state))).state == e.state == eval(e.code()).state
    assert {k: from_control(w.value, ()) if k == 'b' else w.value for k, w in e.controls.items()} == e.state

def test_state_is_refused_clipped_and_restored():
    e = Toy(a=2)
    for bad in dict(aa=1), dict(c='z'), dict(a='left'):
        with pytest.raises(InputError): e.set(**bad)
    with pytest.raises(InputError, match='four'): e.set(a=4)
    assert e.state['a'] == 2 == e.controls['a'].value == e.figures['sum']
    e.controls['a'].value = 4; assert e.status == 'four is refused' and e.state['a'] == 2 == e.controls['a'].value
    e.controls['b'].value = '1, two'; assert 'two' in e.status and e.state['b'] == ()
    with pytest.raises(ZeroDivisionError): e.controls['a'].value = 3
    e.controls['b'].value = '1, 2.5'; assert e.state['b'] == (1, 2.5) and e.figures['sum'] == 5.5 and e.status == ''
    e.set(a=99); assert e.state['a'] == 5 == e.controls['a'].value

def test_a_browsers_rounding_is_nobodys_wish():
    "It says what it makes of a value, and late: after the kernel has set another one."
    w, odd = Slider(min=-.5, max=.5, step=.01), .050000000000000044
    w.value = .05; w.set_state(dict(value=odd)); assert w.value == .05
    w.value = .05; w.value = .13; w.set_state(dict(value=odd)); assert w.value == .13
    w.set_state(dict(value=odd)); assert w.value == .05  # said again, it is a wish
    w.set_state(dict(value=.2)); w.set_state(dict(value=odd)); assert w.value == .05  # there and back by hand
    w.value = .13; w.set_state(dict(value=.25)); assert w.value == .25  # a number as it was is a wish at once
    r = RangeSlider(min=.5, max=2, step=.05)
    r.set_state(dict(value=[.7500000000000001, 1.25])); assert r.value == (.75, 1.25)

@given(st.integers(0, 1000), st.integers(-20, 20), st.integers(1, 40), st.integers(1, 60))
def test_sliders_keep_to_their_steps(v, lo, step, n):
    w = StepSlider(min=lo, max=lo+n*step, step=step)
    w.value = v
    assert abs(w.value-min(v, w.max)) == min(abs(s-min(v, w.max)) for s in range(lo, lo+n*step+1, step)) and (w.value-lo)%step == 0
    f = Slider(min=lo/100, max=(lo+n*step)/100, step=step/100)
    f.value = v/100
    assert f.value in (round(x/100, 10) for x in range(lo, lo+n*step+1, step))

def test_every_explorer_hears_its_buttons():
    e, heard = Toy(a=2), []
    e.step = heard.append
    find = lambda w, name: [c for c in walk(w) if f'sshpe-button-{name}' in c._dom_classes][0]
    find(e.widget, 'next').click(); find(e.widget, 'previous').click(); e.hear(dict(event='next'))
    assert heard == [1, -1, 1]
    e.set(a=3.5, c='y'); find(e.widget, 'reset').click(); assert e.state == vars(e.opened) == dict(vars(e.first), a=2.)

def walk(w): return [w, *(d for c in getattr(w, 'children', ()) for d in walk(c))]

def test_memory_keeps_the_latest():
    m, made = Memory(2), []
    get = lambda k: m.get_or(k, lambda: made.append(k) or k)
    for k in 'abacab': get(k)
    assert made == ['a', 'b', 'c', 'b'] and list(m) == ['a', 'b']

def test_texts_of_numbers():
    assert to_control(W.Text(), (1, 2.5)) == '1, 2.5' and from_control('1 2,5 ', ()) == (1, 2, 5) and from_control('', ()) == ()
    for bad in ('a', '1,inf', '1 nan'):
        with pytest.raises(InputError): from_control(bad, ())


# ---- all explorers

def test_every_field_has_a_control_that_can_be_found(any_):
    e = any_
    assert set(e.state)-set(e.controls) == {'n'}
    shown = walk(e.widget)
    for k, w in e.controls.items(): assert w in shown and f'sshpe-control-{k}' in w._dom_classes and w.description
    assert 'sshpe-explorer' in e.widget._dom_classes and e.panels in shown and e.upload in shown

def test_state_round_trips(any_, x, people):
    e = any_
    e.set(person=3, seed=2, joint='left_knee', opacity=.5)
    again = type(e)(x, people, **json.loads(json.dumps(e.state)))
    assert again.state == e.state and again.figures == e.figures and again.panels.rows == e.panels.rows and again.panels.pictures == e.panels.pictures
    copy = eval(e.code(), {type(e).__name__: type(e), 'people': people})
    assert copy.state == e.state

def test_pictures_are_pictures_and_change(any_):
    e = any_
    a, b = e.png(), e._repr_mimebundle_()
    assert picture(a).std() > 10 and base64.b64decode(b['image/png']) == a
    assert 'application/vnd.jupyter.widget-view+json' in b and b['text/plain'] == e.code()
    other = e.png(person=4, joint='nose')
    assert other != a and e.state['joint'] == 'max' and e.state['person'] == 0

def test_keys_and_strip_choose_people(any_):
    e = any_
    for event, who in (('next', 1), ('next', 2), ('previous', 1), ('previous', 0), ('previous', N-1), ('next', 0)):
        e.hear(dict(event=event)); assert e.state['person'] == who == e.controls['person'].value
    e.hear(dict(event='pick', panel='person-7', xy=(1, 1)))
    assert e.state['person'] == 7 and panel(e, 'person-7').chosen and not panel(e, 'person-6').chosen
    e.controls['person'].value = 4; assert panel(e, 'person-4').chosen
    assert [p.name for p in e.rows[0]] == [f'person-{i}' for i in range(N)]

def test_networks_are_asked_once(any_, monkeypatch):
    e, calls = any_, []
    f = type(e.x.teachers[0])
    real = f.forward
    monkeypatch.setattr(f, 'forward', lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    e.set(person=6); first = len(calls); e.set(person=5); e.set(person=6)
    assert first and len(calls) <= 2*first
    n = len(calls); latency(e, 5); e.set(joint='nose'); e.set(opacity=.1)
    assert len(calls) == n

def test_a_forward_pass_says_so(any_):
    e, said = any_, []
    e.panels.observe(lambda c: said.append(c['new']), 'status')
    e.set(person=8, seed=77)
    assert said and all('asking 2 networks' in s['text'] and 0 <= s['share'] < 1 for s in said[:-1]) and said[-1] == dict(text='', share=None)
    said.clear(); e.set(opacity=.2); assert said == []
    e.figure(person=9, seed=78); assert len(said) > 1 and said[-1] == dict(text='', share=None)

def test_latency_reports_and_leaves_the_state(any_):
    old, t = any_.state, latency(any_, 8)
    assert any_.state == old
    assert t['control'] == any_.slider and 0 < t['median'] <= t['p95'] < 2000


# ---- heatmaps

def truth_of(x, store, r, s, net):
    "Kept share, error, peak, entropy, and the layers, by loops."
    p, J = x.preset, range(len(x.skeleton))
    H, seen, _, xyv = asked(x, store, r, s['person'], s['seed'])
    P, maps = pooled(H[net], seen, s['pool']), {n: np.zeros_like(H[net,0]) for n in LAYERS}
    at = np.stack([peak(h.astype(float), p.decode) for h in P])
    maps['raw'], maps['pooled'], maps['uncertainty'] = H[net,0], P, deviations(H[net], seen)
    inside = ((at >= -.5) & (at <= np.array(p.map[::-1])-.5)).all(1)
    kept = (P.max((1, 2)) > s['tau']) & inside
    for j in J:
        if kept[j]: maps['thresholded'][j], maps['refined'][j] = P[j], gaussian(at[j], p.map, p.sigma)
        if xyv[j,2] > 0: maps['truth'][j] = gaussian((xyv[j,:2]+.5)/p.stride-.5, p.map, p.sigma)
    show = [j for j in J if kept[j] and s['joint'] in ('max', 'all', x.skeleton.joints[j])]
    off = [np.hypot(*((at[j]+.5)*p.stride-.5-xyv[j,:2])) for j in show if xyv[j,2] > 0]
    T = maps['refined' if s['refined'] else 'thresholded']
    mean = lambda f: np.mean([f(T[j]) for j in show]) if show else None
    mid = sorted(off)[(len(off)-1)//2] if off else None
    return dict(kept=kept.mean(), error=mid, peak=mean(np.max), entropy=mean(bits)), maps

SETTINGS = [dict(), dict(person=4), dict(seed=3), dict(network='student2'), dict(joint='left_wrist'), dict(joint='all'), dict(tau=.3), dict(tau=.9),
            dict(tau=1.2), dict(views=1), dict(views=5), dict(kind='weak', views=4), dict(pool='mean'), dict(refined=False),
            dict(refined=False, joint='right_knee', pool='mean', views=4, tau=.2), dict(opacity=.3), dict(layers=('raw', 'truth'))]

@pytest.mark.parametrize('changes', SETTINGS, ids=str)
def test_heatmap_figures(heat, x, changes):
    e = heat
    for k, v in changes.items(): e.controls[k].value = v
    s, net = e.state, e.names().index(e.state['network'])
    assert {k: s[k] for k in changes} == changes
    weak = s['views'] if s['kind'] == 'weak' else 1
    r = replace(x.recipe, n_weak=weak, K=s['views']-weak)
    want, maps = truth_of(x, e.store(e._state), r, s, net)
    for k, v in want.items(): assert e.figures[k] == pytest.approx(v, abs=2e-3) if v is not None else e.figures[k] is None, k
    assert e.figures['share'] == pytest.approx((maps['pooled'].max((1, 2)) > s['tau']).mean())
    assert {p.name for row in e.rows for p in row} & set(LAYERS) == set(s['layers'])
    for p in (panel(e, n) for n in s['layers']):
        (l,) = p.layers
        m = maps[p.name]
        want = m[x.skeleton.joints.index(s['joint'])] if s['joint'] in x.skeleton.joints else m.max(0)
        assert np.allclose(l.values, want, atol=2e-3) and l.opacity == (.4 if s['joint'] == 'all' else 1)*s['opacity'] and (l.colours is not None) == (s['joint'] == 'all')
    assert [l.name for l in panel(e, 'taught').layers] == list(LAYERS) and not any(l.opacity for l in panel(e, 'taught').layers)

def test_histogram_counts_everybody(heat, x):
    e = heat
    e.controls['everyone'].value = True
    store, r = e.store(e._state), x.recipe
    answers = [asked(x, store, r, i) for i in range(N)]
    peaks = np.concatenate([pooled(H[0], seen, r.pool).max((1, 2)) for H, seen, *_ in answers])
    for tau in (.2, .7, .95):
        e.controls['tau'].value = tau
        bars = {m.label: m for m in panel(e, 'histogram').marks}
        assert e.figures['share'] == pytest.approx((peaks > tau).mean())
        assert bars['dropped'].y.sum() == len(peaks) and bars['kept'].y.sum() == (peaks > tau).sum() and (bars['τ'].x == np.float32(tau)).all()
    e.hear(dict(event='pick', panel='histogram', xy=(.456, 3)))
    assert e.state['tau'] == .46 == e.controls['tau'].value

@given(st.integers(2, 9))
def test_entropy_of_known_maps(n):
    flat = torch.ones(n, n); point = torch.zeros(n, n); point[1,0] = .3
    assert entropy(flat).item() == pytest.approx(2*np.log2(n), abs=1e-4) and entropy(point).item() == 0 and entropy(-flat).item() == 0


# ---- views

@pytest.mark.parametrize('changes', [dict(), dict(person=2), dict(seed=5), dict(network='student2'), dict(views=3), dict(pool='mean'), dict(rotation=(-90., 90.)),
                                     dict(rotation=(20., 20.)), dict(scale=(.6, 1.8)), dict(mirrored=1.), dict(mirrored=0.), dict(seeds='0, 4, 0, 9')], ids=str)
def test_views_figures(views, x, changes):
    e, p, flip = views, x.preset, x.skeleton.flip
    for k, v in changes.items(): e.controls[k].value = v
    s, net = e.state, e.names().index(e.state['network'])
    k = e.looks(e._state, s['views'], 1, e.strong(e._state), e.all_seeds(e._state))
    facts = [view_facts(M) for M in k.M[0]]
    assert facts[0] == (0, 1, False)
    for turn, size, mirror in facts[1:]:
        assert s['rotation'][0]-1e-3 <= turn <= s['rotation'][1]+1e-3 and s['scale'][0]-1e-4 <= size <= s['scale'][1]+1e-4
        assert {0.: not mirror, 1.: mirror}.get(s['mirrored'], True)
    best = []
    for v, ((turn, size, mirror), own) in enumerate(zip(facts, k.own[net].numpy().astype(float))):
        M = matrix3(turn, size, mirror, p.size)
        assert np.allclose(M[:2], k.M[0,v], atol=1e-3)
        back = moved(own, np.linalg.inv(M), p.stride, flip) if v else own
        seen = k.seen[0,v,0].numpy()
        assert abs(np.where(seen, back-k.H[net,0,v].numpy(), 0)).max() < 2e-3
        best.append(np.where(seen, k.H[net,0,v].numpy(), -np.inf).max((1, 2)))
    won = np.argmax(best, 0)
    chart_ = [m for m in panel(e, 'won').marks]
    assert len(chart_) == s['views'] and np.allclose([m.y for m in chart_], best, atol=1e-5)
    assert [m.label for m in chart_] == [f'view {v}: {(won == v).sum()} won' for v in range(s['views'])]
    assert e.figures['strong'] == pytest.approx((won > 0).mean())
    P = pooled(k.H[net,0].numpy(), k.seen[0,:,0].numpy(), s['pool'])
    xyv = e.store(e._state).keypoints[s['person']]
    error = lambda H: sorted(np.hypot(*((peak(H[j].astype(float), p.decode)+.5)*p.stride-.5-xyv[j,:2])) for j in range(17) if xyv[j,2] > 0)
    for name, H in (('upright', k.own[net,0].numpy()), ('pooled', P)):
        d = error(H); assert e.figures[name] == pytest.approx(d[(len(d)-1)//2], abs=2e-2)
    assert np.allclose(panel(e, 'pool').layers[0].values, P.max(0), atol=1e-5)

def test_first_ranges_are_the_recipes(views, x):
    e = views
    k = e.looks(e._state, 5, 1, e.strong(e._state))
    H, seen, M, _ = asked(x, e.store(e._state), replace(x.recipe, K=4), 0)
    assert torch.allclose(k.M[0], M, atol=1e-5) and np.allclose(k.H[:,0].numpy(), H, atol=1e-4)

def test_a_click_draws_one_view_anew(views):
    e = views
    before = [p.picture for p in e.rows[1]]
    e.hear(dict(event='pick', panel='view-2', xy=(3, 3)))
    after = [p.picture for p in e.rows[1]]
    assert [not np.array_equal(a, b) for a, b in zip(before, after)] == [v == 2 for v in range(5)] and e.state['seeds'] == (0, 0, 1, 0, 0)
    e.hear(dict(event='pick', panel='view-0', xy=(3, 3))); assert e.state['seeds'] == (0, 0, 1, 0, 0)

def test_unseen_parts_are_dark(views):
    e = views
    k = e.looks(e._state, 5, 1, e.strong(e._state), e.all_seeds(e._state))
    for v in range(5):
        seen = k.seen[0,v,0].numpy().repeat(4, 0).repeat(4, 1)[...,None]
        assert (panel(e, f'back-{v}').picture == np.where(seen, k.images[0], (k.images[0]*.3).astype(np.uint8))).all()


# ---- selection

def opinions(x, store, i, seed=0):
    "Both students' pools, uncertainty maps and peaks in crop pixels, by loops."
    r, p = x.recipe, x.preset
    H, seen, _, xyv = asked(x, store, r, i, seed)
    P, U = [pooled(h, seen, r.pool) for h in H], [deviations(h, seen) for h in H]
    xy = np.array([[(peak(h.astype(float), p.decode)+.5)*p.stride-.5 for h in q] for q in P])
    return P, U, xy, np.where(xyv[:,2] > 0, np.hypot(*np.moveaxis(xy-xyv[:,:2], -1, 0)), np.nan), H, xyv

@pytest.fixture(scope='module')
def all_opinions(x, both): return [opinions(x, both.store(both._state), i) for i in range(N)]

@pytest.mark.parametrize('changes', [dict(), dict(person=6), dict(margin=.1), dict(margin=-.5), dict(margin=.5), dict(margin=-.03, joint='nose'), dict(opacity=.2)], ids=str)
def test_selection_figures(both, all_opinions, changes):
    e = both
    for k, v in changes.items(): e.controls[k].value = v
    s = e.state
    P, U, xy, error, *_ = all_opinions[s['person']]
    u = np.array([a.max((1, 2)) for a in U])
    mine = u < u[::-1]-s['margin']
    assert [e.figures['own1'], e.figures['own2']] == pytest.approx(mine.mean(1))
    for n in (0, 1):
        dots, crosses = panel(e, f'taken-{n+1}').marks
        want = np.where(mine[n][:,None], xy[n], xy[1-n])
        assert np.allclose(np.c_[dots.x, dots.y], want[mine[n]], atol=.02) and np.allclose(np.c_[crosses.x, crosses.y], want[~mine[n]], atol=.02)
        pick = lambda m: m[COCO17.joints.index(s['joint'])] if s['joint'] != 'max' else m.max(0)
        assert np.allclose(panel(e, f'pool-{n+1}').layers[0].values, pick(P[n]), atol=1e-4)
        assert np.allclose(panel(e, f'doubt-{n+1}').layers[0].values, pick(U[n]), atol=1e-4)
    us, es = (np.array([f(o) for o in all_opinions]).transpose(1, 0, 2) for f in (lambda o: [a.max((1, 2)) for a in o[1]], lambda o: o[3]))
    own = us < us[::-1]-s['margin']
    assert e.figures['everyone'] == pytest.approx(own.mean())
    for k, v in dict(own=es, taken=np.where(own, es, es[::-1]), best=es.min(0)).items(): assert e.figures[k] == pytest.approx(np.nanmedian(v), abs=.02)
    a, b, me = panel(e, 'scatter').marks[:3]
    assert np.allclose(a.x, us[0].ravel(), atol=1e-4) and np.allclose(np.nan_to_num(b.y), np.nan_to_num(es[1].ravel()), atol=.02) and len(me.x) == 34

def test_sorting(both, all_opinions, x):
    e, p = both, x.preset
    def loss(o):
        t = [gaussian((k[:2]+.5)/p.stride-.5, p.map, p.sigma) for k in o[5]]
        return np.mean([np.mean([((h[0,j]-t[j])**2).mean() for j in range(17) if o[5][j,2] > 0]) for h in o[4]])
    keys = dict(data=lambda o: 0, loss=loss, uncertainty=lambda o: np.mean([a.max((1, 2)).mean() for a in o[1]]),
                disagreement=lambda o: np.hypot(*(o[2][0]-o[2][1]).T).mean())
    assert set(keys) == set(PEOPLE_ORDERS)
    for k, f in keys.items():
        e.controls['sort'].value = k
        order = sorted(range(N), key=lambda i: -f(all_opinions[i]))
        assert [int(q.name[7:]) for q in e.rows[0]] == order and e.order(e._state).tolist() == order
    e.set(person=order[0]); e.hear(dict(event='next')); assert e.state['person'] == order[1]

def test_brush_filters_the_strip(both, all_opinions):
    e = both
    box = [.1, 8., .25, 60.]
    want = [i for i, o in enumerate(all_opinions) if any(.1 <= u <= .25 and 8 <= d <= 60 for s in (0, 1) for u, d in zip(o[1][s].max((1, 2)), o[3][s]))]
    assert 0 < len(want)
    e.hear(dict(event='brush', panel='scatter', box=box))
    assert e.state['brush'] == tuple(box) and [int(q.name[7:]) for q in e.rows[0]] == want and e.state['person'] in want
    none = [.49, 900., .5, 901.]
    e.controls['brush'].value = ', '.join(map(str, none)); assert e.rows[0] == []
    e.hear(dict(event='next')); figure(e.rows)
    e.hear(dict(event='pick', panel='scatter', xy=(.1, 3.))); assert e.state['brush'] == () and len(e.rows[0]) == N

def test_choice_of_two(): 
    v, u = rng.random((2, 3, 5)), rng.random((2, 3, 5))
    for m in (-.2, 0, .3):
        got, mine = taken(v, u, m)
        for s in (0, 1):
            for i in np.ndindex(3, 5):
                own = u[(s, *i)] < u[(1-s, *i)]-m
                assert mine[(s, *i)] == own and got[(s, *i)] == v[(s if own else 1-s, *i)]

def test_selection_needs_two_networks(people):
    with pytest.raises(InputError, match='two'): SelectionExplorer('supervised', people)


# ---- people, photos, data sets

def test_names_of_networks_and_people(x, people, tmp_path):
    assert networks(x) is x and networks(str(x.where)).recipe == x.recipe
    for bad in 'denoise-selct', str(tmp_path):
        with pytest.raises(InputError): networks(bad)
    assert len(store_of(people, x, 3)) == 3 == len(store_of(store_of(people, x), x, 3))
    with pytest.raises(InputError): store_of('pepole:val', x)
    for name in 'supervised', 'pose-mum-plus':
        e = HeatmapExplorer(name, people[:2])
        assert e.figures['kept'] is not None and e.controls['network'].options == tuple(e.names()) and e.state['views'] == e.x.recipe.n_pooled
    assert [n[:7] for n in e.names()] == ['teacher']*len(e.names())

def test_crowd_is_everyone_in_any_batch(x, people):
    store = store_of(people, x)
    a, b = (crowd(x, store, x.recipe, 1, batch=n) for n in (3, 10))
    for k in vars(a): assert np.allclose(getattr(a, k), getattr(b, k), atol=1e-2, equal_nan=True)
    assert a.peak.shape == (2, N, 17) and a.loss.shape == a.height.shape == (2, N, 17) and a.xy.shape == a.taught.shape == (2, N, 17, 2) and a.apart.shape == (N, 17)
    assert (np.isnan(a.error[0]) == (store.keypoints[...,2] == 0)).all()

@pytest.fixture(scope='module')
def photo(people, tmp_path_factory):
    f = tmp_path_factory.mktemp('photo')/'holiday.png'
    Image.open(Path(people.root)/people.files[2]).convert('RGB').save(f)
    return f

@pytest.mark.parametrize('E', [HeatmapExplorer, ViewsExplorer, SelectionExplorer])
def test_a_photo_and_its_box(E, x, photo, people):
    box = people.boxes[2].round().astype(int).tolist()
    e = E(x, str(photo), box=box)
    assert e.state['photo'] == str(photo) and e.store(e._state).size == x.preset.size
    assert [p.name for p in e.rows[0]] == ['person-0'] and e.rows[1][-1].name == 'photo'
    own = build_store(whole_photos('p', photo.parent, [photo.name], [box]), x.preset.size, 2.)
    assert np.array_equal(e.store(e._state).canvases[0], own.canvases[0])
    W_, H_ = Image.open(photo).size
    p = panel(e, 'photo')
    assert p.x == (-.5, W_-.5) and p.y == (H_-.5, -.5) and (p.marks[0].x.min(), p.marks[0].x.max()) == (box[0], box[0]+box[2])
    assert e.figures.get('error') is None
    again = eval(e.code(), {E.__name__: E, 'people': people}); assert again.state == e.state
    before = panel(e, 'person-0').picture
    assert 'only seen rendered people' in e.said[0][2] and not any('truth' in t or '–' in t for _, _, t in e.said)
    e.hear(dict(event='brush', panel='photo', box=(5.2, 6.7, 60.1, 90.9)))
    assert e.state['box'] == (*box, 5, 7, 55, 84) and e.state['person'] == 1 and [p.name for p in e.rows[0]] == ['person-0', 'person-1']
    assert (panel(e, 'person-0').picture == before).all() and (panel(e, 'person-1').picture != before).any()
    e.hear(dict(event='pick', panel='photo', xy=(box[0]+box[2]-1, box[1]+box[3]-1))); assert e.state['person'] == 0
    e.hear(dict(event='undo')); e.hear(dict(event='undo')); assert e.state['box'] == tuple(box) and len(e.rows[0]) == 1
    e.controls['box'].value = '1 2 3'; assert 'x, y, width and height' in e.status and e.state['box'] == tuple(box)
    e.controls['box'].value = f'{W_+5}, 0, 10, 10'; assert 'outside' in e.status
    e.controls['photo'].value = str(photo)+'.jpg'; assert 'no photo' in e.status and e.state['photo'] == str(photo)

def test_a_pasted_picture(x, people, photo):
    e, bytes_ = HeatmapExplorer(x, people, n=2), photo.read_bytes()
    e.hear(dict(event='paste', kind='image/png'), [memoryview(bytes_)])
    seen = Path(e.state['photo'])
    assert seen.read_bytes() == bytes_ and seen.suffix == '.png' and seen.name.startswith('pasted-')
    e.hear(dict(event='paste', kind='image/heic'), [b'hello']); assert 'not a picture' in e.status and e.state['photo'] == str(seen)
    other = Image.new('RGB', (40, 60), 'red'); b = io.BytesIO(); other.save(b, 'PNG')
    e.hear(dict(event='paste', kind='image/png'), [b.getvalue()]); assert e.state['photo'] != str(seen)

def test_an_upload(x, people, photo):
    e = HeatmapExplorer(x, people, person=4)
    file = lambda name, data: dict(name=name, type='image/png', size=len(data), content=memoryview(data), last_modified=__import__('datetime').datetime.now())
    e.upload.value = (file('../me.png', photo.read_bytes()),)
    kept = Path(os.environ['SSHPE_CACHE'])/'photos/me.png'
    assert kept.read_bytes() == photo.read_bytes() and e.state['photo'] == str(kept) and e.state['person'] == 0 and e.state['box'] == ()
    e.upload.value = (file('notes.txt', b'hello'),); assert 'not a picture' in e.status and e.state['photo'] == str(kept)
    e.upload.value = (file('broken.png', b'hello'),); assert 'not a whole picture' in e.status and e.state['photo'] == str(kept)
    e.controls['photo'].value = ''; assert e.state['photo'] == '' and len(e.rows[0]) == N

PHOTOS = os.environ.get('SSHPE_PHOTOS')
@pytest.mark.skipif(not PHOTOS, reason='SSHPE_PHOTOS does not point at a folder with real photos')
@pytest.mark.parametrize('E', [HeatmapExplorer, ViewsExplorer, SelectionExplorer])
@pytest.mark.parametrize('line', ['coco:val={}/coco_mini', 'lspet:val={}/lspet'])
def test_real_people(E, x, line):
    e = E(x, line.format(PHOTOS), n=6, person=2)
    assert len(e.store(e._state)) == 6 and len(e.rows[0]) == 6
    if E is HeatmapExplorer: assert picture(e.png()).std() > 10
    assert eval(e.code(), {E.__name__: E}).figures == e.figures


# ---- a paper's size

def test_a_paper_sized_network(people):
    from sshpe.models.posenet import build
    from sshpe.ssl.recipe import PAPER
    from sshpe.runs.result import Result
    x = networks('denoise-select')
    p = replace(PAPER, weights='', width=32)
    nets = {k: build(p.backbone, 17, p.width, seed=s, init='he').eval().requires_grad_(False) for s, k in enumerate(x.networks)}
    e = HeatmapExplorer(Result(Path('untrained'), replace(x.recipe, K=4), p, x.skeleton, nets), people[:2])
    assert e.state['views'] == 5 and panel(e, 'raw').picture.shape == (256, 192, 3) and panel(e, 'pooled').layers[0].values.shape == (64, 48)
    assert latency(e, 5)['median'] < 2000


# ---- stored pages

@pytest.mark.parametrize('path', sorted((ROOT/'nbs/explore').glob('*.ipynb')), ids=lambda p: p.stem)
def test_stored_pages_show_pictures_without_a_kernel(path):
    outs = [o for c in nbformat.read(path, 4).cells for o in c.get('outputs', ())]
    kinds = {k for o in outs for k in o.get('data', {})}
    assert kinds <= {'image/png', 'text/plain', 'text/html', 'text/markdown'} and 'image/png' in kinds
