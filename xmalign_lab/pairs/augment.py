"""Pairs that nobody gave: a text beside a changed copy of itself, words switched, captions translated; and which count more.

Each function returns `(new rows only, pairs)`; the pairs tell by their source where they come from. `through` carries them on
to pictures. Dropout needs nothing here: encoded twice under dropout a text is its own positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import regex
from jaxtyping import Float
from PIL import ImageOps

from xmalign_lab import similarity
from xmalign_lab.corpus import Corpus, CorpusError, Pairs, normalise
from xmalign_lab.encoders.classic import words
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs.mining import mine


def span_deletion(corpus: Corpus, lang: str, share: float = 0.2, seed: int = 0) -> tuple[Corpus, Pairs]:
    """Each text of `lang` beside itself without one span of `share` of its graphemes: `(new rows only, original–new pairs)`.

    Graphemes, Unicode's \\X, so that no cluster is cut: a vowel sign alone is no Sinhala letter. At least one goes and one
    stays; texts of a single one are left out. New ids end in `~cut<seed>`; group, family and the rest are the original's.
    Raises `ValueError` for a share outside (0, 1), `CorpusError` if the language has no text.
    """
    _check_share(share)
    rng, shorter = np.random.default_rng([seed, *lang.encode()]), {}
    for row_id, text in _texts(corpus, lang):
        graphemes = regex.findall(r"\X", text)
        if len(graphemes) > 1:
            span = int(np.clip(round(share * len(graphemes)), 1, len(graphemes) - 1))
            start = rng.integers(len(graphemes) - span + 1)
            shorter[row_id] = "".join(graphemes[:start] + graphemes[start + span :])
    return _beside(corpus, shorter, f"cut{seed}", f"{lang}-{lang}")


def translated(corpus: Corpus, table: Mapping[str, str], lang: str, target: str) -> tuple[Corpus, Pairs]:
    """Texts of `lang` beside their translation into `target` from a table `{id: text}`; as `span_deletion`.

    New ids end in `~<target>`, or in `~back` where `target` is `lang` and the table holds round trips. A translation that is the
    text itself teaches nothing and is left out, as is an empty one. `CorpusError` for an id that is no text of `lang`.
    """
    known = {row_id for row_id, _ in _texts(corpus, lang)}
    if unknown := [row_id for row_id in table if row_id not in known]:
        raise CorpusError(f"{corpus.name}: a translation of {unknown[0]!r}, which is no text in {lang!r}")
    return _beside(corpus, table, "back" if target == lang else target, f"{lang}-{target}", lang=target)


def back_translated(corpus: Corpus, table: Mapping[str, str], lang: str) -> tuple[Corpus, Pairs]:
    """`translated` with a table of texts of `lang` that went into another language and back."""
    return translated(corpus, table, lang, lang)


def code_switched(
    corpus: Corpus, known: Mapping[str, str], lang: str, target: str, share: float = 0.5, seed: int = 0
) -> tuple[Corpus, Pairs]:
    """Each text of `lang` beside itself with a word in `share` replaced by `known[word]` of `target`; as `span_deletion`.

    `known` must come from training families alone (`pairs.dictionary`); words as `encoders.classic.words` cuts them. A text
    of which nothing was replaced is left out. New ids end in `~<target>~<seed>`, the language is still `lang`, and the source
    is `<lang>-<lang>~<target>`. CoSDA-ML: Qin et al. 2020 (arXiv 2006.06402). Raises as `span_deletion`.
    """
    _check_share(share)
    rng, switched = np.random.default_rng([seed, *target.encode()]), {}
    for row_id, text in _texts(corpus, lang):
        found = words(text)
        chosen = rng.random(len(found)) < share
        if any(take and known.get(word, word) != word for word, take in zip(found, chosen, strict=True)):
            switched[row_id] = " ".join(known.get(word, word) if take else word for word, take in zip(found, chosen, strict=True))
    return _beside(corpus, switched, f"{target}~{seed}", f"{lang}-{lang}~{target}")


def masked_words(corpus: Corpus, lang: str, seed: int = 0) -> tuple[Corpus, Pairs]:
    """Each text of `lang` with two words or more beside one of its words, which it then lacks: the masked-word task.

    What masked language modelling (`losses.transfer`) is for towers with tokens, contrastive over vectors of whole texts: the
    rest of a text is to find its word among the words of the batch. New rows are the rests (`~rest<seed>`) and one row per word
    (`word:<lang>:<word>`, a group and family of its own); the source is `rest-<lang>`.
    """
    rng, rests, word_of = np.random.default_rng([seed, *lang.encode()]), {}, {}
    for row_id, text in _texts(corpus, lang):
        found = words(text)
        if len(set(found)) > 1:
            word_of[row_id] = found[rng.integers(len(found))]
            rests[row_id] = " ".join(word for word in found if word != word_of[row_id])
    new, pairs = _beside(corpus, rests, f"rest{seed}", f"rest-{lang}")
    named = pairs.rows.left.map(word_of)
    pairs = pairs.assign(left=pairs.rows.right, right=f"word:{lang}:" + named)
    return replace(corpus, rows=pd.concat([new.rows, _own_rows(f"word:{lang}:", named, lang)], ignore_index=True)), pairs


def classified(corpus: Corpus, label: str, lang: str, source: str) -> tuple[Corpus, Pairs]:
    """Every row beside the name of its class, a text in `lang`: topic classification, or language identification of texts.

    `label` is a column, such as "lang", or a key of `labels`, such as "category"; rows without it are left out. New rows have
    ids `class:<label>:<name>`. Hand over rows of one modality. To tell languages apart works against one space for all.
    """
    name = corpus.rows[label] if label in corpus.rows else corpus.rows.labels.map(lambda labels: str(labels.get(label, "")))
    rows, name = corpus.rows[name != ""], name[name != ""]
    if rows.empty:
        raise CorpusError(f"{corpus.name}: no row has a label {label!r}")
    pairs = pd.DataFrame({"left": rows.id, "right": f"class:{label}:" + name, "source": source})
    return replace(corpus, rows=_own_rows(f"class:{label}:", name, lang)), Pairs(pairs)


def _own_rows(prefix: str, texts: pd.Series, lang: str) -> pd.DataFrame:
    texts = pd.Series(sorted(set(texts)))
    return pd.DataFrame({"id": prefix + texts, "group": prefix + texts, "modality": "text", "lang": lang, "text": texts})


def mirrored(corpus: Corpus) -> tuple[Corpus, Pairs]:
    """Mirror images and the pictures they are of: new ids end in `~mirror`, the source is "image-image", the mirror left.

    For pictures of which left and right say little: an arrow, a letter or a scene with sides is wrong in the mirror.
    """
    rows = corpus.rows[corpus.rows.modality == "image"]
    new = rows.assign(id=rows.id + "~mirror")
    pairs = Pairs(pd.DataFrame({"left": new.id, "right": rows.id, "source": "image-image"}))
    return replace(corpus, rows=new, open_image=lambda reference: ImageOps.mirror(corpus.open_image(reference))), pairs


def through(first: Pairs, then: Pairs, source: str) -> Pairs:
    """x with z wherever `first` has x–y and `then` y–z; the weight is the product of theirs, the largest over the ways y.

    Pictures with English and English with Swahili make pictures with Swahili; with `then` from `retrieved`, so do mined texts.
    Raises `CorpusError` if the two share no y.
    """
    both = first.rows.merge(then.rows, left_on="right", right_on="left")
    if both.empty:
        raise CorpusError(f"{source!r}: no right row of the first pairs is a left row of the second")
    ways = pd.DataFrame(
        {"left": both.left_x, "right": both.right_y, "weight": both.weight_x * both.weight_y, "score": both.score_y}
    )
    best = ways.sort_values("weight", ascending=False, kind="stable").drop_duplicates(["left", "right"])
    return Pairs(best.sort_index().assign(source=source))


def retrieved(pictured: Pairs, pivot: Features, target: Features, source: str, margin: float = 1.05, k: int = 4) -> Pairs:
    """Pictures with texts that nobody paired: through the pivot texts that are a target text's nearest under a teacher.

    `pictured` ties pictures to rows of `pivot`; both tables are the teacher's vectors. Mutual neighbours whose ratio margin
    reaches `margin` (`mining.mine`); the score is that margin. Raises as `mine`.
    """
    return through(pictured, mine(pivot, target, source, margin, k), source)


def tempered(pairs: Pairs, lang: Sequence[str], alpha: float = 0.3) -> Pairs:
    """Weights such that the language `lang[i]` of pair i counts n^α in all, n the sum of its weights: 1 as it is, 0 all alike.

    w_i · (n_least / n_l)^(1-α), so that no weight grows: sampling by temperature as data (Conneau et al. 2020, arXiv
    1911.02116, who take .3). It acts within a source; the trainer counts each source once, times `Recipe.relations`.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    weight = pairs.rows.weight.to_numpy(float)
    total = pd.Series(weight).groupby(np.asarray(lang, object)).transform("sum").to_numpy()
    least = total[total > 0].min(initial=np.inf)
    return pairs.assign(weight=weight * np.where(total > 0, least / np.maximum(total, 1e-12), 0) ** (1 - alpha))


def _texts(corpus: Corpus, lang: str) -> list[tuple[str, str]]:
    rows = corpus.where_rows(modality="text", lang=lang).rows
    return list(zip(rows.id, rows.text, strict=True))


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), not {share}")


def _beside(corpus: Corpus, texts: Mapping[str, str], mark: str, source: str, **columns) -> tuple[Corpus, Pairs]:
    rows = corpus.rows[corpus.rows.id.isin(texts)]
    new = rows.assign(text=[normalise(texts[row_id]) for row_id in rows.id], **columns)
    changed = ((new.text != "") & (new.text != rows.text.map(normalise))).to_numpy()
    if not changed.any():
        raise CorpusError(f"{corpus.name}: {source!r}: no text was changed; nothing to pair")
    originals, new = rows.id[changed], new[changed].assign(id=rows.id[changed] + f"~{mark}")
    pairs = pd.DataFrame({"left": originals.to_numpy(), "right": new.id.to_numpy(), "source": source})
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
