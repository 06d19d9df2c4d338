"""The errors of the command line, and its exit codes."""

from __future__ import annotations

import errno
from enum import IntEnum

AGAIN = "run the same command again, it goes on with what is there"
"""The way out of what was interrupted."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk, or a person's share of it."""


class CliExit(IntEnum):
    """Exit codes of `hone`; `hone check` has those of the trainer."""

    DONE = 0
    FAILED = 1
    """The cluster does not answer, refuses, or has no such object; a file cannot be read."""
    USAGE = 2
    """An option or an argument is wrong."""
    REFUSED = 3
    """An object of a plan is refused."""
    DOES_NOT_FIT = 4
    """A job of a plan does not fit into its memory, or needs more than its budget."""
    RUN_FAILED = 5
    """The run that was watched has failed."""
    UNKNOWN_KEYS = 6
    """A converted configuration has keys that are not known."""
    UNHEALTHY = 7
    """A check of `hone doctor` failed."""


class CommandError(Exception):
    """An error for the person at the terminal: one sentence, with the way out. Nothing was half done."""


def printable(text: str) -> str:
    """The text on one line, without control characters: it can quote a pod's log, and a terminal would execute them."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
