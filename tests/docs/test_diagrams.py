"""The diagrams of the pages, drawn by the program that the site loads, in a real browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import zensical
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from support.pages.browser import chromium
from support.servers import loopback

from hone_dev.generate import mermaid, site

pytestmark = pytest.mark.e2e  # Chromium is installed where it is absent, for which root is needed
ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")})
DIAGRAMS = [
    pytest.param(diagram, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, diagram in enumerate(re.findall(r"^```mermaid\n(.*?)^```", page.read_text(), re.S | re.M), 1)
]
DRAW = """
const done = arguments[1];
mermaid.render('diagram', arguments[0]).then(drawn => done(drawn.svg), error => done('error: ' + error.message));
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    page = tmp_path_factory.mktemp("diagrams") / "page.html"
    page.write_text(f'<!DOCTYPE html><meta charset="utf-8"><script src="{mermaid.script().as_uri()}"></script>')
    with chromium() as driver:
        driver.get(page.as_uri())
        driver.execute_script("mermaid.initialize({startOnLoad: false})")
        yield driver


def test_there_are_diagrams() -> None:
    assert DIAGRAMS


@pytest.mark.parametrize("diagram", DIAGRAMS)
def test_a_diagram_is_drawn_with_all_its_words(browser: Any, diagram: str) -> None:
    svg = browser.execute_async_script(DRAW, diagram)
    assert svg.startswith("<svg"), svg
    browser.execute_script("document.body.innerHTML = arguments[0]", svg)
    shown = browser.execute_script("return document.body.textContent")
    labels = [label.strip("()") for label in re.findall(r"(?:: | as |\[)([^]]+?)\]?$", diagram, re.M)]
    assert labels, "no message, name or [box]: teach this test the labels of this kind of diagram"
    assert [label for label in labels if label not in shown] == []


def test_a_diagram_with_an_error_is_seen(browser: Any) -> None:
    assert browser.execute_async_script(DRAW, "sequenceDiagram\n    User->>").startswith("error: ")


def test_the_site_loads_this_major_version() -> None:
    templates = Path(zensical.__file__).parent / "templates"
    loaded = {version for file in templates.rglob("*.js") for version in re.findall(r"mermaid@(\d+)", file.read_text())}
    assert loaded == {mermaid.VERSION.split(".")[0]}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder; logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the built site, on loopback."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    with loopback.serve(partial(Quiet, directory=str(site.build(folder, mermaid.script())))) as served:
        yield served


def test_a_command_is_copied_without_its_prompt_and_its_output(browser: Any, address: str) -> None:
    browser.get(f"{address}/quickstart/")
    browser.execute_script("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }")
    browser.execute_script("document.execCommand = () => { window.copied = document.activeElement.value; return true }")
    copied = []
    for block in browser.find_elements(By.CSS_SELECTOR, "pre:has(.gp)"):
        buttons = block.find_elements(By.XPATH, "./ancestor::*[1]//button[@data-md-type='copy']")
        browser.execute_script("arguments[0].click()", buttons[0])
        copied.append(browser.execute_script("return window.copied"))
    assert copied
    lines = [line for text in copied for line in text.splitlines()]
    prompts = browser.execute_script("return document.querySelectorAll('pre .gp').length")
    assert len([line for line in lines if line.strip()]) >= prompts
    assert [line for line in lines if line.startswith("$")] == []


def test_the_built_site_draws_without_another_server(browser: Any, address: str) -> None:
    browser.get(f"{address}/guides/serving/")
    WebDriverWait(browser, 120).until(lambda page: page.find_elements(By.CSS_SELECTOR, "div.mermaid"))
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in loaded if not name.startswith(address)] == []
    assert f"{address}/assets/javascripts/mermaid.min.js" in loaded
