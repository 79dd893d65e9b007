"""The trainer: it learns, it stops and goes on to the same numbers, and it refuses bad input before the first step."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from xmalign_lab.batches import Batch, Batches, Relation
from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs, texts
from xmalign_lab.encoders.tiny import TinyText
from xmalign_lab.heads import DenseInput, Head, SparseInput, dropout
from xmalign_lab.model import Aligner
from xmalign_lab.recipe import TERMS
from xmalign_lab.schedules import Constant, Cosine, Linear
from xmalign_lab.train import Edit, Recipe, _statistics, fit, initial_state, load_state, save_state, train

SMALL = Recipe(least_count=1, epochs=4, batch_pairs=40, dim=16, hidden=24, components=12, temperature=Cosine(0.3, 0.1))
N = 30


def world(seed: int = 0):
    """30 concepts: dense pictures, sparse English and Swahili texts, tied over English."""
    rng = np.random.default_rng(seed)
    concept = rng.normal(size=(N, 8))
    pictures = concept @ rng.normal(size=(8, 20)) + 0.1 * rng.normal(size=(N, 20))
    texts = sp.csr_matrix(np.maximum(np.tile(concept, (2, 1)) @ rng.normal(size=(8, 50)) - 0.5, 0).astype(np.float32))
    image_ids = [f"i{k}" for k in range(N)]
    english, swahili = [f"e{k}" for k in range(N)], [f"s{k}" for k in range(N)]
    features = {"image": Features.from_arrays(pictures, image_ids), "text": Features.from_arrays(texts, english + swahili)}
    image = pd.DataFrame({"left": image_ids, "right": english, "source": "image-eng_Latn"})
    text = pd.DataFrame({"left": english, "right": swahili, "source": "eng_Latn-swh_Latn"})
    return features, Pairs(pd.concat([image, text]))


def weights(aligner: Aligner) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in aligner.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_loss_falls_and_swahili_finds_pictures_it_was_never_paired_with():
    features, pairs = world()
    calm = replace(SMALL, epochs=60, image_dropout=0.0, text_dropout=0.0, dropout=0.0)
    aligner, steps = fit(calm, features, pairs, progress=False)
    assert steps.total.iloc[-5:].mean() < 0.5 * steps.total.iloc[:5].mean()
    pictures = aligner.encode_image(features["image"])
    swahili = aligner.encode_text(features["text"])[N:]
    assert (np.argmax(swahili @ pictures.T, 1) == np.arange(N)).mean() > 0.5
    assert np.allclose(np.linalg.norm(pictures, axis=1), 1, atol=1e-5)


def test_steps_report_every_term_and_the_schedule():
    features, pairs = world()
    steps = list(train(SMALL, features, pairs))
    assert [s.step for s in steps] == list(range(1, len(steps) + 1)) and steps[-1].progress == 1
    assert set(steps[0].terms) == {"image-eng_Latn/info_nce", "eng_Latn-swh_Latn/info_nce", "total"}
    assert steps[0].tau == pytest.approx(0.3) and steps[-1].tau == pytest.approx(0.1)
    assert steps[-1].statistics["positive"] > steps[-1].statistics["negative"]


@pytest.mark.parametrize("stop", [1, 5])
@pytest.mark.parametrize("learned", [False, True])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop, learned):
    recipe = replace(SMALL, learn_temperature=learned)
    features, pairs = world()
    whole = [(s.row(), weights(s.state.aligner)) for s in train(recipe, features, pairs)]
    first = list(islice(train(recipe, features, pairs), stop))
    save_state(first[-1].state, [s.row() for s in first], tmp_path)
    torch.manual_seed(12345)  # whatever else the process drew in between must not matter
    state, rows = load_state(tmp_path, recipe, features, pairs)
    rest = list(train(recipe, features, pairs, state))
    assert rows + [s.row() for s in rest] == [row for row, _ in whole]
    assert same(weights(rest[-1].state.aligner), whole[-1][1])


def test_fit_goes_on_from_its_folder(tmp_path, monkeypatch):
    features, pairs = world()
    expected, table = fit(SMALL, features, pairs, progress=False)
    import xmalign_lab.train as module

    monkeypatch.setattr(module, "SAVE_SECONDS", 0.0)
    original = module._one_step
    monkeypatch.setattr(module, "_one_step", lambda state, *rest: _explode_at(5, state, original, *rest))
    with pytest.raises(KeyboardInterrupt):
        fit(SMALL, features, pairs, tmp_path, progress=False)
    monkeypatch.setattr(module, "_one_step", original)
    resumed, again = fit(SMALL, features, pairs, tmp_path, progress=False)
    assert same(weights(resumed), weights(expected))
    pd.testing.assert_frame_equal(again, table)


def _explode_at(step, state, original, *rest):
    if state.step == step:
        raise KeyboardInterrupt
    return original(state, *rest)


def test_an_edit_changes_the_run_from_that_step_on_and_is_remembered(tmp_path):
    features, pairs = world()
    run = train(SMALL, features, pairs)
    first = next(run)
    second = run.send(Edit(first.step, "temperature", Constant(0.7)))
    assert second is first  # the edit is acknowledged with the step it follows
    third = next(run)
    assert third.tau == 0.7 and third.state.edits == [Edit(1, "temperature", Constant(0.7))]
    save_state(third.state, [], tmp_path)
    state, _ = load_state(tmp_path, SMALL, features, pairs)
    assert state.recipe.temperature == Constant(0.7)
    assert "'epochs' cannot be edited" in run.send(Edit(2, "epochs", 3)).refused


def test_a_learned_temperature_learns_and_a_scheduled_one_does_not():
    features, pairs = world()
    learned = [s.tau for s in train(replace(SMALL, learn_temperature=True, temperature=Constant(0.2)), features, pairs)]
    assert learned[0] == pytest.approx(0.2) and len(set(learned)) > 3
    fixed = [s.tau for s in train(replace(SMALL, temperature=Constant(0.2)), features, pairs)]
    assert set(fixed) == {0.2}


def test_recipe_round_trip_and_errors():
    recipe = replace(SMALL, temperature=Linear(0.2, 0.1), relations={"image-eng_Latn": 2.0}, fixed=("image",))
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(ValueError, match="known are adversary, align, cka, coral, distance"):
        Recipe(terms={"focal": 1.0})
    with pytest.raises(ValueError, match="unknown field 'lr'.*learning_rate"):
        Recipe.from_json('{"lr": 1}')


def test_relation_weight_zero_is_the_same_as_not_training_on_it():
    features, pairs = world()
    with_zero = [s.terms["total"] for s in train(replace(SMALL, relations={"eng_Latn-swh_Latn": 0.0}), features, pairs)]
    part = [
        s.terms["image-eng_Latn/info_nce"] for s in train(replace(SMALL, relations={"eng_Latn-swh_Latn": 0.0}), features, pairs)
    ]
    assert with_zero == pytest.approx(part)


def test_every_pair_is_met_once_an_epoch_and_belief_is_exact():
    features, pairs = world()
    pairs = pairs.assign(weight=np.linspace(0.1, 1, len(pairs)))
    batches = Batches(features, pairs, size=13)
    met: dict[tuple, float] = {}
    for step in range(batches.per_epoch):
        batch = batches.at(step, seed=3)
        for r in batch.relations:
            left, right = batch.rows[r.left_modality][r.left], batch.rows[r.right_modality][r.right]
            for i, j in r.positives.nonzero().tolist():
                pair = (features[r.left_modality].ids[left[i]], features[r.right_modality].ids[right[j]])
                met[pair] = met.get(pair, 0) + float(r.weight[i, j])
    expected = {(a, b): w for a, b, w in pairs.rows[["left", "right", "weight"]].itertuples(index=False)}
    assert met == pytest.approx(expected)
    assert batches.at(2, 3).rows["text"].tolist() == batches.at(2, 3).rows["text"].tolist()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.assign(left="nobody"), "left id 'nobody' has no features"),
        (lambda rows: rows.assign(weight=0.0), "no pair has a weight above 0"),
        (lambda rows: rows.assign(source="all"), "mixes images and texts"),
    ],
)
def test_bad_pairs_are_refused_before_the_first_step(spoil, message):
    features, pairs = world()
    rows = spoil(pairs.rows).drop_duplicates(["left", "right", "source"])
    with pytest.raises(CorpusError, match=message):
        next(train(SMALL, features, Pairs(rows)))


def test_aligner_saves_loads_and_refuses_other_widths(tmp_path):
    features, pairs = world()
    aligner, _ = fit(SMALL, features, pairs, progress=False)
    aligner.save(tmp_path)
    again = Aligner.load(tmp_path)
    assert np.array_equal(again.encode_text(features["text"]), aligner.encode_text(features["text"]))
    with pytest.raises(ValueError, match="width 20, not 3"):
        again.encode_image(Features.from_arrays(np.ones((2, 3)), ["a", "b"]))


def test_sparse_rows_are_the_linear_layer_over_the_distinct_columns():
    torch.manual_seed(0)
    dense = sp.random(6, 20, 0.3, format="csr", dtype=np.float32, random_state=0).toarray()
    dense[:, 7] = dense[:, 8]  # two columns that cannot be told apart
    rows = sp.csr_matrix(dense)
    fitted = SparseInput.fit(rows, least=2)
    kept = [c for c in range(20) if (dense[:, c] != 0).sum() >= 2]
    assert {8, 7} <= set(kept) and fitted.inner == len({tuple(dense[:, c]) for c in kept})
    assert fitted.place[8] == fitted.place[7] and all(fitted.place[c] == -1 for c in range(20) if c not in kept)
    head = Head(20, fitted.inner, 8, 4, sparse=True, input_dropout=0.0, hidden_dropout=0.0, fitted=fitted).eval()
    wide = torch.zeros(20, 8)
    wide[kept] = head.table[fitted.place[kept].long()].detach()
    by_hand = head.out(torch.nn.functional.gelu(torch.from_numpy(dense) @ wide + head.bias))
    assert torch.allclose(head(head.prepare(rows)), torch.nn.functional.normalize(by_hand, dim=-1), atol=1e-6)
    assert fitted.size[fitted.place[8]] == sum(tuple(dense[:, c]) == tuple(dense[:, 8]) for c in kept)
    assert float(fitted.size.sum()) == len(kept)


def test_columns_of_no_training_row_say_nothing():
    features, pairs = world()
    rows = sp.hstack([features["text"].vectors[:, :49], np.zeros((2 * N, 1), np.float32)]).tocsr().astype(np.float32)
    unseen = {"image": features["image"], "text": Features.from_arrays(rows, features["text"].ids)}
    aligner, _ = fit(SMALL, unseen, pairs, progress=False)
    loud = rows.tolil()
    loud[0, 49] = 100.0
    spoken = aligner.encode_text(Features.from_arrays(loud.tocsr(), unseen["text"].ids))
    assert np.allclose(spoken, aligner.encode_text(unseen["text"]))


def test_input_statistics_come_from_training_rows_only():
    features, pairs = world()
    half = pairs.select(pairs.rows.left.isin([f"i{k}" for k in range(10)] + [f"e{k}" for k in range(10)]))
    moved = features["image"].dense().copy()
    moved[10:] += 100
    other = features | {"image": Features.from_arrays(moved, features["image"].ids)}
    assert same(weights(fit(SMALL, features, half, progress=False)[0]), weights(fit(SMALL, other, half, progress=False)[0]))


def test_half_whitening_takes_the_root_of_each_deviation():
    x = np.random.default_rng(0).normal(size=(4000, 3)) * [9, 4, 1]
    layer = DenseInput.fit(x, 3)
    projected = (torch.tensor(x, dtype=torch.float32) - layer.mean) @ layer.basis
    assert projected.std(0).tolist() == pytest.approx([3, 2, 1], rel=0.05)
    lengths = np.linalg.norm(layer.prepare(x), axis=1)
    assert lengths == pytest.approx(np.full(4000, 3**0.5), rel=1e-5)


def test_dropout_keeps_the_mean_and_does_nothing_when_not_training():
    x = torch.ones(200, 500)
    dropped = dropout(x, 0.3, training=True)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert torch.equal(dropout(x, 0.3, training=False), x)


def test_batch_statistics_are_the_means_over_believed_pairs_and_over_all_others():
    sims = {"a": torch.tensor([[0.9, 0.1], [0.2, 0.7]]), "b": torch.tensor([[0.5, -0.3, 0.4]])}
    masks = {"a": torch.tensor([[True, False], [False, True]]), "b": torch.tensor([[True, False, True]])}
    batch = Batch({}, [Relation(name, "text", "text", None, None, mask, mask.float()) for name, mask in masks.items()])
    statistics = _statistics(sims, batch)
    believed, others = [0.9, 0.7, 0.5, 0.4], [0.1, 0.2, -0.3]
    assert statistics["positive spread"] == pytest.approx(np.std(believed))
    assert statistics["negative spread"] == pytest.approx(np.std(others), abs=1e-6)
    assert statistics["positive"] == pytest.approx((0.9 + 0.7 + 0.5 + 0.4) / 4)
    assert statistics["negative"] == pytest.approx((0.1 + 0.2 - 0.3) / 3, abs=1e-6)


def test_a_fixed_modality_is_the_space_already_and_only_the_text_moves_towards_it(tmp_path):
    features, pairs = world()
    space = Features.from_arrays(np.eye(N, SMALL.dim, dtype=np.float32) + 0.1, features["image"].ids)
    calm = replace(SMALL, fixed=("image",), terms={"distance": 1.0}, epochs=80, text_dropout=0.0, dropout=0.0)
    aligner, steps = fit(calm, {"image": space, "text": features["text"]}, pairs, progress=False)
    given = space.vectors / np.linalg.norm(space.vectors, axis=1, keepdims=True)
    assert np.allclose(aligner.encode_image(space), given, atol=1e-6)
    assert steps.total.iloc[-1] < 0.2 * steps.total.iloc[0]
    aligner.save(tmp_path)
    again = Aligner.load(tmp_path)
    assert np.array_equal(again.encode_image(space), aligner.encode_image(space))
    assert np.array_equal(again.encode_text(features["text"]), aligner.encode_text(features["text"]))
    with pytest.raises(ValueError, match="width 20 is not the space's 16"):
        fit(calm, features, pairs, progress=False)


@pytest.mark.parametrize("term", ["align", "siglip", "distance", "structure"])
def test_every_term_falls_while_it_is_trained(term):
    features, pairs = world()
    calm = replace(SMALL, terms={term: 1.0}, epochs=60, bias=-2.7, image_dropout=0.0, text_dropout=0.0, dropout=0.0)
    _, steps = fit(calm, features, pairs, progress=False)
    assert steps.total.iloc[-5:].mean() < 0.7 * steps.total.iloc[:5].mean()


def test_siglips_bias_is_learned_only_by_its_own_loss():
    features, pairs = world()
    for term, moves in (("siglip", True), ("info_nce", False)):
        *_, last = train(replace(SMALL, terms={term: 1.0}, bias=-2.7), features, pairs)
        assert (float(last.state.aligner.bias.detach()) != pytest.approx(-2.7)) is moves


# Towers end to end, a teacher, queues, learned weights of the terms

SIZES = dict(width=16, depth=2, heads=2)
TOWERS = {"image": {"tower": "TinyViT", "size": 16, "patch": 8, **SIZES}, "text": {"tower": "TinyText", "level": "word", **SIZES}}
TALL = replace(SMALL, epochs=2, batch_pairs=12, dim=8, towers=TOWERS, learning_rate=3e-3, terms={"info_nce": 1.0, "filip": 0.5})
M = 10


def raw_world():
    """10 colours as pictures of raw bytes, and two words for each: English ones tied to pictures, Swahili ones to English."""
    rng = np.random.default_rng(0)
    pictures = np.repeat(np.repeat(rng.integers(0, 256, (M, 4, 1, 1), np.uint8), 16, 2), 16, 3)
    ids, english, swahili = ([f"{letter}{k}" for k in range(M)] for letter in "ies")
    words = texts([f"the {w}" if w[0] == "e" else w for w in english + swahili], TinyText(level="word", **SIZES).tokenise)
    features = {"image": Inputs(ids, pictures), "text": Inputs(english + swahili, words.rows)}
    image = pd.DataFrame({"left": ids, "right": english, "source": "image-eng_Latn"})
    text = pd.DataFrame({"left": english, "right": swahili, "source": "eng_Latn-swh_Latn"})
    return features, Pairs(pd.concat([image, text]))


def teacher(features, pairs, seed: int = 0):
    """A guide: one vector a concept, and a little of each row's own."""
    rng = np.random.default_rng(seed)
    ids = [row_id for table in features.values() for row_id in table.ids]
    concept = rng.normal(size=(N, 6))
    return Features.from_arrays([concept[int(i[1:])] + 0.1 * rng.normal(size=6) for i in ids], ids)


