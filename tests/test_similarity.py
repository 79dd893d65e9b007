"""Ranks and neighbours against brute force, with ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from xmalign_lab import similarity


@given(st.integers(0, 10_000), st.integers(1, 5))
@settings(max_examples=60)
def test_ranks_against_scipy_with_ties(seed, size):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-1, 2, (6, 3)).astype(np.float32)  # small integers: many exact ties
    gallery = rng.integers(-1, 2, (9, 3)).astype(np.float32)
    query_groups, gallery_groups = rng.permutation(9)[:6], np.arange(9)
    ours = similarity.ranks(queries, gallery, query_groups, gallery_groups, size=size)
    for i, group in enumerate(query_groups):
        assert ours[i] == rankdata(-(queries[i] @ gallery.T), method="average")[group]


def test_several_correct_items_count_once():
    queries, gallery = np.array([[1.0, 0.0]], np.float32), np.array([[0.5, 0], [0.9, 0], [0.7, 0], [0.8, 0]], np.float32)
    groups = np.array(["a", "b", "a", "a"])
    assert similarity.ranks(queries, gallery, np.array(["a"]), groups)[0] == 2  # only 0.9 is better than 0.8


def test_identical_embeddings_rank_in_the_middle_and_never_lose_against_themselves():
    vectors = similarity.unit(np.tile(np.random.default_rng(0).normal(size=(1, 257)), (50, 1)).astype(np.float32))
    ranks = similarity.ranks(vectors, vectors, np.arange(50), np.arange(50), size=7)
    assert (ranks == 25.5).all()


def test_a_query_without_its_group_is_named():
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError, match="group 'lost'"):
        similarity.ranks(ones, ones, np.array(["a", "lost"]), np.array(["a", "b"]))


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=30)
def test_top_k_is_the_sorted_product(seed, k):
    rng = np.random.default_rng(seed)
    queries, gallery = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    scores, indices = similarity.top_k(queries, gallery, k, size=2)
    full = queries @ gallery.T
    assert np.array_equal(indices, np.argsort(-full, 1, kind="stable")[:, :k])
    assert np.allclose(scores, -np.sort(-full, 1)[:, :k])


def test_ratio_margin_written_out():
    x = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    y = similarity.unit(np.array([[1.0, 0.0], [1.0, 1.0]], np.float32))
    # k = 1: nearest cosines are 1 and sin 45° for x, 1 and cos 45° for y
    assert similarity.ratio_margin(x, y, k=1) == pytest.approx([1.0, 1.0])
    hub = np.array([[1.0, 0.0]] * 2, np.float32)
    assert similarity.ratio_margin(x, hub, k=2)[1] < similarity.ratio_margin(x, hub, k=2)[0]


def test_unit_names_the_zero_row():
    with pytest.raises(ValueError, match="row 1"):
        similarity.unit(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32))
