"""`make gallery`: executed notebooks as pages that open without a server and without a network.

Formulas become MathML, Plotly figures share one script beside the pages, and a widget, which needs a kernel, leaves a
caption. `index.html` shows for each notebook its question, its one-line answer and a picture, all from this run.
"""

from __future__ import annotations

import base64
import html
import json
import re
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import latex2mathml.converter
import nbformat
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from bench import letters
from xmalign_lab import profile, records, style

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = Path(__file__).resolve().parent / "templates"
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
MOST_BYTES = 30e6  # of all pages together
CAPTION = '<p class="widget">Interactive in JupyterLab; the static twin is {}.</p>'


class GalleryError(ValueError):
    """A notebook that cannot be shown. The message names the notebook and what it lacks."""


@dataclass(frozen=True)
class Card:
    """What the index shows of one notebook; `answer` and `thumbnail` are HTML."""

    page: str
    title: str
    question: str
    answer: str
    thumbnail: str
    seconds: float | None


def circumstances() -> dict[str, str]:
    """Machine, date, profile and versions of this process: what a number on a page depends on."""
    found = records.environment()
    versions = [f"{name} {number}" for name, number in ({"Python": found["python"]} | found["packages"]).items()]
    date, size = time.strftime("%Y-%m-%d"), profile.current()
    return {"machine": found["machine"], "date": date, "profile": size, "versions": ", ".join(versions)}


def build(paths: list[Path], out: Path = ROOT / "build" / "gallery") -> Path:
    """Write a page per executed notebook, the files they share and `index.html` into `out`; return the index.

    Raises `GalleryError` if a notebook has no title, question, `answer` or `thumbnail`, a formula cannot be read, or all of it
    is larger than `MOST_BYTES`.
    """
    from plotly.offline import get_plotlyjs

    if not paths:
        raise GalleryError("no executed notebook to show; run `make demo` first")
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.html"):
        stale.unlink()
    notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    cards = [card(path, notebook) for path, notebook in notebooks.items()]
    faces, credit = letters.faces("".join(path.read_text(encoding="utf-8") for path in paths))
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8") + credit
    around = [None, *cards, None]
    for number, (path, notebook) in enumerate(notebooks.items()):
        body = page(path, notebook, notice, cards, before=around[number], after=around[number + 2])
        (out / cards[number].page).write_text(body, encoding="utf-8")
    about = next((n.metadata.xmalign for n in notebooks.values() if "xmalign" in n.metadata), circumstances())
    index = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("index.html.j2")
    (out / "index.html").write_text(index.render(cards=cards, notice=notice, about=about, opened=" open"), encoding="utf-8")
    pages = "".join(page.read_text(encoding="utf-8") for page in out.glob("*.html"))
    colours = sorted(set(re.findall(r'(?<=["\':])#[0-9A-Fa-f]{6}\b', pages)))
    shared = {"plotly.min.js": get_plotlyjs(), "gallery.js": (TEMPLATES / "gallery.js").read_text(encoding="utf-8")}
    shared["gallery.css"] = "\n".join(
        [faces, _lab_css(), (TEMPLATES / "gallery.css").read_text("utf-8"), style.night_css(colours)]
    )
    for name, text in shared.items():
        (out / name).write_text(text, encoding="utf-8")
    if (size := weight(out)) > MOST_BYTES:
        raise GalleryError(f"the pages are {size / 1e6:.0f} MB; {MOST_BYTES / 1e6:.0f} MB at most")
    return out / "index.html"


