"""adapter_config.json of a foreign adapter: what Hone takes of PEFT, and whether its base is the one named. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hone_api.failures import FailureCode
from hone_trainer.errors import SourceError

_PLAIN = re.compile(r"\^?[\w.\\-]{1,512}\$?")
"""The name of a layer, or its end, as PEFT looks for it: a regular expression without repetition."""
_LARGEST_SCALE = 1e6
_HUB_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*")
_KNOWN = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "peft_type",
        "peft_version",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "target_parameters",
        "task_type",
        "use_dora",
        "use_rslora",
    }
)
"""Fields whose meaning here is PEFT's."""
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian"),
    "megatron_core": ("megatron.core",),
    "qalora_group_size": (16,),
}
"""Values of other fields that ask for nothing; so does what is empty or false."""
_WHY = {
    "modules_to_save": "it trained whole layers too, which servers do not load",
    "trainable_token_indices": "it trained tokens too, which servers do not load",
    "bias": "it trained biases too, which servers do not load",
    "init_lora_weights": "this initialisation changed the weights of the base",
    "layer_replication": "it repeats layers of the base",
}


@dataclass(frozen=True)
class ForeignAdapter:
    """What an adapter_config.json says."""

    type: Literal["LoRA", "DoRA"]
    rank: int
    """The largest of all layers."""
    base: str
    """As it stands there: a repository of the hub, a path, or nothing."""

    @classmethod
    def of(cls, config: Mapping[str, Any], source: str) -> ForeignAdapter:
        """Read a config.

        Raises:
            SourceError: UnsupportedModel, for another kind of adapter, or a field that Hone cannot serve or merge.
        """
        kind, task = config.get("peft_type"), config.get("task_type")
        if kind != "LORA":
            raise _unsupported(source, f"peft_type is {str(kind)[:40]}, and Hone takes LORA")
        if task not in (None, "CAUSAL_LM"):
            raise _unsupported(source, f"task_type is {str(task)[:40]}, and Hone takes CAUSAL_LM")
        for name, value in sorted(config.items()):
            if name not in _KNOWN and value and value not in _HARMLESS.get(name, ()):
                why = _WHY.get(name, "Hone does not know what it does")
                raise _unsupported(source, f"{name} is {str(value)[:80]}: {why}")
        ranks = [config.get("r"), *_pattern(config, "rank_pattern", source).values()]
        if not all(type(rank) is int and rank > 0 for rank in ranks):
            raise _unsupported(source, f"r is {str(config.get('r'))[:40]}, not a rank")
        scales = [config.get("lora_alpha", 8), *_pattern(config, "alpha_pattern", source).values()]
        if not all(type(scale) in (int, float) and abs(scale) <= _LARGEST_SCALE for scale in scales):
            raise _unsupported(source, f"lora_alpha is {str(config.get('lora_alpha'))[:40]}, not a scale")
        return cls("DoRA" if config.get("use_dora") else "LoRA", max(ranks), _text(config, "base_model_name_or_path"))


def base_problem(named: str, base: str) -> str | None:
    """Why the base in adapter_config.json is another one than `base`; None: it is the same, or has no name that can be
    compared: then the weights decide.

    Args:
        base: hf://owner/name[@revision] or pvc://claim/path.
    """
    if not base.startswith("hf://") or not _HUB_NAME.fullmatch(named):
        return None
    wanted = base.removeprefix("hf://").partition("@")[0]
    if named.lower() == wanted.lower():
        return None
    return f"adapter_config.json names the base {named}, and the entry names {base}"


def _pattern(config: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any]:
    """A field with a value for each of some layers, which it names plainly."""
    value = config.get(name) or {}
    if not isinstance(value, dict) or not all(map(_PLAIN.fullmatch, value)):
        raise _unsupported(
            source, f"{name} is {str(value)[:80]}: name layers as they are called, e.g. layers.0.mlp.up_proj"
        )
    return value


def _text(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name)
    return value if isinstance(value, str) else ""


def _unsupported(source: str, words: str) -> SourceError:
    return SourceError(FailureCode.UNSUPPORTED_MODEL, f"{source}: adapter_config.json: {words}")
