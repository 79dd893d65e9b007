"""Losses that hand a teacher's space on: the teacher's vectors are given, the student moves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from xmalign_lab.losses.contrastive import Mask, Scalar, Sims


def squared_distance(sim: Sims, positives: Mask, weight: Tensor | float = 1.0) -> Scalar:
    """Mean of ‖x_i - y_j‖² = 2 - 2 s_ij over the positives, weighted: the M-CLIP and Reimers–Gurevych loss on unit vectors.

    The sum over the vector's entries, where a mean squared error takes their mean: a factor of the width. Reimers &
    Gurevych 2020 (arXiv 2004.09813). No pair with weight gives zero with a gradient.
    """
    weight = torch.as_tensor(weight, dtype=torch.float32, device=sim.device).broadcast_to(sim.shape) * positives
    return (weight * (2 - 2 * sim.float())).sum() / weight.sum().clamp(min=1e-12)


def structure(left: Float[Tensor, "n d"], right: Float[Tensor, "m d"], positives: Mask) -> Scalar:
    """Mean squared difference of the two sides' similarity matrices, upper triangle, over the believed pairs.

    Pair k = (i, j) takes row i of `left` and row j of `right`; two pairs k < l give (x_k·x_l - y_k·y_l)². Fewer than
    two pairs give zero with a gradient. M2M's structure term (arXiv 2601.10096).
    """
    row, column = positives.nonzero(as_tuple=True)
    x, y = left.index_select(0, row), right.index_select(0, column)
    k, n = torch.triu_indices(len(row), len(row), offset=1, device=left.device)
    difference = (x @ x.T - y @ y.T)[k, n]
    return (difference.square().sum() + 0 * left.sum()) / max(1, len(k))
