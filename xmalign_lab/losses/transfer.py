"""Losses that hand a teacher's space on: the teacher's vectors are given, the student moves."""

from __future__ import annotations

import torch
from torch import Tensor

from xmalign_lab.losses.contrastive import Mask, Scalar, Sims


def squared_distance(sim: Sims, positives: Mask, weight: Tensor | float = 1.0) -> Scalar:
    """Mean of ‖x_i - y_j‖² = 2 - 2 s_ij over the positives, weighted: the M-CLIP and Reimers–Gurevych loss on unit vectors.

    The sum over the vector's entries, where a mean squared error takes their mean: a factor of the width. Reimers &
    Gurevych 2020 (arXiv 2004.09813). No pair with weight gives zero with a gradient.
    """
    weight = torch.as_tensor(weight, dtype=torch.float32, device=sim.device).broadcast_to(sim.shape) * positives
    return (weight * (2 - 2 * sim.float())).sum() / weight.sum().clamp(min=1e-12)
