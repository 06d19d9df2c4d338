"""Runs commands of the trainer, each in a fork of this process, which has imported the modules that are its arguments.

A program (see `forks`): it reads a JSON object from each line of stdin and answers with JSON. An object with
`arguments`, `environment` to add, the file for the `output`, the `seconds` until the command is killed (0: never), and
Python to execute `before` starts a command: the answer is its process id. `ended` with a process id asks for its exit
code; null while it runs. Once it is ready it writes the address of its server for work that is done apart.

What it imports does not see the libraries that most runs hide, see `hone_trainer.run.libraries`: forks do not run plans
with quantised weights.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from support.runs import forked_apart
from support.runs.forks import exit_code

from hone_trainer import __main__ as trainer
from hone_trainer.run import apart, launch

UNUSED = ("bitsandbytes", "boto3", "scipy", "sklearn")
"""A third of the processor time of all imports; forks find them again."""
JEMALLOC = "jemalloc_bg_thd"
"""Thread of pyarrow's allocator, which knows about forks."""


def main() -> None:
    """Answer until stdin ends."""
    os.environ.update(launch.OFFLINE)  # before the libraries, as in a run
    absent: dict[str, Any] = dict.fromkeys(UNUSED)
    sys.modules.update(absent)
    gc.disable()
    for module in sys.argv[1:]:
        import_module(module)
    gc.freeze()
    gc.enable()
    for name in UNUSED:
        del sys.modules[name]
    others = {int(task.name): (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    del others[os.getpid()]
    assert set(others.values()) <= {JEMALLOC}, f"a fork has one thread, this process has {others}"
    server = forked_apart.serve()
    apart.subprocess = forked_apart.started_by(server)
    print(server, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(exit_code(order["ended"]) if "ended" in order else started(order)), flush=True)
    shutil.rmtree(server.parent)


def started(order: dict[str, Any]) -> int:
    """The process id."""
    child = os.fork()
    if child == 0:
        signal.alarm(order["seconds"])
        run(order["arguments"], order["environment"], order["output"], order["before"])
    return child


def run(arguments: Sequence[str], environment: dict[str, str], output: str, before: str) -> None:
    """`python -m hone_trainer ARGUMENTS`; ends the process."""
    os.environ.update(environment)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(written, stream)
    exec(before, {})
    if ranks := sys.modules.get("support.runs.forked_ranks"):
        ranks.prepare()
    sys.exit(trainer.main(arguments))


if __name__ == "__main__":
    main()
