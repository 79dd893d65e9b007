"""Losses against closed forms, torch's own, and brute-force loops over embeddings at stated angles."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xmalign_lab.losses.contrastive import info_nce, sigmoid_pairs, smoothed_softmax, squared_distance, symmetric_info_nce


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_softmax_with_one_positive_a_row_is_torchs_cross_entropy(smoothing):
    generator = torch.Generator().manual_seed(0)
    sim = torch.rand(6, 6, generator=generator)
    order = torch.randperm(6, generator=generator)
    positives = torch.nn.functional.one_hot(order, 6).bool()
    rows = torch.nn.functional.cross_entropy(sim / 0.2, order, label_smoothing=smoothing)
    columns = torch.nn.functional.cross_entropy(sim.T / 0.2, order.argsort(), label_smoothing=smoothing)
    assert smoothed_softmax(sim, positives, 0.2, smoothing=smoothing).item() == pytest.approx(float(rows + columns) / 2, rel=1e-6)


def test_smoothed_softmax_counts_a_row_by_its_weight():
    sim = torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.2, 0.1], [0.0, 0.5, 0.4]])
    positives = torch.eye(3, dtype=torch.bool)
    weight = torch.tensor([1.0, 0.0, 0.5])[:, None].expand(3, 3)
    log_p, log_q = torch.log_softmax(sim, 1).diag(), torch.log_softmax(sim, 0).diag()
    expected = -((log_p[0] + 0.5 * log_p[2]) / 1.5 + (log_q[0] + 0.5 * log_q[2]) / 1.5) / 2
    assert smoothed_softmax(sim, positives, 1.0, weight, smoothing=0.0).item() == pytest.approx(float(expected), rel=1e-6)
    nothing = smoothed_softmax(sim.requires_grad_(), positives, 1.0, 0.0)
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(sim.grad, torch.zeros(3, 3))


def test_sigmoid_pairs_against_a_loop_over_every_pair():
    sim = torch.tensor([[0.9, 0.1, 0.3], [0.2, 0.8, -0.4]])
    positives = torch.tensor([[True, False, True], [False, True, False]])
    weight = torch.tensor([[1.0, 9.0, 0.5], [9.0, 0.25, 9.0]])  # what stands at a negative does not matter
    total = 0.0
    for i in range(2):
        for j in range(3):
            z, w = (1.0, float(weight[i, j])) if positives[i, j] else (-1.0, 1.0)
            total += w * math.log(1 + math.exp(-z * (float(sim[i, j]) / 0.1 - 2.71)))
    assert sigmoid_pairs(sim, positives, 0.1, weight, -2.71).item() == pytest.approx(total / 1.75, rel=1e-5)
    free = sim.clone().requires_grad_()
    nothing = sigmoid_pairs(free, positives, 0.1, 0.0, -2.71)
    nothing.backward()
    assert nothing.item() == 0 and torch.equal(free.grad, torch.zeros(2, 3))


def test_squared_distance_is_the_distance_of_unit_vectors():
    x = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0], [3.0, -1.0]]), dim=1)
    y = torch.nn.functional.normalize(torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 0.5]]), dim=1)
    positives = torch.tensor([[True, True, False], [False, False, True]])
    distances = [((x[i] - y[j]) ** 2).sum() for i, j in ((0, 0), (0, 1), (1, 2))]
    assert squared_distance(x @ y.T, positives).item() == pytest.approx(float(sum(distances)) / 3, rel=1e-5)
    assert squared_distance(x @ y.T, positives, 0.0).item() == 0


def by_the_equation(sim, positives, tau, weight, alpha, beta, hardness, ambiguity) -> float:
    """The printed equation of `info_nce` with its options, in doubles, one pair at a time; tau and weight are (n, m)."""
    total = weights = 0.0
    sim, tau, weight = sim.double(), tau.double(), weight.double()
    for i in range(sim.shape[0]):
        rivals = [k for k in range(sim.shape[1]) if not positives[i, k]]
        mean = sum(math.exp(hardness * sim[i, k]) for k in rivals) / len(rivals)
        negative = sum(math.exp(hardness * sim[i, k]) / mean * math.exp(sim[i, k] / tau[i, k]) for k in rivals)
        for j in range(sim.shape[1]):
            if positives[i, j]:
                own = math.exp(sim[i, j] / tau[i, j])
                share = own / (own + negative)
                v = float(weight[i, j]) * (1 - share) ** -ambiguity
                total += v * (alpha * -math.log(own) + beta * math.log(own + negative))
                weights += v
    return float(total / weights)


OPTIONS = [
    {"attraction": 0.5, "repulsion": 2.0},
    {"attraction": 0.0},
    {"hardness": 3.0},
    {"ambiguity": 1.0},
    {"ambiguity": -2.0},
    {"attraction": 1.5, "repulsion": 0.7, "hardness": -1.0, "ambiguity": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_against_the_printed_equation(options):
    generator = torch.Generator().manual_seed(4)
    sim, weight = torch.rand(4, 5, generator=generator) * 2 - 1, torch.rand(4, 5, generator=generator)
    positives = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], dtype=torch.bool)
    values = [options.get(name, default) for name, default in (("attraction", 1), ("repulsion", 1))]
    values += [options.get("hardness", 0), options.get("ambiguity", 0)]
    tau = torch.full((4, 5), 0.3)
    rows = by_the_equation(sim, positives, tau, weight, *values)
    columns = by_the_equation(sim.T, positives.T, tau.T, weight.T, *values)
    assert float(info_nce(sim, positives, 0.3, weight, **options)) == pytest.approx(rows, rel=1e-5)
    assert float(symmetric_info_nce(sim, positives, 0.3, weight, **options)) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_the_defaults_are_info_nce_to_the_bit():
    sim = torch.randn(5, 7, generator=torch.Generator().manual_seed(5))
    positives = torch.eye(5, 7, dtype=torch.bool)
    losses, gradients = [], []
    for options in ({}, {"attraction": 1.0, "repulsion": 1.0, "hardness": 0.0, "ambiguity": 0.0}):
        free = sim.clone().requires_grad_()
        loss = symmetric_info_nce(free, positives, 0.05, **options)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(free.grad)
    logits = sim / 0.05
    rivals = logits.masked_fill(positives, -torch.inf)
    own = logits[positives]
    plain = [torch.nn.functional.softplus(rivals.logsumexp(dim)[:5] - own).sum() for dim in (1, 0)]
    assert torch.equal(losses[0], losses[1]) and torch.equal(gradients[0], gradients[1])
    assert losses[0].item() == pytest.approx(float(sum(plain)) / 10, rel=1e-6)


def test_each_direction_has_its_own_individual_temperatures():
    generator = torch.Generator().manual_seed(6)
    sim = torch.rand(3, 4, generator=generator)
    positives = torch.eye(3, 4, dtype=torch.bool)
    rows, columns = torch.rand(3, 1, generator=generator) + 0.1, torch.rand(4, 1, generator=generator) + 0.1
    ones = torch.ones(3, 4)
    expected = brute_force(sim, positives, rows.expand(3, 4), ones), brute_force(sim.T, positives.T, columns.expand(4, 3), ones.T)
    for of_columns in (columns, columns.T):
        both = symmetric_info_nce(sim, positives, (rows, of_columns))
        assert float(both) == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert float(info_nce(sim, positives, (rows, columns))) == pytest.approx(expected[0], rel=1e-5)


def test_hardness_turns_the_gradient_to_the_nearest_negative_and_has_none_itself():
    sim = torch.tensor([[0.5, 0.4, -0.2, -0.3]], requires_grad=True)
    positives = torch.tensor([[True, False, False, False]])
    shares = []
    for hardness in (0.0, 2.0, 8.0):
        gradient = torch.autograd.grad(info_nce(sim, positives, 0.5, hardness=hardness), sim)[0]
        assert float(gradient.sum()) == pytest.approx(0, abs=1e-6)  # as of a softmax with fixed weights
        shares.append(float(gradient[0, 1] / gradient[0, 1:].sum()))
    assert shares == sorted(shares) and shares[2] > 0.98 > shares[0]


def test_ambiguity_one_divides_out_the_fading_of_the_gradient():
    # MACL's point: the gradient at a positive is -(1 - P)/τ, so that weighing by 1/(1 - P) makes it the same for every pair.
    sim = torch.tensor([[0.9, 0.0, 0.1], [0.2, 0.3, 0.1], [0.8, 0.7, 0.6]], requires_grad=True)
    positives = torch.eye(3, dtype=torch.bool)
    plain = torch.autograd.grad(info_nce(sim, positives, 0.2), sim)[0].diag()
    even = torch.autograd.grad(info_nce(sim, positives, 0.2, ambiguity=1.0), sim)[0].diag()
    assert float(plain.std()) > 0.1 and even.tolist() == pytest.approx([float(even.mean())] * 3, rel=1e-5)


@pytest.mark.parametrize("options", [{}, *OPTIONS])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (3, 3)])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("tau", [0.01, (torch.tensor(0.02), torch.tensor(0.05))])
def test_all_equal_or_a_batch_of_one_stays_finite(options, shape, value, tau):
    for positives in (torch.eye(*shape, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)):
        sim = torch.full(shape, value, requires_grad=True)
        taus = tuple(t.expand(n, 1) for t, n in zip(tau, shape, strict=True)) if isinstance(tau, tuple) else tau
        loss = symmetric_info_nce(sim, positives, taus, **options)
        loss.backward()
        assert math.isfinite(loss.item()) and torch.isfinite(sim.grad).all()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("positive", "negative"), [(1.0, -1.0), (-1.0, 1.0)])
def test_options_stay_finite_at_the_far_ends(options, positive, negative):
    positives = torch.eye(3, dtype=torch.bool)
    sim = torch.where(positives, positive, negative).requires_grad_()
    loss = symmetric_info_nce(sim, positives, 0.01, **options)
    loss.backward()
    assert math.isfinite(loss.item()) and torch.isfinite(sim.grad).all()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_no_pair_with_weight_is_zero_whatever_the_options(options, weight):
    sim = torch.randn(3, 4, generator=torch.Generator().manual_seed(7), requires_grad=True)
    mask = torch.zeros(3, 4, dtype=torch.bool) if weight else torch.eye(3, 4, dtype=torch.bool)
    loss = symmetric_info_nce(sim, mask, 0.1, weight, **options)
    loss.backward()
    assert loss.item() == 0 and torch.equal(sim.grad, torch.zeros(3, 4))


def test_a_pair_without_rivals_takes_no_emphasis_from_the_others():
    sim = torch.tensor([[0.9, 0.8, 0.1], [0.0, 0.0, 0.7]])
    positives = torch.tensor([[True, False, False], [True, True, True]])  # nothing competes with row 1's
    logits = (sim / 0.2)[0]
    share = float(logits.softmax(0)[0])
    v = 1 / (1 - share)
    expected = v * -math.log(share) / (v + 3)
    assert float(info_nce(sim, positives, 0.2, ambiguity=1.0)) == pytest.approx(expected, rel=1e-5)
