"""The files of a release: what is in them, and that others can check it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hone_api import RELEASE
from hone_dev.cluster import imageregistry
from hone_dev.release import command, manifests, supply
from hone_dev.tools import paths, tools
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run

pytestmark = pytest.mark.pure
IMAGES = {
    target: f"registry.example.internal/hone/{target}@sha256:{digit * 64}"
    for target, digit in (("operator", "1"), ("trainer", "2"))
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, and what is rendered from it; the kustomize base is not archived."""
    folder = tmp_path_factory.mktemp("files")
    chart = manifests.package(folder, IMAGES, folder)
    manifests.write(folder, chart, folder / "kustomize")
    return folder


def by_key(documents: list[dict[str, Any]]) -> dict[Any, Any]:
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


def read(file: Path) -> list[dict[str, Any]]:
    return list(yaml.load_all(file.read_text(), yaml.CSafeLoader))


def test_every_image_of_the_chart_is_named_by_digest_without_values(files: Path) -> None:
    text = (files / "install.yaml").read_text()
    named = set(re.findall(r"registry\.example\.internal/hone/[\w@:.-]+", text))
    assert named == set(IMAGES.values())
    about = run(tools.helm(), "show", "chart", files / f"hone-{RELEASE}.tgz")
    hub = yaml.safe_load(yaml.safe_load(about)["annotations"]["artifacthub.io/images"])
    assert {each["name"]: each["image"] for each in hub} == IMAGES


def test_deleting_install_yaml_keeps_what_helm_keeps(files: Path) -> None:
    kept, removed = read(files / "crds.yaml"), read(files / "install.yaml")
    assert {d["kind"] for d in kept} == {"CustomResourceDefinition", "Secret"}
    assert not {"CustomResourceDefinition", "Namespace", "Secret"} & {d["kind"] for d in removed}
    assert by_key([*kept, *removed]) == by_key(manifests.rendered(files / f"hone-{RELEASE}.tgz"))


@pytest.mark.parametrize("name", ["", *manifests.OVERLAYS])
def test_an_overlay_is_what_helm_makes_of_its_values(files: Path, name: str) -> None:
    folder = files / "kustomize" / (f"overlays/{name}" if name else "base")
    built = list(yaml.load_all(run(tools.kubectl(), "kustomize", folder), yaml.CSafeLoader))
    wanted = manifests.rendered(files / f"hone-{RELEASE}.tgz", manifests.OVERLAYS.get(name))
    assert by_key(built) == by_key(wanted)
    if name:
        assert by_key(built) != by_key(manifests.rendered(files / f"hone-{RELEASE}.tgz")), "it changes something"


