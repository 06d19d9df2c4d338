"""Shapes of rows that public sets have, and how each is read. The next one is one more entry.

A `Shape` gives a format and an expression for each of its roles, as a user could write them in `columns`.
`RefusedShape` names a shape that Hone has no use for, and the way out. Auto tries `DISTINCT` before the formats'
own names, since a format would read one column of these rows alone; `USUAL` after them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone_api.dataset.dataset import Format
from hone_trainer.datasets.formats.unread import is_remark
from hone_trainer.datasets.readers.rows import label_text

Row = Mapping[str, Any]
_TIE = re.compile(r"\b(tie|tied|draw|equal|same|both|none|neither|unsure)\b|bothbad|^$")
"""Labels that prefer neither answer."""
_TRUE, _FALSE = {"1", "true"}, {"0", "false"}


def _identifier(column: str) -> str:
    """The column as an expression has it."""
    return column if column.isidentifier() and column.isascii() else json.dumps(column)


@dataclass(frozen=True)
class LabelledPair:
    """A label column and the columns of the two answers that it chooses between."""

    label: str
    first: str
    second: str
    codings: tuple[tuple[str, str], ...] = ()
    """Pairs of labels for the first and for the second answer."""
    is_documented: bool = False
    """Whether the set's authors say so: then one of the two labels is enough to know the coding."""
    flags: tuple[str, ...] = ()
    """Columns that say it together, each true or false, e.g. one for each answer."""

    def doubt(self, prompt: str, rows: Sequence[Row]) -> str | None:
        """Why the labels of the rows do not say which answer is better, with the mappings to choose from."""
        labels = {self._label_of(row): None for row in rows if row.get(self.label) is not None}
        for coding in self.codings:
            if labels.keys() <= {*coding} and (self.is_documented or len(labels) == len(coding)):
                return None
        decided = [label for label in sorted(labels) if not _TIE.search(label)]
        decided = [label for label in decided if not self.flags or _TRUE & {*label.split()}]
        left, right = decided if len(decided) == 2 else ("LABEL OF THE FIRST", "LABEL OF THE SECOND")
        here, there = ({left: one, right: other} for one, other in (self._answers, self._answers[::-1]))
        asked = f"prompt: {prompt}, " if prompt else ""
        ways = [
            f"spec.columns {{{asked}chosen: '{self._picked(good)}', rejected: '{self._picked(bad)}'}}"
            for good, bad in ((here, there), (there, here))
        ]
        return (
            f"{self._said} to say which of {self.first} and {self.second} is better, but not how: its values are"
            f" {', '.join(sorted(labels)[:8])[:200]}. Write what they mean:"
            f" {' or '.join(ways if len(decided) == 2 else ways[:1])}. A row with another label, such as a tie, is"
            " rejected."
        )

    @property
    def _answers(self) -> tuple[str, str]:
        return self.first, self.second

    @property
    def _said(self) -> str:
        return f"The set of columns {', '.join(self.flags)} seems" if self.flags else f"The column {self.label} seems"

    def _label_of(self, row: Row) -> str:
        return " ".join(label_text(row.get(name)) for name in self.flags or (self.label,))

    def _picked(self, meanings: Mapping[str, str]) -> str:
        pairs = ", ".join(f'"{label}": {_identifier(column)}' for label, column in meanings.items())
        flags = ", ".join(f"to_string({_identifier(name)})" for name in self.flags)
        label = f'join(`" "`, [{flags}])' if flags else _identifier(self.label)
        return f"pick({label}, {{{pairs}}})"

    def columns(self, prompt: str) -> dict[str, str]:
        """Role to expression."""
        good, bad = (
            {label: column for coding in self.codings for label, column in zip(coding, answers, strict=True)}
            for answers in (self._answers, self._answers[::-1])
        )
        return {"prompt": prompt, "chosen": self._picked(good), "rejected": self._picked(bad)}


