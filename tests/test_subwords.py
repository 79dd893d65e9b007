"""Subwords: pieces of whole graphemes, found by hand, the same twice, and some for every language."""

import pandas as pd
import pytest
import regex

pytest.importorskip("tokenizers")

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.classic import graphemes, words
from xmalign_lab.encoders.subwords import BEGINNING, UNKNOWN, Subwords

SWAHILI = ["moyo mwekundu mdogo", "mioyo miwili midogo", "nyota nyekundu kubwa", "nyota mbili kubwa"] * 3
SINHALA = ["රතු බෝලය", "රතු තරු දෙකක්", "කුඩා නිල් බෝල", "විශාල නිල් තරුව"] * 3


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train({"swh_Latn": SWAHILI, "sin_Sinh": SINHALA}, 90)


def test_pieces_join_in_the_order_of_their_rank():
    subwords = Subwords(["▁", "a", "b", "c", "bc", "▁a", "ab"])
    assert subwords.shown("abc") == ["▁a", "bc"]  # bc has the lowest rank; then ▁a joins, and ab never can
    assert Subwords(["▁", "a", "b", "c", "ab", "bc"]).shown("abc") == ["▁", "ab", "c"]
    assert subwords.cut("axb") == [7, UNKNOWN, 4] and subwords.shown("axb") == ["▁a", "?", "b"]
    assert subwords.unknown(["abc", "axb"]) == 1 / 5
    assert len(subwords) == 9
    assert Subwords(["▁", "ක"]).shown("කිතක") == ["▁", "?", "?", "ක"], "a known letter under an unknown sign is not cut out"


def test_pieces_spell_the_word_and_cut_no_grapheme(subwords):
    for text in SWAHILI + SINHALA:
        for word in words(text):
            pieces = subwords.shown(word)
            assert "".join(pieces) == BEGINNING + word
            assert [g for piece in pieces for g in graphemes(piece.removeprefix(BEGINNING))] == graphemes(word)
            assert not any(regex.match(r"\p{M}", piece) for piece in pieces)
    assert any(len(g) > 1 for word in words(" ".join(SINHALA)) for g in graphemes(word)), "the texts hold vowel signs"
    assert subwords.unknown(SWAHILI + SINHALA) == 0 and subwords.unknown(["ሰላም"]) > 0.5


def test_frequent_words_are_one_piece(subwords):
    assert subwords.shown("රතු") == ["▁රතු"] and subwords.shown("nyota") == ["▁nyota"]
    assert len(subwords.pieces) <= 90 and subwords.pieces == list(dict.fromkeys(subwords.pieces))


def test_the_same_texts_give_the_same_pieces_and_the_pieces_are_all(subwords):
    column = pd.Series(SWAHILI, index=range(7, 7 + len(SWAHILI)))  # as a corpus has it
    assert Subwords.train({"swh_Latn": column, "sin_Sinh": SINHALA}, 90).pieces == subwords.pieces
    assert Subwords(subwords.pieces).cut("nyotambili") == subwords.cut("nyotambili")


def test_a_small_language_gets_more_pieces_by_balance():
    texts = {"eng_Latn": [f"{a}{b} {b}{a}" for a in "abcdefghij" for b in "klmnopqrst"] * 10, "sin_Sinh": SINHALA[:4]}
    of_sinhala = []
    for balance in (1.0, 0.0):
        pieces = Subwords.train(texts, 200, balance).pieces
        of_sinhala.append(sum(any("\u0d80" <= c <= "\u0dff" for c in piece) for piece in pieces))
    assert of_sinhala[0] < of_sinhala[1]


def test_what_cannot_be():
    with pytest.raises(CorpusError, match="no texts"):
        Subwords.train({"swh_Latn": [], "sin_Sinh": SINHALA})
    with pytest.raises(ValueError, match="0 pieces"):
        Subwords([])
    with pytest.raises(ValueError, match="3 pieces, 2 of them distinct"):
        Subwords(["a", "b", "a"])
