"""The chart's values that the operator reads under the same names. The chart has further ones in `hone_dev.chart`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from hone_api.base.meta import Name, Quantity
from hone_api.plan import Limits
from hone_operator.settings.pods import (
    DatasetSettings,
    EncodingSettings,
    PodLimitSettings,
    PodSecuritySettings,
    StagingSettings,
    TrainerPods,
)
from hone_operator.settings.section import ClassName, Host, Port, Seconds, Section
from hone_operator.settings.tenants import PrivacySettings, SigningSettings, TenantSettings


class HuggingFaceSettings(Section):
    """Where hf:// is resolved."""

    endpoint: Annotated[str, StringConstraints(pattern=r"^(https?://[^\s/@]+(/[^\s]*)?)?$", max_length=1024)] = Field(
        "", description="Mirror for hf:// URIs, for clusters without internet access. Empty: huggingface.co."
    )


class CaBundleSettings(Section):
    """The certificate authorities that pods trust in HTTPS."""

    config_map_name: ClassName = Field(
        "",
        description="ConfigMap with the certificate authorities, in PEM, that Hone's pods trust in HTTPS instead of "
        "those of the image: include the public ones that you need. It must exist in each namespace with jobs. "
        "Empty: those of the image.",
    )
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = Field(
        "ca-bundle.crt", description="Key of this ConfigMap. The default is that of OpenShift's injected bundle."
    )


class StoreSettings(Section):
    """The volume claim that holds data, base models, checkpoints and results of a namespace."""

    claim_name: Name = Field(
        "hone-store", description="Name of the volume claim that the operator creates in each namespace."
    )
    size: Quantity = Field("50Gi", description="Size of the claim.")
    storage_class_name: ClassName = Field("", description="Storage class of the claim. Empty: the cluster's default.")
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"] = Field(
        "ReadWriteMany", description="Access mode of the claim. Runs on several nodes need ReadWriteMany."
    )
    keep_unused_seconds: Seconds = Field(
        3600, description="Seconds that rows, checkpoints and models to be deleted stay after no object needs them."
    )
    isolate_runs: bool = Field(
        True,
        description="Whether a pod mounts only the folders of the store that it needs (subPath): a training pod "
        "writes its own run and its own models, in tracking/ files of its tracker, and reads what its job names; a "
        "container that parses rows writes a folder of its own. The kubelet creates a missing folder as "
        "root with the mode of the volume's root, so either the volume must apply fsGroup, or every user must be "
        "allowed to write to its root. Otherwise pods cannot start or cannot write: set false, and every pod mounts "
        "the whole store writable. Also set false on NFS with root_squash if runs/ and models/ were created by a "
        "release without this value, since the kubelet may not write there.",
    )


class ProgressSettings(Section):
    """The server to which pods report."""

    enabled: bool = Field(True, description="Let running pods report their progress.")
    port: Port = Field(8443, description="Port of the progress server and of its Service.")
    status_interval_seconds: Seconds = Field(
        15, description="Shortest time in seconds between two updates of a job's status by reports."
    )


class LogSettings(Section):
    """The operator's log, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level that is logged.")
    format: Literal["json", "text"] = Field("json", description="Format of the log: json or text.")


class KueueSettings(Section):
    """Queues of Kueue, which must be installed."""

    enabled: bool = Field(
        False,
        description="Let jobs wait for quota in the queue of Kueue that they name, see the guide Shared clusters. "
        "Needs Kueue 0.15 or later in the cluster. Gives the operator the right to read all Workloads, and to "
        "deactivate those of suspended jobs.",
    )


class LeaderElectionSettings(Section):
    """Several operators; one of them works at a time."""

    enabled: bool = Field(
        False,
        description="Let the operator work only while it holds a Lease, so that a pod that a lost node still runs "
        "writes nothing once its replacement has begun. After a pod was lost without notice, the new one waits 15 "
        "seconds.",
    )


class Values(Section):
    """What the chart hands to the operator as it is."""

    watch_namespaces: list[Name] = Field(
        default_factory=list,
        description="Namespaces to serve, with a Role in each and no rights elsewhere. Empty: see namespaces.",
    )
    trainer: TrainerPods = Field(default_factory=TrainerPods)
    staging: StagingSettings = Field(default_factory=StagingSettings)
    datasets: DatasetSettings = Field(default_factory=DatasetSettings)
    encoding: EncodingSettings = Field(default_factory=EncodingSettings)
    hugging_face: HuggingFaceSettings = Field(default_factory=HuggingFaceSettings)
    ca_bundle: CaBundleSettings = Field(default_factory=CaBundleSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    progress: ProgressSettings = Field(default_factory=ProgressSettings)
    limits: Limits = Field(default_factory=Limits)
    cluster_domain: Host = Field("cluster.local", description="The cluster's DNS domain.")
    resync_seconds: Seconds = Field(300, description="Longest time in seconds until an object is reconciled again.")
    concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="Number of objects that are reconciled at the same time."
    )
    log: LogSettings = Field(default_factory=LogSettings)
    tenants: TenantSettings = Field(default_factory=TenantSettings)
    signing: SigningSettings = Field(default_factory=SigningSettings)
    kueue: KueueSettings = Field(default_factory=KueueSettings)
    leader_election: LeaderElectionSettings = Field(default_factory=LeaderElectionSettings)
    pod_limits: PodLimitSettings = Field(default_factory=PodLimitSettings)
    pod_security: PodSecuritySettings = Field(default_factory=PodSecuritySettings)
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)

    @field_validator("watch_namespaces")
    @classmethod
    def _each_once(cls, names: list[str]) -> list[str]:
        return sorted(set(names))
