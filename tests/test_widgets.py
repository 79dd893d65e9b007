import html
import json
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import traitlets
from test_plots import PIXEL, small_points
from test_train import SMALL, world

from xmalign_lab import dials, records, schedules
from xmalign_lab.corpus import Corpus, Pairs
from xmalign_lab.recipe import Stage
from xmalign_lab.train import save_state, train
from xmalign_lab.widgets import LiveRun, ScheduleEditor, SpaceExplorer, ThresholdPicker, live, replay
from xmalign_lab.widgets.schedule import FALL, handles
from xmalign_lab.widgets.twin import Bundle, Fitted

SCORES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
TRUTH = np.array([False, True, False, True, True])
SWAHILI = "eng_Latn-swh_Latn"


def same(shown, wanted):
    """What the browser is shown equals the pure figure."""
    assert len(shown.data) == len(wanted.data)
    for old, new in zip(shown.data, wanted.data, strict=True):
        assert old.name == new.name and old.type == new.type and old.visible == new.visible
        for axis in ("x", "y", "width"):
            a, b = (getattr(t, axis, None) for t in (old, new))
            assert (a is None) == (b is None)
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))  # NaN equals NaN
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


def scored(scores=SCORES, sources=SWAHILI):
    n = len(scores)
    rows = {"left": [f"e{k}" for k in range(n)], "right": [f"s{k}" for k in range(n)], "source": sources, "score": scores}
    return Pairs(pd.DataFrame(rows))


def test_every_figure_follows_the_width_of_its_cell():
    for widget in (ThresholdPicker(scored()), ScheduleEditor(), LiveRun(), SpaceExplorer(small_points(), {})):
        figure = getattr(widget, "_shown", None) or widget._plot
        assert figure._config["responsive"] and figure.layout.width is None
        assert isinstance(widget.box.children[-1], Fitted), "what tells the figure that the cell is there, or another width"


# --- the threshold


def test_threshold_follows_its_value():
    picker = ThresholdPicker(scored(), truth=TRUTH, value=0.4)
    assert picker.kept.tolist() == [False, False, True, True, True] and picker.counts["precision"] == pytest.approx(2 / 3)
    picker.value = 0.7
    assert picker.kept.sum() == 2 and picker.counts == {"kept": 2, "of": 5, "precision": 1.0, "recall": pytest.approx(2 / 3)}
    assert picker.pairs_kept.rows.left.tolist() == ["e3", "e4"]
    same(picker._shown, dials.threshold(SCORES, 0.7, TRUTH, [SWAHILI] * 5))
    same(picker.static(), picker.figure(0.7))
    picker.box.children[0].value = 0.2  # as a hand on the slider does
    assert picker.value == 0.2 and picker.kept.sum() == 4 and picker.words == ""
    same(picker._shown, picker.figure(0.2))
    assert ThresholdPicker(scored()).value == 0.5 and ThresholdPicker(scored(), value=0.0).value == 0.0


def test_threshold_says_in_words_which_source_is_left_without_a_pair():
    picker = ThresholdPicker(scored([0.1, 0.3, 0.5, 0.7, 0.9], ["image-eng_Latn"] * 2 + [SWAHILI] * 3), value=0.4)
    words = "picture–English is left without a pair: its highest score is 0.3."
    assert picker.words == words and words in picker._beside.value and words in bundle(picker)
    picker.value = 0.2
    assert picker.words == "" and "left without" not in picker._beside.value


def test_a_threshold_that_keeps_nothing_is_told_and_the_last_good_one_stays():
    picker = ThresholdPicker(scored(), truth=TRUTH, value=0.4)
    for bad in (5.0, 0.91, np.nan):
        with pytest.raises(traitlets.TraitError, match="keeps none of the 5 pairs: the highest score is 0.9"):
            picker.value = bad
        assert picker.value == 0.4 and picker.kept.sum() == 3 and "It stays at 0.4" in picker.said
        assert "keeps none of the 5 pairs" in picker._beside.value and picker._beside.value == picker.panel()
        same(picker._shown, picker.figure(0.4))
    picker.value = 0.9  # keeps one
    assert picker.said == "" and "keeps none" not in picker._beside.value and picker.kept.sum() == 1
    with pytest.raises(traitlets.TraitError, match="keeps none"):
        ThresholdPicker(scored(), value=1.0)
    unscored = ThresholdPicker(scored([0.1, np.nan]), value=1.0)  # one without a score stays
    assert unscored.kept.tolist() == [False, True]
    slider = picker.box.children[0]
    slider.value = slider.max
    assert picker.kept.any() and picker.said == "", "the slider's end keeps a pair"


