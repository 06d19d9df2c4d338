"""A real MLflow server on loopback, with users and passwords, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone_api.blocks.tracking import PASSWORD_KEY, USER_KEY
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.mlflow.server import MlflowServer

PACKAGES = Path(sys.prefix) / "share" / "hone" / "mlflow"
USER, PASSWORD = "admin", "correct-horse-battery"
CONFIG = f"""[mlflow]
default_permission = READ
database_uri = sqlite:///{{folder}}/users.db
admin_username = {USER}
admin_password = {PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 3600
"""
LOOPBACK = AllowedNetwork(allow_private=True)


@dataclass(frozen=True)
class RealMlflow:
    """Its address, and the folder of a mounted Secret with credentials."""

    uri: str
    secret: Path

    @property
    def client(self) -> MlflowServer:
        """Ours, without a limit of time."""
        return MlflowServer(self.uri, LOOPBACK, str(self.secret), seconds=3600)

    def run(self, run_id: str) -> dict[str, Any]:
        """Its info and data, parameters and tags by name."""
        body: dict[str, Any] = self.client.call("GET", "runs/get", run_id=run_id)["run"]
        for name in ("params", "tags"):
            body[name] = {entry["key"]: entry["value"] for entry in body["data"].get(name, ())}
        return body

    def history(self, run_id: str, key: str) -> list[tuple[int, Any]]:
        """Steps and values of a metric, in the order of steps."""
        points = self.client.call("GET", "metrics/get-history", run_id=run_id, metric_key=key).get("metrics", ())
        return sorted((int(point.get("step", 0)), point["value"]) for point in points)


def secret(folder: Path, user: str = USER, password: str = PASSWORD) -> Path:
    """A folder as the kubelet mounts a Secret with these credentials."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / USER_KEY).write_text(user)
    (folder / PASSWORD_KEY).write_text(password)
    return folder


@contextlib.contextmanager
def real_mlflow(folder: Path, host: str = "127.0.0.1", name: str = "") -> Iterator[RealMlflow]:
    """Runs the server at an address of this machine until the end of the block.

    Args:
        name: by which others reach it, e.g. as a Service.
    """
    config, port, log = folder / "auth.ini", folder / "port", folder / "log"
    config.write_text(CONFIG.format(folder=folder))
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGES),
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-a-test",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder / "artifacts"),
    }
    if name:
        environment["MLFLOW_SERVER_ALLOWED_HOSTS"] = f"{host}:*,{name}:*"
    program = Path(__file__).with_name("mlflow_app.py")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(program), host, str(port)], env=environment, cwd=folder, stdout=output, stderr=output
        )
    try:
        while not port.is_file() or not port.read_text():
            if process.poll() is not None:
                raise RuntimeError(f"MLflow did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield RealMlflow(f"http://{host}:{port.read_text()}", secret(folder / "secret"))
    finally:
        process.terminate()
        process.wait()
