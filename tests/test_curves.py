"""The study's figures: their numbers are the report's, every method keeps its look, and nothing is hidden or made up."""

import json

import numpy as np
import pandas as pd
import pytest

from xmalign_lab import adaptive, curves, style, sweep
from xmalign_lab.evaluate import report
from xmalign_lab.sweep import CLEAN, Condition

CONDITIONS = (CLEAN, Condition(rate=0.4), Condition(rate=0.6), Condition("hard", 0.4), Condition(text=0.1))
RANK = {"constant τ": 2, "M-CLIP": 3, "oracle filter": 1, "no dictionary": 6, "string overlap": 5, "mine": 4}


def study(langs=("swh_Latn", "deu_Latn"), queries=30, methods=RANK):
    """A study in which every rank is known up to a small draw: worse with noise, worse with less text."""
    rng, parts = np.random.default_rng(0), []
    for run in sweep.plan(methods, CONDITIONS, (0,)):
        c = run.condition
        for lang in langs:
            ranks = RANK[run.method] + 10 * c.rate + 5 * (1 - c.text) + rng.integers(3, size=queries)
            names = [f"q{i}" for i in range(queries)]
            rows = pd.DataFrame({"query": names, "family": [f"f{i // 2}" for i in range(queries)], "lang": lang, "rank": ranks})
            rows = rows.assign(direction="text→image", gallery="a", size=40)
            rows = pd.concat([rows, rows.assign(direction="image→text", rank=40.0)])
            said = {"method": run.method, "condition": str(c), "noise": c.noise, "rate": c.rate, "text": c.text}
            parts.append(rows.assign(**said))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def scores():
    return study()


@pytest.fixture(scope="module")
def table(scores):
    return curves.resampled(scores)[0]


def written(figure):
    """The figure through JSON and back, and its traces by name or panel."""
    return json.loads(figure.to_json())


def panels(figure):
    return [note.text for note in figure.layout.annotations]


def test_a_cells_value_and_interval_are_the_reports(scores, table):
    assert len(table) == len(scores.groupby(curves.CELL)) and (table.queries == 30).all()
    for (method, condition), part in scores.groupby(["method", "condition"]):
        expected = report.summary(part, ("MRR",)).query("direction == 'text→image' and metric == 'MRR'").set_index("lang")
        mine = table[(table.method == method) & (table.condition == condition)].set_index("lang")
        for column in ("value", "low", "high"):
            assert mine[column].to_numpy() == pytest.approx(expected[column].loc[mine.index].to_numpy(), abs=1e-12)
    assert table.chance.to_numpy() == pytest.approx(sum(1 / r for r in range(1, 41)) / 40)


def test_one_draw_takes_the_same_families_for_all_cells():
    scores = study(methods=["constant τ"])
    copy = pd.concat([scores, scores.assign(method="M-CLIP")])
    table, means = curves.resampled(copy, draws=50)
    assert means.shape == (50, len(table))
    assert (means[:, table.method == "constant τ"] == means[:, table.method == "M-CLIP"]).all() and means.std(0).min() > 0


def test_what_was_not_asked_is_not_counted():
    scores = study(methods=["constant τ"])
    fewer = scores[(scores.lang != "deu_Latn") | (scores["query"] != "q0")]
    table, means = curves.resampled(fewer, draws=50)
    assert set(table.groupby("lang").queries.unique().map(tuple).items()) == {("deu_Latn", (29,)), ("swh_Latn", (30,))}
    assert np.isfinite(means).all()


def test_every_method_has_a_look_of_its_own_that_is_no_languages():
    assert set(sweep.METHODS) - set(sweep.ABLATIONS) <= set(curves.LOOKS)
    looks = [*curves.LOOKS.values(), curves.OTHER]
    colours, symbols, _ = zip(*looks, strict=True)
    assert len(set(colours)) == len(looks) and len(set(symbols)) == len(looks), "known by colour, and by symbol without it"
    assert not {c.upper() for c in colours} & {c.upper() for c in (*style.OF_LANGUAGE.values(), *style.OTHERS)}


