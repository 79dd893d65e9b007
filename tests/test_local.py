"""Local alignment: losses against loops that follow the printed equations, and where a word points against known places."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.evaluate.local import inside, pointing
from xmalign_lab.losses import local

MEASURES = {
    "filip of x": lambda *tokens: local.filip(*tokens)[0],
    "filip of y": lambda *tokens: local.filip(*tokens)[1],
    "gloria": local.gloria,
    "pacl": local.pacl,
    "transport": local.transport,
}
every = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def unit(tokens):
    return torch.nn.functional.normalize(tokens, dim=-1)


def drawn(n=3, a=4, m=5, b=6, d=7, seed=0, dtype=torch.float64):
    """x, y, x_mask, y_mask; the real tokens stand anywhere, at least one a row."""
    random = torch.Generator().manual_seed(seed)
    x, y = (unit(torch.randn(*shape, d, generator=random, dtype=dtype)) for shape in ((n, a), (m, b)))
    masks = [torch.rand(*shape, generator=random) < 0.6 for shape in ((n, a), (m, b))]
    for mask in masks:
        mask[torch.arange(len(mask)), torch.randint(mask.shape[1], (len(mask),), generator=random)] = True
    return x, y, *masks


def pairs_of(x, y, x_mask, y_mask, score):
    """score(real words of a row of x, real patches of a row of y), a pair at a time."""
    rows = [[score(x[i][x_mask[i]], y[j][y_mask[j]]) for j in range(len(y))] for i in range(len(x))]
    return torch.tensor(rows, dtype=x.dtype)


def cosine(u, v):
    return float(u @ v / (u.norm() * v.norm()))


def late(words, patches):
    return sum(max(float(word @ patch) for patch in patches) for word in words) / len(words)


def authors_gloria(words, patches, temp1=4.0, temp2=5.0, temp3=10.0):
    """Step by step after gloria_loss.py: softmax over words, times temp1, softmax over regions, log Σ exp(temp2 cos) · temp3."""
    dots = [[float(word @ patch) for patch in patches] for word in words]
    over_words = [
        [math.exp(dots[k][j]) / sum(math.exp(row[j]) for row in dots) for j in range(len(patches))] for k in range(len(words))
    ]
    total = 0.0
    for k, word in enumerate(words):
        lifted = [math.exp(temp1 * value) for value in over_words[k]]
        context = sum(patch * value / sum(lifted) for patch, value in zip(patches, lifted, strict=True))
        total += math.exp(temp2 * cosine(word, context))
    return temp3 * math.log(total)


def pooled(words, patches, scale=10.0):
    total = 0.0
    for word in words:
        lifted = [math.exp(scale * float(word @ patch)) for patch in patches]
        total += cosine(word, sum(patch * value / sum(lifted) for patch, value in zip(patches, lifted, strict=True)))
    return total / len(words)


def best_plan(words, patches, epsilon):
    """POT's plan between uniform margins."""
    margins = (np.full(len(side), 1 / len(side)) for side in (words, patches))
    cost = (1 - words @ patches.T).numpy()
    return ot.sinkhorn(*margins, cost, epsilon, method="sinkhorn_log", numItermax=5000, stopThr=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_filip_is_the_mean_of_the_best_of_each_token_in_both_directions(seed):
    tokens = drawn(seed=seed)
    of_x, of_y = local.filip(*tokens)
    assert torch.allclose(of_x, pairs_of(*tokens, late))
    assert torch.allclose(of_y, pairs_of(*tokens, lambda words, patches: late(patches, words)))
    assert torch.allclose(local.symmetric((of_x, of_y)), (of_x + of_y) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_gloria_is_the_authors_up_to_the_length_and_the_scale(seed):
    tokens = drawn(seed=seed)
    words = tokens[2].sum(1, keepdim=True)
    ours = local.gloria(*tokens, scale=1.0)
    assert torch.allclose(50 * ours + 10 * words.log(), pairs_of(*tokens, authors_gloria))
    sharper = local.gloria(*tokens, scale=3.0, sharpness=2.0, emphasis=7.0)
    assert not torch.allclose(sharper, ours, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_pacl_pools_the_patches_a_word_attends_to(seed):
    tokens = drawn(seed=seed)
    assert torch.allclose(local.pacl(*tokens), pairs_of(*tokens, pooled))
    x, y, x_mask, y_mask = drawn(a=1, seed=seed)  # one vector a text, as its authors have it
    weights = local.attention(x, y[:3], y_mask[:3])
    vectors = (weights @ y[:3])[:, 0]
    assert torch.allclose(local.pacl(x, y[:3], x_mask, y_mask[:3]).diagonal(), (unit(vectors) * x[:, 0]).sum(1))


@pytest.mark.parametrize("epsilon", [0.05, 0.3])
def test_transport_is_what_pot_transports_and_its_gradient_is_the_plan(epsilon):
    x, y, x_mask, y_mask = drawn(seed=4)
    tokens, x = (x.requires_grad_(), y, x_mask, y_mask), x.detach()
    ours = local.transport(*tokens, epsilon=epsilon, iterations=500)
    expected = pairs_of(x, y, x_mask, y_mask, lambda p, q: float((torch.from_numpy(best_plan(p, q, epsilon)) * (p @ q.T)).sum()))
    assert torch.allclose(ours, expected, atol=1e-7)
    ours[1, 2].backward()
    words, patches = x[1][x_mask[1]], y[2][y_mask[2]]
    expected = torch.zeros_like(x)
    expected[1, x_mask[1]] = torch.from_numpy(best_plan(words, patches, epsilon)) @ patches
    assert torch.allclose(tokens[0].grad, expected, atol=1e-6)


def test_transport_moves_along_the_regularised_cost():
    """The plan held still gives the derivative of min <P, C> + ε Σ P log P, by differences."""
    x, y, *_ = drawn(n=1, m=1, seed=5)
    words, patches, epsilon, step = x[0], y[0], 0.2, 1e-5
    turn = torch.randn(words.shape, generator=torch.Generator().manual_seed(0), dtype=words.dtype)

    def value(words):
        plan = best_plan(words, patches, epsilon)
        return (plan * (1 - words @ patches.T).numpy()).sum() + epsilon * (plan * np.log(plan)).sum()

    slope = (value(words + step * turn) - value(words - step * turn)) / (2 * step)
    words.requires_grad_()
    masks = (torch.ones(1, len(side), dtype=torch.bool) for side in (words, patches))
    local.transport(words[None], patches[None], *masks, epsilon=epsilon, iterations=500).backward()
    assert float((words.grad * turn).sum()) == pytest.approx(-slope, rel=1e-5)


@every
@pytest.mark.parametrize("filler", [0.0, 5.0, float("nan"), float("inf")])
def test_what_stands_at_a_masked_place_changes_nothing(measure, filler):
    x, y, x_mask, y_mask = drawn(seed=6)
    expected = measure(x, y, x_mask, y_mask)
    x, y = (side.masked_fill(~mask[..., None], filler).requires_grad_() for side, mask in ((x, x_mask), (y, y_mask)))
    found = measure(x, y, x_mask, y_mask)
    assert torch.equal(found, expected)
    found.sum().backward()
    for side, mask in ((x, x_mask), (y, y_mask)):
        assert torch.isfinite(side.grad).all() and side.grad[mask].any() and not side.grad[~mask].any()


@every
def test_padding_may_be_as_long_as_it_likes_and_order_is_nothing(measure):
    x, y, x_mask, y_mask = drawn(seed=7)
    expected = measure(x, y, x_mask, y_mask)
    longer = [torch.cat([side, unit(torch.ones(len(side), 3, 7, dtype=side.dtype))], 1) for side in (x, y)]
    masks = [torch.cat([mask, torch.zeros(len(mask), 3, dtype=torch.bool)], 1) for mask in (x_mask, y_mask)]
    assert torch.allclose(measure(*longer, *masks), expected)
    a, b = torch.randperm(x.shape[1]), torch.randperm(y.shape[1])
    assert torch.allclose(measure(x[:, a], y[:, b], x_mask[:, a], y_mask[:, b]), expected)


@every
def test_rows_taken_one_at_a_time_give_the_same_with_the_same_gradients(measure, monkeypatch):
    found = []
    for cosines in (1, 2**30):
        monkeypatch.setattr(local, "COSINES", cosines)
        x, y, *masks = drawn(seed=8)
        sim = measure(x.requires_grad_(), y.requires_grad_(), *masks)
        torch.logsumexp(5 * sim, 1).sum().backward()
        found.append((sim, x.grad, y.grad))
    assert all(torch.allclose(one, other) for one, other in zip(*found, strict=True))


@every
def test_nothing_of_the_size_of_all_cosines_is_kept_for_the_gradient(measure, monkeypatch):
    n, a, m, b = 20, 5, 24, 6
    x, y, *masks = drawn(n, a, m, b, dtype=torch.float32)
    monkeypatch.setattr(local, "COSINES", 4 * a * m * b)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        measure(x.requires_grad_(), y.requires_grad_(), *masks)
    assert sum(kept) < n * m * a * b / 2


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_every_measure_is_a_cosine_and_its_gradient_a_number(seed, n, a, m, b):
    x, y, *masks = drawn(n, a, m, b, d=2, seed=seed, dtype=torch.float32)  # a plane: ties and opposites abound
    y[0, 0] = -x[0, 0]
    for measure in MEASURES.values():
        sides = x.clone().requires_grad_(), y.clone().requires_grad_()
        sim = measure(*sides, *masks)
        assert sim.shape == (n, m) and sim.abs().max() <= 1 + 1e-4
        assert all(torch.isfinite(gradient).all() for gradient in torch.autograd.grad(sim.sum(), sides))


@pytest.mark.parametrize("measure", [local.gloria, local.pacl])
def test_patches_that_cancel_out_are_no_match_and_no_error(measure):
    x, y = torch.tensor([[[1.0, 0.0]]], requires_grad=True), torch.tensor([[[0.0, 1.0], [0.0, -1.0]]], requires_grad=True)
    sim = measure(x, y, torch.ones(1, 1, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool))
    sim.sum().backward()
    assert float(sim.detach()) == 0 and torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()


@every
def test_a_row_without_a_token_is_named(measure):
    x, y, x_mask, y_mask = drawn()
    x_mask[1], nothing = False, torch.zeros_like(y_mask)
    with pytest.raises(ValueError, match="x, row 1: every token is masked"):
        measure(x, y, x_mask, y_mask)
    with pytest.raises(ValueError, match="y, row 0"):
        measure(x, y, torch.ones_like(x_mask), nothing)


def test_what_a_picture_shows_of_itself():
    """One patch a word: FILIP finds all of them, transport too once it is sharp; a picture without them is farther away."""
    x, y, x_mask, y_mask = drawn(n=4, a=5, m=4, b=5, d=16, seed=9)
    full = torch.ones(4, 5, dtype=torch.bool)
    of_x, of_y = local.filip(x, x.flip(1), full, full)
    assert torch.allclose(of_x.diagonal(), torch.ones(4, dtype=x.dtype)) and torch.allclose(of_y.diagonal(), of_x.diagonal())
    assert (of_x.argmax(1) == torch.arange(4)).all() and of_x.max() <= 1 + 1e-9
    sharp = local.transport(x, x.flip(1), full, full, epsilon=0.02, iterations=200)
    assert sharp.diagonal().min() > 0.99 and (sharp - torch.eye(4) * 9).max() < 0.9


def test_filip_turned_round_is_its_other_direction():
    x, y, x_mask, y_mask = drawn(seed=10)
    of_x, of_y = local.filip(x, y, x_mask, y_mask)
    turned = local.filip(y, x, y_mask, x_mask)
    assert torch.allclose(turned[0].T, of_y) and torch.allclose(turned[1].T, of_x)


def test_attention_shares_one_among_the_real_patches():
    x, y, _, y_mask = drawn(n=5, seed=11)
    weights = local.attention(x, y, y_mask, scale=3.0)
    assert torch.allclose(weights.sum(2), torch.ones(5, 4, dtype=x.dtype))
    assert not weights.masked_select(~y_mask[:, None]).any()
    real = y[0][y_mask[0]]
    assert torch.allclose(weights[0, 0][y_mask[0]], (3 * x[0, 0] @ real.T).softmax(0))


def covered(box, grid, fine=40):
    """The share of each patch in the box, by counting points: the corners of boxes and patches lie between them."""
    rows, columns = grid
    y, x = (np.arange(fine * parts) + 0.5 for parts in grid)
    y, x = y[:, None] / (fine * rows), x[None] / (fine * columns)
    dots = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
    return dots.reshape(rows, fine, columns, fine).mean((1, 3)).ravel()


@given(st.data(), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_patch_is_inside_with_half_of_it_and_every_box_has_one(data, rows, columns):
    x = sorted(data.draw(st.lists(st.integers(0, 10 * columns), min_size=2, max_size=2, unique=True)))
    y = sorted(data.draw(st.lists(st.integers(0, 10 * rows), min_size=2, max_size=2, unique=True)))
    box = np.array([x[0] / (10 * columns), y[0] / (10 * rows), x[1] / (10 * columns), y[1] / (10 * rows)])
    found, share = inside(box[None], (rows, columns))[0], covered(box, (rows, columns))
    assert found.any() and found.shape == (rows * columns,)
    wanted = share > 0.5 - 1e-9 if (share > 0.5 - 1e-9).any() else share > share.max() - 1e-9
    assert (found == wanted).all()


def test_pointing_by_hand():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 1], [0, 0.5, 1, 1], [0.3, 0.3, 0.4, 0.4]])
    grid = (2, 2)  # reading order: top left, top right, bottom left, bottom right
    assert inside(boxes, grid).tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]]
    weights = np.array([[0.4, 0.3, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1], [0.0, 0.4, 0.4, 0.2], [-1.0, -2.0, -3.0, -4.0]])
    assert pointing(weights, boxes, grid).tolist() == [1, 0, 0.5, 1]
    wide = inside(np.array([[0.5, 0, 1, 1]]), (1, 4))  # one row of four: the right half of the picture
    assert wide.tolist() == [[0, 0, 1, 1]]


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_what_points_nowhere_has_the_chance_level(seed, rows, columns):
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((6, 2, 2)), axis=1)
    boxes = corners.reshape(6, 4)
    chance = inside(boxes, (rows, columns)).mean(1)
    even = np.full((6, rows * columns), 0.2)
    assert pointing(even, boxes, (rows, columns)) == pytest.approx(chance)
    each = [pointing(np.eye(rows * columns)[[patch] * 6], boxes, (rows, columns)) for patch in range(rows * columns)]
    assert np.mean(each, axis=0) == pytest.approx(chance)  # a guess at random, too


@pytest.mark.parametrize(
    "weights, box, message",
    [
        ([0.5, 0.5, 0, 0], [0.2, 0.2, 0.2, 0.4], "box 0 is .*left < right"),
        ([0.5, 0.5, 0, 0], [0.2, 0.2, 0.4, 1.4], "box 0"),
        ([0.5, 0.5, 0, 0], [float("nan"), 0.2, 0.4, 0.4], "box 0"),
        ([0.5, 0.5, 0], [0, 0, 1, 1], "2 × 2 patches"),
        ([0.5, float("nan"), 0, 0], [0, 0, 1, 1], "row 0: not a finite number"),
    ],
)
def test_weights_and_boxes_that_mean_nothing_are_refused(weights, box, message):
    with pytest.raises(ValueError, match=message):
        pointing(np.array([weights]), np.array([box]), (2, 2))