@dataclass(frozen=True)
class Shape:
    """A known shape: the columns that it needs, and the format that its rows have under these columns."""

    name: str
    format: Format
    needs: tuple[str, ...]
    columns: dict[str, str]
    """Role to expression."""
    matches: Callable[[Row], bool] = lambda row: True
    """What else holds for a row of this shape."""
    absent: frozenset[str] = field(default_factory=frozenset)
    """Columns that rows of this shape do not have."""
    judged: LabelledPair | None = None
    """What says which of two answers is the better one."""

    def has(self, row: Row) -> bool:
        """Whether a row has this shape."""
        return (
            all(row.get(name) is not None for name in self.needs) and not self.absent & row.keys() and self.matches(row)
        )


@dataclass(frozen=True)
class RefusedShape:
    """A shape that is refused by its name."""

    name: str
    needs: tuple[str, ...]
    way_out: str
    matches: Callable[[Row], bool] = lambda row: True

    def has(self, row: Row) -> bool:
        """Whether a row has this shape."""
        return all(row.get(name) is not None for name in self.needs) and self.matches(row)


_ASKED = ("question", "instruction", "query", "input")
_TALKS = ("conversations", "conversation", "messages", "dialog", "dialogue", "chat", "turns")
_DISTINCT_PREFERENCES = frozenset({"prompt", "conversations", "messages"})


def _turns(column: str, *keys: str) -> Callable[[Row], bool]:
    """Whether the column is a list of objects with these keys."""

    def matches(row: Row) -> bool:
        turns = row.get(column)
        return (
            isinstance(turns, list)
            and bool(turns)
            and all(isinstance(turn, dict) and turn.keys() >= set(keys) for turn in turns)
        )

    return matches


def _is_dialog_of_texts(column: str) -> Callable[[Row], bool]:
    """At least two texts: a single one, e.g. the question of a benchmark, is not a dialog."""
    return lambda row: isinstance(row[column], list) and len(row[column]) > 1 and all(map(_is_text, row[column]))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _asks_alone(row: Row) -> bool:
    """Whether the columns in addition to the prompt are only remarks."""
    return all(name == "prompt" or is_remark(name) for name in row)


def _texts(*columns: str) -> Callable[[Row], bool]:
    return lambda row: all(isinstance(row.get(column), str) for column in columns)


def _is_list_in_json(column: str) -> Callable[[Row], bool]:
    """Whether the column is a list of objects written as a text, as CSV and many Parquet exports have it."""
    return lambda row: isinstance(row.get(column), str) and "".join(row[column][:20].split()).startswith("[{")


def _are_lists_in_json(*columns: str) -> Callable[[Row], bool]:
    return lambda row: all(_is_list_in_json(column)(row) for column in columns)


def _ends_with_question(row: Row) -> bool:
    turns = row.get("messages")
    return _turns("messages", "role")(row) and isinstance(turns, list) and turns[-1]["role"] != "assistant"


def _object(column: str, *keys: str) -> Callable[[Row], bool]:
    return lambda row: isinstance(row.get(column), dict) and row[column].keys() >= set(keys)


_ANSWER_PAIRS = (("1", "2"), ("0", "1"), ("a", "b"), ("A", "B"), ("j", "k"), ("", "_2"))
"""Endings of the names of two answers to one prompt."""
_ANSWERS = re.compile(
    r"output|response|answer|completion|candidate|reply|generat|conversation|assistant|summar", re.IGNORECASE
)
_DECIDES = re.compile(
    r"label|prefer|winner|winning|better|best|choice|chosen|vote|verdict|selected|safer|rank", re.IGNORECASE
)


def judged_of(rows: Sequence[Row]) -> tuple[str, LabelledPair] | None:
    """The prompt, and what seems to judge two answers of the rows, whatever the names of their columns."""
    row = rows[0] if rows else {}
    prompt, pairs = _answer_pairs(row)
    labels = [name for name, value in row.items() if _DECIDES.search(name) and isinstance(value, str | int | float)]
    labels = [name for name in labels if all(name not in pair for pair in pairs)]
    pairs = [pair for pair in pairs if prompt not in pair]
    if not pairs or not labels:
        return None
    return prompt, LabelledPair(labels[0], *_longest(pairs, row), flags=_flags(labels, rows))


