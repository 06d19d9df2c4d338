"""The values below networkPolicy: who reaches the operator and Hone's pods, and what they reach."""

from __future__ import annotations

from pydantic import Field

from hone_api.base.meta import Name
from hone_dev.chart.value_types import Egress, Peer
from hone_operator.settings.section import Section


def _by_name(*namespaces: str) -> Peer:
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(namespaces)}
    return {"namespaceSelector": {"matchExpressions": [expression]}}


class OperatorPolicy(Section):
    enabled: bool = Field(
        True,
        description="Let only reports of pods that train, scrapes by metricsFrom, and probes reach the operator.",
    )
    restrict_egress: bool = Field(False, description="Let the operator reach only networkPolicy.dns and egress.")
    egress: list[Egress] = Field(
        default_factory=lambda: [
            {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]},
        ],
        description="With restrictEgress: what the operator may reach in addition to DNS; by default the API server.",
    )


class TrainerPolicy(Section):
    ingress: bool = Field(
        True,
        description="Let only metricsFrom reach Hone's pods in watchNamespaces, namespaces and labelled namespaces. "
        "For each run on several nodes, the operator creates a policy that lets its ranks reach each other.",
    )
    namespaces: list[Name] = Field(
        default_factory=list,
        description="Namespaces in which Hone's pods may reach only networkPolicy.dns, the operator, ranks of runs "
        "and extraEgress.",
    )
    extra_egress: list[Egress] = Field(
        default_factory=list,
        description="What else they may reach: your storage and your model hub. If you allow a range of addresses, "
        "exclude 169.254.0.0/16, the metadata services of clouds: see docs/guides/security.md.",
    )


class NetworkPolicy(Section):
    metrics_from: list[Peer] = Field(
        default_factory=lambda: [
            _by_name("monitoring", "prometheus", "observability", "kube-prometheus-stack", "openshift-monitoring")
        ],
        description="Peers of NetworkPolicies that may read the metrics of the operator and of pods that train: "
        "the namespace of your Prometheus. Empty: everybody may.",
    )
    dns: list[Peer] = Field(
        default_factory=lambda: [
            {**_by_name("kube-system"), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}},
            {"ipBlock": {"cidr": "169.254.20.10/32"}},
        ],
        description="Peers that answer DNS at port 53, used if egress is restricted: kube-dns or CoreDNS, and "
        "NodeLocal DNSCache.",
    )
    operator: OperatorPolicy = Field(default_factory=OperatorPolicy)
    trainer: TrainerPolicy = Field(default_factory=TrainerPolicy)
