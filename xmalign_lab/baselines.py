"""Methods as recipes over the parts: what a result is compared with.

A method takes a `Task` and a `Recipe` and returns the per-query scores of the rows that are asked (`study.score`).
`METHODS` names them. What has nothing to train on raises `NotApplicable` and says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.linalg import orthogonal_procrustes
from scipy.special import digamma

from xmalign_lab import profile, records, ridge, schedules, similarity
from xmalign_lab.corpus import Corpus, Pairs
from xmalign_lab.encoders.classic import ClassicText, words
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.static import leading, mean_of_words, ppmi_svd
from xmalign_lab.evaluate.retrieval import Protocol, Side, rank_queries
from xmalign_lab.model import Aligner, Fixed
from xmalign_lab.pairs.dictionary import dictionary
from xmalign_lab.study import Task, score
from xmalign_lab.train import Recipe, fit

TEACHER = "teacher:"  # before the id of a pivot text whose vector is the teacher's


class NotApplicable(ValueError):
    """A method that has nothing to train on here. The message says what is missing."""


def need_parallel(task: Task, why: str) -> None:
    """Raise `NotApplicable`, ending in `why`, for a task without parallel text."""
    if not len(task.parallel):
        raise NotApplicable(f"no parallel text in {', '.join(task.targets)}: {why}")


def clip(**changes) -> Recipe:
    """Contrastive alignment at a fixed temperature; fields of `Recipe` can be changed by name.

    Loss after Radford et al. 2021 (arXiv 2103.00020) with several positives a row; the defaults were chosen on
    validation families of emoji (test folds were looked at a few times while this was built).
    """
    return Recipe(**{"name": "clip"} | changes)


def clip_learned(**changes) -> Recipe:
    """`clip` with a learned temperature that starts at 0.07, as CLIP's does: the compulsory comparison for any schedule."""
    fields = {"name": "clip, learned τ", "temperature": schedules.Constant(0.07), "learn_temperature": True}
    return Recipe(**fields | changes)


def align(**changes) -> Recipe:
    """ALIGN's loss: noisy pairs as they come, a normalised softmax with smoothed labels and a learned temperature."""
    return clip_learned(**{"name": "align", "terms": {"align": 1.0}} | changes)


def siglip(**changes) -> Recipe:
    """SigLIP's loss: each pair judged alone; starts at t = 10, b = -2.71 as big_vision's `lit_coco` does."""
    fields = {"name": "siglip", "terms": {"siglip": 1.0}, "temperature": schedules.Constant(0.1), "bias": -2.71}
    return Recipe(**fields | {"learn_temperature": True} | changes)


