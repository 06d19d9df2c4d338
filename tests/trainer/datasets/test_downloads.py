"""Sources of many files that are read again after an attempt that ended: what is there and the same stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hone_api.plan import Limits, MaterializePlan
from hone_dev import hub
from hone_dev.cluster import objectstore
from hone_trainer.datasets import materialize, s3, sources
from hone_trainer.endpoints import s3 as endpoint_s3
from hone_trainer.errors import SourceError
from hone_trainer.reporting.task import TaskProgress

pytestmark = pytest.mark.trainer
SHARDS = 12
NAMES = [f"train-{number:05}.jsonl" for number in range(SHARDS)]
SLOW = NAMES[-1]


def _rows(name: str) -> str:
    return "".join(json.dumps({"text": f"{name} {at}"}) + "\n" for at in range(20))


def _plan(tmp_path: Path, source: dict[str, Any], **fields: Any) -> MaterializePlan:
    plan = {"name": "rows", "store": str(tmp_path / "store"), "downloadsPath": str(tmp_path / "kept"), "source": source}
    return MaterializePlan.model_validate({**plan, "splits": {"validation": "0%"}, **fields})


def _changes(folder: Path) -> dict[str, int]:
    """When each file was written or replaced last."""
    return {path.name: path.stat().st_ctime_ns for path in folder.rglob("train-*.jsonl")}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "hub" / "datasets" / "acme" / "rows" / "main"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(_rows(name))
    return folder


@pytest.fixture
def point_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def point(url: str) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")

    return point


def _read_until_killed(plan: MaterializePlan, url: str, tmp_path: Path) -> None:
    """In a process that is killed once all files but one are there."""
    (tmp_path / "plan.json").write_text(plan.model_dump_json(by_alias=True, exclude_none=True))
    command = [sys.executable, "-m", "hone_trainer", "materialize", str(tmp_path / "plan.json")]
    with subprocess.Popen(command, env={**os.environ, "HF_ENDPOINT": url}) as process:
        while len(_changes(Path(str(plan.downloads_path)))) < SHARDS - 1:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()


def test_after_a_kill_only_what_is_missing_or_differs_is_read(
    repository: Path, point_at: Callable[[str], None], tmp_path: Path
) -> None:
    plan = _plan(tmp_path, {"uri": "hf://acme/rows"})
    kept = Path(str(plan.downloads_path))
    with hub.serve(tmp_path / "hub", drip=SLOW) as url:
        _read_until_killed(plan, url, tmp_path)
    before = _changes(kept)
    assert before.keys() == {*NAMES} - {SLOW}
    damaged = next(kept.rglob(NAMES[3]))
    times, content = damaged.stat(), damaged.read_bytes()
    damaged.write_bytes(content.replace(b"3", b"4", 1))
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    with hub.serve(tmp_path / "hub") as url:
        point_at(url)
        (folder := kept / next(kept.iterdir())).mkdir(exist_ok=True)
        with TaskProgress("rows") as progress:
            fetched = sources.fetch(plan, folder, progress)
        after = _changes(kept)
        assert {name for name in NAMES if after[name] != before.get(name)} == {SLOW, NAMES[3]}
        assert [file.path.read_text() for file in fetched.files] == list(map(_rows, NAMES))
        assert materialize.run(plan).rows == 20 * SHARDS
    assert not list(kept.iterdir()), "rows are made of them"


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[tuple[Path, MaterializePlan]]:
    with objectstore.serve(tmp_path / "s3") as store:
        folder, secret = store.bucket("data") / "rows", tmp_path / "secret"
        for made in (folder, secret):
            made.mkdir()
        for name in NAMES:
            (folder / name).write_text(_rows(name))
        (secret / endpoint_s3.KEY).write_text(store.access_key)
        (secret / endpoint_s3.SECRET).write_text(store.secret_key)
        source = {"uri": "s3://data/rows", "s3": {"endpoint": store.endpoint}, "secretName": "keys"}
        limits = Limits(allow_private_addresses=True).to_json()
        yield folder, _plan(tmp_path, source, secretPath=str(secret), limits=limits)


def test_objects_that_were_read_are_not_read_again(
    bucket: tuple[Path, MaterializePlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, plan = bucket
    kept, read, download = Path(str(plan.downloads_path)), list[str](), s3.Bucket.download

    def interrupted(self: s3.Bucket, one: s3.Object, target: Path, *others: Any) -> None:
        download(self, one, target, *others)
        if one.key.endswith(SLOW):
            while len(list(kept.rglob("*.sha256"))) < SHARDS - 1:
                time.sleep(0.05)
            raise SourceError("SourceUnreachable", f"{one.key} broke off")

    def noted(self: s3.Bucket, one: s3.Object, *others: Any) -> None:
        read.append(one.key.rpartition("/")[2])
        download(self, one, *others)

    monkeypatch.setattr(s3.Bucket, "download", interrupted)
    with pytest.raises(SourceError, match="broke off"):
        materialize.run(plan)
    (folder / NAMES[5]).write_text(_rows("changed"))
    first = next(path for path in kept.rglob("*") if path.is_file() and path.read_bytes() == _rows(NAMES[2]).encode())
    first.write_bytes(first.read_bytes()[:-1])
    monkeypatch.setattr(s3.Bucket, "download", noted)
    assert materialize.run(plan).rows == 20 * SHARDS
    assert sorted(read) == sorted({NAMES[2], NAMES[5], SLOW})
    assert not list(kept.iterdir())


def test_files_of_another_source_go(bucket: tuple[Path, MaterializePlan]) -> None:
    kept = Path(str(bucket[1].downloads_path))
    (kept / "0123").mkdir(parents=True)
    (kept / "0123" / "left").write_text("x")
    with pytest.raises(SourceError):
        materialize.run(bucket[1].model_copy(update={"secret_path": None}))
    assert not (kept / "0123").exists()
