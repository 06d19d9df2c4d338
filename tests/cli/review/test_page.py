"""`hone dataset review --web` in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from support.pages.browser import CONTRASTS, chromium

pytestmark = pytest.mark.e2e  # Chromium is installed where it is absent, for which root is needed

HANG = 120  # seconds; a guard against hanging, not an expectation


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


class Page:
    """The page as a person sees it."""

    def __init__(self, browser: webdriver.Chrome, url: str):
        self.browser = browser
        browser.get("about:blank")  # another fragment alone would not load again
        browser.get(url)

    def text(self, id: str) -> str:
        return self.browser.find_element(By.ID, id).text

    def until(self, id: str, shown: str | Callable[[str], Any]) -> str:
        """Wait until an element shows it."""
        meets = (lambda text: shown in text) if isinstance(shown, str) else shown
        WebDriverWait(self.browser, HANG, 0.05).until(
            lambda _: meets(self.text(id)), f"{id} has {self.text(id)!r}, not {shown}"
        )
        return self.text(id)

    def press(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def edit(self) -> list[Any]:
        """Begin to edit; the fields. The first has the focus."""
        self.press("e")
        WebDriverWait(self.browser, HANG, 0.05).until(
            lambda browser: browser.switch_to.active_element.tag_name == "textarea"
        )
        return self.browser.find_elements(By.TAG_NAME, "textarea")

    def hold(self, modifier: str, key: str) -> None:
        """Type a key while another one is down."""
        ActionChains(self.browser).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def click(self, id: str) -> None:
        self.browser.find_element(By.ID, id).click()

    @property
    def row(self) -> int:
        """Number of the question that is shown."""
        return int(re.search(r"question (\d+)", self.text("row"))[1])


@pytest.fixture
def open_page(browser, terminal) -> Iterator[Callable[..., Page]]:
    """Starts `hone dataset review --web`, and opens what it prints. The browser must have nothing to complain of."""

    def open_(batch: Any, reviewer: str = "ann") -> Page:
        screen = terminal(
            "dataset", "review", "answers", "--path", str(batch.folder), "--web", "--reviewer", reviewer, columns=200
        )
        return Page(browser, re.search(r"http://127\.0\.0\.1:\d+/#token=\S+", screen.until("Ctrl-C"))[0])

    yield open_
    refused = "the server responded with a status of 4"  # by our server; what is wrong is on the page
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    browser.get("about:blank")  # or the page asks for its list while its server ends, in the log of the next test
    browser.get_log("browser")
    assert [message for message in told if refused not in message] == []


def test_a_review_by_keys_alone(make_batch, open_page):
    batch = make_batch(4)
    page = open_page(batch)
    page.until("counts", "0 accepted · 0 rejected · 4 wait · ann")
    skipped = page.row
    page.press("s")
    page.until("row", lambda text: f"question {skipped}" not in text)
    first = page.row
    page.press("a")
    page.until("counts", "1 accepted")
    second = page.row
    page.press("r")
    page.until("counts", "1 rejected · 2 wait")
    third = page.row
    page.edit()
    page.press(Keys.HOME, "my ", Keys.TAB, Keys.HOME, "the ")
    page.hold(Keys.CONTROL, Keys.ENTER)
    page.until("counts", "2 accepted · 1 rejected · 1 wait")
    assert page.row == skipped
    page.press("u")
    page.until("row", f"question {third}")
    page.press("r")
    page.until("counts", "2 rejected · 1 wait")
    page.press("a")
    page.until("row", "Nothing is left to decide on.")
    assert {first, second, third, skipped} == {0, 1, 2, 3}
    by_row: dict[int, list[str]] = {}
    for decision in batch.decisions():
        by_row.setdefault(batch.ids.index(decision.id), []).append(decision.verdict)
    assert by_row == {first: ["Accept"], second: ["Reject"], third: ["Edit", "Undo", "Reject"], skipped: ["Accept"]}
    (edit,) = (d for d in batch.decisions() if d.verdict == "Edit")
    assert edit.row == {"prompt": f"my question {third}", "completion": f"the answer {third}"}


def test_a_review_by_the_mouse(make_batch, open_page):
    batch = make_batch(2)
    page = open_page(batch)
    page.until("counts", "2 wait")
    page.click("edit")
    page.until("save", "Save")
    assert page.browser.switch_to.active_element.tag_name == "textarea"
    page.click("cancel")
    page.click("accept")
    page.until("counts", "1 accepted · 0 rejected · 1 wait")
    page.click("reject")
    page.until("row", "Nothing is left to decide on.")
    page.click("undo")
    page.until("counts", "1 wait")
    assert [d.verdict for d in batch.decisions()] == ["Accept", "Reject", "Undo"]


def test_progress_a_list_by_status_and_its_keys(make_batch, open_page):
    batch = make_batch(4)
    page = open_page(batch)
    page.until("decided", "0 of 4 decided")
    accepted = page.row
    page.press("a")
    page.until("decided", "1 of 4 decided")
    rejected = page.row
    page.press("r")
    page.until("decided", "2 of 4 decided")
    page.until("list", lambda text: text.count("Undecided") == 2)
    assert page.browser.find_element(By.ID, "bar").get_attribute("value") == "2"
    page.press("f", "f")  # undecided, accepted
    page.until("list", lambda text: text.split("\n") == ["Accepted", f"question {accepted}"])
    assert "Accepted (1)" in page.text("filter")
    page.press("j")
    page.until("row", f"question {accepted}")
    page.until("status", "ann: Accept")
    page.press("f", "f")  # edited, rejected
    page.until("list", lambda text: text.split("\n") == ["Rejected", f"question {rejected}"])
    page.browser.find_element(By.CSS_SELECTOR, "#list button").click()
    page.until("row", f"question {rejected}")
    page.press("a")
    page.until("counts", "2 accepted · 0 rejected")
    page.until("list", "No rows.")


def test_a_row_that_was_edited_is_shown_and_accepted_as_edited(make_batch, open_page):
    batch = make_batch(1)
    page = open_page(batch)
    page.until("counts", "1 wait")
    page.edit()
    page.press(Keys.HOME, "my ")
    page.hold(Keys.CONTROL, Keys.ENTER)
    page.until("decided", "1 of 1 decided")
    page.until("list", "Edited")
    page.press("j")
    page.until("row", "my question 0")
    page.press("a")
    page.until("row", "Nothing is left to decide on.")
    assert [(d.verdict, d.row["prompt"]) for d in batch.decisions()] == [("Edit", "my question 0")] * 2


def test_the_list_leaves_an_edit_alone(make_batch, open_page):
    page = open_page(make_batch(3))
    page.until("list", lambda text: text.count("Undecided") == 3)
    page.edit()
    page.press(Keys.HOME, "my ")
    page.browser.find_elements(By.CSS_SELECTOR, "#list button")[0].click()
    page.until("message", "Save or cancel the edit first.")
    assert page.browser.find_element(By.TAG_NAME, "textarea").get_attribute("value").startswith("my ")


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("case", ["script", "handler", "closing tags"])
def test_what_a_row_of_the_list_holds_is_text(make_batch, open_page, case):
    page = open_page(make_batch(rows=[{"prompt": HOSTILE[case], "completion": "answer"}]))
    page.until("list", HOSTILE[case])
    assert page.browser.title == "Hone: review"
    assert page.browser.find_elements(By.CSS_SELECTOR, "#list :is(img, script, h1, iframe)") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_the_page_can_be_read(make_batch, open_page, browser, scheme):
    """The contrast that WCAG 2.1 asks for (1.4.3: 4.5 to 1), in both colour schemes; no text beyond the window."""
    batch = make_batch(4)
    page = open_page(batch)
    page.until("decided", "0 of 4 decided")
    for key, decided in (("a", 1), ("r", 2)):
        page.press(key)
        page.until("decided", f"{decided} of 4 decided")
    page.until("list", lambda text: text.count("Undecided") == 2)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    contrasts = browser.execute_script(CONTRASTS)
    assert len(contrasts) > 40
    assert {text: ratio for text, ratio in contrasts if ratio < 4.5} == {}
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_the_token_leaves_the_address_bar_and_a_reload_goes_on(make_batch, open_page):
    page = open_page(make_batch(2))
    page.until("counts", "2 wait")
    page.press("a")
    page.until("counts", "1 accepted")
    assert "token" not in page.browser.current_url
    page.browser.refresh()
    page.until("counts", "1 accepted · 0 rejected · 1 wait")


HOSTILE = {
    "script": "<script>document.title='owned'</script>",
    "handler": "<img src=x onerror=\"document.title='owned'\">",
    "svg": "<svg onload=\"document.title='owned'\"><animate onbegin=\"document.title='owned'\"></svg>",
    "frame": "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "closing tags": "</pre></textarea></main></title><h1>answer</h1><script>document.title='owned'</script>",
    "attribute": "\"' autofocus onfocus=\"document.title='owned'",
    "link": "<a href=\"javascript:document.title='owned'\">open</a>",
    "refresh": "<meta http-equiv=refresh content='0;url=https://evil.example'><base href=https://evil.example>",
    "style": "<style>body { display: none }</style><link rel=stylesheet href=https://evil.example/x.css>",
    "entities": "&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt;",
    "template": "${document.title='owned'} {{constructor.constructor('document.title=1')()}}",
    "comment": "<!--><script>document.title='owned'</script>-->",
}


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("case", HOSTILE)
def test_what_a_row_holds_is_text(make_batch, open_page, case):
    """Rows come from a model: nothing in them may become part of the page."""
    hostile = HOSTILE[case]
    page = open_page(make_batch(rows=[{"prompt": hostile, "completion": hostile}]))
    page.until("row", hostile)
    (area, _) = page.edit()
    assert area.get_attribute("value") == hostile
    assert page.browser.title == "Hone: review"
    foreign = "#row :is(img, script, svg, iframe, a, meta, base, style, link, h1, b)"
    assert page.browser.find_elements(By.CSS_SELECTOR, foreign) == []
    assert len(page.browser.find_elements(By.CSS_SELECTOR, "script, base, iframe")) == 1, "the page's own script"


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("case", ["script", "handler", "attribute", "closing tags"])
def test_the_name_of_a_field_is_text(make_batch, open_page, case):
    name = HOSTILE[case]
    page = open_page(make_batch(rows=[{name: "a text", "completion": "answer"}]))
    page.until("row", name)
    assert page.browser.title == "Hone: review"
    assert page.browser.find_elements(By.CSS_SELECTOR, "#row :is(img, script, h1)") == []


@pytest.mark.attack("HTML and cards")
@pytest.mark.parametrize("case", ["script", "handler", "closing tags"])
def test_the_name_of_a_reviewer_is_text(make_batch, open_page, case):
    page = open_page(make_batch(1), HOSTILE[case])
    page.until("counts", HOSTILE[case])
    assert page.browser.title == "Hone: review"
    assert page.browser.find_elements(By.CSS_SELECTOR, "#counts *") == []


def test_letters_typed_into_a_field_decide_nothing(make_batch, open_page):
    batch = make_batch(1)
    page = open_page(batch)
    page.until("counts", "1 wait")
    page.edit()
    page.press("arsu", Keys.ESCAPE)
    page.until("row", "question 0")
    assert batch.decisions() == []


def test_an_edit_without_words_is_refused_and_can_be_fixed(make_batch, open_page):
    batch = make_batch(1)
    page = open_page(batch)
    page.until("counts", "1 wait")
    page.edit()
    page.hold(Keys.CONTROL, "a")
    page.press(Keys.DELETE)
    page.hold(Keys.CONTROL, Keys.ENTER)
    page.until("message", "prompt is empty: reject the row instead")
    page.press("better")
    page.hold(Keys.CONTROL, Keys.ENTER)
    page.until("row", "Nothing is left to decide on.")
    (decision,) = batch.decisions()
    assert decision.row == {"prompt": "better", "completion": "answer 0"}


def test_lists_are_shown_and_not_edited(make_batch, open_page):
    row = {"question": "Who?", "oracle": ["The first document.", "The second one."], "answer": "Ann"}
    page = open_page(make_batch(rows=[row]))
    page.until("row", "The first document.\n\n---\n\nThe second one.")
    assert [area.get_attribute("data-field") for area in page.edit()] == ["question", "answer"]


def test_the_page_and_a_terminal_work_on_the_same_rows(make_batch, open_page, terminal):
    batch = make_batch(2)
    page = open_page(batch)
    page.until("counts", "2 wait")
    screen = terminal("dataset", "review", "answers", "--path", str(batch.folder), "--reviewer", "bob")
    screen.until("2 wait")
    screen.press("r")
    screen.until("1 rejected · 1 wait")
    page.press("a")
    page.until("counts", lambda text: "1 in conflict" in text or "1 accepted · 1 rejected" in text)
    page.press("a")
    page.until("row", "Nothing is left to decide on.")
    assert sorted({d.reviewer for d in batch.decisions()}) == ["ann", "bob"]


def test_a_request_without_the_token_is_refused_with_the_reason(browser, make_batch, terminal):
    screen = terminal(
        "dataset", "review", "answers", "--path", str(make_batch(1).folder), "--web", "--reviewer", "ann", columns=200
    )
    url = re.search(r"http://127\.0\.0\.1:\d+/", screen.until("Ctrl-C"))[0]
    page = Page(browser, f"{url}#token=wrong")
    page.until("message", "the token is missing or wrong: open the URL that hone printed")
    assert "question" not in page.text("row")
    browser.get_log("browser")  # the 401
