"""The embedded cluster does what a real one does, and goes without a trace."""

import json
import os
import signal
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone_dev.cluster import cluster as embedded
from hone_dev.cluster import machine, outside
from hone_dev.cluster.process import Supervisor

pytestmark = pytest.mark.e2e

SECURE = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def pod_spec(image: str, script: str, **more: Any) -> dict[str, Any]:
    """A pod that runs a shell script and passes the restricted Pod Security Standard."""
    container = {"name": "main", "image": image, "command": ["sh", "-ec", script], "securityContext": SECURE}
    container["volumeMounts"] = [{"name": "store", "mountPath": "/store"}] if "volumes" in more else []
    user = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        **more,
    }


def pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def claim(mode: str) -> dict[str, Any]:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "store"}, "spec": spec}


STORE = [{"name": "store", "persistentVolumeClaim": {"claimName": "store"}}]


def until(condition: Callable[[], bool], timeout: float = 900.0) -> None:
    """Wait for a state; the time is a guard against hanging only."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "this state was never reached"
        time.sleep(0.2)


def test_two_pods_of_an_indexed_job_meet_by_name_and_share_a_volume(kubectl, operator_image) -> None:
    other = f"meet-$((1 - JOB_COMPLETION_INDEX)).meet.{kubectl.namespace}.svc.cluster.local"
    # A pod that ends leaves the DNS: each stays until the other has found it.
    script = f"""
        until getent hosts {other}; do sleep 0.2; done
        echo "$JOB_COMPLETION_INDEX" > /store/$JOB_COMPLETION_INDEX
        until [ -e /store/$((1 - JOB_COMPLETION_INDEX)) ]; do sleep 0.2; done
        stat --format '%u:%g' /store/0 /store/1"""
    meta = {"metadata": {"labels": {"app": "meet"}}}
    template = {**meta, "spec": pod_spec(operator_image, script, subdomain="meet", volumes=STORE)}
    job = {"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 0, "template": template}
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "meet"}}
    kubectl.apply(
        claim("ReadWriteMany"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "meet"}, "spec": service},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "meet"}, "spec": job},
    )
    kubectl("wait", "--for=condition=complete", "job/meet", "--timeout=15m")
    logs = kubectl("logs", "--selector=app=meet")
    assert logs.count("10001:10001") == 4, logs
    addresses = {p["status"]["podIP"] for p in kubectl.get("pods")["items"]}
    assert len(addresses) == 2
    assert all(address in logs for address in addresses)


def test_a_volume_is_deleted_with_its_claim(kubectl, operator_image) -> None:
    spec = pod_spec(operator_image, "echo kept > /store/file", volumes=STORE)
    kubectl.apply(claim("ReadWriteOnce"), pod("writer", spec))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=15m")
    volume = kubectl.get("pv", kubectl.get("pvc", "store")["spec"]["volumeName"])
    folder = Path(volume["spec"]["local"]["path"])
    assert (folder / "file").read_text() == "kept\n"
    kubectl("delete", "pod/writer", "pvc/store", "--timeout=15m")
    until(lambda: not folder.exists())
    until(lambda: volume["metadata"]["name"] not in kubectl("get", "pv", "--output=name"))


CLIENT = """
import ssl, time, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
context = ssl.create_default_context(cafile=account + "ca.crt")
token = {"Authorization": "Bearer " + open(account + "token").read()}
request = urllib.request.Request("https://kubernetes.default.svc/version", headers=token)
print("api server", urllib.request.urlopen(request, context=context, timeout=600).status)
for _ in range(100):  # the endpoint of a pod that became ready is published a moment later
    try:
        print("service", urllib.request.urlopen("http://web", timeout=600).status)
        break
    except OSError:
        time.sleep(0.2)
"""


def test_a_pod_reaches_a_service_and_the_api_server(kubectl, operator_image) -> None:
    server = pod_spec(operator_image, "exec python -m http.server 8000 --directory /app")
    server["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8000}, "periodSeconds": 1}
    client = pod_spec(operator_image, 'exec python -c "$PROGRAM"')
    client["containers"][0]["env"] = [{"name": "PROGRAM", "value": CLIENT}]
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service}, pod("web", server)
    )
    kubectl("wait", "--for=condition=ready", "pod/web", "--timeout=15m")
    kubectl.apply(pod("client", client))
    until(lambda: kubectl.get("pod", "client")["status"]["phase"] in ("Succeeded", "Failed"))
    assert kubectl("logs", "client") == "api server 200\nservice 200\n"


LOOKING = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("outside.example", 443)
with contextlib.suppress(OSError):
    socket.create_connection(("198.51.100.7", 443), timeout=1)
"""


