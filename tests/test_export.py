"Networks as ONNX files: ONNX Runtime finds the joints that PyTorch finds, and the metadata suffices to read them."
import json, sys
import numpy as np, pytest, torch
from sshpe.cli import main
from sshpe.data.crops import build_store
from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.evaluate.predict import predict
from sshpe.runs import export, result

def by_hand(H, m):
    "Points of heatmaps, by what the metadata says of a quarter step, in plain loops."
    out = np.zeros((*H.shape[:2], 2))
    for n, j in np.ndindex(*H.shape[:2]):
        h = H[n, j]
        r, c = np.unravel_index(h.argmax(), h.shape)
        x, y = float(c), float(r)
        if 0 < r < h.shape[0]-1 and 0 < c < h.shape[1]-1: x, y = x+.25*np.sign(h[r, c+1]-h[r, c-1]), y+.25*np.sign(h[r+1, c]-h[r-1, c])
        out[n, j] = (x+.5)*float(m['stride'])-.5, (y+.5)*float(m['stride'])-.5
    return out

@pytest.mark.parametrize('name', ['supervised', 'denoise-select'])
def test_the_same_joints_in_fifty_pictures(root, tmp_path, capsys, name):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from dataclasses import replace
    assert main(['export', str(root/'data/networks'/name), 'onnx', '--out', str(tmp_path/'m.onnx')]) == 0
    assert 'differ from PyTorch' in capsys.readouterr().out
    x = result.load(root/'data/networks'/name, 'cpu')
    p = replace(x.preset, decode='quarter')
    store = build_store(load('people', split='val')[:50], p.size, 1.)
    nets = {k: f for k, f in x.networks.items() if k.startswith('student')}
    want, score = predict(nets, store, p)[x.best]
    session = onnxruntime.InferenceSession(str(tmp_path/'m.onnx'))
    m = session.get_modelmeta().custom_metadata_map
    H, = session.run(None, dict(pictures=store.batch(np.arange(50)).float().contiguous().numpy()))
    found = by_hand(H, m)
    assert json.loads(m['joints']) == list(x.skeleton.joints) and m['how'] == x.preset.decode and H.shape[1:] == (17, *p.map)
    assert np.abs(found-want).max() < .1 and np.allclose(H.max((2, 3)), score, atol=1e-4)

def test_without_the_package_it_says_what_to_install(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    x = result.load(root/'data/networks/supervised', 'cpu')
    with pytest.raises(InputError, match=r"pip install 'sshpe\[onnx\]'"): export.onnx(x, tmp_path/'m.onnx')
