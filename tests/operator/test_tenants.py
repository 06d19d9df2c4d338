"""What tenants may ask for, at the real API server with the chart's admission policies."""

from __future__ import annotations

import contextlib
import json

import pytest
import yaml
from support.cluster.hand import fine_tune_job, version_of
from support.cluster.kube import ROOT, wait_until
from support.cluster.rights import installed
from typer.testing import CliRunner

from hone_api.kinds.unsupported import UNSUPPORTED
from hone_cli.__main__ import application
from hone_cli.errors import CommandError
from hone_cli.reach.kube import Kube

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("objects at the API server")]
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


@pytest.fixture(scope="module", autouse=True)
def account(kube, apiserver):
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


@pytest.fixture
def create(kube):
    """(code, message) of a create, tried only."""

    def ask(kind, spec):
        plural = PLURALS[kind]
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
        return kube.impersonate("ada", "POST", f"{HONE}/{plural}?dryRun=All", body)

    return ask


def allowed(kube, user, verb, resource):
    """Whether the API server knows that they may: it learns of a new binding a moment after it was written."""
    asked = {"namespace": TENANT, "verb": verb, "group": "hone.dev", "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": ["system:authenticated"], "resourceAttributes": asked},
    }
    return kube.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]


def judge(secret):
    asked = {"endpoint": "https://judge.example/v1", "model": "m", "rubric": "Is it polite?"}
    return {"type": "Judge", "judge": asked | {"secretName": secret}}


def grpo(secret=None, **block):
    rewards = [judge(secret)] if secret else [{"type": "Regex", "regex": {"pattern": "a"}}]
    return fine_tune_job(method="GRPO", grpo={"rewards": rewards, **block})


def synthesis(secret=None, judge_secret=None):
    asked = {"template": "Paraphrase", "endpoint": "https://m.example/v1", "model": "m", "rows": 3}
    if secret:
        asked["secretName"] = secret
    if judge_secret:
        of_judge = {"endpoint": "https://m.example/v1", "model": "m", "rubric": "ok?", "secretName": judge_secret}
        asked["filters"] = {"judge": of_judge}
    return {"source": {"uri": "pvc://data/rows.jsonl"}, "synthesis": asked}


def imports(*entries):
    """Spec of a Model to which ada adds these entries."""
    return {"imports": [{**entry, "submittedBy": "ada"} for entry in entries]}


SECRETS = {
    ("FineTuneJob", "model.secretName"): lambda s: fine_tune_job(model={"uri": "hf://a/b", "secretName": s}),
    ("FineTuneJob", "output.push[].secretName"): lambda s: fine_tune_job(
        output={"modelName": "m", "push": [{"uri": "s3://bucket/x", "secretName": s}]}
    ),
    ("FineTuneJob", "tracking[].secretName"): lambda s: fine_tune_job(
        tracking=[{"type": "MLflow", "uri": "https://mlflow.example.org", "secretName": s}]
    ),
    ("FineTuneJob", "grpo.generation.secretName"): lambda s: grpo(
        generation={"engine": "VLLM", "endpoint": "http://vllm:8000", "secretName": s}
    ),
    ("FineTuneJob", "grpo.rewards[].judge.secretName"): grpo,
    ("FineTuneJob", "evaluation.rewards[].judge.secretName"): lambda s: fine_tune_job(
        evaluation={"rewards": [judge(s)]}
    ),
    ("FineTuneJob", "distillation.teacherEndpoint.secretName"): lambda s: fine_tune_job(
        method="Distillation",
        distillation={"teacherEndpoint": {"endpoint": "https://t.example/v1", "model": "m", "secretName": s}},
    ),
    ("FineTuneJob", "pod.env[].secretName"): lambda s: fine_tune_job(
        pod={"env": [{"name": "NCCL_DEBUG", "secretName": s, "key": "k"}]}
    ),
    ("FineTuneJob", "pod.volumes[].secretName"): lambda s: fine_tune_job(
        pod={"volumes": [{"mountPath": "/mnt/key", "secretName": s}]}
    ),
    ("Dataset", "source.secretName"): lambda s: {"source": {"uri": "hf://a/b", "secretName": s}},
    ("Dataset", "synthesis.secretName"): synthesis,
    ("Dataset", "synthesis.filters.judge.secretName"): lambda s: synthesis(judge_secret=s),
    ("Model", "deliveries[].secretName"): lambda s: {"deliveries": [{"uri": "s3://bucket/x", "secretName": s}]},
    ("Model", "registry.mlflow.secretName"): lambda s: {
        "registry": {"mlflow": {"uri": "https://mlflow.example.org", "secretName": s}}
    },
    ("Model", "imports[].secretName"): lambda s: imports({"uri": "hf://a/b", "secretName": s}),
    ("Model", "imports[].base.secretName"): lambda s: imports(
        {"uri": "hf://a/b", "base": {"uri": "hf://a/c", "secretName": s}}
    ),
    ("ModelVersion", "deliveries[].secretName"): lambda s: {
        **version_of("x", 1)["spec"],
        "deliveries": [{"uri": "s3://bucket/x", "secretName": s}],
    },
}
IDS = [f"{kind} {field}" for kind, field in SECRETS]


