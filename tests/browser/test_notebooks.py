"""Each interactive notebook as a reader has it: opened in JupyterLab, run, then used by hand, in Python *and* on the page."""

import re

import nbformat
import pytest
from hands import alone, centre, corner, drag, place, press, slider, tool
from lab import ROOT

SAVED = 1_000_000  # bytes that a notebook with all its views may have when it is saved
VIEW = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
SLOWLY = """import time
def slowly(steps, pause=0.05):
    "The steps of a run with a pause before each, so that a hand can follow; edits are handed through."
    while True:
        try:
            sent = yield next(steps)
        except StopIteration as end:
            return end.value
        while sent is not None:
            sent = yield steps.send(sent)
        time.sleep(pause)
"""


def code_of(path):
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


INTERACTIVE = [
    path.stem[:2]
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if re.search(r"\b(ip|any)?widgets\b|FigureWidget", code_of(path))
]
USED = {"03", "04", "05", "07", "11", "12", "14"}  # by a test of their own below


def kept_small(lab):
    """Saved as it stands, the notebook has its static twins, no widget state, and is small."""
    saved = nbformat.read(lab.save(), as_version=4)
    assert "widgets" not in saved.metadata
    shown = [out.data for cell in saved.cells for out in cell.get("outputs", []) if "data" in out]
    views = [data for data in shown if VIEW in data and "%|" not in data.get("text/plain", "")]  # a progress bar has no twin
    assert all("text/html" in data for data in views)
    ours = lab.path.stat().st_size - sum(len(data["image/png"]) for data in shown if "image/png" in data and PLOTLY in data)
    assert ours <= SAVED, f"{lab.name}: {ours:,} bytes saved, besides the PNG copies that JupyterLab makes of plotly's figures"


def test_every_other_interactive_notebook_runs_without_a_complaint(opened):
    for number in sorted(set(INTERACTIVE) - USED):
        kept_small(opened(number).run())


def test_03_the_threshold_is_dragged(opened, picture, budget):
    lab = opened("03").run()
    view = lab.output("ThresholdPicker(noisy")
    plot, table = view.locator(".js-plotly-plot").first, view.locator(".widget-html table")
    picture(view, "03 threshold")
    before, nearest = lab.value("picker.value"), table.inner_text()
    press(slider(view, "threshold"), "ArrowRight", 20)
    lab.still()
    value = lab.value("picker.value")
    assert value > before and table.inner_text() != nearest
    assert plot.evaluate("plot => plot.layout.shapes[0].x0") == pytest.approx(value)
    assert f"{value:.3f}" == view.locator(".widget-readout").first.inner_text()
    # the line itself, to where a fifth of the width is left of it
    low, high = plot.evaluate("plot => plot._fullLayout.xaxis.range")
    goal, line = low + 0.2 * (high - low), plot.locator(".shapelayer path").first
    drag(lab.page, centre(line), (place(plot, goal, 0)[0], centre(line)[1]))
    lab.wait(f"abs(picker.value - {goal}) < {0.02 * (high - low)}")
    lab.still()
    kept = lab.value("int(picker.kept.sum())")
    assert f"{kept:,}" in plot.inner_text() and kept > 0
    assert plot.evaluate("plot => plot.layout.shapes[0].x0") == pytest.approx(lab.value("picker.value"))
    picture(view, "03 threshold, dragged")
    kept_small(lab)


def test_04_a_schedule_is_edited(opened, picture):
    lab = opened("04").run()
    view = lab.output("slider = ScheduleEditor")
    plot = view.locator(".js-plotly-plot").first
    start = lab.value("slider.schedule.start")
    press(slider(view, "start"), "ArrowRight", 4)
    lab.still()
    assert lab.value("slider.schedule.start") == pytest.approx(start * 10**0.04, rel=0.02)
    assert plot.evaluate("plot => plot.data[0].y[0]") == pytest.approx(lab.value("slider.schedule.start"))
    press(slider(view, "progress"), "End")
    lab.still()
    assert lab.value("slider.progress") == 1 and "at progress 1" in plot.inner_text()
    # the handle of the end, up
    handle = plot.locator(".annotation").nth(1)
    x, y = centre(handle)
    drag(lab.page, (x, y), (x, y - 40))
    lab.still()
    end = lab.value("slider.schedule.end")
    assert end > 0.06 and plot.evaluate("plot => plot.data[0].y.at(-1)") == pytest.approx(end, rel=0.01)
    # and below the ground: told, and taken back
    drag(lab.page, centre(handle), (x, place(plot, 1, 0)[1] + 40))
    lab.still()
    assert lab.value("slider.schedule.end") == end and lab.value("slider.said")
    assert view.get_by_text("Kept:").is_visible()
    assert centre(handle)[1] == pytest.approx(place(plot, 1, end)[1], abs=3)
    picture(view, "04 schedule, refused")
    view.locator("select").select_option("piecewise")
    lab.still()
    assert lab.value("type(slider.schedule).__name__") == "Piecewise"
    sliders, handles = view.locator("[role=slider][aria-label^='at ']"), plot.locator(".annotation")
    assert sliders.count() == handles.count() == len(lab.value("slider.schedule.points"))
    picture(view, "04 schedule, piecewise")
    kept_small(lab)


