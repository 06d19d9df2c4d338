"""A chat template is a program of the model's author: it reads nothing, runs nothing, and ends."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.models.chat_templates import IM, byte_level, chat

from hone_api.words.failures import FailureCode
from hone_trainer.encoding import rendering
from hone_trainer.encoding.conversation import Encoder
from hone_trainer.encoding.row import RowRefusedError
from hone_trainer.encoding.split_file import NOT_NORMALISED
from hone_trainer.errors import ConfigError
from hone_trainer.run import launch

pytestmark = pytest.mark.trainer

CANARY = "CanaryOfTheEnvironment"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
SUBCLASSES = "().__class__.__base__.__subclasses__()"
POPEN = "__import__('os').popen('touch FILE')"
TEMPLATES = {
    "subclasses": f"{{{{ {SUBCLASSES} }}}}",
    "subclasses by attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "subclasses by a name in parts": "{{ ''|attr('__cl' ~ 'ass__') }}",
    "subclasses by index": "{{ ''['__class__']['__mro__'] }}",
    "subclasses by map": "{{ ['']|map(attribute='__class__')|list }}",
    "by a formatted attribute": "{{ '{0.__class__.__mro__}'.format('') }}",
    "by format_map": "{{ '{a.__class__.__init__.__globals__}'.format_map({'a': messages}) }}",
    "by the format filter": "{{ '%s'|format(messages.__class__) }}",
    "globals of raise_exception": f"{{{{ raise_exception.__globals__['__builtins__'].eval(\"{POPEN}\") }}}}",
    "globals of strftime_now": "{{ strftime_now.__globals__ }}",
    "globals of a filter": "{{ tojson.__globals__ }}",
    "globals of cycler": "{{ cycler.__init__.__globals__.os.popen('touch FILE') }}",
    "globals of joiner": "{{ joiner.__init__.__globals__.os.environ }}",
    "globals of namespace": "{{ namespace.__init__.__globals__.os.environ }}",
    "globals of lipsum": "{{ lipsum.__globals__.os.popen('touch FILE').read() }}",
    "self": "{{ self.__init__.__globals__ }}",
    "self's environment": "{{ self._TemplateReference__context.environment }}",
    "the loop's": "{% for m in messages %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "a macro's": "{% macro a() %}{% endmacro %}{{ a.__init__.__globals__ }}{{ a._func.__code__ }}",
    "a generator's frame": "{{ (messages|map('upper')).gi_frame.f_back }}",
    "the caught error's": "{{ undefined_name.__init__.__globals__ }}",
    "import": "{% import 'os' as os %}{{ os.popen('touch FILE') }}",
    "include": "{% include '/proc/self/environ' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "a changed list": "{{ messages.append(messages[0]) }}",
    "a changed dict": "{{ messages[0].update({'role': 'assistant'}) }}",
    "a large range": "{% for i in range(10**9) %}x{% endfor %}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
    "deep source": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "division": "{{ 1 // 0 }}",
    "overflow": "{{ 2.0 ** 100000 }}",
    "a width": "{{ '%0999999999999d' % 1 }}",
    "2 GiB at once": "{{ 'x' * 2**31 }}",
    "a doubled list": "{% set n = namespace(a='x') %}{% for i in range(40) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "more than memory": "{{ 'x' * 10**15 }}",
    "a long text": "{{ 'x' * (2**26 + 1) }}",
    "not a template": "{% for",
    "a power that C computes": "{{ (3**20000000) % 7 }}",
    "a power of a variable": "{% set n = namespace(a=3) %}{% for i in range(99) %}{% set n.a = n.a ** 9 %}{% endfor %}",
    "a power before a loop": "{{ (3**6000000) % 7 }}" + LOOPS,
    "a product of products": "{% set n = namespace(a=3) %}{% for i in range(99) %}{% set n.a = n.a*n.a %}{% endfor %}",
    "a long list": "{{ ([1] * 2**27)|sort|length }}",
}
SECONDS_OF_CPU = 20.0
"""Most that any of them may take; they take milliseconds."""
ENDLESS = {
    "nested loops": LOOPS,
    "a growing list": "{% set n = namespace(a=[1]) %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% set n.a = n.a[:9] + [b] %}{% endfor %}{% endfor %}",
    "nested macros": "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
    "slow constants before a loop": "{{ '" + "a " * 300_000 + "'|wordwrap(1)|wordcount }}" + LOOPS,
    "filters": "{% for a in range(99999) %}{% set b = range(99999)|map('string')|list %}{% endfor %}",
}


def encoder(template: str) -> Encoder:
    return Encoder(byte_level(IM, template, eos_token="<|im_end|>"))


@pytest.mark.attack("chat templates")
@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_runs_and_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """It is refused with the row, or it is text that reveals nothing."""
    monkeypatch.setenv("CANARY", CANARY)
    canary = tmp_path / "canary"
    made = encoder(TEMPLATES[case].replace("FILE", str(canary)) + "{{ messages[0].content }}")
    record, start = chat("What is a pod?", "A pod has containers."), time.process_time()
    try:
        rows = made.encode(record)
    except (RowRefusedError, ConfigError, *NOT_NORMALISED) as error:
        shown = str(error)
    else:
        shown = "".join(made.tokenizer.decode(row.input_ids) for row in rows)
    assert time.process_time() - start < SECONDS_OF_CPU
    assert not canary.exists()
    for secret in (CANARY, "root:x:", "environ(", "<class '", "__builtins__':"):
        assert secret not in shown
    assert record == chat("What is a pod?", "A pod has containers."), "the row is as it was"


@pytest.mark.attack("chat templates")
@pytest.mark.parametrize("case", ENDLESS)
def test_a_template_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.1)
    made, start = encoder(ENDLESS[case] + "{{ messages[0].content }}"), time.process_time()
    with pytest.raises(ConfigError, match="chat template took more than") as caught:
        made.encode(chat("What is a pod?", "A pod."))
    assert time.process_time() - start < SECONDS_OF_CPU
    assert caught.value.code == "UnsupportedModel"


def test_a_template_that_ends_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.2)
    assert rendering.bounded(lambda: 7) == 7
    total = 0
    for number in range(20_000_000):  # more than 0.2 s of CPU time
        total += number
    assert total


def test_a_signal_that_comes_at_the_end_leaves_no_limit_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer fires again and again; what it leaves behind would end the process in the middle of anything."""
    set_timer, handler = signal.setitimer, signal.getsignal(signal.SIGVTALRM)
    limit = resource.getrlimit(resource.RLIMIT_AS)

    def late(which: int, seconds: float, interval: float = 0.0) -> None:
        if not seconds:
            signal.raise_signal(signal.SIGVTALRM)
        set_timer(which, seconds, interval)

    def never_ends() -> None:
        signal.raise_signal(signal.SIGVTALRM)

    monkeypatch.setattr(signal, "setitimer", late)
    with pytest.raises(ConfigError, match="chat template took more than"):
        rendering.bounded(never_ends)
    assert [signal.getitimer(timer) for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)] == [(0.0, 0.0)] * 2
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
    assert signal.getsignal(signal.SIGVTALRM) == handler


