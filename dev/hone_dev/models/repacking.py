"""bitsandbytes as on a processor with AVX512-BF16, where it repacks 4-bit weights, or as on one without.

    python -m hone_dev.models.repacking {repacked,plain} run plan.json

The rest of the arguments goes to `python -m hone_trainer`. `repacked` takes this processor's own instructions, where it
has them, and else the same steps in Python.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

PATHS = ("repacked", "plain")
BEFORE_AVX512 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
"""Environment in which torch and its libraries leave the instructions of newer processors alone."""
Replace = Callable[[Any, str, Any], None]


def has_instructions() -> bool:
    """Whether this processor has AVX512-BF16, and this build of bitsandbytes uses it."""
    from bitsandbytes.functional import has_avx512bf16

    return bool(has_avx512bf16())


def simulate(replace: Replace = setattr) -> None:
    """Have bitsandbytes repack 4-bit weights as with AVX512-BF16: marked as repacked, multiplied without autograd.

    Args:
        replace: as `setattr`; a test gives monkeypatch's.
    """
    from bitsandbytes import functional
    from bitsandbytes.nn import modules

    def repack(weight: Any, state: Any) -> tuple[Any, Any]:
        state.packing_format_for_cpu = True
        return weight, state

    def unpack(weight: Any, state: Any) -> tuple[Any, Any]:
        state.packing_format_for_cpu = False
        return weight, state

    def product(x: Any, weight: Any, out: Any = None, state: Any = None) -> Any:
        """Without autograd, as the real one."""
        return x.detach() @ functional.dequantize_4bit(weight.data, state).to(x.dtype).t()

    replace(modules, "has_avx512bf16", lambda: True)
    replace(modules, "_convert_weight_packed_for_cpu", repack)
    replace(modules, "_convert_weight_packed_for_cpu_inverse", unpack)
    replace(functional, "gemv_4bit", product)


def prevent(replace: Replace = setattr) -> None:
    """Have bitsandbytes believe that this processor has no AVX512-BF16."""
    from bitsandbytes.nn import modules

    replace(modules, "has_avx512bf16", lambda: False)


def main() -> int:
    """Run a command of the trainer on the path that is named first.

    Returns:
        The exit code.
    """
    path, *arguments = sys.argv[1:]
    if path not in PATHS:
        sys.exit(f"{path}: the paths are {', '.join(PATHS)}")
    if path == "plain":
        os.environ.update(BEFORE_AVX512)  # before torch is imported
        prevent()
    elif not has_instructions():
        simulate()
    from hone_trainer.__main__ import main as trainer

    return trainer(arguments)


if __name__ == "__main__":
    sys.exit(main())
