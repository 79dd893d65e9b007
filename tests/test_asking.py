import io
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xmalign_lab import asking, baselines, languages, study
from xmalign_lab.asking import LONGEST, Asked, occlusion, opened
from xmalign_lab.corpora import scenes
from xmalign_lab.corpus import CorpusError, normalise, split_by_family
from xmalign_lab.encoders import inputs
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.tiny import TinyText, TinyViT
from xmalign_lab.model import Aligner, TowerHead
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.train import fit

HELD_PICTURE = Image.new("RGB", (9, 9), "red")
LANGS = ["eng_Latn", "sin_Sinh", "swh_Latn"]
TEXTS = st.text(max_size=40) | st.lists(st.sampled_from(["mbwa", "කළු", "හදවත", "ක්‍රි", "é", "ị́", "🇹🇿", "<b>"]), max_size=5).map(
    " ".join
)


@cache
def world():
    """Scenes in three languages, an aligner that has trained on four fifths of them, and it asked about the rest."""
    corpus = split_by_family(scenes.load(LANGS, n=120), 0)
    features = study.prepare(corpus)
    pairs = bridge(corpus.where_rows(split=["train", "validation"]), LANGS[1:])
    aligner = fit(baselines.clip(epochs=6), features, pairs, progress=False)[0]
    return corpus, features, Asked(aligner, corpus, features)


def cosines(text):
    """Of all pictures that are asked, by the long way."""
    corpus, features, asked = world()
    rows = corpus.where_rows(modality="image", split="test", source=asked.source).rows
    gallery = asked.aligner.encode_image(Features(rows.id.to_numpy(), features["image"].take(rows.id)))
    return pd.Series(gallery @ asked.aligner.encode_text(ClassicText().encode([text], progress=False))[0], rows.id)


# --- what drove a score


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["mbwa", "paka", "කළු", "ndege", "a"]), min_size=1, max_size=7))
def test_of_a_score_that_adds_up_over_words_each_word_has_its_own_share(said):
    weight = {"mbwa": 0.5, "paka": -0.25, "කළු": 1.0, "ndege": 0.0, "a": 2.0}
    why = occlusion(lambda texts: np.array([sum(weight.get(word, 0) for word in text.split()) for text in texts]), " ".join(said))
    words = why[why.kind == "word"]
    assert words.part.tolist() == said and words.share.tolist() == [weight[word] for word in said]
    assert words.share.sum() == sum(weight[word] for word in said)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_occlusion_is_brute_force(text):
    def score(texts):
        return np.array([sum(ord(c) * (i + 1) for i, c in enumerate(text)) % 97 / 97 for text in texts])

    why, text = occlusion(score, text), normalise(text)
    words = text.split(" ") if text else []
    wanted = [("word", word, normalise(" ".join(words[:i] + words[i + 1 :]))) for i, word in enumerate(words)]
    for i, word in enumerate(words):
        letters = regex.findall(r"\X", word)
        for j, letter in enumerate(letters):
            left = "".join(letters[:j] + letters[j + 1 :])
            wanted.append(("grapheme", letter, normalise(" ".join(words[:i] + [left] + words[i + 1 :]))))
    assert list(zip(why.kind, why.part, strict=True)) == [(kind, part) for kind, part, _ in wanted]
    assert [text[start:end] for start, end in zip(why.start, why.end, strict=True)] == why.part.tolist()
    without = [score([left])[0] if left else 0.0 for _, _, left in wanted]
    assert why.without.tolist() == without
    np.testing.assert_allclose(why.share, (score([text])[0] if text else 0) - np.array(without))


def test_sinhala_keeps_its_vowel_signs_and_letters_come_composed():
    why = occlusion(lambda texts: np.zeros(len(texts)), "කොඩිය e\u0301")
    assert why.part.tolist() == ["කොඩිය", "é", "කො", "ඩි", "ය", "é"]


