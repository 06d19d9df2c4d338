"""What the API server refuses, and that it names the field and the way out."""

from typing import Any

import pytest

pytestmark = pytest.mark.apiserver

JOB, DATASET, VERSION = "FineTuneJob", "Dataset", "ModelVersion"
MODEL = "spec.model.uri"
SOURCE = "spec.source.uri"
NO_CREDENTIALS = "name a Secret in secretName"
BASE = (
    "a base model is hf://owner/name, hf://owner/name@revision, oci://host.example/name@sha256:…, "
    "pvc://claim/path or models://name@alias"
)
ROWS = "a source of rows is hf://owner/name"
PINNED = "sha256:" + "0" * 64
NO_DOTS = "must not contain a . or .. segment: write the full path"
MODELS = "http://teacher.models.svc/v1"
LOGITS = {
    "spec.method": "Distillation",
    "spec.distillation.teacherModelVersion": "large-v1",
    "spec.distillation.level": "Logits",
}
GRPO = {"spec.method": "GRPO", "spec.grpo.rewards": [{"type": "Number"}]}

# kind, changes to the minimal manifest, field named, fragment of the message
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    # what does not exist
    (JOB, {"spec.epochs": "3"}, "spec.epochs", "unknown field"),
    (JOB, {"spec.training.lr": "1e-4"}, "spec.training.lr", "unknown field"),
    (DATASET, {"spec.source.path": "x"}, "spec.source.path", "unknown field"),
    (VERSION, {"spec.lineage.who": "x"}, "spec.lineage.who", "unknown field"),
    (JOB, {"spec.method": "sft"}, "spec.method", 'supported values: "SFT", "DAPT"'),
    (JOB, {"spec.adapter.type": "Lora"}, "spec.adapter.type", 'supported values: "None", "LoRA"'),
    (DATASET, {"spec.format": "csv"}, "spec.format", 'supported values: "Auto"'),
    # numbers
    (JOB, {"spec.training.batchSize": -8}, "spec.training.batchSize", "greater than or equal to 1"),
    (JOB, {"spec.training.batchSize": 0}, "spec.training.batchSize", "greater than or equal to 1"),
    (JOB, {"spec.training.maxSteps": 10**12}, "spec.training.maxSteps", "less than or equal to 10000000"),
    (JOB, {"spec.training.maxSteps": "raw:9223372036854775808"}, "spec.training.maxSteps", "integer"),
    (JOB, {"spec.training.maxSteps": "raw:1e400"}, "", "cannot unmarshal number 1e400"),
    (JOB, {"spec.training.maxSteps": 2.5}, "spec.training.maxSteps", "must be of type integer"),
    (JOB, {"spec.training.maxSteps": "5"}, "spec.training.maxSteps", "must be of type integer"),
    (JOB, {"spec.training.learningRate": 0.0002}, "spec.training.learningRate", "must be of type integer,string"),
    (JOB, {"spec.training.learningRate": "-1e-4"}, "spec.training.learningRate", "should match"),
    (JOB, {"spec.training.learningRate": "0"}, "spec.training.learningRate", "above 0 and at most 1, e.g. '2e-4'"),
    (JOB, {"spec.training.learningRate": "2e4"}, "spec.training.learningRate", "above 0 and at most 1, e.g. '2e-4'"),
    (JOB, {"spec.training.learningRate": "1e400"}, "spec.training.learningRate", "above 0 and at most 1, e.g. '2e-4'"),
    (JOB, {"spec.training.learningRate": "nan"}, "spec.training.learningRate", "above 0 and at most 1, e.g. '2e-4'"),
    (JOB, {"spec.training.epochs": "1e9"}, "spec.training.epochs", "above 0 and at most 1000, e.g. '3'"),
    (JOB, {"spec.training.warmupRatio": "3"}, "spec.training.warmupRatio", "at least 0 and at most 1"),
    (JOB, {"spec.training.weightDecay": "7"}, "spec.training.weightDecay", "at least 0 and at most 1"),
    (JOB, {"spec.training.l2ToStart": "0"}, "spec.training.l2ToStart", "above 0 and at most 1000, e.g. '0.1'"),
    (JOB, {"spec.training.maxGradNorm": "0"}, "spec.training.maxGradNorm", "above 0"),
    (JOB, {"spec.adapter.dropout": "1"}, "spec.adapter.dropout", "at least 0 and below 1"),
    (JOB, {"spec.datasets[].share": "0.5"}, "spec.datasets[0].share", "should match"),
    (JOB, {"spec.datasets[].share": "0.0%"}, "spec.datasets[0].share", "share must be above 0%, e.g. 10%"),
    (JOB, {"spec.datasets": [{"name": "a"}, {"name": "a"}]}, "spec.datasets", "names a split of a Dataset twice"),
    (
        JOB,
        {"spec.evaluationDatasets": [{"name": "a"}, {"name": "a", "split": "validation"}]},
        "spec.evaluationDatasets",
        "names a split of a Dataset twice",
    ),
    (JOB, {"spec.resources.memory": "-1Gi"}, "spec.resources.memory", "should match"),
    (JOB, {"spec.resources.cpu": "0"}, "spec.resources.cpu", "cpu must be at least 10m, e.g. 500m"),
    (JOB, {"spec.resources.cpu": "9m"}, "spec.resources.cpu", "cpu must be at least 10m, e.g. 500m"),
    (JOB, {"spec.resources.memory": "1Ki"}, "spec.resources.memory", "memory must be at least 64Mi, e.g. 8Gi"),
    (JOB, {"spec.resources.memory": "64M"}, "spec.resources.memory", "memory must be at least 64Mi, e.g. 8Gi"),
    (JOB, {"spec.resources.sharedMemory": "1"}, "spec.resources.sharedMemory", "must be at least 1Mi, e.g. 1Gi"),
    (DATASET, {"spec.resources.cpu": "0"}, "spec.resources.cpu", "cpu must be at least 10m, e.g. 500m"),
    (DATASET, {"spec.resources.memory": "1Ki"}, "spec.resources.memory", "memory must be at least 64Mi, e.g. 2Gi"),
    (JOB, {"spec.deadline": "soon"}, "spec.deadline", "should match"),
    (JOB, {"spec.budget": {"gpuHours": 1}}, "spec.budget", "the run has no GPU: remove it, or limit the time by"),
    (JOB, {"spec.resources.gpusPerNode": 1, "spec.budget": {}}, "spec.budget", "set gpuHours or money"),
    (JOB, {"spec.resources.gpusPerNode": 1, "spec.budget": {"money": 1}}, "spec.budget", "money and gpuHourPrice go"),
    (
        JOB,
        {"spec.resources.gpusPerNode": 1, "spec.budget": {"gpuHours": "0"}},
        "spec.budget.gpuHours",
        "gpuHours must be above 0",
    ),
    (JOB, {"spec.restarts.hangTimeout": "0s"}, "spec.restarts.hangTimeout", "hangTimeout must be at least 1m"),
    (JOB, {"spec.restarts.hangTimeout": "0m59s"}, "spec.restarts.hangTimeout", "hangTimeout must be at least 1m"),
    (DATASET, {"spec.splits.validation": "101%"}, "spec.splits.validation", "should match"),
    (VERSION, {"spec.version": 0}, "spec.version", "greater than or equal to 1"),
    (JOB, {"spec.evaluation": {"rewards": [{"type": "Judge"}]}}, "spec.evaluation.rewards[0].judge", "needs the block"),
    (
        JOB,
        {"spec.evaluation": {"rewards": [{"type": "Number", "name": f"n{i}"} for i in range(5)]}},
        "spec.evaluation.rewards",
        "at most 4 items",
    ),
    (
        JOB,
        {"spec.evaluation": {"rewards": [{"type": "Format", "format": {"style": "Boxed"}}], "passAt": {}}},
        "spec.evaluation.passAt",
        "add one of type Number, Math, ExactMatch, Code",
    ),
    (
        JOB,
        {"spec.evaluation": {"rewards": [{"type": "Number"}], "passAt": {"k": [1, 9]}}},
        "spec.evaluation.passAt.k",
        "k must not be larger than generations",
    ),
    (
        JOB,
        {"spec.evaluation": {"metrics": ["arc_easy"]}},
        "spec.evaluation.metrics[0]",
        "supported values",
    ),
    (JOB, {"spec.evaluation": {"harness": {}}}, "spec.evaluation.harness.tasks", "Required"),
    (JOB, {"spec.evaluation": {"harness": {"tasks": []}}}, "spec.evaluation.harness.tasks", "at least 1 items"),
    (
        JOB,
        {"spec.evaluation": {"harness": {"tasks": ["arc_easy", "gsm8k", "arc_easy"]}}},
        "spec.evaluation.harness.tasks",
        "has one name twice: remove it",
    ),
    (
        JOB,
        {"spec.evaluation": {"harness": {"tasks": ["../arc_easy"]}}},
        "spec.evaluation.harness.tasks[0]",
        "should match",
    ),
    (
        JOB,
        {"spec.evaluation": {"harness": {"tasks": [f"t{n}" for n in range(17)]}}},
        "spec.evaluation.harness.tasks",
        "at most 16 items",
    ),
    (
        JOB,
        {"spec.evaluation": {"harness": {"tasks": ["gsm8k"], "limit": 0}}},
        "spec.evaluation.harness.limit",
        "greater than or equal to 1",
    ),
    (
        JOB,
        {"spec.evaluation": {"harness": {"tasks": ["gsm8k"], "fewShot": 65}}},
        "spec.evaluation.harness.fewShot",
        "less than or equal to 64",
    ),
    (
        JOB,
        {"spec.evaluation": {"harness": {"tasks": ["gsm8k"], "maxRegression": "0.05"}}},
        "spec.evaluation.harness.maxRegression",
        "should match",
    ),
    # null and absence
    (JOB, {"spec": None}, "spec", "Required"),
    (JOB, {"spec.model": None}, "spec.model", "Required"),
    (JOB, {"spec.output": None}, "spec.output", "Required"),
    (JOB, {"spec.datasets": None}, "spec.datasets", "Required"),
    (JOB, {"spec.datasets": []}, "spec.datasets", "at least 1 items"),
    (JOB, {"spec.datasets[]": None}, "spec.datasets[0]", "must be of type object"),
    (VERSION, {"spec.artifacts": []}, "spec.artifacts", "at least 1 items"),
    # what excludes each other
    (JOB, {"spec.model": {}}, "spec.model", "set exactly one of uri, modelVersion and fineTuneJob"),
    (JOB, {"spec.model.modelVersion": "v"}, "spec.model", "set exactly one of uri, modelVersion and fineTuneJob"),
    (JOB, {"spec.model": {"fineTuneJob": "a", "secretName": "s"}}, "spec.model", "secretName is for uri only: remove"),
    (DATASET, {"spec": {}}, "spec", "set exactly one of source and mixture"),
    (DATASET, {"spec.mixture": [{"name": "a", "weight": "1%"}]}, "spec", "set exactly one of source and mixture"),
    (
        JOB,
        {"spec.training.epochs": "1", "spec.training.maxSteps": 5},
        "spec.training",
        "set epochs or maxSteps, not both: remove one",
    ),
    (
        JOB,
        {"spec.training.batchSize": 8, "spec.training.microBatchSize": 3},
        "spec.training",
        "must be a multiple of microBatchSize: change one",
    ),
    (JOB, {"spec.training.microBatchSize": "auto"}, "spec.training.microBatchSize", "should match '^Auto$'"),
    (JOB, {"spec.training.microBatchSize": 0}, "spec.training.microBatchSize", "greater than or equal to 1"),
    (
        JOB,
        {"spec.method": "ORPO", "spec.training.microBatchSize": "Auto"},
        "spec.training",
        "of others, memory would decide what is learned",
    ),
    (
        JOB,
        {"spec.deepspeed": {}, "spec.training.microBatchSize": "Auto"},
        "spec.training",
        "training.microBatchSize Auto cannot be combined with deepspeed",
    ),
    (JOB, {"spec.dpo": {}}, "spec.dpo", "the block dpo is for method DPO: remove it, or set method to DPO"),
    (JOB, {"spec.method": "DPO", "spec.sft": {}}, "spec.sft", "the block sft is for method SFT: remove it"),
    (JOB, {"spec.method": "PPO"}, "spec.ppo", "method PPO needs the block ppo with rewardModelVersion"),
    (
        JOB,
        {"spec.adapter": {"type": "None", "rank": 8}},
        "spec.adapter",
        "remove rank, alpha, dropout, targets, rankStabilized",
    ),
    (
        JOB,
        {"spec.adapter.type": "QLoRA", "spec.deepspeed.zeroStage": 3},
        "spec.deepspeed",
        "use zeroStage 2, or adapter type LoRA",
    ),
    (
        JOB,
        {**LOGITS, "spec.deepspeed.zeroStage": 3},
        "spec.deepspeed",
        "needs whole weights on each rank: use zeroStage 2, or level Sequence",
    ),
    (
        JOB,
        {**LOGITS, "spec.distillation.maxCompletionLength": 8},
        "spec.distillation.maxCompletionLength",
        "for level Sequence, whose teacher answers: remove it",
    ),
    (
        JOB,
        {"spec.method": "Distillation", "spec.distillation": {}},
        "spec.distillation",
        "set exactly one of teacherModelVersion and teacherEndpoint",
    ),
    (
        JOB,
        {**LOGITS, "spec.distillation.level": "Sequence", "spec.distillation.teacherEndpoint": {"endpoint": MODELS}},
        "spec.distillation",
        "set exactly one of teacherModelVersion and teacherEndpoint",
    ),
    (
        JOB,
        {
            "spec.method": "Distillation",
            "spec.distillation": {"teacherEndpoint": {"endpoint": MODELS}, "level": "Logits"},
        },
        "spec.distillation.teacherEndpoint",
        "use level Sequence, or teacherModelVersion",
    ),
    (
        JOB,
        {
            "spec.method": "Distillation",
            "spec.distillation": {"teacherEndpoint": {"endpoint": "https://user:pw@models.example"}},
        },
        "spec.distillation.teacherEndpoint.endpoint",
        NO_CREDENTIALS,
    ),
    *(
        (
            JOB,
            {**GRPO, "spec.grpo.advantage": "LeaveOneOut", "spec.grpo.loss": loss},
            "spec.grpo",
            "for advantage Group",
        )
        for loss in ("GSPO", "CISPO")
    ),
    (
        JOB,
        {**GRPO, "spec.grpo.loss": "CISPO", "spec.grpo.epsilon": "0.2"},
        "spec.grpo.epsilon",
        "remove epsilon; epsilonHigh is its upper bound",
    ),
    (JOB, {**GRPO, "spec.grpo.epsilon": "1"}, "spec.grpo.epsilon", "above 0 and below 1, e.g. '0.2'"),
    *(
        (JOB, {**GRPO, **bounds}, "spec.grpo.epsilonHigh", "epsilonHigh must be at least epsilon")
        for bounds in (
            {"spec.grpo.epsilonHigh": "0.1"},
            {"spec.grpo.epsilonHigh": "0.2", "spec.grpo.epsilon": "0.3"},
            {"spec.grpo.epsilonHigh": "0.0001", "spec.grpo.loss": "GSPO"},
        )
    ),
    (
        JOB,
        {**GRPO, "spec.grpo.generation": {"engine": "VLLM", "secretName": "key"}},
        "spec.grpo.generation.secretName",
        "generation.secretName is for a server: set endpoint, or remove it",
    ),
    (JOB, {**LOGITS, "spec.distillation.temperature": "0"}, "spec.distillation.temperature", "above 0 and at most 10"),
    (
        JOB,
        {**LOGITS, "spec.distillation.level": "Sequence", "spec.distillation.temperature": "2"},
        "spec.distillation.temperature",
        "temperature is for level Logits",
    ),
    (JOB, {"spec.resources.gpuProducts": ["A"]}, "spec.resources", "set gpusPerNode to at least 1, or remove"),
    (JOB, {"spec.resources.network": "RoCE"}, "spec.resources.network", "set nodes to at least 2, or remove network"),
    (
        JOB,
        {"spec.resources": {"gpusPerNode": 1, "gpusFrom": "Claims"}},
        "spec.resources.gpusFrom",
        "set claims and gpusPer",
    ),
    (
        JOB,
        {"spec.resources.claims": [{"name": "a", "resourceClaimTemplateName": t} for t in ("x", "y")]},
        "spec.resources.claims",
        "claims has a name twice: rename one",
    ),
    (JOB, {"spec.deepspeed.offload": "OptimizerAndParameters"}, "spec.deepspeed.offload", "needs zeroStage 3"),
    (
        DATASET,
        {SOURCE: "hf://a/b", "spec.source.sha256": "0" * 64},
        "spec.source",
        "hf:// is pinned by @revision instead",
    ),
    (DATASET, {SOURCE: "hf://a/b", "spec.source.s3.region": "x"}, "spec.source", "s3 is for s3:// only"),
    (DATASET, {SOURCE: "s3://bucket/x", "spec.source.split": "train"}, "spec.source", "config and split are for hf://"),
    (
        DATASET,
        {SOURCE: "hf://a/b", "spec.source.split": "train", "spec.source.files": ["*.csv"]},
        "spec.source",
        "remove config and split",
    ),
    (DATASET, {SOURCE: "hf://a/b", "spec.source.split": "../x"}, "spec.source.split", "the name of one split"),
    (DATASET, {SOURCE: "hf://a/b", "spec.source.split": "train[:10%]"}, "spec.source.split", "draw rows by a mixture"),
    (DATASET, {SOURCE: "hf://a/b", "spec.source.split": "train+test"}, "spec.source.split", "a mixture of both"),
    (DATASET, {SOURCE: "hf://a/b/data/train.jsonl"}, SOURCE, "write hf://owner/name, without a path"),
    (DATASET, {SOURCE: "ftp://data.test/rows.jsonl"}, SOURCE, "copy rows from elsewhere to a volume (pvc://)"),
    (DATASET, {"spec": {"mixture": []}}, "spec.mixture", "name the parts of the mixture"),
    (DATASET, {"spec": {"mixture": [{"name": "a", "weight": "0%"}]}}, "spec.mixture[0].weight", "above 0%"),
    (DATASET, {"spec.mixtureTotal": 5}, "spec", "are for a mixture: remove them"),
    (
        DATASET,
        {"spec": {"mixture": [{"name": "a", "weight": "1%"}], "resources": {"pods": 2}}},
        "spec.resources.pods",
        "one pod combines the parts of a mixture",
    ),
    (DATASET, {"spec.resources.pods": 17}, "spec.resources.pods", "should be less than or equal to 16"),
    (DATASET, {"spec.refresh.every": "never"}, "spec.refresh.every", "should match"),
    (DATASET, {"spec.refresh": {}}, "spec.refresh", "set exactly one of every and schedule"),
    (DATASET, {"spec.refresh": {"every": "1h", "schedule": "0 3 * * *"}}, "spec.refresh", "set exactly one of"),
    (DATASET, {"spec.refresh": {"every": "1h", "timeZone": "UTC"}}, "spec.refresh.timeZone", "for schedule: remove it"),
    (DATASET, {"spec.refresh.schedule": "@daily"}, "spec.refresh.schedule", "should match"),
    # addresses
    (DATASET, {SOURCE: "s3://My_Bucket/x"}, SOURCE, "write s3://bucket/path"),
    (DATASET, {SOURCE: "s3://ab/x"}, SOURCE, "write s3://bucket/path"),
    (
        DATASET,
        {SOURCE: "s3://bucket/x", "spec.source.s3.endpoint": "ftp://h"},
        "spec.source.s3.endpoint",
        "should match",
    ),
    (
        DATASET,
        {SOURCE: "s3://bucket/x", "spec.source.s3.endpoint": "https://u:p@h"},
        "spec.source.s3.endpoint",
        NO_CREDENTIALS,
    ),
    *(
        (kind, {field: uri}, field, fragment)
        for kind, field in ((JOB, MODEL), (DATASET, SOURCE))
        for uri, fragment in (
            ("https://user:pw@host/x", NO_CREDENTIALS),
            ("https://token@host/x", NO_CREDENTIALS),
            ("s3://key:secret@bucket/x", NO_CREDENTIALS),
            ("pvc://claim/../x", NO_DOTS),
            ("pvc://claim/a/..", NO_DOTS),
            ("pvc://claim/./x", NO_DOTS),
            ("https://host/a/../b", NO_DOTS),
            ("hf://a/../b", NO_DOTS),
            ("hf://../b", ROWS if kind == DATASET else BASE),
            ("hf://a/b@../../c", NO_DOTS),
            ("file:///etc/passwd", BASE if kind == JOB else ROWS),
            ("http://host/x", "write https://" if kind == DATASET else BASE),
            ("gs://bucket/x", "s3.endpoint https://storage.googleapis.com" if kind == DATASET else BASE),
            ("az://container/x", "SAS token" if kind == DATASET else BASE),
            ("hf://datasets/owner/name", "write hf://owner/name" if kind == DATASET else BASE),
            ("/etc/passwd", BASE if kind == JOB else ROWS),
            ("https://host/a\r\nX-Evil: 1", "should match"),
            ("https://host/a b", "should match"),
            ("pvc://claim/a\u0000b", "should match"),
            ("pvc://claim", BASE if kind == JOB else ROWS),
            ("pvc:///x", BASE if kind == JOB else ROWS),
            ("pvc://other-namespace/../claim/x", NO_DOTS),
            ("hf://" + "a" * 2000 + "/b", "may not be more than 1024"),
        )
    ),
    (JOB, {MODEL: "https://host/npm/pkg@1.0/weights"}, MODEL, "copy it to a volume (pvc://claim/path)"),
    *(
        (JOB, {MODEL: uri}, MODEL, BASE)
        for uri in (
            "oci://registry.example.org/models/x",
            "oci://registry.example.org/models/x:latest",
            f"oci://registry.example.org/models/X@{PINNED}",
            f"oci://registry.example.org/../x@{PINNED}",
            f"oci://library/x@{PINNED}",  # the kubelet would ask Docker Hub
            f"oci://registry.example.org/x@{PINNED}/path",
        )
    ),
    (JOB, {MODEL: f"oci://user:pw@registry.example.org/x@{PINNED}"}, MODEL, NO_CREDENTIALS),
    (JOB, {MODEL: "owner/name"}, MODEL, BASE),
    (JOB, {MODEL: "https://huggingface.co/owner/name"}, MODEL, "write hf://owner/name"),
    *(
        (JOB, {"spec.output.push": [{"uri": uri, **more}]}, f"spec.output.push[0]{field}", words)
        for uri, more, field, words in (
            ("oci://user:pw@registry/x", {}, ".uri", NO_CREDENTIALS),
            ("pvc://claim/a/../b", {}, ".uri", NO_DOTS),
            ("hf://owner/name@v1", {}, ".uri", "hf://owner/name without a revision"),
            ("oci://registry/Upper", {}, ".uri", "a repository in lower case"),
            ("oci://registry/x@sha256:" + "0" * 64, {}, ".uri", "a repository in lower case"),
            ("oci://registry/x:" + "t" * 129, {}, ".uri", "and a tag 128: shorten it"),
            ("oci://registry:5000/" + "x/" * 128 + "x:v1", {}, ".uri", "a repository has at most 255 characters"),
            ("https://host/x", {}, ".uri", "a delivery goes to"),
            ("oci://registry/x", {"s3": {"region": "eu-west-1"}}, "", "s3 is for s3:// only"),
            ("pvc://claim/x", {"secretName": "hone-x"}, "", "a volume needs no credentials"),
            ("oci://registry/x", {"baseImage": "registry/sh:1"}, ".baseImage", "should match"),
            ("oci://registry/x", {"baseImage": f"other/sh@{PINNED}"}, ".baseImage", "in the registry that uri names"),
            ("oci://registryx/x", {"baseImage": f"registry/sh@{PINNED}"}, ".baseImage", "in the registry that uri"),
            ("s3://bucket/x", {"baseImage": f"registry/sh@{PINNED}"}, ".baseImage", "baseImage is for oci:// only"),
        )
    ),
    (JOB, {"spec.output.push": [{"uri": "s3://bucket/x"}] * 2}, "spec.output.push", "names a uri twice"),
    (
        JOB,
        {"spec.tracking": [{"type": "MLflow", "uri": "https://user:pw@host"}]},
        "spec.tracking[0].uri",
        NO_CREDENTIALS,
    ),
    (JOB, {"spec.tracking": [{"type": "MLflow", "uri": "file:///x"}]}, "spec.tracking[0].uri", "should match"),
    (JOB, {"spec.tracking": [{"type": "MLflow"}]}, "spec.tracking[0]", "MLflow has no default server: set uri"),
    *(
        (JOB, {"spec.tracking": [{"type": type_, **field}]}, "spec.tracking[0]", "uri and secretName are for MLflow")
        for type_ in ("TensorBoard", "Trackio", "WandB")
        for field in ({"uri": "https://api.wandb.ai"}, {"secretName": "hone-wandb"})
    ),
    (JOB, {"spec.tracking": [{"type": "Comet"}]}, "spec.tracking[0].type", "TensorBoard"),
    (
        JOB,
        {"spec.tracking": [{"type": "MLflow", "uri": "https://mlflow.example.org"}, {"type": "TensorBoard"}]},
        "spec.tracking",
        "a run is logged to one tracker",
    ),
    (
        "Model",
        {"spec.registry": {"mlflow": {"uri": "https://user:pw@host"}}},
        "spec.registry.mlflow.uri",
        NO_CREDENTIALS,
    ),
    (
        "Model",
        {"spec.registry": {"mlflow": {"uri": "https://host", "name": "a/b"}}},
        "spec.registry.mlflow.name",
        "should match",
    ),
    (
        JOB,
        {"spec.tracking": [{"type": "MLflow", "uri": f"https://{host}.example.org"} for host in ("a", "b")]},
        "spec.tracking",
        "a run is logged to one tracker",
    ),
    (
        DATASET,
        {"spec.synthesis": {"template": "RAFT", "rows": 1, "endpoint": "https://u:p@h"}},
        "spec.synthesis.endpoint",
        NO_CREDENTIALS,
    ),
    (DATASET, {SOURCE: "https://host/x", "spec.source.sha256": "0" * 63}, "spec.source.sha256", "should match"),
    (DATASET, {SOURCE: "https://host/x", "spec.source.sha256": "G" * 64}, "spec.source.sha256", "should match"),
    (VERSION, {"spec.artifacts[].digest": "sha256:abc"}, "spec.artifacts[0].digest", "should match"),
    # references carry no namespace
    (JOB, {"spec.datasets[].name": "other/rows"}, "spec.datasets[0].name", "should match"),
    (JOB, {"spec.datasets[].name": "$(HOME)"}, "spec.datasets[0].name", "should match"),
    (JOB, {"spec.output.modelName": "Tutor"}, "spec.output.modelName", "lower-case letters, digits and - only"),
    (JOB, {"spec.output.modelName": "tutor-"}, "spec.output.modelName", "e.g. support-bot"),
    (JOB, {"spec.output.modelName": ""}, "spec.output.modelName", "e.g. support-bot"),
    (JOB, {"spec.output.modelName": "a" * 51}, "spec.output.modelName", "may not be more than 50"),
]


