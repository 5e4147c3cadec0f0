"Runs on the hub, without one: a folder stands for it, and the hub's own library decides what its patterns let through."
import os, shutil, subprocess, sys
from pathlib import Path
import huggingface_hub, pytest
from huggingface_hub.utils import filter_repo_objects
from sshpe.cli import main
from sshpe.errors import InputError
from sshpe.files import home
from sshpe.runs import hub, result, run

SHIPPED = home()/'data/networks/supervised'

@pytest.fixture
def server(tmp_path, monkeypatch):
    "A folder for each repository."
    at = tmp_path/'hub'
    def folder(repo): return at/repo
    def passing(where, patterns): return filter_repo_objects([str(p.relative_to(where)) for p in where.rglob('*') if p.is_file()], allow_patterns=patterns)
    class Api:
        def create_repo(self, repo, private, exist_ok): folder(repo).mkdir(parents=True, exist_ok=exist_ok)
        def upload_folder(self, repo_id, folder_path, allow_patterns):
            for f in passing(folder_path, allow_patterns): shutil.copy(folder_path/f, folder(repo_id)/f)
        def upload_file(self, path_or_fileobj, path_in_repo, repo_id): (folder(repo_id)/path_in_repo).write_bytes(path_or_fileobj)
    def download(repo, revision, allow_patterns):
        if not folder(repo).exists(): raise OSError('404: no such repository')
        to = tmp_path/'cache'/repo; to.mkdir(parents=True, exist_ok=True)
        for f in passing(folder(repo), allow_patterns): shutil.copy(folder(repo)/f, to/f)
        return str(to)
    monkeypatch.setattr(huggingface_hub, 'HfApi', Api); monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    return at

def test_there_and_back(server, tmp_path):
    mine = tmp_path/'mine'; shutil.copytree(SHIPPED, mine); (mine/'train.ipynb').write_text('{}'); (mine/'notes.py').write_text('print(1)')
    at = hub.publish(mine, 'someone/wrists')
    assert at == 'hf://someone/wrists'
    there = {p.name for p in (server/'someone/wrists').iterdir()}
    assert there == {'config.json', 'metrics.json', 'log.csv', 'model.safetensors', 'README.md'}
    x = result.load(at, 'cpu')
    assert list(x.networks) == list(result.load(SHIPPED, 'cpu').networks) and run.read_metrics(x.where) == run.read_metrics(SHIPPED)
    page = (server/'someone/wrists/README.md').read_text()
    assert f"| {run.read_metrics(SHIPPED)['networks']['student']['AP']:.1f} |" in page and at in page

def test_a_command_takes_an_address(server, tmp_path):
    shutil.copytree(SHIPPED, server/'someone/wrists')
    assert main(['report', 'hf://someone/wrists', '--out', str(tmp_path/'r.html')]) == 0
    assert main(['report', 'hf://someone/else']) == 2
    name = run.facts(SHIPPED)['config']['recipe']
    assert name in (tmp_path/'r.html').read_text()

def test_code_in_a_repository_stays_there(server):
    evil = server/'someone/evil'; shutil.copytree(SHIPPED, evil)
    for f in 'setup.py', 'model.pt', 'hubconf.py': (evil/f).write_text('raise SystemExit')
    assert {p.name for p in hub.fetched('hf://someone/evil').iterdir()} == {p.name for p in SHIPPED.iterdir()}

@pytest.mark.parametrize('text', ['hf://', 'hf://one', 'hf://a/b/c', 'hf://a/b@', 'hf:a/b', 'hf://../x y'])
def test_what_is_no_address(text):
    with pytest.raises(InputError, match='no address'): hub.fetched(text)

def test_addresses_and_paths():
    assert hub.address('hf://a/b') == ('a/b', None) and hub.address('hf://a-1/b.c@refs/pr/1') == ('a-1/b.c', 'refs/pr/1')
    assert hub.fetched('~/runs/x') == Path.home()/'runs/x' and hub.fetched(Path('a')) == Path('a')

def test_refusals(server, tmp_path):
    with pytest.raises(InputError, match='fetching hf://a/b did not work.*check the name'): hub.fetched('hf://a/b')
    (server/'a/b').mkdir(parents=True)
    with pytest.raises(InputError, match='no config.json'): hub.fetched('hf://a/b')
    with pytest.raises(InputError, match='not finished'): hub.publish(tmp_path/'nothing', 'a/b')

def test_without_a_network_it_ends_soon(tmp_path):
    code = 'from sshpe.errors import InputError\nfrom sshpe.runs.hub import fetched\ntry: fetched("hf://a/b")\nexcept InputError as e: print("said", e)'
    env = {**os.environ, 'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HOME': str(tmp_path)}
    r = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=60)
    assert r.stdout.startswith('said fetching hf://a/b did not work') and r.stdout.count('\n') == 1, r.stdout+r.stderr
