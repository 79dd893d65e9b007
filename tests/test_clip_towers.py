"""Models of open_clip, tiny and real, through the very code that loads the public ones."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

pytest.importorskip("transformers")
import checkpoints
from checkpoints import PREPROCESS, transformers

from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders import cache
from xmalign_lab.encoders.clip import OpenClip

open_clip = pytest.importorskip("open_clip")  # after `checkpoints`, which mends a torchvision of another build
TEXTS = ["mbwa mkubwa", "paka mdogo na mbwa", "anakimbia"]
TOLD = ["eng_Latn", "swh_Latn", "sin_Sinh"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders for `local-dir:`: CLIP's own text tower, XLM-R, M2M100 as NLLB-CLIP has it, and one made as SigLIP 2 is."""
    root = tmp_path_factory.mktemp("clip")
    made = {"own": checkpoints.open_clip_folder(root / "own")}
    made["xlmr"] = checkpoints.open_clip_folder(root / "with-xlmr", checkpoints.xlmr(root / "xlmr"), "mean_pooler", 12)
    made["nllb"] = checkpoints.open_clip_folder(root / "with-nllb", checkpoints.nllb(root / "nllb"))
    made["siglip"] = checkpoints.open_clip_siglip(root / "with-siglip", checkpoints.siglip(root / "siglip"))
    for tower in ("xlmr", "nllb", "siglip"):
        shutil.rmtree(root / tower)  # the folder made with it stands alone
    return made


@pytest.fixture
def folder(folders, tmp_path):
    return shutil.copytree(folders["own"], tmp_path / "model")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five pictures, one with clear ground, and each text in three languages."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for row in range(5):
        channels = 4 if row == 4 else 3
        Image.fromarray(random.integers(0, 256, (30 + 4 * row, 60 - 6 * row, channels), np.uint8)).save(root / f"{row}.png")
    rows = [{"id": f"p{row}", "image": str(root / f"{row}.png")} for row in range(5)]
    rows += [{"id": f"{lang} {text}", "lang": lang, "text": text} for text in TEXTS for lang in TOLD]
    return Corpus(pd.DataFrame(rows).assign(group="g"))


