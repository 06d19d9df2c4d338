"""Pages, docstrings and messages use the words of the style guide. Generated pages follow the descriptions that they
are made from."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone_api.generate import files

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/contributing/style.md"
GENERATED = {path for path in files() if path.suffix == ".md"}
PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")}
    - GENERATED
    - {GUIDE, ROOT / "CHANGELOG.md"}
)
PACKAGES = ("crds/hone_api", "operator/hone_operator", "trainer/hone_trainer", "cli/hone_cli", "dev/hone_dev")
UNINSTALLED = ("tests", "bench", "examples")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TEMPLATES = sorted(
    file
    for file in (*(ROOT / "charts").rglob("*"), *(ROOT / "trainer").rglob("*.j2"))
    if file.suffix in (".yaml", ".tpl", ".txt", ".j2")
)
REPLACED = (
    "anew",
    "beside",
    "but for",
    "end marks?",
    "of which",
    "once more",
    "is no error",
    "is away",
    "lies? end to end",
    "mend(s|ed)?",
    "thereof",
    "(be|is|are|was|were|been) told",
    "is no 0",
    "(it|one|which|that|what|this) is no(?! longer)",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_words_that_the_guide_replaces_do_not_occur(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    assert not replaced(text), f"see {GUIDE.relative_to(ROOT)}"


def test_words_that_the_guide_replaces_do_not_occur_in_sources() -> None:
    assert len(SOURCES) > 500
    words = {file.relative_to(ROOT).as_posix(): replaced("\n".join(sentences(file.read_text()))) for file in SOURCES}
    words |= {file.relative_to(ROOT).as_posix(): replaced(file.read_text()) for file in TEMPLATES}
    assert {file: found for file, found in words.items() if found} == {}, f"see {GUIDE.relative_to(ROOT)}"


def test_words_that_the_guide_replaces_do_not_occur_in_tests_benchmarks_and_examples() -> None:
    files = sorted({file for folder in UNINSTALLED for file in (ROOT / folder).rglob("*.py")} - {Path(__file__)})
    assert len(files) > 500
    prose = {file.relative_to(ROOT).as_posix(): replaced("\n".join(explanations(file.read_text()))) for file in files}
    prose["pyproject.toml"] = replaced((ROOT / "pyproject.toml").read_text())
    assert {file: words for file, words in prose.items() if words} == {}, f"see {GUIDE.relative_to(ROOT)}"


def test_names_docstrings_and_comments_of_a_test_are_read() -> None:
    source = 'def test_it_is_no_row():\n    """Made anew."""\n    assert "beside"  # but for this\n'
    assert replaced("\n".join(explanations(source))) == ["it is no", "anew", "but for"]


def test_docstrings_comments_and_messages_are_read() -> None:
    source = '"""Made anew."""\nx = f"{y} lies beside it"  # but for this\nbeside = 1\n'
    assert replaced("\n".join(sentences(source))) == ["anew", "beside", "but for"]


def replaced(text: str) -> list[str]:
    """Each occurrence of a word that the guide replaces."""
    return [match[0] for match in re.finditer(rf"\b({'|'.join(REPLACED)})\b", text, re.I)]


def sentences(source: str) -> Iterator[str]:
    """Strings, docstrings among them, and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
    yield from re.findall(r"(?:^|\s)# (.+)$", source, re.M)


def explanations(source: str) -> Iterator[str]:
    """Docstrings, comments and names of functions and classes of a module; its other strings may be anything."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name.replace("_", " ")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            yield ast.get_docstring(node) or ""
    yield from re.findall(r"(?:^|\s)# (.+)$", source, re.M)


def test_the_guide_is_two_pages_at_most() -> None:
    assert len(GUIDE.read_text().split()) <= 1200


def test_a_release_in_the_changelog_is_read_in_one_go() -> None:
    """A rebase over old lines, which merges by union, brings them back; git has them."""
    releases = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]
    assert releases
    assert {release.split("\n")[0]: lines for release in releases if (lines := release.count("\n")) > 130} == {}
