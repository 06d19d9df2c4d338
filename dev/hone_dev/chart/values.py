"""The values of charts/hone, each with its meaning and its default. Helm refuses a name that is not here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.dataset import MAX_PODS
from hone_api.meta import Name, Quantity
from hone_api.plan import Cidr, PublicKey, ServicePattern
from hone_dev.chart.network_values import NetworkPolicy
from hone_dev.chart.value_types import ClassName, ImageDigest, Map, Port, RenderMode, Seconds, StringMap, Text, Values


class Crds(Values):
    enabled: bool = Field(True, description="Install the CRDs of FineTuneJob, Dataset, ModelVersion and Model.")
    keep: bool = Field(True, description="Keep the CRDs, and so all objects, on `helm uninstall`.")


class Image(Values):
    repository: Text = Field("ghcr.io/hone-dev/hone/operator", description="Image of the operator.")
    tag: Text = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="Pull policy.")


class TrainerImage(Image):
    repository: Text = Field("ghcr.io/hone-dev/hone/trainer", description="Image of the pods that train.")


class VllmImage(Values):
    repository: Text = Field(
        "ghcr.io/hone-dev/hone/trainer-vllm",
        description="Image of the pods that train with GRPO and generate with vLLM. Empty: such jobs are refused.",
    )
    tag: Text = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")


class Pods(Values):
    labels: StringMap = Field(default_factory=dict, description="Labels of these pods, e.g. for a service mesh.")
    annotations: StringMap = Field(default_factory=dict, description="Annotations of these pods.")
    node_selector: StringMap = Field(default_factory=dict, description="Labels of the nodes for these pods.")
    tolerations: list[Map] = Field(default_factory=list, description="Taints that these pods tolerate.")
    service_account_name: ClassName = Field(
        "", description="ServiceAccount of these pods, in each namespace. Empty: the default one."
    )


class Rdma(Values):
    resources: StringMap = Field(
        default_factory=dict,
        description="Extended resources that each pod requests to use this network, e.g. "
        'rdma/hca_shared_devices_a: "1". If empty, the network is not available, and jobs that name it are refused.',
    )
    annotations: StringMap = Field(
        default_factory=dict, description="Annotations of these pods, e.g. k8s.v1.cni.cncf.io/networks."
    )
    env: StringMap = Field(
        default_factory=dict, description="Environment variables of these pods, e.g. NCCL_IB_HCA: mlx5."
    )


class Networks(Values):
    """Networks that jobs may name in spec.resources.network, in addition to TCP."""

    infini_band: Rdma = Field(default_factory=Rdma)
    roce: Rdma = Field(default_factory=Rdma)


class Trainer(Values):
    image: TrainerImage = Field(default_factory=TrainerImage)
    vllm_image: VllmImage = Field(default_factory=VllmImage)
    image_pull_secrets: list[Name] = Field(
        default_factory=list, description="Names of pull secrets that must exist in each namespace with jobs."
    )
    termination_grace_seconds: Seconds = Field(
        120, description="Seconds that a pod has to save a checkpoint when it must stop."
    )
    start_timeout_seconds: Seconds = Field(
        900, description="Longest time in seconds from scheduling a pod to a running container."
    )
    fewer_nodes_after_seconds: int = Field(
        300,
        ge=1,
        le=840,
        description="Seconds that pods of a job with `resources.minNodes` wait for a node, or for quota, until the "
        "next attempt starts with fewer nodes.",
    )
    scratch_size: Quantity = Field("20Gi", description="Limit of /tmp in each pod.")
    network_interface: Text = Field(
        "eth0", description="Network interface over which the pods of a run reach each other."
    )
    networks: Networks = Field(default_factory=Networks)
    runtime_class_name: ClassName = Field(
        "",
        description="RuntimeClass of training pods, e.g. one of Kata Containers. Empty: the nodes' default runtime.",
    )
    pods: Pods = Field(default_factory=Pods)
    extra_env: StringMap = Field(
        default_factory=dict, description="Environment variables of all training pods, e.g. proxies or NCCL settings."
    )


class Staging(Values):
    cpu: Quantity = Field("100m", description="CPU request of the pods that download base models to the store.")
    memory: Quantity = Field("2Gi", description="Memory request of these pods. Files are streamed; no model is loaded.")
    runtime_class_name: ClassName = Field(
        "",
        description="RuntimeClass of all other pods, e.g. one for gVisor: most of them parse untrusted data. Empty: "
        "the nodes' default runtime.",
    )
    pods: Pods = Field(default_factory=Pods)
    queue_name: ClassName = Field(
        "",
        description="LocalQueue of Kueue in which all other pods wait for quota; each namespace with jobs needs one of "
        "this name. Needs kueue.enabled. Empty: they start without a queue.",
    )


class Encoding(Values):
    from_size: Quantity = Field(
        "32Mi",
        description="Total size of a job's Datasets above which a CPU Job encodes their rows as tokens before any GPU "
        "is requested. Smaller Datasets are encoded by the run itself, within seconds. 0 means always.",
    )
    cpu: Quantity = Field("4", description="CPU request of these pods. They use all cores of their CPU limit.")
    memory: Quantity = Field("8Gi", description="Memory request and limit of these pods.")
    pods: Annotated[int, Field(ge=1, le=MAX_PODS)] = Field(
        1,
        description="Most pods that encode the rows of a job, each with this cpu and memory. With more than one, the "
        "first one also reads the rows, keeps their order and writes. What they write does not depend on it.",
    )
    pod_size: Quantity = Field(
        "1Gi", description="Size of a job's Datasets for each of these pods: 5Gi are encoded by 5 pods if pods allows."
    )


class HuggingFace(Values):
    endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://[^\s/@]+(/[^\s]*)?)?$")] = Field(
        "", description="Mirror for hf:// URIs, for clusters without internet access. Empty: huggingface.co."
    )


class Store(Values):
    claim_name: Name = Field(
        "hone-store", description="Name of the volume claim that the operator creates in each namespace."
    )
    size: Quantity = Field("50Gi", description="Size of the claim.")
    storage_class_name: Annotated[str, StringConstraints(max_length=63)] = Field(
        "", description="Storage class of the claim. Empty: the cluster's default."
    )
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"] = Field(
        "ReadWriteMany", description="Access mode of the claim. Runs on several nodes need ReadWriteMany."
    )
    keep_unused_seconds: int = Field(
        3600,
        ge=1,
        description="Seconds that rows, checkpoints and models to be deleted stay after no object needs them.",
    )
    isolate_runs: bool = Field(
        True,
        description="Whether a pod mounts only the folders of the store that it needs (subPath): a training pod "
        "writes its own run and its own models, and reads what its job names; a container that parses rows writes a "
        "folder of its own. The kubelet creates a missing folder as "
        "root with the mode of the volume's root, so either the volume must apply fsGroup, or every user must be "
        "allowed to write to its root. Otherwise pods cannot start or cannot write: set false, and every pod mounts "
        "the whole store writable. Also set false on NFS with root_squash if runs/ and models/ were created by a "
        "release without this value, since the kubelet may not write there.",
    )


class Progress(Values):
    enabled: bool = Field(True, description="Let running pods report their progress.")
    port: Port = Field(8443, description="Port of the progress server and of its Service.")
    status_interval_seconds: Seconds = Field(
        15, description="Shortest time in seconds between two updates of a job's status by reports."
    )


class Limits(Values):
    max_source_bytes: Annotated[int, Field(ge=1)] = Field(
        20 * 2**30, description="Largest download of a source, in bytes."
    )
    timeout_seconds: Seconds = Field(
        3600,
        description="Longest download of a source, in seconds. A hub gets at least the time that the size takes at 4 "
        "MiB/s.",
    )
    allow_private_addresses: bool = Field(
        False,
        description="Whether sources and model endpoints may have private or loopback addresses, whatever their "
        "names. A Service of the job's own namespace may have a private address without this, but never a loopback or "
        "link-local address.",
    )
    services: list[ServicePattern] = Field(
        default_factory=list,
        description="Services of other namespaces that sources and endpoints may name, as name.namespace with * for "
        "any text, e.g. judge.models or *.models. Only responses of these Services are quoted in messages.",
    )
    cluster_cidrs: list[Cidr] = Field(
        default_factory=list,
        description="Address ranges of the cluster's Services and pods, e.g. 10.96.0.0/12: a Service that leads "
        "outside them is refused. Empty: any address that DNS gives for a Service of the named namespace.",
    )


class Log(Values):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    format: Literal["json", "text"] = Field("json", description="Format of the log: json or text.")


class ServiceAccount(Values):
    create: bool = Field(True, description="Create the operator's service account.")
    name: Annotated[str, StringConstraints(max_length=253)] = Field(
        "", description="Name of the service account. Empty: the release's full name."
    )
    annotations: StringMap = Field(default_factory=dict, description="Annotations of the service account.")


class Rbac(Values):
    create: bool = Field(True, description="Create the operator's roles.")
    aggregate_to_user_roles: bool = Field(
        True, description="Add Hone's kinds to the cluster's roles view, edit and admin."
    )


class Admission(Values):
    enabled: bool = Field(
        True,
        description="Install ValidatingAdmissionPolicies, which limit what the operator's service account may create "
        "and what tenants may request.",
    )
    separate_duties: bool = Field(
        False,
        description="Who submits a job must say so in spec.submittedBy, and cannot approve the model that the job "
        "makes.",
    )
    extra_images: list[Text] = Field(
        default_factory=list,
        description="Additional images that the operator's Jobs may run, e.g. the old one while both versions are in "
        "use.",
    )


class Tenants(Values):
    secret_prefix: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9]*)?$", max_length=63)] = Field(
        "hone-",
        description="Datasets and FineTuneJobs may name only Secrets whose names begin with this prefix. Empty: they "
        "may name any Secret of the namespace and send it to a host that the user chooses.",
    )
    priority_classes: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="PriorityClasses that jobs may name, each in full or as prefix*. system-* is never allowed.",
    )
    toleration_keys: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="Keys of taints that jobs may tolerate. List those of the control plane in full.",
    )
    node_selector_keys: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="Keys of node labels that jobs may select. List those of the control plane in full.",
    )
    models: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="URIs of base models that jobs may name, each in full or as prefix*, e.g. hf://HuggingFaceTB/*. "
        "ModelVersions are always allowed.",
    )
    service_accounts: list[Text] = Field(
        default_factory=list,
        description="ServiceAccounts that jobs may name in spec.pod, each in full or as prefix*. Empty: none.",
    )
    runtime_classes: list[Text] = Field(
        default_factory=list,
        description="RuntimeClasses that jobs may name in spec.pod, each in full or as prefix*. Empty: none.",
    )
    resource_claim_templates: list[Text] = Field(
        default_factory=list,
        description="ResourceClaimTemplates that jobs may name in spec.resources.claims, each in full or as prefix*. "
        "Empty: none. tenants.maxGpus counts gpusPerNode and not what a template requests: who may write templates is "
        "a matter of roles and of ResourceQuota.",
    )
    workload_priority_classes: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="WorkloadPriorityClasses of Kueue that jobs may name, each in full or as prefix*.",
    )
    max_gpus: Annotated[int, Field(ge=0, le=65536)] = Field(
        0, description="Most GPUs of one job over all its nodes. 0: any number."
    )
    max_active_jobs: Annotated[int, Field(ge=0, le=65536)] = Field(
        0,
        description="Most jobs of one namespace that train at the same time, for clusters without Kueue: the others "
        "wait in the phase Queued, oldest first. Jobs in a queue of Kueue do not count. 0: any number.",
    )


class SigningImage(Values):
    repository: Text = Field(
        "",
        description="Image of the pods that sign: the trainer's with the library of an HSM. Empty: trainer.image.",
    )
    tag: Text = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")


class Pkcs11(Values):
    module: Annotated[str, StringConstraints(pattern=r"^(/[^\s:]+)?$", max_length=512)] = Field(
        "",
        description="Path of the PKCS #11 library in the pods that sign, and the only one that they load. The Secret "
        "then has pkcs11-uri and pin. Empty: the Secret has the key itself.",
    )
    env: StringMap = Field(
        default_factory=dict,
        description="Environment variables of the pods that sign, by which the library finds its configuration.",
    )


class Signing(Values):
    secret_name: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)] = (
        Field(
            "",
            description="Secret in each namespace with private-key.pem, or with pkcs11-uri and pin of a key in an HSM, "
            "by which a Job of its own signs each model. Its name must not begin with tenants.secretPrefix, so that no "
            "object of a tenant can name it. Empty: somebody else signs, and Jobs only compare.",
        )
    )
    image: SigningImage = Field(default_factory=SigningImage)
    pkcs11: Pkcs11 = Field(default_factory=Pkcs11)
    public_keys: list[PublicKey] = Field(
        default_factory=list,
        description="Public keys (PEM) whose signatures count, 16 at most. Empty: models are neither signed nor "
        "compared with a signature.",
    )
    required: bool = Field(
        False,
        description="Whether a model without such a signature is refused: it does not become Ready, is not delivered, "
        "and no job starts from it.",
    )


class Webhook(Values):
    url: Annotated[str, StringConstraints(pattern=r"^(https?://[^\s/@]+(/[^\s]*)?)?$", max_length=2048)] = Field(
        "", description="Address to which the operator posts CloudEvents about models. Empty: none."
    )
    secret_name: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)] = (
        Field("", description="Secret of the release's namespace whose hmac-key signs each event.")
    )


class Kueue(Values):
    enabled: bool = Field(
        False,
        description="Let jobs wait for quota in the queue of Kueue that they name, see the guide Shared clusters. "
        "Needs Kueue 0.15 or later in the cluster. Gives the operator the right to read all Workloads, and to "
        "deactivate those of suspended jobs.",
    )


class LeaderElection(Values):
    enabled: bool = Field(
        False,
        description="Let the operator work only while it holds a Lease, so that a pod that a lost node still runs "
        "writes nothing once its replacement has begun. After a pod was lost without notice, the new one waits 15 "
        "seconds.",
    )


class PodLimits(Values):
    cpu_factor: Annotated[int, Field(ge=0, le=1000)] = Field(
        4, description="CPU limit of Hone's pods as a multiple of their request. 0: no CPU limit."
    )
    least_cpu: Quantity = Field("4", description="Smallest CPU limit of a pod.")
    ephemeral_storage_request: Annotated[str, StringConstraints(max_length=24)] = Field(
        "64Mi",
        description="Ephemeral storage request of Hone's pods; the limit is trainer.scratchSize plus 1Gi. Empty: "
        "neither, for nodes that do not account for ephemeral storage.",
    )
    staging_seconds: Seconds = Field(
        604800, description="Longest run in seconds of a pod that reads, fetches, verifies or sweeps; it is retried."
    )
    training_seconds: Seconds = Field(
        2592000,
        description="Longest run in seconds of a pod that trains; the next attempt continues from its checkpoint.",
    )


class PodSecurity(Values):
    fixed_user: bool = Field(
        True,
        description="Let all pods name their user and group, 10001. false: the cluster chooses them, as OpenShift does "
        "with restricted-v2; pods still refuse to run as root.",
    )


class Privacy(Values):
    rows_in_status: bool = Field(
        True,
        description="Let status, ModelVersions and events quote rows: examples of rejected rows, sampled answers, "
        "error messages, the end of logs. Everybody with the role view can read them.",
    )


class Monitor(Values):
    enabled: bool = Field(False, description="Create this monitor. Enable only one of podMonitor and serviceMonitor.")
    labels: StringMap = Field(
        default_factory=dict,
        description="Labels by which your Prometheus finds it, e.g. `release: kube-prometheus-stack`.",
    )
    interval: Text = Field("30s", description="Scrape interval.")
    scrape_timeout: Text = Field("10s", description="Scrape timeout.")
    relabelings: list[Map] = Field(default_factory=list, description="Relabelings of the target.")
    metric_relabelings: list[Map] = Field(default_factory=list, description="Relabelings of the samples.")


class Metrics(Values):
    port: Port = Field(8080, description="Port of the operator's /metrics and of its Service.")
    render_mode: RenderMode = Field(
        "skipIfMissing",
        description="What to do with monitors and rules if the Prometheus operator's CRDs are not installed; "
        "alwaysRender is for tools that render without a cluster.",
    )
    pod_monitor: Monitor = Field(default_factory=Monitor)
    service_monitor: Monitor = Field(default_factory=Monitor)
    trainer_pods: bool = Field(True, description="If a monitor is enabled, also scrape the pods that train.")


class PrometheusRule(Values):
    enabled: bool = Field(False, description="Install the alerts of files/rules.")
    labels: StringMap = Field(default_factory=dict, description="Labels by which your Prometheus finds them.")
    runbook_base_url: Text = Field(
        "https://hone.dev/docs/guides/runbooks", description="Where your copy of docs/guides/runbooks is served."
    )


class Dashboards(Values):
    enabled: bool = Field(False, description="Create a ConfigMap that Grafana's sidecar loads.")
    sidecar_label: Text = Field("grafana_dashboard", description="Label that the sidecar looks for.")
    sidecar_label_value: Text = Field("1", description="Value of this label.")
    annotations: StringMap = Field(default_factory=dict, description="Annotations of the ConfigMap, e.g. the folder.")


class ChartValues(Values):
    """All values."""

    name_override: Annotated[str, StringConstraints(max_length=63)] = Field(
        "", description="Name to use instead of hone."
    )
    fullname_override: Annotated[str, StringConstraints(max_length=50)] = Field(
        "", description="Name to use instead of the release's full name."
    )
    common_labels: StringMap = Field(default_factory=dict, description="Labels of all objects.")
    crds: Crds = Field(default_factory=Crds)
    image: Image = Field(default_factory=Image)
    image_pull_secrets: list[Map] = Field(default_factory=list, description="Pull secrets of the operator's pod.")
    watch_namespaces: list[Name] = Field(
        default_factory=list,
        description="Namespaces to serve, with a Role in each and no rights elsewhere. Empty: see namespaces.",
    )
    namespaces: list[Name] = Field(
        default_factory=list,
        description="Namespaces in which Hone works, in addition to those with the label hone.dev/enabled=true.",
    )
    all_namespaces: bool = Field(
        False,
        description="Work in all namespaces except kube-* and its own, without a label; for clusters with a single "
        "team.",
    )
    trainer: Trainer = Field(default_factory=Trainer)
    staging: Staging = Field(default_factory=Staging)
    encoding: Encoding = Field(default_factory=Encoding)
    hugging_face: HuggingFace = Field(default_factory=HuggingFace)
    store: Store = Field(default_factory=Store)
    progress: Progress = Field(default_factory=Progress)
    limits: Limits = Field(default_factory=Limits)
    cluster_domain: Text = Field("cluster.local", description="The cluster's DNS domain.")
    resync_seconds: Seconds = Field(300, description="Longest time in seconds until an object is reconciled again.")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="Number of objects that are reconciled at the same time."
    )
    log: Log = Field(default_factory=Log)
    service_account: ServiceAccount = Field(default_factory=ServiceAccount)
    rbac: Rbac = Field(default_factory=Rbac)
    admission: Admission = Field(default_factory=Admission)
    tenants: Tenants = Field(default_factory=Tenants)
    signing: Signing = Field(default_factory=Signing)
    webhook: Webhook = Field(default_factory=Webhook)
    kueue: Kueue = Field(default_factory=Kueue)
    leader_election: LeaderElection = Field(default_factory=LeaderElection)
    pod_limits: PodLimits = Field(default_factory=PodLimits)
    pod_security: PodSecurity = Field(default_factory=PodSecurity)
    privacy: Privacy = Field(default_factory=Privacy)
    resources: Map = Field(
        default_factory=lambda: {
            "requests": {"cpu": "100m", "memory": "192Mi"},
            "limits": {"memory": "512Mi"},
        },
        description="Resources of the operator's container.",
    )
    pod_labels: StringMap = Field(default_factory=dict, description="Labels of the operator's pod.")
    pod_annotations: StringMap = Field(default_factory=dict, description="Annotations of the operator's pod.")
    node_selector: StringMap = Field(default_factory=dict, description="Nodes for the operator's pod.")
    tolerations: list[Map] = Field(default_factory=list, description="Taints that the operator's pod tolerates.")
    affinity: Map = Field(default_factory=dict, description="Affinity of the operator's pod.")
    topology_spread_constraints: list[Map] = Field(
        default_factory=list, description="Topology spread of the operator's pod."
    )
    priority_class_name: Annotated[str, StringConstraints(max_length=253)] = Field(
        "", description="Priority class of the operator's pod."
    )
    extra_env: list[Map] = Field(
        default_factory=list, description="Additional environment variables of the operator's container."
    )
    extra_volumes: list[Map] = Field(default_factory=list, description="Additional volumes of the operator's pod.")
    extra_volume_mounts: list[Map] = Field(default_factory=list, description="Mounts of these volumes.")
    extra_objects: list[Map] = Field(default_factory=list, description="Additional objects, rendered with `tpl`.")
    metrics: Metrics = Field(default_factory=Metrics)
    prometheus_rule: PrometheusRule = Field(default_factory=PrometheusRule)
    dashboards: Dashboards = Field(default_factory=Dashboards)
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    # helm hands these to a chart that is a dependency of another.
    global_: Map = Field(default_factory=dict, alias="global", description="Values of a parent chart; not read.")
