"""Words: bilingual lexicon induction and word alignment. Arrays in, one row per word or sentence out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from xmalign_lab import similarity


def induction(
    source_vectors: np.ndarray,
    source_words: Sequence[str],
    target_vectors: np.ndarray,
    target_words: Sequence[str],
    gold: Mapping[str, Iterable[str]],
    csls: bool = True,
    k: tuple[int, ...] = (1, 5, 10),
) -> pd.DataFrame:
    """One row per source word of `gold`: `query` and for each k `P@k`, 1 if its best translation has a rank of at most k.

    rank = 1 + better + equal/2, counting words that are no translation: vectors that are all alike find nothing, in whatever
    order their words stand. `gold` holds each source word's translations, one or several. Vectors (n, d) and (m, d) are
    scaled to unit length here; nearest by CSLS over both whole vocabularies (10 neighbours; Conneau et al. 2018,
    arXiv 1710.04087), or by cosine. A word is *missing* if it has no vector or none of its translations has one, and left out,
    as the MUSE evaluation does. `attrs` holds how many words the gold has and how many were missing. Raises `ValueError` for a
    word twice in a vocabulary, lengths that differ, a k outside 1 … m, a text in place of a word's translations, or a gold of
    which nothing can be asked.
    """
    source_row, target_row = _rows(source_vectors, source_words, "source"), _rows(target_vectors, target_words, "target")
    if not k or min(k) < 1 or max(k) > len(target_words):
        raise ValueError(f"k is {k}; each must be from 1 to the {len(target_words)} target words")
    if texts := [word for word, known in gold.items() if isinstance(known, str)]:
        raise ValueError(f"gold: the translations of {texts[0]!r} are the text {gold[texts[0]]!r}; give a list of words")
    answers = {word: [target_row[answer] for answer in known if answer in target_row] for word, known in gold.items()}
    asked = [word for word, rows in answers.items() if rows and word in source_row]
    if not asked:
        raise ValueError(f"none of the {len(answers)} gold words has a vector on both sides; are these the same languages?")
    source, target = similarity.unit(source_vectors), similarity.unit(target_vectors)
    penalty = similarity.csls_penalty(source, target, 10) if csls else None
    # With 2k wrong words in the list, a tie that runs on beyond its end has a rank above k already.
    depth = 2 * max(k) + max(len(set(answers[word])) for word in asked)
    scores, nearest = similarity.top_k(source[[source_row[word] for word in asked]], target, depth, penalty)
    right = np.array([np.isin(row, answers[word]) for word, row in zip(asked, nearest, strict=True)])
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)  # none in the list: all of it is better
    better, level = (~right & (scores > best + similarity.TIE)).sum(1), (~right & (abs(scores - best) <= similarity.TIE)).sum(1)
    rank = 1 + better + level / 2
    table = pd.DataFrame({"query": asked, **{f"P@{n}": (rank <= n).astype(float) for n in k}})
    table.attrs = {"gold words": len(answers), "missing words": len(answers) - len(asked)}
    return table


def _rows(vectors: np.ndarray, words: Sequence[str], side: str) -> dict[str, int]:
    """The row of each word; `ValueError` for lengths that differ or a word that occurs twice."""
    if len(vectors) != len(words):
        raise ValueError(f"{side}: {len(vectors)} vectors but {len(words)} words")
    rows = {}
    for row, word in enumerate(words):
        if rows.setdefault(word, row) != row:
            raise ValueError(f"{side}: {word!r} is in rows {rows[word]} and {row} of the vocabulary; keep one")
    return rows


def align(source: np.ndarray, target: np.ndarray, method: str = "itermax", **settings: float) -> np.ndarray:
    """Pairs (p, 2) of 0-based positions: which of the source's tokens (n, d) mean which of the target's (m, d).

    `method` is a row of `ALIGNERS`, all functions of the cosines (n, m) with these settings: "argmax" (every source token
    and its nearest), "intersection" (both nearest to each other), "itermax" (alpha=.9, n_max=2) and "transport"
    (reg=.05, threshold=.5). Raises `ValueError` for an unknown method and for a sentence without tokens.
    """
    if method not in ALIGNERS:
        raise ValueError(f"unknown alignment method {method!r}; known are {', '.join(ALIGNERS)}")
    if not len(source) or not len(target):
        raise ValueError(f"{len(source)} source and {len(target)} target tokens: both sentences need one at least")
    cosines = (similarity.unit(source) @ similarity.unit(target).T).astype(np.float64)
    return np.argwhere(ALIGNERS[method](cosines, **settings))


def argmax(cosines: np.ndarray) -> np.ndarray:
    """True at every row's greatest column, (n, m); of equals the first."""
    return cosines.argmax(1)[:, None] == np.arange(cosines.shape[1])


