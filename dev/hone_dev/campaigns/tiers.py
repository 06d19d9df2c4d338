"""`make test`: the tiers of checks, each timed; what cannot run is said and fails.

Tiers that compute run at a low priority next to those that mostly wait for pods and API servers, and use what these
leave idle. Programs and images are made meanwhile. Tests that compare the whole machine run after all others. A tier is
left out only by name:
`python -m hone_dev.campaigns.tiers --skip e2e`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hone_dev.campaigns import lanes
from hone_dev.campaigns.lanes import Lane

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
MOST_WORKERS = 4
"""Each holds torch, or an API server of its own."""
BY_FILE = ("loadscope", "--no-loadscope-reorder")
"""Each worker takes the next file, whose tests share what takes long to set up: the longest ones, which come first,
never end alone."""
GIVE_UP = "--maxfail=8"
"""A cluster that does not work fails every test, each after minutes of waiting."""
KEEP = ("env", "HONE_KEEP_CLUSTER=1")
"""Leaves the cluster to what runs next."""
LOW = 10
"""Niceness of what computes."""
LIGHT = tuple(
    f"tests/{part}" for part in ("api", "chart", "cli", "docs", "gitops", "monitoring", "operator", "trainer")
)
"""Whose pure tests run in the .venv of `make setup-light`, except for those with the mark torch."""


@dataclass(frozen=True)
class Tier(lanes.Work):
    """Work with a name that people type."""

    by_name: bool = False
    """Runs only where it is named by --only."""
    cluster: bool = False
    """Runs the programs of Kubernetes, which are compiled here."""
    waits: bool = False
    """Mostly for pods and API servers: a core or more is idle meanwhile."""
    alone: lanes.Work | None = None
    """The part of it that runs after the rest of it."""
    last: lanes.Work | None = None
    """The part of it that runs when nothing else does."""
    images: bool = False
    """Runs the images of Hone, which are built here."""

    def needed(self) -> tuple[str, ...]:
        """Names of the work that makes what it runs."""
        return tuple(made for made, used in (("programs", self.cluster), ("images", self.images)) if used)


def _pytest(
    marker: str, workers: int = MOST_WORKERS, more: Sequence[str] = (), dist: Sequence[str] = ("worksteal",)
) -> list[str]:
    parallel = ["-n", "logical", "--maxprocesses", str(workers), "--dist", *dist] if workers > 1 else []
    command = [str(BIN / "python"), "-m", "pytest", "-q", "-m", marker, "--durations=25", "--durations-min=5"]
    return [*command, *parallel, *more]


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
    Tier("pure", (_pytest("pure and not long"),)),
    Tier("light", (_pytest("pure and not long and not torch", more=LIGHT),), by_name=True),
    Tier("trainer", (_pytest("trainer and not long"),)),
    Tier(
        "e2e",
        (_pytest("e2e and not alone and not machine and not long", workers=2, more=[GIVE_UP], dist=BY_FILE),),
        _needs_root,
        cluster=True,
        waits=True,
        alone=lanes.Work("e2e-alone", ([*KEEP, *_pytest("e2e and alone and not long", workers=1, more=[GIVE_UP])],)),
        last=lanes.Work("e2e-machine", (_pytest("e2e and machine", workers=1, more=[GIVE_UP]),)),
        images=True,
    ),
    # After e2e, whose tests that run alone leave cores idle: the tiers that compute use these only while they run.
    Tier("apiserver", (_pytest("apiserver and not long"),), _needs_linux, cluster=True, waits=True),
    Tier(
        "long",
        (_pytest("long and not alone and not outside and not gitops", workers=2),),
        _needs_root,
        by_name=True,
        last=lanes.Work("long-alone", (_pytest("long and alone", workers=1),)),
    ),
    # Lists that others keep: each case of them is a test, so most of the time is small models and templates.
    Tier("outside", (_pytest("outside", workers=2),), _needs_linux, by_name=True, cluster=True),
    # Argo CD and Flux take a quarter of an hour to compile.
    Tier("gitops", (_pytest("gitops", workers=1),), _needs_linux, by_name=True, cluster=True),
)

PROGRAMS = Tier("programs", ([str(BIN / "python"), "-m", "hone_dev", "cluster", "programs"],), _needs_linux)
"""Minutes where nothing is cached, so it begins at once; a tier that comes to need the programs waits for it."""
IMAGES = Tier("images", ([str(BIN / "python"), "-m", "hone_dev", "images", "prepare"],), _needs_root)
"""Minutes where libraries have changed, so it begins before the tier that runs them."""


def planned(chosen: Sequence[Tier]) -> list[lanes.Stage]:
    """What runs side by side, in the order in which its output is shown; then what runs alone."""
    # A tier that cannot run here says so once.
    able = [tier for tier in chosen if not tier.obstacle()]
    made = [PROGRAMS] if any(tier.cluster for tier in chosen) and len(chosen) > 1 else []
    made += [IMAGES] if made and any(tier.images for tier in able) else []
    computes = [tier for tier in chosen if not tier.waits]
    waits = [
        dataclasses.replace(work, needs=tier.needed())
        for tier in chosen
        if tier.waits
        for work in (tier, *([tier.alone] if tier.alone and tier in able else []))
    ]
    together = (Lane(computes, nice=LOW if waits else 0), Lane(waits), Lane(made))
    return [together, [Lane([tier.last for tier in able if tier.last])]]


def environment() -> dict[str, str]:
    """Of all tiers.

    Without bytecode, each process that imports torch and transformers compiles them: 18 of its 30 s of CPU. So bytecode
    is kept, in .venv, even where PYTHONDONTWRITEBYTECODE asks to leave the sources' folders alone.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPYCACHEPREFIX": str(ROOT / ".venv" / "pycache"),
    }


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
    results = lanes.run(planned(tiers), ROOT, environment(), ROOT / "build" / "tests")
    print("\n".join([*lanes.reasons(results), "", lanes.table(results)]))
    if skip:
        print(f"left out by name: {', '.join(skip)}")
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
