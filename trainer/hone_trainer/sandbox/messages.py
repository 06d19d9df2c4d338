"""Requests to a worker and its replies, as JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

INSTRUCTIONS_PER_SECOND = 5_000_000_000
"""WebAssembly instructions in a second of the limit: about what one core of 2024 executes while running Python.
Counting instructions instead of seconds makes the verdict the same on a busy and on an idle machine."""
Outcome = Literal["Done", "Failed", "Broken"]


@dataclass(frozen=True)
class ExecutionLimits:
    """Limits of one program."""

    seconds: float = 10
    """Computing time, in units of INSTRUCTIONS_PER_SECOND."""
    memory_bytes: int = 256 * 2**20

    @property
    def instructions(self) -> int:
        return int(self.seconds * INSTRUCTIONS_PER_SECOND)


@dataclass(frozen=True)
class Program:
    """Python to run: one or two `sources` in one namespace, then `function` once for each of `calls`."""

    sources: Sequence[str]
    function: str | None = None
    calls: Sequence[Mapping[str, Any]] = ()
    """Keyword arguments, of JSON types."""
    limits: ExecutionLimits = field(default_factory=ExecutionLimits)

    def request(self) -> WorkerRequest:
        first, second = self.sources if len(self.sources) > 1 else (*self.sources, "")
        body = {
            "sources": [first, second],
            "function": self.function,
            "calls": list(self.calls),
            "instructions": self.limits.instructions,
            "memory_bytes": self.limits.memory_bytes,
        }
        return WorkerRequest("python", body)


@dataclass(frozen=True)
class WorkerRequest:
    """Something for a worker to do; `kind` is a key of `worker.KINDS`."""

    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """The reply to a request.

    Failed is the request's own fault, the same every time: the program raised, exited, or reached a limit. Broken is
    the
    sandbox's: the worker died or did not answer, which says nothing about the program.
    """

    outcome: Outcome
    value: Any = None
    message: str = ""
