"""Tests and intervals against scipy, statsmodels and brute force, and against the null: they must not cry wolf."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.evaluate import significance as s


def clustered(rng, families: int = 60, largest: int = 5) -> np.ndarray:
    """Families of unequal size, as (queries,)."""
    return np.repeat(np.arange(families), rng.integers(1, largest + 1, families))


def reciprocal_ranks(rng, families: np.ndarray, times: int = 2, shift: float = 0.0) -> np.ndarray:
    """(times, queries) reciprocal ranks of methods that share the queries' difficulty: skewed, alike within a family."""
    each = families.max() + 1
    difficulty = np.abs(rng.normal(1.5, 1.5, each))
    ranks = [np.exp(difficulty + rng.normal(0, 0.8, each))[families] * rng.lognormal(0, 0.3, len(families)) for _ in range(times)]
    ranks[0] = ranks[0] * np.exp(-shift)
    return 1 / np.maximum(1, np.rint(ranks))


def at_most(p: np.ndarray, alpha: float) -> bool:
    return np.mean(p <= alpha) <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / len(p))


def test_under_the_null_they_fall_below_alpha_no_more_often_than_alpha():
    rng, p = np.random.default_rng(0), []
    for i in range(400):
        families = clustered(rng)
        a, b = reciprocal_ranks(rng, families)
        found = s.paired_bootstrap(a, b, families, draws=499, seed=i)
        p.append((found.p, s.paired_permutation(a, b, families, draws=499, seed=i), not found.low <= 0 <= found.high))
    p = np.array(p, float)
    for alpha in (0.01, 0.05, 0.1):
        assert at_most(p[:, 0], alpha) and at_most(p[:, 1], alpha), alpha
        assert np.mean(p[:, 1] <= alpha) > alpha / 4, "a test that never rejects would pass as well"
    assert p[:, 2].mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400), "intervals cover zero"


def test_rows_in_place_of_families_would_cry_wolf():
    rng, p = np.random.default_rng(0), []
    for i in range(150):
        families = clustered(rng, families=30, largest=9)
        a, b = reciprocal_ranks(rng, families)
        p.append(s.paired_permutation(a, b, np.arange(len(a)), draws=299, seed=i))
    assert not at_most(np.array(p), 0.05), "the calibration test can fail"


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0, 0.02, 0.1])
def test_mixed_reading_under_the_null_when_seeds_differ_little_and_much(spread, seeds):
    rng, p = np.random.default_rng(1), []
    for i in range(300):
        families = clustered(rng, families=40)
        a, b = (reciprocal_ranks(rng, families, times=seeds) + rng.normal(0, spread, (seeds, 1)) for _ in range(2))
        p.append(s.mixed_bootstrap(a, b, families, draws=300, seed=i).p)
    assert all(at_most(np.array(p), alpha) for alpha in (0.01, 0.05, 0.1))


def test_a_planted_difference_is_found():
    rng = np.random.default_rng(2)
    families = clustered(rng, families=300)
    a, b = reciprocal_ranks(rng, families, shift=0.6)
    found = s.paired_bootstrap(a, b, families, draws=999)
    assert found.value == pytest.approx(a.mean() - b.mean()) and 0 < found.low < found.value < found.high
    assert found.p == s.paired_permutation(a, b, families, draws=999) == 1 / 1000
    back = s.paired_bootstrap(b, a, families, draws=999)
    assert (back.value, back.low, back.high, back.p) == pytest.approx((-found.value, -found.high, -found.low, found.p))
    seeds = [reciprocal_ranks(rng, families, shift=0.6) for _ in range(5)]
    mixed = s.mixed_bootstrap(*np.swapaxes(seeds, 0, 1), families, draws=999)
    assert mixed.low > 0 and mixed.p < 0.01


