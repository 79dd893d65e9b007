"""A sheet of names: which are asked for, what is kept as one types, and how it is read."""

import numpy as np
import pandas as pd
import pytest
import traitlets

from xmalign_lab import naming
from xmalign_lab.corpora import scenes
from xmalign_lab.corpus import Corpus, CorpusError, split_by_family
from xmalign_lab.encoders.classic import words
from xmalign_lab.pairs.parallel import bridge
from xmalign_lab.widgets.naming import NamingSheet


@pytest.fixture(scope="module")
def corpus():
    return split_by_family(scenes.load(["eng_Latn", "swh_Latn"], n=60), 0)


@pytest.fixture(scope="module")
def groups(corpus):
    return naming.chosen(corpus.where_rows(split=["train", "validation"]), 6, longest=12)


@pytest.fixture
def path(corpus, groups, tmp_path):
    return naming.write_sheet(tmp_path / "sheet", corpus, groups, "arb_Arab")


def named(texts, families=None, labels=None):
    rows = {"id": texts, "group": texts, "family": families or texts, "lang": "eng_Latn", "text": texts, "kind": "name"}
    return Corpus(pd.DataFrame(rows | {"labels": labels or [{}] * len(texts)}))


def test_chosen_are_nested_one_a_family_and_cover_more_words_than_the_first_ones(corpus, groups):
    training = corpus.where_rows(split="train")
    longer = naming.chosen(corpus.where_rows(split=["train", "validation"]), 10, longest=12)
    assert longer[:6] == groups and len(set(longer)) == 10
    family = dict(zip(corpus.rows.group, corpus.rows.family, strict=True))
    assert len({family[group] for group in longer}) == 10
    english = training.where_rows(lang="eng_Latn").rows.set_index("group").text
    chosen = naming.chosen(training, 5, longest=12)
    cover = [len({word for group in some for word in words(english[group])}) for some in (chosen, english.index[:5])]
    assert cover[0] > cover[1]


def test_the_most_shared_word_comes_first_and_flags_and_copies_do_not():
    texts = ["red cat", "cat", "old cat", "boat", "flag red cat cat", "a very long name for a cat"]
    labels = [{}] * 4 + [{"category": "Flags"}, {}]
    picked = naming.chosen(named(texts, ["1", "1", "2", "3", "4", "5"], labels), 9)
    assert picked[0] in ("red cat", "cat") and len(picked) == 3 and "boat" in picked


def test_a_sheet_is_written_once_and_kept(path, corpus, groups):
    assert naming.fill(path, {groups[0]: "  نجمة  حمراء "}) == 1
    assert naming.write_sheet(path.parent, corpus, groups, "arb_Arab") == path
    assert naming.table(path).text.tolist() == ["نجمة حمراء"] + [""] * 5
    assert path.read_bytes().startswith("\ufeff".encode()), "spreadsheets need the mark"
    assert all((path.parent / picture).is_file() for picture in naming.table(path).image)
    for other in ((groups[:3], "arb_Arab"), (groups, "swh_Latn")):
        with pytest.raises(CorpusError, match="other pictures or another language"):
            naming.write_sheet(path.parent, corpus, *other)
    with pytest.raises(CorpusError, match="'nowhere' is not on this sheet"):
        naming.fill(path, {"nowhere": "x"})


def test_sheets_of_a_group_are_put_together_and_alone_teach_the_language(corpus, groups, tmp_path):
    paths = [naming.write_sheet(tmp_path / who, corpus, groups, "swh_Latn") for who in ("Amina", "Juma")]
    with pytest.raises(CorpusError, match="nothing is named yet"):
        naming.read_sheets(paths, corpus)
    naming.fill(paths[0], {groups[0]: "moja", groups[1]: "mbili"})
    naming.fill(paths[1], {groups[1]: "namba mbili"})
    read = naming.read_sheets(paths, corpus)
    assert sorted(read.rows.text) == ["mbili", "moja", "namba mbili"] and set(read.rows.source) == {"sheet"}
    whole = naming.with_names(corpus, read, "swh_Latn")
    swahili = whole.where_rows(lang="swh_Latn").rows
    assert set(swahili.text[swahili.split != "test"]) == set(read.rows.text), "nothing but the sheets"
    asked = corpus.where_rows(lang="swh_Latn", split="test").rows
    assert set(swahili.text[swahili.split == "test"]) == set(asked.text)
    pairs = bridge(whole.where_rows(split=["train", "validation"]), ["swh_Latn"])
    assert (pairs.rows.source == "eng_Latn-swh_Latn").sum() == 3, "both names of one picture count"


