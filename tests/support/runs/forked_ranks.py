"""The ranks of a run as forks of a process that has imported what they need, and knows nothing of their launcher."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from support.runs.forks import Fork, exit_code, name_of_rank
from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import SubprocessHandler

from hone_trainer.run import launch
from hone_trainer.signals import die_with_parent

PROGRAM = ["-u", "-m", "hone_trainer.run.launch"]
SET_NAME, SET_CHILD_SUBREAPER = 15, 36
"""Options of prctl(2)."""
PAUSE = 0.001


def prepare() -> None:
    """Have torch's agent in this process start ranks as forks of a child that is forked now.

    They are children of this process all the same, as those that the agent starts: it is their reaper.
    """
    ours, theirs = socket.socketpair()
    launcher = os.getpid()
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.fork() == 0:
        ours.close()
        die_with_parent(launcher)
        _serve(theirs, launcher)
    theirs.close()
    answers = ours.makefile()

    def popen(_: SubprocessHandler, command: tuple[str, ...], environment: dict[str, str]) -> Fork:
        ours.sendall(json.dumps([command, environment]).encode() + b"\n")
        return Fork(int(answers.readline()), exit_code)

    SubprocessHandler._popen = popen


def _serve(orders: socket.socket, launcher: int) -> NoReturn:
    """Answer each command with the process id of its rank."""
    lines = orders.makefile()
    for line in lines:
        told, tell = os.pipe()
        between = os.fork()  # when it ends, its child goes to the launcher
        if between == 0:
            rank = os.fork()
            if rank == 0:
                lines.close()
                orders.close()
                os.close(told)
                os.close(tell)
                _become_rank(*json.loads(line), launcher)
            os.write(tell, str(rank).encode())
            os._exit(0)
        os.waitpid(between, 0)
        orders.sendall(os.read(told, 20) + b"\n")
        os.close(told)
        os.close(tell)
    os._exit(0)


def _become_rank(command: list[str], environment: dict[str, str], launcher: int) -> NoReturn:
    *program, plan, folder = command[1:]
    assert program == PROGRAM, command
    os.setsid()
    while os.getppid() != launcher:
        time.sleep(PAUSE)
    os.environ.clear()
    os.environ.update(environment)
    ctypes.CDLL(None).prctl(SET_NAME, name_of_rank(int(environment["RANK"])).encode(), 0, 0, 0)
    sys.stdout.reconfigure(write_through=True)
    launch._rank_main(Path(plan), Path(folder))
    os._exit(1)
