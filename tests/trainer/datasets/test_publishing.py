"""Rows that one container makes and another one publishes: as at once, and nothing but what a manifest says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import TerminationMessage, parse_outcome
from hone_api.plan import MaterializePlan
from hone_trainer import secrets
from hone_trainer.__main__ import main
from hone_trainer.datasets import materialize, publishing
from hone_trainer.store import manifest

pytestmark = pytest.mark.trainer
ROWS = "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(50))
OTHERS = "".join(json.dumps({"text": f"somebody else's {i}"}) + "\n" for i in range(50))


class Pod:
    """The two containers of a pod, run in this process."""

    def __init__(self, folder: Path, rows: str = ROWS, name: str = "rows") -> None:
        (folder / f"{name}.jsonl").write_text(rows)
        self.store, self.log, self.incoming = folder / "store", folder / "log", folder / "store" / "incoming" / name
        self.file = folder / f"{name}.json"
        source = {"source": {"uri": "pvc://claim/rows.jsonl"}, "sourcePath": str(folder / f"{name}.jsonl")}
        self.fields = {"kind": "Materialize", "name": name, "store": str(self.store), **source}
        self.write(incoming=str(self.incoming))

    def write(self, **fields: object) -> None:
        self.fields |= fields
        self.file.write_text(json.dumps(self.fields))

    def runs(self, verb: str) -> tuple[int, TerminationMessage]:
        """(exit code, outcome) of a container."""
        code = main([verb, str(self.file)])
        return code, parse_outcome(self.log.read_text()) or TerminationMessage()

    def at_once(self) -> DatasetResult:
        plan = MaterializePlan.model_validate({**self.fields, "incoming": None})
        return materialize.run(plan)

    def below(self, folder: str) -> dict[str, bytes]:
        """All files of a folder of the store."""
        root = self.store / folder
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    monkeypatch.setenv("HONE_TERMINATION_LOG", str(tmp_path / "log"))
    return Pod(tmp_path)


def test_what_parses_writes_its_folder_alone_and_the_result_is_that_of_one_process(pod: Pod, tmp_path: Path) -> None:
    assert pod.runs("materialize") == (0, TerminationMessage())
    assert {path.name for path in pod.store.iterdir()} == {"incoming"}
    assert {path.name for path in pod.incoming.iterdir()} == {publishing.CONTENT, publishing.OUTCOME}
    code, outcome = pod.runs("publish")
    assert (code, outcome.failure) == (0, None)
    published = pod.below("datasets")
    assert not pod.incoming.exists()

    (tmp_path / "alone").mkdir()
    alone = Pod(tmp_path / "alone")
    assert outcome.result == alone.at_once().model_copy(update={"source_version": outcome.result.source_version})
    assert published == alone.below("datasets")


def test_rows_that_are_not_fit_fail_as_ever_and_their_report_is_kept(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(ROWS + "{\n" * 20)
    assert pod.runs("materialize")[0] == 0
    assert not (pod.store / "reports").exists()
    code, outcome = pod.runs("publish")
    assert (code, outcome.failure.code, outcome.result.rejected) == (65, "TooManyBadRows", 20)
    assert outcome.result.report == "reports/rows/report.html"
    assert {"report.html", "report.json", "rejected.jsonl"} <= pod.below("reports/rows").keys()
    assert not {"train.jsonl", "train.keys.parquet", "manifest.json"} & pod.below("reports/rows").keys()
    assert not pod.incoming.exists()


def test_a_failure_without_a_report_is_named_by_the_rank_that_had_it(pod: Pod, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").unlink()
    code, outcome = pod.runs("materialize")
    assert (code, outcome.failure.code) == (78, "SourceNotFound")
    code, outcome = pod.runs("publish")
    assert (code, outcome.failure.code) == (74, "StorageError")


def test_a_second_reading_keeps_a_report_of_its_own(pod: Pod, tmp_path: Path) -> None:
    first = pod.at_once()
    (tmp_path / "rows.jsonl").write_text(ROWS + "{\n")
    before = pod.below("datasets")
    pod.runs("materialize")
    code, outcome = pod.runs("publish")
    assert (code, outcome.result.digest, outcome.result.rejected) == (0, first.digest, 1)
    assert outcome.result.report == "reports/rows/report.html"
    assert json.loads(pod.below("reports/rows")["report.json"])["result"]["rejected"] == 1
    assert pod.below("datasets") == before


def test_a_pod_that_was_killed_is_begun_again(pod: Pod) -> None:
    (pod.incoming / "content").mkdir(parents=True)
    (pod.incoming / "content" / "train.jsonl").write_text("half of a row")
    assert pod.runs("materialize")[0] == 0
    assert pod.runs("publish")[1].result.rows == 50


def test_what_is_handed_over_has_no_credential(pod: Pod, tmp_path: Path) -> None:
    """Only the process that read one knows it."""
    secrets.remember("told-by-a-secret-7")
    (tmp_path / "rows.jsonl").write_text(ROWS + '{"told-by-a-secret-7": "x"}\n' * 20)
    assert pod.runs("materialize")[0] == 0
    text = (pod.incoming / publishing.OUTCOME).read_text()
    assert "TooManyBadRows" in text
    assert "told-by-a-secret-7" not in text


def _link_to_others(pod: Pod, others: Path) -> None:
    content = pod.incoming / publishing.CONTENT
    content.rename(pod.incoming / "aside")
    content.symlink_to(others)


def _other_rows(pod: Pod, _: Path) -> None:
    (pod.incoming / publishing.CONTENT / "train.jsonl").write_text(OTHERS)


def _digest_of_others(pod: Pod, others: Path) -> None:
    """Rows of its own under the name of somebody else's."""
    file = pod.incoming / publishing.OUTCOME
    told = json.loads(file.read_text())
    told["result"] |= {"digest": f"sha256:{others.name}", "path": f"datasets/{others.name}"}
    file.write_text(json.dumps(told))


