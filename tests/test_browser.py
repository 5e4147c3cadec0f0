"""The explorers as a reader meets them: each notebook in JupyterLab in a browser, and whatever its page shows equal to what the same call shows here."""
import importlib, io, json, os, re, secrets, shutil, signal, subprocess, sys, time
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nbformat, numpy as np, pytest
from PIL import Image, ImageDraw
from started import started
from sshpe.explore.failures import FailuresExplorer
from sshpe.explore.heatmaps import HeatmapExplorer
from sshpe.explore.mix import MixExplorer
from sshpe.explore.notes import read_notes
from sshpe.explore.pages import ENTRIES
from sshpe.explore.panels import blend, LEFT_MARGIN
from sshpe.explore.runs import RunsExplorer
from sshpe.explore.selection import SelectionExplorer
from sshpe.explore.teachers import TeachersExplorer
from sshpe.explore.views import ViewsExplorer

playwright = pytest.importorskip('playwright.sync_api', reason='there is no playwright: pip install playwright')
expect = playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='there is no chromium, chromium-browser or google-chrome on PATH')
ROOT = Path(__file__).resolve().parents[1]
SLOW = 240_000 # milliseconds that a page may take on a busy machine
FLAGS = ('--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--no-first-run',
         *['--no-sandbox']*(getattr(os, 'getuid', lambda: 1)() == 0))
LAB = {'docmanager-extension/plugin': dict(autosave=False), 'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False)}


# ---- JupyterLab and a browser

@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "JupyterLab of this very Python, over a copy of the explorers."
    home, token = tmp_path_factory.mktemp('lab'), secrets.token_hex(16)
    os.environ['SSHPE_CACHE'] = str(home/'store')
    shutil.copytree(ROOT/'nbs/explorers', home/'nbs/explorers', ignore=shutil.ignore_patterns('.ipynb_checkpoints'))
    (home/'data').symlink_to(ROOT/'data')
    for k, v in LAB.items():
        f = home/f'settings/@jupyterlab/{k}.jupyterlab-settings'
        f.parent.mkdir(parents=True, exist_ok=True); f.write_text(json.dumps(v))
    own = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_RUNTIME_DIR='runtime', JUPYTERLAB_SETTINGS_DIR='settings',
               JUPYTERLAB_WORKSPACES_DIR='workspaces', IPYTHONDIR='ipython')
    env = {**os.environ, **{k: str(home/v) for k, v in own.items()}, 'JUPYTER_TOKEN': token}
    with open(home/'log', 'w') as log:
        lab = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', '--port=0',
                                f'--notebook-dir={home/"nbs"}'], env=env, cwd=home, stdout=log, stderr=log)
    try:
        until(lambda: lab.poll() is not None or [*home.glob('runtime/jpserver-*.json')], 'JupyterLab did not start')
        assert lab.poll() is None, (home/'log').read_text()[-2000:]
        until(lambda: (info := next(home.glob('runtime/jpserver-*.json')).read_text()) and info.rstrip().endswith('}'), 'no address')
        url = json.loads(next(home.glob('runtime/jpserver-*.json')).read_text())['url']
        yield SimpleNamespace(home=home, url=url, headers=dict(Authorization=f'token {token}'),
                              address=lambda name: f'{url}lab/tree/explorers/{name}.ipynb?reset&token={token}')
    finally: lab.terminate(); lab.wait(60)

def until(true, what, seconds=120):
    end = time.monotonic()+seconds
    while not true():
        assert time.monotonic() < end, f'{what} within {seconds} seconds'
        time.sleep(.1)

@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield b
        b.close()

@pytest.fixture
def notebook(server, browser, monkeypatch):
    "Opens a notebook of the explorers and runs all of it; afterwards nothing has complained in the page."
    monkeypatch.chdir(server.home/'nbs/explorers')
    page, errors = browser.new_page(viewport=dict(width=1400, height=1200)), []
    page.set_default_timeout(SLOW); expect.set_options(timeout=SLOW)
    page.on('pageerror', lambda e: errors.append(str(e)))
    page.on('console', lambda m: m.type == 'error' and errors.append(f'{m.text} {m.location.get("url", "")}'))
    def open_(name):
        page.goto(server.address(name))
        run_all(page, sum(c.cell_type == 'code' for c in nbformat.read(f'{name}.ipynb', 4).cells))
        return page
    yield open_
    for k in page.request.get(server.url+'api/kernels', headers=server.headers).json():
        page.request.delete(f'{server.url}api/kernels/{k["id"]}', headers=server.headers)
    page.close()
    assert errors == []

