"""Pseudo-parallel pairs: what copies or says nothing weighs nothing and is flagged, every row says of what it was made."""

import gzip
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.corpora import captions
from xmalign_lab.corpus import Corpus, CorpusError, concatenate, normalise
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.pairs import pseudo

ENGLISH = ["red house", "small cat", "big tree and house", "tea", "one two", "a dog"]
THERE = ["nyumba nyekundu", "Small  cat", "", "chai", "one two", "mbwa"]
BACK = {"nyumba nyekundu": "red house", "Small cat": "small cat", "chai": "teapot", "one two": "one two", "mbwa": " "}
FLAGS = ["", "copied", "empty", "", "copied", "empty"]


def corpus(texts=ENGLISH, **more):
    rows = [{"id": f"g{i}", "group": f"g{i}", "family": f"f{i // 2}", "lang": "eng_Latn", "text": t} for i, t in enumerate(texts)]
    other = {"id": "sw", "group": "g0", "lang": "swh_Latn", "text": "nyumba", "labels": {}}
    return Corpus(
        pd.DataFrame([*({**row, "labels": {"n": i}, "split": "train", **more} for i, row in enumerate(rows)), other]), "toy"
    )


def says(texts, source, target):
    return [dict(zip(ENGLISH, THERE, strict=True))[text] if target == "swh_Latn" else BACK[text] for text in texts]


def test_rows_say_of_what_they_were_made_and_flags_weigh_nothing():
    toy = corpus()
    new, pairs, counts = pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", says)
    assert counts == {"empty": 2, "copied": 2, "kept": 2}
    rows = new.rows.set_index("id")
    assert set(rows.index) == {"g0~swh_Latn", "g1~swh_Latn", "g3~swh_Latn", "g4~swh_Latn", "g5~swh_Latn", "g3~back"}
    for row_id, labels in rows.labels.items():
        made_of = row_id.split("~")[0]
        flag = FLAGS[int(made_of[1:])]
        assert labels == {"n": int(made_of[1:]), "made": "machine", "by": "says", "of": made_of} | (
            {"flag": flag} if flag else {}
        )
        assert rows.group[row_id] == made_of and rows.split[row_id] == "train"
        assert rows.lang[row_id] == ("eng_Latn" if row_id.endswith("back") else "swh_Latn")
    assert all("made" not in labels for labels in toy.rows.labels), "the captions' own labels are untouched"
    table = pairs.rows.set_index("right")
    assert table.weight.to_dict() | {"g3~swh_Latn": 0, "g3~back": 0} == {
        "g0~swh_Latn": pytest.approx(1), "g1~swh_Latn": 0, "g3~swh_Latn": 0, "g4~swh_Latn": 0, "g5~swh_Latn": 0, "g3~back": 0
    }  # fmt: skip
    assert 0 < table.score["g3~swh_Latn"] == table.score["g3~back"] == table.weight["g3~back"] < 1
    assert table.score.isna().to_dict() == {row: rows.labels[row].get("flag", "") != "" for row in table.index}
    assert table.left.to_dict() == {row: rows.labels[row]["of"] for row in table.index}
    assert table.source.to_dict() == {
        row: "eng_Latn-eng_Latn" if row == "g3~back" else "eng_Latn-swh_Latn" for row in table.index
    }
    pairs.check(concatenate([toy, new], "both").ids)


def test_a_name_goes_before_a_function_s():
    class Model:
        name = "somebody/nllb"
        __call__ = staticmethod(says)

    new, _, _ = pseudo.pseudo_parallel(corpus(), "eng_Latn", "swh_Latn", Model())
    assert {labels["by"] for labels in new.rows.labels} == {"somebody/nllb"}


def test_a_round_trip_weighs_by_agreement_and_copies_and_silence_weigh_nothing():
    toy = corpus(ENGLISH[:4])
    answers = {
        "red house": "nyumba nyekundu", "small cat": "Small  cat", "big tree and house": "", "tea": "chai",
        "nyumba nyekundu": "red house", "Small cat": "small cat", "chai": "teapot",
    }  # fmt: skip
    asked = []

    def translate(texts, source, target):
        asked.append((source, target, texts))
        return [answers[text] for text in texts]

    new, pairs, counts = pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", translate)
    assert asked == [("eng_Latn", "swh_Latn", ENGLISH[:4]), ("swh_Latn", "eng_Latn", ["nyumba nyekundu", "Small cat", "chai"])]
    assert counts == {"empty": 1, "copied": 1, "kept": 2}
    weight = {right: w for right, w in zip(pairs.rows.right, pairs.rows.weight, strict=True)}
    assert set(weight) == {"g0~swh_Latn", "g1~swh_Latn", "g3~swh_Latn", "g3~back"} == set(new.rows.id)
    assert weight["g0~swh_Latn"] == pytest.approx(1) and weight["g1~swh_Latn"] == 0
    both = [Counter(ClassicText().grams(text)) for text in ("tea", "teapot")]
    cosine = sum(both[0][g] * both[1][g] for g in both[0]) / np.prod([sum(v**2 for v in c.values()) ** 0.5 for c in both])
    assert weight["g3~swh_Latn"] == weight["g3~back"] == pytest.approx(cosine, rel=1e-5) and 0 < cosine < 1
    assert pairs.sources == ["eng_Latn-swh_Latn", "eng_Latn-eng_Latn"]
    pairs.check(concatenate([toy, new], "both").ids)


