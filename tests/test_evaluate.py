"""Per-query values, on tables small enough to write the answer out."""

import numpy as np
import pandas as pd
import pytest

from xmalign_lab.evaluate.retrieval import SCORE_COLUMNS, Side, per_query, rank_queries


def side(vectors, groups) -> Side:
    groups = np.array(groups, object)
    return Side(np.array(vectors, np.float32), groups, groups, groups)


def scores(ranks_by_gallery: dict[str, list[float]], families=None) -> pd.DataFrame:
    parts = []
    for gallery, ranks in ranks_by_gallery.items():
        names = [f"q{i}" for i in range(len(ranks))]
        fixed = {"lang": "swh_Latn", "direction": "text→image", "gallery": gallery, "size": 100}
        parts.append(pd.DataFrame({"query": names, "family": families or names, **fixed, "rank": np.array(ranks, float)}))
    return pd.concat(parts)


def test_two_small_matrices_and_the_answer():
    gallery = side([[1, 0], [0, 1], [0.6, 0.8]], ["a", "b", "c"])
    queries = side([[1, 0.1], [1, 0], [0, 1]], ["a", "b", "d"])  # 'd' is not in the gallery: no query, gallery stays whole
    table = rank_queries(queries, gallery, "swh_Latn", "text→image", "google")
    assert list(table.columns) == list(SCORE_COLUMNS)
    assert table["rank"].tolist() == [1, 3] and table["size"].tolist() == [3, 3] and table["query"].tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="'google'"):
        rank_queries(side([[1, 0]], ["d"]), gallery, "swh_Latn", "text→image", "google")


def test_a_metric_is_the_mean_over_galleries_per_query():
    table = scores({"google": [1, 4, 20], "twitter": [2, 12, 1]})
    assert per_query(table, "MRR").value.tolist() == pytest.approx([0.75, (1 / 4 + 1 / 12) / 2, (1 / 20 + 1) / 2])
    assert per_query(table, "R@1").value.tolist() == [0.5, 0, 0.5]
    assert per_query(table, "R@10").value.tolist() == [1, 0.5, 0.5]
    with pytest.raises(ValueError, match="known are MRR, R@1"):
        per_query(table, "R@2")
