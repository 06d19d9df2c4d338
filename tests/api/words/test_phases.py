"""Each phase of an attempt is in status, reports and outcomes, and no phase is outside the table."""

import json

import pytest
from pydantic import ValidationError

from hone_api.contract.report import HoneStatus
from hone_api.contract.termination import TerminationMessage, parse_outcome
from hone_api.words.phases import BEFORE_FIRST_STEP, MEASURED, OF_STAGE, PHASES, AttemptPhases

pytestmark = pytest.mark.pure


def test_table_and_status_have_the_same_phases() -> None:
    names = [phase.name for phase in PHASES]
    assert [info.alias for info in AttemptPhases.model_fields.values()] == names
    for phase, info in zip(PHASES, AttemptPhases.model_fields.values(), strict=True):
        assert (info.description or "").startswith(phase.help)
    assert set(BEFORE_FIRST_STEP) <= MEASURED
    assert set(OF_STAGE.values()) <= MEASURED


def test_phases_of_a_newer_trainer_are_read() -> None:
    phases = {"loading": 3.5, "ofTheFuture": 2.0}
    assert HoneStatus.model_validate({"stage": "Loading", "step": 0, "phases": phases}).phases == phases
    outcome = parse_outcome(json.dumps({"failure": {"code": "Diverged", "message": "m"}, "phases": phases}))
    assert outcome
    assert outcome.phases == phases


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e300])
def test_seconds_that_a_status_could_not_hold_are_refused(seconds: float) -> None:
    with pytest.raises(ValidationError):
        TerminationMessage.model_validate(
            {"failure": {"code": "Diverged", "message": "m"}, "phases": {"loading": seconds}}
        )