def test_05_a_live_run_is_paused_edited_and_stopped(opened, picture):
    lab = opened("05").run()
    kept_small(lab)
    view = lab.output("watched = LiveRun")
    plot = view.locator(".js-plotly-plot").first
    buttons = {name: view.get_by_role("button", name=name, exact=True) for name in ("pause", "step", "continue", "stop")}

    def enabled():
        return {name for name, button in buttons.items() if button.is_enabled()}

    assert enabled() == set()
    lab.python(SLOWLY + "long = replace(dynamic, epochs=200)\nwatched.run(slowly(train(long, features, pairs)))")
    lab.page.wait_for_timeout(1000)
    assert enabled() == {"pause", "stop"} and lab.value("watched.state") == "running"
    buttons["pause"].click()
    lab.wait("watched.state == 'paused'")
    lab.still()
    assert enabled() == {"step", "continue", "stop"} and view.get_by_text("paused").is_visible()
    done = lab.value("len(watched.table())")
    lab.page.wait_for_timeout(300)
    buttons["step"].click()
    lab.wait(f"len(watched.table()) == {done + 1} and watched.state == 'paused'")
    lab.still()
    assert plot.evaluate("plot => Math.max(...plot.data.map(trace => trace.x?.length ?? 0))") >= 2
    tau = lab.value("float(watched.table().tau.iloc[-1])")
    press(slider(view, "temperature ×"), "ArrowRight", 3)
    lab.wait("watched.edits")
    buttons["step"].click()
    lab.wait(f"len(watched.table()) == {done + 2}")
    assert lab.value("float(watched.table().tau.iloc[-1])") > 1.3 * tau, "the edit holds from the next step on"
    picture(view, "05 live run, paused and edited")
    buttons["continue"].click()
    lab.wait("watched.state == 'running'")
    buttons["stop"].click()
    lab.wait("watched.state == 'stopped'")
    lab.still()
    assert enabled() == set() and view.get_by_text("stopped").is_visible()
    assert lab.value("watched._thread.is_alive()") is False
    picture(view, "05 live run, stopped")


def test_11_the_teachers_temperature_is_moved(opened, picture):
    lab = opened("11").run()
    view = lab.output("targets = SoftTargets()")
    plot = view.locator(".js-plotly-plot").first
    before, drawn = lab.value("targets.tau"), plot.inner_text()
    bars = plot.evaluate("plot => JSON.stringify(plot.data.map(trace => trace.y))")
    press(slider(view, "τ_d"), "ArrowRight", 10)
    lab.still()
    assert lab.value("targets.tau") > before + 0.05
    assert plot.evaluate("plot => JSON.stringify(plot.data.map(trace => trace.y))") != bars or plot.inner_text() != drawn
    picture(view, "11 soft targets")
    kept_small(lab)


def test_07_the_space_is_walked_through(opened, picture):
    lab = opened("07").run()
    view = lab.output("explorer = SpaceExplorer")
    walked(lab, view, "explorer", picture, "07 explorer")
    # another projection beside it follows
    now = lab.value("explorer.selected")
    assert lab.value("shadow.selected") == now and lab.value("list(shadow.shown) == list(explorer.shown)")
    beside = lab.output("shadow = SpaceExplorer")
    press(beside.get_by_role("button", name="▶"), "Enter")
    lab.wait(f"shadow.selected != {now!r}")
    assert lab.value("explorer.selected == shadow.selected")
    travelled(lab, lab.output("journey = Journey"), "journey", picture, "07 journey")
    kept_small(lab)


