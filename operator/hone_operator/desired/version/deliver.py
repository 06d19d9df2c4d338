"""The Job that copies one form of a ModelVersion to a registry, a bucket or another volume."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from hone_api.base import licences
from hone_api.base.schemes import claim_of
from hone_api.blocks.delivery import Delivery
from hone_api.kinds.modelversion import Artifact, ModelVersionSpec
from hone_api.plan import ArtifactInput, DeliverPlan
from hone_operator.desired.core import names
from hone_operator.desired.core.hub import hub_environment, secret_mounts
from hone_operator.desired.core.job import JobName, job_with_plan
from hone_operator.desired.core.modelref import STANDALONE
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount, Work
from hone_operator.desired.core.reports import progress_environment, progress_token
from hone_operator.desired.version.mlbom import bom, model_licences
from hone_operator.desired.version.provenance import predicate

COMPONENT = names.DELIVER
ARTIFACT, TARGET = PurePosixPath("/artifact"), PurePosixPath("/target")
CPU, MEMORY = "500m", "1Gi"


class UndeliverableError(ValueError):
    """A delivery that can never begin; the message says why."""


@dataclass(frozen=True)
class Parcel:
    """One entry of spec.deliveries, and the artifact that it asks for."""

    target: Delivery
    artifact: Artifact

    @classmethod
    def of(cls, spec: ModelVersionSpec, target: Delivery, platform: Platform) -> "Parcel":
        """Raises UndeliverableError: the version has no such form, or the target is the store itself."""
        forms = {artifact.format: artifact for artifact in spec.artifacts}
        wanted = [target.form] if target.form else [*STANDALONE, "Adapter", *forms]
        form = next((form for form in wanted if form in forms), None)
        if form is None:
            have = ", ".join(forms)
            raise UndeliverableError(f"{target.uri}: the version has no form {target.form}, it has {have}: change form")
        if claim_of(target.uri) == platform.store.claim_name:
            raise UndeliverableError(
                f"{target.uri}: {platform.store.claim_name} is the store, which has the model already: "
                "name another claim"
            )
        names.split_uri(target.uri)
        return cls(target, forms[form])

    @property
    def key(self) -> str:
        """Equal for equal work."""
        return names.digest("deliver", self.target.to_json(), self.artifact.digest, length=16)


def deliver(
    owner: Mapping[str, Any],
    spec: ModelVersionSpec,
    parcel: Parcel,
    number: int,
    platform: Platform,
    signed: bool = False,
) -> list[dict[str, Any]]:
    """ConfigMap and Job of attempt `number`. The pod sees the artifact's folder alone, read-only.

    Args:
        signed: whether the artifact has a signature; if so, it is compared first, and delivered as well.
    """
    meta, target = owner["metadata"], parcel.target
    _, claim, path = names.split_uri(parcel.artifact.uri)
    secrets, secret_path = secret_mounts(target.secret_name)
    mounts = [replace(Mount.claim("artifact", ARTIFACT, claim), sub_path=path or None), *secrets]
    target_path = None
    if volume := claim_of(target.uri):
        mounts.append(Mount.claim("target", TARGET, volume, read_only=False))
        target_path = str(TARGET / names.split_uri(target.uri)[2])
    plan = DeliverPlan(
        name=meta["name"],
        version=spec.version,
        artifact=ArtifactInput(
            path=str(ARTIFACT),
            digest=parcel.artifact.digest,
            trusted=platform.signing.public_keys if signed else None,
        ),
        target=target,
        target_path=target_path,
        secret_path=secret_path,
        labels=_labels(spec, parcel.artifact),
        created=spec.lineage.finished_at,
        **_description(meta, spec, target),
        **platform.network(meta["namespace"]),
    )
    name = names.deliver(meta["name"], meta["uid"], parcel.key, number)
    env = progress_environment(platform, meta["namespace"], "deliveries", name)
    env |= hub_environment(platform) if target.uri.startswith("hf://") else {}
    mounts += progress_token(platform)
    work = Work(component=COMPONENT, verb="deliver", plan=plan, cpu=CPU, memory=MEMORY, mounts=tuple(mounts), env=env)
    labels = names.labels(COMPONENT, owner, **{names.STAGING_ATTEMPT: str(number), names.CONTENT: parcel.key})
    return job_with_plan(owner, JobName(name, labels, {names.DELIVERY: target.uri}), work, platform)


def _description(meta: Mapping[str, Any], spec: ModelVersionSpec, target: Delivery) -> dict[str, Any]:
    """What is attached to an image. Elsewhere, both are among the files of a signed model."""
    if not target.uri.startswith("oci://"):
        return {}
    return {"provenance": predicate(meta["name"], meta["namespace"], spec), "bom": bom(meta["name"], spec)}


def _labels(spec: ModelVersionSpec, artifact: Artifact) -> dict[str, str]:
    """Annotations of an image. They are the same in each attempt, so the image's digest is."""
    base = spec.lineage.base_model
    labels = {
        "org.opencontainers.image.title": spec.model_name,
        "org.opencontainers.image.version": str(spec.version),
        "dev.hone.form": artifact.format,
        "dev.hone.manifest": artifact.digest,
        "dev.hone.base": base.uri,
    }
    named = model_licences(spec.lineage)
    identifiers = [identifier for name in named if (identifier := licences.spdx(name))]
    if named and len(identifiers) == len(named):  # the annotation is an SPDX expression
        labels["org.opencontainers.image.licenses"] = " AND ".join(dict.fromkeys(identifiers))
    return labels | ({"dev.hone.base.commit": base.commit} if base.commit else {})
