"""The tables and the tests they carry, against their own parts, on tables small enough to read, and in every format."""

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmalign_lab.evaluate import report, significance


def scores(ranks_by_gallery: dict[str, list[float]], families=None, lang="swh_Latn", **more) -> pd.DataFrame:
    parts = []
    for gallery, ranks in ranks_by_gallery.items():
        names = [f"q{i}" for i in range(len(ranks))]
        fixed = {"lang": lang, "direction": "text→image", "gallery": gallery, "size": 100, **more}
        parts.append(pd.DataFrame({"query": names, "family": families or names, **fixed, "rank": np.array(ranks, float)}))
    return pd.concat(parts)


def method(shift: float, seed: int = 0, langs=("sin_Sinh", "swh_Latn"), queries: int = 150, **more) -> pd.DataFrame:
    """Ranks of a method that is better the smaller `shift`; the queries' difficulty is the same for all."""
    rng, difficulty = np.random.default_rng(seed), np.abs(np.random.default_rng(99).normal(1.5, 1.5, 150))
    families = [f"f{i // 2 if i < 60 else i}" for i in range(queries)]
    parts = []
    for lang in langs:
        ranks = np.maximum(1, np.rint(np.exp(difficulty + shift + rng.normal(0, 0.5, 150))))[:queries]
        parts.append(scores({"google": ranks}, families, lang, **more))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def three() -> report.Comparison:
    return report.compare({"clip": method(0.9, 1), "100 % of a_b & c|d": method(0.9, 2), "<whole> \\ {x}": method(-0.6, 3)})


def test_summary_and_protocol():
    table = report.summary(scores({"google": [1, 4, 20, 3], "twitter": [1, 4, 20, 3]}))
    value = table.set_index("metric").value
    assert value["R@1"] == 0.25 and value["R@5"] == 0.75 and value["mean rank"] == 7 and value["median rank"] == 3.5
    assert "galleries of 100 items" in table.attrs["protocol"] and "ties: mean rank" in table.attrs["protocol"]
    shown = report.wide(table, "text→image")
    assert shown.loc["swh_Latn", "median rank"] == "4" and shown.loc["swh_Latn", "R@1"].startswith("0.250 [")


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 99))
@settings(max_examples=40)
def test_interval_lies_in_the_range_and_covers_a_constant(values, seed):
    values = np.array(values)
    low, high = report.family_bootstrap(values, np.arange(len(values)) % 5, draws=200, seed=seed)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert report.family_bootstrap(np.full(9, 0.3), np.arange(9) % 4, draws=50) == pytest.approx((0.3, 0.3))


