"""Run a Python program; after each optimiser step write the wall clock, the CPU time, both in seconds, and the peak of
the GPU's memory in bytes to a file.

    python bench/step_times.py STEPS_FILE (-m MODULE | SCRIPT) ARGUMENTS...

The program is not changed: the hook sits in transformers, under both sides of trainer_overhead.py alike.
"""

from __future__ import annotations

import runpy
import sys
import time
from pathlib import Path
from typing import Any


def install(path: Path) -> None:
    """Append a line to `path` whenever a transformers Trainer ends a step."""
    from transformers.trainer_callback import CallbackHandler

    file, original = path.open("w", buffering=1), CallbackHandler.on_step_end

    def on_step_end(self: CallbackHandler, *args: Any, **kwargs: Any) -> Any:
        on_gpu = gpu_peak()  # waits for the GPU, and so comes before the clock is read
        file.write(f"{time.time()} {time.process_time()} {on_gpu}\n")
        return original(self, *args, **kwargs)

    CallbackHandler.on_step_end = on_step_end


def gpu_peak() -> int:
    """Bytes of the GPU in use at the peak, with what is outside torch's allocator (the CUDA context, pages of a paged
    optimizer); nothing else may run there. 0 where no GPU is used. Waits until the GPU has done all it was given."""
    from torch import cuda

    if not cuda.is_initialized():
        return 0
    cuda.synchronize()
    free, total = cuda.mem_get_info()
    return total - free - cuda.memory_reserved() + cuda.max_memory_reserved()


if __name__ == "__main__":
    steps_file, *rest = sys.argv[1:]
    install(Path(steps_file))
    if rest[0] == "-m":
        sys.argv = rest[1:]
        runpy.run_module(rest[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = rest
        runpy.run_path(rest[0], run_name="__main__")
