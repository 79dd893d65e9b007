"""Encoders without weights: HOG and colour for pictures, hashed n-grams for text. Deterministic, and any language."""

from __future__ import annotations

import os
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd
import regex
from PIL import Image
from scipy import sparse
from tqdm.auto import tqdm

from xmalign_lab.corpus import Corpus, CorpusError, normalise, read_image
from xmalign_lab.encoders.features import Features

SIZE = 64  # the side, in pixels, at which a picture is described


def rows_of(corpus: Corpus | Sequence[str], modality: str) -> pd.DataFrame:
    """The rows of one modality; `CorpusError` if there are none, or if files of pictures are missing, with how many.

    Queries typed by hand need no corpus: a list of n texts (or one text) is rows with the ids '0' to 'n-1' and no language.
    """
    if not isinstance(corpus, Corpus):
        texts = [corpus] if isinstance(corpus, str) else list(corpus)
        if modality != "text" or not texts or not all(isinstance(text, str) for text in texts):
            raise CorpusError(f"no {modality} rows in {str(corpus)[:60]!r}; give a Corpus or, for texts, a list of strings")
        return pd.DataFrame({"id": [str(row) for row in range(len(texts))], "text": texts, "lang": ""})
    rows = corpus.rows[corpus.rows.modality == modality]
    if rows.empty:
        raise CorpusError(f"{corpus.where or corpus.name}: no {modality} rows to encode")
    if modality == "image" and (corpus.open_image is read_image or getattr(corpus.open_image, "fingerprint", None) == ""):
        pictures = rows[rows.kind != "video"]  # of videos there are features
        gone = [row_id for row_id, path in zip(pictures.id, pictures.image, strict=True) if not os.path.exists(path)]
        try:
            _ = [opened(corpus, row_id) for row_id in gone[:1]]
        except CorpusError as error:
            raise CorpusError(f"{error} ({len(gone):,} of {len(pictures):,} pictures are missing)") from None
    return rows


def opened(corpus: Corpus, row_id: str) -> Image.Image:
    """`corpus.picture(row_id)`, whose error names the row beside the file."""
    try:
        return corpus.picture(row_id)
    except CorpusError as error:
        raise CorpusError(f"{corpus.where or corpus.name}, id {row_id!r}: {error}") from None


