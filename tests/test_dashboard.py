"""The page where all of it meets: what was asked for last is done, the same moves give the same numbers, and nothing is lost."""

import json
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import traitlets

from xmalign_lab import projection, study
from xmalign_lab.corpora import scenes
from xmalign_lab.corpus import fold_of, hashed_fraction
from xmalign_lab.schedules import Constant, Cosine
from xmalign_lab.train import Recipe
from xmalign_lab.widgets import narrow, readings
from xmalign_lab.widgets.dashboard import PAGE, Dashboard
from xmalign_lab.widgets.latest import Latest
from xmalign_lab.workbench import Workbench

TINY = Recipe(least_count=1, batch_pairs=60, dim=8, hidden=12, components=6)


class Scored(Workbench):
    """So few scenes that `believed` says nothing: here the right pairs score .4 to .9, the wrong ones 0 to .5."""

    def _believed(self, split, pairs, target):
        group = split.lookup("group")
        right = pairs.rows.left.map(group) == pairs.rows.right.map(group)
        noise = np.array(
            [hashed_fraction(f"{left} {right}") for left, right in zip(pairs.rows.left, pairs.rows.right, strict=True)]
        )
        return pairs.assign(score=0.5 * noise + 0.4 * right)


@pytest.fixture(scope="module")
def bench():
    corpus = scenes.load(["eng_Latn", "swh_Latn", "sin_Sinh"], n=60)
    return Scored(corpus, study.prepare(corpus), TINY)


@pytest.fixture
def made(bench):
    opened = []

    def make(of=bench, **traits):
        opened.append(Dashboard(of, **{"rest": 0, "steps": 4, "languages": ("swh_Latn",), "seconds": 1.0} | traits))
        return opened[-1]

    yield make
    for dashboard in opened:
        dashboard.close()


def until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def weights(state):
    return {name: tensor.clone() for name, tensor in state.aligner.state_dict().items()}


def equal(a, b):
    return all(bool((a[name] == b[name]).all()) for name in a)


# --- the workbench


def test_data_are_noisy_as_asked_and_closed_to_the_test(bench):
    data = bench.data(["swh_Latn"], noise=0.4)
    family, split = data.corpus.lookup("family"), data.corpus.lookup("split")
    used = set(data.pairs.rows.left) | set(data.pairs.rows.right)
    assert {split[row] for row in used} == {"train"} and not any(fold_of(str(family[row])) == 0 for row in used)
    parallel = (data.pairs.rows.source == "eng_Latn-swh_Latn").to_numpy()
    group = data.corpus.lookup("group")
    right = (data.pairs.rows.left.map(group) == data.pairs.rows.right.map(group)).to_numpy()
    assert (right == data.truth).all() and data.truth[~parallel].all()
    assert (~data.truth[parallel]).mean() == pytest.approx(0.4, abs=0.1) and (data.pairs.rows.weight == 1).all()
    assert data.pairs.rows.score.notna().to_numpy().tolist() == parallel.tolist(), "pictures' pairs are not doubted"
    thin = bench.data(["swh_Latn"], text=0.5)
    assert 0.2 * parallel.sum() < (thin.pairs.rows.source == "eng_Latn-swh_Latn").sum() < 0.8 * parallel.sum()
    asked = bench.measure(data.fresh.aligner, data)
    assert set(asked["query"]) <= set(data.asked.rows.group) and set(data.asked.rows.split) == {"validation"}
    for wrong in ({"targets": []}, {"targets": ["swh_Latn"], "noise": 1.2}, {"targets": ["swh_Latn"], "text": -1}):
        with pytest.raises(ValueError):
            bench.data(**wrong)


