"""Per-query values and their summary, on tables small enough to write the answer out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.evaluate import report
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


def test_summary_and_protocol():
    table = report.summary(scores({"google": [1, 4, 20, 3], "twitter": [1, 4, 20, 3]}))
    value = table.set_index("metric").value
    assert value["R@1"] == 0.25 and value["R@5"] == 0.75 and value["mean rank"] == 7 and value["median rank"] == 3.5
    assert "galleries of 100 items" in table.attrs["protocol"] and "ties: mean rank" in table.attrs["protocol"]
    shown = report.wide(table, "text→image")
    assert shown.loc["swh_Latn", "median rank"] == "4" and shown.loc["swh_Latn", "R@1"].startswith("0.250 [")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 99))
@settings(max_examples=40)
def test_interval_lies_in_the_range_and_covers_a_constant(values, seed):
    values = np.array(values)
    low, high = report.family_bootstrap(values, np.arange(len(values)) % 5, draws=200, seed=seed)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert report.family_bootstrap(np.full(9, 0.3), np.arange(9) % 4, draws=50) == pytest.approx((0.3, 0.3))


def test_interval_against_scipy_when_every_row_is_its_own_family():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).beta(1, 3, 400)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = report.family_bootstrap(values, np.arange(400), draws=4000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_copies_do_not_narrow_the_interval():
    values, families = np.random.default_rng(0).random(60), np.arange(60)
    once = report.family_bootstrap(values, families)
    copied = report.family_bootstrap(np.repeat(values, 5), np.repeat(families, 5))
    as_rows = report.family_bootstrap(np.repeat(values, 5), np.arange(300))
    assert copied == pytest.approx(once) and (as_rows[1] - as_rows[0]) < 0.6 * (once[1] - once[0])
