"""Pages with pictures in them: HTML strings that need nothing from outside.

Pictures are data: URIs, every text is escaped, and colours come from the page around (`currentColor`), so that a
saved page, a light and a dark notebook all read well. Show one with `IPython.display.HTML`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from PIL import Image

from xmalign_lab.corpus import Corpus
from xmalign_lab.spaces import captions, links
from xmalign_lab.style import FONT, language_colour, language_name, number

RIGHT = "#009E73"
CARD = "display:inline-flex;flex-direction:column;align-items:center;padding:6px;border-radius:8px;gap:2px;"
NO_PLOT = '<p style="opacity:.65">The plot appears where plotly.js is loaded. In JupyterLab use SpaceExplorer.</p>'
FRAME = f"font:14px/1.4 {FONT};color:inherit;"


def data_uri(image: Image.Image, size: int = 64) -> str:
    """A picture as `data:image/webp;base64,…`, shrunk to `size` pixels where it is larger; transparency stays."""
    small, file = image.convert("RGBA"), io.BytesIO()
    small.thumbnail((size, size))
    small.save(file, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def retrieval_html(examples: Iterable[Mapping], size: int = 64) -> str:
    """Retrieval examples: a row per query with what was found, best first; the right answer framed and ticked.

    An example has `query` (a text) with `lang`, or `picture`; `hits`, each with `picture` and/or `caption`, and
    `correct`; perhaps `rank`. A picture is a data: URI or a PIL image.
    """
    rows = []
    for example in examples:
        lang = example.get("lang", "")
        query = _text(lang, example["query"], bold=True) if "query" in example else ""
        query += _img(example.get("picture"), size, "the picture asked with")
        rank = (
            f'<div style="opacity:.65">right answer at rank {number(float(example["rank"]))}</div>' if "rank" in example else ""
        )
        hits = "".join(_hit(hit, size, place) for place, hit in enumerate(example["hits"], 1))
        rows.append(
            '<div style="display:flex;flex-wrap:wrap;align-items:center;gap:12px;padding:8px 0;border-top:1px solid #8884">'
            f'<div style="flex:0 0 200px">{query}{rank}</div><div style="display:flex;flex-wrap:wrap;gap:6px">{hits}</div></div>'
        )
    return f'<div style="{FRAME}">{"".join(rows)}</div>'


def contact_sheet(
    corpus: Corpus, ids: Sequence[str], columns: int = 4, shown: Sequence[str] | None = None, size: int = 64
) -> str:
    """A grid of the pictures `ids`, each with the captions of its group in the languages `shown` (default: all).

    Raises `CorpusError` for an id without a readable picture.
    """
    group = corpus.lookup("group")
    said = captions(corpus.rows[corpus.rows.group.isin({group[i] for i in ids if i in group})])
    cards = []
    for row_id in ids:
        picture = data_uri(corpus.picture(row_id), size)
        ordered = _ordered(said[group[row_id]], shown)
        texts, image = "".join(_text(lang, text) for lang, text in ordered), _img(picture, size, _named(ordered, row_id))
        cards.append(f'<div style="display:flex;gap:10px;align-items:center">{image}<div>{texts}</div></div>')
    least = f"max(180px,(100% - {20 * (columns - 1)}px)/{columns})"  # on a phone fewer columns
    grid = f"display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,{least}),1fr));gap:16px 20px;"
    return f'<div style="{FRAME}{grid}">{"".join(cards)}</div>'


def panel(group: str, said: Sequence[tuple[str, str]], picture: str | None, size: int = 128) -> str:
    """What stands beside a space: one group's picture and its captions, a language each in its colour."""
    texts = "".join(_text(lang, text) for lang, text in said) or f'<div style="opacity:.65">{html.escape(str(group))}</div>'
    image = _img(picture, size, _named(said, group))
    return f'<div style="{FRAME}padding:8px;overflow-wrap:anywhere">{image}<div style="height:8px"></div>{texts}</div>'


