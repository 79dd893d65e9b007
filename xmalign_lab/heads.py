"""Heads over frozen features: an input layer that is fitted on the training rows, and a map into the common space, by kind."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from xmalign_lab.encoders.features import Features

with warnings.catch_warnings():  # torch says once per process that CSR is in beta; all we use of it is a tested product
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=False)

SQUASH = 1e-3  # keeps the whitening of directions with almost no variance finite


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Ordinary inverted dropout, with `p` rounded to a 256th so that one random byte decides on one entry.

    torch draws single floats one after the other on a CPU, which takes about twice as long. Its seed still decides.
    """
    dropped = round(256 * p)
    if not training or not dropped:
        return x
    random = np.random.default_rng(int(torch.randint(2**62, ()))).integers(256, size=tuple(x.shape), dtype=np.uint8)
    kept = torch.from_numpy(random).to(x.device) >= dropped
    return x * (kept * (256 / (256 - dropped)))


class DenseInput(nn.Module):
    """Centre, project on the training rows' principal components, and half-whiten (divide by the root of each deviation).

    Half-whitening lets weak components speak without letting the noisiest ones shout. The statistics are
    buffers, fitted once on training rows by `fit`, saved with the model, and never trained.
    """

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, inner))

    @staticmethod
    def fit(rows: np.ndarray, components: int) -> DenseInput:
        """The layer for training rows (n, width): at most `components` principal components."""
        parts = min(components, *rows.shape)
        pca = PCA(parts, svd_solver="randomized", random_state=0).fit(np.ascontiguousarray(rows))
        deviations = np.sqrt(pca.explained_variance_)
        keep = deviations > SQUASH * deviations[0]
        layer = DenseInput(rows.shape[1], int(keep.sum()))
        layer.mean.copy_(torch.from_numpy(pca.mean_))
        layer.basis.copy_(torch.from_numpy((pca.components_[keep] / np.sqrt(deviations[keep, None])).T))
        return layer

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        """(n, width) → (n, inner): what of the input needs no gradient and no chance, so that it is done once."""
        x = (np.asarray(rows, np.float32) - self.mean.cpu().numpy()) @ self.basis.cpu().numpy()
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) * np.float32(x.shape[1] ** 0.5)

    def forward(self, prepared: np.ndarray, drop: float) -> Tensor:
        return dropout(torch.from_numpy(prepared).to(self.mean.device), drop, self.training)


class SparseInput(nn.Module):
    """Keep the columns that occur in at least `least` training rows, and let columns that cannot be told apart be one.

    A column never trained would add its random start to every text that holds it. The n-grams of a rare word mostly
    occur in the same rows with the same values; k such columns share one row of the table, whose start is √k times
    smaller, so that they add up to what k rows of their own would. That halves the table and loses no distinction.
    `place` and `size` are buffers, fitted once on training rows by `fit` and saved with the model.
    """

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.inner = inner
        self.register_buffer("place", torch.full((width,), -1, dtype=torch.int32))
        self.register_buffer("size", torch.ones(inner))

    @staticmethod
    def fit(rows: sp.csr_matrix, least: int) -> SparseInput:
        """The layer for training rows (n, width) CSR."""
        kept = np.flatnonzero(np.bincount(rows.indices, minlength=rows.shape[1]) >= least)
        # Equal columns have equal products with a random vector; others agree to nine places about never.
        marks = np.round(rows.T.astype(np.float64) @ np.random.default_rng(0).random(rows.shape[0]), 9)[kept]
        _, group, size = np.unique(marks, return_inverse=True, return_counts=True)
        layer = SparseInput(rows.shape[1], len(size))
        layer.place[torch.from_numpy(kept)] = torch.from_numpy(group.astype(np.int32))
        layer.size.copy_(torch.from_numpy(size))
        return layer

    def prepare(self, rows: sp.csr_matrix) -> sp.csr_matrix:
        """(n, width) → (n, inner), CSR; columns that share a row stay apart, so that dropout takes each alone."""
        column = self.place.cpu().numpy()[rows.indices]
        keep = column >= 0
        starts = np.concatenate([[0], np.cumsum(keep)])[rows.indptr].astype(np.int32)
        return sp.csr_matrix((rows.data[keep], column[keep], starts), shape=(rows.shape[0], self.inner))

    def forward(self, prepared: sp.csr_matrix, drop: float) -> sp.csr_matrix:
        """In training each entry is left out with probability `drop`, so that nothing is multiplied by it later."""
        if not (self.training and drop > 0):
            return prepared
        kept = torch.rand(prepared.nnz).numpy() >= drop
        starts = np.concatenate([[0], np.cumsum(kept, dtype=np.int32)])[prepared.indptr].astype(np.int32)
        values = prepared.data[kept] / np.float32(1 - drop)
        return sp.csr_matrix((values, prepared.indices[kept], starts), shape=prepared.shape)


