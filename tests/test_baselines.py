"""Each baseline does what its name says, on small scenes and on hand-made words."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ortho_group

from xmalign_lab import baselines, corpora, study, sweep
from xmalign_lab.baselines import METHODS, NotApplicable, refined
from xmalign_lab.corpus import split_by_family
from xmalign_lab.evaluate.retrieval import per_query
from xmalign_lab.pairs.parallel import bridge

TARGETS = ("swh_Latn", "sin_Sinh")
SMALL = {"epochs": 30, "hidden": 64, "dim": 32, "components": 64, "batch_pairs": 300, "least_count": 1}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("XMALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("XMALIGN_RUNS", str(tmp_path_factory.mktemp("runs")))
    corpus = corpora.load("scenes", ["eng_Latn", *TARGETS], n=150)
    features = study.prepare(corpus)
    corpus = split_by_family(corpus, 0)
    pairs = bridge(study.training_part(corpus, "test"), list(TARGETS))
    yield study.Task(corpus, features, pairs, np.ones(len(pairs), bool), TARGETS, 0)
    patch.undo()


def mrr(scores, lang: str) -> float:
    values = per_query(scores, "MRR")
    return float(values[(values.lang == lang) & (values.direction == "text→image")].value.mean())


def run(task, name: str):
    method, recipe = METHODS[name]
    return method(task, replace(recipe, **SMALL))


@pytest.mark.parametrize(
    "name",
    ["constant τ", "CLIP loss", "ALIGN loss", "M-CLIP", "Reimers–Gurevych", "Procrustes", "kernel ridge", "translate-test"],
)
def test_every_method_with_parallel_text_beats_the_model_that_has_none(task, name):
    none = run(task, "no dictionary")
    scores = run(task, name)
    assert set(scores.lang) >= set(TARGETS) and set(scores["query"]) <= set(task.asked.rows.group)
    assert np.mean([mrr(scores, lang) for lang in TARGETS]) > 1.2 * np.mean([mrr(none, lang) for lang in TARGETS])


def test_a_true_translation_scores_exactly_as_english_does(task):
    scores = run(task, "oracle translation")
    english = mrr(scores, "eng_Latn")
    assert all(mrr(scores, lang) == pytest.approx(english) for lang in TARGETS)
    assert english == pytest.approx(mrr(run(task, "no dictionary"), "eng_Latn"))
    assert scores.protocol.str.contains("translate-test: on").all()


def test_an_oracle_filter_is_training_on_the_right_pairs_alone(task):
    wrong = np.arange(len(task.pairs)) % 3 == 0
    noisy = replace(task, truth=~wrong)
    right = replace(task, pairs=task.pairs.select(~wrong), truth=np.ones((~wrong).sum(), bool))
    assert run(noisy, "oracle filter")["rank"].tolist() == run(right, "constant τ")["rank"].tolist()


def test_string_overlap_trains_nothing_and_finds_every_english_name(task):
    scores = run(task, "string overlap")
    assert mrr(scores, "eng_Latn") > 0.99 and mrr(scores, "sin_Sinh") < 0.2
    assert set(scores.direction) == {"text→image"}


@pytest.mark.parametrize("name", ["constant τ", "M-CLIP", "Procrustes", "Procrustes, words", "kernel ridge", "translate-test"])
def test_what_has_nothing_to_train_on_says_so(task, name):
    bare = replace(task, pairs=task.pictured, truth=np.ones(len(task.pictured), bool))
    with pytest.raises(NotApplicable, match="no parallel text in swh_Latn, sin_Sinh"):
        run(bare, name)


def test_projectors_learn_english_alone_and_so_bring_no_sinhala(task):
    alone, both = run(task, "M2M projector"), run(task, "Reimers–Gurevych")
    of_targets = [np.mean([mrr(scores, lang) for lang in TARGETS]) for scores in (alone, both)]
    assert of_targets[0] < 0.9 * of_targets[1] and mrr(alone, "eng_Latn") > of_targets[0]


def test_distillation_leaves_the_pictures_where_the_teacher_put_them(task, monkeypatch):
    seen = {}

    def spy(aligner, asked, features, *rest):
        seen["images"] = aligner.encode_image(features["image"])
        return study.score(aligner, asked, features, *rest)

    monkeypatch.setattr(baselines, "score", spy)
    run(task, "M-CLIP")
    master = baselines.teacher(task, replace(METHODS["M-CLIP"][1], **SMALL))
    ids = task.corpus.where_rows(modality="image").ids
    given = master.encode_image(baselines._rows(task, "image", ids))
    assert np.allclose(seen["images"][: len(ids)], given, atol=1e-6)


def test_procrustes_finds_a_rotation_and_refinement_recovers_what_a_bad_seed_hid():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(200, 12)).astype(np.float32)
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    turn = ortho_group.rvs(12, random_state=0).astype(np.float32)
    target = source @ turn
    everything = np.ones(200, bool)
    exact = refined(source, target, np.stack([np.arange(20)] * 2, 1), 0, everything, everything)
    assert np.allclose(exact, turn, atol=1e-4) and np.allclose(exact @ exact.T, np.eye(12), atol=1e-5)
    seed = np.stack([np.arange(16), np.r_[np.arange(12), 13, 14, 15, 12]], 1)  # four of sixteen are wrong
    errors = [np.abs(refined(source, target, seed, rounds, everything, everything) - turn).max() for rounds in (0, 5)]
    assert errors[1] < 0.3 * errors[0]


def test_what_was_tuned_is_taken_at_the_nearer_noise_and_the_oracle_filter_trains_as_if_clean():
    clean, noisy = baselines.tuned("constant τ", 0.0), baselines.tuned("constant τ", 0.4)
    assert clean != noisy and set(clean) == set(noisy) == {"learning_rate", "temperature"}
    assert baselines.tuned("constant τ", 0.2) == baselines.tuned("constant τ", 0.6) == noisy

    def fields(method, rate):
        recipe = sweep.recipe_of(sweep.Run(method, sweep.Condition(rate=rate), 0))
        return {"learning_rate": recipe.learning_rate, "temperature": recipe.temperature(0, {}, {})[0]}

    for method in ("oracle filter", "adaptive", "all parts", "only belief", "only threshold", "without belief", "without stages"):
        assert fields(method, 0.4) == clean, "what leaves little noise"
    for method in ("no parts", "only stages", "only augmentation"):
        assert fields(method, 0.4) == noisy and fields(method, 0.0) == clean, "what leaves all of it"
    assert baselines.tuned("Procrustes", 0.4) == {}
    recipe = sweep.recipe_of(sweep.Run("constant τ", sweep.Condition(rate=0.4), 0))
    assert recipe.learning_rate == noisy["learning_rate"] and recipe.temperature(0, {}, {})[0] == noisy["temperature"]
