"""Who may approve a model, at the real API server with the chart's admission policies."""

from __future__ import annotations

import json

import pytest
from support.cluster.hand import fine_tune_job, version_of
from support.cluster.kube import wait_until
from support.cluster.tenants import HONE, SYSTEM, TENANT, allowed, tenant
from typer.testing import CliRunner

from hone_cli.__main__ import application
from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("objects at the API server")]


@pytest.fixture(scope="module", autouse=True)
def account(kube, apiserver):
    with tenant(kube, apiserver) as user:
        yield user


def test_approval_is_a_right_of_its_own(kube):
    """`edit` changes what it may, and not the decision about its own model; with the verb it may."""
    path, body = f"{HONE}/modelversions", version_of("m", 1)
    made = kube.call("POST", path, body)
    group = "rbac.authorization.k8s.io"
    for user, roles in (("editor", ["edit"]), ("approver", ["edit", "approve"])):
        for role in roles:
            binding = {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": f"{user}-{role}"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": f"{SYSTEM}-hone-{role}"},
                "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
            }
            kube.call("POST", f"/apis/{group}/v1/namespaces/{TENANT}/rolebindings", binding)
        wait_until(lambda user=user: allowed(kube, user, "update", "modelversions"), f"{user} may update")
    wait_until(lambda: allowed(kube, "approver", "approve", "modelversions"), "the approver may approve")

    def decision(state, by):
        body = json.loads(json.dumps(made))
        body["spec"]["approval"] = {"state": state} | ({"by": by} if by else {})
        return body

    approved = decision("Approved", "editor")
    labelled = json.loads(json.dumps(made))
    labelled["metadata"]["labels"] = {"stage": "test"}

    def put(user, body):
        return kube.impersonate(user, "PUT", f"{path}/m-v1?dryRun=All", body, groups="system:authenticated")

    code, message = put("editor", approved)
    assert code == 403
    assert "verb approve on modelversions.hone.dev" in message
    assert put("editor", labelled)[0] == 200
    code, message = put("approver", approved)
    assert code == 403
    assert "spec.approval.by is editor, and must be the user who decides, approver" in message
    assert put("approver", decision("Approved", None))[0] == 403
    assert put("approver", decision("Approved", "approver"))[0] == 200
    assert put("approver", decision("Rejected", "approver"))[0] == 200
    # Nobody who lacks the verb makes a model that is approved from the start.
    new = {
        **body,
        "metadata": {"name": "m-v2"},
        "spec": {**body["spec"], "approval": {"state": "Approved", "by": "approver"}},
    }
    maker = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": {"name": "maker"},
        "rules": [{"apiGroups": ["hone.dev"], "resources": ["modelversions"], "verbs": ["create"]}],
    }
    roles = f"/apis/{group}/v1/namespaces/{TENANT}"
    kube.call("POST", f"{roles}/roles", maker)
    for user in ("editor", "approver"):
        subjects = [{"kind": "User", "name": user, "apiGroup": group}]
        reference = {"apiGroup": group, "kind": "Role", "name": "maker"}
        binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": f"{user}-makes"}}
        kube.call("POST", f"{roles}/rolebindings", {**binding, "roleRef": reference, "subjects": subjects})
        wait_until(lambda user=user: allowed(kube, user, "create", "modelversions"), f"{user} may create")
        code, message = kube.impersonate(user, "POST", f"{path}?dryRun=All", new, groups="system:authenticated")
        assert code == (201 if user == "approver" else 403), message


