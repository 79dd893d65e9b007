"""`make readme`: fill the marked blocks of README.md from what `make bench` measured and from the notebooks' first cells.

A block stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; nothing else of the README is touched.
"""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from xmalign_lab import curves, languages, lowresource, sweep
from xmalign_lab.evaluate import report, significance

OVER_BY = "random noise 40%"  # by what the overview's rows are in order
OVER = {  # its columns: conditions and their heads
    "clean": "clean",
    "random noise 20%": "20 % wrong",
    OVER_BY: "40 %",
    "random noise 60%": "60 %",
    "hard noise 40%": "40 % near misses",
    "translation noise 40%": "40 % bad translation",
    "text 10%": "a tenth of the text",
    "text 1%": "a hundredth",
}
ROOT = Path(__file__).resolve().parent.parent
NAMES = {"eng_Latn": "English", "swh_Latn": "Swahili", "sin_Sinh": "Sinhala"}
SHOWN = ("MRR", "R@1", "R@10", "median rank")
FLOORS = {
    "string overlap": "spelling against the pictures' English names, nothing trained",
    "no dictionary": "pictures and English only, the study's smaller model",
}


def numbers(emoji: dict, speed: dict, floors: pd.DataFrame | None = None) -> str:
    """The results table with its protocol, chance, machine and date, and the seconds of each part, as Markdown.

    `floors`: what `floors_of` read; a row of other queries than the table's own is left out.
    """
    value = {(r["lang"], r["metric"]): r for r in emoji["rows"] if r["direction"] == "text→image"}
    trained = {"eng_Latn": "trained with pictures", "swh_Latn": "no picture ever seen", "sin_Sinh": "no picture ever seen"}
    rows = [[f"**{name}**, {trained[code]}", *(cell(value[code, metric]) for metric in SHOWN)] for code, name in NAMES.items()]
    for (method, code), found in floors.groupby(["method", "lang"], sort=False) if floors is not None else ():
        of = {row["metric"]: row for row in found.to_dict("records")}
        if of["MRR"]["queries"] == value[code, "MRR"]["queries"]:
            rows.append([f"{NAMES[code]}, {method}: {FLOORS[method]}", *(cell(of[metric]) for metric in SHOWN)])
    chance = emoji["chance"]
    rows.append(["chance", *(f"{chance[metric]:.3f}" for metric in SHOWN[:-1]), f"{chance['mean rank']:.0f}"])
    low, high = min(emoji["seconds"]), max(emoji["seconds"])
    queries = "; ".join(f"{name} {value[code, 'MRR']['queries']:,}" for code, name in NAMES.items())
    return (
        f"{report.pipe_table(['a name finds its picture', *SHOWN], rows)}\n\n"
        f"In brackets 95 % intervals. Protocol: five folds by family, names as queries ({queries}), {emoji['protocol']}. "
        "Ties take the mean rank, so what tells nothing apart has a lower MRR than chance. "
        f"One training run took {low:.0f}–{high:.0f} s on {emoji['machine']}, {emoji['date']}. "
        f"{'; '.join(f'{name}: {seconds:.2f} s' for name, seconds in speed.items())}. Printed by `make bench`."
    )


def floors_of(folder: Path) -> pd.DataFrame | None:
    """`report.summary` of the study's `FLOORS` on test families, text → image, with the column `method`; None without them."""
    if not (folder / "scores.parquet").exists():
        return None
    scores = pd.read_parquet(folder / "scores.parquet")
    asked = scores[(scores.part == "test") & (scores.direction == "text→image") & scores.lang.isin([*NAMES][1:])]
    parts = asked[asked.method.isin(FLOORS)].groupby("method", sort=False)
    tables = [report.summary(part, SHOWN[:-1]).assign(method=method) for method, part in parts]
    return pd.concat(tables) if tables else None


