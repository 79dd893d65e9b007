"""Words that translate each other, and texts matched through them: pairs for a language that has no parallel text.

A dictionary of a hundred words matches entries that share several of them; matched entries then teach further words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
import scipy.sparse as sp
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.classic import words
from xmalign_lab.encoders.features import Features

UNKNOWN = 0.5  # what a word without translation counts in a bag's mass: between a miss and silence
ALIKE = 0.2  # cosine of letter n-grams that any two names may have
DICE = 0.3  # less than this is no translation


def dictionary(pairs: Iterable[tuple[str, str]], least: float = 0.0) -> dict[str, str]:
    """`{source word: target word}` of the largest Dice coefficient 2 n(s, t) / (n(s) + n(t)), from (source, target) texts.

    n counts the pairs of texts that hold a word (Dice 1945). Ties go to the word that is first in the alphabet. The most
    frequent source words come first; those whose largest coefficient is below `least` are left out.
    """
    source, target, both = Counter(), Counter(), {}
    for left, right in pairs:
        of_left, of_right = set(words(left)), set(words(right))
        source.update(of_left)
        target.update(of_right)
        for word in of_left:
            both.setdefault(word, Counter()).update(of_right)
    found = {}
    for word in sorted(both, key=lambda word: (-source[word], word)):
        dice = {other: 2 * n / (source[word] + target[other]) for other, n in both[word].items()}
        best = min(dice, key=lambda other: (-dice[other], other), default=None)
        if best is not None and dice[best] >= least:
            found[word] = best
    return found


def of_groups(corpus: Corpus, lang: str) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    """`(groups (n,), words (v,), bags (n, v))`: which words a group's texts in one language hold, each counted once."""
    texts = corpus.where_rows(modality="text", lang=lang).rows.groupby("group").text.agg("\n".join)
    if texts.empty:
        raise CorpusError(f"{corpus.name}: no text in {lang!r}; it has {', '.join(corpus.languages)}")
    counter = CountVectorizer(analyzer=words, binary=True, dtype=np.float64)
    bags = counter.fit_transform(texts)
    return texts.index.to_numpy(object), counter.get_feature_names_out(), bags


