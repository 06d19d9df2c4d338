"""The cluster's programs, compiled here from the Go module proxy once per version and cached."""

import hashlib
import shutil
from pathlib import Path

from hone_dev import paths
from hone_dev.console import step
from hone_dev.shell import locked, run

MODULE = paths.SOURCE / "dev" / "cluster"
KUBERNETES = "v1.34.4"
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
    "hostpath-provisioner",
)
# Programs that build from the proxy as they are. Add one line to add one (kwok).
GO_INSTALL = {
    "coredns": "github.com/coredns/coredns@v1.12.4",
    "kueue": "sigs.k8s.io/kueue/cmd/kueue@v0.17.0",
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
}
GO_HINT = "install Go 1.24 or newer (https://go.dev/doc/install) and put it on PATH"


def kubernetes() -> Path:
    """The folder with etcd, the Kubernetes components and kubectl, built if absent."""
    digest = hashlib.sha256()
    for source in [*sorted(MODULE.glob("*.go")), MODULE / "go.mod", MODULE / "go.sum"]:
        digest.update(source.read_bytes())
    folder = paths.cache("bin", digest.hexdigest()[:16])
    binary = folder / "kube"
    with locked(folder / ".lock"):
        if not binary.exists():
            with step(f"compiling Kubernetes {KUBERNETES} (about 7 minutes, once)"):
                _build(folder, binary)
        for name in COMPONENTS:
            link = folder / name
            if not link.is_symlink():
                link.symlink_to("kube")
    return folder


def _build(folder: Path, binary: Path) -> None:
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    version = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in version.items())
    partial = folder / "kube.partial"
    argv = ["go", "build", "-buildvcs=false", "-trimpath", "-ldflags", f"-s -w {flags}", "-o", str(partial), "."]
    run(
        *argv,
        cwd=MODULE,
        log=folder / "build.log",
        env={"CGO_ENABLED": "0"},
        hint=GO_HINT if not shutil.which("go") else "",
    )
    partial.rename(binary)


def program(name: str) -> Path:
    """The path of a program of GO_INSTALL, built if absent."""
    package = GO_INSTALL[name]
    folder = paths.cache("bin", package.rsplit("/", 1)[1].replace("@", "-"))
    with locked(folder / ".lock"):
        if not (folder / name).exists():
            with step(f"compiling {package}"):
                run(
                    *("go", "install", "-trimpath", "-ldflags", "-s -w", package),
                    env={"GOBIN": str(folder), "CGO_ENABLED": "0"},
                    log=folder / "build.log",
                    hint=GO_HINT if not shutil.which("go") else "",
                )
    return folder / name
