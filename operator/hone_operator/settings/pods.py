"""Settings of the pods that the operator starts: images, resources, limits, defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from hone_api.base.meta import Quantity
from hone_api.base.quantity import value
from hone_api.blocks.placement import EXTENDED_RESOURCE, LabelValue, Toleration
from hone_api.dataset.dataset import MAX_PODS
from hone_operator.settings.section import ClassName, EnvName, Seconds, SecretName, Section, free_keys, free_variables


class PodsSettings(Section):
    """Defaults of the pods of one kind of work."""

    labels: dict[str, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    node_selector: dict[str, LabelValue] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    service_account_name: ClassName = ""
    """Empty: the default one of the namespace."""

    _keys = field_validator("labels", "annotations")(free_keys)


class RdmaSettings(Section):
    """A network of the platform for NCCL."""

    resources: dict[Annotated[str, StringConstraints(pattern=EXTENDED_RESOURCE, max_length=128)], Quantity] = Field(
        default_factory=dict
    )
    """Devices for each pod; empty: there is no such network."""
    annotations: dict[str, str] = Field(default_factory=dict)
    env: dict[EnvName, str] = Field(default_factory=dict)

    _annotations = field_validator("annotations")(free_keys)
    _env = field_validator("env")(free_variables)


class NetworksSettings(Section):
    """Networks that jobs may name, in addition to TCP."""

    infini_band: RdmaSettings = Field(default_factory=RdmaSettings)
    roce: RdmaSettings = Field(default_factory=RdmaSettings)


class TrainerSettings(Section):
    """Pods of the trainer image, in the namespaces of the jobs."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^\S+$")]
    vllm_image: Annotated[str, StringConstraints(max_length=512, pattern=r"^\S*$")] = ""
    """The trainer's image with vLLM, for jobs that generate samples with it; empty: such jobs are refused."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[SecretName] = Field(default_factory=list)
    """Names of Secrets that each tenant's namespace has."""
    termination_grace_seconds: Seconds = 120
    start_timeout_seconds: Seconds = 900
    """Seconds that a scheduled pod may take until its container runs (image pull, volumes)."""
    fewer_nodes_after_seconds: Annotated[int, Field(ge=1, le=840)] = 300
    """Seconds that pods of a job with resources.minNodes may wait for a node, or for quota, until fewer are asked for.
    Ranks wait 15 minutes for each other."""
    scratch_size: Quantity = "20Gi"
    """Limit of the emptyDir at /tmp."""
    network_interface: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,15}$")] = "eth0"
    """Network interface for traffic between the pods of a run."""
    networks: NetworksSettings = Field(default_factory=NetworksSettings)
    runtime_class_name: ClassName = ""
    """RuntimeClass of the pods that train; empty: the node's default."""
    pods: PodsSettings = Field(default_factory=PodsSettings)
    """Defaults of the pods that train."""
    extra_env: dict[EnvName, str] = Field(default_factory=dict)
    """For proxies, NCCL and the like; names that Hone itself sets are refused."""

    _env = field_validator("extra_env")(free_variables)


class StagingSettings(Section):
    """Pods that download base models to the store."""

    cpu: Quantity = "100m"
    memory: Quantity = "2Gi"
    runtime_class_name: ClassName = ""
    """RuntimeClass of all pods that do not train; most of them parse untrusted data. Empty: the node's default."""
    pods: PodsSettings = Field(default_factory=PodsSettings)
    """What all pods that do not train have."""
    queue_name: Annotated[str, StringConstraints(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = ""
    """LocalQueue of Kueue in which these pods wait, in each namespace; empty: they start without a queue."""


class EncodingSettings(Section):
    """Pods that encode rows before a run asks for GPUs."""

    from_size: Quantity = "32Mi"
    """Size of a job's Datasets from which on their rows are encoded so; smaller ones are encoded by the run itself."""
    cpu: Quantity = "4"
    memory: Quantity = "8Gi"
    pods: Annotated[int, Field(ge=1, le=MAX_PODS)] = 1
    """Most pods for a job."""
    pod_size: Quantity = "1Gi"
    """Size of a job's Datasets for each pod."""

    @field_validator("pod_size")
    @classmethod
    def _is_positive(cls, size: str) -> str:
        if value(size) < 1:
            raise ValueError("must be at least 1 byte, e.g. 1Gi")
        return size


class PodLimitSettings(Section):
    """Limits for every pod of Hone, in addition to its memory."""

    cpu_factor: Annotated[int, Field(ge=0, le=1000)] = 4
    """CPU limit as a multiple of the request; 0: no CPU limit."""
    least_cpu: Quantity = "4"
    ephemeral_storage_request: Annotated[str, StringConstraints(max_length=24)] = "64Mi"
    """Empty: neither request nor limit of ephemeral storage."""
    staging_seconds: Annotated[int, Field(ge=60, le=2**31 - 1)] = 7 * 24 * 3600
    training_seconds: Annotated[int, Field(ge=60, le=2**31 - 1)] = 30 * 24 * 3600


class PodSecuritySettings(Section):
    """The user of every pod of Hone."""

    fixed_user: bool = True
    """Whether pods name their user and group; false: the cluster chooses them."""
