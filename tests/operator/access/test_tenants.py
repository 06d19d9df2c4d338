"""What tenants may ask for, at the real API server with the chart's admission policies."""

from __future__ import annotations

import pytest
import yaml
from support.cluster.hand import fine_tune_job, version_of
from support.cluster.kube import ROOT
from support.cluster.tenants import HONE, PLURALS, SYSTEM, TENANT, tenant

from hone_api.kinds.unsupported import UNSUPPORTED

pytestmark = [pytest.mark.apiserver, pytest.mark.attack("objects at the API server")]


@pytest.fixture(scope="module", autouse=True)
def account(kube, apiserver):
    with tenant(kube, apiserver) as user:
        yield user


@pytest.fixture
def create(kube):
    """(code, message) of a create, tried only."""

    def ask(kind, spec):
        plural = PLURALS[kind]
        body = {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
        return kube.impersonate("ada", "POST", f"{HONE}/{plural}?dryRun=All", body)

    return ask


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
