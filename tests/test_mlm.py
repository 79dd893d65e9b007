"""Masked language modelling: what is hidden has no influence, the loss falls below chance, and a run starts from its weights."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from xmalign_lab import mlm
from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import texts as text_inputs
from xmalign_lab.encoders.levels import LETTERS, LEVELS, PIECES, MultiLevelText
from xmalign_lab.model import Aligner
from xmalign_lab.recipe import Recipe
from xmalign_lab.train import fit, train

pytestmark = pytest.mark.usefixtures("one_thread")

PIECE_LIST = ["▁", *"abdeghiklmnopstuvwyz", "▁m", "ki"]
SMALL = dict(width=16, depth=1, heads=2, buckets=256, longest=8, subwords=PIECE_LIST)
SOME = [("words", "sentence"), ("characters", "sentence"), ("subwords", "words", "sentence"), LEVELS]
# The adjective agrees with the noun: it can be told from its neighbour's class, but for its meaning.
NOUNS, STEMS = {"mti": "m", "mto": "m", "kiti": "ki", "kitabu": "ki", "ndizi": "n", "nyota": "n"}, ("kubwa", "zuri", "pya")
TOY = [f"{noun} {NOUNS[noun]}{stem}" for noun, stem in product(NOUNS, STEMS)]


@pytest.mark.parametrize("letters", ["grams", "transformer"])
@pytest.mark.parametrize("levels", SOME)
def test_a_hidden_word_has_no_influence_at_any_level(levels, letters):
    torch.manual_seed(0)
    tower = MultiLevelText(levels, letters=letters, **SMALL)
    torch.nn.init.normal_(tower.gate.weight)
    pair = tower.tokenise(["mti mkubwa sana leo", "mti kitabu sana leo"])
    hidden = tower._packed("")
    mask = np.zeros((2, 4), bool)
    one, other = tower(torch.from_numpy(pair))[1]
    assert not torch.allclose(one[0], other[0], atol=1e-4), "seen, it matters to its neighbours"
    mask[:, 1] = True
    vectors, tokens, still = tower(torch.from_numpy(tower.hide(pair, mask)))
    for given in (vectors, tokens):  # where a row lies in a batch may change its last digit
        torch.testing.assert_close(given[0], given[1], rtol=0, atol=1e-5)
    assert still.all()
    assert tokens.isfinite().all()
    shown = tower.hide(pair, ~mask)
    assert (shown[:, 1] == pair[:, 1]).all() and (shown[:, [0, 2, 3]] == hidden).all()


def test_what_hides_a_word():
    row = MultiLevelText(LEVELS, **SMALL)._packed("")
    assert row[0] > 0 and row[1] > 0 and row[1 + PIECES] > 0 and row.astype(bool).sum() == 3 and len(row) == 1 + PIECES + LETTERS


@pytest.fixture(scope="module")
def learned():
    tower = MultiLevelText(("characters", "words", "sentence"), **(SMALL | {"width": 32, "subwords": ()}))
    return mlm.pretrain(tower, TOY, steps=150, batch=18, learning_rate=5e-3, progress=False)


def test_the_loss_falls_below_the_entropy_of_the_frequencies(learned):
    """To the entropy of what cannot be known: one of two nouns of a class, one of three meanings, and no less."""
    _, losses = learned
    share = pd.Series(" ".join(TOY).split()).value_counts(normalize=True)
    unigram, least = -(share * np.log(share)).sum(), (np.log(2) + np.log(3)) / 2
    assert len(losses) == 150 and losses[0] > unigram - 0.3
    assert least - 0.1 < losses[-30:].mean() < unigram - 0.9


def test_the_same_seed_gives_the_same_and_torchs_own_generator_is_left_alone():
    towers = [MultiLevelText(**SMALL) for _ in range(3)]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made = [mlm.pretrain(tower, TOY, steps=3, seed=seed, progress=False) for tower, seed in zip(towers, (0, 0, 1), strict=True)]
    assert torch.rand(1) == expected
    assert (made[0][1] == made[1][1]).all() and (made[0][1] != made[2][1]).any()
    torch.testing.assert_close(made[0][0].state_dict(), made[1][0].state_dict(), rtol=0, atol=0)


def test_a_word_out_of_the_vocabulary_is_never_hidden(monkeypatch):
    """Of frequent words alone: the others stay where they are, and a text of such words asks nothing."""
    seen = []
    hide = MultiLevelText.hide
    monkeypatch.setattr(MultiLevelText, "hide", lambda *given: seen.append(given[1:]) or hide(*given))
    tower = MultiLevelText(**SMALL)
    mlm.pretrain(tower, ["a b", "a c", "a d", "e f"], steps=5, vocabulary=1, progress=False)
    frequent = tower.tokenise(["a"])[0, 0, 0]
    for inputs, mask in seen:
        assert mask.sum() == 3 and (inputs[..., 0][mask] == frequent).all()


def run_from(tower: dict, **changes):
    """Four pictures, as features, and four texts; the towers' training as `changes` say."""
    texts = ["mti mkubwa", "kiti kizuri", "ndizi npya", "mto mpya"]
    image = Features(np.array([f"i{n}" for n in range(4)]), np.eye(4, dtype=np.float32))
    found = {
        "image": image,
        "text": text_inputs(texts, MultiLevelText(**{k: v for k, v in tower.items() if k != "tower"}).tokenise),
    }
    rows = {"left": image.ids, "right": found["text"].ids, "weight": 1.0, "score": np.nan, "source": "image-swh_Latn"}
    recipe = Recipe(epochs=2, batch_pairs=4, dim=8, hidden=8, towers={"text": {"tower": "MultiLevelText", **tower}}, **changes)
    return recipe, found, Pairs(pd.DataFrame(rows))


