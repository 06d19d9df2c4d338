"""What pods look for outside the cluster: names that they ask its DNS for, addresses that they send to."""

import ipaddress
import re
from pathlib import Path

from hone_dev.cluster import network
from hone_dev.tools import paths
from hone_dev.tools.shell import run

QUERY = "outside query"
"""Begins the lines of CoreDNS's log that name what is not of the cluster."""
_LIST = "hone-outside"
_SEEN = Path("/proc/net/xt_recent", _LIST)
_NAME = re.compile(rf"{QUERY} \S+ (\S+)")
_RESERVED = (".example.", ".invalid.", ".test.", ".localhost.")
"""Names that belong to nobody (RFC 6761), which tests ask for on purpose."""
_SHORT = ".svc."
"""A Service without the cluster's domain, which a pod asks for where the whole name does not exist."""
_DOCUMENTATION = ipaddress.ip_network("198.51.100.0/24")
"""Addresses that belong to nobody (RFC 5737)."""


def watch() -> None:
    """From now on, note the addresses outside of cluster and machine that pods send to, until the cluster goes down."""
    if _LIST not in run("iptables-save", "-t", "mangle"):
        packets = ("-i", network.BRIDGE, "-s", network.POD_CIDR, "!", "-d", network.CLUSTER_CIDR)
        noted = ("-m", "addrtype", "--dst-type", "UNICAST", "-m", "recent", "--name", _LIST, "--rdest", "--set")
        run("iptables", "-w", "-t", "mangle", "-A", "PREROUTING", *packets, *noted, *network.COMMENT)


def log_size() -> int:
    """Where the log of the cluster's DNS ends."""
    return _log().stat().st_size if _log().exists() else 0


def names(since: int = 0) -> set[str]:
    """What the log has after this place, reserved names included."""
    text = _log().read_bytes() if _log().exists() else b""
    return set(_NAME.findall(text[since:].decode(errors="replace")))


def addresses() -> set[str]:
    """Those that were noted, documentation included."""
    text = _SEEN.read_text() if _SEEN.exists() else ""
    return set(re.findall(r"^src=(\S+)", text, re.MULTILINE))


def asked(since: int = 0) -> list[str]:
    """Names and addresses of somebody; the noted addresses are forgotten."""
    found = {each for each in names(since) if not each.lower().endswith((*_RESERVED, _SHORT))}
    found |= {each for each in addresses() if ipaddress.ip_address(each) not in _DOCUMENTATION}
    if _SEEN.exists():
        _SEEN.write_text("/")
    return sorted(found)


def _log() -> Path:
    return paths.state() / "logs" / "coredns.log"
