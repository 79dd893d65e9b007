"""Losses of transfer against torch's KL, open_clip's formula and sums written out; no gradient reaches a teacher."""

import math

import pytest
import torch
from torch.nn import functional

from xmalign_lab.losses.contrastive import symmetric_info_nce
from xmalign_lab.losses.transfer import masked_language_model, mixed, mixup, relational, taught


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return functional.normalize(some(n, d, seed=seed), dim=1)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (1, 3), (3, 1)])
def test_relational_is_the_mean_divergence_over_rows_and_columns(shape):
    sim, guide, tau = some(*shape, seed=1), some(*shape, seed=2), 0.3
    rows, columns = (
        functional.kl_div((s / tau).log_softmax(1), (g / tau).softmax(1), reduction="batchmean")
        for s, g in ((sim, guide), (sim.T, guide.T))
    )
    assert relational(sim, guide, tau).item() == pytest.approx(((rows + columns) / 2).item(), abs=1e-6)


def test_relational_by_hand():
    """Teacher (¾, ¼) both ways, student (½, ½): ¾ log 3/2 + ¼ log 1/2 in each row and column."""
    tau = 2.0
    guide = tau * math.log(3) * torch.eye(2)
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert relational(torch.zeros(2, 2), guide, tau).item() == pytest.approx(by_hand, abs=1e-6)


def test_a_student_that_agrees_has_nothing_to_learn():
    guide = some(5, 7)
    sim = (guide + 3).requires_grad_()  # a constant more in every entry is the same softmax, both ways
    loss = relational(sim, guide, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and sim.grad.abs().max() < 1e-6
    assert relational(guide + some(5, 7, seed=3), guide, 0.1) > 0.1


@pytest.mark.parametrize("loss", [relational, taught])
def test_the_teacher_and_its_softmax_have_no_gradient(loss):
    sim, guide = some(4, 5).requires_grad_(), some(4, 5, seed=1).requires_grad_()
    tau = torch.tensor(0.2, requires_grad=True)
    loss(sim, guide, tau).backward()
    assert guide.grad is None and sim.grad.abs().max() > 0
    step = 1e-3  # τ moves the student's softmax alone: against the difference quotient with the teacher's held
    held = [taught(sim.detach(), guide.detach(), t, 0.2).item() for t in (0.2 - step, 0.2 + step)]
    assert tau.grad.item() == pytest.approx((held[1] - held[0]) / (2 * step), rel=1e-2)


def test_taught_is_open_clips_distillation_written_out():
    """DistillClipLoss: -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean(), images and texts, halved."""
    sim, guide, tau, own = some(6, 6), some(6, 6, seed=1), 0.1, 0.05

    def dist_loss(teacher_logits, student_logits):
        return -(teacher_logits.softmax(dim=1) * student_logits.log_softmax(dim=1)).sum(dim=1).mean(dim=0)

    expected = (dist_loss(guide / own, sim / tau) + dist_loss(guide.T / own, sim.T / tau)) / 2
    assert taught(sim, guide, tau, own).item() == pytest.approx(expected.item(), rel=1e-6)
    certain = 50 * torch.eye(6)  # a teacher without doubt is a label
    labels = torch.arange(6)
    clip = (functional.cross_entropy(sim / tau, labels) + functional.cross_entropy(sim.T / tau, labels)) / 2
    assert taught(sim, certain, tau).item() == pytest.approx(clip.item(), rel=1e-5)


def test_both_have_one_gradient_and_differ_by_the_teachers_entropy():
    guide, grads, values = some(4, 5, seed=1), [], []
    for loss in (relational, taught):
        sim = some(4, 5).requires_grad_()
        values.append(loss(sim, guide, 0.5))
        values[-1].backward()
        grads.append(sim.grad)
    torch.testing.assert_close(*grads)
    entropy = [-(p * p.log()).sum(dim).mean() for dim in (0, 1) for p in [(guide / 0.5).softmax(dim)]]
    assert (values[1] - values[0]).item() == pytest.approx(sum(entropy).item() / 2, rel=1e-4)


def test_a_temperature_for_each_row_and_column():
    sim, guide = some(3, 4), some(3, 4, seed=1)
    rows, columns = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.1, 0.2, 0.4, 0.5])
    parts = [
        (guide[i] / t).softmax(0) @ ((guide[i] / t).log_softmax(0) - (sim[i] / t).log_softmax(0)) for i, t in enumerate(rows)
    ]
    others = [
        (guide[:, j] / t).softmax(0) @ ((guide[:, j] / t).log_softmax(0) - (sim[:, j] / t).log_softmax(0))
        for j, t in enumerate(columns)
    ]
    expected = (sum(parts) / 3 + sum(others) / 4) / 2
    assert relational(sim, guide, (rows[:, None], columns[:, None])).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("loss", [relational, taught])
