"""AGENTS.md leads to what exists: every path, every name in its file, every room."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "AGENTS.md").read_text()
PACKAGES = ("crds/hone_api", "operator/hone_operator", "trainer/hone_trainer", "cli/hone_cli", "dev/hone_dev")
MOST_IN_A_FOLDER = 20
LARGER = {"trainer/hone_trainer": 25, "tests/trainer": 22}
"""Folders of today that hold more, and how many; none may grow."""
TOP = {path.name for path in ROOT.iterdir()}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def paths(text: str) -> list[str]:
    return [code for code in re.findall(r"`([\w./-]+)`", text) if code.split("/")[0] in TOP]


def rooms(parent: str) -> set[str]:
    """Folders with modules."""
    return {str(p.parent.relative_to(ROOT)) for p in (ROOT / parent).glob("*/__init__.py")}


def test_every_path_exists() -> None:
    assert len(paths(TEXT)) > 50
    assert not [path for path in paths(TEXT) if not (ROOT / path).exists()]


def test_every_room_has_its_line_and_no_other_file_comes_first() -> None:
    listed = {path for (first, _) in rows("Rooms") for path in paths(first)}
    wanted = rooms("trainer/hone_trainer") | rooms("operator/hone_operator")
    wanted |= {path for path in ("crds/hone_api", "cli/hone_cli", "dev/hone_dev", "charts/hone")}
    assert wanted <= listed
    assert all(len(text) < 120 for _, text in rows("Rooms")), "one line a room"


def names_in(folder: Path) -> set[str]:
    """Of its modules and rooms."""
    names = (p for p in folder.iterdir() if p.suffix == ".py" or any(p.glob("*.py")))
    return {path.stem for path in names} - {"__init__", "conftest"}


def test_a_folder_stays_small_enough_to_survey() -> None:
    """A new subject goes into a room, or two rooms become one."""
    folders = {file.parent for package in (*PACKAGES, "tests") for file in (ROOT / package).rglob("*.py")}
    sizes = {str(folder.relative_to(ROOT)): len(names_in(folder)) for folder in folders}
    over = {folder: size for folder, size in sizes.items() if size > MOST_IN_A_FOLDER}
    assert {folder: size for folder, size in over.items() if size > LARGER.get(folder, 0)} == {}
    assert set(LARGER) <= set(over), "no longer larger: remove it here"


def test_the_five_commonest_changes_say_where_to_begin() -> None:
    changes = rows("To change X, open Y")
    words = ("method", "row format", "status field", "failure code", "checkpoint interval")
    assert [any(word in change[0] for change in changes) for word in words] == [True] * len(words)
    assert all(paths(opened) for _, opened, _ in changes)


@pytest.mark.parametrize(("question", "file", "name"), rows("Where is it?"), ids=lambda cell: cell.strip("`?")[:40])
def test_a_question_leads_to_the_file_that_has_the_name(question: str, file: str, name: str) -> None:
    (path,) = paths(file)
    tree = ast.parse((ROOT / path).read_text())
    names = {getattr(node, "name", None) for node in ast.walk(tree)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    assert name.strip("`") in names, question


def test_there_are_twelve_questions() -> None:
    assert len({question for question, _, _ in rows("Where is it?")}) >= 12


def test_the_checkpoint_interval_is_decided_in_one_place() -> None:
    """The only reader of the plan's value among the sources of the trainer is the file that the map names."""
    (opened,) = (opened for change, opened, _ in rows("To change X, open Y") if "checkpoint interval" in change)
    readers = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "trainer").rglob("*.py")
        if "checkpoints.every_steps" in path.read_text()
    ]
    assert readers == paths(opened)