def test_what_is_asked_agrees_with_the_study_and_a_glance_with_the_whole(bench):
    data = bench.data(["swh_Latn", "sin_Sinh"])
    *_, last = bench.begin(data, steps=6)
    aligner = last.state.aligner
    whole = study.score(aligner, data.asked, bench.features).query("direction == 'text→image'")
    keys = ["lang", "gallery", "query"]
    a, b = (table.sort_values(keys).reset_index(drop=True)[[*keys, "rank"]] for table in (bench.measure(aligner, data), whole))
    pd.testing.assert_frame_equal(a, b)
    one = a[a.gallery == a.gallery.min()]
    for lang, mrr in bench.glance(last, data).items():
        assert mrr == pytest.approx((1 / one["rank"][one.lang == lang]).mean(), abs=1e-6)


def test_a_run_leaves_the_weights_it_starts_from_alone(bench):
    data = bench.data(["swh_Latn"])
    fresh = weights(data.fresh)
    *_, first = bench.begin(data, steps=5)
    held = weights(first.state)
    *_, on = bench.begin(data, Constant(0.05), held=first.state, steps=5)
    *_, again = bench.begin(data, Constant(0.05), held=first.state, steps=5)
    *_, scratch = bench.begin(data, Constant(0.05), steps=5)
    assert equal(weights(data.fresh), fresh) and equal(weights(first.state), held) and not equal(fresh, held)
    assert equal(weights(on.state), weights(again.state)) and not equal(weights(on.state), weights(scratch.state))
    assert first.step == 5 and on.step == 5 and on.tau == pytest.approx(0.05)


# --- moves


def test_every_move_trains_measures_and_draws(made):
    dashboard = made().wait()
    assert dashboard.state == "ready" and len(dashboard.history) == 1 == dashboard.looks and dashboard.numbers.change.isna().all()
    assert set(dashboard.took) == {"data", "training", "evaluation", "projection", "drawing"}
    dashboard.threshold = 0.45
    dashboard.wait()
    assert dashboard.looks == 2 and dashboard.history.pairs.tolist()[1] < dashboard.history.pairs.tolist()[0]
    assert dashboard.history.pairs.iloc[1] == dashboard.picker.kept.sum() and dashboard.picker.value == 0.45
    dashboard.temperature = Cosine(0.2, 0.05)
    dashboard.wait()
    assert dashboard.dial.schedule == Cosine(0.2, 0.05) and dashboard.live.marks == [
        (0, "from scratch"),
        (4, "threshold"),
        (8, "τ"),
    ]
    assert len(dashboard.live.table()) == 12
    np.testing.assert_array_equal(dashboard.explorer.points[["x", "y"]], dashboard.points[["x", "y"]])
    assert json.loads(dashboard.history.schedule.iloc[-1])["end"] == 0.05 and dashboard.history.languages.iloc[0] == "swh_Latn"
    assert dashboard.live.table().tau.iloc[8] == pytest.approx(0.2)
    before = dashboard.numbers
    dashboard.noise = 0.0
    dashboard.wait()
    assert dashboard.data.truth.all() and dashboard.history.start.tolist() == ["from scratch", *["go on"] * 3]
    assert dashboard.numbers.MRR.iloc[-1] - before.MRR.iloc[-1] == pytest.approx(dashboard.numbers.change.iloc[-1])
    dashboard.languages = ("swh_Latn", "sin_Sinh")
    dashboard.wait()
    assert dashboard.history.start.iloc[-1] == "from scratch", "the heads' first layers are of other texts"
    assert dashboard.numbers.lang.tolist() == ["eng_Latn", "sin_Sinh", "swh_Latn", "mean"]
    assert dashboard.explorer.languages == ("eng_Latn", "sin_Sinh", "swh_Latn")


def test_the_same_moves_give_the_same_numbers(made):
    def moves():
        dashboard = made().wait()
        for name, value in (("threshold", 0.45), ("temperature", Constant(0.05)), ("noise", 0.2)):
            setattr(dashboard, name, value)
            dashboard.wait()
        return dashboard

    first, second = moves(), moves()
    drop = ["seconds"]
    pd.testing.assert_frame_equal(first.history.drop(columns=drop), second.history.drop(columns=drop))
    assert equal(weights(first._held), weights(second._held))
    np.testing.assert_array_equal(first.points[["x", "y"]], second.points[["x", "y"]])
    first.noise = 0.4
    first.wait()
    first.threshold, first.temperature, first.start = 0.0, Constant(0.1), "from scratch"
    first.wait()
    assert first.history["MRR mean"].iloc[-1] == first.history["MRR mean"].iloc[0] and first.start == "from scratch"


