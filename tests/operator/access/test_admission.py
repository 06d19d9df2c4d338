"""The writes of the operator's service account: bounded by RBAC and, whoever holds its token, by admission policies."""

import copy

import pytest
from support.cluster.operator_writes import (
    BAD_PODS,
    CLOSED,
    ENABLED,
    GROUP,
    OBJECTS,
    OPERATOR,
    OWNER,
    RANKS,
    ROLE,
    SYSTEM,
    VALUES,
    changed,
    job,
    mounted,
    of_content,
    of_dataset,
    of_namespace,
    policy,
    token,
)
from support.cluster.rights import installed

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("operator's rights")]


@pytest.fixture(scope="module")
def account(kube, apiserver):
    """The operator's account, one namespace that has opted in and one that has not."""
    for name, labels in ((ENABLED, {"hone.dev/enabled": "true"}), (CLOSED, {})):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        # Applied, not created: where a process takes tests over, this fixture may be set up again.
        kube.call("PATCH", f"/api/v1/namespaces/{name}?fieldManager=tests", body, "application/apply-patch+yaml")
    with installed(kube, apiserver, SYSTEM, VALUES) as user:
        yield user


@pytest.fixture
def write(kube, account):
    """(code, message) of a write as the operator whom RBAC would allow everything: admission alone is left."""

    def ask(verb, path, body):
        return kube.impersonate(OPERATOR, verb, f"{path}?dryRun=All", body)

    return ask


def test_an_ordinary_job_is_admitted(write):
    for made in (job(), job(**token(audience="progress.hone.dev"))):
        code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", made)
        assert code == 201, message


@pytest.mark.parametrize(
    "fields",
    [
        {"serviceAccountName": "trainer-a"},
        {"serviceAccountName": "stager"},
        {"container": {"env": [{"name": "NCCL_DEBUG", "valueFrom": {"secretKeyRef": {"name": "hone-a", "key": "a"}}}]}},
    ],
    ids=[
        "an account that jobs may name",
        "the account of the platform",
        "a key of a Secret of Hone",
    ],
)
def test_a_job_has_what_spec_pod_may_ask_for(write, fields):
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", job(**fields))
    assert code == 201, message


def test_a_job_has_claims_of_the_values(write):
    claims = [{"name": "a", "resourceClaimTemplateName": "gpu-8"}]
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", job(resourceClaims=claims))
    assert code == 201, message


@pytest.mark.parametrize("runtime", ["kata", "gvisor", "runsc"])
def test_a_job_has_a_runtime_of_the_values(write, runtime):
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", job(runtimeClassName=runtime))
    assert code == 201, message


@pytest.mark.parametrize(
    "mount",
    [
        {"subPath": "runs/y"},
        {"subPath": "models/y"},
        {"subPath": "models/parent", "readOnly": True},
        {"readOnly": True},
    ],
)
def test_a_run_mounts_its_own_folders_and_reads_others(write, mount):
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", job(**mounted(**mount)))
    assert code == 201, message


@pytest.mark.parametrize(
    ("mount", "code"),
    [
        ({"subPath": "models/import-0123"}, 201),
        ({"subPath": "base-models"}, 201),
        ({"readOnly": True}, 201),
        ({"subPath": "models/y"}, 403),
        ({"subPath": "models"}, 403),
        ({"subPath": "datasets"}, 403),
        ({}, 403),
    ],
)
def test_an_import_writes_its_own_folder_and_bases(write, mount, code):
    body = job(**mounted(**mount))
    body["metadata"]["ownerReferences"][0] |= {"kind": "Model"}
    assert write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", body)[0] == code


