"""Low-rank adapters: a large tower stays as it is, and a small correction of each of its linear layers is trained."""

from __future__ import annotations

from torch import nn

from xmalign_lab.encoders.checkpoint import imported


def adapt(tower: nn.Module, rank: int) -> None:
    """Replace W x of every linear layer of the tower, in place, by W x + 2 B A x, A (rank, in) and B (out, rank), W frozen.

    B starts at zero, so that at first nothing changes. LoRA, Hu et al. 2022 (arXiv 2106.09685), by peft; the 2 is their
    α/r. Raises `CorpusError` where peft is not installed, `ValueError` for a tower without linear layers.
    """
    peft = imported("peft")
    layers = [name for name, layer in tower.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(tower).__name__} has no linear layer to adapt")
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers), tower)
