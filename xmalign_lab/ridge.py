"""Kernel ridge regression from texts into a given space: closed form, and what it says of a family that it was not shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int, Shaped
from sklearn.preprocessing import normalize

PENALTIES = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Ridge:
    """A map of sparse rows (m, width) to unit vectors (m, d): rows · rows_trainedᵀ · `dual`, rows at unit length.

    A row that shares no column with the training rows gets the targets' mean, which says nothing. `inverse` (n, n) is
    A = (K + λ W⁻¹)⁻¹, which knows the answers of every smaller fit.
    """

    rows: sp.csr_matrix
    targets: Float[np.ndarray, "n d"]
    inverse: Float[np.ndarray, "n n"]
    dual: Float[np.ndarray, "n d"]
    middle: Float[np.ndarray, " d"]
    penalty: float

    def __call__(self, rows: sp.csr_matrix) -> Float[np.ndarray, "m d"]:
        return self._unit(normalize(rows) @ self.rows.T @ self.dual)

    def without(self, rows: Iterable[Int[np.ndarray, " s"]]) -> list[Float[np.ndarray, "s d"]]:
        """For each set of training rows S the unit prediction (s, d) of a fit without them: y_S - (A_SS)⁻¹ (A Y)_S.

        Leaving out costs no second fit (Cook & Weisberg 1982, Residuals and Influence in Regression).
        """
        return [self._unit(self.targets[s] - np.linalg.solve(self.inverse[np.ix_(s, s)], self.dual[s])) for s in rows]

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), self.middle / np.linalg.norm(self.middle))
        return vectors.astype(np.float32)


def fit(
    rows: sp.csr_matrix,
    targets: Float[np.ndarray, "n d"],
    groups: Shaped[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
    penalties: Iterable[float] = PENALTIES,
) -> tuple[Ridge, Float[np.ndarray, "n d"]]:
    """The ridge of rows (n, width) onto targets (n, d), and its unit prediction (n, d) of each row *without the row's group*.

    dual = (K + λ W⁻¹)⁻¹ Y with K the cosines of the rows, W the belief in each pair (`weight`, in [0, 1]): a pair of belief 0
    teaches nothing. λ is the one of `penalties` whose predictions without the group lie nearest to the targets, weighted.
    Needs n² memory and n³ time: for up to some 20,000 pairs. In float32, as K + λ W⁻¹ is well conditioned.
    """
    import torch

    rows, weight = normalize(rows), np.ones(rows.shape[0]) if weight is None else np.maximum(weight, 1e-3)
    kernel, targets = torch.from_numpy((rows @ rows.T).toarray()).float(), np.asarray(targets, np.float32)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(np.unique(groups, return_inverse=True)[1][order])) + 1)
    best, most = None, -np.inf
    for penalty in penalties:
        shifted = kernel.clone()
        shifted.diagonal().add_(torch.from_numpy(penalty / weight).float())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(shifted)).numpy()
        found = Ridge(rows, targets, inverse, inverse @ targets, weight @ targets, penalty)
        left_out = np.empty_like(targets)
        left_out[order] = np.concatenate(found.without(members))
        nearness = ((left_out * targets).sum(1) * weight).sum()
        if nearness > most:
            best, most = (found, left_out), nearness
    return best
