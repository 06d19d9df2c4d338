"""Preference: a prompt with a chosen and a rejected answer. KTO: a prompt with an answer that is good or bad.

Read as TRL's documentation has them ("Dataset formats and types"), with the shapes of the public sets: prompt and
answers as texts or as turns; whole conversations whose common turns are the prompt; LLaMA-Factory's `conversations`
with a chosen and a rejected turn; Anthropic's transcripts ("\\n\\nHuman: …\\n\\nAssistant: …", github.com/anthropics/
hh-rlhf). An answer begins and ends with an assistant turn; the turns of tools and users in between are its context.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hone_trainer.datasets.formats import chat, sharegpt
from hone_trainer.datasets.formats import conversation as talk
from hone_trainer.datasets.formats.base import Fields, RowFormat
from hone_trainer.datasets.formats.tools import tools_of
from hone_trainer.datasets.formats.unread import VERDICTS
from hone_trainer.datasets.readers.rows import Record, RowError, label_text, optional_text, text_of

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_END = re.compile(r"""[.?!]["'”’»)\]*_]*\s+|[。？！]\s*|\n\s*""")
"""Where a sentence or a line may end."""
_GOES_ON = re.compile(r"[a-zß-ÿ0-9]")
"""What the rest begins with where a full stop, an exclamation mark or a line ended no sentence."""
_ABBREVIATED = re.compile(
    r"""(?:^|[\s(\["'])(?:[^\W\d]|(?:[^\W\d]{1,2}\.)+[^\W\d]{1,2}|approx|ave|bzw|ca|capt|cf|col|corp|dept|dipl|dr|dra"""
    r"|ed|eds|est|et al|etc|evtl|fig|figs|fr|gen|ggf|gov|hr|inc|ing|jr|lic|lt|ltd|max|min|mio|mlle|mme|mr|mrd|mrs|ms"
    r"|mt|nr|núm|op|pág|pp|prof|rep|resp|rev|sen|sgt|sog|sr|sra|srta|st|ste|tel|ud|uds|univ|usw|vgl|vol|vols|vs)$"
    r"|(?:^|\n)\d+$|\.$",
    re.IGNORECASE,
)
"""What stands before a full stop that need not end a sentence: initials, z.B, numbers of a list, two more full stops,
and the short forms of titles, letters and reports in English, German, Spanish and French."""


def _preference(fields: Fields) -> Record:
    chosen, rejected = _both(fields)
    question = fields.get("conversations", fields.get("prompt"))
    if isinstance(chosen, str) and isinstance(rejected, str) and not isinstance(question, list):
        return _checked(_texts(fields, chosen, rejected))
    prompt = _turns(question, "prompt", "user")
    good, bad = _turns(chosen, "chosen", "assistant"), _turns(rejected, "rejected", "assistant")
    if good[:1] and good[0]["role"] != "assistant":  # whole conversations, whatever else the prompt column has
        prompt, good, bad = _parted(good, bad)
    return _checked(
        {
            "prompt": _asked(prompt, fields),
            "chosen": _answer(good, "chosen"),
            "rejected": _answer(bad, "rejected"),
            **_tools(fields, good + bad + prompt),
        }
    )


def _kto(fields: Fields) -> Record:
    label = fields["label"]
    verdict = VERDICTS.get(label_text(label))
    if verdict is None:
        raise RowError("WrongLabel", f"label is {str(label)[:40]!r}, not true or false, 1 or 0, 1 or -1, good or bad")
    turns = fields.get("messages", fields.get("conversations"))
    if turns is not None:
        conversation = _turns(turns, "messages" if "messages" in fields else "conversations", "user")
        prompt, answer = conversation[:-1], conversation[-1:]
    elif isinstance(fields.get("completion"), list):
        prompt = _turns(fields.get("prompt"), "prompt", "user")
        answer = _turns(fields["completion"], "completion", "assistant")
    else:
        answer_text = text_of(fields.get("completion"), "completion")
        return {**_prompted(fields, text_of(fields.get("prompt"), "prompt"), completion=answer_text), "label": verdict}
    completion = _answer(answer, "the answer")
    return {
        "prompt": _asked(prompt, fields),
        "completion": completion,
        **_tools(fields, prompt + answer),
        "label": verdict,
    }


