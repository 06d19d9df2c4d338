"""Arguments of the Trainer, by device; they are read from transformers, whose import takes seconds."""

from __future__ import annotations

from typing import Any

import pytest

from hone_api.methods import METHODS, Method
from hone_api.plan import TrainingPlan
from hone_api.words.phases import SAVING, TRAINING
from hone_trainer.device import Device
from hone_trainer.methods import arguments
from hone_trainer.run import libraries
from hone_trainer.training import settings
from hone_trainer.training.timing import hang_guard

pytestmark = pytest.mark.trainer


def common(plan: TrainingPlan, cuda: bool) -> dict[str, Any]:
    device = Device(1, cuda=cuda, bf16=False)
    sizes = {"sequences": 100, "max_length": 64, "micro_batch_size": 4}
    return arguments.common(plan, settings.resolve(plan, rates=METHODS[Method.SFT].rates, device=device, **sizes))


def test_batches_are_put_together_ahead_of_a_gpu_alone(make_plan: Any) -> None:
    names = ("dataloader_num_workers", "dataloader_prefetch_factor", "dataloader_persistent_workers")
    on_gpu, on_cpu = (common(make_plan(), cuda) for cuda in (True, False))
    assert [on_gpu[name] for name in names] == [2, 4, True]
    assert not set(names) & set(on_cpu)


@pytest.mark.faults("T11")
@pytest.mark.parametrize("asked", [None, 60, 5 * 3600])
def test_ranks_wait_for_each_other_for_longer_than_the_hang_guard_lets_any(make_plan: Any, asked: int | None) -> None:
    """The first rank writes a checkpoint to a slow store for up to an hour, or waits for a judge in its step."""
    limits = [hang_guard.limit(phase, [1.0, 1.0, 1.0], asked) for phase in (SAVING, TRAINING)]
    assert common(make_plan(hangTimeout=asked), cuda=False)["ddp_timeout"] > max(limits)


@pytest.mark.parametrize(
    ("adapter", "cuda", "more", "optimizer"),
    [
        ("QLoRA", True, {}, "paged_adamw_32bit"),
        ("QLoRA", True, {"deepspeed": {"zeroStage": 2}}, "adamw_torch_fused"),
        ("QLoRA", False, {}, "adamw_torch"),
        ("LoRA", True, {}, "adamw_torch_fused"),
        ("QLoRA", True, {"training": {"optimizer": "AdamW"}}, "adamw_torch_fused"),
        ("LoRA", True, {"training": {"optimizer": "AdamW8bit"}}, "adamw_8bit"),
        ("LoRA", True, {"training": {"optimizer": "PagedAdamW8bit"}}, "paged_adamw_8bit"),
        ("None", True, {"training": {"optimizer": "PagedAdamW"}}, "paged_adamw_32bit"),
        ("None", False, {"training": {"optimizer": "PagedAdamW"}}, "adamw_torch"),
        ("None", False, {"training": {"optimizer": "PagedAdamW8bit"}}, "adamw_8bit"),
    ],
)
def test_the_optimizer_is_the_asked_one_and_paged_with_qlora_on_a_gpu(
    make_plan: Any, adapter: str, cuda: bool, more: dict[str, Any], optimizer: str
) -> None:
    plan = make_plan(adapter={"type": adapter}, **more)
    assert common(plan, cuda)["optim"] == optimizer
    assert cuda is False or "bitsandbytes" not in {*libraries.unused(plan)} or "bit" not in optimizer
