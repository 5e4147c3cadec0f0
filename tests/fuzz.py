"""Damaged files for everything that reads files: each case must end well or in one sentence (`InputError`).

    python tests/fuzz.py [--cases 10000 | --guided SECONDS] [--seed 0] [--only coco,split] [--limit 20] [--json data/results/trust.json]

The search is guided by coverage: a file that reaches a line of the kit which no file reached before is kept, and damaged
further; `--guided` does so for a given time, and starts nine times out of ten from what was kept. The same seed tries the
same cases. A failure is printed with its number; `--only NAME --case NUMBER` leads to it again, `--dump FILE` writes its bytes.
"""
import argparse, copy, io, json, math, os, random, shutil, signal, struct, sys, tempfile, time, traceback, warnings, zipfile, zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from sshpe.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- damage

EDGES = [0, 1, 2, 7, 8, 127, 128, 255, 2**15, 2**16-1, 2**24, 2**31-1, 2**31, 2**32-1, 2**53, 2**63-1, 2**63, 2**64-1]
NUMBERS = [0, 1, -1, 2, 3, 17, .5, 1e-9, 1e9, 1e300, float('nan'), float('inf'), -float('inf'), 2**31, 2**63, -2**63, 10**40]
TEXTS = ['', 'x', '0', '1e5', 'person', '../x.jpg', '/etc/passwd', 'C:\\x.jpg', 'x\0y', '\ud800', 'é', 'a'*300, '{x}', '{{', '$HOME', '%s',
         'nan', 'inf', 'None', '[', '0x10', '1_0', '1.jpg', 'resnet152', 'coco', 'rest', 'people:wild', '((),)', 'Uniform(0, 1)', 'Mix()']
WORDS = [None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], [1], [1, 2, 3, 4], {'a': 1}, [None]]


def shake(r, b:bytes, others=())->bytes:
    "Bytes with one to six changes."
    b = bytearray(b)
    for _ in range(r.randint(1, r.choice((1, 2, 6)))):
        i, n = r.randrange(len(b)+1), r.choice((1, 2, 4, 8, 64, 1024))
        k = r.randrange(9)
        if k == 0 and i < len(b): b[i] ^= 1 << r.randrange(8)
        elif k == 1: b[i:i+1] = bytes([r.randrange(256)])
        elif k == 2: b[i:i] = bytes(r.randrange(256) for _ in range(min(n, 8)))
        elif k == 3: del b[i:i+n]
        elif k == 4: b[i:i] = b[i:i+n]
        elif k == 5: del b[i:]
        elif k == 6:
            w, m = struct.pack(r.choice('<>')+'Q', r.choice(EDGES)), r.choice((1, 2, 4, 8))
            b[i:i+m] = w[:m] if r.random() < .5 else w[8-m:]
        elif k == 7: b[i:i+n] = bytes(n)
        elif others: o = r.choice(others); j = r.randrange(len(o)+1); b[i:i+n] = o[j:j+n]
    return bytes(b)


def places(d, at=()):
    "All keys and indices in a json value, with their containers."
    out, todo = [], [d]
    while todo:
        c = todo.pop()
        for k in (list(c) if isinstance(c, dict) else range(min(len(c), 400)) if isinstance(c, list) else ()):
            out.append((c, k))
            todo.append(c[k])
    return out


def twist(r, d):
    "A json value with one to five changes of its structure or its leaves."
    d = copy.deepcopy(d)
    for _ in range(r.randint(1, r.choice((1, 2, 5)))):
        found = places(d)
        if not found: return r.choice(WORDS)
        deep = [f for f in found if not isinstance(f[0][f[1]], (dict, list))] or found
        c, k = r.choice(deep if r.random() < .6 else found)
        v, how = c[k], r.randrange(9)
        if how < 3: c[k] = copy.deepcopy(r.choice(WORDS))
        elif how == 3: del c[k]
        elif how == 4 and type(v) in (int, float):
            c[k] = r.choice((-v, v*1000, v+.5, v+1, v-1, str(v), bool(v), [v], int(v) if math.isfinite(v) else 0))
        elif how == 5 and isinstance(c, list): c.insert(r.randrange(len(c)+1), copy.deepcopy(v))
        elif how == 6 and isinstance(c, dict): c[r.choice([*c, 'x', ''])] = copy.deepcopy(v)
        elif how == 7: o, q = r.choice(found); c[k] = copy.deepcopy(o[q]) if len(str(o)) < 5000 else 0
        else: c[k] = r.choice(([v], {'x': v}, copy.deepcopy(r.choice(WORDS))))
    return d


