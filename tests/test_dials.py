"""Figures of runs, thresholds and temperatures: they draw the numbers they are given, checked by brute force and autograd."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plots import header, written

from xmalign_lab import dials, schedules, style
from xmalign_lab.losses.contrastive import info_nce
from xmalign_lab.pairs import confidence

SWAHILI = "eng_Latn-swh_Latn"
PLANS = [schedules.Constant(0.05), schedules.Linear(0.1, 0.01), schedules.Cosine(0.1, 0.02, 2), schedules.Adaptive(0.1, 0.02)]


def long_run(n=50, **more):
    at = np.arange(n)
    terms = {"image-eng_Latn/info_nce": 4.0 / (at + 1), f"{SWAHILI}/info_nce": 2.0 / (at + 1), "total": 9.0}
    return pd.DataFrame(
        {"step": at + 1, "epoch": (at + 1) / 10, "progress": at / n, "tau": 0.07, "learning_rate": 1e-3} | terms | more
    )


def batch(n=6, m=9, seed=0, several=False):
    """Similarities in [-1, 1] and one right candidate a row, or several."""
    rng = np.random.default_rng(seed)
    positives = rng.random((n, m)) < 0.3 if several else np.arange(m) == rng.integers(m, size=n)[:, None]
    positives[:, 0] |= ~positives.any(1)
    positives[:, 1] &= ~positives.all(1)
    return rng.uniform(-1, 1, (n, m)), positives


# --- a run


def test_loss_curves_draw_the_terms_and_nothing_else():
    steps = long_run(positive=0.5, negative=0.1, attraction=1.0, **{"weight/info_nce": 1.0, "validation R@1": 0.1})
    figure = dials.training(steps, views=["loss"])
    assert [t.name for t in figure.data] == ["picture–English, info_nce", "English–Swahili, info_nce", "total"]
    colours = [style.language_colour("eng_Latn"), style.language_colour("swh_Latn"), style.INK]
    assert [t.line.color for t in figure.data] == colours and {t.line.dash for t in figure.data} == {"solid"}
    assert np.allclose(figure.data[0].y, steps["image-eng_Latn/info_nce"]) and np.allclose(figure.data[0].x, steps.epoch)
    assert figure.layout.xaxis.title.text == "epoch" and figure.layout.yaxis.title.text == "loss"
    only = dials.training(steps.drop(columns="epoch"), ["total"], ["loss"])
    assert only.layout.xaxis.title.text == "step" and [t.name for t in only.data] == ["total"]
    written(figure)


def test_two_terms_of_one_relation_differ_in_their_dash():
    figure = dials.training(long_run(**{f"{SWAHILI}/structure": 0.1}), views=["loss"])
    looks = {t.name: (t.line.color, t.line.dash) for t in figure.data}
    same, dash = zip(looks["English–Swahili, info_nce"], looks["English–Swahili, structure"], strict=True)
    assert same[0] == same[1] and dash == ("solid", "dash") and len(set(looks.values())) == len(looks)


def test_a_long_run_is_drawn_as_means_and_says_so():
    steps = long_run(3_000)
    figure = dials.training(steps)
    loss = figure.data[0]
    assert len(loss.y) == 600 and loss.y[0] == pytest.approx(steps["image-eng_Latn/info_nce"][:5].mean())
    assert header(figure) == "each point is the mean of 5 steps"
    assert figure.data[-1].name == "temperature τ" and np.allclose(figure.data[-1].y, 0.07) and figure.data[-1].yaxis == "y2"
    written(figure, 60_000)


def test_every_view_has_its_panel_and_draws_its_numbers():
    more = {"positive": 0.5, "positive spread": 0.1, "negative": 0.0, "negative spread": 0.2, "attraction": 1.0, "repulsion": 0.7}
    at_ends = np.where(np.arange(50) % 10 == 9, 30.0, np.nan)
    steps = long_run(**more, **{"weight/structure": 0.5, "effective rank": at_ends, "validation R@1": at_ends / 100})
    figure = dials.training(steps)
    drawn = {t.name: t for t in figure.data if t.name}
    panels = {name: t.yaxis for name, t in drawn.items()}
    assert len(set(panels.values())) == len(dials.VIEWS)
    assert np.allclose(drawn["repulsion"].y, 0.7) and np.allclose(drawn["weight/structure"].y, 0.5)
    assert np.nanmax(drawn["validation R@1"].y) == pytest.approx(0.3) and np.isfinite(drawn["effective rank"].y).sum() == 5
    low, high = (t for t in figure.data if not t.name and np.isclose(np.abs(t.y).max(), 0.2))
    assert np.allclose(low.y, -0.2) and np.allclose(high.y, 0.2) and high.fill == "tonexty"
    looks = [(t.line.color, t.line.dash) for t in drawn.values() if t.yaxis == panels["repulsion"]]
    assert len(set(looks)) == len(looks) == 3
    for view in dials.VIEWS:
        alone = dials.training(steps, views=[view])
        assert {t.name for t in alone.data if t.name} <= set(drawn) and len({t.yaxis for t in alone.data}) == 1
        assert alone.layout.title.text and alone.layout.yaxis.title.text and alone.layout.xaxis.title.text == "epoch"
    written(figure, 30_000)
    with pytest.raises(ValueError, match="unknown view 'losses'; known are loss, temperature"):
        dials.training(steps, views=["losses"])


def test_stages_are_grounds_and_edits_are_lines():
    steps = long_run(4, stage=["initialise", "initialise", "refine", "refine"])
    figure = dials.training(steps, edits=[{"step": 3, "field": "temperature"}])
    first, second, line = figure.layout.shapes
    assert [first.type, second.type, line.type] == ["rect", "rect", "line"] and first.fillcolor != second.fillcolor
    assert [first.x0, first.x1, second.x0, second.x1, line.x0, line.x1] == pytest.approx([0.1, 0.3, 0.3, 0.4, 0.3, 0.3])
    assert {(shape.yref, shape.y0, shape.y1) for shape in figure.layout.shapes} == {("paper", 0, 1)}  # through every panel
    assert [note.text for note in figure.layout.annotations] == ["initialise", "refine", "temperature"]
    bare = dials.training(long_run(4), edits=[])
    assert not bare.layout.shapes and dials.training(long_run(0)).data[0].y.size == 0


# --- a threshold


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=80), st.floats(-1.2, 1.2))
def test_threshold_bars_are_the_brute_force_counts(pairs, value):
    scores, truth = [s for s, _ in pairs], [t for _, t in pairs]
    figure = dials.threshold(scores, value, truth)
    bars = {t.name: int(np.sum(t.y)) for t in figure.data}
    for name, is_true in (("true", True), ("wrong", False)):
        assert bars[f"{name}, kept"] == sum(t == is_true and s >= value for s, t in pairs)
        assert bars[f"{name}, dropped"] == sum(t == is_true and s < value for s, t in pairs)
    for trace in figure.data:  # no bar with pairs in it crosses the threshold
        low, high = trace.x - trace.width / 2, trace.x + trace.width / 2
        outside = low < value - 1e-5 if "kept" in trace.name else high > value + 1e-5
        assert not (outside & (trace.y > 0)).any()
    plain = dials.threshold(scores, value)
    assert [int(np.sum(t.y)) for t in plain.data] == [sum(s >= value for s in scores), sum(s < value for s in scores)]


def test_threshold_says_precision_and_recall():
    scores, truth = [0.9, 0.8, 0.7, 0.2], [True, False, True, True]
    assert dials.threshold_counts(scores, 0.7, truth) == {"kept": 3, "of": 4, "precision": 2 / 3, "recall": 2 / 3}
    assert header(dials.threshold(scores, 0.7, truth)) == "kept 3 of 4 (75%) · precision .67 · recall .67"
    assert np.isnan(dials.threshold_counts(scores, 2.0, truth)["precision"])
    assert "precision –" in header(dials.threshold(scores, 2.0, truth))
    written(dials.threshold(np.random.default_rng(0).normal(size=100_000), 0.3))


def test_threshold_refuses_what_it_cannot_judge():
    with pytest.raises(ValueError, match="2 of 3 scores are not finite"):
        dials.threshold([0.1, np.nan, np.inf], 0.5)
    with pytest.raises(ValueError, match=r"3 scores, but truth has shape \(2,\)"):
        dials.threshold([0.1, 0.2, 0.3], 0.5, [True, False])


def test_each_source_keeps_its_share_and_is_counted():
    scores, sources = [0.9, 0.8, 0.2, 0.1, 0.7], [SWAHILI, SWAHILI, SWAHILI, "image-eng_Latn", "mined"]
    figure = dials.threshold(scores, 0.5, [True, False, True, True, True], sources)
    bars = {t.name: dict(zip(t.y, t.customdata, strict=True)) for t in figure.data if t.orientation == "h"}
    assert bars["true, kept"] == {SWAHILI: 1, "image-eng_Latn": 0, "mined": 1}
    assert bars["wrong, kept"] == {SWAHILI: 1, "image-eng_Latn": 0, "mined": 0}
    assert bars["true, dropped"] == {SWAHILI: 1, "image-eng_Latn": 1, "mined": 0}
    total = np.sum([t.x for t in figure.data if t.orientation == "h"], axis=0)
    assert np.allclose(total, 1)
    ticks = " ".join(figure.layout.yaxis2.ticktext)
    assert "English–Swahili" in ticks and "2 of 3" in ticks and "picture–English" in ticks and "0 of 1" in ticks
    written(figure)


def test_sources_are_called_by_their_languages():
    names = {SWAHILI: "English–Swahili", "image-eng_Latn": "picture–English", "mined": "mined", "a-b": "a-b", "<b>": "&lt;b&gt;"}
    assert {source: dials.relation_name(source) for source in names} == names


def test_reliability_draws_its_table_the_diagonal_and_the_distance():
    rng = np.random.default_rng(0)
    p = rng.random(2_000)
    honest = confidence.reliability(p, rng.random(2_000) < p)
    bold = confidence.reliability(np.full(300, 1.0), np.arange(300) < 120)
    figure = dials.reliability({"honest": honest, "bold": bold})
    diagonal, line, bars, point, more = figure.data
    assert list(diagonal.x) == list(diagonal.y) == [0, 1] and not diagonal.showlegend
    assert np.allclose(line.x, honest.p) and np.allclose(line.y, honest.right) and np.allclose(bars.y, honest["count"])
    assert np.allclose(line.y + line.error_y.array, honest.high) and np.allclose(line.y - line.error_y.arrayminus, honest.low)
    assert np.allclose(bars.x + bars.width / 2, np.arange(10) / 10 + 0.05) and np.allclose(more.x - more.width / 2, 0.95)
    assert line.marker.color is None and line.line.color == bars.marker.color
    apart = (np.abs(honest.p - honest.right) * honest["count"]).sum() / 2_000
    assert line.name == f"honest, {style.number(apart)} apart" and point.name == "bold, .6 apart"
    assert point.line.color != line.line.color and point.marker.symbol != line.marker.symbol
    assert len(dials.reliability({}).data) == 1
    written(figure)


# --- a temperature


def test_softmax_against_hand_checked_values():
    p, spread = dials.softmax(np.log([8.0, 4.0, 4.0]), 1.0)
    assert np.allclose(p, [0.5, 0.25, 0.25]) and spread == pytest.approx(2**1.5)  # an entropy of 1.5 bits
    assert dials.softmax(np.zeros(7), 0.3)[1] == pytest.approx(7)
    assert dials.softmax(np.array([1.0, 0.0, -1.0]), 1e-4)[1] == pytest.approx(1)
    with pytest.raises(ValueError, match="above 0"):
        dials.softmax(np.zeros(2), 0)


def test_temperature_softmax_orders_candidates_and_marks_the_right_one():
    figure = dials.temperature_softmax([0.1, 0.9, 0.5], [0.05, 0.5], positive=2)
    for trace, tau in zip(figure.data, (0.05, 0.5), strict=True):
        weights = np.exp(np.array([0.9, 0.5, 0.1]) / tau)
        assert np.allclose(trace.y, weights / weights.sum(), atol=1e-6)
    assert figure.layout.shapes[0].x0 == 2
    assert figure.data[0].name.startswith("τ .05, spread over 1.0")
    written(figure)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("tau", [0.05, 0.5, "pairs", "rows"])
def test_the_push_is_the_gradient_of_the_loss(several, tau):
    sim, positives = batch(several=several)
    if tau == "pairs":
        tau = schedules.PerPair(0.05, 0.3).spread(torch.from_numpy(sim)).numpy()
    elif tau == "rows":
        tau = np.linspace(0.05, 0.5, len(sim))[:, None]
    right, share = dials.pushes(sim, positives, tau)
    leaf = torch.tensor(sim, requires_grad=True)
    info_nce(leaf, torch.tensor(positives), torch.as_tensor(tau)).backward()
    push = leaf.grad.numpy() * ~positives
    assert np.allclose(share, push / push.sum(), atol=1e-6) and share.sum() == pytest.approx(1)
    e = np.exp(sim / tau)
    by_hand = [e[i, j] / (e[i, j] + e[i][~positives[i]].sum()) for i, j in zip(*np.nonzero(positives), strict=True)]
    assert np.allclose(right, by_hand)


def test_the_push_survives_a_temperature_at_which_all_is_decided():
    sim, positives = np.array([[0.9, 0.1, -0.5], [0.8, 0.0, -0.1]]), np.array([[True, False, False]] * 2)
    right, share = dials.pushes(sim, positives, 1e-4)
    assert np.allclose(right, 1) and np.isfinite(share).all() and share.sum() == pytest.approx(1)
    assert np.allclose(dials.pushes(np.zeros((2, 5)), np.arange(5) == np.zeros((2, 1)), 0.1)[1][:, 1:], 1 / 8)  # all equal


def test_a_block_is_checked_and_rows_without_a_contest_are_left_out():
    sim, positives = dials.block([0.5, 0.2, 0.1])
    assert sim.shape == (1, 3) and positives.tolist() == [[True, False, False]]
    mask = np.array([[True, False], [True, True], [False, False]])
    assert dials.block(np.eye(3, 2), mask)[0].tolist() == [[1.0, 0.0]]
    for wrong, message in (
        ((np.eye(3), None), "needs `positives`"),
        ((np.eye(3), np.eye(2)), "shapes must agree"),
        (([0.1, np.nan], None), "must be finite"),
        (([0.7], None), "in a batch of one nothing competes"),
    ):
        with pytest.raises(ValueError, match=message):
            dials.block(*wrong)


@pytest.mark.parametrize("plan", PLANS)
def test_the_effect_draws_the_schedule_and_counts_who_is_pushed(plan):
    sim, positives = dials.block(*batch(6, 40))
    figure, numbers = dials.effect(plan, sim, positives, 0.25)
    means = {"positive": float(sim[positives].mean()), "negative": float(sim[~positives].mean())}
    at, values = schedules.curve(plan, stats=means)
    named = {t.name: t for t in figure.data if t.name}
    assert np.allclose(named["temperature"].x, at) and np.allclose(named["temperature"].y, values)
    assert named["here"].x[0] == 0.25 and named["here"].y[0] == numbers["tau"] == pytest.approx(values[25])
    share = dials.pushes(sim, positives, numbers["tau"])[1]
    hardest = np.sort(share, axis=1)[:, ::-1].sum(0)[:-1]
    k = numbers["carrying"]
    assert hardest[:k].sum() >= 0.9 - 1e-6 and hardest[: k - 1].sum() < 0.9 and numbers["of"] == 39
    assert np.allclose(named["90 % of the push"].y, hardest[named["90 % of the push"].x.astype(int) - 1], atol=1e-6)
    assert named["90 % of the push"].x[-1] == named["the rest"].x[0] == k
    p = np.exp(sim / numbers["tau"]) / np.exp(sim / numbers["tau"]).sum(1, keepdims=True)
    assert np.allclose(
        named["candidates"].y, np.sort(p, axis=1)[:, ::-1].mean(0)[named["candidates"].x.astype(int) - 1], atol=1e-6
    )
    assert f"90 % of the push is on {k} of 39" in header(figure)
    titles = [figure.layout[axis].title.text for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2", "xaxis3", "yaxis3")]
    assert titles[:2] == ["progress of training", "temperature τ"] and all(titles) and len(set(titles)) == 6
    written(figure, 30_000)


def test_temperatures_of_pairs_and_rows_are_their_own():
    sim, positives = dials.block(*batch(50, 30))
    plan = schedules.PerPair(0.1, 0.3)
    _, curve, tau = dials.temperatures(plan, sim, positives, 0.5)
    assert np.allclose(tau, 0.1 + 0.2 * (1 + np.cos(np.pi * (1 + sim))) / 2, atol=1e-6) and np.allclose(curve[:, 0], tau.mean())
    plan = schedules.Individual(rho=1.0)
    at, curve, tau = dials.temperatures(plan, sim, positives, 0.0)
    assert np.allclose(tau, plan.tau0) and len(at) == len(curve) == dials.STEPS + 1
    end = dials.temperatures(plan, sim, positives, 1.0)[2]
    assert end.shape == (50, 1) and np.ptp(end) > 0 and curve[-1, 0] == pytest.approx(end.mean())
    figure, numbers = dials.effect(plan, sim, positives, 1.0)
    seen = dials.temperatures(plan, sim[: dials.SEEN], positives[: dials.SEEN], 1.0)[2]
    assert numbers["tau"] == pytest.approx(float(seen.mean()))
    assert "steps on this batch" in figure.layout.xaxis.title.text