def run_all(page, n): # n: how many cells have code
    "From the menu, as a reader does; until every cell has its number."
    page.get_by_text('| Idle').wait_for()
    page.get_by_role('menuitem', name='Run', exact=True).click(); page.get_by_text('Run All Cells', exact=True).click()
    done = """n => { const of = q => [...document.querySelectorAll('.jp-CodeCell ' + q)];
                     return of('[data-mime-type="application/vnd.jupyter.error"]').length ||
                            of('.jp-InputPrompt').filter(e => /\\[\\d+\\]/.test(e.textContent)).length === n; }"""
    page.wait_for_function(done, arg=n)
    failed = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    assert not failed.count(), failed.first.inner_text()


# ---- what a page shows

READ = """nodes => nodes.map(n => ({name: n.dataset.panel, title: n.querySelector('figcaption').textContent, left: n.left,
                                    chosen: n.classList.contains('sshpe-chosen'), box: [n.box.w, n.box.h], url: n.querySelector('canvas').toDataURL()}))"""

def rgb(colour): return np.array([int(colour[i:i+2], 16) for i in (1, 3, 5)])

def inside(p, m): # Panel, Mark -> (n,2) its points on the panel's rectangle, CSS pixels; NaN interrupts
    return np.stack([(m.x-p.x[0])/(p.x[1]-p.x[0])*p.width, (m.y-p.y[1])/(p.y[0]-p.y[1])*p.height], 1) 

def bare(p): # Panel -> (height,width) bool
    "Where a panel has neither mark nor border."
    im = Image.new('1', (p.width, p.height), 1); d = ImageDraw.Draw(im)
    if p.axes: d.rectangle([0, 0, p.width-1, p.height-1], None, 0)
    for m in p.marks:
        k, r = inside(p, m), m.size+3
        for x, y in k[np.isfinite(k).all(1)]: d.ellipse([x-r, y-r, x+r, y+r], 0)
        for a, b in zip(k, k[1:]):
            if m.kind in ('-', '--') and np.isfinite([a, b]).all(): d.line([*a, *b], 0, round(2*r))
    return np.array(im)

def enlarged(p): # Panel -> (height,width,3) uint8; (height,width) bool: that is certain
    "A panel's picture as its rectangle shows it: each pixel that of the picture below its middle."
    im = blend(p)
    (v, sure_v), (u, sure_u) = (((k := (np.arange(n)+.5)*N/n).astype(int), abs(k-k.round()) > .01) for n, N in zip((p.height, p.width), im.shape))
    return im[v][:,u], sure_v[:,None] & sure_u & bare(p)

def last(p): # Panel -> Mark or None, (n,2) places in its rectangle where its colour must be
    "What was painted last lies on top."
    m = next((m for m in reversed(p.marks) if len(m.x) and m.kind != 'bars'), None)
    if m is None: return None, np.empty((0, 2))
    at = inside(p, m)+[m.size*(m.kind == 'ring'), 0]
    if m.kind == '--': at = at[np.isnan(np.concatenate([[np.nan], m.x[:-1]]))]  # dashes begin anew after each gap, and end anywhere
    return m, at[((at > 2) & (at < np.array([p.width, p.height])-2)).all(1)]

def as_laid(p, box): # Panel, [width, height] on the page -> Panel
    "A panel as large as the page makes it; pictures keep their shape, and their dots grow a little."
    if p.picture is not None and p.grow: assert abs(box[0]/box[1]-p.width/p.height) < .02*box[0]/box[1]
    if not p.grow: assert box == [p.width, p.height]
    by = min(2.2, max(1, (box[0]/p.width)**.5)) if p.picture is not None or not p.axes else 1
    return replace(p, width=box[0], height=box[1], marks=tuple(replace(m, size=m.size*(1 if m.kind == 'bars' else by)) for m in p.marks))

