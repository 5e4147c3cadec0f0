"What makes an explorer easy to look at: where panels lie, undo, files to take along, tooltips, outlines, the joint that it opens on."
import csv, io, json, os, re, shutil, subprocess, zlib
from base64 import b64decode
from dataclasses import dataclass, replace
from xml.etree import ElementTree

import ipywidgets as W, numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.explore.base import about, Explorer, Slider, State
from sshpe.explore.compare import Compare, DIFFERENCE_RGB
from sshpe.explore.heatmaps import HeatmapExplorer
from sshpe.explore.label import LabelExplorer
from sshpe.explore.panels import blend, chart, EXPLORE_FILES, lines, Mark, Panel, place, scale, view
from sshpe.explore.pages import explorer
from sshpe.explore.people import photo_boxes, doubted, networks, outlines
from sshpe.explore.selection import joints_in, SelectionExplorer
from sshpe.explore.teachers import TeachersExplorer
from sshpe.pose import draw
from sshpe.pose.skeleton import COCO17
from helpers import gaussian

node = pytest.mark.skipif(not shutil.which('node'), reason='there is no node to run the script')


# ---- where panels lie

picture = lambda name, w=130, h=195, grow=True: Panel(name, (0, 1), (0, 1), w, h, picture=np.zeros((3, 2, 3), np.uint8), grow=grow)
graph = lambda name, w=320, h=170: chart(name, [Mark('-', [0, 1], [0, 1])], ('x', 0, 1), ('y', 0, 1), w, h)
strip = [picture(f's{i}', 44, 66, False) for i in range(12)]
SCENES = dict(one_row=[strip, [picture(f'p{i}') for i in range(6)], [graph('a'), scale()]],
              grid=[strip, *[[picture(f'{r}{c}', 76, 114) for c in range(5)] for r in range(3)], [picture('pool'), graph('a', 560)]],
              charts=[[graph('a'), graph('b')], [graph('c', 780)]], alone=[[picture('p', 256, 384)]], both=[[picture('p', 256, 384), graph('a', 560)]],
              films=[strip, *[[picture(f'{r}{c}', 84, 126) for c in range(11)] for r in range(3)], [*[graph(k, 250, 130) for k in 'abc'], graph('d', 330), scale()]])

def arranged(rows, W_, H_):
    "What the page's script makes of a scene."
    plain = [[dict(name=p.name, title=p.title, width=p.width, height=p.height, axes=list(p.axes), picture='x' if p.picture is not None else None, grow=p.grow, beside=p.beside) for p in row] for row in rows]
    js = (EXPLORE_FILES/'places.js').read_text()+f'console.log(JSON.stringify(arrange({json.dumps(plain)}, {W_}, {H_})));'
    r = subprocess.run(['node', '--input-type=module', '-e', js], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)

@node
@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('W_, H_', [(1080, 700), (1640, 1000), (760, 560)])
def test_panels_fill_the_room_and_never_cover_each_other(scene, W_, H_):
    rows, at = SCENES[scene], arranged(SCENES[scene], W_, H_)
    panels, taken = [p for row in rows for p in row], np.zeros((H_+1, W_+1), int)
    for p in panels:
        b = at[p.name]
        assert 0 <= b['x'] and b['x']+b['w'] <= W_+1 and 0 <= b['y'] and b['y']+b['h'] <= H_+1, p.name
        taken[b['y']:b['y']+b['h'],b['x']:b['x']+b['w']] += 1
        if not p.grow: assert (b['w'], b['h']) == (p.width, p.height)
        elif p.picture is not None: assert b['w']/b['h'] == pytest.approx(p.width/p.height, rel=.03)
    assert taken.max() == 1
    assert (taken > 0).mean() > {'alone': .3, 'grid': .4, 'films': .3}.get(scene, .45)

@node
def test_more_room_makes_larger_pictures():
    area = lambda at: sum(b['w']*b['h'] for k, b in at.items() if k.startswith('p'))
    small, large = (area(arranged(SCENES['one_row'], *size)) for size in ((1080, 700), (1640, 1000)))
    assert large > 1.8*small

SPLIT = [[picture(f't{r}{c}', 240, 180) for c in range(2)] for r in range(3)], [[replace(picture('p'), beside=True), replace(picture('q'), beside=True)], [replace(graph('a'), beside=True)]]

