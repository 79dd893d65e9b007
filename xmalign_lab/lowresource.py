"""A method for languages with no picture of their own: one space over several levels of text, and what can be borrowed for it.

After the abstract of "Research on Cross-Modal Semantic Alignment Methods for Low-Resource Languages" (10.71222/tvftmg24), which
gives no equations: each part is formulated here from the sources that its function names. This is the form for frozen
features; local alignment and masked language modelling need towers with tokens (`encoders.tiny`, `losses`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import sparse

from xmalign_lab import similarity
from xmalign_lab.baselines import by_parts, need_parallel, placed, teacher
from xmalign_lab.corpus import Corpus, Pairs
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.classic import ClassicImage, ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.model import Aligner, Fixed
from xmalign_lab.pairs import augment
from xmalign_lab.pairs.dictionary import DICE, dictionary
from xmalign_lab.study import Task, score
from xmalign_lab.train import Recipe, fit

CHOSEN = ("levels", "pseudo-pairs", "mirrors", "topics", "regression", "teacher")  # what helped on validation families
PARTS = (*CHOSEN, "code-switching", "masked words", "mixup", "distribution", "distillation")
LEVELS = (ClassicText(words=False), ClassicText(characters=None))  # letters and words, each a unit vector of its own
TOPICS = "subcategory"  # the key of `labels` that names a row's topic, where a corpus has it
SHARE = {"topic of": 0.5, "rest-": 0.3}  # what a relation counts, by the beginning of its name; 1 where not named


def built(task: Task, recipe: Recipe, parts: Collection[str]) -> pd.DataFrame:
    """Contrastive training with some of the method's `PARTS`, and none of the others: for the ablation too.

    `arranged` makes features and pairs, `objective` the loss, `guided` what the student is asked to repeat. "regression" takes a
    kernel ridge into the student's space (`placed`); "teacher" keeps the space of the teacher of pictures and pivot texts beside
    it, with target texts in it by a ridge of their own: two models that were trained apart agree less in their mistakes.
    """
    need_parallel(task, "nothing to transfer over")
    master = teacher(task, recipe) if {"distillation", "teacher"} & set(parts) else None
    made = arranged(task, parts)
    guide = guided(task, made.pairs, master) if "distillation" in parts else None
    aim = objective(replace(recipe, seed=recipe.seed + task.fold), made.pairs, parts)
    student, _ = fit(aim, made.features, made.pairs, progress=False, guide=guide)
    spaces = [placed(made, student, made.features, "regression" in parts)]
    if "teacher" in parts:
        spaces.append(placed(made, master, task.features, True, own=False))
    features = {modality: side_by_side([space[modality] for space in spaces]) for modality in ("image", "text")}
    return score(Aligner(*(Fixed(features[m].width) for m in ("image", "text"))), task.asked, features)


def side_by_side(tables: list[Features]) -> Features:
    """One space of several, (n, Σ d): cosines become the mean of theirs, for rows of unit length in each."""
    return Features(tables[0].ids, np.concatenate([table.take(tables[0].ids) for table in tables], 1))


def leveled(corpus: Corpus, parts: Collection[str]) -> Features:
    """The texts' n-grams; with "levels", their letters and their words side by side, so that neither drowns the other."""
    if "levels" not in parts:
        return encode(corpus, ClassicText(), progress=False)
    tables = [encode(corpus, level, progress=False) for level in LEVELS]
    return Features(tables[0].ids, sparse.hstack([table.vectors * len(LEVELS) ** -0.5 for table in tables], format="csr"))


