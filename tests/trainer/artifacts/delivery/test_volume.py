"""pvc:// targets: complete under their name, or not there."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.servers.signing_key import Key

from hone_api.words.failures import FAILURES, Retry
from hone_trainer.artifacts.delivery import deliver, volume
from hone_trainer.artifacts.delivery.original import Original
from hone_trainer.errors import TrainerError
from hone_trainer.store import manifest

from .conftest import Model, Stopped, Stopping, read

pytestmark = pytest.mark.pure


@pytest.fixture
def plan(model: Model, tmp_path: Path) -> Any:
    return model.plan("pvc://models/team", targetPath=str(tmp_path / "volume" / "team"))


def test_every_byte_is_under_the_name_of_the_version(model: Model, plan: Any, tmp_path: Path) -> None:
    result = deliver.run(plan)
    assert result.location == "pvc://models/team/tutor-v3"
    assert (result.digest, result.size_bytes, result.uploaded_bytes) == (model.digest, 500_000 + 11 + 6, 500_017)
    assert read(tmp_path / "volume" / "team" / "tutor-v3") == model.files()
    assert [p.name for p in (tmp_path / "volume" / "team").iterdir()] == ["tutor-v3"]
    assert deliver.run(plan).uploaded_bytes == 0, "it is there"


@pytest.mark.usefixtures("one_at_a_time")
def test_a_killed_copy_shows_nothing_and_goes_on(model: Model, plan: Any, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        volume.deliver(plan, Original.of(model.folder, model.digest), Stopping(300_000))
    assert not (tmp_path / "volume" / "team" / "tutor-v3").exists()
    assert 0 < deliver.run(plan).uploaded_bytes < 500_017
    assert read(tmp_path / "volume" / "team" / "tutor-v3") == model.files()


@pytest.mark.usefixtures("one_at_a_time")
def test_what_a_kill_left_damaged_is_copied_again(model: Model, plan: Any, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        volume.deliver(plan, Original.of(model.folder, model.digest), Stopping(300_010))
    (work,) = (tmp_path / "volume" / "team").iterdir()
    (work / "adapter_config.json").write_bytes(b"X" * 11)
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    assert (caught.value.code, "adapter_config.json" in caught.value.message) == ("DeliveryDamaged", True)
    assert deliver.run(plan).uploaded_bytes == 500_017


def test_another_content_under_the_name_is_left_alone(model: Model, plan: Any, tmp_path: Path) -> None:
    other = Model(tmp_path / "volume" / "team" / "tutor-v3", seed=2)
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    assert caught.value.code == "DestinationOccupied"
    assert manifest.verify(other.folder, other.digest)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file", "Not a directory"),
        ("file/team", "Not a directory"),
        ("nowhere", "File exists"),
        ("team/" + "x" * 256, "File name too long"),
        ("round", "Too many levels of symbolic links"),
    ],
)
def test_a_path_that_the_volume_cannot_have_is_refused(model: Model, tmp_path: Path, path: str, words: str) -> None:
    """Nothing is written, and no further attempt can change that."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("somebody's")
    (volume / "nowhere").symlink_to("none")
    (volume / "round").symlink_to("round")
    with pytest.raises(TrainerError) as caught:
        deliver.run(model.plan(f"pvc://models/{path}", targetPath=str(volume / path)))
    message = f"the volume cannot be written: {words} (pvc://models/{path})"
    assert (caught.value.code, caught.value.message) == ("DestinationRefused", message)
    assert (volume / "file").read_text() == "somebody's"
    assert [p for p in volume.rglob("*") if p.is_file()] == [volume / "file"]


@pytest.mark.parametrize("theirs", ["file", "other", "same"])
def test_a_target_that_another_writer_creates_during_the_copy_is_compared(
    model: Model, plan: Any, tmp_path: Path, theirs: str
) -> None:
    team, first = tmp_path / "volume" / "team", threading.Lock()

    def meanwhile(count: int) -> None:
        if not first.acquire(blocking=False):  # files are copied at once, and each copy reports
            return
        if theirs == "file":
            (team / "tutor-v3").write_text("somebody's")
        else:
            Model(team / "tutor-v3", seed=1 if theirs == "same" else 2)

    original = Original.of(model.folder, model.digest)
    if theirs == "same":
        assert volume.deliver(plan, original, meanwhile).location == "pvc://models/team/tutor-v3"
        assert [p.name for p in team.iterdir()] == ["tutor-v3"]
        return
    with pytest.raises(TrainerError) as caught:
        volume.deliver(plan, original, meanwhile)
    assert caught.value.code == "DestinationOccupied"
    files = [p for p in (team / "tutor-v3").rglob("*") if p.is_file()]
    assert len(files) == (0 if theirs == "file" else len(model.files()))