def test_a_version_that_is_created_as_approved_names_who_creates_it(kube):
    """Also with the verb approve nobody approves in the name of somebody else; a tool that restores backups may."""
    group = "rbac.authorization.k8s.io"
    for user, verbs in (("zoe", ["create", "approve"]), ("restorer", ["create", "approve", "attest"])):
        meta = {"name": f"{user}-writes"}
        rules = [{"apiGroups": ["hone.dev"], "resources": ["modelversions"], "verbs": verbs}]
        roles = f"/apis/{group}/v1/namespaces/{TENANT}"
        kube.call("POST", f"{roles}/roles", {"kind": "Role", "metadata": meta, "rules": rules})
        subjects = [{"kind": "User", "name": user, "apiGroup": group}]
        reference = {"apiGroup": group, "kind": "Role", "name": meta["name"]}
        binding = {"kind": "RoleBinding", "metadata": meta, "roleRef": reference, "subjects": subjects}
        kube.call("POST", f"{roles}/rolebindings", binding)
        for verb in verbs:
            wait_until(lambda user=user, verb=verb: allowed(kube, user, verb, "modelversions"), f"{user} may {verb}")

    def make(user, submitter=None, **approval):
        body = version_of("made", 1, submitter)
        body["spec"]["approval"] = approval
        path = f"{HONE}/modelversions?dryRun=All"
        return kube.impersonate(user, "POST", path, body, groups="system:authenticated")

    code, message = make("zoe", state="Approved", by="ada")
    assert (code, "spec.approval.by is ada, and must be the user who decides, zoe" in message) == (403, True)
    assert make("zoe", state="Approved")[0] == 403
    assert make("zoe", "bob", state="Approved", by="zoe")[0] == 201
    code, message = make("zoe", "zoe", state="Approved", by="zoe")
    assert (code, "somebody else must approve it" in message) == (403, True)
    assert make("restorer", "ada", state="Approved", by="ada")[0] == 201
    assert make("zoe", state="Rejected", by="evaluation.retention")[0] == 201, "as a gate rejects"
    puppet = f"system:serviceaccount:{TENANT}:puppet"
    code, message = make("zoe", puppet, state="Approved", by="zoe")
    assert (code, f"{puppet} is a service account, and may neither approve nor" in message) == (403, True)
    assert make("zoe", "system:serviceaccount:pipelines:release", state="Approved", by="zoe")[0] == 201


@pytest.mark.parametrize(
    ("pipeline", "code"),
    [
        (f"system:serviceaccount:{TENANT}:puppet", 403),
        ("system:serviceaccount:pipelines:release2", 403),
        ("system:serviceaccount:argo:server", 200),
        ("system:serviceaccount:pipelines:release", 200),
    ],
)
def test_a_service_account_approves_only_if_the_platform_lists_it(kube, pipeline, code):
    """Every right is there: `edit` can act as each service account of its namespace."""
    path = f"{HONE}/modelversions"
    apply = f"{path}/second-v1?fieldManager=tests&force=true"
    kube.call("PATCH", apply, version_of("second", 1, "ada"), "application/apply-patch+yaml")

    def decide(state):
        body = {"spec": {"approval": {"state": state, "by": pipeline}}}
        merge = "application/merge-patch+json"
        return kube.impersonate(pipeline, "PATCH", f"{path}/second-v1?dryRun=All", body, content_type=merge)

    answer = decide("Approved")
    assert answer[0] == code, answer
    assert decide("Rejected")[0] == 200, "a pipeline may always stop a model"


@pytest.fixture
def hone(apiserver, monkeypatch):
    """What `hone` prints in the tenant's namespace; the message of its error if it has one."""
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(apiserver))

    def run(*words):
        done = CliRunner().invoke(application(), [*words, "--namespace", TENANT])
        assert done.exception is None or isinstance(done.exception, CommandError), done.exception
        return done.stdout + (str(done.exception) if done.exception else "")

    return run


