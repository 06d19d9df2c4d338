"""What plans of several kinds have in common: limits, rows, artifacts, models."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hone_api.base.meta import ApiModel, Digest, Percent
from hone_api.dataset.dataset import MAX_PODS
from hone_api.kinds.resolved import TaskDataSet
from hone_api.plan.plan_paths import PlanPath

CONTRACT: Literal[1] = 1


PLAN_SHA256_ENV = "HONE_PLAN_SHA256"
"""SHA-256 of the plan's file, hexadecimal, in a pod's environment; absent in a pod of an older operator."""


SECRET_VARIABLES_ENV = "HONE_SECRET_VARIABLES"
"""Names of the variables whose values are keys of Secrets, separated by commas, in a pod's environment."""


SECRETS_ENV = "HONE_SECRETS"
"""Names of the mounted Secrets by folder, as JSON, in a pod's environment, so that a message can name a missing one."""


def _checked_cidr(text: str) -> str:
    ipaddress.ip_network(text)
    return text


ServicePattern = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9*][-a-z0-9*.]*\.[-a-z0-9*]*[a-z0-9*]$", max_length=253)
]


ExportFolder = Annotated[str, StringConstraints(pattern=r"^[-_a-zA-Z0-9]{1,120}/[-_a-zA-Z0-9]{1,120}$")]
"""<run>/<attempt>: the folder below models/ to which an attempt exports."""


Cidr = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"), AfterValidator(_checked_cidr)]


class Destinations(ApiModel):
    """Which servers in private networks a pod may reach, as the platform team sets them."""

    allow_private_addresses: bool = Field(
        default=False,
        description="Whether sources and model endpoints may have private or loopback addresses, whatever their "
        "names. A Service of the job's own namespace may have a private address without this, but never a loopback or "
        "link-local address.",
    )
    services: list[ServicePattern] = Field(
        default_factory=list,
        description="Services of other namespaces that sources and endpoints may name, as name.namespace with * for "
        "any text, e.g. judge.models or *.models. Only responses of these Services are quoted in messages.",
    )
    cluster_cidrs: list[Cidr] = Field(
        default_factory=list,
        description="Address ranges of the cluster's Services and pods, e.g. 10.96.0.0/12: a Service that leads "
        "outside them is refused. Empty: any address that DNS gives for a Service of the named namespace.",
    )


class PodPlace(ApiModel):
    """Where a pod is, which decides what the name of a Service means."""

    cluster_domain: str = Field(default="cluster.local", description="Names below svc.<this> are Services.")
    namespace: str | None = Field(
        default=None,
        description="Namespace of the pod, whose Services may be named; none: Services of any namespace may.",
    )


class Limits(Destinations):
    """Bounds on what a source may be, as the platform team sets them."""

    max_source_bytes: int = Field(default=20 * 2**30, ge=1, description="Largest source, in bytes.")
    timeout_seconds: int = Field(
        default=3600,
        ge=1,
        description="How long a server of a source may be waited for, in seconds: for its listing, and for each file "
        "beyond the time that its bytes take at 4 MiB/s.",
    )


Release = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-+.][0-9A-Za-z-+.]+)?$", max_length=64)]


class PlanFields(ApiModel):
    """Fields that all plans share."""

    contract: Literal[1] = CONTRACT
    release: Release | None = Field(
        default=None,
        description="Release of Hone that wrote the plan. An older reader leaves out the fields that it does not know "
        "and names them in its log; without a release, or with its own or an older one, it refuses them.",
    )


class NetworkPlan(PodPlace, PlanFields):
    """A plan whose pod reads from servers or writes to them."""

    limits: Limits = Field(default_factory=Limits)


POD_INDEX_ENV = "JOB_COMPLETION_INDEX"
"""Which of a Job's pods this one is, from 0. Kubernetes sets it in each container."""
PODS: Any = Field(
    default=None,
    ge=2,
    le=MAX_PODS,
    description="Pods that share the work on rows, each with this plan; the first one finishes it. None: one does all.",
)


class DatasetInput(ApiModel):
    """A materialized split."""

    name: str
    split: str = "train"
    path: PlanPath = Field(description="JSON Lines file of normalised rows, of one of the method's formats.")
    digest: Digest = Field(
        description="Digest of the Dataset's content, where the folder of `path` has its name; elsewhere the SHA-256 "
        "of the file. 64 zeros: not checked."
    )
    share: Percent | None = Field(default=None, description="Share of the rows of an epoch; none: all, once.")


PublicKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n?$", max_length=1024
    ),
]
"""PEM of a key of the elliptic curves P-256, P-384 or P-521."""


TRUSTED: Any = Field(
    default=None,
    description="Public keys. One of them must have signed the folder's model.sig. None: the signature is not checked.",
)


class ArtifactInput(ApiModel):
    """A folder with a manifest."""

    path: PlanPath
    digest: Digest = Field(description="SHA-256 of manifest.json.")
    trusted: list[PublicKey] | None = TRUSTED


class TasksInput(ApiModel):
    """Data sets of lm-evaluation-harness tasks, staged."""

    path: PlanPath = Field(description="Folder with tasks.json.")
    digest: Digest = Field(description="SHA-256 of its manifest.json.")
    version: str = Field(description="Version of lm-evaluation-harness that staged them.")
    data_sets: list[TaskDataSet] = Field(description="Their repositories, as owner/name@commit.")


class ModelInput(ApiModel):
    """A ModelVersion: a folder of weights, and an adapter to merge into them where it has no merged form."""

    path: PlanPath = Field(description="Folder of config, tokenizer, safetensors.")
    digest: Digest | None = Field(default=None, description="SHA-256 of its manifest.json; none: not checked.")
    adapter: ArtifactInput | None = None
    trusted: list[PublicKey] | None = TRUSTED


BILL: Any = Field(
    default=None,
    description="CycloneDX bill of materials without the files; none: from an older operator, and none is written.",
)
