"""Your own table (CSV, TSV, JSONL, Parquet) and a folder of pictures as a corpus.

Long format, a row per picture or text: `id, group, lang, text, image`; a row with text *and* image counts as one of each.
`family`, `kind`, `source` and `split` are taken where present, any other column becomes a label. Nothing is skipped: a row
that cannot be used is an error that names the file and the line (as an editor counts, so the header of a CSV is line 1).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from xmalign_lab import languages as codes
from xmalign_lab.corpora.lines import lines, records
from xmalign_lab.corpus import COLUMNS, Corpus, CorpusError, normalise, read_image, unpaired_groups

KNOWN = tuple(column for column in COLUMNS if column not in ("modality", "labels"))
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def load_table(
    path: str | Path,
    images: str | Path | None = None,
    columns: dict[str, str] | None = None,
    allow_unpaired: bool = False,
    verify: bool = True,
) -> Corpus:
    """Read a table; `images` is the folder that its `image` column starts from (default: the table's own).

    `columns` renames yours to ours, `{"caption": "text"}`; with `id` absent, rows are numbered. `verify` decodes every
    picture once. A group whose rows have nothing to pair with is an error unless `allow_unpaired`.
    Raises `CorpusError` naming file, row, and what would be accepted.
    """
    path = Path(path)
    table, row_of = _read(path)
    if images is not None and not Path(images).is_dir():
        raise CorpusError(f"{images}: no such folder of pictures")
    if table.empty:
        raise CorpusError(f"{path}: the table has no rows")
    table = table.rename(columns=columns or {})
    lacking = "group" if "group" not in table else "" if {"text", "image"} & set(table) else "text"
    if lacking:
        have = ", ".join(map(str, table.columns))
        raise CorpusError(
            f"{path}: column {lacking!r} is missing; it has {have}; rename yours with columns={{'yours': {lacking!r}}}"
        )

    def complain(bad: pd.Series, what: str | Callable[[int], str]) -> None:
        places = [place for place, wrong in enumerate(bad) if wrong]
        if places:
            said = what if isinstance(what, str) else what(places[0])
            more = f" (and {len(places) - 1} more: {', '.join(row_of[p] for p in places[1:6])})" if len(places) > 1 else ""
            raise CorpusError(f"{path}, {row_of[places[0]]}: {said}{more}")

    if "id" not in table:
        table["id"] = list(row_of)
    for column in table.columns.intersection(["id", "group", "lang", "text", "image"]):
        complain(~table[column].map(pd.api.types.is_scalar), f"{column!r} holds several values; make a row of each")
    for column in ("id", "group"):
        table[column] = _as_text(table, column)
        complain(table[column].str.strip() == "", f"{column!r} is empty; every row needs one")
    table = table.assign(**{column: _as_text(table, column) for column in ("lang", "text", "image")})
    complain(table.id.duplicated(), lambda p: f"id {table.id[p]!r} occurs twice; ids must be unique")
    blank, pictured = table.text.map(normalise) == "", table.image != ""
    complain(blank & ~pictured, "neither a text nor an image; an empty caption teaches nothing: fill it or delete the row")
    complain(~blank & (table.lang == ""), "the text has no language; give a code such as 'swh_Latn' in the column 'lang'")
    table["lang"] = _languages(table.lang, complain)
    folder = Path(images) if images is not None else path.parent
    table["image"] = [str(folder / name) if name else "" for name in table.image]
    if verify:
        _verify(table, complain)
    corpus = Corpus(_long(table, blank, pictured), name=path.stem, where=str(path))
    alone = [] if allow_unpaired else unpaired_groups(corpus)
    listed = ", ".join(alone[:5]) + (" …" if len(alone) > 5 else "")
    said = f"{len(alone)} group(s) have a single row and nothing to pair it with: {listed}; allow_unpaired=True keeps them"
    complain(table.group.isin(alone), said)
    return corpus


def places(path: str | Path) -> dict[str, str]:
    """`{row id: where it stands}`, 'line 7' as an editor counts, for the ids that `load_table` gives the rows of a table."""
    table, row_of = _read(Path(path))
    ids = table.id.astype(object).astype(str) if "id" in table else row_of
    return {row_id + part: row for row_id, row in zip(ids, row_of, strict=True) for part in (":image", ":text", "")}


def _read(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table, and for each row where a reader finds it: 'line 7' as an editor counts, in Parquet 'row 7'."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise CorpusError(f"{path}: {'a folder; name the table in it' if path.is_dir() else 'no such file'}")
    if suffix not in SUFFIXES:
        raise CorpusError(f"{path}: a table is one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path).reset_index(drop=True)
            return table, [f"row {number + 1}" for number in range(len(table))]
        rows = dict(_json_lines(path) if suffix == ".jsonl" else records(path, "," if suffix == ".csv" else "\t"))
    except (ValueError, OSError) as error:
        if isinstance(error, CorpusError):
            raise
        raise CorpusError(f"{path}: not a readable {suffix[1:]} table ({error})") from None
    return pd.DataFrame(list(rows.values())), [f"line {line}" for line in rows]


def _json_lines(path: Path):
    for line, text in enumerate(lines(path), 1):
        if text.strip():
            try:
                row = json.loads(text)
            except ValueError as error:
                raise CorpusError(f"{path}, line {line}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise CorpusError(f"{path}, line {line}: a row is an object such as {{'id': 1, 'group': 'dog', …}}")
            yield line, row


def _as_text(table: pd.DataFrame, column: str) -> pd.Series:
    """A column as strings, '' where it is absent or has no value; of languages and images without white space around it."""
    if column not in table:
        return pd.Series("", index=table.index, dtype=object)
    cells = table[column].astype(object).where(table[column].notna(), "").astype(str).astype(object)
    return cells.str.strip() if column in ("lang", "image") else cells


def _languages(lang: pd.Series, complain) -> pd.Series:
    """Every code as the project writes it; complain of the first row whose code is unknown."""
    as_ours = {"": ""}
    for code in lang.unique():
        if code:
            try:
                as_ours[code] = codes.normalise(code)
            except ValueError as error:
                complain(lang == code, str(error))
    return lang.map(as_ours)


def _verify(table: pd.DataFrame, complain) -> None:
    """Decode every picture once, with progress; complain of the first row whose picture cannot be read."""
    from tqdm.auto import tqdm

    wrong = {}
    for path in tqdm(sorted(set(table.image) - {""}), desc="checking pictures", disable=None):
        try:
            read_image(path)
        except CorpusError as error:
            wrong[path] = str(error)
    complain(table.image.isin(wrong), lambda p: wrong[table.image[p]])


def _long(table: pd.DataFrame, blank: pd.Series, pictured: pd.Series) -> pd.DataFrame:
    """One row per picture and one per text; where a row has both, the ids end in ':image' and ':text'."""
    extra = [column for column in table if column not in KNOWN]
    table = table.assign(labels=[dict(zip(extra, values, strict=True)) for values in table[extra].itertuples(index=False)])
    kinds = table.kind if "kind" in table else pd.Series("", index=table.index)
    both = pictured & ~blank
    shown = table.assign(text="", lang="", modality="image", kind="picture", id=table.id.where(~both, table.id + ":image"))
    written = table.assign(
        image="", modality="text", kind=kinds.where(kinds != "", "caption"), id=table.id.where(~both, table.id + ":text")
    )
    return pd.concat([shown[pictured], written[~blank]], ignore_index=True)
