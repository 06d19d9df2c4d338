"""OpenAI's harmony format, of gpt-oss: an answer is messages in channels, and the model writes all of them.

After the prompt, which ends with `<|start|>assistant`, a served model writes

    <|channel|>analysis<|message|>reasoning<|end|><|start|>assistant    where it reasons
    <|channel|>final<|message|>answer<|return|>                         or
     to=functions.name<|channel|>commentary json<|message|>{…}<|call|>

https://developers.openai.com/cookbook/articles/openai-harmony. What it says before a call, the chat template takes for
reasoning; it shows reasoning of earlier turns only while the calls that it led to are not yet answered.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence

from hone_trainer.encoding import reasoning
from hone_trainer.encoding.tool_calls import Message
from hone_trainer.models.network import Tokenizer

QUESTION: list[Message] = [{"role": "user", "content": "a"}]
"""Before a turn, to see how the template writes it: otherwise than after calls, it is the same after all turns."""
_MESSAGE = re.compile(
    r"<\|channel\|>(\w*)[^<]*<\|message\|>(.*?)(?=<\|(?:start|channel|end|return|call)\|>|\Z)", re.DOTALL
)
_CALL = "<|call|>"
_TAIL = 8
"""Tokens of a prompt that show whether it ends with <think>."""


def is_template(template: str) -> bool:
    """Whether a chat template writes the format."""
    return all(mark in template for mark in ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", _CALL))


def says(text: str, turn: Message) -> bool:
    """Whether the text, from the end of the prompt to the last token, is the turn and nothing else."""
    calls, content = turn.get("tool_calls"), turn["content"]
    thought = turn.get("thinking") or (content if calls else "")
    start = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant" if thought else ""
    if not calls:
        return _plain(text) == _plain(f"{start}<|channel|>final<|message|>{content}<|return|>")
    call = calls[0]["function"]
    start = _plain(f"{start} to=functions.{call['name']}<|channel|>commentary json<|message|>")
    text = _plain(text)
    if len(calls) > 1 or not text.startswith(start) or not text.endswith(_CALL):
        return False
    try:
        return bool(json.loads(text[len(start) : -len(_CALL)]) == json.loads(_plain(json.dumps(call["arguments"]))))
    except ValueError:
        return False


def decoded(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """What an answer of a model says, without special tokens.

    It is the text that a row has, whether the prompt or the answer begins the reasoning: reasoning between <think> and
    </think>, then the answer. So people, judges and rewards read all models that reason alike.
    """
    answer_ids = list(ids)
    if is_template(str(tokenizer.chat_template or "")):
        parts = _MESSAGE.findall(tokenizer.decode(answer_ids, skip_special_tokens=False))
        thought = "\n\n".join(text for channel, text in parts if channel == "analysis")
        answer = "".join(text for channel, text in parts if channel != "analysis")
        if parts:
            end = "\n</think>\n\n" if answer else ""
            return f"<think>\n{thought}{end}{answer}" if thought else answer
    end_of_prompt = str(tokenizer.decode(list(prompt[-_TAIL:]), skip_special_tokens=False))
    return reasoning.as_row(end_of_prompt, str(tokenizer.decode(answer_ids, skip_special_tokens=True)))


def _plain(text: str) -> str:
    """In the Unicode form that tokenizers normalise to."""
    return unicodedata.normalize("NFC", text)
