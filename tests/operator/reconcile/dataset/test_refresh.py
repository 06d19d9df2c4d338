"""A Ready Dataset that is looked at again: when, what comes of it, and that nothing is lost when it fails."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.lives.dataset_life import RESULT, Life, plan_of, ready

from hone_api.dataset.dataset import Refresh
from hone_operator.reconcile.core.outcome import Outcome, Refusal
from hone_operator.reconcile.dataset import refresh

pytestmark = pytest.mark.pure

HOUR = 3600.0
OTHER = {
    **RESULT,
    "digest": "sha256:" + "5" * 64,
    "path": "datasets/" + "5" * 64,
    "rows": 12,
    "sourceVersion": "etag:two",
    "changes": {"previous": RESULT["digest"], "added": 3, "removed": 1},
}


def refreshed(world: Any, **spec: Any) -> Life:
    """Ready since second 60, to be looked at every hour."""
    life = Life(world, **({"refresh": {"every": "1h"}} | spec))
    life.tick()
    ends(life, {"result": {**RESULT, "sourceVersion": "etag:one"}}, 60)
    life.tick(61)
    return life


def ends(life: Life, outcome: dict[str, Any], seconds: float, code: int = 0) -> None:
    life.ends("Failed" if code else "Complete", life.world.dead(code, outcome=outcome), seconds=seconds)


@pytest.fixture
def life(world):
    return refreshed(world)


def test_nothing_happens_before_its_time(life, conditions):
    assert conditions(life.status)["UpToDate"] == "True/Read"
    assert life.status["readTime"] == life.status["lastTryTime"]
    outcome = life.tick(100)
    assert (outcome.create, outcome.status, outcome.check_again_in) == ((), None, 60 + HOUR - 100)


def test_a_look_knows_what_was_read_and_the_dataset_stays_ready(life, conditions):
    outcome = life.tick(60 + HOUR)
    plan = plan_of(outcome)
    assert (plan.known, plan.previous) == ("etag:one", RESULT["digest"])
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert life.status["tries"] == 2
    assert [c.label("hone.dev/try") for c in life.children] == [2], "the first Job has gone"
    assert life.tick(61 + HOUR).create == ()


def test_what_has_not_changed_is_said(life, conditions):
    life.tick(60 + HOUR)
    ends(life, {"result": {"kind": "Materialize", "unchanged": True}}, 90 + HOUR)
    outcome = life.tick(91 + HOUR)
    assert conditions(life.status)["UpToDate"] == "True/Unchanged"
    assert (life.status["digest"], life.status["rows"]) == (RESULT["digest"], 10)
    assert outcome.events == ()
    assert outcome.check_again_in == HOUR - 1, "an hour after that look"
    assert life.tick(92 + HOUR).status is None


def test_what_changed_is_reported(life, conditions):
    life.tick(60 + HOUR)
    ends(life, {"result": OTHER}, 90 + HOUR)
    (event,) = life.tick(91 + HOUR).events
    assert (event.reason, event.type) == ("Refreshed", "Normal")
    assert event.message == (
        f"3 rows added, 1 removed: 12 rows, 1 rejected. Jobs that have started keep {RESULT['digest']}."
    )
    assert conditions(life.status)["UpToDate"] == "True/Refreshed"
    assert (life.status["digest"], life.status["changes"]) == (OTHER["digest"], OTHER["changes"])
    assert life.status["uri"] == f"pvc://hone-store/{OTHER['path']}"
    assert plan_of(life.tick(90 + 2 * HOUR)).known == "etag:two"


def test_the_same_rows_again_are_nothing_new(life, conditions):
    life.tick(60 + HOUR)
    ends(life, {"result": OTHER}, 90 + HOUR)
    life.tick(91 + HOUR)
    life.tick(90 + 2 * HOUR)
    again = {name: value for name, value in OTHER.items() if name != "changes"} | {"sourceVersion": "etag:three"}
    ends(life, {"result": again}, 120 + 2 * HOUR)
    assert life.tick(121 + 2 * HOUR).events == ()
    assert conditions(life.status)["UpToDate"] == "True/SameContent"
    assert life.status["changes"] == OTHER["changes"], "of the last new content"
    assert life.status["sourceVersion"] == "etag:three"


def test_a_look_that_fails_leaves_the_content_in_use(life, conditions):
    life.tick(60 + HOUR)
    ends(life, life.world.failure("SourceUnreachable"), 90 + HOUR, code=74)
    outcome = life.tick(91 + HOUR)
    assert conditions(life.status)["Ready"] == "True/Materialized"
    assert conditions(life.status)["UpToDate"] == "False/SourceUnreachable"
    assert life.status["digest"] == RESULT["digest"]
    assert [(e.reason, e.type) for e in outcome.events] == [("SourceUnreachable", "Warning")]
    assert "stays in use" in outcome.events[0].message
    assert outcome.check_again_in == 360 - 1, "a tenth of the hour after it ended"
    assert life.tick(92 + HOUR).status is None
    assert plan_of(life.tick(90 + HOUR + 360)).previous == RESULT["digest"]
    ends(life, {"result": OTHER}, 500 + HOUR)
    life.tick(501 + HOUR)
    assert conditions(life.status)["UpToDate"] == "True/Refreshed"


def test_bad_rows_do_not_take_the_place_of_good_ones(life, conditions):
    life.tick(60 + HOUR)
    bad = {"kind": "Materialize", "rows": 1, "rejected": 9, "errors": [{"code": "BrokenJson", "count": 9}]}
    ends(life, {"result": bad, **life.world.failure("TooManyBadRows")}, 90 + HOUR, code=65)
    life.tick(91 + HOUR)
    assert conditions(life.status)["UpToDate"] == "False/TooManyBadRows"
    assert (life.status["rows"], life.status["rejected"]) == (10, 1)


def test_what_an_early_retry_cannot_fix_is_retried_at_the_next_time(life):
    life.tick(60 + HOUR)
    ends(life, life.world.failure("SourceRefused"), 90 + HOUR, code=78)
    assert life.tick(91 + HOUR).check_again_in == HOUR - 1


def test_a_look_knows_the_settings_that_divided_the_content_before(world):
    life = Life(world, refresh={"every": "1h"})
    assert plan_of(life.tick()).previous_split_settings is None
    ends(life, {"result": {**RESULT, "splitSettings": "0123456789abcdef"}}, 60)
    life.tick(61)
    assert plan_of(life.tick(60 + HOUR)).previous_split_settings == "0123456789abcdef"
    bad = {"kind": "Materialize", "rows": 1, "rejected": 9, "splitSettings": "f" * 16}
    ends(life, {"result": bad, **life.world.failure("TooManyBadRows")}, 90 + HOUR, code=65)
    life.tick(91 + HOUR)
    assert life.status["splitSettings"] == "0123456789abcdef", "the content before stays, and so do its settings"


def test_the_operator_was_down_while_it_looked(life, conditions):
    """The Job was made and the operator killed before the status was written."""
    status = dict(life.status)
    life.tick(60 + HOUR)
    life.dataset["status"] = status
    assert life.tick(61 + HOUR).create == ()
    ends(life, {"result": OTHER}, 90 + HOUR)
    life.tick(91 + HOUR)
    assert life.status["digest"] == OTHER["digest"]


def test_a_job_that_was_deleted_is_made_again(life):
    life.tick(60 + HOUR)
    life.children.clear()
    assert plan_of(life.tick(70 + HOUR)).known == "etag:one"
    assert life.status["tries"] == 3


def test_what_is_missing_puts_a_look_off(life, conditions):
    assert life.tick(60 + HOUR, missing="ConfigMap/answers").create == ()
    assert conditions(life.status)["UpToDate"] == "False/ConfigMapNotFound"
    assert conditions(life.status)["Ready"] == "True/Materialized"
    refusal = Refusal("Job", "x", "QuotaExceeded", "exceeded quota: jobs")
    life.tick(75 + HOUR, refusals=(refusal,))
    assert conditions(life.status)["UpToDate"] == "False/QuotaExceeded"
    assert plan_of(life.tick(90 + HOUR)).known == "etag:one"


def test_a_mixture_is_made_again_when_a_part_has_another_content(world, conditions):
    part, use = ready("own", train=90), {"split": "train", "rows": 9, "tokens": 9, "rowShare": "100%"}
    used = [{"name": "own", "digest": "sha256:" + "1" * 64, **use, "tokenShare": "100%", "passes": "1.00"}]
    life = Life(world, mixture=[{"name": "own", "weight": "100%"}], refresh={"every": "1h"})
    del life.dataset["spec"]["source"]
    life.tick(datasets={"own": part})
    ends(life, {"result": {**RESULT, "mixture": used}}, 60)
    life.tick(61, datasets={"own": part})
    outcome = life.tick(60 + HOUR, datasets={"own": part})
    assert outcome.create == ()
    assert conditions(life.status)["UpToDate"] == "True/Unchanged"
    assert life.tick(60 + 2 * HOUR, datasets={}).create == ()
    assert conditions(life.status)["UpToDate"] == "False/DatasetNotFound"
    part["status"]["digest"] = "sha256:" + "9" * 64
    assert plan_of(life.tick(90 + 2 * HOUR, datasets={"own": part})).parts[0].digest == "sha256:" + "9" * 64


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"refresh": {"every": "4m"}}, "spec.refresh.every is 4m, the least is 5m"),
        ({"refresh": {"schedule": "0 25 * * *"}}, "spec.refresh.schedule '0 25 * * *': Bad hour"),
        ({"refresh": {"schedule": "0 3 30 2 *"}}, "'0 3 30 2 *': Bad day-of-month"),
        ({"refresh": {"schedule": "0 3 * * *", "timeZone": "Europe/Atlantis"}}, "is not a zone of the IANA"),
    ],
)
def test_what_cannot_be_is_refused(world, conditions, wanted, words):
    life = Life(world, **wanted)
    assert life.tick() != Outcome()
    assert conditions(life.status)["Stalled"] == "True/InvalidValue"
    assert words in life.status["failure"]["message"]


def test_cron_goes_by_the_zone_it_names():
    looks = Refresh(schedule="30 3 * * 1-5", time_zone="Europe/Berlin")
    friday = datetime(2026, 3, 27, 12, tzinfo=UTC)
    monday = refresh.next_look(looks, friday)
    assert monday == datetime(2026, 3, 30, 1, 30, tzinfo=UTC), "summer time began on Sunday"
    assert refresh.next_look(Refresh(schedule="30 3 * * *"), friday) == datetime(2026, 3, 28, 3, 30, tzinfo=UTC)
    assert refresh.next_look(Refresh(schedule="* * * * *"), friday) == friday + timedelta(minutes=5)


def test_jobs_that_have_started_keep_their_content(new_life, conditions):
    """Attempt 2 trains on what attempt 1 did, whatever became of the Dataset."""
    job = new_life()
    job.tick()
    before = job.status["resolved"]["datasetDigests"]
    job.datasets["rows"]["status"] |= {"digest": OTHER["digest"], "splits": [{"name": "train", "rows": 1}]}
    job.ends("Failed", job.world.dead(74, outcome=job.world.failure("StorageError")))
    job.tick(61)
    (config_map,) = [b for b in job.tick(200).create if b["kind"] == "ConfigMap"]
    assert before == {"rows": RESULT["digest"]}
    assert plan_of(Outcome(create=(config_map,))).datasets[0].digest == RESULT["digest"]
