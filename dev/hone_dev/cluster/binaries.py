"""The cluster's programs, compiled here from the Go module proxy once per version and cached."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from hone_dev.tools import paths
from hone_dev.tools.console import step
from hone_dev.tools.shell import locked, run

MODULE = paths.SOURCE / "dev" / "cluster"
COREDNS = paths.SOURCE / "dev" / "coredns"
KUEUE = paths.SOURCE / "dev" / "kueue"
VERSITYGW = paths.SOURCE / "dev" / "versitygw"
ARGO_CD = paths.SOURCE / "dev" / "argocd"
FLUX = paths.SOURCE / "dev" / "flux"
TRIVY = paths.SOURCE / "dev" / "trivy"
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
ARGO_CD_PROGRAMS = (
    "argocd-application-controller",
    "argocd-applicationset-controller",
    "argocd-repo-server",
    "kustomize",
    "redis",
    "git-server",
)
# Programs that build from the proxy as they are. Add one line to add one (kwok).
GO_INSTALL = {
    "oras": "oras.land/oras/cmd/oras@v1.3.6",
}
# For `make audit` and `make release`, and compiled by them alone.
GO_INSTALL_FOR_AUDIT = {
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
    "kube-score": "github.com/zegl/kube-score/cmd/kube-score@v1.20.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    "syft": "github.com/anchore/syft/cmd/syft@v1.57.2",
}
GO_HINT = "install Go 1.24 or newer (https://go.dev/doc/install) and put it on PATH"


def kubernetes() -> Path:
    """The folder with etcd, the Kubernetes components and kubectl, built if absent."""
    folder = _folder_of(MODULE)
    binary = folder / "kube"
    with locked(folder / ".lock"):
        if not binary.exists():
            with step(f"compiling Kubernetes {KUBERNETES} (about 7 minutes, once)"):
                _build(folder, binary)
        _link(folder, COMPONENTS, "kube")
    return folder


def coredns() -> Path:
    """The path of CoreDNS, built if absent; after Kubernetes, whose compiled packages are most of it."""
    kubernetes()
    return _compiled(COREDNS, "coredns", "CoreDNS (seconds, once)")


def kueue() -> Path:
    """The path of Kueue's manager, built if absent; after Kubernetes, as CoreDNS."""
    kubernetes()
    return _compiled(KUEUE, "kueue", "Kueue (half a minute, once)", "sigs.k8s.io/kueue/cmd/kueue")


def versitygw() -> Path:
    """The path of Versity's S3 gateway over a folder, built if absent."""
    return _compiled(VERSITYGW, "versitygw", "the S3 server of the tests (a minute, once)")


def argo_cd() -> Path:
    """The folder with the parts of Argo CD and what they need, built if absent."""
    folder = _compiled(ARGO_CD, "argocd", "Argo CD (about 7 minutes, once)").parent
    _link(folder, ARGO_CD_PROGRAMS, "argocd")
    return folder


def flux_controller(name: str) -> Path:
    """The path of a controller of Flux, built if absent."""
    return _compiled(FLUX, name, f"Flux's {name} (about 6 minutes, once)", f"github.com/fluxcd/{name}")


def source(module: Path, package: str) -> Path:
    """The folder with the sources of a Go module, at the version in the go.mod of one of ours."""
    download = run("go", "mod", "download", "-json", package, cwd=module, hint=GO_HINT)
    return Path(json.loads(download)["Dir"])


def kstatus() -> Path:
    """The path of a program that prints what Flux's kstatus says of objects, built if absent."""
    return _compiled(FLUX, "kstatus", "kstatus (about a minute, once)")


def trivy() -> Path:
    """The path of a program that prints what Trivy's checks say of a file, built if absent."""
    return _compiled(TRIVY, "trivy", "Trivy's checks (about 4 minutes, once)", experiment="jsonv2")


def _compiled(module: Path, name: str, about: str, package: str = ".", experiment: str = "") -> Path:
    folder = _folder_of(module)
    with locked(folder / ".lock"):
        if not (folder / name).exists():
            with step(f"compiling {about}"):
                _go_build(module, folder, folder / name, "-s -w", package, experiment)
    return folder / name


def _link(folder: Path, names: Sequence[str], binary: str) -> None:
    """One program that does what it is called by."""
    for name in names:
        with suppress(FileExistsError):
            (folder / name).symlink_to(binary)


def _folder_of(module: Path) -> Path:
    """The folder of the cache for what this module's sources build."""
    digest = hashlib.sha256()
    for source in [*sorted(module.glob("*.go")), module / "go.mod", module / "go.sum"]:
        digest.update(source.read_bytes())
    return paths.cache("bin", digest.hexdigest()[:16])


def _build(folder: Path, binary: Path) -> None:
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    version = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in version.items())
    _go_build(MODULE, folder, binary, f"-s -w {flags}")


def _go_build(module: Path, folder: Path, binary: Path, flags: str, package: str = ".", experiment: str = "") -> None:
    partial = binary.with_suffix(".partial")
    # Without -trimpath: by it, a package of a module that go.mod replaces is compiled again.
    argv = ["go", "build", "-buildvcs=false", "-ldflags", flags, "-o", str(partial), package]
    run(
        *argv,
        cwd=module,
        log=folder / "build.log",
        env={"CGO_ENABLED": "0", "GOEXPERIMENT": experiment},
        hint=GO_HINT if not shutil.which("go") else "",
    )
    partial.rename(binary)


def program(name: str) -> Path:
    """The path of a program of GO_INSTALL or GO_INSTALL_FOR_AUDIT, built if absent."""
    package = {**GO_INSTALL, **GO_INSTALL_FOR_AUDIT}[name]
    path, version = package.split("@")
    folder = paths.cache("bin", f"{name}-{version}")
    with locked(folder / ".lock"):
        if not (folder / name).exists():
            with step(f"compiling {package}"):
                run(
                    *("go", "install", "-ldflags", "-s -w", package),
                    env={"GOBIN": str(folder), "CGO_ENABLED": "0"},
                    log=folder / "build.log",
                    hint=GO_HINT if not shutil.which("go") else "",
                )
            if (installed := folder / PurePosixPath(path).name) != folder / name:
                installed.rename(folder / name)
    return folder / name
