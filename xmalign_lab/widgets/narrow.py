"""The widgets of a run, a schedule and a threshold for a narrow column of a page."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xmalign_lab import dials, schedules
from xmalign_lab.pictures import FRAME, RIGHT, data_uri
from xmalign_lab.style import BLUE, INK, ORANGE, QUIET, dress, escaped, language_colour, language_name, number
from xmalign_lab.widgets.live import LiveRun
from xmalign_lab.widgets.schedule import ScheduleEditor
from xmalign_lab.widgets.threshold import ThresholdPicker

LINE = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap;border-top:1px solid #8884"
MARKS = {True: f'<b style="color:{RIGHT}">✓</b>', False: f'<b style="color:{ORANGE}">✗</b>'}


def compact(figure: go.Figure, height: int) -> go.Figure:
    """The figure for a narrow column: low, without title and legend, which stand beside it as text."""
    figure.update_layout(height=height, title_text="", font_size=12, showlegend=False)
    return figure.update_layout(margin={"l": 48, "r": 12, "t": 8, "b": 36})


def curves(steps: pd.DataFrame, marks: Sequence[tuple[int, str]] = (), height: int = 330) -> go.Figure:
    """Loss, MRR by language (columns `MRR swh_Latn`) and τ over all steps; dotted at the `marks`, (after step, what)."""
    figure = make_subplots(3, 1, shared_xaxes=True, row_heights=[0.36, 0.42, 0.22], vertical_spacing=0.06)
    x, codes = np.arange(1, len(steps) + 1), [name.removeprefix("MRR ") for name in steps if name.startswith("MRR ")]
    look = {"mode": "lines", "showlegend": False, "hovertemplate": "%{y:.3g}"}
    if len(steps):
        figure.add_scatter(x=x, y=steps.total.to_numpy(np.float32), name="loss", line_color=INK, **look, row=1, col=1)
        for code in codes:
            y, ends = steps[f"MRR {code}"].to_numpy(np.float32), {"mode": "lines+markers", "connectgaps": True}
            line = {"name": language_name(code), "line_color": language_colour(code), "showlegend": True}
            figure.add_scatter(x=x, y=y, **look | ends | line, row=2, col=1)
        tau = {"line": {"color": INK, "dash": "dot", "shape": "hv"}}
        figure.add_scatter(x=x, y=steps.tau.to_numpy(np.float32), name="τ", **look | tau, row=3, col=1)
    dress(figure, "Training", "", height)
    for row, name in enumerate(("loss", "MRR", "τ"), 1):
        figure.update_yaxes(title={"text": name, "standoff": 4}, rangemode="tozero", nticks=4, row=row)
    figure.update_xaxes(title={"text": "step", "standoff": 2}, row=3)
    whole = {"xref": "x", "yref": "paper"}
    shapes = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": {"color": QUIET, "dash": "dot", "width": 1}, **whole}
        for at, _ in marks
    ]
    said = {"y": 1, "yanchor": "bottom", "xanchor": "left", "showarrow": False, "font": {"size": 11, "color": QUIET}, **whole}
    notes = [{"x": at, "text": escaped(what, 18), **said} for at, what in marks]
    compact(figure, height).update_layout(shapes=shapes, annotations=notes, margin_t=22, showlegend=True)
    return figure.update_layout(legend={"orientation": "h", "y": -0.14, "yanchor": "top", "x": 0, "font_size": 11}, margin_b=64)


class Curves(LiveRun):
    """The steps of several runs on one axis, with `marks` where something was changed; driven by `update`."""

    def __init__(self, measure):
        self.marks: list[tuple[int, str]] = []
        super().__init__(measure=measure)

    def static(self) -> go.Figure:
        return curves(self.table(), self.marks)

    def begin(self, mark: str, anew: bool) -> None:
        """What follows is another run, with its `mark`; `anew` forgets those before."""
        del self._rows[0 if anew else len(self._rows) :], self.marks[0 if anew else len(self.marks) :]
        self.marks.append((len(self._rows), mark))

    def undo(self) -> None:
        """The run that has begun last was ended, and counts for nothing."""
        del self._rows[self.marks.pop()[0] :]


class Dial(ScheduleEditor):
    """`ScheduleEditor` for a narrow column: the curve alone, for the whole of a run."""

    def __init__(self, **traits):
        super().__init__(**traits)
        self.box.children[2].layout.display = "none"  # the slider of the moment whose batch would be drawn

    def figure(self, schedule: schedules.Schedule, progress: float) -> go.Figure:
        whole = super().figure(schedule, progress)
        axes = {"xaxis_title": {"text": "progress of a run", "standoff": 2}, "yaxis_title": {"text": "τ", "standoff": 4}}
        figure = compact(dress(go.Figure(whole.data[:3]), "", "", 140), 140)
        figure.update_layout(axes, annotations=whole.layout.annotations, hovermode="closest")
        return figure.update_yaxes(rangemode="tozero", nticks=4)


class Picker(ThresholdPicker):
    """`ThresholdPicker` for a narrow column: without the bars by source, and a line for each of the nearest pairs."""

    def figure(self, value: float) -> go.Figure:
        figure = compact(dials.threshold(self.scores, value, self.truth), 150)
        return figure.update_xaxes(title={"text": "belief in the pair", "standoff": 2}).update_yaxes(nticks=3)

    def panel(self, most: int = 4) -> str:
        """HTML: what stays, by the truth if it is known, and the `most` pairs whose scores are nearest to `value`, best first."""
        counts, rows = self.counts, []
        told = [f"<b>{counts['kept']:,} of {counts['of']:,} stay</b>"]
        told += [f"{name} {number(counts[name])}" for name in ("precision", "recall") if name in counts]
        for name, colour in (("right", BLUE), ("wrong", ORANGE)) if self.truth is not None else ():
            told.append(f'<span style="color:{colour}">■</span> {name}')
        near = np.argsort(np.abs(self.scores - self.value), kind="stable")[:most]
        for i in near[np.argsort(-self.scores[near], kind="stable")]:
            pair, truth = self.pairs.rows.iloc[self._of[i]], "" if self.truth is None else MARKS[bool(self.truth[i])]
            cut = "" if self.scores[i] >= self.value else "opacity:.55;text-decoration:line-through"
            cells = f"{self.scores[i]:.2f} {truth} <span style={cut!r}>{self._said(pair.left)} – {self._said(pair.right)}</span>"
            rows.append(f'<div style="{LINE}">{cells}</div>')
        words = html.escape(f"{self.said} {self.words}".strip())
        look = f"{FRAME}font-size:13px;width:0;min-width:100%;white-space:normal"
        return f'<div style="{look}">{" · ".join(told)}<b>{words}</b>{"".join(rows)}</div>'


class Thumbnails(dict):
    """`{group: data: URI}` of a corpus's pictures, each made when it is first asked for."""

    def __init__(self, corpus, size: int = 48):
        self.corpus, self.size = corpus, size
        images = corpus.where_rows(modality="image").rows
        self.first = images.sort_values("source", kind="stable").drop_duplicates("group").set_index("group").id.to_dict()
        super().__init__()

    def get(self, group, default=None):
        if group not in self and group in self.first:
            self[group] = data_uri(self.corpus.picture(self.first[group]), self.size)
        return super().get(group, default)
