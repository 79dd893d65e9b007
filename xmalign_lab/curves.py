"""The study as figures: methods against noise and against amounts of parallel text, and side by side at one condition.

Here colour is the method, the same in every figure, and each language has a panel of its own: no method has a
language's colour. A method has its symbol and its dash too, so that it is known without colour.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xmalign_lab.adaptive import PARTS
from xmalign_lab.baselines import chance
from xmalign_lab.evaluate.retrieval import per_query
from xmalign_lab.evaluate.significance import bootstrap_means, holm, p_value
from xmalign_lab.style import QUIET, dress, language_name
from xmalign_lab.sweep import ABLATIONS, CLEAN, NOISE, POOLS, TARGETS, WITHOUT_PARALLEL

CELL = ["method", "condition", "noise", "rate", "text", "lang"]
LOOKS = {  # a hue for each family of methods; a shade, a symbol and a dash for each of its members
    "constant τ": ("#3B2A73", "circle", "solid"),
    "CLIP loss": ("#6D5BB0", "square", "solid"),
    "ALIGN loss": ("#8F82CC", "diamond", "dash"),
    "SigLIP loss": ("#A99FDB", "triangle-up", "dashdot"),
    "M-CLIP": ("#7B1E3A", "cross", "solid"),
    "Reimers–Gurevych": ("#D9849B", "x", "dash"),
    "Procrustes": ("#4F5D1E", "star", "solid"),
    "Procrustes, words": ("#76842B", "star-square", "dashdot"),
    "kernel ridge": ("#8A5A00", "bowtie", "solid"),
    "adaptive": ("#00695C", "star-diamond", "solid"),
    "adaptive ridge": ("#2E9C8A", "star-triangle-up", "dash"),
    "whole transfer": ("#1B4F9C", "octagon", "solid"),
    "pseudo-pairs": ("#5B8DB8", "pentagon-open", "dash"),
    "CL2CM": ("#0B3C5D", "hexagram", "solid"),
    "NRCCR": ("#B35900", "diamond-tall", "solid"),
    "NRCCR, ensemble": ("#D98C40", "diamond-wide", "dash"),
    "mined": ("#B8336A", "circle-cross", "solid"),
    "mined, no words": ("#E08DB0", "circle-x", "dash"),
    "dictionary alone": ("#C49A6C", "hourglass", "dot"),
    "oracle mining": ("#222222", "square-cross", "dash"),
    "translate-test": ("#A3A94A", "hexagon", "dash"),
    "M2M projector": ("#7A5A3A", "triangle-down", "solid"),
    "uCLIP projector": ("#B59270", "triangle-left", "dash"),
    "string overlap": ("#A8A8A8", "square-open", "dot"),
    "no dictionary": ("#777777", "circle-open", "dash"),
    "oracle filter": ("#111111", "diamond-open", "dash"),
    "oracle translation": ("#444444", "hexagon-open", "dash"),
}
OTHER = ("#1F5C5C", "pentagon", "solid")  # whatever is no method of `sweep.METHODS`
FLAT = "no dictionary"  # nothing that is done to parallel text changes it
DOTS = {"color": QUIET, "dash": "dot", "width": 1.6}
PLACES = {1.0: 2.0, 0.1: 1.0, 0.01: 0.0, 0.0: -1.2}  # log10 of per cent; none at all has no logarithm and stands apart


def resampled(scores: pd.DataFrame, draws: int = 2000) -> tuple[pd.DataFrame, np.ndarray]:
    """MRR, text → image, of every cell of a study (`sweep.collect`), and the bootstrap means (draws, cells) behind it.

    The table has `CELL`, value, low, high (95 %), queries and what guessing scores, chance. A draw takes the same families for
    all cells, so columns of the means may be subtracted or divided: their quantiles are an interval of what comes of it.
    """
    asked = scores[scores.direction == "text→image"]
    values = pd.concat({key: per_query(part, "MRR") for key, part in asked.groupby(CELL[:-1])}, names=CELL[:-1])
    wide = values.reset_index(CELL[:-1]).pivot(index=CELL, columns=["query", "family"], values="value")
    means = bootstrap_means(wide.to_numpy(), wide.columns.get_level_values("family"), draws)
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    table = wide.index.to_frame(index=False).assign(value=wide.mean(axis=1).to_numpy(), low=low, high=high)
    guessed = {lang: chance(part)["MRR"] for lang, part in asked.groupby("lang")}
    return table.assign(queries=wide.notna().sum(axis=1).to_numpy(), chance=table.lang.map(guessed)), means


def noise_curves(table: pd.DataFrame, noise: str = "random") -> go.Figure:
    """MRR against the share of families with the wrong text, for one kind of `noise`; a panel per language.

    `table` as `resampled` makes it. Drawn is what was run at two rates or more; the oracle filter and no dictionary are
    references. Raises `ValueError` for a kind of noise that is not in the table.
    """
    rows = table[(table.text == 1) & ((table.rate == 0) | (table.noise == noise))]
    rates = {rate: 100 * rate for rate in sorted(rows.rate.unique())}
    if len(rates) < 2:
        raise ValueError(f"no run with {noise} noise; there are {', '.join(sorted(table[table.rate > 0].noise.unique()))}")
    header = "over the share of families with the wrong text"
    return _curves(rows.assign(x=rows.rate.map(rates)), rates, f"Wrong text: {noise} noise", header, apart=0.8)


def text_curves(table: pd.DataFrame) -> go.Figure:
    """MRR against the share of parallel text that is kept, on a logarithmic axis; as `noise_curves`.

    None at all has no logarithm: it stands apart, and what is left there is no dictionary.
    """
    rows = table[table.rate == 0]
    header = "over the share of parallel text that is kept"
    figure = _curves(rows.assign(x=rows.text.map(PLACES)), PLACES, "Less parallel text", header, apart=0.04)
    return figure.add_vline(x=PLACES[0.0] / 2, line={"color": QUIET, "width": 1})


def pool_curves(table: pd.DataFrame) -> go.Figure:
    """MRR without any parallel text, against the share of concepts that two pools of texts have in common; as `noise_curves`.

    Kernel ridge on the whole, clean parallel text is drawn at every share: what is given up.
    """
    pools = {str(condition): condition for condition in POOLS}
    rows = table[table.condition.isin(pools)]
    share, words = (rows.condition.map({name: getattr(of, what) for name, of in pools.items()}) for what in ("shared", "words"))
    places = {value: float(place) for place, value in enumerate(sorted(share.unique()))}
    rows = rows.assign(x=share.map(places), method=rows.method.where(words > 0, rows.method + ", no words"))
    whole = table[(table.condition == str(CLEAN)) & (table.method == "kernel ridge")]
    rows = pd.concat([rows, *(whole.assign(x=place) for place in places.values())])
    return _curves(rows, places, "No parallel text", "over the share of concepts that the two pools have in common", apart=0.05)


def _curves(rows: pd.DataFrame, ticks: Mapping, title: str, header: str, apart: float) -> go.Figure:
    """`rows` over their column x, methods `apart` from each other sideways so that all intervals are seen."""
    several = set(rows[rows.groupby("method").x.transform("nunique") > 1].method) | {"oracle filter", FLAT} & set(rows.method)
    drawn = [*(method for method in LOOKS if method in several), *sorted(several - set(LOOKS))]
    langs, columns = _languages(rows), 2 if rows.lang.nunique() in (1, 3) else 3
    lines = len(langs) // columns + 1  # a cell more than there are languages: the legend's
    cells = [[{} if row * columns + column < len(langs) else None for column in range(columns)] for row in range(lines)]
    gaps = {"horizontal_spacing": 0.05, "vertical_spacing": 0.24 / lines, "subplot_titles": list(map(language_name, langs))}
    figure = make_subplots(lines, columns, specs=cells, **gaps)
    ends = np.array([min(ticks.values()), max(ticks.values())]) + [-apart * len(drawn) / 2, apart * len(drawn) / 2]
    for place, lang in enumerate(langs):
        at = {"row": place // columns + 1, "col": place % columns + 1, "showlegend": not place}
        for k, method in enumerate(drawn):
            part = rows[(rows.lang == lang) & (rows.method == method)].sort_values("x")
            x, (colour, symbol, dash) = part.x + apart * (k - (len(drawn) - 1) / 2), LOOKS.get(method, OTHER)
            if method == FLAT:
                part, x = pd.concat([part, part]), ends
            shown = {"mode": "lines" if method == FLAT else "lines+markers", "line": {"color": colour, "dash": dash}}
            shown |= {"marker": {"symbol": symbol, "size": 8}, "line_width": 1.6, "name": method, "legendgroup": method}
            bars = _bars(part, color=colour, thickness=1, width=0)
            figure.add_scatter(x=np.asarray(x, np.float32), y=part.value.to_numpy(np.float32), error_y=bars, **shown, **at)
        figure.add_hline(y=rows[rows.lang == lang].chance.iloc[0], line=DOTS, row=at["row"], col=at["col"])
    dress(figure, title, f"MRR, text → image, {header}; 95 % intervals over families; dotted: chance", height=110 + 290 * lines)
    figure.update_traces(hovertemplate="%{y:.3f} (+%{error_y.array:.3f} −%{error_y.arrayminus:.3f})")
    figure.update_xaxes(tickvals=list(ticks.values()), ticktext=[f"{100 * share:g} %" if share else "none" for share in ticks])
    figure.update_yaxes(matches="y", rangemode="tozero").update_yaxes(title_text="MRR", col=1)
    legend = {"x": (columns - 1) / columns + 0.03, "y": 1 / lines - 0.06, "yanchor": "top", "tracegroupgap": 0}
    return figure.update_layout(legend=legend, margin_t=112)


def intervals(table: pd.DataFrame, condition: str) -> go.Figure:
    """Methods at one condition, the best on average on top, a dot and its interval in each language's panel.

    As `noise_curves`; methods that use no parallel text (`sweep.WITHOUT_PARALLEL`) are the same at every condition.
    """
    rows = table[(table.condition == condition) | ((table.condition == str(CLEAN)) & table.method.isin(WITHOUT_PARALLEL))]
    rows = rows[~rows.method.isin(ABLATIONS)]
    best, langs = rows.groupby("method").value.mean().sort_values().index, _languages(rows)
    gaps = {"horizontal_spacing": 0.02, "subplot_titles": list(map(language_name, langs))}
    figure = make_subplots(1, len(langs), shared_yaxes=True, **gaps)
    for column, lang in enumerate(langs, 1):
        part = rows[rows.lang == lang].set_index("method").loc[lambda part: [method for method in best if method in part.index]]
        colours, symbols, _ = zip(*(LOOKS.get(method, OTHER) for method in part.index), strict=True)
        shown = {"marker": {"color": colours, "symbol": symbols, "size": 8}, "mode": "markers", "showlegend": False}
        bars = _bars(part, color=QUIET, thickness=1.4, width=0)
        figure.add_scatter(x=part.value.to_numpy(np.float32), y=list(part.index), error_x=bars, **shown, row=1, col=column)
        figure.add_vline(x=part.chance.iloc[0], line=DOTS, row=1, col=column)
    header = f"{condition}; MRR, text → image, 95 % intervals over families; dotted: chance"
    dress(figure, "Methods side by side", header, height=160 + 26 * len(best))
    figure.update_traces(hovertemplate="%{y}: %{x:.3f} (+%{error_x.array:.3f} −%{error_x.arrayminus:.3f})<extra></extra>")
    figure.update_xaxes(matches="x", rangemode="tozero", nticks=4).update_yaxes(ticks="", ticklabelstandoff=6)
    return figure.update_layout(margin_t=112)


def contrast(table: pd.DataFrame, means: np.ndarray, a: str, b: str, condition: str, langs=TARGETS) -> tuple[float, ...]:
    """MRR of method `a` less that of `b` at one condition, mean over `langs`: difference, 95 % interval, p of the bootstrap."""
    at = [np.flatnonzero((table.method == m) & (table.condition == condition) & table.lang.isin(langs)) for m in (a, b)]
    value = float(table.value[at[0]].mean() - table.value[at[1]].mean())
    drawn = means[:, at[0]].mean(1) - means[:, at[1]].mean(1)
    return value, *map(float, np.quantile(drawn, [0.025, 0.975])), p_value(drawn - value, value)


def recovered(table: pd.DataFrame, means: np.ndarray, method: str, langs, floor="constant τ", condition: str = str(NOISE[0])):
    """(method - floor) / (oracle filter - floor) in MRR, mean over `langs`: the share and its 95 % interval.

    NaN where the oracle filter is not shown to gain anything: a share of nothing has no size.
    """
    named, every = (method, floor, "oracle filter"), np.vstack([table.value, means])
    at = [(table.method == m) & (table.condition == condition) & table.lang.isin(langs) for m in named]
    mine, low, high = (every[:, rows.to_numpy()].mean(1) for rows in at)
    if np.quantile((high - low)[1:], 0.025) <= 0:
        return (np.nan,) * 3
    share = (mine - low) / (high - low)
    return float(share[0]), *map(float, np.quantile(share[1:], [0.025, 0.975]))


def ablation(table: pd.DataFrame, means: np.ndarray, condition: str = str(NOISE[0])) -> pd.DataFrame:
    """Per part of `adaptive.PARTS` what MRR loses when it is removed from all, and gains when it is added to none.

    Columns part, and `removed`, `alone`, each with its low, high and p, Holm over all: a difference of means over languages,
    families resampled; one seed a fold.
    """
    pairs = {"removed": ("all parts", "without {}"), "alone": ("only {}", "no parts")}
    rows = [[contrast(table, means, *(m.format(part) for m in of), condition) for of in pairs.values()] for part in PARTS]
    columns = [f"{name}{of}" for name in pairs for of in ("", " low", " high", " p")]
    found = pd.DataFrame(np.reshape(rows, (len(PARTS), -1)), columns=columns)
    p = ["removed p", "alone p"]
    found[p] = holm(found[p].to_numpy().ravel()).reshape(-1, 2)
    return found.assign(part=PARTS)[["part", *columns]]


def shown(parts: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The parts of `ablation` that help and those that harm, removed or alone, at p < .05 after Holm."""
    sure = {name: parts[f"{name} p"] < 0.05 for name in ("removed", "alone")}
    helps, harms = (np.logical_or.reduce([sure[name] & (sign * parts[name] > 0) for name in sure]) for sign in (1, -1))
    return list(parts.part[helps]), list(parts.part[harms])


