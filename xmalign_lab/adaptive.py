"""Adaptive contrastive learning: belief in the pairs that are given, pairs mined where none are, a loss that follows the batch.

After the framework of "An Adaptive Contrastive Learning Framework for Cross-Lingual Semantic Alignment", whose text has no
equations: each part is formulated here from the sources that its function names. The reference encoder is a kernel ridge
regression in closed form, because it can say what it would have said of a pair had it not been trained on it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import sparse

from xmalign_lab import ridge, schedules, similarity
from xmalign_lab.baselines import NotApplicable, by_parts, clip, contrastive, kernel_ridge, need_parallel, teacher
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.static import leading
from xmalign_lab.pairs import augment, confidence, noise, thresholds
from xmalign_lab.pairs.dictionary import matched
from xmalign_lab.pairs.mining import round_report
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.recipe import Stage
from xmalign_lab.study import Task
from xmalign_lab.train import Recipe

LEAST = 200  # pairs; of fewer nothing can be said, and all are believed
WIDTH = 200
PENALTY = 1.0  # chosen by what is left out, on every language and noise tried; choosing anew would cost two more fits


def tied(pairs: Pairs, corpus: Corpus) -> np.ndarray:
    """A number per pair, (n,), equal for pairs that share a left family or a right text, directly or over others.

    Who judges a pair must not have seen its family, nor its text in another place (a wrong translation stands twice).
    """
    family = pd.factorize(pairs.rows.left.map(corpus.lookup("family")))[0]
    text = pd.factorize(pairs.rows.right)[0] + family.max() + 1
    size = text.max() + 1
    graph = sparse.coo_matrix((np.ones(len(pairs)), (family, text)), shape=(size, size))
    return sparse.csgraph.connected_components(graph, directed=False)[1][family]


def believed(
    pairs: Pairs, corpus: Corpus, left: Features, right: Features, rounds: int = 2, seed: int = 0
) -> tuple[Pairs, dict[str, float]]:
    """`pairs` with the probability that each is right as score and weight, and by source the share estimated to be wrong.

    `left` are vectors (n, d) of a space that did not see these pairs, such as the leading directions of English; `right` the
    raw features (m, width) of the other language. STEP 1: for each source, regress right on left; every pair is judged by the
    fit without its own family (`ridge.fit`). STEP 2: signals are the cosine and the ratio margin of that prediction, pooled
    over the family. STEP 3: calibrate them against pairs made wrong on purpose (`confidence.calibrated`). Again, `rounds`
    times, with the belief as weight; the share of wrong pairs stays what the first round says, whose fit knows no belief.
    No truth is used. Fewer than `LEAST` pairs come back as they are.
    """
    if len(pairs) < LEAST:
        return pairs, {}
    weight, share, wrong = np.ones(len(pairs)), None, noise.shuffle(pairs, corpus, 1.0, seed)[0]
    for _ in range(rounds):
        parts = []
        for source in pairs.sources:
            of = (pairs.rows.source == source).to_numpy()
            part = pairs.select(of)
            learned, predicted = ridge.fit(
                right.take(part.rows.right), left.take(part.rows.left), tied(part, corpus), weight[of], [PENALTY]
            )
            texts, first = np.unique(part.rows.right.to_numpy(object), return_index=True)
            made = wrong.select(wrong.rows.source == source)
            others = np.setdiff1d(made.rows.right.to_numpy(object), texts)  # where noise copied the source, say
            spoken = Features(texts, predicted[first])
            if len(others):
                spoken = Features.concatenate([spoken, Features(others, learned(right.take(others)))])
            parts.append([_signals(some, corpus, left, spoken) for some in (part, made)])
        order = np.concatenate([np.flatnonzero(pairs.rows.source == source) for source in pairs.sources])
        given, made = (np.concatenate(side) for side in zip(*parts, strict=True))
        judged = np.empty_like(given)
        judged[order] = given
        weight, share = confidence.calibrated(judged, made, pairs.rows.source, wrong.rows.source, share)
    return pairs.assign(score=weight, weight=weight), share


def _signals(pairs: Pairs, corpus: Corpus, left: Features, right: Features) -> np.ndarray:
    signals = confidence.similarity_of(pairs, left, right), confidence.ratio_of(pairs, left, right)
    return np.stack([confidence.of_family(values, pairs, corpus) for values in signals], 1)


def judged(task: Task) -> Task:
    """The task with its parallel pairs weighted by `believed`, in the leading directions of its own pivot texts.

    A teacher's vectors serve no better and cost a training run: on emoji with 40 % noise the right pairs are told less well.
    """
    need_parallel(task, "nothing to believe")
    ids = np.unique(task.parallel.rows.left.to_numpy(object))
    texts = task.features["text"].take(ids)
    space = Features(ids, similarity.unit(leading(texts, texts, min(WIDTH, len(ids) - 1))[0]))
    pairs, _ = believed(task.parallel, task.training, space, task.features["text"])
    parallel = task.pairs.rows.source.isin(pairs.sources).to_numpy()
    rows = task.pairs.rows.copy()
    rows.loc[parallel, ["weight", "score"]] = pairs.rows[["weight", "score"]].to_numpy()
    return replace(task, pairs=Pairs(rows))


def adaptive(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Contrastive training on pairs that earn their weight (`judged`), with the recipe's schedules and terms."""
    return contrastive(judged(task), recipe)


