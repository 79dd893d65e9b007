"""How every figure looks: one calm template, the colours of the languages, how a number and a label are written."""

from __future__ import annotations

import html
import re

import plotly.graph_objects as go

from xmalign_lab import languages
from xmalign_lab.corpus import hashed_fraction

INK, QUIET, GRID, PICTURE = "#333333", "#777777", "#E6E6E6", "#333333"
# Okabe & Ito (2008), without the yellow that fades on white, for the languages the notebooks speak of;
# Tol's "muted" scheme for all others. Both stay apart for colour-blind readers.
BLUE, ORANGE, SKY = "#0072B2", "#D55E00", "#56B4E9"
OF_LANGUAGE = {
    "eng_Latn": BLUE,
    "swh_Latn": ORANGE,
    "sin_Sinh": "#009E73",
    "hau_Latn": "#CC79A7",
    "que_Latn": "#E69F00",
    "deu_Latn": SKY,
}
OTHERS = ("#332288", "#117733", "#999933", "#CC6677", "#882255", "#44AA99", "#AA4499", "#661100")

FONT = "system-ui, 'Noto Sans', 'Segoe UI', Arial, sans-serif"
_axis = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": "#BBBBBB",
    "ticks": "outside",
    "tickcolor": "#BBBBBB",
    "automargin": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 14, "color": INK},
        "title": {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 24}, "font": {"size": 17}},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": [BLUE, ORANGE, *list(OF_LANGUAGE.values())[2:], *OTHERS],
        "margin": {"l": 64, "r": 24, "t": 84, "b": 56},
        "hoverlabel": {
            "bgcolor": "white",
            "bordercolor": "#BBBBBB",
            "align": "left",
            "font": {"size": 14, "color": INK, "family": FONT},
        },
        "legend": {"itemsizing": "constant", "font": {"size": 13}},
        "xaxis": _axis,
        "yaxis": _axis,
        "bargap": 0.06,
    }
)


def language_name(code: str) -> str:
    """'Swahili' for 'swh_Latn'; 'picture' for the empty code of image rows."""
    return languages.info(code).name if code else "picture"


def language_colour(code: str) -> str:
    """The colour of a language, the same in every figure and run; regions share it. The empty code is a picture."""
    if not code:
        return PICTURE
    code = languages.info(code).code
    return OF_LANGUAGE.get(code) or OTHERS[int(hashed_fraction(f"colour {code}") * len(OTHERS))]


def escaped(text: str, longest: int = 70) -> str:
    """`text` safe inside a plotly label (which reads tags), cut at `longest` characters."""
    return html.escape(text if len(text) <= longest else text[: longest - 1] + "…", quote=False)


def number(value: float) -> str:
    """Three digits at most and no idle zero, as the tables write: '.93', '1', '–' for NaN."""
    if value != value:
        return "–"
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.2g}" if abs(value) < 0.1 else f"{value:.2f}".rstrip("0").rstrip("."))


def empty(title: str, header: str, height: int) -> go.Figure:
    return dress(go.Figure(), title, header, height)


def dress(figure: go.Figure, title: str, header: str, height: int) -> go.Figure:
    # plotly's own subtitle lands on the title where a figure is first drawn unseen, as JupyterLab does
    below = f'<br><span style="font-size:14px;color:{QUIET}">{header}</span>' if header else ""
    return figure.update_layout(template=TEMPLATE, height=height, title_text=title + below)
