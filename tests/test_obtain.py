"""Looking at data sets and fetching them: every fault is told and counted; downloads from a server on loopback that breaks, lies and refuses."""
import hashlib, http.server, json, os, signal, subprocess, sys, threading, time, zipfile
from dataclasses import replace
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sshpe.data import archives
from sshpe.errors import InputError
from sshpe.cli import main
from sshpe.data.registry import READERS
from sshpe.data.archives import Archive, ARCHIVES, download, FACTS, fetch, members, Stopped, unpack
from sshpe.data.findings import Findings
from sshpe.data.verify import kind_of, kinds, report_lines, verify

from test_sources import BOXES, aic_entry, box, listing, mpii_entry, write_aic, write_mpii

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def direct(monkeypatch): monkeypatch.setenv('NO_PROXY', '127.0.0.1')


# ---------------------------------------------------------------- verify

def test_kinds_are_counted_in_the_singular_and_the_plural():
    f = Findings()
    f.note('joint|joints outside its|their photo is|are left out', ['nose'])
    f.note('photo|photos is|are missing', ['a.jpg', 'b.jpg'])
    found = kinds(f)
    assert list(found) == ['photos are missing', 'joints outside their photo are left out']
    assert [k['text'] for k in found.values()] == ['2 photos are missing', '1 joint outside its photo is left out']
    assert found['photos are missing'] == dict(count=2, text='2 photos are missing', example='a.jpg')


def test_sentences_of_a_kind_forget_names_and_numbers():
    assert {kind_of(s) for s in ("person 3 in 'a b.jpg' has no photo", "person 12 in 'c.jpg' has no photo")} == {'person … in … has no photo'}
    assert kind_of("person 1 in 'x.jpg' has a joint outside (nose at 3, 5, v 2)") == kind_of("person 2 in 'y.jpg' has a joint outside (hip at -3, 1e5, v 1)")


def test_whole_data_sets(sticks, tmp_path):
    r = verify('people', sticks)
    assert r['usable'] and r['splits']['train'] == dict(usable=True, needed=True, people=64, photos=64, missing=[], problems={}, notes=[])
    assert not r['splits']['wild']['usable'] and len(r['splits']['wild']['missing']) == 2
    assert 'wild: missing (optional)' in report_lines(r) and 'train: fine · 64 people, 64 photos' in report_lines(r)
    assert json.loads(json.dumps(r)) == r
    for s in ('train', 'validation'): write_aic(tmp_path, [aic_entry(s, 2)], s)
    r = verify('aic', tmp_path)
    assert r['usable'] and [x['people'] for x in r['splits'].values()] == [2, 2]
    for n in ('train', 'valid'): write_mpii(tmp_path/'mpii', [mpii_entry(), mpii_entry('000002.jpg', 1)], f'annot/{n}.json')
    assert verify('mpii', tmp_path/'mpii')['usable']


def test_shipped_people_are_whole():
    r = verify('people')
    assert r['usable'] and all(s['usable'] for s in r['splits'].values()) and [s['photos'] for s in r['splits'].values()] == [3000, 600, 1000]


@pytest.mark.skipif(not os.environ.get('SSHPE_PHOTOS'), reason='SSHPE_PHOTOS does not point at a folder with real photos')
def test_real_photos_are_whole():
    root = Path(os.environ['SSHPE_PHOTOS'])
    coco, lsp = verify('coco', root/'coco_mini', decode=True), verify('lspet', root/'lspet', decode=True)
    assert coco['usable'] and [coco['splits'][s]['people'] for s in ('train', 'val')] == [86, 68]
    assert lsp['usable'] and [s['photos'] for s in lsp['splits'].values()] == [2000, 400]


