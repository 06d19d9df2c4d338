"""Where the aliases of a Model point, decided from its spec and its ModelVersions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.lives.named_model import Named, deleted, version

from hone_api.kinds.model import MAX_ALIASES, MAX_HISTORY

pytestmark = pytest.mark.pure


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


def test_an_alias_refuses_other_files_under_a_number_to_which_it_pointed() -> None:
    """Whoever deletes a version and gets its number used again does not decide what production means."""
    first, other, second = ([f"sha256:{letter * 64}"] for letter in "abc")
    model = Named(production=1)
    model.tick(version(1, digests=first))
    assert model.body["status"]["aliases"][0]["digest"] == first[0]
    model.tick(version(1, digests=other))
    assert model.targets() == {}
    assert model.condition("Ready") == ("False", "ModelVersionNotFound")
    (words,) = (c["message"] for c in model.body["status"]["conditions"] if c["type"] == "Ready")
    assert f"version 1 has the digest {other[0]}, and had {first[0]} when an alias pointed to it" in words
    model.tick(version(1, digests=first))
    assert model.targets() == {"production": "tutor-v1"}, "restored from a backup, it is the same"
    model.pin(production=2)
    model.tick(version(1, digests=first), version(2, digests=second))
    assert model.body["status"]["aliases"][0]["history"][0]["digest"] == first[0]
    model.pin(production=1)
    model.tick(version(1, digests=other), version(2, digests=second))
    assert model.targets() == {"production": "tutor-v2"}
    model.promote()
    model.pin()
    model.tick(version(1, digests=first + second, approval="Approved"))
    assert model.targets() == {}, "nor does another alias point to it"


def test_the_last_number_outlives_its_version() -> None:
    model = Named()
    model.tick(version(1), version(4))
    model.tick(version(1))
    assert (model.body["status"]["latest"], model.body["status"]["lastVersion"]) == (1, 4)


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


@pytest.mark.parametrize("lost", [None, version(1, approval="Rejected"), version(1, ready="False", stalled=True)])
def test_no_alias_points_to_a_version_that_cannot_be_used(lost: Any) -> None:
    model = Named(production=1)
    model.tick(version(1))
    outcome = model.tick(*([lost] if lost else []))
    assert model.targets() == {}
    assert "AliasLost" in [e.reason for e in outcome.events]


def signed_again(versions: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The versions while each is signed with a new key: none is Ready, then each is, the oldest first."""
    for done in range(len(versions) + 1):
        unready = [{**body, "status": version(0, ready="False")["status"]} for body in versions[done:]]
        yield [*versions[:done], *unready]


@pytest.mark.parametrize("policy", ["Automatic", "Manual"])
@pytest.mark.parametrize("gates", [[], [{"metric": "loss", "value": "Against", "atMost": "0"}]])
def test_no_alias_moves_while_all_versions_are_signed_again(policy: str, gates: list[Any]) -> None:
    versions = [compared(1, "3.0", ""), compared(2, "2.0", "tutor-v1", "3.0"), compared(3, "1.0", "tutor-v2", "2.0")]
    model = Named(pinned=1)
    model.promote(gates=gates)
    for number in (1, 2, 3):
        model.tick(*versions[:number])
    model.pin(pinned=2)
    model.tick(*versions)
    model.promote(policy, gates=gates)
    before = model.body["status"]["aliases"]
    assert [(entry["version"], len(entry["history"])) for entry in before] == [(3, 2), (2, 1)]
    for seen in signed_again(versions):
        outcome = model.tick(*seen)
        assert model.body["status"]["aliases"] == before
        assert not {"AliasMoved", "AliasLost"} & {event.reason for event in outcome.events}
        ready = all(body["status"]["conditions"][0]["status"] == "True" for body in seen[1:])
        assert model.condition("Ready") == (("True", "Resolved") if ready else ("False", "WaitingForModelVersion"))


def test_a_newer_version_takes_the_place_of_one_that_is_not_ready() -> None:
    model = Named()
    model.promote()
    first, second = version(1, approval="Approved"), version(2, approval="Approved")
    model.tick(first, second)
    unready = version(2, ready="False", approval="Approved")
    model.tick(first, unready)
    assert model.targets() == {"champion": "tutor-v2"}
    model.tick(first, unready, version(3, approval="Approved"))
    assert model.targets() == {"champion": "tutor-v3"}