class Gated(Scored):
    """Runs wait at each step until the gate is open."""

    gate = threading.Event()
    going = 0

    def begin(self, *args, **options):
        for step in super().begin(*args, **options):
            Gated.going += 1
            assert self.gate.wait(20)
            yield step


@pytest.fixture
def gated(bench):
    Gated.gate, Gated.going = threading.Event(), 0
    yield Gated(bench.corpus, bench.features, TINY)
    Gated.gate.set()


def test_a_move_during_a_run_ends_it_and_its_weights_count_for_nothing(made, gated):
    gated.gate.set()
    dashboard = made(gated).wait()
    held = dashboard._held
    gated.gate.clear()
    Gated.going = 0
    dashboard.temperature = Constant(0.3)
    until(lambda: Gated.going == 1)
    assert dashboard.state == "training"
    dashboard.temperature = Constant(0.05)
    dashboard.threshold = 0.45
    gated.gate.set()
    dashboard.wait()
    assert dashboard.history.temperature.tolist() == ["constant .1", "constant .05"] and len(dashboard.live.table()) == 8
    assert dashboard.live.marks == [(0, "from scratch"), (4, "τ, threshold")]
    *_, wanted = super(Gated, gated).begin(dashboard.data, Constant(0.05), 0.45, held, 4)
    assert equal(weights(dashboard._held), weights(wanted.state)), "it began from the weights that were shown"


def test_stop_keeps_what_was_reached_and_time_ends_a_run(made, gated):
    dashboard = made(gated, steps=0, seconds=1.0)
    gated.gate.set()
    dashboard.wait()
    gated.gate.clear()
    Gated.going, dashboard.steps = 0, 50
    dashboard.go()
    until(lambda: Gated.going == 1)
    dashboard.stop()
    gated.gate.set()
    dashboard.wait()
    assert dashboard.history.steps.iloc[-1] == 1 and dashboard.history.planned.iloc[-1] == 50 and dashboard.state == "ready"


def test_a_run_takes_no_longer_than_it_may(made, bench):
    class Slow(Scored):
        def begin(self, *args, **options):
            for step in super().begin(*args, **options):
                time.sleep(0.05)
                yield step

    dashboard = made(Slow(bench.corpus, bench.features, TINY)).wait()
    after = sum(seconds for part, seconds in dashboard.took.items() if part not in ("data", "training"))
    dashboard.steps, dashboard.seconds, dashboard._pace = 0, 1.0, 0.001  # as if the steps before had been much faster
    dashboard.go().wait()
    row = dashboard.history.iloc[-1]
    left = max(0.1, 1.0 - after - PAGE)
    assert 0.7 * left < row.planned / 1000 <= left and 1 <= row.steps <= 20 * left + 1
    assert left - 0.1 < row.seconds < left + 0.3, "what measuring and drawing take is kept back"
    dashboard.go().wait()
    assert dashboard.history.planned.iloc[-1] <= 20, "the pace is known now"
    for bad in (9.0, 0.0):
        with pytest.raises(traitlets.TraitError):
            dashboard.seconds = bad


# --- errors


def test_what_a_run_raises_is_told_and_raised_and_the_next_move_goes_on(made, bench):
    class Broken(Scored):
        broken = True

        def begin(self, *args, **options):
            if self.broken:
                raise ZeroDivisionError("<the run broke>")
            return super().begin(*args, **options)

    of = Broken(bench.corpus, bench.features, TINY)
    dashboard = made(of)
    with pytest.raises(ZeroDivisionError, match="the run broke"):
        dashboard.wait()
    assert (
        dashboard.state == "failed" and "ZeroDivisionError" in dashboard.said and "&lt;the run broke&gt;" in dashboard._head.value
    )
    of.broken = False
    assert dashboard.go().wait().state == "ready" and dashboard.said == "" and dashboard.looks == 1


