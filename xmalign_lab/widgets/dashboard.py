"""The whole way on one page: data, pairs, temperature, a live run of seconds, its numbers, and the space it made."""

from __future__ import annotations

import json
import threading
import time
from itertools import islice

import ipywidgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets
from threadpoolctl import threadpool_limits

from xmalign_lab import projection, schedules
from xmalign_lab.pictures import FRAME
from xmalign_lab.style import language_name
from xmalign_lab.widgets import readings
from xmalign_lab.widgets.explorer import SpaceExplorer
from xmalign_lab.widgets.latest import Latest
from xmalign_lab.widgets.narrow import Curves, Dial, Picker, Thumbnails
from xmalign_lab.widgets.toolbar import shut
from xmalign_lab.widgets.twin import Fitted, Twin

REST = 0.3  # seconds that a control must be still before a run begins
MOST_SECONDS = 8.0
PAGE = 0.4  # seconds that a browser takes to draw what has come
STEPS_FOR_PACE = 3
GO_ON, SCRATCH = "go on", "from scratch"
WHY = {"temperature": "τ", "noise": "wrong pairs", "text": "parallel text", "languages": "languages", "threshold": "threshold"}
WRAPPED = {"display": "flex", "flex_flow": "row wrap"}


class Dashboard(Twin):
    """Data, pairs, temperature, training, numbers and space on one page, over a `bench` such as `workbench.Workbench`.

        dashboard.threshold = 0.6          # goes on training from the weights that are shown, in the background
        dashboard.start = "from scratch"; dashboard.temperature = Cosine(0.2, 0.05)
        dashboard.wait().history           # all is redrawn: what was tried so far

    `languages`, `noise` and `text` choose the data, `temperature` (a schedule) and `threshold` the run. Setting one of them
    takes `seconds` (8 at the most) until all is redrawn, data aside; training has what measuring and drawing leave of them. Or
    it trains for `steps` if that is above 0: then the same moves give the same numbers.
    A move during a run ends it, and its weights with it: the next begins from those that are shown. `stop()` keeps what the run
    has reached. `projection` is "pca" or "umap"; UMAP is fitted in the background once for all runs that go on, and PCA is
    shown until it is there. `numbers` are those shown, `history` has a row for each look at the validation families, `took`
    the seconds of each part; `looks` counts up when new weights, in `aligner`, are there. What cannot be raises `TraitError`,
    by hand it goes back and is told in `said`; what a run raises is told there too, and raised by `wait`.

    A bench has `offered` languages, `data(languages, noise, text, say)`, `begin(data, temperature, threshold, held, steps)`,
    an iterator of steps, `glance(step, data)`, `measure(aligner, data)`, a table of ranks, and `embedded(aligner, data)`.
    """

    temperature = traitlets.Any(schedules.Constant(0.1))
    threshold = traitlets.Float(0.0)
    languages = traitlets.Tuple()
    noise = traitlets.Float(0.4, min=0, max=1)
    text = traitlets.Float(1.0, min=0.01, max=1)
    start = traitlets.Enum((GO_ON, SCRATCH), GO_ON)
    seconds = traitlets.Float(5.0, min=1.0, max=MOST_SECONDS)
    steps = traitlets.Int(0, min=0)
    projection = traitlets.Enum(projection.METHODS, "pca")
    state = traitlets.Unicode("waiting")
    said = traitlets.Unicode()
    looks = traitlets.Int()

    def __init__(self, bench, rest: float = REST, **traits):
        self.bench, self.data, self.picker, self.explorer, self.points, self.numbers = bench, None, None, None, None, None
        self.took, self._tried, self._scores, self._held, self._pace, self._why = {}, [], None, None, None, {}
        self._chosen, self._seen, self._flat, self._fitted, self._enough = None, None, None, {}, threading.Event()
        self._runs, self._maps = (Latest(serve, wait, self._failed) for serve, wait in ((self._serve, rest), (self._fit, 0)))
        super().__init__(**{"languages": tuple(bench.offered[:2]), **traits})
        self._build()
        self.observe(self._turned, [*WHY, "projection"])
        self.observe(lambda change: self._tell(), ["state", "said"])
        self._runs.ask("train")

    # What can be set

    @traitlets.validate("temperature")
    def _possible(self, proposal):
        try:
            return schedules.as_temperature(proposal.value)
        except (TypeError, ValueError, AttributeError) as error:
            raise traitlets.TraitError(str(error)) from None

    @traitlets.validate("languages")
    def _known(self, proposal):
        for code in proposal.value:
            if code not in self.bench.offered:
                raise traitlets.TraitError(f"{code!r} is not offered; languages are {', '.join(self.bench.offered)}")
        if not proposal.value:
            raise traitlets.TraitError("choose at least one language")
        return tuple(code for code in self.bench.offered if code in proposal.value)

    @traitlets.validate("threshold")
    def _keeps(self, proposal):
        if self.data is not None and not proposal.value <= (most := self._most_threshold()):
            told = (
                f"A threshold of {proposal.value:.3g} leaves a language without a pair; the highest that does not is {most:.3g}."
            )
            raise traitlets.TraitError(told)
        return proposal.value

    def _most_threshold(self) -> float:
        """The highest threshold at which every relation with scores keeps a pair."""
        best = self.data.pairs.rows.groupby("source").score.max().dropna()
        return float(best.min()) if len(best) else np.inf

    # What can be done

    def go(self, start: str | None = None) -> Dashboard:
        """Train once more at the present settings, `start`ing as said, or as the trait says."""
        self._runs.ask("train", *[SCRATCH] * (start == SCRATCH))
        return self

    def stop(self) -> None:
        """End the run that is going, and show what it has reached."""
        self._enough.set()

    def wait(self) -> Dashboard:
        """Wait until all that was asked for is done and drawn. Raises what a run, or the fit of a map, raised."""
        for worker in (self._runs, self._maps, self._runs):  # a map that is fitted asks to be drawn
            worker.wait()
        return self

    def close(self) -> None:
        """Stop, and take the widget off the page."""
        self._runs.close()
        self._maps.close()
        shut(self.box)

    @property
    def aligner(self):
        """The trained model that is shown."""
        return self._held.aligner

    @property
    def history(self) -> pd.DataFrame:
        """A row for each look at the validation families: the settings, what was done, and what came of it."""
        return pd.DataFrame(self._tried)

    def static(self) -> go.Figure:
        """The space as a plain figure; before there is one, the curves."""
        return self.live.static() if self.explorer is None else self.explorer.static()

    def html(self) -> str:
        """Curves, numbers, space and what was tried, as HTML without plotly.js; a line before there are any."""
        if not self._tried:
            return f'<div style="{FRAME}">Runs where there is a kernel; what it looks like after a run stands below.</div>'
        settings = readings.settings_html(self.languages, self.noise, self.text, self.temperature, self.threshold)
        figures = [part.static() for part in (self.live, self.explorer) if part is not None]
        return readings.page_html(figures, settings, self._numbers.value, self._history.value)

    # The page

    def _build(self) -> None:
        self._head, self._numbers, self._history, self._took = (ipywidgets.HTML() for _ in range(4))
        small = {"indent": False, "layout": {"width": "98px"}}
        self._boxes = {code: ipywidgets.Checkbox(description=language_name(code), **small) for code in self.bench.offered}
        for box in self._boxes.values():
            box.observe(self._ticked, "value")
        wrong, text = (
            self._slider("noise", "wrong pairs", 0, 0.8, 0.1, ".0%"),
            self._slider("text", "parallel text", 0.1, 1, 0.1, ".0%"),
        )
        seconds = self._slider("seconds", "seconds", 1, MOST_SECONDS, 0.5, ".1f")
        start = ipywidgets.ToggleButtons(options=[GO_ON, SCRATCH], style={"button_width": "100px"})
        start.tooltips = ["from the weights that are shown", "from random weights"]
        traitlets.link((self, "start"), (start, "value"))
        again, self._stopping = (ipywidgets.Button(description=name, layout={"width": "58px"}) for name in ("train", "stop"))
        again.on_click(lambda _: self.go())
        self._stopping.on_click(lambda _: self.stop())
        maps = ipywidgets.ToggleButtons(options={"PCA": "pca", "UMAP": "umap"}, style={"button_width": "80px"})
        traitlets.link((self, "projection"), (maps, "value"))
        self.live = Curves(lambda step: self._glance(step))
        self.dial = Dial(schedule=self.temperature)
        traitlets.link((self, "temperature"), (self.dial, "schedule"))
        self._pairs, self._space, titled = ipywidgets.VBox(), ipywidgets.VBox(), readings.titled
        chosen = ipywidgets.Box(list(self._boxes.values()), layout=WRAPPED)
        left = [titled("Data"), chosen, wrong, text, titled("Temperature"), self.dial.box, titled("Pairs: whom to believe")]
        run = ipywidgets.Box([start, again, self._stopping], layout=WRAPPED)
        self.live._bar.layout.width = "98%"
        middle = [titled("Training"), run, seconds, self.live._bar, self.live._shown, self._numbers, self._took]
        right = [titled("Space"), maps, self._space]
        columns = (([*left, self._pairs], "1 1 250px"), (middle, "1 1 280px"), (right, "2 1 380px"))
        look = {"min_width": "0", "padding": "0 8px"}
        columns = [ipywidgets.VBox([*parts, Fitted()], layout={"flex": flex, **look}) for parts, flex in columns]
        self.box = ipywidgets.VBox([self._head, ipywidgets.Box(columns, layout=WRAPPED), self._history, Fitted()])
        self._sync()
        self._tell()

    def _slider(self, name: str, words: str, low: float, high: float, step: float, form: str) -> ipywidgets.FloatSlider:
        """A slider for a trait, which is set when it is let go."""
        look = {"continuous_update": False, "style": {"description_width": "96px"}, "layout": {"width": "98%"}}
        slider = ipywidgets.FloatSlider(
            min=low, max=high, step=step, description=words, readout_format=form, tooltip=words, **look
        )
        traitlets.dlink((self, name), (slider, "value"))
        slider.observe(lambda change: self._by_hand(name, change.new), "value")
        return slider

    def _tell(self) -> None:
        self._head.value = readings.head_html(self.state, self.said)
        self._stopping.disabled = self.state != "training"

    def _sync(self) -> None:
        for code, box in self._boxes.items():
            box.value = code in self.languages

    def _ticked(self, change) -> None:
        wanted = tuple(code for code, box in self._boxes.items() if box.value)
        if (change.owner.description in map(language_name, self.languages)) != change.new:
            self._by_hand("languages", wanted)

    def _by_hand(self, name: str, value) -> None:
        """Set a trait as a hand does: what cannot be is told, and the control goes back."""
        try:
            setattr(self, name, value)
        except traitlets.TraitError as error:
            self.said = str(error)
            self._sync()
            if self.picker is not None:
                self.picker.value = self.threshold

    def _turned(self, change) -> None:
        if change.name == "languages":
            self._sync()
        if change.name == "threshold" and self.picker is not None:
            self.picker.value = change.new
        self.said = ""
        if change.name == "projection":
            self._runs.ask("map", halt=False)
        else:
            self._why[WHY[change.name]] = True
            self._runs.ask("train")

    def _failed(self, error: Exception) -> None:
        self.said, self.state = f"{type(error).__name__}: {error}", "failed"

    # What the thread does

    def _serve(self, wanted: set[str]) -> set[str]:
        """Do what is wanted; what a move has interrupted is returned, to be done with what that move asks for."""
        with threadpool_limits(1):  # where the page has the other core, two threads wait for each other, and are far slower
            return self._done(wanted)

    def _done(self, wanted: set[str]) -> set[str]:
        chosen, note = (self.languages, self.noise, self.text), ""
        if "train" in wanted and chosen != self._chosen:
            note = self._gather(chosen)
            self._chosen = chosen
        settings = (*chosen[1:], self.temperature, self.threshold)
        if "train" in wanted and not self._train(SCRATCH in wanted or self.start == SCRATCH, settings):
            return wanted
        if self._seen is not None:
            self._map()
        self.state, self.looks = "ready", len(self._tried)
        self.said = note or self.said
        return set()

    def _gather(self, chosen: tuple) -> str:
        """The data that are `chosen`; what is to be told of them once all is drawn."""
        note, begun, self.state = "", time.monotonic(), "preparing"
        before, self.data = self.data, self.bench.data(*chosen, self._progress)
        if before is not None and before.targets != self.data.targets:
            self._held, self._scores = None, None  # the heads' first layers are made for their languages
        if self.threshold > self._most_threshold():
            self.unobserve(self._turned, "threshold")
            self.threshold, note = 0.0, "These pairs do not reach the threshold: it is 0 again."
            self.observe(self._turned, "threshold")
        self.pictures = Thumbnails(self.data.corpus)
        if self.data.pairs.rows.score.notna().any():
            self.picker = Picker(self.data.pairs, self.data.corpus, self.data.truth, self.pictures, self.threshold)
            self.picker.observe(lambda change: self._by_hand("threshold", change.new), "value")
            shown = self.picker.box
        else:
            self.picker, shown = None, ipywidgets.HTML("So few pairs that nothing can be said of any: all are believed.")
        old, self._pairs.children = self._pairs.children, [shown]
        for each in old:
            shut(each)
        self.took = {"data": time.monotonic() - begun}
        return note

    def _progress(self, done: float, what: str) -> None:
        self.live._bar.value, self.said = done, what

    def _glance(self, step) -> dict[str, float]:
        """MRR by language, at every second tenth of a run."""
        if round(10 * step.progress) % 2:
            return {}
        return {f"MRR {code}": value for code, value in self.bench.glance(step, self.data).items()}

    def _train(self, anew: bool, chosen: tuple) -> bool:
        """One run: False if a move has ended it. Its weights are kept only if it was not."""
        self._enough.clear()  # before the button can be pressed
        begun, self.state, self.said = time.monotonic(), "training", ""
        anew, settings = anew or self._held is None, (self.data, *chosen[2:])
        held = None if anew else self._held
        if not self.steps and self._pace is None:
            at = [time.monotonic() for _ in islice(self.bench.begin(*settings, held, STEPS_FOR_PACE), STEPS_FOR_PACE)]
            self._pace = (at[-1] - at[0]) / max(1, len(at) - 1)
        after = sum(self.took.get(part, 0.2) for part in ("evaluation", "projection", "drawing"))
        end = begun + max(0.1, self.seconds - self._runs.rest - after - PAGE)
        planned = self.steps or max(STEPS_FOR_PACE, int((end - time.monotonic()) / max(self._pace, 1e-4)))
        self.live.begin(SCRATCH if anew else ", ".join(self._why) or GO_ON, anew)
        done, last, first = 0, None, None
        for step in self.bench.begin(*settings, held, planned):
            if self._runs.halt.is_set():
                self.live.undo()
                return False
            first, done, last = first or time.monotonic(), done + 1, step
            self.live.update(step)
            if self._enough.is_set() or (not self.steps and time.monotonic() + self._pace > end):
                break
        now = time.monotonic()
        self._pace = (now - first) / max(1, done - 1)
        self._held, self.took["training"] = last.state, now - begun
        self._why = {}
        self._evaluate(anew, done, planned, *chosen)
        self.live.draw()
        return True

    def _evaluate(self, anew: bool, done: int, planned: int, noise: float, text: float, temperature, threshold: float) -> None:
        begun, self.state = time.monotonic(), "measuring"
        scores = self.bench.measure(self._held.aligner, self.data)
        self.numbers, self._scores = readings.compared(scores, self._scores, self.data.targets), scores
        mean = self.numbers.set_index("lang").loc[readings.MEAN]
        kept = int((~(self.data.pairs.rows.score < threshold)).sum())
        row = {"look": len(self._tried) + 1, "start": SCRATCH if anew else GO_ON, "temperature": readings.short(temperature)}
        row |= {"threshold": threshold, "pairs": kept, "wrong": noise, "text": text, "steps": done}
        row |= {"languages": ", ".join(self.data.targets), "schedule": json.dumps(schedules.to_dict(temperature))}
        row |= {"planned": planned, "seconds": round(self.took["training"], 2)}
        row |= {f"MRR {lang}": value for lang, value in zip(self.numbers.lang, self.numbers.MRR, strict=True)}
        self._tried.append(row | {"change": mean["change"], "low": mean["change low"], "high": mean["change high"]})
        asked = self.data.asked.rows
        self._asked = f"the same {asked.family.nunique()} validation families"
        pictures = asked.group[asked.modality == "image"].nunique()
        note = f"{self._asked}, {pictures} pictures a gallery; {done} of {planned} planned steps"
        self._numbers.value = readings.numbers_html(self.numbers, note)
        self._history.value = readings.history_html(self.history, self._asked)
        self._seen = self.bench.embedded(self._held.aligner, self.data)
        self.took["evaluation"] = time.monotonic() - begun
        if anew:
            self._fitted = {}  # another space: what was fitted to the old one says nothing of it

    def _map(self) -> None:
        begun, self.state = time.monotonic(), "drawing"
        rows, vectors = self._seen
        if self.projection == "umap" and "umap" not in self._fitted:
            self.said = "UMAP is being fitted, about 20 s the first time; until it is there you see PCA."
            self._maps.ask("umap")
        umap = self._fitted.get(self.projection)
        self.points = projection.placed(rows, vectors, umap, self._flat)
        if umap is None:
            self._flat = self.points[["x", "y"]].to_numpy()
        placed, languages = time.monotonic(), () if self.explorer is None else self.explorer.languages
        if languages == tuple(sorted(set(rows.lang) - {""})):
            self.explorer.replace(self.points, vectors)
        else:
            pictures = {group: uri for group in rows.group.unique() if (uri := self.pictures.get(group))}
            self.explorer = SpaceExplorer(self.points, pictures, vectors=vectors)
            old, self._space.children = self._space.children, [self.explorer.box]
            for each in old:
                shut(each)
        self.took |= {"projection": placed - begun, "drawing": time.monotonic() - placed}
        self._took.value, self.live._bar.value = readings.took_html(self.took), 1.0

    def _fit(self, wanted: set[str]) -> set[str]:
        """Fit the map that is asked for to the space that is shown, and have it drawn."""
        known, vectors = self._fitted, self._seen[1]  # a run from scratch meanwhile begins another dict
        for method in wanted:
            known[method] = projection.fitted(vectors, method)
            known[method].place(vectors[::2])  # the first new rows take a second longer than those that follow
        self.said = ""
        self._runs.ask("map", halt=False)
        return set()
