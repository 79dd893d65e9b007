"""From a corpus to records: the five folds, the training pairs, the trained aligner and its per-query scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from xmalign_lab import records, similarity
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, split_by_family
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.classic import ClassicImage, ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate.retrieval import DEFAULT, Protocol, Side, rank_queries
from xmalign_lab.model import Aligner
from xmalign_lab.train import Recipe, fit

MakePairs = Callable[[Corpus], Pairs]


@dataclass(frozen=True, eq=False)
class Task:
    """One fold's work: what a method may train on, and what it is asked.

    `corpus` has its `split`; `pairs` tie pictures to `pivot` texts and those to the `targets` (`bridge`), perhaps thinned
    or corrupted; `truth` (n,) says which pairs are right and is for oracles alone. With `part` "test", training
    and validation families are trained on; with "validation", training families only. `dictionary` holds, by target, words
    (target, pivot) that translate each other, for methods that mine.
    """

    corpus: Corpus
    features: Mapping[str, Features]
    pairs: Pairs
    truth: np.ndarray
    targets: tuple[str, ...]
    fold: int
    part: str = "test"
    pivot: str = "eng_Latn"
    dictionary: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    @property
    def training(self) -> Corpus:
        return training_part(self.corpus, self.part)

    @property
    def asked(self) -> Corpus:
        return self.corpus.where_rows(split=self.part)

    @property
    def parallel(self) -> Pairs:
        """The pairs of a pivot text with a target text."""
        return self.pairs.select(self.pairs.rows.source.isin([f"{self.pivot}-{target}" for target in self.targets]))

    @property
    def pictured(self) -> Pairs:
        """The pairs of a picture with a pivot text."""
        return self.pairs.select(self.pairs.rows.source == f"image-{self.pivot}")


def training_part(corpus: Corpus, part: str) -> Corpus:
    """What may be trained on when `part` is asked."""
    return corpus.where_rows(split=["train", "validation"] if part == "test" else "train")


def prepare(corpus: Corpus) -> dict[str, Features]:
    """`{"image": …, "text": …}` by the classic encoders, from the cache where it holds them."""
    return {"image": encode(corpus, ClassicImage()), "text": encode(corpus, ClassicText())}


def run_fold(
    recipe: Recipe, corpus: Corpus, features: Mapping[str, Features], make_pairs: MakePairs, fold: int, root: Path | None = None
) -> records.Record:
    """Train on fold `fold`'s training and validation families with seed `fold`, score its test families.

    Settings are chosen on validation families only (`part="validation"` of `score`); once chosen, those families are
    trained on as well. `make_pairs` sees the training corpus and nothing else.
    """
    recipe = replace(recipe, seed=recipe.seed + fold)
    corpus = split_by_family(corpus, fold)
    pairs = make_pairs(corpus.where_rows(split=["train", "validation"]))
    test = corpus.where_rows(split="test")

    def run(folder: Path) -> None:
        aligner, steps = fit(recipe, features, pairs, folder)
        aligner.save(folder)
        steps.to_parquet(folder / "steps.parquet")
        score(aligner, test, features).to_parquet(folder / "scores.parquet")
        edits = json.loads((folder / "state.json").read_text())["edits"]
        (folder / "edits.jsonl").write_text("".join(json.dumps(edit) + "\n" for edit in edits))

    inputs = [f"fold {fold}", *(features[m].key for m in sorted(features)), records.frame_hash(pairs.rows)]
    inputs.append(records.frame_hash(test.rows[["id", "group", "family"]]))
    return records.get_or_run(recipe, run, inputs, root, __name__)


def run_folds(
    recipe: Recipe, corpus: Corpus, features, make_pairs: MakePairs, folds: Iterable[int] = range(5), root=None
) -> list:
    """`run_fold` for each fold: over all five every family is tested exactly once."""
    return [run_fold(recipe, corpus, features, make_pairs, fold, root) for fold in folds]


def pooled_scores(runs: Iterable[records.Record]) -> pd.DataFrame:
    """The scores of several folds in one table: every query once per gallery."""
    return pd.concat([run.scores for run in runs], ignore_index=True)


def score(aligner: Aligner, corpus: Corpus, features: Mapping[str, Features], protocol: Protocol = DEFAULT) -> pd.DataFrame:
    """Per-query ranks in both directions, for every language and every picture source of `corpus`.

    Queries are names or captions, never keywords. Each source of pictures (a vendor) is a gallery of its own.
    """
    parts = []
    texts = corpus.where_rows(modality="text", kind=["name", "caption"])
    for vendor, pictures in corpus.where_rows(modality="image").rows.groupby("source"):
        images = side(aligner, corpus, features, "image", pictures.id)
        for lang in texts.languages:
            words = side(aligner, corpus, features, "text", texts.where_rows(lang=lang).ids)
            parts.append(rank_queries(words, images, lang, "text→image", vendor, protocol))
            parts.append(rank_queries(images, words, lang, "image→text", vendor, protocol))
    return pd.concat(parts, ignore_index=True)


def side(aligner: Aligner, corpus: Corpus, features: Mapping[str, Features], modality: str, ids) -> Side:
    """The aligned vectors of these rows with their groups and families."""
    encode = aligner.encode_image if modality == "image" else aligner.encode_text
    rows = corpus.rows.set_index("id").loc[list(ids)]
    vectors = encode(Features(rows.index.to_numpy(object), features[modality].take(rows.index)))
    return Side(vectors, rows.index.to_numpy(object), rows.group.to_numpy(object), rows.family.to_numpy(object))


def embedded(aligner: Aligner, corpus: Corpus, features: Mapping[str, Features]) -> tuple[pd.DataFrame, np.ndarray]:
    """The pictures, names and captions of `corpus` (n rows, no keywords) and their aligned vectors (n, dim): a space."""
    parts = [corpus.where_rows(modality="image"), corpus.where_rows(modality="text", kind=["name", "caption"])]
    sides = [side(aligner, corpus, features, part.rows.modality.iloc[0], part.ids) for part in parts]
    return pd.concat([part.rows for part in parts], ignore_index=True), np.concatenate([s.vectors for s in sides])


def examples(
    aligner: Aligner, corpus: Corpus, features: Mapping[str, Features], groups: Sequence[str], lang: str, vendor: str, k: int = 6
) -> list[dict]:
    """For each of `groups` its name or caption in `lang`, the `k` nearest pictures of `vendor` and the right one's rank.

    As `pictures.retrieval_html` takes them: query, lang, rank, hits with picture and correct. Every picture of `corpus`
    from that vendor is in the gallery. Raises `CorpusError` for a group without a text in `lang`.
    """
    texts = corpus.where_rows(lang=lang, kind=["name", "caption"], group=groups).rows.drop_duplicates("group")
    texts = texts.set_index("group")
    if lacking := [group for group in groups if group not in texts.index]:
        raise CorpusError(f"{corpus.name}: group {lacking[0]!r} has no name or caption in {lang}")
    texts = texts.loc[list(groups)]
    gallery = side(aligner, corpus, features, "image", corpus.where_rows(modality="image", source=vendor).ids)
    queries = side(aligner, corpus, features, "text", texts.id)
    nearest = similarity.top_k(queries.vectors, gallery.vectors, k)[1]
    ranks = similarity.ranks(queries.vectors, gallery.vectors, queries.groups, gallery.groups)
    return [
        {
            "query": text,
            "lang": lang,
            "rank": rank,
            "hits": [{"picture": corpus.picture(gallery.ids[i]), "correct": gallery.groups[i] == group} for i in row],
        }
        for group, text, rank, row in zip(texts.index, texts.text, ranks, nearest, strict=True)
    ]
