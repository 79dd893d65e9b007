"""A space for other tools: files that they open as their own."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from xmalign_lab import languages, similarity

KEPT = "id group family modality lang language text kind source split rank correct gap x y neighbors".split()


def embedding_atlas(
    points: pd.DataFrame, vectors: np.ndarray, path: str | Path, k: int = 15, pictures: Mapping[str, str] | None = None
) -> Path:
    """Write the placed `points` (n rows) and the `k` nearest neighbours of each as Parquet for embedding-atlas.

        embedding-atlas space.parquet --x x --y y --text text --neighbors neighbors   # with pictures also --image image

    `neighbors` is a struct `{ids: [row numbers from 0], distances: [1 - cosine]}`, nearest first, the row itself left out,
    exact among the `vectors` (n, d) (`similarity.top_k`); `k` is cut to n - 1. `image`, `{bytes, path}`, holds
    the `pictures` (data: URIs by group) of the picture rows as PNG, since the format does not promise WebP. `rank`, `correct`
    and `gap` are there if `spaces.judged` gave them. Columns after the documents of embedding-atlas 0.26 (Ren et al. 2025,
    arXiv 2505.06386). Raises `ValueError` for another number of vectors, and for points that are not placed.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or len(vectors) != len(points) or not {"x", "y"} <= set(points):
        raise ValueError(f"{len(points)} points need columns x, y and vectors of shape ({len(points)}, d), not {vectors.shape}")
    near, unit = [], similarity.unit(vectors)
    for row, (cosines, ids) in enumerate(zip(*similarity.top_k(unit, unit, k + 1), strict=True)):
        others = np.flatnonzero(ids != row)[:k]  # of equal vectors the row itself need not be the first
        near.append({"ids": ids[others].tolist(), "distances": (1 - cosines[others]).tolist()})
    table = points.assign(language=[languages.info(code).name if code else "picture" for code in points.lang], neighbors=near)
    table = table[[name for name in KEPT if name in table]].reset_index(drop=True)
    if "correct" in table:
        table["correct"] = table.correct.astype("boolean")
    if pictures:
        shown = points.group.where(points.modality == "image")
        drawn = {group: _png(uri) for group, uri in pictures.items()}
        table["image"] = [{"bytes": drawn[g], "path": f"{g}.png"} if g in drawn else None for g in shown]
    table.attrs = {}
    table.to_parquet(path, index=False)
    return Path(path)


def _png(uri: str) -> bytes:
    """The picture of a data: URI as PNG."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).save(file, "PNG")
    return file.getvalue()