def arranged(task: Task, parts: Collection[str]) -> Task:
    """The task with the parts that make features and pairs, from training families alone.

    "levels": `leveled` text features. "pseudo-pairs": pictures with target texts, through the pivot texts between them.
    "mirrors": mirrored pictures with the captions. "code-switching": pictures with captions in which words are a target's, by
    the dictionary of the task's own parallel text. "topics": pictures and pivot texts with the name of their topic; a target's
    own topic would tell which of its pairs are wrong. "masked words": texts with a word that they lack.
    """
    pairs, pictured, pictures, made = task.pairs, task.pictured, [task.features["image"]], []
    training = task.training.select(~(task.training.rows.modality == "image") | task.training.rows.id.isin(pictured.rows.left))
    text_of = training.lookup("text")
    for target in task.targets:
        parallel = task.pairs.select(task.pairs.rows.source == f"{task.pivot}-{target}")
        if "pseudo-pairs" in parts:
            pairs = pairs + augment.through(pictured, parallel, f"image-{target}")
        if "code-switching" in parts:
            known = dictionary([(text_of[a], text_of[b]) for a, b in parallel.rows[["left", "right"]].to_numpy()], DICE)
            switched, beside = augment.code_switched(training, known, task.pivot, target, seed=task.fold)
            made, pairs = [*made, switched], pairs + augment.through(pictured, beside, f"image-{task.pivot}~{target}")
    for lang in (task.pivot, *task.targets) if "masked words" in parts else ():
        rests, of_words = augment.masked_words(training, lang, seed=task.fold)
        made, pairs = [*made, rests], pairs + of_words
    if "mirrors" in parts:
        mirrors, beside = augment.mirrored(training)
        pictures.append(encode(mirrors, ClassicImage(), progress=False))
        pairs = pairs + augment.through(beside, pictured, f"image-{task.pivot}")
    if "topics" in parts and any(TOPICS in labels for labels in training.rows.labels):
        for side, source in (("left", "topic of pictures"), ("right", "topic of texts")):
            rows = training.select(training.rows.id.isin(pictured.rows[side]))
            names, of_topics = augment.classified(rows, TOPICS, task.pivot, source)
            pairs = pairs + of_topics
        made.append(names)
    text = [leveled(corpus, parts) for corpus in (task.corpus, *made)]
    features = {"image": Features.concatenate(pictures), "text": Features.concatenate(text)}
    truth = np.concatenate([task.truth, np.ones(len(pairs) - len(task.pairs), bool)])
    return replace(task, pairs=pairs, truth=truth, features=features)


def objective(recipe: Recipe, pairs: Pairs, parts: Collection[str]) -> Recipe:
    """The recipe with the parts that make the loss: `TERMS` of the parts, and what each relation counts (`SHARE`)."""
    terms = dict(recipe.terms) | {name: weight for part, of in TERMS.items() if part in parts for name, weight in of.items()}
    shares = {source: share for source in pairs.sources for start, share in SHARE.items() if source.startswith(start)}
    return replace(recipe, terms=terms, relations=shares | dict(recipe.relations))


def guided(task: Task, pairs: Pairs, master: Aligner) -> Features:
    """Where the teacher of pictures and pivot texts puts each training row: a pivot text itself, others by what they are with.

    A picture is its captions' mean, a target text its translations', a topic its texts'. So the similarities of texts, which the
    teacher knows best, are what pictures and target texts are asked to repeat: CL2CM's direction of relational distillation
    (arXiv 2312.08984; a reconstruction, as its code is not public).
    """
    texts = task.training.where_rows(modality="text", lang=task.pivot).ids
    known = Features(texts, master.encode_text(Features(texts, task.features["text"].take(texts))))
    rows = pairs.rows[pairs.rows.weight > 0]
    of, beside = (np.concatenate([rows[a], rows[b]]).astype(object) for a, b in (("left", "right"), ("right", "left")))
    use = pd.Index(beside).isin(texts) & ~pd.Index(of).isin(texts)
    ids, number = np.unique(of[use], return_inverse=True)
    weight = np.tile(rows.weight.to_numpy(np.float32), 2)[use]
    mean = sparse.csr_matrix((weight, (number, np.arange(len(number))))) @ known.take(beside[use])
    return Features.concatenate([known, Features(ids, similarity.unit(mean))])


TERMS = {"distribution": {"mmd": 1.0}, "distillation": {"relational": 1.0}, "mixup": {"mixup": 1.0}}
METHODS = by_parts(built, {"whole transfer": CHOSEN})
ABLATION = {"all of transfer": CHOSEN, "nothing transferred": ()}  # the first in the languages of the ablation alone
ABLATION |= {f"lacking {part}": tuple(other for other in CHOSEN if other != part) for part in CHOSEN}
ABLATION |= {f"adding {part}": (*CHOSEN, part) for part in PARTS if part not in CHOSEN}
ABLATION = by_parts(built, ABLATION | {f"{part} alone": (part,) for part in PARTS})
TUNED_AS = {name: ("constant τ", None) for name in (*METHODS, *ABLATION)}  # what it trains is that, with more relations
