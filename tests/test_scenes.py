"""The scenes corpus: hand-checked sentences, agreement, numbers, pictures, the review table."""

import csv
import shutil
import tomllib
import unicodedata
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab import languages
from xmalign_lab.corpora import grammar, review, scenes
from xmalign_lab.corpora.grammar import COLOURS, COMPOSITIONS, PLACES, SHAPES, SIZES, Scene, caption, describe
from xmalign_lab.corpus import CorpusError

SIX = ["eng_Latn", "deu_Latn", "swh_Latn", "sin_Sinh", "hau_Latn", "que_Latn"]
ALL = [describe(number) for number in range(COMPOSITIONS)]
JOIN, LETTER = "\u200d", "\u02bc"  # the joiner inside Sinhala conjuncts, and the apostrophe that is a letter

SENTENCES = [
    ("eng_Latn", ("circle", "red", "large", 1, "left"), "one large red circle on the left"),
    ("eng_Latn", ("star", "black", "small", 3, "centre"), "three small black stars in the middle"),
    ("deu_Latn", ("circle", "red", "large", 1, "left"), "ein großer roter Kreis links"),
    ("deu_Latn", ("flower", "yellow", "small", 1, "top"), "eine kleine gelbe Blume oben"),
    ("deu_Latn", ("square", "blue", "large", 1, "bottom"), "ein großes blaues Quadrat unten"),
    ("deu_Latn", ("heart", "green", "small", 2, "centre"), "zwei kleine grüne Herzen in der Mitte"),
    ("deu_Latn", ("triangle", "white", "large", 3, "right"), "drei große weiße Dreiecke rechts"),
    ("swh_Latn", ("circle", "red", "large", 1, "left"), "mduara mkubwa mwekundu mmoja upande wa kushoto"),
    ("swh_Latn", ("circle", "black", "small", 2, "centre"), "miduara midogo myeusi miwili katikati"),
    ("swh_Latn", ("triangle", "red", "large", 1, "right"), "pembetatu kubwa nyekundu moja upande wa kulia"),
    ("swh_Latn", ("triangle", "red", "small", 2, "top"), "pembetatu ndogo nyekundu mbili upande wa juu"),
    ("swh_Latn", ("star", "blue", "large", 1, "left"), "nyota kubwa moja ya rangi ya bluu upande wa kushoto"),
    ("swh_Latn", ("star", "blue", "large", 3, "bottom"), "nyota kubwa tatu za rangi ya bluu upande wa chini"),
    ("swh_Latn", ("flower", "white", "small", 1, "centre"), "ua dogo jeupe moja katikati"),
    ("swh_Latn", ("flower", "red", "large", 3, "centre"), "maua makubwa mekundu matatu katikati"),
    ("swh_Latn", ("flower", "yellow", "small", 1, "centre"), "ua dogo moja la rangi ya manjano katikati"),
    ("swh_Latn", ("heart", "green", "small", 2, "right"), "mioyo midogo miwili ya rangi ya kijani upande wa kulia"),
    ("swh_Latn", ("square", "green", "large", 1, "top"), "mraba mkubwa mmoja wa rangi ya kijani upande wa juu"),
    ("sin_Sinh", ("circle", "red", "large", 1, "left"), "වම් පැත්තේ විශාල රතු රවුමක්"),
    ("sin_Sinh", ("circle", "blue", "small", 2, "right"), "දකුණු පැත්තේ කුඩා නිල් රවුම් දෙකක්"),
    ("sin_Sinh", ("triangle", "green", "large", 3, "top"), f"ඉහළ පැත්තේ විශාල කොළ ත්{JOIN}රිකෝණ තුනක්"),
    ("sin_Sinh", ("triangle", "red", "large", 1, "left"), f"වම් පැත්තේ විශාල රතු ත්{JOIN}රිකෝණයක්"),
    ("sin_Sinh", ("square", "black", "small", 1, "bottom"), f"පහළ පැත්තේ කුඩා කළු සමචතුරස්{JOIN}රයක්"),
    ("sin_Sinh", ("heart", "yellow", "small", 2, "centre"), "මැද කුඩා කහ හදවත් දෙකක්"),
    ("sin_Sinh", ("flower", "white", "large", 1, "centre"), "මැද විශාල සුදු මලක්"),
    ("sin_Sinh", ("star", "white", "large", 3, "centre"), "මැද විශාල සුදු තරු තුනක්"),
    ("hau_Latn", ("circle", "red", "large", 1, "left"), f"babbar jar da{LETTER}ira ɗaya a hagu"),
    ("hau_Latn", ("square", "red", "large", 1, "right"), f"babban jan murabba{LETTER}i ɗaya a dama"),
    ("hau_Latn", ("square", "red", "large", 2, "top"), f"manyan jajayen murabba{LETTER}ai biyu a sama"),
    ("hau_Latn", ("heart", "black", "small", 1, "centre"), "ƙaramar baƙar zuciya ɗaya a tsakiya"),
    ("hau_Latn", ("star", "white", "small", 1, "bottom"), "ƙaramin farin tauraro ɗaya a ƙasa"),
    ("hau_Latn", ("star", "black", "small", 3, "bottom"), "ƙananan baƙaƙen taurari uku a ƙasa"),
    ("hau_Latn", ("flower", "blue", "small", 2, "left"), "ƙananan furanni biyu masu launin shuɗi a hagu"),
    ("hau_Latn", ("flower", "green", "large", 1, "left"), "babban fure ɗaya mai launin kore a hagu"),
    ("hau_Latn", ("triangle", "red", "large", 1, "left"), "babbar jar siffa ɗaya mai kusurwa uku a hagu"),
    ("hau_Latn", ("triangle", "white", "small", 2, "left"), "ƙananan fararen siffofi biyu masu kusurwa uku a hagu"),
    ("que_Latn", ("circle", "red", "large", 1, "left"), f"lluq{LETTER}ipi huk hatun puka muyu"),
    ("que_Latn", ("star", "yellow", "small", 2, "centre"), f"chawpipi iskay huch{LETTER}uy q{LETTER}illu quyllur"),
    ("que_Latn", ("triangle", "blue", "large", 3, "top"), f"hanaqpi kimsa hatun anqas kimsak{LETTER}uchu"),
    ("que_Latn", ("flower", "white", "small", 2, "right"), f"pañapi iskay huch{LETTER}uy yuraq t{LETTER}ika"),
]


