"""Where and when the pods of a FineTuneJob run, how often they start again, what is cleaned up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import ApiModel, Decimal, Duration, Name, Quantity, at_least, between, keyed_by, pattern_rule
from hone_api.base.rule import Immutable, Rule

_PART = r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]"
_DNS = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
QUALIFIED_NAME = rf"^({_DNS}/)?{_PART}$"
"""Names of labels and taints."""
EXTENDED_RESOURCE = rf"^{_DNS}/{_PART}$"
TaintKey = Annotated[str, StringConstraints(pattern=rf"^(({_DNS}/)?{_PART})?$", max_length=253)]
LabelValue = Annotated[str, StringConstraints(pattern=rf"^({_PART})?$", max_length=63)]
ClassName = Annotated[str, StringConstraints(pattern=rf"^({_DNS})?$", max_length=253)]
PriorityLabel = Annotated[str, StringConstraints(pattern=rf"^({_DNS})?$", max_length=63)]
"""Name of a WorkloadPriorityClass, which is the value of a label of the Job."""


class ResourceClaim(ApiModel):
    """Devices for each pod by Dynamic Resource Allocation."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = Field(
        description="Name within the pod, e.g. gpus."
    )
    resource_claim_template_name: Name = Field(
        description="ResourceClaimTemplate in this namespace, one of tenants.resourceClaimTemplates of the chart. "
        "Each pod gets a claim of its own."
    )


class Resources(ApiModel):
    """What one pod of the run requests."""

    rules = (
        Rule(
            "!has(self.network) || self.nodes > 1",
            "network is between the pods of several nodes: set nodes to at least 2, or remove network",
            field_path=".network",
        ),
        Rule(
            "self.all(c, self.exists_one(d, d.name == c.name))",
            "claims has a name twice: rename one",
            of="claims",
            one_field=True,
        ),
        Rule(
            "!has(self.gpusFrom) || self.gpusFrom != 'Claims' || "
            "has(self.claims) && self.claims.size() > 0 && self.gpusPerNode > 0",
            "gpusFrom Claims needs the claim that has the GPUs, and their number: set claims and gpusPerNode",
            field_path=".gpusFrom",
        ),
        Rule(
            "!has(self.gpuProducts) || self.gpusPerNode > 0",
            "gpuProducts needs GPUs: set gpusPerNode to at least 1, or remove gpuProducts",
        ),
        Rule(
            "!has(self.gpuResourceName) || !self.gpuResourceName.contains('/mig-') || self.gpusPerNode < 2",
            "CUDA shows a process one slice of a pod's GPUs (MIG): set gpusPerNode to 1, or take whole GPUs",
            field_path=".gpusPerNode",
        ),
        Rule(
            "!has(self.gpuProducts) || self.gpusPerNode < 2 || !self.gpuProducts.exists(p, p.contains('-MIG-'))",
            "CUDA shows a process one slice of a pod's GPUs (MIG): set gpusPerNode to 1, or name whole GPUs",
            field_path=".gpusPerNode",
        ),
        Rule(
            "!has(self.minNodes) || self.minNodes < self.nodes",
            "minNodes must be below nodes, which an attempt asks for first: raise nodes, or remove minNodes",
            field_path=".minNodes",
        ),
        at_least("cpu", "10m", "500m"),
        at_least("memory", "64Mi", "8Gi"),
        at_least("sharedMemory", "1Mi", "1Gi"),
    )
    nodes: int = Field(
        default=1, ge=1, le=1024, description="Number of pods, one per node; default 1. With minNodes, the most."
    )
    min_nodes: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Fewest pods of an attempt, where not all find a node, or quota, in time "
        "(trainer.fewerNodesAfterSeconds of the chart). An attempt then has a number of pods from minNodes to nodes "
        "over which training.batchSize divides evenly; the batch stays the same, and each attempt after an "
        "interruption asks for nodes again. For methods whose loss does not depend on the ranks: SFT, DAPT, DPO, "
        "Reward, Distillation. Default: every attempt has nodes.",
    )
    gpus_per_node: int = Field(default=0, ge=0, le=64, description="GPUs of each pod; 0 trains on CPU. Default 0.")
    gpu_resource_name: Annotated[str, StringConstraints(pattern=EXTENDED_RESOURCE, max_length=128)] = Field(
        default="nvidia.com/gpu", description="Extended resource of a GPU; default nvidia.com/gpu."
    )
    gpu_products: Annotated[list[LabelValue], Field(max_length=16)] | None = Field(
        default=None, description="Allowed values of the node label nvidia.com/gpu.product; default: any."
    )
    gpus_from: Literal["ExtendedResource", "Claims"] = Field(
        default="ExtendedResource",
        description="Claims: a claim of each pod has its gpusPerNode GPUs, and gpuResourceName is not requested. "
        "Default ExtendedResource.",
    )
    claims: Annotated[list[ResourceClaim], keyed_by("name", max_length=8)] | None = Field(
        default=None,
        description="Devices by Dynamic Resource Allocation, of GPUs or other drivers, for each pod. Default: none.",
    )
    network: Literal["TCP", "InfiniBand", "RoCE"] | None = Field(
        default=None,
        description="Network over which NCCL sends between nodes. TCP uses the pods' own network. InfiniBand and RoCE "
        "request the devices of trainer.networks of the chart, and the run ends if NCCL cannot use them. Default: what "
        "NCCL finds in the pods.",
    )
    cpu: Quantity = Field(default="2", description="CPU request of each pod, e.g. 8, '1.5' or 500m; default 2.")
    memory: Quantity = Field(default="8Gi", description="Memory request and limit of each pod, e.g. 64Gi; default 8Gi.")
    shared_memory: Quantity | None = Field(
        default=None,
        description="Size of /dev/shm, which counts towards memory; default 1Gi, or 8Gi for several GPUs.",
    )


