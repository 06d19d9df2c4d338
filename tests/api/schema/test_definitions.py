"""The definitions themselves: complete, bounded, small, and what the models say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster import quick_yaml

from hone_api.base.rule import VALIDATIONS
from hone_api.generate import KINDS, ROOT, files
from hone_api.schema.schema import MAX_CRD_BYTES, crd

pytestmark = pytest.mark.pure

DEFINITIONS = [ROOT / folder / f"{kind.plural}.yaml" for kind in KINDS for folder in ("crds", "charts/hone/files/crds")]
OF_EARLIER_RECORDS = {("ModelVersion", f"spec.lineage.{where}hyperParameters") for where in ("", "ancestors[].")}
"""Read and no longer written; tests/api/kinds/test_plan_record.py holds that nobody can change them."""
FOLDER_NAMES = {("ModelVersion", "spec.artifacts[].format")}
"""Not CamelCase: each value is also the name of the artifact's folder in the store."""
PARTS = [(k.kind, part) for k in KINDS for part in ("spec", "status")]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_drift() -> None:
    generated = files()
    assert set(DEFINITIONS) == {path for path in generated if path.suffix == ".yaml"}
    stale = [relative(path) for path, text in generated.items() if path.read_text() != text]
    assert stale == [], "run `make crds` and commit the result"


@pytest.mark.parametrize("folder", ["crds", "charts/hone/files/crds"])
def test_nothing_else_is_next_to_the_definitions(folder: str) -> None:
    found = set((ROOT / folder).glob("*.y*ml"))
    assert found == {p for p in DEFINITIONS if p.parent == ROOT / folder}


@pytest.mark.parametrize("path", DEFINITIONS, ids=relative)
def test_size_and_round_trip(path: Path) -> None:
    definition = quick_yaml.document(path.read_text())
    assert len(json.dumps(definition, separators=(",", ":")).encode()) < MAX_CRD_BYTES
    assert definition in [crd(kind) for kind in KINDS]


@pytest.mark.parametrize("path", DEFINITIONS, ids=relative)
def test_yaml_1_1_makes_no_boolean_of_a_word(path: Path) -> None:
    """`on`, `no`, `y` and the like as key or value; true booleans are only written true and false."""
    node = yaml.compose(path.read_text(), Loader=yaml.CSafeLoader)
    written = {n.value for n in scalars(node) if n.tag == "tag:yaml.org,2002:bool" or n.tag == "tag:yaml.org,2002:null"}
    assert written <= {"true", "false"}
    assert all(isinstance(key, str) for key in keys_of(quick_yaml.document(path.read_text())))


def scalars(node: Any) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
        return
    for child in node.value:
        for each in child if isinstance(child, tuple) else (child,):
            yield from scalars(each)


def keys_of(node: Any) -> Iterator[Any]:
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from keys_of(child)
    if isinstance(node, dict):
        yield from node


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_no_name_is_a_yaml_1_1_boolean(kind: Any, fields: Any) -> None:
    """A user's unquoted field name or enum value must stay a string."""
    for part in ("spec", "status"):
        for field in fields(kind.kind, part):
            words = [field.path.rpartition(".")[2].rstrip("[]{}"), *field.schema.get("enum", ())]
            allowed = {"true", "false"} if field.path.endswith("conditions[].status") else set()
            for word in words:
                read = yaml.safe_load(str(word))
                assert isinstance(read, str) or str(word).lower() in allowed, f"{field.path}: {word}"


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_every_field_is_described(kind: str, part: str, fields: Any) -> None:
    for field in fields(kind, part):
        if not field.path.endswith(("[]", "{}")):
            text = field.schema.get("description", "")
            assert text.rstrip()[-1:] in {".", "…"}, f"{field.path}: {text!r}"


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_every_field_is_bounded(kind: str, part: str, fields: Any) -> None:
    for field in fields(kind, part):
        schema, where = field.schema, (kind, field.path)
        if where in OF_EARLIER_RECORDS:
            continue
        assert "x-kubernetes-preserve-unknown-fields" not in schema, where
        if schema.get("x-kubernetes-int-or-string"):
            assert "maxLength" in schema, where
            continue
        match schema["type"]:
            case "string":
                assert {"maxLength", "enum"} & set(schema), where
            case "array":
                assert "maxItems" in schema, where
            case "object":
                assert {"properties", "maxProperties"} & set(schema), where
            case "integer" if part == "spec":
                assert {"minimum", "maximum"} <= set(schema), where
            case "number":
                pytest.fail(f"{where}: a float; use a patterned string")


@pytest.mark.parametrize(("kind", "part"), PARTS)
def test_enum_values_are_camel_case(kind: str, part: str, fields: Any) -> None:
    for field in fields(kind, part):
        for value in field.schema.get("enum", ()) if (kind, field.path) not in FOLDER_NAMES else ():
            assert re.fullmatch(r"[A-Z][A-Za-z0-9]*", value), f"{field.path}: {value}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_status_has_no_default_and_needs_nothing_of_the_user(kind: Any, fields: Any) -> None:
    assert not [f.path for f in fields(kind.kind, "status") if "default" in f.schema]
    assert "required" not in fields(kind.kind, "status")[0].schema


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_rules_say_the_way_out_in_a_line(kind: Any, fields: Any) -> None:
    rules = [r for f in fields(kind.kind, "spec") for r in f.schema.get(VALIDATIONS, ())]
    assert rules
    for rule in rules:
        assert "\n" not in rule["message"]
        assert len(rule["message"]) <= 200


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_no_refusal_quotes_a_uri_that_may_hold_a_password(kind: Any, fields: Any) -> None:
    """Kubernetes 1.35 and later quote the value of a text, unless the reason is Forbidden."""
    uris = [f for f in fields(kind.kind, "spec") if "user name or password" in str(f.schema.get(VALIDATIONS, ""))]
    uris = [f for f in uris if f.schema["type"] == "string"]
    assert uris
    for field in uris:
        assert {rule.get("reason") for rule in field.schema[VALIDATIONS]} == {"FieldValueForbidden"}, field.path


def test_a_rule_that_edits_are_not_asked_reads_only_fields_that_edits_cannot_change() -> None:
    """Otherwise an edit could break it."""
    read = {
        (kind.kind, name): kind.spec.immutable and name in kind.spec.immutable.names
        for kind in KINDS
        for rule in kind.spec.rules
        if rule.optional_old_self
        for name in re.findall(r"\bself\.(\w+)", rule.rule)
    }
    assert ("FineTuneJob", "method") in read
    assert [field for field, cannot_change in read.items() if not cannot_change] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_patterns_are_anchored(kind: Any, fields: Any) -> None:
    """A good value must not carry a bad one in."""
    for field in fields(kind.kind, "spec"):
        if pattern := field.schema.get("pattern"):
            assert pattern.startswith("^"), field.path
            assert pattern.endswith("$"), field.path
            assert "|" not in re.sub(r"\(.*\)", "", pattern), f"{field.path}: an alternative outside the anchors"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_columns_and_selectable_fields_exist(kind: Any, fields: Any) -> None:
    known = {f".{f.path}" for part in ("spec", "status") for f in fields(kind.kind, part)}
    for path in [c.json_path for c in kind.columns] + list(kind.selectable):
        plain = re.sub(r"\[\?.*?\]", "[]", path)
        assert plain in known or path == ".metadata.creationTimestamp", path
