"""Commands of the trainer, each in a fork of one process: what they import is imported once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


class Forks:
    """Runs commands in forks of `runs_in_forks`, which is started here."""

    def __init__(self, *modules: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()) -> None:
        """Return when the modules are imported.

        Args:
            environment: of that process; None: this process's own.
            within: a command that runs it.
        """
        program, pipe = str(Path(__file__).with_name("runs_in_forks.py")), subprocess.PIPE
        command = [*within, sys.executable, program, *modules]
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert self._line() == "ready"

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], output: Path, seconds: int = 0) -> int:
        """The exit code of `python -m hone_trainer ARGUMENTS`.

        Args:
            environment: to add.
            output: the file for all that is printed.
            seconds: until it is killed; 0 for never.
        """
        order = {"arguments": arguments, "environment": environment, "output": str(output), "seconds": seconds}
        assert self._process.stdin
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._line())

    def close(self) -> None:
        """Nothing runs any more."""
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "whoever runs commands has ended"
        return line.rstrip("\n")


def without_hub() -> dict[str, str]:
    """The environment of this process without what huggingface_hub reads from it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
