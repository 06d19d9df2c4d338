"""What `cluster down` reads while containers still go away."""

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
