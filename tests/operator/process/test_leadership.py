"""Two operators as processes, and one Lease: the one that was stopped for too long writes nothing any more."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.hand import fine_tune_job
from support.cluster.kube import GUARD_SECONDS, Kube, connect, wait_until
from support.cluster.operator_process import Operator
from support.cluster.rights import installed

from hone_dev.cluster.controlplane import control_plane

pytestmark = pytest.mark.apiserver
SYSTEM, TENANT = "hone-pair", "team"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/hone"
JOBS = f"/apis/hone.dev/v1alpha1/namespaces/{TENANT}/finetunejobs"
VALUES = {
    "leaderElection": {"enabled": True},
    "allNamespaces": True,
    "trainer": {"image": {"repository": "example.org/t", "tag": "test"}},
}


class Pair:
    """A control plane, and two operators with the rights of the chart."""

    def __init__(self, kube: Kube, kubeconfig: Path, folder: Path, audit: Path) -> None:
        self.kube, self.audit, self.made = kube, audit, 0
        self.operators = {}
        for name in ("first", "second"):
            (folder / name).mkdir()
            env = {
                "HONE_NAMESPACE": SYSTEM,
                "HONE_LEADER_ELECTION__ENABLED": "true",
                "HONE_LEADER_ELECTION__LEASE": "hone",
                "HONE_LEADER_ELECTION__IDENTITY": name,
            }
            self.operators[name] = Operator(kubeconfig, folder / name, env)

    def holder(self) -> str:
        """Who holds the Lease; fails while there is none."""
        return str(self.kube.call("GET", LEASE)["spec"].get("holderIdentity", ""))

    def submit(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            meta = {"name": f"job-{self.made}"}
            body = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": meta, "spec": fine_tune_job()}
            self.kube.call("POST", JOBS, body)

    def seen(self) -> int:
        """How many jobs have a status."""
        return sum("status" in each for each in self.kube.call("GET", JOBS)["items"])

    def writes(self, name: str) -> list[tuple[str, str]]:
        """(time, path) of what an operator has changed, without its Lease and its questions, in order."""
        found = []
        for line in self.audit.read_bytes().splitlines():
            event = json.loads(line)
            ours = event.get("userAgent") == f"hone-operator/{name}" and event["verb"] not in ("get", "list", "watch")
            if ours and event["objectRef"]["resource"] not in ("leases", "tokenreviews", "selfsubjectaccessreviews"):
                found.append((event["requestReceivedTimestamp"], event["requestURI"]))
        return sorted(found)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with control_plane(tmp_path / "plane", garbage="400") as kubeconfig:
        kube = connect(kubeconfig, tmp_path)
        kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": TENANT}})
        with installed(kube, kubeconfig, SYSTEM, VALUES) as account:
            user = account.kubeconfig(kubeconfig, tmp_path / "account.kubeconfig")
            made = Pair(kube, user, tmp_path, tmp_path / "plane" / "logs" / "audit.log")
            yield made
            for operator in made.operators.values():
                if operator.alive():
                    operator.kill()


@pytest.mark.faults("O12")
def test_an_operator_that_was_stopped_for_too_long_stops_writing(pair: Pair) -> None:
    first, second = (each.start() for each in pair.operators.values())
    wait_until(pair.holder, "one holds the Lease")
    leader = pair.holder()
    old, new = (first, second) if leader == "first" else (second, first)
    other = "second" if leader == "first" else "first"
    pair.submit(1)
    wait_until(lambda: pair.seen() == 1, "it works")
    assert pair.writes(other) == []
    wait_until(new.ready, "the one that waits is ready, too: a Deployment counts it")

    pair.submit(30)
    wait_until(lambda: pair.seen() > 1, "it is in the middle of its work")
    assert old.process
    os.kill(old.process.pid, signal.SIGSTOP)
    wait_until(lambda: pair.holder() == other, "the other has taken over")
    taken = pair.kube.call("GET", LEASE)["spec"]
    pair.submit(5)
    wait_until(lambda: pair.seen() == pair.made, "the other works")
    os.kill(old.process.pid, signal.SIGCONT)
    assert old.process.wait(GUARD_SECONDS) == 1
    assert "another operator may work now" in old.log()
    late = [each for each in pair.writes(leader) if each[0] > taken["acquireTime"]]
    assert len(late) <= 1, "what it was about to send; see test_fence.py"
    assert pair.writes(other)
    assert (taken["leaseTransitions"], pair.holder()) == (1, other)
    assert new.stop() == 0
    assert pair.holder() == "", "one that ends gives its Lease back: the next need not wait until it has expired"
