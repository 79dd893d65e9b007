import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact
from test_plots import NASTY, PIXEL, Page, small_points

from xmalign_lab import selections
from xmalign_lab.corpus import CorpusError
from xmalign_lab.evaluate.significance import holm


def world(groups=40, seed=0):
    """Groups of a picture and two texts, families of two groups, a label; the first ten groups say `fish`."""
    rows, rng = [], np.random.default_rng(seed)
    for g in range(groups):
        labels = {"kind": "sea" if g < 10 else "land", "parity": "even" if g % 2 else "odd"}
        row = {"group": f"g{g}", "family": f"f{g // 2}", "labels": labels, "x": rng.random(), "y": rng.random()}
        rows.append(row | {"id": f"p{g}", "modality": "image", "lang": "", "text": ""})
        for lang, word in (("eng_Latn", "fish" if g < 10 else "stone"), ("swh_Latn", "samaki" if g < 10 else "jiwe")):
            rows.append(row | {"id": f"{lang}{g}", "modality": "text", "lang": lang, "text": f"{word} {rng.integers(9)}"})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("ending", ["json", "csv"])
@settings(max_examples=30, deadline=None)
@given(chosen=st.sets(st.integers(0, 119)))
def test_a_selection_comes_back_from_its_file(tmp_path_factory, ending, chosen):
    points = world().assign(text=lambda t: ['a,b\n"c"\u2028' if text else "" for text in t.text])
    ids = [points.id[i] for i in sorted(chosen)]
    path = selections.save(ids, tmp_path_factory.mktemp("s") / f"a.{ending}", points)
    assert selections.load(path, points.id) == tuple(ids)