def pixels(picture: Image.Image, size: int = SIZE) -> np.ndarray:
    """A picture fitted into a square: (size, size, 4) float32 in [0, 1], RGB composited on white, and alpha.

    The aspect ratio is kept; what the picture does not fill is transparent.
    """
    picture = picture.convert("RGBA")
    if picture.size != (size, size):
        scale = size / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        fitted = Image.new("RGBA", (size, size), (0, 0, 0, 0))
        fitted.paste(picture.resize((width, height), Image.Resampling.LANCZOS), ((size - width) // 2, (size - height) // 2))
        picture = fitted
    values = np.asarray(picture, np.float32) / 255
    alpha = values[..., 3:]
    return np.concatenate([values[..., :3] * alpha + (1 - alpha), alpha], -1)


@dataclass(frozen=True)
class ClassicImage:
    """HOG, a coarse colour grid and a colour histogram: 1764 + 256 + 64 = 2084 numbers, of norm 1.

    Each of the three blocks is scaled to norm 1, times its weight, so that none drowns the others; the colour grid is
    centred on a fixed colour first (`CENTRE`), because most of a pictogram is white. No statistic of the data is used:
    a picture's vector depends on that picture alone. HOG: Dalal and Triggs 2005 (10.1109/CVPR.2005.177).
    """

    hog: float = 1.0
    grid: float = 1.0
    histogram: float = 0.5

    modality = "image"
    VERSION = 1
    CENTRE = (0.75, 0.0, 0.0, 0.5)  # L/100, a/100, b/100, alpha

    def spec(self) -> dict:
        libraries = {"scikit-image": version("scikit-image"), "pillow": version("pillow")}
        return {"encoder": "ClassicImage", "version": self.VERSION, **libraries, **asdict(self)}

    def describe(self, picture: Image.Image) -> np.ndarray:
        """The vector of one picture, (2084,) float32 of norm 1. Other sizes are fitted into 64 × 64 pixels."""
        from skimage.color import rgb2lab  # imported late: features read from the cache need no skimage
        from skimage.feature import hog

        values = pixels(picture)
        rgb, alpha = values[..., :3], values[..., 3:]
        edges = hog(rgb, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=-1)
        cells = np.concatenate([rgb2lab(rgb) / 100, alpha], -1).reshape(8, SIZE // 8, 8, SIZE // 8, 4).mean((1, 3))
        level = np.minimum((rgb * 4).astype(int), 3)
        opaque = (level @ (16, 4, 1))[alpha[..., 0] > 0.5]
        counts = np.sqrt(np.bincount(opaque, minlength=64) / max(1, len(opaque)))
        blocks = ((self.hog, edges), (self.grid, (cells - self.CENTRE).ravel()), (self.histogram, counts))
        vector = np.concatenate([weight * block / max(np.linalg.norm(block), 1e-9) for weight, block in blocks])
        return (vector / max(np.linalg.norm(vector), 1e-9)).astype(np.float32)

    def encode(self, corpus: Corpus, progress: bool = True) -> Features:
        """Features of the image rows; `CorpusError` with the id of a picture that cannot be read.

        In this process: two worker processes took longer than one over 7,572 pictures of 64 pixels.
        """
        rows = rows_of(corpus, self.modality)
        vectors = np.empty((len(rows), 1764 + 256 + 64), np.float32)
        for row, row_id in enumerate(tqdm(rows.id, desc="pictures", unit="picture", disable=not progress, delay=2)):
            vectors[row] = self.describe(opened(corpus, row_id))
        return Features(rows.id.to_numpy(), vectors, shown=list(rows.image))


APOSTROPHES = str.maketrans("’ʼ‘ʻ", "''''")
SIGN = r"(?:[\p{P}\p{S}--[']][\p{M}\p{Cf}]*)+"  # an emoji's selectors and joiners go with it
EDGE = regex.compile(f"^{SIGN}|{SIGN}$", regex.V1)
GRAPHEME = regex.compile(r"\X")


def words(text: str) -> list[str]:
    """The words of a text: runs between white space, without punctuation at their edges; NFC and case-folded.

    The apostrophes, which Hausa, Quechua and Swahili (*ng'ombe*) use as a letter, become one and are kept. Never
    `\\w`, which cuts Sinhala at its vowel signs. A sign on its own (`#`) stays, being all that the text says.
    """
    folded = normalise(normalise(text).casefold()).translate(APOSTROPHES)
    return [EDGE.sub("", run) or run for run in folded.split()]


def graphemes(word: str) -> list[str]:
    """What a reader calls letters: extended grapheme clusters (UAX 29), a vowel sign with its consonant."""
    return GRAPHEME.findall(word)


def bucket(gram: str, buckets: int) -> int:
    """A table row for a string, the same in every process and on every machine, which Python's `hash` is not."""
    return zlib.crc32(gram.encode()) % buckets


@dataclass(frozen=True)
class ClassicText:
    """Hashed n-grams and whole words, counted: sparse rows of norm 1 over `buckets` columns, shared by all languages.

    `characters` = (2, 5) takes all runs of 2 to 5 graphemes of `<word>`, marks counted, so that `<a` is a beginning and
    `a>` an end; None takes none. `words` adds each whole word as `[word]`. One table for all languages lets cognates,
    loans and names meet. `damping` takes the root of each count. After fastText's subwords: Bojanowski et al. 2017
    (arXiv 1607.04606).
    """

    characters: tuple[int, int] | None = (2, 5)
    words: bool = True
    buckets: int = 2**18
    damping: bool = False

    modality = "text"
    VERSION = 1

    def __post_init__(self):
        if self.characters is None and not self.words:
            raise ValueError("nothing to count: give `characters`, such as (2, 5), or words=True")
        if self.characters is not None and not 1 <= self.characters[0] <= self.characters[1]:
            raise ValueError(f"characters must be (shortest, longest) with 1 ≤ shortest ≤ longest, not {self.characters}")

    def spec(self) -> dict:
        unicode = {"unicode": unicodedata.unidata_version, "regex": version("regex")}  # both carry tables that change
        return {"encoder": "ClassicText", "version": self.VERSION, **unicode, **asdict(self)}

    def grams(self, text: str) -> list[str]:
        """What a text becomes, before hashing: `grams("Mbwa")` begins with `<m, mb, bw, wa, a>` and ends with `[mbwa]`."""
        return [gram for word in words(text) for gram in self._grams_of(word)]

    def _grams_of(self, word: str) -> list[str]:
        marked = ["<", *graphemes(word), ">"]
        shortest, longest = self.characters or (1, 0)
        found = [
            "".join(marked[start : start + n])
            for n in range(shortest, longest + 1)
            for start in range(len(marked) - n + 1)
            if n > 1 or 0 < start < len(marked) - 1  # a mark alone says nothing
        ]
        return found + [f"[{word}]"] if self.words else found

    def encode(self, corpus: Corpus | Sequence[str], progress: bool = True) -> Features:
        """Features of the text rows, or of a plain list of texts; `CorpusError` quotes one that is too short for any n-gram."""
        rows = rows_of(corpus, self.modality)
        of_word: dict[str, list[int]] = {}  # words recur, their n-grams need hashing once
        indices, counts, ends = [], [], [0]
        for text in tqdm(rows.text, desc="texts", unit="text", disable=not progress, delay=2):
            total: Counter[int] = Counter()
            for word in words(text):
                if word not in of_word:
                    of_word[word] = [bucket(gram, self.buckets) for gram in self._grams_of(word)]
                total.update(of_word[word])
            columns = sorted(total)
            indices += columns
            counts += [total[column] for column in columns]
            ends.append(len(indices))
        data = np.array(counts, np.float32)
        data = np.sqrt(data) if self.damping else data
        table = sparse.csr_matrix((data, np.array(indices, np.int32), np.array(ends)), shape=(len(rows), self.buckets))
        norms = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
        table.data /= np.repeat(np.maximum(norms, 1e-9), np.diff(ends)).astype(np.float32)
        return Features(rows.id.to_numpy(), table, shown=list(rows.text))
