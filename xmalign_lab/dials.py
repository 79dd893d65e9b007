"""Figures of what can be turned: schedules and what a temperature does to a batch, thresholds, and runs as they go.

As in `plots`: pure functions, colour is language where there is one; where there is none, colours and dashes differ together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy import special

from xmalign_lab import languages, schedules, style
from xmalign_lab.style import BLUE, INK, ORANGE, QUIET, dress, empty, escaped, language_colour, language_name, number

MOST_STEPS = 600  # points of a curve; longer runs are drawn as means of equal stretches
NOT_TERMS = {"step", "steps", "epoch", "progress", "stage", "tau", "learning_rate", "seconds", "attraction", "repulsion"}
NOT_TERMS |= {"positive", "negative", "positive spread", "negative spread", "effective rank"}
VIEWS = ("loss", "temperature", "coefficients", "similarity", "rank", "validation")
STAGES = ("#F1F4F8", "#FFFFFF", "#F7F1E8")  # grounds that stay behind every line
PALE_BLUE, PALE_ORANGE = "#A9CEE5", "#F3CCB0"
SHADES = (BLUE, "#E69F00", "#882255", "#44AA99", style.SKY, INK)
DASHES = ("solid", "dash", "dot", "dashdot")
SIGNS = ("circle", "square", "diamond", "triangle-up")
HERE = {"mode": "markers", "marker": {"size": 12, "color": ORANGE, "symbol": "diamond"}, "cliponaxis": False}
FEW = 30  # candidates; the ranks of more need a logarithm
SEEN, STEPS = 40, 30  # rows whose own temperatures are followed, and for how long: a preview has 100 ms


# --- a run


def training(
    steps: pd.DataFrame, terms: Sequence[str] | None = None, views: Iterable[str] = VIEWS, edits: Iterable[Mapping] = ()
) -> go.Figure:
    """A run over its epochs, a panel for each of `views` (`VIEWS`) that it has numbers for.

    `steps` as `Step.row` has it: step or epoch, tau, `relation/term` and total (of which `terms` are drawn), attraction,
    repulsion, weight/…, positive and negative with their spread (bands of ± 1), effective rank, validation …. Grounds
    are the stages, dotted lines the `edits` (`{"step", "field"}`). A relation has the colour of the language it teaches.
    Raises `ValueError` for an unknown view.
    """
    if unknown := sorted(set(views) - set(VIEWS)):
        raise ValueError(f"unknown view {unknown[0]!r}; known are {', '.join(VIEWS)}")
    rows, note, x = _thinned(steps)
    parts = {view: traces for view, traces in _views(rows, x, terms).items() if view in views and traces} or {"loss": []}
    named = {view: [trace.name for trace in traces if trace.name] for view, traces in parts.items()}
    heights = [max(230 if view == "loss" else 120, 24 * len(names)) for view, names in named.items()]
    gap = 26 / (sum(heights) + 26 * (len(parts) - 1)) if len(parts) > 1 else 0
    figure = make_subplots(len(parts), 1, shared_xaxes=True, row_heights=heights, vertical_spacing=gap)
    title = "Training" if len(parts) > 1 else next(iter(parts)).capitalize()
    dress(figure, title, note, sum(heights) + 26 * len(parts) + 140)
    for row, (view, traces) in enumerate(parts.items(), 1):
        alone, legend = len(named[view]) == 1 and view != "loss", f"legend{row}" if row > 1 else "legend"
        figure.add_traces([t.update(legend=legend, showlegend=bool(t.name) and not alone) for t in traces], row, 1)
        figure.update_yaxes(title_text=named[view][0] if alone else view, row=row)
        top = figure.layout[f"yaxis{row}" if row > 1 else "yaxis"].domain[1]
        figure.layout[legend] = {"y": top, "yanchor": "top", "x": 1.01, "font_size": 12, "traceorder": "normal"}
    figure.update_yaxes(rangemode="tozero").update_xaxes(title_text=x.name, row=len(parts))
    grounds, words = _grounds(steps, x.name, edits)
    return figure.update_layout(shapes=grounds, annotations=words, margin_t=104 if words else 84, showlegend=True)


def _views(rows: pd.DataFrame, x: pd.Series, terms: Sequence[str] | None) -> dict[str, list[go.Scatter]]:
    """The curves of each view; those without a name are edges."""

    def line(column: str, name: str = "", colour: str = INK, dash: str = "solid", width: float = 2, **look) -> go.Scatter:
        drawn = {"mode": "lines", "line": {"color": colour, "dash": dash, "width": width, "shape": look.pop("shape", "linear")}}
        y = rows[column].to_numpy(np.float32)
        return go.Scatter(x=x, y=y, name=name or column, hovertemplate="%{y:.3g}", **{**drawn, **look})

    def band(name: str, colour: str) -> list[go.Scatter]:
        mean, spread = (rows[column].to_numpy(np.float32) for column in (name, f"{name} spread"))
        edge = {"x": x, "mode": "lines", "line_width": 0, "hoverinfo": "skip", "fillcolor": colour + "33"}
        edges = [go.Scatter(y=mean - spread, **edge), go.Scatter(y=mean + spread, fill="tonexty", **edge)]
        return [*edges, line(name, f"{name} ± spread", colour)]

    def several(columns: Iterable[str], **look) -> list[go.Scatter]:
        looks = zip(columns, cycle(SHADES), cycle(DASHES), strict=False)
        return [line(column, "", colour, dash, **look) for column, colour, dash in looks]

    def term(column: str, colour: str) -> go.Scatter:
        relation, _, kind = column.rpartition("/")
        codes = [code for code in re.findall(r"[a-z]{3}_[A-Z][a-z]{3}\w*", relation) if languages.known(code)]
        colour = INK if column == "total" else language_colour(codes[-1]) if codes else colour
        dash = DASHES[kinds.index(kind) % len(DASHES)] if relation else "solid"
        return line(column, f"{relation_name(relation)}, {kind}" if relation else kind, colour, dash)

    weights, checks = ([c for c in rows if c.startswith(start)] for start in ("weight/", "validation"))
    drawn = [c for c in rows if c not in NOT_TERMS.union(weights, checks)] if terms is None else terms
    kinds = list(dict.fromkeys(column.rpartition("/")[2] for column in drawn if "/" in column))
    now_and_then = {"mode": "lines+markers", "connectgaps": True}
    return {
        "loss": [term(column, colour) for column, colour in zip(drawn, cycle(style.TEMPLATE.layout.colorway), strict=False)],
        "temperature": [line("tau", "temperature τ", dash="dot", shape="hv")],  # an edit is a step, not a ramp
        "coefficients": several([c for c in ("attraction", "repulsion", *weights) if c in rows], shape="hv"),
        "similarity": [
            t for pair in (("positive", BLUE), ("negative", ORANGE)) if f"{pair[0]} spread" in rows for t in band(*pair)
        ],
        "rank": several([c for c in ("effective rank",) if c in rows], **now_and_then),
        "validation": several(checks, **now_and_then),
    }


def _grounds(steps: pd.DataFrame, over: str, edits: Iterable[Mapping]) -> tuple[list[dict], list[dict]]:
    """Shapes and annotations: a ground and a name for each stage, a dotted line and the field for each edit."""
    whole, shapes, words = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1}, [], []
    said = {"xref": "x", "yref": "paper", "y": 1, "xanchor": "left", "showarrow": False, "font": {"size": 12, "color": QUIET}}
    x, stage = steps[over].to_numpy(float), steps.get("stage", pd.Series("", steps.index)).to_numpy(object)
    begins = [i for i in range(len(x)) if stage[i] and (i == 0 or stage[i] != stage[i - 1])]
    for k, (begin, end) in enumerate(zip(begins, [*begins[1:], len(x)], strict=False)):
        look = {"type": "rect", "layer": "below", "line_width": 0, "fillcolor": STAGES[k % len(STAGES)]}
        shapes.append({"x0": x[begin], "x1": x[min(end, len(x) - 1)], **look, **whole})
        words.append({"x": x[begin], "text": escaped(str(stage[begin]), 16), "yanchor": "bottom", **said})
    for edit in edits:
        at = x[min(int(np.searchsorted(steps["step"], edit["step"])), len(x) - 1)]
        shapes.append({"type": "line", "x0": at, "x1": at, "line": {"color": INK, "width": 1, "dash": "dot"}, **whole})
        words.append({"x": at, "text": escaped(edit["field"], 16), "textangle": -90, "yanchor": "top", **said})
    return shapes, words


def _thinned(steps: pd.DataFrame) -> tuple[pd.DataFrame, str, pd.Series]:
    """At most `MOST_STEPS` rows (means of equal stretches), what was done to them, and the column to draw over."""
    rows, note, stretch = steps, "", -(-len(steps) // MOST_STEPS)
    if stretch > 1:
        rows = steps.groupby(np.arange(len(steps)) // stretch).mean(numeric_only=True)
        note = f"each point is the mean of {stretch} steps"
    return rows, note, rows["epoch" if "epoch" in rows else "step"].astype(np.float32)


# --- a threshold


def threshold_counts(scores: np.ndarray, value: float, truth: np.ndarray | None = None) -> dict[str, float]:
    """kept, of; with `truth` (n,) bool also precision and recall of the kept (score ≥ `value`); NaN where undefined.

    Raises `ValueError` for scores that are not finite, or a truth of another length.
    """
    scores = np.asarray(scores, float)
    if bad := int((~np.isfinite(scores)).sum()):
        raise ValueError(f"{bad} of {len(scores)} scores are not finite; score the pairs before choosing a threshold")
    kept = scores >= value
    counts = {"kept": int(kept.sum()), "of": len(scores)}
    if truth is None:
        return counts
    truth = np.asarray(truth, bool)
    if truth.shape != scores.shape:
        raise ValueError(f"{len(scores)} scores, but truth has shape {truth.shape}")
    hits = (kept & truth).sum()
    share = {"precision": (hits, kept.sum()), "recall": (hits, truth.sum())}
    return counts | {name: float(part / whole) if whole else float("nan") for name, (part, whole) in share.items()}


def threshold(
    scores: np.ndarray, value: float, truth: np.ndarray | None = None, sources: Sequence[str] | None = None, bins: int = 40
) -> go.Figure:
    """The histogram of pair scores (n,), what falls below `value` pale; with `truth` (n,) true and wrong pairs apart.

    Below it, with `sources` (n,), what each of them keeps. Under the title: how many are kept (score ≥ value) and, with
    `truth`, their precision and recall.
    """
    counts, scores = threshold_counts(scores, value, truth), np.asarray(scores, float)
    kept, edges, parts = scores >= value, np.histogram_bin_edges(scores, bins), {"": np.ones(len(scores), bool)}
    if truth is not None:
        parts = {"true, ": np.asarray(truth, bool), "wrong, ": ~np.asarray(truth, bool)}
    names = list(dict.fromkeys([] if sources is None else sources))
    heights = [250, *[40 * len(names)] * bool(names)]
    figure = make_subplots(len(heights), 1, row_heights=heights, vertical_spacing=56 / (56 + sum(heights)) * bool(names))
    header = f"kept {counts['kept']:,} of {counts['of']:,} ({counts['kept'] / max(1, counts['of']):.0%})"
    header += "".join(f" · {name} {number(counts[name])}" for name in ("precision", "recall") if name in counts)
    dress(figure, f"Threshold {number(value)}", header, sum(heights) + 56 * len(heights) + 84)
    for fate, mask, colours in (("kept", kept, (BLUE, ORANGE)), ("dropped", ~kept, (PALE_BLUE, PALE_ORANGE))):
        sides = np.clip(edges, *((value, np.inf) if fate == "kept" else (-np.inf, value)))  # no bar crosses the line
        place = {"x": ((sides[1:] + sides[:-1]) / 2).astype(np.float32), "width": (np.diff(sides) * 0.94).astype(np.float32)}
        for (name, chosen), colour in zip(parts.items(), colours, strict=False):
            look = {"name": name + fate, "marker": {"color": colour, "line_width": 0}}
            y = np.histogram(scores[chosen & mask], edges)[0].astype(np.int32)
            figure.add_bar(y=y, **place, hovertemplate="%{y} pairs near %{x:.2f}", **look, row=1, col=1)
            if names:
                _by_source(figure, chosen & mask, np.asarray(sources, object), names, look)
    figure.add_vline(x=float(value), line={"color": INK, "width": 2, "dash": "dash"}, row=1, col=1)
    figure.update_xaxes(title={"text": "score of the pair", "standoff": 4}, row=1).update_yaxes(title_text="pairs", row=1)
    if names:
        n = pd.DataFrame({"source": sources, "kept": kept}).groupby("source").kept.agg(["sum", "size"]).loc[names]
        counted = [f"<br><span style='font-size:12px'>{has:,} of {of:,}</span>" for has, of in n.itertuples(index=False)]
        ticks = {"tickvals": names, "ticktext": [relation_name(a) + b for a, b in zip(names, counted, strict=True)]}
        figure.update_yaxes(**ticks, autorange="reversed", showgrid=False, ticks="", row=2)
        figure.update_xaxes(range=[0, 1], tickformat=".0%", row=2)
    return figure.update_layout(barmode="stack", showlegend=True, legend_traceorder="normal")


def _by_source(figure: go.Figure, mask: np.ndarray, sources: np.ndarray, names: Sequence[str], look: Mapping) -> None:
    """One part of a bar per source, as a share of its pairs."""
    n = [int((mask & (sources == name)).sum()) for name in names]
    share = np.float32(n) / [(sources == name).sum() for name in names]
    hover = {"customdata": n, "hovertemplate": "%{customdata:,} pairs (%{x:.0%})"}
    figure.add_bar(y=names, x=share, orientation="h", showlegend=False, **hover, **look, row=2, col=1)


def reliability(tables: Mapping[str, pd.DataFrame], bins: int = 10) -> go.Figure:
    """Tables of `confidence.reliability` by name: the share that is right over the belief, and below how many pairs that is.

    On the dotted diagonal a belief is what it says; thin bars are each share's 95 % interval. The legend says how far the two
    lie apart, in the mean over pairs (expected calibration error; Guo et al. 2017, arXiv 1706.04599).
    """
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.75, 0.25], vertical_spacing=0.05)
    dress(figure, "Is a belief what it says?", "share of right pairs, with its 95 % interval", 480)
    diagonal = {"mode": "lines", "line": {"color": QUIET, "dash": "dot"}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=[0, 1], y=[0, 1], **diagonal, row=1, col=1)
    for i, ((name, table), colour, symbol) in enumerate(zip(tables.items(), cycle(SHADES), cycle(SIGNS), strict=False)):
        p, right, low, high, count = (table[column].to_numpy(np.float32) for column in ("p", "right", "low", "high", "count"))
        bars = {"array": high - right, "arrayminus": right - low, "thickness": 1.4, "width": 3}
        named = {"name": f"{name}, {number(float(np.average(np.abs(p - right), weights=count)))} apart", "legendgroup": name}
        hover = {"customdata": count, "hovertemplate": "believed at %{x:.2f}: %{y:.0%} of %{customdata:,} pairs are right"}
        look = {"mode": "lines+markers", "line_color": colour, "marker": {"symbol": symbol, "size": 9}, "cliponaxis": False}
        figure.add_scatter(x=p, y=right, error_y=bars, **named, **hover, **look, row=1, col=1)
        width, middle = 0.84 / bins / len(tables), (np.minimum((p * bins).astype(int), bins - 1) + 0.5) / bins
        beside = {"x": middle + width * (i - (len(tables) - 1) / 2), "width": width, "marker_color": colour, "showlegend": False}
        figure.add_bar(y=count, hovertemplate="%{y:,} pairs", **named, **beside, row=2, col=1)
    figure.update_xaxes(range=[0, 1], dtick=0.2).update_xaxes(title={"text": "belief", "standoff": 4}, row=2)
    figure.update_yaxes(title_text="right", tickformat=".0%", range=[0, 1], row=1).update_yaxes(title_text="pairs", row=2)
    return figure.update_layout(barmode="overlay", showlegend=True)


def relation_name(source: str) -> str:
    """'English–Swahili' for 'eng_Latn-swh_Latn', 'picture–English' for 'image-eng_Latn'; another source as it is called."""
    parts = ["" if part == "image" else part for part in str(source).split("-")]
    return "–".join(map(language_name, parts)) if all(not p or languages.known(p) for p in parts) else escaped(str(source), 30)


# --- a temperature


def softmax(similarities: np.ndarray, tau: float) -> tuple[np.ndarray, float]:
    """softmax(s / τ) of (n,), and exp(entropy): over how many candidates it is spread. Raises `ValueError` for τ ≤ 0."""
    if not tau > 0:
        raise ValueError(f"a temperature must be above 0, not {tau}")
    p = special.softmax(np.asarray(similarities, float) / tau)
    return p, float(np.exp(special.entr(p).sum()))


def temperature_softmax(similarities: np.ndarray, taus: float | Sequence[float], positive: int | None = None) -> go.Figure:
    """softmax(s / τ) over one row of similarities (n,), for each τ: how a low temperature sharpens it.

    Candidates stand in order of similarity; `positive` is the index of the right one. The legend says
    over how many candidates the probability is in effect spread.
    """
    row = np.asarray(similarities, float).ravel()
    order, taus = np.argsort(-row, kind="stable"), np.atleast_1d(np.asarray(taus, float))
    figure = empty("Softmax over one row", "p = softmax(similarity / τ)", height=380)
    for tau, colour in zip(taus, cycle(SHADES), strict=False):
        p, spread = softmax(row[order], tau)
        name, look = f"τ {number(tau)}, spread over {spread:.1f}", {"mode": "lines+markers", "line_color": colour}
        figure.add_scatter(x=np.arange(1, len(p) + 1), y=p.astype(np.float32), name=name, **look)
    if positive is not None:
        at = int(np.flatnonzero(order == positive)[0]) + 1
        figure.add_vline(at, line={"color": QUIET, "dash": "dot"}, annotation={"text": "the right one", "xanchor": "left"})
    titles = {"xaxis_title": "candidates, the most similar first", "yaxis": {"title": "probability", "range": [0, 1.05]}}
    return figure.update_layout(showlegend=True, **titles)


def block(similarities: np.ndarray, positives: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """`similarities` (n, m) or (m,) and the mask of the right ones, without rows where nothing competes, as `pushes` takes them.

    A single row's first candidate is right unless `positives` says otherwise. Raises `ValueError` for a block without a mask,
    shapes that do not fit, a number that is not finite, and if no row has a right and a wrong candidate.
    """
    sim = np.atleast_2d(np.asarray(similarities, np.float32))
    if positives is None and len(sim) > 1:
        raise ValueError(f"a block {sim.shape} of several rows needs `positives`, the mask of its right pairs")
    positives = np.atleast_2d(np.arange(sim.shape[1]) == 0 if positives is None else np.asarray(positives, bool))
    if sim.shape != positives.shape or not np.isfinite(sim).all():
        raise ValueError(f"similarities {sim.shape} and positives {positives.shape}: shapes must agree, numbers must be finite")
    both = positives.any(axis=1) & ~positives.all(axis=1)
    if not both.any():
        raise ValueError("no row has a right and a wrong candidate: in a batch of one nothing competes")
    return sim[both], positives[both]


def pushes(sim: np.ndarray, positives: np.ndarray, tau: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """`(right, share)`: how likely each right candidate is, and how the push away is shared among all wrong ones.

    `sim` and the mask `positives` are (n, m), a right and a wrong candidate in every row; τ broadcasts. `right` (k,) is
    P_ij = e^(s_ij/τ) / (e^(s_ij/τ) + Σ_wrong e^(s_ik/τ)), in order of rows. `share` (n, m), 0 where right and 1 in sum, is
    the gradient of InfoNCE's repulsion over rows, ∝ Σ_j (1 - P_ij) · softmax over the row's wrong ones (s_ik/τ_ik) / τ_ik.
    """
    logits = sim / tau
    wrong = np.where(positives, -np.inf, logits)
    rivals = special.logsumexp(wrong, axis=1)
    row, _ = place = np.nonzero(positives)
    margin = logits[place] - rivals[row]
    lift = np.full(len(sim), -np.inf)
    np.logaddexp.at(lift, row, -np.logaddexp(0, margin))  # in logarithms: 1 - P may be smaller than any number
    push = wrong + (lift - rivals)[:, None] - np.log(tau)
    push = np.exp(push - push.max())
    return special.expit(margin), push / push.sum()


def temperatures(plan: schedules.Schedule, sim: np.ndarray, positives: np.ndarray, progress: float):
    """`(at (k,), τ (k, 3), τ here)`: mean, lower and upper tenth over the run if every batch were this one, and at `progress`.

    τ here broadcasts against `sim` (n, m). Individual temperatures are followed over `STEPS` steps from their start.
    """
    import torch

    def spread(tau: np.ndarray) -> list[float]:
        return [tau.mean(), *np.quantile(tau, [0.1, 0.9])]

    if isinstance(plan, schedules.PerPair):
        tau = plan.spread(torch.from_numpy(sim)).numpy()
        return np.array([0.0, 1.0]), np.tile(spread(tau), (2, 1)), tau
    if isinstance(plan, schedules.Individual):
        taus, state, (left, right) = [], {}, (np.arange(len(sim)), np.arange(sim.shape[1]) + len(sim))
        for _ in range(STEPS + 1):
            tau, _, state = plan.update(torch.from_numpy(sim), torch.from_numpy(positives), left, right, state)
            taus.append(tau.numpy())
        return np.linspace(0, 1, STEPS + 1), np.array([*map(spread, taus)]), taus[round(STEPS * progress)]
    means = {"positive": float(sim[positives].mean()), "negative": float(sim[~positives].mean())}
    at, values = schedules.curve(plan, stats=means)
    return at, np.repeat(values[:, None], 3, axis=1), float(np.interp(progress, at, values))


def effect(plan: schedules.Schedule, sim: np.ndarray, positives: np.ndarray, progress: float) -> tuple[go.Figure, dict]:
    """What a temperature schedule does to a batch (`sim` and `positives` as `pushes` takes them), as a figure and in numbers.

    Above, τ over the run; below, at `progress`, the softmax over a row's candidates and how the push is shared among its wrong
    ones, both from the most similar down, means over rows. Numbers: tau, right (mean probability of the right ones),
    carrying (how many wrong candidates a row, from the most pushed down, hold 90 % of the push) of how many.
    """
    if isinstance(plan, schedules.Individual):
        sim, positives = sim[:SEEN], positives[:SEEN]
    at, curve, tau = temperatures(plan, sim, positives, progress)
    right, share = pushes(sim, positives, tau)
    hardest = -np.sort(-share, axis=1).sum(0)[: int((~positives).sum(1).max())]
    carrying = int(np.searchsorted(np.cumsum(hardest), 0.9 - 1e-9)) + 1
    numbers = {"tau": float(np.mean(tau)), "right": float(right.mean()), "carrying": carrying, "of": len(hardest)}
    figure = make_subplots(2, 2, specs=[[{"colspan": 2}, None], [{}, {}]], vertical_spacing=0.2, horizontal_spacing=0.16)
    header = f"at progress {number(progress)}: τ {number(numbers['tau'])}, a right one gets {number(numbers['right'])}, "
    header += f"90 % of the push is on {carrying:,} of {len(hardest):,} wrong ones"
    dress(figure, f"{type(plan).__name__} schedule", header, 560)
    _banded(figure, at, curve.T, "temperature", "lines", 1)
    figure.add_scatter(x=[progress], y=[np.interp(progress, at, curve[:, 0])], name="here", **HERE, row=1, col=1)
    p, few = special.softmax(sim / tau, axis=1), sim.shape[1] <= FEW
    row, column = np.nonzero(positives)
    rank = np.median(1 + (p[row] > p[row, column][:, None]).sum(1))
    k, mode = _ranks(sim.shape[1]), "lines+markers" if few else "lines"
    p = -np.sort(-p, axis=1)[:, k - 1]
    _banded(figure, k, np.array([p.mean(0), *np.quantile(p, [0.1, 0.9], axis=0)]), "candidates", mode, 2)
    figure.add_scatter(x=[rank], y=[numbers["right"]], name="the right one", **HERE, row=2, col=1)
    k = np.union1d(_ranks(len(hardest)), carrying)
    for name, part, colour in (("90 % of the push", k <= carrying, BLUE), ("the rest", k >= carrying, PALE_BLUE)):
        drawn = {"fill": "tozeroy", "line_color": colour, "mode": mode, "name": name, "hovertemplate": "%{x}: %{y:.3f}"}
        figure.add_scatter(x=k[part], y=hardest[k[part] - 1].astype(np.float32), **drawn, row=2, col=2)
    over = f"progress, as {STEPS} steps on this batch" if isinstance(plan, schedules.Individual) else "progress of training"
    titles = [(over, "temperature τ"), ("candidates, most similar first", "probability")]
    titles += [("wrong ones, hardest first", "share of the push")]
    for (row, col), (x, y) in zip(((1, 1), (2, 1), (2, 2)), titles, strict=True):
        figure.update_xaxes(title={"text": x, "standoff": 4}, row=row, col=col)
        figure.update_yaxes(title_text=y, row=row, col=col)
    figure.update_xaxes({"range": [0.5, sim.shape[1] + 0.5]} if few else {"type": "log", "dtick": 1}, row=2)
    return figure.update_yaxes(rangemode="tozero").update_layout(showlegend=False, hovermode="closest"), numbers


def _ranks(most: int) -> np.ndarray:
    """1 … most, thinned evenly in the logarithm where they are many."""
    return np.arange(1, most + 1) if most <= FEW else np.unique(np.geomspace(1, most, 120).round().astype(int))


def _banded(figure: go.Figure, x: np.ndarray, y: np.ndarray, name: str, mode: str, row: int) -> None:
    """A line y[0] and the band from y[1] to y[2]."""
    x, (middle, low, high) = x.astype(np.float32), y.astype(np.float32)
    edge = {"x": x, "mode": "lines", "line_width": 0, "hoverinfo": "skip", "row": row, "col": 1}
    figure.add_scatter(y=low, **edge).add_scatter(y=high, fill="tonexty", fillcolor=PALE_BLUE, **edge)
    figure.add_scatter(x=x, y=middle, name=name, mode=mode, line_color=BLUE, hovertemplate="%{y:.3g}", row=row, col=1)
