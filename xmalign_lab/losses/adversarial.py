"""A language discriminator and the gradient reversal that trains the features against it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xmalign_lab.losses.contrastive import Scalar
from xmalign_lab.losses.structure import Left, Right


def reverse(x: Tensor, strength: float) -> Tensor:
    """x itself, whose gradient is -`strength` times what comes back (Ganin & Lempitsky 2015, arXiv 1409.7495)."""
    return x.detach() - strength * (x - x.detach())  # the bracket is exactly 0, and only it has a gradient


class Discriminator(nn.Sequential):
    """Logits (n, 1), above 0 where a row (n, dim) looks as if it came from the left side."""

    def __init__(self, dim: int, hidden: int = 256):
        super().__init__(nn.Linear(dim, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))


def language_adversary(
    left: Left, right: Right, discriminator: nn.Module, strength: float = 1.0, smoothing: float = 0.1
) -> Scalar:
    """Binary cross entropy of the discriminator, targets 1 - `smoothing` left and `smoothing` right, the sides weighed equally.

    To be minimised by all: the gradient reaches the discriminator as it is, the features reversed and times `strength`.
    At log 2 the discriminator knows nothing. An empty side gives zero with a gradient. Raises `ValueError` for a smoothing
    outside [0, 0.5) or a negative strength.
    """
    if not (0 <= smoothing < 0.5 and strength >= 0):
        raise ValueError(f"needs smoothing in [0, 0.5) and strength ≥ 0, not {smoothing} and {strength}")
    if not len(left) or not len(right):
        return 0 * (left.sum() + right.sum())

    def of_side(rows: Tensor, target: float) -> Scalar:
        logits = discriminator(reverse(rows, strength))
        return nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    return (of_side(left, 1 - smoothing) + of_side(right, smoothing)) / 2
