"""Generated specs of a FineTuneJob for each of its rules: values that keep it and values that break it."""

from typing import Any

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
            "generation": (ABSENT, {"engine": "VLLM", "endpoint": ENDPOINT, "overlap": True}),
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
            "overlap": (ABSENT, True, False),
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
    "slices by their product": (
        "resources",
        {},
        {"gpusPerNode": (1, 2), "gpuProducts": (["H100"], ["H100", "NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"])},
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
            "operator": (ABSENT, "Equal", "Exists", "Gt"),
            "value": (ABSENT, "", "yes", "7", "07"),
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
