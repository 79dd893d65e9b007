"""A word over a picture: how much weight each patch has, drawn on the picture itself. Figures, and so their own static twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from PIL import Image
from plotly.subplots import make_subplots

from xmalign_lab.pictures import data_uri
from xmalign_lab.style import INK, ORANGE, dress, escaped, language_colour, language_name

Weights = Float[np.ndarray, "rows columns"]
# A veil, thick where there is no weight and gone where there is most: what a word points at keeps its own colours, and
# light against dark is the same to every eye.
VEIL = [[0, "rgba(0,32,76,.72)"], [1, "rgba(0,32,76,0)"]]


def word_over_picture(
    picture: Image.Image, weights: Weights, title: str = "A word over a picture", header: str = ""
) -> go.Figure:
    """The picture under its patches' `weights` (rows, columns); the greatest, or the first of several, has a frame.

    Raises `ValueError` for weights that are no finite matrix.
    """
    return _panels(picture, {"": weights}, title, header, height=400, top=84)


def one_word_many_languages(
    picture: Image.Image, words: Mapping[str, tuple[str, Weights]], title: str = "One meaning in many languages", header: str = ""
) -> go.Figure:
    """The picture once for each language of `words` {lang: (word, weights)}, side by side under one scale.

    Raises `ValueError` as `word_over_picture`, and without any word.
    """
    if not words:
        raise ValueError("one_word_many_languages needs a word in one language or more")
    label = '<b>{}</b><br><span style="color:{}">{}</span>'.format
    labels = {label(escaped(of[0], 24), language_colour(lang), language_name(lang)): of[1] for lang, of in words.items()}
    return _panels(picture, labels, title, header, height=340, top=132)


def transport(
    plans: Mapping[str, Weights], words: Sequence[str], others: Sequence[Sequence[str]], title: str, header: str = ""
) -> go.Figure:
    """Plans {label: (a, b)} of the same a `words` against the b words of each of `others`, side by side under one scale.

    A plan is drawn as the share of each word's mass, so that a row sums to 1; the greatest of a row has a frame. Raises
    `ValueError` for a plan of another shape than its words.
    """
    figure = make_subplots(1, len(plans), subplot_titles=[escaped(label, 60) for label in plans], horizontal_spacing=0.12)
    for column, ((label, plan), spoken) in enumerate(zip(plans.items(), others, strict=True), 1):
        plan, place = np.asarray(plan, np.float32), {"row": 1, "col": column}
        if plan.shape != (len(words), len(spoken)):
            raise ValueError(f"{label}: a plan {plan.shape} of {len(words)} words against {len(spoken)}")
        share = plan / plan.sum(1, keepdims=True)
        figure.add_heatmap(z=share, coloraxis="coloraxis", texttemplate="%{z:.2f}", hoverinfo="skip", **place)
        for row, best in enumerate(share.argmax(1)):
            ends = {"x0": best - 0.5, "x1": best + 0.5, "y0": row - 0.5, "y1": row + 0.5}
            figure.add_shape(type="rect", **ends, line={"color": ORANGE, "width": 3}, **place)
        figure.update_xaxes(tickvals=list(range(len(spoken))), ticktext=[escaped(word, 16) for word in spoken], **place)
        figure.update_yaxes(tickvals=list(range(len(words))), ticktext=[escaped(word, 16) for word in words], **place)
    dress(figure, title, header, height=160 + 44 * len(words))
    bar = {"thickness": 12, "title": "share", "outlinewidth": 0, "nticks": 5}
    figure.update_layout(coloraxis={"colorscale": "Blues", "cmin": 0, "cmax": 1, "colorbar": bar}, margin_t=112)
    return figure.update_xaxes(showgrid=False, ticks="").update_yaxes(autorange="reversed", showgrid=False, ticks="")


def _panels(picture: Image.Image, panels: Mapping[str, Weights], title: str, header: str, height: int, top: int) -> go.Figure:
    figure, source = make_subplots(1, len(panels), subplot_titles=list(panels), horizontal_spacing=0.012), data_uri(picture, 256)
    for column, (label, weights) in enumerate(panels.items(), 1):
        weights, place = np.asarray(weights, np.float32), {"row": 1, "col": column}
        if weights.ndim != 2 or not weights.size or not np.isfinite(weights).all():
            raise ValueError(f"{label or 'weights'}: {weights.shape}; a finite number for each patch, (rows, columns)")
        (dy, dx), best = 1 / np.array(weights.shape), np.unravel_index(weights.argmax(), weights.shape)
        figure.add_layout_image(source=source, x=0, y=0, sizex=1, sizey=1, sizing="stretch", layer="below", **place)
        places = {"x0": dx / 2, "dx": dx, "y0": dy / 2, "dy": dy}
        figure.add_heatmap(z=weights, **places, coloraxis="coloraxis", hovertemplate="%{z:.3g}<extra></extra>", **place)
        frame = {"x0": best[1] * dx, "x1": (best[1] + 1) * dx, "y0": best[0] * dy, "y1": (best[0] + 1) * dy}
        figure.add_shape(type="rect", **frame, line={"color": ORANGE, "width": 3}, **place)
    dress(figure, title, header, height)
    bar = {"thickness": 12, "title": "weight", "outlinewidth": 0, "nticks": 5}
    figure.update_layout(coloraxis={"colorscale": VEIL, "colorbar": bar}, margin={"t": top, "l": 16, "r": 16, "b": 16})
    figure.update_xaxes(range=[0, 1], visible=False, constrain="domain")
    figure.update_yaxes(range=[1, 0], visible=False, constrain="domain")
    figure.update_annotations(font={"size": 15, "color": INK})
    return figure.for_each_yaxis(lambda axis: axis.update(scaleanchor=axis.anchor))  # square
