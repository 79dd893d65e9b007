"""Regularisers: how far the two sides of the believed pairs are from having the same shape or the same distribution.

Each takes `left` (n, d), `right` (m, d) and the mask `positives` (n, m), and gives a scalar of at least 0 (`uniformity`
apart). Pair k = (i, j) of the k pairs has x_k = row i of `left` and y_k = row j of `right`; a row in several pairs counts
several times. Fewer than two pairs give zero with a gradient. They need not know which x belongs to which y, `structure`
and `cka` apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from xmalign_lab.losses.contrastive import Mask, Scalar

Left = Float[Tensor, "n d"]
Right = Float[Tensor, "m d"]
Rows = Float[Tensor, "k d"]


def _of_pairs(most: int | None = None) -> Callable[[Callable[..., Scalar]], Callable[..., Scalar]]:
    """Make measure(x, y, …) of believed pairs a function of (left, right, positives, …); of more than `most`, an even spread."""

    def decorate(measure: Callable[..., Scalar]) -> Callable[..., Scalar]:
        def regulariser(left: Left, right: Right, positives: Mask, **options) -> Scalar:
            pairs = positives.nonzero()
            if len(pairs) < 2:
                return 0 * (left.sum() + right.sum())
            if most is not None and len(pairs) > most:
                pairs = pairs[torch.arange(most, device=pairs.device) * len(pairs) // most]
            return measure(left.index_select(0, pairs[:, 0]), right.index_select(0, pairs[:, 1]), **options)

        regulariser.__name__, regulariser.__doc__ = measure.__name__, measure.__doc__
        return regulariser

    return decorate


def _squared_distances(x: Rows, y: Rows) -> Tensor:
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)


@_of_pairs()
def structure(x: Rows, y: Rows) -> Scalar:
    """Mean squared difference of the two sides' similarity matrices off the diagonal: mean of (x_k·x_l - y_k·y_l)² over k ≠ l.

    M2M's structure term (arXiv 2601.10096).
    """
    difference = (x @ x.T - y @ y.T).square()
    return (difference.sum() - difference.diagonal().sum()) / (len(x) * (len(x) - 1))


@_of_pairs()
def cka(x: Rows, y: Rows) -> Scalar:
    """1 - ‖Y'X‖²_F / (‖X'X‖_F ‖Y'Y‖_F), X and Y centred: one less linear CKA, in [0, 1].

    Blind to rotation and to scale. Kornblith et al. 2019 (arXiv 1905.00414). A side without spread gives 1.
    """
    x, y = x - x.mean(0), y - y.mean(0)
    norms = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    return 1 - (y.T @ x).square().sum() / norms.clamp(min=1e-12)


@_of_pairs(512)
def mmd(x: Rows, y: Rows) -> Scalar:
    """Squared maximum mean discrepancy, biased: mean k(x, x') + mean k(y, y') - 2 mean k(x, y).

    k(a, b) = exp(-‖a - b‖² / 2σ²), σ² the median of all squared distances within and between the sides, without a
    gradient. On at most 512 pairs, spread evenly. Gretton et al. 2012 (JMLR 13:723): the V-statistic, never negative.
    """
    z = torch.cat([x, y])
    distances = _squared_distances(z, z)
    kernel = torch.exp(-distances / (2 * distances.detach().median().clamp(min=1e-6)))
    sign = torch.cat([torch.ones(len(x)), -torch.ones(len(y))]).to(z) / len(x)
    return (sign @ kernel @ sign).clamp(min=0)


@_of_pairs()
def coral(x: Rows, y: Rows) -> Scalar:
    """‖C_x - C_y‖²_F / 4d², C the covariance of a side's rows. Sun & Saenko 2016 (arXiv 1607.01719)."""
    return (x.T.cov() - y.T.cov()).square().sum() / (4 * x.shape[1] ** 2)


