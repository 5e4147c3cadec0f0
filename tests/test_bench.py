"The benchmark's arithmetic, its rivals against independent loops, and its command line; never a speed."
import io, json, math, subprocess, sys
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from PIL import Image
import helpers
from sshpe.bench import growth, pipeline, rows, timing, rivals, use
from sshpe.errors import InputError
from sshpe.bench.timing import Comparison, table_row, rounded, turns
from sshpe.pose.heatmap import decode, encode
from sshpe.models.posenet import build, folded
from sshpe.ssl.mum import masks, mix, unmix
from sshpe.runs.run import home

FIELDS = {'name', 'what', 'ours', 'theirs', 'ratio', 'target', 'better', 'unit', 'note', 'ok'}
some = st.floats(.01, 1e4)

# rows

@given(some, some, some)
def test_a_ratio_says_how_much_of_theirs_or_how_many_times_as_fast(a, b, t):
    low, high = Comparison('x', '', a, b, t), Comparison('x', '', a, b, t, 'higher')
    assert low.ratio == a/b and high.ratio == b/a and low.ok == (a/b <= t) and high.ok == (b/a >= t)
    assert Comparison('x', '', a, target=t).ratio == a and Comparison('x', '', a, target=t).ok == (a <= t)

def test_what_was_not_run_or_has_no_target_is_neither_good_nor_bad():
    for row in (Comparison('x', '', note='not run: why'), Comparison('x', '', None, 2., 1.), Comparison('x', '', 1., 2.)): assert row.ok is None
    assert Comparison('x', '').ratio is None and Comparison('x', '', 1., 2.).ratio == .5

def test_a_row_as_json_and_as_a_line():
    d = Comparison('x', 'y', 1/3, 2., .5, note='n').plain()
    assert set(d) == FIELDS and json.loads(json.dumps(d)) == d and d['ours'] == .33333
    assert table_row(d) == dict(name='x', ours='0.333', theirs='2', unit='ms', ratio='0.167', target='≤ 0.5', ok='yes')
    assert table_row(Comparison('x', '', note='not run').plain()) == dict(name='x', ours='', theirs='', unit='', ratio='', target='', ok='-')
    assert table_row(Comparison('x', '', 1., 12345., 2, 'higher').plain())['ratio'] == '12345'

def test_tidy(): assert rounded({'a': (1/3, [2, 'x', None]), 'b': True}) == {'a': [.33333, [2, 'x', None]], 'b': True}

def test_jobs_take_turns_after_a_call_that_is_not_timed():
    calls = []
    t = turns({k: lambda k=k: calls.append(k) for k in 'ab'}, 3)
    assert calls == list('ab')*4 and list(t) == ['a', 'b'] and min(t.values()) >= 0

def test_the_median_forgets_the_odd_one(monkeypatch):
    times = iter([5., 1., 2., 900., 3.])
    monkeypatch.setattr(timing, 'once', lambda f: next(times))
    assert turns(dict(a=lambda: None), 5) == {'a': 3.}

@given(st.floats(-5, 5), st.floats(-5, 5))
def test_slope_of_a_line(a, b):
    x = np.array([1., 2, 4, 7])
    s, i, off = rows.slope(x, a*x+b)
    assert abs(s-a) < 1e-9 and abs(i-b) < 1e-9 and off < 1e-9

# the rivals compute what we compute

def test_painted_targets_pixel_by_pixel():
    xy = np.random.default_rng(0).uniform(-30, 290, (40, 2)).astype(np.float32)
    H = rivals.loader_target(xy, (64, 48), 4, 2)
    for h, (x, y) in zip(H, xy):
        c = int(x/4+.5), int(y/4+.5)
        truth = helpers.gaussian(c, (64, 48), 2)
        yy, xx = np.mgrid[:64, :48]
        truth[(abs(xx-c[0]) > 6) | (abs(yy-c[1]) > 6)] = 0
        assert np.abs(h-truth).max() < 1e-6
    inside = xy[((xy > 4) & (xy < (188, 252))).all(1)]
    ours = encode(torch.from_numpy(inside+1.5), (64, 48), 4, 2, exact=False).numpy()
    theirs = rivals.loader_target(inside, (64, 48))
    assert np.abs(ours-theirs)[theirs > 0].max() < 1e-6 and ours[theirs == 0].max() < math.exp(-9/2)

