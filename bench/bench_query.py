"""How long one text query, and a batch of 32, waits for its exact ten nearest of 1,000,000 unit vectors in float32.

python bench/bench_query.py [ROWS]: widths 256 and 512, by `similarity.top_k` and by plain torch, the product and `topk` over it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, and `bench` is no installed package

from bench.bench_ranks import peak_memory, timed
from xmalign_lab import profile, similarity

WIDTHS, TIMES, K = (256, 512), {1: 30, 32: 10}, 10  # by queries at a time, how often they are timed


def plain(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What a user without the library would write; unlike `top_k` it says nothing of a number that is not finite."""
    return tuple(part.numpy() for part in torch.topk(torch.from_numpy(queries) @ torch.from_numpy(gallery).T, k))


def main(rows: int = 1_000_000) -> int:
    rng, facts = np.random.default_rng(0), {"rows": rows, "k": K, "threads": torch.get_num_threads(), "runs": []}
    for width in WIDTHS:
        gallery = rng.standard_normal((rows, width), np.float32)
        gallery /= np.sqrt(np.einsum("ij,ij->i", gallery, gallery))[:, None]
        for batch, times in TIMES.items():
            asked = similarity.unit(rng.standard_normal(((times + 1) * batch, width), np.float32))
            asked, answers = asked.reshape(times + 1, batch, width), []
            for name, search in {"similarity.top_k": similarity.top_k, "plain torch": plain}.items():
                search(asked[-1], gallery, K)  # what is compiled is compiled before
                before = peak_memory(reset=True)
                seconds, found = zip(*(timed(search, queries, gallery, K) for queries in asked[:times]), strict=True)
                answers.append(np.stack([scores for scores, _ in found]))
                run = {"width": width, "queries": batch, "times": times, "by": name, "median ms": 1e3 * float(np.median(seconds))}
                run |= {"95th percentile ms": 1e3 * float(np.quantile(seconds, 0.95)), "extra MB": peak_memory() - before}
                facts["runs"].append(run := run | {"gallery MB": gallery.nbytes / 2**20})
                print(", ".join(f"{key} {f'{of:,.1f}' if isinstance(of, float) else of}" for key, of in run.items()), flush=True)
            np.testing.assert_allclose(*answers, atol=1e-5)
    profile.built("bench", "query.json").write_text(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
