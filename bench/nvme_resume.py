"""Does a run of DeepSpeed with its optimizer on NVMe resume from a checkpoint? See docs/decisions/nvme-offload.md.

    make setup && .venv/bin/python bench/nvme_resume.py [--cpu-adam]

Ten steps of ZeRO stage 3 in float32 on one CPU rank, with a checkpoint after five; a second process resumes from it,
with an empty NVMe folder. Printed is the largest difference of the last five losses between the two, with the optimizer
in the host's memory and on NVMe, and with weights above and below the 1 MiB from which on DeepSpeed swaps. Exit code 1
when a difference exceeds 1e-3.

Needs g++ and libaio-dev (Debian): DeepSpeed compiles its operators in the first run, which takes minutes, and keeps
them in TORCH_EXTENSIONS_DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STEPS, SAVED, BOUND = 10, 5, 1e-3
WIDTHS = {"8 MiB": 1024, "128 KiB": 128}
"""Size of all trained weights: that of two square matrices of so many columns."""


def engine(width: int, device: str, nvme: Path, cpu_adam: bool) -> Any:
    """DeepSpeed's engine around a small random model, always the same one."""
    import deepspeed
    import torch
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # for several CPU ranks: minutes of compilation
    torch.manual_seed(0)
    matrices = [torch.nn.Linear(width, width, bias=False) for _ in range(2)]
    model = torch.nn.Sequential(matrices[0], torch.nn.Tanh(), matrices[1])
    make = DeepSpeedCPUAdam if cpu_adam else torch.optim.AdamW
    offload = {"device": device, "pin_memory": False, **({"nvme_path": str(nvme)} if device == "nvme" else {})}
    config = {
        "train_micro_batch_size_per_gpu": 8,
        "zero_optimization": {"stage": 3, "offload_optimizer": offload},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }
    return deepspeed.initialize(model=model, optimizer=make(model.parameters(), lr=1e-2), config=config)[0]


def train(folder: Path, width: int, device: str, cpu_adam: bool, resume: bool) -> None:
    """Train in this process, and write the losses by step to `folder`."""
    import torch

    nvme = folder / "nvme"
    shutil.rmtree(nvme, ignore_errors=True)
    nvme.mkdir()
    trained, losses = engine(width, device, nvme, cpu_adam), {}
    if resume:
        trained.load_checkpoint(str(folder / "checkpoint"))
    for step in range(SAVED if resume else 0, STEPS):
        torch.manual_seed(1 + step)
        rows = torch.randn(8, width)
        loss = (trained(rows) - rows.flip(1)).square().mean()
        trained.backward(loss)
        trained.step()
        losses[step] = loss.item()
        if not resume and step + 1 == SAVED:
            trained.save_checkpoint(str(folder / "checkpoint"))
    (folder / f"resumed-{resume}.json").write_text(json.dumps(losses))


def gap(root: Path, width: int, device: str, cpu_adam: bool) -> tuple[float, float, float]:
    """The uninterrupted and the resumed run's first loss after the checkpoint, and the largest difference of one.

    Raises:
        RuntimeError: a run failed; with the end of its output.
    """
    folder = Path(tempfile.mkdtemp(dir=root))
    curves = []
    for resume in (False, True):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        environment |= {"MASTER_PORT": str(port), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--run", json.dumps([str(folder), width, device, cpu_adam, resume])]
        ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"a run ended with {ended.returncode}:\n{(ended.stdout + ended.stderr)[-3000:]}")
        curves.append(list(json.loads((folder / f"resumed-{resume}.json").read_text()).values())[SAVED - STEPS :])
    whole, resumed = curves
    return whole[0], resumed[0], max(abs(ours - theirs) for ours, theirs in zip(whole, resumed, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-adam", action="store_true", help="DeepSpeedCPUAdam in place of torch's AdamW")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        folder, *rest = json.loads(args.run)
        train(Path(folder), *rest)
        return 0
    headings = ("weights", "optimizer in", "uninterrupted", "resumed", "largest difference", "held")
    table, held = Table(*headings), True
    with tempfile.TemporaryDirectory() as temporary:
        for size, width in WIDTHS.items():
            for device in ("cpu", "nvme"):
                whole, resumed, difference = gap(Path(temporary), width, device, args.cpu_adam)
                fits = difference <= BOUND
                held &= fits
                row = (f"{whole:.4f}", f"{resumed:.4f}", f"{difference:.1e}", "yes" if fits else "NO")
                table.add_row(size, device, *row)
    Console(width=120).print(table)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