def test_towers_learn_end_to_end_and_read_back(tmp_path):
    features, pairs = raw_world()
    recipe = replace(TALL, epochs=40, batch_pairs=20, temperature=Constant(0.1))
    aligner, steps = fit(recipe, features, pairs, progress=False)
    assert steps["image-eng_Latn/filip"].iloc[-1] < 0.5 * steps["image-eng_Latn/filip"].iloc[0]
    found, swahili = aligner.encode_image(features["image"]), aligner.encode_text(features["text"])[M:]
    assert (np.argmax(swahili @ found.T, 1) == np.arange(M)).mean() > 0.7, "Swahili finds pictures it was never paired with"
    aligner.save(tmp_path)
    assert np.array_equal(Aligner.load(tmp_path).encode_image(features["image"]), found)


FULL = replace(
    TALL,
    terms={"info_nce": 1.0, "gloria": 0.5, "mmd": 0.1, "relational": 0.2, "adversary": 0.1},
    queue=7,
    weighting="uncertainty",
    train_towers=1,
    tower_learning_rate=1e-3,
)


def test_a_run_with_towers_a_queue_a_teacher_and_learned_weights_resumes_bit_for_bit(tmp_path):
    features, pairs = raw_world()
    guide = teacher(features, pairs)
    whole = [(s.row(), weights(s.state.aligner)) for s in train(FULL, features, pairs, guide=guide)]
    run = train(FULL, features, pairs, guide=guide)
    first = [next(run) for _ in range(2)]
    save_state(first[-1].state, [s.row() for s in first], tmp_path)
    torch.manual_seed(12345)
    state, rows = load_state(tmp_path, FULL, features, pairs)
    assert {"queue/image-eng_Latn", "queue/eng_Latn-swh_Latn"} <= set(state.schedule) and len(state.uncertainty) == 10
    rest = list(train(FULL, features, pairs, state, guide))
    assert rows + [s.row() for s in rest] == [row for row, _ in whole]
    assert same(weights(rest[-1].state.aligner), whole[-1][1])