@node
@pytest.mark.parametrize('W_, H_, least', [(1080, 700, .75), (1640, 1000, .75), (1300, 1300, .5)])
def test_what_lies_beside_shares_the_room(W_, H_, least):
    left, right = SPLIT
    at, taken = arranged(left+right, W_, H_), np.zeros((H_+1, W_+1), int)
    for b in at.values(): taken[b['y']:b['y']+b['h'],b['x']:b['x']+b['w']] += 1
    ends = lambda rows, of: [of(at[p.name]) for row in rows for p in row]
    assert len(at) == 9 and taken.max() == 1 and (taken > 0).mean() > least
    assert max(ends(left, lambda b: b['x']+b['w'])) <= min(ends(right, lambda b: b['x'])) and max(ends(left+right, lambda b: b['x']+b['w'])) <= W_+1
    assert max(ends(left+right, lambda b: b['y']+b['h'])) <= H_+1

def test_paper_has_a_right_side_too():
    left, right = SPLIT
    at, (width, height) = place(left+right)
    assert max(at[p.name][0]+p.width for row in left for p in row) < min(at[p.name][0] for row in right for p in row)
    assert min(at[p.name][1] for row in right for p in row) == at['t00'][1] and place(left)[1][0] < width and height == place(left)[1][1]

def test_paper_has_an_edge():
    rows = [[graph(str(i), 390) for i in range(7)], [picture('p')]]
    assert [[p.name for p in row] for row in lines(rows)] == [['0', '1'], ['2', '3'], ['4', '5'], ['6'], ['p']]
    assert place(rows)[1][0] <= 1280


# ---- a toy

@dataclass(frozen=True)
class DialState(State):
    "A dial."
    a:float = 1. # how far the dial is turned
    c:str = 'x' # one of two letters

@dataclass(frozen=True)
class LampState(DialState):
    "A dial with a lamp."
    on:bool = False # is the lamp lit?

class Lamp(Explorer):
    State, slider, GROUPS, FOLDED, MEANS = LampState, 'a', {'the dial': ('a',)}, ('on',), dict(sum='everything')
    def own_controls(self): return dict(a=Slider(min=0, max=5, step=.5), c=W.Dropdown(options=('x', 'y')), on=W.Checkbox())
    def scene(self, s):
        if s.a == 4: raise InputError('four is refused')
        return [[chart('c', [Mark('o', [s.a, 2], [1, np.nan], label='here')], ('a', 0, 5), ('b', 0, 5))]], [('sum', s.a, f'sum {s.a}'), ('none', None, '-')]

def hear(e, *events):
    for k in events: e.hear(dict(event=k))
    return e

@given(st.lists(st.sampled_from(['undo', 'redo', ('c', 'y'), ('c', 'x'), ('on', True), ('on', False)]), max_size=12))
@settings(max_examples=40)
def test_undo_is_a_stack(does):
    "Against two lists of states."
    e = Lamp(); past, now, future = [], e._state, []
    for d in does:
        if d == 'undo':
            hear(e, 'undo')
            if past: future.append(now); now = past.pop()
        elif d == 'redo':
            hear(e, 'redo')
            if future: past.append(now); now = future.pop()
        else:
            e.set(**dict([d]))
            if (new := replace(now, **dict([d]))) != now: past.append(now); now, future = new, []
        assert e._state == now

def test_a_slider_is_undone_in_one_go(monkeypatch):
    e, clock = Lamp(), [0.]
    monkeypatch.setattr('sshpe.explore.base.time.monotonic', lambda: clock[0])
    for v in (2, 2.5, 3): e.controls['a'].value = v; clock[0] += .4
    clock[0] += 5; e.controls['a'].value = 3.5
    assert hear(e, 'undo').state['a'] == 3 and hear(e, 'undo').state['a'] == 1
    hear(e, 'undo'); assert e.status == 'there is nothing to undo.'
    assert hear(e, 'redo', 'redo').state['a'] == 3.5
    hear(e, 'redo'); assert e.status == 'there is nothing to do again.'
    e.controls['a'].value = 4
    assert e.state['a'] == 3.5 and hear(e, 'undo').state['a'] == 3, 'what was refused is no step'

def test_keys_turn_controls():
    e = Lamp(a=1)
    assert hear(e, 'more', 'more').state['a'] == 2 and hear(e, 'less').state['a'] == 1.5
    assert hear(e, 'less', 'less', 'less', 'less').state['a'] == 0
    before = e.state
    assert hear(e, 'joint', 'joint back').state == before, 'there is no joint here'

