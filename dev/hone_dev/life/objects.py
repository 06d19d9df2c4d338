"""What is read of example 13's files and of Hone's objects. No I/O but reading the example."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import yaml

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.words.states import ConditionType, ImportState, JobPhase, Reason
from hone_dev.life.platform import EXAMPLE

Body = Mapping[str, Any]


def manifest(file: str) -> dict[str, Any]:
    """A file of the example, which has one object."""
    body: dict[str, Any] = yaml.safe_load((EXAMPLE / file).read_text())
    return body


def rows(file: str) -> dict[str, str]:
    """The answer to each question of the Dataset in this file of the example."""
    key = manifest(file)["spec"]["source"]["uri"].rpartition("/")[2]
    parsed = [json.loads(line) for line in manifest("data.yaml")["data"][key].splitlines()]
    return {row["question"]: row["answer"] for row in parsed}


def conditions(body: Body) -> dict[str, Body]:
    """Conditions by type."""
    return {each["type"]: each for each in (body.get("status") or {}).get("conditions") or ()}


def failures(jobs: Iterable[Body], models: Iterable[Body]) -> list[str]:
    """What was to make a version and has failed for good, and why."""
    ended = [(job["metadata"]["name"], job.get("status") or {}) for job in jobs]
    imports = [entry for model in models for entry in (model.get("status") or {}).get("imports") or ()]
    return [
        *(f"job {name}: {status.get('failure')}" for name, status in ended if status.get("phase") == JobPhase.FAILED),
        *(f"{entry['uri']}: {entry}" for entry in imports if entry["state"] == ImportState.FAILED),
    ]


def is_trained(model: Body) -> bool:
    """Whether a job has trained on the rows that there are."""
    return conditions(model).get(ConditionType.UP_TO_DATE, {}).get("reason") == Reason.TRAINED


def approved_at(version: Body) -> float:
    """When the API server took the decision about a ModelVersion, in seconds since 1970, to the second.

    Args:
        version: with its managed fields.
    """
    fields = version["metadata"]["managedFields"]
    times = [entry["time"] for entry in fields if "f:approval" in entry["fieldsV1"].get("f:spec", {})]
    return datetime.fromisoformat(max(times)).timestamp()


def alias(model: Body, name: str) -> Body:
    """What an alias points to, and since when; empty: to nothing."""
    aliases = (model.get("status") or {}).get("aliases") or ()
    return next((each for each in aliases if each["name"] == name), {})


def candidate(model: Body, version: int) -> Body:
    """What keeps a version from being promoted; empty: the operator has not judged it."""
    candidates = (model.get("status") or {}).get("candidates") or ()
    return next((each for each in candidates if each["version"] == version), {})


def deliveries(version: Body) -> dict[str, Body]:
    """By scheme."""
    entries = (version.get("status") or {}).get("deliveries") or ()
    return {entry["uri"].partition(":")[0]: entry for entry in entries}


def losses(version: Body) -> str:
    """What was measured on the held-out rows, with the version in use where it was compared with one."""
    numbers = ModelVersionSpec.model_validate(version["spec"]).evaluation.numbers
    loss = next(number for number in numbers if number.name == "loss")
    text = f"loss of {loss.rows} held-out rows {loss.base} → {loss.tuned}"
    if loss.against is None:
        return text
    return f"{text}; the version in use {loss.against}, difference {loss.against_low} to {loss.against_high} (95 %)"
