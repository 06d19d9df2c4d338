"""Builds the empty Model that appears when a job first names it."""

from collections.abc import Mapping
from typing import Any

from hone_api import API_VERSION


def model(job: Mapping[str, Any]) -> dict[str, Any]:
    """The Model of a job's output. Without owner and labels: from its creation on it belongs to the people."""
    name, namespace = job["spec"]["output"]["modelName"], job["metadata"]["namespace"]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": "Model", "metadata": metadata, "spec": {}}
