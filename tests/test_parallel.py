"""Sentences with translations: every published layout, what is odd in real files, and what would be wrong in silence."""

import gzip
import json

import pandas as pd
import pytest

from xmalign_lab import corpora, profile
from xmalign_lab.corpora import lines
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.pairs.parallel import partition

ODD = ["one\u2028line", "two\u0085line", "three\x0cline\x0b\x1c", "fünf"]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def flores(root, **files):
    for name, text in files.items():
        split, lang = name.split("_", 1)
        write(root / split / f"{lang}.{split}", text)
    return root


# Lines


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines_end_at_line_feeds_only(tmp_path, end, newline, mark, pack):
    path = write(tmp_path / "a.txt", pack(mark + (newline.join(ODD) + end).encode()))
    assert lines.lines(path) == ODD
    assert len("\n".join(ODD).splitlines()) > len(ODD), "what str.splitlines would have made of it"


def test_text_is_nfc_and_blank_lines_keep_their_places(tmp_path):
    path = write(tmp_path / "a.txt", "fu\u0308nf\n\n \n")
    assert lines.lines(path) == ["fünf", "", " "]
    assert lines.lines(write(tmp_path / "empty", "")) == []


def test_what_is_no_text_is_named_with_its_line(tmp_path):
    with pytest.raises(CorpusError, match=r"a.txt, line 3: not UTF-8"):
        lines.lines(write(tmp_path / "a.txt", b"\xef\xbb\xbfa\nb\nk\xf6ln\n"))
    with pytest.raises(CorpusError, match="a.gz: cannot be read, perhaps truncated"):
        lines.lines(write(tmp_path / "a.gz", gzip.compress(b"word " * 1000)[:-9]))
    with pytest.raises(CorpusError, match="nothing.txt: cannot be read"):
        lines.lines(tmp_path / "nothing.txt")


# Line-aligned files


def test_flores_layout(tmp_path):
    flores(tmp_path, dev_eng_Latn="a\nb\n", dev_swh_Latn="c\nd", devtest_eng_Latn="e\n", devtest_swh_Latn="f\n")
    corpus = corpora.load("flores200", root=tmp_path)
    rows = corpus.rows.set_index("id")
    assert len(corpus) == 6 and corpus.languages == ["eng_Latn", "swh_Latn"]
    assert rows.loc["flores200:validation:2:swh_Latn", ["text", "group", "split", "kind", "source", "modality"]].tolist() == [
        *("d", "flores200:validation:2", "validation", "caption", "flores200", "text")
    ]
    pairs = Pairs.by_group(corpus, {"lang": "eng_Latn"}, {"lang": "swh_Latn"}, "eng-swh")
    texts = corpus.lookup("text")
    assert [(texts[a], texts[b]) for a, b in zip(pairs.rows.left, pairs.rows.right, strict=True)] == [
        *(("a", "c"), ("b", "d"), ("e", "f"))
    ]
    for split in ("test", "devtest"):
        assert list(corpora.load("flores200", ["sw"], split, tmp_path).rows.text) == ["f"]


def test_flores_metadata_become_labels(tmp_path):
    flores(tmp_path / "flores200_dataset", dev_eng_Latn="a\nb\n")
    path = write(tmp_path / "flores200_dataset/metadata_dev.tsv", "URL\tdomain\ttopic\nu\twikinews\tsports\nv\twikibooks\tlaw\n")
    assert [labels["topic"] for labels in corpora.load("flores200", root=tmp_path).rows.labels] == ["sports", "law"]
    write(path, "URL\tdomain\ttopic\nu\twikinews\tsports\n")
    with pytest.raises(CorpusError, match=r"metadata_dev.tsv: 1 records where .*eng_Latn.dev has 2 lines"):
        corpora.load("flores200", root=tmp_path)


