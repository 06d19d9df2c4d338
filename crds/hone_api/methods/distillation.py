"""Distillation: its options, and what is known of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from hone_api.base.meta import ApiModel, Decimal, HttpUrl, Name, between, uri_rules
from hone_api.base.rule import Rule
from hone_api.dataset.dataset import Format
from hone_api.methods.info import ANSWERS, Method, MethodInfo, Rates


class TeacherEndpoint(ApiModel):
    """A teacher behind an OpenAI-compatible API."""

    rules = uri_rules("endpoint")

    endpoint: HttpUrl = Field(description="Base URL, e.g. http://teacher.models.svc/v1.")
    model: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        default=None, description="Name of the model there; default: the first that is served."
    )
    secret_name: Name | None = Field(default=None, description="Secret with key API_KEY; default: none.")


class DistillationMethod(ApiModel):
    """Distillation: a small model learns from a larger one, the teacher."""

    rules = (
        Rule(
            "has(self.teacherModelVersion) != has(self.teacherEndpoint)",
            "set exactly one of teacherModelVersion and teacherEndpoint",
        ),
        Rule(
            "!has(self.teacherEndpoint) || self.level == 'Sequence'",
            "an API does not return whole distributions: use level Sequence, or teacherModelVersion",
            field_path=".teacherEndpoint",
        ),
        Rule(
            "!has(self.maxCompletionLength) || self.level == 'Sequence'",
            "maxCompletionLength is for level Sequence, whose teacher answers: remove it",
            field_path=".maxCompletionLength",
        ),
        Rule(
            "!has(self.temperature) || self.level == 'Logits'",
            "temperature is for level Logits, the answers of level Sequence are greedy: remove it",
            field_path=".temperature",
        ),
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "2"),
    )
    teacher_model_version: Name | None = Field(default=None, description="Name of the ModelVersion of the teacher.")
    teacher_endpoint: TeacherEndpoint | None = Field(
        default=None, description="A teacher behind an OpenAI-compatible API instead, for level Sequence."
    )
    level: Literal["Sequence", "Logits"] = Field(
        default="Sequence",
        description="Sequence: the teacher answers every prompt before training, and the student learns its answers "
        "(Kim and Rush 2016); Logits: the student learns the teacher's distribution over each token of the rows' own "
        "answers (Hinton et al. 2015), which needs the same vocabulary. Default Sequence.",
    )
    max_completion_length: int | None = Field(
        default=None,
        ge=1,
        le=131_072,
        description="Longest answer of the teacher in tokens, for level Sequence; rows with a longer answer are left "
        "out. Default 256.",
    )
    temperature: Decimal | None = Field(
        default=None,
        description="Divisor of the logits of both models, for level Logits; the loss is multiplied by its square. "
        "Default 1; '2.5' shows more of what the teacher considers unlikely.",
    )

    @property
    def by_logits(self) -> bool:
        """Whether the student learns the teacher's distribution, not its answers."""
        return self.level == "Logits"


class InSpec(ApiModel):
    """Its block in the spec of a FineTuneJob."""

    distillation: DistillationMethod | None = Field(default=None, description="Options of method Distillation.")


class InPlan(ApiModel):
    """Its block in a plan."""

    distillation: DistillationMethod | None = Field(default=None, description="Needed by method Distillation.")


INFO = MethodInfo(
    Method.DISTILLATION,
    (*ANSWERS, Format.VERIFIABLE),
    Rates(adapter=2e-4, full=2e-5),
    needs="teacherModelVersion or teacherEndpoint",
    row_by_row=True,
    by_tokens=True,
)
