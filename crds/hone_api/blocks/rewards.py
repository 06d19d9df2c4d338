"""Rewards of reinforcement learning: how good one answer of the model is, as a number."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base import wording
from hone_api.base.meta import ApiModel, HttpUrl, Name, Quantity, SignedDecimal, between, uri_rules
from hone_api.base.rule import Rule

RewardName = Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9_]*)?$", max_length=24)]
ConfigMapKey = Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class RewardType(StrEnum):
    """How an answer is scored."""

    NUMBER = "Number"
    MATH = "Math"
    EXACT_MATCH = "ExactMatch"
    REGEX = "Regex"
    JSON_SCHEMA = "JsonSchema"
    FORMAT = "Format"
    LENGTH = "Length"
    CODE = "Code"
    PYTHON = "Python"
    REWARD_MODEL = "RewardModel"
    JUDGE = "Judge"


class AnswerReward(ApiModel):
    """Where the final answer is."""

    marked: bool = Field(
        default=False,
        description="Whether the final answer must be marked by '####' or \\boxed{}; default false: if it is not "
        "marked, it is the last number of the text (Number), or its last formula or line (Math, ExactMatch).",
    )


class RegexReward(ApiModel):
    """A regular expression in RE2's syntax: its time is linear in the text, whatever the pattern."""

    pattern: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        description="Pattern, e.g. 'yes|no'; RE2 has no look-around and no back references."
    )
    match: Literal["Full", "Search"] = Field(
        default="Full", description="Full: the whole answer must match; Search: some part of it. Default Full."
    )


class JsonSchemaReward(ApiModel):
    """The answer, or its last ```json block, must be JSON that a schema allows."""

    schema_: Annotated[str, StringConstraints(min_length=2, max_length=16_384)] = Field(
        alias="schema", description="JSON Schema as JSON text; draft by its $schema, default 2020-12."
    )


class FormatReward(ApiModel):
    """A form that the answer must have as a whole."""

    style: Literal["Think", "ThinkAnswer", "Boxed", "Marked"] = Field(
        description="Think: <think>…</think> and then an answer; ThinkAnswer: <think>…</think><answer>…</answer>; "
        "Boxed: ends in one \\boxed{…}; Marked: ends in one line '#### …'."
    )


class LengthReward(ApiModel):
    """1 for an answer within the bounds, falling linearly to 0 outside (DAPO, Yu et al. 2025, equation 13)."""

    rules = (
        Rule(
            "has(self.min) || has(self.max)",
            "length needs min or max, or both",
        ),
        Rule(
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "length.min must be at most length.max",
        ),
    )
    min: int | None = Field(default=None, ge=0, le=1_000_000, description="Fewest tokens; default: no limit.")
    max: int | None = Field(default=None, ge=1, le=1_000_000, description="Most tokens; default: no limit.")
    slope: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Number of tokens outside the limits at which the reward reaches 0; default 0: at once.",
    )


class ProgramLimits(ApiModel):
    """Limits of a program in the sandbox."""

    seconds: int = Field(
        default=10,
        ge=1,
        le=600,
        description="Computing time in seconds of one core, counted in instructions, so that the result does not "
        "depend on how busy the machine is; default 10.",
    )
    memory: Quantity = Field(default="256Mi", description="Memory of the program, e.g. 256Mi; default 256Mi.")


class PythonReward(ProgramLimits):
    """Your own function, run in the sandbox."""

    config_map_name: Name = Field(description="ConfigMap in this namespace.")
    key: ConfigMapKey = Field(
        default="reward.py", description="Key of the ConfigMap with the Python source; default reward.py."
    )
    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)] = Field(
        default="reward",
        description="Function that takes the keyword arguments prompt, completion, answer, tests and solution and "
        "returns a number, or None to leave the sample out; default reward.",
    )


class RewardModelReward(ApiModel):
    """A trained reward model: its raw score."""

    model_version: Name = Field(description="Name of a Ready ModelVersion made by method Reward in this namespace.")


