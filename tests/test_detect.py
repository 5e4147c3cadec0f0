"Boxes that a detector proposes for a photo: what becomes of its answer, and of weights that are not there."
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from PIL import Image

from sshpe.data.registry import load
from sshpe.errors import InputError
from sshpe.explore import people as page
from sshpe.explore.detect import detector, DETECTOR, find_people, people_boxes, weights_file
from sshpe.explore.heatmaps import HeatmapExplorer

SIZE = 64, 48 # width and height of a photo


def answer(*found): # (x0, y0, x1, y1, label, score)
    t = torch.tensor([f[:4] for f in found], dtype=torch.float32).reshape(-1, 4)
    return dict(boxes=t, labels=torch.tensor([f[4] for f in found], dtype=torch.long), scores=torch.tensor([f[5] for f in found]))

edges = st.floats(-20, 90, width=32)
things = st.tuples(edges, edges, edges, edges, st.integers(1, 3), st.floats(0, 1, width=32)).map(
    lambda t: (min(t[0], t[2]), min(t[1], t[3]), max(t[0], t[2]), max(t[1], t[3]), *t[4:]))

@given(st.lists(things, max_size=20))
def test_people_only_the_surest_first_and_inside_the_photo(found):
    "Against a loop over what was found."
    want = []
    for x0, y0, x1, y1, label, score in sorted(found, key=lambda f: -f[5]):
        if label != 1 or score < np.float32(.6): continue
        want.append([min(max(int(np.round(v)), 0), n) for v, n in zip((x0, y0, x1, y1), SIZE*2)])
    want = [(x0, y0, x1-x0, y1-y0) for x0, y0, x1, y1 in want[:12] if x1 > x0 and y1 > y0]
    assert people_boxes(answer(*found), SIZE) == want


class Fake:
    "Answers as a detector does, and keeps what it was shown."
    def __init__(self, *found): self.found = found
    def __call__(self, pictures): self.shown, = pictures; return [answer(*self.found)]

def test_a_detector_sees_the_photo_from_0_to_1():
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    net = Fake((1, 2, 11, 22, 1, .9))
    assert find_people(im, net) == [(1, 2, 10, 20)]
    assert torch.equal((net.shown*255).round().byte(), torch.tensor(np.array(im)).permute(2, 0, 1)) and net.shown.max() <= 1
    with pytest.raises(InputError, match='by hand'): find_people(im, Fake((1, 2, 11, 22, 1, .2)))

def test_weights_are_never_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr('torch.hub.download_url_to_file', lambda *a, **k: pytest.fail('fetched'))
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path))
    with pytest.raises(InputError, match='is not there.*python -c'): detector()
    (tmp_path/'bad.pth').write_bytes(b'no weights')
    with pytest.raises(InputError, match='does not hold the weights'): detector(tmp_path/'bad.pth')
    net = DETECTOR(weights=None, weights_backbone=None)
    torch.save(net.state_dict(), tmp_path/'good.pth')
    got = detector(tmp_path/'good.pth')
    assert not got.training and all(torch.equal(v, net.state_dict()[k]) for k, v in got.state_dict().items())
    assert set(got([torch.zeros(3, 40, 30)])[0]) == {'boxes', 'labels', 'scores'}
    assert weights_file(tmp_path/'good.pth') == tmp_path/'good.pth'

def test_the_button_boxes_everybody(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path/'us.png')
    e = HeatmapExplorer('denoise-select', load('people', split='val')[:2], joint='nose')
    e.find(); assert e.status == 'name or upload a photo first.'
    e.set(photo=str(tmp_path/'us.png'))
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path))
    e.find(); assert 'is not there' in e.status and e.state['box'] == ()
    monkeypatch.setattr(page, 'detector', lambda path: Fake((2, 2, 20, 40, 1, .7), (30, 4, 60, 44, 1, .9)))
    e.weights.value = 'mine.pth'
    e.find(); assert e.state['box'] == (30, 4, 30, 40, 2, 2, 18, 38) and e.state['person'] == 0
