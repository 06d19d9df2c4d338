"""Columns that no role reads. Most are remarks; some decide what is learned, and are refused unless ignored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from hone_api.base.wording import counted
from hone_api.contract.privacy import quoted
from hone_api.dataset.dataset import Format
from hone_trainer.datasets.formats.base import RowFormat
from hone_trainer.datasets.readers.rows import RowError, label_text
from hone_trainer.datasets.texts.texts import joined

MEDIA = (
    *("image", "images", "audio", "audios", "video", "videos", "img", "imgs", "picture", "pictures", "photo", "photos"),
    *("image_path", "image_paths", "image_url", "image_urls", "image_file", "image_bytes", "pixel_values", "media"),
    *("audio_path", "audio_url", "audio_file", "video_path", "video_url", "video_file"),
)
SPANS = ("train_detail",)
_LABELS = (
    *(
        "label",
        "labels",
        "kto_tag",
        "is_correct",
        "correct",
        "thumbs_up",
        "thumbs",
        "feedback",
        "user_feedback",
        "liked",
    ),
    *("is_helpful", "helpful", "is_good", "upvoted", "accepted", "approved", "verdict", "is_safe", "safe"),
    *("is_unsafe", "unsafe", "is_harmful", "harmful", "is_toxic", "toxic", "safety_label"),
    *("resolved", "is_resolved", "solved", "is_solved", "passed", "success", "is_success"),
    *("pred_correct", "answer_correct", "is_answer_correct", "response_correct"),
)
_GRADES = re.compile(
    r"(?:^|[_-])(?:reward|rating|score|quality|stars|grade|weight|votes|upvotes"
    r"|helpfulness|correctness|coherence|honesty|truthfulness|harmlessness|instruction_following)$"
)
"""Names of columns with a number that says how good an answer is, or how much a row counts."""
VERDICTS = {
    **dict.fromkeys(("true", "1", "good"), True),
    **dict.fromkeys(("false", "0", "-1", "bad"), False),
}
"""Labels that mean a good or a bad answer, as `label_text`."""
_BACKGROUND = (
    *(
        "context",
        "contexts",
        "background",
        "evidence",
        "knowledge",
        "facts",
        "documents",
        "docs",
        "passages",
        "persona",
    ),
    *("retrieved", "retrieved_contexts", "retrieved_documents", "instructions", "system_prompt"),
)
"""Names of columns that a conversation is about."""
_SAYS = (
    *("question", "instruction", "query", "input", "context", "passage", "document", "problem", "system_prompt"),
    *("history", "title_and_text", "choices", "options", "A", "opa", "option_a", "optionA"),
    *("story", "paragraph", "paragraphs", "article", *(name for name in _BACKGROUND if name not in ("context",))),
)
"""Names of columns that a question is made of, most often the first of them."""
_OPTIONS = "chat_template_kwargs"
"""The column from which TRL renders each row's template."""
_WRITTEN_OUT = re.compile(r"### ?(?:Human|Instruction|User|Assistant|Response) ?:|<\|im_start\|>|\[/INST\]")
_REASONING = ("reasoning", "reasoning_content", "thinking")
"""Names of columns with what is thought before the answer."""
_REMARKS = (
    *("id", "uid", "uuid", "source", "dataset", "model", "category", "lang", "language", "url", "license", "split"),
    *("type", "task", "subset", "topic", "tags", "author", "date", "created_at", "timestamp", "version", "hash"),
)
_REMARK_ENDINGS = ("_id", "_model", "_source", "_score", "_rating", "_name", "_hash", "_url", "_by", "_date", "_at")
_LEARNED_WHOLE = (Format.PROMPT_COMPLETION, Format.CHAT, Format.SHAREGPT, Format.ALPACA)
"""Formats whose every answer is learned."""
_GOOD_WORDS = {
    *("up", "positive", "yes", "thumbs_up", "like", "helpful", "pass", "correct", "👍"),
    *("desirable", "safe", "harmless", "acceptable", "accepted", "approved", "preferred", "chosen"),
}
_BAD_WORDS = {
    *("down", "negative", "no", "thumbs_down", "dislike", "unhelpful", "fail", "incorrect", "👎"),
    *("undesirable", "unsafe", "harmful", "toxic", "unacceptable", "rejected", "dispreferred"),
}
_MEANS_BAD = re.compile(r"(?:is_)?(?:unsafe|harmful|toxic)")
"""Names of labels that are true of a bad answer."""
_OTHER_ANSWER = re.compile(
    r"(?:correct|revis|edit|improv|better|prefer|gold|chosen|reject|bad|negative|wrong|worse|incorrect)[a-z]*[_ -]"
    r"(?:output|response|answer|completion|reply)",
    re.IGNORECASE,
)
"""Names of columns with an answer that is better or worse than the one that is read."""
_WORDS = '{"LABEL OF GOOD": `true`, "LABEL OF BAD": `false`}'
TURN_KEYS = {
    *("role", "from", "content", "value", "parts", "message", "name", "tool_call_id", "tool_calls", "function_call"),
    *("weight", "loss_weight", "train", "training", "trainable", "loss", "reasoning_content", "reasoning", "thinking"),
}
"""Keys of a turn that are read."""
LEGACY_END = "<|endoftext|>"
"""The end marker of OpenAI's legacy completion files; the encoder adds the model's own token."""
SHOWN = 10
"""Names in a sentence, which has at most 600 characters."""
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
            raise RowError("NotText", f"the column {name} is not empty, and Hone trains text; {_INSIST}")
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
    if format in _LEARNED_WHOLE and (verdict := _verdict(unread, sample)):
        return verdict
    if format == Format.PREFERENCE:
        for name in (name for name in _LABELS if name in unread and _verdicts(name, sample) == {True, False}):
            hint = (
                "if it says which of the two answers is better, set spec.columns {chosen:"
                f' \'pick({name}, {{"1": chosen, "0": rejected}})\', rejected: \'pick({name}, {{"1": rejected,'
                ' "0": chosen})\'}, with your own labels'
            )
            return f"The column {name} is not read: {hint}; {_INSIST}."
        for good, bad in _graded_pairs(unread):
            if (worse := _exchanged(good, bad, sample)) * 2 > len(sample):
                return (
                    f"In {worse} of the first {counted(len(sample), 'row')} {bad} is above {good}: if a high number is"
                    f" good, exchange the answers, spec.columns {{chosen: rejected, rejected: chosen}}; {_INSIST}."
                )
    if format == Format.PREFERENCE and any(_lacks_prompt(row) for row in fields):
        texts = [name for name in sorted(unread) if not is_remark(name) and _is_text(name, sample)]
        if asks := [name for name in _SAYS if name in texts] or texts[:1]:
            prompt = asks[0] if len(asks) == 1 else f'"lines({", ".join(asks)})"'
            columns = "the text column" if len(asks) == 1 else "the columns"
            what = f"{columns} {', '.join(asks)} {'is' if len(asks) == 1 else 'are'} not read"
            return f"There is no prompt, and {what}: map it, spec.columns {{prompt: {prompt}}}; {_INSIST}."
    if entry.is_answered:
        for name in (name for name in _SAYS if name in unread and _says_more(name, sample, fields)):
            hint = f'map it to a role, e.g. spec.columns {{prompt: "lines({name}, …)"}}'
            return f"The column {name} is not read, and seems to belong to the question: {hint}; {_INSIST}."
    if format in (Format.CHAT, Format.SHAREGPT):
        for name in (name for name in _BACKGROUND if name in unread and _says_more(name, sample, fields)):
            hint = f'map it to the system turn, e.g. spec.columns {{system: "lines({name})"}}'
            return f"The column {name} is not read, and seems to belong to the conversation: {hint}; {_INSIST}."
    if _OPTIONS in unread and (keys := _template_options(sample)):
        hint = "write instructions as a system turn, and tools in the column tools"
        return f"The column {_OPTIONS} is not read, and its {', '.join(keys)} change prompts: {hint}; {_INSIST}."
    if entry.is_answered or format == Format.RAFT:
        for name in (name for name in ("tools", "functions") if name in unread):
            return f"The column {name} is not read by format {format}: Chat, Preference and KTO have tools; {_INSIST}."
    if format in (Format.PROMPT_COMPLETION, Format.ALPACA):
        for name in (name for name in sorted(unread) if _OTHER_ANSWER.fullmatch(name) and _is_text(name, sample)):
            hint = "if one of the two is better, set format: Preference and spec.columns {chosen: …, rejected: …}"
            return f"The column {name} is not read, and seems to be another answer: {hint}; {_INSIST}."
        for name in (name for name in _REASONING if name in unread and _is_text(name, sample)):
            hint = (
                "train it as a turn's reasoning, e.g. spec.columns {messages: \"[{role: 'user', content: question},"
                f" {{role: 'assistant', content: answer, reasoning: {name}}}]\"}}"
            )
            return f"The column {name} is not read, and seems to belong to the answer: {hint}; {_INSIST}."
    return None


