"""What pods that download need; pods that train get none of it."""

from pathlib import PurePosixPath

from hone_operator.desired.platform import Platform
from hone_operator.desired.pod import Mount

SECRET = PurePosixPath("/secrets/source")


def hub_environment(platform: Platform) -> dict[str, str]:
    """Where huggingface_hub looks; a mirror in air-gapped clusters."""
    return {"HF_ENDPOINT": platform.hugging_face_endpoint} if platform.hugging_face_endpoint else {}


def secret_mounts(secret: str | None) -> tuple[list[Mount], str | None]:
    """(mounts, path in the pod) of the credentials of a source."""
    return ([Mount.secret("credentials", SECRET, secret)], str(SECRET)) if secret else ([], None)
