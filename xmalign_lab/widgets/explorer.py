"""Walking through a space: the picture and every caption of the point under the mouse, the gap between them, what lies near."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets

from xmalign_lab import pictures as pages
from xmalign_lab import selections, similarity, spaces
from xmalign_lab.widgets.toolbar import rested, saved, shut, toolbar
from xmalign_lab.widgets.twin import Twin, as_widget, redraw

MOST_POINTS, MOST_JUDGED = 100_000, 30_000  # that plotly can draw; that are judged at once, in some seconds
MOST_SAVED, MOST_TOLD = 80, 1_000  # meanings of which a saved page holds the picture, and the captions
MOST_VALUES = 100  # of a column or label that one can colour or filter by
NEAR = 6
FILTERS = ("shown", "pattern", "labels", "splits", "ranks")
HINT = "Draw around points with the lasso or the box of the plot, or select all that is shown, to see what they have in common."


class SpaceExplorer(Twin):
    """A projected space (`points` as `spaces.space` takes them) and beside it the pictures, `{group: data: URI}`.

    `selected` is the group shown, `point` the row of it under the mouse: hover over a point or set either from Python. A
    click holds it (`held`) until the next click on the same group. Lines run from its pictures to its captions.

    What is shown: `shown` (languages of texts), `pattern` (a regular expression: groups with a text in which it is found),
    `labels` (pairs of a label's name and value, of which a row has any), `splits`, `ranks` (lowest and highest; rows without
    a rank go as soon as one bound is set). Empty means all. `colour` is a column, or a label's name. `contours` are the
    densest half and nine tenths of each language's points. `selection` holds row ids: the lasso sets it.

    With the `vectors` (n, d) of unit length, rows are judged (`spaces.judged`, up to 30,000 points: hand in judged points
    beyond that), and the panel lists the `neighbours` in the space itself, of all rows, whatever is filtered. Then
    `header` has its numbers without being told.

    What is not there raises `TraitError`, by hand it is told in `said`, and what was there stays. More than 100,000 points raise
    `ValueError`: `spaces.scatter` draws them.
    """

    selected, point, held = traitlets.Unicode(), traitlets.Unicode(), traitlets.Bool(False)
    shown, labels, splits = traitlets.Tuple(), traitlets.Tuple(), traitlets.Tuple()
    pattern, colour, contours = traitlets.Unicode(), traitlets.Unicode("lang"), traitlets.Bool(False)
    ranks = traitlets.Tuple((1, np.inf))
    selection = traitlets.Tuple()
    said = traitlets.Unicode()

    def __init__(self, points: pd.DataFrame, pictures: Mapping[str, str], header=None, vectors=None, **traits):
        self.pictures, self._by_hand, self._lassoed, self._outlined = pictures, False, False, False
        self._hovering, self._waiting, self._echo = False, None, False
        self._take(points, vectors, header)
        drawn = (group for group in self._captions if self._captions[group] and pictures.get(group))
        first = next(drawn, next(iter(self._captions), ""))
        super().__init__(**{"selected": first, "shown": self.languages, **traits})
        self.point = self.point or self._first.get(self.selected, "")
        self._keep, self._parts = self.keep(), spaces.parts(points, self.colour)
        self._plot, self._panel, self._count = as_widget(self._live()), ipywidgets.HTML(), ipywidgets.HTML()
        self._listed = ipywidgets.HTML()
        self._plot.unobserve(go.FigureWidget._handler_js2py_pointsCallback, "_js2py_pointsCallback")
        self._plot.observe(lambda change: self._pointed(change.new), "_js2py_pointsCallback")
        self._panel.layout.width = "300px"
        self.box = ipywidgets.VBox(self._laid_out())
        self.observe(lambda change: self._linked_lines(), "selected")
        self.observe(lambda change: self._moved(), "point")
        self.observe(lambda change: self._filtered(), FILTERS)
        self.observe(lambda change: self._coloured(), "colour")
        self.observe(lambda change: self._send("x", "y", "visible"), "contours")
        self.observe(lambda change: self._chosen(), "selection")
        self.observe(lambda change: self._told(), ["said", "selection", *FILTERS, "held", "colour", "contours"])
        self._told()
        self._moved()
        self._chosen()

    def _take(self, points: pd.DataFrame, vectors, header) -> None:
        if len(points) > MOST_POINTS:
            raise ValueError(f"{len(points):,} points are more than plotly draws; use spaces.scatter(points)")
        if vectors is not None and "rank" not in points and len(points) <= MOST_JUDGED:
            points = spaces.judged(points, vectors)
        if vectors is not None and len(vectors) != len(points):
            raise ValueError(f"{len(points)} points, but {len(vectors)} vectors")
        self.points, self.header, self.vectors = points, header, vectors
        self._captions, self.languages = spaces.captions(points), tuple(sorted(set(points.lang) - {""}))
        self._row = {row_id: row for row, row_id in enumerate(points.id)}
        self._first = points.drop_duplicates("group").set_index("group").id.to_dict()
        self._ids, self._groups = points.id.to_numpy(object), points.group.to_numpy(object)
        self.known_splits, self._counted = sorted(set(points.split) - {""}) if "split" in points else [], None
        sides = {name: np.flatnonzero(points.modality == name) for name in ("image", "text")} if vectors is not None else {}
        self._sides = {name: (rows, np.ascontiguousarray(vectors[rows])) for name, rows in sides.items() if len(rows)}
        self.known_labels = spaces.labelled(points, MOST_VALUES)
        named = dict.fromkeys(name for name, _ in self.known_labels)
        columns = [name for name in ("family", "kind", "source", "split") if name in points and points[name].nunique() > 1]
        self.colours = ("lang", *named, *columns, *(name for name in ("rank", "correct", "gap") if name in points))

    def _offered(self) -> tuple:
        return self.languages, self.known_labels, self.known_splits, self.colours

    def replace(self, points: pd.DataFrame, vectors=None, header=None) -> SpaceExplorer:
        """Another layout, or another model's space: filters, colour, selection and the held group stay where they still apply."""
        every, kept, offered = self.shown == self.languages, (self.selected, self.point, self.selection), self._offered()
        self._take(points, vectors, header)
        self._by_hand = True  # what follows is drawn once, at the end
        try:
            self.shown = self.languages if every else tuple(code for code in self.shown if code in self.languages)
            self.labels = tuple(label for label in self.labels if label in self.known_labels)
            self.splits = tuple(name for name in self.splits if name in self.known_splits)
            self.colour = self.colour if self.colour in self.colours else "lang"
            self.ranks = self.ranks if "rank" in points else (1, np.inf)
            self.selected = kept[0] if kept[0] in self._captions else next(iter(self._captions), "")
            self.point = kept[1] if kept[1] in self._row else self._first.get(self.selected, "")
            self.selection = tuple(row_id for row_id in kept[2] if row_id in self._row)
        finally:
            self._by_hand = False
        self._keep, self._parts = self.keep(), spaces.parts(points, self.colour)
        redraw(self._plot, self._live())
        if offered != self._offered():
            old, self.box.children = self.box.children, self._laid_out()
            for child in old:
                shut(child, but=(self._plot, self._panel, self._count, self._listed))
        self._told(), self._moved(), self._chosen()
        return self

    # --- what may be

    @traitlets.validate("selected", "point")
    def _known_row(self, proposal):
        group = proposal.trait.name == "selected"
        if proposal.value and proposal.value not in (self._captions if group else self._row):
            raise traitlets.TraitError(f"no point has the {'group' if group else 'id'} {proposal.value!r}")
        return proposal.value

    @traitlets.validate("shown", "labels", "splits")
    def _known_values(self, proposal):
        name, known = proposal.trait.name, {"shown": self.languages, "labels": self.known_labels}
        known, given = known.get(name, self.known_splits), [tuple(v) if isinstance(v, list) else v for v in proposal.value]
        for value in given:
            if value not in known:
                what = {"shown": "no text is in", "labels": "no point has the label"}.get(name, "no point is in the split")
                raise traitlets.TraitError(f"{what} {value!r}; there are {', '.join(map(str, known)) or 'none'}")
        return tuple(value for value in known if value in given)

    @traitlets.validate("colour")
    def _known_colour(self, proposal):
        if proposal.value not in self.colours:
            raise traitlets.TraitError(f"no colour {proposal.value!r}; there are {', '.join(self.colours)}")
        return proposal.value

    @traitlets.validate("pattern")
    def _sound(self, proposal):
        try:
            selections.matching(self.points, proposal.value)
        except ValueError as error:
            raise traitlets.TraitError(f"{error}. The search stays {self.pattern!r}.") from None
        return proposal.value

    @traitlets.validate("ranks")
    def _in_order(self, proposal):
        if len(proposal.value) != 2 or not all(isinstance(bound, Real) for bound in proposal.value):
            raise traitlets.TraitError(f"ranks are two numbers, the lowest and the highest, not {proposal.value!r}")
        low, high = proposal.value
        if not low <= high or ("rank" not in self.points and (low, high) != (1, np.inf)):
            raise traitlets.TraitError(
                "the points have no ranks: hand in their vectors" if low <= high else f"{low} is above {high}"
            )
        return low, high

    @traitlets.validate("selection")
    def _known_rows(self, proposal):
        if unknown := [row_id for row_id in proposal.value if row_id not in self._row]:
            raise traitlets.TraitError(f"no point has the id {unknown[0]!r}")
        return tuple(sorted(set(proposal.value), key=self._row.get))

    # --- what is seen

    def keep(self, shown: tuple[str, ...] | None = None) -> np.ndarray:
        """Which rows (n,) bool the filters leave, of texts those in `shown` (default: the trait)."""
        points, shown = self.points, self.shown if shown is None else shown
        kept = points.lang.isin(["", *shown]).to_numpy(copy=True)
        if self.labels:
            wanted = set(self.labels)  # of strings, whatever the labels are
            kept &= [any((name, str(value)) in wanted for name, value in labels.items()) for labels in points.labels]
        if self.splits:
            kept &= points.split.isin(self.splits).to_numpy()
        if self.ranks != (1, np.inf):
            kept &= points["rank"].between(*self.ranks).to_numpy()
        return kept & selections.matching(points, self.pattern, shown) if self.pattern else kept

    def figure(self, selected: str, shown: tuple[str, ...], texts: bool = True) -> go.Figure:
        """The space with the languages `shown` and the lines of the group `selected`, else as the traits say.

        Without `texts` for a hover, which the panel shows live.
        """
        state = self._state() | {"keep": self.keep(shown), "group": selected, "shown": shown, "texts": texts}
        return spaces.space(self.points, header=self.header, **state)

    def static(self) -> go.Figure:
        return self.figure(self.selected, self.shown)

    def _live(self) -> go.Figure:
        return self.figure(self.selected, self.shown, texts=False)

    def html(self) -> str:
        """The static twin with its own panel (`toolbar.saved`), at most 80 pictures in it, small; then the selection."""
        held = {self.selected, *self._groups[[self._row[row_id] for row_id in self.selection]]}
        order = sorted(self._captions, key=lambda group: (group not in held, not self._captions[group]))
        seen = {group: self.pictures[group] for group in order[:MOST_SAVED] if self.pictures.get(group)}
        said = {group: self._captions[group] for group in order[:MOST_TOLD]}
        return saved(self._live(), self.points, said, seen, self.selected) + self._listing()

    def png(self, path: str | Path) -> Path:
        """The static twin as a PNG (`spaces.png`, which raises `RuntimeError` where it lacks kaleido or a browser)."""
        return spaces.png(self.static(), path)

    def neighbours(self, row_id: str, modality: str, k: int = NEAR) -> pd.DataFrame:
        """The `k` rows of one modality nearest to a row by the vectors, itself left out, best first: with `cosine, right` added.

        `right` is of the row's own group. Empty without vectors.
        """
        if modality not in self._sides:
            return self.points[:0].assign(cosine=[], right=[])
        row, (rows, vectors) = self._row[row_id], self._sides[modality]
        scores, found = similarity.top_k(np.asarray(self.vectors[[row]]), vectors, k + 1)
        near = self.points.iloc[rows[found[0]]].assign(cosine=scores[0], right=lambda t: t.group == self._groups[row])
        return near[near.id != row_id][:k]

    def panel(self, selected: str) -> str:
        """HTML: the picture of a group and its captions in the languages `shown`, how each fares, and what lies near."""
        said = [(code, text) for code, text in self._captions.get(selected, []) if code in self.shown]
        rows = self.points[(self.points.group == selected) & self.points.lang.isin(["", *self.shown])]
        return pages.panel(selected, said, self.pictures.get(selected)) + selections.fares(rows) + self._near(selected)

    def _near(self, selected: str) -> str:
        held = self.point in self._row and self._groups[self._row[self.point]] == selected
        row_id = self.point if held else self._first.get(selected)
        if not self._sides or row_id is None:
            return ""
        found = [row for modality in self._sides for row in self.neighbours(row_id, modality).itertuples()]
        asked = self.points.iloc[self._row[row_id]]
        return selections.near(asked, found, self.pictures, self._captions, self.vectors.shape[1])

    # --- what happens

    def _state(self) -> dict:
        return {"colour": self.colour, "selection": self.selection, "contours": self.contours}

    def _send(self, *names: str) -> None:
        """Only these properties, of the traces where one has changed, in one message."""
        place = {"keep": self._keep, "group": self.selected, "shown": self.shown}
        drawn = spaces.layers(self.points, named=self._parts, **place, **self._state())
        pairs = enumerate(zip(drawn, self._plot.data, strict=True))
        new = {k: layer for k, (layer, old) in pairs if not all(spaces.same(layer.get(n), old[n]) for n in names)}
        if new:
            self._plot.plotly_restyle({name: [layer.get(name) for layer in new.values()] for name in names}, list(new))

    def _linked_lines(self) -> None:
        if self._by_hand:
            return
        if not self.point or self._groups[self._row[self.point]] != self.selected:
            self.point = self._first.get(self.selected, "")
        if self._waiting:
            self._waiting.cancel()
        self._waiting = rested(self._lines) if self._hovering else self._lines()

    def _lines(self) -> None:
        x, y = spaces.links(self.points, self.selected, self.shown)
        self._plot.plotly_restyle({"x": [x], "y": [y]}, len(self._plot.data) - 1)

    def _moved(self) -> None:
        if self._by_hand:
            return
        group = self._groups[self._row[self.point]] if self.point else self.selected
        self._panel.value = self.panel(group)  # first: drawing lines keeps the page busy
        self.selected = group

    def _filtered(self) -> None:
        if self._by_hand:
            return
        self._keep, self.said = self.keep(), ""
        if self._outlined and not np.isin(self._ids[self._keep], self.selection).any():
            self._unlined()
            self._send("selectedpoints")
        self._send("x", "y", "visible")
        self._panel.value = self.panel(self.selected)

    def _chosen(self) -> None:
        if self._by_hand:
            return
        self.said = ""
        if not self._lassoed:
            self._unlined()
        self._send("selectedpoints")
        self._listed.value = self._listing() or f'<p style="opacity:.75">{HINT}</p>'

    def _unlined(self) -> None:
        """Take the lasso's line away; plotly.js then says that nothing is selected, which is no wish of a hand."""
        if self._outlined:
            self._outlined, self._echo = False, True
            self._plot.plotly_relayout({"selections": []})

    def _listing(self) -> str:
        if not self.selection:
            return ""
        if self._counted is None:
            self._counted = selections.tallies(self.points)
        return selections.listed(self.points, self.selection, self.pictures, self.shown, self._counted)

    def _pointed(self, event: dict | None) -> None:
        """What the mouse did; heard at the figure, since `redraw` may replace the traces with all that listens to them.

        Instead of plotly's own handler, which writes what a lasso chose into each trace, a message for every one: and, when
        its line is taken away, that nothing is chosen, which fades all points.
        """
        if not event:
            return
        self._plot._js2py_pointsCallback = None  # or the same again would be no change
        kind, at = event.get("event_type"), event.get("points", {})
        places = zip(at.get("trace_indexes", ()), at.get("point_indexes", ()), strict=True)
        rows = [self._parts[trace][2][point] for trace, point in places if trace < len(self._parts)]
        if kind in ("plotly_selected", "plotly_deselect"):
            echo, self._echo = self._echo and not rows and kind == "plotly_selected", False
            if not echo:
                self._lassoed, self._outlined = True, bool(rows)
                self.selection = tuple(self._ids[row] for row in rows)
                self._lassoed = False
        elif rows and kind == "plotly_click":
            self.held = not (self.held and self._groups[rows[0]] == self.selected)
            self.point = self._ids[rows[0]]
        elif rows and kind == "plotly_hover" and not self.held:
            self._hovering = True
            self.point = self._ids[rows[0]]
            self._hovering = False

    def _coloured(self) -> None:
        self._parts = spaces.parts(self.points, self.colour)
        if not self._by_hand:
            self.said = ""
            redraw(self._plot, self._live())

    # --- what a hand can do without a mouse

    def step(self, by: int) -> None:
        """To the next meaning that the filters leave, or with -1 to the one before."""
        left = list(dict.fromkeys(self._groups[self._keep]))
        if left:
            place = left.index(self.selected) + by if self.selected in left else min(by, 0)
            self.selected = left[place % len(left)]

    def save(self, path: str | Path) -> Path:
        """Write the selection: see `selections.save`."""
        return selections.save(self.selection, path, self.points)

    def load(self, path: str | Path) -> None:
        """Read the selection back: see `selections.load`."""
        self.selection = selections.load(path, self._row)

    def _laid_out(self) -> list:
        """The box's children, with controls made anew for these points."""
        self._boxes, self._controls, rows = toolbar(self)
        return rows

    def _hand(self, act, *told: type[Exception]) -> None:
        """What a control asked for; what cannot be is told, not raised."""
        if not self._by_hand:
            try:
                act()
            except (traitlets.TraitError, *told) as error:
                self.said = str(error)

    def _told(self) -> None:
        """The controls show what holds; what was typed stays where it was refused."""
        if self._by_hand:
            return
        self._by_hand = True
        try:
            for code, box in self._boxes.items():
                box.value = code in self.shown
            for name, control in self._controls.items():
                if not (name == "pattern" and self.said):
                    with contextlib.suppress(traitlets.TraitError):  # a bound that is no step of the slider
                        control.value = getattr(self, name)
        finally:
            self._by_hand = False
        left = self._groups[self._keep]
        count = f"{len(set(left)):,} of {len(self._captions):,} meanings, {len(left):,} points"
        told = f' <b role="alert">{html.escape(self.said)}</b>' if self.said else ""
        self._count.value = f'<span style="{pages.FRAME}padding:0 8px">{count}{told}</span>'
