"""Pairs found rather than given: nearest neighbours between pools of texts (or pictures) that nobody has aligned.

Mine, train on what was found, encode again, mine again; `consistent` keeps what two rounds agree on, and as each round
mines from the pools a pair can go as it came. The first round needs a common space: from a seed dictionary, from shared
spelling, or through pictures, whose vectors `mine` takes as it takes any others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from xmalign_lab import similarity
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, hashed_fraction
from xmalign_lab.encoders.features import Features


def mine(left: Features, right: Features, source: str, margin: float = 1.0, k: int = 4, one_to_one: bool = False) -> Pairs:
    """Pairs that are each other's nearest neighbours *and* whose ratio margin reaches `margin`: weight 1, score the margin.

    margin(x, y) = cos(x, y) / (mean cosine of x to its k nearest + of y to its k nearest) · 2, Artetxe & Schwenk 2019
    (arXiv 1811.01136). Exact; it holds two copies of the vectors, k neighbours for each row and a tile per thread.
    `one_to_one` looks further than the nearest: among all k neighbours, both ways, it takes the largest margin, then the
    largest between rows still free, and so on. Greedy, because no two rows then prefer each other to what they got, and at
    least half of the greatest total is reached; the exact matching would trade good pairs away to place bad rows.

    Raises `ValueError` for unequal widths, `CorpusError`, with the largest margin there is, if nothing is found.
    """
    x, y = (similarity.unit(side.dense()) for side in (left, right))
    (forward, to_right), (backward, to_left) = similarity.top_k(x, y, k), similarity.top_k(y, x, k)
    if min(forward.shape[1], backward.shape[1]) > 1 and max(np.ptp(forward), np.ptp(backward)) <= similarity.TIE:
        raise CorpusError(f"mining {source!r}: all similarities are {forward[0, 0]:.3g}, so no neighbour is nearest")
    row, column, cosine = np.arange(len(x)), to_right[:, 0], forward[:, 0]
    if one_to_one:
        row = np.concatenate([np.repeat(row, forward.shape[1]), to_left.ravel()])
        column = np.concatenate([to_right.ravel(), np.repeat(np.arange(len(y)), backward.shape[1])])
        cosine = np.concatenate([forward.ravel(), backward.ravel()])
    ratio = cosine / np.maximum((forward.mean(1)[row] + backward.mean(1)[column]) / 2, 1e-6)
    if not one_to_one:
        ratio[to_left[column, 0] != row] = -np.inf
    good = np.flatnonzero(ratio >= margin)
    if not len(good):
        found = f"{len(x)} × {len(y)} rows: no mutual neighbours with a margin of {margin:g}; the largest is {ratio.max():.3g}"
        raise CorpusError(f"mining {source!r}, {found}")
    if one_to_one:
        good = _greedy(row, column, good[np.argsort(-ratio[good], kind="stable")])
    found = {"left": left.ids[row[good]], "right": right.ids[column[good]], "score": ratio[good].astype(float)}
    return Pairs(pd.DataFrame(found | {"source": source}))


def _greedy(row: np.ndarray, column: np.ndarray, best_first: np.ndarray) -> list[int]:
    """The edges of `best_first` whose two ends are still free when their turn comes."""
    taken_rows, taken_columns, chosen = set(), set(), []
    for edge, i, j in zip(best_first.tolist(), row[best_first].tolist(), column[best_first].tolist(), strict=True):
        if i not in taken_rows and j not in taken_columns:
            taken_rows.add(i)
            taken_columns.add(j)
            chosen.append(edge)
    return chosen


def _keys(pairs: Pairs) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(pairs.rows[["left", "right", "source"]])


def consistent(now: Pairs, before: Pairs) -> Pairs:
    """Those of `now` that were also found in the round `before` (or under another augmentation): the consistency check.

    Without it mining confirms its own mistakes. May be empty.
    """
    return now.select(_keys(now).isin(_keys(before)))


def round_report(pairs: Pairs, before: Pairs | None = None, group: Mapping | None = None, pools=None) -> dict[str, float]:
    """What a round found: `count`; `drift`, the share of the last round's pairs that are gone; `precision` and `recall`.

    `group` (`corpus.lookup("group")`) is the hidden truth: a pair is right if both sides share it. Recall is over the rows of
    the left of the two `pools` of ids whose group the right pool has. What cannot be known is NaN.
    """
    report = dict(count=len(pairs), drift=np.nan, precision=np.nan, recall=np.nan)
    if before is not None and len(before):
        report["drift"] = 1 - float(_keys(before).isin(_keys(pairs)).mean())
    right = pairs.rows[pairs.rows.left.map(group or {}) == pairs.rows.right.map(group or {})]
    if group and len(pairs):
        report["precision"] = len(right) / len(pairs)
    if group and pools:
        there = {group[row_id] for row_id in pools[1]}
        if findable := {row_id for row_id in pools[0] if group[row_id] in there}:
            report["recall"] = len(findable & set(right.left)) / len(findable)
    return report


def seed_dictionary(pairs: Pairs, corpus: Corpus, n: int, seed: int = 0) -> Pairs:
    """`n` right pairs of names per source, none of a test or validation family: the small dictionary to start mining from.

    The first n in an order fixed by `seed`, so that a smaller dictionary is part of a larger one. Raises `CorpusError` if a
    source has fewer.
    """
    group, kind, split = (corpus.lookup(column) for column in ("group", "kind", "split"))
    left, right = pairs.rows.left, pairs.rows.right
    named = (left.map(kind) == "name") & (right.map(kind) == "name") & left.map(split).isin(["train", ""])
    able = pairs.rows[named & (left.map(group) == right.map(group))]
    for source in pairs.sources:
        if (count := int((able.source == source).sum())) < n:
            raise CorpusError(f"a dictionary of {n}: source {source!r} has {count} right pairs of training names")
    order = [hashed_fraction(f"dictionary {seed} {a} {b}") for a, b in zip(able.left, able.right, strict=True)]
    return pairs.select(pairs.rows.index.isin(able.iloc[np.argsort(order)].groupby("source").head(n).index))


def shared_spelling(corpus: Corpus, a: str, b: str) -> Pairs:
    """Texts of languages `a` and `b`, of one kind, that are equal but for capitals, or hold the same numbers: a free dictionary.

    What several texts of a language share says nothing and is left out. It is often wrong: loans and false friends look
    alike, and Swahili counts the hours of a clock from sunrise, six apart from English, so that shared numbers mislead there.
    Raises `CorpusError` if there is none.
    """

    def numbers(text: str) -> str:
        return " ".join(sorted(str(int(digits)) for digits in re.findall(r"\d+", text)))

    def keyed(lang: str, key: Callable[[str], str]) -> pd.DataFrame:
        rows = corpus.where_rows(modality="text", lang=lang).rows
        rows = rows.assign(key=rows.text.map(key))[["id", "kind", "key"]]
        return rows[rows.key != ""].drop_duplicates(["kind", "key"], keep=False)

    both = pd.concat([keyed(a, key).merge(keyed(b, key), on=["kind", "key"]) for key in (str.casefold, numbers)])
    if both.empty:
        raise CorpusError(f"{corpus.name}: no text in {a!r} shares its spelling or its numbers with one in {b!r}")
    both = both.drop_duplicates(["id_x", "id_y"])
    return Pairs(pd.DataFrame({"left": both.id_x, "right": both.id_y, "source": f"{a}-{b}"}))


def overlap(corpus: Corpus, lang_a: str, lang_b: str | Sequence[str], share: float, seed: int = 0) -> Corpus:
    """The corpus with fewer texts of `lang_a` and `lang_b`, so that their pools share `share` of their concepts (families).

    Of the N families with texts in both, S keep both, U keep only the first language and U only the second. Both pools
    then hold S + U families, of which the share s = S / (S + U) is common; all are used, S + 2U = N, so S = sN / (2 - s):
    at 1 all N, at .5 a third in common and pools of 2N/3, at .1 N/19 in common and pools of 10N/19. Rounding moves s by
    less than 2/N. Several second languages share one pool, of the families that any has: with gaps, s is a little off.
    Texts of other families go; pictures and other languages stay, so hand over the training part only. Raises `ValueError`
    for a share outside [0, 1], `CorpusError` for no common family.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], not {share}")
    others = [lang_b] if isinstance(lang_b, str) else list(lang_b)
    text = corpus.rows.modality == "text"
    families = [set(corpus.rows.family[text & corpus.rows.lang.isin(langs)]) for langs in ([lang_a], others)]
    order = sorted(families[0] & families[1], key=lambda family: hashed_fraction(f"overlap {seed} {family}"))
    if not order:
        raise CorpusError(f"{corpus.name}: no family has texts in both {lang_a!r} and {' or '.join(map(repr, others))}")
    common = round(share * len(order) / (2 - share))
    cut = common + (len(order) - common + 1) // 2
    for langs, pool in (([lang_a], order[:cut]), (others, order[:common] + order[cut:])):
        corpus = corpus.select(~(text & corpus.rows.lang.isin(langs)) | corpus.rows.family.isin(pool))
        text = corpus.rows.modality == "text"
    return corpus
