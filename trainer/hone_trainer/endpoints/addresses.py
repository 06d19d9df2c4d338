"""Which IP addresses a download, an endpoint or a Service of the cluster may have."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from hone_api.plan import NetworkPlan, TrainingPlan

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PUBLIC_6 = ipaddress.ip_network("2000::/3")
"""The only IPv6 space that IANA has allocated as global unicast."""
_PRIVATE_6 = ipaddress.ip_network("fc00::/7")
_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's WireServer
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata service
        "192.88.99.0/24",  # relays from IPv6 to IPv4, deprecated
        "2001::/23",  # protocol assignments: Teredo, ORCHID; younger Pythons take parts of it for public
        "3fff::/20",  # documentation; younger than this Python's list
        "fd00:ec2::/32",  # metadata service of AWS
        "fd20:ce::/32",  # of Google Cloud
    )
]
"""These look public or private to `ipaddress`, but lead to a machine's or cloud's own services."""
PRIVATE_WAY_OUT = (
    "for a server in your own network, run validate with --allow-private-addresses; in a cluster its administrator sets"
    " limits.allowPrivateAddresses of the chart"
)


def is_allowed(address: str, allow_private: bool = False, allow_loopback: bool | None = None) -> bool:
    """Whether a connection may go to this address.

    Public unicast addresses are allowed; private and loopback ones if requested (loopback by default like private).
    Link-local ones (metadata services of clouds) never are. An embedded IPv4 address is checked like a plain one.
    """
    loopback = allow_private if allow_loopback is None else allow_loopback
    return all(_allowed(one, allow_private, loopback) for one in _forms(address))


def is_own(host: str) -> bool:
    """Whether a host is this machine or in its network, judged by name or number only."""
    try:
        return not is_allowed(host) and is_allowed(host, allow_private=True)
    except ValueError:
        return host == "localhost"


def _forms(address: str) -> list[Address]:
    ip = ipaddress.ip_address(address.split("%")[0])
    if not isinstance(ip, ipaddress.IPv6Address):
        return [ip]
    inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    embedded = [one for one in inner if one is not None]
    return [*embedded] if ip.ipv4_mapped or ip in _NAT64 else [ip, *embedded]


def _allowed(address: Address, allow_private: bool, allow_loopback: bool) -> bool:
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    if address.is_loopback:
        return allow_loopback
    if any(address in network for network in _NEVER):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address not in _PUBLIC_6:
        return allow_private and address in _PRIVATE_6
    return address.is_global or (allow_private and address.is_private)


def in_cluster(url: str, cluster_domain: str) -> bool:
    """Whether the host is a Service by its name: no public host has such a name, and a number is an address."""
    return _service(url, cluster_domain) is not None


def _service(url: str, cluster_domain: str) -> tuple[str, str | None] | None:
    """Name and namespace of the Service that a URL names; namespace None means the pod's own. None: not a Service."""
    host = str(urlsplit(url).hostname or "").rstrip(".")
    for ending in (".svc", f".svc.{cluster_domain}"):
        if host.endswith(ending):
            name, _, namespace = host.removesuffix(ending).rpartition(".")
            return (name, namespace) if name else (namespace, None)
    if host != "localhost" and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", host):
        return host, None
    return None


def _matches(pattern: str, name: str, namespace: str) -> bool:
    """Whether name and namespace both match their part of a pattern name.namespace.

    They are compared separately: a pod's name has dots, and `judge.team-*` must not match the pod `judge` of a Service
    `team-x` in some other namespace.
    """
    of_name, _, of_namespace = pattern.rpartition(".")
    return fnmatch.fnmatchcase(name, of_name) and fnmatch.fnmatchcase(namespace, of_namespace)


@dataclass(frozen=True)
class Resolution:
    """The name server's answer for a host name.

    Args:
        canonical_name: the name that has the addresses, after every CNAME and with its search domain; empty if unknown.
    """

    addresses: Sequence[str]
    canonical_name: str = ""


