"""The embedded cluster: real Kubernetes on this machine, up and down."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hone_dev.cluster import binaries, cleanup, kueue, network, pause
from hone_dev.cluster.controlplane import ControlPlane
from hone_dev.cluster.node import CGROUP, NAME, PAUSE, Node
from hone_dev.cluster.process import Component, Supervisor
from hone_dev.tools import packages, paths, side_by_side
from hone_dev.tools.console import HoneDevError, note, step
from hone_dev.tools.shell import locked, run
from hone_dev.tools.side_by_side import Part

ADDRESS = network.ADDRESS  # where pods reach a server of this machine
# The order of starting; `down` goes the other way.
NAMES = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "containerd",
    "registry",
    "coredns",
    "hostpath-provisioner",
    "kubelet",
    "kube-proxy",
)


def _plane() -> ControlPlane:
    return ControlPlane(
        paths.state(),
        address=network.ADDRESS,
        port=6443,
        etcd_port=23790,
        etcd_peer_port=23800,
        service_cidr=network.SERVICE_CIDR,
        service_address=network.SERVICE_ADDRESS,
        pod_cidr=network.POD_CIDR,
        memory="1GiB",  # until then it looks for garbage less often, which takes processor time
        garbage="400",
    )


def kubeconfig_path() -> Path:
    """The administrator's kubeconfig; exists while the cluster does."""
    return paths.state() / "pki" / "admin.kubeconfig"


def kubeconfig_of(user: str) -> Path:
    """The kubeconfig of a person, who has a certificate of this cluster's authority and no rights by themselves."""
    return _plane().user(user)


def audit_log() -> Path:
    """The API server's log of every write, one JSON object a line."""
    return paths.state() / "logs" / "audit.log"


def kubectl(*argv: str, stdin: str | None = None) -> str:
    """Run kubectl against the embedded cluster and return its output."""
    binary = binaries.kubernetes() / "kubectl"
    return run(binary, "--kubeconfig", kubeconfig_path(), *argv, stdin=stdin)


def is_up() -> bool:
    """True when every component runs, each add-on among them, and the node is Ready."""
    supervisor = Supervisor(paths.state())
    if not all(supervisor.pid(name) for name in (*NAMES, *_added())):
        return False
    return _node_ready()


def _node_ready() -> bool:
    try:
        node = json.loads(kubectl("get", "node", NAME, "--output=json"))
    except HoneDevError:
        return False
    return any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])


ADDONS: dict[str, Callable[[ControlPlane], Component]] = {
    "kueue": partial(kueue.component, port=9444, health_port=9445),
}
"""What can be added to the cluster, by name."""


def _added() -> set[str]:
    """The add-ons of this cluster. Their webhooks are in its etcd: while one does not run, Jobs are refused."""
    return {name for name in ADDONS if (paths.state() / name).exists()}


def up(extra: Sequence[Part] = (), addons: Sequence[str] = ()) -> Path:
    """Bring the cluster up, or restart the parts that are not running; return the kubeconfig.

    Can be called and interrupted at any time.

    Args:
        addons: names of `ADDONS`; an add-on stays until the cluster goes down.
        extra: parts that need no cluster; they are built in parallel with the cluster's programs. Skipped if the
            cluster is already up.
    """
    packages.require_root()
    state = paths.state()
    with locked(paths.cache("locks") / "cluster.lock"):
        if is_up():
            _add(addons)
            note(f"the embedded cluster is up: {kubeconfig_path()}")
            return kubeconfig_path()
        packages.ensure(packages.CLUSTER)
        if network.foreign_kubernetes():
            raise HoneDevError(
                "another Kubernetes node runs on this machine",
                "stop it first, or use that cluster: make demo CLUSTER=current",
            )
        addons = sorted({*addons, *_added()})
        side_by_side.run([*programs(), *(Part(name, binaries.kueue) for name in addons), *extra])
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _start_everything(Supervisor(state), _plane(), pause.archive())
        _add(addons)
    note(f"the embedded cluster is up: export KUBECONFIG={kubeconfig_path()}")
    return kubeconfig_path()


