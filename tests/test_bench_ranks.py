"""`bench/bench_ranks.py query` on a small gallery: what it writes, and that it times right answers."""

import json

import numpy as np
import pytest

from bench import bench_ranks
from xmalign_lab import similarity


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_ranks.profile, "repository", lambda: tmp_path)
    monkeypatch.setattr(bench_ranks, "WIDTHS", (8, 16))
    monkeypatch.setattr(bench_ranks, "TIMES", {1: 3, 4: 2})
    return tmp_path / "build" / "bench" / "query.json"


def test_every_width_number_of_queries_and_way_is_timed_and_written(small, capsys):
    bench_ranks.main("query", "300")
    facts = json.loads(small.read_text(encoding="utf-8"))
    asked = [(run["width"], run["queries"], run["times"], run["by"]) for run in facts["runs"]]
    ways = ("similarity.top_k", "plain torch")
    assert asked == [(width, n, times, by) for width in (8, 16) for n, times in ((1, 3), (4, 2)) for by in ways]
    assert all(0 < run["median ms"] <= run["95th percentile ms"] for run in facts["runs"])
    assert facts["rows"] == 300 and facts["runs"][0]["gallery MB"] == pytest.approx(300 * 8 * 4 / 2**20)
    assert capsys.readouterr().out.count("similarity.top_k") == 4


def test_plain_torch_finds_the_ten_of_an_argsort(small):
    rng = np.random.default_rng(0)
    queries, gallery = (similarity.unit(rng.standard_normal((n, 16))) for n in (5, 200))
    scores, found = bench_ranks.plain(queries, gallery, 10)
    assert (found == np.argsort(-(queries @ gallery.T), 1)[:, :10]).all() and np.allclose(
        scores[:, 0], (queries @ gallery.T).max(1)
    )


def test_a_search_that_finds_something_else_stops_the_bench(small, monkeypatch):
    monkeypatch.setattr(bench_ranks, "plain", lambda queries, gallery, k: similarity.top_k(queries, gallery[1:] * 0.5, k))
    with pytest.raises(AssertionError, match="tolerance"):
        bench_ranks.main("query", "300")
