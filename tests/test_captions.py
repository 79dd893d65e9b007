"""Captioned pictures: every published layout, what is odd in real files, and what would be wrong in silence."""

import gzip
import json
import os
import warnings

import pytest
from PIL import Image

from xmalign_lab import corpora
from xmalign_lab.corpora import captions, lines
from xmalign_lab.corpus import CorpusError, concatenate
from xmalign_lab.encoders.classic import ClassicImage

A, B, C = "1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg", "1002674143_1b742ab4b8.jpg"
COCO = "COCO_val2014_000000391895.jpg", "COCO_train2014_000000000036.jpg"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text if isinstance(text, str | bytes) else json.dumps(text, ensure_ascii=False)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts(corpus, **conditions):
    return corpus.where_rows(modality="text", **conditions).rows.text.tolist()


def token(*names, captions=2):
    return "".join(f"{name}#{n}\t{name[:4]} caption {n} .\n" for name in names for n in range(captions))


def karpathy(**splits):
    """dataset_NAME.json: a picture per split and caption."""
    return {
        "dataset": "flickr8k",
        "images": [
            {"filename": name, "imgid": n, "split": split, "sentids": [n], "sentences": [{"raw": f"{split} {n}", "tokens": []}]}
            for n, (name, split) in enumerate(splits.items())
        ],
    }


def coco(names=COCO, captions=2, **more):
    notes = [
        {"image_id": n, "id": 10 * n + k, "caption": f"caption {k} of {n}"} | more
        for n, _ in enumerate(names)
        for k in range(captions)
    ]
    return {"info": {}, "images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": notes[::-1]}


# Flickr


def test_flickr_in_four_layouts_says_the_same(tmp_path):
    write(tmp_path / "token/Flickr8k.token.txt", token(A, B))
    write(tmp_path / "kaggle/captions.txt", f'image,caption\n{A},1000 caption 0 .\n{A},"1000 caption 1 ."\n{B},x\n{B},"y, z"\n')
    write(tmp_path / "json/dataset_flickr8k.json", karpathy(**{A: "train", B: "test"}))
    write(
        tmp_path / "pipes/results.csv", f"image_name| comment_number| comment\n{A}| 0| one\n{A}| 1   two\n{B}| 0| three | four\n"
    )
    token_file, kaggle, entries = (corpora.load("flickr8k", root=tmp_path / one) for one in ("token", "kaggle", "json"))
    pipes = corpora.load("flickr30k", ["en"], root=tmp_path / "pipes")
    assert texts(token_file) == ["1000 caption 0 .", "1000 caption 1 .", "1001 caption 0 .", "1001 caption 1 ."]
    assert texts(kaggle) == ["1000 caption 0 .", "1000 caption 1 .", "x", "y, z"]
    assert texts(entries) == ["train 0", "test 1"] and texts(entries, split="test") == ["test 1"]
    assert texts(pipes) == ["one", "two", "three | four"], "a line of the real file lacks its second |"
    for corpus in (token_file, kaggle, entries, pipes):
        assert set(corpus.rows.group) == {"flickr:1000268201", "flickr:1001773457"}, "one picture, whatever the source"
        pictures = corpus.where_rows(modality="image").rows
        assert [path.rsplit("/", 1)[1] for path in pictures.image] == [A, B] and set(pictures.kind) == {"picture"}
        assert corpus.languages == ["eng_Latn"] and corpus.rows.id.is_unique
    assert len(concatenate([token_file, kaggle, pipes], "all")) == 6 + 6 + 5, "their ids do not meet"


