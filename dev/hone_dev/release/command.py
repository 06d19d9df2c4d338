"""Makes a release: files in a folder; images and the chart in a registry."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from hone_api import RELEASE
from hone_dev.cluster import imageregistry
from hone_dev.cluster import images as image
from hone_dev.generate import mermaid, site
from hone_dev.release import manifests, supply
from hone_dev.tools import paths, tools
from hone_dev.tools.console import HoneDevError, note, step
from hone_dev.tools.shell import run

_LOOPBACK = ("127.0.0.1:", "localhost:")


@dataclass(frozen=True)
class Release:
    """What was made.

    Attributes:
        version: that of the sources, or another for the test of an upgrade.
        folder: all files.
        registry: host and port, and a path if it has one.
    """

    version: str
    folder: Path
    registry: str

    @property
    def chart(self) -> str:
        """The chart as Helm names it."""
        return f"oci://{self.registry}/charts/hone"


def run_all(registry: str, key: Path | None) -> None:
    """Make the release of these sources in dist/VERSION; without a registry, with one that ends with the command."""
    folder = paths.SOURCE / "dist" / RELEASE
    if registry and _git("status", "--porcelain"):
        raise HoneDevError(
            "the working tree has changes: a release is of a commit", "commit them, or leave out REGISTRY"
        )
    with nullcontext(registry) if registry else _rehearsed() as host:
        pushed = image.push(f"{host}/hone", insecure=_is_loopback(host))
        for target, (reference, size) in pushed.items():
            code = f"{size['code'] / 1e6:.1f} MB after a change of code"
            note(f"{target:10} {size['all'] / 1e6:7.0f} MB to pull, {code}  {reference}")
        images = {target: reference for target, (reference, _) in pushed.items()}
        made = make(folder, host, images, key, supply.LOCKS)
    note(f"{made.version} is in {made.folder}" + ("" if registry else "; nothing was published"))


@contextmanager
def _rehearsed() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=paths.cache()) as folder, imageregistry.serve(Path(folder)) as server:
        yield server.host


def make(
    folder: Path, registry: str, images: Mapping[str, str], key: Path | None = None, looked_into: Iterable[str] = ()
) -> Release:
    """Write all files of a release and push its chart.

    Args:
        images: `repository@sha256:…` by target; they are in their registry already.
        key: private key that signs the folder; None: it has no signature.
        looked_into: parts whose list is compared with what is installed. An image must have been built for it.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Release(RELEASE, folder, registry)
    with step("the chart, and what is rendered from it"):
        write_chart(made, images)
    with step("the wheel of the command line"):
        write_wheel(folder)
    with step("the documentation"):
        _archive(site.build(paths.SOURCE, mermaid.script()), folder / f"hone-docs-{RELEASE}.tar.gz")
    with step("lists of parts"):
        supply.write_boms(folder / "sbom")
        for part in looked_into:
            supply.complete(folder / "sbom", part)
    (folder / "release-notes.md").write_text(notes((paths.SOURCE / "CHANGELOG.md").read_text(), RELEASE))
    (folder / "images.txt").write_text("".join(f"{reference}\n" for reference in images.values()))
    parameters = {"version": RELEASE, "registry": registry, "debian": image.debian_mirror() or "the mirrors of the day"}
    supply.seal(folder, images, _git("rev-parse", "HEAD"), parameters, key)
    with step(f"pushing the chart to {made.chart}"):
        push_chart(made)
    return made


def write_chart(made: Release, images: Mapping[str, str]) -> None:
    """The chart, crds.yaml, install.yaml and the kustomize base."""
    with tempfile.TemporaryDirectory() as work:
        chart = manifests.package(made.folder, images, Path(work), made.version)
        manifests.write(made.folder, chart, Path(work, "kustomize"))
        _archive(Path(work, "kustomize"), made.folder / f"hone-kustomize-{made.version}.tar.gz")


def write_wheel(folder: Path) -> None:
    """The wheel hone-cli, and what it was locked with."""
    uv = Path(sys.executable).with_name("uv")
    run(uv, "build", "--quiet", "--wheel", "--no-create-gitignore", "--out-dir", folder, paths.SOURCE / "cli")
    shutil.copy(paths.SOURCE / "requirements/cli.txt", folder / "hone-cli-requirements.txt")


def push_chart(made: Release) -> None:
    """Push the charts, so that `helm install` finds them."""
    plain = ("--plain-http",) if _is_loopback(made.registry) else ()
    for archive in made.folder.glob("*.tgz"):
        run(tools.helm(), "push", archive, made.chart.rpartition("/")[0], *plain)


def notes(changelog: str, version: str) -> str:
    """The part of the changelog about a version; for one that has none yet, what is unreleased.

    Raises:
        HoneDevError: there is neither.
    """
    parts = {part.partition("\n")[0].split(" ")[0]: part for part in changelog.split("\n## ")[1:]}
    found = parts.get(version) or parts.get("Unreleased")
    if not found:
        raise HoneDevError(f"CHANGELOG.md has neither {version} nor Unreleased", "see RELEASING.md")
    return f"# Hone {version}\n{found.partition(chr(10))[2].rstrip()}\n"


def _archive(folder: Path, file: Path) -> None:
    """The same bytes for the same files: no times, no owners."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        for each in sorted(each for each in folder.rglob("*") if each.is_file()):
            member = tarfile.TarInfo(each.relative_to(folder).as_posix())
            content = each.read_bytes()
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    file.write_bytes(gzip.compress(tar.getvalue(), mtime=0))


def _is_loopback(registry: str) -> bool:
    return registry.startswith(_LOOPBACK)


def _git(*argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=paths.SOURCE, capture_output=True, text=True, check=True).stdout.strip()