def test_ntrex_layout_with_regions_and_scripts(tmp_path):
    for name in ("src.eng", "ref.swa", "ref.eng-GB", "ref.srp-Latn", "ref.zho-TW", "ref-2.spa"):
        write(tmp_path / f"NTREX-128/newstest2019-{name}.txt", "a\nb\n")
    corpus = corpora.load("ntrex", root=tmp_path)
    assert corpus.languages == ["eng_Latn", "eng_Latn_GB", "srp_Latn", "swh_Latn", "zho_Hant_TW"]
    assert set(corpus.rows.split) == {"test"} and len(corpus) == 10


def tatoeba(root, **pairs):
    for lang, (foreign, english) in pairs.items():
        write(root / f"tatoeba.{lang}-eng.{lang}", foreign)
        write(root / f"tatoeba.{lang}-eng.eng", english)
    return root


def test_tatoeba_pairs_have_english_of_their_own(tmp_path):
    tatoeba(tmp_path / "v1", swh=("a\nb\n", "A\nB\n"), jpn=("c\n", "C\n"))
    corpus = corpora.load("tatoeba", root=tmp_path)
    assert corpus.rows.groupby("group").lang.agg(set).map(len).tolist() == [2, 2, 2]
    alone = corpora.load("tatoeba", ["jp"], root=tmp_path)  # jp, as some sources write Japanese
    assert list(alone.rows.text) == ["C", "c"] and list(alone.rows.group) == ["tatoeba:jpn_Jpan:test:1"] * 2
    assert len(corpora.load("tatoeba", ["swh", "eng"], root=tmp_path)) == 4
    with pytest.raises(CorpusError, match="no deu_Latn; there are .*swh_Latn – swh_Latn"):
        corpora.load("tatoeba", ["swh", "deu"], root=tmp_path)


def test_compressed_files_are_found_too(tmp_path):
    flores(tmp_path, dev_eng_Latn="a\n")
    write(tmp_path / "dev/swh_Latn.dev.gz", gzip.compress(b"b"))
    assert list(corpora.load("flores200", root=tmp_path).rows.text) == ["a", "b"]


def test_lines_without_text_are_left_out_in_their_place_and_said(tmp_path):
    flores(tmp_path, dev_eng_Latn="a\nb\nc\n", dev_swh_Latn="d\n \u00a0\nf\n")
    with pytest.warns(UserWarning, match=r"flores200: 1 row.* without text left out: .*swh_Latn.dev, line 2"):
        rows = corpora.load("flores200", root=tmp_path).rows
    assert rows[rows.lang == "swh_Latn"].group.tolist() == ["flores200:validation:1", "flores200:validation:3"]


@pytest.mark.parametrize(("shorter", "line"), [("c\n", 2), ("c\nd\ne\nf\n", 4), ("c\nd\n\n", None), ("c\n\u2028\nd\n\n", 4)])
def test_files_of_different_length_are_refused(tmp_path, shorter, line):
    flores(tmp_path, dev_eng_Latn="a\nb\nc\n", dev_swh_Latn=shorter)
    if line is None:
        with pytest.warns(UserWarning, match="line 3"):
            corpora.load("flores200", root=tmp_path)
        return
    with pytest.raises(CorpusError, match=rf"swh_Latn.dev, line {line}: the file has \d lines where .*eng_Latn.dev has 3"):
        corpora.load("flores200", root=tmp_path)


def test_unknown_languages_are_named_and_can_be_left_out(tmp_path):
    flores(tmp_path, dev_eng_Latn="a\n", dev_tlh_Latn="b\n")
    with pytest.raises(CorpusError, match=r"tlh_Latn.dev: unknown language code 'tlh_Latn'.*languages="):
        corpora.load("flores200", root=tmp_path)
    assert corpora.load("flores200", ["en"], root=tmp_path).languages == ["eng_Latn"]
    with pytest.raises(ValueError, match="unknown language code 'klingon'"):
        corpora.load("flores200", ["klingon"], root=tmp_path)
    with pytest.raises(CorpusError, match="no file; there are eng_Latn; splits are 'validation'"):
        corpora.load("flores200", [], root=tmp_path)