def test_the_wheel_asks_for_what_the_extras_of_the_clone_ask_for() -> None:
    clone, wheel = (
        tomllib.loads((paths.SOURCE / f).read_text())["project"] for f in ("pyproject.toml", "cli/pyproject.toml")
    )
    assert wheel["name"] == "hone-cli", "the other name belongs to another project on PyPI"
    assert wheel["dependencies"] == sorted([*clone["dependencies"], *clone["optional-dependencies"]["cli"]])
    extras = ("data", "harness", "mcp", "sweep")
    assert wheel["optional-dependencies"] == {extra: clone["optional-dependencies"][extra] for extra in extras}
    packages = [
        tomllib.loads((paths.SOURCE / f).read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        for f in ("pyproject.toml", "cli/pyproject.toml")
    ]
    assert packages[1] == [p.removeprefix("cli/") for p in packages[0] if p.startswith("cli/")]
    assert wheel["scripts"] == {n: s for n, s in clone["scripts"].items() if s.startswith("hone_cli.")}


def test_the_notes_are_the_part_of_the_version() -> None:
    log = "# Changelog\n\n## Unreleased\n\nnew\n\n### Upgrade\n\n- do\n\n## 0.1.0 (2026-12-01)\n\nfirst\n"
    assert command.notes(log, "0.2.0") == "# Hone 0.2.0\n\nnew\n\n### Upgrade\n\n- do\n"
    assert command.notes(log, "0.1.0") == "# Hone 0.1.0\n\nfirst\n"
    with pytest.raises(HoneDevError, match=r"neither 0\.2\.0 nor Unreleased"):
        command.notes("# Changelog\n\n## 0.1.0\n\nfirst\n", "0.2.0")


STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u13
Description: library
 Version: 1 in a text is none

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 1:12.2.0~rc1-14
"""


def test_debian_packages_are_those_that_are_installed(tmp_path: Path) -> None:
    assert not list(supply.debian(tmp_path)), "no Debian"
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    found = list(supply.debian(tmp_path))
    assert [(each["name"], each["version"]) for each in found] == [
        ("libc6", "2.36-9+deb12u13"),
        ("libstdc++6", "1:12.2.0~rc1-14"),
    ]
    assert found[1]["purl"] == "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0~rc1-14?arch=amd64"


def test_two_lists_are_compared_by_kind_name_and_version() -> None:
    ours = {"components": [{"purl": "pkg:pypi/Ruamel.Yaml@1.0"}, {"purl": "pkg:deb/debian/g%2B%2B@1?arch=amd64"}]}
    theirs = ["pkg:pypi/ruamel-yaml@1.0", "pkg:deb/debian/g%2B%2B@1?arch=amd64&distro=debian-12"]
    rest = [{"name": "a file without a package"}]
    assert not list(supply.differences("one", ours, {"components": [*({"purl": url} for url in theirs), *rest]}))
    for other in ("pkg:pypi/ruamel-yaml@1.1", "pkg:pypi/ruamel@1.0", "pkg:npm/ruamel-yaml@1.0"):
        found = supply.differences("one", ours, {"components": [{"purl": other}, {"purl": theirs[1]}]})
        assert [str(each) for each in found] == [
            "syft not-installed one pkg:pypi/ruamel-yaml@1.0",
            f"syft not-listed one {other}",
        ]


def pem(key: ec.EllipticCurvePrivateKey, folder: Path) -> tuple[Path, Path]:
    """Files with the private and the public key."""
    private, public = folder / "key.pem", folder / "key.pub"
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(*kinds))
    public.write_bytes(key.public_key().public_bytes(kinds[0], serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


class Made:
    """A whole release but its images, signed, and the chart in a registry."""

    def __init__(self, folder: Path, public: Path, chart: Path) -> None:
        self.folder, self.public, self.chart = folder, public, chart

    def verified(self) -> str:
        """What the program of the package model-signing says."""
        argv = ("verify", "key", "--signature", self.folder / supply.SIGNATURE, "--public_key", self.public)
        return run(Path(sys.executable).with_name("model_signing"), *argv, self.folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    work = tmp_path_factory.mktemp("made")
    private, public = pem(ec.generate_private_key(ec.SECP256R1()), work)
    with imageregistry.serve(work / "registry") as registry:
        # That what is installed below the wheel is what syft finds, or making the release fails.
        release = command.make(work / "release", registry.host, IMAGES, private, ("hone-cli",))
        run(tools.helm(), "pull", release.chart, "--version", RELEASE, "--plain-http", "--destination", work)
        yield Made(release.folder, public, work / f"hone-{RELEASE}.tgz")


@pytest.mark.long
class TestWhole:
    """Takes a minute: it builds the documentation and a wheel."""

    def test_the_chart_of_the_registry_is_the_file(self, made: Made) -> None:
        assert made.chart.read_bytes() == (made.folder / made.chart.name).read_bytes()

    def test_digests_and_provenance_name_every_file(self, made: Made) -> None:
        run("sha256sum", "--check", "--strict", supply.SUMS, cwd=made.folder)
        every = {f.relative_to(made.folder).as_posix() for f in made.folder.rglob("*") if f.is_file()}
        listed = {line.split("  ")[1] for line in (made.folder / supply.SUMS).read_text().splitlines()}
        assert listed == every - {supply.SUMS, supply.SIGNATURE}
        statement = json.loads((made.folder / supply.PROVENANCE).read_text())
        images = {image.partition("@")[0] for image in IMAGES.values()}
        assert {s["name"] for s in statement["subject"]} == (listed - {supply.PROVENANCE}) | images

    def test_the_signature_is_over_all_of_it(self, made: Made) -> None:
        assert "succeeded" in made.verified()
        for file in ("install.yaml", "sbom/operator.cdx.json", supply.SUMS):
            before = (made.folder / file).read_bytes()
            (made.folder / file).write_bytes(before + b"#")
            with pytest.raises(HoneDevError, match="failed"):
                made.verified()
            (made.folder / file).write_bytes(before)
        (made.folder / "more").touch()
        with pytest.raises(HoneDevError, match="failed"):
            made.verified()
        (made.folder / "more").unlink()

    @pytest.mark.parametrize("part", supply.LOCKS)
    def test_a_list_of_parts_is_valid_and_has_what_is_locked(self, made: Made, part: str) -> None:
        text = (made.folder / "sbom" / f"{part}.cdx.json").read_text()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        locks = "".join((paths.SOURCE / "requirements" / name).read_text() for name in supply.LOCKS[part])
        locked = set(re.findall(r"^([\w.-]+)==([\w.!+]+)", locks, re.M))
        listed = {(c["name"], c["version"]): c for c in json.loads(text)["components"]}
        assert listed.keys() == locked
        assert all(c["externalReferences"][0]["hashes"] for c in listed.values())

    def test_the_wheel_has_the_command_and_checks_rows(self, made: Made, tmp_path: Path) -> None:
        (wheel,) = made.folder.glob("*.whl")
        uv = Path(sys.executable).with_name("uv")
        run(uv, "pip", "install", "--quiet", "--no-deps", "--target", tmp_path / "site", wheel)
        assert not list(tmp_path.rglob("hone_operator"))
        rows = [{"prompt": f"question {number}", "completion": f"answer {number}"} for number in range(100)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        names = "hone", "hone_cli", "hone_trainer"
        where = [sys.executable, "-c", f"import {', '.join(names)}; print(*(m.__file__ for m in ({', '.join(names)})))"]
        places = subprocess.run(where, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout.split()
        assert all(place.startswith(str(tmp_path)) for place in places)
        check = [tmp_path / "site/bin/hone", "check", "rows.jsonl"]
        done = subprocess.run(check, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
