import asyncio
import json
import re

import numpy as np
import pandas as pd
import pytest
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets.widgets.widget import _instances
from PIL import Image
from test_plots import NASTY, PIXEL, small_points
from test_widgets import bundle, messages, same

from xmalign_lab import pictures, similarity, spaces
from xmalign_lab.widgets.beside import linked
from xmalign_lab.widgets.explorer import SpaceExplorer
from xmalign_lab.widgets.toolbar import saved


def test_explorer_follows_selection_and_languages():
    points = small_points()
    explorer = SpaceExplorer(points, {"g1": PIXEL, "g3": PIXEL}, header={"R@1": 0.3})
    assert explorer.selected == "g1" and PIXEL in explorer._panel.value and "nyota" in explorer._panel.value
    explorer.selected = "g3"
    assert "mwezi" in explorer._panel.value and "nyota" not in explorer._panel.value
    same(explorer._plot, explorer.figure("g3", explorer.languages))
    assert list(explorer._plot.data[-1].x) == [3.0, 3.5, None] * 3
    explorer.shown = ("swh_Latn",)
    assert [box.value for box in explorer._boxes.values()] == [False, False, True]
    assert {t.name for t in explorer._plot.data if t.visible is True} == {"Swahili", "picture", "links"}
    assert {"English", "Sinhala"} <= {t.name for t in explorer._plot.data if t.visible is False}
    assert (
        list(explorer._plot.data[-1].x) == [3.0, 3.5, None]
        and "Swahili" in explorer._panel.value
        and "English" not in explorer._panel.value
    )
    explorer._boxes["eng_Latn"].value = True
    assert explorer.shown == ("eng_Latn", "swh_Latn")
    same(explorer._plot, explorer.static())
    assert PIXEL in bundle(explorer)


def mouse(explorer, kind, *ids):
    """As the page tells it: which points of which traces."""
    at = {explorer._ids[row]: (trace, k) for trace, (*_, rows) in enumerate(explorer._parts) for k, row in enumerate(rows)}
    found = [at[row_id] for row_id in ids]
    points = {"trace_indexes": [t for t, _ in found], "point_indexes": [k for _, k in found], "xs": [0] * len(ids)}
    selector = {"type": "lasso", "selector_state": {"xs": [], "ys": []}} if kind == "plotly_selected" else None
    explorer._plot._js2py_pointsCallback = {"event_type": kind, "points": points | {"ys": [0] * len(ids)}, "selector": selector}


def test_explorer_hover_shows_and_click_holds():
    explorer = SpaceExplorer(small_points(), {})
    mouse(explorer, "plotly_hover", "t20")
    assert (explorer.selected, explorer.point) == ("g2", "t20") and "jua" in explorer._panel.value
    mouse(explorer, "plotly_click", "p1")
    mouse(explorer, "plotly_hover", "t30")
    assert explorer.held and explorer.selected == "g1" and explorer._controls["held"].value
    explorer.colour = "modality" if "modality" in explorer.colours else "lang"
    mouse(explorer, "plotly_click", "t11")
    mouse(explorer, "plotly_hover", "t30")
    assert not explorer.held and explorer.selected == "g3"
    mouse(explorer, "plotly_hover")
    assert explorer.selected == "g3"


def test_explorer_refuses_what_is_not_there():
    explorer = SpaceExplorer(small_points(), {})
    with pytest.raises(traitlets.TraitError, match="no point has the group 'g9'"):
        explorer.selected = "g9"
    with pytest.raises(traitlets.TraitError, match="no text is in 'deu_Latn'"):
        explorer.shown = ("deu_Latn",)
    with pytest.raises(traitlets.TraitError):
        SpaceExplorer(small_points(), {}, selected="g9")


def test_explorer_panel_holds_no_tag_of_a_caption():
    points = small_points(1, texts=["<script>alert(1)</script>"])
    explorer = SpaceExplorer(points, {})
    assert "<script" not in explorer._panel.value and "&lt;script&gt;" in explorer._panel.value
    assert isinstance(explorer.points, pd.DataFrame)


