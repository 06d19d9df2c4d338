"""Attempts at a Dataset: what they write, and such that are killed at a certain place."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize


def files(plan: MaterializePlan) -> dict[str, bytes]:
    """Materialize in this process; gives the files of the content."""
    folder = Path(plan.store) / str(materialize.run(plan).path)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Undisturbed:
    """Attempts that nothing happens to: one for all tests of a file with the same rows and fields."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, bytes], Any]] = {}

    def __call__(
        self, plan: Callable[..., MaterializePlan], taken: Callable[[], Any], **fields: Any
    ) -> tuple[dict[str, bytes], Any]:
        """The files of the content, and what is `taken` after such an attempt."""
        if (name := json.dumps(fields, sort_keys=True)) not in self._known:
            self._known[name] = files(plan("undisturbed", **fields)), taken()
        return self._known[name]


def killed(plan: MaterializePlan, place: tuple[Any, str, int]) -> None:
    """Materialize in another process, which is killed at the n-th call of a function."""
    owner, name, number = place
    inner, calls = getattr(owner, name), []

    def dying(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **named)

    def work() -> None:
        setattr(owner, name, dying)
        materialize.run(plan)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
