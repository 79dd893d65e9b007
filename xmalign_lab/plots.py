"""Pure functions from numbers to plotly figures. Colour is language, symbol is modality, everywhere.

Text from a corpus is escaped before it reaches a hover label, arrays are stored as 32-bit floats, and no figure
has a fixed width, so each fits a notebook as well as a page. What shows pictures is in `pictures`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xmalign_lab import languages, schedules
from xmalign_lab.style import (
    BLUE,
    INK,
    ORANGE,
    QUIET,
    SKY,
    TEMPLATE,
    dress,
    empty,
    escaped,
    language_colour,
    language_name,
    number,
)

SYMBOLS = {"text": "circle", "image": "diamond-open"}
MOST_SVG = 5_000  # points; beyond this a browser needs WebGL
MOST_STEPS = 600  # points of a curve; longer runs are drawn as means of equal stretches
NOT_TERMS = {"step", "steps", "epoch", "progress", "stage", "tau", "learning_rate", "seconds", "attraction", "repulsion"}
NOT_TERMS |= {"positive", "negative", "positive spread", "negative spread", "effective rank"}
RANK_EDGES = (1, 5, 10, 50, 100)


def captions(points: pd.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """`{group: [(lang, text), …]}`, one text per language: the first that is not a list of keywords."""
    texts = points[points.modality == "text"]
    if "kind" in texts:
        texts = texts.assign(last=texts.kind == "keywords").sort_values("last", kind="stable")
    first = texts.drop_duplicates(["group", "lang"]).sort_values("lang", kind="stable")
    found: dict[str, list[tuple[str, str]]] = {group: [] for group in points.group}
    for group, lang, text in zip(first.group, first.lang, first.text, strict=True):
        found[group].append((lang, text))
    return found


def space(
    points: pd.DataFrame, colour: str = "lang", symbol: str = "modality", header: str | Mapping | None = None, title="The space"
) -> go.Figure:
    """A projected space; the hover of any point shows the captions of its group in every language.

    `points` has id, group, lang, modality, text, x, y. `header` stands under the title: a string, or numbers by
    name, to which the projection's own method, trustworthiness and seed are added. The last trace is empty:
    `links` fills it. `customdata` of a point is its group.
    """
    said = captions(points)
    hover = {g: "<br>".join(f"<b>{language_name(c)}</b> {escaped(t)}" for c, t in said[g][:12]) or escaped(g) for g in said}
    kind = go.Scattergl if len(points) > MOST_SVG else go.Scatter
    figure, symbols = (
        empty(title, header if isinstance(header, str) else _numbers(header, points.attrs), height=560),
        cycle(SYMBOLS.values()),
    )
    shapes = {value: SYMBOLS.get(value) or next(symbols) for value in sorted(points[symbol].unique())}
    wheel = cycle(TEMPLATE.layout.colorway)
    colours = {v: language_colour(v) if colour == "lang" else next(wheel) for v in sorted(points[colour].unique())}
    order = sorted(points.groupby([colour, symbol]), key=lambda item: (item[0][0] == "", item[0]))  # pictures above texts
    several = points.assign(c=points[colour], s=points[symbol]).drop_duplicates(["c", "s"]).c.duplicated().any()
    for (value, shape), rows in order:
        name = language_name(value) if colour == "lang" else str(value)
        figure.add_trace(
            kind(
                x=rows.x.to_numpy(np.float32),
                y=rows.y.to_numpy(np.float32),
                mode="markers",
                name=f"{name}, {shape}" if several and name != "picture" else name,
                meta={"colour": value},
                marker={"color": colours[value], "symbol": shapes[shape], "size": 9 if shape == "image" else 7, "opacity": 0.75},
                customdata=rows.group.tolist(),
                hovertext=[hover[group] for group in rows.group],
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    figure.add_trace(
        go.Scatter(x=[], y=[], mode="lines", name="links", line={"color": INK, "width": 2}, hoverinfo="skip", showlegend=False)
    )
    figure.update_xaxes(showgrid=False, showticklabels=False, ticks="", showline=True, mirror=True)
    figure.update_yaxes(showgrid=False, showticklabels=False, ticks="", showline=True, mirror=True, scaleanchor="x")
    figure.update_layout(margin={"l": 16, "r": 16, "b": 16}, hovermode="closest")
    return figure


def links(points: pd.DataFrame, group: str, shown: Sequence[str] | None = None) -> tuple[list, list]:
    """`(x, y)` of thin lines from each picture of `group` to each of its texts (of the languages `shown`): its gap."""
    rows = points[points.group == group]
    texts = rows[(rows.modality == "text") & (rows.lang.isin(shown) if shown is not None else True)]
    x, y = [], []
    for picture in rows[rows.modality == "image"].itertuples():
        for text in texts.itertuples():
            x += [round(float(picture.x), 4), round(float(text.x), 4), None]
            y += [round(float(picture.y), 4), round(float(text.y), 4), None]
    return x, y


def loss_curves(steps: pd.DataFrame, terms: Sequence[str] | None = None) -> go.Figure:
    """The terms of the loss over epochs. `steps` has step or epoch and a column per term (`relation/term`, `total`).

    A relation has the colour of the language it teaches; `total` is black.
    """
    rows, note, x = _thinned(steps)
    figure = empty("Loss", note, height=380)
    terms = [t for t in rows.columns if t not in NOT_TERMS and not t.startswith("weight/")] if terms is None else terms
    for term, wheel in zip(terms, cycle(TEMPLATE.layout.colorway), strict=False):
        codes = [code for code in re.findall(r"[a-z]{3}_[A-Z][a-z]{3}\w*", term) if languages.known(code)]
        line = {"color": language_colour(codes[-1]) if codes else wheel, "width": 1.8}
        if term == "total":
            line = {"color": INK, "width": 2.6}
        y = rows[term].to_numpy(np.float32)
        figure.add_scatter(
            x=x, y=y, name=term, mode="lines", line=line, hovertemplate=f"{escaped(term)} %{{y:.3f}}<extra></extra>"
        )
    figure.update_layout(xaxis_title=x.name, yaxis_title="loss", hovermode="x unified", showlegend=True)
    return figure


def temperature_curve(steps: pd.DataFrame) -> go.Figure:
    """The temperature τ that each step used."""
    rows, note, x = _thinned(steps)
    figure = empty("Temperature", note, height=320)
    figure.add_scatter(
        x=x,
        y=rows.tau.to_numpy(np.float32),
        name="τ",
        showlegend=False,
        mode="lines",
        line={"color": INK, "width": 2, "dash": "dot", "shape": "hv"},  # an edit is a step, not a ramp
    )
    figure.update_layout(xaxis_title=x.name, yaxis={"title": "temperature τ", "rangemode": "tozero"})
    return figure


def training(steps: pd.DataFrame, terms: Sequence[str] | None = None) -> go.Figure:
    """Loss above, temperature below, over the same epochs."""
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    above, below = loss_curves(steps, terms), temperature_curve(steps)
    figure.add_traces(list(above.data), rows=1, cols=1)
    figure.add_traces(list(below.data), rows=2, cols=1)
    dress(figure, "Training", _thinned(steps)[1], height=480)
    figure.update_yaxes(title_text="loss", row=1)
    figure.update_yaxes(title_text="temp. τ", rangemode="tozero", row=2)
    figure.update_xaxes(title_text=above.layout.xaxis.title.text, row=2)
    return figure


def threshold_counts(scores: np.ndarray, value: float, truth: np.ndarray | None = None) -> dict[str, float]:
    """kept, of; with `truth` (n,) bool also precision and recall of the kept (score ≥ `value`); NaN where undefined.

    Raises `ValueError` for scores that are not finite, or a truth of another length.
    """
    scores = np.asarray(scores, float)
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{(~np.isfinite(scores)).sum()} of {len(scores)} scores are not finite; score the pairs before choosing a threshold"
        )
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


def threshold(scores: np.ndarray, value: float, truth: np.ndarray | None = None, bins: int = 40) -> go.Figure:
    """The histogram of pair scores (n,), what falls below `value` pale; with `truth` (n,) true and wrong pairs apart.

    Under the title: how many are kept (score ≥ value) and, with `truth`, their precision and recall.
    """
    counts, scores = threshold_counts(scores, value, truth), np.asarray(scores, float)
    kept, edges = scores >= value, np.histogram_bin_edges(scores, bins)
    header = f"kept {counts['kept']:,} of {counts['of']:,} ({counts['kept'] / max(1, counts['of']):.0%})"
    header += "".join(f" · {name} {number(counts[name])}" for name in ("precision", "recall") if name in counts)
    blues, oranges = (BLUE, "#A9CEE5"), (ORANGE, "#F3CCB0")
    parts = [("pairs", np.ones(len(scores), bool), blues)]
    if truth is not None:
        parts = [("true", np.asarray(truth, bool), blues), ("wrong", ~np.asarray(truth, bool), oranges)]
    figure = empty(f"Threshold {number(value)}", header, height=380)
    for name, chosen, (strong, pale) in parts:
        for fate, mask, colour, low, high in (("kept", kept, strong, value, np.inf), ("dropped", ~kept, pale, -np.inf, value)):
            sides = np.clip(edges, low, high)  # the bin that holds the threshold is cut there, so that no bar crosses the line
            figure.add_bar(
                x=((sides[1:] + sides[:-1]) / 2).astype(np.float32),
                y=np.histogram(scores[chosen & mask], edges)[0].astype(np.int32),
                name=f"{name}, {fate}" if truth is not None else fate,
                marker={"color": colour, "line_width": 0},
                width=(np.diff(sides) * 0.94).astype(np.float32),
                hovertemplate="%{y} pairs near %{x:.2f}",
            )
    figure.add_vline(x=float(value), line={"color": INK, "width": 2, "dash": "dash"})
    figure.update_layout(barmode="stack", xaxis_title="score of the pair", yaxis_title="pairs", showlegend=True)
    return figure


def softmax(similarities: np.ndarray, tau: float) -> tuple[np.ndarray, float]:
    """softmax(s / τ) of (n,), and exp(entropy): over how many candidates it is spread. Raises `ValueError` for τ ≤ 0."""
    if not tau > 0:
        raise ValueError(f"a temperature must be above 0, not {tau}")
    p = np.exp((similarities - np.max(similarities)) / tau)
    p /= p.sum()
    return p, float(np.exp(-(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum()))


def temperature_softmax(similarities: np.ndarray, taus: float | Sequence[float], positive: int | None = None) -> go.Figure:
    """softmax(s / τ) over one row of similarities (n,), for each τ: how a low temperature sharpens it.

    Candidates stand in order of similarity; `positive` is the index of the right one. The legend says
    over how many candidates the probability is in effect spread.
    """
    row = np.asarray(similarities, float).ravel()
    order, taus = np.argsort(-row, kind="stable"), np.atleast_1d(np.asarray(taus, float))
    figure = empty("Softmax over one row", "p = softmax(similarity / τ)", height=380)
    shades = (BLUE, "#E69F00", "#882255", "#44AA99", SKY, INK)
    for tau, colour in zip(taus, cycle(shades), strict=False):
        p, spread = softmax(row[order], tau)
        figure.add_scatter(
            x=np.arange(1, len(p) + 1),
            y=p.astype(np.float32),
            name=f"τ {number(tau)}, spread over {spread:.1f}",
            mode="lines+markers",
            line={"color": colour, "width": 2, "shape": "linear"},
            marker={"size": 7},
            hovertemplate="candidate %{x}: %{y:.3f}<extra></extra>",
        )
    if positive is not None:
        at = int(np.flatnonzero(order == positive)[0]) + 1
        figure.add_vline(
            x=at, line={"color": QUIET, "dash": "dot"}, annotation_text="the right one", annotation_position="top right"
        )
    figure.update_layout(
        xaxis_title="candidates, the most similar first", yaxis={"title": "probability", "range": [0, 1.05]}, showlegend=True
    )
    return figure


def schedule(plan: schedules.Schedule, progress: float | None = None, name: str = "temperature τ") -> go.Figure:
    """A schedule over the progress of training; a dot at `progress`, if given."""
    at, values = schedules.curve(plan)
    figure = empty(f"{type(plan).__name__} schedule", "", height=380)
    figure.add_scatter(
        x=at.astype(np.float32), y=values.astype(np.float32), name=name, mode="lines", line={"color": BLUE, "width": 2.6}
    )
    if progress is not None:
        y = float(np.interp(progress, at, values))
        figure.add_scatter(x=[progress], y=[y], name="here", mode="markers", marker={"size": 13, "color": ORANGE})
    figure.update_layout(xaxis_title="progress of training", yaxis={"title": name, "rangemode": "tozero"}, showlegend=False)
    return figure


def recall_bars(table: pd.DataFrame, header: str = "") -> go.Figure:
    """A bar per method and language, a panel per metric, with its interval. Columns: lang, metric, value, low, high, method."""
    metrics, methods = list(dict.fromkeys(table.metric)), list(dict.fromkeys(table.method))
    codes = list(dict.fromkeys(table.lang))
    figure = make_subplots(1, len(metrics), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=metrics)
    for column, metric in enumerate(metrics, 1):
        for code in codes:
            rows = table[(table.metric == metric) & (table.lang == code)]
            value = rows.value.to_numpy(float)
            figure.add_bar(
                y=rows.method.tolist(),
                x=value,
                orientation="h",
                name=language_name(code),
                legendgroup=code,
                showlegend=column == 1,
                marker_color=language_colour(code),
                error_x={
                    "array": rows.high.to_numpy(float) - value,
                    "arrayminus": value - rows.low.to_numpy(float),
                    "thickness": 1.4,
                    "width": 3,
                    "color": INK,
                },
                customdata=np.c_[rows.low, rows.high],
                hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
                row=1,
                col=column,
            )
    dress(figure, "Retrieval", header, height=150 + len(methods) * (22 * len(codes) + 16))
    figure.update_layout(barmode="group", bargap=0.25, margin={"t": 104})
    figure.update_xaxes(rangemode="tozero", nticks=6)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", ticklabelstandoff=6)
    return figure


def rank_histogram(ranks: Mapping[str, np.ndarray], header: str = "") -> go.Figure:
    """At which rank the right answer stands: shares of queries per language `{lang: ranks (n,)}`, ranks from 1.

    The bars up to k add up to R@k; a tie's mean rank of 1.5 falls above 1.
    """
    figure, bounds = empty("Rank of the right answer", header, height=360), [0, *RANK_EDGES, np.inf]
    labels = ["1", *(f"{a + 1}–{b}" for a, b in zip(RANK_EDGES, RANK_EDGES[1:], strict=False)), f"> {RANK_EDGES[-1]}"]
    for code, values in ranks.items():
        values = np.asarray(values, float)
        share = [float(((values > low) & (values <= high)).mean()) for low, high in zip(bounds, bounds[1:], strict=False)]
        figure.add_bar(
            x=labels,
            y=share,
            name=f"{language_name(code)} ({len(values):,})",
            marker_color=language_colour(code),
            hovertemplate="%{y:.1%}",
        )
    figure.update_layout(barmode="group", bargap=0.2, xaxis={"title": "rank", "type": "category"}, showlegend=True)
    figure.update_yaxes(title_text="share of queries", tickformat=".0%")
    return figure


def language_bars(counts: Mapping[str, float], title: str, header: str = "", unit: str = "texts") -> go.Figure:
    """A bar per language `{code: count}`, in the order given."""
    figure = empty(title, header, height=360)
    names = [language_name(code) for code in counts]
    colours = [language_colour(code) for code in counts]
    figure.add_bar(
        x=names, y=list(counts.values()), marker_color=colours, hovertemplate=f"%{{x}}: %{{y:,}} {escaped(unit)}<extra></extra>"
    )
    return figure.update_layout(xaxis={"type": "category", "tickangle": -50, "dtick": 1}, yaxis_title=unit)


def similarity_heatmap(
    matrix: np.ndarray, labels: Sequence[str] | tuple[Sequence[str], Sequence[str]], title="Cosine similarity"
) -> go.Figure:
    """A similarity matrix (n, m), n, m ≤ 200, with `labels` for both sides or (rows, columns).

    Raises `ValueError` if they do not fit.
    """
    matrix = np.asarray(matrix, np.float32)
    rows, columns = labels if isinstance(labels, tuple) else (labels, labels)
    if matrix.shape != (len(rows), len(columns)) or max(matrix.shape) > 200:
        raise ValueError(
            f"a matrix {matrix.shape} with {len(rows)} and {len(columns)} labels; both must agree, 200 at most: take a sample"
        )
    figure = empty(title, "", height=max(320, min(720, 160 + 30 * len(rows))))
    figure.add_heatmap(
        z=matrix,
        colorscale="Cividis",
        colorbar={"thickness": 14, "title": "cos"},
        hovertemplate="row %{y}, column %{x}: %{z:.2f}<extra></extra>",
    )
    if max(matrix.shape) <= 12:
        figure.update_traces(texttemplate="%{z:.2f}")
    for axis, names in (("xaxis", columns), ("yaxis", rows)):
        ticks = {"tickvals": list(range(len(names))), "ticktext": [escaped(name, 24) for name in names]}
        figure.update_layout({axis: {"showgrid": False, "ticks": "", "showticklabels": len(names) <= 40, **ticks}})
    figure.update_yaxes(autorange="reversed")
    return figure


def _numbers(header: Mapping | None, attrs: Mapping) -> str:
    """'R@1 .31 · gap .8 · PCA, trustworthiness .93 · seed 0'."""
    parts = [f"{name} {number(value) if isinstance(value, float) else value}" for name, value in (header or {}).items()]
    if "method" in attrs:
        parts.append(f"{attrs['method'].upper()}, trustworthiness {number(attrs['trustworthiness'])} · seed {attrs['seed']}")
    return " · ".join(parts)


def _thinned(steps: pd.DataFrame) -> tuple[pd.DataFrame, str, pd.Series]:
    """At most `MOST_STEPS` rows (means of equal stretches), what was done to them, and the column to draw over."""
    rows, note, stretch = steps, "", -(-len(steps) // MOST_STEPS)
    if stretch > 1:
        rows = steps.groupby(np.arange(len(steps)) // stretch).mean(numeric_only=True)
        note = f"each point is the mean of {stretch} steps"
    return rows, note, rows["epoch" if "epoch" in rows else "step"].astype(np.float32)
