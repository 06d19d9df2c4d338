"""A full disk ends a command with one line, and loses nothing that was there."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure

WRITE = (
    "import pathlib; from hone_cli.reach.writing import write_whole; write_whole(pathlib.Path('job.yaml'), bytes(4096))"
)


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))  # as if no room were left for more


def test_a_file_that_is_replaced_stays_where_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("mine: true\n")
    (tmp_path / "job.yaml").chmod(0o600)
    command = [sys.executable, "-c", WRITE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, preexec_fn=_limit_files)
    error = f"hone_cli.errors.CommandError: {tmp_path.resolve() / 'job.yaml'}: File too large"
    assert done.stderr.splitlines()[-1] == error
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
    assert (tmp_path / "job.yaml").read_text() == "mine: true\n"
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "job.yaml").read_bytes() == bytes(4096)
    assert (tmp_path / "job.yaml").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "hone_cli", "recipes"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "hone: No space left on device\n")
