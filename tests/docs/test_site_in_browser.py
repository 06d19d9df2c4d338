"""The site as a stranger uses it in a browser: what they search is found, what they copy can be run."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.support.ui import WebDriverWait
from support.pages.browser import chromium

pytestmark = pytest.mark.e2e  # Chromium is installed where it is absent, for which root is needed
HANG = 120  # seconds; a guard against hanging, not an expectation
SEARCHED = {
    "cancel a run": "guides/faq",
    "tensorboard": "guides/tracking",
    "notebook": "guides/python",
    "CUDA out of memory": "guides/faq",
    "python sdk": "guides/faq",
    "hyperparameter sweep": "guides/sweeps",
    "web ui": "guides/faq",
    "resume": "guides/faq",
    "price": "guides/faq",
    "multi gpu": "guides/several-gpus",
    "gguf": "guides/use-your-model",
    "ollama": "guides/use-your-model",
    "vllm": "guides/serving",
    "dpo": "guides/methods/dpo",
    "jsonl format": "guides/data/formats",
    "hugging face token": "guides/faq",
    "uninstall": "guides/faq",
    "kueue": "guides/shared-clusters",
    "checkpoint": "guides/checkpoints",
    "air gapped": "guides/air-gapped",
    "openai": "guides/migrate",
    "axolotl": "guides/migrate",
    "early stopping": "guides/faq",
    "rollback": "guides/faq",
    "mlflow": "guides/mlflow",
    "chat with a model": "guides/faq",
    "stuck pending": "guides/faq",
    "loss is nan": "guides/runbooks/FineTuneJobLossNaN",
    "quota": "guides/shared-clusters",
    "spot instances": "guides/faq",
    "kubectl plugin": "guides/faq",
    "gpu memory": "guides/faq",
    "upload file": "reference/cli",
    "budget": "guides/estimate",
    "mcp": "guides/agents",
}
"""What people type, and a page among the first three that answers it."""
_DIALOG = "const dialog = [...document.body.children].map(each => each.shadowRoot).find(Boolean);"
_TYPE = """
const field = dialog?.querySelector("input[role=combobox]");
if (!field) return null;
Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(field, arguments[0]);
field.dispatchEvent(new Event("input", {bubbles: true}));
return true;
"""
_FOUND = """
return [dialog.querySelector("[role=status]").textContent,
  [...dialog.querySelectorAll("ol[role=listbox] a")].map(each => each.pathname)];
"""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def until(browser: Any, what: str, *arguments: str) -> Any:
    return WebDriverWait(browser, HANG, 0.05).until(lambda b: b.execute_script(_DIALOG + what, *arguments))


def test_what_strangers_search_is_among_the_first_three_pages(address: str) -> None:
    with chromium() as browser:
        browser.get(address)
        WebDriverWait(browser, HANG, 0.05).until(
            lambda b: (
                b.execute_script("document.querySelector('.md-search__button').click(); return true")
                and b.execute_script(_DIALOG + "return dialog?.querySelector('input[role=combobox]')")
            )
        )
        missed = {}
        for words, page in SEARCHED.items():
            until(browser, _TYPE, "no page has these letters: qxzjv")
            until(browser, 'return dialog.querySelector("[role=status]").textContent === "No results"')
            until(browser, _TYPE, words)
            until(browser, 'return !["No results", ""].includes(dialog.querySelector("[role=status]").textContent)')
            until(browser, 'return dialog.querySelector("ol[role=listbox] a")')
            _, paths = browser.execute_script(_DIALOG + _FOUND)
            first = list(dict.fromkeys(path.strip("/") for path in paths))[:3]
            if page not in first:
                missed[words] = first
        assert missed == {}


def test_the_copy_button_takes_commands_without_prompt_and_output(address: str) -> None:
    with chromium() as browser:
        permissions = {"origin": address.rstrip("/"), "permissions": ["clipboardReadWrite"]}
        browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
        assert copied(browser, f"{address}quickstart/", "hone check").splitlines() == [
            "hone check support.jsonl",
            "hone init support.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --gpus 1",
            "hone upload support.jsonl support",
            "hone run support.yaml",
            "hone chat support",
        ]
        words = "kubectl describe dset answers"
        assert copied(browser, f"{address}guides/data/report/", words) == words


def copied(browser: Any, page: str, words: str) -> str:
    """What the clipboard has after a click on the button of the first block with these words."""
    browser.get(page)
    find = """
    const button = [...document.querySelectorAll("pre")].find(each => each.textContent.includes(arguments[0]))
      ?.querySelector(".md-code__button");
    button?.scrollIntoView({block: "center"});
    return button;
    """
    WebDriverWait(browser, HANG, 0.05).until(lambda b: b.execute_script(find, words)).click()
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done, error => done(String(error)))"
    WebDriverWait(browser, HANG, 0.2).until(lambda b: words in b.execute_async_script(read))
    return str(browser.execute_async_script(read)).strip()
