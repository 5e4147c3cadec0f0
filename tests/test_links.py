"An explorer's state as an address, and back."
import re
from dataclasses import asdict, dataclass
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, strategies as st

from sshpe.data.registry import load
from sshpe.explore.base import State
from sshpe.explore.heatmaps import HeatmapExplorer
from sshpe.explore.links import from_link, to_link
from sshpe.explore.pages import explorer


@dataclass(frozen=True)
class Everything(State):
    number:float = 1.
    whole:int = 0
    word:str = ''
    on:bool = False
    several:tuple = ()

finite = st.floats(allow_nan=False, allow_infinity=False)
items = st.text(max_size=6) | st.integers() | finite | st.sampled_from(['3', '-.5', 'nan', '1_0', '"', '', 'a,b', 'null', '[1]', 'inf'])
states = st.builds(Everything, finite, st.integers(), st.text(), st.booleans(), st.lists(items, max_size=5).map(tuple))

@given(states)
def test_an_address_brings_a_state_back(s):
    link = to_link(asdict(s))
    assert from_link(link, Everything) == (asdict(s), []) and re.fullmatch(r'[\w.~%=&,-]*', link, re.ASCII), 'any browser takes it as it is'

@given(states)
def test_it_is_a_query_as_the_web_writes_them(s):
    "Against Python's reader of queries."
    theirs = dict(parse_qsl(to_link(asdict(s)), keep_blank_values=True))
    assert theirs['word'] == s.word and float(theirs['number']) == s.number and int(theirs['whole']) == s.whole

@pytest.mark.parametrize('link, state, sorry', [
    ('number=.3&several=2,x', dict(number=.3, several=(2, 'x')), []), ('&&whole=3&', dict(whole=3), []), ('', {}, []), ('several=', dict(several=()), []),
    ('whole=3.5&on=yes', dict(on=True), ['whole is a whole number']), ('number=nan', {}, ['number is a number']), ('on=1', {}, ['on is yes or no']),
    ('wrod=a&number=2', dict(number=2.), ["did you mean 'word'"]), ('number', {}, ['number is a number']), ('number=1&number=2', dict(number=2.), [])])
def test_what_a_hand_writes(link, state, sorry):
    got, said = from_link(link, Everything)
    assert got == state and len(said) == len(sorry) and all(w in s for w, s in zip(sorry, said))


# ---- explorers

@pytest.fixture(scope='module')
def people(): return load('people', split='val')[:4]

def test_an_explorer_opens_where_another_one_is(people):
    a, b = HeatmapExplorer('denoise-select', people), HeatmapExplorer('denoise-select', people, tau=.9, person=3)
    for changes in (dict(person=2, joint='nose'), dict(tau=.33, layers=('raw',), refined=False), dict(kind='weak', views=2)):
        b.hear(dict(event='link', text=a.set(**changes).link()))
        assert b.status == '' and a.panels.link == a.link() and {k: b.state[k] for k in changes} == changes

def test_what_a_page_opens_with_is_told():
    "Another page of the same explorer, which begins elsewhere, shows the same."
    e = explorer('label', data='people:val', n=3)
    e.set(person=2, marks=(1.5, 2))
    f = explorer('label', data='people:val', n=3, person=1)
    f.hear(dict(event='link', text=e.link()))
    assert f.state == e.state
    f.set(person=e.first.person); e.hear(dict(event='link', text=f.link()))
    assert e.state == f.state

def test_a_bad_value_costs_a_sentence(people):
    e = HeatmapExplorer('denoise-select', people)
    first = e.state
    e.hear(dict(event='link', text='joint=nse&tau=.4&views=many&person=77'))
    assert e.state == {**first, 'tau': .4, 'person': 3}
    assert all(w in e.status for w in ("joint='nse'", 'views is a whole number', 'shown is person=3'))
