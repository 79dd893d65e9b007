"""Encoders over transformers, on tiny real checkpoints made here: what a vector is, what fits in memory, what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders import cache, checkpoint, reading
from xmalign_lab.encoders.pretrained import PictureEncoder, SentenceEncoder

pytest.importorskip("transformers")
import checkpoints
from checkpoints import transformers

TEXTS = ["mbwa", "mbwa mkubwa anakimbia sana", "paka", "mbwa na paka", "anakimbia paka mkubwa"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "mbwa", "mkubwa", "anakimbia", "sana", "paka", "na"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a tiny BERT and its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("models") / "bert"
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **size)
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: row for row, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of any other kind of checkpoint, made once."""
    folder = tmp_path_factory.mktemp("built")
    return lambda kind: folder / kind if (folder / kind).is_dir() else getattr(checkpoints, kind)(folder / kind)


@pytest.fixture
def model(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Seven pictures of several shapes as files."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for row in range(7):
        Image.fromarray(random.integers(0, 256, (20 + 5 * row, 50 - 5 * row, 3), np.uint8)).save(folder / f"{row}.png")
    paths = [str(folder / f"{row}.png") for row in range(7)]
    return Corpus(pd.DataFrame({"id": list("abcdefg"), "group": list("abcdefg"), "image": paths}))


def texts(*rows):
    """A corpus of (language, text)."""
    columns = {"id": [str(row) for row in range(len(rows))], "group": "g"}
    return Corpus(pd.DataFrame(columns | {"lang": [lang for lang, _ in rows], "text": [text for _, text in rows]}))


def unit(rows):
    rows = np.concatenate([row.detach().numpy() for row in rows])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def modules(folder, pooling, *behind):
    """The files that sentence-transformers adds."""
    layers = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"2_{name}", name) for name in behind)]
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in layers]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))


def by_hand(folder, texts, mean=True, scaled=True):
    """Each text alone, so without any padding, through the model itself."""
    bert, tokenizer = transformers.AutoModel.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = [bert.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    rows = np.stack([(tokens.mean(0) if mean else tokens[0]).numpy() for tokens in states])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True) if scaled else rows


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_a_vector_is_the_mean_of_the_tokens_whatever_the_batch(made, batch_size):
    features = SentenceEncoder(made, batch_size=batch_size).encode(TEXTS, progress=False)
    assert features.vectors.dtype == np.float32 and list(features.ids) == list("01234")
    np.testing.assert_allclose(features.vectors, by_hand(made, TEXTS), atol=1e-5)
    assert np.linalg.norm(features.vectors, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("pooling", "mean"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, False),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "include_prompt": True}, True),
        ({"pooling_mode": "cls"}, False),
        ({"pooling_mode": "mean", "include_prompt": True}, True),
    ],
)
def test_the_folder_says_how_it_pools(model, pooling, mean):
    modules(model, pooling, "Normalize")
    np.testing.assert_allclose(SentenceEncoder(model).encode(TEXTS).vectors, by_hand(model, TEXTS, mean), atol=1e-5)
    assert not np.allclose(by_hand(model, TEXTS, mean), by_hand(model, TEXTS, not mean), atol=1e-2)


@pytest.mark.parametrize(
    ("pooling", "behind", "message"),
    [
        ({"pooling_mode_max_tokens": True}, [], "pooling_mode_max_tokens; known are"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, [], "known are"),
        ({"pooling_mode": "lasttoken"}, [], "lasttoken; known are"),
        ({"pooling_mode": "mean"}, ["WordWeights"], "made of WordWeights"),
        ({"pooling_mode": "mean"}, ["Normalize", "Dense"], "Normalize before Dense"),
    ],
)
def test_what_it_would_encode_wrongly_is_refused(model, pooling, behind, message):
    modules(model, pooling, *behind)
    with pytest.raises(CorpusError, match=message):
        SentenceEncoder(model).encode(TEXTS)


