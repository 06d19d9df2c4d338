"""Experiment trackers and model registries: where a run is logged, and where its model is registered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.meta import ApiModel, HttpUrl, Name, Rule, uri_rules

TOKEN_KEY, USER_KEY, PASSWORD_KEY = "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Keys of a Secret, named as the variables from which MLflow's own client reads them."""
JOB_TAG = "hone.job_uid"
"""Tag by which the MLflow run of a FineTuneJob is found again: its uid."""
VERSION_TAG = "hone.model_version_uid"
"""Tag by which the MLflow version of a ModelVersion is found again: its uid."""
SECRET_KEYS = f"{TOKEN_KEY}, or {USER_KEY} and {PASSWORD_KEY}"
ExperimentName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=1, max_length=250)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]+$", max_length=64)]


class Tracking(ApiModel):
    """An experiment tracker that also gets the metrics."""

    rules = (
        *uri_rules(),
        Rule(
            "self.type != 'MLflow' || has(self.uri)",
            "set uri, e.g. https://mlflow.example.org: there is no default server",
            holds=lambda tracking: tracking.type != "MLflow" or tracking.uri is not None,
        ),
    )

    type: Literal["MLflow", "WandB", "Trackio"] = Field(
        description="MLflow. WandB and Trackio are not supported yet, and are refused."
    )
    uri: HttpUrl | None = Field(
        default=None,
        description="The tracking server, e.g. https://mlflow.example.org, or http:// for a Service of this namespace. "
        "Required for MLflow.",
    )
    experiment: ExperimentName | None = Field(
        default=None,
        description="Name of the experiment, which is created if there is none. Default: output.modelName.",
    )
    secret_name: Name | None = Field(
        default=None, description=f"Secret in this namespace with {SECRET_KEYS}. Default: no credentials."
    )


class TrackedRun(ApiModel):
    """The run of an experiment tracker that has the metrics of a job."""

    uri: HttpUrl = Field(description="The tracking server.")
    experiment: ExperimentName = Field(description="Name of the experiment.")
    run_id: RunId = Field(description="Id of the run.")
