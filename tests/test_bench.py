"""The scripts behind `make study` and the rates of machine translation's errors, on little data."""

import json

import pandas as pd
import pytest

from bench import mt_noise, study
from xmalign_lab import profile, sweep


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    for name in ("CACHE", "RUNS"):
        monkeypatch.setenv(f"XMALIGN_{name}", str(tmp_path / name))
    monkeypatch.setattr(profile, "repository", lambda: tmp_path)
    sweep._data.cache_clear()
    return tmp_path


def test_a_study_leaves_scores_facts_and_tables_and_logs_that_test_scores_were_opened(checkout, monkeypatch, capsys):
    quick = json.dumps({"epochs": 2, "hidden": 16, "dim": 8, "components": 16, "batch_pairs": 200, "least_count": 1})
    fields = {"corpus": "scenes", "size": 120, "targets": ("swh_Latn",), "part": "test", "changes": quick}
    runs = list(sweep.plan(["constant τ", "string overlap"], [sweep.CLEAN], [0], **fields))
    monkeypatch.setattr(sweep, "smoke_runs", lambda: runs)
    monkeypatch.setattr("sys.argv", ["study.py", "--smoke", "--final"])
    assert study.main() == 0
    folder = checkout / "build" / "study-smoke"
    assert set(pd.read_parquet(folder / "scores.parquet").method) == {"constant τ", "string overlap"}
    assert json.loads((folder / "facts.json").read_text(encoding="utf-8"))["conditions"] == ["clean"]
    for name in ("clean-all", "clean-without-flags"):
        for ending in ("md", "html", "tex", "csv", "tests.csv"):
            assert (folder / "tables" / f"{name}.{ending}").read_text(encoding="utf-8")
    assert "| a | constant τ |" in capsys.readouterr().out
    opened = [json.loads(line) for line in (folder / "openings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(opened) == 1 and {"time", "commit", "methods", "conditions"} == set(opened[0])


def test_a_machine_caption_counts_once_as_the_first_error_it_shows():
    videos = [f"v{n}#{k}" for n in range(4) for k in range(5, 10)]
    human = {
        key: f"{chr(0x4E00 + 20 * i)}{chr(0x4E01 + 20 * i)}{chr(0x4E02 + 20 * i)}{chr(0x4E03 + 20 * i)}"
        for i, key in enumerate(videos)
    }
    machine = dict(human)
    machine["v0#5"] += "dog"  # copied
    machine["v1#5"] = machine["v2#5"] = human["v1#5"]  # the same words for two videos
    machine["v3#5"] = human["v3#5"][:1]  # truncated
    machine["v3#6"] = "\u5e00\u5e01\u5e02\u5e03"  # nothing in common
    machine["v3#4"] = "dog"  # the first five were not translated from English: not counted
    assert mt_noise.shares(machine, human | {"v3#4": "x"}) == {
        "copied": 1 / 20, "hub": 2 / 20, "truncated": 1 / 20, "wrong sense": 1 / 20
    }  # fmt: skip
