"""Files that want to run code or reach other files: each is refused in one sentence, nothing runs, nothing outside is touched."""
import ast, io, json, os, pickle, shutil, struct, subprocess, sys, time, zipfile
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from sshpe.data import archives, coco, sources, verify
from sshpe.runs import result, run, training
from sshpe.errors import InputError
from sshpe.data.coco import whole_photos
from sshpe.data.crops import build_store
from sshpe.data.registry import load
from sshpe.train.learner import Learner
from sshpe.models.posenet import build, load_backbone
from sshpe.data.split import read_split
from sshpe.data.toy import stick_people
from test_sources import aic_entry, mpii_entry, write_aic, write_mpii

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def mark(tmp_path):
    "The file that hostile code would make; it must never be there."
    m = tmp_path/'code-was-run'
    yield m
    assert not m.exists()


class Bomb:
    "A pickle that runs a command when it is read."
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.system, (f'touch "{self.mark}"',)


def test_the_bomb_is_real(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path/'m')))
    assert (tmp_path/'m').exists()


def bombs(mark):
    "The same code in every wrapping that a reader of arrays or weights might open."
    out = {f'pickle {p}': pickle.dumps(Bomb(mark), p) for p in (0, 2, 5)}
    for name, zipped in (('torch', True), ('old torch', False)):
        torch.save(dict(student=Bomb(mark), t=1), f := io.BytesIO(), _use_new_zipfile_serialization=zipped); out[name] = f.getvalue()
    array = np.array([Bomb(mark)], object)
    np.save(f := io.BytesIO(), array, allow_pickle=True); out['npy'] = f.getvalue()
    np.savez(f := io.BytesIO(), **dict.fromkeys((*coco.INDEX_COLUMNS, 'about'), array)); out['npz'] = f.getvalue()
    return out


KINDS = 'pickle 0', 'pickle 2', 'pickle 5', 'torch', 'old torch', 'npy', 'npz'
every_bomb = pytest.mark.parametrize('kind', KINDS)


# ---------------------------------------------------------------- files that carry code

@every_bomb
def test_run_folders_carry_no_code(kind, done, mark, tmp_path):
    bomb, x = bombs(mark)[kind], done.learner
    where = tmp_path/'run'
    for name in ('state.pt', 'model.safetensors', 'config.json', 'metrics.json', 'log.csv', 'split.json'):
        shutil.rmtree(where, ignore_errors=True); shutil.copytree(done.where, where)
        (where/name).write_bytes(bomb)
        with pytest.raises(InputError):
            if name == 'state.pt': Learner(x.r, x.p, x.lab, x.unl, x.skeleton, 0, 'cpu').load(where/name)
            elif name == 'split.json': read_split(where/name)
            elif name == 'log.csv': run.read_log(where/name)
            elif name == 'metrics.json': run.read_metrics(where)
            else: result.load(where, 'cpu')
        assert isinstance(run.runs(tmp_path), list)


@every_bomb
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors', '.bin'])
def test_weights_carry_no_code(kind, suffix, mark, tmp_path):
    f = tmp_path/f'w{suffix}'
    f.write_bytes(bombs(mark)[kind])
    with pytest.raises(InputError, match='is not a file of weights'): load_backbone(build('narrow18', 17, 16), f)
    with pytest.raises(InputError, match='is not a file of weights'): build('narrow18', 17, 16, str(f))


@every_bomb
def test_data_sets_carry_no_code(kind, mark, tmp_path):
    bomb, root = bombs(mark)[kind], stick_people(tmp_path/'sticks', 3, 1, 64)
    (root/'joints.mat').write_bytes(bomb); (root/'images').mkdir(); (root/'boxes.json').write_bytes(bomb)
    with pytest.raises(InputError): load('lspet', root)
    with pytest.raises(InputError): load('people', root, 'train', boxes=str(root/'boxes.json'))
    photo = next((root/'train').iterdir()); photo.write_bytes(bomb)
    with pytest.raises(InputError, match='is not a whole picture'): build_store(load('people', root), cache=tmp_path/'cache')
    with pytest.raises(InputError): load('folder', root/'train', bad='refuse')
    (root/'annotations/person_keypoints_train.json').write_bytes(bomb)
    with pytest.raises(InputError): load('people', root)
    assert not verify.verify('people', root, ['train'])['usable']


