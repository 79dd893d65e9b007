"""RINCE against its equation in doubles, its two limits, and what it is for: wrong pairs pull less."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.losses.contrastive import rince, symmetric_info_nce


def by_the_equation(sim, positives, tau, weight, q, lam) -> float:
    total = weights = 0.0
    for i in range(sim.shape[0]):
        negative = sum(math.exp(sim[i, k] / tau) for k in range(sim.shape[1]) if not positives[i, k])
        for j in range(sim.shape[1]):
            if positives[i, j]:
                own = math.exp(sim[i, j] / tau)
                total += float(weight[i, j]) * (-(own**q) / q + (lam * (own + negative)) ** q / q)
                weights += float(weight[i, j])
    return total / weights


@pytest.fixture
def block():
    generator = torch.Generator().manual_seed(0)
    positives = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    return torch.rand(3, 4, generator=generator) * 2 - 1, positives, torch.rand(3, 4, generator=generator)


@pytest.mark.parametrize(("q", "lam"), [(0.1, 0.01), (0.5, 0.01), (0.5, 0.5), (1.0, 0.3)])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_against_the_equation_with_several_positives_a_row(block, q, lam, tau):
    sim, positives, weight = block
    rows = by_the_equation(sim, positives, tau, weight, q, lam)
    columns = by_the_equation(sim.T, positives.T, tau, weight.T, q, lam)
    assert float(rince(sim, positives, tau, weight, q, lam)) == pytest.approx((rows + columns) / 2, rel=2e-5)


def test_towards_q_zero_it_is_info_nce_and_a_constant(block):
    sim, positives, weight = block
    expected = float(symmetric_info_nce(sim, positives, 0.2, weight)) + math.log(0.05)
    errors = [abs(float(rince(sim, positives, 0.2, weight, q, 0.05)) - expected) for q in (0.1, 0.01, 1e-3, 1e-5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3


def test_at_q_one_it_is_linear_in_the_exponentials_and_symmetric():
    # ℓ(s, 1) + ℓ(s, -1) = const for ℓ(s, y) = -y exp(s): a score counts for a positive as it counts against as a negative.
    sim = torch.tensor([[0.3, -0.2]])
    first, second = (torch.tensor([[True, False]]), torch.tensor([[False, True]]))
    lam = 0.5  # then row 0 gives -(1 - λ) e^own + λ e^other, which swaps sign with the label
    both = [_rows(sim, mask, lam) for mask in (first, second)]
    assert sum(both) == pytest.approx(0, abs=1e-6) and both[0] != 0


def _rows(sim, positives, lam) -> float:
    """The row direction alone: of both directions, the columns' has no rival and gives (λ - 1) e^own."""
    own = float(sim[positives].exp())
    return 2 * float(rince(sim, positives, 1.0, q=1.0, lam=lam)) - (lam - 1) * own


def test_a_wrong_pair_pulls_less_than_under_info_nce():
    sim = torch.eye(4) * 0.9
    sim[3] = torch.tensor([0.9, 0.0, 0.0, -0.5])  # row 3's pair looks wrong
    pulls = []
    for loss in (symmetric_info_nce, rince):
        free = sim.clone().requires_grad_()
        loss(free, torch.eye(4, dtype=torch.bool), 0.2).backward()
        pulls.append(float(free.grad[3, 3] / free.grad.diag().sum()))
    assert pulls[0] > 0.5 > 0.05 > pulls[1]


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.floats(-1, 1), st.floats(0.02, 1), st.floats(0.01, 1))
def test_all_equal_and_a_batch_of_one_stay_finite(n, m, value, tau, q):
    sim = torch.full((n, m), value, requires_grad=True)
    for positives in (torch.eye(n, m, dtype=torch.bool), torch.ones(n, m, dtype=torch.bool)):
        sim.grad = None
        loss = rince(sim, positives, tau, q=q)
        loss.backward()
        assert math.isfinite(loss.item()) and torch.isfinite(sim.grad).all()


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_no_pair_with_weight_is_zero_with_a_gradient(weight):
    sim = torch.rand(3, 4, requires_grad=True)
    mask = torch.zeros(3, 4, dtype=torch.bool) if weight else torch.eye(3, 4, dtype=torch.bool)
    loss = rince(sim, mask, 0.1, weight)
    loss.backward()
    assert loss.item() == 0 and torch.equal(sim.grad, torch.zeros(3, 4))


@pytest.mark.parametrize(
    "bad", [{"q": 0.0}, {"q": 1.5}, {"lam": 0.0}, {"tau": 0.005, "q": 0.5}, {"tau": 0.0}, {"tau": -0.1}, {"q": math.nan}]
)
def test_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match="RINCE needs"):
        rince(torch.zeros(2, 2), torch.eye(2, dtype=torch.bool), **{"tau": 0.1, **bad})


def test_the_greatest_exponent_allowed_is_finite():
    sim = torch.ones(300, 300, requires_grad=True)
    loss = rince(sim, torch.eye(300, dtype=torch.bool), 1 / 80, q=1.0)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(sim.grad).all()


def test_rince_takes_a_learned_temperature():
    tau = torch.tensor(0.1, requires_grad=True)
    rince(torch.eye(3), torch.eye(3).bool(), tau).backward()
    assert torch.isfinite(tau.grad) and tau.grad != 0