def check_panel(p, got): # Panel, what `READ` says of it
    "The page shows this panel: words, picture, marks."
    assert (got['title'], got['chosen']) == (p.title, p.chosen)
    p = as_laid(p, got['box'])
    canvas = np.array(Image.open(io.BytesIO(b64decode(got['url'].partition(',')[2]))).convert('RGBA')).astype(int)[:p.height,got['left']:]
    assert canvas.shape[:2] == (p.height, p.width), p.name
    if p.picture is not None:
        want, sure = enlarged(p)
        assert abs(canvas[...,:3]-want)[sure].max(initial=0) <= 1 and (canvas[sure][:,3] == 255).all(), f'the picture of {p.name}'
    m, at = last(p)
    for x, y in at.astype(int):
        near = canvas[y-1:y+2,x-1:x+2,:3]
        assert abs(near-rgb(m.colour)).max(-1).min() < 60, f'{m.kind} {m.colour} at {x}, {y} of {p.name}'


class Reader:
    "An explorer in a page, and the same call's explorer here."
    def __init__(self, page, kind, e=None, **ends): # a page, an explorer's class, one that shows the same; how its notebook leaves the state
        self.root = page.locator(f'.sshpe-{kind.__name__}')
        self.panels, self.controls = (self.root.locator(q) for q in ('> * > .sshpe-panels, > .sshpe-panels', '.sshpe-side [class*=sshpe-control-]'))
        self.code = self.panels.locator('.sshpe-code code')
        self.e = e or eval(self.code.text_content(), {kind.__name__: kind})
        self.agree()
        assert {k: self.e.state[k] for k in ends} == ends

    def agree(self, **changes): # what became of the state
        "The page now shows what this state shows here."
        self.e.set(**changes)
        expect(self.code).to_have_text(self.e.code()); expect(self.panels).to_have_attribute('data-busy', '')
        expect(self.panels.locator('.sshpe-figures span')).to_have_text([text for _, _, text in self.e.said])
        assert json.loads(self.panels.get_attribute('data-figures')) == pytest.approx(self.e.figures)
        shown, here = self.panels.locator('[data-panel]').evaluate_all(READ), [p for row in self.e.rows for p in row]
        assert [g['name'] for g in shown] == [p.name for p in here]
        for p, g in zip(here, shown): check_panel(p, g)

    def panel(self, name): return next(p for row in self.e.rows for p in row if p.name == name)
    def laid(self, name): # the panel as it lies on the page
        return replace(self.panel(name), **dict(zip(('width', 'height'), self.panels.locator(f'[data-panel="{name}"]').evaluate('n => [n.box.w, n.box.h]'))))
    def canvas(self, name): return self.panels.locator(f'[data-panel="{name}"] canvas')
    def control(self, field, within): return self.root.locator(f'.sshpe-control-{field} {within}').first

    def slide(self, field, steps): # how often an arrow key is pressed
        "By the keyboard."
        w, handle = self.e.controls[field], self.control(field, '.noUi-handle')
        handle.focus()
        for _ in range(abs(steps)): handle.press('ArrowRight' if steps > 0 else 'ArrowLeft')
        self.agree(**{field: type(w.value)(round(w.value+steps*w.step, 6))})
        assert w.min < w.value < w.max

    def choose(self, field, value):
        "From a list."
        self.control(field, 'select').select_option(value)
        self.agree(**{field: value})

    def point(self, name, xy): # panel, where in its coordinates
        "The cursor's line, and where the mouse is in the panel's coordinates."
        p, (x, y) = self.laid(name), xy
        at = dict(x=LEFT_MARGIN*bool(p.axes)+(x-p.x[0])/(p.x[1]-p.x[0])*p.width, y=(y-p.y[1])/(p.y[0]-p.y[1])*p.height)
        self.canvas(name).hover(position=at)
        read = json.loads(self.panels.get_attribute('data-readout'))
        step = abs(np.array([p.x[1]-p.x[0], p.y[1]-p.y[0]])/(p.width, p.height))
        assert read['panel'] == name and (abs(np.array([read['x'], read['y']])-xy) <= step).all()
        return read, at

    def hover(self, name, xy):
        "The cursor's line says the values there of all layers of the frame, and all its pictures have a cross."
        read, _ = self.point(name, xy)
        linked = [p for row in self.e.rows for p in row if p.picture is not None and p.frame and p.frame == self.panel(name).frame]
        values = {}
        for l, p in ((l, p) for p in linked for l in p.layers):
            (h, w), u, v = l.values.shape, (read['x']-p.x[0])/(p.x[1]-p.x[0]), (read['y']-p.y[1])/(p.y[0]-p.y[1])
            values.setdefault(l.name, float(l.values[int(v*h),int(u*w)]))
        assert values and read['values'] == pytest.approx(values, abs=1e-5)
        words = self.panels.locator('.sshpe-readout').text_content()
        assert [float(t) for t in re.findall(r'(-?\d+\.\d\d)(?:   |$)', words)] == pytest.approx([read['x'], read['y'], *values.values()], abs=.0051)
        assert self.panels.locator('.sshpe-cross:visible').count() == len(linked)

    def click(self, name, xy=None): # panel; None: its middle
        "Where, in the panel's coordinates."
        p = self.panel(name)
        read, at = self.point(name, xy or (sum(p.x)/2, sum(p.y)/2))
        self.canvas(name).click(position=at)
        return read['x'], read['y']

    def drag(self, name, a, b): # from where to where, in the panel's coordinates
        "A rectangle."
        mouse, ends = self.panels.page.mouse, []
        for xy, do in ((a, mouse.down), (b, mouse.up)):
            read, _ = self.point(name, xy); ends.append((read['x'], read['y'])); do()
        (x0, x1), (y0, y1) = map(sorted, zip(*ends))
        return x0, y0, x1, y1


