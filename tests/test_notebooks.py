"""Every notebook runs from top to bottom, is small, clean and in the style that the kit promises."""
import ast, json, os
from pathlib import Path

import nbformat, pytest

ROOT = Path(__file__).resolve().parents[1]
NBS = sorted(p for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
RUNS = [p for p in NBS if p.parent == ROOT / 'nbs/runs']
LESSONS = [p for p in NBS if p not in RUNS]
LONG = set()   # exported functions and classes that may be longer than 30 lines, with a reason beside each


def name(p): return str(p.relative_to(ROOT / 'nbs'))
def read(p): return nbformat.read(p, 4)
def code(nb): return [c for c in nb.cells if c.cell_type == 'code']
every = pytest.mark.parametrize('path', NBS, ids=name)


@every
def test_is_valid_and_small(path):
    nb = read(path)
    nbformat.validate(nb)
    assert path.stat().st_size < 1_500_000
    assert set(nb.metadata) <= {'kernelspec', 'language_info'} and nb.metadata.kernelspec.name == 'python3'


@every
def test_opens_with_title_and_promise(path):
    first = read(path).cells[0]
    lines = first.source.splitlines()
    assert first.cell_type == 'markdown' and lines[0].startswith('# ')
    assert any(line.startswith('> ') for line in lines[1:4]), 'what it is: a quoted sentence under the title'
    exports = any(c.source.startswith('#| default_exp') for c in read(path).cells)
    said = next(line for line in lines if line.startswith('> '))
    if exports and 'components' in path.parts: assert not said.startswith('> After this page'), 'a module says what it holds; what the reader will be able to do comes below'


@every
def test_cells_are_short(path):
    long = [c.source.splitlines()[0] for c in code(read(path)) if len(c.source.splitlines()) > 30]
    assert [c for c in long if c not in LONG] == []


@every
def test_functions_are_short(path):
    long = [f'{f.name}: {f.end_lineno - f.lineno + 1} lines' for c in code(read(path)) if c.source.startswith('#| export')
            for f in ast.walk(ast.parse(c.source)) if isinstance(f, ast.FunctionDef)
            and f.end_lineno - f.lineno >= 30 and f.name not in LONG]
    assert long == []


@every
def test_outputs_are_stored_and_quiet(path):
    outs = [o for c in code(read(path)) for o in c.outputs]
    assert not [o for o in outs if o.output_type == 'error']
    assert not [o for o in outs if o.output_type == 'stream' and o.name == 'stderr']
    assert not [o for o in outs if 'application/vnd.jupyter.widget-view+json' in o.get('data', {})
                and not {'image/png', 'image/jpeg'} & set(o.data)], 'a widget that shows nothing where no kernel runs'


@pytest.mark.parametrize('path', LESSONS, ids=name)
def test_lesson_runs(path, tmp_path):
    from nbclient import NotebookClient
    NotebookClient(read(path), timeout=900, startup_timeout=600, resources={'metadata': {'path': str(path.parent)}}).execute()
