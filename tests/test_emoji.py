"""The emoji reader on tiny fixtures in the packages' own format, and the rule of families on real code points."""

import json
import os
import re
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from xmalign_lab import corpora, profile
from xmalign_lab.corpora import emoji, npm
from xmalign_lab.corpus import CorpusError, split_by_family

HEART, FLAG, DOG, FARMER, RUNNER = "2764-FE0F", "1F3F3-FE0F-200D-1F308", "1F415", "1F469-200D-1F33E", "1F3C3"
FETCHED = profile.repository() / "data"  # where `make` puts them; the tests have a data root of their own
DRAWN = (HEART, FLAG, DOG, FARMER, RUNNER)
NAMES = {  # as CLDR writes them: some keys with U+FE0F, some without, some texts decomposed
    "en": {"❤": "red heart", "🏳️‍🌈": "rainbow flag", "🐕": "dog", "👩‍🌾": "woman farmer", "🏃": "person running"},
    "sw": {"❤️": "moyo mwekundu", "🏳‍🌈": "bendera ya upinde wa mvua", "🐕": "mbwa", "👩‍🌾": "mkulima mwanamke"},
    "si": {"🐕": "සුනඛයා", "❤": "ක්‍රිස්තු"},  # the second carries U+200D, which Sinhala words need
    "yo": {"🐕": "aja\u0301"},
    "ceb": None,
    "und": None,
}


