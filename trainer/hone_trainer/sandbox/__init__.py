"""Runs untrusted code: CPython in WebAssembly, in a process of its own.

A program can compute, within limits of memory and instructions. It has no network, no files, no processes, no clock
and only repeatable randomness, so the same program gives the same result on any machine and after any resume.
`workers` is the entry point; the other modules run in the worker process.
"""

from __future__ import annotations

from hone_trainer.sandbox.messages import ExecutionLimits, Program, Reply, WorkerRequest
from hone_trainer.sandbox.workers import SandboxWorkers

__all__ = ["ExecutionLimits", "Program", "Reply", "SandboxWorkers", "WorkerRequest"]
