"""Heat maps: what stands where over the picture, and words of every script in their labels."""

import json

import numpy as np
import pytest
from PIL import Image

from xmalign_lab import heatmaps, style
from xmalign_lab.corpora import scenes
from xmalign_lab.corpora.grammar import describe

JOIN = "\u200d"
WORDS = {
    "eng_Latn": "star",
    "swh_Latn": "nyota",
    "sin_Sinh": f"ත්{JOIN}රිකෝණ",
    "urd_Arab": "ستارے",
    "hau_Latn": "<script>tauraro</script>",
}


def picture():
    return scenes.draw(describe(77))


def weights(seed=0, shape=(3, 4)):
    return np.random.default_rng(seed).random(shape)


def test_each_patch_lies_over_its_part_of_the_picture():
    values = weights()
    figure = heatmaps.word_over_picture(picture(), values, "nyota", "weights .1")
    heat, image, frame = figure.data[0], figure.layout.images[0], figure.layout.shapes[0]
    assert np.array_equal(np.asarray(heat.z), values.astype(np.float32))
    places = heat.x0 + heat.dx * np.arange(4), heat.y0 + heat.dy * np.arange(3)  # middles of the patches
    assert np.allclose(places[0], [0.125, 0.375, 0.625, 0.875]) and np.allclose(places[1], [1 / 6, 0.5, 5 / 6])
    assert (image.x, image.y, image.sizex, image.sizey, image.sizing, image.layer) == (0, 0, 1, 1, "stretch", "below")
    assert figure.layout.xaxis.range == (0, 1) and figure.layout.yaxis.range == (1, 0)  # the first row is the upper one
    assert figure.layout.yaxis.scaleanchor == "x"
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert np.allclose([frame.x0, frame.x1, frame.y0, frame.y1], [column / 4, (column + 1) / 4, row / 3, (row + 1) / 3])
    assert "nyota" in figure.layout.title.text and "weights .1" in figure.layout.title.text


def test_five_languages_share_one_picture_and_one_scale():
    words = {lang: (word, weights(k)) for k, (lang, word) in enumerate(WORDS.items())}
    figure = heatmaps.one_word_many_languages(picture(), words)
    assert len(figure.data) == len(figure.layout.images) == len(figure.layout.shapes) == 5
    assert {heat.coloraxis for heat in figure.data} == {"coloraxis"} and len(
        {image.source for image in figure.layout.images}
    ) == 1
    assert [heat.xaxis for heat in figure.data] == [image.xref for image in figure.layout.images] == ["x", "x2", "x3", "x4", "x5"]
    assert [axis.scaleanchor for axis in figure.select_yaxes()] == ["x", "x2", "x3", "x4", "x5"]
    labels = [note.text for note in figure.layout.annotations]
    for lang, word, label in zip(WORDS, WORDS.values(), labels, strict=True):
        assert style.language_name(lang) in label and style.language_colour(lang) in label
        assert word in label or lang == "hau_Latn"  # every mark and joiner as it was written
    assert "<script" not in "".join(labels) and "&lt;script" in labels[4]
    assert len(json.dumps(json.loads(figure.to_json()))) < 30_000


def test_the_veil_only_ever_thins_with_the_weight():
    (low, thick), (high, thin) = heatmaps.VEIL
    assert (low, high) == (0, 1) and thick.rsplit(",", 1)[0] == thin.rsplit(",", 1)[0]  # one colour: no hue to tell apart
    opacity = [float(colour.rstrip(")").rsplit(",", 1)[1]) for colour in (thick, thin)]
    assert 0.5 < opacity[0] < 0.9 and opacity[1] == 0


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 2)), np.array([[1.0, float("nan")]]), np.zeros((2, 2, 2))])
def test_weights_that_are_no_map_are_refused(bad):
    with pytest.raises(ValueError, match="a finite number for each patch"):
        heatmaps.word_over_picture(Image.new("RGB", (4, 4)), bad)
    with pytest.raises(ValueError, match="nyota.*a finite number"):
        heatmaps.one_word_many_languages(Image.new("RGB", (4, 4)), {"swh_Latn": ("nyota", bad)})


def test_no_word_at_all_is_refused():
    with pytest.raises(ValueError, match="a word in one language"):
        heatmaps.one_word_many_languages(picture(), {})
