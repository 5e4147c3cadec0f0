"""A few damaged files of every kind, drawn by hypothesis; `python tests/fuzz.py` tries thousands."""
import io, json, random
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
import fuzz
from sshpe.errors import InputError

SLOW = dict(config=8, resume=6, networks=6, state=3, summary=6, weights=10, coco=25, log=15, grid=10)


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        tmp = tmp_path_factory.mktemp('fuzz')
        m.setenv('SSHPE_CACHE', str(tmp/'store'))
        yield fuzz.Lab(tmp)


@pytest.mark.parametrize('name', fuzz.Lab.NAMES)
def test_every_damaged_file_ends_well_or_in_a_sentence(name, lab):
    t = lab.target(name)
    for b in t.seeds: assert fuzz.try_out(t, b) == 'fine', t.said
    @settings(max_examples=SLOW.get(name, 40))
    @given(st.randoms(use_true_random=False))
    def one(r):
        end = fuzz.try_out(t, t.case(r))
        assert end in ('fine', 'refused'), end
    one()


ONCE = [('coco', lambda d: d['annotations'][4].update(num_keypoints='\ud800')), ('coco', lambda d: d['annotations'][4].update(num_keypoints='1\n2')),
        ('coco', lambda d: d['images'][2].update(id=4, height=[64])), ('metrics', lambda d: d.pop('networks')), ('metrics', lambda d: d.pop('headline')),
        ('coco', lambda d: d['annotations'][0].update(iscrowd=1, keypoints=['x', *[0]*50])), ('summary', lambda d: d.update(recipe=.5))]

@pytest.mark.parametrize('name, damage', ONCE)
def test_what_failed_once_fails_no_more(name, damage, lab):
    t = lab.target(name)
    damage(d := json.loads(t.seeds[0]))
    assert fuzz.try_out(t, json.dumps(d).encode()) in ('fine', 'refused')


def test_weights_beyond_measure(lab):
    "Finite themselves, but their answers aren't."
    from safetensors.torch import load, save
    t = lab.target('networks')
    huge = {k: v*1e30 if v.is_floating_point() else v for k, v in load(t.seeds[0]).items()}
    assert fuzz.try_out(t, save(huge)) == 'refused' and 'finite' in t.said


def test_letters_that_do_not_exist(lab):
    t = lab.target('index')
    with np.load(io.BytesIO(t.seeds[0])) as z: d = dict(z)
    d['files'].view(np.uint32)[0] = 0x110000
    np.savez(f := io.BytesIO(), **d)
    assert fuzz.try_out(t, f.getvalue()) == 'refused'


def target(read, name='line'): return fuzz.Target(name, [b'{"a": [1, 2, {"b": "c"}], "d": null}'], fuzz.twist_json, read)


def test_the_harness_sees_what_it_must():
    def late(b):
        while True: pass
    def two_lines(b): raise InputError('one\ntwo')
    def refuses(b): raise InputError('no')
    def breaks(b): return {}['x']
    def lies(b): assert b == b'whole'
    ends = {late: 'more than 0.2 s', two_lines: 'more than one line', breaks: "KeyError: 'x'", lies: 'AssertionError'}
    for read, end in ends.items():
        assert end in fuzz.try_out(target(read), b'x', .2)
    assert fuzz.try_out(target(refuses), b'x') == 'refused' and fuzz.try_out(target(lambda b: None), b'x') == 'fine'


HOWS = fuzz.shake, fuzz.twist_json, fuzz.twist_text, fuzz.twist_mat, fuzz.twist_zip, fuzz.twist_safetensors


@pytest.mark.parametrize('damage', HOWS)
def test_the_same_seed_does_the_same_damage(damage):
    b = b'{"a": [1, 2, {"b": "c"}], "d": null}\nx,y\n1,2'
    def made(seed): return [damage(random.Random(f'{seed} {i}'), b, [b]) for i in range(60)]
    assert made(1) == made(1) != made(2) and len(set(made(1))) > 30 and all(isinstance(x, bytes) for x in made(1))


def test_what_reaches_new_lines_is_kept():
    from sshpe.runs.run import config
    def read(b): config(dict(labels=len(b) - 36))
    t, cover = target(read), fuzz.Coverage()
    ends = [end for _, _, end in fuzz.cases(t, 30, 0, 5, cover)]
    assert {'fine', 'refused'} >= set(ends) and t.kept and 5 < len(cover.lines) < 60
