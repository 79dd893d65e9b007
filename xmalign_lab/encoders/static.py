"""Static word vectors: made from counts here, or read from a `.vec` file; a text is the mean of its words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.utils.extmath import randomized_svd

from xmalign_lab.corpus import Corpus
from xmalign_lab.encoders.classic import words
from xmalign_lab.encoders.features import Features


def ppmi_svd(texts: Iterable[str], dim: int = 128, least: int = 2, power: float = 0.75) -> tuple[list[str], np.ndarray]:
    """Words (v,) and vectors (v, ≤ dim) from how often words share a text: U √Σ of the positive pointwise mutual information.

    PPMI(w, c) = max(0, log p(w, c) / (p(w) p(c)^power)), contexts smoothed by `power`, words in fewer than `least` texts left
    out (Levy, Goldberg & Dagan 2015, 10.1162/tacl_a_00134). A text is one context window, since names and captions are short.
    Raises `ValueError` if no two words of the vocabulary ever meet.
    """
    bags = [sorted(set(words(text))) for text in texts]
    names, counts = np.unique([word for bag in bags for word in bag], return_counts=True)
    known = {word: number for number, word in enumerate(names[counts >= least])}
    rows = [(i, known[word]) for i, bag in enumerate(bags) for word in bag if word in known]
    text, word = np.array(rows, int).reshape(-1, 2).T
    held = sparse.csr_matrix((np.ones(len(rows)), (text, word)), shape=(len(bags), len(known)))
    together = (held.T @ held).tolil()
    together.setdiag(0)
    together = together.tocoo()
    if not together.data.any():
        raise ValueError(f"{len(bags)} texts: no two words that occur in {least} of them share a text")
    of_word = np.asarray(together.sum(1)).ravel()
    of_context = of_word**power / (of_word**power).sum()
    information = np.log(together.data / (of_word[together.row] * of_context[together.col]))
    table = sparse.csr_matrix((np.maximum(information, 0), (together.row, together.col)), shape=together.shape)
    left, values, _ = randomized_svd(table, min(dim, min(table.shape) - 1), random_state=0)
    return list(known), (left * np.sqrt(values)).astype(np.float32)


def mean_of_words(corpus: Corpus, vocabulary: Sequence[str], vectors: np.ndarray) -> Features:
    """Features of the text rows: the mean of the vectors (v, d) of the words they hold.

    A text without any word of the vocabulary gets the mean of all vectors: a direction that says nothing.
    """
    place = {word: number for number, word in enumerate(vocabulary)}
    rows = corpus.where_rows(modality="text").rows
    middle = vectors.mean(0)
    means = np.empty((len(rows), vectors.shape[1]), np.float32)
    for i, text in enumerate(rows.text):
        held = [place[word] for word in words(text) if word in place]
        mean = vectors[held].mean(0) if held else middle
        means[i] = mean if np.any(mean) else middle
    return Features(rows.id.to_numpy(), means, shown=list(rows.text))


def leading(training: sparse.csr_matrix, rows: sparse.csr_matrix, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Both tables (n, width), (m, width) in the `dim` leading singular directions of the first: (n, dim), (m, dim).

    Columns that are empty in `training` have no part in them, and leaving them out first saves nearly all of the time: a
    table of hashed n-grams is mostly such columns.
    """
    used = np.flatnonzero(training.getnnz(axis=0))
    svd = TruncatedSVD(dim, random_state=0).fit(training[:, used])
    return svd.transform(training[:, used]), svd.transform(rows[:, used])
