"""A plan from its JSON, also one that a newer release wrote."""

from __future__ import annotations

import json
import re
from typing import get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from hone_api import RELEASE
from hone_api.base.reading import without_unknown
from hone_api.plan import AnyPlan, Plan

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
PLANS: dict[str, type[BaseModel]] = {
    get_args(plan.model_fields["kind"].annotation)[0]: plan for plan in get_args(AnyPlan)
}
"""By kind, with which pydantic begins the place of each problem."""


def parse_plan(text: str | bytes) -> AnyPlan:
    """Parse a plan; from a plan of a newer release, the fields that this release knows.

    Raises:
        pydantic.ValidationError: lists every wrong field.
    """
    return read_plan(text)[0]


def read_plan(text: str | bytes) -> tuple[AnyPlan, list[str]]:
    """The same, and the paths of fields of a newer release that this one does not know, e.g. `training.future`.

    Raises:
        pydantic.ValidationError: lists every wrong field.
    """
    try:
        return _PLAN.validate_json(text), []
    except ValidationError as error:
        if not _is_of_newer_release(text):
            raise
        reduced, unknown = without_unknown(json.loads(text), error)
    plan = _PLAN.validate_json(json.dumps(reduced))
    return plan, [path.removeprefix(f"{plan.kind}.") for path in unknown]  # pydantic begins each with the kind


def _is_of_newer_release(text: str | bytes) -> bool:
    try:
        return _numbers(json.loads(text)["release"]) > _numbers(RELEASE)
    except (ValueError, TypeError, KeyError):
        return False


def _numbers(release: str) -> list[int]:
    """[1, 2, 3] of 1.2.3, and of 1.2.3-rc1."""
    return [int(number) for number in re.findall(r"\d+", release)[:3]]
