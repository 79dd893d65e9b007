"""Text files as they are found: which files of a source there are, and their lines and records.

`sources.csv` has a row per layout of a source: its reader, its folder in the data root, its files (a pattern over their paths
that names `lang`, `split` and the `other` language of a pair), and the columns of its tables; where a source is published in
several layouts, each is a `version`, the one to prefer first. Compressed by gzip or not, with a
byte-order mark, CRLF or no last newline: all are read alike, as NFC. A line ends at LF only: `str.splitlines` cuts at
U+2028, U+0085 and form feeds too, which stand inside real sentences, and each cut would shift every later line against
its translation.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import unicodedata
import warnings
import zlib
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pandas as pd

from xmalign_lab import languages as codes
from xmalign_lab import profile
from xmalign_lab.corpus import Corpus, CorpusError

Root = str | Path | None  # a source's own folder; None for the one in the data root
SPLITS = {"devtest": "test", "public_test": "test", "test_2016": "test", "test_2016_flickr": "test", "5000-6500": "test"}
SPLITS |= dict.fromkeys(("dev", "val", "valid", "validate"), "validation") | dict.fromkeys(("0-5000", "training"), "train")
SPLITS |= {"restval": "train"}  # Karpathy's rest of COCO's validation pictures, which all train on


class Found(NamedTuple):
    """A file of a source: its language ('' where its rows say), its split (the project's name for it, '' without one), its
    pair's other language, its version and the pattern of the files that name its pictures."""

    path: Path
    lang: str
    split: str
    other: str
    version: str
    names: str


@cache
def sources() -> dict[str, SimpleNamespace]:
    """The first row of `sources.csv` of each name, with all of them as its `layouts`."""
    found = {}
    for row in profile.csv_rows(Path(__file__).with_name("sources.csv")):
        found.setdefault(row["name"], SimpleNamespace(**row, layouts=[])).layouts.append(row)
    return found


def text(path: Path) -> str:
    """The whole file as NFC. Raises `CorpusError` naming the line that is not UTF-8, or why the file cannot be read."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        data = data.removeprefix(codecs.BOM_UTF8)
        return unicodedata.normalize("NFC", data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or f"perhaps truncated ({error})"
        raise CorpusError(f"{path}: cannot be read, {why}") from None


def lines(path: Path) -> list[str]:
    """The lines of a file without their ends; a missing last newline adds and loses none."""
    found = text(path).split("\n")
    return [line.removesuffix("\r") for line in (found if found[-1] else found[:-1])]


def records(path: Path, delimiter: str, columns: Collection[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """Records of a CSV or TSV with a header, each with the line it starts on; a quoted cell may hold line breaks.

    Raises `CorpusError` for one of `columns` that is missing, a name that occurs twice, another number of cells than the
    header's, a stray quote.
    """
    reader, header, start = csv.reader(io.StringIO(text(path)), delimiter=delimiter, strict=True), None, 1
    try:
        for cells in reader:
            if header is None:
                header = [name.strip() for name in cells]
                if twice := sorted({name for name in header if header.count(name) > 1}):
                    raise CorpusError(f"{path}, line 1: column {twice[0]!r} occurs twice")
                if wrong := [column for column in columns if column not in header]:
                    raise CorpusError(f"{path}, line 1: needs one column {wrong[0]!r}; it has {', '.join(header)}")
            elif cells and len(cells) != len(header):
                raise CorpusError(f"{path}, line {start}: {len(cells)} cells where the header has {len(header)}; quote cells")
            elif delimiter == "\t" and any("\t" in cell and "\n" in cell for cell in cells):
                raise CorpusError(f"{path}, line {start}: a quote that opens here swallows the next records; double or drop it")
            elif cells:
                yield start, dict(zip(header, cells, strict=True))
            start = reader.line_num + 1
        if header is None:
            raise CorpusError(f"{path}: the file is empty; its first line names the columns")
    except csv.Error as error:
        raise CorpusError(f"{path}, line {start}: a quote opens or closes in the wrong place ({error})") from None


def corpus(name: str, rows: list[tuple]) -> Corpus:
    """The corpus of rows `(path, line), id, group, lang, text, kind, split, labels`; a line is a number or 'entry 5'.

    Rows without text are left out, so that the others keep their groups, and a warning says where they are.
    """
    columns = ["where", "id", "group", "lang", "text", "kind", "split", "labels"]
    table = pd.DataFrame(rows, columns=columns).assign(source=name, text=lambda table: table.text.str.strip())
    blank = [f"{path}, {f'line {at}' if isinstance(at, int) else at}" for path, at in table["where"][table.text == ""]]
    if blank:
        warnings.warn(f"{name}: {len(blank)} row(s) without text left out: {'; '.join(blank[:5])}", stacklevel=3)
    return Corpus(table[table.text != ""], name=name)


def files(name: str, root: Root = None, strict: bool = False) -> list[Found]:
    """The files of a source under `root`, by default its folder in the data root; those of unknown languages if `strict`.

    Only then are they an error: a source may know languages that the project does not, if nobody asks for them.
    """
    found, where = [], place(name, root)
    for path, part in matching(where, sources()[name].layouts):
        try:
            lang, other = (part[side] and codes.normalise(part[side]) for side in ("lang", "other"))
            found.append(Found(path, lang, SPLITS.get(part["split"], part["split"]), other, part["version"], part["names"]))
        except ValueError as error:
            if strict:
                raise CorpusError(f"{path}: {error}; or leave it out: languages=[…]") from None
    return found


def place(name: str, root: Root = None) -> Path:
    """The folder of a source: `root`, by default its own in the data root."""
    return Path(root or profile.data_root() / sources()[name].folder)


def matching(where: Path, layouts: list[dict[str, str]]) -> Iterator[tuple[Path, dict[str, str]]]:
    """Each file under `where` that a layout's pattern takes, with the layout's columns and what the pattern names."""
    for path in sorted(where.rglob("*")):
        for layout in layouts:
            if match := re.fullmatch(layout["files"] + r"(?:\.gz)?", path.relative_to(where).as_posix()):
                yield path, layout | {part: said for part, said in match.groupdict().items() if said is not None}
                break


def choose(name: str, languages: list[str] | None, split: str | None, root: Root, pair: bool = False) -> list[Found]:
    """The files of `languages` (default: all) and `split`: of a source of pairs, both sides of the languages' pairs.

    With `pair`, those from the first language into the second. Raises `CorpusError` for a source, a language or a split that
    is not there, `ValueError` for an unknown language.
    """
    from xmalign_lab.corpora import cards

    there, split = files(name, root, strict=languages is None), SPLITS.get(split, split)
    if not there:
        raise CorpusError(f"{place(name, root)} holds no files of {name}; {cards().get(name, {}).get('get')}")
    wanted = None if languages is None else [codes.normalise(code) for code in languages]
    kept = [file for file in there if wanted is None or (file.other or file.lang) in ("", *wanted)]
    chosen = [file for file in kept if split in (None, file.split) and not (pair and file.lang != wanted[1])]
    lacking = [code for code in wanted or () if not any(code in file or not file.lang for file in chosen)]
    if lacking or not chosen:
        listed = ", ".join(sorted({" – ".join(filter(None, (file.other, file.lang))) for file in there}))
        splits = ", ".join(sorted({repr(file.split) for file in there}))
        asked = f"no {' – '.join(lacking) or 'file'}" + (f" in split {split!r}" if split else "")
        raise CorpusError(f"{name}: {asked}; there are {listed}; splits are {splits}")
    return chosen
