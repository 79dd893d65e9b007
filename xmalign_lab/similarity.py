"""Nearest neighbours and ranks, exact and blocked: the only home of both.

Nothing here ever holds the full similarity matrix. Each thread multiplies tiles that fit its cache and reads them there, from
`SMALL` similarities on with a compiled kernel (`counting`), below that with NumPy by the same rules. Vectors are float32 with
rows of unit length, so that a product is a cosine; a `penalty` (m,) is subtracted from every score of its gallery item.
A number that is not finite raises `ValueError`: it would win or lose every comparison in silence.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float, Int, Shaped

TIE = 1e-6  # scores this close are equal: float32 products of one vector differ so much between a block's columns
SMALL = 2**22  # fewer similarities than this are not worth a second of compilation
TILE = 768  # rows and columns of a tile: 2.3 MB of scores, so it stays in a core's second-level cache or close to it
BAND = 128  # rows whose correct items are scored together, once both sides are sorted by group
LONGEST = 256  # a longer list of neighbours is sorted, not kept by insertion

Queries, Gallery = Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]
OfQueries, OfGallery = Shaped[np.ndarray, " n"], Shaped[np.ndarray, " m"]  # groups: the same group is a correct answer
Penalty = Float[np.ndarray, " m"] | None


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows scaled to length one, (n, d) float32. A zero row raises `ValueError` with its number."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (norms == 0).any():
        raise ValueError(f"row {int(np.flatnonzero(norms == 0)[0])} has length zero and so no direction")
    return vectors / norms


def blocks(queries: np.ndarray, gallery: np.ndarray, penalty: np.ndarray | float = 0) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield `(rows, scores (b, n_gallery))` for consecutive blocks of queries, at most `SMALL` scores or one row at a time."""
    size = max(1, SMALL // max(1, len(gallery)))
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        yield rows, queries[rows] @ gallery.T - penalty


def top_k(
    queries: Queries, gallery: Gallery, k: int, penalty: Penalty = None
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Exact `(scores (n, k), indices (n, k))`, best first; ties go to the smaller index."""
    queries, gallery, penalty = _checked(queries, gallery, penalty)
    k = min(k, len(gallery))
    scores, indices = np.full((len(queries), k), -np.inf, np.float32), np.zeros((len(queries), k), np.int64)
    if len(queries) * len(gallery) >= SMALL and 0 < k <= LONGEST:
        from xmalign_lab.counting import keep_best

        def visit(_: int, rows: slice, columns: slice, tile: np.ndarray) -> None:
            keep_best(tile, columns.start, scores[rows], indices[rows])

        _tiles(queries, gallery, penalty, visit)
        return scores, indices
    for rows, block in blocks(queries, gallery, penalty):
        for row, of in enumerate(block, rows.start):
            near = np.flatnonzero(of >= np.partition(of, -k)[-k]) if 0 < k < len(of) else np.arange(len(of))
            indices[row] = near[np.argsort(-of[near], kind="stable")[:k]]
            scores[row] = of[indices[row]]
    return scores, indices


def ranks(
    queries: Queries, gallery: Gallery, query_groups: OfQueries, gallery_groups: OfGallery, penalty: Penalty = None
) -> Float[np.ndarray, " n"]:
    """Rank of each query's best correct gallery item, (n,) float; 1 is first.

    Correct is every item of the query's group; further correct items are left out of the count. Ties count as
    the mean rank: rank = 1 + better + equal/2, and scores within `TIE` are equal. A query without a correct item raises
    `ValueError`.
    """
    _codes(queries, gallery, query_groups, gallery_groups, every=True)
    return both_ranks(queries, gallery, query_groups, gallery_groups, penalty)[0]


def both_ranks(
    left: Queries, right: Gallery, left_groups: OfQueries, right_groups: OfGallery, penalty: Penalty = None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """`ranks` of left among right (n,) and of right among left (m,), from one product.

    A row whose group the other side lacks is no query, though it stays in its side's gallery: its rank is NaN. A `penalty`
    of the right items moves the left rows' ranks only.
    """
    import torch

    left, right, penalty = _checked(left, right, penalty)
    of_left, of_right = _codes(left, right, left_groups, right_groups)
    best = _best(left, right, of_left, of_right, penalty)
    right_best = _best(right, left, of_right, of_left, np.zeros(len(left), np.float32)) - penalty
    count, right_count = np.zeros(len(left), np.int32), np.zeros((torch.get_num_threads(), len(right)), np.int32)
    kernel = _count_better
    if len(left) * len(right) >= SMALL:
        from xmalign_lab.counting import count_better as kernel

    def visit(thread: int, rows: slice, columns: slice, tile: np.ndarray) -> None:
        mine, theirs = (of_left[rows], best[rows], count[rows]), (of_right[columns], right_best[columns])
        kernel(tile, *mine, *theirs, right_count[thread, columns], np.float32(TIE))

    _tiles(left, right, penalty, visit)
    counts = (best, count), (right_best, right_count.sum(0))
    return tuple(np.where(np.isneginf(scores), np.nan, 1 + twice / 2) for scores, twice in counts)


def positive_ranks(
    queries: Queries, gallery: Gallery, query_groups: OfQueries, gallery_groups: OfGallery, penalty: Penalty = None
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Rank of every correct item in the whole list: `(query (p,), gallery item (p,), rank (p,))`, by query, then by item.

    Other correct items count; ties within `TIE` are the mean rank, 1 + better + equal others/2: what mAP and nDCG need.
    A query without a correct item raises `ValueError`.
    """
    queries, gallery, penalty = _checked(queries, gallery, penalty)
    of_query, of_gallery = _codes(queries, gallery, query_groups, gallery_groups, every=True)
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for rows, scores in blocks(queries, gallery, penalty):
        query, item = np.nonzero(of_query[rows, None] == of_gallery[None])
        value, rank = scores[query, item], np.empty(len(query))
        scores.sort(axis=1)
        starts = np.searchsorted(query, np.arange(len(scores) + 1))
        for row, part in zip(scores, map(slice, starts, starts[1:]), strict=False):
            above = len(row) - np.searchsorted(row, value[part] + np.float32(TIE), "right")
            level = len(row) - np.searchsorted(row, value[part] - np.float32(TIE), "left")
            rank[part] = 1 + (above + level - 1) / 2
        found.append((query + rows.start, item, rank))
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def ratio_margin(left: Queries, right: Queries, k: int = 4) -> Float[np.ndarray, " n"]:
    """Ratio margin of aligned rows `left[i]`, `right[i]`, (n,): cosine over the mean of both neighbourhoods' cosines.

    cos(x, y) / (Σ_{z ∈ NN_k(x)} cos(x, z) / 2k + Σ_{z ∈ NN_k(y)} cos(y, z) / 2k). Artetxe & Schwenk 2019
    (arXiv 1811.01136). Above 1 a pair stands out from its neighbours; a hub does not.
    """
    forward, backward = top_k(left, right, k)[0].mean(1), top_k(right, left, k)[0].mean(1)
    return (left * right).sum(1) / ((forward + backward) / 2)


def best_by_margin(left: Queries, right: Gallery, k: int = 4) -> Int[np.ndarray, " n"]:
    """Index (n,) of the right row with the largest ratio margin among each left row's k nearest; ties to the nearer one.

    The decision of xSIM (LASER's `xsim.py`) under the margin of `ratio_margin`. Artetxe & Schwenk 2019 (arXiv 1811.01136).
    """
    scores, candidates = top_k(left, right, k)
    backward = top_k(right, left, k)[0].mean(1)
    margin = scores / ((scores.mean(1, keepdims=True) + backward[candidates]) / 2)
    return candidates[np.arange(len(left)), margin.argmax(1)]


def csls_penalty(queries: Queries, gallery: Gallery, k: int = 10) -> Float[np.ndarray, " m"]:
    """Half the mean cosine of each gallery item to its k nearest queries, (m,): with it as `penalty`, scores order as by CSLS.

    CSLS(x, y) = 2 cos(x, y) - r(x) - r(y); within one query r(x) is constant, and halving leaves cos(x, y) - r(y)/2.
    Conneau et al. 2018 (arXiv 1710.04087) take k = 10.
    """
    return top_k(gallery, queries, k)[0].mean(1) / 2


def mutual_neighbours(left: Queries, right: Gallery, csls: int = 0) -> Int[np.ndarray, "p 2"]:
    """Pairs (i, j), (p, 2), in which `right[j]` is nearest to `left[i]` and `left[i]` nearest to `right[j]`.

    By cosine, or under CSLS with `csls` neighbours (`csls_penalty`), where a hub is nobody's neighbour so easily.
    """
    penalties = (csls_penalty(left, right, csls), csls_penalty(right, left, csls)) if csls else (None, None)
    forward, backward = top_k(left, right, 1, penalties[0])[1][:, 0], top_k(right, left, 1, penalties[1])[1][:, 0]
    mutual = np.flatnonzero(backward[forward] == np.arange(len(left)))
    return np.stack([mutual, forward[mutual]], axis=1)


def k_occurrence(queries: Queries, gallery: Gallery, k: int = 10) -> Int[np.ndarray, " m"]:
    """How many queries have each gallery item among their k nearest, (m,); the mean is kn/m, and hubs stand far above it.

    Radovanović, Nanopoulos & Ivanović 2010 (JMLR 11) measure hubness by the skewness of these counts.
    """
    return np.bincount(top_k(queries, gallery, k)[1].ravel(), minlength=len(gallery))


def _checked(queries, gallery, penalty=None):
    """All three as float32 in C order; `ValueError` for a shape that does not fit or a number that is not finite."""
    # Writeable, because torch warns of arrays that are not.
    queries, gallery = np.require(queries, np.float32, "CW"), np.require(gallery, np.float32, "CW")
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1] or not len(gallery):
        raise ValueError(f"queries {queries.shape} and gallery {gallery.shape} must be (n, d) and (m, d) with m ≥ 1")
    penalty = np.zeros(len(gallery), np.float32) if penalty is None else np.require(penalty, np.float32, "CW")
    if penalty.shape != (len(gallery),):
        raise ValueError(f"penalty {penalty.shape} must be ({len(gallery)},), a number for each gallery item")
    for name, values in (("queries", queries), ("gallery", gallery), ("penalty", penalty)):
        with np.errstate(all="ignore"):
            if np.isfinite(values.sum()):  # which needs no second table, unlike the look for the row
                continue
        if not (finite := np.isfinite(values)).all():
            raise ValueError(f"{name}, row {np.argwhere(~finite)[0][0]}: not a finite number")
    return queries, gallery, penalty


def _codes(left, right, left_groups, right_groups, every: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Both sides' groups as int32 codes; `ValueError` for a wrong length and, if `every`, a left row without a match."""
    if (len(left), len(right)) != (len(left_groups), len(right_groups)):
        raise ValueError(f"{len(left_groups)} and {len(right_groups)} groups for {len(left)} and {len(right)} vectors")
    groups = np.concatenate([left_groups, right_groups])
    codes = np.unique(groups.astype(str) if groups.dtype == object else groups, return_inverse=True)[1].astype(np.int32)
    of_left, of_right = np.split(codes, [len(left_groups)])
    if every and len(lost := np.flatnonzero(~np.isin(of_left, of_right))):
        raise ValueError(f"query of group {str(groups[lost[0]])!r} has no correct item in the gallery")
    return of_left, of_right


def _count_better(tile, row_code, row_best, row_count, code, best, count, tie) -> None:
    """What `counting.count_better` does, uncompiled: many passes instead of one."""
    rivals, row_best = np.where(row_code[:, None] == code, np.nan, tile), row_best[:, None]
    row_count += (rivals > row_best + tie).sum(1) + (rivals >= row_best - tie).sum(1)
    count += (rivals > best + tie).sum(0) + (rivals >= best - tie).sum(0)


def _best(queries, gallery, of_query, of_gallery, penalty) -> np.ndarray:
    """Score (n,) of each query's best correct item, -inf without one, from products of rows sorted by group.

    By the same routine as the tiles: a sum in another order differs in its last digits from rivals that are copies.
    """
    import torch

    best, order = np.full(len(queries), -np.inf, np.float32), np.argsort(of_query, kind="stable")
    candidates = np.flatnonzero(np.isin(of_gallery, of_query))
    candidates = candidates[np.argsort(of_gallery[candidates], kind="stable")]
    codes = of_gallery[candidates]

    def band(_: int, start: int) -> None:
        rows = order[start : start + BAND]
        first, last = np.searchsorted(codes, of_query[rows[0]]), np.searchsorted(codes, of_query[rows[-1]], "right")
        for left in range(first, last, TILE):
            columns = candidates[left : min(left + TILE, last)]
            scores = torch.mm(torch.from_numpy(queries[rows]), torch.from_numpy(gallery[columns]).T).numpy() - penalty[columns]
            scores[of_query[rows, None] != of_gallery[columns]] = -np.inf
            best[rows] = np.maximum(best[rows], scores.max(1))

    _in_threads(band, range(0, len(order), BAND))
    return best


def _tiles(left, right, penalty, visit: Callable[[int, slice, slice, np.ndarray], None]) -> None:
    """Call `visit(thread, rows, columns, scores)` on every tile; the columns of a block of rows come in order."""
    import torch

    (x, y, bias), shifted = map(torch.from_numpy, (left, right, penalty)), penalty.any()

    def block(thread: int, top: int) -> None:
        rows, buffer = slice(top, min(top + TILE, len(left))), torch.empty(TILE * TILE)
        for start in range(0, len(right), TILE):
            columns = slice(start, min(start + TILE, len(right)))
            shape = rows.stop - rows.start, columns.stop - columns.start
            scores = torch.mm(x[rows], y[columns].T, out=buffer[: shape[0] * shape[1]].view(shape))
            if shifted:
                scores -= bias[columns]
            visit(thread, rows, columns, scores.numpy())

    _in_threads(block, range(0, len(left), TILE))


def _in_threads(work: Callable[[int, int], None], starts: Iterable[int]) -> None:
    """Call `work(thread, start)` for every start, on as many threads as torch has; within each torch has one."""
    import torch

    threads, starts = torch.get_num_threads(), iter(starts)

    def share(thread: int) -> None:
        torch.set_num_threads(1)
        try:
            for start in starts:
                work(thread, start)
        finally:
            collections.deque(starts, maxlen=0)  # after an error in any thread no other begins anything more

    with ThreadPoolExecutor(threads) as pool:
        try:
            list(pool.map(share, range(threads)))
        finally:
            collections.deque(starts, maxlen=0)  # nor after an interrupt
            torch.set_num_threads(threads)  # or threads of the future would inherit the one