@pytest.mark.parametrize("lang, what, expected", SENTENCES, ids=[f"{lang}-{'-'.join(map(str, w))}" for lang, w, _ in SENTENCES])
def test_hand_checked_sentences(lang, what, expected):
    assert caption(Scene(*what), lang) == expected


# Written out by hand, not built: class of the noun -> large, small, red, black, white, one, two, three, and -a.
SWAHILI = {
    "3": ("mkubwa", "mdogo", "mwekundu", "mweusi", "mweupe", "mmoja", None, None, "wa"),
    "4": ("mikubwa", "midogo", "myekundu", "myeusi", "myeupe", None, "miwili", "mitatu", "ya"),
    "5": ("kubwa", "dogo", "jekundu", "jeusi", "jeupe", "moja", None, None, "la"),
    "6": ("makubwa", "madogo", "mekundu", "meusi", "meupe", None, "mawili", "matatu", "ya"),
    "9": ("kubwa", "ndogo", "nyekundu", "nyeusi", "nyeupe", "moja", None, None, "ya"),
    "10": ("kubwa", "ndogo", "nyekundu", "nyeusi", "nyeupe", None, "mbili", "tatu", "za"),
}
CLASSES = {"circle": "3 4", "square": "3 4", "heart": "3 4", "triangle": "9 10", "star": "9 10", "flower": "5 6"}