def twist_json(r, b, others=()):
    try: d = json.loads(b)
    except ValueError: return shake(r, b, others)
    return shake(r, b, others) if r.random() < .15 else json.dumps(twist(r, d)).encode()


def twist_text(r, b, others=()):
    "Lines and cells of a csv or yaml."
    lines = b.decode('latin1').split('\n')
    for _ in range(r.randint(1, 4)):
        i, k = r.randrange(len(lines)), r.randrange(7)
        if k == 0: del lines[i]
        elif k == 1: lines.insert(i, r.choice(lines))
        elif k == 2: return shake(r, '\n'.join(lines).encode('latin1'), others)
        else:
            cells = lines[i].split(sep := r.choice((',', ' ', ': ')))
            cells[r.randrange(len(cells))] = str(r.choice(WORDS)).encode('ascii', 'ignore').decode()
            lines[i] = sep.join(cells)
        if not lines: return b''
    return '\n'.join(lines).encode('latin1')


def twist_mat(r, b, others=()):
    "A MATLAB file, its compressed element opened first."
    try:
        n, = struct.unpack_from('<I', b, 132)
        inner = zlib.decompressobj().decompress(b[136:136+n], 2**20)
        packed = zlib.compress(shake(r, inner, others))
        return b[:128] + struct.pack('<II', 15, len(packed)) + packed if r.random() < .7 else shake(r, b, others)
    except Exception: return shake(r, b, others)


def twist_zip(r, b, others=()):
    "A zip: one member damaged, its checksum mended; or the whole."
    if r.random() < .3: return shake(r, b, others)
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(b)) as z, zipfile.ZipFile(out, 'w') as w:
            names = z.namelist()
            bad = r.choice([n for n in names if n.endswith('.pkl') and r.random() < .6] or names)
            for n in names:
                x = z.read(n)
                name = r.choice((n, n, n, f'../{n}', f'/{n}', n+'/', 'x', '')) if n == bad else n
                w.writestr(name, shake(r, x, others) if n == bad else x)
    except Exception: return shake(r, b, others)
    return out.getvalue()


def twist_state(r, b, others=()):
    "A checkpoint: its values and tensors changed and saved as torch does."
    import torch
    if r.random() < .4: return twist_zip(r, b, others)
    try: s = torch.load(io.BytesIO(b), weights_only=True)
    except Exception: return shake(r, b, others)
    for _ in range(r.randint(1, 3)):
        if not (found := places(s)): break
        c, k = r.choice(found)
        v = c[k]
        tensors = [torch.zeros(0), torch.full((3,), float('nan')), torch.ones(2, 2, dtype=torch.int64)]
        whole = torch.is_tensor(v) and v.layout == torch.strided
        if whole: tensors += [v.double(), v.half(), v*float('nan'), v.flatten(), v.to(torch.int8)]
        if whole and v.dim(): tensors += [v[:0], v.to_sparse()]
        k2 = r.randrange(4)
        if k2 == 0: del c[k]
        elif k2 == 1: c[k] = r.choice(tensors)
        else: c[k] = r.choice([w for w in WORDS if w != '\ud800'])
    out = io.BytesIO(); torch.save(s, out)
    return out.getvalue()


def twist_safetensors(r, b, others=()):
    "Header and length fit each other again, or not."
    n = int.from_bytes(b[:8], 'little')
    if r.random() < .4 or 8+n > len(b): return shake(r, b, others)
    head = twist_json(r, b[8:8+n])
    return (len(head) if r.random() < .8 else r.choice(EDGES)).to_bytes(8, 'little') + head + b[8+n:]


# ---------------------------------------------------------------- what is damaged, and what must hold afterwards

@dataclass
class Target:
    "A kind of file."
    name:str
    seeds:list # of whole files, bytes
    damage:object # (random, bytes, other files) -> bytes
    read:object # (bytes) -> asserts what must hold; raises InputError at will
    share:int = 10 # of the cases
    kept:list = field(default_factory=list) # files that reached new lines
    whole:float = .4 # share of the cases that start from a whole file
    said:str = '' # why the last one was refused

    def case(self, r): # -> bytes
        pool = self.seeds + self.kept
        b = r.choice(self.seeds if r.random() < self.whole else pool)
        for _ in range(r.choice((1, 1, 1, 2, 3))): b = self.damage(r, b, pool)
        return b


