"""What the operator makes for every kind of work, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from support.cluster.platforms import changed, platform_with, signing

from hone_api.blocks.delivery import Delivery
from hone_api.blocks.evaluation import VersionEvaluation
from hone_api.blocks.imports import ModelImport
from hone_api.blocks.tracking import MlflowRegistry, RegisteredAlias
from hone_api.dataset.dataset import DatasetSpec
from hone_api.kinds.finetunejob import FineTuneJobSpec
from hone_api.kinds.modelversion import ModelVersionSpec
from hone_api.kinds.resolved import PinnedModel, Resolved
from hone_api.plan import DatasetInput
from hone_operator.desired.core.modelref import pin
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.shared import base_model
from hone_operator.desired.core.shared import harness_tasks as staged_tasks
from hone_operator.desired.dataset.materialize import ReferencedObjects, materialize
from hone_operator.desired.model.importing import importing
from hone_operator.desired.model.register import Registration, as_registered, register
from hone_operator.desired.run.attempt import AttemptInputs
from hone_operator.desired.run.training import training
from hone_operator.desired.staging import lookup
from hone_operator.desired.staging.encode import encode, encode_plan, encoded
from hone_operator.desired.staging.fetch import fetch, rows_to_try
from hone_operator.desired.staging.tasks import tasks
from hone_operator.desired.store import sweep
from hone_operator.desired.store.store import claim
from hone_operator.desired.version.deliver import Parcel, deliver
from hone_operator.desired.version.measure import MeasuringTask, measure
from hone_operator.desired.version.sign import sign
from hone_operator.desired.version.verify import verify
from hone_operator.settings.pods import NetworksSettings, RdmaSettings

DIGEST = "sha256:" + "0" * 64
PUBLIC_KEY = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQ==\n-----END PUBLIC KEY-----\n"
LASTING = ("base-models", "encoded", "evaluation-tasks", "models", "runs")
"""Folders of the store that pods which make rows may only read."""
PLATFORM = platform_with(
    "registry.example/hone/trainer@sha256:" + "1" * 64,
    trainer__image_pull_secrets=("pull",),
    hugging_face__endpoint="https://hub.example",
    progress_url="https://hone.hone-system.svc:8443",
    progress_ca="-----BEGIN CERTIFICATE-----\n",
    trainer__extra_env={"HTTPS_PROXY": "http://proxy.example:3128", "NOTE": "costs $(PRICE) or $$5"},
)


def owner(kind: str, name: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "team",
        "uid": "0000-uid",
        "creationTimestamp": "2026-11-26T23:59:59Z",
        "generation": 2,
        "labels": {"app.kubernetes.io/instance": "argo"},
        "annotations": {"argocd.argoproj.io/tracking-id": "x"},
    }
    return {"apiVersion": "hone.dev/v1alpha1", "kind": kind, "metadata": metadata}


def run(
    spec: dict[str, Any],
    model_uri: str | None = None,
    number: int = 1,
    platform: Platform = PLATFORM,
    avoided_nodes: Sequence[str] = (),
    versions: list[PinnedModel] | None = None,
) -> list[dict[str, Any]]:
    full = {"model": {"uri": "pvc://models/smol"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}, **spec}
    parsed = FineTuneJobSpec.model_validate(full)
    resolved = Resolved(
        model_uri=model_uri or parsed.model.uri,
        model_commit="abc" if model_uri else None,
        model_versions=versions,
        dataset_digests={name: DIGEST for name in ("rows", "general")},
        evaluation_datasets=["rows/validation"],
        image=PLATFORM.trainer.image,
    )
    inputs = AttemptInputs(owner("FineTuneJob", "run"), parsed, number, resolved, avoided_nodes=avoided_nodes)
    return training(inputs, platform)


def all_containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a Job's pods, in the order in which they run."""
    spec = job["spec"]["template"]["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def one_pod() -> list[dict[str, Any]]:
    return run({})


def two_nodes() -> list[dict[str, Any]]:
    return run({"resources": {"nodes": 2, "cpu": "4"}, "deepspeed": {"zeroStage": 2}}, number=3)


def gpus() -> list[dict[str, Any]]:
    spec = {
        "model": {"uri": "hf://org/model@main", "secretName": "token"},
        "adapter": {"type": "QLoRA", "rank": 8},
        "resources": {"gpusPerNode": 4, "gpuProducts": ["NVIDIA-H100-80GB-HBM3"], "cpu": "16", "memory": "128Gi"},
        "scheduling": {
            "priorityClassName": "research",
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"}],
        },
    }
    return run(spec, "pvc://hone-store/base-models/org--model/abc")


BASE_IMAGE = f"oci://registry.example:5000/bases/llama@{DIGEST}"


def image_as_base() -> list[dict[str, Any]]:
    """The teacher is an adapter on the same image: a pod mounts it once."""
    spec = {"model": {"uri": BASE_IMAGE, "secretName": "hone-pull"}, "resources": {"gpusPerNode": 1}}
    teacher = PinnedModel(name="t-v1", uri=BASE_IMAGE, adapter_uri="pvc://hone-store/models/t/1/adapter")
    return run(spec, versions=[teacher])


RDMA = RdmaSettings(
    resources={"rdma/hca_shared_devices_a": "1"},
    annotations={"k8s.v1.cni.cncf.io/networks": "rdma"},
    env={"NCCL_IB_HCA": "mlx5"},
)
NETWORKS = NetworksSettings(roce=RDMA)


def claimed_gpus() -> list[dict[str, Any]]:
    """GPUs by Dynamic Resource Allocation, on two nodes that are joined by RoCE."""
    spec = {
        "resources": {
            "nodes": 2,
            "gpusPerNode": 4,
            "gpusFrom": "Claims",
            "claims": [{"name": "gpus", "resourceClaimTemplateName": "four-gpus"}],
            "network": "RoCE",
        }
    }
    return run(spec, platform=changed(PLATFORM, trainer__networks=NETWORKS))


REWARDS = [
    {"type": "Number"},
    {"type": "Python", "name": "mine", "python": {"configMapName": "rewards", "key": "style.py"}},
    {"type": "Judge", "judge": {"endpoint": "http://judge.models.svc/v1", "secretName": "judge-key"}},
    {"type": "Judge", "name": "open", "judge": {"endpoint": "http://judge.models.svc/v1"}},
]


def rewarded() -> list[dict[str, Any]]:
    return run({"method": "GRPO", "grpo": {"rewards": REWARDS}})


def dataset(uri: str, pods: int = 1, **source: Any) -> list[dict[str, Any]]:
    spec = DatasetSpec.model_validate(
        {"source": {"uri": uri, **source}, "columns": {"prompt": "q"}, "resources": {"pods": pods}}
    )
    return materialize(owner("Dataset", "rows"), spec, 1, PLATFORM)


def mixture() -> list[dict[str, Any]]:
    weights = [{"name": "own", "weight": "80%"}, {"name": "general", "weight": "20%"}]
    spec = DatasetSpec.model_validate({"mixture": weights, "mixtureBy": "Tokens", "splits": {"seed": 7}})
    folder = f"/store/datasets/{'0' * 64}"
    parts = [
        DatasetInput(name=part["name"], path=f"{folder}/train.jsonl", digest=DIGEST, share=part["weight"])
        for part in weights
    ]
    return materialize(owner("Dataset", "mix"), spec, 1, PLATFORM, ReferencedObjects(parts=parts))


def model_fetch() -> list[dict[str, Any]]:
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "hf://org/model", "secretName": "token"},
            "datasets": [{"name": "rows"}],
            "output": {"modelName": "m"},
        }
    )
    shared = base_model({"model": {"uri": "hf://org/model", "secretName": "token"}}, PLATFORM)
    assert shared is not None
    resolved = Resolved(dataset_digests={"rows": "sha256:" + "5" * 64}, evaluation_datasets=["rows/validation"])
    rows = rows_to_try(AttemptInputs(owner("FineTuneJob", "run"), spec, 1, resolved), PLATFORM)
    return fetch(owner("PersistentVolumeClaim", "hone-store"), shared, spec, 2, PLATFORM, rows)


