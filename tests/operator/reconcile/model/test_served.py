"""What servers of a namespace may load by the aliases of its Models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hone_api.contract.served import MAX_APPROVED
from hone_operator.reconcile.model.served import content

pytestmark = pytest.mark.pure


def version(number: int, approval: str = "Approved", ready: str = "True", **changes: Any) -> dict[str, Any]:
    """A ModelVersion of tutor with an adapter of rank 16."""
    uri = f"pvc://hone-store/models/r{number}/1/adapter"
    digest = f"sha256:{number:064x}"
    adapter = {"type": changes.get("adapter", "LoRA"), "rank": 16}
    base = {"uri": "hf://org/base", "location": "pvc://hone-store/base-models/b"} | changes.get("base", {})
    lineage = {
        "baseModel": base,
        "datasets": [],
        "job": {"name": "run", "uid": "u"},
        "method": "SFT",
        "hyperParameters": {"adapter": adapter},
        "seed": 1,
    }
    spec = {
        "modelName": "tutor",
        "version": number,
        "artifacts": [{"format": changes.get("form", "Adapter"), "uri": uri, "digest": digest, "sizeBytes": 1}],
        "lineage": lineage,
        "approval": {"state": approval},
    }
    status = {"conditions": [{"type": "Ready", "status": ready, "reason": "x", "message": ""}]}
    return {"kind": "ModelVersion", "metadata": {"name": f"tutor-v{number}"}, "spec": spec, "status": status}


def model(**aliases: int) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [
        {"name": name, "version": n, "modelVersion": f"tutor-v{n}"} for name, n in aliases.items()
    ]
    for entry in entries:
        entry["history"] = [{"version": n} for n in range(1, 4)]
    return {"kind": "Model", "metadata": {"name": "tutor"}, "status": {"aliases": entries}}


def served(named: dict[str, Any], *versions: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content([named], {"tutor": versions})["tutor.json"])
    return found


def test_an_alias_of_an_approved_adapter() -> None:
    found = served(model(champion=2), version(1), version(2), version(3, "Candidate"))
    [alias] = found["aliases"]
    assert (alias["name"], alias["modelVersion"]) == ("champion", "tutor-v2")
    assert alias["adapter"] == {
        "uri": "pvc://hone-store/models/r2/1/adapter",
        "digest": f"sha256:{2:064x}",
        "base": "pvc://hone-store/base-models/b",
        "rank": 16,
    }
    assert found["approved"] == [f"sha256:{n:064x}" for n in (2, 1)], "3 is a candidate"


@pytest.mark.parametrize(
    ("pointed", "why"),
    [
        (version(1, "Candidate"), "is not approved"),
        (version(1, "Rejected"), "is rejected"),
        (version(1, ready="False"), "is not Ready"),
        (version(1, adapter="DoRA"), "has no adapter that vLLM loads"),
        (version(1, form="Merged"), "has no adapter that vLLM loads"),
        (version(1, base={"location": None}), "does not say where its base is"),
        (version(2), "tutor-v1 is gone"),
    ],
)
def test_nothing_else_is_served(pointed: dict[str, Any], why: str) -> None:
    [alias] = served(model(champion=1), pointed)["aliases"]
    assert "adapter" not in alias
    assert why in alias["why"]


def test_a_model_without_an_alias_has_no_key() -> None:
    going = model(champion=1)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert content([model(), going], {"tutor": [version(1)]}) == {}


@pytest.mark.parametrize("entry", [{"name": "Champion!", "version": 1, "modelVersion": "tutor-v1"}, {"name": "x"}])
def test_a_status_of_another_version_does_not_stop_other_models(entry: dict[str, Any]) -> None:
    odd = {"metadata": {"name": "odd"}, "status": {"aliases": [entry]}}
    assert list(content([odd, model(champion=1)], {"tutor": [version(1)]})) == ["tutor.json"]


def test_what_an_alias_pointed_to_comes_first_of_what_may_stay() -> None:
    """Also without a history, as after the Model was created again, an approved version that a server has may stay."""
    found = served(model(champion=9), *map(version, range(1, 60)), version(60, "Candidate"))
    assert found["approved"] == [f"sha256:{n:064x}" for n in (9, 3, 2, 1, *range(59, 23, -1))]
    assert len(found["approved"]) == MAX_APPROVED
