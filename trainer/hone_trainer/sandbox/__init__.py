"""Code that nobody trusts, run apart: CPython in WebAssembly, in a process of its own.

What it may do is what it was given: compute, within its memory and its number of instructions. It has no network, no
files, no processes, no clock and no randomness but a repeatable one, so the same program gives the same result on any
machine and after any resume. `workers` is the way in; the rest runs on the other side.
"""

from __future__ import annotations

from hone_trainer.sandbox.messages import Limits, Program, Reply, Request
from hone_trainer.sandbox.workers import Workers

__all__ = ["Limits", "Program", "Reply", "Request", "Workers"]
