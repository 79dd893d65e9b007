"""Transfer and cross-lingual retrieval against scikit-learn, ir-measures and tables one can work out."""

import re

import ir_measures
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xmalign_lab.evaluate.transfer import STRENGTHS, retrieval_mrr, transfer, transfer_table


def topics(n: int, seed: int = 0, turn: float = 0.0, noise: float = 0.4):
    """`n` sentences of three topics at the corners of a triangle; `turn` (degrees) is how badly a language is aligned."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.resize(["geography", "health", "sports"], n))
    angle = np.deg2rad(np.array([0, 120, 240])[np.unique(labels, return_inverse=True)[1]] + turn)
    return np.stack([np.cos(angle), np.sin(angle)], 1) + noise * rng.normal(size=(n, 2)), labels


def predictions(gold: str, predicted: str, lang: str = "swh_Latn", **columns) -> pd.DataFrame:
    """One letter per row."""
    rows = {"lang": lang, "query": range(len(gold)), "gold": list(gold), "predicted": list(predicted)}
    table = pd.DataFrame(rows | columns)
    return table.assign(correct=table.gold == table.predicted)


def test_an_aligned_language_follows_and_a_turned_one_does_not():
    x, y = topics(90)
    table = transfer(x, y, {"deu_Latn": topics(60, 1), "swh_Latn": topics(60, 2, turn=120)})
    assert list(table) == ["lang", "query", "gold", "predicted", "correct"] and len(table) == 120
    accuracy = table.groupby("lang").correct.mean()
    assert accuracy["deu_Latn"] > 0.85 and accuracy["swh_Latn"] < 0.15  # a third of a turn maps each topic to the next
    assert (table.correct == (table.gold == table.predicted)).all()
    assert list(table[table.lang == "swh_Latn"]["query"]) == list(range(60))


def test_queries_have_the_names_one_gives():
    x, y = topics(30)
    names = [f"sentence-{number}" for number in range(9)]
    table = transfer(x, y, {"deu_Latn": (*topics(9, 1), names)})
    assert list(table["query"]) == names and list(table.gold) == list(topics(9, 1)[1])


def test_strength_is_chosen_by_folds_of_the_training_language_alone():
    x, y = topics(60, noise=1.5)
    x = np.hstack([x, np.random.default_rng(1).normal(size=(60, 40))])
    x = np.hstack([x, np.ones((60, 1))])  # a constant column is no matter
    split = StratifiedKFold(5, shuffle=True, random_state=3)
    scores = [
        cross_val_score(make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=5_000)), x[:, :-1], y, cv=split).mean()
        for c in STRENGTHS
    ]
    best = int(np.argmax(scores))
    tests = {"deu_Latn": (x[:20], y[:20]), "swh_Latn": (-x, y)}
    table = transfer(x, y, tests, seed=3)
    assert table.attrs == {"C": STRENGTHS[best], "accuracy in training": pytest.approx(scores[best])}
    assert scores[best] > scores[-1] and 0 < best < len(STRENGTHS) - 1  # there was something to choose
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTHS[best], max_iter=5_000)).fit(x[:, :-1], y)
    assert list(table.predicted[20:]) == list(plain.predict(-x[:, :-1]))


def test_sparse_rows_give_what_dense_ones_do_and_columns_of_no_training_row_do_not_count():
    x, y = topics(60, noise=1)
    z, gold = topics(60, 1, noise=1)
    empty = np.zeros((60, 5))
    strange = np.random.default_rng(0).normal(size=(60, 5))  # n-grams that only the other language has
    sparse = transfer(csr_matrix(np.hstack([x, empty])), y, {"swh_Latn": (csr_matrix(np.hstack([z, strange])), gold)})
    dense = transfer(x, y, {"swh_Latn": (z, gold)})
    assert (sparse.predicted == dense.predicted).mean() > 0.95  # not centred, so not to the last digit


def test_a_column_of_rounding_noise_does_not_decide_for_another_language():
    """A column that only another language uses, as MiniLM's dead dimension: scaled up, it would drown all others."""
    (x, y), (z, gold) = topics(90), topics(60, 1)
    dead = np.random.default_rng(0).normal(size=(90, 1))
    tests = {"swh_Latn": (np.hstack([z, np.full((60, 1), 0.01)]), gold)}
    for noise in (1e-9, 1e-5):
        table = transfer(np.hstack([x, noise * dead]), y, tests)
        assert list(table.predicted) == list(transfer(x, y, {"swh_Latn": (z, gold)}).predicted) and table.correct.mean() > 0.85


