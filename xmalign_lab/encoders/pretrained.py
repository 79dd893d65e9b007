"""Encoders that others have trained, from a folder or from the hub: texts and pictures through a model of transformers.

Over plain transformers: a forward pass and a pooling are all that these models need, and sentence-transformers would bring
more packages. What it adds to a folder, `modules.json` with a pooling and perhaps layers behind it, is read here, and a
model with layers that this file does not know is refused rather than encoded wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from xmalign_lab import profile
from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.checkpoint import TOKENIZER, Output, PictureTower, digests, folder_of, imported, loading, on_disk
from xmalign_lab.encoders.reading import Reader, TextTower

MEAN = {"pooling_mode_mean_tokens": True, "mean": True, "pooling_mode_cls_token": False, "cls": False}  # both ways of saying it
MODEL = (["config.json"], ["*.safetensors"])
# How a kind of vision model is read: by the pooler it was trained through, its first token, or the mean.
VISION = dict.fromkeys(("clip_vision_model", "siglip_vision_model", "beit", "swin", "swinv2", "convnext", "convnextv2"), "pooler")
VISION |= dict.fromkeys(("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "dinov3_vit"), "first") | {"ijepa": "mean"}


@dataclass(frozen=True)
class _Folder:
    """A model as transformers saves one. `name` is its folder, which is looked at at once, or its name on the hub."""

    name: str | Path
    device: str | None = None
    batch_size: int = 64
    tokens: bool = False
    dtype: str = "float32"

    def __post_init__(self):
        if on_disk(self.name):
            folder_of(self.name, self.NEEDED)

    @cached_property
    def folder(self) -> Path:
        """Where the model lies; a hub's model is brought there first."""
        return folder_of(self.name, self.NEEDED)

    def spec(self) -> dict:
        """The same model in another folder has the same spec: it holds a digest of each file, and no name."""
        settings = {key: value for key, value in vars(self).items() if key in ("tokens", "dtype", "instead")}
        libraries = {library: version(library) for library in self.LIBRARIES}
        return {"encoder": type(self).__name__, "version": self.VERSION} | libraries | settings | {"files": digests(self.folder)}

    def _model(self, spare: str) -> nn.Module:
        """The model on its device; `CorpusError` if the weights lack a part whose name does not hold `spare`."""
        models = imported("transformers").AutoModel
        with loading(self.folder):
            model, found = models.from_pretrained(self.folder, use_safetensors=True, output_loading_info=True)
        # What the weights lack is left random, with a warning only
        if lost := sorted(part for part in found["missing_keys"] if not spare or spare not in part):
            raise CorpusError(f"{self.folder}: the weights lack {len(lost)} parts of the model, {lost[0]} for one")
        return model.to(self.device or profile.device(), getattr(torch, self.dtype)).eval()


@dataclass(frozen=True)
class SentenceEncoder(_Folder, TextTower):
    """Texts → unit vectors (n, width) by a pretrained transformer: the mean of its last layer's tokens, or the first token.

    `name` is a folder, as transformers and sentence-transformers save one, or a model of the hub, such as
    'sentence-transformers/all-MiniLM-L6-v2', which is downloaded once: BERT, XLM-R, LaBSE, the encoder of M2M100 or NLLB, or
    the text side of CLIP and SigLIP, which have a pooling of their own. Else the folder decides between mean and first
    token; without a word from it, it is the mean (Reimers & Gurevych 2019, arXiv 1908.10084). Texts go in as they are: a
    prefix that a model asks for ("query: ") is the caller's. A vector moves by about 1e-6 with the batch it is in.

    `tokens` keeps the last layer's tokens, with mask and the word that each belongs to (-1: a token the tokenizer added).
    `instead` is which language a tower is told in place of one that it does not know: see `reading.Reader`.

    Raises `CorpusError` for a folder that lacks something, a name that the hub does not give, weights that do not fill the
    model, poolings or layers that are none of these, and a language that has to be told and is not known.
    """

    instead: Mapping[str, str] = field(default_factory=dict)

    VERSION = 2
    NEEDED = (*MODEL, TOKENIZER)
    LIBRARIES = ("transformers",)

    @cached_property
    def _loaded(self) -> tuple[Reader, nn.Module, bool, list[Callable]]:
        """Reader, model on its device, whether its vector is the mean, and the layers behind."""
        with loading(self.folder):
            mean, behind = _pooling(self.folder)
            tokenizer = imported("transformers").AutoTokenizer.from_pretrained(self.folder)
        model = self._model("pooler")  # no vector here goes through a pooler of BERT's
        tower = getattr(model, "text_model", model)
        reader = Reader(tokenizer, _limit(tower, tokenizer), model.config.model_type, str(self.folder), self.instead)
        return reader, model, mean, [layer.to(model.device, model.dtype) for layer in behind]

    @property
    def reader(self) -> Reader:
        return self._loaded[0]

    def forward(self, batch) -> Output:
        _, model, mean, behind = self._loaded
        kind, both = model.config.model_type, hasattr(model, "get_text_features")
        tower = model.get_text_features if both else model.get_encoder() if model.config.is_encoder_decoder else model
        ids, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
        out = tower(input_ids=ids, **({} if kind.startswith("siglip") else {"attention_mask": mask}))  # SigLIP reads padding
        states, pooled = out.last_hidden_state, both or kind == "clip_text_model"
        average = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors = out.pooler_output if pooled else average if mean else states[:, 0]
        for layer in behind:
            vectors = layer(vectors)
        if not self.tokens:
            return Output(vectors)
        words = [[-1 if word is None else word for word in batch.word_ids(row)] for row in range(len(ids))]
        return Output(vectors, states, mask.bool(), torch.tensor(words))


