"""Retrieval: arrays in, one value per query out. Means and intervals are taken in `report`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from xmalign_lab import similarity

SCORE_COLUMNS = ("query", "family", "lang", "direction", "gallery", "size", "rank")


@dataclass(frozen=True)
class Side:
    """Vectors (n, d) of unit length, and for each row its id, group and family (all (n,))."""

    vectors: np.ndarray
    ids: np.ndarray
    groups: np.ndarray
    families: np.ndarray

    def __post_init__(self):
        lengths = {len(self.vectors), len(self.ids), len(self.groups), len(self.families)}
        if len(lengths) != 1:
            raise ValueError(f"vectors, ids, groups and families differ in length: {sorted(lengths)}")


def rank_queries(queries: Side, gallery: Side, lang: str, direction: str, name: str) -> pd.DataFrame:
    """Rank every query against the whole gallery; one row per query with the columns `SCORE_COLUMNS`.

    A query whose group the gallery lacks is dropped: the gallery stays whole. `direction` is text→image or
    image→text, `name` names the gallery (the vendor). Ties count as the mean rank.
    """
    has = np.isin(queries.groups.astype(str), gallery.groups.astype(str))
    if not has.any():
        raise ValueError(f"no query in {lang} has its group in the gallery {name!r}")
    rank = similarity.ranks(queries.vectors[has], gallery.vectors, queries.groups[has], gallery.groups)
    fixed = {"lang": lang, "direction": direction, "gallery": name, "size": len(gallery.vectors)}
    return pd.DataFrame({"query": queries.groups[has], "family": queries.families[has], **fixed, "rank": rank})


METRICS = {
    "MRR": lambda rank: 1 / rank,
    "R@1": lambda rank: (rank <= 1).astype(float),
    "R@5": lambda rank: (rank <= 5).astype(float),
    "R@10": lambda rank: (rank <= 10).astype(float),
    "mean rank": lambda rank: rank.astype(float),
}


def per_query(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One value per query, language and direction: the metric's mean over the galleries. MRR is the primary metric.

    Raises `ValueError` naming the known metrics.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    values = scores.assign(value=METRICS[metric](scores["rank"].to_numpy()))
    return values.groupby(["lang", "direction", "query", "family"], as_index=False, sort=True).value.mean()
