"""Admission webhooks of the platform that change Jobs, as Kyverno's own policies do: values of the chart let them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from support.cluster.desired_objects import CASES, PLATFORM
from support.cluster.operator_writes import ENABLED
from support.cluster.rights import installed

pytestmark = [pytest.mark.apiserver, pytest.mark.outside]
SYSTEM = "hone-hardened"
JOBS = f"/apis/batch/v1/namespaces/{ENABLED}/jobs"
DOCS = Path(__file__).parents[3] / "docs"
IMAGE = {"repository": "registry.example/hone/trainer", "digest": f"sha256:{'1' * 64}"}
EVICT = "karpenter.sh/do-not-evict"
SAFE = "cluster-autoscaler.kubernetes.io/safe-to-evict"
BACKUP = "backup.velero.io/backup-volumes"
CREATED = "kyverno.io/created-by"
MIRRORED = "mirror.example/trainer@sha256:" + "1" * 64
NDOTS = {"options": [{"name": "ndots", "value": "1"}]}
USER = {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000}
FROM = [{"configMapRef": {"name": "nsenvvars"}}]
CONTAINER = {"privileged": False, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
PROXY = [{"name": "HTTPS_PROXY", "value": "https://proxy.example"}]
LOG4J = [{"name": "LOG4J_FORMAT_MSG_NO_LOOKUPS", "value": "true"}]
ROLE = [{"key": "org.com/role", "operator": "Equal", "value": "service", "effect": "NoSchedule"}]
SIZES = {"requests": {"cpu": "100m"}, "limits": {"ephemeral-storage": "9Gi"}}
CHANGES = {
    "castai/add-castai-removal-disabled": ("template", {"labels": {"autoscaling.cast.ai/removal-disabled": "true"}}),
    "best-practices/add-safe-to-evict": ("template", {"annotations": {SAFE: "true"}}),
    "karpenter/add-karpenter-donot-evict": ("template", {"annotations": {EVICT: "true"}}),
    "karpenter/add-karpenter-nodeselector": ("pod", {"nodeSelector": {"karpenter.sh/capacity-type": "spot"}}),
    "karpenter/set-karpenter-non-cpu-limits": ("container", {"resources": SIZES}),
    "other/add-default-resources": ("container", {"resources": SIZES}),
    "other/add-default-securitycontext": ("pod", {"securityContext": {"runAsNonRoot": True, **USER}}),
    "other/add-env-vars-from-cm": ("container", {"envFrom": FROM}),
    "other/add-imagepullsecrets": ("pod", {"imagePullSecrets": [{"name": "my-secret"}]}),
    "other/add-imagepullsecrets-for-containers-and-initcontainers": (
        "pod",
        {"imagePullSecrets": [{"name": "regcred"}]},
    ),
    "other/add-labels": ("template", {"labels": {"foo": "bar"}}),
    "other/add-ndots": ("pod", {"dnsConfig": NDOTS}),
    "other/add-nodeSelector": ("pod", {"nodeSelector": {"foo": "bar"}}),
    "other/add-pod-priorityclassname": ("pod", {"priorityClassName": "non-production"}),
    "other/add-pod-proxies": ("container", {"env": PROXY}),
    "other/add-tolerations": ("pod", {"tolerations": ROLE}),
    "other/add-ttl-jobs": ("job", {"ttlSecondsAfterFinished": 900}),
    "other/always-pull-images": ("container", {"imagePullPolicy": "Always"}),
    "other/apply-pss-restricted-profile": ("both", {"pod": USER, "container": CONTAINER}),
    "other/disable-service-discovery": ("pod", {"dnsPolicy": "Default", "enableServiceLinks": False}),
    "other/dns-policy-and-dns-config": ("pod", {"dnsPolicy": "Default", "dnsConfig": NDOTS}),
    "other/mitigate-log4shell": ("container", {"env": LOG4J}),
    "other/mutate-large-termination-gps": ("pod", {"terminationGracePeriodSeconds": 50}),
    "other/prepend-image-registry": ("container", {"image": MIRRORED}),
    "other/record-creation-details": ("metadata", {"annotations": {CREATED: "{}"}}),
    "other/resolve-image-to-digest": ("container", {"image": f"{IMAGE['repository']}@{IMAGE['digest']}"}),
    "velero/backup-all-volumes": ("template", {"annotations": {BACKUP: "plan"}}),
}
"""{policy: (what it changes, how)} of all in github.com/kyverno/policies (March 2026) that change Jobs, most because
Kyverno applies policies on pods to Jobs as well. `other/add-certificates-volume` is not covered."""
VALUES = {
    "trainer": {
        "image": IMAGE,
        "imagePullSecrets": [*PLATFORM.trainer.image_pull_secrets, "my-secret", "regcred"],
        "extraEnv": PLATFORM.trainer.extra_env | {variable["name"]: variable["value"] for variable in PROXY + LOG4J},
    },
    "tenants": {"podKeys": [SAFE, EVICT, BACKUP]},
    "admission": {
        "extraImages": [MIRRORED],
        "extraFields": {
            "job": {"ttlSecondsAfterFinished": 900},
            "pod": {"dnsConfig": NDOTS, "dnsPolicy": "Default", "securityContext": USER},
            "container": {"envFrom": FROM, "securityContext": {"privileged": False}},
        },
    },
}
OTHERS = {
    "another time": ("job", {"ttlSecondsAfterFinished": 901}),
    "another field of the Job": ("job", {"ttlSecondsAfterFinished": 900, "activeDeadlineSeconds": 1}),
    "another name server": ("pod", {"dnsConfig": {"nameservers": ["10.0.0.1"]}}),
    "another DNS policy": ("pod", {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1"]}}),
    "root": ("pod", {"securityContext": {**USER, "runAsUser": 0}}),
    "any user": ("pod", {"securityContext": {"runAsNonRoot": False}}),
    "another ConfigMap": ("container", {"envFrom": [{"configMapRef": {"name": "mine"}}]}),
    "a Secret": ("container", {"envFrom": [*FROM, {"secretRef": {"name": "database"}}]}),
    "privileges": ("container", {"securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}),
    "a capability": ("container", {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}}),
}


@pytest.fixture(scope="module")
def ask(kube, apiserver):
    """Dry run of the operator, which gets (code, message) of this Job."""
    meta = {"name": ENABLED, "labels": {"hone.dev/enabled": "true"}}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
    kube.call("PATCH", f"/api/v1/namespaces/{ENABLED}?fieldManager=tests", body, "application/apply-patch+yaml")
    with installed(kube, apiserver, SYSTEM, VALUES):
        operator = f"system:serviceaccount:{SYSTEM}:hone"
        yield lambda job: kube.impersonate(operator, "POST", f"{JOBS}?dryRun=All", job)


def changed(where, change):
    """The Job of a run with what a webhook sets in it."""
    job = copy.deepcopy(next(made for made in CASES["training-one-pod"]() if made["kind"] == "Job"))
    job["metadata"]["namespace"] = ENABLED
    pod = job["spec"]["template"]["spec"]
    places = {"metadata": job["metadata"], "job": job["spec"], "pod": pod, "container": pod["containers"][0]}
    places["template"] = job["spec"]["template"]["metadata"]
    if where == "both":
        for place, context in change.items():
            merge(places[place]["securityContext"], context)
    else:
        merge(places[where], change)
    return job


def merge(target, change):
    """As a webhook does: maps are merged, entries of the lists that Hone writes are added to, all else is set."""
    for key, value in change.items():
        if isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        elif key in ("env", "tolerations", "imagePullSecrets"):
            target[key] = [*target.get(key, ()), *value]
        else:
            target[key] = value


def test_values_of_the_chart_let_webhooks_change_jobs(ask):
    refused = {name: message for name, change in CHANGES.items() if (message := ask(changed(*change))[1])}
    assert "\n".join(f"{name}: {message}" for name, message in refused.items()) == ""
    for name, change in OTHERS.items():
        code, message = ask(changed(*change))
        assert code == 403, f"{name}: {code} {message}"
    (row,) = (line for line in (DOCS / "outside.md").read_text().splitlines() if Path(__file__).name in line)
    assert f"| {len(CHANGES)} of {len(CHANGES) + 1} | {len(CHANGES)} |" in row
