"""What a dashboard turns: a corpus, its noisy pairs and how far each is believed, runs of seconds, and their numbers.

    dashboard = Dashboard(Workbench.of(["swh_Latn", "sin_Sinh"]))

Everything is asked of validation families with clean names; the test families of the fold stay closed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import islice
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd

from xmalign_lab import adaptive, corpora, profile, records, similarity, study
from xmalign_lab.asking import Asked
from xmalign_lab.batches import Batches
from xmalign_lab.corpus import Corpus, Pairs, split_by_family
from xmalign_lab.encoders.features import Features
from xmalign_lab.evaluate.retrieval import rank_queries
from xmalign_lab.model import Aligner
from xmalign_lab.pairs import noise as errors
from xmalign_lab.pairs.parallel import bridge, thin
from xmalign_lab.schedules import Constant, Schedule
from xmalign_lab.state import State, initial_state
from xmalign_lab.train import Recipe, Step, train

EVEN = Constant(0.1)
Say = Callable[[float, str], None]  # how much of it is done, in [0, 1], and what comes now


@dataclass(frozen=True, eq=False)
class Material:
    """What one choice of data comes to.

    `pairs` have the belief of parallel text as `score` and weight 1, so that a threshold alone decides what is trained on;
    `truth` (n,) says which are right. `features` are those of training rows, `asked_features` of validation rows.
    """

    corpus: Corpus
    features: Mapping[str, Features]
    asked_features: Mapping[str, Features]
    pairs: Pairs
    truth: np.ndarray
    targets: tuple[str, ...]
    fresh: State

    @property
    def asked(self) -> Corpus:
        return self.corpus.where_rows(split="validation")


@dataclass(eq=False)
class Workbench:
    """A corpus with its features, and the four things that a dashboard needs of them: `data`, `begin`, `measure`, `embedded`.

    `recipe` says the size of a run and its seed, `fold` whose validation families are asked. All of it is the same whenever
    it is asked for: nothing here is random but by `recipe.seed` and `fold`.
    """

    corpus: Corpus
    features: Mapping[str, Features]
    recipe: Recipe = field(default_factory=lambda: Recipe(hidden=256, components=128, batch_pairs=1000, learning_rate=6e-3))
    fold: int = 0
    pivot: str = "eng_Latn"

    @classmethod
    def of(cls, targets: Sequence[str], read: Callable[[list[str]], Corpus] = corpora.best, **fields) -> Workbench:
        """On what `read` returns for English and these languages, with the classic features."""
        corpus = read(["eng_Latn", *targets])
        return cls(corpus, study.prepare(corpus), **fields)

    @property
    def offered(self) -> tuple[str, ...]:
        """The languages that can be trained."""
        return tuple(code for code in self.corpus.languages if code != self.pivot)

    def data(
        self, targets: Collection[str], noise: float = 0.0, text: float = 1.0, say: Say = lambda done, what: None
    ) -> Material:
        """Pictures with pivot texts, and those with texts of `targets`: a share `text` of these, a share `noise` of it wrong.

        What is believed of a pair comes from `adaptive.judged`, language by language, and is kept on disk. Raises `ValueError`
        for no or unknown languages, or a share outside [0, 1].
        """
        targets = tuple(code for code in self.offered if code in targets)
        if not targets:
            raise ValueError(f"choose at least one language of {', '.join(self.offered)}")
        split = split_by_family(self.corpus.where_rows(lang=["", self.pivot, *targets]), self.fold)
        training, parts, truth = split.where_rows(split="train"), [bridge(split.where_rows(split="train"), [])], []
        for number, target in enumerate(targets):
            say(number / (len(targets) + 1), f"how far the pairs of {target} are to be believed")
            given, right = self._corrupted(training, target, noise, text)
            parts.append(self._believed(split, given, target))
            truth.append(right)
        say(len(targets) / (len(targets) + 1), "the heads' first layers")
        pairs, truth = reduce(add, parts), np.concatenate([np.ones(len(parts[0]), bool), *truth])
        features, asked = (self._of(split.where_rows(split=part)) for part in ("train", "validation"))
        fresh = initial_state(self.recipe, features, Batches(features, pairs, self.recipe.batch_pairs))
        return Material(split, features, asked, pairs, truth, targets, fresh)

    def begin(
        self, data: Material, temperature: Schedule = EVEN, threshold: float = 0.0, held: State | None = None, steps=100
    ) -> Iterator[Step]:
        """The steps of a run of so many `steps`, from scratch or from a copy of the weights `held`, with a fresh optimiser.

        Going on is a run of its own, warm-up included (a warm restart: Loshchilov & Hutter 2017, arXiv 1608.03983).
        """
        per_epoch = Batches(data.features, data.pairs, self.recipe.batch_pairs).per_epoch
        recipe = replace(self.recipe, temperature=temperature, threshold=threshold, epochs=max(1, math.ceil(steps / per_epoch)))
        state = copy.deepcopy(held or data.fresh)
        state.optimiser.state.clear()
        state.recipe, state.step, state.schedule, state.edits = recipe, 0, {}, []
        return islice(train(recipe, data.features, data.pairs, state), steps)

    def measure(self, aligner: Aligner, data: Material) -> pd.DataFrame:
        """Ranks of the pictures of validation families, asked for by name in each language, as `study.score` has them."""
        asked, parts = data.asked, []
        texts = asked.where_rows(modality="text", kind=["name", "caption"])
        words = {lang: self._side(aligner, data, "text", texts.where_rows(lang=lang)) for lang in texts.languages}
        for vendor in sorted(set(asked.where_rows(modality="image").rows.source)):
            images = self._side(aligner, data, "image", asked.where_rows(modality="image", source=vendor))
            parts += [rank_queries(side, images, lang, "text→image", vendor) for lang, side in words.items()]
        return pd.concat(parts, ignore_index=True)

    def glance(self, step: Step, data: Material) -> dict[str, float]:
        """MRR by language on the pictures of one vendor: what `measure` says at length, in a few hundredths of a second."""
        shown = self.shown(data)
        images, found = self._side(step.state.aligner, data, "image", shown.where_rows(modality="image")), {}
        for lang in (self.pivot, *data.targets):
            words = self._side(step.state.aligner, data, "text", shown.where_rows(lang=lang))
            found[lang] = float((1 / similarity.ranks(words.vectors, images.vectors, words.groups, images.groups)).mean())
        return found

    def shown(self, data: Material) -> Corpus:
        """The validation rows that a map shows: pictures of one vendor, a name or caption in each language."""
        vendor, rows = min(data.asked.where_rows(modality="image").rows.source), data.asked.rows
        picture = (rows.modality == "image") & (rows.source == vendor)
        return data.asked.select(picture | ((rows.modality == "text") & rows.kind.isin(["name", "caption"])))

    def embedded(self, aligner: Aligner, data: Material) -> tuple[pd.DataFrame, np.ndarray]:
        """The rows `shown`, (n rows), and their aligned vectors (n, dim)."""
        return study.embedded(aligner, self.shown(data), data.asked_features)

    def asked(self, aligner: Aligner, data: Material) -> Asked:
        """The model ready for questions, over the same pictures."""
        return Asked(aligner, data.corpus, self.features, "validation")

    def _side(self, aligner: Aligner, data: Material, modality: str, rows: Corpus):
        return study.side(aligner, rows, data.asked_features, modality, rows.ids)

    def _of(self, corpus: Corpus) -> dict[str, Features]:
        ids = {modality: corpus.where_rows(modality=modality).ids for modality in self.features}
        return {modality: Features(ids[modality], table.take(ids[modality])) for modality, table in self.features.items()}

    def _corrupted(self, training: Corpus, target: str, noise: float, text: float) -> tuple[Pairs, np.ndarray]:
        source = f"{self.pivot}-{target}"
        pairs = bridge(training, [target], self.pivot)
        pairs = pairs.select(pairs.rows.source == source)
        return errors.shuffle(thin(pairs, training, text, [source]), training, noise, self.fold)

    def _believed(self, split: Corpus, pairs: Pairs, target: str) -> Pairs:
        """The pairs with their belief as score, from the cache where it holds them."""
        texts = self.features["text"]
        task = study.Task(split, self.features, pairs, np.ones(len(pairs), bool), (target,), self.fold, "validation", self.pivot)

        def run(folder: Path) -> None:
            adaptive.judged(task).pairs.rows.to_parquet(folder / "pairs.parquet")

        inputs = ["belief", texts.key, records.frame_hash(pairs.rows)]
        kept = records.get_or_run(Recipe(name="belief"), run, inputs, profile.cache_root() / "beliefs", adaptive.__name__)
        return Pairs(pd.read_parquet(kept.folder / "pairs.parquet").assign(weight=1.0))