def rows(verb="materialize", before=None, **mount):
    """A Job of Dataset `x.y` with a writable mount in the container that runs the verb."""
    body = job(**mounted(**mount))
    spec = body["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    container["command"][3] = verb
    if verb != "publish":
        publisher = container | {
            "name": "publisher",
            "command": [*container["command"][:3], "publish", "/etc/hone/plan.json"],
        }
        del publisher["volumeMounts"]
        spec["initContainers"], spec["containers"] = [container | (before or {})], [publisher]
    body["metadata"]["ownerReferences"][0] |= {"kind": "Dataset", "name": "x.y"}
    return body


@pytest.mark.parametrize(
    "body",
    [
        rows("publish"),
        rows(subPath="incoming/x-1"),
        rows("mix", subPath="incoming/x-1"),
        rows(subPath="source-files/y"),
        rows(subPath="synthesis/x-y/abc"),
        rows(readOnly=True),
    ],
    ids=["publisher", "own folder", "mixture", "files of its source", "generated rows", "read only"],
)
def test_what_parses_rows_writes_a_folder_of_its_own_and_another_container_publishes(write, body):
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", body)
    assert code == 201, message


@pytest.mark.parametrize(
    "body",
    [
        rows(),
        rows(subPath="incoming"),
        rows(subPath="incoming/x-2"),
        rows(subPath="source-files/z"),
        rows(subPath="source-files"),
        rows(subPath="datasets"),
        rows(subPath="reports/x-y"),
        rows(subPath="synthesis"),
        rows(subPath="synthesis/x-y-z/abc"),
        rows("mix"),
        rows(before={"restartPolicy": "Always"}, subPath="incoming/x-1"),
        rows(before={"image": "docker.io/library/busybox"}, subPath="incoming/x-1"),
    ],
    ids=[
        *(
            "whole store",
            "everybody's incoming",
            "another job's",
            "another Dataset's source",
            "all sources",
            "rows of all",
        ),
        *("reports", "generated rows of all"),
        *("generated rows of another", "whole store, mixture", "sidecar", "foreign image"),
    ],
)
def test_what_parses_rows_writes_nothing_else(write, body):
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", body)
    assert code == 403, message
    assert "ValidatingAdmissionPolicy 'hone-bounds-hone-operator-jobs'" in message


@pytest.mark.parametrize("pod", BAD_PODS.values(), ids=BAD_PODS.keys())
def test_a_job_that_is_none_of_ours_is_refused(write, pod):
    code, message = write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", job(**copy.deepcopy(pod)))
    assert code == 403, message
    assert "ValidatingAdmissionPolicy 'hone-bounds-hone-operator-jobs'" in message


def test_what_jobs_share_belongs_to_the_store_and_its_plan_to_the_job(write):
    body, plan = job(), copy.deepcopy(OBJECTS["ConfigMap"][1])
    owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "hone-store"}
    body["metadata"]["ownerReferences"][0] |= owner
    assert write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", body)[0] == 201
    plan["metadata"]["ownerReferences"][0] |= {"apiVersion": "batch/v1", "kind": "Job"}
    assert write("POST", f"/api/v1/namespaces/{ENABLED}/configmaps", plan)[0] == 201
    body["metadata"]["ownerReferences"][0] |= {"name": "database"}
    assert write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", body)[0] == 403


def test_a_job_without_an_owner_of_ours_is_refused(write):
    body = job()
    body["metadata"]["ownerReferences"][0] |= {"apiVersion": "apps/v1", "kind": "Deployment"}
    assert write("POST", f"/apis/batch/v1/namespaces/{ENABLED}/jobs", body)[0] == 403


@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", SYSTEM, "default", CLOSED])
@pytest.mark.parametrize(
    "kind", ["Job", "ConfigMap", "Service", "NetworkPolicy", "PersistentVolumeClaim", "RoleBinding", "FineTuneJob"]
)
def test_nothing_is_made_where_hone_does_not_work(write, namespace, kind):
    path, body = OBJECTS[kind]
    assert write("POST", path.format(ENABLED), body)[0] == 201
    code, message = write("POST", path.format(namespace), body)
    assert code == 403, message
    assert "neither in kube-* nor in its own namespace" in message or "hone.dev/enabled=true" in message


def test_the_operator_may_close_the_ports_of_a_namespace(write):
    kind, body = of_namespace()
    code, message = write("POST", OBJECTS[kind][0].format(ENABLED), body)
    assert code == 201, message


@pytest.mark.parametrize("made", [of_dataset, of_content], ids=["of a Dataset", "that encode"])
def test_the_operator_may_close_the_ports_of_pods_that_share_work(write, made):
    kind, body = made()
    code, message = write("POST", OBJECTS[kind][0].format(ENABLED), body)
    assert code == 201, message


