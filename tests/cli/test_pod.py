"""The pod of a review: what it sees is the batch, and nothing else of the Dataset's Job."""

from __future__ import annotations

from typing import Any

import pytest

from hone_cli import pod

pytestmark = pytest.mark.pure

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"hone.dev/component": "materialize"}},
    "spec": {
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "fsGroup": 10001},
        "containers": [
            {
                "name": "materialize",
                "image": "hone/trainer:1",
                "command": ["python", "-m", "hone_trainer", "materialize"],
                "env": [{"name": "HF_TOKEN_PATH", "value": "/secrets/source"}],
                "securityContext": RESTRICTED,
                "resources": {"requests": {"cpu": "8", "memory": "64Gi"}},
                "volumeMounts": [
                    {"name": "store", "mountPath": "/store"},
                    {"name": "plan", "mountPath": "/etc/hone"},
                    {"name": "endpoint", "mountPath": "/secrets/endpoint"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }
        ],
        "volumes": [
            {"name": "store", "persistentVolumeClaim": {"claimName": "hone-store"}},
            {"name": "plan", "configMap": {"name": "plan"}},
            {"name": "endpoint", "secret": {"secretName": "key"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    },
}
FOLDER = "synthesis/answers/0123456789ab"


def made(name: str = "answers", reviewer: str = "ann") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": "data-uid"}
    dataset = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": metadata}
    return pod.review_pod(dataset, TEMPLATE, FOLDER, "token", reviewer)


def test_of_the_store_it_sees_the_batch_and_of_the_secrets_none():
    spec = made()["spec"]
    (container,) = spec["containers"]
    assert {v["name"] for v in spec["volumes"]} == {"store", "tmp"}
    assert container["volumeMounts"] == [
        {"name": "store", "mountPath": "/batch", "subPath": FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    assert {e["name"] for e in container["env"]} == {
        "HONE_REVIEW_TOKEN",
        "HONE_REVIEWER",
        "HOME",
        "PYTHONUNBUFFERED",
    }


def test_it_is_as_restricted_as_the_job_and_asks_for_little():
    spec = made()["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"] == TEMPLATE["spec"]["securityContext"]
    assert container["securityContext"] == RESTRICTED
    assert spec["automountServiceAccountToken"] is False
    assert container["image"] == "hone/trainer:1"
    assert container["resources"]["requests"]["cpu"] == "100m"
    assert "ports" not in container


def test_it_goes_with_its_dataset_and_ends_by_itself():
    body = made()
    assert [(o["kind"], o["uid"]) for o in body["metadata"]["ownerReferences"]] == [("Dataset", "data-uid")]
    assert body["metadata"]["namespace"] == "team"
    assert body["spec"]["activeDeadlineSeconds"] == 12 * 3600


def test_its_name_fits_and_is_new_each_time():
    names = {made("a" * 52)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


def test_a_reviewers_name_is_no_reference_to_a_variable():
    (container,) = made(reviewer="$(HONE_REVIEW_TOKEN)")["spec"]["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    assert environment["HONE_REVIEWER"] == "$$(HONE_REVIEW_TOKEN)"


def test_the_template_stays_as_it_is():
    before = repr(TEMPLATE)
    made()
    assert repr(TEMPLATE) == before
