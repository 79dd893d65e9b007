"""The method for low-resource languages: what each part adds, what training alone may see, and that it all runs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from xmalign_lab import baselines, corpora, lowresource, study
from xmalign_lab.corpus import split_by_family
from xmalign_lab.encoders.classic import ClassicImage
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.recipe import Recipe

TARGETS = ("swh_Latn", "sin_Sinh")
SMALL = {"epochs": 2, "hidden": 16, "dim": 8, "components": 4, "batch_pairs": 200, "least_count": 1}


@pytest.fixture(scope="module")
def task():
    corpus = split_by_family(corpora.load("scenes", ["eng_Latn", *TARGETS], n=80), 0)
    text = lowresource.leveled(corpus, ())
    images = ClassicImage().encode(corpus, progress=False)
    pairs = bridge(study.training_part(corpus, "test"), list(TARGETS))
    return study.Task(corpus, {"image": images, "text": text}, pairs, np.ones(len(pairs), bool), TARGETS, 0)


def test_levels_weigh_letters_and_words_alike(task):
    both = lowresource.leveled(task.corpus, ("levels",))
    assert both.ids.tolist() == task.features["text"].ids.tolist()
    squares = both.vectors.multiply(both.vectors)
    half = both.width // 2
    for part in (squares[:, :half], squares[:, half:]):
        np.testing.assert_allclose(np.asarray(part.sum(1)).ravel(), 0.5, rtol=1e-5)


def test_each_part_adds_its_own_relations_and_nothing_else(task):
    plain = set(lowresource.arranged(task, ()).pairs.sources)
    assert plain == set(task.pairs.sources)
    added = {part: set(lowresource.arranged(task, (part,)).pairs.sources) - plain for part in lowresource.PARTS}
    assert added["pseudo-pairs"] == {f"image-{target}" for target in TARGETS}
    assert added["code-switching"] == {f"image-eng_Latn~{target}" for target in TARGETS}
    assert added["levels"] == added["distribution"] == added["distillation"] == added["regression"] == set()


def test_what_is_made_comes_from_training_families_alone(task):
    made = lowresource.arranged(task, lowresource.PARTS)
    assert len(made.truth) == len(made.pairs) > len(task.pairs)
    made.pairs.check([*made.features["text"].ids, *made.features["image"].ids])
    split = task.corpus.lookup("split")
    ends = {row_id.split("~")[0] for side in ("left", "right") for row_id in made.pairs.rows[side]}
    assert {split[row_id] for row_id in ends if not row_id.startswith(("word:", "class:"))} == {"train", "validation"}
    asked = task.asked.where_rows(modality="text").ids
    without = replace(task, corpus=task.corpus.select(~task.corpus.rows.id.isin(asked)))
    same = lowresource.arranged(without, lowresource.PARTS)
    assert same.pairs.rows.equals(made.pairs.rows), "a test text has no part in any pair"


def test_pictures_meet_a_target_through_the_pairs_that_are_believed(task):
    weight = np.where(np.arange(len(task.pairs)) % 3, 0.5, 1.0)
    made = lowresource.arranged(replace(task, pairs=task.pairs.assign(weight=weight)), ("pseudo-pairs",)).pairs.rows
    known = task.pairs.assign(weight=weight).rows
    to_pivot = {(a, b): w for a, b, w in known[["left", "right", "weight"]].to_numpy()}
    for picture, text, w in made[made.source == "image-swh_Latn"][["left", "right", "weight"]].to_numpy():
        ways = [u * to_pivot.get((b, text), 0) for (a, b), u in to_pivot.items() if a == picture]
        assert w == pytest.approx(max(ways))


def test_a_picture_is_guided_by_its_captions_and_a_translation_by_its_original(task):
    class Master:
        @staticmethod
        def encode_text(features):
            return np.eye(len(features), dtype=np.float32)

    rows = task.pairs.rows
    lost = rows.index[rows.source == "eng_Latn-sin_Sinh"][0]
    weighed = task.pairs.assign(weight=np.where(rows.index == lost, 0.0, 1.0))
    guide = lowresource.guided(task, weighed, Master)
    np.testing.assert_allclose(np.linalg.norm(guide.vectors, axis=1), 1, rtol=1e-5)
    of_text = dict(zip(guide.ids, guide.vectors, strict=True))
    believed = rows[rows.index != lost]
    for picture, captions in rows[rows.source == "image-eng_Latn"].groupby("left").right:
        mean = sum(of_text[caption] for caption in captions)
        np.testing.assert_allclose(of_text[picture], mean / np.linalg.norm(mean), rtol=1e-5)
    for text, originals in believed[believed.source == "eng_Latn-sin_Sinh"].groupby("right").left:
        mean = sum(of_text[original] for original in originals)
        np.testing.assert_allclose(of_text[text], mean / np.linalg.norm(mean), rtol=1e-5)
    assert rows.right[lost] not in of_text, "a pair of no weight says nothing"
    assert not set(guide.ids) & set(task.asked.ids)


def test_topics_are_those_of_pictures_and_pivot_texts(task):
    labels = [{lowresource.TOPICS: family[-1]} for family in task.corpus.rows.family]
    labelled = replace(task, corpus=replace(task.corpus, rows=task.corpus.rows.assign(labels=labels)))
    rows = lowresource.arranged(labelled, ("topics",)).pairs.rows
    rows = rows[rows.source.str.startswith("topic of")]
    modality, lang, family = (task.corpus.lookup(column) for column in ("modality", "lang", "family"))
    assert {(modality[i], lang[i]) for i in rows.left} == {("image", ""), ("text", "eng_Latn")}
    assert (rows.right == [f"class:{lowresource.TOPICS}:{family[i][-1]}" for i in rows.left]).all()


def test_the_objective_takes_terms_and_shares_of_its_parts(task):
    assert dict(lowresource.objective(Recipe(), task.pairs, ()).terms) == {"info_nce": 1.0}
    for part, terms in lowresource.TERMS.items():
        assert dict(lowresource.objective(Recipe(), task.pairs, (part,)).terms) == {"info_nce": 1.0} | terms
    many = lowresource.arranged(task, lowresource.PARTS).pairs
    whole = lowresource.objective(Recipe(relations={"rest-eng_Latn": 2.0}), many, lowresource.PARTS)
    assert whole.relations["rest-eng_Latn"] == 2.0, "what the recipe says goes before"
    assert {source for source in whole.relations if not source.startswith(tuple(lowresource.SHARE))} == set()


def test_a_ridge_moves_target_texts_alone_and_is_kernel_ridge_without_the_head(task):
    recipe = Recipe(**SMALL)
    aligner, _ = lowresource.fit(recipe, task.features, task.pairs, progress=False)
    plain, mean, ridge = (
        lowresource.placed(task, aligner, task.features, regression, own)["text"]
        for regression, own in ((False, True), (True, True), (True, False))
    )
    texts = task.asked.where_rows(modality="text").rows
    target = np.isin(texts.lang, TARGETS)
    moved = np.linalg.norm(mean.vectors - plain.vectors, axis=1) > 1e-4
    assert not moved[~target].any() and moved[target].mean() > 0.9
    both = plain.vectors + ridge.vectors
    np.testing.assert_allclose(mean.vectors[target], (both / np.linalg.norm(both, axis=1, keepdims=True))[target], atol=1e-5)
    assert (plain.vectors == aligner.encode_text(Features(texts.id, task.features["text"].take(texts.id)))).all()


def test_two_spaces_side_by_side_add_up_their_similarities(task):
    recipe = Recipe(**SMALL)
    aligner, _ = lowresource.fit(recipe, task.features, task.pairs, progress=False)
    spaces = [lowresource.placed(task, aligner, task.features, regression) for regression in (False, True)]
    both = [lowresource.side_by_side([space[m] for space in spaces]).vectors for m in ("image", "text")]
    apart = sum(space["image"].vectors @ space["text"].vectors.T for space in spaces)
    np.testing.assert_allclose(both[0] @ both[1].T, apart, atol=1e-5)


def test_the_whole_method_and_its_ablation_run(task, tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_RUNS", str(tmp_path))
    method, recipe = lowresource.METHODS["whole transfer"]
    for of in (method, partial(lowresource.built, parts=lowresource.PARTS)):
        scores = of(task, replace(recipe, **SMALL))
        assert set(scores.lang) == {"eng_Latn", *TARGETS} and scores["rank"].notna().all()
    nothing = replace(task, pairs=task.pictured, truth=np.ones(len(task.pictured), bool))
    parts = {name: set(of.keywords["parts"]) for name, (of, _) in lowresource.ABLATION.items()}
    chosen = set(method.keywords["parts"])
    changed = [part for part in lowresource.PARTS for name in (f"lacking {part}", f"adding {part}") if name in parts]
    assert changed == list(lowresource.PARTS), "every part is taken away or put in"
    assert all(parts[f"lacking {part}"] == chosen - {part} for part in chosen)
    with pytest.raises(baselines.NotApplicable, match="no parallel text in swh_Latn, sin_Sinh: nothing to transfer over"):
        lowresource.built(nothing, recipe, ())