def ablation_bars(parts: pd.DataFrame) -> go.Figure:
    """What each part is worth, two dots with intervals a row, as `ablation` makes the table; right of zero it helps."""
    figure = go.Figure()
    for name, colour, symbol, shift in (("removed", "#7B1E3A", "diamond", -0.13), ("alone", "#00695C", "circle", 0.13)):
        bars = {"array": parts[f"{name} high"] - parts[name], "arrayminus": parts[name] - parts[f"{name} low"], "color": QUIET}
        label = "lost when it is removed from all" if name == "removed" else "gained when it is added to none"
        marker = {"color": colour, "symbol": symbol, "size": 9}
        figure.add_scatter(
            x=parts[name], y=np.arange(len(parts))[::-1] + shift, error_x=bars, mode="markers", marker=marker, name=label
        )
    figure.add_vline(x=0, line=DOTS)
    dress(
        figure,
        "What each part is worth",
        "difference in MRR, mean over languages; 95 % intervals over families",
        height=140 + 40 * len(parts),
    )
    figure.update_yaxes(tickvals=list(range(len(parts)))[::-1], ticktext=list(parts.part), ticks="")
    return figure.update_layout(legend={"orientation": "h", "y": -0.12}, margin_l=140)


def _languages(rows: pd.DataFrame) -> list[str]:
    """As the study names them, then by code."""
    return sorted(rows.lang.unique(), key=lambda lang: (TARGETS.index(lang) if lang in TARGETS else len(TARGETS), lang))


def _bars(part: pd.DataFrame, **drawn) -> dict:
    """Error bars from low to high."""
    high, low = (part.high - part.value).to_numpy(np.float32), (part.value - part.low).to_numpy(np.float32)
    return {"array": high, "arrayminus": low, **drawn}
