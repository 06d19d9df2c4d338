"""Templates: what a model is asked for, and how its answer becomes a row. One entry of `TEMPLATES` a template.

Answers are sections with a label at the start of a line: small models also follow this format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hone_api.dataset.dataset import Format
from hone_api.dataset.synthesis import Raft
from hone_api.dataset.synthesis import Template as Name
from hone_api.plan import MaterializePlan
from hone_trainer.datasets.synthesis import raft
from hone_trainer.datasets.synthesis.material import Material, Passage, Seed
from hone_trainer.endpoints.client import Message

Row = dict[str, Any]
_SHOWN_SEEDS = 3
"""Seed rows in a prompt of SelfInstruct."""


class AnswerError(ValueError):
    """An answer that is not a row; reason is one of `hone_api.dataset.synthesis.FilteredRows`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Ask:
    """One request to the model."""

    messages: Sequence[Message]
    shown: Sequence[Seed | Passage]
    """What the model sees; the first decides on the split."""
    extra: Sequence[Passage] = ()
    """Distractors of a RAFT row."""

    @property
    def context(self) -> str:
        """For the reviewer."""
        return "\n\n---\n\n".join(item.text for item in self.shown)


@dataclass(frozen=True)
class RowTemplate:
    """One way to make rows."""

    format: Format
    """Of the rows it makes."""
    ask: Callable[[Material, Random, MaterializePlan], Ask]
    row: Callable[[str, Ask], Row]
    """The answer as a row by the roles of the format; raises AnswerError."""
    verify: Callable[[str, Row, Ask], str | None]
    """What is wrong with a row by a check that needs no judgement; None: nothing."""
    compared: Sequence[str]
    """Fields that are compared to find duplicates."""
    own_group: bool = False
    """Whether rows of the same seeds may be in different splits."""


def _messages(plan: MaterializePlan, task: str, shown: str) -> list[Message]:
    assert plan.synthesis is not None
    purpose = f"\n\nWhat the examples are for: {plan.synthesis.instructions}" if plan.synthesis.instructions else ""
    return [{"role": "user", "content": f"{task}{purpose}\n\n{shown}"}]


def sections(text: str, *labels: str) -> list[str]:
    """The text after each label. Each label must occur once, in this order; a second set is not read.

    Raises:
        AnswerError: WrongFormat.
    """
    again = list(re.finditer(rf"^\W*{labels[0]}\W*?:", text, re.M | re.I))
    if len(again) > 1:  # the model continued with more examples
        text = text[: again[1].start()]
    pattern = "".join(rf"^\W*{label}\W*?:\W*?(?P<{label}>.+?)\s*" for label in labels)
    match = re.search(pattern.removesuffix(r"\s*") + r"\s*\Z", text.strip(), re.S | re.M | re.I)
    if not match:
        raise AnswerError("WrongFormat", f"the answer has no {', '.join(f'{label}:' for label in labels)}")
    parts = [match[label].strip(" \t\r\n*") for label in labels]
    for label, part in zip(labels, parts, strict=True):
        if not part:
            raise AnswerError("WrongFormat", f"{label} is empty")
        if re.search(rf"^\W*({'|'.join(labels)})\W*:", part, re.M | re.I):
            raise AnswerError("WrongFormat", f"the answer has more than one {' or '.join(labels)}")
    return parts


def _no_check(text: str, row: Row, ask: Ask) -> None:
    return None


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" \"'“”").casefold()


# -- SelfInstruct: Wang et al. 2023 (arXiv 2212.10560) -------------------------------------------------------------


def _self_instruct(material: Material, random: Random, plan: MaterializePlan) -> Ask:
    shown = random.sample(material.seeds, min(_SHOWN_SEEDS, len(material.seeds)))
    examples = "\n\n".join(f"Question: {seed.prompt}\nAnswer: {seed.completion}" for seed in shown)
    task = (
        "Here are examples of questions and answers. Write one more of the same kind, about something else. Answer in "
        "exactly this form:\nQuestion: …\nAnswer: …"
    )
    return Ask(_messages(plan, task, examples), shown)


def _question_and_answer(text: str, ask: Ask) -> Row:
    question, answer = sections(text, "Question", "Answer")
    return {"prompt": question, "completion": answer}


# -- Paraphrase ----------------------------------------------------------------------------------------------------


def _paraphrase(material: Material, random: Random, plan: MaterializePlan) -> Ask:
    seed = random.choice(material.seeds)
    task = "Say the following in other words. Keep its meaning, every name and every number. Write nothing else."
    return Ask(_messages(plan, task, seed.prompt), [seed])