def entry(unified, **more):
    drawn = {"has_img_google": True, "has_img_twitter": True, "category": "Objects", "subcategory": "thing"}
    return {"name": unified, "unified": unified, "image": f"{unified.lower()}.png", **drawn, **more}


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def root(tmp_path):
    packages = tmp_path / "emoji" / "node_modules"
    tone = {key: value for key, value in entry("1F3C3-1F3FB").items() if "category" not in key}
    listed = [entry(unified) for unified in DRAWN] + [entry("1F600", has_img_twitter=False)]
    listed[1]["category"], listed[4]["skin_variations"] = "Flags", {"1F3FB": tone}
    for vendor in ("google", "twitter"):
        package = packages / f"emoji-datasource-{vendor}"
        write(package / "package.json", {"version": "16.0.0"})
        write(package / "emoji.json", listed)
        for one in [*listed, tone]:
            path = package / "img" / vendor / "64" / one["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (64, 64), (200, 0, 0, 255)).save(path)
    for name, key in emoji.ANNOTATIONS:
        write(packages / name / "package.json", {"version": "48.2.0"})
        for locale, names in NAMES.items():
            there = {sign: {"default": [text, "word"], "tts": [text]} for sign, text in (names or {}).items()}
            derived = {"🏃🏻": {"default": ["x"], "tts": ["person running: light"]}} if locale == "en" else {}
            body = {"identity": {"language": locale}}
            if names is not None:  # a language without names lacks the key
                body["annotations"] = derived if key == "annotationsDerived" else there
            if locale != "yo" or key == "annotations":  # a few locales have no derived file
                write(packages / name / key / locale / "annotations.json", {key: body})
    return tmp_path


def family(sign: str) -> str:
    return emoji.family_by_rule("-".join(f"{ord(character):04X}" for character in sign))


@pytest.mark.parametrize(
    "variants",
    [
        "👩‍🌾 👨‍🌾 🧑‍🌾 🧑🏽‍🌾 🌾",  # gender and skin; the rule keeps what they hold
        "🏃 🏃‍♀️ 🏃‍♂ 🏃🏿‍♀️ 🏃‍➡️ 🏃‍♀️‍➡️ 🏃🏻‍♂️‍➡️",  # direction too
        "👩 👨 🧑 👦 👧 🧒 👩‍🦰 👨‍🦳 🧑🏻‍🦲 👨‍👩‍👧‍👦 👩🏽",  # what is left with nothing is a person
        "❤ ❤️",
        "👍 👍🏿",
    ],
)
def test_variants_are_one_family(variants):
    assert len({family(sign) for sign in variants.split()}) == 1


def test_rule_on_code_points():
    assert family("👩🏽‍🦱") == "person"
    assert family("🧑‍🦽‍➡️") == "1F9BD"
    assert family("➡️") == "27A1"  # the arrow itself is no direction ending
    assert family("🏳️‍🌈") == "1F3F3-1F308"
    assert family("🐕") != family("🐕‍🦺")


@given(
    st.sampled_from(["1F33E", "1F3C3", "1F692", "1F9D6", ""]),
    st.sampled_from(sorted(emoji.PEOPLE)),
    st.sampled_from(["", "-1F3FB", "-1F3FD", "-1F3FF"]),
    st.sampled_from(["", "-200D-2640-FE0F", "-200D-2642", "-200D-1F9B1"]),
    st.sampled_from(["", "-200D-27A1-FE0F", "-200D-27A1"]),
)
def test_family_sees_only_what_is_no_variant(held, person, skin, sign, direction):
    unified = f"{person}{skin}{'-200D-' + held if held else ''}{sign}{direction}"
    assert emoji.family_by_rule(unified) == (held or "person")


@pytest.mark.parametrize(
    "joined",
    [
        "1F478 1F934 1FAC5",
        "1F385 1F936 1F9D1-200D-1F384",
        "1F930 1FAC3 1FAC4",
        "1F1F3-1F1F4 1F1E7-1F1FB 1F1F8-1F1EF",
        "1F471 1F468 1F9D4-200D-2640-FE0F 1F46A",
        "1F52F 2721-FE0F",
        "1F448 1F449-1F3FB",
    ],
)
def test_reviewed_list_joins(joined):
    assert len({emoji.family(unified) for unified in joined.split()}) == 1


def test_reviewed_list_leaves_the_rest_apart():
    apart = ["1F550", "1F551", "1F415", "1F436", "1F600", "1F603", "1F534", "1F535", "person", "1F1F3-1F1F1", "1F1F1-1F1FA"]
    assert len({emoji.family(unified) for unified in apart}) == len(apart)


def test_load_has_a_row_per_vendor_and_per_text(root):
    corpus = emoji.load(["en", "sw", "si"], root)
    rows = corpus.rows.set_index("id")
    assert set(corpus.rows.group) == set(DRAWN)  # 1F600 has no Twitter picture
    assert set(rows.index[rows.modality == "image"]) == {f"{u}:{v}" for u, v in product(DRAWN, ("google", "twitter"))}
    assert rows.text["2764-FE0F:eng_Latn:name"] == "red heart"  # CLDR's key lacks U+FE0F
    assert rows.text["2764-FE0F:swh_Latn:name"] == "moyo mwekundu"  # CLDR's key has it
    assert rows.text["1F3F3-FE0F-200D-1F308:swh_Latn:name"] == "bendera ya upinde wa mvua"
    assert rows.text["1F415:swh_Latn:keywords"] == "mbwa, word"
    assert "\u200d" in rows.text["2764-FE0F:sin_Sinh:name"]
    assert "1F3C3:swh_Latn:name" not in rows.index  # no name, no row; the pictures stay
    assert rows.labels[f"{FLAG}:google"]["category"] == "Flags"
    assert rows.family[f"{FARMER}:twitter"] == rows.family[f"{FARMER}:eng_Latn:name"] == "1F33E"
    assert corpus.picture("1F415:google").size == (64, 64)


def test_texts_are_nfc(root):
    assert emoji.load(["yo"], root).where_rows(kind="name").rows.text.item() == "aj\u00e1"


def test_skin_tones_share_the_family(root):
    corpus = emoji.load(["en"], root, skin_tones=True)
    tone = corpus.rows[corpus.rows.group == "1F3C3-1F3FB"]
    assert set(tone.source) == {"google", "twitter", "cldr"}
    assert set(tone.family) == {"1F3C3"}
    assert "person running: light" in set(tone.text)
    parts = split_by_family(corpus, 0).rows.groupby("family").split.nunique()
    assert (parts == 1).all()


def test_one_vendor_can_be_held_out(root):
    assert set(emoji.load(["en"], root, vendors=("google",)).where_rows(modality="image").rows.source) == {"google"}


def test_openmoji_is_drawn_once(root):
    pytest.importorskip("resvg_py")
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><rect width="72" height="36" fill="#00f"/></svg>'
    folder = emoji.folder(root) / "openmoji" / "color" / "svg"
    folder.mkdir(parents=True)
    for stem in (DOG, "2764"):  # with and without U+FE0F
        (folder / f"{stem}.svg").write_text(svg)
    for _ in range(2):
        corpus = emoji.load(["en"], root, vendors=("openmoji",))
        assert set(corpus.where_rows(modality="image").rows.group) == {DOG, HEART}
    picture = corpus.picture(f"{DOG}:openmoji")
    assert picture.size == (64, 64)
    assert picture.getpixel((32, 10)) == (0, 0, 255, 255) and picture.getpixel((32, 60))[3] == 0
    assert sorted(path.name for path in (root / "emoji" / "openmoji-64").iterdir()) == ["1F415.png", "2764.png"]


def test_naming_and_all_languages(root, monkeypatch):
    names = emoji.naming(root).set_index("lang").names
    assert names.to_dict() == {"eng_Latn": 6, "swh_Latn": 4, "sin_Sinh": 2, "yor_Latn": 1, "ceb_Latn": 0}
    monkeypatch.setattr(emoji, "WELL_NAMED", 3)
    assert emoji.load(None, root).languages == ["eng_Latn", "swh_Latn"]


def test_the_rule_of_what_counts_as_named(root, monkeypatch):
    """Drawn by both, plain and derived together, an empty name is none, `und` is no language, a region is its own code."""
    packages = emoji.folder(root)

    def name(locale, said, key="annotations"):
        package = next(package for package, one in emoji.ANNOTATIONS if one == key)
        entries = {sign: {"default": ["x"], "tts": [text]} for sign, text in said.items()}
        write(packages / package / key / locale / "annotations.json", {key: {"annotations": entries}})

    name("de", {"🐕": "Hund", "❤": "", "😀": "Gesicht"})  # one of three: the face is not drawn by Twitter
    name("de", {"🏃🏻": "Läufer"}, "annotationsDerived")
    name("de-CH", {"🐕": "Hund"})
    name("nb", {"🐕": "hund"})
    name("no", {"🐕": "hund", "❤": "hjerte"})  # the same code as nb: read once, and counted once
    name("und", {"🐕": "x", "❤": "y", "🏃": "z"})
    emoji._locales.cache_clear()
    names = emoji.naming(root).set_index("lang").names
    assert (names["deu_Latn"], names["deu_Latn_CH"], names["nob_Latn"]) == (2, 1, 1) and names.index.is_unique
    assert set(names.index) == {"eng_Latn", "swh_Latn", "sin_Sinh", "yor_Latn", "ceb_Latn", "deu_Latn", "deu_Latn_CH", "nob_Latn"}
    monkeypatch.setattr(emoji, "WELL_NAMED", 1)  # more than: one name does not do
    assert set(emoji.load(None, root).languages) == {"eng_Latn", "swh_Latn", "sin_Sinh", "deu_Latn"}


def test_the_card_says_the_number_that_the_rule_gives_on_the_fetched_data():
    if emoji.missing(FETCHED):
        pytest.skip("the emoji are not fetched into data/ (xmalign fetch emoji)")
    said = re.search(
        r"more than ([\d,]+) of the ([\d,]+) emoji.*: (\d+) codes, (\d+) languages", corpora.cards()["emoji"]["languages"]
    )
    least, drawn, many, languages = (int(number.replace(",", "")) for number in said.groups())
    named = emoji.naming(FETCHED)
    well = named.lang[named.names > emoji.WELL_NAMED]
    assert (least, drawn) == (emoji.WELL_NAMED, len(emoji._pictured(FETCHED, ("google", "twitter"), True)))
    assert (many, languages) == (len(well), well.str.split("_").str[0].nunique())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"languages": ["xx"]}, "unknown language code 'xx'"),
        ({"languages": ["de"]}, "CLDR names no emoji in 'deu_Latn'"),
        ({"languages": ["en"], "vendors": ("apple",)}, "unknown vendor apple; known are google"),
        ({"languages": ["en"], "vendors": ("openmoji",)}, "openmoji"),
    ],
)
def test_what_is_not_there_is_named(root, asked, said):
    with pytest.raises(CorpusError, match=said):
        emoji.load(root=root, **asked)