def contrastive(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Train on all pairs of the task with the recipe's terms."""
    need_parallel(task, "what is left is the row 'no dictionary'")
    aligner, _ = fit(_seeded(recipe, task), task.features, task.pairs, progress=False)
    return score(aligner, task.asked, task.features)


def oracle_filter(task: Task, recipe: Recipe) -> pd.DataFrame:
    """`contrastive` on the pairs that are right, by the truth that no method may see: what a perfect filter would reach."""
    return contrastive(replace(task, pairs=task.pairs.select(task.truth), truth=task.truth[task.truth]), recipe)


def teacher(task: Task, recipe: Recipe) -> Aligner:
    """An aligner of pictures and pivot texts alone, `clip` with the recipe's size: what every distillation starts from.

    Recorded, because the methods of one fold share it whatever the noise in the parallel text.
    """
    sizes = {name: getattr(recipe, name) for name in ("epochs", "per_epoch", "batch_pairs", "hidden", "dim")}
    recipe = clip(name="teacher", **sizes)
    recipe = _seeded(recipe, task)

    def run(folder: Path) -> None:
        fit(recipe, task.features, task.pictured, progress=False)[0].save(folder)

    inputs = ["teacher", *(task.features[m].key for m in sorted(task.features)), records.frame_hash(task.pictured.rows)]
    return Aligner.load(records.get_or_run(recipe, run, inputs, profile.runs_root() / "teachers", __name__).folder)


def no_dictionary(task: Task, recipe: Recipe) -> pd.DataFrame:
    """The teacher asked in the target languages as they are: what shared spelling alone carries."""
    return score(teacher(task, recipe), task.asked, task.features)


def m_clip(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Distillation after M-CLIP (Carlsson et al. 2022): a target text's vector is drawn to the teacher's of its translation."""
    return _distilled(task, recipe, to_teacher(task, targets=True, pivot=False))


def reimers_gurevych(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Distillation after Reimers & Gurevych 2020 (arXiv 2004.09813): the pivot text and its translations to one vector."""
    return _distilled(task, recipe, to_teacher(task, targets=True, pivot=True))


def projector(task: Task, recipe: Recipe) -> pd.DataFrame:
    """M2M (arXiv 2601.10096) and uCLIP (arXiv 2511.13036), after their ideas: a projector learned from pivot text alone.

    They count on an encoder that is multilingual already. Letter n-grams are not, so little is to be expected here.
    """
    return _distilled(task, recipe, to_teacher(task, targets=False, pivot=True))


def to_teacher(task: Task, targets: bool, pivot: bool) -> Pairs:
    """Pairs of a teacher's vector with the text that should come to lie there, as `distilled` takes them."""
    parts = []
    if targets:
        rows = task.parallel.rows
        parts.append(rows.assign(left=TEACHER + rows.left))
    if pivot:
        texts = task.training.where_rows(modality="text", lang=task.pivot).ids
        parts.append(pd.DataFrame({"left": TEACHER + texts, "right": texts, "weight": 1.0, "source": f"{TEACHER}{task.pivot}"}))
    rows = pd.concat(parts, ignore_index=True)
    if rows.empty:
        raise NotApplicable(f"no parallel text in {', '.join(task.targets)}: nothing to distil over")
    return Pairs(rows)


def _distilled(task: Task, recipe: Recipe, pairs: Pairs) -> pd.DataFrame:
    student, features = distilled(task, _seeded(recipe, task), teacher(task, recipe), pairs)
    return score(student, task.asked, features)


def distilled(
    task: Task, recipe: Recipe, master: Aligner, pairs: Pairs, folder: Path | None = None
) -> tuple[Aligner, dict[str, Features]]:
    """A text head trained towards the space of the teacher `master`, in which the pictures stay, and features for both sides."""
    pictures, texts = (task.corpus.where_rows(modality=m) for m in ("image", "text"))
    pivot = texts.where_rows(lang=task.pivot).ids
    given = Features(pictures.ids, master.encode_image(_rows(task, "image", pictures.ids)))
    space = Features.concatenate([given, Features(TEACHER + pivot, master.encode_text(_rows(task, "text", pivot)))])
    features = {"image": space, "text": task.features["text"]}
    return fit(replace(recipe, fixed=("image",)), features, pairs, folder, progress=folder is not None)[0], features


def translate_test(task: Task, recipe: Recipe) -> pd.DataFrame:
    """The query is put into the pivot language word by word, and the teacher is asked: translate-test.

    The dictionary is built from the task's parallel pairs alone: for each target word the pivot word with the largest Dice
    coefficient over the pairs that hold them (Dice 1945). A word it lacks stays as it is.
    """
    need_parallel(task, "no dictionary")
    asked, translated = task.asked, {}
    text_of = task.corpus.lookup("text")
    for target in task.targets:
        rows = task.parallel.rows[task.parallel.rows.source == f"{task.pivot}-{target}"]
        known = dictionary([(text_of[right], text_of[left]) for left, right in zip(rows.left, rows.right, strict=True)])
        queries = asked.where_rows(modality="text", lang=target, kind=["name", "caption"]).rows
        for row_id, text in zip(queries.id, queries.text, strict=True):
            translated[row_id] = " ".join(known.get(word, word) for word in words(text))
    rows = asked.rows[asked.rows.id.isin(list(translated))]
    pivoted = Corpus(rows.assign(text=rows.id.map(translated), lang=task.pivot), f"{asked.name}, translated")
    own = asked.where_rows(modality="text", lang=task.pivot).ids
    text = Features.concatenate([ClassicText().encode(pivoted, progress=False), _rows(task, "text", own)])
    features = {"image": task.features["image"], "text": text}
    return score(teacher(task, recipe), _only(asked, text.ids), features, Protocol(translate_test=True))


def oracle_translation(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Translate-test with the true translation of each query: what a perfect translator would reach."""
    asked = task.asked
    texts = asked.where_rows(modality="text", kind=["name", "caption"]).rows
    pivot = texts[texts.lang == task.pivot].drop_duplicates(["group", "kind"]).set_index(["group", "kind"]).id
    key = pd.MultiIndex.from_frame(texts[["group", "kind"]])
    texts = texts[key.isin(pivot.index)]
    true = pivot.loc[pd.MultiIndex.from_frame(texts[["group", "kind"]])]
    text = Features(texts.id.to_numpy(), task.features["text"].take(true))
    features = {"image": task.features["image"], "text": text}
    return score(teacher(task, recipe), _only(asked, text.ids), features, Protocol(translate_test=True))


def procrustes(task: Task, recipe: Recipe, rounds: int = 5) -> pd.DataFrame:
    """Rotate each target language's text space onto the pivot's, in which pictures and pivot texts are aligned.

    Each language's space is the truncated SVD of its own training texts' n-grams; the seed dictionary is the parallel text
    of the task; then `rounds` of refinement on mutual neighbours under CSLS (`refined`).
    """
    return _rotated(task, recipe, _letter_space, rounds)


def procrustes_words(task: Task, recipe: Recipe, rounds: int = 5) -> pd.DataFrame:
    """`procrustes` over word vectors that each language's own training texts give (PPMI-SVD): no letter is looked at."""
    return _rotated(task, recipe, _word_space, rounds)


def _rotated(task: Task, recipe: Recipe, space: Callable[[Task, str, int], Features], rounds: int) -> pd.DataFrame:
    need_parallel(task, "no seed dictionary")
    spaces = {lang: space(task, lang, recipe.components) for lang in (task.pivot, *task.targets)}
    width = min(features.width for features in spaces.values())
    spaces = {lang: Features(f.ids, similarity.unit(f.vectors[:, :width])) for lang, f in spaces.items()}
    own = spaces[task.pivot]
    mapped = [own]
    for target in task.targets:
        rows = task.parallel.rows[task.parallel.rows.source == f"{task.pivot}-{target}"]
        rows = rows[rows.right.isin(spaces[target].ids)]  # noise may have put English where the translation should be
        if rows.empty:
            raise NotApplicable(f"no parallel text in {target}: no seed dictionary")
        seed = np.stack([spaces[target].position(rows.right), own.position(rows.left)], 1)
        seen = [np.isin(features.ids, task.training.ids) for features in (spaces[target], own)]
        turn = refined(spaces[target].vectors, own.vectors, seed, rounds, *seen)
        mapped.append(Features(spaces[target].ids, spaces[target].vectors @ turn))
    pictures = task.features["image"]
    aligner = teacher(replace(task, features={"image": pictures, "text": own}), recipe)
    return score(aligner, task.asked, {"image": pictures, "text": Features.concatenate(mapped)})


def _letter_space(task: Task, lang: str, dim: int) -> Features:
    """The texts of one language in the leading singular directions of its training texts' n-grams.

    A text of n-grams never seen would be zero; every text is moved a little towards the mean, which says nothing.
    """
    ids = task.corpus.where_rows(modality="text", lang=lang).ids
    training = task.training.where_rows(modality="text", lang=lang).ids
    take = task.features["text"].take
    seen, own = leading(take(training), take(ids), dim)
    return Features(ids, own + 1e-3 * seen.mean(0))


def _word_space(task: Task, lang: str, dim: int) -> Features:
    """The texts of one language as means of PPMI-SVD word vectors of its training texts."""
    training = task.training.where_rows(modality="text", lang=lang).rows
    return mean_of_words(task.corpus.where_rows(modality="text", lang=lang), *ppmi_svd(training.text, dim))


def refined(source: np.ndarray, target: np.ndarray, seed: np.ndarray, rounds: int, of_source, of_target) -> np.ndarray:
    """The rotation W (d, d) with source @ W ≈ target: orthogonal Procrustes on `seed` pairs of rows, then refinement.

    Schönemann 1966 (10.1007/BF02289451): W = U Vᵀ of the singular value decomposition of XᵀY. Each round takes the rows of
    the masks `of_source`, `of_target` that are mutual nearest neighbours under CSLS, adds the seed, and solves again
    (Conneau et al. 2018, arXiv 1710.04087). Rows are unit vectors.
    """
    left, right = np.flatnonzero(of_source), np.flatnonzero(of_target)
    pairs = seed
    for repeat in range(rounds + 1):
        turn = orthogonal_procrustes(source[pairs[:, 0]], target[pairs[:, 1]])[0].astype(np.float32)
        if repeat < rounds:
            found = similarity.mutual_neighbours(source[left] @ turn, target[right], csls=10)
            pairs = np.concatenate([seed, np.stack([left[found[:, 0]], right[found[:, 1]]], 1)])
    return turn


def kernel_ridge(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Each target language's n-grams onto the teacher's vectors of the translations, in closed form (`placed`)."""
    need_parallel(task, "nothing to regress on")
    features = placed(task, teacher(task, recipe), task.features, True, own=False)
    return score(Aligner(*(Fixed(table.width) for table in features.values())), task.asked, features)


def placed(task: Task, aligner: Aligner, features, regression: bool, own: bool = True) -> dict[str, Features]:
    """The pictures and texts that are asked, in the aligner's space, by modality; `features` are what its heads take.

    With `regression` a kernel ridge (`ridge.fit`) goes from a target's own features in `task` to the aligner's vectors of the
    pivot texts that they are paired with; a target text lies there, or with `own` at the mean of there and where its head says.
    A pair counts with its weight.
    """
    family, take = task.corpus.lookup("family"), task.features["text"].take
    pictures, texts = (task.asked.where_rows(modality=modality).ids for modality in ("image", "text"))
    vectors = aligner.encode_text(Features(texts, features["text"].take(texts)))
    for target in task.targets if regression else ():
        rows = task.parallel.rows[task.parallel.rows.source == f"{task.pivot}-{target}"]
        pivots, at = np.unique(rows.left.to_numpy(object), return_inverse=True)
        goal = aligner.encode_text(Features(pivots, features["text"].take(pivots)))[at]
        learned, _ = ridge.fit(take(rows.right), goal, rows.left.map(family).to_numpy(), rows.weight.to_numpy(float))
        of = np.isin(texts, task.asked.where_rows(lang=target).ids)
        vectors[of] = similarity.unit(own * vectors[of] + learned(take(texts[of])))
    seen = aligner.encode_image(Features(pictures, features["image"].take(pictures)))
    return {"image": Features(pictures, seen), "text": Features(texts, vectors)}


def string_overlap(task: Task, recipe: Recipe) -> pd.DataFrame:
    """Untrained: a query finds the pictures whose *pivot name* is spelled most like it. It needs the pictures' names.

    What loans and names shared with the pivot language give away.
    """
    asked, parts = task.asked, []
    names = asked.where_rows(modality="text", kind=["name", "caption"])
    pivot = names.where_rows(lang=task.pivot).rows.drop_duplicates("group")
    columns = np.unique(task.features["text"].take(names.ids).indices)

    def side(rows: pd.DataFrame) -> Side:
        vectors = similarity.unit(task.features["text"].take(rows.id)[:, columns].toarray())
        return Side(vectors, *(rows[name].to_numpy(object) for name in ("id", "group", "family")))

    for vendor, pictures in asked.where_rows(modality="image").rows.groupby("source"):
        gallery = side(pivot[pivot.group.isin(pictures.group)])
        parts += [
            rank_queries(side(names.where_rows(lang=lang).rows), gallery, lang, "text→image", vendor) for lang in names.languages
        ]
    return pd.concat(parts, ignore_index=True)


def chance(scores: pd.DataFrame) -> dict[str, float]:
    """What guessing scores on these galleries, exactly: the expectation over a uniformly random rank.

    With a gallery of n, R@k = min(k, n) / n, MRR = (1 + 1/2 + … + 1/n) / n, mean rank = (n + 1) / 2. For one correct item
    per query.
    """
    n = scores["size"].to_numpy(float)
    values = {"MRR": (digamma(n + 1) + np.euler_gamma) / n, **{f"R@{k}": np.minimum(k, n) / n for k in (1, 5, 10)}}
    return {name: float(of.mean()) for name, of in (values | {"mean rank": (n + 1) / 2}).items()}


def _seeded(recipe: Recipe, task: Task) -> Recipe:
    return replace(recipe, seed=recipe.seed + task.fold)


def _rows(task: Task, modality: str, ids: np.ndarray) -> Features:
    table = task.features[modality]
    return type(table)(ids, table.take(ids))  # Inputs, where a tower reads them


def _only(corpus: Corpus, texts: np.ndarray) -> Corpus:
    """The pictures of `corpus`, and of its texts these."""
    return corpus.select((corpus.rows.modality == "image") | corpus.rows.id.isin(texts))


def tuned(method: str, rate: float) -> dict:
    """What `make tune` chose for a method, at no noise or at 40 %, whichever is nearer to `rate`: fields of its recipe."""
    chosen = json.loads(TUNED.read_text(encoding="utf-8")) if TUNED.exists() else {}
    return chosen.get(method, {}).get("40%" if rate >= 0.2 else "0%", {})


def by_parts(method: Callable[..., pd.DataFrame], rows: Mapping[str, Collection[str]]) -> dict:
    """Rows for `METHODS`, of one method with the `parts` that each has: `{name: parts}`."""
    return {name: (partial(method, parts=parts), clip(name=name)) for name, parts in rows.items()}


TUNED_AS = {"oracle filter": ("constant τ", 0.0)}  # it leaves no noise, and trains as constant τ does without any
TUNED = Path(__file__).with_name("tuned.json")
DISTIL = {"terms": {"distance": 1.0}}
METHODS: dict[str, tuple[Callable[[Task, Recipe], pd.DataFrame], Recipe]] = {
    "constant τ": (contrastive, clip(name="constant τ")),
    "CLIP loss": (contrastive, clip_learned(name="CLIP loss")),
    "ALIGN loss": (contrastive, align(name="ALIGN loss")),
    "SigLIP loss": (contrastive, siglip(name="SigLIP loss")),
    "M-CLIP": (m_clip, clip(name="M-CLIP", **DISTIL)),
    "Reimers–Gurevych": (reimers_gurevych, clip(name="Reimers–Gurevych", **DISTIL)),
    "M2M projector": (projector, clip(name="M2M projector", terms={"distance": 45.0, "structure": 1.0})),
    "uCLIP projector": (
        projector,
        clip(name="uCLIP projector", terms={"info_nce": 1.0, "distance": 0.1}, temperature=schedules.Constant(0.01)),
    ),
    "Procrustes": (procrustes, clip(name="Procrustes")),
    "Procrustes, words": (procrustes_words, clip(name="Procrustes, words")),
    "kernel ridge": (kernel_ridge, clip(name="kernel ridge")),
    "translate-test": (translate_test, clip(name="translate-test")),
    "no dictionary": (no_dictionary, clip(name="no dictionary")),
    "string overlap": (string_overlap, clip(name="string overlap")),
    "oracle filter": (oracle_filter, clip(name="oracle filter")),
    "oracle translation": (oracle_translation, clip(name="oracle translation")),
}
