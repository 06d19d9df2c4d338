"""`hone approve`: what gates say, and what follows. At a real API server: `operator/test_tenants.py`."""

from __future__ import annotations

from typing import Any

import pytest

from hone_cli.approval import consequences, gates_of
from hone_cli.approve import approve, summary
from hone_cli.errors import CommandError

pytestmark = pytest.mark.pure

GATES = [{"metric": "loss", "atMost": "1.2"}]


def version(number: int = 3, ready: bool = True, **spec: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "reason": "x"}]
    return {
        "metadata": {"name": f"bot-v{number}"},
        "spec": {"modelName": "bot", "version": number, **spec},
        "status": {"conditions": conditions},
    }


def model(promotion: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "bot", "generation": 2},
        "spec": spec | ({"promotion": {"aliases": ["champion"], **promotion}} if promotion is not None else {}),
        "status": {"observedGeneration": 2, **(status or {})},
    }


def judged(result: str, message: str = "", number: int = 3) -> dict[str, Any]:
    entry = {"version": number, "modelVersion": f"bot-v{number}", "gates": result, "approval": "Candidate"}
    return entry | ({"message": message} if message else {})


def automatic(*candidates: dict[str, Any], champion: int | None = 2, **status: Any) -> dict[str, Any]:
    aliases = [{"name": "champion", "version": champion, "modelVersion": f"bot-v{champion}"}] if champion else []
    seen = {"candidates": list(candidates), "aliases": aliases, "promotable": champion, **status}
    return model({"policy": "Automatic", "gates": GATES}, seen)


@pytest.mark.parametrize(
    ("of", "version_", "result", "words"),
    [
        (None, version(), "Passed", "there are none"),
        (model({}), version(), "Passed", "there are none"),
        (automatic(judged("Passed", "nobody has approved it")), version(), "Passed", ""),
        (automatic(judged("Failed", "loss is 2, and must be at most 1.2")), version(), "Failed", "loss is 2"),
        (automatic(judged("Inconclusive", "loss was not measured")), version(), "Inconclusive", "not measured"),
        (automatic(judged("Passed", number=9)), version(), None, "newest 5 versions, and not this one"),
        (automatic(judged("Passed"), observedGeneration=1), version(), None, "has not judged it"),
        (
            None,
            version(approval={"state": "Rejected", "by": "evaluation.gate", "comment": "evaluation.gate: 9 > 5"}),
            "Failed",
            "a gate of the job rejected it: evaluation.gate: 9 > 5",
        ),
        (None, version(approval={"state": "Rejected", "by": "ada", "comment": "rude"}), "Passed", "there are none"),
    ],
)
def test_what_gates_say(of: Any, version_: dict[str, Any], result: str | None, words: str) -> None:
    gates = gates_of(version_, of)
    assert gates.result == result
    assert words in gates.message
    assert gates.passed == (result == "Passed")


@pytest.mark.parametrize(
    ("of", "version_", "sentence"),
    [
        (automatic(judged("Passed")), version(), "champion moves from bot-v2 to bot-v3."),
        (automatic(judged("Passed"), champion=None), version(), "champion points to bot-v3 from now on."),
        (
            automatic(judged("Passed")),
            version(ready=False),
            "champion moves from bot-v2 to bot-v3 as soon as it is Ready.",
        ),
        (automatic(judged("Failed", "x")), version(), "champion does not move to it: the gates have not passed."),
        (
            automatic(judged("Passed"), champion=7),
            version(),
            "champion does not move to it: version 7 is newer, and may be promoted.",
        ),
        (automatic(), version(), "champion moves to it only if the operator finds that its gates have passed."),
        (
            automatic(judged("Passed")),
            version(approval={"state": "Rejected", "by": "evaluation.gate", "comment": "evaluation.gate: 9 > 5"}),
            "champion moves from bot-v2 to bot-v3.",
        ),
        (model({}), version(), "No alias moves by itself: spec.promotion.policy of the Model is Manual."),
        (None, version(), "No alias moves by itself: set version 3 for one in spec.aliases of the Model."),
    ],
)
def test_what_follows_from_an_approval(of: Any, version_: dict[str, Any], sentence: str) -> None:
    assert consequences(version_, of, "Approved") == [sentence]


def test_an_approval_names_servers_and_copies() -> None:
    entries = [{"uri": "s3://b/m"}, {"uri": "oci://r/m", "when": "Aliased"}, {"uri": "hf://a/m", "when": "Approved"}]
    of = model(aliases=[{"name": "production", "version": 3}, {"name": "old", "version": 1}], deliveries=entries)
    said = consequences(version(), of, "Approved")
    assert said[0] == "production of spec.aliases: servers that follow it load bot-v3 once it is Ready."
    assert said[2:] == ["It is copied to s3://b/m.", "It is copied to hf://a/m."]


@pytest.mark.parametrize(
    ("of", "end"),
    [
        (automatic(judged("Passed"), judged("Passed", number=2), champion=3, versions=2), "points to bot-v2."),
        (automatic(judged("Passed"), judged("Failed", "x", 2), champion=3, versions=2), "points to nothing."),
        (automatic(judged("Passed"), champion=3, versions=9), "that may be promoted, if there is one."),
    ],
)
def test_where_an_alias_goes_from_a_version_that_is_withdrawn(of: dict[str, Any], end: str) -> None:
    for state in ("Candidate", "Rejected"):
        (sentence,) = consequences(version(), of, state)
        assert sentence.startswith("champion leaves it, and ")
        assert sentence.endswith(end)


def test_a_withdrawn_version_may_still_be_named_in_spec_aliases() -> None:
    of, copied = model(aliases=[{"name": "production", "version": 3}]), version()
    copied["status"]["deliveries"] = [{"uri": "s3://b/m", "state": "Delivered"}]
    withdrawn, rejected = (consequences(copied, of, state) for state in ("Candidate", "Rejected"))
    assert "still points to it, and servers that follow the alias unload it" in withdrawn[0]
    assert "points nowhere until another version is set there" in rejected[0]
    assert withdrawn[1] == rejected[1] == "Copies that were delivered stay where they are."


def test_the_numbers_come_before_the_decision() -> None:
    loss = {"name": "loss", "dataset": "faq/validation", "base": "1.9", "tuned": "1.1", "low": "1.0", "high": "1.2"}
    measured = version(evaluation={"numbers": [loss, {"name": "f1", "tuned": "0.4"}]}, approval={"state": "Candidate"})
    of = automatic(judged("Inconclusive", "loss is 1 to 1.2, which spans its limit"))
    assert list(summary(measured, gates_of(measured, of))) == [
        "ModelVersion bot-v3: Candidate",
        "  loss of faq/validation: 1.9 → 1.1 (95 %: 1.0 to 1.2)",
        "  f1: ? → 0.4",
        "Gates: Inconclusive: loss is 1 to 1.2, which spans its limit",
    ]


def test_who_overrides_gates_says_why() -> None:
    with pytest.raises(CommandError, match="--comment 'why'"):
        approve("bot:3", despite_gates=True)
    with pytest.raises(CommandError, match="leave it out with --withdraw"):
        approve("bot:3", despite_gates=True, withdraw=True)