@pytest.mark.parametrize('how', ['quarter', 'dark'])
def test_read_points_one_by_one(how):
    r = np.random.default_rng(1)
    H = np.stack([[helpers.gaussian(r.uniform((5, 5), (18, 26)), (32, 24), 2)+.05*r.random((32, 24)) for _ in range(3)] for _ in range(5)]).astype(np.float32)
    M = r.normal(size=(5, 2, 3))
    xy, s = rivals.read_points(H, M, how, 2)
    truth = np.array([[m@[*helpers.peak(h.astype(float), how, 2), 1] for h in maps] for maps, m in zip(H, M)])
    assert np.abs(xy-truth).max() < 1e-3 and np.array_equal(s, H.max((-2, -1)))
    ours = decode(torch.from_numpy(H), 1, how, 2)[0].numpy()
    assert np.abs(np.einsum('nij,nkj->nki', M, np.insert(ours, 2, 1, -1))-xy).max() < 5e-3

def test_a_rivals_crop_is_the_photo_at_the_crops_places(monkeypatch):
    y, x = np.mgrid[:90, :120]
    photo = np.stack([128+100*np.sin(x/15), 128+100*np.cos(y/11), 128+100*np.sin((x+y)/17)], -1).round().astype(np.uint8)
    A = np.array([[.6, .2, 3.], [-.15, .7, 6.]])
    u, v = helpers.places(np.vstack([A, [0, 0, 1]]), (48, 36))
    truth = np.stack([(helpers.sample(c.astype(float), u, v)-m)/s for c, m, s in zip(np.moveaxis(photo, 2, 0), helpers.MEAN, helpers.STD)])
    seen = (u > 1) & (v > 1) & (u < 118) & (v < 88)
    Image.fromarray(photo).save(file := io.BytesIO(), 'png')
    for without in (False, True):
        if without: monkeypatch.setitem(sys.modules, 'cv2', None)
        file.seek(0)
        assert np.abs(rivals.crop(file, A, (48, 36)).numpy()-truth)[:,seen].max() < .06