def test_lists_of_pictures_split_a_token_file(tmp_path):
    write(tmp_path / "Flickr8k.token.txt", token(A, B, C, "2258277193_586949ec62.jpg.1"))
    for part, name in (("train", A), ("dev", B), ("test", C)):
        write(tmp_path / f"Flickr_8k.{part}Images.txt", name + "\r\n")
    corpus = corpora.load("flickr8k", root=tmp_path)
    assert dict(zip(corpus.rows.group, corpus.rows.split, strict=True)) == {
        "flickr:1000268201": "train",
        "flickr:1001773457": "validation",
        "flickr:1002674143": "test",
        "flickr:2258277193": "",  # of the real file, in no list
    }
    assert texts(corpora.load("flickr8k", None, "dev", root=tmp_path)) == ["1001 caption 0 .", "1001 caption 1 ."]
    write(tmp_path / "Flickr_8k.trainImages.txt", f"{A}\n{C}\n")
    with pytest.raises(CorpusError, match=r"Flickr_8k\.\w+Images.txt, line \d: picture '1002674143_1b742ab4b8' is in \w+ too"):
        corpora.load("flickr8k", root=tmp_path)
    write(tmp_path / "Flickr_8k.trainImages.txt", f"{A}\n99_ab.jpg\n")
    with pytest.raises(CorpusError, match=r"trainImages.txt, line 2: picture '99_ab' has no caption in .*token.txt"):
        corpora.load("flickr8k", root=tmp_path)


def test_flickr30k_entities_lists_name_pictures_without_their_ending(tmp_path):
    write(tmp_path / "results_20130124.token", token("1000092795.jpg", "10002456.jpg"))
    write(tmp_path / "train.txt", "1000092795\n")
    write(tmp_path / "test.txt", "10002456\n")
    assert texts(corpora.load("flickr30k", split="test", root=tmp_path)) == ["1000 caption 0 .", "1000 caption 1 ."]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{A}#0\tagain", "line 3: '1000268201_693b08cb0e.jpg' has two captions 0"),
        ("a caption alone", "line 3: a line is like dog.jpg#0<TAB>a dog runs"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, said):
    write(tmp_path / "Flickr8k.token.txt", token(A) + line + "\n")
    with pytest.raises(CorpusError, match=said):
        corpora.load("flickr8k", root=tmp_path)


def test_captions_without_text_are_left_out_with_their_line(tmp_path):
    write(tmp_path / "Flickr8k.token.txt", token(A) + f"{A}#2\t \n")
    with pytest.warns(UserWarning, match=r"1 row\(s\) without text left out: .*token.txt, line 3"):
        assert len(texts(corpora.load("flickr8k", root=tmp_path))) == 2


# Beside a list of pictures


def multi30k(root, split="train", names=(A, B), **texts):
    for lang, said in texts.items():
        write(root / f"data/task1/raw/{split}.{lang}.gz", gzip.compress("".join(f"{one}\n" for one in said).encode()))
    write(root / f"data/task1/image_splits/{split}.txt", "".join(f"{name}\n" for name in names))


def test_multi30k_of_both_tasks_and_forms(tmp_path):
    multi30k(tmp_path, en=("a dog", "a cat"), de=("ein Hund", "eine Katze"))
    multi30k(tmp_path, "test_2016_flickr", [C], en=["a bird"], de=["ein Vogel"], fr=["un oiseau"])
    multi30k(tmp_path, "test_2017_mscoco", [f"{COCO[0]}#367178"], de=["ein Motorrad"])
    write(tmp_path / "data/task1/tok/train.lc.norm.tok.de", "ein hund\neine katze\n")
    for n in range(1, 6):
        for split, said in (("train", f"five {n} a\nfive {n} b\n"), ("val", f"val {n}\n")):
            write(tmp_path / f"data/task2/raw/{split}.{n}.en.gz", gzip.compress(said.encode()))
    write(tmp_path / "data/task2/image_splits/train_images.txt", f"{B}\n{A}\n")
    corpus = corpora.load("multi30k", root=tmp_path)
    assert len(corpus) == 4 + 8 and set(corpus.rows.split) == {"train", "test", "test_2017_mscoco"}
    assert set(texts(corpus, group="flickr:1001773457")) == {"a cat", "eine Katze"}
    assert texts(corpus, group="coco:391895") == ["ein Motorrad"], "its group is that of COCO"
    assert texts(corpora.load("multi30k", ["fr"], "test", root=tmp_path)) == ["un oiseau"]
    tokenised = corpora.load("multi30k", root=tmp_path, version="task1_tok")
    assert texts(tokenised) == ["ein hund", "eine katze"] and tokenised.rows.source.unique() == ["multi30k:task1_tok"]
    with pytest.warns(UserWarning, match="no list names the pictures of 'validation'; its captions have groups only"):
        second = corpora.load("multi30k", root=tmp_path, version="task2")
    assert texts(second, group="flickr:1001773457") == [f"five {n} a" for n in range(1, 6)]
    assert texts(second, group="multi30k:task2:validation:1") == [f"val {n}" for n in range(1, 6)]
    assert len(second.where_rows(modality="image")) == 2
    with pytest.raises(CorpusError, match="multi30k: no version 'task3'; here are 'task1', 'task1_tok', 'task2'"):
        corpora.load("multi30k", root=tmp_path, version="task3")


