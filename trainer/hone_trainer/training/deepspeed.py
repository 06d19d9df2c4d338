"""Sharding by DeepSpeed ZeRO: its configuration, and what accelerate needs for it on CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import TrainerError
from hone_trainer.models.network import Network
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import Trainer

SHM_OP = "deepspeed_shm_comm"
"""DeepSpeed's shared-memory collectives for CPU ranks of one node: a speed-up that needs a C++ compiler."""


def config(plan: TrainingPlan, settings: RunSettings) -> dict[str, Any] | None:
    """DeepSpeed's configuration file as a dict, or None without sharding. Batch sizes are filled in by accelerate."""
    if plan.deepspeed is None:
        return None
    zero: dict[str, Any] = {"stage": plan.deepspeed.zero_stage, "overlap_comm": not settings.cpu}
    on_host = {"device": "cpu", "pin_memory": not settings.cpu}
    if plan.deepspeed.offload != "None":
        zero["offload_optimizer"] = on_host
    if plan.deepspeed.offload == "OptimizerAndParameters":
        zero["offload_param"] = on_host
    if plan.deepspeed.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": settings.bf16},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "zero_allow_untested_optimizer": True,
        # With offload torch's AdamW takes the steps: DeepSpeed's own would be compiled in the pod.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }


def prepare(cpu: bool) -> None:
    """Make this process fit for DeepSpeed; before anything of transformers or accelerate is set up.

    On CPUs accelerate refuses DeepSpeed if use_cpu is set (and silently trains without sharding), and finds no
    backend if it is not set. So it is not set, and the backend is set to gloo.
    """
    if not cpu:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    original = PartialState._prepare_backend

    def with_gloo(self: Any, *args: Any, **kwargs: Any) -> tuple[str | None, Any]:
        backend, kind = original(self, *args, **kwargs)
        if backend is None and "LOCAL_RANK" in os.environ:
            return "gloo", DistributedType.MULTI_CPU
        return backend, kind

    PartialState._prepare_backend = with_gloo
    _skip_shm_unless_built()


@contextmanager
def gathered_by_module(network: Network) -> Iterator[None]:
    """Forward passes of a model that ZeRO-3 has divided and that has no engine yet: each module's own weights are
    whole while it computes. All ranks must run the same passes."""
    from deepspeed import zero

    whole: list[Any] = []

    def enter(module: Any, *_: Any) -> None:
        whole.append(zero.GatheredParameters(list(module.parameters(recurse=False))))
        whole[-1].__enter__()

    def leave(*_: Any) -> None:
        whole.pop().__exit__(None, None, None)

    hooks = [module.register_forward_pre_hook(enter) for module in network.modules()]
    hooks += [module.register_forward_hook(leave, always_call=True) for module in network.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def assert_sharded(trainer: Trainer) -> None:
    """That the run is sharded as asked: accelerate has ways to fall back to plain data parallelism without a word.

    Raises:
        TrainerError: when the wrapped model is not DeepSpeed's engine.
    """
    kind = type(trainer.model_wrapped).__name__
    if kind != "DeepSpeedEngine":
        raise TrainerError(FailureCode.TRAINER_ERROR, f"deepspeed was requested, but the model is wrapped by {kind}")


def _skip_shm_unless_built() -> None:
    """Use the shared-memory op where the image has it; elsewhere gloo alone, instead of compiling for a minute."""
    import deepspeed.ops
    from deepspeed.git_version_info import installed_ops

    if not installed_ops.get(SHM_OP):
        deepspeed.ops.__compatible_ops__[SHM_OP] = False
