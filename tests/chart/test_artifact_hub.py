"""The chart's annotations for Artifact Hub: those that https://artifacthub.io/docs/topics/annotations/helm/ lists, and
true of this chart."""

import pytest
import yaml

from hone_api import API_VERSION
from hone_api.generate import KINDS
from hone_dev.chart import generate

pytestmark = pytest.mark.pure
PREFIX = "artifacthub.io/"
DOCUMENTED = {
    *("alternativeName", "category", "changes", "containsSecurityUpdates", "crds", "crdsExamples", "images", "license"),
    *("links", "maintainers", "operator", "operatorCapabilities", "prerelease", "recommendations", "screenshots"),
    "signKey",
}
CATEGORIES = {
    *("ai-machine-learning", "database", "integration-delivery", "monitoring-logging", "networking", "security"),
    *("storage", "streaming-messaging", "skip-prediction"),
}
CHANGES = {"added", "changed", "deprecated", "removed", "fixed", "security"}
CHART = yaml.safe_load((generate.CHART / "Chart.yaml").read_text())
HUB = {k.removeprefix(PREFIX): v for k, v in CHART["annotations"].items() if k.startswith(PREFIX)}


def test_every_annotation_is_documented_and_text():
    assert {f"{PREFIX}{name}" for name in HUB} == set(CHART["annotations"])
    assert set(HUB) <= DOCUMENTED
    assert {type(value) for value in HUB.values()} == {str}
    assert HUB["category"] in CATEGORIES
    assert {HUB["operator"], HUB["prerelease"]} <= {"true", "false"}


def test_changes_are_of_a_kind_that_the_hub_knows():
    changes = yaml.safe_load(HUB["changes"])
    assert changes
    for change in changes:
        assert change["kind"] in CHANGES
        assert change["description"]


def test_every_definition_of_the_chart_is_listed():
    version = API_VERSION.rpartition("/")[2]
    definitions = {(kind.kind, version, f"{kind.plural}.hone.dev") for kind in KINDS}
    listed = yaml.safe_load(HUB["crds"])
    assert {(crd["kind"], crd["version"], crd["name"]) for crd in listed} == definitions
    assert all(crd["displayName"] and crd["description"] for crd in listed)


def test_the_examples_are_objects_that_the_api_takes():
    specs = {kind.kind: kind.spec for kind in KINDS}
    examples = yaml.safe_load(HUB["crdsExamples"])
    for example in examples:
        assert example["apiVersion"] == API_VERSION
        specs[example["kind"]].model_validate(example["spec"])
    assert [example["kind"] for example in examples] == ["Dataset", "FineTuneJob"]