BAD_OBJECTS = {
    "NetworkPolicy of another Dataset's pods": of_dataset("y"),
    "NetworkPolicy that opens pods of a Dataset": of_dataset(ingress=[{}]),
    "NetworkPolicy of pods that encode other content": of_content(content="1" * 16),
    "NetworkPolicy that opens pods that encode": of_content(ingress=[{}]),
    "NetworkPolicy of another name than its Job's": of_content("y-1"),
    "NetworkPolicy of all other pods": of_namespace(podSelector={}),
    "NetworkPolicy of pods without our label": of_namespace(
        podSelector={"matchExpressions": [{"key": "hone.dev/component", "operator": "DoesNotExist"}]}
    ),
    "NetworkPolicy that opens all ports": of_namespace(ingress=[{}]),
    "NetworkPolicy of a namespace that belongs to nobody": (
        "NetworkPolicy",
        {**of_namespace()[1], "metadata": {"name": ROLE, "ownerReferences": OWNER}},
    ),
    "NetworkPolicy of all pods by another name": (
        "NetworkPolicy",
        {**of_namespace()[1], "metadata": {**of_namespace()[1]["metadata"], "name": "x-1"}},
    ),
    "NetworkPolicy of nobody": changed("NetworkPolicy", metadata={"name": "x-1"}),
    "NetworkPolicy of another's ranks": changed("NetworkPolicy", metadata={"name": "y-1", "ownerReferences": OWNER}),
    "NetworkPolicy of all pods": policy(podSelector={}),
    "NetworkPolicy of a database": policy(podSelector={"matchLabels": {"app": "database"}}),
    "NetworkPolicy by an expression": policy(
        podSelector={**RANKS, "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}
    ),
    "NetworkPolicy that opens ranks": policy(ingress=[{}]),
    "NetworkPolicy for all namespaces": policy(ingress=[{"from": [{"namespaceSelector": {}}]}]),
    "NetworkPolicy for ranks elsewhere": policy(ingress=[{"from": [{"podSelector": RANKS, "namespaceSelector": {}}]}]),
    "NetworkPolicy for addresses": policy(ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
    "NetworkPolicy for all pods": policy(ingress=[{"from": [{"podSelector": {}}]}]),
    "NetworkPolicy of another port": policy(ingress=[{"ports": [{"port": 29500}]}]),
    "NetworkPolicy of many ports": policy(ingress=[{"ports": [{"port": 9400, "endPort": 65535}]}]),
    "NetworkPolicy of egress": policy(policyTypes=["Ingress", "Egress"], egress=[{}]),
    "ConfigMap of nobody": changed("ConfigMap", metadata={"name": "free"}),
    "ConfigMap that can change": changed("ConfigMap", immutable=False),
    "ConfigMap by another name": changed("ConfigMap", metadata={"name": "settings", "ownerReferences": OWNER}),
    "ConfigMap of an invented kind": changed(
        "ConfigMap", metadata={"name": "x-1-0123abcd", "ownerReferences": [{**OWNER[0], "kind": "X"}]}
    ),
    "Service with external addresses": changed(
        "Service", spec={"clusterIP": "None", "externalIPs": ["10.1.1.1"], "ports": [{"port": 443}]}
    ),
    "Service outside the cluster": changed("Service", spec={"type": "ExternalName", "externalName": "evil.example"}),
    "Service with a node port": changed("Service", spec={"type": "NodePort", "ports": [{"port": 443}]}),
    "claim by another name": changed("PersistentVolumeClaim", metadata={"name": "database"}),
    "claim on a chosen volume": changed(
        "PersistentVolumeClaim",
        spec={**OBJECTS["PersistentVolumeClaim"][1]["spec"], "volumeName": "pv-of-another-team"},
    ),
    "binding to cluster-admin": changed(
        "RoleBinding", roleRef={"apiGroup": GROUP, "kind": "ClusterRole", "name": "cluster-admin"}
    ),
    "binding of somebody else": changed(
        "RoleBinding", subjects=[{"kind": "ServiceAccount", "name": "default", "namespace": ENABLED}]
    ),
    "binding of a group": changed(
        "RoleBinding", subjects=[{"kind": "Group", "name": "system:authenticated", "apiGroup": GROUP}]
    ),
    "FineTuneJob that nobody owns": changed("FineTuneJob", metadata={"name": "m-r1"}),
    "FineTuneJob of another model": changed(
        "FineTuneJob", spec={**OBJECTS["FineTuneJob"][1]["spec"], "output": {"modelName": "other"}}
    ),
    "binding by another name": changed("RoleBinding", metadata={"name": "innocent"}),
}


@pytest.mark.parametrize(("kind", "body"), BAD_OBJECTS.values(), ids=BAD_OBJECTS.keys())
def test_an_object_that_is_none_of_ours_is_refused(write, kind, body):
    code, message = write("POST", OBJECTS[kind][0].format(ENABLED), body)
    assert code == 403, message
    assert "denied request" in message


DRY_RUN = {"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}


@pytest.fixture
def others(kube, account):
    """A function that makes an object of these fields next to those of Hone; they go at the end."""
    made = []

    def make(kind, **metadata):
        path, body = OBJECTS[kind]
        body = {**body, "metadata": {"name": "another", **metadata}}
        if kind == "Job":
            body = {**body, "spec": {**body["spec"], "suspend": True}}
        kube.call("POST", path.format(ENABLED), body)
        made.append(f"{path.format(ENABLED)}/{body['metadata']['name']}")
        return made[-1]

    yield make
    for path in made:
        kube.call("DELETE", f"{path}?propagationPolicy=Background")


@pytest.mark.parametrize("kind", ["Job", "Service", "NetworkPolicy"])
def test_what_somebody_else_has_made_is_not_deleted(write, others, kind):
    code, message = write("DELETE", others(kind), DRY_RUN)
    assert code == 403, message
    assert "only Jobs with the label hone.dev/component" in message


def test_a_job_of_somebody_else_is_not_suspended(kube, others):
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "another"}, "spec": {"suspend": False}}
    path = f"{others('Job')}?dryRun=All&fieldManager=hone&force=true"
    code, message = kube.impersonate(OPERATOR, "PATCH", path, body, content_type="application/apply-patch+yaml")
    assert code == 403, message
    assert "only Jobs with the label hone.dev/component" in message


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [
        ("Job", {"labels": {"hone.dev/component": "training"}}),
        ("Service", {"ownerReferences": OWNER}),
        ("NetworkPolicy", {"ownerReferences": OWNER}),
        ("NetworkPolicy", {"name": ROLE}),
    ],
    ids=["Job", "Service", "NetworkPolicy", "NetworkPolicy of the namespace"],
)
def test_what_the_operator_has_made_is_deleted(write, others, kind, metadata):
    code, message = write("DELETE", others(kind, **metadata), DRY_RUN)
    assert code == 200, message


