"""The pages are built as `make docs` serves them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone_dev.generate.site import load_diagrams_from_here
from hone_dev.tools.console import HoneDevError

pytestmark = pytest.mark.pure
ROOT = Path(__file__).resolve().parents[2]


def test_no_page_has_a_link_that_leads_nowhere(site: Path) -> None:
    """The build fails on one."""
    assert (site / "guides" / "serving" / "index.html").is_file()


def test_a_page_loads_nothing_from_another_server(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 100
    loaded = re.compile(r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^\" >]*")
    assert {page.name: found for page in pages if (found := loaded.findall(page.read_text()))} == {}
    (bundle,) = (site / "assets/javascripts").glob("bundle.*.js")
    assert re.findall(r"https://[^\"]*mermaid[^\"]*", bundle.read_text()) == []
    assert (bundle.parent / "mermaid.min.js").is_file()


def test_a_theme_that_loads_diagrams_otherwise_is_an_error(site: Path, tmp_path: Path) -> None:
    (patched,) = (site / "assets/javascripts").glob("bundle.*.js")
    bundle = Path(shutil.copy(patched, tmp_path))
    with pytest.raises(HoneDevError, match="names 0 addresses of mermaid, not 1"):
        load_diagrams_from_here(bundle)


class Loader(yaml.SafeLoader):
    """Of mkdocs.yml, which names functions of Python."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
NAVIGATION = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]


def pages_of(entries: list[Any]) -> list[str]:
    """The pages of a group, with those of its groups."""
    contents = [entry if isinstance(entry, str) else next(iter(entry.values())) for entry in entries]
    return [page for content in contents for page in ([content] if isinstance(content, str) else pages_of(content))]


def groups(entries: list[Any], path: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Each group of the navigation with what it lists."""
    for entry in entries:
        for title, content in entry.items() if isinstance(entry, dict) else ():
            if isinstance(content, list):
                yield f"{path}{title}", content
                yield from groups(content, f"{path}{title}/")


def test_a_stranger_can_survey_the_navigation() -> None:
    """Tabs fit on a laptop and lists on a screen, except lists that people open to find a name they know."""
    assert len(NAVIGATION) <= 8
    by_name = {"Run the platform/Fix something/Alert runbooks", "Contribute/Decisions"}
    sizes = {path: len(entries) for path, entries in groups(NAVIGATION)}
    assert {path for path, size in sizes.items() if size > 14} == by_name
    assert all(size > 1 for size in sizes.values()), "a group of one page is a page"


def test_a_page_is_in_one_place_of_the_navigation() -> None:
    pages = pages_of(NAVIGATION)
    assert len(pages) > 90
    assert len(pages) == len(set(pages))


@pytest.mark.parametrize(
    ("page", "tab"),
    [
        ("quickstart.md", "Get started"),
        ("guides/demo.md", "Get started"),
        ("guides/data/clean.md", "Prepare data"),
        ("guides/synthetic-data.md", "Prepare data"),
        ("guides/methods/dpo.md", "Train"),
        ("guides/evaluation.md", "Train"),
        ("guides/serving.md", "Use the model"),
        ("guides/upgrade.md", "Run the platform"),
        ("guides/troubleshooting.md", "Run the platform"),
        ("reference/api.md", "Reference"),
    ],
)
def test_a_page_is_where_it_is_looked_for(page: str, tab: str) -> None:
    assert [title for entry in NAVIGATION for title, content in entry.items() if page in pages_of(content)] == [tab]