def fields_called(name, schema, path=""):
    """Paths of all fields of this name in a schema."""
    for key, each in (schema.get("properties") or {}).items():
        here = f"{path}.{key}".lstrip(".")
        if key == name:
            yield here
        yield from fields_called(name, each, here)
    if "items" in schema:
        yield from fields_called(name, schema["items"], f"{path}[]")


def test_every_secret_name_of_the_definitions_is_tried():
    found = set()
    for kind, plural in PLURALS.items():
        document = yaml.safe_load((ROOT / "crds" / f"{plural}.yaml").read_text())
        schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        # The lineage is a record, from which nothing is read.
        fields = (field for field in fields_called("secretName", schema) if not field.startswith("lineage."))
        found |= {(kind, field) for field in fields}
    assert found == set(SECRETS)


@pytest.mark.parametrize(("kind", "field"), SECRETS, ids=IDS)
def test_a_foreign_secret_cannot_be_named(create, kind, field):
    make = SECRETS[kind, field]
    if any(field.startswith((f"{e.path}.", f"{e.path}[")) for e in UNSUPPORTED if e.whole):
        code, message = create(kind, make("hone-key"))
        assert (code, "not supported yet" in message) == (422, True), message
        return
    assert create(kind, make("hone-key")) == (201, "")
    code, message = create(kind, make("database-password"))
    assert code == 403
    assert "secretName is database-password: copy the Secret to one with such a name" in message


def test_an_object_from_before_the_prefix_can_still_be_edited(kube):
    """Other fields of it change; another foreign Secret it cannot name."""
    path = f"{HONE}/datasets"
    older = kube.call("GET", f"{path}/older")
    older["spec"]["suspend"] = True
    assert kube.impersonate("ada", "PUT", f"{path}/older?dryRun=All", older)[0] == 200
    older["spec"]["source"]["secretName"] = "another-password"
    assert kube.impersonate("ada", "PUT", f"{path}/older?dryRun=All", older)[0] == 403


def test_models_from_before_the_limits_can_still_be_edited(kube):
    """What an entry named already stays; the operator records deliveries of a job from before."""
    made = kube.call("GET", f"{HONE}/models/older")
    added = {"imports": [*made["spec"]["imports"], {"uri": "hf://other/d", "submittedBy": "ada"}]}

    def write(spec):
        return kube.impersonate("ada", "PUT", f"{HONE}/models/older?dryRun=All", {**made, "spec": spec})

    assert write(made["spec"] | {"deliveries": [{"uri": "s3://bucket/x"}]})[0] == 200
    assert write(added)[0] == 403
    version = version_of("x", 1)
    version["spec"]["deliveries"] = [{"uri": "s3://bucket/x", "secretName": "database-password"}]
    path = f"{HONE}/modelversions?dryRun=All"
    assert kube.impersonate(f"system:serviceaccount:{SYSTEM}:hone", "POST", path, version) == (201, "")
    assert kube.impersonate(f"system:serviceaccount:{TENANT}:hone", "POST", path, version)[0] == 403


@pytest.mark.parametrize(
    "entry",
    [
        {"uri": "hf://other/b"},
        {"uri": "hf://A/b"},
        {"uri": "pvc://models/smol2"},
        {"uri": "hf://a/b", "base": {"uri": "hf://other/b"}},
    ],
    ids=["another organisation", "capitals", "longer path", "another base"],
)
def test_an_import_beyond_the_limits_is_refused(create, entry):
    code, message = create("Model", imports({"uri": "hf://a/first"}, entry))
    refused = entry.get("base", entry)["uri"]
    assert code == 403, message
    assert f"spec.imports names {refused}, which is not allowed here (tenants.models of the chart: hf://a/*," in message


