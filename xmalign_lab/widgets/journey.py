"""A training seen as a journey: the same points at several moments, captions on their way to their pictures."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets
from PIL import Image
from plotly.subplots import make_subplots

from xmalign_lab import pictures as pages
from xmalign_lab import spaces
from xmalign_lab.style import INK, QUIET, escaped
from xmalign_lab.widgets.twin import Fitted, Twin, as_widget

PANELS = 4  # moments beside each other in the static twin
BETWEEN, HOLD, STEP = 7, 1_000, 90  # drawings from one moment to the next; milliseconds at a moment, and for a drawing between
COLOURS = 48  # of a GIF
LARGEST = 2_000_000  # bytes that a GIF may have before every second drawing between moments is left out


class Journey(Twin):
    """Moments of a training, `{name: points}` of the same rows as `projection.journey` gives them, and a slider through them.

    `moment` is the name of the one shown, `selected` the group whose lines are drawn: from its pictures to its captions,
    and dotted the way that each has come since the first moment. Move the slider, press play, choose a group from the
    list, click a point, or set either from Python. `headers` are numbers by name for each moment, which stand under its
    title together with its trustworthiness; without them those in the tables' `attrs` (`spaces.judged`) do. All moments are
    drawn to one scale. An unknown moment or group raises `TraitError`; no moments, or moments of other rows, `ValueError`.
    """

    moment = traitlets.Unicode()
    selected = traitlets.Unicode()

    def __init__(self, moments: Mapping[str, pd.DataFrame], pictures: Mapping[str, str], headers=None, **traits):
        self.moments, self.pictures, self.headers = dict(moments), pictures, headers or {}
        names, tables = list(self.moments), list(self.moments.values())
        if not tables or any(table.id.tolist() != tables[0].id.tolist() for table in tables):
            raise ValueError("a journey needs at least one moment, and the same rows in the same order at each")
        self._said, every = spaces.captions(tables[0]), pd.concat([table[["x", "y"]] for table in tables])
        centre, reach = (every.max() + every.min()) / 2, (every.max() - every.min()) * 0.54 + 1e-9
        self._ranges = [[float(centre[a] - reach[a]), float(centre[a] + reach[a])] for a in ("x", "y")]
        titles = {
            name: spaces.space(t.iloc[:0], header=self.headers.get(name), title=escaped(name)) for name, t in self.moments.items()
        }
        self._titles = {name: figure.layout.title.text for name, figure in titles.items()}
        full = [group for group, texts in self._said.items() if texts and group in pictures]
        super().__init__(**{"moment": names[0], "selected": next(iter(full or self._said), ""), **traits})
        self._plot, self._panel = as_widget(self.figure(self.moment, self.selected)), ipywidgets.HTML(layout={"width": "240px"})
        for trace in self._plot.data[:-2]:
            trace.on_click(self._clicked)
        wide = {"layout": {"width": "min(100%, 480px)"}, "style": {"description_width": "70px"}}
        slider = ipywidgets.SelectionSlider(options=names, description="moment", continuous_update=True, **wide)
        play = ipywidgets.Play(max=len(names) - 1, interval=HOLD, show_repeat=False, tooltip="play")
        called = [(texts[0][1] if texts else group, group) for group, texts in self._said.items()]
        choice = ipywidgets.Dropdown(options=called, description="group", **wide)
        traitlets.link((self, "moment"), (slider, "value"))
        traitlets.link((slider, "index"), (play, "value"))
        traitlets.link((self, "selected"), (choice, "value"))
        self.observe(lambda change: self._move(), ["moment", "selected"])
        self.observe(lambda change: self._beside(), "selected")
        self._beside()
        left = ipywidgets.VBox([self._plot], layout={"flex": "1 1 480px", "min_width": "0"})
        rows = {"display": "flex", "flex_flow": "row wrap", "align_items": "center"}
        self.box = ipywidgets.VBox(
            [
                ipywidgets.Box([play, slider, choice], layout=rows),
                ipywidgets.Box([left, self._panel], layout=rows | {"align_items": "flex-start"}),
                Fitted(),
            ]
        )

    @traitlets.validate("moment", "selected")
    def _known(self, proposal):
        what, known = ("moment", self.moments) if proposal.trait.name == "moment" else ("group", self._said)
        if proposal.value not in known:
            raise traitlets.TraitError(f"there is no {what} {proposal.value!r}; there are {', '.join(list(known)[:12])}")
        return proposal.value

    def figure(self, moment: str, selected: str) -> go.Figure:
        """The space at a moment, with the lines of a group and the way it has come."""
        drawn = spaces.space(self.moments[moment], header=self.headers.get(moment), title=escaped(moment), group=selected)
        drawn.update_traces(hoverinfo=None, selector={"mode": "markers"})
        way = {"mode": "lines", "line": {"color": INK, "width": 1.5, "dash": "dot"}, "hoverinfo": "skip", "showlegend": False}
        drawn.add_trace(go.Scatter(**self._way(moment, selected), **way, name="the way"))
        return self._same_scale(drawn)

    def static(self) -> go.Figure:
        """The first moment, the last and up to two between them, side by side."""
        names = list(self.moments)
        names = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, PANELS).round().astype(int))]
        notes = [self._titles[name].replace(" · ", "<br>") for name in names]
        panels = make_subplots(1, len(names), subplot_titles=notes, horizontal_spacing=0.015)
        for column, name in enumerate(names, 1):
            whole = self.figure(name, self.selected)
            for trace in whole.data:
                slim = trace.to_plotly_json() | {"hoverinfo": "skip", "showlegend": column == 1 and trace.showlegend is not False}
                slim = {key: value for key, value in slim.items() if key not in ("hovertext", "hovertemplate", "customdata")}
                slim["legendgroup"] = trace.name
                if trace.mode == "markers":
                    slim["marker"] = slim["marker"] | {"size": trace.marker.size * 0.6}
                panels.add_trace(slim, row=1, col=column)
        panels.update_xaxes(whole.layout.xaxis.to_plotly_json()).update_yaxes(whole.layout.yaxis.to_plotly_json())
        for column in range(2, len(names) + 1):
            panels.update_yaxes(scaleanchor=f"x{column}", col=column)
        for note, axis in zip(panels.layout.annotations, panels.select_xaxes(), strict=True):
            note.update(x=axis.domain[0], xanchor="left", align="left", font_size=14)
        panels.update_layout(template=whole.layout.template, height=440, margin={"l": 8, "r": 8, "b": 8, "t": 112})
        return panels.update_layout(legend={"orientation": "h", "y": -0.02, "yanchor": "top"})

    def html(self) -> str:
        """The static twin and the selected group, as HTML without plotly.js."""
        return super().html() + self.panel(self.selected)

    def panel(self, selected: str) -> str:
        """HTML: the picture of a group and its captions."""
        return pages.panel(selected, self._said.get(selected, []), self.pictures.get(selected))

    def animation(self, path: str | Path, width: int = 760) -> Path:
        """Write the journey of the selected group for a slide: `.html` with a play button, or a moving `.gif` or `.webp`.

        The page holds its own plotly.js (5 MB) and needs no network. The other two are drawn by Chromium, `width` pixels wide;
        between two moments the points move evenly, which is drawn and not measured, and the title says so. `RuntimeError`
        tells what is missing for them; any other ending raises `ValueError`.
        """
        path = Path(path)
        if path.suffix == ".html":
            path.write_text(self._page(), encoding="utf-8")
            return path
        if path.suffix not in (".gif", ".webp"):
            raise ValueError(f"{path.name}: an animation ends in .html, .gif or .webp")
        images, times = _drawn(self._film(), width)
        look = (
            {"save_all": True, "loop": 0, "optimize": True}
            if path.suffix == ".gif"
            else {"save_all": True, "loop": 0, "quality": 70}
        )
        images[0].save(path, append_images=images[1:], duration=times, **look)
        if path.suffix == ".gif" and path.stat().st_size > LARGEST:
            images, times = images[::2], [max(time, 2 * STEP) for time in times[::2]]  # BETWEEN is odd: every moment stays
            images[0].save(path, append_images=images[1:], duration=times, **look)
        return path

    def _same_scale(self, figure: go.Figure) -> go.Figure:
        return figure.update_xaxes(range=self._ranges[0]).update_yaxes(range=self._ranges[1])

    def _way(self, moment: str, selected: str) -> dict[str, np.ndarray]:
        """x and y of a line for each row of the group, over all moments up to this one, with a gap between two lines."""
        upto = list(self.moments)[: list(self.moments).index(moment) + 1]
        of = (self.moments[moment].group == selected).to_numpy()
        places = np.stack([self.moments[name].loc[of, ["x", "y"]].to_numpy(np.float32) for name in upto], 1)  # (rows, moments, 2)
        lines = np.concatenate([places, np.full((len(places), 1, 2), np.nan, np.float32)], 1).reshape(-1, 2)
        x, y = np.ascontiguousarray(lines.T)  # a message takes no array with steps
        return {"x": x, "y": y}

    def _places(self, moment: str) -> list[dict]:
        """x and y of every trace of `figure`."""
        drawn = [*spaces.layers(self.moments[moment], group=self.selected), self._way(moment, self.selected)]
        return [{"x": layer["x"], "y": layer["y"]} for layer in drawn]

    def _move(self) -> None:
        """In one message, with nothing in it but what has moved."""
        drawn = self._places(self.moment)
        self._plot.plotly_update(
            {a: [layer[a] for layer in drawn] for a in ("x", "y")}, {"title.text": self._titles[self.moment]}
        )

    def _beside(self) -> None:
        self._panel.value = self.panel(self.selected)

    def _clicked(self, trace, points, state) -> None:
        if points.point_inds and trace.customdata is not None:
            with contextlib.suppress(traitlets.TraitError):
                self.selected = trace.customdata[points.point_inds[0]]

    def _page(self) -> str:
        names = list(self.moments)
        film = self.figure(names[0], self.selected)
        titles = [{"title": {"text": self._titles[name]}} for name in names]
        places = [[go.Scatter(**layer) for layer in self._places(name)] for name in names]
        film.frames = [go.Frame(name=n, data=p, layout=t) for n, p, t in zip(names, places, titles, strict=True)]
        moving = {"frame": {"duration": HOLD, "redraw": True}, "transition": {"duration": BETWEEN * STEP}, "fromcurrent": True}
        halt = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
        buttons = [("▶ play", [None, moving]), ("❚❚ pause", [[None], halt])]
        buttons = [{"label": label, "method": "animate", "args": args} for label, args in buttons]
        steps = [{"label": escaped(name), "method": "animate", "args": [[name], halt | moving]} for name in names]
        place = {"y": -0.03, "yanchor": "top", "pad": {"t": 8}}
        menu = place | {
            "type": "buttons",
            "direction": "left",
            "x": 0,
            "xanchor": "left",
            "showactive": False,
            "buttons": buttons,
        }
        bar = place | {"x": 0.24, "len": 0.76, "steps": steps, "currentvalue": {"visible": False}}
        film.update_layout(updatemenus=[menu], sliders=[bar], height=640, margin_b=84)
        return film.to_html(full_html=True, include_plotlyjs=True, auto_play=False, config={"displaylogo": False})

    def _film(self) -> Iterator[tuple[go.Figure, int]]:
        """Every drawing of a moving picture with the milliseconds that it stays."""
        names = list(self.moments)
        for name, after in zip(names, [*names[1:], None], strict=True):
            yield self.figure(name, self.selected), HOLD
            for i in range(1, BETWEEN + 1) if after else ():
                part, here, there = i / (BETWEEN + 1), self._places(name), self._places(after)
                part = part * part * (3 - 2 * part)  # gently off and gently on
                drawn = self.figure(after, self.selected)
                for trace, begun, ended in zip(drawn.data[:-1], here, there, strict=False):
                    both = [np.array([begun[a], ended[a]], float) for a in ("x", "y")]  # None is NaN
                    trace.x, trace.y = ((1 - part) * old + part * new for old, new in both)
                drawn.data[-1].update(self._way(name, self.selected))
                title, _, _ = self._titles[name].partition("<br>")
                note = (
                    f'<br><span style="font-size:14px;color:{QUIET}">on the way: between two moments nothing is measured</span>'
                )
                yield drawn.update_layout(title_text=f"{title} → {escaped(after)}{note}"), STEP


def _drawn(film: Iterator[tuple[go.Figure, int]], width: int) -> tuple[list[Image.Image], list[int]]:
    """The film's drawings as images of few colours, and their times; one Chromium draws all of them."""
    film = list(film)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i:04}.png" for i in range(len(film))]
        spaces.png(film[0][0], files[0], width, 1)  # tells what is missing
        import kaleido

        options = {"format": "png", "width": width, "height": 560, "scale": 1}
        asked = [{"fig": f.to_plotly_json(), "path": str(p), "opts": options} for (f, _), p in zip(film, files, strict=True)]
        kaleido.write_fig_from_object_sync(asked, kopts={"mathjax": False})
        colours = Image.open(files[-1]).convert("RGB").quantize(COLOURS)  # one palette: a new one for each would flicker
        images = [Image.open(file).convert("RGB").quantize(palette=colours, dither=Image.Dither.NONE) for file in files]
    return images, [time for _, time in film]
