"""Pure functions from numbers to plotly figures. Colour is language, symbol is modality, everywhere.

Text from a corpus is escaped before it reaches a hover label, arrays are stored as 32-bit floats, and no figure
has a fixed width, so each fits a notebook as well as a page. The space is in `spaces`, what shows pictures in `pictures`,
what is turned and watched (schedules, thresholds, runs) in `dials`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from xmalign_lab.style import INK, dress, empty, escaped, language_colour, language_name

RANK_EDGES = (1, 5, 10, 50, 100)


def recall_bars(table: pd.DataFrame, header: str = "") -> go.Figure:
    """A bar per method and language, a panel per metric, with its interval. Columns: lang, metric, value, low, high, method."""
    metrics, methods = list(dict.fromkeys(table.metric)), list(dict.fromkeys(table.method))
    codes = list(dict.fromkeys(table.lang))
    figure = make_subplots(1, len(metrics), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=metrics)
    for column, metric in enumerate(metrics, 1):
        for code in codes:
            rows = table[(table.metric == metric) & (table.lang == code)]
            low, value, high = (rows[name].to_numpy(float) for name in ("low", "value", "high"))
            bars = {"array": high - value, "arrayminus": value - low, "thickness": 1.4, "width": 3, "color": INK}
            look = {"name": language_name(code), "legendgroup": code, "marker_color": language_colour(code), "orientation": "h"}
            look |= {
                "customdata": np.c_[low, high],
                "hovertemplate": "%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            }
            place = {"row": 1, "col": column, "showlegend": column == 1}
            figure.add_bar(y=rows.method.tolist(), x=value, error_x=bars, **look, **place)
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
        look = {"name": f"{language_name(code)} ({len(values):,})", "marker_color": language_colour(code)}
        figure.add_bar(x=labels, y=share, hovertemplate="%{y:.1%}", **look)
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
        labels = f"{len(rows)} and {len(columns)} labels"
        raise ValueError(f"a matrix {matrix.shape} with {labels}; both must agree, 200 at most: take a sample")
    figure = empty(title, "", height=max(320, min(720, 160 + 30 * len(rows))))
    look = {"colorscale": "Cividis", "colorbar": {"thickness": 14, "title": "cos"}}
    figure.add_heatmap(z=matrix, hovertemplate="row %{y}, column %{x}: %{z:.2f}<extra></extra>", **look)
    if max(matrix.shape) <= 12:
        figure.update_traces(texttemplate="%{z:.2f}")
    for axis, names in (("xaxis", columns), ("yaxis", rows)):
        ticks = {"tickvals": list(range(len(names))), "ticktext": [escaped(name, 24) for name in names]}
        figure.update_layout({axis: {"showgrid": False, "ticks": "", "showticklabels": len(names) <= 40, **ticks}})
    figure.update_yaxes(autorange="reversed")
    return figure
