"""Transfer: a classifier trained in one language judges the others; and retrieval across languages.

Arrays in, a row or value per test row out; `transfer_table` sums up.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import issparse
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from xmalign_lab import similarity
from xmalign_lab.evaluate.significance import bootstrap_means

STRENGTHS = tuple(10.0**power for power in range(-4, 2))  # C of the logistic regression: small is strong
DEAD = 1e-4  # a dense column with less than this share of the mean variance says nothing


def transfer(train_vectors, train_labels: np.ndarray, tests: dict[str, tuple], seed: int = 0) -> pd.DataFrame:
    """Train on one language, predict others: a row per test row with `lang, query, gold, predicted, correct`.

    `train_vectors` (n, d) dense or CSR, `train_labels` (n,); `tests` is `{lang: (vectors (m, d), labels (m,))}`, with a third
    item (m,) where rows have names that hold in every language, else `query` is the row's number. Logistic regression on
    columns of standard deviation 1 (dense ones also centred, and left out below `DEAD` of the mean variance), C from
    `STRENGTHS` by 5-fold accuracy within the training rows: no other language is seen before it is judged. `attrs` has the C
    and its accuracy.
    Raises `ValueError`, naming the side ("training" or the language) and where there is one the row, counted from 0, for
    lengths or widths that differ, a vector with NaN or infinity, a row without a label, training rows of one label only or
    that are all the same vector, a label with one training row, a test label that training lacks.
    """
    gold = _checked("training", train_vectors, train_labels, train_labels, train_vectors.shape[1])
    classes, counts = np.unique(gold, return_counts=True)
    if len(classes) < 2 or counts.min() < 2:
        raise ValueError(f"training has {dict(zip(classes.tolist(), counts.tolist(), strict=True))}; it needs 2 labels of 2 rows")
    if abs(train_vectors.max(0) - train_vectors.min(0)).sum() == 0:
        raise ValueError(f"all {len(gold)} training rows have the same vector, so nothing tells {', '.join(classes)} apart")
    # Most columns of a hashed table are empty in one language and can teach nothing: dropped, as all constant ones. So are
    # columns of rounding noise, which encoders have: at standard deviation 1, another language's values there are enormous
    floor = 0 if issparse(train_vectors) else DEAD * np.var(train_vectors, axis=0).mean()
    steps = VarianceThreshold(floor), StandardScaler(with_mean=not issparse(train_vectors)), LogisticRegression(max_iter=5_000)
    split = StratifiedKFold(min(5, counts.min()), shuffle=True, random_state=seed)
    search = GridSearchCV(make_pipeline(*steps), {"logisticregression__C": STRENGTHS}, cv=split)
    with threadpool_limits(1):  # thousands of small products: several threads spend their time waiting for each other
        search.fit(train_vectors, gold)
    parts = []
    for lang, (vectors, labels, *queries) in tests.items():
        query = queries[0] if queries else np.arange(len(labels))
        labels = _checked(lang, vectors, labels, query, train_vectors.shape[1])
        for row in np.flatnonzero(~np.isin(labels, classes)):
            raise ValueError(f"{lang}, row {row}: no training row has the label '{labels[row]}', only {', '.join(classes)}")
        parts.append(pd.DataFrame({"lang": lang, "query": query, "gold": labels, "predicted": search.predict(vectors)}))
    table = pd.concat(parts, ignore_index=True).assign(correct=lambda table: table.gold == table.predicted)
    table.attrs = {"C": search.best_params_["logisticregression__C"], "accuracy in training": float(search.best_score_)}
    return table


def _checked(side: str, vectors, labels, names, width: int) -> np.ndarray:
    """The labels (n,) of `side` as text, if its vectors (n, width) and names (n,) can be used with them; else `ValueError`."""
    labels = np.asarray(labels, object)
    if vectors.shape != (len(labels), width) or len(names) != len(labels):
        raise ValueError(f"{side}: vectors {vectors.shape}, {len(labels)} labels, {len(names)} names; not rows of {width}")
    largest = abs(vectors).max(1)
    broken = ~np.isfinite(largest.toarray().ravel() if issparse(vectors) else largest)
    for wrong, what in ((broken, "a vector with NaN or infinity"), (pd.isna(labels), "no label")):
        for row in np.flatnonzero(wrong):
            raise ValueError(f"{side}, row {row}: {what}; {wrong.sum()} of {len(labels)} rows are so")
    return labels.astype(str)


def transfer_table(
    predictions: pd.DataFrame, reference: pd.DataFrame | None = None, draws: int = 2_000, seed: int = 0
) -> pd.DataFrame:
    """Accuracy and macro-F1: `lang, metric, rows, value, low, high, left out, majority`, then `reference` and its interval.

    low, high: 95 % percentile bootstrap over the column `family` where there is one, else over rows. A resample without a
    row of some gold label has no macro-F1 (that label's F1 would be 0 whatever the classifier does, or 0/0) and is left out:
    the interval is conditional on every label being there. `left out` is the share of such resamples; where it is above a
    half, as with labels that one row alone has, the interval is NaN rather than that of a selection. majority: the most
    frequent gold label for every row; no constant is more accurate. `reference` holds predictions for the same rows by the
    same classifier trained in the tested language. Where the sets are parallel, as in SIB-200, it was trained on human
    translations: translate-train without a translator's errors. A language that lacks one has NaN. Macro-F1 is
    scikit-learn's: the plain mean over the labels that occur in gold or predicted; in resamples the same labels. Raises
    `ValueError` for a row that occurs twice (several runs in one table), a reference for other rows, or a language with a
    single row or family.
    """
    if (twice := predictions.duplicated(["lang", "query"])).any():
        first = predictions[twice].iloc[0]
        raise ValueError(f"{first.lang}, query {first['query']} occurs twice; give the predictions of one run")
    rows = []
    for lang, part in predictions.groupby("lang", sort=False):
        constant = _scores(part.assign(predicted=part.gold.mode()[0]), 1, seed)[0]
        columns = {"value": _scores(part, draws, seed)}
        if reference is not None and lang in set(reference.lang):
            own = reference.loc[reference.lang == lang, ["query", "gold", "predicted"]]
            both = part.drop(columns="predicted").merge(own, on=["query", "gold"], validate="1:1")
            if not len(both) == len(part) == len(own):
                raise ValueError(f"{lang}: {len(part)} rows, the reference has {len(own)}, and {len(both)} are the same")
            columns["reference"] = _scores(both, draws, seed)
        for column, metric in enumerate(("accuracy", "macro-F1")):
            row = {"lang": lang, "metric": metric, "rows": len(part)}
            for name, scores in columns.items():
                prefix = "" if name == "value" else f"{name} "
                row[name] = scores[0, column]
                left = np.isnan(scores[1:, column]).mean()
                low, high = np.nanquantile(scores[1:, column], [0.025, 0.975]) if left <= 0.5 else (np.nan, np.nan)
                row |= {f"{prefix}low": low, f"{prefix}high": high, "left out": left, "majority": constant[column]}
            rows.append(row)
    return pd.DataFrame(rows)


def _scores(part: pd.DataFrame, draws: int, seed: int) -> np.ndarray:
    """Accuracy and macro-F1, (1 + draws, 2): of the rows as they are, then of resamples; NaN where a gold label is missing."""
    labels = np.union1d(part.gold, part.predicted)[:, None]
    gold, predicted = labels == part.gold.to_numpy(), labels == part.predicted.to_numpy()
    # A mean over rows is a count over a constant, and F1 is a ratio of counts
    values = np.concatenate([gold & predicted, gold, predicted]).astype(float)
    families = part["family" if "family" in part else "query"].to_numpy()
    means = np.vstack([values.mean(1), bootstrap_means(values, families, draws, seed)])
    hit, gold, predicted = np.split(means, 3, axis=1)
    f1 = np.divide(2 * hit, gold + predicted, out=np.zeros_like(hit), where=gold + predicted > 0)
    lacking = (gold[:, gold[0] > 0] == 0).any(1)
    return np.stack([hit.sum(1), np.where(lacking, np.nan, f1.mean(1))], axis=1)


def retrieval_mrr(queries, gallery, query_groups: np.ndarray, gallery_groups: np.ndarray, cut: int = 10) -> np.ndarray:
    """1 / rank of each query's best correct item, (n,), 0 beyond `cut`: its mean is MRR@cut.

    Vectors (n, d) and (m, d) of unit length, a group each: sentences against their translations, questions against
    passages. The rank is `similarity.ranks`': ties count as the mean rank. A query without a correct item in the gallery
    raises `ValueError`.
    """
    rank = similarity.ranks(queries, gallery, query_groups, gallery_groups)
    return np.where(rank <= cut, 1 / rank, 0.0)
