"""The closed list of reasons to refuse a row of a Dataset: what each means, and what to do about it.

One table for both sides: the trainer rejects rows with these codes, the operator puts the hints into the status.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowCode:
    """One code."""

    meaning: str
    """The problem of the row, as a sentence."""
    hint: str
    """What to do."""


ROW_CODES: dict[str, RowCode] = {
    # Reading
    "NotUTF8": RowCode(
        "The row is not UTF-8 text, or contains half of a surrogate pair or a NUL character.",
        "Save the file as UTF-8, e.g. iconv -f LATIN1 -t UTF-8.",
    ),
    "NotRows": RowCode(
        "The file has no rows: it is a web page, a PDF, an archive, or UTF-16 text.",
        "Open the file: the server may have sent a web page instead of the data. Save UTF-16 text, as PowerShell "
        "writes it, as UTF-8.",
    ),
    "BrokenJson": RowCode(
        "The line is not JSON. NaN, Infinity and duplicate keys are not allowed.",
        "Write one JSON object per line with a JSON library, e.g. Python's json.dumps.",
    ),
    "BrokenCsv": RowCode(
        "The line's number of fields differs from the header's, its quoting is broken, or it repeats the header.",
        "Write the file with a CSV library; quotes inside a field are doubled.",
    ),
    "BrokenFile": RowCode(
        "The file ends early, is damaged, or is a JSON array with a mistake; what follows is not read, and the Dataset"
        " fails.",
        "Download or write the file again, and name its sha256 in spec.source.",
    ),
    "RowTooLarge": RowCode(
        "The row is over 16 MiB.", "Split the row, or remove content that is not text, such as images."
    ),
    # Columns
    "WrongType": RowCode(
        "The row or one of its fields does not have the type that the format requires.",
        "Compare the row with the format's example.",
    ),
    "MissingColumn": RowCode(
        "A column that the format needs is absent or null.",
        "Map the columns in spec.columns, or fill the column in these rows.",
    ),
    "EmptyContent": RowCode("A required text is empty or only white space.", "Fill the text, or remove these rows."),
    "TooLong": RowCode(
        "The row is longer than checks.maxTokens.", "Shorten or split these rows, or raise checks.maxTokens."
    ),
    # Conversations
    "MissingMessages": RowCode(
        "The list of turns is absent or empty.",
        "Give messages with a user and an assistant turn, or map the column in spec.columns.",
    ),
    "UnknownRole": RowCode(
        "The format does not know the role of a turn.", "Use the roles system, user, assistant and tool."
    ),
    "MissingContent": RowCode(
        "A turn has neither content nor a tool call.", "Give the turn content, or remove the turn."
    ),
    "NoUserTurn": RowCode(
        "There is no user turn before the first assistant turn.", "Start with a user turn, after system turns."
    ),
    "NoAssistantTurn": RowCode(
        "The conversation has no assistant turn: nothing to learn.",
        "Add the answer. If another column has one that answers are checked by, set format: Verifiable and spec.columns"
        " {prompt: messages, answer: its name}.",
    ),
    "NothingTrained": RowCode(
        "Every assistant turn has weight 0: nothing to learn.", "Omit weight, or give one turn weight 1."
    ),
    "WrongWeight": RowCode(
        "A weight that is not 0 or 1, or a weight of 1 on a turn that is not the assistant's.",
        "Use weight 0 or 1, only on assistant turns.",
    ),
    "BrokenToolCall": RowCode(
        "A tool, a tool call or a tool's answer does not have the form of OpenAI's API.",
        "Give each call a function with name and JSON arguments, and each answer a call before it.",
    ),
    "UnknownTool": RowCode(
        "A tool call names a tool that the row's tools do not list.", "List the tool in tools, or correct its name."
    ),
    # Preferences
    "OneSided": RowCode(
        "A preference has only one answer: chosen or rejected is absent or empty.",
        "Give both answers. For single answers labelled good or bad, use format KTO.",
    ),
    "SameAnswers": RowCode("Chosen and rejected are the same.", "Remove these rows: they express no preference."),
    "NoCommonPrompt": RowCode(
        "Chosen and rejected do not answer the same prompt.", "Put the prompt into a separate column."
    ),
    "SeveralTurns": RowCode(
        "An answer with several turns does not end with an assistant turn.",
        "End the answer with an assistant turn, or remove the turns after the last one.",
    ),
    "WrongLabel": RowCode(
        "The label is none of those that the format, or pick(…) in spec.columns, knows.",
        "In format KTO, use true for a good answer and false for a bad one. Otherwise, add the label to pick(…), or"
        " remove these rows, e.g. ties.",
    ),
    "NotText": RowCode(
        "A turn has images or other content that is not text.", "Remove these rows: Hone trains only text."
    ),
    "UnsupportedField": RowCode(
        "The row has a field that Hone does not support and that would change its meaning, e.g. audio.",
        "Remove the field if it does not matter.",
    ),
    "UnknownDocument": RowCode(
        "The row of a RAFT set names a document that the source does not have.",
        "Write the document's id, its file's name, or the whole document into oracle.",
    ),
}
