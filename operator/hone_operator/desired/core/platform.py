"""Settings of the platform team that decisions and pods depend on, and what the running operator knows besides."""

from typing import Any

from pydantic import Field

from hone_api.base.pod_image import DownloadPod, PodImage
from hone_operator.settings.pods import TrainerSettings
from hone_operator.settings.values import Values


class Platform(Values):
    """Everything that a desired object depends on in addition to the user's spec."""

    trainer: TrainerSettings
    metrics_from: list[dict[str, Any]] = Field(default_factory=list)
    """NetworkPolicy peers that may read the metrics of ranks; empty: everybody."""
    progress_url: str | None = None
    """Base URL of the progress server; None: pods do not report."""
    progress_ca: str | None = None
    """PEM of the authority that signed the progress server's certificate."""

    def network(self, namespace: str) -> dict[str, Any]:
        """What a `NetworkPlan` for a pod of the namespace has of the platform."""
        return {"cluster_domain": self.cluster_domain, "namespace": namespace, "limits": self.limits}

    def pod_image(self) -> PodImage:
        """The image of the pods that the command line starts with the store mounted."""
        return PodImage.model_validate(
            {
                "image": self.trainer.image,
                "image_pull_policy": self.trainer.image_pull_policy,
                "image_pull_secrets": self.trainer.image_pull_secrets,
            }
        )

    def download_pod(self) -> DownloadPod:
        """The same, with the image of servers."""
        return DownloadPod(**self.pod_image().model_dump(), vllm_image=self.trainer.serving_image or None)