def test_nothing_there_says_where_it_is_obtained(tmp_path):
    for name in ('coco', 'aic', 'mpii', 'lspet'):
        r = verify(name, tmp_path)
        assert not r['usable'] and all(m['archive'] and m['page'] for s in r['splits'].values() for m in s['missing'])
        text = '\n'.join(report_lines(r))
        assert 'train: missing' in text and FACTS[name].page in text
    assert 'train2017.zip' in '\n'.join(report_lines(verify('coco', tmp_path))) and "a detector's json" in report_lines(verify('coco', tmp_path))[-1]
    with pytest.raises(InputError, match='there is no folder'): verify('coco', tmp_path/'no')
    with pytest.raises(InputError, match="no data set 'coca': did you mean 'coco'"): verify('coca', tmp_path)
    with pytest.raises(InputError, match="no split of coco 'trian': did you mean 'train'"): verify('coco', tmp_path, ['trian'])
    with pytest.raises(InputError, match='give root'): verify('coco')


def test_a_folder_is_verified(tmp_path):
    assert not verify('folder', tmp_path)['usable']
    Image.new('RGB', (20, 30)).save(tmp_path/'a.png')
    assert verify('folder', tmp_path)['splits']['train']['people'] == 1
    (tmp_path/'b.jpg').write_bytes(b'no')
    r = verify('folder', tmp_path)
    assert r['usable'] and r['splits']['train']['people'] == 1 and r['splits']['train']['problems']


@pytest.fixture
def damaged(tmp_path):
    from sshpe.data.toy import stick_people
    root = stick_people(tmp_path/'sticks', 12, 4)
    f = root/'annotations/person_keypoints_train.json'
    d = json.loads(f.read_text())
    for i in (0, 1, 2): d['annotations'][i]['keypoints'][0] = 900
    d['annotations'][3]['bbox'][2] = 0
    d['annotations'][4]['keypoints'] = [1, 2, 3]
    d['annotations'][5]['image_id'] = 777
    d['images'][11]['file_name'] = '../../x.png'
    f.write_text(json.dumps(d))
    photos = sorted((root/'train').iterdir())
    for p in photos[6:8]: p.unlink()
    photos[8].write_bytes(b'GIF89a, really')
    Image.new('RGB', (50, 50)).save(photos[9])
    Image.open(photos[0]).save(f := root/'half.jpg')
    photos[0].write_bytes(f.read_bytes()[:-30])                                # only decoding sees that
    return root


def test_all_faults_are_counted_together(damaged):
    r = verify('people', damaged)
    train = r['splits']['train']
    assert r['usable'] and train['usable'] and train['people'] == 5 and train['photos'] == 5
    found = {k: p['count'] for k, p in train['problems'].items()}
    expect = {'joints outside their photo are taken as not labelled': 3, 'boxes that are missing or empty are computed': 1, 'keypoints are not 3 numbers': 1,
              'in a photo that is not listed': 1, 'whose photo is missing': 2, 'photos that cannot be used': 2, 'path points out of the folder': 1}
    for says, n in expect.items(): assert sum(c for k, c in found.items() if says in k) == n, (says, found)
    assert sum(found.values()) == sum(expect.values())
    deep = {k: p['count'] for k, p in verify('people', damaged, decode=True)['splits']['train']['problems'].items()}
    assert sum(deep.values()) == sum(found.values()) + 1 and deep['photos that cannot be used are left out'] == 3


def spoil(photos):
    "One photo gone, one that is no picture, one that ends early."
    photos[0].unlink(); photos[1].write_bytes(b'GIF89a, really')
    Image.open(photos[2]).save(f := photos[2].parent.parent/'whole.jpg')
    photos[2].write_bytes(f.read_bytes()[:-30]); f.unlink()


