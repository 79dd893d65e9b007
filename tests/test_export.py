import io

import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_plots import NASTY, small_points

from xmalign_lab import export, pictures, similarity, spaces


def vectors_of(n, d=6, seed=0):
    return similarity.unit(np.random.default_rng(seed).normal(size=(n, d)))


def test_what_is_written_is_read_back(tmp_path):
    points = small_points(texts=["moyo", NASTY[0], "නියළිය", "سلام"]).assign(source="made up", kind="name", family="f")
    points = spaces.judged(points, vectors_of(16))
    table = parquet.read_table(export.embedding_atlas(points, vectors_of(16), tmp_path / "space.parquet", k=3))
    assert table.schema.field("neighbors").type.names == ["ids", "distances"]
    read = table.to_pydict()
    for name in ("id", "group", "lang", "modality", "text", "family", "kind", "source", "x", "y", "rank", "gap"):
        assert read[name] == points[name].tolist(), name
    assert read["correct"] == [None if value is None else bool(value) for value in points.correct]
    assert read["language"][:4] == ["picture", "English", "Swahili", "Sinhala"] and "image" not in read
    assert b"xmalign" not in (table.schema.metadata or {}).get(b"pandas", b"") and "rank" not in small_points()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 30), st.integers(1, 40), st.integers(0, 3), st.booleans())
def test_neighbours_are_those_of_brute_force(tmp_path_factory, n, k, seed, twins):
    vectors = vectors_of(n, 3, seed)
    if twins:
        vectors[n // 2 :] = vectors[: n - n // 2]  # equal vectors: each has itself and its twin at distance 0
    points = small_points(-(-n // 4))[:n]
    path = export.embedding_atlas(points, 5 * vectors, tmp_path_factory.mktemp("atlas") / "s.parquet", k)
    for row, near in enumerate(parquet.read_table(path)["neighbors"].to_pylist()):
        far = 1 - vectors @ vectors[row]
        others = np.delete(np.arange(n), row)
        assert len(near["ids"]) == min(k, n - 1) and row not in near["ids"] and len(set(near["ids"])) == len(near["ids"])
        assert np.allclose(near["distances"], np.sort(far[others])[:k], atol=1e-5)
        assert np.allclose(near["distances"], far[near["ids"]], atol=1e-5)


def test_pictures_of_picture_rows_are_png(tmp_path):
    red = pictures.data_uri(Image.new("RGB", (9, 5), "red"))
    table = parquet.read_table(
        export.embedding_atlas(small_points(), vectors_of(16), tmp_path / "s.parquet", pictures={"g1": red})
    )
    rows = table.to_pylist()
    assert [row["id"] for row in rows if row["image"]] == ["p1"]
    image = Image.open(io.BytesIO(rows[4]["image"]["bytes"]))
    assert image.format == "PNG" and image.size == (9, 5) and rows[4]["image"]["path"] == "g1.png"
    assert image.convert("RGB").getpixel((4, 2))[0] > 240


def test_what_has_no_place_or_no_vector_is_refused(tmp_path):
    with pytest.raises(ValueError, match="16 points need columns x, y"):
        export.embedding_atlas(small_points(), vectors_of(15), tmp_path / "s.parquet")
    with pytest.raises(ValueError, match="columns x, y"):
        export.embedding_atlas(small_points().drop(columns="x"), vectors_of(16), tmp_path / "s.parquet")
    assert not list(tmp_path.iterdir())