def rich(seed=0, groups=8):
    """Points with labels, splits and families, and vectors (n, 6) that are near each other within a group."""
    points = small_points(groups, texts=[f"word{g}" for g in range(groups)])
    order = points.group.str[1:].astype(int)
    labels = [{"parity": "even" if g % 2 == 0 else "odd", "half": "low" if g < groups // 2 else "high"} for g in order]
    points = points.assign(labels=labels, split=np.where(order < 3, "test", "train"), family=points.group, source="s")
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, 6))
    return points, similarity.unit(centres[order] + rng.normal(size=(len(points), 6)))


def seen(explorer):
    """The ids that the page draws."""
    pairs = zip(explorer._plot.data, explorer._parts, strict=False)
    return {explorer._ids[row] for trace, (*_, rows) in pairs for x, row in zip(trace.x, rows, strict=True) if not np.isnan(x)}


def test_filters_leave_what_they_say_in_the_page_and_in_its_twin():
    points, vectors = rich()
    explorer = SpaceExplorer(points, {}, vectors=vectors)
    points, every = explorer.points, set(points.id)
    assert seen(explorer) == every
    for name, value, wanted in (
        ("pattern", "word[12]$", points.group.isin(["g1", "g2"])),
        ("labels", (("parity", "odd"), ("half", "low")), [int(g[1:]) % 2 == 1 or int(g[1:]) < 4 for g in points.group]),
        ("splits", ("test",), points.split == "test"),
        ("ranks", (1, 2), points["rank"] <= 2),
        ("shown", ("swh_Latn",), points.lang.isin(["", "swh_Latn"])),
    ):
        before = getattr(explorer, name)
        setattr(explorer, name, value)
        assert seen(explorer) == set(points.id[np.asarray(wanted)]) != every, name
        same(explorer._plot, explorer.static())
        assert f"{np.sum(wanted):,} points" in explorer._count.value
        setattr(explorer, name, before)
        assert seen(explorer) == every
    explorer.pattern, explorer.splits = "word", ("train",)
    explorer.ranks = (1, 1)
    assert seen(explorer) == set(points.id[(points.split == "train") & (points["rank"] == 1)])


def test_what_cannot_be_is_told_by_hand_and_raised_from_python():
    points, vectors = rich()
    explorer = SpaceExplorer(points, {}, vectors=vectors)
    explorer._controls["pattern"].value = "word1"
    explorer._controls["pattern"].value = "word1("
    assert explorer.pattern == "word1" and "no regular expression" in explorer.said and "word1(" in explorer._count.value
    assert explorer._controls["pattern"].value == "word1(" and "g1" in {i[1:] and f"g{i[1]}" for i in seen(explorer)}
    explorer._controls["pattern"].value = "word2"
    assert explorer.said == "" and explorer.pattern == "word2"
    for name, value, told in (
        ("pattern", "(", "no regular expression"),
        ("labels", (("parity", "both"),), "no point has the label"),
        ("labels", (5,), "no point has the label 5"),
        ("splits", ("validation",), "no point is in the split"),
        ("ranks", (3, 2), "3 is above 2"),
        ("ranks", (5,), "ranks are two numbers, the lowest and the highest, not (5,)"),
        ("ranks", ("a", "b"), "ranks are two numbers"),
        ("colour", "taste", "no colour 'taste'"),
        ("selection", ("nobody",), "no point has the id 'nobody'"),
        ("point", "nobody", "no point has the id 'nobody'"),
    ):
        before = getattr(explorer, name)
        with pytest.raises(traitlets.TraitError, match=re.escape(told)):
            setattr(explorer, name, value)
        assert getattr(explorer, name) == before
    with pytest.raises(traitlets.TraitError, match="hand in their vectors"):
        SpaceExplorer(points, {}, ranks=(1, 5))
    with pytest.raises(ValueError, match="spaces.scatter"):
        SpaceExplorer(pd.concat([points] * 4000), {})
    with pytest.raises(ValueError, match="vectors"):
        SpaceExplorer(points, {}, vectors=vectors[:-1])


@pytest.mark.parametrize("colour", ["parity", "rank", "correct", "gap", "split", "family"])
def test_every_colour_is_drawn_as_in_the_pure_figure_and_the_mouse_still_finds_its_point(colour):
    points, vectors = rich()
    explorer = SpaceExplorer(points, {}, vectors=vectors, contours=True)
    explorer._controls["colour"].value = colour
    same(explorer._plot, explorer.static())
    assert len(explorer._plot.layout.title.text) and explorer.colour == colour
    for row_id in ("p5", "t31", "t02"):
        mouse(explorer, "plotly_hover", row_id)
        assert explorer.point == row_id and explorer.selected == f"g{row_id[1]}"


