"""The rewards of a run in training and on held-out prompts."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from hone_api.words.failures import FailureCode
from hone_trainer import ranks, rewards
from hone_trainer.encoding.prompts import Prompt
from hone_trainer.errors import TrainerError
from hone_trainer.models import generate
from hone_trainer.models.network import Generating
from hone_trainer.rewards import Masked, gold
from hone_trainer.rewards.combined import CombinedScores
from hone_trainer.sandbox import SandboxWorkers
from hone_trainer.scoring import heldout
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Poll
from hone_trainer.scoring.scores import Mean, Score
from hone_trainer.training.loop import Run

CONSTANT = "frac_reward_zero_std"
"""TRL's name for the share of prompts whose samples all got the same reward."""
CLIPPED = "completions/clipped_ratio"
"""TRL's name for the share of samples that were cut at their limit."""
MASKED = "masked_samples"
"""Share of samples that are left out of the loss and of what their siblings are compared with: they failed, were cut
where cut ones do not count, or a reward left them out on purpose."""
FAILED = "failed_samples"
"""Share of samples whose generation or reward failed."""
_REASONS_REPORTED = 20


class Rewards:
    """The rewards that the plan names.

    Raises:
        TrainerError: see `rewards.make`.
    """

    def __init__(self, run: Run) -> None:
        assert run.plan.grpo is not None
        self._specs = run.plan.grpo.rewards
        self._run = run
        workers = SandboxWorkers()
        weakref.finalize(self, workers.close)
        self._combined = rewards.of_plan(run.plan, self._specs, workers)
        self._mask_cut = run.plan.grpo.mask_truncated_completions
        self._reported: set[str] = set()
        self._last: CombinedScores | None = None
        self.unanswered: Callable[[], Sequence[bool]] | None = None
        """Which of the newest samples a server failed to generate, where one generates."""
        self.kept: list[bool] = []
        """Which of the samples that `score` saw last have a score."""

    def check(self) -> None:
        """Check them against the own answers of the run's rows.

        Raises:
            TrainerError: see `rewards.gold.check`.
        """
        for sentence in gold.check(self._combined, [spec.type for spec in self._specs], self._prompts):
            self._run.reporters.log(sentence)

    @property
    def _prompts(self) -> Sequence[Prompt]:
        return cast(Sequence[Prompt], self._run.rows)

    def __call__(self, rows: Sequence[Prompt], answers: Sequence[Sequence[int]]) -> CombinedScores:
        """Scores of answers, which are token ids including the end-of-turn token."""
        samples = rewards.as_samples(self._run.base.tokenizer, rows, answers) if rows else []
        self._last = scores = self._combined(samples) if samples else CombinedScores([], {})
        self._report(scores)
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
        lost = list(self.unanswered()) if self.unanswered else [False] * len(row)
        ended = [ids[-1] in self._run.stop_ids for ids in completion_ids]
        cut = [self._mask_cut and not ended[i] and not lost[i] for i in range(len(row))]
        here = [i for i in range(len(row)) if not cut[i] and not lost[i]]
        scores = self([self._prompts[row[i]] for i in here], [completion_ids[i] for i in here])
        totals = dict(zip(here, scores.totals, strict=True))
        self.kept = [totals.get(i) is not None for i in range(len(row))]
        failed = scores.failed() + sum(lost)
        log_metric(MASKED, 1 - sum(self.kept) / len(row))
        log_metric(FAILED, failed / len(row))
        self._check(failed, sum(cut), len(row))
        for name, results in scores.parts.items():
            numbers = [score for score in results if not isinstance(score, Masked)]
            if numbers and len(scores.parts) > 1:
                log_metric(f"reward_{name}", sum(numbers) / len(numbers))
        return [totals.get(i) for i in range(len(row))]

    def _check(self, failed: int, cut: int, samples: int) -> None:
        """Give up when no sample of a step got a score and failures, rather than cut answers, are why. A collective."""
        scored, failures, cuts, count = ranks.add_up([sum(self.kept), failed, cut, samples])
        if failures > cuts and not scored:
            self.give_up(f"none of {count:.0f} samples got a score")

    def give_up(self, what: str) -> None:
        """End the run: `what` has no score; the message has the reasons of the last samples. A collective.

        Raises:
            TrainerError: SandboxFailed, EndpointUnreachable or RewardFailed, the same on every rank.
        """
        masks = self._last.masks() if self._last else []
        code = FailureCode.REWARD_FAILED
        if ranks.any_rank(any(mask.broken for mask in masks)):
            code = FailureCode.SANDBOX_FAILED
        elif ranks.any_rank(
            any(mask.unreachable for mask in masks) or bool(self.unanswered and any(self.unanswered()))
        ):
            code = FailureCode.ENDPOINT_UNREACHABLE
        reasons = self._last.masked().most_common(1) if self._last else []
        words = "".join(f"; of {count} the reason is {reason}" for reason, count in reasons)
        raise TrainerError(code, f"{what}{words}", rank=ranks.rank())

    def _report(self, scores: CombinedScores) -> None:
        """Each reason once."""
        for reason, count in scores.masked().items():
            if reason not in self._reported and len(self._reported) < _REASONS_REPORTED:
                self._reported.add(reason)
                self._run.reporters.log(f"{count} samples are left out, reward {reason}")


def leave_out(batch: dict[str, Any], kept: Sequence[bool], add_up: Callable[[Any], Any]) -> dict[str, Any]:
    """What GRPO learns from, without the tokens of samples that have no score.

    TRL gives them the advantage 0, but they would still be pulled to the reference by beta, and count among the tokens
    that the loss is divided by. RLOO needs none of it: its loss is of whole answers, and its KL is part of the reward.

    Args:
        batch: as TRL's `_generate_and_score_completions` makes it.
        kept: of each sample, whether it has a score.
        add_up: a tensor's sum over all ranks.
    """
    import torch

    mask = batch["completion_mask"] * torch.tensor(kept, device=batch["completion_mask"].device)[:, None]
    return {**batch, "completion_mask": mask, "num_items_in_batch": add_up(mask.sum())}


class Rewarded(Protocol):
    """A trainer whose answers rewards score."""

    run: Run
    model: Generating
    rewards: Rewards


def score_greedy(trainer: Rewarded, split: HeldOut, poll: Poll) -> Score:
    """Mean reward of greedy answers to held-out prompts. A collective.

    Raises:
        TrainerError: see `Rewards.give_up`, when no answer got a score.
    """
    run = trainer.run
    assert run.plan.grpo is not None
    longest, pad = run.plan.grpo.max_completion_length, run.base.tokenizer.pad_token_id

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        prompts = [row.prompt_ids for row in batch]
        answers = generate.greedy(trainer.model, prompts, pad_id=pad, stop_ids=run.stop_ids, longest=longest)
        totals = trainer.rewards(batch, answers).totals
        return [[total or 0.0, float(total is not None), len(ids)] for total, ids in zip(totals, answers, strict=True)]

    values = heldout.sweep(trainer.model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    totals, weights, lengths = ([float(v) for v in column] for column in zip(*values, strict=True))
    if not any(weights):
        trainer.rewards.give_up(f"none of the {len(weights)} answers to {split.name} got a score")
    return Score({"reward": Mean(totals, weights)}, tokens=int(sum(lengths)))
