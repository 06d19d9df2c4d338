"""Our evaluation of each rule says what the API server says, of generated objects."""

import copy
import random
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from hone_api.base.meta import ApiModel, Kind
from hone_api.base.rule import Rule
from hone_api.combinations import dataset_problems
from hone_api.combinations.rules import Broken, broken_rules
from hone_api.dataset.dataset import DATASET, DatasetSpec
from hone_api.kinds.finetunejob import FINE_TUNE_JOB, FineTuneJobSpec
from hone_api.kinds.model import MODEL, ModelSpec
from hone_api.kinds.modelversion import MODEL_VERSION, ModelVersionSpec
from hone_api.kinds.unsupported import UNSUPPORTED

JOB = "FineTuneJob"
SPECS: dict[str, type[ApiModel]] = {
    JOB: FineTuneJobSpec,
    "Dataset": DatasetSpec,
    "Model": ModelSpec,
    "ModelVersion": ModelVersionSpec,
}
KINDS = (FINE_TUNE_JOB, DATASET, MODEL, MODEL_VERSION)
EXAMPLES = 60
"""Objects that are generated for each case."""
ABSENT = object()
TRACKER = {"type": "MLflow", "uri": "https://mlflow.example.org"}
CLAIM = {"name": "gpus", "resourceClaimTemplateName": "gpus"}
DECIMALS = (ABSENT, "0", "0.3", "1", "2e-4", "1.5", "10", "10.5", "1000.5", "2e6")
NUMBER, REGEX = {"type": "Number"}, {"type": "Regex", "regex": {"pattern": "a"}}
SHELL = f"tools/sh@sha256:{'0' * 64}"
SHARE = {"uri": "pvc://share/m"}
ENDPOINT = "http://models.ai.svc/v1"
URLS = ("https://h.test", "https://user:word@h.test", "https://h.test/..", "https://h.test/../a", "http://h.test/a..b")
BLOCKS = {
    "final": {},
    "regex": {"pattern": "a"},
    "jsonSchema": {"schema": "{}"},
    "format": {"style": "Boxed"},
    "length": {"min": 1},
    "code": {},
    "python": {"configMapName": "code"},
    "rewardModel": {"modelVersion": "judge-v1"},
    "judge": {"endpoint": ENDPOINT},
}
TYPES = ("Number", "Math", "ExactMatch", "Code", "Regex", "JsonSchema", "Format", "Length", "Python", "RewardModel")
METHOD_BLOCKS = {
    "sft": {},
    "dapt": {},
    "dpo": {},
    "kto": {},
    "orpo": {},
    "reward": {},
    "ppo": {"rewardModelVersion": "judge-v1"},
    "grpo": {"rewards": [NUMBER]},
    "distillation": {"teacherModelVersion": "large-v1"},
}
METHODS = ("SFT", "DAPT", "DPO", "KTO", "ORPO", "Reward", "PPO", "GRPO", "Distillation")
GRPO = {"method": "GRPO", "grpo": {"rewards": [NUMBER]}}
ROWS = ({"name": "a"}, {"name": "a", "split": "test"}, {"name": "b"})
GENERATED = {"template": "SelfInstruct", "endpoint": ENDPOINT, "rows": 4}
PERCENTS = ("0%", "0.001%", "0.0%", "49.9%", "50%", "100%")

KEYS = (
    *("team", "example.org/team", "hone.dev/component", "a.hone.dev/b", "kueue.x-k8s.io/queue-name", "job-name"),
    *(
        "cluster-autoscaler.kubernetes.io/safe-to-evict",
        "batch.kubernetes.io/job-name",
        "xkubernetes.io/a",
        "-a",
        "a b",
    ),
)
OF_RUNTIMES = (
    *(
        "io.kubernetes.cri-o.Devices",
        "io.kubernetes.cri-o",
        "run.oci.handler",
        "seccomp-profile.kubernetes.cri-o.io/POD",
    ),
    *("cpu-quota.crio.io", "cpu-shared.crio.io/trainer", "mycrio.io", "crio.io.example.org/a", "devices.nri.io/pod"),
    *("io.katacontainers.config.hypervisor.kernel_params", "dev.gvisor.flag.nvproxy", "org.systemd.property.CPUQuota"),
    *("ulimits.nri.containerd.io", "devices.noderesource.dev/container.trainer", "io.containerd.rdt-class"),
)
A, B = {"name": "A", "value": "1"}, {"name": "B", "secretName": "hone-key", "key": "token"}


