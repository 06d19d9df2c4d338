"""A real API server that serves our definitions, and manifests that are just valid."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.cluster.kube import session

from hone_api.base.meta import ApiModel
from hone_api.generate import KINDS
from hone_api.schema.schema import crd

GUARD_SECONDS = 60.0
"""A hang guard, not a limit."""
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/hone.dev/v1alpha1"
RAW = re.compile(r'"raw:([^"]*)"')
"""A string `raw:<text>` in a manifest is sent as `<text>`: for numbers that Python's JSON cannot write."""

MINIMAL: dict[str, dict[str, Any]] = {
    "FineTuneJob": {
        "model": {"uri": "hf://owner/model"},
        "datasets": [{"name": "rows"}],
        "output": {"modelName": "tutor"},
    },
    "Dataset": {"source": {"uri": "pvc://data/rows.jsonl"}},
    "ModelVersion": {
        "modelName": "tutor",
        "version": 1,
        "artifacts": [
            {
                "format": "Adapter",
                "uri": "pvc://hone-store/models/x/adapter",
                "digest": f"sha256:{'0' * 64}",
                "sizeBytes": 1,
            }
        ],
        "lineage": {
            "baseModel": {"uri": "hf://owner/model"},
            "datasets": [],
            "job": {"name": "tutor", "uid": "x"},
            "method": "SFT",
            "hyperParameters": {"training": {"seed": 42}},
            "seed": 42,
        },
    },
    "Model": {"aliases": [{"name": "production", "version": 1}]},
}


@dataclass(frozen=True)
class Answer:
    """What the API server said to one request."""

    code: int
    body: Any

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field, message) of everything that is wrong."""
        causes = (self.body.get("details") or {}).get("causes") or []
        return [(c.get("field", ""), c.get("message", "")) for c in causes]


class Api:
    """The API server as its administrator sees it, over one connection."""

    def __init__(self, kubeconfig: Path, folder: Path):
        self.kubeconfig = kubeconfig
        self._server, self._session = session(kubeconfig, folder)

    def call(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Answer:
        text = None if body is None else RAW.sub(r"\1", json.dumps(body)).encode()
        headers = {"Content-Type": content_type}
        answer = self._session.request(verb, self._server + path, data=text, headers=headers, timeout=GUARD_SECONDS)
        if not answer.headers.get("Content-Type", "").startswith("application/json"):  # a path not served yet
            return Answer(answer.status_code, {"message": answer.text})
        return Answer(answer.status_code, answer.json())

    def create(self, manifest: Any, dry_run: bool = True) -> Answer:
        """As `kubectl apply --validate=strict` does; nothing is kept with `dry_run`."""
        return self.call("POST", self.path(manifest["kind"], dry_run=dry_run), manifest)

    def merge(self, kind: str, name: str, patch: Any, sub: str = "", dry_run: bool = True) -> Answer:
        """JSON merge patch: null removes a field."""
        path = self.path(kind, name, sub, dry_run)
        return self.call("PATCH", path, patch, "application/merge-patch+json")

    @staticmethod
    def path(kind: str, name: str = "", sub: str = "", dry_run: bool = False) -> str:
        plural = next(k.plural for k in KINDS if k.kind == kind)
        path = "/".join(p for p in (f"{GROUP}/namespaces/default/{plural}", name, sub) if p)
        return f"{path}?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")


def _until(check: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + GUARD_SECONDS
    while not check():
        assert time.monotonic() < end, f"did not come about: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def api(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """The API server with our definitions, which stay: to compile their rules takes it a second or more."""
    api = Api(apiserver, tmp_path_factory.mktemp("api"))
    for definition in map(crd, KINDS):
        answer = api.call("POST", DEFINITIONS, definition)
        assert answer.code in (201, 409), answer.message
    for kind in KINDS:
        _until(lambda kind=kind: api.call("GET", api.path(kind.kind)).code == 200, f"{kind.plural} are served")
    return api


@pytest.fixture(scope="module")
def older_definition(api: Api, manifest: Callable[..., dict[str, Any]]) -> Callable[[], AbstractContextManager[None]]:
    """While it is entered, FineTuneJobs are served by a definition without the rules checked only at creation."""
    definition = crd(next(k for k in KINDS if k.kind == "FineTuneJob"))
    path = f"{DEFINITIONS}/{definition['metadata']['name']}"
    asks = manifest("FineTuneJob", {"spec.output.version": 3})

    def put(body: dict[str, Any], taken: bool) -> None:
        version = api.call("GET", path).body["metadata"]["resourceVersion"]
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        answer = api.call("PUT", path, body)
        assert answer.code == 200, answer.message
        _until(lambda: (api.create(asks).code == 201) == taken, "the definition is served")

    @contextmanager
    def older() -> Iterator[None]:
        before = copy.deepcopy(definition)
        spec = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        rules = spec["x-kubernetes-validations"]
        spec["x-kubernetes-validations"] = [rule for rule in rules if "optionalOldSelf" not in rule]
        put(before, taken=True)
        try:
            yield
        finally:
            put(definition, taken=False)

    return older


@pytest.fixture(scope="session")
def manifest() -> Callable[..., dict[str, Any]]:
    """Makes the smallest valid manifest of a kind, with values put at paths such as `spec.datasets[].name`."""

    def make(kind: str, changes: dict[str, Any] | None = None, name: str = "tutor") -> dict[str, Any]:
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": name}}
        body["spec"] = copy.deepcopy(MINIMAL[kind])
        for path, value in (changes or {}).items():
            _put(body, path, value)
        return body

    return make


def _put(node: dict[str, Any], path: str, value: Any) -> None:
    """Set `value` at `path`; `[]` is the first item of a list, `{}` the entry `key` of a map; makes what is missing."""
    head, _, rest = path.partition(".")
    name = head.rstrip("[]{}")
    if head.endswith(("[]", "{}")):
        first: Any = [{}] if head.endswith("[]") else {"key": {}}
        entries = node[name] = node.get(name) or first
        key: Any = 0 if head.endswith("[]") else "key"
        if rest:
            _put(entries[key], rest, value)
        else:
            entries[key] = value
    elif rest:
        _put(node.setdefault(name, {}), rest, value)
    else:
        node[name] = value


@dataclass(frozen=True)
class SchemaField:
    """One field of a schema."""

    path: str
    schema: dict[str, Any]


@pytest.fixture(scope="session")
def fields() -> Callable[[str, str], list[SchemaField]]:
    """All fields of the `spec` or `status` of a kind, items of lists and values of maps included."""

    def collect(kind: str, part: str) -> list[SchemaField]:
        definition = crd(next(k for k in KINDS if k.kind == kind))
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        return list(_walk(part, schema["properties"][part]))

    return collect


def _walk(path: str, schema: dict[str, Any]) -> Iterator[SchemaField]:
    yield SchemaField(path, schema)
    for name, child in schema.get("properties", {}).items():
        yield from _walk(f"{path}.{name}", child)
    if "items" in schema:
        yield from _walk(f"{path}[]", schema["items"])
    if "additionalProperties" in schema:
        yield from _walk(f"{path}{{}}", schema["additionalProperties"])


@pytest.fixture(scope="session")
def specs() -> dict[str, type[ApiModel]]:
    """The model of each kind's spec."""
    return {k.kind: k.spec for k in KINDS}