def space_with_pictures(
    figure: go.Figure,
    points: pd.DataFrame,
    pictures: Mapping[str, str],
    selected: str | None = None,
    include_plotlyjs: bool = False,
) -> str:
    """The static twin of the space explorer: `figure` (of `spaces.space(points)`) and a panel beside it, as HTML.

    On hover the panel shows the picture and the captions in every language of the point's group, and thin lines
    run from its pictures to its captions. `pictures` maps a group to a data: URI; before the first hover
    `selected` is shown (default: the first group with a picture and a caption).

    Where it works: in a saved page whose head loads plotly.js (window.Plotly), as the gallery's pages do. JupyterLab
    keeps its Plotly to itself: there use `widgets.SpaceExplorer`, or pass `include_plotlyjs=True`, which adds
    some 5 MB to the output. Without any plotly.js the panel still shows `selected`, and a line says what to do.
    """
    said = captions(points)
    if selected is None:
        selected = next((group for group in said if said[group] and group in pictures), next(iter(said), ""))
    lines = {} if selected not in said else dict(zip(("x", "y"), links(points, selected), strict=True))
    shown = go.Figure(figure).update_traces(lines, selector={"name": "links"})
    known = {
        "figure": json.loads(shown.to_json()),
        "groups": {g: [panel(g, said[g], pictures.get(g)), *links(points, g)] for g in said},
    }
    # "<" cannot stand in a script: a caption could close it
    known = json.dumps(known, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    name = "space-" + hashlib.sha256(known.encode()).hexdigest()[:12]
    library = ""
    if include_plotlyjs:
        from plotly.offline import get_plotlyjs

        library = f"<script>{get_plotlyjs()}</script>"
    return (
        f'{library}<div class="{name}" style="{FRAME}display:flex;flex-wrap:wrap;align-items:flex-start;gap:12px">'
        f'<div data-plot style="flex:1 1 480px;min-width:0">{NO_PLOT}</div><div data-panel style="flex:0 0 230px">'
        f"{panel(selected, said.get(selected, []), pictures.get(selected))}</div></div>"
        f"<script>{HOVER.replace('NAME', name).replace('KNOWN', known)}</script>"
    )


# The plot may be on the page before plotly.js is: it waits 10 s for it.
HOVER = """(() => {
const known = KNOWN;
const start = (root, left) => {
  const plot = root.querySelector("[data-plot]"), panel = root.querySelector("[data-panel]");
  if (!window.Plotly) return left && setTimeout(start, 100, root, left - 1);
  plot.replaceChildren();
  const last = known.figure.data.length - 1; let now = null;
  Plotly.newPlot(plot, known.figure.data, known.figure.layout, {responsive: true, displaylogo: false}).then(() =>
    plot.on("plotly_hover", event => { const group = event.points[0].customdata;
      if (!(group in known.groups) || group === now) return;
      const [html, x, y] = known.groups[now = group];
      panel.innerHTML = html;
      Plotly.restyle(plot, {x: [x], y: [y]}, [last]); })); };
document.querySelectorAll(".NAME:not([data-ready])").forEach(root => { root.dataset.ready = ""; start(root, 100); });
})();"""


def _ordered(said: Sequence[tuple[str, str]], shown: Sequence[str] | None) -> list[tuple[str, str]]:
    return list(said) if shown is None else [(code, dict(said)[code]) for code in shown if code in dict(said)]


def _named(said: Sequence[tuple[str, str]], otherwise: str) -> str:
    """What a picture shows, for who cannot see it: its first caption."""
    return str(said[0][1] if said else otherwise)


def _text(lang: str, text: str, bold: bool = False) -> str:
    """One caption with its language in front; `bdi` keeps scripts of either direction in place."""
    # the dot has the colour: a name in it would be too faint on one ground or the other
    dot = f'<span aria-hidden="true" style="color:{language_colour(lang)}">●</span>'
    label = f'<span style="font-size:12px">{dot} {html.escape(language_name(lang))}</span> ' if lang else ""
    words = f'<bdi lang="{html.escape(lang.replace("_", "-"))}">{html.escape(str(text))}</bdi>'
    return f"<div>{label}{f'<b>{words}</b>' if bold else words}</div>"


def _img(picture: str | Image.Image | None, size: int, alt: str) -> str:
    if picture is None:
        return ""
    source = html.escape(picture if isinstance(picture, str) else data_uri(picture, size))
    look = f'width="{size}" height="{size}" style="object-fit:contain;flex:none"'
    return f'<img src="{source}" alt="{html.escape(alt)}" {look}>'


def _hit(hit: Mapping, size: int, place: int) -> str:
    frame = f"border:3px solid {RIGHT}" if hit.get("correct") else "border:3px solid transparent"
    tick = f'<span style="color:{RIGHT};font-weight:700;font-size:19px;line-height:1">✓</span>' if hit.get("correct") else ""
    alt = f"found at rank {place}, {'right' if hit.get('correct') else 'wrong'}"
    caption = ""
    if hit.get("caption"):
        caption = f'<span style="max-width:{size + 90}px;overflow-wrap:anywhere">{html.escape(str(hit["caption"]))}</span>'
    return f'<div style="{CARD}{frame}">{_img(hit.get("picture"), size, alt)}{caption}{tick}</div>'
