"""Contrastive objectives over a block of similarities.

A loss is a function. `sim` is (n, m), `positives` a boolean mask (n, m) in which several per row are normal, `tau`
anything that broadcasts against `sim`, `weight` the belief in each pair, broadcast likewise.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Scalar = Float[Tensor, ""]
Sims = Float[Tensor, "n m"]
Mask = Bool[Tensor, "n m"]


def info_nce(sim: Sims, positives: Mask, tau: Tensor | float, weight: Tensor | float = 1.0) -> Scalar:
    """Multi-positive InfoNCE over the rows of `sim`: a scalar.

    Each positive j of row i competes with the row's negatives only, never with the other positives:

        l_ij = -s_ij/τ + log( exp(s_ij/τ) + Σ_{k not positive of i} exp(s_ik/τ) ),   L = Σ w_ij l_ij / Σ w_ij

    With one positive a row and weight 1 it is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), one
    direction of CLIP's loss. The sum outside the logarithm follows Khosla et al. 2020 (arXiv 2004.11362), whose
    denominator keeps the other positives; leaving them out stops two true captions from pushing each other away.
    Computed in float32. No pair with weight gives zero with a gradient.
    """
    return _mean_term(sim, positives, tau, weight, dims=(1,))


def symmetric_info_nce(sim: Sims, positives: Mask, tau: Tensor | float, weight: Tensor | float = 1.0) -> Scalar:
    """Mean of `info_nce` over rows and over columns (Radford et al. 2021, arXiv 2103.00020)."""
    return _mean_term(sim, positives, tau, weight, dims=(1, 0))


def _mean_term(sim: Sims, positives: Mask, tau: Tensor | float, weight: Tensor | float, dims: tuple[int, ...]) -> Scalar:
    """The weighted mean of l_ij over the positives and over `dims`: 1, where the rivals share the row; 0, the column."""
    logits = sim.float() / tau
    place = positives.nonzero(as_tuple=True)
    flat = place[0] * logits.shape[1] + place[1]  # gather, because the gradient of indexing by two lists has to sort them
    own = logits.reshape(-1).gather(0, flat)
    without = logits.masked_fill(positives, -torch.inf)
    # A row whose every column is positive has no rival: softplus(-inf) makes its term exactly zero.
    terms = [torch.nn.functional.softplus(without.logsumexp(dim).gather(0, place[1 - dim]) - own) for dim in dims]
    weight = torch.as_tensor(weight, dtype=logits.dtype, device=logits.device).broadcast_to(logits.shape)
    weight = weight.reshape(-1).gather(0, flat)
    total = weight.sum()
    return (sum(terms) * weight).sum() / len(dims) / torch.where(total > 0, total, torch.ones_like(total))


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
