"""Means, intervals and the table: the only place where per-query values are summed up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xmalign_lab.evaluate.retrieval import METRICS, per_query


def family_bootstrap(values: np.ndarray, families: np.ndarray, draws: int = 2000, level: float = 0.95, seed: int = 0) -> tuple:
    """Percentile interval `(low, high)` of the mean of `values` (n,), resampling whole families (n,), not rows.

    Near-copies stand or fall together, so rows would make the interval too narrow: the cluster bootstrap
    (Davison & Hinkley 1997, §3.8). A draw's mean is its sum over its count.
    """
    _, codes = np.unique(np.asarray(families).astype(str), return_inverse=True)
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    rng = np.random.default_rng(seed)
    times = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws)
    means = (times @ sums) / (times @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def summary(scores: pd.DataFrame, metrics: tuple[str, ...] = tuple(METRICS), seed: int = 0) -> pd.DataFrame:
    """A row per language, direction and metric: value, low, high (95 %, families resampled), queries; median rank too.

    The protocol goes with the table in `attrs["protocol"]`: print it with the numbers.
    """
    rows = []
    for metric in metrics:
        for (lang, direction), part in per_query(scores, metric).groupby(["lang", "direction"]):
            value = part.value.to_numpy()
            low, high = family_bootstrap(value, part.family.to_numpy(), seed=seed)
            rows.append((lang, direction, metric, value.mean(), low, high, len(value)))
    for (lang, direction), part in per_query(scores, "mean rank").groupby(["lang", "direction"]):
        rows.append((lang, direction, "median rank", part.value.median(), np.nan, np.nan, len(part)))
    table = pd.DataFrame(rows, columns=["lang", "direction", "metric", "value", "low", "high", "queries"])
    table.attrs["protocol"] = protocol(scores)
    return table


def protocol(scores: pd.DataFrame) -> str:
    """How the numbers were made, in one line: gallery sizes, queries, galleries averaged, tie rule, interval."""
    sizes = sorted(scores["size"].unique())
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}"
    galleries = ", ".join(sorted(scores.gallery.unique()))
    return (
        f"galleries of {size} items, mean over {galleries}; {scores['query'].nunique():,} queries in "
        f"{scores.family.nunique():,} families; ties: mean rank; intervals: 95 %, bootstrap over families"
    )


def wide(table: pd.DataFrame, direction: str, metrics: tuple[str, ...] = ("MRR", "R@1", "R@10", "median rank")) -> pd.DataFrame:
    """A table to read: a row per language, `value [low, high]` per metric."""

    def cell(row) -> str:
        if row.metric.endswith("rank"):
            return f"{row.value:.0f}"
        return f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"

    part = table[(table.direction == direction) & table.metric.isin(metrics)]
    cells = part.assign(cell=[cell(row) for row in part.itertuples()])
    return cells.pivot(index="lang", columns="metric", values="cell")[list(metrics)].rename_axis(None, axis=1)
