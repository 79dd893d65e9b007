"""Widgets: a pure `figure(value)`, a trait and an observer each; setting the trait from Python is using the widget.

Each has `static()`, its plain figure, and leaves its static twin where it is displayed. None imports the trainer: a
live run is handed in as an iterator of steps.
"""

from xmalign_lab.widgets.explorer import SpaceExplorer
from xmalign_lab.widgets.live import LiveRun, replay
from xmalign_lab.widgets.schedule import ScheduleEditor
from xmalign_lab.widgets.threshold import ThresholdPicker

__all__ = ["LiveRun", "ScheduleEditor", "SpaceExplorer", "ThresholdPicker", "replay"]
