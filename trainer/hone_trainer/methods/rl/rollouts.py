"""What PPO learns from: sampled answers with their rewards, as the policy that sampled them saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Rollout:
    """Some prompts with a sampled answer each. Tensors are (rows, tokens); answers begin at one column."""

    input_ids: Any
    """Prompts, padded on their left, and answers, padded on their right."""
    attention_mask: Any
    """Over prompts and answers."""
    mask: Any
    """1 for tokens of an answer up to its end-of-turn token; over answers alone, like all that follow."""
    log_probs: Any
    values: Any
    advantages: Any
    returns: Any

    @property
    def answers_from(self) -> int:
        """Column of the first answer token."""
        return int(self.input_ids.shape[1] - self.mask.shape[1])

    @property
    def inputs(self) -> dict[str, Any]:
        """For the model."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **positions(self.attention_mask)}

    @property
    def prompts(self) -> dict[str, Any]:
        """The prompts alone."""
        start = self.answers_from
        return {"input_ids": self.input_ids[:, :start], "attention_mask": self.attention_mask[:, :start]}


def positions(attention_mask: Any) -> dict[str, Any]:
    """position_ids: they count from the first real token."""
    return {"position_ids": (attention_mask.cumsum(1) - 1).clamp(min=0)}


def answer_mask(answers: Any, stop_ids: frozenset[int]) -> Any:
    """1 up to and including the first end-of-turn token of each row of token ids."""
    ends = _is_end(answers, stop_ids).long()
    return (ends.cumsum(1) - ends == 0).long()


def ended(answers: Any, mask: Any, stop_ids: frozenset[int]) -> Any:
    """Whether each answer has an end-of-turn token, (rows) of bool."""
    return _is_end(answers.gather(1, mask.sum(1, keepdim=True) - 1), stop_ids)[:, 0]


def _is_end(tokens: Any, stop_ids: frozenset[int]) -> Any:
    import torch

    return torch.isin(tokens, torch.tensor(sorted(stop_ids), device=tokens.device))


def conversations(input_ids: Any, attention_mask: Any) -> list[list[int]]:
    """The token ids of each row without padding."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]


def save(path: Any, rollouts: Sequence[Rollout], kl: float) -> None:
    """Write rollouts and the KL coefficient to a safetensors file."""
    import torch
    from safetensors.torch import save_file

    tensors = {
        f"{i}.{field.name}": getattr(rollout, field.name).contiguous()
        for i, rollout in enumerate(rollouts)
        for field in fields(Rollout)
    }
    save_file({**tensors, "kl": torch.tensor(kl, dtype=torch.float64)}, path)


def load(path: Any, device: Any) -> tuple[list[Rollout], float]:
    """What `save` wrote."""
    from safetensors.torch import load_file

    tensors = load_file(path, device=str(device))
    kl = float(tensors.pop("kl"))
    names = [field.name for field in fields(Rollout)]
    count = len(tensors) // len(names)
    return [Rollout(**{name: tensors[f"{i}.{name}"] for name in names}) for i in range(count)], kl
