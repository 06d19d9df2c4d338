"""Requests, limits and maximum duration of a pod. Each pod has all of them, so a runaway ends and hurts no
neighbour."""

from collections.abc import Mapping
from typing import Any

from hone_api.base.quantity import value
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.quantity import cores

OUTSIDE_SCRATCH = 2**30
"""Bytes of ephemeral storage in addition to the scratch volume, for the container's log."""


def resources(cpu: str, memory: str, extended: Mapping[str, str], platform: Platform) -> dict[str, Any]:
    """A container's resources; memory is limited to its request."""
    limits = platform.pod_limits
    requests: dict[str, str] = {"cpu": cpu, "memory": memory, **extended}
    most: dict[str, str] = {"memory": memory, **extended}
    if limits.cpu_factor:
        most["cpu"] = cores(max(value(cpu) * limits.cpu_factor, value(limits.least_cpu)))
    if limits.ephemeral_storage_request:
        # Without an explicit request, the request would equal the limit.
        requests["ephemeral-storage"] = limits.ephemeral_storage_request
        most["ephemeral-storage"] = str(int(value(platform.trainer.scratch_size)) + OUTSIDE_SCRATCH)
    return {"requests": requests, "limits": most}