def test_what_cannot_be_is_refused_and_by_hand_told(made):
    dashboard = made().wait()
    most = dashboard.data.pairs.rows.score.max()
    for name, bad in (
        ("threshold", most + 0.01),
        ("threshold", np.nan),
        ("languages", ()),
        ("languages", ("xho_Latn",)),
        ("temperature", Constant(0)),
    ):
        before = getattr(dashboard, name)
        with pytest.raises((traitlets.TraitError, ValueError)):
            setattr(dashboard, name, bad)
        assert getattr(dashboard, name) == before
    box = dashboard._boxes["swh_Latn"]
    box.value = False
    assert box.value and "at least one language" in dashboard.said and dashboard.languages == ("swh_Latn",)
    dashboard._by_hand("threshold", 2.0)
    assert "without a pair" in dashboard.said and dashboard.picker.value == dashboard.threshold == 0.0
    assert dashboard.wait().looks == 1, "nothing was trained"


def test_a_threshold_that_new_pairs_do_not_reach_goes_back_to_zero(made):
    dashboard = made(noise=0.0).wait()
    dashboard.threshold = dashboard.data.pairs.rows.score.max() - 1e-6
    dashboard.wait()
    dashboard.bench = SimpleNamespace(
        **{name: getattr(dashboard.bench, name) for name in ("begin", "glance", "measure", "embedded")}
    )
    dashboard.bench.offered, lower = ("swh_Latn",), dashboard.data

    def data(*choice):
        return type(lower)(**vars(lower) | {"pairs": lower.pairs.assign(score=lower.pairs.rows.score / 2)})

    dashboard.bench.data = data
    dashboard.noise = 0.2
    dashboard.wait()
    assert dashboard.threshold == 0.0 == dashboard.picker.value and dashboard.looks == 3
    assert "it is 0 again" in dashboard.said, "it is still told when all is drawn"


def test_pairs_without_scores_leave_no_picker(made, bench):
    dashboard = made(Workbench(bench.corpus, bench.features, TINY)).wait()
    assert dashboard.picker is None and "all are believed" in dashboard._pairs.children[0].value


# --- the map


def test_umap_is_fitted_once_for_runs_that_go_on_and_anew_from_scratch(made, monkeypatch):
    fits, placed = [], []

    def fitted(vectors, method):
        fits.append(method)
        return SimpleNamespace(method=method, seed=0, place=lambda others: placed.append(len(others)) or others[:, :2] * 5)

    monkeypatch.setattr(projection, "fitted", fitted)
    dashboard = made().wait()
    assert dashboard.points.attrs["method"] == "pca" and not fits
    dashboard.projection = "umap"
    dashboard.wait()
    assert fits == ["umap"] and dashboard.points.attrs["method"] == "umap" and dashboard.looks == 1
    np.testing.assert_allclose(dashboard.points[["x", "y"]], dashboard._seen[1][:, :2] * 5)
    dashboard.threshold = 0.45
    dashboard.wait()
    assert fits == ["umap"] and len(placed) == 3 and dashboard.points.attrs["method"] == "umap"
    dashboard.go("from scratch").wait()
    assert fits == ["umap"] * 2 and dashboard.points.attrs["method"] == "umap"
    dashboard.projection = "pca"
    dashboard.wait()
    trust = projection.trustworthiness(dashboard._seen[1], dashboard.points[["x", "y"]].to_numpy())
    assert dashboard.points.attrs == {"method": "pca", "seed": 0, "trustworthiness": pytest.approx(trust)}


def test_maps_of_one_line_of_runs_are_laid_on_each_other(made):
    dashboard = made().wait()
    before = dashboard.points[["x", "y"]].to_numpy()
    dashboard.go().wait()
    after, alone = dashboard.points[["x", "y"]].to_numpy(), projection.pca(dashboard._seen[1])
    np.testing.assert_allclose(after, projection.laid_on(alone, before, scaled=False), atol=1e-5)
    assert ((after - before) ** 2).sum() <= ((alone - before) ** 2).sum() + 1e-6


