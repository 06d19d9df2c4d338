"""The estimate of memory: reference points of the field, and what must hold whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.models.shapes import LLAMA_7B, LLAMA_70B

from hone_api.blocks.shape import ModelShape, shape_of
from hone_api.blocks.training import Recompute
from hone_api.estimate import gpus
from hone_api.estimate.cost import disk, flops, model_flops, seconds_range
from hone_api.estimate.memory import Setup, estimate
from hone_api.estimate.micro_batch import setup
from hone_api.estimate.savings import change_that_fits
from hone_api.kinds.finetunejob import FineTuneJobSpec

pytestmark = pytest.mark.pure
GIB = 2**30


def on_gpu(shape: ModelShape, **changes: Any) -> Setup:
    """One GPU with bfloat16, one row of 2,048 tokens at a time."""
    plain = Setup(
        shape=shape,
        method="SFT",
        adapter="LoRA",
        rank=16,
        targets=None,
        dropout=False,
        bf16=True,
        gpu=True,
        max_length=2048,
        micro_batch=1,
        checkpointing=False,
        zero_stage=0,
        offload="None",
        ranks=1,
    )
    return replace(plain, **changes)


def gpu(name: str) -> int:
    found = gpus.find(name)
    assert found is not None
    return found.memory


def test_ppo_holds_the_reward_model_and_in_full_tuning_the_reference_as_the_policy_is() -> None:
    adapted, full = on_gpu(LLAMA_7B, method="PPO"), on_gpu(LLAMA_7B, method="PPO", adapter="None", reference=True)
    assert estimate(adapted).terms["rewardModel"] == estimate(full).terms["rewardModel"] == 2 * LLAMA_7B.parameters
    assert estimate(full).terms["reference"] == 4 * LLAMA_7B.parameters
    assert "reference" not in estimate(adapted).terms


def test_zero_3_shards_the_models_of_ppo_as_the_policy_and_zero_2_holds_them_in_its_type() -> None:
    full = on_gpu(LLAMA_7B, method="PPO", adapter="None", reference=True, ranks=8)
    two, three = (estimate(replace(full, zero_stage=stage)).terms for stage in (2, 3))
    whole = 2 * LLAMA_7B.parameters
    assert (two["reference"], two["rewardModel"]) == (whole, whole)
    assert (three["reference"], three["rewardModel"], three["weights"]) == (whole // 8,) * 3
    offloaded = estimate(replace(full, zero_stage=3, offload="OptimizerAndParameters"))
    assert not {"weights", "reference", "rewardModel"} & offloaded.terms.keys()
    assert offloaded.host == three["optimizer"] + 3 * (whole // 8)


def test_a_teacher_counts_where_its_distribution_is_learned() -> None:
    """Whole next to the student, with more of a chunk's logits, and not of all tokens; the way out is to let it answer
    beforehand."""
    spec = {
        "model": {"uri": "hf://tests/7b"},
        "datasets": [{"name": "rows"}],
        "method": "Distillation",
        "output": {"modelName": "tuned"},
    }
    needs: dict[str, dict[str, int]] = {}
    for level in ("Sequence", "Logits"):
        block = {"teacherModelVersion": "large-v1", "level": level}
        found = FineTuneJobSpec.model_validate({**spec, "distillation": block, "training": {"microBatchSize": 1}})
        made = setup(found, LLAMA_7B, ranks=1, gpu=True, bf16=True, longest=2048, teacher=LLAMA_70B)
        needs[level] = estimate(made).terms
    assert needs["Logits"]["teacher"] == 2 * LLAMA_70B.parameters
    assert needs["Logits"]["logits"] == 128 * 32_000 * 4 * 16
    longer = setup(found, LLAMA_7B, ranks=1, gpu=True, bf16=True, longest=8192, teacher=LLAMA_70B)
    assert estimate(longer).terms["logits"] == needs["Logits"]["logits"]
    assert "teacher" not in needs["Sequence"]
    assert flops(made, 1000) - flops(replace(made, teacher=None), 1000) == 2 * LLAMA_70B.parameters * 1000
    way = change_that_fits(replace(made, checkpointing=True), gpu("NVIDIA-A100-SXM4-80GB"))
    assert way is not None
    assert "distillation.level: Sequence" in way


def test_7b_full_fine_tuning_needs_four_gpus_of_80_gb() -> None:
    """16 bytes a weight are 112 GB before the first activation; with two rows a pass it takes four GPUs, not two."""
    room = gpu("NVIDIA-A100-SXM4-80GB")
    full = on_gpu(LLAMA_7B, adapter="None", micro_batch=2)
    states = estimate(full).terms
    assert states["weights"] + states["gradients"] + states["optimizer"] == 16 * LLAMA_7B.parameters
    sharded = {n: estimate(replace(full, ranks=n, zero_stage=2)).total for n in (2, 4)}
    assert estimate(full).total > room
    assert sharded[2] > room
    assert sharded[4] <= room


def test_70b_qlora_fits_one_gpu_of_48_gb() -> None:
    found = estimate(on_gpu(LLAMA_70B, adapter="QLoRA", checkpointing=True))
    assert 36 * GIB < found.total <= gpu("NVIDIA-L40S")
    assert found.terms["weights"] < 0.27 * 2 * LLAMA_70B.parameters
    assert estimate(on_gpu(LLAMA_70B, checkpointing=True)).total > gpu("NVIDIA-A100-80GB")


@pytest.mark.parametrize(("adapter", "low", "high"), [("None", 110, 130), ("LoRA", 13, 18), ("QLoRA", 4, 8)])
def test_7b_agrees_with_the_tables_that_people_go_by(adapter: str, low: int, high: int) -> None:
    """LLaMA-Factory's README: 7B takes 120 GB in full, 16 GB by LoRA and 6 GB by QLoRA, at short rows."""
    short = on_gpu(LLAMA_7B, adapter=adapter, max_length=256, checkpointing=True)
    assert low * 1e9 <= estimate(short).total <= high * 1e9 * 1.07


