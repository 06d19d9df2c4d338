"""Whether an object that has the name of one of ours is the one that we would have made."""

from collections.abc import Mapping
from typing import Any

COMPARED = {
    "ConfigMap": ("data", "binaryData", "immutable"),
    "Service": ("spec",),
    "NetworkPolicy": ("spec",),
    "Job": ("spec",),
}
NOT_COMPARED = frozenset({"resources", "sizeLimit", "suspend"})
"""Quantities, which the API server rewrites, and what the operator changes itself."""
NEVER_OURS = frozenset(
    {
        *("initContainers", "ephemeralContainers", "lifecycle", "envFrom", "volumeDevices", "privileged"),
        *("hostNetwork", "hostPID", "hostIPC", "hostUsers", "hostAliases", "shareProcessNamespace"),
        *("serviceAccountName", "serviceAccount", "dnsConfig", "externalIPs", "externalName"),
        *("ingress", "egress"),
    }
)
"""Fields of power over the pod or the way to it. The API server sets none of them where we leave it out."""


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Path of the first field that differs, e.g. `data.plan.json`; None for the same object with the server's defaults.

    An object of a kind that is not compared has no difference.
    """
    for name in COMPARED.get(wanted["kind"], ()):
        if where := _difference(found.get(name), wanted.get(name), name):
            return where
    return None


def _difference(found: Any, wanted: Any, path: str) -> str | None:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        exact = path == "data"
        names = [*wanted, *(n for n in found if n not in wanted and (exact or (found[n] and n in NEVER_OURS)))]
        found_there = (_difference(found.get(n), wanted.get(n), f"{path}.{n}") for n in names if n not in NOT_COMPARED)
        return next(filter(None, found_there), None)
    if isinstance(wanted, list) and isinstance(found, list):
        if len(found) != len(wanted):
            return path
        pairs = enumerate(zip(found, wanted, strict=True))
        return next(filter(None, (_difference(f, w, f"{path}[{i}]") for i, (f, w) in pairs)), None)
    # The API server leaves out what is empty.
    return None if found == wanted or not (found or wanted) else path
