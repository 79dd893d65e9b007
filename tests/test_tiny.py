"""The towers from scratch: masks, seeds, gradients, tokens and words, save and load."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders import tiny
from xmalign_lab.encoders.tiny import TinyImageEncoder, TinyText, TinyTextEncoder, TinyViT

SMALL = dict(width=16, depth=2, heads=2)
TEXTS = ["mpira", "mpira mwekundu mkubwa", "රතු බෝලය"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Towers this small are slower on several threads, and much slower where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def text_corpus(texts=TEXTS):
    rows = {"id": [f"t{i}" for i in range(len(texts))], "group": "g", "lang": "swh_Latn", "text": texts}
    return Corpus(pd.DataFrame(rows))


@pytest.fixture
def picture_corpus(tmp_path):
    paths = []
    for i, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (20, 30), colour).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    return Corpus(pd.DataFrame({"id": list("abc"), "group": list("abc"), "image": paths}))


def text_tower(**changes):
    return TinyText(**(SMALL | changes)).eval()


def test_shapes():
    vector, patches = TinyViT(size=48, patch=8, **SMALL)(torch.rand(5, 4, 48, 48))
    assert vector.shape == (5, 16) and patches.shape == (5, 36, 16)
    tower = text_tower()
    ids, mask, _ = tower.tokenise(TEXTS)
    vector, tokens = tower(ids, mask)
    assert vector.shape == (3, 16) and tokens.shape == (*ids.shape, 16)


def test_what_stands_at_masked_positions_has_no_influence():
    tower = text_tower()
    ids, mask, _ = tower.tokenise(TEXTS)
    other = torch.where(mask, ids, torch.randint(1, 4096, ids.shape))
    assert (other != ids).any()
    for before, after in zip(tower(ids, mask), tower(other, mask), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_masked_positions_get_no_gradient():
    tower = text_tower()
    ids, mask, _ = tower.tokenise(TEXTS)
    ids = torch.where(mask, ids, 4000)  # an id that stands in padding only
    assert not (ids[mask] == 4000).any()
    tower(ids, mask)[0].square().sum().backward()
    assert not tower.table.weight.grad[4000].any() and tower.table.weight.grad[ids[0, 0]].any()


def test_a_text_alone_and_beside_longer_ones_is_the_same():
    tower = text_tower()
    together = tower(*tower.tokenise(TEXTS)[:2])[0]
    for text, row in zip(TEXTS, together, strict=True):
        torch.testing.assert_close(tower(*tower.tokenise([text])[:2])[0][0], row, rtol=1e-5, atol=1e-6)


def test_the_vector_is_the_mean_over_tokens_that_are_there():
    tower = text_tower()
    ids, mask, _ = tower.tokenise(TEXTS)
    vector, tokens = tower(ids, mask)
    for row in range(3):
        torch.testing.assert_close(vector[row], tokens[row][mask[row]].mean(0))
    assert not tokens[~mask].any()


def test_attention_sees_the_other_tokens_and_their_order():
    tower = text_tower(level="word")
    one, other = (tower(*tower.tokenise([text])[:2])[0] for text in ("mbwa huona paka", "paka huona mbwa"))
    assert (one - other).abs().max() > 1e-4


def test_tokens_by_hand():
    _, mask, words = text_tower().tokenise(["ab c", "කාල"])
    assert words.tolist() == [[0, 0, 1], [0, 0, -1]] and mask.tolist() == [[True] * 3, [True, True, False]]
    _, _, words = text_tower(level="word").tokenise(["ab c", "කාල"])
    assert words.tolist() == [[0, 1], [0, -1]]
    ids, _, _ = text_tower().tokenise(["aa a"])
    assert ids[0, 0] == ids[0, 2] != ids[0, 1]  # a first letter is told from a later one
    assert text_tower(longest=4).tokenise(["abcdefg", "a"])[0].shape == (2, 4)


def test_a_text_without_any_token_is_refused():
    with pytest.raises(CorpusError, match="text 2 of 2 is empty"):
        text_tower().tokenise(["a", "  "])


@pytest.mark.parametrize("make", [lambda seed: TinyViT(**SMALL, seed=seed), lambda seed: TinyText(**SMALL, seed=seed)])
def test_the_seed_alone_fixes_the_weights_and_torchs_own_generator_is_left_alone(make):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = tiny.digest(make(1))
    assert torch.rand(1) == expected
    assert first == tiny.digest(make(1)) != tiny.digest(make(2))


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_pooling_of_patches(pool):
    vector, patches = TinyViT(size=16, patch=8, pool=pool, **SMALL)(torch.rand(2, 4, 16, 16))
    assert patches.shape == (2, 4, 16)
    assert torch.allclose(vector, patches.mean(1), atol=1e-6) == (pool == "mean")


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_both_towers_learn_end_to_end(pool):
    """Four pictures and four texts, matched by a contrastive loss: every weight gets a gradient, and the match is learnt."""
    pictures = torch.rand(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    image, text = TinyViT(size=16, patch=8, pool=pool, **SMALL), TinyText(**SMALL)
    ids, mask, _ = text.tokenise(["moja", "mbili", "tatu", "nne"])
    weights = [*image.parameters(), *text.parameters()]
    optimiser = torch.optim.Adam(weights, 3e-3)
    for _ in range(40):
        similarity = torch.nn.functional.normalize(image(pictures)[0]) @ torch.nn.functional.normalize(text(ids, mask)[0]).T
        loss = torch.nn.functional.cross_entropy(similarity / 0.1, torch.arange(4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(weight.grad is not None for weight in weights if weight.numel())
    assert similarity.argmax(1).tolist() == [0, 1, 2, 3] and loss < 0.5


def test_image_encoder_gives_features_with_patches(picture_corpus):
    tower = TinyViT(size=16, patch=8, **SMALL)
    features = TinyImageEncoder(tower, tokens=True, batch=2).encode(picture_corpus)
    assert features.vectors.shape == (3, 16) and features.tokens.shape == (3, 4, 16) and features.mask is None
    assert tower.training, "encoding leaves the tower's mode as it was"
    assert TinyImageEncoder(tower).encode(picture_corpus).tokens is None
    assert np.abs(features.vectors[0] - features.vectors[1]).max() > 1e-3


def test_text_encoder_in_batches_equals_all_at_once():
    tower = text_tower()
    whole = TinyTextEncoder(tower, tokens=True).encode(text_corpus())
    parts = TinyTextEncoder(tower, tokens=True, batch=1).encode(text_corpus())
    np.testing.assert_allclose(whole.vectors, parts.vectors, atol=1e-6)
    np.testing.assert_allclose(whole.tokens, parts.tokens, atol=1e-6)
    assert whole.tokens.shape[:2] == whole.mask.shape == whole.words.shape
    np.testing.assert_array_equal(whole.mask, whole.words >= 0)
    assert whole.words[1].max() == 2 and whole.mask.sum(1).tolist() == [5, 19, 5]


def test_spec_changes_with_weights_settings_and_tokens():
    towers = [TinyText(**SMALL), TinyText(**SMALL, seed=1), TinyText(**SMALL, longest=95)]
    specs = [str(TinyTextEncoder(tower).spec()) for tower in towers] + [str(TinyTextEncoder(towers[0], tokens=True).spec())]
    assert len(set(specs)) == 4
    with torch.no_grad():
        towers[0].norm.weight[0] += 1e-3
    assert str(TinyTextEncoder(towers[0]).spec()) not in specs


def test_settings_that_do_not_divide_are_refused():
    for wrong in (dict(size=50), dict(width=30), dict(pool="max")):
        with pytest.raises(ValueError, match="must divide"):
            TinyViT(**wrong)
    with pytest.raises(ValueError, match="word or grapheme"):
        TinyText(level="byte")
