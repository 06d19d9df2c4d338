"""Builds an Outcome: the conditions, status, objects and events of one decision."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Unpack

from hone_api.base.meta import ApiModel
from hone_api.contract.status_json import (
    DatasetStatusJson,
    FineTuneJobStatusJson,
    ModelStatusJson,
    ModelVersionStatusJson,
)
from hone_api.words.states import AnyReason, ConditionType, Reason
from hone_operator.reconcile.core.conditions import Conditions
from hone_operator.reconcile.core.outcome import Event, Outcome, soonest
from hone_operator.reconcile.core.pods import ObservedJob
from hone_operator.times import format_time

START_SECONDS = 15.0


class OutcomeBuilder:
    """Collects the results of one reconcile; `outcome` completes it. Lives within one call of a pure function.

    The status is written through the class of the object's kind, which knows its fields.
    """

    def __init__(self, body: Mapping[str, Any], now: datetime):
        self.body = body
        self.now = now
        self.time = format_time(now)
        self._old: Any = body.get("status") or {}
        self.generation: int = body["metadata"].get("generation", 1)
        self.conditions = Conditions(self._old.get("conditions") or (), self.generation, self.time)
        self._status: Any = {k: v for k, v in self._old.items() if k not in ("conditions", "observedGeneration")}
        self.create: list[dict[str, Any]] = []
        self.apply: list[dict[str, Any]] = []
        self.record: list[dict[str, Any]] = []
        self.offer: list[dict[str, Any]] = []
        self.delete: list[Mapping[str, Any]] = []
        self.events: list[Event] = []
        self.check_again_in: float | None = None

    def _put(self, fields: Mapping[str, object]) -> None:
        for name, value in fields.items():
            if value is None:
                self._status.pop(name, None)
            else:
                self._status[name] = value

    def check_in(self, seconds: float | None) -> None:
        """Decide again after at most this many seconds."""
        if seconds is not None:
            self.check_again_in = soonest(self.check_again_in, max(0.0, seconds))

    def until(self, time: datetime) -> float:
        """Seconds from now until a time."""
        return (time - self.now).total_seconds()

    def add_event(self, reason: AnyReason, message: str, warning: bool = False) -> None:
        """Add an Event."""
        self.events.append(Event(reason, message[:1024], "Warning" if warning else "Normal"))

    def add_event_if_changed(self, type_: ConditionType, warning: bool = False) -> None:
        """Add an Event if status or reason of this condition changed in this decision."""
        if self.conditions.changed(type_):
            c = self.conditions.get(type_)
            self.add_event(c["reason"], c["message"], warning)

    def await_start(self, job: ObservedJob) -> None:
        """Check again a Job whose pods have no container yet, because a failing mount causes no event.

        A Job without its plan can never start: it is deleted, so that another one is created.
        """
        if any(pod.mounting for pod in job.states):
            self.check_in(START_SECONDS)
        if job.plan_lost:
            self.delete.append(job.body)
            message = (
                f"The ConfigMap with the plan of Job {job.name} was deleted before a pod read it: it is made again."
            )
            self.add_event(Reason.PLAN_LOST, message, warning=True)

    def ready(
        self, ready: bool, reason: AnyReason, message: str, *, reconciling: bool = False, stalled: bool = False
    ) -> None:
        """Set the three conditions of kstatus. The message is in Ready and in the other true one, where tools look for
        it."""
        self.conditions.set(ConditionType.READY, ready, reason, message)
        self.conditions.set(ConditionType.RECONCILING, reconciling, reason, message if reconciling else "")
        self.conditions.set(ConditionType.STALLED, stalled, reason, message if stalled else "")

    def to_json(self) -> dict[str, Any]:
        """The whole status as decided so far."""
        return {"observedGeneration": self.generation, **self._status, "conditions": self.conditions.to_list()}

    def outcome(self, delete: Iterable[Mapping[str, Any]] = ()) -> Outcome:
        """The complete decision."""
        status = self.to_json()
        return Outcome(
            create=tuple(self.create),
            apply=tuple(self.apply),
            record=tuple(self.record),
            offer=tuple(self.offer),
            status=None if same_status(status, self._old) else status,
            events=tuple(self.events),
            delete=(*self.delete, *delete),
            check_again_in=self.check_again_in,
        )


class JobBuilder(OutcomeBuilder):
    """Of a FineTuneJob."""

    def __init__(self, body: Mapping[str, Any], now: datetime):
        super().__init__(body, now)
        self.old: FineTuneJobStatusJson = self._old
        self.status: FineTuneJobStatusJson = self._status

    def put(self, **fields: Unpack[FineTuneJobStatusJson]) -> None:
        """Set fields of the status by their JSON names; None removes a field."""
        self._put(fields)


class DatasetBuilder(OutcomeBuilder):
    """Of a Dataset."""

    def __init__(self, body: Mapping[str, Any], now: datetime):
        super().__init__(body, now)
        self.old: DatasetStatusJson = self._old
        self.status: DatasetStatusJson = self._status

    def put(self, **fields: Unpack[DatasetStatusJson]) -> None:
        """Set fields of the status by their JSON names; None removes a field."""
        self._put(fields)


class VersionBuilder(OutcomeBuilder):
    """Of a ModelVersion."""

    def __init__(self, body: Mapping[str, Any], now: datetime):
        super().__init__(body, now)
        self.old: ModelVersionStatusJson = self._old
        self.status: ModelVersionStatusJson = self._status

    def put(self, **fields: Unpack[ModelVersionStatusJson]) -> None:
        """Set fields of the status by their JSON names; None removes a field."""
        self._put(fields)


class ModelBuilder(OutcomeBuilder):
    """Of a Model."""

    def __init__(self, body: Mapping[str, Any], now: datetime):
        super().__init__(body, now)
        self.old: ModelStatusJson = self._old
        self.status: ModelStatusJson = self._status

    def put(self, **fields: Unpack[ModelStatusJson]) -> None:
        """Set fields of the status by their JSON names; None removes a field."""
        self._put(fields)


def builder_for(body: Mapping[str, Any], now: datetime) -> JobBuilder | DatasetBuilder | VersionBuilder | ModelBuilder:
    """A builder for an object of any of our kinds."""
    if body["kind"] == "FineTuneJob":
        return JobBuilder(body, now)
    if body["kind"] == "Dataset":
        return DatasetBuilder(body, now)
    return VersionBuilder(body, now) if body["kind"] == "ModelVersion" else ModelBuilder(body, now)


def as_json(model: ApiModel) -> Any:
    """A model of the API as a part of a status. The model has checked the names, so the type checker need not."""
    return model.to_json()


def same_status(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a write would add nothing: only the time of an equal report, or the order of conditions, differs."""
    return _news(new) == _news(old)


def _news(status: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(status)
    if "conditions" in out:
        out["conditions"] = {c["type"]: c for c in out["conditions"]}
    if "progress" in out:
        out["progress"] = {k: v for k, v in out["progress"].items() if k != "lastUpdatedTime"}
    return out
