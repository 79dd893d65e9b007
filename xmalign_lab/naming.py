"""Fifty names in your own language: which pictures to name, a sheet to write them on, and the sheet as parallel text.

A sheet is a folder with `names.csv` and its `pictures/`: open it in a spreadsheet, or fill it in the notebook
(`widgets.naming.NamingSheet`). A row without a name is not named yet.
"""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from xmalign_lab import languages
from xmalign_lab.corpora.tables import load_table
from xmalign_lab.corpus import Corpus, CorpusError, concatenate, normalise
from xmalign_lab.encoders.classic import words

COLUMNS = ["id", "group", "image", "english", "lang", "text", "kind"]
NAMES = "names.csv"


def chosen(corpus: Corpus, count: int, pivot: str = "eng_Latn", longest: int = 3) -> list[str]:
    """`count` groups to name, the most telling first: their `pivot` names are made of the words that most names share.

    Greedily, the next group is the one whose name brings the most words that none before it has, each counted by the names of
    `corpus` that hold it, over the root of the name's length. One group a family, names of at most `longest` words, no flags
    (which are called alike everywhere). The first ten are also the best ten. Hand in the training families only.
    """
    rows = corpus.where_rows(lang=pivot, kind=["name", "caption"]).rows.drop_duplicates("group")
    split = {row.group: words(row.text.casefold()) for row in rows.itertuples()}
    common = Counter(word for of in split.values() for word in set(of))
    waiting = {r.group: r.family for r in rows.itertuples() if len(split[r.group]) <= longest and not _flag(r.labels)}
    known, picked = set(), []

    def gain(group: str) -> float:
        return sum(common[word] for word in set(split[group]) - known) / len(split[group]) ** 0.5

    while waiting and len(picked) < count:
        picked.append(max(waiting, key=gain))
        known.update(split[picked[-1]])
        waiting = {group: family for group, family in waiting.items() if family != waiting[picked[-1]]}
    return picked


def _flag(labels: Mapping) -> bool:
    return labels.get("category") == "Flags"


def write_sheet(folder: str | Path, corpus: Corpus, groups: Sequence[str], lang: str, pivot: str = "eng_Latn") -> Path:
    """An empty sheet for `groups`, their pictures beside it; a sheet that is there is kept, with what was written on it.

    UTF-8 with a mark, which spreadsheets need. Raises `CorpusError` for a kept sheet of other groups or another language.
    """
    folder, lang = Path(folder), languages.normalise(lang)
    path = folder / NAMES
    if path.exists():
        there = table(path)
        if set(there.group) != set(groups) or set(there.lang) != {lang}:
            raise CorpusError(f"{path}: this sheet asks for other pictures or another language than {lang}; name another folder")
        return path
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    images = corpus.where_rows(modality="image").rows.drop_duplicates("group").set_index("group").id
    english = corpus.where_rows(lang=pivot, kind=["name", "caption"]).rows.drop_duplicates("group").set_index("group")
    rows = []
    for number, group in enumerate(groups, 1):
        corpus.picture(images[group]).save(folder / "pictures" / f"{number:03}.png")
        said, kind = english.loc[group, ["text", "kind"]]
        rows.append((f"{number:03}", group, f"pictures/{number:03}.png", said, lang, "", kind))
    _save(path, pd.DataFrame(rows, columns=COLUMNS))
    return path


def fill(path: str | Path, names: Mapping[str, str]) -> int:
    """Write `names` {group: name} on a sheet, the others stay; the number of rows that have a name now. An empty one erases."""
    sheet = table(path)
    if unknown := set(names) - set(sheet.group):
        raise CorpusError(f"{path}: {sorted(unknown)[0]!r} is not on this sheet")
    sheet["text"] = [normalise(names.get(group, text)) for group, text in zip(sheet.group, sheet.text, strict=True)]
    _save(Path(path), sheet)
    return int((sheet.text != "").sum())


def read_sheets(paths: Sequence[str | Path], corpus: Corpus) -> Corpus:
    """The names on one sheet or several, of a group of people, as text rows of `corpus`'s groups, source "sheet".

    Read by `corpora.tables`, whose errors name file and line. Two people's names of one picture both count. A sheet that a
    spreadsheet saved with semicolons or empty rows is put into its own form first. Raises `CorpusError` for a group that `corpus`
    lacks, for a name without a letter or pictograph, for a formula, and where nothing is named.
    """
    family, parts = dict(zip(corpus.rows.group, corpus.rows.family, strict=True)), []
    for number, path in enumerate(map(Path, paths), 1):
        if path.suffix.lower() == ".csv" and path.is_file():
            sheet = table(path)
            if path.read_text(encoding="utf-8-sig") != sheet.to_csv(index=False, lineterminator="\n"):
                _save(path, sheet)
        rows = load_table(path, allow_unpaired=True).where_rows(modality="text").rows
        if strange := [group for group in rows.group if group not in family]:
            raise CorpusError(f"{path}: there is no group {strange[0]!r} in {corpus.name}")
        if empty := [row for row in rows.itertuples() if not _says(row.text)]:
            raise CorpusError(
                f"{path}: {empty[0].text!r} is no name (picture {empty[0].id.removesuffix(':text')}); correct or empty it"
            )
        ids = [f"sheet {number}: {row_id.removesuffix(':text')}" for row_id in rows.id]
        parts.append(rows.assign(id=ids, family=rows.group.map(family), source="sheet"))
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if rows.empty:
        raise CorpusError(f"{', '.join(map(str, paths)) or 'no sheet'}: nothing is named yet")
    return Corpus(rows, name="sheet")


def _says(text: str) -> bool:
    return not text.startswith("=") and any(letter.isalpha() or unicodedata.category(letter) == "So" for letter in text)


def with_names(corpus: Corpus, named: Corpus, lang: str, asked: str = "test") -> Corpus:
    """`corpus`, which has its splits, with the names of `named`; of its own texts in `lang` only those of `asked` stay.

    So nothing but the sheet teaches the language, and the names in the corpus, where there are any, ask.
    """
    split = dict(zip(corpus.rows.group, corpus.rows.split, strict=True))
    rows = corpus.rows[(corpus.rows.lang != lang) | (corpus.rows.split == asked)]
    named = replace(named, rows=named.rows.assign(split=named.rows.group.map(split)))
    if (named.rows.split == asked).any():
        raise CorpusError(f"the sheet names pictures of the part {asked!r}, which must ask and not teach")
    return concatenate([replace(corpus, rows=rows), named], corpus.name)


def table(path: str | Path) -> pd.DataFrame:
    """A sheet as it is, a row per picture, '' where nothing is named yet, with commas or what else a spreadsheet writes.

    Raises `CorpusError` for a file that is no sheet, or not in UTF-8.
    """
    try:
        sheet = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False, encoding="utf-8-sig")
        return sheet[sheet[COLUMNS].group.str.strip() != ""].reset_index(drop=True)
    except (ValueError, KeyError, csv.Error):
        raise CorpusError(f"{path}: no sheet with the columns {', '.join(COLUMNS)}; save it as CSV, UTF-8") from None


def _save(path: Path, sheet: pd.DataFrame) -> None:
    part = path.with_suffix(".part")  # renamed when whole, so that a stopped kernel leaves no half sheet
    sheet.to_csv(part, index=False, encoding="utf-8-sig")
    part.replace(path)