def test_neighbours_are_those_of_the_space_and_not_of_the_picture():
    points, vectors = rich()
    explorer = SpaceExplorer(points, {"g0": PIXEL}, vectors=vectors)
    cosines = vectors @ vectors.T
    for row, row_id in ((0, "p0"), (9, "t20")):
        for modality in ("image", "text"):
            others = [k for k in np.argsort(-cosines[row]) if k != row and points.modality[k] == modality][:6]
            found = explorer.neighbours(row_id, modality)
            assert found.id.tolist() == points.id[others].tolist()
            assert found.right.tolist() == (points.group[others] == points.group[row]).tolist()
            np.testing.assert_allclose(found.cosine, cosines[row, others], atol=1e-5)
    explorer.point = "t20"
    right = explorer.neighbours("t20", "text").right.sum() + explorer.neighbours("t20", "image").right.sum()
    near = explorer._panel.value.partition("Nearest")[2]
    assert near.count("✓") == right and near.count("✗") == 12 - right and "the text in" in near
    assert "Nearest" not in SpaceExplorer(points, {})._panel.value


def test_the_header_is_computed_from_the_vectors():
    points, vectors = rich()
    explorer, judged = SpaceExplorer(points, {}, vectors=vectors), spaces.judged(points, vectors)
    assert explorer.points.attrs == judged.attrs and "R@1 " in explorer._plot.layout.title.text
    assert "trustworthiness" in explorer.static().layout.title.text
    assert "R@1 .9" in SpaceExplorer(points, {}, {"R@1": 0.9}, vectors).static().layout.title.text


def test_a_lasso_selects_lists_is_saved_and_comes_back(tmp_path):
    points, vectors = rich()
    explorer = SpaceExplorer(points, {"g1": PIXEL}, vectors=vectors)
    mouse(explorer, "plotly_selected", "t11", "p1", "t22")
    assert explorer.selection == ("p1", "t11", "t22") and "3 points" in explorer._listed.value and PIXEL in explorer._listed.value
    bright = [trace.selectedpoints for trace in explorer._plot.data]
    assert sum(len(part or ()) for part in bright) == 3 and bright[0] is not None
    for name in ("s.json", "s.csv"):
        explorer.save(tmp_path / name)
        explorer.selection = ()
        assert all(trace.selectedpoints is None for trace in explorer._plot.data)
        explorer.load(tmp_path / name)
        assert explorer.selection == ("p1", "t11", "t22")
    (tmp_path / "s.json").write_text(json.dumps({"ids": ["p1", "zebra"]}))
    file, load = next(
        (box.children[2], box.children[4])
        for box in explorer.box.children
        if len(getattr(box, "children", ())) == 5 and getattr(box.children[2], "description", "") == "file"
    )
    file.value = str(tmp_path / "s.json")
    load.click()
    assert "row 2: no point has the id 'zebra'" in explorer.said and explorer.selection == ("p1", "t11", "t22")
    assert "3 points" in explorer.html()
    mouse(explorer, "plotly_deselect")
    assert explorer.selection == () and "lasso" in explorer._listed.value


def test_steps_go_through_the_meanings_that_the_filters_leave():
    points, vectors = rich()
    explorer = SpaceExplorer(points, {}, labels=(("parity", "odd"),))
    seen = []
    for _ in range(5):
        explorer.step(1)
        seen.append(explorer.selected)
    assert seen == ["g1", "g3", "g5", "g7", "g1"]
    explorer.step(-1)
    assert explorer.selected == "g7"
    explorer.labels, explorer.pattern = (), "nowhere"
    explorer.step(1)
    assert explorer.selected == "g7"


def test_little_is_sent():
    points, vectors = rich(groups=200)
    explorer = SpaceExplorer(points, {}, vectors=vectors)
    sent = messages(explorer._plot)
    explorer.point = "t1990"
    assert [kind for kind, _ in sent] == ["restyle"] and set(sent[0][1]["restyle_data"]) <= {"x", "y"}
    assert sent[0][1]["restyle_traces"] == [len(explorer._plot.data) - 1]
    sent.clear()
    explorer.pattern = "word1"
    assert len(sent) == 1 and set(sent[0][1]["restyle_data"]) <= {"x", "y", "visible"}
    assert sum(np.asarray(x).nbytes for x in sent[0][1]["restyle_data"]["x"] if x is not None) < 4 * len(points) + 500
    sent.clear()
    explorer.point = "t1991"
    assert sent == [], "another text of the same meaning: the lines are there"


