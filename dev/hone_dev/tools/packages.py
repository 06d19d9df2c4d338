"""The Debian packages the cluster needs, installed without starting any service."""

import os
import shutil
import sys
from pathlib import Path

from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked, run

# package: a file that shows that it is there
CLUSTER = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "conntrack": "/usr/sbin/conntrack",
    "docker-registry": "/usr/bin/docker-registry",
    "iproute2": "/usr/sbin/ip",
    "procps": "/usr/sbin/sysctl",
    "gcc": "/usr/bin/gcc",
    "libc6-dev": "/usr/include/stdlib.h",
}
IMAGES = {
    "buildah": "/usr/bin/buildah",
    "netavark": "/usr/lib/podman/netavark",
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "docker-registry": "/usr/bin/docker-registry",
}
PROMETHEUS = {"prometheus": "/usr/bin/prometheus"}
BROWSER = {"chromium": "/usr/bin/chromium", "chromium-driver": "/usr/bin/chromedriver"}
NPM = {"npm": "/usr/bin/npm"}
SHELLS = {"zsh": "/usr/bin/zsh", "fish": "/usr/bin/fish"}


def require_root() -> None:
    """Raise HoneDevError where the embedded cluster cannot run."""
    if sys.platform != "linux":
        raise HoneDevError(
            "the embedded cluster runs on Linux only",
            "use a cluster you have: make demo CLUSTER=current, or CLUSTER=kind",
        )
    if os.geteuid() != 0:
        raise HoneDevError(
            "the embedded cluster needs root: it runs containers and sets up a network",
            "run it as root (sudo -E make …), or use a cluster you have: make demo CLUSTER=current",
        )


def ensure(packages: dict[str, str]) -> None:
    """Install those of `packages` that are absent. Raises HoneDevError where that is impossible."""
    missing = [name for name, file in packages.items() if not Path(file).exists()]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise HoneDevError(
            f"these programs are missing: {', '.join(missing)}",
            "they are installed by themselves on Debian 12; elsewhere install them with your package manager",
        )
    require_root()
    with step(f"installing Debian packages: {' '.join(missing)}"), _services_off():
        log = paths.cache("logs") / "apt.log"
        run("apt-get", "update", log=log)
        apt = ("apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")
        run(*apt, *missing, env={"DEBIAN_FRONTEND": "noninteractive"}, log=log)


class _services_off:  # noqa: N801 - reads as the statement it is
    """Packages must not start their services: policy-rc.d says no while we install."""

    def __enter__(self) -> None:
        self._lock = locked(paths.cache("logs") / "apt.lock")
        self._lock.__enter__()
        self._policy = Path("/usr/sbin/policy-rc.d")
        self._ours = not self._policy.exists()
        if self._ours:
            self._policy.write_text("#!/bin/sh\nexit 101\n")
            self._policy.chmod(0o755)

    def __exit__(self, *exc: object) -> None:
        if self._ours:
            self._policy.unlink(missing_ok=True)
        self._lock.__exit__(None, None, None)