def test_numbers_to_take_along():
    rows = list(csv.reader(io.StringIO(Lamp(a=1.5).csv())))
    assert rows == [['panel', 'series', 'x', 'y'], ['figures', 'sum', '', '1.5'], ['figures', 'none', '', ''], ['c', 'here', '1.5', '1'], ['c', 'here', '2', 'nan']]

def test_files_go_to_the_browser(monkeypatch):
    e, sent = Lamp(), []
    monkeypatch.setattr(e.panels, 'send', lambda content, buffers=None: sent.append((content, buffers)))
    hear(e, 'png', 'csv', 'svg'); e.hear(dict(event='svg', panel='c')); e.hear(dict(event='png', panel='d'))
    assert [(c['file'], c['kind']) for c, _ in sent] == [('lamp.png', 'image/png'), ('lamp.csv', 'text/csv'), ('lamp.svg', 'image/svg+xml'), ('lamp-c.svg', 'image/svg+xml')]
    assert "no panel 'd'" in e.status
    assert sent[2][1][0] == e.svg() and sent[3][1][0] == e.svg('c')
    assert sent[0][1][0].startswith(b'\x89PNG') and sent[1][1][0].decode() == e.csv()

SVG = {'s': 'http://www.w3.org/2000/svg', 'x': 'http://www.w3.org/1999/xlink'}

def embedded(svg): # bytes -> pictures (H,W,3) uint8
    links = [n.get(f'{{{SVG["x"]}}}href') for n in ElementTree.fromstring(svg).iterfind('.//s:image', SVG)]
    return [np.array(Image.open(io.BytesIO(b64decode(link.partition(',')[2]))).convert('RGB')) for link in links]

def words(svg): return [''.join(n.itertext()) for n in ElementTree.fromstring(svg).iterfind('.//s:text', SVG)]

def test_vectors_to_take_along(people):
    "All pictures as they are shown, marks as paths in their colours, titles and figures as text; twice the same."
    e = HeatmapExplorer('denoise-select', people, joint='all', person=1)
    svg, panels = e.svg(), [p for row in e.rows for p in row]
    shown = [blend(p) for p in panels if p.picture is not None]
    key = lambda im: (im.shape, zlib.crc32(np.ascontiguousarray(im).tobytes()))
    assert sorted(map(key, embedded(svg))) == sorted(map(key, shown)) and svg == e.svg()
    said = words(svg)
    assert {p.title for p in panels if p.title} <= set(said) and all(text in said[-1] for _, _, text in e.said)
    taught = next(p for p in panels if p.name == 'taught')
    one = e.svg('taught')
    assert [key(im) for im in embedded(one)] == [key(blend(taught))] and words(one) == [taught.title]
    strokes = {c.lower() for n in ElementTree.fromstring(one).iter() for c in re.findall(r'(?:stroke|fill): (#\w{6})', n.get('style', ''))}
    assert {m.colour.lower() for m in taught.marks} <= strokes
    with pytest.raises(InputError, match="did you mean 'taught'"): e.svg('tought')

def walk(w): return [w, *(d for c in getattr(w, 'children', ()) for d in walk(c))]

def test_controls_stand_in_groups_and_say_what_they_are():
    e = Lamp()
    assert about(LampState) == dict(a='how far the dial is turned', c='one of two letters', on='is the lamp lit?')
    assert {k: w.tooltip for k, w in e.controls.items()} == about(LampState)
    parts = [w for w in walk(e.widget) if 'sshpe-part' in w._dom_classes]
    assert 'the dial' in parts[0].children[0].value and parts[0].children[1:] == (e.controls['a'],)
    folded = next(w for w in walk(e.widget) if isinstance(w, W.Accordion))
    assert e.controls['on'] in walk(folded) and folded.selected_index is None
    assert e.panels.figures[0] == ['sum', 1., 'sum 1.0', 'everything'] and e.panels.figures[1][3] == ''


# ---- explorers

@pytest.fixture(scope='module')
def people(tmp_path_factory):
    os.environ['SSHPE_CACHE'] = str(tmp_path_factory.mktemp('store'))
    return load('people', split='val')[:6]

def test_every_control_of_every_explorer_says_what_it_is(people):
    x = networks('denoise-select')
    for e in (HeatmapExplorer(x, people), SelectionExplorer(x, people), LabelExplorer(people), TeachersExplorer()):
        assert [k for k, w in e.controls.items() if not w.tooltip] == []
        named = [k for names in e.GROUPS.values() for k in names]
        assert set(named) | set(e.FOLDED) <= set(e.controls) and len(named) == len({*named})

