"""How long the parts take: importing, encoding every emoji picture, reading it back from the cache; and resampling.

python bench/bench_speed.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc

import numpy as np

from xmalign_lab import corpora, profile
from xmalign_lab.corpora import emoji
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.classic import ClassicImage
from xmalign_lab.evaluate import significance

SYSTEMS, QUERIES, DRAWS = 10, 10_000, 10_000


def import_seconds(times: int = 7) -> float:
    """Median over fresh interpreters of `import xmalign_lab`, less starting the interpreter itself."""
    code = "import time; t = time.perf_counter(); import xmalign_lab; print(time.perf_counter() - t)"
    results = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(times)]
    return statistics.median(float(result.stdout) for result in results)


def bootstrap() -> None:
    """Seconds and memory of 10,000 resamples over 10,000 queries for 10 systems."""
    rng = np.random.default_rng(0)
    values = 1 / rng.integers(1, 400, (SYSTEMS, QUERIES))  # as reciprocal ranks are: many small, few large
    facts, what = {}, f"{DRAWS:,} resamples over {QUERIES:,} queries for {SYSTEMS} systems"
    for name, families in (("every query a family", QUERIES), ("in families of about 1.2", int(QUERIES / 1.2))):
        codes = rng.permutation(np.arange(QUERIES) % families)
        tracemalloc.start()
        significance.bootstrap_means(values, codes, 200)
        facts[f"{name}, most memory, MB"] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        start = time.perf_counter()
        significance.bootstrap_means(values, codes, DRAWS)
        facts[f"{name}, bootstrap, s"] = time.perf_counter() - start
        start = time.perf_counter()
        significance.flipped_means(values, codes, DRAWS)
        facts[f"{name}, permutation, s"] = time.perf_counter() - start
    print(what)
    for name, number in facts.items():
        print(f"  {name}: {number:.2f}")
    profile.built("bench", "bootstrap.json").write_text(json.dumps({"what": what, **facts}, indent=1))


def main() -> None:
    facts = {"import xmalign_lab": import_seconds()}
    if problem := emoji.missing():
        print(problem)
    else:
        corpus = corpora.load("emoji", ["eng_Latn"], skin_tones=True).where_rows(modality="image")
        ClassicImage().describe(corpus.picture(corpus.ids[0]))  # scikit-image is imported on the first picture
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first time", "from the cache", "from the cache, again"):
                start = time.perf_counter()
                encode(corpus, ClassicImage(), folder)
                facts[f"{len(corpus):,} emoji pictures, {name}"] = time.perf_counter() - start
    for name, seconds in facts.items():
        print(f"{name}: {seconds:.3f} s")
    profile.built("bench", "speed.json").write_text(json.dumps(facts, indent=1))
    bootstrap()


if __name__ == "__main__":
    main()