def test_a_new_layout_keeps_filters_selection_and_what_is_held():
    points, vectors = rich()
    explorer = SpaceExplorer(points, {}, vectors=vectors, colour="parity", splits=("train",), pattern="word", contours=True)
    explorer.selected, explorer.held, explorer.selection = "g5", True, ("p5", "t51", "t01")
    left, other = seen(explorer), points[points.id != "t01"].assign(x=points.y * 2, y=points.x)
    assert explorer.replace(other, vectors[points.id != "t01"]) is explorer
    state = (explorer.selected, explorer.held, explorer.selection, explorer.colour, explorer.splits, explorer.pattern)
    assert state == ("g5", True, ("p5", "t51"), "parity", ("train",), "word") and seen(explorer) == left - {"t01"}
    same(explorer._plot, explorer.static())
    assert explorer._plot.layout.yaxis.range == explorer.static().layout.yaxis.range
    few = other[other.group.isin(["g0", "g1"]) & (other.lang != "sin_Sinh")].drop(columns=["labels", "split"])
    explorer.replace(few)
    assert (explorer.selected, explorer.selection, explorer.colour, explorer.splits) == ("g0", (), "lang", ())
    assert explorer.shown == explorer.languages == ("eng_Latn", "swh_Latn") and seen(explorer) == set(few.id)
    same(explorer._plot, explorer.static())
    explorer.replace(points, vectors)
    assert explorer.shown == explorer.languages and len(explorer.languages) == 3


def test_labels_may_be_lists_and_their_values_numbers():
    points = small_points(2).assign(labels=lambda t: [{"count": int(g[1:]), "kind": "sea"} for g in t.group], kind="keywords")
    explorer = SpaceExplorer(points, {}, labels=(("count", "1"),))
    assert seen(explorer) == set(points.id[points.group == "g1"])
    explorer.labels = (["count", "0"],)
    assert explorer.labels == (("count", "0"),) and seen(explorer) == set(points.id[points.group == "g0"])
    explorer.labels = (("kind", "sea"),)
    assert seen(explorer) == set(points.id), "a label, though a column has its name"


def test_a_new_layout_leaves_no_control_of_the_old_one_behind():
    points, vectors = rich()
    explorer, few = SpaceExplorer(points, {}, vectors=vectors), points.drop(columns=["labels", "split"])
    explorer.replace(few).replace(points, vectors)
    alive = set(_instances)
    old = explorer._controls["colour"]
    explorer.replace(few).replace(points, vectors)
    assert len(_instances) == len(alive) and old.comm is None and explorer._controls["colour"].comm is not None
    kept = (explorer._plot, explorer._panel, explorer._count, explorer._listed, explorer.box)
    assert all(widget.comm is not None for widget in kept)
    same(explorer._plot, explorer.static())


@pytest.mark.parametrize("picture", [None, ""])
def test_a_group_may_lack_its_picture(picture):
    points, vectors = rich()
    explorer = SpaceExplorer(points, dict.fromkeys(points.group, picture) | {"g3": PIXEL}, vectors=vectors)
    explorer.selection = ("p1", "p3")
    assert explorer.selected == "g3" and explorer._listed.value.count("<img") == 1 and "<img" in explorer.html()


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40) | st.sampled_from(NASTY))
def test_no_caption_closes_the_script_of_the_saved_page(text):
    points = small_points(1, texts=[text])
    page = saved(spaces.space(points, texts=False), points, spaces.captions(points), {"g0": PIXEL}, "g0")
    assert page.count("<script") == page.count("</script>") == 1 and "http" not in page.replace(text, "")
    known = json.loads(page.partition("const known = ")[2].partition(";\nconst safe")[0])
    assert known["groups"][0][0] == [[k, text] for k in range(3)] and known["groups"][0][1]