def test_an_explorer_opens_on_a_joint(people):
    "The one about which the views differ most, unless somebody asks for another."
    e = HeatmapExplorer('denoise-select', people, person=2)
    U = e.judged(e._state)[1]['uncertainty'].numpy()
    assert e.state['joint'] == COCO17.joints[U.reshape(17, -1).max(1).argmax()]
    assert HeatmapExplorer('denoise-select', people, joint='all').state['joint'] == 'all'
    assert hear(e.set(joint='nose', person=0), 'reset').state['person'] == 2
    again = dict(HeatmapExplorer=HeatmapExplorer, people=people)
    for joint in ('max', 'nose'): assert eval(e.set(joint=joint, person=1).code(), again).state == e.state

def test_the_doubted_joint():
    U, P = np.zeros((17, 4, 4)), np.ones((17, 4, 4))
    P[5] = .2; assert doubted(U, P, COCO17) == COCO17.joints[5]
    U[9,1,1] = .3; assert doubted(U, P, COCO17) == COCO17.joints[9]

def test_outlines_are_half_as_high_as_the_peak():
    "Around a Gaussian of σ heatmap pixels lies a circle of radius σ√(2 ln 2)."
    H = np.zeros((17, 48, 32)); H[3] = gaussian((16., 20.), (48, 32), 3.); H[4] = .01
    m, = outlines(H, 'all', COCO17, (192, 128))
    r = np.hypot((m.x+.5)/4-.5-16, (m.y+.5)/4-.5-20)
    assert np.nanmax(abs(r-3*np.sqrt(2*np.log(2)))) < .15 and m.colour == draw.side_colours(COCO17)[3]
    assert outlines(H, 'nose', COCO17, (192, 128)) == []

def test_a_rectangle_holds_people_and_joints():
    class C: u, error = np.array([[[.1, .2], [.3, .1]], [[.4, .2], [.3, .3]]]), np.array([[[5., 30], [9, 40]], [[1, 1], [1, np.nan]]])
    want = [(i, 'ab'[j]) for i in (1, 0) for j in (0, 1) if any(.05 <= C.u[s,i,j] <= .25 and 20 <= C.error[s,i,j] <= 50 for s in (0, 1))]
    assert joints_in(C, (.05, 20, .25, 50), [1, 0], 'ab') == want == [(1, 'b'), (0, 'b')] and joints_in(C, (), [0, 1], 'ab') == []

def test_keys_go_from_joint_to_joint_in_the_rectangle(people):
    e = SelectionExplorer('denoise-select', people)
    e.hear(dict(event='brush', panel='scatter', box=(0, 5, .5, 99)))
    pairs = e.pairs(e._state)
    assert len(pairs) > 3 and (e.state['person'], e.state['joint']) == pairs[0]
    hear(e, 'next'); assert (e.state['person'], e.state['joint']) == pairs[1]
    hear(e, 'previous', 'previous'); assert (e.state['person'], e.state['joint']) == pairs[-1]

def test_boxes():
    assert photo_boxes(()) == [] and photo_boxes((1, 2, 3, 4, 5, 6, 7, 8)) == [(1, 2, 3, 4), (5, 6, 7, 8)]
    with pytest.raises(InputError, match='x, y, width and height'): photo_boxes((1, 2, 3))

def test_a_click_can_be_taken_back(people):
    e = LabelExplorer(people)
    assert (e.people.keypoints[e.state['person'],:,2] == 2).sum() == (e.people.keypoints[...,2] == 2).sum(1).max()
    click = lambda xy: e.hear(dict(event='pick', panel='person', xy=xy))
    click((10., 20.)); assert 'one more click' in e.said[1][2]
    click((30., 40.)); hear(e, 'undo'); assert e.figures['joints'] == 1 and e.state['marks'] == (10., 20.)
    click((5., 6.)); assert e.state['marks'] == (10., 20., 5., 6.)
    next(w for w in walk(e.widget) if 'sshpe-button-skip' in w._dom_classes).click()
    assert e.state['marks'][-2:] == (-1, -1) and e.figures['joints'] == 3


# ---- two at once

def panel(e, name): return next(p for row in e.rows for p in row if p.name == name)

