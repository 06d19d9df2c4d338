"""etcd, kube-apiserver and kube-controller-manager as kubeadm starts them, for a cluster or a test."""

import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hone_dev.cluster import binaries
from hone_dev.cluster.pki import Authority
from hone_dev.cluster.process import Component, Supervisor

# One line per write, without bodies: enough to replay a crash at every write of a run.
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
- level: None
  resources: [{group: coordination.k8s.io, resources: [leases]}]
- level: Metadata
"""


@dataclass(frozen=True)
class ControlPlane:
    """Addresses, ports and folder of one control plane; `folder` keeps its data, keys and logs."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    controller_port: int = 10257
    service_cidr: str = "10.96.0.0/16"
    service_address: str = "10.96.0.1"  # the first of service_cidr: `kubernetes.default`
    pod_cidr: str | None = None  # None: pods are unreachable; the API server publishes no endpoint
    fsync: bool = False  # the data is worth nothing after a power cut, and this is many times faster
    memory: str = ""  # what the API server's garbage collector tries to stay below, e.g. 2GiB
    garbage: str = ""  # so many percent of what the API server uses may be garbage before it looks for it, e.g. 400
    audit_mib: int = 200  # of the audit log; an older one is renamed then
    controller_qps: int = 20  # requests of each controller to the API server in a second

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def authority(self) -> Authority:
        return Authority(self.folder / "pki")

    @property
    def kubeconfig(self) -> Path:
        return self.user("kubernetes-admin", "system:masters", file="admin")

    @property
    def audit_log(self) -> Path:
        return self.folder / "logs" / "audit.log"

    def user(self, name: str, group: str = "", file: str = "") -> Path:
        """The kubeconfig of one user of this cluster."""
        path = self.folder / "pki" / f"{file or name.split(':')[-1]}.kubeconfig"
        return self.authority.kubeconfig(path, self.server, name, group)

    def healthy(self, url: str) -> bool:
        """True when this https URL answers 200 to the administrator."""
        certificate = self.authority.issue("kubernetes-admin", "kubernetes-admin", "system:masters")
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(*certificate)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def wait_for(self, *kinds: str) -> None:
        """Return when the API server has these, e.g. `apis/argoproj.io/v1alpha1/applications`."""
        for kind in kinds:
            while not self.healthy(f"{self.server}/{kind}"):
                time.sleep(0.1)

    def etcd(self) -> Component:
        certificate, key = self.authority.issue("etcd", "etcd", hosts=("127.0.0.1", "localhost"))
        url, peer = f"https://127.0.0.1:{self.etcd_port}", f"https://127.0.0.1:{self.etcd_peer_port}"
        argv = [
            f"{binaries.kubernetes()}/etcd",
            "--name=hone",
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=hone={peer}",
            "--client-cert-auth",
            f"--trusted-ca-file={self.authority.certificate}",
            f"--cert-file={certificate}",
            f"--key-file={key}",
            "--peer-client-cert-auth",
            f"--peer-trusted-ca-file={self.authority.certificate}",
            f"--peer-cert-file={certificate}",
            f"--peer-key-file={key}",
            "--quota-backend-bytes=4294967296",
            "--auto-compaction-retention=1h",
            "--log-level=warn",
            f"--unsafe-no-fsync={str(not self.fsync).lower()}",
        ]
        return Component("etcd", tuple(argv), lambda: self.healthy(f"{url}/health"))

    def apiserver(self) -> Component:
        authority = self.authority
        services = tuple(f"kubernetes{rest}" for rest in ("", ".default", ".default.svc", ".default.svc.cluster.local"))
        hosts = ("localhost", self.address, self.service_address, *services)
        certificate, key = authority.issue("apiserver", "kube-apiserver", hosts=hosts)
        client, client_key = authority.issue("apiserver-client", "kube-apiserver", "system:masters")
        proxy = Authority(self.folder / "pki" / "front-proxy")
        proxy_certificate, proxy_key = proxy.issue("client", "front-proxy-client")
        token_public, token_key = authority.signing_key("service-accounts")
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(AUDIT_POLICY)
        self.audit_log.parent.mkdir(parents=True, exist_ok=True)
        argv = [
            f"{binaries.kubernetes()}/kube-apiserver",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--endpoint-reconciler-type={'lease' if self.pod_cidr else 'none'}",
            f"--service-cluster-ip-range={self.service_cidr}",
            f"--etcd-servers=https://127.0.0.1:{self.etcd_port}",
            f"--etcd-cafile={authority.certificate}",
            f"--etcd-certfile={client}",
            f"--etcd-keyfile={client_key}",
            "--anonymous-auth=false",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--feature-gates=ImageVolume=true",  # as Kubernetes 1.35 has it
            "--allow-privileged=true",
            f"--client-ca-file={authority.certificate}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--kubelet-certificate-authority={authority.certificate}",
            f"--kubelet-client-certificate={client}",
            f"--kubelet-client-key={client_key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={token_public}",
            f"--service-account-signing-key-file={token_key}",
            "--requestheader-allowed-names=front-proxy-client",
            f"--requestheader-client-ca-file={proxy.certificate}",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={proxy_certificate}",
            f"--proxy-client-key-file={proxy_key}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            f"--audit-log-maxsize={self.audit_mib}",
            "--audit-log-maxbackup=2",
            "--profiling=false",
        ]
        env = {name: value for name, value in (("GOMEMLIMIT", self.memory), ("GOGC", self.garbage)) if value}
        return Component("kube-apiserver", tuple(argv), lambda: self.healthy(f"{self.server}/readyz"), (policy,), env)

    def controller_manager(self) -> Component:
        authority, config = self.authority, self.user("system:kube-controller-manager")
        certificate, key = authority.issue("controller-manager-server", "controller-manager", hosts=("127.0.0.1",))
        argv = [
            f"{binaries.kubernetes()}/kube-controller-manager",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.controller_port}",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={authority.certificate}",
            f"--root-ca-file={authority.certificate}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.private_key}",
            f"--service-account-private-key-file={authority.signing_key('service-accounts')[1]}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            f"--kube-api-qps={self.controller_qps}",
            f"--kube-api-burst={self.controller_qps * 3 // 2}",
            "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
            "--profiling=false",
        ]
        if self.pod_cidr:
            argv += ["--allocate-node-cidrs=true", f"--cluster-cidr={self.pod_cidr}"]
            argv += [f"--service-cluster-ip-range={self.service_cidr}"]
        url = f"https://127.0.0.1:{self.controller_port}/healthz"
        return Component("kube-controller-manager", tuple(argv), lambda: self.healthy(url))


