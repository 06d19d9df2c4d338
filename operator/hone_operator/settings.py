"""The operator's settings: a mounted YAML file, overridden by the environment. All errors are reported together.

`HONE_CONFIG_FILE` names the file; a variable is `HONE_` + field, with `__` between a section and its field,
e.g. `HONE_TRAINER__IMAGE`. Names are the same in both. Lists and maps in variables are JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from hone_api.dataset import MAX_PODS
from hone_api.meta import Name, Quantity
from hone_api.placement import EXTENDED_RESOURCE, LabelValue, Toleration
from hone_api.plan import Limits as SourceLimits
from hone_api.plan import PublicKey
from hone_api.pod_settings import is_reserved_key
from hone_api.quantity import value
from hone_operator.keys import public_key_fingerprint

CONFIG_FILE_ENV = "HONE_CONFIG_FILE"
PREFIX = "HONE_"
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$", max_length=253)]
HttpUrl = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$", max_length=1024)]
SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
ClassName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=253)]

RESERVED_ENV_PREFIXES = ("KUBEFLOW_TRAINER_", "HONE_", "KUBERNETES_")
RESERVED_ENV = {"HF_ENDPOINT", "HOME", "USER", "PATH", "PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"}


class ConfigurationError(Exception):
    """The operator cannot start; the message has a line for each error."""


class Section(BaseModel):
    """Unknown names are refused, so that a typing mistake does not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def free_keys(keys: dict[str, str]) -> dict[str, str]:
    """Labels or annotations as they are.

    Raises:
        ValueError: one belongs to Kubernetes, Kueue or Hone.
    """
    if taken := sorted(filter(is_reserved_key, keys)):
        raise ValueError(f"{', '.join(taken)}: of Kubernetes, Kueue or Hone, choose other names")
    return keys


def free_variables(env: dict[str, str]) -> dict[str, str]:
    """Environment variables as they are.

    Raises:
        ValueError: Hone itself sets one.
    """
    taken = sorted(n for n in env if n in RESERVED_ENV or n.startswith(RESERVED_ENV_PREFIXES))
    if taken:
        raise ValueError(f"{', '.join(taken)}: set by Hone itself, choose other names")
    return env


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


class HuggingFaceSettings(Section):
    """Where hf:// is resolved."""

    endpoint: HttpUrl | None = None
    """A mirror; None: huggingface_hub's own default."""


class CaBundleSettings(Section):
    """The certificate authorities that pods trust in HTTPS."""

    config_map_name: ClassName = ""
    """ConfigMap of each namespace; empty: pods trust those of their image."""
    key: Annotated[str, StringConstraints(max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = "ca-bundle.crt"


class StoreSettings(Section):
    """The volume claim that holds data, base models, checkpoints and results of a namespace."""

    claim_name: Name = "hone-store"
    size: Quantity = "50Gi"
    storage_class_name: Name | None = None
    """None: the cluster's default class."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"] = "ReadWriteMany"
    """Runs of several nodes need ReadWriteMany, unless all nodes of the cluster are one."""
    keep_unused_seconds: Seconds = 3600
    """How long rows are kept that no Dataset, job or ModelVersion refers to."""
    isolate_runs: bool = True
    """Whether a pod mounts only the folders of the store that it needs; the kubelet creates missing ones."""


class ProgressSettings(Section):
    """The server to which pods report."""

    service_host: Host | None = None
    """Host name by which pods reach it; None: pods do not report."""
    port: Port = 8443
    service_port: Port = 8443
    """Port of the Service in front of it."""
    status_interval_seconds: Seconds = 15
    """Least interval between writes of a job's status that are due to reports."""
    tls_secret: Name = "hone-operator-tls"
    """Secret in the operator's own namespace that keeps its certificate authority across restarts."""


class OptInSettings(Section):
    """How namespaces opt in: by a label, or by this list. Without a role, the operator works in all that it sees."""

    role: Annotated[str, StringConstraints(max_length=253)] = ""
    """ClusterRole that the operator binds to itself in labelled namespaces; empty: no namespace needs to opt in."""
    service_account: Annotated[str, StringConstraints(max_length=253)] = ""
    """The operator's service account, in its own namespace."""
    namespaces: list[Name] = Field(default_factory=list)
    """Namespaces in which the role is already bound."""
    close_ports: bool = True
    """Whether a NetworkPolicy closes the ports of Hone's pods in labelled namespaces."""


class TenantSettings(Section):
    """What tenants may use. An entry of a list is a name, or a prefix and `*`."""

    secret_prefix: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9]*)?$", max_length=63)] = "hone-"
    """Prefix that names of Secrets must have; empty: any Secret of the namespace may be used."""
    priority_classes: list[str] = Field(default_factory=lambda: ["*"])
    """PriorityClasses; system-* is never allowed."""
    toleration_keys: list[str] = Field(default_factory=lambda: ["*"])
    """Keys of taints; `*` does not cover the control plane's."""
    node_selector_keys: list[str] = Field(default_factory=lambda: ["*"])
    """Keys of node labels; `*` does not cover the control plane's."""
    models: list[str] = Field(default_factory=lambda: ["*"])
    """URIs of base models."""
    service_accounts: list[str] = Field(default_factory=list)
    """ServiceAccounts that jobs may name for their pods."""
    runtime_classes: list[str] = Field(default_factory=list)
    """RuntimeClasses that jobs may name for their pods."""
    resource_claim_templates: list[str] = Field(default_factory=list)
    """ResourceClaimTemplates that jobs may name."""
    workload_priority_classes: list[str] = Field(default_factory=lambda: ["*"])
    """WorkloadPriorityClasses of Kueue."""
    max_gpus: Annotated[int, Field(ge=0, le=65536)] = 0
    """GPUs of one job over all its nodes; 0: any number."""
    max_active_jobs: Annotated[int, Field(ge=0, le=65536)] = 0
    """Jobs of one namespace that train at the same time; 0: any number."""


