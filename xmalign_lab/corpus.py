"""Corpus and Pairs: what there is, and what we believe is aligned.

A `Corpus` holds one example per row. Rows of one `group` mean the same thing, in whatever language or
modality; rows of one `family` are near-copies that no split may divide. `Pairs` holds row ids that we believe
belong together, with a weight: that belief is data, and everything that filters, mines or corrupts it is a
function from `Pairs` to `Pairs`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from xmalign_lab import languages

COLUMNS = ("id", "group", "family", "modality", "lang", "text", "image", "kind", "source", "split", "labels")
REQUIRED = ("id", "group")
PAIR_COLUMNS = ("left", "right", "weight", "score", "source")


class CorpusError(ValueError):
    """A row that cannot be used. The message names the file, the row, and what would be accepted."""


def read_image(reference: str) -> Image.Image:
    """Open an image file as RGBA; raise `CorpusError` with the path if it is missing, truncated or no image."""
    try:
        with Image.open(reference) as picture:
            return picture.convert("RGBA")
    except FileNotFoundError:
        raise CorpusError(f"{reference}: no such image file") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise CorpusError(f"{reference}: not a readable image, perhaps truncated ({error})") from None


@dataclass(frozen=True)
class Corpus:
    """Examples, one row each, with the columns `COLUMNS`.

    `rows` is a pandas DataFrame; missing optional columns are filled (family = group, empty strings). `name`
    stands in messages and on plots. `open_image` turns an `image` cell (a path, or `scene:<n>`) into an RGBA
    picture, and `where` names the file a message should point to.

    Raises `CorpusError` for a missing column, a duplicate id, an unknown language, an empty caption, a row
    with neither text nor image.
    """

    rows: pd.DataFrame
    name: str = "corpus"
    open_image: Callable[[str], Image.Image] = field(default=read_image, repr=False, compare=False)
    where: str = ""

    def __post_init__(self):
        object.__setattr__(self, "rows", _completed(self.rows, self.where or self.name))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        counts = self.rows.modality.value_counts()
        return (
            f"Corpus({self.name!r}: {self.rows.group.nunique():,} groups, {self.rows.family.nunique():,} families, "
            f"{counts.get('image', 0):,} images, {counts.get('text', 0):,} texts in {len(self.languages)} languages)"
        )

    @property
    def languages(self) -> list[str]:
        """Language codes that occur, sorted."""
        return sorted(set(self.rows.lang) - {""})

    @property
    def ids(self) -> np.ndarray:
        return self.rows.id.to_numpy(dtype=object)

    def where_rows(self, **conditions) -> Corpus:
        """The rows whose columns equal a value or are in a collection: `where_rows(lang="swh_Latn", kind=["name"])`."""
        keep = np.ones(len(self.rows), bool)
        for column, wanted in conditions.items():
            if column not in COLUMNS:
                raise KeyError(f"{column!r} is no column of a Corpus; columns are {', '.join(COLUMNS)}")
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            keep &= self.rows[column].isin(values).to_numpy()
        return self.select(keep)

    def select(self, mask) -> Corpus:
        """The rows where the boolean `mask` (n,) holds, in order."""
        return replace(self, rows=self.rows[np.asarray(mask, bool)])

    def lookup(self, column: str) -> dict[str, object]:
        """`{id: value}` for one column."""
        return dict(zip(self.rows.id, self.rows[column], strict=True))

    def picture(self, row_id: str) -> Image.Image:
        """The RGBA picture of an image row, by its id; `CorpusError` if it cannot be read."""
        reference = self._images.get(row_id)
        if not reference:
            raise CorpusError(f"{self.where or self.name}: row {row_id!r} has no image")
        return self.open_image(reference)

    @cached_property
    def _images(self) -> dict[str, str]:
        return self.lookup("image")


def concatenate(corpora: list[Corpus], name: str) -> Corpus:
    """One corpus of several; ids must stay unique. Pictures open with the first corpus's opener."""
    rows = pd.concat([corpus.rows for corpus in corpora], ignore_index=True)
    return replace(corpora[0], rows=rows, name=name)