class _Lookup(torch.autograd.Function):
    """CSR rows (n, inner) times a table (inner, hidden), with the table's gradient written once.

    torch's own backward fills that gradient, megabytes of it, adds to it and copies it: three times as slow.
    """

    @staticmethod
    def forward(ctx, rows: sp.csr_matrix, table: Tensor) -> Tensor:
        ctx.rows = rows
        return _csr(rows, table.device) @ table

    @staticmethod
    def backward(ctx, gradient: Tensor):
        of_table = torch.empty(ctx.rows.shape[1], gradient.shape[1], device=gradient.device)
        turned = _csr(ctx.rows.T.tocsr(), gradient.device)
        return None, torch.addmm(of_table, turned, gradient.contiguous(), beta=0, out=of_table)


def _csr(rows: sp.csr_matrix, device: torch.device) -> Tensor:
    parts = (torch.from_numpy(part) for part in (rows.indptr, rows.indices, rows.data))
    return torch.sparse_csr_tensor(*parts, rows.shape, check_invariants=False).to(device)


class Head(nn.Module):
    """features (n, width) → unit vectors (n, dim): an input layer that is fitted, one hidden layer with GELU.

    `inner` is the number of principal components of dense features, of distinct columns of sparse ones. Sparse rows
    (hashed n-grams, CSR) look their columns up in a table: the same linear layer without multiplying by zeros.
    `head(head.prepare(rows))` encodes; a trainer prepares once.
    """

    kind = "mlp"
    tags = 0  # columns at the end of a row that are no features

    def __init__(
        self, width: int, inner: int, hidden: int, dim: int, sparse: bool, input_dropout: float, hidden_dropout: float,
        fitted: nn.Module | None = None, **more: int
    ):  # fmt: skip
        super().__init__()
        self.settings = {
            "kind": self.kind, "width": width, "inner": inner, "hidden": hidden, "dim": dim, "sparse": sparse,
            "input_dropout": input_dropout, "hidden_dropout": hidden_dropout, **more,
        }  # fmt: skip
        self.input = fitted or (SparseInput if sparse else DenseInput)(width - self.tags, inner)
        self._build(inner, hidden, dim, 0.1 / self.input.size[:, None].sqrt() if sparse else inner**-0.5)

    def _build(self, inner: int, hidden: int, dim: int, start: Tensor | float) -> None:
        """Make the weights; `start` is the size of the first entries of a table whose rows the input chooses."""
        self.table = nn.Parameter(torch.randn(inner, hidden) * start)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Linear(hidden, dim)

    def prepare(self, rows: np.ndarray | sp.csr_matrix) -> np.ndarray | sp.csr_matrix:
        """Raw feature rows (n, width) as `forward` takes them, (n, inner)."""
        return self.input.prepare(rows)

    def forward(self, prepared: np.ndarray | sp.csr_matrix) -> Tensor:
        return nn.functional.normalize(self._map(self.input(prepared, self.settings["input_dropout"])), dim=-1)

    def _map(self, rows: Tensor | sp.csr_matrix) -> Tensor:
        return self.out(self._hidden(rows))

    def _times(self, rows: Tensor | sp.csr_matrix, table: Tensor) -> Tensor:
        return _Lookup.apply(rows, table) if self.settings["sparse"] else rows @ table

    def _hidden(self, rows: Tensor | sp.csr_matrix) -> Tensor:
        hidden = nn.functional.gelu(self._times(rows, self.table) + self.bias)
        return dropout(hidden, self.settings["hidden_dropout"], self.training)


class Linear(Head):
    """x W + b, and nothing hidden."""

    kind = "linear"

    def _build(self, inner, hidden, dim, start):
        self.table = nn.Parameter(torch.randn(inner, dim) * start)
        self.bias = nn.Parameter(torch.zeros(dim))

    def _map(self, rows):
        return self._times(rows, self.table) + self.bias


class Residual(Head):
    """x W + MLP(x), where the MLP starts at zero: a linear map, and what is learned to be wrong with it."""

    kind = "residual"

    def _build(self, inner, hidden, dim, start):
        super()._build(inner, hidden, dim, start)
        nn.init.zeros_(self.out.weight)
        self.straight = nn.Parameter(torch.randn(inner, dim) * start)

    def _map(self, rows):
        return super()._map(rows) + self._times(rows, self.straight)