def sound(p, J=None):
    "People who were accepted: every value is one that training can use."
    n, (x, y, w, h) = len(p), p.boxes.T
    assert n and p.keypoints.shape == (n, len(p.skeleton), 3) and p.boxes.shape == (n, 4) and p.sizes.shape == (n, 2)
    assert p.areas.shape == p.files.shape == p.image_ids.shape == (n,)
    assert len(set(p.ann_ids.tolist())) == n and p.ann_ids.dtype == p.image_ids.dtype == np.int64
    assert np.isfinite(p.boxes).all() and (w >= 1).all() and (h >= 1).all() and (p.areas > 0).all() and np.isfinite(p.areas).all()
    (W, H), k = p.sizes.T, p.keypoints
    assert (W > 0).all() and (H > 0).all() and (x < W).all() and (y < H).all() and (x+w > 0).all() and (y+h > 0).all()
    assert np.isin(k[...,2], (0, 1, 2)).all()
    on = k[...,2] > 0
    assert np.isfinite(k[on]).all() and (k[...,:2][on] >= -2).all()
    assert (k[...,0] <= W[:,None]+1)[on].all() and (k[...,1] <= H[:,None]+1)[on].all()
    root = p.root.resolve()
    for f in set(p.files.tolist()): assert (root/f).resolve().is_file() and root in (root/f).resolve().parents
    s = p.skeleton
    assert len(set(s.joints)) == len(s.joints) == len(s.sigmas) and sorted(s.flip) == list(range(len(s)))
    assert all(0 <= j < len(s) for l in s.limbs for j in l)


