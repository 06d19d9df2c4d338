"""The rewards of a run in training and on held-out prompts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

from transformers import TrainerCallback

from hone_trainer import evaluate, ranks, rewards, sampling
from hone_trainer.encode_prompts import Prompt
from hone_trainer.errors import TrainerError
from hone_trainer.evaluate import HeldOut
from hone_trainer.loop import Run
from hone_trainer.methods.base import Poll
from hone_trainer.rewards import Masked, gold
from hone_trainer.rewards.combined import Scores
from hone_trainer.sandbox import Workers
from hone_trainer.scores import Mean, Score

CONSTANT = "frac_reward_zero_std"
"""TRL's name for the share of prompts whose samples all got the same reward."""
CLIPPED = "completions/clipped_ratio"
"""TRL's name for the share of samples that were cut at their limit."""
MASKED = "masked_samples"
"""Share of samples without a score."""
_MOST_PARTS = 4
"""Rewards whose own means are reported."""
_REASONS_TOLD = 20


class Rewards:
    """The rewards that the plan names, made and checked against the rows' own answers.

    Raises:
        TrainerError: see `rewards.make` and `rewards.gold.check`.
    """

    def __init__(self, run: Run) -> None:
        assert run.plan.grpo is not None
        specs = run.plan.grpo.rewards
        self._run = run
        workers = Workers()
        weakref.finalize(self, workers.close)
        self._combined = rewards.of_plan(run.plan, specs, workers)
        self._told: set[str] = set()
        self._last: Scores | None = None
        prompts = cast(Sequence[Prompt], run.rows)
        for sentence in gold.check(self._combined, [spec.type for spec in specs], prompts):
            run.reporters.say(sentence)

    def __call__(self, rows: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> Scores:
        """Scores of answers, given as token ids with their end mark."""
        self._last = scores = self._combined(rewards.as_samples(self._run.base.tokenizer, rows, answers))
        self._tell(scores)
        return scores

    def score(
        self,
        completion_ids: Sequence[Sequence[int]],
        row: Sequence[int],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        """As TRL calls a reward: None leaves a sample out. A collective.

        Raises:
            TrainerError: see `give_up`, when no sample of a step got a score and not all were left out on purpose.
        """
        scores = self([self._run.rows[i] for i in row], completion_ids)  # type: ignore[misc]
        log_metric(MASKED, sum(total is None for total in scores.totals) / len(scores.totals))
        scored = sum(total is not None for total in scores.totals)
        failed = sum(not mask.meant for mask in scores.masks())
        everywhere = ranks.add_up([scored, failed, len(scores.totals)])
        if everywhere[1] and not everywhere[0]:
            self.give_up(f"none of {everywhere[2]:.0f} samples got a score")
        for name, found in scores.parts.items():
            known = [score for score in found if not isinstance(score, Masked)]
            if known and len(scores.parts) > 1:
                log_metric(f"reward_{name}", sum(known) / len(known))
        return scores.totals

    def give_up(self, what: str) -> None:
        """End the run: `what` has no score, and the last samples tell why. A collective.

        Raises:
            TrainerError: SandboxFailed, EndpointUnreachable or RewardFailed, the same on every rank.
        """
        masks = self._last.masks() if self._last else []
        code = "RewardFailed"
        if ranks.any_rank(any(mask.broken for mask in masks)):
            code = "SandboxFailed"
        elif ranks.any_rank(any(mask.away for mask in masks)):
            code = "EndpointUnreachable"
        reasons = self._last.masked().most_common(1) if self._last else []
        words = "".join(f"; of {count} the reason is {reason}" for reason, count in reasons)
        raise TrainerError(code, f"{what}{words}", rank=ranks.rank())

    def _tell(self, scores: Scores) -> None:
        """Each reason once."""
        for reason, count in scores.masked().items():
            if reason not in self._told and len(self._told) < _REASONS_TOLD:
                self._told.add(reason)
                self._run.reporters.say(f"{count} samples are left out, reward {reason}")


class Differences(TrainerCallback):
    """Gives a run up in which rewards never differ, or no sample ever gets one: without a difference there is no
    gradient. Also reports the mean of each of several rewards."""

    def __init__(self, run: Run) -> None:
        assert run.plan.grpo is not None
        self._run = run
        self._patience = min(run.plan.grpo.constant_steps, run.settings.total_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        parts = {key: value for key, value in (logs or {}).items() if key.startswith("reward_") and key != "reward_std"}
        if parts:
            self._run.reporters.update(metrics=dict(sorted(parts.items())[:_MOST_PARTS]))
        sampled = [entry for entry in state.log_history if CONSTANT in entry]
        scored = [entry for entry in sampled if entry["reward"] is not None]  # None: all samples were left out
        step = state.global_step
        if step < self._patience or not sampled or any(entry[CONSTANT] != 1 for entry in scored):
            return
        if not scored:
            raise TrainerError("RewardFailed", f"in {step} steps no sample got a score", step=step)
        value = scored[-1]["reward"]
        message = f"in {step} steps no prompt's samples differed in their reward, which is {value:g} now"
        raise TrainerError("RewardConstant", message, step=step)


class Cut(TrainerCallback):
    """Gives a run up in which every answer is cut at its limit and cut answers do not count: the gradient is 0, so the
    model stays as it is and its answers stay as long."""

    def __init__(self, run: Run) -> None:
        assert run.plan.grpo is not None
        self._grpo = run.plan.grpo
        self._patience = min(run.plan.grpo.constant_steps, run.settings.total_steps)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        sampled = [entry[CLIPPED] for entry in state.log_history if CLIPPED in entry]
        newest = sampled[-self._patience :]
        if not self._grpo.mask_truncated_completions or len(newest) < self._patience or min(newest) < 1:
            return
        message = (
            f"in the last {len(newest)} sampled steps every answer reached grpo.maxCompletionLength "
            f"{self._grpo.max_completion_length}, and grpo.maskTruncatedCompletions leaves such answers out"
        )
        raise TrainerError("NoGradient", message, step=state.global_step)


def score(trainer: Any, split: HeldOut, poll: Poll) -> Score:
    """Mean reward of greedy answers to held-out prompts. A collective.

    Raises:
        TrainerError: see `Rewards.give_up`, when no answer got a score.
    """
    run: Run = trainer.run
    assert run.plan.grpo is not None
    longest, pad = run.plan.grpo.max_completion_length, run.base.tokenizer.pad_token_id

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        prompts = [row.prompt_ids for row in batch]
        answers = sampling.greedy(trainer.model, prompts, pad_id=pad, stop_ids=run.stop_ids, longest=longest)
        totals = trainer.rewards(batch, answers).totals
        return [[total or 0.0, float(total is not None), len(ids)] for total, ids in zip(totals, answers, strict=True)]

    values = evaluate.sweep(trainer.model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    totals, weights, lengths = ([float(v) for v in column] for column in zip(*values, strict=True))
    if not any(weights):
        trainer.rewards.give_up(f"none of the {len(weights)} answers to {split.name} got a score")
    return Score({"reward": Mean(totals, weights)}, tokens=int(sum(lengths)))
