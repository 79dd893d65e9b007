"""`make pictures`: the README's picture from the record of fold 0, through a headless Chromium or Chrome."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this file is run as a script, and `bench` is no installed package
from bench.bench_emoji import LANGUAGES, runs  # noqa: E402
from xmalign_lab import corpora, projection, study  # noqa: E402
from xmalign_lab.corpus import split_by_family  # noqa: E402
from xmalign_lab.evaluate.space import modality_gap  # noqa: E402
from xmalign_lab.model import Aligner  # noqa: E402
from xmalign_lab.pictures import retrieval_html  # noqa: E402
from xmalign_lab.plots import space  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
VENDOR, HITS, WIDTH, HEIGHT = "google", 6, 1500, 720
PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:18px;background:#fff;color:#222">
<div style="display:flex;gap:24px"><div style="flex:0 0 800px">{plot}</div>
<div style="flex:1"><h2 style="font:600 17px system-ui,'Noto Sans',sans-serif;margin:14px 0 10px">
Names from two languages that were never trained with a picture, and the pictures they find</h2>{found}</div></div>"""


def main() -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        print(f"no browser to draw with; install one of {', '.join(BROWSERS)}")
        return 1
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
    out = ROOT / "docs" / "img" / "space.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    shoot(browser, html, out)
    print(f"drew {out.relative_to(ROOT)} from the record {record.key}")
    return 0


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
    sys.exit(main())
