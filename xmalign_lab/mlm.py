"""Masked language modelling: a text tower learns from text alone, in any languages, before it is trained with pictures.

tower, losses = pretrain(MultiLevelText(**settings), texts, steps=2000)
towers = {"image": …, "text": {"tower": "MultiLevelText", **settings, "weights": str(save(tower, folder))}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm

from xmalign_lab.corpus import CorpusError
from xmalign_lab.encoders.levels import MultiLevelText
from xmalign_lab.encoders.tiny import digest
from xmalign_lab.losses.transfer import masked_language_model


def pretrain(
    tower: MultiLevelText, texts: Sequence[str], steps: int = 1000, batch: int = 64, share: float = 0.15,
    vocabulary: int = 8000, learning_rate: float = 1e-3, seed: int = 0, progress: bool = True,
) -> tuple[MultiLevelText, np.ndarray]:  # fmt: skip
    """The tower, trained in place to tell hidden words from what is around them, and the loss of each step (steps,), in nats.

    Each step hides a `share` of the words of `batch` texts, one at least in each, whole: at every level. From the token at
    its place a linear layer, which is not kept, tells which of the `vocabulary` most frequent words of `texts` stood there;
    two words of one bucket are one word, as they are to the tower. The loss to beat is the entropy of the words' frequencies.
    Devlin et al. 2019 (arXiv 1810.04805), of whole words; theirs show some hidden words as they are, and some as others.
    Give it no text that is ever tested on. Raises `ValueError` for a tower without the level "sentence", whose tokens know
    their own word alone, and for a share outside (0, 1); `CorpusError` for an empty text, and where no text has two words.
    """
    if "sentence" not in tower.levels or not 0 < share < 1:
        raise ValueError(f"levels {tower.levels} need 'sentence' to see what is around a word; share {share} lies in (0, 1)")
    packed = tower.tokenise(texts)
    packed = packed[(packed[..., 0] > 0).sum(1) > 1]
    if not len(packed):
        raise CorpusError(f"masked words: none of {len(texts):,} texts has two words, one to hide and one to see")
    counts = np.bincount(packed[..., 0].ravel(), minlength=tower.settings["buckets"])
    frequent = [word for word in np.argsort(-counts, kind="stable") if word and counts[word]][:vocabulary]
    number = np.full(len(counts), -1)
    number[frequent] = np.arange(len(frequent))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        told = torch.nn.Linear(tower.settings["width"], len(frequent))
    optimiser = torch.optim.AdamW([*tower.parameters(), *told.parameters()], learning_rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps, pct_start=0.1, cycle_momentum=False)
    losses, random = np.empty(steps), np.random.default_rng(seed)
    tower.train()
    for step in tqdm(range(steps), desc="masked words", unit="step", disable=not progress, leave=False, delay=2):
        inputs = packed[random.choice(len(packed), min(batch, len(packed)), replace=False)]
        inputs = inputs[:, : inputs[..., 0].any(0).sum()]
        words = number[inputs[..., 0]]
        drawn = np.where(words < 0, 1, random.random(words.shape))
        mask = (words >= 0) & ((drawn < share) | (drawn == drawn.min(1, keepdims=True)))
        tokens = tower(torch.from_numpy(tower.hide(inputs, mask)))[1]
        logits, words = told(tokens[torch.from_numpy(mask)]), torch.from_numpy(words[mask])
        loss = masked_language_model(logits[None], words[None], torch.ones_like(words[None], dtype=torch.bool))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
        losses[step] = loss.item()
    return tower.eval(), losses


def save(tower: MultiLevelText, folder: str | Path) -> Path:
    """The file that a tower's `weights` can name; its name has a hash of the weights, since a run's key knows the name alone."""
    path = Path(folder) / f"tower-{digest(tower)[:12]}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in tower.state_dict().items()}, path, {"settings": json.dumps(tower.settings)}
    )
    return path