def many_of(name, root):
    "Twelve people of each data set, three of them with a problem of their own, and three photos that are broken."
    if name in ('people', 'coco'):
        from sshpe.data.toy import stick_people
        stick_people(root, 12, 2)
        f = root/'annotations/person_keypoints_train.json'
        d = json.loads(f.read_text())
        d['annotations'][9]['keypoints'][0] = 900; d['annotations'][10]['bbox'][2] = 0; d['annotations'][11]['keypoints'] = [1, 2, 3]
        f.write_text(json.dumps(d))
        return sorted((root/'train').iterdir())
    if name == 'lspet':
        from test_data import lsp_people, write_lsp
        j = lsp_people(14)
        j[9, 3, 2] = 7; j[10, 4, :2] = np.nan; j[12, 5, 2] = -1
        write_lsp(root, j.transpose(1, 2, 0))
        return sorted((root/'images').iterdir())
    if name == 'aic':
        entries = [aic_entry(f'{i:02}', 1, i) for i in range(12)]
        entries[9]['keypoint_annotations']['human1'][5] = 9; entries[10]['human_annotations']['human1'] = [1, 2]; entries[11]['keypoint_annotations'] = []
        write_aic(root, entries)
        return sorted(root.glob('*/*images*/*'))
    if name == 'mpii':
        people = [mpii_entry(f'{i+1:06}.jpg', i) for i in range(12)]
        people[9]['joints_vis'][12] = 4; people[10]['joints'] = []; people[11]['center'] = [5000, 5000]
        write_mpii(root, people)
        for i in range(12): Image.new('RGB', (90, 80)).save(root/f'images/{i+1:06}.jpg')
        return sorted((root/'images').iterdir())
    root.mkdir(exist_ok=True)
    for i in range(12): Image.new('RGB', (40, 50), (i, 9, 9)).save(root/f'{i}.jpg')
    return sorted(root.iterdir())


@pytest.mark.parametrize('name', READERS)
def test_everything_is_told_at_once(name, tmp_path):
    "People with problems, a missing photo, one that is none and one that ends early: one run tells them all, with counts."
    spoil(many_of(name, tmp_path/'d'))
    r = verify(name, tmp_path/'d', ['train'], decode=True)['splits']['train']
    found = {k: p['count'] for k, p in r['problems'].items()}
    count = lambda *words: sum(n for k, n in found.items() if any(w in k for w in words))
    assert r['usable'] and count('photos that cannot be used', 'cannot be measured') >= 1, found
    assert name == 'folder' or count('photo is missing', 'photo cannot be measured') >= 1, found
    own = dict(people=3, coco=3, lspet=3, aic=3, mpii=3, folder=0)[name]
    assert sum(found.values()) - count('photos that cannot', 'photo is missing', 'photo cannot', 'areas') >= own, found
    assert any(f'{sum(found.values())} finding' in l for l in report_lines(dict(data=name, splits=dict(train=r))))


def test_photos_are_looked_at_where_nobody_can_be_read(tmp_path):
    photos = many_of('coco', tmp_path/'d')
    spoil(photos)
    f = tmp_path/'d/annotations/person_keypoints_train.json'
    d = json.loads(f.read_text()); d['categories'][0]['keypoints'] = []; d['images'].append(dict(id='x')); f.write_text(json.dumps(d))
    r = verify('coco', tmp_path/'d', ['train'], decode=True)['splits']['train']
    found = {k: p['count'] for k, p in r['problems'].items()}
    assert not r['usable'] and r['photos'] == 9 and sum(found.values()) == 5, found


def test_lists_without_people(tmp_path):
    root = listing(tmp_path, 'image_info', 'unlabeled2017', 'unlabeled2017')
    r = verify('coco', root, ['unlabeled2017'])
    assert r['usable'] and r['splits']['unlabeled2017'] == dict(usable=True, needed=False, people=None, photos=3, missing=[], problems={}, notes=[])
    assert 'unlabeled2017: fine · 3 photos' in report_lines(r)
    assert not verify('coco', root)['usable']
    next((root/'unlabeled2017').iterdir()).unlink()
    r = verify('coco', root, ['unlabeled2017'])
    assert r['usable'] and [p['count'] for p in r['splits']['unlabeled2017']['problems'].values()] == [1]


def test_aic_with_a_few_problems_is_usable(tmp_path):
    e = aic_entry(n=3); e['human_annotations']['human2'] = [9, 9, 9]
    r = verify('aic', write_aic(tmp_path, [e]))
    assert r['usable'] and sum(p['count'] for p in r['splits']['train']['problems'].values()) == 1 and 'train: fine, 1 finding' in report_lines(r)[0]


leaf = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from([[], {}, '../1.jpg', '\0', 1e300, 2**70]))


