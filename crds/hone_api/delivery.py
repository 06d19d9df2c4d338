"""Delivery: one form of a finished model, copied to a registry, a bucket or another volume."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hone_api.meta import ApiModel, Name, Rule, checked_uri, uri_rules
from hone_api.source import S3

ArtifactForm = Literal["Adapter", "Merged", "Full", "GGUF"]
_REST = r"[^\x00-\x20\x7f]"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_OCI = rf"oci://([^/?#]*@)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{{1,5}})?/{_PART}(/{_PART})*(:[A-Za-z0-9_][-A-Za-z0-9._]*)?"
_S3 = rf"s3://[a-z0-9][-a-z0-9.]{{1,61}}[a-z0-9](/{_REST}*)?"
_PVC = rf"pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/{_REST}*)?"
_HUB = r"hf://[A-Za-z0-9][-A-Za-z0-9._]*/[A-Za-z0-9][-A-Za-z0-9._]*"
_TARGET = rf"^({_OCI}|{_S3}|{_HUB}|{_PVC})$"
_TARGET_MESSAGE = (
    "a delivery goes to oci://registry/repository[:tag] with a repository in lower case, s3://bucket/path, "
    "hf://owner/name without a revision, or pvc://claim/path"
)


def _checked_target(uri: str) -> str:
    if not re.search(_TARGET, uri):
        raise ValueError(_TARGET_MESSAGE)
    return uri


Target = Annotated[
    str,
    StringConstraints(pattern=rf"^{_REST}+$", max_length=512),
    AfterValidator(checked_uri),
    AfterValidator(_checked_target),
]


class Delivery(ApiModel):
    """A copy of the finished model elsewhere."""

    rules = (
        Rule(
            f"self.uri.matches(r'{_TARGET}')",
            _TARGET_MESSAGE,
            field_path=".uri",
        ),
        Rule(
            "!has(self.s3) || self.uri.startsWith('s3://')",
            "s3 is for s3:// only: remove it",
            holds=lambda delivery: delivery.s3 is None or delivery.uri.startswith("s3://"),
        ),
        Rule(
            "!has(self.secretName) || !self.uri.startsWith('pvc://')",
            "a volume needs no credentials: remove secretName",
            holds=lambda delivery: delivery.secret_name is None or not delivery.uri.startswith("pvc://"),
        ),
        *uri_rules(),
    )

    uri: Target = Field(
        description="oci://registry/repository[:tag], s3://bucket/path, hf://owner/name or pvc://claim/path. Without a "
        "tag, the tag is v<version>, as it always is on a hub. In a bucket or on a volume, the files are in a folder "
        "<path>/<name of the ModelVersion>.",
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret in this namespace; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if needed, "
        "AWS_SESSION_TOKEN for s3://; username and password, or .dockerconfigjson, for oci://; HF_TOKEN for hf://.",
    )
    s3: S3 | None = Field(default=None, description="Endpoint and region of s3://; default: AWS.")
    form: ArtifactForm | None = Field(
        default=None, description="Form to deliver; default: Merged or Full if there is one, otherwise Adapter."
    )


def _once(name: str) -> Rule:
    """No place gets two deliveries, which would write the same files."""
    return Rule(
        f"!has(self.{name}) || self.{name}.all(d, self.{name}.exists_one(e, e.uri == d.uri))",
        f"{name} names a uri twice: remove one, or write another path or tag",
        field_path=f".{name}",
        holds=lambda parent: len({d.uri for d in getattr(parent, name) or ()}) == len(getattr(parent, name) or ()),
    )


ONE_PUSH, ONE_DELIVERY = _once("push"), _once("deliveries")
Deliveries = Annotated[list[Delivery], Field(max_length=4)]
