"""What leaks: each kind planted once, among rows that do not leak."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from xmalign_lab import cli
from xmalign_lab.corpora.check import check_table, difference_hash
from xmalign_lab.corpus import Corpus


def picture(seed: int) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((64, 64), Image.Resampling.BICUBIC)


def corpus(rows, folder=None) -> Corpus:
    return Corpus(pd.DataFrame(rows), name="mine")


def text(row_id, group, said, split="", lang="eng_Latn", **more):
    return {"id": row_id, "group": group, "text": said, "lang": lang, "split": split, **more}


def image(row_id, group, path, split=""):
    return {"id": row_id, "group": group, "image": str(path), "split": split}


def found(corpus, leak):
    table = check_table(corpus)
    return {(row.a, row.b) for row in table[table.leak == leak].itertuples()}


@pytest.fixture
def pictures(tmp_path):
    for seed in range(6):
        picture(seed).save(tmp_path / f"{seed}.png")
    picture(0).resize((90, 70)).save(tmp_path / "again.jpg", quality=70)
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    Image.new("RGB", (30, 30), "blue").save(tmp_path / "blue.png")
    return tmp_path


def test_a_scaled_and_recompressed_picture_in_another_split(pictures):
    rows = [image(str(seed), f"g{seed}", pictures / f"{seed}.png", "train") for seed in range(6)]
    rows += [image("again", "other", pictures / "again.jpg", "test")]
    table = check_table(corpus(rows))
    assert list(table.leak) == ["near-copy of a picture"]
    first = table.iloc[0]
    assert (first.a, first.b, first.split_a, first.split_b) == ("0", "again", "train", "test")
    assert first.distance <= 4 and "again.jpg" in first.what


def test_a_copy_within_a_split_is_no_leak(pictures):
    rows = [image("0", "g", pictures / "0.png", "train"), image("again", "h", pictures / "again.jpg", "train")]
    assert check_table(corpus(rows)).empty


def test_without_splits_families_are_compared(pictures, capsys):
    rows = [image("0", "g", pictures / "0.png"), image("again", "h", pictures / "again.jpg")]
    assert found(corpus(rows), "near-copy of a picture") == {("0", "again")}
    assert capsys.readouterr().out == (
        "mine: 2 rows compared between families (no row has a split yet): 1 × near-copy of a picture\n"
    )
    joined = corpus([{**row, "family": "f"} for row in rows])
    assert check_table(joined).empty


def test_plain_pictures_of_other_colours_are_no_copies(pictures):
    rows = [image("r", "g", pictures / "red.png", "train"), image("b", "h", pictures / "blue.png", "test")]
    assert check_table(corpus(rows)).empty


def test_near_copies_of_texts_within_a_language():
    rows = [
        text("1", "a", "A small dog runs over the green field.", "train"),
        text("2", "b", "a small  dog runs over the green fields", "test"),
        text("3", "c", "Two women drink coffee in the kitchen", "test"),
        text("4", "d", "a small dog runs over the green field", "test", lang="deu_Latn"),
    ]
    assert found(corpus(rows), "near-copy of a text") == {("1", "2")}


def test_jaccard_distance_is_that_of_trigrams():
    rows = [text("1", "a", "abcdefgh", "train"), text("2", "b", "abcdefgx", "test")]
    grams = [{f" {row['text']} "[i : i + 3] for i in range(8)} for row in rows]
    expected = 1 - len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    table = check_table(corpus(rows), text_distance=expected + 1e-9)
    assert table.distance.item() == pytest.approx(expected)
    assert check_table(corpus(rows), text_distance=expected - 1e-9).empty


def test_one_meaning_in_two_groups():
    rows = [
        text("1", "a", "red heart"),
        text("2", "b", "Red  heart"),
        text("3", "a", "red heart", kind="caption"),
        text("4", "c", "red heart", lang="deu_Latn"),
    ]
    assert found(corpus(rows), "one meaning in two groups") == {("1", "2")}


def test_a_divided_family():
    rows = [
        text("1", "a", "one", "train", family="f"),
        text("2", "b", "two and more", "test", family="f"),
        text("3", "c", "three things", "test", family="g"),
        text("4", "d", "four others here", "", family="g"),
    ]
    assert found(corpus(rows), "family divided") == {("1", "2")}


def test_blocks_give_what_one_block_gives(pictures, monkeypatch):
    from xmalign_lab.corpora import check

    rows = [image(str(k), f"g{k}", pictures / ("0.png" if k % 3 else "1.png"), "train" if k % 2 else "test") for k in range(7)]
    rows += [text(f"t{k}", f"h{k}", f"a dog runs over field {k}", "train" if k % 2 else "test") for k in range(7)]
    whole = check_table(corpus(rows))
    for name in ("_pictures", "_texts"):
        part = getattr(check, name)
        monkeypatch.setattr(check, name, lambda *given, part=part: part(*given, block=2))
    pd.testing.assert_frame_equal(check_table(corpus(rows)), whole)
    assert len(whole) > 10


def test_hash_by_hand():
    columns = np.array([0, 50, 20, 20, 90, 100, 10, 5, 200], np.uint8)
    bits, colours = difference_hash(Image.fromarray(np.tile(columns, (8, 1))))
    assert set(np.unpackbits(bits).reshape(8, 8).sum(0)) == {0, 8}
    assert list(np.unpackbits(bits)[:8]) == [1, 0, 0, 1, 1, 0, 0, 1]  # 50>0, 20<50, 20=20, 90>20, 100>90, 10<, 5<, 200>5
    assert colours.shape == (192,)
    clear, white = Image.new("RGBA", (9, 8), (0, 0, 0, 0)), Image.new("RGBA", (9, 8), "white")
    assert np.array_equal(difference_hash(clear)[1], difference_hash(white)[1])


# The command


@pytest.fixture
def checked(tmp_path, capsys, monkeypatch):
    """`xmalign check` on the lines of a table; returns its status and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*lines, **options):
        (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        status = cli.main(["check", "mine.csv", *(part for name, value in options.items() for part in (f"--{name}", value))])
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return run


def test_a_clean_table_gives_one_line(checked):
    status, said, _ = checked(
        "group,lang,text,split", "a,en,two cats,train", "a,sw,paka wawili,train", "b,en,x,test", "b,sw,y,test"
    )
    assert (status, said) == (0, ["mine.csv: 4 rows compared between splits: nothing leaks"])


def test_findings_come_first_with_file_and_line(checked):
    dog = "a small dog runs over the green field"
    status, said, _ = checked(
        "id,group,lang,text,split", f"1,a,en,{dog},train", "2,a,sw,mbwa,train", f"3,b,en,{dog}s,test", "4,b,sw,mbwa,test"
    )
    assert status == 1 and said == [
        "mine.csv, line 5: one meaning in two groups with line 3: swh_Latn 'mbwa': groups 'a', 'b'",
        f"mine.csv, line 4: near-copy of a text with line 2: {dog!r} – {dog + 's'!r}",
        "mine.csv: 4 rows compared between splits: 1 × one meaning in two groups, 1 × near-copy of a text",
    ]


@pytest.mark.parametrize("header", ["id,group,lang,text,image", "group,lang,text,image"])
def test_rows_with_text_and_picture_are_found_by_their_line(checked, pictures, header):
    own = ("7,", "8,") if header.startswith("id") else ("", "")
    status, said, _ = checked(header, f"{own[0]}a,en,two cats,0.png", f"{own[1]}b,en,two cats,again.jpg", images=str(pictures))
    assert status == 1 and [line.partition(" with line 2: ")[0] for line in said[:2]] == [
        "mine.csv, line 3: one meaning in two groups",
        "mine.csv, line 3: near-copy of a picture",
    ]


def test_many_findings_are_counted_and_the_first_shown(checked):
    rows = [f"g{k},{lang},{said}" for k in range(31) for lang, said in (("en", "a red heart"), ("sw", f"moyo {k}"))]
    status, said, _ = checked("group,lang,text", *rows)
    assert status == 1 and sum(line.startswith("mine.csv, line") for line in said) == 20
    assert said[20].startswith("… and 10 more: one meaning in two groups; xmalign_lab.corpora.check.check_table")
    assert said[21].endswith(": 30 × one meaning in two groups") and len(said) == 22


def test_bad_rows_end_the_check_with_one_line(checked):
    status, said, error = checked("group,lang,text", "a,en,x", "a,xx,y")
    assert status == 1 and said == []
    assert error.startswith("xmalign check: mine.csv, line 3: unknown language code 'xx'") and error.count("\n") == 1
