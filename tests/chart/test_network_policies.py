"""The NetworkPolicies of the chart: who reaches metrics and ranks, and who keeps the way out."""

import pytest
import yaml
from support.cluster.chart_documents import named

from hone_operator.desired.staging import encode
from hone_operator.desired.version import deliver

pytestmark = pytest.mark.pure
MONITORING = [{"namespaceSelector": {"matchLabels": {"team": "observers"}}}]
RESTRICTED = {
    "watchNamespaces": ["a", "b"],
    "networkPolicy": {
        "metricsFrom": MONITORING,
        "dns": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dns"}}}],
        "operator": {"restrictEgress": True},
        "trainer": {"namespaces": ["b", "c"], "extraEgress": [{"ports": [{"port": 443}]}]},
    },
}


def policies(documents):
    return {
        (d["metadata"]["namespace"], d["metadata"]["name"]): d["spec"]
        for d in documents
        if d["kind"] == "NetworkPolicy"
    }


def peers_at(spec, port):
    """From where this port can be reached, by each rule; None: from everywhere."""
    rules = spec.get("ingress", [])
    return [
        rule.get("from") for rule in rules if "ports" not in rule or port in [ports["port"] for ports in rule["ports"]]
    ]


@pytest.mark.attack("metrics")
@pytest.mark.parametrize(
    "policy",
    [("hone-system", "hone"), ("a", "hone-pods"), ("b", "hone-pods"), ("c", "hone-pods")],
    ids=lambda policy: policy[0],
)
def test_metrics_are_open_to_monitoring_alone(render, policy):
    spec = policies(render(RESTRICTED))[policy]
    own = [[{"podSelector": {}}]] if policy[0] == "hone-system" else []
    assert peers_at(spec, "metrics") == [MONITORING, *own]
    everybody = policies(render({**RESTRICTED, "networkPolicy": {"metricsFrom": [], "trainer": {"namespaces": ["c"]}}}))
    assert None in peers_at(everybody[policy], "metrics")


@pytest.mark.attack("rendezvous")
@pytest.mark.parametrize("namespace", ["a", "b", "c"])
def test_pods_of_two_runs_do_not_reach_each_other(render, namespace):
    """The policy of a run lets its own ranks in; the chart's lets in nobody but monitoring."""
    spec = policies(render(RESTRICTED))[namespace, "hone-pods"]
    assert spec["podSelector"] == {"matchExpressions": [{"key": "hone.dev/component", "operator": "Exists"}]}
    assert peers_at(spec, 29500) == []


def test_only_listed_namespaces_lose_the_way_out(render):
    found = policies(render(RESTRICTED))
    assert found["a", "hone-pods"]["policyTypes"] == ["Ingress"]
    for namespace in ("b", "c"):
        spec = found[namespace, "hone-pods"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        dns = [rule for rule in spec["egress"] if 53 in [p["port"] for p in rule.get("ports", [])]]
        assert [rule["to"] for rule in dns] == [RESTRICTED["networkPolicy"]["dns"]]
        assert spec["egress"][-1] == {"ports": [{"port": 443}]}
    assert found["hone-system", "hone"]["policyTypes"] == ["Ingress", "Egress"]


def _matches(selector, labels):
    """Whether a selector of pods, whose expressions are all `In`, takes them."""
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", ()))


@pytest.mark.parametrize("component", ["materialize", encode.COMPONENT, "sweep"])
def test_pods_that_share_the_work_on_rows_do_not_reach_each_other(render, component):
    egress = policies(render(RESTRICTED))["b", "hone-pods"]["egress"]
    peers = [peer["podSelector"] for rule in egress if "ports" not in rule for peer in rule["to"]]
    assert peers
    assert not any(_matches(peer, {"hone.dev/component": component}) for peer in peers)


@pytest.mark.parametrize("component", ["training", encode.COMPONENT, deliver.COMPONENT])
def test_pods_that_report_their_progress_reach_the_operator(render, component):
    peers = [p for rule in peers_at(policies(render())["hone-system", "hone"], "progress") for p in rule]
    anywhere = [peer["podSelector"] for peer in peers if peer.get("namespaceSelector") == {}]
    assert any(_matches(peer, {"hone.dev/component": component}) for peer in anywhere)


def test_by_default_nobody_loses_the_way_out(render):
    """Hubs, mirrors and API servers have any address and port."""
    found = policies(render())
    assert set(found) == {("hone-system", "hone")}
    assert found["hone-system", "hone"]["policyTypes"] == ["Ingress"]
    reports = peers_at(found["hone-system", "hone"], "progress")
    training = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"hone.dev/component": "training"}}}
    assert [training] in reports
    off = {"operator": {"enabled": False}, "trainer": {"ingress": False}}
    assert policies(render({"watchNamespaces": ["a"], "networkPolicy": off})) == {}


def test_the_operator_opens_the_metrics_of_ranks_to_the_same(render):
    config = yaml.safe_load(named(render(RESTRICTED), "ConfigMap", "hone-config")["data"]["config.yaml"])
    assert config["metricsFrom"] == MONITORING
