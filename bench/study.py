"""`make study`: methods × noise × parallel text × languages × folds, on emoji; resumable, one process a core.

    python bench/study.py [--final] [--smoke] [--methods NAME …] [--conditions CONDITION …]

Development sees validation families only, and writes to build/study-validation/. `--final` (make study FINAL=1) opens the
test scores, logs that it did in docs/openings.jsonl, and makes the two registered tests (docs/hypotheses.md). build/study/ then
holds every per-query score, the tables in four forms, and facts.json; notebook 08 reads them, `make readme` puts the table and
the log's dates on the page. Where only some methods or conditions are run, they take the place of their older selves in the
record that the folder holds; facts.json says of which commit each run is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from xmalign_lab import adaptive, cl2cm, curves, profile, sweep
from xmalign_lab.corpora import emoji
from xmalign_lab.evaluate import report, significance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, Python looks into bench/ alone
from bench import claims

PRIMARY = ("swh_Latn", "sin_Sinh")
WHOLE = "adaptive ridge"  # as registered; changing it, or PRIMARY, is another registration
# What the whole of transfer is compared with on clean text, by two measures of its own.
RIVALS = (
    "whole transfer",
    "adaptive ridge",
    "kernel ridge",
    "M-CLIP",
    "Reimers–Gurevych",
    "translate-test",
    "CLIP loss",
    "ALIGN loss",
)
SHOWN = (sweep.CLEAN, sweep.Condition(rate=0.4), sweep.Condition("translation", 0.4), sweep.Condition(text=0.1))


def tables(scores, folder) -> None:
    """For each shown condition the comparison of the methods by MRR, text → image, with and without flags, in four forms.

    What `sweep.REFERENCES` names (oracles, the controls without parallel text) has its letters but is never bold.
    """
    for name, part in (("all", scores), ("without flags", sweep.without_flags(scores))):
        for condition in SHOWN:
            compared = sweep.cells(part, condition)
            if len(compared) < 2:
                continue
            references = [method for method in compared if method in sweep.REFERENCES]
            result = report.compare(compared, langs=sorted(set(part.lang) - {"eng_Latn"}), references=references)
            path = written(result, folder, f"{condition} {name}".replace("%", ""))
            for ending, text in (("html", result.to_html()), ("tex", result.to_latex())):
                path.with_suffix(f".{ending}").write_text(text, encoding="utf-8")
            path.with_suffix(".tests.csv").write_text(result.tests.to_csv(index=False), encoding="utf-8")
            if name == "all":
                print(f"\n{condition}\n{result.to_markdown()}")


def written(result: report.Comparison, folder: Path, name: str) -> Path:
    """A comparison as Markdown and CSV in the folder's `tables`; its path but for the ending."""
    path = folder / "tables" / name.replace(" ", "-")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(result.to_markdown(), encoding="utf-8")
    path.with_suffix(".csv").write_text(result.to_csv(), encoding="utf-8")
    return path


def transfer_tables(scores, folder) -> None:
    """R@1 and mean rank of `RIVALS` on clean text in the languages that have few resources, as Markdown and CSV."""
    cells = {method: part for method, part in sweep.cells(scores, sweep.CLEAN).items() if method in RIVALS}
    langs = [lang for lang in sweep.TARGETS if lang != "deu_Latn" and lang in set(scores.lang)]
    for metric in ("R@1", "mean rank") if len(cells) > 1 else ():
        written(report.compare(cells, metric, langs=langs), folder, f"transfer-{metric}")


def crossed_tables(scores: pd.DataFrame, folder: Path, where: str) -> None:
    """From cross-lingual to cross-modal, a machine's noise: R@1 and SumR of `sweep.CROSSED` and what stands beside them.

    `where` is "emoji" or "scenes", whose scores these are; as Markdown and CSV.
    """
    rows = scores[scores.condition == str(sweep.NOISE[1])]
    compared = [*sweep.CROSSED, *cl2cm.ABLATION, *sweep.BESIDE]
    cells = {method: part for method in compared if len(part := rows[rows.method == method])}
    langs = [lang for lang in sweep.TARGETS if lang in set(rows.lang)]
    for metric in ("R@1", "SumR") if {*sweep.CROSSED, *sweep.BESIDE} & set(cells) and len(cells) > 1 else ():
        written(report.compare(cells, metric, langs=langs), folder, f"crossed-{where}-{metric}")


def scenes(folder: Path, part: str) -> None:
    """The crossed methods on drawn scenes: scores-scenes.parquet and its tables."""
    runs = sweep.on_scenes(part)
    scores = sweep.collect(runs, sweep.make_all(runs))
    scores.to_parquet(folder / "scores-scenes.parquet")
    crossed_tables(scores, folder, "scenes")


