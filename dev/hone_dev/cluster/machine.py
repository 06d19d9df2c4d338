"""What the cluster may touch on this machine, as a snapshot that two moments can be compared by."""

import shutil
from pathlib import Path

from hone_dev.cluster import cleanup, network
from hone_dev.tools import paths
from hone_dev.tools.shell import run

Snapshot = dict[str, list[str]]
# Folders outside our own that the kubelet, containerd or the network plugins write to.
_FOLDERS = ("/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers", "/var/log/pods")


def snapshot() -> Snapshot:
    """Processes of ours, mounts, interfaces, firewall rules, control groups, kernel settings, stray files."""
    return {
        "processes": sorted(cleanup.processes(paths.state()).values()),
        "mounts": sorted(cleanup.mounts_below(Path("/"))),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "iptables": [rule for table in network.TABLES for rule in _rules(table)],
        "cgroups": sorted(str(path) for root in cleanup.hierarchies() for path in root.glob("*/")),
        "sysctls": [f"{name}={value}" for name, value in network.sysctls().items()],
        "files": sorted(str(path) for folder in _FOLDERS for path in Path(folder).glob("*")),
    }


def difference(before: Snapshot, after: Snapshot) -> Snapshot:
    """What `after` has more, by kind; empty if nothing."""
    more = {kind: sorted(set(after[kind]) - set(before[kind])) for kind in after}
    return {kind: items for kind, items in more.items() if items}


def _rules(table: str) -> list[str]:
    """Rules and own chains; the built-in chains of a table that was once used stay for good."""
    if not shutil.which(f"{table}-save"):
        return []
    lines = run(f"{table}-save").splitlines()
    return sorted(f"{table} {line}" for line in lines if line.startswith("-A") or (line[:1] == ":" and " - " in line))