def test_noise_curves_draw_what_there_is_at_its_rates(table):
    figure = curves.noise_curves(table)
    assert panels(figure) == ["Swahili", "German"], "in the study's order"
    first = [trace for trace in figure.data if trace.xaxis == "x"]
    assert [trace.name for trace in first] == ["constant τ", "M-CLIP", "no dictionary", "oracle filter", "mine"]
    assert [trace.showlegend for trace in figure.data] == [True] * 5 + [False] * 5
    assert figure.layout.xaxis.ticktext == ("none", "40 %", "60 %") and list(figure.layout.xaxis.tickvals) == [0, 40, 60]
    for trace in first:
        rows = table[(table.method == trace.name) & (table.lang == "swh_Latn") & (table.text == 1) & (table.noise == "random")]
        rows = rows.sort_values("rate")
        if trace.name == "no dictionary":
            assert trace.mode == "lines" and len(set(trace.y)) == 1 and trace.y[0] == pytest.approx(rows.value.item())
            continue
        assert np.abs(np.asarray(trace.x) - 100 * rows.rate).max() < 5, "set apart, but not to another rate"
        assert trace.y == pytest.approx(rows.value, abs=1e-6)
        assert trace.y + trace.error_y.array == pytest.approx(rows.high, abs=1e-6)
        assert trace.y - trace.error_y.arrayminus == pytest.approx(rows.low, abs=1e-6)
    assert len({round(float(t.x[-1]), 3) for t in first}) == len(first), "no interval on another"
    dotted = [shape for shape in figure.layout.shapes if shape.line.dash == "dot"]
    assert [shape.y0 for shape in dotted] == pytest.approx([table.chance[0]] * 2)
    written(figure)


def test_a_kind_of_noise_that_was_not_run_is_an_error(table):
    assert {t.name for t in curves.noise_curves(table, "hard").data} >= {"constant τ", "M-CLIP", "mine"}
    with pytest.raises(ValueError, match="no run with translation noise; there are hard, random"):
        curves.noise_curves(table, "translation")


def test_text_curves_put_none_apart_and_nothing_there_but_no_dictionary(table):
    figure = curves.text_curves(table)
    assert figure.layout.xaxis.ticktext == ("100 %", "10 %", "1 %", "none")
    full, tenth, hundredth, none = figure.layout.xaxis.tickvals
    assert full - tenth == tenth - hundredth == 1 < hundredth - none, "a logarithmic axis, and a gap before none"
    reached = {trace.name: min(trace.x) for trace in figure.data}
    assert reached.pop("no dictionary") < none and set(reached) == {"constant τ", "M-CLIP", "mine"}
    assert min(reached.values()) > tenth - 0.3
    assert any(shape.x0 == shape.x1 and none < shape.x0 < hundredth for shape in figure.layout.shapes)


def test_intervals_are_sorted_and_hold_what_no_noise_changes(table):
    figure = curves.intervals(table, "random noise 40%")
    assert panels(figure) == ["Swahili", "German"]
    order = list(reversed(figure.data[0].y))
    assert order == ["oracle filter", "string overlap", "constant τ", "no dictionary", "M-CLIP", "mine"]
    assert list(figure.data[0].marker.color) == [curves.LOOKS.get(m, curves.OTHER)[0] for m in figure.data[0].y]
    row = table[(table.method == "M-CLIP") & (table.condition == "random noise 40%") & (table.lang == "deu_Latn")].iloc[0]
    at = list(figure.data[1].y).index("M-CLIP")
    assert figure.data[1].x[at] == pytest.approx(row.value)
    assert figure.data[1].error_x.array[at] == pytest.approx(row.high - row.value, abs=1e-6)
    assert "oracle filter" not in curves.intervals(table, "clean").data[0].y
    written(figure)


@pytest.mark.parametrize("count", range(1, 7))
def test_any_number_of_languages_has_its_panels_and_a_place_for_the_legend(count):
    codes = ("swh_Latn", "sin_Sinh", "yor_Latn", "que_Latn", "deu_Latn", "hau_Latn")[:count]
    figure = curves.noise_curves(curves.resampled(study(codes, 6, ["constant τ"]), draws=9)[0])
    assert panels(figure) == [style.language_name(code) for code in codes]
    axes = [(figure.layout[f"xaxis{n or ''}"], figure.layout[f"yaxis{n or ''}"]) for n in [0, *range(2, count + 1)]]
    legend = figure.layout.legend
    assert not any(x.domain[1] > legend.x and y.domain[0] < legend.y for x, y in axes), "it covers nothing"


