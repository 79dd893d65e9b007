import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmalign_lab import schedules
from xmalign_lab.schedules import Constant, Cosine, Linear

ALL = [Constant(0.1), Linear(0.2, 0.05), Cosine(0.5, 0.05), Cosine(0.5, 0.05, cycles=2)]


@pytest.mark.parametrize("schedule", ALL)
def test_round_trip(schedule):
    assert schedules.from_dict(schedules.to_dict(schedule)) == schedule


@pytest.mark.parametrize("schedule", ALL)
@given(progress=st.floats(0, 1))
def test_stays_between_its_ends_and_repeats(schedule, progress):
    value, state = schedule(progress, {}, {})
    fields = [v for k, v in schedules.to_dict(schedule).items() if k in ("value", "start", "end")]
    assert min(fields) - 1e-12 <= value <= max(fields) + 1e-12
    assert state == {} and schedule(progress, {}, {}) == (value, state)


def test_cosine_by_hand():
    half, whole = Cosine(1.0, 0.0), Cosine(1.0, 0.0, cycles=1)
    assert [half(p)[0] for p in (0, 0.5, 1)] == pytest.approx([1, 0.5, 0])
    assert [whole(p)[0] for p in (0, 0.25, 0.5, 1)] == pytest.approx([1, 0.5, 0, 1])
    assert half(1 / 3)[0] == pytest.approx((1 + math.cos(math.pi / 3)) / 2)


def test_curve_is_what_a_run_would_see():
    progress, values = schedules.curve(Linear(0.2, 0.1), n=3)
    assert list(progress) == [0, 0.5, 1] and values == pytest.approx([0.2, 0.15, 0.1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"kind": "zigzag"}, "known are constant, cosine, linear"), ({"kind": "linear", "begin": 1}, "begin"), ({}, "None")],
)
def test_errors_name_what_is_known(fields, message):
    with pytest.raises(ValueError, match=message):
        schedules.from_dict(fields)