def test_what_is_frozen_does_not_move_and_a_towers_own_rate_is_its_own():
    features, pairs = raw_world()
    steps = list(train(FULL, features, pairs, guide=teacher(features, pairs)))
    state = steps[-1].state
    start = initial_state(FULL, features, Batches(features, pairs, FULL.batch_pairs)).aligner.state_dict()
    moved = {name for name, value in state.aligner.named_parameters() if not torch.equal(value, start[name])}
    inside = {name.split(".tower.")[1] for name in moved if ".tower." in name}
    assert inside and all(name.startswith(("blocks.1.", "norm.")) for name in inside)
    first = next(train(FULL, features, pairs, guide=teacher(features, pairs)))
    rates = sorted({group["lr"] for group in first.state.optimiser.param_groups})
    assert rates == pytest.approx([first.learning_rate / 3, first.learning_rate])


def test_a_queue_holds_the_last_believed_pairs_and_only_distributions_see_it():
    features, pairs = world()
    recipe = replace(SMALL, queue=25, terms={"info_nce": 1.0, "coral": 1.0, "structure": 1.0}, batch_pairs=20)
    with_queue, without = (list(train(each, features, pairs)) for each in (recipe, replace(recipe, queue=0)))
    assert with_queue[0].terms == without[0].terms, "there is nothing to remember yet"
    for name, agrees in (("coral", False), ("structure", True), ("info_nce", True)):
        label = f"image-eng_Latn/{name}"
        assert (with_queue[1].terms[label] == without[1].terms[label]) is agrees
    run = train(recipe, features, pairs)
    queues = [next(run).state.schedule["queue/image-eng_Latn"]["left"] for _ in range(5)]
    assert len(queues[0]) < 25 and len(queues[-1]) == 25 and len(queues[-2]) == 25
    moved = [n for n in range(1, 25) if np.array_equal(queues[-1][:-n], queues[-2][n:])]
    assert len(moved) == 1, "the oldest go, the newest stand at the end"


