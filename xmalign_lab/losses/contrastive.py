"""Objectives over a block of similarities: contrastive ones, one that bears wrong pairs, and the distance to a teacher.

A loss is a function. `sim` is (n, m), `positives` a boolean mask (n, m) in which several per row are normal, `tau`
anything that broadcasts against `sim`, `weight` the belief in each pair, broadcast likewise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Scalar = Float[Tensor, ""]
Sims = Float[Tensor, "n m"]
Mask = Bool[Tensor, "n m"]
Belief = Tensor | float
Tau = Tensor | float | tuple[Tensor, Tensor]


def info_nce(
    sim: Sims, positives: Mask, tau: Tau, weight: Belief = 1.0, attraction=1, repulsion=1, hardness=0, ambiguity=0, dims=(1,)
) -> Scalar:
    """Multi-positive InfoNCE over the rows of `sim`: a scalar. α is `attraction`, β `repulsion`.

    Each positive j of row i competes with the row's negatives only, never with the other positives:

        l_ij = α · (-s_ij/τ) + β · log( exp(s_ij/τ) + Σ_{k not positive of i} h_ik exp(s_ik/τ) )
        L = Σ w_ij V_ij l_ij / Σ w_ij V_ij

    With one positive a row and the defaults, h = V = 1, it is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), one
    direction of CLIP's loss. The sum outside the logarithm follows Khosla et al. 2020 (arXiv 2004.11362), whose
    denominator keeps the other positives; leaving them out stops two true captions from pushing each other away.
    Hard negatives: h_ik ∝ exp(`hardness` · s_ik), of mean 1 over the row's negatives (Robinson et al. 2021, arXiv
    2010.04592; their code's β is `hardness` · τ). Ambiguous positives: V_ij = (1 - P_ij)^(-`ambiguity`), P_ij the pair's
    share of its softmax; 1 is MACL's emphasis up to its mean (Huang et al. 2023, arXiv 2207.07874), negative values turn
    to the pairs not yet told apart. h and V carry no gradient.
    Computed in float32. No pair with weight gives zero with a gradient. `tau` may also be a pair, the temperatures of
    the rows (n, 1) and of the columns (m, 1) or (1, m); `dims` are the directions, 1 for rows and 0 for columns.
    """

    def term(own: Tensor, rivals: Tensor, belief: Tensor) -> Tensor:
        value = repulsion * torch.nn.functional.softplus(rivals - own) + (repulsion - attraction) * own
        return value * _emphasis(own - rivals, belief, ambiguity) if ambiguity else value

    return mean_over_pairs(term, sim, positives, tau, weight, dims, hardness)


def symmetric_info_nce(sim: Sims, positives: Mask, tau: Tau, weight: Belief = 1.0, **options) -> Scalar:
    """Mean of `info_nce`, with its options, over rows and over columns (Radford et al. 2021, arXiv 2103.00020)."""
    return info_nce(sim, positives, tau, weight, dims=(1, 0), **options)


def mean_over_pairs(
    term: Callable, sim: Sims, positives: Mask, tau: Tau, weight: Belief, dims: tuple[int, ...] = (1, 0), hardness: float = 0
) -> Scalar:
    """The weighted mean of term(own, rivals, belief) over the positives and over `dims`: 1, rivals share the row; 0, the column.

    Of each positive, `own` is its logit s_ij/τ, `rivals` the log Σ h exp(s/τ) of its negatives (`info_nce`), `belief` w_ij.
    """
    place = positives.nonzero(as_tuple=True)
    flat = place[0] * positives.shape[1] + place[1]  # gather, because the gradient of indexing by two lists has to sort them
    taus = (tau[0].reshape(-1, 1), tau[1].reshape(1, -1)) if isinstance(tau, tuple) else (tau,)
    scaled = (sim.float() / each for each in taus)
    parts = [(logits.reshape(-1).gather(0, flat), logits.masked_fill(positives, -torch.inf)) for logits in scaled]
    weight = torch.as_tensor(weight, dtype=torch.float32, device=sim.device).broadcast_to(sim.shape)
    weight = weight.reshape(-1).gather(0, flat)
    terms = []
    for dim in dims:
        own, without = parts[0 if dim else -1]
        without = without + _hard(sim, positives, hardness, dim) if hardness else without
        # A row whose every column is positive has no rival: softplus(-inf) makes its repulsion exactly zero.
        terms.append(term(own, without.logsumexp(dim).gather(0, place[1 - dim]), weight))
    total = weight.sum()
    return (sum(terms) * weight).sum() / len(dims) / torch.where(total > 0, total, torch.ones_like(total))


def _hard(sim: Sims, positives: Mask, hardness: float, dim: int) -> Sims:
    """log h_ik = hardness · s_ik less the log of its mean over the negatives along `dim`."""
    lift = hardness * sim.detach().float()
    mean = lift.masked_fill(positives, -torch.inf).logsumexp(dim, keepdim=True) - (~positives).sum(dim, keepdim=True).log()
    return lift - mean.nan_to_num(0.0)  # no negative at all: nothing to weigh


def _emphasis(margin: Tensor, weight: Tensor, ambiguity: float) -> Tensor:
    """V = (1 - P)^(-ambiguity) of pairs whose own logit is `margin` above the rivals', divided by its weighted mean.

    1 / (1 - P) = 1 + exp(margin). A pair without rivals, which has no P, counts as V = 1. Exponents stop at 60, before
    float32 does.
    """
    log_v = ambiguity * torch.nn.functional.softplus(margin.detach()).nan_to_num(posinf=0.0)
    v = log_v.clamp(max=60).exp()
    return v * weight.sum() / (v * weight).sum().clamp(min=1e-30)


def smoothed_softmax(
    sim: Sims, positives: Mask, tau: Tensor | float, weight: Tensor | float = 1.0, smoothing: float = 0.1
) -> Scalar:
    """Cross entropy over rows and over columns against smoothed targets, the mean of both: ALIGN's loss.

    Row i's target is (1 - ε) spread evenly over its positives plus ε/m on every column; a row counts with the mean weight
    of its positives. The normalised softmax with a learned temperature is Jia et al. 2021's (arXiv 2102.05918); unlike
    `info_nce` the other positives stay in the denominator.
    """
    logits = sim.float() / tau
    weight = torch.as_tensor(weight, dtype=logits.dtype, device=logits.device).broadcast_to(logits.shape) * positives
    total = torch.zeros((), device=logits.device)
    for rows, mask, belief in ((logits, positives, weight), (logits.T, positives.T, weight.T)):
        count = mask.sum(1)
        target = mask / count.clamp(min=1)[:, None] * (1 - smoothing) + smoothing / rows.shape[1]
        terms = -(target * torch.log_softmax(rows, 1)).sum(1)
        of_row = belief.sum(1) / count.clamp(min=1)
        total = total + (terms * of_row).sum() / of_row.sum().clamp(min=1e-12)
    return total / 2


def sigmoid_pairs(
    sim: Sims, positives: Mask, tau: Tensor | float, weight: Tensor | float = 1.0, bias: Tensor | float = 0.0
) -> Scalar:
    """SigLIP: every pair on its own is true or false, -Σ w_ij log σ(z_ij (s_ij/τ + b)) / Σ w_ij over positives, z = ±1.

    Positives carry their weight, all others weight 1. Zhai et al. 2023 (arXiv 2303.15343) divide by the number of rows,
    which is the number of positives there.
    """
    logits = sim.float() / tau + bias
    weight = torch.as_tensor(weight, dtype=logits.dtype, device=logits.device).broadcast_to(logits.shape)
    weight = torch.where(positives, weight, torch.ones_like(weight))
    sign = torch.where(positives, 1.0, -1.0)
    believed = (weight * positives).sum()
    total = -(weight * torch.nn.functional.logsigmoid(sign * logits)).sum()
    return torch.where(believed > 0, total / believed.clamp(min=1e-12), total * 0)


def rince(sim: Sims, positives: Mask, tau: Tau, weight: Belief = 1.0, q: float = 0.5, lam: float = 0.01) -> Scalar:
    """Robust InfoNCE, the mean over rows and columns of

        l_ij = -exp(q s_ij/τ)/q + (λ (exp(s_ij/τ) + Σ_{k negative} exp(s_ik/τ)))^q / q,   L = Σ w_ij l_ij / Σ w_ij

    Chuang et al. 2022 (arXiv 2201.04309); they try q in [.1, .6] with λ = .01. q → 0 tends to InfoNCE + log λ; at q = 1
    the loss is linear in the exponentials and symmetric in the sense of robust classification. As there, a positive
    competes with the negatives only. No pair with weight gives zero with a gradient. Raises `ValueError` for q outside
    (0, 1], λ ≤ 0, or q/τ above 80, where exp(q s/τ) would leave float32.
    """
    least = min(float(torch.as_tensor(each).detach().min()) for each in (tau if isinstance(tau, tuple) else (tau,)))
    if not (0 < q <= 1 and lam > 0 and 0 < q <= 80 * least):
        raise ValueError(f"RINCE needs q in (0, 1], lam > 0 and q/τ of at most 80, not q={q}, lam={lam}, τ={least:g}")

    def term(own: Tensor, rivals: Tensor, belief: Tensor) -> Tensor:
        # expm1, not exp: the two ones cancel, and what is left stays exact as q goes to 0.
        return (torch.expm1(q * (torch.logaddexp(own, rivals) + math.log(lam))) - torch.expm1(q * own)) / q

    return mean_over_pairs(term, sim, positives, tau, weight)


def squared_distance(sim: Sims, positives: Mask, weight: Tensor | float = 1.0) -> Scalar:
    """Mean of ‖x_i - y_j‖² = 2 - 2 s_ij over the positives, weighted: the M-CLIP and Reimers–Gurevych loss on unit vectors.

    The sum over the vector's entries, where a mean squared error takes their mean: a factor of the width. Reimers &
    Gurevych 2020 (arXiv 2004.09813). No pair with weight gives zero with a gradient.
    """
    weight = torch.as_tensor(weight, dtype=torch.float32, device=sim.device).broadcast_to(sim.shape) * positives
    return (weight * (2 - 2 * sim.float())).sum() / weight.sum().clamp(min=1e-12)
