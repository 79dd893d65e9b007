import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import traitlets
from test_plots import PIXEL, small_points

from xmalign_lab import plots, schedules
from xmalign_lab.widgets import LiveCurves, ScheduleSlider, SpaceExplorer, ThresholdSlider, live

SCORES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
TRUTH = np.array([False, True, False, True, True])


def same(shown, wanted):
    """What the browser is shown equals the pure figure."""
    assert len(shown.data) == len(wanted.data)
    for old, new in zip(shown.data, wanted.data, strict=True):
        assert old.name == new.name and old.type == new.type and old.visible == new.visible
        for axis in ("x", "y", "width"):
            a, b = (getattr(t, axis, None) for t in (old, new))
            assert (a is None) == (b is None) and (a is None or np.array_equal(np.array(a, object), np.array(b, object)))
    assert shown.layout.title == wanted.layout.title and shown.layout.shapes == wanted.layout.shapes


def bundle(widget):
    """As a notebook would show it: live, and a static twin with no outside address to load from."""
    shown = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown and "<script src=" not in shown["text/html"]
    return shown["text/html"]


def run_of(n, until=None, fail_at=None):
    for i in range(n):
        if until:
            until.wait(10)
        if i == fail_at:
            raise ZeroDivisionError("the run broke")
        yield SimpleNamespace(
            step=i + 1, epoch=(i + 1) / 2, progress=(i + 1) / n, tau=0.05, terms={"total": 1 / (i + 1), "a/b": 2.0}
        )
    return "the final state"


def test_threshold_follows_its_value():
    slider = ThresholdSlider(SCORES, TRUTH, value=0.4)
    assert slider.kept.tolist() == [False, False, True, True, True] and slider.counts["precision"] == pytest.approx(2 / 3)
    slider.value = 0.7
    assert slider.kept.sum() == 2 and slider.counts == {"kept": 2, "of": 5, "precision": 1.0, "recall": pytest.approx(2 / 3)}
    same(slider._shown, plots.threshold(SCORES, 0.7, TRUTH))
    same(slider.static(), slider.figure(0.7))
    slider.box.children[0].value = 0.2  # as a hand on the slider does
    assert slider.value == 0.2 and slider.kept.sum() == 4
    same(slider._shown, slider.figure(0.2))
    slider.value = 5.0
    assert slider.value == 5.0 and not slider.kept.any()
    bundle(slider)


def test_threshold_starts_at_the_median_and_refuses_missing_scores():
    assert ThresholdSlider(SCORES).value == 0.5 and ThresholdSlider(SCORES, value=0.0).value == 0.0
    assert ThresholdSlider([]).kept.shape == (0,)
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        ThresholdSlider([0.1, np.nan])


def test_schedule_slider_gives_the_schedule_of_its_traits():
    slider = ScheduleSlider(start=0.2, end=0.05)
    assert slider.schedule == schedules.Cosine(0.2, 0.05, 0.5)
    slider.cycles, slider.progress = 2.0, 0.25
    assert slider.schedule == schedules.Cosine(0.2, 0.05, 2.0)
    same(slider._shown, slider.figure(schedules.Cosine(0.2, 0.05, 2.0), 0.25))
    slider.shape = "linear"
    assert slider.schedule == schedules.Linear(0.2, 0.05) and slider._rulers["cycles"].disabled
    slider.shape = "constant"
    assert slider.schedule == schedules.Constant(0.2) and slider._rulers["end"].disabled
    same(slider._shown, slider.static())
    assert np.allclose(slider._shown.data[2].y, plots.softmax(slider.similarities, 0.2)[0])
    assert "τ .2, softmax spread over" in slider._shown.layout.title.text
    slider._rulers["start"].value = 0.01
    assert slider.start == pytest.approx(0.01) and slider.schedule == schedules.Constant(slider.start)
    bundle(slider)


@pytest.mark.parametrize("trait, value", [("start", 0.0), ("end", -1.0), ("progress", 1.5), ("shape", "wobbly")])
def test_schedule_slider_refuses_what_is_no_temperature(trait, value):
    slider = ScheduleSlider()
    with pytest.raises(traitlets.TraitError, match=trait):
        setattr(slider, trait, value)


def test_live_curves_drain_a_run_and_return_its_result():
    curves = LiveCurves(20)
    assert curves.state == "idle" and bundle(curves)
    assert curves.run(run_of(20)).wait() == "the final state"
    assert curves.state == "done" and curves.last.step == 20 and curves._button.disabled
    table = curves.table()
    assert list(table.columns) == ["step", "progress", "tau", "epoch", "total", "a/b"] and len(table) == 20
    assert np.allclose(table.total, 1 / np.arange(1, 21))
    same(curves._shown, plots.training(table))
    assert curves._bar.value == 20


