"""A disk that is really full: a code, nothing half done, and what was done is kept. More room is all it needs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runs import split_files

from hone_api.plan import MaterializePlan
from hone_api.words.failures import FailureCode
from hone_trainer.datasets import curation, materialize, stage_one
from hone_trainer.datasets.engine import writing
from hone_trainer.datasets.engine.relation import Relation
from hone_trainer.datasets.readers import memory, pieces
from hone_trainer.datasets.sources import downloads
from hone_trainer.errors import classify
from hone_trainer.run import encode
from hone_trainer.store import folders

pytestmark = pytest.mark.trainer
PAGE = 4096
Resize = Callable[[int], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A file system in memory, and what gives it so many bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {mounted.stderr.strip()}")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)

    try:
        yield folder, resize
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _used(folder: Path) -> int:
    """Bytes of a folder on a disk of pages."""
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in folder.rglob("*") if file.is_file())


def _full(work: Callable[[], Any]) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its code is what counts
        work()
    assert classify(caught.value).code == FailureCode.DISK_FULL, caught.value


def test_what_was_encoded_before_the_disk_was_full_is_kept(
    make_plan: Any, tmp_path: Path, disk: tuple[Path, Resize]
) -> None:
    """While parts of the second split are made, and while they are written together."""
    folder, resize = disk
    sources = []
    for name, rows in (("first", 300), ("second", 3000)):
        asked = [{"prompt": f"{n}?", "completion": f"{n}."} for n in range(rows)]
        sources.append(split_files.write(tmp_path / f"{name}.jsonl", asked, name, "train"))
    fields = {"datasets": sources[:1], "evaluationDatasets": sources[1:], "held_out": False}
    large = make_plan("large", encodedPath=str(tmp_path / "large"), **fields)
    known = encode.run(large)
    plan = large.model_copy(update={"encoded_path": str(folder / "encoded")})
    first, second = (encode.place(plan, source, writes=True) for source in (*plan.datasets, *plan.evaluation_datasets))
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "large" / second.name).iterdir()}
    done = _used(tmp_path / "large" / first.name)
    rows = -(-sizes["rows.arrow"] // PAGE) * PAGE
    rest = _used(tmp_path / "large") - done - rows
    # Until a split is whole, the disk has its parts as well: of the first split once, of the second at each attempt.
    for left in (done + 3 * PAGE, rows // 2, rows + PAGE, rows + sizes["lengths.npy"] + PAGE, rows + rest):
        resize(done + left)
        _full(lambda: encode.run(plan))
        assert folders.is_intact(first)
        assert {path.name for path in first.parent.iterdir()} <= {first.name, f".work-{second.name}"}
    resize(2**26)
    result = encode.run(plan)
    assert (result.digest, result.reused) == (known.digest, 1)
    assert sorted(first.parent.iterdir()) == sorted([first, second])


def test_a_dataset_is_published_whole_or_not_at_all(tmp_path: Path, disk: tuple[Path, Resize]) -> None:
    folder, resize = disk
    source = tmp_path / "rows.jsonl"
    rows = (
        {"question": f"What is {n} and {n % 7}?", "answer": f"It is {n + n % 7}." if n % 9 else ""} for n in range(3000)
    )
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def plan(store: Path) -> MaterializePlan:
        fields = {
            "name": "rows",
            "store": str(store),
            "source": {"uri": "pvc://claim/rows.jsonl"},
            "sourcePath": str(source),
            "columns": {"prompt": "question", "completion": "answer"},
            "checks": {"maxRejected": "50%"},
            "curation": {"deduplicate": "Near"},
        }
        return MaterializePlan.model_validate(fields)

    known = materialize.run(plan(tmp_path / "large"))
    whole = _used(tmp_path / "large")
    for size in (PAGE, whole // 4, whole // 2, whole - 2 * PAGE):
        resize(size)
        _full(lambda: materialize.run(plan(folder)))
        assert [path for path in folder.rglob("*") if path.is_file()] == []
    resize(2**26)
    assert materialize.run(plan(folder)).digest == known.digest


def test_rows_that_were_checked_before_the_disk_was_full_are_not_checked_again(
    tmp_path: Path, disk: tuple[Path, Resize], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_one, "SMALLEST", 0)
    monkeypatch.setattr(pieces, "BYTES", 20_000)
    monkeypatch.setattr(writing, "_LITTLE_ROOM", 0)
    folder, resize = disk
    source = tmp_path / "rows.jsonl"
    rows = ({"prompt": f"What is {n} and {n % 7}?", "completion": f"It is {n + n % 7}." * 9} for n in range(3000))
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def plan(top: Path) -> MaterializePlan:
        (kept := top / "kept").mkdir(exist_ok=True)
        fields = {"name": "rows", "store": str(top / "store"), "source": {"uri": "pvc://claim/rows.jsonl"}}
        return MaterializePlan.model_validate({**fields, "sourcePath": str(source), "downloadsPath": str(kept)})

    def kept() -> set[Path]:
        return {*(folder / "kept" / downloads.CHECKED).glob("*.parquet")}

    known, before = materialize.run(plan(tmp_path)), set[Path]()
    whole = source.stat().st_size
    for size in (whole // 4, whole // 2, whole, whole * 3 // 2):
        resize(size)
        _full(lambda: materialize.run(plan(folder)))
        assert before <= kept(), "what was kept stays"
        before = kept()
    assert len(before) > 5
    # Rows and what they are written from do not fit: the room that it gives is enough.
    monkeypatch.setattr(writing, "_LITTLE_ROOM", whole // 4)
    times = {path: path.stat().st_mtime_ns for path in before}
    seen: dict[Path, int] = {}
    judge = curation.judge

    def judged(*arguments: Any) -> None:
        judge(*arguments)
        seen.update({path: path.stat().st_mtime_ns for path in before})

    monkeypatch.setattr(curation, "judge", judged)
    assert materialize.run(plan(folder)).digest == known.digest
    assert seen == times, "no kept part was written again"
    assert not kept()


def test_too_little_memory_for_all_rows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "budget", lambda: 2**20)
    with Relation([], tmp_path / "relation", 2**30) as rows, pytest.raises(MemoryError) as caught:
        rows.execute("CREATE TABLE many AS SELECT md5(range::VARCHAR) AS text FROM range(100000) ORDER BY text")
    assert classify(caught.value).code == FailureCode.OUT_OF_MEMORY