def named_answers(rows: Sequence[Row]) -> tuple[str, LabelledPair] | None:
    """The prompt, and two answers that the column chosen seems to name rather than hold, e.g. A or response_a."""
    prompt, pairs = _answer_pairs(rows[0])
    names = {label_text(row.get("chosen")) for row in rows}
    if not pairs or len(names) > 4 or max(map(len, names)) > 40:
        return None
    pair = _longest(pairs, rows[0])
    is_held = any(row.get("chosen") == row.get(name) for row in rows for name in pair)
    return None if is_held else (prompt, LabelledPair("chosen", *pair))


def _answer_pairs(row: Row) -> tuple[str, list[tuple[str, str]]]:
    """The prompt's column, and the columns of two answers by the endings of their names."""
    pairs = [
        (first, first.removesuffix(one) + other)
        for first in row
        for one, other in _ANSWER_PAIRS
        if first.endswith(one) and _ANSWERS.search(first) and isinstance(row[first], str | list)
    ]
    pairs = [(first, second) for first, second in pairs if type(row.get(second)) is type(row[first])]
    return next((name for name in ("prompt", *_ASKED, "problem", "history", "context") if name in row), ""), pairs


def _longest(pairs: Sequence[tuple[str, str]], row: Row) -> tuple[str, str]:
    return max(pairs, key=lambda pair: len(str(row[pair[0]])))


