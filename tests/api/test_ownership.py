"""Lists that several managers write: each owns its own entries, and apply then apply --server-side do not conflict."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cluster import quick_yaml

from hone_api.base.meta import LIST_KEYS, LIST_TYPE
from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_dev.tools.tools import kubectl

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ROOT / "docs" / "outside.md"
RECORDS = ("spec.artifacts", "spec.lineage", "spec.evaluation")
"""Fields of a ModelVersion that the operator writes whole, with every default."""
SPECS = {kind.kind: crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind in KINDS}


def lists(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and schema of every list below a schema."""
    if node.get("type") == "array":
        yield path, node
        yield from lists(node["items"], f"{path}[]")
    for name, child in node.get("properties", {}).items():
        yield from lists(child, f"{path}.{name}" if path else name)


def defaults(node: dict[str, Any]) -> Iterator[str]:
    """Names of the fields in `node` that the API server fills in."""
    for name, child in node.get("properties", {}).items():
        if "default" in child:
            yield name
        yield from defaults(child)


ALL = [(kind, path, schema) for kind, root in SPECS.items() for path, schema in lists(root)]


@pytest.mark.pure
def test_every_list_says_who_owns_its_entries() -> None:
    """Kubernetes API conventions: a list without a type is atomic, which cannot be changed later."""
    assert f"API conventions | {len(ALL)} | {len(ALL)} |" in OUTSIDE.read_text()
    assert [(kind, path) for kind, path, schema in ALL if schema.get(LIST_TYPE) not in ("map", "set", "atomic")] == []
    for kind, path, schema in ALL:
        for key in schema.get(LIST_KEYS, ()):
            items = schema["items"]
            required = key in items.get("required", ())
            assert required or "default" in items["properties"][key], f"{kind} {path}: the API server refuses key {key}"


@pytest.mark.pure
def test_nothing_is_filled_in_in_a_list_that_belongs_to_one_manager() -> None:
    """The list would then differ from what was applied, so that the next `apply --server-side` conflicts."""
    filled = {
        f"{kind} {path}": names
        for kind, path, schema in ALL
        if schema[LIST_TYPE] == "atomic" and path.startswith("spec.") and not path.startswith(RECORDS)
        if (names := list(defaults(schema["items"])))
    }
    assert filled == {}


def apply(kubeconfig: Path, manifest: dict[str, Any], *more: str) -> str:
    """Empty if it was applied; otherwise what kubectl says."""
    command = [str(kubectl()), "--kubeconfig", str(kubeconfig), "apply", *more, "-f", "-"]
    done = subprocess.run(command, input=json.dumps(manifest), capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr


def examples() -> list[dict[str, Any]]:
    documents = [d for file in sorted(ROOT.glob("examples/*/*.yaml")) for d in quick_yaml.documents(file.read_text())]
    return [document for document in documents if document["kind"] in SPECS]


@pytest.mark.apiserver
def test_every_example_can_be_applied_by_kubectl_and_then_by_the_server(api: Any) -> None:
    conflicts = {}
    for number, manifest in enumerate(examples()):
        named = {**manifest, "metadata": {**manifest["metadata"], "name": f"{manifest['metadata']['name']}-{number}"}}
        assert apply(api.kubeconfig, named) == ""
        if why := apply(api.kubeconfig, named, "--server-side"):
            conflicts[named["metadata"]["name"]] = why
        api.call("DELETE", api.path(manifest["kind"], named["metadata"]["name"]))
    assert conflicts == {}
    assert f"--server-side` | {len(examples())} | {len(examples())} |" in OUTSIDE.read_text()


@pytest.mark.apiserver
def test_two_teams_own_a_delivery_each(api: Any, manifest: Any) -> None:
    model = manifest("Model", name="shared")
    model["spec"] = {}
    for team in "ab":
        model["spec"]["deliveries"] = [{"uri": f"s3://bucket-{team}/x", "secretName": "hone-bucket"}]
        assert apply(api.kubeconfig, model, "--server-side", f"--field-manager=team-{team}") == ""
    found = api.call("GET", api.path("Model", "shared")).body["spec"]["deliveries"]
    api.call("DELETE", api.path("Model", "shared"))
    assert [delivery["uri"] for delivery in found] == ["s3://bucket-a/x", "s3://bucket-b/x"]


@pytest.mark.apiserver
def test_the_last_field_of_a_spec_can_be_taken_out(api: Any, manifest: Any) -> None:
    """As `git revert` of a promotion does, by server-side apply."""
    model = manifest("Model", name="promoted")
    for spec in ({"aliases": [{"name": "champion", "version": 1}]}, {}):
        model["spec"] = spec
        assert apply(api.kubeconfig, model, "--server-side", "--field-manager=flux") == ""
    assert api.call("GET", api.path("Model", "promoted")).body["spec"] == {}
    api.call("DELETE", api.path("Model", "promoted"))


@pytest.mark.apiserver
def test_a_block_whose_last_field_goes_must_go_too(api: Any, manifest: Any) -> None:
    """By server-side apply an empty one becomes null, which its type is not."""
    dataset = manifest("Dataset", name="blocks")
    said = []
    for block in ({"refresh": {"every": "24h"}}, {"refresh": {}}, {}):
        applied = {**dataset, "spec": {**dataset["spec"], **block}}
        said.append(apply(api.kubeconfig, applied, "--server-side", "--field-manager=flux"))
    api.call("DELETE", api.path("Dataset", "blocks"))
    assert 'spec.refresh in body must be of type object: "null"' in said[1]
    assert (said[0], said[2]) == ("", "")
