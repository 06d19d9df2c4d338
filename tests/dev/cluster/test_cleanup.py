"""What `cluster down` reads while containers still go away."""

import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from hone_dev.cluster import cleanup

pytestmark = pytest.mark.pure


def test_control_groups_may_vanish_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "hierarchies", lambda: [tmp_path])
    stays = tmp_path / "pods" / "stays"
    stays.mkdir(parents=True)
    (stays / "cgroup.procs").write_text("")
    going = [tmp_path / "pods" / f"going-{number}" / "container" for number in range(50)]
    read = threading.Event()

    def come_and_go() -> None:
        while not read.is_set():
            for folder in going:
                folder.mkdir(parents=True)
            for folder in going:
                folder.rmdir()
                folder.parent.rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(40):
            cleanup.kill_cgroup("pods")
    finally:
        read.set()
        thread.join()
    (stays / "cgroup.procs").unlink()  # of a real control group, it goes with its folder
    cleanup.remove_cgroup("pods")
    cleanup.remove_cgroup("pods")  # of one that has gone
    assert not (tmp_path / "pods").exists()


def test_a_shim_that_containerd_has_lost_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CGROUP", "no-pods")  # those of a cluster that other tests use stay
    program = tmp_path / "containerd-shim-runc-v2"
    shutil.copy(shutil.which("tail") or "", program)
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "containerd.sock").touch()
    with subprocess.Popen([program, "-f", folder / "containerd.sock"]) as shim:
        try:
            while shim.pid not in cleanup.processes(folder):
                assert shim.poll() is None
            cleanup.kill_processes(folder)
            assert shim.wait() == -signal.SIGKILL
        finally:
            shim.kill()
