"""What an outcome reports where status may not quote rows."""

import json

import pytest

from hone_api.contract.privacy import without_rows
from hone_api.contract.termination import TerminationMessage
from hone_api.words.failures import FAILURES, ExitCode

pytestmark = pytest.mark.pure
ROW = "Ada Lovelace, 12 St James Square"
SAMPLE = {"prompt": ROW, "reference": ROW, "base": ROW, "tuned": ROW}
TRAINING = {"kind": "Training", "artifacts": [], "steps": 3, "samples": [SAMPLE]}
DATASET = {
    "kind": "Materialize",
    "rows": 9,
    "rejected": 1,
    "errors": [{"code": "MissingColumn", "count": 1, "rows": [4], "example": f"row 4: {ROW}"}],
    "curation": [{"step": "ExactDuplicates", "removed": 2, "changed": 0, "rows": [3], "example": f"row 3: {ROW}"}],
}


@pytest.mark.parametrize("result", [TRAINING, DATASET], ids=["training", "dataset"])
def test_results_keep_their_numbers_and_lose_the_rows(result):
    outcome = TerminationMessage.model_validate({"result": result})
    found = without_rows(outcome).to_termination_message()
    assert ROW not in found
    assert ROW in outcome.to_termination_message()
    kept = json.loads(found)["result"]
    if result is DATASET:
        assert kept["errors"][0] | {"count": 1, "rows": [4]} == kept["errors"][0]
        assert kept["curation"][0]["rows"] == [3]
    else:
        assert kept["steps"] == 3


@pytest.mark.parametrize("code", sorted(FAILURES))
def test_messages_that_may_quote_are_withheld(code):
    outcome = TerminationMessage.model_validate({"failure": {"code": code, "message": f"row 4: {ROW}", "hint": "h"}})
    found = without_rows(outcome)
    quotes = FAILURES[code].exit_code in (ExitCode.DATA, ExitCode.SOFTWARE)
    assert (ROW not in found.failure.message) == quotes
    assert (found.failure.code, found.failure.hint) == (code, "h")


def test_a_code_from_a_newer_trainer_may_quote():
    outcome = TerminationMessage.model_validate({"failure": {"code": "New", "message": ROW}})
    assert ROW not in without_rows(outcome).to_termination_message()
