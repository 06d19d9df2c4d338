"""The Job that re-hashes every file of a ModelVersion against its manifest."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.plan import ArtifactInput, VerifyPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount, Work

ARTIFACTS = PurePosixPath("/artifacts")
CPU, MEMORY = "500m", "1Gi"


def claims(spec: ModelVersionSpec) -> list[str]:
    """Volume claims that hold the artifacts, each once.

    Raises:
        names.InvalidReferenceError: an artifact is not on a volume of the namespace.
    """
    names_of_claims = []
    for artifact in spec.artifacts:
        scheme, claim, _ = names.split_uri(artifact.uri)
        if scheme != "pvc":
            raise names.InvalidReferenceError(f"{artifact.uri}: only artifacts on pvc:// can be verified")
        if claim not in names_of_claims:
            names_of_claims.append(claim)
    return names_of_claims


def verify(owner: Mapping[str, Any], spec: ModelVersionSpec, number: int, platform: Platform) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`.

    Raises:
        names.InvalidReferenceError: see `claims`.
    """
    folder = {claim: ARTIFACTS / str(n) for n, claim in enumerate(claims(spec))}
    inputs = []
    for artifact in spec.artifacts:
        _, claim, path = names.split_uri(artifact.uri)
        inputs.append(ArtifactInput(path=str(folder[claim] / path), digest=artifact.digest))
    meta = owner["metadata"]
    work = Work(
        component="verify",
        verb="verify",
        plan=VerifyPlan(name=meta["name"], artifacts=inputs),
        cpu=CPU,
        memory=MEMORY,
        mounts=tuple(Mount.claim(f"artifacts-{path.name}", path, c) for c, path in folder.items()),
    )
    labels = names.labels("verify", owner, **{names.STAGING_ATTEMPT: str(number)})
    return job_with_plan(owner, JobName(names.verify(meta["name"], meta["uid"], number), labels), work, platform)
