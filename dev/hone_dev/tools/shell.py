"""Running other programs: quietly, with their last words in the error."""

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hone_dev.tools.console import HoneDevError


def run(
    *argv: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    hint: str = "",
) -> str:
    """Run a program and return what it wrote to stdout.

    With `log`, both its streams go to that file instead. Raises HoneDevError with the
    last lines it wrote when it fails or does not exist.
    """
    args = [str(a) for a in argv]
    full_env = {**os.environ, **(env or {})}
    try:
        if log:
            with log.open("w") as out:
                code = subprocess.run(
                    args, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=full_env, cwd=cwd
                ).returncode
            output, words = "", log.read_text(errors="replace")
            hint = hint or f"the whole output is in {log}"
        else:
            done = subprocess.run(args, input=stdin or "", capture_output=True, text=True, env=full_env, cwd=cwd)
            code, output, words = done.returncode, done.stdout, done.stderr or done.stdout
    except FileNotFoundError as error:
        raise HoneDevError(f"{args[0]} is not installed", hint) from error
    if code:
        tail = "\n".join(words.strip().splitlines()[-12:])
        raise HoneDevError(f"{' '.join(args[:4])} … failed with exit code {code}:\n{tail}", hint)
    return output


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for the block: two commands at once wait for each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
