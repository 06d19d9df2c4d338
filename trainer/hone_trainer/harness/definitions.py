"""The definitions of lm-eval's tasks and groups, by name, each parsed when it is asked for.

lm-eval's own index parses all of its 14,000 YAML files: 8 s of processor time. Here the few lines that name and group
are read from their text. A file in which these lines are not plain is parsed like by lm-eval.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

_WORD = r"(?:\.\.?/|[A-Za-z_])[\w./+-]*"
_ITEM = re.compile(rf'-[ \t]+("?)({_WORD})\1[ \t]*$', re.MULTILINE)
_NAMING = re.compile(
    rf'^(?P<q>"?)(?P<key>task|group|tag|include|class)(?P=q)[ \t]*:'
    rf'(?:[ \t]+(?P<r>"?)(?P<word>{_WORD})(?P=r)[ \t]*(?:#.*)?(?=\s*(?:\Z|^\S))'
    rf'|[ \t]*(?P<words>(?:\n[ \t]*-[ \t]+"?{_WORD}"?[ \t]*$)+)(?=\s*(?:\Z|^[^\s#-])))?',
    re.MULTILINE,
)
"""A key that names or groups; its value where that is a word, or words one below the other, which nothing continues."""
_NO_TEXT = re.compile("y|n|yes|no|true|false|on|off|null", re.IGNORECASE)
"""Words that YAML does not read as text."""
_MERGE = re.compile(r"^<<", re.MULTILINE)
_LEFT_OUT = {"__pycache__", ".ipynb_checkpoints"}


class Definitions(Mapping[str, Any]):
    """lm-eval's entry for each name of a task, a group or a tag."""

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the folder of all definitions.
        """
        from lm_eval.tasks._index import TaskIndex

        self._entries: dict[str, Any] = {}
        for file in sorted(_files(root)):
            try:
                TaskIndex.process_cfg(_naming(file), Path(file), self._entries)
            except Exception:  # lm-eval leaves out what it cannot read
                continue

    def __getitem__(self, name: str) -> Any:
        entry = self._entries[name]
        return entry if entry.yaml_path is None else replace(entry, cfg=_load(str(entry.yaml_path)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def _files(root: Path) -> Iterator[str]:
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _LEFT_OUT]
        yield from (f"{folder}/{name}" for name in names if name.endswith(".yaml"))


def _naming(file: str) -> Mapping[str, Any]:
    """The part of a definition that names and groups it; the whole where that part is not plain."""
    with open(file, encoding="utf-8") as lines:
        text = lines.read()
    own: dict[str, Any] = {}
    for match in _NAMING.finditer(text):
        own[match["key"]] = match["word"] or (match["words"] and [word for _, word in _ITEM.findall(match["words"])])
    included = own.pop("include", "")
    if not isinstance(included, str) or _MERGE.search(text):
        return _load(file)
    if included:
        own = {**_shared(str(Path(file).parent / included)), **own}
    return own if _is_plain(own) else _load(file)


def _is_plain(naming: Mapping[str, Any]) -> bool:
    """Whether all that names and groups was read."""
    name = naming.get("group", naming.get("task"))
    tags = naming.get("tag", name)
    words = [name, *(tags if isinstance(tags, list) else [tags])]
    return "class" not in naming and all(isinstance(w, str) and not _NO_TEXT.fullmatch(w) for w in words)


@cache
def _shared(file: str) -> Mapping[str, Any]:
    """The naming part of a file that others include; few files are included by many."""
    shared = _load(file)
    return {key: shared[key] for key in ("task", "group", "tag", "class") if key in shared}


@cache
def _load(file: str) -> dict[str, Any]:
    from lm_eval.tasks._yaml_loader import load_yaml

    definition: dict[str, Any] = load_yaml(file, resolve_func=False)
    return definition