DENIED = {
    "jobs in kube-system": ("create", "batch", "jobs", "kube-system", ""),
    "jobs in its own namespace": ("create", "batch", "jobs", SYSTEM, ""),
    "jobs where nobody opted in": ("create", "batch", "jobs", CLOSED, ""),
    "logs in kube-system": ("get", "", "pods/log", "kube-system", ""),
    "aws-auth": ("patch", "", "configmaps", "kube-system", "aws-auth"),
    "coredns": ("patch", "", "configmaps", "kube-system", "coredns"),
    "ConfigMaps of kube-system": ("get", "", "configmaps", "kube-system", ""),
    "secrets": ("get", "", "secrets", ENABLED, ""),
    "secrets of the cluster": ("list", "", "secrets", "", ""),
    "exec": ("create", "", "pods/exec", ENABLED, ""),
    "tokens": ("create", "", "serviceaccounts/token", ENABLED, "default"),
    "pods": ("create", "", "pods", ENABLED, ""),
    "labels of namespaces": ("patch", "", "namespaces", "", CLOSED),
    "binding cluster-admin": ("bind", GROUP, "clusterroles", "", "cluster-admin"),
    "binding admin": ("bind", GROUP, "clusterroles", "", "admin"),
    "escalating its role": ("escalate", GROUP, "clusterroles", "", ROLE),
    "editing its role": ("patch", GROUP, "clusterroles", "", ROLE),
    "other bindings": ("get", GROUP, "rolebindings", ENABLED, "somebody"),
    "impersonation": ("impersonate", "", "users", "", "system:admin"),
    "specs of FineTuneJobs": ("patch", "hone.dev", "finetunejobs", ENABLED, ""),
    "specs of Datasets": ("update", "hone.dev", "datasets", ENABLED, ""),
    "specs of ModelVersions": ("patch", "hone.dev", "modelversions", ENABLED, ""),
    "specs of Models": ("patch", "hone.dev", "models", ENABLED, ""),
    "deleting Models": ("delete", "hone.dev", "models", ENABLED, ""),
    "listing nodes": ("list", "", "nodes", "", ""),
    "nodes": ("patch", "", "nodes", "", ""),
    "admission policies": ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicies", "", ""),
}


