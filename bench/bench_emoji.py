"""The main number: Swahili and Sinhala names find emoji pictures that no pair ever tied to them.

    python bench/bench_emoji.py

Five folds by family, seed k with fold k, 1,911 queries in all, names as queries, galleries of Google's and Twitter's
pictures; classic encoders, English names and keywords with pictures, English–Swahili and English–Sinhala names and
keywords. Everything printed is read from the records, which are made first where they are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from xmalign_lab import baselines, corpora, profile, study
from xmalign_lab.corpora import emoji
from xmalign_lab.evaluate import report
from xmalign_lab.pairs.parallel import bridge

LANGUAGES = ["eng_Latn", "swh_Latn", "sin_Sinh"]
TARGETS = LANGUAGES[1:]
WANTED = {("swh_Latn", "R@1"): 0.12, ("swh_Latn", "R@10"): 0.32, ("sin_Sinh", "R@1"): 0.11, ("sin_Sinh", "R@10"): 0.30}


def runs(folds: Iterable[int] = range(5)) -> list:
    """The records of these folds, made where they are missing."""
    corpus = corpora.load("emoji", LANGUAGES)
    return study.run_folds(baselines.clip(), corpus, study.prepare(corpus), lambda training: bridge(training, TARGETS), folds)


def main() -> None:
    if problem := emoji.missing():
        raise SystemExit(problem)
    folds = runs()
    scores = study.pooled_scores(folds)
    table = report.summary(scores)
    print(table.attrs["protocol"])
    for direction in ("text→image", "image→text"):
        print(f"\n{direction}\n{report.wide(table, direction).to_string()}")
    chance = baselines.chance(scores[scores.direction == "text→image"])
    print("\nchance, text→image:", ", ".join(f"{name} {value:.4f}" for name, value in chance.items()))
    seconds = [run.environment["seconds"] for run in folds]
    print(f"seconds per run, five runs: {min(seconds):.1f} to {max(seconds):.1f} ({folds[0].environment['machine']})")
    values = table[table.direction == "text→image"].set_index(["lang", "metric"])
    for key, wanted in WANTED.items():
        row = values.loc[key]
        print(f"{key[0]} {key[1]}: {row.value:.4f} [{row.low:.4f}, {row.high:.4f}], wanted ≥ {wanted:.2f}: {row.value >= wanted}")
    result = {
        "protocol": table.attrs["protocol"],
        "records": [run.key for run in folds],
        "date": max(run.environment["started"] for run in folds)[:10],
        "machine": folds[0].environment["machine"],
        "seconds": seconds,
        "chance": chance,
        "rows": json.loads(table.to_json(orient="records", double_precision=6)),
    }
    profile.built("bench", "emoji.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
