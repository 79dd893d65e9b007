"""Numbers that belong beside a picture of a space: arrays in, a value per row out where there is one, else a number.

How far to trust a picture of it is `projection.trustworthiness`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import spatial, special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_chunked, silhouette_samples
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from xmalign_lab import similarity

MOST_JUDGED = 10_000  # rows of a silhouette, which compares all pairs; beyond this whole groups are drawn
MOST_COMPARED = 1_000  # rows of an RSA: 499,500 pairs to rank, well under a second


def _matched(left: np.ndarray, right: np.ndarray, least: int = 1, same_width: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; `ValueError` unless they are (n, d) and (n, d) (or (n, e)) with n ≥ `least`."""
    left, right, axes = np.asarray(left, np.float64), np.asarray(right, np.float64), 1 + same_width
    if left.ndim != 2 or right.ndim != 2 or left.shape[:axes] != right.shape[:axes] or len(left) < least:
        raise ValueError(
            f"{left.shape} and {right.shape} must match row for row (n, d), n ≥ {least}{'' if same_width else ', any d'}"
        )
    return left, right


def _others(labels: np.ndarray, seed: int) -> np.ndarray:
    """For each row another one with another label, (n,), every row once: a derangement.

    Rows in random order, those of a label together, are shifted by the size of the largest label; so no label may hold
    more than half of the rows (`ValueError`).
    """
    rng = np.random.default_rng(seed)
    names, codes, counts = np.unique(np.asarray(labels).astype(str), return_inverse=True, return_counts=True)
    if 2 * counts.max() > len(codes):
        raise ValueError(f"{counts.max()} of {len(codes)} rows are {str(names[counts.argmax()])!r}: over half")
    order = np.lexsort((rng.random(len(codes)), rng.permutation(len(names))[codes]))
    return np.roll(order, counts.max())[np.argsort(order)]


def _cosine(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row by row, (n,); 0 where either vector is 0 and so has no direction."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.divide((left * right).sum(1), lengths, out=np.zeros(len(left)), where=lengths > 0)


def modality_gap(images: np.ndarray, texts: np.ndarray) -> float:
    """‖mean(images) - mean(texts)‖ of unit vectors (n, d) and (m, d): 0 is none, 2 the most there can be.

    Liang et al. 2022 (arXiv 2203.02053) define it so. Raises `ValueError` for a side without rows or for different widths.
    """
    images, texts = np.asarray(images, np.float64), np.asarray(texts, np.float64)
    if images.ndim != 2 or texts.ndim != 2 or not len(images) or not len(texts) or images.shape[1] != texts.shape[1]:
        raise ValueError(f"images {images.shape} and texts {texts.shape} must be (n, d) and (m, d) with n, m ≥ 1")
    return float(np.linalg.norm(images.mean(0) - texts.mean(0)))


def language_mixing(vectors: np.ndarray, langs: np.ndarray) -> float:
    """How often the nearest other row of `vectors` (n, d), unit length, has another language of `langs` (n,).

    0 if each language keeps to itself; (k - 1) / k if k equally large languages do not matter. Nearest by cosine, ties to
    the earlier row. Raises `ValueError` for fewer than two rows or lengths that differ.
    """
    langs = np.asarray(langs).astype(str)
    if len(langs) != len(vectors) or len(langs) < 2:
        raise ValueError(f"{len(vectors)} vectors and {len(langs)} languages: both must be equally many, at least 2")
    nearest = similarity.top_k(vectors, vectors, 2)[1]
    other = np.where(nearest[:, 0] == np.arange(len(langs)), nearest[:, 1], nearest[:, 0])
    return float((langs[other] != langs).mean())


def pair_similarity(left: np.ndarray, right: np.ndarray, seed: int = 0, groups: np.ndarray | None = None) -> tuple:
    """Cosines of the true pairs `left[i], right[i]` and of random pairs, two arrays (n,); left and right are (n, d).

    The random pairs are a derangement drawn with `seed`: no row keeps its partner, nor gets one of its own group where
    `groups` (n,) says what means the same. Raises `ValueError` for shapes that differ, or one group above half of the rows.
    """
    left, right = _matched(left, right, least=2)
    other = _others(np.arange(len(left)) if groups is None else groups, seed)
    return _cosine(left, right), _cosine(left, right[other])


def alignment(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """‖x - y‖² of each true pair, (n,), of unit vectors (n, d): its mean is L_align (Wang & Isola 2020, arXiv 2005.10242).

    0 is best, 4 the worst. Raises `ValueError` for shapes that differ.
    """
    return (np.subtract(*_matched(left, right)) ** 2).sum(1)


def uniformity(vectors: np.ndarray, t: float = 2) -> float:
    """L_uniform = log E exp(-t ‖x - x'‖²) over distinct rows of unit vectors (n, d) (Wang & Isola 2020, arXiv 2005.10242).

    0 if all rows are one point, lower is more evenly spread. Blocked: no (n, n) matrix. Raises `ValueError` for n < 2.
    """

    def each(squared: np.ndarray, start: int) -> np.ndarray:
        squared[np.arange(len(squared)), start + np.arange(len(squared))] = np.inf  # a row and itself are no pair
        return np.exp(np.multiply(squared, -t, out=squared), out=squared).sum(1)

    x, _ = _matched(vectors, vectors, least=2)
    # Not "sqeuclidean", which is scipy's loop, several times slower than this matrix product
    sums = np.concatenate(list(pairwise_distances_chunked(x, reduce_func=each, working_memory=64, squared=True)))
    return float(np.log(sums.sum() / (len(x) * (len(x) - 1))))


def language_probe(vectors: np.ndarray, langs: np.ndarray, groups: np.ndarray, seed: int = 0, folds: int = 5) -> tuple:
    """Can a line tell the languages apart? `(correct (n,) bool, share of the largest language)`; the accuracy is the mean.

    Logistic regression (C = 1) on standardised `vectors` (n, d), each row judged by a fold that has seen no row of its
    group: with translations, or near copies (give families), on both sides it could learn meanings by heart. Beside the
    share it says how much of the language is left. Raises `ValueError` for fewer than two languages or groups.
    """
    langs, groups = np.asarray(langs).astype(str), np.asarray(groups).astype(str)
    count, sizes = len(np.unique(groups)), np.unique(langs, return_counts=True)[1]
    if len(sizes) < 2 or count < 2:
        raise ValueError(f"{len(sizes)} languages and {count} groups: the probe needs two of each")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5_000))
    split = GroupKFold(min(folds, count), shuffle=True, random_state=seed)
    with threadpool_limits(1):  # as in `transfer`
        named = cross_val_predict(probe, vectors, langs, groups=groups, cv=split)
    return named == langs, float(sizes.max() / sizes.sum())


