"""The Job that says where the artifacts of a ModelVersion come from, and signs them.

It alone mounts the key. It runs no code of a user: it hashes files, and parses none but the manifest.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.plan import ArtifactInput, SignPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount, Work
from hone_operator.desired.version.mlbom import bom
from hone_operator.desired.version.provenance import predicate

COMPONENT = "sign"
ARTIFACTS, KEY = PurePosixPath("/artifacts"), PurePosixPath("/secrets/signing")
CPU, MEMORY = "500m", "1Gi"


def sign(owner: Mapping[str, Any], spec: ModelVersionSpec, number: int, platform: Platform) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`. The pod sees the folders of the artifacts and what it signs with."""
    meta, signing = owner["metadata"], platform.signing
    mounts, key_path = secret_mounts(signing.secret_name or None, "signing-key", KEY)
    inputs = []
    for place, artifact in enumerate(spec.artifacts):
        _, claim, path = names.split_uri(artifact.uri)
        folder = ARTIFACTS / str(place)
        mount = Mount.claim(f"artifacts-{names.digest(claim)}", folder, claim, not key_path)
        mounts.append(replace(mount, sub_path=path or None))
        inputs.append(ArtifactInput(path=str(folder), digest=artifact.digest, trusted=signing.public_keys))
    plan = SignPlan(
        name=meta["name"],
        artifacts=inputs,
        key_path=key_path,
        provenance=predicate(meta["name"], meta["namespace"], spec),
        bom=bom(meta["name"], spec),
    )
    work = Work(
        component=COMPONENT,
        verb="sign",
        plan=plan,
        cpu=CPU,
        memory=MEMORY,
        mounts=tuple(mounts),
    )
    labels = names.labels(COMPONENT, owner, **{names.STAGING_ATTEMPT: str(number)})
    return job_with_plan(owner, JobName(names.sign(meta["name"], meta["uid"], number), labels), work, platform)
