"""Every path of every plan is marked as one, listed, and relative to the plan's folder."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from hone_api.contract.plan_reading import parse_plan
from hone_api.plan import AnyPlan, RowsPlan, plan_paths

pytestmark = pytest.mark.pure
DIGEST = "sha256:" + "0" * 64
SPLIT = {"name": "d", "path": "rows.jsonl", "digest": DIGEST}
MODEL = {"path": "m", "digest": DIGEST, "adapter": {"path": "a", "digest": DIGEST}}
ROWS = {"contract": 1, "name": "d", "store": "store", "incoming": "incoming"}
PLANS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "Materialize": (
        {
            **ROWS,
            "source": {"uri": "configmap://c/k"},
            "sourcePath": "source",
            "downloadsPath": "downloads",
            "secretPath": "secret",
            "evaluationSets": [SPLIT],
            "classifiers": {"c": MODEL},
            "synthesisSecretPath": "teacher",
            "judgeSecretPath": "judge",
        },
        ["store", "incoming", "source", "downloads", "secret", "rows.jsonl", "m", "a", "teacher", "judge"],
    ),
    "Mix": ({**ROWS, "parts": [SPLIT, SPLIT | {"path": "b"}]}, ["store", "incoming", "rows.jsonl", "b"]),
    "Fetch": ({"model": {"uri": "hf://o/m"}, "secretPath": "secret", "store": "store"}, ["secret", "store"]),
    "Tasks": ({"harness": {"tasks": ["arc_easy"]}, "secretPath": "secret", "store": "store"}, ["secret", "store"]),
    "Training": (
        {
            "run": "r",
            "rewardPaths": {"py": "reward.py", "judge": "key"},
            "teacherSecretPath": "teacher",
            "generationSecretPath": "vllm",
            "tracking": {"uri": "https://m", "experiment": "e", "uid": "u", "secretPath": "mlflow", "path": "tracking"},
            "modelPath": "model",
            "modelUri": "hf://o/m",
            "modelAdapter": {"path": "first", "digest": DIGEST},
            "models": {"j": MODEL},
            "datasets": [SPLIT],
            "evaluationDatasets": [SPLIT | {"path": "e"}],
            "encodedPath": "tokens",
            "retentionDatasets": [SPLIT | {"path": "k"}],
            "harnessTasks": {"path": "tasks", "digest": DIGEST, "version": "1", "dataSets": []},
            "output": {"modelName": "o"},
            "workPath": "work",
            "outputPath": "out",
        },
        [
            "reward.py",
            "key",
            "teacher",
            "vllm",
            "model",
            "first",
            "m",
            "a",
            "rows.jsonl",
            "e",
            "k",
            "tasks",
            "tokens",
            "work",
            "out",
            "mlflow",
            "tracking",
        ],
    ),
    "Verify": ({"name": "m", "artifacts": [{"path": "a", "digest": DIGEST}]}, ["a"]),
    "Sign": (
        {
            "name": "m",
            "artifacts": [{"path": "a", "digest": DIGEST}],
            "keyPath": "key",
            "provenance": {},
        },
        ["a", "key"],
    ),
    "Deliver": (
        {
            "name": "m-v1",
            "version": 1,
            "artifact": {"path": "a", "digest": DIGEST},
            "target": {"uri": "pvc://claim/x"},
            "targetPath": "target",
            "secretPath": "secret",
        },
        ["a", "target", "secret"],
    ),
    "Lookup": ({"uri": "hf://a/b", "secretPath": "secret"}, ["secret"]),
    "Register": (
        {"model": "m", "uri": "https://m", "name": "m", "secretPath": "secret", "versions": []},
        ["secret"],
    ),
    "Import": (
        {
            "name": "m",
            "source": {"uri": "pvc://claim/x"},
            "sourceVolume": "source",
            "baseVolume": "base",
            "secretPath": "secret",
            "baseSecretPath": "base-secret",
            "rows": {"name": "rows", "path": "rows", "digest": DIGEST},
            "store": "store",
            "folder": "import-1/files",
        },
        ["source", "base", "secret", "base-secret", "rows", "store"],
    ),
    "Measure": (
        {
            "name": "m-v1",
            "model": MODEL,
            "basePath": "base",
            "rows": SPLIT,
            "maxRows": 1,
            "against": {"path": "m2", "adapter": {"path": "a2", "digest": DIGEST}},
        },
        ["m", "a", "base", "rows.jsonl", "m2", "a2"],
    ),
    "Sweep": ({"store": "store", "remove": [DIGEST], "exports": ["run"], "asOf": 1.0}, ["store"]),
}
PATH = re.compile(r"(^|_)(paths?|store|incoming|file|folder|dir)$")
NAMES_BELOW_A_PATH = {"export_folder", "folder"}


def read(kind: str) -> BaseModel:
    plan = parse_plan(json.dumps({"kind": kind, **PLANS[kind][0]}))
    assert isinstance(plan, BaseModel)
    return plan


def models(kind: Any) -> Iterator[type[BaseModel]]:
    """The models that values of a type can hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(kind):
        yield from models(part)


