"""Numbers that belong beside a picture of a space: arrays in, a number out."""

from __future__ import annotations

import numpy as np

from xmalign_lab import similarity


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