def volume(path: str) -> dict[str, Any]:
    return {"mountPath": f"/mnt/{path}", "configMapName": "c"}


# where in the spec; the spec around it, without what is ABSENT; values of its fields, drawn independently of each
# other.
Case = tuple[str, dict[str, Any], dict[str, tuple[Any, ...]]]
JOB_CASES: dict[str, Case] = {
    "training": (
        "training",
        {},
        {
            "epochs": (ABSENT, ABSENT, *DECIMALS),
            "maxSteps": (ABSENT, 5),
            "batchSize": (ABSENT, 6, 8),
            "microBatchSize": (ABSENT, 1, 3, 4, 16, "Auto"),
            "gradientCheckpointing": (ABSENT, False, True),
            "activationCheckpointing": (ABSENT, "Auto", "Full"),
            **{name: DECIMALS for name in ("learningRate", "warmupRatio", "weightDecay", "l2ToStart", "maxGradNorm")},
        },
    ),
    "checkpoints": ("checkpoints", {}, {"cadence": (ABSENT, "Fixed", "Auto"), "everySteps": (ABSENT, 5)}),
    "adapter": (
        "adapter",
        {},
        {
            "type": ("None", "None", "LoRA", "QLoRA", "DoRA"),
            "rank": (ABSENT, ABSENT, 8),
            "alpha": (ABSENT, ABSENT, 8),
            "dropout": (ABSENT, *DECIMALS),
            "rankStabilized": (ABSENT, False, True),
            "targets": (ABSENT, ABSENT, ["q_proj"]),
        },
    ),
    "passAt": (
        "evaluation.passAt",
        {},
        {"k": (ABSENT, [1], [1, 4], [4, 4], [16]), "generations": (ABSENT, 1, 4, 16), "temperature": DECIMALS},
    ),
    "evaluation": (
        "evaluation",
        {},
        {"passAt": (ABSENT, {}), "rewards": (ABSENT, [], [NUMBER], [REGEX], [REGEX, NUMBER])},
    ),
    "harness": ("evaluation.harness", {}, {"tasks": (["gsm8k"], ["gsm8k", "arc_easy"], ["gsm8k", "gsm8k"])}),
    "reward": (
        "evaluation.rewards[]",
        {},
        {
            "type": (*TYPES, "Judge"),
            "weight": ("-101", "-100", "0", "1", "100", "101"),
            **{block: (ABSENT, options) for block, options in BLOCKS.items()},
        },
    ),
    "length": (
        "evaluation.rewards[]",
        {},
        {"type": ("Length",), "length": ({}, {"min": 5}, {"max": 5}, {"min": 5, "max": 5}, {"min": 9, "max": 5})},
    ),
    "grpo": (
        "grpo",
        GRPO,
        {
            "advantage": (ABSENT, "Group", "LeaveOneOut"),
            "loss": (ABSENT, "DAPO", "GSPO", "CISPO"),
            "scaleRewards": (ABSENT, "Group", "None"),
            "epsilon": (ABSENT, "0.0004", "0.1", "0.2", "0.9", "0", "1"),
            "epsilonHigh": (ABSENT, "0", "0.0003", "0.00029", "0.2", "0.19", "0.28", "4"),
            "temperature": DECIMALS,
            "topP": DECIMALS,
        },
    ),
    "generation": (
        "grpo.generation",
        GRPO,
        {
            "engine": (ABSENT, "Auto", "Transformers", "VLLM"),
            "endpoint": (ABSENT, ENDPOINT, *URLS),
            "secretName": (ABSENT, "key"),
            "gpuMemoryUtilization": (ABSENT, *DECIMALS),
        },
    ),
    "distillation": (
        "distillation",
        {"method": "Distillation"},
        {
            "teacherModelVersion": (ABSENT, "large-v1"),
            "teacherEndpoint": (ABSENT, {"endpoint": ENDPOINT}, *({"endpoint": url} for url in URLS)),
            "level": (ABSENT, "Sequence", "Logits"),
            "maxCompletionLength": (ABSENT, 64),
            "temperature": (ABSENT, *DECIMALS),
        },
    ),
    "ppo": (
        "ppo",
        {"method": "PPO", "ppo": METHOD_BLOCKS["ppo"]},
        {name: DECIMALS for name in ("temperature", "gamma", "gaeLambda", "epsilon")},
    ),
    "run": (
        "",
        {},
        {
            "method": METHODS,
            "output": (
                {"modelName": "m"},
                {"modelName": "m", "formats": ["GGUF"]},
                {"modelName": "m", "formats": ["Safetensors", "GGUF"], "merge": True},
            ),
            "adapter": (ABSENT, {"type": "QLoRA"}, {"type": "None"}),
            "deepspeed": (ABSENT, {"zeroStage": 2}, {"zeroStage": 3}),
            **{block: (ABSENT, ABSENT, options) for block, options in METHOD_BLOCKS.items()},
        },
    ),
    "compared": (
        "",
        {},
        {
            "method": ("SFT", "DPO", "Reward"),
            "evaluation": (ABSENT, {}, {"against": "models://tutor@champion"}),
            "deepspeed": (ABSENT, {"zeroStage": 2}, {"zeroStage": 3}),
        },
    ),
    "elastic": (
        "",
        {},
        {
            "method": ("SFT", "ORPO"),
            "resources": ({"nodes": 2}, {"nodes": 2, "minNodes": 1}, {"nodes": 2, "minNodes": 2}),
        },
    ),
    "budget": (
        "",
        {},
        {
            "resources": ({"gpusPerNode": 0}, {"gpusPerNode": 1}),
            "budget": (
                ABSENT,
                {},
                {"gpuHours": 40},
                {"gpuHours": "0"},
                {"money": "1", "gpuHourPrice": "2.5"},
                {"money": 1},
                {"money": 0, "gpuHourPrice": "1e-3"},
                {"money": 5, "gpuHourPrice": "0.0"},
            ),
        },
    ),
    "probed": (
        "",
        {},
        {
            "method": ("SFT", "DPO", "KTO"),
            "training": ({}, {"microBatchSize": 2}, {"microBatchSize": "Auto"}),
            "deepspeed": (ABSENT, {"zeroStage": 2}),
        },
    ),
    "ranks that share rows": (
        "",
        {},
        {
            "method": ("SFT", "SFT", "SFT", "DAPT", "DPO"),
            "training": (
                {},
                *({"sequenceParallel": ranks} for ranks in (2, 4)),
                *({"sequenceParallel": 2, "microBatchSize": rows} for rows in (1, "Auto")),
            ),
            "sft": (ABSENT, {}, {"neftuneAlpha": "5"}),
            "resources": ({}, *({"gpusPerNode": gpus} for gpus in (1, 2, 4, 6))),
        },
    ),
    "state of the optimizer": (
        "",
        {},
        {
            "training": ({}, {"optimizer": "AdamW"}, {"optimizer": "AdamW8bit"}, {"optimizer": "PagedAdamW"}),
            "deepspeed": (ABSENT, {"zeroStage": 2}),
        },
    ),
    "scaled positions": (
        "",
        {},
        {
            "method": ("SFT", "PPO", "GRPO"),
            "training": ({}, {"ropeScaling": {"factor": "4"}}),
            "adapter": (ABSENT, {"type": "None"}, {"type": "LoRA"}),
            "output": ({"modelName": "m"}, {"modelName": "m", "formats": ["GGUF"], "merge": True}),
        },
    ),
    "longer context": ("training.ropeScaling", {}, {"type": (ABSENT, "YaRN"), "factor": DECIMALS[1:]}),
    "recomputed layers": (
        "",
        GRPO,
        {
            "training": ({}, *({"activationCheckpointing": kind} for kind in ("Full", "Selective", "Offloaded"))),
            "grpo.generation": (ABSENT, {}, {"engine": "Transformers"}, {"engine": "VLLM"}),
        },
    ),
    "tracked": ("", {}, {"tracking": (ABSENT, [TRACKER], [TRACKER, TRACKER], [{"type": "MLflow"}])}),
    "tracker": ("tracking[]", {}, {"type": ("MLflow", "WandB"), "uri": (ABSENT, *URLS), "secretName": (ABSENT, "key")}),
    "judge": ("evaluation.rewards[]", {}, {"type": ("Judge",), "judge": tuple({"endpoint": url} for url in URLS)}),
    "push": (
        "output.push[]",
        {},
        {
            "uri": (
                "oci://registry.example.org/m",
                f"oci://registry.example.org/m:{'t' * 129}",
                "s3://bucket/m",
                "pvc://share/m",
            ),
            "secretName": (ABSENT, "key"),
            "s3": (ABSENT, {"region": "eu-central-1"}),
            "baseImage": (ABSENT, f"registry.example.org/{SHELL}", f"other.example.org/{SHELL}"),
        },
    ),
    "pushes": (
        "output",
        {},
        {"push": ([SHARE], [SHARE, {"uri": "pvc://share/n"}], [SHARE, SHARE], [SHARE, {**SHARE, "form": "Full"}])},
    ),
    "distilled": (
        "",
        {"method": "Distillation"},
        {
            "distillation": tuple({"teacherModelVersion": "t", "level": level} for level in ("Sequence", "Logits")),
            "deepspeed": (ABSENT, {"zeroStage": 2}, {"zeroStage": 3}),
        },
    ),
    "model": (
        "model",
        {"model.uri": ABSENT},
        {
            "uri": (ABSENT, "hf://owner/model", "models://tutor@champion"),
            "modelVersion": (ABSENT, "tutor-v1"),
            "fineTuneJob": (ABSENT, "first"),
            "secretName": (ABSENT, "token"),
        },
    ),
    "base model": (
        "model",
        {},
        {
            "uri": (
                "hf://owner/model",
                "hf://owner/model@main",
                "hf://owner/model/file",
                "hf://owner/..",
                "models://tutor@champion",
                "models://tutor@champion.old",
                "pvc://claim/m",
                "pvc://claim/./m",
                "https://h.test/m",
                "https://user:word@h.test/m",
                "https://huggingface.co/owner/model",
                "https://hf.co.test/owner/model",
                "ftp://h.test/m",
                "s3://key:word@bucket/m",
            )
        },
    ),
    "rows": ("datasets[]", {}, {"name": ("rows",), "share": (ABSENT, *PERCENTS)}),
    "output": (
        "output",
        {},
        {"modelName": ("m", "support-bot", "2-m", "-m", "m-", "M", "m.n", "m_n", "m\n", "é", "٣")},
    ),
    "hangs": (
        "restarts",
        {},
        {
            "hangTimeout": (
                ABSENT,
                "59s",
                "60s",
                "99s",
                "100s",
                "0m",
                "1m",
                "0h",
                "1d",
                "0m59s",
                "1m0s",
                "0s30m",
                "060s",
            )
        },
    ),
    "labels of nodes": (
        "scheduling",
        {},
        {"nodeSelector": tuple({key: "a"} for key in (*KEYS, "pool\n", "pøøl", "a/b/c", "a" * 63, "a" * 64))},
    ),
    "datasets": (
        "",
        {},
        {name: tuple([one, two] for one in ROWS for two in ROWS) for name in ("datasets", "evaluationDatasets")},
    ),
    "resources": (
        "resources",
        {},
        {
            "gpuProducts": (ABSENT, ["H100"]),
            "gpusPerNode": (ABSENT, 0, 2),
            "cpu": (ABSENT, 0, 2, "9m", "10m", "0.01"),
            "memory": (ABSENT, "63Mi", "64Mi", "67108863", 67108864, "1G"),
            "sharedMemory": (ABSENT, "1M", "1Mi"),
        },
    ),
    "slices of a GPU": (
        "resources",
        {},
        {"gpusPerNode": (ABSENT, 0, 1, 2), "gpuResourceName": (ABSENT, "nvidia.com/gpu", "nvidia.com/mig-1g.10gb")},
    ),
    "devices": (
        "resources",
        {},
        {
            "gpusPerNode": (ABSENT, 0, 2),
            "gpusFrom": (ABSENT, "ExtendedResource", "Claims"),
            "claims": (ABSENT, [], [CLAIM], [CLAIM, {**CLAIM, "name": "nics"}], [CLAIM, CLAIM]),
            "nodes": (ABSENT, 2),
            "network": (ABSENT, "TCP", "RoCE"),
        },
    ),
    "offload": (
        "deepspeed",
        {},
        {"zeroStage": (ABSENT, 1, 2, 3), "offload": (ABSENT, "None", "Optimizer", "OptimizerAndParameters")},
    ),
    "tolerations": (
        "scheduling.tolerations[]",
        {},
        {
            "key": (ABSENT, "", "gpu"),
            "operator": (ABSENT, "Equal", "Exists"),
            "value": (ABSENT, "", "yes"),
            "effect": (ABSENT, "NoSchedule", "NoExecute"),
            "tolerationSeconds": (ABSENT, 60),
        },
    ),
    "topology": (
        "scheduling.topology",
        {"scheduling.queueName": "team"},
        {"required": (ABSENT, "rack"), "preferred": (ABSENT, "rack")},
    ),
    "queue": (
        "scheduling",
        {},
        {
            "queueName": (ABSENT, "team"),
            "topology": (ABSENT, {"required": "rack"}),
            "workloadPriorityClass": (ABSENT, "high"),
            "managedBy": (ABSENT, "MultiKueue"),
        },
    ),
    "pod": (
        "pod",
        {},
        {
            "labels": tuple({key: "a"} for key in KEYS),
            "annotations": tuple({key: "a"} for key in (*KEYS, *OF_RUNTIMES)),
            "env": (ABSENT, [A], [A, B], [A, {**B, "name": "A"}]),
            "volumes": (ABSENT, [volume("a")], [volume("a"), volume("a")], [volume("a"), volume("a/b"), volume("ab")]),
        },
    ),
    "variable": (
        "pod.env[]",
        {},
        {
            "name": (
                *("NCCL_DEBUG", "HF_HOME", "HONE_X", "LD_PRELOAD", "RANK", "RANKS", "PYTHONPATH", "PATH", "MYPATH"),
                *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_T", "NVIDIA_TF32_OVERRIDE"),
                *("AMD_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES", "ASCEND_VISIBLE_DEVICES", "ASCEND_RUNTIME_OPTIONS"),
                *("CUDA_VERSION", "DOCKER_RESOURCE_GPU", "CUDA_VISIBLE_DEVICES", "nvidia_visible_devices"),
            ),
            "value": (ABSENT, "", "x"),
            "secretName": (ABSENT, "hone-key"),
            "key": (ABSENT, "token"),
        },
    ),
    "volume": (
        "pod.volumes[]",
        {},
        {
            "mountPath": ("/mnt/a",),
            "claimName": (ABSENT, "c"),
            "configMapName": (ABSENT, "c"),
            "secretName": (ABSENT, "hone-c"),
            "scratch": (ABSENT, {"size": "1Gi"}),
        },
    ),
}
DATASET_CASES: dict[str, Case] = {
    "dataset": (
        "",
        {"source": ABSENT},
        {
            "source": (ABSENT, {"uri": "pvc://data/rows.jsonl"}),
            "mixture": (ABSENT, ABSENT, [], [{"name": "a", "weight": "100%"}]),
            "mixtureBy": (ABSENT, "Rows", "Tokens"),
            "mixtureTotal": (ABSENT, ABSENT, 5),
            "synthesis": (ABSENT, ABSENT, GENERATED, {**GENERATED, "template": "RAFT"}),
            "raft": (ABSENT, {}),
            "format": (ABSENT, "Auto", "RAFT", "Chat"),
            "resources": (ABSENT, {"pods": 2}),
        },
    ),
    "source": (
        "source",
        {},
        {
            "uri": ("hf://owner/name", "s3://bucket/rows", "s3://Bad_Bucket/rows", "https://h.test/a", "pvc://c/a.csv"),
            "sha256": (ABSENT, "0" * 64),
            "s3": (ABSENT, {}),
            "config": (ABSENT, ABSENT, "main"),
            "split": (ABSENT, ABSENT, "test"),
            "files": (ABSENT, [], ["a.csv"]),
        },
    ),
    "address": (
        "source",
        {},
        {
            "uri": (
                "hf://owner/name@main",
                "hf://owner/name/rows.csv",
                "hf://datasets/owner/name",
                "hf://name",
                "gs://bucket/rows",
                "az://bucket/rows",
                "abfss://bucket/rows",
                "http://h.test/a",
                "https://user:word@h.test/a",
                "https://h.test/../a",
                "ftp://h.test/a",
                "configmap://rows/a.csv",
                "configmap://rows/a/b",
            )
        },
    ),
    "split": (
        "source",
        {"source.uri": "hf://owner/name"},
        {"split": ("train", "train.a", "train+test", "train[:9]", "a-b", "тест", "test٣", "train\n", "\ntrain")},
    ),
    "bucket": ("source.s3", {"source.uri": "s3://bucket/rows"}, {"endpoint": URLS}),
    "score": (
        "curation.scores[]",
        {},
        {
            "scorer": ("Quality", "Toxicity", "Classifier"),
            "minimum": (ABSENT, "50%"),
            "maximum": (ABSENT, "50%"),
            "modelVersion": (ABSENT, "judge-v1"),
        },
    ),
    "near": ("curation.nearDuplicates", {}, {"similarity": (ABSENT, *PERCENTS)}),
    "part": ("mixture[]", {"source": ABSENT}, {"name": ("a",), "weight": PERCENTS}),
    "refresh": (
        "refresh",
        {},
        {
            "every": (ABSENT, "24h"),
            "schedule": (ABSENT, "0 3 * * *"),
            "timeZone": (ABSENT, "Europe/Berlin"),
        },
    ),
    "synthesis": ("synthesis", {"synthesis": GENERATED}, {"temperature": DECIMALS, "endpoint": URLS}),
    "judged rows": ("synthesis.filters.judge", {"synthesis": GENERATED}, {"endpoint": (ABSENT, *URLS)}),
    "review": (
        "synthesis.review",
        {"synthesis": GENERATED},
        {"required": (ABSENT, True, False), "accepted": (ABSENT, 5), "sampling": (ABSENT, {"size": 9})},
    ),
    "rows' resources": (
        "resources",
        {},
        {"cpu": (ABSENT, 0, "9m", "10m", 2), "memory": (ABSENT, "63Mi", "64Mi", "67108863", "1G")},
    ),
}
ENTRIES = (
    "oci://registry.example.org/m",
    "oci://registry.example.org/m:best",
    f"oci://registry.example.org/m:{'t' * 129}",
    "s3://bucket/m",
    "hf://owner/m",
    "pvc://share/m",
    "pvc://share/../m",
    "https://user:word@h.test/m",
    "https://h.test/m",
)
ENTRY = {"uri": ENTRIES, "secretName": (ABSENT, "key"), "s3": (ABSENT, {"region": "eu-central-1"})}
PINNED = {"name": "production", "version": 1}
STAGE = {
    "job": (ABSENT, {"name": "first", "uid": "u"}),
    "imported": (ABSENT, {"uri": "hf://owner/m", "key": "k", "digest": f"sha256:{'0' * 64}"}),
}
MODEL_CASES: dict[str, Case] = {
    "aliases": (
        "",
        {"aliases": ABSENT},
        {
            "aliases": (ABSENT, [], [PINNED], [{**PINNED, "name": "v2"}], [PINNED, {**PINNED, "name": "vip"}]),
            "promotion": tuple({"aliases": names} for names in (["champion"], ["v3"], ["production"], ["vip", "v4"])),
        },
    ),
    "gates": (
        "promotion.gates[]",
        {"promotion.aliases": ["champion"]},
        {"metric": ("loss",), "atMost": (ABSENT, "1.2"), "atLeast": (ABSENT, "-0.1")},
    ),
    "retrain": (
        "retrain.rows",
        {"retrain.fineTuneJob": "first", "retrain.rows": {}},
        {"atLeast": (ABSENT, 500), "share": (ABSENT, "10%")},
    ),
    "times": (
        "retrain.times",
        {"retrain.fineTuneJob": "first", "retrain.times": {}},
        {"every": (ABSENT, "24h"), "schedule": (ABSENT, "0 3 * * *"), "timeZone": (ABSENT, "Europe/Berlin")},
    ),
    "copy": ("deliveries[]", {}, ENTRY),
    "copies": ("", {}, {"deliveries": ([SHARE], [SHARE, {"uri": "pvc://share/n"}], [SHARE, SHARE])}),
    "import": ("imports[]", {}, ENTRY),
    "imports": ("", {}, {"imports": ([SHARE], [SHARE, {"uri": "pvc://share/n"}], [SHARE, SHARE])}),
    "base": ("imports[]", {}, {"uri": ("pvc://share/m",), "base": tuple({"uri": uri} for uri in ENTRIES)}),
    "scored": (
        "imports[].evaluation",
        {"imports[].uri": "pvc://share/m"},
        {"dataset": ("rows",), "cpu": (ABSENT, 0, "9m", "10m", 2), "memory": (ABSENT, "63Mi", "64Mi", "67108863")},
    ),
    "registry": (
        "registry.mlflow",
        {},
        {"uri": ("https://h.test", "https://user:word@h.test", "https://h.test/..", "https://h.test/a")},
    ),
}
VERSION_CASES: dict[str, Case] = {
    "version's copy": ("deliveries[]", {}, ENTRY),
    "version's copies": MODEL_CASES["copies"],
    "measured again": (
        "evaluations[]",
        {},
        {
            "dataset": ("rows",),
            "against": (
                ABSENT,
                "tutor-v1",
                "models://tutor@champion",
                "models://tutor:2",
                "tutor@champion",
                "hf://a/b",
            ),
            "cpu": (ABSENT, 0, "9m", "10m", 2),
            "memory": (ABSENT, "63Mi", "64Mi", "67108863"),
        },
    ),
    "made by": ("lineage", {"lineage.job": ABSENT}, STAGE),
    "stage": (
        "lineage.ancestors[]",
        {},
        {
            "baseModel": ({"uri": "hf://owner/m"},),
            "datasets": ([],),
            "method": ("SFT",),
            "hyperParameters": ({"training": {}},),
            "modelVersion": ("tutor-v1",),
            "digest": (f"sha256:{'0' * 64}",),
            **STAGE,
        },
    ),
}
CASES_OF = {JOB: JOB_CASES, "Dataset": DATASET_CASES, "Model": MODEL_CASES, "ModelVersion": VERSION_CASES}
CASES = {name: case for cases in CASES_OF.values() for name, case in cases.items()}
KIND_OF = {name: kind for kind, cases in CASES_OF.items() for name in cases}


