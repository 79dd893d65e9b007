"""Inputs: raw rows for towers that are trained, from pictures and from texts."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import pixels
from xmalign_lab.encoders.inputs import Inputs, pictures, texts
from xmalign_lab.encoders.tiny import TinyText


def test_pictures_are_the_encoders_pixels_in_bytes(tmp_path):
    half = Image.new("RGBA", (30, 20), (255, 0, 0, 128))
    half.save(tmp_path / "half.png")
    Image.new("RGB", (8, 8), (10, 20, 30)).save(tmp_path / "full.png")
    paths = [str(tmp_path / "half.png"), str(tmp_path / "full.png")]
    corpus = Corpus(pd.DataFrame({"id": ["a", "b"], "group": ["a", "b"], "image": paths}))
    inputs = pictures(corpus, 16)
    assert inputs.rows.dtype == np.uint8 and inputs.rows.shape == (2, 4, 16, 16) and inputs.width == 16
    assert inputs.rows[1, :, 3, 5].tolist() == [10, 20, 30, 255]
    exact = pixels(half, 16).transpose(2, 0, 1)
    assert np.abs(inputs.rows[0] / 255 - exact).max() <= 0.5 / 255 + 1e-6


def test_texts_by_a_towers_own_tokeniser():
    tower = TinyText(level="word", width=8, heads=2, depth=1)
    inputs = texts(["mbwa mkubwa", "paka"], tower.tokenise)
    assert inputs.rows.dtype == np.int32 and inputs.ids.tolist() == ["0", "1"] and len(inputs) == 2
    np.testing.assert_array_equal(inputs.rows, tower.tokenise(["mbwa mkubwa", "paka"]))
    alone = texts(["a", "b"], lambda rows: (np.ones((2, 3), np.int64), "mask"))
    assert alone.rows.dtype == np.int32 and alone.rows.shape == (2, 3)


def test_rows_by_id_and_a_key_of_the_content():
    rows = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    inputs = Inputs(np.array(["x", "y", "z"]), rows)
    np.testing.assert_array_equal(inputs.take(["z", "x"]), rows[[2, 0]])
    assert inputs.position("y").tolist() == [1] and inputs.vectors is inputs.rows
    assert inputs.key == Inputs(["x", "y", "z"], rows.copy()).key
    others = (Inputs(["x", "y", "w"], rows), Inputs(["x", "y", "z"], rows + 1), Inputs(["x", "y", "z"], rows.reshape(3, 2, 2)))
    assert len({inputs.key, *(other.key for other in others)}) == 4


@pytest.mark.parametrize(
    ("ids", "rows", "said"),
    [
        (["a", "a"], np.ones((2, 3), np.int32), "2 ids, 1 of them distinct, for 2 rows"),
        (["a"], np.ones((2, 3), np.int32), "1 ids, 1 of them distinct, for 2 rows"),
        (["a"], np.ones((1, 3), np.float32), r"rows are float32 \(1, 3\); give uint8 pictures or int32 token ids"),
        (["a", "b"], np.array([[1, 0], [0, 0]], np.int32), "row 2, id 'b': no token; drop the row"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(ids, rows, said):
    with pytest.raises(CorpusError, match=said):
        Inputs(ids, rows)


def test_an_unknown_id_is_named():
    with pytest.raises(CorpusError, match="no row has the id 'q'; there are 1"):
        Inputs(["a"], np.zeros((1, 4, 2, 2), np.uint8)).take(["a", "q"])
