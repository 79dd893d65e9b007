"""Sequences of frozen vectors: padding without influence, every published form of features, and training on them."""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from xmalign_lab import corpora
from xmalign_lab.corpus import Corpus, CorpusError, Pairs
from xmalign_lab.encoders.classic import ClassicText
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.encoders.sequences import Sequence, frames, of_tokens
from xmalign_lab.model import Aligner, TowerHead
from xmalign_lab.recipe import Recipe
from xmalign_lab.train import fit, load_state, save_state, train

RNG = np.random.default_rng(0)
VIDEOS = ["sf2PPeXQrUA_000000_000010", "G9zN5TTuGO4_000179_000189", "-3c0hLqxvSSI_000000_000010"]
pytestmark = pytest.mark.usefixtures("one_thread")


def sequences(n=4, places=6, width=5, seed=0):
    """Rows of 2 to `places` - 1 real places, so that the last is padding in all."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, places, width)).astype(np.float32)
    for row in rows:
        row[rng.integers(2, places) :] = 0
    return rows


# The tower


def test_frames_pooled_is_the_formula():
    tower, rows = Sequence(5, width=8).eval(), torch.from_numpy(sequences())
    linear, norm = tower.enter
    with torch.no_grad():
        vectors, tokens, mask = tower(rows)
        for row, vector, at in zip(rows, vectors, range(4), strict=True):
            own = [f for f in row if f.any()]
            wanted = [torch.relu(norm(linear(f))) + tower.places[i] for i, f in enumerate(own)]
            torch.testing.assert_close(vector, torch.stack(wanted).mean(0))
            torch.testing.assert_close(tokens[at, : len(own)], torch.stack(wanted))
            assert mask[at].tolist() == [True] * len(own) + [False] * (6 - len(own)) and not tokens[at, len(own) :].any()


@pytest.mark.parametrize("depth", [0, 2])
def test_padding_has_no_influence_but_in_the_mean_that_counts_it(depth):
    rows = torch.from_numpy(sequences())
    more = torch.cat([rows, torch.zeros(4, 7, 5)], 1)
    shape = dict(width=8, depth=depth, heads=2)
    honest, trap = Sequence(5, **shape).eval(), Sequence(5, padded_mean=True, **shape).eval()
    with torch.no_grad():
        torch.testing.assert_close(honest(rows)[0], honest(more)[0])
        torch.testing.assert_close(honest(rows)[1], honest(more)[1][:, :6])
        assert (trap(rows)[0] - trap(more)[0]).abs().amax(1).min() > 0.01, "each vector has moved"
        full = torch.from_numpy(RNG.normal(size=(2, 3, 5)).astype(np.float32))
        torch.testing.assert_close(honest(full)[0], trap(full)[0])


def test_order_says_something_by_places_alone():
    rows = torch.from_numpy(RNG.normal(size=(2, 4, 5)).astype(np.float32))
    for positions in (False, True):
        tower = Sequence(5, width=8, depth=1, positions=positions).eval()
        with torch.no_grad():
            moved = (tower(rows)[0] - tower(rows.flip(1))[0]).abs().max() > 1e-4
        assert moved == positions


def test_a_tower_is_its_seed_and_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    one, two, other = Sequence(5, 8, 1, seed=3), Sequence(5, 8, 1, seed=3), Sequence(5, 8, 1, seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert not torch.equal(one.places, other.places)
    with pytest.raises(ValueError, match="width 9 must divide by 4 heads"):
        Sequence(5, width=9, depth=1)


def test_dropout_is_for_training_alone():
    tower, rows = Sequence(5, 8, dropout=0.5), torch.from_numpy(sequences())
    assert not torch.equal(tower(rows)[0], tower(rows)[0])
    assert torch.equal(tower.eval()(rows)[0], tower(rows)[0])


# Inputs and the head around a tower


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.ones((2, 3), np.float32), r"rows are float32 \(2, 3\); give uint8 pictures or int32 token ids, or float32 seq"),
        (np.ones((2, 3, 4)), r"rows are float64 \(2, 3, 4\)"),
        (np.stack([np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)]), "row 2, id 'b': all places are padding"),
        (np.array([[[1]], [[np.nan]]], np.float32), "row 2, id 'b': NaN or infinity"),
        (np.array([[[-np.inf]], [[1]]], np.float32), "row 1, id 'a': NaN or infinity"),
    ],
)
def test_rows_of_floats_that_are_no_sequences_are_refused(rows, said):
    with pytest.raises(CorpusError, match=said):
        Inputs(["a", "b"], rows)


def test_a_head_takes_sequences_of_its_width_and_length():
    head = TowerHead({"tower": "Sequence", "width_in": 5, "width": 8, "longest": 6}, 4)
    rows = sequences()
    with torch.no_grad():
        short, long = head(head.prepare(rows)), head(head.prepare(np.pad(rows, ((0, 0), (0, 9), (0, 0)))))
    assert short.tokens.shape[1] == long.tokens.shape[1] < 6, "what is padding in the whole batch is cut off"
    assert torch.equal(short.vectors, long.vectors)
    for wrong, said in [
        (sequences(width=7), "takes sequences of width 5, not 7: float32"),
        (rows.astype(np.int32), "takes sequences of width 5, not 5: int32"),
        (rows[:, 0], r"not 5: float32 \(4, 5\)"),
        (RNG.normal(size=(2, 7, 5)).astype(np.float32), "sequences of 6 places at most, not 7"),
    ]:
        with pytest.raises(ValueError, match=said):
            head.prepare(wrong)
    with pytest.raises(ValueError, match="takes Inputs of token ids, not rows of float32"):
        TowerHead({"tower": "TinyText", "width": 8, "heads": 2, "depth": 1}, 4).prepare(rows)


def world(n=16, seed=0):
    """n concepts: frames around a vector of their own, and a word for each."""
    rng, rows = np.random.default_rng(seed), sequences(n, 6, 8, seed)
    rows += (rows != 0) * 2 * rng.normal(size=(n, 1, 8)).astype(np.float32)
    ids = [f"v{k}" for k in range(n)]
    said = ClassicText(buckets=256).encode([f"word{k * 37}" for k in range(n)])
    pairs = pd.DataFrame({"left": ids, "right": said.ids, "source": "image-eng_Latn"})
    return {"image": Inputs(ids, rows), "text": said}, Pairs(pairs)


TOWER = {"tower": "Sequence", "width_in": 8, "width": 16, "depth": 1, "heads": 2, "dropout": 0.1}
RECIPE = Recipe("t", dim=8, hidden=32, dropout=0.0, epochs=25, batch_pairs=16, learning_rate=1e-2, towers={"image": TOWER})


def test_a_run_on_sequences_saves_loads_and_resumes_bit_for_bit(tmp_path):
    features, pairs = world()
    recipe = replace(RECIPE, epochs=6, batch_pairs=4, train_towers=1)
    expected, _ = fit(recipe, features, pairs, progress=False)
    steps = train(recipe, features, pairs)
    rows = [next(steps) for _ in range(7)]
    save_state(rows[-1].state, [], tmp_path / "run")
    state, _ = load_state(tmp_path / "run", recipe, features, pairs)
    *_, last = train(recipe, features, pairs, state)
    found = last.state.aligner.encode_image(features["image"])
    assert np.array_equal(found, expected.encode_image(features["image"]))
    entered = TowerHead(TOWER, 8).tower.enter[0].weight
    head = expected.heads["image"].tower
    assert not head.enter[0].weight.requires_grad and head.blocks[0].look.weight.requires_grad and head.norm.weight.requires_grad
    assert torch.equal(head.enter[0].weight, entered), "frozen, it is as it began"
    expected.save(tmp_path)
    assert np.array_equal(Aligner.load(tmp_path).encode_image(features["image"]), found)


def test_tokens_align_with_tokens():
    features, pairs = world(8)
    words = sequences(8, 4, 6, seed=1)
    texts = Features(features["text"].ids, words.sum(1), words, words.any(2))
    towers = {"image": TOWER, "text": {"tower": "Sequence", "width_in": 6, "width": 16}}
    recipe = replace(RECIPE, towers=towers, terms={"info_nce": 1.0, "filip": 1.0})
    _, steps = fit(recipe, {"image": features["image"], "text": of_tokens(texts)}, pairs, progress=False)
    loss = steps["image-eng_Latn/filip"]
    assert loss.iloc[-1] < 0.3 * loss.iloc[0]


def test_of_tokens_leaves_out_what_is_masked():
    tokens, mask = RNG.normal(size=(2, 3, 4)).astype(np.float32), np.array([[1, 1, 0], [0, 1, 1]], bool)
    tokens[0, 2] = np.nan
    inputs = of_tokens(Features(["a", "b"], tokens[:, 1], tokens, mask))
    assert inputs.rows.dtype == np.float32 and np.array_equal(inputs.rows.any(2), mask)
    np.testing.assert_array_equal(inputs.rows[mask], tokens[mask])
    every = of_tokens(Features(["a"], tokens[1:, 0], tokens[1:]))
    np.testing.assert_array_equal(every.rows, tokens[1:])
    with pytest.raises(CorpusError, match="have no tokens; encode with tokens=True"):
        of_tokens(Features(["a"], tokens[1:, 0]))


# Extracted features, in every form


def corpus_of(names=VIDEOS):
    table = {"id": [f"vatex:{n}" for n in names], "group": names, "image": [f"clips/{n}.mp4" for n in names], "kind": "video"}
    return Corpus(pd.DataFrame(table), name="mine")


def clips(names=VIDEOS, width=4):
    return {name: RNG.normal(size=(2 + k, width)).astype(np.float32) for k, name in enumerate(names)}


def as_files(folder, found):
    for name, clip in found.items():
        path = folder / "val" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, clip[None] if name.startswith("G") else clip)  # VATEX's own files are (1, t, w)
    return folder


def as_table(folder, found):
    folder.mkdir()
    rows = np.zeros((len(found), 9, 4))
    for row, clip in zip(rows, found.values(), strict=True):
        row[: len(clip)] = clip
    np.save(folder / "i3d.npy", rows)
    (folder / "i3d.txt").write_text("\n".join(found))
    return folder / "i3d.npy"


def as_bundle(folder, found):
    """Frames in no order, ten and more of a video told from two by their number."""
    folder.mkdir()
    named = [(f"{name}_{9 + k}", frame) for name, clip in found.items() for k, frame in enumerate(clip)][::-1]
    np.stack([frame for _, frame in named]).astype("<f4").tofile(folder / "feature.bin")
    (folder / "id.txt").write_text(" ".join(name for name, _ in named))
    (folder / "shape.txt").write_text(f"{len(named)} 4\n")
    return folder


def as_hdf5(folder, found):
    h5py = pytest.importorskip("h5py")
    folder.mkdir()
    with h5py.File(folder / "i3d.hdf5", "w") as file:
        for name, clip in found.items():
            file[f"val/{name}"] = clip.astype(np.float16) if name.startswith("G") else clip
    return folder / "i3d.hdf5"


@pytest.mark.parametrize("form", [as_files, as_table, as_bundle, as_hdf5])
def test_features_in_every_form_say_the_same(tmp_path, form):
    found = clips([*VIDEOS, "of_another_split"])
    inputs = frames(corpus_of(), form(tmp_path / "x", found))
    assert inputs.rows.dtype == np.float32 and inputs.rows.shape == (3, 4, 4)
    assert inputs.ids.tolist() == [f"vatex:{name}" for name in VIDEOS]
    for name, row in zip(VIDEOS, inputs.rows, strict=True):
        tolerance = 2e-3 if form is as_hdf5 and name.startswith("G") else 0
        np.testing.assert_allclose(row[: len(found[name])], found[name], rtol=tolerance, atol=tolerance)
        assert not row[len(found[name]) :].any()
    with pytest.raises(CorpusError, match=r"no features of 1 of the corpus's 4 videos: 'gone'; it has 4, '.*' the first"):
        frames(corpus_of([*VIDEOS, "gone"]), form(tmp_path / "y", found))


def test_vectors_of_whole_videos_whose_ids_look_like_frames(tmp_path):
    vectors = RNG.normal(size=(3, 4)).astype(np.float32)
    np.save(tmp_path / "clip.npy", vectors)
    (tmp_path / "clip.txt").write_text("\n".join(VIDEOS) + "\n")
    np.testing.assert_array_equal(frames(corpus_of(), tmp_path / "clip.npy").rows[:, 0], vectors)


def test_long_videos_keep_the_middles_of_equal_stretches(tmp_path):
    long = np.arange(1, 11, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    padded = np.concatenate([long[:4], np.zeros((6, 2), np.float32)])
    as_files(tmp_path, {"a": long, "b": padded})
    assert frames(corpus_of(["a", "b"]), tmp_path, 5).rows[..., 0].tolist() == [[2, 4, 6, 8, 10], [1, 2, 3, 4, 0]]
    assert frames(corpus_of(["a", "b"]), tmp_path, 2).rows[..., 0].tolist() == [[3, 8], [2, 4]], "padding is no frame"
    assert frames(corpus_of(["a"]), tmp_path, 1).rows[..., 0].tolist() == [[6]]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.ones((2, 5), np.float32), r"G9zN5TTuGO4_000179_000189.npy: width 5, but 'sf2PPeXQrUA_000000_000010' has 4"),
        (np.zeros((0, 4), np.float32), r"G9zN.*npy: shape \(0, 4\); wanted \(frames, width\), a frame at least"),
        (np.zeros((2, 4), np.float32), "G9zN.*npy: .* not all zeros"),
        (np.full((2, 4), np.nan, np.float32), "G9zN.*npy: .* all finite"),
        (np.ones((2, 2, 4), np.float32), r"G9zN.*npy: shape \(2, 2, 4\); wanted \(frames, width\)"),
        (np.array(["x", "y"]), "G9zN.*npy cannot be loaded: could not convert"),
        (np.array([{}], object), "G9zN.*npy cannot be loaded: Object arrays cannot be loaded"),
    ],
)
def test_features_that_cannot_be_used_are_named(tmp_path, bad, said):
    as_files(tmp_path, clips())
    np.save(tmp_path / "val" / f"{VIDEOS[1]}.npy", bad)
    with pytest.raises(CorpusError, match=said):
        frames(corpus_of(), tmp_path)


def test_places_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    corpus = corpus_of([f"v{k}" for k in range(5)])
    with pytest.raises(CorpusError, match="no features of 5 of the corpus's 5 videos: 'v0', 'v1', 'v2' …; it has 0"):
        frames(corpus, tmp_path / "nowhere")
    twice = as_files(tmp_path / "twice", clips(["v0"]))
    np.save(twice / "v0.npy", np.ones((1, 4), np.float32))
    with pytest.raises(CorpusError, match=r"val.v0.npy: .*v0.npy has features of 'v0' too; give those of one kind"):
        frames(corpus, twice)
    table = as_table(tmp_path / "table", clips(["v0", "v1"]))
    for ids, said in [("v0", "i3d.txt: 1 ids, 1 of them distinct, for 2 rows"), ("v0\nv0", "2 ids, 1 of them distinct")]:
        table.with_suffix(".txt").write_text(ids)
        with pytest.raises(CorpusError, match=said):
            frames(corpus, table)
    table.with_suffix(".txt").unlink()
    with pytest.raises(CorpusError, match="i3d.npy cannot be loaded: .*i3d.txt"):
        frames(corpus, table)
    bundle = as_bundle(tmp_path / "bundle", clips(["v0"]))
    (bundle / "shape.txt").write_text("3 4")
    with pytest.raises(CorpusError, match=r"bundle cannot be loaded: cannot reshape array of size 8 into shape \(3,4\)"):
        frames(corpus, bundle)
    (tmp_path / "x.h5").write_text("no HDF5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CorpusError, match=r"x.h5: h5py is not installed; pip install .*\[video\]"):
        frames(corpus, tmp_path / "x.h5")


def test_an_hdf5_file_that_cannot_be_used_is_named(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["rgb/v0"] = file["flow/v0"] = np.ones((2, 4))
    with pytest.raises(CorpusError, match="two.h5, 'rgb/v0': .*two.h5, 'flow/v0' has features of 'v0' too"):
        frames(corpus_of(["v0"]), tmp_path / "two.h5")
    (tmp_path / "x.h5").write_text("no HDF5")
    with pytest.raises(CorpusError, match="x.h5 cannot be loaded: .*signature"):
        frames(corpus_of(), tmp_path / "x.h5")


# End to end

CONCEPTS = ["dog", "swim", "piano", "kite", "bread", "train", "dance", "snow"]
SAYINGS = ["a {} in the park", "people watch {}", "someone shows {} here", "this is {} again"]


def vatex(root, names):
    """Captions as MLCMR keeps VATEX's: two a video in English, and their Chinese by a machine."""
    root.mkdir()
    part = {"train": names[: 3 * len(CONCEPTS)], "test": names[3 * len(CONCEPTS) :]}
    for split, videos in part.items():
        said = [
            (v, n, SAYINGS[n + 2 * (k % 2)].format(CONCEPTS[k % len(CONCEPTS)])) for k, v in enumerate(videos) for n in (0, 1)
        ]
        (root / f"vatex{split}.caption.txt").write_text("".join(f"{v}#enc#{n} {text}\n" for v, n, text in said))
        chinese = "".join(f"{v}#enc2zh#{n} 机器 {text}\n" for v, n, text in said)
        (root / f"vatex{split}_google_enc2zh.caption.txt").write_text(chinese, encoding="utf-8")
        back = "".join(f"{v}#enc2zh2enc#{n} the {text}\n" for v, n, text in said)
        (root / f"vatex{split}_google_enc2zh2enc.caption.txt").write_text(back)
    made = {version: corpora.load("vatex", root=root, version=version) for version in ("google", "back")}
    assert made["google"].languages == ["zho_Hans"] and made["back"].languages == ["eng_Latn"], "of machines, kept apart"
    return corpora.load("vatex", ["eng_Latn"], root=root), as_files


