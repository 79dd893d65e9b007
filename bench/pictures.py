"""`make pictures`: the README's pictures, through a headless Chromium or Chrome.

`space` is drawn from the record of fold 0. The others are the notebooks' own cells as they look in JupyterLab, twice as
sharp as on the screen and 400 kB at most; `python bench/pictures.py explorer dashboard` makes only these.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this file is run as a script, and `bench` is no installed package
from bench.bench_emoji import LANGUAGES, runs  # noqa: E402
from xmalign_lab import corpora, projection, study  # noqa: E402
from xmalign_lab.corpus import split_by_family  # noqa: E402
from xmalign_lab.evaluate.space import modality_gap  # noqa: E402
from xmalign_lab.model import Aligner  # noqa: E402
from xmalign_lab.pictures import retrieval_html  # noqa: E402
from xmalign_lab.spaces import space  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
IMAGES, NOTEBOOKS = ROOT / "docs" / "img", ROOT / "notebooks"
# Picture: what stands in the notebook's cell whose output is shown, and what is done in Python before it is taken.
SPREAD = """wide = {name}.points.groupby("group")[["x", "y"]].std().sum(axis=1).sort_values()
{name}.selected, {name}.held = wide.index[3 * len(wide) // 4], True"""  # three quarters down the list: not the prettiest
DRAWN = """[...document.querySelectorAll('.js-plotly-plot')].every(plot => plot.calcdata?.length)"""
VIEWS = {
    "explorer": ("SpaceExplorer(", SPREAD),
    "dashboard": ("Dashboard(", "{name}.wait()"),
    "playground": ("RetrievalPlayground(", "pass"),
}
FILM = "Journey("
VIEW = {"viewport": {"width": 1240, "height": 3000}, "device_scale_factor": 2}
MOST_BYTES = 400_000
VENDOR, HITS, WIDTH, HEIGHT = "google", 6, 1500, 720
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:18px;background:#fff;color:#222">
<div style="display:flex;gap:24px"><div style="flex:0 0 800px">{plot}</div>
<div style="flex:1"><h2 style="font:600 17px system-ui,'Noto Sans',sans-serif;margin:14px 0 10px">
Names from two languages that were never trained with a picture, and the pictures they find</h2>{found}</div></div>"""


def main(wanted: list[str]) -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    known = ["space", *VIEWS, "journey"]
    if not browser or set(wanted) - set(known):
        print(
            f"no browser to draw with; install one of {', '.join(BROWSERS)}"
            if not browser
            else f"pictures are {', '.join(known)}"
        )
        return 1
    os.environ.setdefault("XMALIGN_PROFILE", "small")
    wanted = wanted or known
    IMAGES.mkdir(parents=True, exist_ok=True)
    if "space" in wanted:
        draw_space(browser)
    cells = {name: found for name in wanted if name != "space" if (found := cell(VIEWS[name][0] if name in VIEWS else FILM))}
    for name in sorted(set(wanted) - {"space", *cells}):
        print(f"{name}: left out, no notebook shows one")
    if not cells:
        return 0
    with jupyterlab(browser) as opened:
        for path in dict.fromkeys(path for path, _ in cells.values()):
            here = {name: number for name, (of, number) in cells.items() if of == path}
            take(opened, path, here)
    return 0


def cell(text: str) -> tuple[Path, int] | None:
    """The first notebook's cell of code that holds `text`."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        for number, found in enumerate(nbformat.read(path, as_version=4).cells):
            if found.cell_type == "code" and text in found.source:
                return path, number
    return None


@contextmanager
def jupyterlab(browser: str) -> Iterator:
    """`opened(path, n)` runs the first `n` cells of a copy of a notebook in a JupyterLab of our own."""
    from playwright.sync_api import sync_playwright

    from tests.browser.lab import SCRIPT, Notebook, Server

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder))
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--use-angle=swiftshader"])
        context = chromium.new_context(**VIEW)
        context.add_init_script(SCRIPT)
        try:
            yield lambda path, n: Notebook(server, context, path, path.stem, slice(0, n)).run(patience=900)
        finally:
            chromium.close()
            server.stop()


