"""How often the type checker is silenced: nowhere but where a class derives from one that it does not know."""

import re
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
CHECKED = ("crds", "operator", "trainer", "cli", "dev")
"""What mypy reads. In tests and benches a mark would say something that nothing checks."""
SILENCED = {
    "cli/hone_cli/reach/connecting.py": 2,  # the library has no types
    "trainer/hone_trainer/methods/grpo.py": 1,  # the class of TRL to derive from is an argument
    "trainer/hone_trainer/methods/sft.py": 1,
}
MARK = re.compile(r"#\s*type:\s*" + "ignore")


def marks(folder: str) -> Counter[str]:
    """How many marks each file has, by its path."""
    files = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / folder).rglob("*.py")}
    return Counter({name: count for name, text in files.items() if (count := len(MARK.findall(text)))})


@pytest.mark.parametrize("folder", [*CHECKED, "tests", "bench"])
def test_the_type_checker_is_silenced_where_it_is_listed_and_nowhere_else(folder: str) -> None:
    assert marks(folder) == {name: count for name, count in SILENCED.items() if name.startswith(f"{folder}/")}
