"""Colours that can be seen: on white and on a dark page, and apart for every kind of colour blindness."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from xmalign_lab import dials, pictures, style
from xmalign_lab.encoders.classic import graphemes
from xmalign_lab.widgets.twin import Fitted

# Machado, Oliveira & Fernandes (2009), severity 1.0, on linear RGB.
SEEN_BY = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
NAMED = [*style.OF_LANGUAGE.values(), style.PICTURE]


def seen(colour: str, kind: str) -> np.ndarray:
    """CIELAB of a colour as seen."""
    rgb = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    changed = np.clip(np.asarray(SEEN_BY[kind]) @ linear, 0, 1)
    return rgb2lab(np.where(changed <= 0.0031308, 12.92 * changed, 1.055 * changed ** (1 / 2.4) - 0.055)[None, None])[0, 0]


def apart(a: str, b: str, kind: str) -> float:
    return float(deltaE_ciede2000(seen(a, kind), seen(b, kind)))


def test_contrast_is_wcags():
    assert style.contrast("#FFFFFF", "#000000") == pytest.approx(21) and style.contrast("#ABCDEF", "#ABCDEF") == 1
    assert style.contrast("#777777", "#FFFFFF") == style.contrast("#ffffff", "#777777") == pytest.approx(4.48, abs=0.005)
    assert style.contrast("#FF0000", "#FFFFFF") == pytest.approx(1.05 / 0.2626)  # red's share of the luminance


def test_words_are_read_and_drawings_seen_on_both_grounds():
    for ink in (style.INK, style.QUIET):
        assert style.contrast(ink, style.PAPER) >= 4.5 and style.contrast(style.on_night(ink), style.NIGHT) >= 4.5
    for colour in {*NAMED, *style.OTHERS, *style.TEMPLATE.layout.colorway, pictures.RIGHT}:
        assert style.contrast(colour, style.PAPER) >= 3 and style.contrast(colour, style.NIGHT) >= 3, colour
    # …which no ink for words could do on both, so theirs turns with the page
    best = max(
        min(style.contrast(f"#{n:02X}{n:02X}{n:02X}", ground) for ground in (style.PAPER, style.NIGHT)) for n in range(256)
    )
    assert best < 4.5


@pytest.mark.parametrize("kind", SEEN_BY)
def test_languages_stay_apart_for_every_eye(kind):
    assert min(apart(a, b, kind) for a, b in itertools.combinations(NAMED, 2)) > 11.5
    assert min(apart(a, b, kind) for a, b in itertools.combinations([*NAMED, *style.OTHERS], 2)) > 7
    right, wrong = pictures.RIGHT, style.ORANGE
    assert apart(right, wrong, kind) > 18


def test_the_simulation_confuses_what_it_should():
    assert apart("#B33C00", "#5E6A00", "deuteranopia") < 12 < 35 < apart("#B33C00", "#5E6A00", "all cones")


def test_grounds_stay_behind_and_pale_fills_behind_full_ones_at_night():
    for ground in dials.STAGES:
        assert style.contrast(style.on_night(ground), style.NIGHT) < 1.3
    for pale, full in ((dials.PALE_BLUE, style.BLUE), (dials.PALE_ORANGE, style.ORANGE)):
        assert style.contrast(style.on_night(pale), style.NIGHT) < style.contrast(full, style.NIGHT)


@pytest.mark.parametrize("colour", ["#000000", "#111111", "#3B2A73", "#0B3C5D", "#7B1E3A", "#332288"])
def test_too_dark_a_colour_is_lightened_as_far_as_needed_and_no_other_touched(colour):
    assert 3 <= style.contrast(style.on_night(colour), style.NIGHT) < 3.4
    assert style.on_night("#56B4E9") == "#56B4E9"


def test_a_dark_figure_has_the_same_data_in_the_other_inks():
    figure = style.empty("T <b>1</b>", "header #1", 300).add_scatter(y=[1, 2], line_color=style.INK, name="#notacolour")
    night = style.dark(figure)
    assert night.layout.template.layout.paper_bgcolor == style.NIGHT == night.layout.template.layout.hoverlabel.bgcolor
    assert night.data[0].line.color == style.on_night(style.INK) and night.data[0].name == "#notacolour"
    assert f"color:{style.on_night(style.QUIET)}" in night.layout.title.text and style.QUIET not in night.to_json()
    assert list(night.data[0].y) == [1, 2] and figure.data[0].line.color == style.INK


def test_the_rules_for_dark_pages_hold_only_there_and_reach_what_plotly_writes():
    rules = style.night_css(["#3b2a73", "#56B4E9"]).splitlines()
    assert all(rule.startswith('body[data-jp-theme-light="false"] .js-plotly-plot ') for rule in rules)
    inks = '[style*="fill: rgb(51, 51, 51)"], [style*="fill:#333333" i]'
    assert any(f":is({inks}) {{fill: #E0E0E0 !important}}" in rule for rule in rules)
    assert any("rgb(59, 42, 115)" in rule for rule in rules) and not any("rgb(86, 180, 233)" in rule for rule in rules)
    white = [rule for rule in rules if "rgb(255, 255, 255)" in rule]
    assert white and all(".bg" in rule and "stroke" not in rule for rule in white)  # white words on a bar stay white
    assert Fitted().trait_metadata("_css", "sync") and style.NIGHT_CSS in Fitted._css


def test_right_to_left_words_are_isolated_and_only_they():
    assert style.escaped("وجه <مبتسم>") == "\u2068وجه &lt;مبتسم&gt;\u2069"
    assert style.escaped("uso & nyuso") == "uso &amp; nyuso" and style.escaped("මුහුණ") == "මුහුණ"
    assert len(style.escaped("ا" * 100)) == 70 + 2


def test_a_label_is_cut_between_letters_never_within_one():
    sri, family = "ශ්‍රී", "👨‍👩‍👧"
    for length in range(2, 30):
        cut = style.escaped(sri * 30, length)
        assert cut == sri * (cut.count("ර")) + "…" and length - 3 < len(graphemes(cut)) <= length
    assert style.escaped(family * 9, 3) == family * 2 + "…" and style.escaped(family * 3, 3) == family * 3
    assert style.escaped("කොටස" * 2, 5) == "කොටසකො…"
    assert style.escaped("<b>" * 30, 4) == "&lt;b&gt;…"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.56, "1,235"), (123.456, "123"), (99.96, "100"), (12.34, "12.3"), (9.996, "10"), (1500.0, "1,500"), (2.5, "2.5")]
    + [(-0.0, "0"), (-0.004, "-.004"), (0.0999, ".1"), (1e-4, ".0001"), (1e-5, "1·10⁻⁵"), (-1.23e-12, "-1.2·10⁻¹²")]
    + [(0.996, ".996"), (0.9996, ".999"), (-0.99999, "-.999"), (1 - 1e-7, "1"), (0.994, ".99"), (np.float32(0.5), ".5")],
)
def test_a_number_has_three_digits_and_is_never_one_that_it_is_not(value, text):
    assert style.number(value) == text


@given(st.floats(-1e9, 1e9, allow_subnormal=False) | st.floats(-1.1, 1.1, allow_subnormal=False) | st.floats(9, 1e3))
def test_a_written_number_reads_back_as_close_as_its_digits_say(value):
    text = style.number(value)
    digits, _, power = text.replace(",", "").partition("·10")
    back = float(f"{digits}e{power.translate({new: old for old, new in style.RAISED.items()}) or 0}")
    size = abs(value)
    most = 0.051 * size if size < 0.1 else 0.0051 if size < 9.99 else 0.051 if size < 99.9 else 0.51
    assert abs(back - value) <= most
    assert (back == 0) == (value == 0) and back * value >= 0 and (abs(back) < 1 or abs(value) >= 1 - 1e-6)
    assert len(re.sub(r"\D", "", digits).lstrip("0")) <= 3 or abs(value) >= 999.5


def test_plain_html_follows_the_page_and_names_its_pictures():
    shown = pictures.panel("g", [("arb_Arab", "وجه مبتسم"), ("eng_Latn", 'a "face"')], "data:image/webp;base64,AA")
    assert '<bdi lang="arb-Arab">وجه مبتسم</bdi>' in shown and 'alt="وجه مبتسم"' in shown
    # colour stands in the dots alone: words have the page's own
    assert set(re.findall(r'(<span[^>]*)style="color:#\w+"', shown)) == {'<span aria-hidden="true" '}
    found = pictures.retrieval_html([{"query": "uso", "lang": "swh_Latn", "hits": [{"picture": "data:,", "correct": True}]}])
    assert 'alt="found at rank 1, right"' in found and "✓" in found