def _paraphrased(text: str, ask: Ask) -> Row:
    seed = ask.shown[0]
    assert isinstance(seed, Seed)
    prompt = text.strip().strip('"').strip()
    if not prompt:
        raise AnswerError("WrongFormat", "the answer is empty")
    return {"prompt": prompt, "completion": seed.completion, **({"system": seed.system} if seed.system else {})}


def _same_numbers(text: str, row: Row, ask: Ask) -> str | None:
    seed = ask.shown[0]
    assert isinstance(seed, Seed)
    missing = sorted(set(_numbers(seed.prompt)) ^ set(_numbers(row["prompt"])))
    return f"the numbers differ: {', '.join(missing[:5])}" if missing else None


def _numbers(text: str) -> list[str]:
    return [number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)]


# -- Preference: the seed's answer against the model's own (SPIN, Chen et al. 2024, arXiv 2401.01335) --------------


def _preference(material: Material, random: Random, plan: MaterializePlan) -> Ask:
    seed = random.choice(material.seeds)
    system = [{"role": "system", "content": seed.system}] if seed.system else []
    return Ask([*system, {"role": "user", "content": seed.prompt}], [seed])


def _pair(text: str, ask: Ask) -> Row:
    seed = ask.shown[0]
    assert isinstance(seed, Seed)
    if not text.strip():
        raise AnswerError("WrongFormat", "the answer is empty")
    return {"prompt": seed.prompt, "chosen": seed.completion, "rejected": text.strip()}


def _differ(text: str, row: Row, ask: Ask) -> str | None:
    return "chosen and rejected say the same" if _plain(row["chosen"]) == _plain(row["rejected"]) else None


# -- QuestionsFromDocuments ----------------------------------------------------------------------------------------


def _about_a_document(material: Material, random: Random, plan: MaterializePlan) -> Ask:
    passage = random.choice(material.passages)
    task = (
        "Write one question that this document answers, its answer, and the sentence of the document that has the "
        "answer, word for word. Answer in exactly this form:\nQuestion: …\nAnswer: …\nQuote: …"
    )
    return Ask(_messages(plan, task, f"Document:\n{passage.text}"), [passage])


def _question_from_document(text: str, ask: Ask) -> Row:
    question, answer, _ = sections(text, "Question", "Answer", "Quote")
    return {"prompt": question, "completion": answer}


def _quoted(text: str, row: Row, ask: Ask) -> str | None:
    quote = sections(text, "Question", "Answer", "Quote")[2]
    return None if _plain(quote) in _plain(ask.shown[0].text) else "the quote is not in the document"


# -- RAFT: Zhang et al. 2024 (arXiv 2403.10131) --------------------------------------------------------------------


def _raft(material: Material, random: Random, plan: MaterializePlan) -> Ask:
    passage = random.choice(material.passages)
    task = (
        "Write one question that this document answers; then the reasoning that leads to the answer, in which every "
        f"sentence copied from the document stands between {raft.BEGIN} and {raft.END}; then the answer, in few "
        "words. Answer in exactly this form:\nQuestion: …\nReasoning: …\nAnswer: …"
    )
    others = [p for p in material.passages if p.group != passage.group] or [
        p for p in material.passages if p.id != passage.id
    ]
    settings = plan.raft or Raft()
    extra = random.sample(others, min(settings.distractors, len(others)))
    return Ask(_messages(plan, task, f"Document:\n{passage.text}"), [passage], extra)


def _raft_row(text: str, ask: Ask) -> Row:
    question, reasoning, answer = sections(text, "Question", "Reasoning", "Answer")
    return {
        "question": question,
        "oracle": [ask.shown[0].text],
        "distractors": [passage.text for passage in ask.extra],
        "reasoning": reasoning,
        "answer": answer,
    }


def _raft_quotes(text: str, row: Row, ask: Ask) -> str | None:
    return raft.wrong_quotes(row["reasoning"], row["oracle"])


TEMPLATES: dict[str, RowTemplate] = {
    Name.SELF_INSTRUCT: RowTemplate(
        Format.PROMPT_COMPLETION, _self_instruct, _question_and_answer, _no_check, ("prompt", "completion"), True
    ),
    Name.PARAPHRASE: RowTemplate(Format.PROMPT_COMPLETION, _paraphrase, _paraphrased, _same_numbers, ("prompt",)),
    Name.PREFERENCE: RowTemplate(Format.PREFERENCE, _preference, _pair, _differ, ("rejected",)),
    Name.QUESTIONS_FROM_DOCUMENTS: RowTemplate(
        Format.PROMPT_COMPLETION, _about_a_document, _question_from_document, _quoted, ("prompt", "completion")
    ),
    Name.RAFT: RowTemplate(Format.RAFT, _raft, _raft_row, _raft_quotes, ("question", "answer")),
}
