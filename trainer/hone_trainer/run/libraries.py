"""What a rank settles before its libraries are imported.

Large libraries that a run does not use: transformers, peft, accelerate and TRL import them where they are installed.
Without them a run begins two seconds of processor time earlier; bitsandbytes alone takes more than one second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hone_api.blocks.training import Optimizer
from hone_api.plan import TrainingPlan
from hone_trainer.models import adapters, merge_base


def hide_unused(plan: TrainingPlan) -> None:
    """For the rest of this process, libraries that the plan has no use for are as if they were not installed.

    For a process that carries out this plan alone. What was imported before stays.

    Args:
        plan: with absolute paths.
    """
    for name in unused(plan):
        cast(dict[str, Any], sys.modules).setdefault(name, None)  # `import` and `find_spec` take None for absent


def leave_out_peer_to_peer() -> None:
    """Let NCCL send through the host where consumer cards say that they reach each other directly, and cannot: those of
    the RTX 40 series under drivers before 550.40.07. accelerate refuses to begin with them, and looks after other cards
    as they come."""
    from accelerate.utils import check_cuda_p2p_ib_support

    if not check_cuda_p2p_ib_support():
        for name in ("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE"):
            os.environ.setdefault(name, "1")


def unused(plan: TrainingPlan) -> Iterator[str]:
    """Names of these libraries."""
    if plan.grpo is not None and find_spec("vllm") is not None:
        return  # TRL imports it, and it imports what it finds
    yield "boto3"  # rows and models were fetched before, and what comes out is delivered later
    if plan.harness_tasks is None:
        yield from ("scipy", "sklearn")  # else for losses of object detection alone
    if plan.deepspeed is None:
        yield "deepspeed"
    other = plan.compared_model
    folders = [plan.model_path, *(model.path for model in plan.models.values()), *([other.path] if other else [])]
    of_4_bits = other is not None and other.adapter is not None and merge_base.is_for_4_bits(Path(other.adapter.path))
    is_theirs = plan.training.optimizer not in (None, Optimizer.ADAMW)
    needs_them = is_theirs or of_4_bits or adapters.is_quantized(plan.adapter)
    if not needs_them and not any(map(_is_quantized, folders)):
        yield "bitsandbytes"


def _is_quantized(folder: str) -> bool:
    """Whether a model was saved with quantised weights."""
    try:
        return "quantization_config" in (Path(folder) / "config.json").read_text(errors="replace")
    except OSError:  # the run says what is wrong with the folder
        return False
