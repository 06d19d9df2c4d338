"""A Dataset's report in a real browser: nothing from a row runs, and what it shows can be read, light and dark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pages.browser import ATTACKS, assert_readable, chromium

from hone_api.plan import MaterializePlan
from hone_trainer.datasets import materialize

pytestmark = pytest.mark.e2e  # Chromium is installed where it is absent, for which root is needed


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of rows, good, rejected and removed ones, in which every text attacks the reader."""
    folder = tmp_path_factory.mktemp("report")
    rows: list[Any] = [{"prompt": f"{attack} {i}", "completion": attack} for attack in ATTACKS for i in range(20)]
    rows += [{"prompt": attack, "completion": ""} for attack in reversed(ATTACKS)]
    rows += [{attack: attack, "prompt": 1} for attack in ATTACKS]
    rows += rows[:7]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = {
        "name": "rows",
        "store": str(folder / "store"),
        "source": {"uri": "pvc://claim/rows.jsonl"},
        "sourcePath": str(folder / "rows.jsonl"),
        "curation": {"deduplicate": "Exact"},
        "checks": {"maxRejected": "50%"},
    }
    result = materialize.run(MaterializePlan.model_validate(plan))
    assert (result.rejected, result.rows) == (10, 100)
    return folder / "store" / str(result.report)


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Any]:
    with chromium() as driver:
        driver.get(page.as_uri())
        yield driver


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_from_a_row_runs_or_is_loaded(browser: Any, attack: str) -> None:
    assert browser.title == "Dataset rows"
    foreign = "return document.querySelectorAll('script, img, iframe, base, svg[onload]').length"
    assert browser.execute_script(foreign) == 0
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == [], "no error, nothing that the page's own policy had to stop"
    shown = browser.execute_script("return document.body.innerText")
    assert json.dumps(attack)[1:-1] in shown, "as text"


def test_plots_are_drawn_to_scale(browser: Any) -> None:
    plot = browser.find_element("css selector", "svg[aria-label^='train: ']")
    train, validation = (bar.rect["width"] for bar in plot.find_elements("css selector", "rect"))
    rows = [int(number) for number in re.findall(r"\d+", plot.get_attribute("aria-label"))]
    assert sum(rows) == 100
    assert train / validation == pytest.approx(rows[0] / rows[1], rel=0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Any, scheme: str) -> None:
    assert_readable(browser, scheme)
