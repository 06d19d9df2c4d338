"""Real texts that are there without a network: the documentation and the code of the installed packages.

    .venv/bin/python bench/real_text.py {prose,code,chats} FILE [--megabytes 5]

- prose: docstrings of at least 200 characters, and the descriptions of packages (README);
- code: modules;
- chats: a function without its docstring, which is what the user asks about, and the docstring as the answer.

Files are taken in the order of the hash of their path, so that no package fills a file. Each text occurs once. Those
with a control token of a tokenizer are left out: Hone keeps it as text, and other encoders do not. So are answers
that begin with white space: other encoders join it to the last token of the prompt, which Hone keeps as it is served.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHORTEST, LONGEST = 200, 20_000
_CONTROL = re.compile(r"<\|\w+\|>|<(repo_?name|file_sep|filename|gh_stars|issue_\w+|jupyter_\w+|empty_output)>")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def prose() -> Iterator[dict[str, Any]]:
    """Docstrings and descriptions."""
    for path in _files("*.py", "METADATA"):
        text = _read(path)
        if path.name == "METADATA":
            yield {"text": text.partition("\n\n")[2]}
            continue
        for node in ast.walk(_parsed(text)):
            if isinstance(node, (*_DEFINITIONS, ast.ClassDef, ast.Module)):
                yield {"text": ast.get_docstring(node) or ""}


def code() -> Iterator[dict[str, Any]]:
    """Modules."""
    for path in _files("*.py"):
        yield {"text": _read(path)}


def chats() -> Iterator[dict[str, Any]]:
    """Functions and what is said of them."""
    for path in _files("*.py"):
        text = _read(path)
        lines = text.splitlines()
        for node in ast.walk(_parsed(text)):
            if not isinstance(node, _DEFINITIONS):
                continue
            said = ast.get_docstring(node) or ""
            if len(said) >= SHORTEST and not said[0].isspace():
                first = node.body[0]
                body = [*lines[node.lineno - 1 : first.lineno - 1], *lines[first.end_lineno : node.end_lineno]]
                asked = "Write the docstring of this function.\n\n" + "\n".join(body)
                turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
                yield {"messages": turns, "text": said}


KINDS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"prose": prose, "code": code, "chats": chats}


def write(kind: str, path: Path, megabytes: float) -> int:
    """Rows of a kind up to a size, or all there are; gives their number."""
    seen: set[bytes] = set()
    with open(path, "wb") as file:
        for row in KINDS[kind]():
            line = json.dumps(row, ensure_ascii=False)
            text = row.pop("text") if "messages" in row else row["text"]
            digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
            if not SHORTEST <= len(text) <= LONGEST or digest in seen or _CONTROL.search(line):
                continue
            seen.add(digest)
            file.write(json.dumps(row).encode() + b"\n")
            if file.tell() >= megabytes * 10**6:
                break
    return len(seen)


def _files(*patterns: str) -> list[Path]:
    top = Path(sysconfig.get_paths()["purelib"])
    paths = {path for pattern in patterns for path in top.rglob(pattern) if path.is_file()}
    return sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(top).as_posix().encode()).digest())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore")


def _parsed(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Rows of real text.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=float, default=5)
    options = parser.parse_args()
    print(f"{write(options.kind, options.file, options.megabytes):,} rows")


if __name__ == "__main__":
    main()