@pytest.mark.parametrize("lost", [version(2, ready="False"), version(2, ready="False", approval="Rejected")])
def test_a_version_that_is_not_ready_keeps_its_alias_only_while_it_is_approved(lost: dict[str, Any]) -> None:
    model = Named()
    model.promote()
    first = version(1, approval="Approved")
    model.tick(first, version(2, approval="Approved"))
    model.tick(first, lost)
    assert model.targets() == {"champion": "tutor-v1"}


def test_retention_keeps_what_an_alias_waits_at_while_versions_are_signed_again() -> None:
    model = Named(production=2)
    model.body["spec"]["retention"] = {"keep": 2}
    versions = [version(number) for number in range(2, 6)]
    model.tick(*versions)
    model.pin(production=6)
    for seen in signed_again(versions):
        outcome = model.tick(*seen)
        assert model.targets() == {"production": "tutor-v2"}
        assert "tutor-v2" not in deleted(outcome)


def test_after_a_restore_no_older_version_is_used_whatever_the_gates() -> None:
    versions = [version(number, approval="Approved") for number in (1, 2, 3)]
    model = Named()
    model.promote()
    for seen in signed_again(versions):
        model.tick(*seen)
        assert model.targets() == ({"champion": "tutor-v3"} if seen == versions else {})
    assert model.condition("Ready") == ("True", "Resolved")


@pytest.mark.parametrize(
    ("policy", "words"),
    [("Automatic", "status.candidates says what each version lacks"), ("Manual", "to spec.aliases")],
)
def test_an_alias_that_points_nowhere_is_named(policy: str, words: str) -> None:
    model = Named()
    model.promote(policy)
    model.tick(version(1))
    (ready,) = (c for c in model.body["status"]["conditions"] if c["type"] == "Ready")
    assert "point nowhere: champion" in ready["message"]
    assert words in ready["message"]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"promotion": {"policy": "Automatic", "aliases": ["production"]}}, "spec: an alias has one writer"),
        ({"aliases": [{"name": "v3", "version": 3}]}, "spec.aliases[0]: an alias is not called like a version"),
        ({"promotion": {"policy": "Automatic", "aliases": ["v3"]}}, "spec.promotion: an alias is not called like a"),
        ({"imports": [{"uri": "ftp://host/model"}]}, "spec.imports[0]: a model is imported from hf://"),
    ],
)
def test_what_the_rules_refuse_today_moves_nothing_of_a_model_from_before_them(
    change: dict[str, Any], message: str
) -> None:
    model = Named(production=1)
    model.tick(version(1))
    model.body["spec"] |= change
    model.tick(version(1), version(3, approval="Approved"))
    assert model.targets() == {"production": "tutor-v1"}
    ready = next(c for c in model.body["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["message"][: len(message)]) == ("False", message)
    assert model.condition("Stalled")[0] == "True"


def test_as_many_aliases_as_allowed_fit_the_status() -> None:
    names = {f"{'a' * 30}{chr(97 + n)}": 1_000_000 for n in range(MAX_ALIASES)}
    model = Named(**names)
    model.tick(version(1_000_000))
    assert len(model.targets()) == MAX_ALIASES
    assert len(model.body["status"]["summary"]) <= 253


LOSS = {"name": "loss", "dataset": "faq/validation", "base": "2.0", "tuned": "1.0", "low": "0.9", "high": "1.1"}
LOSS |= {"against": "1.25", "againstLow": "-0.4", "againstHigh": "-0.1"}
CHANGE = {"name": "accuracy", "base": "0.5", "tuned": "0.6", "changeLow": "-0.02", "changeHigh": "0.2"}


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ({"metric": "loss", "atMost": "1.1"}, "Passed"),
        ({"metric": "loss", "atMost": "1.0"}, "Inconclusive"),
        ({"metric": "loss", "atMost": "0.8"}, "Failed"),
        ({"metric": "loss", "atLeast": "1.2"}, "Failed"),
        ({"metric": "loss", "atLeast": "0.9", "atMost": "1.1"}, "Passed"),
        ({"metric": "loss", "dataset": "faq/validation", "atMost": "1.1"}, "Passed"),
        ({"metric": "loss", "dataset": "other/validation", "atMost": "1.1"}, "Inconclusive"),
        ({"metric": "perplexity", "atMost": "9"}, "Inconclusive"),
        ({"metric": "loss", "value": "Change", "atMost": "-0.5"}, "Passed"),
        ({"metric": "accuracy", "value": "Change", "atLeast": "-0.02"}, "Passed"),
        ({"metric": "accuracy", "value": "Change", "atLeast": "0"}, "Inconclusive"),
        ({"metric": "accuracy", "value": "Change", "atLeast": "0.3"}, "Failed"),
        ({"metric": "loss", "value": "Against", "atMost": "0"}, "Passed"),
        ({"metric": "loss", "value": "Against", "atMost": "-0.3"}, "Inconclusive"),
        ({"metric": "loss", "value": "Against", "atMost": "-0.5"}, "Failed"),
        ({"metric": "accuracy", "value": "Against", "atLeast": "0"}, "Inconclusive"),
        ({"metric": "broken", "atMost": "1"}, "Inconclusive"),
    ],
)
def test_a_gate_has_three_results(gate: dict[str, str], expected: str) -> None:
    numbers = [LOSS, CHANGE, {"name": "broken", "tuned": "nan"}, {"name": 7}]
    model = Named()
    model.promote(gates=[gate])
    model.tick(version(1, approval="Approved", numbers=numbers))
    (candidate,) = model.body["status"]["candidates"]
    assert candidate["gates"] == expected
    assert ("message" in candidate) == (expected != "Passed")
    assert model.targets() == ({"champion": "tutor-v1"} if expected == "Passed" else {})