def test_a_file_of_selections_is_checked(tmp_path):
    known, file = {"a", "b"}, tmp_path / "s.csv"
    file.write_text("\ufeffname,id\nx,b\ny,a\nz,b\n")
    assert selections.load(file, known) == ("b", "a")
    for name, text, told in (
        ("s.csv", "id\na\nzebra\n", "s.csv, row 2: no point has the id 'zebra'"),
        ("s.csv", "name\na\n", "no selection"),
        ("s.json", '{"ids": ["a", 3]}', "s.json, row 2: no point has the id 3"),
        ("s.json", '{"ids": "ab"}', "is no list"),
        ("s.json", '["a"]', "no selection"),
        ("s.json", "{", "no selection"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(CorpusError, match=told):
            selections.load(tmp_path / name, known)
    with pytest.raises(CorpusError, match="no such file"):
        selections.load(tmp_path / "none.json", known)
    for act in (lambda: selections.load("s.txt", known), lambda: selections.save([], "s.txt")):
        with pytest.raises(ValueError, match="a .json or a .csv"):
            act()


def test_matching_finds_whole_groups_by_any_of_their_texts():
    points = world()
    found = selections.matching(points, "^FISH")
    assert set(points.group[found]) == {f"g{g}" for g in range(10)} and found.sum() == 30
    assert not selections.matching(points, "fish", ["swh_Latn"]).any()
    assert selections.matching(points, "").all()
    assert selections.matching(points, "samaki \\d$", ["swh_Latn"]).sum() == 30, "each text has its own end"
    for broken in ("(", "[a", "*"):
        with pytest.raises(ValueError, match="no regular expression"):
            selections.matching(points, broken)


def test_a_search_without_an_end_is_given_up():
    points = world(4).assign(text="a" * 60 + "b")
    with pytest.raises(ValueError, match="make it simpler"):
        selections.matching(points, "^(?:a|aa)+$")


def test_what_a_selection_has_more_of_equals_fishers_test_on_a_counted_table():
    points = world()
    chosen = [f"eng_Latn{g}" for g in (0, 1, 2, 3, 4, 5, 20)] + ["p30", "p31"]
    found = selections.over_represented(points, chosen)
    families = {g // 2 for g in (0, 1, 2, 3, 4, 5, 20, 30, 31)}
    assert len(families) == 5
    row = found[(found.what == "kind") & (found.value == "sea")].iloc[0]  # families 0 to 4 are of the sea, three chosen
    assert (row["count"], row.inside, row.outside) == (3, 3 / 5, 2 / 15)
    assert row.p == pytest.approx(fisher_exact([[3, 2], [2, 13]], "greater").pvalue)
    fish = found[(found.what == "words") & (found.value == "fish")].iloc[0]
    fishers = fisher_exact([[3, 1], [2, 14]], "greater").pvalue  # of the fifth family a picture alone is chosen, without words
    assert fish.lang == "eng_Latn" and fish.p == pytest.approx(fishers)
    english = found[found.what == "language"].iloc[0]  # of 20 families in two languages four are chosen, in English
    assert english.value == "eng_Latn" and english.p == pytest.approx(fisher_exact([[4, 0], [16, 20]], "greater").pvalue)
    assert (found.inside > found.outside).all() and found.p.is_monotonic_increasing
    assert (found.p_holm >= found.p).all() and (found.p_holm <= 1).all()


def test_holms_correction_is_over_every_value_that_could_have_come_out():
    points = world()
    counted = selections.tallies(points)
    found = selections.over_represented(points, ["eng_Latn0", "eng_Latn2"], counted)
    again = selections.over_represented(points, ["eng_Latn0", "eng_Latn2"])
    pd.testing.assert_frame_equal(found, again)
    counted = counted[counted.value != ""]
    units = counted.drop_duplicates(["what", "lang", "value", "unit"]).groupby(["what", "lang", "value"]).size()
    assert found.attrs["tests"] == (units >= selections.LEAST).sum() > len(found)
    assert found.p_holm.iloc[0] == pytest.approx(holm(np.r_[found.p, np.ones(found.attrs["tests"] - len(found))])[0])


def test_near_copies_of_a_text_prove_no_language():
    points = world()
    copy = points[points.id == "swh_Latn0"]
    points = pd.concat([points, *(copy.assign(id=f"copy{k}", group=f"c{k}") for k in range(30))], ignore_index=True)
    found = selections.over_represented(points, ["swh_Latn0", *(f"copy{k}" for k in range(30))])
    swahili = found[found.what == "language"].iloc[0]
    assert (swahili.value, swahili["count"]) == ("swh_Latn", 1) and swahili.p == pytest.approx(0.5)


def test_a_selection_without_a_text_in_a_language_has_no_words_of_it():
    points = world()
    points = points[~points.id.isin([f"eng_Latn{g}" for g in (30, 31, 38)])]  # family 15 has no English, 19 some
    swahili = [f"swh_Latn{g}" for g in range(10)]
    found = selections.over_represented(points, swahili)
    assert set(found[found.what == "words"].lang) == {"swh_Latn"} and "samaki" in set(found.value)
    found = selections.over_represented(points, [*swahili, "eng_Latn0", "eng_Latn2", "p30"])
    fish = found[(found.what == "words") & (found.value == "fish")].iloc[0]
    assert fish.p == pytest.approx(fisher_exact([[2, 0], [3, 14]], "greater").pvalue), "19 families are said in English"


def test_a_list_says_what_its_test_cannot_show():
    points = world()
    assert "proves nothing about that word" in selections.listed(points, points.id[selections.matching(points, "fish")], {}, [])
    assert "proves nothing" not in selections.listed(points, [], {}, [])


def test_a_random_selection_has_more_of_nothing():
    points, wrong = world(200), 0
    counted = selections.tallies(points)
    for seed in range(100):
        families = np.random.default_rng(seed).permutation(points.family.unique())[:20]
        ids = points.id[points.family.isin(families)]
        wrong += (selections.over_represented(points, ids, counted).p_holm < 0.05).any()
    assert wrong <= 11  # at most one in twenty is meant; 11 of 100 or more would be one chance in a hundred


def test_all_or_nothing_can_be_selected():
    points = world()
    for ids in ([], points.id):
        assert selections.over_represented(points, ids).p_holm.eq(1).all()


def test_a_selection_is_listed_widest_gap_first():
    points = small_points().assign(gap=lambda t: t.x.astype(int) / 10, rank=3.0, correct=False)
    points["family"] = points.group
    page = selections.listed(points, points.id, {"g1": PIXEL}, ["swh_Latn", "eng_Latn"])
    assert page.index("mwezi") < page.index("jua") < page.index("nyota") < page.index("moyo")
    assert "16 points" in page and "4 meanings" in page and "median rank 3" in page and page.count("<img") == 1
    assert 'alt="nyota"' in page and 'lang="sin-Sinh"' not in page
    assert "… and 3 more." in selections.listed(points, points.id, {}, [], most=1)
    bare = selections.listed(points.drop(columns=["gap", "rank", "correct"]), ["p0"], {}, ["swh_Latn"])
    assert "moyo" in bare and "rank" not in bare


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60) | st.sampled_from(NASTY))
def test_a_list_holds_no_tag_of_a_text(text):
    points = small_points(3, texts=[text]).assign(family="f", labels=[{text: text}] * 12)
    read = Page(selections.listed(points, ["t00"], {"g0": PIXEL}, ["eng_Latn"]))
    assert set(read.tags) <= {"div", "p", "b", "table", "tr", "th", "td", "bdi", "img"}
    assert not {name for name in read.attributes if name.startswith("on")} and text in "".join(read.words)


def test_json_of_a_selection_can_be_read_by_others(tmp_path):
    path = selections.save(["a", "ñ"], tmp_path / "s.json")
    assert json.loads(path.read_text(encoding="utf-8")) == {"ids": ["a", "ñ"]}
