"""Commands of the trainer, each in a fork of one process: what they import is imported once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RUN = (
    "hone_trainer.run.encode",
    "hone_trainer.run.pipeline",
    "hone_trainer.methods.sft",
    "hone_trainer.training.loop",
    "trl.trainer.sft_trainer",
    "peft",
    "transformers.models.llama.modeling_llama",
    "support.runs.forked_ranks",
)
"""What a run of SFT imports, and what starts ranks as forks."""
PAUSE = 0.01
"""Seconds between two looks whether a command has ended."""


class Fork:
    """A command that runs in a fork, as `subprocess.Popen` shows a process."""

    def __init__(self, pid: int, look: Callable[[int], int | None]) -> None:
        """
        Args:
            look: gives the exit code for the process id; None while it runs.
        """
        self.pid, self._look = pid, look
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None:
            self.returncode = self._look(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; TimeoutExpired after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if timeout is not None and deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(PAUSE)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def name_of_rank(rank: int) -> str:
    """What Linux calls its process. Its environment in /proc is that of the process it was forked from."""
    return f"rank {rank}"


def exit_code(child: int) -> int | None:
    """Of a child of this process; None while it runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


class Forks:
    """Runs commands in forks of `runs_in_forks`, which is started here."""

    def __init__(self, *modules: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()) -> None:
        """Return when the modules are imported.

        Args:
            environment: of that process; None: this process's own.
            within: a command that runs it.
        """
        pipe = subprocess.PIPE
        command = [*within, sys.executable, "-m", "support.runs.runs_in_forks", *modules]
        variables = dict(os.environ if environment is None else environment)
        folders = [str(Path(__file__).parents[2]), *filter(None, [variables.get("PYTHONPATH")])]
        variables["PYTHONPATH"] = os.pathsep.join(folders)
        self._process = subprocess.Popen(command, env=variables, stdin=pipe, stdout=pipe, text=True)
        self.apart = Path(self._line())
        """The address of a server for work that is done apart."""

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], output: Path, seconds: int = 0) -> int:
        """The exit code of `python -m hone_trainer ARGUMENTS`.

        Args:
            environment: to add.
            output: the file for all that is printed.
            seconds: until it is killed; 0 for never.
        """
        return self.start(arguments, environment, output, seconds=seconds).wait()

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: Path,
        *,
        seconds: int = 0,
        before: str = "",
    ) -> Fork:
        """The same, without waiting for its end.

        Args:
            before: Python to execute first in the fork.
        """
        pid = self._ask(
            arguments=arguments, environment=environment, output=str(output), seconds=seconds, before=before
        )
        return Fork(pid, lambda pid: self._ask(ended=pid))

    def close(self) -> None:
        """Nothing runs any more."""
        self._process.communicate()

    def _ask(self, **order: object) -> Any:
        assert self._process.stdin
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "whoever runs commands has ended"
        return line.rstrip("\n")


def without_hub() -> dict[str, str]:
    """The environment of this process without what huggingface_hub reads from it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
