from types import SimpleNamespace

import numpy as np
import pytest
import traitlets
from PIL import Image
from test_plots import NASTY, PIXEL, Page, header, small_points
from test_widgets import bundle, same

from xmalign_lab import spaces
from xmalign_lab.widgets import journey as module
from xmalign_lab.widgets.journey import Journey


def moments(n=3, **given):
    """The texts come nearer to their pictures: at the last moment each lies on its own."""
    end = small_points(**given)
    found = {}
    for i in range(n):
        away = (end.modality == "text") * (n - 1 - i) / max(n - 1, 1)
        found[f"step {10 * i}"] = end.assign(x=end.group.str[1:].astype(float) + 3 * away, y=4.0 * away)
        found[f"step {10 * i}"].attrs = {"method": "pca", "seed": 0, "trustworthiness": 0.5 + i / 10, "R@1": i / 4}
    return found


def lines(trace):
    """A trace of lines as a list of lists of points."""
    found = [[]]
    for x, y in zip(trace.x, trace.y, strict=True):
        if x is None or np.isnan(x):
            found.append([])
        else:
            found[-1].append((float(x), float(y)))
    return [line for line in found if line]


def test_moving_on_is_what_the_figure_of_that_moment_is():
    journey = Journey(moments(), {"g1": PIXEL})
    assert journey.moment == "step 0" and journey.selected == "g1" and PIXEL in journey._panel.value
    for name in ("step 10", "step 20", "step 0"):
        journey.moment = name
        same(journey._plot, journey.figure(name, "g1"))
    journey.selected = "g3"
    same(journey._plot, journey.figure("step 0", "g3"))
    assert "mwezi" in journey._panel.value and PIXEL not in journey._panel.value


def test_a_move_is_one_message_of_places_alone(monkeypatch):
    journey, sent = Journey(moments(), {}), []
    monkeypatch.setattr(type(journey._plot), "_send_update_msg", lambda self, *a, **k: sent.append([*a, *k.values()]))
    journey.moment = "step 20"
    assert len(sent) == 1
    restyle, relayout = sent[0][:2]
    assert set(restyle) == {"x", "y"} and list(relayout) == ["title.text"]
    for part in [*restyle["x"], *restyle["y"]]:
        assert np.asarray(part).flags.c_contiguous, "a kernel can send no other"


def test_every_moment_has_its_own_numbers_and_all_have_one_scale():
    journey = Journey(moments(), {})
    assert header(journey.figure("step 20", "g0")) == "R@1 .5 · PCA, trustworthiness .7 · seed 0"
    told = Journey(moments(), {}, headers={"step 0": {"R@1": 0.25, "mixing": 0.5}})
    assert header(told.figure("step 0", "g0")).startswith("R@1 .25 · mixing .5 · PCA, trustworthiness .5")
    ranges = {(journey.figure(n, "g0").layout.xaxis.range, journey.figure(n, "g0").layout.yaxis.range) for n in journey.moments}
    assert len(ranges) == 1
    (low, high), (down, up) = ranges.pop()
    for table in journey.moments.values():
        assert table.x.between(low, high).all() and table.y.between(down, up).all()


def test_lines_run_to_the_captions_and_the_way_goes_back_to_the_first_moment():
    journey = Journey(moments(), {}, selected="g2", moment="step 10")
    *_, links, way = journey.static().data and journey.figure("step 10", "g2").data
    assert links.name == "links" and lines(links) == [[(2.0, 0.0), (3.5, 2.0)]] * 3
    assert lines(way) == [[(2.0, 0.0)] * 2] + [[(5.0, 4.0), (3.5, 2.0)]] * 3
    assert lines(journey.figure("step 20", "g2").data[-2]) == [[(2.0, 0.0)] * 2] * 3, "at the end each caption has arrived"


def test_controls_follow_and_lead():
    journey = Journey(moments(), {})
    play, slider, choice = journey.box.children[0].children
    journey.moment = "step 20"
    assert slider.value == "step 20" and play.value == 2
    play.value = 1
    assert journey.moment == slider.value == "step 10"
    slider.value = "step 0"
    assert journey.moment == "step 0" and play.value == 0
    choice.value = "g2"
    assert journey.selected == "g2"
    trace = journey._plot.data[0]
    journey._clicked(trace, SimpleNamespace(point_inds=[3]), None)
    assert journey.selected == choice.value == "g3"
    journey._clicked(trace, SimpleNamespace(point_inds=[]), None)
    assert journey.selected == "g3"