@pytest.mark.parametrize("right", DENIED.values(), ids=DENIED.keys())
def test_a_right_that_the_operator_lacks(account, right):
    verb, group, resource, namespace, name = right
    resource, _, sub = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": sub}
    attributes |= {"namespace": namespace, "name": name}
    review = {"spec": {"resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status = account.call("POST", path, review).body["status"]
    assert status["allowed"] is False
    # Not for want of a valid question.
    attributes |= {"verb": "list", "group": "hone.dev", "resource": "datasets", "subresource": "", "name": ""}
    assert account.call("POST", path, review).body["status"]["allowed"] is True


@pytest.mark.parametrize("kind", ["finetunejobs", "datasets", "modelversions", "models"])
@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_users_do_not_write_status(kube, account, kind, role):
    user = f"system:serviceaccount:{ENABLED}:{role}"
    body = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"users-{role}"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": f"{SYSTEM}-hone-{role}"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": GROUP}],
    }
    path = f"/apis/{GROUP}/v1/namespaces/{ENABLED}/rolebindings"
    code, message = kube.impersonate("root", "POST", path, body)
    assert code in (201, 409), message
    target = f"/apis/hone.dev/v1alpha1/namespaces/{ENABLED}/{kind}/any/status"
    code, message = kube.impersonate(user, "PUT", target, {"status": {"phase": "Succeeded"}}, groups="nobody")
    assert code == 403
    assert f'cannot update resource "{kind}/status"' in message


def test_the_operator_makes_only_empty_models(write):
    path, body = f"/apis/hone.dev/v1alpha1/namespaces/{ENABLED}/models", {"kind": "Model", "metadata": {"name": "m"}}
    body["apiVersion"] = "hone.dev/v1alpha1"
    assert write("POST", path, {**body, "spec": {}})[0] == 201
    for spec in (
        {"aliases": [{"name": "production", "version": 1}]},
        {"promotion": {"aliases": ["champion"]}},
        {"retention": {"keep": 1}},
        {"retrain": {"fineTuneJob": "run", "rows": {"atLeast": 1}}},
        {"deliveries": [{"uri": "s3://bucket/x"}]},
        {"registry": {"mlflow": {"uri": "https://mlflow.example.org"}}},
    ):
        code, message = write("POST", path, {**body, "spec": spec})
        assert (code, "Hone makes only empty Models" in message) == (403, True)


def test_the_operator_deletes_no_version_that_is_approved(write, kube):
    path = f"/apis/hone.dev/v1alpha1/namespaces/{ENABLED}/modelversions"
    lineage = {"baseModel": {"uri": "hf://a/b"}, "datasets": [], "method": "SFT", "hyperParameters": {}, "seed": 1}
    lineage["job"] = {"name": "j", "uid": "u"}
    artifact = {"format": "Adapter", "uri": "pvc://hone-store/x", "digest": f"sha256:{'0' * 64}", "sizeBytes": 1}
    spec = {"modelName": "m", "version": 1, "artifacts": [artifact], "lineage": lineage}
    for state, expected in (("Candidate", 200), ("Approved", 403), ("Rejected", 200)):
        name = f"m-{state.lower()}"
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": "ModelVersion", "metadata": {"name": name}}
        kube.call("POST", path, {**body, "spec": {**spec, "approval": {"state": state}}})
        assert write("DELETE", f"{path}/{name}", {})[0] == expected, state


@pytest.mark.parametrize(
    ("owned", "ended", "refusal"),
    [
        (True, True, None),
        (True, False, "Hone deletes no FineTuneJob that has not ended"),
        (False, True, "a FineTuneJob of Hone repeats a job of the Model that it belongs to"),
    ],
    ids=["a repetition that ended", "one that runs", "a job of a person"],
)
def test_the_operator_deletes_only_its_own_jobs_that_ended(write, others, kube, owned, ended, refusal):
    owner = OBJECTS["FineTuneJob"][1]["metadata"]["ownerReferences"] if owned else []
    path = others("FineTuneJob", ownerReferences=owner)
    times = {"lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Succeeded", "message": ""}
    conditions = [{"type": "Finished", "status": "True" if ended else "False", **times}]
    merge = "application/merge-patch+json"
    kube.call("PATCH", f"{path}/status", {"status": {"conditions": conditions}}, merge)
    code, message = write("DELETE", path, DRY_RUN)
    assert code == (403 if refusal else 200), message
    assert (refusal or "") in message


def test_the_operator_opens_a_namespace_by_its_label_alone(account):
    """What the operator does when a label appears, with its real token: bind, then work; never without the label."""
    path, body = OBJECTS["RoleBinding"]
    refused = account.call("POST", path.format(CLOSED), body)
    assert refused.code == 403
    assert "kubectl label namespace bounds-closed hone.dev/enabled=true" in refused.message
    assert account.call("POST", path.format(ENABLED) + "?dryRun=All", body).code == 201