@pytest.mark.parametrize(
    "more",
    [
        {"max_length": 4096},
        {"micro_batch": 2},
        {"rank": 64},
        {"method": "DPO"},
        {"adapter": "DoRA"},
        {"adapter": "None"},
        {"dropout": True},
        {"method": "GRPO"},
    ],
)
def test_more_work_needs_more(more: dict[str, Any]) -> None:
    assert estimate(on_gpu(LLAMA_7B, **more)).total > estimate(on_gpu(LLAMA_7B)).total


@pytest.mark.parametrize("less", [{"checkpointing": True}, {"adapter": "QLoRA"}, {"max_length": 512}])
def test_less_work_needs_less(less: dict[str, Any]) -> None:
    assert estimate(on_gpu(LLAMA_7B, **less)).total < estimate(on_gpu(LLAMA_7B)).total


def test_each_zero_stage_shards_more_and_offload_moves_the_optimizer_out() -> None:
    totals = [
        estimate(on_gpu(LLAMA_7B, adapter="None", ranks=8, zero_stage=stage, checkpointing=True)) for stage in range(4)
    ]
    assert [e.total for e in totals] == sorted((e.total for e in totals), reverse=True)
    offloaded = estimate(on_gpu(LLAMA_7B, adapter="None", ranks=8, zero_stage=3, offload="Optimizer"))
    assert offloaded.host == totals[3].terms["optimizer"]
    assert "optimizer" not in offloaded.terms


def test_ranks_that_share_rows_divide_what_grows_with_their_tokens() -> None:
    long = on_gpu(LLAMA_7B, max_length=65536, checkpointing=True, ranks=4)
    alone, shared = (estimate(replace(long, ranks_of_row=ranks)).terms for ranks in (1, 4))
    assert shared["activations"] == alone["activations"] // 4
    assert {name: shared[name] for name in ("weights", "optimizer")} == {
        name: alone[name] for name in ("weights", "optimizer")
    }
    short = estimate(replace(long, checkpointing=False, ranks_of_row=4)).terms["workspace"]
    assert alone["workspace"] // 4 <= short < alone["workspace"]
    assert shared["workspace"] + shared["activations"] >= alone["workspace"]  # a held-out row that one rank scores


def test_on_a_cpu_activations_leave_holes_in_the_heap() -> None:
    lora = on_gpu(LLAMA_7B, gpu=False, bf16=False)
    assert estimate(lora).terms["fragmentation"] == estimate(lora).terms["activations"]
    full = estimate(replace(lora, adapter="None")).terms
    assert full["fragmentation"] == full["activations"] // 4


