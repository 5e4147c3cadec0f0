"""Kills training runs in many ways and checks that the same command ends with the same bits as if nothing had happened.

    python tests/crash.py --kills 20 [--json data/results/trust.json]        # half an hour on two cores
"""
import argparse, csv, json, os, random, subprocess, sys, tempfile, time
from itertools import count
from pathlib import Path

import psutil, torch
from figures import keep
from sshpe.files import half_written

ROOT = Path(__file__).resolve().parents[1]
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONUNBUFFERED': '1'}
TRAIN = 'from sshpe.cli import main; raise SystemExit(main())'
# Dies by its own hand at the n-th time that something is put in place, half of a notebook is written, or half of a state is saved.
ITSELF = '''
import io, os, signal, sys
where, n = sys.argv[1], int(sys.argv[2]); del sys.argv[1:3]
def countdown(real, before):
    def f(*a, **kw):
        global n
        n -= 1
        if n == 0: before(*a, **kw); os.kill(os.getpid(), signal.SIGKILL)
        return real(*a, **kw)
    return f
half = lambda path, data: open(path, 'wb').write(data[:len(data)//2])
if where == 'replace': os.replace = countdown(os.replace, lambda *a: None)
if where == 'save':
    import torch
    def part(obj, path): b = io.BytesIO(); save(obj, b); half(path, b.getvalue())
    save = torch.save; torch.save = countdown(save, part)
if where == 'notebook':
    import papermill.iorw as iorw
    iorw.LocalHandler.write = countdown(iorw.LocalHandler.write, lambda self, buf, path: half(path, buf.encode()))
'''
# The same training without a notebook around it.
BARE = '''
import sys
from sshpe.runs import run, training
from sshpe.runs.command import config_of, Parser, train_options
p = Parser('train'); train_options(p)
training.finish(training.fit(training.start(config_of(p.parse_args(sys.argv[2:])))))
'''


def halves(folder): # -> names
    "Of which files a killed process has left a half."
    return sorted({f.name[1:].rsplit('.', 2)[0] for f in folder.rglob('.*') if half_written(f)})


def same(a, b):
    "Weights, log and figures of two runs, without clocks; returns what differs, or is left behind."
    diff = [] if (a/'model.safetensors').read_bytes() == (b/'model.safetensors').read_bytes() else ['weights']
    log = lambda p: [{k: v for k, v in r.items() if k != 'seconds'} for r in csv.DictReader((p/'log.csv').open())]
    clocks = 'seconds', 'steps_per_second', 'peak_memory_mb', 'phases'
    metrics = lambda p: {k: v for k, v in json.loads((p/'metrics.json').read_text()).items() if k not in clocks}
    return diff + ['log']*(log(a) != log(b)) + ['metrics']*(metrics(a) != metrics(b)) + halves(b)


def start(code, *args): return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill(p, whom='all'):
    "kill -9 of a process and all below it, or of the kernel alone; returns how many died."
    below, n = psutil.Process(p.pid).children(recursive=True) if p.poll() is None else [], 0
    for q in [q for q in below if whom == 'all' or 'ipykernel' in ' '.join(q.cmdline())] + [p]*(whom == 'all'):
        try: q.kill(); n += 1
        except (psutil.NoSuchProcess, ProcessLookupError): pass
    if whom == 'all': p.wait(60)
    return n


def saved(run): return (run/'state.pt').stat().st_mtime_ns if (run/'state.pt').exists() else 0


def wait(p, run, seconds, saves): # the run's folder
    "Until a process ends, or so much time has passed, or so many states were saved; returns if it has ended."
    end, last = time.time()+seconds, saved(run)
    while time.time() < end and saves and p.poll() is None:
        time.sleep(.002)
        if (now := saved(run)) != last: saves, last = saves-1, now
    return p.poll() is not None


def survive(folder, args, kills, rng, code=TRAIN, show=print):
    "Runs a command to its end through kills, again and again until there were enough; returns them, and what differs from the run that nobody killed."
    whole, found, diff = folder/'whole', [], []
    t = time.time(); p = start(code, *args, '--out', whole); out, _ = p.communicate(); took = time.time()-t
    assert p.returncode == 0, out
    for n in count():
        if len(found) == kills: return found, diff
        hurt = folder/f'hurt-{n}'
        while not (hurt/'metrics.json').exists():
            whom = rng.choice(('all', 'all', 'kernel') if code is TRAIN else ('all',))
            seconds, saves = rng.choice(((2*took, rng.randint(1, 12)), (rng.random()*took, 99)))  # anywhere in training, or anywhere
            p = start(code, *args, '--out', hurt)
            if len(found) < kills and not wait(p, hurt, seconds, saves):
                time.sleep(rng.random()*.2)
                if kill(p, whom): found.append(moment(hurt, whom)); show(f'  {len(found)}: {found[-1]}', flush=True); p.communicate(); continue
            out, _ = p.communicate()
            assert p.returncode == 0, out
        diff += same(whole, hurt)


def moment(run, whom): # the run's folder
    "A kill: of whom, the last saved step, and what was being written."
    step = torch.load(run/'state.pt', weights_only=True)['t'] if (run/'state.pt').exists() else 0
    return dict(whom=whom, step=step, writing=halves(run))


def strike(folder, args, where, nth, code=TRAIN):
    "Lets the process kill itself at a chosen place, then runs the command again; returns what differs from `folder`/whole."
    hurt = folder/f'{where}-{nth}'
    p = start(ITSELF+code, where, nth, *args, '--out', hurt); p.communicate()
    died = p.returncode == -9
    p = start(code, *args, '--out', hurt); out, _ = p.communicate()
    if died: assert p.returncode == 0, out
    return died, same(folder/'whole', hurt)


ONE = ['train', '--recipe', 'pose-mum-plus', '--preset', 'tiny', '--labels', '16', '--device', 'cpu', '-p', 'steps=16', '-p', 'save_every=0']
TWO = ['train', '--recipe', 'denoise-select', '--preset', 'tiny', '--labels', '16', '--device', 'cpu', '-p', 'steps=16', '-p', 'save_every=0', '-p', 'K=3']

PLACES = ('notebook', 2, TRAIN), ('notebook', 9, TRAIN), ('replace', 1, BARE), ('replace', 2, BARE), ('replace', 9, BARE), ('save', 1, BARE), ('save', 5, BARE)

if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--kills', type=int, default=20); p.add_argument('--seed', type=int, default=0); p.add_argument('--json', default='', help='where to keep the figures')
    a, tried, lost, figures = p.parse_args(), 0, 0, {}
    for args in ONE, TWO:
        folder, rng = Path(tempfile.mkdtemp()), random.Random(a.seed)
        print(args[2]); found, diff = survive(folder, args, a.kills//2, rng)
        print(f'  {len(found)} kills: {diff or "the same bits"}', flush=True)
        for where, nth, code in PLACES:
            died, other = strike(folder, args, where, nth, code)
            found += [dict(whom='all', inside=where, nth=nth)]*died; diff += other
            print(f'  killed inside {where} {nth}: {"died" if died else "did not die"}, {other or "the same bits"}', flush=True)
        tried += len(found); lost += len(diff); figures[args[2]] = dict(kills=found, lost=diff)
    print(f'{tried} kills, lost: {lost}')
    keep(a.json, 'crashes', f'python tests/crash.py --kills {a.kills}', seed=a.seed, runs=figures)
    sys.exit(lost > 0)
