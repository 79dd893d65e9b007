"""Transfer on the published sets: published figures, each set's true format from files to table, and what must be refused."""

import dataclasses
import gzip
import json
import re
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

checkpoints = pytest.importorskip("checkpoints")

from xmalign_lab import cli, crossmodal, reproduce  # noqa: E402
from xmalign_lab.corpus import Corpus, Pairs  # noqa: E402
from xmalign_lab.encoders.features import Features  # noqa: E402
from xmalign_lab.model import Aligner, Fixed  # noqa: E402
from xmalign_lab.study import Task  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
COLOURS = {"red": ("rot", "红色", "赤い"), "green": ("grün", "绿色", "緑の"), "blue": ("blau", "蓝色", "青い")}
SHAPES = {"circle": ("Kreis", "圆", "円"), "square": ("Quadrat", "方块", "四角")}
THINGS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
ENGLISH = [f"a {colour} {shape} on white" for colour, shape in THINGS]
GERMAN = [f"ein Bild: {SHAPES[shape][0]}, {COLOURS[colour][0]}" for colour, shape in THINGS]
BLOCKS = ("M-CLIP", "CL2CM", "NRCCR")
CHINESE = [f"白底上的{COLOURS[colour][1]}{SHAPES[shape][1]}" for colour, shape in THINGS]
JAPANESE = [f"白地に{COLOURS[colour][2]}{SHAPES[shape][2]}" for colour, shape in THINGS]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = text if isinstance(text, str | bytes) else json.dumps(text, ensure_ascii=False)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def draw(path, number):
    """A coloured shape, a little elsewhere in each picture."""
    colour, shape = THINGS[number % len(THINGS)]
    picture = Image.new("RGB", (32, 32), "white")
    at = 4 + number // len(THINGS)
    getattr(ImageDraw.Draw(picture), {"circle": "ellipse", "square": "rectangle"}[shape])((at, at, at + 18, at + 18), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def said(texts, numbers, mark=""):
    return [f"{texts[n % len(texts)]}{mark} {n // len(texts)}" for n in numbers]


def as_lines(texts):
    return "".join(f"{text}\n" for text in texts)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny checkpoints: CLIP, a ViT, BERT's kin that has read the captions, and a model that translates."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "LINES", [*checkpoints.LINES, *ENGLISH, *GERMAN, *CHINESE, *JAPANESE])
        text = checkpoints.xlmr(folder / "xlmr")
    made = {name: getattr(checkpoints, name)(folder / name) for name in ("clip", "vit", "m2m100_translator")}
    return {name: str(place) for name, place in (made | {"text": text}).items()}


@pytest.fixture
def multi30k(tmp_path):
    """Multi30K, task 1: line files, packed, beside the lists of pictures; pictures by Flickr's names."""
    root, parts = tmp_path / "multi30k", {"train": range(24), "val": range(24, 26), "test_2016_flickr": range(26, 32)}
    for part, numbers in parts.items():
        names = [f"{1000 + n}_{n:010x}.jpg" for n in numbers]
        write(root / f"data/task1/image_splits/{part}.txt", as_lines(names))
        for lang, texts, mark in (("en", ENGLISH, ""), ("de", GERMAN, " (Mensch)")):
            write(root / f"data/task1/raw/{part}.{lang}.gz", as_lines(said(texts, numbers, mark)))
        for n, name in zip(numbers, names, strict=True):
            draw(root / "flickr30k-images" / name, n)
    told = tmp_path / "machine"
    write(told / "train.txt.gz", as_lines(said(GERMAN, range(24))))
    write(told / "back.txt", as_lines(said(ENGLISH, range(24), " there")))
    write(told / "test.txt", as_lines(said(ENGLISH, range(26, 32), " you see")))
    return root, told


@pytest.fixture
def coco(tmp_path):
    """COCO's captions by Karpathy, COCO-CN's test captions and STAIR's: three JSON files, pictures by COCO's names."""
    root = tmp_path / "coco"
    names = [f"COCO_val2014_{n:012}.jpg" for n in range(30)]
    splits = ["train"] * 16 + ["restval"] * 4 + ["test"] * 10

    def entry(n):
        texts = said(ENGLISH, [n]) + [f"there is {ENGLISH[n % 6]} {n}"]
        return {"filename": names[n], "split": splits[n], "sentences": [{"raw": text, "tokens": []} for text in texts]}

    def notes(texts, numbers):
        pictures = [{"id": n, "file_name": names[n]} for n in numbers]
        said_of = [{"id": 10 * n + k, "image_id": n, "caption": f"{texts[n % 6]}{n}。{k}"} for n in numbers for k in range(2)]
        return {"images": pictures, "annotations": said_of}

    write(root / "coco/dataset_coco.json", {"dataset": "coco", "images": [entry(n) for n in range(30)]})
    write(root / "coco_cn/captions.json", notes(CHINESE, [3, *range(20, 26)]))
    write(root / "stair/stair_captions_v1.2_val.json", notes(JAPANESE, range(30)))
    for n, name in enumerate(names):
        draw(root / "val2014" / name, n)
    return root


@pytest.fixture
def vatex(tmp_path):
    """VATEX as MLCMR prepares it, with its machine version, and features of frames, a file per video."""
    root, rng = tmp_path / "vatex", np.random.default_rng(0)
    videos = {
        part: [f"{part}video{n:02}_000000_00001{n % 10}" for n in range(size)] for part, size in (("train", 18), ("test", 8))
    }
    for part, names in videos.items():
        for mark, lang, texts in (("enc", "", ENGLISH), ("zh", "_zh", CHINESE)):
            rows = [f"{name}#{mark}#{k} {texts[n % 6]} {n} {k}" for n, name in enumerate(names) for k in range(2)]
            write(root / f"vatex{part}{lang}.caption.txt", as_lines(rows))
        for n, name in enumerate(names):
            look = np.eye(8, dtype=np.float32)[n % 6] + rng.normal(0, 0.1, (3 + n % 3, 8)).astype(np.float32)
            (tmp_path / "i3d").mkdir(exist_ok=True)
            np.save(tmp_path / f"i3d/{name}.npy", look)
    rows = [f"{name}#enc2zh#{k} 有{CHINESE[n % 6]}{n}{k}" for n, name in enumerate(videos["train"]) for k in range(2)]
    write(root / "vatextrain_google_enc2zh.caption.txt", as_lines(rows))
    rows = [f"{name}#zhc2en#{k} {ENGLISH[n % 6]} {k}" for n, name in enumerate(videos["test"]) for k in range(2)]
    write(root / "vatextest_google_zhc2en.caption.txt", as_lines(rows))
    return root, tmp_path / "i3d"


def transfer(models, name, target, root, out, *more):
    arguments = ["transfer", name, target, "--root", str(root), "--out", str(out), "--text-encoder", models["text"]]
    return cli.main([*arguments, "--epochs", "1", *map(str, more)])


def rows_of(out):
    return pd.read_csv(out / "figures.csv"), pd.read_csv(out / "tests.csv"), pd.read_csv(out / "seen.csv")


def made(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("DONE")}


@pytest.fixture
def here(monkeypatch):
    """Published figures for galleries of the fixtures' size."""
    tables = reproduce.contents()
    for one in tables["transfer"]:
        one["gallery"] = {"multi30k": 6, "vatex": 8}.get(one["set"], 0)
    monkeypatch.setattr(reproduce, "contents", lambda: json.loads(json.dumps(tables)))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(reproduce, "DRAWS", 500)


# What is published


def test_published_figures_add_up_and_none_is_of_a_method_whose_figures_nobody_confirmed():
    known = crossmodal.published()
    assert set(known.set) == {*crossmodal.SETS, "msrvtt"} and known.source.str.contains("commit").all()
    assert not set(known.method) & {"CL2CM", "DCOT"} and not known.published.isna().any()
    assert not known.duplicated(["set", "version", "method", "language", "measure", "image", "trained"]).any()
    by = ["set", "version", "method", "language", "image", "trained"]
    wide = known[known.measure != "average recall"].pivot(index=by, columns="measure", values="published")
    whole = wide.dropna()
    assert len(whole) == 7 and set(wide.columns) == set(reproduce.MEASURES)
    assert (whole.drop(columns="SumR").sum(axis=1) - whole.SumR).abs().max() < 0.11, "rounded once more than the sum"
    mean = known[known.measure == "average recall"].published
    assert mean.between(0, 100).all() and len(mean) == 2 * 4 * (4 + 3)
    german = crossmodal.published("multi30k", "deu_Latn")
    assert set(german.set) == {"multi30k"} and set(german.language) == {"deu_Latn"}
    assert german[(german.method == "NRCCR") & (german.measure == "SumR")].published.tolist() == [450.7, 480.9]


def test_a_figure_stands_beside_ours_only_where_set_image_encoder_and_gallery_are_the_same():
    ours = pd.DataFrame({"method": ["NRCCR", "NRCCR", "CL2CM", "pivot"], "measure": ["SumR", "image→text R@1", "SumR", "SumR"]})
    known = crossmodal.published("multi30k", "ces_Latn")

    def cells(**change):
        told = {"version": "task1", "image": "CLIP ViT-B/32", "gallery": 1000} | change
        return reproduce.beside(ours, known, told)

    same = cells()
    assert same.published[:2].tolist() == [438.7, 52.3] and same.published[2:].isna().all()
    assert same.why.tolist() == ["mean with translate-test"] * 2 + ["figures not confirmed in a primary source", "ours"]
    assert cells(image="ResNet-152").published[0] == 303.6 and cells(version="task2").published[0] == 467.1
    for change, said in (
        ({"gallery": 6}, "published with gallery 1000, not 6"),
        ({"image": "a ViT"}, "published with image CLIP ViT-B/32 or ResNet-152, not a ViT"),
        ({"version": "task2", "image": "ResNet-152"}, "published with image CLIP ViT-B/32, not ResNet-152"),
    ):
        assert np.isnan(cells(**change).published[0]) and cells(**change).why[0] == said


def test_the_command_without_a_target_lists_them(capsys):
    assert cli.main(["transfer"]) == 0
    everything = capsys.readouterr().out
    assert "450.7" in everything and "383.5" in everything and "published: CCRK: BUAADreamer/CCRK" in everything
    assert cli.main(["transfer", "vatex"]) == 0
    assert "366.5" in (some := capsys.readouterr().out) and "450.7" not in some


# Figures


def scores(seed, captions=1, pictures=12):
    rng, rows = np.random.default_rng(seed), []
    for direction, count in (("text→image", captions), ("image→text", 1)):
        rows += [
            {
                "query": f"p{n}",
                "family": f"f{n // 2}",
                "lang": "deu_Latn",
                "direction": direction,
                "rank": int(rng.integers(1, 13)),
            }
            for n in range(pictures)
            for _ in range(count)
        ]
    return pd.DataFrame(rows).assign(gallery="g", size=12)


def test_figures_are_means_over_pictures_with_intervals_and_tests_between_methods():
    found = {"a": [scores(0, 3)], "b": [scores(1, 3)], "c": [scores(0, 3)]}
    table, tests = crossmodal.figures(found)
    assert table.groupby("method").measure.agg(list).tolist() == [reproduce.MEASURES] * 3
    for name, (one,) in found.items():
        of = table[table.method == name].set_index("measure")
        for measure in reproduce.MEASURES[:6]:
            direction, k = measure.split(" R@")
            part = one[one.direction == direction]
            by_hand = [100 * (part["rank"][part["query"] == f"p{n}"] <= int(k)).mean() for n in range(12)]
            assert of.here[measure] == pytest.approx(np.mean(by_hand))
        assert of.here["SumR"] == pytest.approx(of.here[reproduce.MEASURES[:6]].sum())
        assert (of.low <= of.here).all() and (of.here <= of.high).all() and (of.low < of.high).any()
    assert tests[["method", "other"]].values.tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    ab, ac, _ = tests.itertuples()
    sums = table[table.measure == "SumR"].set_index("method").here
    assert ab.difference == pytest.approx(sums["a"] - sums["b"]) and ac.difference == 0 and ac.p == 1
    assert (tests.p_holm >= tests.p).all()


@pytest.mark.parametrize("seeds", [2, 3])
def test_figures_of_several_seeds_are_their_mean(seeds):
    runs = {name: [scores(10 * at + seed) for seed in range(seeds)] for at, name in enumerate("ab")}
    table = crossmodal.figures(runs)[0]
    alone = [crossmodal.figures({"a": [one], "b": [one]})[0] for one in runs["a"]]
    mean = np.mean([one.here[one.method == "a"].to_numpy() for one in alone], axis=0)
    assert table.here[table.method == "a"].to_numpy() == pytest.approx(mean)


def test_translate_test_asks_the_translations():
    names = [f"{kind}{n}" for kind in "pt" for n in range(3)]
    rows = pd.DataFrame({"id": names, "group": list("abcabc"), "split": "test", "image": ["x"] * 3 + [""] * 3})
    rows = rows.assign(text=[""] * 3 + ["Text"] * 3, lang=[""] * 3 + ["deu_Latn"] * 3, kind="caption", source="g")
    corpus, eye = Corpus(rows), np.eye(3, dtype=np.float32)
    features = {"image": Features(names[:3], eye), "text": Features(names[3:], np.roll(eye, 1, 0))}
    task = Task(corpus, features, Pairs(pd.DataFrame({"left": ["p0"], "right": ["t0"]})), np.ones(1, bool), ("deu_Latn",), 0)
    work = crossmodal.Work(task, Features(names[3:5], eye[:2]), None, {}, None)
    aligner = Aligner(Fixed(3), Fixed(3))
    alone, translated = (crossmodal.placed(work, aligner, how) for how in (False, True))
    assert (alone["rank"] > 1).all() and (translated["rank"] == 1).all()
    assert len(translated[translated.direction == "text→image"]) == 2, "the third has no translation"
    assert "translate-test: on" in translated.protocol[0] and "translate-test: off" in alone.protocol[0]


# From files to a table


def test_multi30k_from_line_files_to_a_table_beside_the_published_and_on_after_a_break(multi30k, models, here, tmp_path, capsys):
    root, told = multi30k
    out = tmp_path / "out"
    more = ["--image-encoder", models["clip"], "--image-name", "CLIP ViT-B/32", "--translations", told]
    assert transfer(models, "multi30k", "de", root, out, *more) == 0
    printed = capsys.readouterr().out
    table, tests, seen = rows_of(out)
    assert list(dict.fromkeys(table.method)) == [*crossmodal.METHODS] and len(tests) == 21
    assert table[table.measure == "SumR"].here.between(0, 600).all() and table.here.notna().all()
    beside = table[table.published.notna()]
    assert set(beside.method) == {"NRCCR"} and beside.published.iloc[-1] == 450.7 and len(beside) == 7
    assert "figures not confirmed in a primary source" in printed and "494.9" not in printed
    assert (
        "24 English captions of 24 pictures" in printed
        and "translations: 24 kept, 0 copied, 0 empty, 0 as people wrote" in printed
    )
    assert "protocol of NRCCR: galleries of 6 items" in printed and "average recall" in printed
    on = [line for line in printed.splitlines() if line.startswith("protocol") and "translate-test: on" in line]
    assert [line.split(":")[0] for line in on] == ["protocol of translate-test", "protocol of NRCCR"]
    assert set(seen.made[seen["right lang"] == "deu_Latn"]) == {"machine"}
    assert set(seen.source) == {"image-eng_Latn", "eng_Latn-deu_Latn", "eng_Latn-eng_Latn", "image-deu_Latn"}
    recipes = {path.parent: json.loads(path.read_text()) for path in out.glob("*/recipe.json")}
    told = {recipes[path.parent].get("name", "NRCCR"): set(pd.read_csv(path).source) for path in out.glob("*/seen.csv")}
    there, text = {"image-eng_Latn", "eng_Latn-deu_Latn"}, {"image-deu_Latn"}
    assert told.pop("pivot") == told.pop("M-CLIP") == there, "no picture with German"
    assert told.pop("teacher") == told.pop("translate-test") == {"image-eng_Latn"}, "no German at all"
    assert told == {"pseudo-pairs": text | {"image-eng_Latn"}, "CL2CM": there | text, "NRCCR": set(seen.source)}
    assert (
        "weighs pairs with translations, but not in NRCCR" in printed
        and "128 a batch, 1 epochs, text encoder frozen, tokens" in printed
    )
    assert beside.why.iloc[0] == "mean with translate-test; text encoder frozen here; last epoch, no validation stop"
    student = next(recipe for recipe in recipes.values() if recipe.get("name") == "CL2CM")
    assert student["relations"] == {"image-eng_Latn": {"info_nce": 1.0}}, "what is distilled is of pictures with German"
    before = made(out)
    broken = next(path for path in before if "pivot" in (path.parent / "recipe.json").read_text())
    broken.unlink()
    assert transfer(models, "multi30k", "de", root, out, *more) == 0
    assert {path for path, when in made(out).items() if before[path] != when} == {broken}, "what was recorded is not run again"
    pd.testing.assert_frame_equal(rows_of(out)[0], table)


@pytest.mark.parametrize(
    ("target", "asked", "trained", "methods"), [("zh", 7, 19, crossmodal.METHODS), ("ja", 10, 20, ["pivot"])]
)
def test_coco_is_asked_on_coco_cn_and_on_stair_and_never_trained_on_what_is_asked(
    coco, models, tmp_path, capsys, target, asked, trained, methods
):
    told, out = tmp_path / "machine", tmp_path / "out"
    keys = [f"COCO_val2014_{n:012}.jpg#{k}" for n in range(20) for k in range(2)]
    texts = CHINESE if target == "zh" else JAPANESE
    write(told / "train.txt", as_lines(f"{name}\t有 {texts[at // 2 % 6]} {at}" for at, name in enumerate(keys)))
    if target == "zh":
        write(told / "back.txt", as_lines(f"{name}\tthere is {ENGLISH[at // 2 % 6]}" for at, name in enumerate(keys)))
    more = ["--image-encoder", models["vit"], "--translations", told, "--captions", 1, "--methods", *methods]
    more += ["--seeds", 2] if target == "ja" else []
    assert transfer(models, "coco", target, coco, out, *more) == 0
    printed = capsys.readouterr().out
    assert f"{trained} English captions of {trained} pictures" in printed, "picture 3 is asked in COCO-CN, and COCO trains on it"
    assert f"galleries of {asked}–{2 * asked} items" in printed, "two captions each"
    assert ("pivot, seed 1: " in printed) == ("NRCCR's cycle is L_tri(S, S)" in printed) == (target == "ja")
    assert ("translate-test: n/a, no English translations" in printed) == ("translate-test" in methods)
    table, _, seen = rows_of(out)
    assert set(table.method) == {*methods} - {"translate-test", "NRCCR"} and table.published.isna().all()
    assert set(seen.pairs[seen["left modality"] == "image"]) == {trained}


def test_vatex_from_features_of_frames_and_its_own_machine_version(vatex, models, here, tmp_path, capsys):
    root, features = vatex
    out = tmp_path / "out"
    assert transfer(models, "vatex", "zh", root, out, "--features", features, "--image-name", "I3D") == 0
    printed, (table, _, _) = capsys.readouterr().out, rows_of(out)
    assert "36 English captions of 18 pictures or videos" in printed and "galleries of 8–16 items" in printed
    assert table[(table.method == "NRCCR") & (table.measure == "SumR")].published.tolist() == [366.5]
    assert set(table.method) == {*crossmodal.METHODS} and "383.5" in printed


def test_blocks_of_the_text_encoder_are_trained_on_what_a_model_translates(multi30k, models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        crossmodal, "Translator", lambda name: lambda texts, source, target: [f"{text} [{target}]" for text in texts]
    )
    more = ["--image-encoder", models["vit"], "--translator", "somebody/model", "--blocks", 1]
    assert transfer(models, "multi30k", "de", multi30k[0], tmp_path / "out", *more, "--methods", *BLOCKS) == 0
    printed = capsys.readouterr().out
    assert "blocks trained: 1" in printed and all(f"{name}, seed 0" in printed for name in BLOCKS)


def test_a_model_of_random_weights_is_not_believed(multi30k, models, tmp_path, capsys):
    more = ["--image-encoder", models["vit"], "--translator", models["m2m100_translator"]]
    assert transfer(models, "multi30k", "de", multi30k[0], tmp_path / "out", *more) == 1
    assert "translations into deu_Latn: none can be believed" in capsys.readouterr().err and not made(tmp_path / "out")


# What must be refused


@pytest.mark.parametrize("changed", [str, lambda text: text.lower().replace(",", " ,").replace(": ", " &#58; ")])
def test_human_captions_of_the_target_are_no_translations(multi30k, models, tmp_path, capsys, changed):
    root, told = multi30k
    human = gzip.decompress((root / "data/task1/raw/train.de.gz").read_bytes()).decode()
    write(told / "train.txt.gz", changed(human))
    more = ["--image-encoder", models["vit"], "--translations", told]
    assert transfer(models, "multi30k", "de", root, tmp_path / "out", *more) == 1
    said = capsys.readouterr().err
    assert "24 of 24 translations into deu_Latn are what people wrote of the same picture" in said
    assert not made(tmp_path / "out")


def test_captions_of_every_version_are_compared_and_the_few_that_are_the_same_left_out(multi30k, models, tmp_path, capsys):
    root, told = multi30k
    write(root / "data/task1/tok/train.lc.norm.tok.de", as_lines(f"tokenised , {n}" for n in range(24)))
    write(told / "train.txt.gz", as_lines(f"Tokenised, {n}" if n < 9 else f"eine Maschine {n}" for n in range(24)))
    plan = crossmodal.Transfer("multi30k", "deu_Latn", root, translations=told)
    parts = crossmodal.captions(plan)
    rows, pairs, counts, _ = crossmodal.machine(plan, *parts)
    assert counts == {"kept": 15, "copied": 0, "empty": 0, "as people wrote, out of 24": 9}
    assert not any("okenised" in text for text in rows.rows.text) and set(pairs.rows.right) == set(rows.ids)
    assert pairs.rows.left.nunique() == 15
    made = rows.where_rows(lang="deu_Latn").rows.assign(
        group=["elsewhere"] * 5 + [*rows.where_rows(lang="deu_Latn").rows.group[5:]]
    )
    assert reproduce.as_people_wrote(made, "multi30k", "deu_Latn", root)[1] == 10, "only pictures that people captioned count"
    (told / "back.txt").unlink()
    assert crossmodal.machine(plan, *parts)[1].rows.score.isna().all()


def test_a_set_whose_figure_is_of_one_measure_says_so_and_an_unknown_gallery_is_blank():
    known = crossmodal.published("coco", "jpn_Jpan")
    ours = pd.DataFrame({"method": ["NRCCR", "pivot"], "measure": ["image→text R@1"] * 2})
    assert reproduce.beside(ours, known, {}).why.tolist() == ["not given by the source", "ours"]
    shown = crossmodal.listed(known[["method", "gallery", "source"]].head(1)).splitlines()
    assert shown[1].split() == ["NRCCR"]


def test_a_picture_paired_with_a_human_caption_of_the_target_stops_everything(multi30k, models, tmp_path, capsys, monkeypatch):
    real = crossmodal.machine

    def sneaking(plan, training, whole, asked):
        rows, pairs, counts, queries = real(plan, training, whole, asked)
        human = rows.rows.assign(labels=[{} for _ in range(len(rows))])
        picture = training.rows.id[training.rows.modality == "image"].iloc[0]
        text = rows.where_rows(lang="deu_Latn").ids[0]
        sneaked = Pairs(pd.DataFrame({"left": [picture], "right": [text], "source": "sneaked"}))
        return dataclasses.replace(rows, rows=human), pairs + sneaked, counts, queries

    monkeypatch.setattr(crossmodal, "machine", sneaking)
    more = ["--image-encoder", models["vit"], "--translations", multi30k[1]]
    assert transfer(models, "multi30k", "de", multi30k[0], tmp_path / "out", *more) == 1
    assert "1 pairs of 'sneaked'" in capsys.readouterr().err and not made(tmp_path / "out")
    assert "sneaked" in (tmp_path / "out/seen.csv").read_text(), "the record says it"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("longer", r"train.txt.gz, line 25: .*25 lines, 24 texts"),
        ("shorter", r"test.txt, line 6: .*5 lines, 6 texts"),
        ("blank", r"test.txt, line 3: no text for 'multi30k:1028_\w+#0:deu_Latn'; 1 of 6 have none"),
        ("folder", r"nowhere: there is no such folder; --translations names one with a train.txt"),
        ("model", r"no-model"),
        ("captions", r"train.de.gz, line 24: the file has 23 lines where .*train.txt has 24"),
        ("picture", r"\.jpg: 1 of 24 pictures are not there; you need the pictures of Flickr30k"),
        ("none", r"no machine translations into deu_Latn: give --translator, or --translations, .* 24 English captions"),
    ],
)
def test_bad_files_are_named_before_anything_is_trained(multi30k, models, tmp_path, capsys, harm, said):
    root, told = multi30k
    if harm == "longer":
        write(told / "train.txt.gz", as_lines(map(str, range(25))))
    elif harm == "shorter":
        write(told / "test.txt", as_lines("abcde"))
    elif harm == "blank":
        write(told / "test.txt", as_lines([*"ab", " ", *"cde"]))
    elif harm == "captions":
        write(root / "data/task1/raw/train.de.gz", as_lines(GERMAN[:5] * 4 + GERMAN[:3]))
    elif harm == "picture":
        next((root / "flickr30k-images").glob("1005_*")).unlink()
    eye, told = tmp_path / "no-model" if harm == "model" else models["vit"], tmp_path / "nowhere" if harm == "folder" else told
    more = ["--image-encoder", eye, *(["--translations", told] if harm != "none" else [])]
    with pytest.warns(UserWarning, match="1 of 32 pictures") if harm == "picture" else nullcontext():
        assert transfer(models, "multi30k", "de", root, tmp_path / "out", *more) == 1
    printed, error = capsys.readouterr()
    assert "no picture was paired" not in printed
    assert re.search(said, error) and error.startswith("xmalign transfer: ") and not made(tmp_path / "out")


