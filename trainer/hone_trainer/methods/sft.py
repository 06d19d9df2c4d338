"""Supervised fine-tuning by TRL's SFTTrainer, fed with our own ids and labels: never with text or a template."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_api.plan import TrainingPlan
from hone_trainer.encoding import mapped
from hone_trainer.encoding.split_file import Encoder, Row
from hone_trainer.methods.arguments import common
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Network
from hone_trainer.scoring import heldout
from hone_trainer.training.batches import indexed, shared_packs
from hone_trainer.training.batches.deferred import Dealt, Deferred
from hone_trainer.training.batches.samplers import WithinStep
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts, TrainingMethod
from hone_trainer.training.settings import RunSettings

if TYPE_CHECKING:
    from transformers import TrainingArguments
    from trl import SFTConfig


def encoder(plan: TrainingPlan, base: Base) -> Encoder:
    """Conversations, pairs and texts to rows."""
    return Encoder(base.tokenizer, plan.sft.train_on)


def build_dataset(plan: TrainingPlan, rows: Sequence[Row], max_length: int) -> Any:
    """The rows as TRL takes them, packed if the plan requires it."""
    return sequences(rows, max_length if plan.training.packing else None, Path(plan.work_path))


def sequences(rows: Sequence[Row], packed_length: int | None, work_path: Path) -> Any:
    """The rows as TRL takes them, ready made.

    Args:
        packed_length: tokens of a packed sequence; None for one row a sequence. Best-fit decreasing (Ding et al. 2024,
            arXiv 2404.10830); no row is longer than that, so none is cut. TRL's collator gives each row positions
            from 0, from which transformers masks attention across rows.
        work_path: folder in which ranks share what is packed.
    """
    lengths = mapped.lengths(rows)
    if packed_length is None:
        return indexed.dataset(len(rows), lambda index: _columns([rows[index]]), lengths)
    packs = shared_packs.packs(lengths, packed_length, work_path)

    def pack(index: int) -> dict[str, list[int]]:
        together = [rows[row] for row in packs[index]]
        return {**_columns(together), "seq_lengths": [len(row.input_ids) for row in together]}

    return indexed.dataset(len(packs), pack, packs.lengths)


def _columns(rows: Sequence[Row]) -> dict[str, list[int]]:
    """A sequence of rows, one after the other."""
    return {
        "input_ids": [token for row in rows for token in row.input_ids],
        "labels": [label for row in rows for label in row.labels],
    }


def arguments(plan: TrainingPlan, settings: RunSettings) -> TrainingArguments:
    """TRL's SFTConfig."""
    noise = plan.sft.neftune_alpha
    return config(plan, settings, packing=plan.training.packing, neftune_noise_alpha=float(noise) if noise else None)


def config(plan: TrainingPlan, settings: RunSettings, **more: Any) -> SFTConfig:
    """SFTConfig for rows that are ready: cut by the plan's policy, and counted."""
    from trl import SFTConfig

    # Packed sequences are padding-free anyway.
    taught = plan.distillation is not None and plan.distillation.by_logits  # by a model that may need padded rows
    more |= {"padding_free": settings.padding_free and not (more["packing"] or taught)}
    ready = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTConfig(**common(plan, settings), **ready, **more)


class Supervised(Deferred):
    """A `Deferred` with TRL's loss and numbers."""

    aux_loss_enabled: bool
    router_aux_loss_coef: float
    current_gradient_accumulation_steps: int

    def compute_loss(
        self, model: Network, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        import torch

        options = {"use_cache": False, "fused_lm_head": True}
        if self.aux_loss_enabled:
            options["output_router_logits"] = True
        if self.run.group:
            inputs = self.run.group.part(inputs)
        output = model(**inputs, **options)
        count = output.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -output.log_probs.sum() / torch.as_tensor(count).clamp(min=1)
        # The batch's count is that of all ranks, and DDP averages their gradients.
        of_all = num_items_in_batch is not None and self.args.average_tokens_across_devices
        loss = loss * self.accelerator.num_processes if of_all else loss
        if self.aux_loss_enabled:
            steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * output.aux_loss * self.weight / steps
            self.keep_means({"aux_loss": output.aux_loss})
        self._note(output, inputs)
        return (loss, output) if return_outputs else loss

    def _note(self, output: Any, inputs: dict[str, Any]) -> None:
        mask = inputs.get("attention_mask")
        tokens = inputs["input_ids"].new_tensor(inputs["input_ids"].numel()) if mask is None else mask.sum()
        self.count(tokens)
        counted = output.label_mask.sum()
        sums = {"entropy": output.entropy.sum(), "mean_token_accuracy": output.is_top1.sum()}
        self.keep_sums({name: (value, counted) for name, value in sums.items()})


def build_trainer(run: Run, parts: TrainerParts, loop: type[Dealt] = Supervised) -> Loop:
    """A trainer that is ready to train.

    Args:
        loop: what it does in place of TRL's; its loss above all.
    """
    from trl import SFTTrainer

    plan = run.plan

    class Sft(loop, SFTTrainer):  # type: ignore[misc, valid-type]
        """TRL's SFT with our loop, loss head and order within a step."""

        def get_train_dataloader(self) -> Any:
            loader = super().get_train_dataloader()
            if self.args.gradient_accumulation_steps > 1 and not plan.training.packing:
                lengths = indexed.sequence_lengths(self.train_dataset)
                loader.set_sampler(WithinStep(loader.get_sampler(), lengths, plan.training.batch_size))
            return loader

    return Sft(**parts)


METHOD = TrainingMethod(
    encoder=encoder,
    dataset=build_dataset,
    arguments=arguments,
    trainer=build_trainer,
    by_tokens=True,
    score=heldout.score_language_model,
    compared=heldout.BY_TOKENS,
    metrics={"loss": "Lowest", "token_accuracy": "Highest"},
)
