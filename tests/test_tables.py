"""Your own table: what is read, and for each bad row an error that names file, row and what would be accepted."""

import json

import pandas as pd
import pytest
from PIL import Image

from xmalign_lab import corpora
from xmalign_lab.corpora.tables import load_table, places
from xmalign_lab.corpus import CorpusError

GOOD = "id,group,lang,text,image\n1,dog,,,dog.png\n2,dog,en,a dog,\n3,dog,sw,mbwa,\n"


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "dog.png")
    return tmp_path


def table(folder, text: str, name: str = "mine.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_long_format(folder):
    corpus = load_table(table(folder, GOOD))
    rows = corpus.rows.set_index("id")
    assert list(rows.modality) == ["image", "text", "text"]
    assert rows.lang.to_dict() == {"1": "", "2": "eng_Latn", "3": "swh_Latn"}
    assert rows.kind.to_dict() == {"1": "picture", "2": "caption", "3": "caption"}
    assert set(rows.family) == {"dog"}
    assert corpus.picture("1").size == (20, 10)
    assert corpus.name == "mine"


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_other_formats_give_the_same_rows(folder, suffix):
    expected = load_table(table(folder, GOOD)).rows
    frame = pd.DataFrame({"id": [1, 2, 3], "group": "dog", "lang": [None, "en", "sw"]})
    frame = frame.assign(text=[None, "a dog", "mbwa"], image=["dog.png", None, None])
    path = folder / f"other{suffix}"
    if suffix == ".tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    pd.testing.assert_frame_equal(load_table(path).rows, expected)


def test_a_row_with_text_and_image_is_one_of_each(folder):
    corpus = load_table(
        table(folder, "group,caption,image,lang,shop,split\ndog,mbwa,dog.png,sw,A,test\n"), columns={"caption": "text"}
    )
    assert list(corpus.rows.id) == ["line 2:image", "line 2:text"]
    assert list(corpus.rows.split) == ["test", "test"]
    assert corpus.rows.labels[1] == {"shop": "A"}


def test_pictures_from_another_folder_and_words_that_pandas_takes_for_missing(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = table(elsewhere, "id,group,lang,text,image\n1,na,,,dog.png\n2,na,en,NA,\n3,na,en,None,\n")
    assert list(load_table(path, images=folder).where_rows(modality="text").rows.text) == ["NA", "None"]


def test_texts_are_kept_as_written(folder):
    path = table(folder, 'id,group,lang,text\n1,a,si," ක්‍රි  x "\n2,a,en,"two\nlines"\n')
    assert list(load_table(path).rows.text) == [" ක්‍රි  x ", "two\nlines"]


BAD = {
    "missing picture": ("5,dog,,,cat.png", "line 5: .*cat.png: no such image file"),
    "truncated picture": ("5,dog,,,half.png", "line 5: .*half.png: not a readable image, perhaps truncated"),
    "no picture at all": ("5,dog,,,text.png", "line 5: .*text.png: not a readable image"),
    "empty caption": ("5,dog,en,,", "line 5: neither a text nor an image"),
    "white space only": ("5,dog,en,  \t ,", "line 5: neither a text nor an image"),
    "unknown language": ("5,dog,swhili,mbwa,", r"line 5: unknown language code 'swhili'; did you mean 'swh_Latn' \(Swahili\)"),
    "no language": ("5,dog,,mbwa,", "line 5: the text has no language; give a code such as 'swh_Latn'"),
    "id twice": ("2,dog,en,hound,", "line 5: id '2' occurs twice"),
    "no id": (",dog,en,hound,", "line 5: 'id' is empty"),
    "no group": ("5,,en,hound,", "line 5: 'group' is empty"),
    "no partner": ("5,cat,en,cat,", "line 5: 1 group.s. have a single row .* cat; allow_unpaired=True"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_rows_are_named_by_their_line_in_the_editor(folder, fault):
    row, said = BAD[fault]
    whole = (folder / "dog.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    path = table(folder, GOOD + row + "\n")
    with pytest.raises(CorpusError, match=said) as raised:
        load_table(path)
    assert str(raised.value).startswith(str(path))


def test_the_other_bad_rows_are_counted_and_listed(folder):
    path = table(folder, GOOD + "5,dog,xx,a,\n6,dog,xx,b,\n7,dog,xx,c,\n")
    with pytest.raises(CorpusError, match=r"line 5: .*\(and 2 more: line 6, line 7\)"):
        load_table(path)


def test_formats_without_header_count_from_one(folder):
    path = table(folder, json.dumps({"id": 1, "group": "a", "lang": "xx", "text": "t"}) + "\n", "mine.jsonl")
    with pytest.raises(CorpusError, match="mine.jsonl, line 1: unknown language"):
        load_table(path)


def test_parquet_rows_count_from_one(folder):
    pd.DataFrame({"id": [1], "group": ["a"], "lang": ["xx"], "text": ["t"]}).to_parquet(folder / "mine.parquet")
    with pytest.raises(CorpusError, match="mine.parquet, row 1: unknown language"):
        load_table(folder / "mine.parquet")


def test_not_utf8_is_said(folder):
    (folder / "mine.csv").write_bytes("id,group,text,lang\n1,a,größe,de\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="mine.csv, line 2: not UTF-8"):
        load_table(folder / "mine.csv")


def test_unpaired_groups_on_request(folder):
    path = table(folder, GOOD + "5,cat,en,cat,\n6,cow,en,cow,\n")
    with pytest.raises(CorpusError, match=r"2 group.s. .*: cat, cow; .*\(and 1 more: line 6\)"):
        load_table(path)
    assert len(load_table(path, allow_unpaired=True)) == 5


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("id,lang,text\n1,en,a\n", "mine.csv", "column 'group' is missing; it has id, lang, text; rename yours"),
        ("id,group\n1,a\n", "mine.csv", "column 'text' is missing"),
        ("id,group,text\n", "mine.csv", "the table has no rows"),
        ("id,group,text,text\n1,a,b,c\n", "mine.csv", "line 1: column 'text' occurs twice"),
        ("id;group\n1;a\n", "mine.csv", "column 'group' is missing; it has id;group; rename"),
        ("", "mine.csv", "the file is empty; its first line names the columns"),
        ("{no json", "mine.jsonl", "line 1: not JSON"),
        ("[1]", "mine.jsonl", "line 1: a row is an object"),
        ("x", "mine.xlsx", "a table is one of .csv, .tsv, .jsonl, .parquet"),
        ("id,group,text,lang\n1,a,one,en\n2,a,two,en,three,four\n", "mine.csv", "line 3: 6 cells where the header has 4"),
        ('id,group,text,lang\n1,a,"two\nlines",en\n2,a,x\n', "mine.csv", "line 4: 3 cells where the header has 4"),
        ('id,group,text,lang\n1,a,"open', "mine.csv", "line 2: a quote opens or closes in the wrong place"),
    ],
)
def test_bad_tables_are_named(folder, text, name, said):
    with pytest.raises(CorpusError, match=said):
        load_table(table(folder, text, name))


def test_no_such_table(folder):
    with pytest.raises(CorpusError, match="mine.csv: no such file"):
        load_table(folder / "mine.csv")
    for name in ("mine.csv", "mine"):
        (folder / name).mkdir()
        with pytest.raises(CorpusError, match=f"{name}: a folder; name the table in it"):
            load_table(folder / name)


def test_no_such_folder_of_pictures(folder):
    with pytest.raises(CorpusError, match="pictures: no such folder of pictures"):
        load_table(table(folder, "group,lang,text\na,en,x\na,sw,y\n"), images=folder / "pictures")


@pytest.mark.parametrize("column", ["id", "group", "lang", "text", "image"])
def test_a_cell_with_several_values_is_no_text_of_its_own(folder, column):
    rows = [{"id": "1", "group": "a", "lang": "en", "text": "x"}, {"id": "2", "group": "a", "lang": "sw", "text": "y"}]
    rows[1][column] = ["one", "two"]
    path = table(folder, "\n".join(json.dumps(row) for row in rows), "mine.jsonl")
    with pytest.raises(CorpusError, match=f"mine.jsonl, line 2: '{column}' holds several values; make a row of each"):
        load_table(path)
    if column == "text":
        pd.DataFrame({"group": ["a", "a"], "lang": ["en", "sw"], "text": [["x", "z"], ["y"]]}).to_parquet(folder / "m.parquet")
        with pytest.raises(CorpusError, match=r"m.parquet, row 1: 'text' holds several values.*\(and 1 more: row 2\)"):
            load_table(folder / "m.parquet")


def test_places_are_those_of_the_rows(folder):
    path = table(folder, 'group,text,image,lang\na,"two\nlines",dog.png,sw\na,,dog.png,\n')
    where = places(path)
    assert [where[row] for row in load_table(path).rows.id] == ["line 2", "line 4", "line 2"]


def test_by_name_and_by_language(folder):
    corpus = corpora.load("table", ["sw"], path=table(folder, GOOD))
    assert list(corpus.rows.id) == ["1", "3"]
