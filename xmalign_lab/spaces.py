"""The space as a figure: every point a picture or a text. Colour is language, symbol is modality.

How a point fares is judged among the vectors themselves (`judged`), never in the picture of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from xmalign_lab import projection, similarity
from xmalign_lab.style import INK, OF_LANGUAGE, OTHERS, empty, escaped, language_colour, language_name, number

SYMBOLS = {"text": "circle", "image": "diamond-open"}
MOST_SVG = 5_000  # points; beyond this a browser needs WebGL, and texts by point would be most of the figure
MOST_SHADES = 10  # values of a column that get a colour each
REST, GREY = "others", "#AAAAAA"
VERDICTS = {"✓ right": "#009E73", "✗ wrong": "#D55E00"}
UNASKED = "not asked"
# Cividis (Nuñez, Anderton and Renslow 2018) without its light end, which fades on white
DARK_TO_LIGHT = ["#00224E", "#35456C", "#666970", "#948E77", "#C8B866"]


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


def judged(points: pd.DataFrame, vectors: np.ndarray) -> pd.DataFrame:
    """A copy of `points` (n rows) with `rank`, `correct` and `gap` of each row, exact, among its vectors (n, d) of unit length.

    A text asks the pictures of each source for its own, a picture asks the texts of each language: every source and every
    language is a gallery by itself, as in the study, and `rank` is the mean over those that hold an answer (ties as the mean
    rank). `correct`: first in all of them. `gap`: 1 - cosine to the nearest row of its group in the other modality. NaN
    where nothing answers. `attrs` gain "R@1" (text → picture, the mean over galleries, then over languages) and "modality gap"
    (`evaluate.space.modality_gap`). Raises `ValueError` for another number of vectors.
    """
    if np.ndim(vectors) != 2 or len(vectors) != len(points):
        raise ValueError(f"{len(points)} points need vectors of shape ({len(points)}, d), not {np.shape(vectors)}")
    groups, text = points.group.to_numpy(object), (points.modality == "text").to_numpy()
    source = points.source.to_numpy(object) if "source" in points else np.full(len(points), "")
    texts = [np.flatnonzero(text & (points.lang == lang)) for lang in sorted(points.lang[text].unique())]
    pictures = [np.flatnonzero(~text & (source == name)) for name in sorted(set(source[~text]))]
    found, recalls = np.zeros((2, len(points))), []  # sums of ranks, and how many
    for asked in texts:
        firsts = []
        for gallery in pictures:
            both = similarity.both_ranks(vectors[asked], vectors[gallery], groups[asked], groups[gallery])
            for rows, ranks in zip((asked, gallery), both, strict=True):
                found[:, rows] += np.nan_to_num(ranks), ~np.isnan(ranks)
            firsts += [(both[0][~np.isnan(both[0])] == 1).mean()] if (~np.isnan(both[0])).any() else []
        recalls += [np.mean(firsts)] if firsts else []
    rank = np.divide(*found, out=np.full(len(points), np.nan), where=found[1] > 0)
    pairs = pd.DataFrame({"group": groups, "row": range(len(points))})
    pairs = pairs[text].merge(pairs[~text], on="group")
    apart = pairs.assign(gap=1 - np.einsum("ij,ij->i", vectors[pairs.row_x], vectors[pairs.row_y]))
    gap = pd.concat([apart.groupby(side).gap.min() for side in ("row_x", "row_y")]).reindex(range(len(points)))
    known = points.assign(rank=rank, correct=np.where(np.isnan(rank), None, rank == 1), gap=gap.to_numpy(float))
    numbers = {"R@1": float(np.mean(recalls))} if recalls else {}
    known.attrs = {**points.attrs, **numbers}
    if text.any() and not text.all():
        from xmalign_lab.evaluate.space import modality_gap  # here: it brings half of scikit-learn

        known.attrs["modality gap"] = modality_gap(vectors[~text], vectors[text])
    if {"x", "y"} <= set(points) and "trustworthiness" not in points.attrs:
        known.attrs["trustworthiness"] = projection.trustworthiness(vectors, points[["x", "y"]].to_numpy())
    return known


def valued(points: pd.DataFrame, name: str) -> pd.Series:
    """The column `name` (n,), or else what the labels say under that name, "" where they are silent."""
    return points[name] if name in points else points.labels.map(lambda labels: labels.get(name, ""))


def labelled(points: pd.DataFrame, most: int) -> list[tuple[str, str]]:
    """`(name, value)` of the labels there are, of names with at most so many values."""
    found: dict[str, set] = {}
    for labels in points.labels if "labels" in points else ():
        for name, value in labels.items():
            found.setdefault(name, set()).add(str(value))
    return [(name, value) for name in found if len(found[name]) <= most for value in sorted(found[name])]


def shades(points: pd.DataFrame, colour: str) -> tuple[pd.Series, dict[str, str]]:
    """What each point is called when coloured by `colour` (n,), and the colour of each name; in the order of a legend.

    The language's own; right and wrong; the ten most frequent values of any other column or label. `rank` and `gap` are
    continuous: all that has one is "", without a colour here.
    """
    values = valued(points, colour)
    if colour == "lang":
        return values, {value: language_colour(value) for value in sorted(values.unique(), key=lambda code: (code == "", code))}
    if colour in ("rank", "gap"):
        return pd.Series(np.where(values.isna(), UNASKED, "")), {UNASKED: GREY}
    if colour == "correct":
        return values.map(dict(zip((True, False), VERDICTS, strict=True))).fillna(UNASKED), {**VERDICTS, UNASKED: GREY}
    values = values.astype(str)
    most = sorted(values.value_counts().index[:MOST_SHADES])
    wheel = [*OF_LANGUAGE.values(), *OTHERS[::2]]  # every second one: neighbours there are alike
    return values.where(values.isin(most), REST), {**dict(zip(most, wheel, strict=False)), REST: GREY}


def parts(points: pd.DataFrame, colour: str = "lang", symbol: str = "modality") -> list[tuple[str, str, np.ndarray]]:
    """`(name of the colour, value of the symbol, row numbers (k,))` of each trace; pictures last, above the texts."""
    names, order = shades(points, colour)
    found = pd.DataFrame({"name": names.to_numpy(object), "shape": points[symbol].to_numpy(object)}).groupby(["name", "shape"])
    rank = {name: place for place, name in enumerate(order)}
    key = lambda item: (item[0][1] == "image", rank.get(item[0][0], -1), item[0][1])  # noqa: E731
    return [(name, shape, rows) for (name, shape), rows in sorted(found.indices.items(), key=key)]


def layers(
    points: pd.DataFrame,
    colour: str = "lang",
    symbol: str = "modality",
    keep: np.ndarray | None = None,
    selection: Collection[str] = (),
    group: str = "",
    shown: Sequence[str] | None = None,
    contours: bool | None = None,
    named: Sequence[tuple[str, str, np.ndarray]] | None = None,
) -> list[dict]:
    """Where everything lies that `space` draws, a dict for each trace: x, y, visible, selectedpoints.

    A point left out of `keep` (n,) bool has no x, so that all others keep their number; ids out of a `selection` fade.
    `named` are the `parts`, where they are known.
    """
    x, y = (points[axis].to_numpy(np.float32) for axis in ("x", "y"))
    keep = np.ones(len(points), bool) if keep is None else keep
    chosen = points.id.isin(set(selection)).to_numpy() if len(selection) else None
    found = []
    for _, _, rows in parts(points, colour, symbol) if named is None else named:
        bright = None if chosen is None else np.flatnonzero(chosen[rows]).tolist()
        place = {"x": np.where(keep[rows], x[rows], np.float32(np.nan)), "y": y[rows]}
        found.append({**place, "visible": bool(keep[rows].any()), "selectedpoints": bright})
    drawn = [] if contours is None else [(points.lang == lang).to_numpy() & keep for lang in sorted(points.lang.unique())]
    lines = [density(x[mask], y[mask]) if contours else (x[:0], y[:0]) for mask in drawn]
    lines = [{"x": line[0], "y": line[1], "visible": bool(len(line[0]))} for line in lines]
    return found + lines + [dict(zip(("x", "y"), links(points, group, shown), strict=True), visible=True)]


def space(
    points: pd.DataFrame,
    colour: str = "lang",
    symbol: str = "modality",
    header: str | Mapping | None = None,
    title: str = "The space",
    contours: bool | None = None,
    texts: bool = True,
    **shown,
) -> go.Figure:
    """A projected space; up to 5,000 points the hover of any point shows the captions of its group in every language.

    `points` has id, group, lang, modality, text, x, y; `colour` is one of its columns or a name in `labels` (`shades`).
    Without `texts` a hover shows nothing by itself, as where a panel beside it does.
    `header` stands under the title: a string, or numbers by name, to which the projection's own method, trustworthiness
    and seed are added. `contours` adds a line of `density` per language (False: traces to be filled later). `shown` are the
    other arguments of `layers`. The last trace holds the `links` of a group. `customdata` of a point is its group,
    up to 5,000 points; `parts` tells the rows of each trace.
    """
    few, size = len(points) <= MOST_SVG, 1 if len(points) <= MOST_SVG else 0.6 if len(points) <= 20_000 else 0.4
    kind, symbols, named = go.Scatter if few else go.Scattergl, cycle(SYMBOLS.values()), parts(points, colour, symbol)
    figure = empty(title, header if isinstance(header, str) else _numbers(header, points.attrs), _height(points))
    shapes = {value: SYMBOLS.get(value) or next(symbols) for value in sorted(points[symbol].unique())}
    said, colours = captions(points) if few and texts else {}, shades(points, colour)[1]
    hover = {g: "<br>".join(f"<b>{language_name(c)}</b> {escaped(t)}" for c, t in said[g][:12]) or escaped(g) for g in said}
    groups = points.group.to_numpy(object)
    values = [value for value, _, _ in named]
    several, many = len(set(values)) < len(values), len(values) > 6
    drawn = layers(points, colour, symbol, contours=contours, **shown)
    for i, ((value, shape, rows), place) in enumerate(zip(named, drawn, strict=False)):
        name, form = escaped(language_name(value) if colour == "lang" else str(value)), "picture" if shape == "image" else shape
        name = ", ".join(dict.fromkeys(filter(None, (name, form)))) if (several and not many) or not name else name
        look = {"symbol": shapes[shape], "size": (9 if shape == "image" else 7) * size, "opacity": 0.75}
        look |= (
            {"color": colours[value]} if value in colours else {"coloraxis": "coloraxis", "color": _scale(points, colour)[rows]}
        )
        told = {"hoverinfo": "name" if texts else "none"} | ({"customdata": groups[rows].tolist()} if few else {})
        if few and texts:
            told |= {"hovertext": [hover[g] for g in groups[rows]], "hovertemplate": "%{hovertext}<extra></extra>"}
        told |= {"legendgroup": value, "showlegend": value not in values[:i]} if several and many else {}  # a line, not two
        figure.add_trace(kind(**place, **told, mode="markers", name=name, meta=value, marker=look))
    quiet = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    for lang, line in zip(sorted(points.lang.unique()), drawn[len(named) : -1], strict=False):
        look = {"color": language_colour(lang), "width": 1.5, "dash": "solid" if lang else "dot"}
        figure.add_trace(go.Scatter(**line, **quiet, name=f"density, {language_name(lang)}", meta=lang, line=look))
    ends = {"symbol": "circle-open", "size": 13, "color": INK, "line": {"width": 2}}
    look = quiet | {
        "mode": "lines+markers",
        "line": {"color": INK, "width": 2},
        "marker": ends,
        "unselected": {"marker": {"opacity": 1}},
    }
    figure.add_trace(go.Scatter(**drawn[-1], **look, name="links"))
    axis = {"showgrid": False, "showticklabels": False, "ticks": "", "showline": True, "mirror": True}
    figure.update_xaxes(**axis, range=_extent(points.x)).update_yaxes(**axis, range=_extent(points.y), scaleanchor="x")
    figure.update_layout(margin={"l": 16, "r": 16, "b": 16}, hovermode="closest")
    return figure.update_layout(coloraxis=_bar(points, colour)) if colour in ("rank", "gap") else figure


def same(new, old) -> bool:
    """Of what a trace holds: numbers with NaN or None for a gap, a bool, or nothing."""
    if new is None or old is None or isinstance(new, bool):
        return new is old
    return len(new) == len(old) and np.array_equal(np.asarray(new, float), np.asarray(old, float), equal_nan=True)


def links(points: pd.DataFrame, group: str, shown: Sequence[str] | None = None) -> tuple[list, list]:
    """`(x, y)` of thin lines from each picture of `group` to each of its texts (of the languages `shown`): its gap."""
    rows = np.flatnonzero(points.group.to_numpy(object) == group)
    picture, lang = points.modality.to_numpy(object)[rows] == "image", points.lang.to_numpy(object)[rows]
    texts = [row for row, code in zip(rows[~picture], lang[~picture], strict=True) if shown is None or code in shown]
    ends = [(one, other) for one in rows[picture] for other in texts]
    places = (points[axis].to_numpy() for axis in "xy")
    x, y = ([end for pair in ends for end in (*(round(float(at[row]), 4) for row in pair), None)] for at in places)
    return x, y


def density(x: np.ndarray, y: np.ndarray, shares: Sequence[float] = (0.5, 0.9), cells: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Lines around the densest regions that hold `shares` of the points (n,), (n,): `(x, y)` float32, NaN between two lines.

    Highest density regions (Hyndman 1996): the level of a share is the quantile of the density at the points themselves. The
    density is Gaussian on a grid, half as wide as Scott's rule says, which is for one cloud, not for islands. Fewer
    than ten points, or points on one line, have none.
    """
    from scipy.ndimage import gaussian_filter
    from skimage.measure import find_contours

    if len(x) < 10 or min(np.std(x), np.std(y)) < 1e-9:
        return np.empty(0, np.float32), np.empty(0, np.float32)
    places, widths = np.stack([x, y]).astype(float), [side.std() * len(x) ** (-1 / 6) / 2 for side in (x, y)]
    low, high = places.min(1) - 4 * np.array(widths), places.max(1) + 4 * np.array(widths)
    step = (high - low) / cells
    counts = np.histogram2d(*places, cells, list(zip(low, high, strict=True)))[0]
    height = gaussian_filter(counts, np.maximum(widths / step, 1.5), mode="constant")  # finer than its grid it would be noise
    of_points = height[tuple(((places.T - low) / step).astype(int).clip(0, cells - 1).T)]
    lines = [line for share in shares for line in find_contours(height, np.quantile(of_points, 1 - share))]
    apart = [np.r_[low + (line + 0.5) * step, [[np.nan, np.nan]]] for line in lines]
    return tuple(np.ascontiguousarray(np.concatenate(apart).T, np.float32)) if apart else (x[:0], y[:0])


