"""Small towers from scratch: a vision transformer and a text transformer, to train end to end or to stand in a test.

Both modules take tensors and return one vector per row and one per token; `TinyImageEncoder` and `TinyTextEncoder`
put a module, with random or with trained weights, behind the protocol of the other encoders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import bucket, graphemes, opened, pixels, rows_of, words
from xmalign_lab.encoders.features import Features


def block(width: int, heads: int) -> nn.Module:
    """One pre-norm transformer layer (Xiong et al. 2020, arXiv 2002.04745) over tokens (b, t, width)."""
    return nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)


class TinyViT(nn.Module):
    """Pictures (b, 4, size, size) in [0, 1], RGB on white and alpha → vectors (b, width), patches (b, t, width).

    t = (size / patch)². `pool` is "mean" over patches or "cls", an extra first token. Dosovitskiy et al. 2021
    (arXiv 2010.11929). `seed` fixes the initial weights without touching torch's global generator.
    """

    def __init__(self, size=48, patch=8, width=96, depth=4, heads=4, pool="mean", seed=0):
        if size % patch or width % heads or pool not in ("mean", "cls"):
            raise ValueError(
                f"size {size} in patches of {patch}, width {width} in {heads} heads, pool {pool!r}: must divide; mean or cls"
            )
        super().__init__()
        self.settings = dict(size=size, patch=patch, width=width, depth=depth, heads=heads, pool=pool, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.patches = nn.Conv2d(4, width, patch, patch)
            self.extra = nn.Parameter(torch.randn(1, int(pool == "cls"), width) * 0.02)
            self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2 + int(pool == "cls"), width) * 0.02)
            self.blocks = nn.ModuleList(block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patches(pictures * 2 - 1).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1) + self.place
        for layer in self.blocks:
            x = layer(x)
        x = self.norm(x)
        if self.settings["pool"] == "cls":
            return x[:, 0], x[:, 1:]
        return x.mean(1), x


class TinyText(nn.Module):
    """Token ids (b, t), 0 is padding, and mask (b, t) → vectors (b, width), tokens (b, t, width).

    `level` is "word" or "grapheme". Tokens are hashed into `buckets` rows, as in `ClassicText`: no vocabulary has to be built
    or kept, and every language has one. Longer texts are cut after `longest` tokens. The vector is the mean over
    tokens that are not padding.
    """

    def __init__(self, level="grapheme", buckets=4096, longest=96, width=96, depth=4, heads=4, seed=0):
        if level not in ("word", "grapheme") or width % heads:
            raise ValueError(f"level {level!r} must be word or grapheme, and heads {heads} must divide width {width}")
        super().__init__()
        self.settings = dict(level=level, buckets=buckets, longest=longest, width=width, depth=depth, heads=heads, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.table = nn.Embedding(buckets, width, padding_idx=0)
            nn.init.normal_(self.table.weight, std=0.02)  # the size of the places, or word order would drown
            self.place = nn.Parameter(torch.randn(1, longest, width) * 0.02)
            self.blocks = nn.ModuleList(block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def tokenise(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids (b, t) int64, mask (b, t) bool and the number of the word each token belongs to (b, t), -1 for padding.

        Graphemes that begin a word are told from the others by a mark, so no token is spent on spaces.
        """
        split = [words(text) for text in texts]
        if not all(split):
            raise CorpusError(f"text {split.index([]) + 1} of {len(split)} is empty; drop it")
        if self.settings["level"] == "word":
            pieces = [[(word, number) for number, word in enumerate(row)] for row in split]
        else:
            marked = [[graphemes(word) for word in row] for row in split]
            pieces = [[("<" * (i == 0) + g, n) for n, word in enumerate(row) for i, g in enumerate(word)] for row in marked]
        pieces = [row[: self.settings["longest"]] for row in pieces]
        ids = torch.zeros(len(texts), max(map(len, pieces)), dtype=torch.int64)
        of_word = torch.full_like(ids, -1)
        for i, row in enumerate(pieces):
            ids[i, : len(row)] = torch.tensor([1 + bucket(piece, self.settings["buckets"] - 1) for piece, _ in row])
            of_word[i, : len(row)] = torch.tensor([number for _, number in row])
        return ids, of_word >= 0, of_word

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.table(ids) + self.place[:, : ids.shape[1]]
        for layer in self.blocks:
            x = layer(x, src_key_padding_mask=~mask)
        x = self.norm(x) * mask[..., None]
        return x.sum(1) / mask.sum(1, keepdim=True), x


def digest(tower: nn.Module) -> str:
    """SHA-256 over names and values of all weights."""
    total = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class _Tower:
    """A tower, with random or with trained weights, behind the protocol of the other encoders."""

    tower: TinyViT | TinyText
    tokens: bool = False
    batch: int = 256

    VERSION = 2

    def spec(self) -> dict:
        kind = {"encoder": type(self).__name__, "version": self.VERSION, "tokens": self.tokens}
        return kind | {"settings": self.tower.settings, "weights": digest(self.tower)}

    @torch.no_grad()
    def _run(self, inputs: Callable[[slice], tuple[Tensor, ...]], n: int, progress: bool) -> tuple[np.ndarray, list[np.ndarray]]:
        """The tower over batches of n rows, in evaluation mode; vectors (n, width), and tokens per batch if asked for."""
        was_training, device = self.tower.training, next(self.tower.parameters()).device
        vectors, tokens = [], []
        self.tower.eval()
        try:
            for start in tqdm(range(0, n, self.batch), desc=self.modality, disable=not progress, delay=2):
                vector, token = self.tower(*(part.to(device) for part in inputs(slice(start, start + self.batch))))
                vectors.append(vector.float().cpu().numpy())
                tokens += [token.float().cpu().numpy()] if self.tokens else []
        finally:
            self.tower.train(was_training)
        return np.concatenate(vectors), tokens


class TinyImageEncoder(_Tower):
    """A `TinyViT` as an encoder; `tokens=True` keeps the patch vectors too."""

    modality = "image"

    def encode(self, corpus: Corpus, progress: bool = True) -> Features:
        rows, size = rows_of(corpus, self.modality), self.tower.settings["size"]

        def inputs(part: slice) -> tuple[Tensor]:
            pictures = np.stack([pixels(opened(corpus, row_id), size) for row_id in rows.id.iloc[part]])
            return (torch.from_numpy(pictures).permute(0, 3, 1, 2),)

        vectors, patches = self._run(inputs, len(rows), progress)
        return Features(rows.id.to_numpy(), vectors, np.concatenate(patches) if self.tokens else None, shown=list(rows.image))


class TinyTextEncoder(_Tower):
    """A `TinyText` as an encoder; `tokens=True` keeps the token vectors, their mask and their words."""

    modality = "text"

    def encode(self, corpus: Corpus, progress: bool = True) -> Features:
        rows = rows_of(corpus, self.modality)
        ids, mask, of_word = self.tower.tokenise(list(rows.text))
        vectors, parts = self._run(lambda part: (ids[part], mask[part]), len(rows), progress)
        if not self.tokens:
            return Features(rows.id.to_numpy(), vectors, shown=list(rows.text))
        return Features(rows.id.to_numpy(), vectors, np.concatenate(parts), mask.numpy(), of_word.numpy(), shown=list(rows.text))
