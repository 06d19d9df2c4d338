"""The values of charts/hone, each with its meaning and its default. Helm refuses a name that is not here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from hone_api.base.meta import Name, Quantity
from hone_dev.chart.monitoring_values import Dashboards, Metrics, PrometheusRule
from hone_dev.chart.network_values import NetworkPolicy
from hone_dev.chart.pod_values import Encoding, Image, PodLimits, PodSecurity, Staging, Trainer
from hone_dev.chart.tenant_values import Admission, Limits, Privacy, Rbac, Signing, Tenants
from hone_dev.chart.value_types import ClassName, Env, Map, Port, Seconds, Secrets, StringMap, Text, Values


class Crds(Values):
    enabled: bool = Field(True, description="Install the CRDs of FineTuneJob, Dataset, ModelVersion and Model.")
    keep: bool = Field(True, description="Keep the CRDs, and so all objects, on `helm uninstall`.")


class HuggingFace(Values):
    endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://[^\s/@]+(/[^\s]*)?)?$")] = Field(
        "", description="Mirror for hf:// URIs, for clusters without internet access. Empty: huggingface.co."
    )


class CaBundle(Values):
    config_map_name: ClassName = Field(
        "",
        description="ConfigMap with the certificate authorities, in PEM, that Hone's pods trust in HTTPS instead of "
        "those of the image: include the public ones that you need. It must exist in each namespace with jobs. "
        "Empty: those of the image.",
    )
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = Field(
        "ca-bundle.crt", description="Key of this ConfigMap. The default is that of OpenShift's injected bundle."
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


class Log(Values):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    format: Literal["json", "text"] = Field("json", description="Format of the log: json or text.")


class ServiceAccount(Values):
    create: bool = Field(True, description="Create the operator's service account.")
    name: Annotated[str, StringConstraints(max_length=253)] = Field(
        "", description="Name of the service account. Empty: the release's full name."
    )
    annotations: StringMap = Field(default_factory=dict, description="Annotations of the service account.")


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


class Global(Values):
    """Values that Helm hands to all charts of a release; those of others are ignored."""

    model_config = ConfigDict(extra="allow")

    image_registry: Annotated[str, StringConstraints(pattern=r"^([^\s/@:]+(:\d+)?(/[^\s/@:]+)*)?$")] = Field(
        "",
        description="Registry of all images of this chart in place of the one in their repository, e.g. "
        "registry.example.internal:5000/mirror, for a mirror that keeps the rest of the names. Empty: as they are.",
    )


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
    image_pull_secrets: Secrets = Field(
        default_factory=list, description="Pull secrets of the operator's pod: names, or {name: NAME}."
    )
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
    ca_bundle: CaBundle = Field(default_factory=CaBundle)
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
    extra_env: Env = Field(
        default_factory=dict,
        description="Additional environment variables of the operator's container as NAME: value. A list as in a pod, "
        "with {name, value} or {name, valueFrom}, is also taken.",
    )
    extra_volumes: list[Map] = Field(default_factory=list, description="Additional volumes of the operator's pod.")
    extra_volume_mounts: list[Map] = Field(default_factory=list, description="Mounts of these volumes.")
    extra_objects: list[Map] = Field(default_factory=list, description="Additional objects, rendered with `tpl`.")
    metrics: Metrics = Field(default_factory=Metrics)
    prometheus_rule: PrometheusRule = Field(default_factory=PrometheusRule)
    dashboards: Dashboards = Field(default_factory=Dashboards)
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    global_: Global = Field(default_factory=Global, alias="global")
