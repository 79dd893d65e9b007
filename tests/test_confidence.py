"""Signals and their calibration: against brute force, against scikit-learn, and against a truth that they never see."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.features import Features
from xmalign_lab.pairs import confidence
from xmalign_lab.pairs.noise import shuffle
from xmalign_lab.pairs.parallel import bridge


def space(n=40, m=50, width=6, seed=0):
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(n, width)), rng.normal(size=(m, width))
    return Features.from_arrays(left, [f"a{i}" for i in range(n)]), Features.from_arrays(right, [f"b{i}" for i in range(m)])


def some_pairs(sources=("s", "t")):
    rows = [(f"a{i}", f"b{(3 * i + j) % 50}", sources[i % len(sources)]) for i in range(40) for j in range(i % 3 + 1)]
    return Pairs(pd.DataFrame(rows, columns=["left", "right", "source"]))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# Signals


@pytest.mark.parametrize("pack", [np.asarray, sparse.csr_matrix])
def test_similarity_is_the_cosine_pair_by_pair(pack):
    left, right = space()
    x, y = (Features.from_arrays(pack(side.vectors), side.ids) for side in (left, right))
    pairs = some_pairs()
    ours = confidence.similarity_of(pairs, x, y)
    brute = [cosine(left.take(a)[0], right.take(b)[0]) for a, b in zip(pairs.rows.left, pairs.rows.right, strict=True)]
    np.testing.assert_allclose(ours, brute, atol=1e-6)
    assert ours.shape == (len(pairs),) and ours.dtype == float
    assert confidence.similarity_of(pairs.select(np.zeros(len(pairs), bool)), x, y).shape == (0,)


def test_ratio_compares_with_every_text_of_the_pairs_own_source_once():
    left, right = space()
    pairs, brute = some_pairs(), []
    for row in pairs.rows.itertuples():
        own = pairs.rows[pairs.rows.source == row.source]
        near = []
        for mine, side, others in ((left.take(row.left)[0], right, own.right), (right.take(row.right)[0], left, own.left)):
            near.append(np.mean(sorted((cosine(mine, side.take(i)[0]) for i in sorted(set(others))), reverse=True)[:3]))
        brute.append(cosine(left.take(row.left)[0], right.take(row.right)[0]) / np.mean(near))
    np.testing.assert_allclose(confidence.ratio_of(pairs, left, right, k=3), brute, rtol=1e-4)


def test_signals_of_vectors_say_what_is_missing():
    left, right = space()
    with pytest.raises(ValueError, match="width 6, right ones of 4: a cosine needs one common space"):
        confidence.similarity_of(some_pairs(), left, space(width=4)[1])
    with pytest.raises(CorpusError, match="no row has the id 'b"):
        confidence.ratio_of(some_pairs(), left, left)


def test_agreement_is_the_mean_rank_over_levels_within_a_source():
    levels = {"characters": [1, 2, 3, 9, 8], "words": [10, 30, 20, 5, 5]}
    ours = confidence.agreement(levels, ["s", "s", "s", "t", "t"])
    np.testing.assert_allclose(
        ours, [(0.5 / 3 + 0.5 / 3) / 2, (1.5 / 3 + 2.5 / 3) / 2, 4 / 6, (1.5 / 2 + 1 / 2) / 2, (0.5 + 1) / 4]
    )


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=6), st.floats(0.1, 3))
def test_agreement_asks_for_the_order_only(values, stretch):
    sources = ["s", "s", "t", "t", "t", "s"]
    stretched = np.sign(values) * np.abs(values) ** 3 * stretch  # may merge nothing: a cube is strictly monotone
    if len(set(stretched)) == len(set(values)):
        one, other = (confidence.agreement({"a": v}, sources) for v in (values, stretched))
        assert np.array_equal(one, other) and (one > 0).all() and (one < 1).all()


def toy():
    rows = []
    for family, variants in (("f", 2), ("g", 1)):
        for v in range(variants):
            base = {"group": f"{family}{v}", "family": family, "kind": "name"}
            rows += [
                base | {"id": f"{family}{v}{lang[:2]}", "lang": lang, "text": "x"}
                for lang in ("eng_Latn", "swh_Latn", "deu_Latn")
            ]
    return Corpus(pd.DataFrame(rows), "toy")


def test_a_familys_pairs_share_their_evidence_within_a_source_only():
    corpus = toy()
    pairs = Pairs.by_group(corpus, {"lang": "eng_Latn"}, {"lang": "swh_Latn"}, "s")
    pairs = pairs + Pairs.by_group(corpus, {"lang": "eng_Latn"}, {"lang": "deu_Latn"}, "t")
    assert pairs.rows.left.tolist() == ["f0en", "f1en", "g0en"] * 2
    assert confidence.of_family([1, 3, 5, 0, 4, 7], pairs, corpus).tolist() == [2, 2, 5, 2, 2, 7]


def test_early_losses_are_the_mean_of_the_rounds_that_drew_the_pair():
    losses = [[1, 2], [3, np.nan], [100, 100]]
    assert confidence.early_loss(losses, first=2).tolist() == [2, 2]
    assert confidence.early_loss(losses, first=9)[1] == 51
    with pytest.raises(ValueError, match="1 of 2 pairs have no loss in the first 1 rounds; take more"):
        confidence.early_loss([[1, np.nan], [1, 1]], first=1)
    with pytest.raises(ValueError, match="no loss"):
        confidence.early_loss(np.empty((0, 0)))


# Calibration


def gaussians(n, share, apart=2.0, k=2, seed=0):
    """Signals of n given pairs, of n wrong ones, and the truth; right ones lie `apart` along every axis, errors correlated."""
    rng = np.random.default_rng(seed)

    def signals():
        return 0.8 * rng.normal(size=(n, k)) + 0.6 * rng.normal(size=(n, 1))

    truth = rng.random(n) >= share
    return signals() + apart * truth[:, None], signals(), truth


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6])
@pytest.mark.parametrize("n, tolerance", [(1500, 0.1), (400, 0.2)])
def test_the_share_of_wrong_pairs_is_found_without_any_truth(share, n, tolerance):
    for seed in range(3):
        signals, wrong, truth = gaussians(n, share, seed=seed)
        p, rho = confidence.calibrated(signals, wrong)
        assert list(rho) == ["pairs"] and abs(rho["pairs"] - (1 - truth.mean())) < tolerance
        assert rho["pairs"] == pytest.approx(1 - p.mean(), abs=0.12) and p.min() >= 0 and p.max() <= 1
        if share == 0:
            assert p.mean() > 0.97 and np.quantile(p, 0.05) > 0.7, "clean pairs keep their weight"


def test_the_probability_is_that_of_bayes_rule():
    signals, wrong, truth = gaussians(4000, 0.4, apart=1.5, k=1)
    p, _ = confidence.calibrated(signals, wrong)
    right, error = 0.6 * norm.pdf(signals[:, 0], 1.5), 0.4 * norm.pdf(signals[:, 0])
    assert np.abs(p - right / (right + error)).mean() < 0.07
    table = confidence.reliability(p, truth)
    assert (np.abs(table.p - table.right) * table["count"]).sum() / len(p) < 0.06


def test_two_signals_tell_more_than_one_and_a_useless_one_does_no_harm():
    signals, wrong, truth = gaussians(1500, 0.4, apart=1.2)
    noise = np.random.default_rng(9).normal(size=(2, 1500))
    one, two, three = (
        roc_auc_score(truth, confidence.calibrated(a, b)[0])
        for a, b in (
            (signals[:, :1], wrong[:, :1]),
            (signals, wrong),
            (np.c_[signals, noise[0]], np.c_[wrong, noise[1]]),
        )
    )
    assert two > one + 0.02 and three > two - 0.01


def test_each_language_has_its_own_share_and_a_small_one_borrows():
    easy, hard, tiny = gaussians(800, 0.1, seed=1), gaussians(800, 0.6, seed=2), gaussians(30, 0.6, seed=3)
    signals, wrong = (np.concatenate([part[i] for part in (easy, hard, tiny)]) for i in (0, 1))
    names = np.repeat(["easy", "hard", "tiny"], [800, 800, 30])
    p, rho = confidence.calibrated(signals, wrong, names, names)
    assert list(rho) == ["easy", "hard", "tiny"] and p.shape == (1630,)
    assert abs(rho["easy"] - 0.1) < 0.07 and abs(rho["hard"] - 0.6) < 0.12 and abs(rho["tiny"] - 0.35) < 0.1
    assert np.array_equal(p[:800], confidence.calibrated(easy[0], easy[1])[0])
    assert np.array_equal(p[1600:], confidence.calibrated(signals, wrong)[0][1600:])


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 100), st.floats(-50, 50), st.integers(0, 100))
def test_scale_and_offset_of_a_signal_do_not_matter(scale, offset, seed):
    signals, wrong, _ = gaussians(300, 0.3, seed=seed)
    p, q = (confidence.calibrated(a * b + c, wrong * b + c)[0] for a, b, c in ((signals, 1, 0), (signals, scale, offset)))
    np.testing.assert_allclose(p, q, atol=0.02)


def test_signals_that_cannot_be_used_are_named():
    signals, wrong, _ = gaussians(50, 0.3)
    with pytest.raises(ValueError, match="signal 1 is 0.3 for every pair: it tells nothing; leave it out"):
        confidence.calibrated(*(np.c_[part[:, 0], np.full(50, 0.3)] for part in (signals, wrong)))
    with pytest.raises(ValueError, match=r"signals \(50, 2\) and \(50, 1\)"):
        confidence.calibrated(signals, wrong[:, :1])
    with pytest.raises(ValueError, match="do not fit"):
        confidence.calibrated(signals, wrong, ["s"] * 3)
    with pytest.raises(ValueError, match="50 given and 0 wrong pairs"):
        confidence.calibrated(signals, wrong[:0])
    with pytest.raises(ValueError, match="finite"):
        confidence.calibrated(signals, np.where(wrong > 1, np.nan, wrong))


def test_from_noisy_pairs_to_weights_with_pairs_made_wrong_on_purpose():
    rng, rows, vectors = np.random.default_rng(0), [], {}
    for family in range(400):
        meaning = rng.normal(size=8)
        for kind in ("name", "keywords"):
            for lang in ("eng_Latn", "swh_Latn"):
                row_id = f"f{family}:{kind}:{lang}"
                rows.append({"id": row_id, "group": f"f{family}", "lang": lang, "kind": kind, "text": row_id})
                vectors[row_id] = meaning + rng.normal(size=8)
        rows.append({"id": f"f{family}:image", "group": f"f{family}", "image": "x.png"})
    corpus, features = Corpus(pd.DataFrame(rows), "toy"), Features.from_arrays(list(vectors.values()), vectors)
    clean = bridge(corpus, ["swh_Latn"])
    clean = clean.select(clean.rows.source == "eng_Latn-swh_Latn")
    noisy, truth = shuffle(clean, corpus, 0.4, seed=1)
    wrong, _ = shuffle(noisy, corpus, 1.0, seed=2)

    def signals(pairs, pooled):
        both = [f(pairs, features, features) for f in (confidence.similarity_of, confidence.ratio_of)]
        return np.stack([confidence.of_family(one, pairs, corpus) if pooled else one for one in both], axis=1)

    scores = {}
    for pooled in (False, True):
        p, rho = confidence.calibrated(signals(noisy, pooled), signals(wrong, pooled), noisy.rows.source, wrong.rows.source)
        assert abs(rho["eng_Latn-swh_Latn"] - 0.4) < 0.1
        scores[pooled] = roc_auc_score(truth, p)
    assert scores[True] > scores[False] + 0.02, "a family's pairs are evidence for one another"


# Tables


def test_reliability_against_scikit_learn_and_statsmodels():
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.random(300) ** 2, [0.0, 1.0, 0.0]])
    truth = rng.random(303) < p
    table = confidence.reliability(p, truth, bins=8)
    share, mean = calibration_curve(truth, p, n_bins=8)
    np.testing.assert_allclose(table.right, share)
    np.testing.assert_allclose(table.p, mean)
    low, high = proportion_confint(table.right * table["count"], table["count"], method="wilson")
    np.testing.assert_allclose(table[["low", "high"]], np.stack([low, high], 1), atol=1e-9)
    assert table["count"].sum() == 303 and list(table) == ["p", "right", "count", "low", "high"]
    assert len(confidence.reliability([0.95, 0.05], [True, False])) == 2, "empty bins are left out"


def test_precision_and_recall_of_every_threshold():
    p, truth = np.array([0.9, 0.9, 0.4, 0.2, 0.1]), np.array([True, False, True, True, False])
    table = confidence.precision_recall(p, truth)
    assert table.threshold.tolist() == [0.1, 0.2, 0.4, 0.9]
    for row in table.itertuples():
        kept = p >= row.threshold
        assert (row.kept, row.precision, row.recall) == (kept.sum(), truth[kept].mean(), truth[kept].sum() / 3)
    with pytest.raises(ValueError, match="none of the 5 pairs is right"):
        confidence.precision_recall(p, np.zeros(5, bool))
