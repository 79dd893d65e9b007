"""The encoders without weights: hand-checked n-grams, pictures whose description is known, determinism."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import ClassicImage, ClassicText, bucket, graphemes, pixels, words

KSHETRAYA = "ක්‍ෂේත්‍රය"  # Sinhala "field", with two U+200D


def texts(*many):
    return Corpus(pd.DataFrame({"id": [f"t{i}" for i in range(len(many))], "group": "g", "lang": "eng_Latn", "text": many}))


def disc(size=(64, 64), colour=(200, 30, 30, 255)):
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((size[0] * 0.2, size[1] * 0.2, size[0] * 0.8, size[1] * 0.8), fill=colour)
    return picture


# --- text


def test_grams_by_hand():
    assert ClassicText(characters=(2, 3)).grams("Mbwa!") == "<m mb bw wa a> <mb mbw bwa wa> [mbwa]".split()
    assert ClassicText(characters=None).grams("a  red,\nball") == ["[a]", "[red]", "[ball]"]
    assert ClassicText(characters=(1, 1), words=False).grams("ab") == ["a", "b"]


def test_sinhala_is_cut_between_graphemes_only():
    assert graphemes("කාලය") == ["කා", "ල", "ය"]
    letters = graphemes(KSHETRAYA)
    assert "".join(letters) == KSHETRAYA and not any(unicodedata.category(letter[0]).startswith("M") for letter in letters)
    for gram in ClassicText().grams(KSHETRAYA):
        inside = gram.strip("<>[]")
        assert not inside or unicodedata.category(inside[0]) == "Lo", f"{gram!r} begins with a cut-off sign"
        rest = KSHETRAYA[KSHETRAYA.index(inside) + len(inside) :]
        assert not rest or unicodedata.category(rest[0]) == "Lo", f"{gram!r} leaves a sign behind"


def test_u200d_is_part_of_a_sinhala_word():
    assert words(f"{KSHETRAYA}, ශ්‍රී") == [KSHETRAYA, "ශ්‍රී"]
    assert bucket("ශ්‍රී", 2**32) != bucket("ශ්රී", 2**32)


@pytest.mark.parametrize("apostrophe", "'’ʼ")
def test_the_apostrophe_is_a_letter_and_one_letter(apostrophe):
    assert words(f"“{apostrophe}ya ng{apostrophe}ombe.”") == ["'ya", "ng'ombe"]


def test_signs_at_the_edge_go_unless_they_are_all_there_is():
    assert words("keycap: # (red) ❤️love 👩‍💻") == ["keycap", "#", "red", "love", "👩‍💻"]


def test_composed_or_not_and_capital_or_not_is_one_text():
    forms = ["Ọmọ Ẹ̀yà", unicodedata.normalize("NFD", "ọmọ ẹ̀yà"), "  ỌMỌ\tẸ̀YÀ "]
    assert len({tuple(words(form)) for form in forms}) == 1


@pytest.mark.parametrize("text", ["สวัสดี", "红色的圆", "あかいまる"])
def test_scripts_without_white_space_have_grams_over_the_run(text):
    letters = graphemes(text)
    grams = ClassicText(characters=(2, 2)).grams(text)
    assert grams == ["<" + letters[0], *map("".join, zip(letters, letters[1:], strict=False)), letters[-1] + ">", f"[{text}]"]


def test_counts_by_hand_and_damped():
    for damping, expected in ((False, [2, 1]), (True, [2**0.5, 1])):
        encoder = ClassicText(characters=None, damping=damping)
        row = encoder.encode(texts("red red ball")).dense()[0]
        columns = [bucket("[red]", encoder.buckets), bucket("[ball]", encoder.buckets)]
        np.testing.assert_allclose(row[columns], np.array(expected) / np.linalg.norm(expected), rtol=1e-6)
        assert np.count_nonzero(row) == 2


@given(st.lists(st.text("abcdé ක්‍ෂ'", min_size=1).filter(str.strip), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_rows_have_norm_one_and_do_not_depend_on_their_neighbours(many):
    encoder = ClassicText(buckets=64)
    rows = encoder.encode(texts(*many), progress=False).dense()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    for text, row in zip(many, rows, strict=True):
        np.testing.assert_array_equal(encoder.encode(texts(text), progress=False).dense()[0], row)


def test_languages_share_grams():
    english, swahili, other = ClassicText().encode(texts("zebra", "pundamilia zebra", "moyo")).dense()
    assert english @ swahili > 0.5 > 0.1 > english @ other


def test_the_hash_is_the_same_in_another_process():
    program = "from xmalign_lab.encoders.classic import bucket; print(bucket('[ශ්‍රී]', 8192))"
    root = Path(__file__).parents[1]
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root).stdout
    assert int(printed) == bucket("[ශ්‍රී]", 8192)
    assert bucket("abc", 2**32) == 0x352441C2  # CRC-32 of "abc", as published


def test_a_text_too_short_for_any_gram_is_quoted():
    with pytest.raises(CorpusError, match=r"id 't1' \('ox'\): the vector has norm zero"):
        ClassicText(characters=(5, 5), words=False).encode(texts("elephant", "ox"))


@pytest.mark.parametrize("wrong", [{"characters": None, "words": False}, {"characters": (3, 2)}, {"characters": (0, 2)}])
def test_settings_that_count_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="characters"):
        ClassicText(**wrong)


def test_every_setting_is_in_the_spec():
    others = [ClassicText(words=False), ClassicText(buckets=64), ClassicText(damping=True), ClassicText(characters=(1, 4))]
    assert len({str(encoder.spec()) for encoder in [ClassicText(), *others]}) == 5
    others = [ClassicImage(hog=2), ClassicImage(grid=2), ClassicImage(histogram=2)]
    assert len({str(encoder.spec()) for encoder in [ClassicImage(), *others]}) == 4


def test_queries_typed_by_hand_need_no_corpus():
    typed = ["Mbwa mkubwa", "දුවන බල්ලා", "Mbwa mkubwa"]
    features = ClassicText().encode(typed)
    assert list(features.ids) == ["0", "1", "2"]
    np.testing.assert_array_equal(features.dense(), ClassicText().encode(texts(*typed)).dense())
    np.testing.assert_array_equal(ClassicText().encode(typed[0]).dense(), features.dense()[:1])


@pytest.mark.parametrize(("encoder", "given"), [(ClassicText(), []), (ClassicText(), ["a", 3]), (ClassicImage(), ["a.png"])])
def test_what_is_neither_corpus_nor_texts_is_refused(encoder, given):
    with pytest.raises(CorpusError, match=f"no {encoder.modality} rows in .*; give a Corpus or, for texts, a list of strings"):
        encoder.encode(given)
    with pytest.raises(CorpusError, match=r"id '1' \('  '\): the vector has norm zero"):
        ClassicText().encode(["a", "  "])


# --- pictures


def test_a_description_has_norm_one_and_is_deterministic():
    first, second = ClassicImage().describe(disc()), ClassicImage().describe(disc())
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2084,) and first.dtype == np.float32 and np.linalg.norm(first) == pytest.approx(1, abs=1e-6)


def test_blocks_by_hand_on_one_colour():
    """No edges; every cell is the same colour; the histogram has one bin. Red is (53.24, 80.09, 67.20) in CIE Lab."""
    row = ClassicImage(hog=1, grid=3, histogram=4).describe(Image.new("RGB", (64, 64), (255, 0, 0)))
    assert not row[:1764].any()
    cell = np.array([0.5324 - 0.75, 0.8009, 0.6720, 0.5])
    np.testing.assert_allclose(
        row[1764:2020].reshape(64, 4), np.tile(cell / np.linalg.norm(cell) / 8 * 3 / 5, (64, 1)), atol=1e-4
    )
    assert np.flatnonzero(row[2020:]).tolist() == [3 * 16] and row[2020 + 48] == pytest.approx(4 / 5)


def test_the_histogram_counts_opaque_pixels_only():
    row = ClassicImage(hog=0, grid=0).describe(disc(colour=(0, 0, 255, 255)))
    assert np.flatnonzero(row[2020:]).tolist() == [3]


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "LA", "1"])
def test_palette_grey_and_rgb_files_are_read(tmp_path, mode):
    grey = disc(colour=(0, 0, 0, 255))
    white = Image.new("RGBA", grey.size, "white")
    white.alpha_composite(grey)
    (grey if mode == "LA" else white).convert(mode).save(tmp_path / "picture.png")
    corpus = Corpus(pd.DataFrame({"id": ["p"], "group": "g", "image": str(tmp_path / "picture.png")}))
    features = ClassicImage().encode(corpus)
    expected = ClassicImage().describe(grey if mode == "LA" else white)
    np.testing.assert_allclose(features.dense()[0], expected, atol=1e-6)


def test_transparent_is_white_whatever_colour_hides_in_it():
    hidden = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    np.testing.assert_array_equal(pixels(hidden, 8), np.concatenate([np.ones((8, 8, 3)), np.zeros((8, 8, 1))], -1))
    half = pixels(Image.new("RGBA", (8, 8), (0, 0, 0, 51)), 8)
    np.testing.assert_allclose(half[0, 0], [0.8, 0.8, 0.8, 0.2], atol=1e-6)


def test_other_sizes_are_fitted_without_stretching():
    wide = pixels(Image.new("RGB", (200, 100), (0, 0, 0)))
    assert wide.shape == (64, 64, 4)
    opaque = wide[..., 3] > 0.5
    assert opaque[16:48].all() and not opaque[:16].any() and not opaque[48:].any()
    assert pixels(Image.new("RGB", (5000, 1), "red"))[..., 3].sum() == 64
    large, larger, blue = map(ClassicImage().describe, (disc((256, 256)), disc((512, 512)), disc((512, 512), (20, 40, 220, 255))))
    assert large @ larger > 0.9 > large @ blue


def test_a_truncated_or_missing_picture_is_named(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole)
    (tmp_path / "half.png").write_bytes(whole.read_bytes()[:2000])
    for name in ("half.png", "none.png"):
        paths = [str(whole), str(tmp_path / name)]
        corpus = Corpus(pd.DataFrame({"id": ["good", "bad"], "group": "g", "image": paths}), name="mine")
        with pytest.raises(CorpusError, match=f"mine, id 'bad': .*{name}"):
            ClassicImage().encode(corpus)


def test_each_encoder_takes_the_rows_of_its_modality(tmp_path):
    disc().save(tmp_path / "disc.png")
    rows = [("i", "", "", str(tmp_path / "disc.png")), ("t", "eng_Latn", "a disc", "")]
    corpus = Corpus(pd.DataFrame(rows, columns=["id", "lang", "text", "image"]).assign(group="g"))
    assert list(ClassicImage().encode(corpus).ids) == ["i"] and list(ClassicText().encode(corpus).ids) == ["t"]
    with pytest.raises(CorpusError, match="no image rows to encode"):
        ClassicImage().encode(corpus.where_rows(modality="text"))
