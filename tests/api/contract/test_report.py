"""The termination message: it always fits, and what the operator decides by is never cut."""

import json
import random
from typing import Any, get_origin

import pytest
from pydantic import ValidationError

from hone_api.contract.plan_reading import parse_plan
from hone_api.contract.report import DatasetResult, EncodeResult, FetchResult, TasksResult, TrainingResult, VerifyResult
from hone_api.contract.termination import MAX_TERMINATION_MESSAGE, FailureReport, TerminationMessage, parse_outcome
from hone_api.dataset.curation import CurationStep
from hone_api.dataset.dataset_status import (
    Changes,
    Croissant,
    DatasetUse,
    LanguageRows,
    NotReadFiles,
    OverContext,
    RowErrorCount,
    SharedRows,
    SplitRows,
    TokenStatistics,
)
from hone_api.dataset.synthesis import FilteredRows, SyntheticRows
from hone_api.kinds.modelversion import AnsweredPrompt, Artifact, EvaluationNumber
from hone_api.kinds.resolved import MAX_TASK_DATA_SETS
from hone_api.plan import TrainingPlan
from hone_api.words.failures import FAILURES, ExitCode, Retry

pytestmark = pytest.mark.pure

DIGEST = "sha256:" + "a" * 64
ALPHABETS = ("a", "aé", "雪", "🦊", "\x01", '"\\', "a🦊\n\x00é")