class Lab:
    "Whole files of every kind, and the functions that read them, in a folder."
    def __init__(self, tmp): self.tmp, self.made = Path(tmp), {}

    def clean(self, folder): # no half-written file is left
        left = [p.name for p in Path(folder).rglob('.*') if p.is_file() and p.name != '.lock']
        assert not left, f'left behind: {left}'

    def cut(self, p):
        from sshpe.data.crops import build_store
        cache = self.tmp/'cache'
        shutil.rmtree(cache, ignore_errors=True)
        try: s = build_store(p, (32, 32), 1.5, cache=cache, workers=1, raw=int(p.ann_ids[0]) % 2*2**32)
        finally: self.clean(cache)
        c = s.canvases[:]
        assert c.shape == (len(p), 48, 48, 3) and all(np.isfinite(a).all() for a in (s.keypoints, s.matrix, s.extent, s.inside))
        return s

    def measure(self, p):
        from sshpe.evaluate.metrics import evaluate
        m = evaluate(p, p.keypoints[...,:2], np.full(p.keypoints.shape[:2], .5))
        assert all(v is None or 0 <= v <= 100+1e-6 for v in (m['AP'], m['AP_box'], m['PCK']))
        fine = min(p.skeleton.sigmas) < 1e-3 or m['AP_box'] is None or m['AP_box'] > 99
        assert fine, m['AP_box'] # the truth itself is right, unless no rounding is forgiven

    def verify(self, name, root): # json, and a text for a terminal
        from sshpe.data import verify
        r = verify.verify(name, root, ['train'])
        json.dumps(r)
        for line in verify.report_lines(r): assert '\n' not in line and line.encode()

    # ------ data sets

    @cached_property
    def sticks(self):
        from sshpe.data.toy import stick_people
        return stick_people(self.tmp/'sticks', 6, 2, 64)

    def coco(self):
        from sshpe.data import coco, people, registry
        f = self.sticks/'annotations/person_keypoints_train.json'
        whole = json.loads(f.read_text())
        more = copy.deepcopy(whole)
        more['annotations'][0] |= dict(iscrowd=1, segmentation=dict(counts=[1, 2], size=[64, 64]))
        more['annotations'][1] |= dict(num_keypoints=0, keypoints=[0]*51)
        more['categories'].append(dict(id=2, name='dog'))
        names = [f'{s}_{i}' for i in range(8) for s in 'LR'] + ['tip']
        more['categories'][0] |= dict(keypoints=names, skeleton=[[1, 3]], sigmas=[.1]*17)
        def as_it_stands(p, d): # nobody has other numbers than the file says under their id
            def under(rows, id): return [r for r in rows if isinstance(r, dict) and type(r.get('id')) is int and r['id'] == id]
            def alike(mine, its):
                try: return np.array_equal(mine, np.float32(its))
                except (TypeError, ValueError): return False
            for i, (n, im) in enumerate(zip(p.ann_ids.tolist(), p.image_ids.tolist())):
                assert any(alike(p.keypoints[i].ravel(), a.get('keypoints')) and alike(p.boxes[i], a.get('bbox')) and a.get('image_id') == im and not a.get('iscrowd') for a in under(d['annotations'], n))
                assert p.files[i] in [str(r.get('file_name')).rstrip('\0') for r in under(d['images'], im)]
        def read(b):
            f.write_bytes(b)
            accepted = 0
            for bad in ('refuse', 'mend'):
                try: p = registry.load('coco', self.sticks, 'train', bad)
                except InputError: continue
                sound(p); self.cut(p); self.measure(p)
                if bad == 'refuse': as_it_stands(p, json.loads(b))
                accepted += 1
            self.verify('coco', self.sticks)
            if not accepted: raise InputError('refused')
        return Target('coco', [f.read_bytes(), json.dumps(more).encode()], twist_json, read, 30)

    def index(self):
        from sshpe.data import coco, mend, people, registry
        path = self.tmp/'index.npz'
        coco.keep(path, *coco.coco_index(self.sticks/'annotations/person_keypoints_val.json')); whole = path.read_bytes()
        def read(b):
            path.write_bytes(b)
            found = coco.kept_index(path)
            if not found: raise InputError('read again')
            p, findings = found
            sound(mend.checked(people.replace(p, root=self.sticks/'val', name='x'), path, findings))
        return Target('index', [whole], twist_zip, read, 5)

    def listed(self, name, rows, folder, path, load):
        from sshpe.data import coco, people, registry
        def read(b):
            path.write_bytes(b)
            ok = 0
            for bad in ('refuse', 'mend'):
                try: p = load(bad)
                except InputError: continue
                sound(p); self.cut(p)
                if (p.keypoints[...,2] > 0).any(): self.measure(p)
                ok += 1
            if name in registry.READERS: self.verify(name, folder)
            if not ok: raise InputError('refused')
        return Target(name, [json.dumps(rows).encode()], twist_json, read, 10)

    def aic(self):
        from test_sources import aic_entry, write_aic
        from sshpe.data.registry import load
        rows, root = [aic_entry(f'{i}', 2, i) for i in range(3)], self.tmp/'aic'
        write_aic(root, rows)
        return self.listed('aic', rows, root, next(root.glob('*/*.json')), lambda bad: load('aic', root, 'train', bad))

    def mpii(self):
        from test_sources import mpii_entry, write_mpii
        from sshpe.data.registry import load
        rows, root = [mpii_entry(f'{i+1:06}.jpg', i) for i in range(3)], self.tmp/'mpii'
        write_mpii(root, rows)
        return self.listed('mpii', rows, root, root/'annot/train.json', lambda bad: load('mpii', root, 'train', bad))

    def boxes(self):
        from sshpe.data.registry import load
        rows = [dict(image_id=i, category_id=1, bbox=[5., 6, 30, 40], score=.1*i) for i in (1, 2, 2, 3)]
        f = self.tmp/'boxes.json'
        return self.listed('boxes', rows, self.sticks, f, lambda bad: load('people', self.sticks, 'val', bad, f'{f}:0.15'))

    def mat(self):
        from test_data import lsp_people, write_lsp
        from sshpe.data.registry import load
        from scipy.io import savemat
        root = self.tmp/'lsp'
        j = lsp_people(7); j[2, 3, 2] = 0; j[3, 4, :2] = 500
        write_lsp(root, j.transpose(1, 2, 0))
        seeds = []
        for packed in (False, True):
            savemat(root/'joints.mat', dict(joints=j.transpose(1, 2, 0), other=np.eye(3)), do_compression=packed)
            seeds.append((root/'joints.mat').read_bytes())
        def read(b):
            (root/'joints.mat').write_bytes(b)
            self.verify('lspet', root)
            p = load('lspet', root)
            sound(p); self.cut(p); self.measure(p)
        return Target('mat', seeds, twist_mat, read, 12)

    def photo(self):
        from PIL import Image
        from sshpe.data.people import open_photo, photo_size
        from sshpe.data.registry import load
        folder = self.tmp/'photos'; folder.mkdir()
        im = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8)).resize((40, 50))
        exif, seeds = Image.Exif(), []
        exif[0x112] = 6
        turned = dict(exif=exif)
        slow = dict(progressive=True) | turned
        for p, kind, more in ((im, 'JPEG', {}), (im, 'JPEG', slow), (im, 'PNG', turned), (im.convert('P'), 'PNG', {}), (im, 'WEBP', {})):
            out = io.BytesIO(); p.save(out, kind, **more); seeds.append(out.getvalue())
        def read(b):
            (folder/'a.jpg').write_bytes(b)
            w, h = photo_size(folder/'a.jpg')
            assert w >= 0 and h >= 0
            p = load('folder', folder)
            sound(p)
            assert open_photo(folder/'a.jpg').mode == 'RGB'
            self.cut(p)
        return Target('photo', seeds, shake, read, 12)

    # ------ splits, grids, lines

    def split(self):
        from sshpe.data.registry import load
        from sshpe.data.split import draw_split, read_split
        train, val = (load('people', self.sticks_copy, s) for s in ('train', 'val'))
        f = self.tmp/'split.json'
        seeds = []
        for others in ((), (val,)):
            draw_split(train, 3, 0, 'person', others).write(f); seeds.append(f.read_bytes())
        def read(b):
            f.write_bytes(b)
            s = read_split(f)
            lab, unl, *more = s.rows(train, *[val]*len(s.others))
            rows = np.concatenate([lab, unl])
            assert len(lab) and len(set(rows.tolist())) == len(rows) and ((rows >= 0) & (rows < len(train))).all()
            assert train.ann_ids[lab].tolist() == list(s.labelled)
            s.write(self.tmp/'again.json')
            assert read_split(self.tmp/'again.json') == s
        return Target('split', seeds, twist_json, read, 10)

    @cached_property
    def sticks_copy(self):
        from sshpe.data.toy import stick_people
        return stick_people(self.tmp/'sticks2', 16, 8, 64)

    def grid(self):
        from sshpe.experiments import sweep
        f = self.tmp/'grid.yaml'
        seeds = [p.read_bytes() for p in sorted((ROOT/'data/grids').glob('*.yaml'))]
        def read(b):
            f.write_bytes(b)
            jobs = sweep.plan(str(f), str(self.tmp/'sweep'))
            assert jobs and len({j.where for j in jobs}) == len(jobs)
        return Target('grid', seeds, twist_text, read, 6)

    def line(self):
        from sshpe.runs import run
        from sshpe.runs.command import value
        from sshpe.data.sources import full_line, sources
        from sshpe.runs.training import settle
        seeds = ['rest+coco:unlabeled2017@boxes.json:0.5=DIR\ntau=0.2\nK=3',
                 'people:wild\nroot=~/data\nout=runs/x\nsplit=a/b.json\nweights=w.pth\nweak.scale=Uniform(0.5, 2)\npaths=((JointCutout(5), Mix()),)',
                 'rest\npaths=((Mix(),),)\nmix.tiles=(3, 2)\nmix.group=2\nlr=1e-3\nsize=(96, 64)']
        def read(b):
            text, *more = b.decode('latin1').split('\n')
            kv = [m.partition('=') for m in more]
            paths = {k: v for k, _, v in kv if k in ('root', 'out', 'split', 'weights')}
            c = run.config(dict(unlabelled=text, **paths, override={k: value(v) for k, _, v in kv if k not in paths}))
            settle(c); run.as_json(c); run.source_names(text)
            if run.folder(c).parent != ROOT/'runs': run.admit(c)
        return Target('line', [s.encode() for s in seeds], twist_text, read, 10)

    # ------ runs

    @cached_property
    def run(self):
        "A finished run of two students."
        from sshpe.runs import run, training
        os.environ['SSHPE_CACHE'] = str(self.tmp/'store')
        small = dict(burn_in=2, n_labelled=2, n_unlabelled=4, every=3)
        c = run.Config(root=str(self.sticks_copy), labels=6, preset='tiny', out=str(self.tmp/'run'), steps=6, override=small)
        x = training.start(c)
        training.fit(x); training.finish(x)
        return x

    def in_run(self, name, file, damage, look, share):
        "A file of the run's folder; `look` at a copy of the folder."
        self.run
        folder = self.tmp/f'copy-{name}'
        shutil.copytree(self.tmp/'run', folder)
        def read(b):
            (folder/file).write_bytes(b)
            look(folder)
        return Target(name, [(folder/file).read_bytes()], damage, read, share)

    def about(self, folder): # what `sshpe runs`, `collect` and a sweep read
        from sshpe.experiments import summaries, paper_claims
        from sshpe.runs import run
        rows = run.runs(folder.parent/folder.name)
        run.columns(rows); json.dumps(rows, default=str)
        for r in rows: assert isinstance(r['state'], str)
        run.progress(folder)
        summaries.summary(folder); summaries.outdated(run.facts(folder))

    def config(self):
        from sshpe.runs import result, run, training
        def look(folder):
            try: self.about(folder)
            except InputError: pass
            c = run.again(folder)
            x = result.load(folder, 'cpu')
            xy, s = result.find(x, self.run.val[:2])
            assert xy.shape == (2, len(x.skeleton), 2)
        return self.in_run('config', 'config.json', twist_json, look, 10)

    def resume(self):
        from sshpe.runs import run, training
        old = self.run.config
        def look(folder):
            for n in ('metrics.json', 'state.pt'): (folder/n).unlink(missing_ok=True)
            try: x = training.start(training.run.config({**run.asdict(old), 'out': str(folder)}))
            finally: run.unlock(folder)
            who = lambda x: (x.learner.T, x.split.labelled, x.split.unlabelled)
            assert who(x) == who(self.run)
        t = self.in_run('resume', 'config.json', twist_json, look, 3)
        read, split = t.read, (self.tmp/'run/split.json').read_bytes()
        def either(b): # a damaged config.json, or a damaged split.json
            mine = b'"labelled": [' in b and b'"recipe"' not in b
            (self.tmp/'copy-resume/split.json').write_bytes(b if mine else split)
            read(t.seeds[0] if mine else b)
        t.read, t.seeds = either, [t.seeds[0], split]
        return t

    def metrics(self):
        from sshpe.runs.command import scores
        from sshpe.runs import result, run
        def look(folder):
            self.about(folder)
            m = run.read_metrics(folder)
            scores(m)
        return self.in_run('metrics', 'metrics.json', twist_json, look, 8)

    def log(self):
        from sshpe.experiments import sweep
        from sshpe.runs import notebook, run
        def look(folder):
            for r in run.read_log(folder/'log.csv'): run.line(r, 6)
            with notebook.following(folder/'log.csv', lambda t: None, lambda: 6, .01): pass
            self.about(folder)
            from sshpe.runs import pictures
            pictures.curves(run.read_log(folder/'log.csv'))
        return self.in_run('log', 'log.csv', twist_text, look, 8)

    def results(self):
        from sshpe.evaluate.metrics import oks_ap, read_results
        def look(folder):
            val = self.run.val
            m = oks_ap(val, folder/'results-student1.json')
            assert all(v is None or 0 <= v <= 100+1e-6 for v in m.values())
        return self.in_run('results', 'results-student1.json', twist_json, look, 8)

    def networks(self):
        import torch
        from sshpe.runs import result
        def look(folder):
            x = result.load(folder, 'cpu')
            assert x.networks and all(torch.isfinite(w).all() for f in x.networks.values() for w in f.state_dict().values())
            xy, s = result.find(x, self.run.val[:2])
            assert np.isfinite(xy).all() and np.isfinite(s).all()
        return self.in_run('networks', 'model.safetensors', twist_safetensors, look, 5)

    def state(self):
        from sshpe.train.learner import Learner
        x = self.run.learner
        new = lambda: Learner(x.r, x.p, x.lab, x.unl, x.skeleton, 0, 'cpu')
        f = self.tmp/'state.pt'
        x5 = new().fit(until=5); x5.save(f)
        def read(b):
            f.write_bytes(b)
            l = new()
            l.fit(f)
            import torch
            assert l.t == x.T and all(torch.isfinite(w).all() for n in l.networks().values() for w in n.state_dict().values())
        return Target('state', [f.read_bytes()], twist_state, read, 3)

    def weights(self):
        import torch
        from safetensors.torch import save
        from sshpe.models.posenet import build, load_backbone
        net = build('narrow18', 17, 16)
        s = {k: v for k, v in net.state_dict().items()}
        out = io.BytesIO(); torch.save(s, out)
        a, b = self.tmp/'w.safetensors', self.tmp/'w.pth'
        def read(x):
            f = b if x[:2] == b'PK'[:2] or x[:1] == b'\x80' else a
            f.write_bytes(x)
            load_backbone(net, f)
            assert all(torch.isfinite(w).all() for w in net.state_dict().values())
        damage = lambda r, x, others: (twist_state if x[:2] == b'PK' else twist_safetensors)(r, x, others)
        return Target('weights', [save(s), out.getvalue()], damage, read, 5)

    def summary(self):
        from sshpe.experiments import summaries, paper_claims
        folder = self.tmp/'collected'; folder.mkdir()
        names = sorted((ROOT/'data/results/first').glob('*.json'))[:1]
        def read(b):
            (folder/names[0].name).write_bytes(b)
            paper_claims.report(paper_claims.verdicts(summaries.summaries(folder)))
        return Target('summary', [p.read_bytes() for p in names], twist_json, read, 3)

    # ------ caches and archives

    def page(self):
        from sshpe.data.crops import build_store
        from sshpe.data.registry import load
        from test_data import many, noise
        p, cache = many(noise(self.tmp/'noise')), self.tmp/'pages'
        truth = build_store(p, (32, 32), cache=cache, raw=0).canvases[:]
        f, = cache.rglob('00000')
        def read(b):
            f.write_bytes(b)
            s = build_store(p, (32, 32), cache=cache, raw=0)
            c = s.canvases[:]
            self.clean(cache)
            if f.read_bytes() != b: assert (c == truth).all(); raise InputError('cut again')
        return Target('page', [f.read_bytes()], shake, read, 5)

    def archive(self):
        from sshpe.data.archives import unpack
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w') as z:
            for n in ('annotations/a.json', 'val2017/1.jpg', 'val2017/2.jpg'): z.writestr(n, 'x'*100)
        root = self.tmp/'unpacked'
        def read(b):
            shutil.rmtree(root, ignore_errors=True); (root/'.download').mkdir(parents=True)
            (root/'.download/a.zip').write_bytes(b)
            before = {p.name for p in self.tmp.iterdir()}
            inside = lambda: {p.name for p in root.iterdir()}
            try: unpack(root/'.download/a.zip', root, ('annotations', 'val2017'))
            except InputError: assert inside() == {'.download'}; raise
            finally: assert {p.name for p in self.tmp.iterdir()} == before and inside() <= {'.download', 'annotations', 'val2017'}
        return Target('archive', [out.getvalue()], twist_zip, read, 6)

    NAMES = ('coco', 'index', 'aic', 'mpii', 'boxes', 'mat', 'photo', 'split', 'grid', 'line', 'config', 'resume', 'metrics', 'log',
             'results', 'summary', 'networks', 'state', 'weights', 'page', 'archive')
    def target(self, name)->Target:
        if name not in self.made: self.made[name] = getattr(self, name)()
        return self.made[name]


