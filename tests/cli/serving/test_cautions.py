"""What `hone serve` warns of. At a real API server: `operator/command/test_hone_serve.py`."""

from __future__ import annotations

from typing import Any

import pytest

from hone_cli.serving.cautions import cautions, shows_signing

pytestmark = pytest.mark.pure


def version(
    number: int = 1, state: str | None = "Approved", signed: str | None = None, why: str = ""
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True", "message": "All files match."}]
    conditions += [{"type": "Signed", "status": signed, "message": why}] if signed else []
    return {
        "metadata": {"name": f"bot-v{number}", "namespace": "team"},
        "spec": {"modelName": "bot", "version": number, **({"approval": {"state": state}} if state else {})},
        "status": {"conditions": conditions},
    }


@pytest.mark.parametrize("state", ["Candidate", None])
def test_a_version_that_nobody_has_approved_is_reported_with_the_command_that_approves_it(state: str | None) -> None:
    assert list(cautions([version(1), version(2, state), version(2, state), version(3, "Rejected")], signs=False)) == [
        "ModelVersion bot-v2 is not approved: nobody has decided that it may be served. To approve it: "
        "hone approve bot-v2 --namespace team"
    ]


@pytest.mark.parametrize(
    ("signed", "why", "signs", "words"),
    [
        ("True", "", True, None),
        (None, "", False, None),
        (None, "", True, "no signature is recorded."),
        ("False", "The key cannot be used.", True, "The key cannot be used."),
        ("False", "", False, "no signature is recorded."),
    ],
)
def test_a_version_without_a_signature_is_reported_where_the_platform_signs(
    signed: str | None, why: str, signs: bool, words: str | None
) -> None:
    expected = [f"ModelVersion bot-v1 is not signed, and this platform signs models: {words}"] if words else []
    assert list(cautions([version(signed=signed, why=why)], signs)) == expected


def test_a_platform_signs_if_any_version_has_the_condition() -> None:
    assert not shows_signing([version(), {"spec": {}}])
    assert shows_signing([version(), version(2, signed="False")])
