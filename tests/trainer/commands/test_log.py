"""The log of a run as a person reads it: lines of Hone, none of a library about itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.reporting.log_lines import LIBRARY_NOISE, LIBRARY_WARNINGS

FOREIGN = re.compile(r"\[WARNING\]|Warning: |warnings\.warn|it/s|site-packages")
"""A logger with a handler of its own, a Python warning, a progress bar."""


@pytest.mark.trainer
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_no_line_of_a_run_is_a_librarys_about_itself(runs: Any, make_plan: Any, ranks: int) -> None:
    """Several ranks are programs of their own."""
    plan = make_plan(evaluation={"samples": 2}, processesPerNode=ranks)
    runs.wait(plan, runs.start_program(plan))
    log = (Path(plan.work_path).parent / "log-0").read_text()
    print(log)
    assert "Training 8/8" in log
    assert [line for line in log.splitlines() if FOREIGN.search(line)] == []
    for words in (*LIBRARY_NOISE.values(), *LIBRARY_WARNINGS):
        assert words not in log


@pytest.mark.torch
@pytest.mark.pure
@pytest.mark.parametrize("module", ["bitsandbytes/backends/cpu/ops.py", "deepspeed/accelerator/real_accelerator.py"])
def test_the_libraries_still_say_it(module: str) -> None:
    """Else an entry of the list is of no use any more."""
    import site

    source = next(path for folder in site.getsitepackages() if (path := Path(folder, module)).exists()).read_text()
    assert any(words in source for words in LIBRARY_NOISE.values())