class Toleration(ApiModel):
    """core/v1 Toleration."""

    rules = (
        Rule(
            "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
            "operator Exists matches every value: remove value, or use operator Equal",
            field_path=".value",
        ),
        Rule(
            "has(self.key) && self.key != '' || has(self.operator) && self.operator == 'Exists'",
            "a toleration without key matches every taint: name the key, or set operator to Exists",
        ),
        Rule(
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "tolerationSeconds is for effect NoExecute: set it, or remove tolerationSeconds",
            field_path=".tolerationSeconds",
        ),
        Rule(
            "!has(self.operator) || !(self.operator in ['Gt', 'Lt']) || has(self.value) && "
            "self.value.matches('^(0|[1-9][0-9]{0,17})$')",
            "operators Gt and Lt compare numbers: value must be a whole number, without leading zeros",
            field_path=".value",
        ),
    )
    key: TaintKey | None = Field(default=None, description="Taint key, e.g. nvidia.com/gpu; absent matches all.")
    operator: Literal["Exists", "Equal", "Gt", "Lt"] | None = Field(
        default=None,
        description="Exists or Equal; default Equal. Gt and Lt compare the taint's value as a number and need "
        "Kubernetes 1.35 or later, with its feature gate TaintTolerationComparisonOperators.",
    )
    value: LabelValue | None = Field(default=None, description="Taint value.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent matches all."
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=2_147_483_647, description="Seconds a NoExecute taint is tolerated."
    )


NodeLevel = Annotated[str, StringConstraints(pattern=QUALIFIED_NAME, max_length=63)]
"""A level of Kueue's Topology: there up to 316 characters, but in the topologyRequest of a Workload 63 (Kueue 0.17)."""


class Topology(ApiModel):
    """Topology-aware placement by Kueue, whose ResourceFlavor names a Topology."""

    rules = (
        Rule(
            "has(self.required) != has(self.preferred)",
            "set exactly one of required and preferred",
        ),
    )
    required: NodeLevel | None = Field(
        default=None,
        description="Level of Kueue's Topology, by its node label, e.g. cloud.provider.com/topology-rack: all pods run "
        "in one domain of this level, or wait.",
    )
    preferred: NodeLevel | None = Field(
        default=None,
        description="The same, except that the pods are spread over several domains if no single one has room.",
    )


MOST_GPU_HOURS = 10_000_000.0


class Budget(ApiModel):
    """What a run may use: the smaller of both limits counts. Time in a queue is free."""

    rules = (
        Rule("has(self.gpuHours) || has(self.money)", "set gpuHours or money"),
        Rule(
            "has(self.money) == has(self.gpuHourPrice)",
            "money and gpuHourPrice go together: money is what the run may cost, gpuHourPrice what one GPU costs in an "
            "hour",
        ),
        between("gpuHours", "above 0 and at most 10000000", "> 0.0", "<= 10000000.0", "40"),
        between("money", "above 0 and at most 1000000000", "> 0.0", "<= 1000000000.0", "100"),
        between("gpuHourPrice", "above 0 and at most 1000000", "> 0.0", "<= 1000000.0", "2.5"),
    )
    gpu_hours: Decimal | None = Field(
        default=None,
        description="GPU hours of all attempts, from when the pods have nodes, e.g. 40 or '2.5'; default: no limit.",
    )
    money: Decimal | None = Field(
        default=None,
        description="What these GPU hours may cost, in the currency of gpuHourPrice, e.g. 100 or '99.5'; default: no "
        "limit.",
    )
    gpu_hour_price: Decimal | None = Field(
        default=None, description="Price of one GPU for one hour, e.g. '2.5'; needed with money, else absent."
    )

    @property
    def hours(self) -> float:
        """The GPU hours that both limits leave."""
        limits = [float(self.gpu_hours)] if self.gpu_hours is not None else []
        price = float(self.gpu_hour_price or 0)  # 0 is refused, and yet may be read before that
        if self.money is not None and price:
            limits.append(float(self.money) / price)
        return min([*limits, MOST_GPU_HOURS])


NEW_JOB = "create a new FineTuneJob with another name (one object is one run)"


_TOLERATED = (
    ".map(t, [t.?key.orValue(''), t.?operator.orValue('Equal'), t.?value.orValue(''), t.?effect.orValue(''), "
    "string(t.?tolerationSeconds.orValue(-1))])"
)
"""What tolerations mean. An object of an earlier definition has the operator that its manifest leaves out."""