def test_the_change_that_is_named_fits_and_costs_the_least() -> None:
    room = gpu("NVIDIA-A100-40GB")
    heavy = on_gpu(LLAMA_7B, micro_batch=8)
    assert estimate(heavy).total > room
    assert (change_that_fits(heavy, room) or "").startswith("training.microBatchSize: 1")
    several = change_that_fits(replace(heavy, max_length=4096), gpu("NVIDIA-L4"))
    assert several is not None
    assert "activationCheckpointing: Full" in several
    selective = on_gpu(LLAMA_7B).with_recompute(Recompute.SELECTIVE)
    assert (change_that_fits(selective, estimate(selective).total - 1) or "").startswith("training.activationCheckp")
    assert change_that_fits(on_gpu(LLAMA_70B), gpu("Tesla-T4")) is None


def test_an_optimizer_in_8_bits_is_advised_where_it_makes_full_fine_tuning_fit() -> None:
    """Before LoRA, which learns less; not with ZeRO, which it cannot be combined with, nor where it is set."""
    full = on_gpu(LLAMA_7B, adapter="None", checkpointing=True)
    room = estimate(replace(full, in_8_bits=True)).total
    assert estimate(full).total > room
    assert (change_that_fits(full, room) or "").startswith("training.optimizer: AdamW8bit")
    for other in (replace(full, ranks=2, zero_stage=2), replace(full, in_8_bits=True), replace(full, adapter="LoRA")):
        assert "AdamW8bit" not in (change_that_fits(other, estimate(other).total - 1) or "")


def test_long_rows_are_shared_by_the_gpus_of_a_node_where_the_api_permits_it() -> None:
    """Where activations fill the GPU; a node of 8 of 2 nodes has 8."""

    def way(**changes: Any) -> str:
        spec = {
            "model": {"uri": "hf://a/b"},
            "datasets": [{"name": "rows"}],
            "output": {"modelName": "m"},
            "training": {"batchSize": 16, "activationCheckpointing": "Full"},
            "resources": {"gpusPerNode": 8, "nodes": 2},
        } | changes
        made = FineTuneJobSpec.model_validate(spec)
        room = gpu("NVIDIA-A100-SXM4-80GB")
        s = setup(made, LLAMA_7B, ranks=16, gpu=True, bf16=True, longest=262_144)
        assert estimate(s).total > room
        return change_that_fits(s, room) or ""

    assert "training.sequenceParallel: 8" in way()
    assert "sequenceParallel" not in way(training={"batchSize": 16, "microBatchSize": "Auto"})
    assert "sequenceParallel" not in way(sft={"neftuneAlpha": "5"})
    assert "sequenceParallel" not in way(training={"batchSize": 16, "sequenceParallel": 2})


def test_kto_is_never_advised_to_take_one_row_in_a_micro_batch() -> None:
    eight = on_gpu(LLAMA_7B, method="KTO", micro_batch=8)
    way = change_that_fits(eight, gpu("NVIDIA-A100-80GB"))
    assert way is not None
    assert way.startswith("training.microBatchSize: 2")
    three = change_that_fits(replace(eight, micro_batch=3), gpu("NVIDIA-A100-40GB"))
    assert "microBatchSize" not in (three or ""), "2 rows do not divide a step whose micro batch has 3"
    assert "microBatchSize" not in (change_that_fits(replace(eight, micro_batch=2), gpu("NVIDIA-L4")) or "")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB"),
        ("NVIDIA-A100-PCIE-40GB", "NVIDIA-A100-40GB"),
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-80GB"),
        ("NVIDIA-L40S-SHARED", "NVIDIA-L40S"),
        ("Tesla-V100-SXM2-16GB", "Tesla-V100-16GB"),
    ],
)
def test_product_labels_are_recognised(label: str, name: str) -> None:
    found = gpus.find(label)
    assert found is not None
    assert found.name == name


def test_a_product_that_is_unknown_or_partitioned_is_not_guessed() -> None:
    assert gpus.find("ACME-9000") is None
    for label in ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "NVIDIA-A40-8Q", "NVIDIA-GeForce-RTX-4090-Laptop-GPU"):
        assert gpus.find(label) is None


def test_bfloat16_begins_with_ampere() -> None:
    without = {gpu.name for gpu in gpus.TABLE if not gpu.bf16}
    assert without == {"Tesla-T4", "Tesla-V100-16GB", "Tesla-V100-32GB"}


