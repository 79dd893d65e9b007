"""Word vectors from counts: what meets is near, what the formula says, and texts as means."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from xmalign_lab.corpus import Corpus
from xmalign_lab.encoders.static import leading, mean_of_words, ppmi_svd

TEXTS = ["dog puppy", "dog puppy bone", "puppy bone dog", "cat kitten", "kitten cat milk", "milk cat kitten", "once"]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_words_that_share_contexts_are_near_and_rare_words_left_out():
    vocabulary, vectors = ppmi_svd(TEXTS, dim=4)
    assert vocabulary == ["bone", "cat", "dog", "kitten", "milk", "puppy"]
    cosine = unit(vectors) @ unit(vectors).T
    at = {word: i for i, word in enumerate(vocabulary)}
    assert cosine[at["dog"], at["bone"]] > cosine[at["dog"], at["milk"]] + 0.5
    assert cosine[at["cat"], at["milk"]] > cosine[at["cat"], at["bone"]] + 0.5


def test_the_vectors_are_the_roots_of_the_ppmi_table_worked_out():
    texts = ["a b", "a b", "a c", "b c", "a c"]
    together = np.array([[0, 2, 2], [2, 0, 1], [2, 1, 0]], float)  # a, b, c by the texts they share
    of_word = together.sum(1)
    context = of_word**0.75 / (of_word**0.75).sum()
    with np.errstate(divide="ignore"):
        table = np.maximum(0, np.log(together / (of_word[:, None] * context[None])))
    left, values, _ = np.linalg.svd(table)
    vocabulary, vectors = ppmi_svd(texts, dim=2)
    assert vocabulary == ["a", "b", "c"]
    assert np.allclose(np.abs(vectors), np.abs(left[:, :2] * np.sqrt(values[:2])), atol=1e-5)
    with pytest.raises(ValueError, match="no two words"):
        ppmi_svd(["a", "b", "a"], dim=2)


def test_a_text_is_the_mean_of_the_words_it_holds():
    rows = pd.DataFrame({"id": ["x", "y", "z"], "group": ["x", "y", "z"], "lang": "eng_Latn", "kind": "name"})
    corpus = Corpus(rows.assign(text=["Dog cat", "dog dog unseen", "nothing known"]), "toy")
    vectors = np.array([[1.0, 0.0], [0.0, 3.0]], np.float32)
    features = mean_of_words(corpus, ["dog", "cat"], vectors)
    assert np.allclose(features.take(["x", "y", "z"]), [[0.5, 1.5], [1, 0], [0.5, 1.5]])


def test_leading_directions_are_those_of_the_dense_decomposition():
    rng = np.random.default_rng(0)
    training = sparse.csr_matrix(rng.random((30, 200)) * (rng.random((30, 200)) < 0.2) * (np.arange(200) < 50))
    rows = sparse.csr_matrix(rng.random((9, 200)))
    directions = np.linalg.svd(training.toarray(), full_matrices=False)[2][:4]
    for ours, table in zip(leading(training, rows, 4), (training, rows), strict=True):
        np.testing.assert_allclose(np.abs(ours), np.abs(table.toarray() @ directions.T), atol=5e-3)
