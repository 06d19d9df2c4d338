"""How answers are generated: by transformers' batched path, or by vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_api.methods import Generation
from hone_trainer.errors import ConfigError


def arguments(generation: Generation, *, cpu: bool) -> dict[str, Any]:
    """Keyword arguments of TRL's configurations that choose the engine.

    Raises:
        ConfigError: vLLM was asked for and cannot be.
    """
    if not uses_vllm(generation, cpu=cpu):
        return {"use_vllm": False}
    if generation.endpoint:
        return {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": generation.endpoint}
    share = float(generation.gpu_memory_utilization)
    return {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": share}


def uses_vllm(generation: Generation, *, cpu: bool) -> bool:
    """Whether vLLM generates; Auto takes it where it is.

    Raises:
        ConfigError: it was asked for and cannot be.
    """
    if generation.engine == "Transformers" or (generation.engine == "Auto" and cpu):
        return False
    from trl.import_utils import is_vllm_available

    problem = "needs a GPU" if cpu else None if is_vllm_available() else "is not in the trainer image"
    if problem and generation.engine == "VLLM":
        raise ConfigError(f"grpo.generation.engine VLLM: vLLM {problem}; use Transformers, or Auto")
    return problem is None


def greedy(
    model: Any, prompts: Sequence[Sequence[int]], *, pad_id: int, stop_ids: frozenset[int], longest: int
) -> list[list[int]]:
    """The model's most likely answers, each of at most `longest` tokens, up to its end mark.

    The model is in evaluation mode. Sharded weights need this call on all ranks.
    """
    import torch

    device = next(model.parameters()).device
    width = max(map(len, prompts))
    ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=longest,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            use_cache=True,
            eos_token_id=sorted(stop_ids),
            pad_token_id=pad_id,
        )
    return [_until(answer, stop_ids) for answer in out[:, width:].tolist()]


def _until(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    """Up to and with the first end mark; what follows is padding."""
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[: end + 1]