@pytest.mark.parametrize(
    ("labels", "test", "message"),
    [
        (["a", "a", "b"], ["a"], r"training has {'a': 2, 'b': 1}; it needs"),
        (["a", "a", "a"], ["a"], r"training has {'a': 3}; it needs"),
        (["a", "a", "b", "b"], ["c"], "swh_Latn, row 0: no training row has the label 'c', only a, b"),
        (["a", "a", "b", "b"], ["a", "b"], r"swh_Latn: vectors \(1, 2\), 2 labels, 2 names"),
        (["a", "a", "b", None], ["a"], "training, row 3: no label; 1 of 4 rows are so"),
        (["a", "a", "b", "b"], [float("nan")], "swh_Latn, row 0: no label"),
    ],
)
def test_what_cannot_be_trained_or_judged_is_refused(labels, test, message):
    x = np.arange(2.0 * len(labels)).reshape(-1, 2)
    with pytest.raises(ValueError, match=message):
        transfer(x, labels, {"swh_Latn": (np.ones((1, 2)), test)})
    with pytest.raises(ValueError, match=rf"training: vectors \({len(x)}, 2\), 7 labels, 7 names"):
        transfer(x, ["a", "a", "b", "b", "b", "b", "b"], {})
    for same in (np.ones((4, 2)), csr_matrix(np.eye(1, 5)[[0] * 4])):
        with pytest.raises(ValueError, match="all 4 training rows have the same vector, so nothing tells a, b apart"):
            transfer(same, ["a", "a", "b", "b"], {"swh_Latn": (same, ["a"] * 4)})


