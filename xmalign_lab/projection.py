"""Two dimensions of a space, as added columns, with a number that says how far to believe them.

A projection is a picture, not a measurement: neighbours in it need not be neighbours in the space. So every
projection carries its trustworthiness (Venna and Kaski 2001), and all of them are fixed by their seed.
Two projections may be laid on each other (`laid_on`), and several moments of a training be drawn alike (`journey`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from xmalign_lab import similarity
from xmalign_lab.corpus import CorpusError

METHODS = ("pca", "umap")
SMALL = 4_096  # vectors; below this UMAP compares all pairs itself, though one after the other and in Python
MOST_TRUSTED = 5_000  # trustworthiness sorts an n × n matrix; beyond this many points it is estimated on a sample


@dataclass(frozen=True)
class Map:
    """A fitted projection: `flat` (n, 2) is where its own vectors lie, `place` puts others (m, d) on the same map, (m, 2)."""

    method: str
    seed: int
    flat: np.ndarray
    place: Callable[[np.ndarray], np.ndarray]


def pca(vectors: np.ndarray) -> np.ndarray:
    """The two directions of largest variance: (n, d) → (n, 2), float32.

    The sign of an axis is free; here the feature that weighs most in it counts positive, so pictures do not flip.
    A space of rank below two has zeros in the missing axis.
    """
    return _pca(vectors).flat


def umap(vectors: np.ndarray, seed: int = 0, neighbors: int = 15, min_dist: float = 0.1) -> np.ndarray:
    """UMAP by cosine distance: (n, d) → (n, 2), float32 (McInnes, Healy and Melville 2018, arXiv 1802.03426).

    With a seed it runs on one thread. It costs some 20 s in a fresh process, import and compilation included;
    `neighbors` is cut to n - 1. Raises `ValueError` for fewer than 5 vectors, or one of length zero.
    """
    return _umap(vectors, seed, neighbors, min_dist).flat


def fitted(vectors: np.ndarray, method: str = "pca", seed: int = 0, **options) -> Map:
    """A map of `vectors` (n, d) on which others can be placed, as those of the same rows after a few more steps.

    PCA places by its linear map, in milliseconds. UMAP places by its own `transform`: among the neighbours it was fitted to,
    so what has learned something new is pressed into the old picture; after a training from scratch fit again. Both
    give the vectors that they were fitted to their own places. `options` go to `umap`. Raises as `umap` and `project` do.
    """
    if method not in METHODS:
        raise ValueError(f"unknown projection {method!r}; known are {', '.join(METHODS)}")
    return _umap(vectors, seed, **options) if method == "umap" else _pca(vectors)


def laid_on(flat: np.ndarray, onto: np.ndarray, scaled: bool = True) -> np.ndarray:
    """`flat` (n, 2) shifted, turned or mirrored, and scaled by one factor, to lie as near to `onto` (n, 2) as it can.

    Procrustes: least squares over all rows (Schönemann 1966; Gower 1975). `scaled=False` keeps the size. Raises `ValueError` for
    shapes that differ. Points that all coincide come to lie on the centre of `onto`.
    """
    flat, onto = np.asarray(flat, np.float64), np.asarray(onto, np.float64)
    if flat.ndim != 2 or flat.shape != onto.shape or not len(flat):
        raise ValueError(f"{flat.shape} and {onto.shape} must match row for row")
    centre, flat = onto.mean(0), flat - flat.mean(0)
    left, sizes, right = np.linalg.svd(flat.T @ (onto - centre))
    scale = sizes.sum() / max((flat**2).sum(), 1e-30) if scaled else 1
    return np.asarray(scale * flat @ left @ right + centre, np.float32)


def _pca(vectors: np.ndarray) -> Map:
    from sklearn.decomposition import PCA

    vectors = np.asarray(vectors, np.float64)
    (n, d), axes = vectors.shape, np.zeros((2, vectors.shape[1]))
    if n > 1:
        exact = d <= 2_000  # beyond that the d × d covariance costs more than a seeded randomised solver
        solver = PCA(min(2, n, d), svd_solver="covariance_eigh" if exact else "randomized", random_state=0).fit(vectors)
        axes[: len(solver.components_)] = solver.components_
    mean = vectors.mean(0)

    def place(others: np.ndarray) -> np.ndarray:
        return np.asarray((np.asarray(others, np.float64) - mean) @ axes.T, np.float32)

    return Map("pca", 0, place(vectors), place)


def _umap(vectors: np.ndarray, seed: int = 0, neighbors: int = 15, min_dist: float = 0.1) -> Map:
    n, unit = len(vectors), similarity.unit(vectors)
    if n < 5:
        raise ValueError(f"UMAP needs at least 5 vectors, there are {n}; use pca")
    with warnings.catch_warnings():
        # umap says at every import that its parametric variant, which nothing here uses, lacks TensorFlow
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import UMAP  # here, not above: the import alone takes seconds

    few = (
        n < SMALL
    )  # then all distances are handed over, from one product: a third of the time, and a tenth of it to place others

    def seen(others: np.ndarray) -> np.ndarray:
        if not few:
            return others
        far = 1 - others @ unit.T
        return np.where(far < similarity.TIE, np.float32(0), far)  # else a vector were not quite at itself

    # n_jobs=1 is what a seed enforces anyway; said aloud, umap has nothing to warn of.
    # Its spectral start needs more points than a tiny corpus has.
    start, metric = "spectral" if n > 15 else "random", "precomputed" if few else "cosine"
    found = UMAP(n_neighbors=min(neighbors, n - 1), min_dist=min_dist, metric=metric, init=start, random_state=seed, n_jobs=1)

    def quietly(work: Callable, others: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*precomputed metric", UserWarning)  # which is meant
            return np.asarray(work(seen(similarity.unit(others))), np.float32)

    return Map("umap", seed, quietly(found.fit_transform, vectors), lambda others: quietly(found.transform, others))


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
    vectors = _checked(points, vectors)
    return _placed(points, vectors, fitted(vectors, method, seed, **options).flat, method, seed)


def journey(
    points: pd.DataFrame, moments: Mapping[str, np.ndarray] | Iterable[tuple], method: str = "pca", seed: int = 0, **options
) -> dict[str, pd.DataFrame]:
    """`{moment: points with x, y}` of the same rows (n) at several moments of a training, drawn so that they compare.

    `moments` are the vectors (n, d) by name, in time's order: a mapping or pairs. By PCA each moment has its own two widest
    directions, shifted and turned or mirrored onto the next moment's but not scaled, since all moments share one unit; the
    last is what `project` gives. By UMAP the last is fitted and places the others. Each carries its own trustworthiness.
    Raises as `project` does, and `ValueError` where there is no moment.

    Why so, by eight moments of 1,728 emoji and names: with a scale each step shrank the picture, the first to .37 of its size.
    AlignedUMAP is more trustworthy (.87 to .92, this .68 to .84), but took 18 times as long as one UMAP, which is minutes. One
    PCA of all moments at once follows the true motion better, but keeps a third less of the last moment's spread.
    """
    pairs = moments.items() if isinstance(moments, Mapping) else moments
    found = {name: _checked(points, vectors) for name, vectors in pairs}
    if not found:
        raise ValueError("a journey needs the vectors of at least one moment")
    *earlier, last = found
    end = fitted(found[last], method, seed, **options)
    flats = {last: end.flat}
    for name in reversed(earlier):
        onto = next(reversed(flats.values()))
        flats[name] = laid_on(pca(found[name]), onto, scaled=False) if method == "pca" else end.place(found[name])
    return {name: _placed(points, vectors, flats[name], method, seed) for name, vectors in found.items()}


def _checked(points: pd.DataFrame, vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(points):
        raise ValueError(f"{len(points)} points need vectors of shape ({len(points)}, d), not {vectors.shape}")
    bad = np.flatnonzero(~np.isfinite(vectors).all(1) | ~vectors.any(1))
    if len(bad):
        name = f", id {points.id.iloc[bad[0]]!r}" if "id" in points else ""
        raise CorpusError(f"projection, row {bad[0] + 1}{name}: the vector is zero or not finite; encode this row again")
    return vectors


def _placed(points: pd.DataFrame, vectors: np.ndarray, flat: np.ndarray, method: str, seed: int) -> pd.DataFrame:
    placed = points.assign(x=flat[:, 0], y=flat[:, 1])
    placed.attrs = {**points.attrs, "method": method, "seed": seed, "trustworthiness": trustworthiness(vectors, flat, seed=seed)}
    return placed


def placed(points: pd.DataFrame, vectors: np.ndarray, umap: Map | None = None, onto: np.ndarray | None = None) -> pd.DataFrame:
    """`project` for a space that has moved: on the map that was fitted before, or by PCA, laid on the layout `onto` (n, 2).

    A layout of another number of points is left out.
    """
    flat = pca(vectors) if umap is None else umap.place(vectors)
    if umap is None and onto is not None and len(onto) == len(flat):
        flat = laid_on(flat, onto, scaled=False)
    moved = points.assign(x=flat[:, 0], y=flat[:, 1])
    moved.attrs = {"method": umap.method if umap else "pca", "seed": umap.seed if umap else 0}
    moved.attrs["trustworthiness"] = trustworthiness(vectors, flat)
    return moved
