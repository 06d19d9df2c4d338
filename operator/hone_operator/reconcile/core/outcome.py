"""The result of a reconcile: data, carried out by `controllers`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hone_api.words.states import AnyReason
from hone_operator.desired.core.shared import Shared


@dataclass(frozen=True)
class Event:
    """One transition, reported once."""

    reason: AnyReason
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True)
class Refusal:
    """An object that the API server refused, and why."""

    kind: str
    name: str
    reason: AnyReason
    message: str
    final: bool = False
    """A field is invalid, so the same object will always be refused."""


@dataclass(frozen=True)
class Outcome:
    """Carried out in the order of the fields; the operator can continue from any prefix of it."""

    create: tuple[dict[str, Any], ...] = ()
    """Whole objects that must exist; existing ones of ours are left unchanged."""
    apply: tuple[dict[str, Any], ...] = ()
    """Server-side applied; metadata.uid and resourceVersion are preconditions if set."""
    record: tuple[dict[str, Any], ...] = ()
    """Created after `apply` succeeded: objects that need what it wrote."""
    offer: tuple[dict[str, Any], ...] = ()
    """Created unless an object has the name. Nothing depends on them, so a refusal is only logged."""
    status: dict[str, Any] | None = None
    """The whole status; None: unchanged."""
    events: tuple[Event, ...] = ()
    """Emitted after the status was written."""
    delete: tuple[Mapping[str, Any], ...] = ()
    """Observed objects to delete, unless they were replaced (uid)."""
    check_again_in: float | None = None
    """Seconds until time alone changes the decision."""
    look: Shared | None = None
    """Shared work that must be observed first: this decision is made again with it, and never carried out."""

    def creation_steps(self) -> Iterator[list[dict[str, Any]]]:
        """`create` in its order, grouped into steps whose objects can be created concurrently.

        A Job is a separate step, since its pods need the objects before it. So is an object whose owner has no uid yet,
        since
        the same outcome creates that owner.
        """
        step: list[dict[str, Any]] = []
        for body in self.create:
            owners = body["metadata"].get("ownerReferences") or ()
            if body["kind"] != "Job" and all(ref["uid"] for ref in owners):
                step.append(body)
                continue
            if step:
                yield step
            yield [body]
            step = []
        if step:
            yield step


def soonest(*seconds: float | None) -> float | None:
    """The smallest value that is set."""
    return min((s for s in seconds if s is not None), default=None)


def backoff(attempts: int) -> float:
    """Seconds to wait after failure number `attempts`: 10 s, doubled each time, at most 5 minutes."""
    return float(min(300, 10 * 2 ** min(max(attempts, 1) - 1, 10)))
