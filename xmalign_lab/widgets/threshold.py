"""Choosing which pairs to trust, by hand and with the consequences in view."""

from __future__ import annotations

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import traitlets

from xmalign_lab import plots
from xmalign_lab.widgets.twin import Twin, redraw


class ThresholdSlider(Twin):
    """A slider over pair scores (n,): what falls below `value` is dropped. With `truth` (n,) bool it says how well.

    `value` is the interface: set it from Python and the picture follows; `kept` is the mask to select pairs with:
    `pairs.select(slider.kept)`. Raises `ValueError` for scores that are not finite.
    """

    value = traitlets.Float()

    def __init__(self, scores, truth=None, value: float | None = None):
        self.scores = np.asarray(scores, float)
        self.truth = None if truth is None else np.asarray(truth, bool)
        plots.threshold_counts(self.scores, 0.0, self.truth)
        low, high = (float(self.scores.min()), float(self.scores.max())) if len(self.scores) else (0.0, 1.0)
        super().__init__(value=float(np.median(self.scores)) if value is None and len(self.scores) else value or 0.0)
        pad = max(high - low, 1e-6) / 100
        slider = ipywidgets.FloatSlider(
            self.value,
            min=min(low, self.value) - pad,
            max=max(high, self.value) + pad,
            step=pad / 2,
            description="threshold",
            readout_format=".3f",
        )
        slider.layout.width = "min(100%, 560px)"
        self._shown = go.FigureWidget(self.static())
        traitlets.link((self, "value"), (slider, "value"))
        self.observe(lambda change: redraw(self._shown, self.static()), "value")
        self.box = ipywidgets.VBox([slider, self._shown])

    def figure(self, value: float) -> go.Figure:
        """The histogram cut at `value`."""
        return plots.threshold(self.scores, value, self.truth)

    def static(self) -> go.Figure:
        return self.figure(self.value)

    @property
    def kept(self) -> np.ndarray:
        """Which pairs stay: score ≥ `value`, (n,) bool."""
        return self.scores >= self.value

    @property
    def counts(self) -> dict[str, float]:
        """kept, of; with `truth` also precision and recall."""
        return plots.threshold_counts(self.scores, self.value, self.truth)
