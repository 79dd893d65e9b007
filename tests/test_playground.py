import base64
import io
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_asking import HELD_PICTURE, LANGS, TEXTS, world
from test_plots import NASTY, Page
from test_widgets import bundle

from xmalign_lab import baselines
from xmalign_lab.asking import Asked, occlusion
from xmalign_lab.batches import Batches
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.train import initial_state
from xmalign_lab.widgets import playground
from xmalign_lab.widgets.playground import RetrievalPlayground, shaded


@cache
def untrained():
    corpus, features, _ = world()
    recipe = baselines.clip(epochs=6)
    pairs = bridge(corpus.where_rows(split="train"), LANGS[1:])
    return Asked(initial_state(recipe, features, Batches(features, pairs, recipe.batch_pairs)).aligner, corpus, features)


def made(**traits):
    return RetrievalPlayground({"trained": world()[2], "untrained": untrained()}, **traits)


def control(box, kind, description=""):
    """The control that a hand would use."""
    found = [
        one
        for row in box.children[:3]
        for one in row.children
        if isinstance(one, kind) and one.description.startswith(description)
    ]
    return found[0]


def uploaded(content):
    return (
        {
            "name": "a.png",
            "type": "image/png",
            "size": len(content),
            "content": memoryview(content),
            "last_modified": datetime.now(UTC),
        },
    )


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def named(lang="swh_Latn", row=5):
    texts = world()[2].captions.rows
    return texts[texts.lang == lang].text.iloc[row]


# --- asking


def test_a_query_asks_all_models_and_shows_what_they_say():
    board, name = made(), named()
    board.query = name
    assert {key: answer.text for key, answer in board.answer.items()} == {"trained": name, "untrained": name}
    for key, model in board.models.items():
        pd.testing.assert_frame_equal(board.answer[key].hits, model.ask(name, k=6).hits)
    page = board._shown.value
    assert page == board.html() == board.static().data and page.count("✓ right") == sum(
        a.hits.correct.sum() for a in board.answer.values()
    )
    for answer in board.answer.values():
        assert answer.words.replace("'", "&#x27;") in page
        assert f"The right picture is at rank {answer.hits[answer.hits.correct]['rank'].iloc[0]:g}." in page
    assert page in bundle(board)


def test_hits_of_the_second_model_carry_their_rank_in_the_first():
    board = made(query=named())
    first, second = board.answer["trained"], board.answer["untrained"]
    column = board.html().split("<section")[2]
    assert [float(part.split("<")[0]) for part in column.split(">trained: ")[1:]] == first.ranks[second.hits.id].tolist()
    assert "untrained: " not in board.html()


def test_asking_one_way_empties_the_other_and_asks_once(monkeypatch):
    board, asked, row_id = made(query=named()), [], world()[2].pictures.ids[3]
    monkeypatch.setattr(board, "_ask", lambda: asked.append((board.query, board.picture)))
    board.picture = row_id
    board.query = "mbwa"
    board.query = ""
    board.query = ""
    assert asked == [("", row_id), ("mbwa", None), ("", None)]


def test_controls_are_the_traits():
    board = made()
    text, lang = control(board.box, ipywidgets.Text), control(board.box, ipywidgets.Dropdown, "in")
    place, chosen = control(board.box, ipywidgets.BoundedIntText), control(board.box, ipywidgets.Combobox)
    text.value = named()  # as Enter does: it is not continuous
    assert board.query == named() and not text.continuous_update and not chosen.continuous_update
    lang.value = "sin_Sinh"
    assert board.lang == "sin_Sinh" and not board.answer["trained"].hits.correct.any()
    board.lang = ""
    assert lang.value == "" and board.answer["trained"].hits.correct.any()
    place.value = 3
    assert board.place == 3 and f"{board.answer['trained'].hits.score[2]:.2f}</summary>" in board._shown.value
    label = chosen.options[2]
    chosen.value = label
    assert (
        board.answer["trained"].hits.lang.any() and board._label(board.picture) == label and text.value == "" and board.place == 1
    )
    board.box.children[1].children[-1].click()
    assert board.query == text.value == board.examples[-1] and board.picture is None and chosen.value == ""
    for row in board.box.children[:3]:
        assert all(one.description for one in row.children), "a control without a name"


def test_what_is_explained_is_the_hit_at_place():
    board = made(query=named())
    for place in (1, 4):
        board.place = place
        for name, model in board.models.items():
            pd.testing.assert_frame_equal(board.why(name), model.why(named(), board.answer[name].hits.id[place - 1]))
    board.place = 7  # the right one, if it is none of the six
    assert len(board.why("untrained"))
    for bad in (0, 8):
        with pytest.raises(traitlets.TraitError, match="counted from 1"):
            board.place = bad
    with pytest.raises(traitlets.TraitError, match="'xxx' is not among the languages"):
        board.lang = "xxx"
    board.query = "another"
    assert board.place == 1