# ---------------------------------------------------------------- running

class Late(BaseException): pass


def try_out(t:Target, b:bytes, limit:float=20)->str: # 'fine', 'refused', or what went wrong
    "One case, stopped when it takes too long."
    def late(*_): raise Late(f'more than {limit:g} s')
    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            t.read(b)
        return 'fine'
    except InputError as e:
        t.said = str(e)
        return 'refused' if '\n' not in str(e).strip() else f'more than one line: {e}'
    except (Exception, Late): return traceback.format_exc(limit=-6)
    finally: signal.setitimer(signal.ITIMER_REAL, 0); signal.signal(signal.SIGALRM, old)


class Coverage:
    "Which lines of the kit were reached."
    def __init__(self): self.lines, self.new = set(), 0
    def trace(self, frame, event, arg): return self.line if f'{os.sep}sshpe{os.sep}' in frame.f_code.co_filename else None
    def line(self, frame, event, arg):
        at = frame.f_code, frame.f_lineno
        if at not in self.lines: self.lines.add(at); self.new += 1
        return self.line
    def __enter__(self): self.new = 0; sys.settrace(self.trace)
    def __exit__(self, *_): sys.settrace(None)


def cases(t:Target, n:int, seed:int, limit:float, cover:Coverage, until:float=math.inf): # seconds since 1970
    "Try n cases of a target; yields each one's number, bytes and end. What is whole must be accepted first."
    for b in t.seeds:
        end = try_out(t, b, limit)
        assert end == 'fine', f'{t.name}: a whole file was not accepted: {t.said or end}'
    for i in range(n):
        if time.time() > until: return
        b = t.case(random.Random(f'{seed} {t.name} {i}'))
        with cover: end = try_out(t, b, limit)
        if cover.new and end in ('fine', 'refused') and len(b) < 4*max(map(len, t.seeds)): t.kept.append(b)
        yield i, b, end