def test_two_files_of_one_language_are_refused(tmp_path):
    flores(tmp_path, dev_swh_Latn="a\n", dev_swa_Latn="b\n")
    with pytest.raises(CorpusError, match="'flores200:validation:1:swh_Latn': this id occurs twice"):
        corpora.load("flores200", root=tmp_path)


def test_missing_data_name_their_folder_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XMALIGN_DATA", str(tmp_path))
    for name in ("flores200", "tatoeba", "sib200", "belebele"):
        with pytest.raises(CorpusError) as raised:
            corpora.load(name)
        assert str(tmp_path / lines.sources()[name].folder) in str(raised.value)
        assert corpora.cards()[name]["get"] in str(raised.value)
    flores(tmp_path / "flores200", dev_eng_Latn="a\n")
    assert len(corpora.load("flores200")) == 1
    with pytest.raises(CorpusError, match="no eng_Latn in split 'test'; there are eng_Latn; splits are 'validation'"):
        corpora.load("flores200", ["en"], "test")
    with pytest.raises(CorpusError, match="no file in split 'tset'"):
        corpora.load("flores200", split="tset")


# Belebele


def question(link, number=1, lang="eng_Latn", passage="The passage.", **more):
    row = {"link": link, "question_number": number, "flores_passage": passage, "question": f"Q{number}?", "dialect": lang}
    answers = {f"mc_answer{n}": f"answer {n}" for n in (1, 2, 3, 4)}
    return row | answers | {"correct_answer_num": "2", "ds": "2023-05-03"} | more


def belebele(root, lang, rows):
    return write(root / f"Belebele/{lang}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def test_belebele_questions_and_their_passages_share_a_group(tmp_path):
    for lang in ("eng_Latn", "swh_Latn"):
        belebele(tmp_path, lang, [question("u", lang=lang), question("u", 2, lang), question("v", lang=lang, passage="Other.")])
    corpus = corpora.load("belebele", root=tmp_path)
    assert corpus.rows.groupby(["lang", "kind"]).size().to_dict() == {
        **{("eng_Latn", "passage"): 2, ("eng_Latn", "question"): 3},
        **{("swh_Latn", "passage"): 2, ("swh_Latn", "question"): 3},
    }
    pairs = Pairs.by_group(corpus, {"lang": "swh_Latn", "kind": "question"}, {"lang": "eng_Latn", "kind": "passage"}, "ask")
    assert [pair.split(":")[0] for pair in pairs.rows.left] == ["u#1", "u#2", "v#1"] and len(pairs) == 3
    assert corpus.lookup("labels")["u#2:eng_Latn"] == {
        **{"question": "2", "answer": "answer 2", "choices": ["answer 1", "answer 2", "answer 3", "answer 4"]}
    }


def test_belebele_tells_passages_of_one_link_apart_by_their_split(tmp_path):
    belebele(tmp_path, "eng_Latn", [question("u", split="dev"), question("u", split="devtest", passage="Other.")])
    assert corpora.load("belebele", root=tmp_path).rows.group.nunique() == 2


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (question("u"), "line 2: another question u#1 than in line 1"),
        (question("u", 2, passage="Other."), "line 2: another passage u than in line 1"),
        (question("u", 2, lang="swh_Latn"), "line 2: not a row of Belebele in eng_Latn .*dialect is swh_Latn"),
        (question("u", 2, correct_answer_num="5"), "line 2: .*mc_answer5"),
        ({"link": "u"}, "line 2: .*question"),
        ([1], "line 2: not a row"),
    ],
)
def test_belebele_rows_that_would_be_wrong_in_silence(tmp_path, second, said):
    belebele(tmp_path, "eng_Latn", [question("u"), second])
    with pytest.raises(CorpusError, match=f"eng_Latn.jsonl, {said}"):
        corpora.load("belebele", root=tmp_path)


def test_belebele_that_is_no_json(tmp_path):
    write(tmp_path / "eng_Latn.jsonl", json.dumps(question("u")) + "\n\n{'link': 1}\n")
    with pytest.raises(CorpusError, match=r"eng_Latn.jsonl, line 3: not a row of Belebele"):
        corpora.load("belebele", root=tmp_path)


