"""A copy is complete and right, or says what is wrong; what was read is not read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.contract.manifest import manifest_digest
from hone_cli.errors import CommandError
from hone_cli.reach.copying import WORK, BrokenConnectionError, MissingFileError, copy

pytestmark = pytest.mark.trainer

FILES = {"config.json": b"{}", "weights/part-1.bin": bytes(range(256)) * 400, "empty": b"", "ü b.txt": b"text"}


class Memory:
    """A folder in memory, whose connection can break."""

    def __init__(self, files: dict[str, bytes] = FILES, listed: dict[str, bytes] | None = None):
        self.files = dict(files)
        entries = [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in sorted((files if listed is None else listed).items())
        ]
        self.files["manifest.json"] = json.dumps({"version": 1, "files": entries}).encode()
        self.digest = manifest_digest(self.files["manifest.json"])
        self.breaks: list[int] = []
        """Bytes after which the next connections break; config.json is read first."""
        self.broken: dict[str, int] = {}
        """How often a connection breaks that reads a file."""
        self.refused: dict[str, bool] = {}
        """Files for which the pod answers once with an error."""
        self.read_bytes = 0

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        if path not in self.files:
            raise MissingFileError(f"{path}: 404")
        if self.refused.pop(path, None):
            raise CommandError(f"{path}: the pod answers 503")
        data = self.files[path][offset:]
        stop = self.breaks.pop(0) if self.breaks and path in FILES else None
        if broken := self.broken.get(path, 0):
            self.broken[path] = broken - 1
            stop = 0
        for start in range(0, len(data), 1000):
            if stop is not None and start >= stop:
                raise BrokenConnectionError("reset")
            piece = data[start : start + 1000]
            self.read_bytes += len(piece)
            yield piece


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are only noted."""
    noted: list[float] = []
    monkeypatch.setattr("hone_cli.reach.copying.time.sleep", noted.append)
    return noted


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_copy_has_every_file_and_nothing_else(tmp_path):
    source, told = Memory(), []
    copied = copy(source, tmp_path / "new" / "folder", source.digest, lambda done, total: told.append((done, total)))
    assert contents(tmp_path / "new" / "folder") == source.files
    assert (copied.files, copied.size_bytes) == (4, 102_406)
    assert copied.read_bytes == 102_406
    assert told[-1] == (102_406, 102_406)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_broken_connection_goes_on_where_it_broke(tmp_path):
    source = Memory()
    source.breaks = [10**9, 1000, 30_000, 0, 0, 5000]
    assert copy(source, tmp_path / "out", source.digest).read_bytes == 102_406
    assert contents(tmp_path / "out") == source.files


def test_a_connection_that_gives_nothing_ends_and_the_next_run_goes_on(tmp_path, pauses):
    source = Memory()
    source.breaks = [10**9, 50_000, *[0] * 5]
    with pytest.raises(CommandError, match=r"broke 5 times .*run the same command again"):
        copy(source, tmp_path, source.digest)
    assert not (tmp_path / "manifest.json").exists()
    assert pauses == [2, 4, 8, 16]
    before = source.read_bytes
    assert copy(source, tmp_path, source.digest).read_bytes == 102_406 - (before - len(source.files["manifest.json"]))
    assert contents(tmp_path) == source.files


def test_what_is_complete_is_compared_and_not_read_again(tmp_path):
    source = Memory()
    copy(source, tmp_path, source.digest)
    assert copy(source, tmp_path, source.digest).read_bytes == 0
    (tmp_path / "config.json").write_bytes(b"[]")
    with pytest.raises(CommandError, match=r"1 of its files were changed .*config\.json"):
        copy(source, tmp_path, source.digest)


def test_a_damaged_part_is_read_again(tmp_path):
    source = Memory()
    source.breaks = [10**9, 50_000, *[0] * 5]
    with pytest.raises(CommandError):
        copy(source, tmp_path, source.digest)
    (part,) = [p for p in (tmp_path / WORK).iterdir() if p.stat().st_size == 50_000]
    part.write_bytes(b"\0" * 50_000)
    copy(source, tmp_path, source.digest)
    assert contents(tmp_path) == source.files


def damaged(source: Memory) -> None:
    source.files["weights/part-1.bin"] = b"\1" + source.files["weights/part-1.bin"][1:]


