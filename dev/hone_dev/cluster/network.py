"""The cluster's own network: one bridge, its firewall rules, and taking all of it away again."""

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from hone_dev.tools.shell import run

BRIDGE = "hone0"
ADDRESS = "10.213.0.1"  # of this machine on the bridge: API server, kubelet, DNS
POD_CIDR = "10.213.0.0/24"
SERVICE_CIDR = "10.214.0.0/16"
CLUSTER_CIDR = "10.212.0.0/14"  # around both
SERVICE_ADDRESS = "10.214.0.1"
TABLES = ("iptables", "ip6tables")
COMMENT = ("-m", "comment", "--comment", "hone-dev")
_RULES = (
    ("nat", "POSTROUTING", "-s", POD_CIDR, "!", "-d", POD_CIDR, *COMMENT, "-j", "MASQUERADE"),
    ("filter", "FORWARD", "-i", BRIDGE, *COMMENT, "-j", "ACCEPT"),
    ("filter", "FORWARD", "-o", BRIDGE, *COMMENT, "-j", "ACCEPT"),
)
# What the kubelet, kube-proxy and the bridge plugin set; put back by `cluster down`.
SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def cni_config(folder: Path) -> dict[str, Any]:
    """The bridge plugin's configuration; its address leases are in `folder`."""
    ipam = {
        "type": "host-local",
        "dataDir": str(folder / "cni"),
        "ranges": [[{"subnet": POD_CIDR, "gateway": ADDRESS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "hone", "plugins": [bridge]}


def sysctls() -> dict[str, str]:
    """The kernel settings that the cluster changes, with their present values."""
    present = [name for name in SYSCTLS if Path("/proc/sys", name).exists()]
    return {name: Path("/proc/sys", name).read_text().strip() for name in present}


def exists() -> bool:
    """True when the bridge is there."""
    return Path(f"/sys/class/net/{BRIDGE}").exists()


def foreign_kubernetes() -> bool:
    """True when iptables hold chains of a Kubernetes node that is not ours."""
    if exists() or not shutil.which("iptables-save"):
        return False
    return "KUBE-SERVICES" in run("iptables-save")


def up(folder: Path) -> None:
    """Make bridge, address and rules; what is there already stays."""
    saved = folder / "sysctls.json"
    if not saved.exists():
        saved.write_text(json.dumps(sysctls()))
    with contextlib.suppress(Exception):  # built into many kernels, and then not a module
        run("modprobe", "br_netfilter")
    if not exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
    if ADDRESS not in run("ip", "-4", "addr", "show", "dev", BRIDGE):
        run("ip", "addr", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    for name in ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"):
        Path("/proc/sys", name).write_text("1")
    existing = run("iptables-save")
    for table, chain, *rule in _RULES:
        if not any(chain in line and "hone-dev" in line and rule[1] in line for line in existing.splitlines()):
            run("iptables", "-w", "-t", table, "-I", chain, *rule)


def down(folder: Path) -> None:
    """Take away rules, chains, bridge, address leases; restore the kernel's settings."""
    for table in TABLES:
        if shutil.which(f"{table}-save"):
            rules = run(f"{table}-save")
            if kept := without_ours(rules):
                run(f"{table}-restore", "-w", stdin=kept)
    if exists():
        run("ip", "link", "del", BRIDGE)
    saved = folder / "sysctls.json"
    if saved.exists():
        for name, value in json.loads(saved.read_text()).items():
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(value)


def without_ours(saved: str) -> str:
    """The input for iptables-restore that drops Kubernetes' chains and our rules; empty if none are there.

    The chains are recreated by whoever still needs them: `up` refuses to run next to another
    Kubernetes node.
    """
    ours = re.compile(r"^:KUBE-|^-A KUBE-|-j KUBE-|hone-dev")
    lines = saved.splitlines()
    kept = [line for line in lines if not ours.search(line)]
    return "\n".join(kept) + "\n" if len(kept) < len(lines) else ""
