"Every command of the README does what it says, on small data: each line is executed, with the reader's names replaced by those of a small data set and run."
import json, os, re, shlex, shutil, subprocess, sys
from pathlib import Path

import pytest, torch
from test_checkpoints import SimpleBaseline
from test_make import JOBS

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LINES = [line.split('  #')[0].strip() for block in re.findall(r'```sh\n(.*?)```', (ROOT/'README.md').read_text(), re.S)
         for line in block.replace('\\\n', ' ').splitlines() if line.split('#')[0].strip()]


@pytest.fixture(scope='module')
def world(sticks, done, tmp_path_factory):
    "The reader's folder: a photo, runs/NAME, labels.json with photos and more photos, COCO and AI Challenger in small, a detector's boxes."
    from test_sources import aic_entry, listing, write_aic
    here = tmp_path_factory.mktemp('reader')
    coco = listing(here/'coco', 'image_info', 'unlabeled2017', 'unlabeled2017')
    for s in 'train', 'val':
        shutil.copytree(sticks/s, coco/f'{s}2017')
        shutil.copy(sticks/f'annotations/person_keypoints_{s}.json', coco/f'annotations/person_keypoints_{s}2017.json')
    d = json.loads((sticks/'annotations/person_keypoints_val.json').read_text())
    shutil.copytree(sticks/'val', coco/'test2017')
    (coco/'annotations/image_info_test-dev2017.json').write_text(json.dumps(dict(info={}, images=d['images'], licenses=[], categories=[dict(id=1, name='person', supercategory='person')])))
    box = lambda i: dict(image_id=i, category_id=1, bbox=[5, 5, 30, 60], score=.9)
    (here/'boxes.json').write_text(json.dumps([box(i) for i in (5, 6, 7)]))
    (here/'detections.json').write_text(json.dumps([box(a['image_id']) for a in d['annotations']]))
    write_aic(here/'aic', [aic_entry('a', 3), aic_entry('b', 2)])
    shutil.copy(next((sticks/'val').iterdir()), here/'photo.jpg')
    for name in 'NAME', 'OTHER': shutil.copytree(done.where, here/'runs'/name)
    shutil.copytree(sticks/'train', here/'photos'); shutil.copytree(sticks/'val', here/'more')
    shutil.copy(sticks/'annotations/person_keypoints_train.json', here/'labels.json')
    (here/'found.json').write_text(json.dumps([box(0) | dict(file_name=p.name) for p in (here/'more').iterdir()]))
    torch.save(SimpleBaseline().state_dict(), here/'checkpoint.pth')
    return here


def small(line, here, out):
    "The words of a README line, at the size of a test."
    words = shlex.split(line.replace('/path/to/coco', str(here/'coco')).replace('/path/to/aic', str(here/'aic')).replace('HOST', 'localhost')
                        .replace('@boxes.json', f'@{here}/boxes.json').replace('$CPU_INDEX', ''))
    if 'torchrun' in words: words[:words.index('-m')] = ['torchrun', '--standalone', '--nproc-per-node', '2']  # one machine stands for four
    if words[:2] == ['sshpe', 'train'] or 'sshpe.runs.worker' in words:
        after = lambda name, new: words.__setitem__(words.index(name)+1, new(words[words.index(name)+1])) if name in words else words.extend([name, new('')])
        after('--preset', lambda old: 'tiny')
        after('--labels', lambda old: '0' if old == '0' else '16')
        after('--root', lambda old: old or os.environ['README_PEOPLE'])
        after('--out', lambda old: str(out))
        after('--device', lambda old: 'cpu')
        if '--processes' in words: after('--processes', lambda old: '2')
        if 'backbone=resnet50' in words: words[words.index('backbone=resnet50')] = 'steps=6'
    if words[0] == 'papermill': words[2] = str(out)+'.ipynb'; words += ['-p', 'preset', 'tiny', '-p', 'root', os.environ['README_PEOPLE'], '-p', 'out', str(out), '-p', 'labels', '16']
    if words[0] == 'sshpe' and words[1] == 'pseudo-label' and '--root' not in words: words += ['--root', os.environ['README_PEOPLE'], '--split', 'val']
    if words[:2] == ['sshpe', 'evaluate'] and '--data' not in words: words += ['--root', os.environ['README_PEOPLE']]
    if words[:2] == ['sshpe', 'sweep'] and '--dry-run' not in words: words += ['--dry-run']
    if words[:2] == ['sshpe', 'bench']: words += ['--only', 'heatmap']
    return words


def run(words, here):
    "Execute it as a shell would, in the reader's folder."
    if words[0] == 'papermill': words[1] = str(ROOT/words[1])
    exe = [sys.executable, '-m', 'torch.distributed.run'] if words[0] == 'torchrun' else [str(BIN/words[0])]
    return subprocess.run(exe + words[1:], cwd=here, capture_output=True, text=True, timeout=500)


def test_there_are_commands(): assert len(LINES) > 15 and sum(l.startswith('sshpe') for l in LINES) > 10


@pytest.mark.parametrize('line', dict.fromkeys(LINES))
def test_it_runs(line, world, sticks, tmp_path, monkeypatch):
    monkeypatch.setenv('README_PEOPLE', str(sticks))
    if line.startswith('make '):
        assert set(line.split()[1:]) <= JOBS; return  # they are run in test_make
    if 'pip install' in line or '-m venv' in line: return pytest.skip('installing is what made this environment')
    if line.startswith('jupyter lab'): assert (ROOT/line.split()[-1]).exists(); return
    if 'publish' in line: return pytest.skip('there is no hub here; publishing is tested with a folder for it in test_hub')
    if 'download' in line:  # the archives are large: everything is there already, so nothing is fetched
        return pytest.skip('fetching is tested with small archives in test_obtain')
    words = small(line, world, tmp_path/'run')
    r = run(words, world)
    assert r.returncode == 0, f'{shlex.join(words)}\n{r.stdout[-1500:]}{r.stderr[-1500:]}'