def test_a_file_under_the_name_is_left_alone(model: Model, plan: Any, tmp_path: Path) -> None:
    (tmp_path / "volume" / "team").mkdir(parents=True)
    (tmp_path / "volume" / "team" / "tutor-v3").write_text("somebody's")
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    assert caught.value.code == "DestinationOccupied"
    assert (tmp_path / "volume" / "team" / "tutor-v3").read_text() == "somebody's"


def test_a_volume_that_is_mounted_read_only_is_tried_again(model: Model, tmp_path: Path) -> None:
    """A kernel remounts it after an error, on one node only."""
    volume = tmp_path / "volume"
    volume.mkdir()
    options = ["-t", "tmpfs", "-o", "ro", "tmpfs", volume]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        plan = model.plan("pvc://models/team", targetPath=str(volume / "team"))
        with pytest.raises(TrainerError) as caught:
            deliver.run(plan)
        assert "Read-only file system" in caught.value.message
        assert FAILURES[caught.value.code].retry == Retry.UNTIL_FIXED
        subprocess.run(["mount", "-o", "remount,rw", volume], check=True)
        assert deliver.run(plan).uploaded_bytes == 500_017
    finally:
        subprocess.run(["umount", volume], check=True)


def test_a_file_of_the_store_that_cannot_be_read_is_not_the_volume(model: Model, plan: Any, tmp_path: Path) -> None:
    original = Original.of(model.folder, model.digest)
    (model.folder / "plots" / "loss.svg").unlink()
    (model.folder / "plots").rmdir()
    (model.folder / "plots").write_text("no folder")
    with pytest.raises(TrainerError) as caught:
        volume.deliver(plan, original, lambda count: None)
    assert caught.value.code == "StorageError"
    assert str(model.folder / "plots" / "loss.svg") in caught.value.message


def test_a_full_volume_is_not_the_store(model: Model, tmp_path: Path) -> None:
    """It goes on once there is room."""
    volume = tmp_path / "volume"
    volume.mkdir()
    options = ["-t", "tmpfs", "-o", "size=400k", "tmpfs", volume]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        plan = model.plan("pvc://models/team", targetPath=str(volume / "team"))
        with pytest.raises(TrainerError) as caught:
            deliver.run(plan)
        assert (caught.value.code, "No space left" in caught.value.message) == ("DestinationFull", True)
        assert not (volume / "team" / "tutor-v3").exists()
        subprocess.run(["mount", "-o", "remount,size=2m", volume], check=True)
        assert 0 < deliver.run(plan).uploaded_bytes < 500_017
    finally:
        subprocess.run(["umount", volume], check=True)


def test_an_altered_original_is_not_delivered(model: Model, plan: Any, tmp_path: Path) -> None:
    with open(model.folder / "adapter_model.safetensors", "r+b") as file:
        file.write(b"altered")
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    assert (caught.value.code, "is not delivered" in caught.value.message) == ("ManifestMismatch", True)
    assert not (tmp_path / "volume" / "team" / "tutor-v3").exists()


@pytest.mark.faults("D5")
def test_the_signature_goes_along_and_is_compared_first(model: Model, tmp_path: Path) -> None:
    key, other = Key(tmp_path / "key"), Key(tmp_path / "other")
    key.sign(model.folder, model.digest)
    artifact = {"path": str(model.folder), "digest": model.digest, "trusted": [key.public]}
    target = {"targetPath": str(tmp_path / "volume")}
    with pytest.raises(TrainerError) as caught:
        deliver.run(model.plan("pvc://models", artifact={**artifact, "trusted": [other.public]}, **target))
    assert caught.value.code == "SignatureInvalid"
    assert not (tmp_path / "volume").exists()
    plan = model.plan("pvc://models", artifact=artifact, **target)
    deliver.run(plan)
    there = tmp_path / "volume" / "tutor-v3"
    assert read(there) == model.files()
    assert (there / "model.sig").is_file()
    (there / "model.sig").write_text("{}")
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    assert caught.value.code == "DestinationOccupied"
