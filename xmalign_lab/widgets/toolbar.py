"""What stands around an explored space: real controls, so that all a mouse can do is done from the keyboard as well.

And what a saved page has instead (`saved`): one table of captions, from which a hover fills the panel.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image, UnidentifiedImageError

from xmalign_lab import pictures as pages
from xmalign_lab import spaces
from xmalign_lab.style import language_colour, language_name
from xmalign_lab.widgets.twin import Fitted

EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
NO_PLOT = '<p style="opacity:.65">The plot appears where plotly.js is loaded. In JupyterLab use SpaceExplorer.</p>'
REST = 0.06  # seconds that the mouse must rest until lines are drawn: drawing keeps the page busy for as long
SMALL = 40  # pixels of a picture in a saved page
ROW = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}


def toolbar(explorer) -> tuple[dict, dict, list]:
    """Of a `SpaceExplorer`: its check boxes by language, its controls by trait, and all rows of its `box`."""
    points, w = explorer.points, ipywidgets
    boxes = {
        code: w.Checkbox(description=language_name(code), indent=False, layout={"width": "auto"}) for code in explorer.languages
    }
    names = {"lang": "language"}
    c = {"colour": w.Dropdown(options=[(names.get(name, name), name) for name in explorer.colours], description="colour")}
    c["pattern"] = w.Text(description="find", placeholder="regular expression", continuous_update=len(points) <= spaces.MOST_SVG)
    c["contours"], c["held"] = w.ToggleButton(description="contours"), w.ToggleButton(description="hold")
    c["labels"] = w.SelectMultiple(options=[(f"{name}: {value}", (name, value)) for name, value in explorer.known_labels])
    c["splits"] = w.SelectMultiple(options=explorer.known_splits)
    most = points["rank"].max() if "rank" in points else 0
    edges = [(f"{edge:,}", edge) for edge in EDGES if edge < most] + [("all", np.inf)]
    c["ranks"] = w.SelectionRangeSlider(options=edges, description="ranks")
    back, on = (w.Button(description=sign, tooltip=tip) for sign, tip in (("◀", "the meaning before"), ("▶", "the next meaning")))
    every, none, keep, fetch = (w.Button(description=name) for name in ("select shown", "clear", "save", "load"))
    file = w.Text("selection.json", description="file")
    more, hidden = w.ToggleButton(description="filters"), w.Box(layout={**ROW, "display": "none"})
    hidden.children = [c[name] for name in ("labels", "splits", "ranks")]
    idle = [control for control in hidden.children if len(control.options) < 2]
    for control in [*idle, *([more] if len(idle) == 3 else [])]:  # out of sight, but in the box: what is shut shuts them
        control.layout.display = "none"
    for button in (back, on, c["contours"], c["held"], more, every, none, keep, fetch):
        button.layout.width = "40px" if button in (back, on) else "auto"
    for name in ("labels", "splits"):
        c[name].rows, c[name].description, c[name].layout.width = 5, name, "360px" if name == "labels" else "220px"
    c["colour"].layout.width = c["pattern"].layout.width = "230px"
    for name, control in c.items():
        control.style.description_width = "initial"
        control.observe(lambda change, name=name: explorer._hand(lambda: setattr(explorer, name, change.new)), "value")

    def shown() -> None:
        explorer.shown = tuple(code for code in boxes if boxes[code].value)

    for box in boxes.values():
        box.observe(
            lambda change: explorer._hand(lambda: setattr(explorer, "shown", [k for k in boxes if boxes[k].value])), "value"
        )
    more.observe(lambda change: setattr(hidden.layout, "display", "flex" if change.new else "none"), "value")
    back.on_click(lambda button: explorer.step(-1))
    on.on_click(lambda button: explorer.step(1))
    every.on_click(lambda button: setattr(explorer, "selection", tuple(explorer._ids[explorer._keep])))
    none.on_click(lambda button: setattr(explorer, "selection", ()))
    keep.on_click(lambda button: explorer._hand(lambda: explorer.save(file.value), ValueError, OSError))
    fetch.on_click(lambda button: explorer._hand(lambda: explorer.load(file.value), ValueError, OSError))
    bar = [c["colour"], c["pattern"], back, on, c["held"], c["contours"], more, explorer._count]
    left = w.VBox([explorer._plot], layout={"flex": "1 1 480px", "min_width": "0"})
    row = w.Box([left, explorer._panel], layout={"display": "flex", "flex_flow": "row wrap"})
    lines = [w.Box(list(boxes.values()), layout=ROW), w.Box(bar, layout=ROW), hidden, row]
    return boxes, c, [*lines, w.Box([every, none, file, keep, fetch], layout=ROW), explorer._listed, Fitted()]


def shut(widget, but: Sequence = ()) -> None:
    """Close a widget and all that it holds, except those in `but`: a box that is closed leaves its children behind."""
    if any(widget is kept for kept in but):
        return
    parts = [getattr(widget, name, None) for name in ("layout", "style")]
    for part in (*getattr(widget, "children", ()), *(part for part in parts if isinstance(part, ipywidgets.Widget))):
        shut(part, but)
    widget.close()


def rested(act) -> asyncio.TimerHandle | None:
    """Do it when the mouse rests; at once where nothing runs that could, as outside a notebook."""
    try:
        return asyncio.get_running_loop().call_later(REST, act)
    except RuntimeError:
        return act()


def saved(
    figure: go.Figure,
    points: pd.DataFrame,
    said: Mapping[str, Sequence[tuple[str, str]]],
    pictures: Mapping[str, str],
    selected: str,
) -> str:
    """The figure (`spaces.space` of these points, without texts) and a panel beside it, as HTML that needs no kernel.

    A hover shows the captions `said` of the point's group, its picture (`{group: data: URI}`, made small) and its lines. It
    works where plotly.js is in the page (window.Plotly); else the panel shows `selected`.
    """
    number = {group: k for k, group in enumerate(said)}
    codes = {code: k for k, code in enumerate(dict.fromkeys(code for texts in said.values() for code, _ in texts))}
    shown = {group: small(pictures[group]) for group in said if pictures.get(group)}
    groups = [[[[codes[code], text] for code, text in said[group]], shown.get(group, ""), [], []] for group in said]
    at = np.char.mod("%.4g", points[["x", "y"]].to_numpy(float)).astype(float).tolist()
    for group, modality, place in zip(points.group, points.modality, at, strict=True):
        if group in number:
            groups[number[group]][2 if modality == "image" else 3].append(place)
    figure = go.Figure(figure)
    for trace in figure.select_traces(lambda trace: trace.customdata is not None):
        trace.customdata = [number.get(group, -1) for group in trace.customdata]
    names = [[html.escape(language_name(c)), language_colour(c), html.escape(c.replace("_", "-"))] for c in codes]
    known = {"figure": json.loads(figure.to_json()), "names": names, "groups": groups, "ids": list(said)}
    # "<" cannot stand in a script: a caption could close it
    known = json.dumps(known, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    name = "space-" + hashlib.sha256(known.encode()).hexdigest()[:12]
    first = pages.panel(selected, said.get(selected, []), pictures.get(selected), 80)
    return (
        f'<div class="{name}" style="{pages.FRAME}display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px">'
        f'<div data-plot style="flex:1 1 480px;min-width:0">{NO_PLOT}</div><div data-panel style="flex:0 0 230px">'
        f"{first}</div></div><script>{HOVER.replace('NAME', name).replace('KNOWN', known)}</script>"
    )


@functools.lru_cache(2_000)
def small(picture: str) -> str:
    """A picture (data: URI) as a smaller one; as it is, where that is no picture of pixels, or not larger."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(picture.partition("base64,")[2]))).convert("RGBA")
    except (ValueError, UnidentifiedImageError):
        return picture
    file = io.BytesIO()
    image.thumbnail((SMALL, SMALL))
    image.save(file, "WEBP", quality=70, method=6)
    return min(picture, "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode(), key=len)


# The plot may be on the page before plotly.js is: it waits 10 s for it.
HOVER = """(() => {
const known = KNOWN;
const safe = text => text.replace(/[&<>"]/g, sign => `&#${sign.charCodeAt()};`);
const row = ([k, text]) => { const [name, colour, lang] = known.names[k];
  return `<div><span style="font-size:12px"><span aria-hidden="true" style="color:${colour}">●</span> ${name}</span> ` +
    `<bdi lang="${lang}">${safe(text)}</bdi></div>`; };
const shown = k => { const [said, picture] = known.groups[k], name = safe(said.length ? said[0][1] : known.ids[k]);
  const image = picture && `<img src="${picture}" alt="${name}" width="80" height="80" style="object-fit:contain">`;
  return `<div style="padding:8px;overflow-wrap:anywhere">${image}<div style="height:8px"></div>` +
    `${said.map(row).join("") || `<div style="opacity:.65">${name}</div>`}</div>`; };
const lines = (k, axis) => { const [, , from, to] = known.groups[k];
  return from.flatMap(a => to.flatMap(b => [a[axis], b[axis], null])); };
const start = (root, left) => {
  const plot = root.querySelector("[data-plot]"), panel = root.querySelector("[data-panel]");
  if (!window.Plotly) return left && setTimeout(start, 100, root, left - 1);
  plot.replaceChildren();
  const last = known.figure.data.length - 1; let now = null;
  Plotly.newPlot(plot, known.figure.data, known.figure.layout, {responsive: true, displaylogo: false}).then(() =>
    plot.on("plotly_hover", event => { const k = event.points[0].customdata;
      if (!(k in known.groups) || k === now) return;
      now = k; panel.innerHTML = shown(k);
      Plotly.restyle(plot, {x: [lines(k, 0)], y: [lines(k, 1)]}, [last]); })); };
document.querySelectorAll(".NAME:not([data-ready])").forEach(root => { root.dataset.ready = ""; start(root, 100); });
})();"""
