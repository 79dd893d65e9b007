"""What all widgets share: a box to show, a static twin for saved pages, and redrawing without flicker."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import anywidget
import plotly
import plotly.graph_objects as go
import traitlets
from plotly.serializers import custom_serializers

from xmalign_lab.style import NIGHT_CSS


class Fitted(anywidget.AnyWidget):
    """Nothing to see: tells the figures beside it when the cell's width has changed, and when one of them has appeared.

    And gives the sliders beside it the names of their labels, which ipywidgets does not tell a screen reader; and the
    page the rules by which figures follow a dark theme.
    """

    _css = NIGHT_CSS
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


class Bundle(anywidget.AnyWidget):
    """plotly.js for all figures of a kernel: 5 MB that a page reads once; plotly's own widget reads them for each figure."""

    _esm = """export default {initialize({model}) {
        const page = globalThis.xmalignPlotly ??= {code: Promise.withResolvers()};
        page.code.resolve(URL.createObjectURL(new Blob([model.get("code")], {type: "text/javascript"}))); }}"""
    code = traitlets.Unicode().tag(sync=True)

    @classmethod
    @cache
    def sent(cls) -> Bundle:
        return cls(code=(Path(plotly.__file__).parent / "package_data" / "widgetbundle.js").read_text(encoding="utf-8"))


class Shown(go.FigureWidget):
    """plotly's figure widget, which waits for the `Bundle` and loses nothing, however long a slow machine takes.

    anywidget gives a widget's code 2 s: a figure whose 5 MB were not read by then stayed empty. And plotly's view takes
    messages while it is still drawing, and fails. So the code is short and ready at once, plotly.js is read when the first
    figure is shown (reading blocks the page: not while models are made), and what comes before a figure stands waits in line.
    """

    _esm = """const page = globalThis.xmalignPlotly ??= {code: Promise.withResolvers()};
    page.wanted ??= new Promise(resolve => page.start = resolve);
    page.read ??= page.wanted.then(() => page.code.promise).then(url => import(url));
    const names = ["addTraces", "deleteTraces", "moveTraces", "restyle", "relayout", "update", "animate", "removeLayoutProps",
        "removeTraceProps"].map(name => `_py2js_${name}`);
    export default () => { let figure, ready, handlers = [], owner = null, busy = 1; const line = [], told = {};
        const next = () => { while (!busy && line.length) { const [name, value] = line.shift();
            told[name] = value;
            try { for (const handler of handlers) if (handler.event === `change:${name}`) handler.does(); }
            finally { delete told[name]; } } };
        return {
        initialize({model}) {
            for (const name of names) model.on(`change:${name}`, () => {
                if (model.get(name) !== null) { line.push([name, model.get(name)]); next(); } });
            const seen = {get: name => name in told ? told[name] : model.get(name), set: (name, value) => model.set(name, value),
                save_changes: () => model.save_changes(), on: (event, does) => event.startsWith("change:_py2js_")
                    ? handlers.push({event, does, owner}) : model.on(event, does)};
            ready = page.read.then(plotly => { figure = plotly.default(); figure.initialize({model: seen}); busy--; next(); }); },
        async render({model, el}) { page.start(); await ready;
            const drawn = ({detail}) => { if (detail.element === el) { busy--; next();
                document.removeEventListener("plotlywidget-after-render", drawn); } };
            document.addEventListener("plotlywidget-after-render", drawn);
            busy++; owner = el;
            const remove = figure.render({model, el});
            owner = null;
            return () => { handlers = handlers.filter(handler => handler.owner !== el); remove(); }; } }; }"""

    def get_state(self, key=None, drop_defaults=False) -> dict:
        """All as it is now, for a page that opens later: plotly keeps what the figure was made with."""
        state = super().get_state(key, drop_defaults)
        if key is None and hasattr(self, "_layout_obj"):
            now = {"_widget_layout": self._layout_obj._props, "_widget_data": self._data}
            state |= {name: custom_serializers["to_json"](value, self) for name, value in now.items()}
        return state


def as_widget(figure: go.Figure, dragged: Callable[[], None] | None = None) -> go.FigureWidget:
    """The figure as a widget as wide as its cell, if a `Fitted` stands beside it: alone it stays as it first appeared, 700 px.

    With `dragged`, a hand can move its shapes and notes: it is called when one was let go, its new place in `layout`.
    """
    Bundle.sent()
    shown, edits = Shown(figure), dict.fromkeys(("shapePosition", "annotationPosition"), dragged is not None)
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
