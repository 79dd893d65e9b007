"""Words: bilingual dictionaries, sentences whose words are aligned by hand, and static word vectors."""

from __future__ import annotations

import gzip
import re
import unicodedata
import warnings
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from xmalign_lab.corpora.lines import Root, choose, lines, sources
from xmalign_lab.corpus import CorpusError

LINK = re.compile(r"(\d+)([-p])(\d+)")


class AlignedSentence(NamedTuple):
    """A sentence pair with gold links `(i, j)` between word i of `source` and word j of `target`, both counted from 0.

    `sure` ⊆ `possible` (Och and Ney, 2003, "A Systematic Comparison of Various Statistical Alignment Models").
    """

    source: list[str]
    target: list[str]
    sure: set[tuple[int, int]]
    possible: set[tuple[int, int]]


def load(name: str, source: str, target: str, split: str | None = None, root: Root = None) -> pd.DataFrame:
    """The dictionary `name` from one language into another, as `read_lexicon` gives it.

    `split` is needed where there are several: MUSE's 'train' and 'test' ('' is the full one), xling_eval's
    'train.freq.5k' and 'test.freq.2k'. Raises `CorpusError` listing what is there if the choice is none or not unique.
    """
    return read_lexicon(_one(name, source, target, split, root, "load"))


def read_lexicon(path: str | Path) -> pd.DataFrame:
    """A dictionary file as a table `source, target`, one row per translation: a word may have several.

    A line is `word<TAB>translation`, or, in a file without any tab, as some of MUSE's, two words with spaces between them.
    `attrs` counts what was skipped: `empty` lines that lack a side (where others have a tab, those without one), and
    `repeated` pairs. Raises `CorpusError` for other lines.
    """
    path, pairs, empty, repeated = Path(path), {}, 0, 0
    found = lines(path)
    tabs = any("\t" in line for line in found)
    for number, line in enumerate(found, 1):
        cells = line.split("\t") if tabs else _words(line)
        if len(cells) != 2 and line.strip() and not (tabs and len(cells) == 1):
            raise CorpusError(f"{path}, line {number}: {len(cells)} cells; a line is a word, a tab and its translation")
        pair = tuple(cell.strip() for cell in cells)
        if len(pair) != 2 or not all(pair):
            empty += 1
        elif pairs.setdefault(pair, number) != number:
            repeated += 1
    table = pd.DataFrame(list(pairs), columns=["source", "target"], dtype=object)
    table.attrs.update(path=str(path), empty=empty, repeated=repeated)
    return table


def _words(line: str) -> list[str]:
    """What stands between spaces. Not `str.split()`: a no-break space belongs to its word, and every cut shifts the links."""
    return [word for word in line.split(" ") if word]


def translations(lexicon: pd.DataFrame) -> dict[str, list[str]]:
    """`{word: its translations}`, in the order of the dictionary."""
    return lexicon.groupby("source", sort=False).target.agg(list).to_dict()


def load_alignments(name: str, source: str, target: str, split: str | None = None, root: Root = None) -> list[AlignedSentence]:
    """The sentences of 'xlwa' (splits train, validation, test) or 'awesome' (one set per pair), aligned by hand."""
    path = _one(name, source, target, split, root, "load_alignments")
    return read_alignments(path) if name == "xlwa" else read_alignments(path, path.with_suffix(".gold"), first=1)