def _free_ports(count: int) -> list[int]:
    """Unused ports of loopback."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextmanager
def control_plane(
    folder: Path,
    controllers: bool = False,
    fsync: bool = False,
    memory: str = "",
    garbage: str = "",
    audit_mib: int = ControlPlane.audit_mib,
    controller_qps: int = ControlPlane.controller_qps,
    addons: Sequence[Callable[["ControlPlane"], Component]] = (),
) -> Iterator[Path]:
    """Run etcd and kube-apiserver (with `controllers` the controller manager too) for the block.

    Needs neither root nor a node: objects are real, pods never run. Listens on free ports of
    loopback, keeps everything under `folder`, yields the administrator's kubeconfig. The audit
    log of writes is `folder`/logs/audit.log. `memory` is the API server's soft limit, e.g. 2GiB; with
    more `garbage` it needs less processor time and more memory. For `audit_mib` and `controller_qps`
    see `ControlPlane`.
    `addons` return further programs to run, e.g. `hone_dev.cluster.kueue.component`.
    """
    folder = folder.resolve()
    port, etcd_port, peer_port, controller_port = _free_ports(4)
    plane = ControlPlane(
        *(folder, "127.0.0.1", port, etcd_port, peer_port, controller_port),
        fsync=fsync,
        memory=memory,
        garbage=garbage,
        audit_mib=audit_mib,
        controller_qps=controller_qps,
    )
    supervisor = Supervisor(folder, outlive_us=False)
    made = [ControlPlane.etcd, ControlPlane.apiserver] + ([ControlPlane.controller_manager] if controllers else [])
    started: list[str] = []
    try:
        for make in (*made, *addons):
            component = make(plane)
            started.append(component.name)
            supervisor.start(component)
            supervisor.wait(component)
        yield plane.kubeconfig
    finally:
        for name in reversed(started):
            supervisor.stop(name)
