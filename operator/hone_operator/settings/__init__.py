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
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from hone_api.base.meta import Name, Quantity
from hone_api.plan import Limits as SourceLimits
from hone_operator.settings.pods import (
    EncodingSettings,
    PodLimitSettings,
    PodSecuritySettings,
    StagingSettings,
    TrainerSettings,
)
from hone_operator.settings.section import ClassName, Host, HttpUrl, Port, Seconds, Section
from hone_operator.settings.tenants import OptInSettings, PrivacySettings, SigningSettings, TenantSettings

CONFIG_FILE_ENV = "HONE_CONFIG_FILE"
PREFIX = "HONE_"
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ConfigurationError(Exception):
    """The operator cannot start; the message has a line for each error."""


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


class KueueSettings(Section):
    """Queues of Kueue, which must be installed."""

    enabled: bool = False
    """Whether training Jobs enter the queue that their FineTuneJob names, and Workloads are watched."""


class LeaderElectionSettings(Section):
    """Several operators; one of them works at a time."""

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