def test_a_run_starts_from_the_weights(learned, tmp_path):
    tower, _ = learned
    path = mlm.save(tower, tmp_path / "pretrained")
    settings = {**tower.settings, "weights": str(path)}
    recipe, found, pairs = run_from(settings, train_towers="none")
    assert Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()
    aligner, _ = fit(recipe, found, pairs, progress=False)
    torch.testing.assert_close(aligner.heads["text"].tower.state_dict(), tower.state_dict(), rtol=0, atol=0)
    recipe, found, pairs = run_from(settings, learning_rate=1e-9, weight_decay=0.0)
    state = next(train(recipe, found, pairs)).state
    torch.testing.assert_close(state.aligner.heads["text"].tower.state_dict(), tower.state_dict(), rtol=0, atol=1e-6)
    state.aligner.save(tmp_path / "run")
    path.unlink()
    again = Aligner.load(tmp_path / "run")
    np.testing.assert_array_equal(again.encode_text(found["text"]), state.aligner.eval().encode_text(found["text"]))
    assert "weights" not in again.heads["text"].tower.settings, "a saved aligner needs the file no more"


def test_the_file_is_named_after_its_weights_and_a_folder_may_stand_for_it(learned, tmp_path):
    tower, _ = learned
    path = mlm.save(tower, tmp_path)
    assert mlm.save(tower, tmp_path) == path
    made = MultiLevelText(**tower.settings | {"seed": 9, "weights": tmp_path})
    torch.testing.assert_close(made.state_dict(), tower.state_dict(), rtol=0, atol=0)
    other = mlm.save(MultiLevelText(**tower.settings), tmp_path)
    assert other != path
    with pytest.raises(CorpusError, match="holds 2 safetensors files; name the one"):
        MultiLevelText(**tower.settings, weights=tmp_path)


def test_weights_that_do_not_fit_are_refused(learned, tmp_path):
    tower, _ = learned
    path = mlm.save(tower, tmp_path)
    for name, value in (("heads", 4), ("width", 16), ("buckets", 128), ("grams", [2, 3]), ("letters", "transformer")):
        with pytest.raises(CorpusError, match=f"another {name}; make the settings alike"):
            MultiLevelText(**tower.settings | {name: value}, weights=path)
    (tmp_path / "text").write_text("no weights")
    for wrong, message in ((tmp_path / "none", "No such file"), (tmp_path / "text", "give a file that mlm.save has written")):
        with pytest.raises(CorpusError, match=message):
            MultiLevelText(**tower.settings, weights=wrong)
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(CorpusError, match="another levels, width, .*subwords; make"):
        MultiLevelText(**tower.settings, weights=tmp_path / "bare.safetensors")
    assert json.loads(json.dumps(tower.settings)) == tower.settings


def test_what_cannot_be_learned_from_is_refused():
    with pytest.raises(ValueError, match="need 'sentence'"):
        mlm.pretrain(MultiLevelText(("words",), **SMALL), TOY)
    with pytest.raises(ValueError, match="share 1"):
        mlm.pretrain(MultiLevelText(**SMALL), TOY, share=1)
    with pytest.raises(CorpusError, match="none of 2 texts has two words"):
        mlm.pretrain(MultiLevelText(**SMALL), ["moja", "mbili"])
