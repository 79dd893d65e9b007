"""Towers from scratch: a vision transformer and a text transformer, to train end to end.

Every tower is a module over raw rows, `forward(inputs) -> (vectors (b, w), tokens (b, t, w), mask (b, t))`: pictures as uint8
(b, 4, size, size), texts as the int32 array that its `tokenise(texts)` gives. `TOWERS[name](**settings)` is a tower again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.classic import bucket, graphemes, words
from xmalign_lab.encoders.levels import Block, MultiLevelText, masked_mean, table
from xmalign_lab.encoders.subwords import Subwords


class TinyViT(nn.Module):
    """Pictures (b, 4, size, size) uint8, RGB on white and alpha → vectors (b, width), patches (b, t, width), mask all True.

    t = (size / patch)². `pool` is "mean" over patches or "cls", an extra first token. `registers` more tokens take part and
    are dropped at the end, so that no patch has to hold what belongs to none (Darcet et al. 2023, arXiv 2309.16588).
    `stem` lists the channels of 3 × 3 convolutions of stride 2, with batch norm, that see the picture first: with them a shape
    is the same wherever it lies, from fewer pictures (Xiao et al. 2021, arXiv 2106.14881); without, it is the transformer of
    Dosovitskiy et al. 2021 (arXiv 2010.11929). In training each picture is shifted by up to `shift` pixels either way, what
    leaves it on one side entering on the other. With `early` the patches that are given are those that enter the blocks: behind
    them each patch has seen all others, and what it says is no longer where it lies. `seed` fixes the initial weights without
    touching torch's global generator.
    """

    def __init__(
        self, size=48, patch=8, width=96, depth=4, heads=4, pool="mean", registers=0, stem=(), shift=0, early=False, seed=0
    ):
        if size % patch or width % heads or pool not in ("mean", "cls") or patch % 2 ** len(stem):
            raise ValueError(
                f"size {size} in patches of {patch}, width {width} in {heads} heads, pool {pool!r}, stem {stem}: must divide "
                "(patch by 2 for each part of the stem); pool is mean or cls"
            )
        super().__init__()
        self.settings = dict(size=size, patch=patch, width=width, depth=depth, heads=heads, pool=pool, seed=seed)
        self.settings |= dict(registers=registers, stem=list(stem), shift=shift, early=early)
        self.extras, self.side = registers + (pool == "cls"), patch // 2 ** len(stem)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            channels = [4, *stem]
            convolutions = [nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in zip(channels, stem, strict=False)]
            self.stem = nn.Sequential(*(part for c in convolutions for part in (c, nn.BatchNorm2d(c.out_channels), nn.ReLU())))
            self.patches = nn.Linear(channels[-1] * self.side**2, width)
            self.extra = nn.Parameter(torch.randn(1, self.extras, width) * 0.02)
            self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def train(self, mode: bool = True) -> TinyViT:
        """A frozen stem stays in evaluation mode: the statistics of its batch norm would move."""
        super().train(mode)
        self.stem.train(mode and all(weight.requires_grad for weight in self.stem.parameters()))
        return self

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if inputs.dtype != torch.uint8 or inputs.shape[1:] != (4, self.settings["size"], self.settings["size"]):
            size = self.settings["size"]
            raise ValueError(f"pictures are {inputs.dtype} {tuple(inputs.shape)}; give uint8 (b, 4, {size}, {size})")
        if self.training and self.settings["shift"]:
            inputs = shifted(inputs, self.settings["shift"])
        x = (inputs.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        x = self.stem(x).unfold(2, self.side, self.side).unfold(3, self.side, self.side)
        x = x.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # one product is faster than a convolution of stride `side`
        x = entering = self.patches(x) + self.place
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        patches = x[:, self.extras :]
        vectors = x[:, 0] if self.settings["pool"] == "cls" else patches.mean(1)
        patches = entering if self.settings["early"] else patches
        return vectors, patches, torch.ones(patches.shape[:2], dtype=torch.bool, device=x.device)


def shifted(pictures: Tensor, most: int) -> Tensor:
    """Pictures (b, c, h, w), each rolled by whole pixels from -most to most, drawn for each axis alone."""
    b, c, *sides = pictures.shape
    moves = torch.randint(-most, most + 1, (2, b, 1), device=pictures.device)
    y, x = ((torch.arange(side, device=pictures.device) - move) % side for side, move in zip(sides, moves, strict=True))
    return pictures[torch.arange(b)[:, None, None, None], torch.arange(c)[:, None, None], y[:, None, :, None], x[:, None, None]]


class TinyText(nn.Module):
    """Texts (b, t, 2) int32 → vectors (b, width), tokens (b, t, width) and mask (b, t); the vector is the mean over the mask.

    The columns are a token's id and the number of its word from 1, 0 where there is no token. `level` is "word",
    "grapheme" or "subword". Words and graphemes are hashed into `buckets` rows, as in `ClassicText`: no vocabulary has to
    be built or kept, and every language has one. `subwords` are the pieces of a `Subwords` trained on training texts. Texts are
    cut after `longest` tokens.
    """

    def __init__(self, level="grapheme", buckets=4096, longest=96, width=96, depth=4, heads=4, subwords=(), seed=0):
        if level not in ("word", "grapheme", "subword") or width % heads or (level == "subword") != bool(subwords):
            raise ValueError(
                f"level {level!r} must be word, grapheme or, with the pieces of a Subwords, subword; and heads {heads} must "
                f"divide width {width}"
            )
        super().__init__()
        self.settings = dict(level=level, buckets=buckets, longest=longest, width=width, depth=depth, heads=heads, seed=seed)
        self.settings |= dict(subwords=list(subwords))
        self.cutter = Subwords(subwords) if subwords else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.table = table(len(self.cutter) if self.cutter else buckets, width)
            self.place = nn.Parameter(torch.randn(1, longest, width) * 0.02)
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def _ids(self, word: str) -> list[int]:
        """Graphemes that begin a word are told from the others by a mark, so no token is spent on spaces."""
        if self.cutter:
            return self.cutter.cut(word)
        pieces = graphemes(word) if self.settings["level"] == "grapheme" else [word]
        marked = ["<" * (i == 0 and self.settings["level"] == "grapheme") + piece for i, piece in enumerate(pieces)]
        return [1 + bucket(piece, self.settings["buckets"] - 1) for piece in marked]

    def tokenise(self, texts: Sequence[str]) -> np.ndarray:
        """(n, t, 2) int32, t being the most tokens of any; `CorpusError` for an empty text."""
        split = [words(text) for text in texts]
        if not all(split):
            raise CorpusError(f"text {split.index([]) + 1} of {len(split)} is empty; drop it")
        rows = [[(piece, number) for number, word in enumerate(row, 1) for piece in self._ids(word)] for row in split]
        rows = [row[: self.settings["longest"]] for row in rows]
        packed = np.zeros((len(rows), max(map(len, rows)), 2), np.int32)
        for filled, row in zip(packed, rows, strict=True):
            filled[: len(row)] = row
        return packed

    def words_of(self, inputs: np.ndarray) -> np.ndarray:
        """The number of the word that each token belongs to, (n, t), from 0; -1 where there is none."""
        return inputs[..., 1] - 1

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = inputs[..., 0], inputs[..., 1] > 0
        x = self.table(ids * mask) + self.place[:, : ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) * mask[..., None]
        return masked_mean(x, mask), x, mask


TOWERS: dict[str, type[nn.Module]] = {tower.__name__: tower for tower in (TinyViT, TinyText, MultiLevelText)}


def digest(tower: nn.Module) -> str:
    """SHA-256 over names and values of all weights."""
    total = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
