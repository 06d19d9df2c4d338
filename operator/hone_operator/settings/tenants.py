"""Settings of what tenants may do, which namespaces are served, and whose models count."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from hone_api.base.meta import Name
from hone_api.blocks.pod_settings import ALLOWED_ENV, ALLOWED_KEYS
from hone_api.blocks.signing import Identity
from hone_api.plan import PublicKey
from hone_operator.keys import public_key_fingerprint
from hone_operator.settings.section import Section

ObjectName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
"""Of an object of Kubernetes, or empty."""


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

    secret_prefix: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][-a-z0-9]*)?$", max_length=63)] = "hone-"
    """Prefix that names of Secrets must have; empty: any Secret of the namespace may be used."""
    priority_classes: list[str] = Field(default_factory=lambda: ["*"])
    """PriorityClasses; system-* is never allowed."""
    toleration_keys: list[str] = Field(default_factory=lambda: ["*"])
    """Keys of taints; `*` does not cover the control plane's."""
    node_selector_keys: list[str] = Field(default_factory=lambda: ["*"])
    """Keys of node labels; `*` does not cover the control plane's."""
    models: list[str] = Field(default_factory=lambda: ["*"])
    """URIs of base models."""
    service_accounts: list[str] = Field(default_factory=list)
    """ServiceAccounts that jobs may name for their pods."""
    runtime_classes: list[str] = Field(default_factory=list)
    """RuntimeClasses that jobs may name for their pods."""
    env: list[str] = Field(default_factory=lambda: ALLOWED_ENV)
    """Environment variables that jobs may set on their pods."""
    pod_keys: list[str] = Field(default_factory=lambda: ALLOWED_KEYS)
    """Keys with a prefix of labels and annotations that jobs may set on their pods."""
    deliveries: Literal["Any", "Approved"] = "Any"
    """Which ModelVersions are delivered."""
    destinations: list[str] = Field(default_factory=lambda: ["*"])
    """Addresses to which they may be delivered."""
    resource_claim_templates: list[str] = Field(default_factory=list)
    """ResourceClaimTemplates that jobs may name."""
    workload_priority_classes: list[str] = Field(default_factory=lambda: ["*"])
    """WorkloadPriorityClasses of Kueue."""
    max_gpus: Annotated[int, Field(ge=0, le=65536)] = 0
    """GPUs of one job over all its nodes; 0: any number."""
    max_active_jobs: Annotated[int, Field(ge=0, le=65536)] = 0
    """Jobs of one namespace that train at the same time; 0: any number."""


class KeylessSettings(Section):
    """Signatures without a key."""

    service_account: Annotated[
        str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)
    ] = ""
    """ServiceAccount of each namespace by whose token Jobs sign; empty: they only compare."""
    trust_config: Annotated[str, StringConstraints(max_length=32768)] = ""
    """JSON of Sigstore's ClientTrustConfig."""
    identities: Annotated[list[Identity], Field(max_length=64)] = Field(default_factory=list)
    """Whose certificates count."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.trust_config) != bool(self.identities) or (self.service_account and not self.identities):
            raise ValueError(
                "signing.keyless needs the authorities and whose signatures count: set trust_config and identities"
            )
        if self.trust_config:
            self._parses()
        return self

    def _parses(self) -> None:
        try:
            parts = json.loads(self.trust_config)
        except ValueError:
            parts = None
        if not isinstance(parts, dict) or not {"trustedRoot", "signingConfig"} <= parts.keys():
            raise ValueError(
                "signing.keyless.trust_config is not a ClientTrustConfig in JSON, with trustedRoot and signingConfig"
            )


class SigningSettings(Section):
    """Signatures of models."""

    secret_name: ObjectName = ""
    """Secret of each namespace with private-key.pem; tenants' objects cannot name it."""
    keyless: KeylessSettings = Field(default_factory=KeylessSettings)
    public_keys: Annotated[list[PublicKey], Field(max_length=16)] = Field(default_factory=list)
    required: bool = False

    @model_validator(mode="after")
    def _names_its_keys(self) -> Self:
        if (self.secret_name or (self.required and not self.keyless.identities)) and not self.public_keys:
            raise ValueError("signing needs the public keys whose signatures count: set signing.public_keys")
        if self.secret_name and self.keyless.service_account:
            raise ValueError("models are signed once: set signing.secret_name or signing.keyless.service_account")
        for pem in self.public_keys:
            public_key_fingerprint(pem)
        return self


class PrivacySettings(Section):
    """What is visible to people who may read objects but not the data."""

    rows_in_status: bool = True
    """Whether status, records and events may quote rows."""
