"""Settings for pods that download; pods that train get none of them."""

from pathlib import PurePosixPath

from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount

SECRET = PurePosixPath("/secrets/source")


def hub_environment(platform: Platform) -> dict[str, str]:
    """The address of the hub for huggingface_hub; a mirror in air-gapped clusters."""
    return {"HF_ENDPOINT": platform.hugging_face.endpoint} if platform.hugging_face.endpoint else {}


def secret_mounts(
    secret: str | None, volume: str = "credentials", path: PurePosixPath = SECRET
) -> tuple[list[Mount], str | None]:
    """(mounts, path in the pod) of credentials, by default those of a source."""
    return ([Mount.secret(volume, path, secret)], str(path)) if secret else ([], None)
