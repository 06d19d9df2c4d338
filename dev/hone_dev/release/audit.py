"""What tools of others say of this repository, and what stays as it is with a reason: `make audit`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from fnmatch import fnmatchcase
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path
from typing import Any

import yaml

from hone_dev.cluster import binaries
from hone_dev.release import kyverno, manifests
from hone_dev.tools import paths, pypi, shell
from hone_dev.tools.console import HoneDevError, note, step

REASONS = Path(__file__).with_name("audit.yaml")
_PACKAGES = ("crds", "operator", "trainer", "cli")
_LICENCES = {
    "agpl": re.compile("AGPL|Affero"),
    "gpl": re.compile("(?<!L)GPL|(?<!Lesser )General Public"),
    "proprietary": re.compile("Proprietary"),
}


@dataclass(frozen=True, order=True)
class Finding:
    """What a tool says, and of what: a file, an object or a package."""

    tool: str
    rule: str
    where: str

    def __str__(self) -> str:
        return f"{self.tool} {self.rule} {self.where}"


def run() -> None:
    """Ask every tool.

    Raises:
        HoneDevError: it found something that audit.yaml does not explain, or that has an explanation without need.
    """
    with tempfile.TemporaryDirectory() as folder:
        chart = Path(folder, "install.yaml")
        digest = "registry.example.internal/hone/{}@sha256:" + "0" * 64
        archive = manifests.package(Path(folder), {t: digest.format(t) for t in ("operator", "trainer")}, Path(folder))
        objects = manifests.rendered(archive)
        for values in manifests.OVERLAYS.values():
            objects += [each for each in manifests.rendered(archive, values) if each not in objects]
        chart.write_text(yaml.safe_dump_all(objects))
        found: list[Finding] = []
        for name, ask in TOOLS.items():
            with step(name):
                said = list(ask(chart))
            note(f"{name:12} {len(said)} findings")
            found += said
    # Lines about pods alone are needed by the test that asks of every pod of the operator, those of syft by a release.
    check(
        found, [each for each in reasons() if each["tool"] != "syft" and not each["where"].startswith(("Pod.", "Job/"))]
    )


def reasons() -> list[dict[str, str]]:
    """What stays as it is."""
    read: list[dict[str, str]] = yaml.safe_load(REASONS.read_text())
    return read


def check(found: Sequence[Finding], explained: Sequence[dict[str, str]]) -> None:
    """Raise HoneDevError unless each finding has its line, and each line a finding."""
    used = {i for each in found for i, line in enumerate(explained) if _explains(line, each)}
    open_ = sorted({each for each in found if not any(_explains(line, each) for line in explained)})
    wrong = [str(each) for each in open_]
    wrong += [f"no finding needs: {line['tool']} {line['rule']}" for i, line in enumerate(explained) if i not in used]
    if wrong:
        raise HoneDevError("\n".join(wrong), f"correct it, or write the reason in {REASONS.relative_to(paths.SOURCE)}")


def _explains(line: dict[str, str], finding: Finding) -> bool:
    same = (line["tool"], line["rule"]) == (finding.tool, finding.rule)
    return same and fnmatchcase(finding.where, line["where"])


def _said(command: Sequence[str | Path]) -> Any:
    """The JSON that a tool prints, which ends with 1 when it has found something."""
    done = subprocess.run([str(each) for each in command], cwd=paths.SOURCE, capture_output=True, text=True)
    if not done.stdout.strip():
        raise HoneDevError(f"{command[0]} said nothing: {done.stderr[-600:]}")
    return json.loads(done.stdout)


def hadolint(_: Path) -> Iterator[Finding]:
    """Of the Dockerfile."""
    for each in _said([*pypi.command("hadolint"), "--format", "json", "Dockerfile"]):
        yield Finding("hadolint", each["code"], each["file"])


def workflows(_: Path) -> Iterator[Finding]:
    """actionlint and zizmor, of the workflows."""
    for each in _said([binaries.program("actionlint"), "-format", "{{json .}}"]):
        yield Finding("actionlint", each["kind"], each["filepath"])
    for each in _said([*pypi.command("zizmor"), "--offline", "--format", "json-v1", ".github"]):
        yield Finding("zizmor", each["ident"], str(each["locations"][0]["symbolic"]["key"]))


def kube_score(manifest: Path) -> Iterator[Finding]:
    """Of Kubernetes objects."""
    for thing in _said([binaries.program("kube-score"), "score", "--output-format", "json", manifest]):
        for each in thing["checks"]:
            if not each["skipped"] and each["grade"] < 10:
                where = f"{thing['type_meta']['kind']}/{thing['object_meta']['name']}"
                yield Finding("kube-score", each["check"]["id"], where)


def checkov(manifest: Path) -> Iterator[Finding]:
    """Of Kubernetes objects."""
    options = ("--framework", "kubernetes", "--skip-download", "--compact", "--output", "json")
    for each in _said([*pypi.command("checkov"), "--file", manifest, *options])["results"]["failed_checks"]:
        yield Finding("checkov", each["check_id"], each["resource"])


def kubeconform(manifest: Path) -> Iterator[Finding]:
    """Of Kubernetes objects, by the schemas of the oldest Kubernetes that the chart permits and of the newest known."""
    with tempfile.TemporaryDirectory() as folder:
        for version in schemas(Path(folder)):
            place = f"{folder}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
            options = ("-strict", "-output", "json", "-kubernetes-version", version, "-schema-location", place)
            for each in _said([binaries.program("kubeconform"), *options, manifest])["resources"]:
                rule = "no-schema" if each["status"] == "statusError" else version
                yield Finding("kubeconform", rule, f"{each['kind']}/{each['name']} {each['msg']}")


def schemas(folder: Path) -> list[str]:
    """Write the schemas that kubernetes-validate has of two versions, so that others can read them; return these."""
    import kubernetes_validate

    source = Path(kubernetes_validate.__file__).with_name("kubernetes-json-schema")
    known = (re.findall(r"\d+", each.name) for each in source.glob("v*-local-strict"))
    oldest = re.search(r'kubeVersion: ">=([\d.]+)-', (manifests.CHART / "Chart.yaml").read_text())
    assert oldest, "the chart says which Kubernetes it needs"
    versions = [oldest[1], ".".join(max(known, key=lambda numbers: [int(each) for each in numbers]))]
    for version in versions:
        (folder / version).mkdir()
        for file in (source / f"v{version}-local-strict").glob("*.json"):
            schema = json.loads(file.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
            schema.pop("$id", None)
            (folder / version / file.name).write_text(json.dumps(schema))
    return versions


def trivy(manifest: Path) -> Iterator[Finding]:
    """Of Kubernetes objects, and of the Dockerfile."""
    for kind, file in (("kubernetes", manifest), ("dockerfile", paths.SOURCE / "Dockerfile")):
        for each in _said([binaries.trivy(), kind, file]):
            yield Finding("trivy", each["rule"], each["message"])


def pod_security(manifest: Path) -> Iterator[Finding]:
    """Kyverno's policies, of pods."""
    for policy, where in kyverno.violations(manifest):
        yield Finding("kyverno", policy, where)


