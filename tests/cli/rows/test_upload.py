"""`hone upload` over its real server: pieces, breaks, a full disk, other contents, strangers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import requests
from support.servers.app_server import running

from hone_api.dataset.synthesis import ReviewPod
from hone_cli.errors import CommandError
from hone_cli.reach import pod, receiving
from hone_cli.reach.guard import digest
from hone_cli.reach.incoming import PATH, PIECE, Incoming
from hone_cli.rows import place, upload

pytestmark = pytest.mark.trainer
TOKEN = "the-token-of-this-upload"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two pieces and a half."""
    path = tmp_path / "here" / "rows.jsonl"
    path.parent.mkdir()
    path.write_bytes(os.urandom(PIECE // 2) * 5)
    return path


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume"


def expected(file: Path, volume: Path) -> Incoming:
    return Incoming(volume, file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())


def sent(file: Path, volume: Path, *, replace: bool = False, through: Callable[[str], str] = lambda url: url) -> None:
    incoming = expected(file, volume)
    with running(receiving.application(incoming, digest(TOKEN), replace=replace)) as url:
        upload.send(file, incoming, through(url), TOKEN)


def test_a_file_arrives_whole_and_is_not_sent_twice(file: Path, volume: Path) -> None:
    sent(file, volume)
    assert [path.name for path in volume.iterdir()] == ["rows.jsonl"]
    assert (volume / "rows.jsonl").read_bytes() == file.read_bytes()
    before = (volume / "rows.jsonl").stat().st_mtime_ns
    sent(file, volume)
    assert (volume / "rows.jsonl").stat().st_mtime_ns == before


class Cutting:
    """Passes so many bytes on to a server, and then breaks the connection; later connections pass whole."""

    def __init__(self, most: int):
        self.left, self.passed = most, 0
        self.listener = socket.create_server(("127.0.0.1", 0))

    def __call__(self, url: str) -> str:
        host, _, port = url.removeprefix("http://").partition(":")
        threading.Thread(target=self.serve, args=((host, int(port)),), daemon=True).start()
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self, target: tuple[str, int]) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(target)
            threading.Thread(target=self.back, args=(far, near), daemon=True).start()
            threading.Thread(target=self.forth, args=(near, far), daemon=True).start()

    def forth(self, near: socket.socket, far: socket.socket) -> None:
        while data := near.recv(2**16):
            self.passed += len(data)
            self.left -= len(data)
            if self.left < 0:
                self.left = 2**60
                for end in (near, far):
                    end.shutdown(socket.SHUT_RDWR)
                return
            far.sendall(data)

    @staticmethod
    def back(far: socket.socket, near: socket.socket) -> None:
        try:
            while data := far.recv(2**16):
                near.sendall(data)
        except OSError:
            return


@pytest.mark.parametrize("after", [100, PIECE // 2, PIECE + PIECE // 2, 2 * PIECE + 2**18])
def test_a_broken_connection_goes_on_where_it_was(
    file: Path, volume: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(upload, "_PAUSE_SECONDS", 0.01)
    cutting = Cutting(after)
    sent(file, volume, through=cutting)
    assert (volume / "rows.jsonl").read_bytes() == file.read_bytes()
    assert cutting.passed < file.stat().st_size + PIECE + 2**19, "at most one piece is sent again"


def test_an_interrupted_upload_is_completed_by_the_same_command(file: Path, volume: Path) -> None:
    incoming = expected(file, volume)
    incoming.begin(replace=False)
    incoming.append(0, file.read_bytes()[:PIECE])
    assert not (volume / "rows.jsonl").exists()
    cutting = Cutting(2**60)
    sent(file, volume, through=cutting)
    assert (volume / "rows.jsonl").read_bytes() == file.read_bytes()
    assert cutting.passed < file.stat().st_size - PIECE + 2**16


def test_damaged_leftovers_are_found_before_the_file_gets_its_name(file: Path, volume: Path) -> None:
    incoming = expected(file, volume)
    incoming.part.write_bytes(b"x" * PIECE)
    with pytest.raises(CommandError, match="SHA-256 differs"):
        sent(file, volume)
    assert not list(volume.iterdir())
    sent(file, volume)


def test_another_file_of_the_name_is_kept_unless_it_shall_be_replaced(file: Path, volume: Path) -> None:
    (volume / "rows.jsonl").write_text("of somebody else")
    with pytest.raises(CommandError, match=r"another file rows.jsonl: choose another name, or use --replace"):
        sent(file, volume)
    assert (volume / "rows.jsonl").read_text() == "of somebody else"
    sent(file, volume, replace=True)
    assert (volume / "rows.jsonl").read_bytes() == file.read_bytes()


def test_a_file_larger_than_the_volume_is_refused_before_it_is_sent(volume: Path) -> None:
    with pytest.raises(CommandError, match=r"room for [\d,]+ bytes, but 1,000,000,000,000,000,000 more are needed"):
        Incoming(volume, "rows.jsonl", 10**18, "0" * 64).begin(replace=False)


@pytest.fixture
def small_disk(volume: Path) -> Iterator[Path]:
    words = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", volume]
    if (mounted := subprocess.run(words, capture_output=True, text=True)).returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    yield volume
    subprocess.run(["umount", "-l", volume], check=True)


def test_a_disk_that_fills_up_meanwhile_keeps_what_came(file: Path, small_disk: Path) -> None:
    incoming = expected(file, small_disk)
    incoming.begin(replace=False)
    incoming.append(0, file.read_bytes()[:PIECE])
    others = small_disk / "of-others"
    with contextlib.suppress(OSError), open(others, "wb", buffering=0) as filled:
        while filled.write(bytes(4096)):
            pass
    words = "is full after 4,194,304 of 10,485,760 bytes: make room in it, and run the same command again"
    for size in (PIECE, 5000):  # also one that fits into a buffer
        with pytest.raises(CommandError, match=words):
            incoming.append(PIECE, file.read_bytes()[PIECE:][:size])
        assert incoming.part.stat().st_size == PIECE
    others.unlink()
    sent(file, small_disk)
    assert (small_disk / "rows.jsonl").read_bytes() == file.read_bytes()


def test_a_refused_upload_prints_no_bar(file: Path, volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (volume / "rows.jsonl").write_text("of somebody else")
    with pytest.raises(CommandError, match="another file"):
        sent(file, volume)
    assert capsys.readouterr().err == ""
    sent(file, volume, replace=True)
    assert "10.5/10.5 MB" in capsys.readouterr().err


def test_a_piece_that_comes_twice_counts_once(file: Path, volume: Path) -> None:
    incoming = expected(file, volume)
    incoming.begin(replace=False)
    for _ in range(2):
        assert incoming.append(0, b"abc").size == 3
    assert incoming.append(7, b"abc").size == 3


def test_strangers_are_refused(file: Path, volume: Path) -> None:
    with running(receiving.application(expected(file, volume), digest(TOKEN))) as url:
        for method in ("GET", "PUT", "POST"):
            assert requests.request(method, f"{url}{PATH}?offset=0", data=b"x").status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert requests.put(f"{url}{PATH}?offset=0", data=bytes(PIECE + 2), headers=headers).status_code == 413
    assert not list(volume.iterdir())


def test_its_pod_sees_the_claim_alone_and_is_valid() -> None:
    metadata = {"name": "rows-upload-1", "namespace": "team", "uid": "u"}
    dataset = {"apiVersion": "hone.dev/v1alpha1", "kind": "Dataset", "metadata": metadata}
    incoming = Incoming(Path(pod.ROWS), "rows.jsonl", 7, "0" * 64)
    platform = ReviewPod(image="hone/trainer:1", claim="hone-store")
    body = pod.upload_pod(dataset, platform, "rows", incoming, digest(TOKEN), replace=True)
    kubernetes_validate.validate(body, "1.33", strict=True)
    assert [v.get("persistentVolumeClaim") for v in body["spec"]["volumes"]] == [{"claimName": "rows"}, None]
    words = body["spec"]["containers"][0]["command"]
    assert words[-6:] == ["serve-upload", "/rows", "rows.jsonl", "7", "0" * 64, "--replace"]
    assert not body["spec"]["automountServiceAccountToken"]


def test_a_file_that_grows_meanwhile_arrives_as_it_was(file: Path, volume: Path) -> None:
    incoming, before = expected(file, volume), file.read_bytes()
    with file.open("ab") as grown:
        grown.write(b"more")
    with running(receiving.application(incoming, digest(TOKEN))) as url:
        upload.send(file, incoming, url, TOKEN)
    assert (volume / "rows.jsonl").read_bytes() == before


def test_a_second_request_for_the_end_finds_the_file_there(file: Path, volume: Path) -> None:
    """The answer to the first one did not arrive."""
    sent(file, volume)
    assert expected(file, volume).finish().complete


def test_what_cannot_be_read_twice_is_not_uploaded(tmp_path: Path) -> None:
    """A pipe is empty when it is read again, and an empty ConfigMap would be called a success."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CommandError, match="is not a file that can be read twice"):
        place.is_small(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "key"),
    [("фото.csv", "rows.csv"), ("rows.jsonl", "rows.jsonl"), ("-x.jsonl.gz", "x.jsonl.gz"), (".hidden", "hidden")],
)
def test_a_file_keeps_its_ending(name: str, key: str) -> None:
    """Its ending says how it is read."""
    assert place.key(Path(name)) == key
