"""Real text, asked of spaces that have read emoji alone: adaptive methods against the baselines, five kinds of question.

    python bench/text_eval.py [--root FOLDER] [--seeds 0 1 2]    # FOLDER: the data root, by default the project's

Every family of emoji teaches: with 40 % of each language's families given another's text, by seed, and clean, once. Methods
are the study's, which give any text a vector by its n-grams. Asked are: sentences among their translations (MRR@10, both
ways), their cosine less that of random pairs, translations of words (P@1 under CSLS, without words that a training text holds
as a whole name or keyword on either side), topics by a classifier that English taught, and word links (1 - AER by itermax,
mean over sentences). FLORES' sentences, which are SIB-200's, teach no space. The reference "spelling" is the n-grams alone.

Leaves build/text/scores.parquet, a row per query, and table.md: mean [95 %] over queries and seeds (`significance.pairwise`),
and the lead of the adaptive methods on the best baseline of that very row, whose luck counts against them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd

from xmalign_lab import baselines, corpora, profile, study, sweep
from xmalign_lab.corpora import emoji, lexicons, lines
from xmalign_lab.corpus import Corpus, concatenate, hashed_fraction
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate import significance, space, transfer, words
from xmalign_lab.pairs import noise, parallel

ENGLISH = "eng_Latn"
TARGETS = ("swh_Latn", "sin_Sinh", "deu_Latn", "nld_Latn")  # Dutch: of those with gold word links the nearest to German
NOISE = sweep.Condition(rate=0.4)
DICTIONARIES = {"xling_eval": "test.freq.2k", "muse": "test", "afromt": None}  # the part of each
SOURCES = ("tatoeba", "sib200", *DICTIONARIES, "xlwa")
MOST = 2_000  # English words of a dictionary: they and their translations are all that is asked or found
ADAPTIVE, BASELINES = ("adaptive ridge", "adaptive"), ("constant τ", "kernel ridge", "Procrustes")
METHODS = (*ADAPTIVE, *BASELINES, "oracle filter", "spelling")


def vectors_of(aligner, corpus, features):
    """What a method ends in here, where `study.score` would rank pictures: the vectors of the texts that are asked."""
    ids = corpus.where_rows(modality="text").ids
    return Features(ids, aligner.encode_text(Features(ids, features["text"].take(ids))))


def read(name, lang, root):
    """Texts in `lang`, English ones, and what relates them: a table of rows, a dictionary or gold links. None if not there."""
    folder = root / lines.sources()[name].folder
    if not any(lang in (file.lang, file.other) for file in lines.files(name, folder)):
        return None
    if name == "xlwa":
        gold = lexicons.load_alignments(name, ENGLISH, lang, "test", folder)
        return *(sorted({word for pair in gold for word in pair[side]}) for side in (1, 0)), gold
    if name in DICTIONARIES:
        table = lexicons.load(name, ENGLISH, lang, DICTIONARIES[name], folder).map(str.casefold).drop_duplicates()
        table = table[table.source.isin(sorted(set(table.source), key=hashed_fraction)[:MOST])]
        return sorted(set(table.target)), sorted(set(table.source)), lexicons.translations(table)
    rows = corpora.load(name, [ENGLISH, lang], root=folder).rows
    rows["topic"] = [labels.get("topic") for labels in rows.labels]
    both = rows[rows.lang == lang].merge(rows[rows.lang == ENGLISH], on="group", suffixes=("", "_english"))
    return list(both.text), list(both.text_english), both


def asked(vectors, found, entries):
    """Language, metric, queries and values; `vectors(lang, texts)`, `entries` {lang: the names and keywords read in training}."""
    topics = {}
    for (lang, name), (here, there, how) in found.items():
        left, right = vectors(lang, here), vectors(ENGLISH, there)
        if name == "sib200":
            taught, part = (how.split == "train").to_numpy(), how[how.split == "test"]
            topics[lang] = left[(how.split == "test").to_numpy()], part.topic, part.group
            english = right[taught], how.topic[taught]
        if hasattr(left, "indices"):  # sparse n-grams
            used = np.union1d(left.indices, right.indices)
            left, right = left[:, used].toarray(), right[:, used].toarray()
        if name in ("tatoeba", "sib200"):
            groups = how.group.to_numpy()
            yield lang, f"{name}: MRR@10 to English", groups, transfer.retrieval_mrr(left, right, groups, groups)
            yield lang, f"{name}: MRR@10 from English", groups, transfer.retrieval_mrr(right, left, groups, groups)
            yield lang, f"{name}: cosine, true - random", groups, np.subtract(*space.pair_similarity(left, right))
        elif name in DICTIONARIES:
            unread = {word: of for word, of in how.items() if word not in entries[ENGLISH] and not entries[lang] & {*of}}
            hits = words.induction(right, there, left, here, unread, k=(1,))
            yield lang, f"{name}: P@1 from English, the unread of {len(how):,} words", hits["query"], hits["P@1"]
        else:
            at = [pd.Index(side).get_indexer for side in (here, there)]
            links = [words.align(right[at[1](pair.source)], left[at[0](pair.target)]) for pair in how]
            counts = words.alignment_counts(links, [pair.sure for pair in how], [pair.possible for pair in how])
            accuracy = (counts.hits_sure + counts.hits_possible) / (counts.predicted + counts.sure)
            yield lang, f"{name}: word links, 1 - AER", counts.index, accuracy
    for lang, part in transfer.transfer(*english, topics).groupby("lang", sort=False) if topics else ():
        share = part.gold.map(part.gold.value_counts(normalize=True)) * part.gold.nunique()
        yield lang, "sib200: topic, accuracy", part["query"], part.correct
        yield lang, "sib200: topic, mean recall of the topics", part["query"], part.correct / share


def evaluate(corpus, found, targets=TARGETS, seeds=(0, 1, 2)):
    """A row per condition, seed, method, language, metric and query; `found` {(lang, source): what `read` gives}."""
    texts = corpus.where_rows(modality="text").rows
    entries = {lang: {e for text in of.text for e in text.casefold().split(", ")} for lang, of in texts.groupby("lang")}
    whole, given, parts = parallel.bridge(corpus, list(targets)), study.prepare(corpus), []
    sides = [(side, text) for (lang, _), of in found.items() for side, some in ((lang, of[0]), (ENGLISH, of[1])) for text in some]
    ids = {side: f"asked-{number}" for number, side in enumerate(dict.fromkeys(sides))}
    rows = pd.DataFrame(list(ids), columns=["lang", "text"]).assign(id=ids.values(), group=ids.values(), split="test")
    more = Corpus(rows.assign(kind="caption"))
    given["text"] = Features.concatenate([given["text"], ClassicText().encode(more, progress=False)])
    picture = corpus.rows.id == corpus.where_rows(modality="image").ids[0]  # a method wants one to be asked
    corpus = replace(corpus, rows=corpus.rows.assign(split=np.where(picture, "test", "train")))
    corpus = concatenate([corpus, more], "emoji, and texts that are asked")

    def ask(of):
        return list(asked(lambda lang, some: of.take([ids[lang, text] for text in some]), found, entries))

    untrained = ask(given["text"])
    for condition, seed in [*((NOISE, seed) for seed in seeds), (sweep.CLEAN, seeds[0])]:
        pairs = noise.shuffle(whole, corpus, condition.rate, seed, [f"{ENGLISH}-{lang}" for lang in targets])
        task = study.Task(corpus, given, *pairs, tuple(targets), seed)
        for method in METHODS if condition.rate else [name for name in METHODS if name != "oracle filter"]:
            answers = untrained
            if method in sweep.METHODS:
                recipe = sweep.recipe_of(sweep.Run(method, condition, seed))
                recipe = replace(recipe, per_epoch=max(1, round(len(whole) / recipe.batch_pairs)))  # as many steps for all
                with mock.patch.object(baselines, "score", vectors_of):
                    answers = ask(sweep.METHODS[method][0](task, recipe))
            for lang, metric, queries, values in answers:
                row = {"condition": str(condition), "seed": seed, "method": method, "lang": lang, "metric": metric}
                parts.append(pd.DataFrame({"query": list(map(str, queries)), "value": list(map(float, values))} | row))
    return pd.concat(parts, ignore_index=True)


def table(scores):
    """A row per condition, language and metric: each method's mean [95 %], and the adaptive ones' lead on the best baseline."""
    rows = []
    for where, part in scores.groupby(["condition", "lang", "metric"], sort=False):
        cells = part.pivot(index=["method", "seed"], columns="query", values="value")
        names = [name for name in METHODS if name in set(part.method)]
        values = np.stack([cells.loc[name].to_numpy() for name in names])[:, None]
        tests = significance.pairwise(values, cells.columns.to_numpy(), 2_000)
        read_as = {(names[i], names[j]): "{:+.3f} [{:+.3f}, {:+.3f}]".format(*rest) for i, j, _, *rest in tests}
        best = max(BASELINES, key=lambda name: cells.loc[name].to_numpy().mean())
        row = dict(zip(("condition", "language", "metric"), where, strict=True)) | {"queries": cells.shape[1]}
        row |= {name: read_as[name, name].replace("+", "") for name in names}
        rows.append(row | {f"{name} - best": f"{read_as[name, best]}, {best}" for name in ADAPTIVE})
    return pd.DataFrame(rows).fillna("n/a")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=profile.data_root(), help="the folder that holds sib200/ and others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if problem := emoji.missing():
        raise SystemExit(problem)
    found = {(lang, name): read(name, lang, options.root) for lang in TARGETS for name in SOURCES}
    lacking = [f"{name} {lang}" for (lang, name), of in found.items() if not of]
    corpus = corpora.load("emoji", [ENGLISH, *TARGETS])
    scores = evaluate(corpus, {key: of for key, of in found.items() if of}, seeds=options.seeds)
    folder = profile.repository() / "build" / "text"
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(folder / "scores.parquet")
    shown = table(scores)
    cells = [shown.columns, ["---"] * shown.shape[1], *shown.to_numpy()]
    text = "\n".join(f"| {' | '.join(map(str, row))} |" for row in cells)
    text += f"\n\nn/a, as {options.root} has no such file: {', '.join(lacking)}\n"
    (folder / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
