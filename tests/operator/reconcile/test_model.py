"""Where the aliases of a Model point, decided from its spec and its ModelVersions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hone_api.model import MAX_ALIASES, MAX_HISTORY
from hone_operator.reconcile.model import ObservedForModel, reconcile
from hone_operator.reconcile.outcome import Outcome

pytestmark = pytest.mark.pure
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def version(number: int, ready: str = "True", approval: str = "Candidate", **changes: Any) -> dict[str, Any]:
    """A ModelVersion of tutor."""
    conditions = [{"type": "Ready", "status": ready, "reason": "Verified", "message": ""}]
    if changes.get("stalled"):
        conditions.append({"type": "Stalled", "status": "True", "reason": "ChecksumMismatch", "message": ""})
    meta = {"name": changes.get("name", f"tutor-v{number}"), "creationTimestamp": "2026-01-01T00:00:00Z"}
    if changes.get("going"):
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec = {"modelName": changes.get("model", "tutor"), "version": number, "approval": {"state": approval}}
    return {"kind": "ModelVersion", "metadata": meta, "spec": spec, "status": {"conditions": conditions}}


class Named:
    """A Model that is reconciled again and again."""

    def __init__(self, **aliases: int):
        meta = {"name": "tutor", "namespace": "team", "uid": "m", "generation": 1}
        self.body: dict[str, Any] = {"kind": "Model", "metadata": meta, "spec": {}}
        self.minutes = 0
        self.pin(**aliases)

    def pin(self, **aliases: int) -> None:
        self.body["spec"]["aliases"] = [{"name": name, "version": number} for name, number in aliases.items()]

    def tick(self, *versions: dict[str, Any]) -> Outcome:
        self.minutes += 1
        outcome = reconcile(self.body, ObservedForModel(versions), START + timedelta(minutes=self.minutes))
        if outcome.status is not None:
            self.body["status"] = outcome.status
        return outcome

    def targets(self) -> dict[str, str]:
        return {a["name"]: a["modelVersion"] for a in self.body["status"].get("aliases", ())}

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.body["status"]["conditions"] if c["type"] == type_)
        return found["status"], found["reason"]


def test_an_empty_model_is_ready_and_counts_its_versions() -> None:
    model = Named()
    model.tick(version(1), version(4), version(2, model="other"))
    assert (model.body["status"]["versions"], model.body["status"]["latest"]) == (2, 4)
    assert model.condition("Ready") == ("True", "Resolved")
    assert "aliases" not in model.body["status"]


def test_an_alias_follows_its_spec_and_remembers_where_it_was() -> None:
    model = Named(production=1, canary=2)
    first = model.tick(version(1), version(2))
    assert model.targets() == {"canary": "tutor-v2", "production": "tutor-v1"}
    assert model.body["status"]["summary"] == "canary=v2,production=v1"
    assert [e.reason for e in first.events if e.reason == "AliasMoved"] == ["AliasMoved", "AliasMoved"]
    model.pin(production=2)
    model.tick(version(1), version(2))
    (alias,) = model.body["status"]["aliases"]
    assert (alias["version"], alias["writer"], alias["since"]) == (2, "Spec", "2026-01-02T03:06:05Z")
    assert alias["history"] == [{"version": 1, "since": "2026-01-02T03:05:05Z", "until": "2026-01-02T03:06:05Z"}]


def test_the_same_state_is_written_once() -> None:
    model = Named(production=1)
    assert model.tick(version(1)).status is not None
    again = model.tick(version(1))
    assert (again.status, again.events) == (None, ())


def test_the_history_is_bounded() -> None:
    model = Named()
    versions = [version(n) for n in range(1, MAX_HISTORY + 5)]
    for number in range(1, MAX_HISTORY + 5):
        model.pin(production=number)
        model.tick(*versions)
    (alias,) = model.body["status"]["aliases"]
    assert [entry["version"] for entry in alias["history"]] == list(range(MAX_HISTORY + 3, 3, -1))


@pytest.mark.parametrize(
    ("second", "reason", "stuck"),
    [
        ([], "ModelVersionNotFound", False),
        ([version(2, going=True)], "ModelVersionNotFound", False),
        ([version(2, ready="False")], "WaitingForModelVersion", False),
        ([version(2, ready="False", stalled=True)], "WaitingForModelVersion", True),
        ([version(2, approval="Rejected")], "ModelVersionRejected", True),
    ],
)
def test_an_alias_stays_until_its_new_version_can_be_used(second: list[Any], reason: str, stuck: bool) -> None:
    model = Named(production=1)
    model.tick(version(1))
    model.pin(production=2)
    outcome = model.tick(version(1), *second)
    assert model.targets() == {"production": "tutor-v1"}
    assert model.condition("Ready") == ("False", reason)
    assert model.condition("Stalled")[0] == str(stuck)
    assert model.condition("Reconciling")[0] == str(not stuck)
    assert [e.type for e in outcome.events] == ["Warning"]
    model.tick(version(1), version(2))
    assert model.targets() == {"production": "tutor-v2"}
    assert model.condition("Ready") == ("True", "Resolved")


@pytest.mark.parametrize("lost", [None, version(1, approval="Rejected"), version(1, ready="False")])
def test_no_alias_points_to_a_version_that_cannot_be_used(lost: Any) -> None:
    model = Named(production=1)
    model.tick(version(1))
    outcome = model.tick(*([lost] if lost else []))
    assert model.targets() == {}
    assert "AliasLost" in [e.reason for e in outcome.events]


def test_of_two_versions_with_one_number_the_usual_name_counts() -> None:
    model = Named(production=1)
    model.tick(version(1, name="a"), version(1), version(1, name="b"))
    assert model.targets() == {"production": "tutor-v1"}
    assert model.body["status"]["versions"] == 1


def test_a_spec_of_another_version_of_hone_moves_nothing() -> None:
    model = Named(production=1)
    model.tick(version(1))
    model.body["spec"]["aliases"] = [{"name": "Not Valid", "version": 1}]
    model.tick(version(1))
    assert model.targets() == {"production": "tutor-v1"}
    assert model.condition("Stalled") == ("True", "InvalidValue")


def test_as_many_aliases_as_allowed_fit_the_status() -> None:
    names = {f"{'a' * 30}{chr(97 + n)}": 1_000_000 for n in range(MAX_ALIASES)}
    model = Named(**names)
    model.tick(version(1_000_000))
    assert len(model.targets()) == MAX_ALIASES
    assert len(model.body["status"]["summary"]) <= 253