def test_the_first_version_has_none_to_be_better_than() -> None:
    gate = {"metric": "loss", "value": "Against", "atMost": "0"}
    number = {"name": "loss", "tuned": "1.0"}
    model = Named()
    model.promote(gates=[gate])
    model.tick(version(1, approval="Approved", numbers=[number]))
    assert model.body["status"]["candidates"][0]["message"] == "loss has no number for Against"
    model.tick(version(1, approval="Approved", numbers=[number], evaluation={"against": ""}))
    assert model.targets() == {"champion": "tutor-v1"}


def compared(number: int, tuned: str, against: str, other: str = "", **spec: Any) -> dict[str, Any]:
    """An approved version that was compared with another one."""
    loss = {"name": "loss", "tuned": tuned, **({"against": other} if other else {})}
    body = version(number, approval="Approved", numbers=[loss], evaluation={"against": against})
    body["spec"] |= spec
    return body


def test_only_what_was_compared_with_the_version_in_use_replaces_it() -> None:
    model = Named()
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    first, unmeasured = compared(1, "2.0", ""), compared(2, "9.0", "")
    better, outdated = compared(3, "1.0", "tutor-v1", "2.0"), compared(4, "1.9", "tutor-v1", "2.0")
    model.tick(first)
    model.tick(first, unmeasured)
    assert model.targets() == {"champion": "tutor-v1"}
    assert model.body["status"]["candidates"][0]["message"] == (
        "it was compared with no other version, and in use is tutor-v1: compare it with that in spec.evaluations, or "
        "train again"
    )
    model.tick(first, unmeasured, better)
    assert model.targets() == {"champion": "tutor-v3"}
    for _ in range(2):
        model.tick(first, unmeasured, better, outdated)
        assert model.targets() == {"champion": "tutor-v3"}
    model.tick(first, unmeasured, version(3, approval="Rejected"), outdated)
    assert model.targets() == {"champion": "tutor-v4"}, "it is better than v1, which would be in use again"