def test_pairs_of_one_score_are_all_kept_or_refused():
    picker = ThresholdPicker(scored([0.5] * 5), truth=TRUTH)
    assert picker.value == 0.5 and picker.kept.all() and picker.counts["precision"] == pytest.approx(0.6)
    with pytest.raises(traitlets.TraitError, match="highest score is 0.5"):
        picker.value = 0.5001
    picker.value = 0.0
    assert picker.kept.all() and picker.box.children[0].value == picker.box.children[0].min


def let_go(shown, moved):
    """As a browser tells that a hand has let go of a shape or a note."""
    shown._js2py_relayout = {"relayout_data": moved, "source_view_id": "a view"}


def test_the_line_in_the_plot_can_be_dragged():
    picker = ThresholdPicker(scored(), truth=TRUTH, value=0.4)
    slider = picker.box.children[0]
    assert picker._shown._config["edits"]["shapePosition"]
    let_go(picker._shown, {"shapes[0].x0": 0.6, "shapes[0].x1": 0.6, "shapes[0].y0": -0.2, "shapes[0].y1": 0.8})
    assert picker.value == 0.6 and slider.value == 0.6 and picker.kept.sum() == 2 and "0.700" in picker._beside.value
    same(picker._shown, picker.figure(0.6))  # upright, and from the ground again
    for end in ("x0", "x1"):
        let_go(picker._shown, {f"shapes[0].{end}": 0.2})
        assert picker.value == 0.2
        picker.value = 0.6
    let_go(picker._shown, {"shapes[0].x0": 1.3, "shapes[0].x1": 1.3})
    assert picker.value == 0.6 and "of 1.3 keeps none of the 5 pairs" in picker._beside.value
    same(picker._shown, picker.figure(0.6))
    let_go(picker._shown, {"shapes[0].y0": 0.3, "shapes[0].y1": 1.3})
    same(picker._shown, picker.figure(0.6))
    let_go(picker._shown, {"shapes[0].x0": -7.0, "shapes[0].x1": -7.0})
    assert picker.value == slider.value == slider.min and picker.kept.all() and picker.said == ""
    same(picker._shown, picker.static())
    let_go(picker._shown, {"xaxis.range[0]": 0.3, "xaxis.range[1]": 0.8})  # a zoom is no drag
    assert picker.value == slider.min


def test_a_browser_that_puts_the_threshold_on_its_grid_does_not_move_it():
    picker = ThresholdPicker(scored(), value=0.5)
    slider = picker.box.children[0]
    slider.value = 0.5 + 0.4 * slider.step
    assert picker.value == 0.5
    slider.value = 0.5 + slider.step
    assert picker.value == 0.5 + slider.step


def test_pairs_without_a_score_stay_as_in_training():
    picker = ThresholdPicker(scored([0.1, np.nan, 0.5], [SWAHILI, "image-eng_Latn", SWAHILI]), value=0.3)
    assert picker.kept.tolist() == [False, True, True] and picker.counts == {"kept": 1, "of": 2} and picker.words == ""
    with pytest.raises(ValueError, match="none of the 2 pairs has a score"):
        ThresholdPicker(scored([np.nan, np.nan]))
    with pytest.raises(ValueError, match="1 of 2 scores are not finite"):
        ThresholdPicker(scored([0.1, np.inf]))
    with pytest.raises(ValueError, match=r"5 pairs, but truth has shape \(2,\)"):
        ThresholdPicker(scored(), truth=[True, False])