@pytest.mark.parametrize(("activation", "function"), [("Tanh", np.tanh), ("Identity", lambda x: x), ("ReLU", None)])
def test_a_dense_layer_behind_the_pooling_as_in_labse(model, activation, function):
    modules(model, {"pooling_mode": "cls"}, "Dense", "Normalize")
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 16), torch.randn(7)
    (model / "2_Dense").mkdir()
    save_file({"linear.weight": weight, "linear.bias": bias}, model / "2_Dense/model.safetensors")
    layer = {"in_features": 16, "out_features": 7, "bias": True, "activation_function": f"torch.nn.modules.{activation}"}
    (model / "2_Dense/config.json").write_text(json.dumps(layer))
    if function is None:
        with pytest.raises(CorpusError, match="2_Dense ends in ReLU; known are Tanh and Identity"):
            SentenceEncoder(model).encode(TEXTS)
        return
    expected = function(by_hand(model, TEXTS, mean=False, scaled=False) @ weight.numpy().T + bias.numpy())
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(SentenceEncoder(model).encode(TEXTS).vectors, expected, atol=1e-5)
    before = SentenceEncoder(model).spec()
    save_file({"linear.weight": -weight, "linear.bias": bias}, model / "2_Dense/model.safetensors")
    assert SentenceEncoder(model).spec() != before


def test_a_text_longer_than_the_model_reads_is_cut(made, capsys):
    long, cut = " ".join(["mbwa"] * 40), " ".join(["mbwa"] * 10)  # 12 places, two of them for [CLS] and [SEP]
    corpus = texts(("swh_Latn", long), ("swh_Latn", cut), ("hau_Latn", cut))
    vectors = SentenceEncoder(made).encode(corpus).vectors
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    said = f"{made}: 1 of 2 texts in swh_Latn are longer than its 12 pieces and were cut\n"
    assert capsys.readouterr().out == said


def test_roberta_spends_places_on_its_padding(built):
    """XLM-R's table has 14 places, of which 12 are for pieces: with 14 pieces it would fail, deep inside."""
    encoder, text = SentenceEncoder(built("xlmr")), "mbwa mkubwa anakimbia sana"
    assert encoder.reader.limit == 12 and encoder.unknown_share([text]).pieces[0] > 14
    tokenizer = transformers.AutoTokenizer.from_pretrained(built("xlmr"))
    ids = tokenizer(text, truncation=True, max_length=12, return_tensors="pt")
    states = transformers.AutoModel.from_pretrained(built("xlmr")).eval()(**ids).last_hidden_state
    np.testing.assert_allclose(encoder.encode([text]).vectors, unit([states.mean(1)]), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_encoder_of_nllb_is_told_the_language_of_every_text(built, batch_size):
    languages = ["eng_Latn", "swh_Latn", "sin_Sinh"]
    corpus = texts(*[(lang, text) for text in TEXTS for lang in languages])
    tokenizer = transformers.AutoTokenizer.from_pretrained(built("nllb"))
    nllb = transformers.AutoModel.from_pretrained(built("nllb")).eval().get_encoder()
    expected = []
    for row in corpus.rows.itertuples():
        code, end = tokenizer.convert_tokens_to_ids([row.lang, "</s>"])
        ids = [code, *tokenizer(row.text, add_special_tokens=False).input_ids, end]
        expected.append(nllb(torch.tensor([ids])).last_hidden_state.mean(1))
    vectors = SentenceEncoder(built("nllb"), batch_size=batch_size).encode(corpus).vectors
    np.testing.assert_allclose(vectors, unit(expected), atol=1e-4)
    assert np.linalg.norm(vectors[0::3] - vectors[1::3], axis=1).min() > 0.02, "one text in two languages"


def test_a_language_that_nllb_does_not_know_is_no_unknown_token(built):
    quechua = texts(("que_Latn", "mbwa"))
    with pytest.raises(CorpusError, match=r"knows no 'que_Latn'; give instead={'que_Latn': CODE} .* such as quy_Latn"):
        SentenceEncoder(built("nllb")).encode(quechua)
    with pytest.raises(CorpusError, match="knows no ''"):
        SentenceEncoder(built("nllb")).encode(["mbwa"])
    ayacucho = SentenceEncoder(built("nllb")).encode(texts(("quy_Latn", "mbwa"))).vectors
    other = SentenceEncoder(built("nllb"), instead={"que_Latn": "quy_Latn", "": "quy_Latn"})
    np.testing.assert_array_equal(other.encode(quechua).vectors, ayacucho)
    np.testing.assert_array_equal(other.encode(["mbwa"]).vectors, ayacucho)
    assert other.spec() != SentenceEncoder(built("nllb")).spec()


def test_languages_that_a_tokenizer_writes_in_its_own_way():
    m2m100 = SimpleNamespace(lang_code_to_id={"sw": 1, "si": 2, "zh": 3})
    mbart = SimpleNamespace(extra_special_tokens=["<mask>", "si_LK", "sw_KE", "en_XX"])
    assert reading._codes(m2m100) == {"swh_Latn": "sw", "sin_Sinh": "si", "zho_Hans": "zh"}
    assert reading._codes(mbart) == {"swh_Latn": "sw_KE", "sin_Sinh": "si_LK", "eng_Latn": "en_XX"}


def test_nllb_with_a_tokenizer_that_cannot_be_told_is_refused(built, tmp_path):
    folder = shutil.copytree(built("nllb"), tmp_path / "nllb")
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(CorpusError, match="its tokenizer cannot be told a language, which a m2m_100 reads"):
        SentenceEncoder(folder).encode(texts(("swh_Latn", "mbwa")))


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_text_side_of_a_model_of_both(built, kind):
    """CLIP pools the end of the text, SigLIP the last of all places, which is padding: each alone, padded as it was trained."""
    both, tokenizer = transformers.AutoModel.from_pretrained(built(kind)), transformers.AutoTokenizer.from_pretrained(built(kind))
    how = {"padding": "max_length", "max_length": 16} if kind == "siglip" else {}
    ids = [tokenizer(text, return_tensors="pt", truncation=True, **how).input_ids for text in TEXTS]
    expected = unit([both.eval().get_text_features(input_ids=row).pooler_output for row in ids])
    for size in (1, 64):
        np.testing.assert_allclose(SentenceEncoder(built(kind), batch_size=size).encode(TEXTS).vectors, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "clip", "siglip"])
