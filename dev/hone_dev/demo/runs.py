"""The run that a demo starts or goes on with, decided from what is there. No I/O but reading the example's files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hone_api.words.states import ConditionType


@dataclass(frozen=True)
class Run:
    """A FineTuneJob by name; `new` when it has yet to be created."""

    name: str
    new: bool


def choose(base: str, existing: Iterable[Mapping[str, Any]]) -> Run:
    """The unfinished run of an interrupted demo, or else a new one.

    One object is one run: the first is called `base`, later ones `base`-2, `base`-3 and so on. Finished ones stay.
    """
    numbers: dict[int, Mapping[str, Any]] = {}
    for job in existing:
        if match := re.fullmatch(rf"{re.escape(base)}(?:-(\d+))?", job["metadata"]["name"]):
            numbers[int(match[1] or 1)] = job
    for number in sorted(numbers, reverse=True):
        if not is_finished(numbers[number]) and not numbers[number]["metadata"].get("deletionTimestamp"):
            return Run(numbers[number]["metadata"]["name"], new=False)
    number = max(numbers, default=0) + 1
    return Run(base if number == 1 else f"{base}-{number}", new=True)


def is_finished(job: Mapping[str, Any]) -> bool:
    """Whether the run is over, well or badly."""
    conditions = (job.get("status") or {}).get("conditions", ())
    return any(
        c["type"] in (ConditionType.FINISHED, ConditionType.STALLED) and c["status"] == "True" for c in conditions
    )


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The objects of an example, in the order in which kubectl applies its files."""
    return [doc for file in sorted(folder.glob("*.yaml")) for doc in yaml.safe_load_all(file.read_text()) if doc]


def job_of(objects: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The FineTuneJob among them."""
    return next(doc for doc in objects if doc["kind"] == "FineTuneJob")


def to_apply(objects: Iterable[dict[str, Any]], run: Run) -> list[dict[str, Any]]:
    """The objects with the job under the run's name; without the job where it runs already."""
    others = [doc for doc in objects if doc["kind"] != "FineTuneJob"]
    if not run.new:
        return others
    job = job_of(objects)
    return [*others, job | {"metadata": job["metadata"] | {"name": run.name}}]