# ---- what a reader does with each explorer

def heatmaps(page):
    r = Reader(page, HeatmapExplorer, tau=.7, views=3)
    r.slide('tau', -20); r.hover('pooled', (30, 40)); r.hover('taught', (12, 70))
    r.choose('joint', 'left_knee'); r.hover('truth', (30, 60))
    x, _ = r.click('histogram', (.3, 2)); r.agree(tau=round(x, 2))
    r.panels.press('n'); r.agree(person=r.e.state['person']+1)
    return r

def views(page):
    r = Reader(page, ViewsExplorer, seeds=(0, 0, 1, 0, 0))
    r.slide('opacity', -4); r.hover('own-1', (30, 40)); r.hover('back-2', (30, 40))
    r.choose('joint', 'left_wrist')
    r.click('view-3'); r.agree(seeds=(0, 0, 1, 1, 0))
    return r

def selection(page):
    r = Reader(page, SelectionExplorer, margin=0., brush=(0, 20, .15, 60))
    r.slide('margin', 5); r.hover('doubt-2', (30, 40))
    r.choose('joint', 'right_ankle')
    r.click('scatter', (.4, 30)); r.agree(brush=())
    box = r.drag('scatter', (.05, 10), (.2, 40)); brush = tuple(round(v, 3) for v in box)
    who, joint = r.e.pairs(replace(r.e._state, brush=brush))[0]
    r.agree(brush=brush, person=who, joint=joint)
    b, mouse = r.canvas('scatter').bounding_box(), page.mouse
    mouse.move(b['x']+20, b['y']+60); mouse.down(); mouse.move(b['x']+LEFT_MARGIN+90, b['y']+20); mouse.up()
    expect(r.code).to_contain_text('brush=(0, ') # begun left of the axes
    r.e.set(**eval(r.code.text_content(), dict(SelectionExplorer=SelectionExplorer)).state); r.agree()
    return r

def mixes(page):
    r = Reader(page, MixExplorer, unmix='decoder', person=26)
    r.slide('opacity', -6); r.hover('layer2-0', (30, 40)); r.hover('alone-1', (30, 40))
    r.choose('joint', 'nose')
    r.click('person-27'); r.agree(person=27)
    return r

