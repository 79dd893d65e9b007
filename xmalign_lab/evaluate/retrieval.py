"""Retrieval: arrays in, one value per query out. Means and intervals are taken in `report`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pandas as pd

from xmalign_lab import similarity

SCORE_COLUMNS = ("query", "family", "lang", "direction", "gallery", "size", "rank", "ap", "ndcg", "dropped", "protocol")


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

    def rows(self, keep: np.ndarray) -> Side:
        """The rows of a mask (n,) or of positions."""
        return Side(*(np.asarray(getattr(self, column.name))[keep] for column in fields(self)))


@dataclass(frozen=True)
class Protocol:
    """How ranks were made; it goes with every number. Raises `ValueError` for a value it does not know.

    `captions`: "all", or "first": of each group only the first row, among the queries and in the gallery. `ties`: only
    "mean rank": a scorer that gives all n items one score has rank (n + 1) / 2 and so MRR 2 / (n + 1), *below* chance, whose
    MRR is (1 + 1/2 + … + 1/n) / n (`baselines.chance`); what scores less than chance may have ties, not errors.
    `translate_test`: the caller's word that the texts were translated into English and encoded there.
    `rerank`: "none", or "CSLS": a gallery item's mean cosine to its 10 nearest queries counts against it, so hubs fall
    (Conneau et al. 2018, arXiv 1710.04087). It sees all queries at once, which one query alone cannot.
    """

    captions: str = "all"
    ties: str = "mean rank"
    translate_test: bool = False
    rerank: str = "none"

    def __post_init__(self):
        known = dict(captions=("all", "first"), ties=("mean rank",), rerank=("none", "CSLS"), translate_test=(False, True))
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"protocol: {name} is {getattr(self, name)!r}; known are {', '.join(map(repr, values))}")

    def __str__(self) -> str:
        translated = "on" if self.translate_test else "off"
        return f"captions: {self.captions}; ties: {self.ties}; translate-test: {translated}; re-ranking: {self.rerank}"


DEFAULT = Protocol()


def rank_queries(
    queries: Side, gallery: Side, lang: str, direction: str, name: str, protocol: Protocol = DEFAULT
) -> pd.DataFrame:
    """Rank every query against the whole gallery; one row per query with the columns `SCORE_COLUMNS`.

    A query whose group the gallery lacks is dropped: the gallery stays whole. `dropped`, the same in every row, says how many
    were, and `report.protocol` prints it. `direction` is text→image, image→text or two languages (swh→eng), `name` names the
    gallery (the vendor). Either side may hold several rows of a group (captions, pictures): each is a query, and each is
    correct. `query` is the group, so a query's rows are averaged by `per_query`.

    `rank` is the best correct item's among the wrong ones; `ap` and `ndcg` are of all correct ones (`precision_gain`).
    Raises `ValueError` if no query has its group in the gallery.
    """
    if protocol.captions == "first":
        firsts = (np.sort(np.unique(side.groups.astype(str), return_index=True)[1]) for side in (queries, gallery))
        queries, gallery = (side.rows(rows) for side, rows in zip((queries, gallery), firsts, strict=True))
    has = np.isin(queries.groups.astype(str), gallery.groups.astype(str))
    if not has.any():
        raise ValueError(f"no query in {lang} has its group in the gallery {name!r}")
    queries = queries.rows(has)
    penalty = similarity.csls_penalty(queries.vectors, gallery.vectors) if protocol.rerank == "CSLS" else None
    sides = queries.vectors, gallery.vectors, queries.groups, gallery.groups, penalty
    if len(np.unique(gallery.groups.astype(str))) == len(gallery.groups):  # one correct item each: `ranks` is the fast way
        query, rank = np.arange(len(queries.groups)), similarity.ranks(*sides)
    else:
        query, _, rank = similarity.positive_ranks(*sides)
    fixed = {"lang": lang, "direction": direction, "gallery": name, "size": len(gallery.vectors)}
    table = pd.DataFrame({"query": queries.groups, "family": queries.families, **fixed})
    return pd.concat([table, precision_gain(query, rank)], axis=1).assign(dropped=int((~has).sum()), protocol=str(protocol))


def precision_gain(query: np.ndarray, rank: np.ndarray) -> pd.DataFrame:
    """`rank`, `ap` and `ndcg` of each query, by its number, from its correct items' ranks r (p,) in the whole list.

    With j an item's rank among the query's P correct items: rank = min(r - j + 1); AP = (1/P) Σ j/r;
    nDCG = Σ 1/log2(1 + r) / Σ_{i=1..P} 1/log2(1 + i) (Järvelin & Kekäläinen 2002, binary relevance).
    Ties: r and j are mean ranks, as if each tied item stood in the middle of its tie. nDCG is then no more than its mean
    over all orders of the tie, and correct items that tie with each other leave it a little below 1 even at the top; AP can
    lie on either side of its mean. Without ties the values are trec_eval's.
    """
    items = pd.DataFrame({"query": query, "r": rank})
    items["j"] = items.groupby("query").r.rank(method="average")
    items["place"] = items.groupby("query").cumcount() + 1
    terms = pd.DataFrame({"query": items["query"], "rank": items.r - items.j + 1, "ap": items.j / items.r})
    terms["gain"], terms["ideal"] = 1 / np.log2(1 + items.r), 1 / np.log2(1 + items.place)
    per = terms.groupby("query").agg({"rank": "min", "ap": "mean", "gain": "sum", "ideal": "sum"})
    return per.assign(ndcg=per.gain / per.ideal)[["rank", "ap", "ndcg"]].reset_index(drop=True)


COLUMN_OF = {"mAP": "ap", "nDCG": "ndcg"}  # every other metric is a function of the column "rank"
METRICS = {
    "MRR": lambda rank: 1 / rank,
    # NaN where there is no rank: not asked is no miss
    **{f"R@{k}": lambda rank, k=k: np.where(np.isnan(rank), np.nan, rank <= k) for k in (1, 5, 10)},
    "mean rank": lambda rank: rank.astype(float),
    "mAP": lambda ap: ap,
    "nDCG": lambda ndcg: ndcg,
}


def per_query(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One value per query, language and direction: the metric's mean over the galleries and the group's captions.

    So every meaning counts once, however many captions it has; `METRICS[metric]` of the column itself counts captions.
    MRR is the primary metric. Raises `ValueError` naming the known metrics, or the column that `scores` lacks.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    column = COLUMN_OF.get(metric, "rank")
    if column not in scores:
        raise ValueError(f"{metric} needs the column {column!r} of `rank_queries`; these scores have {', '.join(scores.columns)}")
    values = scores.assign(value=METRICS[metric](scores[column].to_numpy()))
    return values.groupby(["lang", "direction", "query", "family"], as_index=False, sort=True).value.mean()


def sum_r(scores: pd.DataFrame) -> pd.DataFrame:
    """SumR per query: R@1 + R@5 + R@10 of both directions in per cent; its mean over a language's queries is SumR, 0 to 600.

    Columns as `per_query`, with the direction "both". Raises `ValueError` unless every query of a language was asked in
    the same two directions.
    """
    hits = pd.concat([per_query(scores, metric) for metric in ("R@1", "R@5", "R@10")])
    for lang, part in hits.groupby("lang"):
        names = sorted(part.direction.unique())
        if len(names) != 2 or (part.groupby(["query", "family"]).direction.nunique() != 2).any():
            raise ValueError(f"SumR needs every query of {lang} in two directions; it has {', '.join(names)}")
    total = hits.assign(direction="both", value=100 * hits.value)
    return total.groupby(["lang", "direction", "query", "family"], as_index=False, sort=True).value.sum()


def mean_rank_variance(scores: pd.DataFrame) -> pd.DataFrame:
    """A query's variance of rank over its L languages, (1/L) Σ_l (r_l - mean r)²; the mean over queries is MRV.

    After Nie et al. 2024 (arXiv 2406.18254), from the abstract's words ("rank inconsistency across languages within each
    instance"); dividing by L, not L - 1, is ours. Languages can disagree so where their recalls are equal. The variance is
    taken within a gallery, then galleries are averaged. Columns as `per_query`, with the language "all".

    Its unit is ranks squared: one query at rank 1 here and rank n there weighs as much as thousands of near misses, and over
    n items languages that guess independently have (n² - 1)/12 · (L - 1)/L. So compare it over one gallery and one set of
    languages only, and beside the mean rank: an encoder that ranks every item last in every language has a variance of 0.
    Raises `ValueError` for fewer than two languages, or naming a query that one of them lacks.
    """
    keys = ["direction", "gallery", "query", "family"]
    ranks = scores.pivot_table(index=keys, columns="lang", values="rank", aggfunc="mean")
    if ranks.shape[1] < 2:
        raise ValueError(f"a variance over languages needs two or more; these scores have {', '.join(ranks.columns)}")
    if ranks.isna().to_numpy().any():
        row, column = np.argwhere(ranks.isna().to_numpy())[0]
        raise ValueError(f"query {ranks.index[row][2]!r} ({ranks.index[row][0]}) has no rank in {ranks.columns[column]}")
    values = ranks.var(axis=1, ddof=0).rename("value").reset_index().assign(lang="all")
    return values.groupby(["lang", "direction", "query", "family"], as_index=False, sort=True).value.mean()


def xsim_errors(left: np.ndarray, right: np.ndarray, margin: bool = True, k: int = 4) -> np.ndarray:
    """Whether each row of `left` (n, d) finds another row of `right` (n, d) than its own, (n,) bool; 100 × mean is xSIM in %.

    Best by ratio margin with k neighbours (Artetxe & Schwenk 2019, arXiv 1811.01136), or by cosine. Vectors of unit length,
    row i of one means row i of the other. Raises `ValueError` for shapes that differ.
    """
    if np.shape(left) != np.shape(right):
        raise ValueError(f"xSIM compares aligned rows; left is {np.shape(left)}, right is {np.shape(right)}")
    best = similarity.best_by_margin(left, right, k) if margin else similarity.top_k(left, right, 1)[1][:, 0]
    return best != np.arange(len(left))


class Hubness(NamedTuple):
    """`skewness` of the k-occurrence (0: no hubs) and `anti_hubs`, the share of gallery items that no query retrieves."""

    skewness: float
    anti_hubs: float


def hubness(queries: np.ndarray, gallery: np.ndarray, k: int = 10, csls: int = 0) -> Hubness:
    """How unevenly the queries' (n, d) k nearest items spread over the gallery (m, d): E(N_k - μ)³/σ³, and P(N_k = 0).

    N_k counts how often an item is among a query's k nearest (Radovanović et al. 2010, JMLR 11); all equal gives 0. Nearest
    by cosine, or under CSLS with `csls` neighbours (`similarity.csls_penalty`), which takes from the hubs.
    """
    from scipy.stats import skew

    penalty = similarity.csls_penalty(queries, gallery, csls) if csls else None
    times = np.bincount(similarity.top_k(queries, gallery, k, penalty)[1].ravel(), minlength=len(gallery))
    return Hubness(float(skew(times)) if np.ptp(times) else 0.0, float((times == 0).mean()))
