"""Heads over features, and the Aligner that holds one per modality in a common space."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmalign_lab.encoders.features import Features

with warnings.catch_warnings():  # torch says once per process that CSR is in beta; all we use of it is a tested product
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1), check_invariants=False)

SQUASH = 1e-3  # keeps the whitening of directions with almost no variance finite


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Ordinary inverted dropout. Drawn by `rand`, because torch's own draws Bernoulli numbers singly on a CPU: 4 times slower."""
    return x * (torch.rand_like(x) >= p) / (1 - p) if training and p > 0 else x


class Dropout(nn.Module):
    """`dropout` as a layer."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)


class DenseInput(nn.Module):
    """Centre, project on the training rows' principal components, and half-whiten (divide by the root of each deviation).

    Half-whitening lets weak components speak without letting the noisiest ones shout. The statistics are
    buffers, fitted once on training rows by `fit`, saved with the model, and never trained.
    """

    def __init__(self, width: int, components: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("basis", torch.zeros(width, components))

    def fit(self, vectors: np.ndarray) -> None:
        """Principal components of `vectors` (n, width); fewer rows than components leave the rest at zero."""
        x = torch.as_tensor(np.ascontiguousarray(vectors), dtype=torch.float64)
        mean = x.mean(0)
        values, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / max(1, len(x) - 1))
        keep = values.argsort(descending=True)[: self.basis.shape[1]]
        deviations = values[keep].clamp_min(0).sqrt()
        keep, deviations = keep[deviations > SQUASH * deviations[0]], deviations[deviations > SQUASH * deviations[0]]
        self.mean.copy_(mean)
        self.basis.zero_()
        self.basis[:, : len(keep)] = (axes[:, keep] / deviations.sqrt()).to(self.basis.dtype)

    def forward(self, rows: np.ndarray, drop: float) -> Tensor:
        x = (torch.from_numpy(np.ascontiguousarray(rows, np.float32)).to(self.mean.device) - self.mean) @ self.basis
        x = nn.functional.normalize(x, dim=-1) * x.shape[-1] ** 0.5
        return dropout(x, drop, self.training)


class SparseInput(nn.Module):
    """Keep the columns that occur in at least `least` training rows, `columns` of them; pass their values on.

    A column never trained would add its random start to a text that happens to hold it, and one seen once ties
    a rare n-gram to a single example. `fit` chooses, once; the choice is a buffer, saved with the model.
    """

    def __init__(self, width: int, columns: int):
        super().__init__()
        self.columns = columns
        self.register_buffer("place", torch.full((width,), -1, dtype=torch.int32))

    @staticmethod
    def chosen(rows: sp.csr_matrix, least: int) -> np.ndarray:
        """The columns to keep, sorted (columns,)."""
        return np.flatnonzero(np.bincount(rows.indices, minlength=rows.shape[1]) >= least)

    def fit(self, chosen: np.ndarray) -> None:
        self.place[torch.from_numpy(chosen)] = torch.arange(len(chosen), dtype=torch.int32)

    def forward(self, rows: sp.csr_matrix, drop: float) -> Tensor:
        column = self.place.cpu().numpy()[rows.indices]
        keep = column >= 0
        starts = np.concatenate([[0], np.cumsum(keep)])[rows.indptr].astype(np.int32)
        parts = (starts, column[keep], dropout(torch.from_numpy(rows.data[keep]), drop, self.training))
        shape = (rows.shape[0], self.columns)
        csr = torch.sparse_csr_tensor(*map(torch.as_tensor, parts), shape, check_invariants=False)
        return csr.to(self.place.device)


class Head(nn.Module):
    """features (n, width) → unit vectors (n, dim): one hidden layer with GELU.

    `inner` is the number of principal components kept of dense features, of columns kept of sparse ones. Sparse rows
    (hashed n-grams, CSR) look their columns up in a table: the same linear layer without multiplying by zeros.
    """

    def __init__(
        self, width: int, inner: int, hidden: int, dim: int, sparse: bool, input_dropout: float, hidden_dropout: float
    ):
        super().__init__()
        self.settings = {
            "width": width, "inner": inner, "hidden": hidden, "dim": dim, "sparse": sparse,
            "input_dropout": input_dropout, "hidden_dropout": hidden_dropout,
        }  # fmt: skip
        self.input_dropout = input_dropout
        self.input = SparseInput(width, inner) if sparse else DenseInput(width, inner)
        self.table = nn.Parameter(torch.randn(inner, hidden) * (0.1 if sparse else inner**-0.5))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out = nn.Sequential(nn.GELU(), Dropout(hidden_dropout), nn.Linear(hidden, dim))

    def forward(self, rows: np.ndarray | sp.csr_matrix) -> Tensor:
        return nn.functional.normalize(self.out(self.input(rows, self.input_dropout) @ self.table + self.bias), dim=-1)


class Aligner(nn.Module):
    """One head per modality into one space, and the temperature if it is learned.

    `encode_image` and `encode_text` take `Features` and return unit vectors (n, dim) as float32 arrays. `save` and
    `load` use a folder's `aligner.safetensors` and `aligner.json`; nothing is pickled.
    """

    def __init__(self, image: Head, text: Head, tau: float = 0.05):
        super().__init__()
        self.heads = nn.ModuleDict({"image": image, "text": text})
        self.log_tau = nn.Parameter(torch.tensor(float(np.log(tau))))

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
        parts = [head(features.vectors[start : start + size]).cpu().numpy() for start in range(0, len(features), size)]
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
        aligner = cls(Head(**settings["image"]), Head(**settings["text"]))
        aligner.load_state_dict(load_file(Path(folder) / "aligner.safetensors"))
        return aligner.eval()
