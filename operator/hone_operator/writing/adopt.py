"""Compares an existing object that has the name of one of ours with the one that we would create."""

from collections.abc import Mapping
from typing import Any

from hone_operator.desired.core.names import QUEUE

COMPARED = {
    "ConfigMap": ("data", "binaryData", "immutable"),
    "Service": ("spec",),
    "NetworkPolicy": ("spec",),
    "Job": ("spec",),
}
NOT_COMPARED = frozenset({"resources", "sizeLimit", "suspend"})
"""Quantities, which the API server rewrites, and fields that the operator changes itself."""
NEVER_OURS = frozenset(
    {
        *("initContainers", "ephemeralContainers", "lifecycle", "envFrom", "volumeDevices", "privileged"),
        *("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases", "shareProcessNamespace"),
        *("serviceAccountName", "serviceAccount", "dnsConfig", "externalIPs", "externalName"),
        *("ingress", "egress"),
    }
)
"""Fields that give power over the pod or access to it. The API server leaves them unset if we do."""


def difference(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Path of the first field that differs, e.g. `data.plan.json`; None if the object is equal up to the server's
    defaults.

    Objects of kinds that are not compared never differ.
    """
    if _queue(wanted) and _queue(wanted) == _queue(existing):
        existing = _without_additions(existing, wanted)
    for name in COMPARED.get(wanted["kind"], ()):
        if where := _difference(existing.get(name), wanted.get(name), name):
            return where
    return None


def _queue(body: Mapping[str, Any]) -> str | None:
    return (body["metadata"].get("labels") or {}).get(QUEUE)


def _without_additions(existing: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Job without the tolerations that Kueue has appended to ours."""
    spec, ours = existing["spec"], wanted["spec"]["template"]["spec"].get("tolerations") or ()
    pod = spec["template"]["spec"]
    pod = {**pod, "tolerations": (pod.get("tolerations") or [])[: len(ours)]}
    return {**existing, "spec": {**spec, "template": {**spec["template"], "spec": pod}}}


def _difference(existing: Any, wanted: Any, path: str) -> str | None:
    if isinstance(wanted, Mapping) and isinstance(existing, Mapping):
        exact = path == "data"
        names = [*wanted, *(n for n in existing if n not in wanted and (exact or (existing[n] and n in NEVER_OURS)))]
        found_there = (
            _difference(existing.get(n), wanted.get(n), f"{path}.{n}") for n in names if n not in NOT_COMPARED
        )
        return next(filter(None, found_there), None)
    if isinstance(wanted, list) and isinstance(existing, list):
        if len(existing) != len(wanted):
            return path
        pairs = enumerate(zip(existing, wanted, strict=True))
        return next(filter(None, (_difference(f, w, f"{path}[{i}]") for i, (f, w) in pairs)), None)
    # The API server leaves out what is empty.
    return None if existing == wanted or not (existing or wanted) else path
