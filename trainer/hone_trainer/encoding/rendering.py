"""How a chat template is applied: within bounds, on the day of the run, with its switch for thinking.

A template is a program of the model's author: jinja's sandbox keeps it from code and files, and a limit keeps it from
running for ever or filling the pod's memory: an operator like '%99999999999d' would. Operators whose result can be
large in one step of C, in which no signal is handled, have bounds of their own.

Templates of Llama 3 and gpt-oss print the date of today by `strftime_now`. Within `of_run` that is the day of the run,
so that a run that is resumed on another day has the same prompts. Templates of models that can reason have a switch for
it, whose state is `training.thinking`; with Auto the template gets none, so prompts are those that a server makes.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from functools import cache, lru_cache
from types import FrameType
from typing import Any, TypeVar

from hone_api.blocks.training import thinking_switches
from hone_api.words.failures import FailureCode
from hone_trainer.errors import ConfigError
from hone_trainer.models.network import Tokenizer

SECONDS = 60.0
"""Longest rendering of one conversation, in seconds of CPU time; templates take milliseconds."""
MAX_CHARACTERS = 2**26
"""Longest conversation as text; a row has at most 2**24 bytes."""
MORE_BYTES = 2**30
"""Address space that one rendering may add to what the process has."""
_BITS = 2**16
"""Of the largest integer that a power or a product may give."""
_T = TypeVar("_T")
_day: date | None = None
_thinking = "Auto"


@contextmanager
def of_run(day: date | None, thinking: str) -> Iterator[None]:
    """Within, every template is rendered as for this run.

    It holds for all threads of the process: a process works for one run at a time.

    Args:
        day: `strftime_now` of templates is 00:00 of it; None: what the clock says.
        thinking: see `training.thinking`.
    """
    global _day, _thinking
    before, _day, _thinking = (_day, _thinking), day, thinking
    try:
        yield
    finally:
        _day, _thinking = before


def switched(tokenizer: Tokenizer, thinking: str, tools: list[Any] | None = None) -> dict[str, bool]:
    """The variables of the tokenizer's chat template that `training.thinking` sets; servers need the same."""
    states = thinking_switches(thinking)
    if not states or not tokenizer.chat_template:
        return {}
    read = _variables(tokenizer.get_chat_template(tools=tools))
    return {name: state for name, state in states.items() if name in read}


def with_default(template: str, thinking: str) -> str:
    """A chat template whose switch is in this state unless a request sets it, by either name."""
    states = thinking_switches(thinking)
    names = sorted(states.keys() & _variables(template)) if states else []
    if not names:
        return template
    unset = " and ".join(f"{name} is not defined" for name in names)
    default = "".join(f"{{%- set {name} = {str(states[name]).lower()} %}}" for name in names)
    border = "\n" if template[0].isspace() else ""  # jinja takes one line break after a block
    return f"{{%- if {unset} %}}{default}{{%- endif %}}{border}{template}"


@lru_cache(maxsize=8)
def _variables(template: str) -> set[str]:
    """Names that a chat template expects to be given."""
    from jinja2.meta import find_undeclared_variables
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return find_undeclared_variables(_compile_jinja_template(template).environment.parse(template))


def apply_template(tokenizer: Tokenizer, messages: list[Any], **options: Any) -> Any:
    """What `tokenizer.apply_chat_template` returns, within bounds and as for the run.

    Raises:
        ConfigError, MemoryError: see `bounded`.
        jinja2.TemplateError: the template's own.
    """

    def rendered() -> Any:
        _set_day(tokenizer, tools := options.get("tools"))
        return tokenizer.apply_chat_template(messages, **switched(tokenizer, _thinking, tools), **options)

    return bounded(rendered)


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

    def rendered() -> list[list[str]]:
        _set_day(tokenizer, tools)
        switches = switched(tokenizer, _thinking, tools)
        return [
            tokenizer.apply_chat_template(conversations, tools=tools, tokenize=False, **switches, **options)
            if conversations
            else []
            for conversations, options in requests
        ]

    texts_of_all = bounded(rendered)
    if any(len(text) > MAX_CHARACTERS for texts in texts_of_all for text in texts):
        raise MemoryError
    return texts_of_all


@cache
def _bound_operators() -> None:
    """Replace operators in the sandbox that transformers compiles templates for."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers.utils.chat_template_utils import _compile_jinja_template

    operators = {"**": _power, "*": _product}
    ImmutableSandboxedEnvironment.intercepted_binops = frozenset(operators)
    ImmutableSandboxedEnvironment.default_binop_table = {
        **ImmutableSandboxedEnvironment.default_binop_table,
        **operators,
    }
    _compile_jinja_template.cache_clear()


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > _BITS:
        raise OverflowError
    return base**exponent


def _product(left: Any, right: Any) -> Any:
    for factor, times in ((left, right), (right, left)):
        if (
            isinstance(factor, str | bytes | list | tuple)
            and isinstance(times, int)
            and len(factor) * times > MAX_CHARACTERS
        ):
            raise MemoryError
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _BITS:
        raise OverflowError
    return left * right


def _set_day(tokenizer: Tokenizer, tools: list[Any] | None) -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    _bound_operators()
    # Arguments cannot hold a function: transformers gives the template a text in its place.
    template = _compile_jinja_template(tokenizer.get_chat_template(tools=tools))
    template.environment.globals["strftime_now"] = _strftime


def _strftime(format: str) -> str:
    return (datetime.now() if _day is None else datetime.combine(_day, time())).strftime(format)


class _TimeOver(BaseException):
    """Not an Exception: jinja catches each of them while it computes constants."""


def bounded(work: Callable[[], _T]) -> _T:
    """What `work` gives; it is ended after `SECONDS` of CPU time, but in other threads than the main one.

    Python answers no signal within one call of C, e.g. a comparison of lists that are in each other many times over. So
    after three times that long, the kernel ends the process by SIGPROF, which nothing else here sends.

    Not a context manager: a signal that Python answers while it leaves one would leave the timers and the limit set.

    Raises:
        ConfigError: UnsupportedModel, when the time is over.
        MemoryError: it wants more than `MORE_BYTES`.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    running = True

    def over(number: int, frame: FrameType | None) -> None:
        if running:
            raise _TimeOver

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + MORE_BYTES
    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, SECONDS / 10)  # again: a library may go on after the first
    signal.setitimer(signal.ITIMER_PROF, 3 * SECONDS)
    if soft == resource.RLIM_INFINITY or most < soft:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        try:
            return work()
        finally:
            running = False  # before any call: a signal is answered at the end of one
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            signal.signal(signal.SIGVTALRM, before)
    except _TimeOver:
        raise endless() from None


def endless() -> ConfigError:
    """The failure of a template that does not end; of a process that SIGPROF ended as well."""
    return ConfigError(
        f"the model's chat template took more than {SECONDS:.0f} s of CPU time for one conversation: it may "
        "loop for ever; look at chat_template.jinja of the model",
        FailureCode.UNSUPPORTED_MODEL,
    )


def _address_space() -> int:
    """Bytes of this process's address space, by proc(5)."""
    with open("/proc/self/statm", "rb", buffering=0) as file:  # for every row: a text file takes twice as long
        return int(file.read().split()[0]) * resource.getpagesize()
