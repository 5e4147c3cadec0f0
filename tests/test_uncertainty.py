"Uncertainty and selection against loops written from the denoising paper's Eq. 6 and 7."
import math
import numpy as np, pytest, torch
from hypothesis import given, strategies as st
from sshpe.ssl.methods import recipe
from sshpe.ssl.pseudo import aggregate, Answers
from sshpe.ssl.uncertainty import deviation, lower_relative_uncertainty, lower_uncertainty, select, SELECTIONS, trusts_self, uncertainty
from test_denoise import case, seeds, shapes

@given(seeds, shapes)
def test_deviation_and_uncertainty(seed, shape):
    H, seen = case(seed, shape)
    U, u = deviation(torch.tensor(H), torch.tensor(seen)), uncertainty(torch.tensor(H), torch.tensor(seen))
    assert U.dtype == torch.float32 and U.isfinite().all()
    for s, b, j in np.ndindex(*u.shape):
        truth = np.zeros(shape[2:])
        for y, x in np.ndindex(shape[2:]):
            values = [H[s,b,v,j,y,x] for v in range(shape[0]) if seen[b,v,0,y,x]]
            if values: truth[y,x] = math.sqrt(sum((a-sum(values)/len(values))**2 for a in values)/len(values))
        assert np.allclose(U[s,b,j], truth, atol=1e-5) and math.isclose(u[s,b,j], truth.max(), abs_tol=1e-5)

def test_one_view_knows_no_doubt_and_zero_padding_makes_none():
    H = torch.rand(2, 3, 1, 4, 5, 6)
    assert not uncertainty(H, torch.ones(3, 1, 1, 5, 6, dtype=torch.bool)).any()
    H = torch.cat([H, torch.zeros_like(H)], 2)  # a second view that has seen nothing
    assert not uncertainty(H, torch.tensor([True, False]).view(1, 2, 1, 1, 1).expand(3, 2, 1, 5, 6)).any()

def test_small_disagreements_of_large_values_survive_half_precision():
    H = torch.tensor([1., 1.0078125]).bfloat16().view(2, 1, 1, 1)
    assert math.isclose(deviation(H, torch.ones(2, 1, 1, 1, dtype=torch.bool)).item(), .0078125/2, rel_tol=1e-4)

@given(seeds, st.sampled_from([0., .1, -.1, math.inf, -math.inf]), st.sampled_from([(), (3,), (2, 2)]))
def test_own_and_select(seed, m, tail):
    r = np.random.default_rng(seed)
    u, P = r.choice([0, .1, .25, .3, .7], (2, 4, 5)), r.normal(size=(2, 4, 5, *tail))
    mine = trusts_self(torch.tensor(u), m)
    T = select(torch.tensor(P), mine).numpy()
    for s, b, j in np.ndindex(2, 4, 5):
        trust = u[s,b,j] < u[1-s,b,j]-m
        assert bool(mine[s,b,j]) == trust and np.array_equal(T[s,b,j], P[s if trust else 1-s, b, j])

def test_nobody_else_to_ask():
    P = torch.rand(1, 2, 3, 4, 4)
    for m in (0., math.inf): assert torch.equal(select(P, trusts_self(torch.rand(1, 2, 3), m)), P)

def test_equal_doubts_are_no_reason_to_trust_oneself(): assert not trusts_self(torch.full((2, 1, 3), .2)).any()

def test_selection_carries_the_surer_students_map():
    u, P = torch.tensor([[[.1, .5]], [[.3, .2]]]), torch.arange(4.).view(2, 1, 2, 1, 1)
    assert select(P, trusts_self(u)).flatten().tolist() == [0, 3, 0, 3]
    # own only where surer by more than a quarter: joint 1 of student 2
    assert select(P, trusts_self(u, .25)).flatten().tolist() == [2, 3, 0, 3]


@given(st.integers(0, 2**32-1))
def test_the_closest_pair_by_enumeration(seed):
    "SSPCM: of the four pairs (teacher 1 now or before, teacher 2 now or before), the one whose peaks lie closest."
    g = np.random.default_rng(seed)
    P = g.random((4, 2, 3, 6, 5))
    T, own = SELECTIONS['closest'].choose(torch.tensor(P), torch.zeros(4, 2, 3), 0)
    assert T.shape == (3, 2, 3, 6, 5) and not own.any() and own.shape == (3, 2, 3)
    assert np.array_equal(T[0], P[1]) and np.array_equal(T[1], P[0])
    at = lambda i, b, j: np.array(np.unravel_index(P[i,b,j].argmax(), (6, 5)))
    for b, j in np.ndindex(2, 3):
        d = {(i, k): np.hypot(*(at(i, b, j)-at(k, b, j))) for i in (0, 2) for k in (1, 3)}
        best = [np.allclose(T[2,b,j], (P[i,b,j]+P[k,b,j])/2) for (i, k), x in d.items() if x == min(d.values())]
        assert any(best)

def test_selection_by_relative_doubt():
    "A faint map that varies little is not surer than a high one that varies a little more."
    P, u = torch.tensor([[[.2]], [[.9]]])[...,None,None], torch.tensor([[[.05]], [[.1]]])  # .25 and .11 of the peak
    (chosen, own), (theirs, _) = lower_relative_uncertainty(P, u, 0.), lower_uncertainty(P, u, 0.)
    assert own.flatten().tolist() == [False, True] and chosen.flatten().tolist() == pytest.approx([.9, .9])
    assert theirs.flatten().tolist() == pytest.approx([.2, .2])
    assert lower_relative_uncertainty(P, u, .5)[0].flatten().tolist() == pytest.approx([.9, .2])  # the margin: both learn from the other

@given(st.integers(0, 2**32-1), st.sampled_from([0., .05, math.inf]), st.sampled_from(['uncertainty', 'accepted']))
def test_whose_map_teaches_joint_by_joint(seed, m, selection):
    "Two students, three views, four joints; of 48 maps about half pass the gate."
    g = np.random.default_rng(seed)
    H = g.random((2, 2, 3, 4, 5, 4))*g.random((2, 2, 1, 4, 1, 1))
    a = Answers(torch.tensor(H, dtype=torch.float32), torch.ones(2, 3, 1, 5, 4, dtype=torch.bool))
    said = aggregate(a, recipe('denoise-select', 'tiny', selection=selection, margin=m, tau=.5)[0])
    doubt = lambda maps: math.inf if selection == 'accepted' and maps.max() <= .5 else maps.std(0).max()
    for s, b, j in np.ndindex(2, 2, 4):
        mine, theirs = H[s,b,:,j], H[1-s,b,:,j]
        own = doubt(mine) < doubt(theirs)-m
        assert said.trusts_self[s,b,j] == own and np.allclose(said.chosen[s,b,j], (mine if own else theirs).max(0), atol=1e-6)
