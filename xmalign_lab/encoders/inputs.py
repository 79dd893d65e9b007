"""Inputs: what a tower that is trained end to end takes, where a head over frozen vectors takes Features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import opened, pixels, rows_of


@dataclass(frozen=True, eq=False)
class Inputs:
    """The raw rows of n examples, as a tower takes them: it stands wherever `Features` does in training.

    `ids` (n,) strings; `rows` (n, …): pictures uint8 (n, 4, size, size), RGB on white and alpha; token ids int32 (n, t) or
    (n, t, levels), 0 being padding; or sequences of vectors float32 (n, t, w), as of the frames of videos, where a place of
    zeros is padding. `key` is a hash of all of it, computed unless given. Raises `CorpusError` for ids that are not as many
    as the rows, for two rows with one id, for rows of other floats or not finite, and for a row that is all padding.
    """

    ids: np.ndarray
    rows: np.ndarray
    key: str = ""

    def __post_init__(self):
        ids = np.empty(len(self.ids), object)
        ids[:] = [str(row_id) for row_id in self.ids]
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "_position", {row_id: row for row, row_id in enumerate(ids)})
        if len(self._position) < len(ids) or len(ids) != len(self.rows):
            raise CorpusError(f"inputs: {len(ids)} ids, {len(self._position)} of them distinct, for {len(self.rows)} rows")
        floats = self.rows.dtype == np.float32 and self.rows.ndim == 3
        if not floats and (self.rows.dtype.kind not in "iu" or self.rows.ndim < 2):
            wanted = "give uint8 pictures or int32 token ids, or float32 sequences of vectors (n, t, w)"
            raise CorpusError(f"inputs: rows are {self.rows.dtype} {self.rows.shape}; {wanted}")
        if floats and (wrong := [row for row, places in enumerate(self.rows) if not np.isfinite(places).all()]):
            raise CorpusError(f"inputs, row {wrong[0] + 1}, id {ids[wrong[0]]!r}: NaN or infinity; vectors must be finite")
        if self.rows.dtype != np.uint8 and len(empty := np.flatnonzero(~self.rows.reshape(len(ids), -1).any(1))):
            what = "all places are padding" if floats else "no token"
            raise CorpusError(f"inputs, row {empty[0] + 1}, id {ids[empty[0]]!r}: {what}; drop the row")
        if not self.key:
            digest = hashlib.sha256(f"{self.rows.dtype.str} {self.rows.shape}\x00".encode() + "\x00".join(ids).encode())
            digest.update(np.ascontiguousarray(self.rows).data)
            object.__setattr__(self, "key", digest.hexdigest())

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Inputs({len(self):,} rows of {self.rows.dtype} {self.rows.shape[1:]}, key {self.key[:8]})"

    @property
    def vectors(self) -> np.ndarray:
        """The rows, by the name that they have in `Features`."""
        return self.rows

    @property
    def width(self) -> int:
        """The last axis: the side of a picture, the number of levels or of tokens of a text, the width of a sequence."""
        return self.rows.shape[-1]

    def position(self, ids: Iterable[str]) -> np.ndarray:
        """The row numbers of `ids`, (m,) int64; `CorpusError` names the first id that has no row."""
        try:
            return np.array([self._position[row_id] for row_id in ([ids] if isinstance(ids, str) else ids)], np.int64)
        except KeyError as unknown:
            raise CorpusError(f"inputs: no row has the id {unknown.args[0]!r}; there are {len(self):,}") from None

    def take(self, ids: Iterable[str]) -> np.ndarray:
        """The rows of `ids` in that order, (m, …)."""
        return self.rows[self.position(ids)]


def pictures(corpus: Corpus, size: int) -> Inputs:
    """The image rows of a corpus, fitted into squares of `size` pixels: uint8 (n, 4, size, size)."""
    rows = rows_of(corpus, "image")
    values = np.empty((len(rows), 4, size, size), np.uint8)
    for row, row_id in enumerate(rows.id):
        values[row] = np.rint(pixels(opened(corpus, row_id), size) * 255).transpose(2, 0, 1)
    return Inputs(rows.id.to_numpy(), values)


def texts(corpus: Corpus | Sequence[str], tokenise: Callable[[list[str]], object]) -> Inputs:
    """The text rows of a corpus, or a list of texts, by a tower's own `tokenise`: int32 (n, t) or (n, t, levels).

    `tokenise` returns the ids as an array or a tensor, alone or first in a tuple.
    """
    rows = rows_of(corpus, "text")
    ids = tokenise(list(rows.text))
    return Inputs(rows.id.to_numpy(), np.asarray(ids[0] if isinstance(ids, tuple) else ids, np.int32))
