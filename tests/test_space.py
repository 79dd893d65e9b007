"""The modality gap and the mixing of languages against answers that can be written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.evaluate.space import language_mixing, modality_gap


def turned(*degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_closed_forms():
    assert modality_gap(turned(0), turned(180)) == pytest.approx(2)
    assert modality_gap(turned(0), turned(60)) == pytest.approx(1)
    assert modality_gap(turned(30, -30), turned(60, -60)) == pytest.approx((3**0.5 - 1) / 2)
    assert modality_gap(turned(0, 90, 180, 270), turned(45, 225)) == pytest.approx(0, abs=1e-12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30)
def test_it_is_symmetric_bounded_and_knows_no_order(n, m, seed):
    rng = np.random.default_rng(seed)
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rng.normal(size=(n, 4)), rng.normal(size=(m, 4))))
    gap = modality_gap(images, texts)
    assert 0 <= gap <= 2 and gap == pytest.approx(modality_gap(texts, rng.permutation(images)))
    assert modality_gap(images, images) == 0


@pytest.mark.parametrize("texts", [np.zeros((0, 2)), np.zeros((3, 4)), np.zeros(2)])
def test_sides_that_do_not_fit_are_refused(texts):
    with pytest.raises(ValueError, match="must be"):
        modality_gap(turned(0, 90), texts)


def test_languages_apart_mixed_and_identical():
    apart, mixed = turned(0, 5, 90, 95), turned(0, 90, 5, 95)
    langs = np.array(["eng_Latn", "eng_Latn", "swh_Latn", "swh_Latn"], object)
    assert language_mixing(apart, langs) == 0 and language_mixing(mixed, langs) == 1
    # a row is never its own neighbour, even where an equal one stands before it
    assert language_mixing(turned(0, 0), np.array(["eng_Latn", "swh_Latn"])) == 1
    with pytest.raises(ValueError, match="4 vectors and 3 languages"):
        language_mixing(apart, langs[:3])


def test_mixing_of_languages_that_do_not_matter():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 5)).astype(np.float32)
    langs = np.array(["a", "b", "c"])[rng.integers(3, size=900)]
    assert language_mixing(x / np.linalg.norm(x, axis=1, keepdims=True), langs) == pytest.approx(2 / 3, abs=0.06)
