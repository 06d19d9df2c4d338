"""A delivery to a volume whose claim does not exist yet, at a real API server."""

from __future__ import annotations

from typing import Any

import pytest
from support.cluster.hand import Namespace
from support.cluster.operator_process import Operator
from support.lives.versions import version_spec

pytestmark = pytest.mark.apiserver
URI = "pvc://serving/team"


def verified(namespace: Namespace, **spec: Any) -> None:
    """Version 1 of tutor, whose files a Job has compared."""
    body = version_spec("Adapter", "pvc://hone-store/models/earlier/1/adapter", "1")
    namespace.create("ModelVersion", "tutor-v1", body | spec)
    [job] = namespace.until(lambda: [n for n in namespace.names("Job") if "-verify-" in n], "a Job that verifies")
    namespace.succeed(job, {"kind": "Verify", "files": 3, "sizeBytes": 7})


def test_no_pod_waits_for_a_claim_that_does_not_exist(namespace: Namespace, operator: Operator) -> None:
    """Not even in the decision that sees that the files are verified."""
    verified(namespace, deliveries=[{"uri": URI}])

    def delivered() -> Any:
        return namespace.condition("ModelVersion", "tutor-v1", "Delivered")

    def deliveries() -> list[str]:
        return [name for name in namespace.names("Job") if "-deliver-" in name]

    namespace.until(lambda: delivered().get("reason") not in ("Waiting", None), "the files are verified")
    assert (delivered()["reason"], deliveries()) == ("PVCNotFound", [])
    assert "PersistentVolumeClaim serving does not exist in this namespace" in delivered()["message"]
    namespace.claim("serving")
    namespace.patch("ModelVersion", "tutor-v1", {"spec": {"approval": {"state": "Approved"}}})  # it looks at once
    namespace.until(deliveries, "a Job that delivers")
    namespace.until(lambda: delivered()["reason"] == "Delivering", "the status says so")