def test_files_that_do_not_fit_their_list_are_named_with_the_line(tmp_path):
    multi30k(tmp_path, en=("a dog", "a cat"), de=("ein Hund",))
    with pytest.raises(CorpusError, match=r"train.de.gz, line 2: the file has 1 lines where .*image_splits/train.txt has 2"):
        corpora.load("multi30k", root=tmp_path)
    multi30k(tmp_path, names=(A, A), en=("a dog", "a cat"), de=("ein Hund", "x"))
    with pytest.raises(CorpusError, match=r"train.\w\w.gz, line 2: '1000268201_693b08cb0e' is there twice, as in .*, line 1"):
        corpora.load("multi30k", root=tmp_path)
    multi30k(tmp_path, en=("a dog", "a cat"), de=("ein Hund", "x"))
    multi30k(tmp_path / "more", "val", [B], en=["a cat again"])
    with pytest.raises(CorpusError, match=r"val.en.gz, line 1: '1001773457_\w+' is in split 'validation' here, in 'train'"):
        corpora.load("multi30k", root=tmp_path)
    write(tmp_path / "copy/task1/raw/train.de", "ein Hund\nx\n")
    with pytest.raises(CorpusError, match="is there twice"):
        corpora.load("multi30k", ["de"], root=tmp_path)


def test_xtd_and_flickr200_with_their_odd_codes_and_folders(tmp_path):
    write(tmp_path / "x/XTD10/test_image_names.txt", "\n".join(COCO) + "\n")
    write(tmp_path / "x/XTD10/test_1kcaptions_en.txt", "one\ntwo\n")
    write(tmp_path / "x/XTD10/test_1kcaptions_ko.txt", "하나\n둘")  # no last newline
    write(tmp_path / "x/STAIR/test_1kcaptions_jp.txt", "一\n二\n")
    ten = corpora.load("xtd10", root=tmp_path / "x")
    assert ten.languages == ["eng_Latn", "jpn_Jpan", "kor_Hang"] and texts(ten, lang="kor_Hang") == ["하나", "둘"]
    assert texts(ten, group="coco:391895") == ["一", "one", "하나"] and set(ten.rows.split) == {"test"}
    write(tmp_path / "y/swh_Latn.txt", "moja\nmbili\n")
    write(tmp_path / "y/test_image_names.txt", "\n".join(COCO) + "\n")
    assert set(corpora.load("xtd200", ["sw"], root=tmp_path / "y").rows.group) == set(ten.rows.group)
    write(tmp_path / "z/sin_Sinh.txt", "එක\n")
    write(tmp_path / "z/filenames.txt", "1007129816.jpg\n")
    assert corpora.load("flickr30k_200", root=tmp_path / "z").rows.group.unique() == ["flickr:1007129816"]
    with pytest.raises(CorpusError, match="xtd200: no tam_Taml; there are swh_Latn"):
        corpora.load("xtd200", ["ta"], root=tmp_path / "y")


# JSON


def test_coco_and_its_family_meet_in_their_groups(tmp_path):
    write(tmp_path / "coco/annotations/captions_val2014.json", coco(COCO[:1]))
    write(tmp_path / "coco/annotations/captions_train2014.json", coco(COCO[1:]))
    write(tmp_path / "stair/stair_captions_v1.2_val.json", coco(COCO[:1], 1))
    write(tmp_path / "stair/stair_captions_v1.2_val_tokenized.json", coco(COCO[:1], 1, tokenized_caption="一 匹"))
    both = corpora.load("coco", root=tmp_path / "coco")
    assert both.where_rows(modality="image").lookup("split") == {
        "coco:2014:COCO_train2014_000000000036": "train",
        "coco:2014:COCO_val2014_000000391895": "validation",
    }
    assert texts(both, group="coco:391895") == ["caption 1 of 0", "caption 0 of 0"], "in the order of the file"
    stair = corpora.load("stair", ["ja"], root=tmp_path / "stair")
    assert set(stair.rows.group) == {"coco:391895"} and stair.languages == ["jpn_Jpan"]
    spoken = corpora.load("stair", root=tmp_path / "stair", version="tokenized").rows
    assert spoken.labels.iloc[-1] == {"tokenized_caption": "一 匹"}
    write(tmp_path / "coco/dataset_coco.json", karpathy(**{COCO[0]: "restval", COCO[1]: "test"}))
    assert corpora.load("coco", root=tmp_path / "coco").rows.split.tolist() == ["train", "test", "train", "test"]
    write(tmp_path / "coco/annotations/captions_val2017.json", coco(["000000391895.jpg"]))
    assert corpora.load("coco", root=tmp_path / "coco", version="2017").rows.group.unique() == ["coco:391895"]