@dataclass(frozen=True)
class PictureEncoder(_Folder, PictureTower):
    """Pictures → unit vectors (n, width) by a pretrained vision model: ViT, DINOv2, the picture side of CLIP and SigLIP …

    How its output is pooled is a matter of its kind (`VISION`); a kind that is not listed is refused. Pictures are put on
    white and go through the folder's own preprocessing, by Pillow whether torchvision is there or not. `tokens` keeps the
    last layer's patches, without the tokens before them.

    Raises `CorpusError` for a folder that lacks something, a name that the hub does not give, weights that do not fill the
    model, and a picture that cannot be read.
    """

    VERSION = 1
    NEEDED = (*MODEL, ["preprocessor_config.json", "processor_config.json"])
    LIBRARIES = ("transformers", "pillow")

    @cached_property
    def _loaded(self) -> tuple:
        """The preprocessing, the model on its device, and how its output is read."""
        with loading(self.folder):
            config = imported("transformers").AutoConfig.from_pretrained(self.folder)
            processor = imported("transformers").AutoImageProcessor.from_pretrained(self.folder, backend="pil")
        how = "pooler" if hasattr(config, "vision_config") else VISION.get(config.model_type)
        if not how:
            raise CorpusError(f"{self.folder}: how a {config.model_type!r} is pooled is not known; known are {', '.join(VISION)}")
        return processor, self._model("" if how == "pooler" else "pooler"), how

    def forward(self, pictures: list[Image.Image]) -> Output:
        processor, model, how = self._loaded
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(model.device, model.dtype)
        out = getattr(model, "get_image_features", model)(pixel_values=pixels)
        states = out.last_hidden_state
        vectors = out.pooler_output.flatten(1) if how == "pooler" else states[:, 0] if how == "first" else states.mean(1)
        if not self.tokens:
            return Output(vectors)
        side = getattr(getattr(model.config, "vision_config", model.config), "patch_size", None)
        if states.ndim != 3 or not side:
            raise CorpusError(f"{self.folder}: a {model.config.model_type} has no patches to keep; give tokens=False")
        return Output(vectors, states[:, -(pixels.shape[2] // side) * (pixels.shape[3] // side) :])


def _limit(tower: nn.Module, tokenizer) -> int:
    """How many pieces a text tower takes. RoBERTa and its kin count places from behind the padding's, so have fewer."""
    for name, table in tower.named_modules():
        if isinstance(table, nn.Embedding) and name.rsplit(".", 1)[-1].startswith("position_embedding"):
            spent = 0 if table.padding_idx is None else table.padding_idx + 1
            return min(tokenizer.model_max_length, table.num_embeddings - spent)
    return min(tokenizer.model_max_length, getattr(tower.config, "max_position_embeddings", tokenizer.model_max_length))


def _pooling(folder: Path) -> tuple[bool, list[nn.Module]]:
    """Whether it is the mean, or else the first token, and the layers behind, by the files of sentence-transformers."""
    layers = json.loads((folder / "modules.json").read_text()) if (folder / "modules.json").is_file() else []
    kinds = [(layer["type"].rsplit(".", 1)[-1], folder / layer["path"]) for layer in layers]
    pooling = [json.loads((path / "config.json").read_text()) for kind, path in kinds if kind == "Pooling"]
    modes = [mode if on is True else on for mode, on in dict(*pooling).items() if mode.startswith("pooling_mode") and on]
    strange = [kind for kind, _ in kinds if kind not in ("Transformer", "Pooling", "Dense", "Normalize")]
    strange += ["Normalize before Dense"] * ("Dense" in [kind for kind, _ in kinds][-1:] and "Normalize" in dict(kinds))
    if strange or modes not in ([], *([mode] for mode in MEAN)):
        raise ValueError(
            f"it is made of {', '.join([*strange, *modes])}; known are a mean or the first token, and dense layers behind"
        )
    return MEAN[modes[0]] if modes else True, [_dense(path) for kind, path in kinds if kind == "Dense"]


def _dense(folder: Path) -> nn.Module:
    """A layer that sentence-transformers puts behind the pooling, as LaBSE has one: linear, then tanh or nothing."""
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    activation = config["activation_function"].rsplit(".", 1)[-1]
    if activation not in ("Tanh", "Identity"):
        raise ValueError(f"{folder} ends in {activation}; known are Tanh and Identity")
    linear = nn.Linear(config["in_features"], config["out_features"], config["bias"])
    linear.load_state_dict({name.removeprefix("linear."): value for name, value in weights.items()})
    return nn.Sequential(linear, getattr(nn, activation)())
