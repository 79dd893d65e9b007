"""Features: what is refused, what is looked up, and that equal contents have equal keys."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.features import Features

IDS = ["a", "b", "c"]
ROWS = [[1.0, 0, 2], [0, 3, 0], [0, 0, 4]]


def dense():
    return Features.from_arrays(ROWS, IDS)


def sparse_rows():
    return Features.from_arrays(sparse.csr_matrix(ROWS), IDS)


@pytest.mark.parametrize(
    "given_as", [list, np.array, torch.tensor, lambda r: torch.tensor(r, requires_grad=True), sparse.coo_matrix]
)
def test_vectors_of_every_kind_become_float32(given_as):
    features = Features.from_arrays(given_as(ROWS), IDS)
    assert features.vectors.dtype == np.float32 and features.width == 3 and len(features) == 3
    np.testing.assert_array_equal(features.dense(), ROWS)


def test_half_precision_tensors_are_accepted():
    features = Features.from_arrays(torch.tensor(ROWS, dtype=torch.bfloat16), IDS)
    np.testing.assert_array_equal(features.dense(), ROWS)


def test_features_do_not_change_when_the_callers_array_does():
    mine = np.array(ROWS, np.float32)
    features = Features.from_arrays(mine, IDS)
    mine[:] = 7
    np.testing.assert_array_equal(features.dense(), ROWS)


@pytest.mark.parametrize("make", [dense, sparse_rows])
def test_take_follows_the_order_asked_for(make):
    taken = make().take(["c", "a", "c"])
    assert sparse.issparse(taken) == sparse.issparse(make().vectors)
    taken = taken.toarray() if sparse.issparse(taken) else taken
    np.testing.assert_array_equal(taken, [ROWS[2], ROWS[0], ROWS[2]])


def test_position_names_the_unknown_id():
    assert dense().position(["b", "a"]).tolist() == [1, 0] and dense().position("c").tolist() == [2]
    with pytest.raises(CorpusError, match="no row has the id 'nobody'"):
        dense().position(["a", "nobody"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix])
def test_nan_and_infinity_name_row_and_id(value, form):
    rows = np.array(ROWS)
    rows[1, 1] = value
    with pytest.raises(CorpusError, match="row 2, id 'b': the vector holds NaN or infinity"):
        Features.from_arrays(form(rows), IDS)


@pytest.mark.parametrize("form", [np.array, sparse.csr_matrix])
def test_norm_zero_quotes_what_was_encoded_and_counts_the_others(form):
    rows = np.array(ROWS, np.float32)
    rows[1:] = 0
    with pytest.raises(CorpusError, match=r"row 2, id 'b' \('hello'\): the vector has norm zero.*\(and 1 more rows\)"):
        Features(IDS, form(rows), shown=["x", "hello", "y"])


def test_small_and_large_but_honest_vectors_pass():
    assert len(Features.from_arrays([[1e-30, 0], [1e30, 1e30]], ["small", "large"])) == 2


def test_bad_rows_beyond_the_first_block_are_found():
    rows = np.ones((5000, 2), np.float32)
    rows[4999] = np.nan
    with pytest.raises(CorpusError, match="row 5000, id '4999'"):
        Features.from_arrays(rows, map(str, range(5000)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ROWS, ["a", "b", "a"]), "row 3: id 'a' occurs twice"),
        ((ROWS, ["a", "b"]), r"2 ids but vectors of shape \(3, 3\)"),
        (([1.0, 2, 3], IDS), r"expected \(3, width\)"),
        (([[1.0], [1, 2], [3]], IDS), "not 3 rows of equally many numbers"),
        ((["x", "y", "z"], IDS), "not 3 rows of equally many numbers"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(CorpusError, match=message):
        Features.from_arrays(*arguments)


def with_tokens(ids, t, mask=None, words=None):
    n = len(ids)
    return Features(ids, np.ones((n, 2), np.float32), np.ones((n, t, 5), np.float32), mask, words)


def test_tokens_mask_and_words_must_fit():
    with pytest.raises(CorpusError, match=r"mask has shape \(2, 4\), the tokens \(2, 3\)"):
        with_tokens("ab", 3, np.ones((2, 4), bool))
    with pytest.raises(CorpusError, match="without tokens"):
        Features(["a"], np.ones((1, 2), np.float32), mask=np.ones((1, 3), bool))
    with pytest.raises(CorpusError, match="row 2, id 'b': no token is left"):
        with_tokens("ab", 3, np.array([[True] * 3, [False] * 3]))


def test_nan_in_a_token_counts_only_where_there_is_a_token():
    tokens = np.ones((1, 2, 3), np.float32)
    tokens[0, 1] = np.nan
    Features(["a"], np.ones((1, 2), np.float32), tokens, np.array([[True, False]]))
    with pytest.raises(CorpusError, match="id 'a': a token holds NaN"):
        Features(["a"], np.ones((1, 2), np.float32), tokens, np.array([[True, True]]))


@pytest.mark.parametrize("make", [dense, sparse_rows])
def test_what_is_taken_apart_is_concatenated_again(make):
    whole = make()
    again = Features.concatenate([Features(ids, whole.take(ids)) for ids in (["a", "c"], ["b"])])
    assert list(again.ids) == ["a", "c", "b"] and sparse.issparse(again.vectors) == sparse.issparse(whole.vectors)
    np.testing.assert_array_equal(again.dense(), whole.dense()[[0, 2, 1]])


def test_concatenate_refuses_other_widths_and_twice_the_same_rows():
    with pytest.raises(CorpusError, match="widths .* differ"):
        Features.concatenate([dense(), Features.from_arrays([[1.0]], ["z"])])
    with pytest.raises(CorpusError, match="occurs twice"):
        Features.concatenate([dense(), dense()])


numbers = st.floats(-1e3, 1e3, width=32).filter(lambda x: x != 0)


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 3)), elements=numbers), st.data())
def test_the_key_is_the_content(rows, data):
    ids = [f"row {i}" for i in range(len(rows))]
    features = Features.from_arrays(rows, ids)
    assert features.key == Features.from_arrays(rows.tolist(), ids).key
    i, j = data.draw(st.integers(0, rows.shape[0] - 1)), data.draw(st.integers(0, rows.shape[1] - 1))
    other = rows.copy()
    other[i, j] += np.float32(1 + abs(other[i, j]))
    assert features.key != Features.from_arrays(other, ids).key
    assert features.key != Features.from_arrays(rows, [f"{name}!" for name in ids]).key
