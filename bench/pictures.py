"""`make pictures`: the README's picture from the record of fold 0, through a headless Chromium or Chrome."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this file is run as a script, and `bench` is no installed package
from bench.bench_emoji import LANGUAGES, runs  # noqa: E402
from xmalign_lab import corpora, projection, similarity, study  # noqa: E402
from xmalign_lab.corpus import split_by_family  # noqa: E402
from xmalign_lab.evaluate.space import modality_gap  # noqa: E402
from xmalign_lab.model import Aligner  # noqa: E402
from xmalign_lab.pictures import data_uri, retrieval_html  # noqa: E402
from xmalign_lab.plots import space  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EXAMPLES, HITS, WIDTH, HEIGHT = 4, 5, 1500, 720
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
    features, record = study.prepare(corpus), runs()[0]
    test = split_by_family(corpus, 0).where_rows(split="test", kind=["picture", "name"])
    aligner = Aligner.load(record.folder)
    images = study.side(aligner, test, features, "image", test.where_rows(modality="image", source="google").ids)
    texts = study.side(aligner, test, features, "text", test.where_rows(modality="text").ids)
    found = retrieval_html(examples(test, images, texts))
    rows = test.rows.set_index("id").loc[[*images.ids, *texts.ids]].reset_index()
    vectors = np.concatenate([images.vectors, texts.vectors])
    points = projection.project(rows, vectors, "umap", seed=0)
    facts = {"MRR Swahili, this fold": mrr(record.scores, "swh_Latn"), "gap": modality_gap(images.vectors, texts.vectors)}
    figure = space(points, header=facts, title="Held-out emoji and their names in one space").update_layout(width=800, height=660)
    html = PAGE.format(plot=figure.to_html(full_html=False, include_plotlyjs=True), found=found)
    out = ROOT / "docs" / "img" / "space.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    shoot(browser, html, out)
    print(f"drew {out.relative_to(ROOT)} from the record {record.key}")
    return 0


def examples(test, images, texts) -> list[dict]:
    """The first right answers at rank 1 and the first near misses of each language, in order of id: not the prettiest."""
    said, lang = test.lookup("text"), test.lookup("lang")
    ranks = similarity.ranks(texts.vectors, images.vectors, texts.groups, images.groups)
    _, hits = similarity.top_k(texts.vectors, images.vectors, HITS)
    chosen = []
    for code in LANGUAGES[1:]:
        of = np.array([lang[i] == code for i in texts.ids])
        right, near = np.flatnonzero(of & (ranks == 1)), np.flatnonzero(of & (ranks > 1) & (ranks <= HITS))
        spread = right[:: max(1, len(right) // (EXAMPLES - 1))][: EXAMPLES - 1]
        chosen += [*spread, *near[:1]]
    result = []
    for q in chosen:
        found = [
            {"picture": data_uri(test.picture(images.ids[j])), "correct": bool(images.groups[j] == texts.groups[q])} for j in hits[q]
        ]
        result.append({"query": said[texts.ids[q]], "lang": lang[texts.ids[q]], "rank": ranks[q], "hits": found})
    return result


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
