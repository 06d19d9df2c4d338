"""Reads a spec that another version may have written or validated."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hone_api.base.reading import in_words, read_known
from hone_api.words.states import ConditionType, Reason
from hone_operator.objects.pruning import MAX_NAMED, UNKNOWN
from hone_operator.reconcile.core.outcome_builder import OutcomeBuilder

M = TypeVar("M", bound=BaseModel)


def read_spec(model: type[M], body: Mapping[str, Any]) -> tuple[M, list[str]]:
    """The spec, and the paths of fields that this version does not know.

    Raises:
        ValidationError: a field that it knows is wrong.
    """
    spec, unknown = read_known(model, body["spec"])
    return spec, [*body["metadata"].get(UNKNOWN, ()), *(f"spec.{path}" for path in unknown)][:MAX_NAMED]


def accept(builder: OutcomeBuilder, unknown: list[str], note: str = "") -> None:
    """Set condition Accepted, with a note. The API server accepted the object, so unknown fields are only a warning."""
    if not unknown:
        builder.conditions.set(ConditionType.ACCEPTED, True, Reason.ACCEPTED, note)
        return
    message = (
        f"This version of Hone does not know {', '.join(sorted(unknown))}: it has no effect. Upgrade the operator, "
        "or remove the field."
    )
    message = f"{message} {note}".strip()
    builder.conditions.set(ConditionType.ACCEPTED, True, Reason.UNKNOWN_FIELDS, message)
    builder.add_event_if_changed(ConditionType.ACCEPTED, warning=True)


def spec_problems(error: ValidationError) -> str:
    """Every wrong field, in one message."""
    return "; ".join(f"spec.{words}" for words in in_words(error))
