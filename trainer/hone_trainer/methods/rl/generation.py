"""vLLM as what generates the samples of GRPO and RLOO, by TRL's VLLMGeneration, in place of the model in training.

It runs in each rank's own process and shares its GPU; TRL gives it the weights after each optimiser step, an adapter
merged into them. A vLLM apart is in `served`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

from hone_api.methods import Generation
from hone_api.plan import TrainingPlan
from hone_trainer import ranks
from hone_trainer.methods.rl import merged
from hone_trainer.models import adapters

PRIVATE = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # TRL reaches for the weights of an engine in its own process
}
"""Environment that vLLM reads at import; it disables usage statistics."""
WEIGHED = {"vllm_importance_sampling_mode": "token_truncate"}
"""For TRL's GRPOConfig; RLOOConfig weighs nothing. vLLM gives a token another probability than the trainer does, so the
loss of each token is multiplied by their ratio, at most TRL's 3: truncated importance sampling (Yao et al. 2025, "Your
efficient RL framework secretly brings you off-policy RL training", https://fengyao.notion.site/off-policy-rl). TRL's
default multiplies a whole sample by the product over its tokens, and drops it above 3. With topP below 1, where each
ratio is at least topP, the product is about 0 after some hundred tokens: 0.04 at topP 0.95 and 64 tokens, 1e-6 at 0.8
(measured, see docs/guides/methods/grpo.md)."""
LOGGED = {
    "sampling/sampling_logp_difference/mean": "sampling_logp_difference",
    "sampling/importance_sampling_ratio/mean": "importance_sampling_ratio",
}
"""Names in TRL's logs -> ours: how far vLLM's log-probabilities are from the trainer's, in nats a token, and the mean
weight of a token in the loss."""


def arguments(options: Generation, longest: int) -> dict[str, Any]:
    """For TRL's GRPOConfig and RLOOConfig.

    Args:
        longest: tokens of prompt and sample together.
    """
    if not options.is_colocated:
        return {}
    os.environ.update(PRIVATE)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")  # the platform may have set another
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": options.gpu_fraction,
        "vllm_max_model_length": longest,
    }


class VllmTrainer(Protocol):
    """What `attach` changes of TRL's GRPOTrainer and RLOOTrainer."""

    vllm_generation: Any


def attach(trainer: VllmTrainer, plan: TrainingPlan) -> None:
    """Correct what TRL's `VLLMGeneration` does otherwise, in a trainer that has one.

    vLLM draws from the process's random numbers, and TRL has it set their seed to the number of the rank.
    """
    from transformers import set_seed

    set_seed(plan.training.seed + ranks.rank())
    if adapters.is_adapter(plan.adapter):
        library = trainer.vllm_generation
        library._iter_named_params = partial(merged.parameters, library.model)


def end_at(args: Any, stop_ids: Iterable[int]) -> None:
    """Let vLLM end a sample where the model in training would."""
    if args.use_vllm:
        args.generation_kwargs = {**(args.generation_kwargs or {}), "stop_token_ids": sorted(stop_ids)}