def test_why_is_the_models_score_less_the_score_without_the_part():
    asked = world()[2]
    text = asked.captions.rows[asked.captions.rows.lang == "sin_Sinh"].text.iloc[3]
    hit = asked.ask(text).hits.id[1]
    why = asked.why(text, hit)
    for row in why.itertuples():
        left = normalise(text[: row.start] + text[row.end :])
        assert row.share == pytest.approx(cosines(text)[hit] - cosines(left)[hit], abs=1e-5)
    with pytest.raises(CorpusError, match="no picture here has the id 'nobody'"):
        asked.why(text, "nobody")


# --- asked with a text


def test_hits_are_the_nearest_pictures_and_the_right_one_is_there_with_its_rank():
    asked = world()[2]
    for row in asked.captions.rows.iloc[::9].itertuples():
        answer, scores = asked.ask(row.text, k=5), cosines(row.text).sort_values(ascending=False)
        best = answer.hits[:5]
        np.testing.assert_allclose(best.score, scores[:5], atol=1e-6)
        assert set(best.id) == set(scores.index[:5]) and answer.ranks[scores.index].is_monotonic_increasing
        named = set(asked.captions.rows.group[asked.captions.rows.text == row.text])
        assert row.group in named and answer.hits.correct.tolist() == [group in named for group in answer.hits.group]
        ids = asked.pictures.rows[asked.pictures.rows.group.isin(named)].id
        first = answer.hits[answer.hits.correct].iloc[0]
        assert first["rank"] == min(answer.ranks[ids]) and first.score == pytest.approx(scores[ids].max(), abs=1e-6)
        assert len(answer.hits) == 5 + (not best.correct.any())


def test_a_name_counts_whatever_its_case_and_only_in_its_language():
    asked = world()[2]
    name = asked.captions.rows[asked.captions.rows.lang == "swh_Latn"].text.iloc[0]
    assert asked.ask(name.upper()).hits.correct.any() and asked.ask(name, "swh_Latn").lang == "swh_Latn"
    assert not asked.ask(name, "sin_Sinh").hits.correct.any()
    decomposed = asked.ask(f"  {name}\u200a ")
    assert decomposed.text == name and decomposed.hits.correct.any()


def test_what_an_answer_is_worth_is_counted_among_the_corpuss_own():
    asked = world()[2]
    scores = asked.vectors["text"] @ asked.vectors["image"].T
    z = (scores.max(1) - scores.mean(1)) / scores.std(1)
    right = asked.pictures.rows.group.to_numpy()[scores.argmax(1)] == asked.captions.rows.group.to_numpy()
    tried = asked.tried[asked.tried.modality == "text"]
    np.testing.assert_allclose(tried.z, z, rtol=1e-4)
    assert tried.right.tolist() == right.tolist() and 0.02 < right.mean() < 1
    rows, told = asked.captions.rows, 0
    for row in range(0, len(z), 5):
        name = rows.text[row]
        same = rows.group.isin(rows.group[rows.text == name]).to_numpy()
        others = (rows.lang == rows.lang[row]).to_numpy() & ~same
        assert others.sum() >= asking.LEAST
        answer, near = asked.ask(name, rows.lang[row]), np.argsort(np.abs(z[others] - z[row]), kind="stable")[: asking.LEAST]
        assert answer.z == pytest.approx(z[row], rel=1e-3) and answer.less == pytest.approx((z[others] < z[row]).mean(), abs=0.02)
        assert answer.among == rows.lang[row] and f"own {languages.info(answer.among).name} names stand out less" in answer.words
        within = z[others].min() <= z[row] <= z[others].max()
        told += within
        assert np.isnan(answer.sure) != within and ("a right answer first" in answer.words) == within
        if within:
            assert answer.sure == pytest.approx(right[others][near].mean())
            said = f"Of names whose picture is among these and that stand out about as much, {answer.sure:.0%} have a right"
            assert said in answer.words
    assert told > 5