def teachers(page):
    r = Reader(page, TeachersExplorer, person=4, step=2400)
    r.slide('step', -3); name = r.e.records[0].name
    r.hover(f'now-{name}-{r.e.records[0].networks[0]}', (30, 40))
    r.choose('joint', 'left_elbow')
    film = next(p.name for row in r.e.rows for p in row if p.name.startswith(f'film-{name}') and not p.chosen)
    r.click(film); r.agree(step=int(film.rpartition('-')[2]))
    x, _ = r.click('mismatch', (1500, 0)); r.agree(step=round(x))
    return r

def runs(page):
    r = Reader(page, RunsExplorer, failure=2, opened=True)
    r.hover('refined', (30, 40)); r.choose('joint', 'nose'); r.choose('telemetry', 'strong')
    r.click('failure-5'); r.agree(failure=5, opened=True)
    return r

STORIES = {'01_heatmaps': heatmaps, '02_views': views, '03_selection': selection, '04_mix': mixes, '05_teachers': teachers, '06_runs': runs}

@pytest.mark.parametrize('name', STORIES)
def test_a_page_shows_what_the_call_shows(notebook, name): STORIES[name](notebook(name))

def test_every_explorer_has_a_story(): assert set(STORIES) == {p.stem for p in (ROOT/'nbs/explorers').glob('0[1-6]_*.ipynb')}


# ---- the application

@pytest.fixture(scope='module')
def served(tmp_path_factory):
    "`sshpe explore`: its address."
    os.environ['SSHPE_NOTES'] = str(tmp_path_factory.mktemp('notes')/'notes.json') # not the reader's own
    with started([sys.executable, '-c', 'from sshpe.cli import main; raise SystemExit(main())', 'explore', '--no-browser']) as p:
        yield p.stdout.readline().strip()
        p.send_signal(signal.SIGINT); assert p.wait(60) == 0

@pytest.fixture
def app(served, browser):
    "The front page; afterwards nothing has complained, and nothing was asked of another server."
    page, wrong = browser.new_page(viewport=dict(width=1366, height=768)), []
    page.set_default_timeout(SLOW); expect.set_options(timeout=SLOW)
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.on('console', lambda m: m.type == 'error' and wrong.append(m.text))
    page.on('request', lambda r: r.url.startswith((served.split('/?')[0], 'data:', 'blob:')) or wrong.append(r.url))
    page.goto(served)
    yield page
    page.close()
    assert wrong == []

def covered(page): # -> 0..1
    "The share of the window that the boxes of the panels' pictures cover."
    w, h = page.viewport_size['width'], page.viewport_size['height']
    boxes = [c.bounding_box() for c in page.locator('.sshpe-stage canvas').all()]
    side = lambda start, length, most: max(0, min(start+length, most)-max(start, 0))
    return sum(side(b['x'], b['width'], w)*side(b['y'], b['height'], h) for b in boxes)/w/h

LEAST = dict(heatmaps=(.64, .7), views=(.6, .65), selection=(.62, .68), mix=(.52, .62), teachers=(.49, .62), runs=(.65, .72), label=(.58, .62), failures=(.6, .6))

@pytest.mark.parametrize('name', LEAST)
def test_one_click_opens_an_explorer_that_fills_the_screen(app, name):
    "In a small window and in a large one, with the main control in sight and nothing to scroll to."
    app.locator(f'a#{name}').click()
    app.wait_for_url(f'**/{name}.ipynb')
    kind = getattr(importlib.import_module(f'sshpe.explore.{name}'), ENTRIES[name].where.partition('.')[2])
    first = app.locator('.sshpe-lead, .sshpe-control-person').first
    app.locator('.sshpe-stage canvas').first.wait_for()
    if name != 'label': Reader(app, kind)
    for (w, h), least in zip(((1366, 768), (1920, 1080)), LEAST[name]):
        app.set_viewport_size(dict(width=w, height=h))
        app.wait_for_function(f'Math.abs(document.querySelector(".sshpe-panels").getBoundingClientRect().right - {w}) < 20')
        app.wait_for_timeout(500)
        assert covered(app) > least and app.evaluate('document.scrollingElement.scrollHeight <= innerHeight')
        assert (b := first.bounding_box())['y']+b['height'] < h

