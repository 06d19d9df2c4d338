"""The values of charts/hone, each with its meaning and its default. Helm refuses a name that is not here.

Those that the operator reads as they are stand in `hone_operator.settings.values`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from hone_api.base.meta import BaseModelUri, Name
from hone_api.blocks.placement import Toleration
from hone_dev.chart.monitoring_values import Dashboards, Metrics, PrometheusRule
from hone_dev.chart.network_values import NetworkPolicy
from hone_dev.chart.value_types import (
    Affinity,
    Env,
    ImageDigest,
    ImageTag,
    KubernetesObject,
    Map,
    ObjectName,
    Repository,
    Resources,
    Secrets,
    Spread,
    Volume,
    VolumeMount,
)
from hone_operator.settings.pods import TrainerPods
from hone_operator.settings.section import Annotations, ClassName, Labels, Section, Text
from hone_operator.settings.values import Values


class Crds(Section):
    enabled: bool = Field(True, description="Install the CRDs of FineTuneJob, Dataset, ModelVersion and Model.")
    keep: bool = Field(True, description="Keep the CRDs, and so all objects, on `helm uninstall`.")


class Image(Section):
    repository: Repository = Field(
        "hone/operator",
        description="Image of the operator, with its registry unless global.imageRegistry has it.",
    )
    tag: ImageTag = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="Pull policy.")


class TrainerImage(Image):
    repository: Repository = Field(
        "hone/trainer",
        description="Image of the pods that train, with its registry unless global.imageRegistry has it.",
    )


class VllmImage(Section):
    repository: Repository = Field(
        "",
        description="Image of the pods that train with GRPO and generate with vLLM, e.g. hone/trainer-vllm. "
        "Empty: such jobs are refused.",
    )
    tag: ImageTag = Field("", description="Tag. Empty: the chart's appVersion.")
    digest: ImageDigest = Field("", description="Digest, sha256:…; takes precedence over the tag.")


class ServingImage(VllmImage):
    repository: Repository = Field(
        "docker.io/vllm/vllm-openai",
        description="Image of vLLM in what `hone serve` prints. Empty: the one that the command line knows.",
    )
    tag: ImageTag = Field("v0.31.0", description="Tag. The condition Servable says what this release of vLLM loads.")


class Trainer(TrainerPods):
    image: TrainerImage = Field(default_factory=TrainerImage)
    vllm_image: VllmImage = Field(default_factory=VllmImage)
    serving_image: ServingImage = Field(default_factory=ServingImage)
    image_pull_secrets: Secrets = Field(
        default_factory=list,
        description="Pull secrets that must exist in each namespace with jobs: names, or {name: NAME}.",
    )
    extra_env: Env = Field(
        default_factory=dict,
        description="Environment variables of all pods of jobs as NAME: value, e.g. proxies or NCCL settings. A list "
        "of {name, value} is also taken; Helm then warns that it cannot overwrite a table, and does.",
    )


class ServiceAccount(Section):
    create: bool = Field(True, description="Create the operator's service account.")
    name: ClassName = Field("", description="Name of the service account. Empty: the release's full name.")
    annotations: Annotations = Field(default_factory=dict, description="Annotations of the service account.")


class Rbac(Section):
    create: bool = Field(True, description="Create the operator's roles.")
    aggregate_to_user_roles: bool = Field(
        True, description="Add Hone's kinds to the cluster's roles view, edit and admin."
    )


class ExtraFields(Section):
    """What admission webhooks of the platform set in Jobs."""

    job: Map = Field(
        default_factory=dict,
        description="Fields that webhooks of yours set in the spec of Jobs, with the values that they write, e.g. "
        "{ttlSecondsAfterFinished: 900}: the operator's Jobs may have them.",
    )
    pod: Map = Field(
        default_factory=dict,
        description="The same for the spec of their pods. Fields of securityContext are added to Hone's, or replace "
        "them.",
    )
    container: Map = Field(
        default_factory=dict,
        description="The same for each of their containers. Fields of securityContext are added to Hone's, or replace "
        "them.",
    )


class Admission(Section):
    enabled: bool = Field(
        True,
        description="Install ValidatingAdmissionPolicies, which limit what the operator's service account may create "
        "and what tenants may request.",
    )
    separate_duties: bool = Field(
        False,
        description="Who submits a job must say so in spec.submittedBy, and cannot approve the model that the job "
        "makes. The role approve is then no part of admin: bind it to those who approve.",
    )
    service_accounts: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="Service accounts that may approve models, as namespace:name or prefix*; with separateDuties also "
        "those whose jobs may be approved. Whoever may edit a namespace can act as each of its service accounts: list "
        "those of other namespaces. Empty: people alone.",
    )
    extra_images: list[Text] = Field(
        default_factory=list,
        description="Additional images that the operator's Jobs may run, e.g. the old one while both versions are in "
        "use.",
    )
    extra_fields: ExtraFields = Field(default_factory=ExtraFields)


class HelmTest(Section):
    """What `helm test` trains."""

    namespace: Name | Literal[""] = Field(
        "",
        description="Namespace in which `helm test` also runs a fine-tuning of two steps; Hone must work there. Empty: "
        "none. Give helm test a --timeout for the download of the model.",
    )
    model: BaseModelUri = Field(
        "hf://HuggingFaceTB/SmolLM2-135M-Instruct", description="Base model of this fine-tuning."
    )
    gpus: Annotated[int, Field(ge=0, le=8)] = Field(0, description="GPUs of this fine-tuning.")
    submitted_by: Text = Field(
        "",
        description="User who runs `helm test`, as `kubectl auth whoami` prints it: spec.submittedBy of this "
        "fine-tuning. Required with admission.separateDuties.",
    )


class Global(Section):
    """Values that Helm hands to all charts of a release; those of others are ignored."""

    model_config = ConfigDict(extra="allow")

    image_registry: Annotated[str, StringConstraints(pattern=r"^([^\s/@:]+(:\d+)?(/[^\s/@:A-Z]+)*)?$")] = Field(
        "",
        description="Registry of all images of this chart in place of the one in their repository, e.g. "
        "registry.example.internal:5000/mirror, for a mirror that keeps the rest of the names. Empty: as they are.",
    )


class ChartValues(Values):
    """All values."""

    name_override: ObjectName = Field("", description="Name to use instead of hone.")
    fullname_override: Annotated[ObjectName, StringConstraints(max_length=50)] = Field(
        "", description="Name to use instead of the release's full name."
    )
    namespace_override: Name | Literal[""] = Field(
        "", description="Namespace of the operator's objects. Empty: the release's. It must exist."
    )
    common_labels: Labels = Field(default_factory=dict, description="Labels of all objects.")
    crds: Crds = Field(default_factory=Crds)
    image: Image = Field(default_factory=Image)
    image_pull_secrets: Secrets = Field(
        default_factory=list, description="Pull secrets of the operator's pod: names, or {name: NAME}."
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
    service_account: ServiceAccount = Field(default_factory=ServiceAccount)
    rbac: Rbac = Field(default_factory=Rbac)
    admission: Admission = Field(default_factory=Admission)
    resources: Resources = Field(
        default_factory=lambda: Resources(
            requests={"cpu": "100m", "memory": "192Mi"},
            limits={"memory": "512Mi"},
        ),
        description="Resources of the operator's container.",
    )
    strategy: Literal["Recreate", "RollingUpdate"] = Field(
        "Recreate",
        description="Strategy of the Deployment. RollingUpdate needs leaderElection.enabled: the old operator then "
        "works until the new image has started.",
    )
    deployment_annotations: Annotations = Field(default_factory=dict, description="Annotations of the Deployment.")
    service_annotations: Annotations = Field(default_factory=dict, description="Annotations of the Services.")
    pod_labels: Labels = Field(default_factory=dict, description="Labels of the operator's pod.")
    pod_annotations: Annotations = Field(default_factory=dict, description="Annotations of the operator's pod.")
    node_selector: Labels = Field(default_factory=dict, description="Nodes for the operator's pod.")
    tolerations: list[Toleration] = Field(default_factory=list, description="Taints that the operator's pod tolerates.")
    affinity: Affinity = Field(default_factory=dict, description="Affinity of the operator's pod.")
    topology_spread_constraints: list[Spread] = Field(
        default_factory=list, description="Topology spread of the operator's pod."
    )
    priority_class_name: ClassName = Field("", description="Priority class of the operator's pod.")
    extra_env: Env = Field(
        default_factory=dict,
        description="Additional environment variables of the operator's container as NAME: value. A list as in a pod, "
        "with {name, value} or {name, valueFrom}, is also taken.",
    )
    extra_volumes: list[Volume] = Field(default_factory=list, description="Additional volumes of the operator's pod.")
    extra_volume_mounts: list[VolumeMount] = Field(default_factory=list, description="Mounts of these volumes.")
    extra_objects: list[KubernetesObject] = Field(
        default_factory=list, description="Additional objects, rendered with `tpl`."
    )
    metrics: Metrics = Field(default_factory=Metrics)
    prometheus_rule: PrometheusRule = Field(default_factory=PrometheusRule)
    dashboards: Dashboards = Field(default_factory=Dashboards)
    helm_test: HelmTest = Field(default_factory=HelmTest)
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    global_: Global = Field(default_factory=Global, alias="global")