def test_pictures_by_the_pooling_and_preprocessing_of_the_model(built, pictures, kind):
    made = transformers.AutoModel.from_pretrained(built(kind)).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(built(kind), backend="pil")
    rows = [processor(Image.open(path).convert("RGB"), return_tensors="pt").pixel_values for path in pictures.rows.image]
    states = [getattr(made, "vision_model", made)(pixel_values=row).last_hidden_state.detach() for row in rows]
    if kind == "vit":
        expected = unit([state[:, 0] for state in states])
    else:
        expected = unit([made.get_image_features(pixel_values=row).pooler_output for row in rows])
    features = PictureEncoder(built(kind), batch_size=3, tokens=True).encode(pictures, progress=False)
    np.testing.assert_allclose(features.vectors, expected, atol=1e-4)
    assert features.tokens.shape == (7, 16, 16) and features.mask is None, "32 pixels in patches of 8"
    np.testing.assert_allclose(features.tokens, np.concatenate(states)[:, -16:], atol=1e-3)
    assert PictureEncoder(built(kind)).encode(pictures, progress=False).tokens is None


def test_how_a_strange_kind_of_model_is_pooled_is_not_guessed(built, tmp_path, pictures):
    folder = shutil.copytree(built("vit"), tmp_path / "vit")
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"vit"', '"vit_mae"'))
    with pytest.raises(CorpusError, match="how a 'vit_mae' is pooled is not known; known are clip_vision_model, .*vit"):
        PictureEncoder(folder).encode(pictures)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CorpusError, match="holds no preprocessor_config.json or processor_config.json"):
        PictureEncoder(folder).encode(pictures)


def test_cmyk_palette_and_alpha_become_the_colours_that_one_sees(built, tmp_path):
    red = Image.new("RGB", (32, 32), (255, 0, 0))
    half = Image.new("RGBA", (32, 32), (0, 0, 0, 0))  # black and clear, as the ground of a drawing often is
    half.paste(red.crop((0, 0, 32, 16)), (0, 0))
    expected = np.full((32, 32, 3), 255)
    expected[:16] = (255, 0, 0)
    saved = {"cmyk.tif": red.convert("CMYK"), "alpha.png": half, "palette.png": half.quantize(4), "grey.png": half.convert("LA")}
    for name, picture in saved.items():
        picture.save(tmp_path / name)
    modes, seen = [], {}
    for name in saved:
        with Image.open(tmp_path / name) as picture:
            modes.append(picture.mode)
            seen[name] = np.asarray(checkpoint.on_white(picture), int)
    assert modes == ["CMYK", "RGBA", "P", "LA"]
    assert abs(seen["cmyk.tif"] - (255, 0, 0)).max() <= 2
    assert abs(seen["alpha.png"] - expected).max() == 0 and abs(seen["palette.png"] - expected).max() <= 2
    assert (seen["grey.png"][16:] == 255).all() and seen["grey.png"][:16].max() < 100

    def rows(*names):
        paths = [str(tmp_path / name) for name in names]
        return Corpus(pd.DataFrame({"id": names, "group": "g", "image": paths}))

    Image.fromarray(expected.astype(np.uint8)).save(tmp_path / "white.png")
    vectors = PictureEncoder(built("vit")).encode(rows("white.png", "alpha.png", "palette.png")).vectors
    np.testing.assert_allclose(vectors[1:], vectors[[0, 0]], atol=1e-2)
    (tmp_path / "cut.png").write_bytes((tmp_path / "alpha.png").read_bytes()[:60])
    with pytest.raises(CorpusError, match="id 'cut.png': .*cut.png: not a readable image"):
        PictureEncoder(built("vit")).encode(rows("white.png", "cut.png"))