@pytest.mark.parametrize(
    ("kind", "changes", "field", "fragment"), REFUSED, ids=lambda v: str(v)[:70] if isinstance(v, dict) else None
)
def test_bad_manifest_is_refused(api: Any, manifest: Any, kind: str, changes: Any, field: str, fragment: str) -> None:
    answer = api.create(manifest(kind, changes))
    assert answer.code in (400, 422), answer.body
    assert field in answer.message
    assert fragment in answer.message
    assert "evaluation error" not in answer.message


@pytest.mark.parametrize(
    ("kind", "name", "fragment"),
    [
        (JOB, "a" * 53, "at most 52 characters"),
        (JOB, "a" * 64, "at most 52 characters"),
        (JOB, "a" * 253, "at most 52 characters"),
        (JOB, "a" * 254, "no more than 253"),
        (JOB, "a.b", "must start with a letter and have no dot"),
        (JOB, "1st-run", "must start with a letter and have no dot"),
        (JOB, "Tutor", "lower case"),
        (DATASET, "a" * 53, "at most 52 characters"),
        (DATASET, "a" * 253, "at most 52 characters"),
        (DATASET, "a.b", "must have no dot, as FineTuneJobs name it: use - instead"),
        (VERSION, "a" * 64, "at most 63 characters without a dot"),
        (VERSION, "tutor.v1", "at most 63 characters without a dot"),
    ],
)
def test_bad_name_is_refused(api: Any, manifest: Any, kind: str, name: str, fragment: str) -> None:
    answer = api.create(manifest(kind, name=name))
    assert answer.code == 422
    assert "metadata.name" in answer.message
    assert fragment in answer.message


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (JOB, {}),
        (DATASET, {}),
        (VERSION, {}),
        (JOB, {MODEL: "hf://HuggingFaceTB/SmolLM2-135M-Instruct@refs/pr/3"}),
        (JOB, {MODEL: "pvc://models/données/v1.2..3"}),
        (DATASET, {SOURCE: "https://host/x.jsonl?version=2", "spec.source.sha256": "f" * 64}),
        (DATASET, {SOURCE: "configmap://rows/rows.jsonl"}),
        (DATASET, {SOURCE: "s3://bucket/a/b.jsonl", "spec.source.sha256": "f" * 64}),
        (DATASET, {SOURCE: "s3://bucket", "spec.source.s3": {"endpoint": "http://minio.storage.svc:9000"}}),
        (DATASET, {SOURCE: "hf://a/b", "spec.source.config": "main", "spec.source.split": "train"}),
        (JOB, {"spec.restarts.hangTimeout": "90s"}),
        (DATASET, {"spec.refresh.every": "24h", "spec.splits.stratifyBy": "category"}),
        (DATASET, {"spec": {"mixture": [{"name": "a", "weight": "80%"}, {"name": "b", "weight": "20%"}]}}),
        (JOB, {"spec.datasets": [{"name": "a"}, {"name": "b", "share": "10%"}]}),
        (JOB, {"spec.datasets": [{"name": "a"}, {"name": "a", "split": "test"}]}),
        (JOB, {"spec.datasets": [{"name": "a"}, {"name": "b"}, {"name": "c", "share": "0.5%"}]}),
        (
            JOB,
            {
                "spec.datasets": [
                    {"name": n, "share": s} for n, s in (("a", "33.333%"), ("b", "33.333%"), ("c", "33.333%"))
                ]
            },
        ),
        (JOB, {"spec.model": {"fineTuneJob": "first-stage"}, "spec.method": "DPO", "spec.dpo": {"loss": "IPO"}}),
        (JOB, {"spec.method": "PPO", "spec.ppo.rewardModelVersion": "judge-v1"}),
        (JOB, {"spec.adapter.type": "None", "spec.deepspeed.zeroStage": 3}),
        (JOB, {"spec.adapter.type": "QLoRA", "spec.deepspeed.zeroStage": 2}),
        (JOB, {"spec.resources": {"cpu": "10m", "memory": "64Mi", "sharedMemory": "1Mi"}}),
        (DATASET, {"spec.resources": {"cpu": "10m", "memory": "65536Ki"}}),
        (JOB, {"spec.resources": {"gpusPerNode": 8, "gpuProducts": ["NVIDIA-H100-80GB-HBM3"]}}),
        (
            JOB,
            {
                "spec.resources": {
                    "nodes": 2,
                    "gpusPerNode": 1,
                    "gpusFrom": "Claims",
                    "claims": [{"name": "gpus", "resourceClaimTemplateName": "one-gpu"}],
                    "network": "InfiniBand",
                }
            },
        ),
        (JOB, {"spec.training": {"maxSteps": 10, "batchSize": 12, "microBatchSize": 4, "learningRate": "1E-5"}}),
        (JOB, {"spec.training": {"batchSize": 12, "microBatchSize": "Auto"}}),
        (JOB, {"spec.evaluation": {"harness": {"tasks": ["arc_easy", "belebele_zho_Hans", "mmlu"], "fewShot": 0}}}),
    ],
    ids=lambda v: str(v)[:70],
)
def test_good_manifest_is_accepted(api: Any, manifest: Any, kind: str, changes: Any) -> None:
    answer = api.create(manifest(kind, changes))
    assert answer.code == 201, answer.message


