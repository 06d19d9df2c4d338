"""The taints that pods of Hone tolerate, at the real API server: those of the chart without a key, and no others."""

from __future__ import annotations

import pytest
from support.cluster.operator_writes import VALUES, job
from support.cluster.rights import installed

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("operator's rights")]
ALL = {"operator": "Exists"}
STAY = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
EMPTY_KEY = {"key": "", "operator": "Exists", "effect": "NoSchedule"}
POOL = {"key": "pool", "operator": "Exists"}
CHARTS = {
    "every taint": ("hone-all-taints", [ALL], []),
    "taints by effect": ("hone-effects", [POOL, STAY], [EMPTY_KEY]),
    "no toleration": ("hone-no-taints", [], []),
}


@pytest.fixture(scope="module", params=CHARTS)
def cluster(request, kube, apiserver):
    """(name of the case, user of the operator) with the chart's policies for these tolerations in force."""
    system, training, staging = CHARTS[request.param]
    trainer = {**VALUES["trainer"], "pods": {"tolerations": training}}
    values = {"trainer": trainer, "staging": {"pods": {"tolerations": staging}}, "namespaces": ["default"]}
    with installed(kube, apiserver, system, {**values, "tenants": {"tolerationKeys": ["team"]}}):
        yield request.param, f"system:serviceaccount:{system}:hone"


@pytest.mark.parametrize(
    ("tolerations", "taken_by"),
    [
        ([], CHARTS),
        ([{"key": "team", "operator": "Exists"}], CHARTS),
        ([{"key": "other", "operator": "Exists"}], ()),
        ([ALL], ("every taint",)),
        ([ALL, {"key": "team", "value": "a"}], ("every taint",)),
        ([ALL, {"key": "other", "value": "a"}], ()),
        ([POOL, STAY], ("taints by effect",)),
        ([STAY, {"operator": "Exists", "effect": "NoSchedule"}], ("taints by effect",)),
        ([EMPTY_KEY], ("taints by effect",)),
        ([{"operator": "Exists", "effect": "NoExecute"}], ()),
        ([{**STAY, "tolerationSeconds": 1}], ()),
        ([{"operator": "Exists", "effect": "PreferNoSchedule"}], ()),
    ],
)
def test_a_job_tolerates_what_the_chart_names(cluster, kube, tolerations, taken_by):
    case, operator = cluster
    path = "/apis/batch/v1/namespaces/default/jobs?dryRun=All"
    code, message = kube.impersonate(operator, "POST", path, job(tolerations=tolerations))
    if case in taken_by:
        assert code == 201, message
    else:
        assert code == 403, message
        assert "a taint is tolerated that is not one of tenants.tolerationKeys" in message