def test_coco_cn_as_it_is_found(tmp_path):
    data = coco(captions=1, source="zhm")
    for note in data["annotations"]:
        note["id"] = 0  # of the real file: it numbers the captions of a picture
    write(tmp_path / "a/captions.json", data)
    corpus = corpora.load("coco_cn", root=tmp_path / "a")
    assert (
        corpus.languages == ["zho_Hans"]
        and corpus.rows.labels.iloc[-1] == {"source": "zhm"}
        and set(corpus.rows.split) == {"test"}
    )
    write(tmp_path / "b/coco-cn_ext.icap2020.txt", "COCO_val2014_000000391895#0\t一个男人\nCOCO_val2014_000000391895#1\t摩托车\n")
    assert texts(corpora.load("coco_cn", root=tmp_path / "b"), group="coco:391895") == ["一个男人", "摩托车"]
    write(tmp_path / "c/imageid.human-written-caption.txt", "".join(f"{name[:-4]}#0\t描述\n" for name in COCO))
    write(tmp_path / "c/imageid.manual-translated-caption.txt", f"{COCO[0][:-4]}#0\t翻译\n")
    for split, name in (("train", COCO[1]), ("test", COCO[0])):
        write(tmp_path / f"c/coco-cn_{split}.txt", name[:-4] + "\n")
    assert texts(corpora.load("coco_cn", split="train", root=tmp_path / "c")) == ["描述"]
    assert texts(corpora.load("coco_cn", split="test", root=tmp_path / "c", version="translated")) == ["翻译"]


def change(data, **parts):
    return data | {name: make(data[name]) for name, make in parts.items()}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            change(coco(), annotations=lambda notes: notes + [notes[0] | {"image_id": 7}]),
            "annotation 5: image_id 7 is no picture",
        ),
        (change(coco(), annotations=lambda notes: notes + [notes[0]]), "annotation 5: image_id 1 has caption 11 twice"),
        (change(coco(), annotations=lambda notes: notes[:2]), "entry 1: 'COCO_val2014_000000391895' has no caption"),
        (change(coco(), images=lambda images: images + images[:1]), "1 ids of pictures are there twice"),
        (change(coco(), images=lambda images: [{"id": 0}, {"id": 1}][:1] + images[1:]), None),
        (change(coco((COCO[0], COCO[0]))), "entry 2: 'COCO_val2014_000000391895' is there twice, as in .*, entry 1"),
        (change(coco(), annotations=lambda notes: [{"image_id": 0}]), r"no captions as COCO.*KeyError\('id'\)"),
        ({"pictures": []}, r"no captions as COCO, Karpathy, MSR-VTT or VATEX write them \(KeyError\('images'\)\)"),
        ('{"images": [\n', "captions_val2014.json, line 2: not JSON"),
    ],
)
def test_json_that_cannot_be_used_is_named(tmp_path, data, said):
    path = write(tmp_path / "captions_val2014.json", data)
    if said is None:
        assert len(corpora.load("coco", root=tmp_path)) == 6
        return
    with pytest.raises(CorpusError, match=said) as raised:
        corpora.load("coco", root=tmp_path)
    assert str(raised.value).startswith(str(path))


# XM3600