def intersection(cosines: np.ndarray) -> np.ndarray:
    """True where a cell is the greatest of its row and of its column, (n, m)."""
    return argmax(cosines) & argmax(cosines.T).T


def itermax(cosines: np.ndarray, alpha: float = 0.9, n_max: int = 2) -> np.ndarray:
    """`intersection` repeated n_max times on what is left, so that one word can get several, (n, m).

    Jalili Sabet et al. 2020 (arXiv 2004.08728, §3.2), from the paper's procedure.
    """
    scores, found = (1 + cosines) / 2, np.zeros(cosines.shape, bool)
    for _ in range(n_max):
        # STEP 1: a cell counts fully if neither word is aligned, alpha times if one is, not at all if both are.
        aligned = found.any(1, keepdims=True).astype(int) + found.any(0, keepdims=True)
        weight = np.array([1, alpha, 0])[aligned]
        # STEP 2: add the mutual maxima of the weighted similarities, which lie in [0, 1].
        found = found | (intersection(scores * weight) & (weight > 0))
    return found


def transport(cosines: np.ndarray, reg: float = 0.05, threshold: float = 0.5) -> np.ndarray:
    """True where the entropic transport plan P carries at least `threshold` of the most it could, (n, m).

    P = argmin <P, C> - reg·H(P) with uniform marginals 1/n and 1/m (Cuturi 2013, arXiv 1306.0895; POT's Sinkhorn). C is
    1 - cosine moved and stretched to [0, 1]: tokens that share a large mean differ so little that the same `reg` would
    drown them. The most a cell can carry is min(1/n, 1/m).
    """
    import ot

    n, m = cosines.shape
    cost = (cosines.max() - cosines) / max(np.ptp(cosines), 1e-6)
    marginals = np.full(n, 1 / n), np.full(m, 1 / m)
    plan = ot.sinkhorn(*marginals, cost, reg, numItermax=10_000, stopThr=1e-4)
    return plan >= threshold * min(1 / n, 1 / m)


ALIGNERS = {"argmax": argmax, "intersection": intersection, "itermax": itermax, "transport": transport}


def alignment_counts(predicted: Sequence, sure: Sequence, possible: Sequence | None = None) -> pd.DataFrame:
    """A row per sentence: |A∩S|, |A∩P|, |A| and |S| as `hits_sure`, `hits_possible`, `predicted` and `sure`.

    Each argument holds one set of 0-based pairs, or array (p, 2), per sentence. Sure pairs are always possible ones as
    well; without `possible` there are no others. Raises `ValueError` if the arguments differ in length.
    """
    possible = sure if possible is None else possible
    if not len(predicted) == len(sure) == len(possible):
        raise ValueError(f"{len(predicted)} predicted, {len(sure)} sure and {len(possible)} possible sentences")
    rows = []
    for sets in zip(predicted, sure, possible, strict=True):
        a, s, p = ({(int(i), int(j)) for i, j in pairs} for pairs in sets)
        rows.append((len(a & s), len(a & (p | s)), len(a), len(s)))
    return pd.DataFrame(rows, columns=["hits_sure", "hits_possible", "predicted", "sure"])


def alignment_scores(counts: pd.DataFrame) -> pd.Series:
    """Precision |A∩P|/|A|, recall |A∩S|/|S|, their harmonic mean F1, and AER = 1 - (|A∩S| + |A∩P|)/(|A| + |S|).

    Of the sums over all sentences (Och & Ney 2003, Computational Linguistics 29(1)). Without a predicted pair precision and
    F1 are 0. Raises `ValueError` without a sure pair, where recall has no meaning.
    """
    total = counts.sum()
    if not total.sure:
        raise ValueError("no sentence has a sure pair, so recall and AER are not defined; is the gold 'possible' only?")
    precision, recall = total.hits_possible / max(total.predicted, 1), total.hits_sure / total.sure
    f1 = 2 * precision * recall / max(precision + recall, np.finfo(float).tiny)
    error = 1 - (total.hits_sure + total.hits_possible) / (total.predicted + total.sure)
    return pd.Series({"precision": precision, "recall": recall, "F1": f1, "AER": error})
