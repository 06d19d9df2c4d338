"""Words of a status stand once, in `states` and `failures` of `hone_api.words`: product code has no literal of them."""

import ast
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from hone_api.base.meta import ApiModel
from hone_api.generate import KINDS
from hone_api.words import states
from hone_api.words.failures import FAILURES, FailureCode
from hone_api.words.states import (
    CONDITIONS_OF,
    WAITS_FOR,
    ApprovalState,
    AttemptOutcome,
    ConditionType,
    DatasetPhase,
    DeliveryState,
    GateResult,
    ImportState,
    JobPhase,
    MeasurementState,
    Reason,
    State,
)

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("crds/hone_api", "operator/hone_operator", "cli/hone_cli", "dev/hone_dev", "trainer/hone_trainer")
DEFINED = (
    "crds/hone_api/words/states.py",
    "crds/hone_api/words/failures.py",
    "dev/hone_dev/generate/dashboard_story.py",  # samples of metrics for pictures
)
STATES: tuple[type[State], ...] = (
    ConditionType,
    Reason,
    JobPhase,
    DatasetPhase,
    AttemptOutcome,
    DeliveryState,
    GateResult,
    ImportState,
    MeasurementState,
    ApprovalState,
)
POD, JOB, NODE = "phase of a pod", "word of the Job API", "condition of a node"
KUEUE = "word of Kueue's API"
WHEN = "deliveries[].when of a Model"
STAGE = "a stage of a pod, as its reports name it"
TRIAL = "the state of a trial of a sweep"
OTHER_THINGS = {
    ("trainer/hone_trainer/encoding/split_file.py", "Encoded"): "the name of a class",
    ("crds/hone_api/words/phases.py", "Encoding"): STAGE,
    ("crds/hone_api/contract/report.py", "Delivering"): STAGE,
    ("trainer/hone_trainer/run/encode.py", "Encoding"): STAGE,
    ("operator/hone_operator/reconcile/core/conditions.py", "Suspended"): JOB,
    ("cli/hone_cli/rows/upload.py", "Succeeded"): POD,
    ("cli/hone_cli/rows/upload.py", "Failed"): POD,
    ("cli/hone_cli/reach/running.py", "Succeeded"): POD,
    ("cli/hone_cli/reach/running.py", "Failed"): POD,
    ("cli/hone_cli/reach/capacity.py", "Succeeded"): POD,
    ("cli/hone_cli/reach/capacity.py", "Failed"): POD,
    ("cli/hone_cli/reach/capacity.py", "Ready"): NODE,
    ("cli/hone_cli/runs/sweep.py", "Failed"): TRIAL,
    ("cli/hone_cli/runs/sweep.py", "Finished"): TRIAL,
    ("cli/hone_cli/runs/trials.py", "Failed"): TRIAL,
    ("cli/hone_cli/runs/trials.py", "Finished"): TRIAL,
    ("cli/hone_cli/review/reviews.py", "Accepted"): "a reviewer's verdict",
    ("trainer/hone_trainer/datasets/sources/listing.py", "Unreadable"): "why a file of a source is not read",
    ("operator/hone_operator/settings/tenants.py", "Approved"): "a value of the chart",
    ("crds/hone_api/dataset/dataset_status.py", "Ready"): "title of a column",
    ("crds/hone_api/kinds/modelversion.py", "Ready"): "title of a column",
    ("crds/hone_api/kinds/model.py", "Ready"): "title of a column",
    ("crds/hone_api/kinds/model.py", "Registered"): "title of a column",
    ("crds/hone_api/kinds/modelversion.py", "Servable"): "title of a column",
    ("crds/hone_api/kinds/model.py", "Imported"): "title of a column",
    ("crds/hone_api/kinds/modelversion.py", "Delivered"): "title of a column",
    ("crds/hone_api/kinds/modelversion.py", "Signed"): "title of a column",
    ("crds/hone_api/kinds/finetunejob_status.py", "Started"): "title of a column",
    ("operator/hone_operator/reconcile/core/node_faults.py", "Ready"): NODE,
    ("dev/hone_dev/cluster/cluster.py", "Ready"): NODE,
    **{("dev/hone_dev/generate/fleet_board.py", word): "title of a panel" for word in ("Failed", "Running", "Waiting")},
    ("dev/hone_dev/generate/job_board.py", "Started"): "title of a panel",
    **{("cli/hone_cli/clients/pages.py", word): "title of a column" for word in ("Imported", "Measured", "Rejected")},
    ("dev/hone_dev/demo/ask.py", "Succeeded"): POD,
    ("dev/hone_dev/demo/ask.py", "Failed"): POD,
    ("dev/hone_dev/hub/server.py", "RevisionNotFound"): "word of the hub's API",
    ("operator/hone_operator/observe/finetunejob.py", "Succeeded"): POD,
    ("operator/hone_operator/observe/finetunejob.py", "Failed"): POD,
    ("operator/hone_operator/objects/decoding.py", "Unwritable"): "label of a metric",
    ("operator/hone_operator/desired/core/job.py", "Failed"): JOB,
    ("operator/hone_operator/monitoring/metrics.py", "Succeeded"): "label of a metric",
    ("operator/hone_operator/monitoring/metrics.py", "Failed"): "label of a metric",
    ("operator/hone_operator/monitoring/podmetrics.py", "Succeeded"): POD,
    ("operator/hone_operator/monitoring/podmetrics.py", "Failed"): POD,
    ("operator/hone_operator/namespaces/optin.py", "NameTaken"): "reason of an HTTP error",
    ("operator/hone_operator/reconcile/core/conditions.py", "Failed"): JOB,
    ("operator/hone_operator/reconcile/core/conditions.py", "Admitted"): KUEUE,
    ("operator/hone_operator/reconcile/core/failures.py", "DeadlineExceeded"): "reason of a pod",
    ("operator/hone_operator/reconcile/core/failures.py", "Failed"): POD,
    ("operator/hone_operator/reconcile/core/pod_state.py", "Pending"): POD,
    ("operator/hone_operator/reconcile/core/pod_state.py", "Running"): POD,
    ("operator/hone_operator/reconcile/core/pod_state.py", "Succeeded"): POD,
    ("operator/hone_operator/reconcile/core/pod_state.py", "Failed"): POD,
    ("operator/hone_operator/reconcile/core/queueing.py", "Ready"): KUEUE,
    ("operator/hone_operator/reconcile/core/references.py", "Succeeded"): POD,
    ("operator/hone_operator/reconcile/core/references.py", "Failed"): POD,
    ("operator/hone_operator/writing/unreadable.py", "Unreadable"): "kind of a key of the queue",
    ("trainer/hone_trainer/sandbox/guest.py", "Failed"): "outcome of a sandboxed program",
    ("operator/hone_operator/reconcile/model/model_deliveries.py", "Ready"): WHEN,
    ("operator/hone_operator/reconcile/model/model_deliveries.py", "Approved"): WHEN,
    ("crds/hone_api/kinds/model.py", "Approved"): WHEN,
    ("cli/hone_cli/approval.py", "Approved"): WHEN,
    ("cli/hone_cli/review/reviews.py", "Rejected"): "a reviewer's verdict",
    ("crds/hone_api/dataset/dataset_status.py", "Rejected"): "title of a column",
    ("trainer/hone_trainer/artifacts/delivery/bucket.py", "InvalidArgument"): "code of an S3 server",
    ("trainer/hone_trainer/sandbox/messages.py", "Failed"): "outcome of a sandboxed program",
    ("trainer/hone_trainer/sandbox/worker.py", "Failed"): "outcome of a sandboxed program",
    ("trainer/hone_trainer/sandbox/workers.py", "Failed"): "outcome of a sandboxed program",
}
"""(file, literal): what else it is there."""
LITERAL_FIELDS = {
    ("Condition", "status"): "word of Kubernetes",
    ("PodImage", "image_pull_policy"): "word of Kubernetes",
    ("ReviewPod", "image_pull_policy"): "word of Kubernetes",
    ("DownloadPod", "image_pull_policy"): "word of Kubernetes",
    ("EvaluationNumber", "purpose"): "a word of the record in spec.evaluation, which has the same numbers",
    ("AliasStatus", "writer"): "the field of the spec that has the alias; one module sets and reads it",
}
"""(model, field) of a status -> why it is a Literal."""
SAID_BY = {"set": 2, "add_event": 0, "Cause": 0, "Wait": 0, "RefusedSpec": 0, "Waiting": 0, "Refusal": 2, "ready": 1}
"""Calls of the operator that take a reason -> its place among the arguments."""

