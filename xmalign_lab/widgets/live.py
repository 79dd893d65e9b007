"""A run while it runs: watched, paused, changed, stopped, and made again from what was changed."""

from __future__ import annotations

import atexit
import html
import inspect
import math
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

import ipywidgets
import pandas as pd
import plotly.graph_objects as go
import traitlets

from xmalign_lab import dials
from xmalign_lab.corpus import Pairs
from xmalign_lab.schedules import Schedule
from xmalign_lab.widgets.twin import Fitted, Twin, as_widget, redraw

PAUSE = 0.25  # seconds between two drawings: more often, and the browser falls behind
TEMPERATURES = ("value", "start", "end", "tau0", "low", "high")  # the fields of schedules that are temperatures
CONTRASTIVE = ("info_nce", "align", "siglip", "rince")
BUTTONS = {"pause": ("running",), "step": ("paused",), "continue": ("paused",), "stop": ("running", "paused")}


class LiveRun(Twin):
    """A run in the background: any iterator of steps with `progress`, `terms` and `tau`, such as `train(…)`.

        live.run(train(recipe, features, pairs))   # returns at once: the page stays alive
        live.pause(); live.step(3); live.edit("temperature", Constant(0.1)); live.resume(); live.stop()
        state = live.wait()                        # the generator's return value; raises what the run raised

    or, in a loop of one's own, `live.update(step)`. `state` says idle, running, paused, stopped, done or failed; `last` is the
    latest step, `table()` what all of them told. With the `recipe` there are sliders for a factor on its temperature
    and for the weight of each term that is not contrastive, with scored `pairs` one for the threshold. An edit holds from the
    next step on; `edits` are those accepted, as `Record.edits` has them, for `replay`; `refused` says why the last one was not.
    `measure(step)`, such as {"validation R@1": …}, is taken ten times a run, by the thread that trains, and joins the
    step's row. A stopped iterator is left where it stands: `run` it again to go on. The run ends with `close()`, with the
    box, and with the kernel.
    """

    state = traitlets.Enum(("idle", "running", "paused", "stopped", "done", "failed"), "idle")
    refused = traitlets.Unicode()

    def __init__(self, recipe=None, pairs: Pairs | None = None, measure: Callable[[object], Mapping[str, float]] | None = None):
        super().__init__()
        self.recipe, self.measure, self.last, self.edits, self._asked, self._rows = recipe, measure, None, [], [], []
        self._drawn, self._rest, self._thread, self._steps, self._error, self._result = -PAUSE, PAUSE, None, None, None, None
        self._done, self._until, self._stopping, self._wake = 0, math.inf, False, threading.Event()
        self._bar, self._said = ipywidgets.FloatProgress(max=1.0, layout={"width": "200px"}), ipywidgets.HTML()
        self._buttons = {name: ipywidgets.Button(description=name, layout={"width": "80px"}) for name in BUTTONS}
        for button, does in zip(self._buttons.values(), (self.pause, self.step, self.resume, self.stop), strict=True):
            button.on_click(lambda _, does=does: does())
        self._sliders = self._controls(pairs) if recipe is not None else {}
        self._shown = as_widget(self.static())
        self.observe(lambda change: self._tell(), ["state", "refused"])
        self._tell()
        row = ipywidgets.HBox([self._bar, *self._buttons.values()])
        self.box = ipywidgets.VBox([row, *self._sliders.values(), self._said, self._shown, Fitted()])
        self.box.observe(lambda change: self.stop(), "comm")  # the box is closed

    def static(self, *views: str) -> go.Figure:
        """The curves of all or some of `dials.VIEWS`, with stages and edits."""
        return dials.training(self.table(), views=views or dials.VIEWS, edits=self.edits)

    def table(self) -> pd.DataFrame:
        """What was seen so far, a row per step."""
        return pd.DataFrame(list(self._rows) or {name: pd.Series(dtype=float) for name in ("step", "progress", "tau")})

    def update(self, step) -> None:
        """Take one step in; draw at most four times a second, and for no more than a fifth of the time."""
        bare = {"step": len(self._rows) + 1, "progress": step.progress, "tau": step.tau}
        row = step.row() if hasattr(step, "row") else bare | step.terms
        before, self.last = self._rows[-1]["progress"] if self._rows else 0, step
        if self.measure and int(10 * step.progress) > int(10 * before):
            row |= {name: float(value) for name, value in self.measure(step).items()}
        self._rows.append(row)
        if time.monotonic() - self._drawn >= self._rest:
            self.draw()

    def draw(self) -> None:
        """Draw what was seen so far, now."""
        begun = time.monotonic()
        redraw(self._shown, self.static())
        self._bar.value = float(self._rows[-1]["progress"]) if self._rows else 0.0
        self._drawn = time.monotonic()
        self._rest = max(PAUSE, 4 * (self._drawn - begun))

    def run(self, steps: Iterator, paused: bool = False) -> LiveRun:
        """Drain `steps` in a background thread, or wait with it `paused`. `RuntimeError` if a run is still going."""
        if self._going():
            raise RuntimeError("a run is still going: stop() it, or wait()")
        self._done, self._until, self._stopping, self._steps = 0, 0 if paused else math.inf, False, iter(steps)
        self._error, self._result, self.state = None, None, "running"
        self._thread = threading.Thread(target=self._drain, args=(self._steps,), daemon=True)
        atexit.register(self._halt)
        self._thread.start()
        return self

    def pause(self) -> LiveRun:
        """Pause after the present step."""
        return self._allow(0)

    def step(self, n: int = 1) -> LiveRun:
        """Do `n` steps, then pause: `live.step(3).wait()` has done them."""
        return self._allow(self._done + n)

    def resume(self) -> LiveRun:
        return self._allow(math.inf)

    def edit(self, field: str, value) -> LiveRun:
        """Ask for a change from the next step on. `value` may be a function of the recipe that holds then."""
        self._asked.append((field, value))
        self._wake.set()
        return self

    def stop(self) -> None:
        """Ask the run to stop after its present step."""
        self._stopping = True
        self._wake.set()

    def close(self) -> None:
        """Stop, wait until the thread has ended, and take the widget off the page."""
        self._halt()
        self.box.close()

    def wait(self):
        """Wait until the run has ended or is paused: its return value, None if it was stopped. Raises what the run raised.

        An interrupt (the notebook's stop button) stops the run and is raised again.
        """
        try:
            while self._going() and (self.state != "paused" or self._until > self._done or self._can_send() or self._stopping):
                self._thread.join(0.05)
        except KeyboardInterrupt:
            self._halt()
            raise
        if self._error is not None:
            raise self._error
        return self._result

    def _allow(self, until: float) -> LiveRun:
        if not self._going():
            raise RuntimeError("no run is going: start one with run(steps)")
        self._until = until
        self._wake.set()
        return self

    def _going(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _can_send(self) -> bool:
        """A generator that has not begun takes no edit yet."""
        begun = not inspect.isgenerator(self._steps) or inspect.getgeneratorstate(self._steps) != inspect.GEN_CREATED
        return bool(self._asked) and begun

    def _halt(self) -> None:
        self.stop()
        if self._thread:
            self._thread.join(10)

    def _drain(self, steps: Iterator) -> None:
        end = "stopped"
        try:
            while not self._stopping:
                self._wake.clear()
                if self._can_send():
                    self._send(steps, *self._asked[0])
                    del self._asked[0]  # not before: `wait` waits for it
                elif self._until > self._done:
                    self.state = "running"
                    self.update(next(steps))
                    self._done += 1
                elif not self._stopping:
                    self.draw()
                    self.state = "paused"
                    self._wake.wait()
        except StopIteration as stop:
            self._result, end = stop.value, "done"
        except BaseException as error:  # it belongs to whoever waits, not to this thread's stderr
            self._error, end = error, "failed"
        try:
            self.draw()
        except Exception as error:
            self._error, end = self._error or error, "failed"
        atexit.unregister(self._halt)
        self.state = end

    def _send(self, steps: Iterator, field: str, value) -> None:
        """Hand an edit over; one that cannot be is told in `refused` and changes nothing."""
        from xmalign_lab.recipe import plain

        state, at = getattr(self.last, "state", None), getattr(self.last, "step", len(self._rows))
        refused = "" if hasattr(steps, "send") else "this run takes no edits"
        try:
            if state is not None:  # tried out first: what breaks the recipe must not break the run
                value = value(state.recipe.at(self.last.progress)[1]) if inspect.isfunction(value) else value
                state.recipe.edited(field, value)
        except (AttributeError, TypeError, ValueError) as error:
            refused = str(error)
        refused = refused or getattr(steps.send(SimpleNamespace(step=at, field=field, value=value)), "refused", "")
        self.refused = f"{field} was not changed to {value}: {refused}" if refused else ""
        if not refused:
            self.edits.append({"step": at, "field": field, "value": plain(value)})
        now = self.recipe if state is None else state.recipe.at(self.last.progress)[1]
        for name, slider in self._sliders.items():  # they show what holds, after a refusal too
            held = now.terms.get(name, getattr(now, name, None))
            slider.value = slider.value if held is None or isinstance(held, Schedule) else held

    def _controls(self, pairs: Pairs | None) -> dict[str, ipywidgets.Widget]:
        """Sliders that edit when they are let go."""
        look = {"continuous_update": False, "readout_format": ".2f", "style": {"description_width": "140px"}}
        look["layout"] = {"width": "min(100%, 520px)"}
        stages = [self.recipe, *(self.recipe.at(stage.until)[1] for stage in self.recipe.stages)]
        terms = {name: weight for recipe in stages for name, weight in recipe.terms.items() if name not in CONTRASTIVE}
        sliders = {"temperature": ipywidgets.FloatLogSlider(1, min=-1, max=1, description="temperature ×", **look)}
        scores = [] if pairs is None else pairs.rows.score.dropna()
        if len(scores):
            low, high = min(0.0, scores.min(), self.recipe.threshold), max(scores.max(), self.recipe.threshold)
            ends = {"min": low, "max": high, "step": max(high - low, 1e-6) / 200, "description": "threshold"}
            sliders["threshold"] = ipywidgets.FloatSlider(self.recipe.threshold, **ends, **look)
        for name, weight in terms.items():
            begin = weight(0.0)[0] if isinstance(weight, Schedule) else weight
            ends = {"max": max(1.0, 2 * begin), "step": 0.01, "description": f"weight {name}"}
            sliders[name] = ipywidgets.FloatSlider(begin, **ends, **look)
        for name, slider in sliders.items():
            slider.tooltip = slider.description
            slider.observe(lambda change, name=name: self._moved(name, change.new), "value")
        return sliders

    def _moved(self, name: str, value: float) -> None:
        """Ask for the edit of a slider, if it was a hand that moved it."""
        if threading.current_thread() is not self._thread:
            edits = {"temperature": lambda now: self._scaled(value), "threshold": value}
            self.edit(*(name, edits[name]) if name in edits else ("terms", lambda now: {**now.terms, name: value}))

    def _scaled(self, factor: float) -> Schedule:
        """The recipe's own temperature, that of the present stage, times `factor`."""
        plan = self.recipe.at(self.last.progress)[1].temperature
        if points := getattr(plan, "points", ()):
            return replace(plan, points=[(at, factor * value) for at, value in points])
        return replace(plan, **{name: factor * value for name, value in vars(plan).items() if name in TEMPERATURES})

    def _tell(self) -> None:
        error = f"{type(self._error).__name__}: {self._error}" if self._error else self.refused
        self._said.value = f"<span>{self.state} <b>{html.escape(error)}</b></span>"
        for name, when in BUTTONS.items():
            self._buttons[name].disabled = self.state not in when
        for slider in self._sliders.values():
            slider.disabled = self.state not in ("running", "paused")


def replay(steps: Generator, edits: Iterable[Mapping]) -> Generator:
    """The steps of a run once more, each of `edits` sent where it was accepted: the same numbers, and the same return value.

    `steps` is the run anew, `train(recipe, …)` with the recipe it began with; `edits` are `LiveRun.edits` or
    `Record.edits`. Raises `ValueError` for an edit that is refused, or whose step never comes.
    """
    from xmalign_lab.recipe import unplain

    left = sorted(edits, key=lambda edit: edit["step"])
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            if left:
                raise ValueError(f"the edit of {left[0]['field']!r} at step {left[0]['step']} was never reached") from None
            return end.value
        yield step
        while left and left[0]["step"] == step.step:
            edit = left.pop(0)
            answer = steps.send(SimpleNamespace(**edit | {"value": unplain(edit["value"])}))
            if refused := getattr(answer, "refused", ""):
                raise ValueError(f"the edit of {edit['field']!r} at step {step.step} was refused: {refused}")