IN_ONE_CALL = {
    "tuples that are compared": "{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}|{{ ns.a == ns.b }}",
    "a key that is hashed": "{% set ns.a = (ns.a, ns.a) %}|{{ {ns.a: 1} }}",
}


@pytest.mark.parametrize("case", IN_ONE_CALL)
def test_a_process_that_no_signal_reaches_is_ended_by_the_kernel(case: str) -> None:
    """Each level doubles what one call of C does, in which Python answers no signal."""
    nest, use = IN_ONE_CALL[case].split("|")
    template = f"{{% set ns = namespace(a=(1,), b=(1,)) %}}{{% for i in range(60) %}}{nest}{{% endfor %}}{use}"
    program = (
        "import sys\nfrom jinja2.sandbox import ImmutableSandboxedEnvironment\n"
        "from hone_trainer.encoding import rendering\nrendering.SECONDS = 0.2\n"
        "rendering.bounded(ImmutableSandboxedEnvironment().from_string(sys.argv[1]).render)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, template], capture_output=True)
    assert done.returncode == -signal.SIGPROF, done.stderr


def test_what_the_kernel_ended_is_reported_as_the_template() -> None:
    failure = launch.first_failure({}, {0: -signal.SIGPROF}, signalled=False)
    assert failure.code == FailureCode.UNSUPPORTED_MODEL
