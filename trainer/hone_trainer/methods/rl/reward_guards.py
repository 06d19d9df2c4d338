"""Callbacks that give a run up whose rewards teach nothing."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.methods.rl.rewarding import CLIPPED, CONSTANT
from hone_trainer.training.loop import Run

MOST_PARTS = 4
"""Rewards whose own means are reported."""


class Means(TrainerCallback):
    """Notes the mean of each of several rewards for the report of the step; comes before what reports it."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        parts = {key: value for key, value in (logs or {}).items() if key.startswith("reward_") and key != "reward_std"}
        self._run.reporters.note(metrics=dict(sorted(parts.items())[:MOST_PARTS]))


class Differences(TrainerCallback):
    """Gives a run up in which rewards never differ, or no sample ever gets one: without a difference there is no
    gradient."""

    def __init__(self, run: Run) -> None:
        assert run.plan.grpo is not None
        self._run = run
        self._patience = min(run.plan.grpo.constant_steps, run.settings.total_steps)
        self._masks_cut = run.plan.grpo.mask_truncated_completions

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        sampled = [entry for entry in state.log_history if CONSTANT in entry]
        scored = [entry for entry in sampled if entry["reward"] is not None]  # None: all samples were left out
        step = state.global_step
        if step < self._patience or not sampled or any(entry[CONSTANT] != 1 for entry in scored):
            return
        if not scored:
            if self._masks_cut and all(entry[CLIPPED] == 1 for entry in sampled):
                return  # see `Cut`
            raise TrainerError(FailureCode.REWARD_FAILED, f"in {step} steps no sample got a score", step=step)
        value = scored[-1]["reward"]
        message = f"in {step} steps no prompt's samples differed in their reward, which is {value:g} now"
        raise TrainerError(FailureCode.REWARD_CONSTANT, message, step=step)


class Cut(TrainerCallback):
    """Gives a run up in which every answer is cut at its limit and cut answers do not count: the gradient is 0, so the
    model stays as it is and its answers stay as long."""

    def __init__(self, run: Run) -> None:
        assert run.plan.grpo is not None
        self._grpo = run.plan.grpo
        self._patience = min(run.plan.grpo.constant_steps, run.settings.total_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        sampled = [entry[CLIPPED] for entry in state.log_history if CLIPPED in entry]
        newest = sampled[-self._patience :]
        if not self._grpo.mask_truncated_completions or len(newest) < self._patience or min(newest) < 1:
            return
        message = (
            f"in the last {len(newest)} sampled steps every answer reached grpo.maxCompletionLength "
            f"{self._grpo.max_completion_length}, and grpo.maskTruncatedCompletions leaves such answers out"
        )
        raise TrainerError(FailureCode.NO_GRADIENT, message, step=state.global_step)
