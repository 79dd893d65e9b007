"""Pages with pictures in them: HTML strings that need nothing from outside.

Pictures are data: URIs, every text is escaped, and colours come from the page around (`currentColor`), so that a
saved page, a light and a dark notebook all read well. Show one with `IPython.display.HTML`.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from xmalign_lab.corpus import Corpus
from xmalign_lab.spaces import captions
from xmalign_lab.style import FONT, language_colour, language_name, number

RIGHT = "#009E73"
CARD = "display:inline-flex;flex-direction:column;align-items:center;padding:6px;border-radius:8px;gap:2px;"
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
        query += img(example.get("picture"), size, "the picture asked with")
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
        texts, image = "".join(_text(lang, text) for lang, text in ordered), img(picture, size, _named(ordered, row_id))
        cards.append(f'<div style="display:flex;gap:10px;align-items:center">{image}<div>{texts}</div></div>')
    least = f"max(180px,(100% - {20 * (columns - 1)}px)/{columns})"  # on a phone fewer columns
    grid = f"display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,{least}),1fr));gap:16px 20px;"
    return f'<div style="{FRAME}{grid}">{"".join(cards)}</div>'


def panel(group: str, said: Sequence[tuple[str, str]], picture: str | None, size: int = 128) -> str:
    """What stands beside a space: one group's picture and its captions, a language each in its colour."""
    texts = "".join(_text(lang, text) for lang, text in said) or f'<div style="opacity:.65">{html.escape(str(group))}</div>'
    image = img(picture, size, _named(said, group))
    return f'<div style="{FRAME}padding:8px;overflow-wrap:anywhere">{image}<div style="height:8px"></div>{texts}</div>'


def img(picture: str | Image.Image | None, size: int, alt: str) -> str:
    """A picture as HTML, `size` pixels wide and high, from a data: URI or an image; "" where there is none."""
    if not picture:
        return ""
    source, alt = html.escape(picture if isinstance(picture, str) else data_uri(picture, size)), html.escape(str(alt))
    look = f'width="{size}" height="{size}" style="object-fit:contain;flex:none;vertical-align:middle"'
    return f'<img src="{source}" alt="{alt}" title="{alt}" {look}>'


def bdi(lang: str, text: str) -> str:
    """A text with its language, kept apart from what stands around it whichever way it is written."""
    return f'<bdi lang="{html.escape(lang.replace("_", "-"))}">{html.escape(str(text))}</bdi>'


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
    words = bdi(lang, text)
    return f"<div>{label}{f'<b>{words}</b>' if bold else words}</div>"


def _hit(hit: Mapping, size: int, place: int) -> str:
    frame = f"border:3px solid {RIGHT}" if hit.get("correct") else "border:3px solid transparent"
    tick = f'<span style="color:{RIGHT};font-weight:700;font-size:19px;line-height:1">✓</span>' if hit.get("correct") else ""
    alt = f"found at rank {place}, {'right' if hit.get('correct') else 'wrong'}"
    caption = ""
    if hit.get("caption"):
        caption = f'<span style="max-width:{size + 90}px;overflow-wrap:anywhere">{html.escape(str(hit["caption"]))}</span>'
    return f'<div style="{CARD}{frame}">{img(hit.get("picture"), size, alt)}{caption}{tick}</div>'
