"""Made pairs: no grapheme is cut, only known words are switched, copies and silence weigh nothing, ids and groups hold."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xmalign_lab.corpus import Corpus, CorpusError, Pairs, concatenate, normalise
from xmalign_lab.encoders.classic import words
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs import augment

SINHALA = ["ශ්‍රී ලංකාව", "කුඩා බළලා", "ක", "නිවස සහ ගස"]  # the first holds U+200D within a letter


def corpus(texts, lang="sin_Sinh"):
    rows = [
        {"id": f"g{i}", "group": f"g{i}", "family": f"f{i // 2}", "lang": lang, "text": t, "kind": "name"}
        for i, t in enumerate(texts)
    ]
    return Corpus(pd.DataFrame([*rows, {"id": "en", "group": "g0", "lang": "eng_Latn", "text": "house", "split": "test"}]), "toy")


def graphemes(text):
    return regex.findall(r"\X", text)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text("කිශ්\u200dරීඅa e\u0301🇹🇿👩\u200d🚀", min_size=1, max_size=12).map(normalise).filter(bool), min_size=1, max_size=6
    ),
    st.floats(0.01, 0.99),
    st.integers(0, 99),
)
def test_one_span_of_whole_graphemes_goes(texts, share, seed):
    toy = corpus(texts)
    try:
        new, pairs = augment.span_deletion(toy, "sin_Sinh", share, seed)
    except CorpusError:
        assert all(len(graphemes(text)) == 1 or " " in text for text in texts)
        return
    text, longer = new.lookup("text"), toy.lookup("text")
    for left, right in zip(pairs.rows.left, pairs.rows.right, strict=True):
        whole = graphemes(longer[left])
        span = int(np.clip(round(share * len(whole)), 1, len(whole) - 1))
        cuts = {normalise("".join(whole[:s] + whole[s + span :])) for s in range(len(whole) - span + 1)}
        assert text[right] in cuts and text[right] != longer[left]


def test_new_rows_are_the_originals_but_for_id_and_text():
    toy = corpus(SINHALA)
    new, pairs = augment.span_deletion(toy, "sin_Sinh", 0.3, seed=4)
    assert pairs.rows.left.tolist() == ["g0", "g1", "g3"] and pairs.sources == ["sin_Sinh-sin_Sinh"]
    assert pairs.rows.right.tolist() == new.rows.id.tolist() == ["g0~cut4", "g1~cut4", "g3~cut4"]
    same = ["group", "family", "modality", "lang", "kind", "split"]
    assert new.rows[same].values.tolist() == toy.rows[toy.rows.id.isin(pairs.rows.left)][same].values.tolist()
    both = concatenate([toy, new], "both")
    pairs.check(both.ids)
    assert not Counter(graphemes("".join(new.rows.text))) - Counter(graphemes("".join(SINHALA))), "no grapheme was cut"
    assert augment.span_deletion(toy, "sin_Sinh", 0.3, seed=4)[0].rows.equals(new.rows)
    assert not augment.span_deletion(toy, "sin_Sinh", 0.3, seed=5)[0].rows.text.equals(new.rows.text)


def test_back_translations_that_changed_something():
    toy = corpus(SINHALA)
    new, pairs = augment.back_translated(toy, {"g1": "කුඩා  පූසා", "g3": SINHALA[3], "g2": " "}, "sin_Sinh")
    assert new.rows.text.tolist() == ["කුඩා පූසා"] and new.rows.id.tolist() == ["g1~back"]
    assert pairs.rows[["left", "right"]].values.tolist() == [["g1", "g1~back"]]
    with pytest.raises(CorpusError, match="toy: a translation of 'en', which is no text in 'sin_Sinh'"):
        augment.back_translated(toy, {"g1": "x", "en": "home"}, "sin_Sinh")
    with pytest.raises(CorpusError, match="'sin_Sinh-sin_Sinh': no text was changed; nothing to pair"):
        augment.back_translated(toy, {"g3": SINHALA[3]}, "sin_Sinh")


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), not 1"):
        augment.span_deletion(corpus(SINHALA), "sin_Sinh", 1)
    for lang, texts in (("swh_Latn", SINHALA), ("sin_Sinh", ["ක"])):
        with pytest.raises(CorpusError, match=f"toy: '{lang}-{lang}': no text was changed"):
            augment.span_deletion(corpus(texts), lang)


# Translations


ENGLISH = ["red house", "small cat", "big tree and house", "tea"]


def test_captions_translated_from_a_table_keep_their_group():
    toy = corpus(ENGLISH, "eng_Latn").where_rows(split="")
    new, pairs = augment.translated(toy, {"g0": "nyumba  nyekundu", "g3": "tea", "g1": ""}, "eng_Latn", "swh_Latn")
    assert new.rows[["id", "group", "family", "lang", "text"]].values.tolist() == [
        ["g0~swh_Latn", "g0", "f0", "swh_Latn", "nyumba nyekundu"]
    ]
    assert pairs.rows.to_dict("records")[0] | {"score": 0} == {
        "left": "g0", "right": "g0~swh_Latn", "weight": 1.0, "score": 0, "source": "eng_Latn-swh_Latn"
    }  # fmt: skip


# Words switched, and words left out

KNOWN = {"house": "nyumba", "red": "nyekundu", "tea": "tea"}


@given(st.floats(0.01, 0.99), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_words_are_switched_by_the_dictionary_alone(share, seed):
    toy = corpus(["Red house, red tea!", "small cat", "house", "house tea"], "eng_Latn").where_rows(split="")
    try:
        new, pairs = augment.code_switched(toy, KNOWN, "eng_Latn", "swh_Latn", share, seed)
    except CorpusError as nothing:
        assert "no text was changed" in str(nothing)
        return
    text = new.lookup("text")
    for left, right in zip(pairs.rows.left, pairs.rows.right, strict=True):
        assert left != "g1" and right == f"{left}~swh_Latn~{seed}"
        before, after = words(toy.lookup("text")[left]), text[right].split()
        assert all(b in (a, KNOWN.get(a)) for a, b in zip(before, after, strict=True)) and before != after
    assert set(pairs.rows.source) == {"eng_Latn-eng_Latn~swh_Latn"} and set(new.rows.lang) == {"eng_Latn"}


def test_the_share_of_words_switched():
    toy = corpus(["house"] * 2000, "eng_Latn").where_rows(split="")
    assert len(augment.code_switched(toy, KNOWN, "eng_Latn", "swh_Latn", 0.3)[0]) == pytest.approx(600, abs=60)
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), not 0"):
        augment.code_switched(toy, KNOWN, "eng_Latn", "swh_Latn", 0)


def test_a_text_and_the_word_it_lacks():
    toy = corpus(["Red house, red tea!", "cat cat", "cat", "small cat"], "eng_Latn").where_rows(split="")
    new, pairs = augment.masked_words(toy, "eng_Latn", seed=3)
    text = new.lookup("text")
    assert set(pairs.rows.left) == {"g0~rest3", "g3~rest3"} and pairs.sources == ["rest-eng_Latn"]
    for rest, word in zip(pairs.rows.left, pairs.rows.right, strict=True):
        whole = words(toy.lookup("text")[rest.split("~")[0]])
        assert text[rest].split() == [w for w in whole if w != text[word]] and text[word] in whole
    assert new.rows.id.is_unique and set(pairs.rows.right) <= set(new.rows.id)


# Classes, mirrors, ways through


def test_classes_are_texts_of_their_own():
    rows = [
        dict(id=f"t{i}", group=f"g{i}", lang=lang, text="x", labels={"topic": topic} if topic else {})
        for i, (lang, topic) in enumerate([("eng_Latn", "food"), ("swh_Latn", "food"), ("eng_Latn", "travel"), ("eng_Latn", "")])
    ]
    new, pairs = augment.classified(Corpus(pd.DataFrame(rows)), "topic", "eng_Latn", "topic")
    assert new.rows.text.tolist() == ["food", "travel"] and set(new.rows.lang) == {"eng_Latn"}
    assert pairs.rows[["left", "right"]].values.tolist() == [
        ["t0", "class:topic:food"], ["t1", "class:topic:food"], ["t2", "class:topic:travel"]
    ]  # fmt: skip
    new, pairs = augment.classified(Corpus(pd.DataFrame(rows)), "lang", "eng_Latn", "language")
    assert new.rows.text.tolist() == ["eng_Latn", "swh_Latn"] and len(pairs) == 4
    with pytest.raises(CorpusError, match="no row has a label 'tone'"):
        augment.classified(Corpus(pd.DataFrame(rows)), "tone", "eng_Latn", "tone")


def test_a_mirrored_picture_is_mirrored():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 4), np.uint8), "RGBA")
    toy = Corpus(pd.DataFrame([dict(id="p", group="g", image="one.png"), dict(id="t", group="g", text="x", lang="eng_Latn")]))
    toy = replace(toy, open_image=lambda reference: {"one.png": picture}[reference])
    new, pairs = augment.mirrored(toy)
    assert (np.asarray(new.picture("p~mirror")) == np.asarray(picture)[:, ::-1]).all()
    assert pairs.rows[["left", "right", "source"]].values.tolist() == [["p~mirror", "p", "image-image"]]


def test_through_takes_the_best_way():
    table = ["left", "right", "weight"]
    first = Pairs(pd.DataFrame([("p", "a", 0.5), ("p", "b", 1.0), ("q", "c", 1.0)], columns=table))
    then = Pairs(pd.DataFrame([("a", "x", 1.0), ("b", "x", 0.4), ("b", "y", 0.3), ("d", "z", 1.0)], columns=table))
    found = augment.through(first, then, "image-x").rows
    assert found[["left", "right", "source"]].values.tolist() == [["p", "x", "image-x"], ["p", "y", "image-x"]]
    assert found.weight.tolist() == pytest.approx([0.5, 0.3])
    with pytest.raises(CorpusError, match="'image-x': no right row of the first pairs is a left row of the second"):
        augment.through(first, first, "image-x")


def test_pictures_find_texts_through_their_captions_neighbours():
    rng = np.random.default_rng(0)
    english = rng.normal(size=(12, 16))
    pivot = Features.from_arrays(english, [f"e{i}" for i in range(12)])
    target = Features.from_arrays(english[:8] + 0.1 * rng.normal(size=(8, 16)), [f"s{i}" for i in range(8)])
    pictured = Pairs(pd.DataFrame({"left": [f"p{i}" for i in range(12)], "right": pivot.ids, "source": "image-eng_Latn"}))
    found = augment.retrieved(pictured, pivot, target, "image-swh_Latn")
    assert {(a[1:], b[1:]) for a, b in found.rows[["left", "right"]].to_numpy()} == {(str(i), str(i)) for i in range(8)}
    assert (found.rows.score >= 1.05).all() and found.sources == ["image-swh_Latn"]


def test_sampling_by_temperature():
    lang = np.array(["a"] * 8 + ["b"] * 2 + ["c"])
    pairs = Pairs(pd.DataFrame({"left": range(11), "right": range(11), "weight": [1.0] * 10 + [0.5]}))
    for alpha in (0.0, 0.3, 1.0):
        total = pd.Series(augment.tempered(pairs, lang, alpha).rows.weight).groupby(lang).sum()
        np.testing.assert_allclose(total / total.sum(), np.array([8, 2, 0.5]) ** alpha / (np.array([8, 2, 0.5]) ** alpha).sum())
    same = augment.tempered(pairs, lang, 1.0)
    assert same.rows.weight.tolist() == pairs.rows.weight.tolist()
    silent = augment.tempered(pairs.assign(weight=0.0), lang)
    assert (silent.rows.weight == 0).all()
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], not 2"):
        augment.tempered(pairs, lang, 2)


# Hardness


def test_hardness_is_the_largest_cosine_to_a_row_that_is_no_partner():
    angles = np.radians([0, 10, 90, 0, 5, 20, 90, 180])
    vectors = Features.from_arrays(np.stack([np.cos(angles), np.sin(angles)], 1), ["a", "b", "c", "A", "A2", "B", "C", "D"])
    rows = [("a", "A", "s"), ("a", "A2", "s"), ("b", "B", "s"), ("c", "C", "s"), ("a", "D", "t")]
    pairs = Pairs(pd.DataFrame(rows, columns=["left", "right", "source"]))
    hard = np.cos(np.radians([20, 20, 5, 70]))  # a: B; b: A2; c: B
    expected = 0.05 + 0.95 * np.exp((hard - hard.max()) / 0.1)
    np.testing.assert_allclose(augment.hardness_weights(pairs, vectors), [*expected, 1], rtol=1e-4)
    flat = augment.hardness_weights(pairs, vectors, temperature=1e6)
    np.testing.assert_allclose(flat, 1, atol=1e-4)
    with pytest.raises(ValueError, match="temperature must be positive, not 0"):
        augment.hardness_weights(pairs, vectors, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 10))
def test_no_pair_is_lost_and_the_hardest_counts_whole(seed, temperature):
    rng = np.random.default_rng(seed)
    vectors = Features.from_arrays(rng.normal(size=(30, 4)), [f"{side}{i}" for side in "ab" for i in range(15)])
    both = {(f"a{i}", f"b{j}") for i, j in rng.integers(15, size=(25, 2))}
    pairs = Pairs(pd.DataFrame(sorted(both), columns=["left", "right"]))
    weights = augment.hardness_weights(pairs, vectors, temperature)
    assert weights.shape == (len(pairs),) and weights.min() >= 0.05 and weights.max() == pytest.approx(1)
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in np.split(vectors.vectors, 2))
    there = sorted(int(b[1:]) for b in set(pairs.rows.right))
    hardest = [max(x[int(a[1:])] @ y[j] for j in there if (a, f"b{j}") not in both) for a in pairs.rows.left]
    assert (np.diff(weights[np.argsort(hardest)]) >= -1e-6).all()
