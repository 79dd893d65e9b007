"""Whether a word points at its thing in a picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

Weights, Boxes = Float[np.ndarray, "n patches"], Float[np.ndarray, "n 4"]


def inside(boxes: Boxes, grid: tuple[int, int]) -> Bool[np.ndarray, "n patches"]:
    """Which of the patches, `grid` = (rows, columns) in reading order, lie in each box.

    A box is (left, top, right, bottom) in the unit square, y down. A patch lies in it with half of its area or more; in a
    box that has no such patch, the ones with the largest share do, so that every box can be hit. The mean of a row is the
    chance level of `pointing`. Raises `ValueError` naming the first box that is empty or leaves the square.
    """
    boxes = np.asarray(boxes, float)
    low, high = boxes[:, :2], boxes[:, 2:]
    if len(bad := np.flatnonzero(~((low >= 0) & (low < high) & (high <= 1)).all(1))):
        raise ValueError(f"box {bad[0]} is {boxes[bad[0]].tolist()}; it must be left < right, top < bottom, in [0, 1]")
    shares = []
    for axis, parts in ((1, grid[0]), (0, grid[1])):
        edges = np.linspace(0, 1, parts + 1)
        overlap = np.minimum(high[:, axis, None], edges[1:]) - np.maximum(low[:, axis, None], edges[:-1])
        shares.append(overlap.clip(0) * parts)
    covered = (shares[0][:, :, None] * shares[1][:, None, :]).reshape(len(boxes), -1)
    return covered >= np.minimum(0.5, covered.max(1, keepdims=True)) - 1e-9


def pointing(weights: Weights, boxes: Boxes, grid: tuple[int, int]) -> Float[np.ndarray, " n"]:
    """The pointing game, (n,): 1 where the patch with the greatest weight lies in the box, 0 where not.

    Zhang et al. 2016 (arXiv 1608.00507). Of several greatest patches the share that lies in it, so that a word that points
    nowhere has the chance level, `inside(boxes, grid).mean(1)`. Raises `ValueError` for weights that do not fit the grid or
    are not finite, and as `inside` does.
    """
    weights = np.asarray(weights, float)
    if weights.shape != (len(boxes), grid[0] * grid[1]):
        raise ValueError(f"weights {weights.shape} for {len(boxes)} boxes on {grid[0]} × {grid[1]} patches")
    if len(bad := np.flatnonzero(~np.isfinite(weights).all(1))):
        raise ValueError(f"weights, row {bad[0]}: not a finite number")
    best = weights == weights.max(1, keepdims=True)
    return (best & inside(boxes, grid)).sum(1) / best.sum(1)