def joined(folder: Path, scores: pd.DataFrame, facts: dict) -> tuple[pd.DataFrame, dict]:
    """The scores and facts that `folder` holds, with those of this run in the place of the same methods and conditions.

    What this run did not make again (the registered tests, the claims) stays. Another part's or an unreadable record is not kept.
    """
    path = folder / "facts.json"
    if not path.exists() or (old := json.loads(path.read_text(encoding="utf-8")))["part"] != facts["part"]:
        return scores, facts
    new = set(facts["sets"][0]["runs"])
    sets = [of | {"runs": {cell: n for cell, n in of["runs"].items() if cell not in new}} for of in old["sets"]]
    sets = [of for of in sets if of["runs"]] + facts["sets"]
    counts = [sum(of["runs"].values()) for of in sets]
    before, now = pd.read_parquet(folder / "scores.parquet"), counts[-1]
    before = before[~(before.method + ", " + before.condition).isin(new)]
    facts = old | facts | {"sets": sets, "runs": sum(counts)}
    seconds = [old["seconds per run"] * (sum(counts) - now), facts["seconds per run"] * now]
    facts["seconds per run"] = round(sum(seconds) / sum(counts), 1)
    facts["minutes"] = round(old["minutes"] + facts["minutes"], 1)
    if len(sets) > 1:
        facts["commit"] = ", ".join(f"{of['commit']} ({n} runs)" for of, n in zip(sets, counts, strict=True))
    for name in ("methods", "conditions"):
        facts[name] = list(dict.fromkeys([*old[name], *facts[name]]))
    facts["not applicable"] = [of for of in old["not applicable"] if of.split(":")[0] not in new] + facts["not applicable"]
    facts["mined"] = [of for of in old["mined"] if f"{of['method']}, {of['condition']}" not in new] + facts["mined"]
    return pd.concat([before, scores], ignore_index=True), facts


def chosen_on_validation(methods) -> dict[str, str]:
    """The baseline to beat in each primary language: the best at 40 % random noise on validation families, five folds."""
    runs = list(sweep.plan([m for m in methods if m not in sweep.NO_RIVALS], [sweep.NOISE[0]], part="validation"))
    best = sweep.best(sweep.collect(runs, sweep.make_all(runs))) if runs else {}
    return {lang: best[lang] for lang in PRIMARY if lang in best}


def registered(scores, chosen: dict[str, str]) -> list[dict]:
    """The registered tests, a row per language: `WHOLE` against the baseline chosen on validation families, Holm over them."""
    compared = sweep.cells(scores, sweep.NOISE[0])
    if WHOLE not in compared:
        return []
    rows = []
    for lang, rival in chosen.items():
        found = report.compare({method: compared[method] for method in (WHOLE, rival)}, langs=lang, correction="none")
        test = found.tests.loc[0, ["lang", "a", "b", "difference", "low", "high", "p", "smallest"]]
        rows.append(test.to_dict() | {"p is the floor": bool(test.p <= found.floor)})
    return [row | {"p, Holm": float(p)} for row, p in zip(rows, significance.holm([row["p"] for row in rows]), strict=True)]


def commit_of(root: Path) -> str:
    """The commit of the checkout `root`, with "-dirty" if the library or this folder differ from it; "" outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(git("status", "--porcelain", "xmalign_lab", "bench"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--final", action="store_true", help="open the test scores; every opening is logged")
    parser.add_argument("--smoke", action="store_true", help="the small study on scenes that CI runs")
    parser.add_argument("--methods", nargs="*", default=list(sweep.METHODS), choices=list(sweep.METHODS), metavar="NAME")
    known = [str(condition) for condition in sweep.CONDITIONS]
    parser.add_argument(
        "--conditions", nargs="*", default=known, choices=known, metavar="CONDITION", help=", ".join(known).replace("%", "%%")
    )
    options = parser.parse_args()
    if not options.smoke and (problem := emoji.missing()):
        raise SystemExit(problem)
    root = profile.repository()
    folder = root / "build" / ("study-smoke" if options.smoke else "study" if options.final else "study-validation")
    folder.mkdir(parents=True, exist_ok=True)
    conditions = [c for c in sweep.CONDITIONS if str(c) in options.conditions]
    whole = sweep.plan(options.methods, conditions, part="test" if options.final else "validation")
    runs = sweep.smoke_runs() if options.smoke else list(whole)
    print(f"{len(runs)} runs, those recorded are skipped; stop with Ctrl-C, start again to go on", flush=True)
    commit = commit_of(root)
    if options.final:
        opened = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "commit": commit}
        opened |= {"methods": options.methods, "conditions": options.conditions}
        with open((folder if options.smoke else root / "docs") / "openings.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(opened, ensure_ascii=False) + "\n")
    start = time.monotonic()
    found = sweep.make_all(runs)
    facts = sweep.facts(runs, found, (time.monotonic() - start) / 60, commit)
    scores, facts = joined(folder, sweep.collect(runs, found), facts)
    scores.to_parquet(folder / "scores.parquet")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    every = set(sweep.METHODS) <= set(options.methods)  # the best of a few is another baseline
    if chosen := chosen_on_validation(options.methods) if options.final and every and not options.smoke else {}:
        facts |= {"best on validation": chosen, "registered": registered(scores, chosen)}
    if set(adaptive.ABLATION) <= set(options.methods) & set(scores.method):
        parts = curves.ablation(*curves.resampled(scores[scores.method.isin(adaptive.ABLATION)]))
        parts.to_csv(folder / "ablation.csv", index=False)
        print(f"\n{parts.round(4).to_string(index=False)}")
        facts |= {} if options.smoke else {"claims": claims.run(folder)}
    (folder / "facts.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
    tables(scores, folder)
    transfer_tables(scores, folder)
    crossed_tables(scores, folder, "emoji")
    if set(sweep.CROSSED) <= set(options.methods) and not options.smoke:
        scenes(folder, "test" if options.final else "validation")
    print(f"\n{len(runs)} runs in {(time.monotonic() - start) / 60:.1f} minutes now; the record of {facts['runs']} is {folder}")


if __name__ == "__main__":
    main()
