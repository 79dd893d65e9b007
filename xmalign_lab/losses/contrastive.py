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
    logits = sim.float() / tau
    rivals = torch.logsumexp(logits.masked_fill(positives, -torch.inf), dim=1)
    row, column = positives.nonzero(as_tuple=True)
    # A row whose every column is positive has no rival: softplus(-inf) makes its term exactly zero.
    terms = torch.nn.functional.softplus(rivals[row] - logits[row, column])
    weight = torch.as_tensor(weight, dtype=logits.dtype, device=logits.device).broadcast_to(logits.shape)[row, column]
    total = weight.sum()
    return (terms * weight).sum() / torch.where(total > 0, total, torch.ones_like(total))


def symmetric_info_nce(sim: Sims, positives: Mask, tau: Tensor | float, weight: Tensor | float = 1.0) -> Scalar:
    """Mean of `info_nce` over rows and over columns (Radford et al. 2021, arXiv 2103.00020)."""
    tau, weight = (torch.as_tensor(x, device=sim.device).broadcast_to(sim.shape) for x in (tau, weight))
    return (info_nce(sim, positives, tau, weight) + info_nce(sim.T, positives.T, tau.T, weight.T)) / 2