def _flags(labels: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """The labels, if each is true or false and at most one is true: alone, one of them does not tell a tie."""
    flags = [name for name in labels if {label_text(row.get(name)) for row in rows} <= _TRUE | _FALSE]
    flags = [name for name in flags if not _TIE.search(name.replace("_", " "))]
    is_one = all(sum(label_text(row.get(name)) in _TRUE for name in flags) <= 1 for row in rows)
    return tuple(flags) if len(flags) > 1 and is_one else ()


def _judged(name: str, prompt: str, judged: LabelledPair) -> Shape:
    needs = (prompt, judged.first, judged.second, judged.label)
    return Shape(name, Format.PREFERENCE, needs, judged.columns(prompt), judged=judged)


DISTINCT: tuple[Shape | RefusedShape, ...] = (
    Shape(
        "OpenAI preference",
        Format.PREFERENCE,
        ("input", "preferred_output", "non_preferred_output"),
        {
            "prompt": "input.messages",
            "chosen": "preferred_output",
            "rejected": "non_preferred_output",
            "tools": "input.tools",
        },
        _object("input", "messages"),
    ),
    Shape(
        "LLaMA-Factory v1 preference",
        Format.PREFERENCE,
        ("chosen_messages", "rejected_messages"),
        {"chosen": "chosen_messages", "rejected": "rejected_messages"},
    ),
    *(
        Shape(
            f"preference with {asked}",
            Format.PREFERENCE,
            (asked, "chosen", "rejected"),
            {"prompt": "lines(instruction, input)" if asked == "instruction" else asked},
            _texts(asked, "chosen", "rejected"),
            _DISTINCT_PREFERENCES,
        )
        for asked in _ASKED
    ),
    Shape(
        "OpenAI reinforcement fine-tuning",
        Format.VERIFIABLE,
        ("messages", "reference_answer"),
        {"prompt": "messages", "answer": "reference_answer"},
        _ends_with_question,
    ),
    Shape(
        "Tülu's questions with a ground truth",
        Format.VERIFIABLE,
        ("messages", "ground_truth"),
        {"prompt": "messages", "answer": "ground_truth"},
        lambda row: _is_text(row["ground_truth"]) and _ends_with_question(row),
    ),
    Shape(
        "verl",
        Format.VERIFIABLE,
        ("prompt", "reward_model"),
        {"prompt": "prompt", "answer": "reward_model.ground_truth"},
        _object("reward_model", "ground_truth"),
    ),
    Shape(
        "Bedrock conversation",
        Format.CHAT,
        ("schemaVersion", "messages"),
        {"messages": "messages", "system": "lines(system[].text)", "tools": "toolConfig.tools"},
        _turns("messages", "role", "content"),
    ),
    Shape(
        "Gemini contents",
        Format.CHAT,
        ("contents",),
        {
            "messages": "contents",
            "system": "lines((systemInstruction || system_instruction).parts[].text)",
            "tools": "tools",
        },
        _turns("contents", "role", "parts"),
    ),
    Shape(
        "Anthropic messages",
        Format.CHAT,
        ("messages", "system"),
        {"messages": "messages", "system": "lines(system[].text)"},
        lambda row: isinstance(row["system"], list) and _turns("messages", "role", "content")(row),
    ),
    _judged(
        "SHP", "history", LabelledPair("labels", "human_ref_A", "human_ref_B", (("1", "0"), ("true", "false")), True)
    ),
    _judged("LLMBar", "input", LabelledPair("label", "output_1", "output_2", (("1", "2"),))),
    Shape(
        "Self-Instruct tasks",
        Format.PROMPT_COMPLETION,
        ("instruction", "instances"),
        {"prompt": "lines(instruction, instances[0].input)", "completion": "instances[0].output"},
        lambda row: _turns("instances", "input", "output")(row) and len(row["instances"]) == 1,
    ),
    Shape(
        "SQuAD",
        Format.PROMPT_COMPLETION,
        ("context", "question", "answers"),
        {"prompt": "lines(context, question)", "completion": "answers.text[0]"},
        _object("answers", "text"),
    ),
    Shape(
        "xLAM function calling",
        Format.CHAT,
        ("query", "answers", "tools"),
        {
            "messages": "[{role: 'user', content: query}, {role: 'assistant', tool_calls: json(answers)}]",
            "tools": "tools",
        },
        _texts("query"),
    ),
    *(
        Shape(
            f"ShareGPT under {column}",
            Format.SHAREGPT,
            (column,),
            {"conversations": column},
            _turns(column, "from", "value"),
            frozenset({"chosen", "rejected", "label"}),
        )
        for column in _TALKS
        if column != "conversations"
    ),
    *(
        Shape(
            f"chat under {column}",
            Format.CHAT,
            (column,),
            {"messages": column},
            _turns(column, "role", "content"),
            frozenset({"chosen", "rejected", "label"}),
        )
        for column in _TALKS
        if column != "messages"
    ),
    *(
        Shape(
            f"{column} as JSON text",
            format,
            (column,),
            {column: f"json({column})"},
            _is_list_in_json(column),
            frozenset({"chosen", "rejected", "label"}),
        )
        for column, format in (("messages", Format.CHAT), ("conversations", Format.SHAREGPT))
    ),
    *(
        Shape(
            f"{' and '.join(columns)} as JSON text",
            format,
            columns,
            {column: f"json({column})" for column in columns},
            _are_lists_in_json(*columns),
        )
        for columns, format in (
            (("prompt", "chosen", "rejected"), Format.PREFERENCE),
            (("chosen", "rejected"), Format.PREFERENCE),
            (("prompt", "completion"), Format.PROMPT_COMPLETION),
        )
    ),
    *(
        RefusedShape(
            f"dialogs of texts in {column}",
            (column,),
            "Nothing says who speaks: write {messages: [{role: user, content}, {role: assistant, content}, …]}, or map"
            f" the first two: spec.columns {{prompt: '{column}[0]', completion: '{column}[1]'}}.",
            _is_dialog_of_texts(column),
        )
        for column in (*_TALKS, "utterances")
    ),
    RefusedShape(
        "OASST messages of trees",
        ("message_id", "role", "text"),
        "Each row is one message, and its parent_id says what it answers: join each path from a root to a leaf into"
        " one row {messages: [{role, content}]} first.",
    ),
    RefusedShape(
        "code with a hole (fill in the middle)",
        ("prefix", "middle", "suffix"),
        "Each model has its own tokens for it, which rows must not contain. To learn how the prefix continues, map"
        " spec.columns {prompt: prefix, completion: middle}.",
        _texts("prefix", "middle", "suffix"),
    ),
    RefusedShape(
        "TRL step-wise supervision",
        ("prompt", "completions", "labels"),
        "Hone has no method that learns from judged steps. Judged whole answers are format KTO: prompt, completion and"
        " label.",
    ),
    RefusedShape(
        "ranked completions",
        ("prompt", "completions"),
        "Write one row {prompt, chosen, rejected} for each pair to compare, or map one of them:"
        " spec.columns {prompt: prompt, completion: 'completions[0]'}.",
    ),
    RefusedShape(
        "pre-tokenised rows",
        ("input_ids",),
        "Token ids belong to one tokenizer, and nobody can check them: give the texts.",
    ),
    RefusedShape(
        "Axolotl segments",
        ("segments",),
        "Write {prompt, completion}, or {messages} with weight 0 for the turns that are not trained.",
        _turns("segments", "text"),
    ),
)


def _pair(name: str, prompt: str, completion: str, *needs: str, **more: str) -> Shape:
    texts = needs or (prompt, completion)
    return Shape(
        name,
        Format.PROMPT_COMPLETION,
        texts,
        {"prompt": prompt, "completion": completion, **more},
        _texts(*texts),
    )


USUAL: tuple[Shape | RefusedShape, ...] = (
    Shape(
        "problem, solution and answer",
        Format.VERIFIABLE,
        ("problem", "answer"),
        {"prompt": "problem"},
        _texts("problem"),
    ),
    Shape(
        "question, solution and answer",
        Format.VERIFIABLE,
        ("question", "solution", "answer"),
        {"prompt": "question"},
        _texts("question", "solution"),
    ),
    _pair("problem and solution", "problem", "solution"),
    _pair("OpenOrca", "question", "response", "system_prompt", "question", "response", system="system_prompt"),
    _pair("Dolly", "lines(instruction, context)", "response", "instruction", "context", "response"),
    _pair("FLAN", "inputs", "targets"),
    _pair("context, question and answer", "lines(context, question)", "answer", "context", "question", "answer"),
    _pair("instruction and response", "lines(instruction, input)", "response", "instruction", "response"),
    _pair("instruction and completion", "lines(instruction, input)", "completion", "instruction", "completion"),
    _pair("question and answer", "question", "answer"),
    _pair("question and response", "question", "response"),
    _pair("query and response", "query", "response"),
    _pair("query and answer", "query", "answer"),
    _pair("prompt and response", "prompt", "response"),
    _pair("user and assistant", "user", "assistant"),
    RefusedShape(
        "translation pairs",
        ("translation",),
        "Say which language is the question: spec.columns {prompt: translation.de, completion: translation.en}, with an"
        " instruction if you like: lines('Translate into English:', translation.de).",
        lambda row: isinstance(row["translation"], dict),
    ),
    *(
        RefusedShape(
            "texts and summaries",
            (text, summary),
            f"A model needs an instruction to summarise: spec.columns {{prompt: \"lines('Summarise:', {text})\","
            f" completion: {summary}}}.",
        )
        for text, summary in (("document", "summary"), ("article", "highlights"), ("dialogue", "summary"))
    ),
    RefusedShape(
        "prompts without answers",
        ("prompt",),
        "Add what is learned: completion (format PromptCompletion), chosen and rejected (Preference), or answer or"
        " tests, by which sampled answers are checked (Verifiable).",
        _asks_alone,
    ),
)
