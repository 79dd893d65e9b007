"""Widgets: a pure `figure(value)`, a trait and an observer each; setting the trait from Python is using the widget.

Each has `static()`, its plain figure, and leaves its static twin where it is displayed. None imports the trainer: a
live run is handed in as an iterator of steps.
"""

from xmalign_lab.widgets.explorer import SpaceExplorer
from xmalign_lab.widgets.live import LiveCurves
from xmalign_lab.widgets.schedule import ScheduleSlider
from xmalign_lab.widgets.threshold import ThresholdSlider

__all__ = ["LiveCurves", "ScheduleSlider", "SpaceExplorer", "ThresholdSlider"]
