"""Our evaluation of each rule says what the API server says, of generated objects."""

import copy
import random
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from support.cluster.job_rule_cases import ABSENT
from support.cluster.rule_cases import CASES, JOB, KIND_OF

from hone_api.base.meta import ApiModel, Kind
from hone_api.base.rule import Rule
from hone_api.combinations import dataset_problems
from hone_api.combinations.rules import Broken, broken_rules
from hone_api.dataset.dataset import DATASET, DatasetSpec
from hone_api.kinds.finetunejob import FINE_TUNE_JOB, FineTuneJobSpec
from hone_api.kinds.model import MODEL, ModelSpec
from hone_api.kinds.modelversion import MODEL_VERSION, ModelVersionSpec
from hone_api.kinds.unsupported import UNSUPPORTED

SPECS: dict[str, type[ApiModel]] = {
    JOB: FineTuneJobSpec,
    "Dataset": DatasetSpec,
    "Model": ModelSpec,
    "ModelVersion": ModelVersionSpec,
}
KINDS = (FINE_TUNE_JOB, DATASET, MODEL, MODEL_VERSION)
EXAMPLES = 60
"""Objects that are generated for each case."""


def models(annotation: Any, seen: set[type[ApiModel]]) -> Iterator[type[ApiModel]]:
    """Every model in a type, once."""
    for argument in get_args(annotation):
        yield from models(argument, seen)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for info in annotation.model_fields.values():
            yield from models(info.annotation, seen)


def rules_of(spec: type[ApiModel]) -> list[tuple[type[ApiModel], Rule]]:
    return [(model, rule) for model in models(spec, set()) for rule in model.rules]


RULES = [each for spec in SPECS.values() for each in rules_of(spec)]
SEEN = {rule.message for _, rule in RULES} - {each.message for each in UNSUPPORTED}


def examples(case: str) -> Iterator[dict[str, Any]]:
    """Specs of a case, the same at every run."""
    path, _, fields = CASES[case]
    draw = random.Random(case)
    for _ in range(EXAMPLES):
        drawn = {name: draw.choice(values) for name, values in fields.items()}
        yield {f"{path}.{name}".lstrip("."): value for name, value in drawn.items() if value is not ABSENT}


def remove(spec: dict[str, Any], path: str) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        spec = spec[parent]
    del spec[name]


def said_in_python(kind: str, spec: dict[str, Any], rules: set[str]) -> tuple[set[str], set[str]]:
    """Messages with which a type refuses a value, e.g. a uri; and if there are none, those of the broken rules."""
    try:
        return set(), {broken.rule.message for broken in broken_rules(SPECS[kind].model_validate(spec))}
    except ValidationError as error:
        refused = {message for message in rules if message in str(error)}
        if not refused:
            raise
        return refused, set()


@pytest.mark.pure
@pytest.mark.parametrize("rule", FineTuneJobSpec.rules, ids=lambda rule: rule.message[:40])
def test_a_problem_of_a_spec_begins_with_its_field(rule: Rule) -> None:
    """Others put `spec.` before it."""
    fields = {
        info.alias or name for model in models(FineTuneJobSpec, set()) for name, info in model.model_fields.items()
    }
    path = re.split("[: ]", str(Broken("", rule)))[0]
    assert set(path.split(".")) <= fields, path


def bodies(manifest: Any, case: str) -> Iterator[dict[str, Any]]:
    """Objects of a case."""
    kind, around = KIND_OF[case], CASES[case][1]
    for changes in examples(case):
        values = copy.deepcopy({**around, **changes}, {id(ABSENT): ABSENT})  # `manifest` puts values into them
        body = manifest(kind, {f"spec.{path}": value for path, value in values.items() if value is not ABSENT})
        for path in (path for path, value in values.items() if value is ABSENT):
            remove(body["spec"], path)  # the smallest manifest has it
        yield body


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES)
def test_both_say_the_same(api: Any, manifest: Any, case: str) -> None:
    kind = KIND_OF[case]
    rules = {rule.message for _, rule in rules_of(SPECS[kind])}
    for body in bodies(manifest, case):
        answer = api.create(body)
        assert answer.code in (201, 422), answer.body
        by_server = {message for message in rules if message in answer.message}
        by_type, by_us = said_in_python(kind, body["spec"], rules)
        assert by_type <= by_server, body["spec"]
        assert by_type or by_us == by_server, body["spec"]


@pytest.mark.pure
def test_every_rule_is_kept_in_an_example_and_broken_in_one(manifest: Any) -> None:
    seen: dict[str, set[bool]] = {message: set() for message in SEEN}
    for case, kind in KIND_OF.items():
        rules = {rule.message for _, rule in rules_of(SPECS[kind])}
        for body in bodies(manifest, case):
            said = set.union(*said_in_python(kind, body["spec"], rules))
            for message in rules & seen.keys():
                seen[message].add(message in said)
    assert {message for message, ways in seen.items() if ways != {True, False}} == set()


NAMES = ("rows", "a" * 50, "a" * 51, "a" * 52, "a" * 53, "a" * 63, "a" * 64, "some.rows", f"{'a' * 52}.b", "3-rows")


@pytest.mark.apiserver
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_both_say_the_same_of_a_name(api: Any, manifest: Any, kind: Kind, name: str) -> None:
    answer = api.create(manifest(kind.kind, name=name))
    by_server = {rule.message for rule in kind.rules if rule.message in answer.message}
    assert {rule.message for rule in kind.rules if not rule.holds({"metadata": {"name": name}})} == by_server
    if kind is DATASET:
        spec = DatasetSpec.model_validate(manifest("Dataset")["spec"])
        assert {problem.message for problem in dataset_problems(name, spec)} == by_server
