"""Records: computed once, never believed half-written, never stale."""

import json
import subprocess
import sys
from dataclasses import dataclass

import pandas as pd
import pytest

from xmalign_lab import records


@dataclass(frozen=True)
class Plain:
    name: str = "plain"

    def to_json(self) -> str:
        return json.dumps({"name": self.name, "seed": 0})


def writes(folder):
    pd.DataFrame({"step": [1, 2], "total": [2.0, 1.0]}).to_parquet(folder / "steps.parquet")


def test_runs_once_and_reads_back(tmp_path):
    calls = []
    record = records.get_or_run(Plain(), lambda f: (calls.append(f), writes(f)), ["data"], tmp_path)
    again = records.get_or_run(Plain(), lambda f: calls.append(f), ["data"], tmp_path)
    assert len(calls) == 1 and again.folder == record.folder
    assert record.recipe["name"] == "plain" and record.steps.total.tolist() == [2.0, 1.0] and record.edits == []
    assert record.environment["inputs"] == ["data"] and "torch" in record.environment["packages"]


def test_recipe_data_and_source_make_the_key(tmp_path, monkeypatch):
    keys = {records.get_or_run(Plain(), writes, ["a"], tmp_path).key, records.get_or_run(Plain(), writes, ["b"], tmp_path).key}
    keys.add(records.get_or_run(Plain("other"), writes, ["a"], tmp_path).key)
    monkeypatch.setattr(records, "source_hash", lambda module: "changed code")
    keys.add(records.get_or_run(Plain(), writes, ["a"], tmp_path).key)
    assert len(keys) == 4


def test_a_failed_run_is_not_believed_and_finds_what_it_left(tmp_path):
    def fails(folder):
        (folder / "left").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        records.get_or_run(Plain(), fails, [], tmp_path)
    assert list(tmp_path.glob("*/DONE")) == []
    seen = []
    records.get_or_run(Plain(), lambda f: (seen.append((f / "left").read_text()), writes(f)), [], tmp_path)
    assert seen == ["half"] and len(list(tmp_path.glob("*/DONE"))) == 1


def test_two_processes_run_it_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from xmalign_lab import records\n"
        "from tests.test_records import Plain, writes\n"
        "def run(f): open(f / 'calls', 'a').write('x'); time.sleep(1); writes(f)\n"
        "records.get_or_run(Plain(), run, [], Path(sys.argv[1]))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [p.wait(timeout=120) for p in both] == [0, 0]
    (done,) = tmp_path.glob("*/DONE")
    assert done.with_name("calls").read_text() == "x"


def test_source_that_only_shows_results_is_not_hashed():
    names = [p for p in records.SHOWN_ONLY]
    here = records.Path(records.__file__).parent
    assert all((here / name).exists() for name in names), "the list names files that are gone"


def test_frame_hash_sees_values_and_order():
    frame = pd.DataFrame({"left": ["a", "b"], "weight": [1.0, 0.5]})
    assert records.frame_hash(frame) == records.frame_hash(frame.copy())
    assert records.frame_hash(frame) != records.frame_hash(frame.iloc[::-1])
    assert records.frame_hash(frame) != records.frame_hash(frame.assign(weight=[1.0, 0.6]))


def test_a_record_forgets_only_what_its_module_can_reach():
    names = {path.relative_to(path.parents[1] if path.parent.name == "xmalign_lab" else path.parents[2]).as_posix()
             for path in records.reached("xmalign_lab.baselines")}  # fmt: skip
    assert {"xmalign_lab/baselines.py", "xmalign_lab/train.py", "xmalign_lab/losses/contrastive.py"} <= names
    assert {"xmalign_lab/adaptive.py", "xmalign_lab/sweep.py", "xmalign_lab/plots.py"}.isdisjoint(names)


def test_what_is_imported_inside_a_function_or_over_others_is_reached(tmp_path):
    package = tmp_path / "some"
    (package / "deep").mkdir(parents=True)
    sources = {
        "a.py": "def f():\n    from some.deep import c\n",
        "deep/__init__.py": "",
        "deep/c.py": "import some.d\nimport json\n",
    }
    for name, source in (sources | {"d.py": "", "other.py": "import some.a\n"}).items():
        (package / name).write_text(source)
    found = {path.relative_to(package).as_posix() for path in records.reached("some.a", package)}
    assert found == {"a.py", "deep/__init__.py", "deep/c.py", "d.py"}
