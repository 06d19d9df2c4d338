"""A longer context by scaled rotary positions (RoPE), as training.ropeScaling asks: in the config alone.

transformers and vLLM read `rope_parameters` of a config.json, so a model that is exported with this config is served
with it. Both take `max_position_embeddings` of YaRN as scaled, and vLLM reads no more tokens than the tokenizer's
`model_max_length`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hone_api.base.wording import counted
from hone_api.blocks.training import Training
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Tokenizer

YARN = "yarn"
"""As `rope_type` of a config."""
_OTHERS = {"phimoe"}
"""Model types whose code asks scaled positions for settings of longrope."""


def stretch(config: Any, tokenizer: Tokenizer, training: Training) -> None:
    """Set the scaling in the config of a base, and both lengths.

    Raises:
        TrainerError: ModelUnsuitable, for a model whose positions cannot be scaled.
    """
    if training.rope_scaling is None:
        return
    text = config.get_text_config()
    rope: Any = getattr(text, "rope_parameters", None)
    length: Any = getattr(text, "max_position_embeddings", None)
    if why := _obstacle(rope, length, is_mixed=getattr(text, "is_heterogeneous", False)):
        raise TrainerError(FailureCode.MODEL_UNSUITABLE, _refusal(config, why))
    factor, context = float(training.rope_scaling.factor), training.context_of(length)
    scaling = {"rope_type": YARN, "factor": factor, "original_max_position_embeddings": length}
    text.rope_parameters = {**rope, **scaling}
    text.max_position_embeddings = context
    if getattr(text, "head_dim", 0) is None:  # the family's default, which transformers' YaRN does not know
        text.head_dim = text.hidden_size // text.num_attention_heads
    tokenizer.model_max_length = max(tokenizer.model_max_length, context)


def _obstacle(rope: Any, length: Any, *, is_mixed: bool) -> str:
    """Why positions cannot be scaled; empty: they can.

    Args:
        is_mixed: whether layers have sizes of their own.
    """
    if not rope or not length:
        return "it has no rotary positions of a known length"
    if is_mixed or any(isinstance(of_layers, dict) for of_layers in rope.values()):
        return "it has layers with other rotary positions"
    if (kind := rope.get("rope_type", "default")) != "default":
        return f"it has scaled positions already ({kind})"
    return ""


def problems(config: Any, network: Any) -> Iterator[str]:
    """Why a model would not compute the scaling that its config asks for.

    Args:
        network: the model of that config, which may be on the meta device.
    """
    rotary = [
        part for part in network.modules() if any("inv_freq" in name for name, _ in part.named_buffers(recurse=False))
    ]
    if config.model_type in _OTHERS or not rotary or any(getattr(part, "rope_type", None) != YARN for part in rotary):
        yield _refusal(config, "it computes its positions without such settings of its config")


def _refusal(config: Any, why: str) -> str:
    return f"training.ropeScaling: the positions of {config.model_type} cannot be scaled, because {why}: remove it"


def resolved(config: Any, training: Training) -> dict[str, str]:
    """The scaling, for status and model card."""
    if training.rope_scaling is None:
        return {}
    text, scaling = config.get_text_config(), training.rope_scaling
    before = text.rope_parameters["original_max_position_embeddings"]
    return {"ropeScaling": f"{scaling.type} {scaling.factor}: {before} to {text.max_position_embeddings} tokens"}


def advice(config: Any, training: Training, lengths: Any) -> Iterator[str]:
    """What the scaling costs the rows.

    Args:
        lengths: tokens of each row, as a numpy array.
    """
    if training.rope_scaling is None:
        return
    before = config.get_text_config().rope_parameters["original_max_position_embeddings"]
    longer = int((lengths > before).sum())
    if not longer:
        yield (
            f"training.ropeScaling: no row has more than the {before} tokens that the model reads without it, so the "
            "run changes the positions of all rows for none of them: remove it."
        )
    elif longer < len(lengths):
        yield (
            f"training.ropeScaling: {counted(longer, 'row')} of {len(lengths)} have more than the {before} tokens that "
            "the model reads without it. The positions of the others change as well: compare them with a version "
            "without it, by evaluation.against; base numbers have the scaling."
        )
