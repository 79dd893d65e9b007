"""Setting a temperature schedule, and seeing what it does to a batch."""

from __future__ import annotations

import contextlib
import html
import math
from dataclasses import asdict, replace

import ipywidgets
import plotly.graph_objects as go
import traitlets

from xmalign_lab import dials, schedules
from xmalign_lab.style import BLUE
from xmalign_lab.widgets.twin import Fitted, Twin, as_widget, redraw

# One query against twelve candidates, as a trained space might see it: two are hard to tell apart.
ROW = (0.62, 0.58, 0.47, 0.44, 0.38, 0.31, 0.26, 0.2, 0.13, 0.08, 0.0, -0.1)
FALL = tuple(zip((0, 0.2, 0.4, 0.6, 0.8, 1), (0.1, 0.09, 0.07, 0.05, 0.03, 0.02), strict=True))
FAMILIES = {"constant": schedules.Constant(0.1), "linear": schedules.Linear(0.1, 0.02), "cosine": schedules.Cosine(0.1, 0.02)}
FAMILIES |= {"piecewise": schedules.Piecewise(FALL), "model-aware": schedules.ModelAware()}
FAMILIES |= {"adaptive": schedules.Adaptive(0.1, 0.02), "per-pair": schedules.PerPair(), "individual": schedules.Individual()}
NAMES = {type(plan): name for name, plan in FAMILIES.items()}
# FAMILIES hold where each begins. Temperatures are ratios: their sliders are logarithmic, in exponents of ten.
LOGARITHMIC = (-3, 1, 0.01)
LINEAR = {"cycles": (0.5, 20, 0.5), "alpha": (-2, 2, 0.05), "a0": (-1, 1, 0.05), "rho": (0, 12, 0.1)}
LINEAR |= dict.fromkeys(("memory", "beta", "gamma"), (0, 1, 0.01))
HANDLE = {"text": " ", "showarrow": False, "width": 11, "height": 11, "borderpad": 0, "borderwidth": 2}
HANDLE |= {"bgcolor": "#FFFFFF66", "bordercolor": BLUE, "font_size": 1}  # hollow: it may lie on the point of this moment


def handles(plan: schedules.Schedule) -> dict[str, tuple[float, float]]:
    """Where a schedule can be taken hold of, {name: (progress, τ)}: its control points, or the ends of a line or a swing."""
    if isinstance(plan, schedules.Piecewise):
        return {f"at {at:g}": (at, value) for at, value in plan.points}
    ends = {schedules.Constant: {"value": 0.5}, schedules.Linear: {"start": 0.0, "end": 1.0}}.get(type(plan), {})
    if type(plan) is schedules.Cosine:
        ends = {"start": 0.0, "end": 0.5 / plan.cycles}
    return {name: (at, getattr(plan, name)) for name, at in ends.items() if at <= 1}