def _tools(fields: Fields, turns: Sequence[talk.Turn]) -> Record:
    """The row's tools, which know every call."""
    tools = tools_of(fields.get("tools"), "tools")
    talk.refuse_unknown_tools(turns, tools, "the row")
    return {"tools": tools} if tools else {}


def _both(fields: Fields) -> tuple[Any, Any]:
    answers = {name: fields.get(name) for name in ("chosen", "rejected")}
    missing = [
        name
        for name, value in answers.items()
        if value in (None, "", []) or (isinstance(value, str) and not value.strip())
    ]
    if len(missing) == 1:
        raise RowError("OneSided", f"{missing[0]} is missing or empty: a preference has two answers")
    if missing:
        raise RowError("MissingColumn", "chosen and rejected are missing or empty")
    return answers["chosen"], answers["rejected"]


def _texts(fields: Fields, chosen: str, rejected: str) -> Record:
    """Answers as texts: after a prompt, or each with the prompt before it."""
    text_of(chosen, "chosen")
    text_of(rejected, "rejected")
    if (prompt := optional_text(fields.get("prompt"), "prompt")) is not None:
        return _prompted(fields, prompt, chosen=chosen, rejected=rejected)
    if _SPEAKER.match(chosen) and _SPEAKER.match(rejected):
        question, good, bad = _parted(_transcript(chosen), _transcript(rejected))
        return {
            "prompt": _asked(question, fields),
            "chosen": _answer(good, "chosen"),
            "rejected": _answer(bad, "rejected"),
        }
    shared = _sentences(chosen, rejected)
    if not shared.strip():
        raise RowError(
            "NoCommonPrompt", "there is no prompt, and chosen and rejected do not begin with the same sentence or line"
        )
    return _prompted(fields, shared, chosen=chosen[len(shared) :], rejected=rejected[len(shared) :])


def _sentences(left: str, right: str) -> str:
    """What both begin with up to its last whole sentence or line: a prompt does not end in the middle of one."""
    shared = left[: _shared(left, right)]
    sentence_ends = ((match, match.end()) for match in _END.finditer(shared))
    ends = [end for match, end in sentence_ends if _is_end(match, left[end : end + 1] + right[end : end + 1])]
    return shared[: ends[-1]] if ends else ""


def _is_end(match: re.Match[str], rest: str) -> bool:
    """Whether a sentence or line ends here: with no abbreviation, and neither text continues it.

    Args:
        match: of `_END`.
        rest: what each of the two texts has next.
    """
    before, mark = match.string[: match.start()][-24:], match[0][0]
    if mark in "?。？！" or (mark == "\n" and before.endswith((":", "："))):
        return True
    return not _GOES_ON.search(rest) and not (mark == "." and _ABBREVIATED.search(before))


def _prompted(fields: Fields, prompt: str, **answers: str) -> Record:
    """A record of texts; of turns where there is a system text."""
    if optional_text(fields.get("system"), "system") is None:
        return {"prompt": prompt, **answers}
    turns = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
    return {"prompt": _asked([{"role": "user", "content": prompt}], fields), **turns}