OF_THE_END = {f"ConditionType.{name}" for name in ("SUCCEEDED", "FAILED", "FINISHED", "ADVISED")}
"""Conditions that give nobody a reason to wait."""
OF_MODELS = tuple(f"operator/hone_operator/{room}/" for room in ("monitoring", "reconcile/model", "reconcile/retrain"))


@cache
def trees() -> dict[str, ast.Module]:
    """Every product module by its path."""
    paths = [path for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def literals(words: set[str]) -> Iterator[tuple[str, str, int]]:
    """(file, literal, line) of every string in product code that is one of these words and nothing else."""
    for path, tree in trees().items():
        if path in DEFINED:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in words:
                yield path, node.value, node.lineno


def models_of(annotation: Any) -> Iterator[type[ApiModel]]:
    """Every model in a type."""
    for argument in get_args(annotation):
        yield from models_of(argument)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
        for info in annotation.model_fields.values():
            yield from models_of(info.annotation)


def literal_words(annotation: Any) -> list[str]:
    """Words of a type that is a Literal, or holds one."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for argument in get_args(annotation) for word in literal_words(argument)]


def words_of(*enums: type[StrEnum]) -> set[str]:
    return {str(word) for enum in enums for word in enum}


def test_no_condition_reason_phase_or_outcome_is_written_by_hand() -> None:
    by_hand = [
        f"{path}:{line}: {word}" for path, word, line in literals(words_of(*STATES)) if (path, word) not in OTHER_THINGS
    ]
    assert by_hand == []


def test_no_failure_code_is_written_by_hand() -> None:
    by_hand = [
        f"{path}:{line}: {word}"
        for path, word, line in literals(words_of(FailureCode))
        if (path, word) not in OTHER_THINGS
    ]
    assert by_hand == []


def test_every_enum_of_states_is_guarded() -> None:
    """An enum that is missing in `STATES` escapes the tests of this file, as the approval of a version did."""
    defined = {value for value in vars(states).values() if isinstance(value, type) and issubclass(value, State)}
    assert defined - {State} == set(STATES)


def test_no_field_of_a_status_has_its_words_as_literals() -> None:
    """Of a field that is a Literal, no code could use typed words. Words of Kubernetes, and of a spec, are as given."""
    by_hand = [
        f"{model.__name__}.{name}: {', '.join(words)}"
        for kind in KINDS
        for model in models_of(kind.status)
        for name, info in model.model_fields.items()
        if (words := literal_words(info.annotation)) and (model.__name__, name) not in LITERAL_FIELDS
    ]
    assert by_hand == []


def test_the_exceptions_are_in_use() -> None:
    seen = {(path, word) for path, word, _ in literals(words_of(*STATES, FailureCode))}
    assert set(OTHER_THINGS) - seen == set()


def test_the_operator_gives_no_reason_as_text() -> None:
    """A misspelt literal would be no word of any enum, so the tests above could not find it."""
    calls = [
        (path, node)
        for path, tree in trees().items()
        if path.startswith("operator/hone_operator/reconcile")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    asked, as_text = 0, []
    for path, call in calls:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        place = SAID_BY.get(name)
        if place is not None and len(call.args) > place:
            asked += 1
            if isinstance(call.args[place], ast.Constant):
                as_text.append(f"{path}:{call.lineno}")
    assert as_text == []
    assert asked > 100


def test_every_word_is_used() -> None:
    """One that no code says would be documented for nothing."""
    used = {
        (node.value.id, node.attr)
        for path, tree in trees().items()
        if path not in DEFINED
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    unused = [
        f"{enum.__name__}.{word.name}" for enum in STATES for word in enum if (enum.__name__, word.name) not in used
    ]
    assert unused == []


def waits() -> set[Reason]:
    """Reasons that the operator can give for a wait: all that it says outside of Events and of conditions that hold.

    A reason in a variable counts, since nobody sees there where it goes. Models have no metric of their reason.
    """
    said = {
        Reason[node.attr]
        for path, tree in trees().items()
        if path.startswith("operator/") and not path.startswith(OF_MODELS)
        for node in without_what_holds(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Reason"
    }
    return {reason for reason in said if not reason.when.endswith("(Event)")}


def without_what_holds(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all in it, without comparisons, Events, and conditions that hold or are about the end."""
    if isinstance(node, ast.Compare) or (isinstance(node, ast.Call) and is_of_no_wait(node)):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from without_what_holds(child)


def is_of_no_wait(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", "")
    first, second = ([ast.unparse(argument) for argument in call.args[:2]] + ["", ""])[:2]
    if name == "set":
        return first in OF_THE_END or (second == "True" and first != "ConditionType.SUSPENDED")
    return name == "add_event" or (name == "ready" and first == "True")


def test_every_reason_of_a_wait_says_who_can_end_it() -> None:
    """One that the table lacks would count as the platform's, also if it is a typing mistake of a user."""
    assert {reason.name for reason in waits()} == {Reason(word).name for word in WAITS_FOR}


@pytest.mark.parametrize("enum", STATES, ids=lambda enum: enum.__name__)
def test_every_word_says_when(enum: type[State]) -> None:
    assert [word for word in enum if not word.when or word.when.endswith(".") or "|" in word.when] == []


def test_a_failure_code_has_an_entry_and_is_no_other_reason() -> None:
    assert set(FAILURES) == words_of(FailureCode)
    assert words_of(FailureCode) & words_of(Reason) == set()


def test_every_condition_belongs_to_a_kind() -> None:
    assert set(CONDITIONS_OF) == {kind.kind for kind in KINDS}
    assert {type_ for types in CONDITIONS_OF.values() for type_ in types} == set(ConditionType)