@_of_pairs()
def wasserstein(x: Rows, y: Rows, directions: int = 128, seed: int = 0) -> Scalar:
    """Squared sliced 2-Wasserstein distance: the mean over random directions θ of (sort(xθ)_k - sort(yθ)_k)².

    The directions follow from `seed` alone. Bonneel et al. 2015 (J. Math. Imaging Vis. 51:22). Without the root that
    POT's takes, whose gradient is no number where the sides agree.
    """
    theta = torch.randn(x.shape[1], directions, generator=torch.Generator().manual_seed(seed)).to(x)
    theta = theta / theta.norm(dim=0)
    return ((x @ theta).sort(0).values - (y @ theta).sort(0).values).square().mean()


@_of_pairs(128)
def gromov_wasserstein(x: Rows, y: Rows, plan: Tensor | None = None, epsilon: float = 0.05) -> Scalar:
    """Σ (x_i·x_k - y_j·y_l)² P_ij P_kl under the plan P (k, k) that POT finds, itself without a gradient.

    P is the entropic plan between uniform margins (Peyré, Cuturi & Solomon 2016, ICML) at float64, the entropy weighed by
    `epsilon` times the value of the plan that knows nothing: a fixed weight would drown cosines in a narrow cone. On at
    most 128 pairs, spread evenly. A `plan` of the identity over k says that the pairs are known; then, on unit vectors, the
    value is `structure` · (k - 1) / k.
    """
    c, e = x @ x.T, y @ y.T
    if plan is None:
        import ot

        a, b = (side.detach().double().cpu().numpy() for side in (c, e))  # POT is several times faster on these
        blind = (a**2).mean() + (b**2).mean() - 2 * a.mean() * b.mean()
        settings = {"symmetric": True, "max_iter": 50, "tol": 1e-6, "numItermax": 20, "warn": False}
        plan = ot.gromov.entropic_gromov_wasserstein(a, b, epsilon=epsilon * blind + 1e-9, **settings)
    plan = torch.as_tensor(plan).to(c)
    p, q = plan.sum(1), plan.sum(0)
    return p @ c.square() @ p + q @ e.square() @ q - 2 * (plan * (c @ plan @ e)).sum()


def uniformity(left: Left, right: Right, positives: Mask) -> Scalar:
    """log E exp(-2 ‖a - a'‖²) over the distinct rows of a side that are in a pair, mean over the sides; at most 0.

    Wang & Isola 2020 (arXiv 2005.10242). A side with a single row counts 0.
    """
    total = 0 * (left.sum() + right.sum())
    for side, dim in ((left, 1), (right, 0)):
        rows = side.index_select(0, positives.any(dim).nonzero()[:, 0])
        if len(rows) > 1:
            itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
            spread = (-2 * _squared_distances(rows, rows)).masked_fill(itself, -torch.inf)
            total = total + spread.logsumexp((0, 1)) - math.log(len(rows) * (len(rows) - 1))
    return total / 2


def neighbourhood(after: Rows, before: Float[Tensor, "k k"], tau: float = 0.1) -> Scalar:
    """Neighbourhoods kept: mean over k rows of KL(p_i ‖ q_i), p_ij ∝ exp(before_ij/τ) and q_ij ∝ exp(a_i·a_j/τ) over j ≠ i.

    `before` holds the similarities that the rows `after` (k, d) had as features, and has no gradient. Our own reading of
    distributional semantics, under which a text means the texts it is near to: an alignment should move them without changing
    who is near whom. The divergence is that of stochastic neighbour embedding (Hinton & Roweis 2002, NeurIPS 15). Fewer than
    three rows have one neighbour at most and give zero with a gradient.
    """
    if len(after) < 3:
        return 0 * after.sum()
    itself = torch.eye(len(after), dtype=torch.bool, device=after.device)
    q, p = ((sims.float() / tau).masked_fill(itself, -torch.inf).log_softmax(1) for sims in (after @ after.T, before.detach()))
    return (p.exp() * (p - q).masked_fill(itself, 0.0)).sum(1).mean()
