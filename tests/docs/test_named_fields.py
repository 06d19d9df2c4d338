"""Each field, value of the chart and command that a page names exists under this name."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.core import TyperGroup
from typer.main import get_command

from hone_api.base.meta import Kind
from hone_api.generate import KINDS
from hone_api.schema.schema import crd
from hone_cli.__main__ import application
from hone_cli.convert.tables import tables
from hone_trainer.commands import command_line

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")})
PAGES.remove(ROOT / "CHANGELOG.md")  # names what is gone
FOREIGN = {
    "resources.limits.memory",  # a map of the chart
    "spec.active",  # of a Workload of Kueue
    "spec.managedBy",  # of a Job of batch/v1
    "spec.syncPolicy.managedNamespaceMetadata.labels",  # of Argo CD
    "spec.topologyName",  # of a ResourceFlavor of Kueue
    "status.storedVersions",  # of a CustomResourceDefinition
    "datasets.Dataset.from_file",
    "datasets.map",
}
KEYS = {key.replace("[]", "").rstrip("*") for table in tables().values() for key, _ in table.rows()}
"""Of configurations that `hone convert` reads."""
FILE = re.compile(r"\.(json|jsonl|yaml|py|npy|sig|arrow)$")
CODE = re.compile(r"`([a-zA-Z]\w*(?:\[\])?(?:\.[a-zA-Z]\w*(?:\[\])?)+)(?:[:=] ?[^`]*)?`")
FIELD_IN_OUTPUT = re.compile(r"\{\.((?:spec|status)\.[^}]*)\}")
INDEX = re.compile(r"\[[^\]]*\]")


def fields(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each field below a schema of the API."""
    for name, child in schema.get("properties", {}).items():
        yield (*path, name)
        yield from fields(child.get("items", child), (*path, name))


def values(
    schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The path of each value of the chart."""
    for node in (schema, definitions.get(schema.get("$ref", "").rpartition("/")[2], {}), *schema.get("anyOf", ())):
        for name, child in node.get("properties", {}).items():
            yield (*path, name)
            yield from values(child, definitions, (*path, name))


API = {path for kind in KINDS for path in fields(crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])}
CHART_SCHEMA = json.loads((ROOT / "charts/hone/values.schema.json").read_text())
CHART = set(values(CHART_SCHEMA, CHART_SCHEMA["definitions"]))
ENDINGS = {path[start:] for path in API for start in range(len(path))} | CHART
BLOCKS = {path[0] for path in ENDINGS if len(path) > 1}


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_field_that_a_page_names_exists(page: Path) -> None:
    named = [name.replace("[]", "") for name in CODE.findall(prose(page)) if not FILE.search(name)]
    paths = {name: tuple(name.split(".")) for name in named if name not in FOREIGN | KEYS}
    assert [name for name, path in paths.items() if path[0] in BLOCKS and path not in ENDINGS] == []


def test_many_fields_are_named_and_each_exception_is_used() -> None:
    text = "".join(prose(page) for page in PAGES)
    assert sum(name.split(".")[0] in BLOCKS for name in CODE.findall(text)) > 500
    assert {name for name in FOREIGN if f"`{name}" not in text} == set()


def test_what_commands_print_of_an_object_exists() -> None:
    printed = [name for page in PAGES for name in FIELD_IN_OUTPUT.findall(page.read_text())]
    paths = {name: tuple(INDEX.sub("", name).split(".")) for name in printed if "allocatable" not in name}
    assert len(paths) > 10
    known = {*API, ("status", "phase"), ("status", "userInfo", "username")}
    assert [name for name, path in paths.items() if path not in known] == []


def patches() -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and content of each merge patch that a page shows."""
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for kind, patch in re.findall(r"kubectl (?:-n \S+ )?patch (\S+) \S+ +--type merge +-p '(\{.*\})'", text):
            yield kind, json.loads(patch)


def test_patches_fit_the_api() -> None:
    shown = list(patches())
    assert len(shown) > 4
    for name, patch in shown:
        (kind,) = (k for k in KINDS if name.partition(".")[0] in (k.singular, k.plural, k.short_name))
        errors = sorted(Draft202012Validator(optional(spec_schema(kind))).iter_errors(patch["spec"]), key=str)
        assert not errors, f"{name}: {errors[0].message}"


def spec_schema(kind: Kind) -> dict[str, Any]:
    return crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def optional(schema: Any) -> Any:
    """The same schema of an object that need not be whole, and has no other fields."""
    if isinstance(schema, list):
        return [optional(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    part = {
        name: optional(value) for name, value in schema.items() if not (name == "required" and isinstance(value, list))
    }
    return part | (
        {"additionalProperties": False} if "properties" in part and isinstance(part.get("type"), str) else {}
    )


def commands(program: str) -> set[str]:
    """Each use of a program on a page, without its prompt and its pipe."""
    text = "".join(page.read_text().replace("\\\n", " ") for page in PAGES)
    lines = re.findall(rf"(?:^(?:\$ (?:\S*/)?)?|`){program} ([a-z][^`\n]*)", text, re.M)
    return {re.split(r" [|>] |  +#|; ", line)[0].strip() for line in lines}


def options_of(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}


def test_the_commands_of_hone_exist_with_their_options() -> None:
    shown = commands("hone")
    assert len(shown) > 40
    for line in shown:
        words, command = shlex.split(line, comments=True), get_command(application())
        while isinstance(command, TyperGroup):
            assert words, line
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {name for param in command.params for name in param.opts} | {"--help"}
        assert options_of(words) <= known, line


def test_the_commands_of_the_trainer_exist_with_their_options() -> None:
    shown = commands("python -m hone_trainer")
    assert len(shown) > 25
    (subcommands,) = (
        action for action in command_line.parser()._actions if hasattr(action, "choices") and action.choices
    )
    for line in shown:
        name, *words = shlex.split(line, comments=True)
        assert name in subcommands.choices, line
        if name in ("validate", "plan"):
            assert options_of(words) <= set(subcommands.choices[name]._option_string_actions), line
