"""Every scheme is accepted where its record says so, and nowhere else: by the definitions as they are installed."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_api.base.cel import evaluate, is_match
from hone_api.base.schemes import SCHEMES, Use, schemes

pytestmark = pytest.mark.pure

CRDS = Path(__file__).parents[3] / "crds"
ADDRESSES = {
    "hf": "hf://owner/name",
    "oci": "oci://registry.example.org/team/tutor",
    "s3": "s3://models/tutor",
    "https": "https://example.org/tutor",
    "pvc": "pvc://claim/tutor",
    "configmap": "configmap://rows/rows.jsonl",
    "ftp": "ftp://host/tutor",
    "gs": "gs://models/tutor",
    "image by digest": "oci://registry.example.org/team/tutor@sha256:" + "0" * 64,
    "registry.example.org/team/tutor": "registry.example.org/team/tutor",
}
IMAGES = {Use.BASE: {"image by digest"}, Use.IMPORT: {"oci", "image by digest"}, Use.DELIVERY: {"oci"}}
FIELDS: dict[str, set[Use]] = {
    "datasets.source.uri": {Use.ROWS},
    "finetunejobs.model.uri": {Use.BASE},
    "models.imports.uri": {Use.IMPORT},
    "models.imports.base.uri": {Use.IMPORT_BASE},
    "models.deliveries.uri": {Use.DELIVERY},
    "modelversions.deliveries.uri": {Use.DELIVERY},
    "finetunejobs.output.push.uri": {Use.DELIVERY},
}


@cache
def spec_of(plural: str) -> dict[str, Any]:
    definition = yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    spec: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def accepts(field: str, uri: str) -> bool:
    plural, *path = field.split(".")
    schema = spec_of(plural)
    refusals = [rule["rule"] for rule in schema.get("x-kubernetes-validations", ())]
    if path == ["model", "uri"] and not all(
        evaluate(rule, {"model": {"uri": uri}}) for rule in refusals if "has(self.model.uri)" in rule
    ):
        return False
    for name in path:
        schema = schema.get("items", schema)["properties"][name]
    rules = [rule["rule"] for rule in schema["x-kubernetes-validations"] if rule["rule"] != "self == oldSelf"]
    return is_match(schema["pattern"], uri) and all(evaluate(rule, uri) for rule in rules)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_accepts_the_schemes_of_its_use(field: str) -> None:
    accepted = {name for name, uri in ADDRESSES.items() if accepts(field, uri)}
    expected = {scheme.name for scheme in schemes(*FIELDS[field])}
    if "oci" in expected:
        expected = expected - {"oci"} | set().union(*(IMAGES[use] for use in FIELDS[field]))
    assert accepted == expected


def test_every_scheme_and_every_use_is_tried() -> None:
    assert {scheme.name for scheme in SCHEMES} < set(ADDRESSES)
    assert {use for uses in FIELDS.values() for use in uses} == set(Use) - {Use.LATER}