def test_linked_views_show_the_same_and_forget_nothing():
    points, vectors = rich()
    a = SpaceExplorer(points, {}, vectors=vectors)
    b = SpaceExplorer(points[points.group != "g3"].assign(x=points.y, y=points.x), {})
    views = linked(a, b)
    mouse(a, "plotly_hover", "t21")
    assert b.point == "t21" and b._plot.data[-1].x == tuple(b.static().data[-1].x)
    mouse(b, "plotly_click", "p6")
    assert a.selected == "g6" and a.held
    mouse(a, "plotly_selected", "p1", "t31", "t11")
    assert b.selection == ("p1", "t11") and a.selection == ("p1", "t11", "t31"), "what the other lacks is not taken away"
    a.held = False
    a.point = "p3"
    assert b.selected == "g6" and not b.held
    b.shown = ("swh_Latn",)
    assert a.shown == ("swh_Latn",) and len(views.static()) == 2
    assert "<script src=" not in bundle(views)


def test_a_saved_page_of_many_meanings_stays_small():
    points, vectors = rich(groups=432)
    noise = np.random.default_rng(0).integers(0, 256, (432, 16, 16, 3), dtype=np.uint8)  # as rich as a picture can be
    drawn = [Image.fromarray(each).resize((64, 64), Image.Resampling.BICUBIC) for each in noise]
    explorer = SpaceExplorer(points, {f"g{k}": pictures.data_uri(each) for k, each in enumerate(drawn)}, vectors=vectors)
    explorer.selected = "g431"
    page = explorer.html()
    assert len(page.encode()) < 250_000 and "word431" in page.split("<script>")[0]
    known = json.loads(page.partition("const known = ")[2].partition(";\nconst ")[0])
    assert len(known["groups"]) == 432 and sum(bool(group[1]) for group in known["groups"]) == 80
    for group in ("g0", "g300"):  # the table has what the live panel shows
        said, _, at, to = known["groups"][known["ids"].index(group)]
        assert [text for _, text in said] == [text for _, text in spaces.captions(points)[group]]
        x, y = spaces.links(points, group)
        np.testing.assert_allclose([v for a in at for b in to for v in (a[0], b[0])], [v for v in x if v is not None], rtol=1e-3)
        np.testing.assert_allclose([v for a in at for b in to for v in (a[1], b[1])], [v for v in y if v is not None], rtol=1e-3)


def test_a_hover_shows_the_card_first_and_lines_where_the_mouse_rests():
    points, _ = rich()
    explorer = SpaceExplorer(points, {})

    async def sweep():
        sent = messages(explorer._plot)
        for row_id in ("p5", "t31", "t12"):
            mouse(explorer, "plotly_hover", row_id)
            assert explorer.selected == f"g{row_id[1]}" and f"word{row_id[1]}" in explorer._panel.value and not sent
        await asyncio.sleep(0.2)
        assert len(sent) == 1, "what the mouse left before it rested is not drawn"
        explorer.selected = "g4"
        assert len(sent) == 2, "what Python asks for is there at once"

    asyncio.run(sweep())
    same(explorer._plot, explorer.static())


def test_a_line_that_is_taken_away_takes_no_selection_with_it():
    explorer = SpaceExplorer(rich()[0], {})
    mouse(explorer, "plotly_selected", "p1", "t20")
    sent = messages(explorer._plot)
    explorer.selection = ("p3",)
    assert [kind for kind, _ in sent] == ["relayout", "restyle"] and sent[0][1]["relayout_data"] == {"selections": []}
    mouse(explorer, "plotly_selected")  # as plotly.js says then
    assert explorer.selection == ("p3",)
    mouse(explorer, "plotly_selected", "p1")
    explorer.pattern = "word5"
    assert not explorer._outlined and explorer.selection == ("p1",), "out of sight, not forgotten"
    mouse(explorer, "plotly_deselect")
    assert explorer.selection == () and all(trace.selectedpoints is None for trace in explorer._plot.data)


def test_no_control_or_table_holds_a_tag_of_a_text():
    points = small_points(3, texts=["<script>alert(1)</script>"]).assign(labels=[{"<b>": "<i>"}] * 12, family="<u>")
    explorer = SpaceExplorer(points, {}, vectors=np.eye(12, dtype=np.float32))
    explorer.selection = tuple(points.id)
    for page in (explorer._panel.value, explorer._listed.value, explorer._count.value):
        assert not re.search("<script|<i>|<u>", page)
