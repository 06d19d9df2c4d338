"""`make test`: the tiers of checks, one after the other, each timed; what cannot run is said and fails.

A tier is left out only by name: `python -m hone_dev.tiers --skip e2e`.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MOST_WORKERS = 4
"""Each holds torch, or an API server of its own."""
LIGHT = ("tests/api", "tests/chart", "tests/cli", "tests/docs", "tests/gitops", "tests/monitoring", "tests/operator")
"""Whose pure tests need no package that trains: they run in the .venv of `make setup-light`."""


@dataclass(frozen=True)
class Tier:
    """Commands, and what stands in their way on this machine (None: nothing)."""

    name: str
    commands: Sequence[Sequence[str]]
    obstacle: Callable[[], str | None] = lambda: None
    by_name: bool = False
    """Runs only where it is named by --only."""


def _pytest(marker: str, workers: int = MOST_WORKERS, folders: Sequence[str] = ()) -> list[str]:
    parallel = ["-n", "logical", "--maxprocesses", str(workers), "--dist", "worksteal"] if workers > 1 else []
    command = [str(BIN / "python"), "-m", "pytest", "-q", "-m", marker, "--durations=25", "--durations-min=5"]
    return [*command, *parallel, *folders]


def _needs_linux() -> str | None:
    return None if platform.system() == "Linux" else "needs Linux: run it on a Linux machine"


def _needs_root() -> str | None:
    return _needs_linux() or (None if os.geteuid() == 0 else "needs root for containers and networks: run it as root")


TIERS = (
    Tier(
        "lint",
        (
            [str(BIN / "ruff"), "check", "."],
            [str(BIN / "ruff"), "format", "--check", "."],
            [str(BIN / "mypy")],
            [str(BIN / "lint-imports")],
            [str(BIN / "python"), "-m", "hone_api.generate", "--check"],
        ),
    ),
    Tier("pure", (_pytest("pure"),)),
    Tier("light", (_pytest("pure", folders=LIGHT),), by_name=True),
    Tier("apiserver", (_pytest("apiserver and not long"),), _needs_linux),
    Tier("trainer", (_pytest("trainer and not long"),)),
    Tier(
        "e2e",
        (_pytest("e2e and not alone and not long", workers=2), _pytest("e2e and alone", workers=1)),
        _needs_root,
    ),
    Tier("long", (_pytest("long", workers=2),), _needs_root, by_name=True),
)


def run(tier: Tier) -> bool:
    """Run one tier to its end, all commands even after one failed."""
    print(f"\n==> {tier.name}", flush=True)
    if reason := tier.obstacle():
        print(f"    cannot run here: {tier.name} {reason}, or leave it out by name: SKIP={tier.name}")
        return False
    start = time.monotonic()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    failed = [c for c in tier.commands if subprocess.run(c, cwd=ROOT, env=env).returncode != 0]
    for command in failed:
        print(f"    FAILED: {' '.join(command)}")
    print(f"    {tier.name}: {'failed' if failed else 'passed'} in {time.monotonic() - start:.0f} s", flush=True)
    return not failed


def main() -> int:
    """Exit code 0 only when every tier that was not left out passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [t.name for t in TIERS]
    parser.add_argument("--only", choices=names, action="append", help="run this tier (several allowed)")
    parser.add_argument("--skip", default="", help=f"tiers to leave out, by name, comma-separated: {', '.join(names)}")
    args = parser.parse_args()
    skip = [s for s in args.skip.split(",") if s]
    if unknown := set(skip) - set(names):
        parser.error(f"no such tier: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    tiers = [t for t in TIERS if (t.name in args.only if args.only else not t.by_name) and t.name not in skip]
    results = {t.name: run(t) for t in tiers}
    print("\n" + "  ".join(f"{name} {'ok' if ok else 'FAILED'}" for name, ok in results.items()))
    if skip:
        print(f"left out by name: {', '.join(skip)}")
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
