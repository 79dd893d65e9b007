"""Ranks and neighbours against brute force, with ties, compiled and not, in one tile and in many."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.neighbors import NearestNeighbors

from xmalign_lab import similarity

seeds, tiles = st.integers(0, 10_000), st.sampled_from([2, 3, 5, 768])
both_kernels = pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "compiled"])


@contextmanager
def setting(compiled, tile=5):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "SMALL", 0 if compiled else 2**30)
        patch.setattr(similarity, "TILE", tile)
        patch.setattr(similarity, "BAND", max(1, tile // 2))
        yield


def small_integers(seed, n=7, m=11, groups=4):
    """Vectors with many exact ties, several correct items on both sides, and a penalty that float32 holds exactly."""
    rng = np.random.default_rng(seed)
    vectors = [rng.integers(-1, 2, (rows, 3)).astype(np.float32) for rows in (n, m)]
    names = [rng.integers(0, groups, rows) for rows in (n, m)]
    return *vectors, *names, rng.integers(-2, 3, m).astype(np.float32) / 2


def brute_ranks(scores, query_groups, gallery_groups):
    result = []
    for row, group in zip(scores, query_groups, strict=True):
        correct = gallery_groups == group
        if not correct.any():
            result.append(np.nan)
            continue
        best, rivals = row[correct].max(), row[~correct]
        result.append(1 + (rivals > best).sum() + (rivals == best).sum() / 2)
    return np.array(result)


# Ranks


@both_kernels
@given(seeds, tiles)
@settings(max_examples=60, deadline=None)
def test_ranks_in_both_directions_against_brute_force(compiled, seed, tile):
    left, right, left_groups, right_groups, penalty = small_integers(seed)
    scores = left @ right.T
    with setting(compiled, tile):
        forward, backward = similarity.both_ranks(left, right, left_groups, right_groups)
        punished = similarity.both_ranks(left, right, left_groups, right_groups, penalty)
    assert np.array_equal(forward, brute_ranks(scores, left_groups, right_groups), equal_nan=True)
    assert np.array_equal(backward, brute_ranks(scores.T, right_groups, left_groups), equal_nan=True)
    assert np.array_equal(punished[0], brute_ranks(scores - penalty, left_groups, right_groups), equal_nan=True)
    assert np.array_equal(punished[1], backward, equal_nan=True)  # one number for a whole list changes no order


@both_kernels
@given(seeds, tiles)
@settings(max_examples=40, deadline=None)
def test_ranks_of_one_correct_item_against_scipy(compiled, seed, tile):
    queries, gallery, *_, penalty = small_integers(seed)
    query_groups = np.random.default_rng(seed).permutation(11)[:7]
    with setting(compiled, tile):
        ours = similarity.ranks(queries, gallery, query_groups, np.arange(11), penalty=penalty)
    for rank, query, group in zip(ours, queries, query_groups, strict=True):
        assert rank == rankdata(-(query @ gallery.T - penalty), method="average")[group]


@both_kernels
@given(seeds)
@settings(max_examples=40, deadline=None)
def test_ranks_of_every_correct_item_against_scipy(compiled, seed):
    queries, gallery, query_groups, gallery_groups, penalty = small_integers(seed)
    keep = np.isin(query_groups, gallery_groups)
    queries, query_groups = queries[keep], query_groups[keep]
    with setting(compiled):
        query, item, rank = similarity.positive_ranks(queries, gallery, query_groups, gallery_groups, penalty)
    assert np.array_equal(np.stack([query, item]), np.nonzero(query_groups[:, None] == gallery_groups))
    expected = [rankdata(-(row @ gallery.T - penalty), method="average") for row in queries]
    assert rank.tolist() == [expected[i][j] for i, j in zip(query, item, strict=True)]


def test_several_correct_items_count_once_or_each():
    queries, gallery = np.array([[1.0, 0.0]], np.float32), np.array([[0.5, 0], [0.9, 0], [0.7, 0], [0.8, 0]], np.float32)
    groups = np.array(["a", "b", "a", "a"])
    assert similarity.ranks(queries, gallery, np.array(["a"]), groups)[0] == 2  # only 0.9 is better than 0.8
    query, item, rank = similarity.positive_ranks(queries, gallery, np.array(["a"]), groups)
    assert query.tolist() == [0, 0, 0] and item.tolist() == [0, 2, 3] and rank.tolist() == [4, 3, 2]


@both_kernels
@pytest.mark.parametrize("width", [48, 257, 1024])
@pytest.mark.parametrize("positive", [False, True])
def test_identical_embeddings_rank_in_the_middle_and_never_lose_against_themselves(compiled, width, positive):
    vector = np.random.default_rng(width).normal(size=(1, width))
    vectors, groups = similarity.unit(np.tile(np.abs(vector) if positive else vector, (50, 1))), np.arange(50)
    with setting(compiled, 7):
        ranks = similarity.both_ranks(vectors, vectors, groups, groups)
        assert (similarity.positive_ranks(vectors, vectors, groups, groups)[2] == 25.5).all()
    assert (np.stack(ranks) == 25.5).all()


@both_kernels
@pytest.mark.parametrize("tile", [64, 768])
def test_rounding_makes_no_order_among_equal_scores(compiled, tile):
    # Signs over √47: whole numbers say exactly which products are equal; the float32 ones differ in their last digits.
    rng = np.random.default_rng(0)
    left, right = (rng.choice([-1, 1], (300, 47)) for _ in range(2))
    right[100:200] = right[:100]
    groups = rng.permutation(300) % 150
    with setting(compiled, tile):
        forward, backward = similarity.both_ranks(similarity.unit(left), similarity.unit(right), groups, np.arange(300) % 150)
    assert np.array_equal(forward, brute_ranks(left @ right.T, groups, np.arange(300) % 150))
    assert np.array_equal(backward, brute_ranks(right @ left.T, np.arange(300) % 150, groups))


def test_compiled_or_not_the_ranks_are_the_same():
    rng = np.random.default_rng(1)
    left, right = (similarity.unit(rng.normal(size=(rows, 24))) for rows in (900, 1100))
    groups, penalty = [rng.integers(0, 400, rows) for rows in (900, 1100)], rng.normal(size=1100) / 20
    results = []
    for compiled, tile in ((False, 768), (True, 768), (True, 100)):
        with setting(compiled, tile):
            results.append(similarity.both_ranks(left, right, *groups, penalty))
    for forward, backward in results[1:]:
        assert np.array_equal(forward, results[0][0], equal_nan=True) and np.array_equal(backward, results[0][1], equal_nan=True)
    assert np.isnan(results[0][0]).any() and (results[0][0] > 1).any()


@both_kernels
def test_a_row_without_counterpart_is_no_query_but_stays_a_rival(compiled):
    left, right = np.array([[1, 0], [0, 1]], np.float32), np.array([[0.5, 0], [1, 0]], np.float32)
    with setting(compiled):
        forward, backward = similarity.both_ranks(left, right, np.array(["a", "b"]), np.array(["a", "c"], object))
    assert np.array_equal(forward, [2, np.nan], equal_nan=True) and np.array_equal(backward, [1, np.nan], equal_nan=True)


def test_a_query_without_its_group_is_named():
    ones = np.ones((2, 2), np.float32)
    for function in (similarity.ranks, similarity.positive_ranks):
        with pytest.raises(ValueError, match="group 'lost'"):
            function(ones, ones, np.array(["a", "lost"]), np.array(["a", "b"]))


def test_groups_of_numbers_strings_and_objects_match_by_what_they_say():
    vectors = np.eye(3, dtype=np.float32)
    for groups in (np.array(["0", "1", "2"]), np.array([0, 1, 2], object), np.array(["0", 1, 2], object)):
        assert similarity.ranks(vectors, vectors, np.arange(3), groups).tolist() == [1, 1, 1]


@both_kernels
def test_no_queries_give_no_ranks(compiled):
    none, gallery = np.empty((0, 2), np.float32), np.ones((3, 2), np.float32)
    with setting(compiled):
        assert similarity.ranks(none, gallery, np.array([], int), np.arange(3)).shape == (0,)
        assert [len(part) for part in similarity.positive_ranks(none, gallery, np.array([], int), np.arange(3))] == [0, 0, 0]


def test_what_would_be_a_silent_mistake_raises():
    ones, groups = np.ones((2, 2), np.float32), np.arange(2)
    broken = np.array([[1, 0], [np.nan, 1]], np.float32)
    with pytest.raises(ValueError, match="gallery, row 1: not a finite number"):
        similarity.ranks(ones, broken, groups, groups)
    with pytest.raises(ValueError, match="queries, row 1"):
        similarity.top_k(broken, ones, 1)
    with pytest.raises(ValueError, match="penalty, row 0"):
        similarity.ranks(ones, ones, groups, groups, penalty=np.array([np.inf, 0]))
    with pytest.raises(ValueError, match=r"penalty \(3,\) must be \(2,\)"):
        similarity.top_k(ones, ones, 1, np.zeros(3))
    with pytest.raises(ValueError, match="3 and 2 groups for 2 and 2 vectors"):
        similarity.both_ranks(ones, ones, np.arange(3), groups)
    with pytest.raises(ValueError, match=r"queries \(2, 2\) and gallery \(2, 3\)"):
        similarity.top_k(ones, np.ones((2, 3)), 1)
    with pytest.raises(ValueError, match="m ≥ 1"):
        similarity.top_k(ones, np.ones((0, 2)), 1)


def test_arrays_read_only_strided_or_double_are_as_good():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(20, 12))
    plain, strided, groups = np.ascontiguousarray(wide[:, ::2], np.float32), wide[:, ::2], np.arange(20)
    plain.flags.writeable = False
    for compiled in (False, True):
        with setting(compiled):
            expected, *ours = (similarity.both_ranks(one, one[::-1], groups, groups) for one in (plain.copy(), plain, strided))
        assert np.array_equal(expected, ours[0]) and np.array_equal(expected, ours[1])


# Memory and threads


@both_kernels
def test_no_more_than_a_tile_per_thread_is_ever_held(compiled, monkeypatch):
    vectors, shapes = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32), []
    monkeypatch.setattr(torch, "mm", lambda *args, _mm=torch.mm, **kwargs: shapes.append((r := _mm(*args, **kwargs)).shape) or r)
    with setting(compiled, 6):
        similarity.both_ranks(vectors, vectors, np.arange(23), np.arange(23))
    assert max(map(max, shapes)) == 6 and sum(shape == (6, 6) for shape in shapes) == 9


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_the_work_and_the_setting_is_left_as_it_was(threads):
    rng, before = np.random.default_rng(0), torch.get_num_threads()
    left, right = (similarity.unit(rng.normal(size=(90, 6))) for _ in range(2))
    with setting(compiled=True), ThreadPoolExecutor(1) as another:
        expected = similarity.both_ranks(left, right, np.arange(90), np.arange(90))
        try:
            torch.set_num_threads(threads)
            ours = similarity.both_ranks(left, right, np.arange(90), np.arange(90))
            assert torch.get_num_threads() == threads
            assert another.submit(torch.get_num_threads).result() == threads
        finally:
            torch.set_num_threads(before)
    assert np.array_equal(expected, ours)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_any_thread_stops_the_others_and_is_raised(failing):
    done, before, both = [], torch.get_num_threads(), threading.Barrier(2, timeout=60)

    def work(thread, start):
        if start < 2:
            both.wait()  # each thread has begun, and one of them now fails
            if thread == failing:
                raise RuntimeError("in a thread")
        time.sleep(0.01)
        done.append(start)

    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError, match="in a thread"):
            similarity._in_threads(work, range(1_000))
    finally:
        torch.set_num_threads(before)
    assert len(done) < 500


def test_importing_costs_neither_torch_nor_numba():
    code = "import sys, xmalign_lab.similarity; print([name for name in ('torch', 'numba') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


# Neighbours


@both_kernels
@given(seeds, st.integers(1, 12), tiles)
@settings(max_examples=60, deadline=None)
def test_top_k_is_the_stably_sorted_product(compiled, seed, k, tile):
    queries, gallery, *_, penalty = small_integers(seed)
    with setting(compiled, tile):
        scores, indices = similarity.top_k(queries, gallery, k, penalty)
    full = queries @ gallery.T - penalty
    assert np.array_equal(indices, np.argsort(-full, 1, kind="stable")[:, :k])
    assert np.array_equal(scores, -np.sort(-full, 1)[:, :k])


def test_a_long_list_of_neighbours_is_the_same(monkeypatch):
    queries, gallery, *_ = small_integers(0, n=30, m=40)
    expected = similarity.top_k(queries, gallery, 20)
    monkeypatch.setattr(similarity, "LONGEST", 5)
    with setting(compiled=True):
        assert all(map(np.array_equal, similarity.top_k(queries, gallery, 20), expected))


@pytest.fixture(scope="module")
def space():
    rng = np.random.default_rng(3)
    left = similarity.unit(rng.normal(size=(60, 8)))
    return left, similarity.unit(np.concatenate([left + rng.normal(size=(60, 8)) / 3, rng.normal(size=(15, 8))]))


def nearest(queries, gallery, k):
    distance, index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(gallery).kneighbors(queries)
    return 1 - distance, index


@both_kernels
def test_neighbours_against_scikit_learn(space, compiled):
    left, right = space
    forward, backward = nearest(left, right, 1)[1][:, 0], nearest(right, left, 1)[1][:, 0]
    with setting(compiled, 16):
        pairs = similarity.mutual_neighbours(left, right)
        occurrence = similarity.k_occurrence(left, right, 5)
        penalty = similarity.csls_penalty(left, right, 10)
    assert pairs.tolist() == [[i, j] for i, j in enumerate(forward) if backward[j] == i] and 0 < len(pairs) < 60
    assert np.array_equal(occurrence, np.bincount(nearest(left, right, 5)[1].ravel(), minlength=75))
    assert occurrence.sum() == 5 * 60 and len(occurrence) == 75
    assert penalty == pytest.approx(nearest(right, left, 10)[0].mean(1) / 2, abs=1e-6)


def test_ranks_with_the_penalty_are_ranks_by_csls(space):
    left, right = space
    mean_forward, mean_backward = nearest(left, right, 10)[0].mean(1), nearest(right, left, 10)[0].mean(1)
    csls = 2 * left @ right.T - mean_forward[:, None] - mean_backward
    groups = np.arange(60) % 30, np.arange(75) % 30
    ours = similarity.ranks(left, right, *groups, penalty=similarity.csls_penalty(left, right, k=10))
    assert np.array_equal(ours, brute_ranks(csls, *groups))
    assert not np.array_equal(ours, similarity.ranks(left, right, *groups))


def test_the_margin_passes_over_a_hub():
    # Every left row's nearest is the hub, right row 0; its own translation, a bit farther, stands out of its surroundings.
    left = similarity.unit(np.array([[1, 0.3, 0, 0], [1, 0, 0.3, 0], [1, 0, 0, 0.3]]))
    right = similarity.unit(np.array([[1, 0.1, 0.1, 0.1], [0.9, 0.8, 0, 0], [0.9, 0, 0.8, 0], [0.9, 0, 0, 0.8]]))
    assert similarity.top_k(left, right, 1)[1].ravel().tolist() == [0, 0, 0]
    assert similarity.best_by_margin(left, right, k=2).tolist() == [1, 2, 3]


def test_best_by_margin_against_the_definition(space):
    left, right = space
    around_left, around_right = nearest(left, right, 4)[0].mean(1), nearest(right, left, 4)[0].mean(1)
    margin = (left @ right.T) / ((around_left[:, None] + around_right) / 2)
    outside = np.ones(margin.shape, bool)
    np.put_along_axis(outside, nearest(left, right, 4)[1], False, axis=1)
    best = similarity.best_by_margin(left, right)
    assert np.array_equal(best, np.where(outside, -np.inf, margin).argmax(1))
    assert similarity.ratio_margin(left, right[:60]).shape == (60,)


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


def test_mutual_neighbours_under_csls_are_those_of_the_full_matrix_and_a_hub_loses_its_place():
    rng = np.random.default_rng(3)
    left, right = similarity.unit(rng.normal(size=(40, 6))), similarity.unit(rng.normal(size=(30, 6)))
    right[0] = similarity.unit(left.mean(0, keepdims=True))[0]  # near to everything
    cosines = (left @ right.T).astype(np.float64)
    near = np.sort(cosines, 1)[:, -5:].mean(1)[:, None] + np.sort(cosines, 0)[-5:].mean(0)[None]
    for scores, neighbours in ((cosines, 0), (2 * cosines - near, 5)):
        expected = [(i, j) for i, j in enumerate(scores.argmax(1)) if scores[:, j].argmax() == i]
        assert similarity.mutual_neighbours(left, right, neighbours).tolist() == [list(pair) for pair in expected]
    assert not np.array_equal(similarity.mutual_neighbours(left, right), similarity.mutual_neighbours(left, right, 5))
