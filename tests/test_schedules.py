"""Schedules against values by hand, and individual temperatures against a loop over their printed rule."""

import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab import schedules
from xmalign_lab.schedules import (
    Adaptive,
    Constant,
    Cosine,
    Fading,
    Individual,
    Linear,
    ModelAware,
    PerPair,
    Piecewise,
    Ramp,
)

PLAIN = [Constant(0.1), Linear(0.2, 0.05), Cosine(0.5, 0.05), Cosine(0.5, 0.05, cycles=2)]
ALL = [
    *PLAIN,
    Piecewise(((0.0, 0.5), (0.25, 0.1), (1.0, 0.05))),
    ModelAware(0.07, 0.9, 0.05),
    Adaptive(0.2, 0.05, 2, 0.5, 0.3, 0.04, 0.21, 0.5),
    Fading(2.0, 0.4, 0.5),
    Ramp(5.0, 0.3),
    PerPair(0.05, 0.3),
    Individual(0.02, 0.01, 0.5, 0.3),
]
STATS = st.fixed_dictionaries({}, optional={"positive": st.floats(-1, 1), "negative": st.floats(-1, 1)})


def test_every_kind_is_tested_here():
    assert {type(schedule) for schedule in ALL} == set(schedules.KINDS.values())


@pytest.mark.parametrize("schedule", ALL)
def test_round_trip_through_json(schedule):
    back = schedules.from_dict(json.loads(json.dumps(schedules.to_dict(schedule))))
    assert back == schedule and hash(back) == hash(schedule)


@pytest.mark.parametrize("schedule", PLAIN)
@settings(deadline=None, max_examples=50)
@given(progress=st.floats(0, 1))
def test_stays_between_its_ends_and_repeats(schedule, progress):
    value, state = schedule(progress, {}, {})
    fields = [v for k, v in schedules.to_dict(schedule).items() if k in ("value", "start", "end")]
    assert min(fields) - 1e-12 <= value <= max(fields) + 1e-12
    assert state == {} and schedule(progress, {}, {}) == (value, state)


@pytest.mark.parametrize("schedule", ALL)
@settings(deadline=None, max_examples=50)
@given(steps=st.lists(st.tuples(st.floats(0, 1), STATS), min_size=2, max_size=5))
def test_goes_on_from_a_saved_state_as_if_never_stopped(schedule, steps):
    state, saved = {}, {}
    for progress, stats in steps:
        before = json.dumps(state)
        value, after = schedule(progress, stats, state)
        assert json.dumps(state) == before  # a state is replaced, never changed
        again, saved = schedule(progress, stats, json.loads(json.dumps(saved)))
        assert (value, after) == (again, saved) and math.isfinite(value)
        state = after


@pytest.mark.parametrize("schedule", ALL)
def test_a_curve_needs_no_batch(schedule):
    progress, values = schedules.curve(schedule, 5)
    assert list(progress) == [0, 0.25, 0.5, 0.75, 1] and np.isfinite(values).all()
    assert schedule(0.0, None, None)[0] == values[0]


def test_cosine_by_hand():
    half, whole = Cosine(1.0, 0.0), Cosine(1.0, 0.0, cycles=1)
    assert [half(p)[0] for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [whole(p)[0] for p in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.5, 0, 1])
    assert half(1 / 3)[0] == pytest.approx((1 + math.cos(math.pi / 3)) / 2)


def test_curve_is_what_a_run_would_see():
    progress, values = schedules.curve(Linear(0.2, 0.1), n=3)
    assert list(progress) == [0, 0.5, 1] and values == pytest.approx([0.2, 0.15, 0.1])
    assert schedules.curve(Fading(1.0, 1.0, 0.5), 3, {"positive": 0.5})[1] == pytest.approx([0.5, 0.5, 0.5])


def test_piecewise_by_hand():
    plan = Piecewise([[0.2, 1], [0.4, 2], [0.9, 0]])
    assert plan.points == ((0.2, 1.0), (0.4, 2.0), (0.9, 0.0))
    assert [plan(p)[0] for p in (0, 0.2, 0.3, 0.4, 0.65, 0.9, 1)] == pytest.approx([1, 1, 1.5, 2, 1, 0, 0])
    assert Piecewise([(0.5, 3.0)])(0.1)[0] == 3.0


