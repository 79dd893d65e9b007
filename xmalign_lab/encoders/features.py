"""Features: what an encoder returns for a corpus, and the protocol every encoder follows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from xmalign_lab.corpus import Corpus, CorpusError


class Encoder(Protocol):
    """Anything that turns the rows of one modality into vectors.

    `spec()` holds everything the vectors depend on (settings, a version, a digest of the weights) as plain JSON:
    the cache tells encoders apart by nothing else.
    """

    modality: str

    def spec(self) -> dict: ...

    def encode(self, corpus: Corpus, progress: bool = True) -> Features: ...


@dataclass(frozen=True, eq=False)
class Features:
    """The vectors of n rows.

    `ids` (n,) strings; `vectors` (n, d) float32, an array, a memory map or a `scipy.sparse.csr_matrix`; where asked
    `tokens` (n, t, e) float32, `mask` (n, t) bool (True where there is a token) and `words` (n, t) int, the number
    of the word each token belongs to, -1 for none. `key` is a hash of all of it, computed unless given. `shown` is
    what a message quotes for each row: the text, or the picture's path.

    Raises `CorpusError` for two rows with one id, arrays that do not fit each other, a vector that holds NaN or
    infinity, and a vector of norm zero, which has no direction and so no cosine.
    """

    ids: np.ndarray
    vectors: np.ndarray | sparse.csr_matrix
    tokens: np.ndarray | None = None
    mask: np.ndarray | None = None
    words: np.ndarray | None = None
    key: str = ""
    shown: InitVar[Sequence[str] | None] = None

    def __post_init__(self, shown):
        ids = np.empty(len(self.ids), object)
        ids[:] = [str(row_id) for row_id in self.ids]
        object.__setattr__(self, "ids", ids)
        vectors = self.vectors
        if sparse.issparse(vectors):
            vectors = sparse.csr_matrix(vectors, dtype=np.float32)
        elif vectors.dtype != np.float32:
            vectors = np.asarray(vectors, np.float32)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "_position", {row_id: row for row, row_id in enumerate(ids)})
        self._check_shapes()
        _check_rows(ids, vectors, shown)
        if self.tokens is not None:
            _check_tokens(ids, self.tokens, self.mask)
        if not self.key:
            object.__setattr__(self, "key", _digest(self))

    def _check_shapes(self) -> None:
        n = len(self.ids)
        if len(self._position) < n:
            seen: set[str] = set()
            row, twice = next((r, i) for r, i in enumerate(self.ids) if i in seen or seen.add(i))
            raise CorpusError(f"features, row {row + 1}: id {twice!r} occurs twice; ids must be unique")
        if self.vectors.ndim != 2 or self.vectors.shape[0] != n:
            raise CorpusError(f"features: {n} ids but vectors of shape {self.vectors.shape}; expected ({n}, width)")
        if self.tokens is None and not (self.mask is None and self.words is None):
            raise CorpusError("features: a mask or word numbers without tokens; give tokens (n, t, e) too")
        if self.tokens is not None and (self.tokens.ndim != 3 or len(self.tokens) != n):
            raise CorpusError(f"features: tokens have shape {self.tokens.shape}; expected ({n}, tokens, width)")
        for name in ("mask", "words"):
            part = getattr(self, name)
            if part is not None and part.shape != self.tokens.shape[:2]:
                raise CorpusError(f"features: {name} has shape {part.shape}, the tokens {self.tokens.shape[:2]}")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "sparse" if sparse.issparse(self.vectors) else "dense"
        tokens = "" if self.tokens is None else f", {self.tokens.shape[1]} tokens of width {self.tokens.shape[2]}"
        return f"Features({len(self):,} rows of width {self.width:,}, {kind}{tokens}, key {self.key[:8]})"

    @property
    def width(self) -> int:
        """The number of dimensions d of a vector."""
        return self.vectors.shape[1]

    def position(self, ids: Iterable[str]) -> np.ndarray:
        """The row numbers of `ids`, (m,) int64; `CorpusError` names the first id that has no features."""
        ids = [ids] if isinstance(ids, str) else ids
        try:
            return np.fromiter((self._position[row_id] for row_id in ids), np.int64)
        except KeyError as unknown:
            known = f"known are {self.ids[0]!r} and {len(self) - 1:,} more" if len(self) else "there are no rows"
            raise CorpusError(f"features: no row has the id {unknown.args[0]!r}; {known}") from None

    def take(self, ids: Iterable[str]) -> np.ndarray | sparse.csr_matrix:
        """The vectors of `ids` in that order, (m, d); sparse rows stay sparse."""
        rows = self.vectors[self.position(ids)]
        return rows if sparse.issparse(rows) else np.asarray(rows)

    def dense(self) -> np.ndarray:
        """All vectors as an ordinary float32 array (n, d)."""
        return self.vectors.toarray() if sparse.issparse(self.vectors) else np.asarray(self.vectors)

    @classmethod
    def concatenate(cls, several: Sequence[Features]) -> Features:
        """One `Features` of several with the same width, sparse if all are; of their vectors alone, not of tokens."""
        if not several:
            raise CorpusError("features: nothing to concatenate; give at least one Features")
        widths = [part.width for part in several]
        if len(set(widths)) > 1:
            raise CorpusError(f"features: widths {widths} differ; only features of one encoder can be concatenated")
        ids = np.concatenate([part.ids for part in several])
        if all(sparse.issparse(part.vectors) for part in several):
            vectors = sparse.vstack([part.vectors for part in several], format="csr")
        else:
            vectors = np.concatenate([part.dense() for part in several])
        return cls(ids, vectors)

    @classmethod
    def from_arrays(cls, vectors, ids: Iterable[str]) -> Features:
        """Embeddings one already has: `vectors` (n, d) as lists, a numpy array, a torch tensor or a sparse matrix.

        Raises `CorpusError` if they are not n rows of d numbers, and for all that `Features` refuses.
        """
        ids = list(ids)
        if sparse.issparse(vectors):
            return cls(ids, vectors)
        if hasattr(vectors, "detach"):  # a torch tensor, perhaps on another device, half precision or with a gradient
            vectors = vectors.detach().cpu().float().numpy()
        try:
            array = np.array(vectors, np.float32)  # a copy: what the caller does to the array later must not change features
        except (TypeError, ValueError) as error:
            raise CorpusError(f"features: the vectors are not {len(ids)} rows of equally many numbers ({error})") from None
        return cls(ids, array)


def _check_rows(ids: np.ndarray, vectors, shown: Sequence[str] | None) -> None:
    """Every row finite and with a direction. Squared norms are taken in double, so that 1e-30 is not called zero."""
    blocks = (vectors[start : start + 4096] for start in range(0, len(ids), 4096))
    squared = np.concatenate([np.zeros(0), *map(_squared_norms, blocks)])
    bad = np.flatnonzero(~(np.isfinite(squared) & (squared > 0)))
    if not len(bad):
        return
    row = int(bad[0])
    quoted = f" ({shown[row]!r})" if shown is not None else ""
    more = f" (and {len(bad) - 1} more rows)" if len(bad) > 1 else ""
    if squared[row] == 0:
        what = "the vector has norm zero, so it has no direction; drop the row or encode it another way"
    else:
        what = "the vector holds NaN or infinity; vectors must be finite"
    raise CorpusError(f"features, row {row + 1}, id {ids[row]!r}{quoted}: {what}{more}")


def _squared_norms(block) -> np.ndarray:
    double = block.astype(np.float64)
    if sparse.issparse(double):
        return np.asarray(double.multiply(double).sum(1)).ravel()
    return np.einsum("ij,ij->i", double, double)


def _check_tokens(ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray | None) -> None:
    for row, row_id in enumerate(ids):
        valid = tokens[row] if mask is None else tokens[row][mask[row]]
        if not np.isfinite(valid).all():
            raise CorpusError(f"features, row {row + 1}, id {row_id!r}: a token holds NaN or infinity; tokens must be finite")
        if not len(valid):
            raise CorpusError(f"features, row {row + 1}, id {row_id!r}: no token is left by the mask; each row needs one")


def _digest(features: Features) -> str:
    """SHA-256 over ids and contents: equal features have equal keys, by whatever way they came."""
    digest = hashlib.sha256("\x00".join(features.ids).encode())
    for name, array in features_arrays(features).items():
        digest.update(f"\x00{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def features_arrays(features: Features) -> dict[str, np.ndarray]:
    """The arrays that make up `features` (without the ids), by name: what is hashed and what the cache writes."""
    vectors = features.vectors
    if sparse.issparse(vectors):
        arrays = {name: getattr(vectors, name) for name in ("data", "indices", "indptr")}
    else:
        arrays = {"vectors": vectors}
    parts = {"tokens": features.tokens, "mask": features.mask, "words": features.words}
    return arrays | {name: part for name, part in parts.items() if part is not None}
