"""Texts with classes: SIB-200's, NusaX's and AfriSenti's tables as they are, and the faults that would be silent."""

import gzip

import pytest

from xmalign_lab import corpora
from xmalign_lab.corpus import CorpusError

HEADER = "index_id\tcategory\ttext\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def sib(root, lang, split, rows):
    return write(root / f"data/annotated/{lang}/{split}.tsv", HEADER + rows)


def test_sib200_is_parallel_and_labelled(tmp_path):
    sib(tmp_path, "eng_Latn", "train", '7\tsports\t"A ""quoted"" text."\n8\ttravel\tSays "this" too.\n')
    sib(tmp_path, "swh_Latn", "train", "8\ttravel\tPili.\n7\tsports\tKwanza.")  # another order, no last newline
    sib(tmp_path, "eng_Latn", "dev", "9\thealth\tDev.\n")
    write(tmp_path / "data/annotated/eng_Latn/labels.txt", "sports\n")
    corpus = corpora.load("sib200", root=tmp_path)
    rows = corpus.rows.set_index("id")
    assert rows.text["sib200:7:eng_Latn"] == 'A "quoted" text.' and rows.text["sib200:8:eng_Latn"] == 'Says "this" too.'
    assert rows.text["sib200:7:swh_Latn"] == "Kwanza." and rows.group["sib200:7:swh_Latn"] == "sib200:7"
    assert rows.labels["sib200:8:swh_Latn"] == {"topic": "travel"}
    assert corpora.load("sib200", ["en"], "dev", tmp_path).rows.split.tolist() == ["validation"]
    assert len(corpora.load("sib200", ["sw", "en"], "train", tmp_path / "data/annotated")) == 4, "the inner folder will do"
    with pytest.raises(CorpusError, match="no swh_Latn in split 'validation'"):
        corpora.load("sib200", ["sw", "en"], "validation", tmp_path)


def test_nusax_folders_are_names_and_other_tasks_are_not_taken(tmp_path):
    for name, text in {"javanese": "Uga.", "english": "Too.", "toba_batak": "Tong."}.items():
        write(tmp_path / f"datasets/sentiment/{name}/valid.csv", f'id,text,label\n3,"{text[:-1]}, yes\nand on.",positive\n')
    write(tmp_path / "datasets/mt/valid.csv", "a,b\n")
    write(tmp_path / "datasets/mt/english/valid.csv", "a,b\n")
    corpus = corpora.load("nusax", root=tmp_path)
    assert corpus.languages == ["bbc_Latn", "eng_Latn", "jav_Latn"] and set(corpus.rows.group) == {"nusax:3"}
    assert corpus.lookup("text")["nusax:3:jav_Latn"] == "Uga, yes\nand on."
    assert corpus.rows.labels[0] == {"sentiment": "positive"} and set(corpus.rows.split) == {"validation"}


def test_afrisenti_rows_have_no_id(tmp_path):
    write(tmp_path / "data/swa/train.tsv", "tweet\tlabel\nasante\tpositive\nasante\tneutral\n")
    write(tmp_path / "data/hau/hau_train.tsv", gzip.compress("\ufefflabel\tID\ttweet\r\nnegative\t1\tba kyau\r\n".encode()))
    write(tmp_path / "data/ary/arq_dev.tsv", "tweet\tlabel\nx\tneutral\n")  # Algerian, in Morocco's folder
    corpus = corpora.load("afrisenti", root=tmp_path)
    assert corpus.rows.groupby("lang").size().to_dict() == {"hau_Latn": 1, "swh_Latn": 2}
    assert corpus.rows.group.nunique() == 3
    assert corpus.lookup("labels")["afrisenti:swh_Latn:train:3:swh_Latn"] == {"sentiment": "neutral"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1\tsports\ta\n1\tsports\tb\n", r"line 3: index_id '1' occurs twice, first in .*train.tsv, line 2"),
        ("1\tsports\ta\n2\tsports\tb\tc\n", "line 3: 4 cells where the header has 3"),
        ("1\tsports\ta\n2\tsports\n", "line 3: 2 cells where the header has 3"),
        ('1\tsports\t"a\nb"\n2\tsports\n', "line 4: 2 cells"),
        ("1\tsports\ta\n2\t \tb\n", "line 3: 'category' is empty"),
        ("\tsports\ta\n", "line 2: 'index_id' is empty"),
        ('1\tsports\ta\n2\tsports\t"b\n3\tsports\tc\n', "line 3: a quote opens or closes in the wrong place"),
        ('1\tsports\ta\n2\tsports\t"b\n3\tsports\tc"\n4\tsports\td\n', "line 3: a quote that opens here swallows"),
        ('1\tsports\t"a" b\n', "line 2: a quote opens or closes in the wrong place"),
    ],
)
def test_bad_records_are_named_by_file_and_line(tmp_path, rows, said):
    sib(tmp_path, "eng_Latn", "train", rows)
    with pytest.raises(CorpusError, match=rf"eng_Latn/train.tsv, {said}"):
        corpora.load("sib200", root=tmp_path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("index_id\ttext\n", "line 1: needs one column 'category'; it has index_id, text"),
        ("index_id\ttext\ttext\tcategory\n", "line 1: column 'text' occurs twice"),
        ("", "the file is empty"),
    ],
)
def test_headers_must_name_the_columns(tmp_path, header, said):
    write(tmp_path / "eng_Latn/train.tsv", header)
    with pytest.raises(CorpusError, match=said):
        corpora.load("sib200", root=tmp_path)


def test_an_item_in_two_splits_is_refused(tmp_path):
    sib(tmp_path, "eng_Latn", "train", "1\tsports\ta\n")
    sib(tmp_path, "eng_Latn", "test", "1\tsports\ta\n")
    with pytest.raises(CorpusError, match=r"train.tsv, line 2: index_id '1' occurs twice, first in .*test.tsv, line 2"):
        corpora.load("sib200", root=tmp_path)


def test_languages_must_agree_on_the_label(tmp_path):
    sib(tmp_path, "eng_Latn", "train", "1\tsports\ta\n")
    sib(tmp_path, "swh_Latn", "train", "1\ttravel\tb\n")
    with pytest.raises(CorpusError, match=r"swh_Latn.*line 2: index_id '1' is 'travel', but 'sports' in .*eng_Latn.*line 2"):
        corpora.load("sib200", root=tmp_path)


def test_records_without_text_are_left_out_and_said(tmp_path):
    sib(tmp_path, "eng_Latn", "train", "1\tsports\t \n\n2\tsports\tb\n")
    with pytest.warns(UserWarning, match="sib200: 1 row.*train.tsv, line 2"):
        assert corpora.load("sib200", root=tmp_path).rows.text.tolist() == ["b"]


def test_an_unknown_folder_is_named(tmp_path):
    sib(tmp_path, "eng_Latn", "train", "1\tsports\ta\n")
    sib(tmp_path, "xyz_Latn", "train", "1\tsports\ta\n")
    with pytest.raises(CorpusError, match=r"xyz_Latn/train.tsv: unknown language code 'xyz_Latn'"):
        corpora.load("sib200", root=tmp_path)