def test_the_shape_comes_from_the_config() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    }
    shape = shape_of(config, 134_515_008)
    assert shape is not None
    linear = sum(i * o for i, o in shape.linear.values()) * shape.layers
    norms = (2 * shape.layers + 1) * shape.hidden
    assert linear + shape.embeddings + norms == shape.parameters
    multimodal = shape_of({"model_type": "gemma3", "text_config": {**config, "model_type": "gemma3_text"}}, 1)
    assert multimodal == shape_of({**config, "model_type": "gemma3"}, 1)
    assert shape_of({"model_type": "mamba", "hidden_size": 768}, 1) is None


@pytest.mark.parametrize(
    ("recorded", "name"),
    [("gpt_oss", "gpt_oss"), (None, None), ("", None), (["gpt_oss"], None), (7, None), ("x" * 129, None)],
)
def test_the_model_type_is_recorded_where_it_is_a_name(recorded: Any, name: str | None) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 16}
    shape = shape_of({**sizes, "model_type": recorded}, 1)
    assert shape is not None
    assert shape.model_type == name


def test_disk_and_time() -> None:
    full, lora = on_gpu(LLAMA_7B, adapter="None"), on_gpu(LLAMA_7B)
    assert disk(full, keep=2, merge=False)["checkpoints"] == 4 * 12 * LLAMA_7B.parameters
    assert disk(lora, keep=2, merge=True)["merged model"] == 2 * LLAMA_7B.parameters
    assert flops(full, 1000) / (6 * LLAMA_7B.parameters * 1000) == pytest.approx(1, rel=0.1)
    assert flops(lora, 1000) < 0.75 * flops(full, 1000)


def test_the_longest_time_counts_a_slow_kernel_of_attention_and_the_shortest_does_not() -> None:
    """The kernel is not known before the run. It matters for long rows: there attention is most of the work."""

    def width(max_length: int, **changes: Any) -> float:
        low, high = seconds_range(on_gpu(LLAMA_7B, max_length=max_length, **changes), 1_000_000, 312)
        return high / low

    assert width(1) == pytest.approx(1.3 / 0.6, rel=1e-3)
    share = 6 * 32 * 4096 * 8192 / (4 * LLAMA_7B.parameters + 6 * 32 * 4096 * 8192)
    assert width(8192) == pytest.approx(1.3 / 0.6 * (1 + 3 * share))
    assert width(8192, gpu=False) == width(1, gpu=False) == 4


TIED = {"tied": True}
"""One matrix for embedding and head."""
FULL_PPO = TIED | {"method": "PPO", "layers": 6, "adapter": "None", "reference": True}
TAUGHT = TIED | {"method": "Distillation", "taught": True}
"""At level Logits, by a teacher of the student's own sizes."""


