"""How fast the views answer a hand, from the event in the page to the frame that shows its effect; told, with loose bounds.

The bounds of the tests are loose, because time on a busy machine says little: what was measured stands in the summary and in
build/browser/budget.json beside what we want. How often a live run draws is held strictly.
"""

import pytest
from hands import alone, corner, drag, press, slider, tool

DATA = """import numpy as np, pandas as pd
from xmalign_lab.corpus import Pairs
from xmalign_lab.widgets import SpaceExplorer, ThresholdPicker, LiveRun
from types import SimpleNamespace
import threading, time
PIXEL = "data:image/gif;base64,R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs="

def cloud(n, langs=("eng_Latn", "swh_Latn", "sin_Sinh"), seed=0):
    "n points: as many pictures as there are captions in each language, near their picture."
    random, each = np.random.default_rng(seed), n // (1 + len(langs))
    at, parts = random.normal(size=(each, 2)), []
    for code in ("", *langs):
        name = [f"g{i}" for i in range(each)]
        rows = {"id": [f"{code}:{g}" for g in name], "group": name, "family": name, "lang": code, "split": "test"}
        rows |= {"modality": "text" if code else "image", "kind": "name" if code else "image", "source": "made"}
        rows |= {"text": [f"{code} {g}" if code else "" for g in name], "labels": [{}] * each}
        place = at + 0.3 * random.normal(size=(each, 2))
        parts.append(pd.DataFrame(rows | {"x": place[:, 0], "y": place[:, 1]}))
    points = pd.concat(parts, ignore_index=True)
    points.attrs = {"method": "pca", "seed": 0, "trustworthiness": 1.0}
    return points, dict.fromkeys(points.group, PIXEL)

def scored(n):
    ids = [f"p{i}" for i in range(n)]
    score = np.random.default_rng(0).beta(2, 2, n)
    return Pairs(pd.DataFrame({"left": ids, "right": ids, "source": "eng_Latn-swh_Latn", "score": score})), score > 0.4
"""


@pytest.fixture
def lab(opened, request):
    return opened([DATA, *request.param], request.node.originalname.removeprefix("test_")).run()


def notebook(*cells):
    return pytest.mark.parametrize("lab", [cells], indirect=True, ids=["lab"])


@notebook("pairs, truth = scored(2000)\npicker = ThresholdPicker(pairs, truth=truth, value=0.4)\npicker")
def test_a_slider_redraws_2000_pairs(lab, budget):
    view = lab.output("picker")
    plot, handle, took = view.locator(".js-plotly-plot").first, slider(view, "threshold"), []
    for _ in range(9):
        lab.still()
        took.append(lab.timed(plot, lambda: press(handle, "ArrowRight"), "keydown"))
    assert budget("threshold slider → redraw, 2,000 pairs", took, 150) < 3000
    assert lab.value("picker.value") > 0.41


@notebook("points, pictures = cloud(2000)\nexplorer = SpaceExplorer(points, pictures)\nexplorer")
def test_the_explorer_answers_with_2000_points(lab, budget, picture):
    view = lab.output("explorer")
    plot, panel = view.locator(".js-plotly-plot").first, view.locator(".widget-html", has=lab.page.locator("img")).first
    box, took = view.get_by_label("Swahili", exact=False).first, []
    for _ in range(6):
        lab.still()
        took.append(lab.timed(plot, box.click, "click"))
    assert budget("a language shown or hidden → redraw, 2,000 points", took, 150) < 3000
    took, points = [], alone(plot, 8)
    for trace, index, x, y in points:
        lab.page.mouse.move(*corner(plot, 0.002, 0.002))
        lab.still()
        before = panel.inner_html()
        took.append(lab.timed(panel, lambda x=x, y=y: lab.page.mouse.move(x, y), "mousemove", "page"))
        group = plot.evaluate("(plot, [t, i]) => plot._fullData[t].customdata[i]", [trace, index])
        assert lab.value("explorer.selected") == group and panel.inner_html() != before
    assert budget("hover → card, 2,000 points", took, 100) < 3000
    picture(view, "explorer, 2,000 points")


@notebook("points, pictures = cloud(400)\nexplorer = SpaceExplorer(points, pictures)\nexplorer")
def test_what_a_lasso_chose_is_cleared(lab, picture):
    """Twice, since the page keeps a state of its own; and a selection from Python outlives the line that it replaces."""
    view = lab.output("explorer")
    plot = view.locator(".js-plotly-plot").first
    script = """plot => [
        [...plot.querySelectorAll(".scatterlayer .points path")].filter(path => getComputedStyle(path).opacity < 0.5).length,
        plot.querySelectorAll(".selectionlayer path, .select-outline").length]"""
    tool(plot, "Lasso Select")
    for after, left in (("explorer.selection = ()", 0), ("explorer.selection = tuple(points.id[:9])", 9), ("clear", 0)):
        drag(lab.page, *(corner(plot, *at) for at in ((0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.35))))
        lab.still()
        (faded, lines), chosen = plot.evaluate(script), lab.value("len(explorer.selection)")
        assert 0 < chosen < 400 and faded >= 400 - chosen and lines, "the lasso chose, and its line is seen"
        lab.python(after) if after != "clear" else view.get_by_role("button", name="clear", exact=True).click()
        lab.still()
        faded, lines = plot.evaluate(script)
        assert lab.value("len(explorer.selection)") == left and not lines and faded == (400 - left if left else 0)
    picture(view, "explorer, cleared")


@notebook("points, pictures = cloud(20000)", "big = SpaceExplorer(points, pictures)\nbig")
def test_the_explorer_opens_20000_points(lab, budget, picture):
    lab.output("big"), lab.still()  # the first time takes in the code of the page, too
    took = [lab.opens("big") for _ in range(3)]
    assert budget("explorer opens, 20,000 points", [each / 1000 for each in took], 3, "s") < 30
    picture(lab.output("big"), "explorer, 20,000 points")


@notebook(
    """def steps(n):
    for i in range(n):
        time.sleep(0.001)
        row = {"total": 1 / (i + 1), "info_nce": 2 / (i + 1)}
        yield SimpleNamespace(step=i + 1, epoch=i / 100, progress=(i + 1) / n, tau=0.05, terms=row)
live = LiveRun()
live"""
)
def test_a_live_run_draws_at_most_four_times_a_second(lab, budget, picture):
    plot = lab.output("live").locator(".js-plotly-plot").first
    plot.evaluate("plot => bench.count(plot)")
    lab.page.evaluate("bench.heard.length = 0")
    lab.python("live.run(steps(4000)).wait()")
    lab.still()
    drawn, heard = lab.page.evaluate("[bench.drawn, bench.heard.filter(m => m.plot).map(m => m.at)]")
    assert len(drawn) >= 5, "it draws while it runs"
    for name, events in (("drawn", drawn), ("sent", heard)):
        # One drawing that adds a part is several messages, right behind each other: they count once.
        times = [at for n, at in enumerate(events) if n == 0 or at - events[n - 1] > 120]
        most = max(sum(begin <= at < begin + 1000 for at in times) for begin in times)
        # the last drawing, of the end, is not kept waiting; the browser may be late with one and in time with the next
        assert budget(f"live run, {name} in the busiest second", most, 4, "") <= 5
        seconds = (times[-1] - times[0]) / 1000
        assert budget(f"live run, {name} a second", (len(times) - 1) / seconds, 4, "") <= 4.2
    picture(lab.output("live"), "live run")
