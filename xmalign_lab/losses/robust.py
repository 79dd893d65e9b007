"""Losses that bear wrong pairs. Label smoothing is `contrastive.smoothed_softmax`, belief in a pair every loss's `weight`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xmalign_lab.losses.contrastive import Belief, Mask, Scalar, Sims, Tau, mean_over_pairs


def rince(sim: Sims, positives: Mask, tau: Tau, weight: Belief = 1.0, q: float = 0.5, lam: float = 0.01) -> Scalar:
    """Robust InfoNCE, the mean over rows and columns of

        l_ij = -exp(q s_ij/τ)/q + (λ (exp(s_ij/τ) + Σ_{k negative} exp(s_ik/τ)))^q / q,   L = Σ w_ij l_ij / Σ w_ij

    Chuang et al. 2022 (arXiv 2201.04309); they try q in [.1, .6] with λ = .01. q → 0 tends to InfoNCE + log λ; at q = 1
    the loss is linear in the exponentials and symmetric in the sense of robust classification. As there, a positive
    competes with the negatives only. No pair with weight gives zero with a gradient. Raises `ValueError` for q outside
    (0, 1], λ ≤ 0, or q/τ above 80, where exp(q s/τ) would leave float32.
    """
    least = min(float(torch.as_tensor(each).min()) for each in (tau if isinstance(tau, tuple) else (tau,)))
    if not (0 < q <= 1 and lam > 0 and 0 < q <= 80 * least):
        raise ValueError(f"RINCE needs q in (0, 1], lam > 0 and q/τ of at most 80, not q={q}, lam={lam}, τ={least:g}")

    def term(own: Tensor, rivals: Tensor, belief: Tensor) -> Tensor:
        # expm1, not exp: the two ones cancel, and what is left stays exact as q goes to 0.
        return (torch.expm1(q * (torch.logaddexp(own, rivals) + math.log(lam))) - torch.expm1(q * own)) / q

    return mean_over_pairs(term, sim, positives, tau, weight)
