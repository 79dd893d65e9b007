"""Encoders that others have trained: sentence encoders from a folder or from the hub.

Over plain transformers: a forward pass and a mean are all that these models need, and sentence-transformers would bring
more packages. What it adds to a folder, `modules.json` with a pooling and perhaps layers behind it, is read here, and a
model with layers that this file does not know is refused rather than encoded wrongly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize
from tqdm.auto import tqdm

from xmalign_lab import profile
from xmalign_lab.corpus import Corpus, CorpusError
from xmalign_lab.encoders.classic import rows_of
from xmalign_lab.encoders.features import Features

FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json"]  # no pickles, no weights of other frameworks
NEEDED = (["config.json"], ["*.safetensors"], ["tokenizer.json", "vocab.*", "*.model"])
MEAN = {"pooling_mode_mean_tokens": True, "mean": True, "pooling_mode_cls_token": False, "cls": False}  # both ways of saying it


@dataclass(frozen=True)
class SentenceEncoder:
    """Texts → unit vectors (n, width) by a pretrained transformer: the mean of its last layer's tokens, or the first token.

    `name` is a folder, as transformers and sentence-transformers save one, or a model of the hub, such as
    'sentence-transformers/all-MiniLM-L6-v2', which is downloaded once. Its own pooling decides between mean and first token;
    without one it is the mean (Reimers & Gurevych 2019, arXiv 1908.10084). Texts go in as they are: a prefix that a model
    asks for ("query: ") is the caller's. A vector moves by about 1e-6 with the batch it is in.

    Raises `CorpusError` for a folder that lacks something, a name that the hub does not give, weights that do not fill the
    model, and poolings or layers that are none of these.
    """

    name: str | Path
    device: str | None = None
    batch_size: int = 64

    modality = "text"
    VERSION = 1

    @cached_property
    def folder(self) -> Path:
        """Where the model lies; a hub's model is brought there first."""
        folder = Path(self.name)
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            try:
                folder = Path(snapshot_download(str(self.name), allow_patterns=FILES))
            except (OSError, ValueError) as error:
                raise CorpusError(f"{str(self.name)!r} is no folder, and the hub did not give it: {error}") from None
        # Where transformers finds no tokenizer it makes one that knows no word, and says nothing
        if lacking := [" or ".join(names) for names in NEEDED if not any(any(folder.glob(name)) for name in names)]:
            raise CorpusError(f"{folder} holds no {lacking[0]}; it needs config.json, a tokenizer and weights (*.safetensors)")
        return folder

    def spec(self) -> dict:
        """The same model in another folder has the same spec: it holds a digest of each file, and no name."""
        files = sorted({path for pattern in FILES for path in self.folder.glob(pattern)})
        sums = {path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return {"encoder": "SentenceEncoder", "version": self.VERSION, "transformers": version("transformers"), "files": sums}

    @cached_property
    def _loaded(self) -> tuple:
        """Tokenizer, model on its device, and whether its vector is the mean."""
        from transformers import AutoModel, AutoTokenizer

        try:
            mean, tokenizer = _takes_mean(self.folder), AutoTokenizer.from_pretrained(self.folder)
            model, found = AutoModel.from_pretrained(self.folder, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, KeyError) as error:
            raise CorpusError(f"{self.folder} cannot be loaded: {error}") from None
        # What the weights lack is left random, with a warning only. No vector here goes through a pooler.
        if lost := sorted(part for part in found["missing_keys"] if "pooler" not in part):
            raise CorpusError(f"{self.folder}: the weights lack {len(lost)} parts of the model, {lost[0]} for one")
        places = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
        tokenizer.model_max_length = min(tokenizer.model_max_length, places)
        return tokenizer, model.float().to(self.device or profile.device()).eval(), mean

    @torch.inference_mode()
    def encode(self, corpus: Corpus | Sequence[str], progress: bool = True) -> Features:
        """Features of the text rows, or of a plain list of texts. What is longer than the model reads is cut.

        Batches are of texts of like length. One that the memory does not hold is halved, and so are those after it.
        """
        rows, (tokenizer, model, mean) = rows_of(corpus, self.modality), self._loaded
        order = np.argsort([-len(text) for text in rows.text], kind="stable")  # the longest first: memory fails soon or never
        texts, parts, size = rows.text.iloc[order].tolist(), [], max(1, self.batch_size)
        with tqdm(total=len(texts), desc="texts", unit="text", disable=not progress, delay=2) as bar:
            while texts:
                try:
                    batch = tokenizer(texts[:size], padding=True, truncation=True, return_tensors="pt").to(model.device)
                    states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
                    parts.append(normalize((states * mask).sum(1) / mask.sum(1) if mean else states[:, 0], dim=-1).cpu())
                    texts = texts[size:]
                    bar.update(len(parts[-1]))
                except RuntimeError as error:  # torch's OutOfMemoryError is one, and so is what a CPU says
                    size = min(size, len(texts)) // 2
                    if "memory" not in str(error) or not size:
                        raise
                    print(f"out of memory: going on with batches of {size}")
        return Features(rows.id.to_numpy(), torch.cat(parts).numpy()[np.argsort(order)], shown=list(rows.text))


def _takes_mean(folder: Path) -> bool:
    """Whether it is the mean, or else the first token, by the files that sentence-transformers writes (all its versions)."""
    layers = json.loads((folder / "modules.json").read_text()) if (folder / "modules.json").is_file() else []
    pooling = [json.loads((folder / layer["path"] / "config.json").read_text()) for layer in layers if "Pooling" in layer["type"]]
    modes = [mode if on is True else on for mode, on in dict(*pooling).items() if mode.startswith("pooling_mode") and on]
    strange = {layer["type"].rsplit(".", 1)[-1] for layer in layers} - {"Transformer", "Pooling", "Normalize"}
    if strange or modes not in ([], *([mode] for mode in MEAN)):
        raise ValueError(
            f"it is made of {', '.join([*strange, *modes])}; known are a mean or the first token, and nothing behind"
        )
    return MEAN[modes[0]] if modes else True
