"""Tiny real checkpoints, made from configs, with tokenizers trained on six lines: folders as the libraries save them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from xmalign_lab.encoders.checkpoint import imported

pytest.importorskip("tokenizers")
transformers = imported("transformers")
transformers.utils.logging.set_verbosity_error()

LINES = [
    "mbwa mkubwa anakimbia sana",
    "paka mdogo na mbwa",
    "the big dog is running fast",
    "a small cat and a dog",
    "බල්ලා වේගයෙන් දුවනවා",
    "කුඩා පූසා",
]
LANGUAGES = ["eng_Latn", "swh_Latn", "sin_Sinh", "quy_Latn"]
SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic", "resize_mode": "squash"}


def trained(kind: str, specials: list[str], spaces=None, **more) -> dict:
    """The `model` part of a tokenizer of `tokenizers` trained on LINES: its vocab, and its merges if it has any."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(getattr(models, kind)())
    tokenizer.pre_tokenizer = spaces or pre_tokenizers.Metaspace()
    trainer = getattr(trainers, f"{kind.title()}Trainer")(vocab_size=150, special_tokens=specials, show_progress=False, **more)
    tokenizer.train_from_iterator(LINES, trainer)
    return json.loads(tokenizer.to_str())["model"]


def saved(folder: Path, model, *others) -> Path:
    """`model` with weights far from their small initial ones, so that every input matters, and whatever else saves itself."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + (weight.ndim == 1) * 0.5)
    for one in (model, *others):
        one.save_pretrained(folder)
    return folder


def nllb_tokenizer():
    made = trained("BPE", ["<s>", "<pad>", "</s>", "<unk>"])
    merges = [tuple(merge) for merge in made["merges"]]
    return transformers.NllbTokenizer(vocab=made["vocab"], merges=merges, extra_special_tokens=LANGUAGES)


def nllb(folder: Path) -> Path:
    """M2M100, the kind of model that NLLB is, with NLLB's tokenizer."""
    tokenizer = nllb_tokenizer()
    size = dict(d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    feed = dict(encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=24, pad_token_id=1)
    config = transformers.M2M100Config(vocab_size=len(tokenizer), **size, **feed)
    return saved(folder, transformers.M2M100Model(config), tokenizer)


def xlmr(folder: Path) -> Path:
    """XLM-R with 14 places, of which RoBERTa's way of counting spends two."""
    made = trained("Unigram", ["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer = transformers.XLMRobertaTokenizer(vocab=[tuple(piece) for piece in made["vocab"]])
    config = transformers.XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=14, pad_token_id=1, **SIZE)
    return saved(folder, transformers.XLMRobertaModel(config), tokenizer)


def vit(folder: Path) -> Path:
    """A ViT of 16 patches, without a pooler, as most are published."""
    model = transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **SIZE), add_pooling_layer=False)
    return saved(folder, model, transformers.ViTImageProcessor(size={"height": 32, "width": 32}))


def clip(folder: Path) -> Path:
    from tokenizers import pre_tokenizers

    ends = ["<|startoftext|>", "<|endoftext|>"]
    made = trained("BPE", ends, pre_tokenizers.ByteLevel(add_prefix_space=False), end_of_word_suffix="</w>")
    merges = [tuple(merge) for merge in made["merges"]]
    letters = [letter + end for letter in pre_tokenizers.ByteLevel.alphabet() for end in ("", "</w>")]
    vocab = made["vocab"] | {one: len(made["vocab"]) + row for row, one in enumerate(set(letters) - {*made["vocab"]})}
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=merges)
    text = SIZE | {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "projection_dim": 12}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    vision = SIZE | {"image_size": 32, "patch_size": 8, "projection_dim": 12}
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return saved(folder, model, tokenizer, processor)


def siglip(folder: Path) -> Path:
    """SigLIP, which pools the last of its places, padding or not."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = trained("Unigram", ["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    inner = Tokenizer(models.Unigram([tuple(piece) for piece in made["vocab"]], unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    text = SIZE | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=SIZE | {"image_size": 32, "patch_size": 8})
    processor = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    return saved(folder, transformers.SiglipModel(config), tokenizer, processor)


def open_clip_folder(folder: Path, tower: Path | None = None, pooler="cls_pooler", places=24) -> Path:
    """What `local-dir:` takes: a small ViT with CLIP's own text tower, or with the text model in the folder `tower`."""
    text = {"context_length": places, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
    if not tower:
        return _open_clip(folder, {"vision_cfg": vision, "text_cfg": text})
    text = {"context_length": places, "hf_model_name": str(tower), "hf_tokenizer_name": "somebody/text"}
    text |= {"hf_pooler_type": pooler, "hf_proj_type": "linear", "hf_model_pretrained": False}
    transformers.AutoConfig.from_pretrained(tower).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tower).save_pretrained(folder)
    return _open_clip(folder, {"vision_cfg": vision, "text_cfg": text})