@settings(max_examples=40)
@given(st.data())
@pytest.mark.parametrize('name', ['aic', 'mpii', 'coco'])
def test_verify_never_ends_in_a_traceback(name, tmp_path_factory, pick):
    from test_sources import mutated
    root = tmp_path_factory.getbasetemp()/f'verify-{name}'
    if not root.exists():
        if name == 'coco': listing(root, 'image_info', 'unlabeled2017', 'unlabeled2017')
        else: dict(aic=write_aic, mpii=write_mpii)[name](root, [dict(aic=aic_entry, mpii=mpii_entry)[name]() for _ in range(2)])
    f = next(f for f in root.rglob('*.json') if 'old' not in f.name)
    if not (old := f.with_name('old.json')).exists(): old.write_bytes(f.read_bytes())
    f.write_text(json.dumps(mutated(json.loads(old.read_text()), pick)))
    r = verify(name, root, ['unlabeled2017'] if name == 'coco' else ['train'])
    assert json.loads(json.dumps(r)) and all('\n' not in l for l in report_lines(r))


# ---------------------------------------------------------------- a server that breaks, lies and refuses

class Server:
    "Serves files from memory; `cut` ends answers after so many bytes, `ranges` False sends everything again, `slow` waits."
    def __init__(self):
        self.files, self.asked, self.cut, self.ranges, self.slow, self.length = {}, [], None, True, 0, True
        this = self
        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *a): pass
            def do_GET(self): this.answer(self)
        self.http = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.http.server_port}'

    def answer(self, h):
        data, start = self.files.get(h.path.lstrip('/')), int(h.headers['Range'][6:-1]) if self.ranges else 0
        self.asked.append((h.path.rpartition('/')[2], start))
        if data is None: return h.send_error(404)
        if start >= len(data) > 0 and start:
            h.send_response(416); h.send_header('Content-Range', f'bytes */{len(data)}'); h.send_header('Content-Length', '0'); return h.end_headers()
        h.send_response(206 if self.ranges else 200)
        if self.ranges: h.send_header('Content-Range', f'bytes {start}-{len(data)-1}/{len(data)}')
        if self.length: h.send_header('Content-Length', str(len(data)-start))
        h.end_headers()
        body = data[start:] if self.cut is None else data[start:start+self.cut]
        for i in range(0, len(body), 2**15):
            time.sleep(self.slow)
            try: h.wfile.write(body[i:i+2**15])
            except OSError: return


@pytest.fixture
def server():
    s = Server()
    yield s
    s.http.shutdown(); s.http.server_close()


def zipped(**files):
    import io
    b = io.BytesIO()
    with zipfile.ZipFile(b, 'w') as z:
        for n, d in files.items(): z.writestr(n.replace('__', '/').replace('_DOT_', '.'), d)
    return b.getvalue()


BODY = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def small(server, monkeypatch):
    "A COCO of two archives, with checksums."
    server.files = {'zips/val2017.zip': zipped(val2017__a_DOT_jpg=BODY, val2017__b_DOT_jpg=b'b'), 'annotations/annotations_trainval2017.zip': zipped(
        **{f'annotations__person_keypoints_{s}2017_DOT_json': b'{}' for s in ('train', 'val')}, annotations__captions_val2017_DOT_json=b'{}')}
    table = {p: tuple(replace(a, hash='sha256:'+hashlib.sha256(server.files[a.path]).hexdigest()) for a in ARCHIVES[p]) for p in ('annotations', 'val2017')}
    monkeypatch.setattr(archives, 'ARCHIVES', table)
    return server


def tree(root): return {str(f.relative_to(root)): f.stat().st_size for f in Path(root).rglob('*') if f.is_file()}


WHOLE = {'val2017/a.jpg': 300_000, 'val2017/b.jpg': 1, 'annotations/person_keypoints_train2017.json': 2, 'annotations/person_keypoints_val2017.json': 2, 'annotations/captions_val2017.json': 2}