def test_strong_views_keep_their_middle_and_are_repeatable():
    x = torch.zeros(3, 1, 33, 33); x[:,:,16,16] = 1
    a, b = (rivals.rival_strong(x, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(a, b) and a[:,0,16,16].min() > .5

@given(st.integers(0, 2**32), st.sampled_from([(4, (4, 4)), (2, (2, 3)), (8, (1, 2))]))
def test_mums_own_mix(seed, grid):
    m, x = masks(8, *grid, seed), torch.randn(8, 2, 8, 12, generator=torch.Generator().manual_seed(seed%2**31))
    assert torch.equal(rivals.mum_mix(x, m), mix(x, m)) and torch.equal(rivals.mum_unmix(x, m), unmix(x, m))

# the floor

def count(nets, job):
    "How often networks are called, and with how many pictures, with and without gradient."
    seen = []
    old = torch.nn.Module.__call__
    def call(self, *a, **kw):
        if hasattr(self, 'head') and hasattr(self, 'stem'): seen.append((len(a[0]), torch.is_grad_enabled(), self.training))
        return old(self, *a, **kw)
    torch.nn.Module.__call__ = call
    try: job()
    finally: torch.nn.Module.__call__ = old
    return sorted(seen)

@pytest.mark.parametrize('name', rows.TIMED)
def test_the_floor_has_the_passes_of_a_step(name):
    L = rows.learner(name.split(',')[0], n_labelled=2, n_unlabelled=4, **rows.TIMED[name])
    L.one_step()
    ours, floor, theirs = (count(L, f) for f in (L.one_step, rows.passes(L), rows.passes(L, True)))
    assert ours == floor
    saved = len(L.students)*L.r.shares_passes
    assert len(theirs) == len(ours)+saved and [c for c in theirs if c[1]] == [c for c in ours if c[1]]

def test_the_floor_leaves_the_learner_as_it_was():
    L = rows.learner('pose-mum-plus', n_labelled=2, n_unlabelled=4)
    before = {k: v.clone() for k, v in L.students[0].state_dict().items()}
    rows.passes(L)(); rows.passes(L, True)()
    assert all(torch.equal(v, before[k]) for k, v in L.students[0].state_dict().items())
    assert all(w.grad is None for w in L.students[0].parameters())

def test_targets_are_the_same_operations_for_all_sizes():
    L = rows.learner('denoise-select', K=2)
    few, many = (rows.operations(rows.judging(L, *s)) for s in ((2, 17), (6, 30)))
    assert few == many and not rows.ASKING & set(few)

def test_the_trace_notices_a_question_and_a_loop():
    x = torch.rand(3, 4)
    assert rows.ASKING & set(rows.operations(lambda: x.sum().item())) and rows.ASKING & set(rows.operations(lambda: x[x > .5]))
    loop = lambda x: lambda: [r+1 for r in x]
    assert len(rows.operations(loop(x))) < len(rows.operations(loop(torch.rand(5, 4))))

# numerics

def test_targets_in_bf16_are_those_in_fp32():
    a, b = (rows.learner('denoise-select', precision=p, n_unlabelled=4) for p in ('fp32', 'bf16'))
    ours, theirs = rows.judging(a, 4)()[0], rows.judging(b, 4)()[0]
    for t, w, u, v in zip(ours.T, ours.w, theirs.T, theirs.w):
        same = (w == v)&(w > 0)
        assert same.float().mean() > .8*w.mean() and t.dtype == u.dtype == torch.float32
        at = lambda h: h.flatten(-2).argmax(-1)
        assert (at(t) == at(u))[same].float().mean() > .8  # answers rounded to bf16 have ties, where maxima lie elsewhere

def test_a_folded_network_answers_as_its_network():
    torch.manual_seed(0)
    net, x = build('narrow18', 17, 48, init='he').train(), torch.randn(6, 3, 96, 64)
    for _ in range(3): net(x+torch.randn_like(x))  # statistics of its own
    f = folded(net); net.eval()
    with torch.no_grad():
        a, b = net(x), f(x)
        with torch.autocast('cpu', torch.bfloat16): c, d = net(x).float(), f(x).float()
    assert (a-b).abs().max() < 1e-4*a.abs().max()
    assert max((a-c).abs().max(), (a-d).abs().max()) < .08*a.abs().max()
    place = lambda h: decode(h, 4, 'dark')[0]
    assert (place(a)-place(b)).norm(dim=-1).median() < .01 and (place(a)-place(d)).norm(dim=-1).median() < 2

# growth

@given(st.floats(.2, 3), st.floats(.01, 100))
def test_the_exponent_of_a_power(a, c):
    x = (2, 6, 30, 100)
    assert np.allclose(growth.exponent(x, [c*n**a for n in x]), a)

def test_growth_is_told_as_exponents(monkeypatch):
    "What costs 3 + 2n grows by less than its power; what costs n² is found out."
    cost = lambda what, **how: dict(seconds=3+2*how['n_labelled'], bytes=float(how['n_labelled']**2))
    monkeypatch.setattr(growth, 'STEPS', {'people': ('people a step', [(n, dict(n_labelled=n)) for n in (10, 20, 40)])})
    monkeypatch.setattr(growth, 'apart', cost)
    monkeypatch.setattr(growth, 'start_cost', lambda n: dict(seconds=1., bytes=1., first=2.))
    growth.grown.cache_clear()
    r = {c.name: c for c in growth.growth_rows()}
    growth.grown.cache_clear()
    assert .8 < r['growth/people/time'].ours < 1 and r['growth/people/time'].ok and not r['growth/people/memory'].ok
    assert abs(r['growth/people/memory'].ours-2) < 1e-9 and '2.00 between' in r['growth/people/memory'].note
    assert set(r) == {f'growth/{k}/{m}' for k in ('people', 'data set') for m in ('time', 'memory')} and r['growth/data set/time'].ours == 0

def test_a_start_finds_everybody_and_cuts_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'cache'))
    for split, n in (('train', 301), ('val', 20)): growth.many_people(tmp_path, split, n)
    from sshpe.data.registry import load
    people = load('coco', tmp_path, 'train')
    assert len(people) == 301 and len(set(people.files.tolist())) == 151 and (people.keypoints[...,2] == 2).all()
    xy, corner = people.keypoints[...,:2], people.boxes[:,None,:2]
    assert ((xy >= corner-.1) & (xy <= corner+people.boxes[:,None,2:]+.1)).all()
    growth.started(str(tmp_path), first=True)
    pages = {f: f.stat().st_mtime_ns for f in (tmp_path/'cache').glob('*/0*')}
    assert growth.started(str(tmp_path))['seconds'] > 0 and len(pages) == 3
    assert {f: f.stat().st_mtime_ns for f in (tmp_path/'cache').glob('*/0*')} == pages

