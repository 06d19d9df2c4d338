"""The FineTuneJob that repeats another one on the present content of its Datasets."""

from collections.abc import Mapping
from typing import Any

from hone_api import API_VERSION
from hone_operator.desired.core import names

COMPONENT = "retrain"
LONGEST_NAME = 52
"""Of a FineTuneJob."""


def name(model: str, template: Mapping[str, Any], digests: Mapping[str, str], base: str | None = None) -> str:
    """The job's name: equal for an equal template and equal content, so no operator creates it twice.

    Args:
        base: commit or ModelVersion that the template's base names; None: it does not count.
    """
    own = model if model[0].isalpha() else f"m-{model}"  # a Service is called like the job
    return names.fit(
        own, f"r{names.digest(_spec(template), dict(digests), *([base] if base else ()), length=10)}", LONGEST_NAME
    )


def job(
    model: Mapping[str, Any], job_name: str, template: Mapping[str, Any], hours: float | None = None
) -> dict[str, Any]:
    """The job; deleted with its Model, while the versions stay.

    Args:
        hours: GPU hours that the template's budget leaves for it; None: the template has none.
    """
    labels = names.labels(COMPONENT, model)
    return {
        "apiVersion": API_VERSION,
        "kind": "FineTuneJob",
        "metadata": names.metadata(job_name, model, labels),
        "spec": _spec(template) | ({} if hours is None else {"budget": {"gpuHours": f"{hours:.4f}"}}),
    }


def _spec(template: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the template was suspended says nothing about its repetition."""
    return {field: value for field, value in template["spec"].items() if field != "suspend"}
