"""`hone mirror`: all that manifests and the rendered chart name is copied, under the names that are asked for."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from support.cluster import quick_yaml
from support.cluster.chart_documents import template
from support.cluster.desired_objects import CASES, PLATFORM
from typer.testing import CliRunner

from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_cli.__main__ import application
from hone_cli.errors import CommandError
from hone_cli.runs import mirror
from hone_cli.runs.mirror import needs, script
from hone_operator.settings.pods import TrainerSettings

pytestmark = pytest.mark.pure
REGISTRY = "reg.example:5000/mirror"
VLLM = {"trainer": {"vllmImage": {"repository": "registry.example/hone/trainer-vllm", "digest": "sha256:" + "a" * 64}}}


def test_images_are_copied_to_where_the_chart_looks_for_them() -> None:
    lines = script(needs(quick_yaml.documents(template(json.dumps(VLLM)))), REGISTRY, PurePosixPath("/hub"))
    copied = {words[3] for line in lines if (words := shlex.split(line))[0] == "oras"}
    asked = needs(quick_yaml.documents(template(json.dumps({**VLLM, "global": {"imageRegistry": REGISTRY}})))).images
    assert copied == {image.partition("@")[0] for image in asked}
    assert f"{REGISTRY}/vllm/vllm-openai:v0.31.0" in copied, "which `hone serve` prints"
    assert len(copied) == 4


def images(node: Any) -> Iterator[str]:
    """Those that pods run and mount."""
    for pod in [node] if isinstance(node, dict) else ():
        for container in (*pod.get("containers", ()), *pod.get("initContainers", ())):
            yield container["image"]
        yield from (volume["image"]["reference"] for volume in pod.get("volumes") or () if "image" in volume)
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from images(part)


def test_every_image_that_a_pod_runs_is_listed() -> None:
    """Pods of the chart with all that adds some, and of every kind of work of the operator."""
    volume = {"name": "tools", "image": {"reference": "registry.example/tools:1"}}
    sidecar = {"name": "more", "image": "registry.example/more:1"}
    more = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more"}, "spec": {"initContainers": [sidecar]}}
    values = VLLM | {"extraVolumes": [volume], "extraObjects": [more], "helmTest": {"namespace": "team-a"}}
    documents = list(quick_yaml.documents(template(json.dumps(values))))
    listed = set(needs(documents).images)
    (settings,) = (d["data"]["config.yaml"] for d in documents if "config.yaml" in (d.get("data") or {}))
    trainer = yaml.safe_load(settings)["trainer"]
    of_operator = {name for name in TrainerSettings.model_fields if name == "image" or name.endswith("_image")}
    assert of_operator == {"image", "vllm_image", "serving_image"}
    chosen = {trainer[each] for each in ("image", "vllmImage", "servingImage")}
    assert listed == set(images(documents)) | chosen
    assert {"registry.example/tools:1", "registry.example/more:1"} < listed
    made = [image for case in CASES.values() for image in images(case())]
    (base,) = (f"oci://{image}" for image in made if image != PLATFORM.trainer.image)
    assert needs([{"apiVersion": "hone.dev/v1alpha1", "spec": {"model": {"uri": base}}}]).others == [base], "named"


def addresses(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Fields of a definition that hold an address."""
    if path[-1:] == ("uri",):
        yield path
    for name, part in node.get("properties", {}).items():
        yield from addresses(part, (*path, name))
    for part in (node.get("items"), node.get("additionalProperties")):
        if isinstance(part, dict):
            yield from addresses(part, (*path, "[]"))


FIELDS = [
    (kind.kind, path)
    for kind in KINDS
    for path in addresses(
        crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"], ("spec",)
    )
]


@pytest.mark.parametrize(
    ("kind", "path"), FIELDS, ids=lambda value: value if isinstance(value, str) else ".".join(value)
)
def test_every_address_of_the_hub_in_a_manifest(kind: str, path: tuple[str, ...]) -> None:
    value: Any = "hf://acme/tiny@v1"
    for part in reversed(path):
        value = [value] if part == "[]" else {part: value}
    found = needs([{"apiVersion": "hone.dev/v1alpha1", "kind": kind, **value}])
    if {"deliveries", "push"} & set(path):
        assert found.models == found.datasets == []
    elif kind == "Dataset" and path == ("spec", "source", "uri"):
        assert (found.models, found.datasets) == ([], ["hf://acme/tiny@v1"])
    else:
        assert (found.models, found.datasets) == (["hf://acme/tiny@v1"], [])


def test_what_is_not_copied_is_named() -> None:
    source = {"spec": {"source": {"uri": "https://files.example/rows.jsonl"}}}
    found = needs([{"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", **source}])
    assert list(script(found, REGISTRY, PurePosixPath("/hub")))[-1] == (
        "# not copied, make it available at an address inside: https://files.example/rows.jsonl"
    )


def of_uri(uri: str, kind: str = "Dataset") -> Iterator[str]:
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "spec": {"source": {"uri": uri}}}
    return script(needs([body]), REGISTRY, PurePosixPath("/hub"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\v", "\x85", "\u2028"])
@pytest.mark.parametrize("begin", ["https://x/rows", "hf://a/b@v1"])
def test_a_shell_runs_no_text_of_a_manifest(tmp_path: Path, begin: str, end: str) -> None:
    lines = [line for line in of_uri(f"{begin}{end}touch {tmp_path}/made") if not line.startswith(("hf", "rm"))]
    subprocess.run(["sh", "-e"], input="\n".join(lines), text=True, check=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["Dataset", "ModelVersion"])
@pytest.mark.parametrize(
    "name", ["a/b@/etc", "a/b@v/../..", "a/b@v//w", "a/b@v/", "a/..", "../b", "a/b@.", "-x/b", "a/-b", "a/b@-f"]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(kind: str, name: str) -> None:
    with pytest.raises(CommandError, match="is no name on the hub"):
        list(of_uri(f"hf://{name}", kind))


def test_files_without_an_object_are_refused() -> None:
    result = CliRunner().invoke(application(["mirror"]), ["mirror", "-", "--registry", "r", "--hub", "h"], input="")
    assert str(result.exception) == "the files have no object"


def test_tasks_without_what_knows_their_data_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mirror, "find_spec", lambda _: None)
    spec = {"evaluation": {"harness": {"tasks": ["arc_easy", "mmlu"]}}}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "spec": spec}
    (tmp_path / "job.yaml").write_text(json.dumps(body))
    arguments = ["mirror", str(tmp_path / "job.yaml"), "--registry", "r", "--hub", "h"]
    error = CliRunner().invoke(application(["mirror"]), arguments).exception
    assert str(error).startswith("evaluation.harness names arc_easy, mmlu, and only lm-eval knows their data sets: ")
