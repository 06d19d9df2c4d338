"""Experiment trackers and model registries: where a run is logged, and where its model is registered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import MAX_COUNT, ApiModel, HttpUrl, KnownUri, Name, ShortText, Timestamp, uri_rules
from hone_api.base.rule import Rule

TOKEN_KEY, USER_KEY, PASSWORD_KEY = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Keys of a Secret, named as the variables from which MLflow's own client reads them."""
JOB_TAG = "hone.job_uid"
"""Tag by which the MLflow run of a FineTuneJob is found again: its uid."""
VERSION_TAG = "hone.model_version_uid"
"""Tag with the uid of a ModelVersion; it has another one after a restore from a backup."""
NUMBER_TAG = "hone.version"
"""Tag with the number of a ModelVersion."""
DIGEST_TAG = "hone.digest"
"""Tag with the digest of the first artifact: with the number, it finds the MLflow version of a ModelVersion again."""
SECRET_KEYS = f"{TOKEN_KEY}, or {USER_KEY} and {PASSWORD_KEY}"
ExperimentName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=1, max_length=250)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]+$", max_length=64)]


TrackerType = Literal["MLflow", "TensorBoard", "Trackio", "WandB"]
TRACKING_FOLDER = "tracking"
"""Of the store: what trackers without a server read."""


class Tracking(ApiModel):
    """An experiment tracker that also gets the metrics."""

    rules = (
        *uri_rules(),
        Rule(
            "self.type != 'MLflow' || has(self.uri)",
            "MLflow has no default server: set uri, e.g. https://mlflow.example.org",
        ),
        Rule(
            "self.type == 'MLflow' || !(has(self.uri) || has(self.secretName))",
            "uri and secretName are for MLflow: files of the other trackers go to the folder tracking/ of the store. "
            "Remove both; for a W&B server, run `wandb sync` there",
        ),
    )

    type: TrackerType = Field(
        description="MLflow: a server. TensorBoard, Trackio and WandB: files in the folder tracking/ of the store, "
        "without any connection; those of WandB are an offline run, for `wandb sync`."
    )
    uri: HttpUrl | None = Field(
        default=None,
        description="The tracking server, e.g. https://mlflow.example.org, or http:// for a Service of this namespace. "
        "Required for MLflow, and not for others.",
    )
    experiment: ExperimentName | None = Field(
        default=None,
        description="Name of the experiment, or project, which is created if there is none. Default: output.modelName.",
    )
    secret_name: Name | None = Field(
        default=None, description=f"Secret in this namespace with {SECRET_KEYS}. Default: no credentials."
    )


class TrackedRun(ApiModel):
    """The run of an experiment tracker that has the metrics of a job."""

    uri: KnownUri = Field(description="The tracking server, or the folder of the store.")
    experiment: ExperimentName = Field(description="Name of the experiment.")
    run_id: RunId = Field(description="Id of the run.")


RegisteredName = Annotated[str, StringConstraints(pattern=r"^[-\w. ]+$", min_length=1, max_length=250)]
"""MLflow allows neither / nor : in the name of a registered model; quotes would end it in a filter."""


class MlflowRegistry(ApiModel):
    """A registered model of MLflow that gets the versions and aliases of a Model."""

    rules = uri_rules()

    uri: HttpUrl = Field(
        description="The server with the registry, e.g. https://mlflow.example.org, or http:// for a Service of this "
        "namespace."
    )
    name: RegisteredName | None = Field(
        default=None,
        description="Name of the registered model, which is created if there is none. Default: metadata.name. Choose "
        "another if several namespaces use one server.",
    )
    secret_name: Name | None = Field(
        default=None, description=f"Secret in this namespace with {SECRET_KEYS}. Default: no credentials."
    )


class Registry(ApiModel):
    """Model registries outside the cluster."""

    mlflow: MlflowRegistry = Field(description="A registered model of MLflow.")


class RegisteredVersion(ApiModel):
    """A ModelVersion in the registry."""

    version: int = Field(ge=1, le=MAX_COUNT, description="Number of the ModelVersion.")
    registered: ShortText = Field(description="Number of the version in MLflow.")


class RegisteredAlias(ApiModel):
    """An alias in the registry."""

    name: Annotated[str, StringConstraints(max_length=32)] = Field(description="Name of the alias.")
    version: int = Field(ge=1, le=MAX_COUNT, description="Number of the ModelVersion that it points to.")
    since: Timestamp = Field(description="When the alias was moved there in Hone.")


MAX_REGISTERED = 1000


class RegistryStatus(ApiModel):
    """What the registry has; condition Registered says whether that is all."""

    uri: KnownUri = Field(description="The server.")
    name: RegisteredName = Field(description="Name of the registered model.")
    versions: Annotated[list[RegisteredVersion], Field(max_length=MAX_REGISTERED)] = Field(
        default_factory=list, description="The newest registered versions, by number."
    )
    aliases: Annotated[list[RegisteredAlias], Field(max_length=64)] = Field(
        default_factory=list, description="The aliases that were set there."
    )


class VersionToRegister(ApiModel):
    """A ModelVersion as the registry gets it."""

    version: int = Field(ge=1, le=MAX_COUNT, description="Number of the ModelVersion.")
    uid: ShortText = Field(description="Of the ModelVersion.")
    source: KnownUri = Field(description="Where its files are.")
    run_id: RunId | None = Field(default=None, description="The MLflow run that trained it, on the same server.")
    tags: dict[str, str] = Field(default_factory=dict, description="Further tags.")
