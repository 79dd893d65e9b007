"""Wrong pairs on purpose, with the truth known: what a filter of pairs is tried on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from xmalign_lab.corpus import Corpus, CorpusError, Pairs


def shuffle(
    pairs: Pairs, corpus: Corpus, fraction: float, seed: int = 0, sources: Iterable[str] | None = None
) -> tuple[Pairs, np.ndarray]:
    """Give a `fraction` of the families the text of another: `(pairs, truth)`, truth (n,) bool, False where it is wrong.

    In each language on the right of the relations `sources` (default: all) the chosen families hand their text round in
    one circle, so that none keeps its own. A family's whole text, names, keywords and variants, moves together: were only
    names moved, the keywords, which often repeat the name, would give the right answer away. The left side stays. A pair
    that the move makes a second time is dropped. Fewer than two chosen families leave everything as it is.

    Raises `ValueError` for a fraction outside [0, 1] or an unknown source, `CorpusError` for a right side that is no text.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], not {fraction}")
    sources = pairs.sources if sources is None else list(sources)
    if unknown := set(sources) - set(pairs.sources):
        raise ValueError(f"no pairs of source {sorted(unknown)[0]!r}; sources are {', '.join(pairs.sources)}")
    rows = pairs.rows.copy()
    meant = corpus.rows.set_index("id").loc[rows.right[rows.source.isin(sources)].unique()]
    if (meant.modality != "text").any():
        raise CorpusError(f"{corpus.name}: the right side {meant.index[meant.modality != 'text'][0]!r} is no text to shuffle")
    moved: dict[str, str] = {}
    for lang, texts in meant.groupby("lang"):
        moved |= _moved(texts, fraction, np.random.default_rng([seed, *lang.encode()]))
    wrong = (rows.source.isin(sources) & rows.right.isin(moved)).to_numpy()
    rows["right"] = rows.right.where(~wrong, rows.right.map(moved))
    kept = ~rows.duplicated(["left", "right", "source"]).to_numpy()
    return Pairs(rows[kept]), ~wrong[kept]


def _moved(texts: pd.DataFrame, fraction: float, rng: np.random.Generator) -> dict[str, str]:
    """`{row id: the id whose text it gets}` for the rows of one language: same kind where the other family has it."""
    families = {family: rows.sort_values(["group", "kind"]) for family, rows in texts.groupby("family", sort=True)}
    chosen = rng.permutation(np.array(list(families), object))[: round(fraction * len(families))]
    if len(chosen) < 2:
        return {}
    found = {}
    for giver, taker in zip(chosen, np.roll(chosen, 1), strict=True):
        place = {group: number for number, group in enumerate(families[taker].group.unique())}
        for row in families[taker].itertuples():
            same = families[giver][families[giver].kind == row.kind].index
            options = same if len(same) else families[giver].index
            found[row.Index] = options[place[row.group] % len(options)]
    return found