def tell(count): return f'{count["fine"]:,} accepted, {count["refused"]:,} refused, {count["failed"]:,} failed'


def one_target(t:Target, n:int, seconds:float, a, faults:dict): # a: options; faults: kind -> cases; -> Counter, lines
    "All cases of one kind of file, as far as time allows."
    count, cover, start = Counter(), Coverage(), time.time()
    for i, b, end in cases(t, n, a.seed, a.limit, cover, start+seconds):
        count[end if end in ('fine', 'refused') else 'failed'] += 1
        if end in ('fine', 'refused') or a.case not in (None, i): continue
        lines = end.strip().splitlines()
        where = next((l.strip().replace(f'{ROOT}{os.sep}', '') for l in reversed(lines) if 'sshpe' in l or 'fuzz.py' in l), '')
        kind = f'{where} {lines[-1].split(":")[0]}'
        if kind not in faults: print(f'{t.name} case {i}:\n{end}', flush=True)
        faults.setdefault(kind, []).append((t.name, i))
        if a.dump: Path(a.dump).write_bytes(b)
    found = f'{len(cover.lines):,} lines reached, {len(t.kept)} files kept'
    print(f'{t.name:9} {sum(count.values()):6,} cases in {time.time()-start:5.0f} s: {tell(count)}; {found}', flush=True)
    return count, cover.lines


