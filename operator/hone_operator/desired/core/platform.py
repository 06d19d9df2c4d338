"""Choices of the platform team that affect pods; mapped once from the operator's settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hone_api.base.pod_image import PodImage
from hone_api.blocks.signing import Identity, Keyless
from hone_api.plan import Limits, Trusted
from hone_operator.desired.core.interconnect import Rdma
from hone_operator.desired.core.podsettings import PodDefaults


@dataclass(frozen=True)
class Bounds:
    """What tenants may use. An entry is a name, or a prefix and `*`."""

    secret_prefix: str = ""
    priority_classes: tuple[str, ...] = ("*",)
    toleration_keys: tuple[str, ...] = ("*",)
    node_selector_keys: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    """URIs of base models."""
    service_accounts: tuple[str, ...] = ()
    """ServiceAccounts that jobs may name."""
    runtime_classes: tuple[str, ...] = ()
    """RuntimeClasses that jobs may name."""
    env: tuple[str, ...] = ("*",)
    """Environment variables that jobs may set."""
    pod_keys: tuple[str, ...] = ("*",)
    """Keys with a prefix of labels and annotations that jobs may set."""
    only_approved: bool = False
    """Whether a ModelVersion is delivered only once a person has approved it."""
    destinations: tuple[str, ...] = ("*",)
    """Addresses of deliveries."""
    resource_claim_templates: tuple[str, ...] = ()
    """ResourceClaimTemplates that jobs may name."""
    workload_priority_classes: tuple[str, ...] = ("*",)
    """Priorities in queues of Kueue."""
    store_claim: str = "hone-store"
    """Claim that jobs cannot mount by name."""
    max_gpus: int = 0
    """GPUs of one job over all its nodes; 0: any number."""
    max_active_jobs: int = 0
    """Jobs of one namespace that train at the same time, without those in a queue of Kueue; 0: any number."""


@dataclass(frozen=True)
class PodLimits:
    """Limits for every pod of Hone, in addition to its memory."""

    cpu_factor: int = 4
    """CPU limit as a multiple of the request; 0: no CPU limit."""
    least_cpu: str = "4"
    """The CPU limit is never below this."""
    ephemeral_storage_request: str = "64Mi"
    """Empty: neither request nor limit, for nodes that do not track ephemeral storage."""
    staging_seconds: int = 7 * 24 * 3600
    """Maximum duration of a pod that reads, fetches, verifies or sweeps."""
    training_seconds: int = 30 * 24 * 3600
    """Maximum duration of a pod that trains: it saves a checkpoint, and the next attempt continues from it."""


@dataclass(frozen=True)
class Signing:
    """Who signs models, and whose signature counts."""

    secret: str = ""
    """Secret of each namespace with the private key, or with what a token needs; empty: somebody else signs, and Jobs
    only compare."""
    public_keys: tuple[str, ...] = ()
    """PEM of the keys that count."""
    fingerprints: frozenset[str] = frozenset()
    """SHA-256 of each of them, as signatures name their key."""
    required: bool = False
    """Whether a model without such a signature is refused."""
    keyless: Keyless | None = None
    """Who may sign without a key; None: nobody."""
    service_account: str = ""
    """ServiceAccount of each namespace by whose token Jobs sign without a key; empty: they do not."""

    @property
    def signers(self) -> list[Trusted]:
        """Keys and identities whose signatures count; empty: no signature is made or looked at."""
        return [*self.public_keys, *([self.keyless] if self.keyless else [])]

    @property
    def trusted(self) -> list[Trusted] | None:
        """One of these must have signed each model that is used; None: models need no signature."""
        return self.signers if self.required else None

    def counts(self, key: str | None, identity: Identity | None, trust: str | None) -> bool:
        """Whether a signature that was compared before still counts.

        Args:
            key: SHA-256 of the public key.
            identity: who signed without one.
            trust: SHA-256 of the trust config that confirmed the identity.
        """
        if key is not None:
            return key in self.fingerprints
        return self.keyless is not None and trust == self.keyless.trust and identity in self.keyless.identities


@dataclass(frozen=True)
class Platform:
    """Everything that a desired object depends on in addition to the user's spec."""

    trainer_image: str
    vllm_image: str = ""
    """The trainer's image with vLLM; empty if this installation has none."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    store_claim: str = "hone-store"
    store_size: str = "50Gi"
    store_class: str | None = None
    store_access_mode: str = "ReadWriteMany"
    store_keep_unused_seconds: int = 3600
    """How long the content of a Dataset is kept after the last reference to it."""
    isolate_runs: bool = True
    """Whether a pod mounts only the folders of the store that it needs."""
    cluster_domain: str = "cluster.local"
    hugging_face_endpoint: str | None = None
    progress_url: str | None = None
    """Base URL of the progress server; None: pods do not report."""
    progress_ca: str | None = None
    """PEM of the authority that signed the progress server's certificate."""
    network_interface: str = "eth0"
    """Interface for gloo between the pods of a run."""
    networks: Mapping[str, Rdma] = field(default_factory=dict)
    """Of the platform, by the name that jobs give in resources.network."""
    grace_seconds: int = 120
    start_timeout_seconds: int = 900
    fewer_nodes_after_seconds: int = 300
    """How long pods of a job with resources.minNodes wait for a node, or for quota."""
    scratch_size: str = "20Gi"
    staging_cpu: str = "100m"
    staging_memory: str = "2Gi"
    """For a pod that downloads a base model: files are streamed to the store, nothing is loaded."""
    encode_from_bytes: int = 32 * 2**20
    """Total size of a job's Datasets from which a CPU Job encodes their rows; smaller ones are encoded by the run."""
    encoding_cpu: str = "4"
    encoding_memory: str = "8Gi"
    encoding_pods: int = 1
    """Most pods that encode the rows of a job."""
    encoding_pod_bytes: int = 2**30
    """Size of a job's Datasets for each of these pods."""
    training_runtime: str = ""
    """RuntimeClass of the pods that train; empty: none."""
    staging_runtime: str = ""
    """RuntimeClass of all other pods; empty: none."""
    training_pods: PodDefaults = field(default_factory=PodDefaults)
    """Defaults of the pods that train; a job may say otherwise."""
    staging_pods: PodDefaults = field(default_factory=PodDefaults)
    """What all other pods have."""
    fixed_user: bool = True
    """Whether pods name their user and group; false: the cluster chooses them, as OpenShift does."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    ca_config_map: str = ""
    """ConfigMap of each namespace with the authorities that pods trust in HTTPS; empty: those of their image."""
    ca_key: str = "ca-bundle.crt"
    limits: Limits = field(default_factory=Limits)
    """Limits on downloads."""
    bounds: Bounds = field(default_factory=Bounds)
    pod_limits: PodLimits = field(default_factory=PodLimits)
    signing: Signing = field(default_factory=Signing)
    queues: bool = False
    """Whether Kueue admits training Jobs that name a queue."""
    staging_queue: str = ""
    """LocalQueue in which the Jobs that do not train wait; empty: they start at once."""
    metrics_from: tuple[Mapping[str, Any], ...] = ()
    """NetworkPolicy peers that may read the metrics of ranks; empty: everybody."""
    rows_in_status: bool = True
    """Whether status, records and events may quote rows."""

    def pod_image(self) -> PodImage:
        """The image of the pods that the command line starts with the store mounted."""
        return PodImage.model_validate(
            {
                "image": self.trainer_image,
                "image_pull_policy": self.image_pull_policy,
                "image_pull_secrets": list(self.image_pull_secrets),
            }
        )
