"""Chat templates as models ship them: TRL's copies, and of others Axolotl's (tests/corpus/chat_templates), with a
tokenizer that has the control tokens of each."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from support.models.chat_templates import byte_level
from transformers import PreTrainedTokenizerFast

TRL = Path(str(getattr(find_spec("trl"), "origin", ""))).parent / "chat_templates"
AXOLOTL = Path(__file__).parents[2] / "corpus" / "chat_templates"
FILES = {path.stem: path for path in sorted([*TRL.glob("*.jinja"), *AXOLOTL.glob("*.jinja")])}
NAMES = [name for name in FILES if not name.endswith("_training")]
MARKED = [name for name in NAMES if f"{name}_training" in FILES]
"""Those of which TRL has a copy that marks what to train."""
_ENDS = {
    **dict.fromkeys(("aya", "cohere", "command"), "<|END_OF_TURN_TOKEN|>"),
    **dict.fromkeys(("gemma", "gemma3"), "<end_of_turn>"),
    **dict.fromkeys(("gemma4", "diffusion"), "<turn|>"),
    **dict.fromkeys(("idefics3", "smolvlm"), "<end_of_utterance>"),
    **dict.fromkeys(("llava", "mistral", "alpaca"), "</s>"),
    **dict.fromkeys(("llama3", "llama4"), "<|eot_id|>"),
    **{"deepseek": "<｜end▁of▁sentence｜>", "exaone": "[|endofturn|]", "falcon": "<|im_end|>", "glm4": "<|endoftext|>"},
    **{"gptoss": "<|return|>", "jamba": "<|endoftext|>", "metharme": "<|endoftext|>", "muse": "<|eot|>"},
    **{"phi3": "<|endoftext|>", "phi_4": "<|im_end|>"},
}
_BEGINS = {
    **dict.fromkeys(("aya", "cohere", "command"), "<BOS_TOKEN>"),
    **dict.fromkeys(("gemma", "diffusion"), "<bos>"),
    **dict.fromkeys(("llama", "muse"), "<|begin_of_text|>"),
    **dict.fromkeys(("llava", "mistral", "phi3"), "<s>"),
    **{
        "deepseek": "<｜begin▁of▁sentence｜>",
        "lfm2": "<|startoftext|>",
        "falcon": "<|begin_of_text|>",
        "jamba": "<|startoftext|>",
    },
}
_CONTROL = re.compile(
    r"<\|[A-Za-z_0-9\"]+\|?>|<[a-z_]+\|>|<｜[^｜]+｜>|\[\|\w+\|\]|\[/?[A-Z]+(?:_[A-Z]+)*\]|\[gMASK\]|<sop>|</?s>"
    r"|<(?:start|end)_of_\w+>|<fake_token_around_image>"
)
_PLAIN = re.compile(r"</?(?:think|tool_call|tool_response|arg_key|arg_value|atem:function_calls)>")
"""In the vocabularies of their models, and not special."""


@cache
def tokenizer(name: str) -> PreTrainedTokenizerFast:
    """One that has the template and its control tokens."""
    text = FILES[name].read_text()
    source = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    names = {"eos_token": _first(_ENDS, name) or "<|im_end|>"}
    if begin := _first(_BEGINS, name):
        names["bos_token"] = begin
    special = {*_CONTROL.findall(source), *names.values()}
    if "deepseek" in name:
        special |= {"<｜User｜>", "<｜Assistant｜>"}
    return byte_level(sorted(special), text, tuple(sorted(set(_PLAIN.findall(source)))), **names)


def _first(by_family: dict[str, str], name: str) -> str | None:
    fits = [family for family in by_family if name.startswith(family)]
    return by_family[max(fits, key=len)] if fits else None


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def says(answer: str, reasoning: str = "", *calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An assistant's turn as rows have it."""
    content = f"<think>\n{reasoning}\n</think>\n\n{answer}" if reasoning else answer
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def call(**arguments: Any) -> dict[str, Any]:
    return {"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def result(content: str) -> dict[str, Any]:
    return {"role": "tool", "content": content, "name": "weather", "tool_call_id": "call00001"}


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Forecast",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "City"},
                "days": {"type": "integer", "description": "Days"},
            },
            "required": ["city"],
        },
    },
}
ASK, THOUGHT = user("What is the capital of France?"), "France is a country;\nits capital is old."
WARM = user("Is it warm in Rome?")
ROME, BERN = call(city="Rome", days=2), call(city="Bern", days=3)
OTHER_TYPES = {"warm": True, "none": None, "list": ["a"], "deep": {"k": 1.5}}
CONVERSATIONS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "Plain": {
        "one": [ASK, says("Paris.")],
        "three": [user("hi"), says("hello you"), user("1 + 2 = ?"), says("3"), user("stop"), says("never\nstop")],
        "unicode": [user("你好 🙂"), says("e\u0301té 👩‍👩‍👧 \u00a0x")],
        "code": [user("code?"), says("```python\ndef f(x):\n    return x < 3\n```\n\nDone  .")],
        "markup": [user("html?"), says("<b>bold</b> [x](y) {{ z }} {% if %} & \\n")],
        "spaces": [user(" hi "), says("  hello  ")],
        "line breaks": [user("hi"), says("\n\nhello\n\n")],
        "long": [user("x " * 300), says("y " * 300 + "z")],
        "unanswered": [user("hi"), says("hello"), user("unanswered")],
        "weight 0": [user("hi"), says("hello", weight=0), user("more"), says("Aye.")],
    },
    "System": {
        "one": [system("Answer as a pirate."), user("hi"), says("Ahoy.")],
        "two": [system("Answer as a pirate."), user("hi"), says("Ahoy."), user("more"), says("Aye, aye.")],
        "long": [system("Be kind. " * 100), user("hi"), says("Ahoy.")],
    },
    "Reasoning": {
        "one": [ASK, says("Paris.", THOUGHT)],
        "two": [user("hi"), says("hello", "Greet them."), ASK, says("Paris.", THOUGHT)],
        "unicode": [ASK, says("Été 🙂", "你好, e\u0301té")],
        "lines": [ASK, says("1.\n\n2.", "First.\n\nSecond:\n  - third")],
    },
    "Reasoning, some turns": {
        "first": [user("hi"), says("hello", "Greet them."), ASK, says("Paris.")],
        "last": [user("hi"), says("hello"), ASK, says("Paris.", THOUGHT)],
    },
    "Tools": {
        "unused": [user("hi"), says("hello")],
        "call": [WARM, says("", "", call(city="Rome", days=2))],
        "answered": [WARM, says("", "", ROME), result('{"degrees": 31}'), says("Yes, 31 degrees.")],
        "quotes": [WARM, says("", "", call(city="O'Hara \"x\"\nZé \\ y", days=2)), result("31"), says("Found.")],
        "types": [WARM, says("", "", call(city="Rome", **OTHER_TYPES)), result("31"), says("Found.")],
    },
    "Content and calls": {
        "one": [WARM, says("I look it up.", "", call(city="Rome")), result("31"), says("Yes.")],
    },
    "Two calls": {
        "one": [user("Rome and Bern?"), says("", "", ROME, BERN), result("31"), result("12"), says("Rome is warm.")],
    },
    "System and tools": {
        "one": [system("Use tools."), WARM, says("", "", call(city="Rome")), result("31"), says("Yes.")],
    },
    "Reasoning and calls": {
        "one": [WARM, says("", "Look it up.", call(city="Rome", days=2)), result("31"), says("Yes.", "31 is warm.")],
    },
}  # fmt: skip
CASES = [(kind, title) for kind, cases in CONVERSATIONS.items() for title in cases]


def record(kind: str, title: str) -> dict[str, Any]:
    """A normalised row."""
    tools = {"tools": [WEATHER]} if "Tools" in kind or "alls" in kind or "tools" in kind else {}
    return {"messages": CONVERSATIONS[kind][title], **tools}
