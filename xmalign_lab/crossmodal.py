"""Transfer on the published sets: pictures or videos with English captions and machine translations of them, asked by people.

After the protocol of NRCCR (Wang et al. 2022, arXiv 2208.12526): Multi30K, MSCOCO (asked on COCO-CN and STAIR) and VATEX. A
method trains on the set's English training captions and on what a machine made of them; it is asked in the human captions of
the target language of the test pictures. No picture that is asked is trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from xmalign_lab import cl2cm, corpora, nrccr, profile, records, reproduce
from xmalign_lab.baselines import DISTIL, NotApplicable, clip, distilled, to_teacher
from xmalign_lab.corpora.captions import KEYED
from xmalign_lab.corpora.lines import files, lines
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, concatenate
from xmalign_lab.encoders import inputs
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.clip import OpenClip
from xmalign_lab.encoders.features import Encoder, Features
from xmalign_lab.encoders.pretrained import PictureEncoder, SentenceEncoder
from xmalign_lab.encoders.sequences import frames, of_tokens
from xmalign_lab.encoders.trainable import PretrainedText
from xmalign_lab.encoders.translate import Translator
from xmalign_lab.evaluate import report
from xmalign_lab.evaluate.retrieval import Protocol
from xmalign_lab.model import Aligner, Fixed
from xmalign_lab.pairs import augment, pseudo
from xmalign_lab.reproduce import beside, figures, listed
from xmalign_lab.reproduce import transferred as published
from xmalign_lab.study import Task, score
from xmalign_lab.train import Recipe, fit

PIVOT = "eng_Latn"
SETS = {  # by set and target language, the source of the human captions that are asked
    "multi30k": dict.fromkeys(("deu_Latn", "fra_Latn", "ces_Latn"), "multi30k"),
    "coco": {"zho_Hans": "coco_cn", "jpn_Jpan": "stair"},
    "vatex": {"zho_Hans": "vatex"},
}
UNWEIGHED = "nothing came back of the translations (back.txt): no pair is weighed, and NRCCR's cycle is L_tri(S, S)"
UNTRANSLATED = "no English translations of what is asked: give --translator, or a test.txt in the folder of --translations"


@dataclass(frozen=True)
class Transfer:
    """What `xmalign transfer` is told: a set, a target language, where files are, and what to train. Its fields are the options.

    `features` are pre-extracted (`sequences.frames`) and take the place of `images` and an image encoder. `image_encoder` is one
    word, a folder or hub's name of transformers or a local-dir: or hf-hub: of open_clip, or a model of open_clip's zoo with its
    tag; `image_name` says which published tower that is, if its name does not. `blocks` is how many blocks of the text encoder
    are trained (0: it is frozen). `captions` is how many of a picture's training captions are taken (0: all).
    """

    name: str
    target: str
    root: Path | None = None
    images: Path | None = None
    features: Path | None = None
    image_encoder: tuple[str, ...] = ("ViT-B-32", "openai")
    image_name: str = ""
    text_encoder: str = "bert-base-multilingual-cased"
    translator: str = ""
    translations: Path | None = None
    version: str = ""
    captions: int = 0
    methods: tuple[str, ...] = ()
    blocks: int = 0
    epochs: int = 0
    seeds: int = 1
    out: Path | None = None

    def __post_init__(self):
        if self.target not in SETS.get(self.name, ()):
            known = "; ".join(f"{name} in {', '.join(targets)}" for name, targets in SETS.items())
            raise CorpusError(f"no protocol for {self.name} in {self.target}; there are {known}")
        if unknown := set(self.methods) - {*METHODS}:
            raise ValueError(f"unknown method {min(unknown)!r}; known are {', '.join(METHODS)}")
        if self.translations and not Path(self.translations).is_dir():
            raise CorpusError(f"{self.translations}: there is no such folder; --translations names one with a train.txt")

    @property
    def folder(self) -> Path:
        return Path(self.out or profile.runs_root() / f"transfer-{self.name}-{self.target}")

    @property
    def trained(self) -> str:
        return f"last {self.blocks} blocks of the text encoder trained" if self.blocks else "text encoder frozen"

    @property
    def image(self) -> str:
        """The name of the image encoder, the published one where it is known to be that."""
        name = self.image_name or (str(self.features) if self.features else " ".join(self.image_encoder))
        return reproduce.contents()["towers"].get(name, name)


def captions(plan: Transfer) -> tuple[Corpus, Corpus, Corpus]:
    """The set's captions by people: what is trained on, all English of the training split, and what is asked.

    Asked are the human captions of the target of the set's test pictures: those of the source's own test split, or of the
    English set's where the source has none (STAIR). Training leaves them and their families out. Raises `CorpusError` where a
    part is empty, and for pictures that are not there.
    """
    source, place = SETS[plan.name][plan.target], dict(root=plan.root, images=plan.images)
    english = corpora.load(plan.name, [PIVOT], version=plan.version, **place)
    people = corpora.load(source, [plan.target], version=plan.version if source == plan.name else "", **place)
    tests = people if (people.rows.split == "test").any() else english
    asked = people.where_rows(group=set(tests.where_rows(split="test").rows.group))
    whole = english.where_rows(split="train")
    training = whole.select(~(whole.rows.family.isin(asked.rows.family) | whole.rows.group.isin(asked.rows.group)))
    training = training.select(training.rows.groupby(["group", "modality"]).cumcount() < (plan.captions or np.inf))
    for corpus, what in ((training, "English training captions but what is asked"), (asked, f"test captions in {plan.target}")):
        shown = corpus.rows.image[corpus.rows.modality == "image"]
        if not 0 < len(shown) < len(corpus):
            raise CorpusError(f"{corpus.name} {plan.version}: no {what} whose pictures are named")
        if not plan.features and len(lacking := shown[[not Path(path).is_file() for path in shown]]):
            needed = corpora.cards()[corpus.name]["pictures"]
            raise CorpusError(f"{lacking.iloc[0]}: {len(lacking):,} of {len(shown):,} pictures are not there; you need {needed}")
    return training, whole, replace(asked, rows=asked.rows.assign(split="test"))


def file_of(plan: Transfer, part: str, lang: str, split: str) -> Path | None:
    """Where machine translations are: `<part>.txt`, perhaps packed, in the plan's folder, or else the set's machine version."""
    if plan.translations:
        found = [Path(plan.translations) / f"{part}.{ending}" for ending in ("txt", "txt.gz")]
        return next((path for path in found if path.is_file()), None)
    wanted = ("google", lang, split)  # VATEX of MLCMR has it
    return next((one.path for one in files(plan.name, plan.root) if (one.version, one.lang, one.split) == wanted), None)


def machine(plan: Transfer, training: Corpus, whole: Corpus, asked: Corpus):
    """What machines made: rows and pairs (`pairs.pseudo`), counts, and the captions that are asked in English, by id, if any are.

    A translation that is what people wrote of the same picture, but for case, spaces and punctuation, is left out. Raises
    `CorpusError` where these are half or more of those of pictures of which people wrote: then they are no machine's, and
    training on them would be training on the target; where nothing translates; and for a line of test.txt without a text. A
    model that makes nothing of a caption leaves it to be asked as it is.
    """
    asked, queries = asked.where_rows(modality="text"), {}
    if plan.translator:
        translate = Translator(plan.translator)
        rows, pairs, _ = pseudo.pseudo_parallel(training, PIVOT, plan.target, translate)
        answers = translate(asked.rows.text.tolist(), plan.target, PIVOT)
        queries = {i: new if new.strip() else old for i, old, new in zip(asked.ids, asked.rows.text, answers, strict=True)}
    else:
        where = file_of(plan, "train", plan.target, "train")
        if not where:
            wanted = f"--translations, a folder with a train.txt of {len(whole.where_rows(modality='text')):,} English captions"
            raise CorpusError(f"no machine translations into {plan.target}: give --translator, or {wanted}")
        rows, pairs, _ = pseudo.from_lines(whole, PIVOT, plan.target, where, file_of(plan, "back", PIVOT, "train"))
        if where := file_of(plan, "test", PIVOT, "test"):
            back = pseudo.from_lines(asked, plan.target, PIVOT, where)[0].rows
            queries = dict(zip(back.labels.map(lambda labels: labels["of"]), back.text, strict=True))
            if lacking := [i for i in asked.ids if i not in queries]:
                at = [KEYED.sub(r"\4", line).strip() for line in lines(where)].index("") + 1
                raise CorpusError(f"{where}, line {at}: no text for {lacking[0]!r}; {len(lacking)} of {len(asked)} have none")
    pairs = pairs.select(pairs.rows.left.isin(training.rows.id))
    rows = rows.select(rows.rows.id.isin(pairs.rows.right))
    made = rows.where_rows(lang=plan.target).rows
    same, compared = reproduce.as_people_wrote(made, SETS[plan.name][plan.target], plan.target, plan.root)
    if same.any() and 2 * same.sum() >= compared:
        what = f"{same.sum():,} of {compared:,} translations into {plan.target} are what people wrote of the same picture"
        raise CorpusError(f"{what}; no human caption of the target may be trained on: give a machine's translations")
    pairs = pairs.select(~pairs.rows.left.isin({labels["of"] for labels in made.labels[same]}))
    rows = rows.select(rows.rows.id.isin(pairs.rows.right))
    flags = Counter(labels.get("flag", "kept") for labels in made.labels[~same])
    flags["empty"] += len(training.where_rows(modality="text")) - len(made)
    counts = {name: flags[name] for name in ("kept", "copied", "empty")} | {f"as people wrote, out of {compared:,}": same.sum()}
    if not (pairs.rows.weight > 0).any():
        raise CorpusError(f"translations into {plan.target}: none can be believed, by what comes back of them: {counts}")
    return rows, pairs, counts, queries


@dataclass(frozen=True, eq=False)
class Work:
    """A task; features of the English translations of what is asked, and of the frames of videos, where there are such; the
    towers that are trained; where records are."""

    task: Task
    queries: Features | inputs.Inputs | None
    clips: inputs.Inputs | None
    towers: dict[str, dict]
    root: Path

    def told(self, folder: Path, *sources: str) -> Pairs:
        """`told` of the pairs of these sources."""
        pairs = self.task.pairs
        return told(pairs.select(pairs.rows.source.isin(sources)), self.task.corpus, self.task.targets[0], folder)

    @property
    def keys(self) -> list[str]:
        """What a record of this work depends on."""
        task, tables = self.task, [*self.task.features.values(), *filter(None, (self.queries, self.clips))]
        frames = (task.pairs.rows, task.asked.rows[["id", "group", "family"]])
        return [*(table.key for table in tables), *map(records.frame_hash, frames)]

    @property
    def words(self) -> Work:
        """With frozen words and frames as sequences, for methods that look at them; each has a tower, that of frames a layer."""
        old = self.task.features
        text, queries = (of_tokens(table) if isinstance(table, Features) else table for table in (old["text"], self.queries))
        features = {"image": self.clips or old["image"], "text": text}
        sizes = {name: table.width for name, table in features.items() if isinstance(table, inputs.Inputs)}
        towers = {
            name: dict(tower="Sequence", width_in=width, width=width, depth=int(name == "image"), longest=512)
            for name, width in sizes.items()
        }
        return replace(self, task=replace(self.task, features=features), queries=queries, towers=towers | self.towers)


def prepared(plan: Transfer) -> Work:
    """The task of a plan, its features computed or read from the cache; prints what it is made of.

    Writes `seen.csv` of all pairs that a method may have into the plan's folder: see `told`.
    """
    parts = training, _, asked = captions(plan)
    encoder, pictures = text_encoder(plan), None if plan.features else image_encoder(plan)  # a folder that is none is named now
    made, pairs, counts, queries = machine(plan, *parts)
    corpus = concatenate([training, made, asked], plan.name)
    pictured = Pairs.by_group(training, {"modality": "image"}, {"modality": "text"}, f"image-{PIVOT}")
    parallel = pairs.select(pairs.rows.source == f"{PIVOT}-{plan.target}")
    pairs = pictured + pairs + augment.through(pictured, parallel, f"image-{plan.target}")
    plan.folder.mkdir(parents=True, exist_ok=True)
    told(pairs, corpus, plan.target, plan.folder)
    number = training.rows.modality.value_counts()
    print(f"training: {number['text']:,} English captions of {number['image']:,} pictures or videos")
    print(f"machine translations: {', '.join(f'{count:,} {name}' for name, count in counts.items())}")
    print("what comes back weighs pairs with translations, but not in NRCCR" if pairs.rows.score.notna().any() else UNWEIGHED)
    print(f"no picture was paired with a human text in {plan.target}, as far as the files show: {plan.folder / 'seen.csv'}")
    print(f"pictures: {plan.image}; texts: {plan.text_encoder}, blocks trained: {plan.blocks}")
    asked = asked.where_rows(id=list(queries))
    asked = replace(asked, rows=asked.rows.assign(text=asked.rows.id.map(queries), lang=PIVOT))
    if clips := plan.features and frames(corpus, plan.features):
        images = Features(clips.ids, clips.rows.sum(1) / clips.rows.any(2).sum(1)[:, None])
    else:
        images = encode(corpus, pictures)
    task = Task(corpus, {"image": images, "text": encoder(corpus)}, pairs, np.ones(len(pairs), bool), (plan.target,), 0)
    towers = {"text": {"tower": "PretrainedText", "name": plan.text_encoder}} if plan.blocks else {}
    return Work(task, encoder(asked) if queries else None, clips, towers, plan.folder)


def told(pairs: Pairs, corpus: Corpus, target: str, folder: Path) -> Pairs:
    """`pairs` as they are, their record `seen.csv` in `folder`; `ValueError` for a picture with a human text of the target."""
    seen = cl2cm.seen(pairs, corpus)
    seen.to_csv(folder / "seen.csv", index=False)
    cl2cm.prove_no_image_target(seen, target)
    return pairs


def image_encoder(plan: Transfer) -> Encoder:
    """open_clip's or transformers', as the words of the option say."""
    first = plan.image_encoder[0]
    zoo = len(plan.image_encoder) > 1 or first.startswith(("local-dir:", "hf-hub:"))
    return OpenClip(*plan.image_encoder).images if zoo else PictureEncoder(first)


def text_encoder(plan: Transfer) -> Callable[[Corpus], Features | inputs.Inputs]:
    """What makes features of texts: vectors, tokens too where a method needs them, or token ids where blocks are trained."""
    if plan.blocks:
        return partial(inputs.texts, tokenise=PretrainedText(plan.text_encoder).tokenise)
    tokens = bool(WITH_WORDS & set(plan.methods or METHODS))
    return partial(encode, encoder=SentenceEncoder(plan.text_encoder, tokens=tokens))


def encoded(work: Work, aligner: Aligner, translated: bool = False) -> tuple[Corpus, dict[str, Features]]:
    """What is asked, and where an aligner places it; with `translated`, texts are the English translations of what is asked."""
    asked, texts = work.task.asked, work.queries if translated else work.task.features["text"]
    kept, features = asked.select((asked.rows.modality == "image") | asked.rows.id.isin(texts.ids)), {}
    for modality, table in (("image", work.task.features["image"]), ("text", texts)):
        ids = kept.where_rows(modality=modality).ids
        features[modality] = Features(ids, getattr(aligner, f"encode_{modality}")(type(table)(ids, table.take(ids))))
    return kept, features


def placed(work: Work, aligner: Aligner, translated: bool = False) -> pd.DataFrame:
    """The scores of what is `encoded`."""
    kept, features = encoded(work, aligner, translated)
    fixed = Aligner(*(Fixed(table.width) for table in features.values()))
    return score(fixed, kept, features, Protocol(translate_test=translated))


def contrastive(work: Work, recipe: Recipe, folder: Path, over: str) -> pd.DataFrame:
    """Pictures with English, and besides `over`: "image" with translations as if they were captions, or English with them."""
    pairs = work.told(folder, f"image-{PIVOT}", f"{over}-{work.task.targets[0]}")
    return placed(work, fit(recipe, work.task.features, pairs, folder)[0])


def recorded(work: Work, recipe, make: Callable[[Path], Aligner]) -> Aligner:
    """What two methods share: an aligner, recorded."""

    def fill(folder: Path) -> None:
        make(folder).save(folder)

    return Aligner.load(records.get_or_run(recipe, fill, work.keys, work.root, __name__).folder)


def teacher(work: Work, recipe: Recipe) -> Aligner:
    """An aligner of pictures and English alone."""
    recipe = replace(recipe, name="teacher", terms=clip().terms)
    return recorded(work, recipe, lambda at: fit(recipe, work.task.features, work.told(at, f"image-{PIVOT}"), at)[0])


def m_clip(work: Work, recipe: Recipe, folder: Path) -> pd.DataFrame:
    """`baselines.m_clip`: translations drawn to where the teacher has the English captions, pictures staying where they are."""
    master, task = teacher(work, recipe), work.task
    work.told(folder, f"image-{PIVOT}", f"{PIVOT}-{task.targets[0]}")
    student, features = distilled(task, recipe, master, to_teacher(task, targets=True, pivot=False), folder)
    return placed(replace(work, task=replace(task, features=features)), student)


def translate_test(work: Work, recipe: Recipe, folder: Path) -> pd.DataFrame:
    """What is asked is translated into English by a machine, and the teacher is asked that."""
    if not work.queries:
        raise NotApplicable(UNTRANSLATED)
    work.told(folder, f"image-{PIVOT}")
    return placed(work, teacher(work, recipe), translated=True)


def of_nrccr(work: Work, settings: nrccr.Settings, folder: Path, ensemble: bool) -> pd.DataFrame:
    """NRCCR: scored together with translate-test, as it is published, or without."""
    if ensemble and not work.queries:
        raise NotApplicable(UNTRANSLATED)
    work = work.words
    rows, pairs = nrccr.samples(work.task.pairs, work.task.targets[0]), work.task.pairs
    used = pairs.rows.left.isin(np.ravel(rows)) & pairs.rows.right.isin(np.ravel(rows))
    told(pairs.select(used), work.task.corpus, work.task.targets[0], folder)
    aligner = recorded(work, settings, lambda inner: nrccr.fit(settings, work.task.features, rows, work.towers, folder=inner)[0])
    if not ensemble:
        return placed(work, aligner)
    kept, back = encoded(work, aligner, translated=True)
    return nrccr.score_ensemble(kept, *encoded(work, aligner)[1].values(), back["text"], settings.traps)


def of_cl2cm(work: Work, recipe: Recipe, folder: Path) -> pd.DataFrame:
    """CL2CM, a reconstruction: a teacher of English and its translations, whose similarities a student of pictures repeats.

    What is distilled goes to pictures and target texts alone, by the relations of its recipe.
    """
    work = work.words
    task, recipe = work.task, replace(recipe, towers=work.towers)
    master = cl2cm.teacher(recipe, task.features["text"], task.parallel, folder / "teacher")
    guide = cl2cm.knowledge(master, task.features["text"], task.pictured)
    pairs = work.told(folder, f"image-{PIVOT}", f"image-{task.targets[0]}", f"{PIVOT}-{task.targets[0]}")
    pairs = pairs.select(pairs.rows.source.str.startswith("image-"))
    return placed(work, cl2cm.student(recipe, task.features, pairs, guide, folder))


METHODS: dict[str, tuple[Callable[[Work, object, Path], pd.DataFrame], object]] = {
    "pseudo-pairs": (partial(contrastive, over="image"), clip(name="pseudo-pairs")),
    "pivot": (partial(contrastive, over=PIVOT), clip(name="pivot")),
    "M-CLIP": (m_clip, clip(name="M-CLIP", **DISTIL)),
    "translate-test": (translate_test, clip(name="translate-test")),
    "CL2CM": (of_cl2cm, replace(cl2cm.METHODS["CL2CM"][1], batch_pairs=128, relations={f"image-{PIVOT}": {"info_nce": 1.0}})),
    "NRCCR": (partial(of_nrccr, ensemble=True), nrccr.Settings()),
    "NRCCR, no ensemble": (partial(of_nrccr, ensemble=False), nrccr.Settings()),
}
WITH_WORDS = {"CL2CM", "NRCCR", "NRCCR, no ensemble"}


def run(plan: Transfer) -> tuple[dict[str, list[pd.DataFrame]], dict[str, str]]:
    """The scores of each method, one table a seed, and why a method has none; each recorded, so that a second call goes on."""
    work, found, lacking = prepared(plan), {}, {}
    for name, seed in product(plan.methods or METHODS, range(max(1, plan.seeds))):
        method, recipe = METHODS[name]
        changes = {"seed": seed} | ({"epochs": plan.epochs} if plan.epochs else {})
        if isinstance(recipe, nrccr.Settings):
            changes["trained"] = plan.blocks or "all"  # all of what comes after frozen tokens
        elif plan.blocks:
            changes |= {"towers": work.towers, "train_towers": plan.blocks, "tower_learning_rate": 1e-4, "batch_pairs": 128}
        recipe = replace(recipe, **changes)

        def make(folder: Path, method=method, recipe=recipe) -> None:
            method(work, recipe, folder).to_parquet(folder / "scores.parquet")

        try:
            record = records.get_or_run(recipe, make, [name, *work.keys], plan.folder, __name__)
            found.setdefault(name, []).append(record.scores)
            how = f"{record.recipe.get('batch') or record.recipe['batch_pairs']} a batch, {recipe.epochs} epochs, {plan.trained}"
            how += ", tokens and frames one by one" if name in WITH_WORDS else ", a vector a text and a video"
            print(f"{name}, seed {seed}: {how}, {record.environment['seconds']:.0f} s, {record.folder}")
        except NotApplicable as reason:
            lacking[name] = str(reason)
    return found, lacking


def show(plan: Transfer) -> None:
    """Run a plan and print its figures beside the published ones; write them as CSV, with the tests, into its folder."""
    found, lacking = run(plan)
    if not found:
        raise NotApplicable("; ".join(f"{name}: {why}" for name, why in lacking.items()))
    table, tests = figures(found)
    gallery = int(next(iter(found.values()))[0].query("direction == 'text→image'")["size"].max())
    here = {"version": plan.version or "task1" * (plan.name == "multi30k"), "image": plan.image, "gallery": gallery}
    table = beside(table, published(plan.name, plan.target), here, f"; {plan.trained} here; last epoch, no validation stop")
    for name, one in (("figures", table), ("tests", tests)):
        one.to_csv(plan.folder / f"{name}.csv", index=False)
    print(f"\n{plan.name}, {plan.target}, in per cent; in figures.csv and tests.csv of {plan.folder} too\n\n{listed(table)}\n")
    print(*(f"{name}: n/a, {why}" for name, why in lacking.items()), sep="\n")
    print(*(f"protocol of {name}: {report.protocol(pd.concat(of))}" for name, of in found.items()), sep="\n")
    print(f"\nSumR, every two methods, paired over pictures; p_holm is corrected for all of them\n\n{listed(tests)}")
    print(f"\npublished on this set and target\n\n{listed(published(plan.name, plan.target))}")
