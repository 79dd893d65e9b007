"""InfoNCE against closed forms and a brute-force loop over embeddings at stated angles."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xmalign_lab.losses.contrastive import info_nce, symmetric_info_nce


def at_angles(degrees: list[float]) -> torch.Tensor:
    radians = torch.tensor(degrees) * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], 1)


def brute_force(sim, positives, tau, weight) -> float:
    """The printed equation, one pair at a time."""
    total = weights = 0.0
    n, m = sim.shape
    for i in range(n):
        rivals = [k for k in range(m) if not positives[i, k]]
        for j in range(m):
            if positives[i, j]:
                top = math.exp(sim[i, j] / tau[i, j])
                bottom = top + sum(math.exp(sim[i, k] / tau[i, k]) for k in rivals)
                total += weight[i, j] * -math.log(top / bottom)
                weights += weight[i, j]
    return float(total / weights)


@pytest.mark.parametrize("tau", [0.05, 0.5, 2.0])
def test_against_brute_force_at_stated_angles(tau):
    sim = at_angles([0, 40, 95, 200]) @ at_angles([10, 30, 100, 180, 270]).T
    positives = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
    weight = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    expected = brute_force(sim.double(), positives, torch.full((4, 5), tau), weight)
    assert float(info_nce(sim, positives, tau, weight)) == pytest.approx(expected, rel=1e-5)


def test_temperature_may_be_per_row_and_per_pair():
    sim = at_angles([0, 50, 120]) @ at_angles([5, 60, 110]).T
    positives = torch.eye(3, dtype=torch.bool)
    per_pair = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.1, 0.2], [0.3, 0.5, 0.1]])
    expected = brute_force(sim, positives, per_pair, torch.ones(3, 3))
    assert float(info_nce(sim, positives, per_pair)) == pytest.approx(expected, rel=1e-5)
    rows = per_pair[:, :1]
    assert float(info_nce(sim, positives, rows)) == pytest.approx(float(info_nce(sim, positives, rows.expand(3, 3))), rel=1e-6)


@given(st.integers(2, 40), st.floats(0.02, 5))
def test_identical_embeddings_give_log_n(n, tau):
    assert float(info_nce(torch.ones(n, n), torch.eye(n, dtype=torch.bool), tau)) == pytest.approx(math.log(n), rel=1e-4)


def test_single_positive_is_cross_entropy_both_ways():
    sim = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    target = torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(sim / 0.1, target) + cross_entropy(sim.T / 0.1, target)) / 2
    assert torch.allclose(symmetric_info_nce(sim, torch.eye(6, dtype=torch.bool), 0.1), expected, rtol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.0])
@pytest.mark.parametrize("mask", [torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)])
def test_nothing_to_contrast_is_zero_with_a_finite_gradient(mask, weight):
    sim = torch.randn(3, 4, requires_grad=True)
    loss = symmetric_info_nce(sim, mask, 0.1, weight)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(sim.grad, torch.zeros(3, 4))


def test_positives_do_not_push_each_other_away():
    sim = torch.tensor([[0.9, 0.1, 0.2]], requires_grad=True)
    positives = torch.tensor([[True, True, False]])
    info_nce(sim, positives, 0.1).backward()
    assert (sim.grad[positives] <= 0).all() and float(sim.grad[0, 2]) > 0


def test_weight_zero_silences_a_pair():
    sim = torch.tensor([[0.2, 0.9], [0.8, 0.1]])
    positives = torch.eye(2, dtype=torch.bool)
    only_first = info_nce(sim, positives, 0.1, torch.tensor([[1.0], [0.0]]))
    assert torch.allclose(only_first, info_nce(sim[:1], positives[:1], 0.1))


def test_gradient_reaches_a_learned_temperature():
    tau = torch.tensor(0.2, requires_grad=True)
    sim = torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
    symmetric_info_nce(sim, torch.eye(4, dtype=torch.bool), tau).backward()
    assert torch.isfinite(tau.grad) and float(tau.grad) != 0


def test_half_precision_similarities_are_summed_in_single():
    sim = torch.tensor([[1.0, 0.999]], dtype=torch.float16)
    assert info_nce(sim, torch.tensor([[True, False]]), 0.01).dtype == torch.float32
