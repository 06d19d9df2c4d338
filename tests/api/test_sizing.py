"""Rows of a forward pass: as many as help, and as fit."""

from __future__ import annotations

from typing import Any

import pytest
from shapes import LLAMA_7B

from hone_api.estimate import estimate
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.sizing import FILLED, longest_sequence, micro_batch, setup

pytestmark = pytest.mark.pure
GIB = 2**30


def spec(**fields: Any) -> FineTuneJobSpec:
    least = {"model": {"uri": "hf://a/b"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
    return FineTuneJobSpec.model_validate({**least, **fields})


def rows(plan: FineTuneJobSpec, *, ranks: int = 1, gpu: bool = True, longest: int = 64) -> int:
    return micro_batch(plan, ranks=ranks, gpu=gpu, longest=longest)


@pytest.mark.parametrize(
    ("batch", "ranks", "micro"), [(8, 1, 8), (8, 2, 4), (64, 2, 8), (36, 1, 6), (7, 1, 7), (22, 2, 1), (13, 1, 1)]
)
def test_the_largest_divisor_up_to_8(batch: int, ranks: int, micro: int) -> None:
    assert rows(spec(training={"batchSize": batch}), ranks=ranks) == micro


@pytest.mark.parametrize(("longest", "micro"), [(10, 8), (128, 8), (129, 4), (512, 2), (600, 1), (4096, 1)])
def test_a_pass_on_a_cpu_has_at_most_1024_tokens_or_one_row(longest: int, micro: int) -> None:
    assert rows(spec(), gpu=False, longest=longest) == micro
    assert rows(spec(), longest=longest) == 8
    assert rows(spec(method="DPO"), gpu=False, longest=longest) == 8
    assert rows(spec(training={"microBatchSize": 4}), gpu=False, longest=longest) == 4


def on_gpu(plan: FineTuneJobSpec, memory: int | None) -> Any:
    return setup(plan, LLAMA_7B, ranks=1, gpu=True, bf16=True, longest=2048, memory=memory)


@pytest.mark.parametrize("method", ["SFT", "DPO"])
def test_as_many_rows_as_memory_takes(method: str) -> None:
    plan, chosen = spec(method=method), []
    for memory in (None, 1000 * GIB, 160 * GIB, 80 * GIB, 48 * GIB, 8 * GIB):
        made = on_gpu(plan, memory)
        chosen.append(made.micro_batch)
        assert not memory or made.micro_batch == 1 or estimate(made).total <= FILLED * memory
    assert chosen == sorted(chosen, reverse=True)
    assert (chosen[0], chosen[1], chosen[-1]) == (8, 8, 1)
    assert len(set(chosen)) > 2


def test_what_is_named_stays_and_rows_that_belong_together_too() -> None:
    assert on_gpu(spec(training={"microBatchSize": 8}), GIB).micro_batch == 8
    assert on_gpu(spec(method="KTO"), GIB).micro_batch == 8
    grpo = {"method": "GRPO", "grpo": {"rewards": [{"type": "Number"}]}}
    assert on_gpu(spec(**grpo), GIB).micro_batch == 8


@pytest.mark.parametrize(
    ("method", "options"),
    [("PPO", {"rewardModelVersion": "judge-v1"}), ("GRPO", {"rewards": [{"type": "Number"}]})],
)
def test_an_answer_that_is_sampled_comes_to_the_longest_prompt(method: str, options: dict[str, Any]) -> None:
    fields = {"method": method, method.lower(): {**options, "maxCompletionLength": 300}}
    assert longest_sequence(spec(**fields), 100) == 400
    assert longest_sequence(spec(**fields, training={"maxLength": 512}), 100) == 512
    assert longest_sequence(spec(), 100) == 100
