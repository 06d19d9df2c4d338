"""A run is the same run, bit by bit, however it came about: resumed, or with batches put together ahead by workers."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from support.runs import method_plans

from hone_api.blocks.training import AdapterType
from hone_trainer.methods import arguments

pytestmark = pytest.mark.trainer
SAMPLE = {
    *((variant, "QLoRA") for variant in method_plans.VARIANTS),
    *(("SFT", adapter) for adapter in ("LoRA", "DoRA", "None")),
    *((method, "None") for method in ("DPO", "GRPO")),
    ("Reward", "LoRA"),
}
"""Every method with the adapter in which most can differ, every adapter, and methods that keep a reference. PPO and KTO
with adapter None are interrupted twice in the tests of their methods."""
RESUMED = [
    pytest.param(variant, str(adapter), marks=() if (variant, adapter) in SAMPLE else pytest.mark.long)
    for variant in method_plans.VARIANTS
    for adapter in AdapterType
]
"""Every method with every adapter; what is not of the sample is long."""


def bits(plan: Any) -> bytes:
    """The exported weights."""
    (file,) = [f for f in Path(plan.output_path).glob("*/*model.safetensors") if f.parent.name in ("adapter", "full")]
    return file.read_bytes()


@pytest.mark.parametrize(("variant", "adapter"), RESUMED)
def test_a_resumed_run_exports_the_same_bytes(
    runs: Any, make_plan: Any, interrupt: Any, tmp_path: Path, tiny_model: Path, variant: str, adapter: str
) -> None:
    """Stopped after step 3, which is between PPO's steps on the same answers; at the end of an epoch after step 2."""
    common: dict[str, Any] = {"adapter": {"type": adapter}, "checkpoints": {"everySteps": 2}}
    common["training"] = {"maxSteps": 5, "learningRate": "1e-3"}
    whole, broken = (
        method_plans.plan_of(make_plan, variant, tmp_path, tiny_model, name, **common) for name in ("whole", "broken")
    )
    runs.finish(whole)
    interrupt(broken, 2)
    assert runs.finish(broken).start_step in (2, 3)
    form = "full" if adapter == "None" else "adapter"
    assert runs.curve(broken, form) == runs.curve(whole, form)
    assert bits(broken) == bits(whole)


@pytest.mark.parametrize("variant", ["SFT", "GRPO", "KTO"])
def test_workers_change_nothing_also_when_resumed(
    runs: Any,
    make_plan: Any,
    interrupt: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Path,
    variant: str,
) -> None:
    """Over the end of an epoch (4 steps; of GRPO 16)."""
    common: dict[str, Any] = {"training": {"maxSteps": 6}, "checkpoints": {"everySteps": 2}}
    alone, ahead = (
        method_plans.plan_of(make_plan, variant, tmp_path, tiny_model, name, **common) for name in ("alone", "ahead")
    )
    runs.finish(alone)
    loading = arguments._loading
    monkeypatch.setattr(arguments, "_loading", lambda settings: loading(_on_gpu(settings)))
    interrupt(ahead, 2)
    assert runs.finish(ahead).start_step == 3
    assert runs.curve(ahead) == runs.curve(alone)
    assert bits(ahead) == bits(alone)


def _on_gpu(settings: Any) -> Any:
    from dataclasses import replace

    return replace(settings, cpu=False)


EXPECTED = ("transformers/masking_utils.py", "batches/unpadded.py", "in _generate_and_score_completions")
"""Reads of transformers in each forward pass, ours in place of them, and TRL's with each generation, which waits for
the device anyway."""


@pytest.mark.parametrize("variant", ["SFT", "DAPT", "DPO", "KTO", "ORPO", "Reward", "GRPO", "RLOO"])
def test_numbers_are_read_once_a_step_and_not_in_each_micro_batch(
    runs: Any, make_plan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path, variant: str
) -> None:
    """A read (`Tensor.item`, `float(tensor)`, `if tensor`) makes the host wait for a GPU. One in each forward pass is
    of the attention mask: transformers asks whether there is padding at all, and without padding we ask where."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from hone_trainer.training.loop import Loop

    reads: list[list[str]] = []

    class Count(TorchDispatchMode):
        """Notes each read."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._local_scalar_dense.default:
                reads.append(traceback.format_stack())
            return function(*args, **(kwargs or {}))

    step, steps = Loop.training_step, [0]

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps[0] += 1
        if steps[0] == 1:  # with the checks before the first step
            return step(self, *args, **kwargs)
        with Count():
            return step(self, *args, **kwargs)

    monkeypatch.setattr(Loop, "training_step", counted)
    training = {"maxSteps": 3, "batchSize": 8, "microBatchSize": 2}
    block = {"dapt": {"pack": False}} if variant == "DAPT" else {}
    runs.finish(method_plans.plan_of(make_plan, variant, tmp_path, tiny_model, training=training, **block))
    assert steps[0] == 12
    assert not [stack for stack in reads if not any(words in frame for frame in stack for words in EXPECTED)]