def test_power_is_what_the_smallest_difference_promises():
    rng, found = np.random.default_rng(3), []
    families = clustered(rng, families=150)
    a, b = reciprocal_ranks(rng, families)
    needed = s.smallest_difference(a, b, families, power=0.8)
    centred = a - b - (a - b).mean()
    for i in range(200):  # other families from the same kind, with just that difference
        picked = rng.integers(150, size=150)
        rows = [np.flatnonzero(families == f) for f in picked]
        d = centred[np.concatenate(rows)] + needed
        found.append(s.paired_bootstrap(d, np.zeros_like(d), np.repeat(np.arange(150), [len(r) for r in rows]), 300, i).p)
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.8, abs=0.09)


def test_identical_systems_differ_in_nothing():
    values = np.random.default_rng(0).random(40)
    families = np.arange(40) // 2
    assert s.paired_bootstrap(values, values, families, draws=99) == (0, 0, 0, 1)
    assert s.paired_permutation(values, values, families, draws=99) == 1
    assert s.mixed_bootstrap(np.tile(values, (3, 1)), np.tile(values, (3, 1)), families, draws=99) == (0, 0, 0, 1)


def test_permutation_against_every_sign_and_against_scipy():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(4)
    families = np.repeat(np.arange(9), [1, 3, 2, 1, 4, 1, 2, 2, 1])
    d = rng.normal(0.3, 1, len(families))
    sums = np.bincount(families, d)
    every = np.array(list(itertools.product([-1, 1], repeat=9))) @ sums
    exact = np.mean(np.abs(every) >= abs(sums.sum()) - 1e-12)
    theirs = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=np.inf)  # one sample: all signs
    ours = s.paired_permutation(d, np.zeros_like(d), families, draws=40_000)
    assert theirs.pvalue == pytest.approx(exact) and ours == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))


def test_bootstrap_interval_against_scipy_on_paired_values():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(5)
    a, b = reciprocal_ranks(rng, np.arange(300), shift=0.3)
    theirs = bootstrap((a, b), lambda x, y, axis: (x - y).mean(axis), paired=True, n_resamples=9999, method="percentile", rng=rng)
    ours = s.paired_bootstrap(a, b, np.arange(300))
    assert ours[1:3] == pytest.approx(theirs.confidence_interval, abs=0.002)
    means = s.bootstrap_means(np.array([a, b]), np.arange(300))
    assert means.std(0) == pytest.approx([x.std() / np.sqrt(300) for x in (a, b)], rel=0.03)


def test_systems_share_their_resamples_and_blocks_leave_no_seam(monkeypatch):
    rng = np.random.default_rng(6)
    families = clustered(rng)
    a, b = reciprocal_ranks(rng, families)
    both, flips = (f(np.array([a, b]), families, 400, 3) for f in (s.bootstrap_means, s.flipped_means))
    np.testing.assert_allclose(both[:, :1] - both[:, 1:], s.bootstrap_means((a - b)[None], families, 400, 3))
    np.testing.assert_allclose(flips[:, :1] - flips[:, 1:], s.flipped_means((a - b)[None], families, 400, 3), atol=1e-12)
    monkeypatch.setattr(s, "CELLS", 333)  # five resamples at a time
    np.testing.assert_allclose(both, s.bootstrap_means(np.array([a, b]), families, 400, 3))
    np.testing.assert_allclose(flips, s.flipped_means(np.array([a, b]), families, 400, 3))


def test_a_resample_written_out():
    values, families = np.array([[1.0, 2, 6], [0, np.nan, 3]]), ["x", "x", "y"]
    means = s.bootstrap_means(values, families, 200)  # xx, xy, yy
    assert {tuple(row) for row in means.round(9)} == {(1.5, 0), (3, 1.5), (6, 3)}
    asked = s.bootstrap_means([[1.0, np.nan], [1, 2]], ["x", "y"], 200)[:, 0]
    assert 0.1 < np.isnan(asked).mean() < 0.4 and set(asked[~np.isnan(asked)]) == {1}, "a draw that asked nothing has no mean"
    assert s.reading(asked, 1.0) == (1, 1, 1, pytest.approx(1 / (1 + np.sum(~np.isnan(asked)))))
    flips = s.flipped_means(values[:1], families, 200)
    assert sorted(set(flips[:, 0].round(9))) == [-3, -1, 1, 3]


