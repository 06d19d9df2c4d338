"""Generates answers with transformers' batched path."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Generating, Tokenizer

if TYPE_CHECKING:
    pass

NEUTRAL: dict[str, Any] = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "guidance_scale": None,
    "penalty_alpha": None,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
}
"""Parameters that a model's generation_config.json could set; the neutral values sample the model's own
distribution."""


class NotFiniteError(TrainerError):
    """The model's logits are not finite, so there is no distribution to sample from."""

    def __init__(self) -> None:
        super().__init__(FailureCode.DIVERGED, "the logits of an answer are not finite")


def guard(model: Generating, goes_on: Callable[[], None] = lambda: None) -> None:
    """Make `model.generate` raise NotFiniteError if a logit is NaN or infinite, and call `goes_on` for each token.

    torch cannot sample from such a distribution: on a CPU it raises a RuntimeError, on a GPU an assertion makes the
    device unusable. So the logits are replaced, and a flag that records it is read once, at the end of the answers.
    """
    head = model.get_output_embeddings()
    if head is None:
        return
    theirs = model.generate

    @functools.wraps(theirs)
    def generate(*args: Any, **kwargs: Any) -> Any:
        wrong: list[Any] = []

        def note(_module: Any, _inputs: Any, logits: Any) -> Any:
            goes_on()
            not_finite = logits.isnan() | logits.isposinf()
            wrong[:] = [not_finite.any() | wrong[0] if wrong else not_finite.any()]
            return logits.masked_fill(not_finite, 0)

        hook = head.register_forward_hook(note)
        try:
            out = theirs(*args, **kwargs)
        finally:
            hook.remove()
        if wrong and bool(wrong[0]):
            raise NotFiniteError
        return out

    model.generate = generate


class StopStrings(NamedTuple):
    """Texts that end an answer wherever they occur in it, independent of token boundaries."""

    texts: Sequence[str]
    tokenizer: Tokenizer


def greedy(
    model: Generating,
    prompts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    stop_ids: frozenset[int],
    longest: int,
    stop: StopStrings | None = None,
) -> list[list[int]]:
    """The model's most likely answers, each of at most `longest` tokens, up to its end-of-turn token or with a stop
    string. Settings for beams or repetition in its generation_config.json are ignored.

    The model must be in evaluation mode. With sharded weights, all ranks must make this call.
    """
    import torch

    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in left_padded(prompts, pad_id).items()}
    with torch.no_grad():
        out = model.generate(
            **inputs,
            max_new_tokens=longest,
            **NEUTRAL,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            use_cache=True,
            eos_token_id=sorted(stop_ids),
            pad_token_id=pad_id,
            **({"stop_strings": list(stop.texts), "tokenizer": stop.tokenizer} if stop else {}),
        )
    return [_until(answer, stop_ids) for answer in out[:, inputs["input_ids"].shape[1] :].tolist()]


def draw(
    model: Generating,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    temperature: float,
    pad_id: int,
    stop_ids: frozenset[int],
    longest: int,
) -> list[list[int]]:
    """One answer for each prompt, as `sampled` gives it, up to its end-of-turn token; torch's random state is
    restored."""
    import torch

    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in left_padded(prompts, pad_id).items()}
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        out = sampled(model, inputs, temperature=temperature, pad_id=pad_id, stop_ids=stop_ids, longest=longest)
    return [_until(answer, stop_ids) for answer in out[:, inputs["input_ids"].shape[1] :].tolist()]


def sampled(
    model: Generating,
    inputs: dict[str, Any],
    *,
    temperature: float,
    pad_id: int,
    stop_ids: frozenset[int],
    longest: int,
) -> Any:
    """Prompts with one answer each, sampled from the model's own distribution; top-k and repetition settings in its
    generation_config.json are ignored. Returns ids (rows, tokens), padded after an answer's end.

    Args:
        inputs: from `left_padded`, on the model's device.
    """
    return model.generate(
        **inputs,
        max_new_tokens=longest,
        **NEUTRAL,
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        typical_p=1.0,
        use_cache=True,
        eos_token_id=sorted(stop_ids),
        pad_token_id=pad_id,
    )


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, Any]:
    """input_ids and attention_mask of prompts, padded on the left, so that all answers begin in the same column."""
    import torch

    width = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
    }


def _until(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    """The ids up to and including the first end-of-turn token; what follows is padding."""
    end = next((i for i, token in enumerate(ids) if token in stop_ids), len(ids))
    return ids[: end + 1]
