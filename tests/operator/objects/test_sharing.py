"""Equal short texts of cached objects exist once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone_operator.objects import sharing
from hone_operator.objects.cache import strip

pytestmark = pytest.mark.pure


def job(number: int) -> dict[str, Any]:
    """As the parser makes it: no string is that of another job."""
    condition = {"type": "Finished", "status": "True", "reason": "Succeeded", "message": f"Job {number} " + "x" * 99}
    body = {
        "apiVersion": "hone.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": f"job-{number}", "namespace": "team", "uid": str(number), "resourceVersion": "7"},
        "spec": {
            "model": {"uri": "hf://org/model"},
            "training": {"epochs": 3, "batchSize": 16},
            "adapter": {"type": "LoRA", "rank": 8},
        },
        "status": {"phase": "Succeeded", "conditions": [condition]},
    }
    parsed: dict[str, Any] = json.loads(json.dumps(body))
    return parsed


def test_jobs_share_what_is_equal_in_them() -> None:
    first, second = (strip("FineTuneJob", job(n)) for n in (1, 2))
    assert first["spec"]["adapter"]["type"] is second["spec"]["adapter"]["type"]
    assert first["status"]["phase"] is second["status"]["phase"]
    one, other = (body["status"]["conditions"][0] for body in (first, second))
    assert [a is b for a, b in zip(one, other, strict=True)] == [True] * 4
    assert [one[k] is other[k] for k in ("type", "status", "reason", "message")] == [True, True, True, False]


def test_pods_also_share_it() -> None:
    status = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}
    body = {"metadata": {"name": "p", "namespace": "team", "uid": "1"}, "spec": {"nodeName": "n1"}, "status": status}
    first, second = (strip("Pod", json.loads(json.dumps(body))) for _ in range(2))
    assert first == second
    assert first["status"]["conditions"][0]["type"] is second["status"]["conditions"][0]["type"]
    assert first["spec"]["nodeName"] is second["spec"]["nodeName"]


def test_what_tenants_write_does_not_accumulate() -> None:
    for number in range(3 * sharing.MOST_STRINGS):
        sharing.shared(f"name-{number}")
    assert len(sharing._strings) <= sharing.MOST_STRINGS
    long = "x" * (sharing.SHORT + 1)
    sharing.shared(long)
    assert long not in sharing._strings
