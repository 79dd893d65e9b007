"""The README's generated blocks, and what it promises."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import readme
from xmalign_lab import sweep

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def measured() -> tuple[dict, dict]:
    rows = [
        {"lang": lang, "direction": "text→image", "metric": metric, "value": value, "low": low, "high": high, "queries": 1911}
        for lang in readme.NAMES
        for metric, value, low, high in (
            ("MRR", 0.2, 0.1, 0.3),
            ("R@1", 0.1, 0, 0.2),
            ("R@10", 0.4, 0.3, 0.5),
            ("median rank", 21, None, None),
        )
    ]
    chance = {"MRR": 0.017, "R@1": 0.003, "R@10": 0.026, "mean rank": 190.0}
    emoji = {
        "rows": rows,
        "chance": chance,
        "seconds": [9.0, 12.2],
        "machine": "2 cores",
        "date": "2026-01-02",
        "protocol": "ties: mean rank",
    }
    return emoji, {"import": 0.001}


def test_numbers_are_those_measured_with_protocol_machine_and_date():
    block = readme.numbers(*measured())
    assert (
        "| **Swahili**, no picture ever seen | 0.200 [0.100, 0.300] | 0.100 [0.000, 0.200] | 0.400 [0.300, 0.500] | 21 |" in block
    )
    for part in ("ties: mean rank", "9–12 s on 2 cores, 2026-01-02", "Swahili 1,911", "| chance | 0.017 | 0.003 | 0.026 | 190 |"):
        assert part in block


def floors(queries: int = 1911) -> pd.DataFrame:
    values = {"MRR": (0.2243, 0.2, 0.25), "R@1": (0.2, 0.1, 0.3), "R@10": (0.3, 0.2, 0.4), "median rank": (99.6, np.nan, np.nan)}
    columns = ["lang", "direction", "metric", "value", "low", "high", "queries", "method"]
    rows = [("swh_Latn", "text→image", metric, *of, queries, "string overlap") for metric, of in values.items()]
    return pd.DataFrame(rows, columns=columns)


def test_what_no_training_reaches_stands_above_chance_if_it_was_asked_the_same_queries():
    lines = readme.numbers(*measured(), floors()).splitlines()
    row = "| Swahili, string overlap: spelling against the pictures' English names, nothing trained | 0.224 [0.200, 0.250] |"
    assert lines[5].startswith(row) and lines[5].endswith("| 100 |") and lines[6].startswith("| chance |")
    assert "string overlap" not in readme.numbers(*measured(), floors(1910)), "other queries"
    assert "so what tells nothing apart has a lower MRR than chance" in lines[-1]


def test_the_floors_are_read_from_the_record_of_test_families(tmp_path):
    ranks = {"string overlap": [1, 2, 4, 4], "constant τ": [1, 1, 1, 1], "no dictionary": [9, 9, 9, 9]}
    base = {"condition": "clean", "part": "test", "gallery": "google", "size": 10, "query": list("abcd"), "family": list("abcd")}
    parts = [
        pd.DataFrame(base | {"method": method, "lang": lang, "direction": direction, "rank": rank})
        for method, rank in ranks.items()
        for lang in ("swh_Latn", "deu_Latn", "eng_Latn")
        for direction in ("text→image", "image→text")
    ]
    pd.concat(parts).to_parquet(tmp_path / "scores.parquet")
    found = readme.floors_of(tmp_path)
    assert set(found.method) == {"string overlap", "no dictionary"} and set(found.lang) == {"swh_Latn"}
    assert set(found.direction) == {"text→image"} and set(found.queries) == {4}
    assert found.query("method == 'string overlap' and metric == 'MRR'").value.item() == pytest.approx(
        (1 + 1 / 2 + 1 / 4 + 1 / 4) / 4
    )
    pd.concat(parts).assign(part="validation").to_parquet(tmp_path / "scores.parquet")
    assert readme.floors_of(tmp_path) is None


def test_openings_are_counted_with_their_days(tmp_path):
    log = tmp_path / "openings.jsonl"
    assert readme.openings(log) == ""
    days = ["2026-11-21 10:00:00", "2026-11-21 12:00:00", "2026-11-23 09:00:00"]
    log.write_text("".join(json.dumps({"time": day}) + "\n" for day in days))
    assert (
        readme.openings(log) == " Its test scores were opened, [as logged](docs/openings.jsonl): 3 ×, 2026-11-21 to 2026-11-23."
    )


def test_the_study_block_is_the_recorded_table_and_says_how_it_was_made(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "random-noise-40-all.md").write_text("| a | M-CLIP | 0.15 |\n\nMRR")
    values = {"M-CLIP": 0.131, "Procrustes": 0.12, "adaptive ridge": 0.167, "oracle filter": 0.3, "string overlap": 0.221}
    table = pd.DataFrame({"method": list(values), "lang": "mean", "value": values.values()})
    table.to_csv(tmp_path / "tables" / "random-noise-40-all.csv", index=False)
    facts = {
        "part": "test",
        "conditions": ["clean", "text 10%"],
        "runs": 90,
        "seconds per run": 7.6,
        "commit": "abc1234",
        "date": "2026-01-02",
        "environment": {"machine": "2 cores"},
    }
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    assert "Registered" not in readme.study(tmp_path), "older records have none"
    test = {"lang": "swh_Latn", "a": "adaptive ridge", "b": "kernel ridge", "difference": 0.0123, "low": -0.001, "high": 0.02}
    facts["registered"] = [
        test | {"p, Holm": 0.0002, "p is the floor": True},
        test | {"lang": "sin_Sinh", "p, Holm": 0.31, "p is the floor": False},
    ]
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    block = readme.study(tmp_path)
    assert "*adaptive ridge* 0.167, the best baseline *M-CLIP* 0.131; *string overlap*" in block and "0.221." in block
    assert (
        "Swahili: adaptive ridge − kernel ridge = +0.012 [-0.001, +0.020], p ≤ 0.0002; Sinhala: " in block
        and "p = 0.31." in block
    )
    assert "| a | M-CLIP | 0.15 |" in block
    assert "test families; run: clean, text 10%; 90 runs of 8 s on average on one core of 2 cores, 2026-01-02" in block
    assert "commit abc1234" in block


def test_the_overview_has_a_row_per_method_and_a_column_per_condition(tmp_path):
    assert readme.overview(tmp_path) == ""
    ranks = {("kernel ridge", "clean"): 2, ("kernel ridge", readme.OVER_BY): 4, ("adaptive ridge", readme.OVER_BY): 2}
    ranks |= {("no dictionary", "clean"): 10, ("all parts", readme.OVER_BY): 1, ("oracle filter", readme.OVER_BY): 1}
    rows = [
        {"method": m, "condition": c, "lang": lang, "query": f"q{i}", "family": f"f{i}", "rank": rank + (i % 2)}
        for (m, c), rank in ranks.items()
        for lang in ("swh_Latn", "sin_Sinh", "eng_Latn")
        for i in range(20)
    ]
    fixed = {"direction": "text→image", "gallery": "a", "size": 40, "noise": "random", "rate": 0.0, "text": 1.0}
    pd.DataFrame(rows).assign(**fixed).to_parquet(tmp_path / "scores.parquet")
    lines = readme.overview(tmp_path).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| **adaptive ridge**", "| kernel ridge", "| *oracle filter*", "| *no dictionary*"
    ]  # fmt: skip
    assert "| 0.417 |  | 0.225 |" in lines[3] and lines[5].count("0.095") == len(readme.OVER)


def test_what_was_recovered_mined_and_taken_apart_is_read_from_the_record(tmp_path):
    half, random = str(sweep.POOLS[1]), str(sweep.NOISE[0])
    ranks = {("constant τ", random): 10, ("oracle filter", random): 5, ("adaptive", random): 5, ("adaptive ridge", random): 10}
    ranks |= {("mined", half): 4, ("kernel ridge", "clean"): 2, ("kernel ridge", random): 10}
    rows = [
        {"method": method, "condition": condition, "lang": lang, "query": f"q{i}", "family": f"f{i}", "rank": rank}
        for (method, condition), rank in ranks.items()
        for lang in ("swh_Latn", "sin_Sinh")
        for i in range(20)
    ]
    fixed = {"direction": "text→image", "gallery": "a", "size": 40, "noise": "random", "rate": 0.0, "text": 1.0}
    pd.DataFrame(rows).assign(**fixed).to_parquet(tmp_path / "scores.parquet")
    parts = {"part": ["belief", "stages"], "removed": [0.1, -0.1], "removed p": [0.01, 0.2]}
    parts |= {"alone": [0.1, -0.1], "alone p": [0.2, 0.01]}
    pd.DataFrame(parts).to_csv(tmp_path / "ablation.csv", index=False)
    facts = {
        "mined": [{"condition": half, "lang": lang, "precision": p} for lang in ("swh_Latn", "sin_Sinh") for p in (0.8, 0.9)]
    }
    said = readme.beyond(tmp_path, facts).strip().splitlines()
    assert said[0].startswith(f"- Swahili, {random}") and "*adaptive* 100% [100%, 100%], *adaptive ridge* 0% [0%, 0%]" in said[0]
    assert "85% of the mined pairs are right; MRR is 50% [50%, 50%]" in said[2]
    assert said[4].endswith("of 2 parts shown to help when removed or alone (Holm, one seed a fold): belief; to harm: stages.")
    assert readme.beyond(tmp_path / "nothing", {}) == ""


def test_only_the_marked_block_changes_and_twice_is_once():
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb"
    once = readme.fill(text, {"x": "new \\1"})
    assert once == "a\n<!-- begin x -->\nnew \\1\n<!-- end x -->\nb" and readme.fill(once, {"x": "new \\1"}) == once
    with pytest.raises(ValueError, match="block 'y'"):
        readme.fill(text, {"y": ""})


def test_the_notebook_table_is_up_to_date():
    table = re.search(r"<!-- begin notebooks -->\n(.*?)<!-- end notebooks -->", TEXT, re.S)[1].strip()
    assert table == readme.questions(ROOT / "notebooks"), "run `make readme`"


def test_the_python_on_the_page_imports():
    for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), "README.md", "exec"), {})


def test_the_commands_on_the_page_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", TEXT, re.M))
    assert {"demo", "lab", "test"} <= named <= targets


def test_the_claims_are_told_with_their_intervals():
    found = [
        {"condition": "clean", "measure": measure, "run": "static", "mean": mean, "folds": 5}
        for measure, mean in (("steps to 90 % of static's", 40.0), ("final MRR", 0.2), ("least rank", 31.0))
    ]
    found += [row | {"run": "stages", "difference": 0.25, "low": -0.25, "high": 0.75} for row in found]
    found += [found[1] | {"run": "temperature", "difference": 0.25, "low": 0.125, "high": 0.375}]
    found += [found[0] | {"run": "temperature", "difference": 9.0, "low": 8.0, "high": 10.0, "folds": 2}]
    said = readme.claims(found)
    assert "final MRR, 1 of 2 differences shown: clean, temperature +0.250 [+0.125, +0.375]" in said
    assert "steps to 90 % of static's, 0 of 2 differences shown." in said, "two folds show nothing"


def test_towers_are_told_with_wilsons_intervals():
    row = {"lang": "swh_Latn", "gallery": 500, "R@1": 0.99, "mean rank": 1.01, "R@1 of 16 alike": 0.6}
    said = readme.towers({"scores": [row], "seconds": 100.4, "cpu_seconds": 175.2})
    z, n, k = 1.959964, 500, 495  # Wilson 1927, written out
    middle, half = (k + z * z / 2) / (n + z * z), z / (n + z * z) * (k * (n - k) / n + z * z / 4) ** 0.5
    assert f"| Swahili | 500 | 0.990 [{middle - half:.3f}, {middle + half:.3f}] | 0.600 [" in said
    assert "chance 0.002 and 0.062" in said
    assert "Training took 175 s of one core's time (100 s by the clock" in said


def test_the_crossed_methods_are_told_by_sum_with_the_rest_folded_away(tmp_path):
    (tmp_path / "tables").mkdir()
    for metric in ("R@1", "SumR"):
        (tmp_path / "tables" / f"crossed-emoji-{metric}.md").write_text(f"| table of {metric} |\n\nhow to read {metric}\n")
    said = readme.crossed(tmp_path)
    assert said.startswith("**Emoji**, SumR:\n\n| table of SumR |\n\n<details>") and "Scenes" not in said
    assert said.index("how to read SumR") < said.index("| table of R@1 |") < said.index("</details>")


def test_real_text_is_told_a_row_per_method_and_a_row_per_question():
    table = [
        {"method": method, "lang": lang, "value": value, "low": 0.1, "high": 0.9, "queries": 1004, "seeds": 3}
        for method, value in {"CLIP loss": 0.25, "whole method": 0.5}.items()
        for lang in ("sin_Sinh", "swh_Latn", "mean")
    ]
    asked = [("to English", "R@1"), ("from English", "R@1"), ("to English", "mean rank"), ("to English, CSLS", "R@1")]
    facts = {"parts": ["rarity"], "tables": [{"direction": way, "metric": metric, "table": table} for way, metric in asked]}
    lines = readme.sentences(facts).splitlines()
    assert len(lines) == 6 and lines[0].count("Swahili") == lines[0].count("Sinhala") == 4
    row = "| whole method | 0.500 [0.100, 0.900] | 0.500 [0.100, 0.900] | 0.5 [0.1, 0.9] |"
    assert lines[3].startswith(row) and "1,004 sentences" in lines[5] and "3 seeds" in lines[5] and "rarity" in lines[5]
    values = dict.fromkeys(("letter n-grams", "sentence level", "sentence and word level"), [0.5, 0.4, 0.6])
    row = {"pairs": "human", "asked": "to English", "metric": "R@1", "language": "mean", **values}
    others = [row | {"language": "deu_Latn"}, row | {"asked": "word links", "metric": "AER", "language": "fra_Latn"}]
    told = [of | {"words less sentences": [-0.1, -0.2, 0.0, 0.04]} for of in (row, *others)]
    lines = readme.taught({"lines": told, "captions": 1000, "seeds": [0, 1, 2]}).splitlines()
    assert (
        len(lines) == 6 and "to English, R@1 |" in lines[2] and "AER, French" in lines[3] and "-0.100 [-0.200, 0.000]" in lines[3]
    )


def test_the_whole_method_is_told_with_what_it_loses_without_each_part(tmp_path):
    (tmp_path / "tables").mkdir()
    for metric in ("R@1", "mean-rank"):
        (tmp_path / "tables" / f"transfer-{metric}.md").write_text(f"table of {metric}")
    parts = []
    for method, rank in {"all of transfer": 2, "nothing transferred": 10, "lacking levels": 2}.items():
        rows = pd.DataFrame(
            {"query": [f"q{i}" for i in range(60)], "family": [f"f{i // 2}" for i in range(60)], "method": method}
        )
        rows = rows.assign(lang="swh_Latn", rank=rank + np.arange(60) % 2 * (rank > 2), size=40, gallery="a", condition="clean")
        parts.append(rows.assign(direction="text→image", noise="random", rate=0.0, text=1.0))
    pd.concat(parts).to_parquet(tmp_path / "scores.parquet")
    said = readme.transfer(tmp_path)
    assert (
        said.startswith("table of R@1\n\n<details><summary>Mean rank</summary>\n\ntable of mean-rank") and "Holm over 2" in said
    )
    assert "nothing transferred -0.40" in said and "lacking levels -0.000 [-0.000, -0.000], p = 1" in said