def test_an_alias_goes_from_a_withdrawn_version_to_the_one_before_at_once() -> None:
    """Also if no alias ever pointed to that, e.g. because the Model was created after both were approved."""
    model = Named()
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    first, second = compared(1, "2.0", ""), compared(2, "1.0", "tutor-v1", "2.0")
    model.tick(first, second)
    assert model.targets() == {"champion": "tutor-v2"}
    outcome = model.tick(first, version(2, approval="Candidate"))
    assert model.targets() == {"champion": "tutor-v1"}
    assert [event.reason for event in outcome.events] == ["AliasMoved"], "nothing was lost"
    (alias,) = model.body["status"]["aliases"]
    assert [target["version"] for target in alias["history"]] == [2]


def test_an_alias_that_points_nowhere_keeps_its_history() -> None:
    model = Named()
    model.promote()
    model.tick(version(1, approval="Approved"), version(2, approval="Approved"))
    model.tick(version(1), version(2))
    (former,) = model.body["status"]["formerAliases"]
    assert (former["name"], [target["version"] for target in former["history"]]) == ("champion", [2])
    model.tick(version(1, approval="Approved"), version(2))
    (alias,) = model.body["status"]["aliases"]
    assert (alias["version"], [target["version"] for target in alias["history"]]) == (1, [2])
    assert "formerAliases" not in model.body["status"]


def _random_version(rng: random.Random, number: int) -> dict[str, Any]:
    against = rng.choice([None, "", *(f"tutor-v{n}" for n in range(1, number))])
    change = rng.choice([-0.5, -0.1, 0.2])
    loss = {"name": "loss", "base": "3", "tuned": "1", "changeLow": "-2", "changeHigh": "-1"}
    if against:
        loss |= {"against": "1", "againstLow": str(change), "againstHigh": str(change + 0.05)}
    evaluation = {} if against is None else {"against": against}
    return version(number, approval="Approved", numbers=[loss], evaluation=evaluation)


def _change(rng: random.Random, model: Named, versions: dict[int, dict[str, Any]]) -> None:
    number = rng.choice([*versions, 0]) or max(versions, default=0) + 1
    match rng.randrange(10):
        case 9 if number in versions:
            change = {"againstLow": str(low := rng.choice([-0.5, 0.2])), "againstHigh": str(low + 0.1)}
            versions[number] = again(versions[number], "1", f"tutor-v{rng.randrange(1, number + 2)}", "1")
            versions[number]["status"]["evaluations"][0]["numbers"][0] |= change
        case 0 | 1 | 2:
            versions[max(versions, default=0) + 1] = _random_version(rng, max(versions, default=0) + 1)
        case 3 | 4 if number in versions:
            state = rng.choice(["Approved", "Candidate", "Rejected"])
            versions[number]["spec"]["approval"] = {"state": state, "by": "ada"}
        case 5 if number in versions:
            ready = rng.choice(["True", "False"])
            versions[number]["status"] = {
                "conditions": [{"type": "Ready", "status": ready, "reason": "", "message": ""}]
            }
        case 6 if number in versions:
            del versions[number]
        case 7:
            model.pin(**({"pinned": number} if rng.random() < 0.5 else {}))
        case 8:
            gates: Any = [[], [{"metric": "loss", "value": "Against", "atMost": "0"}]]
            change = {"metric": "loss", "value": "Change", "atMost": rng.choice(["0", "-3"])}
            model.promote(rng.choice(["Automatic", "Automatic", "Manual"]), gates=[*rng.choice(gates), change])


@pytest.mark.parametrize("seed", range(60))
def test_one_pass_decides_what_two_decide(seed: int) -> None:
    rng, model, versions = random.Random(seed), Named(), {}
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    for _ in range(40):
        _change(rng, model, versions)
        pointed = model.targets() if "status" in model.body else {}
        model.tick(*versions.values())
        once = (model.targets(), model.body["status"].get("formerAliases"))
        assert model.tick(*versions.values()).status is None, "nothing is left to decide"
        if "champion" in pointed and "champion" not in once[0]:
            moves = model.body["spec"]["promotion"]["policy"] == "Automatic"
            assert not (moves and "promotable" in model.body["status"]), "nothing, and there is a version for it"
            assert model.body["status"]["formerAliases"][0]["name"] == "champion"


