"""The Aligner: one head per modality into a common space, over frozen features (`heads`) or around a tower that is trained."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xmalign_lab.encoders.adapters import adapt
from xmalign_lab.encoders.features import Features
from xmalign_lab.encoders.inputs import Inputs
from xmalign_lab.encoders.sequences import Sequence
from xmalign_lab.encoders.trainable import TOWERS
from xmalign_lab.heads import FEATURE_HEADS


class Encoded(NamedTuple):
    """What a head with tokens returns: unit `vectors` (b, dim), unit `tokens` (b, t, dim), `mask` (b, t), True where real."""

    vectors: Tensor
    tokens: Tensor
    mask: Tensor


def vectors_of(encoded: Tensor | Encoded) -> Tensor:
    """The vectors (b, dim) of what a head returned, with or without tokens."""
    return encoded.vectors if isinstance(encoded, Encoded) else encoded


class Fixed(nn.Module):
    """A head that trains nothing: its features (n, width) are vectors of the space already, a teacher's for instance."""

    def __init__(self, width: int):
        super().__init__()
        self.settings = {"kind": "fixed", "width": width}

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows, np.float32)

    def forward(self, prepared: np.ndarray) -> Tensor:
        return nn.functional.normalize(torch.from_numpy(prepared), dim=-1)


class TowerHead(nn.Module):
    """A tower trained end to end: raw rows (`Inputs`) → unit vectors and tokens of the space, by one linear map for both.

    One map, so that a token lies where the vector would if it were all that there is: what a heat map of a word over a
    picture shows. Tokens from before the blocks (`early`) are no such thing, and have a map of their own. `tower` is a registered
    module (`encoders.tiny.TOWERS`) or a dict of its name, as "tower", and its settings; with `adapters`, their rank, it is
    trained through these alone.
    """

    def __init__(self, tower: nn.Module | dict, dim: int, adapters: int = 0):
        super().__init__()
        self.tower = built_tower(tower) if isinstance(tower, dict) else tower
        name = next((name for name, kind in TOWERS.items() if type(self.tower) is kind), None)
        if name is None:
            raise ValueError(f"{type(self.tower).__name__} is no registered tower; known are {', '.join(sorted(TOWERS))}")
        self.settings = {"kind": "tower", "dim": dim, "adapters": adapters, "tower": {"tower": name, **self.tower.settings}}
        if adapters:
            adapt(self.tower, adapters)
        self.out = nn.Linear(getattr(self.tower, "width", None) or self.tower.settings["width"], dim, bias=False)
        if self.tower.settings.get("early"):
            self.out_tokens = nn.Linear(self.out.in_features, dim, bias=False)

    def freeze(self, trained: str | int) -> None:
        """Let the tower train not at all ("none"), whole ("all"), or in its last so many blocks and what comes after them.

        Adapters always train, and then nothing else of the tower does.
        """
        adapted = self.settings["adapters"] > 0
        for name, weight in self.tower.named_parameters():
            weight.requires_grad_("lora_" in name if adapted else trained == "all")
        if isinstance(trained, int) and not adapted:
            if trained > len(self.tower.blocks):
                raise ValueError(f"train_towers is {trained}, but the tower has {len(self.tower.blocks)} blocks")
            parts = dict(self.tower.named_children())
            behind = list(parts)[list(parts).index("blocks") + 1 :] if "blocks" in parts else []
            for part in (*self.tower.blocks[-trained:], *(parts[name] for name in behind)):
                part.requires_grad_(True)

    def train(self, mode: bool = True) -> TowerHead:
        """A tower without a weight to train stays in evaluation mode: its dropout would only add noise."""
        super().train(mode)
        self.tower.train(mode and any(weight.requires_grad for weight in self.tower.parameters()))
        return self

    def prepare(self, rows: np.ndarray) -> np.ndarray:
        """The rows as they are; `ValueError` for frozen features, pictures of another size and sequences of another width."""
        if isinstance(self.tower, Sequence):
            return self.tower.check(rows)
        size = self.tower.settings.get("size", rows.shape[-1])
        if rows.dtype.kind not in "iu" or rows.shape[-1] != size:
            wanted = f"of {size} pixels" if "size" in self.tower.settings else "of token ids"
            raise ValueError(f"this tower takes Inputs {wanted}, not rows of {rows.dtype} {rows.shape[1:]}")
        return rows

    def forward(self, prepared: np.ndarray) -> Encoded:
        if prepared.dtype != np.uint8:  # without the columns that are padding in all of these texts or sequences
            used = prepared.reshape(*prepared.shape[:2], -1).any((0, 2))
            prepared = prepared[:, : np.flatnonzero(used)[-1] + 1]
        vectors, tokens, mask = self.tower(torch.from_numpy(prepared).to(self.out.weight.device))
        unit, of_tokens = nn.functional.normalize, getattr(self, "out_tokens", self.out)
        return Encoded(unit(self.out(vectors), dim=-1), unit(of_tokens(tokens), dim=-1), mask)


