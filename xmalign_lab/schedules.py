"""Schedules: a number as a function of training progress and of the batch's similarity statistics.

A schedule is immutable and serialisable; `schedule(progress, stats, state) -> (value, state)`. What it remembers
between calls is `state`, a plain dict that lives in the run and is saved with it, one per schedule. `stats` are floats
of the batch: "positive", the mean similarity of the believed pairs, and "negative", that of all others; one that is
missing (a preview without a batch) counts as 0. Values out of range raise `ValueError`.

Below A is what is measured, τ a temperature.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


def _require_band(low: float, high: float) -> None:
    _require(0 < low <= high < math.inf, f"a band of temperatures needs 0 < low ≤ high, not low {low} and high {high}")


def _measured(stats: dict | None, name: str = "positive") -> float:
    return (stats or {}).get(name, 0.0)


def _remembered(state: dict | None, name: str, value: float, memory: float) -> tuple[float, dict]:
    """The exponential moving average `memory` · old + (1 - `memory`) · value, begun at the first value."""
    state = state or {}
    value = memory * state.get(name, value) + (1 - memory) * value
    return value, {**state, name: value}


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

    def __post_init__(self):
        _require(self.cycles > 0, f"cycles must be above 0, not {self.cycles}")

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        swing = (1 + math.cos(2 * math.pi * self.cycles * progress)) / 2
        return self.end + (self.start - self.end) * swing, state or {}


@dataclass(frozen=True)
class Piecewise:
    """Straight lines between the control points ((progress, value), …), level before the first and after the last."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self):
        points = tuple((float(at), float(value)) for at, value in self.points)  # JSON knows lists only
        at = [at for at, _ in points]
        fit = at and at == sorted(set(at)) and at[0] >= 0 and at[-1] <= 1 and np.isfinite(points).all()
        _require(fit, f"needs one control point (progress, value) or more, progress rising within [0, 1], not {points}")
        object.__setattr__(self, "points", points)

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return float(np.interp(progress, *zip(*self.points, strict=True))), state or {}


@dataclass(frozen=True)
class ModelAware:
    """MACL's temperature τ0 (1 + α (A - A0)), A the mean similarity of the believed pairs: softer as they come together.

    Huang et al. 2023 (arXiv 2207.07874); their other half, the emphasis 1/(1-P), is `ambiguity` of `info_nce`. A lies in
    [-1, 1], and τ must stay above 0 on all of it.
    """

    tau0: float = 0.1
    alpha: float = 0.5
    a0: float = 0.0

    def __post_init__(self):
        fit = self.tau0 > 0 and abs(self.alpha) + self.alpha * self.a0 < 1
        _require(fit, f"τ0 (1 + α (A - A0)) must stay above 0 for every A in [-1, 1], which it does not for {self}")

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return self.tau0 * (1 + self.alpha * (_measured(stats) - self.a0)), state or {}


@dataclass(frozen=True)
class Adaptive(Cosine):
    """A cosine in progress times MACL's factor: clip(cosine(progress) · (1 + α (A - A0)), low, high).

    A is the moving average, over the steps, of the mean similarity of the believed pairs. Our own combination of `Cosine`
    and `ModelAware`.
    """

    alpha: float = 0.5
    a0: float = 0.0
    low: float = 0.01
    high: float = 1.0
    memory: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        _require_band(self.low, self.high)
        _require(0 <= self.memory < 1, f"memory must lie in [0, 1), not {self.memory}")

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        a, state = _remembered(state, "positive", _measured(stats), self.memory)
        value = super().__call__(progress)[0] * (1 + self.alpha * (a - self.a0))
        return min(max(value, self.low), self.high), state


@dataclass(frozen=True)
class Fading:
    """A weight that is strong while alignment is poor: start · clip(1 - A/level, 0, 1), gone once A reaches `level`.

    A is the moving average of the gap between the mean similarities of the believed pairs and of all others.
    """

    start: float
    level: float
    memory: float = 0.9

    def __post_init__(self):
        _require(self.start >= 0 and self.level > 0, f"needs start ≥ 0 and level > 0, not {self.start} and {self.level}")
        _require(0 <= self.memory < 1, f"memory must lie in [0, 1), not {self.memory}")

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        a, state = _remembered(state, "gap", _measured(stats) - _measured(stats, "negative"), self.memory)
        return self.start * min(max(1 - a / self.level, 0.0), 1.0), state


@dataclass(frozen=True)
class Ramp:
    """From 0 up towards `high`, steeply at first: high · (2 / (1 + exp(-γ · progress)) - 1), for gradient reversal."""

    gamma: float = 10.0
    high: float = 1.0

    def __post_init__(self):
        _require(self.gamma > 0 and self.high >= 0, f"needs gamma > 0 and high ≥ 0, not {self.gamma} and {self.high}")

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return self.high * (2 / (1 + math.exp(-self.gamma * progress)) - 1), state or {}


@dataclass(frozen=True)
class PerPair:
    """DySTreSS, a temperature for every pair: τ_ij = low + (high - low) (1 + cos(π (1 + s_ij))) / 2, by `spread`.

    `high` at s = ±1, `low` at s = 0. Manna et al. 2023 (arXiv 2308.01140). Called, it gives `high`, the number to log.
    """

    low: float = 0.1
    high: float = 0.2

    def __post_init__(self):
        _require_band(self.low, self.high)

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return self.high, state or {}

    def spread(self, sim: Tensor) -> Tensor:
        """The temperatures (n, m) at similarities (n, m), without a gradient."""
        return self.low + (self.high - self.low) * (1 + (math.pi * (1 + sim.detach())).cos()) / 2