@pytest.mark.parametrize("policy", ["Automatic", "Manual"])
def test_a_lost_status_lets_no_gate_against_the_version_in_use_pass(policy: str) -> None:
    """As after a restore from a backup without status: the records say what was in use."""
    first, unmeasured = compared(1, "2.0", ""), compared(2, "9.0", "")
    better, outdated = compared(3, "1.0", "tutor-v1", "2.0"), compared(4, "1.9", "tutor-v1", "2.0")
    model = Named()
    model.promote(policy, gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    for _ in range(3):
        model.tick(first, unmeasured, better, outdated)
        assert model.targets() == ({"champion": "tutor-v3"} if policy == "Automatic" else {})
        assert model.body["status"]["promotable"] == 3
        results = {c["version"]: c["gates"] for c in model.body["status"]["candidates"]}
        assert (results[2], results[4]) == ("Inconclusive", "Inconclusive")


def test_after_a_restore_no_older_version_is_used_while_the_one_in_use_is_verified() -> None:
    first, better = compared(1, "2.0", ""), compared(3, "1.0", "tutor-v1", "2.0")
    model = Named()
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    unverified = {**better, "status": {}}
    model.tick(first, unverified)
    assert model.targets() == {}
    model.tick(first, better)
    assert model.targets() == {"champion": "tutor-v3"}


def test_whoever_waits_for_a_version_that_is_never_ready_may_reject_it() -> None:
    first, second = compared(1, "2.0", ""), compared(2, "1.0", "")
    model = Named()
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    model.tick({**first, "status": {}}, second)
    assert model.targets() == {}
    message = model.body["status"]["candidates"][0]["message"]
    assert message.endswith("tutor-v1 is approved and not Ready yet: wait for that, or reject it")
    first["spec"]["approval"] = {"state": "Rejected"}
    model.tick(first, second)
    assert model.targets() == {"champion": "tutor-v2"}


def test_after_a_restore_a_pinned_version_is_in_use_at_once() -> None:
    model = Named(production=2)
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    pinned, older = version(2), compared(3, "1.0", "tutor-v1", "2.0")
    for _ in range(2):
        model.tick(pinned, older)
        assert model.targets() == {"production": "tutor-v2"}


def test_a_comparison_with_another_model_stays_valid() -> None:
    model = Named()
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    lineage = {"hyperParameters": {"evaluation": {"against": "models://rival@production"}}}
    first = compared(1, "2.0", "rival-v7", "3.0", lineage=lineage)
    model.tick(first)
    model.tick(first, compared(2, "1.0", "rival-v7", "3.0", lineage=lineage))
    assert model.targets() == {"champion": "tutor-v2"}


def again(body: dict[str, Any], tuned: str, against: str, other: str) -> dict[str, Any]:
    """The version, after it was measured again."""
    loss = {"name": "loss", "tuned": tuned, "against": other}
    entry = {"dataset": "faq", "split": "validation", "against": against, "numbers": [loss]}
    return {**body, "status": {**body["status"], "evaluations": [entry]}}


def test_what_was_trained_before_the_champion_replaces_it_once_it_is_measured_next_to_it() -> None:
    model = Named()
    model.promote(gates=[{"metric": "loss", "value": "Against", "atMost": "0"}])
    first, champion = compared(1, "2.0", ""), compared(2, "1.5", "tutor-v1", "2.0")
    challenger = compared(3, "1.0", "tutor-v1", "2.0")
    model.tick(first, champion)
    model.tick(first, champion, challenger)
    assert model.targets() == {"champion": "tutor-v2"}
    model.tick(first, champion, again(challenger, "1.0", "tutor-v2", "1.5"))
    assert model.targets() == {"champion": "tutor-v3"}


@pytest.mark.parametrize("policy", ["Automatic", "Manual"])
def test_no_number_takes_an_alias_from_the_version_in_use(policy: str) -> None:
    """It may have been measured on other rows than older ones. People withdraw it, and newer versions replace it."""
    model = Named()
    gate = {"metric": "loss", "atMost": "1.5"}
    model.promote(gates=[gate])
    versions = [version(n, approval="Approved", numbers=[{"name": "loss", "tuned": "1"}]) for n in (1, 2)]
    model.tick(*versions)
    model.promote(policy, gates=[gate])
    worse = again(versions[1], "9", "tutor-v1", "1")
    model.tick(versions[0], worse)
    assert (model.targets(), model.body["status"]["promotable"]) == ({"champion": "tutor-v2"}, 1)
    assert model.body["status"]["candidates"][0]["message"] == "loss is 9, and must be at most 1.5"
    withdrawn = {**worse, "spec": {**worse["spec"], "approval": {"state": "Candidate"}}}
    model.tick(versions[0], withdrawn)
    assert model.targets() == ({"champion": "tutor-v1"} if policy == "Automatic" else {})


def test_what_a_person_pinned_does_not_stay_where_gates_decide() -> None:
    model = Named(champion=2)
    numbers = {n: [{"name": "loss", "tuned": str(n)}] for n in (1, 2)}
    versions = [version(n, approval="Approved", numbers=numbers[n]) for n in (1, 2)]
    model.tick(*versions)
    model.pin()
    model.promote(gates=[{"metric": "loss", "atMost": "1.5"}])
    model.tick(*versions)
    assert model.targets() == {"champion": "tutor-v1"}


def test_one_number_that_fails_its_gate_is_enough() -> None:
    model = Named()
    model.promote(gates=[{"metric": "loss", "atMost": "1.1"}])
    model.tick(version(1, approval="Approved", numbers=[LOSS, {**LOSS, "dataset": "b", "low": "3", "high": "4"}]))
    assert model.body["status"]["candidates"][0]["gates"] == "Failed"


def test_only_what_passed_and_is_approved_is_promoted() -> None:
    model = Named()
    model.promote(gates=[{"metric": "loss", "atMost": "1.1"}])
    worse = {**LOSS, "low": "1.2", "high": "1.4"}
    first = model.tick(version(1, numbers=[LOSS]))
    assert (model.targets(), first.events) == ({}, first.events[:0])
    assert model.body["status"]["candidates"][0]["message"] == "nobody has approved it"
    model.tick(version(1, approval="Approved", numbers=[LOSS]), version(2, approval="Approved", numbers=[worse]))
    (alias,) = model.body["status"]["aliases"]
    assert (alias["modelVersion"], alias["writer"], alias["approvedBy"]) == ("tutor-v1", "Promotion", "ada")
    assert model.body["status"]["promotable"] == 1
    outcome = model.tick(*(version(n, approval="Approved", numbers=[LOSS]) for n in (1, 3)))
    assert model.targets() == {"champion": "tutor-v3"}
    assert [e.message for e in outcome.events] == [
        "Alias champion points to tutor-v3, before tutor-v1: gates passed, approved by ada."
    ]


def test_withdrawn_approval_moves_the_alias_back() -> None:
    model = Named()
    model.promote()
    model.tick(version(1, approval="Approved"), version(2, approval="Approved"))
    assert model.targets() == {"champion": "tutor-v2"}
    model.tick(version(1, approval="Approved"), version(2, approval="Rejected"))
    assert model.targets() == {"champion": "tutor-v1"}
    outcome = model.tick(version(1), version(2, approval="Rejected"))
    assert model.targets() == {}
    assert "AliasLost" in [e.reason for e in outcome.events]


def test_with_policy_manual_an_alias_stays_but_never_without_approval() -> None:
    model = Named()
    model.promote()
    model.tick(version(1, approval="Approved"))
    model.promote(policy="Manual")
    model.tick(version(1, approval="Approved"), version(2, approval="Approved"))
    assert (model.targets(), model.body["status"]["promotable"]) == ({"champion": "tutor-v1"}, 2)
    model.tick(version(1), version(2, approval="Approved"))
    assert model.targets() == {}


def test_a_person_takes_an_alias_over_with_its_history() -> None:
    model = Named()
    model.promote()
    model.tick(version(1, approval="Approved"), version(2, approval="Approved"))
    del model.body["spec"]["promotion"]
    model.pin(champion=1)
    model.tick(version(1, approval="Approved"), version(2, approval="Approved"))
    (alias,) = model.body["status"]["aliases"]
    assert (alias["version"], alias["writer"], "approvedBy" in alias) == (1, "Spec", False)
    assert [entry["version"] for entry in alias["history"]] == [2]
    assert "candidates" not in model.body["status"]