def test_threshold_shows_the_pairs_nearest_the_line_with_their_pictures():
    rows = [{"id": f"e{k}", "group": f"g{k}", "text": f"word {k} <i>", "lang": "eng_Latn"} for k in range(5)]
    rows += [{"id": f"s{k}", "group": f"g{k}", "text": f"neno {k}", "lang": "swh_Latn"} for k in range(5)]
    picker = ThresholdPicker(scored(), Corpus(pd.DataFrame(rows)), TRUTH, {"g1": PIXEL, "s2": PIXEL}, value=0.45)
    page = picker.panel(most=3)
    shown = [page.index(f'<td style="padding:4px 10px">{score}</td>') for score in ("0.500", "0.300")]
    assert shown == sorted(shown) and "0.900" not in page and "0.100" not in page
    assert "word 2 &lt;i&gt;" in page and "<i>" not in page and "neno 2" in page
    assert page.count(PIXEL) == 3  # both sides of group 1 and one row of group 2
    row = page[page.index("0.500") :]
    assert "kept" in row[:120] and "✗ wrong" in row and "2px dashed" in page and "✓ right" in page
    assert picker.panel() in picker.html() and picker.panel() in bundle(picker) and picker.panel() == picker._beside.value
    bare = ThresholdPicker(scored(), pictures={"e2": PIXEL}, value=0.45).panel(most=1)
    assert "s2" in bare and ">e2<" not in bare and PIXEL in bare


# --- the schedule


def test_schedule_editor_gives_the_schedule_of_its_family_and_sliders():
    editor = ScheduleEditor(schedule=schedules.Cosine(0.2, 0.05))
    assert editor.family == "cosine" and list(editor._rulers) == ["start", "end", "cycles"]
    assert [ruler.value for ruler in editor._rulers.values()] == pytest.approx([0.2, 0.05, 0.5])
    editor.edit(end=0.03)
    editor.progress = 0.25
    assert editor.schedule == schedules.Cosine(0.2, 0.03) and editor._rulers["end"].value == pytest.approx(0.03)
    same(editor._shown, editor.figure(schedules.Cosine(0.2, 0.03), 0.25))
    editor._rulers["start"].value = 0.1  # as a hand on the slider does
    assert editor.schedule == schedules.Cosine(0.1, 0.03)
    editor._rulers["start"].value = 0.1005  # as a browser does, which puts a value on the slider's grid
    assert editor.schedule == schedules.Cosine(0.1, 0.03)
    editor.family = "linear"
    assert editor.schedule == schedules.Linear(0.1, 0.02) and list(editor._rulers) == ["start", "end"]
    editor.box.children[0].value = "cosine"  # what was there is kept
    assert editor.schedule == schedules.Cosine(0.1, 0.03)
    editor.schedule = schedules.Constant(0.07)
    assert editor.family == "constant" and editor.box.children[0].value == "constant"
    same(editor._shown, editor.static())
    assert editor.numbers["tau"] == pytest.approx(0.07) and "τ .07, a right one gets" in editor._shown.layout.title.text
    bundle(editor)


def test_every_family_can_be_picked_and_goes_into_a_recipe():
    editor = ScheduleEditor()
    for family in ("constant", "linear", "cosine", "piecewise", "model-aware", "adaptive", "per-pair", "individual"):
        editor.family = family
        assert replace(SMALL, temperature=editor.schedule).temperature == editor.schedule and len(editor._rulers) > 0
        assert set(editor.numbers) == {"tau", "right", "carrying", "of"} and editor.numbers["of"] == 11
        same(editor._shown, editor.static())


def test_control_points_are_dragged_one_by_one():
    editor = ScheduleEditor(schedule=schedules.Piecewise(((0, 0.2), (0.5, 0.1), (1, 0.05))))
    editor._rulers["at 0.5"].value = 0.3
    assert editor.schedule.points == ((0, 0.2), (0.5, pytest.approx(0.3)), (1, 0.05))
    editor.schedule = schedules.Piecewise(((0, 0.2), (1, 0.05)))
    assert list(editor._rulers) == ["at 0", "at 1"] and len(editor._sliders.children) == 2
    editor = ScheduleEditor()
    editor.family = "piecewise"
    assert len(editor._sliders.children) == 6 and {slider.orientation for slider in editor._sliders.children} == {"vertical"}


