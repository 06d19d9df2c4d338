"""Rewards of evaluation.rewards for the models' answers to held-out prompts, before and after training.

The rewards are built for each measurement and dropped after it, so a reward model takes no memory during training.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from hone_api.blocks.rewards import VERIFIERS
from hone_api.kinds.modelversion import PARITY
from hone_api.plan import DatasetInput, TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer import ranks, rewards
from hone_trainer.encoding.prompts import Prompt, PromptEncoder
from hone_trainer.encoding.split_file import encode_split, records
from hone_trainer.errors import TrainerError
from hone_trainer.models import generate
from hone_trainer.models.base_model import Base
from hone_trainer.rewards import Combined, Masked, gold
from hone_trainer.rewards.base import Sample, Scored
from hone_trainer.sandbox import SandboxWorkers
from hone_trainer.scoring import heldout
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.paired import REWARD, pass_at, pass_name
from hone_trainer.scoring.row_measure import Poll
from hone_trainer.scoring.scores import Mean, Score
from hone_trainer.training.loop import Loop, Run

WIDTH = 4
"""Values for each score, see `_columns`."""


def prompts(plan: TrainingPlan, base: Base) -> list[HeldOut]:
    """The held-out prompts that both models answer; empty if the plan has no evaluation.rewards.

    Raises:
        TrainerError: DatasetFormatMismatch, NoTrainableRows.
    """
    if not plan.evaluation.rewards:
        return []
    return [HeldOut(f"{s.name}/{s.split}", _prompts(plan, base, s), Path(s.path)) for s in plan.evaluation_datasets]


def _prompts(plan: TrainingPlan, base: Base, source: DatasetInput) -> list[Prompt]:
    rows_by_line = dict(records(Path(source.path)))
    if "text" in next(iter(rows_by_line.values()), {}):
        message = f"{source.name}/{source.split}: evaluation.rewards: rows of format Text have no prompt to answer"
        raise TrainerError(FailureCode.DATASET_FORMAT_MISMATCH, message)
    encoder = PromptEncoder(base.tokenizer, base.context - longest_answer(plan))
    rows = encode_split(source.path, encoder, max_length=None).rows
    # KTO's bad answers are not references.
    good = [row for row in rows if rows_by_line[row.number].get("label") is not False]
    if not good:
        message = f"{source.name}/{source.split}: evaluation.rewards: all {len(rows)} answers have the label false"
        raise TrainerError(FailureCode.NO_TRAINABLE_ROWS, message)
    return good[: plan.evaluation.max_rows]


def longest_answer(plan: TrainingPlan) -> int:
    """Maximum tokens of an answer: those of the samples that the method learns from, if that is more."""
    own = plan.grpo or plan.ppo
    return max(plan.evaluation.max_new_tokens, own.max_completion_length if own else 0)


def measure(trainer: Loop, poll: Poll, *, check: bool = False) -> list[Score]:
    """One score for each split of `run.prompts`, of the model in its current state. A collective.

    Args:
        check: whether the rewards must first accept the rows' own answers.

    Raises:
        TrainerError: RewardFailed, SandboxFailed or EndpointUnreachable, if a reward scored no answer of a split; also
            the
            errors of `rewards.make` and `rewards.gold.check`.
    """
    run: Run = trainer.run
    if not run.prompts:
        return []
    specs = run.plan.evaluation.rewards
    with SandboxWorkers() as workers:
        combined = rewards.of_plan(run.plan, specs, workers)
        for split in run.prompts if check else ():
            for sentence in gold.check(combined, [spec.type for spec in specs], split.rows, f"{split.name}: "):
                run.reporters.log(sentence)
        return [_score(trainer, combined, split, poll) for split in run.prompts]


def recorded(trainer: Loop, poll: Poll) -> list[Score]:
    """The same rewards of the answers that another model gave; rows without one do not count. A collective.

    Raises:
        TrainerError: as `measure`.
    """
    run: Run = trainer.run
    if not any("recorded" in row.record for split in run.prompts for row in split.rows):
        return []
    with SandboxWorkers() as workers:
        combined = rewards.of_plan(run.plan, run.plan.evaluation.rewards, workers)
        return [_recorded(trainer, combined, split, poll) for split in run.prompts]


def _recorded(trainer: Loop, combined: Combined, split: HeldOut, poll: Poll) -> Score:
    run: Run = trainer.run

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        texts = [str(row.record["recorded"]) for row in batch]
        ids = [run.base.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        samples = [Sample(text, row.record, len(i) + 1) for text, row, i in zip(texts, batch, ids, strict=True)]
        return [list(chain(*map(_columns, scored))) for scored in zip(*combined(samples).parts.values(), strict=True)]

    having = [row for row in split.rows if "recorded" in row.record]
    values = heldout.sweep(trainer.model, having, forward, bf16=run.settings.bf16, poll=poll) if having else []
    by_line = dict(zip([row.number for row in having], values, strict=True))
    means = {}
    for index, part in enumerate(combined.parts):
        columns = list(zip(*(value[WIDTH * index : WIDTH * (index + 1)] for value in values), strict=True))
        if having:
            of_recorded = Mean(list(columns[1]), list(columns[0]))
            _report(run, combined, split, Graded(part.name, PARITY + part.name, of_recorded, _failure(*columns[2:])))
        both = [by_line.get(row.number, [0.0] * WIDTH * len(combined.parts)) for row in split.rows]
        means[REWARD + part.name] = Mean([row[WIDTH * index + 1] for row in both], [row[WIDTH * index] for row in both])
    return Score(means, 0)


def _score(trainer: Loop, combined: Combined, split: HeldOut, poll: Poll) -> Score:
    tokens, metrics = _greedy(trainer, combined, split, poll)
    if trainer.run.plan.evaluation.pass_at:
        metrics += _sampled(trainer, combined, split, poll)
    for graded in metrics:
        _report(trainer.run, combined, split, graded)
    return Score({graded.name: graded.mean for graded in metrics}, tokens)


class Graded(NamedTuple):
    """A metric of the answers to a split."""

    reward: str
    name: str
    mean: Mean
    failure: FailureCode
    """Failure code if no row has a score."""


def _report(run: Run, combined: Combined, split: HeldOut, graded: Graded) -> None:
    """Report that rows are left out.

    Raises:
        TrainerError: with `graded.failure`, if all rows are.
    """
    masked, rows = graded.mean.weights.count(0), len(graded.mean.weights)
    # The most common reason on this rank; other ranks' reasons are unknown here.
    reasons = [reason for reason, _ in combined.counts.most_common() if reason.startswith(f"{graded.reward}: ")]
    why = f"; most often: {reasons[0].removeprefix(f'{graded.reward}: ')}" if reasons else ""
    if masked == rows:
        message = f"{graded.name} on {split.name}: none of {rows} rows got a score{why}"
        raise TrainerError(graded.failure, message, rank=ranks.rank())
    if masked:
        run.reporters.log(f"{graded.name} on {split.name}: {masked} of {rows} rows got no score and are left out{why}")


def _greedy(trainer: Loop, combined: Combined, split: HeldOut, poll: Poll) -> tuple[int, list[Graded]]:
    """Tokens of the likeliest answers, and their rewards."""
    run: Run = trainer.run
    longest, pad = longest_answer(run.plan), run.base.tokenizer.pad_token_id

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        asked = [row.prompt_ids for row in batch]
        answers = generate.greedy(trainer.model, asked, pad_id=pad, stop_ids=run.stop_ids, longest=longest)
        scores = combined(rewards.as_samples(run.base.tokenizer, batch, answers)).parts.values()
        return [
            [float(len(ids)), *chain(*map(_columns, scored))] for ids, *scored in zip(answers, *scores, strict=True)
        ]

    values = heldout.sweep(trainer.model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    tokens, *columns = zip(*values, strict=True)
    out = []
    for index, part in enumerate(combined.parts):
        weights, totals, *blamed = columns[WIDTH * index : WIDTH * (index + 1)]
        out.append(Graded(part.name, REWARD + part.name, Mean(list(totals), list(weights)), _failure(*blamed)))
    return int(sum(tokens)), out


def _sampled(trainer: Loop, combined: Combined, split: HeldOut, poll: Poll) -> list[Graded]:
    """pass@k of each reward that scores right or wrong. The seeds do not depend on the model's weights."""
    run: Run = trainer.run
    options, pad = run.plan.evaluation.pass_at, run.base.tokenizer.pad_token_id
    assert options is not None
    specs = zip(combined.parts, run.plan.evaluation.rewards, strict=True)
    verifiers = Combined([part for part, spec in specs if spec.type in VERIFIERS], combined.counts)

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        sums = [[0.0] * (WIDTH * len(verifiers.parts)) for _ in batch]
        for turn in range(options.generations):
            poll()
            answers = generate.draw(
                trainer.model,
                [row.prompt_ids for row in batch],
                seed=(run.plan.training.seed << 32) + 256 * batch[0].number + turn,
                temperature=float(options.temperature),
                pad_id=pad,
                stop_ids=run.stop_ids,
                longest=longest_answer(run.plan),
            )
            scores = verifiers(rewards.as_samples(run.base.tokenizer, batch, answers)).parts.values()
            columns = [list(chain(*map(_columns, scored))) for scored in zip(*scores, strict=True)]
            sums = [[a + b for a, b in zip(*pair, strict=True)] for pair in zip(sums, columns, strict=True)]
        return sums

    values = heldout.sweep(trainer.model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    columns, out = list(zip(*values, strict=True)), []
    for index, part in enumerate(verifiers.parts):
        has_score, right, *blamed = columns[WIDTH * index : WIDTH * (index + 1)]
        for k in options.k:
            out.append(Graded(part.name, pass_name(k, part.name), pass_at(k, has_score, right), _failure(*blamed)))
    return out


def _columns(score: Scored) -> tuple[float, ...]:
    """WIDTH values: whether it counts, the score, whether the sandbox failed, and whether a server was unreachable."""
    if isinstance(score, Masked):
        return 0.0, 0.0, float(score.broken), float(score.unreachable)
    return 1.0, score, 0.0, 0.0


def _failure(broken: Sequence[float], unreachable: Sequence[float]) -> FailureCode:
    """The failure code: another attempt may reach a server that was unreachable, and evaluates the trained model."""
    if any(broken):
        return FailureCode.SANDBOX_FAILED
    return FailureCode.ENDPOINT_UNREACHABLE if any(unreachable) else FailureCode.REWARD_FAILED
