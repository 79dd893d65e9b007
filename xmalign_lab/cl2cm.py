"""From cross-lingual to cross-modal: a teacher of texts alone, and a student of pictures that repeats what the teacher knows.

After CL2CM (Wang et al. 2024, arXiv 2312.08984), a *reconstruction*: no code is public and its equations could not be had, so
these are ours. Two networks, each of two streams:

    teacher:  L = InfoNCE(S, T) + ω <P*, C>,  C_kl = 1 - cos(s_k, t_l) over words, P* Sinkhorn's plan (`local.transport_cost`)
    student:  L = L(V, S) + L(V, T) + λ L_rel
              L_rel = ½ [ KL(softmax(S T'/τ_d) ‖ softmax(V T'/τ_d)) + KL(softmax(T S'/τ_d) ‖ softmax(T V'/τ_d)) ]

with V pictures or videos, S their captions, T machine translations of these; what the teacher says, S T', carries no gradient.
The published networks start from one multilingual encoder. Where there is none, as in the study, both have the same text
features, and the student's text head starts as the teacher's, which by then knows all the languages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import reduce
from itertools import combinations
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

from xmalign_lab import similarity
from xmalign_lab.baselines import by_parts, need_parallel
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.classic import words
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.evaluate.retrieval import Side
from xmalign_lab.losses import local
from xmalign_lab.lowresource import LEVELS, leveled
from xmalign_lab.model import Aligner, Encoded
from xmalign_lab.pairs import augment
from xmalign_lab.recipe import Recipe
from xmalign_lab.schedules import Constant
from xmalign_lab.study import Task, score
from xmalign_lab.train import fit

# λ and τ_d: the best of a few, on validation families of fold 0 of emoji at 40 % translation noise, by mean MRR of text → image
# in the targets: `run(task, replace(recipe, terms={"info_nce": 1.0, "relational": λ}, guide_temperature=Constant(τ_d)), PARTS)`
# with the task and the recipe of `sweep.Run("CL2CM", sweep.Condition("translation", 0.4), 0, "validation")`. ω is not tuned.
LAMBDA, TAU, OMEGA = 2.0, 0.1, 0.1


def seen(pairs: Pairs, corpus: Corpus, pivot: str = "eng_Latn") -> pd.DataFrame:
    """What a run is told: a row per kind of pair of weight above 0, and how many there are of it.

    Columns left modality, left lang, right modality, right lang, made, source, pairs, through. `made` is "machine" where the
    labels of one of the two say {"made": "machine"}, else "human"; a picture's lang is "". `through` counts the pairs that
    follow from two others of the table, as x–z does from x–y and y–z where y is a text of `pivot`. `CorpusError` for an id that
    is not in the corpus: what the `pairs.parquet` of a run's folder names must be there to be looked at.
    """
    rows, known = pairs.rows[pairs.rows.weight > 0], corpus.rows.set_index("id")
    sides = [rows[side].astype(str).to_numpy(object) for side in ("left", "right")]
    names, at = np.unique(np.concatenate(sides), return_inverse=True)
    if len(unknown := pd.Index(names).difference(known.index)):  # not NumPy's, which takes the square of their number
        raise CorpusError(f"{corpus.name}: no row has the id {unknown[0]!r}, which a pair names; give the corpus with all rows")
    left, right = np.split(at, 2)
    a, b = left[left != right], right[left != right]  # a text beside its own copy leads nowhere
    linked = sparse.csr_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=[len(names)] * 2)
    between = np.flatnonzero(known.lang.loc[names] == pivot)
    ways = linked[:, between] @ linked[between]
    kinds, made = {}, np.zeros(len(rows), bool)
    for side, ids in zip(("left", "right"), sides, strict=True):
        of = known.loc[ids]
        kinds |= {f"{side} {what}": of[what].to_numpy(object) for what in ("modality", "lang")}
        made |= [labels.get("made") == "machine" for labels in of.labels]
    kinds |= {"made": np.where(made, "machine", "human"), "source": rows.source.to_numpy(object)}
    table = pd.DataFrame(kinds | {"through": np.asarray(ways[left, right]).ravel() > 0})
    return table.groupby(list(kinds)).through.agg(pairs="size", through="sum").reset_index()


def prove_no_image_target(seen: pd.DataFrame, target: str, stand_in: bool = False) -> None:
    """Raise `ValueError`, naming the rows of `seen`, if a picture or video was paired with a human text of `target`.

    With a machine translation of its own caption it may be: that is the pseudo-pair. `stand_in` is for data in which human texts
    stand for the machine translations, as in the study: there such a pair may be only where it follows from two others, the
    picture's with a caption and the caption's with that text, and so says nothing that they do not.
    """
    bad = np.zeros(len(seen), bool)
    for side, other in (("left", "right"), ("right", "left")):
        bad |= ((seen[f"{side} modality"] != "text") & (seen[f"{other} lang"] == target)).to_numpy(bool)
    bad &= (seen.made == "human").to_numpy(bool) & ~(stand_in & (seen.through == seen.pairs).to_numpy(bool))
    if bad.any():
        rows = [
            f"{row.pairs:,} pairs of {row.source!r}, {row.through:,} of them through others" for row in seen[bad].itertuples()
        ]
        raise ValueError(f"pictures were paired with human texts in {target}: {'; '.join(rows)}")


def teacher(recipe: Recipe, texts: Features | Inputs, pairs: Pairs, folder: Path | None = None, progress: bool = True) -> Aligner:
    """The cross-lingual network: an Aligner whose text head knows both languages; its image head trains nothing.

    `pairs` are of texts with their translations. Its terms are "info_nce", and where `texts` are Inputs, whose tower
    (`recipe.towers`) gives tokens, "transport_cost" too; of `recipe.terms` these two count as they do there.
    """
    terms = {"info_nce": 1.0} | ({"transport_cost": OMEGA} if isinstance(texts, Inputs) else {})
    terms |= {name: weight for name, weight in recipe.terms.items() if name in terms}
    towers = {modality: tower for modality, tower in recipe.towers.items() if modality == "text"}
    recipe = replace(recipe, terms=terms, towers=towers, fixed=("image",), guide_temperature=None)
    nobody = Features(np.array(["no picture"]), np.ones((1, recipe.dim), np.float32))
    return fit(recipe, {"image": nobody, "text": texts}, pairs, folder, progress)[0]


@torch.no_grad()
def encoded(aligner: Aligner, texts: Features | Inputs, size: int = 256) -> Features:
    """The aligner's vectors of texts, with its tokens where its head has them, `size` rows at a time."""
    head, pad = aligner.eval().heads["text"], torch.nn.functional.pad
    parts = [head(head.prepare(texts.vectors[at : at + size])) for at in range(0, len(texts), size)]
    if not isinstance(parts[0], Encoded):
        return Features(texts.ids, torch.cat(parts).numpy())
    short = [max(part.mask.shape[1] for part in parts) - part.mask.shape[1] for part in parts]
    tokens = torch.cat([pad(part.tokens, (0, 0, 0, by)) for part, by in zip(parts, short, strict=True)])
    mask = torch.cat([pad(part.mask, (0, by)) for part, by in zip(parts, short, strict=True)])
    return Features(texts.ids, torch.cat([part.vectors for part in parts]).numpy(), tokens.numpy(), mask.numpy())


