import html as entities
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plots import NASTY, header, small_points, written

from xmalign_lab import similarity, spaces, style
from xmalign_lab.evaluate.space import modality_gap


def test_a_language_has_one_colour_whatever_else_is_shown():
    alone = spaces.space(small_points(codes=["swh_Latn"]))
    beside = spaces.space(small_points(codes=["deu_Latn", "eng_Latn", "hau_Latn", "swh_Latn"]))
    of = [next(t.marker.color for t in figure.data if t.name == "Swahili") for figure in (alone, beside)]
    assert of[0] == of[1] == style.language_colour("swh_Latn") == "#D55E00"
    assert style.language_colour("por_Latn_PT") == style.language_colour("por_Latn")
    assert style.language_colour("") == style.PICTURE


@pytest.mark.parametrize("value", NASTY)
def test_a_legend_holds_no_tag_of_a_label(value):
    points = small_points(2).assign(labels=[{"kind": value if k % 2 else "land"} for k in range(8)])
    names = " ".join(trace.name for trace in spaces.space(points, colour="kind").data)
    assert style.escaped(value) in names and not re.search("<[a-z/]", names)


def test_space_places_every_point_and_says_all_captions_on_hover():
    points = small_points()
    points.attrs = {"method": "pca", "trustworthiness": 0.93, "seed": 0}
    figure = spaces.space(points, header={"R@1": 0.314, "gap": 0.8})
    assert header(figure) == "R@1 .31 · gap .8 · PCA, trustworthiness .93 · seed 0"
    seen = {(g, x, y) for t in figure.data[:-1] for g, x, y in zip(t.customdata, t.x, t.y, strict=True)}
    assert seen == set(zip(points.group, points.x, points.y, strict=True))
    symbols = {t.name: t.marker.symbol for t in figure.data[:-1]}
    assert symbols == {"English": "circle", "Swahili": "circle", "Sinhala": "circle", "picture": "diamond-open"}
    for trace in figure.data[:-1]:
        for group, words in zip(trace.customdata, trace.hovertext, strict=True):
            text = points[(points.group == group) & (points.lang == "swh_Latn")].text.item()
            assert words == "<br>".join(f"<b>{name}</b> {text}" for name in ("English", "Sinhala", "Swahili"))
    assert figure.data[-2].name == "picture"  # drawn above the texts
    written(figure)


def test_many_points_use_webgl(monkeypatch):
    assert {t.type for t in spaces.space(small_points()).data} == {"scatter"}
    monkeypatch.setattr(spaces, "MOST_SVG", 10)
    assert [t.type for t in spaces.space(small_points()).data] == ["scattergl"] * 4 + ["scatter"]


def test_other_columns_can_be_coloured():
    points = small_points().assign(
        kind=lambda p: np.where(p.modality == "image", "picture", np.where(p.x > 1.9, "late", "early"))
    )
    figure = spaces.space(points, colour="kind")
    assert {t.name: t.marker.symbol for t in figure.data[:-1]} == {"early": "circle", "late": "circle", "picture": "diamond-open"}
    both = spaces.space(points.assign(kind=["a", "b"] * 8), colour="kind")
    assert {t.name for t in both.data[:-1]} == {"a, picture", "a, text", "b, text"}


def test_captions_prefer_names_to_keywords_and_take_one_per_language():
    points = small_points(1, codes=["swh_Latn"] * 3).assign(kind=["picture", "keywords", "name", "name"])
    points["text"] = ["", "a | b", "moyo", "roho"]
    assert spaces.captions(points) == {"g0": [("swh_Latn", "moyo")]}
    assert spaces.captions(points[:1]) == {"g0": []}


def test_links_run_from_each_picture_to_each_shown_text():
    points = small_points()
    x, y = spaces.links(points, "g2", ["swh_Latn", "sin_Sinh"])
    assert x == [2.0, 2.5, None] * 2 and y == [0.0, 2.0, None, 0.0, 3.0, None]
    assert len(spaces.links(points, "g2")[0]) == 9 and spaces.links(points, "elsewhere") == ([], [])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=90) | st.sampled_from(NASTY))
def test_hover_text_holds_no_tag_of_its_own(text):
    points = small_points(1, texts=[text], codes=["swh_Latn"])
    hover = spaces.space(points).data[0].hovertext[0].removeprefix("<b>Swahili</b> ")
    hover = hover.removeprefix("\u2068").removesuffix("\u2069")  # around what runs from right to left
    assert "<" not in hover and ">" not in hover
    assert entities.unescape(hover) == entities.unescape(entities.escape(text if len(text) <= 70 else text[:69] + "…"))


