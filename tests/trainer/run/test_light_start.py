"""Who starts ranks, refuses a plan or encodes rows does not load what trains, which takes 5 s of processor time."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.pure
LOAD = """
import sys
from hone_trainer import methods
from hone_trainer.run import encode, launch
print(sorted({"torch", "transformers", "trl", "peft", "datasets"} & set(sys.modules)))
"""


def test_the_launcher_loads_nothing_that_trains() -> None:
    """Although it knows the methods: each loads what trains when its trainer is made."""
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
