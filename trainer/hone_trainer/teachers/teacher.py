"""What every teacher does, wherever its answers come from, and the rows made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from hone_api.methods import DistillationMethod
from hone_api.plan import TrainingPlan
from hone_trainer.teachers.skipped import LeftOut

LONGEST_ANSWER = 256
"""Tokens of an answer when the plan names none."""


class Teacher(Protocol):
    """Answers prompts."""

    def rows(self, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any] | LeftOut]:
        """The records with the teacher's answers, in order; the reason for a record that it cannot read or finish."""


def answered_row(checked: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """An answered prompt, with the row's fields that evaluation.rewards compare with.

    Args:
        checked: see `prompts.checked_record`.
    """
    own = {key: value for key, value in checked.items() if key != "prompt"}
    prompt = checked["prompt"]
    if isinstance(prompt, list):
        return {"messages": [*prompt, {"role": "assistant", "content": answer}], **own}
    return {"prompt": prompt, "completion": answer, **own}


def tools_in(record: Mapping[str, Any], prompt: Any) -> LeftOut | None:
    """Why a row with tools is left out: `row` does not keep tools, so its answer would be trained without them.

    Args:
        prompt: as `prompts.checked_record` returns it.
    """
    turns = prompt if isinstance(prompt, list) else []
    if record.get("tools") or any(set(turn) != {"role", "content"} for turn in turns):
        return LeftOut("it has tools, which are not sent to the teacher")
    return None


def options_of(plan: TrainingPlan) -> DistillationMethod:
    """The plan's block; the API guarantees that it exists."""
    assert plan.distillation is not None
    return plan.distillation


def longest_answer(plan: TrainingPlan) -> int:
    """Maximum tokens of an answer."""
    return options_of(plan).max_completion_length or LONGEST_ANSWER
