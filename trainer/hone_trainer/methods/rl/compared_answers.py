"""Greedy answers of another version to held-out prompts: kept as token ids until the run has its rewards or judge.

Both versions are then scored by the same rewards. Greedy decoding draws nothing, so no seed is involved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hone_trainer import ranks
from hone_trainer.encoding.prompts import Prompt
from hone_trainer.models import generate
from hone_trainer.models.network import Generating
from hone_trainer.scoring import heldout
from hone_trainer.scoring.heldout import HeldOut
from hone_trainer.scoring.row_measure import Needs, Poll, RowMeasure, Values
from hone_trainer.scoring.scores import Mean, Score
from hone_trainer.training.loop import Loop, Run

BATCH = 64
"""Answers that a rank scores at a time."""
Longest = Callable[[Run], int]
"""Tokens of the longest answer of a run."""
Rewarding = Callable[[Any, Sequence[Prompt], Sequence[list[int]]], Sequence[float | None]]
"""Trainer, prompts, answers -> the reward of each answer; None: it has none, and its row is not compared."""


def measure(longest: Longest, rewarding: Rewarding, needs: Needs | None = None) -> RowMeasure:
    """The measure of a method that rewards answers: the reward of the greedy answer to each prompt.

    Args:
        needs: what `rewarding` reads of the trainer.
    """
    return RowMeasure(
        values=lambda run, model, split, poll: _answers(run, model, split, longest(run), poll),
        score=lambda trainer, split, values, poll: _score(trainer, split, values, rewarding, poll),
        needs=needs,
    )


def _answers(run: Run, model: Generating, split: HeldOut, longest: int, poll: Poll) -> Values:
    """The token ids of the answer to each prompt. A collective."""
    pad = run.base.tokenizer.pad_token_id

    def forward(batch: Sequence[Prompt]) -> list[list[float]]:
        prompts = [row.prompt_ids for row in batch]
        answers = generate.greedy(model, prompts, pad_id=pad, stop_ids=run.stop_ids, longest=longest)
        return [[float(len(ids)), *map(float, ids), *[0.0] * (longest - len(ids))] for ids in answers]

    padded = heldout.sweep(model, split.rows, forward, bf16=run.settings.bf16, poll=poll)
    return [row[1 : 1 + int(row[0])] for row in padded]


def _score(trainer: Loop, split: HeldOut, values: Values, rewarding: Rewarding, poll: Poll) -> Score:
    """The mean reward of answers. A collective: every rank scores its part."""
    rows, world = split.rows, ranks.world_size()
    totals, weights = [0.0] * len(rows), [0.0] * len(rows)
    poll.count(0, begun=len(rows))
    for start in range(0, len(rows), BATCH * world):
        poll()
        mine = range(start + ranks.rank(), min(start + BATCH * world, len(rows)), world)
        answers = [[int(token) for token in values[row]] for row in mine]
        # In ZeRO stage 3 PPO's judge is a collective, which a rank without rows would leave out, and the others would
        # wait. It does not get here: evaluation.against is refused in stage 3 (hone_api/combinations/rules.py).
        rewards = rewarding(trainer, [rows[row] for row in mine], answers) if mine else []
        for row, reward in zip(mine, rewards, strict=True):
            totals[row], weights[row] = (0.0, 0.0) if reward is None else (float(reward), 1.0)
        poll.count(min(BATCH * world, len(rows) - start))
    numbers = ranks.add_up([*totals, *weights])
    mean = Mean(numbers[: len(rows)], numbers[len(rows) :])
    return Score({"reward": mean}, tokens=sum(map(len, values)))