def openings(log: Path = ROOT / "docs" / "openings.jsonl") -> str:
    """How often the study's test scores were opened, and when, as its log has it."""
    days = [json.loads(line)["time"][:10] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    return (
        f" Its test scores were opened, [as logged](docs/openings.jsonl): {len(days)} ×, {days[0]} to {days[-1]}." if days else ""
    )


def hypotheses(facts: dict) -> str:
    """What the registered tests found, as Markdown."""
    of, found = "{name}: {a} − {b} = {difference:+.3f} [{low:+.3f}, {high:+.3f}], {p}".format, []
    for row in facts.get("registered", []):
        found.append(of(**row | {"name": NAMES[row["lang"]], "p": report.p_text(row["p, Holm"], row["p is the floor"])}))
    return f"\n\n**Registered** ([hypotheses](docs/hypotheses.md)), Holm over the two: {'; '.join(found)}." if found else ""


def beyond(folder: Path, facts: dict) -> str:
    """What the study says beside its main table: the gain recovered, pools without parallel text, the ablation; as Markdown."""
    if not (folder / "scores.parquet").exists():
        return ""
    scores, said = pd.read_parquet(folder / "scores.parquet"), []
    asked = scores[(scores.direction == "text→image") & scores.lang.isin(sweep.TARGETS)]
    half, random = (str(sweep.POOLS[1]), str(sweep.NOISE[0]))
    table, means = curves.resampled(asked[asked.condition.isin([half, random, str(sweep.CLEAN)])])
    there = set(zip(table.method, table.condition, strict=True))
    named = ("adaptive", "adaptive ridge", "kernel ridge")
    if {(m, random) for m in (*named, "oracle filter")} <= there:
        for lang in [*NAMES][1:]:
            found = {m: curves.recovered(table, means, m, [lang]) for m in named}
            shares = ", ".join(
                f"*{m}* {v:.0%} [{low:.0%}, {high:.0%}]".replace("nan%", "n/a") for m, (v, low, high) in found.items()
            )
            said.append(f"- {NAMES[lang]}, {random}: of the oracle filter's gain over constant τ, {shares}.")
    if {("mined", half), ("kernel ridge", str(sweep.CLEAN))} <= there:
        found = pd.DataFrame(facts["mined"]).query("condition == @half").groupby("lang").precision.mean()
        cell = table.set_index(["method", "condition", "lang"]).index
        for lang in [*NAMES][1:]:
            mined, whole = (means[:, cell.get_loc(key)] for key in (("mined", half, lang), ("kernel ridge", "clean", lang)))
            share, low, high = np.quantile(mined / whole, [0.5, 0.025, 0.975])
            said.append(
                f"- {NAMES[lang]}, no parallel text ({half}): {found[lang]:.0%} of the mined pairs are right; MRR is {share:.0%} "
                f"[{low:.0%}, {high:.0%}] of kernel ridge's with all parallel text and all English names of pictures."
            )
    if (folder / "ablation.csv").exists():
        parts = pd.read_csv(folder / "ablation.csv")
        helps, harms = curves.shown(parts)
        said.append(
            f"- Ablation, {random}, Swahili and Sinhala: of {len(parts)} parts shown to help when removed or alone (Holm, one "
            f"seed a fold): {', '.join(helps) or 'none'}; to harm: {', '.join(harms) or 'none'}."
        )
    if "claims" in facts:
        said.append(f"- {claims(facts['claims'])}")
    return "\n\n" + "\n".join(said) if said else ""


def claims(found: list[dict]) -> str:
    """Whether a dynamic loss was faster than a static one, and guarded against collapse: what five folds show of each measure."""
    lines = []
    for measure in ("steps to 90 % of static's", "final MRR", "least rank"):
        digits = "+.3f" if measure == "final MRR" else "+.0f"
        of = f"{{condition}}, {{run}} {{difference:{digits}}} [{{low:{digits}}}, {{high:{digits}}}]"
        rows = [row for row in found if row["measure"] == measure and "difference" in row]
        shown = [of.format(**row) for row in rows if row["folds"] == 5 and row["low"] * row["high"] > 0]
        lines.append(f"{measure}, {len(shown)} of {len(rows)} differences shown{': ' * bool(shown)}{'; '.join(shown)}")
    return f"Static against dynamic (validation families, t intervals over five folds, uncorrected): {'. '.join(lines)}."


def short(path: Path) -> str:
    """The answer in a sentence: the best of the bench's own methods and the best baseline, in the mean over the languages."""
    mean = pd.read_csv(path).query("lang == 'mean'").set_index("method").value
    own = mean[mean.index.isin(sweep.OWN)].idxmax()
    rival = mean[~mean.index.isin(sweep.NO_RIVALS)].idxmax()
    said = "**In short**, 40 % of the families given wrong text, mean over the languages: "
    said += f"*{own}* {mean[own]:.3f}, the best baseline *{rival}* {mean[rival]:.3f}"
    if mean.get("string overlap", 0) > mean[own]:
        said += f"; *string overlap*, which reads the pictures' English names and learns nothing, {mean['string overlap']:.3f}"
    return f"{said}."


def overview(folder: Path) -> str:
    """MRR of every method in every condition, the mean over the languages, best first by what they keep at 40 % random noise."""
    if not (folder / "scores.parquet").exists():
        return ""
    scores = pd.read_parquet(folder / "scores.parquet")
    scores = scores[scores.lang.isin(sweep.TARGETS) & scores.condition.isin(OVER) & ~scores.method.isin(sweep.ABLATIONS)]
    table, means = curves.resampled(scores)
    groups = table.groupby(["method", "condition"], sort=False).indices
    value = {key: table.value.to_numpy()[at].mean() for key, at in groups.items()}
    width = {key: np.ptp(np.quantile(means[:, at].mean(axis=1), [0.025, 0.975])) / 2 for key, at in groups.items()}
    once = {method: value[method, "clean"] for method in sweep.WITHOUT_PARALLEL if (method, "clean") in value}
    order = sorted({m for m, _ in value}, key=lambda m: (m in sweep.REFERENCES, -value.get((m, OVER_BY), once.get(m, 0)), m))
    rows = []
    for method in order:
        cells = (value.get((method, condition), once.get(method)) for condition in OVER)
        name = f"*{method}*" if method in sweep.REFERENCES else f"**{method}**" if method in sweep.OWN else method
        rows.append([name, *("" if v is None else f"{v:.3f}" for v in cells)])
    said = f"Bold: the bench's own; italic: controls and ceilings. 95 % intervals are ± {min(width.values()):.3f} to "
    said += f"± {max(width.values()):.3f} wide; a method that reads no translation was run once."
    return f"{report.pipe_table(['MRR, mean of languages', *OVER.values()], rows)}\n\n{said}"


def study(folder: Path) -> str:
    """The study's overview, the registered tests, the table at 40 % random noise, and how it was made, as Markdown."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    if facts["part"] != "test":
        raise ValueError(f"{folder} holds a study of {facts['part']} families: run `make study FINAL=1`")
    table = (folder / "tables" / "random-noise-40-all.md").read_text(encoding="utf-8")
    where = f"{facts['environment']['machine']}, {facts['date']}, commit {facts['commit']}"
    by_language = f"<summary>40 % random noise by language, with intervals and tests</summary>\n\n{table.strip()}"
    said = f"{overview(folder)}{hypotheses(facts)}{beyond(folder, facts)}"
    return (
        f"{short(folder / 'tables' / 'random-noise-40-all.csv')}\n\n{said}\n\n<details>{by_language}\n\n</details>\n\n"
        f"Five folds, {facts['part']} families; run: {', '.join(facts['conditions'])}; {facts['runs']} runs of "
        f"{facts['seconds per run']:.0f} s on average on one core of {where}. "
        f"Printed by `make study FINAL=1`.{openings()}"
    )


def transfer(folder: Path) -> str:
    """The whole of transfer on clean text: R@1, mean rank, and what it loses without each part, as Markdown."""
    tables = [(folder / "tables" / f"transfer-{metric}.md").read_text(encoding="utf-8") for metric in ("R@1", "mean-rank")]
    scores = pd.read_parquet(folder / "scores.parquet")
    scores = scores[(scores.condition == "clean") & scores.method.isin([*lowresource.METHODS, *lowresource.ABLATION])]
    said, there = [], set(scores.method)
    if "nothing transferred" in there:
        table, means = curves.resampled(scores[scores.lang.isin(sweep.ABLATED)])
        rows = [
            (m, curves.contrast(table, means, "all of transfer", m, "clean", sweep.ABLATED))
            for m in lowresource.ABLATION
            if m in there - {"all of transfer"}
        ]
        ps = significance.holm([of[-1] for _, of in rows])
        said = [
            f"{m} {-d:+.3f} [{-high:+.3f}, {-low:+.3f}], p = {p:.2g}" for (m, (d, low, high, _)), p in zip(rows, ps, strict=True)
        ]
        said = [f"MRR against all of it, trained on Swahili and Sinhala alone, Holm over {len(rows)}: {'; '.join(said)}."]
    said.append("Test families of five folds, clean text. Printed by `make study FINAL=1` and `make readme`.")
    by_rank = f"<details><summary>Mean rank</summary>\n\n{tables[1].strip()}\n\n</details>"
    return "\n\n".join([tables[0].strip(), by_rank, *said])


def crossed(folder: Path) -> str:
    """From cross-lingual to cross-modal: SumR on emoji and on scenes under a machine's noise, R@1 folded away, as Markdown."""
    parts = []
    for where in ("emoji", "scenes"):
        total, first = (folder / "tables" / f"crossed-{where}-{metric}.md" for metric in ("SumR", "R@1"))
        if total.exists():
            rows, _, notes = total.read_text(encoding="utf-8").strip().partition("\n\n")
            folded = f"{notes}\n\n{first.read_text(encoding='utf-8').strip()}"
            shown = f"**{where.capitalize()}**, SumR:\n\n{rows}"
            parts.append(f"{shown}\n\n<details><summary>How to read it, and R@1</summary>\n\n{folded}\n\n</details>")
    return "\n\n".join([*parts, "Printed by `make study FINAL=1`."])


def span(values, digits: int = 3) -> str:
    """`value [low, high]`."""
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*values[:3], d=digits)


