"""What stands around an explored space: real controls, so that all a mouse can do is done from the keyboard as well."""

from __future__ import annotations

import ipywidgets
import numpy as np

from xmalign_lab import spaces
from xmalign_lab.style import language_name
from xmalign_lab.widgets.twin import Fitted

EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
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
    hidden.children = [c[name] for name in ("labels", "splits", "ranks") if len(c[name].options) > 1]
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
    bar = [c["colour"], c["pattern"], back, on, c["held"], c["contours"], *([more] if hidden.children else []), explorer._count]
    left = w.VBox([explorer._plot], layout={"flex": "1 1 480px", "min_width": "0"})
    row = w.Box([left, explorer._panel], layout={"display": "flex", "flex_flow": "row wrap"})
    lines = [w.Box(list(boxes.values()), layout=ROW), w.Box(bar, layout=ROW), hidden, row]
    return boxes, c, [*lines, w.Box([every, none, file, keep, fetch], layout=ROW), explorer._listed, Fitted()]