def test_processes_that_cannot_start_are_not_run(monkeypatch):
    def fails(*a): raise RuntimeError('no launcher')
    monkeypatch.setattr(use, 'launched', fails); monkeypatch.setattr(use, 'cores', lambda: 2)
    assert [(r.ours, r.note) for r in use.process_rows()] == [(None, 'not run: RuntimeError: no launcher')]*2
    monkeypatch.setattr(use, 'launched', lambda n, threads, steps: dict(step=10.*n, share=float(n)))
    step, share = use.process_rows()
    assert step.ratio == 2. and share.ours == .1

# the parts

@pytest.mark.parametrize('part', ['heatmap', 'mix', 'views', 'store', 'feed', 'use', 'evaluation', 'explore', 'gpu', 'demo'])
def test_a_quick_part_has_rows_with_all_fields(part):
    lines = []
    d = rows.bench([part], quick=True, tell=lines.append)
    assert set(d) == {'machine', 'quick', 'seconds', 'rows', 'curves'} and d['rows'] == lines and lines and d['curves'] == {}
    for r in json.loads(json.dumps(d))['rows']:
        assert set(r) == FIELDS and r['name'].startswith(part) and r['what'] and r['better'] in ('lower', 'higher')
        assert (r['ours'] is None) == r['note'].startswith('not run: ') and (r['ours'] is None or r['ours'] > 0 or r['target'] == 0)
    assert len({r['name'] for r in lines}) == len(lines)

def test_noise_photos_are_as_heavy_as_cocos():
    f = pipeline.photo(3)
    assert Image.open(io.BytesIO(f)).size == (640, 480) and 120_000 < len(f) < 200_000 and f == pipeline.photo(3) != pipeline.photo(4)

def test_an_unknown_part_is_refused():
    with pytest.raises(InputError, match="'heatmaps'.*'heatmap'"): rows.bench(['heatmaps'])

@pytest.mark.parametrize('name, without', [('bench', set()), ('bench-fp32', {'gpu', 'feed', 'use', 'growth', 'processes'})])
def test_the_stored_tables_are_whole(name, without):
    d = json.loads((home()/f'data/results/{name}.json').read_text())
    assert d['quick'] is False and set(d['curves']) >= set(rows.CURVES)-without and all(set(r) == FIELDS for r in d['rows'])
    assert {r['name'].split('/')[0] for r in d['rows']} >= set(rows.BENCH_PARTS)-without
    for r in d['rows']:
        row = Comparison(**{k: r[k] for k in FIELDS-{'ratio', 'ok'}})
        assert row.ok == r['ok'] and (row.ratio is None or row.ratio == pytest.approx(r['ratio'], rel=1e-3, abs=1e-4))

def test_the_command_line(capsys):
    from sshpe.cli import main
    assert main(['bench', '--quick', '--json', '--only', 'demo', 'gpu']) == 0
    d = json.loads(capsys.readouterr().out)
    assert [r['name'].split('/')[0] for r in d['rows']][-1] == 'gpu'
    assert main(['bench', '--quick', '--only', 'gpu']) == 0
    assert 'gpu' in capsys.readouterr().out
    assert main(['bench', '--only', 'nothing']) == 2 and 'nothing' in capsys.readouterr().err

def test_a_process_holds_what_it_took_itself():
    "Not what the process held that started it: a large parent must not hide what a step takes."
    import numpy as np
    from sshpe.bench import growth
    from sshpe.bench.pipeline import python
    large = np.ones(2**27)  # 1 GB in this process
    take = '''import numpy as np; from sshpe.bench.growth import held, holding
x = np.ones(2**20); del x # 8 MB for a moment: held, and not held any more
most, now = held(), holding(); x = np.ones(2**24); print(most, held()-now)'''
    before, more = map(int, python('-c', take).split())
    assert before < large.nbytes and 2**27 <= more < 2**27+2**25