def sentences(facts: dict) -> str:
    """What `make text` found on sentences of SIB-200: a row per method, with what the whole method is made of."""
    tables = {(table["direction"], table["metric"]): pd.DataFrame(table["table"]) for table in facts["tables"]}
    columns = [("to English", "R@1"), ("from English", "R@1"), ("to English", "mean rank"), ("to English, CSLS", "R@1")]
    heads, parts = [], []
    for lang, (way, metric) in product(("swh_Latn", "sin_Sinh"), columns):
        table = tables[way, metric].query("lang == @lang").set_index("method")
        heads.append(f"{NAMES[lang]} {way}, {metric}")
        parts.append([span(row, 1 if metric == "mean rank" else 3) for row in table[["value", "low", "high"]].to_numpy()])
    rows = report.pipe_table(["method", *heads], zip(table.index, *parts, strict=True))
    made = (
        f"{int(table.queries.max()):,} sentences a language; in brackets 95 % intervals over them and {table.seeds.max()} seeds"
    )
    return f"{rows}\n\n{made}. Parts chosen on held-out training sources: {', '.join(facts['parts'])}."


def taught(facts: dict) -> str:
    """What words add to a teacher of sentences, on Multi30K's captions and on gold word alignments, a row per question."""
    head, rows = ["pairs", "asked", "letter n-grams", "sentences", "and words", "words less sentences"], []
    shown = ("letter n-grams", "sentence level", "sentence and word level", "words less sentences")
    for row in facts["lines"]:
        means = row["language"] == "mean" and row["asked"] == "to English" and row["metric"] in ("R@1", "mean rank")
        if means or row["metric"] == "AER":
            digits = 1 if row["metric"] == "mean rank" else 3
            where = "" if row["language"] == "mean" else f", {languages.info(row['language']).name}"
            asked = f"{row['asked']}, {row['metric']}{where}"
            rows.append([row["pairs"], asked, *(span(row[name], digits) for name in shown)])
    made = f"{facts['captions']:,} captions of each language in training, {len(facts['seeds'])} seeds."
    return f"{report.pipe_table(head, rows, 2)}\n\n{made}"