def knowledge(teacher: Aligner, texts: Features | Inputs, pairs: Pairs) -> Features:
    """The guide of the student: the teacher's vector of each text, and of each left row of `pairs`, (picture, source caption).

    A picture's vector is the mean of its captions'; where the teacher has tokens, a picture has those of its first caption.
    """
    known = encoded(teacher, texts)
    rows = pairs.rows[pairs.rows.weight > 0].sort_values("left", kind="stable")
    pictures, first = np.unique(rows.left.to_numpy(object), return_index=True)
    at = known.position(rows.right)
    mean = similarity.unit(np.add.reduceat(known.vectors[at] * rows.weight.to_numpy(np.float32)[:, None], first))
    take = np.r_[at[first], np.arange(len(known))]
    tokens = [None if part is None else part[take] for part in (known.tokens, known.mask)]
    return Features(np.r_[pictures, known.ids], np.concatenate([mean, known.vectors]), *tokens)


def student(
    recipe: Recipe,
    features: Mapping[str, Features | Inputs],
    pairs: Pairs,
    guide: Features | None,
    folder: Path | None = None,
    begin: Aligner | None = None,
    progress: bool = True,
) -> Aligner:
    """The cross-modal network: `train.fit` on pictures with source texts and with target texts, and what a `guide` adds.

    With one, "relational" joins the terms of the recipe, whose retrieval loss is "info_nce" or "triplet"; where guide and
    both modalities have tokens, "relational_words" too. Their weights and temperature are the recipe's where it has them, and
    `recipe.relations` may keep them to some relations. With `begin`, the teacher, its text head is where this one's starts.
    """
    if guide is not None:
        tokens = guide.tokens is not None and all(isinstance(table, Inputs) for table in features.values())
        terms = {"relational": LAMBDA} | ({"relational_words": LAMBDA} if tokens else {}) | dict(recipe.terms)
        recipe = replace(recipe, terms=terms, guide_temperature=recipe.guide_temperature or Constant(TAU))
    start = None if begin is None else {"text": begin.heads["text"]}
    return fit(recipe, features, pairs, folder, progress, guide=guide, begin=start)[0]


