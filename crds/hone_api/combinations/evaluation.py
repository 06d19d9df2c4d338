"""What of spec.evaluation does not go together with the rest of a run."""

from __future__ import annotations

from hone_api.base import json_schemas
from hone_api.blocks.evaluation import Evaluation, EvaluationMetric
from hone_api.blocks.rewards import Reward
from hone_api.blocks.training import Adapter, AdapterType
from hone_api.dataset.dataset import Format
from hone_api.methods import METHODS, GrpoMethod, Method

_PAIRS_METRICS = {"accuracy", "margin"}
"""Methods on pairs have their own metrics reward_accuracy and reward_margin."""


def evaluation_problems(
    method: Method | str,
    evaluation: Evaluation,
    adapter: Adapter,
    *,
    sharded: bool,
    grpo: GrpoMethod | None = None,
) -> list[str]:
    """Parts of `evaluation` that a run cannot measure, each with the way out."""
    out, retention = [], evaluation.retention
    if method == Method.REWARD and (evaluation.metrics or evaluation.rewards or retention or evaluation.harness):
        out.append(
            "evaluation.metrics, rewards, retention and harness: a reward model generates no answers: remove them"
        )
    elif evaluation.metrics and method in (Method.PPO, Method.GRPO):
        out.append(f"evaluation.metrics: {method} has only prompts: measure answers with evaluation.rewards")
    elif (
        EvaluationMetric.MULTIPLE_CHOICE in evaluation.metrics
        and Format.PREFERENCE not in METHODS[Method(method)].formats
    ):
        out.append(
            f"evaluation.metrics MultipleChoice needs chosen and rejected answers, which rows of {method} do not have: "
            "measure it by evaluation.retention"
        )
    if retention and retention.interpolate and adapter.type == AdapterType.DORA:
        out.append("evaluation.retention.interpolate: DoRA's update has no factor to scale: use adapter type LoRA")
    if retention and retention.interpolate and adapter.type == AdapterType.NONE and sharded:
        out.append("evaluation.retention.interpolate needs whole weights on each rank: remove it, or deepspeed")
    out += schema_problems("evaluation.rewards", evaluation.rewards)
    return [*out, *_scoring_problems(method, evaluation.rewards, grpo)]


def _scoring_problems(method: Method | str, rewards: list[Reward], grpo: GrpoMethod | None) -> list[str]:
    out = []
    if rewards and method == Method.DAPT:
        out.append("evaluation.rewards: the rows of DAPT are texts without a prompt to answer: remove them")
    titles = [reward.title for reward in rewards]
    if twice := twice_in(titles):
        out.append(f"evaluation.rewards: more than one is named {twice}: give them names")
    if reserved := sorted(_PAIRS_METRICS.intersection(titles)):
        out.append(f"evaluation.rewards: {', '.join(reserved)}: methods have metrics of this name: give it another")
    if weighted := [reward.title for reward in rewards if float(reward.weight) != 1]:
        out.append(f"evaluation.rewards: each is reported separately: remove the weight of {', '.join(weighted)}")
    trained = {reward.title: reward for reward in grpo.rewards} if grpo else {}
    other = [r.title for r in rewards if r.title in trained and not _alike(r, trained[r.title])]
    if other:
        out.append(f"evaluation.rewards: grpo.rewards has a different reward named {', '.join(other)}: give it a name")
    return out


def schema_problems(field: str, rewards: list[Reward]) -> list[str]:
    """Rewards whose `schema` is not a JSON Schema; `field` names their place."""
    problems_by_title = (
        (one.title, json_schemas.problem(one.json_schema.schema_)) for one in rewards if one.json_schema
    )
    return [f"{field}: the jsonSchema.schema of {title} {problem}" for title, problem in problems_by_title if problem]


def _alike(one: Reward, other: Reward) -> bool:
    """Whether both are equal except for the weight."""
    return one == other.model_copy(update={"weight": one.weight})


def twice_in(names: list[str]) -> str:
    """Names that occur more than once, for a message."""
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))