def test_control_points_are_dragged_in_the_plot():
    editor = ScheduleEditor(schedule=schedules.Piecewise(((0, 0.2), (0.5, 0.1), (1, 0.05))))
    places = lambda: [(note.x, note.y) for note in editor._shown.layout.annotations]  # noqa: E731
    drag = lambda i, x, y: let_go(editor._shown, {f"annotations[{i}].x": x, f"annotations[{i}].y": y})  # noqa: E731
    assert editor._shown._config["edits"]["annotationPosition"] and places() == list(editor.schedule.points)
    drag(1, 0.6172, 0.123456)
    assert editor.schedule.points == ((0, 0.2), (0.62, 0.123), (1, 0.05)) and places() == list(editor.schedule.points)
    assert list(editor._rulers) == ["at 0", "at 0.62", "at 1"] and editor._rulers["at 0.62"].value == 0.123
    same(editor._shown, editor.static())
    drag(0, -0.07, 0.3)  # a hand that leaves the run
    assert editor.schedule.points[0] == (0, 0.3)
    good = editor.schedule
    for i, x, y, message in ((1, 1.0, 0.1, "progress rising"), (2, 1.0, -0.01, "above 0"), (0, 0.7, 0.3, "progress rising")):
        drag(i, x, y)
        assert editor.schedule == good and places() == list(good.points), "it goes back"
        assert message in editor.said and "Kept: Piecewise(" in editor.box.children[3].value
        same(editor._shown, editor.static())
    drag(1, 0.6201, 0.12304)  # next to nothing
    assert editor.schedule == good and places() == list(good.points)
    editor._rulers["at 1"].value = 0.1  # the slider takes the handle along
    assert places()[-1] == (1, pytest.approx(0.1)) and editor.said == ""


def test_the_ends_of_a_line_and_of_a_swing_are_dragged_up_and_down():
    editor = ScheduleEditor(schedule=schedules.Cosine(0.2, 0.05, 1.0))
    assert list(handles(editor.schedule).values()) == [(0, 0.2), (0.5, 0.05)]
    let_go(editor._shown, {"annotations[1].x": 0.8, "annotations[1].y": 0.04})
    assert editor.schedule == schedules.Cosine(0.2, 0.04, 1.0) and editor._rulers["end"].value == 0.04
    assert [(note.x, note.y) for note in editor._shown.layout.annotations] == [(0, 0.2), (0.5, 0.04)]
    for family, places in {"linear": [(0, 0.1), (1, 0.02)], "constant": [(0.5, 0.1)], "piecewise": list(FALL)}.items():
        editor.family = family
        assert list(handles(editor.schedule).values()) == places
        for at, value in places:
            assert editor.schedule(at)[0] == pytest.approx(value), "a handle lies on its curve"
    assert len(handles(schedules.Cosine(0.2, 0.05, 0.25))) == 1, "a swing that does not come to its end"
    editor.family = "constant"
    let_go(editor._shown, {"annotations[0].x": 0.1, "annotations[0].y": -3.0})
    assert editor.schedule == schedules.Constant(0.1) and "above 0" in editor.said


def test_handles_go_where_there_are_none():
    editor = ScheduleEditor()
    sent = messages(editor._shown)
    editor.family = "adaptive"
    assert len(editor._shown.layout.annotations) == 0
    told = [content["relayout_data"] for kind, content in sent if kind == "relayout"]
    assert any(data.get("annotations") == [] for data in told), "a layout that only lacks them would leave them in the page"


def test_equal_similarities_have_a_preview_in_every_family():
    editor = ScheduleEditor(np.full((4, 4), 0.3), np.eye(4, dtype=bool))
    for family in editor.traits()["family"].values:
        editor.family = family
        assert editor.numbers["right"] == pytest.approx(0.25) and editor.numbers["carrying"] == editor.numbers["of"] == 3
        same(editor._shown, editor.static())


def test_a_preview_is_one_message():
    editor = ScheduleEditor()
    sent = messages(editor._shown)
    editor._rulers["start"].value = 0.15
    assert [kind for kind, _ in sent] == ["update"]


