"""The formulas of PPO, each against values worked out by hand or by another way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from hone_trainer.methods.rl import ppo_math, rollouts

pytestmark = pytest.mark.trainer


def tensor(values: Any) -> Any:
    import torch

    return torch.tensor(values)


def alone(values: Sequence[float]) -> list[float]:
    """The sum over one rank."""
    return list(values)


def test_each_token_pays_its_kl_and_the_last_one_gets_the_score() -> None:
    rewards = ppo_math.token_rewards(
        tensor([1.0, 2.0]),
        tensor([[0.5, -0.25, 9.0], [0.1, 0.2, 0.3]]),
        tensor([[1, 1, 0], [1, 1, 1]]),
        kl=0.1,
    )
    assert rewards.flatten().tolist() == pytest.approx([-0.05, 1.025, 0, -0.01, -0.02, 1.97])


def test_advantages_by_hand() -> None:
    """d1 = 2 - 0.25 = 1.75; d0 = 1 + 0.9 x 0.25 - 0.5 = 0.725; A0 = d0 + 0.9 x 0.5 x d1 = 1.5125."""
    found = ppo_math.advantages(
        tensor([[1.0, 2.0, 0.0]]), tensor([[0.5, 0.25, 7.0]]), tensor([[1, 1, 0]]), gamma=0.9, lam=0.5
    )
    assert found[0].tolist() == pytest.approx([1.5125, 1.75, 0])


@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_advantages_are_the_weighted_sum_of_the_later_errors(lam: float) -> None:
    """Eq. 16 of the GAE paper as it stands: the sum over l of (gamma lambda)^l d_{t+l}."""
    import torch

    torch.manual_seed(0)
    rewards, values, gamma = torch.randn(2, 5), torch.randn(2, 5), 0.97
    found = ppo_math.advantages(rewards, values, torch.ones(2, 5), gamma, lam)
    after = torch.cat([values[:, 1:], torch.zeros(2, 1)], 1)
    errors = rewards + gamma * after - values
    expected = [[sum((gamma * lam) ** i * e for i, e in enumerate(row[t:])) for t in range(5)] for row in errors]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def test_whitening_is_over_all_batches_and_counts_no_padding() -> None:
    found = ppo_math.whitened(
        [tensor([[1.0, 2.0]]), tensor([[3.0, 50.0]])], [tensor([[1, 1]]), tensor([[1, 0]])], alone
    )
    root = math.sqrt(1.5)  # mean 2, variance 2/3
    assert [v for batch in found for v in batch[0].tolist()] == pytest.approx([-root, 0, root, 0], abs=1e-6)


def test_whitening_of_equal_values_is_zero() -> None:
    found = ppo_math.whitened([tensor([[2.0, 2.0]])], [tensor([[1, 1]])], alone)
    assert found[0].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.5, 1.0, -1.2), (1.5, -1.0, 1.5), (0.5, 1.0, -0.5), (0.5, -1.0, 0.8), (1.1, 2.0, -2.2)],
)
def test_the_ratio_is_clipped_only_where_that_is_worse(ratio: float, advantage: float, loss: float) -> None:
    found = ppo_math.policy_losses(tensor([math.log(ratio)]), tensor([0.0]), tensor([advantage]), epsilon=0.2)
    assert found.item() == pytest.approx(loss, rel=1e-6)


def test_the_first_gradient_is_that_of_the_plain_policy_gradient() -> None:
    """With a ratio of 1: -A, the gradient of -A log p."""
    log_probs = tensor([-1.0, -2.0]).requires_grad_()
    ppo_math.policy_losses(log_probs, log_probs.detach(), tensor([3.0, -0.5]), 0.2).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([-3.0, 0.5])


def test_what_counts_as_clipped() -> None:
    ratios = tensor([1.0, 1.19, 1.21, 0.81, 0.79])
    assert ppo_math.is_clipped(ratios.log(), tensor([0.0] * 5), 0.2).tolist() == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("value", "old", "returned", "loss"),
    [
        (1.0, 0.5, 2.0, 0.845),  # clipped to 0.7: (0.7 - 2)^2 / 2
        (0.6, 0.5, 0.0, 0.18),  # within the range: 0.6^2 / 2
        (0.0, 0.5, 2.0, 2.0),  # clipped to 0.3 would be better: 2^2 / 2
    ],
)
def test_the_value_loss_takes_the_worse_of_clipped_and_not(
    value: float, old: float, returned: float, loss: float
) -> None:
    found = ppo_math.value_losses(tensor([value]), tensor([old]), tensor([returned]), epsilon=0.2)
    assert found.item() == pytest.approx(loss, rel=1e-6)


def test_the_kl_estimate_by_hand() -> None:
    found = ppo_math.kl_estimate(tensor([0.0, math.log(2), -math.log(2)])).tolist()
    assert found == pytest.approx([0, 0.5 - 1 + math.log(2), 2 - 1 - math.log(2)], abs=1e-6)


def test_the_kl_estimate_has_the_divergence_as_its_mean() -> None:
    import torch
    from torch.distributions import Categorical, kl_divergence

    torch.manual_seed(0)
    ours, theirs = torch.randn(3, 7), torch.randn(3, 7)
    p, log_ratio = ours.softmax(-1), ours.log_softmax(-1) - theirs.log_softmax(-1)
    expected = kl_divergence(Categorical(logits=ours), Categorical(logits=theirs))
    assert torch.allclose((p * ppo_math.kl_estimate(log_ratio)).sum(-1), expected, atol=1e-6)


def test_the_kl_coefficient_follows_its_target_in_small_steps() -> None:
    coefficient = ppo_math.KlCoefficient(0.1, target=6.0)
    coefficient.update(12.0)  # twice the target counts as 20 % too much
    assert coefficient.value == pytest.approx(0.102)
    coefficient.update(5.4)  # 10 % too little
    assert coefficient.value == pytest.approx(0.102 * 0.99)
    fixed = ppo_math.KlCoefficient(0.1)
    fixed.update(12.0)
    assert fixed.value == 0.1


def test_an_answer_counts_up_to_its_first_end_of_turn_token() -> None:
    answers = tensor([[5, 9, 9, 9], [5, 6, 7, 8], [9, 5, 9, 5]])
    mask = rollouts.answer_mask(answers, frozenset({9}))
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    assert rollouts.ended(answers, mask, frozenset({9})).tolist() == [True, False, True]