def test_learned_weights_follow_the_size_of_the_losses():
    features, pairs = world()
    recipe = replace(
        SMALL, weighting="uncertainty", terms={"info_nce": 1.0, "distance": 1.0, "coral": 0.5}, epochs=40, learning_rate=0.05
    )
    *_, last = train(recipe, features, pairs)
    for relation in pairs.sources:
        s = {term: 4 * np.tanh(float(last.state.uncertainty[f"{relation}/{term}"].detach()) / 4) for term in recipe.terms}
        for term, value in s.items():
            assert last.coefficients[f"weight/{relation}/{term}"] == pytest.approx(recipe.terms[term] * np.exp(-value), rel=0.2)
        assert s["coral"] < s["distance"] < s["info_nce"], "a small loss is a certain one"
    first = next(train(recipe, features, pairs))
    plain = next(train(replace(recipe, weighting="fixed"), features, pairs))
    assert first.terms["total"] == pytest.approx(plain.terms["total"]), "exp(0) = 1 and s/2 = 0 at the start"


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("filip", "has no left tokens, which the term 'filip' needs; give Inputs and a tower"),
        ("relational", "has no guide, which the term 'relational' needs; give train"),
    ],
)
def test_a_term_that_lacks_what_it_needs_stops_the_first_step_and_an_edit_is_refused(term, said):
    terms, said = {term: 1.0}, f"relation 'image-eng_Latn' {said}"
    features, pairs = world()
    with pytest.raises(ValueError, match=said):
        next(train(replace(SMALL, terms=terms), features, pairs))
    run = train(SMALL, features, pairs)
    step = next(run)
    assert said in run.send(Edit(1, "terms", terms)).refused
    rest = [step, *run]
    assert [s.terms for s in rest] == [s.terms for s in train(SMALL, features, pairs)], "as if it had not been asked"


