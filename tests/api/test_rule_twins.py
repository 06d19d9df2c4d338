"""Each rule of CEL that the API server checks has a twin in Python, and both say the same of generated objects."""

import random
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from hone_api.combinations.rules import broken_rules
from hone_api.finetunejob import FineTuneJobSpec
from hone_api.meta import ApiModel, Rule

JOB = "FineTuneJob"
EXAMPLES = 60
"""Objects that are generated for each case."""
ABSENT = object()
DECIMALS = (ABSENT, "0", "0.3", "1", "2e-4", "1.5", "10", "10.5", "1000.5", "2e6")
NUMBER, REGEX = {"type": "Number"}, {"type": "Regex", "regex": {"pattern": "a"}}
ENDPOINT = "http://models.ai.svc/v1"
BLOCKS = {
    "final": {},
    "regex": {"pattern": "a"},
    "jsonSchema": {"schema": "{}"},
    "format": {"style": "Boxed"},
    "length": {"min": 1},
    "code": {},
    "python": {"configMapName": "code"},
    "rewardModel": {"modelVersion": "judge-v1"},
    "judge": {"endpoint": ENDPOINT},
}
TYPES = ("Number", "Math", "ExactMatch", "Code", "Regex", "JsonSchema", "Format", "Length", "Python", "RewardModel")
METHOD_BLOCKS = {
    "sft": {},
    "dapt": {},
    "dpo": {},
    "kto": {},
    "orpo": {},
    "reward": {},
    "ppo": {"rewardModelVersion": "judge-v1"},
    "grpo": {"rewards": [NUMBER]},
    "distillation": {"teacherModelVersion": "large-v1"},
}
METHODS = ("SFT", "DAPT", "DPO", "KTO", "ORPO", "Reward", "PPO", "GRPO", "Distillation")
GRPO = {"method": "GRPO", "grpo": {"rewards": [NUMBER]}}
ROWS = ({"name": "a"}, {"name": "a", "split": "test"}, {"name": "b"})

# where in the spec; the spec around it; values of its fields. The fields are drawn independently of each other.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, tuple[Any, ...]]]] = {
    "training": (
        "training",
        {},
        {
            "epochs": (ABSENT, ABSENT, *DECIMALS),
            "maxSteps": (ABSENT, 5),
            "batchSize": (ABSENT, 6, 8),
            "microBatchSize": (ABSENT, 1, 3, 4, 16),
            **{name: DECIMALS for name in ("learningRate", "warmupRatio", "weightDecay", "l2ToStart", "maxGradNorm")},
        },
    ),
    "adapter": (
        "adapter",
        {},
        {
            "type": ("None", "None", "LoRA", "QLoRA", "DoRA"),
            "rank": (ABSENT, ABSENT, 8),
            "alpha": (ABSENT, ABSENT, 8),
            "dropout": (ABSENT, *DECIMALS),
            "rankStabilized": (ABSENT, False, True),
            "targets": (ABSENT, ABSENT, ["q_proj"]),
        },
    ),
    "passAt": (
        "evaluation.passAt",
        {},
        {"k": (ABSENT, [1], [1, 4], [4, 4], [16]), "generations": (ABSENT, 1, 4, 16), "temperature": DECIMALS},
    ),
    "evaluation": (
        "evaluation",
        {},
        {"passAt": (ABSENT, {}), "rewards": (ABSENT, [], [NUMBER], [REGEX], [REGEX, NUMBER])},
    ),
    "harness": ("evaluation.harness", {}, {"tasks": (["gsm8k"], ["gsm8k", "arc_easy"], ["gsm8k", "gsm8k"])}),
    "reward": (
        "evaluation.rewards[]",
        {},
        {
            "type": (*TYPES, "Judge"),
            "weight": ("-101", "-100", "0", "1", "100", "101"),
            **{block: (ABSENT, options) for block, options in BLOCKS.items()},
        },
    ),
    "length": (
        "evaluation.rewards[]",
        {},
        {"type": ("Length",), "length": ({}, {"min": 5}, {"max": 5}, {"min": 5, "max": 5}, {"min": 9, "max": 5})},
    ),
    "grpo": (
        "grpo",
        GRPO,
        {
            "advantage": (ABSENT, "Group", "LeaveOneOut"),
            "loss": (ABSENT, "DAPO", "GSPO", "CISPO"),
            "scaleRewards": (ABSENT, "Group", "None"),
            "epsilon": (ABSENT, "0.0004", "0.1", "0.2", "0.9", "0", "1"),
            "epsilonHigh": (ABSENT, "0", "0.0003", "0.00029", "0.2", "0.19", "0.28", "4"),
            "temperature": DECIMALS,
            "topP": DECIMALS,
        },
    ),
    "generation": (
        "grpo.generation",
        GRPO,
        {
            "engine": (ABSENT, "Auto", "Transformers", "VLLM"),
            "endpoint": (ABSENT, ENDPOINT),
            "secretName": (ABSENT, "key"),
            "gpuMemoryUtilization": (ABSENT, *DECIMALS),
        },
    ),
    "distillation": (
        "distillation",
        {"method": "Distillation"},
        {
            "teacherModelVersion": (ABSENT, "large-v1"),
            "teacherEndpoint": (ABSENT, {"endpoint": ENDPOINT}),
            "level": (ABSENT, "Sequence", "Logits"),
            "maxCompletionLength": (ABSENT, 64),
            "temperature": (ABSENT, *DECIMALS),
        },
    ),
    "ppo": (
        "ppo",
        {"method": "PPO", "ppo": METHOD_BLOCKS["ppo"]},
        {name: DECIMALS for name in ("temperature", "gamma", "gaeLambda", "epsilon")},
    ),
    "run": (
        "",
        {},
        {
            "method": METHODS,
            "output": (
                {"modelName": "m"},
                {"modelName": "m", "formats": ["GGUF"]},
                {"modelName": "m", "formats": ["Safetensors", "GGUF"], "merge": True},
            ),
            "adapter": (ABSENT, {"type": "QLoRA"}, {"type": "None"}),
            "deepspeed": (ABSENT, {"zeroStage": 2}, {"zeroStage": 3}),
            **{block: (ABSENT, ABSENT, options) for block, options in METHOD_BLOCKS.items()},
        },
    ),
    "distilled": (
        "",
        {"method": "Distillation"},
        {
            "distillation": tuple({"teacherModelVersion": "t", "level": level} for level in ("Sequence", "Logits")),
            "deepspeed": (ABSENT, {"zeroStage": 2}, {"zeroStage": 3}),
        },
    ),
    "model": (
        "model",
        {},
        {
            "uri": (ABSENT, "hf://owner/model"),
            "modelVersion": (ABSENT, "tutor-v1"),
            "fineTuneJob": (ABSENT, "first"),
            "secretName": (ABSENT, "token"),
        },
    ),
    "datasets": (
        "",
        {},
        {name: tuple([one, two] for one in ROWS for two in ROWS) for name in ("datasets", "evaluationDatasets")},
    ),
    "resources": ("resources", {}, {"gpuProducts": (ABSENT, ["H100"]), "gpusPerNode": (ABSENT, 0, 2)}),
    "tolerations": (
        "scheduling.tolerations[]",
        {},
        {
            "key": (ABSENT, "", "gpu"),
            "operator": (ABSENT, "Equal", "Exists"),
            "value": (ABSENT, "", "yes"),
            "effect": (ABSENT, "NoSchedule", "NoExecute"),
            "tolerationSeconds": (ABSENT, 60),
        },
    ),
}


