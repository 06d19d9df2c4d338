"""Names of Services as a pod resolves them: the system's resolver, a name server, servers at private addresses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import alone

pytestmark = pytest.mark.trainer
RECORDS = {
    "judge.team.svc.cluster.local": "10.96.0.9",
    "pod-0.judge.team.svc.cluster.local": "10.244.1.7",
    "alias.team.svc.cluster.local": "judge.team.svc.cluster.local",
    "grade.tenant-b.svc.cluster.local": "10.96.0.10",
    "evil.example.org": "172.31.0.1",
    "router.corp.internal": "192.168.7.7",
    "node.team.svc.cluster.local": "evil.example.org",
    "stranger.team.svc.cluster.local": "grade.tenant-b.svc.cluster.local",
    "chain.team.svc.cluster.local": "alias2.example.org",
    "alias2.example.org": "evil.example.org",
}
"""What a cluster's name server says: addresses of Services and pods; a CNAME for a Service of type ExternalName."""
TAKEN = ["judge", "judge.team.svc", "judge.team.svc.cluster.local", "pod-0.judge.team.svc", "alias"]
REFUSED = {
    "node": "evil.example.org",
    "node.team.svc": "evil.example.org",
    "node.team.svc.cluster.local": "evil.example.org",
    "stranger": "grade.tenant-b.svc.cluster.local",
    "chain": "evil.example.org",
    "router": "router.corp.internal",
}
"""Names that a tenant writes, and the names by which the resolver knows their private addresses."""
RESOLVER = "nameserver 127.0.0.1\nsearch team.svc.cluster.local svc.cluster.local cluster.local corp.internal\n"
POD = """
import http.server, json, sys, threading
from support.servers import name_server
from hone_trainer.endpoints.addresses import AllowedNetwork
from hone_trainer.endpoints.client import Access, Endpoint
from hone_trainer.errors import SourceError

class Models(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": self.connection.getsockname()[0]}]}).encode())

    def log_message(self, *_):
        pass

def ask(host):
    try:
        return Endpoint(f"http://{host}:8080/v1", Access(AllowedNetwork(namespace="team"))).first_model()
    except SourceError as error:
        return f"{error.code}: {error.message}"

records, hosts = json.loads(sys.argv[1])
name_server.serve(records)
server = http.server.ThreadingHTTPServer(("", 8080), Models)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({host: ask(host) for host in hosts}))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Who answered each name, or why nobody was asked, in a network where every private address is a server."""
    if not alone.possible():
        pytest.skip("this machine allows no network namespace")
    resolver = tmp_path_factory.mktemp("pod") / "resolv.conf"
    resolver.write_text(f"{RESOLVER}options ndots:5\n")
    addresses = [value for value in RECORDS.values() if value[0].isdigit()]
    setup = ["ip link set lo up", f"mount --bind {resolver} /etc/resolv.conf"]
    setup += [f"ip address add {address}/32 dev lo" for address in addresses]
    shell = " && ".join([*setup, 'exec "$@"'])
    namespaces = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", shell, "sh"]
    given = json.dumps([RECORDS, [*TAKEN, *REFUSED]])
    tests = Path(alone.__file__).parents[2]
    done = subprocess.run(
        [*namespaces, sys.executable, "-c", POD, given], cwd=tests, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("host", TAKEN)
def test_a_service_of_the_own_namespace_answers(answers: dict[str, str], host: str) -> None:
    assert answers[host] == ("10.244.1.7" if host.startswith("pod-0") else "10.96.0.9")


@pytest.mark.attack("addresses")
@pytest.mark.parametrize("host", REFUSED)
def test_an_external_name_leads_to_no_private_address(answers: dict[str, str], host: str) -> None:
    assert answers[host].startswith(f"SourceRefused: {host} has the address ")
    assert f"the name server resolves it as {REFUSED[host]}, which is not a Service" in answers[host]