def png(figure: go.Figure, path: str | Path, width: int = 1000, scale: float = 2) -> Path:
    """The figure as a PNG, drawn by Chromium or Chrome without a network; `RuntimeError` tells what is missing."""
    try:
        import kaleido
        from kaleido.errors import ChromeNotFoundError
    except ImportError:
        raise RuntimeError("a PNG needs kaleido: pip install 'xmalign-lab[browser]'") from None
    options = {"format": "png", "width": width, "height": figure.layout.height or 560, "scale": scale}
    try:  # kaleido would fetch MathJax, which no figure here needs
        image = kaleido.calc_fig_sync(figure.to_plotly_json(), opts=options, kopts={"mathjax": False})
    except ChromeNotFoundError:
        raise RuntimeError("a PNG needs Chromium or Chrome: install one, or name its path in BROWSER_PATH") from None
    Path(path).write_bytes(image)
    return Path(path)


def scatter(points: pd.DataFrame, colour: str = "lang"):
    """The space as a `jscatter.Scatter`, for more points than plotly draws, in the colours of `space`.

    Raises `RuntimeError` where jupyter-scatter is not installed.
    """
    try:
        import jscatter
    except ImportError:
        raise RuntimeError("more than 100,000 points need jupyter-scatter: pip install 'xmalign-lab[explore]'") from None
    names, colours = shades(points, colour)
    table = points[["x", "y"]].reset_index(drop=True)
    if colour in ("rank", "gap"):
        table[colour], by = _scale(points, colour), DARK_TO_LIGHT
    else:
        table[colour] = [language_name(name) if colour == "lang" else name for name in names]
        by = {language_name(name) if colour == "lang" else name: shade for name, shade in colours.items()}
        by = {name: by[name] for name in by if name in set(table[colour])}
    return jscatter.Scatter(data=table, x="x", y="y", color_by=colour, color_map=by, legend=True, aspect_ratio=1.5, height=560)