FOCUS = """() => { const e = document.activeElement, s = getComputedStyle(e), n = e.closest('[class*=sshpe-control-]');
                   const name = n && [...n.classList].find(c => c.startsWith('sshpe-control-')), seen = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0;
                   return [e.tagName, name ? name.slice(14) : e.textContent.slice(0, 20), seen || s.boxShadow !== 'none']; }"""

def test_every_control_is_reached_by_tab_and_seen(app):
    "From the first button on; a control that is folded away is reached after its fold."
    app.keyboard.press('Tab'); assert app.evaluate(FOCUS)[2], 'a tile of the front page'
    app.locator('a#views').click()
    r = Reader(app, ViewsExplorer)
    for fold in r.root.locator('.sshpe-side .jupyter-widget-Collapse-header').all(): fold.click()
    r.root.locator('.sshpe-button-previous').focus()
    been = [app.evaluate(FOCUS)]
    for _ in range(60): app.keyboard.press('Tab'); been.append(app.evaluate(FOCUS))
    assert set(r.e.controls) <= {name for _, name, _ in been}, set(r.e.controls)-{name for _, name, _ in been}
    assert {'PNG', 'SVG', 'CSV', 'link', 'find people'} <= {name for _, name, _ in been}
    assert [(tag, name) for tag, name, seen in been if not seen and tag != 'BODY'] == []
    labels = r.panels.locator('canvas').evaluate_all('nodes => nodes.map(n => [n.getAttribute("role"), n.getAttribute("aria-label")])')
    assert labels == [['img', p.title or p.name] for row in r.e.rows for p in row]

def test_a_link_opens_what_was_seen(app, served):
    app.locator('a#heatmaps').click()
    r = Reader(app, HeatmapExplorer)
    r.slide('tau', 7); r.choose('joint', 'left_knee')
    r.root.locator('.sshpe-tool', has_text='link').click()
    app.wait_for_url('**#*tau=*')
    fragment = app.url.partition('#')[2]
    assert fragment == r.e.link()
    app.goto('about:blank')
    app.goto(f'{served.partition("/?")[0]}/heatmaps#{fragment}')
    code = app.locator('.sshpe-code code')
    expect(code).to_have_text(r.e.code())
    app.evaluate('location.hash = "tau=.45&joint=knee"')
    expect(code).to_contain_text('tau=0.45'); expect(app.locator('.sshpe-status')).to_contain_text("joint='knee' cannot be chosen here.")

def test_what_a_hand_does_in_the_application(app):
    "Undo, enlarging, zoom, files."
    app.locator('a#heatmaps').click()
    r = Reader(app, HeatmapExplorer, joint='right_ankle')
    first = dict(r.e.state)
    app.keyboard.press('n'); r.agree(person=first['person']+1)
    app.keyboard.press('+'); r.agree(tau=round(first['tau']+.01, 2))
    app.keyboard.press('j'); r.agree(joint='max')
    app.keyboard.press('J'); r.agree(joint='right_ankle')
    for _ in range(3): app.keyboard.press('z')
    r.agree(person=first['person']+1, tau=first['tau'])
    app.keyboard.press('Z'); r.agree(tau=round(first['tau']+.01, 2))
    r.root.locator('.sshpe-button-reset').click(); r.agree(**first)
    small = r.canvas('pooled').bounding_box()
    r.canvas('pooled').dblclick()
    big = r.canvas('pooled').bounding_box()
    assert big['height'] > 680 and big['height'] > 2*small['height'] and big['y']+big['height'] <= 768
    app.keyboard.press('Escape'); expect(app.locator('dialog.sshpe-big')).to_be_hidden()
    assert r.canvas('pooled').bounding_box() == small
    r.canvas('raw').hover(); app.mouse.wheel(0, -400)
    lenses = lambda: r.panels.locator('[data-panel]').evaluate_all('nodes => nodes.filter(n => n.p.picture && n.p.frame).map(n => n.lens.k)')
    assert len(set(lenses())) == 1 and lenses()[0] > 2
    app.keyboard.press('0'); assert set(lenses()) == {1}; r.agree()
    for tool, want in (('PNG', r.e.png()), ('SVG', r.e.svg()), ('CSV', r.e.csv().encode())):
        with app.expect_download() as got: r.root.locator('.sshpe-tool', has_text=tool).click()
        assert Path(got.value.path()).read_bytes() == want and got.value.suggested_filename == f'heatmap.{tool.lower()}'
    r.canvas('raw').hover()
    with app.expect_download() as got: app.keyboard.press('e')
    assert Path(got.value.path()).read_bytes() == r.e.svg('raw') and got.value.suggested_filename == 'heatmap-raw.svg'
    app.keyboard.press('?'); expect(app.locator('dialog.sshpe-help')).to_contain_text('undo'); app.keyboard.press('Escape')
    said = r.root.locator('.sshpe-control-tau')
    assert 'higher' in (said.get_attribute('title') or said.locator('[title]').first.get_attribute('title'))

