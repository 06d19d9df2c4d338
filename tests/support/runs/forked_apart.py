"""Work that the trainer does apart, each in a fork of a process that has imported what it needs.

The process is what `python -m MODULE` becomes after 8 s of processor time: it has the arguments, environment, folder
and streams of that command, and ends with whoever started it.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from support.runs.forks import PAUSE, Fork, exit_code

from hone_trainer.signals import die_with_parent

STREAMS = (0, 1, 2)
LONGEST = 2**20
"""Bytes of an order, with its environment."""
ANSWER = 20
"""Bytes of a process id or an exit code."""


class ForkedApart(Fork):
    """A process that a server forks, with what `apart` asks of a `subprocess.Popen`."""

    def __init__(
        self, server: Path, command: Sequence[str], env: Mapping[str, str], streams: Sequence[int] = STREAMS
    ) -> None:
        python, option, module, *arguments = command
        assert (python, option) == (sys.executable, "-m"), command
        order = {"module": module, "arguments": arguments, "environment": dict(env), "folder": str(Path.cwd())}
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(str(server))
        sys.stdout.flush()
        sys.stderr.flush()
        socket.send_fds(self._connection, [json.dumps(order).encode()], streams)
        super().__init__(int(self._connection.recv(ANSWER)), self._ended)
        self._connection.setblocking(False)

    def _ended(self, _pid: int) -> int | None:
        try:
            return int(self._connection.recv(ANSWER))
        except BlockingIOError:
            return None


class ForkedWithPipes(ForkedApart):
    """The same with pipes for its input and output."""

    def __init__(self, server: Path, command: Sequence[str]) -> None:
        (read_here, write_there), (read_there, write_here) = os.pipe(), os.pipe()
        super().__init__(server, command, os.environ, (read_there, write_there, STREAMS[-1]))
        os.close(read_there)
        os.close(write_there)
        self.stdin, self.stdout = os.fdopen(write_here, "w"), os.fdopen(read_here)

    def __enter__(self) -> ForkedWithPipes:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdout, self.stdin):
            with suppress(BrokenPipeError):
                stream.close()
        self.wait()


def started_by(server: Path) -> SimpleNamespace:
    """What is to stand for `subprocess` in `apart`: its processes are forks of this server's."""
    return SimpleNamespace(Popen=lambda command, env: ForkedApart(server, command, env))


def serve() -> Path:
    """The address of a server that is forked from this process, and ends with it."""
    address = Path(tempfile.mkdtemp(prefix="hone-forks-")) / "apart"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(address))
    listener.listen(64)
    parent = os.getpid()
    if os.fork() == 0:
        die_with_parent(parent)
        for stream in STREAMS[:2]:  # pipes of this process: whoever reads them waits for their end
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        _serve(listener)
    listener.close()
    return address


def _serve(listener: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while True:
        connection, _ = listener.accept()
        server = os.getpid()
        if os.fork() == 0:
            die_with_parent(server)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _keep(connection)
        connection.close()


def _keep(connection: socket.socket) -> NoReturn:
    """Fork the process of an order, say how it ended, and end it if whoever gave the order is gone."""
    text, streams, _, _ = socket.recv_fds(connection, LONGEST, len(STREAMS))
    order = json.loads(text)
    process = os.fork()
    if process == 0:
        connection.close()
        _become(order, streams)
    connection.send(str(process).encode())
    while (code := exit_code(process)) is None:
        readable, _, _ = select.select([connection], [], [], PAUSE)
        if readable:
            os.kill(process, signal.SIGKILL)
            os._exit(0)
    connection.send(str(code).encode())
    os._exit(0)


def _become(order: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    for ours, theirs in zip(STREAMS, streams, strict=True):
        os.dup2(theirs, ours)
        os.close(theirs)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    given = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder for folder in given if folder and folder not in sys.path]
    sys.argv = ["-m", *order["arguments"]]
    warnings.filterwarnings("ignore", "'.*' found in sys.modules", RuntimeWarning)  # its imports are done
    code: Any = 0
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without collecting what was there before the fork: nanobind would report it