def test_a_name_without_its_picture_is_given_no_share_of_right_answers():
    corpus, _, asked = world()
    names = corpus.where_rows(modality="text", split="train").rows
    names = names[~names.text.isin(asked.captions.rows.text)]
    for row in names[::40].itertuples():
        answer = asked.ask(row.text)
        assert not answer.hits.correct.any() and np.isnan(answer.sure) and "right answer" not in answer.words
        assert 0 <= answer.less <= 1 and "stand out less" in answer.words
    new = asked.ask(f"{names.text.iloc[0]} {names.text.iloc[70]}")  # no name: its picture may be there
    assert new.among == "" and "own names, all languages together, stand out less" in new.words


def test_nothing_is_told_of_questions_unlike_any_of_the_corpuss_own(monkeypatch):
    asked, name = world()[2], world()[2].captions.rows.text.iloc[2]
    for of in (asked.tried.z + 50, asked.tried.z - 50):
        monkeypatch.setitem(asked.__dict__, "tried", asked.tried.assign(z=of))
        assert np.isnan(asked.ask(name).sure) and asked.ask(name).less in (0, 1) and "right answer" not in asked.ask(name).words
        assert np.isnan(asked.show(asked.pictures.ids[0]).sure)
        monkeypatch.undo()
    few = asked.tried[asked.tried.lang != "swh_Latn"]
    monkeypatch.setitem(asked.__dict__, "tried", few)
    swahili = asked.ask(name, "swh_Latn")
    assert (
        swahili.among == "" and ("all languages together" in swahili.words) and "pictures stand" in asked.show(HELD_PICTURE).words
    )


