"""Rewards, by their type in the API; one module each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hone_api.plan import TrainingPlan
from hone_api.rewards import Reward as RewardSpec
from hone_api.rewards import RewardType
from hone_trainer.endpoints.client import Access
from hone_trainer.errors import ConfigError
from hone_trainer.rewards.base import Context, Masked, Reward, Sample, as_samples
from hone_trainer.rewards.code import Code
from hone_trainer.rewards.combined import Combined, Part, Scores
from hone_trainer.rewards.format import Format
from hone_trainer.rewards.json_schema import JsonSchema
from hone_trainer.rewards.judge import Judge
from hone_trainer.rewards.length import Length
from hone_trainer.rewards.match import ExactMatch
from hone_trainer.rewards.math import Math
from hone_trainer.rewards.model import RewardModel
from hone_trainer.rewards.number import Number
from hone_trainer.rewards.python import Python
from hone_trainer.rewards.regex import Regex
from hone_trainer.sandbox import Workers

__all__ = ["REWARDS", "Combined", "Masked", "Reward", "Sample", "Scores", "as_samples", "make", "of_plan"]

REWARDS: dict[str, Callable[[Context], Reward]] = {
    RewardType.NUMBER: Number,
    RewardType.MATH: Math,
    RewardType.EXACT_MATCH: ExactMatch,
    RewardType.REGEX: Regex,
    RewardType.JSON_SCHEMA: JsonSchema,
    RewardType.FORMAT: Format,
    RewardType.LENGTH: Length,
    RewardType.CODE: Code,
    RewardType.PYTHON: Python,
    RewardType.REWARD_MODEL: RewardModel,
    RewardType.JUDGE: Judge,
}


def of_plan(plan: TrainingPlan, specs: Sequence[RewardSpec], workers: Workers) -> Combined:
    """The named rewards of the plan, with the paths, models and addresses that the plan gives them.

    Raises:
        ConfigError, TrainerError: see `make`.
    """
    models = {spec.title: plan.models[spec.reward_model.model_version].path for spec in specs if spec.reward_model}
    access = Access.of(plan, None, Access.parallel)
    return make(specs, {**plan.reward_paths, **models}, workers, access)


def make(
    specs: Sequence[RewardSpec], paths: Mapping[str, str], workers: Workers, access: Access | None = None
) -> Combined:
    """The rewards of a plan.

    Args:
        paths: what a reward needs besides its options, by its name: see `TrainingPlan.reward_paths`. For a reward
        model,
            its folder.
        access: which addresses judges may have; default: public ones and Services of the cluster.

    Raises:
        ConfigError: lists every reward that is not possible.
        TrainerError: RewardFailed or SourceError: something that a reward needs is missing.
    """
    parts, problems = [], []
    for spec in specs:
        path = paths.get(spec.title)
        try:
            reward = REWARDS[spec.type](Context(spec, workers, Path(path) if path else None, access or Access()))
        except ConfigError as error:
            problems.append(error.message)
            continue
        parts.append(Part(spec.title, float(spec.weight), reward))
    if problems:
        raise ConfigError("; ".join(problems))
    return Combined(parts)
