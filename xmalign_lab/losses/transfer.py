"""Transfer from a teacher and from made-up examples: relational distillation, a teacher's softmax, mixup, masked words.

`sim` and `guide` are (n, m): the student's similarities and those of a teacher between the same rows and columns. A guide
never has a gradient. Everything is computed in float32, so that a learned temperature can be handed in as it is.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from xmalign_lab.losses.contrastive import Belief, Mask, Scalar, Sims, Tau, symmetric_info_nce
from xmalign_lab.losses.structure import Left, Right


def taught(sim: Sims, guide: Sims, tau: Tau, guide_tau: Tau | None = None) -> Scalar:
    """Contrastive with a teacher: cross entropy of the student's softmax against the teacher's, the mean of both directions.

        ½ [ mean_i -Σ_j p_ij log softmax_j(s_ij/τ) + the same over columns ],  p = softmax_j(g_ij/τ_g), detached

    What open_clip's DistillClipLoss computes over its logits, where teacher and student have temperatures of their own:
    `guide_tau`, `tau` unless given. `tau` may be a pair for rows and columns, as in `contrastive.info_nce`. An empty block
    gives zero with a gradient.
    """
    return _against(sim, guide, tau, tau if guide_tau is None else guide_tau, entropy=False)


def relational(sim: Sims, guide: Sims, tau: Tau) -> Scalar:
    """Relational distillation: ½ [ KL(softmax(guide/τ) ‖ softmax(sim/τ)) over rows, the mean of them, + the same over columns ].

    `taught` less the entropy of the teacher: 0 where the student agrees, and the same gradient. The form of C2KD
    (arXiv 2210.03625), which pools several teachers; CL2CM (arXiv 2312.08984) distils text–text similarities into
    picture–text ones, whose equations are not public.
    """
    return _against(sim, guide, tau, tau, entropy=True)


def _against(sim: Sims, guide: Sims, tau: Tau, guide_tau: Tau, entropy: bool) -> Scalar:
    if not sim.numel():
        return 0 * sim.sum()
    total = torch.zeros((), device=sim.device)
    for dim, own, own_guide in zip((1, 0), _both(tau), _both(guide_tau), strict=True):
        goal = torch.log_softmax((guide.float() / own_guide).detach(), dim)
        against = torch.log_softmax(sim.float() / own, dim)
        total = total - (goal.exp() * (against - goal if entropy else against)).sum(dim).mean()
    return total / 2


def _both(tau: Tau) -> tuple[Tensor | float, Tensor | float]:
    return (tau[0].reshape(-1, 1), tau[1].reshape(1, -1)) if isinstance(tau, tuple) else (tau, tau)


def mixed(
    rows: Left, positives: Mask, weight: Belief = 1.0, share: Tensor | float = 0.8, partner: Int[Tensor, " n"] | None = None
) -> tuple[Left, Mask, Float[Tensor, "n m"]]:
    """Embedding mixup: unit rows λ x_i + (1 - λ) x_π(i), and the positives and the belief that go with them.

    The new row belongs to what x_i belongs to with λ times its weight, and to what x_π(i) belongs to with 1 - λ times; λ is
    `share`, a number or (n, 1). `partner` π is half the batch away unless given: no chance, so that a run can be resumed to the
    same numbers, and each epoch deals the batches anew. Zhang et al. 2018 (arXiv 1710.09412), on vectors of the last layer
    as in i-Mix (Lee et al. 2021, arXiv 2010.08887). Two opposite rows at λ = ½ have no direction; it stays zero.
    """
    partner = torch.arange(len(rows), device=rows.device).roll(len(rows) // 2) if partner is None else partner
    belief = torch.as_tensor(weight, dtype=torch.float32, device=rows.device) * positives
    belief = share * belief + (1 - share) * belief.index_select(0, partner)
    between = share * rows + (1 - share) * rows.index_select(0, partner)
    return torch.nn.functional.normalize(between, dim=1), belief > 0, belief


def mixup(
    left: Left, right: Right, positives: Mask, tau: Tensor | float, weight: Belief = 1.0, share: Tensor | float = 0.8
) -> Scalar:
    """Symmetric InfoNCE with the left rows mixed, and with the right ones, the mean of both (`mixed`); share 1 mixes nothing."""
    total = torch.zeros((), device=left.device)
    belief = torch.as_tensor(weight, dtype=torch.float32, device=left.device).broadcast_to(positives.shape)
    for one, other, mask, of in ((left, right, positives, belief), (right, left, positives.T, belief.T)):
        rows, mask, of = mixed(one, mask, of, share)
        total = total + symmetric_info_nce(rows @ other.T, mask, tau, of)
    return total / 2


def masked_language_model(logits: Float[Tensor, "n t v"], targets: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]) -> Scalar:
    """Mean cross entropy over the masked places alone: -1/|M| Σ_{(i,k) in M} log softmax(logits_ik)[targets_ik].

    For a text tower with a layer to its vocabulary (Devlin et al. 2019, arXiv 1810.04805). Targets elsewhere are not
    looked at. No masked place gives zero with a gradient.
    """
    if not mask.any():
        return 0 * logits.sum()
    return torch.nn.functional.cross_entropy(logits[mask].float(), targets[mask].long())
