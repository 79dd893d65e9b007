"""What leaks in a table of one's own: near-copies across splits, one meaning in two groups, a family that a split divides.

Near-copies of pictures by difference hash (Krawetz, "Kind of Like That", 2013): 8 × 8 signs of the horizontal gradient of
a grey 9 × 8 thumbnail, compared by Hamming distance; the thumbnail's colours must agree too. It sees scaling,
recompression and small retouches, not crops or mirror images; and it takes pictures that differ only in fine detail, such
as flags with another emblem, for copies: look at what it names. Near-copies of texts by Jaccard distance of character
trigrams within a language.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from xmalign_lab.corpus import Corpus, normalise

COLUMNS = ("leak", "a", "b", "split_a", "split_b", "distance", "what")
COLOUR = 0.05  # mean difference of the thumbnails, of 1


def check_table(corpus: Corpus, image_distance: int = 4, text_distance: float = 0.2, say=print) -> pd.DataFrame:
    """A table of leaks, one row each: `leak, a, b, split_a, split_b, distance, what`; `a` and `b` are row ids.

    Pictures at most `image_distance` of 64 bits apart, and texts at a Jaccard distance of at most `text_distance`, are
    near-copies; they leak between different splits, or, while no row has a split, between different families, which a
    later split may part. `say` takes a verdict of one line. Pictures that cannot be read raise `CorpusError`.
    """
    rows = corpus.rows
    side = rows.split if (rows.split != "").any() else rows.family
    found = [
        *_divided(rows),
        *_two_groups(rows),
        *_pictures(corpus, side, image_distance),
        *_texts(rows, side, text_distance),
    ]
    table = pd.DataFrame(found, columns=COLUMNS)
    compared = "between splits" if (rows.split != "").any() else "between families (no row has a split yet)"
    counts = ", ".join(f"{count:,} × {leak}" for leak, count in table.leak.value_counts().items())
    say(f"{corpus.where or corpus.name}: {len(rows):,} rows compared {compared}: {counts or 'nothing leaks'}")
    return table


def difference_hash(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Difference hash, (8,) uint8, and the colours of an 8 × 8 thumbnail, (192,) in [0, 1]; transparent counts as white."""
    flat = Image.new("RGBA", picture.size, "white")
    flat.alpha_composite(picture.convert("RGBA"))
    grey = np.asarray(flat.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    colours = np.asarray(flat.convert("RGB").resize((8, 8), Image.Resampling.BOX), np.float32) / 255
    return np.packbits(grey[:, 1:] > grey[:, :-1], axis=1).ravel(), colours.ravel()


def _finding(leak: str, a, b, distance: float, what: str) -> tuple:
    return leak, a.id, b.id, a.split, b.split, distance, what


def _divided(rows: pd.DataFrame):
    """Families with rows in more than one split: the first row of each of two splits."""
    for family, members in rows[rows.split != ""].groupby("family", sort=True):
        firsts = members.drop_duplicates("split")
        if len(firsts) > 1:
            yield _finding("family divided", firsts.iloc[0], firsts.iloc[1], 0.0, f"family {family!r}")


def _two_groups(rows: pd.DataFrame):
    """One text of one language in two groups: each counts the other as wrong."""
    texts = rows[rows.modality == "text"]
    keys = texts.text.map(lambda text: normalise(text).casefold())
    for (lang, text), members in texts.groupby([texts.lang, keys], sort=True):
        a, *others = members.drop_duplicates("group").itertuples()
        for b in others:
            yield _finding("one meaning in two groups", a, b, 0.0, f"{lang} {text!r}: groups {a.group!r}, {b.group!r}")


def _pictures(corpus: Corpus, side: pd.Series, limit: int, block: int = 512):
    from tqdm.auto import tqdm

    images = corpus.rows[corpus.rows.modality == "image"]
    sides = pd.factorize(side[images.index])[0]
    seen = [difference_hash(corpus.picture(row)) for row in tqdm(images.id, desc="hashing pictures", disable=None)]
    hashes = np.array([bits for bits, _ in seen], np.uint8).reshape(-1, 8)
    for start in range(0, len(images), block):
        apart = sides[start : start + block, None] != sides[None, :]
        distance = np.bitwise_count(hashes[start : start + block, None] ^ hashes[None]).sum(2, dtype=np.int64)
        for i, j in np.argwhere(apart & (distance <= limit)):
            first = start + i
            # plain pictures all hash alike, so the colours have to agree too
            if first < j and np.abs(seen[first][1] - seen[j][1]).mean() <= COLOUR:
                a, b = images.iloc[first], images.iloc[j]
                yield _finding("near-copy of a picture", a, b, float(distance[i, j]), f"{a.image} – {b.image}")


def _texts(rows: pd.DataFrame, side: pd.Series, limit: float, block: int = 512):
    from sklearn.feature_extraction.text import CountVectorizer

    for _, texts in rows[rows.modality == "text"].groupby("lang", sort=True):
        tidy = texts.text.map(lambda text: f" {normalise(text).casefold()} ")
        counted = CountVectorizer(analyzer="char", ngram_range=(3, 3), binary=True, lowercase=False, dtype=np.int32)
        grams = counted.fit_transform(tidy)
        size, sides = np.asarray(grams.sum(1)).ravel(), pd.factorize(side[texts.index])[0]
        for start in range(0, len(texts), block):
            shared = (grams[start : start + block] @ grams.T).tocoo()
            i, j = shared.row + start, shared.col
            distance = 1 - shared.data / (size[i] + size[j] - shared.data)
            said = tidy.to_numpy()  # the same text again is 'one meaning in two groups', or a divided family
            near = (i < j) & (distance <= limit) & (sides[i] != sides[j]) & (said[i] != said[j])
            for a, b, far in zip(i[near], j[near], distance[near], strict=True):
                first, second = texts.iloc[a], texts.iloc[b]
                yield _finding("near-copy of a text", first, second, float(far), f"{first.text!r} – {second.text!r}")
