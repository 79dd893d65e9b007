"""The study: methods × noise × amounts of parallel text × folds, resumable and in parallel over the cores.

Not the full cross: a noise sweep at full text and a text sweep at clean names, all target languages sharing a run. What is
recorded is skipped, so an interrupted study goes on; a change of source that a method reaches makes its runs anew. Every
method that trains takes the same number of steps, whatever pairs it has.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from xmalign_lab import adaptive, baselines, cl2cm, corpora, lowresource, nrccr, profile, records, study
from xmalign_lab.corpus import Corpus, Pairs, split_by_family
from xmalign_lab.evaluate.retrieval import SCORE_COLUMNS, per_query
from xmalign_lab.pairs import noise
from xmalign_lab.pairs.dictionary import dictionary
from xmalign_lab.pairs.mining import overlap
from xmalign_lab.pairs.parallel import bridge, thin
from xmalign_lab.schedules import Constant
from xmalign_lab.train import Recipe

TARGETS = ("swh_Latn", "sin_Sinh", "yor_Latn", "que_Latn", "deu_Latn")
SCENES = 600  # drawn for the part of the study that asks for sentences
ABLATED = ("swh_Latn", "sin_Sinh")  # a run of two languages takes half as long as one of five
SIZE = {"epochs": 12, "hidden": 512}  # smaller than a single run's, so that hundreds fit into an hour
OWN = adaptive.METHODS | lowresource.METHODS
CROSSED = cl2cm.METHODS | nrccr.METHODS  # from cross-lingual to cross-modal: asked where translations are clean or a machine's
METHODS = OWN | baselines.METHODS | CROSSED | adaptive.MINING | adaptive.ABLATION | lowresource.ABLATION | cl2cm.ABLATION
# What a method is not to beat, but to stand beside: references, and its own parts.
REFERENCES = ("oracle filter", "oracle translation", "no dictionary", "string overlap", "dictionary alone", "oracle mining")
NO_RIVALS = (*REFERENCES, *OWN, *adaptive.MINING, *adaptive.ABLATION, *lowresource.ABLATION, *cl2cm.ABLATION)
WITHOUT_PARALLEL = ("no dictionary", "string overlap", "oracle translation", "M2M projector", "uCLIP projector")


@dataclass(frozen=True)
class Condition:
    """How the parallel text is: `noise` "random", "hard" or "translation" in a share `rate` of families; `text` of it kept.

    With `shared` there is none: two pools of texts have this share of their concepts in common, and a dictionary `words`.
    """

    noise: str = "random"
    rate: float = 0.0
    text: float = 1.0
    shared: float = 0.0
    words: int = 0

    def __post_init__(self):
        if self.noise not in ("random", "hard", "translation"):
            raise ValueError(f"unknown noise {self.noise!r}; known are random, hard, translation")

    def __str__(self) -> str:
        if self.shared:
            return f"pools share {self.shared:.0%}, {f'{self.words} words' if self.words else 'no words'}"
        parts = [f"{self.noise} noise {self.rate:.0%}"] * (self.rate > 0) + [f"text {self.text:.0%}"] * (self.text < 1)
        return ", ".join(parts) or "clean"


CLEAN = Condition()
NOISE = (Condition(rate=0.4), Condition("translation", 0.4), Condition(rate=0.2), Condition(rate=0.6), Condition("hard", 0.4))
TEXT = tuple(Condition(text=text) for text in (0.1, 0.01, 0.0))
POOLS = tuple(Condition(shared=shared, words=words) for words in (100, 0) for shared in (1.0, 0.5, 0.1))
CONDITIONS = (CLEAN, *NOISE, *TEXT, *POOLS)
# Where a method is taken apart: adaptive pairs at 40 % noise, transfer on clean text, distillation at a machine's noise.
ABLATIONS = dict.fromkeys(adaptive.ABLATION, NOISE[0]) | dict.fromkeys(lowresource.ABLATION, CLEAN)
ABLATIONS |= dict.fromkeys(cl2cm.ABLATION, NOISE[1])
# What stands beside the crossed methods, on scenes too: other ways from the same pairs of pictures, English and targets.
BESIDE = ("constant τ", "M-CLIP", "Reimers–Gurevych", "kernel ridge", "translate-test")


@dataclass(frozen=True)
class Run:
    """One cell of the study: a method's name, a condition, a fold, the part that is asked, and the data."""

    method: str
    condition: Condition
    fold: int
    part: str = "validation"
    targets: tuple[str, ...] = TARGETS
    corpus: str = "emoji"
    size: int = 0
    changes: str = "{}"  # fields of the recipe as JSON, over the method's own

    def __str__(self) -> str:
        return f"{self.method}, {self.condition}, fold {self.fold}"


