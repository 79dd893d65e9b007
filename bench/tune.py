"""`make tune`: the same small budget for every method, once, on validation families of fold 0, at 0 % and 40 % noise.

    python bench/tune.py [METHOD …]

Eight trials each (Optuna, TPE, seed 0; the first trial is the method's own recipe), chosen by MRR, text → image, on German, the
high-resource control, and applied unchanged to the other languages. Validation queries are corrupted at the training rate.
What is chosen goes to xmalign_lab/tuned.json, every trial to build/study/tuning.csv.
"""

from __future__ import annotations

import json
import sys

import optuna
import pandas as pd

from xmalign_lab import baselines, profile, sweep
from xmalign_lab.evaluate.retrieval import per_query

TRIALS, LANGUAGE = 8, "deu_Latn"
UNTRAINED = ("translate-test", "Procrustes", "Procrustes, words", "kernel ridge", *sweep.NO_RIVALS)


def space(trial: optuna.Trial, method: str) -> dict:
    """The learning rate, and what the method adds: its (first) temperature, SigLIP's first bias."""
    fields = {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2, log=True)}
    if "info_nce" in sweep.METHODS[method][1].terms or sweep.METHODS[method][1].learn_temperature:
        fields["temperature"] = trial.suggest_float("temperature", 0.01, 0.3, log=True)
    if method == "SigLIP loss":
        fields["bias"] = trial.suggest_float("bias", -12.0, -2.0)
    return fields


def first(method: str) -> dict:
    recipe = sweep.METHODS[method][1]
    return {"learning_rate": recipe.learning_rate, "temperature": recipe.temperature(0.0, {}, {})[0], "bias": recipe.bias}


def tune(method: str, rate: float) -> tuple[dict, list[dict]]:
    """The best fields of `TRIALS` trials, and all trials."""

    def objective(trial: optuna.Trial) -> float:
        changes = json.dumps(space(trial, method))
        run = sweep.Run(method, sweep.Condition(rate=rate), 0, "validation", (LANGUAGE,), changes=changes)
        scores = sweep.make(run).scores
        values = per_query(scores, "MRR")
        return float(values[(values.lang == LANGUAGE) & (values.direction == "text→image")].value.mean())

    search = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    search.enqueue_trial({k: v for k, v in first(method).items() if k != "bias" or method == "SigLIP loss"}, skip_if_exists=True)
    search.optimize(objective, n_trials=TRIALS)
    trials = [{"method": method, "rate": rate, **trial.params, "MRR": trial.value} for trial in search.trials]
    return dict(search.best_params), trials


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    methods = sys.argv[1:] or [method for method in sweep.METHODS if method not in UNTRAINED]
    chosen = json.loads(baselines.TUNED.read_text(encoding="utf-8")) if baselines.TUNED.exists() else {}
    rows = []
    for method in methods:
        for rate in (0.0, 0.4):
            best, trials = tune(method, rate)
            rows += trials
            chosen.setdefault(method, {})[f"{rate:.0%}"] = best
            print(f"{method}, {rate:.0%} noise: {best}, MRR {max(t['MRR'] for t in trials):.4f}", flush=True)
    baselines.TUNED.write_text(json.dumps(chosen, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    pd.DataFrame(rows).to_csv(profile.built("study", "tuning.csv"), index=False)


if __name__ == "__main__":
    main()