@pytest.fixture
def zoo(folder, tmp_path, monkeypatch):
    """A model of the zoo, `Tiny-Squash`, with the checkpoint file of `folder` and without any published tag."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "Tiny-Squash.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    open_clip.add_model_config(tmp_path / "Tiny-Squash.json")
    return folder / "open_clip_model.safetensors"


def publish(monkeypatch, **tags):
    made = {tag: {"url": "", "hf_hub": "", "interpolation": "bicubic"} | settings for tag, settings in tags.items()}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-Squash", made)


def unit(rows):
    rows = torch.cat(rows).detach().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(folder, corpus):
    """Pictures, put on white, and texts, one at a time, through what open_clip itself makes of the folder."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", require_pretrained=True)
    pictures = [Image.open(path).convert("RGBA") for path in corpus.rows.image if path]
    white = [Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB") for one in pictures]
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    texts = [model.eval().encode_text(tokenizer([text])) for text in corpus.rows.text if text]
    return unit([model.encode_image(transform(one)[None]) for one in white]), unit(texts)


@pytest.mark.parametrize("batch_size", [2, 64])
def test_both_towers_are_those_of_open_clip_over_one_set_of_weights(folders, corpus, tmp_path, monkeypatch, batch_size):
    clip, made, create = OpenClip(f"local-dir:{folders['own']}", batch_size=batch_size), [], open_clip.create_model
    monkeypatch.setattr(open_clip, "create_model", lambda *of, **how: made.append(how) or create(*of, **how))
    pictures, texts = (cache.encode(corpus, tower, tmp_path, progress=False) for tower in (clip.images, clip.texts))
    assert len(made) == 1 and made[0]["require_pretrained"] and clip.images.clip is clip.texts.clip
    expected = by_hand(folders["own"], corpus)
    np.testing.assert_allclose(pictures.vectors, expected[0], atol=1e-4)
    np.testing.assert_allclose(texts.vectors, expected[1], atol=1e-4)
    assert pictures.width == texts.width == 12 and np.ptp(pictures.vectors, 0).max() > 0.01
    again = OpenClip(f"local-dir:{shutil.copytree(folders['own'], tmp_path / 'moved')}")
    assert cache.encode(corpus, again.images, tmp_path).key == pictures.key and "loaded" not in vars(again)
    assert clip.images.spec() != clip.texts.spec()
    weights = load_file(tmp_path / "moved/open_clip_model.safetensors")
    save_file({name: -value for name, value in weights.items()}, tmp_path / "moved/open_clip_model.safetensors")
    assert OpenClip(f"local-dir:{tmp_path / 'moved'}").images.spec() != clip.images.spec()


def test_siglip_with_a_tower_of_timm_and_a_tokenizer_of_transformers(folders, corpus):
    clip, expected = OpenClip(f"local-dir:{folders['siglip']}"), by_hand(folders["siglip"], corpus)
    np.testing.assert_allclose(clip.images.encode(corpus, progress=False).vectors, expected[0], atol=1e-4)
    np.testing.assert_allclose(clip.texts.encode(corpus, progress=False).vectors, expected[1], atol=1e-4)
    assert np.ptp(expected[1], 0).max() > 0.05
    shouted = clip.texts.unknown_share(["MBWA, mkubwa!"]), clip.texts.unknown_share(["mbwa mkubwa"])
    assert shouted[0].equals(shouted[1]), "counted after its own cleaning"


def test_the_preprocessing_is_the_models_own(folders, corpus):
    clip = OpenClip(f"local-dir:{folders['own']}")
    picture = Image.new("RGB", (64, 32), (255, 128, 0))
    picture.paste((0, 0, 255), (0, 0, 12, 32))  # at the left, which a crop from the middle would lose
    seen = clip.loaded[1](picture)
    assert seen.shape == (3, 32, 32)
    colour = seen[:, 16, 1] * torch.tensor(PREPROCESS["std"]) + torch.tensor(PREPROCESS["mean"])
    np.testing.assert_allclose(colour, [0, 0, 1], atol=0.02)


def test_a_text_tower_of_xlm_r_from_a_folder_alone(folders, corpus):
    clip = OpenClip(f"local-dir:{folders['xlmr']}")
    assert clip.loaded[0].text.transformer.config.model_type == "xlm-roberta"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["xlmr"])
    ids = tokenizer(TEXTS, padding="max_length", max_length=12, truncation=True, return_tensors="pt").input_ids
    expected = unit([clip.loaded[0].encode_text(row[None]) for row in ids])
    vectors = clip.texts.encode(corpus, progress=False).vectors
    np.testing.assert_allclose(vectors[0::3], expected, atol=1e-4)
    np.testing.assert_allclose(vectors[1::3], expected, atol=1e-4)  # it is told no language


@pytest.mark.parametrize("batch_size", [1, 4])
def test_nllb_is_told_the_language_of_every_batch(folders, corpus, batch_size):
    clip = OpenClip(f"local-dir:{folders['nllb']}", batch_size=batch_size)
    model, tokenizer, seen = clip.loaded[0], transformers.AutoTokenizer.from_pretrained(folders["nllb"]), []
    expected = []
    for row in corpus.rows[corpus.rows.text != ""].itertuples():
        code, end = tokenizer.convert_tokens_to_ids([row.lang, "</s>"])
        ids = [code, *tokenizer(row.text, add_special_tokens=False).input_ids, end]
        expected.append(model.encode_text(torch.tensor([ids + [1] * (24 - len(ids))])))
    encode_text = model.encode_text
    model.encode_text = lambda ids: seen.extend(ids[:, 0].tolist()) or encode_text(ids)
    vectors = clip.texts.encode(corpus, progress=False).vectors
    np.testing.assert_allclose(vectors, unit(expected), atol=1e-4)
    assert np.linalg.norm(vectors[0::3] - vectors[1::3], axis=1).min() > 0.05, "one text in two languages"
    assert sorted(seen) == sorted(tokenizer.convert_tokens_to_ids(TOLD) * 3)
    with pytest.raises(CorpusError, match="knows no ''; give instead={'': CODE}"):
        clip.texts.encode(["mbwa"])
    swahili = OpenClip(f"local-dir:{folders['nllb']}", instead={"": "swh_Latn"}).texts
    np.testing.assert_allclose(swahili.encode(TEXTS).vectors, vectors[1::3], atol=1e-5)


