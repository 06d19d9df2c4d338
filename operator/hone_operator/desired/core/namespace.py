"""Objects that the operator creates once in a namespace that opts in by label: its own rights, and closed ports of
pods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone_operator.desired.core import names
from hone_operator.desired.core.pod import METRICS_PORT

RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class NamespaceSetup:
    """The setup of one namespace."""

    namespace: str
    role: str
    """The ClusterRole. All objects have its name, and it owns them, so they are removed with the chart."""
    role_uid: str

    @property
    def _metadata(self) -> dict[str, Any]:
        owner = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "name": self.role, "uid": self.role_uid}
        return {
            "name": self.role,
            "namespace": self.namespace,
            "labels": {"app.kubernetes.io/managed-by": names.FIELD_MANAGER},
            "ownerReferences": [owner],
        }

    def binding(self, service_account: str, of_namespace: str) -> dict[str, Any]:
        """The RoleBinding for the operator's service account."""
        return {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": self._metadata,
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": self.role},
            "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": of_namespace}],
        }

    def closed_ports(self, metrics_from: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The NetworkPolicy that closes the ports of Hone's pods, except their metrics to these peers (no peers: to
        everybody).

        The ranks of a run reach each other by the policy of that run.
        """
        metrics: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": METRICS_PORT}]}
        if metrics_from:
            metrics["from"] = [_as_stored(dict(peer)) for peer in metrics_from]
        pods = {"matchExpressions": [{"key": names.COMPONENT, "operator": "Exists"}]}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self._metadata,
            "spec": {"podSelector": pods, "ingress": [metrics], "policyTypes": ["Ingress"]},
        }


def _as_stored(value: Any) -> Any:
    """The value as the API server returns it: without empty lists and labels. An empty selector stays: it selects
    all."""
    if isinstance(value, list):
        return [_as_stored(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {name: _as_stored(item) for name, item in value.items() if item is not None and item != []}
    return {name: item for name, item in kept.items() if (name, item) != ("matchLabels", {})}
