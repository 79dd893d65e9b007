"""What a recipe holds, prints and reads back; and what the trainer makes of schedules, stages, thresholds and adversaries."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from xmalign_lab.corpus import Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.losses import local
from xmalign_lab.losses.contrastive import symmetric_info_nce
from xmalign_lab.losses.structure import coral, mmd, neighbourhood, structure, uniformity, wasserstein
from xmalign_lab.recipe import TERMS, Recipe, Stage, View
from xmalign_lab.schedules import Adaptive, Constant, Cosine, Fading, Individual, Linear, PerPair, Piecewise
from xmalign_lab.train import Collapsed, Edit, fit, load_state, save_state, train

SMALL = Recipe(least_count=1, epochs=4, batch_pairs=40, dim=16, hidden=24, components=12)
N = 30
EVERYTHING = replace(
    SMALL,
    temperature=Individual(tau0=0.1, low=0.05, high=0.5, rho=1.0),
    terms={"info_nce": 1.0, "cka": Fading(0.5, 0.4), "adversary": 0.1},
    repulsion=Linear(0.5, 1.0),
    hardness=1.0,
    ambiguity=0.5,
    stages=(Stage("contrastive", 0.5), Stage("refine", 1.0, {"terms": {"info_nce": 1.0}, "temperature": Constant(0.05)})),
)


def world():
    """30 concepts: dense pictures, sparse English and Swahili texts, tied over English; scores rise from 0.01."""
    rng = np.random.default_rng(0)
    concept = rng.normal(size=(N, 8))
    pictures = concept @ rng.normal(size=(8, 20)) + 0.1 * rng.normal(size=(N, 20))
    texts = sp.csr_matrix(np.maximum(np.tile(concept, (2, 1)) @ rng.normal(size=(8, 50)) - 0.5, 0).astype(np.float32))
    ids, english, swahili = ([f"{letter}{k}" for k in range(N)] for letter in "ies")
    features = {"image": Features.from_arrays(pictures, ids), "text": Features.from_arrays(texts, english + swahili)}
    image = pd.DataFrame({"left": ids, "right": english, "source": "image-eng_Latn"})
    text = pd.DataFrame({"left": english, "right": swahili, "source": "eng_Latn-swh_Latn", "score": np.arange(1, N + 1) / 100})
    return features, Pairs(pd.concat([image, text]))


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_recipe_with_every_kind_of_schedule_reads_back_equal():
    for recipe in (
        EVERYTHING,
        replace(SMALL, temperature=PerPair()),
        replace(SMALL, temperature=Adaptive(0.2, 0.05), attraction=Piecewise(((0, 1.0), (1, 2.0))), relations={"a": 0.5}),
        replace(SMALL, relations={"a": 0.5, "b": {"info_nce": 1.0, "cka": 0.1}}),
        replace(SMALL, towers={"text": {"tower": "TinyText", "width": 8}}, train_towers=2, queue=9, weighting="uncertainty"),
        replace(SMALL, image_head="residual", text_head="shared", tower_learning_rate=1e-4, adapters=4, train_towers="none"),
    ):
        again = Recipe.from_json(recipe.to_json())
        assert again == recipe and json.loads(again.to_json()) == json.loads(recipe.to_json())
        assert again.at(0.9) == recipe.at(0.9)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"terms": {"magic": 1.0}}, "unknown term 'magic'; known are adversary, align, cka"),
        ({"temperature": Linear(0.1, -0.1)}, "temperature must stay finite and above 0"),
        ({"stages": (Stage("a", 0.5),)}, "the last at 1"),
        ({"stages": (Stage("a", 0.7), Stage("b", 0.4), Stage("c", 1.0))}, "one after the other"),
        ({"stages": (Stage("a", 1.0, {"terms": {"magic": 1.0}}),)}, "unknown term 'magic'"),
        ({"text_head": "cubic"}, "unknown text_head 'cubic'; known are linear, mlp, orthogonal, residual, shared"),
        ({"weighting": "magic"}, "unknown weighting 'magic'; known are fixed, uncertainty"),
        ({"train_towers": "some"}, "train_towers is 'some'; it may be 'none', 'all' or a number of last blocks"),
        ({"train_towers": 0}, "train_towers is 0; it may be"),
        ({"relations": {"a": {"magic": 1.0}}}, "unknown term 'magic'"),
        ({"queue": -1}, "adapters, queue and tower_learning_rate cannot be below 0"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(fields, said):
    with pytest.raises(ValueError, match=said):
        replace(SMALL, **fields)


def test_a_stage_changes_what_may_be_edited_and_nothing_else():
    with pytest.raises(ValueError, match="stage 'a' changes 'dim'; it may change temperature"):
        Stage("a", 1.0, {"dim": 8})
    with pytest.raises(ValueError, match=r"ends at progress 1.5; it must lie in \(0, 1\]"):
        Stage("a", 1.5)
    assert EVERYTHING.at(0.49)[0] == "contrastive" and EVERYTHING.at(0.5)[0] == EVERYTHING.at(1.0)[0] == "refine"
    assert SMALL.at(0.3) == ("", SMALL)
    assert EVERYTHING.edited("temperature", Constant(0.3)).at(0.9)[1].temperature == Constant(0.3), "an edit holds in all stages"


LOCAL = ("filip", "gloria", "pacl", "transport")


def test_every_term_trains_in_every_relation():
    features, pairs = world()
    ids = [*features["image"].ids, *features["text"].ids]
    guide = Features.from_arrays(np.random.default_rng(1).normal(size=(3 * N, 6)), ids)
    terms = dict.fromkeys(set(TERMS) - {*LOCAL, "transport_cost", "relational_words"}, 0.1)
    aligner, steps = fit(replace(SMALL, terms=terms), features, pairs, progress=False, guide=guide)
    for relation in pairs.sources:
        for term in terms:
            assert np.isfinite(steps[f"{relation}/{term}"]).all()
            assert term == "adversary" or steps[f"{relation}/{term}"].nunique() > 1
    assert (steps["image-eng_Latn/adversary"] == 0).all() and (steps["eng_Latn-swh_Latn/adversary"] > 0).all()
    assert np.isfinite(aligner.encode_text(features["text"])).all()


def view(**changes) -> View:
    """Six rows left, five right, three and four tokens each, some of them padding; a diagonal of five believed pairs."""
    noise = torch.Generator().manual_seed(0)
    unit = [torch.nn.functional.normalize(torch.randn(*shape, generator=noise), dim=-1) for shape in ((6, 4), (5, 4))]
    tokens = [torch.nn.functional.normalize(torch.randn(*shape, generator=noise), dim=-1) for shape in ((6, 3, 4), (5, 4, 4))]
    masks = [torch.rand(*shape, generator=noise) < 0.7 for shape in ((6, 3), (5, 4))]
    for mask in masks:
        mask[:, 0] = True
    positives = torch.eye(6, 5, dtype=torch.bool)
    parts = {"left_tokens": tokens[0], "left_mask": masks[0], "right_tokens": tokens[1], "right_mask": masks[1]}
    return View(*unit, unit[0] @ unit[1].T, positives, positives.float(), 0.2, torch.tensor(0.0), **parts | changes)


@pytest.mark.parametrize("name", LOCAL)
def test_a_text_asks_a_picture_whichever_of_them_is_left(name):
    texts = view(modalities=("text", "image"))
    turned = View(
        texts.right, texts.left, texts.sim.T, texts.positives.T, texts.weight.T, 0.2, texts.bias,
        left_tokens=texts.right_tokens, left_mask=texts.right_mask, right_tokens=texts.left_tokens,
        right_mask=texts.left_mask, modalities=("image", "text"),
    )  # fmt: skip
    assert TERMS[name](texts).item() == pytest.approx(TERMS[name](turned).item(), rel=1e-5)
    rates = {"tau": (torch.rand(6, 1) + 0.1, torch.rand(1, 5) + 0.1)}
    assert TERMS[name](replace(texts, **rates)).item() == pytest.approx(
        TERMS[name](replace(turned, tau=(rates["tau"][1], rates["tau"][0]))).item(), rel=1e-5
    )
    tokens = (texts.left_tokens, texts.right_tokens, texts.left_mask, texts.right_mask)
    if name != "filip":
        by_hand = symmetric_info_nce(getattr(local, name)(*tokens), texts.positives, 0.2, texts.weight)
        assert TERMS[name](texts).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_queue_stands_behind_the_batch_as_pairs_of_its_own():
    v = view()
    past = tuple(torch.nn.functional.normalize(torch.randn(3, 4), dim=1) for _ in "xy")
    left, right = torch.cat([v.left[:5], past[0]]), torch.cat([v.right, past[1]])
    for measure in (mmd, coral, wasserstein, uniformity):
        expected = measure(left, right, torch.eye(8, dtype=torch.bool)).item()
        assert TERMS[measure.__name__](replace(v, remembered=past)).item() == pytest.approx(expected, rel=1e-4)
    alone = structure(v.left, v.right, v.positives).item()
    assert TERMS["structure"](replace(v, remembered=past)).item() == alone


def test_neighbourhoods_are_those_of_the_text_side_or_of_the_left_text():
    v = view(before=torch.randn(5, 5, generator=torch.Generator().manual_seed(1)), modalities=("image", "text"))
    assert TERMS["neighbourhood"](v).item() == neighbourhood(v.right, v.before).item()
    between = replace(v, modalities=("text", "text"), before=torch.eye(6))
    assert TERMS["neighbourhood"](between).item() == neighbourhood(v.left, torch.eye(6)).item()
    with pytest.raises(ValueError, match="relation 'a-b' has no before, which the term 'neighbourhood' needs; its texts must"):
        TERMS["neighbourhood"](view(relation="a-b"))


def test_a_run_with_every_memory_resumes_bit_for_bit(tmp_path):
    features, pairs = world()
    whole, rows = fit(EVERYTHING, features, pairs, progress=False)
    run = train(EVERYTHING, features, pairs)
    seen = [next(run) for _ in range(3)]
    save_state(seen[-1].state, [step.row() for step in seen], tmp_path)
    state, _ = load_state(tmp_path, EVERYTHING, features, pairs)
    assert {"temperature/image-eng_Latn", "weight/cka"} <= set(state.schedule) and len(state.adversaries) == 1
    again, more = fit(EVERYTHING, features, pairs, tmp_path, progress=False)
    assert same(whole.state_dict(), again.state_dict())
    pd.testing.assert_frame_equal(rows, more)


def test_each_step_logs_its_stage_its_coefficients_and_at_an_epochs_end_the_effective_rank():
    features, pairs = world()
    _, steps = fit(EVERYTHING, features, pairs, progress=False)
    assert steps.stage.tolist() == ["contrastive"] * 4 + ["refine"] * 4
    assert steps.repulsion.tolist() == pytest.approx(np.linspace(0.5, 1, 8)) and (steps.attraction == 1).all()
    assert steps["weight/cka"][:4].between(0, 0.5).all() and steps["weight/cka"][4:].isna().all()
    assert steps["effective rank"].notna().tolist() == [False, True] * 4 and (steps["effective rank"].dropna() > 1).all()
    assert (steps.tau[4:] == 0.05).all() and steps.tau[:4].between(0.05, 0.5).all() and steps.tau[:4].nunique() > 1


def test_a_threshold_leaves_pairs_out_from_the_step_of_its_edit_on_and_spares_those_without_a_score():
    features, pairs = world()
    run = train(SMALL, features, pairs)
    first = next(run)
    assert run.send(Edit(first.step, "threshold", 0.28)) is first
    later = [next(run) for _ in range(2)]
    few = pairs.select(~(pairs.rows.score < 0.28))
    assert len(few) == N + 3 and later[-1].steps == 8, "the number of steps stays"
    by_hand = train(replace(SMALL, threshold=0.28), features, pairs)
    assert next(by_hand).terms != first.terms
    refused = run.send(Edit(later[-1].step, "threshold", 0.9)).refused
    assert refused == "threshold 0.9 keeps no pair of 'eng_Latn-swh_Latn', whose highest score is 0.3"
    assert next(run).refused == "" and first.state.recipe.threshold == 0.28 and len(first.state.edits) == 1


def test_an_edit_out_of_range_changes_nothing():
    features, pairs = world()
    run = train(SMALL, features, pairs)
    step = next(run)
    assert "must stay finite and above 0" in run.send(Edit(1, "temperature", Linear(0.1, 0.0))).refused
    assert "'dim' cannot be edited in a run; editable are temperature" in run.send(Edit(1, "dim", 8)).refused
    assert step.state.recipe == SMALL and not step.state.edits


def test_a_collapse_stops_the_run_and_says_so(tmp_path):
    features, pairs = world()
    with pytest.raises(Collapsed, match="step 2: effective rank .* is below 15"):
        fit(replace(SMALL, collapse=15.0, terms={"distance": 50.0}, learning_rate=0.1), features, pairs, progress=False)


def test_vectors_that_fall_on_one_point_are_a_collapse_though_what_is_left_has_every_direction():
    features, pairs = world()
    pulled = replace(SMALL, terms={"distance": 1.0}, learning_rate=0.05, epochs=60)
    last = [step.row() for step in train(pulled, features, pairs)][-1]
    assert last["negative"] > 0.95 and last["effective rank"] < 1
    with pytest.raises(Collapsed, match="is below 2"):
        fit(replace(pulled, collapse=2.0), features, pairs, progress=False)


def test_an_adversary_added_while_the_run_goes_gets_its_own_discriminator(tmp_path):
    features, pairs = world()
    run = train(SMALL, features, pairs)
    step = next(run)
    assert not step.state.adversaries
    run.send(Edit(1, "terms", {"info_nce": 1.0, "adversary": 0.5}))
    step = next(run)
    assert "eng_Latn-swh_Latn/adversary" in step.terms
    save_state(step.state, [], tmp_path)
    state, _ = load_state(tmp_path, SMALL, features, pairs)
    assert same(step.state.adversaries.state_dict(), state.adversaries.state_dict())
    after = next(run)
    resumed = next(train(SMALL, features, pairs, state))
    assert resumed.terms == after.terms


def test_a_gap_that_closes_lets_the_regulariser_fade():
    features, pairs = world()
    terms = {"info_nce": 1.0, "structure": Fading(1.0, 0.5, memory=0.0)}
    recipe = replace(SMALL, epochs=40, terms=terms, temperature=Cosine(0.2, 0.05))
    _, steps = fit(recipe, features, pairs, progress=False)
    assert steps["weight/structure"].iloc[0] > 0.6 and steps["weight/structure"].iloc[-1] < 0.3
    gap = steps.positive - steps.negative
    assert np.corrcoef(gap, steps["weight/structure"])[0, 1] < -0.8


def test_a_relation_may_have_losses_of_its_own():
    features, pairs = world()
    terms = {"info_nce": 1.0, "coral": 0.5, "relational": 1.0}
    own = {"image-eng_Latn": {"info_nce": 1.0}, "eng_Latn-swh_Latn": {"info_nce": 0.5, "coral": 2.0}}
    step = next(train(replace(SMALL, terms=terms, relations=own), features, pairs))  # no guide, and none is asked for
    of = {label: value for label, value in step.terms.items() if label != "total"}
    weights = {"image-eng_Latn/info_nce": 1.0, "eng_Latn-swh_Latn/info_nce": 0.5, "eng_Latn-swh_Latn/coral": 1.0}
    assert set(of) == set(weights)
    assert step.terms["total"] == pytest.approx(sum(weights[label] * value for label, value in of.items()))


def test_an_edit_that_changes_nothing_or_is_refused_leaves_no_trace_in_what_schedules_and_queues_remember():
    features, pairs = world()
    recipe = replace(EVERYTHING, queue=20, terms=dict(EVERYTHING.terms) | {"mmd": 0.1})
    expected = [step.row() for step in train(recipe, features, pairs)]
    run = train(recipe, features, pairs)
    rows = []
    for step in run:
        rows.append(step.row())
        if step.step == 2:
            assert run.send(Edit(2, "hardness", recipe.hardness)) is step
            assert "no left tokens" in run.send(Edit(2, "terms", {"filip": 1.0})).refused
    assert rows == expected
