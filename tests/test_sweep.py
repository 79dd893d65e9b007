"""The study: what is planned, what a run trains on, that it resumes, and that validation is as noisy as training."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from xmalign_lab import adaptive, sweep
from xmalign_lab.batches import Batches
from xmalign_lab.corpus import Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate import report
from xmalign_lab.sweep import CLEAN, NOISE, POOLS, TEXT, Condition, Run, plan

SCENES = {"corpus": "scenes", "size": 120, "targets": ("swh_Latn", "sin_Sinh")}
QUICK = '{"epochs": 2, "hidden": 16, "dim": 8, "components": 16, "batch_pairs": 200, "least_count": 1}'


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XMALIGN_RUNS", str(tmp_path / "runs"))
    sweep._data.cache_clear()


def test_the_plan_leaves_out_what_would_repeat_another_run():
    runs = list(plan(["constant τ", "no dictionary", "oracle filter"]))
    per = {m: [r for r in runs if r.method == m] for m in ("constant τ", "no dictionary", "oracle filter")}
    assert len(per["constant τ"]) == 5 * (1 + len(NOISE) + len(TEXT)) and len(set(runs)) == len(runs)
    assert {r.condition for r in per["no dictionary"]} == {CLEAN} and len(per["no dictionary"]) == 5
    assert {r.condition for r in per["oracle filter"]} == set(NOISE)
    assert {r.fold for r in runs} == set(range(5))
    pools = list(plan(["mined", "dictionary alone", "oracle mining", "constant τ"], POOLS, [0]))
    assert [str(r.condition) for r in pools if r.method == "dictionary alone"] == [str(c) for c in POOLS if c.words]
    assert {r.condition for r in pools if r.method == "mined"} == set(POOLS) and "constant τ" not in {r.method for r in pools}
    parts = list(plan(["all parts", "only belief"]))
    assert {(r.condition, r.targets) for r in parts} == {(NOISE[0], sweep.ABLATED)} and len(parts) == 10
    crossed = {(r.method, r.condition) for r in plan(["CL2CM", "CL2CM, no words"])}
    assert crossed == {("CL2CM", CLEAN), ("CL2CM", NOISE[1]), ("CL2CM, no words", NOISE[1])}
    scenes = sweep.on_scenes("test")
    assert {r.corpus for r in scenes} == {"scenes"} and {r.condition for r in scenes} == {NOISE[1]}
    assert {*sweep.CROSSED, *sweep.BESIDE} < {r.method for r in scenes} and {r.fold for r in scenes} == set(range(5))


def test_conditions_say_what_they_are():
    assert [str(c) for c in (CLEAN, Condition("hard", 0.4), Condition(text=0.01))] == ["clean", "hard noise 40%", "text 1%"]
    assert str(Condition("hard", 0.4, 0.1)) == "hard noise 40%, text 10%"
    with pytest.raises(ValueError, match="known are random, hard, translation"):
        Condition("loud", 0.4)


def world(run):
    corpus, features = sweep._data(run.corpus, ("eng_Latn", *run.targets), run.size)
    return corpus, features, sweep.task_of(corpus, features, run)


@pytest.mark.parametrize("noise", ["random", "hard", "translation"])
def test_noise_touches_the_parallel_training_pairs_and_no_test_query(noise):
    clean, noisy = Run("constant τ", CLEAN, 0, "test", **SCENES), Run("constant τ", Condition(noise, 0.4), 0, "test", **SCENES)
    corpus, _, before = world(clean)
    _, _, after = world(noisy)
    assert after.pictured.rows.equals(before.pictured.rows)
    assert after.asked.rows.drop(columns="labels").equals(before.asked.rows.drop(columns="labels"))
    group = corpus.lookup("group")
    wrong = np.array(
        [group[left] != group[right] for left, right in zip(after.pairs.rows.left, after.pairs.rows.right, strict=True)]
    )
    copied = after.pairs.rows.right.map(corpus.lookup("lang")).eq("eng_Latn") & after.pairs.rows.source.str.startswith("eng")
    assert ((wrong | copied) == ~after.truth).all() and 0.2 < (
        ~after.truth[after.pairs.rows.source.str.startswith("eng")]
    ).mean() < 0.5
    trained = set(after.pairs.rows.right) | set(after.pairs.rows.left)
    assert not trained & set(after.asked.ids)


def test_validation_is_corrupted_at_the_training_rate():
    clean, noisy = (Run("constant τ", Condition(rate=rate), 0, "validation", **SCENES) for rate in (0.0, 0.6))
    _, _, before = world(clean)
    _, _, after = world(noisy)
    truth, believed = before.asked.lookup("group"), after.asked.lookup("group")
    target = [i for i, lang in before.asked.lookup("lang").items() if lang in SCENES["targets"]]
    other = [i for i in truth if i not in target]
    assert all(truth[i] == believed[i] for i in other)
    assert 0.3 < np.mean([truth[i] != believed[i] for i in target]) < 0.8


def test_pools_hold_no_pair_of_texts_and_a_dictionary_of_training_words():
    shared = {}
    for words in (20, 0):
        run = Run("mined", Condition(shared=0.5, words=words), 0, "test", **SCENES)
        corpus, _, task = world(run)
        shared[words] = task
        assert not len(task.parallel) and len(task.pictured) and task.truth.all()
        families = [set(task.training.where_rows(lang=lang, modality="text").rows.family) for lang in ("eng_Latn", "swh_Latn")]
        assert 0.4 < len(families[0] & families[1]) / len(families[0]) < 0.6
        assert set(task.pictured.rows.right) <= set(task.training.ids)
        assert set(task.asked.ids) == set(corpus.select(sweep.split_by_family(corpus, 0).rows.split == "test").ids)
    assert {target: len(known) for target, known in shared[20].dictionary.items()} == {"swh_Latn": 20, "sin_Sinh": 20}
    assert not shared[0].dictionary and str(Condition(shared=0.5)) == "pools share 50%, no words"
    assert ("kubwa", "large") in shared[20].dictionary["swh_Latn"]


def test_mining_is_recorded_with_its_counts_and_the_ablation_runs():
    mined = Run("mined", Condition(shared=1.0, words=30), 0, "test", changes=QUICK, **SCENES)
    runs = [mined, replace(mined, method="dictionary alone"), replace(mined, method="oracle mining")]
    runs.append(Run("all parts", NOISE[0], 0, "test", changes=QUICK, **SCENES))
    found = [sweep.make(run) for run in runs]
    facts = sweep.facts(runs, found, 1.0)["mined"]
    assert [row["lang"] for row in facts] == list(SCENES["targets"]) and facts[0]["condition"] == "pools share 100%, 30 words"
    assert all(row["count"] > 0 and row["precision"] > 0.5 for row in facts)
    json.loads(json.dumps(facts, allow_nan=False))  # other readers of facts.json know no NaN
    scores = sweep.collect(runs, found)
    assert set(scores.method) == {run.method for run in runs} and "all parts" not in sweep.cells(scores, NOISE[0])


def test_less_text_is_nested_and_leaves_the_pictures():
    kept = []
    for text in (1.0, 0.1, 0.0):
        _, _, task = world(Run("constant τ", Condition(text=text), 0, "test", **SCENES))
        kept.append(set(task.parallel.rows.left))
        assert len(task.pictured)
    assert kept[0] > kept[1] > kept[2] == set()


def test_a_run_is_recorded_once_and_says_when_it_does_not_apply(monkeypatch):
    run = Run("constant τ", CLEAN, 0, changes=QUICK, **SCENES)
    first = sweep.make(run)
    method, recipe = sweep.METHODS["constant τ"]

    def not_again(task, recipe):
        raise AssertionError("it ran again")

    not_again.__module__ = method.__module__
    monkeypatch.setitem(sweep.METHODS, "constant τ", (not_again, recipe))
    assert sweep.make(run).key == first.key and len(first.scores)
    empty = sweep.make(replace(run, method="M-CLIP", condition=Condition(text=0.0)))
    assert not len(empty.scores) and "no parallel text" in (empty.folder / "not_applicable.txt").read_text()
    table = sweep.collect([run, replace(run, method="M-CLIP")], [first, empty])
    assert set(table.method) == {"constant τ"} and set(table.condition) == {"clean"}
    assert "seeds: the fold's number" in report.compare({"a": table, "b": table.assign(rank=table["rank"] + 1)}).protocol
    facts = sweep.facts([run, replace(run, method="M-CLIP", condition=Condition(text=0.0))], [first, empty], 1.26)
    assert facts["not applicable"] == ["M-CLIP, text 0%: no parallel text in swh_Latn, sin_Sinh: nothing to distil over"]
    assert facts["part"] == "smoke" and facts["runs"] == 2 and facts["minutes"] == 1.3


def test_what_a_crossed_method_was_told_lies_beside_its_scores():
    run = Run("pseudo-pairs", CLEAN, 0, changes=QUICK, **SCENES)
    told = pd.read_csv(sweep.make(run).folder / "seen.csv").fillna("")
    assert {"image", "text"} == set(told["left modality"]) and (told.pairs > 0).all()
    pictured = told[(told["left modality"] == "image") & (told["right lang"] != "eng_Latn")]
    assert len(pictured) == len(run.targets) and (pictured.through == pictured.pairs).all(), "only through the English captions"


def test_the_best_method_is_taken_language_by_language_and_references_are_no_rivals():
    base = {"direction": "text→image", "query": "q", "family": "f", "gallery": "g"}
    ranks = {"a": (1, 4), "b": (2, 2), "oracle filter": (1, 1)}
    rows = [base | {"method": m, "lang": lang, "rank": r} for m, of in ranks.items() for lang, r in zip("xy", of, strict=True)]
    rows.append(base | {"method": "a", "lang": "y", "rank": 1, "direction": "image→text"})
    assert sweep.best(pd.DataFrame(rows)) == {"x": "a", "y": "b"}


def test_several_processes_make_what_one_makes(tmp_path):
    runs = [Run("string overlap", CLEAN, fold, changes=QUICK, **SCENES) for fold in (0, 1)]
    alone = [sweep.make(run).scores for run in runs]
    together = sweep.make_all(runs, root=tmp_path / "again", workers=2)
    assert all(a.equals(record.scores) for a, record in zip(alone, together, strict=True))


def test_workers_end_with_the_process_that_began_them():
    code = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from xmalign_lab import adaptive, sweep
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=sweep._quiet)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(300):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker lived on")


def test_a_failing_run_is_named(monkeypatch):
    bad = Run("constant τ", CLEAN, 0, changes='{"epochs": 0}', **SCENES)
    with pytest.raises(RuntimeError, match="constant τ, clean, fold [01]: a recipe needs at least 1 epoch"):
        sweep.make_all([bad, replace(bad, fold=1)], workers=2)


def test_the_recipe_has_the_studys_size_and_the_runs_changes():
    recipe = sweep.recipe_of(Run("CLIP loss", CLEAN, 0, changes='{"temperature": 0.2, "epochs": 3}'))
    assert recipe.hidden == sweep.SIZE["hidden"] and recipe.epochs == 3 and recipe.temperature(0.0, {}, {})[0] == 0.2


def test_what_is_recorded_is_read_and_else_the_smoke_study_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.profile, "repository", lambda: tmp_path)
    runs = [Run("string overlap", CLEAN, 0, changes=QUICK, **SCENES), Run("M-CLIP", TEXT[-1], 0, changes=QUICK, **SCENES)]
    monkeypatch.setattr(sweep, "smoke_runs", lambda: runs)
    monkeypatch.setenv("XMALIGN_PROFILE", "small")
    scores, facts = sweep.recorded()
    assert facts["part"] == "smoke" and facts["runs"] == 2 and set(scores.method) == {"string overlap"}
    assert [reason.split(":")[0] for reason in facts["not applicable"]] == ["M-CLIP, text 0%"]
    folder = tmp_path / "build" / "study"
    folder.mkdir(parents=True)
    scores[:3].to_parquet(folder / "scores.parquet")
    assert len(sweep.recorded()[0]) == len(scores), "half a study is none"
    (folder / "facts.json").write_text(json.dumps(facts | {"part": "test", "commit": "abc"}))
    read, said = sweep.recorded()
    assert len(read) == 3 and (said["part"], said["commit"]) == ("test", "abc") and set(said) == set(facts)
    (folder / "scores.parquet").rename(folder / "moved.parquet")
    assert sweep.recorded()[1]["part"] == "smoke"
    (folder / "moved.parquet").rename(folder / "scores.parquet")
    monkeypatch.setenv("XMALIGN_PROFILE", "smoke")
    assert sweep.recorded()[1]["part"] == "smoke", "CI never depends on what lies in build"


def test_the_smoke_study_says_as_much_as_make_study(tmp_path, monkeypatch):
    from bench import study

    runs = [Run("string overlap", CLEAN, 0, changes=QUICK, **SCENES)]
    monkeypatch.setattr(sweep, "smoke_runs", lambda: runs)
    monkeypatch.setattr(sweep.profile, "repository", lambda: tmp_path)
    monkeypatch.setattr(study, "tables", lambda scores, folder: None)
    monkeypatch.setattr("sys.argv", ["study.py", "--smoke"])
    study.main()
    written = json.loads((tmp_path / "build" / "study-smoke" / "facts.json").read_text())
    assert set(written) == set(sweep.recorded()[1])


def test_the_smoke_study_has_what_notebook_08_shows():
    runs = sweep.smoke_runs()
    assert {run.part for run in runs} == {"test"} and {run.corpus for run in runs} == {"scenes"} and len(runs) <= 34
    for method in ("constant τ", "M-CLIP", "translate-test"):
        assert {str(r.condition) for r in runs if r.method == method} >= {"clean", "random noise 40%", "text 10%"}
    assert {"oracle filter", "no dictionary"} < {r.method for r in runs}
    shown = {"clean", "random noise 40%", "translation noise 40%", "text 10%", "text 0%", *map(str, POOLS[:2])}
    assert {str(r.condition) for r in runs} == shown and set(adaptive.MINING) < {r.method for r in runs}


def test_every_method_takes_as_many_steps_whatever_pairs_it_has(monkeypatch):
    seen = []
    monkeypatch.setitem(
        sweep.METHODS, "spy", (lambda task, recipe: seen.append(recipe.per_epoch) or 1 / 0, sweep.METHODS["M-CLIP"][1])
    )
    for condition in (CLEAN, Condition(rate=0.4), Condition(text=0.1)):
        with pytest.raises(ZeroDivisionError):
            sweep.make(Run("spy", condition, 0, changes='{"batch_pairs": 50}', **SCENES))
    assert len(set(seen)) == 1 and seen[0] > 1


def test_on_validation_methods_that_ran_on_clean_queries_stand_beside_no_noisy_ones():
    base = pd.DataFrame({"method": ["constant τ", "string overlap"], "condition": ["random noise 40%", "clean"]})
    assert set(sweep.cells(base.assign(part="test"), NOISE[0])) == {"constant τ", "string overlap"}
    assert set(sweep.cells(base.assign(part="validation"), NOISE[0])) == {"constant τ"}


def test_where_little_text_is_left_no_batch_is_empty_and_the_steps_are_as_many():
    ids = [f"t{i}" for i in range(6)]
    tables = {"image": (["a", "b", "c"], np.eye(3, dtype=np.float32)), "text": (ids, np.eye(6, dtype=np.float32))}
    features = {modality: Features(*table) for modality, table in tables.items()}
    pairs = Pairs(pd.DataFrame({"left": ["a", "b", "c"], "right": ids[:3], "source": "image-eng_Latn"}))
    batches = Batches(features, pairs, 2, per_epoch=8)
    seen = [batch.rows["image"] for batch in (batches.at(step, 0) for step in range(8))]
    assert all(len(rows) for rows in seen)
    assert np.bincount(np.concatenate(seen), minlength=3).min() >= 2, "each pair comes again"
