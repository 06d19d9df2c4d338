"""Names of Services by a cluster's own name server: CoreDNS next to a real API server, asked as a pod asks it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runs import alone

from hone_dev.cluster import binaries
from hone_dev.tools import tools

pytestmark = pytest.mark.apiserver
ADDRESS = "127.0.0.77"
GUARD_SECONDS = 600.0
OUTSIDE = "172.31.0.1"
COREFILE = """
cluster.local:53 {{
    bind {address}
    kubernetes cluster.local {{
        kubeconfig {kubeconfig}
    }}
}}
.:53 {{
    bind {address}
    hosts {hosts}
}}
"""
SERVING: dict[str, Any] = {"selector": {"app": "judge"}, "ports": [{"port": 80}]}
SERVICES = {
    ("dns-team", "judge"): SERVING,
    ("dns-other", "judge"): SERVING,
    ("dns-team", "alias"): {"type": "ExternalName", "externalName": "judge.dns-team.svc.cluster.local"},
    ("dns-team", "outside"): {"type": "ExternalName", "externalName": "db.example.org"},
    ("dns-team", "stranger"): {"type": "ExternalName", "externalName": "judge.dns-other.svc.cluster.local"},
}
ALLOWED = ["judge", "judge.dns-team.svc", "judge.dns-team.svc.cluster.local", "alias"]
REFUSED = ["outside", "outside.dns-team.svc", "stranger", "stranger.dns-team.svc.cluster.local"]
POD = """
import json, sys
from hone_trainer.endpoints import http
from hone_trainer.endpoints.addresses import AllowedNetwork

def asked(host):
    found = http.resolve(host, 80)
    return [list(found.addresses), AllowedNetwork(namespace="dns-team").refused(f"http://{host}/", found)]

print(json.dumps({host: asked(host) for host in sys.argv[1:]}))
"""


def can_serve_names() -> bool:
    """Whether this user may listen on the port of name servers: a resolver asks no other."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((ADDRESS, 53))
    except OSError:
        return False
    return alone.possible()


@pytest.fixture(scope="module")
def name_server(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The resolv.conf of a pod in namespace dns-team."""
    if not can_serve_names():
        pytest.skip("this user may not listen on port 53, or mount a file over another")
    folder = tmp_path_factory.mktemp("dns")
    namespaces = [{"kind": "Namespace", "metadata": {"name": name}} for name in ("dns-team", "dns-other")]
    services = [
        {"kind": "Service", "metadata": {"namespace": space, "name": name}, "spec": spec}
        for (space, name), spec in SERVICES.items()
    ]
    items = [{"apiVersion": "v1", **body} for body in (*namespaces, *services)]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    kubectl = [tools.kubectl(), "--kubeconfig", apiserver, "apply", "--filename=-"]
    subprocess.run(kubectl, input=manifest, text=True, check=True)
    hosts, config, resolver = (folder / name for name in ("hosts", "Corefile", "resolv.conf"))
    hosts.write_text(f"{OUTSIDE} db.example.org\n")
    config.write_text(COREFILE.format(address=ADDRESS, kubeconfig=apiserver, hosts=hosts))
    search = "dns-team.svc.cluster.local svc.cluster.local cluster.local"
    resolver.write_text(f"nameserver {ADDRESS}\nsearch {search}\noptions ndots:5\n")
    server = subprocess.Popen([binaries.coredns(), "-conf", config])
    try:
        yield resolver
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def answers(name_server: Path) -> dict[str, list[list[str]]]:
    """Addresses of each name, and those that are refused. Until it knows the Services, CoreDNS does not answer."""
    mounts = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    shell = f'mount --bind {name_server} /etc/resolv.conf && exec "$@"'
    command = [*mounts, shell, "sh", sys.executable, "-c", POD, *ALLOWED, *REFUSED]
    end = time.monotonic() + GUARD_SECONDS
    while time.monotonic() < end:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            found: dict[str, list[list[str]]] = json.loads(done.stdout)
            return found
        time.sleep(0.5)
    raise AssertionError(done.stderr)


@pytest.mark.parametrize("host", ALLOWED)
def test_a_service_has_the_address_that_the_cluster_gave_it(answers: dict[str, list[list[str]]], host: str) -> None:
    addresses, refused = answers[host]
    assert len(addresses) == 1
    assert addresses[0].startswith("10.96.")
    assert refused == []


@pytest.mark.parametrize("host", REFUSED)
def test_a_service_of_type_external_name_gives_none(answers: dict[str, list[list[str]]], host: str) -> None:
    addresses, refused = answers[host]
    assert addresses == refused
    assert addresses[0].startswith("10.96." if host.startswith("stranger") else OUTSIDE)