def test_model_aware_and_adaptive_by_hand():
    assert ModelAware()(0.3, {"positive": 0.6})[0] == pytest.approx(0.1 * 1.3)
    assert ModelAware(0.2, -0.5, 0.1)(0.3, {"positive": 0.6})[0] == pytest.approx(0.2 * 0.75)
    plan = Adaptive(0.2, 0.1, 0.5, alpha=0.5, a0=0.2, low=0.12, high=0.25, memory=0.75)
    value, state = plan(0.0, {"positive": 0.4})  # the average begins at the first value
    assert value == pytest.approx(0.2 * 1.1) and state == {"positive": 0.4}
    value, state = plan(0.5, {"positive": 0.8}, state)
    assert state["positive"] == pytest.approx(0.5) and value == pytest.approx(0.15 * 1.15)
    assert plan(1.0, {"positive": 0.0}, {})[0] == 0.12 and plan(0.0, {"positive": 1.0}, {})[0] == 0.25


def test_fading_is_strong_while_alignment_is_poor():
    plan = Fading(3.0, 0.5, memory=0.5)
    value, state = plan(0.0, {"positive": 0.2, "negative": 0.1})
    assert value == pytest.approx(3 * 0.8) and state["gap"] == pytest.approx(0.1)
    value, state = plan(0.1, {"positive": 0.8, "negative": 0.1}, state)
    assert state["gap"] == pytest.approx(0.4) and value == pytest.approx(3 * 0.2)
    assert plan(0.2, {"positive": 1.0, "negative": -1.0}, state)[0] == 0
    assert plan(0.2, {"positive": 0.1, "negative": 0.3}, {})[0] == 3.0


def test_ramp_by_hand():
    assert [Ramp()(p)[0] for p in (0, 1)] == pytest.approx([0, math.tanh(5)])
    assert Ramp(4.0, 0.5)(0.25)[0] == pytest.approx(0.5 * math.tanh(0.5))


def test_per_pair_is_lowest_at_right_angles_and_has_no_gradient():
    sim = torch.tensor([[1.0, -1.0, 0.0], [0.5, -0.5, 0.25]], requires_grad=True)
    tau = PerPair(0.1, 0.2).spread(sim)
    quarter = 0.1 + 0.05 * (1 + math.cos(1.25 * math.pi))
    assert tau.flatten().tolist() == pytest.approx([0.2, 0.2, 0.1, 0.15, 0.15, quarter])
    assert not tau.requires_grad and PerPair(0.1, 0.2)(0.5) == (0.2, {})


def by_the_rule(plan, sim, positives, ids, tau, u, momentum):
    """The printed rule of `Individual`, a row at a time, on dicts by row number; returns the temperatures before."""
    before = []
    for i, row in enumerate(ids):
        t = tau.setdefault(row, plan.tau0)
        before.append(t)
        own = [sim[i][j] for j in range(len(sim[i])) if positives[i][j]]
        rivals = [sim[i][j] for j in range(len(sim[i])) if not positives[i][j]]
        if not own or not rivals:
            continue
        h = [(s - sum(own) / len(own)) / t for s in rivals]
        g = sum(math.exp(x) for x in h) / len(h)
        u[row] = (1 - plan.gamma) * u[row] + plan.gamma * g if row in u else g
        gradient = math.log(u[row]) + plan.rho - sum(math.exp(x) / u[row] * x for x in h) / len(h)
        momentum[row] = (1 - plan.beta) * momentum.get(row, 0.0) + plan.beta * gradient
        tau[row] = min(max(t - plan.eta * momentum[row], plan.low), plan.high)
    return before