def test_swahili_words_agree_with_the_class_and_number_of_their_noun():
    for scene in ALL:
        row = SWAHILI[CLASSES[scene.shape].split()[scene.count > 1]]
        words = caption(scene, "swh_Latn").removesuffix(" katikati").split(" upande ")[0].split()
        assert words[1] == row[SIZES[::-1].index(scene.size)]
        number = row[4 + scene.count]
        if scene.colour in ("red", "black", "white"):
            assert words[2:] == [row[2 + ("red", "black", "white").index(scene.colour)], number]
        else:
            assert words[2:6] == [number, row[8], "rangi", "ya"] and len(words) == 7


def test_german_gender_and_endings():
    genders = {"circle": "m", "star": "m", "flower": "f", "triangle": "n", "square": "n", "heart": "n"}
    endings = {"m": ("ein", "er"), "f": ("eine", "e"), "n": ("ein", "es")}
    for scene in ALL:
        number, size, colour, noun, *_ = caption(scene, "deu_Latn").split()
        article, ending = endings[genders[scene.shape]] if scene.count == 1 else (("zwei", "drei")[scene.count - 2], "e")
        assert number == article and noun[0].isupper()
        assert size in ("groß" + ending, "klein" + ending)
        assert colour in [stem + ending for stem in ("rot", "grün", "blau", "gelb", "schwarz", "weiß")]


def test_hausa_gender_plural_and_linker():
    forms = {  # by hand: masculine, feminine, plural, each with its linker
        "red": ("jan", "jar", "jajayen"),
        "black": ("baƙin", "baƙar", "baƙaƙen"),
        "white": ("farin", "farar", "fararen"),
        "large": ("babban", "babbar", "manyan"),
        "small": ("ƙaramin", "ƙaramar", "ƙananan"),
    }
    feminine = {"circle", "triangle", "heart"}
    numerals = {1: "ɗaya", 2: "biyu", 3: "uku"}
    for scene in ALL:
        words = caption(scene, "hau_Latn").split()
        column = 2 if scene.count > 1 else int(scene.shape in feminine)
        assert words[0] == forms[scene.size][column]
        if scene.colour in forms:
            assert words[1] == forms[scene.colour][column] and words[3] == numerals[scene.count]
        else:
            assert words[2] == numerals[scene.count]
            phrase = words[words.index("launin") - 1]
            assert phrase == ("mai" if scene.count == 1 else "masu")


def test_quechua_has_no_plural_and_one_locative():
    for scene in ALL:
        place, number, *rest = caption(scene, "que_Latn").split()
        assert place.endswith("pi") and number == ("huk", "iskay", "kimsa")[scene.count - 1] and len(rest) == 3
        assert not any(word.endswith(("kuna", "pi")) for word in rest)


def test_sinhala_one_is_an_ending_and_the_others_follow_the_noun():
    for scene in ALL:
        last = caption(scene, "sin_Sinh").split()[-1]
        assert "\u0dca\u0dbb" not in caption(scene, "sin_Sinh")  # al-lakuna and ra are joined: U+200D stands between
        assert last.endswith("ක්") and (last in ("දෙකක්", "තුනක්")) == (scene.count > 1)


def test_every_form_is_listed_for_review_and_no_other():
    for lang in SIX:
        spoken = {word for scene in ALL for word in grammar._parts(scene, lang).values()}
        listed = {form for _, _, form in grammar.forms(lang)}
        if lang == "sin_Sinh":
            spoken -= {"-ක්"}
        assert listed == spoken
        assert {word for scene in ALL for word in caption(scene, lang).split()} <= {w for form in listed for w in form.split()}


def test_captions_are_nfc_single_spaced_distinct_and_in_their_script():
    for lang in SIX:
        texts = [caption(scene, lang) for scene in ALL]
        assert len(set(texts)) == COMPOSITIONS
        for text in texts:
            assert (
                unicodedata.is_normalized("NFC", text) and text == " ".join(text.split()) and "'" not in text and "’" not in text
            )
            script = {unicodedata.name(letter).split()[0] for letter in text if letter not in f" {JOIN}{LETTER}"}
            assert script == {"SINHALA" if lang == "sin_Sinh" else "LATIN"}


@given(st.integers(0, 10**12))
def test_a_number_and_its_scene_name_each_other(number):
    scene = describe(number)
    assert scene.number == number and describe(scene.number) == scene


