"""Kills training runs in many ways and checks that the same command ends with the same bits as if nothing had happened.

    python tests/crash.py --kills 20        # some minutes
"""
import argparse, csv, json, os, random, subprocess, sys, tempfile, time
from pathlib import Path

import psutil

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
from sshpe import run, training
from sshpe.cli import Parser, config_of, train_options
p = Parser('train'); train_options(p)
training.finish(training.fit(training.start(config_of(p.parse_args(sys.argv[2:])))))
'''


def same(a, b):
    "Weights, log and figures of two runs, without clocks; returns what differs."
    diff = [] if (a/'model.safetensors').read_bytes() == (b/'model.safetensors').read_bytes() else ['weights']
    log = lambda p: [{k: v for k, v in r.items() if k != 'seconds'} for r in csv.DictReader((p/'log.csv').open())]
    clocks = 'seconds', 'steps_per_second', 'peak_memory_mb', 'phases'
    metrics = lambda p: {k: v for k, v in json.loads((p/'metrics.json').read_text()).items() if k not in clocks}
    return diff + ['log']*(log(a) != log(b)) + ['metrics']*(metrics(a) != metrics(b))


def start(code, *args): return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill(p, whom='all'):
    "kill -9 of a process and all below it, or of the kernel alone."
    below = psutil.Process(p.pid).children(recursive=True) if p.poll() is None else []
    for q in [q for q in below if whom == 'all' or 'ipykernel' in ' '.join(q.cmdline())] + [p]*(whom == 'all'):
        try: q.kill()
        except (psutil.NoSuchProcess, ProcessLookupError): pass
    if whom == 'all': p.wait(60)


def survive(folder, args, kills, rng, code=TRAIN, show=print):
    "Runs a command to its end through kills; returns how many there were, and what then differs from the run that nobody killed."
    whole, hurt, n = folder/'whole', folder/'hurt', 0
    t = time.time(); p = start(code, *args, '--out', whole); out, _ = p.communicate(); took = time.time()-t
    assert p.returncode == 0, out
    while not (hurt/'metrics.json').exists():
        way = rng.choice(('all', 'all', 'kernel') if code is TRAIN else ('all',)) if n < kills else 'nobody'
        at = rng.random()**.7*took  # often late
        p = start(code, *args, '--out', hurt)
        try: p.communicate(timeout=None if way == 'nobody' else at)
        except subprocess.TimeoutExpired: kill(p, way); n += 1; show(f'  {n}: killed {way} after {at:.1f} of {took:.1f} s', flush=True)
        left = [f.name for f in hurt.glob('*') if f.name.startswith('.') and f.name != '.lock'] if hurt.exists() else []
        if way == 'nobody': assert p.returncode == 0, p.stdout
    return n, same(whole, hurt)


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

if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--kills', type=int, default=20); p.add_argument('--seed', type=int, default=0)
    a, lost, tried = p.parse_args(), 0, 0
    for args in ONE, TWO:
        folder, rng = Path(tempfile.mkdtemp()), random.Random(a.seed)
        print(args[2]); n, diff = survive(folder, args, a.kills//2, rng)
        tried += n; lost += bool(diff); print(f'  {n} kills: {diff or "the same bits"}', flush=True)
        for where, nth, code in (('notebook', 2, TRAIN), ('notebook', 9, TRAIN), ('replace', 2, BARE), ('replace', 9, BARE), ('save', 1, BARE), ('save', 5, BARE)):
            died, diff = strike(folder, args, where, nth, code)
            tried += died; lost += bool(diff); print(f'  killed inside {where} {nth}: {"died" if died else "did not die"}, {diff or "the same bits"}', flush=True)
    print(f'{tried} kills, {lost} runs lost')
    sys.exit(lost > 0)