def test_an_edit_out_of_range_is_told_and_the_last_good_schedule_stays():
    good = schedules.ModelAware(0.1, 0.5)
    editor = ScheduleEditor(schedule=good)
    for bad, message in (
        (schedules.Constant(-0.1), "a temperature must stay finite and above 0"),
        (schedules.Ramp(), "no temperature schedule; families are constant"),
        (0.3, "no temperature schedule"),
    ):
        with pytest.raises(traitlets.TraitError, match=message):
            editor.schedule = bad
        assert editor.schedule == good and message in editor.said and "Kept: ModelAware(" in editor.said
    for changes in ({"alpha": 3.0}, {"speed": 1.0}):
        with pytest.raises(ValueError):
            editor.edit(**changes)
    editor._rulers["alpha"].value = 1.5  # by hand: told, not raised
    assert editor.schedule == good and "must stay above 0" in editor.said and "must stay above 0" in editor.box.children[3].value
    assert editor._rulers["alpha"].value == good.alpha  # it goes back
    editor.edit(alpha=0.2)
    assert editor.said == "" and editor.box.children[3].value == "<b></b>"
    same(editor._shown, editor.static())
    with pytest.raises(traitlets.TraitError, match="progress"):
        editor.progress = 1.5
    with pytest.raises(traitlets.TraitError, match="family"):
        editor.family = "wobbly"
    with pytest.raises(ValueError, match="in a batch of one nothing competes"):
        ScheduleEditor([0.5])


# --- the run


def test_a_live_run_drains_and_returns_its_result():
    run = LiveRun()
    assert run.state == "idle" and bundle(run) and run.table().empty
    assert run.run(run_of(20)).wait() == "the final state"
    assert run.state == "done" and run.last.step == 20 and all(button.disabled for button in run._buttons.values())
    table = run.table()
    assert list(table.columns) == ["step", "progress", "tau", "total", "a/b"] and len(table) == 20
    assert np.allclose(table.total, 1 / np.arange(1, 21))
    same(run._shown, dials.training(table))
    same(run.static("loss"), dials.training(table, views=["loss"]))
    assert run._bar.value == 1


def test_a_live_run_pauses_steps_and_goes_on():
    run = LiveRun().run(run_of(9), paused=True)
    assert run.wait() is None and run.state == "paused" and len(run.table()) == 0
    assert run.step(3).wait() is None and run.state == "paused" and run.table().step.tolist() == [1, 2, 3]
    same(run._shown, run.static())
    assert not run._buttons["continue"].disabled and run._buttons["pause"].disabled
    run._buttons["step"].click()
    run.wait()
    assert len(run.table()) == 4
    assert run.resume().wait() == "the final state" and run.state == "done" and len(run.table()) == 9
    with pytest.raises(RuntimeError, match="no run is going"):
        run.step()


def test_pausing_a_run_in_its_stride():
    gate = threading.Semaphore(5)

    def slow():
        for step in run_of(50):
            gate.acquire(timeout=10)
            yield step

    run = LiveRun().run(slow())
    run.pause()
    gate.release(50)
    run.wait()
    assert run.state == "paused" and len(run.table()) <= 6
    run._buttons["continue"].click()
    run.wait()
    assert run.table().step.tolist() == list(range(1, 51))


def test_a_live_run_stops_and_goes_on():
    gate = threading.Event()
    steps = run_of(50, gate)
    run = LiveRun().run(steps)
    with pytest.raises(RuntimeError, match="still going"):
        run.run(steps)
    run._buttons["stop"].click()
    gate.set()
    assert run.wait() is None and run.state == "stopped"
    assert len(run.table()) < 50
    assert run.run(steps).wait() == "the final state" and run.table().step.tolist() == list(range(1, 51))


def test_a_live_run_raises_what_the_run_raised(capfd):
    run = LiveRun().run(run_of(5, fail_at=3))
    with pytest.raises(ZeroDivisionError, match="the run broke"):
        run.wait()
    assert run.state == "failed" and "the run broke" in run._said.value and len(run.table()) == 3
    assert "Exception in thread" not in capfd.readouterr().err
    run.run(iter([])).wait()
    assert run.state == "done"


