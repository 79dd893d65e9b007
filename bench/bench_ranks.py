"""Neighbours and ranks, exact: how long they take and how much memory, beside what runs without the library.

    python bench/bench_ranks.py [ranks | mining | query] [ROWS]    # all three, or one, perhaps of another size

ranks: both directions of 20,000 rows of width 256, against open_clip's argsort and sentence-transformers' top-10 search on the
same arrays; above 30,000 the ranks alone, as an argsort needs the full matrix.
mining: 100,000 vectors a side of width 384, half of them with a counterpart, by mutual neighbours and ratio margin, beside the
machine's matrix product.
query: how long one text query, and a batch of 32, waits for its exact ten nearest of 1,000,000 unit vectors in float32, widths
256 and 512, by `similarity.top_k` and by plain torch, the product and `topk` over it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from xmalign_lab import profile, similarity
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs import mining

WIDTH, SQUARE = 256, 4096
SENTENCES, MARGIN = 384, 1.3  # the width of what is mined, and what a pair has to reach
WIDTHS, TIMES, K = (256, 512), {1: 30, 32: 10}, 10  # by queries at a time, how often they are timed
UNUSABLE = ImportError, RuntimeError  # torchvision beside a torch it was not built for raises the second


def argsort_recall(left: torch.Tensor, right: torch.Tensor) -> tuple[str, float]:
    """What ran, and R@1 left → right: full logits, argsort, where, in both directions, as in open_clip's get_clip_metrics."""
    try:
        from open_clip_train.train import get_clip_metrics
    except UNUSABLE:
        logits, truth = left @ right.T, torch.arange(len(right))[:, None]
        places = [torch.where(torch.argsort(one, descending=True) == truth)[1] for one in (logits, logits.T)]
        return "argsort as in open_clip", float((places[0] < 1).float().mean())
    return "open_clip's get_clip_metrics", float(get_clip_metrics(left, right, torch.tensor(1.0))["image_to_text_R@1"])


def search_recall(left: torch.Tensor, right: torch.Tensor) -> tuple[str, float]:
    """What ran, and R@10 left → right: chunks of 100 queries, their product with the gallery, torch.topk; one direction."""
    try:
        from sentence_transformers.util import dot_score, semantic_search
    except UNUSABLE:
        found = torch.cat([torch.topk(part @ right.T, 10, sorted=False)[1] for part in left.split(100)])
        return "torch.topk as in semantic_search", float((found == torch.arange(len(left))[:, None]).any(1).float().mean())
    hits = semantic_search(left, right, top_k=10, score_function=dot_score)
    return "sentence-transformers' search", float(np.mean([i in {h["corpus_id"] for h in ten} for i, ten in enumerate(hits)]))


def timed(work, *inputs) -> tuple[float, object]:
    start = time.perf_counter()
    result = work(*inputs)
    return time.perf_counter() - start, result


