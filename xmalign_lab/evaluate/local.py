"""Whether a word points at its thing, and retrieval whose best candidates are judged again by their parts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from xmalign_lab import similarity
from xmalign_lab.evaluate.retrieval import Side, precision_gain, rank_queries

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
    weights, hit = _checked(weights, boxes, grid)
    best = weights == weights.max(1, keepdims=True)
    return (best & hit).sum(1) / best.sum(1)


def mass_inside(weights: Weights, boxes: Boxes, grid: tuple[int, int]) -> Float[np.ndarray, " n"]:
    """The share of the weight, which is not negative, that lies in the box, (n,); even weights have the chance level.

    Raises `ValueError` as `pointing` does, and for a row with a negative weight or none above 0.
    """
    weights, hit = _checked(weights, boxes, grid)
    if len(bad := np.flatnonzero((weights < 0).any(1) | (weights.sum(1) <= 0))):
        raise ValueError(f"weights, row {bad[0]}: a share needs weights of at least 0, and one above")
    return (weights * hit).sum(1) / weights.sum(1)


def _checked(weights: Weights, boxes: Boxes, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    weights = np.asarray(weights, float)
    if weights.shape != (len(boxes), grid[0] * grid[1]):
        raise ValueError(f"weights {weights.shape} for {len(boxes)} boxes on {grid[0]} × {grid[1]} patches")
    if len(bad := np.flatnonzero(~np.isfinite(weights).all(1))):
        raise ValueError(f"weights, row {bad[0]}: not a finite number")
    return weights, inside(boxes, grid)


def rank_by_parts(
    queries: Side, gallery: Side, local: Float[np.ndarray, "n m"], k: int = 50, share: float = 0.5, **named: str
) -> pd.DataFrame:
    """`rank_queries` whose k best items by cosine are put in order again by (1 - share) · cosine + share · local similarity.

    `local` has a row per query and a column per item of the gallery, on a scale like the cosine's; `named` are the lang,
    direction and name of `rank_queries`. The other items follow as they stood, so what the vectors miss stays missed; where
    a tie spans place k, the items of the smaller numbers are in. Columns and ties as in `rank_queries`; the protocol says
    what was done. Raises `ValueError` for a `local` that does not fit, a share outside [0, 1] or a k below 1, and as
    `rank_queries` does.
    """
    if np.shape(local) != (len(queries.ids), len(gallery.ids)) or not 0 <= share <= 1 or k < 1:
        sizes = f"{len(queries.ids)} queries and {len(gallery.ids)} items"
        raise ValueError(f"local {np.shape(local)} for {sizes}; share {share} must lie in [0, 1], and k {k} be 1 or more")
    table = rank_queries(queries, gallery, **named)
    asked = np.isin(queries.groups.astype(str), gallery.groups.astype(str))
    queries, local, k = queries.rows(asked), np.asarray(local)[asked], min(k, len(gallery.ids))
    query, item, rank = similarity.positive_ranks(queries.vectors, gallery.vectors, queries.groups, gallery.groups)
    cosine, best = similarity.top_k(queries.vectors, gallery.vectors, k)
    scores = ((1 - share) * cosine + share * np.take_along_axis(local, best, 1))[query]
    among = best[query] == item[:, None]
    lead = scores - np.where(among, scores, 0).sum(1, keepdims=True)
    above, level = (lead > similarity.TIE).sum(1), (np.abs(lead) <= similarity.TIE).sum(1)
    rank = np.where(among.any(1), above + (level + 1) / 2, np.maximum(rank, k + 1))
    protocol = table.protocol.str.replace("re-ranking: none", f"re-ranking: the best {k} by parts, share {share:g}")
    return table.assign(**precision_gain(query, rank), protocol=protocol)
