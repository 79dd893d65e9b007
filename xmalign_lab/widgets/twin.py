"""What all widgets share: a box to show, a static twin for saved pages, and redrawing without flicker."""

from __future__ import annotations

from collections.abc import Callable

import anywidget
import plotly.graph_objects as go
import traitlets


class Fitted(anywidget.AnyWidget):
    """Nothing to see: tells the figures beside it when the cell's width has changed, and when one of them has appeared.

    And gives the sliders beside it the names of their labels, which ipywidgets does not tell a screen reader.
    """

    _esm = """export default {render({el}) { const fit = () => dispatchEvent(new Event("resize"));
        const name = () => el.closest(".widget-vbox")?.querySelectorAll(".widget-slider").forEach(slider =>
            slider.querySelectorAll("[role=slider], .widget-readout").forEach(part => {
                part.setAttribute("aria-label", slider.querySelector("label").textContent);
                if (part.isContentEditable) part.setAttribute("role", "textbox"); }));
        const sliders = new MutationObserver(name);
        const watch = new ResizeObserver(() => { fit(); name();
            sliders.observe(el.closest(".widget-vbox") ?? el, {childList: true, subtree: true}); });
        watch.observe(el); document.addEventListener("plotlywidget-after-render", fit);
        return () => { document.removeEventListener("plotlywidget-after-render", fit);
            watch.disconnect(); sliders.disconnect(); }; }}"""


def as_widget(figure: go.Figure, dragged: Callable[[], None] | None = None) -> go.FigureWidget:
    """The figure as a widget as wide as its cell, if a `Fitted` stands beside it: alone it stays as it first appeared, 700 px.

    With `dragged`, a hand can move its shapes and notes: it is called when one was let go, its new place in `layout`.
    """
    shown, edits = go.FigureWidget(figure), dict.fromkeys(("shapePosition", "annotationPosition"), dragged is not None)
    shown._config = shown._config | {"responsive": True, "displaylogo": False, "showSendToCloud": False, "edits": edits}

    def told(change) -> None:
        if any(name.startswith(("shapes[", "annotations[")) for name in (change.new or {}).get("relayout_data", ())):
            dragged()

    if dragged:  # `layout.on_change` would be lost where `redraw` replaces the layout, and hears Python's own changes too
        shown.observe(told, "_js2py_relayout")
    return shown


def redraw(shown: go.FigureWidget, wanted: go.Figure) -> None:
    """Make `shown` look like `wanted`, in one message to the browser; traces keep their identity, so zoom stays.

    Each property is sent for all traces: of those that a batch leaves out plotly's widget would lose the value. Where the
    number of traces, panels, shapes or notes has changed, the whole is replaced: plotly.js refuses a message that both
    adds a part and sets something within it. Traces are of one type.
    """
    if _parts(shown) != _parts(wanted):
        size = {"height": wanted.layout.height, "autosize": True}  # in this order: a height alone nails the width down
        shown.data = ()
        shown.plotly_relayout({"shapes": [], "annotations": []})  # a layout without them would leave them in the page
        shown.layout = wanted.layout.update(height=None)
        shown.add_traces(list(wanted.data))
        shown.plotly_relayout(size)
        return
    traces = [_flat(trace.to_plotly_json()) for trace in wanted.data]
    names = {name for trace in traces for name in trace} - {"type"}
    layout = {name: value for name, value in _flat(wanted.layout.to_plotly_json()).items() if not name.startswith("template")}
    shown.plotly_update({name: [trace.get(name) for trace in traces] for name in names}, layout)


def _parts(figure: go.Figure) -> tuple:
    panels = {name for name in figure.layout.to_plotly_json() if name.startswith(("xaxis", "yaxis", "legend"))}
    return len(figure.data), len(figure.layout.shapes), len(figure.layout.annotations), panels


def _flat(properties: dict, path: str = "") -> dict:
    """{"line": {"color": c}} as {"line.color": c}."""
    parts = [_flat(v, f"{path}{k}.") if isinstance(v, dict) else {path + k: v} for k, v in properties.items()]
    return {name: value for part in parts for name, value in part.items()}


class Twin(traitlets.HasTraits):
    """A widget whose traits are its interface: `box` is shown live, `static()` is the plain figure of this moment.

    Where it is displayed it also leaves its static twin as HTML, for pages without a kernel; that needs a
    plotly.js in the page (window.Plotly).
    """

    def html(self) -> str:
        """The static twin as HTML, without plotly.js."""
        return self.static().to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})

    def _repr_mimebundle_(self, **kwargs) -> dict:
        return {**self.box._repr_mimebundle_(**kwargs), "text/html": self.html()}