@given(
    st.builds(
        Scene,
        st.sampled_from(SHAPES),
        st.sampled_from(COLOURS),
        st.sampled_from(SIZES),
        st.integers(1, 3),
        st.sampled_from(PLACES),
        st.integers(0, 10**6),
    )
)
def test_jitter_changes_the_number_but_not_the_composition_or_a_word(scene):
    other = describe(scene.number + COMPOSITIONS)
    assert describe(scene.number) == scene and other.labels == scene.labels and other.jitter == scene.jitter + 1
    assert 0 <= scene.composition < COMPOSITIONS and caption(other, "swh_Latn") == caption(scene, "swh_Latn")


def drawn(picture) -> np.ndarray:
    """Where something stands on the paper: pixels far from the corner-pixel median colour."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    paper = np.median(pixels.reshape(-1, 3), axis=0)
    return np.abs(pixels - paper).sum(axis=2) > 45


@pytest.mark.parametrize("shape, colour", list(product(SHAPES, COLOURS)))
def test_a_picture_has_its_colour(shape, colour):
    for size, jitter in product(SIZES, range(3)):
        picture = scenes.open_scene(f"scene:{Scene(shape, colour, size, 2, 'right', jitter).number}")
        assert picture.size == (64, 64) and picture.mode == "RGBA"
        pixels = np.asarray(picture)[..., :3]
        inside = pixels[drawn(picture)].astype(int)
        known = np.array([scenes.RGB[name] for name in COLOURS] + [scenes.LINE])
        nearest = np.linalg.norm(inside[:, None] - known, axis=2).argmin(axis=1)
        votes = np.bincount(nearest, minlength=len(known))[: len(COLOURS)]
        assert COLOURS[votes.argmax()] == colour


@given(st.integers(0, 10**7))
@settings(max_examples=60, deadline=None)
def test_things_stand_where_the_caption_says_whole_and_apart(number):
    from skimage.measure import label

    scene = describe(number)
    mask = drawn(scenes.draw(scene))
    rows, columns = np.nonzero(mask)
    across, down = columns.mean() - 31.5, rows.mean() - 31.5
    expected = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1), "centre": (0, 0)}[scene.place]
    assert (round(across / 17), round(down / 17)) == expected
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    pieces = label(mask, connectivity=1)
    areas = np.bincount(pieces.ravel())[1:]
    assert (areas > 12).sum() == scene.count


@given(st.integers(0, 10**7))
@settings(max_examples=60, deadline=None)
def test_the_box_is_where_the_drawing_is(number):
    """Nothing is drawn outside it, and it is no larger than the drawing, to half a pixel and the blur of an edge."""
    scene = scenes.scene_of(f"scene:{number}")
    left, top, right, bottom = scenes.box(scene) * scenes.SIDE
    rows, columns = np.nonzero(drawn(scenes.draw(scene)))
    assert left - 1 <= columns.min() and columns.max() + 1 <= right + 1 and top - 1 <= rows.min() and rows.max() + 1 <= bottom + 1
    if scene.colour != "white":  # white on light paper: an edge is all that `drawn` sees
        assert columns.min() <= left + 2 and columns.max() + 1 >= right - 2 and rows.min() <= top + 2.5
        assert rows.max() + 1 >= bottom - 2.5


@pytest.mark.parametrize("shape, colour", list(product(SHAPES, COLOURS)))
def test_the_colour_a_caption_names_lies_in_the_box(shape, colour):
    for place, count in product(PLACES, (1, 3)):
        scene = Scene(shape, colour, "large", count, place, 7)
        pixels = np.asarray(scenes.draw(scene))[..., :3].astype(int)
        named = np.linalg.norm(pixels - scenes.RGB[colour], axis=2) < 24  # a tint moves each channel by 12 at most
        left, top, right, bottom = scenes.box(scene) * scenes.SIDE
        y, x = np.mgrid[:64, :64] + 0.5
        inside = (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
        assert named[inside].mean() > 0.15 and not named[~inside].any()


@pytest.mark.parametrize("lang", SIX)
def test_the_noun_and_the_colour_are_found_in_every_caption(lang):
    from xmalign_lab.encoders.classic import words

    said = {}
    for scene in ALL:
        spoken, at = caption(scene, lang).split(), scenes.said_at(scene, lang)
        assert words(caption(scene, lang)) == [words(word)[0] for word in spoken]  # an encoder counts the same words
        assert all(spoken.count(spoken[place]) == 1 for place in at.values())
        for what, place in at.items():
            said.setdefault((what, getattr(scene, what)), set()).add(spoken[place])
    own = list(said.values())
    assert len(own) == len(SHAPES) + len(COLOURS) and len(set().union(*own)) == sum(map(len, own))  # no word means two things


@pytest.mark.parametrize(
    "lang, what, noun, colour",
    [
        ("eng_Latn", ("star", "black", "small", 3, "centre"), "stars", "black"),
        ("swh_Latn", ("star", "blue", "large", 3, "bottom"), "nyota", "bluu"),
        ("sin_Sinh", ("triangle", "red", "large", 1, "left"), f"ත්{JOIN}රිකෝණයක්", "රතු"),
        ("hau_Latn", ("triangle", "green", "large", 3, "left"), "siffofi", "kore"),
        ("que_Latn", ("flower", "white", "small", 2, "right"), f"t{LETTER}ika", "yuraq"),
    ],
)
def test_the_words_that_have_a_place(lang, what, noun, colour):
    spoken, at = caption(Scene(*what), lang).split(), scenes.said_at(Scene(*what), lang)
    assert (spoken[at["shape"]], spoken[at["colour"]]) == (noun, colour)


def test_large_is_larger_and_shapes_differ():
    area = {
        (shape, size): [drawn(scenes.draw(Scene(shape, "red", size, 1, "centre", k))).sum() for k in range(8)]
        for shape in SHAPES
        for size in SIZES
    }
    for shape in SHAPES:
        assert min(area[shape, "large"]) > 1.8 * max(area[shape, "small"])
    still = {shape: np.asarray(scenes.draw(Scene(shape, "red", "large", 1, "centre"))) for shape in SHAPES}
    for one, other in product(SHAPES, SHAPES):
        assert one == other or (still[one] != still[other]).any(axis=2).sum() > 60


def test_a_picture_depends_on_its_number_alone():
    first, again, other = (np.asarray(scenes.open_scene(f"scene:{n}")) for n in (77, 77, 77 + COMPOSITIONS))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("reference", ["", "scene:", "scene:-1", "scene:1.5", "scene:x", "picture:3", "scene:²", "/a/b.png"])
def test_a_reference_that_is_no_scene_is_named(reference):
    with pytest.raises(CorpusError, match="scene:<n>"):
        scenes.open_scene(reference)


def test_load_groups_families_and_sources():
    corpus = scenes.load(n=40, seed=3)
    assert corpus.languages == sorted(SIX) and len(corpus) == 40 * (2 + 6)
    assert (corpus.rows.group == corpus.rows.family).all() and corpus.rows.group.nunique() == 40
    images = corpus.where_rows(modality="image").rows
    assert set(images.source) == {"jitter-a", "jitter-b"} and images.image.is_unique
    for row in corpus.rows.itertuples():
        scene = describe(int(row.group.removeprefix("scene-")))
        assert {name: row.labels[name] for name in scene.labels} == scene.labels
        if row.modality == "image":
            assert describe(int(row.image.removeprefix("scene:"))).labels == scene.labels and row.kind == "picture"
        else:
            assert row.text == caption(scene, row.lang) and row.kind == "caption" and row.labels["review"] == "unreviewed"
    group = images.group.iloc[0]
    assert corpus.picture(f"{group}:image:a").size == (64, 64)
    assert f"{group}:swh_Latn" in set(corpus.ids)


def test_load_is_seeded_nested_and_any_size():
    frame = scenes.load(n=20, seed=1).rows
    assert frame.equals(scenes.load(n=20, seed=1).rows)
    assert frame.equals(scenes.load(n=30, seed=1).rows.iloc[: len(frame)])
    assert set(frame.group) != set(scenes.load(n=20, seed=2).rows.group)
    many = scenes.load("swh_Latn", n=2, pictures=30).rows
    assert many.image.nunique() == 60 + 1 and many.source.nunique() == 31  # and the empty cell of captions
    assert scenes.load([], n=1).languages == []
    assert scenes.load("hau_Latn", n=COMPOSITIONS, pictures=1).rows.text.nunique() == COMPOSITIONS + 1


@pytest.mark.parametrize("n", [0, -1, COMPOSITIONS + 1])
def test_a_size_out_of_range_says_what_is_possible(n):
    with pytest.raises(CorpusError, match=f"{COMPOSITIONS} distinct.*pictures"):
        scenes.load(n=n)
    with pytest.raises(CorpusError, match="pictures = 0"):
        scenes.load(n=1, pictures=0)


def test_an_unknown_language_lists_the_known_ones():
    for call in (lambda: scenes.load(["swh_Latn", "sw"]), lambda: caption(ALL[0], "sw"), lambda: grammar.reviewed("sw")):
        with pytest.raises(CorpusError, match=r"'sw'.*eng_Latn.*que_Latn"):
            call()


@pytest.mark.parametrize("field, value", [("shape", "cube"), ("colour", "pink"), ("size", "tiny"), ("count", 4), ("place", "up")])
def test_a_scene_of_unknown_values_is_refused(field, value):
    with pytest.raises(CorpusError, match=f"{field}.*{value}"):
        Scene(**{"shape": "circle", "colour": "red", "size": "small", "count": 1, "place": "left", field: value})


def test_every_language_has_every_word_with_a_source():
    with open(grammar.LEXICON, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    concepts = {*SHAPES, *COLOURS, *SIZES, *grammar.NUMBERS, *PLACES}
    assert {row["lang"] for row in rows} == set(SIX) and all(languages.known(lang) for lang in SIX)
    for lang in SIX:
        assert sorted(row["concept"] for row in rows if row["lang"] == lang) == sorted(concepts)
    assert all(row["form"] and row["class"] and row["gloss"] and row["source"] for row in rows)


def test_the_card_tells_what_the_lexicon_does():
    card = tomllib.loads((Path(__file__).parents[1] / "data" / "scenes.toml").read_text(encoding="utf-8"))
    assert card["languages"] == SIX and all(grammar.badge(lang) in card["review"] for lang in SIX)


def answer(path, change=lambda number, row: row):
    """Fill a written review with yes and a name, then let `change(row number, row)` spoil it."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    rows = [change(number, row | {"ok?": "Yes", "reviewer": "Asha M."}) for number, row in enumerate(rows, 2)]
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, review.COLUMNS)
        table.writeheader()
        table.writerows(row for row in rows if row)
    return path