def built_tower(settings: dict) -> nn.Module:
    """The tower that `settings` describe: its registered name as "tower", and what it is made with."""
    settings = dict(settings)
    name = settings.pop("tower", None)
    if name not in TOWERS:
        raise ValueError(f"unknown tower {name!r}; known are {', '.join(sorted(TOWERS))}")
    try:
        return TOWERS[name](**settings)
    except TypeError as error:
        raise ValueError(f"{name} takes {', '.join(signature(TOWERS[name]).parameters)}: {error}") from None


HEADS: dict[str, type[nn.Module]] = FEATURE_HEADS | {"fixed": Fixed, "tower": TowerHead}


class Aligner(nn.Module):
    """One head per modality into one space, the temperature if it is learned, and the bias that SigLIP's loss learns.

    `encode_image` and `encode_text` take `Features`, or `Inputs` for a tower, and return unit vectors (n, dim) as float32
    arrays. `save` and `load` use a folder's `aligner.safetensors` and `aligner.json`; nothing is pickled.
    """

    def __init__(self, image: nn.Module, text: nn.Module, tau: float = 0.05, bias: float = 0.0):
        super().__init__()
        self.heads = nn.ModuleDict({"image": image, "text": text})
        self.log_tau = nn.Parameter(torch.tensor(float(np.log(tau))))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    @property
    def tau(self) -> Tensor:
        """The learned temperature, kept in [0.01, 1] (open_clip clamps at 0.01 likewise)."""
        return self.log_tau.clamp(np.log(0.01), 0.0).exp()

    def encode_image(self, features: Features | Inputs) -> np.ndarray:
        return self._encode("image", features)

    def encode_text(self, features: Features | Inputs) -> np.ndarray:
        return self._encode("text", features)

    @torch.no_grad()
    def _encode(self, modality: str, features: Features | Inputs) -> np.ndarray:
        head, was_training = self.heads[modality], self.training
        if not hasattr(features, "vectors"):
            take = "inputs.texts(corpus, aligner.heads['text'].tower.tokenise) or inputs.pictures(corpus, size) for towers"
            raise TypeError(f"give Features, or {take}, not a {type(features).__name__}")
        if features.width != head.settings.get("width", features.width):
            raise ValueError(f"the {modality} head takes features of width {head.settings['width']}, not {features.width}")
        self.eval()
        size = 256 if isinstance(features, Inputs) else 4096  # rows at a time: what is between a tower's layers is large
        parts = [
            vectors_of(head(head.prepare(features.vectors[start : start + size]))).cpu().numpy()
            for start in range(0, len(features), size)
        ]
        self.train(was_training)
        return np.concatenate(parts)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "aligner.safetensors")
        settings = {modality: head.settings for modality, head in self.heads.items()}
        (folder / "aligner.json").write_text(json.dumps(settings, indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> Aligner:
        """Raises `FileNotFoundError` if the folder holds no aligner, `ValueError` for a kind of head that is not known."""
        settings = json.loads((Path(folder) / "aligner.json").read_text())
        aligner = cls(_rebuilt(**settings["image"]), _rebuilt(**settings["text"]))
        aligner.load_state_dict(load_file(Path(folder) / "aligner.safetensors"))
        return aligner.eval()


def _rebuilt(kind: str, **settings) -> nn.Module:
    if kind not in HEADS:
        raise ValueError(f"unknown head {kind!r}; known are {', '.join(sorted(HEADS))}")
    return HEADS[kind](**settings)
