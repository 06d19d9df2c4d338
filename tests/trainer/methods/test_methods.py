"""A method stands in the tables of the API and of the trainer; one that lacks an entry is found here."""

from __future__ import annotations

import pytest

from hone_api import methods as api
from hone_api.kinds.finetunejob import IMMUTABLE, FineTuneJobSpec
from hone_api.plan import TrainingPlan
from hone_trainer.methods import METHODS
from hone_trainer.methods.rl import reward_guards
from hone_trainer.reporting.live import Progress, to_report

pytestmark = pytest.mark.trainer


def test_both_tables_have_every_method() -> None:
    assert list(api.METHODS) == list(api.Method)
    assert list(METHODS) == [str(name) for name in api.METHODS]


@pytest.mark.parametrize("info", api.METHODS.values(), ids=lambda info: info.name)
def test_its_block_stands_in_spec_and_plan_and_never_changes(info: api.MethodInfo) -> None:
    assert info.block in FineTuneJobSpec.model_fields
    assert info.block in TrainingPlan.model_fields
    assert info.block in IMMUTABLE
    assert TrainingPlan.model_fields[info.block].is_required() is False


@pytest.mark.parametrize("name", METHODS)
def test_a_report_has_room_for_all_of_its_metrics(name: str) -> None:
    """Those of the steps, the mean of each reward, and those of the held-out rows; a longer report would be refused."""
    method = METHODS[name]
    count = len(set(method.logged.values())) + reward_guards.MOST_PARTS + len(method.metrics)
    progress = Progress().but(metrics={f"metric_{number}": 1.0 for number in range(count)})
    assert len(to_report(progress).hone.metrics) == count