def test_of_many_own_questions_a_sample_of_all_languages_is_tried(monkeypatch):
    corpus, features, asked = world()
    count = len(asked.captions)
    for tried in (count // 3, count // 2, count // 2 + 1):  # captions of one picture follow each other, language by language
        monkeypatch.setattr(asking, "TRIED", tried)
        found = Asked(asked.aligner, corpus, features).tried
        own = found[found.modality == "text"]
        assert len(own) == tried and own.id.is_unique and set(own.lang) == set(LANGS)
        kept = asked.tried.merge(found, on=["modality", "id", "group", "lang"])
        np.testing.assert_allclose(kept.z_x, kept.z_y, rtol=1e-5)
        assert len(kept) == len(found) and (kept.right_x == kept.right_y).all()


def test_letters_of_families_that_stay_closed_count_as_unseen():
    corpus, features, asked = world()
    tuned = Asked(
        asked.aligner, corpus.select(~corpus.rows.lang.eq("sin_Sinh") | corpus.rows.split.eq("test")), features, "validation"
    )
    learned = corpus.where_rows(modality="text", split="train", lang=["eng_Latn", "swh_Latn"]).rows.text
    assert tuned._seen == {gram for text in learned for gram in ClassicText().grams(text)}
    assert tuned.ask("රතු").seen == 0


def test_a_cut_keeps_letters_whole():
    assert asking.cut("abc", 3) == "abc" and asking.cut("abcd", 3) == "abc" and asking.cut("", 0) == ""
    family, sign = "\U0001f468\u200d\U0001f469\u200d\U0001f467", "කො"
    assert asking.cut(f"a{family}", 3) == "a" and asking.cut(f"{sign}{sign}", 2 * len(sign) - 1) == sign
    assert asking.cut("e" + "\u0301" * 9, 4) == "e" + "\u0301" * 3  # a letter longer than all that is read
    answer = world()[2].ask("a" + sign * 100)
    assert answer.text == "a" + sign * ((LONGEST - 1) // len(sign)) and f"Only the first {len(answer.text)} of" in answer.words


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(1, 30))
def test_a_cut_is_the_most_whole_letters_that_fit(text, longest):
    letters = regex.findall(r"\X", text)
    starts = ["".join(letters[:n]) for n in range(len(letters) + 1)]
    fit = max((start for start in starts if len(start) <= longest), key=len)
    assert asking.cut(text, longest) == (fit or text[:longest])


def test_letter_groups_never_seen_make_the_ranking_noise():
    corpus, _, asked = world()
    learned = {
        g
        for text in corpus.where_rows(modality="text", split=["train", "validation"]).rows.text
        for g in ClassicText().grams(text)
    }
    for text in ("привет", "ཁྱི་"):
        answer = asked.ask(text)
        assert answer.seen == 0 and answer.noise and f"None of its {answer.groups} letter groups was seen" in answer.words
        assert "right answer" not in answer.words and len(answer.hits) == 6
    place = asked.aligner.heads["text"].input.place
    for text in ("miraba mxeusi", "xq", asked.captions.rows.text.iloc[0]):
        grams = set(ClassicText().grams(text))
        kept = {gram for gram in grams & learned if place[asking.bucket(gram, 2**18)] >= 0}
        answer = asked.ask(text)
        assert (answer.seen, answer.groups) == (len(kept), len(grams))
        assert ("doubt the ranking" in answer.words) == (0 < len(kept) < len(grams) / 2)


@settings(max_examples=150, deadline=None)
@given(TEXTS | st.text(alphabet=st.characters(), max_size=12))
def test_no_text_is_an_error(text):
    asked = world()[2]
    answer = asked.ask(text)
    assert answer.words and (answer.hits.empty or len(answer.hits) >= 6)
    assert answer.hits.empty == (not any(c.isalnum() for c in normalise(text.encode("utf-8", "ignore").decode())))
    if len(answer.hits):
        assert np.isfinite(answer.hits.score).all() and np.isfinite(asked.why(answer.text, answer.hits.id[0]).share).all()


def test_empty_signs_and_long_texts_are_told():
    asked = world()[2]
    assert [asked.ask(text).words for text in ("", " \n\t", "\ud800")] == ["Type a word."] * 3
    assert [asked.ask(text).words for text in ("?!", "🐶", "\u200b", "ා")] == ["There is no letter in it: type a word."] * 4
    answer = asked.ask("mbwa " * 5000)
    assert len(answer.text) <= LONGEST and f"Only the first {len(answer.text)} of its 24,999 characters" in answer.words
    one = asked.why("n" * LONGEST, answer.hits.id[0])
    assert len(one) == LONGEST + 1 and one.without[1:].nunique() == 1  # without any of its letters it is one text


def test_a_letter_group_counts_as_seen_if_a_text_had_it_and_the_head_kept_its_column(monkeypatch):
    asked, grams = world()[2], set(ClassicText().grams("xqz"))
    place = torch.full((2**18,), -1, dtype=torch.int32)
    place[[asking.bucket(gram, 2**18) for gram in sorted(grams)[:5]]] = 7  # "xqz" itself was in no text: these are collisions
    monkeypatch.setattr(asked, "aligner", SimpleNamespace(heads={"text": SimpleNamespace(input=SimpleNamespace(place=place))}))
    assert [asked._was_seen(gram) for gram in sorted(grams)] == [False] * len(grams)
    monkeypatch.setattr(asked, "_seen", asked._seen | grams)
    assert [asked._was_seen(gram) for gram in sorted(grams)] == [True] * 5 + [False] * (len(grams) - 5)


# --- asked with a picture


def test_a_picture_finds_captions_in_every_language():
    asked = world()[2]
    row_id = asked.pictures.ids[4]
    answer, texts = asked.show(row_id, k=3), asked.captions.rows
    scores = pd.Series(asked.vectors["text"] @ asked.vectors["image"][4], texts.id)
    for lang in LANGS:
        hits, own = answer.hits[answer.hits.lang == lang], scores[texts.id[texts.lang == lang]].sort_values(ascending=False)
        np.testing.assert_allclose(hits.score[:3], own[:3], atol=1e-6)
        assert hits["rank"].iloc[0] == 1 and hits.correct.sum() >= 1 and answer.ranks[own.index].is_monotonic_increasing
        assert (hits.correct == (hits.group == asked.group[row_id])).all()
    again = asked.show(asked.pictures.picture(row_id), k=3)  # the same picture, but nobody knows that
    pd.testing.assert_series_equal(again.ranks, answer.ranks)
    assert not again.hits.correct.any() and len(again.hits) == 9


def test_pictures_come_as_files_bytes_and_turned(tmp_path):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (0, 0, 10, 20))
    turn = Image.Exif()
    turn[0x0112] = 6  # to be turned by a quarter, as phones write
    picture.save(tmp_path / "a.png")
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=turn)
    assert opened(tmp_path / "a.png").size == opened(str(tmp_path / "a.png")).size == opened(picture).size == (40, 20)
    turned = opened(file.getvalue())
    assert turned.size == (20, 40) and turned.mode == "RGBA" and turned.getpixel((10, 2))[0] > 200 > turned.getpixel((10, 2))[1]
    assert opened(memoryview(file.getvalue())).size == (20, 40)


