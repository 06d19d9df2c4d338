"""A teacher that is a ModelVersion: it writes answers before training, or gives its distribution during training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hone_api.plan import TrainingPlan
from hone_api.words.failures import FailureCode
from hone_trainer.encoding import harmony
from hone_trainer.encoding.prompts import Prompt, PromptEncoder, checked_record
from hone_trainer.encoding.row import RowRefusedError
from hone_trainer.errors import TrainerError
from hone_trainer.models import base_model
from hone_trainer.models.base_model import Base
from hone_trainer.teachers.skipped import LeftOut
from hone_trainer.teachers.teacher import answered_row, longest_answer, options_of, tools_in

BATCH = 8


@dataclass(frozen=True)
class ModelTeacher:
    """A `Teacher` that works with token ids."""

    encoder: PromptEncoder
    answers: Callable[[Sequence[list[int]], frozenset[int]], list[list[int]]]
    """Answers prompts, each up to one of the tokens that end it."""
    decode: Callable[[Sequence[int], Sequence[int]], str]
    """The text of an answer's tokens after those of its prompt."""
    own_stops: frozenset[int]
    """Tokens that end an answer according to the model's files; those of its chat template are added."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer; grows with each encoded prompt."""
        return self.own_stops | self.encoder.end_of_turn_ids

    def rows(self, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any] | LeftOut]:
        """See `Teacher`; the answers are greedy, several in parallel."""
        prompts = [self._prompt(record) for record in records]
        answers = self._answered([prompt for prompt in prompts if isinstance(prompt, Prompt)])
        for prompt in prompts:
            yield prompt if isinstance(prompt, LeftOut) else self._row(prompt, next(answers))

    def _prompt(self, record: dict[str, Any]) -> Prompt | LeftOut:
        if left := tools_in(record, checked_record(record)["prompt"]):
            return left
        try:
            return self.encoder.encode(record)[0]
        except RowRefusedError as error:
            return LeftOut(f"the teacher cannot read it ({error.code})")

    def _answered(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        for start in range(0, len(prompts), BATCH):
            yield from self.answers([prompt.prompt_ids for prompt in prompts[start : start + BATCH]], self.stop_ids)

    def _row(self, prompt: Prompt, ids: list[int]) -> dict[str, Any] | LeftOut:
        text = self.decode(prompt.prompt_ids, ids[:-1])  # an end-of-turn token need not be a special token
        if ids and ids[-1] in self.stop_ids and text.strip():
            return answered_row(prompt.record, text)
        return LeftOut("its answer is empty, or longer than maxCompletionLength")


def named(plan: TrainingPlan) -> tuple[str, str]:
    """Name and folder of the ModelVersion."""
    name = options_of(plan).teacher_model_version
    assert name is not None
    return name, plan.models[name].path


def open_teacher(plan: TrainingPlan, student: Base) -> Base:
    """Open a teacher whose distribution the student can learn, without its weights.

    Raises:
        TrainerError: UnsupportedModel, if its tokens differ. Its chat template may differ, because the teacher reads
            the
            student's ids.
    """
    name, folder = named(plan)
    opened = base_model.open_base(folder)
    if opened.tokenizer.get_vocab() != student.tokenizer.get_vocab():
        sizes = f"{len(opened.tokenizer)} tokens and {len(student.tokenizer)}"
        message = (
            f"distillation.teacherModelVersion {name} has another vocabulary than {plan.model_uri} ({sizes}), and "
            "level Logits compares them token by token: use level Sequence, or a teacher with the same tokenizer"
        )
        raise TrainerError(FailureCode.UNSUPPORTED_MODEL, message)
    return opened


def load(plan: TrainingPlan) -> ModelTeacher:
    """Load the teacher with its weights, on the GPU if there is one."""
    import torch

    from hone_trainer.models import generate

    longest = longest_answer(plan)
    base = base_model.open_base(named(plan)[1])
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
    network = base_model.load(base, bf16=bf16, cpu=not cuda, quantize=False, frozen=True).eval()
    if cuda:
        network.cuda()
    encoder = PromptEncoder(base.tokenizer, base.context - longest)

    def answers(prompts: Sequence[list[int]], stop_ids: frozenset[int]) -> list[list[int]]:
        pad = base.tokenizer.pad_token_id
        return generate.greedy(network, prompts, pad_id=pad, stop_ids=stop_ids, longest=longest)

    return ModelTeacher(encoder, answers, partial(harmony.decoded, base.tokenizer), base.stop_ids)