def test_tokens_with_mask_and_words(made, tmp_path):
    corpus = texts(*[("swh_Latn", text) for text in TEXTS])
    features = cache.encode(corpus, SentenceEncoder(made, batch_size=2, tokens=True), tmp_path)
    bert, tokenizer = transformers.AutoModel.from_pretrained(made).eval(), transformers.AutoTokenizer.from_pretrained(made)
    assert features.tokens.shape == (5, 6, 16)
    for row, text in enumerate(TEXTS):
        batch, n = tokenizer(text, return_tensors="pt"), len(text.split()) + 2
        np.testing.assert_allclose(features.tokens[row, :n], bert(**batch).last_hidden_state[0].detach(), atol=1e-5)
        np.testing.assert_array_equal(features.mask[row], np.arange(6) < n)
        np.testing.assert_array_equal(features.words[row], [-1, *range(n - 2), *[-1] * (7 - n)])
    assert SentenceEncoder(made).spec() != SentenceEncoder(made, tokens=True).spec()


def test_half_precision_is_near_and_another_spec(made):
    exact, half = SentenceEncoder(made), SentenceEncoder(made, dtype="bfloat16")
    vectors = half.encode(TEXTS).vectors
    assert half._loaded[1].dtype == torch.bfloat16 and half.spec() != exact.spec()
    assert vectors.dtype == np.float32 and (vectors * exact.encode(TEXTS).vectors).sum(1).min() > 0.99


def test_a_language_that_the_tokenizer_does_not_know_is_counted_and_warned_about(made):
    corpus = texts(("swh_Latn", "mbwa mkubwa"), ("sin_Sinh", "පූසා paka"), ("sin_Sinh", "පූසා"), ("hau_Latn", "mbwa paka kare na"))
    encoder = SentenceEncoder(made)
    with pytest.warns(UserWarning, match="67% of the pieces of sin_Sinh are unknown") as warned:
        encoder.encode(corpus)
    assert len(warned) == 1, "a quarter of Hausa is no reason"
    table = encoder.unknown_share(corpus).set_index("lang")
    assert table.unknown.to_dict() == pytest.approx({"hau_Latn": 1 / 4, "sin_Sinh": 2 / 3, "swh_Latn": 0})
    assert table.texts.tolist() == [1, 2, 1] and table.pieces.tolist() == [4, 3, 2] and table.cut.tolist() == [0, 0, 0]


MISMATCH = """
import sys
sys.path.insert(0, sys.argv[1])
try:
    import torchvision
except RuntimeError as error:
    print(error)
from xmalign_lab.encoders.checkpoint import imported
print(imported("torchvision").__file__.startswith(sys.argv[1]))
import torchvision
"""


def test_a_torchvision_of_another_build_is_mended(tmp_path):
    """A package that fails as torchvision does beside another build of torch: it registers what its operators lack."""
    (tmp_path / "torchvision").mkdir()
    lines = [f'torch.library.register_fake("torchvision::{name}")(lambda *inputs: inputs[0])' for name in ("nms", "qnms")]
    (tmp_path / "torchvision/__init__.py").write_text("\n".join(["import torch", *lines]))
    run = subprocess.run([sys.executable, "-c", MISMATCH, str(tmp_path)], capture_output=True, text=True)
    assert run.stdout.split("\n")[:2] == ["operator torchvision::nms does not exist", "True"], run.stderr


def test_what_is_wrong_with_torchvision_otherwise_is_not_hidden(monkeypatch):
    def broken(name):
        raise RuntimeError("another reason") if name == "torchvision" else ModuleNotFoundError("no", name=name)

    monkeypatch.setattr(checkpoint.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="another reason"):
        checkpoint.imported("transformers")


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(checkpoint.importlib, "import_module", absent)
    with pytest.raises(CorpusError, match=r"open_clip is not installed; pip install .*\[text\]"):
        checkpoint.imported("open_clip")


