"""Positives from one language: no grapheme is cut, ids and groups hold, and harder pairs are drawn more often."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.corpus import Corpus, CorpusError, Pairs, concatenate, normalise
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
    with pytest.raises(CorpusError, match="toy: back-translation of 'en', which is no text in 'sin_Sinh'"):
        augment.back_translated(toy, {"g1": "x", "en": "home"}, "sin_Sinh")
    with pytest.raises(CorpusError, match="no text in 'sin_Sinh' was changed; nothing to pair"):
        augment.back_translated(toy, {"g3": SINHALA[3]}, "sin_Sinh")


def test_what_cannot_be_cut():
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), not 1"):
        augment.span_deletion(corpus(SINHALA), "sin_Sinh", 1)
    for lang, texts in (("swh_Latn", SINHALA), ("sin_Sinh", ["ක"])):
        with pytest.raises(CorpusError, match=f"toy: no text in '{lang}' was changed"):
            augment.span_deletion(corpus(texts), lang)


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
