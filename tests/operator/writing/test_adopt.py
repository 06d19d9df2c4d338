"""An object that has the name of one of ours is taken only when it is the one that we would have made."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.cluster.platforms import platform_with

from hone_api.plan import VerifyPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.pod import Work, store
from hone_operator.writing.adopt import difference

PLATFORM = platform_with("trainer:1")
OWNER = {"kind": "ModelVersion", "metadata": {"name": "tutor-v1", "namespace": "team", "uid": "u"}}
Change = Callable[[Any], Any]


def objects() -> tuple[dict[str, Any], dict[str, Any]]:
    plan = VerifyPlan(name="tutor-v1", artifacts=[{"path": "/store/a", "digest": "sha256:" + "0" * 64}])
    work = Work("verify", "verify", plan, "0.5", "1Gi", (store(PLATFORM),), env={"EMPTY": ""})
    config, body = job_with_plan(OWNER, JobName("verify-x", {"hone.dev/component": "verify"}), work, PLATFORM)
    return config, body


def as_stored(body: dict[str, Any]) -> dict[str, Any]:
    """As the API server gives it back: with defaults, quantities rewritten, what is empty left out."""
    stored = copy.deepcopy(body)
    if body["kind"] == "Job":
        stored["spec"] |= {"selector": {"matchLabels": {"uid": "x"}}, "suspend": True, "manualSelector": None}
        pod = stored["spec"]["template"]["spec"]
        pod |= {"dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
        container = pod["containers"][0]
        container["resources"]["requests"]["cpu"] = "500m"
        container["terminationMessagePath"] = "/dev/termination-log"
        container["env"] = [{k: v for k, v in e.items() if v} for e in container["env"]]
        container.pop("ports", None)
    return stored


@pytest.mark.pure
@pytest.mark.parametrize(("queue", "where"), [("team", None), (None, "spec.template.spec.tolerations")])
def test_what_kueue_adds_to_a_job_in_a_queue_is_no_difference(queue: str | None, where: str | None) -> None:
    body = objects()[1]
    _pod(body)["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    if queue:
        body["metadata"]["labels"] = {**body["metadata"]["labels"], "kueue.x-k8s.io/queue-name": queue}
    existing = as_stored(body)
    _pod(existing)["tolerations"].append({"key": "spot", "operator": "Exists"})
    _pod(existing)["nodeSelector"] = {"pool": "spot"}
    assert difference(existing, body) == where
    _pod(existing)["tolerations"][0]["key"] = "another"
    assert difference(existing, body) is not None


@pytest.mark.pure
@pytest.mark.parametrize("index", [0, 1])
def test_our_own_object_is_recognised_as_the_api_server_stores_it(index: int) -> None:
    body = objects()[index]
    assert difference(as_stored(body), body) is None


def _pod(body: dict[str, Any]) -> dict[str, Any]:
    return body["spec"]["template"]["spec"]


def _plan(body: dict[str, Any], **fields: Any) -> None:
    body["data"]["plan.json"] = json.dumps({**json.loads(body["data"]["plan.json"]), **fields})


def _container(body: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = _pod(body)["containers"][0]
    return container


def _other_volume(body: dict[str, Any]) -> None:
    _pod(body)["volumes"][1] = {"name": "store", "hostPath": {"path": "/"}}


PLANTED: dict[str, tuple[int, Change, str]] = {
    "another plan": (0, lambda b: _plan(b, name="x"), "data.plan.json"),
    "a limit raised": (0, lambda b: _plan(b, limits={"allowPrivateAddresses": True}), "data.plan.json"),
    "a space more": (0, lambda b: b["data"].update({"plan.json": b["data"]["plan.json"] + " "}), "data.plan.json"),
    "another file": (0, lambda b: b["data"].update({"ca.crt": "PEM"}), "data.ca.crt"),
    "no data": (0, lambda b: b.pop("data"), "data"),
    "may be changed later": (0, lambda b: b.pop("immutable"), "immutable"),
    "another image": (1, lambda b: _container(b).update(image="evil"), "containers[0].image"),
    "another command": (1, lambda b: _container(b).update(command=["sh"]), "containers[0].command"),
    "a variable more": (1, lambda b: _container(b)["env"].append({"name": "A", "value": "b"}), "env"),
    "another hash": (1, lambda b: _container(b)["env"][-1].update(value="0" * 64), ".value"),
    "another plan's volume": (1, lambda b: _pod(b)["volumes"][0]["configMap"].update(name="x"), "configMap.name"),
    "another store": (1, _other_volume, "persistentVolumeClaim"),
    "a second container": (1, lambda b: _pod(b)["containers"].append({"name": "x"}), "containers"),
    "an init container": (1, lambda b: _pod(b).update(initContainers=[{"name": "x"}]), "initContainers"),
    "the host's network": (1, lambda b: _pod(b).update(hostNetwork=True), "hostNetwork"),
    "an account": (1, lambda b: _pod(b).update(serviceAccountName="strong"), "serviceAccountName"),
    "variables from elsewhere": (1, lambda b: _container(b).update(envFrom=[{"secretRef": {"name": "x"}}]), "envFrom"),
    "privileges": (1, lambda b: _container(b)["securityContext"].update(privileged=True), "privileged"),
    "other addresses": (1, lambda b: _pod(b).update(hostAliases=[{"ip": "::1", "hostnames": ["a"]}]), "hostAliases"),
    "a hook": (1, lambda b: _container(b).update(lifecycle={"postStart": {}}), "lifecycle"),
    "root": (1, lambda b: _pod(b)["securityContext"].update(runAsUser=0), "runAsUser"),
    "a token": (1, lambda b: _pod(b).update(automountServiceAccountToken=True), "automountServiceAccountToken"),
    "more pods": (1, lambda b: b["spec"].update(parallelism=100), "parallelism"),
}


@pytest.mark.faults("O19")
@pytest.mark.pure
@pytest.mark.attack("plans")
@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_object_is_refused_by_the_field_that_differs(case: str) -> None:
    index, change, where = PLANTED[case]
    body = objects()[index]
    found = as_stored(body)
    change(found)
    assert (difference(found, body) or "").endswith(where)


@pytest.mark.faults("O19")
@pytest.mark.apiserver
@pytest.mark.attack("plans")
def test_a_plan_that_was_planted_is_not_carried_out(namespace: Any, operator: Any, spec: Any) -> None:
    """The name is predictable, and the owner's uid is no secret: content decides."""
    namespace.dataset()
    namespace.create("FineTuneJob", "first", spec())
    namespace.until(lambda: namespace.get("Job", "first-1"), "attempt 1")
    operator.kill()
    made = namespace.create("FineTuneJob", "run", spec())
    (ours,) = (c for c in namespace.list("ConfigMap") if c["metadata"]["name"].startswith("first-1-"))
    uid, first = made["metadata"]["uid"], ours["metadata"]["ownerReferences"][0]["uid"]
    text = ours["data"]["plan.json"].replace(first, uid).replace("first", "run")
    data = {**ours["data"], "plan.json": text}
    owner = {"kind": "FineTuneJob", "metadata": {"name": "run", "namespace": namespace.name, "uid": uid}}
    name = names.plan("run-1", str(data))
    evil = {**data, "plan.json": text.replace('"contract"', '"allowPrivateAddresses":true,"contract"')}
    reference = [names.owner_reference(owner)]
    namespace.create("ConfigMap", name, data=evil, immutable=True)
    namespace.patch("ConfigMap", name, {"metadata": {"ownerReferences": reference}})
    operator.start()

    def reason() -> Any:
        return namespace.condition("FineTuneJob", "run", "Admitted")

    namespace.until(lambda: reason().get("reason") == "NameTaken", "NameTaken")
    assert "another data.plan.json than the operator writes: delete it" in reason()["message"]
    assert "run-1" not in namespace.names("Job")
    namespace.delete("ConfigMap", name)
    job = namespace.until(lambda: namespace.get("Job", "run-1"), "it goes on once the plan is gone")
    env = {e["name"]: e.get("value") for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    volume = next(v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "plan")
    plan = namespace.get("ConfigMap", volume["configMap"]["name"])["data"]["plan.json"]
    assert env["HONE_PLAN_SHA256"] == hashlib.sha256(plan.encode()).hexdigest()
