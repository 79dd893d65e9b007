"""How far each pair is to be believed: signals (n,), one number per pair, and their calibrated combination.

A signal is worth something only if what computed it did not train on the pair: heads memorise wrong pairs, so take an
encoder that has not seen them, cross-fit it over families, or look at the losses of the first rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import binomtest
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.preprocessing import StandardScaler

from xmalign_lab import similarity
from xmalign_lab.corpus import Corpus, Pairs
from xmalign_lab.encoders.features import Features

TAILS = (0.6, 0.7, 0.8)  # further up fewer right pairs are in the way, and fewer pairs to count
Signal, Truth = Float[np.ndarray, " n"], Bool[np.ndarray, " n"]


def similarity_of(pairs: Pairs, left: Features, right: Features) -> Signal:
    """The cosine of each pair's two vectors, (n,) in [-1, 1]; `left` and `right`, dense or both sparse, share one space.

    Raises `CorpusError` for an id without features, `ValueError` for vectors of unequal width.
    """
    if left.width != right.width:
        raise ValueError(f"left vectors of width {left.width}, right ones of {right.width}: a cosine needs one common space")
    if not len(pairs):
        return np.zeros(0)
    return 1 - paired_cosine_distances(left.take(pairs.rows.left), right.take(pairs.rows.right)).astype(float)


def ratio_of(pairs: Pairs, left: Features, right: Features, k: int = 4) -> Signal:
    """The ratio margin of each pair, (n,): its cosine over the mean cosine of both sides to their `k` nearest candidates.

    cos(x, y) / (Σ_{z ∈ NN_k(x)} cos(x, z) / 2k + Σ_{z ∈ NN_k(y)} cos(y, z) / 2k), Artetxe & Schwenk 2019 (arXiv 1811.01136).
    Candidates are all texts of the pair's own source, each once, however many pairs it has; vectors must be dense. Raises as
    `similarity_of`.
    """
    cosine, half_mean = similarity_of(pairs, left, right), np.zeros(len(pairs))
    for _, rows in pairs.rows.groupby("source"):
        (ids, of_x), (others, of_y) = (np.unique(rows[s].to_numpy(object), return_inverse=True) for s in ("left", "right"))
        x, y = similarity.unit(left.take(ids)), similarity.unit(right.take(others))
        half_mean[rows.index] = similarity.csls_penalty(y, x, k)[of_x] + similarity.csls_penalty(x, y, k)[of_y]
    return cosine / np.maximum(half_mean, 1e-6)  # a neighbourhood without any positive cosine has no scale


def agreement(signals: Mapping[str, Signal], sources: Sequence[str]) -> Signal:
    """How well the levels (characters, words, sentence …) agree that a pair is right: its mean rank over them, (n,) in (0, 1).

    a = mean over levels of (rank within the pair's source - 1/2) / (pairs of that source); equal values share their mean rank.
    Ranks make levels with different scales comparable; a pair that only one level likes stays in the middle.
    """
    table = pd.DataFrame({level: np.asarray(values, float) for level, values in signals.items()})
    by_source = table.groupby(np.asarray(sources, object))
    return ((by_source.rank() - 0.5).div(by_source.transform("size"), axis=0)).mean(axis=1).to_numpy()


def of_family(values: Signal, pairs: Pairs, corpus: Corpus) -> Signal:
    """A signal's mean over all pairs of the same source whose left rows belong to one family, (n,).

    Errors move a family's text as a whole (its name, keywords and variants), so its pairs are evidence for one another.
    """
    family = pairs.rows.left.map(corpus.lookup("family"))
    return pd.Series(np.asarray(values, float)).groupby([family, pairs.rows.source]).transform("mean").to_numpy()


def early_loss(losses: Float[np.ndarray, "rounds n"], first: int = 3) -> Signal:
    """Mean of each pair's losses in the `first` rounds, (n,): high where a pair is wrong, before the heads learn it by heart.

    Networks fit right labels before wrong ones: Arazo et al. 2019 (arXiv 1904.11238). Rounds in which a pair was not drawn
    are NaN and left out; `ValueError` if a pair has none.
    """
    losses = pd.DataFrame(np.asarray(losses, float)[:first]).mean()
    if losses.empty or losses.isna().any():
        raise ValueError(
            f"{losses.isna().sum()} of {len(losses)} pairs have no loss in the first {first} rounds; take more rounds"
        )
    return losses.to_numpy()


def calibrated(
    given: Float[np.ndarray, "n k"],
    wrong: Float[np.ndarray, "m k"],
    sources=None,
    wrong_sources=None,
    rho: Mapping[str, float] | None = None,
    least: int = 200,
) -> tuple[Signal, dict[str, float]]:
    """`(p, rho)`: the probability (n,) that each given pair is right, and by source the share that is wrong; no truth is used.

    `given` (n, k) are the pairs' signals, high where a pair looks right, `wrong` (m, k) the same signals of pairs made wrong on
    purpose (`noise.shuffle` of everything). A pair's p-value is the share of those that look better than it does: even on
    [0, 1] for the wrong ones among the given, small for the right. Then p(right) = 1 - ρ / f(p-value), one minus the local
    false discovery rate (Efron 2004, 10.1198/016214504000000089): f the density of the given p-values, never rising
    (Grenander 1956, by isotonic regression), ρ the share of them above t over 1 - t, mean over three t (Storey 2002,
    10.1111/1467-9868.00346). Several signals become one by a logistic regression of given against wrong. Right pairs that look
    like the worst of the wrong ones count as wrong.

    Each source (`sources` (n,), `wrong_sources` (m,); default one) is judged by itself, one with fewer than `least` given or
    wrong pairs together with all. A known share of wrong pairs can be given as `rho`. The wrong pairs must look like the errors
    that are there, and the signals' encoder must have trained on neither. Raises `ValueError` for shapes that do not fit, a
    signal that is not finite, or one that is the same for all.
    """
    given, wrong = (np.column_stack([values]).astype(float) for values in (given, wrong))
    sources = np.full(len(given), "pairs") if sources is None else np.asarray(sources)
    wrong_sources = np.full(len(wrong), "pairs") if wrong_sources is None else np.asarray(wrong_sources)
    if given.shape[1] != wrong.shape[1] or (len(sources), len(wrong_sources)) != (len(given), len(wrong)):
        raise ValueError(f"signals {given.shape} and {wrong.shape}, sources {len(sources)} and {len(wrong_sources)}: do not fit")
    p, found = np.ones(len(given)), {}
    for source in dict.fromkeys(sources.tolist()):
        mine, theirs = sources == source, wrong_sources == source
        few, known = min(mine.sum(), theirs.sum()) < least, (rho or {}).get(source)
        of_all, found[source] = _judged(given, wrong, known) if few else _judged(given[mine], wrong[theirs], known)
        p[mine] = of_all[mine] if few else of_all
    return p, found


def _judged(given: np.ndarray, wrong: np.ndarray, rho: float | None, bins: int = 40):
    """As `calibrated`, for one source: p (n,) and ρ."""
    signals, label = np.concatenate([given, wrong]), np.arange(len(given) + len(wrong)) < len(given)
    if not len(given) or not len(wrong) or not np.isfinite(signals).all():
        raise ValueError(f"{len(given)} given and {len(wrong)} wrong pairs: both are needed, with finite signals")
    if len(constant := np.flatnonzero(np.ptp(signals, axis=0) == 0)):
        raise ValueError(f"signal {constant[0]} is {signals[0, constant[0]]:g} for every pair: it tells nothing; leave it out")
    scaled = StandardScaler().fit_transform(signals)
    score = signals[:, 0] if signals.shape[1] == 1 else LogisticRegression().fit(scaled, label).decision_function(scaled)
    worse = np.searchsorted(np.sort(score[~label]), score[label], "left")
    p_value = 1 - (worse + 0.5) / (len(wrong) + 1)
    rho = min(1.0, np.mean([(p_value > tail).mean() / (1 - tail) for tail in TAILS])) if rho is None else rho
    density = np.histogram(p_value, bins, (0, 1))[0] * bins / len(given)
    density = np.interp(p_value, (np.arange(bins) + 0.5) / bins, isotonic_regression(density, increasing=False))
    return np.clip(1 - rho / np.maximum(density, 1e-9), 0, 1), float(rho)


def reliability(p: Signal, truth: Truth, bins: int = 10) -> pd.DataFrame:
    """A reliability diagram as a table: per bin of p with any pair `p` (mean), `right` (share), `count`, and `low`, `high`.

    `low` and `high` are Wilson's 95 % interval of the share; bins are equally wide on [0, 1].
    """
    p = np.asarray(p, float)
    table = pd.DataFrame({"p": p, "right": np.asarray(truth, bool), "count": 1})
    table = table.groupby(np.clip((p * bins).astype(int), 0, bins - 1)).agg({"p": "mean", "right": "sum", "count": "sum"})
    ends = [binomtest(*row).proportion_ci(method="wilson") for row in table[["right", "count"]].itertuples(index=False)]
    ends = pd.DataFrame(ends, table.index, ["low", "high"])
    return table.assign(right=table.right / table["count"], **ends).reset_index(drop=True)


def precision_recall(p: Signal, truth: Truth) -> pd.DataFrame:
    """`threshold, kept, precision, recall` of keeping the pairs with p ≥ threshold, for each value of p, rising.

    `kept` is a count; recall is the share of the right pairs that stay. `ValueError` if no pair is right.
    """
    p, truth = np.asarray(p, float), np.asarray(truth, bool)
    if not truth.any():
        raise ValueError(f"none of the {len(truth)} pairs is right: there is nothing to recall")
    precision, recall, threshold = precision_recall_curve(truth, p)
    kept = len(p) - np.searchsorted(np.sort(p), threshold)
    return pd.DataFrame({"threshold": threshold, "kept": kept, "precision": precision[:-1], "recall": recall[:-1]})
