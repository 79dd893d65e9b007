"""Part of `make study`: does a dynamic loss converge faster, and does it guard against collapse? Five folds.

The two claims of the essay that the adaptive framework is taken from. Trained is what the study trains (Swahili and Sinhala, its
sizes and tuned settings) with clean text and at 40 % random noise; asked are the validation families, some 24 times a run: MRR,
text → image, and the effective rank times the variance. build/study/claims.csv holds every curve, facts.json the paired
differences to the static run with t intervals over the five folds. Recorded runs are skipped. `bench/study.py` calls `run`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from xmalign_lab import adaptive, profile, records, study, sweep
from xmalign_lab.evaluate.space import effective_rank
from xmalign_lab.train import train

LOSS = ("temperature", "negatives", "regulariser", "adversary", "stages")
RUNS = {"static": (), "temperature": ("temperature",), "stages": ("stages",), "dynamic loss": LOSS, "all parts": adaptive.PARTS}
CONDITIONS = (sweep.CLEAN, sweep.NOISE[0])
MEASURED = 24


def measured(state, task: study.Task) -> dict[str, float]:
    """MRR in the target languages, and the effective rank of all asked vectors times their variance."""
    asked = task.asked.where_rows(lang=["", *task.targets])  # pictures have no language
    scores = study.score(state.aligner, asked, task.features)
    _, vectors = study.embedded(state.aligner, task.asked, task.features)
    spread = 1 - float(np.square(vectors.mean(0)).sum())
    return {
        "MRR": float((1 / scores["rank"][scores.direction == "text→image"]).mean()),
        "rank": spread * effective_rank(vectors),
    }


def curve(name: str, condition: sweep.Condition, fold: int) -> records.Record:
    """The record of one run: steps.parquet has step, MRR and rank, some `MEASURED` times."""
    parts = RUNS[name]
    like = "no parts" if not parts else f"only {parts[0]}" if len(parts) == 1 else "all parts"
    like = "no parts" if name == "dynamic loss" else like  # which has neither belief nor threshold, and so their tuning not
    task, recipe = sweep.prepared(sweep.Run(like, condition, fold, "validation", sweep.ABLATED))
    recipe, features = replace(adaptive.dynamic(recipe, parts), name=name, seed=fold), task.features

    def fill(folder: Path) -> None:
        own, rows = adaptive.arranged(task, recipe, parts), []
        every = max(1, recipe.epochs * recipe.per_epoch // MEASURED)
        for step in train(recipe, own.features, own.pairs):
            if step.step % every == 0 or step.step == step.steps:
                rows.append({"step": step.step} | measured(step.state, task))
        pd.DataFrame(rows).to_parquet(folder / "steps.parquet")

    inputs = [name, str(condition), str(fold), *(features[m].key for m in sorted(features)), records.frame_hash(task.pairs.rows)]
    return records.get_or_run(recipe, fill, inputs, profile.runs_root() / "claims", "xmalign_lab.adaptive")


def _curve(cell: tuple) -> pd.DataFrame:
    name, condition, fold = cell
    return curve(*cell).steps.assign(run=name, condition=str(condition), fold=fold)


def first_above(rows: pd.DataFrame, level: float) -> float:
    """The first step whose MRR is at least `level`, or NaN."""
    return float(rows.step[rows.MRR >= level].min())


def told(curves: pd.DataFrame) -> pd.DataFrame:
    """A row per run, condition and fold: final MRR, steps to 90 % of it and of the static run's, least and last rank."""
    rows = []
    for (condition, fold), part in curves.groupby(["condition", "fold"]):
        of = {name: rows.sort_values("step") for name, rows in part.groupby("run")}
        level = 0.9 * of["static"].MRR.iloc[-1]
        for name, run in of.items():
            row = {"condition": condition, "fold": fold, "run": name, "final MRR": run.MRR.iloc[-1]}
            row |= {"steps to 90 % of its own": first_above(run, 0.9 * run.MRR.iloc[-1])}
            row |= {"steps to 90 % of static's": first_above(run, level)}
            rows.append(row | {"least rank": run["rank"].min(), "last rank": run["rank"].iloc[-1]})
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame) -> list[dict]:
    """Each run less the static one, by condition and measure: mean over the folds and its 95 % t interval; folds that lack it."""
    rows, measures = [], [column for column in table if column not in ("condition", "fold", "run")]
    for (condition, measure), name in product(product(table.condition.unique(), measures), table.run.unique()):
        wide = table[table.condition == condition].pivot(index="fold", columns="run", values=measure)
        gap = (wide[name] - wide["static"]).dropna().to_numpy()
        row = {"condition": condition, "measure": measure, "run": name, "mean": float(wide[name].mean())}
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5 if len(gap) > 1 else np.nan
        if name != "static":
            row |= {"difference": float(gap.mean()), "low": float(gap.mean() - half), "high": float(gap.mean() + half)}
        rows.append(row | {"folds": len(gap)})
    return rows


def run(folder: Path) -> list[dict]:
    """Make what is not recorded yet, write `folder`/claims.csv, and return `differences`."""
    cells = list(product(RUNS, CONDITIONS, range(5)))
    curves = pd.concat(sweep.each(_curve, cells), ignore_index=True)
    curves.to_csv(folder / "claims.csv", index=False)
    found = differences(told(curves))
    print(f"\n{pd.DataFrame(found).round(4).to_string(index=False)}")
    return found
