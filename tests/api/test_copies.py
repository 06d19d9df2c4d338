"""What the operator copies from a report or a spec always fits the object that it copies it to."""

import pytest

from hone_api.contract.report import DatasetResult, TrainingResult
from hone_api.contract.termination import FailureReport, TerminationMessage, parse_outcome
from hone_api.dataset.dataset_status import DatasetStatus, RowErrorCount
from hone_api.kinds.finetunejob import ModelRef
from hone_api.kinds.modelversion import AnsweredPrompt, BaseModelLineage, EvaluationNumber, ModelEvaluation
from hone_api.kinds.resolved import Resolved

pytestmark = pytest.mark.pure


def test_numbers_and_samples_fit_a_model_version() -> None:
    result = TrainingResult(
        artifacts=[],
        steps=1,
        numbers=[EvaluationNumber(name=str(i), tuned="1") for i in range(90)],
        samples=[AnsweredPrompt(prompt=str(i), tuned="a") for i in range(64)],
    )
    read = parse_outcome(TerminationMessage(result=result).to_termination_message())
    assert read
    assert isinstance(read.result, TrainingResult)
    evaluation = ModelEvaluation(numbers=read.result.numbers, samples=read.result.samples)
    assert [s.prompt for s in evaluation.samples] == ["0", "1", "2", "3"]
    assert [n.name for n in evaluation.numbers] == [str(i) for i in range(64)]


def test_more_than_the_trainer_sends_also_fits() -> None:
    """A pod of the tenant can write any message."""
    numbers = ", ".join(['{"name": "x", "tuned": "1"}'] * 99)
    message = f'{{"result": {{"kind": "Training", "artifacts": [], "steps": 1, "numbers": [{numbers}]}}}}'
    assert len(message) <= 4096
    read = parse_outcome(message)
    assert read
    assert isinstance(read.result, TrainingResult)
    ModelEvaluation(numbers=read.result.numbers)


def test_row_errors_fit_a_status() -> None:
    result = DatasetResult(errors=[RowErrorCount(code=f"E{i}", count=1, rows=[i]) for i in range(40)])
    read = parse_outcome(TerminationMessage(result=result).to_termination_message())
    assert read
    assert isinstance(read.result, DatasetResult)
    assert [e.code for e in DatasetStatus(errors=read.result.errors).errors or ()] == [f"E{i}" for i in range(32)]


@pytest.mark.parametrize(("text", "told"), [("a\ud800b", "a?b"), ("caf\udce9.txt", "caf?.txt"), ("雪🦊", "雪🦊")])
def test_a_text_without_utf8_form_is_reported_as_well(text: str, told: str) -> None:
    """Rows and file names can hold half of a surrogate pair; the failure that reports it must not fail."""
    failure = FailureReport(code="InvalidRow", message=text, hint=text)
    result = DatasetResult(errors=[RowErrorCount(code="MissingColumn", count=1, example=text)])
    read = parse_outcome(TerminationMessage(result=result, failure=failure).to_termination_message())
    assert read
    assert read.failure
    assert (read.failure.message, read.failure.hint) == (told, told)
    assert isinstance(read.result, DatasetResult)
    assert read.result.errors[0].example == told


def test_the_longest_model_uri_fits_status_and_lineage() -> None:
    uri = ModelRef(uri="pvc://models/" + "a" * 1011).uri
    assert uri
    assert (BaseModelLineage(uri=uri).uri, Resolved(model_uri=uri).model_uri) == (uri, uri)


def test_a_model_uri_has_a_longest() -> None:
    with pytest.raises(ValueError, match="at most 1024 characters"):
        ModelRef(uri="pvc://models/" + "a" * 1012)
