"""Labels, taints and classes: what the definition of FineTuneJob takes, a real pod takes."""

import json
import uuid

import pytest
from support.cluster.hand import fine_tune_job

from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_operator.desired.run.scheduling import scheduling

pytestmark = pytest.mark.apiserver
KEYS = (
    "pool",
    "a/b",
    "nvidia.com/gpu.product",
    "A_b.c-9",
    "x" * 63,
    "x" * 64,
    "a" * 63 + "." + "b" * 63 + "/pool",
    "bad key!",
    "-pool",
    "pool-",
    "a//b",
    "/b",
    "a/",
    "A.com/b",
    "a..b/c",
    "-a.com/b",
    "a/b/c",
    "ä",
    "",
    " pool",
    "pool\n",
)
VALUES = ("", "gpu", "A-1_b.c", "x" * 63, "x" * 64, "x y", "-x", "x-", "ä", "a/b", "x\n")
TOLERATIONS = (
    {"operator": "Exists"},
    {"key": "a", "operator": "Exists"},
    {"key": "a", "operator": "Exists", "value": ""},
    {"key": "a", "operator": "Exists", "value": "x"},
    {"key": "a", "value": "x"},
    {"key": "a"},
    {"value": "x"},
    {},
    {"key": "", "operator": "Exists"},
    {"key": "a", "operator": "Exists", "tolerationSeconds": 5},
    {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
    {"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5},
    {"key": "a", "operator": "Exists", "effect": "Never"},
    {"key": "a", "operator": "In"},
    {"key": "a", "operator": "Gt", "value": "x"},
    {"key": "a", "operator": "Lt", "value": "07"},
)
CLASSES = ("batch", "batch.low", "Batch", "batch low", "batch-", "-batch", "", "a" * 253, "batch\n", "a..b")
CORPUS = [
    *({"nodeSelector": {key: "x"}} for key in KEYS),
    *({"nodeSelector": {"pool": value}} for value in VALUES),
    *({"tolerations": [{"key": key, "operator": "Exists"}]} for key in KEYS),
    *({"tolerations": [{"key": "a", "value": value}]} for value in VALUES),
    *({"tolerations": [each]} for each in TOLERATIONS),
    *({"priorityClassName": name} for name in CLASSES),
    *({"queueName": "team", "workloadPriorityClass": name} for name in (*CLASSES, "a" * 63, "a" * 64)),
]


@pytest.fixture(scope="module")
def ask(kube):
    """(code, message) of a create in a namespace of this module, tried only."""
    name = f"placement-{uuid.uuid4().hex[:8]}"
    kube.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return lambda path, body: kube.impersonate("root", "POST", path.format(name) + "?dryRun=All", body)


@pytest.mark.attack("objects at the API server")
@pytest.mark.parametrize("wish", CORPUS, ids=[json.dumps(wish)[:80] for wish in CORPUS])
def test_it_is_refused_at_once_or_makes_a_pod(ask, wish):
    spec = fine_tune_job(scheduling=wish)
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "x"}, "spec": spec}
    code, message = ask("/apis/hone.dev/v1alpha1/namespaces/{}/finetunejobs", body)
    if code != 201:
        assert code in (400, 422), message
        assert "scheduling" in message
        return
    fields = scheduling(FineTuneJobSpec.model_validate(spec))
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}], **fields}}
    labels = {"kueue.x-k8s.io/priority-class": wish.get("workloadPriorityClass", "")}
    meta = {"name": "x", "labels": labels}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": template}}
    code, message = ask("/apis/batch/v1/namespaces/{}/jobs", job)
    assert code == 201, message
