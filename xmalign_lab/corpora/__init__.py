"""Corpora by name: `load("scenes")`, `load("emoji", ["eng_Latn", "swh_Latn"])`, `load("sib200", ["swh_Latn"], "test")`.

`scenes` needs nothing, `emoji` is fetched once, `table` is your own, the others are read where you put them. A card
`data/NAME.toml` says of each where it comes from, under which licence, and whether its reader has met the true files.
"""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

from xmalign_lab import languages as codes
from xmalign_lab import profile
from xmalign_lab.corpora.lines import Root, files, sources
from xmalign_lab.corpus import Corpus, CorpusError

READERS = {"scenes": "scenes.load", "emoji": "emoji.load", "table": "tables.load_table"}


def load(name: str, languages: list[str] | None = None, split: str | None = None, root: Root = None, **options) -> Corpus:
    """The corpus `name`, restricted to `languages` and to a `split`; `options` go to its reader.

    `root` is the source's own folder (for emoji the data root), by default the one that `available` shows. Raises
    `CorpusError` for an unknown name, for data that are not there (saying how to get them) and for bad rows.
    """
    readers = READERS | {name: source.reader for name, source in sources().items()}
    if name not in readers:
        raise CorpusError(f"unknown corpus {name!r}; known are {', '.join(readers)}")
    if readers[name].startswith("lexicons."):
        raise CorpusError(f"{name!r} holds words, no corpus; read it by {readers[name]}({name!r}, 'eng_Latn', 'deu_Latn')")
    if name == "table" and "path" not in options:
        raise CorpusError("a table is a file of yours: load('table', path='mine.csv', images='pictures/')")
    module, function = readers[name].split(".")
    read = getattr(import_module(f"xmalign_lab.corpora.{module}"), function)
    if name not in READERS:
        return read(name, languages, split, root, **options)
    corpus = read(*{"scenes": [languages], "emoji": [languages, root], "table": []}[name], **options)
    if name == "table" and languages is not None:
        corpus = corpus.where_rows(lang=["", *(codes.normalise(code) for code in languages)])
    if split is not None and split not in set(corpus.rows.split):
        raise CorpusError(f"{name} has no rows in split {split!r}; corpus.split_by_family makes splits")
    return corpus if split is None else corpus.where_rows(split=split)


def best(languages: list[str] | None = None, root: Root = None) -> Corpus:
    """The emoji corpus if its data are here, else the procedural scenes."""
    from xmalign_lab.corpora import emoji

    if emoji.missing(root):
        return load("scenes", languages)
    return load("emoji", languages, root=root)


def available(root: Root = None):
    """A table `name, present, how`: what can be loaded now, and how to get what cannot; `root` is the data root."""
    import pandas as pd

    from xmalign_lab.corpora import emoji

    lacking = emoji.missing(root)
    rows = [
        ("scenes", True, "made on the spot"),
        ("emoji", not lacking, f"{lacking}; run: xmalign fetch emoji" if lacking else str(emoji.folder(root))),
        ("table", True, 'your own: load("table", path="mine.csv", images="pictures/")'),
    ]
    how = {name: card["get"] for name, card in cards().items()}
    for name, source in sources().items():
        folder = Path(root or profile.data_root()) / source.folder
        rows.append((name, True, str(folder)) if files(name, folder) else (name, False, how.get(name, "")))
    return pd.DataFrame(rows, columns=["name", "present", "how"])


def fetch(name: str, openmoji: bool = False) -> Path:
    """Fetch emoji, or a source whose card has a `url` and its `sha256`, unless it is there; return its folder.

    Raises `CorpusError` that says how to get it by hand for any other, and what `archives.fetch` raises.
    """
    from xmalign_lab.corpora import archives, emoji

    if name == "emoji":
        return emoji.fetch(openmoji=openmoji)
    card, folder = cards()[name], profile.data_root() / getattr(sources().get(name), "folder", name)
    if name in sources() and files(name):
        return folder
    if not {"url", "sha256"} <= set(card):
        raise CorpusError(f"{name} is not fetched for you; {card['get']}")
    return archives.fetch(card["url"], card["sha256"], folder)


def cards() -> dict[str, dict]:
    """The cards `data/NAME.toml` by name: title, licence, attribution, citation, packages, checksums, seen_real."""
    found = {}
    for path in sorted((profile.repository() / "data").glob("*.toml")):
        with open(path, "rb") as file:
            found[path.stem] = tomllib.load(file)
    return found