def towers(facts: dict) -> str:
    """What towers from scratch reach on scenes, a row per language with Wilson's 95 % intervals."""
    rows = []
    for row in facts["scores"]:
        shares = [of for name, of in row.items() if name.startswith("R@1")]
        ends = [binomtest(round(s * row["gallery"]), row["gallery"]).proportion_ci(0.95, "wilson") for s in shares]
        cells = [span((share, *of)) for share, of in zip(shares, ends, strict=True)]
        rows.append([languages.info(row["lang"]).name, str(row["gallery"]), *cells])
    how = f"{facts['cpu_seconds']:.0f} s of one core's time ({facts['seconds']:.0f} s by the clock, whatever else ran)"
    choices = next(int(word) for name in facts["scores"][0] if "alike" in name for word in name.split() if word.isdigit())
    chance = f"{1 / facts['scores'][0]['gallery']:.3f} and {1 / choices:.3f}"
    said = (
        "All languages were trained with pictures here. Compositions (shape, colour, size, number, place) that no training met, "
        f"one seed, settings chosen with the other half held out; alike is what differs in one attribute; chance {chance}; "
        "Wilson's 95 % intervals. Scenes are drawn and easy: nearly all is found. "
        f"Training took {how}. Printed by `python bench/bench_towers.py`."
    )
    return f"{report.pipe_table(['language', 'finds its picture among', 'R@1', 'among 16 alike'], rows)}\n\n{said}"


