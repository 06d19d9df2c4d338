"""A plan of a neighbouring release: what is unknown in it is left out only where its writer is newer."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from hone_api import RELEASE
from hone_api.contract.plan_reading import parse_plan, read_plan
from hone_api.plan import SweepPlan, TrainingPlan
from hone_operator import __version__

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[3]
NEWER = ("0.1.1", "0.2.0", "0.10.0", "1.0.0-rc1")
NOT_NEWER = (None, RELEASE, "0.0.9", "0.1.0-rc1")


def plan(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "Training",
        "run": "tutor-1",
        "modelPath": "model",
        "modelUri": "hf://owner/model",
        "datasets": [{"name": "rows", "path": "rows.jsonl", "digest": "sha256:" + "a" * 64}],
        "output": {"modelName": "tutor"},
        "workPath": "work",
        "outputPath": "out",
        **fields,
    }


def ahead(release: str | None) -> str:
    """A plan with fields that this release does not know, at each depth."""
    body = plan(release=release, future=1, training={"epochs": "2", "future": {"deep": [1]}})
    body["datasets"][0]["future"] = True
    return json.dumps(body)


@pytest.mark.parametrize("release", NEWER)
def test_fields_of_a_newer_release_are_left_out_and_named(release: str) -> None:
    read, unknown = read_plan(ahead(release))
    assert isinstance(read, TrainingPlan)
    assert (read.training.epochs, read.release) == ("2", release)
    assert sorted(unknown) == ["datasets.0.future", "future", "training.future"]


@pytest.mark.parametrize("release", NOT_NEWER)
def test_fields_that_nobody_knows_are_refused(release: str | None) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_plan(ahead(release))
    assert {e["type"] for e in caught.value.errors()} == {"extra_forbidden"}


def test_wrong_values_of_a_newer_release_are_refused() -> None:
    with pytest.raises(ValidationError, match="method"):
        parse_plan(json.dumps(plan(release="9.0.0", method="Telepathy", future=1)))
    with pytest.raises(ValidationError, match="release"):
        parse_plan(json.dumps(plan(release="newest", future=1)))


def test_a_plan_of_before_has_the_defaults_of_now() -> None:
    read, unknown = read_plan('{"kind": "Sweep", "store": "/store", "remove": [], "asOf": 1}')
    assert isinstance(read, SweepPlan)
    assert (read.release, read.checkpoints, unknown) == (None, [], [])


def test_all_that_is_released_has_one_release() -> None:
    project, cli = (tomllib.loads((ROOT / d / "pyproject.toml").read_text())["project"] for d in ("", "cli"))
    charts = [yaml.safe_load(file.read_text()) for file in ROOT.glob("charts/*/Chart.yaml")]
    assert len(charts) == 2
    assert {project["version"], cli["version"], __version__} == {RELEASE}
    assert {chart[name] for chart in charts for name in ("version", "appVersion")} == {RELEASE}