def plan(
    methods: Iterable[str],
    conditions: Sequence[Condition] = CONDITIONS,
    folds: Iterable[int] = range(5),
    **fields,
) -> Iterator[Run]:
    """The runs worth making: methods that use no parallel text once per fold, an oracle filter only where there is noise.

    Pools are for methods that mine, the ablations are made at one condition each (`ABLATIONS`), in `ABLATED` alone.
    """
    methods, folds = list(methods), list(folds)
    for condition in conditions:
        for method in methods:
            if method in WITHOUT_PARALLEL and condition != CLEAN:
                continue
            if method == "oracle filter" and not condition.rate:
                continue
            if method in CROSSED and condition not in (CLEAN, NOISE[1]):
                continue
            if (method in adaptive.MINING) != bool(condition.shared) or ABLATIONS.get(method, condition) != condition:
                continue
            if method in ("dictionary alone", "oracle mining") and not condition.words:
                continue
            parts = method in ABLATIONS and method not in cl2cm.ABLATION  # which stands beside methods of all languages
            two = {"targets": ABLATED} if parts and "targets" not in fields else {}
            for fold in folds:
                yield Run(method, condition, fold, **fields, **two)


def on_scenes(part: str) -> list[Run]:
    """The crossed methods and those `BESIDE` them on drawn scenes, whose captions are sentences, under a machine's noise.

    In batches of 128 pairs, and of epochs as many as make about the 400 steps that NRCCR takes.
    """
    fields = {"corpus": "scenes", "size": SCENES, "targets": ABLATED, "part": part}
    fields["changes"] = json.dumps({"batch_pairs": 128, "epochs": 27})
    return list(plan([*CROSSED, *BESIDE, *cl2cm.ABLATION], [NOISE[1]], **fields))


def task_of(corpus: Corpus, features, run: Run) -> study.Task:
    """The task of a run: pairs of the training families, thinned and corrupted; a validation part is corrupted alike."""
    corpus = split_by_family(corpus, run.fold)
    training = study.training_part(corpus, run.part)
    if run.condition.shared:
        return _pooled(corpus, training, features, run)
    sources = [f"eng_Latn-{target}" for target in run.targets]
    pairs = bridge(training, list(run.targets))
    if run.condition.text < 1:
        pairs = thin(pairs, training, run.condition.text, sources)
    pairs, truth = corrupt(pairs, training, features, run)
    if run.part == "validation" and run.condition.rate:
        corpus = _corrupted_queries(corpus, features, run)
    return study.Task(corpus, features, pairs, truth, run.targets, run.fold, run.part)


def _pooled(corpus: Corpus, training: Corpus, features, run: Run) -> study.Task:
    """No pair of texts, but two pools of them and a dictionary of the most frequent words.

    The dictionary is what Dice makes of all training pairs, hidden ones too (≥ ½): as frequent as one could wish, with mistakes.
    """
    known, text_of = {}, training.lookup("text")
    for target in run.targets:
        pairs = bridge(training, [target]).rows
        texts = [(text_of[b], text_of[a]) for a, b in pairs[pairs.source != "image-eng_Latn"][["left", "right"]].to_numpy()]
        known[target] = list(dictionary(texts, least=0.5).items())[: run.condition.words]
    pools = overlap(training, "eng_Latn", run.targets, run.condition.shared)
    corpus = corpus.select(~corpus.rows.id.isin(set(training.ids) - set(pools.ids)))
    pairs = bridge(pools, [])
    known = {target: words for target, words in known.items() if words}
    return study.Task(corpus, features, pairs, np.ones(len(pairs), bool), run.targets, run.fold, run.part, dictionary=known)


def corrupt(pairs: Pairs, corpus: Corpus, features, run: Run) -> tuple[Pairs, np.ndarray]:
    """The run's noise on the parallel pairs; the seed is the fold."""
    condition, sources = run.condition, [f"eng_Latn-{target}" for target in run.targets]
    if not condition.rate:
        return pairs, np.ones(len(pairs), bool)
    if condition.noise == "random":
        return noise.shuffle(pairs, corpus, condition.rate, run.fold, sources)
    near = noise.nearest_families(corpus, features["text"], "eng_Latn")
    if condition.noise == "hard":
        return noise.shuffle(pairs, corpus, condition.rate, run.fold, sources, givers=near)
    return noise.translate_badly(pairs, corpus, condition.rate, near, run.fold, sources)


def _corrupted_queries(corpus: Corpus, features, run: Run) -> Corpus:
    """Validation texts believed to mean what the noise says: a method is chosen with no cleaner data than it trains on.

    Scores under different noise are therefore answers to different queries; compare methods within a condition only. A text
    given to two families means the last; a name that was copied or cut keeps its meaning. So fewer than `rate` change.
    """
    asked = corpus.where_rows(split="validation")
    pairs, truth = corrupt(bridge(asked, list(run.targets)), asked, features, run)
    wrong = pairs.rows[~truth]
    rows = corpus.rows.set_index("id", drop=False)
    rows.loc[wrong.right, ["group", "family"]] = rows.loc[wrong.left, ["group", "family"]].to_numpy()
    return replace(corpus, rows=rows.reset_index(drop=True))