def test_a_translator_that_gives_up():
    toy = corpus(ENGLISH[:4])
    with pytest.raises(CorpusError, match="translating eng_Latn into swh_Latn: all 4 outputs are empty"):
        pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", lambda texts, *_: [" " for _ in texts])
    with pytest.raises(CorpusError, match="4 texts were sent and 1 came back"):
        pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", lambda texts, *_: ["x"])


def test_copies_both_ways_say_that_there_is_nothing_to_pair():
    toy = corpus(ENGLISH[:4])
    with pytest.raises(CorpusError, match="no text was changed"):
        pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", lambda texts, *_: texts)


def test_judged_shows_every_text_with_what_became_of_it():
    toy = corpus()
    new, pairs, counts = pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", says)
    table = pseudo.judged(toy, new, pairs, "eng_Latn")
    assert table.id.tolist() == [f"g{i}" for i in range(6)] and table.text.tolist() == ENGLISH
    assert table.flag.tolist() == FLAGS and table.translation.tolist() == [normalise(text) for text in THERE]
    assert table.back.tolist() == ["red house", "", "", "teapot", "", ""] and table.score.notna().tolist() == [
        not f for f in FLAGS
    ]
    assert table.flag.replace("", "kept").value_counts().to_dict() == counts
    assert (table.weight > 0).tolist() == [not flag for flag in FLAGS]


WORDS = st.lists(st.sampled_from(["mbwa", "paka", "Dog", "dog", "cat", "නිවස", ""]), max_size=3).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(WORDS.filter(lambda text: text.strip()), WORDS, WORDS), min_size=1, max_size=8))
def test_whatever_a_translator_says(rows):
    toy = corpus([text for text, _, _ in rows]).where_rows(lang="eng_Latn")
    sent = []

    def translate(texts, source, target):
        sent.append(len(texts))
        alive = [row for row in rows if normalise(row[1])]
        return [row[1] for row in rows] if target == "swh_Latn" else [row[2] for row in alive]

    try:
        new, pairs, counts = pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", translate)
    except CorpusError as error:
        assert "outputs are empty" in str(error) or "no text was changed" in str(error)
        return
    assert sent == [len(rows), sum(bool(normalise(there)) for _, there, _ in rows)]
    assert sum(counts.values()) == len(rows) and counts["kept"] == len(set(pairs.rows.left[pairs.rows.score.notna()]))
    pairs.check(concatenate([toy, new], "both").ids)
    assert set(pairs.rows.right) == set(new.rows.id) and new.rows.id.is_unique
    table = pseudo.judged(toy, new, pairs, "eng_Latn")
    for (text, there, back), row in zip(rows, table.itertuples(), strict=True):
        text, there, back = map(normalise, (text, there, back))
        copied = there != "" and there.casefold() in (text.casefold(), back.casefold())
        assert row.flag == ("copied" if copied else "empty" if not (there and back) else "") and row.translation == there
        assert row.weight == 0 if row.flag else (row.score == row.weight and row.back == back)
        assert f"{row.id}~swh_Latn" in set(new.rows.id) or not there


def test_a_translator_that_gives_up_raises():
    with pytest.raises(CorpusError, match="all 6 outputs are empty"):
        pseudo.pseudo_parallel(corpus(), "eng_Latn", "swh_Latn", lambda texts, *_: [""] * len(texts))
    with pytest.raises(CorpusError, match="no text was changed"):
        pseudo.pseudo_parallel(corpus(), "eng_Latn", "swh_Latn", lambda texts, *_: texts)
    with pytest.raises(CorpusError, match="6 texts were sent and 1 came back"):
        pseudo.pseudo_parallel(corpus(), "eng_Latn", "swh_Latn", lambda texts, *_: ["x"])


# Files