@pytest.fixture
def written(tmp_path):
    return review.write_review(tmp_path / "review.csv", ["swh_Latn", "sin_Sinh"])


def test_the_review_holds_all_forms_and_captions_of_every_shape_colour_and_number(written):
    with open(written, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for lang in ("swh_Latn", "sin_Sinh"):
        words = [row["form"] for row in rows if row["language"] == lang and row["kind"] == "word"]
        assert words == [form for _, _, form in grammar.forms(lang)]
    assert {"mwekundu", "nyekundu", "mekundu", "jekundu", "myekundu"} <= {row["form"] for row in rows}
    sample = review.sample()
    assert len({(s.shape, s.colour) for s in sample}) == 36 and len({(s.shape, s.count) for s in sample}) == 18
    assert {s.place for s in sample} == set(PLACES) and len({(s.colour, s.count) for s in sample}) == 18
    assert len({(s.shape, s.size) for s in sample}) == 12
    assert all(row["ok?"] == row["correction"] == row["reviewer"] == "" for row in rows)


def test_nothing_is_signed_until_every_row_is_yes_and_named(written):
    assert review.read_review(written) == {}
    assert review.read_review(answer(written)) == {"swh_Latn": "Asha M.", "sin_Sinh": "Asha M."}


@pytest.mark.parametrize(
    "change",
    [
        lambda number, row: row | {"ok?": ""} if number == 2 else row,
        lambda number, row: row | {"ok?": "no", "correction": "duara"} if number == 2 else row,
        lambda number, row: None if number == 2 else row,
        lambda number, row: row | {"reviewer": ""} if row["language"] == "swh_Latn" else row,
    ],
    ids=["one unanswered", "one corrected", "one deleted", "no name"],
)
def test_a_language_with_an_open_row_stays_unsigned(written, change):
    assert review.read_review(answer(written, change)) == {"sin_Sinh": "Asha M."}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda number, row: row | {"ok?": "perhaps"} if number == 5 else row, "line 5: .*'perhaps'.*yes or no"),
        (lambda number, row: row | {"ok?": "no"} if number == 6 else row, "line 6: .*'correction'"),
        (lambda number, row: row | {"form": "duara"} if number == 2 else row, "line 2: 'duara' is not asked"),
        (lambda number, row: row | {"language": "sw"} if number == 3 else row, "line 3: .*'sw'.*swh_Latn"),
    ],
)
def test_a_malformed_row_is_named(written, change, message):
    with pytest.raises(CorpusError, match=f"review.csv, {message}"):
        review.read_review(answer(written, change))


