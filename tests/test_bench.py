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
    study.main()
    folder = checkout / "build" / "study-smoke"
    assert set(pd.read_parquet(folder / "scores.parquet").method) == {"constant τ", "string overlap"}
    assert json.loads((folder / "facts.json").read_text(encoding="utf-8"))["conditions"] == ["clean"]
    for name in ("clean-all", "clean-without-flags"):
        for ending in ("md", "html", "tex", "csv", "tests.csv"):
            assert (folder / "tables" / f"{name}.{ending}").read_text(encoding="utf-8")
    assert "| a | constant τ |" in capsys.readouterr().out
    opened = [json.loads(line) for line in (folder / "openings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(opened) == 1 and {"time", "commit", "methods", "conditions"} == set(opened[0])


def test_some_methods_made_again_take_their_own_place_in_the_record(tmp_path):
    def record(commit, cells, rank, part="test"):
        rows = [{"method": method, "condition": condition, "query": "q", "rank": rank} for method, condition in cells]
        mined = [{"method": method, "condition": condition, "fold": 0, "lang": "swh_Latn"} for method, condition in cells]
        facts = {"part": part, "date": commit, "commit": commit, "environment": {}, "minutes": 1.0}
        facts |= {"sets": [{"commit": commit, "runs": {f"{m}, {c}": 5 for m, c in cells}}], "runs": 5 * len(cells)}
        facts |= {"methods": [m for m, _ in cells], "conditions": [c for _, c in cells], "seconds per run": float(rank)}
        return pd.DataFrame(rows), facts | {"mined": mined, "not applicable": [f"{m}, {c}: no" for m, c in cells]}

    def write(scores, facts):
        scores.to_parquet(tmp_path / "scores.parquet")
        (tmp_path / "facts.json").write_text(json.dumps(facts))

    first, second = [("a", "clean"), ("b", "clean"), ("b", "text 10%")], [("b", "clean"), ("c", "clean")]
    assert study.joined(tmp_path, *record("one", first, 1))[1]["commit"] == "one", "nothing to join"
    write(*study.joined(tmp_path, *record("one", first, 1)))
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"claims": ["kept"]}))
    scores, facts = study.joined(tmp_path, *record("two", second, 3))
    by_cell = scores.set_index(["method", "condition"])["rank"].to_dict()
    assert by_cell == {("a", "clean"): 1, ("b", "text 10%"): 1, ("b", "clean"): 3, ("c", "clean"): 3} and len(scores) == 4
    assert facts["commit"] == "one (10 runs), two (10 runs)" and facts["runs"] == 20 and facts["claims"] == ["kept"]
    assert facts["seconds per run"] == 2.0 and facts["methods"] == ["a", "b", "c"]
    assert [of["method"] for of in facts["mined"]] == ["a", "b", "b", "c"] and len(facts["not applicable"]) == 4
    write(scores, facts)
    again = study.joined(tmp_path, *record("three", [*first, *second[1:]], 2))[1]
    assert again["commit"] == "three" and again["runs"] == 20, "nothing is left of the others"
    other, said = study.joined(tmp_path, *record("four", first[:1], 1, "validation"))
    assert len(other) == 1 and said["runs"] == 5, "validation and test never mix"


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
