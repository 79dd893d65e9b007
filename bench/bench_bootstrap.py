"""How long resampling takes, and how much memory: 10,000 resamples over 10,000 queries for 10 systems.

python bench/bench_bootstrap.py
"""

from __future__ import annotations

import json
import sys
import time
import tracemalloc

import numpy as np

from xmalign_lab import profile
from xmalign_lab.evaluate import significance

SYSTEMS, QUERIES, DRAWS = 10, 10_000, 10_000


def main() -> int:
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