# --- what is read off


def test_a_change_is_that_of_the_queries_both_were_asked():
    def scores(ranks, queries, lang="swh_Latn"):
        fixed = {"lang": lang, "direction": "text→image", "gallery": "g", "size": 9}
        return pd.DataFrame({"query": queries, "family": queries, "rank": np.array(ranks, float), **fixed})

    before = scores([2, 4, 1, 5], list("abcd"))
    now = pd.concat([scores([1, 4, 2, 1], list("abce")), scores([1, 1, 1, 1], list("abce"), "eng_Latn")])
    table = readings.compared(now, before, ["swh_Latn"]).set_index("lang")
    assert table.MRR["swh_Latn"] == pytest.approx((1 + 1 / 4 + 1 / 2 + 1) / 4) and table["R@1"]["swh_Latn"] == 0.5
    assert table.change["swh_Latn"] == pytest.approx(((1 - 1 / 2) + 0 + (1 / 2 - 1)) / 3) == table.change["mean"]
    assert table["change low"]["swh_Latn"] <= 0 <= table["change high"]["swh_Latn"]
    assert np.isnan(table.change["eng_Latn"]) and table.MRR["mean"] == table.MRR["swh_Latn"], "English was not asked before"
    page = readings.numbers_html(table.reset_index())
    assert page.count("not shown") == 2 and "▲" not in page
    better = readings.compared(scores([1] * 4, list("abcd")), scores([5, 4, 3, 6], list("abcd")), ["swh_Latn"])
    assert (better["change low"] > 0).all() and readings.numbers_html(better).count("▲") == 2


def test_the_mean_is_that_of_the_languages_whatever_each_was_asked():
    fixed = {"direction": "text→image", "gallery": "g", "size": 9}
    queries = [f"q{k}" for k in range(100)]
    swahili = pd.DataFrame({"query": queries, "family": queries, "rank": 2.0, "lang": "swh_Latn", **fixed})
    sinhala = swahili.head(10).assign(lang="sin_Sinh", rank=1.0)
    table = readings.compared(pd.concat([swahili, sinhala]), targets=["swh_Latn", "sin_Sinh"]).set_index("lang")
    assert table.MRR["mean"] == pytest.approx(0.75) and table["R@1"]["mean"] == pytest.approx(0.5)
    assert table.low["mean"] <= 0.75 <= table.high["mean"]


def test_history_counts_the_looks_and_gives_a_table_away():
    import base64
    import io

    tried = pd.DataFrame({"look": range(1, 12), "temperature": "<b>", "MRR mean": np.linspace(0.2, 0.1, 11)})
    page = readings.history_html(tried, "the same 5 validation families")
    assert "11 looks at the same 5 validation families" in page and "<b>" not in page.replace("<b>What was tried</b>", "")
    data = re.search(r"base64,([^\"]+)", page)[1]
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(base64.b64decode(data))), tried)
    assert page.count("<tr") == 1 + 8 and readings.history_html(tried[:0], "") == ""


def test_the_best_is_of_the_same_data_as_the_last():
    tried = pd.DataFrame({"look": [71, 72, 73], "languages": ["a", "b", "b"], "MRR mean": [0.9, 0.2, 0.1]})
    bold = re.search(r'font-weight:600">(.*?)</tr>', readings.history_html(tried, "five"))[1]
    assert ">72<" in bold


def test_curves_have_the_colours_of_their_languages_and_the_marks():
    from xmalign_lab.style import language_colour

    steps = pd.DataFrame({"total": [3.0, 2, 1], "tau": 0.1, "MRR swh_Latn": [np.nan, 0.1, 0.2]})
    figure = narrow.curves(steps, [(0, "from scratch"), (2, "τ")])
    assert [trace.name for trace in figure.data] == ["loss", "Swahili", "τ"] and [s.x0 for s in figure.layout.shapes] == [0, 2]
    assert figure.data[1].line.color == language_colour("swh_Latn") and list(figure.data[0].x) == [1, 2, 3]
    assert not narrow.curves(pd.DataFrame()).data