def test_extremes_stay_finite(loss):
    sim = some(4, 4).clamp(-1, 1).requires_grad_()
    value = loss(sim, -sim.detach(), 1e-3)
    value.backward()
    assert value.isfinite() and sim.grad.isfinite().all()
    nothing = torch.zeros(0, 3, requires_grad=True)
    loss(nothing, torch.zeros(0, 3), 0.1).backward()
    assert nothing.grad.shape == (0, 3)


# Mixup


def test_mixed_rows_lie_between_and_belong_to_both():
    rows, positives = unit(4, 8, 1), torch.eye(4, 5, dtype=torch.bool)
    new, mask, belief = mixed(rows, positives, 0.5, 0.75)
    for i, j in enumerate((2, 3, 0, 1)):
        torch.testing.assert_close(new[i], functional.normalize(0.75 * rows[i] + 0.25 * rows[j], dim=0))
        assert belief[i].nonzero().ravel().tolist() == sorted((i, j)) and mask[i].nonzero().ravel().tolist() == sorted((i, j))
        assert (belief[i, i], belief[i, j]) == (pytest.approx(0.375), pytest.approx(0.125))
    same, mask, belief = mixed(rows, positives, share=torch.full((4, 1), 0.3), partner=torch.arange(4))
    torch.testing.assert_close(same, rows)
    assert mask.equal(positives) and belief.equal(positives.float())


def test_mixup_of_nothing_is_info_nce_and_of_a_half_is_symmetric():
    left, right, positives = unit(6, 8, 1), unit(5, 8, 2), torch.zeros(6, 5, dtype=torch.bool)
    positives[[0, 1, 2, 3, 4, 5, 5], [0, 1, 2, 3, 4, 4, 0]] = True
    weight = torch.rand(6, 5, generator=torch.Generator().manual_seed(0))
    plain = symmetric_info_nce(left @ right.T, positives, 0.1, weight)
    assert mixup(left, right, positives, 0.1, weight, share=1.0).item() == pytest.approx(plain.item(), rel=1e-5)
    assert mixup(left, right, positives, 0.1, weight).item() != pytest.approx(plain.item(), rel=1e-2)


def test_mixup_of_two_pairs_by_hand():
    """Half of each row belongs to both columns: no negative is left, and there is nothing to learn at λ in (0, 1)."""
    left, right = unit(2, 4, 1).requires_grad_(), unit(2, 4, 2)
    loss = mixup(left, right, torch.eye(2, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and left.grad.abs().max() < 1e-6
    x, y = unit(4, 3, 3), unit(4, 3, 4)
    total = 0.0
    for a, b in ((x, y), (y, x)):
        new = functional.normalize(0.8 * a + 0.2 * a.roll(2, 0), dim=1)
        logits = new @ b.T / 0.5
        for table in (logits, logits.T):
            terms = 0.0
            for i in range(4):
                believed = {i: 0.8, (i + 2) % 4: 0.2}
                rivals = [table[i, k] for k in range(4) if k not in believed]
                for j, w in believed.items():
                    terms = terms - w * (table[i, j] - torch.stack([table[i, j], *rivals]).logsumexp(0))
            total = total + terms / 4 / 4
    assert mixup(x, y, torch.eye(4, dtype=torch.bool), 0.5).item() == pytest.approx(total.item(), rel=1e-5)


# Masked words


def test_masked_places_alone_count():
    logits, targets = some(2, 3, 7).requires_grad_(), torch.tensor([[1, 2, -1], [4, 5, 6]])
    mask = torch.tensor([[True, False, False], [False, True, True]])
    loss = masked_language_model(logits, targets, mask)
    by_hand = [-logits[i, k].log_softmax(0)[targets[i, k]] for i, k in ((0, 0), (1, 1), (1, 2))]
    assert loss.item() == pytest.approx((sum(by_hand) / 3).item(), rel=1e-6)
    loss.backward()
    assert (logits.grad.abs().sum(2) > 0).equal(mask)
    nobody = some(2, 3, 7).requires_grad_()
    masked_language_model(nobody, targets, torch.zeros_like(mask)).backward()
    assert nobody.grad.abs().sum() == 0
    knows_nothing = masked_language_model(torch.zeros(2, 3, 7), targets, mask)
    assert knows_nothing.item() == pytest.approx(math.log(7), rel=1e-6)