def test_a_live_run_draws_seldom(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(LiveRun, "draw", lambda self: drawn.append(clock[0]) or setattr(self, "_drawn", clock[0]))
    run = LiveRun()
    for step in run_of(100):
        clock[0] += 0.05
        run.update(step)
    assert len(run.table()) == 100 and 10 <= len(drawn) <= 20 and np.diff(drawn).min() >= live.PAUSE - 1e-9


def test_a_live_run_draws_at_most_four_times_a_second(monkeypatch):
    times, redraw = [], live.redraw
    monkeypatch.setattr(live, "redraw", lambda *figures: times.append(live.time.monotonic()) or redraw(*figures))
    LiveRun().run(run_of(300)).wait()
    assert len(times) >= 2 and (np.diff(times)[:-1] >= 0.25).all()  # the end is drawn at once


def messages(figure):
    """What a figure sends to its browser from now on: (kind, content)."""
    sent = []
    for name in (name for name in figure.trait_names() if name.startswith("_py2js_")):
        figure.observe(lambda change: change.new and sent.append((change.name.removeprefix("_py2js_"), change.new)), name)
    return sent


def test_a_redraw_is_one_message_until_something_appears():
    run, steps = LiveRun(measure=lambda step: {"validation R@1": 0.5}), run_of(20)
    run.update(next(steps))
    run.draw()
    sent = messages(run._shown)
    for _ in range(3):
        run.draw()
    assert sent == []  # nothing is new
    run._rows[0]["stage"] = ""
    run._rows.append({"step": 2, "progress": 0.1, "stage": "", "tau": 0.04, "total": 0.5, "a/b": 1.0})
    run.draw()
    assert [kind for kind, _ in sent] == ["update"] and len(sent[0][1]["style_traces"]) == len(run._shown.data)
    same(run._shown, run.static())
    panels = lambda: sum(name.startswith("yaxis") for name in run._shown.layout.to_plotly_json())  # noqa: E731
    assert panels() == 2
    for more in ({"c/d": 1.0}, {"weight/d": 0.5}, {"validation R@1": 0.5}, {"stage": "refine"}):
        run._rows.append(run._rows[-1] | more)
        run.draw()
        same(run._shown, run.static())
        assert run._shown.layout.height == run.static().layout.height and run._shown.layout.autosize
    assert panels() == 4 and len(run._shown.layout.shapes) == 1 and "refine" in run._shown.layout.annotations[0].text
    run.edits.append({"step": 2, "field": "threshold"})
    run.draw()
    assert len(run._shown.layout.shapes) == 2
    run._rows, run.edits = run._rows[:2], []  # and they go again
    run.draw()
    same(run._shown, run.static())
    assert panels() == 2 and len(run._shown.layout.shapes) == 0


def test_a_measure_is_taken_ten_times_a_run_and_drawn():
    asked = []
    run = LiveRun(measure=lambda step: asked.append(step.step) or {"validation R@1": step.progress / 2})
    run.run(run_of(37)).wait()
    assert len(asked) == 10 and asked[0] == 4 and asked[-1] == 37
    table = run.table()
    assert table.step[table["validation R@1"].notna()].tolist() == asked and table["validation R@1"].iloc[-1] == 0.5
    curve = next(trace for trace in run._shown.data if trace.name == "validation R@1")
    assert np.isfinite(np.array(curve.y, float)).sum() == 10 and curve.connectgaps
    run = LiveRun(measure=lambda step: {"validation R@1": 1.0})
    run.run(run_of(4)).wait()
    assert run.table()["validation R@1"].eq(1).all()  # a short run: after every step
    run = LiveRun(measure=lambda step: 1 / 0)
    steps = run_of(20)
    with pytest.raises(ZeroDivisionError):
        run.run(steps).wait()
    run.measure = None
    assert run.state == "failed" and "ZeroDivisionError" in run._said.value
    assert run.last.step == 2 and run.run(steps).wait() == "the final state"


def test_a_live_run_takes_bare_steps_and_tells_that_they_take_no_edit():
    run = LiveRun()
    for progress in (0.5, 1.0):
        run.update(SimpleNamespace(progress=progress, terms={"total": 1.0}, tau=0.1))
    run.draw()
    assert run.table().step.tolist() == [1, 2] and run._shown.data[0].name == "total"
    run.edit("temperature", 1).run(iter([run.last])).wait()
    assert run.edits == [] and "takes no edits" in run.refused and "takes no edits" in run._said.value


@pytest.mark.parametrize("end", [lambda run: run.close(), lambda run: run.box.close()])
def test_closing_the_widget_ends_the_run(end):
    run = LiveRun().run(endless())
    end(run)
    run._thread.join(10)
    assert not run._thread.is_alive() and run.state == "stopped"


def endless():
    while True:
        yield SimpleNamespace(progress=0.0, terms={"total": 1.0}, tau=0.1)


def test_a_kernel_that_ends_takes_its_run_along():
    code = """
import atexit
from itertools import repeat
from types import SimpleNamespace
from xmalign_lab.widgets import LiveRun
run = LiveRun()
atexit.register(lambda: print(run.state, run._thread.is_alive()))  # called after what `run` registers
run.run(repeat(SimpleNamespace(progress=0.0, terms={"total": 1.0}, tau=0.1)))
"""
    ended = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "stopped False\n")