@dataclass(frozen=True)
class Individual:
    """iSogCLR's temperatures, one a row, learned as the dual variables of a robust loss and remembered by `update`.

    Row i's τ_i descends τ_i log E_j exp(h_ij/τ_i) + ρ τ_i, E over its negatives j, h_ij = s_ij - s_i the margin over the
    mean similarity s_i of its positives. With g_i the batch's mean of exp(h_ij/τ_i):

        u_i ← (1-γ) u_i + γ g_i   (g_i at first sight),   ∂_i = log u_i + ρ - mean_j exp(h_ij/τ_i)/u_i · h_ij/τ_i,
        m_i ← (1-β) m_i + β ∂_i,                          τ_i ← clip(τ_i - η m_i, low, high)

    With u = g, ∂ is ρ less the divergence KL(weights of the negatives ‖ even): τ_i settles where that is ρ, and a row
    with fewer than e^ρ negatives heads for `low`. Qiu et al. 2023 (arXiv 2305.11965); the defaults are those of LibAUC's
    two-modal loss. The loss they go to here is InfoNCE: but for the pair's own term in the sum, that objective over τ_i.
    Called, it gives `tau0`, where every row starts.
    """

    tau0: float = 0.01
    low: float = 0.005
    high: float = 0.05
    rho: float = 6.0
    eta: float = 0.01
    beta: float = 0.9
    gamma: float = 0.9

    def __post_init__(self):
        _require(0 < self.low <= self.tau0 <= self.high < math.inf, f"needs 0 < low ≤ tau0 ≤ high, not {self}")
        fit = self.rho >= 0 and self.eta > 0 and 0 < self.beta <= 1 and 0 < self.gamma < 1
        _require(fit, f"needs rho ≥ 0, eta > 0, beta in (0, 1] and gamma in (0, 1), not {self}")

    def __call__(self, progress: float, stats: dict | None = None, state: dict | None = None) -> tuple[float, dict]:
        return self.tau0, state or {}

    def update(
        self, sim: Tensor, positives: Tensor, left_ids: np.ndarray, right_ids: np.ndarray, state: dict
    ) -> tuple[Tensor, Tensor, dict]:
        """Temperatures (n, 1) and (m, 1) for this batch's loss, and the state that has seen it; `state` itself is untouched.

        `sim` and the mask `positives` are (n, m); the ids number the rows over the whole data, left and right apart. The
        state holds float64 arrays over these numbers, grown as they come: "tau", "log_u" (-inf: not yet seen),
        "momentum". A row without a positive or without a negative keeps what it has.
        """
        size, grown = 1 + int(max(np.max(left_ids, initial=-1), np.max(right_ids, initial=-1))), {}
        for name, fill in {"tau": self.tau0, "log_u": -np.inf, "momentum": 0.0}.items():
            old = state.get(name, np.empty(0))
            grown[name] = np.concatenate([old, np.full(max(0, size - len(old)), fill)])
        s = sim.detach().double()
        left = self._descend(s, positives, left_ids, grown)
        right = self._descend(s.T, positives.T, right_ids, grown)
        return sim.new_tensor(left)[:, None], sim.new_tensor(right)[:, None], grown

    def _descend(self, s: Tensor, positives: Tensor, ids: np.ndarray, state: dict) -> np.ndarray:
        """One step for the rows `ids` of one side, written into `state`; the temperatures before it."""
        before = np.clip(state["tau"][ids], self.low, self.high)  # the band may have been edited
        own = (s * positives).sum(1, keepdim=True) / positives.sum(1, keepdim=True)
        h = ((s - own) / s.new_tensor(before)[:, None]).masked_fill(positives, -math.inf)
        log_g = h.logsumexp(1) - (~positives).sum(1).double().log()
        slope = (h.softmax(1) * h.masked_fill(positives, 0)).sum(1)  # mean of h under exp(h)/g
        fit = (positives.any(1) & ~positives.all(1)).cpu().numpy()
        rows, log_g, slope = ids[fit], log_g.cpu().numpy()[fit], slope.cpu().numpy()[fit]
        old = state["log_u"][rows]
        average = np.logaddexp(math.log(1 - self.gamma) + old, math.log(self.gamma) + log_g)
        log_u = np.where(np.isneginf(old), log_g, average)
        gradient = log_u + self.rho - np.exp(log_g - log_u) * slope
        momentum = (1 - self.beta) * state["momentum"][rows] + self.beta * gradient
        state["log_u"][rows], state["momentum"][rows] = log_u, momentum
        state["tau"][rows] = np.clip(before[fit] - self.eta * momentum, self.low, self.high)
        return before


Schedule = Constant | Linear | Cosine | Piecewise | ModelAware | Adaptive | Fading | Ramp | PerPair | Individual
KINDS = {kind.__name__.lower(): kind for kind in Schedule.__args__}


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


def as_temperature(schedule: Schedule) -> Schedule:
    """The schedule itself, if it can be a temperature: raises `ValueError` where it would reach 0 or less, or no number."""
    values = [curve(schedule, 201, {"positive": a, "negative": -a})[1] for a in (-1.0, 0.0, 1.0)]
    _require(0 < np.min(values) <= np.max(values) < math.inf, f"a temperature must stay finite and above 0, not {schedule}")
    return schedule


def curve(schedule: Schedule, n: int = 101, stats: dict | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`(progress (n,), values (n,))`, threading the state as a run would: what a widget draws."""
    progress, values, state = np.linspace(0, 1, n), np.empty(n), {}
    for i, at in enumerate(progress):
        values[i], state = schedule(float(at), stats or {}, state)
    return progress, values
