"""Corpora by name: `load("scenes")`, `load("emoji", ["eng_Latn", "swh_Latn"])`, `load("sib200", ["swh_Latn"], "test")`.

`scenes` needs nothing, `emoji` is fetched once, `table` is your own, the others are read where you put them. A card
`data/NAME.toml` says of each where it comes from, under which licence, and whether its reader has met the true files.
Captioned pictures take more options, `load("xm3600", ["swh_Latn"], images="pictures/")`: see `captions.load`.
"""

from __future__ import annotations

import re
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
    """A table of the cards, `name, present, fetched, seen_real, licence, folder, how`; `root` is the data root.

    `present` says whether it can be loaded now, `fetched` whether `fetch` gets it (else you bring it, as `how` says), and
    `folder` where it lies or will lie, '' for what has no folder of its own.
    """
    import pandas as pd

    from xmalign_lab.corpora import emoji

    columns, found = ["name", "present", "fetched", "seen_real", "licence", "folder", "how"], cards(root)
    here = {name: bool(files(name, found[name]["folder"])) for name in sources()} | {"scenes": True, "table": True}
    here |= {"emoji": not emoji.missing(root), "fasttext": any(Path(found["fasttext"]["folder"]).glob("*.vec*"))}
    rows = []
    for name in dict.fromkeys([*READERS, *sources(), *found]):
        card, fetched = found[name], name == "emoji" or "url" in found[name]
        rows.append((name, here.get(name, False), fetched, card["seen_real"], card["licence"], card["folder"], card["get"]))
    return pd.DataFrame(rows, columns=columns)


def named(name: str) -> str:
    """The card that is meant, in whatever spelling: 'SIB-200', 'Tatoeba', 'flores', 'ntrex-128', a folder's name.

    Raises `CorpusError`, listing the cards, where that is none or more than one.
    """

    def plain(text: str) -> str:
        return re.sub(r"[\W_]", "", text.casefold())

    asked, known = plain(name), {plain(card): card for card in cards()}
    meant = {asked} & set(known) or {one for one in known if len(asked) > 2 and (asked in one or one in asked)}
    if len(meant) != 1:
        raise CorpusError(f"no single source is called {name!r}; there are {', '.join(cards())}")
    return known[meant.pop()]


def fetch(name: str, openmoji: bool = False) -> Path:
    """Fetch emoji, or a source whose card has a `url` and its `sha256`, unless it is there; return its folder.

    `name` as `named` takes it. Raises `CorpusError` that says how to get it by hand for any other, and what `archives.fetch`
    raises.
    """
    from xmalign_lab.corpora import archives, emoji

    name = named(name)
    if name == "emoji":
        return emoji.fetch(openmoji=openmoji)
    card, folder = cards()[name], profile.data_root() / getattr(sources().get(name), "folder", name)
    if name in sources() and files(name):
        return folder
    if not {"url", "sha256"} <= set(card):
        raise CorpusError(f"{name} is not fetched for you; {card['get']}")
    return archives.fetch(card["url"], card["sha256"], folder)


def cards(root: Root = None) -> dict[str, dict]:
    """The cards `data/NAME.toml` by name: title, licence, attribution, citation, packages, checksums, seen_real.

    `folder` is its place in the data root `root`, '' for what has none, and `get` names that place instead of `data/…`.
    """
    where, found = Path(root or profile.data_root()), {}
    for path in sorted((profile.repository() / "data").glob("*.toml")):
        card = tomllib.loads(path.read_text(encoding="utf-8"))
        place = getattr(sources().get(path.stem), "folder", card.get("folder"))
        if place:
            card |= {"folder": str(where / place), "get": card["get"].replace(f"data/{place}", str(where / place))}
        found[path.stem] = {"folder": ""} | card
    return found