def test_static_stands_side_by_side_small_and_in_one_scale():
    journey = Journey(moments(7), {"g1": PIXEL})
    figure = journey.static()
    titles = ["".join(Page(note.text).words[:1]) for note in figure.layout.annotations]
    assert titles == ["step 0", "step 20", "step 40", "step 60"]
    axes = [axis for name, axis in figure.layout.to_plotly_json().items() if name.startswith("xaxis")]
    assert len(axes) == 4 and len({tuple(axis["range"]) for axis in axes}) == 1
    assert sum(trace.showlegend is True for trace in figure.data) == 4, "one legend"
    assert len(figure.to_json()) < 60_000 and PIXEL in bundle(journey)
    assert len(Journey(moments(1), {}).static().layout.annotations) == 1


def test_what_is_not_there_is_refused():
    journey = Journey(moments(), {})
    with pytest.raises(traitlets.TraitError, match="no moment 'step 5'; there are step 0, step 10"):
        journey.moment = "step 5"
    with pytest.raises(traitlets.TraitError, match="no group 'g9'"):
        journey.selected = "g9"
    assert journey.moment == "step 0" and journey.selected == "g0"
    with pytest.raises(ValueError, match="same rows in the same order"):
        Journey(moments() | {"other": small_points()[::-1]}, {})
    with pytest.raises(ValueError, match="at least one moment"):
        Journey({}, {})


def test_captions_and_names_are_no_tags():
    journey = Journey({NASTY[0]: moments(1, texts=[NASTY[1]])["step 0"]}, {})
    page = Page(journey._panel.value + journey.figure(NASTY[0], "g0").layout.title.text)
    assert "script" not in page.tags and "img" not in page.tags


def test_a_page_holds_every_moment_and_loads_nothing(tmp_path):
    journey = Journey(moments(), {}, selected="g1")
    page = journey.animation(tmp_path / "journey.html").read_text(encoding="utf-8")
    assert "<script src=" not in page and 'rel="stylesheet"' not in page and "Plotly.addFrames" in page
    assert page.count('"name":"step 10"') >= 1 and "play" in page
    assert journey.moment == "step 0"
    with pytest.raises(ValueError, match="ends in .html, .gif or .webp"):
        journey.animation(tmp_path / "journey.mp4")


def test_a_film_stays_at_moments_and_says_that_between_them_nothing_is_measured():
    journey = Journey(moments(), {}, selected="g1")
    film = list(journey._film())
    assert [time == module.HOLD for _, time in film] == ([True] + [False] * module.BETWEEN) * 2 + [True]
    same(film[0][0], journey.figure("step 0", "g1"))
    same(film[-1][0], journey.figure("step 20", "g1"))
    half = film[1 + module.BETWEEN // 2][0]
    assert "nothing is measured" in header(half) and "step 0 → step 10" in half.layout.title.text
    begun, ended = (journey.figure(name, "g1").data[0] for name in ("step 0", "step 10"))
    assert np.allclose(half.data[0].x, (begun.x + ended.x) / 2, atol=1e-5)


def test_a_gif_too_large_leaves_out_every_second_drawing(tmp_path, monkeypatch):
    def drawn(film, width):
        return [Image.effect_noise((20, 10), 9 + i).quantize(8) for i in range(17)], [time for _, time in film]

    monkeypatch.setattr(module, "_drawn", drawn)
    journey = Journey(moments(), {})
    found = []
    for name, most in (("a.gif", 2_000_000), ("b.gif", 10)):
        monkeypatch.setattr(module, "LARGEST", most)
        with Image.open(journey.animation(tmp_path / name)) as image:
            found.append(image.n_frames)
    assert found == [17, 9], "the moments stay, and every second drawing between them"


def test_without_a_browser_the_mend_is_told(tmp_path, monkeypatch):
    def missing(*_):
        raise RuntimeError("a PNG needs Chromium or Chrome: install one")

    monkeypatch.setattr(spaces, "png", missing)
    with pytest.raises(RuntimeError, match="needs Chromium"):
        Journey(moments(), {}).animation(tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()


def test_an_empty_moment_or_group_is_refused_and_the_last_one_stays():
    journey = Journey(moments(), {}, moment="step 10", selected="g2")
    for trait, what in (("moment", "moment"), ("selected", "group")):
        with pytest.raises(traitlets.TraitError, match=f"there is no {what} ''"):
            setattr(journey, trait, "")
    assert (journey.moment, journey.selected) == ("step 10", "g2")
