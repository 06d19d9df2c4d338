"""Verify: hash every file of every artifact again, and compare with its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from hone_api.contract.report import VerifyResult
from hone_api.plan import VerifyPlan
from hone_api.words.failures import FailureCode
from hone_trainer.errors import ConfigError, StoreError
from hone_trainer.reporting.task import TaskProgress
from hone_trainer.store import manifest


def run(plan: VerifyPlan) -> VerifyResult:
    """Verify the plan's artifacts.

    Raises:
        StoreError: ManifestMismatch, with every artifact that differs.
    """
    files = size = 0
    problems = []
    with TaskProgress(f"verify {plan.name}") as progress:
        for artifact in plan.artifacts:
            try:
                verified = manifest.verify(artifact.path, artifact.digest)
            except StoreError as error:
                problems.append(error.message)
                continue
            files += verified.files
            size += verified.size_bytes
            progress.add_bytes(verified.size_bytes)
            progress.log(f"{artifact.path}: {verified.files} files match")
    if problems:
        raise StoreError(FailureCode.MANIFEST_MISMATCH, "; ".join(problems))
    return VerifyResult(files=files, size_bytes=size)


def of_folders(texts: Sequence[str]) -> VerifyPlan:
    """The plan for folders that are written as PATH=DIGEST.

    Raises:
        ConfigError: one is not written so.
    """
    artifacts = []
    for text in texts:
        path, _, digest = text.rpartition("=")
        artifacts.append({"path": str(Path(path).absolute()) if path else "", "digest": digest})
    try:
        return VerifyPlan.model_validate({"name": "folders", "artifacts": artifacts})
    except ValidationError:
        words = f"--folder {' '.join(texts)}: each is PATH=sha256: and 64 hexadecimal digits"
        raise ConfigError(words, FailureCode.INVALID_ARGUMENT) from None