def test_pictures_are_read_or_told_and_the_last_good_one_stays():
    board, row_id = made(), world()[2].pictures.ids[3]
    upload = control(board.box, ipywidgets.FileUpload)
    board.picture = row_id
    upload.value = uploaded(png(world()[2].pictures.picture(row_id)))
    assert isinstance(board.picture, Image.Image) and upload.value == () and board.said == ""
    pd.testing.assert_series_equal(board.answer["trained"].ranks, world()[2].show(row_id).ranks)
    before = board.picture
    upload.value = uploaded(b"no picture")
    assert board.picture is before and "cannot be loaded" in board.said and "cannot be loaded" in board._shown.value
    with pytest.raises(traitlets.TraitError, match="at most 50,000,000"):
        board.picture = Image.new("1", (9000, 9000))
    assert board.picture is before and "9,000 × 9,000" in board._shown.value and upload.value == ()
    board.picture = Image.new("RGB", (3000, 1500), "red")
    assert board.picture.size == (1024, 512) and board.said == "" and "✗" not in board._shown.value
    board.query = named()
    assert board.picture is None and board.answer["trained"].hits.correct.any()


def test_the_history_asks_again():
    board, row_id = made(examples=[]), world()[2].pictures.ids[3]
    assert board.history == () and board.query == "" and "Type a word." in board._shown.value
    red = Image.new("RGBA", (8, 8), "red")
    for kind, value in (
        ("query", "mbwa"),
        ("picture", row_id),
        ("picture", red),
        ("query", "  "),
        ("query", "paka"),
        ("query", "mbwa"),
    ):
        setattr(board, kind, value)
    assert board.history == (("query", "mbwa"), ("query", "paka"), ("picture", red), ("picture", row_id))
    back = control(board.box, ipywidgets.Dropdown, "asked before")
    assert back.value == -1 and [label for label, _ in back.options[1:4]] == ["mbwa", "paka", "▣ a picture of your own"]
    back.value = 3
    assert board.picture == row_id and board.query == "" and back.value == -1 and board.history[0] == ("picture", row_id)
    for n in range(30):
        board.query = f"{n} " * 40
    assert len(board.history) == playground.KEPT == len(back.options) - 1 and max(len(label) for label, _ in back.options) <= 40


def test_other_models_are_asked_the_same():
    corpus, features, asked = world()
    board = made(query=named(), lang="swh_Latn")
    board.replace({"later": asked})
    assert (
        list(board.answer) == ["later"]
        and board.query == named()
        and board.lang == "swh_Latn"
        and "later</h4>" in board._shown.value
    )
    part = replace(corpus, rows=corpus.rows[corpus.rows.lang.isin(["", "eng_Latn"])])
    board.replace({"English": Asked(asked.aligner, part, features)})
    lang = control(board.box, ipywidgets.Dropdown, "in")
    assert (
        board.lang == lang.value == ""
        and [code for _, code in lang.options] == ["", "eng_Latn"]
        and not board.answer["English"].hits.correct.any()
    )
    board.picture = board._first.pictures.ids[0]
    board.replace({"validation": Asked(asked.aligner, corpus, features, part="validation")})
    assert board.answer["validation"].hits.empty and "cannot be loaded" in board._shown.value, "a picture that it does not have"
    for bad in ({}, {"x": asked.aligner}, None):
        with pytest.raises(ValueError, match="give at least one model"):
            board.replace(bad)


def test_examples_are_names_right_and_wrong_in_every_language():
    board, asked = made(), world()[2]
    assert len(board.examples) >= len(LANGS) and board.query == board.examples[0]
    found = {asked.ask(name).hits["rank"].where(asked.ask(name).hits.correct).min() == 1 for name in board.examples}
    assert found == {True, False}
    rows = asked.captions.rows
    assert set(rows.lang[rows.text.isin(board.examples)]) == set(LANGS)


# --- how it looks


@settings(max_examples=40, deadline=None)
@given(TEXTS | st.sampled_from(NASTY) | st.text(alphabet="<>&\"'/script ", min_size=1))
def test_a_text_reaches_the_page_as_text_only(text):
    board = RetrievalPlayground({text or "?": world()[2]}, query=text)
    read = Page(board.html())
    known = {"div", "section", "h4", "b", "p", "span", "bdi", "img", "details", "summary", "table", "tbody", "tr", "td"}
    assert set(read.tags) <= known and not {name for name in read.attributes if name.startswith("on")}
    words = board.answer[text or "?"].text if not board.why(text or "?").empty else ""
    assert all(part in "".join(read.words) for part in words.split())