def test_a_guide_for_some_rows_guides_the_relations_that_it_covers():
    features, pairs = world()
    guide = teacher(features, pairs)
    ids = [row_id for row_id in guide.ids if row_id[0] != "i"]
    texts_only, seen = Features(ids, guide.take(ids)), {}
    original = TERMS["info_nce"]
    try:
        TERMS["info_nce"] = lambda v: seen.update({v.relation: v.guide}) or original(v)
        next(train(SMALL, features, pairs, guide=texts_only))
    finally:
        TERMS["info_nce"] = original
    assert seen["image-eng_Latn"] is None and seen["eng_Latn-swh_Latn"] is not None
    step = next(train(replace(SMALL, terms={"relational": 1.0}), features, pairs, guide=texts_only))
    assert step.terms["image-eng_Latn/relational"] == 0 < step.terms["eng_Latn-swh_Latn/relational"]
    sims = seen["eng_Latn-swh_Latn"]
    batch = Batches(features, pairs, SMALL.batch_pairs).at(0, 0)
    relation = batch.relations[1]
    left, right = (features["text"].ids[batch.rows["text"][at]] for at in (relation.left, relation.right))
    unit = guide.vectors / np.linalg.norm(guide.vectors, axis=1, keepdims=True)
    expected = unit[guide.position(left)] @ unit[guide.position(right)].T
    np.testing.assert_allclose(sims, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("knows", "said"),
    [
        (lambda row_id: row_id != "i3", "the guide knows the left row of 29 of the 30 pairs of 'image-eng_Latn'; give it all"),
        (lambda row_id: row_id[0] == "s", "the guide knows both rows of no pair; its ids, 's0' for one, must be those of rows"),
    ],
)
def test_a_guide_with_gaps_is_refused_before_the_first_step(knows, said):
    features, pairs = world()
    guide = teacher(features, pairs)
    ids = [row_id for row_id in guide.ids if knows(row_id)]
    with pytest.raises(ValueError, match=said):
        next(train(SMALL, features, pairs, guide=Features(ids, guide.take(ids))))