class ScheduleEditor(Twin):
    """A temperature schedule, `schedule`, as a recipe takes it: pick its `family`, drag its points, or set it from Python.

    Drawn is τ over the run and, at `progress`, what it does to a batch (`dials.effect`, in `numbers`): a block of
    `similarities` (n, m) with the mask of its right pairs; by default one row, its first candidate right. The squares on the
    curve (`handles`) can be dragged, those of a piecewise schedule in progress too; each number also has a slider, which
    takes keys. `edit(start=0.3)` changes single numbers. What can be no temperature raises `TraitError` or `ValueError`, by
    hand it goes back, and is told in `said`; the last good schedule stays.
    """

    schedule = traitlets.Any()
    family = traitlets.Enum(tuple(FAMILIES))
    progress = traitlets.Float(0.0, min=0, max=1)
    said = traitlets.Unicode()

    def __init__(self, similarities=ROW, positives=None, schedule: schedules.Schedule = FAMILIES["cosine"], progress=0.0):
        self.similarities, self.positives = dials.block(similarities, positives)
        self._last, self._rulers, self._syncing = dict(FAMILIES), {}, False
        self._shown, self._sliders, words = None, ipywidgets.Box(), ipywidgets.HTML()
        super().__init__(schedule=schedule, progress=progress)
        self._shown = as_widget(self.static(), self._let_go)
        choice = ipywidgets.Dropdown(options=list(FAMILIES), description="family")
        moment = ipywidgets.FloatSlider(min=0, max=1, step=0.01, description="progress", tooltip="progress")
        traitlets.link((self, "family"), (choice, "value"))
        traitlets.link((self, "progress"), (moment, "value"))
        traitlets.dlink((self, "said"), (words, "value"), lambda said: f"<b>{html.escape(said)}</b>")
        self.observe(lambda change: redraw(self._shown, self.static()), ["schedule", "progress"])
        self.box = ipywidgets.VBox([choice, self._sliders, moment, words, self._shown, Fitted()])

    @traitlets.validate("schedule")
    def _possible(self, proposal):
        try:
            if type(proposal.value) not in NAMES:
                raise ValueError(f"{proposal.value!r} is no temperature schedule; families are {', '.join(FAMILIES)}")
            return schedules.as_temperature(proposal.value)
        except ValueError as error:
            raise traitlets.TraitError(self._refusal(error)) from None

    @traitlets.observe("schedule")
    def _follow(self, change):
        self.said, self.family = "", NAMES[type(change.new)]
        self._last[self.family], values = change.new, self._values()
        if list(values) != list(self._rulers):
            self._rulers = {name: self._ruler(name) for name in values}
            self._sliders.children = list(self._rulers.values())
            self._sliders.layout = {"display": "flex", "flex_flow": "row wrap" if self.family == "piecewise" else "column"}
        self._syncing = True
        for name, value in values.items():
            self._rulers[name].value = value
        self._syncing = False

    @traitlets.observe("family")
    def _switch(self, change):
        if NAMES.get(type(self.schedule)) != change.new:
            self.schedule = self._last[change.new]

    def edit(self, **changes) -> None:
        """Change fields of the schedule. Raises `ValueError` or `TraitError`, as setting it, if it cannot be."""
        try:
            changed = replace(self.schedule, **changes)
        except (ValueError, TypeError) as error:
            raise ValueError(self._refusal(error)) from None
        self.schedule = changed

    def figure(self, schedule: schedules.Schedule, progress: float) -> go.Figure:
        """τ over the run, and at `progress` its softmax and who is pushed."""
        figure, self.numbers = dials.effect(schedule, self.similarities, self.positives, progress)
        return figure.update_layout(annotations=[{"x": at, "y": value, **HANDLE} for at, value in handles(schedule).values()])

    def static(self) -> go.Figure:
        return self.figure(self.schedule, self.progress)

    def _refusal(self, error: Exception) -> str:
        self.said = f"{error}. Kept: {self.schedule}"
        return str(error)

    def _values(self) -> dict[str, float]:
        """What the sliders show: the schedule's fields, or the heights of its control points."""
        points = getattr(self.schedule, "points", None)
        return {f"at {at:g}": value for at, value in points} if points else asdict(self.schedule)

    def _ruler(self, name: str):
        kind, ends = (ipywidgets.FloatSlider, LINEAR[name]) if name in LINEAR else (ipywidgets.FloatLogSlider, LOGARITHMIC)
        ruler = kind(**dict(zip(("min", "max", "step"), ends, strict=True)), description=name, tooltip=name, readout_format=".3f")
        if name.startswith("at "):
            ruler.orientation, ruler.layout = "vertical", {"width": "80px", "height": "150px"}
        ruler.observe(lambda change: self._dragged(name, ruler, change.new), "value")
        return ruler

    def _dragged(self, name: str, ruler, value: float) -> None:
        if self._syncing or self._rulers.get(name) is not ruler:
            return
        held = self._values()[name]
        if abs(value - held if name in LINEAR else math.log10(value / held)) < 0.51 * ruler.step:
            return  # the browser sends a value back that it has put on the slider's grid: nobody dragged
        self._put(name, value)
        ruler.value = self._values().get(name, value)  # it goes back from what was refused

    def _let_go(self) -> None:
        """Of a handle in the plot. Hands are not exact: a hundredth of the run, three digits of τ, and within the run."""
        before = self.schedule
        for (name, (at, value)), note in zip(handles(before).items(), self._shown.layout.annotations, strict=True):
            if (note.x, note.y) != (at, value):
                to = at if abs(note.x - at) < 0.005 else min(max(round(note.x, 2), 0.0), 1.0)
                self._put(name, float(f"{note.y:.3g}"), to)
        if self.schedule == before:
            redraw(self._shown, self.static())  # the handle goes back to where it was

    def _put(self, name: str, value: float, to: float | None = None) -> None:
        """Set a number, or a control point (its progress too, `to`), by hand: what cannot be is told in `said`."""
        change = {name: value}
        if name.startswith("at "):
            points = ((at, old, f"at {at:g}" == name) for at, old in self.schedule.points)
            change = {"points": [(at if to is None else to, value) if it else (at, old) for at, old, it in points]}
        with contextlib.suppress(ValueError, traitlets.TraitError):
            self.edit(**change)