HARNESS = {"tasks": ["arc_easy", "gsm8k"], "fewShot": 5, "maxRegression": "5%"}


def harness_tasks() -> list[dict[str, Any]]:
    spec = FineTuneJobSpec.model_validate(
        {
            "model": {"uri": "hf://org/model", "secretName": "token"},
            "datasets": [{"name": "rows"}],
            "evaluation": {"harness": HARNESS},
            "output": {"modelName": "m"},
        }
    )
    assert spec.evaluation.harness is not None
    raw = {"model": {"uri": "hf://org/model", "secretName": "token"}, "evaluation": {"harness": HARNESS}}
    shared = staged_tasks(raw, PLATFORM)
    assert shared is not None
    return tasks(owner("PersistentVolumeClaim", "hone-store"), shared, spec, spec.evaluation.harness, 2, PLATFORM)


def encoded_rows(pods: int = 1) -> list[dict[str, Any]]:
    spec = FineTuneJobSpec.model_validate(
        {"model": {"uri": "hf://org/model"}, "datasets": [{"name": "rows"}], "output": {"modelName": "m"}}
    )
    resolved = Resolved(
        model_uri="pvc://hone-store/base-models/org--model/abc",
        model_commit="abc",
        model_digest=DIGEST,
        dataset_digests={"rows": "sha256:" + "5" * 64},
        evaluation_datasets=["rows/validation"],
        image=PLATFORM.trainer.image,
    )
    first = AttemptInputs(owner("FineTuneJob", "run"), spec, 1, resolved)
    shared = encoded(encode_plan(first, PLATFORM), PLATFORM, pods)
    return encode(owner("PersistentVolumeClaim", "hone-store"), shared, first, 1, PLATFORM, pods)


