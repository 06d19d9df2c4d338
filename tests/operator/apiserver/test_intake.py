"""The running operator and hostile objects, in its list and in its live watch: they cost their owner alone.

The API server is real. Its definitions are those of an installation that keeps unknown fields, as an old one did.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from support.cluster.hand import Namespace, fine_tune_job
from support.cluster.kube import PLURAL, Kube, connect, path, wait_until
from support.cluster.operator_process import Operator, free_ports

from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_dev.cluster.controlplane import control_plane

pytestmark = pytest.mark.apiserver
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANY = {"kept": 18, "largest": 14}
"""Objects of about 1 MiB. In the operator's memory, those of either shape would alone be more than it may have."""
MEMORY = 512 * 2**20
"""The limit of the operator's pod, bytes."""
SHAPES: dict[str, Callable[[], str]] = {
    "1000 deep": lambda: "[" * 1000 + "]" * 1000,
    "9000 deep": lambda: '{"a":' * 9000 + "1" + "}" * 9000,
    "kept": lambda: "[" + ",".join(["{}"] * 330_000) + "]",
    "largest": lambda: "[" + ",".join(["{}"] * 430_000) + "]",
    "longest": lambda: '"' + "x" * 1_300_000 + '"',
}
"""`kept` is just below the bound of bytes, `largest` and `longest` are beyond it. What a watch brings beyond it is not
parsed: there one string will do, which costs the API server a tenth of what 430,000 objects do. An item of a list is
parsed before it is measured."""
DEEPEST = "9000 deep"
"""Such an object costs the API server some hundred MiB for a moment: it records who owns which of the levels."""
SHARED, OWN = "shared", "own"
"""Which API server: the deepest objects have one of their own, which ends with them."""
API_SERVERS = {SHARED: {"memory": "4GiB", "garbage": "400"}, OWN: {"memory": "2GiB"}}
"""Beyond its memory an API server frees more eagerly. With the deepest objects and without a limit it kept 8 GiB, and
answered too late; with many large ones and 2 GiB it would do nothing but free."""
REASON = {"1000 deep": "TooDeep", "9000 deep": "TooDeep", "largest": "TooLarge", "longest": "TooLarge"}


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


def places() -> Iterator[tuple[str, list[str]]]:
    """(kind, keys) of every place in spec and status, at any depth; `[]` is the first item of a list."""
    for kind in KINDS:
        whole = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
        for part in ("spec", "status"):
            yield from ((kind.kind, keys) for keys in _below(whole[part], [part]))


def _below(schema: dict[str, Any], keys: list[str]) -> Iterator[list[str]]:
    for name, inner in schema.get("properties", {}).items():
        yield [*keys, name]
        yield from _below(inner, [*keys, name])
    for key, at in (("items", "[]"), ("additionalProperties", "any")):
        if isinstance(inner := schema.get(key), dict):
            yield [*keys, at]
            yield from _below(inner, [*keys, at])


def nested(keys: list[str], value: str) -> str:
    """JSON text with the value at this place."""
    for key in reversed(keys):
        value = f"[{value}]" if key == "[]" else f'{{"{key}":{value}}}'
    return value


@contextmanager
def lenient_server(folder: Path, **options: str) -> Iterator[tuple[Path, Kube]]:
    """An API server whose definitions keep what they do not know. No other test has it: what is put there is large."""
    with control_plane(folder / "cluster", **options) as kubeconfig:
        kube = connect(kubeconfig, folder)
        for kind in KINDS:
            url, body = f"{CRDS}/{kind.plural}.hone.dev", lenient(crd(kind))
            body["metadata"]["resourceVersion"] = kube.call("GET", url)["metadata"]["resourceVersion"]
            kube.call("PUT", url, body)
        yield kubeconfig, kube


TRIES = 5
"""Of a write that the API server had no time for, as whoever floods it would repeat it."""


def send(kube: Kube, method: str, at: str, text: str, media: str = "application/json") -> requests.Response:
    """The API server's answer to a body as text: no writer of ours could make it."""
    for _ in range(TRIES):
        answer = kube._session.request(
            method, kube.server + at, data=text.encode(), headers={"Content-Type": media}, timeout=120
        )
        if answer.status_code != requests.codes.gateway_timeout:
            break
    return answer


def create(kube: Kube, kind: str, namespace: str, name: str, text: str) -> None:
    """Of a new name: a conflict says that a try that was answered too late has created it."""
    answer = send(kube, "POST", path(kind, namespace), text)
    assert answer.status_code in (requests.codes.created, requests.codes.conflict), f"{name}: {answer.text[:300]}"


