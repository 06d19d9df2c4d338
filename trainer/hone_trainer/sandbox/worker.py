"""A worker: `python -m hone_trainer.sandbox.worker SECONDS`. It reads requests as JSON lines on standard input and
writes replies to standard output. It has no secret in its environment, and the process that started it kills it if it
does not answer.

SECONDS is the CPU time of a request that counts no instructions.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hone_trainer.sandbox.confinement import confine
from hone_trainer.sandbox.messages import Reply

MEMORY_BYTES = 2 * 2**30
"""A worker's private memory, including the program's."""


Kind = Callable[[dict[str, Any]], Reply]
"""Answers request bodies of one kind."""


def _python() -> Kind:
    from hone_trainer.sandbox.guest import Guest

    return Guest().run


def _mathematics() -> Kind:
    from hone_trainer.sandbox.mathematics import equal

    return lambda body: Reply("Done", equal(body["gold"], body["answer"]))


def _json_schema() -> Kind:
    from hone_trainer.sandbox.jsonschema import is_valid

    return lambda body: Reply("Done", is_valid(body["schema"], body["instance"]))


KINDS: dict[str, Callable[[], Kind]] = {
    "python": _python,
    "mathematics": _mathematics,
    "jsonSchema": _json_schema,
}
"""Loads each kind."""
LOAD = "load"
"""The kind of a request that loads another kind, which can take a while. Its value: the layers of confinement that
this machine lacks."""
COUNTS_NO_INSTRUCTIONS = frozenset({"mathematics", "jsonSchema"})
"""Kinds whose requests have a limit of CPU time."""


def _confine() -> list[str]:
    """No core dumps, bounded memory, first to be killed if the pod's memory runs out, no network, no foreign files.

    Returns:
        See `confinement.confine`.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # not Linux, or not allowed
        file.write("1000")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasmtime"
    with contextlib.suppress(OSError):  # a read-only home: the interpreter is compiled each time
        cache.mkdir(parents=True, exist_ok=True)
    return confine((cache,))


@functools.cache
def _loaded(kind: str) -> Kind:
    return KINDS[kind]()


def _answer(kind: str, body: dict[str, Any], missing: list[str], cpu_seconds: float) -> Reply:
    try:
        if kind == LOAD:
            return _load(body["kind"], missing)
        answer = _loaded(kind)
        _set_timers(cpu_seconds if kind in COUNTS_NO_INSTRUCTIONS else 0)
        return answer(body)
    except MemoryError:
        return Reply("Failed", message="it needs too much memory")
    except RecursionError:
        return Reply("Failed", message="it is nested too deep")
    except TimeoutError:
        return Reply("Failed", message="it takes too long")
    except Exception as error:
        # Its text can quote input, and a reason goes to the log and the status: only its type is reported.
        return Reply("Broken", message=f"{type(error).__name__} in the sandbox")
    finally:
        _set_timers(0)


def _load(kind: str, missing: list[str]) -> Reply:
    try:
        _loaded(kind)
        return Reply("Done", missing)
    except Exception as error:  # nothing of a user's has been read yet
        return Reply("Broken", message=f"{type(error).__name__}: {error}"[:500])


def _set_timers(seconds: float) -> None:
    """Set timers of CPU time; 0 switches them off. The first raises TimeoutError, the second ends the process: a long
    computation in C does not notice the first."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.5 * seconds)


def _too_long(_signal: int, _frame: object) -> None:
    raise TimeoutError


def main(cpu_seconds: float) -> None:
    """Answer until standard input ends."""
    missing = _confine()
    signal.signal(signal.SIGPROF, _too_long)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is not a reply
    for line in sys.stdin:
        request = json.loads(line)
        reply = _answer(request["kind"], request["body"], missing, cpu_seconds)
        print(json.dumps(asdict(reply)), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
