"""Widgets: a pure `figure(value)`, a trait and an observer each; setting the trait from Python is using the widget.

Each has `static()`, its plain figure, and leaves its static twin where it is displayed. None imports the trainer: a
live run is handed in as an iterator of steps.
"""

from xmalign_lab.widgets.beside import linked
from xmalign_lab.widgets.dashboard import Dashboard
from xmalign_lab.widgets.explorer import SpaceExplorer
from xmalign_lab.widgets.journey import Journey
from xmalign_lab.widgets.live import LiveRun, replay
from xmalign_lab.widgets.naming import NamingSheet
from xmalign_lab.widgets.playground import RetrievalPlayground
from xmalign_lab.widgets.schedule import ScheduleEditor
from xmalign_lab.widgets.threshold import ThresholdPicker

__all__ = [
    "Dashboard", "Journey", "LiveRun", "NamingSheet", "RetrievalPlayground", "ScheduleEditor", "SpaceExplorer",
    "ThresholdPicker", "linked", "replay",
]  # fmt: skip
