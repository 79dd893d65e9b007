"""How a pretrained tower reads texts: the tokenizer told each text's language, and what it makes of a language, counted."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from xmalign_lab import languages
from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.checkpoint import encoded
from xmalign_lab.encoders.classic import rows_of
from xmalign_lab.encoders.features import Features

TOLD = ("m2m_100", "mbart")  # kinds of model that read a language token with each text
MOSTLY = 0.5  # from this share of unknown pieces on, a language is warned about


class Reader:
    """A tokenizer for texts of one language at a time, which it is told whenever it wants to know.

    NLLB, M2M100 and mBART read a text after a token for its language. `src_lang` is set before every batch, never
    `set_src_lang_special_tokens`, which open_clip's `set_language` calls: transformers goes back to `src_lang` in each call,
    so that all would be read as English, and nothing would be said. `instead` is the language to tell for one that the
    tower does not know, and under "" for texts that carry none: {"que_Latn": "quy_Latn", "": "swh_Latn"}.

    `limit` is the number of pieces a tower takes, those that the tokenizer adds included.
    """

    def __init__(self, tokenizer, limit: int, kind: str, name: str, instead: Mapping[str, str], read: Callable | None = None):
        self.tokenizer, self.limit, self.name, self.instead = tokenizer, limit, name, dict(instead)
        self.read, self.padding = read or self._read, "max_length" if kind.startswith("siglip") else True  # trained on padding
        self.codes = _codes(tokenizer) if hasattr(type(tokenizer), "src_lang") else {}
        if kind in TOLD and not self.codes:
            raise CorpusError(f"{name}: its tokenizer cannot be told a language, which a {kind} reads; save it by its own class")

    def __call__(self, texts: Sequence[str], lang: str):
        """What `read` returns, for texts in one language."""
        if self.codes:
            self.tokenizer.src_lang = self.told(lang)
        return self.read(texts)

    def _read(self, texts: Sequence[str]):
        return self.tokenizer(texts, padding=self.padding, truncation=True, max_length=self.limit, return_tensors="pt")

    def told(self, lang: str) -> str:
        """The tokenizer's own code for a language, '' if it wants none; `CorpusError` if it knows none for it."""
        code = self.instead.get(lang, lang)
        if not self.codes or code in self.codes or code[:8] in self.codes:  # without the region
            return self.codes.get(code) or self.codes.get(code[:8], "")
        near = difflib.get_close_matches(code, self.codes, 3, 0.5) or [*self.codes][:3]
        raise CorpusError(
            f"{self.name} is told the language of each text, and knows no {lang!r}; give instead={{{lang!r}: CODE}} "
            f"with one of its {len(self.codes)} codes, such as {' or '.join(near)}"
        )

    def parts(self, rows: pd.DataFrame) -> tuple[list[np.ndarray], pd.DataFrame]:
        """Row numbers in parts, the longest first (memory fails soon or never), and the table of `unknown_share`.

        A part holds the rows of one language where the tower is told it, else there is one part.
        """
        told, texts = rows.lang.map(self.told).to_numpy(), [*map(getattr(self.read, "clean_fn", str), rows.text)]
        if hasattr(self.tokenizer, "num_special_tokens_to_add"):
            pieces = self.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
            added = self.tokenizer.num_special_tokens_to_add()
        else:  # open_clip's own
            pieces, added = [self.tokenizer.encode(text) for text in texts], 2
        lengths, unknown = np.array([len(row) for row in pieces]), getattr(self.tokenizer, "unk_token_id", None)
        counts = {"texts": 1, "pieces": lengths, "unknown": [row.count(unknown) for row in pieces]}
        table = rows[["lang"]].assign(**counts, cut=lengths > self.limit - added).groupby("lang").sum()
        order = np.argsort(-lengths, kind="stable")
        parts = [order[told[order] == code] for code in dict.fromkeys(told)]
        return parts, table.assign(unknown=table.unknown / table.pieces.clip(lower=1)).reset_index()

    def say(self, table: pd.DataFrame) -> None:
        """What a reader of the vectors should know: a warning for unknown languages, a line for texts that are cut."""
        for row in table.itertuples():
            lang = row.lang or "texts without a language"
            if row.unknown >= MOSTLY:
                warnings.warn(f"{self.name}: {row.unknown:.0%} of the pieces of {lang} are unknown to it", stacklevel=3)
            if row.cut:
                long = f"{row.cut:,} of {row.texts:,} texts in {lang}"
                print(f"{self.name}: {long} are longer than its {self.limit} pieces and were cut")


def _codes(tokenizer) -> dict[str, str]:
    """The project's code of each language that the tokenizer can be told, with the tokenizer's own."""
    known = [*(getattr(tokenizer, "lang_code_to_id", None) or map(str, tokenizer.extra_special_tokens))]
    codes = {code: code for code in known if languages.known(code)}
    for code in known:
        try:
            codes.setdefault(languages.normalise(code)[:8], code)  # mBART writes sw_KE
        except ValueError:
            continue  # a special token that names no language, or a language outside the table
    return codes


class TextTower:
    """Encodes texts by a subclass's `reader`, its `forward`, batch of the reader → `Output`, and its `batch_size`."""

    modality = "text"

    def unknown_share(self, corpus: Corpus | Sequence[str]) -> pd.DataFrame:
        """A row per language: `texts`, `pieces`, the share of `unknown` pieces, and how many texts are `cut` for length."""
        return self.reader.parts(rows_of(corpus, self.modality))[1]

    def encode(self, corpus: Corpus | Sequence[str], progress: bool = True) -> Features:
        """Features of the text rows, or of a plain list of texts. What is longer than the tower reads is cut, and said.

        Batches are of texts of like length. One that the memory does not hold is halved, and so are those after it.
        """
        rows = rows_of(corpus, self.modality)
        parts, table = self.reader.parts(rows)
        self.reader.say(table)

        def run(part: np.ndarray):
            return self.forward(self.reader(rows.text.iloc[part].tolist(), rows.lang.iloc[part[0]]))

        return encoded(rows.id, list(rows.text), run, parts, self.batch_size, progress)