# By name


def test_load_names_what_is_wanted_and_no_corpus(tmp_path):
    with pytest.raises(CorpusError, match=r"load\('table', path='mine.csv'"):
        corpora.load("table")
    with pytest.raises(CorpusError, match=r"'muse' holds words.*lexicons.load\('muse'"):
        corpora.load("muse")
    with pytest.raises(CorpusError, match="unknown corpus 'flores'; known are .*flores200"):
        corpora.load("flores")
    with pytest.raises(CorpusError, match="scenes has no rows in split 'test'.*split_by_family"):
        corpora.load("scenes", ["eng_Latn"], "test")


def test_a_table_can_be_loaded_by_split(tmp_path):
    path = write(tmp_path / "a.csv", "group,lang,text,split\na,en,x,train\na,sw,y,train\nb,en,z,test\nb,sw,w,test\n")
    assert list(corpora.load("table", ["sw"], "test", path=path).rows.text) == ["w"]


def test_every_source_has_a_card_a_reader_and_a_place():
    cards, sources = corpora.cards(), lines.sources()
    assert set(sources) <= set(cards)
    for name, card in cards.items():
        assert {"summary", "get", "languages"} <= set(card), name
        assert ("url" in card) == ("sha256" in card), name
    assert {name for name in sources if not cards[name]["seen_real"]} == {
        *("flores200", "ntrex", "belebele", "muse", "panlex"),
        *("flickr8k", "flickr30k", "coco", "stair", "xm3600", "babel_imagenet", "msrvtt"),
    }
    assert any("not be used for training" in note for note in cards["flores200"]["notes"])
    table, there = corpora.available("/nowhere").set_index("name"), corpora.cards("/nowhere")
    assert set(sources) <= set(table.index) and not table.present[list(sources)].any()
    assert table.how["sib200"] == there["sib200"]["get"] == "git clone https://github.com/dadelani/sib-200 /nowhere/sib200"
    assert all(str(profile.data_root() / sources[name].folder) in cards[name]["get"] for name in sources)


# Where pairs come from


def test_languages_with_pairs_are_filtered_and_the_others_mined():
    rows = [
        {"id": f"g{g}:{lang}", "group": f"g{g}", "lang": lang, "text": f"{lang} {g}"}
        for lang, groups in (("eng_Latn", 9), ("deu_Latn", 9), ("swh_Latn", 9), ("sin_Sinh", 4), ("wol_Latn", 3))
        for g in range(groups)
    ]
    corpus = Corpus(pd.DataFrame(rows), "toy")
    given = {"deu_Latn": 5, "swh_Latn": 5, "wol_Latn": 3}
    pairs = Pairs(
        pd.DataFrame(
            [(f"g{g}:eng_Latn", f"g{g}:{lang}", f"eng_Latn-{lang}") for lang, n in given.items() for g in range(n)],
            columns=["left", "right", "source"],
        )
    )
    table = partition(pairs, corpus, ["deu_Latn", "swh_Latn", "sin_Sinh", "wol_Latn"]).set_index("language")
    assert table[["pairs", "unpaired", "filter", "mine"]].to_dict("index") == {
        "German": {"pairs": 5, "unpaired": 4, "filter": True, "mine": False},
        "Swahili": {"pairs": 5, "unpaired": 4, "filter": True, "mine": True},
        "Sinhala": {"pairs": 0, "unpaired": 4, "filter": False, "mine": True},
        "Wolof": {"pairs": 3, "unpaired": 0, "filter": True, "mine": False},
    }
    assert table.loc["German", ["source", "tier"]].tolist() == ["eng_Latn-deu_Latn", "high"]
    assert partition(pairs, corpus, ["deu_Latn"], tiers=("low", "high")).mine.tolist() == [True]
    with pytest.raises(CorpusError, match="toy: no text in 'hau_Latn'; it has deu_Latn, eng_Latn"):
        partition(pairs, corpus, ["hau_Latn"])
