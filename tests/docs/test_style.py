"""Pages use the words of the style guide. Generated pages follow the descriptions that they are made from."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/contributing/style.md"
GENERATED = {ROOT / "docs/reference/api.md"}
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - GENERATED - {GUIDE, ROOT / "CHANGELOG.md"})
REPLACED = ("anew", "beside", "but for", "end mark", "is away", "lies? end to end", "mend(s|ed)?", "thereof", "is no 0")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_words_that_the_guide_replaces_do_not_occur(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    found = [match[0] for match in re.finditer(rf"\b({'|'.join(REPLACED)})\b", text, re.I)]
    assert not found, f"see {GUIDE.relative_to(ROOT)}"


def test_the_guide_is_two_pages_at_most() -> None:
    assert len(GUIDE.read_text().split()) <= 1200
