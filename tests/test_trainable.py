"""Pretrained transformers as towers: the same numbers as their encoders', frozen by block, adapted, trained, read back."""

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")
from checkpoints import LINES, nllb, vit, xlmr

from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.inputs import Inputs, pictures, texts
from xmalign_lab.encoders.pretrained import PictureEncoder, SentenceEncoder
from xmalign_lab.encoders.trainable import PretrainedPictures, PretrainedText
from xmalign_lab.model import Aligner, TowerHead
from xmalign_lab.train import Recipe, fit


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {"text": xlmr(tmp_path_factory.mktemp("xlmr")), "image": vit(tmp_path_factory.mktemp("vit"))}
    return made | {"told": nllb(tmp_path_factory.mktemp("nllb"))}


@pytest.fixture
def corpus(tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    for row, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{row}.png")
    rows = [{"id": f"t{k}", "group": f"g{k}", "lang": "swh_Latn", "text": line} for k, line in enumerate(LINES)]
    rows += [{"id": f"i{k}", "group": f"g{k}", "image": str(tmp_path / f"{k}.png")} for k in range(6)]
    return Corpus(pd.DataFrame(rows))


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_text_tower_gives_the_encoders_vectors_and_padding_does_not_count(folders):
    tower, some = PretrainedText(folders["text"]).eval(), [*LINES, "paka"]
    rows = tower.tokenise(some)
    assert rows.dtype == np.int32 and (rows[-1] == 0).any()
    with torch.no_grad():
        vectors, tokens, mask = tower(torch.from_numpy(rows))
        wider = tower(torch.from_numpy(np.pad(rows[:1], ((0, 0), (0, 1)))))
    expected = SentenceEncoder(folders["text"], device="cpu").encode(some, progress=False).vectors
    np.testing.assert_allclose(unit(vectors), unit(expected), atol=1e-5)
    np.testing.assert_allclose(wider[0], vectors[:1], atol=1e-5)
    assert tokens.shape == (*rows.shape, 16) and mask.sum(1).tolist() == (rows > 0).sum(1).tolist()


def test_a_picture_tower_gives_the_encoders_vectors(folders, corpus):
    tower = PretrainedPictures(folders["image"]).eval()
    rows = pictures(corpus, tower.settings["size"])
    with torch.no_grad():
        vectors, tokens, mask = tower(torch.from_numpy(rows.rows))
    expected = PictureEncoder(folders["image"], device="cpu").encode(corpus, progress=False).vectors
    np.testing.assert_allclose(unit(vectors), unit(expected), atol=1e-4)
    assert tokens.shape == (6, 16, 16) and mask.all() and mask.shape == (6, 16)


def test_a_model_that_is_told_the_language_stays_frozen(folders):
    with pytest.raises(CorpusError, match="reads a language token .* encode it, frozen"):
        PretrainedText(folders["told"])


@pytest.mark.parametrize("how", ["last block", "adapters"])
def test_pretrained_towers_train_in_part_and_read_back(how, folders, corpus, tmp_path):
    if how == "adapters":
        pytest.importorskip("peft")
    towers = {
        "image": {"tower": "PretrainedPictures", "name": str(folders["image"])},
        "text": {"tower": "PretrainedText", "name": str(folders["text"])},
    }
    part = {"adapters": 2} if how == "adapters" else {"train_towers": 1}
    part |= {"terms": {"info_nce": 1.0, "filip": 0.5}, "learning_rate": 1e-3}
    recipe = Recipe(epochs=4, batch_pairs=6, dim=8, towers=towers, **part)
    features = {"image": pictures(corpus, 32), "text": texts(corpus, PretrainedText(folders["text"]).tokenise)}
    pairs = Pairs(pd.DataFrame({"left": [f"i{k}" for k in range(6)], "right": [f"t{k}" for k in range(6)], "source": "a"}))
    aligner, _ = fit(recipe, features, pairs, progress=False)
    for modality, kind in (("image", PretrainedPictures), ("text", PretrainedText)):
        fresh = TowerHead(kind(folders[modality]), 8, recipe.adapters).tower.state_dict()
        trained = aligner.heads[modality].tower.named_parameters()
        moved = {name for name, value in trained if "lora_" not in name and not torch.equal(value, fresh[name])}
        assert (not moved) if how == "adapters" else moved and all(".1." in name for name in moved), moved
    aligner.save(tmp_path)
    again = Aligner.load(tmp_path)
    assert np.array_equal(again.encode_image(features["image"]), aligner.encode_image(features["image"]))
    one = Inputs(["a"], features["text"].rows[:1])
    assert np.array_equal(again.encode_text(one), aligner.encode_text(one))