def longer(source: Memory) -> None:
    source.files["weights/part-1.bin"] += b"more"


def shorter(source: Memory) -> None:
    source.files["weights/part-1.bin"] = source.files["weights/part-1.bin"][:-1]


def another_manifest(source: Memory) -> None:
    source.files["manifest.json"] += b" "


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damaged, "is not the file that was recorded"),
        (longer, "more bytes than its manifest says"),
        (shorter, "ended early"),
        (another_manifest, "not the one that was recorded"),
        (lambda source: source.files.pop("config.json"), "404"),
    ],
)
def test_a_folder_that_changed_is_never_a_complete_copy(tmp_path: Path, change: Callable[[Memory], Any], words: str):
    source = Memory()
    change(source)
    with pytest.raises(CommandError, match=words):
        copy(source, tmp_path / "out", source.digest)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("path", ["../escaped", "/etc/escaped", "a/../../escaped", "..", "", f"{WORK}/digest", "a\\b"])
def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path, path):
    source = Memory(listed={path: b"x"})
    with pytest.raises(CommandError, match="which a download must not write"):
        copy(source, tmp_path / "out", source.digest)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    source = Memory()
    with pytest.raises(CommandError, match="not empty"):
        copy(source, tmp_path, source.digest)
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("complete", [True, False])
def test_another_version_is_not_mixed_in(tmp_path, complete):
    first, second = Memory(), Memory({"config.json": b"[]"})
    if not complete:
        first.breaks = [0] * 5
    try:
        copy(first, tmp_path, first.digest)
    except CommandError:
        assert not complete
    with pytest.raises(CommandError, match="contains another model"):
        copy(second, tmp_path, second.digest)


def test_a_disk_without_room_is_reported_before_a_byte_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    source = Memory()
    with pytest.raises(CommandError, match=r"room for 1,000 bytes, but 102,406 more are needed"):
        copy(source, tmp_path, source.digest)
    assert source.read_bytes == len(source.files["manifest.json"])


def test_what_was_added_to_a_folder_is_copied_where_it_is(tmp_path: Path) -> None:
    source = Memory()
    source.files["model.sig"] = b"{}"
    copy(source, tmp_path / "out", source.digest, added=("provenance.json", "model.sig"))
    assert contents(tmp_path / "out") == source.files


@pytest.mark.parametrize("path", ["manifest.json", "model.sig"])
def test_a_connection_that_breaks_at_a_small_file_is_tried_again(
    tmp_path: Path, path: str, pauses: list[float]
) -> None:
    """The manifest is read first, and the signature last."""
    source = Memory()
    source.files["model.sig"] = b"{}"
    source.broken = {path: 3}
    copy(source, tmp_path / "out", source.digest, added=("model.sig",))
    assert contents(tmp_path / "out") == source.files
    assert pauses == [2.0, 4.0, 8.0]
    source.broken = {path: 5}
    with pytest.raises(CommandError, match=r"the connection broke 5 times .*: run the same command again"):
        copy(source, tmp_path / "other", source.digest, added=("model.sig",))
    copy(source, tmp_path / "other", source.digest, added=("model.sig",))
    assert contents(tmp_path / "other") == source.files


def test_a_signature_that_the_pod_does_not_give_is_not_left_out(tmp_path: Path) -> None:
    """Only one that is not there is: without it, the copy could not be verified, and nobody would know why."""
    source = Memory()
    source.files["model.sig"] = b"{}"
    source.refused = {"model.sig": True}
    with pytest.raises(CommandError, match=r"model\.sig: the pod answers 503"):
        copy(source, tmp_path / "out", source.digest, added=("model.sig",))
    copy(source, tmp_path / "out", source.digest, added=("model.sig",))
    assert contents(tmp_path / "out") == source.files


def test_a_model_that_was_signed_after_its_download_gets_its_signature(tmp_path: Path) -> None:
    source = Memory()
    copy(source, tmp_path / "out", source.digest)
    source.files["model.sig"] = b"{}"
    assert copy(source, tmp_path / "out", source.digest, added=("model.sig",)).read_bytes == 0
    assert contents(tmp_path / "out") == source.files
    assert copy(source, tmp_path / "out", source.digest, added=("model.sig",)).read_bytes == 0
    assert contents(tmp_path / "out") == source.files