def open_clip_siglip(folder: Path, tokenizer: Path) -> Path:
    """As SigLIP 2 is made in open_clip: a tower of timm, a text tower of open_clip's own, a tokenizer of transformers."""
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
    text = {"context_length": 16, "vocab_size": 300, "hf_tokenizer_name": "somebody/siglip", "width": 16, "heads": 2, "layers": 2}
    text |= {"tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return _open_clip(folder, {"custom_text": True, "init_logit_bias": -10, "vision_cfg": vision, "text_cfg": text}, 64)


def _open_clip(folder: Path, config: dict, width=12) -> Path:
    open_clip = imported("open_clip")
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    config = {"embed_dim": width, **config}
    torch.manual_seed(0)
    model = kind(**{name: value for name, value in config.items() if name != "custom_text"})
    with torch.no_grad():
        for weight in model.text.parameters() if custom else ():
            weight.mul_(8)  # transformers begins small, and every text would look alike
    folder.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_name"] = "somebody/text"  # as it is published: a name of the hub
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    return folder


# Translators: one layer each side, weights so large that the answer depends on every piece and on both languages


SIDES = {
    f"{side}_{part}": size
    for side in ("encoder", "decoder")
    for part, size in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
}
SIDES |= {"d_model": 16, "max_position_embeddings": 24}


def _translator(folder: Path, model, *others) -> Path:
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=1.0 if weight.ndim > 1 else 0.5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.fill_(1)
        for table in model.modules():
            if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
                table.weight[table.padding_idx] = 0  # as it is in a Marian, which starts its answers with it
    for one in (model, *others):
        one.save_pretrained(folder)
    return folder


def _pieces(path: Path) -> dict[str, int]:
    """A sentencepiece model trained on LINES, as a file, and its pieces."""
    import sentencepiece

    path.parent.mkdir(parents=True, exist_ok=True)
    size = dict(vocab_size=90, model_type="bpe", hard_vocab_limit=False, bos_id=0, pad_id=1, eos_id=2, unk_id=3, minloglevel=2)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_prefix=str(path.with_suffix("")), **size)
    path.with_suffix(".vocab").unlink()
    path.with_suffix(".model").rename(path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return {model.id_to_piece(row): row for row in range(model.vocab_size())}


def nllb_translator(folder: Path) -> Path:
    tokenizer = nllb_tokenizer()
    config = transformers.M2M100Config(vocab_size=len(tokenizer), pad_token_id=1, decoder_start_token_id=2, **SIDES)
    return _translator(folder, transformers.M2M100ForConditionalGeneration(config), tokenizer)


def m2m100_translator(folder: Path) -> Path:
    spm, pieces = folder / "sentencepiece.bpe.model", _pieces(folder / "sentencepiece.bpe.model")
    (folder / "vocab.json").write_text(json.dumps(pieces))
    tokenizer = transformers.M2M100Tokenizer(str(folder / "vocab.json"), str(spm))
    size = len(pieces) + len(tokenizer.lang_code_to_id) + 8
    config = transformers.M2M100Config(vocab_size=size, pad_token_id=1, decoder_start_token_id=2, **SIDES)
    return _translator(folder, transformers.M2M100ForConditionalGeneration(config), tokenizer)


def marian_translator(folder: Path, *languages: str, pair=("en", "sw")) -> Path:
    """A Marian from one language into another, or into `languages`, of which it has tokens."""
    pieces = [piece for piece in _pieces(folder / "source.spm") if piece[0] != "<"]
    _pieces(folder / "target.spm")
    vocab = ["</s>", "<unk>", *pieces, *(f">>{one}<<" for one in languages), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: row for row, piece in enumerate(vocab)}))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    tokenizer = transformers.MarianTokenizer(*files, source_lang=pair[0], target_lang=pair[1], model_max_length=24)
    last = len(vocab) - 1
    ids = dict(pad_token_id=last, decoder_start_token_id=last, eos_token_id=0, forced_eos_token_id=None, bad_words_ids=[[last]])
    config = transformers.MarianConfig(vocab_size=len(vocab), **ids, **SIDES)
    return _translator(folder, transformers.MarianMTModel(config), tokenizer)


def madlad_translator(folder: Path) -> Path:
    """A T5 with tokens for some languages, Azerbaijani twice."""
    made = trained("Unigram", ["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    pieces = [tuple(piece) for piece in made["vocab"]]
    pieces += [(f"<2{code}>", -20.0) for code in ("en", "sw", "si", "yo", "am", "qu", "az", "az_RU", "meta")]
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    size = dict(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, tie_word_embeddings=False, decoder_start_token_id=0)
    config = transformers.T5Config(vocab_size=len(tokenizer), feed_forward_proj="gated-gelu", **size)
    return _translator(folder, transformers.T5ForConditionalGeneration(config), tokenizer)