@pytest.mark.parametrize("kind", [np.asarray, csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_no_vector_is_named_by_its_side_and_row(kind, number):
    (x, y), broken = topics(30), topics(30)[0]
    broken[[7, 20], 1] = number
    with pytest.raises(ValueError, match="training, row 7: a vector with NaN or infinity; 2 of 30 rows are so"):
        transfer(kind(broken), y, {"swh_Latn": (kind(x), y)})
    with pytest.raises(ValueError, match="swh_Latn, row 7: a vector with NaN or infinity; 2 of 30 rows are so"):
        transfer(kind(x), y, {"deu_Latn": (kind(x), y), "swh_Latn": (kind(broken), y)})


def test_rows_names_and_widths_that_do_not_fit_are_named_by_their_side():
    x, y = topics(30)
    for test, said in (
        ((x, y[1:]), "vectors (30, 2), 29 labels, 29 names; not rows of 2"),
        ((x[:, :1], y), "vectors (30, 1), 30 labels, 30 names; not rows of 2"),
        ((x, y, range(29)), "vectors (30, 2), 30 labels, 29 names; not rows of 2"),
    ):
        with pytest.raises(ValueError, match="swh_Latn: " + re.escape(said)):
            transfer(x, y, {"swh_Latn": test})


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcde")), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_table_agrees_with_scikit_learn(pairs):
    gold, predicted = map("".join, zip(*pairs, strict=True))
    table = transfer_table(predictions(gold, predicted), draws=3).set_index("metric")
    gold, predicted = list(gold), list(predicted)
    assert table.value["accuracy"] == pytest.approx(accuracy_score(gold, predicted))
    assert table.value["macro-F1"] == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    assert table.majority["accuracy"] == pytest.approx(max(gold.count(label) for label in gold) / len(gold))
    assert (table.rows == len(gold)).all()


def test_a_table_worked_out_by_hand():
    table = transfer_table(pd.concat([predictions("aaab", "aabb"), predictions("abab", "abab", "deu_Latn")]), draws=200)
    assert list(table) == ["lang", "metric", "rows", "value", "low", "high", "left out", "majority"]
    swahili = table[table.lang == "swh_Latn"].set_index("metric")
    assert swahili.value.to_dict() == pytest.approx({"accuracy": 3 / 4, "macro-F1": (4 / 5 + 2 / 3) / 2})
    assert swahili.majority.to_dict() == pytest.approx({"accuracy": 3 / 4, "macro-F1": (6 / 7 + 0) / 2})
    german = table[table.lang == "deu_Latn"]
    assert (german[["value", "low", "high"]] == 1).all(axis=None) and list(table.lang) == ["swh_Latn"] * 2 + ["deu_Latn"] * 2


def test_intervals_are_those_of_resampled_rows():
    rng = np.random.default_rng(0)
    gold = rng.choice(list("abc"), 120, p=[0.6, 0.3, 0.1])
    predicted = np.where(rng.random(120) < 0.6, gold, rng.choice(list("abc"), 120))
    table = transfer_table(predictions("".join(gold), "".join(predicted)), draws=8_000).set_index("metric")
    exact = binom.ppf([0.025, 0.975], 120, table.value["accuracy"]) / 120  # resampled rows that are right
    assert table.loc["accuracy", ["low", "high"]].to_list() == pytest.approx(exact, abs=1.01 / 120)
    draws = (rng.integers(120, size=120) for _ in range(800))
    scored = [f1_score(gold[rows], predicted[rows], average="macro", zero_division=0) for rows in draws]
    assert table.loc["macro-F1", ["low", "high"]].to_list() == pytest.approx(np.quantile(scored, [0.025, 0.975]), abs=0.02)


@pytest.mark.parametrize("predicted_c", ["cc", "ca", "aa"])
def test_a_resample_that_lost_a_label_is_left_out_of_the_interval_of_macro_f1(predicted_c):
    gold = np.array(list("a" * 30 + "b" * 28 + "cc"))
    predicted = np.array(list("a" * 24 + "b" * 32 + "ac" + predicted_c))
    table = transfer_table(predictions("".join(gold), "".join(predicted)), draws=8_000).set_index("metric")
    rng, scored, draws = np.random.default_rng(1), [], 2_000
    for _ in range(draws):
        rows = rng.integers(60, size=60)
        if "c" in gold[rows]:
            scored.append(f1_score(gold[rows], predicted[rows], labels=["a", "b", "c"], average="macro", zero_division=0))
    assert table.loc["macro-F1", ["low", "high"]].to_list() == pytest.approx(np.quantile(scored, [0.025, 0.975]), abs=0.02)
    lost = (1 - 2 / 60) ** 60
    assert table.loc["macro-F1", "left out"] == pytest.approx(lost, abs=4 * np.sqrt(lost / 8_000))
    assert table.loc["accuracy", "left out"] == 0, "accuracy is defined for every resample"


def test_a_predicted_label_without_a_row_counts_as_zero_in_every_resample():
    table = transfer_table(predictions("ab" * 30, "ab" * 29 + "xb"), draws=2_000).set_index("metric")
    assert table.high["macro-F1"] <= 2 / 3 and table.loc["macro-F1", "left out"] == 0
    assert table.value["macro-F1"] == pytest.approx(f1_score(list("ab" * 30), list("ab" * 29 + "xb"), average="macro"))


def test_labels_of_one_row_leave_no_interval_rather_than_one_of_a_selection():
    table = transfer_table(predictions("a" * 20 + "bcd", "a" * 20 + "bcd")).set_index("metric")
    assert table.loc["macro-F1", "left out"] > 0.5 and table.loc["macro-F1", ["low", "high"]].isna().all()
    assert table.loc["accuracy", ["low", "high"]].to_list() == pytest.approx([1, 1])


def test_families_are_resampled_whole_where_there_are_some():
    gold = "ab" * 60
    predicted = "".join(label if row // 12 % 2 else "b" for row, label in enumerate(gold))
    rows = predictions(gold, predicted)
    wide = transfer_table(rows.assign(family=rows["query"] // 12)).set_index("metric")
    narrow = transfer_table(rows).set_index("metric")
    assert (wide.value == narrow.value).all()
    assert (wide.high - wide.low > 1.5 * (narrow.high - narrow.low)).all()
    assert transfer_table(rows, seed=1).equals(transfer_table(rows, seed=1))
    assert not transfer_table(rows, seed=1).equals(transfer_table(rows, seed=2))


def test_the_reference_stands_beside_it_in_whatever_order_it_comes():
    rows = pd.concat([predictions("aabbc" * 9, "abbba" * 9), predictions("aabb", "aaaa", "sin_Sinh")])
    own = predictions("aabbc" * 9, "aabbbaabbb" * 4 + "babab")
    table = transfer_table(rows, own.iloc[::-1])
    alone = transfer_table(own)
    swahili, sinhala = table[table.lang == "swh_Latn"], table[table.lang == "sin_Sinh"]
    for column, name in (("value", "reference"), ("low", "reference low"), ("high", "reference high")):
        assert list(swahili[name]) == list(alone[column])
    assert sinhala[["reference", "reference low", "reference high"]].isna().all(axis=None)
    assert list(swahili.value) == list(transfer_table(rows).value[:2])


@pytest.mark.parametrize("own", [predictions("aabb", "aabb"), predictions("aabba", "aabbc"), predictions("aabbcc", "aabbcc")])
def test_a_reference_for_other_rows_is_refused(own):
    with pytest.raises(ValueError, match="swh_Latn: 5 rows, the reference has"):
        transfer_table(predictions("aabbc", "abbba"), own)


def test_two_runs_in_one_table_are_refused():
    one = predictions("aabbc", "abbba")
    with pytest.raises(ValueError, match="swh_Latn, query 0 occurs twice"):
        transfer_table(pd.concat([one, one]))
    with pytest.raises(ValueError, match="one family only"):
        transfer_table(one[:1])
    with pytest.raises(ValueError, match="not a one-to-one merge"):
        transfer_table(one, pd.concat([one, one]))


def test_mrr_at_a_cut_by_hand():
    gallery = np.eye(4, dtype=np.float32)
    queries = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.6]], np.float32)
    wanted = np.array(["a", "c", "d"])
    names = np.array(["a", "b", "c", "d"])
    assert list(retrieval_mrr(queries, gallery, wanted, names)) == pytest.approx([1, 1 / 3, 1 / 4])
    assert list(retrieval_mrr(queries, gallery, wanted, names, cut=3)) == pytest.approx([1, 1 / 3, 0])
    flat = np.full((1, 4), 0.5, np.float32)  # a tie of all four is rank 2.5
    assert list(retrieval_mrr(flat, gallery, wanted[:1], names)) == pytest.approx([1 / 2.5])
    assert list(retrieval_mrr(flat, gallery, wanted[:1], names, cut=2)) == [0]
    with pytest.raises(ValueError, match="'e'"):
        retrieval_mrr(queries[:1], gallery, np.array(["e"]), names)


@pytest.mark.parametrize("cut", [1, 3, 10])
def test_mrr_agrees_with_ir_measures(cut):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(30, 6)).astype(np.float32), rng.normal(size=(60, 6)).astype(np.float32)
    passages, wanted = rng.integers(12, size=60), np.resize(np.arange(12), 30)
    passages[:12] = np.arange(12)  # each has at least one, most have several correct items
    qrels = [ir_measures.Qrel(str(q), str(i), 1) for q in range(30) for i in np.flatnonzero(passages == wanted[q])]
    scores = queries.astype(float) @ gallery.T.astype(float)
    run = [ir_measures.ScoredDoc(str(q), str(i), scores[q, i]) for q in range(30) for i in range(60)]
    oracle = {found.query_id: found.value for found in ir_measures.iter_calc([ir_measures.RR @ cut], qrels, run)}
    assert retrieval_mrr(queries, gallery, wanted, passages, cut) == pytest.approx([oracle[str(q)] for q in range(30)])
