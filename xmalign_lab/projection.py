"""Two dimensions of a space, as added columns, with a number that says how far to believe them.

A projection is a picture, not a measurement: neighbours in it need not be neighbours in the space. So every
projection carries its trustworthiness (Venna and Kaski 2001), and all of them are fixed by their seed.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from xmalign_lab.corpus import CorpusError

METHODS = ("pca", "umap")
MOST_TRUSTED = 5_000  # trustworthiness sorts an n × n matrix; beyond this many points it is estimated on a sample


def pca(vectors: np.ndarray) -> np.ndarray:
    """The two directions of largest variance: (n, d) → (n, 2), float32.

    The sign of an axis is free; here the feature that weighs most in it counts positive, so pictures do not flip.
    A space of rank below two has zeros in the missing axis.
    """
    from sklearn.decomposition import PCA

    n, d = vectors.shape
    axes = min(2, n, d)
    exact = d <= 2_000  # beyond that the d × d covariance costs more than a seeded randomised solver
    solver = PCA(axes, svd_solver="covariance_eigh" if exact else "randomized", random_state=0)
    found = np.zeros((n, 2), np.float32)
    if n > 1:
        found[:, :axes] = solver.fit_transform(np.asarray(vectors, np.float64))
    return found


def umap(vectors: np.ndarray, seed: int = 0, neighbors: int = 15, min_dist: float = 0.1) -> np.ndarray:
    """UMAP by cosine distance: (n, d) → (n, 2), float32 (McInnes, Healy and Melville 2018, arXiv 1802.03426).

    With a seed it runs on one thread. It costs some 20 s in a fresh process, import and compilation included;
    `neighbors` is cut to n - 1. Raises `ValueError` for fewer than 5 vectors.
    """
    n = len(vectors)
    if n < 5:
        raise ValueError(f"UMAP needs at least 5 vectors, there are {n}; use pca")
    with warnings.catch_warnings():
        # umap says at every import that its parametric variant, which nothing here uses, lacks TensorFlow
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP  # here, not above: the import alone takes seconds

    # n_jobs=1 is what a seed enforces anyway; said aloud, umap has nothing to warn of.
    # Its spectral start needs more points than a tiny corpus has.
    start = "spectral" if n > 15 else "random"
    layout = UMAP(n_neighbors=min(neighbors, n - 1), min_dist=min_dist, metric="cosine", init=start, random_state=seed, n_jobs=1)
    return np.asarray(layout.fit_transform(np.asarray(vectors, np.float32)), np.float32)


def trustworthiness(high: np.ndarray, low: np.ndarray, k: int = 15, seed: int = 0) -> float:
    """How many of the `k` neighbours seen in `low` (n, 2) are neighbours in `high` (n, d) by cosine: 1 is all.

    Venna and Kaski 2001: false neighbours count by how far away they truly are; a random picture has about .5.
    `k` is cut below n / 2; fewer than 4 points give NaN. Above 5,000 points a seeded sample is judged.
    """
    from sklearn.manifold import trustworthiness as trust

    if len(high) > MOST_TRUSTED:
        sample = np.sort(np.random.default_rng(seed).choice(len(high), MOST_TRUSTED, replace=False))
        high, low = high[sample], low[sample]
    k = min(k, (len(high) - 1) // 2)
    return float(trust(high, low, n_neighbors=k, metric="cosine")) if k >= 1 else float("nan")


def project(points: pd.DataFrame, vectors: np.ndarray, method: str = "pca", seed: int = 0, **options) -> pd.DataFrame:
    """A copy of `points` (n rows) with columns `x, y` from `vectors` (n, d); the numbers lie in its `.attrs`.

    `attrs` has method, seed and trustworthiness. `options` go to `umap`. Raises `ValueError` for an unknown
    method or a wrong number of vectors, `CorpusError` naming the first row whose vector is zero or not finite.
    """
    vectors = np.asarray(vectors)
    if method not in METHODS:
        raise ValueError(f"unknown projection {method!r}; known are {', '.join(METHODS)}")
    if vectors.ndim != 2 or len(vectors) != len(points):
        raise ValueError(f"{len(points)} points need vectors of shape ({len(points)}, d), not {vectors.shape}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(1) | ~vectors.any(1))
    if len(bad):
        name = f", id {points.id.iloc[bad[0]]!r}" if "id" in points else ""
        raise CorpusError(f"projection, row {bad[0] + 1}{name}: the vector is zero or not finite; encode this row again")
    flat = umap(vectors, seed, **options) if method == "umap" else pca(vectors, **options)
    placed = points.assign(x=flat[:, 0], y=flat[:, 1])
    placed.attrs = {**points.attrs, "method": method, "seed": seed, "trustworthiness": trustworthiness(vectors, flat, seed=seed)}
    return placed