def read_alignments(path: str | Path, gold: str | Path | None = None, first: int = 0) -> list[AlignedSentence]:
    """Word alignments: lines `source<TAB>target<TAB>links`; with a `gold` file, lines `source ||| target` and their links.

    A link is `i-j` if sure and `ipj` if only possible, and the first word has the number `first`. Raises `CorpusError`
    naming file and line for other links, a link beyond the sentence, a missing column, files of different length.
    """
    path, found = Path(path), []
    said, links = lines(path), lines(Path(gold)) if gold else []
    if gold and len(said) != len(links):
        raise CorpusError(f"{gold}, line {min(len(said), len(links)) + 1}: {len(links)} lines where {path} has {len(said)}")
    for number, line in enumerate(said, 1):
        parts = line.split("|||" if gold else "\t")
        cells = [*parts, links[number - 1]] if gold else [*parts[:3], *filter(None, parts[3:])]
        if len(cells) != 3:
            raise CorpusError(f"{path}, line {number}: {len(cells)} cells; a line has a source, a target and their links")
        source, target, where = _words(cells[0]), _words(cells[1]), f"{gold or path}, line {number}"
        by_kind = {"-": set(), "p": set()}
        for link in _words(cells[2]):
            match = LINK.fullmatch(link)
            if not match:
                raise CorpusError(f"{where}: {link!r} is no link; a link is 3-4, or 3p4 if only possible")
            i, j = int(match[1]) - first, int(match[3]) - first
            if not (0 <= i < len(source) and 0 <= j < len(target)):
                sizes = f"{len(source)} and {len(target)} words, the first with number {first}"
                raise CorpusError(f"{where}: link {link} points beyond the sentence of {sizes}")
            by_kind[match[2]].add((i, j))
        found.append(AlignedSentence(source, target, by_kind["-"], by_kind["-"] | by_kind["p"]))
    return found


def _one(name: str, source: str, target: str, split: str | None, root: Root, reader: str) -> Path:
    """The one file from `source` into `target` of a source that `reader` reads."""
    known = [listed for listed, row in sources().items() if row.reader == f"lexicons.{reader}"]
    if name not in known:
        raise CorpusError(f"{reader} does not know {name!r}; known are {', '.join(known)}")
    chosen = choose(name, [source, target], split, root, pair=True)
    if len(chosen) > 1:
        splits = [file.split for file in chosen]
        raise CorpusError(f"{name}: {len(chosen)} files from {source} into {target}; say which with split=, one of {splits}")
    return chosen[0].path


def read_vec(path: str | Path, limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """Static word vectors from fastText's text format, gzip or not: n words and their vectors, (n, d) float32.

    The first line is `n d`; each other one a word, which may hold spaces, and d numbers. `limit` takes the first lines
    only: files are sorted by frequency. A word that occurs again keeps its first vector; a warning counts them. Raises
    `CorpusError` naming the line for one of another length, no finite number, fewer or more vectors than the first line says.
    """
    path, rows, again, number = Path(path), {}, 0, 1
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        head = file.readline().split()
        if len(head) != 2 or not all(part.isdigit() for part in head):
            raise CorpusError(f"{path}, line 1: fastText's text format starts with the number of words and of dimensions")
        count, size = map(int, head)
        for number, line in enumerate(islice(file, limit), 2):
            word, row = _entry(line, size, f"{path}, line {number}")
            again += word in rows
            rows.setdefault(word, row)
    if number - 1 != (count if limit is None else min(count, limit)):
        raise CorpusError(f"{path}, line {number}: the file ends here, but its first line says {count} words")
    if again:
        warnings.warn(f"{path}: {again} word(s) occurred again; the first vector of each is kept", stacklevel=2)
    return list(rows), np.array(list(rows.values()), np.float32).reshape(-1, size)


def _entry(line: bytes, size: int, where: str) -> tuple[str, np.ndarray]:
    """A word and its `size` numbers; the word may hold spaces, so the numbers are taken from the end."""
    word, *numbers = line.rstrip(b" \r\n").rsplit(b" ", size)
    try:
        row = np.array(numbers, np.float32)
    except ValueError as error:
        raise CorpusError(f"{where}: {error}") from None
    if len(row) != size or not np.isfinite(row).all():
        raise CorpusError(f"{where}: a word and {size} finite numbers are wanted")
    return unicodedata.normalize("NFC", word.decode(errors="replace")), row
