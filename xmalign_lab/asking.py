"""A model asked with any text or picture: what it finds, how far that stands out, and which words and letters drove it.

Nothing here trains or measures: for numbers there are records. An answer says what it is worth by comparing itself with the
answers to the corpus's own names, whose right pictures are known.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import regex
from PIL import Image, ImageOps
from scipy.stats import rankdata

from xmalign_lab import languages, similarity
from xmalign_lab.corpus import Corpus, CorpusError, normalise
from xmalign_lab.encoders import inputs
from xmalign_lab.encoders.checkpoint import loading
from xmalign_lab.encoders.classic import GRAPHEME, ClassicImage, ClassicText, bucket, words
from xmalign_lab.encoders.features import Encoder
from xmalign_lab.model import Aligner, TowerHead

LONGEST = 200  # characters of a question that are read: longer than any name, about as long as a caption
PIXELS = 50_000_000  # of a picture that is opened; a phone's have 12 to 50 million
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
TRIED = 2000  # of the corpus's own questions, at most, with which an answer is compared
LEAST = 20  # like questions, of which a share is told; a language with fewer is not told apart
WORD = regex.compile(r"\S+")
HELD = "picture"  # the id of a picture that is no row


@dataclass(frozen=True, eq=False)
class Answer:
    """What one question found, and what that is worth.

    `hits`: `rank, id, group, lang, text, score, correct, split`, best first: the k best pictures, or the k best captions of each
    language (ranks are among the captions of that language), and after them the right one where it is known and lower.
    `ranks` has every rank by id; ties are the mean rank. `z` is how many standard deviations the best score lies above the
    mean of all. It is compared with the corpus's own questions that have a right answer in the gallery, but for those of the
    group that is asked: `less` is the share whose best stands out less, `sure` the share with a right answer first among those
    that stand out about as much. Both are counted within the language `among`, or where that is "" over all. They are NaN
    where there are none; `sure` also where none stands out so much or so little, and where the question is known and no
    answer can be right. `seen` of `groups` groups of letters occurred in training (0 of 0: it is not known). `said` tells what
    is wrong with the question; then `hits` may be empty.
    """

    text: str
    lang: str
    hits: pd.DataFrame
    ranks: pd.Series
    z: float = np.nan
    less: float = np.nan
    sure: float = np.nan
    among: str = ""
    seen: int = 0
    groups: int = 0
    said: str = ""

    @property
    def asked(self) -> str:
        """What such questions are called: names or pictures."""
        return "pictures" if "lang" in self.hits and self.hits.lang.any() else "names"

    @property
    def _compared(self) -> str:
        """With which questions this one was compared."""
        if self.asked == "pictures":
            return "the corpus's own pictures"
        own = f"{languages.info(self.among).name} names" if self.among else "names, all languages together,"
        return f"the corpus's own {own}"

    @property
    def noise(self) -> bool:
        """Whether it is known that training showed nothing of the question."""
        return self.groups > 0 and self.seen == 0

    @property
    def words(self) -> str:
        """What the answer is worth, in plain words."""
        if self.hits.empty:
            return self.said
        told = [self.said] if self.said else []
        if self.noise:
            noise = f"None of its {self.groups} letter groups was seen in training: the ranking is noise."
            return " ".join([*told, noise])
        if self.seen < self.groups / 2:
            told.append(f"Only {self.seen} of its {self.groups} letter groups were seen in training: doubt the ranking.")
        level = int((self.hits.score > self.hits.score.max() - similarity.TIE).sum())
        if level > 1 and self.asked == "names":
            told.append(f"The first {level} have the same score.")
        told.append(f"The best score stands {self.z:.1f} standard deviations above the mean of all {len(self.ranks):,}.")
        if self.less == self.less:
            told.append(f"{self.less:.0%} of {self._compared} stand out less.")
        if self.sure == self.sure:
            there = "whose picture is among these" if self.asked == "names" else "whose captions are among these"
            like = f"Of {self.asked} {there} and that stand out about as much"
            told.append(f"{like}, {self.sure:.0%} have a right answer first.")
        if self.less < 0.05:
            told.append("Scores so close to each other say little.")
        return " ".join(told)


def occlusion(score: Callable[[list[str]], np.ndarray], text: str) -> pd.DataFrame:
    """What each word and each grapheme of `text` adds to its score: the score of all of it, less the score without that part.

    `score` takes n texts and returns (n,). Columns `kind` ("word" or "grapheme"), `part`, `start, end` (in the text after
    `normalise`), `without`, `share`. Words are runs between spaces, graphemes those of UAX 29, so that a vowel sign goes with its
    consonant. Where nothing is left the score is 0. The shares of a score that adds up over words are its terms;
    those of a cosine need not add up. Zeiler and Fergus 2014 (arXiv 1311.2901) occlude parts of pictures likewise.
    """
    text = normalise(text)
    parts = [("word", *found.span()) for found in WORD.finditer(text)]
    parts += [("grapheme", *found.span()) for _, start, end in parts for found in GRAPHEME.finditer(text, start, end)]
    left = [normalise(text[:start] + text[end:]) for _, start, end in parts]
    asked = [one for one in dict.fromkeys([text, *left]) if one]  # "aa" without either letter is one text
    scores = {"": 0.0} | (dict(zip(asked, map(float, score(asked)), strict=True)) if asked else {})
    table = pd.DataFrame(parts, columns=["kind", "start", "end"])
    table.insert(1, "part", [text[start:end] for _, start, end in parts])
    table["without"] = np.array([scores[one] for one in left], float)
    return table.assign(share=scores[text] - table.without)


def cut(text: str, longest: int) -> str:
    """The start of a text: whole graphemes, together at most `longest` characters; of a first one that is longer, its start."""
    if len(text) <= longest:
        return text
    ends = [found.end() for found in GRAPHEME.finditer(text, 0, longest + 1)]  # one more tells whether the last is whole
    return text[: max((end for end in ends if end <= longest), default=longest)]


def opened(image: Image.Image | bytes | str | Path) -> Image.Image:
    """A picture from a file or its bytes, upright, RGBA; `CorpusError` for what is broken, no picture, or over `PIXELS`."""
    made, from_file = isinstance(image, Image.Image), isinstance(image, str | Path)
    name = str(image) if from_file else "the picture"
    with ExitStack() as stack, loading(name, f"; pictures are {', '.join(FORMATS)}"):
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its limit is not ours
        file = None if made else stack.enter_context(open(image, "rb") if from_file else io.BytesIO(image))
        picture = image if made else Image.open(file, formats=FORMATS)
        width, height = picture.size
        if width * height > PIXELS:
            raise CorpusError(f"{name}: {width:,} × {height:,} pixels, of which at most {PIXELS:,} are read; make it smaller")
        return ImageOps.exif_transpose(picture).convert("RGBA")


class Asked:
    """An aligner that answers: with its encoders, and a corpus whose pictures and captions are encoded once.

    `corpus` is restricted to the rows whose split is `part`, where it has splits, and to one `source` of pictures (by default the
    first); the texts of its training split (with `part="test"` validation's too) say which groups of letters were seen.
    `features` are the corpus's `{"image": …, "text": …}`, without which its rows are encoded here. `encoders` make features of
    what is asked: by default the towers that the aligner was trained with, or else `ClassicText` and `ClassicImage`.
    Raises `CorpusError` for a part or a source that is not there, and `ValueError` if an encoder makes something else of a row
    than its features.
    """

    def __init__(
        self, aligner: Aligner, corpus: Corpus, features: Mapping | None = None, part: str = "test", source: str | None = None,
        encoders: Mapping[str, Encoder] | None = None,
    ):  # fmt: skip
        self.aligner = aligner
        towers = {modality: None for modality, head in aligner.heads.items() if isinstance(head, TowerHead)}
        self._encoders = {"image": ClassicImage(), "text": ClassicText()} | towers | dict(encoders or {})
        asked = corpus.where_rows(split=part) if (corpus.rows.split != "").any() else corpus
        pictures, texts = asked.where_rows(modality="image"), asked.where_rows(modality="text", kind=["name", "caption"])
        self.source = source if source is not None or pictures.rows.empty else pictures.rows.source.min()
        self.pictures, self.captions = pictures.where_rows(source=self.source or ""), texts
        if self.pictures.rows.empty or texts.rows.empty:
            there = f"splits {sorted(set(corpus.rows.split))}, sources of pictures {sorted(set(pictures.rows.source))}"
            raise CorpusError(f"{corpus.name}: no pictures or no captions of {source!r} in split {part!r}; it has {there}")
        self.part, self.languages = part if len(asked) < len(corpus) else "", texts.languages
        self.group, self._place = asked.lookup("group"), {row_id: i for i, row_id in enumerate(self.pictures.rows.id)}
        self.vectors = {side: self._all(side, rows, features) for side, rows in (("image", self.pictures), ("text", texts))}
        self._named = corpus.where_rows(modality="text", kind=["name", "caption"]).rows[["group", "lang", "text"]]
        # as study.training_part: what may have been trained on when `part` is asked
        learned = corpus.where_rows(modality="text", split=["train", "validation"] if part == "test" else "train")
        own = self._encoders["text"]
        self._grams = own if isinstance(own, ClassicText) else ClassicText()  # a yardstick for any other encoder too
        known = {word for text in learned.rows.text for word in words(text)}
        self._seen = {gram for word in known for gram in self._grams.grams(word)}
        self._prove("text", texts.rows.text.tolist()[:1])

    def ask(self, text: str, lang: str = "", k: int = 6) -> Answer:
        """The `k` best pictures for a text. Nothing in a text is an error: what is wrong with it is said in the answer.

        Right are the pictures of the groups that have this text as a name or caption, in `lang` where it is given.
        """
        whole = normalise(text.encode("utf-8", "ignore").decode())
        text, said = cut(whole, LONGEST).rstrip(), ""
        if len(whole) > LONGEST:
            said = f"Only the first {len(text)} of its {len(whole):,} characters are read."
        letters = any(map(str.isalnum, text))
        vector = self.encoded([text])[0] if letters else np.zeros(1)
        if not vector.any():
            told = (
                "The encoder can read nothing in it."
                if letters
                else "There is no letter in it: type a word."
                if text
                else "Type a word."
            )
            return Answer(text, lang, pd.DataFrame(), pd.Series(dtype=float), said=told)
        named = self._named[(self._folded == text.casefold()) & ((self._named.lang == lang) | (not lang))]
        correct = self.pictures.rows.group.isin(named.group).to_numpy()
        hits, ranks = _ranked(self.pictures, self.vectors["image"] @ vector, correct, k)
        grams = dict.fromkeys(self._grams.grams(text)) if self._seen else ()
        seen, spoken = sum(map(self._was_seen, grams)), named.lang.unique()
        among = lang or (spoken[0] if len(spoken) == 1 else "")
        worth = self._worth("text", vector, named.group, among, possible=correct.any() or named.empty)
        return Answer(text, lang or next(iter(spoken), ""), hits, ranks, *worth, seen, len(grams), said)

    def show(self, image, k: int = 4) -> Answer:
        """The `k` best captions of each language for a picture: the id of one of `pictures`, a file, its bytes, a PIL image.

        Raises `CorpusError` for what is none of these, or cannot be read.
        """
        known = isinstance(image, str) and image in self._place
        vector = self.vectors["image"][self._place[image]] if known else self._outside(image)
        correct = (self.captions.rows.group == (self.group[image] if known else None)).to_numpy()
        scores, parts = self.vectors["text"] @ vector, []
        for lang in self.languages:
            of = (self.captions.rows.lang == lang).to_numpy()
            parts.append(_ranked(self.captions.select(of), scores[of], correct[of], k))
        hits, ranks = (pd.concat(side) for side in zip(*parts, strict=True))
        worth = self._worth("image", vector, [self.group[image]] if known else [], possible=correct.any() or not known)
        return Answer(image if known else HELD, "", hits.reset_index(drop=True), ranks, *worth)

    def why(self, text: str, hit: str) -> pd.DataFrame:
        """`occlusion` of the score of the picture `hit`, an id; a text that the encoder cannot read scores 0."""
        if hit not in self._place:
            raise CorpusError(
                f"no picture here has the id {hit!r}; there are {len(self._place):,}, first {self.pictures.ids[0]!r}"
            )
        goal = self.vectors["image"][self._place[hit]]
        return occlusion(lambda texts: self.encoded(texts) @ goal, text)

    def encoded(self, texts: list[str]) -> np.ndarray:
        """The aligned vectors of texts, (n, dim); zeros for one that the encoder cannot read."""
        try:
            return self._vectors("text", texts)
        except CorpusError:
            if len(texts) > 1:
                return np.concatenate([self.encoded([text]) for text in texts])
            return np.zeros_like(self.vectors["text"][:1])

    @cached_property
    def tried(self) -> pd.DataFrame:
        """The corpus's own questions, at most `TRIED` a side: `modality, id, group, lang, z, right` (a right answer first)."""
        parts = []
        for modality, asked, found in (("text", self.captions, self.pictures), ("image", self.pictures, self.captions)):
            there = asked.rows.group.isin(found.rows.group).to_numpy()
            of = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(there))[:TRIED])
            right, gallery = found.rows.group.to_numpy(), self.vectors["image" if modality == "text" else "text"]
            for rows, scores in similarity.blocks(self.vectors[modality][of], gallery):
                table = asked.rows.iloc[of[rows]][["modality", "id", "group", "lang"]]
                first = right[scores.argmax(1)] == table.group.to_numpy()
                parts.append(table.assign(z=_standing(scores), right=first))
        return pd.concat(parts, ignore_index=True)

    def _worth(self, modality: str, vector: np.ndarray, groups, lang: str = "", possible: bool = True) -> tuple:
        """`z, less, sure, among` of an `Answer`; like it are the tenth of the corpus's own whose `z` is nearest."""
        gallery = self.vectors["image" if modality == "text" else "text"]
        z, own = float(_standing(gallery[None] @ vector)[0]), self.tried[self.tried.modality == modality]
        own = own[~own.group.isin(groups)]
        among = lang if (own.lang == lang).sum() >= LEAST else ""
        own = own[(own.lang == among) | (not among)]
        if own.empty:
            return z, np.nan, np.nan, among
        near = np.argsort(np.abs(own.z.to_numpy() - z), kind="stable")[: max(LEAST, len(own) // 10)]
        told = possible and own.z.min() <= z <= own.z.max()
        return z, float((own.z < z).mean()), float(own.right.to_numpy()[near].mean()) if told else np.nan, among

    def _was_seen(self, gram: str) -> bool:
        """In a training text, and often enough there for the head to have kept its column."""
        place = getattr(getattr(self.aligner.heads["text"], "input", None), "place", None)
        return gram in self._seen and (place is None or int(place[bucket(gram, self._grams.buckets)]) >= 0)

    @cached_property
    def _folded(self) -> pd.Series:
        return self._named.text.map(normalise).map(str.casefold)

    def _all(self, modality: str, rows: Corpus, features: Mapping | None) -> np.ndarray:
        if not features:
            return self._vectors(modality, rows, progress=True)
        made = features[modality]
        return self._aligned(modality, type(made)(rows.ids, made.take(rows.ids)))

    def _vectors(self, modality: str, rows: Corpus | list[str], progress: bool = False) -> np.ndarray:
        if (encoder := self._encoders[modality]) is not None:
            return self._aligned(modality, encoder.encode(rows, progress=progress))
        tower = self.aligner.heads[modality].tower
        texts = modality == "text"
        return self._aligned(
            modality, inputs.texts(rows, tower.tokenise) if texts else inputs.pictures(rows, tower.settings["size"])
        )

    def _aligned(self, modality: str, features) -> np.ndarray:
        return self.aligner.encode_text(features) if modality == "text" else self.aligner.encode_image(features)

    def _prove(self, modality: str, rows: Corpus | list[str]) -> None:
        """That the encoder makes of the first row what its features are."""
        told = f"the encoder of what is asked is not the one behind the {modality} features: encoders={{{modality!r}: …}}"
        try:
            cosine = float(self._vectors(modality, rows)[0] @ self.vectors[modality][0])
        except ValueError as error:
            raise ValueError(f"{told} ({error})") from error
        if not cosine > 0.999:
            raise ValueError(f"{told} (of the first row it makes a vector with cosine {cosine:.2f} to its own)")

    @cached_property
    def _proved(self) -> bool:
        """Asked late: describing a picture loads a library."""
        self._prove("image", self.pictures.select(np.arange(len(self.pictures)) == 0))
        return True

    def _outside(self, image) -> np.ndarray:
        picture, row = opened(image), pd.DataFrame({"id": [HELD], "group": [HELD], "image": [HELD]})
        assert self._proved
        return self._vectors("image", Corpus(row, open_image=lambda _: picture))[0]


def _standing(scores: np.ndarray) -> np.ndarray:
    """How many standard deviations the best of each row of scores (n, m) lies above their mean, (n,); 0 where all are equal."""
    spread = scores.std(1)
    return (scores.max(1) - scores.mean(1)) / np.where(spread > similarity.TIE, spread, np.inf)


def _ranked(gallery: Corpus, scores: np.ndarray, correct: np.ndarray, k: int) -> tuple[pd.DataFrame, pd.Series]:
    """The `k` best rows, with the best right one after them if it is none of these; and the rank of every row by id."""
    ranks = rankdata(-np.rint(scores.astype(float) / similarity.TIE))
    order = np.argsort(ranks, kind="stable")
    right = [i for i in order[k:] if correct[i]][:1] if not correct[order[:k]].any() else []
    best = np.r_[order[:k], right].astype(int)
    hits = gallery.rows[["id", "group", "lang", "text", "split"]].iloc[best].reset_index(drop=True)
    hits.insert(0, "rank", ranks[best])
    return hits.assign(score=scores[best], correct=correct[best]), pd.Series(ranks, gallery.rows.id)
