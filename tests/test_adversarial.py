"""Gradient reversal to the bit, and a discriminator that learns and is learned against."""

import math

import pytest
import torch

from xmalign_lab.losses.adversarial import Discriminator, language_adversary, reverse


@pytest.fixture
def sides():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(6, 4, generator=generator) + 1, torch.randn(3, 4, generator=generator) - 1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return left.requires_grad_(), right.requires_grad_(), Discriminator(4, 8)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 2.5])
def test_the_features_get_exactly_minus_strength_times_the_plain_gradient(sides, strength):
    left, right, discriminator = sides
    logits = discriminator(left), discriminator(right)
    targets = torch.full_like(logits[0], 0.9), torch.full_like(logits[1], 0.1)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    plain = (cross_entropy(logits[0], targets[0]) + cross_entropy(logits[1], targets[1])) / 2
    inputs = [left, right, *discriminator.parameters()]
    expected = torch.autograd.grad(plain, inputs)
    loss = language_adversary(left, right, discriminator, strength, smoothing=0.1)
    got = torch.autograd.grad(loss, inputs)
    assert torch.equal(loss, plain)
    for a, b in zip(got[:2], expected[:2], strict=True):
        assert torch.equal(a, -strength * b)
    for a, b in zip(got[2:], expected[2:], strict=True):  # to the discriminator as is
        assert torch.equal(a, b)


def test_reverse_is_the_identity_forwards():
    x = torch.tensor([1e-30, -3.7, 0.1, 1e30], requires_grad=True)
    y = reverse(x, 0.7)
    assert torch.equal(y, x)
    y.backward(torch.tensor([1.0, 2.0, -3.0, 0.0]))
    assert torch.equal(x.grad, -0.7 * torch.tensor([1.0, 2.0, -3.0, 0.0]))


def test_the_sides_weigh_equally(sides):
    left, right, discriminator = sides
    doubled = torch.cat([right, right])
    assert language_adversary(left, right, discriminator).item() == pytest.approx(
        language_adversary(left, doubled, discriminator).item(), rel=1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_blind_and_a_certain_discriminator(smoothing):
    class Certain(torch.nn.Module):
        def forward(self, x):
            return 40 * x.sign()[:, :1]

    left, right = torch.ones(3, 2), -torch.ones(2, 2)
    blind = language_adversary(left, right, lambda x: torch.zeros(len(x), 1), smoothing=smoothing)
    assert blind.item() == pytest.approx(math.log(2))
    assert language_adversary(left, right, Certain(), smoothing=smoothing).item() == pytest.approx(40 * smoothing, abs=1e-6)


def test_the_discriminator_learns_the_sides_and_the_features_unlearn_them(sides):
    left, right, discriminator = sides
    left, right = left.detach(), right.detach()
    shift = torch.zeros(4, requires_grad=True)  # the only feature that moves: one side's offset
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        language_adversary(left, right, discriminator).backward()
        optimiser.step()
    accuracy = ((discriminator(left) > 0).float().mean() + (discriminator(right) < 0).float().mean()) / 2
    assert accuracy.item() > 0.9
    gap = (left.mean(0) - right.mean(0)).norm()
    language_adversary(left, right + shift, discriminator).backward()
    moved = (left.mean(0) - (right - 0.5 * shift.grad / shift.grad.norm()).mean(0)).norm()
    assert moved < gap  # minimising the loss brings the sides together


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_side_is_zero_with_a_gradient(counts):
    left, right = (torch.ones(n, 4, requires_grad=True) for n in counts)
    loss = language_adversary(left, right, Discriminator(4))
    loss.backward()
    assert loss.item() == 0 and torch.equal(left.grad, torch.zeros_like(left))
    assert torch.equal(right.grad, torch.zeros_like(right))


@pytest.mark.parametrize("bad", [{"smoothing": 0.5}, {"smoothing": -0.1}, {"strength": -1.0}, {"smoothing": math.nan}])
def test_out_of_range_is_refused(sides, bad):
    with pytest.raises(ValueError, match="smoothing in"):
        language_adversary(*sides, **bad)
