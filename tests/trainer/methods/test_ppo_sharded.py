"""PPO with ZeRO: the same run as with plain data parallelism, also after a kill; what it leaves needs no DeepSpeed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.runs import judging, split_files
from support.runs.curves import points

from hone_trainer import device
from hone_trainer.run import preflight
from hone_trainer.training import checkpoints

pytestmark = pytest.mark.trainer
CURVES = ("loss", "grad_norm", "reward", "kl", "kl_coefficient", "policy_loss", "value_loss", "entropy")
SHARDED_3 = {"zeroStage": 3}
OFFLOADED = {"zeroStage": 3, "offload": "OptimizerAndParameters"}
APART = """
from hone_trainer.training import deepspeed
config = deepspeed.config
def apart(*plan_and_settings):
    found = config(*plan_and_settings)
    found["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    return found
deepspeed.config = apart
"""
"""Python that lets stage 3 shard small weights as well: DeepSpeed leaves those below 100,000 numbers whole."""
FILES = {"adapter": "adapter_model.safetensors", "full": "model.safetensors"}


@pytest.fixture
def plan_of(make_plan: Any, tmp_path: Path, tiny_model: Path) -> Any:
    """Makes a plan for two ranks by a random reward model; keyword arguments replace fields."""
    judge = judging.reward_model(tiny_model, tmp_path / "judge")

    def split(name: str, numbers: range, times: int) -> dict[str, str]:
        rows = [{"prompt": [{"role": "user", "content": f"What is {n} and {n % 7}?" * times}]} for n in numbers]
        return split_files.write(tmp_path / f"{name}.jsonl", rows, "sums")

    # Long held-out rows come in two batches, the second smaller: a rank has fewer answers to measure than another.
    splits = {
        "datasets": [split("train", range(40), 1)],
        "evaluationDatasets": [split("validation", range(40, 49), 10)],
    }

    def make(name: str, **fields: Any) -> Any:
        return make_plan(
            name,
            method="PPO",
            ppo={"rewardModelVersion": "judge-v1", "maxCompletionLength": 8, "iterations": 2, "targetKl": "0.5"},
            training={"maxSteps": 5, "batchSize": 16, "microBatchSize": 4, **fields.pop("training", {})},
            models={"judge-v1": {"path": str(judge)}},
            processesPerNode=2,
            checkpoints={"everySteps": 3},
            evaluation={"everySteps": 5},
            **splits,
            **fields,
        )

    return make


def curves(plan: Any) -> list[list[float]]:
    return [[point.get(name, 0.0) for name in CURVES] for point in points(plan)]


def exported(plan: Any, form: str) -> Path:
    """The artifact, once the libraries have loaded it as a plain language model."""
    from peft import PeftModel
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    folder = Path(plan.output_path) / form
    with safe_open(folder / FILES[form], "pt") as tensors:
        assert not [name for name in tensors.keys() if "value_head" in name]  # noqa: SIM118 - not a dict
    if form == "full":
        AutoModelForCausalLM.from_pretrained(folder)
    else:
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plan.model_path), folder)
    return folder / FILES[form]


@pytest.mark.parametrize(
    ("deepspeed", "adapter", "form"),
    [
        pytest.param({"zeroStage": 2}, "LoRA", "adapter", marks=pytest.mark.long),
        (SHARDED_3, "None", "full"),
        pytest.param({"zeroStage": 1}, "None", "full", marks=pytest.mark.long),
        pytest.param({"zeroStage": 2}, "QLoRA", "adapter", marks=pytest.mark.long),
        pytest.param({"zeroStage": 2, "offload": "Optimizer"}, "None", "full", marks=pytest.mark.long),
        pytest.param(SHARDED_3, "LoRA", "adapter", marks=pytest.mark.long),
        pytest.param(OFFLOADED, "None", "full", marks=pytest.mark.long),
    ],
)
def test_zero_learns_as_plain_data_parallelism_and_resumes_bit_for_bit(
    runs: Any, plan_of: Any, deepspeed: dict[str, Any], adapter: str, form: str
) -> None:
    """Killed between two steps on the same answers; with LoRA activations are computed again for the gradient."""
    common = {"adapter": {"type": adapter}, "training": {"gradientCheckpointing": adapter == "LoRA"}}
    plain, apart = plan_of("plain", **common), APART if deepspeed["zeroStage"] == 3 else ""
    whole, broken = (plan_of(name, **common, deepspeed=deepspeed) for name in ("whole", "broken"))
    expected = runs.wait(plain, runs.start(runs.encoded(plain))).result
    result = runs.wait(whole, runs.start(runs.encoded(whole), before=apart)).result
    assert len(curves(whole)) == 5
    for ours, theirs in zip(curves(whole), curves(plain), strict=True):
        assert dict(zip(CURVES, ours, strict=True)) == pytest.approx(dict(zip(CURVES, theirs, strict=True)), abs=1e-4)
    for mine, other in zip(result.numbers, expected.numbers, strict=True):
        assert float(mine.base) == pytest.approx(float(other.base), abs=1e-4)
        assert float(mine.tuned) == pytest.approx(float(other.tuned), abs=1e-4)

    killed = runs.start(runs.encoded(broken), before=apart, **{checkpoints.FAILPOINT_ENV: "after-rename"})
    assert runs.wait(broken, killed, 1).failure.code == "RankFailed"
    resumed = runs.wait(broken, runs.start(broken, before=apart)).result
    assert resumed.start_step == 3
    assert curves(broken) == curves(whole)
    assert exported(broken, form).read_bytes() == exported(whole, form).read_bytes()


@pytest.mark.parametrize(
    ("stage", "adapter", "form"),
    [
        (2, "None", "full"),
        pytest.param(2, "LoRA", "adapter", marks=pytest.mark.long),
        pytest.param(3, "None", "full", marks=pytest.mark.long),
        pytest.param(3, "LoRA", "adapter", marks=pytest.mark.long),
    ],
)
def test_in_bfloat16_the_policy_begins_as_its_reference(
    runs: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch, stage: int, adapter: str, form: str
) -> None:
    """DeepSpeed holds both in bfloat16, also with full fine-tuning, and a head that computes in float32. transformers
    refuses bfloat16 on a CPU with DeepSpeed, and so does Hone: both are made to believe that there is a GPU for it."""
    if not device.here().bf16:
        pytest.skip("this CPU does not multiply in bfloat16")
    training = {"maxSteps": 2, "precision": "BFloat16"}
    plan = plan_of("run", adapter={"type": adapter}, deepspeed={"zeroStage": stage}, training=training)
    monkeypatch.setattr(preflight, "_hardware", lambda plan, device: [])
    before = "import transformers.training_args as their; their.is_torch_bf16_gpu_available = lambda: True\n"
    before += "from hone_trainer.run import preflight; preflight._hardware = lambda plan, device: []\n"
    before += APART if stage == 3 else ""
    result = runs.wait(plan, runs.start(runs.encoded(plan), before=before)).result
    # In stage 3, the log-softmax of the loss head rounded otherwise by one bit of float32: 5e-14 nats were seen.
    assert points(plan)[0]["kl"] == pytest.approx(0, abs=1e-12)
    assert points(plan)[1]["value_loss"] < points(plan)[0]["value_loss"]
    kl = next(number for number in result.numbers if number.name == "kl")
    assert (float(kl.base), float(kl.tuned) > 0) == (0, True)
    exported(plan, form)
