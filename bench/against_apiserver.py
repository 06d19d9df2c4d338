"""The command of a benchmark that gives an API server a number of jobs: its options, its run, its exit code."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hone_dev.cluster.controlplane import Component, ControlPlane, control_plane

Figures = TypeVar("Figures")


def command(
    description: str | None,
    jobs: str,
    run: Callable[[int, Path, Path], Coroutine[Any, Any, Figures]],
    report: Callable[[Figures], bool],
    addons: Sequence[Callable[[ControlPlane], Component]] = (),
) -> int:
    """Measure and print; the exit code is 0 if all bounds are kept.

    Args:
        jobs: what --jobs counts, for the help.
        run: measures with a number of jobs, in a folder for logs and data, as the administrator of a kubeconfig.
        report: prints the figures, and returns whether the bounds are kept.
        addons: see `control_plane`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000, help=jobs)
    parser.add_argument("--keep", type=Path, help="folder for logs and data (default: temporary)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        with control_plane(folder, controllers=True, addons=addons) as kubeconfig:
            figures = asyncio.run(run(args.jobs, folder, kubeconfig))
    return 0 if report(figures) else 1
