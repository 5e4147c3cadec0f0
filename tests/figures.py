"What the long checks have measured, kept for nbs/results/trust.ipynb: each check writes its own part of one json file."
import json
from pathlib import Path
from sshpe.runs import run
from sshpe.files import write_atomic


def kept(file, part)->dict:
    "What a part says now."
    return json.loads(Path(file).read_text()).get(part, {}) if Path(file).exists() else {}


def keep(file, part, command, **figures): # file '': nothing is kept
    "Replace a part."
    if not file: return
    d = json.loads(Path(file).read_text()) if Path(file).exists() else {}
    d[part] = dict(command=command, commit=run.commit(), **figures)
    write_atomic(file, json.dumps(d, indent=1, sort_keys=True)+'\n')
