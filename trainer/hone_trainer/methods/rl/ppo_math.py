"""The formulas of PPO for language models, each with its source. Pure; tensors are (rows, tokens) of the answers alone.

PPO: Schulman et al. 2017, arXiv 1707.06347. GAE: Schulman et al. 2015, arXiv 1506.02438. RLHF: Ziegler et al. 2019,
arXiv 1909.08593; Ouyang et al. 2022, arXiv 2203.02155. Details: Huang et al. 2022, "The 37 implementation details of
PPO"; Huang et al. 2024, "The N+ implementation details of RLHF with PPO", arXiv 2403.17031.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

AddUp = Callable[[Sequence[float]], list[float]]

KL_GAIN = 0.1
"""K of Ziegler et al. 2019, section 2.2."""
KL_STEP = 0.2
"""Largest relative error that one update answers to; the same section."""


def token_rewards(scores: Any, log_ratio: Any, mask: Any, kl: float) -> Any:
    """The reward of each token: -kl x log(policy / reference), and at the last token the score of the whole answer.

    Ziegler et al. 2019, eq. 2; the log-ratio of a sampled token is an unbiased estimate of the KL divergence.

    Args:
        scores: (rows), of the reward model.
        log_ratio: log-probability by the sampling policy less that by the reference.
        mask: 1 for tokens of the answer, at least one a row, without gaps.
    """
    rewards = -kl * log_ratio * mask
    last = mask.sum(1).long() - 1
    rewards[range(len(rewards)), last] += scores
    return rewards


def advantages(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> Any:
    """Generalised advantage estimates: A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t (eq. 11 and 16 of
    the GAE paper). After the last token there is nothing: V and A are 0.
    """
    import torch

    result, following = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = (delta + gamma * lam * following) * mask[:, t]
        result[:, t], next_value = following, values[:, t] * mask[:, t]
    return result


def whitened(values: Sequence[Any], masks: Sequence[Any], add_up: AddUp) -> list[Any]:
    """Batches of values with mean 0 and variance 1 over all counted tokens (Huang et al. 2022, detail 7 of PPO's core,
    here over the whole step instead of a micro batch).

    Args:
        add_up: element-wise sum over ranks.
    """
    counted = [v[m.bool()].double() for v, m in zip(values, masks, strict=True)]
    total, squares, count = add_up(
        [float(sum(c.sum() for c in counted)), float(sum((c**2).sum() for c in counted)), float(sum(map(len, counted)))]
    )
    mean = total / count
    scale = (max(squares / count - mean**2, 0.0) + 1e-8) ** -0.5
    return [(v - mean) * scale * m for v, m in zip(values, masks, strict=True)]


def policy_losses(log_probs: Any, old: Any, advantage: Any, epsilon: float) -> Any:
    """Of each token: max(-A r, -A clip(r, 1 - epsilon, 1 + epsilon)), r = exp(log_probs - old) (eq. 7 of PPO)."""
    import torch

    ratio = (log_probs - old).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - epsilon, 1 + epsilon))


def is_clipped(log_probs: Any, old: Any, epsilon: float) -> Any:
    """Whether the ratio of each token is outside the clipping range (Huang et al. 2022, detail 12 of PPO's core)."""
    return ((log_probs - old).exp() - 1).abs() > epsilon


def value_losses(values: Any, old: Any, returns: Any, epsilon: float) -> Any:
    """Of each token: half the larger of (V - R)^2 and (clip(V, old - epsilon, old + epsilon) - R)^2 (detail 9 of Huang
    et al. 2022)."""
    import torch

    clipped = torch.maximum(torch.minimum(values, old + epsilon), old - epsilon)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def kl_estimate(log_ratio: Any) -> Any:
    """Of each sampled token: exp(-x) - 1 + x, an unbiased estimate of the KL divergence from the sampling policy to the
    reference that is never negative (k3 of Schulman 2020, "Approximating KL divergence")."""
    return (-log_ratio).expm1() + log_ratio


@dataclass
class KlCoefficient:
    """The weight of the KL penalty: fixed, or adapted to a target in nats an answer (Ziegler et al. 2019, section 2.2):
    e = clip(kl / target - 1, -0.2, 0.2), and the weight is multiplied by 1 + 0.1 e."""

    value: float
    target: float | None = None

    def update(self, kl: float) -> None:
        """Take note of the mean KL of an answer, in nats."""
        if self.target is not None:
            error = max(-KL_STEP, min(KL_STEP, kl / self.target - 1))
            self.value *= 1 + KL_GAIN * error
