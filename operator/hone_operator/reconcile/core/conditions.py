"""Conditions as kstatus, Flux, Argo CD and `kubectl wait` read them."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from hone_api.words.failures import FAILURES, Retry
from hone_api.words.states import KSTATUS, AnyReason, ConditionType, Reason

MAX_MESSAGE = 4096
TROUBLE = frozenset({Reason.INTERNAL_ERROR, Reason.STATUS_REFUSED, Reason.WRITE_REFUSED})
"""Reasons of a failed decision: the next successful decision does not keep them."""
MEANING: dict[str, str] = {reason.value: reason.when for reason in Reason}


class KubeCondition(StrEnum):
    """Conditions of Jobs and pods, which Kubernetes writes, and of Workloads, which Kueue writes."""

    COMPLETE = "Complete"
    """Of a Job: it succeeded, and all of its pods have ended."""
    FAILED = "Failed"
    """Of a Job: it failed, and all of its pods have ended."""
    SUSPENDED = "Suspended"
    """Of a Job: it has no pods, because it is suspended; they may still be stopping."""
    DISRUPTION_TARGET = "DisruptionTarget"
    """Of a pod: the cluster takes it."""
    POD_SCHEDULED = "PodScheduled"
    """Of a pod: it has a node."""
    QUOTA_RESERVED = "QuotaReserved"
    """Of a Workload: it has quota; admission checks may be open."""
    ADMITTED = "Admitted"
    """Of a Workload: its pods may start."""
    EVICTED = "Evicted"
    """Of a Workload: Kueue took its quota back and stops its pods. False again when it gets quota."""


class Conditions:
    """The conditions of one object: set one by one, written in the order in which a person needs them.

    lastTransitionTime moves only when a status flips, so the same state is the same list.
    """

    def __init__(self, previous: Iterable[Mapping[str, Any]], generation: int, now: str):
        self._previous = {c["type"]: c for c in previous}
        self._now: dict[str, dict[str, Any]] = {}
        self._generation = generation
        self._time = now

    def set(self, type_: ConditionType, value: bool | None, reason: AnyReason, message: str = "") -> None:
        """`value` None is Unknown. Without a message, the condition says what its reason means."""
        self._write(type_, value, reason, message or MEANING.get(reason, ""))

    def _write(self, type_: str, value: bool | None, reason: str, message: str) -> None:
        """`type_` can also be a condition that another version of Hone wrote."""
        status = {True: "True", False: "False", None: "Unknown"}[value]
        old = self._previous.get(type_)
        since = (old.get("lastTransitionTime") if old and old["status"] == status else None) or self._time
        self._now[type_] = {
            "type": str(type_),
            "status": status,
            "reason": str(reason),
            "message": message[:MAX_MESSAGE],
            "observedGeneration": self._generation,
            "lastTransitionTime": since,
        }

    def keep(self, type_: ConditionType, reason: AnyReason) -> None:
        """Keep the previous condition; Unknown with this reason if there was none."""
        if type_ in self._previous:
            self._keep(type_)
        else:
            self.set(type_, None, reason)

    def _keep(self, type_: str) -> None:
        old = self._previous[type_]
        if old["reason"] in TROUBLE:
            self._write(type_, False if type_ == ConditionType.RECONCILING else None, Reason.RECOVERED, "")
        else:
            value = {"True": True, "False": False}.get(old["status"])
            self._write(type_, value, old["reason"], old.get("message", ""))

    def keep_all(self) -> None:
        """Keep all previous conditions, for the present generation."""
        for type_ in self._previous:
            self._keep(type_)

    def before(self, type_: ConditionType) -> Mapping[str, Any]:
        """The previous condition; empty if there was none."""
        return self._previous.get(type_, {})

    def keep_rest(self) -> None:
        """Keep the previous value of conditions that were not set, for the present generation."""
        for type_ in [t for t in self._previous if t not in self._now]:
            self._keep(type_)

    def kept(self, type_: ConditionType, reason: AnyReason, message: str) -> str:
        """The previous message if the reason is the same: the kubelet words one obstacle differently every second."""
        old = self.before(type_)
        return old.get("message", "") if old.get("reason") == reason else message

    def failed_before(self, type_: ConditionType) -> bool:
        """Whether this condition reported a failure: it stays visible while another attempt is under way."""
        return self._previous.get(type_, {}).get("reason") in FAILURES

    def given_up_before(self, type_: ConditionType) -> bool:
        """Whether this condition reported a failure that another attempt does not change."""
        failure = FAILURES.get(self._previous.get(type_, {}).get("reason", ""))
        return failure is not None and failure.retry is Retry.NEVER

    def changed(self, type_: ConditionType) -> bool:
        """Whether status or reason differ from the previous ones."""
        old, new = self._previous.get(type_), self._now.get(type_)
        if old is None or new is None:
            return old is not new
        return (old["status"], old["reason"]) != (new["status"], new["reason"])

    def is_true(self, type_: ConditionType) -> bool:
        """The status that was set in this decision."""
        return self._now.get(type_, {}).get("status") == "True"

    def was_true(self, type_: ConditionType) -> bool:
        """The previous status."""
        return self._previous.get(type_, {}).get("status") == "True"

    def has(self, type_: ConditionType) -> bool:
        """Whether it was set in this decision."""
        return type_ in self._now

    def get(self, type_: ConditionType) -> Mapping[str, Any]:
        """The condition that was set in this decision.

        Raises:
            KeyError: it was not set.
        """
        return self._now[type_]

    def to_list(self) -> list[dict[str, Any]]:
        """The value of status.conditions."""
        first = [self._now[type_] for type_ in KSTATUS if type_ in self._now]
        return [*first, *(c for type_, c in self._now.items() if type_ not in KSTATUS)]


def condition(body: Mapping[str, Any], type_: ConditionType | KubeCondition) -> Mapping[str, Any]:
    """A condition of an observed object; one without status if it has none."""
    conditions: Iterable[Mapping[str, Any]] = (body.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == type_), {})


def is_true(body: Mapping[str, Any], type_: ConditionType | KubeCondition) -> bool:
    """Whether an observed object has this condition with status True."""
    return condition(body, type_).get("status") == "True"