def recipe_of(run: Run) -> Recipe:
    """The method's recipe in the study's size, with what tuning chose at the nearest noise, and the run's own changes."""
    recipe, rate = METHODS[run.method][1], run.condition.rate
    known = baselines.TUNED_AS | adaptive.TUNED_AS | lowresource.TUNED_AS | cl2cm.TUNED_AS
    method, instead = known.get(run.method, (run.method, None))
    tuned = baselines.tuned(method, rate if instead is None else instead)
    fields = SIZE | tuned | json.loads(run.changes)  # a temperature is a plain number there
    fields |= {name: Constant(fields[name]) for name in ("temperature", "guide_temperature") if name in fields}
    return replace(recipe, **fields)


@cache
def _data(corpus: str, languages: tuple[str, ...], size: int):
    more = {"n": size} if size else {}
    loaded = corpora.load(corpus, list(languages), **more)
    return loaded, study.prepare(loaded)


def prepared(run: Run) -> tuple[study.Task, Recipe]:
    """The task of a run on its own data, loaded once, and its recipe with as many steps as the clean run has."""
    corpus, features = _data(run.corpus, ("eng_Latn", *run.targets), run.size)
    task, recipe = task_of(corpus, features, run), recipe_of(run)
    whole = task_of(corpus, features, replace(run, condition=CLEAN)).pairs
    return task, replace(recipe, per_epoch=max(1, round(len(whole) / recipe.batch_pairs)))  # less text, not fewer steps


def make(run: Run, root: Path | None = None) -> records.Record:
    """The record of one run, made if there is none. A method with nothing to train on leaves a record that says why."""
    task, recipe = prepared(run)
    features = task.features

    def fill(folder: Path) -> None:
        try:
            scores = METHODS[run.method][0](task, recipe)
        except baselines.NotApplicable as reason:
            (folder / "not_applicable.txt").write_text(str(reason))
            scores = pd.DataFrame(columns=list(SCORE_COLUMNS))
        scores.to_parquet(folder / "scores.parquet")
        if "mined" in scores.attrs:
            (folder / "mined.json").write_text(json.dumps(scores.attrs["mined"]))
        if "seen" in scores.attrs:
            pd.DataFrame(scores.attrs["seen"]).to_csv(folder / "seen.csv", index=False)

    inputs = [run.method, str(run.condition), f"fold {run.fold}", run.part, *(features[m].key for m in sorted(features))]
    inputs += [records.frame_hash(task.pairs.rows), records.frame_hash(task.asked.rows[["id", "group", "family"]])]
    method = METHODS[run.method][0]
    module = getattr(method, "func", method).__module__  # the ablation's methods are partial
    return records.get_or_run(recipe, fill, inputs, root or profile.runs_root() / "study", module)


def make_all(runs: Sequence[Run], root: Path | None = None, workers: int | None = None) -> list[records.Record]:
    """All runs, as `each` makes them. What was recorded before one fails stays."""
    return each(partial(make, root=root), runs, workers)


def each(function: Callable, items: Sequence, workers: int | None = None) -> list:
    """`[function(item) for item in items]`, in `workers` processes of one thread each (default: the cores), with a bar.

    An item that fails ends it with its own error, naming the item as `str` does. One worker is this process.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        return [function(item) for item in tqdm(items, unit="run")]
    found, context = [None] * len(items), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_quiet) as pool:
        waiting = {pool.submit(_on_one_thread, function, item): number for number, item in enumerate(items)}
        for done in tqdm(as_completed(waiting), total=len(waiting), unit="run", mininterval=1):
            try:
                found[waiting[done]] = done.result()
            except Exception as error:
                pool.shutdown(cancel_futures=True)
                raise RuntimeError(f"{items[waiting[done]]}: {error}") from error
    return found


def _on_one_thread(function: Callable, item):
    import torch

    torch.set_num_threads(1)
    with threadpool_limits(1):  # NumPy's and SciPy's products have threads of their own, which would wait for each other
        return function(item)


def _quiet() -> None:
    """Begin a worker: no bars of its own, and no life after its parent's, which would keep a core busy unseen."""
    os.environ["TQDM_DISABLE"] = "1"
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()