def test_what_must_ask_may_not_be_named(corpus, tmp_path):
    put_away = corpus.where_rows(split="test")
    some = naming.chosen(put_away, 2, longest=12)
    sheet = naming.write_sheet(tmp_path / "asks", corpus, some, "swh_Latn")
    naming.fill(sheet, {some[0]: "siri"})
    with pytest.raises(CorpusError, match="must ask and not teach"):
        naming.with_names(corpus, naming.read_sheets([sheet], corpus), "swh_Latn")
    with pytest.raises(CorpusError, match="no group"):
        naming.read_sheets([sheet], corpus.where_rows(split="train"))


def test_setting_names_is_typing(path, groups):
    sheet = NamingSheet(path)
    assert sheet.said.startswith("0 of 6 named") and set(sheet.names) == set(groups)
    sheet.names = {groups[2]: "<b>e\u0301toile</b>"}
    assert naming.table(path).text.tolist() == ["", "", "<b>étoile</b>", "", "", ""] and sheet.said.startswith("1 of 6")
    sheet.grid.names = {**sheet.grid.names, groups[0]: "قمر"}  # as the browser does
    assert sheet.names[groups[0]] == "قمر" and sheet.names[groups[2]] == "<b>étoile</b>"
    assert NamingSheet(path).names == sheet.names, "there again tomorrow"
    assert "<b>étoile" not in sheet.html() and 'lang="arb-Arab">قمر' in sheet.html()
    assert sheet.static().name.tolist() == [sheet.names[group] for group in groups]
    with pytest.raises(traitlets.TraitError, match="'nowhere' is not on this sheet of 6"):
        sheet.names = {"nowhere": "x"}
    assert "nowhere" not in sheet.names and np.isin("قمر", naming.table(path).text)


def test_typing_one_name_leaves_what_a_spreadsheet_wrote_meanwhile(path, groups):
    sheet = NamingSheet(path)
    sheet.names = {groups[0]: "قمر"}
    naming.fill(path, {groups[1]: "نجمة", groups[2]: "شمس"})
    sheet.grid.names = {**sheet.grid.names, groups[0]: "", groups[3]: "بيت"}
    assert naming.table(path).text.tolist() == ["", "نجمة", "شمس", "بيت", "", ""] and sheet.said.startswith("3 of 6")


def test_a_name_that_could_not_be_saved_is_told_and_saved_with_the_next(path, groups, monkeypatch):
    sheet, fill = NamingSheet(path), naming.fill

    def held(*_):
        raise PermissionError("names.csv is held")

    monkeypatch.setattr(naming, "fill", held)
    sheet.names = {groups[0]: "قمر"}
    assert sheet.said.startswith("NOT saved: names.csv is held.") and sheet.grid.said == sheet.said
    monkeypatch.setattr(naming, "fill", fill)
    sheet.names = {groups[1]: "شمس"}
    assert naming.table(path).text.tolist()[:2] == ["قمر", "شمس"] and sheet.said.startswith("2 of 6")


def test_a_sheet_may_come_back_from_a_spreadsheet(path, corpus, groups):
    naming.fill(path, {groups[0]: "null", groups[1]: "بيت, كبير"})
    sheet = naming.table(path).iloc[::-1]
    for separator in (";", "\t", ","):
        written = sheet.to_csv(index=False, sep=separator, lineterminator="\r\n") + separator * 6 + "\r\n"
        path.write_bytes(written.encode())
        assert naming.table(path).group.tolist() == list(groups)[::-1]
        assert naming.write_sheet(path.parent, corpus, groups, "arb_Arab") == path, "in another order, the same sheet"
        assert set(naming.read_sheets([path], corpus).rows.text) == {"null", "بيت, كبير"}
    for wrong in (sheet.to_csv(index=False).encode("utf-16"), "id,group\nא,1".encode("cp1255"), b"", b"a;b\n1;2"):
        path.write_bytes(wrong)
        with pytest.raises(CorpusError, match="names.csv.*save it as CSV, UTF-8"):
            naming.table(path)


@pytest.mark.parametrize("text", ["=SUM(A1)", ".", "…", "'", "?!", "12"])
def test_what_says_nothing_is_no_name(path, corpus, groups, text):
    naming.fill(path, {groups[0]: "قمر", groups[1]: text})
    with pytest.raises(CorpusError, match="is no name .picture 002"):
        naming.read_sheets([path], corpus)
    naming.fill(path, {groups[1]: "☃"})
    assert set(naming.read_sheets([path], corpus).rows.text) == {"قمر", "☃"}