@every_bomb
def test_caches_carry_no_code(kind, mark, tmp_path, monkeypatch):
    bomb, root = bombs(mark)[kind], stick_people(tmp_path/'sticks', 3, 1, 64)
    monkeypatch.setattr(coco, 'LARGE', 0); monkeypatch.setenv('SSHPE_CACHE', str(tmp_path/'cache'))
    p = load('people', root)
    truth = build_store(p).canvases[:]
    index, = (tmp_path/'cache').glob('index-*.npz')
    page, = (tmp_path/'cache').rglob('00000')
    index.write_bytes(bomb); page.write_bytes(bomb)
    q = load('people', root)
    assert (build_store(q).canvases[:] == truth).all() and (q.keypoints == p.keypoints).all()       # both were made anew
    index.write_bytes(bomb[:len(bomb)//2])
    assert (load('people', root).boxes == p.boxes).all()


BAD = {'pickle', 'cPickle', '_pickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal', 'tarfile'}


def code_of(p):
    "The Python of a module or of a notebook."
    if p.suffix == '.py': return p.read_text()
    cells = [''.join(c['source']) for c in json.loads(p.read_text())['cells'] if c['cell_type'] == 'code']
    return '\n'.join(l for s in cells if not s.startswith('%%') for l in s.splitlines() if not l.lstrip().startswith(('%', '!')))


DOORS = {'torch.load': ('weights_only', True), 'np.load': ('allow_pickle', False), 'np.lib.format.read_array': ('allow_pickle', False)}
NEVER = {'eval', 'exec', 'compile', '__import__', 'os.system', 'torch.hub.load', 'shutil.unpack_archive', 'yaml.unsafe_load', 'yaml.full_load'}


def test_no_door_is_left_open():
    "What reads a file in the package, in the notebooks and in the runs never unpickles, never evaluates."
    seen = set()
    for p in [*(ROOT/'sshpe').rglob('*.py'), *(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)]:
        text = code_of(p)
        nodes = list(ast.walk(ast.parse(text)))
        names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names] + [n.module or '' for n in nodes if isinstance(n, ast.ImportFrom)]
        assert not {n.split('.')[0] for n in names} & BAD, p
        for c in (n for n in nodes if isinstance(n, ast.Call)):
            f, given = ast.unparse(c.func), {k.arg: getattr(k.value, 'value', None) for k in c.keywords}
            if f in DOORS: seen.add(f); assert given.get(DOORS[f][0]) is DOORS[f][1], (p, f)
            assert f not in NEVER and 'shell' not in given, (p, f)
            if f == 'yaml.load': assert 'yaml.SafeLoader' in text, p
    assert seen == set(DOORS)


# ---------------------------------------------------------------- weights with absurd headers

def tensors(head, body=b'\0'*64, n=None):
    h = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack('<Q', len(h) if n is None else n) + h + body


F = dict(dtype='F32', shape=[4], data_offsets=[0, 16])
def one(**more): return tensors(dict(a=F | more))


ABSURD = {
    'header of 2**63 bytes': tensors(b'{}', n=2**63), 'header of 2**64-1 bytes': tensors(b'{}', n=2**64-1),
    'header longer than the file': tensors(b'{}', n=10**6), 'a tensor of 2**60 numbers': one(shape=[2**30, 2**30]),
    'negative shape': one(shape=[-4]), 'negative offsets': one(data_offsets=[-16, 0]), 'offsets beyond the end': one(data_offsets=[0, 2**40]),
    'unknown type': one(dtype='OBJECT'), 'overlapping': tensors(dict(a=F, b=F)), 'a list': tensors([1, 2]), 'deep': tensors(b'['*100_000),
    'ten million bytes of names': tensors(b'{' + b'"a":{},'*10**6 + b'}'), 'nothing': b'', 'eight bytes': b'\0'*8, 'nothing in it': tensors({}, b'')}


@pytest.mark.parametrize('kind', ABSURD)
def test_absurd_headers_are_refused_at_once(kind, done, tmp_path):
    import resource
    shutil.copytree(done.where, tmp_path/'run')
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.time()
    for f in (tmp_path/'w.safetensors', tmp_path/'run/model.safetensors'): f.write_bytes(ABSURD[kind])
    with pytest.raises(InputError): load_backbone(build('narrow18', 17, 16), tmp_path/'w.safetensors')
    with pytest.raises(InputError): result.load(tmp_path/'run', 'cpu')
    assert time.time()-start < 10 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before < 500_000 # kB


# ---------------------------------------------------------------- paths that lead out

AWAY = ['../secret.jpg', '../../secret.jpg', 'a/../../secret.jpg', '{tmp}/secret.jpg', '..\\secret.jpg', 'a\\..\\..\\secret.jpg',
        '\\secret.jpg', '\\\\host\\share\\secret.jpg', 'C:\\secret.jpg', 'C:secret.jpg', 'c:/secret.jpg', '//host/secret.jpg',
        'file:///secret.jpg', '../', '', '\0', 'a\0/../../secret.jpg']


@pytest.fixture
def watched(tmp_path, monkeypatch):
    "A secret beside the data set; fails when anything but the data set is opened as a photo."
    Image.new('RGB', (64, 64), (1, 2, 3)).save(tmp_path/'secret.jpg')
    opened, real = [], Image.open
    def watch(f, *a, **kw):
        if not isinstance(f, io.BytesIO): opened.append(Path(f).resolve())
        return real(f, *a, **kw)
    monkeypatch.setattr(Image, 'open', watch)
    yield
    root = (tmp_path/'d').resolve()
    assert [p for p in opened if p != root and root not in p.parents] == []


@pytest.mark.parametrize('file', AWAY)
@pytest.mark.parametrize('name', ['coco', 'aic', 'mpii', 'boxes'])
def test_json_cannot_leave_the_data_s_folder(name, file, tmp_path, watched):
    root, file = tmp_path/'d', file.replace('{tmp}', str(tmp_path))
    boxes = ''
    if name in ('coco', 'boxes'):
        stick_people(root, 3, 1, 64)
        f = root/'annotations/person_keypoints_train.json'
        d = json.loads(f.read_text()); d['images'][1]['file_name'] = file; f.write_text(json.dumps(d))
        found = [dict(image_id=i, category_id=1, bbox=[1, 1, 30, 30], score=.9) for i in (1, 2, 3)]
        (root/'boxes.json').write_text(json.dumps(found))
        if name == 'boxes': boxes = str(root/'boxes.json')
    elif name == 'aic':
        file = file.removesuffix('.jpg')
        write_aic(root, [aic_entry('1'), aic_entry('2')])
        write_aic(root, [aic_entry('1'), aic_entry(file)], photos=False)
    else: write_mpii(root, [mpii_entry('000001.jpg'), mpii_entry(file, 1)])
    data_name = 'coco' if name == 'boxes' else name
    with pytest.raises(InputError) as e: load(data_name, root, 'train', 'refuse', boxes)
    assert any('points out of' in s or 'has no photo' in s for s in e.value.problems) and '\n' not in str(e.value)
    out = '..' in file or file[1:2] == ':' or file.startswith(('/', '\\'))
    assert any("points out of the photos' folder" in s for s in e.value.problems) or not out
    with pytest.warns(UserWarning, match='left out'): p = load(data_name, root, 'train', 'mend', boxes)
    assert all(f in ('000001.png', '000003.png', '1.jpg', '000001.jpg') for f in p.files)
    if not boxes: assert not verify.verify(name, root, ['train'], decode=True)['splits']['train']['problems'] == {}


def test_links_of_the_owner_are_followed(tmp_path):
    "A link on the disk is its owner's doing; what it leads to is opened as a picture and nothing else. Archives may not bring any."
    root = stick_people(tmp_path/'sticks', 3, 1, 64)
    photo, away = root/'train/000002.png', tmp_path/'elsewhere.png'
    photo.rename(away); photo.symlink_to(away)
    assert build_store(load('people', root), cache=tmp_path/'c').canvases.shape[0] == 3
    (tmp_path/'linked').symlink_to(root)
    assert len(load('people', tmp_path/'linked')) == 3
    photo.unlink(); (tmp_path/'key').write_text('-----BEGIN PRIVATE KEY-----'); photo.symlink_to(tmp_path/'key')
    with pytest.raises(InputError, match='is not a whole picture') as e: build_store(load('people', root), cache=tmp_path/'c')
    assert 'PRIVATE' not in str(e.value)


def test_a_pipe_is_no_photo(tmp_path):
    "It would never end."
    root = stick_people(tmp_path/'sticks', 3, 1, 64)
    photo = root/'train/000002.png'
    photo.unlink(); os.mkfifo(photo)
    with pytest.raises(InputError, match='has no photo'): load('people', root, bad='refuse')


OUT = ['../out.jpg', '/out.jpg', 'val2017/../../out.jpg', 'C:\\out.jpg', '..\\out.jpg', 'val2017\\..\\..\\out.jpg', '\\\\host\\out.jpg',
       'other/out.jpg', '.download/out.jpg']


@pytest.mark.parametrize('name', OUT)
def test_archives_cannot_leave_their_folder(name, tmp_path):
    root = tmp_path/'coco'; (root/'.download').mkdir(parents=True)
    f = root/'.download/a.zip'
    with zipfile.ZipFile(f, 'w') as z: z.writestr('val2017/1.jpg', 'x'); z.writestr(name, 'hostile')
    with pytest.raises(InputError, match='would land outside'): archives.unpack(f, root, ('val2017',))
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['.download', 'coco']


def test_archives_bring_no_links(tmp_path):
    root = tmp_path/'coco'; (root/'.download').mkdir(parents=True)
    f, link = root/'.download/a.zip', zipfile.ZipInfo('val2017/1.jpg')
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(f, 'w') as z: z.writestr(link, '../../../secret')
    with pytest.raises(InputError, match='would land outside'): archives.unpack(f, root, ('val2017',))
    assert not (root/'val2017').exists()


# ---------------------------------------------------------------- text that wants to be code

GRIDS = ['!!python/object/apply:os.system ["touch {m}"]', 'blocks: [!!python/object/apply:os.system ["touch {m}"]]',
         'blocks:\n- recipe: !!python/object/new:subprocess.Popen [["touch", "{m}"]]', 'blocks: !!python/name:os.system', 'a: &a [x, x]\nblocks: [*a]',
         'blocks:\n- recipe: supervised\n  tau: \'__import__("os").system("touch {m}")\'',
         'blocks:\n- recipe: supervised\n  out: "$(touch {m})"\n  seed: ["`touch {m}`"]']


@pytest.mark.parametrize('text', GRIDS)
def test_grids_run_nothing(text, mark, tmp_path):
    sweep = pytest.importorskip('sshpe.experiments.sweep')
    (tmp_path/'g.yaml').write_text(text.format(m=mark))
    with pytest.raises(InputError) as e: sweep.plan(str(tmp_path/'g.yaml'), str(tmp_path/'out'))
    assert '\n' not in str(e.value)


CODE = ['__import__("os").system("touch {m}")', 'Uniform.__init__.__globals__["os"].system("touch {m}")', '(lambda: open("{m}", "w"))()',
        '[open("{m}", "w") for x in (1,)]', 'Uniform(open("{m}", "w"), 1)', 'Mix(**{{"x": open("{m}", "w")}})', 'f"{{open(\'{m}\', \'w\')}}"',
        '(x := open("{m}", "w"))', 'Uniform(*open("{m}", "w"))', 'eval("1")', '('*5000]


@pytest.mark.parametrize('code', CODE)
def test_overrides_are_values_not_code(code, mark):
    from sshpe.ssl.recipe import literal
    text = code.format(m=mark)
    assert literal(text) == text                                                        # nothing but the text itself
    for key in ('tau', 'weak.scale', 'student_branches', 'size', 'K'):
        with pytest.raises(InputError): training.settle(run.config(dict(override={key: text})))
    for c in (dict(recipe=text), dict(preset=text), dict(unlabelled=text)):
        with pytest.raises(InputError):
            c = run.config(c)
            training.settle(c); sources.sources(c.unlabelled)


def test_parameters_of_notebooks_are_values_not_code(mark, tmp_path):
    "Whatever a text holds, it arrives as that text."
    import nbformat
    from sshpe.runs import notebook
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('a, b, c = 0, 0, 0', metadata=dict(tags=['parameters'])),
                                         nbformat.v4.new_code_cell('import json; json.dump([a, b, c], open(out, "w"))')])
    nb.metadata.kernelspec = dict(name='python3', display_name='python3', language='python')
    nbformat.write(nb, tmp_path/'n.ipynb')
    evil = [f'x"; import os; os.system("touch {mark}") #', f"x'); __import__('os').system('touch {mark}'); ('",
            f'"""\nimport os; os.system("touch {mark}")\n"""', f'\\"; open("{mark}", "w") #', '{a.__class__}', '%run evil', '!touch x', '\\', '\\\n', '\u2028', 'é\x85ñ', '\r\n']
    given = dict(a=evil, b={e: e for e in evil}, c=[float('inf'), True, None, -1], out=str(tmp_path/'out.json'))
    notebook.execute(tmp_path/'n.ipynb', tmp_path/'done.ipynb', given)
    assert json.loads((tmp_path/'out.json').read_text()) == [given['a'], given['b'], given['c']]


