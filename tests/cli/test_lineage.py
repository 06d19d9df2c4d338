"""`hone models`: versions from rows to aliases."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from hone_cli.errors import CommandError
from hone_cli.lineage import drawn, models, trees
from hone_cli.reach.kube import Kube

pytestmark = pytest.mark.pure


def version(number: int, **changes: Any) -> dict[str, Any]:
    lineage = {
        "baseModel": {"uri": "hf://org/base", "commit": "a" * 40} | changes.get("base", {}),
        "datasets": [{"name": "faq", "split": "train", "digest": "sha256:" + "b" * 64, "rows": 1200}],
        "job": {"name": f"run-{number}", "uid": "u", "submittedBy": "bob"},
        "method": "SFT",
        "finishedAt": "2026-01-02T03:04:05Z",
    }
    ready = {"type": "Ready", "status": changes.get("ready", "True"), "reason": "x"}
    delivered = {"uri": "s3://bucket/m", "state": "Delivered", "location": f"s3://bucket/m/bot-v{number}"}
    return {
        "metadata": {"name": f"bot-v{number}"},
        "spec": {
            "modelName": "bot",
            "version": number,
            "lineage": lineage,
            "approval": changes.get("approval", {"state": "Candidate"}),
        },
        "status": {"conditions": [ready], "evalLoss": "1.1", "baseEvalLoss": "1.9", "deliveries": [delivered]},
    }


def model(name: str = "bot", **aliases: int) -> dict[str, Any]:
    entries = [{"name": alias, "version": n, "modelVersion": f"{name}-v{n}"} for alias, n in aliases.items()]
    conditions = [{"type": "UpToDate", "status": "False", "reason": "WaitingForRows"}]
    return {"metadata": {"name": name}, "status": {"aliases": entries, "conditions": conditions}}


def shown(*args: Any, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    for node in trees(*args):
        console.print(drawn(node, **options))
    return str(console.file.getvalue())


def test_a_version_is_shown_from_its_rows_to_its_aliases() -> None:
    approved = {"state": "Approved", "by": "ada"}
    text = shown([model(production=2, champion=2)], [version(1), version(2, approval=approved)])
    assert text.index("v2") < text.index("v1")
    for part in (
        "bot  WaitingForRows",
        "v2  champion, production  Approved by ada  loss 1.9 → 1.1",
        "SFT of hf://org/base (aaaaaaaaaaaa)",
        "faq/train, 1,200 rows (bbbbbbbbbbbb)",
        "job run-2, submitted by bob",
        "copy at s3://bucket/m/bot-v2",
    ):
        assert part in text, text


def test_a_copy_that_is_being_made_says_how_far_it_is() -> None:
    busy, new = version(1), version(2)
    progress = {"arrivedBytes": 1, "totalBytes": 2, "percent": 50, "summary": "1.0 of 2.0 MiB, 50%"}
    busy["status"]["deliveries"] = [{"uri": "s3://bucket/m", "state": "Delivering", "progress": progress}]
    new["status"]["deliveries"] = [
        {"uri": "oci://r/m", "state": "Delivering"},
        {"uri": "pvc://c/m", "state": "Failed", "progress": progress},
    ]
    text = shown([], [busy, new])
    assert "copying to s3://bucket/m: 1.0 of 2.0 MiB, 50%" in text
    assert "copying to oci://r/m: begun" in text
    assert "pvc://c/m" not in text


def test_what_was_measured_again_has_a_line() -> None:
    body = version(1)
    number = {"name": "loss", "dataset": "week/validation", "base": "3", "tuned": "1"}
    entry = {"dataset": "week", "split": "validation", "numbers": [number], "evaluatedAt": "2026-03-01T00:00:00Z"}
    body["status"]["evaluations"] = [entry]
    assert "loss of week/validation: 3 → 1, 2026-03-01T00:00:00Z" in shown([], [body])


def test_a_version_that_no_job_made_says_where_it_comes_from() -> None:
    foreign = version(1)
    lineage = foreign["spec"]["lineage"]
    del lineage["job"]
    lineage |= {"datasets": [], "method": "Import", "imported": {"uri": "hf://acme/bot", "submittedBy": "lin"}}
    text = shown([], [foreign])
    assert "imported from hf://acme/bot, submitted by lin" in text
    assert "job" not in text


def test_a_stage_of_a_chain_names_its_parent_and_an_unverified_one_says_so() -> None:
    text = shown([], [version(2, base={"modelVersion": "bot-v1"}, ready="False")])
    assert "SFT of bot-v1" in text
    assert "not Ready" in text


def test_old_versions_are_counted() -> None:
    text = shown([model()], list(map(version, range(1, 6))), most=2)
    assert "3 older: --all" in text
    assert "v5" in text
    assert "v3" not in text


def test_models_without_versions_and_versions_without_a_model_are_there() -> None:
    nodes = trees([model("empty")], [version(1)])
    assert [(node.name, len(node.versions)) for node in nodes] == [("bot", 1), ("empty", 0)]
    data = json.loads(json.dumps([asdict(node) for node in nodes]))
    assert data[0]["versions"][0]["datasets"] == [
        {"name": "faq", "split": "train", "digest": "sha256:" + "b" * 64, "rows": 1200}
    ]


def test_a_digest_is_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """People copy it into the manifest of another cluster."""
    place = "oci://registry.example.com:5000/a-long-team-name/tutor@sha256:" + "a" * 64
    deliveries = [{"uri": "oci://r", "location": place, "state": "Delivered"}]
    body = version(1)
    body["status"]["deliveries"] = deliveries
    monkeypatch.setattr(Kube, "load", lambda *_: SimpleNamespace(all_models=list, model_versions=lambda _: [body]))
    monkeypatch.setenv("COLUMNS", "80")
    models("bot")
    printed = capsys.readouterr().out
    assert place in printed
    assert max(map(len, printed.splitlines())) < len(place) + 40, "no line is padded"


@pytest.mark.parametrize(
    ("exists", "words"), [(True, "namespace nope has no model"), (None, "has no model"), (False, "does not exist")]
)
def test_a_namespace_that_does_not_exist_is_said_to_be_absent(
    exists: bool | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube = SimpleNamespace(namespace="nope", all_models=list, model_versions=lambda _: [], has_namespace=lambda: exists)
    monkeypatch.setattr(Kube, "load", lambda *_: kube)
    with pytest.raises(CommandError, match=words):
        models()


def test_words_of_an_object_are_not_markup() -> None:
    hostile = version(1, approval={"state": "Approved", "by": "[red]ada[/red]\x1b[2J"})
    text = shown([model()], [hostile])
    assert "[red]ada[/red]" in text
    assert "\x1b" not in text