def write(path, lines, packed=False):
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_aligned_files_give_what_a_translator_gives(tmp_path, packed):
    toy, name = corpus(), "there.gz" if packed else "there"
    there = write(tmp_path / name, THERE, packed)
    back = write(tmp_path / "back", [BACK.get(normalise(text), "") for text in THERE], packed)
    new, pairs, counts = pseudo.from_lines(toy, "eng_Latn", "swh_Latn", there, back)
    same, expected, _ = pseudo.pseudo_parallel(toy, "eng_Latn", "swh_Latn", says)
    assert counts == {"empty": 2, "copied": 2, "kept": 2} and pairs.rows.equals(expected.rows)
    assert {labels["by"] for labels in new.rows.labels} == {name}
    assert new.rows.drop(columns="labels").equals(same.rows.drop(columns="labels"))


def test_without_a_way_back_there_is_no_score(tmp_path):
    toy = corpus()
    new, pairs, counts = pseudo.from_lines(toy, "eng_Latn", "swh_Latn", write(tmp_path / "there", THERE))
    assert counts == {"empty": 1, "copied": 2, "kept": 3} and pairs.sources == ["eng_Latn-swh_Latn"]
    weights = dict(zip(pairs.rows.right, pairs.rows.weight, strict=True))
    assert weights == {f"g{i}~swh_Latn": w for i, w in enumerate([1, 0, None, 1, 0, 1]) if w is not None}
    assert pairs.rows.score.isna().all() and not any(labels.get("flag") == "empty" for labels in new.rows.labels)
    assert pseudo.judged(toy, new, pairs, "eng_Latn").flag.tolist() == ["", "copied", "empty", "", "copied", ""]


def test_files_that_do_not_fit_are_named_with_their_line(tmp_path):
    for lines, line in ((THERE[:-1], 6), ([*THERE, "more"], 7)):
        path = write(tmp_path / "there", lines)
        with pytest.raises(CorpusError, match=rf"there, line {line}: .*{len(lines)} lines, 6 texts"):
            pseudo.from_lines(corpus(), "eng_Latn", "swh_Latn", path)
        with pytest.raises(CorpusError, match=rf"there, line {line}: "):
            pseudo.from_lines(corpus(), "eng_Latn", "swh_Latn", write(tmp_path / "good", THERE), path)
    with pytest.raises(CorpusError, match="nowhere: cannot be read"):
        pseudo.from_lines(corpus(), "eng_Latn", "swh_Latn", tmp_path / "nowhere")


VIDEOS = ["aaaaaaaaaaa_000001_000011", "bbbbbbbbbbb_000002_000012"]


@pytest.fixture
def vatex(tmp_path):
    """VATEX's captions in its own layout, two of each video."""
    said = [f"{video}#enc#{n} caption {n} of {video[0]}" for video in VIDEOS for n in (0, 1)]
    write(tmp_path / "vatexval.caption.txt", said)
    return captions.load("vatex", ["en"], "val", root=tmp_path)


def test_keyed_files_in_any_order_and_with_other_videos(vatex, tmp_path):
    keys = [(video, n) for video in [*VIDEOS, "ccccccccccc_000003_000013"] for n in (1, 0)][::-1]
    path = write(tmp_path / "translated.txt", [f"{video}#enc2zh#{n} 说明{n}{video[0]}" for video, n in keys])
    new, pairs, counts = pseudo.from_lines(vatex, "eng_Latn", "zho_Hans", path)
    text = new.lookup("text")
    assert counts["kept"] == 4 and [text[right] for right in pairs.rows.right] == ["说明0a", "说明1a", "说明0b", "说明1b"]
    assert pairs.rows.left.tolist() == [f"vatex:{video}#{n}:eng_Latn" for video in VIDEOS for n in (0, 1)]


def test_keyed_files_that_do_not_fit(vatex, tmp_path):
    good = [f"{video}#enc2zh#{n} 说{n}" for video in VIDEOS for n in (0, 1)]
    for lines, what in (
        (good[:3], f"line 4: none for 'vatex:{VIDEOS[1]}#1:eng_Latn'"),
        ([*good, good[1]], "line 5: no text for this line"),
        ([*good, f"{VIDEOS[0]}#enc2zh#7 说"], "line 5: no text for this line"),
        ([good[0], "说", *good[1:]], "line 2: no text for this line"),
    ):
        with pytest.raises(CorpusError, match=f"zh.txt, {what}"):
            pseudo.from_lines(vatex, "eng_Latn", "zho_Hans", write(tmp_path / "zh.txt", lines))
    empty = write(tmp_path / "zh.txt", [*good[:3], f"{VIDEOS[1]}#enc2zh#1 "])
    assert pseudo.from_lines(vatex, "eng_Latn", "zho_Hans", empty)[2] == {"empty": 1, "copied": 0, "kept": 3}
    with pytest.raises(CorpusError, match="zh.txt, line 5: none for 'g0'"):
        pseudo.from_lines(corpus(ENGLISH[:1]), "eng_Latn", "zho_Hans", write(tmp_path / "zh.txt", good))