def xm3600(root, *keys, codes=("en", "sw", "quz"), **more):
    rows = [
        {"image/key": key, "image/locale": "sw"}
        | {code: {"caption": [f"{code} {key} {n}" for n in range(2)], "caption/tokenized": ["x"]} for code in codes}
        for key in keys
    ]
    rows[-1] |= more
    return write(root / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def test_xm3600_in_every_language_or_some(tmp_path):
    xm3600(tmp_path, "000411001ff7dd4f", "0000391895")
    corpus = corpora.load("xm3600", root=tmp_path)
    assert corpus.languages == ["eng_Latn", "que_Latn", "swh_Latn"] and len(corpus) == 2 + 12
    assert texts(corpus, lang="que_Latn", group="xm3600:0000391895") == ["quz 0000391895 0", "quz 0000391895 1"]
    assert texts(corpora.load("xm3600", ["sw"], root=tmp_path))[0] == "sw 000411001ff7dd4f 0"
    assert corpora.load("xm3600", ["sw"], "test", root=tmp_path).rows.id.iloc[-1] == "xm3600:0000391895#1:swh_Latn"


@pytest.mark.parametrize(
    ("more", "languages", "said"),
    [
        ({"sw": {"caption": []}}, None, "line 2: .*no caption in sw"),
        ({"image/key": "aa"}, None, "line 2: 'aa' is there twice, as in .*, line 1"),
        ({"fr": {"caption": ["un"]}}, ["sw"], "line 2: .*no caption in fr"),
        ({}, ["si"], "no sin_Sinh in split None; it has eng_Latn test, que_Latn test, swh_Latn test"),
        ({"sw": ["plain"]}, None, "line 2: not a picture of XM3600"),
    ],
)
def test_xm3600_rows_that_cannot_be_used_are_named(tmp_path, more, languages, said):
    path = xm3600(tmp_path, "aa", "bb", **more)
    with pytest.raises(CorpusError, match=said):
        corpora.load("xm3600", languages, root=tmp_path)
    first = path.read_text().splitlines()[0]
    write(path, first + "\n\n")
    assert corpora.load("xm3600", root=tmp_path).languages[0] == "eng_Latn"


def test_xm3600_in_a_language_that_the_project_lacks(tmp_path):
    xm3600(tmp_path, "aa", codes=("en", "xx"))
    with pytest.raises(CorpusError, match="line 1: .*unknown language code 'xx'; leave it out"):
        corpora.load("xm3600", root=tmp_path)
    assert texts(corpora.load("xm3600", ["en"], root=tmp_path)) == ["en aa 0", "en aa 1"]


def test_xm3600_rows_without_a_language_of_the_others_are_named(tmp_path):
    path = xm3600(tmp_path, "aa", "bb")
    first, second = map(json.loads, path.read_text().splitlines())
    del second["sw"]
    write(path, json.dumps(first) + "\n" + json.dumps(second) + "\n")
    with pytest.raises(CorpusError, match="line 2: .*no caption in sw"):
        corpora.load("xm3600", ["en"], root=tmp_path)


# Videos


def test_vatex_of_people_of_machines_and_of_its_own_site(tmp_path):
    ids = "sf2PPeXQrUA_000000_000010", "sf2PPeXQrUA_000020_000030"
    folder = tmp_path / "VisualSearch/vatex/TextData"
    write(folder / "vatexval.caption.txt", "".join(f"{one}#enc#{n} a man {n}\n" for one in ids for n in range(2)))
    write(folder / "vatexval_zh.caption.txt", f"{ids[1]}#zh#0 一个人\n{ids[0]}#zh#0 男人\n")
    write(folder / "vatexval_google_enc2zh.caption.txt", f"{ids[0]}#enc2zh#0 一个男人\n")
    corpus = corpora.load("vatex", root=tmp_path)
    assert set(corpus.where_rows(modality="image").rows.kind) == {"video"} and corpus.rows.split.unique() == ["validation"]
    assert texts(corpus, group=f"vatex:{ids[0]}") == ["a man 0", "a man 1", "男人"]
    assert corpus.rows.family.unique() == ["vatex:sf2PPeXQrUA"], "clips of one film never part"
    google = corpora.load("vatex", ["zh"], root=tmp_path, version="google")
    assert texts(google) == ["一个男人"] and google.rows.source.unique() == ["vatex:google"]
    rows = [{"videoID": ids[0], "enCap": ["one", "two"], "chCap": ["一"]}]
    write(tmp_path / "site/vatex_training_v1.0.json", rows)
    write(tmp_path / "site/vatex_public_test_english_v1.1.json", [{"videoID": ids[1], "enCap": ["three"]}])
    site = corpora.load("vatex", root=tmp_path / "site")
    assert texts(site, split="train") == ["one", "two", "一"] and texts(site, split="test") == ["three"]
    assert texts(corpora.load("vatex", ["zh"], "train", root=tmp_path / "site")) == ["一"]
    with pytest.raises(CorpusError, match="no zho_Hans in split 'test'; it has eng_Latn test"):
        corpora.load("vatex", ["zh"], "test", root=tmp_path / "site")


def test_msrvtt_of_mlcmr_and_of_the_challenge(tmp_path):
    write(tmp_path / "a/msrvtt10kyutest_zh.caption.txt", "video9770#zh#0 一个人\n")
    write(tmp_path / "a/msrvtt10kyutest.caption.txt", "video9770#enc#0 a person\nvideo9770#enc#1 someone\n")
    assert texts(corpora.load("msrvtt", root=tmp_path / "a")) == ["a person", "someone", "一个人"]
    videos = [{"video_id": f"video{n}", "id": n, "split": split} for n, split in enumerate(("train", "validate"))]
    said = [{"caption": f"caption {n}", "video_id": f"video{n % 2}", "sen_id": n} for n in range(4)]
    write(tmp_path / "b/train_val_videodatainfo.json", {"info": {}, "videos": videos, "sentences": said})
    corpus = corpora.load("msrvtt", root=tmp_path / "b")
    assert texts(corpus, split="validation") == ["caption 1", "caption 3"] and set(corpus.rows.group) == {
        "msrvtt:video0",
        "msrvtt:video1",
    }


# Pictures


def test_pictures_are_found_in_any_folder_and_missing_ones_say_how(tmp_path):
    write(tmp_path / "set/Flickr8k.token.txt", token(A, B))
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    Image.new("RGB", (4, 3), "red").save(tmp_path / "elsewhere/deep" / A)
    with pytest.warns(UserWarning, match=f"flickr8k:token: 1 of 2 pictures are not in .*elsewhere, {B} for one"):
        corpus = corpora.load("flickr8k", root=tmp_path / "set", images=tmp_path / "elsewhere")
    first, second = corpus.where_rows(modality="image").ids
    assert corpus.picture(first).size == (4, 3)
    with pytest.raises(CorpusError, match=f"{B}: this picture of flickr8k is not here; you need the pictures"):
        corpus.picture(second)


def test_missing_pictures_are_counted_at_once_and_do_not_bother_who_reads_texts(tmp_path):
    write(tmp_path / "Flickr8k.token.txt", token(A, B, C))
    assert len(corpora.load("flickr8k", root=tmp_path).where_rows(modality="image")) == 3, "no picture is there: no warning"
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="3 of 3 pictures are not in .*empty, .* for one, and cannot be encoded"):
        corpora.load("flickr8k", root=tmp_path, images=tmp_path / "empty")
    write(tmp_path / "Flicker8k_Dataset" / A, "no picture")
    with pytest.warns(UserWarning, match="2 of 3 pictures are not in") as said:
        corpus = corpora.load("flickr8k", root=tmp_path)
    with pytest.raises(CorpusError, match=rf"{B}: this picture of flickr8k is not here.* \(2 of 3 pictures are missing\)"):
        ClassicImage().encode(corpus, progress=False)  # and not that the first cannot be read, which would be later
    smaller = eval(str(said[0].message).rsplit("To go on without: ")[1], {"os": os, "corpus": corpus})
    assert smaller.where_rows(modality="image").rows.image.tolist() == [str(tmp_path / "Flicker8k_Dataset" / A)]
    assert texts(smaller) == texts(corpus)


