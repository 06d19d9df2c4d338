"""Where pods may run: the user's settings, and what GPUs need."""

from collections.abc import Sequence
from typing import Any

from hone_api.kinds.finetunejob import FineTuneJobSpec

GPU_PRODUCT = "nvidia.com/gpu.product"
"""Node label of NVIDIA's GPU feature discovery."""


def extended_gpus(spec: FineTuneJobSpec) -> dict[str, str]:
    """The GPUs of a pod as an extended resource; empty if it has none, or if its claims have them."""
    resources = spec.resources
    if resources.gpus_per_node and resources.gpus_from == "ExtendedResource":
        return {resources.gpu_resource_name: str(resources.gpus_per_node)}
    return {}


def scheduling(spec: FineTuneJobSpec, avoided_nodes: Sequence[str] = ()) -> dict[str, Any]:
    """Fields of a pod's spec.

    Args:
        avoided_nodes: names of nodes. A preference, not a requirement, so that a run on the only node still starts.
    """
    wish, resources = spec.scheduling, spec.resources
    out: dict[str, Any] = {}
    tolerations = [t.to_json() for t in wish.tolerations or []]
    if extended_gpus(spec):
        # The same as the ExtendedResourceToleration admission plugin would add.
        tolerations.append({"key": resources.gpu_resource_name, "operator": "Exists", "effect": "NoSchedule"})
    if tolerations:
        out["tolerations"] = tolerations
    if wish.node_selector:
        out["nodeSelector"] = dict(wish.node_selector)
    if wish.priority_class_name:
        out["priorityClassName"] = wish.priority_class_name
    if resources.claims:
        out["resourceClaims"] = [claim.to_json() for claim in resources.claims]
    affinity: dict[str, Any] = {}
    if resources.gpu_products:
        expression = {"key": GPU_PRODUCT, "operator": "In", "values": list(resources.gpu_products)}
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
            "nodeSelectorTerms": [{"matchExpressions": [expression]}]
        }
    if avoided_nodes:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [_away_from(node) for node in avoided_nodes]
    if affinity:
        out["affinity"] = {"nodeAffinity": affinity}
    return out


def _away_from(node: str) -> dict[str, Any]:
    field = {"key": "metadata.name", "operator": "NotIn", "values": [node]}  # the API takes one value for a field
    return {"weight": 100, "preference": {"matchFields": [field]}}