def weight(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _lab_css() -> str:
    """JupyterLab's own style, once for all pages: light, and dark where the page says so."""
    static = next(Path(path) for path in HTMLExporter().template_paths if (Path(path) / "static" / "theme-dark.css").is_file())
    index, light, dark = (
        (static / "static" / f"{name}.css").read_text(encoding="utf-8") for name in ("index", "theme-light", "theme-dark")
    )
    return "\n".join([index, light, dark.replace(":root", 'body[data-jp-theme-light="false"]')])


def card(path: Path, notebook: NotebookNode) -> Card:
    """Title, question, answer and picture of an executed notebook."""
    first = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title, question = re.search(r"^# (.+)$", first, re.M), re.search(r"^> (.+)$", first, re.M)
    if not title or not question:
        raise GalleryError(f"{path.name}: its first cell needs a title (# …) and the question it answers (> …)")
    texts = [bundle.get("text/markdown") for bundle in _bundles(path, notebook, "answer")]
    answer = next((text for text in reversed(texts) if text), None)
    if not answer:
        raise GalleryError(f"{path.name}: the cell tagged `answer` must end in a Markdown output, e.g. display(Markdown(…))")
    pictures = [picture for bundle in _bundles(path, notebook, "thumbnail") if (picture := _small(bundle, path.stem))]
    if not pictures:
        raise GalleryError(f"{path.name}: the cell tagged `thumbnail` must show a Plotly figure, an image or HTML")
    seconds = notebook.metadata.get("xmalign", {}).get("seconds")
    inline = [
        re.sub(r"^<p>(.*)</p>$", r"\1", html_of(text, path.name).strip(), flags=re.S) for text in (title[1], question[1], answer)
    ]
    return Card(f"{path.stem}.html", *inline, pictures[-1], seconds)


def _bundles(path: Path, notebook: NotebookNode, tag: str) -> list[dict]:
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise GalleryError(f"{path.name}: {len(cells)} cells are tagged `{tag}`; one is needed")
    return [output.get("data", {}) for output in cells[0].get("outputs", [])]


class Formulas(IPythonRenderer):
    """Markdown whose formulas become MathML; an error names the `notebook`."""

    notebook = ""

    def block_math(self, body: str) -> str:
        return self._mathml(body, "block")

    def inline_math(self, body: str) -> str:
        money = body != body.strip()  # "$5 and $6"
        return super().inline_math(body) if money else self._mathml(body, "inline")

    def _html_embed_images(self, html: str) -> str:
        """Only where there is an image: nbconvert's parser closes a <details> at once, and what it hides would be seen."""
        return super()._html_embed_images(html) if "<img" in html else html

    def _mathml(self, body: str, display: str) -> str:
        latex = body.strip()
        try:
            mathml = latex2mathml.converter.convert(latex, display=display)
        except Exception as error:  # latex2mathml raises many kinds
            why = f"cannot become MathML ({type(error).__name__}: {error})"
            raise GalleryError(f"{self.notebook}: the formula {latex!r} {why}") from error
        if unknown := re.search(r">(\\[a-zA-Z]+)<", mathml):
            raise GalleryError(f"{self.notebook}: the formula {latex!r} uses {unknown[1]}, which cannot become MathML")
        return mathml


def html_of(markdown: str, notebook: str) -> str:
    """Markdown as HTML. Raises `GalleryError` naming `notebook` for a formula that cannot be read."""
    renderer = Formulas(escape=False, embed_images=True, anchor_link_text="", path=str(ROOT / "notebooks"))
    renderer.notebook = notebook
    return MarkdownWithMath(renderer=renderer).render(markdown)


def page(
    path: Path, notebook: NotebookNode, notice: str, cards: list[Card], before: Card | None = None, after: Card | None = None
) -> str:
    """One notebook as HTML, with links to its neighbours and the attributions at its foot."""
    shown = nbformat.from_dict(notebook)
    shown.metadata.pop("widgets", None)  # or nbconvert adds a widget manager from a network address
    section = ""
    for number, cell in enumerate(shown.cells):
        if cell.cell_type == "markdown":
            section = next(iter(re.findall(r"^#+ (.+)$", cell.source, re.M)[::-1]), section)
        if cell.cell_type == "code":
            static = [_static(output, f"figure-{number}-{i}", section) for i, output in enumerate(cell.outputs)]
            cell.outputs = [o for i, o in enumerate(static) if o and o not in static[:i]]  # one caption for several widgets
    exporter = HTMLExporter(extra_loaders=[FileSystemLoader(TEMPLATES)], template_file="page.html.j2", embed_images=True)
    exporter.register_filter("markdown2html", partial(html_of, notebook=path.name))
    about = notebook.metadata.get("xmalign", circumstances())
    resources = {"metadata": {"name": path.stem, "path": str(ROOT / "notebooks")}}
    resources |= {"before": before, "after": after, "about": about, "notice": notice}
    body, _ = exporter.from_notebook_node(shown, resources=resources)
    for other in cards:
        body = body.replace(f'href="{other.page.removesuffix(".html")}.ipynb"', f'href="{other.page}"')
    return body


def _static(output: NotebookNode, div: str, section: str) -> NotebookNode | None:
    """An output as a page without kernel and network can show it; None for a finished progress bar."""
    data = output.get("data", {})
    if PLOTLY in data:
        output["data"] = {"text/html": _figure(data[PLOTLY], div)}
    elif WIDGET in data:
        if "%|" in data.get("text/plain", ""):
            return None
        twin = data.get("text/html", "")
        output = nbformat.v4.new_output("display_data", {"text/html": twin + CAPTION.format("above" if twin else "below")})
    elif "text/html" not in data and (kind := next((kind for kind in PICTURES if kind in data), None)):
        output["data"] = {"text/html": _image(kind, data[kind], output.metadata.get("alt") or f"Picture: {section}")}
    return output


def _image(kind: str, data: str, alt: str) -> str:
    coded = base64.b64encode(data.encode()).decode() if kind == "image/svg+xml" else data.strip()
    return f'<img alt="{html.escape(alt)}" src="data:{kind};base64,{coded}">'


def described(figure: dict) -> str:
    """A figure in words, for who cannot see it: title and numbers, kinds of drawing, axes, what is in the legend."""
    layout, data = figure.get("layout", {}), figure.get("data", [])
    title = layout.get("title", {})
    kinds = {trace.get("type", "scatter").removesuffix("gl") for trace in data}
    axes = [axis["title"]["text"] for axis in layout.values() if isinstance(axis, dict) and (axis.get("title") or {}).get("text")]
    named = [trace["name"] for trace in data if trace.get("name") and trace.get("showlegend") is not False]
    parts = [title if isinstance(title, str) else title.get("text", ""), "Plot: " + ", ".join(sorted(kinds))]
    parts += [f"{what}: {', '.join(dict.fromkeys(names))}" for what, names in (("axes", axes), ("shows", named)) if names]
    words = (" ".join(html.unescape(re.sub(r"<[^>]*>", " ", part)).split()) for part in parts)
    return ". ".join(filter(None, words))


def _figure(figure: dict, div: str, thumbnail: bool = False) -> str:
    layout = dict(figure.get("layout", {}))
    height = 190 if thumbnail else layout.get("height", 450)
    if thumbnail:
        layout = _bare(layout) | {"height": height}
    arguments = [figure.get("data", []), layout, {"responsive": True, "displaylogo": False, "staticPlot": thumbnail}]
    script = ", ".join(json.dumps(argument).replace("<", "\\u003c") for argument in arguments)
    said = f'role="img" aria-label="{html.escape(described(figure))}"'
    return f'<div id="{div}" {said} style="height:{height}px"></div><script>Plotly.newPlot("{div}", {script});</script>'


def _bare(layout: dict) -> dict:
    """A layout without anything that cannot be read at the size of a thumbnail."""
    drop = ("title", "annotations", "updatemenus", "sliders", "width", "legend", "margin")
    bare = {key: value for key, value in layout.items() if key not in drop}
    axes = {key for key in layout if re.fullmatch(r"[xy]axis\d*", key)} | {"xaxis", "yaxis"}
    hidden = {key: dict(layout.get(key, {})) | {"title": None, "showticklabels": False, "ticks": ""} for key in axes}
    margin = {"l": 6, "r": 6, "t": 6, "b": 6}
    return bare | hidden | {"showlegend": False, "margin": margin, "coloraxis": bare.get("coloraxis", {}) | {"showscale": False}}


def _small(bundle: dict, name: str) -> str:
    """The picture of one output for a card; '' if it has none."""
    if PLOTLY in bundle:
        traces = [trace | {"showscale": False} if "z" in trace else trace for trace in bundle[PLOTLY]["data"]]
        traces = [t | {"marker": t["marker"] | {"size": 4}} if "size" in t.get("marker", {}) else t for t in traces]
        return _figure(bundle[PLOTLY] | {"data": traces}, f"thumbnail-{name}", thumbnail=True)
    for kind in PICTURES:
        if kind in bundle:
            return _image(kind, bundle[kind], "")  # the card's link and title say what it is
    shown = re.sub(r"</?a\b[^>]*>", "", bundle.get("text/html", ""))  # the card is a link, and a link holds no other
    return f'<div class="shrunk">{shown}</div>' if shown else ""
