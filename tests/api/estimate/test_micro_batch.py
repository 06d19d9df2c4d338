"""Rows of a forward pass: as many as help, and as fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.models.shapes import LLAMA_7B

from hone_api.blocks.shape import ModelShape
from hone_api.blocks.training import Recompute
from hone_api.estimate.memory import estimate
from hone_api.estimate.micro_batch import FILLED, longest_sequence, micro_batch, setup
from hone_api.kinds.finetunejob import FineTuneJobSpec

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
    assert rows(spec(training={"batchSize": batch, "microBatchSize": "Auto"}), ranks=ranks) == micro


@pytest.mark.parametrize(("longest", "micro"), [(10, 8), (128, 8), (129, 4), (512, 2), (600, 1), (4096, 1)])
def test_a_pass_on_a_cpu_has_at_most_1024_tokens_or_one_row(longest: int, micro: int) -> None:
    assert rows(spec(), gpu=False, longest=longest) == micro
    assert rows(spec(), longest=longest) == 8
    assert rows(spec(method="DPO"), gpu=False, longest=longest) == 8
    assert rows(spec(training={"microBatchSize": 4}), gpu=False, longest=longest) == 4


def test_ranks_that_share_rows_have_the_rows_of_one() -> None:
    together = spec(training={"batchSize": 8, "sequenceParallel": 4}, resources={"gpusPerNode": 4})
    assert rows(together, ranks=4) == 8
    assert rows(together, ranks=8) == 4
    assert rows(together, ranks=4, gpu=False, longest=1024) == 4


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


@pytest.mark.parametrize("packing", [{"training": {"packing": True}}, {"method": "DAPT"}])
def test_packed_sequences_are_one_a_pass_on_a_gpu(packing: dict[str, Any]) -> None:
    """They would be one sequence under a mask of all tokens by all tokens, unless the model is known to need none."""
    llama = LLAMA_7B.model_copy(update={"model_type": "llama"})
    made = [
        setup(spec(**packing), llama, ranks=1, gpu=True, bf16=True, longest=2048, memory=memory).micro_batch
        for memory in (None, 24 * GIB, 80 * GIB)
    ]
    assert made[0] == 1 <= made[1] < made[2]
    assert on_gpu(spec(**packing), 80 * GIB).micro_batch == 1
    assert rows(spec(**packing), longest=2048) == 1
    assert rows(spec(**packing), gpu=False, longest=256) == 4
    eight = {**packing, "training": {**packing.get("training", {}), "microBatchSize": 8}}
    masks = [estimate(on_gpu(spec(**one), None)).terms["masks"] for one in (packing, eight)]
    assert masks == [2 * 32 * 2048**2, 2 * 32 * (8 * 2048) ** 2]


def test_only_what_attends_under_masks_needs_memory_for_them() -> None:
    def masks(shape: ModelShape, **fields: Any) -> int:
        made = setup(spec(**fields), shape, ranks=1, gpu=True, bf16=True, longest=2048)
        return estimate(made).terms.get("masks", 0)

    rows = {"training": {"microBatchSize": 8}}
    noise = {**rows, "sft": {"neftuneAlpha": "5"}}
    llama, unknown = (LLAMA_7B.model_copy(update={"model_type": name}) for name in ("llama", "new"))
    for fields in (rows, {"training": {"packing": True}}, {"method": "DPO", **rows}):
        assert (masks(llama, **fields), masks(unknown, **fields) > 0) == (0, True)
    assert masks(llama, **noise) == masks(unknown, **noise) > 0


def test_what_is_named_stays_and_so_do_rows_that_belong_together() -> None:
    assert on_gpu(spec(training={"microBatchSize": 8}), GIB).micro_batch == 8
    for method in ("KTO", "ORPO"):
        assert on_gpu(spec(method=method), GIB).micro_batch == 8
    grpo = {"rewards": [{"type": "Number"}]}
    assert on_gpu(spec(method="GRPO", grpo={**grpo, "loss": "BNPO"}), GIB).micro_batch == 8
    for more in ({}, {"loss": "GSPO"}, {"advantage": "LeaveOneOut"}):
        assert on_gpu(spec(method="GRPO", grpo={**grpo, **more}), GIB).micro_batch == 1


def test_memory_decides_which_layers_are_recomputed() -> None:
    def made(memory: int | None, kind: str = "Auto", **more: Any) -> Any:
        return on_gpu(spec(training={"activationCheckpointing": kind}, **more), memory)

    # Of one row: what each kind needs, from the fastest to the smallest.
    needs = [estimate(made(GIB, kind)).training for kind in Recompute]
    assert needs == sorted(needs, reverse=True)
    assert len(set(needs)) == len(needs)
    for kind, need in zip(Recompute, needs, strict=True):
        assert made(math.ceil(need / FILLED)).recompute == kind
    assert made(None).recompute == Recompute.NONE
    smallest = made(GIB)
    assert smallest.recompute == Recompute.OFFLOADED
    assert estimate(smallest).host == 2048 * LLAMA_7B.layers * 2 * LLAMA_7B.hidden
    grpo = {"method": "GRPO", "grpo": {"rewards": [{"type": "Number"}], "generation": {"engine": "VLLM"}}}
    assert made(GIB, **grpo).recompute == Recompute.FULL
    old = on_gpu(spec(training={"gradientCheckpointing": True}), GIB)
    assert old == made(GIB, "Full")


def test_state_in_8_bits_has_a_quarter_except_of_a_trained_embedding() -> None:
    def state(adapter: str, optimizer: str) -> int:
        plan = spec(adapter={"type": adapter}, training={"optimizer": optimizer})
        return estimate(on_gpu(plan, None)).terms["optimizer"]

    assert state("LoRA", "PagedAdamW8bit") / state("LoRA", "AdamW") == pytest.approx(0.254, abs=0.001)
    embedding = LLAMA_7B.vocabulary * LLAMA_7B.hidden
    full = state("None", "AdamW8bit") - 8 * embedding
    assert full / (state("None", "PagedAdamW") - 8 * embedding) == pytest.approx(0.254, abs=0.001)


@pytest.mark.parametrize(
    ("method", "options"),
    [("PPO", {"rewardModelVersion": "judge-v1"}), ("GRPO", {"rewards": [{"type": "Number"}]})],
)
def test_an_answer_that_is_sampled_comes_to_the_longest_prompt(method: str, options: dict[str, Any]) -> None:
    fields = {"method": method, method.lower(): {**options, "maxCompletionLength": 300}}
    assert longest_sequence(spec(**fields), 100) == 400
    assert longest_sequence(spec(**fields, training={"maxLength": 512}), 100) == 400
    assert longest_sequence(spec(**fields, training={"maxLength": 350}), 100) == 350


@pytest.mark.parametrize(("fields", "tokens"), [({}, 600), ({"method": "DAPT"}, 32_768), ({"method": "DPO"}, 600)])
def test_a_limit_is_no_row_but_where_sequences_are_filled(fields: dict[str, Any], tokens: int) -> None:
    assert longest_sequence(spec(**fields, training={"maxLength": 32_768}), 600) == tokens
    assert longest_sequence(spec(**fields, training={"maxLength": 512}), 600) == 512
    assert longest_sequence(spec(**fields), 600) == 600


def test_grpo_generates_the_samples_of_a_step_together() -> None:
    def terms(**more: Any) -> dict[str, int]:
        grpo = {"rewards": [{"type": "Number"}], **more.pop("grpo", {})}
        plan = spec(method="GRPO", grpo=grpo, training={"batchSize": 64, "microBatchSize": 4}, **more)
        return estimate(on_gpu(plan, None)).terms

    cache = 2 * LLAMA_7B.layers * LLAMA_7B.key_value * 2 * 2048
    assert terms()["kvCache"] == 64 * cache
    assert "kvCache" not in terms(grpo={"generation": {"engine": "VLLM"}})
    held = terms(adapter={"type": "None"}, grpo={"beta": "0.04"})
    assert held["reference"] == 4 * LLAMA_7B.parameters
    assert "reference" not in terms(adapter={"type": "None"})
    assert "reference" not in terms(grpo={"beta": "0.04"})
    judged = {"type": "RewardModel", "rewardModel": {"modelVersion": "judge-v1"}}
    assert terms(grpo={"rewards": [judged]})["rewardModel"] == 2 * LLAMA_7B.parameters
