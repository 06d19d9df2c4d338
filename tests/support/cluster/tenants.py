"""A tenant's namespace under the chart's admission policies, and what a user may do there."""

from __future__ import annotations

import contextlib

from support.cluster.rights import installed

SYSTEM, TENANT = "hone-tenants", "tenants-a"
HONE = f"/apis/hone.dev/v1alpha1/namespaces/{TENANT}"
VALUES = {
    "admission": {"separateDuties": True, "serviceAccounts": ["pipelines:release", "argo:*"]},
    "tenants": {
        "priorityClasses": ["batch-*"],
        "tolerationKeys": ["nvidia.com/*", "team", "node-role.kubernetes.io/*"],
        "nodeSelectorKeys": ["*", "n*"],
        "models": ["hf://a/*", "pvc://files/*", "pvc://models/smol"],
        "maxGpus": 8,
        "serviceAccounts": ["trainer-*"],
        "runtimeClasses": ["kata"],
        "resourceClaimTemplates": ["gpu-*"],
        "workloadPriorityClasses": ["batch"],
        "podKeys": ["karpenter.sh/*", "example.org/team"],
        "destinations": ["oci://registry.example.org/team-a/*", "s3://bucket/x"],
    },
}


MODEL = {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": "older"}}
MODEL["spec"] = {"imports": [{"uri": "hf://other/b", "secretName": "database-password", "base": {"uri": "hf://o/c"}}]}
PLURALS = {"FineTuneJob": "finetunejobs", "Dataset": "datasets", "Model": "models", "ModelVersion": "modelversions"}


@contextlib.contextmanager
def tenant(kube, apiserver):
    """A namespace with objects from before the limits, and the chart with VALUES. Yields the operator's account."""

    # Applied, not created: where tests are taken over by another process, this fixture may be set up again.
    def apply(path, body):
        kube.call("PATCH", f"{path}?fieldManager=tests&force=true", body, "application/apply-patch+yaml")

    space = {"name": TENANT, "labels": {"hone.dev/enabled": "true"}}
    apply(f"/api/v1/namespaces/{TENANT}", {"apiVersion": "v1", "kind": "Namespace", "metadata": space})
    older = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": {"name": "older"}}
    apply(f"{HONE}/models/older", MODEL)
    older["spec"] = {"source": {"uri": "hf://a/b", "secretName": "database-password"}}
    apply(f"{HONE}/datasets/older", older)
    with installed(kube, apiserver, SYSTEM, VALUES) as user:
        yield user


def allowed(kube, user, verb, resource):
    """Whether the API server knows that they may: it learns of a new binding a moment after it was written."""
    asked = {"namespace": TENANT, "verb": verb, "group": "hone.dev", "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": asked},
    }
    return kube.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]
