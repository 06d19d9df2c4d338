"""Columns that no role reads. Most are remarks; some decide what is learned, and are refused unless ignored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hone_api.dataset import Format
from hone_trainer.datasets.formats.base import RowFormat
from hone_trainer.datasets.rows import RowError, label_text

MEDIA = ("image", "images", "audio", "audios", "video", "videos")
SPANS = ("train_detail",)
_LABELS = ("label", "labels", "kto_tag", "is_correct", "correct")
VERDICTS = {
    **dict.fromkeys(("true", "1", "good"), True),
    **dict.fromkeys(("false", "0", "-1", "bad"), False),
}
"""Labels that mean a good or a bad answer, as `label_text`."""
_SAYS = (
    *("question", "instruction", "query", "input", "context", "passage", "document", "problem", "system_prompt"),
    *("history", "title_and_text", "choices", "options", "A", "opa", "option_a", "optionA"),
)
"""Names of columns that a question is made of, most often the first of them."""
_REASONING = ("reasoning", "reasoning_content", "thinking")
"""Names of columns with what is thought before the answer."""
_REMARKS = (
    *("id", "uid", "uuid", "source", "dataset", "model", "category", "lang", "language", "url", "license", "split"),
    *("type", "task", "subset", "topic", "tags", "author", "date", "created_at", "timestamp", "version", "hash"),
)
_REMARK_ENDINGS = ("_id", "_model", "_source", "_score", "_rating", "_name", "_hash", "_url", "_by", "_date", "_at")
_INSIST = "or, if it does not matter, name it in spec.ignoreColumns (validate --ignore-column)"


def has_value(value: Any) -> bool:
    """Whether a column has something in a row."""
    return value not in (None, "", [], {})


def refuse_content(row: dict[str, Any], ignored: Collection[str]) -> None:
    """Refuse a row with content that no format reads: images, sounds, films, and spans that are not to be trained.

    Raises:
        RowError: NotText or UnsupportedField.
    """
    for name in MEDIA:
        if has_value(row.get(name)) and name not in ignored:
            raise RowError("NotText", f"the column {name} has something, and Hone trains text; {_INSIST}")
    for name in SPANS:
        if has_value(row.get(name)) and name not in ignored:
            raise RowError("UnsupportedField", f"the column {name} is not supported; {_INSIST}")


def problem(
    entry: RowFormat, read: Collection[str], sample: Sequence[dict[str, Any]], fields: Sequence[dict[str, Any]]
) -> str | None:
    """Why the columns that are left out must not be, in a format that Auto or a person chose; None: they are remarks.

    Args:
        entry: the format.
        read: the columns that the roles read.
        sample: the first rows.
        fields: their values by role.
    """
    format = entry.name
    unread = {name for row in sample for name, value in row.items() if has_value(value)}
    unread -= {*read}
    if format in (Format.PROMPT_COMPLETION, Format.CHAT, Format.SHAREGPT, Format.ALPACA):
        for name in (name for name in _LABELS if name in unread and None not in _verdicts(name, sample)):
            hint = f"if it says whether an answer is good, set format: KTO and spec.columns {{label: {name}}}"
            return f"The column {name} is not read: {hint}; {_INSIST}."
    if format == Format.PREFERENCE:
        for name in (name for name in _LABELS if name in unread and _verdicts(name, sample) == {True, False}):
            hint = (
                "if it says which of the two answers is better, set spec.columns {chosen:"
                f' \'pick({name}, {{"1": chosen, "0": rejected}})\', rejected: \'pick({name}, {{"1": rejected,'
                ' "0": chosen})\'}, with your own labels'
            )
            return f"The column {name} is not read: {hint}; {_INSIST}."
    if format == Format.PREFERENCE and any(_lacks_prompt(row) for row in fields):
        texts = [name for name in sorted(unread) if not is_remark(name) and _is_text(name, sample)]
        if asks := [name for name in _SAYS if name in texts] or texts[:1]:
            prompt = asks[0] if len(asks) == 1 else f'"lines({", ".join(asks)})"'
            columns = "the text column" if len(asks) == 1 else "the columns"
            what = f"{columns} {', '.join(asks)} {'is' if len(asks) == 1 else 'are'} not read"
            return f"There is no prompt, and {what}: map it, spec.columns {{prompt: {prompt}}}; {_INSIST}."
    if entry.is_answered:
        for name in (name for name in _SAYS if name in unread and _is_text(name, sample)):
            hint = f'map it to a role, e.g. spec.columns {{prompt: "lines({name}, …)"}}'
            return f"The column {name} is not read, and seems to belong to the question: {hint}; {_INSIST}."
    if entry.is_answered or format == Format.RAFT:
        for name in (name for name in ("tools", "functions") if name in unread):
            return f"The column {name} is not read by format {format}: Chat, Preference and KTO have tools; {_INSIST}."
    if format in (Format.PROMPT_COMPLETION, Format.ALPACA):
        for name in (name for name in _REASONING if name in unread and _is_text(name, sample)):
            hint = (
                "train it as a turn's reasoning, e.g. spec.columns {messages: \"[{role: 'user', content: question},"
                f" {{role: 'assistant', content: answer, reasoning: {name}}}]\"}}"
            )
            return f"The column {name} is not read, and seems to belong to the answer: {hint}; {_INSIST}."
    return None


def _verdicts(name: str, sample: Sequence[dict[str, Any]]) -> set[bool | None]:
    """What the column says of answers, as format KTO reads it; None is in it for anything else."""
    return {VERDICTS.get(label_text(row[name])) for row in sample if has_value(row.get(name))}


def _is_text(name: str, sample: Sequence[dict[str, Any]]) -> bool:
    """Whether the column is a text, or turns, in most of the rows that have it."""
    values = [row[name] for row in sample if has_value(row.get(name))]
    return 2 * sum(isinstance(value, str | list) for value in values) > len(values)


def _lacks_prompt(fields: dict[str, Any]) -> bool:
    """Whether a prompt could only be what two texts begin with."""
    return isinstance(fields.get("chosen"), str) and not (fields.get("prompt") or fields.get("conversations"))


def is_remark(name: str) -> bool:
    """Whether the name of a column suggests the origin of a row."""
    return name.lower() in _REMARKS or name.lower().endswith(_REMARK_ENDINGS)
