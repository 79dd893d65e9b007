"""Methods as recipes over the parts: what a result is compared with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xmalign_lab import schedules
from xmalign_lab.train import Recipe


def clip(**changes) -> Recipe:
    """Contrastive alignment at a fixed temperature; fields of `Recipe` can be changed by name.

    Loss after Radford et al. 2021 (arXiv 2103.00020) with several positives a row; the defaults were chosen on
    validation families of emoji (test folds were looked at a few times while this was built).
    """
    return Recipe(**{"name": "clip"} | changes)


def clip_learned(**changes) -> Recipe:
    """`clip` with a learned temperature that starts at 0.07, as CLIP's does: the compulsory comparison for any schedule."""
    fields = {"name": "clip, learned τ", "temperature": schedules.Constant(0.07), "learn_temperature": True}
    return Recipe(**fields | changes)


def chance(scores: pd.DataFrame) -> dict[str, float]:
    """What guessing scores on these galleries, exactly: the expectation over a uniformly random rank.

    With a gallery of n, R@k = min(k, n) / n, MRR = (1 + 1/2 + … + 1/n) / n, mean rank = (n + 1) / 2. For one correct item
    per query.
    """
    values: dict[str, list[float]] = {"MRR": [], "R@1": [], "R@5": [], "R@10": [], "mean rank": []}
    for size, part in scores.groupby("size"):
        n, times = int(size), len(part)
        values["MRR"] += [(1 / np.arange(1, n + 1)).sum() / n] * times
        for k in (1, 5, 10):
            values[f"R@{k}"] += [min(k, n) / n] * times
        values["mean rank"] += [(n + 1) / 2] * times
    return {name: float(np.mean(of)) for name, of in values.items()}
