"""How a pod reports its progress to the operator: where to, and by which token."""

from pathlib import PurePosixPath

from hone_api import GROUP, VERSION
from hone_api.contract.report import AUDIENCE, CA_ENV, TOKEN_ENV, URL_ENV
from hone_operator.desired.core import names
from hone_operator.desired.core.platform import Platform
from hone_operator.desired.core.pod import Mount

TOKEN_FOLDER = PurePosixPath("/var/run/secrets/hone.dev/progress")
TOKEN_SECONDS = 3600


def progress_environment(platform: Platform, namespace: str, kind: str, name: str) -> dict[str, str]:
    """Where a pod reports its progress, and by which token; nothing where pods do not report.

    Args:
        kind: finetunejobs, encodings or deliveries.
        name: that of the FineTuneJob, or of the Job that encodes or delivers.
    """
    if not platform.progress_url:
        return {}
    return {
        URL_ENV: f"{platform.progress_url}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{kind}/{name}/status",
        TOKEN_ENV: str(TOKEN_FOLDER / "token"),
        CA_ENV: str(names.PLAN_FOLDER / "ca.crt"),
    }


def progress_token(platform: Platform) -> tuple[Mount, ...]:
    """The token by which a pod reports its progress; none where pods do not report."""
    if not platform.progress_url:
        return ()
    token = {"audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    source = {"projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]}}
    return (Mount("progress", TOKEN_FOLDER, source),)
