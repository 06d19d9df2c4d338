"""What `make` offers, and the setup without torch."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from hone_dev.campaigns import tiers

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]


def locked(name: str) -> dict[str, str]:
    """Version by package of a lock file."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.M))


def test_help_lists_every_target() -> None:
    offered = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert offered
    # Run by another make, this one would say which directory it enters.
    plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=plain).stdout
    assert {line.split()[1] for line in shown.splitlines()} == set(offered[1].split())
    assert all(len(line.split()) > 3 for line in shown.splitlines()), "each with a sentence"


def test_the_light_setup_has_the_versions_of_the_full_one_and_nothing_that_trains() -> None:
    light, full = locked("light.txt"), locked("dev.txt")
    assert {"pytest", "ruff", "kubernetes", "textual", "zensical", "pyarrow", "tokenizers"} <= light.keys()
    assert light.items() <= full.items()
    assert not {"torch", "accelerate", "peft", "trl", "bitsandbytes", "triton"} & light.keys()
    assert not [name for name in light if name.startswith(("nvidia-", "cuda-"))]


def test_the_light_tests_run_by_name_only_and_their_folders_exist() -> None:
    (light,) = (tier for tier in tiers.TIERS if tier.name == "light")
    assert light.by_name, "make test runs them in its tier pure"
    assert all(any((ROOT / folder).rglob("test_*.py")) for folder in tiers.LIGHT)