def _link_to_a_file_of_others(pod: Pod, others: Path) -> None:
    (pod.incoming / publishing.CONTENT / "report.html").unlink()
    (pod.incoming / publishing.CONTENT / "report.html").symlink_to(others / "train.jsonl")


def _outcome_is_a_link(pod: Pod, others: Path) -> None:
    (pod.incoming / publishing.OUTCOME).unlink()
    (pod.incoming / publishing.OUTCOME).symlink_to(others / "report.json")


def _outcome_is_a_pipe(pod: Pod, _: Path) -> None:
    (pod.incoming / publishing.OUTCOME).unlink()
    os.mkfifo(pod.incoming / publishing.OUTCOME)


def _outcome_of_a_run(pod: Pod, _: Path) -> None:
    (pod.incoming / publishing.OUTCOME).write_text('{"result": {"kind": "Sweep"}}')


def _outcome_too_large(pod: Pod, _: Path) -> None:
    with open(pod.incoming / publishing.OUTCOME, "ab") as file:
        file.write(b" " * (16 * 2**20))


def _manifest_that_leaves_the_folder(pod: Pod, others: Path) -> None:
    file = pod.incoming / publishing.CONTENT / manifest.MANIFEST
    told = json.loads(file.read_text())
    told["files"][0]["path"] = f"../../../datasets/{others.name}/train.jsonl"
    file.write_text(json.dumps(told))


def _no_report(pod: Pod, _: Path) -> None:
    (pod.incoming / publishing.CONTENT / "report.json").unlink()
    manifest.write(pod.incoming / publishing.CONTENT)


def _report_is_a_folder(pod: Pod, _: Path) -> None:
    report = pod.incoming / publishing.CONTENT / "report.json"
    report.unlink()
    report.mkdir()
    (report / "report.json").write_text("{}")
    manifest.write(pod.incoming / publishing.CONTENT)


