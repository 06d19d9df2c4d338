"""Distillation. Level Sequence: SFT on the answers of a teacher, which `ask_teacher` has put in the place of the rows'
own. Level Logits: on the rows' own answers, the student learns the teacher's distribution over each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import mapped
from hone_trainer.encoding.split_file import IGNORED, Encoder, Row
from hone_trainer.errors import TrainerError
from hone_trainer.methods import sft
from hone_trainer.models import base_model
from hone_trainer.models.base_model import Base
from hone_trainer.models.network import Network
from hone_trainer.teachers import from_model
from hone_trainer.teachers.teacher import options_of
from hone_trainer.training import model_check
from hone_trainer.training.batches.deferred import Dealt
from hone_trainer.training.batches.unpadded import Unpadded
from hone_trainer.training.loop import Loop, Run
from hone_trainer.training.method import TrainerParts


class AnsweredEncoder(Encoder):
    """Of rows that have answers."""

    def takes(self, record: dict[str, Any]) -> str | None:
        """What is wrong with the record's shape, or None."""
        wrong = super().takes(record)
        return f"{wrong}, which distillation.level Logits learns on: use level Sequence" if wrong else None


def encoder(plan: TrainingPlan, base: Base) -> Encoder:
    """Of a conversation the last turn is the teacher's own; its distribution is known for every turn."""
    if options_of(plan).by_logits:
        return AnsweredEncoder(base.tokenizer, "Assistant")
    return Encoder(base.tokenizer, "LastAssistant")


def check(plan: TrainingPlan, base: Base) -> None:
    """Whether the student can learn from the teacher.

    Raises:
        TrainerError: UnsupportedModel, when level Logits would compare other tokens.
    """
    if options_of(plan).by_logits:
        from_model.open_teacher(plan, base)


def build_dataset(plan: TrainingPlan, rows: Sequence[Row], max_length: int) -> Any:
    """The rows as TRL takes them.

    Raises:
        TrainerError: InvalidConfiguration, when the teacher that must read them cannot: its context is too short.
    """
    if options_of(plan).by_logits:
        name, folder = from_model.named(plan)
        context, longest = base_model.open_base(folder).context, mapped.most(rows)
        if longest > context:
            message = (
                f"distillation.teacherModelVersion {name} reads {context} tokens, and the longest row has {longest}: "
                f"set training.maxLength to {context}"
            )
            raise TrainerError(FailureCode.INVALID_CONFIGURATION, message)
    return sft.build_dataset(plan, rows, max_length)


class Taught(Dealt):
    """A `Dealt` whose loss is the divergence from a teacher, normalised as TRL's SFTTrainer does: over the tokens that
    count in the whole batch of a step, of all ranks."""

    teacher: Any
    """Frozen, and absent from checkpoints, since it is not part of the model."""
    temperature: float
    is_compared = False
    """Whether both heads were compared with their models', as in the first pass."""
    aux_loss_enabled: bool
    router_aux_loss_coef: float
    current_gradient_accumulation_steps: int
    tokens: Any = 0

    def compute_loss(
        self, model: Network, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        import torch

        from hone_trainer.methods import divergence  # loads torch

        rows = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        counts = inputs["labels"][:, 1:] != IGNORED
        with torch.no_grad():
            teacher, known = divergence.Side.of(self.teacher, self.teacher, rows, counts)
        student, output = divergence.Side.of(self.model, model, rows, counts)
        with self.accelerator.autocast():
            if not self.is_compared:
                teacher.check(known)
                student.check(output)
                self.is_compared = True
            distance = divergence.summed(student, teacher, self.temperature)
        # The batch's count is that of all ranks, and DDP averages their gradients.
        of_all = num_items_in_batch is not None and self.args.average_tokens_across_devices
        loss = distance / torch.as_tensor(counts.sum() if num_items_in_batch is None else num_items_in_batch).clamp(
            min=1
        )
        loss = loss * self.accelerator.num_processes if of_all else loss
        if self.aux_loss_enabled:  # experts are kept in balance, as in SFT
            loss = loss + (
                self.router_aux_loss_coef * output.aux_loss * self.weight / self.current_gradient_accumulation_steps
            )
        # Read when it is logged.
        self.tokens = self.tokens + self.add_up(inputs["attention_mask"].sum()[None])[0]
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, "num_tokens": float(self.tokens)}, start_time)


def build_trainer(run: Run, parts: TrainerParts) -> Loop:
    """A trainer that is ready to train."""
    options = options_of(run.plan)
    if not options.by_logits:
        return sft.build_trainer(run, parts)
    distiller = sft.build_trainer(run, parts, loop=Taught)
    assert isinstance(distiller, Taught)
    opened, numbers = from_model.open_teacher(run.plan, run.base), run.settings
    theirs = base_model.load(opened, bf16=numbers.bf16, cpu=numbers.cpu, quantize=False, frozen=True)
    distiller.teacher = theirs.to(parts["args"].device).eval().requires_grad_(False)
    choice, why = model_check.choose_attention(model_check.Look.of(run, distiller.teacher, parts["args"].device))
    if choice.keeps_rows_apart and not why:
        Unpadded(distiller.teacher, choice)
    distiller.temperature = float(options.temperature or 1)
    return distiller


METHOD = replace(
    sft.METHOD,
    encoder=encoder,
    dataset=build_dataset,
    check=check,
    trainer=build_trainer,
)