class Pkcs11Settings(Section):
    """Keys in an HSM."""

    module: Annotated[str, StringConstraints(pattern=r"^(/[^\s:]+)?$", max_length=512)] = ""
    """Path of the PKCS #11 library in the pods that sign; empty: the Secret has the key itself."""
    env: dict[EnvName, str] = Field(default_factory=dict)
    """Environment of these pods, by which the library finds its configuration."""

    _env = field_validator("env")(free_variables)


class SigningSettings(Section):
    """Signatures of models."""

    secret_name: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)] = ""
    """Secret of each namespace with private-key.pem, or pkcs11-uri and pin; tenants' objects cannot name it."""
    image: Annotated[str, StringConstraints(max_length=512, pattern=r"^\S*$")] = ""
    """The trainer's image with the library of an HSM; empty: the trainer's image signs."""
    pkcs11: Pkcs11Settings = Field(default_factory=Pkcs11Settings)
    public_keys: Annotated[list[PublicKey], Field(max_length=16)] = Field(default_factory=list)
    required: bool = False

    @model_validator(mode="after")
    def _names_its_keys(self) -> Self:
        if (self.secret_name or self.required) and not self.public_keys:
            raise ValueError("signing needs the public keys whose signatures count: set signing.public_keys")
        if self.pkcs11.module and not self.secret_name:
            raise ValueError("signing.pkcs11 needs the Secret with pkcs11-uri and pin: set signing.secret_name")
        for pem in self.public_keys:
            public_key_fingerprint(pem)
        return self


class WebhookSettings(Section):
    """The receiver of CloudEvents about models."""

    url: HttpUrl | None = None
    """None: nothing is sent."""
    key_file: Path = Path("/etc/hone-webhook/hmac-key")
    """File with the key that signs events; read each time."""


class KueueSettings(Section):
    """Queues of Kueue, which must be installed."""

    enabled: bool = False
    """Whether training Jobs enter the queue that their FineTuneJob names, and Workloads are watched."""


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


class PrivacySettings(Section):
    """What is visible to people who may read objects but not the data."""

    rows_in_status: bool = True
    """Whether status, records and events may quote rows."""


class LeaderElectionSettings(Section):
    """Several operators, of which one works at a time."""

    enabled: bool = False
    lease: Annotated[str, StringConstraints(min_length=1, max_length=253)] = "hone-operator"
    """Name of the Lease in the operator's own namespace."""
    identity: Annotated[str, StringConstraints(max_length=253)] = ""
    """Of this operator; empty: its host name, which is the name of its pod."""


class Ports(Section):
    """Ports of the operator's pod."""

    metrics: Port = 8080
    probes: Port = 8081


