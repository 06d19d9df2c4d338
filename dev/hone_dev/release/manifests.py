"""The chart of a release, which names its images by digest, and what is rendered from it for people without Helm."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hone_api import RELEASE
from hone_dev.tools import paths, tools
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run

CHART = paths.SOURCE / "charts" / "hone"
DEFINITIONS = paths.SOURCE / "charts" / "hone-crds"
NAMESPACE = "hone-system"
OVERLAYS: dict[str, dict[str, Any]] = {
    "kueue": {"kueue": {"enabled": True}},
    "monitoring": {
        "metrics": {"serviceMonitor": {"enabled": True}, "renderMode": "alwaysRender"},
        "prometheusRule": {"enabled": True},
    },
    "openshift": {"podSecurity": {"fixedUser": False}},
}
"""Values of the chart, for each overlay of the kustomize base."""
Document = dict[str, Any]


def package(folder: Path, images: Mapping[str, str], work: Path, version: str = RELEASE) -> Path:
    """The chart, and that of the definitions alone, as archives in `folder`; returns the first.

    Args:
        images: `repository@sha256:…` by target. The chart's defaults name them, so that it is installed without values.
        work: a folder for a copy of the chart.
        version: another one than the sources have, for the test of an upgrade.
    """
    chart = work / "hone"
    shutil.copytree(CHART, chart)
    text = (chart / "values.yaml").read_text()
    for target, image in images.items():
        text = _by_digest(text, target, image)
    (chart / "values.yaml").write_text(text)
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    named = [{"name": target, "image": image} for target, image in images.items()]
    about["annotations"]["artifacthub.io/images"] = yaml.safe_dump(named, sort_keys=False)
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about, sort_keys=False))
    numbers = ("--version", version, "--app-version", version)
    for each in (chart, DEFINITIONS):
        run(tools.helm(), "package", each, "--destination", folder, *numbers)
    shutil.rmtree(chart)
    return folder / f"hone-{version}.tgz"


def _by_digest(values: str, target: str, image: str) -> str:
    repository, digest = image.split("@")
    block = re.compile(rf"(?m)^( *)(repository: )hone/{target}$(.*?)^\1(digest: )''$", re.S)
    text, count = block.subn(rf"\1\g<2>{repository}\3\1\g<4>{digest}", values)
    if count != 1:
        raise HoneDevError(f"values.yaml of the chart names the image hone/{target} {count} times, not once")
    return text


def rendered(chart: Path, values: Mapping[str, Any] | None = None) -> list[Document]:
    """What Helm would install, without its tests."""
    argv = ("template", "hone", chart, "--namespace", NAMESPACE, "--skip-tests", "--values", "-")
    text = run(tools.helm(), *argv, stdin=yaml.safe_dump(values or {}))
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def write(folder: Path, chart: Path, kustomize: Path) -> None:
    """crds.yaml and install.yaml, and a base of these with its overlays in the folder `kustomize`.

    What `helm uninstall` leaves is in crds.yaml: whoever deletes install.yaml keeps the models.
    """
    documents, base = rendered(chart), kustomize / "base"
    _write(base / "crds.yaml", [each for each in documents if _is_kept(each)])
    _write(base / "install.yaml", [each for each in documents if not _is_kept(each)])
    _write(base / "kustomization.yaml", [{"resources": ["crds.yaml", "install.yaml"]}])
    for name in ("crds.yaml", "install.yaml"):
        shutil.copy(base / name, folder / name)
    for name, values in OVERLAYS.items():
        _overlay(kustomize / "overlays" / name, documents, rendered(chart, values))


def _overlay(folder: Path, base: list[Document], wanted: list[Document]) -> None:
    """The difference: objects that are added, and the parts in which others differ."""
    before, after = ({_key(each): each for each in documents} for documents in (base, wanted))
    if gone := before.keys() - after.keys():
        raise HoneDevError(f"the overlay {folder.name} would take objects away, which patches cannot say: {gone}")
    kustomization: Document = {"resources": ["../../base"]}
    if added := [each for key, each in after.items() if key not in before]:
        _write(folder / "added.yaml", added)
        kustomization["resources"].append("added.yaml")
    changed = [_patch(each, after[key]) for key, each in before.items() if after[key] != each]
    _write(folder / "kustomization.yaml", [kustomization | ({"patches": changed} if changed else {})])


def _patch(before: Document, after: Document) -> Document:
    """Lists shrink as well, hence a JSON patch, which replaces what a merge would add to."""
    if before.keys() != after.keys():
        raise HoneDevError(
            f"{before['kind']} {before['metadata']['name']} has other fields: {before.keys() ^ after.keys()}"
        )
    parts = [{"op": "replace", "path": f"/{key}", "value": after[key]} for key in before if after[key] != before[key]]
    target = {"kind": before["kind"], "name": before["metadata"]["name"]}
    return {"target": target, "patch": json.dumps(parts)}


def _key(document: Document) -> tuple[str, ...]:
    metadata = document["metadata"]
    return document["apiVersion"], document["kind"], metadata.get("namespace", ""), metadata["name"]


def _is_kept(document: Document) -> bool:
    return (document["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep"


def _write(file: Path, documents: list[Document]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.dump_all(documents, Dumper=yaml.CSafeDumper, sort_keys=False))