def test_the_table_of_archives():
    assert {'train2017', 'val2017', 'annotations', 'unlabeled2017'} <= set(ARCHIVES)
    for a in (a for p in ARCHIVES.values() for a in p):
        kind, digits = a.hash.split(':')
        assert len(digits) == 2*hashlib.new(kind).digest_size and int(digits, 16) and a.path.endswith('.zip') and a.gives
    # what verify misses, download gives
    from_zip = {Path(a.path).name: a.gives for p in ARCHIVES.values() for a in p}
    for part in (p for s in FACTS['coco'].splits.values() for p in s): assert part.path.split('|')[0] in from_zip[part.archive]


def test_a_download(small, tmp_path):
    said = []
    download(tmp_path/'coco', ['annotations', 'val2017'], small.url, said.append)
    assert tree(tmp_path/'coco') == WHOLE and [p for p, _ in small.asked] == ['annotations_trainval2017.zip', 'val2017.zip']
    said.clear(); download(tmp_path/'coco', ['annotations', 'val2017'], small.url+'/', said.append)
    assert len(small.asked) == 2 and said == ['annotations/person_keypoints_train2017.json, annotations/person_keypoints_val2017.json: there already', 'val2017: there already']


def test_a_broken_connection_goes_on(small, tmp_path):
    small.cut = 100_000
    for n in (1, 2, 3):
        with pytest.raises(Stopped, match='val2017.zip: .*the same command goes on'): download(tmp_path, ['val2017'], small.url, print)
        assert list(tree(tmp_path)) == ['.download/val2017.zip.part']
    small.cut = None
    download(tmp_path, ['val2017'], small.url, print)
    starts = [s for _, s in small.asked]
    assert starts[0] == 0 and starts == sorted(set(starts)) and len(starts) == 4 and starts[1] >= 65536
    assert tree(tmp_path) == {k: v for k, v in WHOLE.items() if 'val2017/' in k}


@pytest.mark.parametrize('faults', [dict(ranges=False), dict(length=False), dict(ranges=False, length=False)])
def test_servers_that_know_less(small, tmp_path, faults):
    small.cut = 100_000
    with pytest.raises((Stopped, InputError)): download(tmp_path, ['val2017'], small.url, print)
    small.cut = None
    for k, v in faults.items(): setattr(small, k, v)
    download(tmp_path, ['val2017'], small.url, print)
    assert 'val2017/a.jpg' in tree(tmp_path) and not (tmp_path/'.download').exists()


@pytest.mark.parametrize('there', ['whole', 'too long', 'empty'])
def test_what_lies_there(small, tmp_path, there):
    whole = small.files['zips/val2017.zip']
    (tmp_path/'.download').mkdir()
    (tmp_path/'.download/val2017.zip.part').write_bytes(dict(whole=whole, empty=b'').get(there, whole+b'more'))
    download(tmp_path, ['val2017'], small.url, print)
    assert tree(tmp_path) == {k: v for k, v in WHOLE.items() if 'val2017/' in k}


def test_a_wrong_checksum_is_refused_and_removed(small, tmp_path):
    small.files['zips/val2017.zip'] = zipped(val2017__a_DOT_jpg=b'evil')
    with pytest.raises(InputError, match='another checksum than COCO'): download(tmp_path/'coco', ['val2017'], small.url, print)
    assert not (tmp_path/'coco').exists()


def test_a_part_of_another_file_is_refused_and_removed(small, tmp_path):
    (tmp_path/'.download').mkdir(); (tmp_path/'.download/val2017.zip.part').write_bytes(b'x'*70_000)
    with pytest.raises(InputError, match='another checksum'): download(tmp_path, ['val2017'], small.url, print)
    assert tree(tmp_path) == {}
    download(tmp_path, ['val2017'], small.url, print)
    assert 'val2017/a.jpg' in tree(tmp_path)


