"""What a FineTuneJob may set on the pods that train: labels, environment, volumes, service account, runtime."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.cel import is_match
from hone_api.base.meta import ApiModel, Name, Quantity, keyed_by
from hone_api.base.rule import Rule
from hone_api.blocks.placement import QUALIFIED_NAME, ClassName, LabelValue

RESERVED_KEYS = r"^((([^/]*\.)?(kubernetes\.io|k8s\.io|x-k8s\.io|hone\.dev)/.*)|job-name|controller-uid)$"
"""Keys of labels and annotations that belong to Kubernetes, Kueue and Hone."""
FREE_KEYS = "cluster-autoscaler.kubernetes.io/"
"""Prefix of those that are free in spite of their domain."""
RUNTIME_KEYS = (
    r"^((io\.(kubernetes|containerd|katacontainers)|run\.oci|dev\.gvisor|org\.systemd)\..*"
    r"|([^/]*\.)?((crio|cri-o|nri|containerd)\.io|noderesource\.dev)(/.*)?)$"
)
"""Keys of annotations that CRI-O, containerd, crun, runc, Kata Containers, gVisor and runtime plugins (NRI) read.

By them a pod gets devices and mounts of its node, other cgroups, or options of its virtual machine, where the node's
runtime is set up to obey them. The platform can set them for all pods (trainer.pods of the chart).
"""
RESERVED_ENV = (
    r"^((HONE|KUBEFLOW_TRAINER|KUBERNETES|HF|LD|PYTHON|TORCHELASTIC|TORCH_ELASTIC|GROUP|ROLE|LOCAL)_.*"
    r"|PYTHON[A-Z]*|HOME|USER|PATH|OMP_NUM_THREADS|RANK|WORLD_SIZE|NODE_RANK|MASTER_ADDR|MASTER_PORT|DO_NOT_TRACK"
    r"|GLOO_SOCKET_IFNAME|NCCL_SOCKET_IFNAME|NVIDIA_([^T].*|T[^F].*)|(AMD|HABANA|ASCEND)_VISIBLE_DEVICES"
    r"|ASCEND_(RUNTIME|VNPU)_.*|DOCKER_RESOURCE_.*|CUDA_VERSION)$"
)
"""Names of variables that Hone, torchrun, Python, the loader of libraries and container runtimes read.