def test_live_curves_stop_and_go_on():
    gate, run = threading.Event(), None
    run = run_of(50, gate)
    curves = LiveCurves(50).run(run)
    with pytest.raises(RuntimeError, match="still going"):
        curves.run(run)
    curves._button.click()
    gate.set()
    assert curves.wait() is None and curves.state == "stopped"
    seen = len(curves.table())
    assert seen < 50
    assert curves.run(run).wait() == "the final state" and curves.table().step.tolist() == list(range(1, 51))


def test_live_curves_raise_what_the_run_raised(capfd):
    curves = LiveCurves(5).run(run_of(5, fail_at=3))
    with pytest.raises(ZeroDivisionError, match="the run broke"):
        curves.wait()
    assert curves.state == "failed" and "the run broke" in curves._said.value and len(curves.table()) == 3
    assert "Exception in thread" not in capfd.readouterr().err
    curves.run(iter([])).wait()
    assert curves.state == "done"


def test_live_curves_draw_seldom(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(LiveCurves, "draw", lambda self: drawn.append(clock[0]) or setattr(self, "_drawn", clock[0]))
    curves = LiveCurves(100)
    for step in run_of(100):
        clock[0] += 0.05
        curves.update(step)
    assert len(curves.table()) == 100 and 10 <= len(drawn) <= 15 and np.diff(drawn).min() >= live.PAUSE


def test_live_curves_take_bare_steps():
    curves = LiveCurves(2)
    for progress in (0.5, 1.0):
        curves.update(SimpleNamespace(progress=progress, terms={"total": 1.0}, tau=0.1))
    curves.draw()
    assert curves.table().step.tolist() == [1, 2] and curves._shown.data[0].name == "total"


def test_explorer_follows_selection_and_languages():
    points = small_points()
    explorer = SpaceExplorer(points, {"g1": PIXEL, "g3": PIXEL}, header={"R@1": 0.3})
    assert explorer.selected == "g1" and PIXEL in explorer._panel.value and "nyota" in explorer._panel.value
    explorer.selected = "g3"
    assert "mwezi" in explorer._panel.value and "nyota" not in explorer._panel.value
    same(explorer._plot, explorer.figure("g3", explorer.languages))
    assert list(explorer._plot.data[-1].x) == [3.0, 3.5, None] * 3
    explorer.shown = ("swh_Latn",)
    assert [box.value for box in explorer._boxes.values()] == [False, False, True]
    assert {t.name for t in explorer._plot.data if t.visible is True} >= {"Swahili", "picture"}
    assert {t.name for t in explorer._plot.data if t.visible is False} == {"English", "Sinhala"}
    assert (
        list(explorer._plot.data[-1].x) == [3.0, 3.5, None]
        and "Swahili" in explorer._panel.value
        and "English" not in explorer._panel.value
    )
    explorer._boxes["eng_Latn"].value = True
    assert explorer.shown == ("eng_Latn", "swh_Latn")
    same(explorer._plot, explorer.static())
    assert PIXEL in bundle(explorer)


def test_explorer_hover_shows_and_click_holds():
    explorer = SpaceExplorer(small_points(), {})
    trace = explorer._plot.data[0]
    at = lambda i: SimpleNamespace(point_inds=[i])  # noqa: E731
    explorer._hovered(trace, at(2), None)
    assert explorer.selected == "g2"
    explorer._clicked(trace, at(1), None)
    explorer._hovered(trace, at(3), None)
    assert explorer.held and explorer.selected == "g1"
    explorer._clicked(trace, at(1), None)
    explorer._hovered(trace, at(3), None)
    assert not explorer.held and explorer.selected == "g3"
    explorer._hovered(trace, SimpleNamespace(point_inds=[]), None)
    assert explorer.selected == "g3"


def test_explorer_refuses_what_is_not_there():
    explorer = SpaceExplorer(small_points(), {})
    with pytest.raises(traitlets.TraitError, match="no point has the group 'g9'"):
        explorer.selected = "g9"
    with pytest.raises(traitlets.TraitError, match="no text is in 'deu_Latn'"):
        explorer.shown = ("deu_Latn",)
    with pytest.raises(traitlets.TraitError):
        SpaceExplorer(small_points(), {}, selected="g9")


def test_explorer_panel_holds_no_tag_of_a_caption():
    points = small_points(1, texts=["<script>alert(1)</script>"])
    explorer = SpaceExplorer(points, {})
    assert "<script" not in explorer._panel.value and "&lt;script&gt;" in explorer._panel.value
    assert isinstance(explorer.points, pd.DataFrame)