def test_a_tower_and_its_inputs_come_together_or_not_at_all():
    features, pairs = raw_world()
    with pytest.raises(ValueError, match="image brings Inputs, which need a tower; the recipe's towers are none"):
        next(train(replace(TALL, towers={}), features, pairs))
    frozen, pairs = world()
    with pytest.raises(ValueError, match=r"text brings features, which need none; the recipe's towers are \['text'\]"):
        next(train(replace(SMALL, towers={"text": TOWERS["text"]}), frozen, pairs))


def test_frozen_pictures_and_a_text_tower_go_together():
    features, pairs = raw_world()
    image = Features.from_arrays(np.random.default_rng(0).normal(size=(M, 12)), features["image"].ids)
    recipe = replace(TALL, towers={"text": TOWERS["text"]}, terms={"info_nce": 1.0}, train_towers="none", image_head="linear")
    aligner, _ = fit(recipe, {"image": image, "text": features["text"]}, pairs, progress=False)
    assert aligner.encode_image(image).shape == (M, 8) == aligner.encode_text(features["text"])[:M].shape


def test_a_run_through_adapters_moves_nothing_else_of_its_towers_and_resumes(tmp_path):
    pytest.importorskip("peft")
    features, pairs = raw_world()
    recipe = replace(TALL, adapters=2, terms={"info_nce": 1.0})
    run = train(recipe, features, pairs)
    first = [next(run) for _ in range(2)]
    save_state(first[-1].state, [], tmp_path)
    state, _ = load_state(tmp_path, recipe, features, pairs)
    rest, again = list(run), list(train(recipe, features, pairs, state))
    assert same(weights(rest[-1].state.aligner), weights(again[-1].state.aligner))
    start = initial_state(recipe, features, Batches(features, pairs, recipe.batch_pairs)).aligner.state_dict()
    moved = {name for name, value in weights(rest[-1].state.aligner).items() if not torch.equal(value, start[name])}
    inside = {name for name in moved if ".tower." in name}
    assert inside and all("lora_" in name for name in inside)
