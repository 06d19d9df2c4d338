"""The definitions of tasks, by name: those of lm-eval's own index, which parses every file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hone_trainer.harness import catalogue, definitions

pytestmark = pytest.mark.trainer
FILES = {
    "plain.yaml": "task: plain\ntag: [first, second]\n",
    "block.yaml": "tag:\n  - first\n  - third\ntask: block\noutput_type: generate_until\n",
    "flush.yaml": "tag:\n- first\n- fourth # a comment\ntask: flush # a comment\n",
    "quoted.yaml": "\"task\": 'quoted'\n'tag': \"first\"\n",
    "value.yaml": 'task: "quoted value"\ntag: first\n',
    "folded.yaml": "task: folded\n  name\ntag: first\n",
    "number.yaml": "task: 12\ntag: first\n",
    "text.yaml": "task: yes\n",
    "group.yaml": "group: several\ntask:\n  - plain\n  - block\ntag: first\n",
    "aggregated.yaml": "task:\n- flush\ngroup: also_several\ntag:\n- groups\n- first\n",
    "inline.yaml": "group: inline\ntask: [plain, {task: other, tag: inner}]\n",
    "first.yaml": "group: first\ntask: plain\n",
    "again.yaml": "task: plain\ntag: only_of_the_second\n",
    "_base": "output_type: multiple_choice\ntag: inherited\ntask: replaced\n",
    "_between": "include: _base\ntag:\n  - between\n",
    "heir.yaml": "include: _base\ntask: heir\n",
    "nameless_heir.yaml": "include: _between\n",
    "grandchild.yaml": "include: _between\ntask: grandchild\n",
    "heir_of_two.yaml": "include: [_base, plain.yaml]\ntask: heir_of_two\n",
    "heir_of_nothing.yaml": "include: _nowhere\ntask: heir_of_nothing\n",
    "heir_of_itself.yaml": "include: heir_of_itself.yaml\ntask: heir_of_itself\n",
    "quoted_heir.yaml": 'include: "_base"\ntask: quoted_heir\n',
    "untagged_heir.yaml": "include: _base\ntag: null\ntask: untagged_heir\n",
    "merged.yaml": "base: &base\n  tag: from_the_anchor\n<<: *base\ntask: merged\n",
    "twice.yaml": "task: before\ntask: twice\n",
    "program.yaml": "class: !function module.Task\ntask: program\ntag: first\n",
    "program_without_name.yaml": "class: !function module.Task\n",
    "text_with_keys.yaml": 'description: "one\n\n  task: two"\ntask: text_with_keys\nfew: |\n  tag: none\n',
    "empty_tag.yaml": "task: empty_tag\ntag:\n",
    "empty_tags.yaml": "task: empty_tags\ntag: []\n",
    "braces.yaml": "{task: braces, tag: first}\n",
    "windows.yaml": "task: windows\r\ntag: first\r\n",
    "indented.yaml": " task: indented\n tag: first\n",
    "broken.yaml": "task: [\n",
    "other.yaml": "what: else\n",
    "list.yaml": "- task\n",
    "empty.yaml": "",
    "__pycache__/cached.yaml": "task: cached\n",
    "deep/er/leaf.yaml": "include: ../../_base\ntask: leaf\n",
}
"""Definitions as lm-eval has them, and some as it could have them."""


def as_compared(index: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (entry.kind, str(entry.yaml_path), entry.tags, entry.cfg) for name, entry in index.items()}


def expected(root: Path) -> dict[str, Any]:
    """What lm-eval has there."""
    from lm_eval.tasks._index import TaskIndex

    return as_compared(TaskIndex.build([root]))


def test_whatever_names_a_task_it_is_the_one_of_lm_eval(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "no_text.yaml").write_bytes(b"task: no_text\ndescription: \xff\n")
    (tmp_path / "folder.yaml").mkdir()
    assert as_compared(definitions.Definitions(tmp_path)) == expected(tmp_path)


@pytest.mark.parametrize("folder", ["mmlu", "bbh", "super_glue", pytest.param("", marks=pytest.mark.long)])
def test_the_definitions_are_those_of_lm_eval(folder: str) -> None:
    root = catalogue.root() / folder
    ours, theirs = as_compared(definitions.Definitions(root)), expected(root)
    assert list(ours) == list(theirs)
    assert ours == theirs


def test_few_files_are_parsed_for_the_names_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    load = definitions._load

    def noted(file: str) -> Any:
        parsed.append(file)
        return load(file)

    monkeypatch.setattr(definitions, "_load", noted)
    assert len(definitions.Definitions(catalogue.root())) > 14_000
    assert len(parsed) < 1_000
