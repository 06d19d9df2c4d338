"""What the libraries' configurations have in common."""

from __future__ import annotations

from typing import Any

from hone_api.blocks.training import AdapterType, Optimizer, Recompute
from hone_api.plan import TrainingPlan
from hone_trainer.models.network import Generating
from hone_trainer.training import deepspeed
from hone_trainer.training.settings import RunSettings

COLLECTIVE_TIMEOUT = 7200
"""Seconds that a rank waits for the others at least; the longest silence is the first rank's export, to a slow store. A
hang is found earlier, by `run/hangs`, which knows whose it is."""
WORKERS = 2
"""Processes of a rank on a GPU that put batches together; each holds a copy of nothing but what it touches (fork)."""
PREFETCH = 4
"""Batches that each of them keeps ready."""
SCHEDULERS = {"Linear": "linear", "Cosine": "cosine", "Constant": "constant_with_warmup"}


def collective_timeout(plan: TrainingPlan) -> int:
    """Seconds that a rank waits for the others: longer than any limit that the hang guard has."""
    return max(COLLECTIVE_TIMEOUT, 2 * (plan.hang_timeout or 0))


def common(plan: TrainingPlan, settings: RunSettings) -> dict[str, Any]:
    """Keyword arguments of transformers' TrainingArguments, and of all configurations that extend it."""
    training = plan.training
    sharded = deepspeed.config(plan, settings)
    return {
        "output_dir": plan.work_path,
        "max_steps": settings.total_steps,
        **_batches(settings),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": SCHEDULERS[training.scheduler],
        "warmup_steps": settings.warmup_steps,
        "weight_decay": float(training.weight_decay),
        "max_grad_norm": float(training.max_grad_norm),
        "optim": _optimizer(plan, settings, is_sharded=sharded is not None),
        "bf16": settings.bf16,
        # For what bfloat16 leaves in float32; cards with one have the other. Precision Float32 stays exact.
        "tf32": True if settings.bf16 and not settings.cpu else None,
        "use_cpu": settings.cpu and sharded is None,  # accelerate refuses DeepSpeed if use_cpu is set
        "deepspeed": sharded,
        "seed": training.seed,
        "data_seed": training.seed,
        _checkpointing(): settings.recompute != Recompute.NONE,
        # SaveAndEvaluateSchedule decides when to evaluate and to save.
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_steps": settings.logging_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # by default a NaN is logged as the mean of the losses before it
        "restore_callback_states_from_checkpoint": True,
        "ddp_timeout": collective_timeout(plan),
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": not settings.cpu,
        **_loading(settings),
        "report_to": "none",
        "disable_tqdm": True,
    }


def _batches(settings: RunSettings) -> dict[str, int]:
    """Where passes are filled by tokens, the loader gives all rows of a rank's step at once (see `Dealt`)."""
    rows, passes = settings.micro_batch_size, settings.accumulation
    if settings.pass_tokens:
        rows, passes = rows * passes, 1
    return {"per_device_train_batch_size": rows, "gradient_accumulation_steps": passes}


def _loading(settings: RunSettings) -> dict[str, Any]:
    """Batches are put together ahead of a GPU. On a CPU the cores are for training. The order of rows is drawn in this
    process, and no worker draws anything, so a resumed run is the same with workers and without."""
    if settings.cpu:
        return {}
    return {
        "dataloader_num_workers": WORKERS,
        "dataloader_prefetch_factor": PREFETCH,
        "dataloader_persistent_workers": True,
    }


def _checkpointing() -> str:
    """The option's name: the transformers that vLLM goes with is older than the others', and still has the old one."""
    from transformers import TrainingArguments

    new, old = "activation_checkpointing", "gradient_checkpointing"
    return new if new in TrainingArguments.__dataclass_fields__ else old


def recompute(network: Generating, kind: Recompute) -> None:
    """Let checkpointing recompute the layers of `kind`. Not by TrainingArguments: TRL switches checkpointing off for
    passes of a reference, and on again for all layers."""
    if kind in (Recompute.NONE, Recompute.FULL):
        return
    theirs = network.activation_checkpointing_enable
    chosen = {"every_n_layers": 2} if kind == Recompute.SELECTIVE else {"offload": True}

    def enable(activation_checkpointing_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        theirs(activation_checkpointing_kwargs, **chosen)

    network.activation_checkpointing_enable = enable


def _optimizer(plan: TrainingPlan, settings: RunSettings, is_sharded: bool) -> str:
    """AdamW. With QLoRA its state is paged: it moves to the host while memory peaks (arXiv 2305.14314, section 3)."""
    asked = Optimizer(plan.training.optimizer or Optimizer.ADAMW)
    by_default = plan.training.optimizer is None and not is_sharded  # DeepSpeed keeps the state itself
    if by_default and plan.adapter.type == AdapterType.QLORA:
        asked = Optimizer.PAGED_ADAMW
    is_paged = asked.is_paged and not settings.cpu
    if is_paged or asked.in_8_bits:
        return f"{'paged_' if is_paged else ''}adamw_{8 if asked.in_8_bits else 32}bit"
    return "adamw_torch" if settings.cpu else "adamw_torch_fused"
