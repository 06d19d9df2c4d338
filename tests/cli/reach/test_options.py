"""Questions at the terminal leave standard output to the answer of the command."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.pure
ASK = "from hone_cli.reach.options import confirmed; print(confirmed('Start?'))"


@pytest.mark.parametrize(("typed", "answer"), [("y\n", "True\n"), ("\n", "False\n")])
def test_a_manifest_in_a_file_has_nothing_of_the_question(typed: str, answer: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASK], input=typed, capture_output=True, text=True)
    assert (done.stdout, done.stderr.split(":")[0]) == (answer, "Start? [y/N]")
