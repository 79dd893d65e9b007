"""Walking through a space: the picture and every caption of the point under the mouse, and the gap between them."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import pandas as pd
import plotly.graph_objects as go
import traitlets

from xmalign_lab import pictures as pages
from xmalign_lab import plots
from xmalign_lab.style import language_name
from xmalign_lab.widgets.twin import Fitted, Twin, as_widget


class SpaceExplorer(Twin):
    """A projected space (`points` as `plots.space` takes them) and beside it the pictures, `{group: data: URI}`.

    `selected` is the group shown: hover over a point or set it from Python. A click holds it (`held`) until the
    next click on the same group. Thin lines run from its pictures to its captions. `shown` are the languages whose
    texts are visible. An unknown group or language raises `TraitError`.
    """

    selected = traitlets.Unicode()
    held = traitlets.Bool(False)
    shown = traitlets.Tuple()

    def __init__(self, points: pd.DataFrame, pictures: Mapping[str, str], header=None, **traits):
        self.points, self.pictures, self.header = points, pictures, header
        self._said, self.languages = plots.captions(points), tuple(sorted(set(points.lang) - {""}))
        first = next((group for group in self._said if self._said[group] and group in pictures), next(iter(self._said), ""))
        super().__init__(**{"selected": first, "shown": self.languages, **traits})
        self._plot, self._panel = as_widget(self.static()), ipywidgets.HTML(self.panel(self.selected))
        for trace in self._plot.data[:-1]:
            trace.on_hover(self._hovered)
            trace.on_click(self._clicked)
        self._boxes = {code: self._checkbox(code) for code in self.languages}
        self.observe(lambda change: self._follow(), ["selected", "shown"])
        self._panel.layout.width = "240px"
        left = ipywidgets.Box([self._plot], layout={"flex": "1 1 480px", "min_width": "0"})
        row = ipywidgets.Box([left, self._panel], layout={"display": "flex", "flex_flow": "row wrap"})
        filters = ipywidgets.Box(list(self._boxes.values()), layout={"display": "flex", "flex_flow": "row wrap"})
        self.box = ipywidgets.VBox([filters, row, Fitted()])

    @traitlets.validate("selected")
    def _known_group(self, proposal):
        if proposal.value and proposal.value not in self._said:
            raise traitlets.TraitError(f"no point has the group {proposal.value!r}")
        return proposal.value

    @traitlets.validate("shown")
    def _known_languages(self, proposal):
        for code in proposal.value:
            if code not in self.languages:
                raise traitlets.TraitError(f"no text is in {code!r}; languages are {', '.join(self.languages)}")
        return tuple(code for code in self.languages if code in proposal.value)

    def figure(self, selected: str, shown: tuple[str, ...]) -> go.Figure:
        """The space, with the texts of the languages `shown` and the lines of the group `selected`."""
        return self._painted(plots.space(self.points, header=self.header), selected, shown)

    def panel(self, selected: str) -> str:
        """HTML: the picture of a group and its captions in the languages `shown`."""
        said = [(code, text) for code, text in self._said.get(selected, []) if code in self.shown]
        return pages.panel(selected, said, self.pictures.get(selected))

    def static(self) -> go.Figure:
        return self.figure(self.selected, self.shown)

    def html(self, include_plotlyjs: bool = False) -> str:
        """The static twin, with its own panel: see `pictures.space_with_pictures`."""
        return pages.space_with_pictures(self.static(), self.points, self.pictures, self.selected, include_plotlyjs)

    def _painted(self, figure: go.Figure, selected: str, shown: tuple[str, ...]) -> go.Figure:
        for trace in figure.data[:-1]:
            trace.visible = trace.meta["colour"] in ("", *shown)
        figure.data[-1].x, figure.data[-1].y = plots.links(self.points, selected, shown)
        return figure

    def _checkbox(self, code: str) -> ipywidgets.Checkbox:
        box = ipywidgets.Checkbox(code in self.shown, description=language_name(code), indent=False, layout={"width": "130px"})
        box.observe(lambda change: self._toggle(code, change.new), "value")
        return box

    def _toggle(self, code: str, on: bool) -> None:
        self.shown = tuple(c for c in self.languages if (c in self.shown and c != code) or (c == code and on))

    def _follow(self) -> None:
        for code, box in self._boxes.items():
            box.value = code in self.shown
        with self._plot.batch_update():
            self._painted(self._plot, self.selected, self.shown)
        self._panel.value = self.panel(self.selected)

    def _hovered(self, trace, points, state) -> None:
        if points.point_inds and not self.held:
            self.selected = trace.customdata[points.point_inds[0]]

    def _clicked(self, trace, points, state) -> None:
        if points.point_inds:
            group = trace.customdata[points.point_inds[0]]
            self.held = not (self.held and group == self.selected)
            self.selected = group
