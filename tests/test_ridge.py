"""Kernel ridge regression against scikit-learn, and its left-out predictions against refitting."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import normalize

from xmalign_lab import ridge


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = rng.random((40, 30)) * (rng.random((40, 30)) < 0.3)
    rows[:, 0] = 1.0
    targets = normalize(rng.normal(size=(40, 5)))
    return sparse.csr_matrix(rows), targets, np.repeat(np.arange(20), 2), rng.random(40)


def refitted(rows, targets, weight, asked, penalty):
    rows = normalize(rows).toarray()
    model = KernelRidge(alpha=penalty).fit(rows, targets, sample_weight=weight)
    return normalize(model.predict(normalize(asked).toarray()))


def test_the_map_is_kernel_ridge_regression_with_weights(table):
    rows, targets, groups, weight = table
    model, _ = ridge.fit(rows, targets, groups, weight, penalties=[0.7])
    assert model.penalty == 0.7
    np.testing.assert_allclose(model(rows[:7]), refitted(rows, targets, weight, rows[:7], 0.7), atol=1e-5)


def test_what_is_said_of_a_group_is_what_a_fit_without_it_says(table):
    rows, targets, groups, weight = table
    _, left_out = ridge.fit(rows, targets, groups, weight, penalties=[0.7])
    for group in (0, 7, 19):
        out = groups == group
        again = refitted(rows[~out], targets[~out], weight[~out], rows[out], 0.7)
        np.testing.assert_allclose(left_out[out], again, atol=1e-5)


def test_a_pair_of_no_belief_teaches_nothing(table):
    rows, targets, groups, _ = table
    weight = np.ones(40)
    weight[:10] = 0
    wrong = targets.copy()
    wrong[:10] *= -1
    one, other = (ridge.fit(rows, y, groups, weight, [0.7])[0](rows[20:]) for y in (targets, wrong))
    np.testing.assert_allclose(one, other, atol=5e-3)


def test_the_penalty_is_the_one_that_predicts_left_out_groups_best(table):
    rows, targets, groups, weight = table
    found = {p: ridge.fit(rows, targets, groups, weight, [p])[1] for p in (0.01, 1.0, 100.0)}
    nearness = {p: ((left * targets).sum(1) * weight).sum() for p, left in found.items()}
    assert ridge.fit(rows, targets, groups, weight, list(found))[0].penalty == max(nearness, key=nearness.get)


def test_a_text_that_shares_nothing_with_the_training_texts_gets_the_mean_of_the_targets(table):
    rows, targets, groups, _ = table
    wide = sparse.hstack([rows, sparse.csr_matrix((40, 1))]).tocsr()
    alien = sparse.csr_matrix(([1.0], ([0], [30])), shape=(1, 31))
    mean = targets.mean(0) / np.linalg.norm(targets.mean(0))
    np.testing.assert_allclose(ridge.fit(wide, targets, groups)[0](alien)[0], mean, atol=1e-6)
