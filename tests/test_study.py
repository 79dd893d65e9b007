"""From a corpus to records over five folds: nothing of a test family is trained on, every family is tested once."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from xmalign_lab import study
from xmalign_lab.corpus import Corpus, CorpusError, fold_of, split_by_family
from xmalign_lab.encoders.features import Features
from xmalign_lab.model import Aligner
from xmalign_lab.pairs.parallel import bridge, direct
from xmalign_lab.train import Recipe

RECIPE = Recipe(epochs=2, batch_pairs=60, dim=8, hidden=8, components=8)
N = 40


def corpus() -> Corpus:
    rows = []
    for k in range(N):
        shared = {"group": f"g{k}", "family": f"f{k // 2}"}
        for vendor in ("google", "twitter"):
            rows.append(shared | {"id": f"g{k}:{vendor}", "image": f"{k}.png", "source": vendor, "kind": "picture"})
        for lang in ("eng_Latn", "swh_Latn"):
            for kind in ("name", "keywords"):
                if lang == "swh_Latn" and kind == "name" and k % 10 == 0:
                    continue  # this language lacks a name: it loses the query
                rows.append(shared | {"id": f"g{k}:{lang}:{kind}", "lang": lang, "kind": kind, "text": f"{kind} {k}"})
    return Corpus(pd.DataFrame(rows), "toy")


@pytest.fixture
def world():
    toy, rng = corpus(), np.random.default_rng(0)
    tables = {}
    for modality in ("image", "text"):
        ids = toy.where_rows(modality=modality).ids
        tables[modality] = Features.from_arrays(rng.normal(size=(len(ids), 12)), ids)
    return toy, tables


def test_bridge_has_no_image_target_pair_and_direct_has(world):
    toy, _ = world
    lang, modality = toy.lookup("lang"), toy.lookup("modality")
    pairs = bridge(toy, ["swh_Latn"]).rows
    seen = {(modality[a], lang[a], modality[b], lang[b]) for a, b in zip(pairs.left, pairs.right, strict=True)}
    assert seen == {("image", "", "text", "eng_Latn"), ("text", "eng_Latn", "text", "swh_Latn")}
    kind = toy.lookup("kind")
    texts = pairs[pairs.source == "eng_Latn-swh_Latn"]
    assert all(kind[a] == kind[b] for a, b in zip(texts.left, texts.right, strict=True))
    assert direct(toy, ["swh_Latn"]).sources == ["image-swh_Latn"]
    with pytest.raises(CorpusError, match="no text in 'sin_Sinh'"):
        bridge(toy, ["sin_Sinh"])


def test_a_held_out_vendor_is_scored_but_never_trained_on(world, tmp_path):
    toy, features = world
    without = bridge(toy, ["swh_Latn"], hold_out=("twitter",))
    assert not without.rows.left.str.endswith(":twitter").any() and without.rows.left.str.endswith(":google").any()
    run = study.run_fold(RECIPE, toy, features, lambda c: bridge(c, ["swh_Latn"], hold_out=("twitter",)), 0, tmp_path)
    assert set(run.scores.gallery) == {"google", "twitter"}
    with pytest.raises(CorpusError, match="no pictures from 'apple'; it has google, twitter"):
        bridge(toy, ["swh_Latn"], hold_out=["apple"])


def test_five_folds_test_every_family_once_and_train_on_none_of_it(world, tmp_path):
    toy, features = world
    trained_on = []

    def make(training):
        trained_on.append(set(training.rows.family))
        return bridge(training, ["swh_Latn"])

    runs = study.run_folds(RECIPE, toy, features, make, root=tmp_path)
    scores = study.pooled_scores(runs)
    english = scores[(scores.lang == "eng_Latn") & (scores.direction == "text→image") & (scores.gallery == "google")]
    assert sorted(english["query"]) == sorted(f"g{k}" for k in range(N))
    swahili = scores[(scores.lang == "swh_Latn") & (scores.direction == "text→image") & (scores.gallery == "google")]
    assert sorted(swahili["query"]) == sorted(f"g{k}" for k in range(N) if k % 10)
    for fold, (run, families) in enumerate(zip(runs, trained_on, strict=True)):
        assert families.isdisjoint(run.scores.family) and all(fold_of(f) == fold for f in run.scores.family)
        assert run.recipe["seed"] == fold
    # the gallery stays whole though a name is missing
    assert (swahili["size"].to_numpy() == swahili.merge(english, on="query")["size_y"].to_numpy()).all()


def test_a_second_call_trains_nothing(world, tmp_path, monkeypatch):
    toy, features = world
    first = study.run_fold(RECIPE, toy, features, lambda c: bridge(c, ["swh_Latn"]), 0, tmp_path)
    monkeypatch.setattr(study, "fit", lambda *a, **k: pytest.fail("trained again"))
    again = study.run_fold(RECIPE, toy, features, lambda c: bridge(c, ["swh_Latn"]), 0, tmp_path)
    assert again.key == first.key
    for name in (
        "recipe.json",
        "env.json",
        "steps.parquet",
        "scores.parquet",
        "edits.jsonl",
        "state.json",
        "aligner.safetensors",
        "DONE",
    ):
        assert (first.folder / name).exists(), name


def test_other_seed_other_record(world, tmp_path):
    toy, features = world
    keys = {
        study.run_fold(replace(RECIPE, seed=s), toy, features, lambda c: bridge(c, ["swh_Latn"]), 0, tmp_path).key for s in (0, 1)
    }
    assert len(keys) == 2


def test_embedded_and_examples_show_what_was_scored(world, tmp_path):
    toy, features = world
    toy = replace(toy, open_image=lambda reference: reference)  # the path stands for the picture
    run = study.run_fold(RECIPE, toy, features, lambda c: bridge(c, ["swh_Latn"]), 0, tmp_path)
    aligner, test = Aligner.load(run.folder), split_by_family(toy, 0).where_rows(split="test")
    points, vectors = study.embedded(aligner, test, features)
    assert set(points.kind) == {"picture", "name"} and len(points) == len(vectors) == (test.rows.kind != "keywords").sum()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    scores = run.scores.query("lang == 'swh_Latn' and direction == 'text→image' and gallery == 'twitter'")
    shown = study.examples(aligner, test, features, list(scores["query"]), "swh_Latn", "twitter", k=len(test))
    assert [example["rank"] for example in shown] == scores["rank"].tolist()
    for example, group in zip(shown, scores["query"], strict=True):
        right = [i for i, hit in enumerate(example["hits"], 1) if hit["correct"]]
        assert right == [example["rank"]] and example["hits"][right[0] - 1]["picture"] == f"{group[1:]}.png"
        assert example["query"] == f"name {group[1:]}" and len(example["hits"]) == scores["size"].iloc[0]
    nameless = next(g for g in test.rows.group.unique() if g not in set(scores["query"]))
    with pytest.raises(CorpusError, match=f"{nameless!r} has no name or caption in swh_Latn"):
        study.examples(aligner, test, features, [nameless], "swh_Latn", "twitter")
