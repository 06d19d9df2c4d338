"""The pod of a review: fixed except for what the operator wrote, and it sees the batch alone."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from hone_cli.errors import CommandError, printable
from hone_cli.reach import pod
from hone_cli.reach.guard import digest
from hone_cli.review.cluster import signature
from hone_operator.desired.core.pod import USER

pytestmark = pytest.mark.pure

FOLDER = "synthesis/answers/0123456789ab"
PLATFORM = {"image": "hone/trainer:1", "imagePullPolicy": "Always", "imagePullSecrets": ["mirror"], "claim": "store-1"}


def dataset(name: str = "answers", folder: Any = FOLDER, platform: Any = PLATFORM) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": "data-uid"}
    status = {"synthetic": {"folder": folder}, "reviewPod": platform}
    return {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": metadata, "status": status}


def made(reviewer: str = "ann", **fields: Any) -> dict[str, Any]:
    return pod.review_pod(dataset(**fields), digest("secret-token"), reviewer)


def test_it_sees_the_batch_and_no_secret():
    spec = made()["spec"]
    (container,) = spec["containers"]
    assert [v["name"] for v in spec["volumes"]] == ["store", "tmp"]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "store-1"}
    assert container["volumeMounts"] == [
        {"name": "store", "mountPath": "/batch", "subPath": FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},
    ]


def test_image_and_its_secrets_are_those_that_the_operator_wrote():
    spec = made()["spec"]
    assert (spec["containers"][0]["image"], spec["containers"][0]["imagePullPolicy"]) == ("hone/trainer:1", "Always")
    assert spec["imagePullSecrets"] == [{"name": "mirror"}]


def test_whoever_reads_the_pod_cannot_make_the_token_of_it():
    body = made()
    environment = {e["name"]: e["value"] for e in body["spec"]["containers"][0]["env"]}
    assert environment["HONE_REVIEW_TOKEN_SHA256"] == digest("secret-token")
    assert "secret-token" not in repr(body)


def test_it_is_valid_restricted_and_bounded():
    body = made()
    kubernetes_validate.validate(body, "1.33", strict=True)
    spec = body["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert container["resources"]["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
    assert "ports" not in container


def test_it_goes_with_its_dataset_and_ends_by_itself():
    body = made()
    assert [(o["kind"], o["uid"]) for o in body["metadata"]["ownerReferences"]] == [("Dataset", "data-uid")]
    assert body["metadata"]["namespace"] == "team"
    assert body["spec"]["activeDeadlineSeconds"] == 12 * 3600


def test_its_name_fits_and_is_new_each_time():
    name = "a" * 52
    names = {made(name=name, folder=f"synthesis/{name}/0")["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


@pytest.mark.attack("review server")
@pytest.mark.parametrize("reviewer", ["$(HONE_REVIEW_TOKEN_SHA256)", "$$(HOME)", "$"])
def test_a_reviewers_name_is_no_reference_to_a_variable(reviewer: str):
    (container,) = made(reviewer=reviewer)["spec"]["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    assert environment["HONE_REVIEWER"] == reviewer.replace("$", "$$")


@pytest.mark.attack("review server")
@pytest.mark.parametrize(
    "folder",
    [
        "runs/other-job",
        "synthesis",
        "synthesis/answers",
        "synthesis/answers/",
        "synthesis/answers/..",
        "synthesis/answers/../others/0123",
        "synthesis/answers/0123/../../../runs",
        "synthesis/others/0123",
        "/synthesis/answers/0123",
        "synthesis/answers/0123\n",
        "synthesis/answers/%2e%2e",
        "synthesis/answers/$(HOME)",
        ".",
        "/",
    ],
)
def test_a_folder_that_is_not_a_batch_of_the_dataset_is_refused(folder: str):
    """The folder in the status comes from the report of a pod."""
    with pytest.raises(CommandError, match="not a folder below synthesis/answers/: no pod was started"):
        made(folder=folder)


@pytest.mark.parametrize("folder", [None, ""])
def test_a_dataset_without_generated_rows_is_reported(folder: Any):
    with pytest.raises(CommandError, match="has no generated rows"):
        made(folder=folder)


def test_a_status_of_another_version_says_the_way_out():
    with pytest.raises(
        CommandError, match=r"kubectl annotate dataset answers --namespace team .*hone.dev/review=again"
    ):
        made(platform=None)
    with pytest.raises(CommandError, match="install the version of hone that the cluster runs"):
        made(platform={**PLATFORM, "runtimeClassName": "gvisor"})


@pytest.mark.parametrize(
    ("name", "user", "signed"),
    [
        (None, "ann@example.org", "ann@example.org"),
        ("ann@example.org", "ann@example.org", "ann@example.org"),
        ("bob", None, "bob (not confirmed by the API server)"),
        ("bob", "ann@example.org", "bob (as ann@example.org)"),
    ],
)
def test_who_signs(name: str | None, user: str | None, signed: str):
    assert signature(name, user) == signed


@pytest.mark.attack("review server")
@pytest.mark.parametrize("name", ["admin", "admin@example.org", " ann", "ann\n", "system:admin"])
def test_nobody_signs_as_another_user(name: str):
    assert signature(name, "ann") == f"{name} (as ann)"


def test_a_name_that_no_decision_can_hold_is_reported():
    with pytest.raises(CommandError, match="shorten --reviewer"):
        signature("x" * 250, "ann")


@pytest.mark.attack("review server")
@pytest.mark.parametrize(
    "text",
    [
        "\x1b]0;owned\x07",
        "\x1b[2J\x1b[1;1Hhone: done",
        "\x1b]52;c;b3duZWQ=\x07",
        "\x9b31m",
        "one\r\ntwo",
        "\x08\x08\x08",
        "\u202egnp.exe",
        "\u2028",
        "\x00",
    ],
)
def test_what_a_pod_says_cannot_command_the_terminal(text: str):
    shown = printable(f"pod answers-review-0 ended: {text}!")
    assert shown.isprintable()
    assert shown.startswith("pod answers-review-0 ended:")
    assert shown.endswith("!")
