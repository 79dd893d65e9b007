"""Mine N × N sentences at width 384 exactly, by mutual neighbours and ratio margin, beside the machine's matrix product.

python bench/bench_mining.py [--size N]: 100,000 vectors a side; half of them have a counterpart on the other.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, and `bench` is no installed package

from bench.bench_ranks import peak_memory, timed
from xmalign_lab import profile, similarity
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs import mining

WIDTH, SQUARE, MARGIN = 384, 4096, 1.3


def pools(n: int) -> tuple[Features, Features]:
    """Two pools of n rows whose first half means the same: cosine about .45 to the counterpart, 0 to all others."""
    rng = np.random.default_rng(0)
    left, right, noise = (rng.standard_normal((n, WIDTH), np.float32) for _ in range(3))
    right[: n // 2] = left[: n // 2] + 2 * noise[: n // 2]
    return tuple(Features.from_arrays(similarity.unit(side), range(n)) for side in (left, right))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=100_000, help="rows of each side")
    n = parser.parse_args(arguments).size
    left, right = pools(n)
    if n * n >= similarity.SMALL:
        mining.mine(*pools(2048), "compile")  # so that the first seconds are not the compiler's
    square = torch.randn(SQUARE, SQUARE)
    products = [timed(torch.mm, square, square)[0] for _ in range(3)]
    before = peak_memory(reset=True)
    seconds, found = timed(mining.mine, left, right, "left-right", MARGIN)
    extra = peak_memory() - before
    products += [timed(torch.mm, square, square)[0] for _ in range(3)]
    rate, reached = 2 * SQUARE**3 / min(products) / 1e9, 2 * 2 * n * n * WIDTH / seconds / 1e9  # two searches, each a product
    group = {row: str(i if i < n // 2 else -1 - i) for i, row in enumerate(left.ids)}
    report = mining.round_report(found, None, group)
    facts = {"rows": n, "width": WIDTH, "threads": torch.get_num_threads(), "seconds": seconds, "extra MB": extra}
    facts |= {"full matrix MB": 4 * n * n / 2**20, "pairs": len(found), "precision": report["precision"]}
    facts |= {"torch.mm GFLOP/s": rate, "mining GFLOP/s": reached, "mining / rate of torch.mm": reached / rate}
    print("\n".join(f"{name}: {value:,.3f}".removesuffix(".000") for name, value in facts.items()))
    profile.built("bench", f"mining-{n}.json").write_text(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
