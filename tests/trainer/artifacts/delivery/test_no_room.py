"""Registries and S3 servers that have no room for a model."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone_api.words.failures import FAILURES, Retry
from hone_dev.cluster import imageregistry, objectstore
from hone_trainer.artifacts.delivery import deliver
from hone_trainer.artifacts.delivery.capacity import detail_of, is_full
from hone_trainer.endpoints import s3
from hone_trainer.errors import TrainerError

from .conftest import Model, read, secret


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def large(tmp_path: Path) -> Model:
    return Model(tmp_path / "model", weights=3 * 2**20)


def refused(plan: Any) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        deliver.run(plan)
    return caught.value


@pytest.mark.trainer
@pytest.mark.faults("D3")
@pytest.mark.usefixtures("one_at_a_time")
def test_a_registry_whose_disk_is_full(large: Model, tmp_path: Path) -> None:
    """It goes on once there is room, and does not send gigabytes several times before."""
    from .test_image import pulled

    with small_disk(tmp_path / "disk") as disk, imageregistry.serve(disk) as registry:
        plan = large.plan(f"oci://{registry.host}/team/m")
        with pytest.MonkeyPatch.context() as patch:
            pauses: list[float] = []
            patch.setattr(time, "sleep", pauses.append)
            error = refused(plan)
        assert (error.code, pauses) == ("DestinationFull", [])
        assert "no space left on device" in error.message
        assert FAILURES[error.code].retry == Retry.UNTIL_FIXED
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert deliver.run(plan).uploaded_bytes > 3 * 2**20
        assert pulled(f"{registry.host}/team/m", "v3") == {f"models/{k}": v for k, v in large.files().items()}


@pytest.mark.trainer
@pytest.mark.faults("D3")
def test_an_s3_server_whose_disk_is_full(large: Model, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, objectstore.serve(disk) as store:
        folder = store.bucket("models")
        keys = secret(tmp_path / "keys", **{s3.KEY: store.access_key, s3.SECRET: store.secret_key})
        plan = large.plan("s3://models/team", secretPath=keys, target={"s3": {"endpoint": store.endpoint}})
        assert refused(plan).code == "DestinationFull"
        assert not (folder / "team" / "tutor-v3" / "manifest.json").exists()
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        deliver.run(plan)
        assert read(folder / "team" / "tutor-v3") == large.files()


@pytest.mark.pure
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (507, "", ""),
        (500, "UNKNOWN", "unknown error: write /data: no space left on device"),
        (500, "UNKNOWN", detail_of({"DriverName": "filesystem", "Enclosed": {"Op": "mkdir", "Path": "/d", "Err": 28}})),
        (500, "UNKNOWN", detail_of({"Op": "write", "Path": "/var/lib/registry/data", "Err": 122})),
        (
            403,
            "DENIED",
            "adding 29.0 MiB of storage resource, which when updated to current usage of 152.4 MiB will "
            "exceed the configured upper limit of 10.0 MiB.",
        ),
        (403, "DENIED", "Quota has been exceeded on namespace"),
        (403, "QuotaExceeded", ""),
        (403, "BucketSizeQuotaExceeded", ""),
        (400, "XMinioAdminBucketQuotaExceeded", "Bucket quota exceeded"),
        (507, "XMinioStorageFull", ""),
        (500, "InternalError", "We encountered an internal error, cause(no space left on device)"),
        (403, "", "Private repository storage limit reached"),
    ],
)
def test_what_servers_say_that_have_no_room(status: int, code: str, words: str) -> None:
    assert is_full(status, code, words)


@pytest.mark.pure
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (413, "", "Request Entity Too Large"),
        (400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"),
        (403, "", "Quota exceeded for quota metric 'Requests per minute'"),
        (503, "RequestQuotaExceeded", ""),
        (429, "TOOMANYREQUESTS", "Quota exceeded for quota metric 'Requests per minute'"),
        (403, "DENIED", "requested access to the resource is denied"),
        (403, "AccessDenied", "Access Denied"),
        (500, "UNKNOWN", "unknown error: open /data: permission denied"),
        (500, "UNKNOWN", detail_of({"Op": "open", "Path": "/data", "Err": 13})),
        (404, "NoSuchQuotaConfiguration", ""),
        (503, "SlowDown", ""),
    ],
)
def test_other_answers_say_nothing_of_room(status: int, code: str, words: str) -> None:
    assert not is_full(status, code, words)


@pytest.mark.pure
def test_a_detail_is_shown_as_one_short_line() -> None:
    assert detail_of({"a": "b\nc"}) == '{"a": "b\\nc"}'
    assert detail_of("a\n  b") == "a b"
    assert len(detail_of({"blob": "x" * 10_000})) == 300
    assert detail_of(None) == detail_of([]) == ""
