"""Labelled subsets and split files: nested, repeatable, whole, and refused where they do not fit."""
import json
from dataclasses import asdict, replace
import numpy as np, pytest
from hypothesis import given, strategies as st
from sshpe.errors import InputError
from sshpe.data.coco import whole_photos
from sshpe.data.registry import fingerprint
from sshpe.data.split import draw_split, draws, Pool, PROTOCOLS, read_split, Split, subset
from sshpe.data.sources import sources


def crowd(sizes, seed=0):
    "People in photos: `sizes[i]` people in photo i, ids in no order, lines shuffled."
    rng = np.random.default_rng(seed)
    images = np.repeat(rng.permutation(1000)[:len(sizes)], sizes)
    n = len(images)
    order = rng.permutation(n)
    people = whole_photos('crowd', '.', ['a.jpg']*n, np.tile([0, 0, 9, 9], (n, 1)), ids=rng.permutation(5000)[:n])
    return replace(people, image_ids=images[order])


sizes = st.lists(st.integers(1, 5), min_size=1, max_size=30)
seeds = st.integers(0, 2**32)


@given(sizes, seeds, st.sampled_from(['person', 'image']), st.data())
def test_subsets_are_nested(sizes, seed, by, pick):
    p = crowd(sizes)
    most = len(p) if by == 'person' else len(sizes)
    n = pick.draw(st.integers(1, most)); m = pick.draw(st.integers(1, n))
    small, large = subset(p, m, seed, by), subset(p, n, seed, by)
    # not only inside: the first ones
    assert small.tolist() == large[:len(small)].tolist()
    assert len(set(large.tolist())) == len(large)
    assert len(large) == n if by == 'person' else len(set(p.image_ids[large].tolist())) == n


@given(sizes, seeds, st.data())
def test_whole_photos(sizes, seed, pick):
    p = crowd(sizes)
    rows = subset(p, pick.draw(st.integers(1, len(sizes))), seed, 'image')
    assert not set(p.image_ids[rows].tolist()) & set(p.image_ids[np.setdiff1d(np.arange(len(p)), rows)].tolist())


@given(sizes, seeds, st.sampled_from(['person', 'image']), st.integers(0, 99))
def test_the_order_of_the_file_does_not_matter(sizes, seed, by, shuffle):
    p = crowd(sizes)
    q = p[np.random.default_rng(shuffle).permutation(len(p))]
    n = 1 + len(sizes)//2
    a, b = p.ann_ids[subset(p, n, seed, by)], q.ann_ids[subset(q, n, seed, by)]
    assert (a.tolist() == b.tolist()) if by == 'person' else (set(a.tolist()) == set(b.tolist()))


def test_seeds():
    p = crowd([1]*300)
    draws = [tuple(subset(p, 50, s).tolist()) for s in range(20)]
    assert len(set(draws)) == 20 and draws[3] == tuple(subset(p, 50, 3).tolist())
    hits = np.bincount(np.concatenate([subset(p, 50, s) for s in range(600)]), minlength=300)
    # everybody's chance is one in six (4.9 standard deviations)
    assert abs(hits - 100).max() < 45


