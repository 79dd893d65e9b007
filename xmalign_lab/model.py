"""Heads over features, and the Aligner that holds one per modality in a common space."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file
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

    def __init__(
        self,
        width: int,
        inner: int,
        hidden: int,
        dim: int,
        sparse: bool,
        input_dropout: float,
        hidden_dropout: float,
        fitted: nn.Module | None = None,
    ):
        super().__init__()
        self.settings = {
            "width": width, "inner": inner, "hidden": hidden, "dim": dim, "sparse": sparse,
            "input_dropout": input_dropout, "hidden_dropout": hidden_dropout,
        }  # fmt: skip
        self.input = fitted or (SparseInput(width, inner) if sparse else DenseInput(width, inner))
        start = 0.1 / self.input.size[:, None].sqrt() if sparse else inner**-0.5
        self.table = nn.Parameter(torch.randn(inner, hidden) * start)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Linear(hidden, dim)

    def prepare(self, rows: np.ndarray | sp.csr_matrix) -> np.ndarray | sp.csr_matrix:
        """Raw feature rows (n, width) as `forward` takes them, (n, inner)."""
        return self.input.prepare(rows)

    def forward(self, prepared: np.ndarray | sp.csr_matrix) -> Tensor:
        rows = self.input(prepared, self.settings["input_dropout"])
        hidden = _Lookup.apply(rows, self.table) if self.settings["sparse"] else rows @ self.table
        hidden = nn.functional.gelu(hidden + self.bias)
        hidden = dropout(hidden, self.settings["hidden_dropout"], self.training)
        return nn.functional.normalize(self.out(hidden), dim=-1)


class Fixed(nn.Module):
    """A head that trains nothing: its features (n, width) are vectors of the space already, a teacher's for instance."""

    def __init__(self, width: int, fixed: bool = True):
        super().__init__()
        self.settings = {"width": width, "fixed": fixed}

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows, np.float32)

    def forward(self, prepared: np.ndarray) -> Tensor:
        return nn.functional.normalize(torch.from_numpy(prepared), dim=-1)


class Aligner(nn.Module):
    """One head per modality into one space, the temperature if it is learned, and the bias that SigLIP's loss learns.

    `encode_image` and `encode_text` take `Features` and return unit vectors (n, dim) as float32 arrays. `save` and
    `load` use a folder's `aligner.safetensors` and `aligner.json`; nothing is pickled.
    """

    def __init__(self, image: Head | Fixed, text: Head | Fixed, tau: float = 0.05, bias: float = 0.0):
        super().__init__()
        self.heads = nn.ModuleDict({"image": image, "text": text})
        self.log_tau = nn.Parameter(torch.tensor(float(np.log(tau))))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    @property
    def tau(self) -> Tensor:
        """The learned temperature, kept in [0.01, 1] (open_clip clamps at 0.01 likewise)."""
        return self.log_tau.clamp(np.log(0.01), 0.0).exp()

    def encode_image(self, features: Features) -> np.ndarray:
        return self._encode("image", features)

    def encode_text(self, features: Features) -> np.ndarray:
        return self._encode("text", features)

    @torch.no_grad()
    def _encode(self, modality: str, features: Features, size: int = 4096) -> np.ndarray:
        head, was_training = self.heads[modality], self.training
        if features.width != head.settings["width"]:
            raise ValueError(f"the {modality} head takes features of width {head.settings['width']}, not {features.width}")
        self.eval()
        parts = [
            head(head.prepare(features.vectors[start : start + size])).cpu().numpy() for start in range(0, len(features), size)
        ]
        self.train(was_training)
        return np.concatenate(parts)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "aligner.safetensors")
        settings = {modality: head.settings for modality, head in self.heads.items()}
        (folder / "aligner.json").write_text(json.dumps(settings, indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> Aligner:
        """Raises `FileNotFoundError` if the folder holds no aligner."""
        settings = json.loads((Path(folder) / "aligner.json").read_text())
        aligner = cls(*((Fixed if "fixed" in of else Head)(**of) for of in (settings["image"], settings["text"])))
        aligner.load_state_dict(load_file(Path(folder) / "aligner.safetensors"))
        return aligner.eval()