def collect(runs: Sequence[Run], found: Sequence[records.Record]) -> pd.DataFrame:
    """Every per-query score of a study, with the columns method, condition, noise, rate, text, part, and what its seed is."""
    parts = [
        record.scores.assign(
            method=run.method,
            condition=str(run.condition),
            noise=run.condition.noise,
            rate=run.condition.rate,
            text=run.condition.text,
            part=run.part,
            seed="the fold's number",
        )
        for run, record in zip(runs, found, strict=True)
    ]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def facts(runs: Sequence[Run], found: Sequence[records.Record], minutes: float, commit: str = "") -> dict:
    """How a study was made, as facts.json holds it: part, date, commit, what was run, how long it took, what was mined.

    `sets` holds the runs of each commit, counted by method and condition.
    """
    nothing = ((run, record.folder / "not_applicable.txt") for run, record in zip(runs, found, strict=True))
    mined = [
        {"method": run.method, "condition": str(run.condition), "fold": run.fold, "lang": lang, **of}
        for run, record in zip(runs, found, strict=True)
        if (path := record.folder / "mined.json").exists()
        for lang, of in json.loads(path.read_text()).items()
    ]
    why = {f"{run.method}, {run.condition}: {path.read_text(encoding='utf-8')}" for run, path in nothing if path.exists()}
    return {
        "part": runs[0].part if runs[0].corpus == "emoji" else "smoke",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit,
        "sets": [{"commit": commit, "runs": dict(Counter(f"{run.method}, {run.condition}" for run in runs))}],
        "methods": list(dict.fromkeys(run.method for run in runs)),
        "conditions": list(dict.fromkeys(str(run.condition) for run in runs)),
        "runs": len(runs),
        "minutes": round(minutes, 1),
        "seconds per run": round(float(np.mean([record.environment["seconds"] for record in found])), 1),
        "environment": records.environment(),
        "not applicable": sorted(why),
        "mined": mined,
    }


def best(scores: pd.DataFrame) -> dict[str, str]:
    """For each language the method with the greatest mean MRR, text → image, in one condition: on validation, the one to beat."""
    asked = scores[(scores.direction == "text→image") & ~scores.method.isin(NO_RIVALS)]
    values = {method: per_query(part, "MRR").groupby("lang").value.mean() for method, part in asked.groupby("method")}
    return pd.DataFrame(values).idxmax(axis=1).to_dict()


def smoke_runs() -> list[Run]:
    """A study in seconds, on scenes: it shows the machinery and says nothing about the methods."""
    quick = {"epochs": 20, "hidden": 64, "dim": 32, "components": 64, "batch_pairs": 100, "learning_rate": 0.01, "least_count": 1}
    fields = {"corpus": "scenes", "size": 160, "targets": ("swh_Latn", "sin_Sinh"), "part": "test", "changes": json.dumps(quick)}
    methods = ("constant τ", "M-CLIP", "translate-test", "oracle filter", "no dictionary")
    runs = [*plan(adaptive.METHODS, (Condition(rate=0.4),), (0, 1), **fields)]
    runs += plan(methods, (CLEAN, Condition(rate=0.4), Condition(text=0.1)), (0, 1), **fields)
    runs += plan(adaptive.MINING, POOLS[:2], (0,), **fields)
    return [*runs, *plan(methods[:1], (Condition("translation", 0.4), Condition(text=0.0)), (0,), **fields)]


def recorded() -> tuple[pd.DataFrame, dict]:
    """`make study`'s scores and facts; in the smoke profile, or where there are none, the smoke study's, made here and now.

    The facts have the same keys in both; `part` is "validation", "test" or "smoke".
    """
    scores, said = (profile.repository() / "build" / "study" / name for name in ("scores.parquet", "facts.json"))
    if profile.current() != "smoke" and scores.exists() and said.exists():
        return pd.read_parquet(scores), json.loads(said.read_text(encoding="utf-8"))
    runs, start = smoke_runs(), time.monotonic()
    found = make_all(runs, workers=1)
    return collect(runs, found), facts(runs, found, (time.monotonic() - start) / 60)


def without_flags(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores without the queries whose code points hold a regional indicator or a tag: flags, whose names are mostly shared."""
    return scores[~scores["query"].str.contains("1f1[ef][0-9a-f]|e007f", case=False)]


def cells(scores: pd.DataFrame, condition: Condition) -> dict[str, pd.DataFrame]:
    """One condition's scores by method, as `report.compare` takes them, without the ablations'; with those of no parallel text.

    These ran once, on clean names: on validation families, whose noisy conditions ask other queries, they are left out.
    """
    rows = scores[scores.condition == str(condition)]
    if condition != CLEAN and set(scores.get("part", ())) != {"validation"}:
        rows = pd.concat([rows, scores[scores.method.isin(WITHOUT_PARALLEL)]])
    named = [method for method in METHODS if method not in ABLATIONS]
    return {method: part for method in named if len(part := rows[rows.method == method])}
