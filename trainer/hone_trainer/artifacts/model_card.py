"""The model card: README.md with Hugging Face's front matter and the run's own numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from hone_api.base import licences
from hone_api.blocks.delivery import ArtifactForm
from hone_api.kinds.modelversion import PARITY, AnsweredPrompt, Ending, EvaluationNumber
from hone_api.plan import TrainingPlan
from hone_trainer.artifacts.usage import NextStep

TITLES: dict[ArtifactForm, str] = {
    "Adapter": "LoRA adapter",
    "Merged": "Merged model",
    "Full": "Model",
    "GGUF": "Model in GGUF for llama.cpp",
}
LIBRARIES: dict[ArtifactForm, str] = {
    "Adapter": "peft",
    "Merged": "transformers",
    "Full": "transformers",
    "GGUF": "gguf",
}
"""The library that loads each form, as the hub names it."""
RELATIONS: dict[ArtifactForm, str] = {
    "Adapter": "adapter",
    "Merged": "finetune",
    "Full": "finetune",
    "GGUF": "quantized",
}
"""How each form comes from its base, as the hub names it."""
PURPOSES = {"Retention": " (retention)", "Harness": " (lm-evaluation-harness)"}

ENDINGS: dict[Ending | None, str] = {None: "", "Repeats": " (loops)", "Cut": " (cut at the token limit)"}


def base_name(uri: str) -> str:
    """owner/name of an hf:// URI, which tools resolve; any other URI unchanged."""
    return uri.removeprefix("hf://").split("@")[0] if uri.startswith("hf://") else uri


def render(
    plan: TrainingPlan,
    form: ArtifactForm,
    *,
    task: str = "text-generation",
    numbers: Sequence[EvaluationNumber],
    samples: Sequence[AnsweredPrompt],
    resolved: dict[str, int | str],
    steps: int,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    use: Sequence[NextStep] = (),
) -> str:
    """The text of README.md for the artifact `form`.

    Args:
        use: from `usage.steps`.
    """
    front = ["---", *(f"{key}: {json.dumps(value)}" for key, value in _hub_fields(plan, form).items())]
    front.append(f"library_name: {LIBRARIES[form]}")
    front += [f"pipeline_tag: {task}", "tags:", "- hone", f"- {plan.method.lower()}"]
    front += ["- lora"] if form == "Adapter" else []
    front.append("---")
    revision = f" at commit `{plan.model_commit}`" if plan.model_commit else ""
    version = f", ModelVersion `{plan.model_version}`," if plan.model_version else ""
    body = [
        f"# {plan.output.model_name}",
        f"{TITLES[form]} made from {_code(plan.model_uri)}{revision}{version} by {plan.method} in {steps} steps, "
        f"run `{plan.run}`.",
        "## Evaluation",
        _numbers(numbers),
        *(["## Warnings", _fenced("\n".join(warnings), "text")] if warnings else []),
        *(["## Use it", *map(_step, use)] if use else []),
        *(["## Answers to unseen prompts", *map(_sample, samples)] if samples else []),
        "## Data",
        *(f"- `{d.name}`, split `{d.split}`, `{d.digest}`" for d in plan.datasets),
        *(f"- `{d.name}`, split `{d.split}`, `{d.digest}` (held out)" for d in plan.evaluation_datasets),
        *_harness(plan),
        "## Settings",
        _fenced(json.dumps({"plan": _settings(plan), "resolved": resolved}, indent=2), "json"),
        *notes,
    ]
    return "\n".join(front) + "\n\n" + "\n\n".join(body) + "\n"


def _hub_fields(plan: TrainingPlan, form: ArtifactForm) -> dict[str, str]:
    """What the hub wants to know of where a model comes from; it refuses a base that is none of its repositories."""
    fields = licences.front_matter(plan.model_license)
    if plan.model_uri.startswith("hf://"):
        fields |= {"base_model": base_name(plan.model_uri), "base_model_relation": RELATIONS[form]}
    return fields


def _numbers(numbers: Sequence[EvaluationNumber]) -> str:
    if not numbers:
        return "Nothing was measured."
    lines = ["| metric | rows | base | tuned | 95 % interval of the change |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*lines, *map(_number, numbers), *_against(numbers)])


_DIFFERENCE = " 95 % interval of the difference |"


def _against(numbers: Sequence[EvaluationNumber]) -> list[str]:
    """A table of the numbers that were compared with another version, and one of those with recorded answers."""
    lines = []
    row = "| {0.name} | {0.dataset} ({0.rows}) | {0.against} | {0.tuned} | {0.against_low} to {0.against_high} |"
    for other, words in (("other", "the version that evaluation.against means"), ("recorded", "the recorded answers")):
        compared = [n for n in numbers if n.against and n.name.startswith(PARITY) == (other == "recorded")]
        if compared:
            lines += [
                "",
                f"Next to {words}, on the same rows:",
                "",
                f"| metric | rows | {other} | tuned |{_DIFFERENCE}",
            ]
            lines += ["| --- | --- | --- | --- | --- |", *map(row.format, compared)]
    return lines


def _number(n: EvaluationNumber) -> str:
    name = f"{n.name}{PURPOSES.get(n.purpose, '')}"
    change = f"{n.change_low} to {n.change_high}" if n.change_low else "-"
    return f"| {name} | {n.dataset} ({n.rows}) | {n.base or '-'} | {n.tuned} | {change} |"


def _harness(plan: TrainingPlan) -> list[str]:
    staged = plan.harness_tasks
    return [f"- `{d}` (lm-evaluation-harness {staged.version})" for d in staged.data_sets] if staged else []


def _sample(sample: AnsweredPrompt) -> str:
    parts = [
        ("Prompt", sample.prompt),
        ("Reference", sample.reference),
        (f"Base{ENDINGS[sample.base_ending]}", sample.base),
        (f"Tuned{ENDINGS[sample.tuned_ending]}", sample.tuned),
    ]
    return "\n\n".join(f"**{name}**\n\n{_fenced(text, 'text')}" for name, text in parts if text is not None)


def _step(step: NextStep) -> str:
    return f"{step.text}\n\n{_fenced(step.command, 'shell')}" if step.command else step.text


def _fenced(text: str, language: str) -> str:
    """A code block, in which no text is Markdown or HTML: rows and answers are untrusted."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _code(text: str | None) -> str:
    """A code span on one line that the text cannot escape."""
    line = " ".join((text or "").split())
    marks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if "`" in line else ""
    return f"{marks}{space}{line}{space}{marks}"


def _settings(plan: TrainingPlan) -> dict[str, object]:
    keep = {
        "method",
        plan.method.lower(),
        "adapter",
        "training",
        "early_stopping",
        "deepspeed",
        "nodes",
        "max_nodes",
        "processes_per_node",
    }
    return plan.model_dump(mode="json", by_alias=True, exclude_none=True, include=keep)
