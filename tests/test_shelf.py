"""Pages and shelves: records come back to the byte, in any order, by any number of threads; half a page is no page."""
import multiprocessing, os, threading, time
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from sshpe.errors import InputError
from sshpe.data.record_file import exclusively, in_order, jpeg, pixels, read_table, Shelf, write_page

records = st.lists(st.tuples(st.binary(max_size=40), st.integers(-2**63, 2**63-1)), min_size=1, max_size=20)


@given(records)
def test_what_is_written_is_read(tmp_path_factory, found):
    f = tmp_path_factory.getbasetemp()/'page'
    write_page(f, len(found), iter(found))
    begin, end, marks = read_table(f, len(found))
    b = f.read_bytes()
    assert [b[i:j] for i, j in zip(begin, end)] == [r for r, _ in found] and marks.tolist() == [m for _, m in found]
    assert read_table(f, len(found)+1) is None


@settings(max_examples=200)
@given(records, st.data())
def test_a_page_of_another_length_is_no_page(tmp_path_factory, found, pick):
    f = tmp_path_factory.getbasetemp()/'page'
    write_page(f, len(found), iter(found))
    b = f.read_bytes()
    n = pick.draw(st.integers(0, len(b)+20).filter(lambda n: n != len(b)))
    f.write_bytes(b[:n] + b'x'*(n-len(b)))
    assert read_table(f, len(found)) is None


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def two():
        yield b'one', 1
        raise ValueError('no more')
    with pytest.raises(ValueError): write_page(tmp_path/'page', 2, two())
    assert list(tmp_path.iterdir()) == []


def test_results_come_in_the_jobs_order_and_few_of_them_wait():
    ready, most, lock, taken = [], 0, threading.Lock(), 0
    def work(j):
        nonlocal most
        time.sleep(.002*(7*j % 5))
        with lock: ready.append(j); most = max(most, len(ready)-taken)
        return j
    out = []
    for j in in_order(work, range(100), 3): out.append(j); taken += 1
    assert out == list(range(100)) and ready != out and most <= 4*3+3


def test_an_error_of_a_thread_arrives():
    def work(j): return 1//(j-5)
    with pytest.raises(ZeroDivisionError): list(in_order(work, range(10), 2))


def hold(folder, log, wait):
    from pathlib import Path
    with exclusively(Path(folder)):
        with open(log, 'a') as f: f.write('in\n')
        time.sleep(wait)
        with open(log, 'a') as f: f.write('out\n')


def test_one_process_at_a_time(tmp_path):
    make = multiprocessing.get_context('spawn')
    jobs = [make.Process(target=hold, args=(str(tmp_path/'f'), str(tmp_path/'log'), .05)) for _ in range(3)]
    for j in jobs: j.start()
    for j in jobs: j.join()
    assert (tmp_path/'log').read_text().split() == ['in', 'out']*3


def test_the_lock_of_the_dead_is_nobody_s(tmp_path):
    (tmp_path/'f').mkdir()
    for name, text in (('.lock', ''), ('.00001.tmpxyz', 'half'), ('00000', 'whole')): (tmp_path/'f'/name).write_text(text)
    with exclusively(tmp_path/'f'): assert sorted(p.name for p in (tmp_path/'f').iterdir()) == ['.lock', '00000']


@pytest.fixture
def pictures(): return np.random.default_rng(0).integers(0, 255, (23, 12, 10, 3), np.uint8)


def shelf_of(pictures, folder, encode, show=None, page=5):
    paths, tables = [], []
    for i in range(0, len(pictures), page):
        part = pictures[i:i+page]
        write_page(folder/f'{i:03}', len(part), ((encode(p), i) for p in part))
        paths.append(folder/f'{i:03}'); tables.append(read_table(paths[-1], len(part)))
    return Shelf(paths, tables, pictures.shape[1:3], show)


@pytest.mark.parametrize('rows', [3, np.int64(22), [0], [5, 4, 4, 22, 0], np.arange(23), np.array([[1, 2], [3, 20]]), []])
def test_a_shelf_is_an_array(pictures, tmp_path, rows):
    plain = shelf_of(pictures, tmp_path, lambda p: p.tobytes())
    assert plain.shape == pictures.shape and len(plain) == 23
    assert (plain[rows] == pictures[np.asarray(rows, int)]).all() and plain[rows].flags.writeable
    assert plain.marks.tolist() == [i//5*5 for i in range(23)]


def test_an_encoded_shelf_asks_for_each_row_by_its_number(pictures, tmp_path):
    seen = []
    def show(b, i, out): seen.append(i); out[:] = pixels(b)
    smooth = np.stack([np.asarray(Image.fromarray(p[:3,:3]).resize((10, 12))) for p in pictures])
    coded = shelf_of(smooth, tmp_path, lambda p: jpeg(Image.fromarray(p)), show)
    out = coded[[7, 0, 7]]
    assert sorted(seen) == [0, 7, 7] and np.abs(out.astype(int) - smooth[[7, 0, 7]]).mean() < 6 and (coded[7] == out[0]).all()


def test_reading_takes_no_memory_of_the_shelf(tmp_path):
    "A shelf of 200 MB is read through and through; the process grows by less than a tenth of it."
    psutil = pytest.importorskip('psutil')
    big = np.zeros((1, 256, 256, 3), np.uint8)
    write_page(tmp_path/'p', 1024, ((big[0].tobytes(), 0) for _ in range(1024)))
    s = Shelf([tmp_path/'p'], [read_table(tmp_path/'p', 1024)], (256, 256))
    s[[0, 1]]
    before = psutil.Process().memory_info().rss
    for i in range(0, 1024, 16): s[np.arange(i, i+16)]
    assert psutil.Process().memory_info().rss - before < 20e6


def test_a_shelf_cannot_be_pickled_by_mistake(pictures, tmp_path):
    "Its numbers of open files would mean other files in another process."
    import pickle
    with pytest.raises(TypeError): pickle.dumps(shelf_of(pictures, tmp_path, lambda p: p.tobytes()))


def test_a_page_that_shrinks_while_in_use(pictures, tmp_path):
    plain = shelf_of(pictures, tmp_path, lambda p: p.tobytes())
    os.truncate(tmp_path/'020', 500)
    assert (plain[3] == pictures[3]).all()
    with pytest.raises(InputError, match='020 was cut off while it was in use: remove it'): plain[[3, 22]]
