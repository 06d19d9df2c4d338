"""Settings of the pods that the operator starts: images, resources, limits, defaults."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from hone_api.base.meta import Quantity
from hone_api.base.quantity import value
from hone_api.blocks.placement import EXTENDED_RESOURCE, Toleration
from hone_api.dataset.dataset import MAX_PODS
from hone_operator.settings.section import (
    Annotations,
    ClassName,
    EnvName,
    Labels,
    Seconds,
    SecretName,
    Section,
    free_keys,
    free_variables,
)

PodSeconds = Annotated[int, Field(ge=60, le=2**31 - 1)]


class PodsSettings(Section):
    """Defaults of the pods of one kind of work; a job may say otherwise for those that train."""

    labels: Labels = Field(default_factory=dict, description="Labels of these pods and of their Jobs.")
    annotations: Annotations = Field(default_factory=dict, description="Annotations of these pods.")
    node_selector: Labels = Field(default_factory=dict, description="Labels of the nodes for these pods.")
    tolerations: list[Toleration] = Field(default_factory=list, description="Taints that these pods tolerate.")
    service_account_name: ClassName = Field(
        "", description="ServiceAccount of these pods, in each namespace. Empty: the default one."
    )

    _keys = field_validator("labels", "annotations")(free_keys)


class RdmaSettings(Section):
    """A network with remote direct memory access, by devices that pods request."""

    resources: dict[Annotated[str, StringConstraints(pattern=EXTENDED_RESOURCE, max_length=128)], Quantity] = Field(
        default_factory=dict,
        description="Extended resources that each pod requests to use this network, e.g. "
        'rdma/hca_shared_devices_a: "1". If empty, the network is not available, and jobs that name it are refused.',
    )
    annotations: Annotations = Field(
        default_factory=dict, description="Annotations of these pods, e.g. k8s.v1.cni.cncf.io/networks."
    )
    env: dict[EnvName, str] = Field(
        default_factory=dict, description="Environment variables of these pods, e.g. NCCL_IB_HCA: mlx5."
    )

    _annotations = field_validator("annotations")(free_keys)
    _env = field_validator("env")(free_variables)


class NetworksSettings(Section):
    """Networks that jobs may name in spec.resources.network, in addition to TCP."""

    infini_band: RdmaSettings = Field(default_factory=RdmaSettings)
    roce: RdmaSettings = Field(default_factory=RdmaSettings)

    @property
    def by_name(self) -> dict[str, RdmaSettings]:
        """Those that the platform has, by the names that jobs give."""
        named = {"InfiniBand": self.infini_band, "RoCE": self.roce}
        return {name: network for name, network in named.items() if network.resources}


class TrainerPods(Section):
    """Pods of the trainer image, in the namespaces of the jobs."""

    termination_grace_seconds: Seconds = Field(
        120, description="Seconds that a pod has to save a checkpoint when it must stop."
    )
    start_timeout_seconds: Seconds = Field(
        900, description="Longest time in seconds from scheduling a pod to a running container."
    )
    fewer_nodes_after_seconds: Annotated[int, Field(ge=1, le=840)] = Field(  # ranks wait 900 s for each other
        300,
        description="Seconds that pods of a job with `resources.minNodes` wait for a node, or for quota, until the "
        "next attempt starts with fewer nodes.",
    )
    scratch_size: Quantity = Field("20Gi", description="Limit of /tmp in each pod.")
    network_interface: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,15}$")] = Field(
        "eth0", description="Network interface over which the pods of a run reach each other."
    )
    networks: NetworksSettings = Field(default_factory=NetworksSettings)
    runtime_class_name: ClassName = Field(
        "",
        description="RuntimeClass of training pods, e.g. one of Kata Containers. Empty: the nodes' default runtime.",
    )
    pods: PodsSettings = Field(default_factory=PodsSettings)


class TrainerSettings(TrainerPods):
    """The same, with what the chart writes in another form than its values have."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^\S+$")]
    vllm_image: Annotated[str, StringConstraints(max_length=512, pattern=r"^\S*$")] = ""
    """The trainer's image with vLLM, for jobs that generate samples with it; empty: such jobs are refused."""
    serving_image: Annotated[str, StringConstraints(max_length=512, pattern=r"^\S*$")] = ""
    """vLLM in the servers that `hone serve` prints; empty: the one that the command line knows."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[SecretName] = Field(default_factory=list)
    """Names of Secrets that each tenant's namespace has."""
    extra_env: dict[EnvName, str] = Field(default_factory=dict)
    """For proxies, NCCL and the like; names that Hone itself sets are refused."""

    _env = field_validator("extra_env")(free_variables)


