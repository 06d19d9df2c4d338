"""What a method's `compared` reads of a run and of its trainer, for exported models: their numbers need no run.

The reference of DPO and KTO is the model that the run started from. Rewards and reward models are those of its plan.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hone_api.plan import ModelInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.commands.exported import Exported
from hone_trainer.errors import TrainerError
from hone_trainer.methods import METHODS, pairs, ppo
from hone_trainer.methods.rl import rewarding
from hone_trainer.methods.rl.judge import ConversationReward
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Generating
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Poll, RowMeasure, Unwatched, Values
from hone_trainer.scoring.scores import Score

log = logging.getLogger("hone.trainer")


@dataclass(frozen=True)
class _Precision:
    bf16: bool


class _Log:
    """In place of a run's reporters."""

    def log(self, sentence: str) -> None:
        log.info("%s", sentence)


@dataclass(frozen=True)
class _ExportedRun:
    """What measurements read of a `Run`."""

    plan: TrainingPlan
    base: Base
    settings: _Precision
    stop_ids: frozenset[int]
    reporters: _Log


class Rescorer:
    """Scores models on held-out rows as the run of `exported` did; stands in for the trainer of that run.

    Args:
        paths: folders of reward models and files of reward functions, by their names; default: where the run had them.

    Raises:
        TrainerError: FileNotFound, if something that the method's score needs is not there; InvalidConfiguration for a
            name in `paths` that the run does not have; what making the rewards raises.
    """

    def __init__(self, exported: Exported, split: HeldOut, paths: Mapping[str, Path]) -> None:
        plan = with_paths(exported.plan, paths)
        self._exported, self._split = exported, split
        self.run: Any = _ExportedRun(plan, exported.opened, _Precision(exported.bf16), exported.stop_ids, _Log())
        self._known: dict[str, list[list[float]]] = {}
        self._refuse_missing(plan)

    @property
    def _measure(self) -> RowMeasure:
        return METHODS[self.run.plan.method].compared

    def _refuse_missing(self, plan: TrainingPlan) -> None:
        """Find out now what is missing, and not after both models have answered."""
        if self._measure.needs == "reference" and not self._exported.has_start:
            words = (
                f"method {plan.method} compares with the model that the run started from, which is not in "
                f"{self._exported.base}: name its folder with --base"
            )
            raise TrainerError(FailureCode.FILE_NOT_FOUND, words)
        missing = [f"--reward {name}=PATH (not in {path})" for name, path in _needed(plan) if not path.exists()]
        if missing:
            words = f"the files of the run's rewards are missing: name them with {', '.join(missing)}"
            raise TrainerError(FailureCode.FILE_NOT_FOUND, words)
        if self._measure.needs in ("rewards", "judge"):
            getattr(self, self._measure.needs)

    def values(self, network: Generating) -> Values:
        """What the model says of each row."""
        return self._measure.values(self.run, network, self._split, Unwatched())

    def score(self, values: Values, whose: Path) -> Score:
        """The score that follows from the values of the model in the folder `whose`.

        Raises:
            TrainerError: RewardFailed, if none of its answers got a reward.
        """
        score = self._measure.score(self, self._split, values, Unwatched())
        if not any(any(mean.weights) for mean in score.means.values()):
            words = f"{whose}: none of its {score.rows} answers got a reward; the log has the reasons"
            raise TrainerError(FailureCode.REWARD_FAILED, words)
        return score

    def reference(self, name: str, rows: Sequence[Any], poll: Poll) -> list[list[float]]:
        """Log-probabilities of the rows that have this name, by the model that the run started from."""
        if name not in self._known:
            self._known[name] = pairs.log_probs(self.run, self._start, rows, poll)
        return self._known[name]

    @cached_property
    def _start(self) -> Generating:
        return self._exported.load_start()

    @cached_property
    def rewards(self) -> rewarding.Rewards:
        """Those of GRPO."""
        return rewarding.Rewards(self.run)

    @cached_property
    def judge(self) -> ConversationReward:
        """The reward model of PPO."""
        import torch

        name = ppo.options(self.run.plan).reward_model_version
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return ConversationReward(name, self.run.plan.models[name].path, self.run.base, device)


def with_paths(plan: TrainingPlan, paths: Mapping[str, Path]) -> TrainingPlan:
    """The plan with other folders of its models and files of its rewards.

    Raises:
        TrainerError: InvalidConfiguration for a name that the method of the plan has no use for.
    """
    names = [name for name, _ in _needed(plan)]
    if unknown := sorted(set(paths) - set(names)):
        words = f"--reward {unknown[0]}: the run has {', '.join(names) or 'no reward that reads a file'}"
        raise TrainerError(FailureCode.INVALID_CONFIGURATION, words)
    models = {name: ModelInput(path=str(path)) for name, path in paths.items() if name in plan.models}
    files = {name: str(path) for name, path in paths.items() if name in plan.reward_paths}
    return plan.model_copy(update={"models": {**plan.models, **models}, "reward_paths": {**plan.reward_paths, **files}})


def _needed(plan: TrainingPlan) -> Iterator[tuple[str, Path]]:
    """Names and paths of what the rewards of the method read."""
    if plan.ppo:
        yield plan.ppo.reward_model_version, Path(plan.models[plan.ppo.reward_model_version].path)
    for spec in plan.grpo.rewards if plan.grpo else ():
        if spec.reward_model:
            yield spec.reward_model.model_version, Path(plan.models[spec.reward_model.model_version].path)
        elif spec.title in plan.reward_paths:
            yield spec.title, Path(plan.reward_paths[spec.title])
