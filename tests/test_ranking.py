"""The triplet loss against loops, and what must hold for any similarities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.losses.ranking import triplet


def looped(sim, positives, margin, hardest, reduction, weight):
    total, believed = 0.0, 0.0
    n, m = sim.shape
    for i in range(n):
        for j in range(m):
            if not positives[i, j]:
                continue
            believed += float(weight[i, j])
            of_row = [max(0.0, margin - float(sim[i, j]) + float(sim[i, k])) for k in range(m) if not positives[i, k]]
            of_column = [max(0.0, margin - float(sim[i, j]) + float(sim[k, j])) for k in range(n) if not positives[k, j]]
            for hinges in (of_row, of_column):
                total += float(weight[i, j]) * ((max(hinges, default=0.0)) if hardest else sum(hinges))
    return total / believed if reduction == "mean" and believed else total


@st.composite
def blocks(draw):
    n, m, seed = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    sim = torch.rand(n, m, generator=generator) * 2 - 1
    positives = torch.rand(n, m, generator=generator) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    return sim, positives, torch.rand(n, m, generator=generator)


@settings(max_examples=60, deadline=None)
@given(blocks(), st.booleans(), st.sampled_from(["sum", "mean"]), st.floats(0, 1))
def test_it_is_what_loops_say_and_always_has_a_finite_gradient(block, hardest, reduction, margin):
    sim, positives, weight = block
    sim = sim.requires_grad_()
    value = triplet(sim, positives, margin, hardest, reduction, weight)
    assert float(value.detach()) == pytest.approx(looped(sim.detach(), positives, margin, hardest, reduction, weight), abs=1e-5)
    value.backward()
    assert torch.isfinite(sim.grad).all()


def test_the_published_form_on_numbers_worked_by_hand():
    sim = torch.tensor([[0.9, 0.8, 0.1], [0.0, 0.5, 0.2], [0.3, 0.6, 0.4]])
    # rows: .2-.9+.8 = .1, [.2-.5+.2] = 0, .2-.4+.6 = .4; columns: 0, .2-.5+.8 = .5, [.2-.4+.2] = 0
    assert float(triplet(sim, torch.eye(3, dtype=torch.bool))) == pytest.approx(1.0, abs=1e-6)
    assert float(triplet(sim, torch.eye(3, dtype=torch.bool), reduction="mean")) == pytest.approx(1 / 3, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(blocks(), st.booleans())
def test_it_moves_with_its_arguments_as_it_must(block, hardest):
    sim, positives, weight = block
    loss = lambda *s, **k: float(triplet(*s, hardest=hardest, **k))  # noqa: E731
    value = loss(sim, positives, weight=weight)
    close = pytest.approx(value, abs=1e-4)
    assert loss(sim + 0.7, positives, weight=weight) == close, "a constant changes no order"
    assert loss(sim.T, positives.T, weight=weight.T) == close, "the sides are treated alike"
    rows = torch.randperm(len(sim))
    assert loss(sim[rows], positives[rows], weight=weight[rows]) == close
    assert loss(sim, positives, weight=2 * weight) == pytest.approx(2 * value, abs=1e-4)
    assert loss(sim, positives, weight=2 * weight, reduction="mean") == pytest.approx(
        loss(sim, positives, weight=weight, reduction="mean"), abs=1e-5
    )
    assert loss(sim, positives, margin=0.5, weight=weight) >= value - 1e-6


def test_another_positive_of_a_row_is_no_negative():
    sim = torch.tensor([[0.5, 0.9, -1.0]])
    assert float(triplet(sim, torch.tensor([[True, True, False]]))) == 0
    assert float(triplet(sim, torch.tensor([[True, False, False]]))) > 0


def test_only_the_hardest_negative_is_pushed():
    sim = torch.tensor([[0.5, 0.6, 0.4], [-1, 0.9, -1], [-1, -1, 0.9]], requires_grad=True)
    triplet(sim, torch.eye(3, dtype=torch.bool)).backward()
    assert sim.grad[0].tolist() == [-1, 1, 0]


@pytest.mark.parametrize("wrong", [{"reduction": "none"}, {"margin": -0.1}])
def test_what_it_cannot_do_it_says(wrong):
    with pytest.raises(ValueError, match="triplet needs"):
        triplet(torch.zeros(2, 2), torch.eye(2, dtype=torch.bool), **wrong)
