"""Rules across the blocks of a run, and the rules that an object breaks: for plans and objects of no API server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args

from hone_api.base.meta import ApiModel
from hone_api.base.rule import Rule

_NOT_SCALED = "!has(self.training.ropeScaling)"

RUN_RULES = (
    Rule(
        "!('GGUF' in self.output.formats) || self.adapter.type == 'None' || self.output.merge",
        "GGUF holds a whole model: set output.merge to true, or remove GGUF from output.formats",
        field_path=".output.formats",
    ),
    Rule(
        "!('GGUF' in self.output.formats) || self.method != 'Reward'",
        "llama.cpp cannot run a reward model: remove GGUF from output.formats",
        field_path=".output.formats",
    ),
    Rule(
        "!has(self.deepspeed) || self.deepspeed.zeroStage != 3 || self.adapter.type != 'QLoRA'",
        "ZeRO-3 cannot shard 4-bit weights: use zeroStage 2, or adapter type LoRA",
        field_path=".deepspeed",
    ),
    Rule(
        "!has(self.deepspeed) || self.deepspeed.zeroStage != 3 || !has(self.distillation) || "
        "self.distillation.level != 'Logits'",
        "distillation.level Logits needs whole weights on each rank: use zeroStage 2, or level Sequence",
        field_path=".deepspeed",
    ),
    Rule(
        "!has(self.deepspeed) || !has(self.training.optimizer) || self.training.optimizer == 'AdamW'",
        "deepspeed keeps the optimizer's state itself, divided among the ranks: remove training.optimizer, or "
        "deepspeed",
        field_path=".training",
    ),
    Rule(
        "!has(self.training.activationCheckpointing) || !(self.training.activationCheckpointing in ['Selective', "
        "'Offloaded']) || !has(self.grpo) || !has(self.grpo.generation) || self.grpo.generation.engine != 'VLLM'",
        "the trainer's image for vLLM has a transformers that recomputes all layers or none: set "
        "training.activationCheckpointing to Full, None or Auto",
        field_path=".training",
    ),
    Rule(
        f"{_NOT_SCALED} || self.adapter.type == 'None'",
        "training.ropeScaling changes the base under an adapter, and a server of the adapter has the unchanged one: "
        "set adapter.type to None, or remove ropeScaling",
        field_path=".training",
    ),
    Rule(
        f"{_NOT_SCALED} || !(self.method in ['PPO', 'GRPO'])",
        "training.ropeScaling: PPO and GRPO sample from the model as it is stored: train it by SFT or DAPT with "
        "ropeScaling, and take that ModelVersion as the base",
        field_path=".training",
    ),
    Rule(
        f"{_NOT_SCALED} || !('GGUF' in self.output.formats)",
        "training.ropeScaling is not checked in GGUF files: remove GGUF from output.formats",
        field_path=".output.formats",
    ),
    Rule(
        "!has(self.evaluation) || !has(self.evaluation.against) || !has(self.deepspeed) || "
        "self.deepspeed.zeroStage != 3",
        "evaluation.against needs the other model whole on each rank: use zeroStage 2, or remove it",
        field_path=".evaluation",
    ),
    Rule(
        "!has(self.training.sequenceParallel) || self.method in ['SFT', 'DAPT']",
        "training.sequenceParallel is for methods SFT and DAPT: remove it",
        field_path=".training",
    ),
    Rule(
        "!has(self.training.sequenceParallel) || !has(self.training.microBatchSize) || "
        "type(self.training.microBatchSize) != string",
        "microBatchSize Auto is measured on one rank, and with training.sequenceParallel several compute a row: set a "
        "number, or remove microBatchSize",
        field_path=".training",
    ),
    Rule(
        "!has(self.training.sequenceParallel) || !has(self.sft) || !has(self.sft.neftuneAlpha)",
        "sft.neftuneAlpha scales its noise by the length of padded rows, which training.sequenceParallel does not "
        "have: remove one of them",
        field_path=".training",
    ),
)
"""Rules across the blocks of a run; spec and plan have the same names for what they look at."""


class Broken(NamedTuple):
    """A rule that an object breaks."""

    path: str
    """Of the object that has the rule; empty for the root."""
    rule: Rule

    def __str__(self) -> str:
        """The message behind its path, which is not there twice where the message begins with it."""
        path = self.path or (self.rule.field_path or self.rule.of or "").lstrip(".")
        words = self.rule.message if self.path else self.rule.message.removeprefix("spec.")
        return words if words.startswith(path) else f"{path}: {words}"


def broken_rules(model: ApiModel, path: str = "") -> Iterator[Broken]:
    """Every rule that an object, or an object within it, breaks."""
    as_json = model.to_json() if type(model).rules else {}
    yield from (Broken(path, rule) for rule in type(model).rules if not rule.holds(as_json))
    for name, json_name in _blocks(type(model)):
        value, here = getattr(model, name), f"{path}.{json_name}".lstrip(".")
        if isinstance(value, ApiModel):
            yield from broken_rules(value, here)
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, ApiModel):
                    yield from broken_rules(each, f"{here}[{number}]")


@cache
def _blocks(model: type[ApiModel]) -> tuple[tuple[str, str], ...]:
    """Name and JSON name of each field that can hold objects; most hold numbers and texts."""
    fields = model.model_fields.items()
    return tuple((name, info.alias or name) for name, info in fields if _has_objects(info.annotation))


def _has_objects(annotation: Any) -> bool:
    """Whether a type such as `list[Model] | None` has one of our objects in it."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return True
    return any(map(_has_objects, get_args(annotation)))