# ImageNet's classes


def babel(root, prompts=True, **named):
    write(root / "babel_imagenet.json", named)
    if prompts:
        write(root / "nllb_dist13b_prompts.json", {code: ["picha ya {}.", "{} mbaya"] for code in named})


def test_babel_imagenet_names_and_prompts(tmp_path):
    babel(
        tmp_path,
        SW=[[1, 999], ["samaki", "karatasi"]],
        SI=[[1], ["මාළු"]],
        ALS=[[1], ["Fisch"]],
        KU=[[1], ["masî"]],
        KMR=[[1], ["x"]],
    )
    for number in range(1000):
        (tmp_path / f"val/n{number:08}").mkdir(parents=True)
    for number, name in ((1, "ILSVRC2012_val_00000262.JPEG"), (1, "ILSVRC2012_val_00000307.JPEG"), (7, "ILSVRC2012_val_7.JPEG")):
        Image.new("RGB", (2, 2)).save(tmp_path / f"val/n{number:08}" / name, "JPEG")
    names = corpora.load("babel_imagenet", ["sw", "si"], root=tmp_path)
    assert texts(names) == ["samaki", "karatasi", "මාළු"] and set(names.rows.kind) == {"name", "picture"}
    pictures = names.where_rows(modality="image").rows
    assert pictures.group.tolist() == ["imagenet:1"] * 2, "pictures of classes that nobody named are not wanted"
    assert names.rows.labels.iloc[-1] == {"class": 1, "name": "මාළු"} and names.picture(pictures.id.iloc[0]).size == (2, 2)
    prompts = corpora.load("babel_imagenet", ["sw"], root=tmp_path, prompts=True)
    assert texts(prompts, group="imagenet:999") == ["picha ya karatasi.", "karatasi mbaya"]
    everything = corpora.load("babel_imagenet", root=tmp_path)
    assert everything.languages == ["gsw_Latn", "kmr_Latn", "sin_Sinh", "swh_Latn"]
    assert texts(everything, lang="kmr_Latn") == ["masî"], "KMR is the same language and stands aside"