def _completed(rows: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check `rows` and fill the optional columns; every message names `where` and the row."""
    missing = [column for column in REQUIRED if column not in rows]
    if missing:
        have = ", ".join(map(str, rows.columns))
        raise CorpusError(f"{where}: column {missing[0]!r} is missing; it has {have}; a corpus needs {', '.join(REQUIRED)}")
    rows = rows.reset_index(drop=True).copy()
    for column in ("text", "image", "lang", "kind", "source", "split"):
        rows[column] = rows[column].fillna("").astype(object) if column in rows else ""
    rows["id"], rows["group"] = rows.id.astype(str).astype(object), rows.group.astype(str).astype(object)
    rows["family"] = rows.family.astype(str).astype(object) if "family" in rows else rows.group
    if "modality" not in rows:
        rows["modality"] = np.where(rows.image != "", "image", "text")
    if "labels" not in rows:
        rows["labels"] = [{} for _ in range(len(rows))]
    _check(rows, where)
    return rows[list(COLUMNS)]


def _check(rows: pd.DataFrame, where: str) -> None:
    def complain(bad, what: str) -> None:
        position = np.flatnonzero(np.asarray(bad))
        if len(position):
            first = rows.iloc[position[0]]
            more = f" (and {len(position) - 1} more rows)" if len(position) > 1 else ""
            raise CorpusError(f"{where}, row {position[0] + 1}, id {first.id!r}: {what.format(**first)}{more}")

    image, text = rows.modality == "image", rows.modality == "text"
    complain(~(image | text), "modality {modality!r} is neither 'image' nor 'text'")
    complain(rows.id.duplicated(), "this id occurs twice; ids must be unique")
    complain(image & (rows.image == ""), "an image row needs a path or 'scene:<n>' in the column 'image'")
    complain(text & (rows.text.str.strip() == ""), "the text is empty or only white space; drop the row or `clean` the table")
    complain(text & (rows.lang == ""), "a text needs a language code such as 'swh_Latn'")
    for code in sorted(set(rows.lang) - {""}):
        if not languages.known(code):
            complain(rows.lang == code, f"unknown language code {{lang!r}}; {languages.suggestion(code)}")


def normalise(text: str) -> str:
    """NFC and single spaces. Never NFKC, which would fold letters that languages keep apart."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def clean(corpus: Corpus, longest: int = 512) -> tuple[Corpus, pd.DataFrame]:
    """NFC, white space, over-long texts and exact duplicates of a group, language and kind; and what was done, counted.

    Returns the cleaned corpus and a table `step, rows` (rows changed or dropped at each step).
    """
    rows, text = corpus.rows.copy(), corpus.rows.modality == "text"
    tidy = rows.text.map(normalise)
    changed = int((text & (tidy != rows.text)).sum())
    rows["text"] = tidy
    empty = text & (rows.text == "")
    too_long = text & (rows.text.str.len() > longest)
    twice = text & rows.duplicated(["group", "lang", "kind", "text", "source"])
    kept = rows[~(empty | too_long | twice)]
    counts = {
        "NFC and white space": changed,
        "empty, dropped": int(empty.sum()),
        f"longer than {longest} characters, dropped": int((too_long & ~empty).sum()),
        "duplicate, dropped": int((twice & ~empty & ~too_long).sum()),
    }
    table = pd.DataFrame({"step": list(counts), "rows": list(counts.values())})
    return replace(corpus, rows=kept), table


def hashed_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the string alone: the same on every machine, for ever."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def fold_of(family: str, folds: int = 5) -> int:
    """The fold of a family: fixed by its hash, so that every family is tested exactly once."""
    return int(hashed_fraction(f"fold {family}") * folds)


def split_by_family(corpus: Corpus, fold: int, folds: int = 5, validation: float = 0.1) -> Corpus:
    """Fill `split` with train, validation and test; a family is never divided.

    Fold `fold` is the test set; of the other families a tenth (by another hash) is validation, each in one fold at most, so
    that the validation families of all folds can be pooled.
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold must be 0 … {folds - 1}, not {fold}")

    def part(family: str) -> str:
        if fold_of(family, folds) == fold:
            return "test"
        place = hashed_fraction(f"validation {family}") * (folds - 1)  # among the folds that do not test it
        others = [other for other in range(folds) if other != fold_of(family, folds)]
        chosen = others[int(place)] == fold and place % 1 < validation * (folds - 1)
        return "validation" if chosen else "train"

    of_family = {family: part(family) for family in corpus.rows.family.unique()}
    return replace(corpus, rows=corpus.rows.assign(split=corpus.rows.family.map(of_family)))


@dataclass(frozen=True)
class Pairs:
    """What we believe is aligned: a table of row ids `left, right` with `weight` in [0, 1], `score` and `source`.

    `source` names the relation (`image-eng_Latn`, `eng_Latn-swh_Latn`): training takes one term per source.
    Raises `CorpusError` for a missing column, a weight outside [0, 1] or not a number, a pair that occurs twice.
    """

    rows: pd.DataFrame

    def __post_init__(self):
        rows = self.rows.reset_index(drop=True)
        missing = {"left", "right"} - set(rows.columns)
        if missing:
            raise CorpusError(f"pairs: column {sorted(missing)[0]!r} is missing; pairs need left and right row ids")
        for column, value in (("weight", 1.0), ("score", np.nan), ("source", "pairs")):
            if column not in rows:
                rows[column] = value
        weight = rows.weight.to_numpy(float)
        bad = np.flatnonzero(~((weight >= 0) & (weight <= 1)))
        if len(bad):
            left, right = rows.left[bad[0]], rows.right[bad[0]]
            raise CorpusError(f"pairs, row {bad[0] + 1} ({left} – {right}): weight {weight[bad[0]]} is not in [0, 1]")
        twice = np.flatnonzero(rows.duplicated(["left", "right", "source"]))
        if len(twice):
            raise CorpusError(f"pairs, row {twice[0] + 1}: {rows.left[twice[0]]} – {rows.right[twice[0]]} occurs twice")
        object.__setattr__(self, "rows", rows[list(PAIR_COLUMNS)])

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Pairs({len(self):,}: {', '.join(f'{k} {v:,}' for k, v in self.rows.source.value_counts().items())})"

    @property
    def sources(self) -> list[str]:
        """The relations, in the order in which they first occur."""
        return list(dict.fromkeys(self.rows.source))

    def assign(self, **columns) -> Pairs:
        """A copy with columns replaced, e.g. `pairs.assign(weight=w)`."""
        return Pairs(self.rows.assign(**columns))

    def select(self, mask) -> Pairs:
        """The pairs where the boolean `mask` (n,) holds."""
        return Pairs(self.rows[np.asarray(mask, bool)])

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(pd.concat([self.rows, other.rows], ignore_index=True))

    @classmethod
    def by_group(cls, corpus: Corpus, left: Mapping, right: Mapping, source: str, match: tuple[str, ...] = ()) -> Pairs:
        """Every `left` row with every `right` row of the same group (and equal columns `match`).

        `left` and `right` are conditions of `Corpus.where_rows`. Raises `CorpusError` if no pair results.
        """
        on = ["group", *match]
        a = corpus.where_rows(**left).rows[["id", *on]]
        b = corpus.where_rows(**right).rows[["id", *on]]
        both = a.merge(b, on=on, suffixes=("_left", "_right"))
        both = both[both.id_left != both.id_right]
        if both.empty:
            raise CorpusError(f"{corpus.name}: no group has both {dict(left)} and {dict(right)}")
        return cls(pd.DataFrame({"left": both.id_left, "right": both.id_right, "source": source}))

    def check(self, known_ids) -> Pairs:
        """Return self; raise `CorpusError` if a pair names an id that `known_ids` lacks."""
        known = set(known_ids)
        for side in ("left", "right"):
            for position, row_id in enumerate(self.rows[side]):
                if row_id not in known:
                    raise CorpusError(f"pairs, row {position + 1}: {side} id {row_id!r} has no features; encode its row first")
        return self


def unpaired_groups(corpus: Corpus) -> list[str]:
    """Groups with a single row: nothing in the corpus means the same, so they can teach nothing."""
    counts = corpus.rows.group.value_counts()
    return sorted(counts.index[counts == 1])