def bound_memory(more:int): # bytes; a file that asks for more memory than there is must be refused, too
    import resource
    if Path('/proc/self/statm').exists():
        used = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used+more, used+more))


def note(a, tried, count, kinds, lines, took, faults):
    "Keep the figures, and every failure that was ever found."
    from figures import keep, kept
    from sshpe.runs.run import commit
    part, how = ('guided', f'--guided {a.guided:g}') if a.guided else ('fuzz', f'--cases {a.cases}')
    found = {k: dict(case=f'{n} case {i}', seed=a.seed, commit=commit()) for k, [(n, i), *_] in faults.items()} | kept(a.json, part).get('found', {})
    keep(a.json, part, f'python tests/fuzz.py {how} --seed {a.seed}', cases=tried, kinds=kinds, accepted=count['fine'], refused=count['refused'],
         failed=count['failed'], failing=sorted(faults), found=found, lines=lines, seconds=round(took))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--cases', type=int, default=10_000); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--guided', type=float, help='seconds, in the place of a number of cases'); p.add_argument('--json', default='', help='where to keep the figures')
    p.add_argument('--limit', type=float, default=20, help='seconds a case'); p.add_argument('--only', default='', help='kinds of files')
    p.add_argument('--case', type=int, help='only up to this one'); p.add_argument('--dump', default='', help="where to write a failing case's bytes")
    a = p.parse_args()
    import faulthandler
    faulthandler.enable()
    faults, count, reached, start = {}, Counter(), set(), time.time()
    with tempfile.TemporaryDirectory() as tmp:
        os.environ['SSHPE_CACHE'] = str(Path(tmp)/'store')
        lab = Lab(tmp)
        targets = [lab.target(n) for n in (a.only.split(',') if a.only else Lab.NAMES)]
        bound_memory(6*2**30)
        total = sum(t.share for t in targets)
        for t in targets:
            if a.guided: t.whole = .1
            n = a.case+1 if a.case is not None else sys.maxsize if a.guided else math.ceil(a.cases*t.share/total)
            c, lines = one_target(t, n, (a.guided or math.inf)*t.share/total, a, faults)
            count, reached = count+c, reached|lines
    took, tried = time.time()-start, sum(count.values())
    print(f'{tried:,} cases in {took:,.0f} s, seed {a.seed}: {tell(count)} of {len(faults)} kinds; {len(reached):,} lines of the kit reached')
    for k, v in sorted(faults.items(), key=lambda f: -len(f[1])): print(f'  {len(v):5} x {k}  e.g. {v[0][0]} case {v[0][1]}')
    if a.json: note(a, tried, count, len(targets), len(reached), took, faults)
    return bool(faults)


if __name__ == '__main__': sys.exit(main())
