"""adapter_config.json of a foreign adapter: what Hone takes of PEFT, and whether its base is the one named. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hone_api.words.failures import FailureCode
from hone_trainer.errors import SourceError

_PLAIN = re.compile(r"\^?[\w.\\-]{1,512}\$?")
"""The name of a layer, or its end, as PEFT looks for it: a regular expression without repetition."""
_LARGEST_SCALE = 1e6
_HUB_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*")
SERVED = frozenset(
    {
        "base_model_name_or_path",
        "eva_config",
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
        "revision",
        "target_modules",
        "target_parameters",
        "task_type",
        "use_rslora",
    }
)
"""Fields with which servers compute what PEFT computes: vLLM reads r, lora_alpha and use_rslora, and takes the layers
from the weights; the others are without effect once trained."""
FOLDED = ("rank_pattern", "alpha_pattern")
"""Scales of single layers, which vLLM before 0.33 skips: they become part of the weights, see `folding`."""
_TAKEN = SERVED | {*FOLDED, "auto_mapping", "use_dora"}
"""Fields that an import takes: the adapter's type says DoRA, and auto_mapping is dropped."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian", "orthogonal", "eva"),
    "megatron_core": ("megatron.core",),
    "qalora_group_size": (16,),
}
"""Values of other fields that ask for nothing; so does what is empty or false."""
REFUSED = {
    "alora_invocation_tokens": "it applies from certain tokens on, which servers do not know",
    "arrow_config": "it routes between adapters",
    "bias": "it trained biases too, which servers do not load",
    "corda_config": "this initialisation changed the weights of the base",
    "ensure_weight_tying": "it ties adapters of embedding and head, which servers do not",
    "init_lora_weights": "this initialisation changed the weights of the base; convert it to a plain LoRA with PEFT's "
    "path_initial_model_for_weight_conversion",
    "kasa_config": "it changed the weights of the base",
    "layer_replication": "it repeats layers of the base",
    "loftq_config": "this initialisation changed the weights of the base",
    "lora_bias": "it trained biases too, which servers do not load",
    "lora_ga_config": "this initialisation changed the weights of the base",
    "megatron_config": "it is for layers of Megatron",
    "megatron_core": "it is for layers of Megatron",
    "modules_to_save": "it trained whole layers too, which servers do not load",
    "monteclora_config": "it samples its weights",
    "qalora_group_size": "it is for a base in groups of other sizes",
    "trainable_token_indices": "it trained tokens too, which servers do not load",
    "use_bdlora": "its weights are blocks, which servers do not load",
    "use_qalora": "it averages its inputs, which servers do not",
    "velora_config": "it was trained with other gradients than Hone knows",
}
"""Other fields of PEFT, and why a value that is not neutral is refused. A field that is not here is refused too."""


def unserved(config: Mapping[str, Any], taken: Collection[str] = SERVED) -> str | None:
    """The first field of an adapter_config.json by which PEFT computes other answers than servers, and why; None:
    servers answer with what was trained.

    Args:
        taken: fields that may have any value.
    """
    why = {**REFUSED, **dict.fromkeys(FOLDED, "vLLM before 0.33 skips it: import the adapter again")}
    why["use_dora"] = "vLLM loads no DoRA"
    for name, value in sorted(config.items()):
        if name not in taken and value and value not in _NEUTRAL.get(name, ()):
            return f"{name} is {str(value)[:80]}: {why.get(name, 'Hone does not know what it does')}"
    return None


@dataclass(frozen=True)
class ForeignAdapter:
    """What an adapter_config.json says."""

    type: Literal["LoRA", "DoRA"]
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
        if words := unserved(config, _TAKEN):
            raise _unsupported(source, words)
        ranks = [config.get("r"), *_pattern(config, "rank_pattern", source).values()]
        if not all(type(rank) is int and rank > 0 for rank in ranks):
            raise _unsupported(source, f"r is {str(config.get('r'))[:40]}, not a rank")
        scales = [config.get("lora_alpha", 8), *_pattern(config, "alpha_pattern", source).values()]
        if not all(type(scale) in (int, float) and abs(scale) <= _LARGEST_SCALE for scale in scales):
            raise _unsupported(source, f"lora_alpha is {str(config.get('lora_alpha'))[:40]}, not a scale")
        return cls("DoRA" if config.get("use_dora") else "LoRA", _text(config, "base_model_name_or_path"))


def base_problem(named: str, base: str, others: Collection[str] = ()) -> str | None:
    """Why the base in adapter_config.json is another one than `base`; None: it is the same, or has no name that can be
    compared: then the weights decide.

    Args:
        base: hf://owner/name[@revision] or pvc://claim/path.
        others: names that mean the same base.
    """
    if not base.startswith("hf://") or not _HUB_NAME.fullmatch(named):
        return None
    wanted = base.removeprefix("hf://").partition("@")[0]
    if named.lower() in {name.lower() for name in (wanted, *others)}:
        return None
    return (
        f"adapter_config.json names the base {named}, and the entry names {base}. If both are the same model, e.g. "
        f"under an earlier name, a mirror or a quantised copy, add {named} to base.names"
    )


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
