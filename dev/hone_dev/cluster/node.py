"""The one node: containerd, kubelet, kube-proxy, scheduler, DNS and volumes, with their configuration."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import yaml

from hone_dev.cluster import binaries, network
from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.outside import QUERY
from hone_dev.cluster.process import Component
from hone_dev.tools import paths
from hone_dev.tools.shell import run

NAME = "hone"
REGISTRY = "127.0.0.1:5571"
PAUSE = "localhost/hone/pause:1"
CGROUP = "hone-dev"
_PORTS = {"kubelet": 10250, "kubelet-health": 10248, "proxy": 10249, "proxy-health": 10256, "scheduler": 10259}


@dataclass(frozen=True)
class Node:
    """The node's components; all their files are under the control plane's folder."""

    plane: ControlPlane

    @property
    def socket(self) -> Path:
        return self.plane.folder / "containerd" / "containerd.sock"

    def _file(self, name: str, text: str) -> Path:
        path = self.plane.folder / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return path

    def _yaml(self, name: str, document: dict[str, Any]) -> Path:
        return self._file(name, yaml.safe_dump(document, sort_keys=False))

    def ctr(self, *argv: str) -> str:
        """Run containerd's own client in Kubernetes' namespace."""
        return run("ctr", "--address", self.socket, "--namespace", "k8s.io", *argv)

    def containerd(self) -> Component:
        self._file("cni/10-hone.conflist", json.dumps(network.cni_config(self.plane.folder)))
        config = self._file(
            "containerd.toml",
            CONTAINERD.format(
                root=paths.cache("containerd"),
                state=self.plane.folder / "containerd",
                socket=self.socket,
                cni=self.plane.folder / "config" / "cni",
                pause=PAUSE,
                restrict=str(not _may_lower_oom_score()).lower(),
            ),
        )

        def ready() -> bool:
            try:
                run("ctr", "--address", self.socket, "version")
            except Exception:
                return False
            return True

        return Component("containerd", ("containerd", "--config", str(config)), ready, (config,))

    def registry(self) -> Component:
        config = self._yaml(
            "registry.yaml",
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(paths.cache("registry"))}, "delete": {"enabled": True}},
                "http": {"addr": REGISTRY},
            },
        )
        return Component(
            "registry",
            ("docker-registry", "serve", str(config)),
            lambda: _answers(f"http://{REGISTRY}/v2/"),
            (config,),
        )

    def kubelet(self) -> Component:
        folder, authority = self.plane.folder, self.plane.authority
        certificate, key = authority.issue("kubelet-server", f"system:node:{NAME}", hosts=(NAME, network.ADDRESS))
        config = self._yaml(
            "kubelet.yaml",
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": network.ADDRESS,
                "port": _PORTS["kubelet"],
                "healthzBindAddress": "127.0.0.1",
                "healthzPort": _PORTS["kubelet-health"],
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": str(authority.certificate)},
                },
                "authorization": {"mode": "Webhook"},
                "tlsCertFile": str(certificate),
                "tlsPrivateKeyFile": str(key),
                "containerRuntimeEndpoint": f"unix://{self.socket}",
                "clusterDomain": "cluster.local",
                "clusterDNS": [network.ADDRESS],
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": f"/{CGROUP}",
                "failCgroupV1": False,
                "failSwapOn": False,
                "podLogsDir": str(folder / "logs" / "pods"),
                "volumePluginDir": str(folder / "kubelet" / "plugins-exec"),
                # A developer's disk is often nearly full; the cluster must not evict because of it.
                "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
                "imageGCHighThresholdPercent": 100,
                "imageGCLowThresholdPercent": 99,
                "maxPods": 200,
                "serializeImagePulls": False,
            },
        )
        argv = (
            f"{binaries.kubernetes()}/kubelet",
            f"--config={config}",
            f"--kubeconfig={self.plane.user(f'system:node:{NAME}', 'system:nodes', file='kubelet')}",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/pki",
            f"--hostname-override={NAME}",
            f"--node-ip={network.ADDRESS}",
            "--node-labels=node.hone.dev/embedded=true",
        )
        health = f"http://127.0.0.1:{_PORTS['kubelet-health']}/healthz"
        return Component("kubelet", argv, lambda: _answers(health), (config,))

    def proxy(self) -> Component:
        config = self._yaml(
            "kube-proxy.yaml",
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "clientConnection": {"kubeconfig": str(self.plane.user("system:kube-proxy"))},
                "mode": "iptables",
                "hostnameOverride": NAME,
                "bindAddress": network.ADDRESS,
                "clusterCIDR": network.POD_CIDR,
                "detectLocalMode": "ClusterCIDR",
                "nodePortAddresses": [network.POD_CIDR],
                "healthzBindAddress": f"127.0.0.1:{_PORTS['proxy-health']}",
                "metricsBindAddress": f"127.0.0.1:{_PORTS['proxy']}",
                "iptables": {"localhostNodePorts": False},
                "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            },
        )
        argv = (f"{binaries.kubernetes()}/kube-proxy", f"--config={config}")
        return Component(
            "kube-proxy", argv, lambda: _answers(f"http://127.0.0.1:{_PORTS['proxy-health']}/livez"), (config,)
        )

    def scheduler(self) -> Component:
        kubeconfig, port = self.plane.user("system:kube-scheduler"), _PORTS["scheduler"]
        certificate, key = self.plane.authority.issue("scheduler-server", "scheduler", hosts=("127.0.0.1",))
        argv = (
            f"{binaries.kubernetes()}/kube-scheduler",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--client-ca-file={self.plane.authority.certificate}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            "--leader-elect=false",
        )
        return Component("kube-scheduler", argv, lambda: self.plane.healthy(f"https://127.0.0.1:{port}/healthz"))

    def dns(self) -> Component:
        upstream = "" if _no_nameserver() else "    forward . /etc/resolv.conf\n"
        kubeconfig = self.plane.user("system:coredns")
        config = self._file(
            "Corefile",
            COREFILE.format(address=network.ADDRESS, kubeconfig=kubeconfig, upstream=upstream, query=QUERY),
        )
        argv = (str(binaries.coredns()), "-conf", str(config))
        return Component("coredns", argv, lambda: _resolves("kubernetes.default.svc.cluster.local"), (config,))

    def provisioner(self) -> Component:
        volumes = self.plane.folder / "volumes"
        volumes.mkdir(parents=True, exist_ok=True)
        argv = (
            f"{binaries.kubernetes()}/hostpath-provisioner",
            f"--kubeconfig={self.plane.user('hone:provisioner')}",
            f"--root={volumes}",
            f"--node={NAME}",
        )
        return Component("hostpath-provisioner", argv, lambda: True)


def _answers(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _resolves(name: str) -> bool:
    """Ask the cluster's DNS for an address, as a pod would."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    query = b"\x48\x4f\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x01\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        try:
            client.sendto(query, (network.ADDRESS, 53))
            answer = client.recv(512)
        except OSError:
            return False
    return answer[3] & 0x0F == 0 and answer[7] > 0  # NOERROR, with an answer


def _no_nameserver() -> bool:
    resolv = Path("/etc/resolv.conf")
    return not resolv.exists() or "nameserver" not in resolv.read_text()


def _may_lower_oom_score() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective, 16) >> 24 & 1)  # CAP_SYS_RESOURCE


CONTAINERD = """\
version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", \
"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = {restrict}
max_concurrent_downloads = 8
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"

[plugins."io.containerd.grpc.v1.cri".containerd]
discard_unpacked_layers = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""

COREFILE = """\
.:53 {{
    bind {address}
    errors
    log . "{query} {{remote}} {{name}}"
{upstream}    cache 5
}}
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 1
    }}
{upstream}    cache 5 {{
        disable success cluster.local
        disable denial cluster.local
    }}
}}
"""
