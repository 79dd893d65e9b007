"""`bench/text_transfer.py` on captions of scenes: made-up files in the true formats, a tiny teacher, a few steps."""

import json

import numpy as np
import pandas as pd
import pytest

from bench import text_transfer
from xmalign_lab import profile, similarity
from xmalign_lab.corpora import scenes
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.features import Features

ENGLISH, TARGETS = "eng_Latn", ("swh_Latn", "sin_Sinh")
DICTIONARY = ["red\tnyekundu", "star\tNyota", "", "circle\tmduara", "star\tnyota", "blank\t"]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def said():
    """150 captions in three languages, none twice, line by line."""
    rows = scenes.load([ENGLISH, *TARGETS], n=400).rows
    table = rows[rows.modality == "text"].pivot_table(index="group", columns="lang", values="text", aggfunc="first")
    return table.drop_duplicates(ENGLISH).drop_duplicates(TARGETS[0]).drop_duplicates(TARGETS[1]).iloc[:150]


@pytest.fixture
def root(tmp_path, said):
    tatoeba, coco, flickr, asked = (said.iloc[start:end] for start, end in ((0, 30), (30, 70), (70, 110), (110, 150)))
    for ending, lang in (("swh", TARGETS[0]), ("eng", ENGLISH)):
        write(tmp_path / f"laser_tatoeba/v1/tatoeba.swh-eng.{ending}", [*tatoeba[lang], tatoeba[lang].iloc[0]])
    names = {"xtd200": "test_image_names.txt", "flickr30k_200": "filenames.txt"}
    for (source, name), part in zip(names.items(), (coco, flickr), strict=True):
        shown = [f"COCO_val2014_{n:012d}.jpg" if source == "xtd200" else f"{1000 + n}.jpg" for n in range(len(part))]
        write(tmp_path / source / name, shown)
        for lang in (ENGLISH, *TARGETS):
            write(tmp_path / source / f"{lang}.txt", part[lang])
    write(tmp_path / "bli_afromt/dictionaries/en-sw.txt", DICTIONARY)
    for lang in (ENGLISH, *TARGETS):
        cells = [f"{n}\ttravel\t{text}" for n, text in enumerate(asked[lang])]
        for split, part in (("train", cells[:20]), ("dev", cells[20:30]), ("test", cells[30:])):
            write(tmp_path / f"sib200/data/annotated/{lang}/{split}.tsv", ["index_id\tcategory\ttext", *part])
    return tmp_path


def teacher(texts, width=12):
    """A vector for each text that says which words it holds."""
    rng = np.random.default_rng(0)
    of = {word: rng.standard_normal(width) for word in sorted({word for text in texts for word in text.split()})}
    return Features(texts, similarity.unit([np.sum([of[word] for word in text.split()], axis=0) for text in texts]))


def test_what_is_taught_is_every_pair_once_and_the_first_words_of_the_dictionary(root, monkeypatch):
    taught = text_transfer.taught_by(root)
    counts = taught.groupby(["lang", "source"]).size().to_dict()
    assert counts == {
        ("swh_Latn", "tatoeba"): 30, ("swh_Latn", "xtd200"): 40, ("swh_Latn", "flickr30k_200"): 40,
        ("swh_Latn", "afromt"): 3, ("sin_Sinh", "xtd200"): 40, ("sin_Sinh", "flickr30k_200"): 40,
    }  # fmt: skip
    monkeypatch.setattr(text_transfer, "MOST", 2)
    words = text_transfer.taught_by(root).query("source == 'afromt'")
    assert list(zip(words.english, words.text, strict=True)) == [("red", "nyekundu"), ("star", "nyota")]