def test_every_kind_of_plan_is_here() -> None:
    assert {kind.model_fields["kind"].default for kind in get_args(AnyPlan)} == set(PLANS)


@pytest.mark.parametrize("kind", PLANS)
def test_every_path_is_listed(kind: str) -> None:
    assert sorted(path for _, path in plan_paths.paths_of(read(kind))) == sorted(PLANS[kind][1])


def test_the_plans_of_this_test_set_every_field_that_is_named_as_a_path() -> None:
    named = {
        (model.__name__, name)
        for plan in get_args(AnyPlan)
        for model in models(plan)
        if model.__module__.startswith("hone_api.plan.")
        for name in model.model_fields
        if PATH.search(name) and name not in NAMES_BELOW_A_PATH
    }
    assert len(named) > 20
    seen: set[tuple[str, str]] = set()

    def look(model: BaseModel) -> None:
        fields = {re.split(r"[.\[]", place)[0] for place, _ in plan_paths.paths_of(model)}
        seen.update((type(model).__name__, name) for name in fields)
        for name in type(model).model_fields:
            value = getattr(model, name)
            values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            for one in values:
                if isinstance(one, BaseModel):
                    look(one)

    for kind in PLANS:
        look(read(kind))
    assert sorted(named - seen) == [], "declare it as PlanPath, and set it in PLANS"


@pytest.mark.parametrize("kind", PLANS)
def test_relative_paths_are_of_the_plans_folder_and_absolute_ones_stay(kind: str) -> None:
    plan = read(kind)
    moved = plan_paths.absolute(plan, Path("/plans"))
    assert type(moved) is type(plan)
    assert list(plan_paths.paths_of(moved)) == [(place, f"/plans/{path}") for place, path in plan_paths.paths_of(plan)]
    assert plan_paths.absolute(moved, Path("/elsewhere")) == moved
    assert moved.model_dump(exclude_unset=True).keys() == plan.model_dump(exclude_unset=True).keys()


def test_only_paths_change() -> None:
    plan = read("Sweep")
    moved = plan_paths.absolute(plan, Path("/plans"))
    assert moved == plan.model_copy(update={"store": "/plans/store"})


def test_places_name_the_field() -> None:
    places = dict(plan_paths.paths_of(read("Training")))
    assert places["models.j.adapter.path"] == "a"
    assert places["datasets[0].path"] == "rows.jsonl"
    assert places["reward_paths.py"] == "reward.py"


def test_a_plan_without_optional_paths_gets_none() -> None:
    fields = {"contract": 1, "name": "d", "store": "/s"}
    moved = plan_paths.absolute(RowsPlan.model_validate(fields), Path("/plans"))
    assert moved.incoming is None
    assert moved.model_fields_set == {"contract", "name", "store"}