class Orthogonal(Head):
    """x W with W Wᵀ = I (WᵀW = I where the input is wider than the space) at every step: the input turned, no more.

    That such a map suffices between similar spaces is the premise of Xing et al. 2015 (NAACL N15-1104). After each step
    of the optimiser `settle` takes W back: W ← W L⁻ᵀ, where WᵀW = L Lᵀ, the Q of its QR decomposition. A parametrisation as
    a product of reflections would hold several copies of a table of tens of thousands of columns.
    """

    kind = "orthogonal"

    def _build(self, inner, hidden, dim, start):
        self.table = nn.Parameter(nn.init.orthogonal_(torch.empty(inner, dim)))

    @torch.no_grad()
    def settle(self) -> None:
        tall = self.table if self.table.shape[0] >= self.table.shape[1] else self.table.T
        lower = torch.linalg.cholesky(tall.T @ tall)
        tall.copy_(torch.linalg.solve_triangular(lower.T, tall, upper=True, left=False))

    def _map(self, rows):
        return self._times(rows, self.table)


class Shared(Head):
    """h (W + W_l) + b over one hidden layer h for all languages: a linear head per language l on a shared core.

    Each W_l starts at zero, so that what languages have in common is learned once, and a language without a head of its own
    has the shared one. Rows say their language in a last column, which `with_language` writes. After the regularised
    multi-task learning of Evgeniou & Pontil 2004 (10.1145/1014052.1014067).
    """

    kind = "shared"
    tags = 1

    def _build(self, inner, hidden, dim, start):
        super()._build(inner, hidden, dim, start)
        self.own = nn.Parameter(torch.zeros(self.settings["languages"], hidden, dim))

    def prepare(self, rows):
        rows, language = _split(rows)
        return _joined(self.input.prepare(rows), language)

    def forward(self, prepared):
        rows, language = _split(prepared)
        hidden = self._hidden(self.input(rows, self.settings["input_dropout"]))
        out = self.out(hidden)
        for number in np.unique(language[(language > 0) & (language <= len(self.own))]):
            at = torch.from_numpy(np.flatnonzero(language == number)).to(out.device)
            out = out.index_add(0, at, hidden.index_select(0, at) @ self.own[number - 1])
        return nn.functional.normalize(out, dim=-1)


def with_language(features: Features, codes: Sequence[str], known: Sequence[str]) -> Features:
    """`features` (n, d) with a column more: 1 + the place of a row's code among `known`, 0 for any other; for a shared head."""
    if len(codes) != len(features):
        raise ValueError(f"{len(codes)} codes for {len(features)} rows; give the language of each row")
    places = {code: number for number, code in enumerate(known, 1)}
    return Features(features.ids, _joined(features.vectors, np.array([places.get(code, 0) for code in codes])))


def _joined(rows: np.ndarray | sp.csr_matrix, language: np.ndarray) -> np.ndarray | sp.csr_matrix:
    column = language[:, None].astype(np.float32)
    return sp.hstack([rows, sp.csr_matrix(column)], format="csr") if sp.issparse(rows) else np.hstack([rows, column])


def _split(rows: np.ndarray | sp.csr_matrix) -> tuple[np.ndarray | sp.csr_matrix, np.ndarray]:
    last = rows[:, -1].toarray().ravel() if sp.issparse(rows) else np.asarray(rows[:, -1])
    if (last < 0).any() or (last != np.rint(last)).any():
        raise ValueError("a shared head needs the language of each row: its features are made by heads.with_language")
    return rows[:, :-1], last.astype(np.int64)


FEATURE_HEADS: dict[str, type[Head]] = {head.kind: head for head in (Head, Linear, Residual, Orthogonal, Shared)}


def fitted_head(
    kind: str, rows: np.ndarray | sp.csr_matrix, dim: int, hidden: int, components: int, least_count: int,
    input_dropout: float, hidden_dropout: float
) -> Head:  # fmt: skip
    """A new head of this kind, whose input layer is fitted on the training rows (n, width)."""
    width, more, sparse = rows.shape[1], {}, sp.issparse(rows)
    if kind == "shared":
        rows, language = _split(rows)
        more = {"languages": int(language.max())}
    fitted = SparseInput.fit(rows, least_count) if sparse else DenseInput.fit(rows, components)
    inner = fitted.inner if sparse else fitted.basis.shape[1]
    return FEATURE_HEADS[kind](width, inner, hidden, dim, sparse, input_dropout, hidden_dropout, fitted, **more)