def _turns(value: Any, what: str, role: str) -> list[talk.Turn]:
    """Turns of OpenAI's or of ShareGPT's form; a text, and a single turn, is a list of one."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": role, "content": text_of(value, what)}]
    turns = [value] if isinstance(value, dict) else value
    is_sharegpt = isinstance(turns, list) and turns and isinstance(turns[0], dict) and "from" in turns[0]
    return sharegpt.messages_of(turns, what) if is_sharegpt else chat.messages_of(turns, what)


def _transcript(text: str) -> list[talk.Turn]:
    parts = _SPEAKER.split(text)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[who], "content": text_of(words.strip(), f"what the {who} says")} for who, words in pairs]


def _parted(good: list[talk.Turn], bad: list[talk.Turn]) -> tuple[list[talk.Turn], list[talk.Turn], list[talk.Turn]]:
    """Prompt, chosen and rejected of two conversations; the prompt is the turns that both begin with.

    Where they part after an assistant turn, at what a tool or the user says, both answers begin with that turn, with
    weight 0: it is context, since nothing prefers it.
    """
    start = shared = _shared(good, bad)
    if not shared:
        raise RowError("NoCommonPrompt", "chosen and rejected do not begin with the same turn")
    first = [side[shared]["role"] for side in (good, bad) if len(side) > shared]
    if len(first) == 2 and first != ["assistant", "assistant"]:
        start = _last_answer(good[:shared])
    common = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in good[start:shared]]
    return good[:start], [*common, *good[shared:]], [*common, *bad[shared:]]


def _last_answer(turns: list[talk.Turn]) -> int:
    """Index of the last assistant turn; the number of turns where there is none."""
    return max((at for at, turn in enumerate(turns) if turn["role"] == "assistant"), default=len(turns))


def _shared(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How long both begin the same."""
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def _asked(prompt: list[talk.Turn], fields: Fields) -> list[talk.Turn]:
    """The prompt's turns, with the row's system text; the last one is not the assistant's."""
    system = optional_text(fields.get("system"), "system")
    if system is not None and not (prompt and prompt[0]["role"] == "system"):
        prompt = [{"role": "system", "content": system}, *prompt]
    if not any(turn["role"] == "user" for turn in prompt):
        raise RowError("NoUserTurn", "the prompt has no user turn")
    if prompt[-1]["role"] == "assistant":
        raise RowError("NoCommonPrompt", "the prompt ends with the assistant's turn: chosen or rejected says no more")
    return [_unweighted(turn) for turn in prompt]


def _answer(turns: list[talk.Turn], what: str) -> list[talk.Turn]:
    """The turns of an answer: one of the assistant, or several from one to another; those of weight 0 are context."""
    if not turns or turns[0]["role"] != "assistant":
        raise RowError("NoAssistantTurn", f"{what} is not an assistant turn")
    if len(turns) == 1:
        return [_unweighted(turns[0])]
    if turns[-1]["role"] != "assistant":
        raise RowError("SeveralTurns", f"{what} ends with a {turns[-1]['role']} turn, not with the assistant's")
    if turns[-1].get("weight") == 0:
        raise RowError("NothingTrained", f"the last turn of {what} has weight 0")
    return [{key: value for key, value in turn.items() if key != "name"} for turn in turns]


def _unweighted(turn: talk.Turn) -> talk.Turn:
    """The turn without its weight and name: a prompt is not trained, and a single turn is all of its answer."""
    return {key: value for key, value in turn.items() if key not in ("weight", "name")}


def _checked(record: Record) -> Record:
    if record["chosen"] == record["rejected"]:
        raise RowError("SameAnswers", "chosen and rejected are the same")
    for name in ("chosen", "rejected"):
        if isinstance(record[name], str):
            text_of(record[name], name)
    return record


def _has_both(fields: Fields) -> bool:
    return fields.get("chosen") is not None and fields.get("rejected") is not None


def _has_verdict(fields: Fields) -> bool:
    """A label alone is weak evidence: classification data also have one. A CSV has only texts."""
    answered = "messages" in fields or "conversations" in fields or {"prompt", "completion"} <= fields.keys()
    label = fields.get("label")
    return answered and label_text(label) in ("true", "false")


PREFERENCE = RowFormat(
    name="Preference",
    required=(),  # one of the two missing has a code of its own
    optional=("chosen", "rejected", "prompt", "conversations", "system", "tools"),
    convert=_preference,
    recognises=_has_both,
    why="chosen and rejected",
    by_columns=False,
    is_answered=True,
)
KTO = RowFormat(
    name="KTO",
    required=("label",),
    optional=("prompt", "completion", "messages", "conversations", "system", "tools"),
    convert=_kto,
    recognises=_has_verdict,
    why="an answer and a label true or false",
    by_columns=False,
    is_answered=True,
)