@pytest.mark.parametrize(
    "spec", [{}, {"imports": []}, imports({"uri": "pvc://models/smol", "base": {"uri": "hf://a/b"}})]
)
def test_a_model_within_the_limits_is_taken(create, spec):
    assert create("Model", spec) == (201, "")


@pytest.mark.parametrize(
    "name",
    ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "HABANA_VISIBLE_DEVICES", "CUDA_VERSION"],
)
@pytest.mark.parametrize("source", [{"value": "all"}, {"secretName": "hone-a", "key": "k"}], ids=["value", "Secret"])
def test_gpus_past_the_requests_cannot_be_asked_for(create, name, source):
    variables = [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]
    assert create("FineTuneJob", fine_tune_job(pod={"env": variables})) == (201, "")
    code, message = create("FineTuneJob", fine_tune_job(pod={"env": [*variables, {"name": name, **source}]}))
    assert (code, "the container runtime reads this variable" in message) == (422, True), message


CODE = (
    *("OPENSSL_CONF", "CUDA_INJECTION64_PATH", "NCCL_NET_PLUGIN", "NCCL_TUNER_PLUGIN", "OMP_TOOL_LIBRARIES", "CC"),
    *("GCONV_PATH", "TORCH_EXTENSIONS_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "AWS_CONFIG_FILE"),
    *("HTTPS_PROXY", "SSL_CERT_FILE", "nccl_debug", "NCCL_DEBUGX"),
)


@pytest.mark.parametrize("name", CODE)
def test_a_variable_that_the_chart_does_not_list_is_refused(create, name):
    variables = [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "NCCL_IB_HCA", "value": "mlx5"}]
    assert create("FineTuneJob", fine_tune_job(pod={"env": variables})) == (201, "")
    code, message = create("FineTuneJob", fine_tune_job(pod={"env": [*variables, {"name": name, "value": "/mnt/x"}]}))
    assert (code, f"spec.pod.env sets {name}, which is not one of tenants.env of the chart" in message) == (403, True)


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize(
    "key",
    [
        *("sidecar.istio.io/inject", "sidecar.istio.io/userVolume", "vault.hashicorp.com/agent-inject"),
        *("dapr.io/enabled", "iam.amazonaws.com/role", "azure.workload.identity/use", "k8s.v1.cni.cncf.io/networks"),
        *("example.org/team2", "admission.datadoghq.com/enabled"),
    ],
)
def test_a_key_that_a_webhook_may_read_is_refused(create, field, key):
    allowed = {"karpenter.sh/do-not-disrupt": "true", "example.org/team": "a", "cost-center": "b"}
    assert create("FineTuneJob", fine_tune_job(pod={field: allowed})) == (201, "")
    code, message = create("FineTuneJob", fine_tune_job(pod={field: {**allowed, key: "true"}}))
    assert (code, f"{key}, which is not one of tenants.podKeys of the chart" in message) == (403, True), message


@pytest.mark.parametrize("kind", ["FineTuneJob", "ModelVersion", "Model"])
def test_a_model_is_delivered_where_the_platform_says(create, kind):
    def send(uri):
        entries = [{"uri": uri, "secretName": "hone-a"}]
        spec = {
            "FineTuneJob": lambda: fine_tune_job(output={"modelName": "m", "push": entries}),
            "ModelVersion": lambda: {**version_of("x", 1)["spec"], "deliveries": entries},
            "Model": lambda: {"deliveries": entries},
        }
        return create(kind, spec[kind]())

    assert send("oci://registry.example.org/team-a/m") == (201, "")
    for uri in ("oci://registry.example.org/team-b/m", "s3://bucket/xy", "oci://registry.example.org.evil/team-a/m"):
        code, message = send(uri)
        assert (code, "to which nothing is delivered here (tenants.destinations of the chart" in message) == (403, True)


PLACES = {
    "system-node-critical": {"priorityClassName": "system-node-critical"},
    "system-cluster-critical": {"priorityClassName": "system-cluster-critical"},
    "a class that is not listed": {"priorityClassName": "production"},
    "every taint": {"tolerations": [{"operator": "Exists"}]},
    "every taint by an empty key": {"tolerations": [{"key": "", "operator": "Exists"}]},
    "the control plane": {"tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]},
    "a taint that is not listed": {"tolerations": [{"key": "other-team", "operator": "Exists"}]},
    "every taint of an effect": {"tolerations": [{"operator": "Exists", "effect": "NoExecute"}]},
    "control-plane nodes": {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}},
    "masters": {"nodeSelector": {"node-role.kubernetes.io/master": ""}},
}


