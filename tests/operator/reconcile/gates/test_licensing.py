"""A use that licences of base and data forbid is reported before the run, and nothing is refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.lives.versions import version_spec

from hone_operator.reconcile.core.upstream import Upstream

pytestmark = pytest.mark.pure


def advice(world: Any, new_life: Any, base: str | None, rows: str | None, **spec: Any) -> str:
    """Message of condition Advised of a job whose base was just staged."""
    life = new_life(model={"uri": "hf://org/model@main"}, **spec)
    if rows:
        life.datasets["rows"]["status"]["croissant"] = {"license": rows}
    life.tick()
    result = {"kind": "Fetch", "path": "base-models/org--model/abc", "commit": "abc"}
    life.ends("Complete", world.dead(0, outcome={"result": result | ({"license": base} if base else {})}))
    assert world.component("Job", life.tick(61).create) == ["run-1"], "it is advice"
    (condition,) = [c for c in life.status["conditions"] if c["type"] == "Advised"]
    return str(condition.get("message") or "")


def test_each_licence_that_forbids_the_use_is_named(world: Any, new_life: Any) -> None:
    page = "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    message = advice(world, new_life, "cc-by-nc-4.0", page, use="Commercial")
    assert "the base model hf://org/model@main has the licence cc-by-nc-4.0, which forbids that" in message
    assert "Dataset rows has the licence cc-by-nc-sa-4.0, which forbids that" in message


@pytest.mark.parametrize("spec", [{}, {"use": "NonCommercial"}])
def test_without_a_commercial_use_nothing_is_compared(world: Any, new_life: Any, spec: dict[str, str]) -> None:
    assert "licence" not in advice(world, new_life, "cc-by-nc-4.0", "cc-by-nc-4.0", **spec)


@pytest.mark.parametrize("licence", ["apache-2.0", None])
def test_other_licences_and_none_are_no_matter_of_advice(world: Any, new_life: Any, licence: str | None) -> None:
    assert "licence" not in advice(world, new_life, licence, licence, use="Commercial")


def test_what_earlier_stages_were_made_from_counts(world: Any, new_life: Any, conditions: Any) -> None:
    base = {"uri": "hf://org/large", "license": "qwen-research"}
    rows = {"name": "chats", "split": "train", "digest": "sha256:" + "1" * 64, "license": "cc-by-nc-4.0"}
    spec = version_spec(
        "Full", "pvc://hone-store/models/uid-0/full", "1", model="large", baseModel=base, datasets=[rows]
    )
    ready = {"type": "Ready", "status": "True", "reason": "Verified"}
    parent = {"metadata": {"name": "large-v1"}, "spec": spec, "status": {"conditions": [ready]}}
    life = new_life(model={"modelVersion": "large-v1"}, use="Commercial")
    life.upstream = Upstream(versions={"large-v1": parent})
    life.tick()
    (condition,) = [c for c in life.status["conditions"] if c["type"] == "Advised"]
    assert "hf://org/large has the licence qwen-research" in condition["message"]
    assert "Dataset chats of large-v1 has the licence cc-by-nc-4.0" in condition["message"]
