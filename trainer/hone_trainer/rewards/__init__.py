"""Rewards, by their type in the API; one module each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hone_api.blocks.rewards import Reward as RewardSpec
from hone_api.blocks.rewards import RewardType
from hone_api.plan import TrainingPlan
from hone_trainer.endpoints.addresses import network_of
from hone_trainer.endpoints.client import Access
from hone_trainer.errors import ConfigError
from hone_trainer.rewards.base import Context, Masked, RewardFunction, Sample, as_samples
from hone_trainer.rewards.code import CodeScorer
from hone_trainer.rewards.combined import Combined, CombinedScores, WeightedReward
from hone_trainer.rewards.format import FormatScorer
from hone_trainer.rewards.json_schema import JsonSchemaScorer
from hone_trainer.rewards.judge import JudgeScorer
from hone_trainer.rewards.length import LengthScorer
from hone_trainer.rewards.match import ExactMatchScorer
from hone_trainer.rewards.math import MathScorer
from hone_trainer.rewards.model import RewardModelScorer
from hone_trainer.rewards.number import NumberScorer
from hone_trainer.rewards.python import PythonScorer
from hone_trainer.rewards.regex import RegexScorer
from hone_trainer.sandbox import SandboxWorkers

__all__ = [
    "REWARDS",
    "Combined",
    "CombinedScores",
    "Masked",
    "RewardFunction",
    "Sample",
    "as_samples",
    "make",
    "of_plan",
]

REWARDS: dict[str, Callable[[Context], RewardFunction]] = {
    RewardType.NUMBER: NumberScorer,
    RewardType.MATH: MathScorer,
    RewardType.EXACT_MATCH: ExactMatchScorer,
    RewardType.REGEX: RegexScorer,
    RewardType.JSON_SCHEMA: JsonSchemaScorer,
    RewardType.FORMAT: FormatScorer,
    RewardType.LENGTH: LengthScorer,
    RewardType.CODE: CodeScorer,
    RewardType.PYTHON: PythonScorer,
    RewardType.REWARD_MODEL: RewardModelScorer,
    RewardType.JUDGE: JudgeScorer,
}


def of_plan(plan: TrainingPlan, specs: Sequence[RewardSpec], workers: SandboxWorkers) -> Combined:
    """The named rewards of the plan, with the paths, models and addresses that the plan gives them.

    Raises:
        ConfigError, TrainerError: see `make`.
    """
    models = {spec.title: plan.models[spec.reward_model.model_version].path for spec in specs if spec.reward_model}
    access = Access(network_of(plan))
    return make(specs, {**plan.reward_paths, **models}, workers, access)


def make(
    specs: Sequence[RewardSpec], paths: Mapping[str, str], workers: SandboxWorkers, access: Access | None = None
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
        parts.append(WeightedReward(spec.title, float(spec.weight), reward))
    if problems:
        raise ConfigError("; ".join(problems))
    return Combined(parts)