def test_seeds_are_drawn_as_well_and_may_leave_queries_out():
    rng = np.random.default_rng(7)
    families = clustered(rng, families=80)
    shared = reciprocal_ranks(rng, families, times=1)[0]
    a = shared + rng.normal(0, 0.05, (6, 1)) + rng.normal(0, 0.01, (6, len(shared)))
    b = np.tile(shared, (6, 1))
    mixed = s.mixed_bootstrap(a, b, families)
    by_seed = (a - b).mean(1)  # nothing but the seeds differs: a t-interval over them
    from scipy.stats import t

    low, high = t.interval(0.95, 5, by_seed.mean(), by_seed.std(ddof=1) / np.sqrt(6))
    assert mixed.value == pytest.approx(by_seed.mean()) and (mixed.low, mixed.high) == pytest.approx((low, high), abs=0.006)
    drawn = s.bootstrap_means((a - b)[None], families)
    assert drawn.std() == pytest.approx(by_seed.std(ddof=1) / np.sqrt(6), rel=0.04), "as many seeds drawn as that needs"
    families_only = s.paired_bootstrap(a.mean(0), b.mean(0), families)
    assert mixed.high - mixed.low > 5 * (families_only.high - families_only.low)
    fold = families % 5  # seed k with fold k: each query has one value
    holes = np.where(fold == np.arange(5)[:, None], a[:5], np.nan)
    nested = s.mixed_bootstrap(holes, b[:5], families)
    assert nested.value == pytest.approx(np.nanmean(holes - b[:5])) and nested.low < nested.value < nested.high


def test_without_differences_between_seeds_the_mixed_reading_is_the_families_own():
    rng = np.random.default_rng(8)
    families = clustered(rng, families=80)
    a, b = reciprocal_ranks(rng, families, shift=0.3)
    mixed, alone = s.mixed_bootstrap(np.tile(a, (5, 1)), np.tile(b, (5, 1)), families), s.paired_bootstrap(a, b, families)
    assert mixed == pytest.approx(alone, abs=0.006)


def test_pairwise_agrees_with_one_pair_at_a_time():
    rng = np.random.default_rng(9)
    families = clustered(rng)
    values = np.stack([reciprocal_ranks(rng, families, times=2) for _ in range(3)])[:, :, None]  # 3 systems, 2 languages
    rows = {row[:3]: row[3:] for row in s.pairwise(values, families, 2000, 5)}
    assert len(rows) == 6 * 3, "three systems and three pairs, in two languages and their mean"
    for column in (0, 1):
        a, b = values[0, column, 0], values[2, column, 0]
        found = rows[0, 2, column]
        assert found[:4] == pytest.approx(s.paired_bootstrap(a, b, families, 2000, 5))
        assert found[4] == s.paired_permutation(a, b, families, 2000, 5)
        assert found[5] == pytest.approx(s.smallest_difference(a, b, families), rel=0.06)
    a, b = values[0, :, 0].mean(0), values[2, :, 0].mean(0)  # all languages ask the same: their mean is a mean per query
    assert rows[0, 2, 2][:4] == pytest.approx(s.paired_bootstrap(a, b, families, 2000, 5))
    assert rows[1, 1, 0][0] == pytest.approx(values[1, 0].mean())


def test_standard_error_against_statsmodels():
    from statsmodels.regression.linear_model import OLS

    rng = np.random.default_rng(10)
    families = clustered(rng)
    a, b = reciprocal_ranks(rng, families)
    fit = OLS(a - b, np.ones((len(a), 1))).fit(cov_type="cluster", cov_kwds={"groups": families})
    assert s.standard_error(a - b, families) == pytest.approx(fit.bse[0])
    assert s.smallest_difference(a, b, families) == pytest.approx((1.959964 + 0.841621) * fit.bse[0], rel=1e-5)


