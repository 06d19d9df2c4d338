"""Taking containers away completely: processes, shims, mounts, control groups."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from hone_dev.cluster.binaries import COMPONENTS
from hone_dev.cluster.node import CGROUP, Node
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run

_CGROUPS = Path("/sys/fs/cgroup")
_PROGRAMS = {*COMPONENTS, "coredns", "containerd", "containerd-shim-runc-v2", "docker-registry"} - {"kubectl"}


def hierarchies() -> list[Path]:
    """The roots where control groups are made: one for version 2, one a controller for version 1."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [
        Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup"
    ]


def make_cgroup(name: str) -> None:
    """Make the control group that holds all pods."""
    for root in hierarchies():
        if (root / "cgroup.subtree_control").exists():
            for controller in (root / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):
                    (root / "cgroup.subtree_control").write_text(f"+{controller}")
        (root / name).mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty until inherited
            own, parent = root / name / file, root / file
            if own.exists() and parent.exists() and not own.read_text().strip():
                own.write_text(parent.read_text())


def _groups(name: str) -> list[Path]:
    """The control group and those below it, deepest first. Runtimes remove some meanwhile: those are left out."""
    # os.walk passes over folders that have gone; rglob of Python 3.11 raises.
    return [Path(folder) for root in hierarchies() for folder, _, _ in os.walk(root / name, topdown=False)]


def _members(name: str) -> set[int]:
    found: set[int] = set()
    for group in _groups(name):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
    return found


def kill_cgroup(name: str) -> None:
    """Kill every process of the pods. Raises HoneDevError if some survive."""
    _kill(lambda: _members(name), "processes of pods")


def kill_processes(state: Path) -> None:
    """Kill what still runs of the cluster, as a shim that containerd has lost. Raises HoneDevError if some survive."""
    _kill(lambda: set(processes(state)), "processes of the cluster")


def _kill(find: Callable[[], set[int]], what: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while pids := find():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise HoneDevError(f"these {what} do not end: {sorted(pids)}", "run `cluster down` again")
        time.sleep(0.1)


def remove_cgroup(name: str) -> None:
    """Remove the emptied control group and those below it."""
    for group in _groups(name):
        with contextlib.suppress(FileNotFoundError):
            group.rmdir()


def forget_containers(node: Node) -> None:
    """Remove containerd's records of containers, so that its kept images carry no dead pods."""
    for task in node.ctr("tasks", "list", "--quiet").split():
        with contextlib.suppress(HoneDevError):
            node.ctr("tasks", "delete", "--force", task)
    for container in node.ctr("containers", "list", "--quiet").split():
        with contextlib.suppress(HoneDevError):
            node.ctr("containers", "delete", container)
    for snapshot in node.ctr("snapshots", "list").splitlines()[1:]:
        key, *_, kind = snapshot.split()
        if kind == "Active":
            with contextlib.suppress(HoneDevError):
                node.ctr("snapshots", "remove", key)


def processes(state: Path) -> dict[int, str]:
    """Pid and command line of the cluster's programs, its container shims and whatever runs in its pods.

    Found by the paths they were given, so that one whose pid file was never written is found too.
    """
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                in_pod = f"/{CGROUP}/" in (folder / "cgroup").read_text()
            except OSError:  # it has ended
                continue
            ours = Path(argv[0]).name in _PROGRAMS and any(f"{state}/" in word for word in argv)
            if in_pod or ours:
                found[int(folder.name)] = " ".join(argv).strip()
    return found


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or under the folder, deepest first."""
    points = [line.split()[4].replace("\\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in points if Path(point).is_relative_to(folder)]
    return sorted(below, key=len, reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything at or under the folder."""
    for point in mounts_below(folder.resolve()):
        run("umount", "--lazy", point)


# Folders that programs of ours make at fixed places, deepest first.
_STRAYS = (
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/run/containerd/s",
    "/run/containerd/runc/k8s.io",
    "/run/containerd/runc",
    "/run/containerd",
)


def remove_strays(state: Path) -> None:
    """Remove what our programs wrote outside `state`, and then the folders that are empty."""
    strays = [link for link in Path("/var/log/containers").glob("*.log") if link.readlink().is_relative_to(state)]
    strays += Path("/var/lib/cni/results").glob("hone-*")
    strays += Path("/var/lib/cni/results").glob("cni-loopback-*")
    strays += Path("/var/lib/kubelet/device-plugins").glob("kubelet*")
    for stray in strays:
        stray.unlink(missing_ok=True)
    for folder in _STRAYS:
        with contextlib.suppress(OSError):  # absent, or not empty: then it is somebody else's
            Path(folder).rmdir()
