"""How a chat template is applied: within bounds, and on the day of the run.

A template is a program of the model's author: jinja's sandbox keeps it from code and files, and a limit keeps it from
running for ever or filling the pod's memory: an operator like '%99999999999d' would.

Templates of Llama 3 and gpt-oss print the date of today by `strftime_now`. Within `on_day` that is the day of the run,
so that a run that is resumed on another day has the same prompts.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from types import FrameType
from typing import Any

from hone_api.failures import FailureCode
from hone_trainer.errors import ConfigError
from hone_trainer.models.network import Tokenizer

SECONDS = 60.0
"""Longest rendering of one conversation, in seconds of CPU time; templates take milliseconds."""
MAX_CHARACTERS = 2**26
"""Longest conversation as text; a row has at most 2**24 bytes."""
MORE_BYTES = 2**30
"""Address space that one rendering may add to what the process has."""
_day: date | None = None


@contextmanager
def on_day(day: date | None) -> Iterator[None]:
    """Within, `strftime_now` of every template that `applied` renders is 00:00 of this day; None: what the clock says.

    It holds for all threads of the process: a process works for one run at a time.
    """
    global _day
    before, _day = _day, day
    try:
        yield
    finally:
        _day = before


def apply_template(tokenizer: Tokenizer, messages: list[Any], **options: Any) -> Any:
    """What `tokenizer.apply_chat_template` returns, within bounds and on the day of the run.

    Raises:
        ConfigError, MemoryError: see `bounded`.
        jinja2.TemplateError: the template's own.
    """
    with bounded():
        _set_day(tokenizer, options.get("tools"))
        return tokenizer.apply_chat_template(messages, **options)


def applied_to_all(
    tokenizer: Tokenizer, requests: Sequence[tuple[list[Any], dict[str, Any]]], tools: list[Any] | None
) -> list[list[str]]:
    """The texts of several conversations for each request, within the bounds of one.

    Args:
        requests: conversations, and options of the template.

    Raises:
        ConfigError, MemoryError: see `bounded`; MemoryError also for a text of more than `MAX_CHARACTERS`.
        jinja2.TemplateError: the template's own.
    """
    with bounded():
        _set_day(tokenizer, tools)
        rendered = [
            tokenizer.apply_chat_template(conversations, tools=tools, tokenize=False, **options)
            if conversations
            else []
            for conversations, options in requests
        ]
    if any(len(text) > MAX_CHARACTERS for texts in rendered for text in texts):
        raise MemoryError
    return rendered


def _set_day(tokenizer: Tokenizer, tools: list[Any] | None) -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    # Arguments cannot hold a function: transformers gives the template a text in its place.
    template = _compile_jinja_template(tokenizer.get_chat_template(tools=tools))
    template.environment.globals["strftime_now"] = _strftime


def _strftime(format: str) -> str:
    return (datetime.now() if _day is None else datetime.combine(_day, time())).strftime(format)


@contextmanager
def bounded() -> Iterator[None]:
    """Ends what is within after `SECONDS` of CPU time; without effect in other threads than the main one.

    Raises:
        ConfigError: UnsupportedModel, when the time is over.
        MemoryError: it wants more than `MORE_BYTES`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise ConfigError(
            f"the model's chat template took more than {SECONDS:.0f} s of CPU time for one conversation: it may "
            "loop for ever; look at chat_template.jinja of the model",
            FailureCode.UNSUPPORTED_MODEL,
        )

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + MORE_BYTES
    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _address_space() -> int:
    """Bytes of this process's address space, by proc(5)."""
    with open("/proc/self/statm", "rb", buffering=0) as file:  # for every row: a text file takes twice as long
        return int(file.read().split()[0]) * resource.getpagesize()