def post(kube: Kube, kind: str, namespace: str, name: str, field: str, value: str) -> None:
    """Create the object as text."""
    part, _, key = field.partition(".")
    body = f'{{"apiVersion":"hone.dev/v1alpha1","kind":"{kind}","metadata":{{"name":"{name}"}},'
    body += f'"{part}":{{"{key}":{value}}}}}'
    create(kube, kind, namespace, name, body)


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
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=600).text
        name = f'hone_operator_unreadable_objects_total{{kind="{kind}",reason="{reason}"}} '
        return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)

    def events(self, kind: str, name: str) -> list[Any]:
        query = f"?fieldSelector=involvedObject.name={name},involvedObject.kind={kind}"
        return self.kube.call("GET", path("Event", self.hostile.name) + query)["items"]


class Servers:
    """One API server with its tenants at a time."""

    def __init__(self, folders: pytest.TempPathFactory):
        self._folders, self._stack = folders, ExitStack()
        self._name = ""
        self._tenants: Tenants | None = None

    def named(self, name: str) -> Tenants:
        """The tenants on the server of this name; another one that is there ends first."""
        if self._tenants is None or name != self._name:
            self.close()
            server = lenient_server(self._folders.mktemp("intake"), **API_SERVERS[name])
            kubeconfig, kube = self._stack.enter_context(server)
            folder = self._folders.mktemp("operator")
            self._name, self._tenants = name, self._stack.enter_context(two_tenants(kubeconfig, kube, folder))
        return self._tenants

    def close(self) -> None:
        self._tenants = None
        self._stack.close()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Servers(tmp_path_factory)
    yield found
    found.close()


@pytest.fixture
def tenants(request: pytest.FixtureRequest, servers: Servers) -> Tenants:
    """By the name of an API server, which ends when a test names the other one: tests of one stand together."""
    assert request.param in (SHARED, OWN)
    return servers.named(request.param)


@contextmanager
def two_tenants(kubeconfig: Path, kube: Kube, folder: Path) -> Iterator[Tenants]:
    """With the operator, until they are not needed any more."""
    spaces = []
    for _ in range(2):
        name = f"t-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        kube.call("POST", "/api/v1/namespaces", body)
        spaces.append(Namespace(kube, name))
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
    operator = Operator(kubeconfig, folder, env).start()
    good.dataset()
    good.create("FineTuneJob", "run", fine_tune_job())
    wait_until(lambda: good.get("Job", "run-1"), "the other tenant's job runs")
    good.start_pods("run-1")
    yield Tenants(kube, operator, hostile, good)
    if operator.alive():
        operator.kill()


# Tests of one API server stand together: it starts once, and so does its operator, for 6 s of processor time and more.
on_shared = pytest.mark.parametrize("tenants", [SHARED], indirect=True)
on_own = pytest.mark.parametrize("tenants", [OWN], indirect=True)


def write(kube: Kube, kind: str, namespace: str, name: str, keys: list[str], value: str) -> None:
    """Create an object with the value at this place, as text."""
    text = nested(keys[1:], value)
    spec = text if keys[0] == "spec" else "{}"
    head = f'{{"apiVersion":"hone.dev/v1alpha1","kind":"{kind}","metadata":{{"name":"{name}"}}'
    create(kube, kind, namespace, name, f'{head},"spec":{spec}}}')
    if keys[0] == "status":
        at = path(kind, namespace, name, "status")
        written = send(kube, "PATCH", at, f'{{"status":{text}}}', "application/merge-patch+json")
        assert written.status_code == 200, written.text[:300]


def fill_places(tenants: Tenants, shape: str, every: int) -> None:
    """The value at every n-th place of spec and status, an object each; the longest right below spec and status."""
    found = [(kind, keys) for kind, keys in places() if shape != "longest" or len(keys) == 2][::every]
    reason, value = REASON[shape], SHAPES[shape]()
    before = {kind: tenants.skipped(kind, reason) for kind in dict(found)}
    written = Counter[str]()
    for number, (kind, keys) in enumerate(found):
        name = f"place-{number}-{uuid.uuid4().hex[:8]}"
        written[kind] += 1
        write(tenants.kube, kind, tenants.hostile.name, name, keys, value)
        if shape != "1000 deep":  # or the API server's memory is full
            count = before[kind] + written[kind]
            wait_until(
                lambda kind=kind, count=count: tenants.skipped(kind, reason) >= count, "the watch has brought it"
            )
            tenants.kube.call("DELETE", path(kind, tenants.hostile.name, name))
    for kind, count in written.items():
        wait_until(
            lambda kind=kind, count=count: tenants.skipped(kind, reason) >= before[kind] + count, "all were seen"
        )
    tenants.still_served()


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("every", [pytest.param(16, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)])
@pytest.mark.parametrize("shape", ["1000 deep", "longest"])
@on_shared
def test_no_field_at_any_place_ends_the_operator(tenants: Tenants, shape: str, every: int) -> None:
    """At the places of spec and status; the longest have 1.3 MB each."""
    fill_places(tenants, shape, every)