def models(annotation: Any, seen: set[type[ApiModel]]) -> Iterator[type[ApiModel]]:
    """Every model in a type, once."""
    for argument in get_args(annotation):
        yield from models(argument, seen)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for info in annotation.model_fields.values():
            yield from models(info.annotation, seen)


def rules_of(spec: type[ApiModel]) -> list[tuple[type[ApiModel], Rule]]:
    return [(model, rule) for model in models(spec, set()) for rule in model.rules]


RULES = [each for spec in SPECS.values() for each in rules_of(spec)]
SEEN = {rule.message for _, rule in RULES} - {each.message for each in UNSUPPORTED}


def examples(case: str) -> Iterator[dict[str, Any]]:
    """Specs of a case, the same at every run."""
    path, _, fields = CASES[case]
    draw = random.Random(case)
    for _ in range(EXAMPLES):
        drawn = {name: draw.choice(values) for name, values in fields.items()}
        yield {f"{path}.{name}".lstrip("."): value for name, value in drawn.items() if value is not ABSENT}


def remove(spec: dict[str, Any], path: str) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        spec = spec[parent]
    del spec[name]


def said_in_python(kind: str, spec: dict[str, Any], rules: set[str]) -> tuple[set[str], set[str]]:
    """Messages with which a type refuses a value, e.g. a uri; and if there are none, those of the broken rules."""
    try:
        return set(), {broken.rule.message for broken in broken_rules(SPECS[kind].model_validate(spec))}
    except ValidationError as error:
        refused = {message for message in rules if message in str(error)}
        if not refused:
            raise
        return refused, set()