def test_a_comparison_shows_what_both_show(people):
    "A's and B's panels and figures are those of A and B alone, whatever the one control bar says."
    x = networks('denoise-select')
    a, b = (HeatmapExplorer(x, people, joint='left_knee', network=n) for n in ('student1', 'student2'))
    e = Compare(a, b)
    for changes in ({}, dict(tau=.6), dict(person=3, joint='nose'), dict(views=2, pool='mean')):
        e.set(**changes)
        for side, network in (('A', 'student1'), ('B', 'student2')):
            alone = HeatmapExplorer(x, people, **{**e.state, 'network': network})
            assert {k[2:]: v for k, v in e.figures.items() if k.startswith(side)} == alone.figures
            for name in ('taught', 'raw', 'pooled', 'histogram'):
                p, q = panel(e, f'{side} {name}'), panel(alone, name)
                assert p.title == f'{side} · {q.title}' and p.frame == q.frame
                assert all((l.values == m.values).all() for l, m in zip(p.layers, q.layers))
        d, pair = panel(e, 'apart pooled').layers[0], [panel(e, f'{s} pooled').layers[0].values.astype(float) for s in 'AB']
        assert np.allclose(d.values, abs(pair[1]-pair[0]))
        assert ((d.colours == DIFFERENCE_RGB['B']).all(-1) == (pair[1] > pair[0])).all()
    assert [p.name for row in e.rows for p in row].count('person-0') == 1

def test_what_is_done_in_one_happens_to_both(people):
    x = networks('denoise-select')
    e = Compare(HeatmapExplorer(x, people, joint='nose', tau=.2), HeatmapExplorer(x, people, joint='nose', tau=.7))
    assert e.differ == dict(tau=.7)
    e.hear(dict(event='pick', panel='A histogram', xy=(.4, 1))); assert (e.state['tau'], e.differ['tau']) == (.4, .7)
    e.hear(dict(event='pick', panel='B histogram', xy=(.9, 1))); assert (e.state['tau'], e.differ['tau']) == (.4, .9)
    e.hear(dict(event='pick', panel='person-4', xy=(1, 1))); assert e.state['person'] == 4
    hear(e, 'next'); assert e.state['person'] == 5
    hear(e, 'undo', 'undo'); assert e.state['person'] == 0

def test_b_gets_a_value_of_its_own(people):
    "By its own control; it is then what an explorer with that value shows, and its code says so."
    x = networks('denoise-select')
    e = Compare(HeatmapExplorer(x, people, joint='nose', person=1), HeatmapExplorer(x, people, joint='nose', person=1))
    assert e.differ == {} and e.field.value == '' and e.field in walk(e.widget)
    for field, value in dict(tau=.9, joint='left_hip', pool='mean', network='student2').items():
        e.field.value = field
        own = next(w for w in walk(e.widget) if 'sshpe-control-other' in w._dom_classes)
        assert own.value == e.state[field] and f'sshpe-control-{field}' in own._dom_classes
        own.value = value
    assert e.differ == dict(tau=.9, joint='left_hip', pool='mean', network='student2')
    e.set(person=2)
    alone = HeatmapExplorer(x, people, **{**e.state, **e.differ})
    assert {k[2:]: v for k, v in e.figures.items() if k.startswith('B')} == alone.figures
    again = eval(e.code(), dict(Compare=Compare, HeatmapExplorer=HeatmapExplorer, people=people))
    assert (again.state, again.differ, again.figures) == (e.state, e.differ, e.figures) and again.field.value != ''
    e.field.value = 'tau'; own = e.other['tau']
    assert own.value == .9
    own.value = e.state['tau']; assert 'tau' not in e.differ

def test_what_b_refuses_stays():
    lamp = Compare(Lamp(), Lamp())
    lamp.field.value = 'a'; lamp.other['a'].value = 3
    assert lamp.figures == {'A sum': 1, 'A none': None, 'B sum': 3, 'B none': None}
    lamp.other['a'].value = 4
    assert lamp.status == 'four is refused' and lamp.differ == dict(a=3) and lamp.other['a'].value == 3

def test_two_people_have_no_difference(people):
    x = networks('supervised')
    e = Compare(HeatmapExplorer(x, people, person=1, joint='nose'), HeatmapExplorer(x, people, person=2, joint='nose'))
    assert not any(p.name.startswith('apart') for row in e.rows for p in row)
    with pytest.raises(InputError, match='one kind'): Compare(e.a, LabelExplorer(people))

def test_two_runs_are_a_comparison():
    e = explorer('heatmaps', run=('supervised', 'denoise-select'), person=1, n=4)
    assert isinstance(e, Compare) and set(e.differ) == {'network'} and [x.where.name for x in (e.a.x, e.b.x)] == ['supervised', 'denoise-select']
