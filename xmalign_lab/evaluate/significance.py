"""How surely: paired tests and intervals over families and seeds. Arrays of per-query values in, no table and no model.

NaN marks a query that a seed or a language did not ask; one that nobody asked is left out, and a family of such queries
with it. Rows of one family are near-copies: a family is drawn, or changes its sign, as a whole (the cluster bootstrap:
Davison & Hinkley 1997, §3.8). A p-value is (1 + k) / (1 + draws), never zero (Phipson & Smyth 2010, 10.2202/1544-6115.1585).
All tests are two-sided. A seed gives the same numbers again. A missing family raises `ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from pandas import isna

CELLS = 2**20  # resample counts held at a time, 8 MB each: bounded memory whatever the number of draws


class Difference(NamedTuple):
    """A difference of means, its interval `low` to `high` and its two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


class SeedSpread(NamedTuple):
    """Mean of the seeds' means, their standard deviation (n - 1) and the distance from the lowest to the highest."""

    mean: float
    deviation: float
    spread: float
    seeds: int


def bootstrap_means(values: np.ndarray, families: np.ndarray, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """Means (draws, systems) of `values` (systems, queries) over resampled families (queries,), one resample for all systems.

    A draw's mean is its sum over its count. With `values` (systems, seeds, queries) the seeds are drawn as well, each cell
    weighted by the product of its seed's and its family's count (the Multi-Bootstrap of Sellam et al. 2022, arXiv
    2106.16163; mildly conservative: Owen & Eckles 2012, 10.1214/12-AOAS547). Of S seeds S - 1 are drawn: with S the
    variance would be (S - 1) / S of what it should be, and S is small.
    """
    values = np.asarray(values, float)
    systems, seeds = len(values), values.shape[1] if values.ndim == 3 else 1
    sums, counts = _by_family(values.reshape(systems * seeds, -1), families)
    sides = np.concatenate([sums, counts]).T
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(max(seeds - 1, 1), np.full(seeds, 1 / seeds), size=draws)
    means = np.full((draws, systems), np.nan)
    for block in _blocks(draws, len(sides)):
        drawn = rng.integers(len(sides), size=(len(means[block]), len(sides)))
        drawn += np.arange(len(drawn))[:, None] * len(sides)
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        total = (times.astype(float) @ sides).reshape(-1, 2, systems, seeds)
        total = np.einsum("rkns,rs->krn", total, weights[block])
        np.divide(*total, where=total[1] > 0, out=means[block])  # NaN stays where a draw asked nothing
    return means


def flipped_means(values: np.ndarray, families: np.ndarray, draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """Means (draws, systems) of `values` (systems, queries) after each family got a random sign, the same for all systems.

    The difference of two columns is the paired difference with the two systems exchanged in the families of negative sign.
    """
    sums, counts = _by_family(np.asarray(values, float), families)
    rng = np.random.default_rng(seed)
    means = np.empty((draws, len(sums)))
    for block in _blocks(draws, sums.shape[1]):
        signs = rng.integers(2, size=(len(means[block]), sums.shape[1]), dtype=np.int8) * 2.0 - 1
        means[block] = signs @ sums.T / counts.sum(1)
    return means


def paired_bootstrap(a, b, families, draws: int = 10_000, seed: int = 0, level: float = 0.95) -> Difference:
    """Mean of `a - b` (queries,), percentile interval and p of the bootstrap over families (queries,).

    p counts the resamples that lie at least as far from the difference as zero does (Efron & Tibshirani 1993, §16.4). It is
    too small for a handful of families; there believe `paired_permutation`. Raises `ValueError` for shapes that do not fit
    or fewer than two families.
    """
    difference = _difference(a, b, 1)
    return reading(bootstrap_means(difference[None], families, draws, seed)[:, 0], np.nanmean(difference), level)


def paired_permutation(a, b, families, draws: int = 10_000, seed: int = 0) -> float:
    """p of the mean of `a - b` (queries,) when all rows of a family (queries,) change sign together, at random.

    Exact at every size if a and b are exchangeable within a family (Fisher's randomisation test; for retrieval: Smucker et
    al. 2007, 10.1145/1321440.1321528). Raises `ValueError` as `paired_bootstrap` does.
    """
    difference = _difference(a, b, 1)
    return p_value(flipped_means(difference[None], families, draws, seed)[:, 0], np.nanmean(difference))


def mixed_bootstrap(a, b, families, draws: int = 10_000, seed: int = 0, level: float = 0.95) -> Difference:
    """Mean of `a - b` (seeds, queries), interval and p when other seeds and other families (queries,) might have been drawn.

    Row s of `a` and of `b` belong together (same seed, same fold). A query need not be asked by every seed: NaN in both. The
    interval reads the bootstrap's standard error with Student's t, as `reading` says. Raises `ValueError` as
    `paired_bootstrap` does, and for fewer than three seeds.
    """
    difference = _difference(a, b, 2)
    if len(difference) < 3 or np.isnan(difference).all(1).any():
        raise ValueError(f"{len(difference)} seeds: at least three are needed, each with a query")
    means = bootstrap_means(difference[None], families, draws, seed)[:, 0]
    return reading(means, np.nanmean(difference), level, np.nanmean(difference, axis=1))


def reading(means: np.ndarray, value: float, level: float = 0.95, by_seed: np.ndarray | None = None) -> Difference:
    """`value` with the interval and p of its bootstrap `means` (draws,).

    Percentiles; but with `by_seed` (seeds,), the values under three or more seeds, value ± t·SE, as few seeds have no
    percentiles to speak of: t has (SE² / SE_seeds²)²·(seeds - 1) degrees of freedom (Satterthwaite 1946, 10.2307/3002019),
    where SE_seeds² is the seeds' variance over their number. Seeds that hardly differ cost nothing, seeds that differ much.
    Two seeds are too few for that, and `ValueError`: where they differ much, such a test finds about twice as many
    differences that are not there as it should.
    """
    means, seeds = means[~np.isnan(means)], np.empty(0) if by_seed is None else by_seed[~np.isnan(by_seed)]
    if len(seeds) < 2:
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return Difference(float(value), float(low), float(high), p_value(means - value, value))
    if len(seeds) == 2:
        raise ValueError("two seeds: their spread is too rough to test with; take three or more, or one and no column 'seed'")
    from scipy.stats import t

    error = means.std()
    share = seeds.var(ddof=1) / len(seeds) / max(error**2, 1e-300)
    freedom = (len(seeds) - 1) / min(max(share, 1e-9), 1) ** 2
    half = t.ppf((1 + level) / 2, freedom) * error
    p = 2 * t.sf(abs(value) / error, freedom) if error > 0 else float(value == 0)
    return Difference(float(value), float(value - half), float(value + half), float(max(p, 1 / (1 + len(means)))))


def p_value(null: np.ndarray, value: float) -> float:
    """(1 + k) / (1 + draws), where k of the draws `null` (draws,) lie at least as far from zero as `value`."""
    # what rounding alone keeps apart is equal: a tie counts against the difference
    return float((1 + np.sum(np.abs(null) >= abs(value) * (1 - 1e-9) - 1e-15)) / (1 + len(null)))


def pairwise(values: np.ndarray, families: np.ndarray, draws: int = 10_000, seed: int = 0) -> list[tuple]:
    """All differences within `values` (systems, columns, seeds, queries), NaN where nothing was asked, on the same draws.

    A row per column and two systems i ≤ j: i, j, column, difference, low, high, p of the bootstrap over families (queries,)
    and, where there are several, over seeds; p of the permutation; the smallest difference that could have been shown
    (`detectable` of the bootstrap's standard error). With i = j it is the system's own mean. If there are several
    columns, languages say, one more holds their mean.
    """
    systems, columns, seeds, queries = values.shape
    averaged = _mean(values, 2)
    drawn = bootstrap_means(values.reshape(-1, seeds, queries), families, draws, seed).reshape(draws, systems, columns)
    flipped = flipped_means(averaged.reshape(-1, queries), families, draws, seed).reshape(drawn.shape)
    parts = [drawn, flipped, _mean(values, (2, 3))[None], _mean(averaged, 2)[None], _mean(values, 3).transpose(2, 0, 1)]
    if columns > 1:
        parts = [np.concatenate([part, part.mean(2, keepdims=True)], axis=2) for part in parts]
    rows, one = [], np.eye(systems)
    for column in range(parts[0].shape[2]):
        for i, j in combinations_with_replacement(range(systems), 2):
            means, null, value, unweighted, by_seed = (part[:, :, column] @ (one[i] - (i != j) * one[j]) for part in parts)
            found = reading(means, value[0], by_seed=by_seed)
            rows.append((i, j, column, *found, p_value(null, unweighted[0]), detectable(np.nanstd(means))))
    return rows


def over_seeds(values: Mapping[object, np.ndarray]) -> SeedSpread:
    """What the seed does: spread of the means of `{seed: per-query values (queries,)}`. Raises `ValueError` for one seed."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} seeds: a spread needs at least two")
    means = np.array([np.nanmean(value) for value in values.values()])
    return SeedSpread(float(means.mean()), float(means.std(ddof=1)), float(np.ptp(means)), len(means))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p (tests,) that hold the chance of any false discovery: max over j ≤ i of (m - j + 1)·p₍ⱼ₎ (Holm 1979)."""
    p = np.asarray(p, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must be one row of numbers in [0, 1], got {p}")
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Adjusted p (tests,) that hold the share of false discoveries (Benjamini & Hochberg 1995)."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p)


def standard_error(values: np.ndarray, families: np.ndarray) -> float:
    """Standard error of the mean of `values` (queries,) clustered by family: √(F/(F-1)·Σ_f (Σ_{i∈f} vᵢ - v̄)²) / n."""
    sums, counts = _by_family(np.asarray(values, float)[None], families)
    residual = sums[0] - counts[0] * (sums.sum() / counts.sum())
    return float(np.sqrt(len(residual) / (len(residual) - 1) * (residual**2).sum()) / counts.sum())


def detectable(error: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """(z_{1-α/2} + z_power)·`error`: the smallest true difference found at `alpha` with probability `power`."""
    from scipy.stats import norm

    return float((norm.ppf(1 - alpha / 2) + norm.ppf(power)) * error)


def smallest_difference(a, b, families, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference of means that these queries, in these families, could have shown (`detectable`)."""
    return detectable(standard_error(_difference(a, b, 1), families), alpha, power)


def _mean(values: np.ndarray, axis) -> np.ndarray:
    """The mean of what is not NaN; NaN, without a warning, where nothing is left."""
    asked = ~np.isnan(values)
    total, count = np.where(asked, values, 0).sum(axis), asked.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _difference(a, b, dimensions: int) -> np.ndarray:
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or a.ndim != dimensions:
        wanted = "(queries,)" if dimensions == 1 else "(seeds, queries)"
        raise ValueError(f"a {a.shape} and b {b.shape} must both be {wanted}: paired values of the same queries")
    return a - b


def _by_family(values: np.ndarray, families: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts (systems, families) of what is not NaN in `values` (systems, queries); families that were asked only."""
    families = np.asarray(families, object)  # as text, a missing family would be the family "None"
    if missing := int(np.sum(isna(families))):
        raise ValueError(f"{missing} of {families.size} queries have no family (None or NaN); give each the family it belongs to")
    if values.ndim != 2 or families.shape != values.shape[1:] or np.isinf(values).any() or np.isnan(values).all(1).any():
        raise ValueError(f"values {values.shape} and families {families.shape}: one family per query, finite values or NaN")
    asked = ~np.isnan(values)
    somewhere = asked.any(0)
    values, asked = values[:, somewhere], asked[:, somewhere]
    _, codes = np.unique(families[somewhere].astype(str), return_inverse=True)
    if not codes.any():
        raise ValueError("one family only: nothing can be said of other families; at least two are needed")
    sums = [np.bincount(codes, weights=row) for row in np.where(asked, values, 0)]
    return np.array(sums), np.array([np.bincount(codes, weights=row) for row in asked])


def _blocks(draws: int, families: int):
    size = max(1, CELLS // families)
    return (slice(start, min(start + size, draws)) for start in range(0, draws, size))
