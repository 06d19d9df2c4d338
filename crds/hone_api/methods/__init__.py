"""The methods of fine-tuning. To add one: its name in `info.Method`, a module here with its options and its `INFO`,
and a module of the trainer's `methods` with its `METHOD`. `make crds` does the rest; what is missing fails a test.
"""

from __future__ import annotations

from hone_api.base.rule import Rule
from hone_api.blocks.evaluation import Evaluation
from hone_api.blocks.rewards import Reward
from hone_api.dataset.dataset import Format
from hone_api.methods.blocks import MODULES, PlanBlocks, SpecBlocks
from hone_api.methods.dapt import DaptMethod
from hone_api.methods.distillation import DistillationMethod, TeacherEndpoint
from hone_api.methods.dpo import DpoMethod
from hone_api.methods.grpo import CLIP_RANGES, VLLM_FRACTION, Generation, GrpoMethod
from hone_api.methods.info import ANSWERS, Method, MethodInfo, Rates
from hone_api.methods.kto import KtoMethod
from hone_api.methods.orpo import OrpoMethod
from hone_api.methods.ppo import PpoMethod
from hone_api.methods.reward import RewardMethod
from hone_api.methods.sft import SftMethod

__all__ = [
    "ANSWERS",
    "CLIP_RANGES",
    "FORMATS_ANSWERED",
    "FORMATS_BY_LOGITS",
    "FORMATS_MEASURED",
    "METHODS",
    "METHOD_BLOCKS",
    "VLLM_FRACTION",
    "DaptMethod",
    "DistillationMethod",
    "DpoMethod",
    "Generation",
    "GrpoMethod",
    "KtoMethod",
    "Method",
    "MethodInfo",
    "OrpoMethod",
    "PlanBlocks",
    "PpoMethod",
    "Rates",
    "RewardMethod",
    "SftMethod",
    "SpecBlocks",
    "TeacherEndpoint",
    "all_rewards",
    "block_rules",
    "simple_method",
]

METHODS: dict[Method, MethodInfo] = {module.INFO.name: module.INFO for module in MODULES}
METHOD_BLOCKS = tuple(info.block for info in METHODS.values())
FORMATS_BY_LOGITS = ANSWERS
"""Formats that Distillation takes at level Logits, which learns on the rows' own answers."""
FORMATS_MEASURED = (*ANSWERS, Format.TEXT, Format.PREFERENCE)
"""Formats of the Datasets that evaluation.retention can measure."""
FORMATS_ANSWERED = (*ANSWERS, Format.PREFERENCE, Format.KTO, Format.VERIFIABLE)
"""Formats with prompts, whose answers evaluation.rewards can score."""

_SIMPLE = (Method.SFT, Method.DAPT, Method.DPO, Method.KTO)
"""Methods that need nothing besides rows and a model, in the order in which they are chosen."""


def simple_method(form: str) -> Method | None:
    """The first method that learns from rows of a format and needs nothing besides; None: there is none."""
    return next((method for method in _SIMPLE if form in METHODS[method].formats), None)


def block_rules() -> tuple[Rule, ...]:
    """CEL rules of a spec: each block belongs to its method, and some methods require theirs."""
    return (
        *(
            Rule(
                f"!has(self.{info.block}) || self.method == '{info.name}'",
                f"the block {info.block} is for method {info.name}: remove it, or set method to {info.name}",
                field_path=f".{info.block}",
            )
            for info in METHODS.values()
        ),
        *(
            Rule(
                f"self.method != '{info.name}' || has(self.{info.block})",
                f"method {info.name} needs the block {info.block} with {info.needs}",
                field_path=f".{info.block}",
            )
            for info in METHODS.values()
            if info.needs
        ),
    )


def all_rewards(grpo: GrpoMethod | None, evaluation: Evaluation) -> list[Reward]:
    """The rewards for training, and those only for evaluation; their titles differ."""
    trained = list(grpo.rewards) if grpo else []
    titles = {reward.title for reward in trained}
    return [*trained, *(reward for reward in evaluation.rewards if reward.title not in titles)]
