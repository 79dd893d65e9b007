"""The triplet loss of image–text retrieval, over a block of similarities."""

from __future__ import annotations

import torch

from xmalign_lab.losses.contrastive import Belief, Mask, Scalar, Sims


def triplet(
    sim: Sims, positives: Mask, margin: float = 0.2, hardest: bool = True, reduction: str = "sum", weight: Belief = 1.0
) -> Scalar:
    """Σ over the positives (i, j) of w_ij ([m - s_ij + max_k s_ik]+ + [m - s_ij + max_k s_kj]+), k over negatives alone.

    VSE++ (Faghri et al. 2018, arXiv 1707.05612) where each row has one positive; of several, none is a negative of another.
    With `hardest` off the sum over all negatives of each hinge stands for that of the largest. `reduction` "sum" is the
    published form, in which the loss grows with the batch and so does its share beside terms that are means; "mean" divides
    by Σ w_ij. In float32. No negative or no positive with weight gives zero with a gradient. Raises `ValueError` for another
    reduction or a negative margin.
    """
    if reduction not in ("sum", "mean") or margin < 0:
        raise ValueError(f"triplet needs reduction 'sum' or 'mean' and margin ≥ 0, not {reduction!r} and {margin}")
    sim = sim.float()
    pairs = positives.nonzero(as_tuple=True)
    weight = torch.as_tensor(weight, dtype=torch.float32, device=sim.device).broadcast_to(sim.shape)[pairs]
    short, others = margin - sim[pairs], sim.masked_fill(positives, -torch.inf)
    total = torch.zeros((), device=sim.device)
    for dim in (0, 1):
        rivals = others.amax(1 - dim)[:, None] if hardest else others.movedim(dim, 0)
        total = total + (weight * (short[:, None] + rivals[pairs[dim]]).relu().sum(1)).sum()
    if reduction == "sum":
        return total
    return total / torch.where(weight.sum() > 0, weight.sum(), torch.ones_like(total))