class StagingSettings(Section):
    """Pods that do not train; most of them parse untrusted data."""

    cpu: Quantity = Field("100m", description="CPU request of the pods that download base models to the store.")
    memory: Quantity = Field("2Gi", description="Memory request of these pods. Files are streamed; no model is loaded.")
    runtime_class_name: ClassName = Field(
        "",
        description="RuntimeClass of all other pods, e.g. one for gVisor: most of them parse untrusted data. Empty: "
        "the nodes' default runtime.",
    )
    pods: PodsSettings = Field(default_factory=PodsSettings)
    queue_name: Annotated[str, StringConstraints(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")] = Field(
        "",
        description="LocalQueue of Kueue in which all other pods wait for quota; each namespace with jobs needs one of "
        "this name. Needs kueue.enabled. Empty: they start without a queue.",
    )


class DatasetSettings(Section):
    """Pods that read, check and write the rows of Datasets."""

    cpu: Quantity = Field("500m", description="CPU request of these pods, for Datasets that name none.")
    memory: Quantity = Field("2Gi", description="Memory request and limit of these pods, for Datasets that name none.")


class EncodingSettings(Section):
    """Pods that encode rows before a run asks for GPUs."""

    from_size: Quantity = Field(
        "32Mi",
        description="Total size of a job's Datasets above which a CPU Job encodes their rows as tokens before any GPU "
        "is requested. Smaller Datasets are encoded by the run itself, within seconds. 0 means always.",
    )
    cpu: Quantity = Field("4", description="CPU request of these pods. They use all cores of their CPU limit.")
    memory: Quantity = Field("8Gi", description="Memory request and limit of these pods.")
    pods: Annotated[int, Field(ge=1, le=MAX_PODS)] = Field(
        1,
        description="Most pods that encode the rows of a job, each with this cpu and memory. With more than one, the "
        "first one also writes. They need store.accessMode ReadWriteMany.",
    )
    pod_size: Quantity = Field(
        "1Gi", description="Size of a job's Datasets for each of these pods: 5Gi are encoded by 5 pods if pods allows."
    )

    @field_validator("pod_size")
    @classmethod
    def _is_positive(cls, size: str) -> str:
        if value(size) < 1:
            raise ValueError("must be at least 1 byte, e.g. 1Gi")
        return size


class PodLimitSettings(Section):
    """Limits for every pod of Hone, in addition to its memory."""

    cpu_factor: Annotated[int, Field(ge=0, le=1000)] = Field(
        4, description="CPU limit of Hone's pods as a multiple of their request. 0: no CPU limit."
    )
    least_cpu: Quantity = Field("4", description="Smallest CPU limit of a pod.")
    ephemeral_storage_request: Quantity | Literal[""] = Field(
        "64Mi",
        description="Ephemeral storage request of Hone's pods; the limit is trainer.scratchSize plus 1Gi. Empty: "
        "neither, for nodes that do not account for ephemeral storage.",
    )
    staging_seconds: PodSeconds = Field(
        7 * 24 * 3600,
        description="Longest run in seconds of a pod that reads, fetches, verifies or sweeps; it is retried.",
    )
    training_seconds: PodSeconds = Field(
        30 * 24 * 3600,
        description="Longest run in seconds of a pod that trains; the next attempt continues from its checkpoint.",
    )


class PodSecuritySettings(Section):
    """The user of every pod of Hone."""

    fixed_user: bool = Field(
        True,
        description="Let all pods name their user and group, 10001. false: the cluster chooses them, as OpenShift does "
        "with restricted-v2; pods still refuse to run as root.",
    )
