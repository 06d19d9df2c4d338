"""The operator's settings: a mounted YAML file, overridden by the environment. All errors are reported together.

`HONE_CONFIG_FILE` names the file, which has the names of the chart's values; a variable is `HONE_` + field, with `__`
between a section and its field, e.g. `HONE_TRAINER__SCRATCH_SIZE` for `trainer.scratchSize`. Lists and maps in
variables are JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from hone_api.base.meta import Name
from hone_operator.settings.pods import TrainerSettings
from hone_operator.settings.section import Host, Port, Section
from hone_operator.settings.tenants import OptInSettings
from hone_operator.settings.values import LeaderElectionSettings, ProgressSettings, Values

CONFIG_FILE_ENV = "HONE_CONFIG_FILE"
PREFIX = "HONE_"
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ConfigurationError(Exception):
    """The operator cannot start; the message has a line for each error."""


class ReachableProgress(ProgressSettings):
    """The same, with the names that the chart gives."""

    service_host: Host | None = None
    """Host name by which pods reach it; None: pods do not report."""
    service_port: Port = 8443
    """Port of the Service in front of it."""
    tls_secret: Name = "hone-operator-tls"
    """Secret in the operator's own namespace that keeps its certificate authority across restarts."""


class Election(LeaderElectionSettings):
    """The same, with the names that the chart gives."""

    lease: Annotated[str, StringConstraints(min_length=1, max_length=253)] = "hone-operator"
    """Name of the Lease in the operator's own namespace."""
    identity: Annotated[str, StringConstraints(max_length=253)] = ""
    """Of this operator; empty: its host name, which is the name of its pod."""


class Ports(Section):
    """Ports of the operator's pod."""

    metrics: Port = 8080
    probes: Port = 8081


class Settings(Values, BaseSettings):
    """Everything that the platform team chooses: values of the chart, and what the chart makes of others."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        validate_by_alias=False,
    )

    namespace: Name
    """The operator's own namespace; in a pod it is read from the service account."""
    opt_in: OptInSettings = Field(default_factory=OptInSettings)
    metrics_from: list[dict[str, Any]] = Field(default_factory=list)
    """NetworkPolicy peers that may read the metrics of ranks; empty: everybody."""
    trainer: TrainerSettings
    progress: ReachableProgress = Field(default_factory=ReachableProgress)
    leader_election: Election = Field(default_factory=Election)
    ports: Ports = Field(default_factory=Ports)

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
        asked = self.progress
        return f"https://{asked.service_host}:{asked.service_port}" if asked.enabled and asked.service_host else None

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
        return init_settings, env_settings, InitSettingsSource(settings_cls, _file())


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


def _file() -> dict[str, Any]:
    """The values of the file, by the names of fields, as the environment has them: so it can override each."""
    path = os.environ.get(CONFIG_FILE_ENV)
    values = (yaml.load(Path(path).read_text(), _Loader) or {}) if path else {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} is not a mapping")
    return _by_name(Settings, values)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping; SafeLoader takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for n, key in enumerate(keys) if key in keys[:n]), None):
            line = node.start_mark.line + 1
            raise ValueError(f"{twice} stands twice in the mapping that begins in line {line}: keep one of them")
        return super().construct_mapping(node, deep)


def _by_name(model: type[BaseModel], values: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Null means "not set": the field then has its default, as if the key were absent."""
    names = {field.alias: name for name, field in model.model_fields.items()}
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = names.get(key, key)
        if key != name and name in values:
            raise ValueError(f"{place}{key} and {place}{name} are the same setting: keep one of them")
        field = model.model_fields.get(name)
        kind = field.annotation if field else None
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
            out[name] = _by_name(kind, value, f"{place}{key}.")
        elif value is not None or field is None:
            out[name] = value
    return out


def _lines(error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        place = ".".join(str(part) for part in each["loc"]) or "settings"
        variable = PREFIX + "__".join(str(part).upper() for part in each["loc"])
        problem = "is required" if each["type"] == "missing" else each["msg"]
        if each["type"] == "extra_forbidden":
            problem = "there is no such setting"
        yield f"  {place}: {problem} (or {variable} in the environment)"
