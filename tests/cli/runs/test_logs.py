"""Which pod's log `hone logs` shows, and what it says where the node has none any more."""

from __future__ import annotations

import json

import pytest
from kubernetes import client
from support.servers.loopback import Handler, serve

from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube
from hone_cli.reach.objects import Objects
from hone_cli.runs.logs import log, tail_of

pytestmark = pytest.mark.pure
JOB = {"metadata": {"name": "run"}, "spec": {}, "status": {}}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory. "}


def pod(name: str, created: str, **status: str) -> dict:
    labels = {"hone.dev/attempt": "1", "batch.kubernetes.io/job-completion-index": "0"}
    metadata = {"name": name, "labels": labels, "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"containers": [{"name": "trainer"}]}, "status": status}


class Api(Handler):
    """An API server with one run; the node has the log of no pod but `alive`, and says so with status 200."""

    refusal = "unable to retrieve container logs for containerd://0123"

    pods: list[dict]

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        if path.endswith("/log"):
            name = path.split("/")[-2]
            text = f"the log of {name}" if name == "alive" else self.refusal
            return self.answer(200, "text/plain", text.encode())
        body = {"items": self.pods} if path.endswith("/pods") else JOB
        return self.answer(200, "application/json", json.dumps(body).encode())


@pytest.fixture
def objects():
    with serve(Api) as server:
        yield Objects(Kube("team", client.Configuration(host=server)))


@pytest.mark.parametrize("refusal", [Api.refusal, 'failed to try resolving symlinks in path "/var/log/x": lstat'])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            EVICTED,
            "pod gone has ended (Evicted: The node was low on resource: memory), and its node has removed the log",
        ),
        ({"phase": "Failed"}, "the node of pod gone has removed its log"),
    ],
)
def test_a_log_that_the_node_has_removed_is_an_error_with_the_reason(
    objects, monkeypatch, refusal, status, words
) -> None:
    monkeypatch.setattr(Api, "refusal", refusal)
    Api.pods = [pod("gone", "2026-01-01T00:00:00Z", **status)]
    with pytest.raises(CommandError) as refused:
        list(log(objects, "run"))
    assert str(refused.value) == words
    assert tail_of(objects, JOB, 4) == [words]


def test_of_several_pods_of_a_rank_the_newest_is_shown(objects) -> None:
    """The Job replaces a pod that was deleted."""
    Api.pods = [pod("alive", "2026-01-01T00:00:09Z"), pod("gone", "2026-01-01T00:00:00Z", **EVICTED)]
    assert b"".join(log(objects, "run")) == b"the log of alive"
    assert tail_of(objects, JOB, 4) == ["the log of alive"]
