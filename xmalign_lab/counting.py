"""Kernels that read a tile of scores once, while it is still in the cache. Compiled at first use: import where used."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True)
def count_better(tile, row_code, row_best, row_count, code, best, count, tie):
    """Add to `row_count` (b,) and `count` (c,) what stands before each row's and column's best correct score in `tile` (b, c).

    A score better by more than `tie` adds 2, one within `tie` adds 1; where row and column have the same code, none does.
    """
    low, high = best - tie, best + tie
    for i in range(tile.shape[0]):
        scores, mine, row_low, row_high, total = tile[i], row_code[i], row_best[i] - tie, row_best[i] + tie, np.int32(0)
        for j in range(scores.shape[0]):
            score, rival = scores[j], np.int32(code[j] != mine)
            total += rival * (np.int32(score > row_high) + np.int32(score >= row_low))
            count[j] += rival * (np.int32(score > high[j]) + np.int32(score >= low[j]))
        row_count[i] += total


@njit(nogil=True)
def keep_best(tile, first, scores, indices):
    """Merge `tile` (b, c), whose columns are numbered from `first`, into the best `scores` and `indices` (b, k), best first.

    Tiles must come in the order of their columns: an equal score stays behind the one that came earlier.
    """
    last = scores.shape[1] - 1
    for i in range(tile.shape[0]):
        row, best, index, worst = tile[i], scores[i], indices[i], scores[i, last]
        for j in range(row.shape[0]):
            if row[j] > worst:
                place = last
                while place > 0 and best[place - 1] < row[j]:
                    best[place], index[place] = best[place - 1], index[place - 1]
                    place -= 1
                best[place], index[place] = row[j], first + j
                worst = best[last]