def pseudo(task: Task) -> Pairs:
    """Pictures with pivot texts, as they are given, and with target texts, through the pivot texts between them."""
    source = task.parallel.rows.source
    ways = {target: task.parallel.select(source == f"{task.pivot}-{target}") for target in task.targets}
    through = [augment.through(task.pictured, way, f"image-{target}") for target, way in ways.items() if len(way)]
    return reduce(add, through, task.pictured)


def matched_words(task: Task, aligner: Aligner, least: float = 0.3) -> tuple[Features, Pairs]:
    """Words that transport between parallel texts matches: `(features, pairs)` of texts of one word, for features without tokens.

    A word's vector is what `aligner` makes of it alone, P the plan of a pair of texts with a and b words. Over all pairs of
    texts of a language the mass m_st = Σ min(a, b) P_st of words s and t gives the weight 2 m_st / (n_s + n_t), n counting the
    texts with the word; what is below `least` is left out. A wrong translation recurs less than a right one, so that the sum
    bears noise that a single plan does not; but words that occur once, and words copied into the translation, are believed.
    The retrieval loss over these pairs stands in the place of ω <P, C>.
    """
    spelled, found = {}, []
    for target in task.targets:
        source = f"{task.pivot}-{target}"
        rows = task.parallel.rows[task.parallel.rows.source == source]
        sides = [_words(task, aligner, lang, rows[side]) for lang, side in ((task.pivot, "left"), (target, "right"))]
        (left, n, *_), (right, m, *_) = sides
        mass = sparse.csr_matrix((len(left), len(right)), dtype=np.float32)
        for some in np.array_split(np.arange(len(rows)), len(rows) // 1000 + 1):
            numbers, masks, vectors = zip(*((at[some], mask[some], of) for _, _, at, mask, of in sides), strict=True)
            tokens = (torch.from_numpy(of[at]) for of, at in zip(vectors, numbers, strict=True))
            plan = local.matching(*tokens, *map(torch.from_numpy, masks)).numpy()
            plan = plan * np.minimum(*(mask.sum(1) for mask in masks))[:, None, None]
            places = [np.broadcast_to(at, plan.shape).ravel() for at in (numbers[0][:, :, None], numbers[1][:, None])]
            mass += sparse.csr_matrix((plan.ravel(), places), shape=mass.shape)
        mass = mass.tocoo()
        weight = np.minimum(1, 2 * mass.data / (n[mass.row] + m[mass.col]))
        ids = [np.array([f"word:{lang}:{word}" for word in of]) for lang, of in ((task.pivot, left), (target, right))]
        spelled |= dict(zip(np.concatenate(ids), [*left, *right], strict=True))
        table = pd.DataFrame({"left": ids[0][mass.row], "right": ids[1][mass.col], "weight": weight, "source": f"words {source}"})
        found.append(table[weight >= least])
    return Features(np.array(list(spelled), object), leveled_texts(list(spelled.values()))), Pairs(pd.concat(found))


def leveled_texts(texts: list[str]) -> sparse.csr_matrix:
    """`lowresource.leveled` with its levels, of texts that are in no corpus."""
    return sparse.hstack([level.encode(texts, progress=False).vectors * len(LEVELS) ** -0.5 for level in LEVELS], format="csr")


def _words(task: Task, aligner: Aligner, lang: str, ids: pd.Series) -> tuple:
    """The words (v,) of these texts, how many texts hold each, the numbers (n, a) of each text's, mask (n, a), vectors (v, d)."""
    counter = CountVectorizer(analyzer=words, binary=True)
    bags = counter.fit_transform(ids.map(task.corpus.lookup("text")))
    lengths = np.diff(bags.indptr)
    mask = np.arange(lengths.max()) < lengths[:, None]
    at = np.zeros(mask.shape, int)
    at[mask] = bags.indices
    known = list(counter.get_feature_names_out())
    vectors = aligner.encode_text(Features(known, leveled_texts(known)))
    return known, np.asarray(bags.sum(0)).ravel(), at, mask, vectors


def run(task: Task, recipe: Recipe, parts: Collection[str] = ()) -> pd.DataFrame:
    """A row of the study: a student on `pseudo` pairs and the parallel ones (L(S, T) too), with the `PARTS` that are asked.

    "words": the teacher learns from `matched_words` too. "start": the student's text head starts as the teacher's.
    "distillation": L_rel. All on text features of two levels (`lowresource.leveled`). The texts in target languages stand for
    machine translations, and are corrupted like them where the condition says so: the task has no pair of a picture with
    one, and those that are made follow from the pairs it has, which is proved here of all that is trained on.
    `attrs["seen"]` of the scores holds the rows of that table.
    """
    need_parallel(task, "nothing to transfer over")
    recipe, pairs = replace(recipe, seed=recipe.seed + task.fold), pseudo(task) + task.parallel
    given, told = (seen(some, task.corpus) for some in (task.pairs, pairs))
    for target in task.targets:
        prove_no_image_target(given, target)
        prove_no_image_target(told, target, stand_in=True)
    features = dict(task.features) | {"text": leveled(task.corpus, ("levels",))}
    guide = master = None
    if parts:
        ids = task.training.where_rows(modality="text").ids
        texts = Features(ids, features["text"].take(ids))
        master = teacher(recipe, texts, task.parallel, progress=False)
        if "words" in parts:
            more, matched = matched_words(task, master)
            master = teacher(recipe, Features.concatenate([texts, more]), task.parallel + matched, progress=False)
    if "distillation" in parts:
        guide = knowledge(master, texts, task.pictured)
        plain = dict.fromkeys((*task.pictured.sources, *task.parallel.sources), dict.fromkeys(recipe.terms, 1.0))
        recipe = replace(recipe, relations=plain)  # what is distilled goes to pictures and target texts alone
    aligner = student(recipe, features, pairs, guide, begin=master if "start" in parts else None, progress=False)
    scores = score(aligner, task.asked, features)
    scores.attrs["seen"] = told.to_dict("records")
    return scores


def distances(sides: Mapping[str, Side]) -> pd.DataFrame:
    """How far two kinds of rows lie from each other: a row for every two of `sides`, such as pictures and each language.

    Columns left, right; `same`, the mean cosine distance of rows of one group, `other` that of rows of two; `ratio`, same /
    other, which does not depend on how spread out a space is; `gap`, the distance of the means. The heterogeneous gap: a
    picture's `ratio` to a language is greater than one language's to another.
    """
    rows = []
    for (left, a), (right, b) in combinations(sides.items(), 2):
        cosines, same = a.vectors @ b.vectors.T, a.groups[:, None] == b.groups[None]
        near, far = 1 - cosines[same].mean(), 1 - cosines[~same].mean()
        gap = np.linalg.norm(a.vectors.mean(0) - b.vectors.mean(0))
        rows.append({"left": left, "right": right, "same": near, "other": far, "ratio": near / far, "gap": gap})
    return pd.DataFrame(rows)


def compared(teacher: pd.DataFrame, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The ranks of the same queries by three networks (`rank_queries`): what the teacher knows, and what distillation moves.

    Columns query, lang, teacher, before, after: the teacher's rank of the right source text, and the student's of the right
    picture without and with distillation, means over galleries. A query that one of them lacks is left out.
    """
    tables = {"teacher": teacher, "before": before, "after": after}
    ranks = [of.groupby(["query", "lang"])["rank"].mean().rename(name) for name, of in tables.items()]
    return pd.concat(ranks, axis=1, join="inner").reset_index()


PARTS = ("words", "start", "distillation")
METHODS = by_parts(run, {"pseudo-pairs": (), "CL2CM": PARTS})
ABLATION = by_parts(run, {f"CL2CM, no {part}": tuple(other for other in PARTS if other != part) for part in PARTS})
TUNED_AS = {name: ("constant τ", None) for name in (*METHODS, *ABLATION)}  # their contrastive part is that of constant τ
