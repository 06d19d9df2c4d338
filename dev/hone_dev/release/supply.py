"""What lets others check a release: lists of its parts, where it comes from, digests, a signature."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from hone_dev.cluster import binaries, images
from hone_dev.release import audit
from hone_dev.tools import paths, pypi
from hone_dev.tools.shell import run
from hone_operator.desired.version.provenance import BUILDER as HONE

PROVENANCE, SUMS, SIGNATURE = "provenance.json", "SHA256SUMS", "release.sig"
LOCKS = {
    "operator": ("operator.txt",),
    "trainer": ("trainer.txt", "deepspeed.txt", "gguf.txt"),
    "hone-cli": ("cli.txt",),
}
"""Lock files of what each part of a release installs."""
_READ = (
    *("--override-default-catalogers", "python-installed-package-cataloger,dpkg-db-cataloger"),
    *("--exclude", "./**/setuptools/_vendor/**"),
)
"""What syft reads: what pip and Debian have installed, without the copies of other packages that setuptools carries."""
_PREDICATE = "https://slsa.dev/provenance/v1"


def write_boms(folder: Path) -> None:
    """A CycloneDX file of the Python packages in each image and below the wheel, by version and hash."""
    folder.mkdir(exist_ok=True)
    for part, files in LOCKS.items():
        locked = "".join((paths.SOURCE / "requirements" / name).read_text() for name in files)
        about = ("--pyproject", paths.SOURCE / "cli" / "pyproject.toml") if part == "hone-cli" else ()
        # Its own validation takes a minute; tests validate what it writes.
        argv = ("--no-validate", "--output-reproducible", *about, "--output-file", folder / f"{part}.cdx.json", "-")
        pypi.run("cyclonedx-py", "requirements", *argv, stdin=locked)


def complete(folder: Path, part: str) -> None:
    """Add the Debian packages of an image to its list, and compare the list with what syft finds in what is installed.

    Raises:
        HoneDevError: they differ, and audit.yaml does not say why.
    """
    file = folder / f"{part}.cdx.json"
    with installed(part) as root:
        bom = json.loads(file.read_text())
        bom["components"] += debian(root)
        file.write_text(json.dumps(bom, indent=2) + "\n")
        syft = (binaries.program("syft"), "scan", f"dir:{root}", "--quiet", "--output", "cyclonedx-json", *_READ)
        compare(part, bom, json.loads(run(*syft, env={"SYFT_CHECK_FOR_APP_UPDATE": "false"})))


def compare(part: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise HoneDevError unless two lists of a part are equal, except for what audit.yaml explains."""
    explained = [line for line in audit.reasons() if line["tool"] == "syft" and line["where"].startswith(f"{part} ")]
    audit.check(list(differences(part, ours, theirs)), explained)


@contextmanager
def installed(part: str) -> Iterator[Path]:
    """The root folder of an image, which was built; for the wheel, a folder with what it was locked with."""
    if part in images.TARGETS:
        with images.mounted(part) as root:
            yield root
    else:
        uv = Path(sys.executable).with_name("uv")
        with tempfile.TemporaryDirectory() as folder:
            for lock in LOCKS[part]:
                argv = ("--quiet", "--no-deps", "--require-hashes", "--target", folder)
                run(uv, "pip", "install", *argv, "-r", paths.SOURCE / "requirements" / lock)
            yield Path(folder)


def debian(root: Path) -> Iterator[dict[str, str]]:
    """The Debian packages below a root folder, as CycloneDX has them."""
    status = root / "var/lib/dpkg/status"
    for text in status.read_text().split("\n\n") if status.exists() else ():
        one = dict(re.findall(r"^(Package|Status|Version|Architecture): (.*)$", text, re.M))
        if one.get("Status", "").endswith(" installed"):
            name, version = one["Package"], one["Version"]
            purl = f"pkg:deb/debian/{quote(name)}@{quote(version, safe='~.')}?arch={one['Architecture']}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def differences(part: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[audit.Finding]:
    """What one of two lists has, by kind, name and version."""
    one, two = _packages(ours), _packages(theirs)
    yield from (audit.Finding("syft", "not-installed", f"{part} {each}") for each in sorted(one - two))
    yield from (audit.Finding("syft", "not-listed", f"{part} {each}") for each in sorted(two - one))


def _packages(bom: Mapping[str, Any]) -> set[str]:
    """Package URLs without what only says more of the same package; names of Python packages as PyPI compares them."""
    urls = {unquote(each["purl"].partition("?")[0]) for each in bom["components"] if "purl" in each}
    pypi_name = re.compile(r"(?<=^pkg:pypi/)[^@]+")
    return {pypi_name.sub(lambda name: re.sub(r"[-_.]+", "-", name[0]).lower(), url) for url in urls}


def provenance(folder: Path, images: Mapping[str, str], commit: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """An in-toto statement with SLSA provenance 1.0 of every file and image."""
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in _digests(folder)]
    for image in images.values():
        repository, _, digest = image.partition("@sha256:")
        subjects.append({"name": repository, "digest": {"sha256": digest}})
    locks = sorted((paths.SOURCE / "requirements").glob("*.txt"))
    read = [{"uri": f"requirements/{each.name}", "digest": {"sha256": _sha256(each)}} for each in locks]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"{HONE.rpartition('/')[0]}/make-release/v1",
                "externalParameters": dict(parameters),
                "resolvedDependencies": [{"uri": "git", "digest": {"gitCommit": commit}}, *read],
            },
            "runDetails": {"builder": {"id": f"{HONE.rpartition('/')[0]}/make-release"}},
        },
    }


def seal(folder: Path, images: Mapping[str, str], commit: str, parameters: Mapping[str, str], key: Path | None) -> None:
    """Write provenance and digests of what is in the folder; with a key, the signature over all of it."""
    statement = provenance(folder, images, commit, parameters)
    (folder / PROVENANCE).write_text(json.dumps(statement, indent=2) + "\n")
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in _digests(folder)))
    if key:
        from model_signing import hashing, signing

        config = signing.Config().use_elliptic_key_signer(private_key=key)
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[]))
        config.sign(folder, folder / SIGNATURE)


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        yield file.relative_to(folder).as_posix(), _sha256(file)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