def test_what_a_tower_makes_of_a_language(folders, capsys):
    rows = {"id": list("abc"), "group": "g", "lang": ["swh_Latn", "swh_Latn", "amh_Ethi"]}
    corpus = Corpus(pd.DataFrame(rows | {"text": ["mbwa " * 20, "mbwa", "ውሻ"]}))
    towers = OpenClip(f"local-dir:{folders['xlmr']}").texts
    with pytest.warns(UserWarning, match="50% of the pieces of amh_Ethi are unknown"):
        towers.encode(corpus)
    assert "1 of 2 texts in swh_Latn are longer than its 12 pieces and were cut" in capsys.readouterr().out
    assert towers.unknown_share(corpus).set_index("lang").cut.to_dict() == {"amh_Ethi": 0, "swh_Latn": 1}
    own = OpenClip(f"local-dir:{folders['own']}").texts.unknown_share(corpus)
    assert own.unknown.tolist() == [0, 0] and own.cut.tolist() == [0, 1], "bytes are never unknown"


def test_half_precision_and_little_memory(folders, corpus, capsys):
    exact = OpenClip(f"local-dir:{folders['own']}")
    half = OpenClip(f"local-dir:{folders['own']}", dtype="bfloat16")
    for tower in ("images", "texts"):
        a, b = (getattr(clip, tower).encode(corpus, progress=False).vectors for clip in (exact, half))
        assert (a * b).sum(1).min() > 0.99 and next(half.loaded[0].parameters()).dtype == torch.bfloat16
    assert half.images.spec() != exact.images.spec()
    before, encode_image = exact.images.encode(corpus, progress=False).vectors, exact.loaded[0].encode_image

    def small(pictures):
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode_image(pictures)

    exact.loaded[0].encode_image = small
    np.testing.assert_allclose(exact.images.encode(corpus, progress=False).vectors, before, atol=1e-5)
    assert capsys.readouterr().out == "out of memory: going on with batches of 2\n"


def test_a_bare_file_is_shown_pictures_as_its_published_likes_are(zoo, corpus, monkeypatch):
    """open_clip would take CLIP's preprocessing for a file, whatever the model."""
    squash = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "resize_mode": "squash"}
    publish(monkeypatch, webli=squash, again=squash)
    clip = OpenClip("Tiny-Squash", zoo)
    expected = by_hand(zoo.parent, corpus)
    np.testing.assert_allclose(clip.images.encode(corpus, progress=False).vectors, expected[0], atol=1e-4)
    np.testing.assert_allclose(clip.texts.encode(corpus, progress=False).vectors, expected[1], atol=1e-4)
    publish(monkeypatch, webli=squash, other=squash | {"resize_mode": "shortest"})
    with pytest.raises(CorpusError, match="how are its pictures prepared.*like=TAG.*squash.*shortest"):
        OpenClip("Tiny-Squash", zoo).images.encode(corpus)
    assert OpenClip("Tiny-Squash", zoo, like="webli").spec() == clip.spec()
    assert OpenClip("Tiny-Squash", zoo, like="other").spec() != clip.spec()
    publish(monkeypatch)
    with pytest.raises(CorpusError, match="how are its pictures prepared"):
        OpenClip("Tiny-Squash", zoo).images.encode(corpus)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2", "ViT-B-32-SigLIP2-256", "nllb-clip-base-siglip"])
def test_siglip_of_the_real_zoo_from_a_bare_file(name, zoo):
    found = OpenClip(name, zoo).found.preprocess
    assert found["mean"] == found["std"] == (0.5, 0.5, 0.5) and found["resize_mode"] == "squash"
    assert OpenClip("ViT-B-32", zoo).found.preprocess["resize_mode"] == "shortest"


@pytest.mark.filterwarnings("ignore")  # by default, open_clip only warns
def test_a_tag_is_downloaded_and_its_activation_is_checked(zoo, corpus, monkeypatch):
    settings = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "resize_mode": "squash"}
    publish(monkeypatch, webli=settings | {"file": str(zoo)}, openai=settings | {"file": str(zoo), "quick_gelu": True})
    vectors = OpenClip("Tiny-Squash", "webli").images.encode(corpus, progress=False).vectors
    np.testing.assert_allclose(vectors, by_hand(zoo.parent, corpus)[0], atol=1e-4)
    with pytest.raises(CorpusError, match="QuickGELU mismatch"):
        OpenClip("Tiny-Squash", "openai").images.encode(corpus)


