"""vLLM as what generates the samples of GRPO and RLOO, by TRL's VLLMGeneration, in place of the model in training.

It runs in each rank's own process and shares its GPU; TRL gives it the weights after each optimiser step, an adapter
merged into them. Its kernels give a token another probability than ours do; TRL weighs the gradient by their ratio (Yao
et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). A vLLM apart is in `served`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from hone_api.methods import Generation

PRIVATE = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # TRL reaches for the weights of an engine in its own process
    "VLLM_LOGGING_LEVEL": "WARNING",
}
"""Environment that vLLM reads when it is imported; it tells nobody that it is used."""
LOGGED = {
    "sampling/sampling_logp_difference/mean": "sampling_logp_difference",
    "sampling/importance_sampling_ratio/mean": "importance_sampling_ratio",
}
"""Names in TRL's logs -> ours: how far vLLM's log-probabilities are from the trainer's, in nats, and their ratio."""


def arguments(options: Generation, longest: int) -> dict[str, Any]:
    """For TRL's GRPOConfig and RLOOConfig.

    Args:
        longest: tokens of prompt and sample together.
    """
    if not options.is_colocated:
        return {}
    os.environ.update(PRIVATE)
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": options.share,
        "vllm_max_model_length": longest,
    }


def end_at(args: Any, stop_ids: Iterable[int]) -> None:
    """Let vLLM end a sample where the model in training would."""
    if args.use_vllm:
        args.generation_kwargs = {**(args.generation_kwargs or {}), "stop_token_ids": sorted(stop_ids)}