def take(opened, path: Path, numbers: dict[str, int]) -> None:
    """The pictures `{name: number of the cell}` from one notebook, in `docs/img`."""
    print(f"running {path.name} …", flush=True)
    notebook = opened(path, max(numbers.values()) + 1)
    for name, number in numbers.items():
        source = nbformat.read(path, as_version=4).cells[number].source
        text, before = VIEWS.get(name, (FILM, "{name}.animation({out!r})"))
        out = IMAGES / f"{name}.{'png' if name in VIEWS else 'gif'}"
        variable = re.search(rf"^(\w+) = .*{re.escape(text)}", source, re.M)[1]
        notebook.python(before.format(name=variable, out=str(out)))
        if name in VIEWS:
            shown = notebook.output(source)
            notebook.page.wait_for_function(DRAWN)
            notebook.page.wait_for_timeout(5000)  # the last drawing, after the last message
            shown.locator(".widget-box").first.screenshot(path=out, animations="disabled")
            shrink(out)
        print(f"  drew {out.relative_to(ROOT)}, {out.stat().st_size / 1000:.0f} kB", flush=True)
    notebook.close()


def shrink(path: Path) -> None:
    """A PNG with all its pixels below `MOST_BYTES`: in all its colours, or in the most of 256, 128, 64, 32 that do."""
    picture = Image.open(path).convert("RGB")
    picture.save(path, optimize=True)
    for colours in (256, 128, 64, 32):
        if path.stat().st_size <= MOST_BYTES:
            return
        # colours that cover all there are, or a few dots would lose theirs; then the mean of what each stands for
        few = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def draw_space(browser: str) -> None:
    """Held-out pictures and names in one plane, and what some names find."""
    corpus = corpora.load("emoji", LANGUAGES)
    features, record = study.prepare(corpus), runs([0])[0]
    test = split_by_family(corpus, 0).where_rows(split="test")
    aligner = Aligner.load(record.folder)
    queries = {lang: chosen(record.scores, lang) for lang in LANGUAGES[1:]}
    found = [study.examples(aligner, test, features, groups, lang, VENDOR, HITS) for lang, groups in queries.items()]
    shown = test.select((test.rows.source == VENDOR) | (test.rows.modality == "text"))
    points, vectors = study.embedded(aligner, shown, features)
    gap = modality_gap(vectors[points.modality == "image"], vectors[points.modality == "text"])
    facts = {"MRR Swahili, this fold": mrr(record.scores, "swh_Latn"), "gap": gap}
    points = projection.project(points, vectors, "umap", seed=0)
    figure = space(points, header=facts, title="Held-out emoji and their names in one space").update_layout(width=800, height=660)
    plot = figure.to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    html = PAGE.format(plot=plot, found=retrieval_html(sum(found, []), 48))
    out = IMAGES / "space.png"
    shoot(browser, html, out)
    shrink(out)
    print(f"drew {out.relative_to(ROOT)} from the record {record.key}")


def chosen(scores: pd.DataFrame, lang: str) -> list[str]:
    """The right answers a quarter and three quarters down the list of ids, and the near miss in its middle: not the prettiest."""
    part = scores[(scores.lang == lang) & (scores.direction == "text→image") & (scores.gallery == VENDOR)].sort_values("query")
    right, near = part["query"][part["rank"] == 1], part["query"][part["rank"].between(2, HITS)]
    return [right.iloc[len(right) // 4], right.iloc[3 * len(right) // 4], near.iloc[len(near) // 2]]


def mrr(scores: pd.DataFrame, lang: str) -> float:
    part = scores[(scores.lang == lang) & (scores.direction == "text→image")]
    return float((1 / part["rank"]).mean())


def shoot(browser: str, html: str, out: Path) -> None:
    """A picture of a page, drawn with no network."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(html, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000"]
        options += ["--disable-background-networking", f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        subprocess.run([browser, *options, f"--screenshot={out}", page.as_uri()], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
