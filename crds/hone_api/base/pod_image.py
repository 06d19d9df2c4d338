"""What a pod of the command line takes from the platform. The operator writes it into a status; a Job or a pod of a
tenant cannot. People start such a pod with their own rights, so nothing of it may come from what a tenant writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hone_api.base.meta import ApiModel, ShortText, Text


class PodImage(ApiModel):
    """The image of a pod that the command line starts with the store mounted, and how it is pulled."""

    image: Text = Field(description="The trainer's image.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When the image is pulled."
    )
    image_pull_secrets: Annotated[list[ShortText], Field(max_length=16)] = Field(
        default_factory=list, description="Secrets of the namespace for the image's registry."
    )


class DownloadPod(PodImage):
    """The same for the files of a model, with what servers of it run."""

    vllm_image: Text | None = Field(
        default=None, description="Image of vLLM in what `hone serve` prints. None: the one that this command knows."
    )