def models(annotation: Any, seen: set[type[ApiModel]]) -> Iterator[type[ApiModel]]:
    """Every model in a type, once."""
    for argument in get_args(annotation):
        yield from models(argument, seen)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for info in annotation.model_fields.values():
            yield from models(info.annotation, seen)


RULES = [(model, rule) for model in models(FineTuneJobSpec, set()) for rule in model.rules]
TWINS = {rule.message for _, rule in RULES if rule.holds}


@pytest.mark.pure
def test_every_rule_about_several_fields_has_a_twin() -> None:
    def has_several(rule: Rule) -> bool:
        return "oldSelf" not in rule.rule and len(set(re.findall(r"\bself\.(\w+)", rule.rule))) > 1

    assert [f"{model.__name__}: {rule.message}" for model, rule in RULES if has_several(rule) and not rule.holds] == []


def examples(case: str) -> Iterator[dict[str, Any]]:
    """Specs of a case, the same at every run."""
    path, _, fields = CASES[case]
    draw = random.Random(case)
    for _ in range(EXAMPLES):
        drawn = {name: draw.choice(values) for name, values in fields.items()}
        yield {f"{path}.{name}".lstrip("."): value for name, value in drawn.items() if value is not ABSENT}


@pytest.fixture(scope="module")
def seen() -> dict[str, set[bool]]:
    """By message of a rule: whether it held in an example, was broken in one, or both."""
    return {message: set() for message in TWINS}


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES)
def test_both_say_the_same(api: Any, manifest: Any, seen: dict[str, set[bool]], case: str) -> None:
    around = CASES[case][1]
    for changes in examples(case):
        body = manifest(JOB, {f"spec.{path}": value for path, value in {**around, **changes}.items()})
        if case == "model" and "model.uri" not in changes:  # the smallest manifest has one
            body["spec"]["model"].pop("uri")
        answer = api.create(body)
        assert answer.code in (201, 422), answer.body
        by_server = {message for message in TWINS if message in answer.message}
        by_twin = {broken.rule.message for broken in broken_rules(FineTuneJobSpec.model_validate(body["spec"]))}
        assert by_twin == by_server, body["spec"]
        for message in TWINS:
            seen[message].add(message in by_server)


@pytest.mark.apiserver
def test_every_twin_was_seen_both_ways(seen: dict[str, set[bool]]) -> None:
    assert {message for message, ways in seen.items() if ways != {True, False}} == set()