def bandit(_: Path) -> Iterator[Finding]:
    """Of the packages that users install, from severity medium."""
    for each in _said([*pypi.command("bandit"), "-q", "-ll", "--format", "json", "--recursive", *_PACKAGES])["results"]:
        yield Finding("bandit", each["test_id"], each["filename"])


def licences(_: Path) -> Iterator[Finding]:
    """Of all packages of the environment, which are those of the lock files that `locks` does not read."""
    for package in distributions():
        yield from (Finding("licences", rule, package.name) for rule in _rules(licence(package.metadata)))


def _rules(text: str) -> list[str]:
    return [rule for rule, pattern in _LICENCES.items() if pattern.search(text)] if text else ["unknown"]


def locks(_: Path) -> Iterator[Finding]:
    """Licences of packages that a lock file of its own has, and the environment has not: read from the index."""
    here = {(_plain(each.name), each.version) for each in distributions()}
    for name in ("vllm.txt", "mlflow.txt", "gguf.txt"):
        uv = Path(sys.executable).with_name("uv")
        options = ("--quiet", "--no-deps", "--no-header", "--format", "pylock.toml")
        text = shell.run(uv, "pip", "compile", *options, paths.SOURCE / "requirements" / name)
        for package in tomllib.loads(text)["packages"]:
            if (_plain(package["name"]), package["version"]) not in here:
                wheels = package.get("wheels")
                said = licence(_metadata(wheels[0]["url"])) if wheels else ""
                yield from (Finding("locks", rule, package["name"]) for rule in _rules(said))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(wheel: str) -> Message:
    """Those of a wheel on the index; a few hundred kB of it are read."""
    import fsspec

    with fsspec.open(wheel, block_size=2**16) as file, zipfile.ZipFile(file) as archive:
        # Not those of a package that the wheel carries, as setuptools does.
        name = next(each for each in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", each))
        return message_from_bytes(archive.read(name))


def licence(metadata: Message | PackageMetadata) -> str:
    """What the metadata of a package say; empty: nothing."""
    classifiers = [each for each in metadata.get_all("Classifier") or () if each.startswith("License :: ")]
    named = [each.rpartition(" :: ")[2] for each in classifiers if each != "License :: OSI Approved"]
    fields = (*(metadata.get_all("License-Expression") or ()), "; ".join(named), *(metadata.get_all("License") or ()))
    return next((text for field in fields if (text := field.partition("\n")[0])), "")


TOOLS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "hadolint": hadolint,
    "workflows": workflows,
    "kube-score": kube_score,
    "checkov": checkov,
    "kubeconform": kubeconform,
    "trivy": trivy,
    "kyverno": pod_security,
    "bandit": bandit,
    "licences": licences,
    "locks": locks,
}