def _folder_that_nobody_can_empty(pod: Pod, _: Path) -> None:
    inner = pod.incoming / publishing.CONTENT / "inner"
    inner.mkdir()
    (inner / "train.jsonl").write_text(OTHERS)
    manifest.write(pod.incoming / publishing.CONTENT)
    inner.chmod(0o500)


def _folders_without_end(pod: Pod, _: Path) -> None:
    path = str(pod.incoming / publishing.CONTENT)
    for _level in range(1500):
        path += "/a"
        Path(path).mkdir()


def _no_rows_and_the_report_of_others(pod: Pod, _: Path) -> None:
    (pod.incoming / publishing.OUTCOME).write_text(
        '{"result": {"kind": "Materialize", "report": "reports/others/report.html"}}'
    )


@pytest.mark.attack("manifests")
@pytest.mark.parametrize(
    "tamper",
    [
        _no_report,
        _report_is_a_folder,
        _folder_that_nobody_can_empty,
        _folders_without_end,
        _no_rows_and_the_report_of_others,
        _link_to_others,
        _other_rows,
        _digest_of_others,
        _link_to_a_file_of_others,
        _outcome_is_a_link,
        _outcome_is_a_pipe,
        _outcome_of_a_run,
        _outcome_too_large,
        _manifest_that_leaves_the_folder,
    ],
)
def test_a_container_that_was_taken_over_reaches_nobody_elses_rows(
    pod: Pod, tmp_path: Path, tamper: Callable[[Pod, Path], None]
) -> None:
    others = Pod(tmp_path, OTHERS, "others")
    folder = pod.store / str(others.at_once().path)
    before = pod.below("datasets")
    assert pod.runs("materialize")[0] == 0
    tamper(pod, folder)
    code, outcome = pod.runs("publish")
    assert (code, outcome.result) == (74, None)
    assert outcome.failure.code in ("StorageError", "ManifestMismatch")
    assert pod.below("datasets") == before
    assert not pod.incoming.exists()


@pytest.mark.attack("manifests")
def test_where_rows_are_published_is_not_for_who_parsed_them_to_say(pod: Pod) -> None:
    pod.runs("materialize")
    file = pod.incoming / publishing.OUTCOME
    told = json.loads(file.read_text())
    told["result"] |= {"path": "models/somebody", "report": "reports/others/report.html", "sizeBytes": 1}
    file.write_text(json.dumps(told))
    result = pod.runs("publish")[1].result
    assert result.path == f"datasets/{result.digest.removeprefix('sha256:')}"
    assert result.report == f"{result.path}/report.html"
    assert result.size_bytes == manifest.size_of(pod.store / result.path)


@pytest.mark.attack("manifests")
def test_rows_without_a_report_that_are_there_keep_nobody_from_the_same_rows(pod: Pod) -> None:
    """As an earlier release may have published them."""
    folder = pod.store / str(pod.at_once().path)
    (folder / "report.json").unlink()
    manifest.write(folder)
    pod.runs("materialize")
    code, outcome = pod.runs("publish")
    assert (code, outcome.result.rows, outcome.result.report) == (0, 50, "reports/rows/report.html")


@pytest.mark.attack("manifests")
def test_without_rows_there_is_no_place_and_no_report(pod: Pod) -> None:
    pod.runs("materialize")
    told = {"kind": "Materialize", "unchanged": True, "path": "models/x", "report": "reports/others/report.html"}
    (pod.incoming / publishing.OUTCOME).write_text(json.dumps({"result": told}))
    result = pod.runs("publish")[1].result
    assert (result.unchanged, result.path, result.report) == (True, None, None)


def test_a_plan_of_one_container_has_nothing_to_publish(pod: Pod) -> None:
    pod.write(incoming=None)
    code, outcome = pod.runs("publish")
    assert (code, outcome.failure.code) == (78, "InvalidConfiguration")
    assert "incoming" in outcome.failure.message
