"""Text at several levels at once: characters, subwords, words and the sentence, and a gate that weighs them for each text.

Rare forms are known by their letters, frequent ones as a whole; which level says most differs from language to language,
and the gates show it. An implementation of our own of multi-level text embeddings with gated fusion: character n-grams
after Bojanowski et al. 2017 (arXiv 1607.04606), or a small transformer over letters (after Clark et al. 2022, arXiv
2103.06874); the sentence by a transformer over words (Vaswani et al. 2017, arXiv 1706.03762).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, gelu, scaled_dot_product_attention

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.classic import ClassicText, bucket, graphemes, words
from xmalign_lab.encoders.subwords import Subwords

LEVELS = ("characters", "subwords", "words", "sentence")
PIECES, LETTERS = 8, 40  # subwords and n-grams (or letters) of a word that are kept; few words in any language have more
MIX = 0x9E3779B97F4A7C15 - 2**64  # an odd number whose powers spread over 64 bits


class Block(nn.Module):
    """One pre-norm transformer layer (Xiong et al. 2020, arXiv 2002.04745) over tokens (b, t, width), mask (b, t) or None.

        y = x + attention(norm x);  z = y + W₂ gelu(W₁ norm y)

    No token looks at a masked one; each row needs one that is not. Half as fast again on a CPU as torch's own layer.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look, self.seen = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, t, width = x.shape
        query, key, value = self.look(self.before(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, None if mask is None else mask[:, None, None])
        x = x + self.seen(seen.transpose(1, 2).reshape(b, t, width))
        return x + self.down(gelu(self.up(self.between(x))))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean (b, width) over the tokens of x (b, t, width) where mask (b, t) holds."""
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def table(rows: int, width: int) -> nn.Embedding:
    """An embedding whose row 0 is padding; its start has the size of the places, or the order would drown."""
    embedding = nn.Embedding(rows, width, padding_idx=0)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding


class MultiLevelText(nn.Module):
    """Texts (b, t, k) int32 → vectors (b, width), tokens (b, t, width) and mask (b, t), one token per word.

    `levels` switches any of `LEVELS` on; "sentence" needs another beside it. Each level ℓ gives a word i a vector x_ℓi:
    the mean over its n-grams (`letters="grams"`, of `grams` graphemes, hashed into `buckets`) or the mean over its letters
    after `letters="transformer"`; the mean over its subwords (`subwords`: pieces of a `Subwords`, trained on training texts);
    a row of its own, hashed; and what a transformer over the mean of these makes of it, in `depth` layers. A text's
    pooled vector is v_ℓ = mean_i x_ℓi, and the gate weighs the levels:

        g = softmax(W [v_1 … v_L] + b),  vector = Σ_ℓ g_ℓ v_ℓ,  token i = Σ_ℓ g_ℓ x_ℓi

    W and b start at zero. `seed` fixes the initial weights without touching torch's global generator. With `weights`, a file that
    `mlm.save` has written or a folder that holds one such file, the tower starts from these; they are no part of `settings`,
    as a saved tower brings its own. Raises `CorpusError` where there is no such file or its tower was made otherwise.
    The packing: row i of a text is its i-th word; column 0 its hashed id, 0 where there is no word, and then nothing else
    of the row is looked at; after it, where these levels are on, PIECES columns of subword ids and LETTERS of n-grams
    or letters, in this order, 0 where there are no more. What is longer is cut, and so are texts after `longest` words.
    """

    def __init__(
        self,
        levels: Sequence[str] = ("characters", "words", "sentence"),
        width: int = 96,
        depth: int = 2,
        heads: int = 4,
        buckets: int = 2**14,
        grams: Sequence[int] = (2, 4),
        letters: str = "grams",
        longest: int = 64,
        subwords: Sequence[str] = (),
        seed: int = 0,
        weights: str | Path = "",
    ):
        if not set(levels) <= set(LEVELS) or not set(levels) - {"sentence"} or letters not in ("grams", "transformer"):
            raise ValueError(
                f"levels {levels}: known are {LEVELS}, one of the first three at least; letters {letters!r}: grams or transformer"
            )
        if width % heads or ("subwords" in levels and not subwords):
            raise ValueError(f"width {width} must divide by {heads} heads, and the level subwords needs a Subwords's pieces")
        super().__init__()
        self.settings = dict(
            levels=[level for level in LEVELS if level in levels], width=width, depth=depth, heads=heads, buckets=buckets,
            grams=list(grams), letters=letters, longest=longest, subwords=list(subwords), seed=seed,
        )  # fmt: skip
        self.levels = self.settings["levels"]
        self.cutter = Subwords(subwords) if "subwords" in levels else None
        self.grams = ClassicText(characters=tuple(grams), words=False)
        self.columns, end = {"words": slice(0, 1)}, 1
        for level, size in (("subwords", PIECES), ("characters", LETTERS)):
            if level in levels:
                self.columns[level] = slice(end, end + size)
                end += size
        rows = {"characters": buckets, "words": buckets, "subwords": len(self.cutter or ())}
        of_letters = depth * (letters == "transformer" and "characters" in levels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tables = nn.ModuleDict({level: table(rows[level], width) for level in self.levels if level != "sentence"})
            self.letters = nn.ModuleList(Block(width, heads) for _ in range(of_letters))
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth * ("sentence" in levels)))
            self.places = nn.Parameter(torch.randn(2, max(longest, LETTERS), width) * 0.02)  # of words, of letters
        self.norms = nn.ModuleDict({level: nn.LayerNorm(width) for level in self.levels})
        self.gate = nn.Linear(len(self.levels) * width, len(self.levels))
        nn.init.zeros_(self.gate.weight), nn.init.zeros_(self.gate.bias)
        self.register_buffer("mix", torch.tensor(MIX).pow(torch.arange(end) + 1), persistent=False)
        if weights:
            self._start_from(Path(weights))

    def _start_from(self, path: Path) -> None:
        """Seeds may differ, nothing else: of other heads, or of other subwords, the weights would fit and mean nothing."""
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if len(files) != 1:
            raise CorpusError(f"weights {path}: the folder holds {len(files)} safetensors files; name the one that is meant")
        try:
            with safe_open(files[0], "pt") as file:
                made = json.loads((file.metadata() or {}).get("settings", "{}"))
                state = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise CorpusError(f"weights {files[0]}: {error}; give a file that mlm.save has written") from None
        differ = [name for name in self.settings if name != "seed" and made.get(name) != self.settings[name]]
        if differ:
            raise CorpusError(f"weights {files[0]}: of a tower with another {', '.join(differ)}; make the settings alike")
        self.load_state_dict(state)

    def tokenise(self, texts: Sequence[str]) -> np.ndarray:
        """The packed texts (n, t, k) int32, t being the most words of any; `CorpusError` for an empty text."""
        split = [words(text)[: self.settings["longest"]] for text in texts]
        if not all(split):
            raise CorpusError(f"text {split.index([]) + 1} of {len(split)} is empty; drop it")
        known = {word: self._packed(word) for word in {word for row in split for word in row}}
        packed = np.zeros((len(split), max(map(len, split)), len(self.mix)), np.int32)
        for row, of in zip(packed, split, strict=True):
            row[: len(of)] = [known[word] for word in of]
        return packed

    def hide(self, inputs: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The packed texts with the empty word, which no text holds, at `mask` (n, t): nothing tells which words these were."""
        return np.where(mask[..., None], self._packed(""), inputs)

    def _packed(self, word: str) -> np.ndarray:
        row, buckets = np.zeros(len(self.mix), np.int32), self.settings["buckets"] - 1
        pieces = (graphemes(word) if len(self.letters) else self.grams.grams(word)) or [""]
        ids = {"words": [1 + bucket(f"[{word}]", buckets)], "characters": [1 + bucket(piece, buckets) for piece in pieces]}
        ids["subwords"] = self.cutter.cut(word) if self.cutter else []
        for level, columns in self.columns.items():
            found = ids[level][: columns.stop - columns.start]
            row[columns.start : columns.start + len(found)] = found
        return row

    def words_of(self, inputs: np.ndarray) -> np.ndarray:
        """The number of the word that each token belongs to, (n, t), from 0: its place; -1 where there is none."""
        return np.where(inputs[..., 0] > 0, np.arange(inputs.shape[1]), -1)

    def at_levels(self, inputs: Tensor) -> tuple[dict[str, tuple[Tensor, Tensor]], Tensor]:
        """`{level: (tokens (b, t, width), pooled (b, width))}`, zero where masked, and mask (b, t)."""
        mask = inputs[..., 0] > 0
        key, of = torch.unique((inputs[mask] * self.mix).sum(1), return_inverse=True)  # each distinct word once
        distinct = inputs.new_zeros(len(key), inputs.shape[2]).index_copy_(0, of, inputs[mask])
        found = {}
        for level in self.tables:
            x = self.norms[level](self._of_words(level, distinct[:, self.columns[level]]))
            found[level] = x.new_zeros(*mask.shape, x.shape[1]).masked_scatter(mask[..., None], x.index_select(0, of))
        if "sentence" in self.levels:
            x = sum(found.values()) / len(found) + self.places[0, : mask.shape[1]]
            for block in self.blocks:
                x = block(x, mask)
            found["sentence"] = self.norms["sentence"](x) * mask[..., None]
        return {level: (x, masked_mean(x, mask)) for level, x in found.items()}, mask

    def _of_words(self, level: str, ids: Tensor) -> Tensor:
        """The vectors (u, width) of words by their ids (u, columns) at one level."""
        weight = self.tables[level].weight
        if level != "characters" or not len(self.letters):
            return embedding_bag(ids, weight, mode="mean", padding_idx=0)
        mask = ids > 0
        mask = mask[:, : int(mask.any(0).sum())]  # letters stand at the front: up to the end of the longest word
        x = weight[ids[:, : mask.shape[1]].long()] + self.places[1, : mask.shape[1]]
        for block in self.letters:
            x = block(x, mask)
        return masked_mean(x, mask)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found, mask = self.at_levels(inputs)
        pooled = torch.stack([v for _, v in found.values()], 1)
        gates = self.gate(pooled.flatten(1)).softmax(1)
        tokens = sum(gate[:, None, None] * x for gate, (x, _) in zip(gates.T, found.values(), strict=True))
        return (gates[..., None] * pooled).sum(1), tokens, mask

    @torch.no_grad()
    def gates(self, texts: Sequence[str]) -> np.ndarray:
        """What each level weighs in each text, (n, levels), rows summing to 1; the columns are `levels`."""
        found, _ = self.at_levels(torch.from_numpy(self.tokenise(texts)).to(self.mix.device))
        return self.gate(torch.cat([v for _, v in found.values()], 1)).softmax(1).cpu().numpy()
