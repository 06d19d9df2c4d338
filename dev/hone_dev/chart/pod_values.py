"""Values of the pods that the operator starts: images, resources, limits. And the type of an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import Quantity
from hone_api.dataset.dataset import MAX_PODS
from hone_dev.chart.value_types import ClassName, Env, ImageDigest, Map, Seconds, Secrets, StringMap, Text, Values


class Image(Values):
    repository: Text = Field("ghcr.io/hone-dev/hone/operator", description="Image of the operator.")
    tag: Text = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="Pull policy.")


class TrainerImage(Image):
    repository: Text = Field("ghcr.io/hone-dev/hone/trainer", description="Image of the pods that train.")


class VllmImage(Values):
    repository: Text = Field(
        "ghcr.io/hone-dev/hone/trainer-vllm",
        description="Image of the pods that train with GRPO and generate with vLLM. Empty: such jobs are refused.",
    )
    tag: Text = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")


class Pods(Values):
    labels: StringMap = Field(default_factory=dict, description="Labels of these pods and of their Jobs.")
    annotations: StringMap = Field(default_factory=dict, description="Annotations of these pods.")
    node_selector: StringMap = Field(default_factory=dict, description="Labels of the nodes for these pods.")
    tolerations: list[Map] = Field(default_factory=list, description="Taints that these pods tolerate.")
    service_account_name: ClassName = Field(
        "", description="ServiceAccount of these pods, in each namespace. Empty: the default one."
    )


class Rdma(Values):
    resources: StringMap = Field(
        default_factory=dict,
        description="Extended resources that each pod requests to use this network, e.g. "
        'rdma/hca_shared_devices_a: "1". If empty, the network is not available, and jobs that name it are refused.',
    )
    annotations: StringMap = Field(
        default_factory=dict, description="Annotations of these pods, e.g. k8s.v1.cni.cncf.io/networks."
    )
    env: StringMap = Field(
        default_factory=dict, description="Environment variables of these pods, e.g. NCCL_IB_HCA: mlx5."
    )


class Networks(Values):
    """Networks that jobs may name in spec.resources.network, in addition to TCP."""

    infini_band: Rdma = Field(default_factory=Rdma)
    roce: Rdma = Field(default_factory=Rdma)


class Trainer(Values):
    image: TrainerImage = Field(default_factory=TrainerImage)
    vllm_image: VllmImage = Field(default_factory=VllmImage)
    image_pull_secrets: Secrets = Field(
        default_factory=list,
        description="Pull secrets that must exist in each namespace with jobs: names, or {name: NAME}.",
    )
    termination_grace_seconds: Seconds = Field(
        120, description="Seconds that a pod has to save a checkpoint when it must stop."
    )
    start_timeout_seconds: Seconds = Field(
        900, description="Longest time in seconds from scheduling a pod to a running container."
    )
    fewer_nodes_after_seconds: int = Field(
        300,
        ge=1,
        le=840,
        description="Seconds that pods of a job with `resources.minNodes` wait for a node, or for quota, until the "
        "next attempt starts with fewer nodes.",
    )
    scratch_size: Quantity = Field("20Gi", description="Limit of /tmp in each pod.")
    network_interface: Text = Field(
        "eth0", description="Network interface over which the pods of a run reach each other."
    )
    networks: Networks = Field(default_factory=Networks)
    runtime_class_name: ClassName = Field(
        "",
        description="RuntimeClass of training pods, e.g. one of Kata Containers. Empty: the nodes' default runtime.",
    )
    pods: Pods = Field(default_factory=Pods)
    extra_env: Env = Field(
        default_factory=dict,
        description="Environment variables of all pods of jobs as NAME: value, e.g. proxies or NCCL settings. A list "
        "of {name, value} is also taken; Helm then warns that it cannot overwrite a table, and does.",
    )


class Staging(Values):
    cpu: Quantity = Field("100m", description="CPU request of the pods that download base models to the store.")
    memory: Quantity = Field("2Gi", description="Memory request of these pods. Files are streamed; no model is loaded.")
    runtime_class_name: ClassName = Field(
        "",
        description="RuntimeClass of all other pods, e.g. one for gVisor: most of them parse untrusted data. Empty: "
        "the nodes' default runtime.",
    )
    pods: Pods = Field(default_factory=Pods)
    queue_name: ClassName = Field(
        "",
        description="LocalQueue of Kueue in which all other pods wait for quota; each namespace with jobs needs one of "
        "this name. Needs kueue.enabled. Empty: they start without a queue.",
    )


class Encoding(Values):
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


class PodLimits(Values):
    cpu_factor: Annotated[int, Field(ge=0, le=1000)] = Field(
        4, description="CPU limit of Hone's pods as a multiple of their request. 0: no CPU limit."
    )
    least_cpu: Quantity = Field("4", description="Smallest CPU limit of a pod.")
    ephemeral_storage_request: Annotated[str, StringConstraints(max_length=24)] = Field(
        "64Mi",
        description="Ephemeral storage request of Hone's pods; the limit is trainer.scratchSize plus 1Gi. Empty: "
        "neither, for nodes that do not account for ephemeral storage.",
    )
    staging_seconds: Seconds = Field(
        604800, description="Longest run in seconds of a pod that reads, fetches, verifies or sweeps; it is retried."
    )
    training_seconds: Seconds = Field(
        2592000,
        description="Longest run in seconds of a pod that trains; the next attempt continues from its checkpoint.",
    )


class PodSecurity(Values):
    fixed_user: bool = Field(
        True,
        description="Let all pods name their user and group, 10001. false: the cluster chooses them, as OpenShift does "
        "with restricted-v2; pods still refuse to run as root.",
    )