def _scale(points: pd.DataFrame, colour: str) -> np.ndarray:
    """The numbers of a continuous colour (n,) float32: the ranks' logarithm, the gaps themselves."""
    values = points[colour].to_numpy(np.float32)
    return np.log10(values) if colour == "rank" else values


def _bar(points: pd.DataFrame, colour: str) -> dict:
    most = np.nanmax(_scale(points, colour), initial=0.1)
    bar = {"title": colour, "thickness": 14, "len": 0.6, "y": 0, "yanchor": "bottom"}
    if colour == "rank":
        ticks = [value for value in (1, 2, 5, 10, 20, 50, *(10**k for k in range(2, 7))) if np.log10(value) <= most]
        bar |= {"tickvals": np.log10(ticks).tolist(), "ticktext": [f"{tick:,}" for tick in ticks]}
    return {"colorscale": DARK_TO_LIGHT, "cmin": 0, "cmax": float(most), "colorbar": bar}


def _extent(values: pd.Series) -> list[float]:
    """From the least to the largest, and a little more: fixed, so that a filter moves no axis."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    pad = (high - low) / 25 or 1.0
    return [low - pad, high + pad]


def _height(points: pd.DataFrame) -> int:
    """Pixels: as high as a paper of usual width needs, since both axes have one scale; a wide space left half of it empty."""
    (left, right), (low, high) = _extent(points.x), _extent(points.y)
    return int(np.clip(120 + 800 * (high - low) / (right - left), 360, 560))


def _numbers(header: Mapping | None, attrs: Mapping) -> str:
    """'R@1 .31 · gap .8 · PCA, trustworthiness .93 · seed 0'."""
    given = {name: attrs[name] for name in ("R@1", "modality gap") if name in attrs} if header is None else header
    parts = [f"{name} {number(value) if isinstance(value, float) else value}" for name, value in given.items()]
    trust = [f"trustworthiness {number(attrs['trustworthiness'])}"] if "trustworthiness" in attrs else []
    parts += (
        [", ".join([*([str(attrs["method"]).upper()] if "method" in attrs else []), *trust])]
        if trust or "method" in attrs
        else []
    )
    return " · ".join(parts + ([f"seed {attrs['seed']}"] if "seed" in attrs else []))