def test_a_text_tower_beside_a_bare_file(folders, corpus, tmp_path, monkeypatch):
    """NLLB-CLIP by its name and a file: configuration and tokenizer of the text tower come from a folder, not from the hub."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = json.loads((folders["nllb"] / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "Tiny-NLLB.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", open_clip.factory._MODEL_CONFIGS | {"Tiny-NLLB": config})
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-NLLB", {"v1": PREPROCESS})
    file = folders["nllb"] / "open_clip_model.safetensors"
    with pytest.raises(CorpusError, match="'somebody/text' is no folder, and the hub did not give it: no network"):
        OpenClip("Tiny-NLLB", file).texts.encode(corpus)
    clip = OpenClip("Tiny-NLLB", file, text_tower=folders["nllb"])
    whole = OpenClip(f"local-dir:{folders['nllb']}")
    np.testing.assert_array_equal(clip.texts.encode(corpus).vectors, whole.texts.encode(corpus).vectors)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("nllb-clip-bas", "v1", "zoo has no 'nllb-clip-bas'; near are nllb-clip-base, nllb-clip-large"),
        ("vit-b-32", "openai", "near are .*ViT-B-32"),
        ("ViT-B-32", "opnai", "neither a checkpoint file nor a tag; tags: openai, laion400m"),
        ("ViT-B-32", None, "`pretrained` is None, neither"),
        ("ViT-B-32", "/no/such/file.safetensors", "neither a checkpoint file nor a tag"),
        ("local-dir:/no/such/folder", None, "/no/such/folder is no folder"),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, pretrained, message):
    with pytest.raises(CorpusError, match=message):
        OpenClip(name, pretrained).images.spec()


def test_folders_are_looked_at_when_it_is_made(folders, tmp_path):
    for name, tower, message in (
        ("local-dir:nowhere", None, "^nowhere is no folder; give one with open_clip_config.json, "),
        (f"local-dir:{tmp_path}", None, "holds no open_clip_config.json"),
        ("ViT-B-32", "some/where", "^some/where is no folder; give one with config.json, tokenizer.json or"),
        (f"local-dir:{folders['nllb']}", tmp_path, "holds no config.json"),
    ):
        with pytest.raises(CorpusError, match=message):
            OpenClip(name, "openai", text_tower=tower)


def test_a_hub_that_cannot_be_reached_says_what_to_do_instead(monkeypatch):
    def offline(*what, **how):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr(open_clip, "download_pretrained", offline)
    for name, pretrained in (("hf-hub:somebody/a-model", None), ("ViT-B-32", "openai")):
        with pytest.raises(CorpusError, match=r"the hub did not give it: no network\nInstead: `hf download .*give its path"):
            OpenClip(name, pretrained).images.spec()


def test_a_model_of_the_hub_is_brought_here(folders, corpus, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, allow_patterns: str(folders["own"]))
    file = str(folders["own"] / "open_clip_model.safetensors")
    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", lambda name: file)
    clip = OpenClip("hf-hub:somebody/a-model")
    assert clip.spec() == OpenClip(f"local-dir:{folders['own']}").spec()
    np.testing.assert_allclose(clip.images.encode(corpus).vectors, by_hand(folders["own"], corpus)[0], atol=1e-4)


def test_a_folder_that_lacks_something(folder, corpus):
    def said():
        with pytest.raises(CorpusError) as error:
            OpenClip(f"local-dir:{folder}").images.encode(corpus)
        return str(error.value)

    weights, config = folder / "open_clip_model.safetensors", folder / "open_clip_config.json"
    whole, settings = load_file(weights), json.loads(config.read_text())
    lacking = dict(whole)
    del lacking["visual.conv1.weight"]
    save_file(lacking, weights)
    assert "cannot be loaded" in said() and 'Missing key(s) in state_dict: "visual.conv1.weight"' in said()
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{weights}, as local-dir:{folder}, cannot be loaded" in said()
    weights.unlink()
    assert "holds no *.safetensors or *.bin" in said(), "open_clip would go on with random weights and a warning"
    save_file(whole, weights)
    config.write_text(json.dumps(settings | {"preprocess_cfg": {}}))
    assert "preprocess_cfg with mean, std is missing" in said(), "open_clip would take CLIP's"
    config.write_text(json.dumps({"preprocess_cfg": {}}))
    assert "model_cfg with embed_dim, text_cfg, vision_cfg is missing" in said()
    config.unlink()
    assert "holds no open_clip_config.json" in said()


def test_a_text_tower_without_its_tokenizer(folders, corpus, tmp_path):
    folder = shutil.copytree(folders["xlmr"], tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CorpusError, match="holds no tokenizer.json or vocab"):
        OpenClip(f"local-dir:{folder}").texts.encode(corpus)