def test_wrong_addresses(small, tmp_path):
    with pytest.raises(InputError, match='404.*right mirror'): download(tmp_path/'a', ['val2017'], small.url+'/no', print)
    for wrong in ('nonsense', 'ftp2://x'):
        with pytest.raises(InputError, match='right mirror'): download(tmp_path/'a', ['val2017'], wrong, print)
    with pytest.raises(Stopped): download(tmp_path/'a', ['val2017'], 'http://127.0.0.1:9', print)
    assert not (tmp_path/'a').exists()
    with pytest.raises(InputError, match="no part of COCO 'vall2017': did you mean 'val2017'"): download(tmp_path/'a', ['vall2017'], small.url)
    (tmp_path/'file').write_text('')
    with pytest.raises(InputError, match='cannot make'): download(tmp_path/'file', ['val2017'], small.url)


LINK = zipfile.ZipInfo('val2017/link'); LINK.external_attr = 0o120777 << 16
HOSTILE = {'up': {'../evil': b''}, 'up inside': {'val2017/../../evil': b''}, 'absolute': {'/etc/evil': b''}, 'drive': {'C:/evil': b''}, 'backslash': {'val2017\\..\\..\\evil': b''},
           'elsewhere': {'train2017/a': b''}, 'top': {'README': b''}, 'link': {LINK: b'/etc/passwd'}, 'one among many': {'val2017/a': b'', '../x': b''}}


@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_archives(kind, tmp_path):
    root = tmp_path/'deep/coco'; root.mkdir(parents=True)
    with zipfile.ZipFile(root/'val2017.zip', 'w') as z:
        for n, d in HOSTILE[kind].items(): z.writestr(n, d)
    with pytest.raises(InputError, match='val2017.zip cannot be unpacked, and was removed: 1 of its files would land outside val2017'): unpack(root/'val2017.zip', root, ('val2017',))
    assert tree(tmp_path) == {} and list(root.iterdir()) == []


def test_broken_archives_leave_nothing(tmp_path):
    good = zipped(val2017__a_DOT_jpg=BODY, val2017__b_DOT_jpg=BODY)
    bad = bytearray(good); bad[400_000] ^= 255                                 # the second file's checksum fails, after the first was written
    for data, says in ((good[:-40], 'not a zip'), (bytes(bad), 'CRC'), (b'', 'not a zip'), (zipped(), 'empty'), (zipped(annotations__other_DOT_json=b''), 'outside val2017')):
        (tmp_path/'v.zip').write_bytes(data)
        with pytest.raises(InputError, match=f'v.zip cannot be unpacked, and was removed: .*{says}'): unpack(tmp_path/'v.zip', tmp_path, ('val2017',))
        assert list(tmp_path.iterdir()) == []
    (tmp_path/'v.zip').write_bytes(zipped(annotations__x_DOT_json=b''))
    with pytest.raises(InputError, match='lacks annotations/y.json'): unpack(tmp_path/'v.zip', tmp_path, ('annotations/y.json',))


def test_no_room_keeps_the_archive(tmp_path, monkeypatch):
    import collections
    (tmp_path/'v.zip').write_bytes(zipped(val2017__a_DOT_jpg=b'12345'))
    monkeypatch.setattr(archives.shutil, 'disk_usage', lambda p: collections.namedtuple('d', 'free')(4))
    with pytest.raises(InputError, match='no room to unpack'): unpack(tmp_path/'v.zip', tmp_path, ('val2017',))
    assert tree(tmp_path) == {'v.zip': (tmp_path/'v.zip').stat().st_size}


def test_what_is_there_stays(tmp_path):
    (tmp_path/'annotations').mkdir(); (tmp_path/'annotations/mine.json').write_text('mine')
    (tmp_path/'v.zip').write_bytes(zipped(annotations__a_DOT_json=b'new', annotations__sub__b_DOT_json=b'b'))
    unpack(tmp_path/'v.zip', tmp_path, ('annotations/a.json',))
    assert {k for k in tree(tmp_path)} == {'annotations/mine.json', 'annotations/a.json', 'annotations/sub/b.json', 'v.zip'}


