"""Heads by kind, and towers as heads: what each computes, what it keeps to while it trains, and that it reads back equal."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from xmalign_lab.corpus import Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.tiny import TinyText, TinyViT
from xmalign_lab.heads import FEATURE_HEADS, fitted_head, with_language
from xmalign_lab.model import Aligner, Fixed, TowerHead, built_tower, vectors_of
from xmalign_lab.train import Recipe, fit, train

pytestmark = pytest.mark.usefixtures("one_thread")

N = 16
SMALL = Recipe(least_count=1, epochs=2, batch_pairs=20, dim=8, hidden=12, components=10)
CODES = ["eng_Latn"] * N + ["swh_Latn"] * N
SIZES = dict(width=8, depth=2, heads=2)


def world(wide: bool = True):
    """16 concepts: dense pictures, sparse English and Swahili texts whose rows say their language."""
    rng = np.random.default_rng(0)
    concept = rng.normal(size=(N, 6))
    pictures = concept @ rng.normal(size=(6, 14 if wide else 5))
    texts = sp.csr_matrix(np.maximum(np.tile(concept, (2, 1)) @ rng.normal(size=(6, 40)) - 0.5, 0.01).astype(np.float32))
    ids, english, swahili = ([f"{letter}{k}" for k in range(N)] for letter in "ies")
    text = with_language(Features.from_arrays(texts, english + swahili), CODES, ["eng_Latn", "swh_Latn"])
    image = with_language(Features.from_arrays(pictures, ids), ["eng_Latn"] * N, ["eng_Latn"])
    pairs = [
        pd.DataFrame({"left": ids, "right": english, "source": "image-eng_Latn"}),
        pd.DataFrame({"left": english, "right": swahili, "source": "eng_Latn-swh_Latn"}),
    ]
    return {"image": image, "text": text}, Pairs(pd.concat(pairs))


@pytest.mark.parametrize("kind", FEATURE_HEADS)
def test_every_kind_trains_over_dense_and_sparse_rows_and_reads_back_to_the_same_numbers(kind, tmp_path):
    features, pairs = world()
    recipe = replace(SMALL, image_head=kind, text_head=kind, epochs=6, image_dropout=0.0, text_dropout=0.0, dropout=0.0)
    aligner, steps = fit(recipe, features, pairs, progress=False)
    assert steps.total.iloc[-1] < steps.total.iloc[0]
    aligner.save(tmp_path)
    again = Aligner.load(tmp_path)
    assert type(again.heads["text"]) is FEATURE_HEADS[kind] and again.heads["text"].settings == aligner.heads["text"].settings
    assert np.array_equal(again.encode_image(features["image"]), aligner.encode_image(features["image"]))
    assert np.array_equal(again.encode_text(features["text"]), aligner.encode_text(features["text"]))


def test_an_unknown_head_is_refused_and_the_known_ones_are_listed(tmp_path):
    with pytest.raises(ValueError, match="unknown image_head 'cubic'; known are linear, mlp, orthogonal, residual, shared"):
        replace(SMALL, image_head="cubic")
    Aligner(Fixed(4), Fixed(4)).save(tmp_path)
    settings = tmp_path / "aligner.json"
    settings.write_text(settings.read_text().replace("fixed", "cubic", 1))
    with pytest.raises(ValueError, match="unknown head 'cubic'; known are fixed, linear, mlp, .*, tower"):
        Aligner.load(tmp_path)


@pytest.mark.parametrize(("wide", "dim"), [(True, 4), (False, 8), (False, 3)])
def test_an_orthogonal_head_is_orthogonal_after_every_step(wide, dim):
    features, pairs = world(wide)
    recipe = replace(SMALL, image_head="orthogonal", dim=dim, learning_rate=0.05, weight_decay=0.5, warmup=0.0)
    turns = []
    for step in train(recipe, features, pairs):
        turns.append(step.state.aligner.heads["image"].table.detach().clone())
        small = turns[-1] if len(turns[-1]) <= dim else turns[-1].T
        assert torch.allclose(small @ small.T, torch.eye(len(small)), atol=1e-5)
    assert not torch.allclose(turns[0], turns[-1], atol=1e-2), "it turns all the same"


def test_an_orthogonal_head_into_a_wider_space_keeps_every_cosine_of_its_input():
    rows = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    head = fitted_head("orthogonal", rows, 9, 0, 6, 1, 0.0, 0.0).eval()
    prepared = head.prepare(rows)
    unit = prepared / np.linalg.norm(prepared, axis=1, keepdims=True)
    turned = head(prepared).detach().numpy()
    np.testing.assert_allclose(turned @ turned.T, unit @ unit.T, atol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_linear_and_residual_by_hand(sparse):
    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    rows = sp.csr_matrix(rows) if sparse else rows
    make = [fitted_head(kind, rows, 3, 7, 5, 1, 0.0, 0.0).eval() for kind in ("linear", "residual")]
    linear, residual = make
    prepared = [torch.from_numpy(p.toarray() if sparse else p) for p in (head.prepare(rows) for head in make)]
    expected = torch.nn.functional.normalize(prepared[0] @ linear.table + linear.bias, dim=-1)
    torch.testing.assert_close(linear(linear.prepare(rows)), expected)
    start = prepared[1] @ residual.straight + residual.out.bias
    torch.testing.assert_close(residual(residual.prepare(rows)), torch.nn.functional.normalize(start, dim=-1))
    torch.nn.init.normal_(residual.out.weight)
    bend = torch.nn.functional.gelu(prepared[1] @ residual.table + residual.bias) @ residual.out.weight.T
    torch.testing.assert_close(residual(residual.prepare(rows)), torch.nn.functional.normalize(start + bend, dim=-1))


def test_a_shared_head_has_a_part_for_each_language_and_the_core_alone_for_others():
    features, pairs = world()
    aligner, _ = fit(replace(SMALL, text_head="shared"), features, pairs, progress=False)
    head = aligner.heads["text"]
    assert head.own.shape == (2, 12, 8) and head.own.abs().sum((1, 2)).min() > 0
    plain = Features(features["text"].ids, features["text"].vectors[:, :-1])

    def spoken(code):
        return aligner.encode_text(with_language(plain, [code] * len(plain), ["eng_Latn", "swh_Latn", "hau_Latn"]))

    right = aligner.encode_text(features["text"])
    english, swahili, unseen, unknown = (spoken(code) for code in ("eng_Latn", "swh_Latn", "hau_Latn", "xxx"))
    np.testing.assert_allclose(right, np.concatenate([english[:N], swahili[N:]]), atol=1e-6)
    assert np.array_equal(unseen, unknown) and np.abs(english - swahili).max() > 1e-3 < np.abs(english - unseen).max()
    rows, numbers = features["text"].vectors[:, :-1], features["text"].vectors[:, -1].toarray().ravel()
    hidden = torch.nn.functional.gelu(
        torch.from_numpy(head.input.prepare(rows).toarray()) @ head.table.detach() + head.bias.detach()
    )
    own = torch.stack([hidden[i] @ head.own[int(number) - 1] for i, number in enumerate(numbers)])
    by_hand = torch.nn.functional.normalize(head.out(hidden) + own, dim=-1).detach().numpy()
    np.testing.assert_allclose(right, by_hand, atol=1e-5)


def test_a_shared_head_asks_for_the_language():
    features, pairs = world()
    untold = features | {"text": Features(features["text"].ids, features["text"].vectors[:, :-1])}
    with pytest.raises(ValueError, match="needs the language of each row: .* heads.with_language"):
        fit(replace(SMALL, text_head="shared"), untold, pairs, progress=False)
    with pytest.raises(ValueError, match="3 codes for 32 rows"):
        with_language(features["text"], ["a", "b", "c"], ["a"])


# Towers as heads


def pictures(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 4, 16, 16), np.uint8)


def test_a_tower_head_projects_vectors_and_tokens_by_one_map():
    tower = TinyViT(size=16, patch=8, **SIZES)
    head = TowerHead(tower, 5).eval()
    rows = pictures(3)
    encoded, raw = head(head.prepare(rows)), tower(torch.from_numpy(rows))
    assert encoded.vectors.shape == (3, 5) and encoded.tokens.shape == (3, 4, 5) and encoded.mask.all()
    assert torch.allclose(encoded.tokens.norm(dim=-1), torch.ones(3, 4), atol=1e-5)
    torch.testing.assert_close(encoded.tokens, torch.nn.functional.normalize(raw[1] @ head.out.weight.T, dim=-1))
    assert vectors_of(encoded) is encoded.vectors and vectors_of(encoded.vectors) is encoded.vectors


def test_padding_that_no_text_of_the_batch_reaches_is_left_out_and_changes_nothing():
    tower = TinyText(level="word", **SIZES)
    head = TowerHead(tower, 5).eval()
    rows = tower.tokenise(["moja mbili tatu nne tano", "moja", "mbili tatu"])
    whole, part = head(rows), head(rows[1:])
    assert part.tokens.shape[1] == 2 < whole.tokens.shape[1]
    torch.testing.assert_close(part.vectors, whole.vectors[1:], atol=1e-6, rtol=1e-5)
    assert part.mask.tolist() == [[True, False], [True, True]]


def test_a_tower_is_rebuilt_from_its_name_and_settings_and_refused_if_it_has_no_name(tmp_path):
    text = TinyText(level="word", **SIZES)
    aligner = Aligner(TowerHead(TinyViT(size=16, patch=8, **SIZES, seed=3), 5), TowerHead(text, 5))
    aligner.save(tmp_path)
    again, rows = Aligner.load(tmp_path), pictures(4)
    assert all(torch.equal(a, b) for a, b in zip(aligner.parameters(), again.parameters(), strict=True))
    assert torch.equal(again.heads["image"](rows).tokens, aligner.eval().heads["image"](rows).tokens)
    with pytest.raises(ValueError, match="unknown tower 'Eiffel'; known are .*TinyText, TinyViT"):
        built_tower({"tower": "Eiffel"})
    with pytest.raises(ValueError, match="Identity is no registered tower"):
        TowerHead(torch.nn.Identity(), 5)


def test_a_tower_says_what_rows_it_takes():
    head = TowerHead(TinyViT(size=16, patch=8, **SIZES), 5)
    with pytest.raises(ValueError, match=r"takes Inputs of 16 pixels, not rows of uint8 \(4, 8, 8\)"):
        head.prepare(np.zeros((2, 4, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"takes Inputs of token ids, not rows of float32 \(7,\)"):
        TowerHead(TinyText(**SIZES), 5).prepare(np.zeros((2, 7), np.float32))


@pytest.mark.parametrize(("trained", "moving"), [("none", set()), (1, {"blocks.1", "norm"}), ("all", None)])
def test_what_is_frozen_is_what_the_recipe_says(trained, moving):
    head = TowerHead(TinyViT(size=16, patch=8, **SIZES), 5)
    head.freeze(trained)
    free = {name for name, weight in head.tower.named_parameters() if weight.requires_grad}
    if moving is None:
        assert free == {name for name, _ in head.tower.named_parameters()}
    else:
        assert {".".join(name.split(".")[: 2 if name.startswith("blocks") else 1]) for name in free} == moving
    assert head.out.weight.requires_grad and head.train().tower.training is (trained != "none")
    with pytest.raises(ValueError, match="train_towers is 3, but the tower has 2 blocks"):
        head.freeze(3)


def test_adapters_start_as_nothing_train_alone_and_count_in_evaluation_too(tmp_path):
    pytest.importorskip("peft")
    towers = [{"tower": "TinyViT", "size": 16, "patch": 8, **SIZES}, {"tower": "TinyText", "level": "word", **SIZES}]
    rows = [pictures(3), built_tower(towers[1]).tokenise(["moja mbili", "tatu", "nne tano"])]
    torch.manual_seed(0)
    plain = [TowerHead(dict(tower), 5).eval() for tower in towers]
    torch.manual_seed(0)
    heads = [TowerHead(dict(tower), 5, adapters=2).eval() for tower in towers]
    for head, other, row in zip(heads, plain, rows, strict=True):
        head.out.load_state_dict(other.out.state_dict())
        torch.testing.assert_close(head(row).vectors, other(row).vectors)
        head.freeze("all")
        free = {name for name, weight in head.tower.named_parameters() if weight.requires_grad}
        assert free and all("lora_" in name for name in free) and head.train().tower.training
        for name, weight in head.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        head.eval()
        with torch.no_grad():
            assert (head(row).vectors - other(row).vectors).abs().max() > 1e-2
    aligner = Aligner(*heads)
    aligner.save(tmp_path)
    again = Aligner.load(tmp_path)
    for modality, row in zip(("image", "text"), rows, strict=True):
        assert torch.equal(again.heads[modality](row).vectors, aligner.heads[modality](row).vectors)


def test_an_adapter_by_hand_and_a_tower_without_linear_layers():
    pytest.importorskip("peft")
    from xmalign_lab.encoders.adapters import adapt

    tower = torch.nn.Sequential(torch.nn.Linear(4, 3))
    x, before = torch.randn(2, 4), tower[0].weight.detach().clone()
    adapt(tower, 2)
    a, b = tower[0].lora_A["default"].weight, tower[0].lora_B["default"].weight
    assert a.shape == (2, 4) and not b.any()
    torch.nn.init.normal_(b)
    torch.testing.assert_close(tower(x), x @ before.T + tower[0].bias + 2 * x @ a.T @ b.T)
    with pytest.raises(ValueError, match="ReLU has no linear layer to adapt"):
        adapt(torch.nn.ReLU(), 2)