def msrvtt(root, names):
    """Captions and videos in one JSON file, as the challenge gave them, and features as the dual encoding's authors'."""
    root.mkdir()
    last = 3 * len(CONCEPTS)
    videos = [{"video_id": v, "id": k, "split": "train" if k < last else "test"} for k, v in enumerate(names)]
    said = [(v, SAYINGS[n].format(CONCEPTS[k % len(CONCEPTS)])) for k, v in enumerate(names) for n in (0, 1)]
    sentences = [{"video_id": v, "caption": text, "sen_id": n} for n, (v, text) in enumerate(said)]
    (root / "train_val_videodatainfo.json").write_text(json.dumps({"info": {}, "videos": videos, "sentences": sentences}))
    return corpora.load("msrvtt", root=root), as_bundle


@pytest.mark.parametrize(("load", "depth"), [(vatex, 0), (msrvtt, 1)])
def test_videos_find_their_captions_in_true_formats(tmp_path, load, depth):
    rng = np.random.default_rng(1)
    concept = rng.normal(size=(len(CONCEPTS), 4))
    count = 4 * len(CONCEPTS)
    names = [f"video{k}" if load is msrvtt else f"abc-EFgh{k:03}_{k:06}_000010" for k in range(count)]
    made = {name: concept[k % 8] + 0.3 * rng.normal(size=(rng.integers(1, 9), 4)) for k, name in enumerate(names)}
    corpus, form = load(tmp_path / "captions", names)
    assert len(corpus.where_rows(modality="image")) == count and set(corpus.rows.kind) == {"video", "caption"}
    features = {"image": frames(corpus, form(tmp_path / "features", made), 6), "text": ClassicText(buckets=2048).encode(corpus)}
    training, test = corpus.where_rows(split="train"), corpus.where_rows(split="test")
    pairs = Pairs.by_group(training, {"modality": "image"}, {"lang": "eng_Latn"}, "image-eng_Latn")
    tower = TOWER | {"width_in": 4, "depth": depth}
    aligner, _ = fit(replace(RECIPE, towers={"image": tower}, epochs=15), features, pairs, progress=False)
    ids = {modality: test.rows.id[test.rows.modality == modality] for modality in ("image", "text")}
    shown, said = (table.position(ids[modality]) for modality, table in features.items())
    found = aligner.encode_text(features["text"])[said] @ aligner.encode_image(features["image"])[shown].T
    group = test.lookup("group")
    right = np.array([[group[text] == group[video] for video in ids["image"]] for text in ids["text"]])
    assert right.sum() == 16 and (right[np.arange(16), found.argmax(1)]).mean() > 0.7, "by chance one of eight"