def test_individual_temperatures_follow_the_printed_rule():
    plan = Individual(tau0=0.2, low=0.05, high=0.7, rho=0.3, eta=0.05, beta=0.8, gamma=0.6)
    generator = torch.Generator().manual_seed(0)
    tau, u, momentum, state = {}, {}, {}, {}
    for step in range(6):
        left, right = torch.randperm(8, generator=generator)[:4].numpy(), 10 + torch.randperm(7, generator=generator)[:5].numpy()
        sim = torch.rand(4, 5, generator=generator) * 2 - 1
        positives = torch.rand(4, 5, generator=generator) < 0.3
        positives[0], positives[1] = True, step > 2  # a row without a negative, one without a positive or a negative
        of_left, of_right, state = plan.update(sim, positives, left, right, state)
        s, mask = sim.double().numpy(), positives.numpy()
        assert of_left.shape == (4, 1) and of_right.shape == (5, 1)
        assert of_left[:, 0].tolist() == pytest.approx(by_the_rule(plan, s, mask, left, tau, u, momentum), rel=1e-6)
        assert of_right[:, 0].tolist() == pytest.approx(by_the_rule(plan, s.T, mask.T, right, tau, u, momentum), rel=1e-6)
    for row, value in tau.items():
        assert state["tau"][row] == pytest.approx(value, rel=1e-9)
    assert len(set(np.round(state["tau"], 6))) > 5  # they have parted


def test_individual_state_is_arrays_alone_and_resumes_bit_for_bit():
    plan, generator = Individual(), torch.Generator().manual_seed(1)
    batches = [(torch.rand(3, 4, generator=generator), torch.tensor([0, 5, 2 + k]), torch.arange(4) + 9) for k in range(3, 6)]
    positives = torch.eye(3, 4, dtype=torch.bool)
    state, saved = {}, {}
    for sim, left, right in batches:
        held = {name: array.copy() for name, array in state.items()}
        straight = plan.update(sim, positives, left.numpy(), right.numpy(), state)
        assert all(np.array_equal(state[name], held[name]) for name in held)
        file = io.BytesIO()
        np.savez(file, **saved)
        file.seek(0)
        resumed = plan.update(sim, positives, left.numpy(), right.numpy(), dict(np.load(file)))
        state, saved = straight[2], resumed[2]
        assert torch.equal(straight[0], resumed[0]) and torch.equal(straight[1], resumed[1])
        assert set(state) == {"tau", "log_u", "momentum"} and all(np.array_equal(state[name], saved[name]) for name in state)
    assert [len(array) for array in state.values()] == [13, 13, 13]
    assert state["tau"][1] == plan.tau0 and np.isneginf(state["log_u"][1])  # a row that no batch had


@pytest.mark.parametrize("sim", [torch.zeros(3, 4), torch.ones(3, 4), torch.linspace(-1, 1, 12).reshape(3, 4)])
@pytest.mark.parametrize("mask", [torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool), torch.eye(3, 4) > 0])
def test_individual_stays_in_its_band_and_finite(sim, mask):
    plan, state = Individual(tau0=0.005, low=0.0005, high=0.05, eta=1.0), {}
    for _ in range(4):
        of_left, of_right, state = plan.update(sim, mask, np.arange(3), np.arange(3, 7), state)
    low, high = np.float32(plan.low), np.float32(plan.high)
    for tau in (of_left.numpy(), of_right.numpy()):
        assert ((tau >= low) & (tau <= high)).all()
    assert not np.isnan(state["log_u"]).any() and np.isfinite(state["momentum"]).all()


def test_an_edited_band_holds_at_once_for_the_temperatures_remembered():
    sim, positives, ids = torch.rand(3, 3, generator=torch.Generator().manual_seed(2)), torch.eye(3) > 0, np.arange(3)
    _, _, state = Individual(0.05, 0.01, 0.1).update(sim, positives, ids, ids + 3, {})
    tau, _, state = Individual(0.3, 0.2, 0.4).update(sim, positives, ids, ids + 3, state)
    assert tau[:, 0].tolist() == pytest.approx([0.2] * 3) and state["tau"].min() >= 0.2