class Texts:
    """Texts of chosen alphabets and lengths, the same for the same seed."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def number(self, most: int) -> int:
        """Often the bound itself."""
        return self._random.choice([0, 1, self._random.randint(0, most), most])

    def text(self, most: int, least: int = 0) -> str:
        alphabet = self._random.choice(ALPHABETS)
        return "".join(self._random.choices(alphabet, k=max(least, self.number(most))))


def training(t: Texts) -> TrainingResult:
    forms: tuple[Any, ...] = ("Adapter", "Merged", "Full", "GGUF")
    return TrainingResult(
        artifacts=[Artifact(format=f, uri=f, digest=DIGEST, size_bytes=2**53 - 1) for f in forms[: t.number(4)]],
        numbers=[
            EvaluationNumber(name=t.text(253), dataset=t.text(253), base=t.text(253), tuned=t.text(253), rows=1)
            for _ in range(t.number(64))
        ],
        samples=[
            AnsweredPrompt(prompt=t.text(4096), reference=t.text(4096), base=t.text(4096), tuned=t.text(4096))
            for _ in range(t.number(8))
        ],
        steps=t.number(10**9),
        reason=t.text(64),
        advice=[t.text(600) for _ in range(t.number(20))],
        rejected=t.text(600),
        train_loss=t.text(64),
        tokens_per_second=t.text(64),
        resolved={f"{i}{t.text(40)}": t.text(200) for i in range(t.number(40))},
    )


def materialized(t: Texts) -> DatasetResult:
    return DatasetResult(
        digest=DIGEST,
        path="datasets/" + "a" * 64,
        revision="f" * 253,
        format_detected=t.text(253),
        rows=10**12,
        splits=[SplitRows(name="s" * 32, rows=10**12) for _ in range(t.number(8))],
        rejected=10**12,
        errors=[
            RowErrorCount(code=t.text(253), count=1, rows=[10**12] * t.number(10), example=t.text(4096))
            for _ in range(t.number(40))
        ],
        duplicates=10**12,
        tokens=TokenStatistics(total=10**15),
        mixture=[
            DatasetUse(
                name="n" * 63,
                split="validation",
                digest=DIGEST,
                rows=10**12,
                tokens=10**15,
                row_share="100.0%",
                token_share="100.0%",
                passes="0.25",
            )
            for _ in range(t.number(48))
        ],
        changes=Changes(previous=DIGEST, added=10**12, removed=10**12),
        croissant=Croissant(
            name=t.text(253), description=t.text(600), license=t.text(253), cite_as=t.text(600), url=t.text(253)
        ),
        source_version=t.text(253),
        report="reports/" + "r" * 63 + "/report.html",
    )


def full_lists() -> DatasetResult:
    """As many entries as each list takes."""
    most = 2**53 - 1
    many = {
        "splits": [SplitRows(name="validation", rows=most)] * 8,
        "errors": [RowErrorCount(code="MissingColumn", count=most, rows=[most] * 10, example="e" * 4096)] * 32,
        "not_read": [NotReadFiles(reason="Description", count=most, first=["f" * 253] * 5)] * 16,
        "curation": [CurationStep(step="NearDuplicates", removed=most, rows=[most] * 10, example="e" * 4096)] * 16,
        "shared_rows": [SharedRows(name="n" * 63, digest=DIGEST, rows=most, questions=most, crossing=most)] * 16,
        "mixture": [
            DatasetUse(
                name="n" * 63, split="validation", digest=DIGEST, rows=most, tokens=most,
                row_share="100.0%", token_share="100.0%", passes="0.25",
            )
        ] * 48,
        "languages": [LanguageRows(language="other", rows=most, share="100.0%")] * 8,
        "advice": ["a" * 600] * 16,
    }  # fmt: skip
    return materialized(Texts(0)).model_copy(
        update={
            **many,
            "tokens": TokenStatistics(total=most, over=[OverContext(context=most, rows=most, share="100.0%")] * 8),
            "synthetic": SyntheticRows(filtered=[FilteredRows(reason="NotVerified", count=most)] * 8, folder="f" * 253),
        }
    )


def failure(t: Texts) -> FailureReport:
    return FailureReport(
        code=random.Random(t.number(99)).choice(sorted(FAILURES)),
        message=t.text(2000),
        hint=t.text(600),
        rank=1023,
        step=10**9,
    )


def staged_tasks() -> TasksResult:
    data_sets = ["d" * 75 + "@" + "c" * 64] * MAX_TASK_DATA_SETS
    path = "evaluation-tasks/" + "m" * 236
    return TasksResult(path=path, digest=DIGEST, version="9" * 64, data_sets=data_sets, size_bytes=2**53 - 1)


def encoded(t: Texts) -> EncodeResult:
    return EncodeResult(
        digest=DIGEST,
        splits=32,
        rows=2**53 - 1,
        tokens=2**53 - 1,
        size_bytes=2**53 - 1,
        tokens_per_second="9" * 64,
        summary=[t.text(600) for _ in range(16)],
        advice=[t.text(600) for _ in range(16)],
    )


def outcomes(seed: int) -> list[TerminationMessage]:
    t = Texts(seed)
    return [
        TerminationMessage(result=training(t)),
        TerminationMessage(result=materialized(t)),
        TerminationMessage(failure=failure(t)),
        TerminationMessage(result=materialized(t), failure=failure(t)),
        TerminationMessage(result=FetchResult(path="base-models/" + "m" * 241, commit="c" * 253)),
        TerminationMessage(result=staged_tasks()),
        TerminationMessage(result=encoded(t)),
        TerminationMessage(result=VerifyResult(files=10**9, size_bytes=2**53 - 1)),
    ]


@pytest.mark.parametrize("seed", range(40))
def test_it_fits_and_keeps_what_is_decided_by(seed: int) -> None:
    for outcome in outcomes(seed):
        before = outcome.model_copy(deep=True)
        message = outcome.to_termination_message()
        assert len(message.encode()) <= MAX_TERMINATION_MESSAGE
        assert outcome == before, "the outcome itself is not changed"
        read = parse_outcome(message)
        assert read is not None
        assert read.exit_code == outcome.exit_code
        if outcome.failure:
            assert read.failure
            kept = ("code", "rank", "step")
            assert [getattr(read.failure, k) for k in kept] == [getattr(outcome.failure, k) for k in kept]
            assert outcome.failure.message.startswith(read.failure.message.removesuffix("…"))
        if outcome.result:
            assert read.result
            assert read.result.kind == outcome.result.kind
        if isinstance(outcome.result, TrainingResult):
            assert isinstance(read.result, TrainingResult)
            assert read.result.artifacts == outcome.result.artifacts
            assert read.result.steps == outcome.result.steps
            assert bool(read.result.rejected) == bool(outcome.result.rejected)
            assert outcome.result.numbers[: len(read.result.numbers)] == read.result.numbers
        if isinstance(outcome.result, DatasetResult):
            assert isinstance(read.result, DatasetResult)
            assert (read.result.digest, read.result.path) == (outcome.result.digest, outcome.result.path)
            assert (read.result.rows, read.result.rejected) == (outcome.result.rows, outcome.result.rejected)
            assert read.result.splits == outcome.result.splits
            codes = [(e.code, e.count, e.rows) for e in outcome.result.errors]
            assert [(e.code, e.count, e.rows) for e in read.result.errors] == codes[: len(read.result.errors)]


@pytest.mark.parametrize("failed", [None, failure(Texts(1))])
def test_a_dataset_whose_lists_are_full_fits(failed: FailureReport | None) -> None:
    result = full_lists()
    lists = {name for name, field in DatasetResult.model_fields.items() if get_origin(field.annotation) is list}
    assert {name for name in lists if getattr(result, name)} == lists, "each list is tried"
    message = TerminationMessage(result=result, failure=failed).to_termination_message()
    assert len(message.encode()) <= MAX_TERMINATION_MESSAGE
    read = parse_outcome(message)
    assert read
    assert isinstance(read.result, DatasetResult)
    assert (read.result.digest, read.result.splits) == (result.digest, result.splits)


@pytest.mark.parametrize("count", range(17))
def test_many_shared_datasets_leave_what_is_decided_by(count: int) -> None:
    shared = full_lists().shared_rows[:count]
    result = DatasetResult(digest=DIGEST, path="datasets/" + "a" * 64, source_version="v" * 64, shared_rows=shared)
    read = parse_outcome(TerminationMessage(result=result).to_termination_message())
    assert read
    assert isinstance(read.result, DatasetResult)
    assert read.result.source_version == result.source_version
    assert len(read.result.shared_rows) >= min(count, 4)


def test_what_fits_is_not_cut() -> None:
    numbers = [EvaluationNumber(name="loss", base="3.9", tuned="2.1", rows=10)]
    sample = AnsweredPrompt(prompt="What is a Pod?", tuned="The smallest unit.")
    artifact = Artifact(format="Adapter", uri="adapter", digest=DIGEST, size_bytes=7)
    outcome = TerminationMessage(
        result=TrainingResult(artifacts=[artifact], numbers=numbers, samples=[sample], steps=12)
    )
    assert parse_outcome(outcome.to_termination_message()) == outcome


def test_of_a_sample_that_is_shortened_the_mark_of_a_loop_is_kept() -> None:
    sample = AnsweredPrompt(prompt="?" * 4096, base="b", tuned="a" * 4096, base_ending="Cut", tuned_ending="Repeats")
    read = parse_outcome(
        TerminationMessage(result=TrainingResult(artifacts=[], samples=[sample], steps=1)).to_termination_message()
    )
    assert read is not None
    assert isinstance(read.result, TrainingResult)
    (kept,) = read.result.samples
    assert len(kept.tuned) < 4096
    assert (kept.base_ending, kept.tuned_ending) == ("Cut", "Repeats")


def test_of_many_numbers_as_many_as_fit_are_kept() -> None:
    """Twelve tasks of two metrics each are more than the kubelet keeps."""
    numbers = [
        EvaluationNumber(
            name="acc_norm",
            dataset=f"arc_challenge_{n}",
            base="0.250000",
            tuned="0.255000",
            change_low="-0.010000",
            change_high="0.020000",
            purpose="Harness",
            rows=200,
        )
        for n in range(24)
    ]
    artifact = Artifact(format="Adapter", uri="adapter", digest=DIGEST, size_bytes=7)
    message = TerminationMessage(
        result=TrainingResult(artifacts=[artifact], numbers=numbers, steps=12)
    ).to_termination_message()
    read = parse_outcome(message)
    assert read
    assert isinstance(read.result, TrainingResult)
    assert 10 < len(read.result.numbers) < 24
    assert read.result.numbers == numbers[: len(read.result.numbers)]
    assert len(message.encode()) > MAX_TERMINATION_MESSAGE - 200


@pytest.mark.parametrize("code", ["Pwned\n", "pwned", "two words", "<b>", "", "A" * 65])
def test_a_code_that_none_of_ours_could_be_is_not_read(code: str) -> None:
    written = json.dumps({"failure": {"code": code, "message": "m"}})
    assert parse_outcome(written) is None
    assert parse_outcome(written.replace(json.dumps(code), '"OfALaterVersion"'))


def test_row_numbers_outlive_long_texts() -> None:
    errors = [RowErrorCount(code="MissingColumn", count=9, rows=[1, 2, 3], example="é" * 4096)]
    failed = FailureReport(code="TooManyBadRows", message="é" * 2000, hint="Mend the rows listed.")
    read = parse_outcome(
        TerminationMessage(result=DatasetResult(errors=errors), failure=failed).to_termination_message()
    )
    assert read
    assert isinstance(read.result, DatasetResult)
    assert read.result.errors[0].rows == [1, 2, 3]
    assert read.failure
    assert read.failure.hint == "Mend the rows listed."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[]",
        "killed",
        "Traceback (most recent call last):",
        "[" * 5000,
        '{"failure": {"code": "x"',
        '{"failure": {"code": "X"}}',
        '{"failure": NaN}',
        '{"result": {"kind": "Dance"}}',
        '{"other": 1}',
    ],
)
def test_what_is_not_ours_is_no_outcome(text: str) -> None:
    assert parse_outcome(text) is None


@pytest.mark.parametrize("code", sorted(FAILURES))
def test_every_failure_has_an_exit_code_and_a_hint(code: str) -> None:
    known = FAILURES[code]
    assert code.isascii()
    assert code.isalpha()
    assert code[0].isupper()
    assert len(code) <= 64, "it is the reason of a condition"
    assert known.hint.endswith(".")
    assert known.hint[0].isupper()
    assert len(known.hint) <= 600, "it must fit FailureReport.hint"
    assert known.exit_code in {1, 65, 70, 74, 75, 78}, "the contract: 0 is success"
    assert (known.exit_code == ExitCode.INTERRUPTED) == (known.retry is Retry.DISRUPTION)
    assert (
        TerminationMessage(failure=FailureReport(code=code, message="x", hint=known.hint)).exit_code == known.exit_code
    )


def test_success_is_exit_code_0() -> None:
    assert TerminationMessage(result=VerifyResult(files=1, size_bytes=1)).exit_code == 0


PLAN: dict[str, Any] = {
    "kind": "Training",
    "run": "tutor-1",
    "modelPath": "model",
    "modelUri": "hf://owner/model",
    "datasets": [{"name": "rows", "path": "rows.jsonl", "digest": DIGEST}],
    "output": {"modelName": "tutor"},
    "workPath": "work",
    "outputPath": "out",
}


def test_a_plan_survives_json() -> None:
    plan = TrainingPlan.model_validate(PLAN)
    assert parse_plan(plan.model_dump_json(by_alias=True)) == plan


def test_a_plan_names_all_wrong_fields_at_once() -> None:
    wrong = TrainingPlan.model_validate(PLAN).to_json()
    wrong["adapter"]["type"] = "Lora"
    wrong["training"] |= {"batchSize": -1, "learningRate": "fast", "lr": "1e-4"}
    wrong["datasets"][0]["digest"] = "sha256:abc"
    del wrong["outputPath"]
    with pytest.raises(ValidationError) as caught:
        parse_plan(json.dumps(wrong))
    assert {".".join(map(str, e["loc"])) for e in caught.value.errors()} == {
        "Training.adapter.type",
        "Training.training.batchSize",
        "Training.training.learningRate",
        "Training.training.lr",
        "Training.datasets.0.digest",
        "Training.outputPath",
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "Dance"}, "Materialize"),
        ({"contract": 2}, "contract"),
        ({"masterPort": 70000}, "masterPort"),
        ({"nodes": 0}, "nodes"),
    ],
)
def test_another_contract_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        parse_plan(json.dumps(PLAN | change))
