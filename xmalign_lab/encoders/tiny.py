"""Small towers from scratch: a vision transformer and a text transformer, to train end to end or to stand in a test.

Both modules take tensors and return one vector per row and one per token; `TinyImageEncoder` and `TinyTextEncoder`
put a module, with random or with trained weights, behind the protocol of the other encoders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import bucket, graphemes, opened, pixels, rows_of, words
from xmalign_lab.encoders.features import Features


class Block(nn.Module):
    """One pre-norm transformer layer (Xiong et al. 2020, arXiv 2002.04745) over tokens (b, t, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (b, t) bool: True where there is a token. A masked position gets attention weight exactly 0."""
        query, key, value = (
            self.query_key_value(self.before_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        visible = None if mask is None else mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(self.before_mlp(x))


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
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = self.patches(pictures * 2 - 1).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
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
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
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
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) * mask[..., None]
        return x.sum(1) / mask.sum(1, keepdim=True), x


TOWERS = {"TinyViT": TinyViT, "TinyText": TinyText}


def save(tower: TinyViT | TinyText, path: str | Path) -> None:
    """Weights and settings in one safetensors file; nothing is pickled."""
    about = {"tower": type(tower).__name__, "settings": json.dumps(tower.settings)}
    save_file({name: value.contiguous() for name, value in tower.state_dict().items()}, path, metadata=about)


def load(path: str | Path) -> TinyViT | TinyText:
    """The tower that `save` wrote; `CorpusError` if the file holds another kind of model."""
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise CorpusError(f"{path}: not a whole safetensors file ({error})") from None
    if about.get("tower") not in TOWERS:
        raise CorpusError(f"{path}: no tower of this library; expected {' or '.join(TOWERS)}, as `save` writes them")
    tower = TOWERS[about["tower"]](**json.loads(about["settings"]))
    tower.load_state_dict(weights)
    return tower


def digest(tower: nn.Module) -> str:
    """SHA-256 over names and values of all weights."""
    total = hashlib.sha256()
    for name, value in sorted(tower.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class TinyImageEncoder:
    """A `TinyViT` as an encoder; `tokens=True` keeps the patch vectors too."""

    tower: TinyViT
    tokens: bool = False
    batch: int = 256

    modality = "image"
    VERSION = 1

    def spec(self) -> dict:
        return _spec(self)

    def encode(self, corpus: Corpus, progress: bool = True) -> Features:
        rows, size = rows_of(corpus, self.modality), self.tower.settings["size"]

        def inputs(ids):
            pictures = np.stack([pixels(opened(corpus, row_id), size) for row_id in ids])
            return (torch.from_numpy(pictures).permute(0, 3, 1, 2),)

        vectors, patches = _run(self, inputs, list(rows.id), progress)
        return Features(rows.id.to_numpy(), vectors, np.concatenate(patches) if self.tokens else None, shown=list(rows.image))


@dataclass(frozen=True)
class TinyTextEncoder:
    """A `TinyText` as an encoder; `tokens=True` keeps the token vectors, their mask and their words."""

    tower: TinyText
    tokens: bool = False
    batch: int = 256

    modality = "text"
    VERSION = 1

    def spec(self) -> dict:
        return _spec(self)

    def encode(self, corpus: Corpus, progress: bool = True) -> Features:
        rows = rows_of(corpus, self.modality)
        ids, mask, of_word = self.tower.tokenise(list(rows.text))

        def inputs(numbers):
            part = slice(numbers[0], numbers[-1] + 1)
            longest = int(mask[part].sum(1).max())
            return ids[part, :longest], mask[part, :longest]

        vectors, parts = _run(self, inputs, range(len(rows)), progress)
        if not self.tokens:
            return Features(rows.id.to_numpy(), vectors, shown=list(rows.text))
        tokens = np.concatenate([np.pad(part, ((0, 0), (0, ids.shape[1] - part.shape[1]), (0, 0))) for part in parts])
        return Features(rows.id.to_numpy(), vectors, tokens, mask.numpy(), of_word.numpy(), shown=list(rows.text))


def _spec(encoder: TinyImageEncoder | TinyTextEncoder) -> dict:
    kind = {"encoder": type(encoder).__name__, "version": encoder.VERSION, "tokens": encoder.tokens}
    return kind | {"settings": encoder.tower.settings, "weights": digest(encoder.tower)}


@torch.no_grad()
def _run(encoder, inputs, items: Sequence, progress: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """The tower over batches of `items`, in evaluation mode; vectors (n, width), and tokens per batch if asked for."""
    tower, was_training = encoder.tower, encoder.tower.training
    device = next(tower.parameters()).device
    vectors, tokens = [], []
    tower.eval()
    try:
        for start in tqdm(range(0, len(items), encoder.batch), desc=encoder.modality, disable=not progress, delay=2):
            batch = (part.to(device) for part in inputs(items[start : start + encoder.batch]))
            vector, token = tower(*batch)
            vectors.append(vector.float().cpu().numpy())
            tokens += [token.float().cpu().numpy()] if encoder.tokens else []
    finally:
        tower.train(was_training)
    return np.concatenate(vectors), tokens
