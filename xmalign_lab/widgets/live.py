"""Curves of a run while it runs, with a button that stops it."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator

import ipywidgets
import pandas as pd
import plotly.graph_objects as go
import traitlets

from xmalign_lab import plots
from xmalign_lab.widgets.twin import Twin, redraw

PAUSE = 0.33  # seconds between two drawings: more often, and the browser falls behind


class LiveCurves(Twin):
    """Loss and temperature of a run, as it goes. A run is any iterator of steps with `progress`, `terms` and `tau`.

        curves.run(train(recipe, features, pairs))   # in a background thread: the page stays alive
        state = curves.wait()                        # the generator's return value; raises what the run raised

    or, in a loop of one's own, `curves.update(step)`. A step may also have `step` and `epoch`. `state` says idle,
    running, stopped, done or failed; `last` is the latest step. A stopped iterator is left where it
    stands: `run` it again to go on.
    """

    state = traitlets.Enum(("idle", "running", "stopped", "done", "failed"), "idle")

    def __init__(self, total: int):
        super().__init__()
        self.last, self._rows, self._drawn, self._thread = None, [], -PAUSE, None
        self._stop, self._error, self._result = threading.Event(), None, None
        self._bar = ipywidgets.IntProgress(max=max(1, total), layout={"width": "320px"})
        self._button = ipywidgets.Button(description="stop", icon="stop", disabled=True)
        self._button.on_click(lambda button: self.stop())
        self._said = ipywidgets.HTML()
        self._shown = go.FigureWidget(self.static())
        self.box = ipywidgets.VBox([ipywidgets.HBox([self._bar, self._button, self._said]), self._shown])

    def figure(self, steps: pd.DataFrame) -> go.Figure:
        """The curves of `steps`, a row each: step, epoch, progress, tau and the terms."""
        return plots.training(steps)

    def static(self) -> go.Figure:
        return self.figure(self.table())

    def table(self) -> pd.DataFrame:
        """What was seen so far, a row per step."""
        return pd.DataFrame(list(self._rows) or {"step": [], "progress": [], "tau": []}, dtype=float)

    def update(self, step) -> None:
        """Take one step in; draw at most three times a second (`run` draws the last step in any case)."""
        row = {"step": getattr(step, "step", len(self._rows) + 1), "progress": step.progress, "tau": step.tau}
        if hasattr(step, "epoch"):
            row["epoch"] = step.epoch
        self._rows.append({**row, **step.terms})
        self.last = step
        if time.monotonic() - self._drawn >= PAUSE:
            self.draw()

    def draw(self) -> None:
        """Draw what was seen so far, now."""
        redraw(self._shown, self.static())
        self._bar.value = int(self._rows[-1]["step"]) if self._rows else 0
        self._say(f"{self._rows[-1]['progress']:.0%}" if self._rows else "")
        self._drawn = time.monotonic()

    def run(self, steps: Iterator) -> LiveCurves:
        """Drain `steps` in a background thread; returns at once. `RuntimeError` if a run is still going."""
        if self._thread and self._thread.is_alive():
            raise RuntimeError("a run is still going: stop() it, or wait()")
        self._stop.clear()
        self._error, self._result, self.state, self._button.disabled = None, None, "running", False
        self._thread = threading.Thread(target=self._drain, args=(iter(steps),), daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the run to stop after its present step."""
        self._stop.set()

    def wait(self):
        """Wait for the end of the run: its return value, or None if it was stopped. Raises what the run raised.

        An interrupt (the notebook's stop button) stops the run and is raised again.
        """
        try:
            while self._thread and self._thread.is_alive():
                self._thread.join(0.1)
        except KeyboardInterrupt:
            self.stop()
            self._thread.join()
            raise
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result

    def _drain(self, steps: Iterator) -> None:
        end = "stopped"
        try:
            while not self._stop.is_set():
                self.update(next(steps))
        except StopIteration as stop:
            self._result, end = stop.value, "done"
        except BaseException as error:  # it belongs to whoever waits, not to this thread's stderr
            self._error, end = error, "failed"
        try:
            self.draw()
        except Exception as error:
            self._error, end = self._error or error, "failed"
        self._button.disabled = True
        self._say(end if self._error is None else f"{type(self._error).__name__}: {self._error}")
        self.state = end

    def _say(self, words: str) -> None:
        self._said.value = f"<span>{html.escape(words)}</span>"
