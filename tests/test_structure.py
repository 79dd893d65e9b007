"""Regularisers against numpy, scikit-learn's kernels and POT, and their zeros."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import rbf_kernel

from xmalign_lab.losses.structure import cka, coral, gromov_wasserstein, mmd, neighbourhood, structure, uniformity, wasserstein

ALL = [structure, cka, mmd, coral, gromov_wasserstein, wasserstein, uniformity]
TIMES = pytest.mark.parametrize("measure", ALL, ids=lambda measure: measure.__name__)


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.fixture
def pairs():
    """Five rows left, six right, seven believed pairs, and the paired rows that they stand for."""
    left, right = unit(5, 4, 1), unit(6, 4, 2)
    positives = torch.zeros(5, 6, dtype=torch.bool)
    row, column = torch.tensor([0, 0, 1, 2, 3, 4, 4]), torch.tensor([0, 1, 1, 2, 4, 3, 5])
    positives[row, column] = True
    return left, right, positives, left[row].double().numpy(), right[column].double().numpy()


def test_structure_by_pairs_of_pairs(pairs):
    left, right, positives, x, y = pairs
    x = 2 * x  # of unequal length, so that the diagonal would count
    squares = [(x[k] @ x[n] - y[k] @ y[n]) ** 2 for k in range(7) for n in range(k + 1, 7)]
    assert structure(2 * left, right, positives).item() == pytest.approx(np.mean(squares), rel=1e-5)
    assert structure(left, left, torch.eye(5, dtype=torch.bool)).item() == 0


def test_cka_by_gram_matrices(pairs):
    left, right, positives, x, y = pairs
    centre = np.eye(7) - 1 / 7
    k, n = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = 1 - (k * n).sum() / np.sqrt((k * k).sum() * (n * n).sum())
    assert cka(left, right, positives).item() == pytest.approx(expected, rel=1e-5)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)))
    assert cka(left, 3 * left @ turn + 5, torch.eye(5, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-5)


def test_mmd_by_scikit_learns_kernel(pairs):
    left, right, positives, x, y = pairs
    z = np.concatenate([x, y])
    squared = np.sort(((z[:, None] - z) ** 2).sum(-1).ravel())
    gamma = 1 / (2 * squared[(squared.size - 1) // 2])  # torch's median is the lower of the two in the middle
    expected = rbf_kernel(x, x, gamma).mean() + rbf_kernel(y, y, gamma).mean() - 2 * rbf_kernel(x, y, gamma).mean()
    assert mmd(left, right, positives).item() == pytest.approx(expected, rel=1e-4)


def test_mmd_takes_an_even_spread_of_many_pairs():
    x, y, every = unit(1025, 3, 4), unit(1025, 3, 5), torch.eye(1025, dtype=torch.bool)
    at = torch.arange(512) * 1025 // 512
    assert mmd(x, y, every).item() == mmd(x[at], y[at], torch.eye(512, dtype=torch.bool)).item()
    assert set(at.diff().tolist()) == {2} and at[-1] == 1022


def test_coral_by_numpys_covariance(pairs):
    left, right, positives, x, y = pairs
    expected = ((np.cov(x.T) - np.cov(y.T)) ** 2).sum() / (4 * 4**2)
    assert coral(left, right, positives).item() == pytest.approx(expected, rel=1e-4)


def test_wasserstein_by_pot_on_the_same_directions(pairs):
    left, right, positives, x, y = pairs
    theta = torch.randn(4, 64, generator=torch.Generator().manual_seed(9))
    theta = (theta / theta.norm(dim=0)).double().numpy()
    expected = ot.sliced_wasserstein_distance(x, y, projections=theta) ** 2
    assert wasserstein(left, right, positives, directions=64, seed=9).item() == pytest.approx(expected, rel=1e-5)
    assert wasserstein(left, right, positives).item() == wasserstein(left, right, positives).item()
    points = torch.tensor([[0.0], [3.0]])
    assert wasserstein(points, points + 2, torch.eye(2, dtype=torch.bool)).item() == pytest.approx(4)


def test_gromov_wasserstein_under_a_known_plan(pairs):
    left, right, positives, x, y = pairs
    known = gromov_wasserstein(left, right, positives, plan=torch.eye(7) / 7).item()
    assert known == pytest.approx(structure(left, right, positives).item() * 6 / 7, rel=1e-5)
    plan = np.random.default_rng(0).random((7, 7))
    plan /= plan.sum()
    c, e = x @ x.T, y @ y.T
    expected = sum(
        (c[i, k] - e[j, n]) ** 2 * plan[i, j] * plan[k, n] for i in range(7) for j in range(7) for k in range(7) for n in range(7)
    )
    assert gromov_wasserstein(left, right, positives, plan=torch.from_numpy(plan)).item() == pytest.approx(expected, rel=1e-5)


def test_gromov_wasserstein_finds_the_plan_although_the_pairs_are_shuffled():
    x = torch.nn.functional.normalize(unit(12, 5, 6) + torch.tensor([0.7, 0, 0, 0, 0]), dim=1)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
    every = torch.eye(12, dtype=torch.bool)
    shuffled = (x @ turn)[order]
    c, e = (x @ x.T).double().numpy(), (shuffled @ shuffled.T).double().numpy()
    blind = np.mean((c[:, None, :, None] - e[None, :, None, :]) ** 2)
    assert gromov_wasserstein(x, shuffled, every).item() < 0.01 * blind < structure(x, shuffled, every).item()
    # the value is that of POT's own plan
    plan = ot.gromov.entropic_gromov_wasserstein(c, e, epsilon=0.5 * blind, tol=1e-6)
    loss = ot.gromov.gwloss(*ot.gromov.init_matrix(c, e, plan.sum(1), plan.sum(0)), plan)
    assert gromov_wasserstein(x, shuffled, every, epsilon=0.5).item() == pytest.approx(loss, rel=1e-4)


def test_uniformity_by_a_loop_over_distinct_rows(pairs):
    left, right, positives, *_ = pairs
    positives[:, 0] = positives[1] = False  # column 0 and row 1 are in no pair; column 1 stays through row 0
    sides = []
    for side in (left[[0, 2, 3, 4]], right[[1, 2, 3, 4, 5]]):
        n = len(side)
        values = [math.exp(-2 * float(((side[i] - side[j]) ** 2).sum())) for i in range(n) for j in range(i + 1, n)]
        sides.append(math.log(sum(values) / len(values)))
    assert uniformity(left, right, positives).item() == pytest.approx(sum(sides) / 2, rel=1e-5)
    one_left = torch.tensor([[True] * 6] + [[False] * 6] * 4)
    everywhere = uniformity(left, right, one_left).item()
    assert everywhere == pytest.approx(uniformity(right, right, torch.eye(6, dtype=torch.bool)).item() / 2, rel=1e-5)


@pytest.mark.parametrize("measure", [structure, mmd, coral, wasserstein], ids=lambda measure: measure.__name__)
def test_equal_sides_are_zero(measure):
    x = unit(6, 4, 7)
    assert measure(x, x.clone(), torch.eye(6, dtype=torch.bool)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("measure", ALL[:-1], ids=lambda measure: measure.__name__)
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 1000))
def test_never_negative(measure, n, d, seed):
    for other in (unit(n, d, seed + 1), unit(n, d, seed).flip(0)):  # another cloud, and the same
        value = measure(unit(n, d, seed), other, torch.eye(n, dtype=torch.bool)).item()
        assert value >= (-1e-6 if measure in (cka, gromov_wasserstein) else 0)


@TIMES
@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_pairs_are_zero_with_a_gradient(measure, count):
    left, right = unit(3, 4, 8).requires_grad_(), unit(2, 4, 9).requires_grad_()
    positives = torch.zeros(3, 2, dtype=torch.bool)
    positives[0, 1] = bool(count)
    value = measure(left, right, positives)
    value.backward()
    assert value.shape == () and value.item() == 0
    assert torch.equal(left.grad, torch.zeros(3, 4)) and torch.equal(right.grad, torch.zeros(2, 4))


@TIMES
@pytest.mark.parametrize("same", [True, False])
def test_all_rows_equal_stay_finite(measure, same):
    left = torch.tensor([[1.0, 0.0]]).repeat(4, 1).requires_grad_()
    right = (left.detach() if same else torch.tensor([[0.0, 1.0]]).repeat(4, 1)).clone().requires_grad_()
    value = measure(left, right, torch.eye(4, dtype=torch.bool))
    value.backward()
    assert math.isfinite(value.item()) and torch.isfinite(left.grad).all() and torch.isfinite(right.grad).all()


@TIMES
def test_descending_the_gradient_lowers_it(measure):
    left, right, every = unit(8, 5, 10).requires_grad_(), unit(8, 5, 11), torch.eye(8, dtype=torch.bool)
    before = measure(left, right, every)
    (gradient,) = torch.autograd.grad(before, left)
    after = measure(left.detach() - 1e-2 * gradient / gradient.norm(), right, every)
    assert after.item() < before.item()


@pytest.mark.parametrize("measure", [structure, cka, coral, wasserstein, uniformity], ids=lambda measure: measure.__name__)
def test_the_gradient_is_that_of_the_value(measure):
    left, right = unit(5, 3, 12).double().requires_grad_(), unit(5, 3, 13).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: measure(a, b, torch.eye(5, dtype=torch.bool)), (left, right), atol=1e-5)


def test_the_bandwidth_and_the_plan_have_no_gradient():
    left, right = unit(5, 3, 14).requires_grad_(), unit(5, 3, 15)
    every, plan = torch.eye(5, dtype=torch.bool), torch.full((5, 5), 1 / 25)
    # in an entropy this strong POT's plan is as good as even, so that the gradients must agree
    blurred = torch.autograd.grad(gromov_wasserstein(left, right, every, epsilon=1e3), left)[0]
    fixed = torch.autograd.grad(gromov_wasserstein(left, right, every, plan=plan), left)[0]
    assert torch.allclose(blurred, fixed, rtol=1e-2, atol=1e-4)
    z = torch.cat([left, right]).detach()
    width = ((z[:, None] - z) ** 2).sum(-1).median()
    kernel = torch.exp(-((torch.cat([left, right])[:, None] - torch.cat([left, right])) ** 2).sum(-1) / (2 * width))
    by_hand = kernel[:5, :5].mean() + kernel[5:, 5:].mean() - 2 * kernel[:5, 5:].mean()
    expected = torch.autograd.grad(by_hand, left)[0]
    assert torch.allclose(torch.autograd.grad(mmd(left, right, every), left)[0], expected, rtol=1e-3, atol=1e-5)


def test_neighbourhood_by_a_loop_over_rows_and_their_neighbours():
    after, before = unit(6, 4, 16), unit(6, 9, 17) @ unit(6, 9, 17).T
    total = 0.0
    for i in range(6):
        others = [j for j in range(6) if j != i]
        p, q = (np.exp([float(sims[i, j]) / 0.2 for j in others]) for sims in (before, after @ after.T))
        p, q = p / p.sum(), q / q.sum()
        total += float((p * np.log(p / q)).sum())
    assert neighbourhood(after, before, tau=0.2).item() == pytest.approx(total / 6, rel=1e-4)


def test_neighbourhoods_are_kept_by_what_keeps_every_cosine_and_pulled_back_by_the_gradient():
    x = unit(7, 4, 18)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)))
    assert neighbourhood(x @ turn, x @ x.T).item() == pytest.approx(0, abs=1e-5)
    after, before = unit(7, 4, 19).requires_grad_(), (x @ x.T).requires_grad_()
    value = neighbourhood(after, before)
    gradient, of_before = torch.autograd.grad(value, [after, before], allow_unused=True)
    assert of_before is None and torch.isfinite(gradient).all()
    assert neighbourhood(after.detach() - 1e-2 * gradient, before).item() < value.item()
    double = unit(5, 3, 20).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: neighbourhood(a.float(), torch.eye(5)), (double,), atol=5e-2, eps=1e-3)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_rows_for_a_neighbourhood_are_zero_with_a_gradient(n):
    after = unit(n, 4, 21).requires_grad_()
    value = neighbourhood(after, torch.eye(n))
    value.backward()
    assert value.item() == 0 and torch.equal(after.grad, torch.zeros(n, 4))
