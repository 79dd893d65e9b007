"""Positives from one language alone, and which pairs to draw more often.

Dropout needs nothing here: encoded twice under dropout a text is its own positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import regex
from jaxtyping import Float

from xmalign_lab import similarity
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, normalise
from xmalign_lab.encoders.features import Features


def span_deletion(corpus: Corpus, lang: str, share: float = 0.2, seed: int = 0) -> tuple[Corpus, Pairs]:
    """Each text of `lang` beside itself without one span of `share` of its graphemes: `(new rows only, original–new pairs)`.

    Graphemes, Unicode's \\X, so that no cluster is cut: a vowel sign alone is no Sinhala letter. At least one goes and one
    stays; texts of a single one are left out. New ids end in `~cut<seed>`; group, family and the rest are the original's.
    Raises `ValueError` for a share outside (0, 1), `CorpusError` if the language has no text.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), not {share}")
    rng, shorter = np.random.default_rng([seed, *lang.encode()]), {}
    rows = corpus.where_rows(modality="text", lang=lang).rows
    for row_id, text in zip(rows.id, rows.text, strict=True):
        graphemes = regex.findall(r"\X", text)
        if len(graphemes) > 1:
            span = int(np.clip(round(share * len(graphemes)), 1, len(graphemes) - 1))
            start = rng.integers(len(graphemes) - span + 1)
            shorter[row_id] = "".join(graphemes[:start] + graphemes[start + span :])
    return _beside(corpus, shorter, f"cut{seed}", lang)


def back_translated(corpus: Corpus, table: Mapping[str, str], lang: str) -> tuple[Corpus, Pairs]:
    """Texts of `lang` beside their translation into another language and back, `{id: text}` in `table`; as `span_deletion`.

    New ids end in `~back`; one that came back unchanged teaches nothing and is left out. `CorpusError` for an id that is no
    text of `lang`.
    """
    known = set(corpus.where_rows(modality="text", lang=lang).ids)
    if unknown := [row_id for row_id in table if row_id not in known]:
        raise CorpusError(f"{corpus.name}: back-translation of {unknown[0]!r}, which is no text in {lang!r}")
    return _beside(corpus, table, "back", lang)


def _beside(corpus: Corpus, texts: Mapping[str, str], mark: str, lang: str) -> tuple[Corpus, Pairs]:
    rows = corpus.rows[corpus.rows.id.isin(texts)]
    new = rows.assign(text=[normalise(texts[row_id]) for row_id in rows.id])
    changed = ((new.text != "") & (new.text != rows.text.map(normalise))).to_numpy()
    if not changed.any():
        raise CorpusError(f"{corpus.name}: no text in {lang!r} was changed; nothing to pair")
    originals, new = rows.id[changed], new[changed].assign(id=rows.id[changed] + f"~{mark}")
    pairs = pd.DataFrame({"left": originals.to_numpy(), "right": new.id.to_numpy(), "source": f"{lang}-{lang}"})
    return replace(corpus, rows=new), Pairs(pairs)


def hardness_weights(pairs: Pairs, vectors: Features, temperature: float = 0.1, least: float = 0.05) -> Float[np.ndarray, " n"]:
    """Sampling weights (n,) in [`least`, 1] that favour pairs whose nearest wrong neighbour is near.

    w = least + (1 - least) exp((h - max h) / temperature), where h is the largest cosine of the pair's left row to a right
    row of its source that it is not paired with, -1 if there is none, and the maximum is over the source. No pair is lost.
    Raises `ValueError` for a temperature that is not positive, `CorpusError` for an id without vector.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    weights = np.ones(len(pairs))
    for _, rows in pairs.rows.groupby("source"):
        (left, of_left), (right, of_right) = (np.unique(rows[s].to_numpy(object), return_inverse=True) for s in ("left", "right"))
        scores, found = similarity.top_k(
            *(similarity.unit(vectors.take(ids)) for ids in (left, right)), int(np.bincount(of_left).max()) + 1
        )
        partner = np.isin(np.arange(len(left))[:, None] * len(right) + found, of_left * len(right) + of_right)
        hardest = np.where(partner, -1, scores).max(1)
        weights[rows.index] = least + (1 - least) * np.exp((hardest - hardest.max()) / temperature)[of_left]
    return weights