@pytest.mark.parametrize("lang", [ENGLISH, *TARGETS])
def test_an_asked_sentence_in_training_is_refused_in_any_language_and_spelling(root, said, lang):
    asked = {one: text_transfer.read("sib200", one, root)[:2] for one in TARGETS}
    taught = text_transfer.taught_by(root)
    assert len(asked["swh_Latn"][0]) == 40 and text_transfer.overlap(taught, asked) == 0
    leak = {"text": "xyz", "english": "xyz", "lang": "swh_Latn", "source": "tatoeba"}
    leak["english" if lang == ENGLISH else "text"] = f"  {said[lang].iloc[149].upper()} !"
    with pytest.raises(CorpusError, match=r"\d asked sentences are in training"):
        text_transfer.overlap(pd.concat([taught, pd.DataFrame([leak])]), asked)
    write(root / "xtd200" / f"{lang}.txt", [*said[lang].iloc[30:69], said[lang].iloc[120]])
    with pytest.raises(CorpusError, match="leave them out"):
        text_transfer.main(["--root", str(root), "--teacher", "no-such-folder"])


def test_sinhala_names_come_near_their_spelling_in_english():
    assert [text_transfer.latin(word) for word in ("ශ්‍රී ලංකා", "කොළඹ", "2019 mbwa")] == ["sri lanka", "kolaba", "2019 mbwa"]


def test_the_parts_are_chosen_on_training_alone_and_never_on_a_sentence_that_was_trained_on(root, monkeypatch):
    taught, runs = text_transfer.taught_by(root), []

    def run(method, parts, seed, rest, asked, known):
        of_asked = {text for sides in asked.values() for side in sides for text in side}
        runs.append((parts, frozenset(asked), of_asked, {*rest.text, *rest.english}))
        worth = {"rarity": 2, "words": 4, "spelling": -1}  # what a part adds to the reciprocal rank
        rank = 10 / (1 + sum(worth.get(part, 0) for part in parts))
        return pd.DataFrame({"lang": sorted(asked), "direction": "to English", "rank": rank})

    monkeypatch.setattr(text_transfer, "recorded", run)
    chosen, tried = text_transfer.chosen(taught, known=None)
    assert chosen == ("rarity", "words") and list(tried) == ["the ridge alone", *text_transfer.PARTS]
    assert tried["spelling"] == pytest.approx(0.6) and tried["words"] == pytest.approx(0.7)
    every = {*taught.text, *taught.english}
    assert all(asked <= every and not asked & rest for _, _, asked, rest in runs)
    assert len(runs) == 3 * 6 and runs[-1][0] == ("rarity", "words", "student"), "what does not help is left out"
    assert {langs for parts, langs, _, _ in runs if parts == ()} == {frozenset(TARGETS), frozenset(["swh_Latn"])}


def test_the_numbers_are_those_of_loops():
    rng = np.random.default_rng(1)
    left, right = (similarity.unit(rng.standard_normal((25, 6))) for _ in range(2))
    right = similarity.unit(right + left)
    found = text_transfer.answers({"swh_Latn": (left, right)}).set_index(["direction", "query"])["rank"]
    sims = left.astype(float) @ right.T.astype(float)
    for way, table in (("to English", sims), ("from English", sims.T)):
        near = [np.sort(side, 1)[:, ::-1] for side in (table, table.T)]
        for i in range(len(table)):
            csls = [2 * table[i, j] - near[0][i, :10].mean() - near[1][j, :10].mean() for j in range(25)]
            margin = [table[i, j] / ((near[0][i, :4].mean() + near[1][j, :4].mean()) / 2) for j in range(25)]
            assert found[way, str(i)] == 1 + sum(table[i] > table[i, i])
            assert found[f"{way}, CSLS", str(i)] == 1 + sum(np.array(csls) > csls[i])
            assert found[f"{way}, margin", str(i)] == 1 + (np.argmax(margin) != i)


