"""Wrong pairs on purpose, with the truth known: what a filter of pairs is tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from xmalign_lab import similarity
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.static import leading

TRANSLATION = {"copied": 0.38, "hub": 0.0, "truncated": 0.20, "wrong sense": 0.42}
"""How the errors of one real machine translation, English to Chinese video captions, divide: `bench/mt_noise.py` counts them."""


class _Text(NamedTuple):
    id: str
    group: str
    kind: str


Families = Mapping[str, list[_Text]]
Plan = Callable[[pd.DataFrame, Families, np.ndarray, np.random.Generator], dict[str, str]]


def shuffle(
    pairs: Pairs,
    corpus: Corpus,
    fraction: float,
    seed: int = 0,
    sources: Iterable[str] | None = None,
    givers: Mapping[str, str] | None = None,
    part: str = "family",
) -> tuple[Pairs, np.ndarray]:
    """Give a `fraction` of the families the text of another: `(pairs, truth)`, truth (n,) bool, False where it is wrong.

    In each language on the right of the relations `sources` (default: all) the chosen families hand their text round in
    one circle, so that none keeps its own; or each takes that of its family in `givers` (`nearest_families`: wrong but
    similar). A family's whole text, names, keywords and variants, moves together: were only names moved, the keywords,
    which often repeat the name, would give the right answer away. The left side stays. A pair that the move makes a
    second time is dropped. Fewer than two chosen families leave everything as it is. A weaker dial moves a `part` of each
    chosen family only: "keywords", so that its names stay right, or "half" of its texts at random (of a single one, none).

    Raises `ValueError` for a fraction outside [0, 1], an unknown source or part, `CorpusError` for a right side that is no text.
    """
    if part not in ("family", "keywords", "half"):
        raise ValueError(f"unknown part {part!r}; known are 'family', 'keywords' and 'half'")

    def plan(texts: pd.DataFrame, families: Families, chosen: np.ndarray, rng: np.random.Generator) -> dict[str, str]:
        circle = dict(zip(chosen, np.roll(chosen, 1), strict=True))
        giver_of = circle if givers is None else {f: givers.get(f, f) for f in chosen}
        moved = _texts_of(families, {taker: giver for taker, giver in giver_of.items() if giver in families and giver != taker})
        if part == "half":
            texts = texts.sort_index().groupby("family").sample(frac=0.5, random_state=rng)
        return {text: moved[text] for text in texts.index[(texts.kind == part) | (part != "keywords")] if text in moved}

    return _applied(pairs, corpus, plan, fraction, seed, sources)


def translate_badly(
    pairs: Pairs,
    corpus: Corpus,
    fraction: float,
    givers: Mapping[str, str],
    seed: int = 0,
    sources: Iterable[str] | None = None,
    shares: Mapping[str, float] = TRANSLATION,
) -> tuple[Pairs, np.ndarray]:
    """Errors as machine translation makes them, in a `fraction` of the families; returns and errors as `shuffle`.

    `shares` divides the chosen families: *copied* (the source text stands where its translation should), *hub* (all get
    one same family's text), *truncated* (the name alone stands where the keywords should; its pair counts as true),
    *wrong sense* (the text of the family in `givers`).
    """
    english = {}
    for left, right in zip(pairs.rows.left, pairs.rows.right, strict=True):
        english.setdefault(right, left)

    def plan(texts: pd.DataFrame, families: Families, chosen: np.ndarray, rng: np.random.Generator) -> dict[str, str]:
        cuts = np.cumsum(list(shares.values())) / sum(shares.values()) * len(chosen)
        part = dict(zip(shares, np.split(chosen, np.round(cuts[:-1]).astype(int)), strict=True))
        hub = rng.choice(sorted(families))
        moved = {text.id: english[text.id] for family in part["copied"] for text in families[family] if text.id in english}
        moved |= _texts_of(families, {family: hub for family in part["hub"] if family != hub})
        moved |= _texts_of(families, {f: givers[f] for f in part["wrong sense"] if givers.get(f, f) in set(families) - {f}})
        for family in part["truncated"]:
            names = {text.group: text.id for text in families[family] if text.kind == "name"}
            keywords = [text for text in families[family] if text.kind == "keywords" and text.group in names]
            moved |= {text.id: names[text.group] for text in keywords}
        return moved

    return _applied(pairs, corpus, plan, fraction, seed, sources)


def nearest_families(corpus: Corpus, features: Features, lang: str, dim: int = 64) -> dict[str, str]:
    """For each family of `corpus` the one whose texts in `lang` are most like its own: `{family: family}`, never itself.

    By the cosine of the families' mean text vectors, sparse ones reduced to `dim` singular directions.
    """
    rows = corpus.where_rows(modality="text", lang=lang).rows
    names, of_row = np.unique(rows.family.astype(str), return_inverse=True)
    table = features.take(rows.id)
    vectors = leading(table, table, dim)[0]
    means = np.zeros((len(names), vectors.shape[1]))  # fewer rows than directions have fewer
    np.add.at(means, of_row, vectors)
    means = similarity.unit(means)
    near = similarity.top_k(means, means, 2)[1]
    other = np.where(near[:, 0] == np.arange(len(names)), near[:, 1], near[:, 0])
    return dict(zip(names, names[other], strict=True))


def _applied(pairs: Pairs, corpus: Corpus, plan: Plan, fraction: float, seed: int, sources) -> tuple[Pairs, np.ndarray]:
    """Replace right ids by `plan`'s, language by language, for a `fraction` of the families; true stays what keeps its group."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], not {fraction}")
    sources = pairs.sources if sources is None else list(sources)
    if unknown := set(sources) - set(pairs.sources):
        raise ValueError(f"no pairs of source {sorted(unknown)[0]!r}; sources are {', '.join(pairs.sources)}")
    rows = pairs.rows.copy()
    texts = corpus.rows.set_index("id")
    meant = texts.loc[rows.right[rows.source.isin(sources)].unique()]
    if (meant.modality != "text").any():
        raise CorpusError(f"{corpus.name}: the right side {meant.index[meant.modality != 'text'][0]!r} is no text to shuffle")
    moved: dict[str, str] = {}
    for lang, of_lang in meant.groupby("lang"):
        rng, families = np.random.default_rng([seed, *lang.encode()]), _families(of_lang)
        chosen = rng.permutation(np.array(list(families), object))[: round(fraction * len(families))]
        if len(chosen) > 1:
            moved |= plan(of_lang, families, chosen, rng)
    touched = (rows.source.isin(sources) & rows.right.isin(moved)).to_numpy()
    before = rows.right
    rows["right"] = rows.right.where(~touched, rows.right.map(moved))
    same = (texts.group.loc[before].to_numpy() == texts.group.loc[rows.right].to_numpy()) & (
        texts.lang.loc[before].to_numpy() == texts.lang.loc[rows.right].to_numpy()
    )
    kept = ~rows.duplicated(["left", "right", "source"]).to_numpy()
    return Pairs(rows[kept]), (~touched | same)[kept]


def _families(texts: pd.DataFrame) -> Families:
    """The texts of one language by family."""
    families: dict[str, list[_Text]] = {}
    rows = texts.sort_values(["family", "group", "kind"])
    for family, *text in zip(rows.family, rows.index, rows.group, rows.kind, strict=True):
        families.setdefault(family, []).append(_Text(*text))
    return families


def _texts_of(families: Families, giver_of: Mapping[str, str]) -> dict[str, str]:
    """`{row id: the id whose text it gets}`: of the same kind where the giving family has it."""
    found = {}
    for taker, giver in giver_of.items():
        place = {group: number for number, group in enumerate(dict.fromkeys(text.group for text in families[taker]))}
        for text in families[taker]:
            options = [other.id for other in families[giver] if other.kind == text.kind]
            options = options or [other.id for other in families[giver]]
            found[text.id] = options[place[text.group] % len(options)]
    return found