def test_interval_against_scipy_when_every_row_is_its_own_family():
    from scipy.stats import bootstrap

    values = np.random.default_rng(0).beta(1, 3, 400)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = report.family_bootstrap(values, np.arange(400), draws=4000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_copies_do_not_narrow_the_interval():
    values, families = np.random.default_rng(0).random(60), np.arange(60)
    once = report.family_bootstrap(values, families)
    copied = report.family_bootstrap(np.repeat(values, 5), np.repeat(families, 5))
    as_rows = report.family_bootstrap(np.repeat(values, 5), np.arange(300))
    assert copied == pytest.approx(once) and (as_rows[1] - as_rows[0]) < 0.6 * (once[1] - once[0])


def test_protocol_of_the_scores_replaces_the_fixed_words():
    table = scores({"google": [1, 2]}, protocol="captions: first; ties: mean rank; translate-test: on")
    assert "; captions: first; ties: mean rank; translate-test: on; intervals" in report.protocol(table)
    assert report.protocol(table).count("ties") == 1
    both = pd.concat([table, table.assign(protocol="another")])
    assert "another | captions: first" in report.protocol(both)


def test_the_numbers_are_those_of_the_tests_on_their_own(three):
    a, b = (method(0.9, 1), method(-0.6, 3))
    values = [1 / table[table.lang == "swh_Latn"]["rank"].to_numpy() for table in (a, b)]
    families = a[a.lang == "swh_Latn"].family.to_numpy()
    row = three.tests.query("a == 'clip' and b.str.startswith('<') and lang == 'swh_Latn'").iloc[0]
    alone = significance.paired_bootstrap(*values, families)
    assert [row.difference, row.low, row.high] == pytest.approx(alone[:3], abs=0.006) and row.p_bootstrap == alone.p
    assert row.p_permutation == significance.paired_permutation(*values, families) == three.floor == 1 / 10_001
    assert row.smallest == pytest.approx(significance.smallest_difference(*values, families), rel=0.05)
    mine = three.table.set_index(["letter", "lang"])
    assert mine.loc[("a", "swh_Latn"), "value"] == pytest.approx(values[0].mean())
    assert mine.loc[("a", "mean"), "value"] == pytest.approx(mine.loc["a"].value[["sin_Sinh", "swh_Latn"]].mean())
    assert mine.loc[("a", "swh_Latn"), ["queries", "families", "seeds"]].tolist() == [150, 120, 1]
    np.testing.assert_allclose(three.tests.p_adjusted, significance.holm(three.tests.p))
    assert (three.tests.p == three.tests[["p_bootstrap", "p_permutation"]].max(axis=1)).all()


def test_a_row_names_the_rows_it_beats_and_the_best_is_bold_only_where_it_beats_the_second(three):
    assert three.table.query("letter == 'c'").beats.tolist() == [("a", "b")] * 3
    assert three.table.query("letter != 'c'").beats.tolist() == [()] * 6, "a and b are alike"
    lines = three.to_markdown().splitlines()
    assert lines[0] == "|  | method | Sinhala | Swahili | mean |" and lines[1] == "| --- | --- | ---: | ---: | ---: |"
    assert lines[4].count("**") == 6 and lines[4].count("<sup>a,b</sup>") == 3 and "**" not in lines[2] + lines[3]
    two = report.compare({"clip": method(0.9, 1), "other": method(0.9, 2)}, draws=500)
    assert "**" not in two.to_markdown() and "<b>" not in two.to_html(), "the best by chance is not bold"


def test_only_what_survives_the_correction_is_named():
    found = {
        name: report.compare({"a": method(0.9, 1), "b": method(0.7, 2), "c": method(-0.6, 3)}, correction=name, draws=2000)
        for name in ("holm", "none")
    }
    row = found["holm"].tests.query("b == 'b' and lang == 'swh_Latn'").iloc[0]
    assert row.p < 0.05 < row.p_adjusted, "a case at the edge"
    beats = {name: made.table.query("letter == 'b' and lang == 'swh_Latn'").beats.item() for name, made in found.items()}
    assert beats == {"holm": (), "none": ("a",)} and "9 tests: holm" in found["holm"].caption


def test_of_ranks_the_lower_is_better():
    found = report.compare({"far": method(0.9, 1), "near": method(-0.6, 3)}, "mean rank", draws=500)
    assert found.table.query("method == 'near'").beats.tolist() == [("a",)] * 3 and (found.tests.difference > 0).all()
    cells = found.to_markdown().splitlines()[3].split(" | ")
    assert cells[2].startswith("**") and len(cells[2].split("*")[2].split(".")[1]) == 1, "one digit for ranks"


def test_sum_r_takes_both_directions():
    rng, parts = np.random.default_rng(0), {}
    for name in ("a", "b"):
        both = ("text→image", "image→text")
        rows = [scores({"google": rng.integers(1, 20, 30)}).assign(direction=direction) for direction in both]
        parts[name] = pd.concat(rows)
    compared = report.compare(parts, "SumR")
    table = compared.table[compared.table.lang == "swh_Latn"].set_index("method").value
    for name, part in parts.items():
        shares = [100 * (ranks["rank"] <= k).mean() for _, ranks in part.groupby("direction") for k in (1, 5, 10)]
        assert table[name] == pytest.approx(sum(shares))
    assert compared.caption.startswith("SumR, both directions; ")


def test_only_shared_queries_are_compared_and_the_rest_is_counted():
    whole, part = method(0.2, 1), method(0.1, 2)
    part = part[(part.lang == "swh_Latn") | (part["query"].str[1:].astype(int) >= 7)]
    found = report.compare({"whole": whole, "part": part}, draws=500)
    assert found.table.query("lang == 'sin_Sinh'").queries.tolist() == [143, 143] and "7 queries left out" in found.protocol
    kept = whole[(whole.lang == "sin_Sinh")]["rank"].to_numpy()[7:]
    assert found.table.query("lang == 'sin_Sinh' and letter == 'a'").value.item() == pytest.approx((1 / kept).mean())
    whole = report.compare({"whole": whole, "part": method(0.1, 2)}, draws=500)
    assert "left out" not in whole.protocol and "seeds: not recorded" in whole.protocol


def test_mean_over_languages_that_ask_differently_many():
    langs = [method(0.3, 1, ["sin_Sinh"]), method(0.3, 2, ["swh_Latn"], queries=40)]
    other = [method(0.0, 3, ["sin_Sinh"]), method(0.0, 4, ["swh_Latn"], queries=40)]
    found = report.compare({"a": pd.concat(langs), "b": pd.concat(other)}, draws=4000)
    assert found.table.query("lang == 'mean' and letter == 'a'").value.item() == pytest.approx(
        np.mean([(1 / part["rank"]).mean() for part in langs])
    )
    row = found.tests.query("lang == 'mean'").iloc[0]
    rng, draws = np.random.default_rng(0), []  # the same, drawn one by one
    codes = langs[0].family.astype("category").cat.codes.to_numpy()
    differences = [(1 / x["rank"] - 1 / y["rank"]).to_numpy() for x, y in zip(langs, other, strict=True)]
    for _ in range(1500):
        times = np.bincount(rng.integers(codes.max() + 1, size=codes.max() + 1), minlength=codes.max() + 1)[codes]
        draws.append(np.mean([np.average(d, weights=times[: len(d)]) for d in differences]))
    assert [row.low, row.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.006)


def test_repetitions_widen_the_interval_and_a_method_without_seeds_stands_in_each():
    one, two = 0.4, 0.0
    runs = [method(one + 0.3 * (k - 2), 1, ["swh_Latn"]) for k in range(5)]
    many = pd.concat([table.assign(seed=k) for k, table in enumerate(runs)])
    fixed = method(two, 7, ["swh_Latn"])
    found = report.compare({"trained": many, "fixed": fixed}, draws=2000)
    values = np.array([1 / table["rank"].to_numpy() for table in runs]), np.tile(1 / fixed["rank"].to_numpy(), (5, 1))
    mixed = significance.mixed_bootstrap(*values, fixed.family.to_numpy(), draws=2000)
    row = found.tests.iloc[0]
    assert [row.difference, row.low, row.high, row.p_bootstrap] == pytest.approx(list(mixed), abs=0.01)
    assert "seeds: 0, 1, 2, 3, 4 (drawn as the families are)" in found.caption and found.table.seeds.tolist() == [5, 5]
    wide, narrow = (found.table.high - found.table.low).tolist()
    assert wide > 1.5 * narrow
    folds = fixed.assign(seed=fixed.family.str[1:].astype(int) % 5)  # every query asked once, whatever the seed
    once = report.compare({"a": folds, "b": method(0.4, 8, ["swh_Latn"])}, draws=500)
    plain = report.compare({"a": fixed, "b": method(0.4, 8, ["swh_Latn"])}, draws=500)
    assert "drawn" not in once.protocol and once.table.low.tolist() == pytest.approx(plain.table.low.tolist(), abs=0.02)


def test_protocols_that_differ_are_named_by_row():
    one, other = method(0.2, 1, protocol="translate-test: off"), method(0.1, 2, protocol="translate-test: on")
    found = report.compare({"x": one, "y": other}, draws=300)
    assert "a: galleries" in found.protocol and "| b: galleries" in found.protocol and "translate-test: on" in found.caption


def test_draws_suffice_for_the_correction_and_one_language_has_no_mean():
    found = report.compare({f"m{i}": method(0.9 - 0.6 * (i == 7), i, ["swh_Latn"]) for i in range(8)}, draws=10)
    assert found.floor * len(found.tests) < 0.05 / 2 and found.table.lang.unique().tolist() == ["swh_Latn"]
    assert found.table.query("letter == 'h'").beats.item() == tuple("abcdefg")
    loose = report.compare({"a": method(0.9, 1), "b": method(0.6, 2)}, langs=["swh_Latn"], correction="none", draws=500)
    assert loose.tests.p_adjusted.tolist() == loose.tests.p.tolist() and loose.table.lang.unique().tolist() == ["swh_Latn"]


def test_rows_asked_in_galleries_of_different_sizes_are_not_tested_against_each_other():
    few, many = method(0.2, 1, size=50), method(0.1, 2)
    said = "sin_Sinh, query 'q0': 'few' in galleries of 50 items and 'many' in galleries of 100 items; ranks in galleries of"
    with pytest.raises(ValueError, match=said):
        report.compare({"many": many, "few": few}, draws=50)
    part = few.assign(size=few["size"].where(few.lang == "sin_Sinh", 100))  # in one language only, of which nothing is asked
    assert len(report.compare({"few": part, "many": many}, langs="swh_Latn", draws=50).tests)
    twice = pd.concat([many.assign(seed=seed) for seed in range(3)])  # asked again, in the same galleries
    assert len(report.compare({"many": twice, "again": many}, draws=50).tests)
    two = pd.concat([many, many.assign(gallery="twitter", size=50)])
    with pytest.raises(ValueError, match="'both' in galleries of 75 items and 'many' in galleries of 100"):
        report.compare({"both": two, "many": many}, draws=50)


def test_two_seeds_are_refused():
    two = pd.concat([method(0.2, seed).assign(seed=seed) for seed in (1, 2)])
    with pytest.raises(ValueError, match="two seeds: their spread is too rough to test with"):
        report.compare({"a": two, "b": method(0.1, 3)}, draws=50)


def test_the_protocol_says_how_many_queries_had_no_right_answer():
    one, other = method(0.2, 1).assign(dropped=0), method(0.1, 2).assign(dropped=0)
    assert "dropped" not in report.protocol(one)
    other.loc[other.lang == "swh_Latn", "dropped"] = 1234
    assert "mean over google (up to 1,234 queries a gallery dropped, for want of a right answer in it);" in report.protocol(other)
    older = pd.concat([one.drop(columns="dropped"), other])  # half of it recorded before there was a count
    assert "1,234 queries a gallery dropped" in report.protocol(older)
    assert "up to 1 query a gallery dropped" in report.compare({"a": one.assign(dropped=1), "b": one.assign(dropped=1)}).caption


def test_p_values_have_a_floor_and_no_zero(three):
    assert report.p_text(1 / 10_001, True) == "p ≤ 0.0001" and report.p_text(1 / 100_001, True) == "p ≤ 0.00001"
    assert report.p_text(0.0234) == "p = 0.023" and report.p_text(1.0) == "p = 1"
    shown = three.readable_tests()
    assert shown.p_permutation.iloc[0] == "p ≤ 0.0001" and shown.p_adjusted.iloc[0] == "p ≤ 0.0009"
    assert shown.p_adjusted.iloc[-1].startswith("p = ") and shown.difference.iloc[0][0] in "+-"
    assert not shown.stack().str.contains(r"p = 0\.?0*$", regex=True).any()


def test_csv_reads_back(three):
    back = pd.read_csv(io.StringIO(three.to_csv()), keep_default_na=False)
    assert back.method.tolist() == three.table.method.tolist() and back.beats.tolist()[:3] == ["", "", "a b"]
    assert back[["value", "low", "high"]].to_numpy() == pytest.approx(three.table[["value", "low", "high"]].to_numpy())


def test_markdown_takes_any_name(three):
    row = three.to_markdown().splitlines()[3]
    assert "100 % of a\\_b & c\\|d" in row and row.replace("\\|", "").count("|") == 6
    assert "\\<whole>" in three.to_markdown() and three.caption.split(";")[0] in three.to_markdown()


def test_latex_is_a_whole_table(three):
    text = three.to_latex()
    lines = text.splitlines()
    assert lines[0] == r"\begin{table}" and lines[-1] == r"\end{table}" and r"\begin{tabular}{llrrr}" in lines
    rules = [lines.index(rf"\{name}rule") for name in ("top", "mid", "bottom")]
    assert rules[1] == rules[0] + 2 and rules[2] == rules[1] + 4
    for line in [lines[rules[0] + 1], *lines[rules[1] + 1 : rules[2]]]:
        assert line.replace(r"\&", "").count("&") == 4 and line.endswith(r"\\")
    assert r"100 \% of a\_b \& c\textbar{}d" in text and r"\textless{}whole\textgreater{} \textbackslash{} \{x\}" in text
    assert r"\textbf{" in text and r"\textsuperscript{a,b}" in text and r"text$\to$image" in text
    bare = text.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}") and not set("→≤α–") & set(text)