def test_broken_and_huge_pictures_are_told(tmp_path):
    file = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(file, "PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    huge = [Image.new("1", size) for size in ((10_000, 6_000), (12_000, 9_000))]
    for one in (file.getvalue()[:-900], b"", b"<svg/>", "no such file", "a\0b", tmp_path, tmp_path / "notes.txt", None, 7):
        with pytest.raises(CorpusError, match="cannot be loaded.*pictures are PNG"):
            opened(one)
    for one in huge:
        with pytest.raises(CorpusError, match="pixels, of which at most 50,000,000 are read"):
            opened(one)
    Image.new("1", (20_000, 9_999)).save(tmp_path / "bomb.png")
    for one in (tmp_path / "bomb.png", (tmp_path / "bomb.png").read_bytes()):
        with pytest.raises(CorpusError):
            world()[2].show(one)


# --- which model, which corpus


def test_towers_answer_through_their_own_inputs(one_thread):
    corpus = world()[0]
    sizes = {"width": 16, "depth": 1, "heads": 2}
    torch.manual_seed(0)
    text = TinyText(level="word", **sizes)
    aligner = Aligner(TowerHead(TinyViT(size=16, patch=8, **sizes), 8), TowerHead(text, 8)).eval()
    features = {"image": inputs.pictures(corpus, 16), "text": inputs.texts(corpus, text.tokenise)}
    given, made = Asked(aligner, corpus, features), Asked(aligner, corpus)
    for side in ("image", "text"):
        np.testing.assert_allclose(given.vectors[side], made.vectors[side], atol=1e-5)
    said = given.captions.rows.text.iloc[0]
    answer = given.ask(said)
    np.testing.assert_allclose(answer.ranks, made.ask(said).ranks)
    assert answer.hits.correct.any() and len(given.why(said, answer.hits.id[0])) and given.ask("привет").noise
    shown = given.show(given.pictures.picture(given.pictures.ids[0]))
    np.testing.assert_allclose(shown.ranks, given.show(given.pictures.ids[0]).ranks)


def test_an_encoder_that_did_not_make_the_features_is_refused():
    corpus, features, asked = world()
    other = {"text": ClassicText(characters=(3, 3))}
    with pytest.raises(ValueError, match=r"not the one behind the text features: encoders=.*cosine"):
        Asked(asked.aligner, corpus, features, encoders=other)
    with pytest.raises(ValueError, match="not the one behind the text features.*width 262144, not 64"):
        Asked(asked.aligner, corpus, features, encoders={"text": ClassicText(buckets=64)})
    mixed = Features(features["image"].ids, features["image"].vectors[::-1].copy())
    with pytest.raises(ValueError, match="not the one behind the image features"):
        Asked(asked.aligner, corpus, {**features, "image": mixed}).show(Image.new("RGB", (9, 9)))


def test_a_part_or_source_that_is_not_there_is_told():
    corpus, features, asked = world()
    for wrong in ({"part": "tset"}, {"source": "nobody"}):
        with pytest.raises(CorpusError, match=r"no pictures or no captions .* it has splits \['test', 'train', 'validation'\]"):
            Asked(asked.aligner, corpus, features, **wrong)
    unsplit = replace(corpus, rows=corpus.rows.assign(split=""))
    whole = Asked(asked.aligner, unsplit, features)
    assert len(whole.pictures) == 120 and whole.part == "" and asked.part == "test" and len(asked.pictures) < 60
    assert whole.ask("привет").groups == 0 and "letter groups" not in whole.ask("привет").words  # nobody knows what was seen
