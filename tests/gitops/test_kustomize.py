"""deploy/kustomize/hone.yaml: new names reach every field that names another object."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api import API_VERSION
from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_dev.tools import paths
from hone_dev.tools.tools import kubectl

pytestmark = pytest.mark.pure
FILE = paths.SOURCE / "deploy" / "kustomize" / "hone.yaml"
OUTSIDE = paths.SOURCE / "docs" / "outside.md"
NAMED = re.compile(
    r"^(?:Name of an? )?(?P<kind>Dataset|FineTuneJob|Secret|ConfigMap|PersistentVolumeClaim)"
    r" (?:in|of|with key) (?:this|the|API_KEY)"
)
"""How the description of a field begins that names an object of its namespace."""
BY_THE_OPERATOR = "ModelVersion"
"""Nobody writes its names."""


def strings(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Path and description of every text below a schema; the step into a list is `[]`."""
    if node.get("type") == "array":
        yield from strings(node["items"], (*path, "[]"))
    for name, child in node.get("properties", {}).items():
        yield from strings(child, (*path, name))
    if node.get("type") == "string":
        yield path, node.get("description", "")


def references() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Kind, path and kind of the named object, for every field of a manifest that names one."""
    for kind in KINDS:
        schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for path, description in strings(schema, ("spec",)):
            if kind.kind != BY_THE_OPERATOR and (found := NAMED.match(description)):
                yield kind.kind, path, found["kind"]


def written(path: tuple[str, ...], value: Any) -> Any:
    """The spec with this one field."""
    for step in reversed(path):
        value = [value] if step == "[]" else {step: value}
    return value


def read(node: Any, path: tuple[str, ...]) -> str:
    for step in path:
        node = node[0] if step == "[]" else node[step]
    return str(node)


def built(folder: Path, **kustomization: Any) -> list[dict[str, Any]]:
    (folder / "hone.yaml").write_text(FILE.read_text())
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"configurations": ["hone.yaml"], **kustomization}))
    done = subprocess.run([str(kubectl()), "kustomize", str(folder)], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


def test_every_field_that_names_an_object_gets_its_new_name(tmp_path: Path) -> None:
    found = list(references())
    objects = [
        {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": f"from-{n}"}, **written(path, "named")}
        for n, (kind, path, _) in enumerate(found)
    ]
    for kind in ("Dataset", "FineTuneJob"):
        objects.append({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "named"}, "spec": {}})
    objects.append({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "named"}})
    (tmp_path / "all.yaml").write_text("\n---\n".join(map(json.dumps, objects)))
    generated = [{"name": "named", "literals": ["key=value"]}]
    documents = built(
        tmp_path, resources=["all.yaml"], nameSuffix="-2", configMapGenerator=generated, secretGenerator=generated
    )
    names = {d["kind"]: d["metadata"]["name"] for d in documents if d["metadata"]["name"].startswith("named-2")}
    got = {d["metadata"]["name"]: d for d in documents}
    missed = [
        f"{kind} {'/'.join(path)}"
        for n, (kind, path, of) in enumerate(found)
        if read(got[f"from-{n}-2"], path) != names[of]
    ]
    assert missed == []
    assert re.fullmatch(r"named-2-\w{10}", names["Secret"])
    assert (
        f"[that names another object](guides/gitops.md#kustomize) | {len(found)} | {len(found)} |"
        in OUTSIDE.read_text()
    )


def test_the_file_has_no_field_that_the_api_has_not() -> None:
    listed = {
        (spec["kind"], spec["path"], rule["kind"])
        for rule in yaml.safe_load(FILE.read_text())["nameReference"]
        for spec in rule["fieldSpecs"]
    }
    assert listed == {
        (kind, "/".join(step for step in path if step != "[]"), named) for kind, path, named in references()
    }


def test_the_kustomization_of_the_guide_renames_everything(tmp_path: Path) -> None:
    """As the guide says."""
    guide = (paths.SOURCE / "docs" / "guides" / "gitops.md").read_text()
    kustomization = next(b for b in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "configurations:" in b)
    (tmp_path / "train.jsonl").write_text("{}\n")
    dataset = {"apiVersion": API_VERSION, "kind": "Dataset", "metadata": {"name": "rows"}}
    dataset["spec"] = {"source": {"uri": "configmap://rows/train.jsonl"}}
    job = {"apiVersion": API_VERSION, "kind": "FineTuneJob", "metadata": {"name": "tutor"}}
    job["spec"] = {"datasets": [{"name": "rows"}], "output": {"modelName": "tutor"}}
    (tmp_path / "dataset.yaml").write_text(json.dumps(dataset))
    (tmp_path / "finetunejob.yaml").write_text(json.dumps(job))
    got = {d["kind"]: d for d in built(tmp_path, **yaml.safe_load(kustomization))}
    assert got["Dataset"]["spec"]["source"]["uri"] == "configmap://rows-lr2/train.jsonl"
    assert got["ConfigMap"]["metadata"]["name"] == "rows-lr2"
    assert got["FineTuneJob"]["metadata"]["name"] == "tutor-lr2"
    assert got["FineTuneJob"]["spec"] == {"datasets": [{"name": "rows-lr2"}], "output": {"modelName": "tutor"}}