class LogSettings(Section):
    """The operator's log, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "text"] = "json"


class Settings(BaseSettings):
    """Everything that the platform team chooses."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True
    )

    namespace: Name
    """The operator's own namespace; in a pod it is read from the service account."""
    watch_namespaces: list[Name] = Field(default_factory=list)
    """Empty: all namespaces."""
    opt_in: OptInSettings = Field(default_factory=OptInSettings)
    tenants: TenantSettings = Field(default_factory=TenantSettings)
    signing: SigningSettings = Field(default_factory=SigningSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    kueue: KueueSettings = Field(default_factory=KueueSettings)
    pod_limits: PodLimitSettings = Field(default_factory=PodLimitSettings)
    pod_security: PodSecuritySettings = Field(default_factory=PodSecuritySettings)
    metrics_from: list[dict[str, Any]] = Field(default_factory=list)
    """NetworkPolicy peers that may read the metrics of ranks; empty: everybody."""
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    trainer: TrainerSettings
    staging: StagingSettings = Field(default_factory=StagingSettings)
    encoding: EncodingSettings = Field(default_factory=EncodingSettings)
    hugging_face: HuggingFaceSettings = Field(default_factory=HuggingFaceSettings)
    ca_bundle: CaBundleSettings = Field(default_factory=CaBundleSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    progress: ProgressSettings = Field(default_factory=ProgressSettings)
    leader_election: LeaderElectionSettings = Field(default_factory=LeaderElectionSettings)
    ports: Ports = Field(default_factory=Ports)
    limits: SourceLimits = Field(default_factory=SourceLimits)
    log: LogSettings = Field(default_factory=LogSettings)
    resync_seconds: Seconds = 300
    """Every object is reconciled at least this often."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 16
    """Objects that are reconciled at the same time."""
    cluster_domain: Host = "cluster.local"

    @field_validator("watch_namespaces")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        return sorted(set(names))

    @model_validator(mode="after")
    def _signing_key_is_the_platforms(self) -> Self:
        if self.signing.secret_name and self.signing.secret_name.startswith(self.tenants.secret_prefix):
            raise ValueError(
                f"signing.secret_name {self.signing.secret_name} begins with tenants.secret_prefix "
                f"{self.tenants.secret_prefix or '(empty: any name)'}, so that every job could name it and "
                "read the key: choose another name"
            )
        return self

    @model_validator(mode="after")
    def _staging_queue_has_kueue(self) -> Self:
        if self.staging.queue_name and not self.kueue.enabled:
            raise ValueError(
                f"staging.queue_name {self.staging.queue_name} needs Kueue, and kueue.enabled is false: "
                "set it to true, or leave staging.queue_name empty"
            )
        return self

    @property
    def progress_url(self) -> str | None:
        """Base URL of the progress server as pods see it."""
        host = self.progress.service_host
        return f"https://{host}:{self.progress.service_port}" if host else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file."""
        file = YamlConfigSettingsSource(settings_cls, yaml_file=os.environ.get(CONFIG_FILE_ENV) or None)
        return init_settings, env_settings, file


def load() -> Settings:
    """The settings of this process.

    Raises:
        ConfigurationError: with each error on its own line.
    """
    path = os.environ.get(CONFIG_FILE_ENV)
    if path and not Path(path).is_file():
        raise ConfigurationError(f"{CONFIG_FILE_ENV}: there is no file {path}")
    own: dict[str, Any] = {}
    if not os.environ.get(f"{PREFIX}NAMESPACE") and SERVICE_ACCOUNT_NAMESPACE.is_file():
        own["namespace"] = SERVICE_ACCOUNT_NAMESPACE.read_text().strip()
    try:
        return Settings(**own)
    except ValidationError as error:
        raise ConfigurationError("\n".join(["the settings are not valid:", *_lines(error)])) from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from None
    except (SettingsError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the settings cannot be read: {error}: {error.__cause__ or ''}".rstrip(": ")
        ) from None


def _lines(error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        place = ".".join(str(part) for part in each["loc"]) or "settings"
        variable = PREFIX + "__".join(str(part).upper() for part in each["loc"])
        problem = "is required" if each["type"] == "missing" else each["msg"]
        if each["type"] == "extra_forbidden":
            problem = "there is no such setting"
        yield f"  {place}: {problem} (or {variable} in the environment)"
