"""How every figure looks: one calm template for light and dark pages, the colours of the languages, how a number is written.

A figure is drawn for a light page. `NIGHT_CSS`, which the widgets and the gallery bring along, repaints its inks where
JupyterLab's theme, Voila or the gallery is dark, without drawing it again; on a dark page without it a figure stays a
white card. No single ink could serve both grounds: 4.5:1 against #FFFFFF and against #111111 exclude each other.
"""

from __future__ import annotations

import html
import re
import unicodedata

import plotly.graph_objects as go
import plotly.io

from xmalign_lab import languages
from xmalign_lab.corpus import hashed_fraction
from xmalign_lab.encoders.classic import graphemes

PAPER, NIGHT = "#FFFFFF", "#111111"  # the grounds, the second JupyterLab's
INK, QUIET, GRID, EDGE, PICTURE = "#333333", "#666666", "#E6E6E6", "#BBBBBB", "#666666"
# After Okabe & Ito (2008). Theirs for the first four; the others and `OTHERS` were searched for: at least 3:1 on both grounds, so
# that a language keeps its colour on either, and as far apart as that allows for every kind of colour blindness.
BLUE, ORANGE, SKY = "#0072B2", "#D55E00", "#3388FF"
OF_LANGUAGE = {
    "eng_Latn": BLUE,
    "swh_Latn": ORANGE,
    "sin_Sinh": "#009E73",
    "hau_Latn": "#CC79A7",
    "que_Latn": "#885533",
    "deu_Latn": SKY,
}
OTHERS = ("#BB0088", "#997755", "#7722FF", "#EE6688", "#779944", "#BB5588", "#CC0000", "#9988CC")
# Inks that turn with the page, and pale fills, which the rule of `on_night` would take for grounds or leave glaring.
TURNED = {PAPER: NIGHT, INK: "#E0E0E0", QUIET: "#A6A6A6", GRID: "#2E2E2E", EDGE: "#5E5E5E"}
TURNED |= {"#F1F4F8": "#1B2027", "#F7F1E8": "#262019", "#A9CEE5": "#23485F", "#F3CCB0": "#66391A"}

# By script: Noto's, then what Windows and macOS bring along.
FACES = {
    "Sinh": ("Noto Sans Sinhala", "Nirmala UI", "Sinhala Sangam MN"),
    "Ethi": ("Noto Sans Ethiopic", "Ebrima", "Kefa"),
    "Mymr": ("Noto Sans Myanmar", "Myanmar Text", "Myanmar Sangam MN"),
    "Arab": ("Noto Sans Arabic", "Segoe UI", "Geeza Pro"),
    "Cher": ("Noto Sans Cherokee", "Gadugi", "Plantagenet Cherokee"),
}
FONT = ", ".join(
    ["system-ui", "'Noto Sans'", *(f"'{face}'" for faces in FACES.values() for face in faces), "Arial", "sans-serif"]
)
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_axis = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": EDGE,
    "ticks": "outside",
    "tickcolor": EDGE,
    "automargin": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 14, "color": INK},
        "title": {"x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 24}, "font": {"size": 17}},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": [BLUE, ORANGE, *list(OF_LANGUAGE.values())[2:], *OTHERS],
        "margin": {"l": 64, "r": 24, "t": 84, "b": 56},
        "hoverlabel": {
            "bgcolor": PAPER,
            "bordercolor": EDGE,
            "align": "left",
            "font": {"size": 14, "color": INK, "family": FONT},
        },
        "legend": {"itemsizing": "constant", "font": {"size": 13}},
        "xaxis": _axis,
        "yaxis": _axis,
        "bargap": 0.06,
    }
)


def contrast(a: str, b: str) -> float:
    """WCAG 2's contrast of two colours "#RRGGBB", 1 to 21: (L₁ + .05) / (L₂ + .05), L the relative luminance."""
    dim, bright = sorted(_luminance(colour) for colour in (a, b))
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    parts = (value / 255 for value in bytes.fromhex(colour[1:]))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def on_night(colour: str) -> str:
    """What "#RRGGBB" becomes on a dark page: `TURNED`, or itself, or lightened until it stands out by 3:1."""
    if (colour := colour.upper()) in TURNED:
        return TURNED[colour]
    parts, white = bytes.fromhex(colour[1:]), 0.0
    mixed = colour
    while contrast(mixed, NIGHT) < 3:
        white += 0.02
        mixed = "#" + "".join(f"{round(part + (255 - part) * white):02X}" for part in parts)
    return mixed


