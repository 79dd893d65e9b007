"""The README's generated blocks, and what it promises."""

import ast
import json
import re
from pathlib import Path

import pytest

from bench import readme

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


def test_the_study_block_is_the_recorded_table_and_says_how_it_was_made(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "random-noise-40-all.md").write_text("| a | M-CLIP | 0.15 |\n\nMRR")
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
    block = readme.study(tmp_path)
    assert block.startswith("| a | M-CLIP | 0.15 |")
    assert "test families; run: clean, text 10%; 90 runs of 8 s on average on one core of 2 cores, 2026-01-02" in block
    assert "commit abc1234" in block


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