@pytest.mark.parametrize('name', ['a{b}', '{0}', '{', '}', 'a b', "it's", 'ünïcode', '$HOME', '-x'])
def test_folders_of_any_name(name, tmp_path):
    "A run's folder is a folder, not a template."
    import nbformat
    from sshpe.runs import notebook
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('nothing')])
    nb.metadata.kernelspec = dict(name='python3', display_name='python3', language='python')
    nbformat.write(nb, tmp_path/'n.ipynb')
    made = []
    import papermill
    real = papermill.execute_notebook
    def plan(i, o, *a, **kw): made.append(real(i, o, *a, prepare_only=True, **kw))
    papermill.execute_notebook = plan
    try: notebook.execute(tmp_path/'n.ipynb', tmp_path/name/'done.ipynb', dict(a=1))
    finally: papermill.execute_notebook = real
    assert (tmp_path/name/'done.ipynb').is_file() and sorted(p.name for p in tmp_path.iterdir()) == sorted(['n.ipynb', name])


def asked(url, token=''): # -> the answer's code
    "A request to a server, with or without its token."
    import urllib.error, urllib.request
    try: return urllib.request.urlopen(urllib.request.Request(url, headers={'Authorization': f'token {token}'} if token else {}), timeout=60).status
    except urllib.error.HTTPError as e: return e.code


