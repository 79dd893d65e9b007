import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes

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


# --- laid on each other


def turned(flat, angle, mirrored=False, scale=1.0, shift=(0.0, 0.0)):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * flat @ (turn * [1, -1] if mirrored else turn) + shift


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 7), st.booleans(), st.floats(0.05, 20), st.floats(-50, 50), st.integers(2, 40), st.integers(0, 5))
def test_laid_on_recovers_a_turned_copy(angle, mirrored, scale, shift, n, seed):
    flat = np.random.default_rng(seed).normal(size=(n, 2))
    copy = turned(flat, angle, mirrored, scale, shift)
    assert np.allclose(projection.laid_on(flat, copy), copy, atol=1e-4 * max(scale, abs(shift), 1))
    rigid = projection.laid_on(copy / scale, flat, scaled=False)
    assert np.allclose(rigid, flat, atol=1e-4 * max(1, abs(shift) / scale))


def test_laid_on_leaves_what_scipy_leaves():
    rng = np.random.default_rng(0)
    onto, flat = rng.normal(size=(30, 2)) * 3 + 7, rng.normal(size=(30, 2))
    _, _, disparity = procrustes(onto, flat)
    left = ((projection.laid_on(flat, onto) - onto) ** 2).sum() / ((onto - onto.mean(0)) ** 2).sum()
    assert left == pytest.approx(disparity, rel=1e-4)
    size = lambda places: np.linalg.norm(places - places.mean(0))  # noqa: E731
    assert size(projection.laid_on(flat, onto, scaled=False)) == pytest.approx(size(flat), rel=1e-4)


def test_laid_on_has_a_centre_for_equal_points_and_refuses_other_shapes():
    onto = np.array([[0.0, 0], [2, 4]])
    assert np.allclose(projection.laid_on(np.ones((2, 2)), onto), [[1, 2], [1, 2]])
    with pytest.raises(ValueError, match="match row for row"):
        projection.laid_on(np.ones((3, 2)), onto)


# --- placed on a fitted map


def test_pca_places_by_one_linear_map():
    vectors, others = cloud(), cloud(20, seed=1)
    found = projection.fitted(vectors)
    assert np.array_equal(found.flat, projection.pca(vectors)) and np.array_equal(found.place(vectors), found.flat)
    both = found.place(others), found.place(2 * others), found.place(0 * others)
    assert np.allclose(both[1] - both[2], 2 * (both[0] - both[2]), atol=1e-4)
    fit = np.linalg.lstsq(np.c_[vectors, np.ones(60)], found.flat, rcond=None)[0]
    assert np.allclose(both[0], np.c_[others, np.ones(20)] @ fit, atol=1e-4)
    assert projection.fitted(np.ones((1, 3))).place(np.eye(3)).tolist() == [[0, 0]] * 3


@pytest.mark.parametrize("small", [4_096, 10])
def test_umap_places_among_its_neighbours_and_repeats(monkeypatch, small):
    monkeypatch.setattr(projection, "SMALL", small)  # below it distances are handed over, above it vectors
    rng = np.random.default_rng(0)
    kind = np.repeat(np.arange(3), 15)
    vectors = np.eye(3)[kind] * 10 + rng.normal(size=(45, 3)) * 0.3
    others = np.eye(3)[[0, 1, 2, 1]] * 10 + rng.normal(size=(4, 3)) * 0.3
    first, again = (projection.fitted(vectors, "umap", seed=1, neighbors=8) for _ in range(2))
    assert np.array_equal(first.flat, again.flat) and np.array_equal(first.place(others), again.place(others))
    assert np.array_equal(first.place(vectors), first.flat), "what it was fitted to keeps its place"
    assert np.array_equal(projection.umap(vectors, seed=1, neighbors=8), first.flat)
    far = np.linalg.norm(first.place(others)[:, None] - first.flat[None], axis=-1)
    assert kind[far.argmin(1)].tolist() == [0, 1, 2, 1]
    assert (first.method, first.seed) == ("umap", 1)


def test_fitted_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="known are pca, umap"):
        projection.fitted(cloud(), "tsne")
    with pytest.raises(ValueError, match="row 3 has length zero"):
        projection.umap(np.vstack([np.eye(3), np.zeros((1, 3)), np.eye(3)]))


# --- a journey


def test_a_journey_ends_as_projected_and_each_moment_is_turned_onto_the_next():
    moments = {"begin": cloud(seed=1), "middle": cloud(seed=1) + 0.2 * cloud(seed=2), "end": cloud(seed=3)}
    found = projection.journey(table(60), moments)
    assert list(found) == list(moments) and found["end"].equals(projection.project(table(60), moments["end"]))
    place = {name: part[["x", "y"]].to_numpy() for name, part in found.items()}
    for name, after in (("begin", "middle"), ("middle", "end")):
        own = projection.pca(moments[name])
        assert np.allclose(np.ptp(place[name] @ place[name].T), np.ptp(own @ own.T), rtol=1e-3), "turned, not scaled"
        assert np.allclose(place[name], projection.laid_on(own, place[after], scaled=False))
        assert found[name].attrs["trustworthiness"] == pytest.approx(projection.trustworthiness(moments[name], own))
        assert found[name].attrs["method"] == "pca"
    assert list(projection.journey(table(60), iter(moments.items()))) == list(moments)


def test_what_only_turns_in_the_space_stands_still_on_the_journey():
    vectors = cloud(40, 2)
    found = projection.journey(table(40), {"a": turned(vectors, 1.0, mirrored=True), "b": turned(vectors, 2.5), "c": vectors})
    for name in ("a", "b"):
        assert np.allclose(found[name][["x", "y"]], found["c"][["x", "y"]], atol=1e-4)


def test_a_journey_by_umap_is_placed_on_the_last_map():
    moments = {"begin": cloud(40, seed=1), "end": cloud(40)}
    found = projection.journey(table(40), moments, "umap", seed=2, neighbors=6)
    last = projection.fitted(moments["end"], "umap", seed=2, neighbors=6)
    assert np.array_equal(found["end"][["x", "y"]], last.flat)
    assert np.array_equal(found["begin"][["x", "y"]], last.place(moments["begin"]))


def test_a_journey_names_what_it_cannot_take():
    with pytest.raises(ValueError, match="at least one moment"):
        projection.journey(table(60), {})
    with pytest.raises(ValueError, match="60 points need vectors"):
        projection.journey(table(60), {"a": cloud(), "b": cloud(59)})
    spoiled = cloud()
    spoiled[4] = np.nan
    with pytest.raises(CorpusError, match="row 5, id 'row4'"):
        projection.journey(table(60), {"a": spoiled, "b": cloud()})