def test_individual_temperatures_settle_where_the_divergence_of_the_negatives_weights_is_rho():
    sim = 0.4 * torch.randn(40, 40, generator=torch.Generator().manual_seed(3)).tanh().double()
    positives, ids = torch.eye(40, dtype=torch.bool), np.arange(40)
    plan, state = Individual(0.3, 0.001, 5.0, rho=1.0, eta=0.005), {}
    for _ in range(400):
        tau, _, state = plan.update(sim, positives, ids, ids + 40, state)
    log_p = (sim / tau).masked_fill(positives, -torch.inf).log_softmax(1)
    divergence = (log_p.exp() * (log_p.masked_fill(positives, 0) + math.log(39))).sum(1)
    assert divergence.tolist() == pytest.approx([1.0] * 40, abs=1e-3) and float(tau.std()) > 0.001
    greedy, state = Individual(0.3, 0.1, 5.0, rho=4.0, eta=0.005), {}  # log 39 < 4
    for _ in range(200):
        tau, _, state = greedy.update(sim, positives, ids, ids + 40, state)
    assert tau.max() == greedy.low


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(0.1, 0.2, 0), "cycles"),
        (lambda: Piecewise(()), "one control point"),
        (lambda: Piecewise(((0.5, 1.0), (0.2, 1.0))), "rising"),
        (lambda: Piecewise(((0.5, 1.0), (0.5, 2.0))), "rising"),
        (lambda: Piecewise(((-0.1, 1.0), (0.5, 2.0))), r"\[0, 1\]"),
        (lambda: Piecewise(((0.1, 1.0), (1.5, 2.0))), r"\[0, 1\]"),
        (lambda: Piecewise(((0.1, math.nan),)), "control point"),
        (lambda: Piecewise(((0.1, 1.0, 2.0),)), "expected 2"),
        (lambda: ModelAware(tau0=0), "above 0"),
        (lambda: ModelAware(alpha=1.0), "above 0"),
        (lambda: ModelAware(alpha=0.5, a0=1.0), "above 0"),
        (lambda: Adaptive(0.1, 0.2, low=0.5, high=0.2), "low"),
        (lambda: Adaptive(0.1, 0.2, low=0.0), "low"),
        (lambda: Adaptive(0.1, 0.2, memory=1.0), "memory"),
        (lambda: Adaptive(0.1, 0.2, cycles=-1), "cycles"),
        (lambda: Fading(-1.0, 0.5), "start"),
        (lambda: Fading(1.0, 0.0), "level"),
        (lambda: Fading(1.0, 0.5, -0.1), "memory"),
        (lambda: Ramp(gamma=0), "gamma"),
        (lambda: PerPair(0.3, 0.2), "low"),
        (lambda: PerPair(0.0, 0.2), "low"),
        (lambda: Individual(tau0=0.1), "tau0"),
        (lambda: Individual(gamma=1.0), "gamma"),
        (lambda: Individual(eta=0.0), "eta"),
    ],
)
def test_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "zigzag"}, "known are adaptive, constant, cosine, fading, individual, linear"),
        ({"kind": "linear", "begin": 1}, "begin"),
        ({}, "None"),
        ({"kind": "piecewise", "points": [0.1, 0.2]}, "piecewise"),
        ({"kind": "adaptive", "start": 0.1, "end": 0.2, "low": "warm"}, "adaptive"),
        ({"kind": "cosine", "start": 0.1, "end": 0.2, "cycles": 0}, "cycles"),
    ],
)
def test_errors_name_what_is_known(fields, message):
    with pytest.raises(ValueError, match=message):
        schedules.from_dict(fields)


@pytest.mark.parametrize("schedule", [plan for plan in ALL if not isinstance(plan, Fading | Ramp)])
def test_what_can_be_a_temperature_passes(schedule):
    assert schedules.as_temperature(schedule) is schedule


@pytest.mark.parametrize(
    "schedule",
    [Constant(0.0), Constant(-0.1), Constant(math.nan), Constant(math.inf), Linear(0.1, 0.0), Cosine(0.1, -0.05, 3), Ramp()]
    + [Piecewise(((0.0, 0.1), (0.5, 0.0), (1.0, 0.1))), Fading(1.0, 0.5)],
)
def test_what_reaches_zero_is_no_temperature(schedule):
    with pytest.raises(ValueError, match="above 0"):
        schedules.as_temperature(schedule)