def test_the_lab_is_ours_alone(tmp_path):
    "`make lab` as it is written: it listens on loopback only, and answers nobody without its token."
    import psutil
    [said] = [l for l in subprocess.run(['make', '-n', 'lab', 'ARGS='], cwd=ROOT, capture_output=True, text=True).stdout.splitlines() if '/jupyter ' in l]
    assert not any(w in said for w in ('token', 'password', 'allow', '0.0.0.0', '*'))
    if not (jupyter := Path(sys.executable).parent/'jupyter').exists(): pytest.skip('JupyterLab is not installed')
    own = {f'JUPYTER_{k}_DIR': str(tmp_path/k) for k in ('CONFIG', 'RUNTIME', 'DATA')}
    more = ['--no-browser', '--port=0'] + ['--allow-root']*(os.geteuid() == 0)
    p = subprocess.Popen([jupyter, *said.split()[1:], *more], cwd=ROOT, env={**os.environ, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.time()+240
        while not (found := list(tmp_path.glob('RUNTIME/jpserver-*.json'))) and p.poll() is None and time.time() < end: time.sleep(.2)
        d = json.loads(found[0].read_text())
        while not (heard := [c.laddr for c in psutil.Process(d['pid']).net_connections('inet') if c.status == 'LISTEN']) and time.time() < end: time.sleep(.2)
        assert {a.ip for a in heard} <= {'127.0.0.1', '::1'}
        kernels = f'http://127.0.0.1:{heard[0].port}/api/kernels'
        assert len(d['token']) >= 32 and [asked(kernels), asked(kernels, 'x'*48), asked(kernels, d['token'])] == [403, 403, 200]
    finally: p.terminate(); p.wait(60)
