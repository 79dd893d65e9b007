"""Several views of one corpus, side by side and moved together."""

from __future__ import annotations

import ipywidgets
import plotly.graph_objects as go

from xmalign_lab.widgets.explorer import SpaceExplorer
from xmalign_lab.widgets.twin import Twin


class Beside(Twin):
    """Explorers side by side; what the mouse or a selection shows in one, the others show where they have it."""

    def __init__(self, *explorers: SpaceExplorer):
        super().__init__()
        self.explorers, self._following = explorers, False
        for explorer in explorers:
            explorer.observe(self._follow, ["point", "held", "selection", "shown"])
            explorer.box.layout.flex, explorer.box.layout.min_width = "1 1 420px", "0"
        self.box = ipywidgets.Box([explorer.box for explorer in explorers], layout={"display": "flex", "flex_flow": "row wrap"})

    def static(self) -> list[go.Figure]:
        return [explorer.static() for explorer in self.explorers]

    def html(self) -> str:
        parts = "".join(f'<div style="flex:1 1 420px;min-width:0">{explorer.html()}</div>' for explorer in self.explorers)
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{parts}</div>'

    def _follow(self, change) -> None:
        if self._following:
            return
        self._following = True  # or a follower that lacks a part would take it from the one it follows
        try:
            for other in self.explorers:
                if other is not change.owner:
                    other._hovering = change.owner._hovering
                    self._show(other, change.owner, change.name)
                    other._hovering = False
        finally:
            self._following = False

    def _show(self, other: SpaceExplorer, of: SpaceExplorer, name: str) -> None:
        if name == "selection":
            other.selection = tuple(row_id for row_id in of.selection if row_id in other._row)
        elif name == "shown":
            other.shown = tuple(code for code in of.shown if code in other.languages)
        elif name == "held":
            other.held = of.held
        elif of.point in other._row:
            other.point = of.point
        elif of.selected in other._captions:
            other.selected = of.selected


def linked(*explorers: SpaceExplorer) -> Beside:
    """Views that move together: before and after, PCA and UMAP, two models. Points are known by their id, else by their group."""
    return Beside(*explorers)
