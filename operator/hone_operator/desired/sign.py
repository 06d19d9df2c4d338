"""The Job that says where the artifacts of a ModelVersion come from, and signs them.

It alone mounts the key, and runs no code of a user: it hashes files, and parses none but the manifest.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from hone_api.modelversion import ModelVersionSpec
from hone_api.plan import ArtifactInput, SignPlan
from hone_operator.desired import names
from hone_operator.desired.hub import secret_mounts
from hone_operator.desired.job import JobName, job_with_plan
from hone_operator.desired.mlbom import bom
from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Mount, Work
from hone_operator.desired.provenance import predicate

COMPONENT = "sign"
ARTIFACTS, KEY = PurePosixPath("/artifacts"), PurePosixPath("/secrets/signing")
CPU, MEMORY = "500m", "1Gi"


def sign(owner: Mapping[str, Any], spec: ModelVersionSpec, number: int, platform: Platform) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`. The pod sees the folders of the artifacts and the key, nothing else."""
    meta, signing = owner["metadata"], platform.signing
    mounts, key_path = secret_mounts(signing.secret or None, "signing-key", KEY)
    inputs = []
    for place, artifact in enumerate(spec.artifacts):
        _, claim, path = names.split_uri(artifact.uri)
        folder = ARTIFACTS / str(place)
        mount = Mount.claim(f"artifacts-{names.digest(claim)}", folder, claim, read_only=key_path is None)
        mounts.append(replace(mount, sub_path=path or None))
        inputs.append(ArtifactInput(path=str(folder), digest=artifact.digest, trusted=list(signing.public_keys)))
    plan = SignPlan(
        name=meta["name"],
        artifacts=inputs,
        key_path=key_path,
        pkcs11_module=signing.pkcs11_module or None,
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
        env=signing.pkcs11_env,
        image=signing.image or None,
    )
    labels = names.labels(COMPONENT, owner, **{names.TRY: str(number)})
    return job_with_plan(owner, JobName(names.sign(meta["name"], meta["uid"], number), labels), work, platform)
