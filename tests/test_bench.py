"""The scripts behind `make study` and the rates of machine translation's errors, on little data."""

import json

import numpy as np
import pandas as pd
import pytest

from bench import claims, mt_noise, study
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


def test_the_registered_tests_are_of_the_whole_method_against_the_chosen_baseline_and_corrected_over_both():
    rng, difficulty, parts = np.random.default_rng(0), np.random.default_rng(1).normal(1.5, 1, 120), []
    names = [f"q{i}" for i in range(120)]
    base = {"condition": str(sweep.NOISE[0]), "part": "test", "direction": "text→image", "gallery": "google", "size": 100}
    base |= {"query": names, "family": names}
    for method, shift in {study.WHOLE: 0.0, "kernel ridge": 0.3, "M-CLIP": 0.02}.items():
        for lang in study.PRIMARY:
            rank = np.maximum(1, np.rint(np.exp(difficulty + shift + rng.normal(0, 0.5, 120))))
            parts.append(pd.DataFrame(base | {"method": method, "lang": lang, "rank": rank}))
    scores = pd.concat(parts)
    rows = study.registered(scores, dict(zip(study.PRIMARY, ("kernel ridge", "M-CLIP"), strict=True)))
    assert [(row["lang"], row["a"], row["b"]) for row in rows] == [
        ("swh_Latn", study.WHOLE, "kernel ridge"),
        ("sin_Sinh", study.WHOLE, "M-CLIP"),
    ]
    value = {(method, lang): (1 / part["rank"]).mean() for (method, lang), part in scores.groupby(["method", "lang"])}
    assert rows[0]["difference"] == pytest.approx(value[study.WHOLE, "swh_Latn"] - value["kernel ridge", "swh_Latn"])
    assert rows[0]["p, Holm"] == pytest.approx(2 * rows[0]["p"]) and rows[0]["p, Holm"] < 0.05 and rows[0]["low"] > 0
    assert rows[1]["p, Holm"] == rows[1]["p"] > 0.05 and not rows[1]["p is the floor"]
    assert json.loads(json.dumps(rows)) == rows and study.registered(scores[scores.method != study.WHOLE], {}) == []


def test_references_are_tested_and_never_bold(checkout, capsys):
    scores = pd.concat(
        pd.DataFrame(
            {
                "query": [f"q{i}" for i in range(40)],
                "family": [f"q{i}" for i in range(40)],
                "lang": "swh_Latn",
                "size": 100,
                "direction": "text→image",
                "gallery": "google",
                "rank": rank,
                "method": method,
                "condition": "clean",
                "part": "test",
            }
        )  # fmt: skip
        for method, rank in {"string overlap": 1.0, "kernel ridge": 3.0, "M-CLIP": 30.0}.items()
    )
    study.tables(scores, checkout)
    lines = (checkout / "tables" / "clean-all.md").read_text(encoding="utf-8").splitlines()
    row = {method: next(line for line in lines if f"| {method} |" in line) for method in ("string overlap", "kernel ridge")}
    assert "**" not in row["string overlap"] and "<sup>" in row["string overlap"] and "**" in row["kernel ridge"]


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


def test_static_against_dynamic_is_paired_by_fold():
    steps, rows = [10, 20, 30, 40], []
    for fold in range(5):
        for name, mrr in {"static": [0.1, 0.2, 0.37, 0.4], "fast": [0.3, 0.4, 0.41, 0.42 + fold / 100]}.items():
            rows.append(pd.DataFrame({"step": steps, "MRR": mrr, "rank": [50, 40, 30, 35 + fold], "run": name, "fold": fold}))
    curves = pd.concat(rows).assign(condition="clean")
    table = claims.told(curves).set_index(["run", "fold"])
    own, level = "steps to 90 % of its own", "steps to 90 % of static's"
    assert table.loc[("static", 0), own] == 30 and table.loc[("fast", 0), level] == 20
    assert table.loc[("fast", 3), ["least rank", "last rank"]].tolist() == [30, 38]
    found = {(row["run"], row["measure"]): row for row in claims.differences(table.reset_index())}
    final = found["fast", "final MRR"]
    gaps = np.array([0.02, 0.03, 0.04, 0.05, 0.06])
    half = 2.776445 * gaps.std(ddof=1) / 5**0.5  # Student's t, four degrees of freedom
    assert final["difference"] == pytest.approx(0.04) and final["high"] == pytest.approx(0.04 + half, abs=1e-6)
    assert final["folds"] == 5 and "difference" not in found["static", "final MRR"]
    never = curves.assign(MRR=curves.MRR.where(curves.run == "static", 0.01))
    assert np.isnan(claims.told(never).query("run == 'fast'")["steps to 90 % of static's"]).all()