@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=30))
@settings(max_examples=15, deadline=None)
def test_corrections_against_statsmodels(p):
    from statsmodels.stats.multitest import multipletests

    p = np.array(p)
    np.testing.assert_allclose(s.holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(s.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])
    assert (s.holm(p) >= s.benjamini_hochberg(p) - 1e-12).all() and (s.benjamini_hochberg(p) >= p - 1e-12).all()


def test_holm_written_out():
    assert s.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    for correct in (s.holm, s.benjamini_hochberg):
        assert correct([]).tolist() == []
        with pytest.raises(ValueError):
            correct([0.5, np.nan])


def test_spread_over_seeds():
    found = s.over_seeds({0: np.array([0.1, 0.3]), 1: np.array([0.3]), 2: np.array([0.4, np.nan])})
    assert found == pytest.approx((0.3, 0.1, 0.2, 3))
    with pytest.raises(ValueError, match="at least two"):
        s.over_seeds({0: np.ones(3)})


def test_what_cannot_be_tested_is_an_error():
    ones = np.ones(4)
    with pytest.raises(ValueError, match="one family only"):
        s.paired_bootstrap(ones, ones, ["x"] * 4)
    with pytest.raises(ValueError, match="one family per query"):
        s.paired_permutation(ones, ones, [1, 2])
    with pytest.raises(ValueError, match="paired values of the same queries"):
        s.paired_bootstrap(ones, np.ones(3), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="finite values"):
        s.paired_bootstrap(ones, np.array([1, 2, 3, np.inf]), [1, 2, 3, 4])
    for seeds in (1, 2):
        with pytest.raises(ValueError, match=f"{seeds} seeds: at least three are needed"):
            s.mixed_bootstrap(np.tile(ones, (seeds, 1)), np.zeros((seeds, 4)), [1, 2, 3, 4])
    values = np.random.default_rng(0).random((2, 1, 2, 4))  # two systems, one language, two seeds
    with pytest.raises(ValueError, match="two seeds: their spread is too rough"):
        s.pairwise(values, np.arange(4), 50)


def test_queries_that_nobody_asked_bring_no_family_with_them():
    rng, hole = np.random.default_rng(11), np.nan
    families = clustered(rng)
    values = reciprocal_ranks(rng, families)
    more = np.concatenate([values, np.full((2, 30), hole)], axis=1), np.concatenate([families, 1000 + np.arange(30)])
    assert s.standard_error(more[0][0], more[1]) == s.standard_error(values[0], families)
    np.testing.assert_array_equal(s.bootstrap_means(*more, 50), s.bootstrap_means(values, families, 50))
    np.testing.assert_array_equal(s.flipped_means(*more, 50), s.flipped_means(values, families, 50))
    one = np.array([1.0, 0.5, hole, hole]), np.zeros(4), ["x", "x", "y", "z"]
    for test in (s.paired_bootstrap, s.paired_permutation, s.smallest_difference):
        with pytest.raises(ValueError, match="one family only"):
            test(*one)
    with pytest.raises(ValueError, match="one family only"):
        s.standard_error(one[0], one[2])
    with pytest.raises(ValueError, match="one family only"):
        s.mixed_bootstrap(np.tile(one[0], (3, 1)), np.zeros((3, 4)), one[2])


@pytest.mark.parametrize("families", [["x", None, "y"], ["x", np.nan, "y"], np.array([1, np.nan, 2])])
def test_a_missing_family_is_an_error_and_no_family_of_its_own(families):
    for test in (s.paired_bootstrap, s.paired_permutation, s.smallest_difference):
        with pytest.raises(ValueError, match="1 of 3 queries have no family"):
            test(np.ones(3), np.zeros(3), families)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_p_is_never_zero_and_never_above_one(values, seed):
    a, families = np.array(values), np.arange(len(values)) % max(2, len(values) // 2)
    found = s.paired_bootstrap(a, a[::-1], families, 50, seed)
    p = s.paired_permutation(a, a[::-1], families, 50, seed)
    assert 1 / 51 <= found.p <= 1 and 1 / 51 <= p <= 1 and found.low <= found.high