By the last ones a container gets devices of its node that it did not request. NVIDIA's runtime takes an image with
CUDA_VERSION for an old one and gives it all GPUs, and prefers DOCKER_RESOURCE_* where it is set up so. Free are
NVIDIA_TF32_OVERRIDE, which cuBLAS reads, and what only narrows the choice within the container, e.g.
CUDA_VISIBLE_DEVICES.
"""
ALLOWED_ENV = [
    *("CUDA_DEVICE_MAX_CONNECTIONS", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES"),
    *("NCCL_ALGO", "NCCL_BUFFSIZE", "NCCL_CROSS_NIC", "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS", "NCCL_IB_*"),
    *("NCCL_MAX_NCHANNELS", "NCCL_MIN_NCHANNELS", "NCCL_NET_GDR_*", "NCCL_NTHREADS", "NCCL_P2P_*", "NCCL_PROTO"),
    *("NCCL_SHM_*", "NCCL_SOCKET_*", "NVIDIA_TF32_OVERRIDE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
    *("TOKENIZERS_PARALLELISM", "TORCH_CPP_LOG_LEVEL", "TORCH_DISTRIBUTED_DEBUG", "TORCH_LOGS", "TORCH_NCCL_*"),
    "TORCH_SHOW_CPP_STACKTRACES",
]
"""Variables that jobs may set unless the chart says otherwise (tenants.env). None of them names code that a library
loads, as NCCL_NET_PLUGIN, OPENSSL_CONF and CC do."""
ALLOWED_KEYS = ["cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt", "prometheus.io/*"]
"""Labels and annotations with a prefix that jobs may set unless the chart says otherwise (tenants.podKeys). Webhooks
read others, and give a pod containers, volumes or an identity of a cloud by them."""
MOUNT_PATH = r"^/mnt(/[A-Za-z0-9_][-A-Za-z0-9_.]*)+$"
_KEYS = (
    "labels and annotations of *.kubernetes.io, *.k8s.io and hone.dev belong to Kubernetes, Kueue and Hone, except "
    "cluster-autoscaler.kubernetes.io/*: use a prefix of your own"
)


def is_reserved_key(key: str) -> bool:
    """Whether a label or annotation belongs to Kubernetes, Kueue or Hone."""
    return not key.startswith(FREE_KEYS) and is_match(RESERVED_KEYS, key)


def _keys(name: str) -> tuple[Rule, Rule]:
    return (
        Rule(
            f"self.all(k, k.size() <= 317 && k.matches(r'{QUALIFIED_NAME}'))",
            f"a key of {name} has at most 63 letters, digits, -, _ and ., optionally after a prefix, a DNS name and /",
            of=name,
            one_field=True,
        ),
        Rule(
            f"self.all(k, k.startsWith('{FREE_KEYS}') || !k.matches(r'{RESERVED_KEYS}'))",
            f"{name}: {_KEYS}",
            of=name,
            one_field=True,
        ),
    )


class PodVariable(ApiModel):
    """One environment variable: a value, or a key of a Secret."""

    rules = (
        Rule(
            "has(self.value) != has(self.secretName) && has(self.secretName) == has(self.key)",
            "set value, or secretName and key",
        ),
        Rule(
            f"!self.matches(r'{RESERVED_ENV}')",
            "name: Hone, torchrun, Python, the loader of libraries or the container runtime reads this variable: "
            "choose another name, or the field of the spec that it stands for",
            of="name",
            one_field=True,
        ),
    )
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)] = Field(
        description="Name, e.g. NCCL_DEBUG."
    )
    value: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        default=None, description="Value, as it is: $(NAME) is not replaced. Never a password: name a Secret."
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret in this namespace that has the value. The pod waits until the Secret and its key exist.",
    )
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] | None = Field(
        default=None, description="Key of the Secret."
    )


class PodScratch(ApiModel):
    """Space that is empty when the pod starts and gone when it ends."""

    size: Quantity = Field(description="Limit, e.g. 50Gi; with medium Memory it counts towards resources.memory.")
    medium: Literal["Disk", "Memory"] = Field(default="Disk", description="Disk or Memory; default Disk.")


class PodVolume(ApiModel):
    """One more volume: of a claim, a ConfigMap or a Secret, to read; or scratch space."""

    rules = (
        Rule(
            "[has(self.claimName), has(self.configMapName), has(self.secretName), has(self.scratch)]"
            ".filter(x, x).size() == 1",
            "set exactly one of claimName, configMapName, secretName and scratch",
        ),
    )
    mount_path: Annotated[str, StringConstraints(pattern=MOUNT_PATH, max_length=253)] = Field(
        description="Where it is in the container: a folder below /mnt, e.g. /mnt/certificates."
    )
    claim_name: Name | None = Field(
        default=None, description="PersistentVolumeClaim in this namespace, read-only; not the store's."
    )
    config_map_name: Name | None = Field(default=None, description="ConfigMap in this namespace, read-only.")
    secret_name: Name | None = Field(default=None, description="Secret in this namespace, read-only.")
    scratch: PodScratch | None = Field(default=None, description="Scratch space of the pod, writable.")


class PodSettings(ApiModel):
    """The pods that train, beyond resources and scheduling.

    They win over the defaults of the chart (trainer.pods, trainer.extraEnv), key by key. What Hone itself sets cannot
    be named.
    """

    rules = (
        *_keys("labels"),
        *_keys("annotations"),
        Rule(
            f"!self.exists(k, k.matches(r'{RUNTIME_KEYS}'))",
            "annotations: the node's container runtime reads this key: only trainer.pods of the chart can set it",
            of="annotations",
            one_field=True,
        ),
        Rule(
            "self.all(e, self.exists_one(f, f.name == e.name))",
            "env has a name twice: remove one",
            of="env",
            one_field=True,
        ),
        Rule(
            "self.all(v, self.exists_one(w, w.mountPath == v.mountPath || w.mountPath.startsWith(v.mountPath + '/')))",
            "volumes has a mountPath twice, or one below another: give each a folder of its own",
            of="volumes",
            one_field=True,
        ),
    )
    labels: Annotated[dict[str, LabelValue], Field(max_length=16)] | None = Field(
        default=None,
        description="Labels of the pods, e.g. for cost accounts. Keys with a prefix must be of tenants.podKeys of the "
        "chart.",
    )
    annotations: (
        Annotated[dict[str, Annotated[str, StringConstraints(max_length=1024)]], Field(max_length=16)] | None
    ) = Field(
        default=None,
        description="Annotations of the pods. Keys with a prefix must be of tenants.podKeys of the chart, e.g. "
        "karpenter.sh/do-not-disrupt.",
    )
    env: Annotated[list[PodVariable], keyed_by("name", max_length=32)] | None = Field(
        default=None,
        description="Environment variables of the trainer, of tenants.env of the chart, e.g. NCCL settings.",
    )
    volumes: Annotated[list[PodVolume], keyed_by("mountPath", max_length=8)] | None = Field(
        default=None, description="Additional volumes. Host paths are not possible."
    )
    service_account_name: ClassName | None = Field(
        default=None,
        description="ServiceAccount of the pods, one of tenants.serviceAccounts of the chart, e.g. for workload "
        "identity. No token for the API server is mounted. Default: that of the chart, or the namespace's.",
    )
    runtime_class_name: ClassName | None = Field(
        default=None,
        description="RuntimeClass of the pods, one of tenants.runtimeClasses of the chart. Default: "
        "trainer.runtimeClassName of the chart.",
    )
