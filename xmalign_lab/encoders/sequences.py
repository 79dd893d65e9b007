"""Sequences of frozen vectors (frames of a video, tokens of a text), and the tower over them.

As `Inputs` they are float32 rows (n, t, w), and a place of zeros is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.checkpoint import loading
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.encoders.levels import Block, masked_mean
from xmalign_lab.encoders.tiny import TOWERS

Clips = dict[str, tuple[str, Callable[[], np.ndarray]]]  # by the name of a video: where its features lie, and what reads them


class Sequence(nn.Module):
    """Sequences (b, t, width_in) float32, zeros being padding → vectors (b, width), tokens (b, t, width) and mask (b, t).

        x_i = relu(norm(W f_i + b)) + p_i,  then `depth` transformer layers and a norm;  vector = mean_i x_i over the mask

    `depth=0` pools the frames, more is a temporal transformer (as VATEX's rows in NRCCR, Wang et al. 2022, arXiv 2208.12526).
    p are learned places; without `positions` the order of the places says nothing. `dropout` is of x before the layers.
    `padded_mean` takes the mean over padding too, as NRCCR's code does, and then a vector depends on what else is in its
    batch: to measure what that costs, not to use. `seed` fixes the initial weights without touching torch's generator.
    Raises `ValueError` for sequences of another width and for some that go on after `longest` places.
    """

    def __init__(
        self, width_in, width=256, depth=0, heads=4, dropout=0.0, positions=True, padded_mean=False, longest=128, seed=0
    ):
        if depth and width % heads:
            raise ValueError(f"width {width} must divide by {heads} heads")
        super().__init__()
        self.settings = dict(width_in=width_in, width=width, depth=depth, heads=heads, dropout=dropout, positions=positions)
        self.settings |= dict(padded_mean=padded_mean, longest=longest, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.enter = nn.Sequential(nn.Linear(width_in, width), nn.LayerNorm(width))
            self.places = nn.Parameter(torch.randn(longest, width) * 0.02) if positions else None
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.drop = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width) if depth else nn.Identity()

    def check(self, rows):
        """`rows`, an array or a tensor, if this tower takes them."""
        width, longest = self.settings["width_in"], self.settings["longest"]
        if rows.ndim != 3 or rows.shape[2] != width or not str(rows.dtype).endswith("float32"):
            raise ValueError(f"this tower takes sequences of width {width}, not {rows.shape[-1]}: {rows.dtype} {rows.shape}")
        if (rows[:, longest:] != 0).any():
            raise ValueError(f"this tower takes sequences of {longest} places at most, not {rows.shape[1]}; give it a `longest`")
        return rows

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs = self.check(inputs)[:, : self.settings["longest"]]
        mask = (inputs != 0).any(2)
        x = torch.relu(self.enter(inputs))
        x = self.drop(x if self.places is None else x + self.places[: x.shape[1]])
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        tokens = x * mask[..., None]
        return x.mean(1) if self.settings["padded_mean"] else masked_mean(tokens, mask), tokens, mask


TOWERS[Sequence.__name__] = Sequence


def of_tokens(features: Features) -> Inputs:
    """The tokens of frozen features as sequences: what a text encoder or a ViT says of each word or patch."""
    if features.tokens is None:
        raise CorpusError("these features have no tokens; encode with tokens=True")
    mask = True if features.mask is None else features.mask[..., None]
    return Inputs(features.ids, np.where(mask, features.tokens, 0).astype(np.float32))


def frames(corpus: Corpus, place: str | Path, longest: int = 64) -> Inputs:
    """Features of videos that somebody has extracted, for the image rows of a corpus: float32 (n, t, w), t ≤ `longest`.

    A row's video goes by the row's id or by the name of its file, without folder and ending. `place` is one of
    - a folder with a file `<video>.npy`, (t, w) or (1, t, w), per video, in whatever subfolders;
    - a file `<name>.npy` with the ids of its rows, one a line, in `<name>.txt` beside it: sequences (n, t, w), zeros being
      padding, or vectors (n, w) of videos or of frames, whose ids are `<video>_<number>`;
    - a folder with `feature.bin`, float32 vectors, `shape.txt` and `id.txt`, ids as before: dual encoding's, NRCCR's, MLCMR's;
    - an HDF5 file with a dataset `<video>`, (t, w), per video, in whatever groups: this needs the extra `video`.
    Of a longer video so many frames are kept, the middles of stretches of equal length. Features of other videos than the
    corpus's are left alone, as those of another split must be. Raises `CorpusError`, with file and video, for videos without
    features, a width that is not the first one's, another shape, a clip without frames and what is not finite.
    """
    rows, place = corpus.rows[corpus.rows.modality == "image"], Path(place)
    names = [(row_id, Path(image).stem) for row_id, image in zip(rows.id, rows.image, strict=True)]
    with loading(place):
        clips = _clips(place, {name for both in names for name in both})
    found = [next((name for name in both if name in clips), "") for both in names]
    if (lacking := [file for (_, file), name in zip(names, found, strict=True) if not name]) or rows.empty:
        some = ", ".join(map(repr, lacking[:3])) + " …" * (len(lacking) > 3)
        has = f"it has {len(clips):,}, {next(iter(clips), '')!r} the first"
        raise CorpusError(f"{place}: no features of {len(lacking):,} of the corpus's {len(rows):,} videos: {some}; {has}")
    read = [_clip(*clips[name], longest) for name in found]
    values = np.zeros((len(read), max(map(len, read)), read[0].shape[1]), np.float32)
    for row, name, clip in zip(values, found, read, strict=True):
        if clip.shape[1] != values.shape[2]:
            raise CorpusError(f"{clips[name][0]}: width {clip.shape[1]}, but {found[0]!r} has {values.shape[2]}")
        row[: len(clip)] = clip
    return Inputs(rows.id.to_numpy(), values)


def _clip(where: str, read: Callable[[], np.ndarray], longest: int) -> np.ndarray:
    """The frames of one video that are kept, (t, w); those of zeros are none."""
    with loading(where):
        clip = np.asarray(read(), np.float32)
    clip = clip[0] if clip.ndim == 3 and len(clip) == 1 else np.atleast_2d(clip)
    if clip.ndim != 2 or not clip.any() or not np.isfinite(clip).all():
        raise CorpusError(f"{where}: shape {clip.shape}; wanted (frames, width), a frame at least, not all zeros, all finite")
    clip = clip[clip.any(1)]
    kept = min(len(clip), longest)
    return clip[(2 * np.arange(kept) + 1) * len(clip) // (2 * kept)]


def _clips(place: Path, wanted: set[str]) -> Clips:
    """The videos at a place; nothing but names and shapes is read."""
    if place.suffix.lower() in (".h5", ".hdf5"):
        return _of_hdf5(place)
    if (place / "feature.bin").is_file():
        shape = tuple(map(int, (place / "shape.txt").read_text().split()))
        return _of_rows(np.memmap(place / "feature.bin", "<f4", "r").reshape(shape), place / "id.txt", wanted)
    if place.is_file():
        return _of_rows(np.load(place, mmap_mode="r"), place.with_suffix(".txt"), wanted)
    return _once((path.stem, f"{path}", partial(np.load, path)) for path in sorted(place.rglob("*.npy")))


def _once(found: Iterable[tuple[str, str, Callable]]) -> Clips:
    clips: Clips = {}
    for name, where, read in found:
        if clips.setdefault(name, (where, read))[0] != where:
            raise CorpusError(f"{where}: {clips[name][0]} has features of {name!r} too; give those of one kind")
    return clips


def _of_rows(vectors: np.ndarray, ids: Path, wanted: set[str]) -> Clips:
    """Rows by a list of their ids; a vector whose id is no video's is a frame, in the order of the numbers."""
    names, rows = ids.read_text().split(), {}
    if len(names) != len(vectors) or len(set(names)) != len(names):
        raise CorpusError(f"{ids}: {len(names)} ids, {len(set(names))} of them distinct, for {len(vectors)} rows")
    for row, name in enumerate(names):
        video, _, number = name.rpartition("_")
        frame = vectors.ndim == 2 and name not in wanted and number.isdecimal()
        rows.setdefault(video if frame else name, []).append((int(number) if frame else 0, row))
    return {v: (f"{ids}, {v!r}", partial(vectors.__getitem__, [row for _, row in sorted(of)])) for v, of in rows.items()}


def _of_hdf5(path: Path) -> Clips:
    try:
        import h5py
    except ModuleNotFoundError:
        raise CorpusError(f"{path}: h5py is not installed; pip install -c constraints.txt -e '.[video]'") from None
    found = []
    h5py.File(path).visititems(lambda name, item: found.append((name, item)) if isinstance(item, h5py.Dataset) else None)
    return _once((name.rpartition("/")[2], f"{path}, {name!r}", partial(item.__getitem__, ())) for name, item in found)
