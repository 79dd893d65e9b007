"""Models of open_clip: one `OpenClip`, whose `images` and `texts` are two encoders over the same loaded weights."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from xmalign_lab import profile
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.checkpoint import TOKENIZER, Output, PictureTower, digests, folder_of, from_hub, imported, loading
from xmalign_lab.encoders.reading import Reader, TextTower

CONFIG = "open_clip_config.json"
WEIGHTS = ["*.safetensors", "*.bin", "*.pth"]
TEXTUAL = ["*.json", "*.txt", "*.model", "*/config.json"]
NEEDED = {"model_cfg": {"embed_dim", "vision_cfg", "text_cfg"}, "preprocess_cfg": {"mean", "std"}}
PREPROCESS = ("mean", "std", "interpolation", "resize_mode")


class Found(NamedTuple):
    """What `OpenClip` was found to be: open_clip's name for it, the model's and the pictures' settings, weights, its folder."""

    name: str
    model: dict
    preprocess: dict
    weights: Path
    folder: Path | None = None


@dataclass(frozen=True)
class OpenClip:
    """A contrastive model of open_clip, both towers: `encode(corpus, clip.images)` and `encode(corpus, clip.texts)`.

    `name` is a model of its zoo with `pretrained`, a tag of that model or a checkpoint file; or 'local-dir:FOLDER', which
    holds open_clip_config.json and weights; or 'hf-hub:NAME', downloaded once into such a folder. `text_tower` is a folder
    with config.json and tokenizer of a text tower of transformers (XLM-R, NLLB), where the model's own folder lacks them.

    A bare file says nothing of its preprocessing, and open_clip takes CLIP's, which is wrong for SigLIP (open_clip issue
    1068). Here it is that of the model's published checkpoints, if they agree, or of the tag `like`. `instead` is which
    language an NLLB tower is told in place of one that it does not know: see `reading.Reader`.

    Raises `CorpusError` for an unknown name or tag (the nearest are listed), weights that are missing or do not fill the
    model, a hub that cannot be reached, preprocessing that cannot be known, and a language that has to be told and is not
    known.
    """

    name: str
    pretrained: str | Path | None = None
    text_tower: str | Path | None = None
    like: str | None = None
    instead: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    batch_size: int = 64
    dtype: str = "float32"

    VERSION = 1

    def __post_init__(self):
        kind, _, place = self.name.partition(":")
        if kind == "local-dir":
            folder_of(Path(place), [[CONFIG], WEIGHTS])
        if self.text_tower:
            folder_of(Path(self.text_tower), [["config.json"], TOKENIZER])

    @property
    def images(self) -> ClipImages:
        return ClipImages(self)

    @property
    def texts(self) -> ClipTexts:
        return ClipTexts(self)

    @cached_property
    def found(self) -> Found:
        """The files, downloaded if need be; nothing is loaded."""
        kind, _, place = self.name.partition(":")
        if kind not in ("local-dir", "hf-hub"):
            return self._in_zoo()
        folder, factory = folder_of(place, [[CONFIG]], TEXTUAL), imported("open_clip").factory
        if kind == "hf-hub":
            folder = Path(from_hub(place, lambda: factory.download_pretrained_from_hf(place))).parent
        folder = folder_of(folder, [[CONFIG], WEIGHTS])
        config = json.loads((folder / CONFIG).read_text())
        if missing := [one for one, parts in NEEDED.items() if not parts <= {*config.get(one, {})}]:
            raise CorpusError(f"{folder / CONFIG}: {missing[0]} with {', '.join(sorted(NEEDED[missing[0]]))} is missing; add it")
        preprocess = {part: value for part, value in config["preprocess_cfg"].items() if part in PREPROCESS}
        weights = Path(factory._find_checkpoint_in_dir(folder))
        return Found(f"local-dir:{folder}", config["model_cfg"], preprocess, weights, folder)

    def _in_zoo(self) -> Found:
        clip, name, wanted = imported("open_clip"), self.name.replace("/", "-"), str(self.pretrained)
        if name not in (zoo := clip.list_models()):
            near = ", ".join(difflib.get_close_matches(name, zoo, 5, 0.3)) or "none"
            raise CorpusError(f"open_clip's zoo has no {self.name!r}; near are {near}; or give local-dir:FOLDER or hf-hub:NAME")
        tags = clip.list_pretrained_tags_by_model(name)
        if wanted not in tags and not Path(wanted).is_file():
            raise CorpusError(f"{name}: `pretrained` is {wanted}, neither a checkpoint file nor a tag; tags: {', '.join(tags)}")
        published = {tag: clip.get_pretrained_cfg(name, tag) for tag in tags}
        asked = [self.like or wanted] if (self.like or wanted) in tags else tags
        ways = {tag: {part: published[tag][part] for part in PREPROCESS} for tag in asked}
        if len({str(way) for way in ways.values()}) != 1:
            instead = f"Give local-dir:FOLDER with a {CONFIG} that has a preprocess_cfg, or like=TAG of a checkpoint made alike"
            raise CorpusError(f"{wanted}: how are its pictures prepared? {instead}: {ways or 'none is published'}")
        if wanted in tags:
            repository = published[wanted].get("hf_hub", "").rstrip("/") or name
            wanted = from_hub(repository, lambda: clip.download_pretrained(published[wanted]))
        return Found(name, clip.get_model_config(name), ways[asked[0]], Path(wanted))

    @cached_property
    def _text(self) -> dict:
        """Settings of the text tower, pointing at files that are here where there are any."""
        text, folder = dict(self.found.model["text_cfg"]), self.found.folder
        if "hf_model_name" in text:
            near = [self.text_tower, folder, folder and folder / Path(text["hf_model_name"]).name]
            here = [str(one) for one in near if one and (Path(one) / "config.json").is_file()]
            text |= {"hf_model_name": [*here, text["hf_model_name"]][0], "hf_model_pretrained": False}  # the checkpoint fills it
        if "hf_tokenizer_name" in text:
            place = self.text_tower or folder or text["hf_tokenizer_name"]
            text["hf_tokenizer_name"] = str(folder_of(place, [TOKENIZER], TEXTUAL))
        return text

    def spec(self) -> dict:
        """Digests of weights and text tower, and no path: the same model elsewhere has the same."""
        found, tokenizer = self.found, self._text.get("hf_tokenizer_name")
        files = [digests(found.weights.parent, [found.weights.name])]
        files += [digests(Path(folder), TEXTUAL) for folder in (found.folder, tokenizer) if folder]
        libraries = {library: version(library) for library in ("open_clip_torch", "transformers", "pillow")}
        settings = {"name": None if found.folder else found.name, "preprocess": found.preprocess, "dtype": self.dtype}
        kind = {"encoder": "OpenClip", "version": self.VERSION, "instead": dict(self.instead)}
        return kind | libraries | settings | {"files": files}

    @cached_property
    def loaded(self) -> tuple:
        """The model on its device, the preprocessing of pictures, and the reader of texts; loaded once for both towers."""
        clip, found, text = imported("open_clip"), self.found, self._text
        hub = f"; `text_tower` may be a folder with the files of {text['hf_model_name']}" if "hf_model_name" in text else ""
        with warnings.catch_warnings(), loading(f"{found.weights}, as {self.name},", hub):
            warnings.filterwarnings("error", "QuickGELU mismatch")  # the weights were trained with another function
            how = {"require_pretrained": True, "force_preprocess_cfg": found.preprocess, "text_cfg": text}
            model = clip.create_model(found.name, None if found.folder else str(self.pretrained), **how)
            tokenizer = _tokenizer(found.name, text)
        model = model.to(self.device or profile.device(), getattr(torch, self.dtype)).eval()
        transform = clip.transform.image_transform_v2(clip.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        kind = getattr(getattr(getattr(model, "text", None), "config", None), "model_type", "")
        inner = getattr(tokenizer, "tokenizer", tokenizer)
        return model, transform, Reader(inner, tokenizer.context_length, kind, self.name, self.instead, tokenizer)


def _tokenizer(name: str, text: dict):
    clip = imported("open_clip")
    if "hf_tokenizer_name" not in text:
        return clip.get_tokenizer(name)
    length = text.get("context_length", clip.tokenizer.DEFAULT_CONTEXT_LENGTH)
    settings = {"tokenizer_mode": text.get("tokenizer_mode"), **text.get("tokenizer_kwargs", {})}
    return clip.tokenizer.HFTokenizer(text["hf_tokenizer_name"], length, **settings)


@dataclass(frozen=True)
class _Tower:
    clip: OpenClip

    @property
    def batch_size(self) -> int:
        return self.clip.batch_size

    def spec(self) -> dict:
        return self.clip.spec() | {"tower": self.modality}


class ClipImages(_Tower, PictureTower):
    """The image tower of an `OpenClip`: pictures, put on white → unit vectors (n, width), by the model's own preprocessing."""

    def forward(self, pictures: list[Image.Image]) -> Output:
        model, transform, _ = self.clip.loaded
        like = next(model.parameters())
        return Output(model.encode_image(torch.stack([*map(transform, pictures)]).to(like.device, like.dtype)))


class ClipTexts(_Tower, TextTower):
    """The text tower of an `OpenClip`: texts → unit vectors (n, width), an NLLB tower told the language of every batch."""

    @property
    def reader(self) -> Reader:
        return self.clip.loaded[2]

    def forward(self, batch: torch.Tensor) -> Output:
        model = self.clip.loaded[0]
        return Output(model.encode_text(batch.to(next(model.parameters()).device)))