def test_levels_stand_side_by_side_by_their_shares_and_each_is_a_ridge_in_closed_form(root):
    taught = text_transfer.taught_by(root)
    asked = {"sin_Sinh": text_transfer.read("sib200", "sin_Sinh", root)[:2]}
    here, there = asked["sin_Sinh"]
    known = teacher(pd.unique(pd.Series([*taught.english, *there])))
    own = taught[taught.lang == "sin_Sinh"]
    x, q = (text_transfer.grams(texts).toarray().astype(float) for texts in (own.text, here))
    predicted = {}
    for penalty in (0.3, 1.0, 3.0):  # no part: the ridge chooses its penalty on what it is shown
        inverse = np.linalg.inv(x @ x.T + penalty * np.eye(len(x)))
        predicted[penalty] = similarity.unit(q @ x.T @ inverse @ known.take(own.english))
    (left, right) = text_transfer.spaces("whole method", (), 0, taught, asked, known)["sin_Sinh"]
    assert min(np.abs(left - of).max() for of in predicted.values()) < 1e-3 and np.allclose(right, known.take(there), atol=1e-6)
    alone = [
        text_transfer.spaces("whole method", parts, 0, taught, asked, known)["sin_Sinh"]
        for parts in (("rarity",), ("rarity", "words"))
    ]
    (short, _), (both, english) = alone
    width, share = known.width, text_transfer.SHARE["words"]
    assert both.shape[1] == width + text_transfer.BAG["buckets"]
    for side in (both, english):
        np.testing.assert_allclose((side[:, :width] ** 2).sum(1), 1 / (1 + share), rtol=1e-4)
    np.testing.assert_allclose(both[:, :width] * (1 + share) ** 0.5, short, atol=1e-3)
    plain, _ = text_transfer.spaces("spelling alone", (), 0, taught, asked, known)["sin_Sinh"]
    letters = text_transfer.grams(here, **text_transfer.LETTERS)
    np.testing.assert_allclose(plain @ plain.T, (letters @ letters.T).toarray(), atol=2e-4)


def test_a_whitened_level_has_less_in_common():
    rng = np.random.default_rng(0)
    rows = similarity.unit(rng.standard_normal((200, 8)) * np.geomspace(1, 0.05, 8) + 1)
    turned = text_transfer.whitener(rows)(rows)
    spreads = [np.linalg.svd(of - of.mean(0), compute_uv=False) for of in (rows, turned)]
    assert np.abs(turned.mean(0)).max() < 0.1 and spreads[1][0] / spreads[1][-1] < spreads[0][0] / spreads[0][-1]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_script_prints_tables_with_tests_and_goes_on_from_its_records(root, said, tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setenv("XMALIGN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(profile, "repository", lambda: tmp_path)
    monkeypatch.setattr(text_transfer, "SIZE", text_transfer.SIZE | {"epochs": 1, "hidden": 8, "batch_pairs": 200})
    monkeypatch.setattr(text_transfer, "encode", lambda corpus, encoder: teacher(corpus.ids))
    monkeypatch.setattr(text_transfer, "SentenceEncoder", lambda name: None)
    monkeypatch.setattr(text_transfer, "PARTS", ("words", "student"))
    text_transfer.main(["--root", str(root), "--teacher", "given"])
    shown = capsys.readouterr().out
    assert "in training of these: 0" in shown and "whole method" in shown and shown.count("| method |") == 10
    made = json.loads((tmp_path / "build/text/transfer.json").read_text(encoding="utf-8"))
    assert len(made["tables"]) == 10 and list(made["tried"]) == ["the ridge alone", *text_transfer.PARTS]
    for table in made["tables"]:
        rows, tests = pd.DataFrame(table["table"]), pd.DataFrame(table["tests"])
        assert set(rows.method) == {*text_transfer.TRAINED, *text_transfer.OTHERS, "whole method"} and set(rows.lang) >= {
            *TARGETS
        }
        assert (tests[["a", "b"]] == "whole method").any(axis=1).all() and (tests.p_adjusted >= tests.p).all()
    monkeypatch.setattr(text_transfer, "spaces", None)  # nothing is run again
    text_transfer.main(["--root", str(root), "--teacher", "given"])
    assert capsys.readouterr().out == shown