def test_html_is_well_formed_and_safe(three):
    page = ElementTree.fromstring(three.to_html())
    cells = ["".join(cell.itertext()) for cell in page.find("table").iter("td")]
    assert len(cells) == 3 * 5 and cells[11] == "<whole> \\ {x}" and cells[12].endswith("]a,b")
    assert len(page.findall(".//table")) == 2 and "all: 9 tests" in "".join(page.itertext())
    assert three._repr_html_() == three.to_html() and "color" not in three.to_html(), "the page's own ink, light or dark"


def test_what_cannot_be_compared_is_an_error():
    one = method(0.2, 1)
    with pytest.raises(ValueError, match="1 method,"):
        report.compare({"a": one})
    with pytest.raises(ValueError, match="holm, benjamini-hochberg, none"):
        report.compare({"a": one, "b": one}, correction="bonferoni")
    with pytest.raises(ValueError, match="known are MRR"):
        report.compare({"a": one, "b": one}, "R@2")
    with pytest.raises(ValueError, match="image→text: there is no query in any language"):
        report.compare({"a": one, "b": one}, direction="image→text")
    with pytest.raises(ValueError, match="no query in deu_Latn that all of a, b"):
        report.compare({"a": one, "b": one}, langs=["swh_Latn", "deu_Latn"])
    with pytest.raises(ValueError, match="any language"):
        report.compare({"a": one, "b": one.assign(query="other " + one["query"])})


