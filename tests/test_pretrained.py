"""The pretrained sentence encoder on a BERT of two layers made here: what a vector is, what fits in memory, what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders import cache
from xmalign_lab.encoders.pretrained import SentenceEncoder

transformers = pytest.importorskip("transformers")
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


@pytest.fixture
def model(made, tmp_path):
    return shutil.copytree(made, tmp_path / "model")


def modules(folder, pooling, *behind):
    """The files that sentence-transformers adds."""
    layers = [("", "Transformer"), ("1_Pooling", "Pooling"), *((f"2_{name}", name) for name in behind)]
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in layers]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))


def by_hand(folder, texts, mean=True):
    """Each text alone, so without any padding, through the model itself."""
    bert, tokenizer = transformers.AutoModel.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = [bert.eval()(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    rows = np.stack([(tokens.mean(0) if mean else tokens[0]).numpy() for tokens in states])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


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
        ({"pooling_mode": "mean"}, ["Dense"], "made of Dense"),
    ],
)
def test_what_it_would_encode_wrongly_is_refused(model, pooling, behind, message):
    modules(model, pooling, *behind)
    with pytest.raises(CorpusError, match=message):
        SentenceEncoder(model).encode(TEXTS)


def test_a_text_longer_than_the_model_reads_is_cut(made):
    long, cut = " ".join(["mbwa"] * 40), " ".join(["mbwa"] * 10)  # 12 places, two of them for [CLS] and [SEP]
    np.testing.assert_allclose(*SentenceEncoder(made).encode([long, cut]).vectors, atol=1e-5)


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
    with pytest.raises(CorpusError, match=r"holds no .*; it needs config.json, a tokenizer and weights \(\*.safetensors\)"):
        SentenceEncoder(model).encode(TEXTS)


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
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(CorpusError, match="'no/such' is no folder, and the hub did not give it: no network"):
        SentenceEncoder("no/such").encode(TEXTS)
