"""What a FineTuneJob measures: held-out rows, rewards of answers, general abilities, tasks of lm-evaluation-harness."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from hone_api.base.meta import (
    ALIAS,
    ApiModel,
    Decimal,
    Name,
    Percent,
    Quantity,
    at_least,
    between,
    keyed_by,
    pattern_rule,
)
from hone_api.base.rule import Rule
from hone_api.blocks.entries import matches
from hone_api.blocks.rewards import VERIFIERS, Reward


class EvaluationDatasetRef(ApiModel):
    """Held-out rows to evaluate on."""

    name: Name = Field(description="Name of a Dataset in this namespace.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)] = Field(
        default="validation", description="Split of the Dataset, e.g. validation."
    )


class EvaluationMetric(StrEnum):
    """Metrics for answers."""

    PERPLEXITY = "Perplexity"
    TOKEN_ACCURACY = "TokenAccuracy"
    EXACT_MATCH = "ExactMatch"
    F1 = "F1"
    ROUGE_L = "RougeL"
    MULTIPLE_CHOICE = "MultipleChoice"


METRICS = (
    "Perplexity and TokenAccuracy of the row's answer; ExactMatch, F1 (words) and RougeL of the model's own greedy "
    "answer against the row's; MultipleChoice, for Datasets in the format Preference: share of rows whose chosen "
    "answer is more likely per token than the rejected one."
)


class Retention(ApiModel):
    """What the base model could do and the tuned model must still do: measured before and after."""

    datasets: Annotated[list[EvaluationDatasetRef], keyed_by("name", "split", min_length=1, max_length=8)] = Field(
        description="General rows that are not trained on."
    )
    metrics: Annotated[list[EvaluationMetric], Field(min_length=1, max_length=6)] = Field(
        default=[EvaluationMetric.PERPLEXITY], description=f"{METRICS} Default [Perplexity]."
    )
    max_regression: Percent | None = Field(
        default=None,
        description="Gate: how much worse than the base's value a metric may be, relative, e.g. 5%. A model that "
        "exceeds it is kept as a rejected ModelVersion, and the job fails with RetentionGateFailed. Default: reported "
        "only.",
    )
    interpolate: bool = Field(
        default=False,
        description="Also measure interpolations between base and tuned weights, and report the best: the lowest "
        "held-out loss within maxRegression (Wortsman et al. 2022, arXiv 2109.01903). Default false.",
    )


class PassAt(ApiModel):
    """How often one of k sampled answers is right (Chen et al. 2021, arXiv 2107.03374)."""

    rules = (
        Rule(
            "self.k.all(n, n <= self.generations)",
            "k must not be larger than generations: lower k, or raise generations",
            field_path=".k",
        ),
        Rule(
            "self.all(n, self.exists_one(m, m == n))",
            "k has one number twice: remove it",
            of="k",
            one_field=True,
        ),
        between("temperature", "above 0 and at most 10", "> 0.0", "<= 10.0", "0.8"),
    )
    k: Annotated[list[Annotated[int, Field(ge=1, le=256)]], Field(min_length=1, max_length=4)] = Field(
        default=[1],
        description="Values of k: a prompt counts as solved if at least one of k answers is right, e.g. [1, 4]; "
        "default [1].",
    )
    generations: int = Field(
        default=8, ge=1, le=256, description="Answers sampled for each prompt, from which k are drawn; default 8."
    )
    temperature: Decimal = Field(default="0.8", description="Temperature of sampling; default '0.8'.")


TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$", max_length=100)]


class Harness(ApiModel):
    """Tasks of lm-evaluation-harness (EleutherAI), measured for base and tuned model."""

    rules = (
        Rule(
            "self.all(t, self.exists_one(u, u == t))",
            "tasks has one name twice: remove it",
            of="tasks",
        ),
    )
    tasks: Annotated[list[TaskName], Field(min_length=1, max_length=16)] = Field(
        description="Names of tasks or of groups of tasks, e.g. [arc_easy, gsm8k]. A group's numbers cover the rows "
        "of all its tasks. Data sets are staged before a GPU is requested; tasks that contain code are refused."
    )
    limit: int = Field(
        default=200, ge=1, le=100_000, description="Rows of each task, in the task's own order; default 200."
    )
    few_shot: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="Solved examples before each question, the same for both models; default: the task's own number.",
    )
    apply_chat_template: bool = Field(
        default=False,
        description="Whether questions are rendered with the model's chat template, with examples as earlier turns; "
        "default false, as for published numbers of base models.",
    )
    max_regression: Percent | None = Field(
        default=None,
        description="Gate: how much worse than the base's value a metric of a task may be, relative, e.g. 5%. A model "
        "that exceeds it is kept as a rejected ModelVersion, and the job fails with RetentionGateFailed. Default: "
        "reported only.",
    )


_OTHER = rf"^({ALIAS}|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"
_OTHER_MESSAGE = "against is models://name@alias or the name of a ModelVersion, e.g. support-bot-v2"
_Other = Annotated[str, StringConstraints(min_length=1, max_length=128), matches(_OTHER, _OTHER_MESSAGE)]


class Evaluation(ApiModel):
    """Evaluation on held-out rows, before, during and after training."""

    rules = (
        Rule(
            f"!has(self.passAt) || self.rewards.exists(r, r.type in {[str(t) for t in VERIFIERS]})",
            f"passAt needs a reward that is right or wrong: add one of type {', '.join(VERIFIERS)} to rewards",
            field_path=".passAt",
        ),
        pattern_rule("against", _OTHER, _OTHER_MESSAGE, quoted=False),
    )
    every_steps: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Steps between evaluations; default: a tenth of the run.",
    )
    max_rows: int = Field(
        default=512, ge=1, le=1_000_000, description="Held-out rows used, in file order; default 512."
    )
    samples: int = Field(
        default=4,
        ge=0,
        le=64,
        description="Held-out prompts answered by base and tuned model for the report; default 4.",
    )
    metrics: Annotated[list[EvaluationMetric], Field(max_length=6)] = Field(
        default_factory=list, description=f"Measured in addition to the method's own: {METRICS} Default: none."
    )
    against: _Other | None = Field(
        default=None,
        description="Another model to compare with, e.g. models://support-bot@champion, or a ModelVersion by name: the "
        "ModelVersion to which the alias points when the first attempt starts is measured on the same held-out rows by "
        "the method's own metrics; of PPO the reward alone. Default: the tuned model is compared with the base alone.",
    )
    rewards: Annotated[list[Reward], keyed_by("type", "name", max_length=4)] = Field(
        default_factory=list,
        description="Rewards that score the greedy answers of base and tuned model to the held-out prompts: the mean "
        "of each reward, and how often the tuned model's answer is better. Default: none.",
    )
    pass_at: PassAt | None = Field(
        default=None,
        description="How often one of several sampled answers to a held-out prompt is right, for each reward of type "
        "Number, Math, ExactMatch and Code; default: not measured.",
    )
    max_new_tokens: int = Field(
        default=96,
        ge=1,
        le=8192,
        description="Longest generated answer, in tokens; for rewards at least the method's maxCompletionLength. "
        "Default 96.",
    )
    retention: Retention | None = Field(default=None, description="What must not be forgotten; default: not measured.")
    harness: Harness | None = Field(
        default=None, description="Tasks of lm-evaluation-harness, before and after training; default: none."
    )


class VersionEvaluation(ApiModel):
    """Rows on which a finished model is measured again, alone or next to another one."""

    rules = (
        pattern_rule("against", _OTHER, _OTHER_MESSAGE, quoted=False),
        at_least("cpu", "10m", "2"),
        at_least("memory", "64Mi", "8Gi"),
    )

    dataset: Name = Field(description="Dataset of this namespace. If its content changes, the model is measured again.")
    split: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=32)] = Field(
        default="validation", description="Split of the Dataset; default validation."
    )
    against: _Other | None = Field(
        default=None,
        description="Another model to compare with on the same rows: models://name@alias, or a ModelVersion by name. "
        "If the alias moves to an older version than this one, or to one of another model, both are compared again. "
        "Default: the model is compared with its base alone.",
    )
    max_rows: int = Field(default=512, ge=1, le=1_000_000, description="Rows used, in file order; default 512.")
    cpu: Quantity = Field(default="2", description="CPU request of the Job, e.g. 8 or '1.5'; default 2.")
    memory: Quantity = Field(
        default="8Gi", description="Memory request and limit of the Job, which loads one model at a time; default 8Gi."
    )


MAX_EVALUATIONS = 8
VersionEvaluations = Annotated[list[VersionEvaluation], keyed_by("dataset", "split", max_length=MAX_EVALUATIONS)]