def test_the_draw_never_changes():
    "Published seeds must mean the same people tomorrow."
    p = replace(whole_photos('x', '.', ['a.jpg']*1000, np.tile([0, 0, 9, 9], (1000, 1))), image_ids=np.arange(1000)//2)
    assert p.ann_ids[subset(p, 5, 0)].tolist() == FROZEN['person']
    assert p.image_ids[subset(p, 3, 0, 'image')].tolist() == FROZEN['image']


FROZEN = dict(person=[538, 944, 961, 773, 430], image=[373, 373, 32, 32, 181, 181])


@pytest.mark.parametrize('n', [0, -3, 7])
def test_more_labels_than_there_are(n):
    with pytest.raises(InputError, match=f'{n} labels asked for, but crowd has 6 people: ask for 1 to 6'):
        subset(crowd([2, 2, 2]), n)
    with pytest.raises(InputError, match='crowd has 3 photos'): subset(crowd([2, 2, 2]), n, by='image')


def test_unknown_unit():
    with pytest.raises(InputError, match="no unit of drawing 'persons': did you mean 'person'"):
        subset(crowd([2]), 1, by='persons')


@given(sizes, seeds, st.sampled_from(['person', 'image']))
def test_everyone_is_labelled_or_unlabelled(sizes, seed, by):
    p = crowd(sizes)
    s = draw_split(p, 1 + len(sizes)//2, seed, by)
    lab, unl = s.rows(p)
    assert sorted([*lab.tolist(), *unl.tolist()]) == list(range(len(p)))
    assert lab.tolist() == subset(p, 1 + len(sizes)//2, seed, by).tolist()
    assert p.ann_ids[lab].tolist() == list(s.labelled) and p.ann_ids[unl].tolist() == list(s.unlabelled)


def test_unlabelled_people_of_other_data_sets():
    p, wild, third = crowd([2, 3]), replace(crowd([4, 4, 4], seed=1), name='wild'), replace(crowd([2], seed=2), name='third')
    # all labels, and others' photos: COCO-Additional
    s = draw_split(p, 0, 0, others=[wild, third], rest=False)
    lab, unl, *more = s.rows(p, wild, third)
    assert sorted(lab.tolist()) == list(range(5)) and not len(unl) and [r.tolist() for r in more] == [list(range(12)), [0, 1]]
    assert [(q.data, q.mark, q.ids) for q in s.others] == [(q.name, fingerprint(q), tuple(q.ann_ids.tolist())) for q in (wild, third)]
    for wrong in ([], [wild], [wild, third, p]):
        with pytest.raises(InputError, match="are of 'wild' and 'third' in this split, and . are given"): s.rows(p, *wrong)
    for wrong in ([wild[:3], third], [third, wild]):
        with pytest.raises(InputError, match='drawn from data with the fingerprint'): s.rows(p, *wrong)
    with pytest.raises(InputError, match='are of no other data set in this split, and 1 are given'): draw_split(p, 2).rows(p, wild)


def test_the_rest_and_others():
    p, wild = crowd([2, 3]), replace(crowd([4], seed=1), name='wild')
    lab, unl, more = draw_split(p, 2, others=[wild]).rows(p, wild)
    assert len(lab) == 2 and sorted([*lab, *unl]) == list(range(5)) and len(more) == 4


@given(sizes, seeds, st.sampled_from(['person', 'image']))
def test_no_number_means_everybody(sizes, seed, by):
    p = crowd(sizes)
    lab, unl = draw_split(p, 0, seed, by).rows(p)
    assert sorted(lab.tolist()) == list(range(len(p))) and not len(unl)


@given(st.sampled_from([n for n, p in PROTOCOLS.items() if len(p.labels) > 1]), st.integers(0, 9))
def test_the_draws_of_a_protocol_are_nested(name, shuffle):
    most = max(PROTOCOLS[name].labels)
    p = replace(crowd([1]*3)[[0]*(most+50)], ann_ids=np.random.default_rng(shuffle).permutation(most+50))
    for seed in PROTOCOLS[name].seeds:
        sets = [set(p.ann_ids[subset(p, d['labels'], seed, d['by'])].tolist()) for d in draws(name) if d['seed'] == seed]
        assert [len(x) for x in sets] == list(PROTOCOLS[name].labels) and all(a < b for a, b in zip(sets, sets[1:]))


@pytest.mark.parametrize('name', PROTOCOLS)
def test_draws_are_parameters_of_a_run(name):
    from sshpe.runs.run import config
    p, found = PROTOCOLS[name], draws(name)
    assert len(found) == len(p.labels)*len(p.seeds) and len({tuple(d.items()) for d in found}) == len(found)
    for d in found: assert config(d).labels == d['labels']
    assert sources(p.unlabelled) and all(a < b <= p.epochs for a, b in zip(p.drops, p.drops[1:]))


def test_all_labelled_leaves_nobody():
    p = crowd([2, 3])
    lab, unl = draw_split(p, 5).rows(p)
    assert len(lab) == 5 and len(unl) == 0


@given(sizes, seeds, st.sampled_from(['person', 'image']))
def test_a_split_file_comes_back(tmp_path_factory, sizes, seed, by):
    s = draw_split(crowd(sizes), 1, seed, by)
    f = s.write(tmp_path_factory.mktemp('split')/'a/split.json')
    assert read_split(f) == s and json.loads(f.read_text())['labelled'] == list(s.labelled)


def test_a_split_file_with_other_data_sets_comes_back(tmp_path):
    p, wild = crowd([2, 3]), replace(crowd([4], seed=1), name='wild')
    s = draw_split(p, 3, 1, others=[wild, replace(wild, name='again')], rest=False)
    assert read_split(s.write(tmp_path/'s.json')) == s


def test_split_files_of_the_first_version(tmp_path):
    d = dict(labelled=[3, 1], unlabelled=[2], data='crowd', mark='ab', other='', other_mark='', seed=1, by='person')
    (tmp_path/'s.json').write_text(json.dumps(d))
    assert read_split(tmp_path/'s.json') == Split((3, 1), (2,), 'crowd', 'ab', (), 1)
    (tmp_path/'s.json').write_text(json.dumps(d | dict(other='wild', other_mark='cd', unlabelled=[1, 2])))
    assert read_split(tmp_path/'s.json') == Split((3, 1), (), 'crowd', 'ab', (Pool('wild', 'cd', (1, 2)),), 1)


def test_a_split_of_other_data_is_refused():
    p = crowd([2, 3])
    s = draw_split(p, 2)
    with pytest.raises(InputError, match='use the data it was drawn from, or empty its "mark"'): s.rows(p[:4])
    by_id = replace(s, mark='')
    with pytest.raises(InputError, match=r'names 1 people that crowd does not have \(id \d+\)'):
        by_id.rows(p[1:])
    turned = p[::-1]
    # ids are enough, in any order of the file
    assert turned.ann_ids[by_id.rows(turned)[0]].tolist() == list(s.labelled)


BAD = {'gone': (None, 'there is no split file'), 'not json': ('{', 'is not a split file'),
       'a list': ('[]', 'is not a split file'), 'binary': (b'\xff\xfe\0', 'is not a split file'), 'deep': ('['*100000, 'is not a split file')}


@pytest.mark.parametrize('kind', BAD)
def test_files_that_are_no_splits(kind, tmp_path):
    text, says = BAD[kind]
    if text is not None: (tmp_path/'s.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=says): read_split(tmp_path/'s.json')


CHANGES = {
    'twice': (dict(labelled=[1, 1]), 'twice'), 'both': (dict(labelled=[1], unlabelled=[1]), 'labelled and unlabelled at once'),
    'nobody': (dict(labelled=[]), 'nobody'), 'text': (dict(labelled=['1']), 'whole numbers'),
    'true': (dict(labelled=[True]), 'whole numbers'), 'nested': (dict(labelled=[[1]]), 'whole numbers'),
    'a number': (dict(labelled=3), 'is not a split file'), 'a name': (dict(labelled='abc'), 'whole numbers'),
    'more': (dict(colour='red'), 'is not a split file'), 'mark': (dict(mark=3), 'must be text'),
    'others': (dict(others=3), 'is not a split file'), 'pool': (dict(others=[3]), 'is not a split file'),
    'pool of text': (dict(others=[dict(data='a', mark='', ids='ab')]), 'whole numbers'), 'pool without a name': (dict(others=[dict(ids=[])]), 'is not a split file'),
    'pool of 3': (dict(others=[dict(data=3, mark='', ids=[])]), 'must be text'), 'twice in a pool': (dict(others=[dict(data='a', mark='', ids=[1, 1])]), 'twice'),
    'seed': (dict(seed='x'), 'seed'), 'by': (dict(by='house'), '"by" one of person, image')}


@pytest.mark.parametrize('kind', CHANGES)
def test_splits_that_cannot_be(kind, tmp_path):
    change, says = CHANGES[kind]
    d = asdict(Split((1, 2), (3, 4), 'crowd', '')) | change
    (tmp_path/'s.json').write_text(json.dumps(d))
    with pytest.raises(InputError, match=says) as e: read_split(tmp_path/'s.json')
    assert 's.json' in str(e.value)


def test_missing_key(tmp_path):
    d = asdict(Split((1, 2), (3, 4), 'crowd', '')); del d['unlabelled']
    (tmp_path/'s.json').write_text(json.dumps(d))
    with pytest.raises(InputError, match="is not a split file .*unlabelled"): read_split(tmp_path/'s.json')


def test_fingerprint_is_in_the_split():
    p = crowd([2, 3])
    assert draw_split(p, 2).mark == fingerprint(p)


def test_more_labels_move_people_from_one_side_to_the_other():
    from sshpe.data.split import Split, with_labels
    s = Split((5, 2), (9, 7, 1), 'd', 'm')
    assert with_labels(s, [7, 9]) == Split((5, 2, 7, 9), (1,), 'd', 'm')
    for wrong in ([], [5], [7, 7], [4]):
        with pytest.raises(InputError, match='nobody twice'): with_labels(s, wrong)
