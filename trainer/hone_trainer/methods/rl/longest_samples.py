"""What stands for samples of GRPO and RLOO where only the memory of a pass counts: as long as samples may be.

Nothing is generated or scored, because a model ends its samples when it likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hone_trainer.training.loop import Loop


def stand_in(trainer: Loop, longest: int) -> None:
    """Let each pass of TRL's trainer have its prompts with samples of `longest` tokens."""
    # Of samples that are nobody's, the divergence from the reference may be infinite.
    vars(trainer).update(beta=0.0, _prepare_inputs=lambda prompts: samples(prompts, longest, trainer.args.device))


def samples(prompts: Sequence[Mapping[str, Any]], longest: int, device: Any) -> dict[str, Any]:
    """A pass as TRL's GRPOTrainer and RLOOTrainer take it, of prompts that are equally long.

    Args:
        prompts: as a loader gives them, with their token ids.
        longest: tokens of each sample.
    """
    import torch

    ids = torch.tensor([prompt["prompt"] for prompt in prompts], device=device)
    completions = ids[:, -1:].repeat(1, longest)
    of_tokens = torch.zeros(completions.shape, device=device)
    return {
        "prompt_ids": ids,
        "prompt_mask": torch.ones_like(ids),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.ones(len(ids), device=device),
        "num_items_in_batch": torch.tensor(completions.numel(), device=device),
        "old_per_token_logps": of_tokens,
        "importance_sampling_ratio": of_tokens + 1,
        "old_logps": of_tokens.sum(1),
    }
