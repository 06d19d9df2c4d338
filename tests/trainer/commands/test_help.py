"""`--help` and a wrong flag are answered without loading torch, which takes half a minute on a busy machine."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hone_trainer.__main__ import PLANNED

pytestmark = pytest.mark.pure
ASK = """
import sys
from hone_trainer.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("ended with", end.code, "torch" in sys.modules)
"""


@pytest.mark.parametrize("command", ["evaluate", "export"])
@pytest.mark.parametrize(("flag", "code", "words"), [("--help", 0, "folder of"), ("--strange", 2, "are required")])
def test_options_are_read_before_torch_is_loaded(command: str, flag: str, code: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASK, command, flag], capture_output=True, text=True, check=True)
    assert f"ended with {code} False" in done.stdout
    assert words in done.stdout + done.stderr


@pytest.mark.parametrize("command", PLANNED)
def test_a_command_with_a_plan_has_its_function(command: str) -> None:
    _, module, function = PLANNED[command]
    spec = find_spec(f"hone_trainer.{module}")  # not imported: some need torch
    assert spec is not None
    assert f"\ndef {function}(" in Path(str(spec.origin)).read_text()