def test_features_of_a_video_that_are_not_there_are_named(vatex, models, tmp_path, capsys):
    root, features = vatex
    next(features.glob("testvideo03*")).unlink()
    assert transfer(models, "vatex", "zh", root, tmp_path / "out", "--features", features) == 1
    assert "no features of 1 of the corpus's 26 videos: 'testvideo03_000000_000013'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("multi30k", "zh"), "no protocol for multi30k in zho_Hans; there are multi30k in deu_Latn, fra_Latn, ces_Latn; coco in"),
        (("flickr", "de"), "no protocol for flickr in deu_Latn"),
        (("coco", "zh", "--methods", "CLIP"), "unknown method 'CLIP'; known are pseudo-pairs, pivot"),
    ],
)
def test_what_there_is_no_protocol_or_method_for_lists_what_there_is(capsys, asked, said):
    assert cli.main(["transfer", *asked]) == 1 and said in capsys.readouterr().err


def test_a_tower_of_open_clip_sees_the_pictures(multi30k, models, tmp_path):
    pytest.importorskip("open_clip")
    tower = checkpoints.open_clip_folder(tmp_path / "tower")
    more = ["--image-encoder", f"local-dir:{tower}", "--translations", multi30k[1], "--methods", "pivot"]
    assert transfer(models, "multi30k", "de", multi30k[0], tmp_path / "out", *more) == 0