def travelled(lab, view, name, picture, title):
    """A journey, the variable `name`: back to its beginning by keys, then played to its end."""
    plot, moment = view.locator(".js-plotly-plot").first, slider(view, "moment")
    where = "plot => JSON.stringify(Array.from(plot._fullData[0].x))"
    lab.still()
    end = plot.evaluate(where)
    picture(view, f"{title}, at the end")
    press(moment, "Home")
    lab.wait(f"{name}.moment == next(iter({name}.moments))")
    lab.still()
    assert plot.evaluate(where) != end and lab.value(f"{name}.moment") in plot.inner_text()
    picture(view, f"{title}, at the beginning")
    view.locator(".jupyter-widget-play button, .widget-play button").first.click()
    lab.wait(f"{name}.moment == list({name}.moments)[-1]")
    lab.still()
    assert plot.evaluate(where) == end


DRAWN = """plot => plot._fullData.filter(trace => trace.visible === true && trace.customdata)
    .flatMap(trace => [...trace.x].filter(x => x !== null && !Number.isNaN(x))).length"""
LASSO = ((0.05, 0.05), (0.95, 0.05), (0.95, 0.6), (0.05, 0.6), (0.05, 0.06))
BOX = ((0.3, 0.3), (0.99, 0.99))


def walked(lab, view, name, picture, title):
    """An explorer, the variable `name`, as it is used: hover, click, lasso, box, language, search, keys."""
    plot, panel = view.locator(".js-plotly-plot").first, view.locator(".widget-html", has=lab.page.locator("img")).first
    lab.still()
    picture(view, title)
    rest = corner(plot, 0.005, 0.005)

    def over(trace, index, x, y):
        lab.page.mouse.move(*rest)
        lab.page.mouse.move(x, y)
        group = plot.evaluate("(plot, [t, i]) => plot._fullData[t].customdata[i]", [trace, index])
        return group

    # hover: the card, and lines to the captions
    points = alone(plot, 30)
    first = over(*points[0])
    lab.wait(f"{name}.selected == {first!r}")
    lab.still()
    text = lab.value(f"[text for _, text in {name}._captions[{first!r}]][0]")
    assert text in panel.inner_text() and not lab.value(f"{name}.held")
    lines = "plot => plot.data.at(-1).x.filter(x => x !== null && !Number.isNaN(x)).length"
    assert plot.evaluate(lines) > 0, "lines from the picture to its captions"
    picture(view, f"{title}, hover")
    # a click holds, another point does not change it, a second click lets go
    lab.page.mouse.click(*points[0][2:])
    lab.wait(f"{name}.held")
    other = next(point for point in points if over(*point) != first)
    lab.still()
    assert lab.value(f"{name}.selected") == first and text in panel.inner_text()
    lab.page.mouse.click(*points[0][2:])
    lab.wait(f"not {name}.held")
    over(*other)
    lab.wait(f"{name}.selected != {first!r}")
    # a language is hidden
    before = plot.evaluate(DRAWN)
    box = view.get_by_label("Swahili").first
    box.uncheck()
    lab.wait(f"'swh_Latn' not in {name}.shown")
    lab.still()
    assert plot.evaluate(DRAWN) < before and "Swahili" not in panel.locator("bdi").all_inner_texts()
    box.check()
    lab.wait(f"'swh_Latn' in {name}.shown")
    lab.still()
    assert plot.evaluate(DRAWN) == before
    # lasso and box
    for title_of, way in (("Lasso Select", LASSO), ("Box Select", BOX)):
        tool(plot, title_of)
        lab.python(f"{name}.selection = ()")
        drag(lab.page, *(corner(plot, *place) for place in way))
        lab.wait(f"{name}.selection")
        lab.still()
        count = lab.value(f"len({name}.selection)")
        assert 0 < count < lab.value(f"len({name}.points)")
        assert f"{count:,}" in view.inner_text() and view.locator("table").last.is_visible()
        picture(view, f"{title}, {title_of.split()[0].lower()}")
    # words found; what is no regular expression is told
    search = view.get_by_placeholder("regular expression")
    search.fill(text)
    lab.wait(f"{name}.pattern == {text!r}")
    lab.still()
    assert 0 < plot.evaluate(DRAWN) < before
    search.fill("(")
    lab.wait(f"{name}.said")
    lab.still()
    assert view.get_by_role("alert").is_visible() and lab.value(f"{name}.pattern") == text
    picture(view, f"{title}, refused search")
    search.fill("")
    lab.wait(f"{name}.pattern == ''")
    # without a mouse: the next meaning
    now = lab.value(f"{name}.selected")
    view.get_by_role("button", name="▶").focus()
    lab.page.keyboard.press("Enter")
    lab.wait(f"{name}.selected != {now!r}")