def test_damage_is_named_and_says_how_to_mend(root):
    picture = emoji.folder(root) / "emoji-datasource-google" / "img" / "google" / "64" / "1f415.png"
    picture.unlink()
    with pytest.raises(CorpusError, match="1f415.png is not there; run: xmalign fetch emoji"):
        emoji.load(["en"], root)
    listed = emoji.folder(root) / "emoji-datasource-google" / "emoji.json"
    listed.write_text("[{")
    with pytest.raises(CorpusError, match="emoji.json is damaged"):
        emoji.load(["en"], root)


def test_corpora_by_name(root, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    assert corpora.load("emoji", ["sw"], root=root).languages == ["swh_Latn"]
    with pytest.raises(CorpusError, match="run: xmalign fetch emoji"):
        corpora.load("emoji", ["sw"], root=empty)
    with pytest.raises(CorpusError, match="unknown corpus 'cifar'; known are scenes, emoji, table"):
        corpora.load("cifar")
    assert corpora.available(root).set_index("name").present["emoji"]
    lacking = corpora.available(empty).set_index("name").loc["emoji"]
    assert not lacking.present and "xmalign fetch emoji" in lacking.how
    assert corpora.best(["sw"], root).name == "emoji"


def test_cards_say_licence_source_and_what_was_met():
    cards = corpora.cards()
    assert cards["emoji"]["seen_real"] is True
    assert set(cards["emoji"]["checksums"]) == set(emoji.PARTS)
    for name, card in cards.items():
        assert {"title", "licence", "attribution", "citation", "modality", "seen_real"} <= set(card), name
    pinned = json.loads((profile.repository() / "data" / "package.json").read_text())
    assert set(pinned["dependencies"] | pinned["optionalDependencies"]) == set(emoji.PARTS)


# Fetching, with a stand-in for npm: the tests need no network.
VERSIONS, PARTS = {"pack": "1.0.0"}, {"pack": ("data",)}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """An `npm` that installs one package with a part in use and a part that is not, or fails as it is told."""
    if os.name == "nt":
        pytest.skip("the stand-in is a POSIX script")
    script = f"""#!{sys.executable}
import json, os, pathlib, sys
open({str(tmp_path / "calls")!r}, "a").write("x")
if os.environ.get("NPM_SAYS"):
    sys.exit(print(os.environ["NPM_SAYS"]) or 1)
package = pathlib.Path(sys.argv[sys.argv.index("--prefix") + 1]) / "node_modules" / "pack"
(package / "data").mkdir(parents=True)
(package / "package.json").write_text(json.dumps({{"version": os.environ.get("NPM_GIVES", "1.0.0")}}))
(package / "data" / "a.txt").write_text("content")
(package / "sheets.png").write_text("big")
"""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npm").write_text(script)
    (tmp_path / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_fetch_keeps_the_parts_in_use_and_runs_once(stand_in):
    folder = stand_in / "data" / "emoji" / "node_modules"
    npm.fetch(folder, VERSIONS, PARTS, {})
    assert files(folder.parent) == ["node_modules/pack/data/a.txt", "node_modules/pack/package.json"]
    sums = {"pack": npm.checksum(folder / "pack", PARTS["pack"])}
    npm.fetch(folder, VERSIONS, PARTS, sums)
    assert (stand_in / "calls").read_text() == "x"
    (folder / "pack" / "data" / "a.txt").write_text("touched")  # same size: only the checksum tells
    npm.fetch(folder, VERSIONS, PARTS, sums)
    assert (stand_in / "calls").read_text() == "xx"
    assert (folder / "pack" / "data" / "a.txt").read_text() == "content"


@pytest.mark.parametrize(
    ("environment", "sums", "said"),
    [
        ({"NPM_SAYS": "npm error code EAI_AGAIN\nnpm error more"}, {}, "could not fetch pack: no network"),
        ({"NPM_SAYS": "npm error code E404\nnpm error more"}, {}, "could not fetch pack: npm error code E404"),
        ({"NPM_GIVES": "2.0.0"}, {}, "version 2.0.0, not 1.0.0"),
        ({}, {"pack": "0" * 64}, "checksum differs"),
    ],
)
def test_a_failed_fetch_says_why_and_leaves_what_was_there(stand_in, monkeypatch, environment, sums, said):
    folder = stand_in / "data" / "node_modules"
    write(folder / "pack" / "package.json", {"version": "0.9.0"})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CorpusError, match=said) as raised:
        npm.fetch(folder, VERSIONS, PARTS, sums)
    assert "\n" not in str(raised.value)
    assert files(folder.parent) == ["node_modules/pack/package.json"]
    assert json.loads((folder / "pack" / "package.json").read_text())["version"] == "0.9.0"


def test_without_npm_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CorpusError, match="npm is not installed; install Node.js"):
        emoji.fetch(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_written_is_named(stand_in):
    (stand_in / "data").write_text("a file where a folder should be")
    with pytest.raises(CorpusError, match="data cannot be written .*XMALIGN_DATA"):
        npm.fetch(stand_in / "data" / "node_modules", VERSIONS, PARTS, {})