def effective_rank(vectors: np.ndarray) -> float:
    """exp(-Σ p log p), p = σ / Σσ, over the singular values σ of the centred rows (n, d): 1 to min(n - 1, d); small is collapse.

    Roy & Vetterli 2007 (EUSIPCO), who do not centre: here one common direction is no dimension. 0 if all rows are equal.
    """
    x, _ = _matched(vectors, vectors)
    sigma = np.linalg.svd(x - x.mean(0), compute_uv=False)
    sigma = sigma[sigma > np.abs(x).max() * max(x.shape) * np.finfo(float).eps]  # what is left of equal rows is rounding
    return float(np.exp(special.entr(sigma / sigma.sum()).sum())) if len(sigma) else 0.0


def rsa(left: np.ndarray, right: np.ndarray, seed: int = 0) -> float:
    """Spearman correlation of the cosines of all pairs of rows, within left (n, d) and within right (n, e): 1 is isometric.

    Representational similarity analysis (Kriegeskorte et al. 2008). Row i is the same thing on both sides; cosines equal to six
    digits tie. Above 1,000 rows a sample drawn with `seed` is compared. NaN if one side's cosines are all equal, or one
    of its rows is zero. Raises `ValueError` for row counts that differ or n < 3.
    """
    left, right = _matched(left, right, least=3, same_width=False)
    rows = np.random.default_rng(seed).permutation(len(left))[:MOST_COMPARED]
    # Rounded, or true ties, as of cosines 0, would break at random
    within = [spatial.distance.pdist(side[rows], "cosine").round(6) for side in (left, right)]
    return float(stats.spearmanr(*within).statistic) if all(np.ptp(each) > 0 for each in within) else float("nan")


def linear_cka(left: np.ndarray, right: np.ndarray) -> float:
    """‖YᵀX‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of the centred rows X (n, d), Y (n, e): 1 if a rotation and a scale make them equal.

    Kornblith et al. 2019 (arXiv 1905.00414). Row i is the same thing on both sides. With n below d or e even unrelated sides
    score high. NaN if the rows of one side are all equal. Raises `ValueError` for row counts that differ.
    """
    x, y = (side - side[0] for side in _matched(left, right, least=2, same_width=False))  # exactly 0 if all rows are equal
    x, y = x - x.mean(0), y - y.mean(0)
    scale = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / scale) if scale else float("nan")


def single_changes(labels: pd.DataFrame) -> pd.DataFrame:
    """Rows of `labels` (n, attributes) that differ in one attribute, columns `before, after` (row numbers) and `change`.

    For `offset_consistency` on scenes: `pd.DataFrame(list(rows.labels))` of one caption per composition, without columns
    that are no attribute, gives each ordered pair with all else equal; `change` reads "colour red→blue".
    """
    table, found = labels.astype(str).assign(row=range(len(labels))), []
    for name in labels:
        both = table.merge(table, on=[other for other in labels if other != name], suffixes=("", "'"))
        both["change"] = f"{name} " + both[name] + "→" + both[f"{name}'"]
        found.append(both[both[name] != both[f"{name}'"]])
    return pd.concat(found, ignore_index=True)[["row", "row'", "change"]].set_axis(["before", "after", "change"], axis=1)


