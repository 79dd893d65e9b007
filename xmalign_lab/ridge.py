"""Kernel ridge regression from texts into a given space: closed form, and what it says of a family that it was not shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Shaped
from sklearn.preprocessing import normalize

PENALTIES = (0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Ridge:
    """A map of sparse rows (m, width) to unit vectors (m, d): rows · rows_trainedᵀ · `dual`, rows at unit length.

    A row that shares no column with the training rows gets `middle`, the targets' mean, which says nothing.
    """

    rows: sp.csr_matrix
    dual: Float[np.ndarray, "n d"]
    middle: Float[np.ndarray, " d"]
    penalty: float

    def __call__(self, rows: sp.csr_matrix) -> Float[np.ndarray, "m d"]:
        return _unit(normalize(rows) @ self.rows.T @ self.dual, self.middle)


def fit(
    rows: sp.csr_matrix,
    targets: Float[np.ndarray, "n d"],
    groups: Shaped[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"] | None = None,
    penalties=PENALTIES,
) -> tuple[Ridge, Float[np.ndarray, "n d"]]:
    """The ridge of rows (n, width) onto targets (n, d), and its unit prediction (n, d) of each row *without the row's group*.

    dual = (K + λ W⁻¹)⁻¹ Y with K the cosines of the rows, W the belief in each pair (`weight`, in [0, 1]): a pair of belief 0
    teaches nothing. Without its group i a row is predicted by y_i − (A_ii)⁻¹ (A Y)_i, A = (K + λ W⁻¹)⁻¹: leaving out costs no
    second fit (Stone 1974; block form in Cook & Weisberg 1982). λ is the one of `penalties` whose predictions so made lie
    nearest to the targets, weighted. Needs n² memory: for up to some 20,000 pairs.
    """
    import torch

    rows, weight = normalize(rows), np.ones(rows.shape[0]) if weight is None else np.maximum(weight, 1e-4)
    kernel = torch.from_numpy((rows @ rows.T).toarray()).double()
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    middle, found = weight @ targets, []
    for penalty in penalties:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel + torch.diag(torch.from_numpy(penalty / weight)))).numpy()
        dual = inverse @ targets
        left_out = np.empty_like(dual)
        for i in members:
            left_out[i] = targets[i] - np.linalg.solve(inverse[np.ix_(i, i)], dual[i])
        left_out = _unit(left_out, middle)
        nearness = ((left_out * targets).sum(1) * weight).sum()
        found.append((nearness, Ridge(rows, dual.astype(np.float32), middle, penalty), left_out))
    return max(found, key=lambda item: item[0])[1:]


def _unit(vectors: np.ndarray, middle: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.where(lengths > 1e-6, vectors / np.maximum(lengths, 1e-6), middle / np.linalg.norm(middle))
    return vectors.astype(np.float32)
