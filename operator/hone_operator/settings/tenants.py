"""Settings of what tenants may do, which namespaces are served, and whose models count."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from hone_api.base.meta import Name
from hone_api.blocks.pod_settings import ALLOWED_ENV, ALLOWED_KEYS
from hone_api.plan import PublicKey
from hone_operator.keys import public_key_fingerprint
from hone_operator.settings.section import ClassName, Section, Text


class OptInSettings(Section):
    """How namespaces opt in: by a label, or by this list. Without a role, the operator works in all that it sees."""

    role: Annotated[str, StringConstraints(max_length=253)] = ""
    """ClusterRole that the operator binds to itself in labelled namespaces; empty: no namespace needs to opt in."""
    service_account: Annotated[str, StringConstraints(max_length=253)] = ""
    """The operator's service account, in its own namespace."""
    namespaces: list[Name] = Field(default_factory=list)
    """Namespaces in which the role is already bound."""
    close_ports: bool = True
    """Whether a NetworkPolicy closes the ports of Hone's pods in labelled namespaces."""


class TenantSettings(Section):
    """What tenants may use. An entry of a list is a name, or a prefix and `*`."""

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


class SigningSettings(Section):
    """Who signs models, and whose signature counts."""

    secret_name: ClassName = Field(
        "",
        description="Secret in each namespace with private-key.pem, by which a Job of its own signs each model. Its "
        "name must not begin with tenants.secretPrefix, so that no object of a tenant can name it. Empty: somebody "
        "else signs, and Jobs only compare.",
    )
    public_keys: Annotated[list[PublicKey], Field(max_length=16)] = Field(
        default_factory=list,
        description="Public keys (PEM) whose signatures count, 16 at most. Empty: models are neither signed nor "
        "compared with a signature.",
    )
    required: bool = Field(
        False,
        description="Whether a model without such a signature is refused: it does not become Ready, is not delivered, "
        "and no job starts from it.",
    )

    @model_validator(mode="after")
    def _names_its_keys(self) -> Self:
        if (self.secret_name or self.required) and not self.public_keys:
            raise ValueError("signing needs the public keys whose signatures count: set signing.public_keys")
        for pem in self.public_keys:
            public_key_fingerprint(pem)
        return self

    @cached_property
    def fingerprints(self) -> frozenset[str]:
        """SHA-256 of each public key, as signatures name their key."""
        return frozenset(map(public_key_fingerprint, self.public_keys))

    @property
    def trusted(self) -> list[PublicKey] | None:
        """One of these must have signed each model that is used; None: models need no signature."""
        return self.public_keys if self.required else None

    def counts(self, key: str | None) -> bool:
        """Whether a signature that was compared before still counts.

        Args:
            key: SHA-256 of the public key.
        """
        return key in self.fingerprints


class PrivacySettings(Section):
    """What is visible to people who may read objects but not the data."""

    rows_in_status: bool = Field(
        True,
        description="Let status, ModelVersions and events quote rows: examples of rejected rows, sampled answers, "
        "error messages, the end of logs. Everybody with the role view can read them.",
    )