def test_one_family_alone_has_a_mean_and_no_interval():
    assert np.isnan(report.family_bootstrap(np.array([0.5, 1.0]), np.array(["f", "f"]))).all()


def test_rows_without_a_family_are_an_error_and_do_not_vanish():
    one = method(0.2, 1)
    holes = one.assign(family=one.family.where(one.index != 7))
    for broken, said in ((holes, "1 of 300 rows without a family"), (one.drop(columns="family"), "no column 'family'")):
        with pytest.raises(ValueError, match=f"b: {said}"):
            report.compare({"a": one, "b": broken})
        with pytest.raises(ValueError, match=f"these scores: {said}"):
            report.summary(broken)
    with pytest.raises(ValueError, match="1 of 2 queries have no family"):
        report.family_bootstrap(np.array([0.5, 1.0]), ["f", None])
    with pytest.raises(ValueError, match="one family only in swh_Latn"):
        single = one.assign(family=one.family.where(one.lang != "swh_Latn", "f"))
        report.compare({"a": single, "b": single})
    assert np.isnan(report.family_bootstrap(np.array([0.5, np.nan]), ["f", "g"])).all()


def test_the_caption_gives_the_single_test_and_the_corrected_one_apart(three):
    tests, power = three.tests, 0.8
    error = tests.smallest / significance.detectable(1)
    assert tests.smallest_corrected.tolist() == pytest.approx([significance.detectable(e, 0.05 / 9, power) for e in error])
    alone, corrected = (f"{of.min():.2g}–{of.max():.2g}" for of in (tests.smallest, tests.smallest_corrected))
    assert f"in a single test, uncorrected: {alone}; for a letter, at α / 9, the hardest step" in three.caption
    assert f"of the correction: {corrected}. Protocol" in three.caption
    assert (three.readable_tests().smallest_corrected > three.readable_tests().smallest).all()
    loose = report.compare({"a": method(0.9, 1), "b": method(0.6, 2)}, correction="none", draws=300)
    assert loose.tests.smallest_corrected.tolist() == pytest.approx(loose.tests.smallest.tolist())
    assert "for a letter" not in loose.caption


