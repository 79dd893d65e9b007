"""Corpus and Pairs: what is refused at the door, the folds, cleaning, and pairs as data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xmalign_lab.corpus import (
    COLUMNS,
    Corpus,
    CorpusError,
    Pairs,
    clean,
    concatenate,
    fold_of,
    hashed_fraction,
    normalise,
    split_by_family,
    unpaired_groups,
)

GOOD = {"id": ["1", "2", "3"], "group": "dog", "text": ["", "a dog", "mbwa"], "lang": ["", "eng_Latn", "swh_Latn"]}


def corpus(**changes) -> Corpus:
    return Corpus(pd.DataFrame({**GOOD, "image": ["dog.png", "", ""], **changes}), name="mine")


def test_optional_columns_are_filled():
    made = corpus(family=["f", "f", "f"])
    assert tuple(made.rows.columns) == COLUMNS
    assert list(made.rows.modality) == ["image", "text", "text"]
    assert set(corpus().rows.family) == {"dog"}
    assert made.languages == ["eng_Latn", "swh_Latn"]
    assert "1 groups, 1 families, 1 images, 2 texts in 2 languages" in repr(made)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": ["1", "2", "2"]}, "mine, row 3, id '2': this id occurs twice"),
        ({"text": ["", " \t", "mbwa"]}, "row 2, id '2': the text is empty or only white space"),
        ({"text": ["", None, "mbwa"]}, "row 2, id '2': the text is empty"),
        ({"lang": ["", "en", "swh_Latn"]}, "row 2, id '2': unknown language code 'en'; did you mean 'eng_Latn'?"),
        ({"lang": ["", "", "swh_Latn"]}, "row 2, id '2': a text needs a language code"),
        ({"modality": ["image", "sound", "text"]}, "row 2, id '2': modality 'sound'"),
        ({"modality": ["image", "image", "text"]}, "row 2, id '2': an image row needs a path"),
        ({"text": ["", "", ""]}, r"row 2, id '2': the text is empty .*\(and 1 more rows\)"),
    ],
)
def test_bad_rows_are_named(changes, said):
    with pytest.raises(CorpusError, match=said):
        corpus(**changes)


def test_a_missing_column_is_named_with_those_there():
    with pytest.raises(CorpusError, match="mine: column 'group' is missing; it has id, text; a corpus needs id, group"):
        Corpus(pd.DataFrame({"id": ["1"], "text": ["a"]}), name="mine")


def test_pictures(tmp_path):
    Image.new("RGB", (4, 2), "red").save(tmp_path / "dog.png")
    assert corpus(image=[str(tmp_path / "dog.png"), "", ""]).picture("1").mode == "RGBA"
    with pytest.raises(CorpusError, match="dog.png: no such image file"):
        corpus().picture("1")
    with pytest.raises(CorpusError, match="row '2' has no image"):
        corpus().picture("2")
    whole = (tmp_path / "dog.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorpusError, match="half.png: not a readable image"):
        corpus(image=[str(tmp_path / "half.png"), "", ""]).picture("1")


def test_where_rows_and_concatenate():
    assert list(corpus().where_rows(lang="swh_Latn").ids) == ["3"]
    assert list(corpus().where_rows(lang=["swh_Latn", ""]).ids) == ["1", "3"]
    with pytest.raises(KeyError, match="'language' is no column"):
        corpus().where_rows(language="swh_Latn")
    both = concatenate([corpus(), corpus(id=["4", "5", "6"])], "both")
    assert len(both) == 6 and both.name == "both"
    with pytest.raises(CorpusError, match="occurs twice"):
        concatenate([corpus(), corpus()], "both")


def test_normalise_is_nfc_and_keeps_what_languages_keep_apart():
    assert normalise("  a\u0301\t b\n") == "\u00e1 b"
    for text in ("ﬁ", "①", "ක්‍රි", "ɓ’ʼ'"):  # NFKC would fold the first two; U+200D belongs to Sinhala words
        assert normalise(text) == text


def test_clean_counts_what_it_does():
    texts = ["", "a dog", " a  dog", "e\u0301", "x" * 20, "a dog"]
    rows = pd.DataFrame({"id": list("123456"), "group": "g", "text": texts, "image": ["a.png"] + [""] * 5})
    rows["lang"] = ["", *["eng_Latn"] * 4, "deu_Latn"]
    cleaned, table = clean(Corpus(rows), longest=10)
    assert list(cleaned.rows.text) == ["", "a dog", "\u00e9", "a dog"]  # the same words in another language stay
    assert table.rows.tolist() == [2, 0, 1, 1]
    again, nothing = clean(cleaned, longest=10)
    pd.testing.assert_frame_equal(again.rows, cleaned.rows)
    assert nothing.rows.sum() == 0


@given(st.text(max_size=20))
def test_hashed_fraction_is_a_fixed_number(key):
    assert 0 <= hashed_fraction(key) < 1
    assert hashed_fraction(key) == hashed_fraction(key)
    assert 0 <= fold_of(key) < 5


def test_folds_never_change():
    # the emoji results hang on these: SHA-256 of the name, not Python's salted hash
    assert hashed_fraction("") == int("e3b0c44298fc1c14", 16) / 2**64
    assert [fold_of(name) for name in ("person", "1F415", "1F33E", "1F1F3-1F1F4")] == FOLDS


FOLDS = [3, 3, 0, 3]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80))
def test_splits_never_divide_a_family_and_test_each_once(families):
    rows = pd.DataFrame({"id": range(len(families)), "group": range(len(families)), "text": "a", "lang": "eng_Latn"})
    made = Corpus(rows.assign(family=families))
    tested = np.zeros(len(families), int)
    for fold in range(5):
        split = split_by_family(made, fold).rows
        assert (split.groupby("family").split.nunique() == 1).all()
        assert set(split.split) <= {"train", "validation", "test"}
        tested += (split.split == "test").to_numpy()
    assert (tested == 1).all()


def test_split_sizes_are_about_a_fifth_and_a_tenth():
    rows = pd.DataFrame({"id": range(2000), "group": range(2000), "text": "a", "lang": "eng_Latn"})
    corpus = Corpus(rows)
    share = split_by_family(corpus, 0).rows.split.value_counts(normalize=True)
    assert share["test"] == pytest.approx(0.2, abs=0.04)
    assert share["validation"] == pytest.approx(0.08, abs=0.03)
    chosen = [set(split_by_family(corpus, fold).where_rows(split="validation").rows.family) for fold in range(5)]
    assert sum(map(len, chosen)) == len(set.union(*chosen)), "a family is validation in one fold at most"
    with pytest.raises(ValueError, match="fold must be 0 … 4, not 5"):
        split_by_family(corpus, 5)


def test_pairs_are_filled_and_checked():
    pairs = Pairs(pd.DataFrame({"left": ["1", "1"], "right": ["2", "3"]}))
    assert pairs.rows.weight.tolist() == [1, 1] and pairs.sources == ["pairs"]
    assert pairs.assign(weight=[0.5, 0]).select([True, False]).rows.weight.tolist() == [0.5]
    assert len(pairs + pairs.assign(source="more")) == 4
    assert pairs.check(["1", "2", "3"]) is pairs
    with pytest.raises(CorpusError, match="pairs, row 2: right id '3' has no features"):
        pairs.check(["1", "2"])


@pytest.mark.parametrize("weight", [-0.1, 1.1, np.nan, np.inf])
def test_weights_outside_the_unit_interval_are_refused(weight):
    with pytest.raises(CorpusError, match=r"pairs, row 2 \(1 – 3\): weight .* is not in \[0, 1\]"):
        Pairs(pd.DataFrame({"left": ["1", "1"], "right": ["2", "3"], "weight": [1, weight]}))


def test_pairs_need_two_columns_and_no_pair_twice():
    with pytest.raises(CorpusError, match="column 'right' is missing"):
        Pairs(pd.DataFrame({"left": ["1"]}))
    with pytest.raises(CorpusError, match="row 2: 1 – 2 occurs twice"):
        Pairs(pd.DataFrame({"left": ["1", "1"], "right": ["2", "2"]}))


def test_pairs_leave_the_callers_table_alone():
    table = pd.DataFrame({"left": ["1"], "right": ["2"]})
    Pairs(table)
    assert list(table.columns) == ["left", "right"]


def test_pairs_by_group():
    rows = {"id": ["i1", "i2", "e1", "e2", "s1", "j1"], "group": ["a", "a", "a", "b", "a", "b"]}
    rows |= {"image": ["1.png", "2.png", "", "", "", "3.png"], "text": ["", "", "x", "y", "z", ""]}
    rows |= {"lang": ["", "", "eng_Latn", "eng_Latn", "swh_Latn", ""], "kind": ["", "", "name", "keywords", "name", ""]}
    made = Corpus(pd.DataFrame(rows))
    pairs = Pairs.by_group(made, {"modality": "image"}, {"lang": "eng_Latn"}, "image-eng_Latn")
    assert set(zip(pairs.rows.left, pairs.rows.right, strict=True)) == {("i1", "e1"), ("i2", "e1"), ("j1", "e2")}
    assert pairs.sources == ["image-eng_Latn"]
    same = Pairs.by_group(made, {"lang": "eng_Latn"}, {"lang": "swh_Latn"}, "e-s", match=("kind",))
    assert list(same.rows.right) == ["s1"]
    with pytest.raises(CorpusError, match="no group has both"):
        Pairs.by_group(made, {"lang": "eng_Latn"}, {"lang": "deu_Latn"}, "e-d")


def test_unpaired_groups():
    assert unpaired_groups(corpus()) == []
    assert unpaired_groups(corpus(group=["b", "c", "b"])) == ["c"]
