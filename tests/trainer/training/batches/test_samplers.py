"""The order of rows: the libraries' own in few bytes a row; within a step, less padding and the same weights."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from support.runs import method_plans
from support.runs.memory import peak_bytes
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import RepeatSampler

from hone_trainer.training.batches.deferred import Counted, Divided
from hone_trainer.training.batches.samplers import PromptOrder, Rounds, Shuffled, WithinStep, passes

pytestmark = pytest.mark.trainer
MANY = 300_000


class InTurn:
    """A sampler whose order depends on the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self):
        return iter([3, 0, 6, 2, 5, 1, 4] if self.epoch == 0 else [6, 5, 4, 3, 2, 1, 0])

    def __len__(self) -> int:
        return 7

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_each_step_keeps_its_rows_and_has_them_longest_first() -> None:
    lengths = [10, 20, 30, 40, 50, 60, 70]
    order = WithinStep(InTurn(), lengths, rows=3)
    assert list(order) == [6, 3, 0, 5, 2, 1, 4]  # {3, 0, 6}, {2, 5, 1}, {4}
    order.set_epoch(1)
    assert list(order) == [6, 5, 4, 3, 2, 1, 0]
    assert len(order) == 7


@pytest.mark.parametrize("rows", [1, 2, 4095, 4096, 4097, 50_000])
def test_the_shuffled_order_is_that_of_accelerate_in_every_epoch(rows: int) -> None:
    theirs, inner = (SeedableRandomSampler(range(rows), data_seed=7) for _ in range(2))
    ours = Shuffled(inner)
    assert len(ours) == rows
    for epoch in (None, None, 5, 2**40):
        for sampler in (theirs, ours) if epoch is not None else ():
            sampler.set_epoch(epoch)
        assert list(ours) == list(theirs)


@pytest.mark.parametrize(
    ("rows", "batch", "each", "times"), [(7, 3, 2, 4), (12, 4, 1, 1), (5, 8, 1, 2), (9000, 16, 2, 1)]
)
def test_the_order_of_prompts_is_that_of_trl(rows: int, batch: int, each: int, times: int) -> None:
    theirs, inner = (RepeatSampler(range(rows), each, batch, times, seed=3) for _ in range(2))
    ours = PromptOrder(inner, 3)
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs)
    ours.set_epoch(4)
    theirs.generator.manual_seed(7)
    assert list(ours) == list(theirs)


SAMPLERS: dict[str, Callable[[], Any]] = {
    "accelerate": lambda: SeedableRandomSampler(range(MANY), data_seed=1),
    "TRL": lambda: RepeatSampler(range(MANY), 1, 8, 1, seed=1),
    "Shuffled": lambda: Shuffled(SeedableRandomSampler(range(MANY), data_seed=1)),
    "PromptOrder": lambda: PromptOrder(RepeatSampler(range(MANY), 1, 8, 1, seed=1), 1),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_python_object_is_made_of_each_row(name: str) -> None:
    """torch keeps four bytes a row, which Python does not see. The libraries' own show that the measure does."""
    sampler = SAMPLERS[name]()
    list(islice(sampler, 8))  # what is made once
    spent = peak_bytes(lambda: list(islice(sampler, 8)))
    assert (spent < MANY) == (name in ("Shuffled", "PromptOrder"))


@pytest.mark.parametrize("variant", ["SFT", "DPO", "Reward"])
def test_a_run_reads_its_rows_in_no_order_of_torch(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, variant: str
) -> None:
    def refuse(self: Any) -> Any:
        raise AssertionError("torch makes a list of all rows")

    monkeypatch.setattr(torch.utils.data.RandomSampler, "__iter__", refuse)
    training = {"maxSteps": 2, "batchSize": 8, "microBatchSize": 4}
    runs.finish(method_plans.plan_of(make_plan, variant, tmp_path, tiny_model, training=training))


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_ranks_have_each_row_once_and_equally_many_batches(world_size: int, micro_batch: int) -> None:
    for rows in range(1, 4 * world_size * micro_batch):
        rounds = Rounds(range(rows), micro_batch, world_size)
        shards = [BatchSamplerShard(rounds, world_size, rank) for rank in range(world_size)]
        dealt = [list(shard) for shard in shards]
        assert (
            {len(own) for own in dealt} == {len(shard) for shard in shards} == {-(-rows // (micro_batch * world_size))}
        )
        assert [row for together in zip(*dealt, strict=True) for own in together for row in own] == list(range(rows))


@pytest.mark.parametrize("seed", range(20))
def test_passes_hold_each_row_once_and_no_more_than_their_tokens(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [draw.randint(1, 100) for _ in range(draw.randint(1, 40))]
    most = max(lengths) * draw.randint(1, 4)
    found = passes(lengths, most)
    assert sorted(place for rows in found for place in rows) == list(range(len(lengths)))
    assert all(rows and sum(lengths[place] for place in rows) <= most for rows in found)
    by_count = most // max(lengths)  # as many of the longest
    assert -(-sum(lengths) // most) <= len(found) <= -(-len(lengths) // by_count)


@pytest.mark.parametrize(("rows", "ranks"), [(24, 1), (24, 3), (7, 2), (1, 3), (50, 4)])
def test_ranks_share_the_tokens_of_a_step(rows: int, ranks: int) -> None:
    draw = random.Random(rows)
    lengths = [draw.randint(1, 100) for _ in range(rows)]
    batches = list(Rounds(range(rows), 6, ranks, lengths))
    assert len(batches) == len(Rounds(range(rows), 6, ranks))
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    for start in range(0, len(batches), ranks):
        step = batches[start : start + ranks]
        assert sorted(row for batch in step for row in batch) == list(range(rows))[start * 6 : (start + ranks) * 6]
        tokens = [sum(lengths[row] for row in batch) for batch in step]
        assert max(tokens) - min(tokens) <= 100  # the longest row


@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_of_the_tokens_that_a_default_step_computes_97_percent_are_of_rows(sigma: float) -> None:
    """Lengths around 300 tokens, log-normal, 8 rows a step. Padded to the longest row, 53 and 33 % are of rows."""
    lengths = np.random.default_rng(1).lognormal(math.log(300), sigma, 400).astype(int).clip(1, 4096).tolist()
    collate = DataCollatorForLanguageModeling(0, padding_free=True)
    divide = Divided(Counted(collate, lambda: {"input_ids": [1]}), 4 * max(lengths))
    padded = DataCollatorForLanguageModeling(0)
    computed, computed_padded = 0, 0
    for start in range(0, len(lengths), 8):
        step = [{"input_ids": [1] * length} for length in lengths[start : start + 8]]
        computed += sum(batch["input_ids"].numel() for batch in divide(step))
        computed_padded += padded(step)["input_ids"].numel()
    assert sum(lengths) / computed >= 0.97
    assert sum(lengths) / computed_padded < 0.6
