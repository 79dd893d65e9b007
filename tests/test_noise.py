"""Noise with a known truth: whole families move, everything else stays, and the truth says which."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.pairs.noise import shuffle
from xmalign_lab.pairs.parallel import bridge


def corpus(families: int = 20) -> Corpus:
    """Families of one to three groups; two pictures, and name and keywords in two languages, per group."""
    rows = []
    for family in range(families):
        for variant in range(family % 3 + 1):
            shared = {"group": f"g{family}-{variant}", "family": f"f{family}"}
            name = shared["group"]
            rows += [shared | {"id": f"{name}:{v}", "image": f"{name}.png", "kind": "picture"} for v in ("a", "b")]
            for lang in ("eng_Latn", "swh_Latn"):
                for kind in ("name", "keywords"):
                    if (lang, kind, family % 5) != ("swh_Latn", "keywords", 0):  # some families lack keywords
                        rows.append(
                            shared | {"id": f"{name}:{lang}:{kind}", "lang": lang, "kind": kind, "text": f"{kind} {name}"}
                        )
    return Corpus(pd.DataFrame(rows), "toy")


TOY = corpus()
FAMILY, KIND = TOY.lookup("family"), TOY.lookup("kind")
CLEAN = bridge(TOY, ["swh_Latn"])
TEXTS = "eng_Latn-swh_Latn"


def families(column):
    return np.array([FAMILY[row_id] for row_id in column])


@settings(max_examples=30, deadline=None)
@given(fraction=st.floats(0, 1), seed=st.integers(0, 1000))
def test_the_truth_is_true_and_a_family_moves_whole(fraction, seed):
    noisy, truth = shuffle(CLEAN, TOY, fraction, seed, [TEXTS])
    rows = noisy.rows
    assert truth.shape == (len(rows),) and truth.dtype == bool
    assert ((families(rows.left) == families(rows.right)) == truth).all(), "a wrong text comes from another family"
    assert truth[(rows.source != TEXTS).to_numpy()].all(), "other relations are left alone"
    wrong = rows[~truth]
    givers = wrong.groupby(families(wrong.left)).right.agg(lambda right: len({FAMILY[i] for i in right}))
    assert (givers == 1).all(), "names, keywords and variants of a family all come from one other"
    count = round(fraction * 20)
    assert len(givers) == (count if count > 1 else 0)
    taken = wrong.groupby(families(wrong.left)).right.agg(lambda right: FAMILY[right.iloc[0]])
    assert set(taken) == set(taken.index), "the chosen families hand their text round among themselves"


def test_a_name_gets_a_name_where_there_is_one():
    rows, truth = shuffle(CLEAN, TOY, 1.0, 3, [TEXTS])
    wrong = rows.rows[~truth]
    for left, right in zip(wrong.left, wrong.right, strict=True):
        has_keywords = int(FAMILY[right][1:]) % 5 != 0
        assert KIND[left] == KIND[right] or not has_keywords


def test_nothing_left_nothing_twice_and_the_seed_decides():
    same, truth = shuffle(CLEAN, TOY, 0.0)
    assert truth.all() and same.rows.equals(CLEAN.rows)
    a, b, c = (shuffle(CLEAN, TOY, 0.5, seed)[0].rows for seed in (1, 1, 2))
    assert a.equals(b) and not a.equals(c)
    everything, truth = shuffle(CLEAN, TOY, 1.0)
    assert not truth.any() and not everything.rows.duplicated(["left", "right", "source"]).any()
    assert set(everything.rows.left) == set(CLEAN.rows.left), "no row loses its last pair"


def test_bad_input():
    with pytest.raises(ValueError, match=r"fraction must lie in \[0, 1\], not 40"):
        shuffle(CLEAN, TOY, 40)
    with pytest.raises(ValueError, match="no pairs of source 'eng-swh'; sources are image-eng_Latn, eng_Latn-swh_Latn"):
        shuffle(CLEAN, TOY, 0.4, sources=["eng-swh"])
    flipped = type(CLEAN)(CLEAN.rows.rename(columns={"left": "right", "right": "left"}))
    with pytest.raises(CorpusError, match="'g0-0:a' is no text to shuffle"):
        shuffle(flipped, TOY, 0.4)
