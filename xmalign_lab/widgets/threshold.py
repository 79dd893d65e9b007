"""Choosing which pairs to trust, by hand and with the consequences in view."""

from __future__ import annotations

import contextlib
import html
import math
from collections.abc import Mapping

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets

from xmalign_lab import dials
from xmalign_lab import pictures as pages
from xmalign_lab.corpus import Corpus, Pairs
from xmalign_lab.widgets.twin import Fitted, Twin, as_widget, redraw


class ThresholdPicker(Twin):
    """A line through the scores of `pairs`, to drag: a pair below `value` is dropped, one without a score stays, as in training.

    `truth` (n,) bool says which are right. Below the plot stand the pairs nearest the line, with their texts if there is
    a `corpus` and with `pictures`, data: URIs by row id or by group. `kept` is the mask, `pairs_kept` are the pairs,
    `words` tell when nothing of one source is left. The slider beside the plot takes keys. A line that keeps no pair at all
    raises `TraitError`, by hand it goes back, and is told in `said`; the last good one stays. Raises `ValueError` if no pair
    has a score, for an infinite one, and for a truth of another length.
    """

    value = traitlets.Float()
    said = traitlets.Unicode()

    def __init__(self, pairs: Pairs, corpus: Corpus | None = None, truth=None, pictures: Mapping | None = None, value=None):
        self.pairs, self.pictures = pairs, pictures or {}
        self._text, self._group = (corpus.lookup(c) if corpus is not None else {} for c in ("text", "group"))
        scores = pairs.rows.score.to_numpy(float)
        self._of = np.flatnonzero(~np.isnan(scores))
        if not len(self._of):
            raise ValueError(f"none of the {len(pairs)} pairs has a score; score them before choosing a threshold")
        if truth is not None and np.shape(truth) != scores.shape:
            raise ValueError(f"{len(pairs)} pairs, but truth has shape {np.shape(truth)}")
        self.scores, self.sources = scores[self._of], pairs.rows.source.to_numpy(object)[self._of]
        self.truth = None if truth is None else np.asarray(truth, bool)[self._of]
        super().__init__(value=float(np.median(self.scores)) if value is None else value)
        low, high = min(self.scores.min(), self.value), max(self.scores.max(), self.value)
        pad = max(high - low, 1e-6) / 100
        slider = ipywidgets.FloatSlider(self.value, min=low - pad, max=high, step=pad / 2, description="threshold")
        slider.readout_format, slider.tooltip, slider.layout.width = ".3f", "threshold", "min(100%, 560px)"
        self._shown, self._beside = as_widget(self.static(), self._let_go), ipywidgets.HTML(self.panel())
        traitlets.dlink((self, "value"), (slider, "value"))
        slider.observe(lambda change: self._slid(slider), "value")
        self.observe(lambda change: redraw(self._shown, self.static()), "value")
        self.observe(lambda change: setattr(self._beside, "value", self.panel()), ["value", "said"])
        self.box = ipywidgets.VBox([slider, self._shown, self._beside, Fitted()])

    @traitlets.validate("value")
    def _keeps(self, proposal):
        if (self.scores >= proposal.value).any() or (len(self._of) < len(self.pairs) and not math.isnan(proposal.value)):
            self.said = ""
            return proposal.value
        n, most = len(self.pairs), self.scores.max()
        told = f"A threshold of {proposal.value:.3g} keeps none of the {n:,} pairs: the highest score is {most:.3g}."
        self.said = f"{told} It stays at {self.value:.3g}."
        raise traitlets.TraitError(told)

    def figure(self, value: float) -> go.Figure:
        """The histogram cut at `value`, precision and recall where the truth is known, and what each source keeps."""
        return dials.threshold(self.scores, value, self.truth, self.sources)

    def static(self) -> go.Figure:
        return self.figure(self.value)

    def html(self) -> str:
        """The static twin with its words and its pairs, as HTML without plotly.js."""
        return super().html() + self.panel()

    @property
    def kept(self) -> np.ndarray:
        """Which pairs stay: not (score < `value`), (n,) bool."""
        return ~(self.pairs.rows.score.to_numpy(float) < self.value)

    @property
    def pairs_kept(self) -> Pairs:
        return self.pairs.select(self.kept)

    @property
    def counts(self) -> dict[str, float]:
        """kept, of, among the pairs with a score; with `truth` also precision and recall."""
        return dials.threshold_counts(self.scores, self.value, self.truth)

    @property
    def words(self) -> str:
        """What would go wrong: '' or a sentence for each source that keeps no pair."""
        table, lost = self.pairs.rows, ~self.kept
        best = table.score.groupby(table.source, sort=False).max()[pd.Series(lost).groupby(table.source, sort=False).all()]
        tell = "{} is left without a pair: its highest score is {:.3g}."
        return " ".join(tell.format(dials.relation_name(source), score) for source, score in best.items())

    def panel(self, most: int = 8) -> str:
        """HTML: the words, and the `most` pairs whose scores are nearest to `value`, best first."""
        near = np.argsort(np.abs(self.scores - self.value), kind="stable")[:most]
        rows, above = [], True
        for i in near[np.argsort(-self.scores[near], kind="stable")]:
            kept, pair = self.scores[i] >= self.value, self.pairs.rows.iloc[self._of[i]]
            truth = "" if self.truth is None else "✓ right" if self.truth[i] else "✗ wrong"
            cells = [f"{self.scores[i]:.3f}", "kept" if kept else "dropped", self._said(pair.left), self._said(pair.right), truth]
            line = "2px dashed" if above and not kept else "1px solid #8884"
            row = "".join(f'<td style="padding:4px 10px">{cell}</td>' for cell in cells)
            rows.append(f'<tr style="border-top:{line}">{row}</tr>')
            above = kept
        table = f'<table style="border-collapse:collapse;text-align:left">{"".join(rows)}</table>'
        words = html.escape(f"{self.said} {self.words}".strip())
        return f'<div style="{pages.FRAME}"><p><b>{words}</b></p>The pairs nearest the line{table}</div>'

    def _said(self, row_id: str) -> str:
        """A row's picture, or its group's, and its text; its id where there is neither."""
        picture = self.pictures.get(row_id) or self.pictures.get(self._group.get(row_id))
        text = self._text.get(row_id) or ("" if picture else row_id)
        shown = f'<img src="{html.escape(picture)}" alt="" height="40" style="vertical-align:middle"> ' if picture else ""
        return f"{shown}<bdi>{html.escape(str(text))}</bdi>"

    def _slid(self, slider) -> None:
        """What is less than half a step away is no hand: the browser puts a value on the slider's grid and sends it back."""
        if abs(slider.value - np.clip(self.value, slider.min, slider.max)) > 0.51 * slider.step:
            self.value = slider.value

    def _let_go(self) -> None:
        """Of the line in the plot, whose ends can be dragged apart: the end that moved counts."""
        line, before = self._shown.layout.shapes[0], self.value
        with contextlib.suppress(traitlets.TraitError):
            self.value = max(float(line.x1 if line.x0 == before else line.x0), self.box.children[0].min)
        if self.value == before:
            redraw(self._shown, self.static())  # the line goes back to where it was