def offset_consistency(before, after, other_before, other_after, changes: np.ndarray, seed: int = 0) -> tuple:
    """Does a change of meaning move the texts of two languages alike? Cosines of offsets, `(same, shuffled)`, both (n,).

    Row i is one change, such as red→blue with all else equal, as texts before and after it: (n, d) each in one language,
    and again in the other (`single_changes` finds them among scenes). same = cos(after - before, other_after - other_before);
    shuffled takes the other language's offset of a different one of `changes` (n,). An offset of 0, which a language that
    does not say the change gives, counts 0. Analogies after Mikolov et al. 2013 (NAACL). Raises `ValueError` for shapes that
    differ, or one change in more than half of the rows.
    """
    offset, other = _matched(np.subtract(*_matched(after, before)), np.subtract(*_matched(other_after, other_before)), least=2)
    return _cosine(offset, other), _cosine(offset, other[_others(changes, seed)])


def silhouette(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """(b - a) / max(a, b) of each row of `vectors` (n, d): mean cosine distance a to its own, b to the nearest other label.

    In [-1, 1]; Rousseeuw 1987. By concept it should be high, by language about 0 or below; alone under its label a row has
    0. Of more than 10,000 rows about so many are judged, whole `groups` (n,) drawn with `seed`; the others are NaN. Raises
    `ValueError` unless there are 2 to n - 1 labels.
    """
    labels, (names, codes) = np.asarray(labels).astype(str), np.unique(np.asarray(groups).astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(names))[codes] < len(names) * MOST_JUDGED / len(codes)
    values = np.full(len(labels), np.nan)
    values[drawn] = silhouette_samples(np.asarray(vectors)[drawn], labels[drawn], metric="cosine")
    return values


def space_report(vectors, modality, langs, groups, families, seed: int = 0) -> pd.DataFrame:
    """All of it in a table `metric, value, meaning`: unit vectors (n, d); modality (image, text), lang, group, family (n,) each.

    Pairs are an image and its text, and a text of the largest language and its translation: the first of each group,
    averaged over the languages with at least three. What cannot be had (one modality, one language) is left out.
    """
    vectors = np.asarray(vectors)
    modality, langs, groups, families = (np.asarray(part).astype(str) for part in (modality, langs, groups, families))
    image, text = modality == "image", modality == "text"
    each = [np.flatnonzero(text & (langs == lang)) for lang in pd.Series(langs[text]).value_counts().index]
    rows = _compared(vectors, groups, np.flatnonzero(image), each, "image–text", seed)
    rows += _compared(vectors, groups, each[0], each[1:], "text–text", seed) if each else []
    for name, part in (("images", vectors[image]), ("texts", vectors[text])):
        if len(part) >= 2:
            rows.append((f"uniformity, {name}", uniformity(part), "0: one point; lower: spread out"))
            rows.append((f"effective rank, {name}", effective_rank(part), f"dimensions in use, of {part.shape[1]}"))
    if image.any() and text.any():
        rows.append(("modality gap", modality_gap(vectors[image], vectors[text]), "distance of the two means, 0 is none"))
    if len(each) > 1:
        texts, lang, group = vectors[text], langs[text], groups[text]
        correct, majority = language_probe(texts, lang, families[text], seed)
        rows.append(("language probe", correct.mean(), f"accuracy; always the largest language: {majority:.3f}"))
        rows.append(("language mixing", language_mixing(texts, lang), "share whose nearest text is of another language"))
        for name, labels in (("concept", group), ("language", lang)):
            if 1 < len(np.unique(labels)) < len(labels):
                value = np.nanmean(silhouette(texts, labels, group, seed))
                rows.append((f"silhouette by {name}", value, "1: tight and apart, 0: mixed"))
    return pd.DataFrame(rows, columns=["metric", "value", "meaning"])


def _compared(vectors, groups, one: np.ndarray, others: list[np.ndarray], between: str, seed: int) -> list[tuple]:
    """Rows of the report: the row numbers `one` against each of `others`, then the mean."""
    found = []
    for other in others:
        _, i, j = np.intersect1d(groups[one], groups[other], return_indices=True)
        if len(i) >= 3:
            left, right = vectors[one[i]], vectors[other[j]]
            true, random = pair_similarity(left, right, seed)
            distance = alignment(left, right).mean()
            found.append((true.mean(), random.mean(), distance, rsa(left, right, seed), linear_cka(left, right)))
    names = ("cosine of true pairs", "cosine of random pairs", "alignment", "RSA", "CKA")
    says = ("same meaning", "what any two have", "squared distance, 0 best", "1: distances in one order", "1: only turned")
    means = np.mean(found, 0) if found else ()
    return [(f"{name}, {between}", value, meaning) for name, value, meaning in zip(names, means, says, strict=False)]
