"""The cross-lingual teacher on captions that people wrote: Multi30K's English with German, French and Czech, and word links.

    python bench/teacher_text.py [--root FOLDER] [--captions 1000] [--seeds 0 1 2]    # FOLDER holds multi30k/ and others

Rows: letter n-grams, untrained; `cl2cm.teacher` on sentences alone; and a teacher trained anew with the words that transport
matches over all pairs of texts by the one before (`cl2cm.matched_words`), in half the steps, so that both take about as long.
Pairs are human captions of task 1, of which there are no machine translations, or the same after a share of each language's
captions was handed on to other pictures: wrong as a whole, as machine translations seldom are. Asked are the 1,000 captions of
test_2016, both ways: R@1, MRR, mean rank, and 1 - xSIM, which is R@1 by ratio margin. A training picture of which a caption in
any language is asked stays out. What a pair of words counts is chosen by the MRR of the validation captions, human pairs, the
first seed.

Word links come from the plan of transport between the words of two sentences, each encoded alone: a link is what carries a share
of the most it could. Share and regularisation are chosen on one half of the gold sentences (every second) for the other, and
the reverse; AER is of all of them, intervals are over sentences, for the mean of the seeds. English-French is of
parliament, not of pictures; of Dutch and Spanish the teacher has read nothing, and what it does there is transfer.

Prints a Markdown table and leaves build/text/teacher.json. Runs are recorded: a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, and `bench` is no installed package

from bench.text_eval import ENGLISH
from bench.text_transfer import answers, grams
from xmalign_lab import baselines, cl2cm, corpora, profile, records
from xmalign_lab.corpora import lexicons, lines
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, hashed_fraction
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate import report, significance, words
from xmalign_lab.losses import local
from xmalign_lab.model import Aligner
from xmalign_lab.pairs import noise
from xmalign_lab.study import Task

OWN = Path(__file__).read_text(encoding="utf-8").split("\ndef table")[0]  # what decides a run, beside the library
TARGETS, GOLD = ("deu_Latn", "fra_Latn", "ces_Latn"), {"fra_Latn": "awesome", "nld_Latn": "xlwa", "spa_Latn": "xlwa"}
LETTERS, SENTENCES, WORDS = ROWS = ("letter n-grams", "sentence level", "sentence and word level")
RATES = {"human": 0.0, "40 % swapped": 0.4}
SHARES, WEIGHT = (0.3, 1.0), 0.1  # of a relation of words beside one of sentences; the least weight of a pair of words
EPSILONS, CARRIED = (0.05, 0.1), np.linspace(0.2, 0.8, 4)
RECIPE = baselines.clip(dim=128, hidden=128, epochs=25, batch_pairs=900, least_count=3)
METRICS = {"R@1": ("R@1", ""), "MRR": ("MRR", ""), "mean rank": ("mean rank", ""), "1 - xSIM": ("R@1", ", margin")}
LEAD, WAYS = "words less sentences", ("to English", "from English")
COUNTS = ["hits_sure", "hits_possible", "predicted", "sure"]


def read(root: Path, captions: int) -> tuple[Corpus, dict]:
    """The texts, of training those of `captions` pictures of which none is asked in any language; and gold links by language."""
    place = {name: root / lines.sources()[name].folder for name in ("multi30k", "awesome", "xlwa")}
    corpus = corpora.load("multi30k", [ENGLISH, *TARGETS], root=place["multi30k"]).where_rows(modality="text")
    group, key = corpus.rows.group, corpus.rows.text.str.casefold().str.replace(r"\W+", "", regex=True)
    asked = corpus.rows.split != "train"
    free = sorted(set(group[~asked]) - set(group[key.isin(key[asked])]), key=hashed_fraction)
    gold = {lang: lexicons.load_alignments(name, ENGLISH, lang, "test", place[name]) for lang, name in GOLD.items()}
    return corpus.select(asked | group.isin(free[:captions])), gold


def linked(encode, gold: list) -> pd.DataFrame:
    """A row of `words.alignment_counts` per sentence, each by what the other half of the sentences chooses."""
    known, tried = [], []
    for said in zip(*((pair.source, pair.target) for pair in gold), strict=True):
        names = sorted(set().union(*said))
        known.append(dict(zip(names, torch.from_numpy(encode(names)), strict=True)))
    for epsilon in EPSILONS:
        plans = []
        for pair in gold:
            x, y = (torch.stack([of[word] for word in said])[None] for of, said in zip(known, pair[:2], strict=True))
            masks = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (x, y))
            plans.append(local.matching(x, y, *masks, epsilon)[0].numpy() * max(x.shape[1], y.shape[1]))
        for least in CARRIED:
            links = [np.argwhere(plan >= least) for plan in plans]
            tried.append(words.alignment_counts(links, [pair.sure for pair in gold], [pair.possible for pair in gold])[COUNTS])
    half = np.arange(len(gold)) % 2 == 0
    best = [min(tried, key=lambda counts, of=of: words.alignment_scores(counts[of]).AER) for of in (~half, half)]
    return pd.concat([best[0][half], best[1][~half]]).sort_index()


def recorded(share: float | None, rate: str, seed: int, corpus: Corpus, gold: dict) -> records.Record:
    """Ranks of validation and test captions, and counts of links, of a teacher: with words at `share`, none, or no teacher."""
    known, (rate, seed) = corpus.where_rows(split="train"), ("human", 0) if share is None else (rate, seed)
    pairs = [Pairs.by_group(known, {"lang": ENGLISH}, {"lang": to}, f"{ENGLISH}-{to}") for to in TARGETS]
    pairs, truth = noise.shuffle(pairs[0] + pairs[1] + pairs[2], known, RATES[rate], seed)
    recipe = replace(RECIPE, seed=seed, per_epoch=max(1, round(len(pairs) / RECIPE.batch_pairs)))

    def teacher() -> Aligner:
        texts = Features(known.ids, cl2cm.leveled_texts(list(known.rows.text)))
        if not share:
            return cl2cm.teacher(replace(recipe, epochs=2 * recipe.epochs), texts, pairs)
        before = Aligner.load(recorded(0, rate, seed, corpus, gold).folder)
        more, matched = cl2cm.matched_words(Task(known, {}, pairs, truth, TARGETS, 0), before, WEIGHT)
        weighed = replace(recipe, relations=dict.fromkeys(matched.sources, share))
        return cl2cm.teacher(weighed, Features.concatenate([texts, more]), pairs + matched)

    def run(folder: Path) -> None:
        encode, ranks = (lambda texts: grams(texts, buckets=2**13).toarray()), []
        if share is not None:
            aligner = teacher()
            aligner.save(folder)
            encode = lambda texts: aligner.encode_text(Features(range(len(texts)), cl2cm.leveled_texts(texts)))  # noqa: E731
        for split in ("validation", "test"):
            said = corpus.where_rows(split=split).rows.pivot(index="group", columns="lang", values="text")
            there = {lang: encode(list(said[lang])) for lang in said}
            ranks.append(answers({lang: (there[lang], there[ENGLISH]) for lang in TARGETS}).assign(split=split))
        pd.concat(ranks).to_parquet(folder / "scores.parquet")
        pd.concat({lang: linked(encode, of) for lang, of in gold.items()}, names=["lang"]).to_parquet(folder / "links.parquet")

    parts = pd.DataFrame([[OWN, str(share), str(gold)]]), corpus.rows[["id", "text"]], pairs.rows
    inputs = [records.frame_hash(part) for part in parts]
    return records.get_or_run(recipe, run, inputs, module="xmalign_lab.cl2cm")


def table(found: dict, rate: str) -> list[dict]:
    """A line per question of the records `{row: one per seed}`: each row's value, low and high; words less sentences, and p.

    Ranks by `report.compare`, p corrected by Holm within a question; of AER an interval over sentences and each p as it is.
    """
    every = {row: pd.concat([of.scores.assign(seed=seed) for seed, of in enumerate(found[row])]) for row in ROWS}
    ranks, made, draws = {row: of[of.split == "test"] for row, of in every.items()}, [], 2_000
    for way, (name, (metric, how)) in product(WAYS, METRICS.items()):
        compared = report.compare(ranks, metric, way + how, TARGETS, draws=draws)
        cells = compared.table.set_index(["lang", "method"])[["value", "low", "high"]]
        for test in compared.tests.query("a == @SENTENCES and b == @WORDS").itertuples():
            line = {"pairs": rate, "asked": way, "metric": name, "language": test.lang}
            line |= {row: list(cells.loc[(test.lang, row)]) for row in ROWS}
            made.append(line | {LEAD: [-test.difference, -test.high, -test.low, test.p_adjusted]})
    for lang in GOLD:
        line, drawn = {"pairs": rate, "asked": "word links", "metric": "AER", "language": lang}, []
        for row in ROWS:
            counts = np.stack([pd.read_parquet(of.folder / "links.parquet").loc[lang].T.to_numpy(float) for of in found[row]])
            means = significance.bootstrap_means(np.concatenate(counts), np.arange(counts.shape[2]), draws).reshape(draws, -1, 4)
            drawn.append([aer(of).mean(-1) for of in (means, counts.sum(2))])
            line[row] = list(significance.reading(*drawn[-1])[:3])
        lead = significance.reading(*(more - less for more, less in zip(drawn[2], drawn[1], strict=True)))
        made.append(line | {LEAD: list(lead)})
    return made


def aer(counts: np.ndarray) -> np.ndarray:
    """`words.alignment_scores`' of sums or means (…, 4) of `COUNTS`."""
    return 1 - counts[..., :2].sum(-1) / counts[..., 2:].sum(-1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=profile.data_root(), help="the folder that holds multi30k/ and others")
    parser.add_argument("--captions", type=int, default=1_000, help="training captions of each language, of 29,000")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(arguments)
    try:
        corpus, gold = read(options.root, options.captions)
    except CorpusError as error:
        raise SystemExit(str(error)) from None
    kept, tried = "split == 'validation' and direction in @WAYS", {}
    for share in tqdm(SHARES, desc="what words count, on validation"):
        ranks = recorded(share, "human", options.seeds[0], corpus, gold).scores.query(kept)["rank"]
        tried[share] = float((1 / ranks).mean())
    kinds, found = dict(zip(ROWS, (None, 0, max(tried, key=tried.get)), strict=True)), {}
    for rate, row, seed in tqdm(list(product(RATES, ROWS, options.seeds)), desc="pairs, rows and seeds"):
        found.setdefault(rate, {}).setdefault(row, []).append(recorded(kinds[row], rate, seed, corpus, gold))
    made = [line for rate in RATES for line in table(found[rate], rate)]
    forms = {3: "{:.3f} [{:.3f}, {:.3f}]", 4: "{:+.3f} [{:+.3f}, {:+.3f}], p = {:.2g}"}
    shown = [[forms[len(of)].format(*of) if isinstance(of, list) else of for of in line.values()] for line in made]
    print(*(f"| {' | '.join(row)} |" for row in (made[0], ["---"] * len(made[0]), *shown)), sep="\n")
    print(f"\nvalidation MRR by what words count: {tried}")
    facts = {"captions": options.captions, "seeds": options.seeds, "tried": tried, "lines": made}
    profile.built("text", "teacher.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