@pytest.mark.parametrize(
    ("measured", "changes"),
    [
        (1786, {"method": "KTO", "layers": 8, "max_length": 300}),
        (2337, TIED | {"method": "ORPO", "layers": 6, "vocabulary": 16_384, "max_length": 371}),
        (2571, TIED | {"method": "ORPO", "layers": 6, "vocabulary": 4096, "max_length": 887, "micro_batch": 2}),
        (1463, TIED | {"method": "ORPO", "layers": 4, "vocabulary": 65_536, "max_length": 187, "micro_batch": 2}),
        (2215, TIED | {"method": "ORPO", "layers": 6, "vocabulary": 16_384, "max_length": 371, "adapter": "None"}),
        (1807, TIED | {"method": "PPO", "layers": 6, "vocabulary": 16_384, "max_length": 368}),
        (2616, TIED | {"method": "PPO", "layers": 6, "vocabulary": 4096, "max_length": 884}),
        (1623, TIED | {"method": "PPO", "layers": 4, "vocabulary": 65_536, "max_length": 184}),
        (1979, FULL_PPO | {"vocabulary": 16_384, "max_length": 368}),
        (2433, FULL_PPO | {"vocabulary": 4096, "max_length": 884}),
        (2456, TAUGHT | {"vocabulary": 16_384, "max_length": 499}),
        (2009, TAUGHT | {"layers": 4, "vocabulary": 65_536, "max_length": 187}),
        (2513, TAUGHT | {"vocabulary": 16_384, "max_length": 499, "adapter": "None"}),
        (2977, {"adapter": "DoRA", "layers": 10, "max_length": 900, "checkpointing": True}),
        (1800, {"adapter": "QLoRA", "hidden": 1024, "max_length": 64}),
        (2662, {"adapter": "QLoRA", "hidden": 1024, "max_length": 256}),
        (3891, {"adapter": "QLoRA", "hidden": 1024, "max_length": 512}),
        (2382, {"layers": 12, "hidden": 384, "vocabulary": 8192, "max_length": 700, "micro_batch": 3}),
    ],
    ids=[
        "KTO",
        "ORPO with a vocabulary",
        "ORPO long",
        "ORPO with a large vocabulary",
        "ORPO full",
        "PPO with a vocabulary",
        "PPO long",
        "PPO with a large vocabulary",
        "PPO full with a vocabulary",
        "PPO full long",
        "logits with a vocabulary",
        "logits with a large vocabulary",
        "logits full",
        "DoRA with checkpointing",
        "QLoRA short",
        "QLoRA",
        "QLoRA long",
        "SFT",
    ],
)
def test_runs_on_a_cpu_that_were_measured_are_never_said_to_fit_by_more_than_5_percent(
    measured: int, changes: dict[str, Any]
) -> None:
    """Peaks in MiB of one run each, of two or three steps, by `python -m hone_trainer run` with these sizes; nor is one
    10 % too high."""
    sizes = {"layers": 8, "hidden": 512, "vocabulary": 512} | changes
    hidden, layers, vocabulary = (sizes.pop(name) for name in ("hidden", "layers", "vocabulary"))
    matrices, is_taught = 1 if sizes.pop("tied", False) else 2, sizes.pop("taught", False)
    middle, key_value = int(2.75 * hidden) // 64 * 64, hidden // 128 * 64
    shape = ModelShape(
        parameters=layers * hidden * (2 * hidden + 2 * key_value + 3 * middle) + matrices * vocabulary * hidden,
        layers=layers,
        hidden=hidden,
        query=hidden,
        key_value=key_value,
        intermediate=middle,
        vocabulary=vocabulary,
    )
    sizes = {"gpu": False, "bf16": False, "micro_batch": 4, **sizes}
    found = estimate(on_gpu(shape, **sizes, teacher=shape if is_taught else None)).total / 2**20
    assert -0.05 <= found / measured - 1 <= 0.10


def test_the_rows_are_a_term_of_the_hosts_memory() -> None:
    """216 million tokens of 1 GB of text, in files that all ranks of a node map."""
    cpu, gpu = (estimate(on_gpu(LLAMA_7B, gpu=gpu, row_tokens=216_000_000)) for gpu in (False, True))
    assert cpu.terms["rows"] == gpu.rows == 1_296_000_000
    assert gpu.host == 0
    assert "rows" not in gpu.terms


@pytest.mark.parametrize(
    ("total", "published", "config"),
    [
        pytest.param(
            30.5e9,
            3.3e9,
            {"num_hidden_layers": 48, "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4}
            | {"head_dim": 128, "intermediate_size": 6144, "moe_intermediate_size": 768, "vocab_size": 151_936}
            | {"num_experts": 128, "num_experts_per_tok": 8},
            id="Qwen3-30B-A3B",
        ),
        pytest.param(
            46.7e9,
            12.9e9,
            {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
            | {"intermediate_size": 14_336, "vocab_size": 32_000, "num_local_experts": 8, "num_experts_per_tok": 2},
            id="Mixtral-8x7B",
        ),
        pytest.param(
            671e9,
            37e9,
            {"num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128, "vocab_size": 129_280}
            | {"intermediate_size": 18_432, "moe_intermediate_size": 2048, "n_routed_experts": 256}
            | {"n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3},
            id="DeepSeek-V3",
        ),
    ],
)
def test_a_token_is_multiplied_with_its_own_experts_alone(
    total: float, published: float, config: dict[str, Any]
) -> None:
    shape = shape_of(config, int(total))
    assert shape is not None
    assert shape.used == pytest.approx(published, rel=0.06)
    assert model_flops(shape, 0, frozen=False) == 6 * shape.used
    dense = replace(on_gpu(LLAMA_7B), shape=shape.model_copy(update={"experts": 0}))
    assert flops(on_gpu(shape), 1000) < 0.5 * flops(dense, 1000)


def test_packed_experts_leave_weights_to_multiply_with() -> None:
    config = {"num_hidden_layers": 24, "hidden_size": 2880, "num_attention_heads": 64, "vocab_size": 201_088}
    config |= {"intermediate_size": 2880, "num_local_experts": 32, "num_experts_per_tok": 4}
    shape = shape_of(config, 11_000_000_000)  # two weights of 4 bits count as one in the files
    assert shape is not None
    assert 0 < shape.used < shape.parameters
