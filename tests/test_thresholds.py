"""Thresholds: their arithmetic written out, mixtures against a known one, and what happens when nothing is left."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm
from sklearn.mixture import GaussianMixture

from xmalign_lab.corpus import CorpusError, Pairs
from xmalign_lab.pairs import thresholds
from xmalign_lab.schedules import Constant, Linear

SOURCES = ["s"] * 10 + ["t"] * 5
P = np.concatenate([np.arange(10) / 10, np.arange(5) / 100])


def pairs(sources=SOURCES):
    ids = range(len(sources))
    return Pairs(
        pd.DataFrame({"left": [f"a{i}" for i in ids], "right": [f"b{i}" for i in ids], "source": sources, "weight": 0.5})
    )


def test_a_quantile_drops_half_at_first_and_a_tenth_at_last_of_each_language():
    for progress, dropped in ((0, 0.5), (0.5, 0.3), (1, 0.1)):
        at = thresholds.quantile(P, SOURCES, progress)
        kept = thresholds.apply(pairs(), P, at, hard=True).rows.source.value_counts()
        assert 1 - kept["s"] / 10 == pytest.approx(dropped) and list(at) == ["s", "t"]
        assert 1 - kept["t"] / 5 <= dropped, "a hard language keeps its best too, at its own height"
    assert thresholds.quantile(P, SOURCES, 0)["t"] < 0.1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0, 0.99))
def test_a_quantile_never_drops_more_than_its_share_and_always_leaves_the_best(values, share):
    p = np.array(values)
    line = thresholds.quantile(p, ["s"] * len(p), 0.3, Constant(share))["s"]
    assert (p < line).mean() <= share + 1e-9 and (p >= line).any()


def test_a_schedule_edited_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"the dropped share is 1.2 at progress 1; it must lie in \[0, 1\)"):
        thresholds.quantile(P, SOURCES, 1, Linear(0.5, 1.2))


def test_a_moving_average_follows_each_language_and_remembers_what_is_away():
    first = thresholds.moving(P, SOURCES)
    assert first == pytest.approx({"s": 0.45, "t": 0.02})
    second = thresholds.moving([1.0, 0.5], ["s", "u"], first, decay=0.9)
    assert second == pytest.approx({"s": 0.9 * 0.45 + 0.1, "t": 0.02, "u": 0.5})
    assert first == pytest.approx({"s": 0.45, "t": 0.02}), "the old state is left as it was"
    state = first
    for _ in range(200):
        state = thresholds.moving(P + 0.05, SOURCES, state)
    assert state == pytest.approx({"s": 0.5, "t": 0.07})
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), not 1"):
        thresholds.moving(P, SOURCES, decay=1)


# Mixtures


def two(kind, n=4000, share=0.4, seed=0):
    rng = np.random.default_rng(seed)
    upper = rng.random(n) >= share
    low, high = (norm(0.2, 0.1), norm(0.6, 0.12)) if kind == "gaussian" else (beta(4, 16), beta(14, 6))
    values = np.where(upper, high.rvs(n, random_state=rng), low.rvs(n, random_state=rng))
    posterior = (1 - share) * high.pdf(values) / ((1 - share) * high.pdf(values) + share * low.pdf(values))
    return values, upper, posterior


@pytest.mark.parametrize("kind", ["gaussian", "beta"])
@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_a_mixture_finds_the_posterior_that_made_it(kind, share):
    values, upper, posterior = two(kind, share=share)
    ours = thresholds.mixture(values, kind)
    middle = (values > 0.2) & (values < 0.6)
    assert np.abs(ours - posterior)[middle].mean() < 0.05 and abs(ours.mean() - upper.mean()) < 0.04


def test_gaussian_against_scikit_learn_between_the_means_and_held_beyond():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 0.3, 500), rng.normal(2, 2.0, 500)])
    fit = GaussianMixture(2, random_state=0, means_init=np.quantile(values, [[0.1], [0.9]]), tol=1e-6, max_iter=1000).fit(
        values[:, None]
    )
    theirs, (low, high) = fit.predict_proba(values[:, None])[:, fit.means_.argmax()], np.sort(fit.means_[:, 0])
    ours, between = thresholds.mixture(values), (values > low) & (values < high)
    np.testing.assert_allclose(ours[between], theirs[between], atol=0.01)
    assert theirs[values < -2].min() > 0.9, "a wide component claims the lower tail"
    assert ours[values < -2].max() < 0.5


def test_a_wide_beta_component_does_not_claim_both_tails():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.beta(40, 120, 600), rng.beta(1.5, 1.2, 600)])
    ours = thresholds.mixture(values, "beta")
    assert ours[values < 0.1].max() < 0.5 < ours[values > 0.6].min()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.floats(0.01, 100), st.floats(-30, 30), st.sampled_from(["gaussian", "beta"]))
def test_a_mixture_depends_on_neither_scale_nor_offset(seed, scale, offset, kind):
    values = two(kind, n=60, seed=seed)[0]
    one, other = thresholds.mixture(values, kind), thresholds.mixture(values * scale + offset, kind)
    np.testing.assert_allclose(one, other, atol=0.02)
    assert (one >= 0).all() and (one <= 1).all()


@pytest.mark.parametrize("kind", ["gaussian", "beta"])
def test_few_or_equal_values_have_no_two_components(kind):
    for values in ([], [0.3], [0.3] * 7, [0.3, 0.3 + 1e-12]):
        with pytest.raises(ValueError, match=f"all {len(values)} values are equal.*keep all, or set a fixed threshold"):
            thresholds.mixture(values, kind)
    p = thresholds.mixture([0.1, 0.9], kind)
    assert p[0] < 0.1 and p[1] > 0.9
    p = thresholds.mixture([0.1] * 5 + [0.9] * 3, kind)
    assert (p[:5] < 0.1).all() and (p[5:] > 0.9).all()


def test_a_mixture_of_what():
    with pytest.raises(ValueError, match="unknown mixture 'cauchy'; known are 'gaussian' and 'beta'"):
        thresholds.mixture([0, 1], "cauchy")
    with pytest.raises(ValueError, match="value 1 of the mixture is not finite"):
        thresholds.mixture([0.1, np.nan, 0.3])


# Applying


def test_soft_and_hard():
    soft, hard = (thresholds.apply(pairs(), P / 2 + 0.5, 0.51, hard) for hard in (False, True))
    assert soft.rows[["left", "right"]].equals(hard.rows[["left", "right"]]) and len(soft) == 9 + 3
    assert soft.rows.weight.equals(soft.rows.score) and soft.rows.score.min() >= 0.51
    assert (hard.rows.weight == 0.5).all() and hard.rows.score.equals(soft.rows.score)
    by_source = thresholds.apply(pairs(), P, {"s": 0.8, "t": 0.01}, hard=True)
    assert by_source.rows.left.tolist() == ["a8", "a9", "a11", "a12", "a13", "a14"]
    assert len(thresholds.apply(pairs(), P, 0)) == 13, "a pair of weight 0 is none"
    assert len(thresholds.apply(pairs(), P, 0, hard=True)) == 15


def test_a_language_without_a_pair_is_named_with_what_it_had():
    with pytest.raises(CorpusError, match="none of the 5 pairs of source 't' reaches the threshold 0.5; the highest .* is 0.04"):
        thresholds.apply(pairs(), P, 0.5)
    with pytest.raises(CorpusError, match="none of the 10 pairs of source 's' reaches the threshold 0.95"):
        thresholds.apply(pairs(), P, {"s": 0.95, "t": 0}, hard=True)
    with pytest.raises(CorpusError, match="source 's'"):
        thresholds.apply(pairs(), P * 0, 0)
    with pytest.raises(ValueError, match="no threshold for source 't'; there are ones for s"):
        thresholds.apply(pairs(), P, {"s": 0.1})
    for wrong in (P[:3], P * 100, P * np.nan):
        with pytest.raises(ValueError, match=r"for 15 pairs: one number in \[0, 1\]"):
            thresholds.apply(pairs(), wrong, 0.5)