def matched(
    corpus: Corpus,
    a: str,
    b: str,
    known: Iterable[tuple[str, str]] = (),
    letters: Features | None = None,
    margin: float = 0.15,
    rounds: int = 3,
) -> Iterator[Pairs]:
    """Round by round, groups with texts in `a` and groups with texts in `b` that say the same, as pairs of their texts.

    `known` are words (b, a) that translate each other; words spelled alike are added. The evidence that x and y say the same is
    Σ √(idf v · idf w) over words v of x and w of y that translate each other, over √(mass x · mass y) + half a mean idf, where
    a mass is the sum of the idf, a word without translation counting `UNKNOWN`. With `letters`, n-grams of names (unit rows by
    text id), their cosine above `ALIKE` is added: names of countries look alike. STEP 1: CSLS of the evidence (Conneau et al.
    2018, arXiv 1710.04087); mutual nearest neighbours; the score is how far ahead of the next best they are on either side.
    STEP 2: of the best matches, more in each round, the words that occur together, their own match not counted, by Dice;
    both each other's best. Then again. A round yields what is ahead by at least `margin`: a pair can go as it came.

    Pairs have source "a-b" and tie texts of one kind. A group with no other to be ahead of is ahead by 0. `ValueError` for no
    round, `CorpusError` if a language has no text, or nothing at all is known. Needs a few dense matrices of groups × groups
    and of words × words.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be 1 or more, not {rounds}")
    (groups_a, words_a, x), (groups_b, words_b, y) = of_groups(corpus, a), of_groups(corpus, b)
    at_a, at_b = ({word: i for i, word in enumerate(names)} for names in (words_a, words_b))
    start = {at_b[v]: at_a[w] for v, w in ((word, word) for word in words_b if word in at_a)}
    start |= {at_b[v]: at_a[w] for v, w in known if v in at_b and w in at_a}
    if not start:
        raise CorpusError(f"{corpus.name}: no known word, and none is spelled alike in {a!r} and {b!r}: nothing to start from")
    fixed = sp.csr_matrix((np.ones(len(start)), (list(start), list(start.values()))), (len(words_b), len(words_a)))
    spelled = 0.0
    if letters is not None:
        names_a, names_b = _names(corpus, a, groups_a, letters), _names(corpus, b, groups_b, letters)
        spelled = np.maximum((names_b @ names_a.T).toarray() - ALIKE, 0)
    table = fixed
    for number in range(rounds):
        evidence = _evidence(x, y, table) + spelled
        row, column, ahead = _mutual(evidence)
        best = np.argsort(-ahead, kind="stable")
        good = best[ahead[best] >= margin]
        yield _pairs(corpus, a, b, groups_a[column[good]], groups_b[row[good]], ahead[good])
        if number < rounds - 1:
            best = best[: round(len(groups_b) * (0.1 + 0.4 * number / (rounds - 1)))]
            table = fixed + _learned(y[row[best]], x[column[best]], np.asarray(list(start)))


def _evidence(x: sp.csr_matrix, y: sp.csr_matrix, table: sp.csr_matrix) -> Float[np.ndarray, "m n"]:
    idf_x, idf_y = (np.log((bags.shape[0] + 1) / (np.asarray(bags.sum(0)).ravel() + 0.5)) for bags in (x, y))
    translated = (np.asarray(table.max(axis).todense() > 0).ravel() for axis in (0, 1))
    mass_x, mass_y = (
        bags @ (idf * np.where(has, 1, UNKNOWN)) for bags, idf, has in zip((x, y), (idf_x, idf_y), translated, strict=True)
    )
    shared = (y @ sp.diags(np.sqrt(idf_y)) @ table @ sp.diags(np.sqrt(idf_x)) @ x.T).toarray()
    return shared / (np.sqrt(np.outer(mass_y, mass_x)) + 0.5 * idf_x.mean())


def _mutual(evidence: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and lead of the mutual nearest neighbours under CSLS, of those with any evidence."""
    ordered = np.sort(evidence, 1)[:, ::-1], np.sort(evidence, 0)[::-1]
    adjusted = 2 * evidence - ordered[0][:, :k].mean(1)[:, None] - ordered[1][:k].mean(0)
    column = adjusted.argmax(1)
    row = np.flatnonzero((adjusted.argmax(0)[column] == np.arange(len(column))) & (evidence.max(1) > 0))
    column = column[row]
    others = adjusted.copy()
    others[row, column] = -np.inf
    next_best = np.maximum(others.max(1)[row], others.max(0)[column])
    return row, column, np.where(np.isfinite(next_best), adjusted[row, column] - next_best, 0)


def _names(corpus: Corpus, lang: str, groups: np.ndarray, letters: Features) -> sp.csr_matrix:
    """Unit n-gram rows of each group's first text that is not its keywords, of the keywords where there is no other."""
    rows = corpus.where_rows(modality="text", lang=lang).rows
    rows = rows.sort_values("kind", key=lambda kind: kind == "keywords", kind="stable").drop_duplicates("group")
    return normalize(letters.take(rows.set_index("group").id.loc[groups]))


def _pairs(corpus: Corpus, a: str, b: str, left: np.ndarray, right: np.ndarray, score: np.ndarray) -> Pairs:
    """The texts of one kind of the groups `left` in language a and `right` in b."""
    of_a, of_b = (corpus.where_rows(modality="text", lang=lang).rows[["group", "kind", "id"]] for lang in (a, b))
    table = pd.DataFrame({"of_a": left, "of_b": right, "score": score})
    table = table.merge(of_a, left_on="of_a", right_on="group").merge(of_b, left_on=["of_b", "kind"], right_on=["group", "kind"])
    found = {"left": table.id_x, "right": table.id_y, "weight": 1.0, "score": table.score, "source": f"{a}-{b}"}
    return Pairs(pd.DataFrame(found))


def _learned(y: sp.csr_matrix, x: sp.csr_matrix, known: np.ndarray) -> sp.csr_matrix:
    """Dice over matched bags, less the one match that a word would confirm by itself; each other's best only."""
    both, n_y, n_x = (y.T @ x).toarray() - 1, np.asarray(y.sum(0)).ravel(), np.asarray(x.sum(0)).ravel()
    dice = 2 * np.maximum(both, 0) / np.maximum(n_y[:, None] + n_x[None] - 1, 1)
    dice[known] = 0
    dice[(dice < DICE) | (dice < dice.max(1, keepdims=True)) | (dice < dice.max(0, keepdims=True))] = 0
    return sp.csr_matrix(dice)