def test_a_batch_that_memory_does_not_hold_is_halved(made, capsys):
    encoder, sizes = SentenceEncoder(made, batch_size=4), []
    bert = encoder._loaded[1]
    forward = bert.forward

    def small(input_ids, **rest):
        sizes.append(len(input_ids))
        if len(input_ids) > limit:
            raise wrong
        return forward(input_ids=input_ids, **rest)

    bert.forward, limit, wrong = small, 1, torch.OutOfMemoryError("CUDA out of memory")
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, by_hand(made, TEXTS), atol=1e-5)
    assert sizes == [4, 2, 1, 1, 1, 1, 1]
    assert capsys.readouterr().out == "out of memory: going on with batches of 2\nout of memory: going on with batches of 1\n"
    limit = 0
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode(TEXTS)
    wrong = RuntimeError("a shape does not fit")
    with pytest.raises(RuntimeError, match="a shape does not fit"):
        encoder.encode(TEXTS)
    assert sizes[-1] == 4, "only memory is tried again"


def test_the_cache_knows_the_model_by_its_files_alone(made, model, tmp_path):
    corpus = Corpus(pd.DataFrame({"id": list("abcde"), "group": "g", "lang": "swh_Latn", "text": TEXTS}))
    first = cache.encode(corpus, SentenceEncoder(made), tmp_path)
    moved = SentenceEncoder(model, batch_size=2)
    again = cache.encode(corpus, moved, tmp_path)
    assert again.key == first.key and "_loaded" not in vars(moved), "read from the cache, the model was not even loaded"
    np.testing.assert_array_equal(again.take(["e", "a"]), first.vectors[[4, 0]])
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][4] *= -1
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    other = cache.encode(corpus, SentenceEncoder(model), tmp_path)
    assert other.key != first.key and not np.allclose(other.vectors, first.vectors, atol=1e-3)


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_something_says_what_a_folder_needs(model, lacking):
    (model / lacking).unlink()
    with pytest.raises(CorpusError, match=r"holds no .*; such a folder needs config.json, \*.safetensors, tokenizer.json or"):
        SentenceEncoder(model).encode(TEXTS)


@pytest.mark.parametrize(
    "name", ["/no/such", "./no", "../no", "~/no", "some/models/mine", r"C:\models\mine", Path("no/such"), "a.bin"]
)
@pytest.mark.parametrize("encoder", [SentenceEncoder, PictureEncoder])
def test_a_path_that_is_not_there_is_refused_before_anything_is_encoded(encoder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.bin").touch()  # a file is a path too
    with pytest.raises(CorpusError) as error:
        encoder(name)
    assert f"{Path(name).expanduser()} is no folder; give one with config.json, *.safetensors, " in str(error.value)
    assert "hub" not in str(error.value).replace(str(tmp_path), "")


def test_a_folder_in_the_home_folder(made, monkeypatch):
    monkeypatch.setenv("HOME", str(Path(made).parent))
    assert SentenceEncoder(f"~/{Path(made).name}").spec() == SentenceEncoder(made).spec()


def test_weights_that_do_not_fill_the_model_are_refused(model):
    weights = load_file(model / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"], weights["pooler.dense.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(CorpusError, match=r"lack 1 parts of the model, encoder.layer.1.output.dense.weight"):
        SentenceEncoder(model).encode(TEXTS)
    (model / "config.json").write_text("{}")
    with pytest.raises(CorpusError, match="model cannot be loaded: "):
        SentenceEncoder(model).encode(TEXTS)


def test_a_name_of_the_hub_is_brought_here_and_then_the_same(made, monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: asked.append(name) or str(made))
    encoder = SentenceEncoder("somebody/a-model")
    np.testing.assert_allclose(encoder.encode(TEXTS).vectors, by_hand(made, TEXTS), atol=1e-5)
    assert asked == ["somebody/a-model"] and encoder.spec() == SentenceEncoder(made).spec()

    def offline(name, allow_patterns):
        raise Exception("no network")  # httpx's ProxyError, for one, is no OSError

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    said = "'no/such' is no folder, and the hub did not give it: no network\nInstead: `hf download no/such --local-dir FOLDER`"
    with pytest.raises(CorpusError, match=said):
        SentenceEncoder("no/such").encode(TEXTS)


def test_with_the_hub_switched_off(made):
    """The hub's own client, unpatched, in another process, because it looks at the environment once."""
    asked = f"SentenceEncoder({str(made)!r}).encode(['mbwa']); print('a folder needs none'); SentenceEncoder('no/such').folder"
    code = f"from xmalign_lab.encoders.pretrained import SentenceEncoder; {asked}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert run.stdout == "a folder needs none\n", run.stderr
    assert "CorpusError: 'no/such' is no folder, and the hub did not give it" in run.stderr
