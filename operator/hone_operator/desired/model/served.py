"""The ConfigMap that says which adapters the servers of a namespace may load."""

from collections.abc import Mapping
from typing import Any

from hone_api.contract.served import CONFIG_MAP
from hone_operator.desired.core import names


def served_config_map(namespace: str, data: Mapping[str, str]) -> dict[str, Any]:
    """The ConfigMap. It has no owner: pods mount it, whichever Model comes and goes."""
    labels = {"app.kubernetes.io/managed-by": names.FIELD_MANAGER}
    metadata = {"name": CONFIG_MAP, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