def test_a_review_that_is_no_such_table_is_named(written, tmp_path):
    lines = written.read_text(encoding="utf-8-sig").splitlines()
    bad = tmp_path / "bad.csv"
    for text, message in [
        ("\n".join(lines).replace(",", ";"), "line 1: needs one column 'language'"),
        ("\n".join([*lines[:3], lines[1]]), "line 4: this question occurs twice"),
        ("\n".join([*lines[:3], "swh_Latn,word"]), "line 4: 2 cells where the header has 8"),
    ]:
        bad.write_text(text, encoding="utf-8")
        with pytest.raises(CorpusError, match=f"bad.csv, {message}"):
            review.read_review(bad)
    bad.write_bytes("language,kind\nඅ".encode("utf-16"))
    with pytest.raises(CorpusError, match="UTF-8"):
        review.read_review(bad)


def test_a_review_is_never_written_over(written):
    with pytest.raises(FileExistsError):
        review.write_review(written)


def test_signing_turns_the_badge(written, tmp_path, monkeypatch):
    copy = tmp_path / "lexicon.csv"
    shutil.copy(grammar.LEXICON, copy)
    monkeypatch.setattr(grammar, "LEXICON", copy)
    try:
        assert grammar.reviewed("swh_Latn") is None and grammar.badge("swh_Latn") == "unreviewed"
        signed = review.sign(answer(written), copy)
        assert signed == {"swh_Latn": "Asha M.", "sin_Sinh": "Asha M."}
        assert grammar.reviewed("swh_Latn") == "Asha M." and grammar.badge("sin_Sinh") == "reviewed by Asha M."
        assert grammar.reviewed("hau_Latn") is None
        captions = scenes.load(["swh_Latn"], n=2).where_rows(modality="text").rows
        assert {labels["review"] for labels in captions.labels} == {"reviewed by Asha M."}
    finally:
        grammar.lexicon.cache_clear()


def test_the_command_line_writes_a_review_and_signs_it(tmp_path, monkeypatch, capsys):
    import pandas as pd

    from xmalign_lab import cli
    from xmalign_lab.corpora import review

    path, signed = tmp_path / "review.csv", {}
    assert cli.main(["review", str(path), "--languages", "swh_Latn"]) == 0
    monkeypatch.setattr(review, "sign", lambda given: signed.update(review.read_review(given)) or signed)
    assert cli.main(["review", str(path), "--sign"]) == 0 and signed == {}
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(**{"ok?": "yes", "reviewer": "Asha Juma"}).to_csv(path, index=False)
    assert cli.main(["review", str(path), "--sign"]) == 0
    assert signed == {"swh_Latn": "Asha Juma"} and "reviewed by Asha Juma" in capsys.readouterr().out
