"""Real shells complete `hone`, by the scripts that `hone --install-completion` installs."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hone_dev.tools import packages

pytestmark = pytest.mark.e2e  # the shells are installed where they are absent, for which root is needed
HANG = 120  # seconds; a guard against hanging, not an expectation
ZSH = """\
PS1='$ '; autoload -Uz compinit; compinit -u; eval "$(_HONE_COMPLETE=source_zsh hone)"
written() { print -r -- "$BUFFER" > $WRITTEN.new; mv $WRITTEN.new $WRITTEN }; zle -N written; bindkey '^X' written
print it-is''-ready
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    packages.ensure(packages.SHELLS)
    program = tmp_path / "hone"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hone_cli "$@"\n')
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    return {"HOME": str(tmp_path), "TERM": "xterm", "WRITTEN": str(tmp_path / "line"), **path}


def in_bash(line: str, env: dict[str, str]) -> str:
    script = f'eval "$(_HONE_COMPLETE=source_bash hone)"; COMP_WORDS=({line}); COMP_CWORD=1; _hone_completion hone; '
    return printed(["bash", "-c", script + 'echo "${COMPREPLY[@]}"'], env)


def in_fish(line: str, env: dict[str, str]) -> str:
    script = f"_HONE_COMPLETE=source_fish hone | source; complete -C '{line}'"
    return printed([packages.SHELLS["fish"], "-N", "-c", script], env).partition("\t")[0]


def printed(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def in_zsh(line: str, env: dict[str, str]) -> str:
    """The line after Tab, which zsh completes on a terminal only."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(packages.SHELLS["zsh"], ["zsh", "-f", "-i"], env)
    try:
        os.write(terminal, ZSH.encode())
        seen = b""
        while b"it-is-ready" not in seen:
            seen += os.read(terminal, 2**16)
        os.write(terminal, f"{line}\t\x18".encode())
        threading.Thread(target=_drain, args=(terminal,), daemon=True).start()
        begun, written = time.monotonic(), Path(env["WRITTEN"])
        while not written.exists():
            assert time.monotonic() < begun + HANG
            time.sleep(0.05)
        return written.read_text().strip().removeprefix("hone ")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _drain(terminal: int) -> None:
    """Read what a shell draws, or it would wait."""
    with contextlib.suppress(OSError):  # it has ended
        while os.read(terminal, 2**16):
            pass
    os.close(terminal)


@pytest.mark.parametrize("shell", [in_bash, in_zsh, in_fish])
def test_a_shell_completes_the_name_of_a_command(shell, environment) -> None:
    assert shell("hone expl", environment) == "explain"
