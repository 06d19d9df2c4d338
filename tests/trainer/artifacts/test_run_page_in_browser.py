"""The report of a model in a real browser: nothing from a row or an answer runs, and everything can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.pages.browser import ATTACKS, assert_readable, chromium
from support.pages.model_report import CURVES, EVALUATED, EVIL, REPORT

from hone_trainer.artifacts import run_page
from hone_trainer.methods import sft

pytestmark = pytest.mark.e2e  # Chromium is installed where it is absent, for which root is needed
BASE = {"step": 0, "eval_loss": 3.2, "eval_token_accuracy": 0.1}
LOOPS = {"prompt": "?", "base": "b b b", "baseEnding": "Cut", "tuned": "a a a", "tunedEnding": "Repeats"}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    attacks = [{"prompt": attack, "base": attack, "tuned": attack, "reference": attack} for attack in ATTACKS]
    report = {**REPORT, "samples": [LOOPS, *attacks], "advice": ATTACKS}
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(run_page.render(report, [BASE, *CURVES, *EVALUATED], sft.METHOD), encoding="utf-8")
    with chromium() as driver:
        driver.get(file.as_uri())
        yield driver


@pytest.mark.attack("HTML and cards")
def test_nothing_runs_or_is_loaded(browser: Any) -> None:
    assert browser.title == f"Model {EVIL}"
    assert browser.execute_script("return document.querySelectorAll('script, img, iframe, base').length") == 0
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == [], "no error, nothing that the page's own policy had to stop"
    shown = browser.execute_script("return document.body.innerText")
    assert all(attack in shown for attack in ATTACKS), "as text"


def test_the_loss_is_large_and_begins_with_the_base(browser: Any) -> None:
    loss, *others = browser.find_elements("css selector", "svg")
    assert all(loss.rect["width"] > 2 * other.rect["width"] for other in others)
    held_out = loss.find_element("css selector", "polyline.held").get_attribute("points").split()
    assert len(held_out) == len(EVALUATED) + 1
    assert float(held_out[0].split(",")[0]) == min(float(point.split(",")[0]) for point in held_out)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Any, scheme: str) -> None:
    assert_readable(browser, scheme)