@pytest.mark.pure
@pytest.mark.parametrize("rule", FineTuneJobSpec.rules, ids=lambda rule: rule.message[:40])
def test_a_problem_of_a_spec_begins_with_its_field(rule: Rule) -> None:
    """Others put `spec.` before it."""
    fields = {
        info.alias or name for model in models(FineTuneJobSpec, set()) for name, info in model.model_fields.items()
    }
    path = re.split("[: ]", str(Broken("", rule)))[0]
    assert set(path.split(".")) <= fields, path


@pytest.fixture(scope="module")
def seen() -> dict[str, set[bool]]:
    """By message of a rule: whether it held in an example, was broken in one, or both."""
    return {message: set() for message in SEEN}


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES)
def test_both_say_the_same(api: Any, manifest: Any, seen: dict[str, set[bool]], case: str) -> None:
    kind, around = KIND_OF[case], CASES[case][1]
    rules = {rule.message for _, rule in rules_of(SPECS[kind])}
    for changes in examples(case):
        values = copy.deepcopy({**around, **changes}, {id(ABSENT): ABSENT})  # `manifest` puts values into them
        body = manifest(kind, {f"spec.{path}": value for path, value in values.items() if value is not ABSENT})
        for path in (path for path, value in values.items() if value is ABSENT):
            remove(body["spec"], path)  # the smallest manifest has it
        answer = api.create(body)
        assert answer.code in (201, 422), answer.body
        by_server = {message for message in rules if message in answer.message}
        by_type, by_us = said_in_python(kind, body["spec"], rules)
        assert by_type <= by_server, body["spec"]
        assert by_type or by_us == by_server, body["spec"]
        for message in rules:
            if message in seen:
                seen[message].add(message in by_server)


@pytest.mark.apiserver
def test_every_rule_was_seen_both_ways(seen: dict[str, set[bool]]) -> None:
    assert {message for message, ways in seen.items() if ways != {True, False}} == set()


NAMES = ("rows", "a" * 50, "a" * 51, "a" * 52, "a" * 53, "a" * 63, "a" * 64, "some.rows", f"{'a' * 52}.b", "3-rows")


@pytest.mark.apiserver
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_both_say_the_same_of_a_name(api: Any, manifest: Any, kind: Kind, name: str) -> None:
    answer = api.create(manifest(kind.kind, name=name))
    by_server = {rule.message for rule in kind.rules if rule.message in answer.message}
    assert {rule.message for rule in kind.rules if not rule.holds({"metadata": {"name": name}})} == by_server
    if kind is DATASET:
        spec = DatasetSpec.model_validate(manifest("Dataset")["spec"])
        assert {problem.message for problem in dataset_problems(name, spec)} == by_server
