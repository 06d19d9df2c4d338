"""Traefik on this machine: a gateway that knows HTTPRoutes of the Gateway API, compiled from the Go module proxy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone_dev.cluster.binaries import GO_HINT
from hone_dev.cluster.objectstore import running
from hone_dev.tools import paths
from hone_dev.tools.console import step
from hone_dev.tools.shell import locked, run

TRAEFIK, LEGO, GATEWAY_API = (
    "github.com/traefik/traefik/v3@v3.6.7",
    "github.com/go-acme/lego/v4@v4.31.0",
    "sigs.k8s.io/gateway-api@v1.4.0",
)
CONTROLLER = "traefik.io/gateway-controller"
MODULE = paths.SOURCE / "dev" / "gateway"
"""go.mod with Traefik's own replacements, and a file in place of lego's DNS providers: their modules are hundreds, the
proxy lacks some of them, and this gateway asks nobody for certificates."""


def definitions() -> Path:
    """The folder with the CustomResourceDefinitions of the Gateway API's standard channel."""
    return _module(GATEWAY_API) / "config" / "crd" / "standard"


def traefik() -> Path:
    """The program, built if absent."""
    folder = paths.cache("bin", f"traefik-{TRAEFIK.rpartition('@')[2]}")
    with locked(folder / ".lock"):
        if not (folder / "traefik").exists():
            with step("compiling Traefik (minutes, once)"):
                _build(folder)
    return folder / "traefik"


def _build(folder: Path) -> None:
    source = folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(MODULE, source)
    lego = source / "lego"
    shutil.copytree(_module(LEGO), lego, ignore=lambda at, names: names if at.endswith("/providers/dns") else ())
    shutil.copyfile(MODULE / "dns.go.txt", lego / "providers" / "dns" / "dns.go")
    package = TRAEFIK.partition("@")[0] + "/cmd/traefik"
    argv = ("go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", str(folder / "traefik"), package)
    hint = GO_HINT if not shutil.which("go") else ""
    run(*argv, cwd=source, env={"CGO_ENABLED": "0"}, log=folder / "build.log", hint=hint)
    shutil.rmtree(source)


def _module(name: str) -> Path:
    """The folder of a module of the proxy."""
    return Path(json.loads(run("go", "mod", "download", "-json", name))["Dir"])


@contextmanager
def serve(folder: Path, server: str, authority: Path, token: str, port: int) -> Iterator[str]:
    """Run the gateway on a port of loopback until the block ends; its address.

    Args:
        folder: for its log.
        server: URL of the API server whose routes it follows, as the owner of `token`.
        authority: certificate of the API server's authority.
    """
    argv = [
        str(traefik()),
        f"--entryPoints.web.address=127.0.0.1:{port}",
        "--providers.kubernetesGateway=true",
        f"--providers.kubernetesGateway.endpoint={server}",
        f"--providers.kubernetesGateway.certAuthFilePath={authority}",
        f"--providers.kubernetesGateway.token={token}",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
    ]
    address = f"http://127.0.0.1:{port}"
    with running("the gateway", argv, address, folder, {"HOME": str(folder)}):
        yield address
