"""Signatures of models without a key: whose certificates count, and who has confirmed them."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.meta import ApiModel

TOKEN_AUDIENCE = "sigstore"
"""Audience of the token for which Sigstore's Fulcio gives a certificate."""


class Identity(ApiModel):
    """Who may sign without a key."""

    subject: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Subject of the certificate, e.g. https://kubernetes.io/namespaces/NAMESPACE/serviceaccounts/NAME."
    )
    issuer: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=512)] = Field(
        description="Issuer of the token that the certificate was given for."
    )


class Keyless(ApiModel):
    """Whose signatures without a key count."""

    trust_config: Annotated[str, StringConstraints(min_length=2, max_length=32768)] = Field(
        description="JSON of Sigstore's ClientTrustConfig: addresses of the servers, certificates of the authorities, "
        "keys of the logs."
    )
    identities: Annotated[list[Identity], Field(min_length=1, max_length=64)]

    @property
    def trust(self) -> str:
        """SHA-256 of the trust config: a signature that another one confirmed is compared again."""
        return hashlib.sha256(self.trust_config.encode()).hexdigest()
