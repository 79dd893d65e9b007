"""Words that translate each other, and entries matched through them, against worlds whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.pairs import dictionary as words
from xmalign_lab.pairs import mining
from xmalign_lab.pairs.dictionary import dictionary, matched


def world(concepts=300, vocabulary=120, seed=0, gaps=()):
    """Every concept is a name and three keywords out of a vocabulary; language b's word is a's, reversed, behind a q."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnop"))
    vocab = [f"{''.join(rng.choice(letters, 4))}{i:03d}" for i in range(vocabulary)]
    share = 1 / np.arange(1, vocabulary + 1)
    rows = []
    for concept in range(concepts):
        chosen = [vocab[i] for i in rng.choice(vocabulary, 5, replace=False, p=share / share.sum())]
        for lang, said in (("eng_Latn", chosen), ("swh_Latn", ["q" + word[::-1] for word in chosen])):
            if (lang, concept) in gaps:
                continue
            base = {"group": f"g{concept}", "family": f"f{concept}", "modality": "text", "lang": lang, "split": "train"}
            rows.append(base | {"id": f"{concept}:{lang}:name", "kind": "name", "text": " ".join(said[:2])})
            rows.append(base | {"id": f"{concept}:{lang}:keywords", "kind": "keywords", "text": ", ".join(said[2:])})
    return Corpus(pd.DataFrame(rows), "made up"), [("q" + word[::-1], word) for word in vocab]


def right(pairs, corpus):
    group = corpus.lookup("group")
    return np.array([group[a] == group[b] for a, b in zip(pairs.rows.left, pairs.rows.right, strict=True)])


def test_a_dictionary_takes_the_word_with_the_largest_dice_coefficient():
    pairs = [("mbwa mkubwa", "big dog"), ("mbwa", "dog"), ("paka mkubwa", "big cat"), ("paka", "cat"), ("mbwa mkubwa", "big dog")]
    assert dictionary(pairs) == {"mbwa": "dog", "mkubwa": "big", "paka": "cat"}
    # 'nyumba' twice with 'house' (of 2) and once with 'big' (of 2): Dice 1 against .5; a tie goes to the alphabet
    assert dictionary([("nyumba", "house"), ("nyumba", "house big"), ("x", "big")])["nyumba"] == "house"
    assert dictionary([("x", "b a")]) == {"x": "a"}


def test_frequent_words_come_first_and_what_has_no_translation_is_left_out():
    pairs = [("a c", "x"), ("a b", "x"), ("b c", "y"), ("c", "z"), ("a", "x")]
    assert list(dictionary(pairs)) == ["a", "c", "b"]
    # a and x: 2·3/(3+3) = 1; c with x, y, z once each: at most 2/(3+1) = ½; b with y: 2/(2+1)
    assert dictionary(pairs, least=0.6) == {"a": "x", "b": "y"}
    assert dictionary([("", "x"), ("a", "")]) == {}


def test_bags_hold_a_word_once_however_often_a_group_says_it():
    corpus, _ = world(3)
    groups, names, bags = words.of_groups(corpus, "eng_Latn")
    assert list(groups) == ["g0", "g1", "g2"] and bags.shape == (3, len(names)) and set(bags.data) == {1.0}
    said = {word for text in corpus.where_rows(group="g1", lang="eng_Latn").rows.text for word in text.replace(",", "").split()}
    assert {names[i] for i in bags[1].indices} == said


def test_with_the_whole_dictionary_every_pair_is_found_and_all_kinds_are_tied():
    corpus, known = world(200)
    *_, found = matched(corpus, "eng_Latn", "swh_Latn", known, margin=0.01)
    assert right(found, corpus).mean() > 0.98 and len(found) > 0.8 * 2 * 200
    kind, lang = corpus.lookup("kind"), corpus.lookup("lang")
    assert all(kind[a] == kind[b] for a, b in zip(found.rows.left, found.rows.right, strict=True))
    assert {lang[a] for a in found.rows.left} == {"eng_Latn"} and found.sources == ["eng_Latn-swh_Latn"]
    assert set(found.rows.weight) == {1.0} and (found.rows.score >= 0.01).all()


def test_rounds_learn_words_beyond_the_dictionary_and_find_more():
    corpus, known = world(300)
    pools = mining.overlap(corpus, "eng_Latn", "swh_Latn", 0.5)
    rounds = list(matched(pools, "eng_Latn", "swh_Latn", known[:40], rounds=5))
    assert len(rounds) == 5 and right(rounds[-1], corpus).sum() > right(rounds[0], corpus).sum()
    assert right(rounds[-1], corpus).mean() > 0.9