def test_12_the_dashboard_trains_and_is_asked(opened, picture):
    lab = opened("12").run()
    kept_small(lab)
    page = lab.output("dashboard = Dashboard(bench", plots=4)
    lab.python("dashboard.wait()")
    lab.still()
    picture(page, "12 dashboard")
    looks, settings = lab.value("len(dashboard.history)"), lab.value("dashboard.temperature.start")
    press(slider(page, "start"), "ArrowRight", 5)
    lab.wait(f"len(dashboard.history) > {looks} and dashboard.state == 'ready'", 60)
    lab.still()
    assert lab.value("dashboard.temperature.start") > settings and lab.value("dashboard.history.start.iloc[-1]") == "go on"
    assert page.get_by_text("ready").first.is_visible()
    assert f"look {looks + 1}" in page.inner_text().lower() or str(looks + 1) in page.locator("table").last.inner_text()
    picture(page, "12 dashboard, temperature moved")
    # the threshold is moved
    kept = lab.value("int(dashboard.history.pairs.iloc[-1])")
    press(slider(page, "threshold"), "ArrowLeft", 40)
    lab.wait(f"len(dashboard.history) > {looks + 1} and dashboard.state == 'ready'", 60)
    lab.still()
    assert lab.value("int(dashboard.history.pairs.iloc[-1])") >= kept and lab.value("dashboard.threshold") < 0.5
    picture(page, "12 dashboard, threshold moved")
    asked(lab, lab.output("playground = RetrievalPlayground", plots=0), "playground", picture, "12 playground")


def asked(lab, view, name, picture, title):
    """A playground, the variable `name`, is asked: a Swahili name, nonsense, a picture."""
    word = lab.value(f"{name}._first.captions.rows.query(\"lang == 'swh_Latn'\").text.iloc[3]")
    field = view.get_by_placeholder("a word in any language")
    field.fill(word)
    field.press("Enter")
    lab.wait(f"{name}.query == {word!r}")
    lab.still()
    first = lab.value(f"next(iter({name}.answer.values())).hits.id.iloc[0]")
    called = lab.value(f"{name}._name[next(iter({name}.answer.values())).hits.group.iloc[0]]")
    assert called in view.inner_text() and view.locator("img").count() >= lab.value(f"{name}.k")
    assert view.locator("img").first.evaluate("img => img.naturalWidth") > 0, first
    picture(view, title)
    field.fill("zzqx 💥 )(")
    field.press("Enter")
    lab.wait(f"{name}.query.startswith('zzqx')")
    lab.still()
    words = lab.value(f"next(iter({name}.answer.values())).words")
    assert words and words in view.inner_text()
    picture(view, f"{title}, nonsense")
    choice = view.get_by_placeholder("type its name")
    label = lab.value(f"next(iter({name}._labels.values()))")
    choice.fill(label)
    choice.press("Enter")
    lab.wait(f"{name}.picture is not None and {name}.query == ''")
    lab.still()
    assert label in view.inner_text() and field.input_value() == ""
    picture(view, f"{title}, a picture asked")


def test_14_emoji_are_named_in_any_script(opened, picture):
    lab = opened("14").run()
    view = lab.output("sheet = NamingSheet(path)", plots=0)
    fields = view.locator("input")
    kept = lab.value("dict(sheet.names)")
    groups = list(kept)
    for n, word in enumerate(("පූසා", "قطة", "e\u0301cole")):
        fields.nth(n).fill(word)
        fields.nth(n).press("Enter")
    lab.still()
    said = lab.value("dict(naming.table(sheet.path).set_index('group').text)")
    assert [said[group] for group in groups[:3]] == ["පූසා", "قطة", "école"]
    assert fields.nth(3).evaluate("field => field === document.activeElement"), "Enter goes to the next"
    assert view.get_by_role("status").inner_text() == lab.value("sheet.said")
    picture(view, "14 sheet")
    kept_small(lab)