class Scheduling(ApiModel):
    """Where and when pods run; only priorityClassName can change, for later attempts."""

    rules = (
        Rule(
            f"self.all(k, k.size() <= 317 && k.matches(r'{QUALIFIED_NAME}'))",
            "a key of nodeSelector is the name of a label, e.g. pool or nvidia.com/gpu.product: at most 63 letters, "
            "digits, -, _ and ., optionally after a prefix, a DNS name and /",
            of="nodeSelector",
            one_field=True,
        ),
        Rule(
            "!has(self.topology) || has(self.queueName)",
            "topology needs queueName: Kueue places the pods; without Kueue use nodeSelector",
            field_path=".topology",
        ),
        Rule(
            "!has(self.workloadPriorityClass) || has(self.queueName)",
            "workloadPriorityClass needs queueName: it is for Kueue",
            field_path=".workloadPriorityClass",
        ),
        Rule(
            "!has(self.managedBy) || has(self.queueName)",
            "managedBy needs queueName: it is for Kueue",
            field_path=".managedBy",
        ),
    )
    immutable = Immutable(
        "spec.scheduling",
        ("queueName", "workloadPriorityClass", "managedBy", "nodeSelector", "tolerations", "topology"),
        NEW_JOB,
        {"tolerations": f"self == oldSelf || self{_TOLERATED} == oldSelf{_TOLERATED}"},
    )
    queue_name: Name | None = Field(
        default=None,
        description="LocalQueue of Kueue in this namespace, in which the run waits for quota. Its priority there is "
        "that of workloadPriorityClass, or else of priorityClassName. Without kueue.enabled of the chart the run "
        "starts without a queue.",
    )
    workload_priority_class: PriorityLabel | None = Field(
        default=None,
        description="WorkloadPriorityClass of Kueue: the priority in the queue, which does not change that of the "
        "pods. Needs queueName. Without kueue.enabled of the chart it has no effect.",
    )
    managed_by: Literal["MultiKueue"] | None = Field(
        default=None,
        description="Controller of the Job in place of that of Kubernetes: MultiKueue of Kueue, whose worker "
        "cluster must have the store and the plan. Needs queueName. Without kueue.enabled of the chart it has no "
        "effect.",
    )
    priority_class_name: ClassName | None = Field(
        default=None, description="PriorityClass of the pods; the only field here that can change, for later attempts."
    )
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = Field(
        default=None, description="Labels that the nodes must have."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=16)] | None = Field(
        default=None, description="Taints that pods tolerate; extended resources are tolerated by default."
    )
    topology: Topology | None = Field(
        default=None, description="Topology-aware placement by Kueue; needs queueName. Without Kueue it has no effect."
    )


A_MINUTE = "[1-9][0-9]*[mhd]|([6-9][0-9]|[1-9][0-9]{2,})s"
"""What a duration of at least a minute has in it, unless it adds up several parts in seconds."""
MAX_RATE_HALVINGS = 3
"""How often the learning rate of a run is halved after its loss diverged."""


class Restarts(ApiModel):
    """How often a run may start again from its last valid checkpoint."""

    rules = (
        pattern_rule(
            "hangTimeout",
            A_MINUTE,
            "hangTimeout must be at least 1m; for steps without a limit use a long time, e.g. 30d",
        ),
    )
    max_restarts: int = Field(
        default=3, ge=0, le=100, description="Number of attempts after a failure of the run; default 3."
    )
    max_preemptions: int = Field(
        default=20, ge=0, le=1000, description="Number of attempts after a disruption by the cluster; default 20."
    )
    on_out_of_memory: Literal["HalveMicroBatch", "Fail"] = Field(
        default="HalveMicroBatch",
        description="If the memory runs out in a training step, HalveMicroBatch starts an attempt with half as many "
        "rows in a forward pass, and more forward passes in a step: the batch stays the same. It does not count as one "
        "of maxRestarts. Not for methods whose loss depends on the micro batch: ORPO, KTO, PPO, GRPO. Fail ends the "
        "run. Default HalveMicroBatch.",
    )
    on_divergence: Literal["Fail", "HalveLearningRate"] = Field(
        default="Fail",
        description="If the loss or the gradient is not finite, Fail ends the run. HalveLearningRate starts an attempt "
        f"from the last checkpoint with half the learning rate, at most {MAX_RATE_HALVINGS} times in a run; it does "
        "not count as one of maxRestarts. Default Fail.",
    )
    hang_timeout: Duration | None = Field(
        default=None,
        description="Time that a training step may take before the run counts as hung, ends with the code Hung and "
        "starts again, e.g. 30m; default: 20 times the median of the last steps, at least 10m. The first step, "
        "checkpoints and each part of an evaluation have an hour, or this time if it is longer.",
    )


class Cleanup(ApiModel):
    """What is removed after the run; the FineTuneJob itself stays as the record."""

    pods_after: Duration | None = Field(
        default=None,
        description="Time from the end of the run until pods and child Jobs are removed, e.g. 24h; default: never. "
        "Only the newest three finished attempts keep theirs.",
    )
