"""COCO's size: start-up, memory and disk of a data set of 150,000 people, made of few photos under many names.

    python tests/size.py --root FOLDER_IN_COCO_LAYOUT [--people 150000] [--crop 256 192] [--margin 1.625] [--keep FOLDER] [--json data/results/trust.json]

Without --root it repeats the shipped people. Each figure is that of a fresh process; seconds of its own work stand beside those of the clock,
because the machine may do other things, too. With --keep, what was made is there the next time, and only later starts are measured.
"""
import argparse, json, os, resource, subprocess, sys, tempfile, time
from pathlib import Path


def enlarge(json_file, photos, to, n):
    "A data set in COCO's layout whose n people are those of `json_file`, again and again, under new ids and new file names."
    d = json.loads(Path(json_file).read_text())
    with_people = {a['image_id'] for a in d['annotations'] if any(a['keypoints'][2::3]) and not a.get('iscrowd')}
    images = [i for i in d['images'] if i['id'] in with_people]
    of = {i['id']: [a for a in d['annotations'] if a['image_id'] == i['id']] for i in images}
    (to/'train2017').mkdir(parents=True); (to/'annotations').mkdir()
    new, people, count = [], [], 0
    while count < n:
        im = images[len(new) % len(images)]
        new.append(im | dict(id=len(new)+1, file_name=f'{len(new)+1:012}.jpg'))
        os.link(photos/im['file_name'], to/'train2017'/new[-1]['file_name'])
        for a in of[im['id']]:
            count += any(a['keypoints'][2::3]) and not a.get('iscrowd')
            people.append(a | dict(id=len(people)+1, image_id=len(new)))
            if count == n: break
    f = to/'annotations/person_keypoints_train2017.json'
    f.write_text(json.dumps(d | dict(images=new, annotations=people)))
    print(f'{count:,} people among {len(people):,} annotations of {len(new):,} photos, {f.stat().st_size/1e6:,.0f} MB of json')


def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**10
def say(what, start):
    now = dict(seconds=round(time.perf_counter()-start, 1), of_work=round(time.process_time(), 1), mb=round(peak()))
    print(f'{what}: {now["seconds"]} s ({now["of_work"]} s of work), {now["mb"]:,} MB at most so far', flush=True)
    return now


def begin(root, crop, margin, steps, note):
    "What a run does before its first step, and random batches; note: called with the figures."
    import numpy as np
    start = time.perf_counter()
    from sshpe.data.crops import build_store, photo_mark
    from sshpe.data.registry import fingerprint, load
    from sshpe.data.split import draw_split
    import torch
    say('imports', start)
    p = load('coco', root); say(f'list of {len(p):,} people', start)
    def tell(n, of):
        if n % 16384 == 0 or n == of: say(f'  {n:,} of {of:,} cut', start)
    s = build_store(p, crop, margin, tell=tell); say('store', start)
    split = draw_split(p, len(p)//10)
    lab, unl, *_ = split.rows(p)
    a, b, first = s[lab], s[unl], (fingerprint(p), photo_mark(s))
    a.batch(range(min(32, len(a)))); b.batch(range(min(32, len(b)))); now = say('split, marks, first batches', start)
    if not steps: return note(people=len(p), **now)
    rng, t = np.random.default_rng(0), time.perf_counter()
    for k in range(steps): b.batch(rng.integers(0, len(b), 32))
    t = (time.perf_counter()-t)/steps/32
    later = say(f'{steps:,} random batches of 32 ({1/t:,.0f} canvases a second)', start)
    base = s.canvases.base
    kind, disk = 'plain bytes' if base.show is None else 'JPEGs', sum(os.path.getsize(f.name) for f in base.files)
    plain = 3*np.prod(base.shape[:3])
    print(f'store: {len(s):,} canvases as {kind}, {disk/1e9:.2f} GB in {len(base.files)} files ({plain/1e9:.1f} GB as plain bytes)')
    note(people=len(p), **now, crops=32*steps, mb_after=later['mb'], crops_a_second=round(1/t), store_gb=round(disk/1e9, 2), plain_gb=round(plain/1e9, 1))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--root', default=''); p.add_argument('--keep', default='', help='folder for everything that is made')
    p.add_argument('--people', type=int, default=150_000); p.add_argument('--begin', type=int, help=argparse.SUPPRESS)
    p.add_argument('--crop', type=int, nargs=2, default=(256, 192)); p.add_argument('--margin', type=float, default=1.625)
    p.add_argument('--json', default='', help='where to keep the figures'); p.add_argument('--part', help=argparse.SUPPRESS)
    a = p.parse_args()
    def note(**figures):
        from figures import keep
        keep(a.json, f'size: {a.part}', f'python tests/size.py --root FOLDER --people {a.people}', **figures)
    if a.begin is not None: return begin(a.root, tuple(a.crop), a.margin, a.begin, note)
    from sshpe.data.registry import coco_layout, shipped
    with tempfile.TemporaryDirectory(dir=a.keep or None) as tmp:
        to = Path(a.keep or tmp)
        photos = to/'photos'; photos.mkdir(exist_ok=True)
        src_json, src = coco_layout(a.root or shipped(), 'train')
        for f in src.iterdir():
            if not (photos/f.name).exists(): (photos/f.name).write_bytes(f.read_bytes())
        new = not (to/'large').exists()
        if new: enlarge(src_json, photos, to/'large', a.people)
        same = ['--root', str(to/'large'), '--crop', *map(str, a.crop), '--margin', str(a.margin)]
        again = [sys.executable, __file__, *same, '--people', str(a.people), '--json', a.json, '--part']
        env = {**os.environ, 'SSHPE_CACHE': str(to/'cache'), 'OMP_NUM_THREADS': '1'}
        for what, steps in (('first start', 0),)*new + (('second start', 0), ('reading', 2000)):
            print(f'--- {what}', flush=True)
            subprocess.run([*again, what, '--begin', str(steps)], env=env, check=True)


if __name__ == '__main__': main()