def test_the_static_twin_is_small_and_loads_nothing(made):
    dashboard = made().wait()
    page = dashboard.html()
    assert "<script src=" not in page and len(page) < 400_000 and "validation families" in page and "Swahili" in page
    twin = dashboard._repr_mimebundle_()["text/html"]
    assert len(twin) == len(page) and twin.endswith(page[-2000:]), "but for the names of the figures"
    assert len(dashboard.static().data) == len(dashboard.explorer.static().data)


# --- the thread


def test_the_latest_wish_interrupts_and_nothing_is_forgotten():
    seen, begun, failed = [], threading.Event(), []

    def serve(wanted):
        seen.append(set(wanted))
        begun.set()
        if "long" in wanted and len(seen) == 1:
            assert worker.halt.wait(10)
            return wanted
        if "bad" in wanted:
            raise KeyError("bad")
        return set()

    worker = Latest(serve, 0, failed.append)
    worker.wait()
    worker.ask("long")
    assert begun.wait(10)
    worker.ask("short")
    worker.wait()
    assert seen == [{"long"}, {"long", "short"}]
    worker.ask("bad")
    with pytest.raises(KeyError):
        worker.wait()
    assert len(failed) == 1
    worker.ask("short")
    worker.wait()
    worker.close()
    worker.ask("short")
    time.sleep(0.05)
    assert len(seen) == 4, "it is closed"


def test_nobody_waits_for_what_is_closed_and_a_failing_page_ends_no_thread():
    def failed(error):
        raise OSError("the page is gone")

    def serve(wanted):
        raise KeyError("bad")

    worker = Latest(serve, 0, failed)
    for _ in range(2):
        worker.ask("bad")
        until(worker._idle.is_set)
        assert isinstance(worker.error, KeyError)
    worker.close()
    worker.ask("more")
    assert worker._idle.is_set(), "`wait` would hang"


def test_hands_must_be_still_before_anything_begins():
    seen = []
    worker = Latest(lambda wanted: seen.append(time.monotonic()) or set(), 0.2, print)
    for _ in range(4):
        worker.ask("move")
        last = time.monotonic()
        time.sleep(0.05)
    worker.wait()
    worker.close()
    assert len(seen) == 1 and seen[0] - last >= 0.19


# --- the page for a class


def test_what_a_class_is_served_holds_the_page_and_no_lesson():
    notebook = json.loads(
        (Path(__file__).resolve().parent.parent / "notebooks" / "12_dashboard.ipynb").read_text(encoding="utf-8")
    )
    kept = [cell for cell in notebook["cells"] if "lesson" not in cell["metadata"].get("tags", ())]
    source = "\n".join("".join(cell["source"]) for cell in kept if cell["cell_type"] == "code")
    compile(source, "12_dashboard", "exec")
    assert "Dashboard(bench" in source and "RetrievalPlayground(models)" in source and "assert" not in source
    assert source.count("\ndashboard\n") == 1, "it is shown"


def test_the_page_for_a_class_asks_nobody_elsewhere():
    paths = pytest.importorskip("voila.paths")
    jinja2 = pytest.importorskip("jinja2")
    here = Path(__file__).resolve().parent.parent / "bench" / "templates" / "app"
    found = paths.collect_template_paths(["voila", "nbconvert"], "offline", root_dirs=[str(here), *paths._default_root_dirs()])
    lab = "voila/templates/lab/index.html.j2"
    theirs = jinja2.Environment(loader=jinja2.FileSystemLoader(found)).loader.get_source(None, lab)[0]
    links = re.findall(r"https://[^\"]+", theirs.replace("https://github.com", ""))
    ours = (here / "voila" / "templates" / "offline" / "index.html.j2").read_text(encoding="utf-8")
    left_out = re.search(r'replace\("([^"]+)"', ours)[1]
    assert links and all(link.startswith(left_out) for link in links) and lab in ours