class JudgeReward(ApiModel):
    """A model behind an OpenAI-compatible API that grades the answer, scaled to 0 to 1."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl = Field(description="Base URL, e.g. http://judge.models.svc/v1.")
    model: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        default=None, description="Name of the model there; default: the first that is served."
    )
    secret_name: Name | None = Field(default=None, description="Secret with key API_KEY; default: none.")
    instructions: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        default="Grade how correct and helpful the answer is.",
        description="Instructions for the judge; {{reference}} is replaced by the row's own answer, {{reference.NAME}} "
        "by a field of it. The judge also sees the question and the answer that it grades.",
    )
    max_score: int = Field(default=10, ge=1, le=100, description="Highest grade; the lowest is 0. Default 10.")


@dataclass(frozen=True)
class RewardInfo:
    """What the API knows of a type of reward."""

    block: str
    """JSON name of the block with its options."""
    needs_block: bool = True
    is_verifier: bool = False
    """Whether it compares with the row's own answer or tests: 1 for a right answer, 0 for a wrong one."""


_FINAL = RewardInfo("final", needs_block=False, is_verifier=True)
REWARDS: dict[RewardType, RewardInfo] = {
    RewardType.NUMBER: _FINAL,
    RewardType.MATH: _FINAL,
    RewardType.EXACT_MATCH: _FINAL,
    RewardType.REGEX: RewardInfo("regex"),
    RewardType.JSON_SCHEMA: RewardInfo("jsonSchema"),
    RewardType.FORMAT: RewardInfo("format"),
    RewardType.LENGTH: RewardInfo("length"),
    RewardType.CODE: RewardInfo("code", needs_block=False, is_verifier=True),
    RewardType.PYTHON: RewardInfo("python"),
    RewardType.REWARD_MODEL: RewardInfo("rewardModel"),
    RewardType.JUDGE: RewardInfo("judge"),
}
_BLOCKS = {info.block: [type_ for type_, each in REWARDS.items() if each == info] for info in REWARDS.values()}
VERIFIERS = tuple(type_ for type_, info in REWARDS.items() if info.is_verifier)


class Reward(ApiModel):
    """One reward: its type, its weight in the sum, and the options of its type in the block of the same name."""

    rules = (
        *(
            Rule(
                f"!has(self.{block}) || self.type in {[str(t) for t in types]}",
                f"the block {block} is for type{'s' * (len(types) > 1)} {wording.listed(types)}: "
                "remove it, or change type",
                field_path=f".{block}",
            )
            for block, types in _BLOCKS.items()
        ),
        *(
            Rule(
                f"self.type != '{type_}' || has(self.{info.block})",
                f"type {type_} needs the block {info.block}",
                field_path=f".{info.block}",
            )
            for type_, info in REWARDS.items()
            if info.needs_block
        ),
        between("weight", "between -100 and 100", ">= -100.0", "<= 100.0", "0.5"),
    )
    type: RewardType = Field(
        description="Number, Math or ExactMatch (the row's answer), Code (the row's tests), Regex, JsonSchema, Format, "
        "Length, Python (your own), RewardModel or Judge."
    )
    name: RewardName = Field(
        default="", description="Name in metrics, e.g. short_enough; default: the type in lower case."
    )
    weight: SignedDecimal = Field(default="1", description="Factor in the weighted sum, e.g. '0.2' or -1; default 1.")
    final: AnswerReward | None = Field(default=None, description="Options of Number, Math and ExactMatch.")
    regex: RegexReward | None = Field(default=None, description="Options of Regex.")
    json_schema: JsonSchemaReward | None = Field(default=None, description="Options of JsonSchema.")
    format: FormatReward | None = Field(default=None, description="Options of Format.")
    length: LengthReward | None = Field(default=None, description="Options of Length.")
    code: ProgramLimits | None = Field(default=None, description="Options of Code.")
    python: PythonReward | None = Field(default=None, description="Options of Python.")
    reward_model: RewardModelReward | None = Field(default=None, description="Options of RewardModel.")
    judge: JudgeReward | None = Field(default=None, description="Options of Judge.")

    @property
    def title(self) -> str:
        """The name in metrics."""
        return self.name or RewardType(self.type).value.lower()