def adaptive_ridge(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Kernel ridge regression onto the teacher's space, on pairs that earn their weight (`judged`): no gradient at all."""
    return kernel_ridge(judged(task), recipe)


def mined(task: Task, recipe: Recipe) -> pd.DataFrame:
    """No parallel text: `kernel_ridge` on the texts that `matched` finds between the pools, and on the dictionary itself.

    `attrs["mined"]` of the scores says by language how many were found and, as the truth is known here, how many rightly.
    """
    group, parts, report = task.corpus.lookup("group"), [], {}
    for target in task.targets:
        pools = [task.training.where_rows(modality="text", lang=lang).ids for lang in (task.pivot, target)]
        known = task.dictionary.get(target, ())
        try:
            *_, found = matched(task.training, task.pivot, target, known, task.features["text"])
        except CorpusError as nothing:
            raise NotApplicable(f"no parallel text in {target}, and {nothing}") from nothing
        told = round_report(found, group=group, pools=pools)
        report[target] = {name: value for name, value in told.items() if value == value}  # JSON has no NaN
        parts.append(found.rows)
    scores = _taught(task, recipe, Pairs(pd.concat(parts)))
    scores.attrs["mined"] = report
    return scores


def dictionary_alone(task: Task, recipe: Recipe) -> pd.DataFrame:
    """What `mined` starts from: `kernel_ridge` on the words of the dictionary and nothing else."""
    if not task.dictionary:
        raise NotApplicable("no dictionary")
    return _taught(task, recipe, task.parallel)


def oracle_mining(task: Task, recipe: Recipe) -> pd.DataFrame:
    """`mined` with every pair that the two pools share, by the truth that no method may see: what perfect mining would reach."""
    return _taught(task, recipe, bridge(task.training, list(task.targets)))


def _taught(task: Task, recipe: Recipe, pairs: Pairs) -> pd.DataFrame:
    """Kernel ridge on the task's pictures, these pairs of texts, and the dictionary's words as texts of their own."""
    words = [
        dict(
            id=f"word:{target}:{lang}:{number}",
            group=f"word:{target}:{number}",
            lang=lang,
            text=word,
            modality="text",
            kind="word",
        )
        for target, known in task.dictionary.items()
        for number, entry in enumerate(known)
        for lang, word in zip((target, task.pivot), entry, strict=True)
    ]
    pairs = Pairs(pd.concat([task.pictured.rows, pairs.rows[pairs.rows.source.isin(f"{task.pivot}-{t}" for t in task.targets)]]))
    if not words:
        return kernel_ridge(replace(task, pairs=pairs), recipe)
    added = Corpus(pd.DataFrame(words).assign(family=lambda rows: rows.group, split="train"))
    text = Features.concatenate([task.features["text"], ClassicText().encode(added, progress=False)])
    sides = added.where_rows(lang=task.pivot).rows, added.rows[added.rows.lang != task.pivot]
    sources = f"{task.pivot}-" + sides[1].lang
    known = Pairs(pd.DataFrame({"left": sides[0].id.to_numpy(), "right": sides[1].id.to_numpy(), "source": sources.to_numpy()}))
    corpus = replace(task.corpus, rows=pd.concat([task.corpus.rows, added.rows], ignore_index=True))
    return kernel_ridge(replace(task, corpus=corpus, pairs=pairs + known, features=dict(task.features) | {"text": text}), recipe)


PARTS = (
    "belief", "threshold", "augmentation", "hardness sampling", "temperature", "negatives", "regulariser", "adversary", "stages"
)  # fmt: skip


def built(task: Task, recipe: Recipe, parts: Collection[str]) -> pd.DataFrame:
    """Contrastive training with some of the framework's `PARTS`, and none of the others: for the ablation."""
    return contrastive(arranged(task, recipe, parts), dynamic(recipe, parts))


def arranged(task: Task, recipe: Recipe, parts: Collection[str]) -> Task:
    """The task with the parts that make pairs.

    "belief": `judged` weights. "threshold": pairs below the mean belief of their language go (`thresholds.moving`).
    "augmentation": every target text beside itself without a span. "hardness sampling": the pairs of pictures whose nearest
    wrong text is near, as the teacher sees them, count more, which is what drawing them more often amounts to.
    """
    if {"belief", "threshold"} & set(parts):
        pairs = judged(task).pairs
        known, kept = pairs.rows.score.notna(), np.ones(len(pairs), bool)
        if "threshold" in parts:
            p, source = pairs.rows.score[known], pairs.rows.source[known]
            kept[known] = p >= source.map(thresholds.moving(p, source)).astype(float)
        pairs = pairs if "belief" in parts else pairs.assign(weight=1.0)
        task = replace(task, pairs=pairs.select(kept), truth=task.truth[kept])
    if "hardness sampling" in parts:
        master, rows, weight = teacher(task, recipe), task.pairs.rows, task.pairs.rows.weight.to_numpy(float).copy()
        pictured = (rows.source == f"image-{task.pivot}").to_numpy()
        sides = [np.unique(rows[side][pictured].to_numpy(object)) for side in ("left", "right")]
        images, texts = (Features(ids, task.features[m].take(ids)) for ids, m in zip(sides, ("image", "text"), strict=True))
        seen = [Features(sides[0], master.encode_image(images)), Features(sides[1], master.encode_text(texts))]
        weight[pictured] *= augment.hardness_weights(task.pairs.select(pictured), Features.concatenate(seen))
        task = replace(task, pairs=task.pairs.assign(weight=weight))
    if "augmentation" in parts:
        text, pairs = [task.features["text"]], task.pairs
        for target in task.targets:
            cut, more = augment.span_deletion(task.training, target, seed=task.fold)
            text.append(ClassicText().encode(cut, progress=False))
            pairs = pairs + more
        truth = np.concatenate([task.truth, np.ones(len(pairs) - len(task.pairs), bool)])
        task = replace(task, pairs=pairs, truth=truth, features=dict(task.features) | {"text": Features.concatenate(text)})
    return task


def dynamic(recipe: Recipe, parts: Collection[str]) -> Recipe:
    """The recipe with the parts that make the loss, around its own constant temperature τ.

    "temperature": from 1.5 τ to 0.75 τ along a cosine, times MACL's factor. "negatives": hard negatives and ambiguous
    positives weighted. "regulariser": the structure term, strong while alignment is poor. "adversary": the language
    discriminator. "stages": all of this only from half of the run on, after a soft start; with "threshold", pairs of low
    belief go at the end.
    """
    tau = recipe.temperature(0.0, {}, {})[0]
    terms = dict(recipe.terms)
    if "regulariser" in parts:
        terms["structure"] = schedules.Fading(10.0, 0.5)
    if "adversary" in parts:
        terms["adversary"] = 1.0
    moving = schedules.Adaptive(1.5 * tau, 0.75 * tau, low=0.2 * tau, high=3 * tau)
    fields = {"temperature": moving if "temperature" in parts else recipe.temperature, "terms": terms}
    if "negatives" in parts:
        fields |= {"hardness": 2.0, "ambiguity": 0.5}
    if "stages" in parts:
        plain = {"temperature": recipe.temperature, "terms": recipe.terms, "hardness": 0.0, "ambiguity": 0.0}
        start = plain | {"temperature": schedules.Constant(2 * tau)}
        stages = Stage("initialise", 0.15, start), Stage("contrastive", 0.5, plain), Stage("adaptive", 0.85)
        fields["stages"] = (*stages, Stage("refine", 1.0, {"threshold": 0.5} if "threshold" in parts else {}))
    return replace(recipe, **fields)


METHODS = {
    "adaptive": (adaptive, clip(name="adaptive")),
    "adaptive ridge": (adaptive_ridge, clip(name="adaptive ridge")),
}
# What trains as another method was tuned, and at which noise (None: at its own): a filter or a belief leaves little of it.
TUNED_AS = {"adaptive": ("constant τ", 0.0)}
MINING = {
    "mined": (mined, clip(name="mined")),
    "dictionary alone": (dictionary_alone, clip(name="dictionary alone")),
    "oracle mining": (oracle_mining, clip(name="oracle mining")),
}
ABLATION = {"all parts": PARTS, "no parts": ()}
ABLATION |= {f"without {part}": tuple(other for other in PARTS if other != part) for part in PARTS}
ABLATION = by_parts(built, ABLATION | {f"only {part}": (part,) for part in PARTS})
TUNED_AS |= {
    name: ("constant τ", 0.0 if {"belief", "threshold"} & set(method.keywords["parts"]) else None)
    for name, (method, _) in ABLATION.items()
}