@dataclass(frozen=True)
class AllowedNetwork:
    """The destinations that the platform allows a pod.

    Whoever may write Services in a namespace can point one of type ExternalName, which is a CNAME, at any host. So a
    Service's name allows a private address only if the canonical name is a Service of its namespace; for those the
    cluster's name server returns only addresses of Services and pods.

    Args:
        allow_private: whether any host may have a private or loopback address.
        by_name: whether a Service's name allows it a private address; False where only public hosts are meant.
        namespace: the pod's; None if unknown, as on a laptop and in old plans, so that any Service may be named.
        services: Services of other namespaces that may be named, as name.namespace with * for any characters.
        cidrs: networks of Services and pods; empty: any address that the name server returns.
    """

    allow_private: bool = False
    cluster_domain: str = "cluster.local"
    namespace: str | None = None
    services: Sequence[str] = ()
    cidrs: Sequence[str] = ()
    by_name: bool = True

    def plain(self, url: str) -> bool:
        """Whether http:// is acceptable: for Services, and if the platform trusts its whole network."""
        return self.allow_private or in_cluster(url, self.cluster_domain)

    def problem(self, url: str) -> str | None:
        """Why no connection to this URL's host is allowed, whatever its address; None if it is allowed."""
        service = _service(url, self.cluster_domain)
        if service is None or self.allow_private or self._is_own(service) or self.is_listed(url):
            return None
        return (
            f"{urlsplit(url).hostname} is a Service of another namespace: name one of this namespace, or have "
            f"{'.'.join(map(str, service))} added to limits.services of the chart"
        )

    def refusal(self, url: str, resolution: Resolution) -> str | None:
        """Why no connection to the addresses of the URL's host is allowed; None if it is allowed."""
        host = urlsplit(url).hostname
        if not resolution.addresses:
            return f"{host} has no address"
        refused = self.refused(url, resolution)
        if not refused:
            return None
        message = f"{host} has the address {', '.join(refused)}, which is not public"
        if not self._may_be_a_service(url):
            return f"{message}; {PRIVATE_WAY_OUT}" if all(map(is_own, refused)) else message
        if self._stays_in_namespace(url, resolution):
            return message
        return (
            f"{message}: the name server resolves it as {resolution.canonical_name or '(no name)'}, which is not a "
            f"Service below {self._zone(url)}. Name a Service that selects pods, not one of type ExternalName"
        )

    def refused(self, url: str, resolution: Resolution) -> list[str]:
        """The host's addresses that are not allowed."""
        return [address for address in resolution.addresses if not self._permits(url, resolution, address)]

    def shows_words(self, url: str, resolution: Resolution) -> bool:
        """Whether a message may quote the server: only what the tenant could also read without this pod."""
        return self.allow_private or self.is_listed(url) or all(is_allowed(address) for address in resolution.addresses)

    def is_listed(self, url: str) -> bool:
        """Whether limits.services names the Service."""
        service = _service(url, self.cluster_domain)
        if service is None:
            return False
        return any(_matches(pattern, service[0], service[1] or str(self.namespace)) for pattern in self.services)

    def _is_own(self, service: tuple[str, str | None]) -> bool:
        return self.namespace is None or service[1] in (None, self.namespace)

    def _permits(self, url: str, resolution: Resolution, address: str) -> bool:
        if not self._may_be_a_service(url):
            return is_allowed(address, self.allow_private)
        if not is_allowed(address, allow_private=self._stays_in_namespace(url, resolution), allow_loopback=False):
            return False
        networks = [ipaddress.ip_network(text) for text in self.cidrs]
        return not networks or any(one in network for one in _forms(address) for network in networks)

    def _may_be_a_service(self, url: str) -> bool:
        """Whether the host is checked by the rules for Services instead of those for public hosts."""
        return not self.allow_private and self.by_name and in_cluster(url, self.cluster_domain)

    def _stays_in_namespace(self, url: str, resolution: Resolution) -> bool:
        """Whether the addresses belong to a Service of the namespace that the URL names."""
        zone = self._zone(url)
        return zone is None or resolution.canonical_name.rstrip(".").lower().endswith(f".{zone}")

    def _zone(self, url: str) -> str | None:
        """The suffix of canonical names of the namespace's Services; None if the namespace is unknown."""
        service = _service(url, self.cluster_domain)
        namespace = (service[1] if service else None) or self.namespace
        return f"{namespace}.svc.{self.cluster_domain}".lower() if namespace else None


def network_of(plan: NetworkPlan | TrainingPlan) -> AllowedNetwork:
    """The destinations that a plan's sources, endpoints, deliveries and imports may have."""
    bounds = plan.limits if isinstance(plan, NetworkPlan) else plan
    return AllowedNetwork(
        bounds.allow_private_addresses, plan.cluster_domain, plan.namespace, bounds.services, bounds.cluster_cidrs
    )
