"""What evaluation.rewards say of the models' greedy answers to held-out prompts, before and after training.

The rewards are made for each measurement and dropped after it: a reward model takes no memory while training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hone_api.modelversion import EvaluationNumber
from hone_api.plan import DatasetInput, TrainingPlan
from hone_trainer import evaluate, ranks, rewards, sampling, scores
from hone_trainer.encode import encode_split, records
from hone_trainer.encode_prompts import Prompt, PromptEncoder
from hone_trainer.errors import TrainerError
from hone_trainer.evaluate import HeldOut
from hone_trainer.loop import Run
from hone_trainer.methods.base import Poll
from hone_trainer.model import Base
from hone_trainer.rewards import Combined, Masked, gold
from hone_trainer.rewards.base import Scored
from hone_trainer.sandbox import Workers
from hone_trainer.scores import Mean, Score

REWARD, WIN_RATE = "reward_", "win_rate_"
"""What names of numbers begin with, before a reward's."""


def prompts(plan: TrainingPlan, base: Base) -> list[HeldOut]:
    """The held-out prompts that both models answer, where the plan has rewards for the answers.

    Raises:
        TrainerError: DatasetFormatMismatch, NoTrainableRows.
    """
    if not plan.evaluation.rewards:
        return []
    return [HeldOut(f"{s.name}/{s.split}", _prompts(plan, base, s), Path(s.path)) for s in plan.evaluation_datasets]


def _prompts(plan: TrainingPlan, base: Base, source: DatasetInput) -> list[Prompt]:
    read = dict(records(Path(source.path)))
    if "text" in next(iter(read.values()), {}):
        message = f"{source.name}/{source.split}: evaluation.rewards: rows of format Text hold no prompt to answer"
        raise TrainerError("DatasetFormatMismatch", message)
    encoder = PromptEncoder(base.tokenizer, base.context - longest_answer(plan))
    found = encode_split(source.path, encoder, max_length=None).rows
    # What KTO calls a bad answer is nothing to compare with.
    good = [row for row in found if read[row.number].get("label") is not False]
    if not good:
        message = f"{source.name}/{source.split}: evaluation.rewards: all {len(found)} answers have the label false"
        raise TrainerError("NoTrainableRows", message)
    return good[: plan.evaluation.max_rows]


def longest_answer(plan: TrainingPlan) -> int:
    """Most tokens of an answer: those of the samples that the method learns from, where that is more."""
    own = plan.grpo or plan.ppo
    return max(plan.evaluation.max_new_tokens, own.max_completion_length if own else 0)


def measure(trainer: Any, poll: Poll, *, check: bool = False) -> list[Score]:
    """One score a split of `run.prompts`, of the model as it is. A collective.

    Args:
        check: whether the rewards must first show that they know the rows' own answers.

    Raises:
        TrainerError: RewardFailed or SandboxFailed, when no answer of a split got a score of a reward; what
            `rewards.make` and `rewards.gold.check` raise.
    """
    run: Run = trainer.run
    if not run.prompts:
        return []
    specs = run.plan.evaluation.rewards
    with Workers() as workers:
        made = rewards.of_plan(run.plan, specs, workers)
        for split in run.prompts if check else ():
            for sentence in gold.check(made, [spec.type for spec in specs], split.rows, f"{split.name}: "):
                run.reporters.say(sentence)
        return [_score(trainer, made, split, poll) for split in run.prompts]


def _score(trainer: Any, made: Combined, split: HeldOut, poll: Poll) -> Score:
    run: Run = trainer.run
    longest, pad = longest_answer(run.plan), run.base.tokenizer.pad_token_id

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        asked = [row.prompt_ids for row in batch]
        answers = sampling.greedy(trainer.model, asked, pad_id=pad, stop_ids=run.stop_ids, longest=longest)
        found = made(rewards.as_samples(run.base.tokenizer, batch, answers)).parts.values()
        return [[float(len(ids)), *chain(*map(_columns, scored))] for ids, *scored in zip(answers, *found, strict=True)]

    values = evaluate.sweep(trainer.model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    tokens, *columns = zip(*values, strict=True)
    means = {}
    for index, part in enumerate(made.parts):
        totals, weights, broken = columns[3 * index : 3 * index + 3]
        if masked := weights.count(0):
            reason = _reason(made, part.name)
            if masked == len(weights):
                message = f"reward {part.name}: none of the {masked} answers to {split.name} got a score{reason}"
                raise TrainerError("SandboxFailed" if any(broken) else "RewardFailed", message, rank=ranks.rank())
            run.reporters.say(
                f"reward {part.name}: {masked} of the {len(weights)} answers to {split.name} got no score and are left "
                f"out{reason}"
            )
        means[REWARD + part.name] = Mean(list(totals), list(weights))
    return Score(means, tokens=int(sum(tokens)))


def _columns(score: Scored) -> tuple[float, float, float]:
    """Score, whether it counts, whether the sandbox is to blame."""
    return (0.0, 0.0, float(score.broken)) if isinstance(score, Masked) else (score, 1.0, 0.0)


def _reason(made: Combined, name: str) -> str:
    """Why most of this rank's samples without a score have none; another rank's may be unknown here."""
    known = [reason for reason, _ in made.counts.most_common() if reason.startswith(f"{name}: ")]
    return f"; most often: {known[0].removeprefix(f'{name}: ')}" if known else ""


def numbers(splits: Sequence[str], base: Sequence[Score] | None, tuned: Sequence[Score]) -> list[EvaluationNumber]:
    """Each reward on each split before and after, and how often the tuned model's answer has the higher one.

    Args:
        splits: their names, in the order of the scores.
    """
    befores: Sequence[Score | None] = base or [None] * len(tuned)
    found = zip(splits, befores, tuned, strict=True)
    return [number for split, before, after in found for number in _numbers(split, before, after)]


def _numbers(split: str, before: Score | None, after: Score) -> Iterator[EvaluationNumber]:
    for name, mean in after.means.items():
        old, new = common(before.means[name] if before else mean, mean)
        compared = before is not None and bool(new.totals)
        if not compared:  # each by itself says more than nothing
            _, new = common(mean, mean)
        past = [Score({name: old}, after.tokens)] if compared else None
        yield from scores.numbers([split], [name], past, [Score({name: new}, after.tokens)])
        if compared and name.startswith(REWARD):
            rate = WIN_RATE + name.removeprefix(REWARD)
            yield from scores.numbers([split], [rate], None, [Score({rate: wins(old, new)}, after.tokens)])


def common(one: Mean, other: Mean) -> tuple[Mean, Mean]:
    """Both with the rows alone that count in both."""
    rows = [i for i, weights in enumerate(zip(one.weights, other.weights, strict=True)) if all(weights)]
    first, second = (Mean([m.totals[i] for i in rows], [m.weights[i] for i in rows]) for m in (one, other))
    return first, second


def wins(base: Mean, tuned: Mean) -> Mean:
    """Row by row 1 where the tuned model's answer scores higher than the base's, 0.5 where both score the same, else 0;
    all rows count."""
    pairs = zip(base.totals, tuned.totals, strict=True)
    return Mean([(new > old) + 0.5 * (new == old) for old, new in pairs], [1.0] * len(base.totals))
