"""The parts of the embedded cluster that decide, without any cluster."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone_dev.cluster import cluster, images, machine, network
from hone_dev.cluster.pki import Authority
from hone_dev.cluster.process import Component, Supervisor, started_at
from hone_dev.tools import packages
from hone_dev.tools.console import HoneDevError
from hone_dev.tools.shell import run

pytestmark = pytest.mark.pure

RULES = """\
*nat
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.213.0.0/24 ! -d 10.213.0.0/24 -m comment --comment hone-dev -j MASQUERADE
-A KUBE-SERVICES -d 10.214.0.1/32 -j KUBE-SVC-X
COMMIT
"""


def test_only_our_firewall_rules_are_taken_away() -> None:
    kept = network.without_ours(RULES)
    assert "KUBE-" not in kept
    assert "hone-dev" not in kept
    assert "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE" in kept
    assert ":DOCKER - [0:0]" in kept
    assert network.without_ours(kept) == "", "nothing of ours: nothing to restore"


def test_a_difference_names_what_was_left_behind() -> None:
    before = {"interfaces": ["eth0", "lo"], "mounts": ["/"]}
    assert machine.difference(before, {"interfaces": ["eth0"], "mounts": ["/"]}) == {}
    after = {"interfaces": ["eth0", "hone0"], "mounts": ["/"]}
    assert machine.difference(before, after) == {"interfaces": ["hone0"]}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ["Dockerfile", "dev/image-install.sh", "requirements/uv.txt", "crds/hone_api/a.py"]
    names += ["requirements/operator.txt", "operator/hone_operator/b.py"]
    names += [
        "requirements/trainer.txt",
        "requirements/deepspeed.txt",
        "requirements/gguf.txt",
        "trainer/hone_trainer/c.py",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(images.paths, "SOURCE", tmp_path)
    return tmp_path


def test_a_reference_changes_with_what_goes_into_the_image_and_nothing_else(source: Path) -> None:
    operator, trainer = images.reference("operator"), images.reference("trainer")
    (source / "README.md").write_text("new")
    (source / "trainer/hone_trainer/__pycache__").mkdir()
    (source / "trainer/hone_trainer/__pycache__/c.pyc").write_text("new")
    assert (images.reference("operator"), images.reference("trainer")) == (operator, trainer)
    (source / "trainer/hone_trainer/c.py").write_text("new")
    assert images.reference("operator") == operator
    assert images.reference("trainer") != trainer
    (source / "crds/hone_api/a.py").write_text("new")
    assert images.reference("operator") != operator


def test_keys_and_kubeconfigs_are_private_and_reused(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    _, key = authority.issue("server", "server", hosts=("127.0.0.1", "localhost"))
    kubeconfig = authority.kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", "admin", "system:masters")
    for path in (authority.private_key, key, kubeconfig):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    content = kubeconfig.read_text()
    again = Authority(tmp_path / "pki")
    assert again.kubeconfig(kubeconfig, "https://127.0.0.1:1", "admin", "system:masters").read_text() == content
    assert Authority(tmp_path / "other").private_key.read_bytes() != authority.private_key.read_bytes()


def test_a_component_is_found_again_restarted_when_changed_and_ended(tmp_path: Path) -> None:
    first, second = (Component("sleeper", ("sleep", f"{n}.{os.getpid()}"), lambda: True) for n in (600, 601))
    Supervisor(tmp_path).start(first)
    supervisor = Supervisor(tmp_path)  # a later command
    pid = supervisor.pid("sleeper")
    supervisor.start(first)
    assert supervisor.pid("sleeper") == pid
    supervisor.start(second)
    assert supervisor.pid("sleeper") not in (None, pid)
    orphan = supervisor.pid("sleeper")
    while not Path(f"/proc/{orphan}/cmdline").read_bytes():
        time.sleep(0.01)  # for a moment after exec the kernel shows no arguments yet
    (supervisor.run / "sleeper.pid").unlink()  # as if its `up` had been killed before it noted the pid
    supervisor.start(second)
    assert orphan
    assert started_at(orphan) is None
    supervisor.stop("sleeper")
    assert supervisor.pid("sleeper") is None


def test_a_process_lives_until_its_last_thread_is_gone() -> None:
    program = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        status = Path(f"/proc/{process.pid}/status")
        while "State:\tZ" not in status.read_text():
            time.sleep(0.01)
        assert started_at(process.pid) is not None
        process.kill()
        while "Threads:\t2" in status.read_text():
            time.sleep(0.01)
        assert started_at(process.pid) is None


def test_a_pid_that_another_process_has_now_is_not_ours(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.run.mkdir()
    (supervisor.run / "kubelet.pid").write_text(f"{os.getpid()} 1 x")
    assert supervisor.pid("kubelet") is None


def test_a_component_that_ends_early_says_its_last_words(tmp_path: Path) -> None:
    failing = Component("failing", ("sh", "-c", "echo no such address >&2; exit 3"), lambda: False)
    supervisor = Supervisor(tmp_path)
    supervisor.start(failing)
    with pytest.raises(HoneDevError, match="failing ended:\nno such address"):
        supervisor.wait(failing)


def test_a_failing_program_is_named_with_its_last_words() -> None:
    with pytest.raises(HoneDevError, match="exit code 4:\nbroken") as caught:
        run("sh", "-c", "echo broken >&2; exit 4", hint="mend it")
    assert caught.value.hint == "mend it"
    with pytest.raises(HoneDevError, match="no-such-program is not installed"):
        run("no-such-program")


def test_where_the_cluster_cannot_run_a_way_out_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.os, "geteuid", lambda: 1000)
    with pytest.raises(HoneDevError, match="needs root") as caught:
        packages.require_root()
    assert "CLUSTER=current" in caught.value.hint
    monkeypatch.setattr(packages.sys, "platform", "darwin")
    with pytest.raises(HoneDevError, match="Linux only"):
        packages.require_root()


def test_steps_show_their_outcome() -> None:
    program = """
from hone_dev.tools.console import HoneDevError, show_error, step
with step("first [x]"): pass
try:
    with step("second"): raise HoneDevError("it broke", "mend it")
except HoneDevError as error: show_error(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert lines[1].startswith("✓ first [x] (")
    assert lines[3].startswith("✗ second (")
    assert lines[4:] == ["error: it broke", "hint:  mend it"]
    assert done.stdout == ""


def test_clean_takes_the_caches_only_once_the_cluster_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HONE_STATE", str(tmp_path / "state"))
    (tmp_path / "hone" / "registry" / "blobs").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    with pytest.raises(HoneDevError, match="uses its caches") as caught:
        cluster.clean()
    assert caught.value.hint == "first: make cluster-down"
    assert (tmp_path / "hone" / "registry").exists()
    (tmp_path / "state").rmdir()
    cluster.clean()
    assert [p.name for p in (tmp_path / "hone").iterdir()] == ["locks"]