def judged_world(seed=0, groups=12):
    """Points of two picture sources and two languages, some of a group's parts lacking, with random unit vectors (n, 6)."""
    rng, rows = np.random.default_rng(seed), []
    for g in range(groups):
        parts = [("image", "", "a"), ("image", "", "b"), ("text", "swh_Latn", "t"), ("text", "eng_Latn", "t")]
        for k, (modality, lang, source) in enumerate(parts):
            if rng.random() < 0.85:
                rows.append({"id": f"{g}.{k}", "group": f"g{g}", "modality": modality, "lang": lang, "source": source})
    points = pd.DataFrame(rows).assign(text="x", x=0.0, y=1.0)
    return points, similarity.unit(rng.normal(size=(len(points), 6)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_rows_are_judged_as_one_would_by_hand(seed):
    points, vectors = judged_world(seed)
    found = spaces.judged(points, vectors)
    cosines = vectors.astype(float) @ vectors.T.astype(float)
    rows = list(points.itertuples())
    for i, row in enumerate(rows):
        across = [k for k, other in enumerate(rows) if other.modality != row.modality]
        own = [cosines[i, k] for k in across if rows[k].group == row.group]
        key = (lambda k: rows[k].source) if row.modality == "text" else (lambda k: rows[k].lang)
        ranks = []
        for gallery in {key(k) for k in across}:
            inside = [k for k in across if key(k) == gallery]
            right = [cosines[i, k] for k in inside if rows[k].group == row.group]
            if right:
                ranks.append(1 + sum(cosines[i, k] > max(right) + 1e-6 for k in inside if rows[k].group != row.group))
        assert found["rank"][i] == pytest.approx(np.mean(ranks) if ranks else np.nan, nan_ok=True)
        assert found["gap"][i] == pytest.approx(1 - max(own) if own else np.nan, nan_ok=True, abs=1e-5)
        assert found["correct"][i] == (bool(np.mean(ranks) == 1) if ranks else None)
    picture = (points.modality == "image").to_numpy()
    assert found.attrs["modality gap"] == pytest.approx(modality_gap(vectors[picture], vectors[~picture]))


def test_recall_is_the_mean_over_galleries_then_languages():
    points = pd.DataFrame({"id": list("abcdef"), "group": ["g", "h", "g", "h", "g", "h"], "text": "", "source": "s"})
    points = points.assign(modality=["image"] * 2 + ["text"] * 4, lang=["", "", *["swh_Latn"] * 2, *["eng_Latn"] * 2])
    vectors = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    found = spaces.judged(points, vectors)
    assert found.attrs["R@1"] == 0.75 and found["rank"].tolist() == [1.25, 1.25, 1, 2, 1, 1]
    assert found.correct.tolist() == [False, False, True, False, True, True], "a tie is no first place"
    with pytest.raises(ValueError, match="6 points need vectors of shape"):
        spaces.judged(points, vectors[:5])


def test_the_header_tells_what_was_judged():
    points, vectors = judged_world()
    points.attrs = {"method": "umap", "seed": 3, "trustworthiness": 0.9}
    found = spaces.judged(points, vectors)
    told = f"R@1 {style.number(found.attrs['R@1'])} · modality gap {style.number(found.attrs['modality gap'])} · "
    assert header(spaces.space(found)) == told + "UMAP, trustworthiness .9 · seed 3"
    assert header(spaces.space(found, header="mine")) == "mine" and header(spaces.space(small_points())) == ""


def test_rank_and_gap_are_continuous_and_right_and_wrong_have_signs():
    points, vectors = judged_world()
    points = spaces.judged(points, vectors)
    figure = spaces.space(points, "rank")
    asked = points["rank"].notna().sum()
    assert sum(len(t.x) for t in figure.data if t.marker.coloraxis == "coloraxis") == asked < len(points)
    for trace, (name, _, rows) in zip(figure.data, spaces.parts(points, "rank"), strict=False):
        if name == "":
            np.testing.assert_allclose(10**trace.marker.color, points["rank"].to_numpy()[rows], rtol=1e-5)
    assert figure.layout.coloraxis.colorbar.ticktext[0] == "1" and figure.layout.coloraxis.cmin == 0
    points["correct"] = [True, False, None, *[False] * (len(points) - 3)]
    names = {trace.name.split(",")[0]: trace.marker.color for trace in spaces.space(points, "correct").data[:-1]}
    assert names == {"✓ right": "#009E73", "✗ wrong": "#D55E00", "not asked": spaces.GREY}


def test_labels_can_be_coloured_and_the_rarest_share_a_colour():
    points = small_points(20).assign(labels=lambda t: [{"shape": f"s{min(int(x), 12)}"} if x < 18 else {} for x in t.x])
    names = {trace.meta for trace in spaces.space(points, "shape").data[:-1]}
    assert len(names) == spaces.MOST_SHADES + 1 and spaces.REST in names and "s12" in names
    figure = spaces.space(points, "shape")
    assert sum(trace.showlegend for trace in figure.data[:-1]) == len(names), "a line of the legend for each, not for each symbol"


def test_every_point_has_its_place_in_one_trace_and_what_is_left_out_keeps_its_number():
    points = small_points()
    keep = (points.group != "g1").to_numpy()
    whole, part = (spaces.layers(points, keep=mask, selection=["t00", "p2"], contours=False) for mask in (None, keep))
    rows = [rows for *_, rows in spaces.parts(points)]
    assert sorted(np.concatenate(rows)) == list(range(len(points))) and len(whole) == len(rows) + 4 + 1
    for of, place, left in zip(rows, whole, part, strict=False):
        np.testing.assert_array_equal(np.isnan(left["x"]), ~keep[of])
        np.testing.assert_array_equal(place["y"], points.y.to_numpy()[of])
        assert {points.id[of[k]] for k in place["selectedpoints"]} == {"t00", "p2"} & set(points.id[of])
    nothing = spaces.layers(points, keep=np.zeros(16, bool))
    assert not any(layer["visible"] for layer in nothing[:-1]) and nothing[0]["selectedpoints"] is None


def test_contours_hold_their_share_of_the_points():
    from skimage.measure import points_in_poly

    rng = np.random.default_rng(0)
    places = np.concatenate([rng.normal(size=(600, 2)), rng.normal([8, 0], 0.4, size=(400, 2))])
    for share in (0.5, 0.9):
        x, y = spaces.density(*places.T, shares=[share])
        assert x.dtype == np.float32 and x.flags.c_contiguous
        cuts = np.flatnonzero(np.isnan(x))
        lines = [np.c_[x[a:b], y[a:b]] for a, b in zip(np.r_[0, cuts[:-1] + 1], cuts, strict=True)]
        inside = np.any([points_in_poly(places, line) for line in lines], axis=0)
        assert inside.mean() == pytest.approx(share, abs=0.03)
    for too_few in (places[:9], np.c_[np.arange(50), np.zeros(50)]):
        assert len(spaces.density(*too_few.T)[0]) == 0


def test_contours_are_drawn_for_each_language_and_the_pictures():
    points = small_points(24).assign(y=lambda t: t.y + t.x.astype(int) % 3)
    figure = spaces.space(points, contours=True)
    lines = {trace.meta: trace.line for trace in figure.data if (trace.name or "").startswith("density")}
    assert set(lines) == {"", "eng_Latn", "swh_Latn", "sin_Sinh"} and lines[""].dash == "dot"
    assert lines["swh_Latn"].color == style.language_colour("swh_Latn")


def test_a_hundred_thousand_points_are_few_bytes_each():
    points = pd.DataFrame({"id": np.arange(100_000).astype(str), "group": (np.arange(100_000) // 4).astype(str)})
    points["lang"] = np.tile(["", "eng_Latn", "swh_Latn", "sin_Sinh"], 25_000)
    places = np.random.default_rng(0).normal(size=(2, 100_000))
    points = points.assign(modality=np.where(points.lang == "", "image", "text"), text="a long caption", x=places[0], y=places[1])
    figure = spaces.space(points, contours=True)
    assert {trace.type for trace in figure.data[:4]} == {"scattergl"} and figure.data[0].hovertext is None
    assert len(figure.to_json()) < 1_450_000  # two 32-bit numbers a point, in base64 with its slashes escaped


def test_a_picture_needs_a_browser_and_says_so(tmp_path, monkeypatch):
    pytest.importorskip("kaleido")
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def none(*args, **kwargs):
        raise ChromeNotFoundError("no")

    if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        path = spaces.png(spaces.space(small_points()), tmp_path / "a.png", width=400, scale=1)
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3_000
    monkeypatch.setattr(kaleido, "calc_fig_sync", none)
    with pytest.raises(RuntimeError, match="BROWSER_PATH"):
        spaces.png(spaces.space(small_points()), tmp_path / "b.png")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match="pip install 'xmalign-lab"):
        spaces.png(spaces.space(small_points()), tmp_path / "b.png")


def test_more_points_than_plotly_draws_have_the_same_colours_in_jscatter(monkeypatch):
    pytest.importorskip("jscatter")
    points = spaces.judged(small_points(), similarity.unit(np.random.default_rng(0).normal(size=(16, 5))))
    shown = spaces.scatter(points).color()
    wanted = [style.language_colour(code) for code in ("eng_Latn", "sin_Sinh", "swh_Latn", "")]
    of = ["#" + "".join(f"{round(255 * part):02X}" for part in colour[:3]) for colour in shown["map"]]
    assert shown["by"] == "lang" and of == wanted
    assert spaces.scatter(points, "rank").color()["by"] == "rank"
    monkeypatch.setitem(sys.modules, "jscatter", None)
    with pytest.raises(RuntimeError, match="pip install"):
        spaces.scatter(points)