def test_killed_and_continued(small, tmp_path):
    "kill -9 in the middle of a slow download; the same command goes on from there."
    small.slow = .5
    a = archives.ARCHIVES['val2017'][0]
    code = (f'from sshpe.data import archives; archives.ARCHIVES = dict(val2017=(archives.Archive({a.path!r}, "", {a.hash!r}, {a.gives!r}),)); '
            f'from sshpe.cli import main; raise SystemExit(main(["data", "download", "coco", "--root", {str(tmp_path/"coco")!r}, "--part", "val2017", "--mirror", {small.url!r}]))')
    part = tmp_path/'coco/.download/val2017.zip.part'
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end = time.time() + 60
    while not (part.exists() and part.stat().st_size) and time.time() < end: time.sleep(.02)
    # a second one would spoil the first
    assert main(['data', 'download', 'coco', '--root', str(tmp_path/'coco'), '--part', 'val2017', '--mirror', small.url]) == 2
    p.send_signal(signal.SIGKILL); p.communicate()
    kept = part.stat().st_size
    assert 0 < kept < 300_000
    small.slow = 0
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (r.returncode, r.stderr) == (0, '') and small.asked[-1] == ('val2017.zip', kept)
    assert tree(tmp_path/'coco') == {k: v for k, v in WHOLE.items() if 'val2017/' in k}


def test_killed_while_unpacking(small, tmp_path):
    (tmp_path/'.download/val2017.unpack/val2017').mkdir(parents=True); (tmp_path/'.download/val2017.unpack/val2017/a.jpg').write_bytes(b'half')
    (tmp_path/'.download/tmp1234').write_bytes(b'another name of the archive')
    (tmp_path/'.download/val2017.zip').write_bytes(small.files['zips/val2017.zip'])
    download(tmp_path, ['val2017'], small.url, print)
    # it was whole already
    assert small.asked == [] and tree(tmp_path) == {k: v for k, v in WHOLE.items() if 'val2017/' in k}


# ---------------------------------------------------------------- commands

def test_verify_command(damaged, sticks, capsys):
    say = lambda *w: (main(['data', *map(str, w)]), *capsys.readouterr())
    code, out, err = say('verify', 'people', '--root', sticks)
    assert (code, err) == (0, '') and 'train: fine' in out
    code, out, err = say('verify', 'people', '--root', damaged)
    assert (code, err) == (0, '') and '3 joints outside their photo are taken as not labelled' in out
    code, out, err = say('verify', 'people', '--root', damaged, '--bad', 'refuse')
    assert code == 2 and err.count('\n') == 1 and 'cannot be used' in err
    code, out, err = say('verify', 'people', '--root', damaged, '--split', 'val', '--decode', '--json')
    assert code == 0 and json.loads(out)['splits']['val']['usable'] and list(json.loads(out)['splits']) == ['val']
    code, out, err = say('verify', 'people', '--root', damaged, '--json', '--bad', 'refuse')
    assert code == 2 and json.loads(out)['usable'] is False


def test_download_command(small, tmp_path, capsys):
    say = lambda *w: (main(['data', *map(str, w)]), *capsys.readouterr())
    code, out, err = say('download', 'coco', '--root', tmp_path/'c', '--part', 'annotations', '--part', 'val2017', '--mirror', small.url)
    assert (code, err) == (0, '') and tree(tmp_path/'c') == WHOLE and 'val2017: unpacked' in out
    small.cut = 100_000
    code, out, err = say('download', 'coco', '--root', tmp_path/'d', '--part', 'val2017', '--mirror', small.url)
    assert code == 1 and 'the same command goes on' in err and err.count('\n') == 1


@pytest.mark.parametrize('words, meant', [(['download', 'aic', '--root', 'x'], "'aic'"), (['download', 'coco'], '--root DIR'), (['download', 'coco', '--root', 'x', '--part', 'vall'], "'val2017'"),
                                          (['verify'], 'NAME'), (['verfy', 'coco'], 'verfy'), (['verify', 'coco', '--rot', 'x'], "'--root'"), ([], 'TASK'), (['verify', 'coco', '--root', 'nowhere'], 'nowhere')])
def test_mistakes_cost_one_sentence(words, meant, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['data', *words]) == 2
    err = capsys.readouterr().err
    assert err.count('\n') == 1 and meant in err and list(tmp_path.iterdir()) == []
