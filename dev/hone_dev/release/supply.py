"""What lets others check a release: lists of its parts, where it comes from, digests, a signature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hone_dev.tools import paths, pypi
from hone_operator.desired.version.provenance import BUILDER as HONE

PROVENANCE, SUMS, SIGNATURE = "provenance.json", "SHA256SUMS", "release.sig"
LOCKS = {
    "operator": ("operator.txt",),
    "trainer": ("trainer.txt", "deepspeed.txt", "gguf.txt"),
    "hone-cli": ("cli.txt",),
}
"""Lock files of what each part of a release installs."""
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