def _version() -> ModelVersionSpec:
    artifacts = [
        {"format": f, "uri": f"pvc://{c}/models/x/{f.lower()}", "digest": DIGEST, "sizeBytes": 1}
        for f, c in (("Adapter", "hone-store"), ("Merged", "other"), ("Full", "hone-store"))
    ]
    lineage = {
        "baseModel": {"uri": "hf://org/model"},
        "datasets": [],
        "job": {"name": "run", "uid": "u"},
        "method": "SFT",
        "hyperParameters": {},
        "seed": 1,
    }
    return ModelVersionSpec.model_validate({"modelName": "m", "version": 1, "artifacts": artifacts, "lineage": lineage})


def model_verify() -> list[dict[str, Any]]:
    return verify(owner("ModelVersion", "m-v1"), _version(), 1, PLATFORM)


def model_signature() -> list[dict[str, Any]]:
    by_key = signing(secret_name="signing-key", public_keys=[PUBLIC_KEY], fingerprints={"0" * 64})
    platform = changed(PLATFORM, signing=by_key)
    return sign(owner("ModelVersion", "m-v1"), _version(), 1, platform)


def model_delivery(**target: Any) -> list[dict[str, Any]]:
    parcel = Parcel.of(_version(), Delivery.model_validate(target), PLATFORM)
    return deliver(owner("ModelVersion", "m-v1"), _version(), parcel, 1, PLATFORM)


def registered_model() -> list[dict[str, Any]]:
    registry = MlflowRegistry(uri="https://mlflow.example.org", secret_name="hone-mlflow")
    body = {
        "metadata": {"name": "m-v1", "uid": "version-uid"},
        "spec": {**_version().to_json(), "modelName": "m", "version": 1},
    }
    version = as_registered(body, "oci://registry.example/team/m@sha256:" + "0" * 64, registry)
    alias = RegisteredAlias(name="champion", version=1, since="2026-01-02T00:00:00Z")
    return register(owner("Model", "m"), Registration(registry, "m", [version], [alias], ["candidate"]), 1, PLATFORM)


def imported_model() -> list[dict[str, Any]]:
    base = {"uri": "hf://org/base", "secretName": "token"}
    entry = ModelImport.model_validate({"uri": "pvc://files/a", "base": base, "submittedBy": "ada"})
    return importing(owner("Model", "m"), entry, 1, PLATFORM)


def measured_model() -> list[dict[str, Any]]:
    spec = _version().model_copy(deep=True)
    spec.lineage.base_model.location = "pvc://hone-store/base-models/org--model/abc"
    entry = VersionEvaluation(dataset="rows", against="other-v2")
    other = PinnedModel(name="other-v2", uri="pvc://other/models/y/merged", digest=DIGEST)
    measured = MeasuringTask(entry, DIGEST, pin("m-v1", spec), other)
    return measure(owner("ModelVersion", "m-v1"), spec, measured, 1, PLATFORM)


def looked_up() -> list[dict[str, Any]]:
    question = lookup.Question("hf://org/model@main", "hone-hub")
    return lookup.lookup(owner("Model", "m"), question, "", PLATFORM)


def swept() -> list[dict[str, Any]]:
    wanted = sweep.sweep_plan(
        sweep.SweepInputs(
            contents=["0" * 64],
            encoded=["d" * 40, "c" * 40],
            datasets=["rows", "answers"],
            jobs=["uid-b", "uid-a"],
            checkpoints=["uid-b"],
            making=["rows-data-e14762a9"],
        ),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        PLATFORM,
    )
    ledger = sweep.ledger("team", {"0" * 64: "2026-01-02T00:00:00Z", "1" * 64: ""})
    owner = {**ledger, "metadata": {**ledger["metadata"], "uid": "0000-uid"}}
    job, config = sweep.sweep(owner, wanted, PLATFORM)
    return [ledger, job, config({**job, "metadata": {**job["metadata"], "uid": "job-uid"}})]


CASES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "training-one-pod": one_pod,
    "training-two-nodes": two_nodes,
    "training-gpus": gpus,
    "training-claimed-gpus": claimed_gpus,
    "training-image": image_as_base,
    "training-rewarded": rewarded,
    "materialize-configmap": lambda: dataset("configmap://answers/rows.jsonl"),
    "materialize-pvc": lambda: dataset("pvc://data/folder/rows.jsonl"),
    "materialize-hub": lambda: dataset("hf://org/data@main", secretName="token"),
    "materialize-mixture": mixture,
    "pods-of-a-dataset": lambda: dataset("hf://org/data@main", secretName="token", pods=3),
    "fetch": model_fetch,
    "tasks": harness_tasks,
    "encode": encoded_rows,
    "pods-that-encode": lambda: encoded_rows(pods=3),
    "verify": model_verify,
    "sign": model_signature,
    "deliver-image": lambda: model_delivery(uri="oci://registry.example/team/m", secretName="hone-registry"),
    "deliver-hub": lambda: model_delivery(uri="hf://team/m", secretName="hone-hub"),
    "deliver-volume": lambda: model_delivery(uri="pvc://serving/team", form="Adapter"),
    "lookup": looked_up,
    "register": registered_model,
    "sweep": swept,
    "store": lambda: [claim("team", PLATFORM)],
}
