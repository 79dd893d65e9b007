"""Adaptive contrastive learning: belief in the pairs that are given, pairs mined where none are, a loss that follows the batch.

After the framework of "An Adaptive Contrastive Learning Framework for Cross-Lingual Semantic Alignment", whose text has no
equations: each part is formulated here from the sources that its function names. The reference encoder is a kernel ridge
regression in closed form, because it can say what it would have said of a pair had it not been trained on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import sparse

from xmalign_lab import ridge, similarity
from xmalign_lab.baselines import NotApplicable, clip, contrastive, kernel_ridge
from xmalign_lab.corpus import Corpus, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.static import leading
from xmalign_lab.pairs import confidence, noise
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
            _, predicted = ridge.fit(
                right.take(part.rows.right), left.take(part.rows.left), tied(part, corpus), weight[of], [PENALTY]
            )
            texts, first = np.unique(part.rows.right.to_numpy(object), return_index=True)
            spoken = Features(texts, predicted[first])
            parts.append([_signals(some, corpus, left, spoken) for some in (part, wrong.select(wrong.rows.source == source))])
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
    if not len(task.parallel):
        raise NotApplicable(f"no parallel text in {', '.join(task.targets)}: nothing to believe")
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


METHODS = {
    "adaptive": (adaptive, clip(name="adaptive")),
    "adaptive ridge": (adaptive_ridge, clip(name="adaptive ridge")),
}
