"""Verify: hash every file of every artifact again, and compare with its manifest."""

from __future__ import annotations

from hone_api.failures import FailureCode
from hone_api.plan import VerifyPlan
from hone_api.report import VerifyResult
from hone_trainer.errors import StoreError
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