# --- a run of the real trainer, edited


STAGED = (Stage("initialise", 0.5), Stage("refine", 1.0, {"hardness": 1.0}))
EDITED = replace(SMALL, terms={"info_nce": 1.0, "structure": schedules.Fading(0.5, 0.8)}, epochs=6, stages=STAGED)


def edited_run():
    features, pairs = world()
    pairs = pairs.assign(score=np.tile(np.linspace(0, 1, len(pairs) // 2), 2))
    return LiveRun(EDITED, pairs, lambda step: {"validation R@1": step.step / 100}), lambda: train(EDITED, features, pairs)


def test_a_run_edited_live_is_made_again_from_its_edits_bit_for_bit():
    run, steps = edited_run()
    assert list(run._sliders) == ["temperature", "threshold", "structure"] and run._sliders["structure"].value == 0.5
    run.run(steps(), paused=True).edit("temperature", schedules.Constant(0.5)).step(3).wait()
    assert run.edits == [{"step": 1, "field": "temperature", "value": {"kind": "constant", "value": 0.5}}]
    run._sliders["structure"].value = 0.25  # as hands on the sliders do
    run._sliders["threshold"].value = 0.5
    run.wait()
    run.step(2).wait()
    run._sliders["temperature"].value = 2
    state = run.resume().wait()
    assert [(edit["step"], edit["field"]) for edit in run.edits[1:]] == [(3, "terms"), (3, "threshold"), (5, "temperature")]
    assert run.edits[1]["value"] == {"info_nce": 1.0, "structure": 0.25} and run.edits[2]["value"] == 0.5
    assert schedules.from_dict(run.edits[3]["value"]) == schedules.Cosine(0.6, 0.2)
    table, kept = run.table(), json.loads(json.dumps(run.edits))
    assert table.tau[1] == 0.5 and table["weight/structure"][3:].eq(0.25).all() and run.state == "done"
    again = list(replay(steps(), kept))
    pd.testing.assert_frame_equal(pd.DataFrame([s.row() for s in again]), table.drop(columns="validation R@1"), check_exact=True)
    ours, theirs = state.aligner.state_dict(), again[-1].state.aligner.state_dict()
    assert all((ours[name] == theirs[name]).all() for name in ours) and again[-1].state.edits == state.edits
    assert pd.DataFrame([s.row() for s in steps()]).total.iloc[-1] != table.total.iloc[-1]  # the edits mattered
    notes = [note.text for note in run.static().layout.annotations]
    assert notes == ["initialise", "refine", "temperature", "terms", "threshold", "temperature"]
    assert table["validation R@1"].notna().sum() == min(10, len(table)) and "validation R@1" in {
        t.name for t in run.static().data
    }


def test_a_run_is_made_again_from_its_record(tmp_path):
    run, steps = edited_run()
    state = run.run(steps(), paused=True).edit("temperature", schedules.Constant(0.5)).edit("threshold", 0.5).step(2).wait()
    state = run.edit("terms", {"info_nce": 1.0, "structure": 0.1}).resume().wait()

    def keep(folder):  # as `study.run_fold` does
        save_state(state, run.table().to_dict("records"), folder)
        run.table().to_parquet(folder / "steps.parquet")
        edits = json.loads((folder / "state.json").read_text())["edits"]
        (folder / "edits.jsonl").write_text("".join(json.dumps(edit) + "\n" for edit in edits))

    record = records.get_or_run(EDITED, keep, ["a test"], tmp_path)
    assert record.edits == run.edits and len(record.edits) == 3
    again = pd.DataFrame([step.row() for step in replay(steps(), record.edits)])
    pd.testing.assert_frame_equal(again, record.steps[again.columns], check_exact=True)
    assert record.steps["validation R@1"].notna().any()


def test_the_sliders_of_a_run_show_what_holds():
    run, steps = edited_run()
    run.run(steps(), paused=True).step().wait()
    run._sliders["threshold"].value = 1.0  # by hand: its neighbour has no such score
    run.wait()
    assert run.edits == [{"step": 1, "field": "threshold", "value": 1.0}] and run.refused == ""
    run.pairs = None
    run.edit("threshold", 1.5).wait()
    assert "keeps no pair of" in run.refused and run._sliders["threshold"].value == 1.0
    run.edit("terms", {"info_nce": 1.0, "structure": 0.3}).edit("threshold", 0.25).wait()
    assert [run._sliders[name].value for name in ("structure", "threshold", "temperature")] == [0.3, 0.25, 1.0]
    assert run.refused == "" and len(run.edits) == 3, "the sliders that follow ask for nothing"
    run.close()


def test_a_slider_goes_back_from_what_leaves_a_language_without_a_pair():
    features, pairs = world()
    of_pictures = pairs.rows.source == pairs.sources[0]
    pairs = pairs.assign(score=np.where(of_pictures, 0.5, 0.9))
    run = LiveRun(EDITED, pairs).run(train(EDITED, features, pairs), paused=True)
    run.step().wait()
    run._sliders["threshold"].value = 0.8
    run.wait()
    told = f"keeps no pair of {pairs.sources[0]!r}, whose highest score is 0.5"
    assert told in run.refused and html.escape(told) in run._said.value
    assert run._sliders["threshold"].value == 0 and run.edits == [] and run.state == "paused"
    assert run.resume().wait().step == run.last.steps and run.state == "done"


def test_an_edit_that_cannot_be_is_told_and_changes_nothing():
    run, steps = edited_run()
    run.run(steps(), paused=True).step().wait()
    for field, value, message in (
        ("epochs", 3, "'epochs' cannot be edited"),
        ("threshold", 2.0, "keeps no pair of"),
        ("temperature", schedules.Constant(-1), "above 0"),
        ("temperature", 0.3, "temperature was not changed to 0.3"),
        ("terms", {"infonce": 1.0}, "unknown term"),
    ):
        run.edit(field, value).wait()
        assert message in run.refused and run.state == "paused" and run.edits == []
    assert "unknown term" in run._said.value
    run.resume().wait()
    untouched = pd.DataFrame([s.row() for s in steps()])
    pd.testing.assert_frame_equal(run.table().drop(columns="validation R@1"), untouched, check_exact=True)


def test_a_replay_says_what_it_cannot_send():
    steps = edited_run()[1]
    edit = {"step": 2, "field": "threshold", "value": 2.0}
    with pytest.raises(ValueError, match="'threshold' at step 2 was refused"):
        list(replay(steps(), [edit]))
    with pytest.raises(ValueError, match="'threshold' at step 99 was never reached"):
        list(replay(steps(), [edit | {"step": 99, "value": 0.1}]))


# --- what all of them share


def test_a_page_that_opens_later_gets_the_figure_as_it_is_now():
    editor = ScheduleEditor()
    state = editor._shown.get_state()
    assert len(state["_widget_data"]) == len(editor._shown.data)
    editor.family = "piecewise"
    later = editor._shown.get_state()
    before, after = (len(found["_widget_layout"]["annotations"]) for found in (state, later))
    assert after == len(handles(editor.schedule)) != before
    assert len(later["_widget_data"]) == len(editor._shown.data)


def test_plotly_is_sent_once_for_all_figures():
    first, second = LiveRun()._shown, ScheduleEditor()._shown
    assert Bundle.sent() is Bundle.sent() and len(Bundle.sent().code) > 1e6
    assert max(len(str(figure._esm)) for figure in (first, second)) < 1e4
