"""Lexicon induction and word alignment: brute force, POT's and scipy's exact solutions, and alignments written out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from xmalign_lab import similarity
from xmalign_lab.evaluate import words
from xmalign_lab.evaluate.words import align, alignment_counts, alignment_scores, induction

UNIT = np.eye(5, dtype=np.float32)


def pairs(array) -> set:
    return {tuple(map(int, row)) for row in array}


def test_induction_written_out():
    near = UNIT[0] + 0.5 * UNIT[1]
    table = induction(
        [3 * UNIT[0], near, UNIT[2]],  # lengths do not matter
        ["maji", "moto", "jua"],
        [UNIT[0], UNIT[1], UNIT[2]],
        ["water", "fire", "sun"],
        {"maji": ["water"], "moto": ["fire"], "jua": ["rain", "sun", "water"]},
        csls=False,
        k=(1, 2),
    )
    assert table["query"].tolist() == ["maji", "moto", "jua"]
    assert table["P@1"].tolist() == [1, 0, 1] and table["P@2"].tolist() == [1, 1, 1]  # "moto" finds water first, then fire
    assert table.attrs == {"gold words": 3, "missing words": 0}


@pytest.mark.parametrize("csls", [False, True])
def test_induction_against_brute_force(csls):
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(70, 4)), rng.normal(size=(90, 4)) + 0.5
    source[40:] = target[:30] + 0.1 * rng.normal(size=(30, 4))  # never asked for, yet neighbours of their targets
    left, right = [f"s{i}" for i in range(70)], [f"t{i}" for i in range(90)]
    gold = {f"s{i}": [f"t{j}" for j in rng.integers(90, size=1 + i % 3)] for i in rng.permutation(40)}
    table = induction(source, left, target, right, gold, csls).set_index("query")
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (source, target)]
    scores = unit[0] @ unit[1].T
    if csls:
        # r of a target word is over the whole source vocabulary, not over the words that the gold asks for.
        mean = [np.sort(scores, axis=1)[:, -10:].mean(1)[:, None], np.sort(scores, axis=0)[-10:].mean(0)[None]]
        scores = 2 * scores - mean[0] - mean[1]
    order = np.argsort(-scores, axis=1)
    assert list(table.index) == list(gold)
    for word, row in table.iterrows():
        answers = [int(answer[1:]) for answer in gold[word]]
        for n in (1, 5, 10):
            assert row[f"P@{n}"] == np.isin(answers, order[int(word[1:]), :n]).any(), (word, n)
    assert 0 < table["P@10"].mean() < 1


def test_words_without_a_vector_are_skipped_and_counted():
    gold = {"maji": ["water"], "jua": ["sun"], "moto": ["fire"]}  # jua has no vector, fire has none
    sides = (UNIT[:2], ["maji", "moto"], UNIT[:2], ["water", "sun"])
    found = induction(*sides, gold, k=(1, 2))
    assert found["query"].tolist() == ["maji"] and found["P@1"].mean() == 1
    assert found.attrs == {"gold words": 3, "missing words": 2}
    with pytest.raises(ValueError, match="none of the 1 gold words has a vector on both sides"):
        induction(*sides, {"jua": ["sun"]}, k=(1,))


def test_a_word_twice_in_a_vocabulary_raises():
    with pytest.raises(ValueError, match="target: 'sun' is in rows 0 and 2"):
        induction(UNIT[:1], ["jua"], UNIT[:3], ["sun", "moon", "sun"], {"jua": ["sun"]})
    with pytest.raises(ValueError, match="source: 2 vectors but 1 words"):
        induction(UNIT[:2], ["jua"], UNIT[:1], ["sun"], {"jua": ["sun"]})


@pytest.mark.parametrize("k", [(), (0,), (1, 4), (-1, 2)])
def test_k_beyond_the_vocabulary_raises(k):
    with pytest.raises(ValueError, match="each must be from 1 to the 3 target words"):
        induction(UNIT[:1], ["jua"], UNIT[:3], ["sun", "moon", "star"], {"jua": ["sun"]}, k=k)


def test_a_text_is_no_list_of_translations():
    with pytest.raises(ValueError, match="the translations of 'jua' are the text 'sun'; give a list of words"):
        induction(UNIT[:1], ["jua"], UNIT[:3], ["s", "u", "n"], {"jua": "sun"}, k=(1,))


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_ties_are_the_mean_rank_whatever_the_order(seed, csls):
    rng = np.random.default_rng(seed)
    source, target = np.eye(4)[rng.integers(4, size=6)], np.eye(4)[rng.integers(4, size=25)]  # ties everywhere
    left, right = [f"s{i}" for i in range(6)], np.array([f"t{i}" for i in range(25)])
    gold = {word: list(right[rng.integers(25, size=1 + rng.integers(4))]) for word in left}
    table = induction(source, left, target, list(right), gold, csls, k=(1, 2, 5, 25))
    order = rng.permutation(25)
    pd.testing.assert_frame_equal(table, induction(source, left, target[order], list(right[order]), gold, csls, k=(1, 2, 5, 25)))
    penalty = similarity.csls_penalty(similarity.unit(source), similarity.unit(target)) if csls else None
    for i, word in enumerate(left):
        known = np.isin(right, gold[word])
        sides = similarity.unit(source[[i]]), similarity.unit(target), np.array([True]), known
        rank = similarity.ranks(*sides, penalty)[0]
        assert table.loc[i, "P@1":].tolist() == [float(rank <= n) for n in (1, 2, 5, 25)]


def test_vectors_that_are_all_alike_find_nothing():
    names = [f"w{i}" for i in range(30)]
    table = induction(np.ones((30, 3)), names, np.ones((30, 3)), names, {name: [name] for name in names})
    assert not table[["P@1", "P@5", "P@10"]].to_numpy().any()


# Source 0 and 1 both prefer target 0; target 2 prefers source 1.
COSINES = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.5], [0.0, 0.7, 0.3]])


def test_alignment_methods_written_out():
    assert pairs(np.argwhere(words.argmax(COSINES))) == {(0, 0), (1, 0), (2, 1)}
    assert pairs(np.argwhere(words.intersection(COSINES))) == {(0, 0), (2, 1)}
    # Second round: 1 and target 2 are free, .75 counts fully; (1, 0) is (1 + .8)/2 · .9 = .81 and wins the row,
    # but column 0's best free-or-half cell is (1, 0) as well: it is added, and (1, 2) is not.
    assert pairs(np.argwhere(words.itermax(COSINES))) == {(0, 0), (2, 1), (1, 0)}
    assert pairs(np.argwhere(words.itermax(COSINES, alpha=0.5))) == {(0, 0), (2, 1), (1, 2)}
    assert pairs(np.argwhere(words.itermax(COSINES, n_max=1))) == pairs(np.argwhere(words.intersection(COSINES)))
    assert pairs(np.argwhere(words.transport(COSINES))) == {(0, 0), (1, 2), (2, 1)}


def itermax_by_the_paper(cosines, alpha, n_max):
    """Jalili Sabet et al. 2020, the procedure of §3.2 in loops."""
    scores, found = [[(1 + c) / 2 for c in row] for row in cosines], set()
    n, m = cosines.shape
    for _ in range(n_max):
        rows, columns = {i for i, _ in found}, {j for _, j in found}
        weight = {(i, j): [1, alpha, 0][(i in rows) + (j in columns)] for i in range(n) for j in range(m)}
        weighted = [[scores[i][j] * weight[i, j] for j in range(m)] for i in range(n)]
        for i in range(n):
            j = max(range(m), key=lambda j: weighted[i][j])
            if max(range(n), key=lambda other: weighted[other][j]) == i and weight[i, j] > 0:
                found = found | {(i, j)}
    return found


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10_000), st.sampled_from([1, 2, 3]))
@settings(max_examples=60, deadline=None)
def test_itermax_against_the_paper_in_loops(n, m, seed, n_max):
    cosines = np.random.default_rng(seed).uniform(-1, 1, (n, m))
    ours = pairs(np.argwhere(words.itermax(cosines, 0.9, n_max)))
    assert ours == itermax_by_the_paper(cosines, 0.9, n_max)
    assert ours >= pairs(np.argwhere(words.intersection(cosines)))


@given(st.integers(2, 7), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_transport_of_equal_lengths_nears_the_best_assignment(n, seed):
    rng = np.random.default_rng(seed)
    cosines = rng.uniform(0, 0.3, (n, n))
    cosines[np.arange(n), rng.permutation(n)] += 0.6  # so that the best assignment is clear
    assert pairs(np.argwhere(words.transport(cosines))) == pairs(np.column_stack(linear_sum_assignment(-cosines)))


def test_transport_of_unequal_lengths_against_the_exact_plan():
    import ot

    # One source token for two target tokens: half of the mass each, which is all those two can take.
    cosines = np.array([[0.9, 0.85, 0.1, 0.0], [0.1, 0.0, 0.9, 0.8]])
    exact = ot.emd(np.full(2, 1 / 2), np.full(4, 1 / 4), 1 - cosines)
    assert pairs(np.argwhere(words.transport(cosines))) == pairs(np.argwhere(exact > 0)) == {(0, 0), (0, 1), (1, 2), (1, 3)}


def test_transport_bears_a_mean_that_all_tokens_share():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(12, 16)) + 10 * np.eye(16)[0]  # every cosine lies above .7
    target = tokens[::-1] + 0.1 * rng.normal(size=tokens.shape)
    assert pairs(align(tokens, target, "transport")) == {(i, 11 - i) for i in range(12)}
    assert pairs(align(tokens[:1], tokens[:1], "transport")) == {(0, 0)}


@pytest.mark.parametrize("method", words.ALIGNERS)
def test_a_shuffled_sentence_is_found_again(method):
    rng = np.random.default_rng(1)
    tokens, order = rng.normal(size=(9, 12)), rng.permutation(9)
    found = align(tokens, 5 * tokens[order], method)
    assert found.dtype.kind == "i" and {(i, j) for i, j in pairs(found)} >= {(int(s), t) for t, s in enumerate(order)}
    if method != "itermax":
        assert len(found) == 9


def test_align_is_by_cosine_and_says_what_it_cannot_do():
    assert pairs(align([[1, 0], [0, 9]], [[0, 2], [7, 1]], "argmax")) == {(0, 1), (1, 0)}
    with pytest.raises(ValueError, match="unknown alignment method 'mwmf'; known are argmax, intersection, itermax, transport"):
        align(UNIT, UNIT, "mwmf")
    with pytest.raises(ValueError, match="0 source and 5 target tokens"):
        align(UNIT[:0], UNIT)


def test_alignment_error_rate_written_out():
    predicted = [{(0, 0), (1, 1), (2, 2)}, np.array([[0, 1], [1, 0]]), set()]
    sure = [{(0, 0), (1, 1)}, [(0, 1)], [(0, 0)]]
    possible = [[(2, 3)], {(1, 0), (5, 5)}, []]  # P need not repeat S: it always holds it
    counts = alignment_counts(predicted, sure, possible)
    assert counts.to_numpy().tolist() == [[2, 2, 3, 2], [1, 2, 2, 1], [0, 0, 0, 1]]
    scores = alignment_scores(counts)
    assert scores.precision == 4 / 5 and scores.recall == 3 / 4 and scores.AER == pytest.approx(1 - (3 + 4) / (5 + 4))
    assert scores.F1 == pytest.approx(2 * 0.8 * 0.75 / 1.55)


def test_without_possible_links_the_error_is_one_minus_f1():
    rng = np.random.default_rng(0)
    predicted, sure = ([pairs(rng.integers(5, size=(6, 2))) for _ in range(20)] for _ in range(2))
    scores = alignment_scores(alignment_counts(predicted, sure))
    assert 0 < scores.F1 < 1 and scores.AER == pytest.approx(1 - scores.F1)
    from sklearn.metrics import precision_recall_fscore_support

    cells = [(i, j) for i in range(5) for j in range(5)]
    truth, guess = ([cell in sentence for sentence in side for cell in cells] for side in (sure, predicted))
    theirs = precision_recall_fscore_support(truth, guess, average="binary")[:3]
    assert scores[["precision", "recall", "F1"]].tolist() == pytest.approx(theirs)


def test_empty_sides_of_an_alignment():
    nothing = alignment_scores(alignment_counts([[]], [[(0, 0)]]))
    assert nothing.to_dict() == {"precision": 0, "recall": 0, "F1": 0, "AER": 1}
    with pytest.raises(ValueError, match="no sentence has a sure pair"):
        alignment_scores(alignment_counts([[(0, 0)]], [[]], [[(0, 0)]]))
    with pytest.raises(ValueError, match="2 predicted, 1 sure and 1 possible sentences"):
        alignment_counts([[], []], [[]])
    assert isinstance(nothing, pd.Series) and similarity.unit(UNIT).shape == (5, 5)