def test_queries_are_counted_by_language_where_they_differ():
    few = pd.concat([method(0.2, 1, ["sin_Sinh"]), method(0.2, 2, ["swh_Latn"], queries=40)])
    assert "150 queries in 120 families (sin_Sinh), 40 queries in 20 families (swh_Latn);" in report.protocol(few)
    found = report.compare({"a": few, "b": few.assign(rank=few["rank"] + 1)}, draws=300)
    assert "40 queries in 20 families (swh_Latn)" in found.protocol and "The column mean averages over languages" in found.caption
    same = report.compare({"a": method(0.2, 1), "b": method(0.2, 2)}, draws=300)
    assert "; 150 queries in 120 families;" in same.protocol and "The column mean" not in same.caption
    other = method(0.2, 1)  # as many in each, but not the same
    other["query"] = other.lang + other["query"]
    assert "150 queries in 120 families (sin_Sinh, swh_Latn);" in report.protocol(other)
    alone = report.compare({"a": few, "b": few.assign(rank=few["rank"] + 1)}, langs="swh_Latn", draws=300)
    assert alone.table.lang.unique().tolist() == ["swh_Latn"] and "; 40 queries in 20 families;" in alone.protocol


def test_references_are_never_bold_and_do_not_stand_in_the_way():
    tables = {"upper bound": method(-2.0, 5), "ours": method(-0.6, 3), "clip": method(0.9, 1)}
    cells = {
        of: [line.count("**") for line in report.compare(tables, draws=500, references=of).to_markdown().splitlines()[2:5]]
        for of in ((), "upper bound", ("upper bound", "ours"))
    }
    assert cells == {(): [6, 0, 0], "upper bound": [0, 6, 0], ("upper bound", "ours"): [0, 0, 0]}
    found = report.compare(tables, draws=500, references=["upper bound"])
    assert found.references == ("a",) and "the second best, both among the rows other than a." in found.caption
    assert found.table.query("letter == 'a'").beats.tolist() == [("b", "c")] * 3, "tested like the others"
    with pytest.raises(ValueError, match="references: no method 'chance'; there are upper bound, ours, clip"):
        report.compare(tables, references=["chance"])


def test_greek_letters_are_mathematics_in_latex():
    text = report.compare({"τ = 0.07, λ × α": method(0.9, 1), "Δ ≥ ±1": method(0.6, 2)}, draws=300).to_latex()
    assert r"$\tau$ = 0.07, $\lambda$ $\times$ $\alpha$" in text and r"$\Delta$ $\geq$ $\pm$1" in text
    assert (
        report.LATEX[ord("ω")] == r"$\omega$"
        and report.LATEX[ord("Ω")] == r"$\Omega$"
        and report.LATEX[ord("ε")] == r"$\varepsilon$"
    )


def test_one_is_not_many():
    one, other = method(0.2, 1, ["swh_Latn"]), method(0.1, 2, ["swh_Latn"])
    found = report.compare({"a": one, "b": other[other["query"] != "q149"]}, draws=300)
    assert "over 1 test: holm" in found.caption and "; 1 query left out" in found.caption and "all: 1 test<" in found.to_html()
    assert "galleries of 1 item, mean over google; 1 query in 1 family;" in report.protocol(scores({"google": [1]}, size=1))
    assert report._count(1911, "query") == "1,911 queries"