def test_a_learned_word_needs_a_second_witness():
    # matched bags of one text each: 'b' stands with 'y' twice, 'c' with 'z' once, which that match itself would confirm
    y = words.CountVectorizer(analyzer=str.split, dtype=float).fit_transform(["a b", "a b", "a c", "a"])
    x = words.CountVectorizer(analyzer=str.split, dtype=float).fit_transform(["w y", "w y", "w z", "w"])
    table = words._learned(y, x, np.array([0])).toarray()
    assert table[0].sum() == 0, "a known word learns nothing"
    assert table[1, 1] == pytest.approx(2 * 1 / (2 + 2 - 1)) and table[2, 2] == 0


def test_words_spelled_alike_start_it_without_a_dictionary():
    corpus, _ = world(120)
    with pytest.raises(CorpusError, match="no known word, and none is spelled alike in 'eng_Latn' and 'swh_Latn'"):
        next(matched(corpus, "eng_Latn", "swh_Latn"))
    rows = corpus.rows.assign(text=[f"{text}, no{g}" for text, g in zip(corpus.rows.text, corpus.rows.group, strict=True)])
    numbered = Corpus(rows, "numbered")
    *_, found = matched(numbered, "eng_Latn", "swh_Latn")
    assert right(found, numbered).all() and len(found) > 200


def test_names_spelled_nearly_alike_are_found_by_their_letters_alone():
    corpus, _ = world(120)
    rng = np.random.default_rng(3)
    names = {f"g{i}": "".join(rng.choice(list("bcdfghklmnprstvz"), 9)) for i in range(120)}
    ending = {"eng_Latn": "ia", "swh_Latn": "ya"}
    rows = corpus.rows[corpus.rows.kind == "name"]
    spelled = Corpus(rows.assign(text=[names[g] + ending[lang] for g, lang in zip(rows.group, rows.lang, strict=True)]))
    letters = ClassicText().encode(spelled, progress=False)
    start = [tuple(spelled.where_rows(lang=lang, group="g0").rows.text.iloc[0] for lang in ("swh_Latn", "eng_Latn"))]
    found = next(matched(spelled, "eng_Latn", "swh_Latn", start, letters))
    assert right(found, spelled).all() and len(found) == 120
    alone = next(matched(spelled, "eng_Latn", "swh_Latn", start))
    assert len(alone) <= 1, "words that differ in an ending are not spelled alike"


def test_a_round_is_needed_and_a_lonely_group_is_ahead_of_nothing():
    corpus, known = world(20)
    with pytest.raises(ValueError, match="rounds must be 1 or more, not 0"):
        next(matched(corpus, "eng_Latn", "swh_Latn", known, rounds=0))
    one = corpus.select(corpus.rows.group == "g0")
    assert not len(next(matched(one, "eng_Latn", "swh_Latn", known)))
    assert (next(matched(one, "eng_Latn", "swh_Latn", known, margin=0.0)).rows.score == 0).all()


def test_a_larger_margin_keeps_fewer_and_surer_pairs():
    corpus, known = world(300)
    pools = mining.overlap(corpus, "eng_Latn", "swh_Latn", 0.3)  # many a concept has no partner, but a near one
    found = [next(matched(pools, "eng_Latn", "swh_Latn", known[:30], margin=margin)) for margin in (0.0, 0.3)]
    kept = [set(zip(f.rows.left, f.rows.right, strict=True)) for f in found]
    assert kept[1] < kept[0] and right(found[1], corpus).mean() > right(found[0], corpus).mean()


def test_mutual_neighbours_and_their_lead_against_brute_force():
    rng = np.random.default_rng(0)
    evidence = rng.random((13, 17))
    row, column, ahead = words._mutual(evidence, k=3)
    near_row = np.sort(evidence, 1)[:, -3:].mean(1)
    near_column = np.sort(evidence, 0)[-3:].mean(0)
    adjusted = 2 * evidence - near_row[:, None] - near_column
    expected = {}
    for i in range(13):
        j = int(adjusted[i].argmax())
        if adjusted[:, j].argmax() == i:
            expected[i, j] = adjusted[i, j] - max(np.delete(adjusted[i], j).max(), np.delete(adjusted[:, j], i).max())
    assert {(i, j): a for i, j, a in zip(row, column, ahead, strict=True)} == pytest.approx(expected)
    assert (ahead >= 0).all()


def test_a_language_without_text_is_named():
    corpus, known = world(20)
    with pytest.raises(CorpusError, match="made up: no text in 'sin_Sinh'; it has eng_Latn, swh_Latn"):
        next(matched(corpus, "eng_Latn", "sin_Sinh", known))


def test_gaps_in_a_pool_are_no_error():
    corpus, known = world(60, gaps={("swh_Latn", 3), ("eng_Latn", 5)})
    *_, found = matched(corpus, "eng_Latn", "swh_Latn", known, margin=0.01)
    assert right(found, corpus).all() and not {"3:eng_Latn:name", "5:swh_Latn:name"} & {*found.rows.left, *found.rows.right}
