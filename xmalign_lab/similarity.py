"""Nearest neighbours and ranks, exact and blocked: the only home of both.

Nothing here ever holds the full similarity matrix: queries are taken in blocks against the whole gallery.
All vectors are float32 with rows of unit length, so that a product is a cosine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Shaped

TIE = 1e-6  # scores this close are equal: float32 products of one vector differ so much between a block's columns


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows scaled to length one, (n, d) float32. A zero row raises `ValueError` with its number."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms == 0).any():
        raise ValueError(f"row {int(np.flatnonzero(norms == 0)[0])} has length zero and so no direction")
    return vectors / norms


def blocks(queries: np.ndarray, gallery: np.ndarray, size: int = 1024) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield `(rows, similarities (b, n_gallery))` for consecutive blocks of queries."""
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        yield rows, queries[rows] @ gallery.T


def top_k(
    queries: Float[np.ndarray, "n d"], gallery: Float[np.ndarray, "m d"], k: int, size: int = 1024
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Exact `(scores (n, k), indices (n, k))`, best first; ties go to the smaller index."""
    k = min(k, len(gallery))
    scores, indices = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for rows, similarity in blocks(queries, gallery, size):
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        scores[rows], indices[rows] = np.take_along_axis(similarity, best, 1), best
    return scores, indices


def ranks(
    queries: Float[np.ndarray, "n d"],
    gallery: Float[np.ndarray, "m d"],
    query_groups: Shaped[np.ndarray, " n"],
    gallery_groups: Shaped[np.ndarray, " m"],
    size: int = 1024,
) -> Float[np.ndarray, " n"]:
    """Rank of each query's best correct gallery item, (n,) float; 1 is first.

    Correct is every item of the query's group; further correct items are left out of the count. Ties count as
    the mean rank: rank = 1 + better + equal/2, and scores within `TIE` are equal. The positive's score is taken from
    the same product as its rivals', because computed apart its rounding lets it lose against itself. A query
    without a correct item raises `ValueError`.
    """
    _, codes = np.unique(np.concatenate([query_groups, gallery_groups]).astype(str), return_inverse=True)
    of_query, of_gallery = codes[: len(query_groups)], codes[len(query_groups) :]
    result = np.empty(len(queries))
    for rows, similarity in blocks(queries, gallery, size):
        correct = of_query[rows, None] == of_gallery[None]
        if not correct.any(1).all():
            lost = query_groups[rows][~correct.any(1)][0]
            raise ValueError(f"query of group {str(lost)!r} has no correct item in the gallery")
        best = np.where(correct, similarity, -np.inf).max(1, keepdims=True)
        rivals = np.where(correct, -np.inf, similarity)
        result[rows] = 1 + (rivals > best + TIE).sum(1) + (np.abs(rivals - best) <= TIE).sum(1) / 2
    return result


def ratio_margin(left: Float[np.ndarray, "n d"], right: Float[np.ndarray, "n d"], k: int = 4) -> Float[np.ndarray, " n"]:
    """Ratio margin of aligned rows `left[i]`, `right[i]`, (n,): cosine over the mean of both neighbourhoods' cosines.

    cos(x, y) / (Σ_{z ∈ NN_k(x)} cos(x, z) / 2k + Σ_{z ∈ NN_k(y)} cos(y, z) / 2k). Artetxe & Schwenk 2019
    (arXiv 1811.01136). Above 1 a pair stands out from its neighbours; a hub does not.
    """
    forward, backward = top_k(left, right, k)[0].mean(1), top_k(right, left, k)[0].mean(1)
    return (left * right).sum(1) / ((forward + backward) / 2)