def peak_memory(reset: bool = False) -> float:
    """The most memory that was resident since the last reset, in MB; Linux tells, elsewhere NaN."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    if reset:
        status.with_name("clear_refs").write_text("5")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def ranks(n: int = 20_000) -> None:
    """`similarity.both_ranks`, and the two others where their matrices fit."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((n, WIDTH), np.float32) for _ in range(2))
    left, right, groups = similarity.unit(left), similarity.unit(left + 4 * right), np.arange(n).astype(str).astype(object)
    square, x, y = torch.randn(SQUARE, SQUARE), torch.from_numpy(left), torch.from_numpy(right)
    torch.mm(square[:768], square)
    before = peak_memory(reset=True)
    first, (forward, _) = timed(similarity.both_ranks, left, right, groups, groups)
    facts = {"rows": n, "first call s": first, "extra MB": peak_memory() - before}  # with what the compiler needs
    facts |= {f"R@{k}": float((forward <= k).mean()) for k in (1, 10)}
    rounds = []
    for _ in range(3 if n <= 30_000 else 0):  # in turn, as other work on the machine disturbs; the best of three counts
        product, ours = timed(torch.mm, square, square), timed(similarity.both_ranks, left, right, groups, groups)
        rounds.append((product[0], ours[0], (search := timed(search_recall, x, y))[0]))
    if rounds:
        product, ours, searched = map(min, zip(*rounds, strict=True))
        argsort, (by_argsort, at_1) = timed(argsort_recall, x, y)
        by_search, at_10 = search[1]
        assert max(abs(at_1 - facts["R@1"]), abs(at_10 - facts["R@10"])) < 1e-3, (at_1, at_10)
        rate, reached = (2 * flop / 1e9 for flop in (SQUARE**3 / product, n * n * WIDTH / ours))
        facts |= {"both directions s": ours, f"{by_search} s": searched, f"{by_argsort} s": argsort, "torch.mm GFLOP/s": rate}
        facts |= {"argsort / ours": argsort / ours, "search / ours": searched / ours, "ours / rate of torch.mm": reached / rate}
    print("\n".join(f"{name}: {value:,.3f}".removesuffix(".000") for name, value in facts.items()))
    profile.built("bench", "ranks.json" if rounds else f"ranks-{n}.json").write_text(json.dumps(facts, indent=1))


def pools(n: int) -> tuple[Features, Features]:
    """Two pools of n rows whose first half means the same: cosine about .45 to the counterpart, 0 to all others."""
    rng = np.random.default_rng(0)
    left, right, noise = (rng.standard_normal((n, SENTENCES), np.float32) for _ in range(3))
    right[: n // 2] = left[: n // 2] + 2 * noise[: n // 2]
    return tuple(Features.from_arrays(similarity.unit(side), range(n)) for side in (left, right))


def mine(n: int = 100_000) -> None:
    """`mining.mine` of two pools of n."""
    left, right = pools(n)
    if n * n >= similarity.SMALL:
        mining.mine(*pools(2048), "compile")  # so that the first seconds are not the compiler's
    square = torch.randn(SQUARE, SQUARE)
    products = [timed(torch.mm, square, square)[0] for _ in range(3)]
    before = peak_memory(reset=True)
    seconds, found = timed(mining.mine, left, right, "left-right", MARGIN)
    extra = peak_memory() - before
    products += [timed(torch.mm, square, square)[0] for _ in range(3)]
    rate, reached = 2 * SQUARE**3 / min(products) / 1e9, 2 * 2 * n * n * SENTENCES / seconds / 1e9  # two searches, each a product
    group = {row: str(i if i < n // 2 else -1 - i) for i, row in enumerate(left.ids)}
    report = mining.round_report(found, None, group)
    facts = {"rows": n, "width": SENTENCES, "threads": torch.get_num_threads(), "seconds": seconds, "extra MB": extra}
    facts |= {"full matrix MB": 4 * n * n / 2**20, "pairs": len(found), "precision": report["precision"]}
    facts |= {"torch.mm GFLOP/s": rate, "mining GFLOP/s": reached, "mining / rate of torch.mm": reached / rate}
    print("\n".join(f"{name}: {value:,.3f}".removesuffix(".000") for name, value in facts.items()))
    profile.built("bench", f"mining-{n}.json").write_text(json.dumps(facts, indent=1))


def plain(queries: np.ndarray, gallery: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What a user without the library would write; unlike `top_k` it says nothing of a number that is not finite."""
    return tuple(part.numpy() for part in torch.topk(torch.from_numpy(queries) @ torch.from_numpy(gallery).T, k))


def query(rows: int = 1_000_000) -> None:
    """Both ways of each of `WIDTHS` and `TIMES`, which must agree."""
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


WAYS = {"ranks": ranks, "mining": mine, "query": query}


def main(what: str = "", rows: str = "") -> None:
    if what not in ("", *WAYS):
        raise SystemExit(__doc__)
    for name in [what] if what else WAYS:
        WAYS[name](*map(int, filter(None, [rows])))


if __name__ == "__main__":
    main(*sys.argv[1:])
