"""Each number of the table arrives everywhere: report, status, curve, gauges. No number is outside the table."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hone_api.contract.report import HoneStatus, Metric, ProgressReport, TrainerStatus
from hone_api.kinds.finetunejob_status import JobProgress
from hone_api.words.progress_numbers import MEASURED, PROGRESS_NUMBERS, ProgressNumber
from hone_operator.monitoring.objectmetrics import ObjectCollector
from hone_operator.objects.cache import Cache
from hone_operator.progress.numbers import update
from hone_operator.reconcile.run.progress import extend_curves
from hone_trainer.reporting.live import Progress, Reporters, to_report
from hone_trainer.reporting.prometheus import PrometheusReporter

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SHOWN_OTHERWISE = {"tracking_run", "start_step", "eta_seconds", "phases"}
"""Fields of the trainer's progress that the status shows in another form (steps lost, a time, phases, MLflow's run)."""
VALUES = {number.name: place for place, number in enumerate(PROGRESS_NUMBERS, 2)} | {"step": 98}
"""A different value for each number, so that a mix-up is seen."""
each = pytest.mark.parametrize("number", PROGRESS_NUMBERS, ids=lambda number: number.name)


@pytest.fixture(scope="module")
def report() -> ProgressReport:
    """What arrives at the operator from a trainer that reports every number."""
    progress = Progress(stage="Training", **VALUES)  # refuses a name that it has no field for
    return ProgressReport.model_validate_json(to_report(progress).model_dump_json(by_alias=True))


@pytest.fixture(scope="module")
def status(report: ProgressReport) -> dict[str, Any]:
    """status.progress as the operator writes it."""
    latest = update(report, 1, None, NOW)
    assert latest
    return latest.progress.to_json()


def leaves(body: Any) -> Iterator[Any]:
    """Every value in a body of JSON that is not an object or a list."""
    if isinstance(body, dict | list):
        for value in body.values() if isinstance(body, dict) else body:
            yield from leaves(value)
    else:
        yield body


def gauges(text_or_families: Any) -> dict[str, tuple[str, list[float]]]:
    return {f.name: (f.documentation, [s.value for s in f.samples]) for f in text_or_families}


@each
def test_a_report_carries_it(number: ProgressNumber, report: ProgressReport) -> None:
    sent = report.to_json()["hone"]
    assert sent[number.json_name] == (VALUES[number.name] if number.count else str(VALUES[number.name]))


def test_a_number_travels_once() -> None:
    progress = Progress(stage="Training", metrics={"reward": 99.0}, **VALUES)
    sent = [str(value) for value in leaves(to_report(progress).to_json())]
    for value in (*VALUES.values(), 99):
        assert sent.count(str(value)) == 1


@each
def test_the_status_shows_it(number: ProgressNumber, status: dict[str, Any]) -> None:
    value = VALUES[number.name] if number.count else str(VALUES[number.name])
    assert status.get(number.json_name) == (value if number.in_status else None)


@each
def test_it_is_described_by_the_table(number: ProgressNumber) -> None:
    for model in (HoneStatus, JobProgress):
        if model is HoneStatus or number.in_status:
            assert model.model_fields[number.name].description == number.description


@each
def test_it_has_a_curve_where_the_table_says_so(number: ProgressNumber, status: dict[str, Any]) -> None:
    found = {series["name"]: series["curve"] for series in extend_curves([], status)}
    step = VALUES["eval_step" if number.name.startswith("eval_") else "loss_step"]
    assert found.get(number.name) == (f"{step}:{VALUES[number.name]}" if number.curve else None)


def test_the_trainer_has_a_gauge_of_each() -> None:
    metrics = PrometheusReporter("my-job", 0, "127.0.0.1")
    try:
        metrics.report(Progress(stage="Training", phases={"loading": 2.5}, **VALUES))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as answer:
            served = gauges(text_string_to_metric_families(answer.read().decode()))
    finally:
        metrics.close()
    served.pop("hone_trainer_last_progress_timestamp_seconds")
    assert served.pop("hone_trainer_phase_seconds")[1] == [2.5]
    assert served == {
        f"hone_trainer_{n.gauge_name}": (n.description, [float(VALUES[n.name])]) for n in PROGRESS_NUMBERS
    }


@each
def test_the_operator_has_a_gauge_where_the_table_says_so(number: ProgressNumber, status: dict[str, Any]) -> None:
    cache = Cache()
    meta = {"namespace": "ml", "name": "my-job", "uid": "1", "creationTimestamp": "2026-01-02T03:00:00Z"}
    running = {"progress": status, "attempts": [{"number": 1, "jobName": "my-job-1"}]}
    cache.put("FineTuneJob", {"metadata": meta, "spec": {"model": {}}, "status": running})
    found = gauges(ObjectCollector(cache).collect()).get(f"hone_job_{number.gauge_name}")
    assert found == ((number.description, [float(VALUES[number.name])]) if number.job_gauge else None)


@pytest.mark.parametrize("number", [n for n in MEASURED if n.kubeflow], ids=lambda number: number.name)
def test_it_is_taken_from_a_stock_script(number: ProgressNumber) -> None:
    status = TrainerStatus(metrics=[Metric(name=number.kubeflow, value="0.5")])
    latest = update(ProgressReport(trainer_status=status), 1, None, NOW)
    assert latest
    assert getattr(latest.progress, number.name) == "0.5"


def test_no_number_is_outside_the_table() -> None:
    names = {number.name for number in PROGRESS_NUMBERS}
    in_trainer = set(Progress.model_fields) - {"stage", "metrics"}
    assert in_trainer - SHOWN_OTHERWISE == names
    assert set(HoneStatus.model_fields) - {"stage", "metrics"} - SHOWN_OTHERWISE == names
    for_people = {"percent", "metrics", "eta", "stage", "summary", "last_updated_time"}
    assert set(JobProgress.model_fields) - for_people == {n.name for n in PROGRESS_NUMBERS if n.in_status}


def test_the_progress_has_no_field_of_another_name() -> None:
    reporters = Reporters()
    with pytest.raises(TypeError, match=r"Progress has no field los$"):
        reporters.update(los=1.0)
    with pytest.raises(ValueError, match="los"):
        Progress(los=1.0)


ONE_LINE = {
    "tokens_seen": '    tokens_seen: int | None = _count("Tokens trained on so far", job_gauge=False)\n',
    "gradient_noise": '    gradient_noise: ValueT | None = _measured("Latest gradient noise scale", curve=True)\n',
}


@pytest.mark.parametrize("name", ONE_LINE)
def test_a_new_number_is_one_line(name: str, tmp_path: Path) -> None:
    """The tests above, with an API that has one line more: they ask every place for every number."""
    package = shutil.copytree(
        ROOT / "crds/hone_api", tmp_path / "hone_api", ignore=shutil.ignore_patterns("__pycache__")
    )
    table = package / "words/progress_numbers.py"
    before, mark, after = table.read_text().partition("    slowest_rank: ")
    table.write_text(before + ONE_LINE[name] + mark + after)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "not one_line", __file__],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
    assert f"test_the_status_shows_it[{name}] PASSED" in ran.stdout
