"""Drawing a temperature schedule, and seeing what each temperature does to a softmax."""

from __future__ import annotations

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import traitlets
from plotly.subplots import make_subplots

from xmalign_lab import plots, schedules
from xmalign_lab.style import dress, number
from xmalign_lab.widgets.twin import Twin, redraw

# One query against twelve candidates, as a trained space might see it: two are hard to tell apart.
ROW = (0.62, 0.58, 0.47, 0.44, 0.38, 0.31, 0.26, 0.2, 0.13, 0.08, 0.0, -0.1)


class ScheduleSlider(Twin):
    """A temperature schedule by its traits `shape`, `start`, `end`, `cycles`; `schedule` is what a recipe takes.

    Left the curve; right softmax(s / τ) over one row of similarities, at the temperature that the schedule has at
    `progress`. Temperatures are above 0; a trait out of range raises `TraitError`.
    """

    shape = traitlets.Enum(("constant", "linear", "cosine"), "cosine")
    start = traitlets.Float(0.1, min=1e-4, max=10)
    end = traitlets.Float(0.02, min=1e-4, max=10)
    cycles = traitlets.Float(0.5, min=0.5, max=20)
    progress = traitlets.Float(0.0, min=0, max=1)

    def __init__(self, similarities=ROW, positive: int = 0, **traits):
        super().__init__(**traits)
        self.similarities, self.positive = np.asarray(similarities, float), positive
        rulers = {
            "shape": ipywidgets.ToggleButtons(options=("constant", "linear", "cosine")),
            "start": ipywidgets.FloatLogSlider(min=-4, max=1, step=0.01, readout_format=".3f"),
            "end": ipywidgets.FloatLogSlider(min=-4, max=1, step=0.01, readout_format=".3f"),
            "cycles": ipywidgets.FloatSlider(min=0.5, max=20, step=0.5),
            "progress": ipywidgets.FloatSlider(min=0, max=1, step=0.01),
        }
        for name, ruler in rulers.items():
            ruler.description = name
            traitlets.link((self, name), (ruler, "value"))
        self._rulers, self._shown = rulers, go.FigureWidget(self.static())
        self._enable()
        self.observe(lambda change: redraw(self._shown, self.static()), list(rulers))
        self.observe(lambda change: self._enable(), "shape")
        self.box = ipywidgets.VBox([*rulers.values(), self._shown])

    @property
    def schedule(self) -> schedules.Schedule:
        """The Schedule of the traits: Constant(start), Linear(start, end) or Cosine(start, end, cycles)."""
        if self.shape == "constant":
            return schedules.Constant(self.start)
        if self.shape == "linear":
            return schedules.Linear(self.start, self.end)
        return schedules.Cosine(self.start, self.end, self.cycles)

    def figure(self, plan: schedules.Schedule, progress: float) -> go.Figure:
        """The curve of `plan`, and the softmax at `progress` of the run."""
        at, values = schedules.curve(plan)
        tau = float(np.interp(progress, at, values))
        curve, row = plots.schedule(plan, progress), plots.temperature_softmax(self.similarities, tau, self.positive)
        spread = plots.softmax(self.similarities, tau)[1]
        figure = make_subplots(1, 2, horizontal_spacing=0.12)
        figure.add_traces(list(curve.data), 1, 1)
        figure.add_traces(list(row.data), 1, 2)
        dress(
            figure,
            f"{type(plan).__name__} schedule",
            f"at progress {number(progress)}: τ {number(tau)}, softmax spread over {spread:.1f} candidates",
            380,
        )
        figure.update_xaxes(title_text="progress of training", col=1)
        figure.update_yaxes(title_text="temperature τ", rangemode="tozero", col=1)
        figure.update_xaxes(title_text="candidates, the most similar first", col=2)
        figure.update_yaxes(title_text="probability", range=[0, 1.05], col=2)
        return figure.update_layout(showlegend=False)

    def static(self) -> go.Figure:
        return self.figure(self.schedule, self.progress)

    def _enable(self) -> None:
        self._rulers["end"].disabled = self.shape == "constant"
        self._rulers["cycles"].disabled = self.shape != "cosine"