@pytest.mark.parametrize(
    ("named", "options", "said"),
    [
        ({"SW": [[1, 2], ["samaki"]]}, {}, "swh_Latn has 1 names for 2 classes"),
        ({"SW": [[1, 1], ["samaki", "x"]]}, {}, "2 names for 1 classes"),
        ({"SW": [[1000], ["samaki"]]}, {}, "1 names for 1 classes; one each, of 0 to 999"),
        ({"SI": [[1], ["x"]]}, {}, "babel_imagenet.json: nothing in swh_Latn; it has sin_Sinh"),
        ({"SW": [[1], ["samaki"]]}, {"prompts": True}, "nllb_dist13b_prompts.json: cannot be read"),
        ({"SW": [[1], ["samaki"]]}, {"images": "val"}, "0 folders of classes .* has 1,000"),
    ],
)
def test_babel_imagenet_that_cannot_be_used_is_named(tmp_path, named, options, said):
    babel(tmp_path, prompts=False, **named)
    with pytest.raises(CorpusError, match=said):
        corpora.load("babel_imagenet", ["sw"], root=tmp_path, **options)


def test_a_prompt_without_a_place_and_an_unknown_language(tmp_path):
    babel(tmp_path, SW=[[1], ["samaki"]], ZH_MIN_NAN=[[1], ["x"]])
    with pytest.warns(UserWarning, match="1 unknown languages left out: ZH_MIN_NAN"):
        assert corpora.load("babel_imagenet", root=tmp_path).languages == ["swh_Latn"]
    write(tmp_path / "nllb_dist13b_prompts.json", {"SW": ["picha"]})
    with pytest.raises(CorpusError, match="a prompt in swh_Latn needs one {}, where the name goes: 'picha'"):
        corpora.load("babel_imagenet", ["sw"], root=tmp_path, prompts=True)


# The table of sources


def test_every_layout_has_a_reader_and_versions_of_a_source_differ():
    for name, source in lines.sources().items():
        versions = [layout["version"] for layout in source.layouts]
        assert len(set(versions)) == len(versions), name
        if source.reader.startswith("captions."):
            card = corpora.cards()[name]
            assert hasattr(captions, source.reader.split(".")[1]) and card["pictures"] and source.pictures
            assert all(layout["folder"] == source.folder for layout in source.layouts)


def test_no_card_of_a_folder_is_read_as_captions(tmp_path):
    write(tmp_path / "LICENCE_NOTE.txt", "From github\n")
    write(tmp_path / "README.md", "x\n")
    with warnings.catch_warnings(), pytest.raises(CorpusError, match="holds no files of xtd200; copy the folder"):
        warnings.simplefilter("error")
        corpora.load("xtd200", root=tmp_path)
