"""Dictionaries, gold word alignments and word vectors, in their true formats."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xmalign_lab.corpora import lexicons
from xmalign_lab.corpus import CorpusError


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# Dictionaries


def test_tabs_spaces_and_several_translations(tmp_path):
    tabs = "\ufeffthe\tdie\r\nthe\tder\nice cream\tEis am Stiel\nthe\tdie\nfu\u0308r\tfor"
    lexicon = lexicons.read_lexicon(write(tmp_path / "a.txt", tabs))
    assert lexicons.translations(lexicon) == {"the": ["die", "der"], "ice cream": ["Eis am Stiel"], "für": ["for"]}
    assert lexicon.attrs["empty"] == 0 and lexicon.attrs["repeated"] == 1
    spaces = lexicons.read_lexicon(write(tmp_path / "b.txt", "\ufeffthe die\r\nice\u00a0age  Eiszeit\nthe die\nfu\u0308r for"))
    assert lexicons.translations(spaces) == {"the": ["die"], "ice\u00a0age": ["Eiszeit"], "für": ["for"]}


def test_once_a_file_has_a_tab_a_space_parts_no_pair(tmp_path):
    lexicon = lexicons.read_lexicon(write(tmp_path / "a.txt", "ice cream\nDad\tBaba\nword\nthree small words\n"))
    assert lexicon.to_dict("list") == {"source": ["Dad"], "target": ["Baba"]} and lexicon.attrs["empty"] == 3


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CorpusError, match="load does not know 'mouse'; known are muse, panlex, xling_eval, afromt$"):
        lexicons.load("mouse", "en", "de")
    with pytest.raises(CorpusError, match="load_alignments does not know 'muse'; known are xlwa, awesome$"):
        lexicons.load_alignments("muse", "en", "de")


def test_lines_that_lack_a_side_are_skipped_and_counted(tmp_path):
    lexicon = lexicons.read_lexicon(write(tmp_path / "a.txt", "you\t\n\tmimi\n\t\n\nDad\tBaba\n \t x\n"))
    assert lexicon.to_dict("list") == {"source": ["Dad"], "target": ["Baba"]} and lexicon.attrs["empty"] == 5


@pytest.mark.parametrize("line", ["three small words", "word", "a\tb\tc"])
def test_other_lines_are_refused(tmp_path, line):
    with pytest.raises(CorpusError, match=r"a.txt, line 2: [13] cells; a line is a word, a tab and its translation"):
        lexicons.read_lexicon(write(tmp_path / "a.txt", f"good gut\n{line}\n"))


def test_published_layouts(tmp_path):
    for name, text in {"en-de.0-5000.txt": "a b\n", "en-de.5000-6500.txt": "c d\n", "en-de.txt": "e f\n"}.items():
        write(tmp_path / "muse/dictionaries" / name, text)
    for split, source in {"train": "a", "0-5000": "a", "test": "c", "": "e"}.items():
        assert list(lexicons.load("muse", "en", "deu_Latn", split, tmp_path / "muse").source) == [source]
    with pytest.raises(CorpusError, match="3 files from en into de; say which with split=, one of .'train', 'test', ''"):
        lexicons.load("muse", "en", "de", root=tmp_path / "muse")
    with pytest.raises(CorpusError, match="no deu_Latn – eng_Latn; there are eng_Latn – deu_Latn"):
        lexicons.load("muse", "de", "en", root=tmp_path / "muse")
    with pytest.raises(CorpusError, match="no eng_Latn – deu_Latn in split 'dev'|in split 'validation'"):
        lexicons.load("muse", "en", "de", "dev", tmp_path / "muse")
    with pytest.raises(ValueError, match="unknown language code 'klingon'"):
        lexicons.load("muse", "en", "klingon", root=tmp_path / "muse")
    write(tmp_path / "x/bli_datasets/en-de/yacle.train.freq.5k.en-de.tsv", "of\tvon\n")
    write(tmp_path / "x/bli_datasets/en-de/yacle.test.freq.2k.en-de.tsv", "to\tzu\n")
    assert list(lexicons.load("xling_eval", "en", "de", "test.freq.2k", tmp_path / "x").target) == ["zu"]
    write(tmp_path / "a/dictionaries/en-sw.txt", "Dad\tBaba\n")
    assert len(lexicons.load("afromt", "eng", "swa", root=tmp_path / "a")) == 1
    write(tmp_path / "p/eng-sin.tsv", "dog\tබල්ලා\n")
    assert list(lexicons.load("panlex", "en", "si", root=tmp_path / "p").target) == ["බල්ලා"]


def test_missing_dictionaries_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_DATA", str(tmp_path))
    with pytest.raises(CorpusError, match=r"muse holds no files of muse; download .*MUSE"):
        lexicons.load("muse", "en", "de")


# Word alignments


def test_sure_and_possible_links_counted_from_one(tmp_path):
    sentences = write(tmp_path / "enfr.src-tgt", "oh , oh !   ||| oh\u00a0, oh !  \nyes ||| oui , oui\n")
    write(tmp_path / "enfr.gold", "1-1 4p3 3-2\n1p3 1-1 1p1\n")
    first, second = lexicons.load_alignments("awesome", "en", "fr", root=tmp_path)
    assert first.source == ["oh", ",", "oh", "!"] and first.target == ["oh\u00a0,", "oh", "!"]
    assert first.sure == {(0, 0), (2, 1)} and first.possible == {(0, 0), (2, 1), (3, 2)}
    assert second.sure == {(0, 0)} and second.possible == {(0, 0), (0, 2)}
    with pytest.raises(CorpusError, match=r"enfr.gold, line 1: link 1-3 points beyond .* 4 and 3 words, the first with number 0"):
        write(tmp_path / "enfr.gold", "1-3\n1-1\n")
        lexicons.read_alignments(sentences, tmp_path / "enfr.gold", first=0)


def test_xlwa_links_counted_from_zero(tmp_path):
    write(tmp_path / "data/nl/dev.tsv", 'A " quote\tEen " citaat\t0-0 1-1 2-2\t\t\t\nYes\tJa\t\n')
    first, second = lexicons.load_alignments("xlwa", "en", "nl", "validation", tmp_path)
    assert first.source == ["A", '"', "quote"] and first.sure == first.possible == {(0, 0), (1, 1), (2, 2)}
    assert second.sure == set()


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("1-1\n1-1 5-1\n", r"a.gold, line 2: link 5-1 points beyond the sentence of 2 and 2 words, the first with number 1"),
        ("1-1\n0-1\n", "a.gold, line 2: link 0-1 points beyond"),
        ("1-1\n1-3\n", "a.gold, line 2: link 1-3 points beyond"),
        ("1-1\n1?1\n", r"a.gold, line 2: '1\?1' is no link"),
        ("1-1\n1-1-1\n", "a.gold, line 2: '1-1-1' is no link"),
        ("1-1\n", "a.gold, line 2: 1 lines where .*a.src-tgt has 2"),
        ("1-1\n\n\n", "a.gold, line 3: 3 lines where .*a.src-tgt has 2"),
    ],
)
def test_links_that_would_be_wrong_in_silence(tmp_path, gold, said):
    sentences = write(tmp_path / "a.src-tgt", "a b ||| c d\ne f ||| g h\n")
    with pytest.raises(CorpusError, match=said):
        lexicons.read_alignments(sentences, write(tmp_path / "a.gold", gold), first=1)


def test_a_line_without_its_columns_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"a.tsv, line 1: 2 cells; a line has a source, a target and their links"):
        lexicons.read_alignments(write(tmp_path / "a.tsv", "a b\tc d\n"))
    with pytest.raises(CorpusError, match="a.src-tgt, line 1: 2 cells"):
        lexicons.read_alignments(write(tmp_path / "a.src-tgt", "a b | c d\n"), write(tmp_path / "a.gold", "1-1\n"))


# Word vectors


def vec(words, vectors):
    body = (f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, vectors, strict=True))
    return f"{len(words)} {vectors.shape[1]}\n" + "".join(body)


@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1), unique=True),
    st.integers(0, 9),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_word_comes_back_with_its_vector(tmp_path, words, seed):
    import unicodedata

    words = list(dict.fromkeys(unicodedata.normalize("NFC", word) for word in words))
    vectors = np.random.default_rng(seed).normal(size=(len(words), 3)).astype(np.float32)
    for pack, name in ((bytes, "a.vec"), (gzip.compress, "a.vec.gz")):
        found, matrix = lexicons.read_vec(write(tmp_path / name, pack(vec(words, vectors).encode())))
        assert found == words and matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, vectors)


def test_limit_takes_the_first_words(tmp_path):
    path = write(tmp_path / "a.vec", "3 2\na 1 2\nb 3 4 \nc x y\n")
    words, vectors = lexicons.read_vec(path, limit=2)
    assert words == ["a", "b"] and vectors.tolist() == [[1, 2], [3, 4]]
    assert lexicons.read_vec(write(tmp_path / "b.vec", "2 1\na 1\nb 2"), limit=9)[0] == ["a", "b"]
    assert lexicons.read_vec(path, limit=0)[1].shape == (0, 2)


def test_a_repeated_word_keeps_its_first_vector_and_is_counted(tmp_path):
    path = write(tmp_path / "a.vec", "4 1\na 1\nb 2\na 3\nfu\u0308r 4\n")
    with pytest.warns(UserWarning, match="a.vec: 1 word"):
        words, vectors = lexicons.read_vec(path)
    assert words == ["a", "b", "für"] and vectors.ravel().tolist() == [1, 2, 4]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a 1 2\n", "line 1: fastText's text format starts with"),
        ("", "line 1: fastText's text format starts with"),
        ("2 2\na 1 2\nb 1\n", "line 3: a word and 2 finite numbers are wanted"),
        ("2 2\na 1 2\nb 1 2 x\n", "line 3: could not convert"),
        ("2 2\na 1 nan\nb 1 2\n", "line 2: a word and 2 finite numbers"),
        ("3 2\na 1 2\nb 1 2\n", "line 3: the file ends here, but its first line says 3 words"),
        ("1 2\na 1 2\nb 1 2\n", "line 3: the file ends here, but its first line says 1 words"),
    ],
)
def test_vectors_that_would_be_wrong_in_silence(tmp_path, text, said):
    with pytest.raises(CorpusError, match=f"a.vec, {said}"):
        lexicons.read_vec(write(tmp_path / "a.vec", text))
