import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab import projection
from xmalign_lab.corpus import CorpusError


def cloud(n=60, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(3, 1, d)


def table(n):
    return pd.DataFrame({"id": [f"row{i}" for i in range(n)]})


def brute_trustworthiness(high, low, k):
    """The definition of Venna and Kaski 2001, loop by loop."""
    high = high / np.linalg.norm(high, axis=1, keepdims=True)
    n, penalty = len(high), 0
    for i in range(n):
        far = 1 - high @ high[i]
        far[i] = -1
        rank = np.argsort(np.argsort(far))  # itself 0, the nearest 1
        near = np.linalg.norm(low - low[i], axis=1)
        near[i] = np.inf
        penalty += sum(max(0, rank[j] - k) for j in np.argsort(near)[:k])
    return 1 - 2 * penalty / (n * k * (2 * n - 3 * k - 1))


def test_pca_equals_singular_value_decomposition():
    vectors = cloud()
    centred = vectors - vectors.mean(0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    found = projection.pca(vectors)
    assert np.allclose(np.abs(found), np.abs((u * s)[:, :2]), atol=1e-4)
    for axis in range(2):  # the heaviest feature of each axis points the positive way
        loading = centred.T @ found[:, axis]
        assert loading[np.abs(loading).argmax()] > 0


@settings(max_examples=25, deadline=None)
@given(st.permutations(list(range(20))))
def test_pca_does_not_flip_with_the_order_of_rows(order):
    vectors = cloud(20)
    assert np.allclose(projection.pca(vectors)[order], projection.pca(vectors[order]), atol=1e-4)


def test_pca_of_wide_and_of_flat_spaces():
    wide = np.random.default_rng(0).normal(size=(30, 2_500))
    assert np.array_equal(projection.pca(wide), projection.pca(wide))
    line = np.arange(5.0)[:, None]
    assert np.allclose(projection.pca(line), np.c_[np.arange(5) - 2.0, np.zeros(5)])
    assert np.array_equal(projection.pca(np.ones((1, 3))), np.zeros((1, 2)))


def test_trustworthiness_is_its_definition_and_one_for_a_faithful_picture():
    high, low = cloud(40), np.random.default_rng(1).normal(size=(40, 2))
    assert projection.trustworthiness(high, low, k=7) == pytest.approx(brute_trustworthiness(high, low, 7))
    angle = np.random.default_rng(2).uniform(0, 1.5, 30)  # no two neighbours equally far
    arc = np.c_[np.cos(angle), np.sin(angle)]
    assert projection.trustworthiness(arc, arc, k=5) == pytest.approx(1)
    assert np.isnan(projection.trustworthiness(arc[:2], arc[:2]))


def test_many_points_are_judged_on_a_seeded_sample(monkeypatch):
    monkeypatch.setattr(projection, "MOST_TRUSTED", 50)
    high, low = cloud(200), np.random.default_rng(1).normal(size=(200, 2))
    of_seed = [projection.trustworthiness(high, low, k=5, seed=seed) for seed in (0, 0, 1)]
    assert of_seed[0] == of_seed[1] != of_seed[2]
    sample = np.sort(np.random.default_rng(0).choice(200, 50, replace=False))
    assert of_seed[0] == pytest.approx(brute_trustworthiness(high[sample], low[sample], 5))


def test_project_adds_columns_and_leaves_its_input_alone():
    points, vectors = table(60), cloud()
    points.attrs["kept"] = 1
    placed = projection.project(points, vectors, seed=3)
    assert list(points.columns) == ["id"] and list(placed.columns) == ["id", "x", "y"]
    assert np.array_equal(placed[["x", "y"]].to_numpy(), projection.pca(vectors))
    assert placed.attrs["kept"] == 1 and placed.attrs["method"] == "pca" and placed.attrs["seed"] == 3
    assert placed.attrs["trustworthiness"] == projection.trustworthiness(vectors, placed[["x", "y"]].to_numpy())


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_project_names_the_row_it_cannot_place(bad):
    vectors = cloud()
    vectors[7] = bad
    with pytest.raises(CorpusError, match="row 8, id 'row7'.*zero or not finite"):
        projection.project(table(60), vectors)


def test_project_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="known are pca, umap"):
        projection.project(table(60), cloud(), "tsne")
    with pytest.raises(ValueError, match=r"59 points need vectors of shape \(59, d\)"):
        projection.project(table(59), cloud())
    with pytest.raises(ValueError, match="at least 5"):
        projection.project(table(4), cloud(4), "umap")


def test_umap_keeps_clusters_apart_and_repeats_with_its_seed():
    centres = np.eye(3) * 10
    kind = np.repeat(np.arange(3), 15)
    vectors = centres[kind] + np.random.default_rng(0).normal(size=(45, 3)) * 0.3
    first = projection.project(table(45), vectors, "umap", seed=0, neighbors=8)
    again = projection.project(table(45), vectors, "umap", seed=0, neighbors=8)
    other = projection.project(table(45), vectors, "umap", seed=1, neighbors=8)
    assert first.equals(again) and not first.equals(other)
    flat = first[["x", "y"]].to_numpy()
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (kind[distance.argmin(1)] == kind).all()
    assert first.attrs["method"] == "umap" and first.attrs["trustworthiness"] > 0.8
    assert len(projection.umap(vectors[:6])) == 6
