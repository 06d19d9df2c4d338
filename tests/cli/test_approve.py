"""`hone approve`: what gates say, and what follows. At an API server: `operator/access/test_tenant_approvals.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hone_cli import approve as command
from hone_cli.approval import consequences, gates_of
from hone_cli.approve import approve, reject, summary
from hone_cli.errors import CommandError

pytestmark = pytest.mark.pure

GATES = [{"metric": "loss", "atMost": "1.2"}]
LOSS = {"name": "loss", "tuned": "1.0"}


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
        (automatic(judged("Passed", number=9)), version(), "Inconclusive", "loss was not measured"),
        (automatic(judged("Passed", number=9)), version(evaluation={"numbers": [LOSS]}), "Passed", ""),
        (automatic(judged("Failed", number=9), observedGeneration=1), version(), None, "has not judged it"),
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
        (automatic(), version(evaluation={"numbers": [LOSS]}), "champion moves from bot-v2 to bot-v3."),
        (
            automatic(observedGeneration=1),
            version(),
            "champion moves to it only if the operator finds that its gates have passed.",
        ),
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
    assert said[2:] == [
        "It is copied to s3://b/m.",
        "It is copied to oci://r/m as soon as an alias points to it.",
        "It is copied to hf://a/m.",
    ]


def adapter(number: int, base: str = "pvc://store/base-models/b", **settings: Any) -> dict[str, Any]:
    """A version with an adapter that servers may follow."""
    lineage = {
        "baseModel": {"uri": "hf://org/base", "location": base},
        "datasets": [],
        "job": {"name": "run", "uid": "u"},
        "method": "SFT",
        "hyperParameters": {"adapter": {"type": "LoRA", "rank": 16, **settings}},
        "seed": 1,
    }
    uri, digest = "pvc://store/models/r/1/adapter", "sha256:" + "0" * 64
    files = {"format": settings.get("form", "Adapter"), "uri": uri, "digest": digest, "sizeBytes": 1}
    return version(number, artifacts=[files], lineage=lineage)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (adapter(3), None),
        (adapter(3, rank=8), None),
        (adapter(3, rank=32), "it needs --max-lora-rank 32, and bot-v2 needs 16"),
        (adapter(3, base="pvc://store/base-models/c"), "its base is pvc://store/base-models/c, and that of bot-v2 is"),
        (adapter(3, type="DoRA"), "it has no adapter that they load (vLLM: no, a DoRA adapter"),
        (adapter(3, form="Merged"), "it has no adapter that they load (vLLM: yes, the merged model"),
    ],
)
def test_an_approval_warns_of_what_servers_that_follow_cannot_load(after: dict[str, Any], words: str | None) -> None:
    of = automatic(judged("Passed"))
    moved, *warnings = consequences(after, of, "Approved", {"bot-v2": adapter(2)})
    assert moved == "champion moves from bot-v2 to bot-v3."
    assert len(warnings) == bool(words)
    if words:
        assert warnings[0].startswith(f"Warning: {words}")
        assert "Servers that follow the alias keep bot-v2 while it is approved" in warnings[0]


def test_the_newest_numbers_come_before_the_decision() -> None:
    ends = {"low": "0.9", "high": "1.1"}
    trained = [
        {"name": "loss", "dataset": "faq/validation", "base": "3", "tuned": "2"},
        {**LOSS, "dataset": "old/validation"},
    ]
    again = {"name": "loss", "dataset": "faq/validation", "base": "3", "tuned": "1", "against": "1.5", **ends}
    body = version(evaluation={"numbers": trained})
    entry = {"dataset": "faq", "split": "validation", "against": "bot-v2", "numbers": [again]}
    body["status"]["evaluations"] = [{**entry, "evaluatedAt": "2026-03-01T00:00:00Z"}]
    assert [line for line in summary(body, gates_of(body, None)) if line.startswith("  ")] == [
        "  loss of faq/validation: 3 → 1 (95 %: 0.9 to 1.1), bot-v2 has 1.5, 2026-03-01T00:00:00Z",
        "  loss of old/validation: ? → 1.0",
    ]


def test_next_to_recorded_answers_a_number_has_theirs_and_the_difference() -> None:
    """It has no value of the base, and the gate judges the difference."""
    told = {"against": "0.75", "againstLow": "-0.83", "againstHigh": "-0.66", "low": "0", "high": "0.1"}
    body = version(
        evaluation={"numbers": [{"name": "parity_exact", "dataset": "x-held/train", "tuned": "0.05", **told}]}
    )
    line = "  parity_exact of x-held/train: 0.05, recorded answers 0.75, difference -0.83 to -0.66 (95 %)"
    assert line in list(summary(body, gates_of(body, None)))


def test_licences_come_before_the_decision() -> None:
    lineage = {"baseModel": {"license": "cc-by-nc-4.0"}, "datasets": [{"name": "faq", "license": "mit"}, {"name": "x"}]}
    licensed = version(lineage=lineage)
    lines = list(summary(licensed, gates_of(licensed, None)))
    assert "Licences: base cc-by-nc-4.0, not for commercial use, Dataset faq mit" in lines


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
    assert "may point to it, but servers that follow the alias do not serve it" in withdrawn[0]
    assert "points nowhere until another version is set there" in rejected[0]
    assert withdrawn[1] == rejected[1] == "Copies that were delivered stay where they are."
    of["status"]["aliases"] = [{"name": "production", "version": 2, "modelVersion": "bot-v2"}]
    assert consequences(version(), of, "Rejected")[0].startswith("production of spec.aliases stays at bot-v2 until")


def test_retention_may_delete_a_version_that_its_approval_has_kept() -> None:
    approved = version(3, approval={"state": "Approved"}, deletionPolicy="Delete")
    of = model(status={"latest": 9}, retention={"keep": 5})
    for state in ("Candidate", "Rejected"):
        (sentence,) = consequences(approved, of, state)
        assert sentence.endswith("spec.retention of the Model (keep: 5) may delete it with its files now.")
    assert consequences(version(3), of, "Rejected") == [], "nothing has kept it"
    assert consequences(version(5, approval={"state": "Approved"}), of, "Rejected") == [], "one of the newest five"


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


class OneVersion:
    """A cluster with one ModelVersion."""

    namespace = "team"

    def __init__(self, body: dict[str, Any]) -> None:
        self.body, self.written = body, list[Any]()

    def model_version(self, name: str) -> dict[str, Any]:
        return self.body

    def model(self, name: str) -> None:
        return None

    def user(self) -> str:
        return "ada"

    def decide(self, version: Any, approval: Any, *, dry_run: bool) -> None:
        self.written.append(approval)


@pytest.fixture
def decided_before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OneVersion]:
    """A cluster whose version has this spec.approval; the commands use it."""

    def cluster(**approval: str) -> OneVersion:
        one = OneVersion(version(approval=approval))
        monkeypatch.setattr(command, "_kube", lambda *_: one)
        return one

    return cluster


def test_what_a_gate_rejected_is_approved_despite_it_and_not_forgotten(decided_before: Any) -> None:
    """With the rejection, the next approval would find nothing that speaks against it."""
    cluster = decided_before(state="Rejected", by="evaluation.gate", comment="evaluation.gate: 9 > 5")
    with pytest.raises(CommandError, match="no decision of a person to withdraw"):
        approve("bot-v3", withdraw=True)
    with pytest.raises(CommandError, match="its gates have not passed"):
        approve("bot-v3")
    assert cluster.written == []
    approve("bot-v3", despite_gates=True, comment="9 is fine")
    assert cluster.written == [{"state": "Approved", "by": "ada", "comment": "9 is fine"}]


def test_the_reason_of_the_last_decision_is_shown_before_it_is_replaced(decided_before: Any, capsys: Any) -> None:
    decided_before(state="Approved", by="bob", comment="asked ten\ncustomers")
    reject("bot-v3")
    assert capsys.readouterr().out.startswith("ModelVersion bot-v3: Approved by bob: asked ten customers\n")


def test_numbers_are_indented_at_the_terminal(decided_before: Any, capsys: Any) -> None:
    cluster = decided_before(state="Candidate")
    cluster.body["spec"]["evaluation"] = {"numbers": [{"name": "loss\x1b[1m", "base": "1.9", "tuned": "1.1"}]}
    approve("bot-v3")
    assert "\n  loss [1m: 1.9 → 1.1\n" in capsys.readouterr().out


def test_who_overrides_gates_says_why() -> None:
    with pytest.raises(CommandError, match="--comment 'why'"):
        approve("bot:3", despite_gates=True)
    with pytest.raises(CommandError, match="--comment 'why'"):
        approve("bot:3", despite_gates=True, comment=" \n")
    with pytest.raises(CommandError, match="leave it out with --withdraw"):
        approve("bot:3", despite_gates=True, withdraw=True)