def _add(addons: Sequence[str]) -> None:
    supervisor = Supervisor(paths.state())
    for name in addons:
        with step(name):
            (paths.state() / name).mkdir(exist_ok=True)
            component = ADDONS[name](_plane())
            supervisor.start(component)
            supervisor.wait(component)


def programs() -> list[Part]:
    """The programs of the cluster; those that are absent are compiled."""
    return [
        Part("Kubernetes and CoreDNS", binaries.coredns),
        Part("the pause image", pause.archive),
    ]


def _start_everything(supervisor: Supervisor, plane: ControlPlane, pause_archive: Path) -> None:
    node = Node(plane)

    def run_all(*components: Component) -> None:
        for component in components:
            supervisor.start(component)
        for component in components:
            supervisor.wait(component)

    with step("network"):
        network.up(plane.folder)
    with step("control plane"):
        run_all(plane.etcd())
        run_all(plane.apiserver(), node.containerd(), node.registry())
        run_all(plane.controller_manager(), node.scheduler())
        _until(lambda: bool(plane.kubeconfig.exists()), "kubeconfig")
        _retry(lambda: kubectl("apply", "--filename", str(Path(__file__).with_name("addons.yaml"))))
    with step("node"):
        if PAUSE not in node.ctr("images", "list", "--quiet"):
            node.ctr("images", "import", str(pause_archive))
        cleanup.make_cgroup(CGROUP)
        run_all(node.kubelet(), node.proxy(), node.provisioner())
        _until(_node_ready, "the node is not Ready")
    with step("cluster DNS"):
        run_all(node.dns())
    _until(lambda: "default" in kubectl("get", "serviceaccount", "--output=name"), "no default service account")


def _until(condition: Callable[[], bool], otherwise: str, timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise HoneDevError(f"{otherwise} after {timeout:.0f} s", f"the logs are in {paths.state() / 'logs'}")
        time.sleep(0.2)


def _retry(action: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            action()
            return
        except HoneDevError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def down() -> None:
    """Stop the cluster and take away its processes, mounts, network and data; keep the caches.

    Kept under the cache folder: compiled programs, the registry's and containerd's images.
    """
    packages.require_root()
    state = paths.state()
    with locked(paths.cache("locks") / "cluster.lock"):
        if not state.exists() and not network.exists():
            note("the embedded cluster is not running")
            return
        supervisor, node = Supervisor(state), Node(_plane())
        with step("stopping Kubernetes"):
            for name in ("kubelet", "kube-proxy", "hostpath-provisioner", "kube-scheduler", "kube-controller-manager"):
                supervisor.stop(name)
        with step("stopping containers"):
            cleanup.kill_cgroup(CGROUP)
            if supervisor.pid("containerd"):
                cleanup.forget_containers(node)
        with step("stopping the control plane"):
            for name in (*reversed(NAMES), *supervisor.names()):  # also what others started in it
                supervisor.stop(name)
            cleanup.kill_processes(state)
        with step("removing mounts, network and data"):
            cleanup.unmount_below(state)
            cleanup.unmount_below(paths.cache("containerd"))
            cleanup.remove_cgroup(CGROUP)
            network.down(state)
            cleanup.remove_strays(state)
            shutil.rmtree(state)
    note(f"the embedded cluster is gone; its caches stay in {paths.cache()} (`make clean` frees the disk)")


def clean() -> None:
    """Remove all caches: programs, images, models. They are made again when needed.

    Raises HoneDevError while the cluster runs, because it uses them.
    """
    folder, locks = paths.cache(), paths.cache("locks")
    with locked(locks / "cluster.lock"), locked(locks / "images.lock"), locked(locks / "models.lock"):
        if paths.state().exists():
            raise HoneDevError("the embedded cluster is there, and uses its caches", "first: make cluster-down")
        with step(f"removing the caches in {folder}"):
            cleanup.unmount_below(folder)
            for part in folder.iterdir():
                if part != locks:  # somebody may be waiting
                    shutil.rmtree(part)


def status() -> dict[str, str]:
    """Each component with its state, and the node's."""
    packages.require_root()
    supervisor = Supervisor(paths.state())
    found = {name: f"running (pid {pid})" if (pid := supervisor.pid(name)) else "stopped" for name in NAMES}
    return {**found, "node": "Ready" if kubeconfig_path().exists() and _node_ready() else "not Ready"}