def dark(figure: go.Figure) -> go.Figure:
    """The same figure for a dark ground: a dark slide, a picture file."""
    return plotly.io.from_json(re.sub(r"#[0-9A-Fa-f]{6}\b", lambda found: on_night(found[0]), figure.to_json()))


def night_css(colours=()) -> str:
    """Rules that repaint drawn figures on a dark page: the style's own inks and `colours`, "#RRGGBB"."""
    night = 'body[data-jp-theme-light="false"] .js-plotly-plot '
    rules = [f"{night}.main-svg {{background: transparent !important}}", f"{night}.modebar-btn path {{fill: #A6A6A6 !important}}"]
    rules.append(f"{night}.modebar-group {{background: transparent !important}}")
    for colour in dict.fromkeys([*TURNED, *(colour.upper() for colour in colours)]):
        if (turned := on_night(colour)) == colour:
            continue
        r, g, b = bytes.fromhex(colour[1:])
        # white is also an ink, on a dark bar or cell, and stays one
        part = ":is(.bg, .hovertext path, .shapelayer path)" if colour == PAPER else ""
        for kind in ("fill", "stroke")[: 1 if part else 2]:
            written = (
                f'[style*="{kind}: rgb({r}, {g}, {b})"], [style*="{kind}:{colour}" i]'  # a title's <span> keeps its own words
            )
            rules.append(f"{night}{part}:is({written}) {{{kind}: {turned} !important}}")
    return "\n".join(rules)


NIGHT_CSS = night_css()


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
    """`text` safe inside a plotly label (which reads tags), cut at `longest` graphemes; from right to left where it must be."""
    if len(text) > longest and len(letters := graphemes(text)) > longest:
        kept = letters[: longest - 1]
        while kept and kept[-1].endswith("\u200d"):  # UAX 29 parts a Sinhala conjunct (ශ්‍රී) behind its joiner
            kept.pop()
        text = "".join(kept) + "…"
    cut = html.escape(text, quote=False)
    right_to_left = any(unicodedata.bidirectional(sign) in ("R", "AL") for sign in cut)
    return f"\u2068{cut}\u2069" if right_to_left else cut  # Unicode's isolates: a label in SVG knows no <bdi>


def number(value: float) -> str:
    """A number as the tables write it: '.93', '.035', '1', '12.3', '1,235', '1.2·10⁻⁵', '–' for NaN.

    Two decimals, and from 10 on as many as make three digits, whole numbers whole; two digits below .1; no idle zero. What is
    less than 1 is never rounded to 1: '.996', and '.999' for all beyond (within 10⁻⁶, where float32 ends, it is 1).
    """
    if value != value:
        return "–"
    size, sign = abs(value), "-" if value < 0 else ""
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    text = f"{size:.2g}" if size < 0.1 else f"{size:,.{decimals}f}"
    if text == "1.00" and size < 1 - 1e-6:
        text = min(f"{size:.3f}", "0.999")
    digits, _, power = text.partition("e")
    digits = re.sub(r"^0\.", ".", digits.rstrip("0").rstrip(".") if "." in digits else digits)
    return sign + digits + (f"·10{str(int(power)).translate(RAISED)}" if power else "")


def empty(title: str, header: str, height: int) -> go.Figure:
    return dress(go.Figure(), title, header, height)


def dress(figure: go.Figure, title: str, header: str, height: int) -> go.Figure:
    # plotly's own subtitle lands on the title where a figure is first drawn unseen, as JupyterLab does
    below = f'<br><span style="font-size:14px;color:{QUIET}">{header}</span>' if header else ""
    return figure.update_layout(template=TEMPLATE, height=height, title_text=title + below)