def _template_options(sample: Sequence[dict[str, Any]]) -> list[str]:
    """Options with a text or tools: a switch, as for thinking, is one of the run."""
    objects = [row[_OPTIONS] for row in sample if isinstance(row.get(_OPTIONS), dict)]
    return sorted({str(key) for options in objects for key, value in options.items() if value and value is not True})


def _verdict(unread: Collection[str], sample: Sequence[dict[str, Any]]) -> str | None:
    """Why a column that says whether an answer is good must not be left out."""
    for name in (name for name in _LABELS if name in unread):
        labels = {label_text(row[name]) for row in sample if has_value(row.get(name))}
        label = f"'pick({name}, {_WORDS})'" if labels <= _GOOD_WORDS | _BAD_WORDS else name
        if _MEANS_BAD.fullmatch(name) and labels <= {"true", "false", "1", "0"}:
            bad, good = ("true", "false") if labels <= {"true", "false"} else ("1", "0")
            label = f'\'pick({name}, {{"{bad}": `false`, "{good}": `true`}})\''
        if labels <= VERDICTS.keys() or label != name:
            hint = f"if it says whether an answer is good, set format: KTO and spec.columns {{label: {label}}}"
            return f"The column {name} is not read: {hint}; {_INSIST}."
    return None


def notes(
    entry: RowFormat, read: Collection[str], sample: Sequence[dict[str, Any]], fields: Sequence[dict[str, Any]]
) -> tuple[str, ...]:
    """What people should know of what is left out, by the first rows. Arguments as `problem`."""
    columns = Counter(name for row in sample for name, value in row.items() if has_value(value) and name not in read)
    keys = Counter(
        key
        for values in fields
        for key in {key for turn in _raw_turns(values) for key, value in turn.items() if has_value(value)}
        if key not in TURN_KEYS
    )
    sentences = []
    for name in columns if entry.name in _LEARNED_WHOLE else ():
        numbers = [row[name] for row in sample if isinstance(row.get(name), int | float)]
        if _GRADES.search(name.lower()) and len(set(numbers)) > 1:
            sentences.append(
                f"The column {_shown(name)} ({min(numbers)} to {max(numbers)}) is not read: every row counts the same,"
                " and answers with a low number are learned as those with a high one. Leave out the rows that are not"
                " good, or see formats KTO and Preference."
            )
    for good, bad in _graded_pairs(columns) if entry.name == Format.PREFERENCE else ():
        if worse := _exchanged(good, bad, sample):
            sentences.append(
                f"In {worse} of the first {counted(len(sample), 'row')} {_shown(bad)} is above {_shown(good)}."
            )
    written = [match for values in fields if (match := _WRITTEN_OUT.search(str(values.get("text"))))]
    if entry.name == Format.TEXT and 2 * len(written) > len(sample):
        sentences.append(
            f"In {len(written)} of the first {counted(len(sample), 'row')} the text seems to be a conversation, with"
            f" marks such as {written[0][0]}: all of it is learned, questions as well, and prompts of a served model"
            " have other marks. To train the answers alone, write {messages: [{role, content}]}."
        )
    ended = [values for values in fields if str(values.get("completion")).endswith(LEGACY_END)]
    if ended and entry.name == Format.PROMPT_COMPLETION:
        rows = counted(len(sample), "row")
        sentences.append(
            f"In {len(ended)} of the first {rows} the completion ends in {LEGACY_END}, which is left out: the model's"
            " own token ends an answer."
        )
    for what, counts in (("Columns", columns), ("Keys of turns", keys)):
        if counts:
            listed = [f"{_shown(name)} {100 * rows // len(sample)} %" for name, rows in counts.most_common(SHOWN)]
            names = ", ".join(listed) + (f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else "")
            sentences.append(f"{what} that are not read, with their share of the first rows: {names}.")
    return tuple(sentences)


