"""Class H, bad data: a file ends as a code with the place, crashes nothing, and writes nothing outside the store."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api.contract.report import DatasetResult
from hone_api.contract.termination import TerminationMessage
from hone_api.plan import MaterializePlan
from hone_api.words.failures import FAILURES
from hone_trainer.datasets import materialize
from hone_trainer.datasets.readers import read
from hone_trainer.errors import to_outcome

pytestmark = pytest.mark.trainer

HERE = Path(__file__).parent
FILES = HERE / "data"
EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "data.yaml").read_text())
GOOD = "".join(
    json.dumps({"prompt": f"What is {i}?", "completion": f"It is the number {i}."}) + "\n" for i in range(20)
)
Materialise = Callable[..., TerminationMessage]


@pytest.fixture
def materialise(tmp_path: Path) -> Materialise:
    """Materialises a file as a pod does; gives the outcome after its way through the termination message."""

    def run(path: Path, **fields: Any) -> TerminationMessage:
        plan = MaterializePlan.model_validate(
            {
                "name": "rows",
                "store": str(tmp_path / "store"),
                "source": {"uri": f"pvc://claim/{path.name}"},
                "sourcePath": str(path),
                **fields,
            }
        )
        try:
            outcome = TerminationMessage(result=materialize.run(plan))
        except Exception as error:
            outcome = to_outcome(error)
        return TerminationMessage.model_validate_json(outcome.to_termination_message())

    return run


def code_of(outcome: TerminationMessage) -> str:
    return outcome.failure.code if outcome.failure else "Ready"


def result_of(outcome: TerminationMessage) -> DatasetResult:
    assert isinstance(outcome.result, DatasetResult)
    return outcome.result


def test_the_corpus_is_whole() -> None:
    assert set(EXPECTED) == {file.name for file in FILES.iterdir()}
    assert len(EXPECTED) >= 60
    assert {entry["code"] for entry in EXPECTED.values()} <= {"Ready", *FAILURES} - {"TrainerError"}


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.faults("T7")
def test_a_file_ends_as_expected(name: str, materialise: Materialise, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    outcome = materialise(FILES / name)
    assert code_of(outcome) == expected["code"], outcome.failure
    result = result_of(outcome)
    assert {error.code: error.rows for error in result.errors} == expected.get("rejected", {})
    assert result.rows == expected.get("rows", 0)
    said = outcome.failure.message if outcome.failure else str(result.summary)
    assert expected.get("says", "") in said + " ".join(str(error.example) for error in result.errors)
    assert {path.name for path in tmp_path.iterdir()} == {"store"}
    assert {path.name for path in (tmp_path / "store").iterdir()} <= {"datasets", "reports"}


@pytest.mark.parametrize("name", ["injection.jsonl", "lone-surrogate-in-key.jsonl", "latin1.csv", "web-page.csv"])
def test_the_report_shows_rows_as_text(name: str, materialise: Materialise, tmp_path: Path) -> None:
    outcome = materialise(FILES / name)
    page = (tmp_path / "store" / str(result_of(outcome).report)).read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("<html") == 1
    assert json.loads((tmp_path / "store" / str(result_of(outcome).report)).with_suffix(".json").read_text())
    if name == "injection.jsonl":
        assert "&lt;script&gt;alert(1)&lt;/script&gt;$(id)`id`{{7*7}}%s" in page


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No more than 128 MiB may be held by Python at once."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * 2**20, f"{peak / 2**20:.0f} MiB"


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_20_megabytes_is_one_rejected_row(packed: bool, materialise: Materialise, tmp_path: Path) -> None:
    text = (GOOD + json.dumps({"prompt": "q", "completion": "x" * 20 * 2**20}) + "\n" + GOOD).encode()
    file = tmp_path / "in" / "rows.jsonl"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(text, 1) if packed else text)
    outcome = materialise(file)
    assert code_of(outcome) == "Ready"
    assert {error.code: error.rows for error in result_of(outcome).errors} == {"RowTooLarge": [21]}
    assert result_of(outcome).rows == 40


@pytest.mark.usefixtures("little_memory")
def test_a_csv_field_of_20_megabytes(materialise: Materialise, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("prompt,completion\n" + "q,a\n" * 20 + "q," + "x" * 20 * 2**20 + "\n")
    outcome = materialise(file)
    assert {error.code: error.rows for error in result_of(outcome).errors} == {"RowTooLarge": [21]}


@pytest.mark.usefixtures("little_memory")
def test_a_bomb_stops_at_the_limit_of_the_source(materialise: Materialise, tmp_path: Path) -> None:
    """20 MB of one row in some kB: the limit is on what is unpacked."""
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wb", 9) as bomb:
        for _ in range(20):
            bomb.write(b'{"text": "billion laughs"}\n' * 40_000)
    assert file.stat().st_size < 2**20
    outcome = materialise(file, limits={"maxSourceBytes": 2**20})
    assert code_of(outcome) == "SourceTooLarge"


@pytest.mark.usefixtures("little_memory")
def test_a_bomb_without_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    with gzip.open(file, "wb", 9) as bomb:
        for _ in range(200):
            bomb.write(b" " * 2**20)
    rows = list(read.read_rows([read.DataFile(file, "rows.jsonl.gz")], 2**30))
    assert [row.error.code for row in rows if row.error] == ["RowTooLarge"]


def test_one_bad_row_in_many_is_found(materialise: Materialise, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"text": f"row {i}"}) for i in range(20_000)]
    rows[13_579] = '{"text": '
    file.write_text("\n".join(rows))
    outcome = materialise(file)
    assert code_of(outcome) == "Ready"
    (error,) = result_of(outcome).errors
    assert (error.code, error.count, error.rows) == ("BrokenJson", 1, [13_580])
    assert "rows.jsonl:13580" in str(error.example)


def test_none_of_the_rows_is_left(materialise: Materialise, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": ""}\n' * 1000)
    outcome = materialise(file, checks={"maxRejected": "100%"})
    assert code_of(outcome) == "TooManyBadRows"
    assert result_of(outcome).rejected == 1000
