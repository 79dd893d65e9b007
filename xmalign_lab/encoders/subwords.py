"""Subwords: byte-pair encoding over graphemes, trained on the training texts of all languages.

Sennrich et al. 2016 (arXiv 1508.07909). A piece is a run of whole graphemes of one word, so that no vowel sign is ever cut
off its consonant; a piece at the beginning of a word carries the mark `▁`. Training takes the package `tokenizers`; cutting
does not. The same texts give the same pieces, which that package's trainer of unigram vocabularies does not promise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.classic import graphemes, words

BEGINNING = "▁"
UNKNOWN = 1  # the id of a grapheme that no training text held; 0 is padding, pieces begin at 2
PRIVATE = 0xF0000  # where one character stands for a grapheme of several while the vocabulary is trained


class Subwords:
    """A vocabulary: `pieces` is a list of strings by rank, single graphemes first, as JSON keeps it.

    Raises `ValueError` for no pieces and for a piece that occurs twice.
    """

    def __init__(self, pieces: Sequence[str]):
        self.pieces = list(pieces)
        self._rank = {piece: rank for rank, piece in enumerate(self.pieces)}
        if not self.pieces or len(self._rank) < len(self.pieces):
            raise ValueError(f"{len(self.pieces)} pieces, {len(self._rank)} of them distinct: a vocabulary names each once")
        self._cuts: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """The number of ids: padding, unknown, and the pieces."""
        return UNKNOWN + 1 + len(self.pieces)

    @classmethod
    def train(cls, texts: Mapping[str, Sequence[str]], size: int = 4000, balance: float = 0.3, seed: int = 0) -> Subwords:
        """At most `size` pieces from `{language: its training texts}`; give it no text that is ever tested on.

        Language l with n_l texts has a share proportional to n_l^balance of as many draws as there are texts in all, so that
        small languages get pieces of their own (Conneau et al. 2020, arXiv 1911.02116); no text is drawn twice before each
        of its language was once. At most half the pieces are single graphemes, the most frequent. Raises `CorpusError`
        for a language without texts, `ModuleNotFoundError` without the package `tokenizers`.
        """
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # imported late: a saved vocabulary cuts without it

        counts = np.array([len(rows) for rows in texts.values()])
        if not counts.size or not counts.all():
            raise CorpusError("subwords: a language has no texts; give {language: texts}, at least one each")
        share = counts**balance / (counts**balance).sum() * counts.sum()
        random, alphabet, drawn = np.random.default_rng(seed), {}, []
        for rows, n in zip(map(list, texts.values()), np.ceil(share).astype(int), strict=True):
            order = np.concatenate([random.permutation(len(rows)) for _ in range(math.ceil(n / len(rows)))])[:n]
            drawn += [" ".join(BEGINNING + _spelt(word, alphabet) for word in words(rows[row])) for row in order]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.BpeTrainer(vocab_size=size, limit_alphabet=size // 2, min_frequency=2, show_progress=False)
        tokenizer.train_from_iterator(drawn, trainer)
        letters = {code: letter for letter, code in alphabet.items()}
        vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
        by_rank = sorted(vocabulary, key=vocabulary.get)
        return cls(["".join(letters.get(code, code) for code in piece) for piece in by_rank])

    def cut(self, word: str) -> list[int]:
        """The ids of the pieces of one word, as `words` gives it: of all neighbours those of the lowest rank join first."""
        if word not in self._cuts:
            parts = [BEGINNING, *graphemes(word)]
            while len(parts) > 1:
                ranks = [self._rank.get(a + b, math.inf) for a, b in zip(parts, parts[1:], strict=False)]
                at = int(np.argmin(ranks))
                if ranks[at] == math.inf:
                    break
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            self._cuts[word] = [self._rank.get(part, -1) + UNKNOWN + 1 for part in parts]
        return self._cuts[word]

    def shown(self, word: str) -> list[str]:
        """The pieces of one word as strings; `?` is an unknown grapheme."""
        return ["?" if row == UNKNOWN else self.pieces[row - UNKNOWN - 1] for row in self.cut(word)]

    def unknown(self, texts: Sequence[str]) -> float:
        """The share of pieces of these texts that are unknown."""
        ids = [row for text in texts for word in words(text) for row in self.cut(word)]
        return ids.count(UNKNOWN) / max(1, len(ids))


def _spelt(word: str, alphabet: dict[str, str]) -> str:
    """The word with one character for each grapheme; `alphabet` grows by what stands for those of several characters."""
    return "".join(g if len(g) == 1 else alphabet.setdefault(g, chr(PRIVATE + len(alphabet))) for g in graphemes(word))