PASTE = """data => { const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), held = new DataTransfer();
                    held.items.add(new File([bytes], 'image.png', {type: 'image/png'}));
                    document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: held, bubbles: true})); }"""

def test_a_copied_picture_is_looked_at(app):
    app.locator('a#heatmaps').click()
    r = Reader(app, HeatmapExplorer)
    content = io.BytesIO(); Image.new('RGB', (60, 90), 'red').save(content, 'PNG')
    app.evaluate(PASTE, b64encode(content.getvalue()).decode())
    expect(r.root.locator('.sshpe-code code')).to_contain_text('pasted-')

def test_a_worst_person_opens_beside_the_list(app):
    app.locator('a#runs').click()
    r = Reader(app, RunsExplorer)
    r.click('failure-2'); r.agree(failure=2, opened=True)
    small, large = r.canvas('failure-2').bounding_box(), r.canvas('taught').bounding_box()
    assert large['x'] > small['x']+small['width'] and large['height'] > small['height'] and r.canvas('truth').bounding_box()['y'] < 768
    assert covered(app) > .55 and app.evaluate('document.scrollingElement.scrollHeight <= innerHeight')
    app.keyboard.press('n'); r.agree(failure=3); app.keyboard.press('z'); r.agree(failure=2)

def test_failures_are_worked_through(app):
    "Filter, click, the next by key, undo, a note."
    app.locator('a#failures').click()
    r = Reader(app, FailuresExplorer)
    joints, at = r.e.skeleton.joints, lambda k: dict(person=(p := r.e.pairs(r.e._state)[k])[0], joint=r.e.skeleton.joints[p[1]])
    assert min(min(g['box']) for g in r.panels.locator('[data-panel^=tile]').evaluate_all(READ)) >= 180
    r.choose('show', 'kept but wrong'); first = at(0)
    assert {k: r.e.state[k] for k in first} == first
    r.click('tile-{person}-{j}'.format(j=joints.index(at(3)['joint']), **at(3))); r.agree(**at(3))
    answer, tile = (r.canvas(name).bounding_box() for name in ('answer', r.e.rows[0][0].name))
    assert answer['x'] > tile['x']+tile['width'] and answer['height'] > 1.5*tile['height'] and answer['y']+answer['height'] < 768
    app.keyboard.press('n'); r.agree(**at(4))
    app.keyboard.press('z'); r.agree(**at(3))
    app.keyboard.press('1'); expect(r.panels.locator('.sshpe-chosen figcaption, figure.sshpe-chosen .sshpe-title').first).to_contain_text('wrong label')
    r.control('text', 'input').fill('left is right'); r.control('text', 'input').press('Enter')
    until(lambda: any(n['text'] for n in read_notes()), 'no note')
    assert read_notes() == [dict(data='people:val', **at(3), mark='wrong label', text='left is right')]
    r.e.render(); r.agree()
    r.choose('marked', 'wrong label'); assert r.e.figures['tiles'] == 1
    with app.expect_download() as got: r.root.locator('.sshpe-tool', has_text='CSV').click()
    assert Path(got.value.path()).read_text() == r.e.csv() and 'left is right' in r.e.csv()
