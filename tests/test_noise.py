"""Noise with a known truth: whole families move, everything else stays, and the truth says which."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.pairs.noise import TRANSLATION, nearest_families, shuffle, translate_badly
from xmalign_lab.pairs.parallel import bridge, thin


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


def test_hard_noise_takes_the_text_of_the_nearest_family_and_of_no_other():
    near = {f"f{k}": f"f{(k + 7) % 20}" for k in range(20)}
    noisy, truth = shuffle(CLEAN, TOY, 0.5, sources=[TEXTS], givers=near)
    wrong = noisy.rows[~truth]
    assert len(wrong) and all(near[a] == b for a, b in zip(families(wrong.left), families(wrong.right), strict=True))


def test_nearest_families_share_words_and_never_are_the_family_itself():
    words = {"f0": "red ball", "f1": "red balls", "f2": "green tree", "f3": "green trees"}
    rows = [{"id": f, "group": f, "lang": "eng_Latn", "kind": "name", "text": text} for f, text in words.items()]
    table = Corpus(pd.DataFrame(rows), "toy")
    near = nearest_families(table, ClassicText().encode(table), "eng_Latn", dim=3)
    assert nearest_families(table, ClassicText().encode(table), "eng_Latn") == near, "fewer texts than directions"
    assert near == {"f0": "f1", "f1": "f0", "f2": "f3", "f3": "f2"}


@pytest.mark.parametrize("kind", ["copied", "hub", "truncated", "wrong sense"])
def test_each_error_of_a_machine_is_what_its_name_says(kind):
    near = {f"f{k}": f"f{(k + 7) % 20}" for k in range(20)}
    shares = {name: float(name == kind) for name in TRANSLATION}
    noisy, truth = translate_badly(CLEAN, TOY, 0.5, near, seed=1, sources=[TEXTS], shares=shares)
    after = noisy.rows[noisy.rows.source == TEXTS].reset_index(drop=True)
    true = truth[(noisy.rows.source == TEXTS).to_numpy()]
    lang = TOY.lookup("lang")
    if kind == "copied":
        copied = after.right.map(lang) == "eng_Latn"
        assert copied.any() and (after[copied].left == after[copied].right).all() and (~true == copied).all()
    if kind == "hub":
        assert (~true).any() and len(set(families(after[~true].right))) == 1
    if kind == "truncated":
        assert true.all() and (after.left.map(KIND) != after.right.map(KIND)).any()
    if kind == "wrong sense":
        assert (~true).any() and all(
            near[a] == b for a, b in zip(families(after[~true].left), families(after[~true].right), strict=True)
        )


def test_less_parallel_text_keeps_whole_families_and_smaller_parts_lie_in_larger_ones():
    some, few = (thin(CLEAN, TOY, fraction, [TEXTS]) for fraction in (0.7, 0.3))
    kept = [set(families(p.rows[p.rows.source == TEXTS].left)) for p in (CLEAN, some, few)]
    assert kept[0] > kept[1] > kept[2] != set()
    assert [(p.rows.source != TEXTS).sum() for p in (some, few)] == [(CLEAN.rows.source != TEXTS).sum()] * 2
    whole = CLEAN.rows[(CLEAN.rows.source == TEXTS) & CLEAN.rows.left.map(FAMILY).isin(kept[2])]
    assert (few.rows.source == TEXTS).sum() == len(whole)
    with pytest.raises(ValueError, match="fraction"):
        thin(CLEAN, TOY, 1.5, [TEXTS])


def test_partly_wrong_families_keep_their_names_or_half_of_their_texts():
    whole, truth = shuffle(CLEAN, TOY, 0.5, 1, [TEXTS])
    moved = set(families(whole.rows[~truth].left))
    keywords, right = shuffle(CLEAN, TOY, 0.5, 1, [TEXTS], part="keywords")
    wrong = keywords.rows[~right]
    assert (wrong.left.map(KIND) == "keywords").all() and set(families(wrong.left)) < moved, "some have no keywords"
    names = keywords.rows[(keywords.rows.source == TEXTS) & (keywords.rows.left.map(KIND) == "name")]
    assert (families(names.left) == families(names.right)).all()
    half, right = shuffle(CLEAN, TOY, 0.5, 1, [TEXTS], part="half")
    texts = TOY.where_rows(lang="swh_Latn").rows.family.value_counts()
    wrong = pd.Series(families(half.rows[~right].left)).value_counts()
    assert set(wrong.index) == {family for family in moved if texts[family] > 1} and right.sum() > truth.sum()
    for family, count in wrong.items():
        assert abs(count - texts[family] / 2) <= 0.5
    assert shuffle(CLEAN, TOY, 0.5, 1, [TEXTS], part="half")[0].rows.equals(half.rows)
    with pytest.raises(ValueError, match="unknown part 'third'; known are 'family', 'keywords' and 'half'"):
        shuffle(CLEAN, TOY, 0.5, part="third")