def test_shades_say_it_with_lines_too_and_give_the_numbers():
    weight = {"a": 0.5, "b": -0.25, "c": 0.0}
    page = shaded(occlusion(lambda texts: [sum(weight.get(c, 0) for c in text) for text in texts], "ab c"), "swh_Latn")
    letters = dict(part.split("</span>")[0].split(">")[::-1] for part in page.split("<span ")[1:] if part.startswith("title"))
    assert (
        "solid" in letters["a"] and "4px" in letters["a"] and playground.BLUE in letters["a"] and 'title="+0.50"' in letters["a"]
    )
    assert (
        "wavy" in letters["b"] and "3px" in letters["b"] and playground.ORANGE in letters["b"] and 'title="−0.25"' in letters["b"]
    )
    assert "underline " not in letters["c"] and 'lang="swh-Latn"' in page and 'dir="auto"' in page
    nasty = Page(shaded(occlusion(lambda texts: [len(text) for text in texts], " ".join(NASTY)), title=NASTY[0]))
    assert not {"script", "img", "b"} & set(nasty.tags) and "".join(NASTY[0].split()) in "".join("".join(nasty.words).split())
    assert "<td>−0.250</td>" in page and "+0.25</span>" in page and "<summary>" in page


def test_noise_is_shown_pale_and_not_explained():
    board = made(query="привет")
    assert "the ranking is noise" in board.html() and "opacity:.6" in board.html() and "<details" not in board.html()
    board.query = named()
    assert ";opacity:.6" not in board.html() and "<details" in board.html()


def test_every_picture_has_a_name_for_who_cannot_see_it():
    board, asked = made(query=named()), world()[2]
    names = asked.captions.rows.drop_duplicates("group").set_index("group").text
    alts = [part.split('"')[0] for part in board.html().split('alt="')[1:]]
    assert alts == [names[hit] for answer in board.answer.values() for hit in answer.hits.group]
    assert board._img(HELD_PICTURE, '"<', 9).startswith('<img src="data:image/webp;base64,')
    gone = replace(asked.pictures, open_image=lambda path: (_ for _ in ()).throw(playground.CorpusError("gone")))
    assert board._img(asked.pictures.ids[0], "a name", 33, type("Gone", (), {"pictures": gone})).count("a name") == 1


def shown(page):
    """The colour in the middle of the first picture of a page."""
    uri = page.split('src="data:image/webp;base64,')[1].split('"')[0]
    picture = Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGB")
    return np.array(picture.getpixel((picture.width // 2, picture.height // 2)), int)


def test_the_picture_on_the_page_is_the_one_that_was_asked():
    board = RetrievalPlayground({"trained": world()[2]})
    for i in range(60):  # the history lets most of them go, and new ones take their place in memory
        colour = (i * 4, 255 - i * 4, i * 37 % 256)
        board.picture = png(Image.new("RGB", (16, 16), colour))
        assert np.abs(shown(board.html()) - colour).max() <= 12


def test_each_model_shows_its_own_pictures_and_no_more_are_kept_than_needed(monkeypatch):
    corpus, features, asked = world()
    row_id = asked.pictures.ids[0]

    def painted(colour):
        return Asked(asked.aligner, replace(corpus, open_image=lambda _: Image.new("RGB", (16, 16), colour)), features)

    red, blue = painted("red"), painted("blue")
    board = RetrievalPlayground({"red": red, "blue": blue}, query=named())
    assert (shown(board._img(row_id, "", 16, red)) - shown(board._img(row_id, "", 16, blue)))[0] > 200
    assert (shown(board._img(row_id, "", 16)) == shown(board._img(row_id, "", 16, red))).all()
    board.replace({"blue": blue})
    assert shown(board._img(row_id, "", 16))[2] > 200 and red not in [model for model, *_ in board._uris], "it lets a model go"
    monkeypatch.setattr(playground, "HELD", 9)
    for one in asked.pictures.ids[:20]:
        board._img(one, "", 11)
    board.query = named(row=2)
    assert len(board._uris) == 9 and "data:image/webp" in board.html()


def test_cuts_keep_letters_whole_and_a_language_is_no_markup():
    sign = "ක්‍රි"
    board = RetrievalPlayground({"a": world()[2], sign * 9: untrained()}, examples=["a" + sign * 9], query="mbwa")
    assert board.box.children[1].children[0].description == "a" + sign * (22 // len(sign)) + "…"
    hit = next(world()[2].show(world()[2].pictures.ids[0]).hits.itertuples())._replace(lang='"><script>', text="<i>")
    for page in (board._hit(hit, world()[2], 3.0, ""), shaded(occlusion(lambda texts: [0] * len(texts), "a"), hit.lang)):
        assert not {"script", "i"} & set(Page(page).tags)
    board.replace({sign * 9: untrained(), "a": world()[2]})
    assert f"{sign * (15 // len(sign))}…: " in board.html()
