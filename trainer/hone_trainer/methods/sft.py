"""Supervised fine-tuning by TRL's SFTTrainer, fed with our own ids and labels: never with text or a template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_api.plan import TrainingPlan
from hone_trainer import deepspeed
from hone_trainer.encode import Row
from hone_trainer.loop import Loop, Run
from hone_trainer.settings import Settings

COLLECTIVE_TIMEOUT = 1800
"""Seconds that a rank waits for the others; the longest silence is the first rank's export."""
SCHEDULERS = {"Linear": "linear", "Cosine": "cosine", "Constant": "constant_with_warmup"}


def dataset(rows: Sequence[Row], packed_length: int | None) -> Any:
    """The rows as TRL takes them, ready made.

    Args:
        packed_length: tokens of a packed sequence; None for one row a sequence. Best-fit decreasing (Ding et al. 2024,
            arXiv 2404.10830); no row is longer than that, so none is cut. TRL's collator gives each row positions
            from 0, from which transformers masks attention across rows.
    """
    from datasets import Dataset

    data = Dataset.from_dict({"input_ids": [r.input_ids for r in rows], "labels": [r.labels for r in rows]})
    if packed_length is None:
        return data
    from trl import pack_dataset

    return pack_dataset(data, packed_length, "bfd")


def arguments(plan: TrainingPlan, settings: Settings) -> Any:
    """TRL's SFTConfig. Make it before loading the model: ZeRO-3 shards weights while they are loaded."""
    from trl import SFTConfig

    training = plan.training
    sharded = deepspeed.config(plan, settings)
    return SFTConfig(
        output_dir=plan.work_path,
        max_steps=settings.total_steps,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULERS[training.scheduler],
        warmup_steps=settings.warmup_steps,
        weight_decay=float(training.weight_decay),
        max_grad_norm=float(training.max_grad_norm),
        optim="adamw_torch" if settings.cpu else "adamw_torch_fused",
        bf16=settings.bf16,
        use_cpu=settings.cpu and sharded is None,  # accelerate refuses DeepSpeed when told to use the CPU
        deepspeed=sharded,
        seed=training.seed,
        data_seed=training.seed,
        max_length=None,  # rows were cut by the plan's policy, and counted
        packing=training.packing,
        dataset_kwargs={"skip_prepare_dataset": True},
        activation_checkpointing=training.gradient_checkpointing,
        neftune_noise_alpha=float(plan.sft.neftune_alpha) if plan.sft.neftune_alpha else None,
        # Cadence decides when to evaluate and to save.
        eval_strategy="no",
        save_strategy="no",
        logging_steps=settings.logging_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # by default a NaN is logged as the mean of the losses before it
        restore_callback_states_from_checkpoint=True,
        ddp_timeout=COLLECTIVE_TIMEOUT,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=not settings.cpu,
        report_to="none",
        disable_tqdm=True,
    )


def trainer(run: Run, args: Any, model: Any, peft_config: Any, callbacks: list[Any]) -> Any:
    """A trainer that is ready to train."""
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class Sft(Loop, SFTTrainer):
        """TRL's SFT with our loop."""

    made = Sft(
        model=model,
        args=args,
        train_dataset=run.dataset,
        processing_class=run.base.tokenizer,
        peft_config=peft_config,
        callbacks=callbacks,
    )
    made.remove_callback(PrinterCallback)  # our reporters tell
    made.attach(run)
    return made
