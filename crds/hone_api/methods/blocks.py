"""The methods' modules and their blocks. Generated from `info.Method` by `make crds`; do not edit."""

from hone_api.methods import (
    dapt,
    distillation,
    dpo,
    grpo,
    kto,
    orpo,
    ppo,
    reward,
    sft,
)

MODULES = (
    sft,
    dapt,
    dpo,
    kto,
    orpo,
    reward,
    ppo,
    grpo,
    distillation,
)


class SpecBlocks(  # pydantic takes the fields of the last base first
    distillation.InSpec,
    grpo.InSpec,
    ppo.InSpec,
    reward.InSpec,
    orpo.InSpec,
    kto.InSpec,
    dpo.InSpec,
    dapt.InSpec,
    sft.InSpec,
):
    """The options of each method in the spec of a FineTuneJob."""


class PlanBlocks(  # pydantic takes the fields of the last base first
    distillation.InPlan,
    grpo.InPlan,
    ppo.InPlan,
    reward.InPlan,
    orpo.InPlan,
    kto.InPlan,
    dpo.InPlan,
    dapt.InPlan,
    sft.InPlan,
):
    """The options of each method in a plan."""