def test_a_pod_that_looks_for_something_outside_is_seen(kubectl, operator_image) -> None:
    spec = pod_spec(operator_image, 'exec python -c "$PROGRAM"')
    spec["containers"][0]["env"] = [{"name": "PROGRAM", "value": LOOKING}]
    since = outside.log_size()
    kubectl.apply(pod("looking", spec))
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/looking", "--timeout=15m")
    assert "outside.example." in outside.names(since)
    assert "198.51.100.7" in outside.addresses()


def test_a_privileged_pod_is_refused(kubectl, operator_image) -> None:
    spec = pod_spec(operator_image, "true")
    spec["containers"][0]["securityContext"] = {"privileged": True}
    assert "violates PodSecurity" in kubectl.refusal(pod("root", spec))


def test_a_quota_holds(kubectl, operator_image) -> None:
    spec = {"hard": {"pods": "0"}}
    kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": spec})
    until(lambda: "hard" in kubectl.get("resourcequota", "none").get("status", {}))
    assert "exceeded quota" in kubectl.refusal(pod("one", pod_spec(operator_image, "true")))


def test_strangers_are_refused_and_writes_are_logged(kubectl, cluster) -> None:
    context = ssl.create_default_context(cafile=str(cluster.parent / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"https://{embedded.ADDRESS}:6443/version", context=context)
    assert refused.value.code == 401
    assert cluster.stat().st_mode & 0o077 == 0
    kubectl("create", "configmap", "written")
    entries = [json.loads(line) for line in embedded.audit_log().read_text().splitlines() if "written" in line]
    ours = [e for e in entries if e["objectRef"].get("namespace") == kubectl.namespace]
    assert [(e["verb"], e["objectRef"]["resource"]) for e in ours] == [("create", "configmaps")]


@pytest.mark.alone
def test_up_repairs_what_was_killed_and_pods_live_on(kubectl, operator_image) -> None:
    kubectl.apply(pod("survivor", pod_spec(operator_image, "trap 'exit 0' TERM; sleep 600 & wait")))
    kubectl("wait", "--for=condition=ready", "pod/survivor", "--timeout=15m")
    before = kubectl.get("pod", "survivor")["status"]["containerStatuses"][0]
    supervisor = Supervisor(embedded.paths.state())
    killed = {name: supervisor.pid(name) for name in ("kube-apiserver", "containerd", "kubelet", "coredns")}
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(supervisor.pid(name) for name in killed))
    assert not embedded.is_up()
    embedded.up()
    assert embedded.is_up()
    after = kubectl.get("pod", "survivor")["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
    assert kubectl("exec", "survivor", "--", "echo", "alive") == "alive\n"


def snapshot() -> machine.Snapshot:
    """Of the machine, without what tests of another tier mount in their own folders meanwhile."""
    taken = machine.snapshot()
    return taken | {"mounts": [m for m in taken["mounts"] if not Path(m).is_relative_to(tempfile.gettempdir())]}


@pytest.mark.machine
def test_down_leaves_the_machine_as_it_was_before_up(kubectl, operator_image) -> None:
    embedded.down()
    before = snapshot()
    assert before["processes"] == []
    embedded.up()
    kubectl("create", "namespace", kubectl.namespace)
    service = {"selector": {"app": "left"}, "ports": [{"port": 80}]}
    kubectl.apply(
        claim("ReadWriteMany"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "left"}, "spec": service},
        pod("left", pod_spec(operator_image, "sleep 600", volumes=STORE)),
    )
    kubectl("wait", "--for=condition=ready", "pod/left", "--timeout=15m")
    while_up = machine.difference(before, snapshot())
    assert {"processes", "mounts", "interfaces", "iptables", "cgroups"} <= while_up.keys()
    embedded.down()
    assert machine.difference(before, snapshot()) == {}
    embedded.up()  # for whoever had it up; the fixture takes it down otherwise
