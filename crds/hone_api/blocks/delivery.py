"""Delivery: one form of a finished model, copied to a registry, a bucket or another volume."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from hone_api.base.meta import ApiModel, Name, checked_uri, keyed_by
from hone_api.base.rule import Rule
from hone_api.base.schemes import REPOSITORY, REST, Use, in_words, pattern_for, secret_in_words
from hone_api.blocks.entries import S3_PLACE, entry_rules, matches
from hone_api.dataset.source import S3

ArtifactForm = Literal["Adapter", "Merged", "Full", "GGUF"]
_TARGET = pattern_for(Use.DELIVERY)
_TARGET_MESSAGE = f"a delivery goes to {in_words(Use.DELIVERY)}"

Target = Annotated[
    str,
    StringConstraints(pattern=rf"^{REST}+$", max_length=512),
    AfterValidator(checked_uri),
    matches(_TARGET, _TARGET_MESSAGE),
]

PinnedImage = Annotated[
    str,
    StringConstraints(
        pattern=rf"^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]{{1,5}})?/{REPOSITORY}@sha256:[0-9a-f]{{64}}$",
        max_length=512,
    ),
]
"""An image by its digest."""


class Delivery(ApiModel):
    """A copy of the finished model elsewhere."""

    rules = (
        *entry_rules(_TARGET, _TARGET_MESSAGE),
        Rule(
            "!has(self.baseImage) || self.uri.startsWith('oci://')",
            "baseImage is for oci:// only: remove it",
            field_path=".baseImage",
        ),
        Rule(
            "!has(self.baseImage) || !self.uri.startsWith('oci://') || "
            "self.uri.startsWith('oci://' + self.baseImage.split('/')[0] + '/')",
            "baseImage is in the registry that uri names: copy it there",
            field_path=".baseImage",
        ),
    )

    uri: Target = Field(
        description=f"{in_words(Use.DELIVERY)}. Without a "
        "tag, the tag is v<version>, as it always is on a hub. In a bucket or on a volume, the files are in a folder "
        "<path>/<name of the ModelVersion>.",
    )
    secret_name: Name | None = Field(
        default=None,
        description=secret_in_words(Use.DELIVERY),
    )
    s3: S3 | None = S3_PLACE
    form: ArtifactForm | None = Field(
        default=None, description="Form to deliver; default: Merged or Full if there is one, otherwise Adapter."
    )
    base_image: PinnedImage | None = Field(
        default=None,
        description="Image in the same registry, registry/repository@sha256:…, whose layers are put below those of the "
        "model: one with sh, ln, ls and sleep, e.g. a copy of busybox, makes it a modelcar that KServe runs. Default: "
        "none.",
    )


def _once(name: str) -> Rule:
    """No place gets two deliveries, which would write the same files."""
    return Rule(
        "self.all(d, self.exists_one(e, e.uri == d.uri))",
        f"{name} names a uri twice: remove one, or write another path or tag",
        of=name,
    )


ONE_PUSH, ONE_DELIVERY = _once("push"), _once("deliveries")
Deliveries = Annotated[list[Delivery], keyed_by("uri", max_length=4)]
