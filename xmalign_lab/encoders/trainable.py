"""Pretrained transformers as towers that are trained further: whole, in their last blocks, or through adapters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.levels import masked_mean
from xmalign_lab.encoders.pretrained import PictureEncoder, SentenceEncoder
from xmalign_lab.encoders.tiny import TOWERS


class _Pretrained(nn.Module):
    """`model` and `settings`; `width` of its last layer, and `blocks`, the layers of the longest stack in it."""

    @property
    def width(self) -> int:
        return getattr(self.model.config, "vision_config", self.model.config).hidden_size

    @property
    def blocks(self) -> nn.ModuleList:
        return max((part for part in self.model.modules() if isinstance(part, nn.ModuleList)), key=len)


class PretrainedText(_Pretrained):
    """Texts (b, t) int32, ids of pieces plus one, 0 for none → vectors (b, width), tokens (b, t, width), mask (b, t).

    `name` is a folder or a model of the hub, as for `SentenceEncoder`, whose pooling it keeps: BERT, XLM-R, LaBSE, MiniLM …
    Raises `CorpusError` for a model that reads a language token or ends in layers or a pooling of its own.
    """

    def __init__(self, name: str):
        super().__init__()
        self.settings = {"name": str(name)}
        self.reader, self.model, self.mean, behind = SentenceEncoder(name, device="cpu")._loaded
        self.model.pooler = None  # no vector here goes through it
        odd = self.reader.codes or hasattr(self.model, "get_text_features") or self.model.config.model_type == "clip_text_model"
        if odd or any(True for layer in behind for _ in layer.parameters()):
            raise CorpusError(f"{name} reads a language token or has a pooling or layers of its own; encode it, frozen")

    def tokenise(self, texts: Sequence[str]) -> np.ndarray:
        batch = self.reader(texts, "")
        return ((batch["input_ids"] + 1) * batch["attention_mask"]).numpy().astype(np.int32)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mask = inputs > 0
        ids = torch.where(mask, inputs - 1, self.reader.tokenizer.pad_token_id or 0)
        states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return masked_mean(states, mask) if self.mean else states[:, 0], states, mask


class PretrainedPictures(_Pretrained):
    """Pictures (b, 4, size, size) uint8, RGB on white and alpha → vectors (b, width), patches (b, t, width), mask all True.

    `name` is a folder or a model of the hub, as for `PictureEncoder`, whose pooling, mean and deviation it keeps; `size` is
    that of its config. Raises `CorpusError` for a model without patches and one whose vectors lie elsewhere than these.
    """

    def __init__(self, name: str, size: int = 0):
        super().__init__()
        processor, self.model, self.how = PictureEncoder(name, device="cpu")._loaded
        config = getattr(self.model.config, "vision_config", self.model.config)
        if not hasattr(config, "patch_size") or not hasattr(config, "image_size") or hasattr(self.model, "get_image_features"):
            raise CorpusError(f"{name} has no patches, or projects its vectors away from them; encode it, frozen")
        if self.how != "pooler":
            self.model.pooler = None
        self.settings = {"name": str(name), "size": config.image_size}
        self.patches = (config.image_size // config.patch_size) ** 2
        looks = torch.tensor([processor.image_mean, processor.image_std])[:, :, None, None]
        self.register_buffer("looks", looks, persistent=False)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.model(pixel_values=(inputs[:, :3] / 255 - self.looks[0]) / self.looks[1])
        states, patches = out.last_hidden_state, out.last_hidden_state[:, -self.patches :]
        vectors = out.pooler_output if self.how == "pooler" else states[:, 0] if self.how == "first" else states.mean(1)
        return vectors, patches, torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)


TOWERS.update({tower.__name__: tower for tower in (PretrainedText, PretrainedPictures)})