def ablated():
    """Each part is worth what its place says: removed it costs 0.01 · place of MRR's rank scale, alone it gains."""
    rng, parts = np.random.default_rng(1), []
    noise = {query: rng.integers(3) for query in range(60)}
    for method in adaptive.ABLATION:
        part = method.split(" ", 1)[1]
        place = adaptive.PARTS.index(part) + 1 if part in adaptive.PARTS else 0
        rank = {"all": 2, "without": 2 + place, "only": 30 - place, "no": 30}[method.split()[0]]
        rows = pd.DataFrame({"query": [f"q{i}" for i in noise], "family": [f"f{i // 2}" for i in noise], "lang": "swh_Latn"})
        rows = rows.assign(rank=[rank + n for n in noise.values()], direction="text→image", gallery="a", size=40, method=method)
        parts.append(rows.assign(condition=str(sweep.NOISE[0]), noise="random", rate=0.4, text=1.0))
    return pd.concat(parts, ignore_index=True), noise


def test_the_ablation_is_the_difference_of_means_with_its_interval():
    scores, noise = ablated()
    table, means = curves.resampled(scores, draws=2000)
    parts = curves.ablation(table, means).set_index("part")
    assert list(parts.index) == list(adaptive.PARTS)

    def mrr(rank):
        return np.mean([1 / (rank + n) for n in noise.values()])

    for place, part in enumerate(adaptive.PARTS, 1):
        assert parts.removed[part] == pytest.approx(mrr(2) - mrr(2 + place)) and parts["removed low"][part] > 0
        assert parts.alone[part] == pytest.approx(mrr(30 - place) - mrr(30))
        assert parts["alone low"][part] <= parts.alone[part] <= parts["alone high"][part]
    assert (parts["removed p"] >= 1 / 2001).all() and (parts["removed p"] <= 1).all()
    assert curves.shown(parts.reset_index()) == (list(adaptive.PARTS), []), "p is corrected, and small enough for all"
    figure = curves.ablation_bars(parts.reset_index())
    assert [trace.name for trace in figure.data] == ["lost when it is removed from all", "gained when it is added to none"]
    assert list(figure.layout.yaxis.ticktext) == list(adaptive.PARTS)


def test_what_is_recovered_is_a_share_of_the_oracles_gain(scores):
    table, means = curves.resampled(scores)
    at = str(Condition(rate=0.4))
    share, low, high = curves.recovered(table, means, "M-CLIP", ["swh_Latn"], condition=at)
    of = table[(table.condition == at) & (table.lang == "swh_Latn")].set_index("method").value
    assert share == pytest.approx((of["M-CLIP"] - of["constant τ"]) / (of["oracle filter"] - of["constant τ"]))
    assert low <= share <= high < 0, "worse than the floor"
    assert curves.recovered(table, means, "oracle filter", ["swh_Latn"], condition=at) == pytest.approx((1, 1, 1))
    nothing = curves.recovered(table, means, "M-CLIP", ["swh_Latn"], floor="oracle filter", condition=at)
    assert np.isnan(nothing).all(), "no gain, no share of it"


def test_pools_are_drawn_beside_the_whole_text(scores):
    clean, parts = scores[scores.condition == "clean"], []
    for condition in sweep.POOLS:
        for method in ("mined", "oracle mining") if condition.words else ("mined",):
            rank = clean["rank"] + 3 * condition.shared
            parts.append(clean.assign(method=method, condition=str(condition), rank=rank))
    whole = clean[clean.method == "M-CLIP"].assign(method="kernel ridge")
    figure = curves.pool_curves(curves.resampled(pd.concat([*parts, whole], ignore_index=True))[0])
    names = {trace.name for trace in figure.data if trace.showlegend}
    assert names == {"kernel ridge", "mined", "mined, no words", "oracle mining"}
    assert figure.layout.xaxis.ticktext == ("10 %", "50 %", "100 %")
