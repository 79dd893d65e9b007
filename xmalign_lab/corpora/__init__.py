"""Corpora by name: `load("scenes")`, `load("emoji", ["eng_Latn", "swh_Latn"])`, `load("table", path="mine.csv")`.

`scenes` needs nothing, `emoji` is fetched once, `table` is your own. A card `data/NAME.toml` says of each where it
comes from, under which licence, and whether its reader has met the true files.
"""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

from xmalign_lab import languages as codes
from xmalign_lab import profile
from xmalign_lab.corpus import Corpus, CorpusError

READERS = {"scenes": "scenes.load", "emoji": "emoji.load", "table": "tables.load_table"}


def load(name: str, languages: list[str] | None = None, root: str | Path | None = None, **options) -> Corpus:
    """The corpus `name`, restricted to `languages`; `options` go to its reader.

    Raises `CorpusError` for an unknown name, for data that are not there (saying how to fetch them) and for bad rows.
    """
    if name not in READERS:
        raise CorpusError(f"unknown corpus {name!r}; known are {', '.join(READERS)}")
    module, function = READERS[name].split(".")
    read = getattr(import_module(f"xmalign_lab.corpora.{module}"), function)
    if name == "emoji":
        return read(languages, root, **options)
    if name == "scenes":
        return read(languages, **options)
    corpus = read(**options)
    if languages is None:
        return corpus
    return corpus.where_rows(lang=["", *(codes.normalise(code) for code in languages)])


def best(languages: list[str] | None = None, root: str | Path | None = None) -> Corpus:
    """The emoji corpus if its data are here, else the procedural scenes."""
    from xmalign_lab.corpora import emoji

    if emoji.missing(root):
        return load("scenes", languages)
    return load("emoji", languages, root)


def available(root: str | Path | None = None):
    """A table `name, present, how`: what can be loaded now, and the command that fetches what cannot."""
    import pandas as pd

    from xmalign_lab.corpora import emoji

    lacking = emoji.missing(root)
    rows = [
        ("scenes", True, "made on the spot"),
        ("emoji", not lacking, f"{lacking}; run: xmalign fetch emoji" if lacking else str(emoji.folder(root))),
        ("table", True, 'your own: load("table", path="mine.csv", images="pictures/")'),
    ]
    return pd.DataFrame(rows, columns=["name", "present", "how"])


def cards() -> dict[str, dict]:
    """The cards `data/NAME.toml` by name: title, licence, attribution, citation, packages, checksums, seen_real."""
    found = {}
    for path in sorted((profile.repository() / "data").glob("*.toml")):
        with open(path, "rb") as file:
            found[path.stem] = tomllib.load(file)
    return found
