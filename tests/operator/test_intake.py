"""The running operator and hostile objects, in its list and in its live watch: they cost their owner alone.

The API server is real. Its definitions are those of an installation that keeps unknown fields, as an old one did.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hand import Namespace, fine_tune_job
from kube import PLURAL, Kube, connect, path, wait_until
from operator_process import Operator, free_ports

from hone_api.generate import KINDS
from hone_api.schema import crd

pytestmark = pytest.mark.apiserver
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANY = 40
"""Objects of about 1 MiB: 17 of them were more than the operator's memory could hold."""
MEMORY = 512 * 2**20
"""The limit of the operator's pod, bytes."""
SHAPES: dict[str, Callable[[], str]] = {
    "1000 deep": lambda: "[" * 1000 + "]" * 1000,
    "9000 deep": lambda: '{"a":' * 9000 + "1" + "}" * 9000,
    "largest": lambda: "[" + ",".join(["{}"] * 430_000) + "]",
}
REASON = {"1000 deep": "TooDeep", "9000 deep": "TooDeep", "largest": "TooLarge"}


def lenient(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition of an installation that takes anything in spec and status."""
    body = copy.deepcopy(definition)
    version = body["spec"]["versions"][0]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"spec": anything, "status": anything}}
    version.pop("selectableFields", None)
    version.pop("additionalPrinterColumns", None)
    return body


def fields() -> list[tuple[str, str]]:
    """(kind, path) of the fields of spec. Those of status are dropped from what a user creates."""
    found = []
    for kind in KINDS:
        properties = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        found += [(kind.kind, f"spec.{name}") for name in properties]
        found.append((kind.kind, "spec.podOverrides"))
    return found


@pytest.fixture(scope="module")
def open_kube(apiserver: Path, kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """The API server while its definitions keep what they do not know."""
    for kind in KINDS:
        kube.call("PUT", f"{CRDS}/{kind.plural}.hone.dev", with_version(kube, kind, lenient(crd(kind))))
    yield kube
    for kind in KINDS:
        kube.call("PUT", f"{CRDS}/{kind.plural}.hone.dev", with_version(kube, kind, crd(kind)))
    connect(apiserver, tmp_path_factory.mktemp("kube"))


def with_version(kube: Kube, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
    live = kube.call("GET", f"{CRDS}/{kind.plural}.hone.dev")
    body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return body


def post(kube: Kube, kind: str, namespace: str, name: str, field: str, value: str) -> None:
    """Create the object as text: no reader of ours could make it."""
    part, _, key = field.partition(".")
    body = f'{{"apiVersion":"hone.dev/v1alpha1","kind":"{kind}","metadata":{{"name":"{name}"}},'
    body += f'"{part}":{{"{key}":{value}}}}}'
    answer = kube._session.post(kube.server + path(kind, namespace), data=body.encode(), timeout=60)
    assert answer.status_code == 201, answer.text[:300]


class Tenants:
    """A hostile namespace, another one with a job that runs, and the operator that serves both."""

    def __init__(self, kube: Kube, operator: Operator, hostile: Namespace, good: Namespace):
        self.kube, self.operator, self.hostile, self.good = kube, operator, hostile, good
        self.suspended = False

    def still_served(self) -> None:
        """The other tenant's job is reconciled: what its user wants now is done."""
        self.suspended = not self.suspended
        self.good.patch("FineTuneJob", "run", {"spec": {"suspend": self.suspended}})
        try:
            wait_until(
                lambda: self.good.condition("FineTuneJob", "run", "Suspended").get("status") == str(self.suspended),
                "the other tenant's job is reconciled",
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; the operator's log:\n{self.operator.log()}") from None
        assert self.operator.alive()

    def skipped(self, kind: str, reason: str) -> float:
        port = self.operator.env["HONE_PORTS__METRICS"]
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        name = f'hone_operator_unreadable_objects_total{{kind="{kind}",reason="{reason}"}} '
        return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)

    def events(self, kind: str, name: str) -> list[Any]:
        query = f"?fieldSelector=involvedObject.name={name},involvedObject.kind={kind}"
        return self.kube.call("GET", path("Event", self.hostile.name) + query)["items"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tenants(open_kube: Kube, apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    spaces = []
    for _ in range(2):
        name = f"t-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        open_kube.call("POST", "/api/v1/namespaces", body)
        spaces.append(Namespace(open_kube, name))
    hostile, good = spaces
    for space in spaces:
        space.create("ServiceAccount", "default")
    for claim in ("hone-store", "models", "data"):
        good.claim(claim)
    env = {
        "HONE_WATCH_NAMESPACES": json.dumps([space.name for space in spaces]),
        "HONE_PORTS__METRICS": str(free_ports(1)[0]),
        "HONE_RESYNC_SECONDS": "5",
    }
    operator = Operator(apiserver, tmp_path_factory.mktemp("operator"), env).start()
    good.dataset()
    good.create("FineTuneJob", "run", fine_tune_job())
    wait_until(lambda: good.get("Job", "run-1"), "the other tenant's job runs")
    good.start_pods("run-1")
    yield Tenants(open_kube, operator, hostile, good)
    if operator.alive():
        operator.kill()
    for space in spaces:
        for kind in ("FineTuneJob", "Dataset", "ModelVersion", "Job", "Pod"):
            open_kube._session.delete(open_kube.server + path(kind, space.name), timeout=60)  # no JSON that we can read


INPUTS = [(kind, field, shape) for kind, field in fields() for shape in ("1000 deep", "9000 deep")] + [
    (kind.kind, "spec.podOverrides", "largest") for kind in KINDS
]


@pytest.fixture(scope="module")
def names(tenants: Tenants) -> dict[tuple[str, str, str], str]:
    """Every input as an object in the live watch of the operator; their names."""
    found = {}
    for number, (kind, field, shape) in enumerate(INPUTS):
        found[kind, field, shape] = name = f"x-{number}"
        post(tenants.kube, kind, tenants.hostile.name, name, field, SHAPES[shape]())
        if number % 20 == 0:
            tenants.still_served()
    tenants.still_served()
    return found


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(("kind", "field", "shape"), INPUTS)
def test_the_owner_of_a_hostile_object_is_told(
    tenants: Tenants, names: dict[tuple[str, str, str], str], kind: str, field: str, shape: str
) -> None:
    name = names[kind, field, shape]
    (event,) = wait_until(lambda: tenants.events(kind, name), "an Event")
    assert (event["reason"], event["type"]) == ("Unreadable", "Warning")
    assert tenants.skipped(kind, REASON[shape]) > 0
    # As text: nobody of ours can parse it. The operator has written nothing on it.
    url = tenants.kube.server + path(kind, tenants.hostile.name, name)
    assert '"manager":"hone"' not in tenants.kube._session.get(url, timeout=60).text
    assert tenants.operator.alive()


def flood(tenants: Tenants) -> None:
    """As the hostile tenant: objects of about 1 MiB each, half of them beyond the bound, half of them parsed."""
    for value in (SHAPES["largest"](), "[" + ",".join(["{}"] * 330_000) + "]"):
        for _ in range(MANY // 2):
            name = f"many-{uuid.uuid4().hex[:8]}"
            post(tenants.kube, "FineTuneJob", tenants.hostile.name, name, "spec.podOverrides", value)


@pytest.mark.attack("objects at the API server")
def test_hostile_objects_in_the_watch_stay_within_the_memory_limit(tenants: Tenants) -> None:
    before = tenants.skipped("FineTuneJob", "TooLarge")
    flood(tenants)
    wait_until(lambda: tenants.skipped("FineTuneJob", "TooLarge") >= before + MANY // 2, "the watch has brought them")
    tenants.still_served()
    assert tenants.operator.peak_memory() < MEMORY


@pytest.mark.attack("objects at the API server")
def test_a_start_among_hostile_objects_within_the_memory_limit(tenants: Tenants) -> None:
    flood(tenants)
    tenants.operator.kill()
    tenants.operator.start()
    wait_until(tenants.operator.ready, "the operator has looked at everything")
    tenants.still_served()
    assert tenants.skipped("FineTuneJob", "TooLarge") >= MANY // 2
    assert tenants.operator.peak_memory() < MEMORY


def child(kind: str, shape: str) -> dict[str, Any]:
    """A training Job or Pod with as much as the API server takes in one of the parts that a user may fill."""
    meta: dict[str, Any] = {"labels": {"hone.dev/component": "training"}}
    container: dict[str, Any] = {"name": "c", "image": "i"}
    if shape == "annotations":
        meta["annotations"] = {f"example.org/{n}": "[" * 200 for n in range(1000)}
    elif shape == "labels":
        meta["labels"] |= {f"example.org/{n}": "x" * 40 for n in range(14_000)}
    elif shape == "env":
        container["env"] = [{"name": f"E{n}", "value": "{" * 1000} for n in range(1200)]
    elif shape == "deep":
        fields: dict[str, Any] = {}
        for _ in range(900):
            fields = {"f:a": fields}
        entry = {"manager": "x", "operation": "Update", "apiVersion": PLURAL[kind][0].split("/", 2)[2]}
        meta["managedFields"] = [{**entry, "fieldsType": "FieldsV1", "fieldsV1": fields}]
    spec: dict[str, Any] = {"containers": [container], "restartPolicy": "Never"}
    return {"metadata": meta, "spec": spec if kind == "Pod" else {"template": {"spec": spec}}}


CHILDREN = {"annotations": None, "labels": "TooLarge", "env": "TooLarge", "deep": "TooDeep"}
"""Why each is not read; None: it is."""


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("shape", CHILDREN)
@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_a_deep_or_large_child_costs_its_owner_alone(tenants: Tenants, kind: str, shape: str) -> None:
    reason, name = CHILDREN[shape], f"x-{uuid.uuid4().hex[:8]}"
    before = tenants.skipped(kind, reason) if reason else 0.0
    body = child(kind, shape)
    tenants.hostile.create(kind, name, body["spec"], metadata=body["metadata"] | {"name": name})
    if reason:
        wait_until(lambda: tenants.skipped(kind, reason) > before, "the watch has brought it")
    tenants.still_served()