def _shown(name: str) -> str:
    """A name, which can be text of a row: where that must stay out of the status, it does as well."""
    return quoted(name[:40])


def _raw_turns(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for role in ("messages", "conversations", "prompt", "completion", "chosen", "rejected"):
        turns = fields.get(role)
        for turn in turns if isinstance(turns, list) else [turns]:
            if isinstance(turn, dict):
                yield turn


def _graded_pairs(columns: Collection[str]) -> Iterator[tuple[str, str]]:
    """Columns with the grades of the chosen and the rejected answer."""
    for good in columns:
        bad = good.replace("chosen", "rejected")
        if good != bad and bad in columns and re.search("score|rating|reward|quality", good):
            yield good, bad


def _exchanged(good: str, bad: str, sample: Sequence[dict[str, Any]]) -> int:
    """Rows in which the rejected answer has the higher grade."""
    grades = [(row.get(good), row.get(bad)) for row in sample]
    return sum(isinstance(high, int | float) and isinstance(low, int | float) and low > high for high, low in grades)


def _says_more(name: str, sample: Sequence[dict[str, Any]], fields: Sequence[dict[str, Any]]) -> bool:
    """Whether the column is text that most of the rows do not have in what is read."""
    new = sum(
        bool(text := joined({"": row.get(name)}).strip()) and text not in joined({"": values})
        for row, values in zip(sample, fields, strict=True)
    )
    values = [row[name] for row in sample if has_value(row.get(name))]
    are_texts = 2 * sum(isinstance(value, str | list | dict) for value in values) > len(values)
    return are_texts and 2 * new > len(values)


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
