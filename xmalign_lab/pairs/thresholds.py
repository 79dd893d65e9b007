"""Which pairs to keep, from how far each is believed: a fixed number, a quantile, a moving average or a mixture of two.

A fixed threshold is a number and needs no function; the others give a number per source, and `apply` takes either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import beta
from sklearn.mixture import GaussianMixture

from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.schedules import Linear, Schedule

Belief = Float[np.ndarray, " n"]
DROPPED = Linear(0.5, 0.1)


def quantile(p: Belief, sources: Sequence[str], progress: float, dropped: Schedule = DROPPED) -> dict[str, float]:
    """By source the threshold below which the share `dropped(progress)` of its pairs lies: at first the best half, later 90 %.

    Pairs equal to the threshold stay. Raises `ValueError` if the schedule leaves [0, 1): all of a source would go.
    """
    share = dropped(progress, {}, {})[0]
    if not 0 <= share < 1:
        raise ValueError(f"the dropped share is {share:g} at progress {progress:g}; it must lie in [0, 1)")
    # Not `np.quantile`, whose grid of n - 1 steps drops 4 of 10 for a half. The little more is for 0.3 · 10 = 2.999….
    return {source: float(np.sort(of)[min(int(share * len(of) + 1e-9), len(of) - 1)]) for source, of in _by_source(p, sources)}


def moving(p: Belief, sources: Sequence[str], before: Mapping[str, float] | None = None, decay: float = 0.9) -> dict[str, float]:
    """By source an exponential moving average over rounds of its mean belief: t ← decay · t + (1 - decay) · mean p.

    `before` is what the last round returned: all that is remembered, so a run can save it; a source that it lacks starts
    at its mean. A language that is hard gets a lower bar. After FreeMatch, Wang et al. 2023 (arXiv 2205.07246), which has
    the average over classes. Raises `ValueError` for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), not {decay}")
    before = before or {}
    now = {source: float(of.mean()) for source, of in _by_source(p, sources)}
    return dict(before) | {source: decay * before.get(source, mean) + (1 - decay) * mean for source, mean in now.items()}


def _by_source(p: Belief, sources: Sequence[str]):
    return pd.Series(np.asarray(p, float)).groupby(np.asarray(sources, object), sort=False)


def mixture(values: Belief, kind: str = "gaussian") -> Belief:
    """Probability (n,) that a value belongs to the upper of two components, "gaussian" or "beta", fitted to all values.

    Give it confidences, or losses with the sign turned. Gaussian as in NCR (Huang et al. 2021); beta, on values scaled into
    (0, 1), by EM with the method of moments as in Arazo et al. 2019 (arXiv 1904.11238). Beyond either component's mean it
    stays what it is there: a wide component would otherwise claim both tails. Raises `ValueError` for values that are not
    finite or all equal (there are no two components in them) and for an unknown kind.
    """
    values = np.asarray(values, float)
    if kind not in ("gaussian", "beta"):
        raise ValueError(f"unknown mixture {kind!r}; known are 'gaussian' and 'beta'")
    if not np.isfinite(values).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(values))[0])} of the mixture is not finite")
    if not len(values) or np.ptp(values) <= 1e-9 * max(1.0, np.abs(values).max()):
        raise ValueError(
            f"all {len(values)} values are equal {values[:1]}: no two components; keep all, or set a fixed threshold"
        )
    scaled = (values - values.min()) / np.ptp(values) * 0.98 + 0.01  # a beta density may be infinite at 0 and 1
    # Fitted closely: at the usual tolerance EM stops halfway where one component is small.
    fit = GaussianMixture(2, random_state=0, means_init=np.quantile(scaled, [[0.1], [0.9]]), tol=1e-6, max_iter=1000)
    fit.fit(scaled[:, None])
    if kind == "gaussian":
        return fit.predict_proba(np.clip(scaled, *sorted(fit.means_[:, 0]))[:, None])[:, fit.means_.argmax()]
    return _beta(scaled, fit.predict_proba(scaled[:, None]))


def _beta(x: np.ndarray, of: np.ndarray) -> np.ndarray:
    """As `mixture`; `of` (n, 2) is how far each value belongs to each component to begin with."""

    def belongs(at: np.ndarray) -> np.ndarray:
        density = weight * beta.pdf(at[:, None], mean * size, (1 - mean) * size)
        return density / np.maximum(density.sum(1, keepdims=True), 1e-300)

    for _ in range(300):
        # STEP 1: each component's weight, and its shape from mean and variance. STEP 2: which value belongs where.
        weight, mean = of.mean(0), x @ of / of.sum(0)
        most, variance = mean * (1 - mean), (of * (x[:, None] - mean) ** 2).sum(0) / of.sum(0)
        size = most / np.clip(variance, 1e-6, 0.99 * most) - 1
        of, before = belongs(x), of
        if np.abs(of - before).max() < 1e-6:
            break
    return belongs(np.clip(x, *sorted(mean)))[:, mean.argmax()]


def apply(pairs: Pairs, p: Belief, threshold: float | Mapping[str, float], hard: bool = False) -> Pairs:
    """The pairs with p ≥ `threshold` (a number, or one by source), with score p and weight p; `hard` leaves the weights be.

    A threshold of 0 weights and drops nothing but pairs of weight 0. Raises `ValueError` unless p is (n,) in [0, 1], and
    `CorpusError` if a source keeps no pair: a language would fall out of training in silence.
    """
    p, sources = np.asarray(p, float), pairs.rows.source
    if p.shape != (len(pairs),) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"beliefs of shape {p.shape} for {len(pairs)} pairs: one number in [0, 1] is needed for each")
    if isinstance(threshold, Mapping) and (missing := set(sources) - set(threshold)):
        raise ValueError(f"no threshold for source {sorted(missing)[0]!r}; there are ones for {', '.join(threshold) or 'none'}")
    line = sources.map(threshold).to_numpy(float) if isinstance(threshold, Mapping) else np.full(len(p), float(threshold))
    kept = (p >= line) & (hard | (p > 0))
    for source in pairs.sources:
        mine = (sources == source).to_numpy()
        if not kept[mine].any():
            above = f"threshold {line[mine][0]:.3g}; the highest confidence is {p[mine].max():.3g}"
            raise CorpusError(f"none of the {mine.sum()} pairs of source {source!r} reaches the {above}: lower the threshold")
    return pairs.assign(score=p, **({} if hard else {"weight": p})).select(kept)
