"""Values that limit tenants: what jobs may name, reach and request, and which signatures a model needs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.blocks.pod_settings import ALLOWED_ENV, ALLOWED_KEYS
from hone_api.plan import Cidr, PublicKey, ServicePattern
from hone_dev.chart.value_types import Map, Seconds, Text, Values


class Limits(Values):
    max_source_bytes: Annotated[int, Field(ge=1)] = Field(20 * 2**30, description="Largest source, in bytes.")
    timeout_seconds: Seconds = Field(
        3600,
        description="How long a server of a source may be waited for, in seconds: for its listing, and for each file "
        "beyond the time that its bytes take at 4 MiB/s.",
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


class Rbac(Values):
    create: bool = Field(True, description="Create the operator's roles.")
    aggregate_to_user_roles: bool = Field(
        True, description="Add Hone's kinds to the cluster's roles view, edit and admin."
    )


class ExtraFields(Values):
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


class Admission(Values):
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
    env: list[Text] = Field(
        default_factory=lambda: ALLOWED_ENV,
        description="Environment variables that jobs may set in spec.pod, each in full or as prefix*. Some variables "
        "name code that a library loads: what you add here may be such a one.",
    )
    pod_keys: list[Text] = Field(
        default_factory=lambda: ALLOWED_KEYS,
        description="Keys with a prefix (prefix/name) of labels and annotations that jobs may set in spec.pod, each in "
        "full or as prefix*. Admission webhooks read such keys and add containers, volumes or identities. Keys without "
        "a prefix are always allowed.",
    )
    deliveries: Literal["Any", "Approved"] = Field(
        "Any",
        description="Which ModelVersions leave the store by deliveries and output.push. Approved: those that a person "
        "approved; the others wait.",
    )
    destinations: list[Text] = Field(
        default_factory=lambda: ["*"],
        description="Addresses to which models may be delivered, each in full or as prefix*, e.g. "
        "oci://registry.example.org/team-a/*. Empty: none.",
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


class SigningIdentity(Values):
    subject: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Subject of its certificate, e.g. https://kubernetes.io/namespaces/NAMESPACE/serviceaccounts/NAME."
    )
    issuer: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=512)] = Field(
        description="Issuer of the token that the certificate is given for."
    )


class KeylessSigning(Values):
    service_account: Annotated[
        str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)
    ] = Field(
        "",
        description="ServiceAccount in each namespace by whose token, for the audience sigstore, a Job of its own "
        "signs each model. Not with signing.secretName. Empty: Jobs sign with the key, or only compare.",
    )
    trust_config: Annotated[str, StringConstraints(max_length=32768)] = Field(
        "",
        description="JSON of Sigstore's ClientTrustConfig: addresses of Fulcio, Rekor and the timestamp authority, "
        "their certificates and keys.",
    )
    identities: list[SigningIdentity] = Field(
        default_factory=list,
        description="Who may sign without a key, 64 at most. Empty: nobody.",
    )


class Signing(Values):
    secret_name: Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)] = (
        Field(
            "",
            description="Secret in each namespace with private-key.pem, "
            "by which a Job of its own signs each model. Its name must not begin with tenants.secretPrefix, so that no "
            "object of a tenant can name it. Empty: somebody else signs, and Jobs only compare.",
        )
    )
    keyless: KeylessSigning = Field(default_factory=KeylessSigning)
    public_keys: list[PublicKey] = Field(
        default_factory=list,
        description="Public keys (PEM) whose signatures count, 16 at most. If this and keyless.identities are empty, "
        "models are neither signed nor compared with a signature.",
    )
    required: bool = Field(
        False,
        description="Whether a model without such a signature is refused: it does not become Ready, is not delivered, "
        "and no job starts from it.",
    )


class Privacy(Values):
    rows_in_status: bool = Field(
        True,
        description="Let status, ModelVersions and events quote rows: examples of rejected rows, sampled answers, "
        "error messages, the end of logs. Everybody with the role view can read them.",
    )