def test_hone_approve_decides_under_the_name_that_the_api_server_knows(kube, hone):
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    user = kube.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    user = user["status"]["userInfo"]["username"]
    for number, submitter in ((1, "bob"), (2, user)):
        kube.call("POST", f"{HONE}/modelversions", version_of("desk", number, submitter))
    promotion = {"policy": "Automatic", "aliases": ["champion"], "gates": [{"metric": "loss", "atMost": "1"}]}
    model = {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": "desk"}}
    kube.call("POST", f"{HONE}/models", model | {"spec": {"promotion": promotion}})

    def judge(gates):
        candidate = {"version": 1, "modelVersion": "desk-v1", "gates": gates, "approval": "Candidate", "message": "x"}
        status = {"status": {"observedGeneration": 1, "candidates": [candidate]}}
        kube.call("PATCH", f"{HONE}/models/desk/status", status, "application/merge-patch+json")

    def approval():
        return kube.call("GET", f"{HONE}/modelversions/desk-v1")["spec"]["approval"]

    judge("Failed")
    assert "desk-v1 is not approved: its gates have not passed" in hone("approve", "desk:1")
    assert "desk-v1 would be approved" in hone("approve", "desk:1", "--despite-gates", "--comment=y", "--dry-run")
    judge("Passed")
    assert "champion points to desk-v1 from now on as soon as it is Ready." in hone("approve", "desk:1", "--dry-run")
    assert approval() == {"state": "Candidate"}
    hone("approve", "desk:1", "--comment", "asked ten customers")
    assert approval() == {"state": "Approved", "by": user, "comment": "asked ten customers"}
    assert f"It is approved by {user} already" in hone("approve", "desk:1")
    command = Kube.load(None, TENANT)
    read = command.model_version("desk-v1")
    hone("reject", "desk:1")
    assert approval() == {"state": "Rejected", "by": user}
    with pytest.raises(CommandError, match="has been modified"):
        command.decide(read, {"state": "Candidate", "by": user, "comment": None}, dry_run=False)
    hone("approve", "desk:1", "--withdraw")
    assert approval() == {"state": "Candidate", "by": user}
    assert "you submitted the job that made this model" in hone(
        "approve", "desk-v2", "--despite-gates", "--comment=y", "--dry-run"
    )
    for name in ("modelversions/desk-v1", "modelversions/desk-v2", "models/desk"):
        kube.call("DELETE", f"{HONE}/{name}")


def test_who_submits_a_job_does_not_approve_its_model(kube):
    """With admission.separateDuties: the job says who submits it, and the model that it makes repeats it."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": group, "kind": "ClusterRole"},
        "subjects": [{"kind": "User", "name": name, "apiGroup": group} for name in ("ada", "grace")],
    }
    for role in ("edit", "approve"):
        reference = {**binding["roleRef"], "name": f"{SYSTEM}-hone-{role}"}
        body = {**binding, "metadata": {"name": f"both-{role}"}, "roleRef": reference}
        kube.call("POST", f"/apis/{group}/v1/namespaces/{TENANT}/rolebindings", body)
    rights = (("create", "finetunejobs"), ("update", "modelversions"), ("approve", "modelversions"))
    for user in ("ada", "grace"):
        wait_until(lambda user=user: all(allowed(kube, user, *right) for right in rights), f"{user} has both roles")

    def submit(**fields):
        spec = fine_tune_job(model={"uri": "hf://a/b"}, **fields)
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x"}, "spec": spec}
        path = f"{HONE}/finetunejobs?dryRun=All"
        return kube.impersonate("ada", "POST", path, body, groups="system:authenticated")

    code, message = submit()
    assert (code, "spec.submittedBy is empty, and must be the user who creates the job, ada" in message) == (403, True)
    assert submit(submittedBy="grace")[0] == 403
    assert submit(submittedBy="ada")[0] == 201

    lineage = {"baseModel": {"uri": "hf://a/b"}, "datasets": [], "method": "SFT", "hyperParameters": {}, "seed": 1}
    lineage["job"] = {"name": "j", "uid": "u", "submittedBy": "ada"}
    artifact = {"format": "Adapter", "uri": "pvc://hone-store/y", "digest": f"sha256:{'0' * 64}", "sizeBytes": 1}
    spec = {"modelName": "n", "version": 1, "artifacts": [artifact], "lineage": lineage}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "ModelVersion", "metadata": {"name": "n-v1"}, "spec": spec}
    made = kube.call("POST", f"{HONE}/modelversions", body)

    def decide(user, state):
        spec = {**made["spec"], "approval": {"state": state, "by": user}}
        path = f"{HONE}/modelversions/n-v1?dryRun=All"
        return kube.impersonate(user, "PUT", path, {**made, "spec": spec}, groups="system:authenticated")

    code, message = decide("ada", "Approved")
    assert (code, "somebody else must approve it" in message) == (403, True)
    assert decide("ada", "Rejected")[0] == 200
    assert decide("grace", "Approved")[0] == 200


def test_who_imports_a_model_does_not_approve_it(kube):
    """With admission.separateDuties: a new or changed entry of spec.imports says who adds it."""
    group = "rbac.authorization.k8s.io"
    roles = f"/apis/{group}/v1/namespaces/{TENANT}"
    rules = [{"apiGroups": ["hone.dev"], "resources": ["models"], "verbs": ["create", "update"]}]
    rules.append({"apiGroups": ["hone.dev"], "resources": ["modelversions"], "verbs": ["update", "approve"]})
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "importer"}, "rules": rules}
    kube.call("POST", f"{roles}/roles", role)
    users = ("lin", "mae")
    subjects = [{"kind": "User", "name": name, "apiGroup": group} for name in users]
    binding = {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {"name": "importers"}}
    reference = {"apiGroup": group, "kind": "Role", "name": "importer"}
    kube.call("POST", f"{roles}/rolebindings", {**binding, "roleRef": reference, "subjects": subjects})
    for user in users:
        wait_until(lambda user=user: allowed(kube, user, "update", "models"), f"{user} may")
        wait_until(lambda user=user: allowed(kube, user, "approve", "modelversions"), f"{user} may approve")

    def model(*entries):
        kind = {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": "imp"}}
        return {**kind, "spec": {"imports": list(entries)}}

    def write(user, verb, body, name=""):
        return kube.impersonate(user, verb, f"{HONE}/models{name}?dryRun=All", body, groups="system:authenticated")

    first = {"uri": "pvc://files/a", "submittedBy": "lin"}
    code, message = write("lin", "POST", model({"uri": "pvc://files/a"}))
    assert (code, "is empty, and must be the user who adds it, lin" in message) == (403, True)
    assert write("mae", "POST", model(first))[0] == 403
    assert write("lin", "POST", model(first))[0] == 201
    made = kube.call("POST", f"{HONE}/models", model(first))
    second = {"uri": "pvc://files/b", "submittedBy": "mae"}

    def update(user, *entries):
        return write(user, "PUT", {**made, "spec": {"imports": list(entries)}}, "/imp")[0]

    assert update("mae", first, second) == 200, "an entry that stays was checked when it was added"
    assert update("mae", second) == 200
    assert update("lin", {**first, "submittedBy": "mae"}) == 403
    assert update("mae", {**first, "base": {"uri": "pvc://files/c"}}) == 403

    imported = {"uri": "pvc://files/a", "key": "k", "digest": f"sha256:{'0' * 64}", "submittedBy": "lin"}
    lineage = {"baseModel": {"uri": "pvc://files/a"}, "datasets": [], "method": "Import", "hyperParameters": {}}
    artifact = {"format": "Full", "uri": "pvc://hone-store/y", "digest": f"sha256:{'0' * 64}", "sizeBytes": 1}
    spec = {"modelName": "imp", "version": 1, "artifacts": [artifact], "lineage": {**lineage, "imported": imported}}
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "ModelVersion", "metadata": {"name": "imp-v1"}, "spec": spec}
    version = kube.call("POST", f"{HONE}/modelversions", body)
    for user, code in (("lin", 403), ("mae", 200)):
        approved = {**version, "spec": {**version["spec"], "approval": {"state": "Approved", "by": user}}}
        path = f"{HONE}/modelversions/imp-v1?dryRun=All"
        assert kube.impersonate(user, "PUT", path, approved, groups="system:authenticated")[0] == code
