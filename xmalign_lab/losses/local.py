"""Similarities of a text and a picture by their parts: words and patches, before anything is pooled.

Each takes unit tokens x (n, a, d) and y (m, b, d) with masks (n, a) and (m, b), True where a token is real, and gives a
similarity of every row of x with every row of y, (n, m). Where the sides differ in kind, x holds the words and y the
patches. What stands at a masked place has no influence, and its gradient is zero. A row without a real token raises
`ValueError` with its number.

The n · m · a · b cosines are never held together: rows of x are taken a few at a time, and what a few need for their
gradient is computed again on the way back.

A transformer's last tokens all know the whole text or picture, so that a word may find its thing in any patch. What is to
point needs patches that still know little but themselves, such as the ones that enter a tower's blocks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

X, Y = Float[Tensor, "n a d"], Float[Tensor, "m b d"]
MaskX, MaskY = Bool[Tensor, "n a"], Bool[Tensor, "m b"]
Sims = Float[Tensor, "n m"]

COSINES = 2**20  # held at a time: 4 MB in float32, so that the passes over them stay in or near a core's cache
NEVER = 1e4  # what a masked token is from any other: as a logit, nothing of it is left


def filip(x: X, y: Y, x_mask: MaskX, y_mask: MaskY) -> tuple[Sims, Sims]:
    """Token-wise late interaction, both directions: mean_k max_l <x_k, y_l> and mean_l max_k <x_k, y_l> over real tokens.

    Yao et al. 2022 (arXiv 2111.07783): the loss asks rows of x by the first and rows of y by the second, as
    (info_nce(first, dims=(1,)) + info_nce(second, dims=(0,))) / 2. `symmetric` makes one matrix of the two. A mean that
    counted padding would depend on the length.
    """
    return _by_rows(_late, x, y, x_mask, y_mask)


def symmetric(directions: tuple[Sims, Sims]) -> Sims:
    """The mean of the two directions of `filip`: one number for a pair, in [-1, 1]."""
    return (directions[0] + directions[1]) / 2


def gloria(x: X, y: Y, x_mask: MaskX, y_mask: MaskY, scale: float = 10.0, sharpness: float = 4.0, emphasis: float = 5.0) -> Sims:
    """Each word k meets the patches it attends to, weighed by

        p_kl = softmax over words k of scale · <x_k, y_l>;  w_kl = softmax over patches l of sharpness · p_kl
        c_k = Σ_l w_kl y_l;  s = (1/emphasis) log mean_k exp(emphasis · cos(c_k, x_k))

    Huang et al. 2021 (ICCV; gloria_loss.py), who attend by products of vectors of any length (`scale` is ours: cosines
    alone would leave every patch about the same weight), sum over words, which favours long texts, and do not divide;
    their logits 10 · log Σ_k exp(5 cos) are s / τ at τ = 1/50, up to the logarithm of the number of words.
    """
    return _by_rows(_gloria, x, y, x_mask, y_mask, scale, sharpness, emphasis)[0]


def pacl(x: X, y: Y, x_mask: MaskX, y_mask: MaskY, scale: float = 10.0) -> Sims:
    """mean_k cos(Σ_l w_kl y_l, x_k), w_kl = softmax over patches l of scale · <x_k, y_l>.

    With one vector a text (a = 1) after Mukhoti et al. 2023 (arXiv 2212.04994); of several words, ours is the mean.
    """
    return _by_rows(_pacl, x, y, x_mask, y_mask, scale)[0]


def transport(x: X, y: Y, x_mask: MaskX, y_mask: MaskY, epsilon: float = 0.1, iterations: int = 10) -> Sims:
    """Σ_kl P_kl <x_k, y_l>, P the plan of entropic optimal transport at cost 1 - <x_k, y_l> between uniform real tokens.

    P = exp(<x_k, y_l> / epsilon + f_k + g_l), f and g by Sinkhorn's iterations on logarithms (Cuturi 2013,
    arXiv 1306.0895); the last one makes the columns' sums exact. P carries no gradient: at the optimum that of the
    regularised cost is P itself (Peyré & Cuturi 2019, arXiv 1803.00567). After CL2CM's word level (arXiv 2312.08984).
    """
    return _by_rows(_transport, x, y, x_mask, y_mask, epsilon, iterations)[0]


def transport_cost(
    x: X, y: Float[Tensor, "n b d"], x_mask: MaskX, y_mask: Bool[Tensor, "n b"], epsilon: float = 0.1, iterations: int = 10
) -> Float[Tensor, " n"]:
    """Σ_kl P_kl (1 - <x_k, y_l>) of row i of x with row i of y, P the plan of `transport`: what it costs to match their words.

    As P sums to 1 it is 1 - `transport`. Minimised over pairs that are believed it draws words together that may translate each
    other, and nobody has to say which: a reconstruction of the word level of CL2CM (arXiv 2312.08984), whose code is not public.
    """
    return (matching(x.detach(), y.detach(), x_mask, y_mask, epsilon, iterations) * (1 - x @ y.mT)).sum((1, 2))


def matching(x, y, x_mask, y_mask, epsilon: float = 0.1, iterations: int = 10) -> Float[Tensor, "n a b"]:
    """The plans P of `transport_cost`, each of which sums to 1: how much of word k of x_i meets word l of y_i."""
    _need_tokens(x_mask, y_mask)
    cosines = (x @ y.mT).masked_fill(~(x_mask[:, :, None] & y_mask[:, None]), -NEVER)
    return _plan(cosines[:, :, None], x_mask, y_mask[:, None, None], epsilon, iterations)[:, :, 0]


def attention(x: X, y: Y, y_mask: MaskY, scale: float = 10.0) -> Float[Tensor, "n a b"]:
    """softmax over real patches l of scale · <x_k, y_l> for row i of x and row i of y: what a heat map of a word shows."""
    return (scale * (x @ y.mT)).masked_fill(~y_mask[:, None], -NEVER * scale).softmax(-1)


def _by_rows(score: Callable, x: X, y: Y, x_mask: MaskX, y_mask: MaskY, *options) -> tuple[Sims, ...]:
    """score(cosines (rows, a, m, b), their x_mask, y_mask, y, …) for a few rows of x at a time, put together again.

    The masks ride in the product as two more columns: a cosine with a masked token is -NEVER.
    """
    _need_tokens(x_mask, y_mask)
    x, y = (tokens.masked_fill(~mask[..., None], 0) for tokens, mask in ((x, x_mask), (y, y_mask)))
    one_x, one_y = (torch.ones_like(mask[..., None], dtype=x.dtype) for mask in (x_mask, y_mask))
    wide_x = torch.cat([x, one_x, -NEVER * ~x_mask[..., None]], 2)
    wide_y = torch.cat([y, -NEVER * ~y_mask[..., None], one_y], 2)

    def part(rows: Tensor, mask: Tensor) -> tuple[Sims, ...]:
        cosines = (rows.flatten(0, 1) @ wide_y.flatten(0, 1).T).view(*mask.shape, *y_mask.shape)
        return score(cosines, mask, y_mask, wide_y[..., :-2], *options)

    size = max(1, COSINES // (x_mask.shape[1] * y_mask.numel()))
    parts = [checkpoint(part, *each, use_reentrant=False) for each in zip(wide_x.split(size), x_mask.split(size), strict=True)]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def _need_tokens(x_mask: MaskX, y_mask: MaskY) -> None:
    for name, mask in (("x", x_mask), ("y", y_mask)):
        if not (real := mask.any(1)).all():
            raise ValueError(f"{name}, row {int((~real).nonzero()[0])}: every token is masked; drop the row")


def _mean(values: Tensor, mask: Tensor, dim: int) -> Tensor:
    """The mean along `dim` where `mask`, which broadcasts, is True; `values` must be finite elsewhere."""
    return (values * mask).sum(dim) / mask.sum(dim)


def _late(cosines: Tensor, x_mask: MaskX, y_mask: MaskY, y: Y) -> tuple[Sims, Sims]:
    return _mean(cosines.amax(3), x_mask[..., None], 1), _mean(cosines.amax(1), y_mask, -1)


def _met(weights: Tensor, cosines: Tensor, y: Y) -> Tensor:
    """cos(Σ_l w_kl y_l, x_k), (rows, a, m), from the cosines: ‖Σ_l w_kl y_l‖² = w_k (y y') w_k'; 0 where patches cancel."""
    norm = (torch.einsum("nkml,mlj->nkmj", weights, y @ y.mT) * weights).sum(3).clamp(min=1e-6).sqrt()
    return (weights * cosines).sum(3) / norm


def _gloria(cosines, x_mask: MaskX, y_mask: MaskY, y: Y, scale: float, sharpness: float, emphasis: float) -> tuple[Sims]:
    weights = (sharpness * (scale * cosines).softmax(1)).masked_fill(~y_mask, -torch.inf).softmax(3)
    met = emphasis * _met(weights, cosines, y).masked_fill(~x_mask[..., None], -torch.inf)
    return ((met.logsumexp(1) - x_mask.sum(1, keepdim=True).log()) / emphasis,)


def _pacl(cosines: Tensor, x_mask: MaskX, y_mask: MaskY, y: Y, scale: float) -> tuple[Sims]:
    return (_mean(_met((scale * cosines).softmax(3), cosines, y), x_mask[..., None], 1),)


def _transport(cosines: Tensor, x_mask: MaskX, y_mask: MaskY, y: Y, epsilon: float, iterations: int) -> tuple[Sims]:
    return ((_plan(cosines, x_mask, y_mask, epsilon, iterations) * cosines).sum((1, 3)),)


@torch.no_grad()
def _plan(cosines: Tensor, x_mask: MaskX, y_mask: Bool[Tensor, ...], epsilon: float, iterations: int) -> Tensor:
    kernel = cosines / epsilon
    of_x = x_mask.log()[..., None, None] - x_mask.sum(1).log()[:, None, None, None]
    of_y = y_mask.log() - y_mask.sum(-1, keepdim=True).log()
    g = torch.zeros_like(of_y)
    for _ in range(iterations):
        f = of_x - (kernel + g).logsumexp(3, keepdim=True)
        g = of_y - (kernel + f).logsumexp(1, keepdim=True)
    return (kernel + f + g).exp()