@pytest.mark.parametrize("scheduling", PLACES.values(), ids=PLACES.keys())
def test_pods_do_not_go_where_they_may_not(create, scheduling):
    code, message = create("FineTuneJob", fine_tune_job(scheduling=scheduling))
    assert code == 403, message
    assert "ask the platform team" in message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"model": {"uri": "hf://another/model"}},
            "spec.model.uri hf://another/model is not allowed here",
        ),
        ({"model": {"uri": "pvc://models/smol2"}}, "hf://a/*, pvc://files/*, pvc://models/smol)"),
        ({"pod": {"serviceAccountName": "admin"}}, "(tenants.serviceAccounts of the chart: trainer-*)"),
        ({"pod": {"runtimeClassName": "runc"}}, "(tenants.runtimeClasses of the chart: kata)"),
        (
            {"resources": {"claims": [{"name": "gpus", "resourceClaimTemplateName": "eight-gpus"}]}},
            "spec.resources.claims names a ResourceClaimTemplate that is not allowed here "
            "(tenants.resourceClaimTemplates of the chart: gpu-*)",
        ),
        (
            {"scheduling": {"queueName": "team", "workloadPriorityClass": "urgent"}},
            "(tenants.workloadPriorityClasses of the chart: batch)",
        ),
        ({"resources": {"nodes": 3, "gpusPerNode": 3}}, "asks for 9 GPUs over all nodes, and a job may have 8 here"),
    ],
)
def test_a_model_and_gpus_beyond_the_limits_are_refused(create, spec, words):
    code, message = create("FineTuneJob", fine_tune_job(**spec))
    assert code == 403, message
    assert words in message
    assert "ask the platform team" in message


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"uri": "hf://a/model"}},
        {"model": {"modelVersion": "tutor-v1"}},
        {"resources": {"nodes": 2, "gpusPerNode": 4}},
        {"resources": {"gpusPerNode": 8}},
        {"resources": {"claims": [{"name": "gpus", "resourceClaimTemplateName": "gpu-8"}]}},
        {"pod": {"serviceAccountName": "trainer-a", "runtimeClassName": "kata"}},
        {"scheduling": {"queueName": "team", "workloadPriorityClass": "batch"}},
    ],
)
def test_a_model_and_gpus_within_the_limits_are_taken(create, spec):
    assert create("FineTuneJob", fine_tune_job(**spec)) == (201, "")


def test_what_is_listed_is_taken(create):
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists"}, {"key": "team", "value": "a"}]
    scheduling = {"priorityClassName": "batch-low", "tolerations": tolerations, "nodeSelector": {"pool": "gpu"}}
    assert create("FineTuneJob", fine_tune_job(scheduling=scheduling)) == (201, "")


def test_the_store_is_not_mounted_as_a_whole(create):
    def mounted(claim):
        return create("FineTuneJob", fine_tune_job(pod={"volumes": [{"mountPath": "/mnt/a", "claimName": claim}]}))

    code, message = mounted("hone-store")
    assert (code, "it is the store. Name a model or a Dataset in the spec" in message) == (403, True)
    assert mounted("own") == (201, "")


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
    ("account", "code"),
    [
        (f"system:serviceaccount:{TENANT}:puppet", 403),
        ("system:serviceaccount:pipelines:release2", 403),
        ("system:serviceaccount:argo:server", 200),
        ("system:serviceaccount:pipelines:release", 200),
    ],
)
def test_a_service_account_approves_only_if_the_platform_lists_it(kube, account, code):
    """Every right is there: `edit` can act as each service account of its namespace."""
    path = f"{HONE}/modelversions"
    with contextlib.suppress(RuntimeError):
        kube.call("POST", path, version_of("second", 1, "ada"))

    def decide(state):
        body = {"spec": {"approval": {"state": state, "by": account}}}
        merge = "application/merge-patch+json"
        return kube.impersonate(account, "PATCH", f"{path}/second-v1?dryRun=All", body, content_type=merge)

    assert decide("Approved")[0] == code
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
