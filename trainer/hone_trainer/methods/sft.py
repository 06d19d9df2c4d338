"""Supervised fine-tuning by TRL's SFTTrainer, fed with our own ids and labels: never with text or a template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hone_api.plan import TrainingPlan
from hone_trainer import evaluate, losshead
from hone_trainer.encode import Encoder, Row
from hone_trainer.loop import Loop, Run
from hone_trainer.methods.arguments import common
from hone_trainer.methods.base import Method
from hone_trainer.model import Base
from hone_trainer.order import WithinStep
from hone_trainer.settings import Rates, Settings


def encoder(plan: TrainingPlan, base: Base) -> Encoder:
    """Conversations, pairs and texts to rows."""
    return Encoder(base.tokenizer, plan.sft.train_on)


def dataset(plan: TrainingPlan, rows: Sequence[Row], max_length: int) -> Any:
    """The rows as TRL takes them, packed when the plan says so."""
    return sequences(rows, max_length if plan.training.packing else None)


def sequences(rows: Sequence[Row], packed_length: int | None) -> Any:
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
    """TRL's SFTConfig."""
    noise = plan.sft.neftune_alpha
    return config(plan, settings, packing=plan.training.packing, neftune_noise_alpha=float(noise) if noise else None)


def config(plan: TrainingPlan, settings: Settings, **more: Any) -> Any:
    """SFTConfig for rows that are ready: cut by the plan's policy, and counted."""
    from trl import SFTConfig

    # Packed sequences lie end to end anyway.
    more |= {"padding_free": settings.flat and settings.micro_batch_size > 1 and not more["packing"]}
    ready = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTConfig(**common(plan, settings), **ready, **more)


def trainer(run: Run, args: Any, model: Any, peft_config: Any, callbacks: list[Any], loop: type[Loop] = Loop) -> Any:
    """A trainer that is ready to train.

    Args:
        loop: what it does in place of TRL's; a `Loop`, or one with a loss of its own.
    """
    from transformers import PrinterCallback
    from trl import SFTTrainer

    plan = run.plan

    class Sft(loop, SFTTrainer):  # type: ignore[misc, valid-type]
        """TRL's SFT with our loop, loss head and order within a step."""

        def get_train_dataloader(self) -> Any:
            loader = super().get_train_dataloader()
            if self.args.gradient_accumulation_steps > 1 and not plan.training.packing:
                lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
                loader.set_sampler(WithinStep(loader.get_sampler(), lengths, plan.training.batch_size))
            return loader

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
    losshead.install(made.model)
    return made


METHOD = Method(
    rates=Rates(adapter=2e-4, full=2e-5),
    encoder=encoder,
    dataset=dataset,
    arguments=arguments,
    trainer=trainer,
    flat=lambda _: True,
    score=evaluate.score_language_model,
    metrics={"loss": "Lowest", "token_accuracy": "Highest"},
)