@pytest.mark.attack("objects at the API server")
@pytest.mark.long
@on_shared
def test_many_hostile_objects_stay_within_the_memory_limit(tenants: Tenants) -> None:
    """Objects of about 1 MiB, some of them beyond the bound, the others kept: in the watch, then at a start."""
    before, beyond = tenants.skipped("FineTuneJob", "TooLarge"), MANY["largest"]
    for shape, count in MANY.items():
        value = SHAPES[shape]()
        for _ in range(count):
            name = f"many-{uuid.uuid4().hex[:8]}"
            post(tenants.kube, "FineTuneJob", tenants.hostile.name, name, "spec.podOverrides", value)
    wait_until(lambda: tenants.skipped("FineTuneJob", "TooLarge") >= before + beyond, "the watch has brought them")
    tenants.still_served()
    assert tenants.operator.peak_memory() < MEMORY
    tenants.operator.kill()
    tenants.operator.start()
    wait_until(tenants.operator.ready, "the operator has looked at everything")
    tenants.still_served()
    assert tenants.skipped("FineTuneJob", "TooLarge") >= beyond
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
@on_shared
def test_a_deep_or_large_child_costs_its_owner_alone(tenants: Tenants, kind: str, shape: str) -> None:
    reason, name = CHILDREN[shape], f"x-{uuid.uuid4().hex[:8]}"
    before = tenants.skipped(kind, reason) if reason else 0.0
    body = child(kind, shape)
    tenants.hostile.create(kind, name, body["spec"], metadata=body["metadata"] | {"name": name})
    if reason:
        wait_until(lambda: tenants.skipped(kind, reason) > before, "the watch has brought it")
    tenants.still_served()


INPUTS = [
    *[(SHARED, kind.kind, "spec.podOverrides", "largest") for kind in KINDS],
    # Each costs the API server up to two seconds: `make test` has one of each kind.
    *[
        pytest.param(server, kind, field, shape, marks=() if field == "spec.podOverrides" else pytest.mark.long)
        for server, shape in ((SHARED, "1000 deep"), (OWN, DEEPEST))
        for kind, field in fields()
    ],
]


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize(("tenants", "kind", "field", "shape"), INPUTS, indirect=["tenants"])
def test_the_owner_of_a_hostile_object_is_notified(tenants: Tenants, kind: str, field: str, shape: str) -> None:
    name = f"x-{uuid.uuid4().hex[:8]}"
    post(tenants.kube, kind, tenants.hostile.name, name, field, SHAPES[shape]())
    (event,) = wait_until(lambda: tenants.events(kind, name), "an Event")
    assert (event["reason"], event["type"]) == ("Unreadable", "Warning")
    assert tenants.skipped(kind, REASON[shape]) > 0
    # As text: nobody of ours can parse it. The operator has written nothing on it.
    url = tenants.kube.server + path(kind, tenants.hostile.name, name)
    assert '"manager":"hone"' not in tenants.kube._session.get(url, timeout=600).text
    assert tenants.operator.alive()
    if shape == DEEPEST:  # each list would cost as much again
        tenants.kube.call("DELETE", path(kind, tenants.hostile.name, name))


@pytest.mark.attack("objects at the API server")
@on_own
def test_the_deepest_objects_do_not_end_an_operator_that_starts(tenants: Tenants) -> None:
    """One of each kind, in the first list."""
    names = {kind.kind: f"start-{uuid.uuid4().hex[:8]}" for kind in KINDS}
    for kind, name in names.items():
        write(tenants.kube, kind, tenants.hostile.name, name, ["spec", "podOverrides"], SHAPES[DEEPEST]())
    tenants.operator.kill()
    tenants.operator.start()
    wait_until(tenants.operator.ready, "the operator has looked at everything")
    for kind, name in names.items():
        assert tenants.skipped(kind, REASON[DEEPEST]) > 0
        tenants.kube.call("DELETE", path(kind, tenants.hostile.name, name))
    tenants.still_served()


@pytest.mark.attack("objects at the API server")
@pytest.mark.long
@on_own
def test_no_field_at_any_place_ends_the_operator_by_the_deepest_value(tenants: Tenants) -> None:
    """Each costs the API server up to nine seconds: it keeps who owns which of the levels."""
    fill_places(tenants, DEEPEST, 16)