def cell(row: dict) -> str:
    """`value [low, high]`, or a plain number for a rank."""
    return f"{row['value']:.0f}" if pd.isna(row["low"]) else span((row["value"], row["low"], row["high"]))


def questions(folder: Path) -> str:
    """The notebooks by the question each answers, from the title and the quote of its first cell."""
    rows = []
    for path in sorted(folder.glob("[0-9]*.ipynb")):
        first = nbformat.read(path, as_version=4).cells[0].source
        question = next(line.lstrip("> ").strip() for line in first.splitlines() if line.startswith(">"))
        rows.append([f"[{path.stem}](notebooks/{path.name})", question])
    return report.pipe_table(["notebook", "answers"], rows, 2)


def touched(budget: dict) -> str:
    """How long the page takes to answer, beside what it may take, as Markdown."""
    rows = [[r["what"], f"{r['measured']:.3g} {r['unit']}", f"{r['limit']} {r['unit']}"] for r in budget["rows"]]
    told = f"Medians in headless Chromium on {budget['machine']}, load {budget['load']}, {budget['date']}"
    return f"{report.pipe_table(['in the browser', 'takes', 'may take'], rows)}\n\n{told}. Printed by `make test-browser`."


def fill(text: str, blocks: dict[str, str]) -> str:
    """`text` with each block's content replaced. Raises `ValueError` if a block's marks are not there exactly once."""
    for name, content in blocks.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.S)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"README.md: the marks of the block {name!r} must be there exactly once")
        text = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


def main() -> None:
    built, folder = ROOT / "build", ROOT / "build" / "study"

    def facts(name: str) -> dict:
        return json.loads((built / name).read_text(encoding="utf-8"))

    ways = {  # the files that must have been measured for a block, and what makes it
        "notebooks": ((), lambda: questions(ROOT / "notebooks")),
        "numbers": (("bench/emoji.json", "bench/speed.json"), lambda *files: numbers(*map(facts, files), floors_of(folder))),
        "study": (("study/tables/random-noise-40-all.md",), lambda _: study(folder)),
        "transfer": (("study/tables/transfer-R@1.md",), lambda _: transfer(folder)),
        "crossed": (("study/tables/crossed-emoji-SumR.md",), lambda _: crossed(folder)),
        "towers": (("bench/towers.json",), lambda file: towers(facts(file))),
        "sentences": (("text/transfer.json",), lambda file: sentences(facts(file))),
        "taught": (("text/teacher.json",), lambda file: taught(facts(file))),
        "touched": (("browser/budget.json",), lambda file: touched(facts(file))),
    }
    there = {name: (files, block) for name, (files, block) in ways.items() if all((built / file).exists() for file in files)}
    if lacking := ", ".join(name for name in ways if name not in there):
        print(f"not measured (`make bench`, `make study FINAL=1`, `make text`), so these blocks stay as they are: {lacking}")
    blocks = {name: block(*files) for name, (files, block) in there.items()}
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    print(f"filled {', '.join(blocks)}")


if __name__ == "__main__":
    main()