@pytest.mark.parametrize(("kind", "length"), [(JOB, 52), (DATASET, 52), (VERSION, 63)])
def test_longest_name_is_accepted(api: Any, manifest: Any, kind: str, length: int) -> None:
    assert api.create(manifest(kind, name="a" * length)).code == 201


def test_all_errors_are_reported_at_once(api: Any, manifest: Any) -> None:
    answer = api.create(manifest(JOB, {"spec.method": "x", "spec.training.batchSize": 0, MODEL: "hf://a b"}))
    assert {"spec.method", "spec.training.batchSize", MODEL} <= {field for field, _ in answer.causes}


@pytest.mark.parametrize(
    ("deliveries", "words"),
    [
        ([{"uri": "oci://registry:5000/x"}, {"uri": "s3://bucket/x", "when": "Ready"}], ""),
        ([{"uri": "oci://registry:5000/x:v1"}], "each version gets the tag v<version>"),
        ([{"uri": "hf://owner/name"}], ""),
        ([{"uri": "hf://owner/name@v1"}], "hf://owner/name without a revision"),
        ([{"uri": "s3://bucket/x"}] * 2, "names a uri twice"),
        ([{"uri": "s3://bucket/x", "when": "Never"}], "Unsupported value"),
    ],
)
def test_deliveries_of_a_model(api: Any, deliveries: list[dict[str, str]], words: str) -> None:
    body = {"apiVersion": "hone.dev/v1alpha1", "kind": "Model", "metadata": {"name": "delivered"}}
    answer = api.create({**body, "spec": {"deliveries": deliveries}})
    assert (answer.code in (400, 422)) == bool(words)
    assert words in answer.message
