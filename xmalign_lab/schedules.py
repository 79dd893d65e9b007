"""Schedules: a number as a function of training progress and of the batch's similarity statistics.

A schedule is immutable and serialisable; `schedule(progress, stats, state) -> (value, state)`. What it
remembers between calls is `state`, a plain dict that lives in the run and is saved with it. The schedules here
remember nothing; adaptive ones will.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    value: float

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return self.value, state or {}


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in a straight line."""

    start: float
    end: float

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return self.start + (self.end - self.start) * progress, state or {}


@dataclass(frozen=True)
class Cosine:
    """Between `start` and `end` along a cosine; `cycles` = 0.5 goes there once, 1 there and back.

    value = end + (start - end) (1 + cos(2π · cycles · progress)) / 2. Kukleva et al. 2023 (arXiv 2303.13664) swing
    the temperature so, from the larger value; their period there is given in epochs, here in cycles per run.
    """

    start: float
    end: float
    cycles: float = 0.5

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        swing = (1 + math.cos(2 * math.pi * self.cycles * progress)) / 2
        return self.end + (self.start - self.end) * swing, state or {}


Schedule = Constant | Linear | Cosine
KINDS = {kind.__name__.lower(): kind for kind in (Constant, Linear, Cosine)}


def to_dict(schedule: Schedule) -> dict:
    """`{"kind": "cosine", "start": …}`; the inverse of `from_dict`."""
    return {"kind": type(schedule).__name__.lower(), **asdict(schedule)}


def from_dict(fields: dict) -> Schedule:
    """Read a schedule back. Raises `ValueError` naming the known kinds, or the field that does not fit."""
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"unknown schedule {kind!r}; known are {', '.join(sorted(KINDS))}")
    try:
        return KINDS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"schedule {kind!r}: {error}") from None


def curve(schedule: Schedule, n: int = 101, stats: dict | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`(progress (n,), values (n,))`, threading the state as a run would: what a widget draws."""
    progress, values, state = np.linspace(0, 1, n), np.empty(n), {}
    for i, at in enumerate(progress):
        values[i], state = schedule(float(at), stats or {}, state)
    return progress, values
